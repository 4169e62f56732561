"""Softmax outputs that sum up to 1, behind data movement, and what is taken out of forms."""

from fractions import Fraction

import numpy as np
import pytest
from formulas import holds
from helpers import graph_proto, model_proto
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from lpverify.io.onnx import import_model
from lpverify.problem import compile_problem
from lpverify.query import And, Atom, Query
from lpverify.sums import output_groups, without_sums

node = helper.make_node
INDICES = {"twice": np.array([2, 0, 1, 2]), "part": np.array([0, 2]), "order": np.array([2, 0, 1])}


def _network(nodes, shape=(2, 3), opset=13, constants=None):
    graph = graph_proto(nodes, {"x": (TensorProto.FLOAT, list(shape))}, {"y": TensorProto.FLOAT}, constants)
    return import_model(model_proto(graph, opset).SerializeToString()).network


def _agree(network):
    """Each group that is claimed has the sum 1 at random points."""
    groups = output_groups(network)
    values = network(np.random.default_rng(0).normal(size=(4, network.input_size)) * 3)
    for group in groups:
        assert len(set(group)) == len(group)
        assert np.allclose(values[:, list(group)].sum(axis=1), 1.0)
    return sorted(groups)


def test_groups_of_plain_softmax():
    assert _agree(_network([node("Softmax", ["x"], ["y"])])) == [(0, 1, 2), (3, 4, 5)]
    other = _network([node("Softmax", ["x"], ["y"], axis=0)])
    assert _agree(other) == [(0, 3), (1, 4), (2, 5)]
    assert _agree(_network([node("Softmax", ["x"], ["y"], axis=1)], (2, 1))) == []


@pytest.mark.parametrize(("axis", "count"), [(0, 1), (1, 2), (2, 6)])
def test_groups_of_old_versions_are_over_all_axes_from_one_on(axis, count):
    network = _network([node("Softmax", ["x"], ["y"], axis=axis)], (2, 3, 2), opset=11)
    groups = _agree(network)
    assert len(groups) == count and all(len(group) == 12 // count for group in groups)


@pytest.mark.parametrize(
    ("indices", "groups"), [("order", [(1, 2, 0), (4, 5, 3)]), ("twice", []), ("part", [])]
)
def test_groups_behind_gather(indices, groups):
    nodes = [node("Softmax", ["x"], ["s"]), node("Gather", ["s", "i"], ["y"], axis=1)]
    assert _agree(_network(nodes, constants={"i": INDICES[indices]})) == groups


def test_groups_behind_other_data_movement():
    nodes = [
        node("Softmax", ["x"], ["s"]),
        node("Transpose", ["s"], ["t"], perm=[1, 0]),
        node("Reshape", ["t", "flat"], ["r"]),
        node("Concat", ["a", "r"], ["y"], axis=0),
    ]
    constants = {"flat": np.array([6]), "a": np.array([0.5, 0.25], np.float32)}
    assert _agree(_network(nodes, constants=constants)) == [(2, 4, 6), (3, 5, 7)]
    both = [
        node("Softmax", ["x"], ["s"]),
        node("Slice", ["s", "one", "two", "zero"], ["p"]),
        node("Concat", ["s", "x", "p"], ["y"], axis=0),
    ]
    ends = {"zero": np.array([0]), "one": np.array([1]), "two": np.array([2])}
    assert _agree(_network(both, constants=ends)) == [(0, 1, 2)]  # the second row is there twice
    scaled = [node("Softmax", ["x"], ["s"]), node("Mul", ["s", "c"], ["y"])]
    assert _agree(_network(scaled, constants={"c": np.array(2.0, np.float32)})) == []
    again = [node("Softmax", ["x"], ["s"]), node("Softmax", ["s"], ["y"])]
    assert _agree(_network(again)) == [(0, 1, 2), (3, 4, 5)]


@given(seed=st.integers(0, 2**32 - 1))
@settings(max_examples=100, deadline=None)
def test_truth_is_kept_where_sums_are_one(seed):
    network = _network([node("Softmax", ["x"], ["y"])])
    rng = np.random.default_rng(seed)
    choices = [0, 1, 1, -2, Fraction(1, 3), 10**30, Fraction(1, 10**40)]
    terms = [(v, c) for v in range(12) if (c := choices[rng.integers(len(choices))])]
    x = [Fraction(int(v), 3) for v in rng.integers(-3, 4, 6)]
    rows = [[Fraction(int(v) + 1, 7) for v in rng.integers(0, 5, 3)] for _ in range(2)]
    values = x + [v / sum(row) for row in rows for v in row]
    left = sum((c * values[v] for v, c in terms), Fraction(0))
    for bound in (left, left - Fraction(1, 10**50), left + Fraction(1, 10**50)):
        for strict in (False, True):
            query = Query(6, 6, Atom(tuple(terms), bound, strict))
            reduced = without_sums(network, query)
            assert holds(reduced.formula, values) == holds(query.formula, values)
            assert sum(len(a.terms) for a in [reduced.formula] if isinstance(a, Atom)) <= len(terms)


def test_a_whole_sum_is_decided():
    network = _network([node("Softmax", ["x"], ["y"])], (1, 2))
    box = [Atom(((i, sign),), 1) for i in range(2) for sign in (1, -1)]
    for bound, count in ((1, 1), (Fraction(1) - Fraction(1, 10**40), 0)):
        total = Atom(((2, 1), (3, 1)), bound)
        problem = compile_problem(network, Query(2, 2, And((*box, total))))
        refuted = [bool(c.refuted(np.zeros((1, len(c.forms))))[0]) for c in problem.cases]
        assert refuted.count(False) == count
