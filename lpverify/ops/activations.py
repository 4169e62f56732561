"""Activation functions: sigmoids, and smooth and exponential relatives of the rectifier."""

from dataclasses import dataclass
from math import inf, pi, sqrt
from typing import Any

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import LIBRARY, Array, namespace
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.linear import shift
from lpverify.ops.piecewise import clip_value
from lpverify.ops.smooth import Piece, Profile, SmoothOp, register

RISING = (1, -1)  # convex left of zero, concave right of it
BUMP = (-1, 1, -1)


def erf(x: Array) -> Array:
    """The error function of a NumPy or torch array."""
    if not isinstance(x, np.ndarray | np.generic):
        return namespace(x).erf(x)
    from scipy import special  # noqa: PLC0415  (rarely needed, slow to import)

    wide: Array = x if x.dtype == np.float32 else np.asarray(x, np.float64)
    return special.erf(wide)


def logistic(x: Array) -> Array:
    """`1 / (1 + e^-x)`, accurate relative to itself on both sides."""
    xp = namespace(x)
    e = xp.exp(-xp.abs(x))
    return xp.where(x < 0, e, xp.ones_like(e)) / (1 + e)


def logistic_slope(x: Array) -> Array:
    """Its derivative, accurate relative to itself."""
    e = namespace(x).exp(-namespace(x).abs(x))
    return e / (1 + e) ** 2


def logistic_point(slope: Array, piece: Piece) -> Array:
    """Where it has a slope: left of zero on piece 0, right on piece 1; from `y (1 - y) = slope`."""
    xp = namespace(slope)
    slope = xp.clip(slope, 0.0, 0.25)
    y = 2 * slope / (1 + xp.sqrt(1 - 4 * slope))
    return xp.log(y / (1 - y)) * (-1 if piece.index else 1)


