"""The forward pass: every value as one affine function of the inputs plus a remainder.

Accepts: any network, a region with few free inputs: the pass costs one evaluation for each of them, where
backward bounds cost one for each unstable neuron.
Returns: for each value `z = c_z + offset + G d + e` on the region, d being how far the inputs are from their
centre, `|e| <= error` elementwise; with it boxes of all values.
Method: zonotopes with a shared remainder (DeepZ, Singh et al. 2018, section 4, with the new noise symbols
of each neuron summed into an interval); forward mode of LiRPA (Xu et al. 2020, arXiv:2002.12920, section 3).
Guarantee: rounding is part of the remainder.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from lpverify.bounds.frame import CentredLines, Frame, affine_error, centre_lines, radius, repeat_each
from lpverify.interval import (
    DOUBLE,
    Array,
    Box,
    gamma,
    inflate,
    intersect,
    namespace,
    round_up,
    smallest,
    tiny,
    to_double,
    unit_roundoff,
)
from lpverify.ops.base import AffineOp, BilinearOp, ElementwiseOp, Lines
from lpverify.ops.piecewise import Relu

NEGLIGIBLE = 2.0**-20  # inputs with less than this share of the widest radius join the remainder


@dataclass(frozen=True)
class Form:
    """One value as an affine function of the chosen inputs.

    Attributes:
        slopes: `(B, m + 1, *shape)`: for each chosen input, and last the offset from the reference.
        error: `(B, *shape)`: radius of the remainder.
        reach: `(B, *shape)`: sum of the slopes' sizes times the inputs' radii, plus the offset's size.
    """

    slopes: Array
    error: Array
    reach: Array

    @cached_property
    def flat(self) -> bool:
        """Whether it says no more than a box."""
        return not bool((self.slopes != 0).any())


@dataclass(frozen=True)
class Forward:
    """The inputs that forms speak of.

    Attributes:
        radii: Their radii in each region, `(B, m)`.
    """

    radii: Array

    def padded(self, error: Array) -> Array:
        """A computed sum of a few non-negative terms as an upper bound, underflow in the slopes covered."""
        xp = namespace(error)
        lost = xp.sum(self.radii, axis=1) * (2.0**20 * smallest(error))
        lost = lost.reshape((-1, *(1,) * (error.ndim - 1)))
        return error * (1 + 16 * unit_roundoff(error)) + 2 * lost + tiny(error)

    def form(self, slopes: Array, error: Array) -> Form:
        """A form; its reach is computed."""
        xp = namespace(slopes)
        radii = self.radii.reshape((*self.radii.shape, *(1,) * (slopes.ndim - 2)))
        sizes = xp.abs(slopes)
        reach = xp.sum(sizes[:, :-1] * radii, axis=1) + sizes[:, -1]
        return Form(slopes, error, reach * inflate(slopes.shape[1], unit_roundoff(slopes)) + tiny(slopes))


def start(frame: Frame) -> tuple[Forward, Form]:
    """The input in terms of itself."""
    xp = namespace(frame.like)
    radii = frame.cast_up(radius(frame, 0))
    wide = xp.max(radii, axis=0)
    columns = xp.nonzero(wide > NEGLIGIBLE * xp.max(wide))[0]
    chosen = xp.astype(columns[:, None] == xp.arange(wide.shape[0], device=wide.device), radii.dtype)
    slopes = xp.concat([chosen, xp.zeros_like(radii[:1])], axis=0)
    slopes = xp.broadcast_to(slopes[None], (radii.shape[0], *slopes.shape))
    forward = Forward(radii[:, columns])
    return forward, forward.form(slopes, radii * (1 - xp.sum(chosen, axis=0)))


def form_of(frame: Frame, k: int, forward: Forward, operands: Sequence[Form]) -> Form:
    """The form of value `k`; its box must be known, and its lines if it is elementwise."""
    op = frame.network.nodes[k].op
    if all(f.flat for f in operands):
        slopes, error = _constant(frame, k, forward)
    elif isinstance(op, AffineOp):
        slopes, error = _affine(frame, k, op, operands)
    elif isinstance(op, ElementwiseOp):
        slopes, error = _elementwise(frame, k, operands[0])
    elif isinstance(op, BilinearOp):
        slopes, error = _bilinear(frame, k, op, operands)
    else:
        slopes, error = _constant(frame, k, forward)
    return _bounded(frame, k, forward.form(slopes, forward.padded(error)))


def tighten(frame: Frame, k: int, form: Form) -> Array:
    """Intersects the box of a value with that of its form; returns which regions are empty."""
    centre, offset = frame.centres[k], to_double(form.slopes[:, -1])
    spread = to_double(form.reach) - abs(offset) + to_double(form.error)
    size = abs(centre) + abs(offset) + to_double(form.reach) + spread
    spread = spread + size * (8 * DOUBLE) + tiny(centre)
    frame.boxes[k], empty = intersect(frame.boxes[k], centre + offset - spread, centre + offset + spread)
    return empty


def _affine(frame: Frame, k: int, op: AffineOp, operands: Sequence[Form]) -> tuple[Array, Array]:
    """Slopes go through the linear part, remainders through its absolute values."""
    count = frame.empty.shape[0]
    flat = (f.slopes.reshape((-1, *f.slopes.shape[2:])) for f in operands)
    slopes = op.linear(*flat)
    slopes = slopes.reshape((count, -1, *slopes.shape[1:]))
    relative = op.error_factors(frame.like)[0]
    error = op.magnitude(*(f.error * (1 + relative) + (relative * 1.01) * f.reach for f in operands))
    return slopes, error + affine_error(frame, k)


def _elementwise(frame: Frame, k: int, operand: Form) -> tuple[Array, Array]:
    """A band of two parallel lines around the function on the box; its middle line goes on."""
    xp = namespace(frame.like)
    best: tuple[Array, Array, Array] | None = None
    for slope, lines in _bands(frame, k):
        low, high = _band(frame, k, slope, lines)
        if best is None:
            best = slope, low, high
        else:
            better = high - low < best[2] - best[1]
            new = (slope, low, high)
            best = tuple(xp.where(better, n, b) for n, b in zip(new, best, strict=True))
    assert best is not None
    slope, low, high = best
    unit = unit_roundoff(slope)
    slopes = operand.slopes * slope[:, None]
    middle = 0.5 * low + 0.5 * high
    slopes = xp.concat([slopes[:, :-1], (slopes[:, -1] + middle)[:, None]], axis=1)
    band = xp.maximum(high - middle, middle - low)
    error = xp.abs(slope) * (operand.error + (4 * unit) * operand.reach) + band + (4 * unit) * xp.abs(middle)
    return slopes, error


def _bands(frame: Frame, k: int) -> list[tuple[Array, CentredLines]]:
    """Slopes to try, with lines around the function."""
    op, lines = frame.network.nodes[k].op, frame.lines[k]
    if isinstance(op, Relu):  # the lower line may be parallel to the chord
        chord = lines.upper_slope
        parallel = Lines(chord, None, chord, _relu_top(frame, k))
        return [(chord[:, 0], centre_lines(frame, k, parallel))]
    middle = 0.5 * lines.lower_slope + 0.5 * lines.upper_slope
    return [(s[:, 0], lines) for s in (lines.upper_slope, lines.lower_slope, middle)]


def _relu_top(frame: Frame, k: int) -> Array:
    """The chord's intercept."""
    op = frame.network.nodes[k].op
    assert isinstance(op, Relu)
    box = frame.coefficient_box(frame.network.nodes[k].inputs[0])
    return op.relax(Box(box.lower[:, None], box.upper[:, None]), None).upper_intercept


