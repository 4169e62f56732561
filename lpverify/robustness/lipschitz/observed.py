"""Steep pairs of points: lower bounds of Lipschitz constants, for information only."""

from math import inf, prod

import numpy as np

from lpverify.network import Network

POINTS = 64
STEPS = 4  # of the ascent from the steepest points
DISTANCES = (1e-3, 1e-2, 1e-1, 1.0)  # of the other point, relative to the region
MOST_ENTRIES = 2**24  # of all Jacobians together


def observed_slope(
    network: Network, norm: float, lower: np.ndarray, upper: np.ndarray, seed: int = 0
) -> tuple[float, tuple[np.ndarray, np.ndarray]]:
    """The steepest difference quotient found between points of a box, in floating point, and its pair.

    From random points along the directions that their Jacobians stretch most; the best ones are moved on.

    Args:
        network: What to evaluate.
        norm: 1, 2 or infinity, of changes of input and of result.
        lower: Of the box, `(n,)`, finite.
        upper: The same.
        seed: Of the points.
    """
    rng = np.random.default_rng(seed)
    outputs = prod(network.nodes[network.output].shape)
    count = int(np.clip(MOST_ENTRIES // (outputs * len(lower)), 1, POINTS))
    points = lower + rng.random((count, len(lower))) * (upper - lower)
    best, pair = 0.0, (points[0], points[0])
    for _ in range(STEPS):
        steps = directions(jacobians(network, points), norm)
        ends = [
            np.clip(points + s * d * (upper - lower).max() * steps, lower, upper)
            for d in DISTANCES
            for s in (1, -1)
        ]
        slopes = np.stack([quotients(network, points, end, norm) for end in ends])
        k, i = np.unravel_index(int(np.argmax(slopes)), slopes.shape)
        if slopes[k, i] > best:
            best, pair = float(slopes[k, i]), (points[i].copy(), ends[k][i].copy())
        shift = rng.normal(size=points.shape) * 0.05 * (upper - lower)
        points = np.clip(0.5 * (pair[0] + pair[1]) + shift, lower, upper)
    return best, pair


def jacobians(network: Network, points: np.ndarray) -> np.ndarray:
    """Of the result `(m,)` at points `(N, n)`: `(N, m, n)`, plain floating point."""
    values, output = network.evaluate(points), network.output
    size = prod(network.nodes[output].shape)
    rows = []
    for unit in np.eye(size):
        seed = np.broadcast_to(unit, (len(points), size)).reshape(values[output].shape)
        rows.append(network.gradient(values, seed.copy(), output))
    return np.stack(rows, axis=1)


def directions(matrices: np.ndarray, norm: float) -> np.ndarray:
    """For each matrix about the direction of length 1 that it stretches most, `(N, n)`."""
    if norm == 2:
        return np.linalg.svd(matrices, full_matrices=False)[2][:, 0]
    each = np.arange(len(matrices))
    if norm == inf:
        return np.where(matrices[each, abs(matrices).sum(axis=2).argmax(axis=1)] < 0, -1.0, 1.0)
    found = np.zeros((len(matrices), matrices.shape[2]))
    found[each, abs(matrices).sum(axis=1).argmax(axis=1)] = 1.0
    return found


def quotients(network: Network, points: np.ndarray, others: np.ndarray, norm: float) -> np.ndarray:
    """Changes of the result by changes of the input, zero for pairs of one point."""
    rise = network(others).reshape(len(points), -1) - network(points).reshape(len(points), -1)
    run = np.linalg.norm(others - points, norm, axis=1)
    return np.where(run > 0, np.linalg.norm(rise, norm, axis=1) / np.where(run > 0, run, 1.0), 0.0)
