"""Exact rationals for the programs of regions: a network's values, a minimum, what a point violates.

Nothing here rounds: `Exact` evaluates a network of any ops over the rationals, smooth functions to 60 digits;
`violations` and `exact_minimum` take a program's floats as they are.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import combinations, product
from math import floor, prod

import mpmath as mp
import numpy as np

from lpverify.bounds.frame import Frame
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.triangle import RegionProgram, triangle
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.network import Network, Node
from lpverify.ops.base import AffineOp, ElementwiseOp, Op
from lpverify.ops.bilinear import MatMulValues, Multiply
from lpverify.ops.elementary import Square
from lpverify.ops.linear import Combine, Linear, Scale
from lpverify.ops.piecewise import Relu
from lpverify.ops.shape import Concat, ConstantValue, Gather
from lpverify.programs import LinearProgram

DIGITS = 60
Layers = Sequence[tuple[np.ndarray, np.ndarray]]
Values = list[np.ndarray]  # rationals, each flat


def exact(array: object) -> np.ndarray:
    """Rationals, in the same shape."""
    return np.vectorize(Fraction, otypes=[object])(np.asarray(array, np.float64))


def dense_network(layers: Layers) -> Network:
    """Affine layers with ReLU between them; weights `(out, in)`."""
    nodes = [Node(None, (), (layers[0][0].shape[1],))]
    for i, (weight, bias) in enumerate(layers):
        nodes.append(
            Node(
                Linear(np.array(weight, np.float64), np.array(bias, np.float64)),
                (len(nodes) - 1,),
                bias.shape,
            )
        )
        if i < len(layers) - 1:
            nodes.append(Node(Relu(), (len(nodes) - 1,), bias.shape))
    return Network(tuple(nodes), len(nodes) - 1)


def random_layers(rng: np.random.Generator, sizes: Sequence[int], parts: int = 16) -> Layers:
    """Random weights, whole multiples of `1 / parts` so that rationals stay short."""
    shapes = zip(sizes[1:], sizes, strict=False)
    return [
        (
            np.rint(parts * rng.normal(size=(b, a)) / np.sqrt(a)) / parts,
            np.rint(parts * 0.4 * rng.normal(size=b)) / parts,
        )
        for b, a in shapes
    ]


def regional(
    network: Network, lower: np.ndarray, upper: np.ndarray, effort: str = "crown"
) -> tuple[Frame, RegionProgram]:
    """The frame and the program of a box."""
    with np.errstate(all="ignore"):
        frame = propagate(network, Region(Box(lower[None], upper[None])), Effort(effort), 2**20)
        assert not frame.empty.any()
        return frame, triangle(frame)


WIDTH = 3  # of all values in random graphs
SIZES = (1.0, 1.0, 1.0, 1e-8, 1e8, 1e-20, 1e20, 1e-150, 1e150)  # of wild weights


@dataclass
class _Graph:
    """A network under construction, all of whose values have WIDTH elements.

    Attributes:
        rng: Decides.
        sizes: Magnitudes of weights.
        ops: Elementwise ones, beside ReLUs.
    """

    rng: np.random.Generator
    sizes: Sequence[float]
    ops: Sequence[Op]
    nodes: list[Node] = field(default_factory=lambda: [Node(None, (), (WIDTH,))])

    def add(self, op: Op, *inputs: int, size: int = WIDTH) -> int:
        self.nodes.append(Node(op, inputs, (size,)))
        return len(self.nodes) - 1

    def numbers(self, *shape: int) -> np.ndarray:
        return self.rng.normal(size=shape) * self.rng.choice(self.sizes)

    def linear(self, first: int, _: int) -> int:
        """With zeros, small entries, rows that nearly cancel; or zero in the middle of the box."""
        rng, weight, bias = self.rng, self.numbers(WIDTH, WIDTH), self.numbers(WIDTH)
        weight *= rng.choice([1, 1, 0, 1e-9], size=weight.shape)
        if rng.random() < 0.3:
            weight[1] = -weight[0] * (1 + 2.0**-40)
        if rng.random() < 0.3:
            bias = -weight @ np.full(WIDTH, 0.5)
        errors = (2.0**-40, np.abs(bias) * 2.0**-30) if rng.random() < 0.2 else ()
        return self.add(Linear(weight, bias, *errors), first)

    def relu(self, first: int, _: int) -> int:
        return self.add(Relu(), first)

    def sum(self, first: int, second: int) -> int:
        return self.add(Combine((1, int(self.rng.choice([1, -1])))), first, second)

    def product(self, first: int, second: int) -> int:
        return self.add(Square(), first) if first == second else self.add(Multiply(), first, second)

    def scale(self, first: int, _: int) -> int:
        return self.add(Scale(self.numbers(WIDTH), self.numbers(WIDTH), 2.0**-50), first)

    def moved(self, first: int, _: int) -> int:
        """Some elements, and some of a constant that is known up to an error."""
        constant = self.add(ConstantValue(self.numbers(WIDTH), np.abs(self.numbers(WIDTH)) * 1e-9))
        both = self.add(Concat(0, (WIDTH, WIDTH)), first, constant, size=2 * WIDTH)
        order = tuple(int(i) for i in self.rng.integers(0, 2 * WIDTH, WIDTH))
        return self.add(Gather(order, 0, (2 * WIDTH,)), both)

    def other(self, first: int, _: int) -> int:
        return self.add(self.ops[int(self.rng.integers(len(self.ops)))], first)


def random_graph(rng: np.random.Generator, ops: Sequence[Op], sizes: Sequence[float] = (1.0,)) -> Network:
    """A network of up to a dozen nodes with sums, products and the given ops."""
    g, values = _Graph(rng, sizes, ops), [0]
    kinds = [g.linear, g.relu] * 3 + [g.sum, g.product, g.scale, g.moved] + ([g.other] if ops else [])
    for _ in range(int(rng.integers(4, 12))):
        kind = kinds[int(rng.integers(len(kinds)))]
        values.append(kind(int(rng.choice(values[-3:])), int(rng.choice(values))))
    last = g.add(Linear(rng.normal(size=(2, WIDTH)), rng.normal(size=2)), values[-1], size=2)
    return Network(tuple(g.nodes), last)


def random_box(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Around whole and half numbers; points, thin and wide sides."""
    centre = rng.choice([0.0, 1.0, 0.5], WIDTH) * rng.choice([1, -1], WIDTH)
    radius = rng.choice([0.0, 1e-16, 1e-9, 0.5, 1.0], WIDTH)
    return centre - radius, centre + radius


