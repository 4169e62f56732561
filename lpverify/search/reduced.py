"""A case decided by way of its reduced network (`bounds.reduce`): one root for each of its alternatives.

Accepts: a root of a problem with affine nodes and ReLUs, reduced.
Method: `ReluSearch`; subproblems in which the network is linear go to the general search and its programs.
Guarantee: as those; the proof about the reduced network becomes the evidence of the root's leaf.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lpverify.bounds.farkas import alternative_cases
from lpverify.bounds.reduce import Reduced
from lpverify.bounds.subproblem import Subproblem
from lpverify.config import Deadline
from lpverify.errors import InternalError
from lpverify.multipliers import Effort, Schedule
from lpverify.problem import Problem
from lpverify.proof import Leaf, Reduction
from lpverify.search.attack import Replay
from lpverify.search.bab import Engine, Search
from lpverify.search.branching import neurons_first
from lpverify.search.relu import ReluSearch
from lpverify.search.tree import Tree
from lpverify.solvers.base import LpBackend
from lpverify.verdict import Progress, Unknown, Unsat, Verdict, Witness


@dataclass
class ReducedSearch:
    """The state of one run; see the module.

    Attributes:
        problem: The whole one.
        root: Of the case; the only one that is open.
        reduced: The case's reduced problem.
        replay: Turns points into witnesses of the whole problem.
        tree: Of the whole problem.
        backend: Decides subproblems on which the network is linear.
        report: Called with the progress.
    """

    problem: Problem
    root: Subproblem
    reduced: Reduced
    replay: Replay
    tree: Tree
    backend: LpBackend
    report: Callable[[Progress], None] = lambda progress: None
    inner: Tree = field(init=False)
    phases: ReluSearch = field(init=False)
    leaves: Search | None = None

    def __post_init__(self) -> None:
        problem = alternative_cases(self.reduced.problem, self.root.case)
        if problem is None:
            raise InternalError("more alternatives than the search over phases takes")
        self.inner = Tree(self.tree.record)
        ends, known = (self.root.lower, self.root.upper), self.reduced.known
        roots = [Subproblem(self.inner.root(i), i, *ends, known=known) for i in range(len(problem.cases))]
        arithmetic = self.reduced.arithmetic
        phases = roots if known else []  # without unstable neurons the network is linear
        self.phases = ReluSearch(problem, arithmetic, self._replay, self.inner, phases, self.report)
        self.phases.rest += roots if not known else []

    def _replay(self, point: np.ndarray, case: int) -> Witness | None:
        return self.replay(point, self.root.case)

    @property
    def volume(self) -> float:
        """The share that is closed."""
        return self.inner.volume / len(self.phases.problem.cases)

    def progress(self) -> Progress:
        """How far it is."""
        return (self.leaves or self.phases).progress()

    def run(self, deadline: Deadline, rounds: int | None = None) -> Verdict:
        """Goes on until it has a verdict, or the deadline, or so many rounds: Timeout."""
        if self.reduced.empty:
            self.tree.close(self.root.node, Leaf(reduction=Reduction({}, None)))
            return self.tree.verdict(len(self.problem.cases), 0, self.progress())
        verdict = self.phases.run(deadline, rounds) if self.leaves is None else self.leaves.run(deadline)
        if isinstance(verdict, Unknown) and self.phases.rest:
            verdict = self._linear_leaves().run(deadline)
        if isinstance(verdict, Unsat):
            proof = Reduction(self.reduced.kept, verdict.proof)
            self.tree.close(self.root.node, Leaf(reduction=proof))
            return self.tree.verdict(len(self.problem.cases), 0, self.progress())
        return verdict

    def _linear_leaves(self) -> Search:
        """The general search on what is left."""
        rest, self.phases.rest = self.phases.rest, []
        effort = Effort("ibp", Schedule(steps=10))
        engine = Engine(self.reduced.arithmetic, effort, effort, neurons_first, 16, False, self.backend)
        problem = self.phases.problem
        self.leaves = Search(problem, engine, self._replay, self.inner, rest, self.report)
        return self.leaves
