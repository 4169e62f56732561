"""The semidefinite program of a region: products of columns as variables, their matrices semidefinite.

Method: with v = (1, inputs, results of the nodes that are not linear), the moments are `m_ij = v_i v_j`. All
rows of the triangle program hold for the first row of the moments; a column in [l, u] has
`m_jj <= (l + u) m_0j - l u`; a ReLU's result x and operand z have `x x = x z` (Raghunathan et al. 2018,
arXiv:1811.01057, section 4). One block of all columns where there are few; for larger networks a block a
layer: the columns that a node's operands are made of, and its results (Batten et al. 2021, arXiv:2105.12537,
section 4).
Guarantee: for every input of the region the products of the true values fulfil the program exactly.
"""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lpverify.bounds.triangle import RegionProgram
from lpverify.errors import UnsupportedError
from lpverify.interval import DOUBLE, SUM_INFLATION, gamma, round_down, round_up, tiny
from lpverify.ops.piecewise import Relu
from lpverify.programs import LinearProgram, SemidefiniteProgram

ONE_BLOCK = 48  # up to so many columns there is one block
WIDEST_BLOCK = 160


@dataclass(frozen=True)
class MomentProgram:
    """The semidefinite program of a region, without cost.

    Attributes:
        program: Its columns are the moments; column 0 is 1.
        lower: Lower ends of all moments by the boxes, `(n,)`; a solver need not know of them.
        upper: Upper ends.
        first: For each column of the region's program its moment with 1, -1 for those that are substituted.
    """

    program: SemidefiniteProgram
    lower: np.ndarray
    upper: np.ndarray
    first: np.ndarray

    def with_cost(self, cost: np.ndarray) -> SemidefiniteProgram:
        """The program with a cost on columns of the region's program, none of them substituted."""
        total = np.zeros(len(self.lower))
        total[self.first[self.first >= 0]] = cost[self.first >= 0]
        linear = replace(self.program.linear, cost=total)
        return replace(self.program, linear=linear)


@np.errstate(over="ignore", invalid="ignore")  # products of ends may be unbounded
def moments(region: RegionProgram) -> MomentProgram:
    """The semidefinite program of a region.

    Raises:
        UnsupportedError: A block would be wider than `WIDEST_BLOCK`.
    """
    return _Builder(region).build()


