"""Linear-programming branch and bound on a problem: every alternative of every case by `search.phases`.

Accepts: problems whose nonlinear nodes are ReLUs, with few alternatives a case.
Guarantee: `Unsat` only when each alternative is refuted by certified bounds. The root of a case becomes a
leaf with a tree of phases for each alternative.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lpverify.bounds.evaluate import double_precision, evaluate
from lpverify.bounds.farkas import open_alternatives
from lpverify.bounds.phase_proof import AlternativePrograms
from lpverify.bounds.subproblem import Subproblem, make_batch
from lpverify.config import Deadline
from lpverify.errors import InternalError
from lpverify.multipliers import Effort
from lpverify.problem import Problem
from lpverify.proof import Leaf, PhaseTree
from lpverify.search.attack import Replay, try_points
from lpverify.search.phases import PhaseSearch
from lpverify.search.tree import Tree
from lpverify.verdict import Progress, Sat, Timeout, Verdict, Witness

MOST_ALTERNATIVES = 1024


@dataclass
class _Case:
    """A root with the searches of its open alternatives, the hardest first."""

    item: Subproblem
    searches: list[PhaseSearch]
    done: int = 0


@dataclass
class LpSearch:
    """The state of one run, which can be resumed.

    Attributes:
        problem: What to decide.
        replay: Decides on counterexamples.
        tree: Where the roots are.
        waiting: The open roots, with their boxes.
        threads: How many.
        report: Called with the progress.
    """

    problem: Problem
    replay: Replay
    tree: Tree
    waiting: list[Subproblem]
    threads: int = 1
    report: Callable[[Progress], None] = lambda progress: None
    stuck: int = 0
    witness: Witness | None = None
    current: _Case | None = None
    finished: int = 0
    total: int = field(init=False)

    def __post_init__(self) -> None:
        self.total = len(self.waiting)

    def run(self, deadline: Deadline) -> Verdict:
        """Refutes all roots, or finds a counterexample, or says how far it came."""
        while self.waiting or self.current is not None:
            if self.current is None:
                if deadline.passed:
                    return Timeout(self.progress())
                self.current = self._open(self.waiting.pop())
            if not self._case(self.current, deadline):
                return (
                    Timeout(self.progress()) if self.witness is None else Sat(self.witness, self.progress())
                )
            self.current = None
            self.finished += 1
            self.report(self.progress())
        return self.tree.verdict(len(self.problem.cases), self.stuck, self.progress())

    @property
    def volume(self) -> float:
        """About how much of the work is done."""
        done = float(self.finished)
        if self.current is not None and self.current.searches:
            parts = [min(1.0, s.volume) for s in self.current.searches]
            done += sum(parts) / len(parts)
        return done / max(1, self.total)

    def progress(self) -> Progress:
        """How far it is."""
        left, margin = len(self.waiting) + self.stuck, float("inf")
        if self.current is not None:
            left += sum(s.open for s in self.current.searches)
            margin = min((s.lower for s in self.current.searches), default=margin)
        return Progress(self.tree.closed, left, margin, "linear programs")

    def alternatives_of(self, item: Subproblem) -> tuple[AlternativePrograms, list[tuple[int, ...]]]:
        """The programs of a root, and the alternatives that its bounds leave open, the hardest first."""
        arithmetic = double_precision(self.problem)
        self.tree.bounded(item.node, Effort("ibp"), False)
        evaluation = evaluate(self.problem, arithmetic, make_batch([item], arithmetic), Effort("ibp"))
        case = self.problem.cases[item.case]
        left = open_alternatives(self.problem, item.case, evaluation.lower[0], MOST_ALTERNATIVES)
        if left is None:
            raise InternalError("more alternatives than linear programs are made for")
        return AlternativePrograms(evaluation.frame, case), left

    def _open(self, item: Subproblem) -> _Case:
        """The searches of a root."""
        network, case = self.problem.network, self.problem.cases[item.case]
        programs, open_ = self.alternatives_of(item)
        searches = []
        for atoms in open_:
            program, constant = programs.of(atoms)
            tree = PhaseTree(atoms, self.tree.record)

            def candidate(x: np.ndarray, atoms: tuple[int, ...] = atoms) -> tuple[float, np.ndarray]:
                x = np.clip(x, item.lower, item.upper)
                found = network.evaluate(x[None])
                forms = found[network.output][0][case.forms[list(atoms)]]
                value = float((forms - case.bounds[list(atoms)]).max())
                if value <= 1e-6 and self.witness is None:
                    self.witness = try_points(self.problem, item.case, x[None], self.replay)
                return value, programs.phases.signs_at(network, found)

            searches.append(PhaseSearch(program, constant, 0.0, candidate, tree=tree))
        return _Case(item, searches)

    def _case(self, current: _Case, deadline: Deadline) -> bool:
        """Goes on with a root; False when time is over or a witness was found."""
        for search in current.searches[current.done :]:
            search.run(deadline, self.threads, lambda: self.witness is not None)
            if self.witness is not None or search.open > search.stuck:
                return False
            current.done += 1
        if any(search.stuck for search in current.searches):
            self.stuck += 1
            return True
        trees = tuple(search.tree for search in current.searches if search.tree is not None)
        self.tree.close(current.item.node, Leaf(trees=trees))
        return True
