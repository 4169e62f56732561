"""Affine ops with weights: matrix products, scaling by constants, sums of values; and their builders."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import (
    Array,
    Box,
    add_down,
    add_up,
    gamma,
    namespace,
    negative_part,
    positive_part,
    round_down,
    round_up,
    sound_box,
    tiny,
    unit_roundoff,
)
from lpverify.ops.base import AffineOp, Constant, GraphBuilder, Op
from lpverify.ops.shape import broadcast_to

ROUNDING = 2.0**-52  # relative error of one or two operations on exact double constants


@dataclass(frozen=True)
class Linear(AffineOp):
    """`W x + offset` along the last axis; `weight` `(out, in)`, dense."""

    weight: Array
    offset: Array | None = None
    weight_error: float = 0.0
    offset_error: Array | None = None

    def linear(self, *xs: Array) -> Array:
        return xs[0] @ self.weight.T

    def abs_linear(self, *xs: Array) -> Array:
        return xs[0] @ namespace(self.weight).abs(self.weight).T

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        return (a @ self.weight,)

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """As for all; exact in rows that copy an element or its negative."""
        low, high = super().interval(*boxes)
        rows, columns, negative = self._copies
        if not len(rows):
            return low, high
        x, y = (end[..., columns] for end in (boxes[0].lower, boxes[0].upper))
        first, last = np.where(negative, -y, x), np.where(negative, -x, y)
        if self.offset is not None:
            shift = np.broadcast_to(self.offset, low.shape)[..., rows]
            first, last = add_down(first, shift), add_up(last, shift)
        low[..., rows], high[..., rows] = np.maximum(low[..., rows], first), np.minimum(high[..., rows], last)
        return low, high

    @cached_property
    def _copies(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows with one entry, 1 or -1, their columns, and which are -1; NumPy's, without errors."""
        none = np.zeros(0, np.int64)
        if not isinstance(self.weight, np.ndarray) or self.weight_error:
            return none, none, none
        single = np.flatnonzero(np.count_nonzero(self.weight, axis=1) == 1)
        columns = np.argmax(self.weight[single] != 0, axis=1)
        entries = self.weight[single, columns]
        copies = np.abs(entries) == 1
        if self.offset_error is not None:
            error = np.asarray(self.offset_error)
            largest = error.reshape(-1, error.shape[-1]).max(axis=0) if error.ndim else error
            copies &= np.broadcast_to(largest, self.weight.shape[:1])[single] == 0
        return single[copies], columns[copies], entries[copies] < 0

    @property
    def terms(self) -> tuple[int, int]:
        rows, columns = self.weight.shape
        return columns, rows


@dataclass(frozen=True)
class SparseLinear(AffineOp):
    """`W x + offset` on `(N, in)` values with a SciPy CSR `weight` `(out, in)`; NumPy only."""

    weight: Any
    offset: Array | None = None
    weight_error: float = 0.0
    offset_error: Array | None = None

    def linear(self, *xs: Array) -> Array:
        return self._product(self.weight, xs[0])

    def abs_linear(self, *xs: Array) -> Array:
        return self._product(abs(self.weight), xs[0])

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        return (self._product(self.weight.T, a),)

    @staticmethod
    def _product(matrix: Any, x: Array) -> Array:
        flat = x.reshape(-1, x.shape[-1])
        return np.ascontiguousarray((matrix @ flat.T).T).reshape(*x.shape[:-1], matrix.shape[0])

    def work(self, size: int) -> int:
        return int(self.weight.nnz)

    @property
    def terms(self) -> tuple[int, int]:
        return self._terms

    @cached_property
    def _terms(self) -> tuple[int, int]:
        """Most nonzeros in a row and in a column: only those are multiplied."""
        columns = np.bincount(self.weight.indices, minlength=1)
        return int(np.diff(self.weight.indptr).max(initial=1)), int(columns.max(initial=1))

    def convert(self, function: Callable[[np.ndarray], Array]) -> Op:
        """Dense where arrays are not NumPy's."""
        if isinstance(function(np.zeros(1)), np.ndarray):
            return super().convert(function)
        dense = Linear(self.weight.toarray(), self.offset, self.weight_error, self.offset_error)
        return dense.convert(function)


