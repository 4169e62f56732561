"""Sampling at the points of a constant grid: weighted sums of picked elements.

Coordinates and weights are exact rationals, rounded once. Where the chosen element depends on the rounding
of a coordinate, the node is refused.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from math import floor, prod
from typing import Any

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import RATIONAL_COST, GraphBuilder, OnnxNode, importer
from lpverify.ops.linear import ROUNDING, Combine, Scale
from lpverify.ops.select import pick

Taps = list[tuple[int, Fraction]]  # elements of an axis, -1 for none, with their weights

MODES = {"bilinear": "linear", "linear": "linear", "nearest": "nearest", "bicubic": "cubic", "cubic": "cubic"}
CUBIC = Fraction(-3, 4)
FARTHEST = 2.0**20  # coordinate; beyond it other implementations overflow
DOUBT = Fraction(1, 2**10)  # elements that a rounded position may be off by


@dataclass(frozen=True)
class _Line:
    """How one axis is sampled.

    Attributes:
        size: Elements of the axis.
        mode: `linear`, `nearest` or `cubic`.
        padding: `zeros`, `border` or `reflection`.
        corners: The coordinates -1 and 1 are centres of elements, not their outer ends.
    """

    size: int
    mode: str
    padding: str
    corners: bool

    @property
    def ends(self) -> tuple[Fraction, Fraction]:
        """Where coordinates are reflected, or begin to be outside."""
        half = Fraction(0) if self.corners else Fraction(1, 2)
        return -half, self.size - 1 + half

    def position(self, x: Any) -> Any:
        """In elements, from a coordinate between -1 and 1; in the arithmetic of `x`."""
        one = type(x)(1)
        if self.corners:
            return (x + one) / 2 * (self.size - 1)
        return ((x + one) * self.size - one) / 2

    def taps(self, number: np.float32 | np.float64) -> Taps:
        """The elements at a coordinate."""
        x = self.position(Fraction(float(number)))
        if self.mode == "nearest":
            x = Fraction(round(x))
            if x != round(float(self.position(np.float32(number)))):
                raise UnsupportedError("the nearest element depends on the rounding of coordinates")
        low, high = self.ends
        if self.mode == "cubic" and self.padding == "border" and min(x - low, high - x) < DOUBT:
            raise UnsupportedError("cubic interpolation outside with border padding: implementations differ")
        if x < low or x > high:
            x = self._moved(x)
        return [(self._inside(i), weight) for i, weight in self._weights(x) if weight]

    def _moved(self, x: Fraction) -> Fraction:
        """A position outside, brought in."""
        if self.padding == "border":
            return min(max(x, Fraction(0)), Fraction(self.size - 1))
        return self._reflected(x) if self.padding == "reflection" else x

    def _reflected(self, x: Fraction) -> Fraction:
        low, high = self.ends
        if low == high:
            return low
        rest = (x - low) % (2 * (high - low))
        return low + min(rest, 2 * (high - low) - rest)

    def _inside(self, index: int) -> int:
        """The element that an index stands for; -1: zero."""
        if 0 <= index < self.size:
            return index
        if self.padding == "zeros":
            return -1
        if self.padding == "border":
            return min(max(index, 0), self.size - 1)
        return int(self._reflected(Fraction(index)))

    def _weights(self, x: Fraction) -> Iterator[tuple[int, Fraction]]:
        first = floor(x)
        if self.mode != "cubic":
            yield from ((first, first + 1 - x), (first + 1, x - first))
            return
        for i in range(first - 1, first + 3):  # Keys 1981, equation 4
            d, a = abs(x - i), CUBIC
            near = ((a + 2) * d - (a + 3)) * d * d + 1
            yield i, near if d <= 1 else ((a * d - 5 * a) * d + 8 * a) * d - 4 * a


def _points(lines: Sequence[_Line], grid: np.ndarray) -> list[list[tuple[int, Fraction]]]:
    """For each point the elements, numbered in row-major order, and their weights; zeros left out."""
    strides = [prod(line.size for line in lines[k + 1 :]) for k in range(len(lines))]
    result = []
    for point in grid:
        axes = [line.taps(x) for line, x in zip(lines, point[::-1], strict=True)]
        chosen = []
        for taps in product(*axes):
            if all(i >= 0 for i, _ in taps):
                place = sum(i * s for (i, _), s in zip(taps, strides, strict=True))
                chosen.append((place, prod((w for _, w in taps), start=Fraction(1))))
        result.append(chosen)
    return result


@importer("GridSample", 16, 20, 22)
def grid_sample(node: OnnxNode, graph: GraphBuilder) -> int:
    """The value at the points of a constant grid, all channels alike."""
    value, grid = node.value(), node.constant(1)
    count, channels, *sizes = graph.shape(value)
    mode, padding = node.text("mode", "linear"), node.text("padding_mode", "zeros")
    if mode not in MODES or padding not in ("zeros", "border", "reflection") or grid.error:
        raise UnsupportedError(f"mode={mode} with {padding} padding, or a computed grid, is not supported")
    corners = bool(node.attribute("align_corners", 0))
    lines = [_Line(n, MODES[mode], padding, corners) for n in sizes]
    if (np.abs(grid.array) > FARTHEST).any():
        raise UnsupportedError("a grid with coordinates far outside: implementations differ")
    graph.reserve(grid.array.size, RATIONAL_COST)
    flat = grid.array.reshape(count, -1, len(sizes))
    points = [_points(lines, part) for part in flat]
    shape = (count, channels, *grid.array.shape[1:-1])
    return _weighted(value, points, shape, graph)


def _weighted(
    value: int,
    points: Sequence[list[list[tuple[int, Fraction]]]],
    shape: tuple[int, ...],
    graph: GraphBuilder,
) -> int:
    """Sums over the taps of all points, one summand a tap; missing taps get the weight 0."""
    count, channels, *_ = shape
    size = prod(graph.shape(value)[2:])
    start = np.arange(count * channels).reshape(count, channels, 1) * size
    terms = []
    for k in range(max(1, *(len(taps) for part in points for taps in part))):
        taps = [[t[k] if k < len(t) else (0, Fraction(0)) for t in part] for part in points]
        places = np.array([[place for place, _ in part] for part in taps])
        exact = [[weight for _, weight in part] for part in taps]
        weights = np.array([[float(w) for w in part] for part in exact])
        rounded = any(Fraction(float(w)) != w for part in exact for w in part)
        term = pick([value], (start + places[:, None]).reshape(shape), graph)
        if (weights != 1).any():
            weights = weights.reshape(count, 1, *shape[2:])
            term = graph.add(Scale(weights, None, ROUNDING if rounded else 0.0), [term])
        terms.append(term)
    return graph.add(Combine((1,) * len(terms)), terms) if len(terms) > 1 else terms[0]
