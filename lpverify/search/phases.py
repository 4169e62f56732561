"""Branch and bound over ReLU phases with linear programs, to the exact minimum of a linear cost.

Accepts: the phase program of one region.
Method: the dual simplex goes on from the parent's basis, because a phase changes ends alone; depth first from
the best open node. A ReLU whose result is right at the optimum of the relaxation is never split. Which of the
others to split is told by pseudo-costs, made reliable by solving both children for the first few times
(Achterberg et al. 2005, doi:10.1016/j.orl.2004.04.002). A phase that the node's own multipliers with one more
refute is fixed at once (`search.fixing`). Workers take nodes from a common heap.
Guarantee: every bound is that of `bounds.safe` from a node's multipliers; minima of the solver are proposals.
"""

import heapq
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from lpverify.bounds.phases import PhaseProgram
from lpverify.bounds.safe import SafeBound, safe_bound, transposed
from lpverify.config import Deadline
from lpverify.errors import SolverError
from lpverify.programs import LinearProgram
from lpverify.proof import PhaseTree
from lpverify.search.fixing import Fixing
from lpverify.search.pseudocosts import RIGHT, PseudoCosts
from lpverify.solvers.highs_session import Basis, HighsSession

TRIED = 6  # neurons whose children are solved at one node, at most
DESCENTS = 4  # from one piece of the network to a better one, at one node
ROUNDS = 3  # of fixing phases and solving again at one node


@dataclass
class _Node:
    """An open node: its phases, a proven bound, and where the simplex goes on."""

    signs: np.ndarray
    bound: float
    index: int
    depth: int = 0
    basis: Basis | None = None


@dataclass
class _Solved:
    """A node's relaxation: a proven bound with its multipliers, and the claimed optimum."""

    bound: float
    multipliers: np.ndarray
    reduced: np.ndarray
    primal: np.ndarray | None


