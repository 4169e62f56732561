"""What ONNX itself says about a node, before lpverify computes anything from it.

The checker knows which attributes an operator has and of which types. Shape inference refuses values of
attributes that make no sense, and says how large the results are going to be.
"""

import re
from math import isfinite, isnan
from typing import Any

import numpy as np

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.element_types import NAMES, type_number
from lpverify.io.folding import names_of
from lpverify.io.limits import Budget
from lpverify.ops.base import Constant, OnnxNode

_MOST_DATA = 1024  # elements of a constant that is given to shape inference: sizes, axes, pads
_FLAGS = names_of(  # of which implementations take other numbers as they like
    "align_corners allowzero antialias ceil_mode centered count_include_pad detect_negative detect_positive",
    "exclude_outside exclusive fmod input_forget interleaved is_causal keepdims largest layout",
    "linear_before_reset noop_with_empty_axes normalize_variance periodic reverse select_last_index sorted",
    "saturate storage_order transA transB upper",
)
_EQUATION = re.compile(rb"(?:[A-Za-z ]|\.\.\.|,|->)*")
_MOST = 2**31  # of numbers in attributes; ONNX's own code keeps axes and the like in 32 bits
_FREE_NUMBERS = frozenset({"Slice"})  # whose ends mean "all" when they are large
_FREE_ATTRIBUTES = frozenset({"Constant"})  # tensors of any size, which the importer reads itself


def check_node(node: Any, opsets: dict[str, int]) -> None:
    """Refuses a node whose attributes are not those of its operator.

    Raises:
        OnnxError: ONNX's checker finds it malformed.
    """
    from onnx import checker  # noqa: PLC0415  (slow to import)

    if node.op_type in _FREE_ATTRIBUTES:
        return
    for attribute in node.attribute:
        _check_attribute(node.op_type, attribute)
    _check_for_inference(node)
    if node.domain:  # "ai.onnx", which the checker does not take for the empty one
        node, given = type(node)(), node
        node.CopyFrom(given)
        node.ClearField("domain")
    context = checker.C.CheckerContext()
    context.ir_version, context.opset_imports = checker.IR_VERSION, opsets
    try:
        checker.check_node(node, context)
    except (checker.ValidationError, RuntimeError, UnicodeError) as error:
        if "is deprecated in domain" not in str(error):  # onnxruntime still runs such nodes
            raise OnnxError(_first_line(error)) from None


def _check_attribute(op_type: str, attribute: Any) -> None:
    """Refuses numbers that no operator has a use for."""
    if attribute.name in _FLAGS and attribute.i not in (0, 1):
        raise OnnxError(f"attribute {attribute.name!r} is {attribute.i}, neither 0 nor 1")
    if op_type not in _FREE_NUMBERS and any(abs(n) >= _MOST for n in (attribute.i, *attribute.ints)):
        raise OnnxError(f"attribute {attribute.name!r} is out of range")
    usable = isfinite if op_type != "Clip" else _is_number  # whose ends may be infinite
    if not all(map(usable, (attribute.f, *attribute.floats))):
        raise OnnxError(f"attribute {attribute.name!r} is not finite")


def _check_for_inference(node: Any) -> None:
    """Refuses what ONNX's shape inference would read memory with that is not its own; found by fuzzing."""
    given = {a.name: a.i for a in node.attribute}
    if given.get("batch_dims", 0) < 0:
        raise OnnxError(f"attribute 'batch_dims' is {given['batch_dims']}")
    if node.op_type == "Einsum" and any(not _EQUATION.fullmatch(a.s) for a in node.attribute):
        raise OnnxError("a malformed equation")  # an endless loop
    if node.op_type == "Split" and given.get("num_outputs", len(node.output)) != len(node.output):
        raise OnnxError(f"{len(node.output)} outputs, and num_outputs is {given['num_outputs']}")


def inferred_shapes(
    node: Any, parsed: OnnxNode, schema: Any, opsets: dict[str, int]
) -> list[list[int | None]]:
    """The shapes of the results as far as shape inference knows them, None for unknown sizes.

    Results whose rank is not known are left out, with all after them.

    Raises:
        OnnxError: Shape inference finds the node malformed.
    """
    from onnx import checker, helper, shape_inference  # noqa: PLC0415  (slow to import)

    kinds = _kinds(parsed)
    numbers = {i: type_number(kind or "float32") for i, kind in kinds.items()}
    types = {node.input[i]: helper.make_tensor_type_proto(n, parsed.shapes[i]) for i, n in numbers.items()}
    data = {node.input[i]: _tensor(parsed.operands[i], n) for i, n in numbers.items()}
    known = {name: tensor for name, tensor in data.items() if tensor is not None}
    imports = [helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    try:
        found = shape_inference.infer_node_outputs(schema, node, types, known, opset_imports=imports)
    except (shape_inference.InferenceError, checker.ValidationError, RuntimeError) as error:
        if not all(kinds.values()) or "has been deprecated" in str(error):  # a type was guessed
            return []
        raise OnnxError(_first_line(error)) from None
    return list(_shapes(node, found))


def _kinds(parsed: OnnxNode) -> dict[int, str]:
    """Element types of the operands that are given, empty where they are not known."""
    given = ((i, o, parsed.types[i]) for i, o in enumerate(parsed.operands) if o is not None)
    return {i: kind or (o.array.dtype.name if isinstance(o, Constant) else "") for i, o, kind in given}


def _is_number(number: float) -> bool:
    return not isnan(number)


def _shapes(node: Any, types: dict[str, Any]) -> list[list[int | None]]:
    shapes: list[list[int | None]] = []
    for name in node.output:
        tensor = types[name].tensor_type if name in types else None
        if tensor is None or not tensor.HasField("shape"):
            break
        shapes.append([d.dim_value if d.HasField("dim_value") else None for d in tensor.shape.dim])
    return shapes


def _tensor(operand: Constant | int | None, number: int) -> Any | None:
    """A small constant in its declared type."""
    from onnx import helper  # noqa: PLC0415

    if not isinstance(operand, Constant) or operand.array.size > _MOST_DATA:
        return None
    if NAMES[number] not in ("int32", "int64", "float32", "float64", "bool"):
        return None
    with np.errstate(all="ignore"):
        array = operand.array.astype(NAMES[number])
    raw = np.ascontiguousarray(array).tobytes()
    return helper.make_tensor("", number, array.shape, raw, raw=True)


def check_sizes(shapes: list[list[int | None]], parsed: OnnxNode, budget: Budget) -> None:
    """Asks for results of those shapes.

    Raises:
        OnnxError: A size is negative.
        UnsupportedError: One is too large.
    """
    constant = all(isinstance(operand, Constant) for operand in parsed.operands)
    sizes = [o.array.size for o in parsed.operands if isinstance(o, Constant)]
    for shape in shapes:
        if any(n is not None and n < 0 for n in shape):
            raise OnnxError(f"a result of shape {shape}")
        budget.reserve(
            *(1 if n is None else n for n in shape), at_least=max(sizes, default=0) if constant else 0
        )


def _first_line(error: Exception) -> str:
    """The message of ONNX without the dump of the node."""
    return str(error).strip().split("\n")[0][:300]


def check_agreement(name: str, shape: tuple[int, ...], inferred: list[int | None]) -> None:
    """Refuses a result whose shape is not the one that ONNX expects.

    Raises:
        UnsupportedError: The shapes differ.
    """
    same = len(shape) == len(inferred) and all(n in (None, m) for n, m in zip(inferred, shape, strict=True))
    if not same:
        raise UnsupportedError(f"{name!r} has shape {shape}, and {inferred} by ONNX's shape inference")
