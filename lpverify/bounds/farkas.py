"""Refutes one alternative of a condition by a non-negative combination of linear bounds (Farkas).

On a region where the network is linear this is exact: the multipliers come from an LP's duals or ray, and
what is proven is recomputed here with all rounding covered (Neumaier and Shcherbina 2004, section 3).
"""

from dataclasses import dataclass, replace

import numpy as np

from lpverify.bounds.alpha import bound_rows
from lpverify.bounds.evaluate import (
    Arithmetic,
    Batch,
    Evaluation,
    case_forms,
    columns_of,
    to_numpy,
    unit_rows,
)
from lpverify.bounds.linear import backward, centre_value
from lpverify.interval import SUM_INFLATION, Box, gamma
from lpverify.problem import Problem
from lpverify.proof import Combination, NeuronSplit

MOST_ALTERNATIVES = 64  # that become cases


@dataclass(frozen=True)
class Necessary:
    """Linear conditions `g . x + h <= 0` that every counterexample of a region fulfils.

    Attributes:
        atoms: Rows of the atoms: `g` `(k, n)` and `h` `(k,)`.
        splits: Rows of the neuron splits, in their order: `(p, n)` and `(p,)`.
        box: The region's input box `(n,)`.
    """

    atoms: tuple[np.ndarray, np.ndarray]
    splits: tuple[np.ndarray, np.ndarray]
    box: Box


def necessary(
    problem: Problem,
    arithmetic: Arithmetic,
    batch: Batch,
    evaluation: Evaluation,
    path: tuple[NeuronSplit, ...],
    i: int,
) -> Necessary:
    """The conditions of one batch entry, from backward bounds with the lines of its own boxes."""
    case = problem.cases[int(batch.cases[i])]
    frame = evaluation.frame.entry(i)
    forms = case_forms(problem, int(batch.cases[i]))[None]
    linear = bound_rows(frame, unit_rows(forms, arithmetic))
    columns = columns_of(problem, int(batch.cases[i]))
    slopes, heights = (to_numpy(part)[0] for part in linear.absolute())
    heights = np.nextafter(heights[columns] - case.bounds, -np.inf)
    parts = [(np.zeros((0, slopes.shape[1])), np.zeros(0))]
    for split in path:
        shape = arithmetic.network.nodes[split.value].shape
        seed = np.zeros((1, 1, int(np.prod(shape))))
        side = -1.0 if split.upper else 1.0
        seed[0, 0, split.element] = side
        rows = arithmetic.array(seed.reshape(1, 1, *shape))
        bound = backward(frame, split.value, rows, centre_value(rows, frame.centres[split.value]))
        a, h = bound.absolute()
        height = to_numpy(h)[0] - side * split.point
        parts.append((to_numpy(a)[0], np.nextafter(height, -np.inf)))
    box = Box(to_numpy(frame.boxes[0].lower)[0], to_numpy(frame.boxes[0].upper)[0])
    splits = np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts])
    return Necessary((slopes[columns], heights), splits, box)


def combination_bound(conditions: Necessary, combination: Combination) -> float:
    """A lower bound of the combination over the box; positive refutes the alternative.

    Raises:
        ValueError: A multiplier is negative or not finite.
    """
    weights = np.array([*combination.weights, *combination.splits])
    if not (weights >= 0).all() or not np.isfinite(weights).all():
        raise ValueError("multipliers must be finite and not negative")
    chosen = list(combination.atoms)
    g = np.concatenate([conditions.atoms[0][chosen], conditions.splits[0]])
    h = np.concatenate([conditions.atoms[1][chosen], conditions.splits[1]])
    a = weights @ g
    box = conditions.box
    total = np.minimum(a * box.lower, a * box.upper).sum() + weights @ h
    size = (weights @ np.abs(g)) @ box.magnitude + weights @ np.abs(h)
    error = size * gamma(len(weights) + len(a) + 4, 2.0**-53) * 2 * SUM_INFLATION + 1e-280
    return float(total - error)


def alternatives(problem: Problem, case: int, most: int) -> list[tuple[int, ...]] | None:
    """The disjuncts of a case's condition as tuples of atoms; None if there are more than `most`."""

    def both(parts: list[list[tuple[int, ...]]]) -> list[tuple[int, ...]]:
        result: list[tuple[int, ...]] = [()]
        for part in parts:
            result = (
                [a + b for a in result for b in part]
                if len(result) * len(part) <= most
                else [()] * (most + 1)
            )
        return result

    def either(parts: list[list[tuple[int, ...]]]) -> list[tuple[int, ...]]:
        return [a for part in parts for a in part]

    def leaf(atom: int) -> list[tuple[int, ...]]:
        return [(atom,)]

    found = problem.cases[case].condition.fold(leaf, both, either)
    return found if len(found) <= most else None


def alternative_cases(problem: Problem, case: int) -> Problem | None:
    """The problem whose cases are the alternatives of one case; None if there are too many."""
    found = alternatives(problem, case, MOST_ALTERNATIVES)
    if not found:
        return None
    return replace(problem, cases=tuple(problem.cases[case].only(atoms) for atoms in found))


def open_alternatives(
    problem: Problem, case: int, lower: np.ndarray, most: int
) -> list[tuple[int, ...]] | None:
    """Those that no single atom refutes, by certified lower bounds `(F,)` of the case's forms.

    The one whose bounds are lowest comes first. None if there are more than `most` alternatives.
    """
    found = alternatives(problem, case, most)
    if found is None:
        return None
    values = lower[columns_of(problem, case)]
    bounds = problem.cases[case].bounds
    left = [a for a in found if not any(values[i] > bounds[i] for i in a)]
    return sorted(left, key=lambda a: max(float(values[i] - bounds[i]) for i in a))
