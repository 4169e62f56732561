"""Optimised multipliers: alpha mixes of lower lines and beta multipliers of splits.

Accepts: networks of affine and elementwise nodes, fixed boxes of all values.
Method: projected supergradient ascent (Adam) on the backward bound, as alpha-CROWN (Xu et al. 2021,
arXiv:2011.13824, section 3) and beta-CROWN (Wang et al. 2021, arXiv:2103.06624, section 3.3), but with
the gradient in closed form: at the input that minimises the linear bound, follow the chosen lines
forward; then d bound / d alpha = max(a, 0) z and d bound / d beta = - s z (Danskin's theorem).
Guarantee: any alpha in [0, 1] and beta >= 0 gives a sound bound, so every iterate does; the best is kept.
"""

from collections.abc import Callable, Mapping, Sequence

from lpverify.bounds.linear import LinearBound, Trace, backward
from lpverify.bounds.propagate import Bounds, row_lines
from lpverify.interval import Array, namespace
from lpverify.multipliers import Multipliers, Schedule
from lpverify.network import Network, repeat
from lpverify.ops.base import AffineOp, ElementwiseOp, Lines


def bound_rows(
    network: Network,
    rows: Array,
    bounds: Bounds,
    multipliers: Multipliers | None = None,
    signs: Mapping[int, Array] | None = None,
    trace: Trace | None = None,
) -> LinearBound:
    """The backward bound of rows of the network's output under given multipliers.

    Args:
        rows: `(B, R, *output shape)`.
        signs: For split values `(B, *shape)`: +1 for `z >= 0`, -1 for `z <= 0`, 0 for no split.
    """
    lines, beta = _lines(network, bounds, multipliers), None
    if multipliers is not None and signs:
        beta = {k: -multipliers.beta[k] * signs[k][:, None] for k in multipliers.beta if k in signs}
    return backward(network, network.output, rows, bounds.costs, lines, beta, trace)


def _lines(network: Network, bounds: Bounds, multipliers: Multipliers | None) -> Mapping[int, Lines]:
    if multipliers is None or not multipliers.alpha:
        return bounds.lines
    lines = dict(bounds.lines)
    for k, alpha in multipliers.alpha.items():
        op = network.nodes[k].op
        assert isinstance(op, ElementwiseOp)
        lines[k] = row_lines(op, bounds.boxes[network.nodes[k].inputs[0]], alpha)
    return lines


def optimise(
    network: Network,
    rows: Array,
    bounds: Bounds,
    signs: Mapping[int, Array],
    start: Multipliers,
    schedule: Schedule,
    done: Callable[[Array], bool],
) -> tuple[LinearBound, Array, Multipliers, Trace]:
    """Ascends from `start`; returns the best linear bounds, their values `(B, R)`, multipliers, a trace.

    Args:
        done: Asked with the best lower bounds `(B, R)` after each step; True stops.
    """
    xp = namespace(rows)
    alpha, beta = dict(start.alpha), dict(start.beta)
    moments: dict[tuple[str, int], tuple[Array, Array]] = {}
    best: tuple[LinearBound, Array, Multipliers, Trace] | None = None
    for step in range(schedule.steps + 1):
        now, trace = Multipliers(alpha, beta), Trace()
        linear = bound_rows(network, rows, bounds, now, signs, trace)
        lower = linear.concretize(bounds.boxes[0])
        best = (linear, lower, now, trace) if best is None else _better(best, (linear, lower, now, trace), xp)
        if step == schedule.steps or done(best[1]):
            break
        gradients = _gradients(network, bounds, linear, now, trace, signs)
        rate = schedule.decay**step
        for kind, values, speed in (
            ("alpha", alpha, schedule.alpha_rate),
            ("beta", beta, schedule.beta_rate),
        ):
            for k in values:
                move = _adam(moments, (kind, k), gradients[kind, k], step + 1, xp)
                moved = values[k] + (rate * speed) * move
                values[k] = xp.clip(moved, 0.0, 1.0 if kind == "alpha" else None)
    assert best is not None
    return best


