"""Sums, means and extremes along axes."""

import math

import numpy as np

from lpverify.ops.arithmetic import sum_values
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.linear import ROUNDING, Combine, Sum, multiply_constant
from lpverify.ops.node import normal_axis
from lpverify.ops.piecewise import maximum
from lpverify.ops.shape import Concat, reshape_to, take_range


def reduction_axes(node: OnnxNode, graph: GraphBuilder) -> tuple[tuple[int, ...], bool]:
    """The axes, sorted, and whether they are kept with length 1."""
    axes = node.integers("axes", 1)
    rank = len(graph.shape(node.value()))
    if not axes:
        axes = [] if node.attribute("noop_with_empty_axes", 0) else range(rank)
    return tuple(sorted({normal_axis(int(a), rank) for a in axes})), bool(node.attribute("keepdims", 1))


def _reduce(node: OnnxNode, graph: GraphBuilder, mean: bool) -> int:
    axes, keep = reduction_axes(node, graph)
    value = node.value()
    shape = graph.shape(value)
    if not axes:
        return value
    result = graph.add(Sum(axes, shape), [value])
    if mean:
        count = math.prod(shape[a] for a in axes)
        result = multiply_constant(result, Constant(np.asarray(1.0 / count), ROUNDING), graph)
    if keep:
        return result
    return reshape_to(result, [n for i, n in enumerate(shape) if i not in axes], graph)


@importer("ReduceSum", 1, 11, 13, whole=True)
def reduce_sum(node: OnnxNode, graph: GraphBuilder) -> int:
    """Sum over axes."""
    return _reduce(node, graph, False)


@importer("ReduceMean", 1, 11, 13, 18)
def reduce_mean(node: OnnxNode, graph: GraphBuilder) -> int:
    """Mean over axes."""
    return _reduce(node, graph, True)


def maximum_along(value: int, axis: int, graph: GraphBuilder) -> int:
    """Maximum along an axis, which keeps length 1: halves against halves."""
    while (size := graph.shape(value)[axis]) > 1:
        half = size // 2
        parts = [take_range(value, axis, range(i * half, (i + 1) * half), graph) for i in (0, 1)]
        rest = take_range(value, axis, range(size - 1, size), graph) if size % 2 else None
        value = maximum(parts, graph)
        if rest is not None:
            value = graph.add(Concat(axis, (half, 1)), [value, rest])
    return value


def _negative(value: int, graph: GraphBuilder) -> int:
    return graph.add(Combine((-1,)), [value])


def _reduce_extreme(node: OnnxNode, graph: GraphBuilder, sign: int) -> int:
    axes, keep = reduction_axes(node, graph)
    value, shape = node.value(), graph.shape(node.value())
    value = value if sign > 0 else _negative(value, graph)
    for axis in axes:
        value = maximum_along(value, axis, graph)
    value = value if sign > 0 else _negative(value, graph)
    return value if keep else reshape_to(value, [n for i, n in enumerate(shape) if i not in axes], graph)


@importer("ReduceMax", 1, 11, 12, 13, 18, 20, whole=True)
def reduce_max(node: OnnxNode, graph: GraphBuilder) -> int:
    """Maximum over axes."""
    return _reduce_extreme(node, graph, 1)


@importer("ReduceMin", 1, 11, 12, 13, 18, 20, whole=True)
def reduce_min(node: OnnxNode, graph: GraphBuilder) -> int:
    """Minimum over axes."""
    return _reduce_extreme(node, graph, -1)


@importer("GlobalMaxPool", 1, 22)
def global_max_pool(node: OnnxNode, graph: GraphBuilder) -> int:
    """Maximum over all spatial axes."""
    value = node.value()
    for axis in range(2, len(graph.shape(value))):
        value = maximum_along(value, axis, graph)
    return value


@importer("Mean", 6, 8, 13)
def mean(node: OnnxNode, graph: GraphBuilder) -> int:
    """Mean of any number of operands."""
    total = sum_values(node, graph)
    return multiply_constant(total, Constant(np.asarray(1.0 / len(node.operands)), ROUNDING), graph)
