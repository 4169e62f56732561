"""The bound of float32 rounding that real networks are compared by: it holds, and it notices small faults."""

from dataclasses import replace

import numpy as np
import onnxruntime
import pytest
from helpers import dense_model, model_of, random_dense
from onnx import helper, numpy_helper
from rounding import estimate

from lpverify.ops.linear import Linear

POINTS = 60


def points(inputs, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, (POINTS, inputs)).astype(np.float32).astype(np.float64)


def compared(model, x, network=None):
    """How much of its bound every output's difference from onnxruntime uses, and which points are sure."""
    session = onnxruntime.InferenceSession(model.serialized, providers=["CPUExecutionProvider"])
    theirs = np.stack([session.run(None, {"x": p[None].astype(np.float32)})[0].reshape(-1) for p in x])
    outputs = np.tile(np.arange(theirs.shape[1]), (len(x), 1))
    found = estimate(network or model.network, x, outputs)
    differences = np.abs(theirs - found.values)
    with np.errstate(all="ignore"):
        return np.where(differences > 0, differences / found.bounds, 0.0), found.sure


def tensors(**arrays):
    return [numpy_helper.from_array(np.asarray(a, np.float32), name) for name, a in arrays.items()]


def mixed(seed):
    """Matrix, batch normalisation, sigmoid, product of values, softmax, maximum, quotient."""
    rng = np.random.default_rng(seed)
    names = ("scale", "shift", "mean")
    data = tensors(w=rng.normal(size=(6, 8)), v=rng.normal(size=(8, 5)), c=rng.normal(size=5))
    data += tensors(**{n: rng.normal(size=8) for n in names}, var=rng.uniform(0.1, 1, 8), two=np.float32(2))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node("BatchNormalization", ["z", *names, "var"], ["n"]),
        helper.make_node("Sigmoid", ["n"], ["s"]),
        helper.make_node("Mul", ["s", "z"], ["p"]),
        helper.make_node("Gemm", ["p", "v", "c"], ["g"]),
        helper.make_node("Softmax", ["g"], ["q"]),
        helper.make_node("Max", ["g", "q"], ["m"]),
        helper.make_node("Abs", ["m"], ["a"]),
        helper.make_node("Add", ["a", "two"], ["b"]),
        helper.make_node("Div", ["g", "b"], ["y"]),
    ]
    return model_of(nodes, data, (6, 5))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("model", [lambda seed: random_dense(seed, (10, 30, 30, 5)), mixed])
def test_the_bound_holds_and_is_tight(model, seed):
    used, sure = compared(model(seed), points(model(seed).network.input_size, seed))
    assert sure.all()
    assert np.median(used[used > 0]) > 3e-3
    assert used.max() < 1


def with_fault(network, k, row, column, fault):
    """The network with one weight of value k's matrix changed, relative to its size."""
    weight = network.nodes[k].op.weight.copy()
    weight[row, column] *= 1 + fault
    node = replace(network.nodes[k], op=replace(network.nodes[k].op, weight=weight))
    return replace(network, nodes=(*network.nodes[:k], node, *network.nodes[k + 1 :]))


def test_a_fault_of_a_ten_thousandth_in_a_weight_is_noticed():
    """If it changes some output by a hundred-thousandth of the largest, as many do."""
    model, x = random_dense(3, (6, 12, 12, 4)), points(6)
    right = model.network(x)
    matrices = {k: n.op.weight.shape for k, n in enumerate(model.network.nodes) if isinstance(n.op, Linear)}
    faulty = [(k, *place) for k, shape in matrices.items() for place in np.ndindex(shape)]
    effective = 0
    for place in faulty:
        wrong = with_fault(model.network, *place, 1e-4)
        if np.abs(wrong(x) - right).max() > 1e-5 * np.abs(right).max():
            effective += 1
            assert compared(model, x, wrong)[0].max() > 2, place
    assert len(matrices) == 3
    assert effective > 0.3 * len(faulty)


def test_a_closed_neuron_near_its_kink_has_an_error():
    model = dense_model([(np.array([[1.0], [1.0]]), [-0.3]), (np.array([[1.0]]), [0.0])])
    x = np.array([[0.1, 0.2], [-1.0, 0.0]])  # just below the kink in float64, above it in float32
    found = estimate(model.network, x, np.zeros((2, 1), int))
    assert found.values[0, 0] < 1e-8 < found.bounds[0, 0] < 1e-6
    assert (found.bounds[1] < 1e-30).all()


def steps(operator, weight):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node(operator, ["z"], ["y"])]
    return model_of(nodes, tensors(w=np.asarray(weight)[:, None]), (len(weight), 1))


def test_points_near_a_jump_are_not_sure():
    model = steps("Sign", [0.1, 0.1, -0.2])
    x = np.array([[0.5, 0.5, 0.5], [0.5, 0.5, 0.5 + 1e-9], [0.5, 0.5, 0.50001], [0, 0, 0]])
    used, sure = compared(model, x)
    assert sure.tolist() == [False, False, True, True]
    assert not used[sure].any()


def test_whole_numbers_are_exact():
    model = steps("Floor", [3, 2, -5])
    found = estimate(model.network, np.array([[1.0, 2.0, 7.0], [0.1, 0.0, 0.14]]), np.zeros((2, 1), int))
    assert found.sure.tolist() == [True, True]
    assert found.values.tolist() == [[-28], [-1]]
    assert not estimate(model.network, np.array([[0.1, 0.1, 0.1]]) + 1e-9, np.zeros((1, 1), int)).sure.any()


def test_results_that_underflow():
    nodes = [helper.make_node("Mul", ["x", "c"], ["z"]), helper.make_node("Exp", ["z"], ["y"])]
    used, sure = compared(model_of(nodes, tensors(c=np.float32(150)), (4, 4)), -np.abs(points(4)))
    assert sure.all()
    assert used.max() < 1


def test_a_coarser_type_has_a_larger_bound():
    network, x, outputs = random_dense(1, (4, 6, 2)).network, points(4), np.zeros((POINTS, 1), int)
    bounds = [estimate(network, x, outputs, kind).bounds for kind in ("float16", "float32", "float64")]
    assert (bounds[0] > 1e3 * bounds[1]).all()
    assert (bounds[1] > 1e7 * bounds[2]).all()
