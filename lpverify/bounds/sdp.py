"""Bounds by semidefinite programming: rows over a value.

Accepts: one region, NumPy float64, with few columns; see `bounds.moments`.
Guarantee: each bound is `bounds.safe` of the multipliers; a solver that fails or stops early weakens it.
"""

from dataclasses import replace

import numpy as np

from lpverify.bounds.lp import CostBound, RowBounds, rows_by
from lpverify.bounds.moments import MomentProgram, moments
from lpverify.bounds.safe import safe_moment_bound
from lpverify.bounds.triangle import RegionProgram
from lpverify.config import Deadline
from lpverify.errors import SolverError
from lpverify.solvers.base import SdpBackend


def sdp_rows(
    program: RegionProgram, value: int, rows: np.ndarray, backend: SdpBackend, deadline: Deadline
) -> RowBounds:
    """Lower bounds of rows over a value.

    Args:
        program: Of a region, made at least up to that value.
        value: Which.
        rows: `(R, size of the value)`.
        backend: Solves the programs.
        deadline: Rows that are not reached get no bound.

    Raises:
        UnsupportedError: The program is too large, or a value has no finite box.
    """

    def make() -> CostBound:
        built = moments(program)
        return lambda cost, seconds: _solve(built, cost, backend, seconds)

    return rows_by(make, program, value, rows, deadline)


def _solve(
    built: MomentProgram, cost: np.ndarray, backend: SdpBackend, seconds: float
) -> tuple[float, float]:
    """A proven lower bound of a cost, and the claimed one."""
    sdp = built.with_cost(cost)
    try:
        answer = backend.solve(sdp, seconds)
    except SolverError:
        return float("-inf"), float("nan")
    claim = float("nan") if answer.primal is None else float(sdp.linear.cost @ answer.primal)
    if answer.row_dual is None or answer.block_duals is None:
        return float("-inf"), claim
    boxed = replace(sdp.linear, lower=built.lower, upper=built.upper)
    return safe_moment_bound(boxed, sdp.blocks, answer.row_dual, answer.block_duals), claim
