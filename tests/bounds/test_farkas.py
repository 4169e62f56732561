from fractions import Fraction

import numpy as np
import pytest

from lpverify.bounds.farkas import Necessary, combination_bound
from lpverify.interval import Box
from lpverify.search.leaf import _solve
from lpverify.solvers.highs import Highs
from lpverify.verdict import Combination


def exact_bound(conditions, combination):
    """The combination's minimum over the box, in rationals."""
    f = lambda v: [Fraction(float(x)) for x in v]  # noqa: E731
    weights = f([*combination.weights, *combination.splits])
    rows = [f(conditions.atoms[0][i]) for i in combination.atoms] + [f(r) for r in conditions.splits[0]]
    heights = f([*conditions.atoms[1][list(combination.atoms)], *conditions.splits[1]])
    a = [
        sum((w * r[j] for w, r in zip(weights, rows, strict=True)), Fraction(0)) for j in range(len(rows[0]))
    ]
    low, high = f(conditions.box.lower), f(conditions.box.upper)
    total = sum((min(c * l, c * h) for c, l, h in zip(a, low, high, strict=True)), Fraction(0))
    return total + sum((w * h for w, h in zip(weights, heights, strict=True)), Fraction(0))


@pytest.mark.parametrize("seed", range(60))
def test_certified_bound_is_below_the_exact_one(seed):
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-12, 12)
    n, atoms, phases = rng.integers(1, 6), rng.integers(1, 4), rng.integers(0, 4)
    conditions = Necessary(
        (rng.normal(size=(atoms, n)) * scale, rng.normal(size=atoms)),
        (rng.normal(size=(phases, n)), rng.normal(size=phases) * scale),
        Box(-rng.random(n), rng.random(n)),
    )
    combination = Combination(tuple(range(atoms)), tuple(rng.random(atoms)), tuple(rng.random(phases)))
    bound = combination_bound(conditions, combination)
    exact = exact_bound(conditions, combination)
    assert Fraction(bound) <= exact
    assert float(exact) - bound <= 1e-10 * (1 + scale)


@pytest.mark.parametrize("weights", [(-1e-300,), (float("nan"),), (float("inf"),)])
def test_inadmissible_multipliers_are_refused(weights):
    conditions = Necessary(
        (np.ones((1, 1)), np.ones(1)), (np.zeros((0, 1)), np.zeros(0)), Box(np.zeros(1), np.ones(1))
    )
    with pytest.raises(ValueError, match="multipliers"):
        combination_bound(conditions, Combination((0,), weights, ()))


@pytest.mark.parametrize("seed", range(40))
def test_lp_duals_and_rays_prove_what_is_true(seed):
    """Refuted by HiGHS' multipliers, or a point with no violated row; feasible or infeasible splits."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 5))
    conditions = Necessary(
        (rng.normal(size=(2, n)), rng.normal(size=2)),
        (rng.normal(size=(3, n)), rng.normal(size=3)),
        Box(-np.ones(n), np.ones(n)),
    )
    proof, point = _solve(conditions, (0, 1), Highs(), 10.0)
    points = rng.uniform(-1, 1, (200_000, n))
    feasible = (points @ conditions.atoms[0].T + conditions.atoms[1] <= 0).all(axis=1) & (
        points @ conditions.splits[0].T + conditions.splits[1] <= 0
    ).all(axis=1)
    if proof is not None:
        assert not feasible.any()
    else:
        g = np.concatenate([conditions.atoms[0], conditions.splits[0]])
        h = np.concatenate([conditions.atoms[1], conditions.splits[1]])
        assert point is not None and (g @ point + h <= 1e-6).all()
