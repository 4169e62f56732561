"""N-dimensional convolution and its adjoint, for NumPy and torch.

NumPy: one matrix product for each kernel position, on strided views; torch: its own direct kernels.
Neither uses Winograd products or shortened mantissas, so the error model of `interval` holds. On a GPU
that means torch's kernels without cuDNN, which does both by default.
"""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from lpverify.interval import Array


@dataclass(frozen=True)
class Window:
    """How a kernel moves: per spatial axis `kernel`, `stride`, `dilation`, pads `before`, `after`."""

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    before: tuple[int, ...]
    after: tuple[int, ...]

    def output_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """Spatial size of the result."""
        zipped = zip(size, self.kernel, self.stride, self.dilation, self.before, self.after, strict=True)
        return tuple((n + b + a - d * (k - 1) - 1) // s + 1 for n, k, s, d, b, a in zipped)

    def transposed_size(self, size: tuple[int, ...]) -> tuple[int, ...]:
        """The smallest size whose `output_size` is this one."""
        zipped = zip(size, self.kernel, self.stride, self.dilation, self.before, self.after, strict=True)
        return tuple((n - 1) * s + d * (k - 1) + 1 - b - a for n, k, s, d, b, a in zipped)

    def views(self, size: tuple[int, ...]) -> list[tuple[slice, ...]]:
        """Per kernel position, the strided slices of the *padded* input it touches."""
        out = self.output_size(size)
        return [
            tuple(
                slice(p * d, p * d + (n - 1) * s + 1, s)
                for p, d, n, s in zip(position, self.dilation, out, self.stride, strict=True)
            )
            for position in np.ndindex(self.kernel)
        ]


def convolve(x: Array, weight: Array, window: Window, groups: int) -> Array:
    """Cross-correlation of `x` `(N, C, *size)` with `weight` `(M, C / groups, *kernel)`."""
    if not isinstance(x, np.ndarray):
        return _torch_convolve(x, weight, window, groups)
    padded = _pad(x, window)
    out = window.output_size(x.shape[2:])
    xs = padded.reshape(x.shape[0], groups, -1, *padded.shape[2:])
    weights = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    total = np.zeros((x.shape[0], groups, weights.shape[1], prod(out)), x.dtype)
    for position, view in enumerate(window.views(x.shape[2:])):
        part = xs[(slice(None),) * 3 + view]
        total += weights[None, ..., position] @ part.reshape(*part.shape[:3], -1)
    return total.reshape(x.shape[0], -1, *out)


def convolve_adjoint(a: Array, weight: Array, window: Window, groups: int, size: tuple[int, ...]) -> Array:
    """The transposed map: from `(N, M, *out)` back to `(N, C, *size)`."""
    if not isinstance(a, np.ndarray):
        return _torch_adjoint(a, weight, window, groups, size)
    padded = tuple(b + n + e for b, n, e in zip(window.before, size, window.after, strict=True))
    weights = weight.reshape(groups, weight.shape[0] // groups, weight.shape[1], -1)
    total = np.zeros((a.shape[0], groups, weight.shape[1], *padded), a.dtype)
    rows = a.reshape(a.shape[0], groups, weights.shape[1], -1)
    for position, view in enumerate(window.views(size)):
        part = np.swapaxes(weights[..., position], -1, -2)[None] @ rows
        total[(slice(None),) * 3 + view] += part.reshape(*part.shape[:3], *a.shape[2:])
    inside = tuple(slice(b, b + n) for b, n in zip(window.before, size, strict=True))
    return total.reshape(a.shape[0], -1, *padded)[(slice(None), slice(None), *inside)]


def _pad(x: np.ndarray, window: Window) -> np.ndarray:
    if not any(window.before + window.after):
        return x
    return np.pad(x, ((0, 0), (0, 0), *zip(window.before, window.after, strict=True)))


def _torch_pads(window: Window) -> list[int]:
    pairs = zip(reversed(window.before), reversed(window.after), strict=True)
    return [p for pair in pairs for p in pair]


def _plain_kernels(x: Any) -> AbstractContextManager[None]:
    from torch.backends import cudnn  # noqa: PLC0415  (torch arrays only)

    return cudnn.flags(enabled=False) if x.is_cuda else nullcontext()


def _torch_convolve(x: Any, weight: Any, window: Window, groups: int) -> Any:
    from torch.nn import functional  # noqa: PLC0415  (torch arrays only)

    call = getattr(functional, f"conv{len(window.kernel)}d")
    pads: Any = window.before
    if window.before != window.after:
        x, pads = functional.pad(x, _torch_pads(window)), 0
    with _plain_kernels(x):
        return call(x, weight, None, window.stride, pads, window.dilation, groups)


def _torch_adjoint(a: Any, weight: Any, window: Window, groups: int, size: tuple[int, ...]) -> Any:
    from torch.nn import functional  # noqa: PLC0415  (torch arrays only)

    call = getattr(functional, f"conv_transpose{len(window.kernel)}d")
    none = (0,) * len(size)
    covered = replace(window, before=none, after=none).transposed_size(tuple(a.shape[2:]))
    if window.before == window.after:
        extra = [n + 2 * b - c for n, b, c in zip(size, window.before, covered, strict=True)]
        if all(0 <= e < max(s, d) for e, s, d in zip(extra, window.stride, window.dilation, strict=True)):
            with _plain_kernels(a):
                return call(a, weight, None, window.stride, window.before, extra, groups, window.dilation)
    with _plain_kernels(a):
        full = call(a, weight, None, window.stride, 0, 0, groups, window.dilation)
    padded = [b + n + e for b, n, e in zip(window.before, size, window.after, strict=True)]
    missing = [p - c for p, c in zip(reversed(padded), reversed(covered), strict=True)]
    full = functional.pad(full, [p for m in missing for p in (0, m)])
    inside = tuple(slice(b, b + n) for b, n in zip(window.before, size, strict=True))
    return full[(slice(None), slice(None), *inside)]
