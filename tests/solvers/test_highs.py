"""What HiGHS alone can do: options, limits that leave duals, threads."""

import subprocess
import sys
import threading
import types

import numpy as np
import pytest
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
)

from lpverify.errors import SolverError
from lpverify.solvers import highs
from lpverify.solvers.base import LpStatus
from lpverify.solvers.highs import Highs, HighsOptions, claimed


@pytest.fixture(scope="module")
def optimum():
    lp = large_program()
    return lp, float(lp.cost @ Highs().solve(lp, 60).primal)


@pytest.mark.parametrize("presolve", [False, True])
@pytest.mark.parametrize("share", [1.5, 1.01])
def test_cutoff_leaves_duals_that_reach_it(optimum, presolve, share):
    lp, value = optimum
    answer = Highs(HighsOptions(cutoff=share * value, presolve=presolve)).solve(lp, 60)
    assert answer.status is LpStatus.LIMIT
    assert share * value - 1e-6 <= exact_bound(lp, admissible(lp, answer.row_dual)) < value


def test_time_limit_leaves_duals_with_a_bound(optimum):
    lp, value = optimum
    answer = Highs().solve(lp, 0.05)
    assert answer.status is LpStatus.LIMIT
    assert exact_bound(lp, admissible(lp, answer.row_dual)) <= value + 1e-6


@pytest.mark.parametrize("problem", INFEASIBLE)
def test_rays_survive_presolve(problem):
    lp = INFEASIBLE[problem]
    answer = Highs(HighsOptions(presolve=True)).solve(lp, 10)
    assert answer.status is LpStatus.INFEASIBLE
    assert exact_bound(lp, admissible(lp, answer.row_dual), with_cost=False) > 0


@pytest.mark.parametrize("threads", [2, 1, 3, 1])
def test_numbers_of_threads_may_change(threads):
    """The library binds each of our threads to the number of workers of its first run."""
    expected = OPTIMA["degenerate"]
    check_optimum(
        expected.lp, Highs(HighsOptions(threads=threads)).solve(expected.lp, 10), 1e-7, expected.value
    )
    whole = knapsack()
    answer = Highs(HighsOptions(threads=threads)).solve(whole.lp, 10)
    assert np.isclose(whole.lp.cost @ answer.primal, whole.value)


def test_programs_side_by_side():
    expected = [OPTIMA[name] for name in ("equations", "degenerate")] * 4
    found = [None] * len(expected)

    def work(i):
        found[i] = Highs(HighsOptions(threads=1 + i % 2)).solve(expected[i].lp, 10)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(len(expected))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for wanted, answer in zip(expected, found, strict=True):
        check_optimum(wanted.lp, answer, 1e-7, wanted.value)


def hard_selection():
    """A knapsack with eight rows, about a second of branch and cut; the minimum is -874."""
    rng = np.random.default_rng(0)
    weights = rng.integers(1, 50, (8, 60)).astype(float)
    values = rng.integers(1, 50, 60).astype(float)
    return program(
        -values, weights, [-INF] * 8, [0] * 60, [1] * 60, weights.sum(axis=1) // 3, np.ones(60, bool)
    )


def test_mixed_integer_cutoff_ends_at_a_bound():
    """The native `objective_bound` would claim an optimum of -49 here."""
    lp = hard_selection()
    answer = Highs(HighsOptions(cutoff=-895.0)).solve(lp, 60)
    assert answer.status is LpStatus.LIMIT and -895 <= answer.bound <= -874 + 1e-6
    assert answer.row_dual is None


def test_mixed_integer_target_ends_at_a_point():
    lp = hard_selection()
    answer = Highs(HighsOptions(target=-800.0)).solve(lp, 60)
    assert answer.status is LpStatus.LIMIT and -874.001 <= lp.cost @ answer.primal <= -800
    assert (lp.matrix @ answer.primal <= lp.row_upper + 1e-6).all()


def test_mixed_integer_time_limit():
    lp = hard_selection()
    answer = Highs().solve(lp, 0.01)
    assert answer.status is LpStatus.LIMIT
    assert answer.bound is None or answer.bound <= -874 + 1e-6


def test_mixed_integer_unbounded_or_infeasible_is_decided():
    lp = program([-1, -1], [[2, 2]], [1], [0, 0], [INF, INF], whole=[True, True])
    assert Highs().solve(lp, 10).status is LpStatus.UNBOUNDED


def test_every_native_status_is_treated():
    """Those of the installed library: each is a claim, or a failure on purpose."""
    import highspy

    failures = {"Notset", "LoadError", "ModelError", "PresolveError", "SolveError", "PostsolveError"}
    failures |= {"ModelEmpty", "Unknown"}
    for name in highspy.HighsModelStatus.__members__:
        if name.removeprefix("k") in failures:
            with pytest.raises(SolverError):
                claimed(name)
        else:
            assert isinstance(claimed(name), LpStatus)
    with pytest.raises(SolverError):
        claimed("kSomethingNew")


@pytest.mark.parametrize("where", ["col_value", "row_dual"])
def test_an_optimum_that_is_no_number_is_a_failure(where):
    values = {"col_value": [1.0], "row_dual": [1.0], "value_valid": True, "dual_valid": True, where: [np.nan]}
    solver = types.SimpleNamespace(getSolution=lambda: types.SimpleNamespace(**values))
    with pytest.raises(SolverError):
        highs.linear_answer(solver, "kOptimal", 0.0)
    answer = highs.linear_answer(solver, "kTimeLimit", 0.0)
    assert (answer.primal is None) == (where == "col_value") and (answer.row_dual is None) == (
        where == "row_dual"
    )


def test_options_that_do_not_exist():
    with pytest.raises(SolverError):
        Highs(HighsOptions(threads=-5)).solve(OPTIMA["one row"].lp, 1)


def test_solvers_write_nothing_to_stdout():
    """HiGHS 1.16 greets there, where the first line is our verdict."""
    code = "from lpverify.solvers.highs import new_solver as n; s = n(1, True); s.addVar(0, 1); s.run()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
