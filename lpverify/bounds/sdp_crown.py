"""SDP-CROWN: lower bounds over Euclidean balls that see the neurons of a layer together.

Accepts: chains of affine ops, data movement and ReLU; a frame with a ball.
Method: Chiu, Chen, Zhang and Zhang, "SDP-CROWN" (ICML 2025, arXiv:2506.06665). Let a layer's operand z be
`m + d` with `|d| <= rho` and `low <= d <= high`. For rows c on `relu(z)`, any g and any `lambda > 0`,

    c . (relu(m + d) - relu(m))  >=  g . d + h,
    h = sum_i min { c_i (relu(m_i + d) - relu(m_i)) - g_i d + lambda d^2 / 2 : low_i <= d <= high_i }
        - lambda rho^2 / 2.

The paper has no box in the minimum. With it the bound is at least that of the ball alone and, for small
lambda, that of the box alone. g is the row for the layer below. At the input the same holds with `c = 0`.
The bound is concave in all g and lambda together; its gradients are in closed form (Danskin's theorem).
Guarantee: any g, lambda and any points d serve: `lambda d^2 / 2` is replaced by its tangent there,
which leaves linear functions on intervals. All rounding is covered.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import inf

import numpy as np

from lpverify.bounds.adam import Adam
from lpverify.bounds.alpha import bound_rows
from lpverify.bounds.ball import UP, Entry, Segment, Track, enter, euclidean, segments, to_numpy
from lpverify.bounds.frame import Frame, recentred, reference_error
from lpverify.bounds.linear import centre_value
from lpverify.errors import UnsupportedError
from lpverify.interval import (
    DOUBLE,
    SUM_INFLATION,
    Array,
    dot,
    gamma,
    namespace,
    round_down,
    round_up,
    smallest,
    to_double,
)
from lpverify.network import Network
from lpverify.ops.base import AffineOp
from lpverify.ops.piecewise import Relu

OCTAVES = 60  # lambda is sought so many octaves down from where the ball can't bind any more
HALVINGS = 14  # of those octaves
RATE, DECAY = 0.1, 0.93  # of the ascent in the slopes


@dataclass(frozen=True)
class _Piece:
    """A range of deviations d, `(B, 1, n)`, on which the function changes by `slope d + offset`.

    Attributes:
        exists: Mask of the elements that have this piece at all.
    """

    slope: float
    offset: Array
    low: Array
    high: Array
    exists: Array


@dataclass(frozen=True)
class _Reach:
    """How far an operand gets from its reference.

    Elements on one side of the kink are linear: g takes that side's slope; the ball is that of the others.

    Attributes:
        pieces: Above and below the kink; of the input, one.
        radius: Of the ball of the elements with both pieces, `(B, 1)`.
        both: Mask of those, `(B, 1, n)`.
        chord: Slopes `g / c` of CROWN for negative c, `(B, 1, n)`.
        step: The same for positive c.
    """

    pieces: Sequence[_Piece]
    radius: Array
    both: Array
    chord: Array
    step: Array


@dataclass(frozen=True)
class _Minimum:
    """`h` `(B, R)` up to an error; at which deviations `(B, R, n)`, and how the function changes there."""

    value: Array
    error: Array
    points: Array
    change: Array


@dataclass(frozen=True)
class _Chain:
    """What does not depend on rows.

    Attributes:
        frame: In float64, with the reference run from the point of the box nearest to the ball's centre.
        order: The values from the bounded one down to the input.
        reaches: By ReLU, of its operand; by 0, of the input.
    """

    frame: Frame
    order: Sequence[int]
    reaches: Mapping[int, _Reach]


@dataclass(frozen=True)
class _Pass:
    """One backward pass; all but the bounds by ReLU, 0 for the input.

    Attributes:
        lower: Certified bounds `(B, R)`.
        rows: The coefficients c `(B, R, n)`.
        slopes: `g / c`.
        weights: The lambdas `(B, R)`.
        minima: Of each layer.
    """

    lower: Array
    rows: dict[int, Array]
    slopes: dict[int, Array]
    weights: dict[int, Array]
    minima: dict[int, _Minimum]


@np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore")
def sdp_crown(
    frame: Frame,
    rows: Array,
    steps: int = 20,
    start: int | None = None,
    parts: Mapping[int, Segment] | None = None,
    local: bool = True,
) -> Array:
    """Lower bounds `(B, R)`, float64, of rows of a value; never below those of `bound_rows` over the ball.

    Args:
        frame: Bounds of all values up to that one; its ball may be of norm 1, too: it is in that of norm 2.
        rows: `(B, R, *shape of the value)`.
        steps: Of the ascent in g and lambda; 0: slopes of CROWN, one search for each lambda.
        start: The value; default: the network's output.
        parts: From `segments_of` the frame's reference network, where many frames share it.
        local: Radii from the slopes that ReLUs can have on each region: some matrix norms for each layer
            and region. Otherwise products of the layers' norms.

    Raises:
        UnsupportedError: The value is no chain of affine ops and ReLUs, or the frame has no ball.
    """
    if frame.ball is None:
        raise UnsupportedError("SDP-CROWN needs a ball")
    value = frame.network.output if start is None else start
    order = _order(frame.network, value)
    double = recentred(frame, order, frame.ball.nearest(frame.boxes[0]))
    parts = segments(frame.reference, order, double.like) if parts is None else parts
    chain = _Chain(double, order, _reaches(double, {k: p for k, p in parts.items() if k in order}, local))
    plain = bound_rows(frame, rows, start=value).concretize(frame.boxes[0], frame.ball)
    return namespace(plain).maximum(plain, _ascend(chain, to_double(rows), steps))


def segments_of(network: Network, like: Array) -> dict[int, Segment]:
    """What `sdp_crown` needs to know of a network with float64 weights; `like` says where they are.

    Raises:
        UnsupportedError: The output is no chain of known affine ops and ReLUs.
    """
    return segments(network, _order(network, network.output), like)


def _order(network: Network, value: int) -> Sequence[int]:
    """The values of the chain, from the given one down to the input."""
    order = [value]
    while order[-1] != 0:
        node = network.nodes[order[-1]]
        if len(node.inputs) != 1 or not isinstance(node.op, (AffineOp, Relu)):
            raise UnsupportedError(f"SDP-CROWN needs a chain of affine ops and ReLUs; {node.name} is none")
        order.append(node.inputs[0])
    return order


# How far values get.


def _reaches(frame: Frame, parts: Mapping[int, Segment], local: bool) -> dict[int, _Reach]:
    """Of the input and of the operands of the ReLUs that end the segments."""
    assert frame.ball is not None
    radius = to_numpy(frame.ball.radius)
    low, high = _ends(frame, 0, radius[:, None])
    radius = np.fmin(radius, euclidean(np.maximum(abs(low), abs(high))))
    whole = _Piece(1.0, np.zeros_like(low), low, high, low == low)
    reaches = {0: _reach(frame, [whole], radius, low, high)}
    tracks: list[Callable[[], Track | None]] = [lambda: None] * len(radius)
    for k, segment in parts.items():
        operand = frame.reference.nodes[k].inputs[0]
        error = to_numpy(reference_error(frame, operand, segment.nodes)).reshape((len(radius), -1))
        each = zip(tracks, radius, error, strict=True)
        entries = [enter(track(), segment, float(r), e) if local else None for track, r, e in each]
        rows = (segment.rows * radius[:, None] + error) * UP
        radius = (segment.whole * radius + euclidean(error)) * UP
        rows = np.fmin(rows, radius[:, None])
        rows = np.stack(
            [r if e is None else np.fmin(r, e.rows()) for r, e in zip(rows, entries, strict=True)]
        )
        ends = _ends(frame, operand, rows)
        centre = to_numpy(frame.centres[operand]).reshape(rows.shape)
        reaches[k], radius = _relu_reach(frame, centre, ends, radius, entries)
        leaving = zip(entries, *ends, centre, strict=True)
        tracks = [(lambda: None) if e is None else partial(e.passed, *at) for e, *at in leaving]
    return reaches


def _relu_reach(
    frame: Frame,
    centre: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    radius: np.ndarray,
    entries: Sequence[Entry | None],
) -> tuple[_Reach, np.ndarray]:
    """Of a ReLU's operand, given that of all its elements together; and the radius of the result."""
    low, high = ends
    sizes, pieces = np.maximum(abs(low), abs(high)), _relu_pieces(centre, low, high)
    both = pieces[0].exists & pieces[1].exists
    inner = np.fmin(radius, euclidean(sizes * both))
    for i, entry in enumerate(entries):
        inner[i] = inner[i] if entry is None else np.fmin(inner[i], entry.reach(1.0 * both[i]))
    passing = pieces[0].exists | (centre > 0)  # the others are zero throughout
    return _reach(frame, pieces, inner, centre + low, centre + high), np.fmin(
        radius, euclidean(sizes * passing)
    )


