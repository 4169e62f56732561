"""Equal inputs, ends by constraints, cases: against exact truth on all points of a small grid."""

from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from formulas import COEFFICIENTS, Random, all_values, around, enclosure, equal, grid, holds
from helpers import dense_model, exact_dense
from hypothesis import given, settings
from hypothesis import strategies as st

from lpverify.cases import drafts_of
from lpverify.presolve import merge_equal_inputs, propagate_ends
from lpverify.problem import compile_problem
from lpverify.query import And, Atom, Or, Query, map_atoms, normal_atom

INPUTS = 3
LAYERS = [
    (np.array([[1, -2], [3, 1], [-1, 2]]), np.array([0, 1])),
    (np.array([[1, 2], [-1, 1]]), np.array([0, -1])),
]
seeds = st.integers(0, 2**32 - 1)
contract = settings(max_examples=60, deadline=None)


@pytest.fixture(scope="module")
def network():
    return dense_model(LAYERS).network


def _solutions(query):
    """The grid's points that fulfil a query about the network, with the values of all variables."""
    for x in grid(query.inputs):
        values = all_values(query, [*x, *exact_dense(LAYERS, list(x))])
        yield x, values, holds(query.formula, values)


@given(seed=seeds)
@contract
def test_merging_keeps_the_truth_and_loses_no_solution(seed):
    query = Random(seed, INPUTS, 2, COEFFICIENTS).query()
    reduced, merged = merge_equal_inputs(query)
    places = np.arange(INPUTS) if merged is None else merged
    for x, values, true in _solutions(query):
        first = {int(k): v for k, v in zip(places, x, strict=True)}
        shared = all(first[int(k)] == v for k, v in zip(places, x, strict=True))
        assert shared or not true
        if shared:
            fewer = [first[k] for k in range(reduced.inputs)]
            new = all_values(reduced, [*fewer, *values[INPUTS : INPUTS + 2]])
            assert holds(reduced.formula, new) == true


@given(seed=seeds)
@contract
def test_every_solution_is_in_a_case_that_is_not_refuted_there(network, seed):
    query = Random(seed, INPUTS, 2, COEFFICIENTS).query()
    problem = compile_problem(network, query)
    assert not problem.unbounded
    for x, _, true in _solutions(query):
        if not true:
            continue
        fewer = list(x)
        if problem.merged is not None:
            fewer = [x[problem.merged.tolist().index(k)] for k in range(max(problem.merged) + 1)]
        low = enclosure(problem.network, around(fewer)).lower
        inside = [
            case
            for case in problem.cases
            if all(l <= v <= u for l, v, u in zip(case.range.lower, x, case.range.upper, strict=True))
        ]
        assert any(not case.refuted(low[:, case.forms])[0] for case in inside)
        for case in inside:
            assert all(Fraction(l) <= v for l, v in zip(case.box.lower, fewer, strict=True))
            assert all(Fraction(u) >= v for u, v in zip(case.box.upper, fewer, strict=True))


@given(seed=seeds)
@contract
def test_drafts_are_together_the_formula(seed):
    """Both ways: no solution is lost, and none comes in."""
    query = Random(seed, INPUTS, 2, COEFFICIENTS).query()
    drafts = drafts_of(query)
    for x, values, true in _solutions(query):
        inside = False
        for draft in drafts:
            ends = [draft.ends.get(i, (None, None)) for i in range(INPUTS)]
            within = all(
                (l is None or Fraction(l) <= v) and (u is None or v <= Fraction(u))
                for v, (l, u) in zip(x, ends, strict=True)
            )
            inside = inside or (within and holds(And(tuple(draft.rest)), values))
        assert inside >= true
        if not any(a.strict and len(a.terms) == 1 for d in [query.formula] for a in _atoms(d)):
            assert inside == true  # ends are closed: only strict bounds on one input let points in


def _atoms(formula):
    return [formula] if isinstance(formula, Atom) else [a for c in formula.children for a in _atoms(c)]


SIZES = [Fraction(1), Fraction(1, 3), Fraction(1, 10**40), Fraction(10**30), Fraction(1, 10**320), 10**299]


