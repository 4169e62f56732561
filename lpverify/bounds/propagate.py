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

import numpy as np

from lpverify.bounds.ball import Ball
from lpverify.bounds.forward import form_of, start, tighten
from lpverify.bounds.frame import Frame, centre_lines, first_frame, reference_value, rounding_cost, underflow
from lpverify.bounds.lines import row_lines
from lpverify.bounds.refine import most_spent, refine
from lpverify.interval import Array, Box, intersect
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
            refined, spent = refine(frame, k, limit, left, 0)
            if effort.ascent:
                reserve = sum(most_spent(frame, later) for later in worth if later > k)
                better, more = refine(frame, k, limit, left - spent - reserve, effort.ascent)
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
