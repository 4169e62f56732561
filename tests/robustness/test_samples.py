"""Labelled inputs."""

import numpy as np
import pytest

from lpverify.errors import InputError
from lpverify.robustness.samples import Samples


def some(x=((0.0, 1.0), (2.0, 3.0), (4.0, 5.0)), y=(0, 1, 0), names=("a", "b", "c"), shape=(2,)) -> Samples:
    return Samples(np.array(x, np.float64), np.array(y, np.int64), names, shape)


def test_take_keeps_rows_together() -> None:
    taken = some().take([2, 0])
    np.testing.assert_array_equal(taken.x, [[4, 5], [0, 1]])
    assert (len(some()), len(taken), taken.y.tolist(), taken.names) == (3, 2, [0, 0], ("c", "a"))
    assert taken.shape == (2,)
    nothing = some().take([])
    assert len(nothing) == 0
    assert nothing.x.shape == (0, 2)


@pytest.mark.parametrize(
    "parts",
    [
        {"x": (0.0, 1.0, 2.0)},
        {"x": ((0.0, 1.0), (2.0, 3.0))},
        {"y": (0, 1)},
        {"names": ("a", "b")},
        {"y": (0, 1, 0, 1), "names": ("a", "b", "c", "d")},
    ],
)
def test_parts_that_do_not_fit(parts) -> None:
    with pytest.raises(InputError, match="do not fit together"):
        some(**parts)


@pytest.mark.parametrize(
    "parts",
    [
        {"x": ((0.0, 1.0), (2.0, 3.0), (4.0, np.nextafter(5, 6)))},
        {"x": ((2.0, 3.0), (0.0, 1.0), (4.0, 5.0))},
        {"x": ((0.0,), (1.0,), (2.0,)), "shape": (1,)},
        {"y": (0, 1, 1)},
        {"shape": (2, 1)},
    ],
)
def test_the_fingerprint_tells_data_sets_apart(parts) -> None:
    assert some(**parts).fingerprint != some().fingerprint


def test_the_fingerprint_is_of_numbers_alone() -> None:
    wide = np.zeros((3, 4))
    wide[:, ::2] = some().x
    strided = Samples(wide[:, ::2], some().y, ("x", "y", "z"), (2,))
    assert strided.fingerprint == some().fingerprint
