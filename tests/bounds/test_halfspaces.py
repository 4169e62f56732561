"""Clipping loses no point, in exact arithmetic; the table of alternatives says what the condition says."""

from fractions import Fraction
from itertools import count, product
from math import isfinite

import numpy as np
import pytest
from helpers import box_assertions, dense_model, query_of

from lpverify.bounds.halfspaces import HalfSpaces, shrink, table_of
from lpverify.config import Config, Deadline
from lpverify.interval import Box
from lpverify.problem import compile_problem
from lpverify.verdict import Unsat
from lpverify.verify import verify_query

NONE = HalfSpaces(np.zeros((1, 0, 2)), np.zeros((1, 0)))
NOTHING = HalfSpaces(np.zeros((1, 1, 1, 2)), np.full((1, 1, 1), -np.inf))


def exact(array):
    return [Fraction(float(v)) for v in array]


def excess(slope, height, point):
    """`slope . point + height`, -inf where there is no such half-space."""
    if height == -np.inf:
        return -1
    terms = (s * x for s, x in zip(exact(slope), point, strict=True))
    return sum(terms, Fraction(float(height)))


def extreme_points(lower, upper, halves, rng):
    """Points where clipping must stop: an input solved for, the others at ends of the box or anywhere."""
    low, high, n = exact(lower), exact(upper), len(lower)
    corners = list(product(*zip(low, high, strict=True)))
    anywhere = [
        tuple(l + (h - l) * Fraction(float(u)) for l, h, u in zip(low, high, rng.random(n), strict=True))
        for _ in range(6)
    ]
    points = corners + anywhere
    for slope, height in halves:
        if not isfinite(height):
            continue
        for point in (*corners, *anywhere):
            for j in np.flatnonzero(np.isfinite(slope) & (slope != 0)):
                beyond = excess(slope, height, point)
                moved = point[j] - beyond / Fraction(float(slope[j]))
                if low[j] <= moved <= high[j]:
                    points.append((*point[:j], moved, *point[j + 1 :]))
    return points


def check(box, atoms, closed, splits, rng):
    """Shrinks and compares with all points above; returns what `shrink` did."""
    before = [a.copy() for a in (box.lower, box.upper, closed)]
    clipped, after = shrink(box, atoms, closed, splits)
    assert all(np.array_equal(a, b) for a, b in zip(before, (box.lower, box.upper, closed), strict=True))
    assert (clipped.lower >= box.lower).all() and (clipped.upper <= box.upper).all()
    assert (after >= closed).all()
    gone = after.all(axis=1)
    assert np.array_equal(clipped.lower[gone], box.lower[gone])
    assert np.array_equal(clipped.upper[gone], box.upper[gone])
    for b, d in np.ndindex(closed.shape):
        if closed[b, d]:
            continue
        halves = [*zip(atoms.slope[b, d], atoms.height[b, d], strict=True)]
        halves += zip(splits.slope[b], splits.height[b], strict=True)
        kept = exact(clipped.lower[b]), exact(clipped.upper[b])
        for point in extreme_points(box.lower[b], box.upper[b], halves, rng):
            if all(excess(*half, point) <= 0 for half in halves):
                assert not after[b, d]
                assert all(l <= x <= h for l, x, h in zip(kept[0], point, kept[1], strict=True))
    return clipped, after


def random_half_spaces(rng, lower, upper, shape, scale):
    """Those that cut the boxes `(B, n)` somewhere, some exactly in a corner; a few are missing."""
    slope = rng.normal(size=(*shape, lower.shape[1])) * scale
    whole = rng.random(shape) < 0.3
    slope[whole] = np.rint(2 * slope[whole] / scale) / 2
    slope[rng.random(slope.shape) < 0.15] = 0.0
    where = rng.random((*shape, lower.shape[1]))
    where[rng.random(shape) < 0.5] = rng.integers(0, 2)
    place = (len(lower), *(1 for _ in shape[1:]), lower.shape[1])
    point = (1 - where) * lower.reshape(place) + where * upper.reshape(place)
    height = -(slope * point).sum(axis=-1)
    height[rng.random(shape) < 0.1] = -np.inf
    return HalfSpaces(slope, height)


