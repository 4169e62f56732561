"""HiGHS through highspy (Huangfu and Hall 2018): one program, one answer.

The helpers are shared with `highs_session`, which keeps a program hot.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from types import MappingProxyType
from typing import Any

import numpy as np

from lpverify.errors import SolverError
from lpverify.solvers.base import LinearProgram, LpAnswer, LpBackend, LpStatus

LEAST_SECONDS = 0.001

# Native model statuses by name, so that highspy is not imported to read them. Those left out (load, model,
# presolve, solve and postsolve errors, "unknown", "not set") are failures of the solver.
STATUSES: Mapping[str, LpStatus] = MappingProxyType(
    {
        "kOptimal": LpStatus.OPTIMAL,
        "kInfeasible": LpStatus.INFEASIBLE,
        "kUnbounded": LpStatus.UNBOUNDED,
        "kUnboundedOrInfeasible": LpStatus.LIMIT,
        "kObjectiveBound": LpStatus.LIMIT,
        "kObjectiveTarget": LpStatus.LIMIT,
        "kTimeLimit": LpStatus.LIMIT,
        "kIterationLimit": LpStatus.LIMIT,
        "kSolutionLimit": LpStatus.LIMIT,
        "kMemoryLimit": LpStatus.LIMIT,
        "kInterrupt": LpStatus.LIMIT,
        "kHighsInterrupt": LpStatus.LIMIT,
    }
)


@dataclass(frozen=True)
class HighsOptions:
    """How HiGHS works.

    Attributes:
        threads: Threads of the search of mixed-integer programs; linear programs are solved by one.
        presolve: None leaves linear programs as they are, so that limits leave duals behind, and reduces
            mixed-integer ones.
        cutoff: A claimed lower bound of this much is enough: the answer is LIMIT, for linear programs with
            the duals of that bound.
        target: A point of this cost is enough; for mixed-integer programs.
    """

    threads: int = 1
    presolve: bool | None = None
    cutoff: float = np.inf
    target: float = -np.inf


class Highs(LpBackend):
    """Dual simplex for linear programs, with a ray of infeasible ones; branch and cut for whole numbers."""

    name = "highs"
    whole_numbers = True

    def __init__(self, options: HighsOptions | None = None) -> None:
        self.options = HighsOptions() if options is None else options

    def solve(self, lp: LinearProgram, seconds: float) -> LpAnswer:
        """Solves within a time limit; see `LpBackend.solve`.

        Mixed-integer programs get no `row_dual`.
        """
        start = time.monotonic()
        require_numbers(lp)
        if len(lp.cost) == 0:
            return without_columns(lp)
        whole = lp.whole is not None and bool(np.any(lp.whole))
        presolve = whole if self.options.presolve is None else self.options.presolve
        solver = self._solver(lp, whole, presolve)
        limit_time(solver, seconds)
        status = run(solver)
        if status == "kUnboundedOrInfeasible" and presolve:  # only presolve leaves that open
            set_option(solver, "presolve", "off")
            limit_time(solver, seconds - (time.monotonic() - start))
            status = run(solver)
        answer = mixed_answer if whole else linear_answer
        return answer(solver, status, time.monotonic() - start)

    def _solver(self, lp: LinearProgram, whole: bool, presolve: bool) -> Any:
        """A solver that holds the program and the options."""
        solver = new_solver(self.options.threads, presolve)
        pass_model(solver, lp)
        if not whole:
            set_option(solver, "solver", "simplex")
            set_option(solver, "objective_bound", self.options.cutoff)
            return solver
        # `objective_bound` cuts off points of a mixed-integer program instead of ending it at a bound:
        # HiGHS 1.15 then claims optima that are none. Hence the callback.
        set_option(solver, "objective_target", self.options.target)
        if self.options.cutoff < np.inf:
            cutoff = self.options.cutoff

            def stop(event: Any) -> None:
                event.interrupt(bool(event.data_out.mip_dual_bound >= cutoff))

            solver.cbMipInterrupt.subscribe(stop)
        return solver


def require_numbers(lp: LinearProgram) -> None:
    """Refuses what solvers take for numbers without a word.

    Raises:
        SolverError: A cost or coefficient is not finite, or an end is NaN or an infinity on the wrong side.
    """
    entries = lp.matrix if isinstance(lp.matrix, np.ndarray) else lp.matrix.tocsr().data
    require_finite("cost", lp.cost)
    require_finite("coefficient", entries)
    require_ends("row", *lp.row_ends)
    require_ends("column", lp.lower, lp.upper)


def require_finite(what: str, values: np.ndarray) -> None:
    """Raises SolverError unless all values are finite."""
    if not np.isfinite(values).all():
        raise SolverError(f"a {what} of the program is not a finite number")


def require_ends(what: str, lower: np.ndarray, upper: np.ndarray) -> None:
    """Raises SolverError if an end is NaN, a lower one infinity or an upper one minus infinity."""
    if not ((lower < np.inf).all() and (upper > -np.inf).all()):
        raise SolverError(f"an end of a {what} of the program is not a number or the wrong infinity")


def without_columns(lp: LinearProgram) -> LpAnswer:
    """The answer to a program without columns, which many solvers refuse: each row is zero."""
    lower, upper = lp.row_ends
    signs = np.where(lower > 0, 1.0, np.where(upper < 0, -1.0, 0.0))
    if not signs.any():
        return LpAnswer(LpStatus.OPTIMAL, np.zeros(0), np.zeros(len(lower)), 0.0)
    return LpAnswer(LpStatus.INFEASIBLE, None, signs, 0.0)


def new_solver(threads: int, presolve: bool) -> Any:
    """A silent solver."""
    solver = _silent_class()()
    set_option(solver, "threads", threads)
    set_option(solver, "presolve", "on" if presolve else "off")
    return solver


@cache
def _silent_class() -> Any:
    """HiGHS from 1.16 on writes its name to stdout once callbacks are enabled, which making one does."""
    import highspy  # noqa: PLC0415  (slow to import, not every query needs it)

    class SilentHighs(highspy.Highs):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            set_option(self, "output_flag", False)

        def enableCallbacks(self) -> None:
            set_option(self, "output_flag", False)
            super().enableCallbacks()

    return SilentHighs


def set_option(solver: Any, name: str, value: Any) -> None:
    """Sets an option.

    Raises:
        SolverError: HiGHS has no such option or value.
    """
    require_success(solver.setOptionValue(name, value), f"option {name} = {value}")


def require_success(status: Any, what: str) -> None:
    """Raises SolverError if a call failed; warnings, such as of empty ranges, are no failures."""
    if status.name == "kError":
        raise SolverError(f"HiGHS: {what} failed")


def limit_time(solver: Any, seconds: float) -> None:
    """Limits the next run; HiGHS counts the time of all runs of the object."""
    set_option(solver, "time_limit", solver.getRunTime() + max(seconds, LEAST_SECONDS))


def run(solver: Any) -> str:
    """Runs the solver and names its model status.

    A thread's first run fixes the number of workers of all its runs, also those that other packages start
    through the same library; a run that wants another number fails at once. The workers are then let go.
    """
    import highspy  # noqa: PLC0415

    if solver.run().name == "kError" and solver.getModelStatus().name == "kNotset":
        highspy.Highs.resetGlobalScheduler(True)
        solver.run()
    return str(solver.getModelStatus().name)


def pass_model(solver: Any, lp: LinearProgram) -> None:
    """Hands over a program.

    Raises:
        SolverError: HiGHS refuses it.
    """
    import highspy  # noqa: PLC0415

    model = highspy.HighsLp()
    model.num_row_, model.num_col_ = lp.matrix.shape
    model.col_cost_, model.col_lower_, model.col_upper_ = lp.cost, lp.lower, lp.upper
    model.row_lower_, model.row_upper_ = lp.row_ends
    matrix = model.a_matrix_
    matrix.format_ = highspy.MatrixFormat.kRowwise
    matrix.start_, matrix.index_, matrix.value_ = by_rows(lp.matrix)
    if lp.whole is not None and lp.whole.any():
        kinds = highspy.HighsVarType.kContinuous, highspy.HighsVarType.kInteger
        model.integrality_ = [kinds[bool(flag)] for flag in lp.whole]
    require_success(solver.passModel(model), "the program")


def by_rows(matrix: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Starts `(m + 1,)`, columns and values of the entries of a dense or sparse matrix, row by row."""
    if isinstance(matrix, np.ndarray):
        mask = matrix != 0
        starts = np.concatenate([[0], np.cumsum(mask.sum(axis=1))])
        return starts.astype(np.int32), np.nonzero(mask)[1].astype(np.int32), matrix[mask].astype(np.float64)
    rows = matrix.tocsr()
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows.indptr.astype(np.int32), rows.indices.astype(np.int32), rows.data.astype(np.float64)


