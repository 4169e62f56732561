"""The linear program of a region: everything that the lines of all relaxations say together.

Accepts: one region (a `Frame` of a batch of one, in float64) of any network.
Method: columns are the inputs, the operands of nonlinear nodes where these are not linear on their boxes, and
the results there; all other values are affine expressions of columns (Ehlers 2017, arXiv:1705.01320, section
4; Salman et al. 2019, arXiv:1902.08722). Rows are all lines and planes that the registry's ops give.
Guarantee: for every input x of the region, x with the values of the network at x fulfils the program in exact
arithmetic: coefficients of rows are floats that are meant exactly, and what rounding an expression costs
widens its row. So any multipliers give a bound, see `bounds.safe`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from lpverify.bounds.frame import Frame
from lpverify.bounds.lines import open_elements
from lpverify.interval import DOUBLE, SUM_INFLATION, Array, gamma, round_down, round_up, tiny
from lpverify.ops.base import AffineOp, BilinearOp, ElementwiseOp
from lpverify.ops.piecewise import Relu
from lpverify.ops.steps import StepOp
from lpverify.programs import LinearProgram

CHUNK = 2**23  # elements of dense columns held at a time


@dataclass(frozen=True)
class Expression:
    """A value as affine function of the columns: `|value - (matrix @ columns + offset)| <= error`.

    Attributes:
        matrix: SciPy CSR array `(size, columns)`.
        offset: `(size,)`.
        error: `(size,)`.
    """

    matrix: Any
    offset: np.ndarray
    error: np.ndarray

    def pick(self, elements: np.ndarray) -> "Expression":
        """Some elements."""
        return Expression(self.matrix[elements], self.offset[elements], self.error[elements])

    def widen(self, columns: int) -> Any:
        """The matrix with as many columns as there are now."""
        m = self.matrix
        return type(m)((m.data, m.indices, m.indptr), shape=(m.shape[0], columns))


@dataclass(frozen=True)
class RegionProgram:
    """The linear program of a region, without objective.

    Attributes:
        program: Columns and rows; its cost is zero.
        expressions: For each value.
        columns: For each value the columns of its elements, `(size,)`, -1 where it has none.
        definitions: For each value the rows that define its columns, `(size,)`, -1 where none does.
        bent: For each elementwise node the elements that are not linear, where there are any.
        frame: The boxes it was made of.
        complete: All nodes that are not linear are ReLUs: with their phases known the program is exact.
    """

    program: LinearProgram
    expressions: dict[int, Expression]
    columns: dict[int, np.ndarray]
    definitions: dict[int, np.ndarray]
    bent: dict[int, np.ndarray]
    frame: Frame
    complete: bool

    @np.errstate(over="ignore", invalid="ignore")
    def objective(self, value: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows `(R, size)` over a value as costs `(R, columns)`, and constants `(R,)` rounded down.

        `rows . value >= costs @ columns + constants` for the floats that come out.
        """
        found = self.expressions[value]
        matrix = found.widen(len(self.program.cost))
        costs = np.asarray(rows @ matrix)
        size = abs(matrix) @ self.magnitude + np.abs(found.offset)
        each = found.error + gamma(2 * rows.shape[1] + 8, DOUBLE) * size
        known = np.isfinite(each)  # rows that don't use an unbounded element must not lose their bounds to it
        error = np.abs(rows) @ np.where(known, each, 0.0) + np.where(rows[:, ~known].any(axis=1), np.inf, 0.0)
        constants = rows @ np.where(known, found.offset, 0.0)
        return costs, constants - error * SUM_INFLATION - tiny(costs)

    @property
    def magnitude(self) -> np.ndarray:
        """The largest absolute value of each column."""
        return np.maximum(np.abs(self.program.lower), np.abs(self.program.upper))


@np.errstate(over="ignore", invalid="ignore")  # boxes may be unbounded; such rows say nothing
def triangle(frame: Frame, target: int | None = None) -> RegionProgram:
    """The program of a region.

    Args:
        frame: A batch of one region, NumPy float64.
        target: Only what this value depends on; default: the network's output.
    """
    network = frame.network
    builder = _Builder(frame)
    needed = network.ancestors[network.output if target is None else target]
    for k in range(1, len(network.nodes)):
        if k in needed:
            builder.add(k)
    return builder.finish()