class _Builder:
    """Moments are numbered as pairs of columns turn up in a block; 0 stands for 1."""

    def __init__(self, region: RegionProgram) -> None:
        self.region, lp = region, region.program
        rows = [d[d >= 0] for d in region.definitions.values()]
        self.definitions = np.concatenate(rows) if rows else np.zeros(0, np.int64)
        named = [region.columns[k][d >= 0] for k, d in region.definitions.items()]
        self.substituted = np.concatenate(named) if named else np.zeros(0, np.int64)
        self.kept = np.setdiff1d(np.arange(len(lp.cost)), self.substituted)
        self.definition_of = dict(zip(self.substituted.tolist(), self.definitions.tolist(), strict=True))
        if not (np.isfinite(lp.lower).all() and np.isfinite(lp.upper).all()):
            raise UnsupportedError("a semidefinite program needs finite boxes of all values")

    def build(self) -> MomentProgram:
        """All of it."""
        sets = self._sets()
        widest = max(len(s) for s in sets) + 1
        if widest > WIDEST_BLOCK:
            raise UnsupportedError(
                f"the semidefinite program has a block of {widest} rows; at most {WIDEST_BLOCK} are treated"
            )
        self.index = self._number(sets)
        blocks = tuple(self._block(s) for s in sets)
        pairs = np.array(list(self.index), dtype=np.int64).reshape(-1, 2)
        lower, upper = self._ends(pairs)
        parts = [self._linear_rows(), self._square_rows(), self._relu_rows()]
        matrix, low, high = (_join([p[j] for p in parts], len(pairs)) for j in range(3))
        free = np.full(len(pairs), np.inf)
        ends = [np.where(pairs[:, 0] < 0, v, f) for v, f in ((lower, -free), (upper, free))]
        linear = LinearProgram(np.zeros(len(pairs)), matrix, low, ends[0], ends[1], row_upper=high)
        first = np.full(len(self.region.program.cost), -1)
        first[self.kept] = [self.index[-1, int(c)] for c in self.kept]
        return MomentProgram(SemidefiniteProgram(linear, blocks), lower, upper, first)

    def _sets(self) -> list[np.ndarray]:
        """The columns of each block; every kept column is in some block."""
        if len(self.kept) <= ONE_BLOCK:
            return [self.kept]
        matrix, sets = self.region.program.matrix, []
        for k, some in self.region.bent.items():
            operand = self.region.frame.network.nodes[k].inputs[0]
            own = self.region.columns[k][some]
            rows = [self.definition_of.get(int(c)) for c in self.region.columns[operand][some]]
            made = [matrix[[r]].indices for r in rows if r is not None]
            direct = self.region.columns[operand][some]
            used = np.unique(np.concatenate([own, *made, direct]))
            sets.append(np.setdiff1d(used, self.substituted))
        rest = np.setdiff1d(self.kept, np.concatenate(sets) if sets else np.zeros(0, np.int64))
        return [*sets, *(np.array([c]) for c in rest)]

    def _number(self, sets: list[np.ndarray]) -> dict[tuple[int, int], int]:
        """Pairs of columns to moments; column -1 is 1."""
        index = {(-1, -1): 0}
        for some in sets:
            columns = [-1, *some.tolist()]
            for a, i in enumerate(columns):
                for j in columns[a:]:
                    index.setdefault((i, j), len(index))
        return index

    def _block(self, some: np.ndarray) -> np.ndarray:
        columns = [-1, *some.tolist()]
        return np.array([[self.index[min(i, j), max(i, j)] for j in columns] for i in columns])

    def _ends(self, pairs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Ends of products by the boxes, rounded outward."""
        lp = self.region.program
        low, high = np.append(lp.lower, 1.0), np.append(lp.upper, 1.0)  # index -1 is the last
        i, j = pairs[:, 0], pairs[:, 1]
        corners = np.stack([a[i] * b[j] for a in (low, high) for b in (low, high)])
        lower, upper = round_down(corners.min(axis=0)), round_up(corners.max(axis=0))
        square = i == j
        lower = np.where(square, np.maximum(lower, 0.0), lower)
        linear = i < 0
        lower, upper = np.where(linear, low[j], lower), np.where(linear, high[j], upper)
        return lower, upper

    def _substitute(self, rows: Any) -> tuple[Any, np.ndarray, np.ndarray]:
        """Rows over all columns as rows over the kept ones: matrix, constants, and errors of both.

        An operand is its definition up to the width of that row.
        """
        from scipy import sparse  # noqa: PLC0415  (slow to import)

        lp = self.region.program
        rows = sparse.csc_array(rows)
        weights = sparse.csr_array(rows[:, self.substituted])
        chosen = lp.matrix[self.definitions]
        keep = sparse.csr_array(sparse.csc_array(chosen)[:, self.kept])
        low, high = (end[self.definitions] for end in lp.row_ends)
        middle, half = 0.5 * (low + high), 0.5 * (high - low) + 2 * DOUBLE * np.maximum(abs(low), abs(high))
        direct = sparse.csr_array(rows[:, self.kept])
        matrix = sparse.csr_array(direct - weights @ keep)  # z = middle - keep . v, up to half
        constant = weights @ middle
        reach = np.maximum(np.abs(lp.lower), np.abs(lp.upper))[self.kept]
        size = abs(direct) @ reach + abs(weights) @ (abs(keep) @ reach + np.abs(middle))
        error = abs(weights) @ half + gamma(weights.shape[1] + 8, DOUBLE) * size
        return matrix, constant, error * SUM_INFLATION + tiny(size)

    def _on_moments(self, matrix: Any, partner: np.ndarray | None = None) -> Any:
        """Rows over kept columns as rows over their moments with 1, or each row's with its partner column."""
        from scipy import sparse  # noqa: PLC0415  (slow to import)

        m = sparse.coo_array(matrix)
        other = np.full(m.shape[0], -1) if partner is None else partner
        first, second = other[m.coords[0]], self.kept[m.coords[1]]
        pairs = zip(np.minimum(first, second).tolist(), np.maximum(first, second).tolist(), strict=True)
        column = np.array([self.index[p] for p in pairs], dtype=np.int64)
        return sparse.csr_array((m.data, (m.coords[0], column)), shape=(m.shape[0], len(self.index)))

    def _linear_rows(self) -> tuple[Any, np.ndarray, np.ndarray]:
        """The triangle program, and the boxes of the operands."""
        from scipy import sparse  # noqa: PLC0415  (slow to import)

        lp = self.region.program
        others = np.setdiff1d(np.arange(lp.matrix.shape[0]), self.definitions)
        count, columns = len(self.substituted), len(lp.cost)
        boxes = sparse.csr_array(
            (np.ones(count), (np.arange(count), self.substituted)), shape=(count, columns)
        )
        matrix, constant, error = self._substitute(sparse.vstack([lp.matrix[others], boxes]))
        low, high = lp.row_ends
        low = np.concatenate([low[others], lp.lower[self.substituted]]) - constant
        high = np.concatenate([high[others], lp.upper[self.substituted]]) - constant
        slack = error + 4 * DOUBLE * np.abs(constant)
        return self._on_moments(matrix), round_down(low - slack), round_up(high + slack)

    def _square_rows(self) -> tuple[Any, np.ndarray, np.ndarray]:
        """`(l + u) m_0j - m_jj >= l u`, from `(v - l) (u - v) >= 0`."""
        from scipy import sparse  # noqa: PLC0415  (slow to import)

        lp, count = self.region.program, len(self.kept)
        low, high = lp.lower[self.kept], lp.upper[self.kept]
        total = low + high
        doubt = 2 * DOUBLE * np.abs(total) * np.maximum(np.abs(low), np.abs(high))
        linear = [self.index[-1, int(c)] for c in self.kept]
        square = [self.index[int(c), int(c)] for c in self.kept]
        where = np.tile(np.arange(count), 2), np.array([*linear, *square], np.int64)
        values = np.concatenate([total, -np.ones(count)])
        matrix = sparse.csr_array((values, where), shape=(count, len(self.index)))
        product = low * high
        least = product - (doubt + 4 * DOUBLE * np.abs(product)) * SUM_INFLATION - tiny(product)
        return matrix, least, np.full(count, np.inf)

    def _relu_rows(self) -> tuple[Any, np.ndarray, np.ndarray]:
        """`x x - x z = 0` with the operand's definition for z; its error is multiplied by the reach of x."""
        from scipy import sparse  # noqa: PLC0415  (slow to import)

        region, lp = self.region, self.region.program
        pairs = [
            (
                region.columns[region.frame.network.nodes[k].inputs[0]][some],
                region.columns[k][some],
            )
            for k, some in region.bent.items()
            if isinstance(region.frame.network.nodes[k].op, Relu)
        ]
        z, x = (np.concatenate([p[j] for p in pairs]) if pairs else np.zeros(0, np.int64) for j in (0, 1))
        count = len(z)
        unit = sparse.csr_array((np.ones(count), (np.arange(count), z)), shape=(count, len(lp.cost)))
        matrix, constant, error = self._substitute(unit)
        product = self._on_moments(matrix, x)
        columns = [self.index[int(c), int(c)] for c in x] + [self.index[-1, int(c)] for c in x]
        where = np.tile(np.arange(count), 2), np.array(columns, np.int64)
        values = np.concatenate([np.ones(count), -constant])
        own = sparse.csr_array((values, where), shape=product.shape)
        reach = np.maximum(np.abs(lp.lower[x]), np.abs(lp.upper[x]))
        slack = (error + 8 * DOUBLE * np.abs(constant)) * reach * SUM_INFLATION + tiny(reach)
        return own - product, -slack, slack


def _join(parts: list[Any], columns: int) -> Any:
    """Matrices or vectors below one another."""
    if all(isinstance(p, np.ndarray) for p in parts):
        return np.concatenate(parts)
    from scipy import sparse  # noqa: PLC0415  (slow to import)

    return sparse.csr_array(sparse.vstack([sparse.csr_array(p, shape=(p.shape[0], columns)) for p in parts]))
