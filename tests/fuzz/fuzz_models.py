"""Mutations of models as messages, and small models to start from."""

# ruff: noqa: E501

import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper

NUMBERS = (
    0,
    1,
    -1,
    2,
    3,
    7,
    64,
    65,
    255,
    1000,
    -2,
    2**15,
    2**24,
    2**31 - 1,
    2**31,
    -(2**31),
    2**40,
    2**62,
    2**63 - 1,
    -(2**63),
)
FLOATS = (
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1e-45,
    1e38,
    -3.4e38,
    float("inf"),
    float("-inf"),
    float("nan"),
    2.5,
    1e-8,
)
STRINGS = (b"", b"NOTSET", b"SAME_UPPER", b"VALID", b"constant", b"reflect", b"edge", b"wrap", b"nearest", b"linear",
           b"cubic", b"half_pixel", b"align_corners", b"add", b"none", b"forward", b"bidirectional", b"ij,jk->ik", b"\xff")  # fmt: skip


def own_models() -> dict[str, onnx.ModelProto]:
    """Branches, loops, functions, chains of constants; the first input is x."""
    float_, node = TensorProto.FLOAT, helper.make_node
    x = helper.make_tensor_value_info("x", float_, [1, 4])
    y = helper.make_tensor_value_info("y", float_, None)
    branch = helper.make_graph(
        [node("Relu", ["x"], ["r"])], "b", [], [helper.make_tensor_value_info("r", float_, None)]
    )
    infos = [
        helper.make_tensor_value_info(n, t, s) for n, t, s in (("i", 7, []), ("c", 9, []), ("s", 1, None))
    ]
    outs = [helper.make_tensor_value_info(n, t, None) for n, t in (("d", 9), ("q", 1))]
    body = helper.make_graph(
        [node("Identity", ["c"], ["d"]), node("Add", ["s", "x"], ["q"])], "l", infos, outs
    )
    truth, trips = helper.make_tensor("t", 9, [], [1]), helper.make_tensor("n", 7, [], [3])
    sizes = helper.make_tensor("k", 7, [2], [2, 2])
    weight = helper.make_tensor("w", 1, [4, 3], np.arange(12.0))
    function = helper.make_function(
        "own", "F", ["a"], ["b"], [node("Neg", ["a"], ["b"])], [helper.make_opsetid("", 18)]
    )
    graphs = {
        "own_if": ([node("If", ["t"], ["y"], then_branch=branch, else_branch=branch)], [truth]),
        "own_loop": ([node("Loop", ["n", "t", "x"], ["y"], body=body)], [truth, trips]),
        "own_call": ([node("F", ["x"], ["y"], domain="own")], []),
        "own_dense": ([node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])], [weight]),
        "own_shapes": (
            [node("Shape", ["x"], ["a"]), node("Add", ["a", "k"], ["e"]), node("ConstantOfShape", ["e"], ["f"]),
             node("ReduceSum", ["f"], ["g"], keepdims=0), node("Mul", ["x", "g"], ["y"])],
            [sizes],
        ),
        "own_tile": ([node("Tile", ["x", "k"], ["a"]), node("Transpose", ["a"], ["y"])], [sizes]),
    }  # fmt: skip
    imports = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    return {
        name: helper.make_model(
            helper.make_graph(nodes, "g", [x], [y], tensors), opset_imports=imports, ir_version=10,
            functions=[function],
        )
        for name, (nodes, tensors) in graphs.items()
    }  # fmt: skip


def graphs(graph: onnx.GraphProto) -> Iterator[onnx.GraphProto]:
    """The graph and those inside of it."""
    yield graph
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("g"):
                yield from graphs(attribute.g)


def mutate(model: onnx.ModelProto, rng: random.Random) -> None:
    """One to three random changes."""
    for _ in range(rng.choice((1, 1, 2, 3))):
        graph = rng.choice(list(graphs(model.graph)))
        rng.choice(_MUTATIONS)(model, graph, rng)


def _pick(items: Any, rng: random.Random) -> Any:
    return items[rng.randrange(len(items))] if len(items) else None


def _number(model: onnx.ModelProto, graph: onnx.GraphProto, rng: random.Random) -> None:
    """A number, float or text of an attribute."""
    node = _pick(graph.node, rng)
    attribute = node and _pick(node.attribute, rng)
    if attribute is None:
        return
    if attribute.ints:
        attribute.ints[rng.randrange(len(attribute.ints))] = rng.choice(NUMBERS)
    elif attribute.HasField("i"):
        attribute.i = rng.choice(NUMBERS)
    elif attribute.HasField("f"):
        attribute.f = rng.choice(FLOATS)
    elif attribute.HasField("s"):
        attribute.s = rng.choice(STRINGS)
    elif attribute.HasField("t"):
        _change_tensor(attribute.t, rng)


