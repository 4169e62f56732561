"""What the multipliers of a linear or semidefinite program prove, whatever the solver claims.

Method: for any row multipliers y, `cost . x >= sum_i y_i b_i + sum_j min (d_j x_j)` over the program, where
`b_i` is the lower end of row i for positive y_i and its upper end for negative ones, and `d = cost - y A`
(Neumaier and Shcherbina 2004, doi:10.1007/s10107-003-0433-3, section 3).
A block of a semidefinite program adds `<Z, M> >= 0` for any positive semidefinite Z: the solver's Z is lifted
by a multiple of the identity until a Cholesky decomposition of a slightly smaller matrix goes through, which
proves it positive semidefinite (Rump 2006, doi:10.1007/s10543-006-0056-1, section 2); what is left of the
cost meets the ends of the moments.
Guarantee: every rounding error is covered; NaN and infinities give minus infinity.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lpverify.interval import DOUBLE, SUM_INFLATION, gamma
from lpverify.programs import LinearProgram

UNDERFLOW = 1e-290  # above all that underflows on the way
DENSE = 2**18  # entries up to which a matrix is multiplied as an array


@dataclass(frozen=True)
class SafeBound:
    """A proven lower bound, and what it is made of.

    Attributes:
        value: Of `cost . x` over the program; plus infinity is never claimed.
        multipliers: Of the rows, those with an infinite end left out: `(m,)`.
        reduced: `cost - multipliers @ matrix` up to rounding: `(n,)`.
    """

    value: float
    multipliers: np.ndarray
    reduced: np.ndarray


@dataclass(frozen=True)
class Transposed:
    """A program's matrix as `safe_bound` needs it, for those who ask often.

    Attributes:
        plain: `(n, m)`.
        absolute: Of the absolute values.
    """

    plain: Any
    absolute: Any


def transposed(matrix: Any) -> Transposed:
    """The transpose, as a NumPy array where that is not large."""
    small = matrix.shape[0] * matrix.shape[1] <= DENSE and not isinstance(matrix, np.ndarray)
    wide = np.ascontiguousarray(matrix.toarray().T) if small else matrix.T
    wide = wide if isinstance(wide, np.ndarray) else wide.tocsr()
    return Transposed(wide, abs(wide))


@np.errstate(over="ignore", invalid="ignore")
def safe_bound(
    lp: LinearProgram, row_dual: np.ndarray, cost: np.ndarray | None = None, by: Transposed | None = None
) -> SafeBound:
    """A lower bound of the cost from any multipliers of the rows; whole columns count as continuous.

    Args:
        lp: The program.
        row_dual: `(m,)`, as in `LpAnswer`: positive for lower ends.
        cost: Instead of the program's; zeros prove infeasibility if the bound is positive.
        by: Of the program's matrix, if it is known.
    """
    by = transposed(lp.matrix) if by is None else by
    c = lp.cost if cost is None else cost
    low, high = lp.row_ends
    y = np.where(np.isfinite(row_dual), row_dual, 0.0)
    y = np.where(np.isfinite(np.where(y > 0, low, high)), y, 0.0)
    sides = np.where(y > 0, low, np.where(y < 0, high, 0.0))
    products, terms = y * sides, int(np.count_nonzero(y)) + 2
    combined, absolute = by.plain @ y, by.absolute @ np.abs(y)
    d = c - combined
    doubt = gamma(terms + 2, DOUBLE) * (np.abs(c) + absolute) * SUM_INFLATION
    reach = np.maximum(np.abs(lp.lower), np.abs(lp.upper))
    doubt = doubt + UNDERFLOW
    if not np.isfinite(reach).all():  # an unbounded column costs nothing if no row takes part in it
        doubt = np.where((by.plain != 0) @ (y != 0), doubt, 0.0)
    ends = np.where(d > 0, lp.lower, lp.upper)
    parts = np.where(d == 0, 0.0, d * ends)
    loss = np.where(doubt == 0, 0.0, doubt * reach)
    total = products.sum() + parts.sum()
    size = np.abs(products).sum() + np.abs(parts).sum()
    error = loss.sum() + gamma(terms + len(c) + 4, DOUBLE) * size
    value = total - error * SUM_INFLATION - UNDERFLOW
    return SafeBound(float(value) if np.isfinite(value) else float("-inf"), y, d)


@np.errstate(over="ignore", invalid="ignore")
def safe_moment_bound(
    lp: LinearProgram, blocks: Sequence[np.ndarray], row_dual: np.ndarray, block_duals: Sequence[np.ndarray]
) -> float:
    """A lower bound of the cost of a semidefinite program from any multipliers.

    Args:
        lp: Its linear part, with finite ends of all columns.
        blocks: Each a matrix `(s, s)` of columns.
        row_dual: `(m,)`, as in `SdpAnswer`.
        block_duals: For each block a matrix `(s, s)`.
    """
    taken, doubt = np.zeros(len(lp.cost)), np.zeros(len(lp.cost))
    count = np.zeros(len(lp.cost))
    for block, dual in zip(blocks, block_duals, strict=True):
        proven = semidefinite(dual)
        if proven is None:
            continue
        np.add.at(taken, block.reshape(-1), proven.reshape(-1))
        np.add.at(doubt, block.reshape(-1), np.abs(proven).reshape(-1))
        np.add.at(count, block.reshape(-1), 1.0)
    cost = lp.cost - taken
    found = safe_bound(replace(lp, cost=cost), row_dual)
    terms = int(count.max(initial=0.0)) + 2
    loss = gamma(terms, DOUBLE) * (np.abs(lp.cost) + doubt) * np.maximum(np.abs(lp.lower), np.abs(lp.upper))
    value = found.value - float(loss.sum()) * SUM_INFLATION - UNDERFLOW
    return value if np.isfinite(value) else float("-inf")


@np.errstate(over="ignore", invalid="ignore")
def semidefinite(matrix: np.ndarray) -> np.ndarray | None:
    """A matrix near a symmetric one `(s, s)`, proven positive semidefinite; None if that fails."""
    if not np.isfinite(matrix).all():
        return None
    matrix = np.tril(0.5 * matrix + 0.5 * matrix.T)
    matrix = matrix + np.tril(matrix, -1).T  # exactly symmetric
    size = len(matrix)
    scale = float(np.abs(matrix).max(initial=0.0)) + 1e-300
    try:
        lift = max(0.0, -float(np.linalg.eigvalsh(matrix)[0]))
    except np.linalg.LinAlgError:  # did not converge
        return None
    for step in (0.0, 1e-14, 1e-13, 1e-12, 1e-10, 1e-8):
        lifted = matrix.copy()
        lifted[np.diag_indices(size)] += lift * (1 + 1e-12) + step * size * scale
        if _is_semidefinite(lifted):
            return lifted
    return None


def _is_semidefinite(matrix: np.ndarray) -> bool:
    """Whether the floats of a symmetric matrix are proven to be one: `A - c I` has a Cholesky factor.

    With `c` above `gamma trace` the backward error of the decomposition can't have made up for a negative
    eigenvalue.
    """
    size = len(matrix)
    trace = float(np.abs(np.diag(matrix)).sum())
    shift = 2 * gamma(size + 2, DOUBLE) * trace * SUM_INFLATION + 1e-290
    less = matrix.copy()
    less[np.diag_indices(size)] = np.nextafter(np.diag(matrix) - shift, -np.inf)
    try:
        factor = np.linalg.cholesky(less)
    except np.linalg.LinAlgError:
        return False
    return bool(np.isfinite(factor).all())
