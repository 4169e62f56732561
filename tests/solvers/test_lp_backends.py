"""Every backend of linear programs on programs whose answers are known."""

import dataclasses
import time

import numpy as np
import pytest
from scipy.sparse import coo_array, csr_array
from solvers.programs import (
    INF,
    INFEASIBLE,
    OPTIMA,
    UNBOUNDED,
    Session,
    admissible,
    check_optimum,
    exact_bound,
    knapsack,
    large_program,
    program,
    random_program,
)

from lpverify.errors import InputError, SolverError
from lpverify.solvers.base import LpStatus
from lpverify.solvers.registry import lp_backend, lp_names

# simplex methods; an interior-point method; first-order methods
TOLERANCES = {
    "highs": 1e-7,
    "session": 1e-7,
    "cvxpy:HIGHS": 1e-7,
    "cvxpy:SCIPY": 1e-7,
    "cvxpy:CLARABEL": 1e-6,
    "cvxpy:SCS": 1e-3,
    "cvxpy:OSQP": 1e-3,
}
SIMPLEX = {"highs", "session", "cvxpy:HIGHS", "cvxpy:SCIPY"}
WITHOUT_RAYS = {"cvxpy:SCIPY"}
WHOLE = {"highs", "cvxpy:HIGHS", "cvxpy:SCIPY"}


def backend_of(name):
    if name == "session":
        return Session()
    try:
        return lp_backend(name)
    except InputError as error:
        pytest.skip(str(error))


@pytest.fixture(params=list(TOLERANCES))
def name(request):
    return request.param


def test_the_backends_that_the_project_needs_are_there():
    assert {"highs", "cvxpy:HIGHS", "cvxpy:SCS", "cvxpy:CLARABEL"} <= set(lp_names())


@pytest.mark.parametrize("problem", OPTIMA)
def test_optimum_with_duals(name, problem):
    if name == "session" and problem == "no columns":
        pytest.skip("a session needs columns")
    expected = OPTIMA[problem]
    answer = backend_of(name).solve(expected.lp, 10)
    check_optimum(expected.lp, answer, TOLERANCES[name], expected.value)
    assert answer.bound is None and answer.seconds >= 0


@pytest.mark.parametrize("seed", range(6))
def test_random_programs_by_duality(name, seed):
    lp = random_program(seed)
    check_optimum(lp, backend_of(name).solve(lp, 10), TOLERANCES[name])


@pytest.mark.parametrize("kind", [csr_array, coo_array])
def test_sparse_matrices(name, kind):
    lp = random_program(3)
    sparse = dataclasses.replace(lp, matrix=kind(lp.matrix))
    check_optimum(lp, backend_of(name).solve(sparse, 10), TOLERANCES[name])


def test_sparse_entries_that_come_twice(name):
    """The pairs (0, 0) add up; the caller's matrix stays as it is."""
    twice = csr_array((np.array([0.25, 0.75, 1.0]), np.array([0, 0, 1]), np.array([0, 3])), shape=(1, 2))
    expected = OPTIMA["one row"]
    answer = backend_of(name).solve(dataclasses.replace(expected.lp, matrix=twice), 10)
    check_optimum(expected.lp, answer, TOLERANCES[name], expected.value)
    assert twice.nnz == 3


@pytest.mark.parametrize("problem", INFEASIBLE)
def test_infeasible_comes_with_a_ray_that_proves_it(name, problem):
    lp = INFEASIBLE[problem]
    answer = backend_of(name).solve(lp, 10)
    assert answer.status is LpStatus.INFEASIBLE and answer.primal is None
    if name in WITHOUT_RAYS:
        assert answer.row_dual is None
    else:
        assert exact_bound(lp, admissible(lp, answer.row_dual), with_cost=False) > 0


def test_crossed_ends(name):
    rows = program([1, 1], [[1, 1]], [2], [0, 0], [5, 5], [1])
    columns = program([1, 1], [[1, 1]], [1], [0, 3], [5, 2])
    for lp in (rows, columns):
        assert backend_of(name).solve(lp, 10).status is LpStatus.INFEASIBLE


def test_rows_without_columns(name):
    if name == "session":
        pytest.skip("a session needs columns")
    lp = program([], np.zeros((2, 0)), [-1, -INF], [], [], [1, -2])
    answer = backend_of(name).solve(lp, 10)
    assert answer.status is LpStatus.INFEASIBLE and exact_bound(lp, answer.row_dual) > 0


