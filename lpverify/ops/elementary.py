"""Powers, roots, exponential and logarithm."""

from dataclasses import dataclass
from math import inf

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import LIBRARY, Array, namespace
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.grouping import by_number
from lpverify.ops.linear import align, multiply_constant
from lpverify.ops.smooth import Piece, Profile, SmoothOp, register

CONVEX, CONCAVE = (1,), (-1,)
POSITIVE = (0.0, inf)
MOST_FACTORS = 64


@dataclass(frozen=True)
class Exp(SmoothOp):
    """`e^x`, or `e^-x` with sign -1: both on one value are bounded together."""

    sign: int = 1

    profile = Profile(CONVEX, span=POSITIVE)

    def forward(self, *xs: Array) -> Array:
        with np.errstate(over="ignore"):
            return namespace(xs[0]).exp(self.sign * xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        return self.sign * self.forward(x)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return self.sign * namespace(slope).log(self.sign * slope)

    def anchor(self, low: Array, high: Array) -> Array:
        """At most 0.99 from the lesser end: the tangent stays positive, as in auto_LiRPA (Xu et al. 2020)."""
        xp, middle = namespace(low), 0.5 * low + 0.5 * high
        return xp.minimum(middle, low + 0.99) if self.sign > 0 else xp.maximum(middle, high - 0.99)


@dataclass(frozen=True)
class Log(SmoothOp):
    """Natural logarithm; boxes with negative numbers are unbounded."""

    profile = Profile(CONCAVE)

    def forward(self, *xs: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return namespace(xs[0]).log(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        with np.errstate(divide="ignore"):
            return 1.0 / x

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return 1.0 / slope

    def defined(self, low: Array, high: Array) -> Array:
        return low >= 0


@dataclass(frozen=True)
class Sqrt(SmoothOp):
    """Square root; boxes with negative numbers are unbounded."""

    profile = Profile(CONCAVE, span=POSITIVE)

    def forward(self, *xs: Array) -> Array:
        with np.errstate(invalid="ignore"):
            return namespace(xs[0]).sqrt(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 0.5 / namespace(x).sqrt(x)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return (0.5 / slope) ** 2

    def defined(self, low: Array, high: Array) -> Array:
        return low >= 0


@dataclass(frozen=True)
class Reciprocal(SmoothOp):
    """`1 / x`; boxes that touch zero are unbounded."""

    profile = Profile((-1, 1), (0.0,))

    def forward(self, *xs: Array) -> Array:
        with np.errstate(divide="ignore", over="ignore"):
            return 1.0 / xs[0]

    def slope(self, x: Array, piece: int) -> Array:
        with np.errstate(divide="ignore", over="ignore"):
            return -((1.0 / x) ** 2)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        root = 1.0 / namespace(slope).sqrt(-slope)
        return root if piece.index else -root

    def defined(self, low: Array, high: Array) -> Array:
        return (low > 0) | (high < 0)


@dataclass(frozen=True)
class InverseSqrt(SmoothOp):
    """`1 / sqrt(x)`; boxes that touch zero or negative numbers are unbounded."""

    profile = Profile(CONVEX, span=POSITIVE)

    def forward(self, *xs: Array) -> Array:
        with np.errstate(divide="ignore", invalid="ignore"):
            return 1.0 / namespace(xs[0]).sqrt(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
            return -0.5 / (x * namespace(x).sqrt(x))

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return (-2.0 * slope) ** (-2.0 / 3.0)

    def defined(self, low: Array, high: Array) -> Array:
        return low > 0


@dataclass(frozen=True)
class Square(SmoothOp):
    """`x^2`."""

    profile = Profile(CONVEX, span=POSITIVE, monotone=False)

    def forward(self, *xs: Array) -> Array:
        with np.errstate(over="ignore"):
            return xs[0] * xs[0]

    def slope(self, x: Array, piece: int) -> Array:
        return 2.0 * x

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return 0.5 * slope


@dataclass(frozen=True)
class Power(SmoothOp):
    """`x^exponent` for a whole exponent of at least 3, by repeated squaring."""

    exponent: int

    @property
    def profile(self) -> Profile:
        if self.exponent % 2:
            return Profile((-1, 1), (0.0,))
        return Profile(CONVEX, span=POSITIVE, monotone=False)

    def forward(self, *xs: Array) -> Array:
        return self._power(xs[0], self.exponent)

    def slope(self, x: Array, piece: int) -> Array:
        return self.exponent * self._power(x, self.exponent - 1)

    @staticmethod
    def _power(x: Array, exponent: int) -> Array:
        with np.errstate(over="ignore"):
            result, square = None, x
            while exponent:
                if exponent % 2:
                    result = square if result is None else result * square
                exponent //= 2
                square = square * square if exponent else square
            return result

    def inverse(self, slope: Array, piece: Piece) -> Array:
        xp = namespace(slope)
        root = xp.abs(slope / self.exponent) ** (1.0 / (self.exponent - 1))
        negative = slope < 0 if self.exponent % 2 == 0 else piece.index == 0
        return xp.where(negative, -root, root) if self.exponent % 2 == 0 else (-root if negative else root)

    def error(self, x: Array, y: Array) -> Array:
        return (LIBRARY * self.exponent) * namespace(y).abs(y)

    def slope_error(self, x: Array, slope: Array) -> Array:
        return (LIBRARY * self.exponent) * namespace(slope).abs(slope)


@dataclass(frozen=True)
class RealPower(SmoothOp):
    """`x^exponent` for any exponent but 0 and 1; boxes with negative numbers are unbounded.

    Attributes:
        doubt: Relative error of the exponent, at most 2^-52.
    """

    exponent: float
    doubt: float = 0.0

    @property
    def profile(self) -> Profile:
        return Profile(CONCAVE if 0 < self.exponent < 1 else CONVEX, span=POSITIVE)

    def forward(self, *xs: Array) -> Array:
        with np.errstate(all="ignore"):
            return xs[0] ** self.exponent

    def slope(self, x: Array, piece: int) -> Array:
        with np.errstate(all="ignore"):
            return self.exponent * x ** (self.exponent - 1)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return (slope / self.exponent) ** (1 / (self.exponent - 1))

    def error(self, x: Array, y: Array) -> Array:
        """`x^(p + d) - x^p` is about `d log(x) x^p`."""
        xp = namespace(y)
        return (LIBRARY + 4 * self.doubt * abs(self.exponent) * self._logarithm(x)) * xp.abs(y)

    def slope_error(self, x: Array, slope: Array) -> Array:
        """The same for the exponent and for 1 less, which is rounded."""
        xp = namespace(slope)
        return LIBRARY * (4 + 4 * (1 + abs(self.exponent)) * self._logarithm(x)) * xp.abs(slope)

    @staticmethod
    def _logarithm(x: Array) -> Array:
        """That of a float64, or more."""
        xp = namespace(x)
        with np.errstate(divide="ignore", invalid="ignore"):
            return xp.clip(xp.abs(xp.log(x)), None, 1e3)

    def defined(self, low: Array, high: Array) -> Array:
        return low >= 0 if self.exponent > 0 else low > 0


register("Exp", Exp(), 6, 13)
register("Log", Log(), 6, 13)
register("Sqrt", Sqrt(), 6, 13)
register("Reciprocal", Reciprocal(), 6, 13)


@importer("Pow", 7, 12, 13, 15, whole=True)
def pow_(node: OnnxNode, graph: GraphBuilder) -> int:
    """Constant exponents, or a positive constant base."""
    if isinstance(node.operand(0), Constant):
        return _exponential(node, graph)
    exponent, value = node.constant(1), node.value()
    if exponent.error:
        raise UnsupportedError("only exact exponents are supported")
    value = align(value, exponent.array.shape, graph)
    numbers = np.asarray(exponent.array, np.float64)
    if node.whole(0) and not ((numbers == np.round(numbers)) & (numbers >= 0)).all():
        raise UnsupportedError("a power that is not whole is rounded to the type of its base")
    return by_number(value, numbers, lambda part, number: power(part, number, graph), graph)


def power(value: int, exponent: float, graph: GraphBuilder) -> int:
    """`x^exponent`; negative x for whole exponents of up to `MOST_FACTORS` only."""
    if exponent == 0:
        shape = graph.shape(value)
        return graph.constant(Constant(np.ones(shape)), shape)
    if exponent == 1:
        return value
    known: dict[float, SmoothOp] = {0.5: Sqrt(), -0.5: InverseSqrt(), -1.0: Reciprocal(), 2.0: Square()}
    if exponent in known:
        return graph.add(known[exponent], [value])
    if exponent != round(exponent) or abs(exponent) > MOST_FACTORS:
        return graph.add(RealPower(exponent), [value])
    if exponent < 0:
        return graph.add(Reciprocal(), [power(value, -exponent, graph)])
    return graph.add(Power(int(exponent)), [value])


def _exponential(node: OnnxNode, graph: GraphBuilder) -> int:
    """`base^x = e^(x log base)`."""
    base = node.constant(0)
    array = np.asarray(base.array, np.float64)
    if base.error or node.whole(0) or not (array > 0).all():
        raise UnsupportedError("only exact positive bases of floats are supported")
    return graph.add(Exp(), [multiply_constant(node.value(1), Constant(np.log(array), LIBRARY), graph)])
