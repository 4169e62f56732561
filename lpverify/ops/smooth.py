"""Elementwise ops made of convex and concave pieces: one recipe gives their interval and their lines.

Method: any slope may be chosen; the intercept of the lower line is then the minimum of `f(x) - s x`. On a
concave piece that is attained at an end. On a convex piece the tangent at *any* point of it is below `f`,
so a point where `f' = s` nearly gives a bound that is exact up to `|f' - s|` times the width. Nothing but the
signs of the curvature and the evaluation errors of `f` and `f'` is taken for granted; stationary points
and slopes are proposals. The upper line is minus the lower line of `-f`.
The adaptive slope is that of the best lower line at one point (the centre of the box: the line with the
largest area below it), found by bisection: `max over s of s c + min (f(x) - s x)` is concave in `s` with
supergradient `c - argmin` (Danskin's theorem).
Guarantee: lines and intervals hold in exact arithmetic for every real x of the box.

Everything is computed in float64 and rounded outward to the type of the box.
"""

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf
from typing import ClassVar

import numpy as np

from lpverify.interval import (
    LIBRARY,
    Array,
    Box,
    namespace,
    positive_part,
    tiny,
    to_double,
    to_type,
    to_type_down,
    to_type_up,
    unit_roundoff,
)
from lpverify.ops.base import ElementwiseOp, GraphBuilder, Lines, OnnxNode, importer

SLOPE_STEPS = 12  # halvings of the slope's range for boxes over several pieces
SETTLED = 2.0**-20  # relative to the change of the slope over the box
FARTHEST = 1e150  # beyond, functions only rise or fall
FAN = 17  # lines that multipliers mix; what a mix loses falls with its square
POINT_STEPS = 12  # narrowings of a piece when a derivative has no closed inverse


@dataclass(frozen=True, slots=True)
class Profile:
    """Where a function bends how.

    Attributes:
        bends: For each piece 1 (convex), -1 (concave) or 0 (linear).
        breaks: The finite ends between pieces, ascending, off by at most one float; `f` is continuous.
        span: All values are within.
        monotone: The function never turns.
    """

    bends: tuple[int, ...]
    breaks: tuple[float, ...] = ()
    span: tuple[float, float] = (-inf, inf)
    monotone: bool = True


@dataclass(frozen=True, slots=True)
class Piece:
    """The part of one piece inside a box: from `left` to `right`, nothing where not `used`."""

    index: int
    bend: int | Array
    left: Array
    right: Array
    used: Array


