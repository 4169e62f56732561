"""Linear, mixed-integer and semidefinite programs through CVXPY (Diamond and Boyd 2016) and its solvers.

CVXPY states a problem for each solver in the solver's own form and maps multipliers back, so that one class
serves all of them. Its solutions are taken apart here and not by `Problem.solve`, which warns of inaccurate
ones and raises where a solver has reached a limit.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from lpverify.errors import InputError, SolverError
from lpverify.solvers.base import (
    LinearProgram,
    LpAnswer,
    LpBackend,
    LpStatus,
    SdpAnswer,
    SdpBackend,
    SemidefiniteProgram,
)
from lpverify.solvers.highs import require_numbers, without_columns

# Where a solver takes its time limit in seconds: an option, or one in a dictionary of options. Solvers that
# are not here know no limit.
TIME_LIMITS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "CLARABEL": ("time_limit",),
        "COPT": ("TimeLimit",),
        "CPLEX": ("cplex_params", "timelimit"),
        "GLOP": ("time_limit_sec",),
        "GUROBI": ("TimeLimit",),
        "HIGHS": ("time_limit",),
        "MOSEK": ("mosek_params", "MSK_DPAR_OPTIMIZER_MAX_TIME"),
        "OSQP": ("time_limit",),
        "PDLP": ("time_limit_sec",),
        "SCIP": ("scip_params", "limits/time"),
        "SCIPY": ("scipy_options", "time_limit"),
        "SCS": ("time_limit_secs",),
    }
)

# Options that a solver gets unless the caller sets them. Clarabel that makes no more progress has values, to
# be judged by whoever checks them; CVXPY calls that a failure otherwise. OSQP prints when it polishes.
DEFAULTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"CLARABEL": {"accept_unknown": True}, "OSQP": {"polishing": False}}
)

# An inaccurate claim is none. What is left out, above all "solver_error", is a failure of the solver.
STATUSES: Mapping[str, LpStatus] = MappingProxyType(
    {
        "optimal": LpStatus.OPTIMAL,
        "optimal_inaccurate": LpStatus.LIMIT,
        "infeasible": LpStatus.INFEASIBLE,
        "infeasible_inaccurate": LpStatus.LIMIT,
        "unbounded": LpStatus.UNBOUNDED,
        "unbounded_inaccurate": LpStatus.LIMIT,
        "infeasible_or_unbounded": LpStatus.LIMIT,
        "user_limit": LpStatus.LIMIT,
    }
)


class CvxpyLp(LpBackend):
    """Linear programs by a solver that CVXPY reaches; mixed-integer ones where the solver can.

    Args:
        solver: The solver in CVXPY's name, in any case.
        options: The solver's own options, in CVXPY's names, tolerances for instance.

    Raises:
        InputError: The solver is not installed or solves no linear programs.
    """

    def __init__(self, solver: str = "HIGHS", options: Mapping[str, Any] | None = None) -> None:
        self.solver = require_solver(solver, lp_solvers())
        self.name = f"cvxpy:{self.solver}"
        self.whole_numbers = _conic_class(self.solver, "MIP_CAPABLE", False)
        self.options = dict(options or {})

    def solve(self, lp: LinearProgram, seconds: float) -> LpAnswer:
        """Solves within a time limit; see `LpBackend.solve`."""
        start = time.monotonic()
        require_numbers(lp)
        mixed = lp.whole is not None and bool(lp.whole.any())
        if mixed and not self.whole_numbers:
            raise SolverError(f"{self.name} can't treat whole numbers")
        if len(lp.cost) == 0:
            return without_columns(lp)
        if _crossed(lp):
            return LpAnswer(LpStatus.INFEASIBLE, None, None, time.monotonic() - start)
        model = _model(lp, ())
        outcome = _solve(model, self.solver, self.options, seconds)
        primal, row_dual = _values(model, outcome)
        spent = time.monotonic() - start
        if mixed:
            return LpAnswer(outcome.status, primal, None, spent, _claimed_bound(outcome))
        return LpAnswer(outcome.status, primal, row_dual, spent)


class CvxpySdp(SdpBackend):
    """Semidefinite programs by a solver that CVXPY reaches; arguments and errors as `CvxpyLp`."""

    def __init__(self, solver: str = "CLARABEL", options: Mapping[str, Any] | None = None) -> None:
        self.solver = require_solver(solver, sdp_solvers())
        self.name = f"cvxpy:{self.solver}"
        self.options = dict(options or {})

    def solve(self, sdp: SemidefiniteProgram, seconds: float) -> SdpAnswer:
        """Solves within a time limit; see `SdpBackend.solve`. A ray comes with multipliers of the blocks."""
        start = time.monotonic()
        require_numbers(sdp.linear)
        if sdp.linear.whole is not None and sdp.linear.whole.any():
            raise SolverError(f"{self.name} can't treat whole numbers")
        if _crossed(sdp.linear):
            return SdpAnswer(LpStatus.INFEASIBLE, None, None, None, time.monotonic() - start)
        model = _model(sdp.linear, sdp.blocks)
        outcome = _solve(model, self.solver, self.options, seconds)
        primal, row_dual = _values(model, outcome)
        block_duals = None if row_dual is None else _block_duals(model)
        if outcome.status is LpStatus.OPTIMAL and block_duals is None:
            raise SolverError(f"{self.name}: an optimum without multipliers")
        figures = _figures(outcome)
        return SdpAnswer(outcome.status, primal, row_dual, block_duals, time.monotonic() - start, figures)


def lp_solvers() -> list[str]:
    """CVXPY's names of the installed solvers of linear programs."""
    import cvxpy  # noqa: PLC0415
    from cvxpy.reductions.solvers import defines  # noqa: PLC0415

    known = {*defines.SOLVER_MAP_CONIC, *defines.SOLVER_MAP_QP}
    return [name for name in cvxpy.installed_solvers() if name in known]