def _band(frame: Frame, k: int, slope: Array, lines: CentredLines) -> tuple[Array, Array]:
    """`low <= f(z) - c_f - slope (z - c_z) <= high` on the operand's box."""
    xp = namespace(slope)
    i = frame.network.nodes[k].inputs[0]
    box, centre = frame.boxes[i], frame.centres[i]
    start, end = -frame.cast_up(round_up(centre - box.lower)), frame.cast_up(round_up(box.upper - centre))
    below, above = lines.lower_slope[:, 0] - slope, lines.upper_slope[:, 0] - slope
    low = xp.minimum(below * start, below * end)
    high = xp.maximum(above * start, above * end)
    size = xp.maximum(xp.abs(start), xp.abs(end)) * xp.maximum(xp.abs(below), xp.abs(above))
    size = size + xp.maximum(xp.abs(lines.lower_gain[:, 0]), xp.abs(lines.upper_gain[:, 0]))
    pad = (8 * unit_roundoff(slope)) * size + lines.cost[:, 0] + tiny(slope)
    return low + lines.lower_gain[:, 0] - pad, high + lines.upper_gain[:, 0] + pad


def _bilinear(frame: Frame, k: int, op: BilinearOp, operands: Sequence[Form]) -> tuple[Array, Array]:
    """`x y = c_x c_y + c_x dy + c_y dx + dx dy`; the last product is remainder."""
    first, second = operands
    i, j = frame.network.nodes[k].inputs
    count, columns = first.slopes.shape[:2]
    centres = [frame.cast(frame.centres[n]) for n in (i, j)]
    at = [repeat_each(c, columns) for c in centres]
    flat = [f.slopes.reshape((-1, *f.slopes.shape[2:])) for f in operands]
    slopes = op.forward(at[0], flat[1]) + op.forward(flat[0], at[1])
    slopes = slopes.reshape((count, columns, *slopes.shape[1:]))
    sizes = [abs(c) for c in centres]
    relative = gamma(op.terms + 6, unit_roundoff(slopes)) * 1.01
    radii = [frame.cast_up(radius(frame, n)) for n in (i, j)]
    error = op.magnitude(sizes[0], second.error + relative * second.reach)
    error = error + op.magnitude(first.error + relative * first.reach, sizes[1])
    error = error + op.magnitude(sizes[0], sizes[1]) * gamma(op.terms + 6, DOUBLE)
    return slopes, error + op.magnitude(radii[0], radii[1])


def _constant(frame: Frame, k: int, forward: Forward) -> tuple[Array, Array]:
    """The box alone."""
    xp = namespace(frame.like)
    error = frame.cast_up(radius(frame, k))
    shape = (error.shape[0], forward.radii.shape[1] + 1, *error.shape[1:])
    return xp.zeros(shape, dtype=error.dtype, device=error.device), error


def _bounded(frame: Frame, k: int, form: Form) -> Form:
    """The box instead of the form where that is undefined, or its remainder alone wider than the box."""
    xp = namespace(form.error)
    plain = frame.cast_up(radius(frame, k))
    good = xp.isfinite(form.error) & xp.isfinite(form.reach) & (form.error <= plain)
    zero = xp.zeros_like(form.slopes)
    slopes = xp.where(good[:, None], form.slopes, zero)
    return Form(
        slopes, xp.where(good, form.error, plain), xp.where(good, form.reach, xp.zeros_like(form.reach))
    )
