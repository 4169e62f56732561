"""Functions: replaced by their nodes, or refused."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import agrees, calling, graph_proto, model_proto, refused
from onnx import TensorProto, helper, numpy_helper

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.limits import ModelLimits
from lpverify.io.onnx import import_model
from lpverify.ops import REGISTRY

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def function(
    name: str, inputs: list[str], outputs: list[str], nodes: list[Any], *attributes: str, **options: Any
) -> Any:
    """A function of domain `own` in opset 18."""
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return helper.make_function("own", name, inputs, outputs, nodes, imports, list(attributes), **options)


# --- functions of the model ---


def test_a_function_that_is_called_twice_and_calls_another() -> None:
    inner = function("Inner", ["a", "b"], ["c"], [node("Mul", ["a", "b"], ["x"]), node("Relu", ["x"], ["c"])])
    nodes = [
        node("Inner", ["a", "a"], ["x"], domain="own"),
        node("Inner", ["x", "w"], ["y"], domain="own"),
        node("Sub", ["y", "x"], ["c"]),
    ]
    outer = function("Outer", ["a", "w"], ["c", "x"], nodes)
    calls = [
        node("Outer", ["x", "w"], ["c", ""], domain="own"),
        node("Outer", ["c", "w"], ["d", "e"], domain="own"),
        node("Add", ["d", "e"], ["y"]),
    ]
    agrees(calling(calls, inner, outer, constants={"w": np.float32([1, -2, 3])}))


def test_attributes_of_calls_and_their_defaults() -> None:
    relu = node("LeakyRelu", ["a"], ["b"])
    attribute = relu.attribute.add()
    attribute.name, attribute.ref_attr_name, attribute.type = "alpha", "slope", onnx.AttributeProto.FLOAT
    leaky = function("Leaky", ["a"], ["b"], [relu], attribute_protos=[helper.make_attribute("slope", 0.25)])
    calls = [node("Leaky", ["x"], ["z"], domain="own"), node("Leaky", ["z"], ["y"], domain="own", slope=0.5)]
    model = agrees(calling(calls, leaky))
    np.testing.assert_array_equal(model.network(np.full((1, 6), -1.0)), np.full((1, 6), -0.125))
    unset = function("Leaky", ["a"], ["b"], [relu], "slope")  # then that of the operator
    model = agrees(calling([node("Leaky", ["x"], ["y"], domain="own")], unset))
    np.testing.assert_allclose(model.network(np.full((1, 6), -1.0)), np.full((1, 6), -0.01))


def test_omitted_inputs_and_results_that_are_inputs() -> None:
    body = [node("Clip", ["a", "low", "high"], ["b"])]
    clip = function("Clipped", ["a", "low", "high"], ["b", "a"], body)
    calls = [
        node("Clipped", ["x", "", "w"], ["z", "t"], domain="own"),
        node("Clipped", ["t", "w"], ["s"], domain="own"),
        node("Add", ["z", "s"], ["y"]),
    ]
    data = calling(calls, clip, constants={"w": np.float32(0.5)}).SerializeToString()
    x = np.array([[-2.0, -1.0, 0.0, 0.25, 1.0, 3.0]])  # onnxruntime refuses functions like this one
    expected = np.minimum(x, 0.5) + np.maximum(x, 0.5)
    np.testing.assert_array_equal(import_model(data).network(x), expected)


def test_names_of_the_model_are_not_those_of_a_function() -> None:
    body = [node("Add", ["a", "w"], ["b"])]  # w is not an input of the function
    calls = [node("F", ["x"], ["y"], domain="own")]
    proto = calling(calls, function("F", ["a"], ["b"], body), constants={"w": np.float32([1, 2, 3])})
    refused(proto, OnnxError, "'@0/w' is defined nowhere")


def test_a_model_that_uses_our_names_for_its_own() -> None:
    body = [node("Neg", ["a"], ["t"]), node("Exp", ["t"], ["b"])]
    calls = [
        node("F", ["x"], ["@0/t"], domain="own"),
        node("F", ["@0/t"], ["@@1/t"], domain="own"),
        node("Add", ["@0/t", "@@1/t"], ["y"]),
    ]
    agrees(calling(calls, function("F", ["a"], ["b"], body)))
    calls[2] = node("Add", ["@0/t", "@@@0/t"], ["y"])
    refused(calling(calls, function("F", ["a"], ["b"], body)), OnnxError, "defined nowhere")


def test_a_function_of_another_opset_than_the_model() -> None:
    squeeze = node("Unsqueeze", ["a"], ["b"], axes=[0])  # an input since opset 13
    old = helper.make_function("own", "Old", ["a"], ["b"], [squeeze], [helper.make_opsetid("", 11)])
    proto = calling([node("Old", ["x"], ["z"], domain="own"), node("Relu", ["z"], ["y"])], old)
    assert import_model(proto.SerializeToString()).outputs.shapes == ((1, 2, 3),)
    older = helper.make_function("own", "Old", ["a"], ["b"], [squeeze], [helper.make_opsetid("", 6)])
    refused(calling([node("Old", ["x"], ["y"], domain="own")], older), UnsupportedError, "opset 6")


@pytest.mark.parametrize("through", [["F"], ["G", "F"], ["G", "H", "F"]])
def test_recursion_is_an_error(through: list[str]) -> None:
    chain = zip(["F", *through], [*through, ""], strict=False)
    functions = [function(n, ["a"], ["b"], [node(m, ["a"], ["b"], domain="own")]) for n, m in chain if m]
    if len(through) == 1:
        functions = [function("F", ["a"], ["b"], [node("F", ["a"], ["b"], domain="own")])]
    refused(
        calling([node("F", ["x"], ["y"], domain="own")], *functions[: len(through)]),
        OnnxError,
        "calls itself",
    )


def test_recursion_inside_of_a_branch() -> None:
    inside = graph_proto([node("F", ["a"], ["t"], domain="own")], {}, {"t": FLOAT})
    other = graph_proto([node("Neg", ["a"], ["t"])], {}, {"t": FLOAT})
    body = [
        node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
        node("If", ["c"], ["b"], then_branch=inside, else_branch=other),
    ]
    proto = calling([node("F", ["x"], ["y"], domain="own")], function("F", ["a"], ["b"], body))
    refused(proto, OnnxError, "calls itself")


def test_an_explosion_is_noticed_at_once() -> None:
    functions = [function("F0", ["a"], ["b"], [node("Relu", ["a"], ["b"])])]
    for i in range(1, 60):  # 2^59 nodes
        calls = [node(f"F{i - 1}", [a], [b], domain="own") for a, b in (("a", "t"), ("t", "b"))]
        functions.append(function(f"F{i}", ["a"], ["b"], calls))
    start = time.monotonic()
    refused(
        calling([node("F59", ["x"], ["y"], domain="own")], *functions), UnsupportedError, "expands to more"
    )
    assert time.monotonic() - start < 5


def test_many_calls_of_a_large_function_are_too_much() -> None:
    body = [node("Relu", ["a"], ["t"]), node("Neg", ["t"], ["b"])]
    calls = [node("F", [f"x{i}" if i else "x"], [f"x{i + 1}"], domain="own") for i in range(60)]
    calls[-1].output[0] = "y"
    refused(
        calling(calls, function("F", ["a"], ["b"], body)),
        UnsupportedError,
        "expand to more than 100 nodes",
        ModelLimits(max_steps=100),
    )


@pytest.mark.parametrize(
    ("functions", "error", "message"),
    [
        ([function("F", ["a"], ["b"], [node("Neg", ["a"], ["b"])])] * 2, OnnxError, "defined twice"),
        ([function("F", ["a", "a"], ["b"], [node("Neg", ["a"], ["b"])])], OnnxError, "defined before"),
        ([function("F", ["a"], ["a"], [node("Neg", ["a"], ["a"])])], OnnxError, "defined before"),
        ([function("F", [], ["b"], [])], OnnxError, "fewer inputs"),
        ([function("F", ["a"], ["b"], [])], OnnxError, "defined nowhere"),
        (
            [function("F", ["a"], ["b"], [node("BernoulliX", ["a"], ["b"])])],
            UnsupportedError,
            "inside: BernoulliX",
        ),
    ],
)
def test_malformed_functions(functions: list[Any], error: type[Exception], message: str) -> None:
    refused(calling([node("F", ["x"], ["y"], domain="own")], *functions), error, message)


def test_a_function_must_not_replace_a_standard_operator() -> None:
    relu = helper.make_function(
        "", "Relu", ["a"], ["b"], [node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    refused(calling([node("Relu", ["x"], ["y"])], relu), UnsupportedError, "like a standard operator")


def test_overloads() -> None:
    neg = function("F", ["a"], ["b"], [node("Neg", ["a"], ["b"])])
    exp = function("F", ["a"], ["b"], [node("Exp", ["a"], ["b"])])
    exp.overload = "second"
    calls = [node("F", ["x"], ["z"], domain="own"), node("F", ["z"], ["y"], domain="own", overload="second")]
    agrees(calling(calls, neg, exp))


# --- operators that the standard defines by others ---


def without(monkeypatch: pytest.MonkeyPatch, op_type: str) -> None:
    """Forgets the importer of an op."""
    table = {key: value for key, value in REGISTRY.table.items() if key[1] != op_type}
    monkeypatch.setattr("lpverify.io.importer.REGISTRY", replace(REGISTRY, table=table))


@pytest.mark.parametrize(
    ("op_type", "attributes", "opset"),
    [
        ("Softplus", {}, 18),
        ("Selu", {"alpha": 1.5}, 18),
        ("HardSwish", {}, 18),
        ("Gelu", {}, 20),
        ("Gelu", {"approximate": "tanh"}, 20),
        ("MeanVarianceNormalization", {"axes": [1]}, 18),
        ("LogSoftmax", {"axis": 1}, 18),
        ("Mish", {}, 18),
    ],
)
def test_operators_by_their_functions(
    monkeypatch: pytest.MonkeyPatch, op_type: str, attributes: dict[str, Any], opset: int
) -> None:
    without(monkeypatch, op_type)
    graph = graph_proto([node(op_type, ["x"], ["y"], **attributes)], {"x": (FLOAT, [2, 3])}, {"y": FLOAT})
    agrees(model_proto(graph, opset))


def test_an_operator_of_constants_by_its_function() -> None:
    constant = {"c": np.float32([1, -2, 3]), "low": np.float32(0), "high": np.float32(1)}
    calls = [node("ThresholdedRelu", ["c"], ["t"], alpha=0.5), node("Mul", ["x", "t"], ["y"])]
    agrees(calling(calls, constants=constant))


def test_an_operator_by_the_function_of_an_older_opset() -> None:
    proto = calling([node("NegativeLogLikelihoodLoss", ["x", "t"], ["y"])], constants={"t": np.array([2, 0])})
    agrees(proto)  # the function is in opset 13, the model in opset 18
