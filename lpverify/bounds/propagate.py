"""Boxes of all values over a batch of regions: interval arithmetic, tightened by backward bounds.

Accepts: any network with a forward interval rule; regions as input boxes with ReLU splits.
Method: values in order; each gets the interval of its op over the boxes so far (Gowal et al. 2018,
arXiv:1810.12715, section 3), intersected with what the parent region has proven; the operands of
nonlinear nodes then get backward bounds, only in elements that are still unstable.
Guarantee: every box contains its value on its region, rounding included; `empty` regions contain no
point at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from lpverify.bounds.linear import backward, rounding_cost
from lpverify.interval import Array, Box, intersect, namespace
from lpverify.multipliers import Method
from lpverify.network import Network, repeat
from lpverify.ops.base import AffineOp, ElementwiseOp, Lines


@dataclass(frozen=True)
class Region:
    """A batch of regions to bound.

    Attributes:
        box: Input boxes `(B, n)`.
        known: For some values boxes `(B, *shape)` that hold on the region, splits included.
    """

    box: Box
    known: Mapping[int, Box] = field(default_factory=dict)


@dataclass
class Bounds:
    """Boxes of all values `(B, *shape)`, their rounding costs and the lines of the nonlinear nodes.

    Attributes:
        empty: `(B,)`: regions proven to contain no point; their other entries mean nothing.
    """

    boxes: list[Box]
    costs: list[Array]
    lines: dict[int, Lines]
    empty: Array

    def entry(self, i: int) -> "Bounds":
        """The bounds of one region as a batch of one."""
        one = slice(i, i + 1)
        lines = {
            k: Lines(*(None if v is None else v[one] for v in (getattr(n, f) for f in n.__slots__)))
            for k, n in self.lines.items()
        }
        return Bounds([b.rows(one) for b in self.boxes], [c[one] for c in self.costs], lines, self.empty[one])

    def known(self, network: Network) -> dict[int, Box]:
        """What a child region may take over: the boxes of the nonlinear nodes' operands."""
        return {k: self.boxes[k] for k in network.pre_activations}


def propagate(
    network: Network, region: Region, method: Method, limit: int, last: int | None = None
) -> Bounds:
    """Bounds all values up to `last` (default: all).

    Args:
        method: `ibp` or `crown` (interval, then backward bounds for unstable operands).
        limit: Largest number of coefficients held at a time, per value, in one backward pass.
    """
    xp = namespace(region.box.lower)
    count = region.box.lower.shape[0]
    bounds = Bounds([region.box], [], {}, xp.zeros((count,), dtype=xp.bool, device=region.box.lower.device))
    bounds.costs.append(rounding_cost(network, bounds.boxes, 0))
    for k in range(1, (len(network.nodes) - 1 if last is None else last) + 1):
        _add_box(network, k, region, bounds)
        if k in network.pre_activations and method == "crown" and k in _worth_refining(network):
            _refine(network, k, bounds, limit)
        _add_cost(network, k, bounds)
    return bounds


def _add_box(network: Network, k: int, region: Region, bounds: Bounds) -> None:
    """The interval of one value, intersected with what is known."""
    node, count = network.nodes[k], region.box.lower.shape[0]
    assert node.op is not None
    lower, upper = node.op.interval(*(bounds.boxes[i] for i in node.inputs))
    box = Box(repeat(lower, count), repeat(upper, count))
    known = region.known.get(k)
    if known is not None:
        box, empty = intersect(known, box.lower, box.upper)
        bounds.empty = bounds.empty | empty
    bounds.boxes.append(box)


def _add_cost(network: Network, k: int, bounds: Bounds) -> None:
    op = network.nodes[k].op
    bounds.costs.append(rounding_cost(network, bounds.boxes, k))
    if isinstance(op, ElementwiseOp):
        bounds.lines[k] = row_lines(op, bounds.boxes[network.nodes[k].inputs[0]], None)


def row_lines(op: ElementwiseOp, box: Box, alpha: Array | None) -> Lines:
    """Lines with a row axis: arrays `(B, 1 or R, *shape)` for a box `(B, *shape)`."""
    return op.relax(Box(box.lower[:, None], box.upper[:, None]), alpha)


