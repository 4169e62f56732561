"""The frame of a batch of regions: boxes, a reference run, lines around it, and what rounding costs.

All coefficients act on *deviations* from a reference run `c` of the network (a plain evaluation at the
centre of the input box, in float64). For an affine value `z = W x + b` and rows `a`

    a (z - c_z) = (a W) (x - c_x) + a d,    d = W c_x + b - c_z,

where `d` is at the level of float64 rounding, and the error of the computed `a W` is multiplied by the
*radius* of x around `c_x`, not by its magnitude: `|fl(a W) - a W| . |x - c_x| <= gamma |a| . (|W| r_x)`.
The vector `|W| r_x` does not depend on the row; it is computed once and each row pays one dot product. So
float32 coefficients give bounds nearly as tight as float64 ones, with every rounding error covered.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from math import prod
from typing import TypeVar

from lpverify.bounds.ball import Ball
from lpverify.interval import (
    DOUBLE,
    SUM_INFLATION,
    Array,
    Box,
    dot_error,
    namespace,
    smallest,
    tiny,
    to_double,
    to_type_down,
    to_type_up,
    unit_roundoff,
)
from lpverify.network import Network
from lpverify.ops.base import AffineOp, BilinearOp, Lines, Planes


@dataclass(frozen=True, slots=True)
class CentredLines:
    """Lines around the reference: `f(z) - c_f >= slope (z - c_z) + gain` (lower), `<=` (upper).

    Attributes:
        lower_slope: `(B, 1 or R, *shape)`, in the type of the coefficients, like the others.
        upper_slope: The same.
        lower_gain: Value of the lower line at the reference minus the reference value.
        upper_gain: The same for the upper line.
        cost: `(B, 1, *shape)`: rows `a` lose at most `|a| . cost` to rounding in this step.
    """

    lower_slope: Array
    upper_slope: Array
    lower_gain: Array
    upper_gain: Array
    cost: Array


@dataclass(frozen=True, slots=True)
class Fan:
    """Several lines for each element of a smooth node, from the least useful slope to the largest.

    Between neighbours lines are mixed; a mix of two valid lines is a valid line. With `M` lines:

    Attributes:
        lines: All but the last, `(B, M - 1, *shape)`; their cost covers the rounding of mixes.
        rises: What is added to each to get the next one, without cost.
        turns: Slopes and gains by which the lower lines grow with the mix, then the upper lines,
            `(2, B, M - 1, *shape)`: for gradients.
    """

    lines: CentredLines
    rises: tuple[Array, Array, Array, Array]
    turns: tuple[Array, Array]


@dataclass(frozen=True)
class Frame:
    """Bounds of a batch of regions and all that backward passes over them need.

    Attributes:
        network: With weights in the type of the coefficients.
        reference: The same network in float64.
        boxes: For each value its boxes `(B, *shape)`, float64.
        centres: The reference run, `(B, *shape)` float64.
        costs: For each value `(B, *shape)` in the type of the coefficients, or None: no cost.
        lines: For each elementwise node.
        planes: For each bilinear node, `(B, *shape)`.
        empty: `(B,)`: regions proven to contain no point; their other entries mean nothing.
        like: Any array in the type of the coefficients.
        slack: `(B,)` float64: what one backward pass can lose to underflow altogether.
        ball: If given, the regions are what lies in the input boxes and in these balls.
        fans: Of smooth nodes, where multipliers were asked for.
    """

    network: Network
    reference: Network
    boxes: list[Box]
    centres: list[Array]
    costs: list[Array | None]
    lines: dict[int, CentredLines]
    planes: dict[int, Planes]
    empty: Array
    like: Array
    slack: Array
    ball: Ball | None = None
    fans: dict[int, Fan] = field(default_factory=dict)

    def entry(self, i: int) -> "Frame":
        """The frame of one region as a batch of one."""
        one = slice(i, i + 1)
        return Frame(
            self.network,
            self.reference,
            [b.rows(one) for b in self.boxes],
            [c[one] for c in self.centres],
            [None if c is None else c[one] for c in self.costs],
            {k: rows(v, one) for k, v in self.lines.items()},
            {k: rows(v, one) for k, v in self.planes.items()},
            self.empty[one],
            self.like,
            self.slack[one],
            None if self.ball is None else self.ball.rows(one),
        )

    def coefficient_box(self, k: int) -> Box:
        """The box of a value in the type of the coefficients, rounded outward."""
        return outward(self.boxes[k], self.like)

    def cast(self, array: Array) -> Array:
        """Float64 numbers in the type of the coefficients, to nearest."""
        return array if array.dtype == self.like.dtype else namespace(array).astype(array, self.like.dtype)

    def cast_up(self, array: Array) -> Array:
        """Float64 numbers in the type of the coefficients, rounded up."""
        return to_type_up(array, self.like)


Relaxed = TypeVar("Relaxed", CentredLines, Planes)


def rows(record: Relaxed, index: slice) -> Relaxed:
    """Lines or planes of some regions."""
    return type(record)(*(getattr(record, f.name)[index] for f in fields(record)))


def outward(box: Box, like: Array) -> Box:
    """A box in the type of `like` that contains a float64 box."""
    if box.lower.dtype == like.dtype:
        return box
    return Box(to_type_down(box.lower, like), to_type_up(box.upper, like))


def repeat_each(array: Array, times: int) -> Array:
    """Each entry of the batch `times` times."""
    xp = namespace(array)
    spread = xp.broadcast_to(array[:, None], (array.shape[0], times, *array.shape[1:]))
    return spread.reshape((-1, *array.shape[1:]))


def radius(frame: Frame, k: int) -> Array:
    """How far a value gets from its reference, float64, up to relative rounding."""
    xp = namespace(frame.centres[k])
    box, centre = frame.boxes[k], frame.centres[k]
    return xp.maximum(box.upper - centre, centre - box.lower) + abs(centre) * DOUBLE


def reference_value(frame: Frame, k: int) -> Array:
    """The reference run's value `(B, *shape)`; any finite number serves, so undefined ones become 0."""
    node = frame.reference.nodes[k]
    assert node.op is not None
    xp = namespace(frame.centres[0])
    value = node.op.forward(*(frame.centres[i] for i in node.inputs))
    value = xp.where(xp.isfinite(value), value, xp.zeros_like(value))
    count = frame.centres[0].shape[0]
    return value if value.shape[0] == count else xp.broadcast_to(value, (count, *value.shape[1:]))


