"""Data movement: every element of the result is an element of the operand, or a constant. Exact."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import Array, Box, namespace, round_down, round_up
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, SelectionOp, importer
from lpverify.ops.node import normal_axis


@dataclass(frozen=True)
class ConstantValue(SelectionOp):
    """A value that depends on nothing; a batch of one that the walkers repeat."""

    array: Array
    offset_error: Array | None = None

    @property
    def offset(self) -> Array:  # type: ignore[override]
        """The constant itself."""
        return self.array

    def linear(self, *xs: Array) -> Array:
        return namespace(self.array).zeros_like(self.array)[None]

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        return ()

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """The constant, plus and minus its error."""
        if self.offset_error is None:
            return self.array[None], self.array[None]
        return (
            round_down(self.array - self.offset_error)[None],
            round_up(self.array + self.offset_error)[None],
        )


@dataclass(frozen=True)
class Reshape(SelectionOp):
    """The same elements in row-major order under another shape."""

    shape: tuple[int, ...]
    input_shape: tuple[int, ...]

    def linear(self, *xs: Array) -> Array:
        return xs[0].reshape((xs[0].shape[0], *self.shape))

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        return (a.reshape((a.shape[0], *self.input_shape)),)


@dataclass(frozen=True)
class Transpose(SelectionOp):
    """Permutes the axes of the value: result axis `i` is operand axis `order[i]`."""

    order: tuple[int, ...]

    def linear(self, *xs: Array) -> Array:
        return namespace(xs[0]).permute_dims(xs[0], (0, *(i + 1 for i in self.order)))

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        back = (0, *(int(i) + 1 for i in np.argsort(self.order)))
        return (namespace(a).permute_dims(a, back),)


@dataclass(frozen=True)
class Slice(SelectionOp):
    """`x[start:stop:step]` per axis, `start`, `step` and `count` of each axis given."""

    starts: tuple[int, ...]
    steps: tuple[int, ...]
    shape: tuple[int, ...]
    input_shape: tuple[int, ...]

    def _index(self) -> tuple[slice, ...]:
        ends = (b + (n - 1) * s + 1 for b, n, s in zip(self.starts, self.shape, self.steps, strict=True))
        return (slice(None), *map(slice, self.starts, ends, self.steps))

    def linear(self, *xs: Array) -> Array:
        return xs[0][self._index()]

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        full = namespace(a).zeros((a.shape[0], *self.input_shape), dtype=a.dtype, device=a.device)
        full[self._index()] = a
        return (full,)


@dataclass(frozen=True)
class Gather(SelectionOp):
    """Elements `indices` (one-dimensional) along one axis; indices may repeat."""

    indices: tuple[int, ...]
    axis: int
    input_shape: tuple[int, ...]

    @cached_property
    def _chosen(self) -> np.ndarray:
        return np.asarray(self.indices, np.int64)

    @cached_property
    def _rounds(self) -> list[np.ndarray]:
        """Positions in groups, the k-th occurrences of all indices: no index twice in a group."""
        order = np.argsort(self._chosen, kind="stable")
        _, starts, counts = np.unique(self._chosen[order], return_index=True, return_counts=True)
        rank = np.empty(len(order), np.int64)
        rank[order] = np.arange(len(order)) - np.repeat(starts, counts)
        return [np.flatnonzero(rank == k) for k in range(max(counts, default=0))]

    def linear(self, *xs: Array) -> Array:
        xp = namespace(xs[0])
        return xp.take(xs[0], xp.asarray(self._chosen, device=xs[0].device), axis=self.axis + 1)

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        xp = namespace(a)
        full = xp.zeros((a.shape[0], *self.input_shape), dtype=a.dtype, device=a.device)
        lead = (slice(None),) * (self.axis + 1)
        for group in self._rounds:
            source = xp.asarray(group, device=a.device)
            target = xp.asarray(self._chosen[group], device=a.device)
            full[(*lead, target)] += a[(*lead, source)]
        return (full,)

    @property
    def terms(self) -> tuple[int, int]:
        """An element that is gathered several times is a sum in the adjoint."""
        repeats = len(self._rounds)
        return 0, repeats if repeats > 1 else 0


@dataclass(frozen=True)
class Concat(SelectionOp):
    """Operands side by side along one axis; `sizes` are their lengths there."""

    axis: int
    sizes: tuple[int, ...]

    def linear(self, *xs: Array) -> Array:
        return namespace(xs[0]).concat(list(xs), axis=self.axis + 1)

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        ends = np.cumsum(self.sizes)
        lead = (slice(None),) * (self.axis + 1)
        return tuple(a[(*lead, slice(int(e - n), int(e)))] for e, n in zip(ends, self.sizes, strict=True))


@dataclass(frozen=True)
class Pad(SelectionOp):
    """Zeros or an `offset`, itself zero inside, around the operand; `before` and `after` per axis."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    input_shape: tuple[int, ...]
    offset: Array | None = None
    offset_error: Array | None = None

    def filled(self, constant: float, error: float) -> "Pad":
        """With a constant around the operand; `error` is relative."""
        if not constant:
            return self
        frame = np.full(self._shape(), constant)
        frame[self._inside()[1:]] = 0.0
        return replace(self, offset=frame, offset_error=np.abs(frame) * error if error else None)

    def _shape(self) -> tuple[int, ...]:
        return tuple(b + n + a for b, n, a in zip(self.before, self.input_shape, self.after, strict=True))

    def _inside(self) -> tuple[slice, ...]:
        return (
            slice(None),
            *(slice(b, b + n) for b, n in zip(self.before, self.input_shape, strict=True)),
        )

    def linear(self, *xs: Array) -> Array:
        x = xs[0]
        full = namespace(x).zeros((x.shape[0], *self._shape()), dtype=x.dtype, device=x.device)
        full[self._inside()] = x
        return full

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        return (a[self._inside()],)

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """Exact but for the error of the offset."""
        low, high = super().interval(*boxes)
        if self.offset_error is None:
            return low, high
        return round_down(low - self.offset_error), round_up(high + self.offset_error)