def linear_answer(solver: Any, status: str, seconds: float) -> LpAnswer:
    """What HiGHS claims of a linear program.

    Raises:
        SolverError: The status is a failure, or a claimed optimum has values that are no numbers.
    """
    claim = claimed(status)
    primal = dual = None
    if claim is LpStatus.INFEASIBLE:
        dual = _ray(solver)
    elif claim in (LpStatus.OPTIMAL, LpStatus.LIMIT):
        solution = solver.getSolution()
        primal = _numbers(solution.col_value) if solution.value_valid else None
        dual = _numbers(solution.row_dual) if solution.dual_valid else None
        if claim is LpStatus.OPTIMAL and (primal is None or dual is None):
            raise SolverError("HiGHS: an optimum without values")
    return LpAnswer(claim, primal, dual, seconds)


def mixed_answer(solver: Any, status: str, seconds: float) -> LpAnswer:
    """What HiGHS claims of a mixed-integer program: a point that keeps all rows, and a bound.

    Raises:
        SolverError: As `linear_answer`.
    """
    claim = claimed(status)
    primal = bound = None
    if claim in (LpStatus.OPTIMAL, LpStatus.LIMIT):
        info, solution = solver.getInfo(), solver.getSolution()
        feasible = solution.value_valid and info.primal_solution_status == FEASIBLE
        primal = _numbers(solution.col_value) if feasible else None
        bound = float(info.mip_dual_bound) if np.isfinite(info.mip_dual_bound) else None
        if claim is LpStatus.OPTIMAL and primal is None:
            raise SolverError("HiGHS: an optimum without values")
    return LpAnswer(claim, primal, None, seconds, bound)


FEASIBLE = 2  # kSolutionStatusFeasible


def claimed(status: str) -> LpStatus:
    """The claim of a native model status.

    Raises:
        SolverError: It is a failure or unknown.
    """
    if status not in STATUSES:
        raise SolverError(f"HiGHS: model status {status}")
    return STATUSES[status]


def _numbers(values: list[float]) -> np.ndarray | None:
    """The values as an array if all are finite."""
    array = np.array(values, dtype=np.float64)
    return array if np.isfinite(array).all() else None


def _ray(solver: Any) -> np.ndarray | None:
    """The dual ray with the signs of row multipliers, None if the solver has none."""
    status, present, ray = solver.getDualRay()
    if status.name == "kError" or not present:
        return None
    return _numbers(ray)
