"""Trigonometric functions: pieces of half a period, convex and concave by turns; and their inverses."""

from dataclasses import dataclass
from math import pi
from typing import ClassVar

import numpy as np

from lpverify.interval import LIBRARY, Array, namespace
from lpverify.ops.smooth import Piece, Profile, SmoothOp, register

FARTHEST = 2.0**16  # beyond, the ends of the pieces are too coarse
WIDEST = 6.28
MARGIN = 2.0**-30  # from a pole, in periods: 64 times the rounding in counting them


class Periodic(SmoothOp):
    """`sin(x + shift)`, with pieces counted from the one that a box begins in."""

    shift: ClassVar[float]
    profile = Profile((), span=(-1.0, 1.0), monotone=False)

    def tractable(self, low: Array, high: Array) -> Array:
        xp = namespace(low)
        return (high - low < WIDEST) & (xp.maximum(xp.abs(low), xp.abs(high)) < FARTHEST)

    def pieces(self, low: Array, high: Array) -> list[Piece]:
        """Three half periods.

        Their ends are off by less than 2^-35, where `|f''|` is no larger: `error` covers the 2^-65 it makes.
        """
        xp = namespace(low)
        first = xp.floor((low + self.shift) / pi)
        result, left = [], low
        for index in range(3):
            end = (first + (index + 1)) * pi - self.shift
            right = xp.maximum(left, xp.minimum(high, end)) if index < 2 else high
            odd = first + index - 2 * xp.floor((first + index) / 2)
            used = (left < right) | (low == high) if index == 0 else left < right
            result.append(Piece(index, 2 * odd - 1, left, right, used))
            left = right
        return result

    def error(self, x: Array, y: Array) -> Array:
        return LIBRARY * namespace(x).clip(namespace(x).abs(x), 2.0**-10, 1.0)

    def slope_error(self, x: Array, slope: Array) -> Array:
        return namespace(x).full_like(x, LIBRARY)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        """`cos(k pi + t) = (-1)^k cos t` for t from 0 to pi."""
        xp = namespace(slope)
        number = xp.floor((0.5 * (piece.left + piece.right) + self.shift) / pi)
        return number * pi - self.shift + xp.acos(xp.clip(-piece.bend * slope, -1.0, 1.0))


@dataclass(frozen=True)
class Sin(Periodic):
    """Sine."""

    shift: ClassVar[float] = 0.0

    def forward(self, *xs: Array) -> Array:
        return namespace(xs[0]).sin(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        return namespace(x).cos(x)


@dataclass(frozen=True)
class Cos(Periodic):
    """Cosine."""

    shift: ClassVar[float] = pi / 2

    def forward(self, *xs: Array) -> Array:
        return namespace(xs[0]).cos(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        return -namespace(x).sin(x)

    def error(self, x: Array, y: Array) -> Array:
        return namespace(x).full_like(x, LIBRARY)


@dataclass(frozen=True)
class Tan(SmoothOp):
    """Tangent; boxes that reach a pole are unbounded."""

    profile = Profile(())

    def forward(self, *xs: Array) -> Array:
        return namespace(xs[0]).tan(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        return 1 + self.forward(x) ** 2

    def error(self, x: Array, y: Array) -> Array:
        """As that of a quotient of sine and cosine, both off by `LIBRARY`; it also covers `pieces`.

        `|s' / c' - t| <= (|s' - s| + |t| |c' - c|) / |c'|` and `1 / |c| <= 1 + |t|`.
        """
        xp = namespace(x)
        return 4 * LIBRARY * (1 + xp.abs(y)) ** 2 * xp.clip(xp.abs(x), 2.0**-10, 1.0)

    def slope_error(self, x: Array, slope: Array) -> Array:
        """Twice the tangent times its error."""
        return 16 * LIBRARY * (1 + namespace(slope).sqrt(slope)) ** 3

    def defined(self, low: Array, high: Array) -> Array:
        """Between two poles."""
        xp = namespace(low)
        start, end = low / pi + 0.5, high / pi + 0.5
        period = xp.floor(start)
        between = (start - period > MARGIN) & (period + 1 - end > MARGIN)
        return between & (xp.maximum(xp.abs(low), xp.abs(high)) < FARTHEST)

    def pieces(self, low: Array, high: Array) -> list[Piece]:
        """Before and after the zero, which is off by less than 2^-35, where `|f''|` is below 2^-33."""
        xp = namespace(low)
        zero = xp.floor(low / pi + 0.5) * pi
        middle = xp.maximum(low, xp.minimum(high, zero))
        point = low == high
        return [
            Piece(0, -1, low, middle, (low < middle) | point),
            Piece(1, 1, middle, high, (middle < high) | point),
        ]

    def inverse(self, slope: Array, piece: Piece) -> Array:
        xp = namespace(slope)
        distance = xp.atan(xp.sqrt(xp.clip(slope - 1, 0.0, None)))
        zero = xp.floor(0.5 * (piece.left + piece.right) / pi + 0.5) * pi
        return zero + (distance if piece.index else -distance)


class Inverse(SmoothOp):
    """Inverse sine and cosine: defined from -1 to 1, where they are infinitely steep."""

    def defined(self, low: Array, high: Array) -> Array:
        return (low >= -1) & (high <= 1)

    def error(self, x: Array, y: Array) -> Array:
        """Absolute where values are small next to those elsewhere."""
        return LIBRARY * namespace(y).clip(namespace(y).abs(y), 1.0, None)

    def slope(self, x: Array, piece: int) -> Array:
        """That of the inverse sine; `1 - x` is exact where it is small."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 / namespace(x).sqrt((1 - x) * (1 + x))

    def inverse(self, slope: Array, piece: Piece) -> Array:
        xp = namespace(slope)
        return xp.sqrt(xp.clip(1 - slope**-2.0, 0.0, None)) * (1 if piece.index else -1)


@dataclass(frozen=True)
class Asin(Inverse):
    """Inverse sine."""

    profile = Profile((-1, 1), (0.0,), (-1.5707963267948968, 1.5707963267948968))

    def forward(self, *xs: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return namespace(xs[0]).asin(xs[0])

    def error(self, x: Array, y: Array) -> Array:
        return LIBRARY * namespace(y).abs(y)


@dataclass(frozen=True)
class Acos(Inverse):
    """Inverse cosine."""

    profile = Profile((1, -1), (0.0,), (0.0, 3.1415926535897936))

    def forward(self, *xs: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return namespace(xs[0]).acos(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        return -super().slope(x, piece)


register("Sin", Sin(), 7, 22)
register("Cos", Cos(), 7, 22)
register("Tan", Tan(), 7, 22)
register("Asin", Asin(), 7, 22)
register("Acos", Acos(), 7, 22)
