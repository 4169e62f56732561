"""Hyperbolic functions and their inverses.

Libraries disagree on what they return near the largest float; boxes that reach there are unbounded.
"""

from dataclasses import dataclass
from math import inf

import numpy as np

from lpverify.interval import LIBRARY, Array, namespace
from lpverify.ops.smooth import FARTHEST, Piece, Profile, SmoothOp, register

STEEPEST = 700.0  # sinh and cosh are finite up to here


class _Exponential(SmoothOp):
    """Sinh and cosh, which are finite up to `STEEPEST`."""

    def tractable(self, low: Array, high: Array) -> Array:
        return (low > -STEEPEST) & (high < STEEPEST)


@dataclass(frozen=True)
class Sinh(_Exponential):
    """Hyperbolic sine."""

    profile = Profile((-1, 1), (0.0,))

    def forward(self, *xs: Array) -> Array:
        with np.errstate(over="ignore"):
            return namespace(xs[0]).sinh(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        with np.errstate(over="ignore"):
            return namespace(x).cosh(x)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        xp = namespace(slope)
        return xp.acosh(xp.clip(slope, 1.0, None)) * (1 if piece.index else -1)


@dataclass(frozen=True)
class Cosh(_Exponential):
    """Hyperbolic cosine."""

    profile = Profile((1,), span=(1.0, inf), monotone=False)

    def forward(self, *xs: Array) -> Array:
        with np.errstate(over="ignore"):
            return namespace(xs[0]).cosh(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        with np.errstate(over="ignore"):
            return namespace(x).sinh(x)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return namespace(slope).asinh(slope)


@dataclass(frozen=True)
class Asinh(SmoothOp):
    """Inverse hyperbolic sine."""

    profile = Profile((1, -1), (0.0,))

    def forward(self, *xs: Array) -> Array:
        return namespace(xs[0]).asinh(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        xp = namespace(x)
        return 1 / xp.hypot(x, xp.ones_like(x))

    def inverse(self, slope: Array, piece: Piece) -> Array:
        xp = namespace(slope)
        return xp.sqrt(xp.clip(slope**-2.0 - 1, 0.0, None)) * (1 if piece.index else -1)

    def tractable(self, low: Array, high: Array) -> Array:
        return (low > -FARTHEST) & (high < FARTHEST)


@dataclass(frozen=True)
class Acosh(SmoothOp):
    """Inverse hyperbolic cosine; boxes with numbers below 1 are unbounded."""

    profile = Profile((-1,), span=(0.0, inf))

    def forward(self, *xs: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return namespace(xs[0]).acosh(xs[0])

    def error(self, x: Array, y: Array) -> Array:
        """Absolute near 1, where values are small."""
        return LIBRARY * namespace(y).clip(namespace(y).abs(y), 1.0, None)

    def slope(self, x: Array, piece: int) -> Array:
        """`x - 1` is exact where it is small."""
        xp = namespace(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1 / (xp.sqrt(x - 1) * xp.sqrt(x + 1))

    def inverse(self, slope: Array, piece: Piece) -> Array:
        xp = namespace(slope)
        return xp.hypot(1 / slope, xp.ones_like(slope))

    def defined(self, low: Array, high: Array) -> Array:
        return low >= 1

    def tractable(self, low: Array, high: Array) -> Array:
        return high < FARTHEST


@dataclass(frozen=True)
class Atanh(SmoothOp):
    """Inverse hyperbolic tangent; boxes that reach -1 or 1 are unbounded."""

    profile = Profile((-1, 1), (0.0,))

    def forward(self, *xs: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return namespace(xs[0]).atanh(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        """`1 - x` is exact where it is small."""
        with np.errstate(divide="ignore"):
            return 1 / ((1 - x) * (1 + x))

    def inverse(self, slope: Array, piece: Piece) -> Array:
        xp = namespace(slope)
        return xp.sqrt(xp.clip(1 - 1 / slope, 0.0, None)) * (1 if piece.index else -1)

    def defined(self, low: Array, high: Array) -> Array:
        return (low > -1) & (high < 1)


register("Sinh", Sinh(), 9, 22)
register("Cosh", Cosh(), 9, 22)
register("Asinh", Asinh(), 9, 22)
register("Acosh", Acosh(), 9, 22)
register("Atanh", Atanh(), 9, 22)
