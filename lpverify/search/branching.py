"""Branching rules: an evaluated subproblem -> the split that should help most, or None."""

from collections.abc import Callable, Mapping

import numpy as np

from lpverify.bounds.evaluate import Evaluation, columns_of, to_numpy
from lpverify.bounds.lines import open_elements
from lpverify.bounds.subproblem import Subproblem
from lpverify.network import Network
from lpverify.ops.base import BilinearOp, ElementwiseOp, IntervalOp
from lpverify.ops.piecewise import Relu
from lpverify.ops.steps import StepOp
from lpverify.problem import Problem
from lpverify.proof import InputSplit, NeuronSplit, Split
from lpverify.search.neurons import neuron_split, step_split

ENUMERATE = 8  # unstable neurons up to which phases are split instead of inputs

WIDTH_SHARE = (
    0.3  # least slope that counts for an input, relative to the steepest: wide inputs get their turn
)

Rule = Callable[[Problem, Subproblem, Evaluation, int], "Split | None"]


def worst_row(problem: Problem, item: Subproblem, evaluation: Evaluation, i: int) -> int:
    """The row of the batch entry whose form is farthest from refuting its atom."""
    case = problem.cases[item.case]
    if not len(case.forms):
        return 0
    columns = columns_of(problem, item.case)
    bounded = np.isin(columns, evaluation.rows[i])
    gaps = np.where(bounded, case.bounds - evaluation.lower[i][columns], -np.inf)
    return int(np.argmax(evaluation.rows[i] == columns[int(np.argmax(gaps))]))


def input_bisection(problem: Problem, item: Subproblem, evaluation: Evaluation, i: int) -> Split | None:
    """Halves the input with the largest slope times width over the open rows (smart branching).

    An input that is rounded to whole numbers is split where it jumps. Source: Wang et al. 2018,
    arXiv:1809.08098, section 4.2, with the linear bound's slopes.
    """
    width = item.upper - item.lower
    slopes = np.nan_to_num(np.abs(to_numpy(evaluation.linear.a[i]).astype(np.float64, copy=False))).max(
        axis=0
    )
    scores = np.maximum(slopes, WIDTH_SHARE * slopes.max() + 1e-9) * width
    for index in np.argsort(-scores)[:4]:
        jump = _input_jump(problem.network, int(index), evaluation, i)
        if jump is not None:
            return jump
        low, high = item.lower[index], item.upper[index]
        point = float(0.5 * low + 0.5 * high)
        if low < point < high:
            return InputSplit(int(index), point, False)
    return None


def _input_jump(network: Network, index: int, evaluation: Evaluation, i: int) -> NeuronSplit | None:
    """The middle jump of an open step function of an input."""
    place = network.steps_of_inputs.get(index)
    if place is None:
        return None
    k, element = place
    return step_split(evaluation.frame.entry(i), k, element)


def free_inputs(item: Subproblem) -> int:
    """How many inputs have a range at all."""
    return int((item.upper > item.lower).sum())


def mixed_split(problem: Problem, item: Subproblem, evaluation: Evaluation, i: int) -> Split | None:
    """Bisects inputs while many neurons are unstable; enumerates phases when few are left.

    A handful of unstable ReLUs ends in a few LPs, while bisection has to resolve the kinks between them
    (exact enumeration: Bak 2021, NFM, section 4). The same is true of steps.
    """
    counts = open_counts(evaluation, i)
    first = _not_behind_steps(problem.network, counts)
    if sum(counts[k] for k in first) <= ENUMERATE:
        row = worst_row(problem, item, evaluation, i)
        split = neuron_split(evaluation, i, row, (Relu, StepOp), first)
        if split is not None:
            return split
    return input_bisection(problem, item, evaluation, i)


def _not_behind_steps(network: Network, counts: Mapping[int, int]) -> list[int]:
    """Open nodes that depend on no other open step: what is behind one is open because of it."""
    steps = {k for k in counts if isinstance(network.nodes[k].op, StepOp)}
    return [k for k in counts if not (steps - {k}) & network.ancestors[k]]


def neurons_first(problem: Problem, item: Subproblem, evaluation: Evaluation, i: int) -> Split | None:
    """Splits neurons; inputs when none is left to split."""
    split = neuron_split(evaluation, i, worst_row(problem, item, evaluation, i))
    return split or input_bisection(problem, item, evaluation, i)


def open_counts(evaluation: Evaluation, i: int) -> dict[int, int]:
    """For each node that is not linear over the boxes of one batch entry how many elements are not."""
    frame, counts = evaluation.frame.entry(i), {}
    for k, node in enumerate(frame.network.nodes):
        if isinstance(node.op, ElementwiseOp):
            counts[k] = int(open_elements(frame, k).sum())
        elif isinstance(node.op, BilinearOp):
            # A product is linear when one factor is a point.
            boxes = (frame.boxes[j] for j in node.inputs)
            counts[k] = int(all(bool((box.lower < box.upper).any()) for box in boxes))
        elif isinstance(node.op, IntervalOp):
            counts[k] = int((frame.boxes[k].lower < frame.boxes[k].upper).any())
    return {k: count for k, count in counts.items() if count}


def all_linear(evaluation: Evaluation, i: int) -> bool:
    """Whether every nonlinear node is linear over the boxes of one batch entry."""
    return not open_counts(evaluation, i)
