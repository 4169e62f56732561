"""Shrinks input boxes: a counterexample must lie where the linear lower bounds allow one.

Method: for each atom `form <= bound` the linear bound gives a half-space `g . x + h <= 0`; every input is
clipped against it with all others at their best ends ("relaxed clipping", Clip-and-Verify, NeurIPS 2025).
Conjunctions intersect, disjunctions take the hull.
Guarantee: no counterexample of the case is lost; rounding is outward.
"""

import numpy as np

from lpverify.bounds.evaluate import Evaluation, columns_of, to_numpy
from lpverify.interval import Box, round_down, round_up
from lpverify.problem import Problem

Ends = tuple[np.ndarray, np.ndarray]


def clip(problem: Problem, cases: np.ndarray, evaluation: Evaluation, box: Box) -> Box:
    """The clipped boxes `(B, n)`, float64; rows that a clip would empty stay as they are."""
    lower, upper = box.lower.copy(), box.upper.copy()
    for case in np.unique(cases):
        members = np.flatnonzero(cases == case)
        low, high = _clip_case(problem, int(case), members, evaluation, box.rows(members))
        kept = (low <= high).all(axis=1)
        lower[members[kept]], upper[members[kept]] = low[kept], high[kept]
    return Box(lower, upper)


def _clip_case(problem: Problem, case: int, members: np.ndarray, evaluation: Evaluation, box: Box) -> Ends:
    description, columns = problem.cases[case], columns_of(problem, case)
    slopes = to_numpy(evaluation.linear.a).astype(np.float64, copy=False)[members]
    values = to_numpy(evaluation.linear.concretize(evaluation.frame.boxes[0]))[members]
    rows, everyone = evaluation.rows[members], np.arange(len(members))

    def leaf(atom: int) -> Ends:
        matches = rows == columns[atom]
        row, bound = matches.argmax(axis=1), description.bounds[atom]
        slack = np.where(matches.any(axis=1), round_up(bound - values[everyone, row]), np.inf)
        low, high = half_space(slopes[everyone, row], slack, box)
        refuted = (evaluation.lower[members, columns[atom]] > bound)[:, None]
        return np.where(refuted, np.inf, low), np.where(refuted, -np.inf, high)

    def both(parts: list[Ends]) -> Ends:
        lower = np.max([box.lower, *(p[0] for p in parts)], axis=0)
        return lower, np.min([box.upper, *(p[1] for p in parts)], axis=0)

    def either(parts: list[Ends]) -> Ends:
        if not parts:
            return box.lower, box.upper
        return np.min([p[0] for p in parts], axis=0), np.max([p[1] for p in parts], axis=0)

    return description.condition.fold(leaf, both, either)


def half_space(slope: np.ndarray, slack: np.ndarray, box: Box) -> Ends:
    """Ends of the box where `g . x <= min over box of g . x + slack` can hold.

    Args:
        slope: `g`, `(B, n)`.
        slack: Upper bounds of how much `g . x` may exceed its minimum over the box, `(B,)`.
        box: `(B, n)`.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        reach = round_up(np.maximum(slack, 0.0)[:, None] / np.abs(slope))
        high = np.where(slope > 0, round_up(box.lower + reach), box.upper)
        low = np.where(slope < 0, round_down(box.upper - reach), box.lower)
    return np.fmax(low, box.lower), np.fmin(high, box.upper)
