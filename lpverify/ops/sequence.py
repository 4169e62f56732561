"""Running sums and products, and choices along axes of sequences."""

import numpy as np

from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.bilinear import product
from lpverify.ops.linear import Scale
from lpverify.ops.node import normal_axis
from lpverify.ops.resample import AxisMap
from lpverify.ops.select import pick
from lpverify.ops.shape import Concat, take_range


def _axis(node: OnnxNode, graph: GraphBuilder) -> int:
    """The axis, the second operand."""
    return normal_axis(int(node.constant(1).array.reshape(-1)[0]), len(graph.shape(node.value())))


def _numbers(shape: tuple[int, ...]) -> np.ndarray:
    return np.arange(np.prod(shape, dtype=np.int64)).reshape(shape)


@importer("CumSum", 11, 14, whole=True)
def cum_sum(node: OnnxNode, graph: GraphBuilder) -> int:
    """Sums of all elements up to each one along an axis."""
    axis, exclusive = _axis(node, graph), int(node.attribute("exclusive", 0))
    size = graph.shape(node.value())[axis]
    graph.reserve(size, size)
    weight = np.tril(np.ones((size, size)), -exclusive)
    weight = np.ascontiguousarray(weight.T) if node.attribute("reverse", 0) else weight
    terms = max(size - exclusive, 1)
    return graph.add(AxisMap(weight, axis, (terms, terms)), [node.value()])


@importer("CumProd", 26, whole=True)
def cum_prod(node: OnnxNode, graph: GraphBuilder) -> int:
    """Products of all elements up to each one along an axis."""
    value, axis, reverse = node.value(), _axis(node, graph), node.attribute("reverse", 0)
    size = graph.shape(value)[axis]
    order = range(size - 1, -1, -1) if reverse else range(size)
    parts = [take_range(value, axis, range(i, i + 1), graph) for i in order]
    if node.attribute("exclusive", 0):
        shape = graph.shape(parts[0])
        parts = [graph.constant(Constant(np.ones(shape)), shape), *parts[:-1]]
    results = parts[:1]
    for part in parts[1:]:
        results.append(product(results[-1], part, graph))
    results = results[::-1] if reverse else results
    return graph.add(Concat(axis, (1,) * size), results) if size > 1 else results[0]


@importer("ReverseSequence", 10, 28, whole=True)
def reverse_sequence(node: OnnxNode, graph: GraphBuilder) -> int:
    """The first elements of each sequence, as many as a constant says, in reverse."""
    value, lengths = node.value(), node.constant(1).array.reshape(-1)
    numbers = _numbers(graph.shape(value))
    axes = node.attribute("batch_axis", 1), node.attribute("time_axis", 0)
    rows = np.moveaxis(numbers, axes, (0, 1))  # a view: what is written to it is in `numbers`
    for row, length in zip(rows, lengths.tolist(), strict=True):
        row[:length] = row[:length][::-1].copy()
    return pick([value], numbers, graph)


@importer("Trilu", 14, whole=True)
def trilu(node: OnnxNode, graph: GraphBuilder) -> int:
    """The upper or lower triangles of matrices, zeros elsewhere."""
    value, offset = node.value(), node.optional(1)
    k = 0 if offset is None else int(offset.array.reshape(-1)[0])
    ones = np.ones(graph.shape(value)[-2:])
    weight = np.triu(ones, k) if node.attribute("upper", 1) else np.tril(ones, k)
    return graph.add(Scale(weight), [value])


@importer("Compress", 9, 11, 28, whole=True)
def compress(node: OnnxNode, graph: GraphBuilder) -> int:
    """Slices along an axis, or elements, where a constant is true."""
    value, chosen = node.value(), node.constant(1).array.reshape(-1).astype(bool)
    numbers = np.compress(chosen, _numbers(graph.shape(value)), node.attribute("axis"))
    return pick([value], numbers, graph)
