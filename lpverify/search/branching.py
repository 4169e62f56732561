"""Branching rules: an evaluated subproblem -> the split that should help most, or None."""

from collections.abc import Callable

import numpy as np

from lpverify.bounds.evaluate import Evaluation, columns_of, to_numpy
from lpverify.bounds.subproblem import Subproblem
from lpverify.network import Network
from lpverify.ops.base import BilinearOp, ElementwiseOp
from lpverify.ops.piecewise import Relu
from lpverify.problem import Problem
from lpverify.verdict import InputSplit, PhaseSplit, Split

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

    Source: Wang et al. 2018, arXiv:1809.08098, section 4.2, with the linear bound's slopes.
    """
    width = item.upper - item.lower
    slopes = np.nan_to_num(np.abs(to_numpy(evaluation.linear.a[i]).astype(np.float64, copy=False))).max(
        axis=0
    )
    scores = np.maximum(slopes, WIDTH_SHARE * slopes.max() + 1e-9) * width
    for index in np.argsort(-scores)[:4]:
        low, high = item.lower[index], item.upper[index]
        point = float(0.5 * low + 0.5 * high)
        if low < point < high:
            return InputSplit(int(index), point, False)
    return None


def relu_phase(problem: Problem, item: Subproblem, evaluation: Evaluation, i: int) -> Split | None:
    """The unstable ReLU that loosens the worst row most: coefficient times the gap of its lines.

    Source: intercept and BaBSR scores, Bunel et al. 2020, arXiv:1909.06588, section 5.
    """
    network, row = problem.network, worst_row(problem, item, evaluation, i)
    best: tuple[float, PhaseSplit] | None = None
    for k in network.activations:
        if not isinstance(network.nodes[k].op, Relu):
            continue
        operand = network.nodes[k].inputs[0]
        box = evaluation.frame.boxes[operand]
        low = to_numpy(box.lower[i]).astype(np.float64).reshape(-1)
        high = to_numpy(box.upper[i]).astype(np.float64).reshape(-1)
        unstable = (low < 0) & (high > 0)
        if not unstable.any():
            continue
        a = evaluation.trace.coefficients.get(k)
        a = np.zeros_like(low) if a is None else to_numpy(a[i, row]).astype(np.float64).reshape(-1)
        element, score = _best_element(a, low, high, unstable)
        if best is None or score > best[0]:
            best = score, PhaseSplit(operand, element, True)
    return None if best is None else best[1]


def _best_element(
    a: np.ndarray, low: np.ndarray, high: np.ndarray, unstable: np.ndarray
) -> tuple[int, float]:
    low, high = np.where(unstable, low, -1.0), np.where(unstable, high, 1.0)
    upper_gap = -low * high / (high - low)
    lower_gap = 0.5 * np.minimum(-low, high)
    scores = np.maximum(-a, 0) * upper_gap + np.maximum(a, 0) * lower_gap + 1e-12 * upper_gap
    scores = np.where(unstable, scores, -1.0)
    element = int(np.argmax(scores))
    return element, float(scores[element])


def free_inputs(item: Subproblem) -> int:
    """How many inputs have a range at all."""
    return int((item.upper > item.lower).sum())


def mixed_split(problem: Problem, item: Subproblem, evaluation: Evaluation, i: int) -> Split | None:
    """Bisects inputs while many neurons are unstable; enumerates phases when few are left.

    A handful of unstable ReLUs ends in a few LPs, while bisection has to resolve the kinks between them
    (exact enumeration: Bak 2021, NFM, section 4).
    """
    if unstable_neurons(problem.network, evaluation, i) <= ENUMERATE:
        split = relu_phase(problem, item, evaluation, i)
        if split is not None:
            return split
    return input_bisection(problem, item, evaluation, i)


def unstable_neurons(network: Network, evaluation: Evaluation, i: int) -> int:
    """Elements of nonlinear nodes that are not linear over the boxes of one batch entry."""
    count = 0
    for node in network.nodes:
        boxes = [evaluation.frame.boxes[k].rows(slice(i, i + 1)) for k in node.inputs]
        if isinstance(node.op, ElementwiseOp):
            count += int(node.op.unstable(boxes[0]).sum())
        elif isinstance(node.op, BilinearOp):
            # A product is linear when one factor is a point.
            count += all(bool((box.lower < box.upper).any()) for box in boxes)
    return count


def all_linear(network: Network, evaluation: Evaluation, i: int) -> bool:
    """Whether every nonlinear node is linear over the boxes of one batch entry."""
    return unstable_neurons(network, evaluation, i) == 0
