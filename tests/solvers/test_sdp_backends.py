"""Every backend of semidefinite programs on programs whose answers are known."""

import dataclasses
import time

import numpy as np
import pytest
from solvers.programs import (
    impossible,
    program,
    smallest_eigenvalue,
    symmetric,
    theta_of_the_pentagon,
    two_blocks,
    unexplained,
)

from lpverify.errors import InputError, SolverError
from lpverify.solvers.base import LpStatus, SdpAnswer
from lpverify.solvers.cvxpy import CvxpySdp
from lpverify.solvers.registry import sdp_backend

TOLERANCES = {"cvxpy:CLARABEL": 1e-6, "cvxpy:SCS": 1e-3}
ITERATIONS = {"cvxpy:CLARABEL": "max_iter", "cvxpy:SCS": "max_iters"}


@pytest.fixture(params=list(TOLERANCES))
def name(request):
    return request.param


def check_optimum(sdp, answer, value, tolerance):
    """Feasibility, semidefinite multipliers, complementary slackness, and the bound that follows."""
    assert isinstance(answer, SdpAnswer) and answer.status is LpStatus.OPTIMAL
    lp, x, y = sdp.linear, answer.primal, answer.row_dual
    assert abs(lp.cost @ x - value) <= tolerance * (1 + abs(value))
    reduced = unexplained(sdp, answer)
    ends = [(lp.matrix @ x, y, *lp.row_ends), (x, reduced, lp.lower, lp.upper)]
    for place, multiplier, low, high in ends:
        assert (place >= low - tolerance).all() and (place <= high + tolerance).all()
        with np.errstate(invalid="ignore"):
            assert not np.any(np.maximum(multiplier, 0) * np.minimum(place - low, 1) > 10 * tolerance)
            assert not np.any(np.minimum(multiplier, 0) * np.minimum(high - place, 1) < -10 * tolerance)
    for block, dual in zip(sdp.blocks, answer.block_duals, strict=True):
        assert np.array_equal(dual, dual.T) and dual.shape == block.shape
        assert np.linalg.eigvalsh(dual)[0] >= -tolerance
        assert np.linalg.eigvalsh(x[block])[0] >= -tolerance
        assert abs((dual * x[block]).sum()) <= 10 * tolerance


@pytest.mark.parametrize("size", [1, 2, 8])
def test_smallest_eigenvalue(name, size):
    sdp, value = smallest_eigenvalue(size)
    answer = sdp_backend(name).solve(sdp, 20)
    check_optimum(sdp, answer, value, TOLERANCES[name])
    assert np.isclose(answer.row_dual[0], value, atol=TOLERANCES[name])
    assert answer.figures["iterations"] >= 1


@pytest.mark.parametrize("repeat", [1, 3])
def test_theta_number_of_the_pentagon(name, repeat):
    """With `repeat` above 1 most rows are redundant."""
    sdp, value = theta_of_the_pentagon(repeat)
    check_optimum(sdp, sdp_backend(name).solve(sdp, 20), value, TOLERANCES[name])


def test_two_blocks_that_share_moments(name):
    """The optimum: m2 = 1/4, m1 = 1/2, m3 = -1/2; a row of the range of m2 and a fixed moment take part."""
    sdp, value = two_blocks()
    answer = sdp_backend(name).solve(sdp, 20)
    check_optimum(sdp, answer, value, TOLERANCES[name])
    assert np.allclose(answer.primal, [1, 0.5, 0.25, -0.5], atol=10 * TOLERANCES[name])
    assert answer.row_dual[0] < -0.1


def test_infeasible_comes_with_a_ray(name):
    """`y b > 0` while `y A + Z` is zero."""
    sdp = impossible()
    answer = sdp_backend(name).solve(sdp, 20)
    assert answer.status is LpStatus.INFEASIBLE and answer.primal is None
    gain = answer.row_dual @ sdp.linear.row_lower
    assert gain > 0 and np.abs(unexplained(sdp, answer, with_cost=False)).max() <= 1e-5 * gain
    assert np.linalg.eigvalsh(answer.block_duals[0])[0] >= -1e-9


def test_unbounded(name):
    """Diagonal entries may grow for ever."""
    free = np.full(3, np.inf)
    linear = program([-1, 0, -1], [[0, 1, 0]], [0.5], -free, free, [0.5])
    answer = sdp_backend(name).solve(dataclasses.replace(impossible(), linear=linear), 20)
    assert answer.status is LpStatus.UNBOUNDED and answer.primal is None and answer.block_duals is None


def test_crossed_ends(name):
    sdp = impossible()
    crossed = dataclasses.replace(sdp.linear, lower=np.ones(3), upper=np.array([2, 0.5, 2]))
    answer = sdp_backend(name).solve(dataclasses.replace(sdp, linear=crossed), 20)
    assert answer.status is LpStatus.INFEASIBLE


@pytest.mark.parametrize("seconds", [0.001, 0.04])
def test_time_limit(name, seconds):
    """The first limit ends while CVXPY compiles, the second while the solver works."""
    sdp, _ = smallest_eigenvalue(75)
    start = time.monotonic()
    answer = sdp_backend(name).solve(sdp, seconds)
    assert answer.status is LpStatus.LIMIT
    assert time.monotonic() - start < 10
    assert seconds > 0.01 or answer.primal is None


@pytest.mark.parametrize("iterations", [1, 2, 3])
def test_iteration_limit(name, iterations):
    """SCS counts its first iterations as solved, undecided and unbounded, all of them inaccurately."""
    sdp, _ = smallest_eigenvalue(20)
    answer = CvxpySdp(name.removeprefix("cvxpy:"), {ITERATIONS[name]: iterations}).solve(sdp, 20)
    assert answer.status is LpStatus.LIMIT
    if answer.block_duals is not None:
        assert answer.block_duals[0].shape == (20, 20) and np.isfinite(answer.row_dual).all()
    assert answer.block_duals is not None or (name == "cvxpy:SCS" and iterations > 1)


def test_values_that_are_no_numbers(name):
    sdp, _ = smallest_eigenvalue(3)
    for field in ("cost", "matrix", "row_lower", "lower"):
        array = getattr(sdp.linear, field).copy()
        array.flat[0] = np.nan
        wrong = dataclasses.replace(sdp, linear=dataclasses.replace(sdp.linear, **{field: array}))
        with pytest.raises(SolverError):
            sdp_backend(name).solve(wrong, 10)


def test_whole_numbers_are_refused(name):
    sdp, _ = smallest_eigenvalue(2)
    whole = dataclasses.replace(sdp.linear, whole=np.ones(3, bool))
    with pytest.raises(SolverError):
        sdp_backend(name).solve(dataclasses.replace(sdp, linear=whole), 10)


def test_no_rows_at_all(name):
    """A correlation matrix with the least sum."""
    block, ends = symmetric(3), np.where(np.isin(np.arange(6), [0, 3, 5]), 1.0, np.inf)
    linear = program([0, 2, 2, 0, 2, 0], np.zeros((0, 6)), [], np.where(ends == 1, 1, -ends), ends)
    sdp = dataclasses.replace(impossible(), linear=linear, blocks=(block,))
    answer = sdp_backend(name).solve(sdp, 20)
    check_optimum(sdp, answer, -3, TOLERANCES[name])


@pytest.mark.parametrize("wrong", ["cvxpy:HIGHS", "highs", "nonsense"])
def test_solvers_without_semidefinite_cones_are_refused(wrong):
    with pytest.raises(InputError, match="CLARABEL"):
        sdp_backend(wrong)
