"""How far folded constants are from what an execution of their nodes in floating point makes of them.

A runtime that runs nodes of constants rounds their results to the element type; folding does not. The
difference is bounded relative to the folded numbers, by the rules that folding has for its own rounding.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

import numpy as np

from lpverify.interval import gamma
from lpverify.io.folding import ARITHMETIC, MOVES, names_of
from lpverify.ops.base import Constant
from lpverify.ops.execution import FLOATS, FloatType

_STEPS = names_of(  # jumps of rounded constants are not followed
    "And Ceil Equal Floor Greater GreaterOrEqual Less LessOrEqual NonZero Not OneHot Or Range Round Sign",
)
_SHAPES = names_of("Constant ConstantOfShape EyeLike Shape Size")  # operands are not read as numbers
_CASTS = names_of("Cast CastLike")


def drifted(
    op_type: str, operands: Sequence[Constant | None], folded: Mapping[str, Constant], kinds: Sequence[str]
) -> dict[str, Constant]:
    """The folded constants of one node with their drifts.

    Args:
        op_type: The operator.
        operands: Of the node.
        folded: Its results over the reals, by name.
        kinds: Their element types.
    """
    present = [o for o in operands if o is not None]
    return {
        name: replace(constant, drift=_drift(op_type, present, constant, kinds[i] if i < len(kinds) else ""))
        for i, (name, constant) in enumerate(folded.items())
    }


def _drift(op_type: str, operands: Sequence[Constant], result: Constant, kind: str) -> float:
    most = max((o.drift for o in operands), default=0.0)
    floats = any(o.array.dtype.kind in "fV" for o in operands)
    if op_type in _SHAPES or (not floats and not most and op_type != "DequantizeLinear"):
        return 0.0
    if op_type in _STEPS:
        return inf if most else 0.0
    if op_type in _CASTS and not most and not result.error:
        return 0.0  # folded as an execution casts
    if op_type in MOVES and op_type not in _CASTS:
        return most
    if kind not in FLOATS or not _normal(result.array, FLOATS[kind]):
        return inf
    return _rounded(op_type, operands, result, FLOATS[kind])


def _normal(array: np.ndarray, kind: FloatType) -> bool:
    """Whether numbers are zero or far from underflow and overflow."""
    size = np.abs(np.asarray(array, np.float64))
    return bool(((size == 0) | ((size > 4 * kind.normal) & (size < kind.largest / 4))).all())


def _rounded(op_type: str, operands: Sequence[Constant], result: Constant, kind: FloatType) -> float:
    """Of arithmetic on floats, and casts of rounded ones."""
    drifts = sum(o.drift for o in operands)
    if not drifts < 0.01:
        return inf
    if op_type in ("Add", "Sub", "MatMul"):
        return _of_sum(op_type, operands, result, kind)
    if op_type in ARITHMETIC or op_type in _CASTS or op_type == "DequantizeLinear":
        return 1.5 * drifts + 4 * kind.unit
    return inf


def _of_sum(op_type: str, operands: Sequence[Constant], result: Constant, kind: FloatType) -> float:
    """Sums: the absolute error, over the result."""
    a, b = (np.abs(np.asarray(o.array, np.float64)) for o in operands)
    if op_type == "MatMul":
        terms = a.shape[-1] if a.ndim else 1
        factor = 1.1 * (operands[0].drift + operands[1].drift) + gamma(terms + 4, kind.unit)
        size = np.asarray(a @ b)
        absolute = np.where(size > 0, size * factor + terms * kind.normal, 0.0)
    else:
        absolute = 1.1 * (a * operands[0].drift + b * operands[1].drift)
    size, absolute = np.abs(np.asarray(result.array, np.float64)), np.asarray(absolute)
    wrong = absolute > 0
    if not size[wrong].all():
        return inf
    return float((absolute[wrong] / size[wrong]).max(initial=0.0)) * 1.1 + 4 * kind.unit
