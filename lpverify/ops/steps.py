"""Functions that jump: sign and rounding to whole numbers.

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
    def sides(self, jump: Array) -> tuple[Array, Array]:
        """Limits from the left and from the right at a jump."""

    def straight(self, low: Array, high: Array) -> Array:
        """Mask of the boxes in which the ends of inner steps are on a straight line."""
        return low == low

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """Exact."""
        return self.forward(boxes[0].lower), self.forward(boxes[0].upper)

    def derivative(self, x: Array) -> Array:
        return namespace(x).zeros_like(x)

    def unstable(self, box: Box) -> Array:
        """More than one step."""
        first, last = self.jumps(box.lower, box.upper)
        return first <= last

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

    def jumps(self, low: Array, high: Array) -> tuple[Array, Array]:
        """At zero."""
        xp = namespace(low)
        zero = xp.zeros_like(low)
        first = xp.where((low <= 0) & (high >= 0), zero, xp.ones_like(low))
        return first, zero

    def sides(self, jump: Array) -> tuple[Array, Array]:
        one = namespace(jump).ones_like(jump)
        return -one, one


@dataclass(frozen=True)
class Floor(StepOp):
    """The largest whole number not above x."""

    def forward(self, *xs: Array) -> Array:
        return namespace(xs[0]).floor(xs[0])

    def jumps(self, low: Array, high: Array) -> tuple[Array, Array]:
        """At whole numbers."""
        return namespace(low).ceil(low), namespace(low).floor(high)

    def sides(self, jump: Array) -> tuple[Array, Array]:
        return jump - 1, jump


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

    def sides(self, jump: Array) -> tuple[Array, Array]:
        above = namespace(jump).astype(jump > 0, jump.dtype)
        return jump - above, jump + (1 - above)

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

    def sides(self, jump: Array) -> tuple[Array, Array]:
        return jump - 0.5, jump + 0.5


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
