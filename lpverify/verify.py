"""One query end to end: the ladder from cheap to complete, and its deadline."""

import time
from collections.abc import Callable, Iterator, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace

import numpy as np

from lpverify.bounds.evaluate import (
    Arithmetic,
    Batch,
    Evaluation,
    double_precision,
    evaluate,
    slices,
    to_numpy,
)
from lpverify.bounds.propagate import Region
from lpverify.bounds.reduce import Reduced, reduce
from lpverify.bounds.subproblem import Subproblem, inherit
from lpverify.compiling import compile_query
from lpverify.config import Config
from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.io.onnx import Model
from lpverify.multipliers import Effort, Schedule
from lpverify.ops.smooth import FAN
from lpverify.problem import Problem
from lpverify.proof import Leaf, Proof
from lpverify.query import Query
from lpverify.replay import Replayer
from lpverify.search.attack import AttackPlan, first_candidates, gradient_attack, try_points
from lpverify.search.bab import Search
from lpverify.search.branching import worst_row
from lpverify.search.dense import DenseSearch
from lpverify.search.engines import (
    LONG_ASCENT,
    ROOT_ASCENT,
    ROOT_SHARE,
    DenseEngine,
    bounding_effort,
    choose_arithmetic,
    choose_engine,
    dense_engines,
    few_inputs,
    movable,
    rectifying,
    reducible,
    reduction_effort,
    shallow,
    suits_programs,
    torch_device,
    torch_float32,
    usable_cores,
)
from lpverify.search.lp import LpSearch
from lpverify.search.milp import MilpSearch
from lpverify.search.portfolio import Contestant, compete
from lpverify.search.reduced import ReducedSearch
from lpverify.search.tree import Tree
from lpverify.solvers.highs import Highs
from lpverify.verdict import Progress, Sat, Timeout, Unknown, Unsat, Verdict, Witness

Report = Callable[[Progress], None]
CANDIDATE_CASES = 64
UNBOUNDED_SECONDS = 5.0  # of the search where inputs have no bounds
SWEPT_ELEMENTS = 4_000_000  # of all values, in all cases that are bounded together
FIRST_SECONDS = (
    0.5  # of branch and bound by the kernel before the gradient attack; of that before slow bounds
)
SEARCH_COEFFICIENTS = 2**22  # of one backward pass through a reduced network, held at a time
ATTACKED_ELEMENTS = 200_000_000  # of all values, in all points of a gradient attack together


def verify_query(
    model: Model, query: Query, config: Config, report: Report = lambda progress: None
) -> Verdict:
    """Decides a query.

    Args:
        model: The network.
        query: Describes the violation: `sat` means that it exists.
        config: Limits and settings; the wall clock runs against `config.deadline`.
        report: Called with the progress, often.

    Raises:
        InputError: Query and network do not fit.
        UnsupportedError: Something in them can't be treated, or there is no such device.
    """
    if config.device == "cuda":
        torch_device(config)
    problem = compile_query(model, query)
    if problem.unbounded:
        return _unbounded(problem, Replayer(model, problem), config, report)
    if not problem.cases:
        return Unsat(Proof(0, (), config.record_proof), Progress(stage="the input set is empty"))
    return _Ladder(problem, Replayer(model, problem), config, report).climb()


def _unbounded(problem: Problem, replay: Replayer, config: Config, report: Report) -> Verdict:
    """Looks for a counterexample in a part of the set; without bounds there is no proof."""
    if problem.cases:
        within = replace(config, deadline=config.deadline.within(UNBOUNDED_SECONDS))
        verdict = _Ladder(problem, replay, within, report).climb()
        if isinstance(verdict, Sat):
            return verdict
    names = ", ".join(problem.unbounded[:8]) + (" ..." if len(problem.unbounded) > 8 else "")
    reason = f"{len(problem.unbounded)} input(s) have no lower or no upper bound: {names}"
    return Unknown(reason, Progress(stage="unbounded inputs"))


