"""Elements at indices along axes. Constant indices move data; computed ones weigh it by indicators.

With a whole number i from 0 to n - 1, `data[i]` is the sum of `[i = k] data[k]` over k: affine in the
indicators for constant data, a product for computed data. Nothing is claimed where an index is out of range.
"""

from dataclasses import dataclass
from math import inf, nan, prod

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import Array, Box, namespace
from lpverify.ops.base import Constant, ElementwiseOp, GraphBuilder, Lines, OnnxNode, importer
from lpverify.ops.bilinear import product
from lpverify.ops.indicators import is_positive, is_zero, negative, whole_part
from lpverify.ops.linear import Combine, Sum, multiply_constant, shift
from lpverify.ops.matrix import matrix_product, multiply_matrix
from lpverify.ops.node import normal_axis
from lpverify.ops.select import grid, numbered, pick, wrapped
from lpverify.ops.shape import Gather, Transpose, broadcast_to, reshape_to, take_range

MOST_ENTRIES = 256  # that a computed index chooses from


@dataclass(frozen=True)
class ZeroWithin(ElementwiseOp):
    """0 for the whole numbers of a range, undefined elsewhere: unbounded for boxes that leave the range."""

    least: float
    most: float

    def _doubt(self, box: Box) -> Array:
        low, high = whole_part(box.lower, box.upper)
        return ~((low >= self.least) & (high <= self.most))

    def forward(self, *xs: Array) -> Array:
        xp, zero = namespace(xs[0]), namespace(xs[0]).zeros_like(xs[0])
        return xp.where((xs[0] >= self.least) & (xs[0] <= self.most), zero, zero + nan)

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        xp, zero = namespace(boxes[0].lower), namespace(boxes[0].lower).zeros_like(boxes[0].lower)
        high = xp.where(self._doubt(boxes[0]), zero + inf, zero)
        return -high, high

    def derivative(self, x: Array) -> Array:
        return namespace(x).zeros_like(x)

    def unstable(self, box: Box) -> Array:
        """Bounds of the index would help."""
        return self._doubt(box)

    def relax(self, box: Box, alpha: Array | None) -> Lines:
        """Constants."""
        low, high = self.interval(box)
        zero = namespace(low).zeros_like(low)
        return Lines(zero, low, zero, high)


def from_end(index: int, size: int, graph: GraphBuilder) -> int:
    """`i + size [i < 0]`: negative indices count from the end of an axis."""
    below = is_positive(negative(index, graph), False, True, graph)
    moved = multiply_constant(below, Constant(np.asarray(float(size))), graph)
    return graph.add(Combine((1, 1)), [index, moved])


def one_hot(index: int, size: int, graph: GraphBuilder) -> int:
    """`[i = k]` for k from 0 to `size - 1` along a new last axis, of whole numbers."""
    shape = graph.shape(index)
    wide = broadcast_to(reshape_to(index, (*shape, 1), graph), (*shape, size), graph)
    distance = graph.add(shift(-np.arange(size, dtype=np.float64), 0.0), [wide])
    return is_zero(distance, True, graph)


def _checked(index: int, size: int, graph: GraphBuilder) -> tuple[int, int]:
    """The index counted from 0, and a zero that is undefined where it is out of range."""
    if size > MOST_ENTRIES:
        raise UnsupportedError(f"a computed index into more than {MOST_ENTRIES} entries")
    zero = graph.add(ZeroWithin(float(-size), float(size - 1)), [index])
    return from_end(index, size, graph), zero


def _plus_zero(result: int, zero: int, graph: GraphBuilder) -> int:
    """The result, undefined where the zero of its index is; its axes begin with those of the index."""
    shape, have = graph.shape(result), graph.shape(zero)
    zero = reshape_to(zero, (*have, *[1] * (len(shape) - len(have))), graph)
    return graph.add(Combine((1, 1)), [result, broadcast_to(zero, shape, graph)])


def _axis(node: OnnxNode) -> int:
    return normal_axis(node.attribute("axis", 0), len(node.shapes[0]))


@importer("Gather", 1, 11, 13, whole=True)
def gather(node: OnnxNode, graph: GraphBuilder) -> int:
    """Indices along one axis; their shape replaces the axis."""
    axis, have = _axis(node), node.shapes[0]
    if isinstance(node.operand(1), int):
        return _gather_computed(node, axis, graph)
    value, indices = node.value(), node.constant(1).array
    chosen = wrapped(indices, have[axis])
    if chosen == tuple(range(chosen[0], chosen[0] + len(chosen))):
        result = take_range(value, axis, range(chosen[0], chosen[0] + len(chosen)), graph)
    else:
        result = graph.add(Gather(chosen, axis, have), [value])
    return reshape_to(result, (*have[:axis], *indices.shape, *have[axis + 1 :]), graph)


