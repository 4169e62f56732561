"""Lipschitz constants on a region, by intervals of the Jacobian.

Boxes of all values over the region say how steep each elementwise function is there; rows are then sent back
to the input as intervals. Between two points of a convex region a change of the result is a mean of
(generalised) Jacobians on the way times the change of the input (Clarke 1983, proposition 2.6.5), hence
within those intervals. Norms of their largest entries bound it (Weng et al. 2018, arXiv:1804.09699, section
3.4, for such a pass).
"""

from collections.abc import Sequence
from contextlib import suppress
from math import inf, prod

import numpy as np

from lpverify.bounds.ball import UP, euclidean, spectral_norm
from lpverify.bounds.propagate import Region, propagate
from lpverify.errors import UnsupportedError
from lpverify.interval import DOUBLE, SUM_INFLATION, Box, add_down, add_up, inflate, sound_box
from lpverify.multipliers import Effort
from lpverify.network import Network
from lpverify.ops.base import AffineOp, ElementwiseOp, SelectionOp
from lpverify.ops.linear import Combine
from lpverify.robustness.lipschitz.chain import parts_of
from lpverify.robustness.lipschitz.deviation import deviation_bounds, deviation_layers, local_layers
from lpverify.robustness.lipschitz.norms import adjoint_size
from lpverify.robustness.lipschitz.slopes import has_slopes, slope_range, times, unsupported

LIMIT = 2**21  # coefficients held at a time while boxes are made
CROWN_WORK = 5e9  # multiplications of a backward pass for every neuron, up to which boxes get one


def boxes_of(network: Network, region: Region) -> list[Box]:
    """Boxes of all values over a batch of regions; by backward bounds where those are affordable."""
    rows = sum(prod(network.nodes[k].shape) for k in network.refinable)
    cost = rows * network.work[network.output] * len(region.box.lower)
    effort = Effort("crown") if cost < CROWN_WORK else Effort("ibp")
    return propagate(network, region, effort, LIMIT).boxes


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def jacobian_rows(
    network: Network, boxes: Sequence[Box], rows: np.ndarray, source: int = 0, target: int | None = None
) -> Box:
    """Intervals of the entries of `rows . d value / d source` over each region.

    Args:
        network: With float64 weights, NumPy.
        boxes: Of all values, `(B, *shape)`; those of nonlinear nodes' operands are read.
        rows: `(B, R, m)` over the target value.
        source: A value that all paths to the target go through.
        target: By default the network's result.

    Returns:
        `(B, R, n)`, unbounded where nothing is known.

    Raises:
        UnsupportedError: A node on the way has no bounded slope.
    """
    target = network.output if target is None else target
    lead = rows.shape[:2]
    start = rows.reshape((*lead, *network.nodes[target].shape))
    pending = {target: Box(start, start)}
    for k in range(target, source, -1):
        box = pending.pop(k, None)
        if box is None or not network.nodes[k].inputs:
            continue
        for i, part in zip(network.nodes[k].inputs, _back(network, k, box, boxes), strict=True):
            before = pending.get(i)
            pending[i] = part if before is None else _sum(before, part)
    size = prod(network.nodes[source].shape)
    if source not in pending:
        return Box(np.zeros((*lead, size)), np.zeros((*lead, size)))
    return Box(*(end.reshape((*lead, size)) for end in (pending[source].lower, pending[source].upper)))


def _sum(a: Box, b: Box) -> Box:
    return Box(*sound_box(add_down(a.lower, b.lower), add_up(a.upper, b.upper)))


def _back(network: Network, k: int, box: Box, boxes: Sequence[Box]) -> list[Box]:
    """Intervals of coefficients on the operands of a node, from those on its result `(B, R, *shape)`."""
    op, inputs = network.nodes[k].op, network.nodes[k].inputs
    if isinstance(op, AffineOp):
        return _affine(op, box)
    if not isinstance(op, ElementwiseOp) or not has_slopes(op):
        raise unsupported(network, k)
    slopes = slope_range(op, boxes[inputs[0]])
    return [times(box, slopes.lower[:, None], slopes.upper[:, None])]


def _affine(op: AffineOp, box: Box) -> list[Box]:
    """Through an affine node, with all rounding covered."""
    lead = box.lower.shape[:2]
    flat = Box(*(end.reshape((-1, *end.shape[2:])) for end in (box.lower, box.upper)))
    if isinstance(op, Combine) or (isinstance(op, SelectionOp) and op.terms == (0, 0)):
        signs = op.signs if isinstance(op, Combine) else None
        pairs = zip(op.adjoint(flat.lower), op.adjoint(flat.upper), strict=True)
        ends = [(a, b) if signs is None or signs[i] > 0 else (b, a) for i, (a, b) in enumerate(pairs)]
    else:
        ends = _rounded(op, flat)
    return [Box(*sound_box(*(end.reshape((*lead, *end.shape[1:])) for end in pair))) for pair in ends]


def _rounded(op: AffineOp, box: Box) -> list[tuple[np.ndarray, np.ndarray]]:
    centre, radius = box.centre_radius()
    relative, _, slack = op.error_factors(centre, adjoint=True)
    parts = zip(op.adjoint(centre), adjoint_size(op, radius), adjoint_size(op, abs(centre)), strict=True)
    ends = []
    for middle, spread, size in parts:
        reach = spread + (relative + op.weight_error + 4 * DOUBLE) * (size + spread)
        reach = reach * (inflate(op.terms[1], DOUBLE) * SUM_INFLATION)
        reach = np.where(size + spread > 0, reach + slack, 0.0)
        ends.append((middle - reach, middle + reach))
    return ends


def largest(box: Box) -> np.ndarray:
    """The largest absolute values of an interval."""
    return np.maximum(abs(box.lower), abs(box.upper))


def dual_sizes(rows: Box, norm: float) -> np.ndarray:
    """Upper bounds `(B, R)` of what each row times a change of length 1 in that norm amounts to."""
    size = largest(rows)
    if norm == 2:
        return np.asarray(euclidean(size))
    if norm == 1:
        return np.asarray(size.max(axis=-1))
    return np.asarray(size.sum(axis=-1) * inflate(size.shape[-1], DOUBLE))


def jacobian_norm(rows: Box, norm: float) -> float:
    """An upper bound of the operator norm of all matrices in an interval `(1, m, n)`."""
    size = largest(rows)[0]
    if not np.isfinite(size).all():
        return inf
    if norm == inf:
        return float(size.sum(axis=1).max() * inflate(size.shape[1], DOUBLE))
    if norm == 1:
        return float(size.sum(axis=0).max() * inflate(size.shape[0], DOUBLE))
    centre, radius = (part[0] for part in rows.centre_radius())
    return min((spectral_norm(centre) + spectral_norm(radius)) * UP, spectral_norm(size))


def local_bound(network: Network, region: Region, norm: float) -> float:
    """An upper bound of the Lipschitz constant of a network's result on one region.

    Raises:
        UnsupportedError: A node has no bounded slope.
    """
    rows, boxes = np.eye(prod(network.nodes[network.output].shape))[None], boxes_of(network, region)
    bound = jacobian_norm(jacobian_rows(network, boxes, rows), norm)
    if norm != 2:
        return bound
    with suppress(UnsupportedError):
        parts = parts_of(network)
        layers = local_layers(network, parts, deviation_layers(network, parts), boxes)
        bound = min(bound, deviation_bounds(layers[0])[1])
    return bound
