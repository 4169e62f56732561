import numpy as np
import pytest
from helpers import box_assertions, query_of, random_dense

from lpverify.bounds.evaluate import Batch, double_precision, evaluate
from lpverify.bounds.propagate import Region
from lpverify.bounds.subproblem import Subproblem, child, clamp
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.ops.activations import Gelu, Sigmoid
from lpverify.ops.elementary import Log
from lpverify.problem import compile_problem
from lpverify.proof import InputSplit, NeuronSplit, covers
from lpverify.search.branching import all_linear, free_inputs, input_bisection, neurons_first
from lpverify.search.neurons import _Layer, _relaxed_scores
from lpverify.search.tree import Frontier


def evaluated(lower, upper, seed=0):
    model = random_dense(seed, (3, 8, 8, 1))
    query = query_of(model, box_assertions(lower, upper) + "(assert (<= Y_0 -1000))")
    problem = compile_problem(model.network, query)
    box = problem.cases[0].box
    batch = Batch(np.zeros(1, np.int64), Region(Box(box.lower[None], box.upper[None])), {})
    evaluation = evaluate(problem, double_precision(problem), batch, Effort("crown"))
    return problem, Subproblem(0, 0, box.lower, box.upper), evaluation


def test_bisection_splits_the_steepest_input():
    problem, item, evaluation = evaluated([-1] * 3, [1] * 3)
    split = input_bisection(problem, item, evaluation, 0)
    slopes = np.abs(evaluation.linear.a[0]).max(axis=0)
    assert isinstance(split, InputSplit) and split.index == slopes.argmax() and split.point == 0.0


def test_bisection_of_a_point_is_none():
    problem, item, evaluation = evaluated([0.5] * 3, [0.5] * 3)
    assert input_bisection(problem, item, evaluation, 0) is None
    assert free_inputs(item) == 0 and all_linear(evaluation, 0)


def test_phase_rule_picks_an_unstable_neuron():
    problem, item, evaluation = evaluated([-1] * 3, [1] * 3)
    split = neurons_first(problem, item, evaluation, 0)
    box = evaluation.frame.boxes[split.value]
    assert isinstance(split, NeuronSplit)
    assert box.lower.reshape(-1)[split.element] < 0 < box.upper.reshape(-1)[split.element]


@pytest.mark.parametrize("split", [InputSplit(1, 0.25, False), NeuronSplit(2, 3, True)])
def test_children_cover_their_parent(split):
    item = Subproblem(0, 0, -np.ones(3), np.ones(3), {2: (-np.ones((1, 8)), np.ones((1, 8)))})
    other, network = split.opposite(), random_dense(0, (3, 8, 8, 1)).network
    assert covers([split, other]) and not covers([split, split]) and not covers([split])
    first, second = child(item, 1, split, network), child(item, 2, other, network)
    if isinstance(split, InputSplit):
        assert first.upper[1] == second.lower[1] == 0.25
        assert np.array_equal(first.lower, item.lower) and np.array_equal(second.upper, item.upper)
    else:
        assert first.known[2][0].reshape(-1)[3] == 0 and second.known[2][1].reshape(-1)[3] == 0
    assert item.known == {} or item.known[2][0].min() == -1, "the parent must not change"


def test_clamp_keeps_a_tighter_box():
    lower, upper = clamp((np.array([[0.5]]), np.array([[2.0]])), 0, True, 0.0)
    assert lower == 0.5 and upper == 2.0


def test_frontier_is_depth_first_with_restarts():
    frontier = Frontier(restart_every=3)
    make = lambda margin: Subproblem(0, 0, np.zeros(1), np.ones(1), margin=margin)  # noqa: E731
    frontier.push([make(-1.0), make(-5.0)])
    frontier.push([make(-2.0)])
    assert [s.margin for s in frontier.take(1)] == [-2.0]
    frontier.push([make(-0.5)])
    assert [s.margin for s in frontier.take(1)] == [-0.5]
    frontier.push([make(-0.1)])
    assert [s.margin for s in frontier.take(1)] == [-5.0], "every third round takes the worst"
    assert frontier.margin == -1.0


@pytest.mark.parametrize("op", [Sigmoid(), Gelu(), Log()], ids=str)
def test_relaxed_scores_are_those_of_single_splits(op):
    """Boxes are relaxed all at once; each split on its own gives the same."""
    rng = np.random.default_rng(0)
    low, a, mask = 3 * rng.normal(size=20), rng.normal(size=20), rng.random(20) < 0.8
    high = low + 4 * rng.exponential(size=20)

    def height(i, start, end, x):
        lines = op.relax(Box(np.array([[start]]), np.array([[end]])), None)
        low_line = lines.lower_slope[0, 0] * x + lines.lower_intercept[0, 0]
        return low_line if a[i] >= 0 else -(lines.upper_slope[0, 0] * x + lines.upper_intercept[0, 0])

    def gain(i, point):
        total = 0.0
        for start, end in ((low[i], point), (point, high[i])):
            middle = 0.5 * start + 0.5 * end
            rise = abs(a[i]) * max(height(i, start, end, middle) - height(i, low[i], high[i], middle), 0.0)
            total += rise if np.isfinite(rise) else abs(a[i]) * (high[i] - low[i])
        return 0.5 * total + 1e-12 * (high[i] - low[i])

    with np.errstate(invalid="ignore"):
        scores, points = _relaxed_scores(op, _Layer(0, a, low, high), mask)
        assert mask.any() and not mask.all()
        for i in range(20):
            inside = [float(p[i]) for p in op.split_points(low, high) if mask[i] and low[i] < p[i] < high[i]]
            best = max((gain(i, p) for p in inside), default=-1.0)
            np.testing.assert_allclose(scores[i], best, rtol=1e-12)
            assert not inside or gain(i, points[i]) == pytest.approx(best)
