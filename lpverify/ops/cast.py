"""Changes of element type. Whole numbers and truth values (0 and 1) are kept as numbers like all others."""

from dataclasses import dataclass
from math import inf
from typing import ClassVar

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import Array, Box, namespace
from lpverify.ops.base import ElementwiseOp, GraphBuilder, Lines, OnnxNode, importer
from lpverify.ops.indicators import contrary, is_zero, whole_part
from lpverify.ops.shape import operand_value
from lpverify.ops.steps import Trunc

WIDTHS = {"float16": 11, "bfloat16": 8, "float32": 24, "float64": 53}  # bits of the significand


@dataclass(frozen=True)
class Within(ElementwiseOp):
    """The value itself, a whole number that must lie in a range: boxes that leave it are unbounded.

    Beyond the range of their type whole numbers wrap around or are undefined; nothing is claimed there.
    """

    least: float
    most: float

    RANGES: ClassVar[dict[str, tuple[int, int]]] = {
        np.dtype(t).name: (int(np.iinfo(t).min), int(np.iinfo(t).max))
        for t in ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    }

    @classmethod
    def range_of(cls, kind: str) -> "Within":
        """For an integer type; its ends as floats, moved inward where they are not exact."""
        least, most = cls.RANGES[kind]
        return cls(float(least), float(most) if float(most) <= most else float(np.nextafter(float(most), 0)))

    def _inside(self, box: Box) -> Array:
        low, high = whole_part(box.lower, box.upper)
        return (low >= self.least) & (high <= self.most)

    def forward(self, *xs: Array) -> Array:
        return xs[0]

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        xp = namespace(boxes[0].lower)
        inside, all_ = self._inside(boxes[0]), xp.full_like(boxes[0].lower, inf)
        low, high = whole_part(boxes[0].lower, boxes[0].upper)
        return xp.where(inside, low, -all_), xp.where(inside, high, all_)

    def derivative(self, x: Array) -> Array:
        return namespace(x).ones_like(x)

    def unstable(self, box: Box) -> Array:
        """Outside of the range: bounds of the value would help."""
        return ~self._inside(box)

    def relax(self, box: Box, alpha: Array | None) -> Lines:
        """The value itself on both sides, or nothing."""
        xp = namespace(box.lower)
        inside = self._inside(box)
        zero = xp.zeros_like(box.lower)
        slope, all_ = xp.where(inside, zero + 1.0, zero), zero + inf
        return Lines(slope, xp.where(inside, zero, -all_), slope, xp.where(inside, zero, all_))


@importer("CastLike", 15, 19, 21, 23, 24, 25, whole=True)
@importer("Cast", 6, 9, 13, 19, 21, 23, 24, 25, 28, whole=True)
def cast(node: OnnxNode, graph: GraphBuilder) -> int:
    """To types that hold every number of the operand's the value itself; to whole numbers toward zero.

    From float64 to float32 as well: the value itself over the reals.
    """
    have, want, value = node.types[0], node.result_types[0], operand_value(node, 0, graph)
    if want in ("float32", "float64") or have in ("bool", want) or _exact(have, want):
        return value
    if want == "bool":
        return contrary(is_zero(value, node.whole(), graph), graph)
    if want in Within.RANGES:
        return _whole(value, have, want, graph)
    raise UnsupportedError(f"a cast from {have} to {want} is not exact")


def _exact(have: str, want: str) -> bool:
    """Whether every number of an integer type is one of another type."""
    if have not in Within.RANGES:
        return False
    least, most = Within.RANGES[have]
    if want in WIDTHS:
        return -(2 ** WIDTHS[want]) <= least and most <= 2 ** WIDTHS[want]
    low, high = Within.RANGES.get(want, (0, -1))
    return low <= least and most <= high


def _whole(value: int, have: str, want: str, graph: GraphBuilder) -> int:
    if have in WIDTHS:
        value = graph.add(Trunc(), [value])
    return graph.add(Within.range_of(want), [value])