@dataclass(frozen=True)
class Broadcast(SelectionOp):
    """Repeats axes of length 1 (NumPy's rule); ranks are equal."""

    shape: tuple[int, ...]
    input_shape: tuple[int, ...]

    def linear(self, *xs: Array) -> Array:
        return namespace(xs[0]).broadcast_to(xs[0], (xs[0].shape[0], *self.shape))

    def _axes(self) -> tuple[int, ...]:
        pairs = zip(self.shape, self.input_shape, strict=True)
        return tuple(i + 1 for i, (out, source) in enumerate(pairs) if out != source)

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        return (namespace(a).sum(a, axis=self._axes(), keepdims=True),)

    @property
    def terms(self) -> tuple[int, int]:
        """The adjoint sums over the copies."""
        return 0, math.prod(self.shape[i - 1] for i in self._axes())


def broadcast_to(value: int, shape: Sequence[int], graph: GraphBuilder) -> int:
    """Adds the ops that broadcast a value to a shape; none if it has that shape."""
    have, want = graph.shape(value), tuple(int(n) for n in shape)
    if have == want:
        return value
    padded = (1,) * (len(want) - len(have)) + have
    value = reshape_to(value, padded, graph)
    return graph.add(Broadcast(want, padded), [value]) if padded != want else value


def reshape_to(value: int, shape: Sequence[int], graph: GraphBuilder) -> int:
    """Adds a Reshape unless the shape is already that."""
    have, want = graph.shape(value), tuple(int(n) for n in shape)
    return value if have == want else graph.add(Reshape(want, have), [value])


def operand_value(node: OnnxNode, index: int, graph: GraphBuilder) -> int:
    """An operand as a value, constant or not."""
    operand = node.operand(index)
    return graph.constant(operand, node.shapes[index]) if isinstance(operand, Constant) else node.value(index)


@importer("Identity", 1, 13, 14, 16, 19, 21, 23, 24, 25, whole=True)
def identity(node: OnnxNode, graph: GraphBuilder) -> int:
    """The operand itself."""
    return node.value()


@importer("Dropout", 7, 10, 12, 13, 22, whole=True)
def dropout(node: OnnxNode, graph: GraphBuilder) -> int:
    """The operand itself (inference); the mask output is not supported."""
    mode = node.optional(2)
    if mode is not None and bool(mode.array):
        raise UnsupportedError("training mode is not supported")
    return node.value()


@importer("Reshape", 5, 13, 14, 19, 21, 23, 24, 25, whole=True)
def reshape(node: OnnxNode, graph: GraphBuilder) -> int:
    """Target shape from the constant second input; 0 copies, -1 is inferred."""
    have = graph.shape(node.value())
    want = [int(n) for n in node.constant(1).array.reshape(-1)]
    if not node.attribute("allowzero", 0):
        want = [have[i] if n == 0 else n for i, n in enumerate(want)]
    if -1 in want:
        rest = math.prod(n for n in want if n != -1)
        want[want.index(-1)] = math.prod(have) // max(rest, 1)
    if math.prod(want) != math.prod(have):
        raise UnsupportedError(f"can't reshape {have} to {want}")
    return reshape_to(node.value(), want, graph)


@importer("Flatten", 1, 9, 11, 13, 21, 23, 24, 25, whole=True)
def flatten(node: OnnxNode, graph: GraphBuilder) -> int:
    """To two axes, split at `axis`."""
    have = graph.shape(node.value())
    axis = node.attribute("axis", 1)
    axis = axis + len(have) if axis < 0 else axis
    return reshape_to(node.value(), (math.prod(have[:axis]), math.prod(have[axis:])), graph)


@importer("Transpose", 1, 13, 21, 23, 24, 25, whole=True)
def transpose(node: OnnxNode, graph: GraphBuilder) -> int:
    """Axes permuted; reversed by default."""
    rank = len(graph.shape(node.value()))
    order = tuple(node.attribute("perm", range(rank - 1, -1, -1)))
    return node.value() if order == tuple(range(rank)) else graph.add(Transpose(order), [node.value()])


