"""Lines of elementwise nodes over the boxes of a frame, and how multipliers move them.

Piecewise linear ops have lines that cost nothing to move. Those of smooth ops need searches and library
functions, so a fan of them is made once for all rows and steps: a multiplier mixes two neighbours of the fan.
Any mix of valid lines is valid, and its gradient in the multiplier is their difference.
"""

from math import prod

from lpverify.bounds.frame import CentredLines, Fan, Frame, centre_lines, radius
from lpverify.interval import (
    SUM_INFLATION,
    Array,
    Box,
    namespace,
    positive_part,
    tiny,
    unit_roundoff,
)
from lpverify.ops.base import ElementwiseOp, Lines
from lpverify.ops.smooth import SmoothOp
from lpverify.ops.steps import StepOp


def row_lines(frame: Frame, k: int, alpha: Array | None) -> Lines:
    """Lines of elementwise node `k` with a row axis: arrays `(B, 1 or R, *shape)`."""
    op = frame.network.nodes[k].op
    assert isinstance(op, ElementwiseOp)
    lines = op.relax(_row_box(frame, k), alpha)
    return _level(frame, k, lines) if isinstance(op, StepOp) else lines


def moved_lines(frame: Frame, k: int, alpha: Array) -> CentredLines:
    """Lines of elementwise node `k` under multipliers `(B, R, *shape)`."""
    fan = _fan(frame, k)
    if fan is None:
        return centre_lines(frame, k, row_lines(frame, k, alpha))
    place, share = _place(fan, alpha)
    lines = fan.lines
    starts = (lines.lower_slope, lines.upper_slope, lines.lower_gain, lines.upper_gain)
    low, high, low_gain, high_gain = (
        _pick(start, place) + share * _pick(rise, place)
        for start, rise in zip(starts, fan.rises, strict=True)
    )
    return CentredLines(low, high, low_gain, high_gain, lines.cost)


def move_gradient(frame: Frame, k: int, alpha: Array, coefficients: Array, x: Array) -> Array:
    """How much a row gains when a multiplier of node `k` grows; a proposal only.

    Args:
        frame: Of the batch.
        k: The node.
        alpha: Its multipliers `(B, R, *shape)`.
        coefficients: Of the rows on its result, `(B, R, *shape)`.
        x: Its operand where the bound is attained, `(B, R, *shape)`.
    """
    op, fan = frame.network.nodes[k].op, _fan(frame, k)
    assert isinstance(op, ElementwiseOp)
    if fan is None:
        return positive_part(coefficients) * op.alpha_gradient(_row_box(frame, k), alpha, x)
    place, _ = _place(fan, alpha)
    place = place + (coefficients < 0) * prod(fan.turns[0].shape[1:])
    slope, gain = (_pick(turn, place) for turn in fan.turns)
    centre = frame.cast(frame.centres[frame.network.nodes[k].inputs[0]])[:, None]
    return coefficients * (slope * (x - centre) + gain)


def _row_box(frame: Frame, k: int) -> Box:
    box = frame.coefficient_box(frame.network.nodes[k].inputs[0])
    return Box(box.lower[:, None], box.upper[:, None])


def _fan(frame: Frame, k: int) -> Fan | None:
    """The fan of a smooth node, made when it is first asked for."""
    if k in frame.fans:
        return frame.fans[k]
    op = frame.network.nodes[k].op
    if not isinstance(op, SmoothOp):
        return None
    frame.fans[k] = _made(frame, k, centre_lines(frame, k, op.fan(_row_box(frame, k))))
    return frame.fans[k]


