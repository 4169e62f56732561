"""Optimised multipliers: alpha mixes of lower lines and beta multipliers of splits.

Accepts: networks of affine and elementwise nodes, fixed boxes of all values.
Method: projected supergradient ascent (Adam) on the backward bound, as alpha-CROWN (Xu et al. 2021,
arXiv:2011.13824, section 3) and beta-CROWN (Wang et al. 2021, arXiv:2103.06624, section 3.3), but with
the gradient in closed form: at the input that minimises the linear bound, follow the chosen lines
forward; then d bound / d alpha = max(a, 0) z and d bound / d beta = - s z (Danskin's theorem).
Guarantee: any alpha in [0, 1] and beta >= 0 gives a sound bound, so every iterate does; the best is kept.
"""

from collections.abc import Callable, Mapping, Sequence
from math import prod

from lpverify.bounds.adam import Adam
from lpverify.bounds.frame import CentredLines, Frame
from lpverify.bounds.linear import LinearBound, Sides, Trace, backward, centre_value
from lpverify.bounds.lines import move_gradient, moved_lines, row_lines
from lpverify.bounds.relu_ascent import ReluAscent, applies
from lpverify.interval import Array, namespace
from lpverify.multipliers import Multipliers, Schedule
from lpverify.network import repeat
from lpverify.ops.base import ElementwiseOp
from lpverify.ops.smooth import FAN, SmoothOp

SMOOTH_RATE, SMOOTH_DECAY = 0.07, 0.97  # of ascents for boxes


def bound_rows(
    frame: Frame,
    rows: Array,
    multipliers: Multipliers | None = None,
    splits: Mapping[int, Sides] | None = None,
    trace: Trace | None = None,
    start: int | None = None,
) -> LinearBound:
    """The backward bound of rows of a value under given multipliers.

    Args:
        frame: Bounds of all values up to that one.
        rows: `(B, R, *shape of the value)`.
        multipliers: None: adaptive slopes and no split terms.
        splits: For split values the side that each element is on.
        trace: Filled if given.
        start: The value; default: the network's output.
    """
    return _bound(frame, rows, _lines(frame, multipliers), multipliers, splits, trace, start)


def _bound(
    frame: Frame,
    rows: Array,
    lines: Mapping[int, CentredLines],
    multipliers: Multipliers | None,
    splits: Mapping[int, Sides] | None,
    trace: Trace | None,
    start: int | None,
) -> LinearBound:
    """As `bound_rows` with lines that are known."""
    beta = None
    if multipliers is not None and splits:
        known = ((k, splits[k], v) for k, v in multipliers.beta.items() if k in splits)
        beta = {k: Sides(-v * sides.sign[:, None], sides.point) for k, sides, v in known}
    value = frame.network.output if start is None else start
    return backward(frame, value, rows, centre_value(rows, frame.centres[value]), beta, lines, trace)


def _lines(frame: Frame, multipliers: Multipliers | None) -> Mapping[int, CentredLines]:
    if multipliers is None or not multipliers.alpha:
        return frame.lines
    lines = dict(frame.lines)
    for k, alpha in multipliers.alpha.items():
        lines[k] = moved_lines(frame, k, alpha)
    return lines


def footprint(frame: Frame, rows: int) -> float:
    """Bytes that `optimise` takes, about: multipliers twice, gradients, moments, coefficients, fans."""
    nodes = frame.network.nodes
    neurons = sum(prod(nodes[k].shape) for k in frame.network.activations)
    values = sum(prod(node.shape) for node in nodes)
    fans = 12.0 * FAN * sum(prod(n.shape) for n in nodes if isinstance(n.op, SmoothOp))
    each = rows * (8.0 * neurons + 2.0 * values) + fans
    return float(frame.empty.shape[0]) * each * frame.like.dtype.itemsize


Best = tuple[LinearBound, Array, Multipliers, Trace]


def optimise(
    frame: Frame,
    rows: Array,
    splits: Mapping[int, Sides],
    start: Multipliers,
    schedule: Schedule,
    done: Callable[[Array], bool],
    value: int | None = None,
) -> Best:
    """Ascends from `start`.

    Args:
        frame: Bounds of all values up to the one that is bounded.
        rows: `(B, R, *shape of that value)`.
        splits: As for `bound_rows`.
        start: First multipliers.
        schedule: Steps and rates.
        done: Asked with the best lower bounds `(B, R)` after each step; True stops.
        value: The value that is bounded; default: the network's output.

    Returns:
        The best linear bounds row by row, their values `(B, R)`, their multipliers, and the last trace.
    """
    value = frame.network.output if value is None else value
    if frame.ball is None and applies(frame.network, value):
        found = _relu_ascent(frame, rows, value, splits).climb(start, schedule, done).multipliers
        trace = Trace()
        linear = bound_rows(frame, rows, found, splits, trace, value)
        return linear, linear.concretize(frame.boxes[0]), found, trace
    xp = namespace(rows)
    alpha, beta = dict(start.alpha), dict(start.beta)
    adam = Adam()
    best: Best | None = None
    for step in range(schedule.steps + 1):
        now, trace = Multipliers(dict(alpha), dict(beta)), Trace()
        lines = _lines(frame, now)
        linear = _bound(frame, rows, lines, now, splits, trace, value)
        new = (linear, linear.concretize(frame.boxes[0], frame.ball), now, trace)
        best = new if best is None else _better(best, new, xp)
        if step == schedule.steps or done(best[1]):
            break
        gradients = _gradients(frame, linear, lines, now, trace, splits)
        rate = schedule.decay**step
        for kind, values, speed in (
            ("alpha", alpha, schedule.alpha_rate),
            ("beta", beta, schedule.beta_rate),
        ):
            for k in values:
                move = adam.direction((kind, k), gradients[kind, k], step + 1)
                values[k] = xp.clip(values[k] + (rate * speed) * move, 0.0, 1.0 if kind == "alpha" else None)
    assert best is not None
    return best