def _ends(frame: Frame, k: int, reach: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Least and largest deviations `(B, n)` of a value by its box and by how far each element gets."""
    box, centre = frame.boxes[k], frame.centres[k]
    flat = (centre.shape[0], -1)
    low = to_numpy(round_down(box.lower - centre)).reshape(flat)
    high = to_numpy(round_up(box.upper - centre)).reshape(flat)
    near, far = np.fmax(low, -reach), np.fmin(high, reach)
    met = near <= far  # else box and ball have no point in common, and everything holds there
    return np.where(met, near, low), np.where(met, far, high)


def _relu_pieces(centre: np.ndarray, low: np.ndarray, high: np.ndarray) -> Sequence[_Piece]:
    """Above and below the kink, which is at minus the reference."""
    kink = -centre
    above, below = (high > kink) | (low >= kink), low < kink
    return [
        _Piece(1.0, np.minimum(centre, 0.0), np.maximum(low, kink), np.maximum(high, kink), above),
        _Piece(0.0, -np.maximum(centre, 0.0), np.minimum(low, kink), np.minimum(high, kink), below),
    ]


def _reach(
    frame: Frame, pieces: Sequence[_Piece], radius: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> _Reach:
    """Brings everything to where the frame is, with an axis for rows. Elements of one piece stay in place."""
    xp, device = namespace(frame.like), frame.like.device
    both = pieces[0].exists & pieces[-1].exists
    chord = np.maximum(upper, 0.0) / np.where(both & (upper > lower), upper - lower, 1.0)
    chord, step = (np.where(both, v, 1.0 * pieces[0].exists) for v in (chord, 1.0 * (upper > -lower)))
    low, high = ([np.where(both, getattr(p, end), 0.0) for p in pieces] for end in ("low", "high"))

    def place(array: np.ndarray) -> Array:
        return xp.asarray(np.ascontiguousarray(array[:, None]), device=device)

    placed = [
        _Piece(p.slope, place(p.offset), place(l), place(h), place(p.exists))
        for p, l, h in zip(pieces, low, high, strict=True)
    ]
    return _Reach(placed, *(place(array) for array in (radius, both, chord, step)))


# One layer.


def _minimise(reach: _Reach, c: Array, g: Array, weight: Array) -> _Minimum:
    """`h` for rows c, g `(B, R, n)` and lambdas `(B, R)`."""
    xp, scale = namespace(c), weight[:, :, None]
    best = xp.full_like(g, inf)
    points = change = size = xp.zeros_like(g)
    for piece in reach.pieces:
        slope = piece.slope * c - g  # exactly zero for elements of one piece
        d = xp.minimum(xp.maximum(-slope / scale, piece.low), piece.high)
        tangent, rise = slope + scale * d, c * piece.offset
        value = xp.minimum(tangent * piece.low, tangent * piece.high) - 0.5 * scale * d * d + rise
        value = xp.where(value == value, value, -inf)
        better = piece.exists & (value < best)
        best, points = xp.where(better, value, best), xp.where(better, d, points)
        change = xp.where(better, piece.slope * d + piece.offset, change)
        widest = xp.maximum(abs(piece.low), abs(piece.high))
        part = (abs(slope) + 2 * scale * abs(d)) * widest + abs(rise)
        size = xp.where(piece.exists, xp.maximum(size, part), size)
    ball = weight * reach.radius * reach.radius
    far = xp.sum(sum(abs(p.low) + abs(p.high) for p in reach.pieces), axis=2)
    error = (xp.sum(size, axis=2) + ball) * gamma(c.shape[2] + 16, DOUBLE)
    error = error + (far + 8 * c.shape[2] + 8) * (8 * smallest(g))
    return _Minimum(xp.sum(best, axis=2) - 0.5 * ball, error, points, change)


def _search(reach: _Reach, c: Array, g: Array) -> Array:
    """The lambdas `(B, R)` that are best for given rows: where the points reach the ball's surface."""
    xp = namespace(c)
    steepest = xp.where(reach.both, xp.maximum(abs(c - g), abs(g)), 0.0)
    top = 2.0 * xp.sqrt(xp.sum(steepest * steepest, axis=2)) / reach.radius
    top = xp.where((top > 0) & (top < inf), top, 1.0)
    low, high = xp.full_like(top, -float(OCTAVES)), xp.zeros_like(top)
    for _ in range(HALVINGS):
        middle = 0.5 * (low + high)
        points = _minimise(reach, c, g, top * 2.0**middle).points
        outside = xp.sum(points * points, axis=2) > reach.radius * reach.radius
        low, high = xp.where(outside, middle, low), xp.where(outside, high, middle)
    return top * 2.0 ** (0.5 * (low + high))


# All layers.


def _backward(chain: _Chain, rows: Array, slopes: Mapping[int, Array], weights: Mapping[int, Array]) -> _Pass:
    """Rows `(B, R, *shape)` down to the input; slopes that are missing are CROWN's, lambdas are sought."""
    xp, frame, lead = namespace(rows), chain.frame, rows.shape[:2]
    constant, error = centre_value(rows, frame.centres[chain.order[0]])
    size, a, found = abs(constant), rows, _Pass(constant, {}, {}, {}, {})
    for k in chain.order:
        cost, op = frame.costs[k], frame.reference.nodes[k].op
        if cost is not None:
            error = error + dot(abs(a), cost)
        if isinstance(op, AffineOp):
            part = op.adjoint(a.reshape((-1, *a.shape[2:])))[0]
            a = part.reshape((*lead, *part.shape[1:]))
            continue
        reach, c = chain.reaches[k], a.reshape((*lead, -1))
        first = xp.where(c < 0, reach.chord, reach.step)
        slope = xp.where(reach.both, slopes[k], first) if k in slopes else first
        c, g = (c, slope * c) if k else (0.0 * c, -c)  # the input is no function of anything
        a = g.reshape(a.shape)
        weight = weights[k] if k in weights else _search(reach, c, g)
        least = _minimise(reach, c, g, weight)
        constant, size = constant + least.value, size + abs(least.value)
        error = error + least.error
        found.rows[k], found.slopes[k], found.weights[k], found.minima[k] = c, slope, weight, least
    error = error * SUM_INFLATION + size * ((4 * len(chain.order) + 8) * DOUBLE) + frame.slack[:, None]
    lower = constant - error
    return replace(found, lower=xp.where(lower == lower, lower, -inf))


def _ascend(chain: _Chain, rows: Array, steps: int) -> Array:
    """The best certified bounds `(B, R)` of some steps of Adam in the slopes, lambdas following."""
    xp, now = namespace(rows), _backward(chain, rows, {}, {})
    best, slopes, kept = now.lower, dict(now.slopes), dict(now.slopes)
    adam = Adam(1e-300)
    for step in range(steps):
        for k, gradient in _gradients(chain, now).items():
            slopes[k] = slopes[k] + RATE * DECAY**step * adam.direction(k, gradient, step + 1)
        now = _backward(chain, rows, slopes, _followed(chain, now))
        gain = (now.lower > best)[:, :, None]
        kept = {k: xp.where(gain, slopes[k], v) for k, v in kept.items()}
        best = xp.maximum(best, now.lower)
    return xp.maximum(best, _backward(chain, rows, kept, {}).lower) if steps else best


def _followed(chain: _Chain, now: _Pass) -> dict[int, Array]:
    """Lambdas nearer to the best ones: points inside of a piece are as 1 to lambda."""
    xp, moved = namespace(now.lower), {}
    for k, weight in now.weights.items():
        points = now.minima[k].points
        ratio = xp.sqrt(xp.sum(points * points, axis=2)) / chain.reaches[k].radius
        moved[k] = weight * xp.where(ratio == ratio, xp.clip(ratio, 0.25, 4.0), 1.0)
    return moved


def _gradients(chain: _Chain, now: _Pass) -> dict[int, Array]:
    """Of the bounds in the slopes, `(B, R, n)`: rows times what layers disagree by on the same value."""
    network, lead = chain.frame.reference, now.lower.shape
    gradients, value = {}, now.minima[0].points
    for k in reversed(chain.order[:-1]):
        op = network.nodes[k].op
        if isinstance(op, AffineOp):
            flat = value.reshape((lead[0] * lead[1], *network.nodes[network.nodes[k].inputs[0]].shape))
            value = op.linear(flat).reshape((*lead, -1))
            continue
        apart = value - now.minima[k].points
        gradients[k] = now.rows[k] * apart * chain.reaches[k].both
        value = now.minima[k].change + now.slopes[k] * apart
    return gradients
