"""Softmax, normalisations and nonlinear reductions: graphs of simpler ops that are equal over the reals."""

from collections.abc import Sequence
from math import prod

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.bilinear import product
from lpverify.ops.elementary import Exp, InverseSqrt, Log, Reciprocal, Sqrt, Square
from lpverify.ops.indicators import Known
from lpverify.ops.linear import ROUNDING, Combine, Sum, align, multiply_constant, shift
from lpverify.ops.node import normal_axis
from lpverify.ops.piecewise import Relu
from lpverify.ops.reduce import reduction_axes
from lpverify.ops.shape import Concat, Gather, Transpose, broadcast_to, reshape_to, take_range

MOST_PAIRS = 64  # longest softmax that is written with all differences of its operands


def total(value: int, axes: Sequence[int], graph: GraphBuilder) -> int:
    """Sum over axes, which keep length 1."""
    return graph.add(Sum(tuple(axes), graph.shape(value)), [value]) if axes else value


def average(value: int, axes: Sequence[int], graph: GraphBuilder) -> int:
    """Mean over axes, which keep length 1."""
    count = prod(graph.shape(value)[a] for a in axes)
    return multiply_constant(total(value, axes, graph), Constant(np.asarray(1.0 / count), ROUNDING), graph)


def plus(value: int, number: float, graph: GraphBuilder) -> int:
    """`value + number`."""
    return graph.add(shift(np.asarray(number), 0.0), [value])


def minus(first: int, second: int, graph: GraphBuilder) -> int:
    """`first - second`, the second broadcast."""
    return graph.add(Combine((1, -1)), [first, broadcast_to(second, graph.shape(first), graph)])


def _shares(value: int, graph: GraphBuilder, allowed: np.ndarray | None = None) -> int:
    """`1 / softmax_i = 1 + sum over j != i of exp(x_j - x_i)` along the last axis; over allowed j alone.

    `x_j - x_i` is one value for `i < j` only: the other half are its negatives.
    """
    shape = graph.shape(value)
    axis, n = len(shape) - 1, shape[-1]
    graph.reserve(*shape, n)
    first, second = np.triu_indices(n, 1)
    pairs = [graph.add(Gather(tuple(map(int, i)), axis, shape), [value]) for i in (second, first)]
    differences = graph.add(Combine((1, -1)), pairs)
    halves = [graph.add(Exp(sign), [differences]) for sign in (1, -1)]
    joined = graph.add(Concat(axis, (len(first), len(first))), halves)
    where = np.zeros((n, n), np.int64)
    where[first, second] = np.arange(len(first))
    where[second, first] = np.arange(len(first)) + len(first)
    others = ~np.eye(n, dtype=bool)
    spread = graph.add(Gather(tuple(map(int, where[others])), axis, graph.shape(joined)), [joined])
    spread = reshape_to(spread, (*shape, n - 1), graph)
    if allowed is not None:
        pairwise = np.broadcast_to(allowed[..., None, :], (*allowed.shape[:-1], n, n))[..., others]
        mask = pairwise.reshape(*allowed.shape[:-1], n, n - 1).astype(np.float64)
        spread = multiply_constant(spread, Constant(mask), graph)
    return reshape_to(plus(total(spread, [axis + 1], graph), 1.0, graph), shape, graph)


def _centred_exponentials(value: int, axes: Sequence[int], graph: GraphBuilder) -> tuple[int, int]:
    """The mean m and `exp(x - m)`: neither overflows while the values are within 700 of each other."""
    mean = average(value, axes, graph)
    return mean, graph.add(Exp(), [minus(value, mean, graph)])


def softmax(value: int, graph: GraphBuilder, allowed: np.ndarray | None = None) -> int:
    """Along the last axis, over the elements that are allowed: one at least in each row."""
    shape = graph.shape(value)
    if shape[-1] == 1:
        return graph.constant(Constant(np.ones(shape)), shape)
    mask = None if allowed is None else Constant(allowed.astype(np.float64))
    if shape[-1] <= MOST_PAIRS:
        shares = graph.add(Reciprocal(), [_shares(value, graph, allowed)])
        result = shares if mask is None else multiply_constant(shares, mask, graph)
    else:
        axis = [len(shape) - 1]
        _, exponentials = _centred_exponentials(value, axis, graph)
        if mask is not None:
            exponentials = multiply_constant(exponentials, mask, graph)
        inverse = graph.add(Reciprocal(), [total(exponentials, axis, graph)])
        result = product(exponentials, inverse, graph)
    result = graph.add(Known(0.0, 1.0), [result])
    graph.note_sum(result)
    return result


