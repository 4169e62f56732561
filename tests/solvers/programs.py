"""Programs with known answers, and what a claimed answer has to satisfy; bounds in exact rationals."""

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lpverify.solvers.base import LinearProgram, LpBackend, LpStatus, SemidefiniteProgram
from lpverify.solvers.highs_session import HighsSession

INF = np.inf


class Session(LpBackend):
    """A session used for one program, so that it passes the tests of the backends."""

    name = "session"

    def solve(self, lp, seconds):
        return HighsSession(lp).solve(seconds)


@dataclass(frozen=True)
class Expected:
    """A program, and its minimum if it has one."""

    lp: LinearProgram
    value: float | None = None


def program(cost, matrix, row_lower, lower, upper, row_upper=None, whole=None):
    columns = len(cost)
    numbers = (np.asarray(v, np.float64) for v in (cost, matrix, row_lower, lower, upper))
    cost, matrix, row_lower, lower, upper = numbers
    ends = None if row_upper is None else np.asarray(row_upper, np.float64)
    flags = None if whole is None else np.asarray(whole, bool)
    return LinearProgram(cost, matrix.reshape(len(row_lower), columns), row_lower, lower, upper, ends, flags)


OPTIMA = {
    "one row": Expected(program([1, 2], [[1, 1]], [1], [0, 0], [5, 5]), 1),
    "degenerate": Expected(program([1, 1], [[1, 1], [2, 2], [1, 0]], [1, 2, 0], [0, 0], [1, 1]), 1),
    "rows at their upper ends": Expected(
        program([-1, -2], [[1, 1], [1, -1]], [0, -1], [0, 0], [4, 4], [3, 1]), -5
    ),
    "upper ends only": Expected(
        program([-3, -2], [[1, 1], [2, 1]], [-INF, -INF], [0, 0], [9, 9], [4, 5]), -9
    ),
    "equations": Expected(
        program([1, 2, 3], [[1, 1, 1], [1, -1, 0]], [1, 0.5], [0, 0, 0], [INF, 1, INF], [1, 0.5]), 1.25
    ),
    "free rows": Expected(
        program([1, 1], [[1, 1], [1, 0], [0, 1]], [1, -INF, -INF], [0, 0], [5, 5], [INF, INF, INF]), 1
    ),
    "free columns": Expected(program([1, 0], [[1, 1], [1, -1]], [1, 1], [-INF, -INF], [INF, INF]), 1),
    "empty row": Expected(program([1, 1], [[1, 1], [0, 0]], [1, -1], [0, 0], [5, 5]), 1),
    "fixed columns": Expected(program([1, 1, 7], [[1, 1, 1]], [2], [0.25, 0, 0.5], [0.25, 5, 0.5]), 5),
    "no rows": Expected(program([1, -1], [], [], [0, 0], [5, 5]), -5),
    "no cost": Expected(program([0, 0], [[1, 1]], [1], [0, 0], [5, 5]), 0),
    "one column": Expected(program([1], [[2]], [1], [0], [5]), 0.5),
    "no columns": Expected(program([], [], [], [], []), 0),
}

INFEASIBLE = {
    "two rows": program([0, 0], [[1, 1], [-1, -1]], [3, -2], [0, 0], [5, 5]),
    "a row and a row's upper end": program([1, 2], [[1, 1], [1, 1]], [3, -INF], [0, 0], [5, 5], [INF, 2]),
    "an equation out of reach": program([0, 0], [[1, 2]], [30], [0, 0], [5, 5], [30]),
    "a row below its range": program([1, 1], [[1, -1]], [-INF], [0, 0], [1, 1], [-3]),
}

UNBOUNDED = {
    "ray": program([-1, -1], [[1, -1]], [-1], [-INF, -INF], [INF, INF], [1]),
    "no rows": program([1, -1], [], [], [0, 0], [5, INF]),
}


def random_program(seed, rows=6, columns=5):
    """A feasible program with boxed columns and rows of every kind."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-4, 5, (rows, columns)).astype(float)
    middle = matrix @ rng.integers(-2, 3, columns)
    kind = rng.integers(0, 4, rows)
    slack = rng.integers(0, 5, rows)
    row_lower = np.where(kind == 0, -INF, middle - np.where(kind == 1, 0, slack))
    row_upper = np.where(kind == 2, INF, middle + np.where(kind == 1, 0, slack))
    cost = rng.integers(-5, 6, columns).astype(float)
    return program(cost, matrix, row_lower, [-3] * columns, [3] * columns, row_upper)


def large_program(rows=600, columns=400, seed=0):
    """Takes a simplex method about a thousand iterations."""
    rng = np.random.default_rng(seed)
    matrix = rng.normal(size=(rows, columns))
    upper = matrix @ rng.uniform(-0.5, 0.5, columns) + rng.uniform(0, 0.3, rows)
    ends = -np.ones(columns), np.ones(columns)
    return LinearProgram(rng.normal(size=columns), matrix, np.full(rows, -INF), *ends, upper)


def knapsack():
    """Minus the best value of a selection, by trying all of them: the whole program and its minimum."""
    value, weight, room = np.array([9, 7, 5, 4, 3, 8.0]), np.array([6, 5, 4, 3, 2, 7.0]), 13.0
    choices = np.array(np.meshgrid(*[[0, 1]] * 6)).reshape(6, -1)
    best = (value @ choices)[weight @ choices <= room].max()
    lp = program(-value, weight[None], [-INF], np.zeros(6), np.ones(6), [room], np.ones(6, bool))
    return Expected(lp, -best)


def fractions(values):
    return [Fraction(float(v)) for v in values]


def exact_bound(lp, row_dual, with_cost=True):
    """`min (cost - y A) x + y ends` over the columns' ranges: below the minimum for any y; None: no bound."""
    matrix = lp.matrix if isinstance(lp.matrix, np.ndarray) else lp.matrix.toarray()
    y = fractions(row_dual)
    total = Fraction(0)
    for multiplier, low, high in zip(y, *lp.row_ends, strict=True):
        end = low if multiplier > 0 else high
        if multiplier != 0 and not np.isfinite(end):
            return None
        total += multiplier * Fraction(float(end)) if multiplier != 0 else 0
    for j, (low, high) in enumerate(zip(lp.lower, lp.upper, strict=True)):
        cost = Fraction(float(lp.cost[j])) if with_cost else Fraction(0)
        reduced = cost - sum((a * b for a, b in zip(y, fractions(matrix[:, j]), strict=True)), Fraction(0))
        end = low if reduced > 0 else high
        if reduced != 0 and not np.isfinite(end):
            return None
        total += reduced * Fraction(float(end)) if reduced != 0 else 0
    return total


