"""The backward pass: linear lower bounds of rows over any value, rounding covered.

Accepts: networks of affine, elementwise and bilinear ops with a `Frame` of bounds for the batch.
Returns: `row . value >= a . (x - c) + constant` on each region, in exact arithmetic.
Method: CROWN / DeepPoly substitution from a value back to the input (Zhang et al. 2018,
arXiv:1811.00866, section 3; Singh et al. 2019), with split constraints as in beta-CROWN (Wang et al.
2021, arXiv:2103.06624, section 3.1).
Guarantee: sound with respect to every rounding error; see `bounds.frame` for the error terms.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import prod

from lpverify.bounds.ball import Ball, dual_norm
from lpverify.bounds.frame import CentredLines, Frame
from lpverify.errors import InternalError
from lpverify.interval import (
    DOUBLE,
    SUM_INFLATION,
    Array,
    Box,
    dot,
    dot_error,
    gamma,
    namespace,
    negative_part,
    positive_part,
    round_down,
    round_up,
    tiny,
    to_double,
)
from lpverify.ops.base import AffineOp, BilinearOp, ElementwiseOp, IntervalOp


@dataclass(frozen=True, slots=True)
class LinearBound:
    """`rows . value >= a . (x - centre) + constant` for every input x of the region.

    Attributes:
        a: `(B, R, n)`.
        constant: `(B, R)` float64, all rounding errors subtracted.
        centre: `(B, n)` float64.
    """

    a: Array
    constant: Array
    centre: Array

    def concretize(self, box: Box, ball: Ball | None = None) -> Array:
        """Lower bounds `(B, R)`, float64, over an input box `(B, n)`, float64, and a ball around part of it.

        The larger of the bound over the box and, by Hoelder's inequality, that over the ball.
        """
        xp = namespace(self.a)
        a = to_double(self.a)
        low, high = round_down(box.lower - self.centre), round_up(box.upper - self.centre)
        negative = negative_part(a)
        total = dot(a - negative, low) + dot(negative, high)
        size = dot(xp.abs(a), xp.maximum(xp.abs(low), xp.abs(high)))
        error = size * gamma(2 * a.shape[-1] + 2, DOUBLE) + (abs(self.constant) + abs(total)) * (4 * DOUBLE)
        error = error + tiny(a)
        lower = total + self.constant - error * SUM_INFLATION
        lower = xp.where(lower == lower, lower, xp.full_like(lower, -float("inf")))
        return lower if ball is None else xp.maximum(lower, self._over_ball(ball))

    def _over_ball(self, ball: Ball) -> Array:
        """`a . (centre of the ball - centre) + constant - radius * dual norm of a`, rounded down."""
        xp = namespace(self.a)
        a, shift = to_double(self.a), ball.centre - self.centre
        total, reach = dot(a, shift), ball.radius[:, None] * dual_norm(a, ball.norm)
        error = dot(xp.abs(a), xp.abs(shift)) * gamma(a.shape[-1] + 4, DOUBLE)
        error = error + (abs(self.constant) + abs(total) + reach) * (8 * DOUBLE) + tiny(a)
        lower = total - reach + self.constant - error * SUM_INFLATION
        return xp.where(lower == lower, lower, xp.full_like(lower, -float("inf")))

    def absolute(self) -> tuple[Array, Array]:
        """`(a, h)` with `rows . value >= a . x + h`, both float64, h rounded down."""
        xp = namespace(self.a)
        a = to_double(self.a)
        error = dot(xp.abs(a), abs(self.centre)) * gamma(a.shape[-1] + 4, DOUBLE)
        height = self.constant - dot(a, self.centre)
        return a, height - error * SUM_INFLATION - (abs(height) + abs(self.constant)) * (4 * DOUBLE) - tiny(a)

    def minimizer(self, box: Box) -> Array:
        """The corner `(B, R, n)` of the box at which the bound is attained."""
        xp = namespace(self.a)
        return xp.where(self.a > 0, box.lower[:, None], box.upper[:, None])


@dataclass(frozen=True, slots=True)
class Sides:
    """Split constraints `sign (z - point) >= 0` on the elements z of one value.

    Attributes:
        sign: `(B, *shape)`: +1, -1, or 0 for no constraint.
        point: `(B, *shape)` float64; None: all zero.
    """

    sign: Array
    point: Array | None = None


@dataclass
class Trace:
    """What a backward pass leaves behind for branching rules and gradients.

    Attributes:
        coefficients: For each nonlinear node the coefficients `(B, R, *shape)` on its result.
    """

    coefficients: dict[int, Array] = field(default_factory=dict)


@dataclass
class _Sums:
    """Running constant, size of its terms and error, each `(B, R)` float64."""

    constant: Array
    size: Array
    error: Array

    def add(self, gain: Array) -> None:
        self.constant, self.size = self.constant + gain, self.size + abs(gain)

    def lose(self, loss: Array) -> None:
        self.error = self.error + loss


def backward(
    frame: Frame,
    start: int,
    rows: Array,
    at_centre: tuple[Array, Array],
    beta: Mapping[int, Sides] | None = None,
    lines: Mapping[int, CentredLines] | None = None,
    trace: Trace | None = None,
) -> LinearBound:
    """Linear lower bounds on `rows . value[start] + sum of split terms`.

    Args:
        frame: Bounds up to `start`.
        start: The value that is bounded.
        rows: `(B, R, *shape)`.
        at_centre: `rows . reference value`, `(B, R)` float64, and a bound on its error.
        beta: For split values terms `sign (z - point)` with signs `(B, R, *shape)` that are added to the
            rows: `-beta s` for a split `s (z - point) >= 0` with `beta >= 0`; zero elsewhere. They raise no
            value on the region of the splits.
        lines: Instead of the frame's own.
        trace: Filled if given.
    """
    pending: dict[int, Array] = {start: rows}
    network = frame.network
    sums = _Sums(at_centre[0], abs(at_centre[0]), at_centre[1])
    for k in range(max([start, *(beta or ())]), 0, -1):
        a = pending.pop(k, None)
        if beta is not None and k in beta:
            a = _add_splits(a, beta[k], frame.centres[k], sums)
        if a is None:
            continue
        parts = _step(frame, k, a, sums, frame.lines if lines is None else lines, trace)
        for i, part in zip(network.nodes[k].inputs, parts, strict=True):
            pending[i] = pending[i] + part if i in pending else part
    a = pending.pop(0, None)
    if a is None:
        a = namespace(rows).zeros((*rows.shape[:2], network.input_size), dtype=rows.dtype, device=rows.device)
    if frame.costs[0] is not None:
        sums.lose(dot(abs(a), frame.costs[0]))
    error = sums.error * SUM_INFLATION + sums.size * ((4 * len(network.nodes) + 8) * DOUBLE)
    error = error + frame.slack[:, None]
    return LinearBound(a, sums.constant - error, frame.centres[0])


def _add_splits(a: Array | None, beta: Sides, centre: Array, sums: _Sums) -> Array:
    """Adds split terms; they speak of the value itself, so its reference enters the constant."""
    for at, sign in ((centre, 1.0), (beta.point, -1.0)):
        if at is not None:
            value, error = centre_value(beta.sign, at)
            sums.add(sign * value)
            sums.lose(error)
    return beta.sign if a is None else a + beta.sign


def centre_value(rows: Array, centre: Array) -> tuple[Array, Array]:
    """`rows . centre` `(B, R)` in float64 and a bound on its error."""
    wide = to_double(rows)
    size = dot(abs(wide), abs(centre))
    return dot(wide, centre), size * gamma(prod(centre.shape[1:]) + 4, DOUBLE) + tiny(wide)


def _step(
    frame: Frame, k: int, a: Array, sums: _Sums, lines: Mapping[int, CentredLines], trace: Trace | None
) -> tuple[Array, ...]:
    """Coefficients on the operands of node `k` from those on its value; gains and losses are summed up."""
    op, cost = frame.network.nodes[k].op, frame.costs[k]
    if trace is not None and not isinstance(op, AffineOp):
        trace.coefficients[k] = a
    if isinstance(op, ElementwiseOp):
        return _elementwise_step(a, lines[k], sums)
    if cost is not None:
        sums.lose(dot(abs(a), cost))
    if isinstance(op, AffineOp):
        parts = op.adjoint(a.reshape((-1, *a.shape[2:])))
        return tuple(p.reshape((*a.shape[:2], *p.shape[1:])) for p in parts)
    if isinstance(op, BilinearOp):
        return _bilinear_step(frame, k, op, a, sums)
    if isinstance(op, IntervalOp):
        return _interval_step(frame, k, a, sums)
    raise InternalError(f"no backward rule for {op!r}")


def _elementwise_step(a: Array, lines: CentredLines, sums: _Sums) -> tuple[Array]:
    """Positive coefficients take the lower line, negative ones the upper line."""
    xp = namespace(a)
    negative = negative_part(a)
    sums.add(dot(a, lines.lower_gain) + dot(negative, lines.upper_gain - lines.lower_gain))
    sums.lose(dot(abs(a), lines.cost))
    return (xp.where(a < 0, lines.upper_slope, lines.lower_slope) * a,)


def _interval_step(frame: Frame, k: int, a: Array, sums: _Sums) -> tuple[Array, ...]:
    """The value is somewhere in its box: the ends are constants, nothing is left for the operands."""
    xp, box, centre = namespace(a), frame.boxes[k], frame.centres[k]
    low, high = frame.cast_up(round_up(centre - box.lower)), frame.cast_up(round_up(box.upper - centre))
    negative = negative_part(a)
    sums.add(dot(negative, high) - dot(a - negative, low))
    sums.lose(dot(abs(a), xp.maximum(abs(low), abs(high))) * dot_error(a, prod(a.shape[2:])))
    shapes = (frame.network.nodes[i].shape for i in frame.network.nodes[k].inputs)
    return tuple(xp.zeros((*a.shape[:2], *shape), dtype=a.dtype, device=a.device) for shape in shapes)


def _bilinear_step(frame: Frame, k: int, op: BilinearOp, a: Array, sums: _Sums) -> tuple[Array, ...]:
    """As above with planes; the reference of both operands is taken out of the computed coefficients."""
    planes = frame.planes[k]
    parts = op.substitute(a, planes)
    positive, negative = positive_part(a), negative_part(a)
    sums.add(dot(positive, planes.lower_intercept) + dot(negative, planes.upper_intercept))
    size = dot(positive, abs(planes.lower_intercept)) - dot(negative, abs(planes.upper_intercept))
    sums.lose(size * dot_error(a, prod(a.shape[2:])))
    terms = [(a, k, -1.0), *((p, i, 1.0) for p, i in zip(parts, frame.network.nodes[k].inputs, strict=True))]
    for coefficients, i, sign in terms:
        value, error = centre_value(coefficients, frame.centres[i])
        sums.add(sign * value)
        sums.lose(error)
    return parts