def _gather_computed(node: OnnxNode, axis: int, graph: GraphBuilder) -> int:
    """Rows of the data with the axis in front; then the axes of the indices move to its place."""
    have, shape = node.shapes
    size, rank = have[axis], len(shape)
    index, zero = _checked(node.value(1), size, graph)
    chosen = one_hot(index, size, graph)
    order = (axis, *range(axis), *range(axis + 1, len(have)))
    rows = _weighed(chosen, _transposed(node.operand(0), order, graph), (1, prod(shape), size), graph)
    others = [n for i, n in enumerate(have) if i != axis]
    result = _plus_zero(reshape_to(rows, (*shape, *others), graph), zero, graph)
    places = (*range(rank, rank + axis), *range(rank), *range(rank + axis, rank + len(others)))
    return result if places == tuple(sorted(places)) else graph.add(Transpose(places), [result])


def _transposed(data: Constant | int | None, order: tuple[int, ...], graph: GraphBuilder) -> Constant | int:
    if isinstance(data, Constant):
        return Constant(data.array.transpose(order), data.error)
    assert data is not None
    return data if order == tuple(sorted(order)) else graph.add(Transpose(order), [data])


def _weighed(chosen: int, data: Constant | int, sizes: tuple[int, int, int], graph: GraphBuilder) -> int:
    """Stacks of matrices: indicators `(stack, m, n)` times data `(stack, n, rest)`, both reshaped to that."""
    stack, m, n = sizes
    lead = (stack,) if stack > 1 else ()
    chosen = reshape_to(chosen, (*lead, m, n), graph)
    if isinstance(data, Constant):
        array = data.array.reshape(*lead, n, -1)
        return multiply_matrix(chosen, Constant(array, data.error), False, graph)
    rest = prod(graph.shape(data)) // (stack * n)
    return matrix_product(chosen, reshape_to(data, (*lead, n, rest), graph), graph)


@importer("GatherElements", 11, 13, whole=True)
def gather_elements(node: OnnxNode, graph: GraphBuilder) -> int:
    """Elements with one coordinate from indices."""
    numbers, axis = numbered(node.shapes[0]), _axis(node)
    if not isinstance(node.operand(1), int):
        return pick([node.value()], numbers[grid(node.constant(1).array, axis)], graph)
    shape, size = node.shapes[1], node.shapes[0][axis]
    index, zero = _checked(node.value(1), size, graph)
    chosen = one_hot(index, size, graph)
    others = [p for i, p in enumerate(np.indices(shape)) if i != axis]
    table = np.moveaxis(numbers, axis, -1)[tuple(others)]  # (*shape, size)
    data = node.operand(0)
    if isinstance(data, Constant):
        entries = data.array.reshape(-1)[table]
        terms = multiply_constant(chosen, Constant(entries, data.error), graph)
    else:
        terms = product(chosen, pick([node.value()], table, graph), graph)
    result = reshape_to(graph.add(Sum((len(shape),), (*shape, size)), [terms]), shape, graph)
    return _plus_zero(result, zero, graph)


@importer("GatherND", 11, 12, 13, whole=True)
def gather_nd(node: OnnxNode, graph: GraphBuilder) -> int:
    """Slices at index tuples."""
    shape, batch = node.shapes[0], node.attribute("batch_dims", 0)
    if isinstance(node.operand(1), int):
        return _gather_nd_computed(node, batch, graph)
    indices = node.constant(1).array
    blocks = numbered(shape).reshape(-1, *shape[batch:])
    rows = indices.reshape(len(blocks), *indices.shape[batch:])
    found = [block[tuple(np.moveaxis(row, -1, 0))] for block, row in zip(blocks, rows, strict=True)]
    result = np.stack(found).reshape(*indices.shape[:-1], *shape[batch + indices.shape[-1] :])
    return pick([node.value()], result, graph)


def _gather_nd_computed(node: OnnxNode, batch: int, graph: GraphBuilder) -> int:
    """The tuples as positions in the flattened axes that they index."""
    have, shape, data = node.shapes[0], node.shapes[1], node.operand(0)
    axes = have[batch : batch + shape[-1]]
    if not axes or data is None:
        raise UnsupportedError("empty index tuples")
    if prod(axes) > MOST_ENTRIES:
        raise UnsupportedError(f"a computed index into more than {MOST_ENTRIES} entries")
    parts = []
    for i, size in enumerate(axes):
        part = take_range(node.value(1), len(shape) - 1, range(i, i + 1), graph)
        index, zero = _checked(part, size, graph)
        stride = Constant(np.asarray(float(prod(axes[i + 1 :]))))
        parts.append((multiply_constant(index, stride, graph), zero))
    signs = (1,) * len(axes)
    position, zero = (
        reshape_to(graph.add(Combine(signs), v), shape[:-1], graph) for v in zip(*parts, strict=True)
    )
    chosen = one_hot(position, prod(axes), graph)
    sizes = prod(shape[:batch]), prod(shape[batch:-1]), prod(axes)
    result = reshape_to(
        _weighed(chosen, data, sizes, graph), (*shape[:-1], *have[batch + len(axes) :]), graph
    )
    return _plus_zero(result, zero, graph)
