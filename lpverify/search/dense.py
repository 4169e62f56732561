"""Branch and bound on small dense ReLU networks: many subproblems at a time, bounded by the compiled kernel.

Accepts: problems whose network `condense` can rewrite, with few free inputs or one hidden layer.
Method: depth first in blocks with best-bound restarts. Each subproblem is clipped to its half-spaces, then
split at the input or the neuron whose relaxation gap promises more, both in the same unit: the expected rise
of the lower bound. Where much halving has left few neurons unstable their phases are enumerated, and a
subproblem on which the network is linear goes to an LP.
Guarantee: `Unsat` only when every subproblem was refuted by certified bounds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import monotonic

import numpy as np

from lpverify.bounds.evaluate import double_precision, evaluate
from lpverify.bounds.farkas import necessary
from lpverify.bounds.halfspaces import HalfSpaces, Table, shrink
from lpverify.bounds.subproblem import Subproblem, make_batch
from lpverify.config import Deadline
from lpverify.interval import Box
from lpverify.kernels.dense import Ascent, DenseBounds, DenseKernel
from lpverify.multipliers import Effort
from lpverify.problem import Problem
from lpverify.proof import Leaf
from lpverify.search.attack import Replay
from lpverify.search.branching import all_linear
from lpverify.search.layout import Choice, Layout, Plan
from lpverify.search.leaf import decide
from lpverify.search.pool import Columns, Pool
from lpverify.search.tree import Tree
from lpverify.solvers.base import LpBackend
from lpverify.verdict import Progress, Sat, Timeout, Verdict, Witness

ENUMERATE = 8  # unstable neurons up to which phases are split whatever inputs promise
HALVINGS = 10  # of every free input before that, on average
INPUT_SHARE = 5.0  # of the gap that halving the inputs behind it should close
BATCH, SECONDS = 256, 0.2  # most subproblems, and seconds, of one call of the kernel
GROWTH = 8  # times the last batch that the next one may be: what a subproblem costs is not known at first
ROOT_ELEMENTS = 20_000_000  # boxes of neurons of roots that are held at a time
LEAF_SECONDS = 10.0  # for the LP of one subproblem
RESTART_EVERY = 16  # rounds between best-bound restarts
MEMORY = 2**30  # bytes of open subproblems from which the search goes on strictly depth first
TOLERANCE = 1e-6  # violation up to which a point is replayed


@dataclass
class DenseSearch:
    """The state of one branch-and-bound run; see the module.

    Attributes:
        problem: What is decided.
        kernel: Of its network.
        table: Of its cases' conditions.
        replay: Turns points into witnesses.
        tree: Where the proof grows.
        backend: Decides subproblems on which the network is linear.
        threads: For the kernel.
        plan: How to search.
        waiting: Subproblems to start with.
        report: Called with the progress.
    """

    problem: Problem
    kernel: DenseKernel
    table: Table
    replay: Replay
    tree: Tree
    backend: LpBackend
    threads: int
    plan: Plan
    waiting: Sequence[Subproblem]
    report: Callable[[Progress], None] = lambda progress: None
    stuck: int = 0
    rounds: int = 0
    size: int = GROWTH  # of the next batch
    bounded: int = 0
    seconds: float = 0.0  # inside the kernel
    deadline: Deadline = field(default_factory=Deadline)
    layout: Layout = field(init=False)
    pool: Pool = field(init=False)

    def __post_init__(self) -> None:
        network, forms = self.problem.network, self.table.width
        self.layout = Layout(network, self.kernel, self.plan, forms, self.tree.record)
        self.pool = Pool(self.layout.shapes())

    def run(self, deadline: Deadline) -> Verdict:
        """Refutes all subproblems, or finds a counterexample, or says how far it came; can be resumed."""
        self.deadline = deadline
        while len(self.pool) or self.waiting:
            if deadline.passed:
                return Timeout(self.progress())
            if not len(self.pool):
                self._push_roots()
            witness = self._round()
            if witness is not None:
                return Sat(witness, self.progress())
            self.report(self.progress())
        return self.tree.verdict(len(self.problem.cases), self.stuck, self.progress())

    def progress(self) -> Progress:
        """How far it is."""
        margin = self.pool.column("margin").min(initial=np.inf)
        left = len(self.pool) + len(self.waiting) + self.stuck
        return Progress(self.tree.closed, left, float(margin), "branch and bound")

    def _round(self) -> Witness | None:
        """Bounds a batch and settles it."""
        self._restart()
        items = self.pool.take(self.size)
        start = monotonic()
        bounds = self._bound(items)
        took = monotonic() - start
        count = len(items["node"])
        self.size = int(np.clip(SECONDS / took * count, 1, min(BATCH, GROWTH * count)))
        return self._settle(items, bounds)

    def _push_roots(self) -> None:
        """Some of the roots that wait: as many as fit into memory."""
        most = max(BATCH, ROOT_ELEMENTS // max(self.kernel.neurons, 1))
        roots, self.waiting = self.waiting[:most], self.waiting[most:]
        self.pool.push(self.layout.roots(roots))

    def _restart(self) -> None:
        """Now and then the worst subproblems come to the top, unless too many are open already."""
        self.rounds += 1
        room = self.pool.size_of_entry * len(self.pool) < MEMORY
        if self.plan.inputs and self.rounds % RESTART_EVERY == 0 and room:
            self.pool.reorder(np.argsort(-self.pool.column("margin"), kind="stable"))

    def _bound(self, items: Columns) -> DenseBounds:
        """Bounds in float32; again in float64 where only the rounding error is in the way."""
        wanted = self._wanted(items)
        depth = int((items["split"] >= 0).sum(axis=1).max(initial=0))
        bounds = self._kernel(items, wanted, depth, False)
        close = np.maximum(items["floor"], bounds.value + 2 * np.fmin(bounds.loss, 1e300))
        refuted = self.table.closed(items["case"], np.maximum(items["floor"], bounds.value)).all(axis=1)
        again = np.flatnonzero(~refuted & self.table.closed(items["case"], close).all(axis=1))
        if len(again):
            part = {name: column[again] for name, column in items.items()}
            bounds.put(again, self._kernel(part, wanted[again], depth, True))
            for name, column in part.items():  # boxes, and multipliers where there are any
                items[name][again] = column
        items["floor"] = np.maximum(items["floor"], bounds.value)
        return bounds

    def _wanted(self, items: Columns) -> np.ndarray:
        """The forms that some open atom reads, -1 elsewhere."""
        cases, floor = items["case"], items["floor"]
        closed = self.table.closed(cases, floor)
        reads = self.table.present[cases] & ~closed[:, :, None]
        needed = np.zeros(floor.shape, bool)
        entry = np.broadcast_to(np.arange(len(cases))[:, None, None], reads.shape)
        needed[entry[reads], self.table.column[cases][reads]] = True
        return np.ascontiguousarray(np.where(needed, self.table.forms[cases], -1), np.int32)

    def _kernel(self, items: Columns, wanted: np.ndarray, depth: int, double: bool) -> DenseBounds:
        start, plan = monotonic(), self.plan
        splits = tuple(np.ascontiguousarray(items[name][:, :depth]) for name in ("split", "side"))
        box, known = (items["lower"], items["upper"]), (items["known_lower"], items["known_upper"])
        ascent = self._ascent(items, wanted, depth) if plan.steps else None
        bounds = self.kernel.bound(
            *(box, known, wanted, (splits[0], splits[1]), double, self.threads, ascent),
            refine=bool(plan.refine or (items["depth"] == 0).all()),
            cuts=min(plan.cuts, depth),
        )
        if ascent is not None:
            items["alpha"], items["beta"][:, :, :depth] = ascent.alpha, ascent.beta
        self.bounded += len(wanted)
        self.seconds += monotonic() - start
        return bounds

    def _ascent(self, items: Columns, wanted: np.ndarray, depth: int) -> Ascent:
        """The parents' multipliers; of atoms that must hold together only the most promising one ascends."""
        cases, floor = items["case"], items["floor"]
        gaps = self.table.gaps(cases, floor)
        open_ = self.table.present[cases] & ~self.table.closed(cases, floor)[:, :, None]
        open_ &= gaps >= gaps.max(axis=2, keepdims=True)
        goal = np.full(wanted.shape, -np.inf)
        entry = np.nonzero(open_)[0]
        np.maximum.at(goal, (entry, self.table.column[cases][open_]), self.table.bound[cases][open_])
        alpha, beta = items["alpha"].astype(np.float32), np.ascontiguousarray(items["beta"][:, :, :depth])
        return Ascent(self.plan.steps, self.plan.ahead, goal, alpha, beta)

    def _settle(self, items: Columns, bounds: DenseBounds) -> Witness | None:
        """Closes, clips and splits; returns a witness if a candidate is one."""
        cases, nodes = items["case"], items["node"]
        table = self.tree.nodes
        table.column("effort")[nodes] = table.effort_number(self.plan.effort)
        table.column("clipped")[nodes] = True
        if self.tree.record and self.plan.steps:
            self._note(items)
        closed = self.table.closed(cases, items["floor"])
        closed[bounds.empty > 0] = True
        rows = HalfSpaces(bounds.slope, bounds.height)
        splits = HalfSpaces(bounds.split_slope[:, : self.plan.cuts], bounds.split_height[:, : self.plan.cuts])
        box = Box(items["lower"], items["upper"])
        clipped, closed = shrink(box, self.table.half_spaces(cases, rows), closed, splits)
        refuted = closed.all(axis=1)
        self.tree.close_all(nodes[refuted])
        left = np.flatnonzero(~refuted)
        if not len(left):
            return None
        gaps = self.table.gaps(cases[left], items["floor"][left])
        best = np.where(closed[left], np.inf, gaps.max(axis=2))
        row = self._nearest_row(cases[left], gaps, best)
        witness = self._candidates(items, bounds, left, row)
        if witness is not None:
            return witness
        linear = bounds.unstable[left] == 0
        for i in left[linear]:
            witness = self._leaf(items, int(i))
            if witness is not None:
                return witness
        left, row, best = left[~linear], row[~linear], best[~linear]
        if not len(left):
            return None
        items = {name: column[left] for name, column in items.items()}
        items["lower"], items["upper"] = clipped.lower[left], clipped.upper[left]
        items["margin"] = best.min(axis=1)
        self._split(items, bounds, left, row)
        return None

    def _note(self, items: Columns) -> None:
        """Keeps the multipliers of all rows."""
        for i, node in enumerate(items["node"]):
            count = int((self.table.forms[items["case"][i]] >= 0).sum())
            kept = self.layout.multipliers(items, i).rows(slice(count))
            self.tree.note(int(node), kept, range(count))

    def _nearest_row(self, cases: np.ndarray, gaps: np.ndarray, best: np.ndarray) -> np.ndarray:
        """For each subproblem the row nearest to refuting its farthest alternative; `best` gaps of each."""
        entry, d = np.arange(len(cases)), best.argmin(axis=1)
        return self.table.column[cases, d, gaps[entry, d].argmax(axis=1)]

    def _candidates(
        self, items: Columns, bounds: DenseBounds, left: np.ndarray, row: np.ndarray
    ) -> Witness | None:
        """The corners at which the bounds are attained, and the centres."""
        lower, upper, cases = items["lower"][left], items["upper"][left], items["case"][left]
        corners = np.where(bounds.slope[left, row] > 0, lower, upper)
        points = np.concatenate([corners, 0.5 * lower + 0.5 * upper])
        with np.errstate(all="ignore"):
            forms = self.problem.network(points)
        cases = np.concatenate([cases, cases])
        values = np.take_along_axis(forms, np.maximum(self.table.forms[cases], 0), axis=1)
        violation = self.table.violation(cases, values)
        for i in np.argsort(violation)[:2]:
            if violation[i] > TOLERANCE * (1.0 + float(np.abs(values[i]).max())):
                return None
            witness = self.replay(points[i], int(cases[i]))
            if witness is not None:
                return witness
        return None

    def _split(self, items: Columns, bounds: DenseBounds, left: np.ndarray, row: np.ndarray) -> None:
        """Pushes both children of each subproblem; those that nothing can split are stuck."""
        lower, upper = items["lower"], items["upper"]
        middle = 0.5 * lower + 0.5 * upper
        inside = (lower < middle) & (middle < upper)
        gain = INPUT_SHARE * bounds.input_score[left, row] + 1e-9 * (upper - lower)
        gain = np.where(inside & (self.plan.inputs | (bounds.unstable[left] == 0)[:, None]), gain, -1.0)
        index, entry = gain.argmax(axis=1), np.arange(len(left))
        neuron, score = bounds.best_neuron[left, row], bounds.neuron_score[left, row]
        deep = items["depth"] > HALVINGS * np.maximum(inside.sum(axis=1), 1)
        few = (bounds.unstable[left] <= ENUMERATE) & deep
        phase = (neuron >= 0) & (few | (score > gain[entry, index]))
        ok = phase | (gain[entry, index] >= 0)
        self.stuck += int((~ok).sum())
        keep = np.flatnonzero(ok)
        items = {name: column[keep] for name, column in items.items()}
        choice = Choice(phase[keep], index[keep], middle[entry, index][keep], neuron[keep])
        children = [self._child(items, choice, upper) for upper in (False, True)]
        both = {name: np.concatenate([c[name] for c in children]) for name in children[0]}
        order = np.argsort(-both["margin"], kind="stable")
        self.pool.push({name: column[order] for name, column in both.items()})

    def _child(self, items: Columns, choice: Choice, upper: bool) -> Columns:
        child = self.layout.child(items, choice, upper)
        child["node"] = self.tree.children(items["node"], **self.layout.tree_columns(choice, upper))
        return child

    def _leaf(self, items: Columns, i: int) -> Witness | None:
        """The network is linear here: an LP decides, unless rounding gets in the way."""
        node, case = int(items["node"][i]), int(items["case"][i])
        item, arithmetic = self.layout.single(items, i, self.tree.path(node)), double_precision(self.problem)
        batch = make_batch([item], arithmetic)
        evaluation = evaluate(self.problem, arithmetic, batch, Effort("ibp"))
        if evaluation.refuted[0]:
            self.tree.close(node, Leaf())
            return None
        if all_linear(evaluation, 0):
            conditions = necessary(self.problem, arithmetic, batch, evaluation, item.splits, 0)
            seconds = min(LEAF_SECONDS, self.deadline.remaining)
            leaf, candidates = decide(self.problem, case, conditions, self.backend, seconds)
            if leaf is not None:
                self.tree.close(node, leaf)
                return None
            for point in candidates:
                witness = self.replay(point, case)
                if witness is not None:
                    return witness
        self.stuck += 1
        return None
