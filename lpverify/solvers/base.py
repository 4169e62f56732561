"""The interface of the solver backends: linear, mixed-integer and semidefinite programs, and what is claimed.

Nothing here is a bound: `bounds.safe` turns the multipliers of an answer into one.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from lpverify.programs import LinearProgram, SemidefiniteProgram


class LpStatus(Enum):
    """Why a solver stopped."""

    OPTIMAL = "a claimed optimum, with primal and dual values"
    INFEASIBLE = "a claimed proof of infeasibility; `row_dual` is the ray, if there is one"
    UNBOUNDED = "a claim that the cost falls without end"
    LIMIT = "stopped by a limit or short of its accuracy; values may be there, nothing is claimed"


@dataclass(frozen=True)
class LpAnswer:
    """What a solver claims.

    Attributes:
        status: Why it stopped.
        primal: `(n,)` or None.
        row_dual: `(m,)` or None: a multiplier of each row, positive ones of its lower end and negative ones
            of its upper end, so that `cost - row_dual @ matrix` are the reduced costs.
        seconds: Wall-clock time of the solve.
        bound: For mixed-integer programs the claimed lower bound, else None.
    """

    status: LpStatus
    primal: np.ndarray | None
    row_dual: np.ndarray | None
    seconds: float
    bound: float | None = None


class LpBackend(ABC):
    """A solver of linear programs; some solve mixed-integer ones too."""

    name: str
    whole_numbers: bool = False

    @abstractmethod
    def solve(self, lp: LinearProgram, seconds: float) -> LpAnswer:
        """Solves within a time limit.

        Raises:
            SolverError: The solver's status is not one it documents for such a problem, or it can't
                treat whole numbers and the program has some.
        """


@dataclass(frozen=True)
class SdpAnswer:
    """What a solver claims.

    Attributes:
        status: Why it stopped.
        primal: The moments `(n,)` or None.
        row_dual: As in `LpAnswer`.
        block_duals: For each block a symmetric matrix `(s, s)`, positive semidefinite up to tolerance.
        seconds: Wall-clock time of the solve.
        figures: What the solver reports of itself: iterations, residuals.
    """

    status: LpStatus
    primal: np.ndarray | None
    row_dual: np.ndarray | None
    block_duals: tuple[np.ndarray, ...] | None
    seconds: float
    figures: Mapping[str, float] = field(default_factory=dict)


class SdpBackend(ABC):
    """A solver of semidefinite programs."""

    name: str

    @abstractmethod
    def solve(self, sdp: SemidefiniteProgram, seconds: float) -> SdpAnswer:
        """Solves within a time limit.

        The multipliers are those of `cost = row_dual @ matrix + sum of block duals + reduced costs`.

        Raises:
            SolverError: The solver's status is not one it documents for such a problem.
        """


__all__ = [
    "LinearProgram",
    "LpAnswer",
    "LpBackend",
    "LpStatus",
    "SdpAnswer",
    "SdpBackend",
    "SemidefiniteProgram",
]
