"""Backward bounds for the unstable elements of one value, from whole rows or by windows.

Accepts: frames with boxes up to the value, of networks without operators that lack a backward rule.
Method: a row for each end of each unstable element, over the whole network or over the window that a tile
of the value depends on (`bounds.windows`), whichever is predicted to take less time.
Guarantee: boxes only shrink, to bounds that hold with all rounding; see `bounds.linear`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, prod

import numpy as np

from lpverify.bounds.alpha import ascend
from lpverify.bounds.frame import Frame
from lpverify.bounds.linear import backward
from lpverify.bounds.windows import TILES, Group, base_of, central_tile, distinct, frame_of, groups
from lpverify.interval import Array, Box, intersect, namespace
from lpverify.network import Network
from lpverify.ops.base import BilinearOp, ElementwiseOp

# Time in multiplications of a convolution's adjoint. Measured with torch in float32 on one core of a server:
# conv_transpose2d did 1.2e10 of them a second on cropped values of 3 to 36 positions a side, with 16 to 128
# channels and 3x3 kernels; whole rows took about 6 ns, windows 8 ns for each coefficient beside that.
PASSES = 80.0  # what else one coefficient of a row costs: lines, dot products, sums
CUTTING = 500.0  # each element of the frame of a window, in all its arrays
CALL = 5e5  # each node of a cropped network whenever it is run, beside what is proportional to rows
PLANNING = 4e5  # each node of a tile when windows are laid out
WORTH = 0.7  # of the time of whole rows, at most, for windows to be chosen


def unstable(network: Network, k: int, box: Box) -> Array:
    """Mask `(B, size)` of the elements of value `k` on which some nonlinear consumer isn't linear."""
    xp = namespace(box.lower)
    mask = xp.zeros(box.lower.shape, dtype=xp.bool, device=box.lower.device)
    for node in network.nodes:
        if isinstance(node.op, ElementwiseOp) and node.inputs[0] == k:
            mask = mask | node.op.unstable(box)
        elif isinstance(node.op, BilinearOp) and k in node.inputs:
            mask = mask | (box.lower < box.upper)
    return mask.reshape((mask.shape[0], -1))


def refine(frame: Frame, k: int, limit: int, budget: float, ascent: int) -> tuple[Array, float]:
    """Backward bounds for the unstable elements of value `k`, in chunks of rows, optimised or not.

    Args:
        frame: The box of `k` shrinks in it.
        k: The value.
        limit: Largest number of coefficients held at a time.
        budget: Multiplications that may be spent.
        ascent: Steps of ascent in alpha; 0: none.

    Returns:
        Which regions are empty, and the multiplications spent: none if they exceed the budget.
    """
    network, box = frame.network, frame.boxes[k]
    mask, relevant = unstable(network, k, box), network.relevance(frame.like)[k]
    if relevant is None:
        return frame.empty, 0.0
    mask = mask & relevant.reshape((1, -1))
    if not bool(mask.any()):
        return frame.empty, 0.0
    work = _choose(frame, k, mask, limit, ascent)
    if work.cost > budget:
        return frame.empty, 0.0
    shape = box.lower.shape
    lower, upper = work.bounds(box.lower.reshape(mask.shape), box.upper.reshape(mask.shape))
    frame.boxes[k], empty = intersect(box, lower.reshape(shape), upper.reshape(shape))
    return empty, work.cost


def most_spent(frame: Frame, k: int) -> float:
    """Multiplications that backward bounds of value `k` take at most, however many elements are unstable."""
    network, relevant = frame.network, frame.network.relevance(frame.like)[k]
    if relevant is None:
        return 0.0
    base, work = base_of(network, k)[0], network.work[k]
    for t in (t for t in TILES if frame.ball is None and t < max(network.nodes[base].shape[2:], default=0)):
        work = min(work, _measure(network, base, t).work)
    return float(passes(0) * len(frame.empty) * int(relevant.sum()) * work)


