"""A ReLU network on one region as a small dense one: only neurons that are unstable there remain.

Accepts: networks of affine nodes and ReLUs, one input box.
Method: values in order, each as an affine function of *symbols*, which are the inputs that have a range and
the results of the unstable neurons so far: `z = c_z + T (v - c_v) + e`. Affine nodes act on all columns of
`T` at once, stable neurons pass their function on or drop it, unstable ones become symbols. Before that the
neurons of a layer that may be unstable are bounded by backward passes through the reduced network so far,
which are products of dense matrices whatever the network is made of. The same neurons that forward symbolic
propagation keeps apart (Singh et al. 2018, section 4) are kept exact here instead of being relaxed.
Guarantee: for every input of the box the reduced network has the network's values for some offsets within
their errors, because `e` holds every rounding error. So bounds of the one are bounds of the other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from lpverify.bounds.alpha import ascend
from lpverify.bounds.evaluate import Arithmetic, to_numpy
from lpverify.bounds.frame import Frame, affine_error, first_frame, radius, reference_value
from lpverify.bounds.linear import backward, centre_value
from lpverify.bounds.propagate import Region, propagate
from lpverify.interval import (
    DOUBLE,
    SUM_INFLATION,
    Array,
    Box,
    gamma,
    namespace,
    round_up,
    smallest,
    sound_box,
    tiny,
    to_double,
    to_type,
)
from lpverify.multipliers import Effort
from lpverify.network import Network, Node
from lpverify.ops.base import AffineOp
from lpverify.ops.linear import Linear
from lpverify.ops.piecewise import Relu
from lpverify.ops.shape import Concat, Gather
from lpverify.problem import Problem

MEMORY = 1.5e9  # bytes that the functions of one value may take
NEARLY = 2.0**-12  # of its width: neurons that are stable by less stay, so that others find the same ones
WIDE = 4.0  # times the budget's multiplications that one costs in double precision, outside of dense products
VANISHING = 1e-30  # weights below become errors; single precision would lose them


@dataclass(frozen=True)
class Reduced:
    """What is left of a problem on one region.

    Attributes:
        problem: With the reduced network; for the region's case alone.
        arithmetic: For it, of the same kind.
        known: Boxes of its ReLUs' operands, `(*shape)`, lower and upper.
        kept: For each ReLU's operand in the whole network the flat elements that remain, in order.
        boxes: For the same operands the boxes of all elements, float64 `(1, *shape)`.
        empty: The region contains no point at all.
    """

    problem: Problem
    arithmetic: Arithmetic
    known: Mapping[int, tuple[Array, Array]]
    kept: Mapping[int, np.ndarray]
    boxes: Mapping[int, Box]
    empty: bool


@dataclass(frozen=True)
class _Form:
    """`c + T (v - c_v) + e`, `|e| <= error`.

    Attributes:
        slopes: `T`, `(symbols that were known then, *shape)`.
        centre: `c`, `(1, *shape)`.
        error: `(1, *shape)`.
    """

    slopes: Array
    centre: Array
    error: Array


def reduce(
    problem: Problem,
    arithmetic: Arithmetic,
    box: Box,
    effort: Effort,
    known: Mapping[int, Box] | None = None,
    kept: Mapping[int, np.ndarray] | None = None,
) -> Reduced | None:
    """Reduces a problem on one box.

    Args:
        problem: Its network consists of affine nodes and ReLUs.
        arithmetic: For it.
        box: `(1, n)`, placed where the arithmetic's arrays are.
        effort: `ascent` steps, and a `budget`: where that does not suffice for the backward bounds of a value
            it keeps its interval, where it does not suffice for the network there is no reduction.
        known: Boxes of values of the network that hold on the region, `(1, *shape)`.
        kept: The elements that have to remain, others being found stable; default: all unstable ones.

    Returns:
        None where that is not possible: other nodes, too much memory or work, undefined numbers, an element
        that should be stable and is not.
    """
    free = int(to_numpy(box.lower < box.upper).sum())
    if 8.0 * free * max(prod(node.shape) for node in problem.network.nodes) > MEMORY:
        return None
    with np.errstate(over="ignore", invalid="ignore"):
        small = _Small(arithmetic, box, effort)
        form = _walk(small, known or {}, kept)
        if form is None and not small.empty:
            return None
        return small.result(problem, form)


def reduce_again(
    problem: Problem,
    arithmetic: Arithmetic,
    box: Box,
    efforts: Sequence[Effort],
    kept: Mapping[int, np.ndarray] | None = None,
) -> Reduced | None:
    """Reduces several times, each time from the boxes found before; `kept` is for the last time."""
    reduced, boxes = None, dict[int, Box]()
    for i, effort in enumerate(efforts, start=1):
        reduced = reduce(problem, arithmetic, box, effort, boxes, kept if i == len(efforts) else None)
        if reduced is None or reduced.empty:
            return reduced
        boxes = dict(reduced.boxes)
    return reduced


def _walk(small: "_Small", known: Mapping[int, Box], wanted: Mapping[int, np.ndarray] | None) -> _Form | None:
    """The function of the network's result; the functions of values are dropped after their last use."""
    network = small.arithmetic.reference
    last = {i: k for k, node in enumerate(network.nodes) for i in node.inputs}
    whole = first_frame(network, network, small.box, small.box.lower)
    forms = {0: small.inputs()}
    for k, node in enumerate(network.nodes[1:], start=1):
        form = None
        if isinstance(node.op, AffineOp):
            form = _affine(small, whole, k, [forms[i] for i in node.inputs])
        elif isinstance(node.op, Relu):
            i = node.inputs[0]
            chosen = None if wanted is None else _elements(wanted.get(i, ()), prod(node.shape))
            form = small.rectify(i, forms[i], known.get(i), chosen)
        if form is None or small.empty:
            return None
        forms[k] = form
        whole.centres[k:] = [form.centre]
        for i in set(node.inputs):
            if last[i] == k:
                del forms[i]
    return forms[network.output]