def log_softmax(value: int, graph: GraphBuilder) -> int:
    """Along the last axis."""
    shape = graph.shape(value)
    if shape[-1] == 1:
        return graph.constant(Constant(np.zeros(shape)), shape)
    if shape[-1] <= MOST_PAIRS:
        return graph.add(Combine((-1,)), [graph.add(Log(), [_shares(value, graph)])])
    return minus(value, log_sum_exp(value, [len(shape) - 1], graph), graph)


def log_sum_exp(value: int, axes: Sequence[int], graph: GraphBuilder) -> int:
    """`m + log sum exp(x - m)` with the mean m."""
    mean, exponentials = _centred_exponentials(value, axes, graph)
    return graph.add(Combine((1, 1)), [mean, graph.add(Log(), [total(exponentials, axes, graph)])])


def _along(node: OnnxNode, graph: GraphBuilder, log: bool) -> int:
    """Brings the axis (all axes from it on, before version 13) to the end and back."""
    function = log_softmax if log else softmax
    value, shape = node.value(), graph.shape(node.value())
    if node.version < 13:
        axis = node.attribute("axis", 1)
        axis = axis + len(shape) if axis < 0 else axis
        flat = reshape_to(value, (prod(shape[:axis]), prod(shape[axis:])), graph)
        result = function(flat, graph)
        graph.note_order(result, flat)
        return reshape_to(result, shape, graph)
    axis = normal_axis(node.attribute("axis", -1), len(shape))
    if axis == len(shape) - 1:
        result = function(value, graph)
        graph.note_order(result, value)
        return result
    order = list(range(len(shape)))
    order[axis], order[-1] = order[-1], order[axis]
    turned = graph.add(Transpose(tuple(order)), [value])
    return graph.add(Transpose(tuple(order)), [function(turned, graph)])


@importer("Softmax", 1, 11, 13)
def softmax_(node: OnnxNode, graph: GraphBuilder) -> int:
    """`exp(x_i) / sum exp(x_j)`."""
    return _along(node, graph, False)


@importer("LogSoftmax", 1, 11, 13)
def log_softmax_(node: OnnxNode, graph: GraphBuilder) -> int:
    """Logarithm of softmax."""
    return _along(node, graph, True)


def normalised(value: int, axes: Sequence[int], node: OnnxNode, graph: GraphBuilder) -> tuple[int, int]:
    """`d / sqrt(mean d^2 + epsilon)` of a value d, and the factor on d."""
    epsilon = float(np.float32(node.attribute("epsilon", 1e-5)))
    power = plus(average(graph.add(Square(), [value]), axes, graph), epsilon, graph)
    factor = graph.add(InverseSqrt(), [power])
    return product(value, factor, graph), factor


def standardised(
    value: int, axes: Sequence[int], node: OnnxNode, graph: GraphBuilder
) -> tuple[int, int, int]:
    """The same of a value minus its mean; and the mean and the factor."""
    mean = average(value, axes, graph)
    return *normalised(minus(value, mean, graph), axes, node, graph), mean


def _scaled(value: int, node: OnnxNode, graph: GraphBuilder, shape: tuple[int, ...] | None = None) -> int:
    """Constant factor (operand 1) and offset (operand 2), brought to `shape`."""
    scale, bias = node.constant(1), node.optional(2)
    array = scale.array if shape is None else scale.array.reshape(shape)
    value = multiply_constant(value, Constant(array, scale.error), graph)
    if bias is None:
        return value
    array = np.asarray(bias.array if shape is None else bias.array.reshape(shape), np.float64)
    return graph.add(shift(array, bias.error), [align(value, array.shape, graph)])


def _from_axis(node: OnnxNode, graph: GraphBuilder) -> list[int]:
    rank = len(graph.shape(node.value()))
    return list(range(normal_axis(node.attribute("axis", -1), rank), rank))


@importer("LayerNormalization", 17)
def layer_normalization(node: OnnxNode, graph: GraphBuilder) -> list[int]:
    """Mean and variance over all axes from `axis` on."""
    value, factor, mean = standardised(node.value(), _from_axis(node, graph), node, graph)
    return [_scaled(value, node, graph), mean, factor]


@importer("RMSNormalization", 23)
def rms_normalization(node: OnnxNode, graph: GraphBuilder) -> int:
    """Mean square over all axes from `axis` on."""
    return _scaled(normalised(node.value(), _from_axis(node, graph), node, graph)[0], node, graph)


