"""A linear program that HiGHS keeps hot for branch and bound: changed in place, solved from a basis."""

import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from lpverify.errors import InternalError, SolverError
from lpverify.solvers.base import LinearProgram, LpAnswer
from lpverify.solvers.highs import (
    by_rows,
    limit_time,
    linear_answer,
    new_solver,
    pass_model,
    require_ends,
    require_finite,
    require_numbers,
    require_success,
    run,
    set_option,
)

DUAL_SIMPLEX, PRIMAL_SIMPLEX = 1, 4


@dataclass(frozen=True)
class Basis:
    """Which columns and rows are basic, and at which end the others are.

    Attributes:
        native: HiGHS's own copy; to turn it into arrays would cost more than many a solve.
        shape: Numbers of rows and columns.
    """

    native: Any
    shape: tuple[int, int]


class HighsSession:
    """One linear program that is changed and solved again and again.

    A session belongs to one thread at a time; several may run at once, `solve` releases the interpreter.

    Attributes:
        iterations: Simplex iterations of the last `solve`.

    Raises:
        SolverError: The program has whole-number columns, none at all, or values that are no numbers.
    """

    def __init__(self, lp: LinearProgram) -> None:
        require_numbers(lp)
        if len(lp.cost) == 0 or (lp.whole is not None and np.any(lp.whole)):
            raise SolverError("a session needs columns, none of them of whole numbers")
        self._solver = new_solver(threads=1, presolve=False)
        set_option(self._solver, "solver", "simplex")
        pass_model(self._solver, lp)
        self.iterations = 0

    @property
    def shape(self) -> tuple[int, int]:
        """Numbers of rows and columns."""
        return self._solver.getNumRow(), self._solver.getNumCol()

    def set_cost(self, indices: np.ndarray, values: np.ndarray) -> None:
        """Changes the costs of some columns.

        Args:
            indices: `(k,)`, no column twice.
            values: `(k,)`, finite.

        Raises:
            SolverError: An index or a value is not usable.
        """
        require_finite("cost", values)
        columns = _indices(indices)
        require_success(self._solver.changeColsCost(len(columns), columns, _floats(values)), "new costs")

    def set_columns(self, indices: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
        """Changes the ends of some columns; arguments `(k,)` and errors as `set_cost`."""
        require_ends("column", lower, upper)
        columns = _indices(indices)
        status = self._solver.changeColsBounds(len(columns), columns, _floats(lower), _floats(upper))
        require_success(status, "new ends of columns")

    def set_rows(self, indices: np.ndarray, lower: np.ndarray, upper: np.ndarray) -> None:
        """Changes the ends of some rows; with both infinite a row is off. Arguments as `set_columns`."""
        require_ends("row", lower, upper)
        rows = _indices(indices)
        status = self._solver.changeRowsBounds(len(rows), rows, _floats(lower), _floats(upper))
        require_success(status, "new ends of rows")

    def add_rows(self, rows: Any, lower: np.ndarray, upper: np.ndarray) -> None:
        """Appends rows; they are basic in the present basis, so that it stays dual feasible.

        Args:
            rows: `(k, n)`, a NumPy array or a SciPy sparse array.
            lower: `(k,)`.
            upper: `(k,)`.

        Raises:
            SolverError: The rows are not usable.
        """
        starts, columns, values = by_rows(rows)
        require_finite("coefficient", values)
        require_ends("row", lower, upper)
        count = len(starts) - 1
        status = self._solver.addRows(
            count, _floats(lower), _floats(upper), len(values), starts[:-1], columns, values
        )
        require_success(status, "new rows")

    def solve(self, seconds: float, cutoff: float | None = None, primal_simplex: bool = False) -> LpAnswer:
        """Solves from the present basis, and once more from none if that fails.

        Args:
            seconds: Time limit of this call.
            cutoff: The dual simplex stops when its bound is at least this much: LIMIT, with the duals of
                that bound in `row_dual`.
            primal_simplex: For when costs alone have changed: the basis is still primal feasible. Knows no
                cutoff, and what it leaves at a limit is not dual feasible.

        Raises:
            SolverError: HiGHS failed twice.
        """
        start = time.monotonic()
        strategy = PRIMAL_SIMPLEX if primal_simplex else DUAL_SIMPLEX
        set_option(self._solver, "objective_bound", np.inf if cutoff is None or primal_simplex else cutoff)
        self.iterations = 0
        try:
            return self._attempt(start, seconds, strategy)
        except SolverError:
            require_success(self._solver.clearSolver(), "forgetting the basis")
            return self._attempt(start, seconds, strategy)

    def _attempt(self, start: float, seconds: float, strategy: int) -> LpAnswer:
        set_option(self._solver, "simplex_strategy", strategy)
        limit_time(self._solver, seconds - (time.monotonic() - start))
        status = run(self._solver)
        # the primal simplex leaves no ray; asked for one, HiGHS then finds it with the dual simplex
        set_option(self._solver, "simplex_strategy", DUAL_SIMPLEX)
        self.iterations += max(0, self._solver.getInfo().simplex_iteration_count)
        return linear_answer(self._solver, status, time.monotonic() - start)

    def basis(self) -> Basis | None:
        """A copy of the present basis, None before the first solve."""
        basis = self._solver.getBasis()
        return Basis(basis, self.shape) if basis.valid else None

    def restore(self, basis: Basis | None) -> None:
        """Goes back to a basis; rows that were added since are basic. None: no basis.

        Raises:
            InternalError: The basis is of another program.
            SolverError: HiGHS refuses it.
        """
        if basis is None:
            require_success(self._solver.clearSolver(), "forgetting the basis")
            return
        rows, columns = self.shape
        if basis.shape[1] != columns or basis.shape[0] > rows:
            raise InternalError("a basis of another program")
        native = basis.native if basis.shape[0] == rows else _longer(basis.native, rows)
        require_success(self._solver.setBasis(native), "an earlier basis")


def _longer(basis: Any, rows: int) -> Any:
    """A copy with more rows, which are basic."""
    import highspy  # noqa: PLC0415  (imported long since, by the constructor)

    native = highspy.HighsBasis()
    missing = rows - len(basis.row_status)
    native.col_status = list(basis.col_status)
    native.row_status = [*basis.row_status, *[highspy.HighsBasisStatus.kBasic] * missing]
    native.valid = True
    return native


def _indices(values: np.ndarray) -> np.ndarray:
    return np.asarray(values, dtype=np.int32)


def _floats(values: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(values, dtype=np.float64)
