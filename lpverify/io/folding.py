"""Folds nodes whose operands are all constant, keeping track of rounding.

Data movement and integer arithmetic are evaluated by ONNX's reference implementation: exact. The four
basic operations, roots, matrix products and dequantisation of floats are done in float64 with a bound on
the relative error, quantisation exactly. Anything else is refused, because its rounding would go unnoticed
into a proof.
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.interval import gamma
from lpverify.io.element_types import element_type
from lpverify.ops.base import Constant
from lpverify.ops.quantize import QUANTISED as RANGES
from lpverify.ops.quantize import granular


def names_of(*lines: str) -> frozenset[str]:
    """Names that are separated by blanks."""
    return frozenset(" ".join(lines).split())


_PICKS = names_of(  # the relative error of the operands carries over
    "Concat DepthToSpace Expand Flatten Gather GatherElements GatherND Identity Pad Reshape ScatterElements",
    "ScatterND Slice SpaceToDepth Split Squeeze Tile Transpose Trilu Unsqueeze Where",
    "Abs Clip Compress Dropout Max Min Neg Relu ReverseSequence",
)
_SHAPES = names_of("ConstantOfShape EyeLike Shape Size")  # operands are integers, or only their shapes matter
_STEPS = names_of(  # only of exact operands
    "And Cast CastLike Ceil Equal Floor Greater GreaterOrEqual Less LessOrEqual NonZero Not OneHot Or",
    "Range Round Sign",
)
MOVES = _PICKS | _SHAPES | _STEPS
ARITHMETIC = names_of("Add Div MatMul Mul Reciprocal Sqrt Sub")
QUANTISED = names_of("DequantizeLinear QuantizeLinear")
WHOLE = names_of(  # exact on whole numbers
    "Abs Add BitShift BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CumSum Div Max Min Mod Mul Neg ReduceMax",
    "ReduceMin ReduceProd ReduceSum Sub Sum Xor",
)
_EVALUATED = MOVES | WHOLE | names_of("ArgMax ArgMin Pow ReduceL1 TopK Unique")  # what the reference may run
_SLOW = names_of("GatherND ReverseSequence ScatterElements ScatterND")  # the reference has loops for these
_MOST_SLOW = 2**20
_ATTRIBUTE_TYPES = {"value": 4, "value_float": 1, "value_floats": 6, "value_int": 2, "value_ints": 7}
ROUNDING = 2.0**-52


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
    computed = _computed(node, present)
    if computed is not None:
        return {node.output[0]: computed}
    error = 0.0 if node.op_type in _SHAPES else max((o.error for o in present), default=0.0)
    if error and _is_cast(node):
        return {node.output[0]: present[0]}
    _require_exact(node, present, error)
    results = _reference(node, _widened(operands) if error else operands, opset)
    floats = any(_is_float(r) for r in results)
    if node.op_type not in MOVES and floats:
        raise UnsupportedError("constant subgraph with an op whose rounding is not tracked")
    if error and not floats:
        raise UnsupportedError("an integer computed from rounded constants")
    if node.op_type == "Pow":
        _require_range(present[0], present[1], results[0])
    names = [name for name in node.output if name]
    return {name: Constant(r, error) for name, r in zip(names, results, strict=False)}


def _require_range(base: Constant, exponent: Constant, power: np.ndarray) -> None:
    """Refuses powers of whole numbers that leave the range of their type: runtimes differ then."""
    with np.errstate(over="ignore", divide="ignore"):
        size = np.abs(base.array.astype(np.float64)) ** exponent.array.astype(np.float64)
    if not (size <= min(int(np.iinfo(power.dtype).max), 2**53)).all():
        raise UnsupportedError("a constant power that leaves the range of its type")


def _computed(node: Any, operands: list[Constant]) -> Constant | None:
    """The result where rounding is tracked; None for ops that have to be exact."""
    if node.op_type in ARITHMETIC and any(_is_float(o.array) for o in operands):
        return _arithmetic(node.op_type, *operands)
    return _quantisation(node, operands) if node.op_type in QUANTISED else None


def _is_float(array: np.ndarray) -> bool:
    """Also for the types that NumPy does not know, like bfloat16."""
    return array.dtype.kind in "fVc"


def _is_cast(node: Any) -> bool:
    """A cast to float32 or float64: computed constants are kept in float64 anyway."""
    return node.op_type == "Cast" and any(a.name == "to" and a.i in (1, 11) for a in node.attribute)


def _require_exact(node: Any, operands: list[Constant], error: float) -> None:
    """Refuses what would round, or turn a rounding error into a jump."""
    if node.op_type not in _EVALUATED:
        raise UnsupportedError("constant subgraph with an op that is not folded")
    if node.op_type in _SLOW and max(o.array.size for o in operands) > _MOST_SLOW:
        raise UnsupportedError(f"{node.op_type} of more than {_MOST_SLOW} constants")
    if node.op_type not in MOVES and any(_is_float(o.array) for o in operands):
        raise UnsupportedError("constant subgraph with an op whose rounding is not tracked")
    if node.op_type in _STEPS and error:
        raise UnsupportedError("a step of rounded constants")
    if any(a.name == "reduction" and a.s != b"none" for a in node.attribute):
        raise UnsupportedError("a reduction whose rounding is not tracked")
    if node.op_type == "Range" and not all(_is_whole(o.array) for o in operands):
        raise UnsupportedError("a range of fractions or large floats")
    if node.op_type == "Dropout" and any(o.array.dtype.kind == "b" and o.array.any() for o in operands):
        raise UnsupportedError("training mode is not supported")


def _is_whole(array: np.ndarray) -> bool:
    """Integers, or floats that are integers and add without rounding."""
    return not _is_float(array) or bool((array == np.round(array)).all() and (np.abs(array) < 2**23).all())


def _widened(operands: list[Constant | None]) -> list[Constant | None]:
    """Floats as float64, so that the reference rounds none to the type of another."""
    return [
        Constant(o.array.astype(np.float64), o.error) if o is not None and _is_float(o.array) else o
        for o in operands
    ]


def _constant_node(node: Any, tensor: Callable[[Any, str], np.ndarray]) -> Constant:
    if len(node.attribute) != 1:
        raise OnnxError(f"a Constant with {len(node.attribute)} attributes")
    attribute = node.attribute[0]
    if attribute.type != _ATTRIBUTE_TYPES.get(attribute.name, attribute.type):
        raise OnnxError(f"{attribute.name!r} has type {attribute.type}")
    if attribute.name == "value":
        return Constant(tensor(attribute.t, node.name or node.output[0]))
    if attribute.name in ("value_float", "value_floats"):
        values = attribute.f if attribute.name == "value_float" else list(attribute.floats)
        if np.isnan(values).any():
            raise OnnxError(f"{attribute.name!r} contains NaN")
        return Constant(np.asarray(values, np.float32))
    if attribute.name in ("value_int", "value_ints"):
        values = attribute.i if attribute.name == "value_int" else list(attribute.ints)
        return Constant(np.asarray(values, np.int64))
    raise UnsupportedError(f"a Constant with {attribute.name}")


def _reference(node: Any, operands: list[Constant | None], opset: int) -> list[np.ndarray]:
    from onnx import ValueInfoProto, helper  # noqa: PLC0415
    from onnx.reference import ReferenceEvaluator  # noqa: PLC0415  (slow to import)

    feeds = {name: o.array for name, o in zip(node.input, operands, strict=True) if o is not None}
    inputs = [ValueInfoProto(name=name) for name in feeds]
    outputs = [ValueInfoProto(name=name) for name in node.output if name]
    graph = helper.make_graph([node], "fold", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    try:
        with np.errstate(all="ignore"):
            results = [np.asarray(r) for r in ReferenceEvaluator(model).run(None, feeds)]
    except Exception as error:  # noqa: BLE001  (the reference raises anything on bad operands)
        raise UnsupportedError(f"can't be evaluated: {error}") from None
    if any(r.dtype.kind not in "biufV" for r in results):
        raise UnsupportedError("a constant that is no tensor of numbers")
    return results


def _arithmetic(op_type: str, *operands: Constant) -> Constant:
    """In float64. Errors of more than a quarter are refused: the first-order bounds need small ones."""
    if any(o.error > 0.25 for o in operands):
        raise UnsupportedError("a constant with a large rounding error")
    arrays = [np.asarray(o.array, np.float64) for o in operands]
    if any(((array != 0) & (np.abs(array) < 2.0**-400)).any() for array in arrays):
        raise UnsupportedError("a constant is too small to keep its error relative")
    with np.errstate(all="ignore"):
        if op_type in ("Add", "Sub", "MatMul"):
            result = _cancelling(op_type, arrays, [o.error for o in operands])
        else:
            result = _relative(op_type, arrays, sum(o.error for o in operands))
    if not np.isfinite(result.array).all():
        raise UnsupportedError("a constant is undefined or overflows")
    return result


def _relative(op_type: str, arrays: list[np.ndarray], error: float) -> Constant:
    """Operations whose relative error depends on those of the operands alone; no underflow."""
    functions = {"Mul": np.multiply, "Div": np.divide, "Sqrt": np.sqrt, "Reciprocal": np.reciprocal}
    result = functions[op_type](*arrays)
    zero = arrays[0] == 0
    if op_type == "Mul":
        zero = zero | (arrays[1] == 0)
    if not ((np.abs(result) > 2.0**-1000) | zero).all():
        raise UnsupportedError("a constant underflows")
    return Constant(np.asarray(result), error * 1.5 + ROUNDING)


def _cancelling(op_type: str, arrays: list[np.ndarray], errors: list[float]) -> Constant:
    """Sums: the absolute error, over the result."""
    a, b = arrays
    if op_type == "MatMul":
        result = a @ b
        factor = errors[0] + errors[1] + 2 * gamma(a.shape[-1] if a.ndim else 1, 2.0**-53)
        absolute = np.asarray(np.abs(a) @ np.abs(b)) * factor
    else:
        result = a + b if op_type == "Add" else a - b
        absolute = np.abs(a) * errors[0] + np.abs(b) * errors[1]
    result, wrong = np.asarray(result), np.asarray(absolute) > 0
    if not result[wrong].all():
        raise UnsupportedError("cancellation between rounded constants")
    relative = float((np.asarray(absolute)[wrong] / np.abs(result[wrong])).max(initial=0.0))
    return Constant(result, relative * 1.5 + ROUNDING)


def _quantisation(node: Any, operands: list[Constant]) -> Constant:
    """QuantizeLinear or DequantizeLinear."""
    given = {a.name: a.i for a in node.attribute}
    value, scale, shape = operands[0], operands[1], operands[0].array.shape
    place = given.get("axis", 1), given.get("block_size", 0)
    zero = granular(operands[2].array, shape, *place) if len(operands) > 2 else np.zeros((), np.uint8)
    spread = Constant(granular(scale.array, shape, *place), scale.error)
    if node.op_type == "DequantizeLinear":
        return _dequantised(value, spread, zero)
    kind = element_type(given["output_dtype"]) if given.get("output_dtype") else zero.dtype.name
    return _quantised(value, spread, zero, kind)


def _dequantised(value: Constant, scale: Constant, zero: np.ndarray) -> Constant:
    """`scale (q - zero)`: numbers of 17 bits times those of 24 are exact, of 33 bits perhaps not."""
    if value.array.dtype.kind not in "iu" or value.array.dtype.itemsize > 4:
        raise UnsupportedError(f"dequantisation of {value.array.dtype.name}")
    difference = Constant(value.array.astype(np.float64) - zero.astype(np.float64))
    result = _arithmetic("Mul", difference, scale)
    exact = not scale.error and value.array.dtype.itemsize <= 2 and scale.array.dtype.itemsize <= 4
    return replace(result, error=0.0) if exact else result


def _quantised(value: Constant, scale: Constant, zero: np.ndarray, kind: str) -> Constant:
    """`round(x / scale) + zero` within a range; quotients near ties are rounded in rationals."""
    if value.error or scale.error:
        raise UnsupportedError("a step of rounded constants")
    if kind not in RANGES:
        raise UnsupportedError(f"quantisation to {kind}")
    least, most = RANGES[kind]
    x, divisor = np.broadcast_arrays(value.array.astype(np.float64), scale.array.astype(np.float64))
    with np.errstate(all="ignore"):
        quotient = np.clip(x / divisor, -(2.0**40), 2.0**40)
    if not (np.isfinite(quotient) & (divisor != 0)).all():
        raise UnsupportedError("a constant is undefined")
    whole = np.rint(quotient)
    close = np.abs(np.abs(quotient - whole) - 0.5) < 2.0**-10
    for index in np.argwhere(close):
        place = tuple(index)
        whole[place] = round(Fraction(float(x[place])) / Fraction(float(divisor[place])))
    return Constant(np.clip(whole + zero.astype(np.float64), least, most).astype(kind))