def _made(frame: Frame, k: int, lines: CentredLines) -> Fan:
    """The fan of some lines; a mix `y + t (z - y)` is off by at most five rounding errors of its ends."""
    xp = namespace(frame.like)
    parts = (lines.lower_slope, lines.upper_slope, lines.lower_gain, lines.upper_gain)
    low, high, low_gain, high_gain = (_rise(part) for part in parts)
    slope, gain = (
        xp.max(xp.maximum(xp.abs(a), xp.abs(b)), axis=1, keepdims=True) for a, b in (parts[:2], parts[2:])
    )
    reach = frame.cast_up(radius(frame, frame.network.nodes[k].inputs[0]))[:, None]
    cost = lines.cost + (slope * reach + gain) * (8 * unit_roundoff(frame.like))
    first, second, third, fourth = (part[:, :-1] for part in parts)
    starts = CentredLines(first, second, third, fourth, cost * SUM_INFLATION + tiny(frame.like))
    below, above = _turns(low, low_gain), _turns(high, high_gain)
    turns = xp.stack([below[0], above[0]]), xp.stack([below[1], above[1]])
    return Fan(starts, (low, high, low_gain, high_gain), turns)


def _rise(part: Array) -> Array:
    """From each line to the next; nothing where lines are unbounded."""
    xp = namespace(part)
    rise = part[:, 1:] - part[:, :-1]
    return xp.where(xp.isfinite(rise), rise, xp.zeros_like(rise))


def _turns(slope: Array, gain: Array) -> tuple[Array, Array]:
    """Growth of slope and gain with the multiplier; where lines coincide that of the nearest further inside.

    So a multiplier that has strayed to where it changes nothing is led back when that pays.
    """
    xp = namespace(slope)
    count = slope.shape[1]
    half = count // 2
    slope, gain = xp.asarray(slope * count, copy=True), xp.asarray(gain * count, copy=True)
    inner = [(half, half - 1), (half - 1, half)]
    inner += [(j, j - 1) for j in range(half + 1, count)] + [(j, j + 1) for j in range(half - 2, -1, -1)]
    for j, i in inner:
        flat = (slope[:, j] == 0) & (gain[:, j] == 0)
        slope[:, j] = xp.where(flat, slope[:, i], slope[:, j])
        gain[:, j] = xp.where(flat, gain[:, i], gain[:, j])
    return slope, gain


def _place(fan: Fan, alpha: Array) -> tuple[Array, Array]:
    """For each multiplier the flat position of the line before it, and its share of the next one."""
    xp = namespace(alpha)
    count, size = fan.rises[0].shape[1], prod(fan.rises[0].shape[2:])
    position = alpha * count
    before = xp.clip(xp.astype(position, xp.int64), 0, count - 1)
    share = xp.clip(position - xp.astype(before, alpha.dtype), 0.0, 1.0)
    regions = xp.arange(alpha.shape[0], device=alpha.device).reshape((-1, *(1,) * (alpha.ndim - 1)))
    elements = xp.arange(size, device=alpha.device).reshape(alpha.shape[2:])
    return (regions * count + before) * size + elements, share


def _pick(table: Array, place: Array) -> Array:
    """Entries of a table by flat position."""
    xp = namespace(table)
    return xp.take(table.reshape(-1), place.reshape(-1), axis=0).reshape(place.shape)


def _level(frame: Frame, k: int, lines: Lines) -> Lines:
    """Constants where a split has settled a step: lines over the operand's closed box still see the jump."""
    xp, box = namespace(frame.like), frame.coefficient_box(k)
    settled = (frame.boxes[k].lower == frame.boxes[k].upper)[:, None]
    zero = xp.zeros_like(lines.lower_slope)
    return Lines(
        xp.where(settled, zero, lines.lower_slope),
        xp.where(settled, box.lower[:, None], lines.lower_intercept),
        xp.where(settled, zero, lines.upper_slope),
        xp.where(settled, box.upper[:, None], lines.upper_intercept),
    )


def open_elements(frame: Frame, k: int) -> Array:
    """Mask `(B, *shape)` of the elements of elementwise node `k` that are not linear on their boxes."""
    op = frame.network.nodes[k].op
    assert isinstance(op, ElementwiseOp)
    mask = op.unstable(frame.boxes[frame.network.nodes[k].inputs[0]])
    if isinstance(op, StepOp):
        mask = mask & (frame.boxes[k].lower < frame.boxes[k].upper)
    return mask
