"""What an ONNX node's float result may differ by from the real function of its computed operands.

A floating-point execution of a model is taken to run its nodes one after the other, each with results of the
declared element type. This table bounds `|computed result - f(computed operands)|` for one node:

- sums of products in any order, with or without fused multiply-add, with results and operands below the
  smallest normal number flushed to zero or not: `gamma_N |W| |x|` (Higham 2002, section 3.1). N counts the
  products of the node and, for constants that it adds, those of the sums that it continues, so that
  runtimes may start from the bias; and at least 16 more, so that they may fold scales and BatchNormalization
  into the weights before (of results that nothing else reads). No Winograd or Strassen products, and no
  other kernels in the place of several nonlinear nodes.
- quotients and roots: a few units of roundoff.
- library functions: multiples of the unit roundoff `relative |f(x)| + operand |x| + absolute`, at least four
  times what onnxruntime 1.32 (CPU, x86-64) was measured to be wrong by in float32, and where it has them
  in float64, on a million points of each function's range, extremes included. That another runtime keeps
  to them is an assumption. Softmax subtracts the maximum first.

What is not covered is refused; there is no default. Infinite errors mean that a result may overflow.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import inf, log, prod
from typing import Protocol

import numpy as np

from lpverify.interval import Array, gamma
from lpverify.ops.base import Constant, OnnxNode, is_whole
from lpverify.ops.execution import FLOATS, FloatType, OnnxStep

EXTRA = 16  # roundings of one node beyond those of its sum
FARTHEST = 1e8  # largest argument that periodic functions were measured at


class Ranges(Protocol):
    """What a rule may ask about an execution of one step, over all inputs; arrays `(1, *shape)`."""

    step: OnnxStep
    kind: FloatType

    def operand(self, index: int) -> Array:
        """Largest magnitudes of an operand."""

    def result(self) -> Array:
        """Largest magnitudes of the real function's result."""

    def sums(self) -> tuple[Array, int]:
        """Sums of the magnitudes of all terms of the result, and how often one is rounded."""

    def chain(self) -> int:
        """How often terms of the operands are rounded since the last nonlinear node."""


@dataclass(frozen=True)
class Rule:
    """What is known of an operator.

    Attributes:
        charge: Bounds the error of a result; None: there is none.
        reason: Why nothing is known; empty if something is.
        drifts: Whether the charge covers constant operands that are rounded.
        picks: Whether there is an error only if constant operands are.
        inner: The charge is for the operand of the step functions within.
    """

    charge: Callable[[Ranges], Array] | None = None
    reason: str = ""
    drifts: bool = False
    picks: bool = False
    inner: bool = False


def uncovered(step: OnnxStep) -> str:
    """Why a step's results have no bound in floating point; empty if they have one."""
    rule = rule_of(step.node)
    if rule.reason:
        return rule.reason
    if step.drift and not (rule.drifts and step.drift < 2.0**-6):
        return "constants computed with rounding"
    kinds = {step.kind(i) for i in range(len(step.outputs))} if rounds(step) else set()
    open_ = sorted(k for k in kinds if k not in FLOATS and not _countable(k))
    return f"element type {open_[0] or 'unknown'}" if open_ else ""


def rounds(step: OnnxStep) -> bool:
    """Whether floats among the results may be rounded."""
    rule = rule_of(step.node)
    return rule.charge is not None and (bool(step.drift) or not rule.picks)


def _countable(kind: str) -> bool:
    return is_whole(kind) or kind == "bool"


def rule_of(node: OnnxNode) -> Rule:
    """What is known of a node."""
    if node.domain not in ("", "ai.onnx"):
        return Rule(reason=f"operator of domain {node.domain}")
    if node.op_type == "Gelu" and "float64" in node.types:
        return Rule(reason="no runtime was measured in float64")
    whole = bool(node.result_types) and all(map(_countable, filter(None, node.result_types)))
    if whole and any(node.result_types) and node.op_type in WHOLE:
        return EXACT
    if node.op_type in ("Cast", "CastLike") and not _narrows(node):
        return EXACT
    if node.op_type.startswith("Scatter") and node.attribute("reduction", b"none") in (b"add", "add"):
        return SUMS
    if node.op_type.startswith("Scatter") and node.attribute("reduction", b"none") not in (b"none", "none"):
        return Rule(reason="a reduction that is no sum")
    return RULES.get(node.op_type, Rule(reason="no bound is known"))