@pytest.mark.parametrize("scale", [1.0, 1e8, 1e-8, 1e-290, 1e150])
@pytest.mark.parametrize("seed", range(8))
def test_no_point_is_lost(seed, scale):
    rng = np.random.default_rng(seed)
    boxes, n, d, a, s = 4, *(int(rng.integers(1, 4)) for _ in range(3)), int(rng.integers(0, 3))
    ends = np.sort(rng.normal(size=(2, boxes, n)) * 10.0 ** rng.integers(-3, 4), axis=0)
    ends[1, 0, 0] = ends[0, 0, 0]  # a box that is flat
    ends[:, 1] = 1e6 + np.array([0.0, 2**-30])[:, None]  # one of a few ulps
    atoms = random_half_spaces(rng, *ends, (boxes, d, a), scale)
    splits = random_half_spaces(rng, *ends, (boxes, s), scale)
    closed = rng.random((boxes, d)) < 0.2
    check(Box(*ends), atoms, closed, splits, rng)


@pytest.mark.parametrize("seed", range(20))
def test_no_point_is_lost_where_numbers_are_small(seed):
    """Small whole numbers: half-spaces touch corners exactly and meet each other in lattice points."""
    rng = np.random.default_rng(seed)
    ends = np.sort(rng.integers(-4, 5, (2, 6, 2)).astype(float), axis=0)
    slope, height = rng.integers(-2, 3, (6, 2, 2, 2)).astype(float), rng.integers(-4, 5, (6, 2, 2))
    split = HalfSpaces(rng.integers(-2, 3, (6, 1, 2)).astype(float), rng.integers(-4, 5, (6, 1)) / 2.0)
    check(Box(*ends), HalfSpaces(slope, height / 2.0), np.zeros((6, 2), bool), split, rng)


def test_cuts_are_tight_up_to_rounding():
    """The hull of two alternatives; the third, whose half-spaces miss the box, is closed."""
    box = Box(np.zeros((1, 2)), np.full((1, 2), 4.0))
    slope = np.array([[[[2.0, 1.0]], [[1.0, -1.0]], [[-1.0, 0.0]]]])
    height = np.array([[[-2.0], [1.0], [4.5]]])
    clipped, closed = check(box, HalfSpaces(slope, height), np.zeros((1, 3), bool), NONE, _rng())
    assert closed.tolist() == [[False, False, True]]
    np.testing.assert_allclose(clipped.upper, [[3, 4]], rtol=1e-14)
    np.testing.assert_allclose(clipped.lower, [[0, 0]], atol=1e-14)
    one, _ = check(box, HalfSpaces(slope[:, :1], height[:, :1]), np.zeros((1, 1), bool), NONE, _rng())
    np.testing.assert_allclose(one.upper, [[1, 2]], rtol=1e-14)


def test_splits_hold_in_every_alternative():
    box = Box(np.zeros((1, 2)), np.ones((1, 2)))
    atoms = HalfSpaces(np.zeros((1, 2, 1, 2)), np.full((1, 2, 1), -np.inf))
    split = HalfSpaces(np.array([[[1.0, 0.0]]]), np.array([[-0.5]]))
    clipped, closed = check(box, atoms, np.zeros((1, 2), bool), split, _rng())
    assert not closed.any() and clipped.upper[0, 1] == 1
    np.testing.assert_allclose(clipped.upper[0, 0], 0.5, rtol=1e-14)
    beyond = HalfSpaces(split.slope, np.array([[0.5]]))
    clipped, closed = shrink(box, atoms, np.zeros((1, 2), bool), beyond)
    assert closed.all() and np.array_equal(clipped.upper, box.upper)


def test_touching_a_corner_is_not_empty():
    """`0.1 x >= 0.3` on boxes whose upper end is next to the quotient: rounding must not decide."""
    for upper in (np.nextafter(3.0, 0), 3.0, np.nextafter(3.0, 4)):
        box = Box(np.zeros((1, 1)), np.full((1, 1), upper))
        atoms = HalfSpaces(np.full((1, 1, 1, 1), -0.1), np.full((1, 1, 1), 0.3))
        check(box, atoms, np.zeros((1, 1), bool), HalfSpaces(np.zeros((1, 0, 1)), np.zeros((1, 0))), _rng())


