"""Functions that jump: comparison with zero, sign, rounding to whole numbers.

They rise in steps. With a slope `s >= 0` the least of `f(x) - s x` is at the right end of a step, the largest
at the left end of one; as the ends of inner steps are on a straight line, the first and the last jump in the
box and the box's own end are all that matter. A jump counts with both its one-sided limits, so that lines
hold at and beside it. Every number below 2^50 is exact here, but for the slope and the products with it.
"""

from abc import abstractmethod
from collections.abc import Sequence
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
    to_type_down,
    to_type_up,
    unit_roundoff,
)
from lpverify.ops.base import ElementwiseOp, GraphBuilder, Lines, OnnxNode, importer
from lpverify.ops.linear import Combine

FARTHEST = 2.0**50  # beyond, only constant lines

Corner = tuple[Array, Array]


class StepOp(ElementwiseOp):
    """A rising step function."""

    @abstractmethod
    def jumps(self, low: Array, high: Array) -> tuple[Array, Array]:
        """The first and the last jump in a box; the first is above the last if there is none."""

    @abstractmethod
    def sides(self, point: Array) -> tuple[Array, Array]:
        """Limits from the left and from the right at any point: splits are not only at jumps."""

    def straight(self, low: Array, high: Array) -> Array:
        """Mask of the boxes in which the ends of inner steps are on a straight line."""
        return low == low

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """Exact."""
        return self.forward(boxes[0].lower), self.forward(boxes[0].upper)

    def derivative(self, x: Array) -> Array:
        """A straight-through estimate for attacks: the staircase as the line along it."""
        return namespace(x).ones_like(x)

    def unstable(self, box: Box) -> Array:
        """More than one step."""
        first, last = self.jumps(box.lower, box.upper)
        return first <= last

    def split_points(self, low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
        """The jumps next to the middle; without one inside of the box the end at which there is one.

        At a jump at an end one half is that point alone, and the other one the box without it. With jumps
        at both ends the middle comes first: a half that lacks one end would not look smaller otherwise.
        """
        middle = 0.5 * low + 0.5 * high
        inner = [self.jumps(low, middle)[1], self.jumps(middle, high)[0]]
        after, before = self.sides(low)[1] > self.forward(low), self.sides(high)[0] < self.forward(high)
        end = np.where(after & before, middle, np.where(after, low, np.where(before, high, np.nan)))
        return [*(np.where((low < jump) & (jump < high), jump, np.nan) for jump in inner), end]

    def first_alpha(self, lines: Lines) -> Array:
        return 0.5 * namespace(lines.lower_slope).astype(lines.lower_slope > 0, lines.lower_slope.dtype)

    def alpha_gradient(self, box: Box, alpha: Array, x: Array) -> Array:
        """The slope is proportional to `alpha`; its line turns about a corner near the middle."""
        return (x - 0.5 * (box.lower + box.upper)) * self.unstable(box)

    def relax(self, box: Box, alpha: Array | None) -> Lines:
        """The better of the constant and a line through two corners; `alpha` 0: flat, 1: twice as steep."""
        low, high = to_double(box.lower), to_double(box.upper)
        xp = namespace(low)
        with np.errstate(all="ignore"):
            first, last = self.jumps(low, high)
            ends = self.forward(low), self.forward(high)
            usable = (
                (first <= last)
                & self.straight(low, high)
                & (xp.maximum(xp.abs(low), xp.abs(high)) < FARTHEST)
            )
            below = [(first, self.sides(first)[0]), (last, self.sides(last)[0]), (high, ends[1])]
            above = [(last, self.sides(last)[1]), (first, self.sides(first)[1]), (low, ends[0])]
            like, middle = box.lower, 0.5 * low + 0.5 * high
            slope, intercept = _Side(1, below, ends[0]).line(middle, usable, alpha, like)
            steep, top = _Side(-1, above, ends[1]).line(middle, usable, None, like)
            lower = to_type(slope, like), to_type_down(intercept, like)
            return Lines(*lower, to_type(steep, like), to_type_up(top, like))


def bump(x: Array) -> Array:
    """A smooth stand-in for the derivative of one jump at zero, as wide as the values usually are."""
    xp = namespace(x)
    scale = xp.mean(xp.abs(x)) + tiny(x)
    return 1.0 / (scale * (1.0 + (x / scale) ** 2))


@dataclass(frozen=True, slots=True)
class _Side:
    """What a line has to stay below (sign 1) or above (sign -1): corners, the box's end value there."""

    sign: int
    corners: Sequence[Corner]
    flat: Array

    def line(self, middle: Array, usable: Array, alpha: Array | None, like: Array) -> tuple[Array, Array]:
        """Slope and intercept; the constant where no sloped line is usable, or it is better in the middle."""
        xp = namespace(middle)
        (start, height), (end, top) = self.corners[0], self.corners[-1]
        steep, one = (top - height) / (end - start), xp.ones_like(middle)
        steep = xp.where((steep > 0) & (steep < inf), steep, xp.zeros_like(middle))
        slope = xp.where(self._merit(one, middle) > self._merit(steep, middle), one, steep)
        if alpha is None:
            usable = usable & (self._merit(slope, middle) > self.sign * self.flat)
        else:
            slope = slope * 2 * to_double(alpha)
        slope = to_double(to_type(xp.where(usable, slope, xp.zeros_like(slope)), like))
        intercept = self.intercept(slope)
        usable = usable & (slope > 0) & xp.isfinite(intercept)
        return xp.where(usable, slope, xp.zeros_like(slope)), xp.where(usable, intercept, self.flat)

    def _merit(self, slope: Array, x: Array) -> Array:
        return self.sign * (slope * x + self.intercept(slope))

    def intercept(self, slope: Array) -> Array:
        """The least or largest of `height - slope x` over the corners, rounded outward."""
        xp = namespace(slope)
        best = xp.full_like(slope, inf)
        for x, height in self.corners:
            product = slope * x
            slack = 4 * unit_roundoff(x) * (xp.abs(height) + xp.abs(product)) + tiny(x)
            best = xp.minimum(best, self.sign * (height - product) - slack)
        return self.sign * best


@dataclass(frozen=True)
class Sign(StepOp):
    """-1, 0 or 1."""

    def forward(self, *xs: Array) -> Array:
        return namespace(xs[0]).sign(xs[0])

    def derivative(self, x: Array) -> Array:
        return bump(x)

    def jumps(self, low: Array, high: Array) -> tuple[Array, Array]:
        """At zero."""
        xp = namespace(low)
        zero = xp.zeros_like(low)
        first = xp.where((low <= 0) & (high >= 0), zero, xp.ones_like(low))
        return first, zero

    def sides(self, point: Array) -> tuple[Array, Array]:
        xp = namespace(point)
        one = xp.ones_like(point)
        return xp.where(point > 0, one, -one), xp.where(point < 0, -one, one)


@dataclass(frozen=True)
class Heaviside(StepOp):
    """0 below zero, 1 above; at zero 1 if `closed`, else 0."""

    closed: bool

    def forward(self, *xs: Array) -> Array:
        xp = namespace(xs[0])
        above = xs[0] >= 0 if self.closed else xs[0] > 0
        return xp.where(xs[0] == xs[0], xp.astype(above, xs[0].dtype), xs[0])

    def derivative(self, x: Array) -> Array:
        return bump(x)

    def jumps(self, low: Array, high: Array) -> tuple[Array, Array]:
        """At zero, unless the box is on the side that has it."""
        xp = namespace(low)
        zero = xp.zeros_like(low)
        inside = (low < 0) & (high >= 0) if self.closed else (low <= 0) & (high > 0)
        return xp.where(inside, zero, xp.ones_like(low)), zero

    def sides(self, point: Array) -> tuple[Array, Array]:
        xp = namespace(point)
        return xp.astype(point > 0, point.dtype), xp.astype(point >= 0, point.dtype)


@dataclass(frozen=True)
class Floor(StepOp):
    """The largest whole number not above x."""

    def forward(self, *xs: Array) -> Array:
        return namespace(xs[0]).floor(xs[0])

    def jumps(self, low: Array, high: Array) -> tuple[Array, Array]:
        """At whole numbers."""
        return namespace(low).ceil(low), namespace(low).floor(high)

    def sides(self, point: Array) -> tuple[Array, Array]:
        return namespace(point).ceil(point) - 1, namespace(point).floor(point)


@dataclass(frozen=True)
class Trunc(StepOp):
    """The whole number next to x toward zero."""

    def forward(self, *xs: Array) -> Array:
        return namespace(xs[0]).trunc(xs[0])

    def jumps(self, low: Array, high: Array) -> tuple[Array, Array]:
        """At whole numbers but zero."""
        xp = namespace(low)
        first, last = xp.ceil(low), xp.floor(high)
        one = xp.ones_like(low)
        return xp.where(first == 0, one, first), xp.where(last == 0, -one, last)

    def sides(self, point: Array) -> tuple[Array, Array]:
        xp = namespace(point)
        low, high = xp.floor(point), xp.ceil(point)
        return xp.where(point > 0, high - 1, high), xp.where(point < 0, low + 1, low)

    def straight(self, low: Array, high: Array) -> Array:
        """On one side of zero."""
        return (low >= 0) | (high <= 0)


@dataclass(frozen=True)
class Round(StepOp):
    """The nearest whole number, the even one where two are."""

    def forward(self, *xs: Array) -> Array:
        return namespace(xs[0]).round(xs[0])

    def jumps(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Halfway between whole numbers."""
        xp = namespace(low)
        return xp.ceil(low - 0.5) + 0.5, xp.floor(high - 0.5) + 0.5

    def sides(self, point: Array) -> tuple[Array, Array]:
        """By halves: adding 0.5 to the point itself could round."""
        xp = namespace(point)
        return xp.ceil((xp.ceil(2 * point) - 1) / 2), xp.floor((xp.floor(2 * point) + 1) / 2)


@importer("Sign", 9, 13, whole=True)
def sign_(node: OnnxNode, graph: GraphBuilder) -> int:
    """Sign."""
    return graph.add(Sign(), [node.value()])


@importer("Floor", 6, 13)
def floor_(node: OnnxNode, graph: GraphBuilder) -> int:
    """Rounding down."""
    return graph.add(Floor(), [node.value()])


@importer("Ceil", 6, 13)
def ceil_(node: OnnxNode, graph: GraphBuilder) -> int:
    """`-floor(-x)`."""
    turned = graph.add(Combine((-1,)), [node.value()])
    return graph.add(Combine((-1,)), [graph.add(Floor(), [turned])])


@importer("Round", 11, 22)
def round_(node: OnnxNode, graph: GraphBuilder) -> int:
    """Rounding to nearest, ties to even."""
    return graph.add(Round(), [node.value()])