def _worth_refining(network: Network) -> frozenset[int]:
    """Values for which a backward pass can beat the interval: not one affine step from the input."""
    depth = [0] * len(network.nodes)
    for k, node in enumerate(network.nodes[1:], start=1):
        before = max((depth[i] for i in node.inputs), default=0)
        rounds = not isinstance(node.op, AffineOp) or node.op.terms != (0, 0)
        depth[k] = before + rounds
    return frozenset(k for k in network.pre_activations if depth[k] > 1)


def _unstable(network: Network, k: int, box: Box) -> Array:
    """Mask `(B, size)` of the elements of value `k` on which some nonlinear consumer isn't linear."""
    xp = namespace(box.lower)
    mask = xp.zeros(box.lower.shape, dtype=xp.bool, device=box.lower.device)
    for node in network.nodes:
        if isinstance(node.op, ElementwiseOp) and node.inputs[0] == k:
            mask = mask | node.op.unstable(box)
    return mask.reshape((mask.shape[0], -1))


def _refine(network: Network, k: int, bounds: Bounds, limit: int) -> None:
    """Backward bounds for the unstable elements of value `k`, in chunks of rows."""
    box = bounds.boxes[k]
    mask = _unstable(network, k, box)
    xp = namespace(mask)
    most = int(xp.max(xp.sum(xp.astype(mask, xp.int64), axis=1)))
    if most == 0:
        return
    bounds.costs.append(rounding_cost(network, bounds.boxes, k))
    # The first `most` columns of the order hold every unstable element of each region; the rest are harmless.
    order = xp.argsort(xp.astype(~mask, xp.int8), axis=1, stable=True)[:, :most]
    widest = max(prod_shape(network, i) for i in network.ancestors[k])
    step = max(1, limit // (2 * mask.shape[0] * widest))
    lower, upper = box.lower.reshape(mask.shape), box.upper.reshape(mask.shape)
    for first in range(0, most, step):
        chunk = order[:, first : first + step]
        low, high = _element_bounds(network, k, chunk, bounds, lower)
        lower = _scatter(lower, chunk, xp.maximum(xp.take_along_axis(lower, chunk, axis=1), low))
        upper = _scatter(upper, chunk, xp.minimum(xp.take_along_axis(upper, chunk, axis=1), high))
    bounds.costs.pop()
    shape = box.lower.shape
    bounds.boxes[k], empty = intersect(box, lower.reshape(shape), upper.reshape(shape))
    bounds.empty = bounds.empty | empty


def _element_bounds(
    network: Network, k: int, chunk: Array, bounds: Bounds, like: Array
) -> tuple[Array, Array]:
    """Lower and upper bounds `(B, r)` of the chosen elements, in the type of `like`, rounded outward."""
    xp = namespace(like)
    count, rows = chunk.shape
    size = like.shape[1]
    unit = xp.astype(chunk[:, :, None] == xp.arange(size, device=like.device)[None, None, :], like.dtype)
    seeds = xp.concat([unit, -unit], axis=1).reshape((count, 2 * rows, *network.nodes[k].shape))
    linear = backward(network, k, seeds, bounds.costs, bounds.lines)
    values = narrow(linear.concretize(bounds.boxes[0]), like)
    return values[:, :rows], -values[:, rows:]


def narrow(lower: Array, like: Array) -> Array:
    """Float64 lower bounds in the type of `like`, rounded down."""
    if lower.dtype == like.dtype:
        return lower
    xp = namespace(like)
    cast = xp.astype(lower, like.dtype)
    return xp.nextafter(cast, xp.full_like(cast, -float("inf")))


def _scatter(target: Array, columns: Array, values: Array) -> Array:
    """A copy of `target` `(B, n)` with `values` `(B, r)` at `columns`."""
    xp = namespace(target)
    result = xp.asarray(target, copy=True)
    rows = xp.arange(target.shape[0], device=target.device)[:, None]
    result[rows, columns] = values
    return result


def prod_shape(network: Network, k: int) -> int:
    """Number of elements of a value."""
    size = 1
    for n in network.nodes[k].shape:
        size *= n
    return size
