import numpy as np
import pytest

from lpverify.solvers.base import LinearProgram, LpStatus
from lpverify.solvers.highs import Highs


def program(cost, matrix, row_lower, lower, upper):
    return LinearProgram(*(np.asarray(v, np.float64) for v in (cost, matrix, row_lower, lower, upper)))


def test_optimum_with_duals():
    lp = program([1, 2], [[1, 1]], [1], [0, 0], [5, 5])
    answer = Highs().solve(lp, 10)
    assert answer.status is LpStatus.OPTIMAL
    assert np.allclose(answer.primal, [1, 0]) and np.allclose(answer.row_dual, [1])


def test_degenerate_optimum():
    lp = program([1, 1], [[1, 1], [2, 2], [1, 0]], [1, 2, 0], [0, 0], [1, 1])
    answer = Highs().solve(lp, 10)
    assert answer.status is LpStatus.OPTIMAL and np.isclose(answer.primal.sum(), 1)


def test_infeasible_comes_with_a_ray():
    lp = program([0, 0], [[1, 1], [-1, -1]], [3, -2], [0, 0], [5, 5])
    answer = Highs().solve(lp, 10)
    assert answer.status is LpStatus.INFEASIBLE
    ray = np.abs(answer.row_dual)
    assert ray is not None and np.isclose(ray[0], ray[1]) and ray[0] > 0


def test_no_rows():
    answer = Highs().solve(program([1, -1], np.zeros((0, 2)), [], [0, 0], [5, 5]), 10)
    assert answer.status is LpStatus.OPTIMAL and np.allclose(answer.primal, [0, 5])


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_badly_scaled(scale):
    lp = program([1, 1], [[scale, 1], [1, 1 / scale]], [scale, 1], [0, 0], [10, 10])
    answer = Highs().solve(lp, 10)
    assert answer.status in (LpStatus.OPTIMAL, LpStatus.INFEASIBLE)
