from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from helpers import box_assertions, query_of, random_dense

from lpverify.config import Config
from lpverify.errors import InputError
from lpverify.problem import compile_problem
from lpverify.query import float_above, float_below
from lpverify.verdict import Sat, Unsat
from lpverify.verify import verify_query


@pytest.fixture(scope="module")
def model():
    return random_dense(0, (2, 3, 2))


def test_box_ends_are_outward_and_atoms_rounded_up(model):
    problem = compile_problem(
        model.network, query_of(model, box_assertions([0.1, -0.7], [0.3, 0.9]) + "(assert (<= Y_0 0.1))")
    )
    (case,) = problem.cases
    for exact, low in zip(("0.1", "-0.7"), case.box.lower, strict=True):
        assert Fraction(float(low)) <= Fraction(exact) < Fraction(float(np.nextafter(low, np.inf)))
    for exact, high in zip(("0.3", "0.9"), case.box.upper, strict=True):
        assert Fraction(float(high)) >= Fraction(exact) > Fraction(float(np.nextafter(high, -np.inf)))
    assert Fraction(float(case.bounds[0])) >= Fraction("0.1")


def test_boxes_inside_a_disjunction_become_cases(model):
    body = """(assert (or (and (<= X_0 1) (>= X_0 0) (<= X_1 1) (>= X_1 0) (<= Y_0 0))
                          (and (<= X_0 3) (>= X_0 2) (<= X_1 1) (>= X_1 0) (>= Y_1 5))))"""
    problem = compile_problem(model.network, query_of(model, body))
    assert [c.box.lower.tolist() for c in problem.cases] == [[0, 0], [2, 0]]
    assert all(len(c.forms) == 1 for c in problem.cases)


def test_equal_boxes_are_merged_into_one_case(model):
    same = "(<= X_0 1) (>= X_0 0) (<= X_1 1) (>= X_1 0)"
    body = f"(assert (or (and {same} (<= Y_0 0)) (and {same} (>= Y_1 5))))"
    (case,) = compile_problem(model.network, query_of(model, body)).cases
    assert case.violation(np.array([[1.0, -5.0]])).tolist() == [0.0]
    assert case.refuted(np.array([[1.0, -4.0], [1.0, -5.0], [0.0, -4.0]])).tolist() == [True, False, False]


def test_forms_mix_inputs_and_outputs(model):
    body = box_assertions([0, 0], [1, 1]) + "(assert (<= (+ Y_0 (* 2 X_1)) (- Y_1 X_0)))"
    problem = compile_problem(model.network, query_of(model, body))
    x = np.random.default_rng(0).random((5, 2))
    y = model.network(x)
    form = problem.network(x)[:, problem.cases[0].forms[0]]
    assert np.allclose(form, y[:, 0] + 2 * x[:, 1] - y[:, 1] + x[:, 0], rtol=1e-12)


def test_contradictory_bounds_leave_no_case(model):
    problem = compile_problem(
        model.network, query_of(model, box_assertions([1, 0], [0.5, 1]) + "(assert (<= Y_0 0))")
    )
    assert problem.cases == () and "empty" in problem.notes[0]


def test_nearly_empty_range_is_decided_exactly(model):
    low, high = "0.30000000000000000000000001", "0.3"
    assert not compile_problem(model.network, query_of(model, box_assertions([low, 0], [high, 1]))).cases
    assert compile_problem(model.network, query_of(model, box_assertions([high, 0], [low, 1]))).cases


def test_inputs_without_bounds_are_named(model):
    body = "(assert (and (>= X_0 0) (<= X_0 1) (>= X_1 5000)))"
    problem = compile_problem(model.network, query_of(model, body))
    assert problem.unbounded == ("X_1",)
    (case,) = problem.cases
    assert case.box.lower[1] == 5000 and case.box.upper[1] > 5000
    assert verify_query(model, query_of(model, body + "(assert (> Y_0 1e9))"), Config()).reason.endswith(
        "X_1"
    )
    assert isinstance(verify_query(model, query_of(model, body + "(assert (> X_0 2))"), Config()), Unsat)
    assert isinstance(verify_query(model, query_of(model, body + "(assert (<= Y_0 1e9))"), Config()), Sat)