@pytest.mark.parametrize("problem", UNBOUNDED)
def test_unbounded(name, problem):
    answer = backend_of(name).solve(UNBOUNDED[problem], 10)
    assert answer.status is LpStatus.UNBOUNDED and answer.primal is None and answer.row_dual is None


@pytest.mark.parametrize("scale", [1e-9, 1e-4, 1e4, 1e9])
def test_badly_scaled(name, scale):
    lp = program([1, 1], [[scale, 1], [1, 1 / scale]], [scale, 1], [0, 0], [10, 10])
    answer = backend_of(name).solve(lp, 5)
    accepted = {LpStatus.OPTIMAL} if name in SIMPLEX else {LpStatus.OPTIMAL, LpStatus.LIMIT}
    assert answer.status in accepted
    if answer.row_dual is not None:
        bound = exact_bound(lp, admissible(lp, answer.row_dual))
        assert bound <= min(1.0, scale) * (1 + 1e-12)


@pytest.mark.parametrize("seconds", [0.01, 0.2])
def test_time_limit(name, seconds):
    lp = large_program()
    start = time.monotonic()
    answer = backend_of(name).solve(lp, seconds)
    assert answer.status in (LpStatus.OPTIMAL, LpStatus.LIMIT)
    assert time.monotonic() - start < seconds + 5
    if seconds == 0.01:
        assert answer.status is LpStatus.LIMIT
    if answer.row_dual is not None:
        assert answer.row_dual.shape == (600,) and np.isfinite(answer.row_dual).all()


@pytest.mark.parametrize("value", [np.nan, INF, -INF])
@pytest.mark.parametrize("field", ["cost", "matrix", "row_lower", "lower", "upper", "row_upper"])
def test_values_that_are_no_numbers(name, field, value):
    lp = OPTIMA["rows at their upper ends"].lp
    if (field.endswith("lower") and value == -INF) or (field.endswith("upper") and value == INF):
        return
    array = getattr(lp, field).copy()
    array.flat[1] = value
    with pytest.raises(SolverError):
        backend_of(name).solve(dataclasses.replace(lp, **{field: array}), 10)


def test_sparse_matrix_with_nan(name):
    lp = OPTIMA["one row"].lp
    with pytest.raises(SolverError):
        backend_of(name).solve(dataclasses.replace(lp, matrix=csr_array(lp.matrix * np.nan)), 10)


def test_whole_numbers(name):
    backend, expected = backend_of(name), knapsack()
    assert backend.whole_numbers == (name in WHOLE)
    if name not in WHOLE:
        with pytest.raises(SolverError):
            backend.solve(expected.lp, 10)
        return
    answer = backend.solve(expected.lp, 10)
    assert answer.status is LpStatus.OPTIMAL and answer.row_dual is None
    assert np.isclose(expected.lp.cost @ answer.primal, expected.value)
    assert expected.value - 0.1 < answer.bound <= expected.value + 1e-6
    assert np.allclose(answer.primal, np.round(answer.primal), atol=1e-6)


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_only_some_columns_are_whole(name):
    lp = program([-1, -1], [[2, 2]], [-INF], [0, 0], [5, 0.25], [4.25], [True, False])
    answer = backend_of(name).solve(lp, 10)
    assert np.allclose(answer.primal, [2, 0.125])


@pytest.mark.parametrize("name", sorted(WHOLE))
def test_whole_numbers_infeasible(name):
    lp = program([1, 1], [[2, 2]], [1], [0, 0], [5, 5], [1], [True, True])
    answer = backend_of(name).solve(lp, 10)
    assert answer.status is LpStatus.INFEASIBLE and answer.primal is None and answer.bound is None


def test_whole_flags_that_are_all_false(name):
    expected = OPTIMA["one row"]
    lp = dataclasses.replace(expected.lp, whole=np.zeros(2, bool))
    check_optimum(lp, backend_of(name).solve(lp, 10), TOLERANCES[name], expected.value)


def test_nothing_is_printed(name, capfd):
    backend = backend_of(name)
    for lp in (OPTIMA["no cost"].lp, INFEASIBLE["two rows"], UNBOUNDED["ray"]):
        backend.solve(lp, 5)
    assert capfd.readouterr() == ("", "")
