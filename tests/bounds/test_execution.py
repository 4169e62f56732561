"""Networks with noise contain what float32 executions compute, whatever the order of their sums."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import onnx
import pytest
from helpers import box_assertions, dense_model, graph_proto, model_proto, query_of, random_dense
from onnx import TensorProto, helper

from lpverify.bounds.condense import condense
from lpverify.bounds.execution import Undefined, executed, require_covered
from lpverify.bounds.propagate import Region, propagate
from lpverify.config import Config, Deadline
from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.io.onnx import Model, import_model
from lpverify.multipliers import Effort
from lpverify.network import Network
from lpverify.ops import REGISTRY
from lpverify.ops.linear import Linear, Scale
from lpverify.ops.roundings import RULES
from lpverify.problem import compile_problem
from lpverify.search.engines import dense_engines
from lpverify.simplify import simplify
from lpverify.verdict import Sat, Unsat
from lpverify.verify import verify_query

FLOAT = TensorProto.FLOAT
LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_BASIC", "ORT_ENABLE_EXTENDED", "ORT_ENABLE_ALL")
NORMAL = np.float32(2.0**-126)


# Executions.


def runtimes(model: Model) -> Iterator[Callable[[np.ndarray], np.ndarray]]:
    """onnxruntime at each level of graph optimisation."""
    import onnxruntime

    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        session = onnxruntime.InferenceSession(model.serialized, options, providers=["CPUExecutionProvider"])

        def run(x: np.ndarray, session: onnxruntime.InferenceSession = session) -> np.ndarray:
            feeds = {t.name: x[t.part].astype(t.dtype).reshape(t.shape) for t in model.inputs.tensors}
            parts = [np.asarray(y, np.float64).reshape(-1) for y in session.run(None, feeds)]
            return np.concatenate(parts)

        yield run


@dataclass
class Summation:
    """A way to compute `w . x + b` in float32."""

    how: str
    rng: np.random.Generator

    def __call__(self, w: np.ndarray, x: np.ndarray, b: np.float32) -> np.float32:
        order = np.arange(len(w))
        if self.how == "reversed":
            order = order[::-1]
        if self.how in ("random", "bias", "fused", "flushed", "pairwise"):
            order = self.rng.permutation(len(w))
        terms = [self._flush(np.float32(w[i]) * np.float32(x[i])) for i in order]
        if self.how == "fused":
            return self._fused(w[order], x[order], b)
        if self.how == "pairwise":
            return np.float32(self._pairwise(terms) + b)
        total = b if self.how == "bias" else np.float32(0)
        for term in terms:
            total = self._flush(np.float32(total + term))
        return total if self.how == "bias" else self._flush(np.float32(total + b))

    def _flush(self, value: np.float32) -> np.float32:
        return np.float32(0) if self.how == "flushed" and abs(value) < NORMAL else value

    @staticmethod
    def _pairwise(terms: list[np.float32]) -> np.float32:
        while len(terms) > 1:
            pairs = [np.float32(a + b) for a, b in zip(terms[::2], terms[1::2], strict=False)]
            terms = pairs + (terms[-1:] if len(terms) % 2 else [])
        return terms[0]

    @staticmethod
    def _fused(w: np.ndarray, x: np.ndarray, b: np.float32) -> np.float32:
        total = b
        for a, v in zip(w, x, strict=True):  # products of floats are exact in float64
            total = np.float32(np.float64(total) + np.float64(a) * np.float64(v))
        return total


ORDERS = ("sequential", "reversed", "random", "pairwise", "bias", "fused", "flushed")
Layers = list[tuple[np.ndarray, np.ndarray]]


def run_dense(layers: Layers, x: np.ndarray, order: Summation) -> np.ndarray:
    """A dense ReLU network in float32; weights `(in, out)`."""
    x = x.astype(np.float32)
    for i, (weight, bias) in enumerate(layers):
        columns = zip(np.asarray(weight, np.float32).T, np.asarray(bias, np.float32), strict=True)
        x = np.array([order(w, x, b) for w, b in columns], np.float32)
        x = np.maximum(x, np.float32(0)) if i < len(layers) - 1 else x
    return x.astype(np.float64)


def exact_outputs(layers: Layers, x: np.ndarray) -> np.ndarray:
    """The same over the reals, to 64 bits of the mantissa."""
    value = x.astype(np.longdouble)
    for i, (weight, bias) in enumerate(layers):
        value = value @ np.asarray(weight, np.float32).astype(np.longdouble) + np.asarray(bias, np.float32)
        value = np.maximum(value, 0) if i < len(layers) - 1 else value
    return value


# Bounds.


def bounded(network: Network, lower: np.ndarray, upper: np.ndarray, method: str = "crown") -> Box:
    """Of the result, `(n,)` each."""
    region = Region(Box(lower[None], upper[None]))
    box = propagate(network, region, Effort(method), 2**20).boxes[network.output]  # type: ignore[arg-type]
    return Box(box.lower[0], box.upper[0])


def point_box(model: Model, x: np.ndarray) -> Box:
    """Bounds of all executions at one point: as wide as the noise."""
    return bounded(executed(model.network, model.steps, Box(x, x)), x, x)


def inside(box: Box, value: np.ndarray) -> bool:
    return bool(((box.lower <= value) & (value <= box.upper)).all())


def points(lower: np.ndarray, upper: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """float32 numbers: corners, and between."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(size=(count, len(lower)))
    share[: count // 3] = rng.integers(0, 2, size=(count // 3, len(lower)))
    x = (lower + share * (upper - lower)).astype(np.float32).astype(np.float64)
    return np.where((x < lower) | (x > upper), lower, x)


def onnx_model(
    nodes: list[onnx.NodeProto],
    shape: list[int],
    constants: dict[str, np.ndarray] | None = None,
    opset: int = 18,
    kinds: tuple[int, int] = (FLOAT, FLOAT),
) -> Model:
    graph = graph_proto(nodes, {"x": (kinds[0], shape)}, {"y": kinds[1]}, constants)
    return import_model(model_proto(graph, opset).SerializeToString())


def floats(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


# The table.


def test_every_operator_has_a_rule() -> None:
    """Covered or refused, but never forgotten."""
    names = {name for name, _ in REGISTRY.operators()}
    assert names == set(RULES) - {"Constant"}


def test_uncovered_nodes_are_all_listed() -> None:
    nodes = [
        helper.make_node("LpNormalization", ["x"], ["a"], name="first"),
        helper.make_node("Relu", ["a"], ["b"], name="fine"),
        helper.make_node("LRN", ["b"], ["y"], name="second", size=3),
    ]
    model = onnx_model(nodes, [1, 3, 2, 2])
    with pytest.raises(UnsupportedError, match=r"2 node\(s\); declare .* as real") as caught:
        executed(model.network, model.steps, Box(np.zeros(12), np.ones(12)))
    assert "'first'" in str(caught.value)
    assert "'second'" in str(caught.value)
    assert "'fine'" not in str(caught.value)


def test_moved_steps_give_the_same_bounds() -> None:
    """A network with values put in front, as when models are assembled."""
    model = random_dense(3, (3, 8, 2))
    nodes = model.network.nodes
    extra = replace(nodes[1], op=Scale(np.ones(())), inputs=(0,), shape=(3,))
    place = [0, *range(2, len(nodes) + 1)]
    moved = [replace(n, inputs=tuple(place[i] for i in n.inputs)) for n in nodes]
    network = Network((moved[0], extra, *moved[1:]), place[model.network.output])
    steps = [s.moved(place.__getitem__) for s in model.steps]
    low, high = -np.ones(3), np.ones(3)
    one = bounded(executed(model.network, model.steps, Box(low, high)), low, high)
    two = bounded(executed(network, steps, Box(low, high)), low, high)
    np.testing.assert_array_equal(one.lower, two.lower)
    np.testing.assert_array_equal(one.upper, two.upper)


def test_it_is_deterministic_and_forgets_the_order() -> None:
    nodes = [helper.make_node("Softmax", ["x"], ["y"])]
    model = onnx_model(nodes, [1, 4])
    assert model.network.ranked is not None
    box = Box(-np.ones(4), np.ones(4))
    one, two = (executed(model.network, model.steps, box) for _ in range(2))
    assert one.ranked is None
    for a, b in zip(one.nodes, two.nodes, strict=True):
        assert (a.inputs, a.shape, type(a.op)) == (b.inputs, b.shape, type(b.op))
        if isinstance(a.op, Scale):
            np.testing.assert_array_equal(a.op.offset_error, b.op.offset_error)


# Dense networks, in many orders.


def cancelling(seed: int, sizes: tuple[int, ...]) -> Layers:
    """Large weights that nearly cancel."""
    rng = np.random.default_rng(seed)
    layers = []
    for a, b in pairwise(sizes):
        weight = rng.normal(size=(a, b)) * 10.0 ** rng.integers(-3, 6, size=(a, 1))
        weight[a // 2 : 2 * (a // 2)] = -weight[: a // 2] * (1 + 1e-6 * rng.normal(size=(a // 2, b)))
        layers.append((weight.astype(np.float32), rng.normal(size=b).astype(np.float32) * 1e3))
    return layers


def plain(seed: int, sizes: tuple[int, ...]) -> Layers:
    rng = np.random.default_rng(seed)
    return [(floats(a, b, seed=seed + a), 0.3 * rng.normal(size=b)) for a, b in pairwise(sizes)]


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("make", [plain, cancelling])
def test_dense_networks_in_any_order(make: Callable[[int, tuple[int, ...]], Layers], order: str) -> None:
    """At points, where the bounds are as wide as the noise, and over a box."""
    for seed in range(4):
        layers = make(seed, (6, 20, 12, 3))
        model, sum_ = dense_model(layers), Summation(order, np.random.default_rng(seed))
        low, high = -np.ones(6), np.ones(6)
        whole = bounded(executed(model.network, model.steps, Box(low, high)), low, high)
        for x in points(low, high, 6, seed):
            computed = run_dense(layers, x, sum_)
            assert inside(point_box(model, x), computed)
            assert inside(whole, computed)


def test_noise_is_not_much_larger_than_errors() -> None:
    """The bounds at a point are some multiple of what orders of summation really do."""
    layers = plain(0, (6, 20, 12, 3))
    model, rng = dense_model(layers), np.random.default_rng(0)
    x = points(-np.ones(6), np.ones(6), 3)[-1]
    box, exact = point_box(model, x), exact_outputs(layers, x).astype(np.float64)
    assert inside(box, exact)
    runs = [run_dense(layers, x, Summation(order, rng)) for order in ORDERS for _ in range(20)]
    worst = np.abs(np.array(runs) - exact).max(axis=0)
    assert (box.upper - box.lower < 800 * worst).all()


@pytest.mark.parametrize("order", ORDERS)
def test_each_layer_is_within_its_noise(order: str) -> None:
    """Noise over a box bounds `computed - real` of every node, given the operands that were computed."""
    layers, sum_ = plain(5, (5, 30, 20, 2)), Summation(order, np.random.default_rng(5))
    model = dense_model(layers)
    low, high = -np.ones(5), np.ones(5)
    noisy = simplify(executed(model.network, model.steps, Box(low, high)))
    noise = [n.op for n in noisy.nodes if isinstance(n.op, Linear)]
    assert len(noise) == len(layers)
    for x in points(low, high, 20):
        value = x.astype(np.float32)
        for (weight, bias), op in zip(layers, noise, strict=True):
            error = op.weight_error * op.abs_linear(np.abs(value).astype(np.float64)) + op.offset_error
            computed = run_dense([(weight, bias)], value, sum_)
            real = exact_outputs([(weight, bias)], value)
            assert (np.abs(computed - real) <= np.asarray(error).reshape(-1)).all()
            value = np.maximum(computed, 0).astype(np.float32)


def test_boxes_around_underflow() -> None:
    """Products that are flushed to zero leave what the floor of magnitudes covers."""
    layers = [(np.full((4, 1), 1e-20, np.float32), np.zeros(1, np.float32))]
    model, x = dense_model(layers), np.full(4, float(np.float32(1e-20)))
    box = point_box(model, x)
    assert inside(box, np.zeros(1))
    assert inside(box, exact_outputs(layers, x).astype(np.float64))


# Chains of nodes, against onnxruntime with its fusions.


def convolutional() -> Model:
    """Conv, BatchNormalization (fused by runtimes), a residual sum, pools, and a dense head."""
    constants = {
        "w": floats(4, 2, 3, 3),
        "b": floats(4, seed=1),
        "w2": floats(4, 4, 3, 3, seed=2, scale=0.3),
        "head": floats(36, 3, seed=3),
        "bias": floats(3, seed=4),
        **{f"n{i}": np.abs(floats(4, seed=5 + i)) * 10.0 ** (3 * (i == 2)) + 0.01 for i in range(4)},
    }
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        node("BatchNormalization", ["c", "n0", "n1", "n2", "n3"], ["d"]),
        node("Relu", ["d"], ["e"]),
        node("Conv", ["e", "w2"], ["f"], pads=[1, 1, 1, 1]),
        node("Add", ["f", "e"], ["g"]),
        node("AveragePool", ["g"], ["h"], kernel_shape=[2, 2], strides=[2, 2]),
        node("Flatten", ["h"], ["i"]),
        node("MatMul", ["i", "head"], ["j"]),
        node("Add", ["j", "bias"], ["y"]),
    ]
    return onnx_model(nodes, [1, 2, 6, 6], constants)


def attention() -> Model:
    """Products of values, softmax, and a normalisation made of its parts."""
    constants = {
        "q": floats(4, 4),
        "k": floats(4, 4, seed=1),
        "v": floats(4, 4, seed=2),
        "half": np.float32(0.5),
    }
    constants["axes"] = np.array([-1])
    node = helper.make_node
    nodes = [
        *(node("MatMul", ["x", n], [n + "x"]) for n in "qkv"),
        node("Transpose", ["kx"], ["kt"], perm=[0, 2, 1]),
        node("MatMul", ["qx", "kt"], ["s"]),
        node("Mul", ["s", "half"], ["t"]),
        node("Softmax", ["t"], ["p"], axis=-1),
        node("MatMul", ["p", "vx"], ["o"]),
        node("ReduceMean", ["o", "axes"], ["m"]),
        node("Sub", ["o", "m"], ["d"]),
        node("Mul", ["d", "d"], ["dd"]),
        node("ReduceMean", ["dd", "axes"], ["var"]),
        node("Add", ["var", "half"], ["var1"]),
        node("Sqrt", ["var1"], ["std"]),
        node("Div", ["d", "std"], ["n"]),
        node("Gelu", ["n"], ["y"]),
    ]
    return onnx_model(nodes, [1, 3, 4], constants, opset=20)


def folded() -> Model:
    """Weights that a runtime computes in float32."""
    constants = {"a": floats(5, 7), "b": floats(7, 4, seed=1), "s": floats(4, seed=2), "t": floats(4, seed=3)}
    node = helper.make_node
    nodes = [
        node("MatMul", ["a", "b"], ["ab"]),
        node("Div", ["ab", "s"], ["w"]),
        node("Sqrt", ["ss"], ["root"]),
        node("Add", ["root", "t"], ["u"]),
        node("MatMul", ["x", "w"], ["z"]),
        node("Mul", ["z", "u"], ["zu"]),
        node("Div", ["zu", "root"], ["y"]),
    ]
    return onnx_model(nodes, [1, 5], constants | {"ss": np.abs(floats(4, seed=4))})


@pytest.mark.parametrize("make", [convolutional, attention, folded])
def test_chains_against_onnxruntime(make: Callable[[], Model]) -> None:
    model = make()
    size = model.network.input_size
    low, high = -np.ones(size), np.ones(size)
    whole = bounded(executed(model.network, model.steps, Box(low, high)), low, high)
    at = points(low, high, 8)
    boxes = [point_box(model, x) for x in at]
    assert all(np.isfinite(box.upper).all() for box in boxes)
    for run in runtimes(model):
        for x, box in zip(at, boxes, strict=True):
            assert inside(box, run(x))
            assert inside(whole, run(x))


def test_rounded_constants_count() -> None:
    """The noise with constants that a runtime rounds is larger than with the same constants stored."""
    stored = floats(50, 1)
    twice = {"a": stored, "b": np.full(1, 3.0, np.float32)}
    nodes = [helper.make_node("Div", ["a", "b"], ["w"]), helper.make_node("MatMul", ["x", "w"], ["y"])]
    model = onnx_model(nodes, [1, 50], twice)
    (step,) = model.steps
    computed, exact = stored / np.float32(3.0), stored.astype(np.float64) / 3
    assert (np.abs(computed - exact) <= step.drift * np.abs(exact)).all()
    assert 0 < step.drift < 1e-6


def test_constants_that_cancel_are_refused() -> None:
    constants = {"a": np.float32([1e8]), "b": np.float32([3.0]), "c": np.float32([3.3333332e7])}
    nodes = [
        helper.make_node("Div", ["a", "b"], ["q"]),
        helper.make_node("Sub", ["q", "c"], ["w"]),
        helper.make_node("Mul", ["x", "w"], ["y"]),
    ]
    model = onnx_model(nodes, [1], constants)
    with pytest.raises(UnsupportedError, match="constants computed with rounding"):
        require_covered(model.steps)


# What noise decides.


def absorbing() -> Model:
    """`(x + 1e8) - 1e8`: x over the reals, a multiple of 8 in float32."""
    nodes = [helper.make_node("Add", ["x", "c"], ["s"]), helper.make_node("Sub", ["s", "c"], ["y"])]
    return onnx_model(nodes, [1, 1], {"c": np.full((1, 1), 1e8, np.float32)})


def test_a_violation_that_only_floats_have() -> None:
    """Over the reals y = x < 7; in float32 y = 8. Noise must leave it open."""
    model = absorbing()
    assert all(run(np.array([5.5])) == 8 for run in list(runtimes(model))[:1])
    query = query_of(model, box_assertions([5], [6]) + "(assert (>= Y_0 7))")
    assert isinstance(verify_query(model, query, Config(deadline=Deadline.after(20))), Unsat)
    low, high = np.array([5.0]), np.array([6.0])
    noisy = executed(model.network, model.steps, Box(low, high))
    assert bounded(noisy, low, high).upper >= 8
    typed = replace(model, network=noisy)
    verdict = verify_query(typed, query, Config(deadline=Deadline.after(5)))
    assert isinstance(verdict, Sat) or not isinstance(verdict, Unsat)


@pytest.mark.parametrize("margin", [1e-7, 1e-2])
def test_a_dense_network_is_decided_with_noise(margin: float) -> None:
    """A margin above the noise is proved by the compiled kernel's search; one below stays open."""
    layers = plain(1, (3, 16, 16, 1))
    model, rng = dense_model(layers), np.random.default_rng(0)
    low, high = -0.1 * np.ones(3), 0.1 * np.ones(3)
    noisy = replace(model, network=executed(model.network, model.steps, Box(low, high)))
    x = points(low, high, 4000)
    x = x[np.argmax([exact_outputs(layers, v)[0] for v in x])]
    most = max(run_dense(layers, x, Summation(order, rng))[0] for order in ORDERS)
    problem = compile_problem(
        noisy.network, query_of(model, box_assertions(list(low), list(high)) + "(assert (>= Y_0 0))")
    )
    graph = condense(problem.network)
    assert graph is not None
    query = query_of(model, box_assertions(list(low), list(high)) + f"(assert (>= Y_0 {most + margin:.12f}))")
    verdict = verify_query(noisy, query, Config(deadline=Deadline.after(10)))
    if margin > 1e-3:
        assert isinstance(verdict, Unsat)
    else:
        assert not isinstance(verdict, Unsat)


def test_simplify_keeps_the_noise_in_affine_nodes() -> None:
    model = random_dense(0, (4, 10, 10, 2))
    low, high = -np.ones(4), np.ones(4)
    noisy = executed(model.network, model.steps, Box(low, high))
    small = simplify(noisy)
    assert not any(isinstance(n.op, Scale) for n in small.nodes)
    assert len(small.nodes) == len(simplify(model.network).nodes)
    one, two = (bounded(net, low, high) for net in (noisy, small))
    np.testing.assert_allclose(one.upper, two.upper, rtol=1e-5)


@pytest.mark.parametrize("outer", [Scale(np.ones(()), np.ones(2)), Linear(np.eye(2), np.ones(2))])
def test_errors_without_an_offset_survive_simplification(outer: Scale | Linear) -> None:
    inner = Linear(np.eye(2), None, 0.0, np.array([0.25, 0.5]))
    start = random_dense(0, (2, 2, 1)).network.nodes[0]
    nodes = (start, replace(start, op=inner, inputs=(0,)), replace(start, op=outer, inputs=(1,)))
    small = simplify(Network(nodes, 2))
    assert len(small.nodes) == 2
    box = bounded(small, np.zeros(2), np.zeros(2), "ibp")
    assert (box.lower <= [0.75, 0.5]).all()
    assert (box.upper >= [1.25, 1.5]).all()


def test_noise_of_scales_survives_simplification() -> None:
    start = random_dense(0, (2, 2, 1)).network.nodes[0]
    inner = Linear(np.eye(2), np.ones(2))
    noise = Scale(np.ones(()), np.zeros(2), 0.0, np.array([0.25, 0.5]))
    nodes = (start, replace(start, op=inner, inputs=(0,)), replace(start, op=noise, inputs=(1,)))
    small = simplify(Network(nodes, 2))
    assert len(small.nodes) == 2
    box = bounded(small, np.zeros(2), np.zeros(2), "ibp")
    assert (box.lower <= [0.75, 0.5]).all()
    assert (box.upper >= [1.25, 1.5]).all()


@pytest.mark.parametrize("op", ["Tanh", "Exp", "Sqrt", "Reciprocal"])
def test_noise_of_one_node_on_feature_maps(op: str) -> None:
    model = onnx_model([helper.make_node(op, ["x"], ["y"])], [1, 2, 3, 3])
    rng = np.random.default_rng(0)
    for _ in range(20):
        x = np.abs(rng.normal(size=18)).astype(np.float32).astype(np.float64)
        assert all(inside(point_box(model, x), run(x)) for run in runtimes(model))


# Overflow, types, quantisation.


def test_what_may_overflow_is_open_from_there_on() -> None:
    nodes = [
        helper.make_node("Exp", ["x"], ["e"]),
        helper.make_node("Clip", ["e", "zero", "one"], ["y"]),
    ]
    model = onnx_model(nodes, [1, 1], {"zero": np.float32(0), "one": np.float32(1)})
    low, high = np.array([0.0]), np.array([89.0])
    noisy = executed(model.network, model.steps, Box(low, high))
    assert any(isinstance(n.op, Undefined) for n in noisy.nodes)
    assert bounded(noisy, low, high).upper == np.inf
    fine = executed(model.network, model.steps, Box(low, low + 80))
    assert bounded(fine, low, low + 80).upper < 1.1


@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32", "float64"])
def test_results_follow_their_element_type(kind: str) -> None:
    """Noise is in units of the declared type, and holds for a rounding to nearest there."""
    code = (
        helper.np_dtype_to_tensor_dtype(np.dtype("float32"))
        if kind == "float32"
        else getattr(TensorProto, kind.upper() if kind != "float64" else "DOUBLE")
    )
    nodes = [helper.make_node("Add", ["x", "x"], ["s"]), helper.make_node("Add", ["s", "x"], ["y"])]
    model = onnx_model(nodes, [1, 1], kinds=(code, code))
    x = np.array([1.0 + 2.0**-6])
    box, unit = point_box(model, x), {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}[kind]
    exact = 3 * Fraction(x[0])
    assert (box.upper[0] - float(exact)) > 2.0**-unit * 3
    assert (box.upper[0] - float(exact)) < 2.0**-unit * 3 * 64


def test_casts_to_narrower_floats_round() -> None:
    nodes = [helper.make_node("Cast", ["x"], ["y"], to=FLOAT)]
    model = onnx_model(nodes, [1, 1], kinds=(TensorProto.DOUBLE, FLOAT))
    x = np.array([1 / 3])
    assert inside(point_box(model, x), np.array([float(np.float32(1 / 3))]))
    same = onnx_model(
        [helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)],
        [1, 1],
        kinds=(FLOAT, TensorProto.DOUBLE),
    )
    box = point_box(same, x)
    assert box.lower == box.upper == x


def test_quantisation_near_a_tie_may_go_either_way() -> None:
    scale = np.float32(0.1)
    constants = {"s": scale, "z": np.uint8(0)}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"]),
    ]
    model = onnx_model(nodes, [1, 64], constants)
    rng = np.random.default_rng(0)
    x = ((rng.integers(0, 100, size=64) + 0.5) * float(scale)).astype(np.float32).astype(np.float64)
    box = point_box(model, x)
    assert (box.upper - box.lower > 0.09).sum() > 32
    for run in runtimes(model):
        assert inside(box, run(x))
    away = (x + 0.02).astype(np.float32).astype(np.float64)
    box = point_box(model, away)
    assert (box.upper - box.lower < 1e-3).all()
    assert all(inside(box, run(away)) for run in runtimes(model))


def test_kernel_is_used() -> None:
    """The condensed network with noise is one that the kernel's engines take."""
    model = random_dense(0, (4, 10, 2))
    noisy = executed(model.network, model.steps, Box(-np.ones(4), np.ones(4)))
    query = query_of(model, box_assertions([-1] * 4, [1] * 4) + "(assert (>= Y_0 100))")
    assert dense_engines(compile_problem(noisy, query), Config(deadline=Deadline.after(5)))
