from fractions import Fraction

import numpy as np
import pytest
from helpers import box_assertions, query_of, random_dense

from lpverify.bounds.evaluate import Batch, double_precision, evaluate
from lpverify.bounds.farkas import Necessary, combination_bound, necessary
from lpverify.bounds.propagate import Region
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.problem import compile_problem
from lpverify.proof import Combination, NeuronSplit
from lpverify.search.leaf import _solve
from lpverify.solvers.highs import Highs


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


@pytest.mark.parametrize("upper", [True, False])
@pytest.mark.parametrize("point", [0.0, 0.75, -0.4])
def test_rows_of_splits_say_on_which_side_a_neuron_is(upper, point):
    """The first layer is affine: its rows are exact up to rounding, and never above."""
    model = random_dense(3, (3, 6, 1))
    body = box_assertions([-1] * 3, [1] * 3) + "(assert (<= Y_0 -50))"
    problem = compile_problem(model.network, query_of(model, body))
    box = problem.cases[0].box
    batch = Batch(np.zeros(1, np.int64), Region(Box(box.lower[None], box.upper[None])), {})
    arithmetic = double_precision(problem)
    evaluation = evaluate(problem, arithmetic, batch, Effort("crown"))
    value = problem.network.pre_activations[0]
    path = tuple(NeuronSplit(value, element, upper, point) for element in range(6))
    g, h = necessary(problem, arithmetic, batch, evaluation, path, 0).splits
    points = np.random.default_rng(0).uniform(-1, 1, (200, 3))
    z = problem.network.evaluate(points)[value].reshape(200, 6)
    beyond = point - z if upper else z - point
    assert (points @ g.T + h <= beyond + 1e-13).all()
    np.testing.assert_allclose(points @ g.T + h, beyond, atol=1e-9)
