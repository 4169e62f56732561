"""Exact threats: regions, queries, distances."""

import math
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from robustness.cases import points_of

from lpverify.errors import InputError
from lpverify.query import And, Atom, Or, atoms
from lpverify.robustness.threat import Threat, lead

TENTH, INF = Fraction(1, 10), math.inf
LARGEST = float(np.finfo(np.float64).max)
finite = st.floats(allow_nan=False, allow_infinity=False)
radii = st.one_of(
    st.just(Fraction(0)),
    st.fractions(0, 2),
    st.floats(0, LARGEST).map(Fraction),
    st.sampled_from([Fraction(1, 10**400), Fraction(10**400), Fraction(8, 255)]),
)


def holds(ends, point) -> bool:
    lower, upper = ends
    return all(low <= v <= high for low, v, high in zip(lower, point, upper, strict=True))


def inside(region, point) -> bool:
    """Exact comparison with the ends of a region's box, which may be infinite."""
    lower, upper = region.box.lower[0].tolist(), region.box.upper[0].tolist()
    return all(low <= v <= high for low, v, high in zip(lower, point, upper, strict=True))


# What an adversary may do


@given(st.lists(finite, min_size=1, max_size=4), radii, st.sampled_from([1, 2, INF]))
def test_the_region_holds_the_box_around_the_ball(x, eps, norm) -> None:
    threat, sample = Threat(3, norm), np.array(x)
    lower, upper = threat.ends(sample, eps)
    assert [v - eps for v in map(Fraction, x)] == lower
    assert [v + eps for v in map(Fraction, x)] == upper
    region = threat.region(sample[None], [eps])
    assert inside(region, lower)
    assert inside(region, upper)
    if norm == INF:
        assert region.ball is None
    else:
        assert region.ball.norm == norm
        np.testing.assert_array_equal(region.ball.centre[0], sample)
        assert region.ball.radius[0] >= eps


@given(
    st.lists(st.floats(0, 1), min_size=1, max_size=4),
    st.fractions(0, 2),
    st.sampled_from([1, 2, INF]),
    st.sampled_from([(0, 1), (-TENTH, 1 + TENTH), (Decimal("-0.1"), Decimal("1.1")), None]),
    st.integers(0, 2**32 - 1),
)
def test_the_region_holds_the_points_of_the_cut_ball(x, eps, norm, clip, seed) -> None:
    threat, sample = Threat(2, norm, clip), np.array(x)
    region, ends = threat.region(sample[None], [eps]), threat.ends(sample, eps)
    for point in points_of(sample, eps, threat, 5, seed):
        assert inside(region, point)
        assert holds(ends, point)


def test_ends_of_the_range_are_exact() -> None:
    clip = (TENTH, Fraction(9, 10))  # 0.1 as a float is above, 0.9 below
    threat, x = Threat(2, clip=clip), np.array([[0.5]])
    assert threat.ends(x[0], Fraction(1)) == ([clip[0]], [clip[1]])
    low, high = threat.clip_floats
    assert low < clip[0] < math.nextafter(low, 1)
    assert math.nextafter(high, 0) < clip[1] <= high
    box = threat.region(x, [Fraction(1)]).box
    assert (box.lower.item(), box.upper.item()) == (low, high)
    assert Threat(2).clip_floats == (-INF, INF)


def test_radius_zero_is_a_point() -> None:
    x = np.array([[0.1, -3.0, 0.0]])
    box = Threat(2).region(x, [Fraction(0)]).box
    np.testing.assert_array_equal(box.lower, x)
    np.testing.assert_array_equal(box.upper, x)


def test_samples_have_radii_of_their_own() -> None:
    box = Threat(2).region(np.zeros((2, 1)), [Fraction(1, 4), Fraction(1, 2)]).box
    np.testing.assert_array_equal(box.upper, [[0.25], [0.5]])


def test_a_ball_beyond_the_range() -> None:
    threat = Threat(2, clip=(0, 1))
    outside = np.array([[0.5], [1.25]])
    with pytest.raises(InputError, match="outside of the clip range"):
        threat.region(outside, [Fraction(1, 8)] * 2)
    box = threat.region(outside, [Fraction(1, 4)] * 2).box
    assert (box.lower[1, 0], box.upper[1, 0]) == (1, 1)


# What counts as success