def _elements(wanted: Sequence[int] | np.ndarray, size: int) -> np.ndarray:
    """Each element once, and only such as there are."""
    chosen = np.unique(np.asarray(wanted, np.int64))
    return chosen[(chosen >= 0) & (chosen < size)]


def _affine(small: "_Small", whole: Frame, k: int, operands: Sequence[_Form]) -> _Form | None:
    """All columns go through the linear part, errors through its absolute values."""
    node = whole.network.nodes[k]
    assert isinstance(node.op, AffineOp)
    columns = len(small.radii)
    sizes = [prod(node.shape), *(prod(whole.network.nodes[i].shape) for i in node.inputs)]
    if 8.0 * columns * sum(sizes) > MEMORY or not small.pay(columns * WIDE * node.op.work(sizes[0])):
        return None
    whole.centres.append(reference_value(whole, k))
    centre, error = whole.centres[k], affine_error(whole, k)
    xp = namespace(centre)
    if not operands:
        slopes = xp.zeros((columns, *node.shape), dtype=centre.dtype, device=centre.device)
        return _Form(slopes, centre, xp.zeros_like(centre) + error)
    relative = node.op.error_factors(centre)[0] * 1.01
    # Underflow of the products of the slopes before, and of those here.
    lost = smallest(centre) * (max(node.op.terms) + 8.0) * float(1.0 + small.radii.sum())
    terms = (f.error * (1 + relative) + relative * small.reach(f)[None] + lost for f in operands)
    error = (node.op.magnitude(*terms) + error + lost) * SUM_INFLATION
    slopes = node.op.linear(*(_widened(f.slopes, columns) for f in operands))
    if not bool(xp.isfinite(slopes).all() & xp.isfinite(error).all()):
        return None
    return _Form(slopes, centre, error)


def _widened(slopes: Array, columns: int) -> Array:
    """With zero columns for symbols that came later."""
    xp, missing = namespace(slopes), columns - len(slopes)
    zeros = xp.zeros((missing, *slopes.shape[1:]), dtype=slopes.dtype, device=slopes.device)
    return xp.concat([slopes, zeros], axis=0) if missing else slopes


