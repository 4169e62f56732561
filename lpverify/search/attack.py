"""Looks for counterexamples: candidate points, and a batched gradient attack.

Method: projected sign-gradient descent on the violation (Madry et al. 2018, arXiv:1706.06083), a third of
the starts diversified in output space (Tashiro et al. 2020, arXiv:2003.06878); where the condition is a
disjunction, some starts follow one fixed alternative each.
Nothing here is trusted: a point counts only after its replay.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from lpverify.bounds.evaluate import Arithmetic, to_numpy
from lpverify.config import Deadline
from lpverify.problem import Case, Problem
from lpverify.verdict import Witness

CANDIDATE_WORK = 100_000_000  # multiplications spent on the first candidates of all cases together

Replay = Callable[[np.ndarray, int], "Witness | None"]


def try_points(
    problem: Problem, case: int, points: np.ndarray, replay: Replay, most: int = 4
) -> Witness | None:
    """Replays the most violating of the points `(N, n)`, at most `most` of them."""
    description = problem.cases[case]
    with np.errstate(all="ignore"):
        values = description.violation(problem.network(points)[:, description.forms])
    for i in np.argsort(values)[:most]:
        if values[i] > 1e-6 * (1.0 + abs(float(np.abs(description.bounds).max(initial=0.0)))):
            return None
        witness = replay(points[i], case)
        if witness is not None:
            return witness
    return None


def first_candidates(
    problem: Problem, case: int, replay: Replay, rng: np.random.Generator, cases: int = 1
) -> Witness | None:
    """The centre and random points and corners of a case's box; fewer for large networks and many cases."""
    box = problem.cases[case].box
    work = problem.network.work[problem.network.output] * cases
    count = int(np.clip(CANDIDATE_WORK // max(1, work), 2, 256))
    points = rng.uniform(box.lower, box.upper, (count, len(box.lower)))
    corners = np.where(rng.random((count, len(box.lower))) < 0.5, box.lower, box.upper)
    centre = (0.5 * box.lower + 0.5 * box.upper)[None]
    return try_points(problem, case, np.concatenate([centre, points, corners]), replay)


@dataclass(frozen=True)
class AttackPlan:
    """Sizes of the gradient attack: `restarts` points at a time, `steps` each."""

    restarts: int = 32
    steps: int = 40
    first_step: float = 0.25
    decay: float = 0.95


def gradient_attack(
    problem: Problem,
    arithmetic: Arithmetic,
    case: int,
    replay: Replay,
    rng: np.random.Generator,
    plan: AttackPlan,
    deadline: Deadline,
) -> Witness | None:
    """One round of restarts on one case; None when nothing was found or time ran out."""
    description = problem.cases[case]
    x = _starts(description.box.lower, description.box.upper, rng, plan.restarts)
    direction = rng.normal(size=(len(x) // 3, len(description.forms)))
    return descend(problem, arithmetic, case, x, replay, plan, deadline, direction)


def descend(
    problem: Problem,
    arithmetic: Arithmetic,
    case: int,
    x: np.ndarray,
    replay: Replay,
    plan: AttackPlan,
    deadline: Deadline,
    direction: np.ndarray | None = None,
) -> Witness | None:
    """Goes down from points `(N, n)` of a case's box.

    Args:
        problem: What the case belongs to.
        arithmetic: For gradients.
        case: Which one.
        x: Where to start.
        replay: Turns points into witnesses.
        plan: Its `steps` and their sizes.
        deadline: When to give up.
        direction: `(k, atoms)`: the first k points follow these combinations of atoms in their first steps.
    """
    description = problem.cases[case]
    lower, upper = description.box.lower, description.box.upper
    step = plan.first_step * (upper - lower)
    for count in range(plan.steps):
        values, gradient = _gradient(arithmetic, description, x, count, direction if count < 4 else None)
        hits = np.flatnonzero(values <= 0)
        if len(hits):
            witness = try_points(problem, case, x[hits], replay)
            if witness is not None:
                return witness
        if deadline.passed:
            return None
        x = np.clip(x - step * np.sign(gradient), lower, upper)
        step = step * plan.decay
    return try_points(problem, case, x, replay)


def _starts(lower: np.ndarray, upper: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    x = rng.uniform(lower, upper, (count, len(lower)))
    x[: count // 4] = np.where(rng.random((count // 4, len(lower))) < 0.5, lower, upper)
    x[-1] = 0.5 * lower + 0.5 * upper
    return x


def _gradient(
    arithmetic: Arithmetic, case: Case, x: np.ndarray, turn: int, direction: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Violations `(N,)` and a descent gradient `(N, n)`."""
    values = np.zeros(0)

    def seed_of(outputs: np.ndarray) -> np.ndarray:
        nonlocal values
        forms = outputs[:, case.forms]
        values = case.violation(forms)
        weights = active_atoms(case, forms, turn)
        if direction is not None:
            weights[: len(direction)] = direction
        seed = np.zeros(outputs.shape)
        np.add.at(seed.T, case.forms, weights.T)
        return seed

    _, gradient = values_and_gradient(arithmetic, x, seed_of)
    return values, gradient.astype(np.float64, copy=False)


def values_and_gradient(
    arithmetic: Arithmetic, x: np.ndarray, seed_of: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """The network's outputs at points `(N, n)` in float64, and a gradient at each; proposals only.

    Args:
        arithmetic: Where to compute.
        x: The points.
        seed_of: From the outputs `(N, *shape)` to the weights of each, of the same shape, whose weighted
            sum the gradient `(N, n)` is of; that comes in the type of the coefficients.
    """
    network = arithmetic.network
    evaluated = network.evaluate(arithmetic.array(x))
    outputs = to_numpy(evaluated[network.output]).astype(np.float64)
    seed = arithmetic.array(seed_of(outputs))
    gradient = network.gradient(evaluated, seed, network.output)
    return outputs, to_numpy(gradient)


def active_atoms(case: Case, forms: np.ndarray, turn: int) -> np.ndarray:
    """One-hot weights `(N, k)` of the atom whose value is the violation of each point.

    In the second half of the points a disjunction takes a fixed child, by the point's number, instead of
    its best one.
    """
    count = len(forms)
    forced = np.arange(count) >= count // 2

    def leaf(atom: int) -> tuple[np.ndarray, np.ndarray]:
        return forms[:, atom] - case.bounds[atom], np.full(count, atom)

    def both(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        if not parts:
            return np.full(count, -np.inf), np.zeros(count, np.int64)
        return _pick(parts, np.argmax([p[0] for p in parts], axis=0))

    def either(parts: list[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
        if not parts:
            return np.full(count, np.inf), np.zeros(count, np.int64)
        best = np.argmin([p[0] for p in parts], axis=0)
        return _pick(parts, np.where(forced, np.arange(count) % len(parts), best))

    _, chosen = case.condition.fold(leaf, both, either)
    weights = np.zeros(forms.shape)
    if forms.shape[1]:
        weights[np.arange(count), chosen] = 1.0
    return weights


def _pick(parts: list[tuple[np.ndarray, np.ndarray]], index: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    rows = np.arange(len(index))
    return np.array([p[0] for p in parts])[index, rows], np.array([p[1] for p in parts])[index, rows]