@dataclass(frozen=True)
class MatMulConstant(AffineOp):
    """`x @ W` or, with `left`, `W @ x` for a constant stack of matrices."""

    weight: Array
    left: bool
    input_shape: tuple[int, ...]
    weight_error: float = 0.0

    def linear(self, *xs: Array) -> Array:
        return self.weight @ xs[0] if self.left else xs[0] @ self.weight

    def abs_linear(self, *xs: Array) -> Array:
        weight = namespace(self.weight).abs(self.weight)
        return weight @ xs[0] if self.left else xs[0] @ weight

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        turned = self.weight.swapaxes(-1, -2)
        return (turned @ a if self.left else a @ turned,)

    @property
    def terms(self) -> tuple[int, int]:
        size = max(self.weight.shape[-2:])
        return size, size


@dataclass(frozen=True)
class Scale(AffineOp):
    """`weight * x + offset` elementwise; both broadcast against the value's shape."""

    weight: Array
    offset: Array | None = None
    weight_error: float = 0.0
    offset_error: Array | None = None

    def linear(self, *xs: Array) -> Array:
        return self.weight * xs[0]

    def abs_linear(self, *xs: Array) -> Array:
        return namespace(self.weight).abs(self.weight) * xs[0]

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        return (self.weight * a,)

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """Products with the ends, which keep their signs, as centre and radius do not."""
        xp, w, x, y = namespace(boxes[0].lower), self.weight, boxes[0].lower, boxes[0].upper
        low, high = xp.minimum(w * x, w * y), xp.maximum(w * x, w * y)
        exact = (xp.abs(w) == 1) & (self.weight_error == 0)
        relative, slack = self.weight_error + 8 * unit_roundoff(low), tiny(low)
        down = xp.where(exact, low, low - relative * xp.abs(low) - slack)
        up = xp.where(exact, high, high + relative * xp.abs(high) + slack)
        up = xp.where((w == 0) | ((w > 0) & (y <= 0)) | ((w < 0) & (x >= 0)), negative_part(up), up)
        down = xp.where((w == 0) | ((w > 0) & (x >= 0)) | ((w < 0) & (y <= 0)), positive_part(down), down)
        if self.offset is not None:
            shift = self.offset + xp.zeros_like(down)
            down, up = add_down(down, shift), add_up(up, shift)
        if self.offset_error is not None:
            down, up = round_down(down - self.offset_error), round_up(up + self.offset_error)
        return sound_box(down, up)

    @property
    def terms(self) -> tuple[int, int]:
        return 1, 1


@dataclass(frozen=True)
class Combine(AffineOp):
    """`sign_1 x_1 + sign_2 x_2 + ...` of values of one shape, signs +1 or -1."""

    signs: tuple[int, ...]

    def linear(self, *xs: Array) -> Array:
        total = xs[0] if self.signs[0] > 0 else -xs[0]
        for sign, x in zip(self.signs[1:], xs[1:], strict=True):
            total = total + x if sign > 0 else total - x
        return total

    def abs_linear(self, *xs: Array) -> Array:
        return sum(xs[1:], start=xs[0])

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        return tuple(a if sign > 0 else -a for sign in self.signs)

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """End points added with outward rounding; exact for one summand."""
        lower = upper = None
        for sign, box in zip(self.signs, boxes, strict=True):
            low, high = (box.lower, box.upper) if sign > 0 else (-box.upper, -box.lower)
            lower = low if lower is None else add_down(lower, low)
            upper = high if upper is None else add_up(upper, high)
        return sound_box(lower, upper)

    @property
    def terms(self) -> tuple[int, int]:
        return len(self.signs), 0