@importer("Squeeze", 1, 11, 13, 21, 23, 24, 25, whole=True)
def squeeze(node: OnnxNode, graph: GraphBuilder) -> int:
    """Axes of length 1 removed."""
    have = graph.shape(node.value())
    axes = node.integers("axes", 1)
    drop = (
        [i for i, n in enumerate(have) if n == 1]
        if axes is None
        else [normal_axis(a, len(have)) for a in axes]
    )
    return reshape_to(node.value(), [n for i, n in enumerate(have) if i not in drop], graph)


@importer("Unsqueeze", 1, 11, 13, 21, 23, 24, 25, whole=True)
def unsqueeze(node: OnnxNode, graph: GraphBuilder) -> int:
    """Axes of length 1 inserted; positions are those in the result."""
    have = list(graph.shape(node.value()))
    axes = node.integers("axes", 1)
    rank = len(have) + len(axes)
    for axis in sorted(normal_axis(a, rank) for a in axes):
        have.insert(axis, 1)
    return reshape_to(node.value(), have, graph)


def _slice_arguments(node: OnnxNode, rank: int) -> tuple[list[int], list[int], list[int], list[int]]:
    starts, ends = node.integers("starts", 1), node.integers("ends", 2)
    axes = node.integers("axes", 3) or list(range(len(starts)))
    steps = node.integers("steps", 4) or [1] * len(starts)
    return starts, ends, [normal_axis(a, rank) for a in axes], steps


@importer("Slice", 1, 10, 11, 13, whole=True)
def slice_(node: OnnxNode, graph: GraphBuilder) -> int:
    """Ranges per axis; a negative step reverses (as a gather)."""
    value = node.value()
    have = graph.shape(value)
    for start, end, axis, step in zip(*_slice_arguments(node, len(have)), strict=True):
        value = take_range(value, axis, range(*slice(start, end, step).indices(have[axis])), graph)
    return value


def take_range(value: int, axis: int, chosen: range, graph: GraphBuilder) -> int:
    """Elements of one axis in arithmetic progression."""
    have = graph.shape(value)
    if len(chosen) == 0:
        raise UnsupportedError("the result is empty")
    if chosen == range(have[axis]):
        return value
    if min(chosen[0], chosen[-1]) < 0 or max(chosen[0], chosen[-1]) >= have[axis]:
        raise ValueError(f"elements {chosen} of an axis of {have[axis]}")
    if chosen.step < 0:
        return graph.add(Gather(tuple(chosen), axis, have), [value])
    starts, steps, shape = [0] * len(have), [1] * len(have), list(have)
    starts[axis], steps[axis], shape[axis] = chosen.start, chosen.step, len(chosen)
    return graph.add(Slice(tuple(starts), tuple(steps), tuple(shape), have), [value])


@importer("Split", 2, 11, 13, 18, whole=True)
def split(node: OnnxNode, graph: GraphBuilder) -> list[int]:
    """One slice for each output."""
    value = node.value()
    have = graph.shape(value)
    axis = normal_axis(node.attribute("axis", 0), len(have))
    sizes = node.integers("split", 1)
    if sizes is None:
        count = node.attribute("num_outputs", node.outputs)
        size = -(-have[axis] // count)
        sizes = [min(size, have[axis] - i * size) for i in range(count)]
    if sum(sizes) != have[axis]:
        raise ValueError(f"parts {sizes} of an axis of {have[axis]}")
    ends = np.cumsum(sizes)
    return [
        take_range(value, axis, range(int(e) - n, int(e)), graph) for e, n in zip(ends, sizes, strict=True)
    ]


@importer("Concat", 4, 11, 13, whole=True)
def concat(node: OnnxNode, graph: GraphBuilder) -> int:
    """Values and constants side by side."""
    parts = []
    for operand, shape in zip(node.operands, node.shapes, strict=True):
        if isinstance(operand, Constant) and 0 in shape:
            continue
        parts.append(graph.constant(operand, shape) if isinstance(operand, Constant) else operand)
    values = [part for part in parts if part is not None]
    if len(values) == 1:
        return values[0]
    axis = normal_axis(node.attribute("axis"), len(graph.shape(values[0])))
    return graph.add(Concat(axis, tuple(graph.shape(v)[axis] for v in values)), values)


@importer("Expand", 8, 13, whole=True)
def expand(node: OnnxNode, graph: GraphBuilder) -> int:
    """Broadcast to (at least) a constant shape."""
    want = tuple(int(n) for n in node.constant(1).array.reshape(-1))
    return broadcast_to(node.value(), np.broadcast_shapes(graph.shape(node.value()), want), graph)


@importer("Tile", 6, 13, whole=True)
def tile(node: OnnxNode, graph: GraphBuilder) -> int:
    """Whole copies along each axis."""
    have = graph.shape(node.value())
    repeats = [int(n) for n in node.constant(1).array.reshape(-1)]
    split_shape = [n for size in have for n in (1, size)]
    wide = [n for count, size in zip(repeats, have, strict=True) for n in (count, size)]
    value = broadcast_to(reshape_to(node.value(), split_shape, graph), wide, graph)
    return reshape_to(value, [c * n for c, n in zip(repeats, have, strict=True)], graph)