def sdp_solvers() -> list[str]:
    """CVXPY's names of the installed solvers of semidefinite programs."""
    cones = {name: _conic_class(name, "SUPPORTED_CONSTRAINTS", ()) for name in lp_solvers()}
    return [name for name, kinds in cones.items() if {kind.__name__ for kind in kinds} & {"PSD", "SvecPSD"}]


def require_solver(name: str, present: Sequence[str]) -> str:
    """The solver's name in CVXPY's spelling.

    Raises:
        InputError: It is not among those present.
    """
    if name.upper() not in present:
        raise InputError(f"no solver {name} for such programs; installed for CVXPY: {', '.join(present)}")
    return name.upper()


def _conic_class(solver: str, attribute: str, default: Any) -> Any:
    """What CVXPY says of a solver that it reaches by conic programs."""
    from cvxpy.reductions.solvers import defines  # noqa: PLC0415

    return getattr(defines.SOLVER_MAP_CONIC.get(solver), attribute, default)


def _crossed(lp: LinearProgram) -> bool:
    """Whether a column's range is empty, which CVXPY refuses as an error."""
    return bool((lp.lower > lp.upper).any())


@dataclass(frozen=True)
class _Model:
    """A problem in CVXPY's terms.

    Attributes:
        problem: The problem.
        columns: Its variable `(n,)`.
        rows: Constraints with the rows that they are and the sign of their multipliers.
        blocks: Constraints of the blocks.
        count: The number of rows.
    """

    problem: Any
    columns: Any
    rows: tuple[tuple[Any, np.ndarray, float], ...]
    blocks: tuple[Any, ...]
    count: int


@dataclass(frozen=True)
class _Outcome:
    """A claim, and what CVXPY's solution says of the solver's work."""

    status: LpStatus
    attributes: Mapping[str, Any]


def _model(lp: LinearProgram, blocks: Sequence[np.ndarray]) -> _Model:
    """States a program; fixed columns become equations, as solvers by interior points need."""
    import cvxpy as cp  # noqa: PLC0415

    free = lp.lower < lp.upper
    ends = [np.where(free, lp.lower, -np.inf), np.where(free, lp.upper, np.inf)]
    columns = cp.Variable(len(lp.cost), bounds=ends)
    rows = _rows(lp, columns)
    others = [] if free.all() else [columns[~free] == lp.lower[~free]]
    whole = None if lp.whole is None else np.nonzero(lp.whole)[0]
    if whole is not None and len(whole):
        others.append(columns[whole] == cp.Variable(len(whole), integer=True))
    psd = tuple(_block(columns, block) for block in blocks)
    constraints = [*(row[0] for row in rows), *others, *psd]
    problem = cp.Problem(cp.Minimize(lp.cost @ columns), constraints)
    return _Model(problem, columns, rows, psd, len(lp.row_lower))


def _rows(lp: LinearProgram, columns: Any) -> tuple[tuple[Any, np.ndarray, float], ...]:
    """Equations, rows with a lower end, rows with an upper end; two-sided ones are in both."""
    from scipy.sparse import csr_array  # noqa: PLC0415

    matrix = csr_array(lp.matrix)
    lower, upper = lp.row_ends
    equal = lower == upper
    kinds = equal, ~equal & (lower > -np.inf), ~equal & (upper < np.inf)
    exact, at_least, at_most = (np.nonzero(kind)[0] for kind in kinds)
    parts: list[tuple[Any, np.ndarray, float]] = []
    if len(exact):  # CVXPY adds a multiple of `A x - b` to the cost, hence the sign
        parts.append((matrix[exact] @ columns == lower[exact], exact, -1.0))
    if len(at_least):
        parts.append((matrix[at_least] @ columns >= lower[at_least], at_least, 1.0))
    if len(at_most):
        parts.append((matrix[at_most] @ columns <= upper[at_most], at_most, -1.0))
    return tuple(parts)


def _block(columns: Any, block: np.ndarray) -> Any:
    """The moments of a block as a positive semidefinite matrix."""
    import cvxpy as cp  # noqa: PLC0415
    from scipy.sparse import csr_array  # noqa: PLC0415

    entries = np.asarray(block, dtype=np.int64).ravel()
    places = np.arange(len(entries))
    choose = csr_array((np.ones(len(entries)), (places, entries)), shape=(len(entries), columns.size))
    return cp.reshape(choose @ columns, block.shape, order="C") >> 0


