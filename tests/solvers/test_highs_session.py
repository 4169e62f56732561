"""Sessions: the same answers as from scratch, whatever was changed before."""

import dataclasses
import threading

import numpy as np
import pytest
from scipy.sparse import csr_array
from solvers.programs import (
    INF,
    INFEASIBLE,
    OPTIMA,
    admissible,
    check_optimum,
    exact_bound,
    knapsack,
    large_program,
    program,
    random_program,
)

from lpverify.errors import InternalError, SolverError
from lpverify.solvers import highs_session
from lpverify.solvers.base import LpStatus
from lpverify.solvers.highs import Highs
from lpverify.solvers.highs_session import HighsSession


def changed(lp, **fields):
    """A copy with entries of some fields set: `field=(indices, values)`."""
    arrays = {}
    for field, (indices, values) in fields.items():
        arrays[field] = getattr(lp, field).copy()
        arrays[field][indices] = values
    return dataclasses.replace(lp, **arrays)


def random_change(session, lp, rng):
    """One change of the session, and of the program that it stands for."""
    rows, columns = lp.matrix.shape
    kind = rng.integers(0, 4)
    if kind == 0:
        chosen = rng.permutation(columns)[:2]
        cost = rng.integers(-5, 6, 2).astype(float)
        session.set_cost(chosen, cost)
        return changed(lp, cost=(chosen, cost))
    if kind == 1:
        chosen = rng.permutation(columns)[:2]
        low = rng.integers(-3, 1, 2).astype(float)
        high = low + rng.integers(0, 5, 2)
        session.set_columns(chosen, low, high)
        return changed(lp, lower=(chosen, low), upper=(chosen, high))
    if kind == 2:  # rows off, at one side, or in between
        chosen = rng.permutation(rows)[:3]
        low = np.where(rng.random(3) < 0.5, -INF, rng.integers(-8, 1, 3))
        high = np.where(rng.random(3) < 0.5, INF, rng.integers(1, 9, 3))
        session.set_rows(chosen, low, high)
        return changed(lp, row_lower=(chosen, low), row_upper=(chosen, high))
    new = rng.integers(-3, 4, (1, columns)).astype(float)
    low, high = np.array([-INF]), np.array([4.0])
    session.add_rows(csr_array(new) if rng.random() < 0.5 else new, low, high)
    return dataclasses.replace(
        lp,
        matrix=np.concatenate([lp.matrix, new]),
        row_lower=np.append(lp.row_lower, low),
        row_upper=np.append(lp.row_upper, high),
    )


def check_same(lp, answer):
    """The session's answer against a cold solve, and against itself."""
    cold = Highs().solve(lp, 10)
    assert answer.status is cold.status
    if cold.status is LpStatus.OPTIMAL:
        check_optimum(lp, answer, 1e-6)
        assert np.isclose(lp.cost @ answer.primal, lp.cost @ cold.primal, atol=1e-7)
    elif cold.row_dual is not None:
        assert exact_bound(lp, admissible(lp, answer.row_dual), with_cost=False) > 0


@pytest.mark.parametrize("seed", range(5))
def test_random_changes(seed):
    """With restored bases now and then, which may stem from other ranges and fewer rows."""
    rng = np.random.default_rng(seed)
    lp = random_program(seed, rows=8, columns=6)
    session, kept = HighsSession(lp), [None]
    for step in range(60):
        lp = random_change(session, lp, rng)
        if step % 7 == 0:
            session.restore(kept[rng.integers(len(kept))])
        answer = session.solve(10, primal_simplex=bool(rng.random() < 0.3))
        check_same(lp, answer)
        kept.append(session.basis())


