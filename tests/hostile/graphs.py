"""Names, orders, inputs, versions, functions and subgraphs."""

from collections.abc import Callable

import numpy as np
import onnx
from helpers import branch, graph_proto, model_proto
from onnx import TensorProto, helper

from hostile.cases import FLOAT, add, net, node, one
from hostile.files import nested_loops

# --- Graphs ---

add(
    "circle",
    lambda: net([node("Add", ["x", "b"], ["a"]), node("Relu", ["a"], ["b"]), node("Neg", ["b"], ["y"])]),
    "OnnxError",
    "defined nowhere before",
)
add("own operand", lambda: net([node("Add", ["x", "y"], ["y"])]), "OnnxError", "defined nowhere before")
add(
    "wrong order",
    lambda: net([node("Relu", ["a"], ["y"]), node("Neg", ["x"], ["a"])]),
    "OnnxError",
    "defined nowhere before",
)
add(
    "defined twice",
    lambda: net([node("Relu", ["x"], ["y"]), node("Neg", ["x"], ["y"])]),
    "OnnxError",
    "defined before",
)
add(
    "one node, results of one name",
    lambda: net([node("Split", ["x"], ["y", "y"], num_outputs=2, axis=1)]),
    "OnnxError",
    "twice|defined before",
)
add("output is an input", lambda: net([node("Relu", ["x"], ["x"])]), "OnnxError", "defined before")
add("missing tensor", lambda: net([node("Add", ["x", "nothing"], ["y"])]), "OnnxError", "defined nowhere")
add("output that nothing makes", lambda: net([node("Relu", ["x"], ["z"])]), "OnnxError", "defined nowhere")
add("no operand", lambda: net([node("Relu", [], ["y"])]), "OnnxError")
add("empty operand", lambda: net([node("Relu", [""], ["y"])]), "OnnxError")
add("Identity of nothing", lambda: net([node("Identity", [], ["y"])]), "OnnxError")
add("Identity of an empty name", lambda: net([node("Identity", [""], ["y"])]), "OnnxError")
add("no result", lambda: net([node("Relu", ["x"], [])]), "OnnxError")
add("empty result", lambda: net([node("Relu", ["x"], [""])]), "OnnxError")
add("too many operands", lambda: net([node("Relu", ["x", "x", "x"], ["y"])]), "OnnxError")
add("too many results", lambda: net([node("Relu", ["x"], ["y", "z", "u"])]), "OnnxError")
add("no operator name", lambda: net([node("", ["x"], ["y"])]), "UnsupportedError", "unknown operator")
add("unknown operator", lambda: net([node("Nonsense", ["x"], ["y"])]), "UnsupportedError", "unknown operator")
add(
    "custom domain",
    lambda: net([node("Relu", ["x"], ["y"], domain="evil.example")]),
    "UnsupportedError",
    "evil.example.Relu",
)


def _edited(edit: Callable[[onnx.ModelProto], object]) -> Callable[[], onnx.ModelProto]:
    def make() -> onnx.ModelProto:
        proto = net([node("Add", ["x", "w"], ["y"])], {"w": np.ones(2, np.float32)})
        edit(proto)
        return proto

    return make


def _twice(proto: onnx.ModelProto) -> None:
    proto.graph.initializer.append(proto.graph.initializer[0])


def _two_inputs(proto: onnx.ModelProto) -> None:
    proto.graph.input.append(proto.graph.input[0])


def _set_opset(version: int) -> Callable[[], onnx.ModelProto]:
    def edit(proto: onnx.ModelProto) -> None:
        proto.opset_import[0].version = version

    return _edited(edit)


add("tensor twice", _edited(_twice), "OnnxError", "twice")
add("input twice", _edited(_two_inputs), "OnnxError", "one name")
add("no output", _edited(lambda p: p.graph.ClearField("output")), "OnnxError", "no output")
add("no input", _edited(lambda p: p.graph.ClearField("input")), "OnnxError", "no input")
add("no graph", _edited(lambda p: p.ClearField("graph")), "OnnxError", "no graph")
add("input without a name", _edited(lambda p: p.graph.input[0].ClearField("name")), "OnnxError")
add(
    "input without a type",
    _edited(lambda p: p.graph.input[0].ClearField("type")),
    "UnsupportedError",
    "element type 0",
)
add(
    "input without a shape",
    _edited(lambda p: p.graph.input[0].type.tensor_type.ClearField("shape")),
    "UnsupportedError",
    "no shape",
)
for size, error, message in (
    (0, "UnsupportedError", "no elements"),
    (-1, "OnnxError", "negative"),
    (2**40, "UnsupportedError", "elements"),
    (2**63 - 1, "UnsupportedError", "elements"),
):
    add(f"input of size {size}", one("Relu", shape=[1, size]), error, message)