def _solve(model: _Model, solver: str, options: Mapping[str, Any], seconds: float) -> _Outcome:
    """Compiles and solves; the values are in the model afterwards.

    Raises:
        SolverError: CVXPY or the solver failed.
    """
    import cvxpy as cp  # noqa: PLC0415

    start = time.monotonic()
    try:
        solution = _solution(model.problem, solver, {**DEFAULTS.get(solver, {}), **options}, seconds)
    except (cp.error.SolverError, ValueError, TypeError, KeyError, ArithmeticError) as error:
        raise SolverError(f"{solver} through CVXPY: {error}") from error
    if solution is not None and solution.status in STATUSES:
        return _Outcome(STATUSES[solution.status], solution.attr or {})
    if solution is None or time.monotonic() - start >= seconds or _stopped(solution):
        return _Outcome(LpStatus.LIMIT, {})
    raise SolverError(f"{solver} through CVXPY: {solution.status}")


def _solution(problem: Any, solver: str, options: Mapping[str, Any], seconds: float) -> Any:
    """CVXPY's solution, None if compiling took all the time."""
    start = time.monotonic()
    data, chain, inverse = problem.get_problem_data(solver, ignore_dpp=True, solver_opts=dict(options))
    left = seconds - (time.monotonic() - start)
    if left <= 0:
        return None
    raw = chain.solve_via_data(problem, data, solver_opts=_with_limit(solver, options, left))
    solution = chain.invert(raw, inverse)
    if solution.status in STATUSES:
        problem.unpack(solution)
    return solution


def _stopped(solution: Any) -> bool:
    """Whether what CVXPY calls a failure is a limit that SCS reached before it knew what to claim."""
    info = _information((solution.attr or {}).get("solver_specific_stats"))
    return "reached" in str(info.get("status", ""))


def _information(extra: Any) -> Mapping[str, Any]:
    """The figures that SCS reports."""
    info = extra.get("info") if isinstance(extra, dict) else None
    return info if isinstance(info, dict) else {}


def _with_limit(solver: str, options: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """The options with the time limit where the solver wants it, unless the caller has set it there."""
    path = TIME_LIMITS.get(solver, ())
    if not path or not np.isfinite(seconds):
        return dict(options)
    if len(path) == 1:
        return {path[0]: seconds, **options}
    return {**options, path[0]: {path[1]: seconds, **options.get(path[0], {})}}


def _values(model: _Model, outcome: _Outcome) -> tuple[np.ndarray | None, np.ndarray | None]:
    """The primal values and the multipliers of the rows, as far as they are claimed.

    Raises:
        SolverError: A claimed optimum has no finite values.
    """
    if outcome.status is LpStatus.UNBOUNDED:
        return None, None
    row_dual = np.zeros(model.count)
    for constraint, indices, sign in model.rows:
        row_dual[indices] += sign * _array(constraint.dual_value)
    multipliers = row_dual if np.isfinite(row_dual).all() else None
    if outcome.status is LpStatus.INFEASIBLE:
        return None, multipliers
    point = _array(model.columns.value)
    primal = point if np.isfinite(point).all() else None
    mixed = model.problem.is_mixed_integer()
    if outcome.status is LpStatus.OPTIMAL and (primal is None or (multipliers is None and not mixed)):
        raise SolverError("CVXPY: an optimum without values")
    return primal, multipliers


def _array(value: Any) -> np.ndarray:
    """A value of CVXPY as a vector, NaN if there is none."""
    return np.atleast_1d(np.asarray(np.nan if value is None else value, dtype=np.float64)).ravel()


def _block_duals(model: _Model) -> tuple[np.ndarray, ...] | None:
    """The multipliers of the blocks, made exactly symmetric; None if one is missing."""
    duals = []
    for constraint in model.blocks:
        dual = _array(constraint.dual_value)
        if len(dual) != constraint.args[0].size or not np.isfinite(dual).all():
            return None
        square = dual.reshape(constraint.args[0].shape)
        duals.append((square + square.T) / 2)
    return tuple(duals)


def _claimed_bound(outcome: _Outcome) -> float | None:
    """The lower bound of a mixed-integer program, where the solver reports one."""
    if outcome.status not in (LpStatus.OPTIMAL, LpStatus.LIMIT):
        return None
    extra = outcome.attributes.get("solver_specific_stats")
    found = extra.get("mip_dual_bound") if isinstance(extra, dict) else getattr(extra, "mip_dual_bound", None)
    return None if found is None or not np.isfinite(found) else float(found)


def _figures(outcome: _Outcome) -> dict[str, float]:
    """Iterations, seconds and residuals, where the solver reports them."""
    names = {"num_iters": "iterations", "solve_time": "solve seconds", "setup_time": "setup seconds"}
    found = {words: outcome.attributes.get(name) for name, words in names.items()}
    info = _information(outcome.attributes.get("solver_specific_stats"))
    found |= {name: info.get(name) for name in ("res_pri", "res_dual", "gap")}
    return {name: float(value) for name, value in found.items() if isinstance(value, int | float)}