def test_a_restored_basis_needs_no_iterations():
    lp = large_program(rows=150, columns=100)
    session = HighsSession(lp)
    first = session.solve(30)
    assert session.iterations > 20
    basis = session.basis()
    assert basis.shape == (150, 100)
    session.set_columns(np.arange(20), np.zeros(20), np.zeros(20))
    session.solve(30)
    assert session.iterations > 0
    session.set_columns(np.arange(20), -np.ones(20), np.ones(20))
    session.restore(basis)
    again = session.solve(30)
    assert session.iterations == 0 and np.allclose(first.primal, again.primal)
    other = HighsSession(lp)
    assert other.basis() is None
    other.restore(basis)
    assert np.allclose(other.solve(30).primal, first.primal) and other.iterations == 0
    session.restore(None)
    session.solve(30)
    assert session.iterations > 20


def test_warm_starts_pay():
    """One column's range changes: few iterations of the dual simplex; one cost: few of the primal one."""
    lp = large_program(rows=150, columns=100)
    session = HighsSession(lp)
    session.solve(30)
    cold = session.iterations
    session.set_columns(np.array([3]), np.array([0.0]), np.array([1.0]))
    session.solve(30)
    assert session.iterations < cold / 4
    session.set_cost(np.array([5]), np.array([2.0]))
    session.solve(30, primal_simplex=True)
    assert session.iterations < cold / 4


def test_bases_grow_with_added_rows():
    """A new row is basic: one that the optimum keeps costs no iteration, as one that it breaks does."""
    lp = large_program(rows=150, columns=100)
    session = HighsSession(lp)
    first = session.solve(30)
    basis = session.basis()
    session.add_rows(np.ones((2, 100)), np.array([-INF, -200.0]), np.array([200.0, INF]))
    session.restore(basis)
    assert np.allclose(session.solve(30).primal, first.primal) and session.iterations == 0
    session.add_rows(csr_array(np.ones((1, 100))), np.array([first.primal.sum() + 1]), np.array([INF]))
    session.restore(basis)
    answer = session.solve(30)
    assert session.shape == (153, 100) and session.basis().shape == (153, 100) and session.iterations > 0
    assert answer.row_dual[152] > 0 and np.isclose(answer.primal.sum(), first.primal.sum() + 1)


def test_bases_of_other_programs_are_refused():
    session, other = HighsSession(random_program(1)), HighsSession(random_program(1, rows=4, columns=5))
    session.solve(10)
    with pytest.raises(InternalError):
        other.restore(session.basis())
    third = HighsSession(random_program(1, columns=4))
    with pytest.raises(InternalError):
        third.restore(session.basis())


@pytest.mark.parametrize("share", [2.0, 1.1, 1.001])
def test_cutoff_stops_early_with_duals_that_reach_it(share):
    lp = large_program(rows=150, columns=100)
    session = HighsSession(lp)
    value = float(lp.cost @ session.solve(30).primal)
    full = session.iterations
    session.restore(None)
    answer = session.solve(30, cutoff=share * value)
    assert value < 0 and answer.status is LpStatus.LIMIT and session.iterations < full
    assert share * value - 1e-9 <= exact_bound(lp, admissible(lp, answer.row_dual)) <= value + 1e-9
    finished = session.solve(30)
    assert finished.status is LpStatus.OPTIMAL and np.isclose(lp.cost @ finished.primal, value)


def test_cutoff_above_the_optimum_changes_nothing():
    expected = OPTIMA["equations"]
    session = HighsSession(expected.lp)
    check_optimum(expected.lp, session.solve(10, cutoff=7.0), 1e-7, expected.value)
    check_optimum(expected.lp, session.solve(10, cutoff=-7.0, primal_simplex=True), 1e-7, expected.value)


def test_time_limits_count_from_each_call():
    """HiGHS adds up the times of all runs of an object."""
    lp = large_program(rows=150, columns=100)
    session = HighsSession(lp)
    spent = 0.0
    while spent < 0.6:
        session.restore(None)
        answer = session.solve(0.3)
        assert answer.status is LpStatus.OPTIMAL
        spent += answer.seconds
    large = HighsSession(large_program())
    assert large.solve(0.0).status is large.solve(0.05).status is LpStatus.LIMIT
    assert large.solve(30).status is LpStatus.OPTIMAL


