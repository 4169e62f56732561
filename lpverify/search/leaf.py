"""Decides a subproblem on which the network is linear, by one LP for each alternative of its condition."""

import numpy as np

from lpverify.bounds.farkas import Necessary, alternatives, combination_bound
from lpverify.errors import SolverError
from lpverify.problem import Problem
from lpverify.proof import Combination, Leaf
from lpverify.solvers.base import LinearProgram, LpBackend, LpStatus

MOST_ALTERNATIVES = 20_000


def decide(
    problem: Problem, case: int, conditions: Necessary, backend: LpBackend, seconds: float
) -> tuple[Leaf | None, list[np.ndarray]]:
    """Refutes every alternative, or proposes points.

    Returns:
        The leaf when all alternatives are refuted with certified combinations, else None; and candidate
        counterexamples.
    """
    disjuncts = alternatives(problem, case, MOST_ALTERNATIVES)
    if disjuncts is None:
        return None, []
    proofs: list[Combination] = []
    candidates: list[np.ndarray] = []
    for atoms in disjuncts:
        proof = _single_atom(conditions, atoms)
        if proof is None:
            proof, point = _solve(conditions, atoms, backend, seconds)
            if point is not None:
                candidates.append(point)
        if proof is None:
            return None, candidates
        proofs.append(proof)
    return Leaf(combinations=tuple(proofs)), candidates


def _single_atom(conditions: Necessary, atoms: tuple[int, ...]) -> Combination | None:
    """An alternative with an atom that is refuted on its own needs no LP."""
    splits = len(conditions.splits[1])
    for i in range(len(atoms)):
        weights = tuple(1.0 if j == i else 0.0 for j in range(len(atoms)))
        proposal = Combination(atoms, weights, (0.0,) * splits)
        if combination_bound(conditions, proposal) > 0:
            return proposal
    return None


def _solve(
    conditions: Necessary, atoms: tuple[int, ...], backend: LpBackend, seconds: float
) -> tuple[Combination | None, np.ndarray | None]:
    """Minimises the largest atom value under the phase splits; duals prove, the primal is a candidate."""
    try:
        answer = backend.solve(_program(conditions, atoms), seconds)
    except SolverError:  # numerically beyond the solver: nothing is claimed, the leaf stays undecided
        return None, None
    point = None if answer.primal is None else answer.primal[:-1]
    if answer.row_dual is None or answer.status is LpStatus.LIMIT:
        return None, point
    duals = np.maximum(answer.row_dual, 0.0)
    top = duals.max(initial=0.0)
    duals = duals / top if top > 0 else duals
    proposal = Combination(atoms, tuple(duals[: len(atoms)]), tuple(duals[len(atoms) :]))
    return (proposal if combination_bound(conditions, proposal) > 0 else None), point


def _program(conditions: Necessary, atoms: tuple[int, ...]) -> LinearProgram:
    """Columns: the inputs and t. Rows: `t - g . x >= h` for each atom, `-g . x >= h` for each split."""
    chosen = list(atoms)
    g = np.concatenate([conditions.atoms[0][chosen], conditions.splits[0]])
    h = np.concatenate([conditions.atoms[1][chosen], conditions.splits[1]])
    slack = np.concatenate([np.ones(len(chosen)), np.zeros(len(h) - len(chosen))])
    reach = 1.0 + 2 * float((np.abs(g) @ conditions.box.magnitude + np.abs(h)).max(initial=0.0))
    count = g.shape[1]
    return LinearProgram(
        cost=np.concatenate([np.zeros(count), [1.0]]),
        matrix=np.concatenate([-g, slack[:, None]], axis=1),
        row_lower=h,
        lower=np.concatenate([conditions.box.lower, [-reach]]),
        upper=np.concatenate([conditions.box.upper, [reach]]),
    )