@pytest.mark.parametrize("value", [0.0, np.inf, -np.inf, np.nan, 1e-310, 1e308, -1e308])
@pytest.mark.parametrize("height", [-np.inf, np.nan])
def test_half_spaces_that_say_nothing_change_nothing(value, height):
    """What the kernel gives for rows whose coefficients overflow: heights of -inf, slopes of any kind."""
    box = Box(np.array([[-1.0, 0.0]]), np.array([[1.0, 1e300]]))
    atoms = HalfSpaces(np.full((1, 1, 1, 2), value), np.full((1, 1, 1), height))
    for parts in ((atoms, NONE), (NOTHING, HalfSpaces(atoms.slope[:, 0], atoms.height[:, 0]))):
        clipped, closed = shrink(box, parts[0], np.zeros((1, 1), bool), parts[1])
        assert not closed.any()
        assert np.array_equal(clipped.lower, box.lower) and np.array_equal(clipped.upper, box.upper)


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e-310, 1e308, -1e308])
def test_slopes_that_overflow_lose_no_point(value):
    """`value x + value y <= 0`: the origin at least, and what has the sign of a slope that is infinite."""
    box = Box(np.full((1, 2), -1.0), np.array([[1.0, 1e300]]))
    atoms = HalfSpaces(np.full((1, 1, 1, 2), value), np.zeros((1, 1, 1)))
    clipped, closed = shrink(box, atoms, np.zeros((1, 1), bool), NONE)
    assert not closed.any() and (clipped.lower <= 0).all() and (clipped.upper >= 0).all()


def test_slopes_that_overflow_refute_nothing():
    """`2^134 |x - c| <= 1e20` holds at c alone; in float32 the slopes of both pieces overflow."""
    w, c = 2.0**67, float(np.float32(0.3137))
    model = dense_model([(np.array([[w, -w]]), [-w * c, w * c]), (np.array([[w], [w]]), [0.0])])
    assert model.network(np.array([[c]])).tolist() == [[0.0]]
    query = query_of(model, box_assertions([-1], [1]) + "(assert (<= Y_0 1e20))")
    verdict = verify_query(model, query, Config(deadline=Deadline.after(5)))
    assert not isinstance(verdict, Unsat)


def test_unbounded_boxes_keep_their_points():
    ends = np.array([[-np.inf, 0.0]]), np.array([[np.inf, 1.0]])
    atoms = HalfSpaces(np.array([[[[1.0, 1.0]]]]), np.array([[[-1.0]]]))
    clipped, closed = shrink(Box(*ends), atoms, np.zeros((1, 1), bool), NONE)
    assert not closed.any()
    assert clipped.lower[0, 0] == -np.inf and clipped.upper[0, 0] >= 1 and clipped.upper[0, 1] == 1


def _rng():
    return np.random.default_rng(0)


# The table of a condition.


def random_atom(rng):
    """Whole right-hand sides and few forms, so that bounds and values often tie."""
    relation, bound = rng.choice(["<=", ">=", "<", ">"]), int(rng.integers(-2, 3))
    i, j = rng.choice(3, 2, replace=False)
    left = rng.choice([f"Y_{i}", f"(+ Y_{i} Y_{j})", f"(- Y_{i} Y_{j})", f"(+ Y_{i} X_0)"])
    return f"({relation} {left} {bound if rng.integers(4) else f'(+ Y_{j} {bound})'})"


def random_condition(rng, depth):
    if depth == 0 or rng.random() < 0.25:
        return random_atom(rng)
    parts = [random_condition(rng, depth - 1) for _ in range(rng.integers(1, 4))]
    return f"({rng.choice(['and', 'or'])} {' '.join(parts)})"


def random_problem(seed):
    rng = np.random.default_rng(seed)
    model = dense_model(
        [(rng.normal(size=(2, 4)), rng.normal(size=4)), (rng.normal(size=(4, 3)), np.zeros(3))]
    )
    parts = [  # boxes that differ: one case each
        f"(and (>= X_0 {k}) (<= X_0 {k + 0.5}) {random_condition(rng, int(rng.integers(1, 4)))})"
        for k in range(rng.integers(1, 4))
    ]
    body = f"(assert (and (>= X_1 0) (<= X_1 1)))(assert (or {' '.join(parts)}))"
    return compile_problem(model.network, query_of(model, body))


def random_table(seed):
    """A problem whose alternatives are few enough for a table."""
    found = ((problem, table_of(problem)) for problem in map(random_problem, count(1000 * seed)))
    return next((problem, table) for problem, table in found if table is not None)


def values_near(rng, problem, case, rows):
    """Numbers for the distinct forms, often exactly at the atoms' right-hand sides, some not finite."""
    values = rng.integers(-6, 7, (rows, len(case.distinct_forms))) / 2.0
    special = rng.random(values.shape)
    values[special < 0.05], values[special > 0.95] = -np.inf, np.inf
    return values


