"""Branch and bound. The loop is a schedule; bounding, branching, leaves and replay are arguments."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lpverify.bounds.clip import clip
from lpverify.bounds.evaluate import (
    Arithmetic,
    Batch,
    Evaluation,
    columns_of,
    evaluate,
    known_floor,
    open_rows,
    to_numpy,
)
from lpverify.bounds.farkas import necessary
from lpverify.bounds.subproblem import Subproblem, child, inherit, make_batch, make_warm
from lpverify.config import Deadline
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.problem import Problem
from lpverify.proof import Leaf, Split
from lpverify.search.attack import Replay, try_points
from lpverify.search.branching import Rule, all_linear, worst_row
from lpverify.search.leaf import decide
from lpverify.search.tree import Frontier, Tree
from lpverify.solvers.base import LpBackend
from lpverify.verdict import Progress, Sat, Timeout, Verdict, Witness


@dataclass(frozen=True)
class Engine:
    """How the search works on one kind of network.

    Attributes:
        arithmetic: Where bounds are computed.
        root: Effort for subproblems that inherit nothing.
        effort: For all others.
        rule: Chooses splits.
        batch: Most subproblems bounded together.
        clips: Shrink input boxes by the final linear bounds.
        backend: Decides subproblems on which the network is linear.
    """

    arithmetic: Arithmetic
    root: Effort
    effort: Effort
    rule: Rule
    batch: int
    clips: bool
    backend: LpBackend


@dataclass
class Search:
    """The state of one branch-and-bound run; `waiting` are the subproblems to start with."""

    problem: Problem
    engine: Engine
    replay: Replay
    tree: Tree
    waiting: Sequence[Subproblem]
    report: Callable[[Progress], None] = lambda progress: None
    frontier: Frontier = field(default_factory=Frontier)
    stuck: int = 0
    deadline: Deadline = field(default_factory=Deadline)

    def run(self, deadline: Deadline) -> Verdict:
        """Refutes all subproblems, or finds a counterexample, or says how far it came; can be resumed."""
        self.deadline = deadline
        self.frontier.push(self.waiting)
        self.waiting = ()
        while self.frontier.items:
            if self.deadline.passed:
                return Timeout(self.progress())
            items = self.frontier.take(self.engine.batch)
            effort, batch, evaluation = self._bound(items)
            witness = self._candidates(items, evaluation)
            if witness is not None:
                return Sat(witness, self.progress())
            box = self._clip(items, batch, evaluation)
            for i, item in enumerate(items):
                witness = self._settle(i, item, effort, batch, evaluation, box)
                if witness is not None:
                    return Sat(witness, self.progress())
            self.report(self.progress())
        return self.tree.verdict(len(self.problem.cases), self.stuck, self.progress())

    def progress(self) -> Progress:
        """How far it is."""
        frontier = self.frontier
        return Progress(
            self.tree.closed, len(frontier.items) + self.stuck, frontier.margin, "branch and bound"
        )

    def _bound(self, items: Sequence[Subproblem]) -> tuple[Effort, Batch, Evaluation]:
        """Bounds a batch, roots with the root's effort, from the parents' multipliers."""
        engine = self.engine
        effort = engine.effort
        if any(s.floor is None for s in items):  # roots; their boxes may be known from an earlier rung
            effort = engine.root if any(not s.known for s in items) else replace(engine.root, method="ibp")
        batch = make_batch(items, engine.arithmetic)
        warm = None
        rows = open_rows(self.problem, batch.cases, known_floor(self.problem, batch))
        if effort.schedule is not None:
            warm = make_warm(items, batch.splits, rows, engine.arithmetic.like)
        return effort, batch, evaluate(self.problem, engine.arithmetic, batch, effort, warm, rows)

    def _candidates(self, items: Sequence[Subproblem], evaluation: Evaluation) -> Witness | None:
        """The minimisers of the worst linear bounds that are open."""
        if evaluation.refuted.all():
            return None
        corners = evaluation.linear.minimizer(evaluation.frame.boxes[0])
        open_ = [int(i) for i in np.flatnonzero(~evaluation.refuted)]
        picked = [(i, worst_row(self.problem, items[i], evaluation, i)) for i in open_]
        points = np.stack([to_numpy(corners[i, r]).astype(np.float64) for i, r in picked])
        cases = np.array([items[i].case for i in open_])
        for case in np.unique(cases):
            witness = try_points(self.problem, int(case), points[cases == case], self.replay, most=2)
            if witness is not None:
                return witness
        return None

    def _clip(self, items: Sequence[Subproblem], batch: Batch, evaluation: Evaluation) -> Box:
        box = Box(np.stack([s.lower for s in items]), np.stack([s.upper for s in items]))
        return clip(self.problem, batch.cases, evaluation, box) if self.engine.clips else box

    def _settle(
        self, i: int, item: Subproblem, effort: Effort, batch: Batch, evaluation: Evaluation, box: Box
    ) -> Witness | None:
        """Closes or splits one subproblem; returns a witness if its LP found one."""
        here = inherit(item, self.engine.arithmetic.network, evaluation, i)
        self.tree.bounded(item.node, effort, self.engine.clips)
        if self.tree.record:
            exact = None if evaluation.multipliers is None else evaluation.multipliers.rows(i)
            self.tree.note(item.node, exact, here.rows)
        if evaluation.refuted[i]:
            self.tree.close(item.node, Leaf())
            return None
        margin = self._margin(item, evaluation, i)
        here = replace(here, lower=box.lower[i], upper=box.upper[i], margin=margin)
        if all_linear(evaluation, i):
            return self._linear_leaf(i, here, batch, evaluation)
        split = self.engine.rule(self.problem, here, evaluation, i)
        if split is None:
            self.stuck += 1
            return None
        self.frontier.push(self._children(here, split))
        return None

    def _margin(self, item: Subproblem, evaluation: Evaluation, i: int) -> float:
        case = self.problem.cases[item.case]
        columns = columns_of(self.problem, item.case)
        return float(case.violation(evaluation.lower[i : i + 1][:, columns])[0])

    def _linear_leaf(self, i: int, item: Subproblem, batch: Batch, evaluation: Evaluation) -> Witness | None:
        """The network is linear here: an LP decides, unless rounding gets in the way."""
        conditions = necessary(self.problem, self.engine.arithmetic, batch, evaluation, item.splits, i)
        seconds = self.deadline.remaining
        leaf, candidates = decide(self.problem, item.case, conditions, self.engine.backend, seconds)
        if leaf is not None:
            self.tree.close(item.node, leaf)
            return None
        for point in candidates:
            witness = self.replay(point, item.case)
            if witness is not None:
                return witness
        if self.deadline.passed:  # the program may have been cut off
            self.frontier.push([item])
        else:
            self.stuck += 1
        return None

    def _children(self, item: Subproblem, split: Split) -> tuple[Subproblem, Subproblem]:
        network, other = self.problem.network, split.opposite()
        first, second = (self.tree.child(item.node, s) for s in (split, other))
        return child(item, first, split, network), child(item, second, other, network)
