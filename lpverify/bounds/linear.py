"""The backward pass: linear lower bounds of rows over any value, rounding covered.

Accepts: networks of affine and elementwise ops, boxes of all values, lines for the nonlinear ones.
Returns: `row . value >= a . input + constant` on the region, in exact arithmetic.
Method: CROWN / DeepPoly substitution from a value back to the input (Zhang et al. 2018,
arXiv:1811.00866, section 3; Singh et al. 2019), with split constraints as in beta-CROWN (Wang et al.
2021, arXiv:2103.06624, section 3.1).
Guarantee: sound with respect to every rounding error. For an affine step `a y = a (W x + b)` the
computed `a W` is off by at most `gamma |a| |W|`, so the bound loses `gamma |a| (|W| X + |b|)` for any `X`
not below `|x|`. The vector `|W| X + |b|` does not depend on the row: it is computed once for each value
(`rounding_cost`), and each row then pays one dot product.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod

from lpverify.errors import InternalError
from lpverify.interval import (
    SUM_INFLATION,
    Array,
    Box,
    dot,
    dot_error,
    namespace,
    negative_part,
    underflow,
    unit_roundoff,
)
from lpverify.network import Network
from lpverify.ops.base import AffineOp, ElementwiseOp, Lines


@dataclass(frozen=True, slots=True)
class LinearBound:
    """`rows . value >= a . x + constant` for every input x of the region.

    Attributes:
        a: `(B, R, n)`.
        constant: `(B, R)` float64, all rounding errors subtracted.
    """

    a: Array
    constant: Array

    def concretize(self, box: Box) -> Array:
        """Lower bounds `(B, R)`, float64, over an input box `(B, n)`."""
        xp = namespace(self.a)
        negative = negative_part(self.a)
        total = dot(self.a - negative, box.lower) + dot(negative, box.upper)
        size = dot(xp.abs(self.a), box.magnitude)
        error = (size * dot_error(self.a, self.a.shape[-1]) + abs(self.constant) * 2.0**-52) * SUM_INFLATION
        lower = total + self.constant - error
        return xp.where(lower == lower, lower, xp.full_like(lower, -float("inf")))

    def minimizer(self, box: Box) -> Array:
        """The corner `(B, R, n)` of the box at which the bound is attained."""
        xp = namespace(self.a)
        return xp.where(self.a > 0, box.lower[:, None], box.upper[:, None])


@dataclass
class Trace:
    """What a backward pass leaves behind for branching rules and gradients.

    Attributes:
        coefficients: For each nonlinear node the coefficients `(B, R, *shape)` on its result.
    """

    coefficients: dict[int, Array] = field(default_factory=dict)


def backward(
    network: Network,
    start: int,
    rows: Array,
    costs: Sequence[Array],
    lines: Mapping[int, Lines],
    beta: Mapping[int, Array] | None = None,
    trace: Trace | None = None,
) -> LinearBound:
    """Linear lower bounds on `rows . value[start] + sum of split terms`.

    Args:
        network: Any DAG of affine and elementwise nodes.
        start: The value that is bounded.
        rows: `(B, R, *shape)`.
        costs: Rounding costs of all values, from `rounding_cost`.
        lines: For each nonlinear node before `start`, arrays `(B, 1 or R, *shape)`.
        beta: For pre-activation values, coefficients `(B, R, *shape)` that are added to the rows: `-beta s`
            for a split `s z >= 0` with `beta >= 0`; zero elsewhere. They lower the bound by nothing on the
            region of the splits.
        trace: Filled if given.
    """
    xp = namespace(rows)
    pending: dict[int, Array] = {start: rows}
    constant = xp.zeros(rows.shape[:2], dtype=xp.float64, device=rows.device)
    size, error = constant, constant
    for k in range(max([start, *(beta or ())]), 0, -1):
        a = pending.pop(k, None)
        if beta is not None and k in beta:
            a = beta[k] if a is None else a + beta[k]
        if a is None:
            continue
        error = error + dot(xp.abs(a), costs[k])
        op = network.nodes[k].op
        if isinstance(op, AffineOp):
            parts, gain = _affine_step(op, a)
        elif isinstance(op, ElementwiseOp):
            parts, gain, loss = _elementwise_step(a, lines[k])
            error = error + loss
            if trace is not None:
                trace.coefficients[k] = a
        else:
            raise InternalError(f"no backward rule for {op!r}")
        if gain is not None:
            constant, size = constant + gain, size + xp.abs(gain)
        for i, part in zip(network.nodes[k].inputs, parts, strict=True):
            pending[i] = pending[i] + part if i in pending else part
    a = pending.pop(0, None)
    if a is None:
        a = xp.zeros((*rows.shape[:2], network.input_size), dtype=rows.dtype, device=rows.device)
    error = error + dot(xp.abs(a), costs[0])
    total_error = error * SUM_INFLATION + size * ((2 * len(network.nodes) + 8) * 2.0**-53) + underflow(rows)
    return LinearBound(a, constant - total_error)


def _affine_step(op: AffineOp, a: Array) -> tuple[tuple[Array, ...], Array | None]:
    """Coefficients on the operands and the constant that the offset contributes."""
    lead = a.shape[:2]
    parts = op.adjoint(a.reshape((-1, *a.shape[2:])))
    gain = None
    if op.offset is not None:
        xp = namespace(a)
        offset = op.offset if op.offset.dtype == a.dtype else xp.asarray(op.offset, dtype=a.dtype)
        gain = dot(a, xp.broadcast_to(offset, a.shape[2:])[None])
    return tuple(p.reshape((*lead, *p.shape[1:])) for p in parts), gain


def _elementwise_step(a: Array, lines: Lines) -> tuple[tuple[Array], Array | None, Array]:
    """Positive coefficients take the lower line, negative ones the upper line."""
    xp = namespace(a)
    negative = negative_part(a)
    part = xp.where(a < 0, lines.upper_slope, lines.lower_slope) * a
    gain = dot(negative, lines.upper_intercept)
    loss = -dot(negative, xp.abs(lines.upper_intercept))
    if lines.lower_intercept is not None:
        positive = a - negative
        gain = gain + dot(positive, lines.lower_intercept)
        loss = loss + dot(positive, xp.abs(lines.lower_intercept))
    return (part,), gain, loss * dot_error(a, prod(a.shape[2:]))


def rounding_cost(network: Network, boxes: Sequence[Box], k: int) -> Array:
    """A vector `e` `(B, *shape)`: rows `a` on value `k` lose at most `|a| . e` to rounding there.

    It covers the step through the value's op, additions of coefficients from several consumers, and the
    rounded product with a line's slope before it. `boxes` holds those of `k` and of its operands.
    """
    magnitude = boxes[k].magnitude
    unit = unit_roundoff(magnitude)
    cost = magnitude * ((network.consumers[k] + 3) * unit)
    node = network.nodes[k]
    if isinstance(node.op, AffineOp):
        relative, offset_error, slack = node.op.error_factors(magnitude)
        if node.op.terms != (0, 0):
            cost = cost + relative * node.op.magnitude(*(boxes[i].magnitude for i in node.inputs))
        if node.op.offset is not None:
            size = abs(node.op.offset)
            cost = cost + size * (2 * dot_error(magnitude, prod(node.shape)) + unit) + offset_error
        cost = cost + slack
    return cost * SUM_INFLATION
