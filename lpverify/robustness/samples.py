"""Labelled inputs of a network, as every method takes them."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lpverify.errors import InputError


@dataclass(frozen=True)
class Samples:
    """A data set.

    Attributes:
        x: Inputs, flat, `(N, n)` float64; each is exactly a number of the network's input type.
        y: Labels `(N,)`, int64, classes counted from 0.
        names: What to call each in tables, `(N,)`; distinct.
        shape: Of one input, without a leading 1: `(C, H, W)` of images, `(n,)` of vectors.
    """

    x: np.ndarray
    y: np.ndarray
    names: tuple[str, ...]
    shape: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.x.ndim != 2 or len(self.x) != len(self.y) or len(self.x) != len(self.names):
            raise InputError(
                f"{len(self.x)} inputs, {len(self.y)} labels and {len(self.names)} names do not fit together"
            )

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: Sequence[int] | np.ndarray) -> "Samples":
        """Some of them."""
        chosen = np.asarray(indices, np.int64)
        names = tuple(self.names[i] for i in chosen)
        return Samples(self.x[chosen], self.y[chosen], names, self.shape)

    @cached_property
    def fingerprint(self) -> str:
        """A hash of all inputs and labels, in their order."""
        digest = hashlib.sha256(repr((self.x.shape, self.shape)).encode())
        digest.update(np.ascontiguousarray(self.x).tobytes())
        digest.update(np.ascontiguousarray(self.y).tobytes())
        return digest.hexdigest()