class _Small:
    """The reduced network as far as it is built, and the symbols: its inputs and the results of its ReLUs."""

    def __init__(self, arithmetic: Arithmetic, box: Box, effort: Effort) -> None:
        self.arithmetic, self.box, self.effort = arithmetic, box, effort
        self.left, self.weights, self.empty = effort.budget, 0.0, False
        self.known: dict[int, Box] = {}
        self.kept: dict[int, np.ndarray] = {}
        self.boxes: dict[int, Box] = {}
        size = arithmetic.network.input_size
        self.nodes = [Node(None, (), (size,))]
        self.free = np.flatnonzero(to_numpy(box.lower < box.upper)[0])
        if 0 < len(self.free) < size:
            chosen = Gather(tuple(int(i) for i in self.free), 0, (size,))
            self.nodes.append(Node(chosen, (0,), (len(self.free),)))
        self._update()

    def _update(self) -> None:
        """Boxes, centres and radii of the symbols, which are the elements of the last node's value."""
        network = Network(tuple(self.nodes), len(self.nodes) - 1)
        small = self.small = self.arithmetic.for_network(network)
        region, arguments = Region(self.box, self.known), (small.limit, small.reference, small.like)
        self.frame = propagate(small.network, region, Effort("ibp"), *arguments)
        self.centres, self.radii = self.frame.centres[-1][0], radius(self.frame, network.output)[0]
        box = self.frame.boxes[-1].rows(0)
        self.middle = 0.5 * box.lower + 0.5 * box.upper
        half = namespace(box.lower).maximum(box.upper - self.middle, self.middle - box.lower)
        self.half = round_up(half + abs(self.middle) * DOUBLE)
        self.empty = self.empty or bool(self.frame.empty.any())

    def pay(self, cost: float) -> bool:
        """Takes something from the budget, if there is so much left."""
        if cost > self.left:
            return False
        self.left -= cost
        return True

    def inputs(self) -> _Form:
        """The function of the inputs; those without a range are constants."""
        slopes = np.zeros((len(self.radii), self.arithmetic.network.input_size))
        slopes[np.arange(len(self.free)), self.free] = 1.0
        centre = self.frame.centres[0]
        return _Form(self.arithmetic.place(slopes), centre, namespace(centre).zeros_like(centre))

    def reach(self, form: _Form) -> Array:
        """How far the slopes' part gets from zero, `(*shape)`, up to rounding of the sum."""
        flat = abs(form.slopes.reshape((len(form.slopes), -1)))
        return (self.radii[: len(flat)] @ flat).reshape(form.slopes.shape[1:])

    def rectify(self, value: int, form: _Form, hint: Box | None, wanted: np.ndarray | None) -> _Form | None:
        """The function of a ReLU's result; its operand's unstable elements become symbols."""
        shape = form.centre.shape
        low, high = self._interval(form, hint)
        flat = _flat(form)
        for ascent in (0, self.effort.ascent)[: 1 + bool(self.effort.ascent)]:
            low, high = self._bound(flat, low, high, ascent)
        if bool((low > high).any()):
            self.empty = True
            return None
        self.boxes[value] = Box(low.reshape(shape), high.reshape(shape))
        chosen = _unstable(low, high) if wanted is None else wanted
        stable = to_numpy((low >= 0) | (high <= 0))
        if not np.delete(stable, chosen).all():
            return None
        self.kept[value] = chosen
        self.weights += 12.0 * len(chosen) * len(self.radii)
        if self.weights > MEMORY:
            return None
        if len(chosen):
            self._append(_picked(flat, chosen), low[chosen], high[chosen])
        return self._rectified(flat, low, chosen, form.slopes.shape[1:])

    def _interval(self, form: _Form, hint: Box | None) -> tuple[Array, Array]:
        """The range of a function over the symbols' boxes, flat."""
        xp, columns = namespace(form.centre), len(form.slopes)
        flat = form.slopes.reshape((columns, -1))
        middle, half = self.middle[:columns] - self.centres[:columns], self.half[:columns]
        shift, reach = (v.reshape(form.centre.shape) for v in (middle @ flat, half @ abs(flat)))
        rounding = gamma(columns + 8, DOUBLE) * (abs(form.centre) + 2 * self.reach(form)[None] + reach)
        spread = reach + (form.error + rounding) * SUM_INFLATION
        spread = spread + tiny(spread)
        low, high = sound_box(form.centre + shift - spread, form.centre + shift + spread)
        if hint is not None:
            low, high = xp.maximum(low, hint.lower), xp.minimum(high, hint.upper)
        return low.reshape(-1), high.reshape(-1)

    def _bound(self, form: _Form, low: Array, high: Array, ascent: int) -> tuple[Array, Array]:
        """Tighter ends for the elements that may be unstable, by backward bounds within the budget."""
        xp, chosen = namespace(low), np.flatnonzero(to_numpy((low < 0) & (high > 0)))
        network = self.small.network
        cost = 2.0 * len(chosen) * network.work[network.output] * (1 + 2 * ascent)
        if not self.known or not len(chosen) or not self.pay(cost):
            return low, high
        low, high = (xp.asarray(end, copy=True) for end in (low, high))
        step = max(1, self.small.limit // (2 * len(self.radii) * (4 if ascent else 1)))
        for first in range(0, len(chosen), step):
            part = chosen[first : first + step]
            below, above = self._backward(_picked(form, part), ascent)
            low[part], high[part] = xp.maximum(low[part], below), xp.minimum(high[part], above)
        return low, high

    def _backward(self, form: _Form, ascent: int) -> tuple[Array, Array]:
        """Ends of some functions of the symbols."""
        frame, value = self.frame, self.small.network.output
        rows, offset, error = self._rows(form)
        xp, count = namespace(rows), len(offset)
        seeds = xp.concat([rows, -rows], axis=0)[None]
        if ascent:
            values = ascend(frame, seeds, value, ascent)
        else:
            at = centre_value(seeds, frame.centres[value])
            values = backward(frame, value, seeds, at).concretize(frame.boxes[0])
        offset = xp.concat([offset, -offset])
        ends = values[0] + offset
        ends = ends - (xp.concat([error, error]) + 2 * DOUBLE * (abs(ends) + abs(offset))) * SUM_INFLATION
        ends = xp.where(ends == ends, ends, xp.full_like(ends, -float("inf")))
        return ends[:count], -ends[count:]

    def _rows(self, form: _Form) -> tuple[Array, Array, Array]:
        """`(rows, offset, error)` with `|c + T (v - c_v) + e - rows . v - offset| <= error`."""
        xp, like = namespace(form.slopes), self.small.like
        exact = _widened(form.slopes, len(self.radii)).T
        small = abs(exact) < VANISHING
        rows = to_type(xp.where(small, xp.zeros_like(exact), exact), like)
        wide, size = to_double(rows), len(self.radii) + 4
        error = form.error + abs(wide - exact) @ self.radii
        product = wide @ self.centres
        magnitude = abs(wide) @ abs(self.centres) + abs(form.centre)
        error = error + gamma(size, DOUBLE) * (error + magnitude) + tiny(error)
        return rows, form.centre - product, error * SUM_INFLATION

    def _append(self, form: _Form, low: Array, high: Array) -> None:
        """Adds unstable neurons to the network; their results are further symbols."""
        symbols, size = len(self.nodes) - 1, len(self.radii)
        rows, offset, error = self._rows(form)
        linear = _linear(rows, offset, error)
        count = len(linear.weight)
        self.nodes += [
            Node(linear, (symbols,), (count,)),
            Node(Relu(), (symbols + 1,), (count,)),
            Node(Concat(0, (size, count)), (symbols, symbols + 2), (size + count,)),
        ]
        self.known[symbols + 1] = Box(low[None], high[None])
        self._update()

    def _rectified(self, flat: _Form, low: Array, chosen: np.ndarray, shape: tuple[int, ...]) -> _Form:
        """Active elements pass their function on, inactive ones are zero, the chosen ones are symbols."""
        xp = namespace(low)
        active = xp.astype(low >= 0, low.dtype)
        active[chosen] = 0.0
        first = len(self.radii) - len(chosen)
        slopes = _widened(flat.slopes * active, len(self.radii))
        slopes[np.arange(first, len(self.radii)), chosen] = 1.0
        centre = flat.centre * active
        centre[chosen] = self.centres[first:]
        return _Form(
            slopes.reshape((-1, *shape)),
            centre.reshape((1, *shape)),
            (flat.error * active).reshape((1, *shape)),
        )

    def result(self, problem: Problem, form: _Form | None) -> Reduced:
        """Everything, with the network's result as last value; without it the region is empty."""
        known = {k: (box.lower[0], box.upper[0]) for k, box in self.known.items()}
        if form is not None:
            flat = _flat(form)
            rows, offset, error = self._rows(flat)
            linear = _linear(rows, offset, error)
            self.nodes.append(Node(linear, (len(self.nodes) - 1,), (len(linear.weight),), "query"))
        network = Network(tuple(self.nodes), len(self.nodes) - 1)
        arithmetic = self.arithmetic.for_network(network)
        return Reduced(
            replace(problem, network=network), arithmetic, known, self.kept, self.boxes, self.empty
        )


def _linear(rows: Array, offset: Array, error: Array) -> Linear:
    weight = np.ascontiguousarray(to_numpy(to_double(rows)))
    return Linear(weight, to_numpy(offset), offset_error=to_numpy(error))


def _flat(form: _Form) -> _Form:
    """The same with one axis of elements."""
    slopes = form.slopes.reshape((len(form.slopes), -1))
    return _Form(slopes, form.centre.reshape(-1), form.error.reshape(-1))


def _picked(form: _Form, chosen: np.ndarray) -> _Form:
    """The functions of some elements, flat."""
    return _Form(form.slopes[:, chosen], form.centre[chosen], form.error[chosen])


def _unstable(low: Array, high: Array) -> np.ndarray:
    """Flat indices of elements whose sign is open, or nearly so."""
    margin = NEARLY * (high - low)
    return np.flatnonzero(to_numpy((low < margin) & (high > -margin) & (low < high)))
