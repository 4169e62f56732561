from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from helpers import box_assertions, dense_model, query_of

from lpverify.problem import Range, compile_problem
from lpverify.query import Atom
from lpverify.replay import Replayer, atom_holds, inner_box


@pytest.fixture(scope="module")
def model():
    return dense_model([(np.eye(2), np.zeros(2))])  # y = x


def replayer(model, body, box=((0, 0), (1, 1))):
    query = query_of(model, box_assertions(*map(list, box)) + body)
    return Replayer(model, compile_problem(model.network, query))


def test_witness_is_exactly_inside(model):
    replay = replayer(model, "(assert (<= Y_0 0.2))", ((0.1, 0.3), (0.2, 0.3)))
    witness = replay(np.array([0.15, 0.0]), 0)
    assert Fraction("0.1") <= Fraction(witness.x[0]) <= Fraction("0.2")
    assert Fraction(witness.x[0]) == Fraction(float(witness.inputs[0]))


def test_a_range_without_floats_keeps_its_exact_number(model):
    replay = replayer(model, "(assert (<= Y_0 0.2))", ((0.1, "0.3"), (0.2, "0.3")))
    witness = replay(np.array([0.15, 0.3]), 0)
    assert witness.x[1] == Decimal("0.3") and witness.inputs[1] == np.float32(0.3)


def test_no_tolerance_at_the_threshold(model):
    """float32(0.1) is above 0.1, so the point at the end of the box must move below it."""
    assert replayer(model, "(assert (>= Y_0 0.1))", ((0, 0), ("0.1", 1)))(np.array([0.1, 0]), 0) is None
    assert (
        replayer(model, "(assert (>= Y_0 0.0999999))", ((0, 0), ("0.1", 1)))(np.array([0.1, 0]), 0)
        is not None
    )


def test_strict_atoms(model):
    assert replayer(model, "(assert (< Y_0 0.5))")(np.array([0.5, 0]), 0) is None
    assert replayer(model, "(assert (<= Y_0 0.5))")(np.array([0.5, 0]), 0) is not None


def test_all_assertions_count(model):
    replay = replayer(model, "(assert (<= Y_0 0.5)) (assert (or (>= Y_1 2) (>= X_1 0.75)))")
    assert replay(np.array([0.25, 0.5]), 0) is None
    assert replay(np.array([0.25, 0.8]), 0) is not None


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_inner_box(dtype):
    texts = ["0.1", "-0.1", "0.5", "1e-50", "-1e-50", "123456789.123456789"]
    numbers = tuple(Decimal(t) for t in texts)
    lower, upper = inner_box(Range(numbers, numbers), dtype)
    for number, low, high in zip(numbers, lower, upper, strict=True):
        assert Fraction(float(low)) >= Fraction(number) > Fraction(float(np.nextafter(low, dtype(-np.inf))))
        assert Fraction(float(high)) <= Fraction(number) < Fraction(float(np.nextafter(high, dtype(np.inf))))


@pytest.mark.parametrize("strict", [False, True])
def test_atom_holds_is_exact(strict):
    atom = Atom(((0, 1),), Decimal("0.1"), strict)
    assert not atom_holds(atom, [0.1])  # the double is above
    assert atom_holds(atom, [np.nextafter(0.1, 0)])
    assert atom_holds(Atom(((0, 1),), Decimal("0.1"), False), [Decimal("0.1")])
    assert not atom_holds(Atom(((0, 1),), Decimal("0.1"), True), [Decimal("0.1")])
    assert atom_holds(Atom(((0, 3), (1, -1)), 0, False), [Fraction(1, 3), 1.0])
    assert atom_holds(Atom(((0, -1),), Decimal("-0.5"), False), [0.5])