# Values of a network.

SCALARS: dict[str, Callable[[Fraction], Fraction]] = {
    "Relu": lambda x: max(x, Fraction(0)),
    "Square": lambda x: x * x,
    "Sign": lambda x: Fraction((x > 0) - (x < 0)),
    "Floor": lambda x: Fraction(floor(x)),
    "Round": lambda x: Fraction(round(x)),
    "Trunc": lambda x: Fraction(int(x)),
    "IsZero": lambda x: Fraction(x == 0),
}


def from_mpmath(x: mp.mpf) -> Fraction:
    """The same number; its exponent must be one that fits into memory."""
    sign, mantissa, exponent, _ = x._mpf_
    assert abs(exponent) < 10**6
    return (-1) ** sign * Fraction(int(mantissa)) * Fraction(2) ** int(exponent)


def points_of(
    lower: np.ndarray, upper: np.ndarray, rng: np.random.Generator, count: int
) -> Iterator[list[Fraction]]:
    """Points of a box, two of three corners."""
    for i in range(count):
        share = rng.random(len(lower))
        share = share if i % 3 == 2 else np.rint(share)
        x = np.clip(lower + share * (upper - lower), lower, upper)
        yield [Fraction(float(v)) for v in x]


@dataclass
class Exact:
    """A network over the rationals; weights that are known up to an error are somewhere in their ranges.

    Attributes:
        network: Any.
        functions: For elementwise ops that are not among `SCALARS`.
        rng: Chooses the ends of the ranges of inexact weights.
    """

    network: Network
    functions: Callable[[Op], Callable[[mp.mpf], mp.mpf] | None] = lambda op: None
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))

    @cached_property
    def _matrices(self) -> dict[int, tuple[list[np.ndarray], np.ndarray]]:
        return {k: self._affine(n) for k, n in enumerate(self.network.nodes) if isinstance(n.op, AffineOp)}

    def _affine(self, node: Node) -> tuple[list[np.ndarray], np.ndarray]:
        """Matrices and offset; applied to unit vectors an op rounds nothing."""
        op, size = node.op, prod(node.shape)
        shapes = [self.network.nodes[i].shape for i in node.inputs]
        matrices = []
        for at, shape in enumerate(shapes):
            units = [np.zeros((prod(shape), *s)) for s in shapes]
            units[at] = np.eye(prod(shape)).reshape((-1, *shape))
            matrices.append(self._moved(exact(op.linear(*units)).reshape((-1, size)).T, op.weight_error))
        offset = np.full(size, Fraction(0))
        if op.offset is not None:
            offset = exact(np.broadcast_to(op.offset, node.shape)).reshape(-1)
        if op.offset_error is not None:
            error = exact(np.broadcast_to(op.offset_error, node.shape)).reshape(-1)
            offset = offset + error * self.rng.choice([-1, 1], size).astype(object)
        return matrices, offset

    def _moved(self, matrix: np.ndarray, error: float) -> np.ndarray:
        if not error:
            return matrix
        signs = self.rng.choice([-1, 1], matrix.shape).astype(object)
        return matrix * (1 + Fraction(error) * signs)

    def values(self, x: Sequence[Fraction]) -> Values:
        """All values at an input."""
        found: Values = [np.array([Fraction(v) for v in x], object)]
        for k, node in enumerate(self.network.nodes[1:], start=1):
            xs = [found[i] for i in node.inputs]
            if isinstance(node.op, AffineOp):
                matrices, offset = self._matrices[k]
                found.append(sum((m @ v for m, v in zip(matrices, xs, strict=True)), offset))
            elif isinstance(node.op, Multiply):
                found.append(xs[0] * xs[1])
            elif isinstance(node.op, MatMulValues):
                first, second = (
                    v.reshape(self.network.nodes[i].shape) for v, i in zip(xs, node.inputs, strict=True)
                )
                found.append(np.matmul(first, second).reshape(-1))
            else:
                function = self._scalar(node.op)
                found.append(np.array([function(v) for v in xs[0]], object))
        return found

    def _scalar(self, op: Op) -> Callable[[Fraction], Fraction]:
        known, smooth = SCALARS.get(type(op).__name__), self.functions(op)
        if known is not None:
            return known
        assert isinstance(op, ElementwiseOp) and smooth is not None, op

        def function(x: Fraction) -> Fraction:
            with mp.workdps(DIGITS):
                return from_mpmath(smooth(mp.mpf(x.numerator) / x.denominator))

        return function


