"""The interface of linear programming backends."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from enum import Enum

import numpy as np


class LpStatus(Enum):
    """Why a solver stopped."""

    OPTIMAL = "a claimed optimum with primal and dual values"
    INFEASIBLE = "a claimed proof of infeasibility; `row_dual` is the ray, if there is one"
    LIMIT = "stopped by a limit; nothing is claimed"


@dataclass(frozen=True)
class LinearProgram:
    """Minimise `cost . x` over `lower <= x <= upper`, `matrix x >= row_lower`; all columns boxed.

    Attributes:
        cost: `(n,)`.
        matrix: `(m, n)`, dense.
        row_lower: `(m,)`.
        lower: `(n,)`, finite.
        upper: `(n,)`, finite.
    """

    cost: np.ndarray
    matrix: np.ndarray
    row_lower: np.ndarray
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class LpAnswer:
    """What a solver claims.

    Attributes:
        primal: `(n,)` or None.
        row_dual: `(m,)` with `row_dual >= 0` up to tolerance, a multiplier of each row, or None.
    """

    status: LpStatus
    primal: np.ndarray | None
    row_dual: np.ndarray | None
    seconds: float


class LpBackend(ABC):
    """A linear programming solver."""

    name: str

    @abstractmethod
    def solve(self, lp: LinearProgram, seconds: float) -> LpAnswer:
        """Solves within a time limit.

        Raises:
            SolverError: The solver's status is not one it documents for such a problem.
        """