def _narrows(node: OnnxNode) -> bool:
    """Whether a cast may round to the nearest float (casts to whole numbers are exact: toward zero)."""
    have, want = node.types[0], node.result_types[0]
    if want not in FLOATS or have == "bool" or have == want:
        return False
    if have not in FLOATS:
        return True
    ends = FLOATS[have], FLOATS[want]
    return not (ends[1].unit <= ends[0].unit and ends[1].normal <= ends[0].normal)


# Rules.


def terms_error(terms: float, drift: float, kind: FloatType) -> float:
    """Relative error of terms that are rounded so often, weights drifting."""
    return gamma(int(terms + 2.5 * drift / kind.unit) + 1, kind.unit)


def _gamma(terms: float, ranges: Ranges) -> float:
    return terms_error(terms, ranges.step.drift, ranges.kind)


def _relative(factor: float, size: Array, kind: FloatType) -> Array:
    """`factor` units of a size; what may overflow is infinite."""
    error = factor * kind.unit * size + 4 * kind.normal
    return np.where(size < kind.largest / 4, error, inf)


def _sum(ranges: Ranges) -> Array:
    size, count = ranges.sums()
    error = size * _gamma(count + EXTRA, ranges)
    return np.where(size < ranges.kind.largest / 4, error, inf)


def _picked(ranges: Ranges) -> Array:
    return 2 * ranges.step.drift * ranges.result() + ranges.kind.normal


def _quotient(ranges: Ranges) -> Array:
    return _relative(8 + 4 * ranges.step.drift / ranges.kind.unit, ranges.result(), ranges.kind)


def _cast(ranges: Ranges) -> Array:
    """To nearest; whole numbers that the type holds are not rounded."""
    size, kind = ranges.operand(0), ranges.kind
    error = _relative(2, size, kind)
    if ranges.step.node.whole():
        return np.where(size <= 1 / kind.unit, 0.0, error)
    return error


def _quantised(ranges: Ranges) -> Array:
    """Of the quotient that is rounded to whole numbers."""
    kind, drift = ranges.kind, ranges.step.drift
    size = ranges.result()
    return np.where(size < kind.largest / 4, (16 * kind.unit + 4 * drift) * size + 4 * kind.normal, inf)


def _power(ranges: Ranges) -> Array:
    exponent = ranges.step.node.operand(1)
    most = float(np.abs(exponent.array).max()) if isinstance(exponent, Constant) else 16.0
    return _relative(16 + 2 * min(most, 64.0), ranges.result(), ranges.kind)


def _normalised(ranges: Ranges) -> Array:
    """BatchNormalization: `s (x - mean) + b` as it is, or as `s x + (b - s mean)`, fused or not."""
    node, kind = ranges.step.node, ranges.kind
    arrays = [np.asarray(node.constant(i).array, np.float64) for i in range(1, 5)]
    spread = arrays[3] + float(np.float32(node.attribute("epsilon", 1e-5)))
    shape = (-1,) + (1,) * (len(node.shapes[0]) - 2)
    scale = (np.abs(arrays[0]) / np.sqrt(spread)).reshape(shape) * 1.01
    bias, mean = (np.abs(a).reshape(shape) for a in arrays[1:3])
    size = (scale + kind.floor) * (ranges.operand(0) + mean + kind.floor) + bias + kind.floor
    return np.where(size < kind.largest / 4, size * _gamma(2 * EXTRA + ranges.chain(), ranges), inf)


def _library(relative: float, operand: float, absolute: float, limit: float = inf) -> Rule:
    """A library function; beyond the limit nothing is claimed."""

    def charge(ranges: Ranges) -> Array:
        kind, size = ranges.kind, ranges.result()
        error = relative * size + absolute
        if operand or limit < inf:
            x = ranges.operand(0)
            error = np.where(x <= limit, error + operand * x, inf)
        return np.where(size < kind.largest / 4, error * kind.unit + 4 * kind.normal, inf)

    return Rule(charge)


def _exponential(name: str, default: float, relative: float = 8.0) -> Rule:
    """Functions like `alpha (e^x - 1)` for negative x."""

    def charge(ranges: Ranges) -> Array:
        alpha = 16.0 * abs(ranges.step.node.attribute(name, default)) * ranges.kind.unit
        return _relative(relative, ranges.result(), ranges.kind) + alpha

    return Rule(charge)


def _selu(ranges: Ranges) -> Array:
    node = ranges.step.node
    factor = node.attribute("gamma", 1.0507) * node.attribute("alpha", 1.6733)
    return _relative(8, ranges.result(), ranges.kind) + 16.0 * abs(factor) * ranges.kind.unit


