"""A linear classifier, whose smoothed version has the same boundary, for tests of randomized smoothing."""

import numpy as np
from helpers import dense_model

from lpverify.loading import LoadedNetwork

WEIGHT = np.array([2.0, -1.0, 2.0])  # of norm 3
SIGMA = 0.5


def linear(bias: float = 0.0, classes: int = 2) -> LoadedNetwork:
    """Class 0 where `WEIGHT . x + bias > 0`; the smoothed classifier has the same boundary. Else class 1."""
    weight, offsets = np.zeros((3, classes)), np.full(classes, -1e6)
    weight[:, 0], offsets[0], offsets[1] = WEIGHT, bias, 0.0
    return LoadedNetwork(dense_model([(weight, offsets)]))


def at_distance(distance: float) -> np.ndarray:
    """A point so far within class 0 of `linear()`; exact for multiples of small powers of two times 3."""
    return np.array([0.0, -3.0 * distance, 0.0])
