"""Queries about computation in float types: whatever rounded evaluation finds true is in some case.

The oracle evaluates formulas in the type itself, constants rounded to it, sums in random order. The network
is the identity, so that nothing but the query's own arithmetic rounds.
"""

from dataclasses import replace
from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from formulas import Random, enclosure, equal
from helpers import graph_proto, model_proto
from hypothesis import example, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from lpverify.compiling import _typed
from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.io.onnx import import_model
from lpverify.problem import compile_problem
from lpverify.query import And, Atom, Or, Query
from lpverify.typed import Typed

FLOATS = [np.float16, ml_dtypes.bfloat16, np.float32, np.float64]
COUNT = 3
NO_SPANS = np.full((COUNT, 2), np.nan)
node = helper.make_node


def identity(kind=TensorProto.FLOAT, count=COUNT):
    graph = graph_proto([node("Identity", ["x"], ["y"])], {"x": (kind, [count])}, {"y": kind})
    return import_model(model_proto(graph).SerializeToString())


@pytest.fixture(scope="module")
def network():
    return identity().network


def typed(dtype, whole=(False,) * (2 * COUNT), spans=NO_SPANS):
    return Typed(dtype, np.array(whole), spans, lambda network, box, before: network)


def rounded(number, dtype):
    """The nearest number of a type."""
    with np.errstate(over="ignore"):
        return dtype(float(number))


class Computed:
    """Evaluates in a type."""

    def __init__(self, dtype, rng):
        self.dtype, self.rng = dtype, rng

    def term(self, factor, values):
        """`factor * product`, multiplied in a random order."""
        parts = [*values, *([] if factor == 1 else [rounded(factor, self.dtype)])]
        total = None
        for i in self.rng.permutation(len(parts)):
            total = parts[i] if total is None else self.dtype(total * parts[i])
        return total

    def left(self, atom, x, monomials):
        """The left-hand side, summed in a random order."""
        total, known = self.dtype(0), [*x, *x]
        for i in self.rng.permutation(len(atom.terms)):
            v, c = atom.terms[i]
            factors = monomials[v - 2 * COUNT] if v >= 2 * COUNT else (v,)
            total = self.dtype(total + self.term(c, [known[f] for f in factors]))
        return total

    def true(self, atom, x, monomials):
        """Rounded comparison; that of two plain variables needs no difference."""
        variables, factors = zip(*atom.terms, strict=True)
        if not atom.bound and factors in ((1, -1), (-1, 1)) and max(variables) < 2 * COUNT:
            (i, j), (c, _) = variables, factors
            first, second = (x[i % COUNT], x[j % COUNT]) if c > 0 else (x[j % COUNT], x[i % COUNT])
            return bool(first < second if atom.strict else first <= second)
        left, right = self.left(atom, x, monomials), rounded(atom.bound, self.dtype)
        return bool(left < right if atom.strict else left <= right)


def tight_bound(rng, value, dtype):
    """A constant that rounds to a number of the type, or nearly."""
    step = Fraction(float(np.nextafter(value, dtype(np.inf)))) - Fraction(float(value))
    return Fraction(float(value)) + step * Fraction(int(rng.integers(-60, 80)), 120)


FACTORS = [1, -1, 1, -1, 3, Fraction(1, 3), Decimal("0.1"), Decimal("-0.0009765625"), -1000, Decimal("1e-9")]