@dataclass
class _Ladder:
    """The rungs share the problem, the tree and the replayer."""

    problem: Problem
    replay: Replayer
    config: Config
    report: Report

    def __post_init__(self) -> None:
        self.rng = np.random.default_rng(self.config.seed)
        self.tree = Tree(self.config.record_proof)
        self.threads = self.config.threads or usable_cores()
        self.roots = [
            Subproblem(self.tree.root(i), i, case.box.lower, case.box.upper)
            for i, case in enumerate(self.problem.cases)
        ]

    def climb(self) -> Verdict:
        if self.config.method != "auto" and not suits_programs(self.problem, self.roots):
            reason = "needs a ReLU network of moderate size and conditions with few alternatives"
            raise UnsupportedError(f"method {self.config.method} {reason}")
        witness = self._points()
        if witness is not None:
            return Sat(witness, Progress(stage="candidate points"))
        cheap = double_precision(self.problem)
        verdict = self._sweep(cheap, Effort("ibp"), "interval bounds")
        if verdict is not None:
            return verdict
        if self.config.method != "auto":
            return self._programs()
        few = few_inputs(self.problem, self.config)
        dense = dense_engines(self.problem, self.config) if few else ()
        if dense:
            return self._dense_search(dense[0])
        arithmetic = choose_arithmetic(self.problem, self.config)
        if reducible(self.problem, self.roots):
            return self._by_reduction(arithmetic)
        return self._by_bounds(arithmetic, few)

    def _by_bounds(self, arithmetic: Arithmetic, few: bool) -> Verdict:
        """Linear bounds of the whole network, and the searches that start from them."""
        effort = bounding_effort(self.problem, self.config, ROOT_SHARE)
        verdict = self._sweep(arithmetic, effort, "linear bounds")
        if verdict is not None:
            return verdict
        witness = self._attack(arithmetic)
        if witness is not None:
            return Sat(witness, self._progress("attack"))
        if effort.method == "crown" and self._ascends(few):
            verdict = self._ascend(arithmetic, effort)
            if verdict is not None:
                return verdict
        return compete(self._contestants(arithmetic, few), self.config.deadline)

    def _by_reduction(self, arithmetic: Arithmetic) -> Verdict:
        """The only root's reduced network; without a verdict again, from optimised boxes, and searched."""
        witness = None if arithmetic.like.dtype.itemsize == 8 else self._attack(arithmetic, FIRST_SECONDS)
        if witness is not None:  # before bounds that take seconds
            return Sat(witness, self._progress("attack"))
        plain = reduction_effort(self.config, 0)
        reduced = reduce(self.problem, arithmetic, self._root_box(arithmetic), plain)
        if reduced is None:
            return self._by_bounds(arithmetic, few_inputs(self.problem, self.config))
        search = self._reduced_search(reduced, (plain,))
        verdict = search.run(self.config.deadline, rounds=1)
        if not isinstance(verdict, Timeout):
            return verdict
        witness = self._attack(arithmetic)
        if witness is not None:
            return Sat(witness, self._progress("attack"))
        return compete(self._reduced_contestants(reduced, plain), self.config.deadline)

    def _root_box(self, arithmetic: Arithmetic) -> Box:
        return arithmetic.box(self.roots[0].lower[None], self.roots[0].upper[None])

    def _reduced_search(self, reduced: Reduced, efforts: tuple[Effort, ...]) -> ReducedSearch:
        tree = self._reduced_tree(efforts)
        return ReducedSearch(self.problem, self.roots[0], reduced, self.replay, tree, Highs(), self.report)

    def _reduced_tree(self, efforts: tuple[Effort, ...]) -> Tree:
        """A copy of the tree in which the root starts from the boxes of reductions."""
        tree = deepcopy(self.tree)
        tree.bounded(self.roots[0].node, Effort("ibp"), False)
        tree.reductions[self.roots[0].case] = efforts
        return tree

    def _reduced_contestants(self, plain: Reduced, first: Effort) -> Iterator[Contestant]:
        """The searches that start from optimised boxes; the first ones from what is known already."""
        arithmetic = torch_float32(self.problem, SEARCH_COEFFICIENTS, torch_device(self.config))
        boxes = {
            k: Box(*map(arithmetic.place, map(to_numpy, (b.lower, b.upper)))) for k, b in plain.boxes.items()
        }
        efforts = (first, reduction_effort(self.config, ROOT_ASCENT))
        reduced = reduce(self.problem, arithmetic, self._root_box(arithmetic), efforts[1], boxes)
        if reduced is None:  # undefined numbers in single precision
            yield from self._contestants(arithmetic, False)
            return
        yield self._reduced_search(reduced, efforts)
        if suits_programs(self.problem, self.roots) and not reduced.empty:
            known = {k: (to_numpy(b.lower)[0], to_numpy(b.upper)[0]) for k, b in reduced.boxes.items()}
            roots = [replace(self.roots[0], known=known)]
            tree = self._reduced_tree(efforts)
            yield LpSearch(self.problem, self.replay, tree, roots, self.threads, self.report)

    def _ascends(self, few: bool) -> bool:
        """Whether optimising the boxes of all values pays: where inputs are split they get small anyway."""
        network = self.problem.network
        if rectifying(network):
            return not shallow(self.problem)
        return movable(network) and not few

    def _ascend(self, arithmetic: Arithmetic, effort: Effort) -> Verdict | None:
        """Optimises the boxes of all values.

        Smooth networks get more steps if the first were quick: splits of their neurons help little.
        """
        start, stage = time.monotonic(), "optimised bounds"
        if rectifying(self.problem.network):
            return self._sweep(arithmetic, replace(effort, ascent=ROOT_ASCENT), stage)
        effort = replace(effort, schedule=Schedule(), ascent=ROOT_ASCENT)
        verdict = self._sweep(arithmetic, effort, stage)
        more = (time.monotonic() - start) * LONG_ASCENT / ROOT_ASCENT
        if verdict is not None or more > ROOT_SHARE * self.config.deadline.remaining:
            return verdict
        return self._sweep(arithmetic, replace(effort, ascent=LONG_ASCENT, budget=float("inf")), stage)

    def _progress(self, stage: str) -> Progress:
        margin = min((r.margin for r in self.roots), default=float("inf"))
        return Progress(self.tree.closed, len(self.roots), margin, stage)

    def _points(self) -> Witness | None:
        roots = self.roots[:CANDIDATE_CASES]
        for root in roots:
            if self.config.deadline.passed:
                return None
            witness = first_candidates(self.problem, root.case, self.replay, self.rng, len(roots))
            if witness is not None:
                return witness
        return None

    def _sweep(self, arithmetic: Arithmetic, effort: Effort, stage: str) -> Verdict | None:
        """Bounds all open cases once; None when some stay open."""
        remaining: list[Subproblem] = []
        neurons = sum(int(np.prod(n.shape)) for n in self.problem.network.nodes)
        fans = effort.ascent > 0 and not rectifying(self.problem.network)
        size = int(np.clip((SWEPT_ELEMENTS // FAN if fans else SWEPT_ELEMENTS) // max(neurons, 1), 1, 256))
        for part in slices(len(self.roots), size):
            items = self.roots[part]
            if self.config.deadline.passed:
                return Timeout(self._progress(stage))
            box = arithmetic.box(np.stack([s.lower for s in items]), np.stack([s.upper for s in items]))
            batch = Batch(np.array([s.case for s in items]), Region(box), {})
            evaluation = evaluate(self.problem, arithmetic, batch, effort)
            witness = self._corners(items, evaluation)
            if witness is not None:
                return Sat(witness, self._progress(stage))
            remaining += self._close(items, evaluation, arithmetic, effort)
            self.report(self._progress(stage))
        self.roots = remaining
        if not remaining:
            return Unsat(self.tree.proof(len(self.problem.cases)), self._progress(stage))
        return None

    def _close(
        self, items: Sequence[Subproblem], evaluation: Evaluation, arithmetic: Arithmetic, effort: Effort
    ) -> list[Subproblem]:
        """Closes what is refuted; what is not keeps its backward boxes, unless there are too many."""
        keep = effort != Effort("ibp") and len(self.roots) <= CANDIDATE_CASES
        remaining = []
        for i, item in enumerate(items):
            if evaluation.refuted[i]:
                self.tree.bounded(item.node, effort, False, anew=True)
                if self.tree.record and evaluation.multipliers is not None:
                    rows = tuple(int(r) for r in evaluation.rows[i])
                    self.tree.note(item.node, evaluation.multipliers.rows(i), rows)
                self.tree.close(item.node, Leaf())
            elif keep:
                self.tree.bounded(item.node, effort, False, anew=True)
                known = inherit(item, arithmetic.network, evaluation, i).known
                remaining.append(replace(item, known=known))
            else:
                remaining.append(item)
        return remaining

    def _corners(self, items: Sequence[Subproblem], evaluation: Evaluation) -> Witness | None:
        """Minimisers of the worst linear bounds, a few cases at a time."""
        corners = evaluation.linear.minimizer(evaluation.frame.boxes[0])
        for i in np.flatnonzero(~evaluation.refuted)[:CANDIDATE_CASES]:
            row = worst_row(self.problem, items[i], evaluation, i)
            point = to_numpy(corners[i, row]).astype(np.float64)[None]
            witness = try_points(self.problem, items[i].case, point, self.replay)
            if witness is not None:
                return witness
        return None

    def _attack(self, arithmetic: Arithmetic, seconds: float = float("inf")) -> Witness | None:
        """Gradient attacks within their share of the time, all open cases in turn."""
        share = self.config.attack_share * self.config.deadline.remaining
        end = self.config.deadline.within(min(share, seconds))
        elements = sum(int(np.prod(n.shape)) for n in self.problem.network.nodes)
        plan = AttackPlan(restarts=int(np.clip(ATTACKED_ELEMENTS // elements, 2, AttackPlan.restarts)))
        rounds = 2 if len(self.roots) < CANDIDATE_CASES else 1
        for _ in range(rounds):
            for root in self.roots:
                if end.passed:
                    return None
                witness = gradient_attack(
                    self.problem, arithmetic, root.case, self.replay, self.rng, plan, end
                )
                if witness is not None:
                    return witness
        return None

    def _dense(self, engine: DenseEngine, tree: Tree) -> DenseSearch:
        common = (self.problem, engine.kernel, engine.table, self.replay, tree, Highs())
        return DenseSearch(*common, self.threads, engine.plan, self.roots, self.report)

    def _dense_search(self, engine: DenseEngine) -> Verdict:
        """Branch and bound by the compiled kernel; after a while a gradient attack comes between."""
        search = self._dense(engine, self.tree)
        verdict = search.run(self.config.deadline.within(FIRST_SECONDS))
        if not isinstance(verdict, Timeout):
            return verdict
        witness = self._attack(double_precision(self.problem))
        return search.run(self.config.deadline) if witness is None else Sat(witness, search.progress())

    def _programs(self) -> Verdict:
        """Linear or mixed-integer programs alone, on boxes that were optimised."""
        effort = replace(bounding_effort(self.problem, self.config, ROOT_SHARE), ascent=ROOT_ASCENT)
        verdict = self._sweep(double_precision(self.problem), effort, "optimised bounds")
        if verdict is not None:
            return verdict
        kind = MilpSearch if self.config.method == "milp" else LpSearch
        search = kind(self.problem, self.replay, self.tree, list(self.roots), self.threads, self.report)
        return search.run(self.config.deadline)

    def _contestants(self, arithmetic: Arithmetic, few: bool) -> Iterator[Contestant]:
        """The searches that may be good at the problem, each with a tree of its own."""
        dense = () if few else dense_engines(self.problem, self.config)
        for engine in dense:
            yield self._dense(engine, deepcopy(self.tree))
        if few or not any(not engine.plan.inputs for engine in dense):
            general = choose_engine(self.problem, arithmetic, self.config)
            yield Search(self.problem, general, self.replay, deepcopy(self.tree), self.roots, self.report)
        if not few and suits_programs(self.problem, self.roots):
            tree, roots = deepcopy(self.tree), list(self.roots)
            yield LpSearch(self.problem, self.replay, tree, roots, self.threads, self.report)