@pytest.mark.parametrize("failures", [1, 2])
def test_a_failed_warm_start_is_tried_once_more_from_scratch(monkeypatch, failures):
    expected = OPTIMA["rows at their upper ends"]
    session = HighsSession(expected.lp)
    session.solve(10)
    calls = []

    def unlucky(solver):
        calls.append(solver.getBasis().valid)
        return "kUnknown" if len(calls) <= failures else run(solver)

    run = highs_session.run
    monkeypatch.setattr(highs_session, "run", unlucky)
    if failures == 2:
        with pytest.raises(SolverError):
            session.solve(10)
    else:
        check_optimum(expected.lp, session.solve(10), 1e-7, expected.value)
    assert calls == [True, False]


def test_two_sessions_at_the_same_time():
    programs = [random_program(seed, rows=30, columns=20) for seed in (1, 2)]
    problems = []

    def work(lp, seed):
        try:
            rng, session = np.random.default_rng(seed), HighsSession(lp)
            for _ in range(15):
                lp = random_change(session, lp, rng)
                check_same(lp, session.solve(10))
        except BaseException as error:  # noqa: BLE001  (handed to the main thread)
            problems.append(error)

    threads = [threading.Thread(target=work, args=(lp, seed)) for seed, lp in enumerate(programs)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


def test_solving_releases_the_interpreter():
    """Another thread moves on while a solve is under way."""
    session, ticks, done = HighsSession(large_program()), [], threading.Event()

    def tick():
        while not done.wait(0.01):
            ticks.append(0)

    thread = threading.Thread(target=tick)
    thread.start()
    seconds = session.solve(0.3).seconds
    done.set()
    thread.join()
    assert len(ticks) >= 3 * seconds


@pytest.mark.parametrize("value", [np.nan, INF])
def test_changes_that_are_no_numbers(value):
    session, one = HighsSession(random_program(1)), np.array([1])
    low, high = np.array([0.0]), np.array([1.0])
    wrong = np.array([value])
    calls = [
        lambda: session.set_cost(one, wrong),
        lambda: session.set_columns(one, wrong, high),
        lambda: session.set_columns(one, low, -wrong),
        lambda: session.set_rows(one, wrong, high),
        lambda: session.set_rows(one, low, -wrong),
        lambda: session.add_rows(np.full((1, 5), value), low, high),
        lambda: session.add_rows(np.ones((1, 5)), wrong, high),
    ]
    for call in calls:
        with pytest.raises(SolverError):
            call()
    check_same(random_program(1), session.solve(10))


@pytest.mark.parametrize("indices", [[0, 99], [-1, 0], [2, 2]])
def test_indices_that_are_not_usable(indices):
    session, ends = HighsSession(random_program(1)), np.zeros(2)
    for call in (session.set_columns, session.set_rows):
        with pytest.raises(SolverError):
            call(np.array(indices), ends, ends)
    with pytest.raises(SolverError):
        session.set_cost(np.array(indices), ends)


def test_programs_that_a_session_refuses():
    for lp in (knapsack().lp, OPTIMA["no columns"].lp):
        with pytest.raises(SolverError):
            HighsSession(lp)


def test_from_infeasible_to_feasible_and_back():
    lp = INFEASIBLE["two rows"]
    session = HighsSession(lp)
    row = np.array([1])
    for _ in range(3):
        assert session.solve(10).status is LpStatus.INFEASIBLE
        session.set_rows(row, np.array([-INF]), np.array([INF]))
        assert session.solve(10).status is LpStatus.OPTIMAL
        session.set_rows(row, np.array([-2.0]), np.array([INF]))
    crossed = program([1, 1], [[1, 1]], [1], [0, 0], [1, 1])
    session = HighsSession(crossed)
    session.set_columns(np.array([0]), np.array([1.0]), np.array([0.0]))
    answer = session.solve(10)
    assert answer.status is LpStatus.INFEASIBLE and answer.row_dual is None
    session.set_columns(np.array([0]), np.array([0.0]), np.array([1.0]))
    check_same(crossed, session.solve(10))