@dataclass(frozen=True)
class Sum(AffineOp):
    """Sum over `axes` of the value (kept with length 1)."""

    axes: tuple[int, ...]
    input_shape: tuple[int, ...]

    def linear(self, *xs: Array) -> Array:
        return namespace(xs[0]).sum(xs[0], axis=tuple(a + 1 for a in self.axes), keepdims=True)

    def abs_linear(self, *xs: Array) -> Array:
        return self.linear(*xs)

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        return (namespace(a).broadcast_to(a, (a.shape[0], *self.input_shape)),)

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """Sums of the ends: those of one sign keep it, as centre and radius don't."""
        lower, upper = boxes[0].lower, boxes[0].upper
        xp = namespace(lower)
        relative = gamma(self.terms[0] + 2, unit_roundoff(lower))
        down = self.linear(lower) - relative * self.linear(xp.abs(lower))
        return sound_box(down, self.linear(upper) + relative * self.linear(xp.abs(upper)))

    @property
    def terms(self) -> tuple[int, int]:
        return math.prod(self.input_shape[a] for a in self.axes), 0


def dense_or_sparse(weight: np.ndarray, offset: np.ndarray | None, error: float = 0.0) -> AffineOp:
    """A `Linear`, or a `SparseLinear` where the matrix is large and nearly all zero."""
    if weight.size >= 2**16 and np.count_nonzero(weight) < 0.05 * weight.size:
        from scipy import sparse  # noqa: PLC0415  (rarely needed, slow to import)

        matrix = sparse.csr_array(weight).astype(np.float64)
        return SparseLinear(matrix, offset, error)
    return Linear(np.ascontiguousarray(weight, np.float64), offset, error)


def shift(array: np.ndarray, error: float, scale: float = 1.0) -> Scale:
    """The op `scale * x + array`."""
    bound = np.asarray(np.abs(array) * error) if error else None
    return Scale(np.asarray(scale, np.float64), np.asarray(array, np.float64), 0.0, bound)


def checked(result: np.ndarray, zero: np.ndarray | bool = False) -> np.ndarray:
    """A rounded result whose relative error is that of its operation, but for exact zeros.

    Raises:
        UnsupportedError: It overflows or underflows.
    """
    size = np.abs(result)
    if not ((size < np.inf) & ((size > 2.0**-1000) | zero)).all():
        raise UnsupportedError("arithmetic on constants leaves the range of float64")
    return result


def align(value: int, other: tuple[int, ...], graph: GraphBuilder) -> int:
    """Broadcasts a value against another operand's shape where ONNX would."""
    return broadcast_to(value, np.broadcast_shapes(graph.shape(value), other), graph)


def scaled(constant: Constant, factor: float) -> Constant:
    """`factor * constant` with its error."""
    array = np.asarray(constant.array, np.float64)
    if factor == 1.0:
        return Constant(array, constant.error)
    product = checked(array * factor, (array == 0) | (factor == 0))
    return Constant(np.asarray(product), constant.error + ROUNDING)


def multiply_constant(value: int, constant: Constant, graph: GraphBuilder) -> int:
    """`constant * value` with broadcasting."""
    value = align(value, constant.array.shape, graph)
    weight = np.asarray(constant.array, np.float64)
    return graph.add(Scale(weight, None, constant.error), [value])


def divide_constant(value: int, divisor: Constant, graph: GraphBuilder) -> int:
    """`value / divisor` with broadcasting."""
    array = np.asarray(divisor.array, np.float64)
    if not array.all():
        raise UnsupportedError("division by a constant zero")
    if divisor.error > 0.25:
        raise UnsupportedError("division by a constant with a large error")
    inverse = np.asarray(checked(1.0 / array))
    exact = bool((np.frexp(array)[0] == np.copysign(0.5, array)).all())  # powers of two
    error = 2 * divisor.error + (0.0 if exact else ROUNDING)
    return multiply_constant(value, Constant(inverse, error), graph)
