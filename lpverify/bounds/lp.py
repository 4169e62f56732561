"""Bounds by linear programming: rows over a value, and boxes of all values (OBBT).

Accepts: one region, NumPy float64.
Method: the program of `bounds.triangle`, minimised for each row; for OBBT each operand of a nonlinear node is
minimised and maximised over the program of what comes before it, then its box and all lines behind it get
tighter (Ehlers 2017, arXiv:1705.01320; Tjeng et al. 2019, arXiv:1711.07356, section 4.2).
Guarantee: each bound is `bounds.safe` of the multipliers; a solver's failure or limit leaves what is known.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lpverify.bounds.frame import Frame
from lpverify.bounds.lines import open_elements
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.safe import safe_bound
from lpverify.bounds.triangle import RegionProgram, triangle
from lpverify.config import Deadline
from lpverify.errors import SolverError
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.ops.base import BilinearOp, ElementwiseOp
from lpverify.solvers.base import LinearProgram, LpAnswer, LpBackend
from lpverify.solvers.highs import Highs
from lpverify.solvers.highs_session import HighsSession


@dataclass(frozen=True)
class RowBounds:
    """Bounds of rows.

    Attributes:
        lower: Proven, `(R,)`; minus infinity where nothing is.
        claimed: What the solver says, `(R,)`; NaN where it says nothing.
    """

    lower: np.ndarray
    claimed: np.ndarray


CostBound = Callable[[np.ndarray, float], tuple[float, float]]  # cost, seconds: proven bound, claim


class _Solves:
    """Solves a program again and again for other costs; HiGHS goes on from the last basis."""

    def __init__(self, lp: LinearProgram, backend: LpBackend) -> None:
        self.lp, self.backend = lp, backend
        self.session = HighsSession(lp) if isinstance(backend, Highs) else None

    def solve(self, cost: np.ndarray, seconds: float) -> LpAnswer | None:
        """The answer, or None if the solver fails."""
        try:
            if self.session is None:
                return self.backend.solve(replace(self.lp, cost=cost), seconds)
            self.session.set_cost(np.arange(len(cost)), cost)
            return self.session.solve(seconds, primal_simplex=True)
        except SolverError:
            return None


@np.errstate(over="ignore", invalid="ignore")  # of what solvers claim
def rows_by(
    make: Callable[[], CostBound], program: RegionProgram, value: int, rows: np.ndarray, deadline: Deadline
) -> RowBounds:
    """Lower bounds of rows over a value, one cost after the other.

    Args:
        make: Gives what bounds a cost on the program's columns; called if there are any columns.
        program: Of a region, made at least up to that value.
        value: Which.
        rows: `(R, size of the value)`.
        deadline: Rows that are not reached get no bound.
    """
    costs, constants = program.objective(value, rows)
    lower, claimed = np.full(len(rows), -np.inf), np.full(len(rows), np.nan)
    if len(program.program.cost) == 0:
        return RowBounds(lower, claimed)
    bound = make()
    for i, cost in enumerate(costs):
        if deadline.passed:
            break
        proven, claim = bound(cost, deadline.remaining)
        lower[i] = np.fmax(-np.inf, np.nextafter(proven + constants[i], -np.inf))
        claimed[i] = claim + constants[i]
    return RowBounds(lower, claimed)


def lp_rows(
    program: RegionProgram, value: int, rows: np.ndarray, backend: LpBackend, deadline: Deadline
) -> RowBounds:
    """Lower bounds of rows by linear programs; arguments as `rows_by`, and the solver of the programs."""
    return rows_by(lambda: _bounds_of(program.program, backend), program, value, rows, deadline)


def _bounds_of(lp: LinearProgram, backend: LpBackend) -> CostBound:
    """Bounds costs over the program; by nothing where its numbers are beyond the solver."""
    try:
        solves = _Solves(lp, backend)
    except SolverError:
        return lambda cost, seconds: (float("-inf"), float("nan"))

    def bound(cost: np.ndarray, seconds: float) -> tuple[float, float]:
        answer = solves.solve(cost, seconds)
        if answer is None:
            return float("-inf"), float("nan")
        claim = float("nan") if answer.primal is None else float(cost @ answer.primal)
        duals = np.zeros(len(lp.row_lower)) if answer.row_dual is None else answer.row_dual
        return safe_bound(lp, duals, cost).value, claim

    return bound


def obbt(region: Region, frame: Frame, backend: LpBackend, deadline: Deadline) -> Frame:
    """Tightens the boxes of all operands of nonlinear nodes by two programs an element, in order.

    Args:
        region: A batch of one.
        frame: Its boxes so far.
        backend: Solves the programs.
        deadline: What is not reached keeps its box.

    Returns:
        A frame at least as tight.
    """
    known: dict[int, Box] = dict(enumerate(frame.boxes))
    for k in sorted(frame.network.refinable):
        if deadline.passed:
            break
        some = _worth(frame, k)
        if not len(some):
            continue
        known[k] = _tighter(triangle(frame, k), k, some, backend, deadline)
        frame = propagate(frame.network, replace(region, known=known), Effort("crown"), 2**22)
        known = dict(enumerate(frame.boxes))
    return frame


def _worth(frame: Frame, k: int) -> np.ndarray:
    """Elements of a value on which some nonlinear consumer bends, the widest first."""
    box = frame.boxes[k]
    mask = np.zeros(box.lower.shape, bool)
    for j, node in enumerate(frame.network.nodes):
        if isinstance(node.op, ElementwiseOp) and node.inputs[0] == k:
            mask |= open_elements(frame, j)
        elif isinstance(node.op, BilinearOp) and k in node.inputs:
            mask |= box.lower < box.upper
    some = np.flatnonzero(mask)
    width = (box.upper - box.lower).reshape(-1)[some]
    return some[np.argsort(-width, kind="stable")]


def _tighter(program: RegionProgram, k: int, some: np.ndarray, backend: LpBackend, deadline: Deadline) -> Box:
    """The box of a value after two programs for each of some elements."""
    box = program.frame.boxes[k]
    low, high = box.lower.reshape(-1).copy(), box.upper.reshape(-1).copy()
    unit = np.zeros((2 * len(some), len(low)))
    unit[2 * np.arange(len(some)), some] = 1.0
    unit[2 * np.arange(len(some)) + 1, some] = -1.0
    found = lp_rows(program, k, unit, backend, deadline).lower
    low[some] = np.maximum(low[some], found[0::2])
    high[some] = np.minimum(high[some], -found[1::2])
    crossed = low > high  # by rounding alone; the region is not empty
    low[crossed], high[crossed] = (end.reshape(-1)[crossed] for end in (box.lower, box.upper))
    return Box(low.reshape(box.lower.shape), high.reshape(box.lower.shape))
