"""Re-checks evidence without any search code or solver.

A proof is walked from its roots: every region is rebuilt from the splits alone, bounded again in NumPy
float64 with all rounding covered, and every leaf must be refuted by what was recorded for it. Nothing that
the search computed is taken over except splits, effort levels and multipliers, none of which can make a
bound wrong.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from lpverify.bounds.clip import clip
from lpverify.bounds.evaluate import (
    Arithmetic,
    Batch,
    Evaluation,
    case_forms,
    double_precision,
    evaluate,
    to_numpy,
)
from lpverify.bounds.farkas import (
    alternative_cases,
    alternatives,
    combination_bound,
    necessary,
    open_alternatives,
)
from lpverify.bounds.halfspaces import HalfSpaces, shrink, table_of
from lpverify.bounds.phase_proof import AlternativePrograms, holds
from lpverify.bounds.reduce import reduce_again
from lpverify.bounds.subproblem import Subproblem, child, inherit, make_batch
from lpverify.errors import InternalError
from lpverify.interval import Array, Box
from lpverify.multipliers import Effort, Multipliers, Schedule
from lpverify.problem import Problem
from lpverify.proof import Leaf, PhaseTree, Proof, ProofNode, covers

MOST_ALTERNATIVES = 20_000
MORE_STEPS = 2  # times the recorded ones: to prove stable what the search found so, in other arithmetic
AGAIN = Schedule(steps=20)

MISFITS = (
    KeyError,
    IndexError,
    ValueError,
    AssertionError,
    InternalError,
)  # splits, rows, multipliers of others

Ends: TypeAlias = tuple[Array, Array]


@dataclass(frozen=True)
class CheckReport:
    """What a check found.

    Attributes:
        leaves: Leaves that were recomputed.
        failures: One line for each that did not hold; empty means that the proof is valid.
    """

    leaves: int
    failures: tuple[str, ...]

    @property
    def valid(self) -> bool:
        """Whether everything held."""
        return not self.failures


def check_proof(problem: Problem, proof: Proof) -> CheckReport:
    """Recomputes every leaf of a recorded proof.

    Raises:
        ValueError: The proof was made without recording.
    """
    if not proof.recorded:
        raise ValueError("the proof was not recorded; verify with record_proof=True")
    if proof.cases != len(problem.cases):
        return CheckReport(0, (f"the proof has {proof.cases} cases, the problem {len(problem.cases)}",))
    return _Checker(problem, proof).run()


class _Checker:
    """Walks one proof; `known` are boxes that hold on all of its regions."""

    def __init__(self, problem: Problem, proof: Proof, known: Mapping[int, Ends] | None = None) -> None:
        self.problem, self.proof, self.known = problem, proof, known or {}
        self.arithmetic: Arithmetic = double_precision(problem)
        self.table = table_of(problem)
        self.failures: list[str] = []
        self.leaves = 0

    def run(self) -> CheckReport:
        roots = [k for k, node in enumerate(self.proof.nodes) if node.parent < 0]
        missing = set(range(len(self.problem.cases))) - {self.proof.nodes[k].case for k in roots}
        self.failures += [f"case {case} has no proof" for case in sorted(missing)]
        stack = []
        for k in roots:
            case = self.proof.nodes[k].case
            box = self.problem.cases[case].box
            root = Subproblem(k, case, box.lower, box.upper, known=self.known)
            if case in self.proof.reductions:
                stack += self._reduced(root)
            else:
                stack.append(root)
        while stack:
            item = stack.pop()
            try:
                stack.extend(self._visit(item))
            except MISFITS as error:
                self.failures.append(f"node {item.node} does not fit the problem: {error!r}")
        return CheckReport(self.leaves, tuple(self.failures))

    def _reduced(self, root: Subproblem) -> list[Subproblem]:
        """A root whose boxes come from reductions; those that a reduced network refutes are checked."""
        node, efforts = self.proof.nodes[root.node], self.proof.reductions[root.case]
        efforts = tuple(replace(e, ascent=MORE_STEPS * e.ascent, budget=float("inf")) for e in efforts)
        evidence = None if node.leaf is None else node.leaf.reduction
        box = Box(root.lower[None], root.upper[None])
        kept = None if evidence is None or evidence.proof is None else evidence.kept
        reduced = reduce_again(self.problem, self.arithmetic, box, efforts, kept)
        if reduced is None:
            self.failures.append(f"the reduced network of node {root.node} is another one")
            return []
        if reduced.empty:
            return self._nothing(root, node)
        if evidence is None:
            known = {k: (b.lower[0], b.upper[0]) for k, b in reduced.boxes.items()}
            return [replace(root, known=known)]
        problem = alternative_cases(reduced.problem, root.case)
        if problem is None or evidence.proof is None or evidence.proof.cases != len(problem.cases):
            self.failures.append(f"the proof of node {root.node} is about something else")
            return []
        report = _Checker(problem, evidence.proof, reduced.known).run()
        self.leaves += report.leaves
        self.failures += [f"node {root.node}: {failure}" for failure in report.failures]
        return []

    def _visit(self, item: Subproblem) -> list[Subproblem]:
        """Bounds one node again; checks it if it is a leaf, else returns its children."""
        node = self.proof.nodes[item.node]
        if is_empty(item):  # the parent's own bounds leave nothing of this side of its split
            return self._nothing(item, node)
        batch = make_batch([item], self.arithmetic)
        effort = replace(node.effort or Effort(), schedule=None)
        warm, rows = admissible(node.multipliers), self._rows(node)
        evaluation = evaluate(self.problem, self.arithmetic, batch, effort, warm, rows)
        if node.leaf == Leaf() and warm is not None and not evaluation.refuted[0]:
            # Other boxes at the root, by little, may want other multipliers, by little.
            effort = replace(effort, schedule=AGAIN)
            evaluation = evaluate(self.problem, self.arithmetic, batch, effort, warm, rows)
        box, empty = self._clipped(item, node, batch, evaluation)
        if node.leaf is not None:
            self.leaves += 1
            if not (empty or self._holds(item, node.leaf, batch, evaluation)):
                self.failures.append(f"leaf {item.node} is not refuted")
            return []
        splits = [self.proof.nodes[c].split for c in node.children]
        if not covers(splits):
            self.failures.append(f"the children of node {item.node} leave something out")
            return []
        return self._children(item, node, evaluation, box)

    def _nothing(self, item: Subproblem, node: ProofNode) -> list[Subproblem]:
        """Nodes whose region is empty hold, and so do those below them."""
        if node.leaf is not None:
            self.leaves += 1
        return [replace(item, node=k) for k in node.children]

    def _rows(self, node: ProofNode) -> np.ndarray | None:
        """The recorded rows as a batch of one; positions that the case does not have are dropped."""
        if node.rows is None:
            return None
        most = len(case_forms(self.problem, node.case))
        return np.array([[r if 0 <= r < most else 0 for r in node.rows]])

    def _clipped(
        self, item: Subproblem, node: ProofNode, batch: Batch, evaluation: Evaluation
    ) -> tuple[Box, bool]:
        """The box that the node's children live in, and whether nothing is left of it."""
        box = Box(item.lower[None], item.upper[None])
        if not node.clipped:
            return box, False
        if node.effort is None or not node.effort.half_spaces or self.table is None:
            return clip(self.problem, batch.cases, evaluation, box), False
        slope = np.zeros((1, self.table.width, self.problem.network.input_size))
        height = np.full((1, self.table.width), -np.inf)
        rows, linear = evaluation.rows[0], evaluation.linear.absolute()
        slope[0, rows], height[0, rows] = linear[0][0], linear[1][0]
        atoms = self.table.half_spaces(batch.cases, HalfSpaces(slope, height))
        latest = item.splits[len(item.splits) - min(node.effort.cuts, len(item.splits)) :]
        found = (
            necessary(self.problem, self.arithmetic, batch, evaluation, latest, 0).splits if latest else None
        )
        splits = HalfSpaces(slope[:, :0], height[:, :0])
        if found is not None:
            splits = HalfSpaces(found[0][None], found[1][None])
        closed = self.table.closed(batch.cases, evaluation.lower)
        box, closed = shrink(box, atoms, closed, splits)
        return box, bool(closed.all())

    def _children(
        self, item: Subproblem, node: ProofNode, evaluation: Evaluation, box: Box
    ) -> list[Subproblem]:
        item = inherit(item, self.arithmetic.network, evaluation, 0)
        item = replace(item, lower=box.lower[0], upper=box.upper[0])
        children = []
        for k in node.children:
            split = self.proof.nodes[k].split
            assert split is not None
            children.append(child(item, k, split, self.problem.network))
        return children

    def _holds(self, item: Subproblem, leaf: Leaf, batch: Batch, evaluation: Evaluation) -> bool:
        if leaf.trees is not None:
            return self._trees_hold(item, leaf.trees, evaluation)
        if leaf.combinations is None:
            return bool(evaluation.refuted[0])
        conditions = necessary(self.problem, self.arithmetic, batch, evaluation, item.splits, 0)
        wanted = alternatives(self.problem, item.case, len(leaf.combinations))
        if wanted is None or sorted(wanted) != sorted(c.atoms for c in leaf.combinations):
            return False
        return all(
            len(c.weights) == len(c.atoms)
            and len(c.splits) == len(item.splits)
            and combination_bound(conditions, c) > 0
            for c in leaf.combinations
        )

    def _trees_hold(self, item: Subproblem, trees: Sequence[PhaseTree], evaluation: Evaluation) -> bool:
        """Whether every alternative is refuted by the bounds of its atoms or by a tree of phases."""
        case = self.problem.cases[item.case]
        left = open_alternatives(self.problem, item.case, evaluation.lower[0], MOST_ALTERNATIVES)
        known = {tree.atoms: tree for tree in trees}
        if left is None or any(a not in known for a in left):
            return False
        programs = AlternativePrograms(evaluation.frame, case)
        return all(holds(programs, known[a]) for a in left)


def is_empty(item: Subproblem) -> bool:
    """Whether a box of the subproblem, which all its points would lie in, has its ends crossed."""
    boxes = [(item.lower, item.upper), *item.known.values()]
    return any(bool((low > high).any()) for low, high in boxes)


def admissible(multipliers: Multipliers | None) -> Multipliers | None:
    """Recorded multipliers as a batch of one in float64, forced into their admissible ranges."""
    if multipliers is None:
        return None

    def wide(array: Array) -> np.ndarray:
        return np.nan_to_num(to_numpy(array).astype(np.float64))[None]

    alpha = {k: np.clip(wide(v), 0.0, 1.0) for k, v in multipliers.alpha.items()}
    return Multipliers(alpha, {k: np.clip(wide(v), 0.0, None) for k, v in multipliers.beta.items()})