@dataclass
class PhaseSearch:
    """The state of one run.

    Attributes:
        program: With its cost.
        constant: Added to the cost.
        target: Nodes whose bound is above are closed.
        candidate: Given the inputs of a relaxation's optimum, their true cost, and the phases `(p,)` there.
        gap: Nodes within so much of the best point are closed, too; infinite: none is.
        tree: Filled with the proof, if given.
        nodes: How many were bounded.
        best: Cost of the best point.
        volume: About how much of the tree is closed: a child has half the weight of its parent.
        stuck: Nodes that can be neither closed nor split.
    """

    program: PhaseProgram
    constant: float
    target: float
    candidate: Callable[[np.ndarray], tuple[float, np.ndarray]]
    gap: float = float("inf")
    tree: PhaseTree | None = None
    nodes: int = 0
    best: float = float("inf")
    volume: float = 0.0
    stuck: int = 0
    _heap: list[tuple[float, int, _Node]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._costs = PseudoCosts.of(len(self.program.node))
        self._fixing, self._by = Fixing.of(self.program), transposed(self.program.lp.matrix)
        self._lock = threading.Lock()
        self._busy = self._serial = 0
        self._closed = float("inf")
        self._failures: list[BaseException] = []
        self._sessions: list[_Session] = []
        self._push(_Node(np.zeros(len(self.program.node), np.int8), float("-inf"), 0))

    @property
    def lower(self) -> float:
        """A proven lower bound of the minimum over the region."""
        return min([self._closed, *(bound for bound, _, _ in self._heap)])

    @property
    def finished(self) -> bool:
        """Whether all nodes are closed."""
        return not self._heap and not self.stuck

    @property
    def open(self) -> int:
        """How many nodes are not."""
        return len(self._heap) + self.stuck

    def run(self, deadline: Deadline, threads: int = 1, enough: Callable[[], bool] = lambda: False) -> None:
        """Works until no node is open, or the deadline, or `enough`; may be called again.

        Raises:
            Exception: What a worker raised; nothing is proven then.
        """
        try:
            while len(self._sessions) < threads:  # kept: a solve that a turn cut off goes on in the next
                self._sessions.append(_Session(self.program))
        except SolverError:  # numbers beyond the solver: nothing can be decided
            self._closed = min(self._closed, self.lower)
            self.stuck += len(self._heap)
            self._heap.clear()
            return
        arguments = [(session, deadline, enough) for session in self._sessions[:threads]]
        workers = [threading.Thread(target=self._work, args=a) for a in arguments[1:]]
        started = [worker for worker in workers if _started(worker)]
        self._work(*arguments[0])
        for worker in started:
            worker.join()
        if self._failures:
            raise self._failures[0]
        if self.finished:
            self._sessions.clear()

    # Workers

    def _work(self, session: "_Session", deadline: Deadline, enough: Callable[[], bool]) -> None:
        """Never raises: a worker that went silently would leave its node out of the proof."""
        try:
            while not (deadline.passed or enough() or self._failures):
                node = self._take()
                if node is not None:
                    self._dive(session, node, deadline, enough)
                elif self._busy:
                    threading.Event().wait(0.001)
                else:
                    return
        except BaseException as error:  # noqa: BLE001  (of a thread; `run` raises it)
            self._failures.append(error)

    def _dive(
        self, session: "_Session", node: _Node | None, deadline: Deadline, enough: Callable[[], bool]
    ) -> None:
        """From a node down to where it is closed; the other children go to the heap."""
        try:
            while node is not None:
                if deadline.passed or enough():
                    self._push(node)
                    break
                node = self._handle(session, node, deadline)
        finally:
            with self._lock:
                self._busy -= 1

    def _take(self) -> _Node | None:
        with self._lock:
            if not self._heap:
                return None
            node = heapq.heappop(self._heap)[2]
            self._busy += 1
            return node

    def _push(self, node: _Node) -> None:
        with self._lock:
            self._serial += 1
            heapq.heappush(self._heap, (node.bound, self._serial, node))

    def _limit(self) -> float:
        """Bounds above this close a node."""
        return max(self.target, self.best - self.gap)

    def _close(self, index: int, depth: int, bound: float, multipliers: np.ndarray) -> None:
        with self._lock:
            self._closed = min(self._closed, bound)
            self.volume += 0.5**depth
            if self.tree is not None:
                self.tree.close(index, multipliers)

    def _child(self, node: _Node, neuron: int, sign: int) -> _Node:
        """The node with one more phase."""
        signs = node.signs.copy()
        signs[neuron] = sign
        with self._lock:
            index = 0 if self.tree is None else self.tree.add(node.index, neuron, sign)
        return _Node(signs, node.bound, index, node.depth + 1, node.basis)

    # Nodes

    def _handle(self, session: "_Session", node: _Node, deadline: Deadline) -> _Node | None:
        """Bounds a node and closes or splits it; returns the child to go on with."""
        self.nodes += 1
        session.restore(node.basis)
        for left in reversed(range(ROUNDS)):
            solved = self._solve(session, node, deadline)
            if solved.bound > self._limit():
                self._close(node.index, node.depth, solved.bound, solved.multipliers)
                return None
            if solved.primal is None:
                self._leave(node, deadline)
                return None
            self._try_point(session, solved.primal, deadline)
            if solved.bound > self._limit():
                self._close(node.index, node.depth, solved.bound, solved.multipliers)
                return None
            fixed = self._fix(node, solved) if left else node  # the last solve is of the node as it is split
            if fixed is node:
                break
            node = fixed
        node.bound, node.basis = solved.bound, session.basis()
        return self._split(session, node, solved, deadline)

    def _try_point(self, session: "_Session", columns: np.ndarray, deadline: Deadline) -> None:
        """The cost of a point; of better ones also the best of the piece of the network that they lie on."""
        for _ in range(DESCENTS):
            value, signs = self.candidate(columns[: self.program.inputs])
            if not value < self.best:
                return
            self.best = value
            basis = session.basis()
            primal, _ = session.solve(signs, deadline.remaining, None)
            session.restore(basis)
            if primal is None:
                return
            columns = primal

    def _solve(self, session: "_Session", node: _Node, deadline: Deadline) -> _Solved:
        limit = self._limit() - self.constant
        primal, duals = session.solve(node.signs, deadline.remaining, limit if np.isfinite(limit) else None)
        lp = session.lp
        if duals is None:
            return _Solved(node.bound, np.zeros(len(lp.row_lower)), np.zeros(len(lp.cost)), primal)
        found = self._safe(lp, duals)
        if primal is None and self._safe(lp, duals, np.zeros(len(lp.cost))).value > 0:
            return _Solved(float("inf"), duals, found.reduced, None)
        bound = np.nextafter(found.value + self.constant, -np.inf)
        if self.tree is None:
            bound = max(bound, node.bound)
        return _Solved(float(bound), found.multipliers, found.reduced, primal)

    def _safe(self, lp: LinearProgram, multipliers: np.ndarray, cost: np.ndarray | None = None) -> SafeBound:
        return safe_bound(lp, multipliers, cost, self._by)

    def _leave(self, node: _Node, deadline: Deadline) -> None:
        """A node that can't be split: time is over, or the solver or rounding is in the way."""
        if deadline.passed:
            self._push(node)
            return
        with self._lock:
            self._closed = min(self._closed, node.bound)
            self.stuck += 1

    def _fix(self, node: _Node, solved: _Solved) -> _Node:
        """The node with all phases that its multipliers and one more settle; itself if there are none."""
        missing = self._limit() - solved.bound
        found = self._fixing.refutable(node.signs, solved.multipliers, solved.reduced, missing)
        for neuron, sign, multipliers in found:
            signs = node.signs.copy()
            signs[neuron] = sign
            bound = self._safe(self.program.fixed(signs), multipliers).value + self.constant
            bound = np.nextafter(bound, -np.inf)
            if bound > self._limit():
                other = self._child(node, neuron, sign)
                self._close(other.index, other.depth, bound, multipliers)
                node = self._child(node, neuron, -sign)
        return node

    def _split(self, session: "_Session", node: _Node, solved: _Solved, deadline: Deadline) -> _Node | None:
        """Splits at the best neuron; the child on the optimum's side is gone on with."""
        assert solved.primal is not None
        operand, result = (solved.primal[c] for c in (self.program.operand, self.program.result))
        wrong = np.where(node.signs == 0, np.abs(result - np.maximum(operand, 0.0)), 0.0)
        if not (wrong > RIGHT).any():  # right up to tolerance: any split will do
            wrong = np.where(node.signs == 0, 2 * RIGHT, 0.0)
            if not wrong.any():
                self._leave(node, deadline)
                return None
        neuron = self._choose(session, node, wrong, deadline)
        if deadline.passed:
            self._leave(node, deadline)
            return None
        children = [self._child(node, neuron, sign) for sign in (1, -1)]
        first = int(operand[neuron] < 0)
        self._push(children[1 - first])
        session.restore(node.basis)
        return children[first]

    def _choose(self, session: "_Session", node: _Node, wrong: np.ndarray, deadline: Deadline) -> int:
        scores = self._costs.scores(wrong)
        order = [int(j) for j in np.argsort(-scores, kind="stable")[:TRIED] if wrong[j] > 0]
        best, chosen = -1.0, order[0]
        for neuron in order:
            score = float(scores[neuron])
            if not self._costs.reliable(neuron):
                score = self._try(session, node, neuron, float(wrong[neuron]), deadline)
            if score > best:
                best, chosen = score, neuron
            if deadline.passed:
                break
        return chosen

    def _try(self, session: "_Session", node: _Node, neuron: int, wrong: float, deadline: Deadline) -> float:
        """Solves both children; the product of the rises of the bound."""
        product = 1.0
        for side, sign in enumerate((1, -1)):
            signs = node.signs.copy()
            signs[neuron] = sign
            session.restore(node.basis)
            child = self._solve(session, _Node(signs, node.bound, 0), deadline)
            rise = min(child.bound, self._limit() + 1.0) - node.bound
            self._costs.observe(side, neuron, rise, wrong)
            product *= max(rise, 1e-9)
        return product


def _started(worker: threading.Thread) -> bool:
    """Starts a thread; False if the system has none left, and the others do its work."""
    try:
        worker.start()
    except RuntimeError:
        return False
    return True


class _Session:
    """A worker's hot program."""

    def __init__(self, program: PhaseProgram) -> None:
        self.program, self.lp = program, program.lp
        self.session = HighsSession(program.lp)
        self.touched = np.unique(np.concatenate([program.operand, program.result]))

    def restore(self, basis: Basis | None) -> None:
        """Back to a basis, where there is one."""
        if basis is not None:
            self.session.restore(basis)

    def basis(self) -> Basis | None:
        """The present basis."""
        return self.session.basis()

    def solve(
        self, signs: np.ndarray, seconds: float, cutoff: float | None
    ) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Primal and dual values of the relaxation under phases, None where the solver has none."""
        self.lp = lp = self.program.fixed(signs)
        switch = self.program.switch
        self.session.set_columns(self.touched, lp.lower[self.touched], lp.upper[self.touched])
        self.session.set_rows(switch, *(end[switch] for end in lp.row_ends))
        try:
            answer = self.session.solve(seconds, cutoff)
        except SolverError:
            return None, None
        return answer.primal, answer.row_dual
