"""Ops that pick elements by constant indices, and frames around values.

A pick is one gather from the flattened operands: which element goes where is found by applying the op to
the elements' numbers.
"""

from collections.abc import Sequence
from math import prod

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.node import normal_axis
from lpverify.ops.shape import Concat, Gather, Pad, Transpose, operand_value, reshape_to, take_range


def pick(sources: Sequence[int], numbers: np.ndarray, graph: GraphBuilder) -> int:
    """The elements of the flattened and joined sources with these numbers, in the shape of `numbers`."""
    if numbers.size == 0:
        raise UnsupportedError("the result is empty")
    flat = [reshape_to(v, (prod(graph.shape(v)),), graph) for v in sources]
    sizes = tuple(graph.shape(v)[0] for v in flat)
    value = flat[0] if len(flat) == 1 else graph.add(Concat(0, sizes), flat)
    chosen = tuple(int(i) for i in numbers.reshape(-1))
    if chosen != tuple(range(sum(sizes))):
        value = graph.add(Gather(chosen, 0, (sum(sizes),)), [value])
    return reshape_to(value, numbers.shape, graph)


def numbered(shape: Sequence[int], start: int = 0) -> np.ndarray:
    """The numbers of a value's elements."""
    return np.arange(start, start + prod(shape)).reshape(shape)


def grid(indices: np.ndarray, axis: int) -> tuple[np.ndarray, ...]:
    """Positions whose coordinate along one axis is replaced by the indices."""
    axis = axis % indices.ndim
    positions = np.indices(indices.shape)
    return (*positions[:axis], indices, *positions[axis + 1 :])


def wrapped(indices: np.ndarray, size: int) -> tuple[int, ...]:
    """Indices along an axis of that size, negative ones counted from its end."""
    if indices.size == 0:
        raise UnsupportedError("the result is empty")
    if indices.min() < -size or indices.max() >= size:
        raise ValueError(f"index out of range for an axis of {size}")
    return tuple((np.asarray(indices, np.int64).reshape(-1) % size).tolist())


def _scatter(node: OnnxNode, graph: GraphBuilder, positions: tuple[np.ndarray, ...]) -> int:
    """The first operand with elements replaced by those of the third."""
    reduction = node.attribute("reduction", b"none")
    if reduction not in (b"none", "none"):
        raise UnsupportedError(f"reduction={reduction} is not supported")
    data, updates = (operand_value(node, i, graph) for i in (0, 2))
    result = numbered(graph.shape(data))
    size = result.size
    result[positions] = numbered(graph.shape(updates), size)
    if np.count_nonzero(result >= size) != prod(graph.shape(updates)):
        raise UnsupportedError("duplicate indices: which update counts is not defined")
    return pick([data, updates], result, graph)


@importer("Scatter", 9, whole=True)
@importer("ScatterElements", 11, 13, 16, 18, whole=True)
def scatter_elements(node: OnnxNode, graph: GraphBuilder) -> int:
    """Writes elements at constant indices along one axis."""
    return _scatter(node, graph, grid(node.constant(1).array, node.attribute("axis", 0)))


@importer("ScatterND", 11, 13, 16, 18, whole=True)
def scatter_nd(node: OnnxNode, graph: GraphBuilder) -> int:
    """Writes slices at constant index tuples."""
    return _scatter(node, graph, tuple(np.moveaxis(node.constant(1).array, -1, 0)))


@importer("Pad", 2, 11, 13, 18, 19, 21, 23, 24, 25, whole=True)
def pad(node: OnnxNode, graph: GraphBuilder) -> int:
    """A frame of a constant, or of the value's own elements; negative pads cut."""
    mode = node.attribute("mode", b"constant")
    mode = mode.decode() if isinstance(mode, bytes) else mode
    value = node.value()
    before, after = _pads(node, len(graph.shape(value)))
    for axis, size in enumerate(graph.shape(value)):
        kept = range(max(-before[axis], 0), size - max(-after[axis], 0))
        value = take_range(value, axis, kept, graph)
    grow = [(max(b, 0), max(a, 0)) for b, a in zip(before, after, strict=True)]
    if not any(b or a for b, a in grow):
        return value
    if mode != "constant":
        if min(before + after) < 0:
            raise UnsupportedError(f"negative pads with mode={mode} are not supported")
        return _pad_with_copies(value, grow, mode, graph)
    fill = node.optional(2)
    if fill is None:
        fill = Constant(np.asarray(node.attribute("value", 0.0)))
    wide = Pad(tuple(b for b, _ in grow), tuple(a for _, a in grow), graph.shape(value))
    return graph.add(wide.filled(float(fill.array.reshape(-1)[0]), fill.error), [value])


def _pads(node: OnnxNode, rank: int) -> tuple[list[int], list[int]]:
    """Pads before and after each axis."""
    pads, axes = node.integers("pads", 1), node.integers("", 3)
    axes = range(rank) if axes is None else [normal_axis(a, rank) for a in axes]
    before, after = [0] * rank, [0] * rank
    for i, axis in enumerate(axes):
        before[axis], after[axis] = pads[i], pads[i + len(axes)]
    return before, after


def _pad_with_copies(value: int, pads: Sequence[tuple[int, int]], mode: str, graph: GraphBuilder) -> int:
    """Modes `edge`, `reflect` and `wrap`: a gather along each axis."""
    if mode not in ("edge", "reflect", "wrap"):
        raise UnsupportedError(f"mode={mode} is not supported")
    for axis, (before, after) in enumerate(pads):
        shape = graph.shape(value)
        if before or after:
            source = np.pad(np.arange(shape[axis]), (before, after), mode)  # type: ignore[call-overload]
            value = graph.add(Gather(tuple(source.tolist()), axis, shape), [value])
    return value


def _blocks(node: OnnxNode, size: int) -> tuple[int, bool]:
    """The block size, and whether depth comes first (DCR)."""
    block = node.attribute("blocksize")
    if size % block:
        raise ValueError(f"blocks of {block} in {size}")
    return block, node.attribute("mode", b"DCR") in (b"DCR", "DCR")


@importer("DepthToSpace", 1, 11, 13, 28, whole=True)
def depth_to_space(node: OnnxNode, graph: GraphBuilder) -> int:
    """Channels to blocks of pixels."""
    n, c, h, w = graph.shape(node.value())
    b, depth_first = _blocks(node, c)
    split = (n, b, b, c // b**2, h, w) if depth_first else (n, c // b**2, b, b, h, w)
    order = (0, 3, 4, 1, 5, 2) if depth_first else (0, 1, 4, 2, 5, 3)
    value = graph.add(Transpose(order), [reshape_to(node.value(), split, graph)])
    return reshape_to(value, (n, c // b**2, h * b, w * b), graph)


@importer("SpaceToDepth", 1, 13, 28, whole=True)
def space_to_depth(node: OnnxNode, graph: GraphBuilder) -> int:
    """Blocks of pixels to channels."""
    n, c, h, w = graph.shape(node.value())
    b, depth_first = _blocks(node, h)
    split = reshape_to(node.value(), (n, c, h // b, b, w // b, b), graph)
    value = graph.add(Transpose((0, 3, 5, 1, 2, 4) if depth_first else (0, 1, 3, 5, 2, 4)), [split])
    return reshape_to(value, (n, c * b**2, h // b, w // b), graph)