def _attribute(model: onnx.ModelProto, graph: onnx.GraphProto, rng: random.Random) -> None:
    """Attributes that go, come, change their type or length."""
    node = _pick(graph.node, rng)
    if node is None:
        return
    attribute, kind = _pick(node.attribute, rng), rng.randrange(5)
    if attribute is not None and kind == 0:
        attribute.type = rng.randrange(16)
    elif attribute is not None and kind == 1:
        node.attribute.remove(attribute)
    elif attribute is not None and kind == 2 and attribute.ints:
        attribute.ints.append(rng.choice(NUMBERS))
    elif attribute is not None and kind == 3 and attribute.ints:
        del attribute.ints[rng.randrange(len(attribute.ints)) :]
    elif onnx.defs.has(node.op_type, ""):
        known = onnx.defs.get_schema(node.op_type, "").attributes
        if known:
            value = rng.choice((rng.choice(NUMBERS), [rng.choice(NUMBERS) for _ in range(rng.randrange(1, 5))],
                                rng.choice(FLOATS), rng.choice(STRINGS)))  # fmt: skip
            node.attribute.append(helper.make_attribute(rng.choice(list(known)), value))


def _change_tensor(tensor: onnx.TensorProto, rng: random.Random) -> None:
    kind = rng.randrange(5)
    if kind == 0 and tensor.dims:
        tensor.dims[rng.randrange(len(tensor.dims))] = rng.choice(NUMBERS)
    elif kind == 1:
        tensor.data_type = rng.randrange(25)
    elif kind == 2 and tensor.raw_data:
        data = bytearray(tensor.raw_data)
        data[rng.randrange(len(data))] = rng.randrange(256)
        tensor.raw_data = bytes(data)
    elif kind == 3 and tensor.data_type == TensorProto.INT64 and len(tensor.raw_data) >= 8:
        data = bytearray(tensor.raw_data)
        place = 8 * rng.randrange(len(data) // 8)
        data[place : place + 8] = rng.choice(NUMBERS).to_bytes(8, "little", signed=True)
        tensor.raw_data = bytes(data)
    elif kind == 4:
        tensor.dims.append(rng.choice(NUMBERS))


def _tensor(model: onnx.ModelProto, graph: onnx.GraphProto, rng: random.Random) -> None:
    tensor = _pick(graph.initializer, rng)
    if tensor is not None:
        _change_tensor(tensor, rng)


def _shape(model: onnx.ModelProto, graph: onnx.GraphProto, rng: random.Random) -> None:
    """A size of an input, or its type."""
    info = _pick(graph.input, rng)
    if info is None:
        return
    tensor = info.type.tensor_type
    kind = rng.randrange(4)
    if kind == 0 and tensor.shape.dim:
        _pick(tensor.shape.dim, rng).dim_value = rng.choice(NUMBERS[:10])
    elif kind == 1 and tensor.shape.dim:
        del tensor.shape.dim[rng.randrange(len(tensor.shape.dim))]
    elif kind == 2:
        tensor.shape.dim.add().dim_value = rng.choice((1, 2, 3))
    else:
        tensor.elem_type = rng.randrange(1, 20)


def _edge(model: onnx.ModelProto, graph: onnx.GraphProto, rng: random.Random) -> None:
    """An operand or result with another name, more or less of them."""
    node = _pick(graph.node, rng)
    if node is None:
        return
    names = [n for g in graphs(model.graph) for k in g.node for n in (*k.input, *k.output)]
    names += [t.name for t in graph.initializer] + [""]
    side = rng.choice((node.input, node.input, node.output))
    kind = rng.randrange(3)
    if kind == 0 and side:
        side[rng.randrange(len(side))] = rng.choice(names)
    elif kind == 1:
        side.append(rng.choice(names))
    elif side:
        del side[rng.randrange(len(side))]


def _operator(model: onnx.ModelProto, graph: onnx.GraphProto, rng: random.Random) -> None:
    """Another operator, a copy of a node, another order, another version."""
    node, kind = _pick(graph.node, rng), rng.randrange(5)
    if node is None:
        return
    if kind == 0:
        node.op_type = rng.choice(_operators())
    elif kind == 1:
        graph.node.add().CopyFrom(node)
        graph.node[-1].output[:] = [f"{name}_" for name in node.output]
    elif kind == 2:
        nodes = list(graph.node)
        rng.shuffle(nodes)
        copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in nodes]
        del graph.node[:]
        graph.node.extend(copies)
    elif kind == 3 and model.opset_import:
        model.opset_import[0].version = rng.choice((7, 9, 11, 13, 15, 18, 20, 21, 22, 24, 26))
    else:
        chained = graph.node.add()
        chained.op_type, chained.name = rng.choice(_operators()), "more"
        chained.input.append(rng.choice([*node.output, "x"]))
        chained.output.append("more")
        if graph.output:
            graph.output[0].name = "more"
            graph.output[0].type.Clear()
            graph.output[0].type.tensor_type.elem_type = 1


def _operators() -> list[str]:
    from lpverify.ops import REGISTRY

    return sorted(
        {o for _, o, _ in REGISTRY.table}
        | {"Constant", "ConstantOfShape", "Shape", "If", "Loop", "Range", "OneHot"}
    )


_MUTATIONS: tuple[Callable[[onnx.ModelProto, onnx.GraphProto, random.Random], None], ...] = (
    _number, _number, _number, _attribute, _attribute, _tensor, _tensor, _shape, _edge, _operator,
)  # fmt: skip
