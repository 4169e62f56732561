"""Products of two computed values, elementwise and of matrices.

On a box `(x - xl)(y - yl) >= 0` and `(xu - x)(yu - y) >= 0`, so with any `mix` in [0, 1] this is below `x y`:

    mix (yl x + xl y - xl yl) + (1 - mix) (yu x + xu y - xu yu)

(McCormick 1976, section 2). The plane above `x y` is minus the one below `x (-y)`. All mixes are equally high
at the centre of the box; the adaptive one has the highest minimum over the box.
"""

from dataclasses import dataclass

import numpy as np

from lpverify.interval import (
    Array,
    Box,
    gamma,
    inflate,
    namespace,
    negative_part,
    positive_part,
    sound_box,
    tiny,
    to_double,
    to_type,
    to_type_down,
    to_type_up,
    unit_roundoff,
)
from lpverify.ops.base import BilinearOp, Constant, GraphBuilder, OnnxNode, Planes, importer
from lpverify.ops.elementary import Reciprocal, Square
from lpverify.ops.linear import align, divide_constant, multiply_constant

MOST_PRODUCTS = 2**21  # elements held at a time by the interval of a matrix product
DOUBLE = 2.0**-53

Plane = tuple[Array, Array, Array]


def _doubled(box: Box) -> Box:
    return Box(to_double(box.lower), to_double(box.upper))


def _turned(box: Box) -> Box:
    return Box(-box.upper, -box.lower)


def _blend(mix: Array | float, first: Array, second: Array) -> Array:
    return mix * first + (1 - mix) * second


def _planes(low: Plane, high: Plane, like: Array) -> Planes:
    """From the plane below `x y` and the one below `x (-y)`."""
    return Planes(
        to_type(low[0], like),
        to_type(low[1], like),
        to_type_down(low[2], like),
        to_type(-high[0], like),
        to_type(high[1], like),
        to_type_up(-high[2], like),
    )


