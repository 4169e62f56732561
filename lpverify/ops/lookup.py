"""A tensor picked by a few computed whole numbers: slices, ranges and scatters with computed bounds."""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import product
from math import inf

import numpy as np

from lpverify.interval import Array, Box, namespace
from lpverify.ops.base import IntervalOp

MOST_KEYS = 8192  # of one box; larger boxes get the range of all results

Table = Callable[[tuple[int, ...]], np.ndarray | None]


@dataclass(frozen=True)
class Lookup(IntervalOp):
    """`table(k)` for the whole numbers k that the operands hold, all elements in their order.

    Attributes:
        table: The exact result for a key, None where there is none.
        shape: Of every result.
        span: Least and largest element of all results.
    """

    table: Table
    shape: tuple[int, ...]
    span: tuple[float, float] = (-inf, inf)

    def forward(self, *xs: Array) -> Array:
        """Keys are the operands rounded to whole numbers; NaN where there is no result."""
        keys = np.concatenate([_flat(x) for x in xs], axis=1)
        rows = [self._entry(tuple(int(v) for v in np.rint(np.nan_to_num(key)))) for key in keys]
        return _like(np.stack(rows), xs[0])

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """The hull of the results for all keys in the box."""
        low = np.ceil(np.concatenate([_flat(b.lower) for b in boxes], axis=1))
        high = np.floor(np.concatenate([_flat(b.upper) for b in boxes], axis=1))
        hulls = [self._hull(start, end) for start, end in zip(low, high, strict=True)]
        lower, upper = zip(*hulls, strict=True)
        like = boxes[0].lower
        return _like(np.stack(lower), like), _like(np.stack(upper), like)

    def _entry(self, key: tuple[int, ...]) -> np.ndarray:
        value = self.table(key)
        return np.full(self.shape, np.nan) if value is None else value.astype(np.float64)

    def _hull(self, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        everything = np.full(self.shape, self.span[0]), np.full(self.shape, self.span[1])
        if not float(np.prod(high - low + 1)) <= MOST_KEYS:
            return everything
        lower, upper = np.full(self.shape, inf), np.full(self.shape, -inf)
        for key in product(*(range(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))):
            value = self.table(key)
            if value is None:
                return np.full(self.shape, -inf), np.full(self.shape, inf)
            np.minimum(lower, value, out=lower)
            np.maximum(upper, value, out=upper)
        return everything if (lower > upper).any() else (lower, upper)


def _flat(x: Array) -> np.ndarray:
    array = x if isinstance(x, np.ndarray) else x.detach().cpu().numpy()
    return array.reshape(len(array), -1).astype(np.float64)


def _like(array: np.ndarray, like: Array) -> Array:
    if isinstance(like, np.ndarray):
        return array.astype(like.dtype, copy=False)
    return namespace(like).asarray(array, dtype=like.dtype, device=like.device)
