"""Truth values, the numbers 0 and 1: tests of numbers against zero, and choices by them.

Tests of whole numbers need no jumps, they are piecewise linear between them: with d whole

    [d > 0] = min(relu(d), 1)        [d = 0] = relu(1 - |d|)
"""

from dataclasses import dataclass
from math import inf

import numpy as np

from lpverify.interval import (
    Array,
    Box,
    namespace,
    tiny,
    to_double,
    to_type,
    to_type_up,
    unit_roundoff,
)
from lpverify.ops.base import Constant, ElementwiseOp, GraphBuilder, Lines, SelectionOp
from lpverify.ops.bilinear import product
from lpverify.ops.linear import ROUNDING, Combine, Scale, align, checked, shift
from lpverify.ops.piecewise import Relu
from lpverify.ops.shape import broadcast_to
from lpverify.ops.steps import FARTHEST, Heaviside


@dataclass(frozen=True)
class IsZero(ElementwiseOp):
    """1 at zero, else 0."""

    def forward(self, *xs: Array) -> Array:
        xp = namespace(xs[0])
        return xp.where(xs[0] == xs[0], xp.astype(xs[0] == 0, xs[0].dtype), xs[0])

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """Exact."""
        low, high = boxes[0].lower, boxes[0].upper
        xp = namespace(low)
        only, inside = (low == 0) & (high == 0), (low <= 0) & (high >= 0)
        return xp.astype(only, low.dtype), xp.astype(inside, low.dtype)

    def derivative(self, x: Array) -> Array:
        return namespace(x).zeros_like(x)

    def unstable(self, box: Box) -> Array:
        return (box.lower <= 0) & (box.upper >= 0) & (box.lower < box.upper)

    def split_points(self, low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
        """Zero: the lines are steep on both sides of it."""
        return [np.zeros_like(low), 0.5 * low + 0.5 * high]

    def alpha_gradient(self, box: Box, alpha: Array, x: Array) -> Array:
        """There is but one line below."""
        return namespace(x).zeros_like(x)

    def relax(self, box: Box, alpha: Array | None) -> Lines:
        """Zero below; above the line through 1 at zero and 0 at the farther end."""
        low, high = to_double(box.lower), to_double(box.upper)
        xp, like = namespace(low), box.lower
        zero = xp.zeros_like(low)
        least, most = self.interval(Box(low, high))
        with np.errstate(all="ignore"):
            slope = to_double(to_type(-1 / xp.where(low + high > 0, high, low), like))
            usable = (least < most) & (xp.abs(slope) < FARTHEST)
            slope = xp.where(usable, slope, zero)
            height = xp.maximum(xp.abs(slope * low), xp.abs(slope * high))
            # The product with the farther end is 1 but for rounding, the other one is below 1.
            lift = height * (1 + 4 * unit_roundoff(height)) + tiny(height)
            top = xp.where(usable & (lift > most), lift, most)
        return Lines(to_type(zero, like), to_type(least, like), to_type(slope, like), to_type_up(top, like))


@dataclass(frozen=True)
class Undefined(ElementwiseOp):
    """0, as no real number is NaN or infinite; but 0 or 1 where the operand's box is unbounded.

    A value that may be undefined, like a logarithm of a negative number, has an unbounded box.
    """

    @staticmethod
    def _doubt(box: Box) -> Array:
        return ~((box.lower > -inf) & (box.upper < inf))

    def forward(self, *xs: Array) -> Array:
        xp = namespace(xs[0])
        return xp.astype(~xp.isfinite(xs[0]), xs[0].dtype)

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        low = boxes[0].lower
        xp = namespace(low)
        return xp.zeros_like(low), xp.astype(self._doubt(boxes[0]), low.dtype)

    def derivative(self, x: Array) -> Array:
        return namespace(x).zeros_like(x)

    def unstable(self, box: Box) -> Array:
        """Bounds of the operand would help."""
        return self._doubt(box)

    def relax(self, box: Box, alpha: Array | None) -> Lines:
        """Constants."""
        low, high = self.interval(box)
        return Lines(low, low, low, high)


@dataclass(frozen=True)
class Known(SelectionOp):
    """The value itself, of which more is known than its box: what it means makes it lie in a range, or whole.

    Without it rounding outward would leave whole numbers next to the points where their tests bend.
    """

    least: float = -inf
    most: float = inf
    whole: bool = False

    def linear(self, *xs: Array) -> Array:
        return xs[0]

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        return (a,)

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """The part of the box that is possible; a region in which nothing is has no points."""
        xp = namespace(boxes[0].lower)
        low, high = (xp.clip(end, self.least, self.most) for end in (boxes[0].lower, boxes[0].upper))
        return whole_part(low, high) if self.whole else (low, high)


def whole_part(low: Array, high: Array) -> tuple[Array, Array]:
    """The first and the last whole number in a box; the box itself if it has none."""
    xp = namespace(low)
    up, down = xp.ceil(low), xp.floor(high)
    return xp.where(up <= down, up, low), xp.where(up <= down, down, high)


def plus(value: int, number: float, graph: GraphBuilder, sign: int = 1) -> int:
    """`sign * x + number`."""
    return graph.add(shift(np.asarray(float(number)), 0.0, sign), [value])


def negative(value: int, graph: GraphBuilder) -> int:
    """`-x`."""
    return graph.add(Combine((-1,)), [value])


def rectified(value: int, graph: GraphBuilder) -> int:
    """`relu(x)`."""
    return graph.add(Relu(), [value])


def whole(value: int, graph: GraphBuilder) -> int:
    """A value that is a whole number."""
    return graph.add(Known(whole=True), [value])


def truth(value: int, graph: GraphBuilder) -> int:
    """A value that is 0 or 1."""
    return graph.add(Known(0.0, 1.0, True), [value])


def contrary(value: int, graph: GraphBuilder) -> int:
    """1 for 0, 0 for 1."""
    return truth(plus(value, 1, graph, -1), graph)


def magnitude(value: int, graph: GraphBuilder) -> int:
    """`relu(x) + relu(-x)` of a whole number: its interval is that of `|x|`."""
    value = whole(value, graph)
    parts = [rectified(value, graph), rectified(negative(value, graph), graph)]
    return whole(graph.add(Combine((1, 1)), parts), graph)


def _below_one(value: int, graph: GraphBuilder) -> int:
    """`relu(1 - x)` of a whole number."""
    return rectified(whole(plus(value, 1, graph, -1), graph), graph)


def is_positive(value: int, closed: bool, is_whole: bool, graph: GraphBuilder) -> int:
    """`[x >= 0]` if `closed`, else `[x > 0]`."""
    if not is_whole:
        return graph.add(Heaviside(closed), [value])
    value = whole(plus(value, 1, graph) if closed else value, graph)
    return contrary(_below_one(rectified(value, graph), graph), graph)


def is_zero(value: int, is_whole: bool, graph: GraphBuilder) -> int:
    """`[x = 0]`."""
    if not is_whole:
        return graph.add(IsZero(), [value])
    return _below_one(magnitude(value, graph), graph)


def choice(condition: int, first: Constant | int, second: Constant | int, graph: GraphBuilder) -> int:
    """The first operand where a truth value is 1, else the second: `y + c (x - y)`, with broadcasting."""
    if isinstance(first, Constant) and isinstance(second, Constant) and not (first.error or second.error):
        return _constant_choice(condition, first, second, graph)
    x, y = (
        graph.constant(part, part.array.shape) if isinstance(part, Constant) else part
        for part in (first, second)
    )
    x, y = align(x, graph.shape(y), graph), align(y, graph.shape(x), graph)
    gain = product(condition, graph.add(Combine((1, -1)), [x, y]), graph)
    return graph.add(Combine((1, 1)), [broadcast_to(y, graph.shape(gain), graph), gain])


def _constant_choice(condition: int, first: Constant, second: Constant, graph: GraphBuilder) -> int:
    x, y = np.broadcast_arrays(*(np.asarray(c.array, np.float64) for c in (first, second)))
    gain = np.asarray(checked(x - y, x == y))
    error = 0.0 if _exact_difference(x, y, gain) else ROUNDING
    return graph.add(Scale(gain, np.array(y), error), [align(condition, gain.shape, graph)])


def _exact_difference(x: np.ndarray, y: np.ndarray, result: np.ndarray) -> bool:
    """Whether no element was rounded (Knuth's two-sum)."""
    part = result - x
    return bool(((x - (result - part)) + (-y - part) == 0).all())