def admissible(lp, row_dual):
    """Multipliers without the wrong signs that tolerances leave."""
    lower, upper = lp.row_ends
    return np.clip(row_dual, np.where(np.isfinite(upper), -INF, 0), np.where(np.isfinite(lower), INF, 0))


def check_optimum(lp, answer, tolerance, value=None):
    """Feasibility, signs of all multipliers, complementary slackness, and the bound that follows."""
    assert answer.status is LpStatus.OPTIMAL
    x, y = answer.primal, answer.row_dual
    assert x.shape == lp.cost.shape and y.shape == lp.row_lower.shape
    assert np.isfinite(x).all() and np.isfinite(y).all()
    cost = float(lp.cost @ x)
    assert value is None or abs(cost - value) <= tolerance * (1 + abs(value))
    rows, (row_lower, row_upper) = lp.matrix @ x, lp.row_ends
    reduced = lp.cost - y @ lp.matrix
    for place, multiplier, low, high in ((rows, y, row_lower, row_upper), (x, reduced, lp.lower, lp.upper)):
        assert (place >= low - tolerance).all() and (place <= high + tolerance).all()
        with np.errstate(invalid="ignore"):
            assert not np.any(np.maximum(multiplier, 0) * np.minimum(place - low, 1) > 10 * tolerance)
            assert not np.any(np.minimum(multiplier, 0) * np.minimum(high - place, 1) < -10 * tolerance)
    boxed = np.isfinite(lp.lower) & np.isfinite(lp.upper)
    bound = exact_bound(lp, admissible(lp, y)) if boxed.all() else None
    if bound is not None:
        assert float(bound) >= cost - 20 * tolerance * (1 + abs(cost))
        assert value is None or bound <= Fraction(value)


def symmetric(size, first=0):
    """A block of new moments, `first` being the first."""
    block = np.zeros((size, size), np.int64)
    rows, columns = np.triu_indices(size)
    block[rows, columns] = block[columns, rows] = first + np.arange(len(rows))
    return block


def smallest_eigenvalue(size, seed=0):
    """`min <C, X>`, trace 1, X positive semidefinite; and the smallest eigenvalue of C."""
    matrix = np.random.default_rng(seed).normal(size=(size, size))
    matrix = matrix + matrix.T
    block = symmetric(size)
    columns = block.max() + 1
    cost, trace = np.zeros(columns), np.zeros((1, columns))
    np.add.at(cost, block.ravel(), matrix.ravel())
    trace[0, block.diagonal()] = 1
    free = np.full(columns, INF)
    return SemidefiniteProgram(program(cost, trace, [1], -free, free, [1]), (block,)), np.linalg.eigvalsh(
        matrix
    )[0]


def theta_of_the_pentagon(repeat=1):
    """Lovasz's theta number of the cycle of five, minus sqrt(5) as a minimum; rows may be repeated."""
    block = symmetric(5)
    cost = np.full(15, -2.0)
    cost[block.diagonal()] = -1
    rows = np.zeros((6, 15))
    for i in range(5):
        rows[i, block[i, (i + 1) % 5]] = 1
    rows[5, block.diagonal()] = 1
    ends = np.array([0, 0, 0, 0, 0, 1.0])
    scales = np.arange(1, repeat + 1)
    rows, ends = np.concatenate([s * rows for s in scales]), np.concatenate([s * ends for s in scales])
    free = np.full(15, INF)
    return SemidefiniteProgram(program(cost, rows, ends, -free, free, ends), (block,)), -np.sqrt(5)


def two_blocks():
    """`min -2 m1 + m3`, m0 = 1, m2 <= 1/4, [[m0, m1], [m1, m2]] and [[m2, m3], [m3, m0]] semidefinite."""
    blocks = np.array([[0, 1], [1, 2]]), np.array([[2, 3], [3, 0]])
    lp = program(
        [0, -2, 0, 1], [[0, 0, 1, 0], [0, 1, 0, 1]], [-1, -2], [1, -3, -3, -3], [1, 3, 3, 3], [0.25, 2]
    )
    return SemidefiniteProgram(lp, blocks), -1.5


def impossible():
    """A moment matrix with 2 beside the diagonal of ones."""
    ends = [1, 2, 1]
    lp = program([0, 0, 0], np.eye(3), ends, [-INF] * 3, [INF] * 3, ends)
    return SemidefiniteProgram(lp, (symmetric(2),))


def unexplained(sdp, answer, with_cost=True):
    """`cost - row_dual @ matrix - sum of block duals`: the reduced costs of the moments."""
    rest = (sdp.linear.cost if with_cost else 0) - answer.row_dual @ sdp.linear.matrix
    for block, dual in zip(sdp.blocks, answer.block_duals, strict=True):
        np.subtract.at(rest, block.ravel(), dual.ravel())
    return rest
