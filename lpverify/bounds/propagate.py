"""Boxes of all values over a batch of regions: interval arithmetic, tightened by backward bounds.

Accepts: any network with a forward interval rule; regions as input boxes with ReLU splits.
Method: values in order; each gets the interval of its op over the boxes so far (Gowal et al. 2018,
arXiv:1810.12715, section 3), intersected with what the parent region has proven; the operands of
nonlinear nodes then get backward bounds, only in elements that are still unstable.
Guarantee: every box contains its value on its region, rounding included; `empty` regions contain no
point at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from math import prod

import numpy as np

from lpverify.bounds.alpha import ascend
from lpverify.bounds.ball import Ball
from lpverify.bounds.forward import form_of, start, tighten
from lpverify.bounds.frame import Frame, centre_lines, first_frame, reference_value, rounding_cost, underflow
from lpverify.bounds.linear import backward
from lpverify.bounds.lines import row_lines
from lpverify.interval import Array, Box, intersect, namespace
from lpverify.multipliers import Effort
from lpverify.network import Network, repeat
from lpverify.ops.base import AffineOp, BilinearOp, ElementwiseOp


@dataclass(frozen=True)
class Region:
    """A batch of regions to bound.

    Attributes:
        box: Input boxes `(B, n)`, float64.
        known: For some values boxes `(B, *shape)` that hold on the region, splits included.
        ball: If given, only inputs that lie in this ball, too, belong to the region.
    """

    box: Box
    known: Mapping[int, Box] = field(default_factory=dict)
    ball: Ball | None = None


@np.errstate(over="ignore", invalid="ignore")  # boxes may be unbounded; what is undefined proves nothing
def propagate(
    network: Network,
    region: Region,
    effort: Effort,
    limit: int,
    reference: Network | None = None,
    like: Array | None = None,
) -> Frame:
    """Bounds all values.

    Args:
        network: With weights in the type of the coefficients.
        region: What to bound.
        effort: `ibp`, or `crown` (interval, then backward bounds for unstable operands) within its budget.
        limit: Largest number of coefficients held at a time, per value, in one backward pass.
        reference: The network in float64; default: `network` itself.
        like: An array in the type of the coefficients; default: that of the region.
    """
    box = region.box
    like = box.lower if like is None else like
    frame = first_frame(network, reference or network, box, like, region.ball)
    worth, left = _worth_refining(frame, region, effort, limit), effort.budget
    forms = _Forms(frame) if effort.forward else None
    for k in range(1, len(network.nodes)):
        empty = _add_box(frame, k, region.known.get(k))
        elementwise = isinstance(network.nodes[k].op, ElementwiseOp)
        if forms is not None and not elementwise:
            empty = empty | forms.add(frame, k)
        frame.costs.append(rounding_cost(frame, k))
        _add_relaxation(frame, k)
        if forms is not None and elementwise:  # made of the lines
            empty = empty | forms.add(frame, k)
        if k in worth:
            refined, spent = _refine(frame, k, limit, left, 0)
            if effort.ascent:
                better, more = _refine(frame, k, limit, left - spent, effort.ascent)
                refined, spent = refined | better, spent + more
            empty, left = empty | refined, left - spent
            frame.costs[k] = rounding_cost(frame, k)
        frame = replace(frame, empty=frame.empty | empty, slack=frame.slack + underflow(frame, k))
    return frame


class _Forms:
    """The forward pass beside the boxes; forms are dropped after their last use."""

    def __init__(self, frame: Frame) -> None:
        self.forward, form = start(frame)
        self.forms = {0: form}
        self.last = {i: k for k, node in enumerate(frame.network.nodes) for i in node.inputs}

    def add(self, frame: Frame, k: int) -> Array:
        """Makes the form of a value and tightens its box; returns which regions are empty."""
        inputs = frame.network.nodes[k].inputs
        self.forms[k] = form_of(frame, k, self.forward, [self.forms[i] for i in inputs])
        for i in set(inputs):
            if self.last[i] == k:
                del self.forms[i]
        return tighten(frame, k, self.forms[k])


def _worth_refining(frame: Frame, region: Region, effort: Effort, limit: int) -> frozenset[int]:
    """Values for which a backward pass may pay: operands of what is not linear on the region anyway."""
    if effort.method == "ibp":
        return frozenset()
    network = frame.network
    products = [n for n in network.nodes if isinstance(n.op, BilinearOp)]
    # The interval of one affine step is exact over a box, but not over a ball.
    refinable = network.refinable if region.ball is None else frozenset(network.pre_activations)
    if not products:
        return refinable
    boxes = propagate(network, region, Effort("ibp"), limit, frame.reference, frame.like).boxes
    fixed = {i for n in products for i in n.inputs if bool((boxes[i].lower == boxes[i].upper).all())}
    linear = {id(n) for n in products if fixed.intersection(n.inputs)}
    needed = {
        i
        for n in network.nodes
        if n.op is not None and not isinstance(n.op, AffineOp) and id(n) not in linear
        for i in n.inputs
    }
    return refinable & needed


def _add_box(frame: Frame, k: int, known: Box | None) -> Array:
    """Appends the interval of one value, intersected with what is known; returns which regions are empty."""
    node, count = frame.reference.nodes[k], frame.empty.shape[0]
    assert node.op is not None
    lower, upper = node.op.interval(*(frame.boxes[i] for i in node.inputs))
    box, empty = Box(repeat(lower, count), repeat(upper, count)), frame.empty
    if known is not None:
        box, empty = intersect(known, box.lower, box.upper)
    frame.boxes.append(box)
    frame.centres.append(reference_value(frame, k))
    return empty


def _add_relaxation(frame: Frame, k: int) -> None:
    """Adaptive lines or planes of a nonlinear node."""
    node = frame.network.nodes[k]
    if isinstance(node.op, ElementwiseOp):
        frame.lines[k] = centre_lines(frame, k, row_lines(frame, k, None))
    elif isinstance(node.op, BilinearOp):
        first, second = (frame.coefficient_box(i) for i in node.inputs)
        frame.planes[k] = node.op.relax(first, second, None)


def _unstable(network: Network, k: int, box: Box) -> Array:
    """Mask `(B, size)` of the elements of value `k` on which some nonlinear consumer isn't linear."""
    xp = namespace(box.lower)
    mask = xp.zeros(box.lower.shape, dtype=xp.bool, device=box.lower.device)
    for node in network.nodes:
        if isinstance(node.op, ElementwiseOp) and node.inputs[0] == k:
            mask = mask | node.op.unstable(box)
        elif isinstance(node.op, BilinearOp) and k in node.inputs:
            mask = mask | (box.lower < box.upper)
    return mask.reshape((mask.shape[0], -1))


