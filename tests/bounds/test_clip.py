import numpy as np
import pytest
from helpers import box_assertions, query_of, random_dense

from lpverify.bounds.clip import clip, half_space
from lpverify.bounds.evaluate import Batch, double_precision, evaluate
from lpverify.bounds.propagate import Region
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.problem import compile_problem


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize(
    "body", ["(<= Y_0 {a})", "(and (<= Y_0 {a}) (<= Y_1 {b}))", "(or (<= Y_0 {a}) (<= Y_1 {b}))"]
)
def test_no_counterexample_is_lost(seed, body):
    model = random_dense(seed, (3, 6, 2))
    rng = np.random.default_rng(seed)
    x = np.clip(rng.uniform(-1.2, 1.2, (20_000, 3)), -1, 1)
    y = model.network(x)
    best = y[np.argmin(((y - y.mean(axis=0)) / y.std(axis=0)).sum(axis=1))]
    a, b = best + 0.02 * y.std(axis=0)
    body = box_assertions([-1] * 3, [1] * 3) + f"(assert {body.format(a=f'{a:.6f}', b=f'{b:.6f}')})"
    problem = compile_problem(model.network, query_of(model, body))
    (case,) = problem.cases
    box = Box(case.box.lower[None], case.box.upper[None])
    batch = Batch(np.zeros(1, np.int64), Region(box), {})
    evaluation = evaluate(problem, double_precision(problem), batch, Effort("crown"))
    clipped = clip(problem, batch.cases, evaluation, box)
    bad = x[case.violation(problem.network(x)[:, case.forms]) <= 0]
    assert len(bad)
    assert (bad >= clipped.lower).all() and (bad <= clipped.upper).all()


def test_half_space_is_tight_up_to_rounding():
    low, high = half_space(
        np.array([[2.0, -1.0, 0.0]]), np.array([1.0]), Box(np.zeros((1, 3)), np.full((1, 3), 4.0))
    )
    assert np.allclose(high, [[0.5, 4, 4]], rtol=1e-15) and high[0, 0] >= 0.5
    assert np.allclose(low, [[0, 3, 0]], rtol=1e-15) and low[0, 1] <= 3


def test_zero_and_tiny_slopes_change_nothing():
    box = Box(np.zeros((1, 2)), np.ones((1, 2)))
    low, high = half_space(np.array([[0.0, 1e-310]]), np.array([1.0]), box)
    assert np.array_equal(low, box.lower) and np.array_equal(high, box.upper)
