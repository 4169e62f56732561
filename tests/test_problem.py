from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from helpers import box_assertions, query_of, random_dense

from lpverify.errors import InputError
from lpverify.problem import compile_problem
from lpverify.query import float_above, float_below


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


def test_unbounded_input_is_an_error(model):
    with pytest.raises(InputError, match="X_1 has no upper bound"):
        compile_problem(model.network, query_of(model, "(assert (and (>= X_0 0) (<= X_0 1) (>= X_1 0)))"))


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