@pytest.mark.parametrize("seed", range(40))
def test_table_agrees_with_the_condition(seed):
    (problem, table), rng = random_table(seed), np.random.default_rng(seed)
    cases = rng.integers(0, len(problem.cases), 60)
    lower = np.zeros((60, table.width))
    for c, case in enumerate(problem.cases):
        assert table.forms[c][: len(case.distinct_forms)].tolist() == case.distinct_forms.tolist()
        assert (table.forms[c][len(case.distinct_forms) :] == -1).all()
        mine = cases == c
        lower[mine, : len(case.distinct_forms)] = values_near(rng, problem, case, mine.sum())
    closed, violation = table.closed(cases, lower).all(axis=1), table.violation(cases, lower)
    for i, c in enumerate(cases):
        case = problem.cases[c]
        atoms = lower[i : i + 1][:, case.columns]
        assert closed[i] == case.refuted(atoms)[0]
        assert violation[i] == case.violation(atoms)[0]


@pytest.mark.parametrize("seed", range(40))
def test_gaps_are_positive_only_in_refuted_atoms(seed):
    (problem, table), rng = random_table(seed), np.random.default_rng(seed)
    cases = np.arange(len(problem.cases))
    lower = rng.integers(-3, 4, (len(cases), table.width)).astype(float)
    gaps, closed = table.gaps(cases, lower), table.closed(cases, lower)
    assert (gaps[~table.present] == -np.inf).all()
    assert closed[(gaps > 0).any(axis=2)].all()
    assert not closed[table.exists & (gaps < 0).all(axis=2)].any()


def test_ties_refute_strict_atoms_only():
    model = dense_model([(np.eye(2), np.zeros(2))])
    for relation, tie in (("<=", False), ("<", True)):
        body = box_assertions([0, 0], [1, 1]) + f"(assert ({relation} Y_0 0.5))"
        table = table_of(compile_problem(model.network, query_of(model, body)))
        low = np.array([[np.nextafter(0.5, 0)], [0.5], [np.nextafter(0.5, 1)], [np.nan]])
        assert table.closed(np.zeros(4, int), low)[:, 0].tolist() == [False, tie, True, False]


def test_a_condition_without_alternatives_is_refuted():
    model = dense_model([(np.eye(2), np.zeros(2))])
    never = compile_problem(
        model.network, query_of(model, box_assertions([0, 0], [1, 1]) + "(assert (<= 1 0))")
    )
    always = compile_problem(model.network, query_of(model, box_assertions([0, 0], [1, 1])))
    for problem, refuted in ((never, True), (always, False)):
        table, low = table_of(problem), np.full((1, 1), 1e9)
        assert problem.cases[0].refuted(low[:, :0]).tolist() == [refuted]
        assert table.closed(np.zeros(1, int), low).all(axis=1).tolist() == [refuted]
        assert table.violation(np.zeros(1, int), low).tolist() == [np.inf if refuted else -np.inf]


@pytest.mark.parametrize("seed", range(20))
def test_half_spaces_are_those_of_the_atoms(seed):
    (problem, table), rng = random_table(seed), np.random.default_rng(seed)
    cases = rng.integers(0, len(problem.cases), 5)
    rows = HalfSpaces(rng.normal(size=(5, table.width, 2)), rng.normal(size=(5, table.width)))
    found = table.half_spaces(cases, rows)
    for b, d, a in np.ndindex(found.height.shape):
        if not table.present[cases[b], d, a]:
            assert found.height[b, d, a] == -np.inf
            continue
        case, atom = problem.cases[cases[b]], table.atom[cases[b], d, a]
        assert np.array_equal(found.slope[b, d, a], rows.slope[b, case.columns[atom]])
        height = Fraction(float(rows.height[b, case.columns[atom]])) - Fraction(float(case.bounds[atom]))
        assert Fraction(float(found.height[b, d, a])) <= height
        np.testing.assert_allclose(found.height[b, d, a], float(height), rtol=1e-15)


def test_large_conditions_have_no_table():
    model = dense_model([(np.eye(2), np.zeros(2))])
    both = " ".join(f"(or (<= Y_0 {k}) (<= Y_1 {k}))" for k in range(7))
    body = box_assertions([0, 0], [1, 1])
    assert table_of(compile_problem(model.network, query_of(model, f"{body}(assert (and {both}))"))) is None
    many = " ".join(f"(<= Y_0 {k})" for k in range(65))
    assert table_of(compile_problem(model.network, query_of(model, f"{body}(assert (or {many}))"))) is None
    empty = box_assertions([1, 0], [0, 1])
    assert table_of(compile_problem(model.network, query_of(model, f"{empty}(assert (<= Y_0 0))"))) is None
