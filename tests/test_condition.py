import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from lpverify.condition import AND, OR, Condition, condition_of, join
from lpverify.query import And, Atom, Or

LEAVES = [Atom(((i, 1),), 0) for i in range(4)]
FORMULAS = st.recursive(
    st.sampled_from(LEAVES),
    lambda inner: st.lists(inner, max_size=3).map(tuple).flatmap(lambda c: st.sampled_from([And(c), Or(c)])),
    max_leaves=12,
)


def truth(formula, values):
    if isinstance(formula, Atom):
        return values[formula.terms[0][0]]
    return (all if isinstance(formula, And) else any)(truth(c, values) for c in formula.children)


@given(FORMULAS)
def test_fold_agrees_with_recursion_on_all_assignments(formula):
    condition = condition_of(formula, lambda atom: atom.terms[0][0])
    for values in itertools.product([False, True], repeat=4):
        assert condition.fold(lambda a, v=values: v[a], all, any) == truth(formula, values)


def test_deep_trees_do_not_recurse():
    formula = LEAVES[0]
    for i in range(30_000):
        formula = And((formula, LEAVES[1])) if i % 2 else Or((formula, LEAVES[2]))
    assert condition_of(formula, lambda a: a.terms[0][0]).fold(lambda a: a == 0 or a == 1, all, any)


def test_join_and_renumber():
    both = join([Condition(((0, 0),)), Condition(((1, 0),))], AND)
    assert both.code == ((0, 0), (1, 0), (AND, 2))
    assert join([both], OR) is both
    assert both.renumber({0: 5, 1: 7}).atoms == (5, 7)
    assert np.array_equal(both.atoms, (0, 1))
