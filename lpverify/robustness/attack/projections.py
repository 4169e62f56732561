"""Projections on a ball cut by a box, and the nearest points of a half-space in a box, for many rows at once.

All points are written as displacements d `(R, n)` from the ball's centre, which is inside the box
`lower <= d <= upper`. Every result is a displacement `sign * size` with `0 <= size <= cap`, where `size`
grows with one number for each row. That number is found exactly, or nearly so from the inside.
Results are plain floating point: proposals only.
"""

import math

import numpy as np

SCALINGS = 3  # of lengths, at most


def caps(direction: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> np.ndarray:
    """How far each coordinate may go the way that `direction` has it, `(R, n)`, 0 where that is nowhere."""
    return np.where(direction > 0, upper, np.where(direction < 0, -lower, 0.0))


def project(
    norm: float, moved: np.ndarray, lower: np.ndarray, upper: np.ndarray, radius: np.ndarray
) -> np.ndarray:
    """The nearest points, in the Euclidean norm, of a ball cut by a box.

    Args:
        norm: Of the ball: 1, 2 or infinity; of infinity the box is taken to be inside the ball.
        moved: Displacements `(R, n)`.
        lower: Of the box, at most 0, `(R, n)`.
        upper: Of the box, at least 0.
        radius: Of the ball, `(R,)`.

    Source: for norm 1 without a box Duchi et al. 2008 (ICML), section 4.
    """
    inside = np.clip(moved, lower, upper)
    if norm == math.inf:
        return inside
    outside = np.flatnonzero(lengths(norm, inside) > radius)
    if len(outside):
        some = moved[outside]
        cap = caps(some, lower[outside], upper[outside])
        shrink = _soften_some if norm == 1 else _scale
        inside[outside] = np.sign(some) * shrink(np.abs(some), cap, radius[outside])
    return inside


def _soften_some(size: np.ndarray, cap: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """As `_soften`, without the coordinates that are 0: sparse steps leave most of them so."""
    rows, columns = np.nonzero(size)
    counts = np.bincount(rows, minlength=len(size))
    place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    dense, most = np.zeros((2, len(size), int(counts.max())))
    dense[rows, place], most[rows, place] = size[rows, columns], cap[rows, columns]
    found = np.zeros_like(size)
    found[rows, columns] = _soften(dense, most, radius)[rows, place]
    return found


def _soften(size: np.ndarray, cap: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """`min(max(size - t, 0), cap)` with the t for which the sum is the radius."""
    ends = np.concatenate([size, np.maximum(size - cap, 0.0)], axis=1)
    rates = np.concatenate([np.ones_like(size), -np.ones_like(size)], axis=1)
    order = np.argsort(-ends, axis=1)  # t falls from the largest size; the sum grows with it
    t = np.take_along_axis(ends, order, 1)
    rate = np.cumsum(np.take_along_axis(rates, order, 1), axis=1)
    total = np.concatenate(
        [np.zeros((len(t), 1)), np.cumsum(rate[:, :-1] * (t[:, :-1] - t[:, 1:]), axis=1)], axis=1
    )
    k = np.maximum((total <= radius[:, None]).sum(1) - 1, 0)[:, None]
    slope = np.maximum(np.take_along_axis(rate, k, 1), 1.0)
    found = np.take_along_axis(t, k, 1) - (radius[:, None] - np.take_along_axis(total, k, 1)) / slope
    return np.minimum(np.maximum(size - found, 0.0), cap)


def _scale(size: np.ndarray, cap: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """`min(s * size, cap)` with the s for which the Euclidean length is the radius.

    From below: with what is at its cap there the others scale to the rest of the length, which puts more at
    their caps; a step or two short of the end the result is inside the ball.
    """
    squares, wanted = size * size, (radius * radius)[:, None]
    s = np.sqrt(wanted / squares.sum(1, keepdims=True))
    count = -1
    for _ in range(SCALINGS):
        full = s * size >= cap
        if int(full.sum()) == count:
            break
        count = int(full.sum())
        capped = np.where(full, cap * cap, 0.0).sum(1, keepdims=True)
        free = np.where(full, 0.0, squares).sum(1, keepdims=True)
        s = np.maximum(s, np.sqrt(np.maximum(wanted - capped, 0.0) / np.where(free > 0, free, np.inf)))
    found = np.minimum(s * size, cap)
    return found * np.minimum(radius / lengths(2, found), 1.0)[:, None]


@np.errstate(over="ignore", invalid="ignore")  # boxes may be unbounded
def to_plane(
    norm: float, gradient: np.ndarray, drop: np.ndarray, lower: np.ndarray, upper: np.ndarray
) -> np.ndarray:
    """The displacements of least norm in a box with `gradient . d <= -drop`.

    Args:
        norm: To be least: 1, 2 or infinity.
        gradient: `(R, n)`.
        drop: `(R,)`; where the box has no such point the one of least `gradient . d` is taken, where it is
            not positive the displacement is 0.
        lower: Of the box, at most 0, `(R, n)`.
        upper: Of the box, at least 0.

    Source: Croce and Hein 2020 (FAB, arXiv:1907.02044), section 2.
    """
    slope, cap = np.abs(gradient), caps(-gradient, lower, upper)
    if norm == 1:
        size = _greedy(slope, cap, drop)
    else:
        size = _together(slope, np.where(slope > 0, 1.0, 0.0) if norm == math.inf else slope, cap, drop)
    return -np.sign(gradient) * size


def _greedy(slope: np.ndarray, cap: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """Coordinates of largest slope first, each to its cap, until `slope . size` is the drop."""
    order = np.argsort(-slope, axis=1)
    steep, room = np.take_along_axis(slope, order, 1), np.take_along_axis(cap, order, 1)
    gains = np.where(steep > 0, steep * room, 0.0)
    before = np.concatenate([np.zeros((len(gains), 1)), np.cumsum(gains, axis=1)[:, :-1]], axis=1)
    left = np.maximum(drop[:, None] - before, 0.0)
    sizes = np.minimum(left / np.where(steep > 0, steep, np.inf), room)
    found = np.empty_like(sizes)
    np.put_along_axis(found, order, sizes, 1)
    return found


def _together(slope: np.ndarray, rate: np.ndarray, cap: np.ndarray, drop: np.ndarray) -> np.ndarray:
    """`min(s * rate, cap)` with the s for which `slope . size` is the drop."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = np.where(rate > 0, cap / rate, 0.0)
    order = np.argsort(ends, axis=1)
    s = np.take_along_axis(ends, order, 1)
    full = np.cumsum(np.take_along_axis(np.where(rate > 0, slope * cap, 0.0), order, 1), axis=1)
    gains = np.take_along_axis(slope * rate, order, 1)
    growing = np.cumsum(gains[:, ::-1], axis=1)[:, ::-1] - gains
    reached = full + np.where(growing > 0, s * growing, 0.0)
    k = (reached < drop[:, None]).sum(1)[:, None]
    before, some = np.maximum(k - 1, 0), k > 0
    capped = np.where(some, np.take_along_axis(full, before, 1), 0.0)
    free = np.where(some, np.take_along_axis(growing, before, 1), gains.sum(1, keepdims=True))
    factor = np.maximum(drop[:, None] - capped, 0.0) / np.where(free > 0, free, np.inf)
    grown = np.where(rate > 0, np.where(k >= s.shape[1], np.finfo(float).max, factor) * rate, 0.0)
    return np.minimum(grown, cap)


def lengths(norm: float, moved: np.ndarray) -> np.ndarray:
    """The norm of each row, plain floating point `(R,)`."""
    size = np.abs(moved)
    if norm == math.inf:
        return size.max(1, initial=0.0)
    return size.sum(1) if norm == 1 else np.sqrt((size * size).sum(1))
