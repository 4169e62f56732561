"""Folds nodes whose operands are all constant, keeping track of rounding.

Data movement and integer arithmetic are evaluated by ONNX's reference implementation: exact. The four
basic operations on floats are done in float64 with a bound on the relative error. Anything else is
refused, because its rounding would go unnoticed into a proof.
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import Constant

MOVES = frozenset(
    ["Cast", "Concat", "ConstantOfShape", "Expand", "Flatten", "Gather", "GatherND", "Identity", "Pad", "Reshape", "Shape", "Size", "Slice", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "Where", "Range", "ScatterND", "Equal", "Less", "Greater", "Not", "And", "Or", "Neg", "Abs", "Max", "Min", "Sign", "Floor", "Ceil", "Relu", "OneHot", "NonZero", "EyeLike", "CastLike", "Clip", "Dropout", "GreaterOrEqual", "LessOrEqual", "Trilu"]
)
ARITHMETIC = frozenset(["Add", "Sub", "Mul", "Div"])
MAX_ELEMENTS = 2**28


def fold(
    node: Any, constants: dict[str, Constant], opset: int, tensor: Callable[[Any, str], np.ndarray]
) -> dict[str, Constant]:
    """The constants that the node's outputs are.

    Raises:
        UnsupportedError: The op is not foldable without an untracked error.
    """
    if node.op_type == "Constant":
        return {node.output[0]: _constant_node(node, tensor)}
    operands = [constants[name] if name else None for name in node.input]
    present = [o for o in operands if o is not None]
    floats = any(o.array.dtype.kind == "f" for o in present)
    if node.op_type in ARITHMETIC and floats:
        return {node.output[0]: _arithmetic(node.op_type, *present)}
    error = max((o.error for o in present), default=0.0)
    if node.op_type not in MOVES and floats:
        raise UnsupportedError("constant subgraph with an op whose rounding is not tracked")
    results = _reference(node, operands, opset)
    if error and any(r.dtype.kind != "f" for r in results):
        raise UnsupportedError("an integer computed from rounded constants")
    names = [name for name in node.output if name]
    return {name: Constant(r, error) for name, r in zip(names, results, strict=False)}


def _constant_node(node: Any, tensor: Callable[[Any, str], np.ndarray]) -> Constant:
    attribute = node.attribute[0]
    if attribute.name == "value":
        return Constant(tensor(attribute.t, node.name or node.output[0]))
    if attribute.name in ("value_float", "value_floats"):
        values = attribute.f if attribute.name == "value_float" else list(attribute.floats)
        return Constant(np.asarray(values, np.float32))
    if attribute.name in ("value_int", "value_ints"):
        values = attribute.i if attribute.name == "value_int" else list(attribute.ints)
        return Constant(np.asarray(values, np.int64))
    raise UnsupportedError(f"a Constant with {attribute.name}")


def _reference(node: Any, operands: list[Constant | None], opset: int) -> list[np.ndarray]:
    from onnx import ValueInfoProto, helper  # noqa: PLC0415
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415  (slow to import)

    if node.op_type in ("ConstantOfShape", "Expand", "Tile"):
        last = operands[-1]
        size = float(np.prod(np.abs(last.array.astype(np.float64)))) if last is not None else 0.0
        if size > MAX_ELEMENTS:
            raise UnsupportedError(f"a constant of {size:.0f} elements")
    feeds = {name: o.array for name, o in zip(node.input, operands, strict=True) if o is not None}
    inputs = [ValueInfoProto(name=name) for name in feeds]
    outputs = [ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "fold", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        return [np.asarray(r) for r in ReferenceEvaluator(model).run(None, feeds)]
    except Exception as error:  # noqa: BLE001  (the reference raises anything on bad operands)
        raise UnsupportedError(f"can't be evaluated: {error}") from None


def _arithmetic(op_type: str, first: Constant, second: Constant) -> Constant:
    a, b = np.asarray(first.array, np.float64), np.asarray(second.array, np.float64)
    if op_type == "Div" and not b.all():
        raise UnsupportedError("division by a constant zero")
    function = {"Add": np.add, "Sub": np.subtract, "Mul": np.multiply, "Div": np.divide}[op_type]
    result = function(a, b)
    if not np.isfinite(result).all():
        raise UnsupportedError("a constant overflows")
    if op_type in ("Mul", "Div"):
        return Constant(result, (first.error + second.error) * 1.5 + 2.0**-52)
    absolute = np.abs(a) * first.error + np.abs(b) * second.error
    if absolute.any() and not np.abs(result).all():
        raise UnsupportedError("cancellation between rounded constants")
    relative = float((absolute / np.abs(result)).max(initial=0.0)) if absolute.any() else 0.0
    return Constant(result, relative * 1.5 + 2.0**-52)
