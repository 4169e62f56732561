"""The solver backends by name.

`highs` is HiGHS itself; `cvxpy:NAME` is a solver that CVXPY reaches, for which its name in small letters will
do where it is not taken.
"""

from lpverify.errors import InputError
from lpverify.solvers.base import LpBackend, SdpBackend
from lpverify.solvers.cvxpy import CvxpyLp, CvxpySdp, lp_solvers, sdp_solvers
from lpverify.solvers.highs import Highs

DIRECT = "highs"
THROUGH_CVXPY = "cvxpy:"


def lp_backend(name: str) -> LpBackend:
    """The backend of linear programs of that name.

    Raises:
        InputError: There is none; the message lists those there are.
    """
    if name == DIRECT:
        return Highs()
    return CvxpyLp(_solver(name, lp_solvers(), lp_names()))


def sdp_backend(name: str) -> SdpBackend:
    """The backend of semidefinite programs of that name; errors as `lp_backend`."""
    return CvxpySdp(_solver(name, sdp_solvers(), sdp_names()))


def require_solver(name: str) -> None:
    """Finds out whether any backend has that name.

    Raises:
        InputError: None has; the message lists those there are.
    """
    if name != DIRECT:
        _solver(name, [*lp_solvers(), *sdp_solvers()], list(dict.fromkeys([*lp_names(), *sdp_names()])))


def lp_names() -> list[str]:
    """The names that `lp_backend` knows here, without shorthands."""
    return [DIRECT, *(THROUGH_CVXPY + solver for solver in lp_solvers())]


def sdp_names() -> list[str]:
    """The names that `sdp_backend` knows here, without shorthands."""
    return [THROUGH_CVXPY + solver for solver in sdp_solvers()]


def _solver(name: str, solvers: list[str], names: list[str]) -> str:
    """CVXPY's name of a solver."""
    solver = name.removeprefix(THROUGH_CVXPY).upper()
    if solver not in solvers:
        raise InputError(f"no solver backend {name} for this; there are {', '.join(names)}")
    return solver