# Programs.


def column_values(program: RegionProgram, values: Values) -> np.ndarray:
    """The columns of a region's program at a point; elements that share one must agree."""
    x = np.full(len(program.program.cost), None, object)
    for k, columns in program.columns.items():
        for element in np.flatnonzero(columns >= 0):
            at = columns[element]
            assert x[at] is None or x[at] == values[k][element], f"value {k} shares a column with another"
            x[at] = values[k][element]
    assert all(v is not None for v in x)
    return x


def dot(row: Sequence[float], x: Sequence[Fraction]) -> Fraction:
    """The exact product of floats with rationals."""
    return sum((Fraction(float(a)) * b for a, b in zip(row, x, strict=True)), Fraction(0))


def sparse_rows(matrix: object) -> list[list[tuple[int, Fraction]] | None]:
    """Columns and coefficients of each row; None for rows with coefficients that are not finite."""
    from scipy import sparse

    m = sparse.csr_array(matrix)
    rows = [slice(a, b) for a, b in zip(m.indptr, m.indptr[1:], strict=False)]
    return [
        [(int(c), Fraction(float(v))) for c, v in zip(m.indices[r], m.data[r], strict=True)]
        if np.isfinite(m.data[r]).all()
        else None
        for r in rows
    ]


def outside(value: Fraction, low: float, high: float) -> bool:
    """Whether a number is out of a range of floats; an end that is NaN says nothing."""
    below = low == np.inf or (np.isfinite(low) and value < Fraction(float(low)))
    return below or high == -np.inf or (np.isfinite(high) and value > Fraction(float(high)))