@importer("InstanceNormalization", 6, 22)
def instance_normalization(node: OnnxNode, graph: GraphBuilder) -> int:
    """Mean and variance over the spatial axes of each channel."""
    shape = graph.shape(node.value())
    value = standardised(node.value(), range(2, len(shape)), node, graph)[0]
    return _scaled(value, node, graph, (shape[1],) + (1,) * (len(shape) - 2))


@importer("GroupNormalization", 18, 21)
def group_normalization(node: OnnxNode, graph: GraphBuilder) -> int:
    """Mean and variance over groups of channels and the spatial axes; factors of groups in version 18."""
    shape = graph.shape(node.value())
    count = node.attribute("num_groups")
    groups = reshape_to(node.value(), (shape[0], count, prod(shape[1:]) // count), graph)
    value = standardised(groups, [2], node, graph)[0]
    if node.version < 21:
        return reshape_to(_scaled(value, node, graph, (count, 1)), shape, graph)
    value = reshape_to(value, shape, graph)
    return _scaled(value, node, graph, (shape[1],) + (1,) * (len(shape) - 2))


def _reduced(node: OnnxNode, graph: GraphBuilder, value: int) -> int:
    """Drops the reduced axes, of length 1 now, unless they are to be kept."""
    axes, keep = reduction_axes(node, graph)
    if keep:
        return value
    return reshape_to(value, [n for i, n in enumerate(graph.shape(value)) if i not in axes], graph)


def _sum_of(node: OnnxNode, graph: GraphBuilder, value: int) -> int:
    return total(value, _axes(node, graph), graph)


def _axes(node: OnnxNode, graph: GraphBuilder) -> tuple[int, ...]:
    """The axes to reduce. Whether an empty reduction still squares, ... is not agreed upon."""
    axes = reduction_axes(node, graph)[0]
    if not axes and graph.shape(node.value()):
        raise UnsupportedError("noop_with_empty_axes is not supported")
    return axes


@importer("ReduceL1", 1, 11, 13, 18, whole=True)
def reduce_l1(node: OnnxNode, graph: GraphBuilder) -> int:
    """Sum of magnitudes, `|x| = 2 relu(x) - x`."""
    rectified = graph.add(Relu(), [node.value()])
    twice = multiply_constant(rectified, Constant(np.asarray(2.0)), graph)
    return _reduced(node, graph, _sum_of(node, graph, minus(twice, node.value(), graph)))


@importer("ReduceSumSquare", 1, 11, 13, 18, whole=True)
def reduce_sum_square(node: OnnxNode, graph: GraphBuilder) -> int:
    """Sum of squares."""
    return _reduced(node, graph, _sum_of(node, graph, graph.add(Square(), [node.value()])))


@importer("ReduceL2", 1, 11, 13, 18)
def reduce_l2(node: OnnxNode, graph: GraphBuilder) -> int:
    """Root of the sum of squares."""
    squares = _sum_of(node, graph, graph.add(Square(), [node.value()]))
    return _reduced(node, graph, graph.add(Sqrt(), [squares]))


@importer("ReduceLogSum", 1, 11, 13, 18, 28)
def reduce_log_sum(node: OnnxNode, graph: GraphBuilder) -> int:
    """Logarithm of the sum."""
    return _reduced(node, graph, graph.add(Log(), [_sum_of(node, graph, node.value())]))


@importer("ReduceLogSumExp", 1, 11, 13, 18, 28)
def reduce_log_sum_exp(node: OnnxNode, graph: GraphBuilder) -> int:
    """Logarithm of the sum of exponentials."""
    return _reduced(node, graph, log_sum_exp(node.value(), _axes(node, graph), graph))


@importer("ReduceProd", 1, 11, 13, 18, whole=True)
def reduce_prod(node: OnnxNode, graph: GraphBuilder) -> int:
    """Product, halves times halves."""
    value = node.value()
    for axis in _axes(node, graph):
        while (size := graph.shape(value)[axis]) > 1:
            half = size // 2
            parts = [take_range(value, axis, range(i * half, (i + 1) * half), graph) for i in (0, 1)]
            rest = take_range(value, axis, range(size - 1, size), graph) if size % 2 else None
            value = product(parts[0], parts[1], graph)
            value = value if rest is None else graph.add(Concat(axis, (half, 1)), [value, rest])
    return _reduced(node, graph, value)