@dataclass(frozen=True)
class _Rows:
    """Rows over the whole network for the elements in a mask.

    Attributes:
        frame: Bounds up to the value.
        k: The value.
        mask: `(B, size)`.
        limit: Largest number of coefficients held at a time.
        ascent: Steps of ascent; 0: none.
    """

    frame: Frame
    k: int
    mask: Array
    limit: int
    ascent: int

    @property
    def cost(self) -> float:
        """Multiplications."""
        most = int(self.mask.sum(axis=1).max())
        return passes(self.ascent) * len(self.mask) * most * self.frame.network.work[self.k]

    def bounds(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """The ends `(B, size)` with those in the mask tightened."""
        ends = _Ends(lower, upper)
        most = int(self.mask.sum(axis=1).max())
        for chunk in chunks(self.frame, self.k, self.mask, most, self.limit, self.ascent):
            ends.tighten(chunk, *element_bounds(self.frame, self.k, chunk, self.ascent))
        return ends.lower, ends.upper


@dataclass(frozen=True)
class _Windows(_Rows):
    """Rows over windows.

    Attributes:
        base: The value that `k` moves about.
        places: Flat indices `(size,)` in the base for each element of `k`.
        layout: All tiles of the base.
    """

    base: int
    places: np.ndarray
    layout: Sequence[Group]

    @property
    def cost(self) -> float:
        """Multiplications."""
        total = sum(int(counts.sum()) * g.work for g, _, counts in self._parts())
        return passes(self.ascent) * len(self.mask) * total

    def bounds(self, lower: Array, upper: Array) -> tuple[Array, Array]:
        """As above, in the order of the base and back."""
        xp, device = namespace(lower), lower.device
        places = xp.asarray(self.places, device=device)
        back = xp.asarray(np.argsort(self.places), device=device)
        ends, mask = _Ends(lower[:, back], upper[:, back]), self.mask[:, back]
        for group, chosen, counts in self._parts():
            for part in self._batches(group, counts):
                self._tighten(ends, mask, group, chosen[part], int(counts[part].max()))
        return ends.lower[:, places], ends.upper[:, places]

    def _parts(self) -> list[tuple[Group, np.ndarray, np.ndarray]]:
        """Per group the tiles with elements in the mask, most first, and how many each has in a region."""
        mask = to_base(self.mask, self.places)
        parts = []
        for group in self.layout:
            counts = mask[:, group.elements(len(group.pieces) - 1)].sum(axis=2).max(axis=0)
            order = np.argsort(-counts, kind="stable")
            order = order[counts[order] > 0]
            if len(order):
                parts.append((group, order, counts[order]))
        return parts

    def _batches(self, group: Group, counts: np.ndarray) -> list[slice]:
        """Tiles that are bounded together: as many as the limit allows."""
        room = self.limit / (2 * len(self.mask) * held(group.network, group.network.output, self.ascent))
        found, first = [], 0
        while first < len(counts):
            step = max(1, int(room // counts[first]))
            found.append(slice(first, first + step))
            first += step
        return found

    def _tighten(self, ends: "_Ends", mask: Array, group: Group, tiles: np.ndarray, most: int) -> None:
        xp, regions = namespace(mask), mask.shape[0]
        k = group.network.output
        elements = xp.asarray(group.elements(k)[tiles], device=mask.device)
        own, local = mask[:, elements].reshape((-1, elements.shape[1])), frame_of(self.frame, group, tiles)
        offset = xp.arange(own.shape[0], device=mask.device)[:, None] % len(tiles)
        for chunk in chunks(local, k, own, most, self.limit, self.ascent):
            low, high = element_bounds(local, k, chunk, self.ascent)
            # How many rows a tile has depends on its neighbours and the limit; its bounds shall not.
            wanted = xp.take_along_axis(own, chunk, axis=1)
            low = xp.where(wanted, low, xp.full_like(low, -inf))
            high = xp.where(wanted, high, xp.full_like(high, inf))
            columns = elements[offset, chunk].reshape((regions, -1))
            ends.tighten(columns, low.reshape((regions, -1)), high.reshape((regions, -1)))


@dataclass
class _Ends:
    """Ends `(B, n)` that get tighter."""

    lower: Array
    upper: Array

    def tighten(self, columns: Array, low: Array, high: Array) -> None:
        """Intersects the elements in `columns` `(B, r)` with bounds."""
        xp = namespace(self.lower)
        low = xp.maximum(xp.take_along_axis(self.lower, columns, axis=1), low)
        high = xp.minimum(xp.take_along_axis(self.upper, columns, axis=1), high)
        self.lower = _scatter(self.lower, columns, low)
        self.upper = _scatter(self.upper, columns, high)


def passes(ascent: int) -> int:
    """Backward passes an element takes: for both ends, with a pass forward for each step of ascent."""
    return 2 * (1 + 2 * ascent)


def to_base(mask: Array, places: np.ndarray) -> np.ndarray:
    """A mask `(B, size)` in the order of the base, as a NumPy array."""
    host = np.asarray(mask if isinstance(mask, np.ndarray) else mask.cpu())
    return host[:, np.argsort(places)]


def held(network: Network, k: int, ascent: int) -> int:
    """Coefficients of one row that are held at a time."""
    sizes = [prod(network.nodes[i].shape) for i in network.ancestors[k]]
    return 4 * sum(sizes) if ascent else max(sizes)


def chunks(frame: Frame, k: int, mask: Array, most: int, limit: int, ascent: int) -> list[Array]:
    """Flat indices `(B, r)` that hold every element in a mask `(B, size)`; the rest of them are harmless."""
    xp = namespace(mask)
    order = xp.argsort(xp.astype(~mask, xp.int8), axis=1, stable=True)[:, :most]
    step = max(1, limit // (2 * mask.shape[0] * held(frame.network, k, ascent)))
    return [order[:, first : first + step] for first in range(0, most, step)]


def _choose(frame: Frame, k: int, mask: Array, limit: int, ascent: int) -> _Rows:
    """Whole rows or windows of the width that is predicted to be fastest."""
    common = (frame, k, mask, limit, ascent)
    base, places = base_of(frame.network, k)
    shape = frame.network.nodes[base].shape
    widest = max(shape[2:], default=0)
    if widest < 2 or frame.ball is not None:
        return _Rows(*common)
    rows, work = float(mask.sum(axis=1).max()) * len(mask), frame.network.work[k]
    size = sum(prod(frame.network.nodes[i].shape) for i in frame.network.ancestors[k])
    best, width = WORTH * passes(ascent) * rows * (work + PASSES * size), 0
    marked = np.argwhere(to_base(mask, places).reshape(-1, *shape[2:]).any(axis=0))
    for t in (t for t in TILES if t < widest):
        count = len(np.unique(marked // t, axis=0))
        predicted = _predicted(frame.network, base, t, rows, count * len(mask), ascent)
        best, width = min((best, width), (predicted, t))
    if not width:
        return _Rows(*common)
    return _Windows(*common, base, places, layout(frame.network, base, width))


@dataclass(frozen=True, slots=True)
class _Measure:
    """Of a tile that depends on the most: multiplications of a row, elements, nodes; and how many groups."""

    work: int
    size: int
    nodes: int
    groups: float


def _measure(network: Network, base: int, width: int) -> _Measure:
    """Found once for a network."""
    key = ("tile", base, width)
    if key not in network.derived:
        tile = central_tile(network, base, width)
        size = sum(prod(node.shape) for node in tile.network.nodes)
        work, count = tile.network.work[tile.network.output], distinct(network, base, width, tile)
        network.derived[key] = _Measure(work, size, len(tile.pieces), count)
    found: _Measure = network.derived[key]
    return found


def _predicted(network: Network, base: int, width: int, rows: float, tiles: int, ascent: int) -> float:
    """What windows take, in multiplications: rows, frames, calls and planning."""
    tile = _measure(network, base, width)
    count = prod(-(-n // width) for n in network.nodes[base].shape[2:])
    total = passes(ascent) * rows * (tile.work + PASSES * tile.size) + tiles * tile.size * CUTTING
    calls = min(tiles, tile.groups) * passes(ascent) * CALL
    return total + tile.nodes * (calls + count * PLANNING)


def layout(network: Network, base: int, width: int) -> Sequence[Group]:
    """The groups of tiles of a value; found once for a network."""
    key = ("windows", base, width)
    if key not in network.derived:
        network.derived[key] = groups(network, base, width)
    found: Sequence[Group] = network.derived[key]
    return found


def element_bounds(frame: Frame, k: int, chunk: Array, ascent: int) -> tuple[Array, Array]:
    """Lower and upper bounds `(B, r)` of the chosen elements, float64."""
    xp = namespace(frame.like)
    count, rows = chunk.shape
    centre = frame.centres[k].reshape((count, -1))
    columns = xp.arange(centre.shape[1], device=frame.like.device)
    unit = xp.astype(chunk[:, :, None] == columns[None, None, :], frame.like.dtype)
    seeds = xp.concat([unit, -unit], axis=1).reshape((count, 2 * rows, *frame.network.nodes[k].shape))
    if ascent:
        values = ascend(frame, seeds, k, ascent)
    else:
        at_centre = xp.take_along_axis(centre, chunk, axis=1)
        at_centre = xp.concat([at_centre, -at_centre], axis=1)
        linear = backward(frame, k, seeds, (at_centre, xp.zeros_like(at_centre)))
        values = linear.concretize(frame.boxes[0], frame.ball)
    return values[:, :rows], -values[:, rows:]


def _scatter(target: Array, columns: Array, values: Array) -> Array:
    """A copy of `target` `(B, n)` with `values` `(B, r)` at `columns`."""
    xp = namespace(target)
    result = xp.asarray(target, copy=True)
    rows = xp.arange(target.shape[0], device=target.device)[:, None]
    result[rows, columns] = values
    return result
