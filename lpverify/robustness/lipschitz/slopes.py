"""Ranges of the slopes of elementwise functions, on boxes or everywhere.

A function is as steep between any two points of a box as its (one-sided) derivatives there allow, so a range
that holds these bounds every difference quotient. On a piece of one curvature a derivative is monotone: its
extremes are at the ends of the piece.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import LIBRARY, Box, round_down, round_up, sound_box, tiny
from lpverify.network import Network
from lpverify.ops.base import AffineOp, ElementwiseOp
from lpverify.ops.linear import Combine, Scale
from lpverify.ops.piecewise import Relu
from lpverify.ops.smooth import SmoothOp


def has_slopes(op: object) -> bool:
    """Whether `slope_range` knows the op."""
    return isinstance(op, Relu | SmoothOp)


@np.errstate(all="ignore")
def slope_range(op: ElementwiseOp, box: Box) -> Box:
    """Least and largest slope on a box; unbounded where nothing is known.

    Args:
        op: ReLU or a smooth function.
        box: `(B, *shape)` float64, ends may be infinite.

    Raises:
        UnsupportedError: No slopes are known of such an op.
    """
    if isinstance(op, Relu):
        low = np.where(box.lower >= 0, 1.0, 0.0)
        return Box(low, np.where(box.upper > 0, 1.0, low))
    if not isinstance(op, SmoothOp):
        raise UnsupportedError(f"{type(op).__name__} has no bounded slope")
    least, most = np.full(box.lower.shape, np.inf), np.full(box.lower.shape, -np.inf)
    for piece in op.pieces(box.lower, box.upper):
        for x in (piece.left, piece.right):
            slope = np.broadcast_to(op.slope(x, piece.index), least.shape)
            # Where pieces meet is known up to a float; there curvature is zero or the point exact.
            error = 2 * op.slope_error(x, slope) + LIBRARY * np.minimum(1.0, abs(slope)) + tiny(slope)
            least = np.where(piece.used, np.minimum(least, slope - error), least)
            most = np.where(piece.used, np.maximum(most, slope + error), most)
    if op.profile.monotone:  # only one sign is possible; errors are at most half of what was added
        least, most = (
            np.where(most > -4 * least, np.maximum(least, 0.0), least),
            np.where(least < -4 * most, np.minimum(most, 0.0), most),
        )
    known = (least <= most) & op.defined(box.lower, box.upper) & op.tractable(box.lower, box.upper)
    return Box(*sound_box(*(np.where(known, end, np.nan) for end in (least, most))))


def global_slopes(op: ElementwiseOp, name: str) -> tuple[float, float]:
    """Least and largest slope anywhere.

    Raises:
        UnsupportedError: There is no bound, or none is known.
    """
    everywhere = Box(np.array([[-np.inf]]), np.array([[np.inf]]))
    found = slope_range(op, everywhere) if has_slopes(op) else everywhere
    low, high = float(found.lower[0, 0]), float(found.upper[0, 0])
    if not np.isfinite([low, high]).all():
        raise UnsupportedError(f"no slope of {type(op).__name__} is known that holds everywhere{_at(name)}")
    return low, high


def diagonal_root(network: Network, k: int) -> int | None:
    """The value of which value `k` is a function element by element; None if there is none before it.

    Such as of `a x + b relu(x)`: the nearest value that all paths of elementwise steps lead back to.
    """
    frontier = {k}
    while len(frontier) > 1 or k in frontier:
        last = max(frontier)
        node = network.nodes[last]
        shapes = {network.nodes[i].shape for i in node.inputs}
        fits = isinstance(node.op, Scale | Combine) or has_slopes(node.op)
        if not fits or shapes != {node.shape}:
            return None
        frontier = (frontier - {last}) | set(node.inputs)
    return frontier.pop()


def diagonal_slopes(network: Network, root: int, k: int, boxes: Sequence[Box] | None = None) -> Box:
    """Least and largest slopes, by element, of value `k` as a function of value `root`.

    Args:
        network: Of which both are values.
        root: See `diagonal_root`.
        k: After it.
        boxes: Of all values, `(B, *shape)`: slopes on these regions; None: those that hold everywhere.

    Returns:
        `(B, *shape)`, or `(1, *shape)`.

    Raises:
        UnsupportedError: A step on the way is not elementwise, or has no bounded slope.
    """
    one = np.ones((1, *network.nodes[root].shape))
    found = {root: Box(one, one)}
    for v in _between(network, root, k):
        node = network.nodes[v]
        if isinstance(node.op, ElementwiseOp):
            found[v] = times(found[node.inputs[0]], *_ends(network, v, boxes))
        elif isinstance(node.op, Scale | Combine):
            op = node.op if isinstance(node.op, Combine) else replace(node.op, offset=None, offset_error=None)
            found[v] = Box(*op.interval(*(found[i] for i in node.inputs)))
        else:
            raise unsupported(network, v)
    return found[k]


def _ends(
    network: Network, k: int, boxes: Sequence[Box] | None
) -> tuple[float | np.ndarray, float | np.ndarray]:
    """Least and largest slopes of one elementwise node."""
    node = network.nodes[k]
    assert isinstance(node.op, ElementwiseOp)
    if boxes is None or not has_slopes(node.op):
        return global_slopes(node.op, node.name)
    found = slope_range(node.op, boxes[node.inputs[0]])
    return found.lower, found.upper


def _between(network: Network, root: int, k: int) -> list[int]:
    """The values that `k` is computed from, after the root; `k` is the last one."""
    needed = {k}
    for v in range(k, root, -1):
        if v in needed:
            needed |= {i for i in network.nodes[v].inputs if i > root}
    return sorted(needed)


def times(box: Box, low: float | np.ndarray, high: float | np.ndarray) -> Box:
    """All products of a number of a box and one between `low` and `high`, rounded outward."""
    with np.errstate(invalid="ignore", over="ignore"):
        ends = [a * b for a in (box.lower, box.upper) for b in (low, high)]
    down, up = np.minimum.reduce(ends), np.maximum.reduce(ends)
    pairs = ((low, high), (box.lower, box.upper))
    simple = [np.isin(a, (0.0, 1.0)) & np.isin(b, (0.0, 1.0)) for a, b in pairs]
    same = simple[0] | simple[1]  # products with 0 and 1 are exact
    down, up = (np.where(same, *pair) for pair in ((down, round_down(down)), (up, round_up(up))))
    return Box(*sound_box(down, up))


def unsupported(network: Network, k: int) -> UnsupportedError:
    """The error that says that node `k` has no rule."""
    node = network.nodes[k]
    kind = type(node.op).__name__
    what = "a matrix without known entries" if isinstance(node.op, AffineOp) else "no Lipschitz rule"
    return UnsupportedError(f"{kind} has {what}{_at(node.name)}")


def _at(name: str) -> str:
    return f" (node {name})" if name else ""