def _relu_ascent(frame: Frame, rows: Array, value: int, splits: Mapping[int, Sides]) -> ReluAscent:
    """The relaxed problem of some rows over a frame's boxes."""
    operands = (frame.network.nodes[k].inputs[0] for k in frame.lines)
    boxes = {i: frame.coefficient_box(i) for i in operands}
    return ReluAscent(frame.network, rows, value, frame.coefficient_box(0), boxes, splits)


def _better(old: Best, new: Best, xp: object) -> Best:
    """Rowwise the better of two results; the trace is that of the newer one."""
    gain = new[1] > old[1]

    def pick(b: Array, a: Array) -> Array:
        mask = gain.reshape((*gain.shape, *(1,) * (b.ndim - 2)))
        return xp.where(mask, b, a)  # type: ignore[attr-defined]

    linear = LinearBound(pick(new[0].a, old[0].a), pick(new[0].constant, old[0].constant), new[0].centre)
    alpha = {k: pick(v, old[2].alpha[k]) for k, v in new[2].alpha.items()}
    beta = {k: pick(v, old[2].beta[k]) for k, v in new[2].beta.items()}
    return linear, pick(new[1], old[1]), Multipliers(alpha, beta), new[3]


def _gradients(
    frame: Frame,
    linear: LinearBound,
    lines: Mapping[int, CentredLines],
    multipliers: Multipliers,
    trace: Trace,
    splits: Mapping[int, Sides],
) -> dict[tuple[str, int], Array]:
    """Supergradients of the bounds in every multiplier, `(B, R, *shape)`."""
    xp = namespace(linear.a)
    network = frame.network
    points = relaxed_primal(frame, linear, lines, trace)
    gradients: dict[tuple[str, int], Array] = {}
    for k, alpha in multipliers.alpha.items():
        coefficients = trace.coefficients.get(k)
        if coefficients is None:
            gradients["alpha", k] = xp.zeros_like(alpha)
            continue
        gradients["alpha", k] = move_gradient(
            frame, k, alpha, coefficients, points[network.nodes[k].inputs[0]]
        )
    for k in multipliers.beta:
        sides = splits[k]
        beyond = points[k] if sides.point is None else points[k] - frame.cast(sides.point)[:, None]
        gradients["beta", k] = -beyond * sides.sign[:, None]
    return gradients


def relaxed_primal(
    frame: Frame, linear: LinearBound, lines: Mapping[int, CentredLines], trace: Trace
) -> Sequence[Array]:
    """All values `(B, R, *shape)` at the bound's minimiser, elementwise ones on the line the bound uses."""
    xp = namespace(linear.a)
    lead = linear.a.shape[:2]
    total = lead[0] * lead[1]
    values = [linear.minimizer(frame.coefficient_box(0))]
    for k, node in enumerate(frame.network.nodes[1 : len(frame.boxes)], start=1):
        operands = [values[i] for i in node.inputs]
        if isinstance(node.op, ElementwiseOp) and k in trace.coefficients:
            line = lines[k]
            at, value = (
                frame.cast(frame.centres[node.inputs[0]])[:, None],
                frame.cast(frame.centres[k])[:, None],
            )
            low, deviation = trace.coefficients[k] >= 0, operands[0] - at
            slope = xp.where(low, line.lower_slope, line.upper_slope)
            values.append(value + slope * deviation + xp.where(low, line.lower_gain, line.upper_gain))
            continue
        assert node.op is not None
        flat = node.op.forward(*(v.reshape((total, *v.shape[2:])) for v in operands))
        values.append(repeat(flat, total).reshape((*lead, *node.shape)))
    return values


def initial(
    frame: Frame, rows: int, splits: Mapping[int, Sides], warm: Multipliers | None = None
) -> Multipliers:
    """Starting multipliers: adaptive slopes and zero beta, or those of a parent where it had any."""
    xp = namespace(frame.like)
    alpha, beta = {}, {}
    for k in frame.lines:
        if warm is not None and k in warm.alpha:
            alpha[k] = warm.alpha[k]
            continue
        op = frame.network.nodes[k].op
        assert isinstance(op, ElementwiseOp)
        first = op.first_alpha(row_lines(frame, k, None))
        alpha[k] = xp.broadcast_to(first, (first.shape[0], rows, *first.shape[2:]))
    for k, sides in splits.items():
        sign = sides.sign
        if warm is not None and k in warm.beta:
            beta[k] = warm.beta[k]
            continue
        beta[k] = xp.zeros((sign.shape[0], rows, *sign.shape[1:]), dtype=sign.dtype, device=sign.device)
    return Multipliers(alpha, beta)


def ascend(frame: Frame, rows: Array, value: int, steps: int) -> Array:
    """Lower bounds `(B, R)`, float64, of rows of a value after some steps of ascent in alpha.

    Smooth nodes take shorter steps: unlike ReLUs' their best lines are seldom at an end of the range.
    """
    start = initial(frame, rows.shape[1], {})
    smooth = any(isinstance(frame.network.nodes[k].op, SmoothOp) for k in start.alpha)
    schedule = Schedule(steps, SMOOTH_RATE, decay=SMOOTH_DECAY) if smooth else Schedule(steps)
    return optimise(frame, rows, {}, start, schedule, lambda lower: False, value)[1]
