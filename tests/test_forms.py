"""Linear forms and products behind a network: exact for small whole numbers, enclosed for all others."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from formulas import Random, all_values, around, enclosure
from helpers import dense_model, exact_dense
from hypothesis import given, settings
from hypothesis import strategies as st

from lpverify.errors import UnsupportedError
from lpverify.forms import Forms, append_forms
from lpverify.network import Network, Node
from lpverify.ops.shape import Reshape
from lpverify.query import And, Atom, Query

LAYERS = [
    (np.array([[1, -2], [3, 1], [-1, 2]]), np.array([0, 1])),
    (np.array([[1, 2], [-1, 1]]), np.array([0, -1])),
]
WILD = [1, -3, Fraction(1, 3), Decimal("-1e-40"), 10**30, Decimal("0.1"), Fraction(-(10**25), 7)]
seeds = st.integers(0, 2**32 - 1)
contract = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def network():
    return dense_model(LAYERS).network


def _forms(draw, variables, count):
    forms = Forms()
    for _ in range(count):
        forms.number(draw.atom(variables))
    return forms


def _exact(forms, values):
    return [sum((Fraction(c) * values[v] for v, c in terms), Fraction(0)) for terms in forms.index]


@given(seed=seeds, kind=st.sampled_from([range(8), range(3), range(3, 5), range(5), range(5, 8)]))
@contract
def test_forms_of_whole_numbers_are_exact(network, seed, kind):
    draw = Random(seed, 3, 2, [1, -1, 2, -3, 5])
    query, forms = draw.query(), _forms(draw, kind, 6)
    x = draw.rng.integers(-4, 5, (5, 3))
    computed = append_forms(network, forms, query)(x.astype(np.float64))
    for row, point in zip(computed, x.tolist(), strict=True):
        known = [*map(Fraction, point), *exact_dense(LAYERS, [Fraction(v) for v in point])]
        assert row.tolist() == _exact(forms, all_values(query, known))


@given(seed=seeds, kind=st.sampled_from([range(8), range(3), range(3, 5), range(5)]))
@contract
def test_forms_are_enclosed_with_all_rounding(network, seed, kind):
    draw = Random(seed, 3, 2, WILD)
    query, forms = draw.query(), _forms(draw, kind, 4)
    point = [Fraction(int(draw.rng.integers(-99, 100)), int(draw.rng.integers(1, 30))) for _ in range(3)]
    found = enclosure(append_forms(network, forms, query), around(point))
    values = all_values(query, [*point, *exact_dense(LAYERS, point)])
    for low, high, exact in zip(found.lower[0], found.upper[0], _exact(forms, values), strict=True):
        assert Fraction(float(low)) <= exact <= Fraction(float(high))
        assert high - low <= 1e-9 * max(map(abs, values)) * 1e31


def test_relative_errors_are_recorded(network):
    """The enclosure of a single term has the relative width of a few roundings, whatever its size."""
    for factor in (Fraction(1, 3), Fraction(-1, 3), Decimal("1e-40"), Decimal("-1e250"), 10**30 + 1):
        forms = Forms()
        forms.number(Atom(((0, factor),), 0))
        new = append_forms(network, forms, Query(3, 2, And(())))
        found = enclosure(new, around([Fraction(3), Fraction(0), Fraction(0)]))
        low, high = Fraction(float(found.lower[0, 0])), Fraction(float(found.upper[0, 0]))
        exact = Fraction(factor) * 3
        assert low < exact < high and high - low <= abs(exact) / 2**46


@pytest.mark.parametrize(
    "factor", [Decimal("1e-400"), Decimal("-1e-400"), Decimal("1e400"), Fraction(-1, 10**310)]
)
def test_coefficients_beyond_floats_prove_nothing_wrong(network, factor):
    forms = Forms()
    forms.number(Atom(((0, factor), (1, 1)), 0))
    new = append_forms(network, forms, Query(3, 2, And(())))
    with np.errstate(invalid="ignore", over="ignore"):
        found = enclosure(new, around([Fraction(7), Fraction(2), Fraction(0)]))
    exact = 7 * Fraction(factor) + 2
    low, high = float(found.lower[0, 0]), float(found.upper[0, 0])
    assert (low == -np.inf or Fraction(low) <= exact) and (high == np.inf or exact <= Fraction(high))


def test_only_what_forms_read_is_appended(network):
    query = Query(3, 2, And(()), monomials=((0, 0, 0, 1, 1), (2, 3)))
    forms = Forms()
    forms.number(Atom(((3, 1), (4, -1)), 0))
    assert append_forms(network, forms, query).nodes[-1].op.weight.shape == (1, 2)
    forms.number(Atom(((5, 1),), 0))
    new = append_forms(network, forms, query)
    assert new.nodes[-1].op.weight.shape == (2, 6)
    assert new(np.array([[-2.0, 3.0, 1.0]]))[0, 1] == -72.0
    assert append_forms(network, Forms(), query)(np.zeros((1, 3))).tolist() == [[0.0]]


def test_a_result_that_is_not_flat_is_refused():
    nodes = (Node(None, (), (4,)), Node(Reshape((2, 2), (4,)), (0,), (2, 2)))
    with pytest.raises(UnsupportedError, match="not flat"):
        append_forms(Network(nodes, 1), Forms(), Query(4, 4, And(())))