@dataclass(frozen=True)
class Sigmoid(SmoothOp):
    """`1 / (1 + e^-x)`."""

    profile = Profile(RISING, (0.0,), (0.0, 1.0))

    def forward(self, *xs: Array) -> Array:
        return logistic(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        return logistic_slope(x)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return logistic_point(slope, piece)


@dataclass(frozen=True)
class Tanh(SmoothOp):
    """Hyperbolic tangent, `2 sigmoid(2 x) - 1`."""

    profile = Profile(RISING, (0.0,), (-1.0, 1.0))

    def forward(self, *xs: Array) -> Array:
        return namespace(xs[0]).tanh(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        return 4 * logistic_slope(2 * x)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return 0.5 * logistic_point(0.25 * slope, piece)


@dataclass(frozen=True)
class Atan(SmoothOp):
    """Inverse tangent."""

    profile = Profile(RISING, (0.0,), (-1.5707963267948968, 1.5707963267948968))

    def forward(self, *xs: Array) -> Array:
        return namespace(xs[0]).atan(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        return 1 / (1 + x * x)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        xp = namespace(slope)
        return xp.sqrt(xp.clip(1 / slope - 1, 0.0, None)) * (1 if piece.index else -1)


@dataclass(frozen=True)
class Softsign(SmoothOp):
    """`x / (1 + |x|)`."""

    profile = Profile(RISING, (0.0,), (-1.0, 1.0))

    def forward(self, *xs: Array) -> Array:
        return xs[0] / (1 + namespace(xs[0]).abs(xs[0]))

    def slope(self, x: Array, piece: int) -> Array:
        return (1 / (1 + namespace(x).abs(x))) ** 2

    def inverse(self, slope: Array, piece: Piece) -> Array:
        xp = namespace(slope)
        return (1 / xp.sqrt(xp.clip(slope, 0.0, 1.0)) - 1) * (1 if piece.index else -1)


@dataclass(frozen=True)
class Erf(SmoothOp):
    """The error function."""

    profile = Profile(RISING, (0.0,), (-1.0, 1.0))

    def forward(self, *xs: Array) -> Array:
        return erf(xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        return (2 / sqrt(pi)) * namespace(x).exp(-(x * x))

    def slope_error(self, x: Array, slope: Array) -> Array:
        return LIBRARY * (1 + x * x) * slope

    def inverse(self, slope: Array, piece: Piece) -> Array:
        xp = namespace(slope)
        squared = -xp.log((sqrt(pi) / 2) * slope)
        return xp.sqrt(xp.clip(squared, 0.0, None)) * (1 if piece.index else -1)


@dataclass(frozen=True)
class Softplus(SmoothOp):
    """`log(1 + e^x)`."""

    profile = Profile((1,), span=(0.0, inf))

    def forward(self, *xs: Array) -> Array:
        xp = namespace(xs[0])
        return xp.clip(xs[0], 0.0, None) + xp.log1p(xp.exp(-xp.abs(xs[0])))

    def slope(self, x: Array, piece: int) -> Array:
        return logistic(x)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return namespace(slope).log(slope / (1 - slope))


@dataclass(frozen=True)
class Gelu(SmoothOp):
    """`x Phi(x)`, Phi the normal distribution (Hendrycks and Gimpel 2016, arXiv:1606.08415)."""

    # The second derivative (2 - x^2) phi(x) is zero at the roots of 2.
    profile = Profile(BUMP, (-sqrt(2), sqrt(2)), (-0.16997120747990371, inf), monotone=False)

    def forward(self, *xs: Array) -> Array:
        x = xs[0]
        return namespace(x).where(x < -9, 0 * x, 0.5 * x * (1 + erf(x * sqrt(0.5))))

    def error(self, x: Array, y: Array) -> Array:
        """Below -9 the value is above -9 Phi(-9) > -2e-18, and nothing is computed."""
        xp = namespace(x)
        return xp.where(x < -9, xp.full_like(x, 2e-18), LIBRARY * xp.abs(x))

    def slope(self, x: Array, piece: int) -> Array:
        return 0.5 * (1 + erf(x * sqrt(0.5))) + x * namespace(x).exp(-0.5 * x * x) / sqrt(2 * pi)

    def slope_error(self, x: Array, slope: Array) -> Array:
        """Phi <= 1 and `|x|^3 phi(x) <= 1/2`."""
        return namespace(x).full_like(x, 4 * LIBRARY)


@dataclass(frozen=True)
class GeluTanh(SmoothOp):
    """`x sigmoid(2 z)` with `z = sqrt(2 / pi) (x + 0.044715 x^3)`."""

    profile = Profile(
        BUMP, (-1.4185040087908284, 1.4185040087908284), (-0.1700407505712541, inf), monotone=False
    )

    @staticmethod
    def _twice(x: Array) -> Array:
        return (2 * sqrt(2 / pi)) * (x + 0.044715 * x * x * x)

    def forward(self, *xs: Array) -> Array:
        with np.errstate(over="ignore"):
            return xs[0] * logistic(self._twice(xs[0]))

    def error(self, x: Array, y: Array) -> Array:
        xp = namespace(x)
        return LIBRARY * (1 + xp.clip(xp.abs(self._twice(x)), None, 1e3)) * xp.abs(y)

    def slope(self, x: Array, piece: int) -> Array:
        twice = self._twice(x)
        inner = (2 * sqrt(2 / pi)) * (1 + (3 * 0.044715) * x * x)
        return logistic(twice) + x * inner * logistic_slope(twice)

    def slope_error(self, x: Array, slope: Array) -> Array:
        """Each of the two terms, times the rounding of `z` in an exponent, is below 4."""
        return namespace(x).full_like(x, 16 * LIBRARY)


@dataclass(frozen=True)
class Swish(SmoothOp):
    """`x sigmoid(alpha x)` for positive alpha."""

    alpha: float = 1.0

    @property
    def profile(self) -> Profile:
        edge = 2.3993572805154676 / self.alpha  # zero of the second derivative for alpha = 1
        return Profile(BUMP, (-edge, edge), (-0.2784645427610739 / self.alpha, inf), monotone=False)

    def forward(self, *xs: Array) -> Array:
        return xs[0] * logistic(self.alpha * xs[0])

    def error(self, x: Array, y: Array) -> Array:
        xp = namespace(x)
        return LIBRARY * (1 + xp.clip(xp.abs(self.alpha * x), None, 1e3)) * xp.abs(y)

    def slope(self, x: Array, piece: int) -> Array:
        return logistic(self.alpha * x) + (self.alpha * x) * logistic_slope(self.alpha * x)

    def slope_error(self, x: Array, slope: Array) -> Array:
        return namespace(x).full_like(x, 8 * LIBRARY)


@dataclass(frozen=True)
class Mish(SmoothOp):
    """`x tanh(log(1 + e^x))` (Misra 2019, arXiv:1908.08681)."""

    profile = Profile(
        BUMP, (-2.256376396360793, 1.4905711794854285), (-0.30884341301725046, inf), monotone=False
    )

    @staticmethod
    def _parts(x: Array) -> tuple[Array, Array, Array]:
        """Numerator and denominator of the tangent, and their difference; no cancellation on either side."""
        xp = namespace(x)
        e = xp.exp(-xp.abs(x))
        top = xp.where(x < 0, e * (e + 2), 1 + 2 * e)
        rest = xp.where(x < 0, 2 + 0 * e, 2 * e * e)
        return top, top + rest, rest

    def forward(self, *xs: Array) -> Array:
        top, bottom, _ = self._parts(xs[0])
        return xs[0] * (top / bottom)

    def slope(self, x: Array, piece: int) -> Array:
        top, bottom, rest = self._parts(x)
        return top / bottom + x * logistic(x) * (rest / bottom) * ((top + bottom) / bottom)

    def slope_error(self, x: Array, slope: Array) -> Array:
        return namespace(x).full_like(x, 8 * LIBRARY)


@dataclass(frozen=True)
class ExponentialLinear(SmoothOp):
    """`scale (e^(x / width) - 1)` left of zero, `gain x` right of it: Elu, Selu, Celu."""

    scale: float
    width: float
    gain: float

    @property
    def profile(self) -> Profile:
        turn = 1 if self.scale > 0 else -1
        return Profile((turn, 0), (0.0,), monotone=self.scale * self.gain >= 0)

    def forward(self, *xs: Array) -> Array:
        xp = namespace(xs[0])
        left = self.scale * xp.expm1(xp.clip(xs[0], None, 0.0) / self.width)
        return xp.where(xs[0] < 0, left, self.gain * xs[0])

    def slope(self, x: Array, piece: int) -> Array:
        xp = namespace(x)
        if piece:
            return xp.full_like(x, self.gain)
        return (self.scale / self.width) * xp.exp(xp.clip(x, None, 0.0) / self.width)

    def slope_error(self, x: Array, slope: Array) -> Array:
        """The quotient is rounded in the exponent."""
        xp = namespace(x)
        return LIBRARY * (1 + xp.clip(xp.abs(x / self.width), None, 1e3)) * xp.abs(slope)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return self.width * namespace(slope).log(slope * self.width / self.scale)


@dataclass(frozen=True)
class HardSwish(SmoothOp):
    """`x min(max(x / 6 + 1/2, 0), 1)`."""

    profile = Profile((0, 1, 0), (-3.0, 3.0), (-0.375, inf), monotone=False)

    def forward(self, *xs: Array) -> Array:
        xp = namespace(xs[0])
        return xs[0] * xp.clip(xs[0] / 6 + 0.5, 0.0, 1.0)

    def error(self, x: Array, y: Array) -> Array:
        xp = namespace(x)
        return xp.where(x < -4, xp.zeros_like(x), LIBRARY * xp.abs(x))

    def slope(self, x: Array, piece: int) -> Array:
        if piece == 1:
            return x / 3 + 0.5
        return namespace(x).full_like(x, piece / 2)

    def slope_error(self, x: Array, slope: Array) -> Array:
        return namespace(x).full_like(x, 2 * LIBRARY)

    def inverse(self, slope: Array, piece: Piece) -> Array:
        return 3 * slope - 1.5


register("Sigmoid", Sigmoid(), 6, 13)
register("Tanh", Tanh(), 6, 13)
register("Atan", Atan(), 7, 22)
register("Softsign", Softsign(), 1, 22)
register("Erf", Erf(), 9, 13)
register("Softplus", Softplus(), 1, 22)
register("Mish", Mish(), 18, 22)
register("HardSwish", HardSwish(), 14, 22)


def _number(node: OnnxNode, name: str, default: float) -> float:
    """A float attribute, exactly as the file has it."""
    return float(np.float32(node.attribute(name, default)))


@importer("Gelu", 20)
def gelu(node: OnnxNode, graph: GraphBuilder) -> int:
    """With the error function, or approximated with tanh."""
    op: Any = {b"none": Gelu(), b"tanh": GeluTanh()}.get(node.attribute("approximate", b"none"))
    if op is None:
        raise UnsupportedError("approximate must be none or tanh")
    return graph.add(op, [node.value()])


@importer("Swish", 24)
def swish(node: OnnxNode, graph: GraphBuilder) -> int:
    """`x sigmoid(alpha x)`."""
    alpha = _number(node, "alpha", 1.0)
    if not alpha > 0:
        raise UnsupportedError("alpha must be positive")
    return graph.add(Swish(alpha), [node.value()])


@importer("Elu", 6, 22)
def elu(node: OnnxNode, graph: GraphBuilder) -> int:
    """`alpha (e^x - 1)` left of zero."""
    return graph.add(ExponentialLinear(_number(node, "alpha", 1.0), 1.0, 1.0), [node.value()])


@importer("Selu", 6, 22)
def selu(node: OnnxNode, graph: GraphBuilder) -> int:
    """`gamma` times an Elu; the product of two float32 attributes is exact in float64."""
    alpha = _number(node, "alpha", 1.67326319217681884765625)
    gamma = _number(node, "gamma", 1.05070102214813232421875)
    return graph.add(ExponentialLinear(alpha * gamma, 1.0, gamma), [node.value()])


@importer("Celu", 12, 28)
def celu(node: OnnxNode, graph: GraphBuilder) -> int:
    """`alpha (e^(x / alpha) - 1)` left of zero."""
    alpha = _number(node, "alpha", 1.0)
    if not alpha > 0:
        raise UnsupportedError("alpha must be positive")
    return graph.add(ExponentialLinear(alpha, alpha, 1.0), [node.value()])


@importer("HardSigmoid", 6, 22)
def hard_sigmoid(node: OnnxNode, graph: GraphBuilder) -> int:
    """`min(max(alpha x + beta, 0), 1)`."""
    alpha, beta = _number(node, "alpha", 0.2), _number(node, "beta", 0.5)
    value = graph.add(shift(np.asarray(beta), 0.0, alpha), [node.value()])
    return clip_value(value, Constant(np.asarray(0.0)), Constant(np.asarray(1.0)), graph)