@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(range(len(FLOATS))))
@example(seed=0, kind=2)
@settings(max_examples=150, deadline=None)
@np.errstate(all="ignore")
def test_what_rounded_evaluation_finds_is_in_a_case(network, seed, kind):
    dtype = FLOATS[kind]
    draw = Random(seed, COUNT, COUNT, FACTORS)
    rng, query = draw.rng, Query(COUNT, COUNT, And(()), monomials=tuple(draw.monomials))
    scales = [1.0, 1.0, 0.01, 300.0, 1e-4]
    x = [rounded(rng.normal() * scales[rng.integers(len(scales))], dtype) for _ in range(COUNT)]
    if rng.random() < 0.3:
        x[1] = x[0]
    compute, atoms = Computed(dtype, rng), []
    for _ in range(12):
        some = [range(COUNT), range(2 * COUNT), range(2 * COUNT + 3)][rng.integers(3)]
        atom = draw.atom(some)
        value = compute.left(atom, x, query.monomials)
        if np.isfinite(value):
            bound = 0 if rng.random() < 0.2 else tight_bound(rng, value, dtype)
            atoms.append(Atom(atom.terms, bound, atom.strict))
    for i in range(COUNT):
        low, high = rounded(float(x[i]) - abs(rng.normal()), dtype), rounded(float(x[i]) + 1.0, dtype)
        atoms += [
            Atom(((i, 1),), tight_bound(rng, high, dtype)),
            Atom(((i, -1),), tight_bound(rng, -low, dtype)),
        ]
    atoms += [a for a in equal(0, 1, FACTORS[rng.integers(len(FACTORS))]).children]
    kept = tuple(a for a in atoms if compute.true(a, x, query.monomials))
    formula = And((*kept[:-3], Or((And(kept[-3:]), Atom(((0, 1),), -(10**6))))))
    problem = compile_problem(network, Query(COUNT, COUNT, formula, monomials=query.monomials), typed(dtype))
    if problem.unbounded:
        return
    places = np.arange(COUNT) if problem.merged is None else problem.merged
    inner = np.zeros(int(places.max()) + 1)
    inner[places] = [float(v) for v in x]
    assert [float(v) for v in inner[places]] == [float(v) for v in x]
    low = enclosure(problem.network, Box(inner[None], inner[None])).lower
    inside = [c for c in problem.cases if ((c.box.lower <= inner) & (inner <= c.box.upper)).all()]
    assert any(not case.refuted(low[:, case.forms])[0] for case in inside)


def _refuted(network, atoms, x, dtype, monomials=(), box=((-2000, 2000),) * COUNT):
    """Whether a point is outside of all cases, or refuted there."""
    box = [a for i, (low, high) in enumerate(box) for a in (Atom(((i, 1),), high), Atom(((i, -1),), -low))]
    query = Query(COUNT, COUNT, And((*box, *atoms)), monomials=monomials)
    problem = compile_problem(network, query, typed(dtype))
    assert problem.merged is None
    x = np.array(x, np.float64)
    with np.errstate(all="ignore"):
        low = enclosure(problem.network, Box(x[None], x[None])).lower
    inside = [c for c in problem.cases if ((c.box.lower <= x) & (x <= c.box.upper)).all()]
    return all(c.refuted(low[:, c.forms])[0] for c in inside)


def test_ends_do_not_come_from_rounded_arithmetic(network):
    """Cancellation in a sum, factors, underflow of a product on the way, equality of products."""
    f = np.float32
    y, x = f(1000), f(0.20001)
    assert f(x + y) <= f(1000.2) and Fraction(float(x)) + 1000 > Fraction("1000.2")
    total = [Atom(((0, 1), (1, 1)), Decimal("1000.2")), Atom(((1, -1),), -1000)]
    assert not _refuted(network, total, [x, y, 0], f)
    x = np.nextafter(f(3), f(4))
    assert f(f(0.03) * x) <= f(0.09)
    assert not _refuted(network, [Atom(((0, Decimal("0.03")),), Decimal("0.09"))], [x, 0, 0], f)
    x, y = f(1e-30), f(3e-15)
    value, exact = f(f(x * y) * f(1e24)), Fraction(float(x)) * Fraction(float(y)) * 10**24
    bound = Fraction(29, 10**22)
    assert value <= f(float(bound)) and exact > bound
    small = Atom(((6, 10**24),), bound)
    assert not _refuted(network, [small], [x, y, 0], f, ((0, 1),))
    numbers = np.linspace(1.5, 1.501, 99, dtype=f)
    pairs = zip(numbers, np.nextafter(numbers, f(2)), strict=True)
    first, second = next((a, b) for a, b in pairs if f(f(0.1) * a) == f(f(0.1) * b))
    assert f(f(0.1) * first) == f(f(0.1) * second)
    assert not _refuted(network, equal(0, 1, Decimal("0.1")).children, [first, second, 0], f)


def test_overflow_on_the_way_is_no_proof(network):
    """`-(x y z)` is -inf in float16, though the product is small."""
    x, y, z = np.float16(1000), np.float16(1000), np.float16(1e-3)
    with np.errstate(over="ignore"):
        assert -(x * y * z) <= np.float16(-60000)
    huge = Atom(((6, -1),), -60000)
    point, box = [float(x), float(y), float(z)], ((999, 1001), (999, 1001), (0, Fraction(1, 900)))
    assert not _refuted(network, [huge], point, np.float16, ((0, 1, 2),), box)
    assert _refuted(network, [huge], point, np.float32, ((0, 1, 2),), box)