def _hard_sigmoid(ranges: Ranges) -> Array:
    """`alpha x + beta` counts only where it is between 0 and 1, or nearly so."""
    node, kind = ranges.step.node, ranges.kind
    alpha, beta = abs(node.attribute("alpha", 0.2)), abs(node.attribute("beta", 0.5))
    line = np.minimum(alpha * ranges.operand(0), 2.0 + beta) + beta
    return 16 * kind.unit * line + 4 * kind.normal * (1 + alpha)


def _swish(ranges: Ranges) -> Array:
    """`x sigmoid(alpha x)`; the rounded `alpha x` moves the sigmoid by less than a unit."""
    return 24 * ranges.kind.unit * ranges.operand(0) + 4 * ranges.kind.normal


def _shrink(ranges: Ranges) -> Array:
    size = ranges.operand(0) + abs(ranges.step.node.attribute("bias", 0.0))
    return _relative(4, size, ranges.kind)


def _wave(ranges: Ranges) -> Array:
    """Sine and cosine: between -1 and 1 in any case."""
    return np.where(ranges.operand(0) <= FARTHEST, 32 * ranges.kind.unit, 2.5)


def _length(node: OnnxNode) -> int:
    """Elements that one softmax is over: before version 13 all axes from the given one on."""
    shape, axis = node.shapes[0], node.attribute("axis", -1 if node.version >= 13 else 1)
    return int(shape[axis]) if node.version >= 13 else prod(shape[axis % max(len(shape), 1) :])


def _softmax(ranges: Ranges) -> Array:
    """`e^-t / sum`, `t = max - x`: t is wrong by `u t`, and `t e^-t < 1/2`; the sum by `n + log n` units."""
    node, kind = ranges.step.node, ranges.kind
    count = _length(node)
    error = (count + 32 + 2 * log(count)) * np.minimum(ranges.result(), 1.0) + 1.0
    reach = ranges.operand(0).max() < kind.largest / 8
    return error * kind.unit + 4 * kind.normal if reach else np.full_like(error, inf)


def _log_sum(ranges: Ranges, count: int) -> Array:
    """Maxima plus logarithms of sums between 1 and `count`."""
    kind, most = ranges.kind, float(ranges.operand(0).max())
    error = 4 * ranges.result() + 8 * most + count + 8 * log(count) + 32
    reach = most < kind.largest / 8
    return error * kind.unit + 4 * kind.normal if reach else np.full_like(error, inf)


def _log_softmax(ranges: Ranges) -> Array:
    return _log_sum(ranges, _length(ranges.step.node))