def rounding_cost(frame: Frame, k: int) -> Array | None:
    """A vector `e` `(B, *shape)`: rows `a` on value `k` lose at most `|a| . e` to rounding there.

    It covers the step through the value's op, additions of coefficients from several consumers, and the
    rounded product with a line's slope before it; None where there is nothing to lose. Needs the boxes and
    the reference of `k` and of its operands.

    Sums of three coefficients and more can cancel after a partial sum was rounded, so what those lose is
    not charged to their result but to each part, at the node that it comes from (`additions`).
    """
    node = frame.network.nodes[k]
    affine = isinstance(node.op, AffineOp) and not (node.op.terms == (0, 0) and node.op.offset is None)
    affine = affine or (isinstance(node.op, AffineOp) and additions(frame, k) > 0)
    several = frame.network.consumers[k] > 1 or k in frame.network.pre_activations
    if not affine and not several and not isinstance(node.op, BilinearOp):
        return None
    deviation = frame.cast_up(radius(frame, k))
    cost = deviation * ((frame.network.consumers[k] + 3) * unit_roundoff(deviation))
    if affine:
        cost = cost + _affine_cost(frame, k)
    elif isinstance(node.op, BilinearOp):
        cost = cost + _bilinear_cost(frame, k)
    return cost * SUM_INFLATION + tiny(cost)


def additions(frame: Frame, k: int) -> int:
    """How often a coefficient that node `k` hands down is rounded in a sum, if that sum can cancel midway."""
    most = max((frame.network.consumers[i] for i in frame.network.nodes[k].inputs), default=0)
    return most if most > 2 else 0


def _affine_cost(frame: Frame, k: int) -> Array:
    """`gamma |W| r` for the coefficients and float64 rounding of the reference."""
    node = frame.network.nodes[k]
    assert isinstance(node.op, AffineOp)
    radii = [frame.cast_up(radius(frame, i)) for i in node.inputs]
    relative = node.op.error_factors(frame.like, adjoint=True)[0] + additions(frame, k) * unit_roundoff(
        frame.like
    )
    spread = node.op.magnitude(*radii) if radii else 0.0
    return relative * spread + affine_error(frame, k)


def affine_error(frame: Frame, k: int) -> Array:
    """A bound of `|W c_x + b - c_z|`, `(B, *shape)` in the type of the coefficients."""
    node, exact = frame.network.nodes[k], frame.reference.nodes[k].op
    assert isinstance(node.op, AffineOp) and isinstance(exact, AffineOp)
    sizes = [frame.cast_up(abs(frame.centres[i])) for i in node.inputs]
    small, offset_error, slack = exact.error_factors(frame.centres[k])
    total = node.op.magnitude(*sizes)
    if exact.offset is not None:
        total = total + frame.cast_up(abs(exact.offset))
    error = (small + 4 * DOUBLE) * total + slack
    return error if isinstance(offset_error, float) else error + frame.cast_up(offset_error)


