import math

import numpy as np
import pytest

from lpverify.robustness.attack.projections import lengths, project, to_plane

NORMS = (1, 2, math.inf)


def boxes(rng, rows, n, norm, radius):
    lower, upper = -rng.exponential(0.4, (rows, n)), rng.exponential(0.4, (rows, n))
    lower[rng.random((rows, n)) < 0.2] = 0.0
    if norm == math.inf:
        lower, upper = np.maximum(lower, -radius), np.minimum(upper, radius)
    return lower, upper


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("n", [1, 7, 60])
def test_projections_are_feasible_and_nearest(norm, n):
    """Optimality of a projection p of v on a convex set: (v - p) . (q - p) <= 0 for all q of the set."""
    rng = np.random.default_rng(n)
    lower, upper = boxes(rng, 40, n, norm, 0.5)
    radius = np.full(40, 0.5)
    moved = rng.normal(size=(40, n)) * 10.0 ** rng.integers(-2, 2, (40, 1))
    moved[rng.random((40, n)) < 0.2] = 0.0
    found = project(norm, moved, lower, upper, radius)
    assert (lengths(norm, found) <= radius * (1 + 1e-12)).all()
    assert ((found >= lower) & (found <= upper)).all()
    for _ in range(200):
        other = rng.normal(size=(40, n)) * rng.uniform(0, 1, (40, 1))
        other *= np.minimum(radius / lengths(norm, other), 1.0)[:, None]
        other = np.clip(other, lower, upper)
        assert (((moved - found) * (other - found)).sum(1) <= 1e-7 * (1 + (moved**2).sum(1))).all()
    inside = project(norm, found, lower, upper, radius * (1 + 1e-9))
    assert inside == pytest.approx(found)


def test_the_l1_ball_without_a_box():
    """Soft thresholding by 1: known by hand."""
    wide = np.full((1, 3), 100.0)
    found = project(1, np.array([[3.0, -2.0, 0.5]]), -wide, wide, np.array([3.0]))
    assert found == pytest.approx(np.array([[2.0, -1.0, 0.0]]))


def test_the_l2_ball_with_a_box():
    """What is cut at one coordinate is left to the other."""
    found = project(2, np.array([[6.0, 8.0]]), np.zeros((1, 2)), np.array([[9.0, 3.0]]), np.array([5.0]))
    assert found == pytest.approx(np.array([[4.0, 3.0]]))


@pytest.mark.parametrize("norm", NORMS)
def test_planes_are_reached_by_the_shortest_way(norm):
    rng = np.random.default_rng(3)
    gradient, drop = rng.normal(size=(50, 9)), rng.uniform(0.05, 1.5, 50)
    gradient[rng.random((50, 9)) < 0.2] = 0.0
    lower, upper = boxes(rng, 50, 9, 2, 1.0)
    found = to_plane(norm, gradient, drop, lower, upper)
    most = np.where(gradient > 0, -gradient * lower, -gradient * upper).sum(1)
    assert ((found >= lower) & (found <= upper)).all()
    assert -(gradient * found).sum(1) == pytest.approx(np.minimum(drop, most))
    reached = most >= drop
    assert 10 < reached.sum() < 50
    for _ in range(300):  # no other point of the box reaches it by a shorter way
        other = np.clip(found + rng.normal(size=found.shape) * 0.1, lower, upper)
        there = reached & (-(gradient * other).sum(1) >= drop)
        assert (lengths(norm, other)[there] >= lengths(norm, found)[there] - 1e-12).all()


@pytest.mark.parametrize("norm", NORMS)
def test_planes_without_a_box(norm):
    """The distance is the drop by the dual norm."""
    gradient, wide = np.array([[3.0, -4.0, 0.0]]), np.full((1, 3), np.inf)
    found = to_plane(norm, gradient, np.array([2.0]), -wide, wide)
    dual = {1: 4.0, 2: 5.0, math.inf: 7.0}[norm]
    assert lengths(norm, found) == pytest.approx(2.0 / dual)


@pytest.mark.parametrize("norm", NORMS)
def test_nothing_to_do_is_no_step(norm):
    ones = np.ones((2, 4))
    assert not to_plane(norm, np.zeros((2, 4)), np.ones(2), -ones, ones).any()
    assert not to_plane(norm, ones, np.array([-1.0, 0.0]), -ones, ones).any()
    assert not project(norm, ones, 0 * ones, 0 * ones, np.ones(2)).any()
    assert project(norm, ones, -0.1 * ones, 0.1 * ones, np.ones(2)) == pytest.approx(0.1 * ones)
