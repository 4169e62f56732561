"""Convolutions and pools. Pools become convolutions with ones, scaling, and ReLU trees."""

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import Array, namespace
from lpverify.kernels.convolution import Window, convolve, convolve_adjoint
from lpverify.ops.base import AffineOp, Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.linear import ROUNDING, multiply_constant
from lpverify.ops.piecewise import maximum
from lpverify.ops.shape import Gather, reshape_to, take_range
from lpverify.ops.transposed import ConvTranspose


@dataclass(frozen=True)
class Conv(AffineOp):
    """Cross-correlation of values `(n, C, *size)` to `(n, M, *out)`; `weight` `(M, C/groups, *kernel)`."""

    weight: Array
    window: Window
    groups: int
    input_shape: tuple[int, ...]
    offset: Array | None = None
    weight_error: float = 0.0
    offset_error: Array | None = None

    def linear(self, *xs: Array) -> Array:
        return self._convolve(xs[0], self.weight)

    def abs_linear(self, *xs: Array) -> Array:
        return self._convolve(xs[0], namespace(self.weight).abs(self.weight))

    def _convolve(self, x: Array, weight: Array) -> Array:
        y = convolve(x.reshape(-1, *self.input_shape[1:]), weight, self.window, self.groups)
        return y.reshape(x.shape[0], self.input_shape[0], *y.shape[1:])

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        flat = a.reshape(-1, *a.shape[2:])
        x = convolve_adjoint(flat, self.weight, self.window, self.groups, self.input_shape[2:])
        return (x.reshape(a.shape[0], *self.input_shape),)

    @property
    def terms(self) -> tuple[int, int]:
        outputs, inputs = self.weight.shape[:2]
        hits = prod(-(-k // s) for k, s in zip(self.window.kernel, self.window.stride, strict=True))
        return inputs * prod(self.window.kernel), outputs // self.groups * hits


def window_of(node: OnnxNode, kernel: tuple[int, ...], size: tuple[int, ...]) -> Window:
    """Strides, dilations and pads of a Conv or pool node, `auto_pad` and `ceil_mode` resolved."""
    rank = len(kernel)
    stride = tuple(node.attribute("strides", (1,) * rank))
    dilation = tuple(node.attribute("dilations", (1,) * rank))
    pads = tuple(node.attribute("pads", (0,) * 2 * rank))
    auto = node.attribute("auto_pad", b"NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        pads = _same_pads(kernel, stride, dilation, size, auto == "SAME_UPPER")
    elif auto == "VALID":
        pads = (0,) * 2 * rank
    elif auto != "NOTSET":
        raise UnsupportedError(f"auto_pad={auto}")
    return Window(kernel, stride, dilation, pads[:rank], pads[rank:])


def _same_pads(
    kernel: tuple[int, ...],
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
    size: tuple[int, ...],
    upper: bool,
) -> tuple[int, ...]:
    before, after = [], []
    for k, s, d, n in zip(kernel, stride, dilation, size, strict=True):
        total = max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        small, large = total // 2, total - total // 2
        before.append(small if upper else large)
        after.append(large if upper else small)
    return (*before, *after)


@importer("Conv", 1, 11, 22)
def conv(node: OnnxNode, graph: GraphBuilder) -> int:
    """Convolution of any rank with constant weights and bias."""
    return convolved(node, node.value(), node.constant(1), node.optional(2), graph)


def convolved(
    node: OnnxNode, value: int, kernel: Constant, bias: Constant | None, graph: GraphBuilder
) -> int:
    """A value convolved as the attributes of a node say."""
    shape, groups = graph.shape(value), node.attribute("group", 1)
    weight = np.ascontiguousarray(kernel.array, np.float64)
    if weight.shape[1] * groups != shape[1] or weight.ndim != len(shape):
        raise ValueError(f"weights {weight.shape}")
    window = window_of(node, weight.shape[2:], shape[2:])
    _reserve_padded(window, shape, graph)
    offset = error = None
    if bias is not None:
        offset = np.asarray(bias.array, np.float64).reshape(-1, *(1,) * (weight.ndim - 2))
        error = np.abs(offset) * bias.error if bias.error else None
    return graph.add(Conv(weight, window, groups, shape, offset, kernel.error, error), [value])


def _reserve_padded(window: Window, shape: tuple[int, ...], graph: GraphBuilder) -> None:
    """Asks for the value with zeros around it, and for as many kernel positions."""
    sizes = zip(window.before, shape[2:], window.after, strict=True)
    graph.reserve(*shape[:2], *(b + n + a for b, n, a in sizes))
    graph.reserve(shape[1], *window.kernel)


def pool_window(node: OnnxNode, size: tuple[int, ...]) -> Window:
    """The window of a pool, without `ceil_mode`."""
    window = window_of(node, tuple(node.attribute("kernel_shape")), size)
    same = node.attribute("auto_pad", b"NOTSET") not in (b"NOTSET", "NOTSET", b"VALID", "VALID")
    strides = zip(size, window.kernel, window.stride, strict=True)
    if same and (max(window.dilation) > 1 or any((-(-n // s) - 1) * s + k < n for n, k, s in strides)):
        raise UnsupportedError("auto_pad=SAME with dilations or wide strides: implementations differ")
    if min(window.output_size(size)) < 1:
        raise UnsupportedError("the result is empty")
    return window


def ceil_pads(node: OnnxNode, window: Window, size: tuple[int, ...]) -> Window:
    """With `ceil_mode`, pads after so that the last, partial window counts (it starts inside)."""
    if not node.attribute("ceil_mode", 0):
        return window
    after = []
    for n, k, s, d, b, a in zip(
        size,
        window.kernel,
        window.stride,
        window.dilation,
        window.before,
        window.after,
        strict=True,
    ):
        span = n + b - d * (k - 1) - 1
        count = -(-(span + a) // s) + 1
        if (count - 1) * s >= n + b:
            count -= 1
        after.append(max((count - 1) * s - span, 0))
    return replace(window, after=tuple(after))


def window_sum(value: int, window: Window, graph: GraphBuilder) -> int:
    """Sums over windows of each channel, zeros around the value."""
    shape = graph.shape(value)
    _reserve_padded(window, shape, graph)
    ones = np.ones((shape[1], 1, *window.kernel))
    return graph.add(Conv(ones, window, shape[1], shape), [value])


@importer("AveragePool", 7, 10, 11, 19, 22)
def average_pool(node: OnnxNode, graph: GraphBuilder) -> int:
    """Mean over windows; padding counts only with `count_include_pad`, what `ceil_mode` adds never."""
    value, shape = node.value(), graph.shape(node.value())
    plain = pool_window(node, shape[2:])
    window = ceil_pads(node, plain, shape[2:])
    total = window_sum(value, window, graph)
    inside = np.ones((1, 1, *shape[2:]))
    counted = window
    if node.attribute("count_include_pad", 0):
        real = tuple(min(p, w) for p, w in zip(plain.after, window.after, strict=True))
        frame = ((0, 0), (0, 0), *zip(plain.before, real, strict=True))
        inside = np.pad(inside, frame, constant_values=1)
        extra = tuple(w - r for w, r in zip(window.after, real, strict=True))
        counted = replace(window, before=(0,) * len(extra), after=extra)
    counts = convolve(inside, np.ones((1, 1, *window.kernel)), counted, 1)[0]
    if not counts.all():
        raise UnsupportedError("a window lies in the padding alone")
    return multiply_constant(total, Constant(1.0 / counts, ROUNDING), graph)


@importer("GlobalAveragePool", 1, 22)
def global_average_pool(node: OnnxNode, graph: GraphBuilder) -> int:
    """Mean over all spatial axes."""
    value, shape = node.value(), graph.shape(node.value())
    rank = len(shape) - 2
    window = Window(shape[2:], (1,) * rank, (1,) * rank, (0,) * rank, (0,) * rank)
    total = window_sum(value, window, graph)
    return multiply_constant(total, Constant(np.asarray(1.0 / prod(shape[2:])), ROUNDING), graph)


@importer("MaxPool", 1, 8, 10, 11, 12, 22, whole=True)
def max_pool(node: OnnxNode, graph: GraphBuilder) -> int:
    """Maximum over windows, as a tree of `max(p, q) = q + relu(p - q)` over the window's positions."""
    if node.outputs > 1:
        raise UnsupportedError("the Indices output is not supported")
    value, shape = node.value(), graph.shape(node.value())
    window = ceil_pads(node, pool_window(node, shape[2:]), shape[2:])
    if any(window.before + window.after):
        return _padded_max_pool(value, window, graph)
    graph.reserve(*window.kernel)
    views = window.views(shape[2:])
    return maximum([_view(value, view, graph) for view in views], graph)


def _view(value: int, view: tuple[slice, ...], graph: GraphBuilder) -> int:
    for axis, part in enumerate(view, start=2):
        value = take_range(value, axis, range(part.start, part.stop, part.step), graph)
    return value


def _padded_max_pool(value: int, window: Window, graph: GraphBuilder) -> int:
    """Padding never wins: each border position repeats an element of its own window instead."""
    for axis in range(len(window.kernel)):
        value = _pool_axis(value, axis, window, graph)
    return value


def _pool_axis(value: int, axis: int, window: Window, graph: GraphBuilder) -> int:
    """Maximum along one axis: max pooling is separable; indices outside are clamped into the window."""
    shape = graph.shape(value)
    size = shape[axis + 2]
    kernel, step, dilation = window.kernel[axis], window.stride[axis], window.dilation[axis]
    count = (size + window.before[axis] + window.after[axis] - dilation * (kernel - 1) - 1) // step + 1
    positions = []
    graph.reserve(kernel, kernel, count)
    for k in range(kernel):
        indices = []
        for i in range(count):
            inside = [
                j
                for j in (i * step + q * dilation - window.before[axis] for q in range(kernel))
                if 0 <= j < size
            ]
            if not inside:
                raise UnsupportedError("a window lies in the padding alone")
            here = i * step + k * dilation - window.before[axis]
            indices.append(here if 0 <= here < size else inside[0])
        positions.append(graph.add(Gather(tuple(indices), axis + 2, shape), [value]))
    return maximum(positions, graph)


@importer("Col2Im", 18)
def col2im(node: OnnxNode, graph: GraphBuilder) -> int:
    """Adds up blocks, one a column, where they lie in an image: one-hot kernels, transposed."""
    value, (count, rows, columns) = node.value(), graph.shape(node.value())
    image, block = (tuple(int(n) for n in node.constant(i).array.reshape(-1)) for i in (1, 2))
    window, size = window_of(node, block, image), prod(block)
    places = window.output_size(image)
    if rows % size or prod(places) != columns or min(places) < 1:
        raise ValueError(f"{rows} by {columns} elements for blocks of {block} in {image}")
    channels = rows // size
    graph.reserve(rows, size)
    weight = np.tile(np.eye(size), (channels, 1)).reshape(rows, 1, *block)
    shape = (count, rows, *places)
    op = ConvTranspose(weight, window, channels, shape, image)
    return graph.add(op, [reshape_to(value, shape, graph)])
