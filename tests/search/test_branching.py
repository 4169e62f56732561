import numpy as np
import pytest
from helpers import box_assertions, query_of, random_dense

from lpverify.bounds.evaluate import Batch, double_precision, evaluate
from lpverify.bounds.propagate import Region
from lpverify.bounds.subproblem import Subproblem, child, clamp
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.problem import compile_problem
from lpverify.proof import InputSplit, NeuronSplit, covers
from lpverify.search.branching import all_linear, free_inputs, input_bisection, neurons_first
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
