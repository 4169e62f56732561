"""How far a float32 evaluation of a network may be from the exact one: a bound from the network itself.

Method: to first order the error of an output is the sum of `g e` over the roundings `e` of all values, `g`
being the output's derivative by that value (Higham 2002, section 3.8). A backward pass gives every `g`, so
errors that cancel do so in the bound as well, which they don't where absolute values are passed on.
Constants that were rounded once are wrong in the same direction at every use: their shares are added up.
The roundings of the arithmetic are at most `u |result|` each; both the sum of them and, with independent
signs, `SIGMAS` times the root of the sum of their squares bound what they add up to (Hoeffding 1963; Higham
and Mary 2019, SIAM J. Sci. Comput. 41(5), section 2). The smaller one counts.
Guarantee: to first order; of the second kind, it fails with a chance of 2 exp(-SIGMAS^2 / 2) < 1e-13.

Where a function jumps there is no such bound: `Estimate.sure` tells the points whose values are all farther
from jumps than `SIGMAS` times their own spread, which is passed on from value to value as if independent.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from lpverify.interval import Box
from lpverify.network import Network, repeat
from lpverify.ops import elementary
from lpverify.ops.base import AffineOp, BilinearOp, Op, SelectionOp
from lpverify.ops.linear import Scale
from lpverify.ops.piecewise import Relu
from lpverify.ops.smooth import SmoothOp

# Of one operation: the relative error, and the absolute one where results underflow.
UNITS = {
    "bfloat16": (2.0**-8, 2.0**-126),
    "float16": (2.0**-11, 2.0**-14),
    "float32": (2.0**-24, 2.0**-126),
    "float64": (2.0**-50, 2.0**-1022),  # covers the rounding of the exact values here, too
}
SIGMAS = 8.0
LIBRARY = 4  # roundings granted to one function of a mathematical library
MOST_NUMBERS = 2**24  # held at a time, roughly

Array = np.ndarray


@dataclass(frozen=True)
class Estimate:
    """At points `(N, n)` some outputs and how far a rounded evaluation may be from them.

    Attributes:
        values: The exact values `(N, R)`.
        bounds: Of their errors; infinite if not sure.
        sure: Mask `(N,)` of the points whose values are not near a jump.
    """

    values: Array
    bounds: Array
    sure: Array


@dataclass(frozen=True)
class Rounding:
    """The errors that are made in computing one value.

    Attributes:
        fixed: Bound of the error from rounded constants.
        once: Bound of one rounding of the arithmetic.
        count: Number of such roundings behind one element.
    """

    fixed: Array
    once: Array
    count: int

    @property
    def spread(self) -> Array:
        return np.hypot(self.fixed, np.sqrt(self.count) * self.once)

    def rows(self, mask: Array) -> "Rounding":
        return Rounding(self.fixed[mask], self.once[mask], self.count)


@dataclass(frozen=True)
class Trace:
    """All values of a batch of points, with the errors made in each and the spread of all errors in each."""

    values: list[Array]
    roundings: list[Rounding]
    spreads: list[Array]
    sure: Array

    def of_sure_points(self) -> "Trace":
        """The part whose outputs can be bounded."""
        mask = self.sure
        if mask.all():
            return self
        values, spreads = ([array[mask] for array in arrays] for arrays in (self.values, self.spreads))
        return Trace(values, [rounding.rows(mask) for rounding in self.roundings], spreads, mask[mask])


def estimate(network: Network, x: Array, outputs: Array, kind: str = "float32") -> Estimate:
    """Evaluates the network at `x`; bounds what rounding does to the outputs numbered `outputs` `(N, R)`."""
    squares = [None if node.op is None else _squared(node.op) for node in network.nodes]
    step = max(1, MOST_NUMBERS // (5 * sum(prod(node.shape) for node in network.nodes)))
    found = []
    for start in range(0, len(x), step):
        part = slice(start, start + step)
        with np.errstate(all="ignore"):
            run = _trace(network, squares, x[part], *UNITS[kind])
            sure, bounds = run.of_sure_points(), np.full(outputs[part].shape, np.inf)
            for row, column in enumerate(outputs[part][run.sure].T if run.sure.any() else ()):
                bounds[run.sure, row] = _bound(network, sure, column)
        found.append(
            (np.take_along_axis(run.values[network.output], outputs[part], axis=1), bounds, run.sure)
        )
    return Estimate(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def _squared(op: Op) -> Op:
    """The op with squared weights, for variances of independent errors."""
    weight = getattr(op, "weight", None)
    if hasattr(weight, "power"):  # sparse
        return replace(op, weight=weight.power(2))  # type: ignore[type-var]
    return op.convert(np.square) if isinstance(op, AffineOp) else op


def _trace(network: Network, squares: Sequence[Op | None], x: Array, unit: float, tiny: float) -> Trace:
    zero, foldable = np.zeros_like(x), _foldable(network)
    run = Trace([x], [Rounding(zero, zero, 0)], [zero], np.ones(len(x), bool))
    for k, node in enumerate(network.nodes[1:], start=1):
        xs, spreads = [run.values[i] for i in node.inputs], [run.spreads[i] for i in node.inputs]
        y = repeat(node.op.forward(*xs), len(x))
        arriving, near = _arriving(node.op, squares[k], xs, spreads, y)
        rounding = _rounding(node.op, xs, y, unit, tiny)
        if k in foldable:  # factors in the weights: rounded, and sums of whole numbers are no more
            rounding = replace(rounding, fixed=rounding.fixed + 2 * rounding.once)
        elif isinstance(node.op, AffineOp) and not node.op.weight_error:
            rounding = _without_whole_sums(rounding, arriving, y, unit)
        run.values.append(y)
        run.roundings.append(rounding)
        run.spreads.append(np.hypot(arriving, rounding.spread))
        run.sure[near] = False
    return run


def _foldable(network: Network) -> set[int]:
    """Values that are multiplied by constants right away: implementations put those into the weights."""
    scaled = {i for node in network.nodes if isinstance(node.op, Scale) for i in node.inputs}
    return {k for k in scaled if isinstance(network.nodes[k].op, AffineOp)}


def _arriving(op: Op, square: Op, xs: list[Array], spreads: list[Array], y: Array) -> tuple[Array, Array]:
    """The spread of a value for exact arithmetic on operands with errors; the points that are near a jump."""
    never = np.zeros(len(y), bool)
    if isinstance(op, SelectionOp):
        return repeat(op.abs_linear(*spreads), len(y)), never
    variances = [s * s for s in spreads]
    if isinstance(op, AffineOp):
        return np.sqrt(square.abs_linear(*variances)), never
    if isinstance(op, BilinearOp):
        first, second = (x * x for x in xs)
        return np.sqrt(op.magnitude(first, variances[1]) + op.magnitude(variances[0], second)), never
    boxes = [_around(x, SIGMAS * spread) for x, spread in zip(xs, spreads, strict=True)]
    low, high = op.interval(*boxes)
    reach = np.nan_to_num(np.maximum(high - y, y - low), nan=np.inf)
    if isinstance(op, SmoothOp):
        return reach / SIGMAS, never
    widest = np.maximum.reduce([_most(spread) for spread in spreads])
    return reach / SIGMAS, _most(reach) > 4 * SIGMAS * widest  # others don't stretch by that, but at jumps


def _most(array: Array) -> Array:
    """The largest element of each point."""
    return array.reshape(len(array), -1).max(axis=1)


def _around(x: Array, radius: Array) -> Box:
    """Unbounded where anything is undefined."""
    known = np.isfinite(x) & np.isfinite(radius)
    return Box(np.where(known, x - radius, -np.inf), np.where(known, x + radius, np.inf))


def _rounding(op: Op, xs: list[Array], y: Array, unit: float, tiny: float) -> Rounding:
    """What an implementation of the op may round, in any order of summation."""
    zero = np.zeros_like(y)
    if isinstance(op, SelectionOp):
        return Rounding(zero + _constants(op, unit), zero, 0)
    if isinstance(op, AffineOp):
        size = op.abs_linear(*map(np.abs, xs))
        fixed = op.weight_error * (unit * 2.0**53) * size + _constants(op, unit)
        offset = 0.0 if op.offset is None else np.abs(op.offset)
        return Rounding(fixed, unit * (size + offset) + tiny, op.terms[0] + 1)
    if isinstance(op, BilinearOp):
        return Rounding(zero, unit * op.magnitude(*map(np.abs, xs)) + tiny, op.terms)
    if not isinstance(op, SmoothOp):
        return Rounding(zero, zero, 0)
    # Sigmoids and their like are approximated with an absolute error, or built of steps as large as x.
    size = np.abs(y) if type(op).__module__ == elementary.__name__ else np.abs(y) + np.abs(xs[0])
    return Rounding(LIBRARY * (unit * size + tiny), zero, 0)


def _constants(op: AffineOp, unit: float) -> Array | float:
    """Errors of an offset: the steps of its computation, if any, are as many in float64 as in float32."""
    if op.offset is None:
        return 0.0
    error = 0.0 if op.offset_error is None else op.offset_error * (unit * 2.0**53)
    kept = op.offset.astype(np.float32) == op.offset if unit < 2.0**-11 else False
    return error + np.where(kept, 0.0, 2 * unit * np.abs(op.offset))


def _without_whole_sums(rounding: Rounding, arriving: Array, y: Array, unit: float) -> Rounding:
    """Whole numbers below `1 / unit` are added and multiplied exactly, if they are right themselves."""
    size = np.rint(rounding.once / unit)
    whole = (y == np.rint(y)) & (np.abs(rounding.once - size * unit) < 1e-12 * unit) & (size < 1 / unit)
    return replace(rounding, once=np.where(whole & (arriving == 0), 0.0, rounding.once))


def _bound(network: Network, run: Trace, column: Array) -> Array:
    """Of the error of one output for each point: number `column[i]` at point i."""
    seed = np.zeros_like(run.values[network.output])
    seed[np.arange(len(column)), column] = 1.0
    pending, fixed, total, squares = {network.output: seed}, 0.0, 0.0, 0.0
    for k in range(network.output, 0, -1):
        gradient = pending.pop(k, None)
        if gradient is None or not gradient.any():
            continue
        node, rounding = network.nodes[k], run.roundings[k]
        once = _shares(gradient, rounding.once)
        fixed = fixed + _shares(gradient, rounding.fixed).sum(axis=1)
        total = total + rounding.count * once.sum(axis=1)
        squares = squares + rounding.count * (once * once).sum(axis=1)
        for i, part in zip(node.inputs, _backward(node.op, node.inputs, gradient, run), strict=True):
            pending[i] = pending[i] + part if i in pending else part
    return fixed + np.minimum(total, SIGMAS * np.sqrt(squares))


def _shares(gradient: Array, error: Array) -> Array:
    """`|g e|` in rows, zero where `g` is, even if the error is unbounded."""
    product = np.where(gradient != 0, np.abs(gradient) * error, 0.0)
    return product.reshape(len(product), -1)


def _backward(op: Op, inputs: Sequence[int], gradient: Array, run: Trace) -> Sequence[Array]:
    """The derivatives; a rectifier is open as soon as errors might open it."""
    if isinstance(op, Relu):
        return (gradient * (run.values[inputs[0]] > -SIGMAS * run.spreads[inputs[0]]),)
    parts = op.vjp(gradient, [run.values[i] for i in inputs])
    if isinstance(op, SmoothOp):  # not NaN where a saturated function has slope zero times infinity
        return (np.where(gradient == 0, 0.0, parts[0]),)
    return parts
