"""Branch and bound over ReLU phases of a reduced network: products of matrices, many subproblems at a time.

Accepts: problems whose network is `bounds.reduce`'s, whose cases have one alternative each.
Method: depth first in batches with best-bound restarts. Each batch ascends in alpha and beta from the
parents' multipliers over boxes that are fixed at the root but for the phases (Wang et al. 2021,
arXiv:2103.06624); the neuron that the relaxation loosens most at the point where the bound is attained is
split. All that is for proposals, in single precision.
Guarantee: a subproblem is closed only after its bound was computed again with its multipliers and every
rounding error (`bounds.evaluate`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lpverify.bounds.evaluate import Arithmetic, Batch, evaluate, slices, to_numpy, unit_rows
from lpverify.bounds.frame import outward
from lpverify.bounds.propagate import Region
from lpverify.bounds.relu_ascent import Ascended, ReluAscent
from lpverify.bounds.subproblem import Subproblem
from lpverify.config import Deadline
from lpverify.interval import Array, Box, namespace
from lpverify.multipliers import Effort, Multipliers, Schedule
from lpverify.problem import Problem
from lpverify.search.attack import AttackPlan, Replay, descend, try_points
from lpverify.search.phase_layout import PhaseLayout
from lpverify.search.pool import Columns, Pool
from lpverify.search.tree import Tree
from lpverify.verdict import Progress, Sat, Timeout, Unknown, Verdict, Witness

AHEAD, SECOND = 16, 0.1  # neurons that are tried, and what the second child counts
STEPS, ROOT_STEPS = 10, 40  # of ascent
ELEMENTS = 4_000_000  # coefficients of one batch
MOST = 512  # subproblems of one batch
RESTART_EVERY = 16  # rounds between best-bound restarts
MEMORY = 2**30  # bytes of open subproblems from which the search goes on strictly depth first
CANDIDATES = 2  # points that are tried a round
DESCENT_EVERY = 8  # rounds between descents
DESCENT = AttackPlan(restarts=32, steps=12, first_step=0.125, decay=0.75)
SHARE = 0.1  # of the intercept score, beside the gap at the point


@dataclass
class ReluSearch:
    """The state of one run; see the module.

    Attributes:
        problem: What is decided.
        arithmetic: For it, single precision.
        replay: Turns points into witnesses.
        tree: Where the proof grows.
        waiting: Roots.
        report: Called with the progress.
        rest: Subproblems without unstable neurons that are still open.
    """

    problem: Problem
    arithmetic: Arithmetic
    replay: Replay
    tree: Tree
    waiting: Sequence[Subproblem]
    report: Callable[[Progress], None] = lambda progress: None
    rest: list[Subproblem] = field(default_factory=list)
    rounds: int = 0
    bounded: int = 0
    deadline: Deadline = field(default_factory=Deadline)
    layout: PhaseLayout = field(init=False)
    pool: Pool = field(default_factory=lambda: Pool({}))

    def __post_init__(self) -> None:
        cases, network = self.problem.cases, self.arithmetic.network
        rows = max(len(case.distinct_forms) for case in cases)
        self.effort = Effort("ibp")
        self.forms = np.stack([np.resize(case.distinct_forms, rows) for case in cases])
        self.places = np.stack([np.resize(np.arange(len(c.distinct_forms)), rows) for c in cases])
        self.bounds = np.full((len(cases), rows), np.inf)
        for own, case in zip(self.bounds, cases, strict=True):
            np.minimum.at(own, case.columns, case.bounds)
        widest = max(node.shape[0] for node in network.nodes)
        self.most = int(np.clip(ELEMENTS // (rows * widest), 1, MOST))
        if self.waiting:
            self.box = self.arithmetic.box(self.waiting[0].lower[None], self.waiting[0].upper[None])
            self.layout = PhaseLayout(network, self.arithmetic, self.waiting[0].known, rows)
            self.pool = Pool(self.layout.shapes())
            self.pool.push(self.layout.roots(self.waiting))

    @np.errstate(over="ignore", invalid="ignore")  # what is undefined or unbounded proves nothing
    def run(self, deadline: Deadline, rounds: int | None = None) -> Verdict:
        """Refutes all subproblems, or finds a counterexample, or says how far it came; can be resumed.

        Args:
            deadline: Then it ends.
            rounds: And after so many batches.
        """
        self.deadline = deadline
        while len(self.pool):
            if deadline.passed or rounds == 0:
                return Timeout(self.progress())
            rounds = None if rounds is None else rounds - 1
            witness = self._round()
            if witness is not None:
                return Sat(witness, self.progress())
            self.report(self.progress())
        if self.rest:
            return Unknown(f"{len(self.rest)} subproblem(s) need linear programs", self.progress())
        return self.tree.verdict(len(self.problem.cases), 0, self.progress())

    def progress(self) -> Progress:
        """How far it is."""
        margin = float(self.pool.column("margin").min(initial=np.inf)) if self.pool else np.inf
        return Progress(self.tree.closed, len(self.pool) + len(self.rest), margin, "branch and bound")

    def _round(self) -> Witness | None:
        """Bounds a batch, closes what is refuted and splits the rest."""
        self.rounds += 1
        room = self.pool.size_of_entry * len(self.pool) < MEMORY
        if self.rounds % RESTART_EVERY == 0 and room:
            self.pool.reorder(np.argsort(-self.pool.column("margin"), kind="stable"))
        items = self.pool.take(self.most)
        self.bounded += len(items["node"])
        items = self._close_foreseen(items)
        if not len(items["node"]):
            return None
        found = self._ascend(items)
        margins = to_numpy(found.value) - self.bounds[items["case"]]
        row, margin = margins.argmax(axis=1), margins.max(axis=1)
        refuted = self._close(items, found.multipliers, np.flatnonzero(margin > 0))
        left = np.flatnonzero(~refuted)
        if not len(left):
            return None
        witness = self._candidates(items, found, left, row, margin)
        if witness is None:
            self._split(items, found, left, row, margin)
        return witness

    def _close_foreseen(self, items: Columns) -> Columns:
        """Closes those that were refuted when they were looked at ahead; returns the others."""
        foreseen = np.flatnonzero(items["margin"] > 0)
        if not len(foreseen):
            return items
        part = {name: column[foreseen] for name, column in items.items()}
        sides = self.layout.sides(self.arithmetic.place(part["sign"]))
        refuted = self._close(part, self.layout.multipliers(part, sides), np.arange(len(foreseen)))
        left = np.delete(np.arange(len(items["node"])), foreseen[refuted])
        return {name: column[left] for name, column in items.items()}

    def _ascend(self, items: Columns) -> Ascended:
        """Proposals for the batch; the columns get the multipliers."""
        bounds = self.bounds[items["case"]]

        def done(value: Array) -> bool:
            return bool((to_numpy(value) > bounds).any(axis=1).all())

        steps = ROOT_STEPS if (items["sign"] == 0).all() else STEPS
        ascent, start = self._relaxed(items)
        found = ascent.climb(start, Schedule(steps=steps), done)
        self.layout.store(items, found.multipliers)
        return found

    def _relaxed(self, items: Columns) -> tuple[ReluAscent, Multipliers]:
        """The relaxed problems of a batch, and its multipliers."""
        layout, like, network = self.layout, self.arithmetic.like, self.arithmetic.network
        sign = self.arithmetic.place(items["sign"])
        low, high = layout.ends(sign)
        sides = layout.sides(sign)
        boxes = {value: outward(box, like) for value, box in layout.boxes(low, high).items()}
        seeds, box = self._seeds(items), outward(self.box, like)
        ascent = ReluAscent(network, seeds, network.output, box, boxes, sides)
        return ascent, layout.multipliers(items, sides)

    def _seeds(self, items: Columns) -> Array:
        return unit_rows(self.forms[items["case"]], self.arithmetic)

    def _close(self, items: Columns, multipliers: Multipliers, chosen: np.ndarray) -> np.ndarray:
        """Bounds the chosen ones again with all rounding covered; closes what that refutes."""
        refuted, nodes = np.zeros(len(items["node"]), bool), items["node"]
        numbers = self.tree.nodes.column("effort")
        numbers[nodes] = self.tree.nodes.effort_number(self.effort)
        if not len(chosen):
            return refuted
        part = {name: column[chosen] for name, column in items.items()}
        sign = self.arithmetic.place(part["sign"])
        xp, count = namespace(sign), len(chosen)
        box = Box(*(xp.broadcast_to(end, (count, end.shape[1])) for end in (self.box.lower, self.box.upper)))
        region = Region(box, self.layout.boxes(*self.layout.ends(sign)))
        batch = Batch(part["case"], region, self.layout.sides(sign))
        warm = multipliers.rows(chosen)
        rows = self.places[part["case"]]
        evaluation = evaluate(self.problem, self.arithmetic, batch, self.effort, warm, rows)
        for i in np.flatnonzero(evaluation.refuted):
            if self.tree.record:
                self.tree.note(int(nodes[chosen[i]]), warm.rows(i), rows[i])
            refuted[chosen[i]] = True
        self.tree.close_all(nodes[refuted])
        return refuted

    def _candidates(
        self, items: Columns, found: Ascended, left: np.ndarray, row: np.ndarray, margin: np.ndarray
    ) -> Witness | None:
        """The points at which the worst bounds are attained; now and then a descent from many of them."""
        worst = left[np.argsort(margin[left])]
        points = self._points(found, worst[: DESCENT.restarts], row)
        for i, point in zip(worst[:CANDIDATES], points, strict=False):
            witness = try_points(self.problem, int(items["case"][i]), point[None], self.replay, most=1)
            if witness is not None:
                return witness
        if self.rounds % DESCENT_EVERY != 1:
            return None
        case = int(items["case"][worst[0]])
        same = items["case"][worst[: DESCENT.restarts]] == case
        goal = (self.problem, self.arithmetic, case, points[same], self.replay)
        return descend(*goal, DESCENT, self.deadline)

    def _points(self, found: Ascended, chosen: np.ndarray, row: np.ndarray) -> np.ndarray:
        """Where the bounds of the chosen ones' rows are attained, `(N, n)`, inside of the box."""
        points = to_numpy(found.primal[0][chosen, row[chosen]]).astype(np.float64)
        return np.clip(points, *(to_numpy(end) for end in (self.box.lower, self.box.upper)))

    def _split(
        self, items: Columns, found: Ascended, left: np.ndarray, row: np.ndarray, margin: np.ndarray
    ) -> None:
        """Pushes both children of each subproblem that has an unstable neuron."""
        scores = to_numpy(self._scores(items, found, left, row))
        neuron, margins = self._look_ahead(items, left, scores, margin[left])
        stable = scores[np.arange(len(left)), neuron] < 0
        self.rest += [self._single(items, int(i)) for i in left[stable]]
        parents = {name: column[left[~stable]] for name, column in items.items()}
        children = [self._children(parents, neuron[~stable], upper) for upper in (False, True)]
        both = {name: np.concatenate([c[name] for c in children]) for name in parents}
        both["margin"] = np.concatenate([m[~stable] for m in margins])
        order = np.argsort(-both["margin"], kind="stable")
        self.pool.push({name: column[order] for name, column in both.items()})

    def _look_ahead(
        self, items: Columns, left: np.ndarray, scores: np.ndarray, margin: np.ndarray
    ) -> tuple[np.ndarray, list[np.ndarray]]:
        """Of the neurons with the best scores the one that raises its children's margins most, and those.

        With the parent's multipliers; what counts is the better child, the other one breaks ties, as a child
        that is closed at once is worth more than two that are nearly.
        """
        count = min(AHEAD, scores.shape[1])
        tried = np.argpartition(-scores, count - 1, axis=1)[:, :count]
        parents = {name: np.repeat(column[left], count, axis=0) for name, column in items.items()}
        margins, gains = [], []
        for upper in (False, True):
            values = self._values(self.layout.children(parents, tried.reshape(-1), upper))
            margins.append(np.maximum(np.nan_to_num(values.reshape(tried.shape)), margin[:, None]))
            gains.append(np.minimum(margins[-1], 0.0) - margin[:, None])
        merit = np.maximum(*gains) + SECOND * np.minimum(*gains)
        best = np.where(np.take_along_axis(scores, tried, axis=1) >= 0, merit, -np.inf).argmax(axis=1)
        entry = np.arange(len(left))
        return tried[entry, best], [m[entry, best] for m in margins]

    def _values(self, items: Columns) -> np.ndarray:
        """Margins with the multipliers as they are, by proposals."""
        found = []
        for part in slices(len(items["node"]), self.most):
            some = {name: column[part] for name, column in items.items()}
            ascent, multipliers = self._relaxed(some)
            margins = to_numpy(ascent.values(multipliers)) - self.bounds[some["case"]]
            found.append(margins.max(axis=1))
        return np.concatenate(found)

    def _children(self, parents: Columns, neuron: np.ndarray, upper: bool) -> Columns:
        child = self.layout.children(parents, neuron, upper)
        child["node"] = self.tree.children(parents["node"], **self.layout.tree_columns(neuron, upper))
        return child

    def _single(self, items: Columns, i: int) -> Subproblem:
        lower, upper = (to_numpy(end)[0] for end in (self.box.lower, self.box.upper))
        item = self.layout.single(items, i, self.tree.path(int(items["node"][i])))
        return replace(item, lower=lower, upper=upper)

    def _scores(self, items: Columns, found: Ascended, left: np.ndarray, row: np.ndarray) -> Array:
        """What each neuron's lines lose at the point where the worst row's bound is attained; -1: stable."""
        layout = self.layout
        chosen = (left, row[left])
        a = layout.joined({k: found.coefficients[k][chosen] for k in layout.relus}, layout.relus)
        z = layout.joined({v: found.primal[v][chosen] for v in layout.values}, layout.values)
        alpha = layout.joined({k: found.multipliers.alpha[k][chosen] for k in layout.relus}, layout.relus)
        low, high = layout.ends(self.arithmetic.place(items["sign"][left]))
        return scores(a, z, alpha, low, high)


def scores(a: Array, z: Array, alpha: Array, low: Array, high: Array) -> Array:
    """Branching scores of neurons from coefficients on their results, all `(B, neurons)`."""
    xp = namespace(a)
    unstable = (low < 0) & (high > 0)
    width = xp.where(unstable, high - low, xp.ones_like(low))
    upper = high * (z - low) / width
    rectified = xp.clip(z, 0.0, None)
    gap = xp.where(a < 0, -a * (upper - rectified), a * (rectified - alpha * z))
    intercept = -low * high / width
    fallback = xp.where(a < 0, -a * intercept, a * 0.5 * xp.minimum(-low, high)) + 1e-9 * intercept
    return xp.where(unstable, gap + SHARE * fallback, -xp.ones_like(gap))