def reference_error(frame: Frame, k: int, nodes: Sequence[int]) -> Array:
    """A bound of how far the reference of value `k` is from affine `nodes`, applied to that before them."""
    error: Array | float = 0.0
    for i, node in enumerate(nodes):
        op, own = frame.network.nodes[node].op, affine_error(frame, node)
        assert isinstance(op, AffineOp)
        error = own if i == 0 else op.magnitude(error) * (1 + op.weight_error) + own
    return (namespace(frame.centres[k]).zeros_like(frame.centres[k]) + error) * SUM_INFLATION


def _bilinear_cost(frame: Frame, k: int) -> Array:
    """Rounding of the substituted coefficients, against magnitudes."""
    node = frame.network.nodes[k]
    assert isinstance(node.op, BilinearOp)
    first, second = (frame.cast_up(frame.boxes[i].magnitude) for i in node.inputs)
    unit = unit_roundoff(first)
    return 4 * (node.op.terms + 8 + additions(frame, k)) * unit * node.op.magnitude(first, second)


def centre_lines(frame: Frame, k: int, lines: Lines) -> CentredLines:
    """Moves the lines of elementwise node `k`, arrays `(B, 1 or R, *shape)`, to the reference."""
    xp = namespace(frame.like)
    node = frame.network.nodes[k]
    at, value = frame.centres[node.inputs[0]][:, None], frame.centres[k][:, None]
    lower, low_size = _gain(lines.lower_slope, lines.lower_intercept, at, value)
    upper, up_size = _gain(lines.upper_slope, lines.upper_intercept, at, value)
    lower_gain, upper_gain = frame.cast(lower), frame.cast(upper)
    size = xp.maximum(xp.abs(lower_gain), xp.abs(upper_gain))
    total = frame.cast_up(xp.maximum(low_size, up_size) * (8 * DOUBLE))
    unit = unit_roundoff(frame.like)
    cost = size * (3 * dot_error(frame.like, prod(node.shape)) + 4 * unit) + total
    if additions(frame, k):
        slope = xp.maximum(xp.abs(lines.lower_slope), xp.abs(lines.upper_slope))
        reach = frame.cast_up(radius(frame, node.inputs[0]))[:, None]
        cost = cost + slope * reach * (additions(frame, k) * unit)
    if cost.shape[1] > 1:
        cost = xp.max(cost, axis=1, keepdims=True)
    consumed = frame.costs[k]
    if consumed is not None:
        cost = cost + consumed[:, None]
    return CentredLines(
        lines.lower_slope, lines.upper_slope, lower_gain, upper_gain, cost * SUM_INFLATION + tiny(frame.like)
    )


def _gain(slope: Array, intercept: Array | None, at: Array, value: Array) -> tuple[Array, Array]:
    """`slope at + intercept - value` in float64, and the size of its terms."""
    product = to_double(slope) * at
    if intercept is None:
        return product - value, abs(product) + abs(value)
    intercept = to_double(intercept)
    return product + intercept - value, abs(product) + abs(intercept) + abs(value)


def first_frame(
    network: Network, reference: Network, box: Box, like: Array, ball: Ball | None = None
) -> Frame:
    """The frame of the input value alone."""
    xp = namespace(box.lower)
    centre = 0.5 * box.lower + 0.5 * box.upper
    empty = xp.zeros((box.lower.shape[0],), dtype=xp.bool, device=box.lower.device)
    frame = Frame(network, reference, [box], [centre], [], {}, {}, empty, like, centre[:, 0] * 0.0, ball)
    frame.costs.append(rounding_cost(frame, 0))
    return replace(frame, slack=underflow(frame, 0))


def recentred(frame: Frame, values: Sequence[int], point: Array) -> Frame:
    """The frame in float64 with the reference run from another point `(B, n)`, without lines and planes.

    Args:
        frame: What to change.
        values: Those that reference, costs and slack are for, with all that they depend on; input last.
        point: Finite.
    """
    centres: list[Array] = [point] * len(frame.boxes)
    costs: list[Array | None] = [None] * len(frame.boxes)
    moved = replace(
        frame, network=frame.reference, like=point, centres=centres, costs=costs, lines={}, planes={}, fans={}
    )
    slack = point[:, 0] * 0.0
    for k in reversed(values):
        centres[k] = reference_value(moved, k) if k else point
        costs[k] = rounding_cost(moved, k)
        slack = slack + underflow(moved, k)
    return replace(moved, slack=slack)


def underflow(frame: Frame, k: int) -> Array:
    """What coefficients on value `k` and dot products with them can lose to underflow, `(B,)` float64."""
    distance = radius(frame, k)
    count = frame.network.adjoint_terms[k]
    losses = (distance.reshape((distance.shape[0], -1)) * count + 8.0).sum(axis=1)
    return losses * (smallest(frame.like) * SUM_INFLATION)
