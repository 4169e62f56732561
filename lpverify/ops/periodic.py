"""Sine and cosine: convex and concave by turns, one piece a half period."""

from dataclasses import dataclass
from math import pi
from typing import ClassVar

from lpverify.interval import LIBRARY, Array, namespace
from lpverify.ops.smooth import Piece, Profile, SmoothOp, register

FARTHEST = 2.0**16  # beyond, the ends of the pieces are too coarse
WIDEST = 6.28


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


register("Sin", Sin(), 7, 22)
register("Cos", Cos(), 7, 22)
