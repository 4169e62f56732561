"""Transposed convolutions."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import Array, namespace
from lpverify.kernels.convolution import Window, convolve, convolve_adjoint
from lpverify.ops.base import AffineOp, GraphBuilder, OnnxNode, importer
from lpverify.ops.linear import shift
from lpverify.ops.shape import Pad


@dataclass(frozen=True)
class ConvTranspose(AffineOp):
    """The adjoint of a convolution that maps `size` to the value's spatial size.

    Attributes:
        weight: `(C, M / groups, *kernel)`, C the channels of the value `(n, C, *)`, M those of the result.
        size: Spatial size of the result.
    """

    weight: Array
    window: Window
    groups: int
    input_shape: tuple[int, ...]
    size: tuple[int, ...]
    weight_error: float = 0.0

    def linear(self, *xs: Array) -> Array:
        return self._spread(xs[0], self.weight)

    def abs_linear(self, *xs: Array) -> Array:
        return self._spread(xs[0], namespace(self.weight).abs(self.weight))

    def _spread(self, x: Array, weight: Array) -> Array:
        flat = x.reshape(-1, *self.input_shape[1:])
        y = convolve_adjoint(flat, weight, self.window, self.groups, self.size)
        return y.reshape(x.shape[0], self.input_shape[0], *y.shape[1:])

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        x = convolve(a.reshape(-1, *a.shape[2:]), self.weight, self.window, self.groups)
        return (x.reshape(a.shape[0], *self.input_shape),)

    @property
    def terms(self) -> tuple[int, int]:
        inputs, outputs = self.weight.shape[:2]
        size = prod(self.window.kernel)
        return inputs // self.groups * size, outputs * size


@importer("ConvTranspose", 1, 11, 22)
def conv_transpose(node: OnnxNode, graph: GraphBuilder) -> int:
    """Transposed convolution of any rank with constant weights and bias."""
    kernel, bias, value = node.constant(1), node.optional(2), node.value()
    shape, groups = graph.shape(value), node.attribute("group", 1)
    weight = np.ascontiguousarray(kernel.array, np.float64)
    if weight.ndim != len(shape) or weight.shape[0] != shape[1] or shape[1] % groups:
        raise ValueError(f"weights {weight.shape}")
    window, grow = _transposed_window(node, weight.shape[2:], shape[2:])
    size = window.transposed_size(shape[2:])
    if min(size) < 1:
        raise UnsupportedError("the result is empty")
    value = graph.add(ConvTranspose(weight, window, groups, shape, size, kernel.error), [value])
    if any(before or after for before, after in grow):
        wide = (0, 0, *(b for b, _ in grow)), (0, 0, *(a for _, a in grow))
        value = graph.add(Pad(*wide, graph.shape(value)), [value])
    if bias is None:
        return value
    offset = np.asarray(bias.array, np.float64).reshape(-1, *(1,) * len(size))
    return graph.add(shift(offset, bias.error), [value])


def _transposed_window(
    node: OnnxNode, kernel: tuple[int, ...], size: tuple[int, ...]
) -> tuple[Window, list[tuple[int, int]]]:
    """The window, whose pads cut the full result, and what must be added to it instead."""
    rank = len(kernel)
    stride, dilation = (tuple(node.attribute(name, (1,) * rank)) for name in ("strides", "dilations"))
    extra = node.attribute("output_padding", (0,) * rank)
    full = [(n - 1) * s + d * (k - 1) + 1 for n, s, d, k in zip(size, stride, dilation, kernel, strict=True)]
    pads = _transposed_pads(node, full, size, stride)
    cuts = [(begin, end - more) for (begin, end), more in zip(pads, extra, strict=True)]
    before, after = (tuple(max(cut[i], 0) for cut in cuts) for i in (0, 1))
    grow = [(max(-begin, 0), max(-end, 0)) for begin, end in cuts]
    return Window(kernel, stride, dilation, before, after), grow


def _transposed_pads(
    node: OnnxNode, full: Sequence[int], size: tuple[int, ...], stride: tuple[int, ...]
) -> list[tuple[int, int]]:
    """Pads before and after each axis, from `pads`, `auto_pad` or `output_shape`."""
    rank, auto, given = len(size), node.text("auto_pad", "NOTSET"), node.attribute("output_shape")
    if auto not in ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"):
        raise UnsupportedError(f"auto_pad={auto}")
    if given is None and auto not in ("SAME_UPPER", "SAME_LOWER"):
        pads = node.attribute("pads", (0,) * 2 * rank) if auto == "NOTSET" else (0,) * 2 * rank
        return list(zip(pads[:rank], pads[rank:], strict=True))
    extra = node.attribute("output_padding", (0,) * rank)
    wanted = [n * s for n, s in zip(size, stride, strict=True)] if given is None else given
    pairs = []
    for total in (f + e - w for f, e, w in zip(full, extra, wanted[-rank:], strict=True)):
        if total < 0 and given is None:
            raise UnsupportedError(f"auto_pad={auto} where it would have to enlarge the result")
        small = max(total, 0) // 2  # a result that is too small grows at its end
        pair = small, total - small
        pairs.append(pair if auto == "SAME_UPPER" or total < 0 else pair[::-1])
    return pairs