def _better(
    old: tuple[LinearBound, Array, Multipliers, Trace],
    new: tuple[LinearBound, Array, Multipliers, Trace],
    xp: object,
) -> tuple[LinearBound, Array, Multipliers, Trace]:
    """Rowwise the better of two results; the trace is that of the newer one."""
    gain = new[1] > old[1]

    def pick(b: Array, a: Array) -> Array:
        mask = gain.reshape((*gain.shape, *(1,) * (b.ndim - 2)))
        return xp.where(mask, b, a)  # type: ignore[attr-defined]

    linear = LinearBound(pick(new[0].a, old[0].a), pick(new[0].constant, old[0].constant))
    alpha = {k: pick(v, old[2].alpha[k]) for k, v in new[2].alpha.items()}
    beta = {k: pick(v, old[2].beta[k]) for k, v in new[2].beta.items()}
    return linear, pick(new[1], old[1]), Multipliers(alpha, beta), new[3]


def _adam(
    moments: dict[tuple[str, int], tuple[Array, Array]],
    key: tuple[str, int],
    gradient: Array,
    step: int,
    xp: object,
) -> Array:
    """Adam's direction (Kingma and Ba 2015, algorithm 1)."""
    first, second = moments.get(key, (0.0, 0.0))
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * gradient * gradient
    moments[key] = (first, second)
    scale = xp.sqrt(second / (1 - 0.999**step)) + 1e-12  # type: ignore[attr-defined]
    return first / (1 - 0.9**step) / scale


def _gradients(
    network: Network,
    bounds: Bounds,
    linear: LinearBound,
    multipliers: Multipliers,
    trace: Trace,
    signs: Mapping[int, Array],
) -> dict[tuple[str, int], Array]:
    """Supergradients of the bounds in every multiplier, `(B, R, *shape)`."""
    xp = namespace(linear.a)
    points = relaxed_primal(network, bounds, linear, _lines(network, bounds, multipliers), trace)
    gradients: dict[tuple[str, int], Array] = {}
    for k in multipliers.alpha:
        operand = network.nodes[k].inputs[0]
        op = network.nodes[k].op
        assert isinstance(op, ElementwiseOp)
        free = op.unstable(bounds.boxes[operand])[:, None]
        gradients["alpha", k] = xp.clip(trace.coefficients[k], 0.0, None) * points[operand] * free
    for k in multipliers.beta:
        gradients["beta", k] = -points[k] * signs[k][:, None]
    return gradients


def relaxed_primal(
    network: Network, bounds: Bounds, linear: LinearBound, lines: Mapping[int, Lines], trace: Trace
) -> Sequence[Array]:
    """All values `(B, R, *shape)` at the bound's minimiser, nonlinear ones on the line the bound uses."""
    xp = namespace(linear.a)
    lead = linear.a.shape[:2]
    total = lead[0] * lead[1]
    values = [linear.minimizer(bounds.boxes[0])]
    for k, node in enumerate(network.nodes[1:], start=1):
        operands = [values[i] for i in node.inputs]
        if isinstance(node.op, AffineOp):
            flat = node.op.forward(*(v.reshape((total, *v.shape[2:])) for v in operands))
            values.append(repeat(flat, total).reshape((*lead, *node.shape)))
        elif k in trace.coefficients:
            line, z = lines[k], operands[0]
            lower = line.lower_slope * z
            lower = lower if line.lower_intercept is None else lower + line.lower_intercept
            upper = line.upper_slope * z + line.upper_intercept
            values.append(xp.where(trace.coefficients[k] < 0, upper, lower))
        else:
            assert isinstance(node.op, ElementwiseOp)
            values.append(node.op.forward(operands[0]))
    return values


def initial(
    network: Network,
    bounds: Bounds,
    rows: int,
    signs: Mapping[int, Array],
    warm: Multipliers | None = None,
) -> Multipliers:
    """Starting multipliers: adaptive slopes and zero beta, or those of a parent where it had any."""
    xp = namespace(bounds.boxes[0].lower)
    alpha, beta = {}, {}
    for k in network.activations:
        if warm is not None and k in warm.alpha:
            alpha[k] = warm.alpha[k]
            continue
        slope = bounds.lines[k].lower_slope
        alpha[k] = xp.clip(xp.broadcast_to(slope, (slope.shape[0], rows, *slope.shape[2:])), 0.0, 1.0)
    for k, sign in signs.items():
        if warm is not None and k in warm.beta:
            beta[k] = warm.beta[k]
            continue
        beta[k] = xp.zeros((sign.shape[0], rows, *sign.shape[1:]), dtype=sign.dtype, device=sign.device)
    return Multipliers(alpha, beta)