def violations(lp: LinearProgram, x: Sequence[Fraction]) -> list[str]:
    """What a point violates; rows that overflow must have no ends."""
    found = [f"column {j}" for j in range(len(x)) if outside(x[j], lp.lower[j], lp.upper[j])]
    for i, (row, low, high) in enumerate(zip(sparse_rows(lp.matrix), *lp.row_ends, strict=True)):
        if row is None:
            wrong = np.isfinite(low) or np.isfinite(high)
        else:
            wrong = outside(sum((v * x[c] for c, v in row), Fraction(0)), low, high)
        if wrong:
            found.append(f"row {i}")
    return found


def exact_minimum(lp: LinearProgram) -> Fraction | None:
    """The minimum over the vertices of a program whose columns are boxed; None if no point is feasible."""
    size = len(lp.cost)
    matrix = lp.matrix if isinstance(lp.matrix, np.ndarray) else lp.matrix.toarray()
    rows = [*exact(np.eye(size)), *exact(matrix)]
    ends = [*zip(lp.lower, lp.upper, strict=True), *zip(*lp.row_ends, strict=True)]
    planes = [[Fraction(float(e)) for e in sorted(set(pair)) if np.isfinite(e)] for pair in ends]
    cost, best = exact(lp.cost), None
    for chosen in combinations(range(len(rows)), size):
        inverse = _inverse([rows[i] for i in chosen])
        if inverse is None:
            continue
        for right in product(*(planes[i] for i in chosen)):
            x = inverse @ np.array(right, object)
            value = cost @ x
            if (best is None or value < best) and not any(
                outside(r @ x, *end) for r, end in zip(rows, ends, strict=True)
            ):
                best = value
    return best


def _inverse(rows: list[np.ndarray]) -> np.ndarray | None:
    """Of a square matrix, by Gauss and Jordan."""
    size = len(rows)
    m = np.concatenate([np.array(rows, object), exact(np.eye(size))], axis=1)
    for i in range(size):
        pivot = next((j for j in range(i, size) if m[j, i] != 0), None)
        if pivot is None:
            return None
        m[[i, pivot]] = m[[pivot, i]]
        m[i] = m[i] / m[i, i]
        for j in range(size):
            if j != i and m[j, i] != 0:
                m[j] = m[j] - m[j, i] * m[i]
    return m[:, size:]


def is_semidefinite(matrix: np.ndarray) -> bool:
    """Whether a symmetric matrix of floats is positive semidefinite, by symmetric elimination."""
    m = exact(matrix)
    assert (m == m.T).all()
    while len(m):
        pivot = max(range(len(m)), key=lambda i: m[i, i])
        if m[pivot, pivot] <= 0:
            return bool((m == 0).all())  # no diagonal entry is positive
        rest = np.delete(np.arange(len(m)), pivot)
        column = m[rest, pivot]
        m = m[np.ix_(rest, rest)] - np.outer(column, column) / m[pivot, pivot]
    return True