def _reduced(ranges: Ranges) -> int:
    """How many elements of the operand there are for one of the result."""
    return max(ranges.operand(0).size // ranges.result().size, 1)


def _log_sum_exp(ranges: Ranges) -> Array:
    return _log_sum(ranges, _reduced(ranges))


def _norm(ranges: Ranges) -> Array:
    """The root of a sum of squares: squares may underflow."""
    kind, size, count = ranges.kind, ranges.result(), _reduced(ranges) + EXTRA
    error = size * _gamma(count, ranges) + 2 * np.sqrt(count * kind.normal)
    return np.where(size < np.sqrt(kind.largest) / 2, error, inf)


def _interpolated(ranges: Ranges) -> Array:
    """Linear resizing: places, not weights, are rounded, relative to the size of an axis.

    The interpolated function is continuous, its slope along an axis at most twice the largest value.
    """
    kind, most = ranges.kind, float(ranges.operand(0).max())
    places = sum(32.0 * (n + 1) for n in ranges.step.node.shapes[0] if n > 1)
    error = np.full_like(ranges.result(), (places + 64.0) * kind.unit * most + 4 * kind.normal)
    return error if most < kind.largest / 8 else np.full_like(error, inf)


def _resized(ranges: Ranges) -> Array:
    """Nearest elements are the same if all places are exact: for factors that are powers of two."""
    node = ranges.step.node
    mode = node.attribute("mode", b"nearest")
    transformation = node.attribute("coordinate_transformation_mode", b"half_pixel")
    shapes = ranges.operand(0).shape[1:], ranges.result().shape[1:]
    exact = all(np.frexp(new / old)[0] == 0.5 for old, new in zip(*shapes, strict=True))
    if mode in (b"nearest", "nearest") and exact and transformation in (b"half_pixel", b"asymmetric"):
        return np.zeros_like(ranges.result())
    if mode in (b"linear", "linear") and transformation != b"tf_crop_and_resize":
        return _interpolated(ranges)
    return np.full_like(ranges.result(), inf)


EXACT = Rule()
PICKS = Rule(_picked, drifts=True, picks=True)
SUMS = Rule(_sum, drifts=True)
NORMALISED = Rule(_normalised)
QUOTIENT = Rule(_quotient, drifts=True)
INNER = Rule(_quantised, drifts=True, inner=True)


def _all(rule: Rule, *names: str) -> dict[str, Rule]:
    return dict.fromkeys(" ".join(names).split(), rule)


WHOLE = frozenset(  # exact on whole numbers; that they stay in their range is checked apart
    _all(
        EXACT,
        "Add Sub Mul Sum Neg MatMul Gemm MatMulInteger ConvInteger ReduceSum ReduceL1 ReduceSumSquare",
        "ReduceProd CumSum CumProd Einsum Pow Mod Clip Max Min Cast CastLike Scatter ScatterElements",
        "ScatterND",
    )
)

RULES: Mapping[str, Rule] = {
    **_all(
        EXACT,
        "Abs And ArgMax ArgMin Ceil Clip Compress DepthToSpace Dropout Equal Expand Flatten Floor Gather",
        "GatherElements GatherND GlobalMaxPool Greater GreaterOrEqual Hardmax Identity IsInf IsNaN Less",
        "LessOrEqual Max MaxPool Min Mod Neg Not OneHot Or ReduceMax ReduceMin Relu Reshape ReverseSequence",
        "Round Sign Slice SpaceToDepth Split Squeeze ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Xor",
        "ConvInteger MatMulInteger",
    ),
    **_all(PICKS, "Concat Pad Scatter ScatterElements ScatterND Where Constant"),
    **_all(
        SUMS,
        "Add AveragePool Col2Im Conv ConvTranspose CumSum DequantizeLinear Einsum Gemm GlobalAveragePool",
        "MatMul Mean Mul ReduceL1 ReduceMean ReduceSum ReduceSumSquare Sub Sum",
    ),
    **_all(QUOTIENT, "Div Reciprocal"),
    **_all(INNER, "QLinearConv QLinearMatMul QuantizeLinear"),
    **_all(Rule(_cast), "Cast CastLike"),
    **_all(Rule(_resized), "Resize Upsample"),
    "BatchNormalization": NORMALISED,
    "Pow": Rule(_power),
    "Sqrt": _library(4, 0, 0),
    "LeakyRelu": _library(4, 0, 0),
    "PRelu": _library(4, 0, 0),
    "Sigmoid": _library(0, 0, 16),
    "Tanh": _library(32, 0, 0),
    "Erf": _library(16, 0, 8),
    "Exp": _library(16, 0, 0),
    "Log": _library(24, 0, 8),
    "Softplus": _library(24, 0, 8),
    "Softsign": _library(12, 0, 0),
    "Mish": _library(0, 24, 0),
    "HardSwish": _library(0, 16, 0),
    "Gelu": _library(0, 16, 0),
    "Swish": Rule(_swish),
    "Elu": _exponential("alpha", 1.0),
    "Celu": _exponential("alpha", 1.0),
    "Selu": Rule(_selu),
    "HardSigmoid": Rule(_hard_sigmoid),
    "Shrink": Rule(_shrink),
    "Sin": Rule(_wave),
    "Cos": Rule(_wave),
    "Tan": _library(16, 0, 0, FARTHEST),
    "Asin": _library(40, 0, 0),
    "Acos": _library(24, 0, 32),
    "Atan": _library(16, 0, 0),
    "Sinh": _library(12, 0, 0),
    "Cosh": _library(12, 0, 0),
    "Asinh": _library(12, 0, 0),
    "Acosh": _library(12, 0, 0),
    "Atanh": _library(12, 0, 0),
    "Softmax": Rule(_softmax),
    "LogSoftmax": Rule(_log_softmax),
    "ReduceLogSumExp": Rule(_log_sum_exp),
    "ReduceL2": Rule(_norm),
    **_all(
        Rule(reason="how it is computed in between differs too much"),
        "Attention CumProd GRU GlobalLpPool GridSample GroupNormalization InstanceNormalization LRN LSTM",
        "LayerNormalization LpNormalization LpPool MeanVarianceNormalization RMSNormalization RNN",
        "ReduceLogSum ReduceProd RotaryEmbedding SwiGLU",
    ),
}
