"""Comparisons of softmax outputs are decided before the softmax."""

import numpy as np
import pytest
from helpers import box_assertions, query_of
from onnx import helper, numpy_helper

from lpverify.io.onnx import Model, import_model
from lpverify.ops.elementary import Exp
from lpverify.problem import compile_problem


def classifier(op_type: str, axis: int, shape: tuple[int, ...] = (1, 3)) -> Model:
    weight = numpy_helper.from_array(np.random.default_rng(0).normal(size=(2, 3)).astype(np.float32), "w")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node(op_type, ["z"], ["y"], axis=axis),
    ]
    ends = [
        helper.make_tensor_value_info("x", 1, [shape[0], 2]),
        helper.make_tensor_value_info("y", 1, list(shape)),
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return import_model(model.SerializeToString())


def smooth(model: Model, body: str) -> bool:
    """Whether the compiled network still has an exponential."""
    count = sum(model.inputs.sizes)
    problem = compile_problem(model.network, query_of(model, box_assertions([0] * count, [1] * count) + body))
    return any(isinstance(node.op, Exp) for node in problem.network.nodes)


@pytest.mark.parametrize("op_type", ["Softmax", "LogSoftmax"])
def test_order_needs_no_softmax(op_type: str) -> None:
    model = classifier(op_type, 1)
    assert not smooth(model, "(assert (or (and (>= Y_0 Y_1)) (and (>= Y_2 Y_1))))")
    points = np.random.default_rng(1).normal(size=(50, 2))
    ranked = model.network.evaluate(points)[model.network.ranked]
    assert (np.argsort(ranked) == np.argsort(model.network(points))).all()


@pytest.mark.parametrize(
    "body",
    [
        "(assert (>= Y_0 0.5))",
        "(assert (>= Y_0 Y_1))(assert (>= Y_2 0.1))",
        "(assert (>= (- Y_0 Y_1) 0.25))",
        "(assert (>= (* 2.0 Y_0) Y_1))",
    ],
)
def test_anything_else_does(body: str) -> None:
    assert smooth(classifier("Softmax", 1), body)


def test_two_rows_have_two_orders() -> None:
    assert classifier("Softmax", 1, (2, 3)).network.ranked is None