def test_the_query_has_exact_ends_and_all_rivals() -> None:
    eps, x = Fraction(8, 255), np.array([0.1, 0.99])
    query = Threat(3, 2, (0, 1)).query(x, 1, eps)
    assert (query.inputs, query.outputs) == (2, 3)
    *ends, wrong = query.formula.children
    assert isinstance(query.formula, And)
    assert ends == [
        Atom(((0, -1),), eps - Fraction(0.1)),
        Atom(((0, 1),), Fraction(0.1) + eps),
        Atom(((1, -1),), eps - Fraction(0.99)),
        Atom(((1, 1),), 1),
    ]
    assert wrong == Or((Atom(((2, -1), (3, 1)), 0), Atom(((3, 1), (4, -1)), 0)))
    assert not any(atom.strict for atom in atoms(query.formula))  # a tie is a violation


@pytest.mark.parametrize(("label", "rivals"), [(0, (1, 2)), (1, (0, 2)), (2, (0, 1))])
def test_rivals(label, rivals) -> None:
    assert Threat(3).rivals(label) == rivals
    assert Threat(3, targets="next").rivals(label) == ((label + 1) % 3,)
    assert len(Threat(3, targets="next").query(np.zeros(1), label, TENTH).formula.children[-1].children) == 1


def test_a_lead_is_the_label_before_the_rival() -> None:
    for label, rival in ((0, 2), (2, 0)):
        atom = lead(4, label, rival)
        assert dict(atom.terms) == {4 + label: 1, 4 + rival: -1}
        assert [v for v, _ in atom.terms] == sorted(v for v, _ in atom.terms)
        assert (atom.bound, atom.strict) == (0, False)


@pytest.mark.parametrize("targets", ["all", "next"])
@pytest.mark.parametrize("label", [-1, 3])
def test_labels_that_are_no_class(label, targets) -> None:
    with pytest.raises(InputError, match=f"label {label}: the classes of this network are 0 to 2"):
        Threat(3, targets=targets).query(np.zeros(1), label, TENTH)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"norm": 3}, "norm"),
        ({"norm": float("nan")}, "norm"),
        ({"targets": "none"}, "targets"),
        ({"classes": 1}, "two outputs"),
        ({"clip": (1, 1)}, "clip: 1 is not below 1"),
        ({"clip": (TENTH, Decimal("0.05"))}, "clip"),
    ],
)
def test_wrong_arguments(given, message) -> None:
    with pytest.raises(InputError, match=message):
        Threat(**{"classes": 3} | given)


# Distances


def exact(x, point) -> list[Fraction]:
    return [abs(Fraction(a) - Fraction(b)) for a, b in zip(x, point, strict=True)]


pairs = st.integers(1, 4).flatmap(lambda n: st.tuples(*[st.lists(finite, min_size=n, max_size=n)] * 2))


@given(pairs)
def test_distances_are_exact_or_rounded_up(pair) -> None:
    x, point = map(np.array, pair)
    gaps = exact(*pair)
    assert Threat(2).distance(x, point) == max(gaps)
    assert Threat(2, 1).distance(x, point) == sum(gaps)
    square, found = sum(g * g for g in gaps), Threat(2, 2).distance(x, point)
    assert square <= found * found <= square * (1 + Fraction(1, 2**50))


@pytest.mark.parametrize("unit", [5e-324, 1e-200, 1e-160, 1e-10, 1.0, 1e150, 1e200, 1e307])
def test_lengths_of_all_sizes(unit) -> None:
    found = Threat(2, 2).distance(np.zeros(2), np.array([3 * unit, 4 * unit]))
    true = math.isqrt(int(sum(Fraction(k * unit) ** 2 for k in (3, 4)) * 2**2400))
    assert Fraction(true, 2**1200) <= found <= Fraction(true + 1, 2**1200) * (1 + Fraction(1, 2**50))


def test_a_point_that_did_not_move() -> None:
    x = np.array([0.5, -0.0])
    assert [Threat(2, norm).distance(x, np.array([0.5, 0.0])) for norm in (1, 2, INF)] == [0, 0, 0]


def test_points_outside_have_no_distance() -> None:
    threat, x = Threat(2, clip=(TENTH, 1)), np.array([0.5, 0.5])
    assert threat.distance(x, np.array([0.5, 0.1])) == Fraction(0.5) - Fraction(0.1)
    below = math.nextafter(0.1, 0)
    assert Fraction(below) < TENTH < Fraction(0.1)
    for point in ([0.5, below], [math.nextafter(1, 2), 0.5], [0.5, math.nan], [INF, 0.5], [0.5, -INF]):
        assert threat.distance(x, np.array(point)) is None
    assert Threat(2).distance(x, np.array([0.5, math.nan])) is None
    low, high = Fraction(3, 10), Fraction(9, 10)
    assert Fraction(0.3) < low
    assert Fraction(0.9) > high  # the nearest floats are outside
    for point in ([0.5, 0.3], [0.9, 0.5]):
        assert Threat(2, clip=(low, high)).distance(x, np.array(point)) is None
