from dataclasses import replace

import numpy as np
import pytest
from helpers import box_assertions, query_of, random_dense

from lpverify.bounds.evaluate import Batch, case_forms, columns_of, double_precision, evaluate, open_rows
from lpverify.bounds.propagate import Region
from lpverify.interval import Box
from lpverify.multipliers import Effort, Schedule
from lpverify.problem import compile_problem


@pytest.fixture(scope="module")
def problem():
    model = random_dense(2, (3, 8, 8, 3))
    body = box_assertions([-1] * 3, [1] * 3) + "(assert (or (<= Y_0 -50) (<= Y_1 0.5) (>= Y_2 1.5)))"
    return compile_problem(model.network, query_of(model, body))


def batch_of(problem, floor=None):
    box = problem.cases[0].box
    return Batch(np.zeros(1, np.int64), Region(Box(box.lower[None], box.upper[None])), {}, floor)


def test_only_settled_forms_are_left_out(problem):
    bounds = problem.cases[0].bounds[np.argsort(columns_of(problem, 0))]
    cases = np.zeros(1, np.int64)
    for settled in ([], [0], [1], [0, 2], [0, 1, 2]):
        floor = np.full((1, 3), -np.inf)
        floor[0, settled] = bounds[settled] + 1.0
        expected = [i for i in range(3) if i not in settled] or [0]
        assert open_rows(problem, cases, floor)[0].tolist() == expected
    at_bound = bounds[None].copy()
    assert open_rows(problem, cases, at_bound)[0].tolist() == [0, 1, 2], "equal is not settled"


def test_short_rows_repeat_their_last(problem):
    bounds = problem.cases[0].bounds[np.argsort(columns_of(problem, 0))]
    floor = np.full((2, 3), -np.inf)
    floor[1, :2] = bounds[:2] + 1
    assert open_rows(problem, np.zeros(2, np.int64), floor).tolist() == [[0, 1, 2], [2, 2, 2]]


@pytest.mark.parametrize("effort", [Effort("ibp"), Effort("crown"), Effort("crown", Schedule(steps=3))])
def test_floor_is_kept_and_refutes(problem, effort):
    plain = evaluate(problem, double_precision(problem), batch_of(problem), effort)
    assert plain.rows.tolist() == [[1, 2]] or 0 in plain.rows, "the first form may be settled by intervals"
    floor = np.full((1, 3), 1e6)
    settled = evaluate(problem, double_precision(problem), batch_of(problem, floor), effort)
    assert settled.refuted[0] and (settled.lower == 1e6).all()
    assert not plain.refuted[0]


def test_all_needed_forms_get_bounds(problem):
    """With nothing known, backward bounds beat intervals on every form, so none was left out."""
    ibp = evaluate(problem, double_precision(problem), batch_of(problem), Effort("ibp"))
    crown = evaluate(problem, double_precision(problem), batch_of(problem), Effort("crown"))
    interval = ibp.frame.boxes[-1].lower[0][case_forms(problem, 0)]
    assert (crown.lower[0][crown.rows[0]] > interval[crown.rows[0]]).all()
    assert len(np.unique(crown.rows)) >= 2


def test_rows_in_parts_have_the_same_bounds(problem):
    """A limit that lets one row through at a time; no multipliers are optimised then."""
    small = replace(double_precision(problem), limit=0)
    for effort in (Effort("crown"), Effort("crown", Schedule(steps=3))):
        parts = evaluate(problem, small, batch_of(problem), effort)
        whole = evaluate(problem, double_precision(problem), batch_of(problem), Effort("crown"))
        np.testing.assert_allclose(parts.lower, whole.lower, rtol=1e-12)
        assert parts.multipliers is None and parts.linear.a.shape == whole.linear.a.shape


def test_multipliers_that_do_not_fit_are_left_out(problem):
    effort = Effort("crown", Schedule(steps=3))
    for memory, fits in ((4e9, True), (10.0, False)):
        arithmetic = replace(double_precision(problem), memory=memory)
        found = evaluate(problem, arithmetic, batch_of(problem), effort)
        assert (found.multipliers is not None) == fits