def test_contradictions_of_constants_that_round_to_one_number(network):
    near = [Atom(((0, -1),), -Decimal("0.1000000000001")), Atom(((0, 1),), Decimal("0.1"))]
    assert not _refuted(network, near, [float(np.float32(0.1)), 0, 0], np.float32)
    apart = [Atom(((0, -1),), -Decimal("0.100001")), Atom(((0, 1),), Decimal("0.1"))]
    assert _refuted(network, apart, [float(np.float32(0.1)), 0, 0], np.float32)


def test_plain_comparisons_cost_nothing(network):
    """Of two variables, or with a number of the type: no noise, and equal inputs merge."""
    box = [a for i in range(COUNT) for a in (Atom(((i, 1),), 1), Atom(((i, -1),), Fraction(1, 2)))]
    plain = [Atom(((3, 1), (4, -1)), 0), Atom(((5, -1),), Fraction(1, 4)), Atom(((3, 1), (4, 1)), 1)]
    query = Query(COUNT, COUNT, And((*box, *plain, *equal(0, 1).children)))
    problem = compile_problem(network, query, typed(np.float32))
    assert problem.merged.tolist() == [0, 0, 1]
    (case,) = problem.cases
    assert (case.box.lower.tolist(), case.box.upper.tolist()) == ([-0.5, -0.5], [1, 1])
    x = np.array([[0.25, 0.75]])
    found = enclosure(problem.network, Box(x, x))
    widths = sorted((found.upper - found.lower)[0, case.forms])
    assert widths[0] == 0 and widths[1] < 1e-14 and 1e-7 < widths[2] < 1e-3


@pytest.mark.parametrize("dtype", FLOATS)
def test_slack_covers_rounding(dtype):
    one = typed(dtype)
    for text in ("0.1", "1e-7", "1e-40", "1e-45", "-3.3e38", "1e39", "65503.9", "-1e-320", "0.3333"):
        for number in (Decimal(text), Fraction(text)):
            nearest = float(rounded(number, dtype))
            assert not np.isfinite(nearest) or abs(Fraction(nearest) - Fraction(text)) <= Fraction(
                one.slack(number)
            )
    assert one.slack(Decimal("0.5")) == one.slack(0) == one.slack(Fraction(-3)) == 0
    assert one.slack(10**400) == one.slack(Fraction(-(10**400))) == np.inf


def test_whole_numbers_are_exact(network):
    whole = (True,) * (2 * COUNT)
    box = [a for i in range(COUNT) for a in (Atom(((i, 1),), 9), Atom(((i, -1),), 9))]
    query = Query(COUNT, COUNT, And((*box, Atom(((0, 2), (1, -1)), 1), Atom(((3, 1), (4, 5)), 7))))
    problem = compile_problem(network, query, typed(None, whole))
    assert problem.cases[0].box.upper.tolist() == [5, 9, 9]
    x = np.ones((1, COUNT))
    found = enclosure(problem.network, Box(x, x)).lower[0, problem.cases[0].forms]
    assert sorted(found) == pytest.approx([1, 6], abs=1e-12)


def test_types_of_models_become_spans():
    found = _typed(identity(TensorProto.UINT8))
    assert (found.dtype, found.whole.all(), found.spans.tolist()) == (None, True, [[0, 255]] * COUNT)
    half = _typed(identity(TensorProto.FLOAT16))
    assert half.dtype is np.float16 and half.spans[0].tolist() == [-65504, 65504]
    assert np.isnan(_typed(identity(TensorProto.BFLOAT16)).spans).all()
    free = Query(COUNT, COUNT, Atom(((3, 1),), 0))
    found = replace(found, execute=lambda network, box, before: network)
    problem = compile_problem(identity(TensorProto.UINT8).network, free, found)
    assert not problem.unbounded and problem.cases[0].box.upper.tolist() == [255] * COUNT
    nodes = [node("Identity", ["x"], ["y"]), node("Identity", ["u"], ["v"])]
    kinds = {"y": TensorProto.FLOAT16, "v": TensorProto.BFLOAT16}
    graph = graph_proto(nodes, {"x": (kinds["y"], [1]), "u": (kinds["v"], [1])}, kinds)
    with pytest.raises(UnsupportedError, match="both float16 and bfloat16"):
        _typed(import_model(model_proto(graph).SerializeToString()))