class _Builder:
    """Columns and rows, appended in the order of evaluation."""

    def __init__(self, frame: Frame) -> None:
        from scipy import sparse  # noqa: PLC0415  (slow to import)

        self.sparse, self.frame = sparse, frame
        self.lower, self.upper = [frame.boxes[0].lower[0]], [frame.boxes[0].upper[0]]
        self.count, self.rows = frame.network.input_size, 0
        self.matrices: list[Any] = []
        self.ends: list[tuple[np.ndarray, np.ndarray]] = []
        zero = np.zeros(self.count)
        identity = sparse.csr_array(sparse.eye_array(self.count))
        self.expressions = {0: Expression(identity, zero, zero)}
        self.columns = {0: np.arange(self.count)}
        self.definitions: dict[int, np.ndarray] = {}
        self.bent: dict[int, np.ndarray] = {}
        self.complete = True

    def finish(self) -> RegionProgram:
        """All of it, as one program."""
        wide = [self._widen(m) for m in self.matrices]
        empty = self.sparse.csr_array((0, self.count))
        matrix = self.sparse.csr_array(self.sparse.vstack(wide)) if wide else empty
        low, high = (np.concatenate([e[j] for e in self.ends]) if self.ends else np.zeros(0) for j in (0, 1))
        ends = (np.concatenate(self.lower), np.concatenate(self.upper))
        program = LinearProgram(np.zeros(self.count), matrix, low, *ends, row_upper=high)
        found = (self.expressions, self.columns, self.definitions, self.bent)
        return RegionProgram(program, *found, self.frame, self.complete)

    def _widen(self, m: Any) -> Any:
        return self.sparse.csr_array((m.data, m.indices, m.indptr), shape=(m.shape[0], self.count))

    def add(self, k: int) -> None:
        """One more value."""
        node = self.frame.network.nodes[k]
        if isinstance(node.op, AffineOp):
            self.expressions[k] = self._affine(k, node.op)
            return
        before = self.count
        if isinstance(node.op, ElementwiseOp):
            self._elementwise(k, node.op)
        elif isinstance(node.op, BilinearOp):
            self._bilinear(k, node.op)
        else:
            size = prod(node.shape)
            self.expressions[k] = self._fresh(k, np.arange(size))[1]
        self.complete = self.complete and (isinstance(node.op, Relu) or self.count == before)

    # Columns and rows

    def _fresh(self, k: int, elements: np.ndarray) -> tuple[np.ndarray, Expression]:
        """New columns for elements of a value, in their boxes; and the value's expression, zero elsewhere."""
        box, size = self.frame.boxes[k], prod(self.frame.network.nodes[k].shape)
        self.lower.append(box.lower.reshape(-1)[elements])
        self.upper.append(box.upper.reshape(-1)[elements])
        new = np.arange(self.count, self.count + len(elements))
        self.count += len(elements)
        known = self.columns.setdefault(k, np.full(size, -1))
        known[elements] = new
        unit = self.sparse.csr_array((np.ones(len(new)), (elements, new)), shape=(size, self.count))
        return new, Expression(unit, np.zeros(size), np.zeros(size))

    def _row(self, matrix: Any, low: np.ndarray, high: np.ndarray) -> np.ndarray:
        """Appends rows; returns their indices."""
        self.matrices.append(matrix)
        self.ends.append((low, high))
        self.rows += len(low)
        return np.arange(self.rows - len(low), self.rows)

    def _named(self, k: int, elements: np.ndarray) -> np.ndarray:
        """Columns that equal elements of a value, with a defining row where there was none."""
        known = self.columns.setdefault(k, self._copies(k))
        missing = elements[known[elements] < 0]
        if len(missing):
            meaning = self.expressions[k].pick(missing)
            _, unit = self._fresh(k, missing)
            matrix = unit.pick(missing).matrix - meaning.widen(self.count)
            slack = meaning.error * SUM_INFLATION
            rows = self._row(matrix, round_down(meaning.offset - slack), round_up(meaning.offset + slack))
            self.definitions.setdefault(k, np.full(len(known), -1))[missing] = rows
        return known[elements]

    def _copies(self, k: int) -> np.ndarray:
        """For each element of a value the column of which it is an exact copy, else -1."""
        e = self.expressions[k]
        single = np.diff(e.matrix.indptr) == 1
        result = np.full(len(e.offset), -1)
        first = e.matrix.indptr[:-1][single]
        exact = (e.matrix.data[first] == 1) & (e.offset[single] == 0) & (e.error[single] == 0)
        result[np.flatnonzero(single)[exact]] = e.matrix.indices[first][exact]
        return result

    # Expressions

    def _affine(self, k: int, op: AffineOp) -> Expression:
        nodes = self.frame.network.nodes
        inputs, shape = nodes[k].inputs, nodes[k].shape
        parts = [self.expressions[i] for i in inputs]
        offset = np.broadcast_to(op.forward(*self._shaped(inputs, [p.offset for p in parts])), (1, *shape))
        matrix = self._through(op, inputs, shape)
        if op.terms == (0, 0) and op.offset_error is None and not any(p.error.any() for p in parts):
            return Expression(matrix, offset.reshape(-1), np.zeros(prod(shape)))
        relative, offset_error, slack = op.error_factors(offset)
        sizes = [abs(p.widen(self.count)) @ self._magnitude() + np.abs(p.offset) + p.error for p in parts]
        size, error = (
            op.magnitude(*self._shaped(inputs, v)) if parts else np.zeros_like(offset)
            for v in (sizes, [p.error for p in parts])
        )
        if op.offset is not None:
            size = size + np.abs(op.offset)
        error = error + (relative + 8 * DOUBLE) * size * SUM_INFLATION + offset_error + slack
        error = np.broadcast_to(error, (1, *shape)).reshape(-1)
        return Expression(matrix, offset.reshape(-1).copy(), error * SUM_INFLATION)

    def _magnitude(self) -> np.ndarray:
        return np.maximum(np.abs(np.concatenate(self.lower)), np.abs(np.concatenate(self.upper)))

    def _shaped(self, inputs: Sequence[int], flat: Sequence[np.ndarray]) -> list[np.ndarray]:
        nodes = self.frame.network.nodes
        return [v.reshape((1, *nodes[i].shape)) for i, v in zip(inputs, flat, strict=True)]

    def _through(self, op: AffineOp, inputs: Sequence[int], shape: tuple[int, ...]) -> Any:
        """`W` times the matrices of the operands, some columns at a time."""
        size = prod(shape)
        parts = [self.sparse.csc_array(self.expressions[i].widen(self.count)) for i in inputs]
        used = np.flatnonzero(sum(np.diff(p.indptr) for p in parts)) if parts else np.zeros(0, np.int64)
        widest = max([size, *(p.shape[0] for p in parts)])
        step, blocks = max(1, CHUNK // max(1, widest)), []
        for first in range(0, len(used), step):
            some = used[first : first + step]
            dense = [
                p[:, some].toarray().T.reshape((len(some), *self.frame.network.nodes[i].shape))
                for p, i in zip(parts, inputs, strict=True)
            ]
            image = np.asarray(op.linear(*dense)).reshape((len(some), size))
            block = self.sparse.coo_array(image)
            blocks.append((block.data, block.coords[1], some[block.coords[0]]))
        data, row, column = (
            np.concatenate([b[j] for b in blocks]) if blocks else np.zeros(0) for j in range(3)
        )
        at = (row.astype(np.int64), column.astype(np.int64))
        return self.sparse.csr_array((data, at), shape=(size, self.count))

    # Relaxations

    def _elementwise(self, k: int, op: ElementwiseOp) -> None:
        frame, i = self.frame, self.frame.network.nodes[k].inputs[0]
        open_ = open_elements(frame, k).reshape(-1)
        if isinstance(op, StepOp):  # over an operand's closed box a settled step still sees the jump
            open_ = np.ones_like(open_)
        some = np.flatnonzero(open_)
        settled = self._settled(k, op, ~open_)
        if not len(some):
            self.expressions[k] = settled
            return
        operands = self._named(i, some)
        results, unit = self._fresh(k, some)
        settled = Expression(settled.widen(self.count) + unit.matrix, settled.offset, settled.error)
        self.expressions[k] = settled
        family = op.family(frame.boxes[i])
        below = [_line(v.lower_slope, v.lower_intercept, some) for v in family]
        above = [_line(v.upper_slope, v.upper_intercept, some) for v in family]
        self._lines(operands, results, below, 1, frame.boxes[k].lower.reshape(-1)[some])
        self._lines(operands, results, above, -1, -frame.boxes[k].upper.reshape(-1)[some])
        self.bent[k] = some

    def _lines(
        self,
        operands: np.ndarray,
        results: np.ndarray,
        lines: Sequence[tuple[np.ndarray, np.ndarray]],
        side: int,
        end: np.ndarray,
    ) -> None:
        """Rows `side (result - slope operand) >= side intercept`, each line once, where the ends say less."""
        seen: list[tuple[np.ndarray, np.ndarray]] = []
        for s, t in lines:
            new = np.isfinite(s) & np.isfinite(t) & ~((s == 0) & (side * t <= end))
            for s0, t0 in seen:
                new &= (s != s0) | (t != t0)
            seen.append((s, t))
            at = np.flatnonzero(new)
            if len(at):
                index = np.arange(len(at))
                where = (np.concatenate([index, index]), np.concatenate([results[at], operands[at]]))
                values = np.concatenate([np.ones(len(at)), -s[at]])
                matrix = self.sparse.csr_array((values, where), shape=(len(at), self.count))
                free = np.full(len(at), side * np.inf)
                self._row(matrix, *((t[at], free) if side > 0 else (free, t[at])))

    def _settled(self, k: int, op: ElementwiseOp, mask: np.ndarray) -> Expression:
        """The value where the function is linear on the box, zero elsewhere."""
        i = self.frame.network.nodes[k].inputs[0]
        source, lines = self.expressions[i], op.relax(self.frame.boxes[i], None)
        below = _line(lines.lower_slope, lines.lower_intercept, slice(None))
        above = _line(lines.upper_slope, lines.upper_intercept, slice(None))
        s, t, s2, t2 = (np.where(mask, v, 0.0) for v in (*below, *above))
        reach = np.where(mask & ~((s == s2) & (s * s <= 1)), self.frame.boxes[i].magnitude.reshape(-1), 0.0)
        gap = np.abs(s2 - s) * reach + np.abs(t2 - t)  # the function is between two lines that are nearly one
        size = np.abs(s) * (reach + source.error) + np.abs(t) + gap
        matrix = self.sparse.csr_array(self.sparse.diags_array(s) @ source.widen(self.count))
        matrix.eliminate_zeros()
        magnitude = abs(matrix) @ self._magnitude() + np.abs(s * source.offset)
        exact = ((s == 1) | (s == 0)) & (t == 0) & (gap == 0)
        error = np.abs(s) * source.error + gap + np.where(exact, 0.0, 8 * DOUBLE * (size + magnitude))
        return Expression(matrix, np.where(mask, s * source.offset + t, 0.0), error * SUM_INFLATION)

    def _bilinear(self, k: int, op: BilinearOp) -> None:
        """McCormick's planes, one element after the other in blocks."""
        frame, shape = self.frame, self.frame.network.nodes[k].shape
        inputs = frame.network.nodes[k].inputs
        size = prod(shape)
        _, self.expressions[k] = self._fresh(k, np.arange(size))
        boxes = [frame.boxes[i] for i in inputs]
        unit = np.eye(size).reshape((1, size, *shape))
        loss = 4 * (op.terms + 8) * DOUBLE * op.magnitude(*(b.magnitude for b in boxes)).reshape(-1)
        for mix in (None, 0.0, 1.0):
            share = None if mix is None else np.array([mix])
            planes = op.relax(boxes[0], boxes[1], share)
            for sign in (1.0, -1.0):
                parts = op.substitute(sign * unit, planes)
                intercept = planes.lower_intercept if sign > 0 else planes.upper_intercept
                self._plane(k, sign, parts, np.asarray(intercept).reshape(-1), loss)

    def _plane(
        self, k: int, sign: float, parts: Sequence[Array], intercept: np.ndarray, loss: np.ndarray
    ) -> None:
        """Rows `sign value - parts . operands >= sign intercept`, with the error of the operands."""
        size = len(intercept)
        matrix = sign * self.expressions[k].widen(self.count)
        low = sign * intercept
        extent = np.abs(low)
        for i, part in zip(self.frame.network.nodes[k].inputs, parts, strict=True):
            rows = self.sparse.csr_array(np.asarray(part).reshape((size, -1)))
            source = self.expressions[i]
            product = rows @ source.widen(self.count)
            matrix = matrix - product
            low = low + rows @ source.offset
            loss = loss + abs(rows) @ source.error
            width = 2 * rows.shape[1] + 8
            reach = abs(source.widen(self.count)) @ self._magnitude() + np.abs(source.offset)
            some = abs(rows) @ reach
            extent, loss = extent + some, loss + gamma(width, DOUBLE) * some
        low = low - (loss + 8 * DOUBLE * extent) * SUM_INFLATION - tiny(low)
        good = np.isfinite(low)
        if good.any():
            at = np.flatnonzero(good)
            self._row(self.sparse.csr_array(matrix)[at], low[at], np.full(len(at), np.inf))


def _line(slope: Array, intercept: Array | None, some: Any) -> tuple[np.ndarray, np.ndarray]:
    """Slope and intercept of some elements, of arrays of a batch of one."""
    s = np.asarray(slope).reshape(-1)[some]
    return s, np.zeros_like(s) if intercept is None else np.asarray(intercept).reshape(-1)[some]