def _refine(frame: Frame, k: int, limit: int, budget: float, ascent: int) -> tuple[Array, float]:
    """Backward bounds for the unstable elements of value `k`, in chunks of rows, optimised or not.

    Returns which regions are empty, and the multiplications spent: none if they exceed the budget.
    """
    network, box = frame.network, frame.boxes[k]
    mask, relevant = _unstable(network, k, box), network.relevance(frame.like)[k]
    if relevant is None:
        return frame.empty, 0.0
    xp, mask = namespace(mask), mask & relevant.reshape((1, -1))
    most = int(xp.max(xp.sum(xp.astype(mask, xp.int64), axis=1)))
    cost = 2.0 * most * len(mask) * network.work[k] * (1 + 2 * ascent)
    if most == 0 or cost > budget:
        return frame.empty, 0.0
    # The first `most` columns of the order hold every unstable element of each region; the rest are harmless.
    order = xp.argsort(xp.astype(~mask, xp.int8), axis=1, stable=True)[:, :most]
    sizes = [prod(network.nodes[i].shape) for i in network.ancestors[k]]
    step = max(1, limit // (2 * mask.shape[0] * (4 * sum(sizes) if ascent else max(sizes))))
    lower, upper = box.lower.reshape(mask.shape), box.upper.reshape(mask.shape)
    for first in range(0, most, step):
        chunk = order[:, first : first + step]
        low, high = _element_bounds(frame, k, chunk, ascent)
        lower = _scatter(lower, chunk, xp.maximum(xp.take_along_axis(lower, chunk, axis=1), low))
        upper = _scatter(upper, chunk, xp.minimum(xp.take_along_axis(upper, chunk, axis=1), high))
    shape = box.lower.shape
    frame.boxes[k], empty = intersect(box, lower.reshape(shape), upper.reshape(shape))
    return empty, cost


def _element_bounds(frame: Frame, k: int, chunk: Array, ascent: int) -> tuple[Array, Array]:
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