add("input of product 2^128", one("Relu", shape=[2**32] * 4), "UnsupportedError", "elements")
add("input with 200 axes", one("Relu", shape=[1] * 200), "UnsupportedError", "axes")
add("symbolic size", one("Relu", shape=["n", 2]), "")
for version in (0, -1, 10**9, 2**63 - 1):
    add(f"opset {version}", _set_opset(version), "UnsupportedError", f"opset {version} is not supported")
add("no opset", _edited(lambda p: p.ClearField("opset_import")), "OnnxError", "no version")
add(
    "sequence as input",
    _edited(
        lambda p: p.graph.input[0].type.CopyFrom(
            helper.make_sequence_type_proto(helper.make_tensor_type_proto(1, [2]))
        )
    ),
    "UnsupportedError",
    "no tensor|element type",
)
add(
    "optional as input",
    _edited(
        lambda p: p.graph.input[0].type.CopyFrom(
            helper.make_optional_type_proto(helper.make_tensor_type_proto(1, [2]))
        )
    ),
    "UnsupportedError",
    "no tensor|element type",
)
add(
    "map as input",
    _edited(lambda p: p.graph.input[0].type.map_type.CopyFrom(onnx.TypeProto.Map(key_type=7))),
    "UnsupportedError",
    "no tensor|element type",
)
add(
    "strings as input",
    one("Identity", shape=[2], kind=TensorProto.STRING),
    "UnsupportedError",
    "element type 8",
)


def calls(*names: tuple[str, str]) -> onnx.ModelProto:
    """Functions, each calling another one."""
    functions = tuple(
        helper.make_function(
            "own", a, ["p"], ["q"], [node(b, ["p"], ["q"], domain="own")], [helper.make_opsetid("own", 1)]
        )
        for a, b in names
    )
    graph = graph_proto([node(names[0][0], ["x"], ["y"], domain="own")], {"x": (FLOAT, [2])}, {"y": FLOAT})
    return model_proto(graph, functions=functions)


add("function that calls itself", lambda: calls(("F", "F")), "OnnxError", "calls itself")
add("functions in a circle", lambda: calls(("F", "G"), ("G", "F")), "OnnxError", "calls itself")
add("function twice", lambda: calls(("F", "G"), ("F", "G")), "OnnxError", "defined twice")


def _doubling_functions() -> onnx.ModelProto:
    opsets = [helper.make_opsetid("own", 1), helper.make_opsetid("", 18)]
    inner = [node("Relu", ["p"], ["t"]), node("Neg", ["t"], ["q"])]
    functions = []
    for i in range(60):
        functions.append(helper.make_function("own", f"F{i}", ["p"], ["q"], inner, opsets))
        inner = [node(f"F{i}", [a], [b], domain="own") for a, b in (("p", "t"), ("t", "q"))]
    graph = graph_proto([node("F59", ["x"], ["y"], domain="own")], {"x": (FLOAT, [2])}, {"y": FLOAT})
    return model_proto(graph, functions=tuple(functions))


add("2^60 nodes by functions", _doubling_functions, "UnsupportedError", "expands to more")


def _branches(then: onnx.GraphProto) -> onnx.ModelProto:
    return net([node("If", ["c"], ["y"], then_branch=then, else_branch=then)], {"c": np.array(True)})


add(
    "branch that redefines x",
    lambda: _branches(branch([node("Relu", ["x"], ["x"])], "x")),
    "OnnxError",
    "defined before",
)
add("branch of nothing", lambda: _branches(onnx.GraphProto()), "OnnxError", "does not fit")
add(
    "If without branches",
    lambda: net([node("If", ["c"], ["y"])], {"c": np.array(True)}),
    "OnnxError",
    "then_branch",
)
add(
    "If of x",
    lambda: net(
        [
            node(
                "If",
                ["x"],
                ["y"],
                then_branch=branch([node("Relu", ["x"], ["r"])]),
                else_branch=branch([node("Relu", ["x"], ["r"])]),
            )
        ]
    ),
    "UnsupportedError",
    "depends on",
)
add("Loop of 2^62 trips", lambda: nested_loops(1, 2**62), "UnsupportedError", "iterations")
add("Loop of -1 trips", lambda: nested_loops(1, -1), "")