@given(seed=seeds)
@contract
def test_propagation_keeps_a_solution(seed):
    """Constraints that hold at one point, some with equality, of all magnitudes."""
    rng = np.random.default_rng(seed)

    def draw():
        return SIZES[rng.integers(len(SIZES))] * Fraction(int(rng.integers(-9, 10)), 7)

    point = [draw() for _ in range(4)]
    atoms = []
    for _ in range(8):
        chosen = sorted(rng.choice(4, rng.integers(2, 5), replace=False).tolist())
        terms = tuple((i, c) for i in chosen if (c := draw()))
        left = sum((c * point[i] for i, c in terms), Fraction(0))
        slack = abs(draw()) if rng.random() < 0.5 else 0
        parts = [Atom(terms, left + slack)]
        if rng.random() < 0.4:
            parts.append(Atom(tuple((i, -c) for i, c in terms), -left))
        atoms += [a for a in parts if len(a.terms) > 1]
    known = rng.random((4, 2)) < 0.7
    ends = {
        i: (v - abs(draw()) if known[i, 0] else None, v + abs(draw()) if known[i, 1] else None)
        for i, v in enumerate(point)
        if known[i].any()
    }
    before = dict(ends)
    propagate_ends(ends, atoms, 4)
    for i, v in enumerate(point):
        (low, high), (first, last) = ends.get(i, (None, None)), before.get(i, (None, None))
        assert (low is None or low <= v) and (high is None or v <= high)
        assert first is None or low >= first
        assert last is None or high <= last


def test_propagation_finds_chains_and_contradictions():
    ends = {0: (Fraction(0), Fraction(1))}
    chain = [*equal(0, 1, 3).children, *equal(1, 2, Fraction(1, 7)).children]
    propagate_ends(ends, chain, 3)
    assert ends[2] == (0, 1)
    rising = [Atom(((0, 1), (1, -1)), -1), Atom(((0, -1), (1, 1)), -1)]  # x <= y - 1 <= x - 2
    ends = {0: (Decimal(0), Decimal(1)), 1: (Decimal(0), Decimal(1))}
    propagate_ends(ends, rising, 2)
    assert any(high < low for low, high in ends.values())


def test_propagation_leaves_outputs_products_and_disjunctions_alone():
    ends = {0: (Decimal(0), Decimal(1))}
    parts = [Atom(((0, 1), (2, 1)), 0), Or((Atom(((0, 1), (1, 1)), 0),)), Atom(((0, 1), (5, 1)), -7)]
    propagate_ends(ends, parts, 2)
    assert ends == {0: (0, 1)}


def test_only_certain_equalities_merge():
    strict = And((Atom(((0, 1), (1, -1)), 0, True), Atom(((0, -1), (1, 1)), 0)))
    others = [
        Or((equal(0, 1), Atom(((0, 1),), 0))),
        And(equal(0, 1).children[:1]),
        equal(0, 3),  # an output
        And((Atom(((0, 1), (1, -1)), 0), Atom(((0, -1), (1, 2)), 0))),
        And((Atom(((0, 1), (1, -1)), Decimal("1e-400")), Atom(((0, -1), (1, 1)), Decimal("-1e-400")))),
    ]
    for formula in others:
        assert merge_equal_inputs(Query(3, 1, formula))[1] is None
    reduced, merged = merge_equal_inputs(Query(2, 1, strict))
    assert merged.tolist() == [0, 0] and not holds(reduced.formula, [Fraction(1)] * 2)
    products = Atom(((6, 1), (7, -1), (8, 2)), 5)
    one = And((equal(2, 4, Fraction(1, 3)), equal(4, 0, 10**30), Or((equal(1, 3),)), products))
    reduced, merged = merge_equal_inputs(Query(5, 1, one, monomials=((0, 1), (1, 4), (2, 4))))
    assert merged.tolist() == [0, 1, 0, 2, 0]
    assert (reduced.inputs, reduced.monomials) == (3, ((0, 1), (0, 0)))  # two of them became the same
    assert reduced.formula.children[-1] == Atom(((5, 2),), 5)


def test_trivial_atoms():
    assert normal_atom({0: 0}, Decimal("1e-400"), True) == And(())
    assert normal_atom({0: 0}, Decimal("-1e-400"), False) == Or(())
    assert normal_atom({}, 0, True) == Or(()) and normal_atom({}, 0, False) == And(())
    deep = Atom(((0, 1),), 0)
    for i in range(20_000):
        deep = And((deep,)) if i % 2 else Or((deep,))
    assert map_atoms(deep, lambda atom: And(())) is not None
