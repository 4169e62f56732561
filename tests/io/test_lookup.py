"""Subgraphs with computed slices, ranges and scatters: tables of a few whole numbers."""

import numpy as np
import onnx
import pytest
from helpers import box_assertions, query_of
from onnx import TensorProto, helper, numpy_helper

from lpverify.bounds.linear import backward, centre_value
from lpverify.bounds.propagate import Region, propagate
from lpverify.config import Config, Deadline
from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.io.onnx import Model, import_model
from lpverify.multipliers import Effort
from lpverify.ops.lookup import Lookup
from lpverify.verdict import Sat, Unsat
from lpverify.verify import verify_query

SIZE = 5


def _constant(name: str, array: object, dtype: type = np.int64) -> onnx.TensorProto:
    return numpy_helper.from_array(np.asarray(array, dtype), name)


def marked() -> bytes:
    """`y = sum of w_i x_i m_i(p)`: x are 5 inputs, p is the sixth; m has a zero at the whole part of p."""
    n = helper.make_node
    nodes = [
        n("Slice", ["in", "first", "five"], ["x"]),
        n("Slice", ["in", "five", "six"], ["p"]),
        n("Cast", ["p"], ["whole"], to=TensorProto.INT64),
        n("Add", ["whole", "one"], ["next"]),
        n("Slice", ["positions", "whole", "next"], ["picked"]),
        n("Unsqueeze", ["picked"], ["index"], axes=[1]),
        n("Shape", ["picked"], ["count"]),
        n("Expand", ["zero", "count"], ["zeros"]),
        n("ScatterND", ["ones", "index", "zeros"], ["mask"]),
        n("Mul", ["x", "mask"], ["kept"]),
        n("Mul", ["kept", "w"], ["weighted"]),
        n("ReduceSum", ["weighted"], ["y"], axes=[0], keepdims=1),
    ]
    tensors = [
        _constant("first", [0]),
        _constant("five", [SIZE]),
        _constant("six", [SIZE + 1]),
        _constant("one", [1]),
        _constant("positions", np.arange(SIZE)),
        _constant("zero", [0.0], np.float32),
        _constant("ones", np.ones(SIZE), np.float32),
        _constant("w", np.arange(1, SIZE + 1), np.float32),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [size])
        for name, size in (("in", SIZE + 1), ("y", 1))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=8)
    return model.SerializeToString()


def exact(x: np.ndarray) -> float:
    weights = np.arange(1, SIZE + 1, dtype=float)
    place = int(x[-1])
    if 0 <= place < SIZE:
        weights[place] = 0.0
    return float(weights @ x[:-1])


def table_of(model: Model) -> Lookup:
    """The last one."""
    return [n.op for n in model.network.nodes if isinstance(n.op, Lookup)][-1]


def test_forward_and_hulls() -> None:
    model = import_model(marked())
    rng = np.random.default_rng(0)
    points = np.concatenate([rng.normal(size=(40, SIZE)), rng.uniform(-1, 8, (40, 1))], axis=1)
    np.testing.assert_allclose(model.network(points)[:, 0], [exact(x) for x in points])
    op = table_of(model)
    assert op.span == (0.0, 1.0)
    for low, high in ((1, 1), (0, 4), (2, 3), (5, 9), (-1e9, 1e9)):
        box = Box(np.full((1, 1), float(low)), np.full((1, 1), float(high)))
        lower, upper = op.interval(box)
        for key in range(max(int(low), -2), min(int(high), 12) + 1):
            value = op.forward(np.full((1, 1), float(key)))
            assert (lower <= value).all() and (value <= upper).all()
    assert op.interval(Box(np.full((1, 1), 6.0), np.full((1, 1), 9.0)))[0].min() == 1.0


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_backward_bounds_are_below_samples(sign: float) -> None:
    """Keys 0 to 4 at once: the mask is only known by its box, the rest by its slopes."""
    network, rng = import_model(marked()).network, np.random.default_rng(1)
    lower, upper = np.array([[-1.0] * SIZE + [0.0]]), np.array([[2.0] * SIZE + [4.9]])
    frame = propagate(network, Region(Box(lower, upper)), Effort("crown"), 2**20)
    rows = np.full((1, 1, 1), sign)
    linear = backward(frame, network.output, rows, centre_value(rows, frame.centres[network.output]))
    points = rng.uniform(lower, upper, (500, SIZE + 1))
    values = sign * np.array([exact(x) for x in points])
    line = (points - linear.centre) @ linear.a[0, 0] + linear.constant[0, 0]
    assert (line <= values).all() and linear.concretize(Box(lower, upper))[0, 0] <= values.min()
    assert np.isfinite(linear.constant).all()


@pytest.mark.parametrize(("threshold", "kind"), [(10.5, Sat), (9.9, Unsat)])
def test_every_position_is_decided(threshold: float, kind: type) -> None:
    """With x = 1 the sum is 15 less the weight at the mark: 10 at least."""
    model = import_model(marked())
    body = box_assertions([1] * SIZE + [0], [1] * SIZE + ["7.5"]) + f"(assert (<= Y_0 {threshold}))"
    verdict = verify_query(model, query_of(model, body), Config(deadline=Deadline.after(30)))
    assert isinstance(verdict, kind), verdict
    if isinstance(verdict, Sat):
        assert int(verdict.witness.inputs[-1]) == SIZE - 1


def test_keys_of_another_shape_have_no_result() -> None:
    """The slice itself: it has one element or none."""
    data = onnx.ModelProto.FromString(marked())
    nodes = [node for node in data.graph.node if node.op_type != "ReduceSum"]
    del data.graph.node[:]
    data.graph.node.extend(nodes)
    data.graph.node.append(helper.make_node("Cast", ["picked"], ["floats"], to=TensorProto.FLOAT))
    data.graph.node.append(helper.make_node("Mul", ["floats", "w"], ["y"]))
    model = import_model(data.SerializeToString())
    op = table_of(model)
    lower, upper = op.interval(Box(np.full((1, 1), 0.0), np.full((1, 1), 7.0)))
    assert not np.isfinite(lower).any() and not np.isfinite(upper).any()


def test_a_table_of_computed_floats_is_unsupported() -> None:
    """A computed float among the data of the scatter."""
    data = onnx.ModelProto.FromString(marked())
    next(n for n in data.graph.node if n.op_type == "ScatterND").input[0] = "x"
    with pytest.raises(UnsupportedError):
        import_model(data.SerializeToString())