@dataclass(frozen=True)
class Multiply(BilinearOp):
    """`x y` elementwise, for values of one shape."""

    def forward(self, *xs: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            return xs[0] * xs[1]

    def vjp(self, gradient: Array, xs: tuple[Array, ...]) -> tuple[Array, ...]:  # type: ignore[override]
        return gradient * xs[1], gradient * xs[0]

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """The least and largest product of ends."""
        first, second = (_doubled(box) for box in boxes)
        with np.errstate(all="ignore"):
            lower, upper = _corner_range(first, second)
            slack = 2 * DOUBLE
            lower, upper = sound_box(
                _keep_sign(first, second, lower - slack * abs(lower) - tiny(lower)),
                -_keep_sign(first, _turned(second), -(upper + slack * abs(upper) + tiny(upper))),
            )
            return to_type_down(lower, boxes[0].lower), to_type_up(upper, boxes[0].lower)

    def relax(self, first: Box, second: Box, mix: Array | None) -> Planes:
        like = first.lower
        x, y = _doubled(first), _doubled(second)
        share = None if mix is None else to_double(mix)
        with np.errstate(all="ignore"):
            lower, upper = self._plane(x, y, share, like), self._plane(x, _turned(y), share, like)
            return _planes(lower, upper, like)

    def _plane(self, x: Box, y: Box, mix: Array | None, like: Array) -> Plane:
        """Below `x y`. With rounded coefficients the gap is still least at a corner of the box."""
        xp = namespace(x.lower)
        share = self._adaptive(x, y) if mix is None else mix
        a = to_double(to_type(_blend(share, y.lower, y.upper), like))
        b = to_double(to_type(_blend(share, x.lower, x.upper), like))
        least = None
        for s in (x.lower, x.upper):
            for t in (y.lower, y.upper):
                size = xp.abs(s * t) + xp.abs(a * s) + xp.abs(b * t)
                gap = s * t - a * s - b * t - (4 * unit_roundoff(s) * size + tiny(s))
                least = gap if least is None else xp.minimum(least, gap)
        flat = sound_box(_corner_range(x, y)[0], y.upper)[0]
        flat = flat - 2 * unit_roundoff(flat) * xp.abs(flat) - tiny(flat)
        good = xp.isfinite(least) & xp.isfinite(a) & xp.isfinite(b)
        zero = xp.zeros_like(least)
        return xp.where(good, a, zero), xp.where(good, b, zero), xp.where(good, least, flat)

    @staticmethod
    def _adaptive(x: Box, y: Box) -> Array:
        """The highest minimum over the box is at a mix that is 0, 1/2, 1 or makes a coefficient zero."""
        xp = namespace(x.lower)
        half = 0.5 * xp.ones_like(x.lower)
        best, value = half, None
        flat = (x.upper / (x.upper - x.lower), y.upper / (y.upper - y.lower))
        for share in (half, 0 * half, 2 * half, *flat):
            share = xp.clip(xp.where(share == share, share, half), 0.0, 1.0)
            a, b = _blend(share, y.lower, y.upper), _blend(share, x.lower, x.upper)
            height = positive_part(a) * x.lower + negative_part(a) * x.upper
            height = height + positive_part(b) * y.lower + negative_part(b) * y.upper
            height = height - _blend(share, x.lower * y.lower, x.upper * y.upper)
            best = share if value is None else xp.where(height > value + 1e-12 * xp.abs(value), share, best)
            value = height if value is None else xp.maximum(value, height)
        return best

    def substitute(self, a: Array, planes: Planes) -> tuple[Array, Array]:
        xp = namespace(a)
        upper = a < 0
        first = xp.where(upper, planes.upper_first[:, None], planes.lower_first[:, None]) * a
        return first, xp.where(upper, planes.upper_second[:, None], planes.lower_second[:, None]) * a

    def magnitude(self, first: Array, second: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            size = first * second
        return size * (1 + 4 * unit_roundoff(size)) + tiny(size)

    @property
    def terms(self) -> int:
        return 1


def _keep_sign(x: Box, y: Box, lower: Array) -> Array:
    """A lower bound of `x y` that is not negative where the product can't be."""
    known = ((x.lower >= 0) & (y.lower >= 0)) | ((x.upper <= 0) & (y.upper <= 0))
    return namespace(lower).where(known, positive_part(lower), lower)


def _corner_range(x: Box, y: Box) -> tuple[Array, Array]:
    """Least and largest of the four products of ends; NaN where one is undefined."""
    xp = namespace(x.lower)
    products = [s * t for s in (x.lower, x.upper) for t in (y.lower, y.upper)]
    lower, upper = products[0], products[0]
    for product in products[1:]:
        lower, upper = xp.minimum(lower, product), xp.maximum(upper, product)
    return lower, upper


def _transposed(matrix: Array) -> Array:
    return matrix.swapaxes(-1, -2)


@dataclass(frozen=True)
class MatMulValues(BilinearOp):
    """`X Y` for stacks of matrices `(..., m, k)` and `(..., k, n)` with equal leading axes.

    One mix for each `k`: then the coefficient on `x_ik` in the plane of `x_ik y_kj` doesn't depend on i, that
    on `y_kj` not on j, and coefficients `a` on the result become `a F'` on X and `S' a` on Y with matrices F
    `(k, n)` and S `(m, k)`: planes hold these.

    Attributes:
        sizes: m, k, n.
    """

    sizes: tuple[int, int, int]

    def forward(self, *xs: Array) -> Array:
        return xs[0] @ xs[1]

    def vjp(self, gradient: Array, xs: tuple[Array, ...]) -> tuple[Array, ...]:  # type: ignore[override]
        return gradient @ _transposed(xs[1]), _transposed(xs[0]) @ gradient

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """Sums of the products' ranges, a part of the inner axis at a time."""
        x, y = (_doubled(box) for box in boxes)
        size = x.lower[..., :1].size if isinstance(x.lower, np.ndarray) else x.lower[..., :1].numel()
        step = max(1, MOST_PRODUCTS // (size * self.sizes[2]))
        lower, upper = 0.0, 0.0
        with np.errstate(all="ignore"):
            for first in range(0, self.sizes[1], step):
                part = slice(first, first + step)
                rows = Box(x.lower[..., part, None], x.upper[..., part, None])
                columns = Box(y.lower[..., None, part, :], y.upper[..., None, part, :])
                low, high = _corner_range(rows, columns)
                lower, upper = lower + low.sum(-2), upper + high.sum(-2)
            slack = self.magnitude(x.magnitude, y.magnitude) * gamma(self.sizes[1] + 4, DOUBLE)
            lower, upper = sound_box(lower - slack, upper + slack)
            return to_type_down(lower, boxes[0].lower), to_type_up(upper, boxes[0].lower)

    def relax(self, first: Box, second: Box, mix: Array | None) -> Planes:
        like = first.lower
        x, y = _doubled(first), _doubled(second)
        share = None if mix is None else to_double(mix)
        with np.errstate(all="ignore"):
            lower, upper = self._plane(x, y, share, like), self._plane(x, _turned(y), share, like)
            return _planes(lower, upper, like)

    def _plane(self, x: Box, y: Box, mix: Array | None, like: Array) -> Plane:
        """Below `X Y`. A coefficient rounded by `e` moves the plane by at most `e |x|` on the box."""
        xp = namespace(x.lower)
        share = self._adaptive(x, y) if mix is None else mix
        down, across = share[..., :, None], share[..., None, :]
        a, b = _blend(down, y.lower, y.upper), _blend(across, x.lower, x.upper)
        height = (across * x.lower) @ y.lower + ((1 - across) * x.upper) @ y.upper
        error = 2 * gamma(self.sizes[1] + 8, DOUBLE) + 4 * unit_roundoff(like)
        height = -height - error * self.magnitude(x.magnitude, y.magnitude)
        height = xp.where(xp.isfinite(height), height, xp.full_like(height, -float("inf")))
        return (*(xp.where(xp.isfinite(c), c, xp.zeros_like(c)) for c in (a, b)), height)

    @staticmethod
    def _adaptive(x: Box, y: Box) -> Array:
        """Of 0, 1/2 and 1 the mix with the largest sum of minima over the box, for each k."""
        xp = namespace(x.lower)
        best = value = None
        for share in (0.5, 0.0, 1.0):
            a, b = _blend(share, y.lower, y.upper), _blend(share, x.lower, x.upper)
            height = positive_part(a).sum(-1) * x.lower.sum(-2) + negative_part(a).sum(-1) * x.upper.sum(-2)
            height = (
                height
                + positive_part(b).sum(-2) * y.lower.sum(-1)
                + negative_part(b).sum(-2) * y.upper.sum(-1)
            )
            height = height - share * x.lower.sum(-2) * y.lower.sum(-1)
            height = height - (1 - share) * x.upper.sum(-2) * y.upper.sum(-1)
            chosen = xp.full_like(height, share)
            best = chosen if value is None else xp.where(height > value + 1e-12 * xp.abs(value), chosen, best)
            value = height if value is None else xp.maximum(value, height)
        return best

    def substitute(self, a: Array, planes: Planes) -> tuple[Array, Array]:
        positive, negative = positive_part(a), negative_part(a)
        parts = planes.lower_first, planes.upper_first, planes.lower_second, planes.upper_second
        low, high, low_second, high_second = (_transposed(part)[:, None] for part in parts)
        return positive @ low + negative @ high, low_second @ positive + high_second @ negative

    def magnitude(self, first: Array, second: Array) -> Array:
        with np.errstate(over="ignore", invalid="ignore"):
            size = first @ second
        return size * inflate(self.sizes[1], unit_roundoff(size)) + tiny(size) * self.sizes[1]

    @property
    def terms(self) -> int:
        return 2 * max(self.sizes)


def product(first: int, second: int, graph: GraphBuilder) -> int:
    """`x y` with broadcasting; a square where both are one value."""
    if first == second:
        return graph.add(Square(), [first])
    first, second = align(first, graph.shape(second), graph), align(second, graph.shape(first), graph)
    return graph.add(Multiply(), [first, second])


@importer("Mul", 7, 13, 14, whole=True)
def mul(node: OnnxNode, graph: GraphBuilder) -> int:
    """Product of two operands."""
    first, second = node.operand(0), node.operand(1)
    if isinstance(first, Constant):
        return multiply_constant(node.value(1), first, graph)
    if isinstance(second, Constant):
        return multiply_constant(node.value(0), second, graph)
    return product(node.value(0), node.value(1), graph)


@importer("Div", 7, 13, 14)
def div(node: OnnxNode, graph: GraphBuilder) -> int:
    """Quotient of two operands: a product with the reciprocal."""
    first, second = node.operand(0), node.operand(1)
    if isinstance(second, Constant):
        return divide_constant(node.value(0), second, graph)
    inverse = graph.add(Reciprocal(), [node.value(1)])
    if isinstance(first, Constant):
        return multiply_constant(inverse, first, graph)
    return product(node.value(0), inverse, graph)
