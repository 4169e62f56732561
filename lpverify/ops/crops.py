"""Ops cropped to a rectangular part of their result: what a window of a value is computed from.

A cropped op computes the elements of its part by the same products and sums as the whole op, from those
elements of the operands that it needs. Ops without a rule here, and those whose operands would not be
rectangles, are None: they are kept whole.
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from functools import singledispatch
from typing import TypeAlias, TypeVar

from lpverify.interval import Array
from lpverify.ops.base import ElementwiseOp, Op
from lpverify.ops.bilinear import Multiply
from lpverify.ops.convolution import Conv
from lpverify.ops.indicators import Known
from lpverify.ops.linear import Combine, Scale, Sum
from lpverify.ops.shape import Broadcast, Concat, ConstantValue, Gather, Pad, Reshape, Slice, Transpose
from lpverify.ops.transposed import ConvTranspose

Extent: TypeAlias = tuple[tuple[int, int], ...]  # first index and end along each axis of a value
Shape: TypeAlias = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Crop:
    """A cropped op.

    Attributes:
        op: Computes `part` of the result from the `operands`' parts.
        part: Contains the part that was asked for.
        operands: Of each operand the part that is needed, never empty.
    """

    op: Op
    part: Extent
    operands: tuple[Extent, ...]


def whole(shape: Shape) -> Extent:
    """All elements of a value."""
    return tuple((0, n) for n in shape)


def lengths(extent: Extent) -> Shape:
    """The shape of a part."""
    return tuple(b - a for a, b in extent)


def hull(first: Extent, second: Extent) -> Extent:
    """The smallest rectangle that contains both."""
    return tuple((min(a, c), max(b, d)) for (a, b), (c, d) in zip(first, second, strict=True))


@singledispatch
def crop(op: Op, part: Extent, shapes: Sequence[Shape]) -> Crop | None:
    """The op cropped to a part of its result, None without a rule.

    Args:
        op: What to crop.
        part: Of the result; not empty.
        shapes: Of the whole operands.
    """
    return None


@crop.register
def _elementwise(op: ElementwiseOp, part: Extent, shapes: Sequence[Shape]) -> Crop | None:
    if any(hasattr(getattr(op, f.name), "shape") for f in fields(op)):  # type: ignore[arg-type]
        return None
    return Crop(op, part, (part,))


@crop.register(Known)
@crop.register(Multiply)
@crop.register(Combine)
def _same(op: Known | Multiply | Combine, part: Extent, shapes: Sequence[Shape]) -> Crop:
    return Crop(op, part, (part,) * len(shapes))


def _cut(array: Array | None, part: Extent) -> Array | None:
    """The part of an array that broadcasts against a value; itself where nothing is cut."""
    if array is None or not hasattr(array, "shape"):
        return array
    axes = part[len(part) - array.ndim :] if array.ndim else ()
    index = tuple(slice(*e) if n > 1 else slice(None) for e, n in zip(axes, array.shape, strict=True))
    same = all(
        s == slice(None) or (s.start, s.stop) == (0, n) for s, n in zip(index, array.shape, strict=True)
    )
    return array if same else array[index]


Weighed = TypeVar("Weighed", Scale, Conv, Pad)


def _with_offset(op: Weighed, part: Extent) -> Weighed:
    """With the offset of a part; the same arrays where they need no cut."""
    changes = {name: _cut(getattr(op, name), part) for name in ("offset", "offset_error")}
    return replace(op, **changes)  # type: ignore[arg-type]


@crop.register
def _scale(op: Scale, part: Extent, shapes: Sequence[Shape]) -> Crop | None:
    if op.weight.ndim > len(part):
        return None
    return Crop(replace(_with_offset(op, part), weight=_cut(op.weight, part)), part, (part,))


@crop.register
def _conv(op: Conv, part: Extent, shapes: Sequence[Shape]) -> Crop | None:
    """All channels; padding stays where the windows of the part reach over the border."""
    spatial, before, after = [], [], []
    for axis, (first, end) in enumerate(part[2:]):
        moves, size = op.window, op.input_shape[axis + 2]
        low = first * moves.stride[axis] - moves.before[axis]
        high = (end - 1) * moves.stride[axis] - moves.before[axis]
        high += moves.dilation[axis] * (moves.kernel[axis] - 1) + 1
        if high <= 0 or low >= size:
            return None
        spatial.append((max(low, 0), min(high, size)))
        before.append(max(-low, 0))
        after.append(max(high - size, 0))
    moved = replace(op.window, before=tuple(before), after=tuple(after))
    channels, operand = op.weight.shape[0], (part[0], (0, op.input_shape[1]), *spatial)
    part = (part[0], (0, channels), *part[2:])
    cropped = replace(_with_offset(op, part), window=moved, input_shape=lengths(operand))
    return Crop(cropped, part, (operand,))


@crop.register
def _conv_transpose(op: ConvTranspose, part: Extent, shapes: Sequence[Shape]) -> Crop | None:
    """All channels; the elements of the operand whose windows touch the part."""
    spatial, before, after = [], [], []
    for axis, (first, end) in enumerate(part[2:]):
        moves, size = op.window, op.input_shape[axis + 2]
        step, reach = moves.stride[axis], moves.dilation[axis] * (moves.kernel[axis] - 1)
        low = max(-((reach - first - moves.before[axis]) // step), 0)
        high = min((end - 1 + moves.before[axis]) // step + 1, size)
        ahead = moves.before[axis] + first - low * step
        behind = (high - low - 1) * step + reach + 1 - ahead - (end - first)
        if low >= high or ahead < 0 or behind < 0:
            return None
        spatial.append((low, high))
        before.append(ahead)
        after.append(behind)
    moved = replace(op.window, before=tuple(before), after=tuple(after))
    channels, operand = op.weight.shape[1] * op.groups, (part[0], (0, op.input_shape[1]), *spatial)
    part = (part[0], (0, channels), *part[2:])
    return Crop(
        replace(op, window=moved, input_shape=lengths(operand), size=lengths(part[2:])), part, (operand,)
    )


@crop.register
def _reshape(op: Reshape, part: Extent, shapes: Sequence[Shape]) -> Crop | None:
    """Where only axes of length 1 come or go."""
    if [n for n in op.shape if n > 1] != [n for n in op.input_shape if n > 1]:
        return None
    long = iter([e for e, n in zip(part, op.shape, strict=True) if n > 1])
    operand = tuple(next(long) if n > 1 else (0, 1) for n in op.input_shape)
    return Crop(Reshape(lengths(part), lengths(operand)), part, (operand,))


@crop.register
def _transpose(op: Transpose, part: Extent, shapes: Sequence[Shape]) -> Crop:
    places = [op.order.index(axis) for axis in range(len(part))]
    return Crop(op, part, (tuple(part[i] for i in places),))


@crop.register
def _slice(op: Slice, part: Extent, shapes: Sequence[Shape]) -> Crop:
    axes = zip(op.starts, op.steps, part, strict=True)
    operand = tuple((s + a * step, s + (b - 1) * step + 1) for s, step, (a, b) in axes)
    return Crop(Slice((0,) * len(part), op.steps, lengths(part), lengths(operand)), part, (operand,))


@crop.register
def _gather(op: Gather, part: Extent, shapes: Sequence[Shape]) -> Crop:
    chosen = op.indices[slice(*part[op.axis])]
    first, end = min(chosen), max(chosen) + 1
    operand = (*part[: op.axis], (first, end), *part[op.axis + 1 :])
    return Crop(Gather(tuple(i - first for i in chosen), op.axis, lengths(operand)), part, (operand,))


@crop.register
def _concat(op: Concat, part: Extent, shapes: Sequence[Shape]) -> Crop:
    """All operands, cut along the other axes only."""
    part = (*part[: op.axis], (0, sum(op.sizes)), *part[op.axis + 1 :])
    cuts = tuple((*part[: op.axis], (0, n), *part[op.axis + 1 :]) for n in op.sizes)
    return Crop(op, part, cuts)


@crop.register
def _pad(op: Pad, part: Extent, shapes: Sequence[Shape]) -> Crop | None:
    operand, before, after = [], [], []
    for (first, end), ahead, size in zip(part, op.before, op.input_shape, strict=True):
        low, high = max(first - ahead, 0), min(end - ahead, size)
        if low >= high:
            return None
        operand.append((low, high))
        before.append(max(ahead - first, 0))
        after.append(max(end - ahead - size, 0))
    needed = tuple(operand)
    cropped = replace(
        _with_offset(op, part), before=tuple(before), after=tuple(after), input_shape=lengths(needed)
    )
    return Crop(cropped, part, (needed,))


@crop.register
def _broadcast(op: Broadcast, part: Extent, shapes: Sequence[Shape]) -> Crop:
    operand = tuple(e if n > 1 else (0, 1) for e, n in zip(part, op.input_shape, strict=True))
    return Crop(Broadcast(lengths(part), lengths(operand)), part, (operand,))


@crop.register
def _sum(op: Sum, part: Extent, shapes: Sequence[Shape]) -> Crop:
    operand = tuple(
        (0, n) if i in op.axes else e for i, (e, n) in enumerate(zip(part, op.input_shape, strict=True))
    )
    return Crop(Sum(op.axes, lengths(operand)), part, (operand,))


@crop.register
def _constant(op: ConstantValue, part: Extent, shapes: Sequence[Shape]) -> Crop:
    return Crop(ConstantValue(_cut(op.array, part), _cut(op.offset_error, part)), part, ())