class SmoothOp(ElementwiseOp):
    """A continuous function of convex and concave pieces; subclasses say what it is, this class bounds it."""

    @property
    @abstractmethod
    def profile(self) -> Profile:
        """Bends, breaks and range."""

    @abstractmethod
    def slope(self, x: Array, piece: int) -> Array:
        """The derivative of the formula that holds on a piece (one-sided at its ends)."""

    def inverse(self, slope: Array, piece: Piece) -> Array:
        """About where the derivative takes a value on a piece, beyond its ends if nowhere; a proposal.

        Bisection, then false position; subclasses override it with a closed form.
        """
        left, right = piece.left, piece.right
        xp = namespace(slope)
        start, end = (self.slope(x, piece.index) - slope for x in (left, right))
        for step in range(POINT_STEPS):
            share = start / (start - end) if step >= POINT_STEPS // 2 else 0.5
            middle = left + share * (right - left)
            value = self.slope(middle, piece.index) - slope
            after = (value < 0) == (piece.bend > 0)
            left, right = xp.where(after, middle, left), xp.where(after, right, middle)
            start, end = xp.where(after, value, start), xp.where(after, end, value)
        share = start / (start - end)
        share = xp.where((share >= 0) & (share <= 1), share, 0.5 * xp.ones_like(share))
        return left + share * (right - left)

    def error(self, x: Array, y: Array) -> Array:
        """An upper bound of `|computed f - f|` at a float64 `x`, `y` the computed value; underflow apart."""
        return LIBRARY * namespace(y).abs(y)

    def slope_error(self, x: Array, slope: Array) -> Array:
        """The same for `slope`."""
        return LIBRARY * namespace(slope).abs(slope)

    def defined(self, low: Array, high: Array) -> Array:
        """Mask of the boxes inside the domain; elsewhere nothing is claimed."""
        return low == low

    def tractable(self, low: Array, high: Array) -> Array:
        """Mask of the boxes on which `pieces` is right; elsewhere the range is all that is claimed."""
        return low == low

    def anchor(self, low: Array, high: Array) -> Array:
        """The point at which adaptive lines are as good as can be."""
        return 0.5 * low + 0.5 * high

    def pieces(self, low: Array, high: Array) -> list[Piece]:
        """The parts of the pieces in each box; together they cover it."""
        xp = namespace(low)
        point = low == high
        profile = self.profile
        edges = [-inf, *profile.breaks, inf]
        result = []
        for index, (start, end) in enumerate(pairwise(edges)):
            left = low if start == -inf else xp.maximum(low, xp.minimum(high, xp.full_like(low, start)))
            right = high if end == inf else xp.maximum(low, xp.minimum(high, xp.full_like(low, end)))
            used = (left < right) | (point & (low >= start) & (low <= end))
            result.append(Piece(index, profile.bends[index], left, right, used))
        return result

    def derivative(self, x: Array) -> Array:
        result = self.slope(x, 0)
        for index, end in enumerate(self.profile.breaks, start=1):
            result = namespace(x).where(x > end, self.slope(x, index), result)
        return result

    def unstable(self, box: Box) -> Array:
        """Not a single point."""
        return box.lower < box.upper

    def split_points(self, low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
        """The middle, and where the curvature changes."""
        breaks = [np.full_like(low, edge) for edge in self.profile.breaks if np.isfinite(edge)]
        return [0.5 * low + 0.5 * high, *breaks]

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        low, high = to_double(boxes[0].lower), to_double(boxes[0].upper)
        with np.errstate(all="ignore"):
            lower, upper = self._ends(low, high)
            like = boxes[0].lower
            return to_type_down(lower, like), to_type_up(upper, like)

    mixes: ClassVar[tuple[float, ...]] = (0.0, 0.25, 0.5, 0.75, 1.0)

    def relax(self, box: Box, alpha: Array | None) -> Lines:
        """Supporting lines; `alpha` 0 and 1: smallest and largest slope in the box, 1/2: the adaptive one."""
        return self._relaxed(box, alpha, None)

    def family(self, box: Box) -> list[Lines]:
        """Lines of several slopes, above as well as below."""
        full = namespace(box.lower).full_like
        return [self._relaxed(box, full(box.lower, m), full(box.lower, m)) for m in self.mixes]

    def fan(self, box: Box) -> Lines:
        """Lines `(B, FAN, *shape)` on the box `(B, 1, *shape)`: those of mixes from 0 to 1, above, too."""
        xp, axes = namespace(box.lower), box.lower.ndim - 2
        mixes = xp.arange(FAN, dtype=box.lower.dtype, device=box.lower.device) / (FAN - 1)
        mixes = xp.broadcast_to(
            mixes.reshape((1, FAN, *(1,) * axes)), (len(box.lower), FAN, *box.lower.shape[2:])
        )
        return self._relaxed(box, mixes, mixes)

    def _relaxed(self, box: Box, alpha: Array | None, top_alpha: Array | None) -> Lines:
        low, high = to_double(box.lower), to_double(box.upper)
        with np.errstate(all="ignore"):
            lower, upper = self._ends(low, high)
            mixes, tops = (None if a is None else to_double(a) for a in (alpha, top_alpha))
            slope, intercept = self._line(1, Box(low, high), lower, mixes, box.lower)
            top_slope, top = self._line(-1, Box(low, high), -upper, tops, box.lower)
            down, up = to_type_down(intercept, box.lower), to_type_up(-top, box.lower)
            return Lines(to_type(slope, box.lower), down, to_type(-top_slope, box.lower), up)

    def first_alpha(self, lines: Lines) -> Array:
        return namespace(lines.lower_slope).full_like(lines.lower_slope, 0.5)

    # What follows works in float64 on `sign * f`, so that only lower bounds and lower lines are needed.

    def _ends(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Lower and upper ends of the values."""
        xp = namespace(low)
        lower = xp.minimum(self._value(1, low), self._value(1, high))
        upper = xp.maximum(-self._value(-1, low), -self._value(-1, high))
        if not self.profile.monotone:
            pieces = self.pieces(xp.clip(low, -FARTHEST, FARTHEST), xp.clip(high, -FARTHEST, FARTHEST))
            lower = xp.minimum(lower, self._support(1, pieces, xp.zeros_like(low))[0])
            upper = xp.maximum(upper, -self._support(-1, pieces, xp.zeros_like(low))[0])
        known, all_ = self.tractable(low, high), xp.full_like(low, inf)
        lower = xp.where(known & (lower == lower), lower - tiny(low), -all_)
        upper = xp.where(known & (upper == upper), upper + tiny(low), all_)
        start, end = (xp.full_like(low, edge) for edge in self.profile.span)
        lower, upper = xp.minimum(xp.maximum(lower, start), end), xp.maximum(xp.minimum(upper, end), start)
        inside = self.defined(low, high)
        return xp.where(inside, lower, -all_), xp.where(inside, upper, all_)

    def _value(self, sign: int, x: Array) -> Array:
        """A lower bound of `sign f(x)`; where that overflows, a number that it is above."""
        y = sign * self.forward(x)
        return namespace(y).where(y == inf, namespace(y).full_like(y, 1e308), y - self.error(x, y))

    def _line(self, sign: int, box: Box, end: Array, alpha: Array | None, like: Array) -> tuple[Array, Array]:
        """Slope and intercept below `sign * f`; the constant `end` where no sloped line is to be had."""
        xp = namespace(end)
        low, high = box.lower, box.upper
        pieces = self.pieces(low, high)
        slope = self._adaptive(sign, box, pieces)
        if alpha is not None:
            slope = self._mixed(sign, box, pieces, slope, alpha)
        slope = to_double(to_type(xp.where(low < high, slope, xp.zeros_like(slope)), like))
        intercept, _ = self._support(sign, pieces, slope)
        good = xp.isfinite(slope) & xp.isfinite(intercept)
        good = good & self.defined(low, high) & self.tractable(low, high) & (low < high)
        if alpha is None:
            good = good & (slope * self.anchor(low, high) + intercept > end)
        end = xp.broadcast_to(end, intercept.shape)
        return xp.where(good, slope, xp.zeros_like(slope)), xp.where(good, intercept, end)

    def _support(self, sign: int, pieces: Sequence[Piece], slope: Array) -> tuple[Array, Array]:
        """A lower bound of `sign f(x) - slope x`, and about where it is attained."""
        xp = namespace(slope)
        best, at = None, None
        for piece in pieces:
            value, x = self._piece_support(sign, piece, slope)
            value = xp.where(piece.used, value, xp.full_like(value, inf))
            at = x if at is None else xp.where(value < best, x, at)
            best = value if best is None else xp.minimum(best, value)  # keeps NaN
        return best, at

    def _piece_support(self, sign: int, piece: Piece, slope: Array) -> tuple[Array, Array]:
        bend = sign * piece.bend
        if isinstance(bend, int):
            return self._tangent(sign, piece, slope) if bend > 0 else self._corners(sign, piece, slope)
        xp = namespace(slope)
        convex, concave = self._tangent(sign, piece, slope), self._corners(sign, piece, slope)
        return xp.where(bend > 0, convex[0], concave[0]), xp.where(bend > 0, convex[1], concave[1])

    def _gap(self, sign: int, x: Array, slope: Array, loss: Array | float) -> Array:
        """`sign f(x) - slope x - loss`, rounded down."""
        xp = namespace(slope)
        y, product = self.forward(x), slope * x
        unit = 4 * unit_roundoff(y)
        slack = self.error(x, y) + unit * (xp.abs(y) + xp.abs(product)) + tiny(y)
        return (sign * y - product) - (slack + loss) * (1 + 4 * unit)

    def _corners(self, sign: int, piece: Piece, slope: Array) -> tuple[Array, Array]:
        """Of a concave or linear piece: the lower of its ends."""
        xp = namespace(slope)
        left, right = self._gap(sign, piece.left, slope, 0.0), self._gap(sign, piece.right, slope, 0.0)
        return xp.minimum(left, right), xp.where(left < right, piece.left, piece.right)

    def _tangent(self, sign: int, piece: Piece, slope: Array) -> tuple[Array, Array]:
        """Of a convex piece: the minimum of a tangent, at a point where it is nearly level."""
        xp = namespace(slope)
        x = self.inverse(sign * slope, piece)
        x = xp.where(x == x, x, 0.5 * piece.left + 0.5 * piece.right)
        x = xp.maximum(piece.left, xp.minimum(x, piece.right))
        derivative = self.slope(x, piece.index)
        rise = sign * derivative - slope
        doubt = self.slope_error(x, derivative) + 4 * unit_roundoff(x) * (xp.abs(derivative) + xp.abs(slope))
        before, after = positive_part(rise + doubt), positive_part(doubt - rise)
        return self._gap(sign, x, slope, before * (x - piece.left) + after * (piece.right - x)), x

    def _slope_range(self, sign: int, pieces: Sequence[Piece]) -> tuple[Array, Array]:
        """Least and largest derivative of `sign f`, about."""
        xp = namespace(pieces[0].left)
        least = most = None
        for piece in pieces:
            for x in (piece.left, piece.right):
                value = sign * self.slope(x, piece.index)
                low = xp.where(piece.used, value, xp.full_like(value, inf))
                high = xp.where(piece.used, value, xp.full_like(value, -inf))
                least = low if least is None else xp.minimum(least, low)
                most = high if most is None else xp.maximum(most, high)
        return least, most

    def _adaptive(self, sign: int, box: Box, pieces: Sequence[Piece], point: Array | None = None) -> Array:
        """The slope with the highest line below `sign f` at a point: tangent, chord or one in between."""
        xp = namespace(box.lower)
        low, high = box.lower, box.upper
        point = self.anchor(low, high) if point is None else point
        least, most = self._slope_range(sign, pieces)
        start = sign * self.forward(low)
        chord = (sign * self.forward(high) - start) / (high - low)
        chord = xp.minimum(xp.maximum(chord, least), most)
        tangent = sign * self.derivative(point)
        heights = [s * point + self._support(sign, pieces, s)[0] for s in (chord, tangent)]
        heights = [xp.where(h == h, h, xp.full_like(h, -inf)) for h in heights]
        best = xp.where(heights[1] > heights[0], tangent, chord)
        close = SETTLED * xp.abs(most - least) * (high - low)  # both lines touch `f` if they are this high
        open_ = heights[0] < start + chord * (point - low) - close
        open_ = open_ & (heights[1] < sign * self.forward(point) - close)
        if bool(open_.any()):
            best[open_] = self._search(sign, Box(low[open_], high[open_]), point[open_])
        return best

    def _search(self, sign: int, box: Box, point: Array) -> Array:
        """Bisection of the slope: steeper while the line touches left of the point."""
        xp = namespace(point)
        pieces = self.pieces(box.lower, box.upper)
        least, most = self._slope_range(sign, pieces)
        for _ in range(SLOPE_STEPS):
            middle = 0.5 * least + 0.5 * most
            steeper = self._support(sign, pieces, middle)[1] < point
            least, most = xp.where(steeper, middle, least), xp.where(steeper, most, middle)
        low, high = (s * point + self._support(sign, pieces, s)[0] for s in (least, most))
        return xp.where(high > low, most, least)

    def _mixed(self, sign: int, box: Box, pieces: Sequence[Piece], adaptive: Array, alpha: Array) -> Array:
        """From the best slope at the lower end over the adaptive one to the best at the upper end.

        Those of all lines that no other line is above: tangents of the convex envelope.
        """
        xp = namespace(adaptive)
        least, most = (self._adaptive(sign, box, pieces, point) for point in (box.lower, box.upper))
        least = xp.where(xp.isfinite(least), xp.minimum(least, adaptive), adaptive)
        most = xp.where(xp.isfinite(most), xp.maximum(most, adaptive), adaptive)
        low = adaptive - xp.clip(1 - 2 * alpha, 0.0, None) * (adaptive - least)
        return low + xp.clip(2 * alpha - 1, 0.0, None) * (most - adaptive)


def register(op_type: str, op: SmoothOp, *versions: int) -> None:
    """Registers an ONNX op that is one elementwise op without attributes."""

    @importer(op_type, *versions)
    def translate(node: OnnxNode, graph: GraphBuilder) -> int:
        return graph.add(op, [node.value()])