def test_equal_inputs_become_one():
    model = random_dense(0, (4, 3, 2))
    body = box_assertions([0, -1, 0, 0], [1, 5, 2, 1]) + "(assert (= X_0 X_1)) (assert (= X_1 X_3))"
    problem = compile_problem(model.network, query_of(model, body + "(assert (<= (+ Y_0 X_1 X_3 X_2) 0))"))
    (case,) = problem.cases
    assert problem.merged.tolist() == [0, 0, 1, 0]
    assert (case.box.lower.tolist(), case.box.upper.tolist()) == ([0, 0], [1, 2])
    assert [float(v) for v in case.range.upper] == [1, 1, 2, 1]
    x = np.random.default_rng(0).random((5, 2))
    full = x[:, problem.merged]
    expected = model.network(full)[:, 0] + 2 * x[:, 0] + x[:, 1]
    assert np.allclose(problem.network(x)[:, case.forms[0]], expected, rtol=1e-12)


@pytest.mark.parametrize(
    "atoms", ["(= X_0 (+ X_1 1))", "(<= X_0 X_1)", "(= X_0 (* 2 X_1))", "(= X_0 (- X_1))"]
)
def test_other_inputs_are_not_merged(atoms, model):
    body = box_assertions([0, 0], [1, 1]) + f"(assert {atoms})"
    assert compile_problem(model.network, query_of(model, body)).merged is None
    either = box_assertions([0, 0], [1, 1]) + "(assert (or (= X_0 X_1) (<= Y_0 0)))"
    assert compile_problem(model.network, query_of(model, either)).merged is None


def test_linear_constraints_tighten_ends(model):
    body = box_assertions([0, 0], [2, 2]) + "(assert (>= (+ (* 0.5 X_0) (* 0.75 X_1)) 2))"
    (case,) = compile_problem(model.network, query_of(model, body)).cases
    assert np.allclose(case.box.lower, [1, 4 / 3], atol=1e-15) and case.box.upper.tolist() == [2, 2]
    assert case.box.lower[0] <= 1 and Fraction(float(case.box.lower[1])) <= Fraction(4, 3)
    chained = "(assert (and (<= X_0 1) (>= X_0 0) (<= X_1 X_0) (>= X_1 (- X_0 1))))"
    problem = compile_problem(model.network, query_of(model, chained))
    assert not problem.unbounded and problem.cases[0].box.lower[1] == -1.0
    empty = box_assertions([0, 0], [2, 2]) + "(assert (>= (+ (* 0.5 X_0) (* 0.75 X_1)) 2.75))"
    assert not compile_problem(model.network, query_of(model, empty)).cases


def test_size_mismatch_is_an_error(model):
    other = random_dense(0, (3, 2, 2))
    with pytest.raises(InputError, match="declares 3 inputs"):
        compile_problem(model.network, query_of(other, box_assertions([0] * 3, [1] * 3)))


@pytest.mark.parametrize("text", ["0.1", "-0.1", "1e400", "-1e400", "5e-324", "1e-330", "0.5", "-1e-330"])
def test_float_ends(text):
    for number in (Decimal(text), Fraction(text)):
        low, high = float_below(number), float_above(number)
        assert np.isinf(low) or Fraction(low) <= Fraction(text)
        assert np.isinf(high) or Fraction(high) >= Fraction(text)
        assert (
            low <= high and (low == -np.inf) == (text == "-1e400") and (high == np.inf) == (text == "1e400")
        )
        with np.errstate(over="ignore"):
            assert high == low or np.nextafter(low, np.inf) == high
