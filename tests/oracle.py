"""An oracle for tiny dense ReLU networks that shares no code with lpverify.

A network is a list of `(W, b)` float32 layers with ReLU between them; a query is a tree of `Row`s over
inputs and outputs, all numbers exact. `decide` walks the activation cells of the input boxes with exact
vertices (double description, `fractions.Fraction`): no LP, no rounding. Where the cells are too many
it falls back to a MILP (big-M, HiGHS) and says how clear its answer is.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np

Layers = Sequence[tuple[np.ndarray, np.ndarray]]
Ends = tuple[tuple[Fraction, Fraction], ...]
Vertex = tuple[int, tuple[Fraction, ...]]  # the constraints that are tight (bits), inputs and layer values
Cell = list[Vertex]

CLOSE = 1e-5  # relative to the size of what is summed: float32 replays can't tell values closer than that


@dataclass(frozen=True)
class Row:
    """`sum coefficient * variable <= bound` (`<` when strict); inputs are numbered first, then outputs."""

    terms: tuple[tuple[int, Fraction], ...]
    bound: Fraction
    strict: bool = False

    def value(self, values: Sequence[Fraction]) -> Fraction:
        """Left minus right side."""
        return sum((c * values[v] for v, c in self.terms), -self.bound)


@dataclass(frozen=True)
class Tree:
    """`and` or `or` of rows and trees."""

    kind: str
    children: tuple["Row | Tree", ...]


@dataclass(frozen=True)
class Answer:
    """What the oracle knows.

    Attributes:
        verdict: `sat` or `unsat`; `close` when a MILP can't tell.
        exact: The verdict is a proof, even where it is close.
        close: Moving all thresholds by `CLOSE` times their size changes the verdict.
    """

    verdict: str
    exact: bool
    close: bool


class TooManyCellsError(Exception):
    """The exact walk was given up."""


def row(terms: dict[int, object], bound: object, strict: bool = False) -> Row:
    """A row of numbers of any kind; zero coefficients go."""
    exact = tuple(sorted((v, Fraction(c)) for v, c in terms.items() if Fraction(c)))
    return Row(exact, Fraction(bound), strict)


def box_rows(ends: Sequence[tuple[object, object]]) -> tuple[Row, ...]:
    """The rows of an input box."""
    pairs = [(row({i: -1}, -Fraction(l)), row({i: 1}, u)) for i, (l, u) in enumerate(ends)]
    return tuple(r for pair in pairs for r in pair)


def fold(tree: Row | Tree, leaf: Callable[[Row], bool]) -> bool:
    """Truth of a tree, given that of its rows."""
    if isinstance(tree, Row):
        return leaf(tree)
    return (all if tree.kind == "and" else any)(fold(child, leaf) for child in tree.children)


def holds(tree: Row | Tree, values: Sequence[object]) -> bool:
    """Exact truth at numbers for all inputs and outputs (floats are taken as they are)."""
    exact = [Fraction(v) for v in values]
    return fold(tree, lambda r: r.value(exact) < 0 if r.strict else r.value(exact) <= 0)


def disjuncts(tree: Row | Tree) -> list[tuple[Row, ...]]:
    """The tree as an `or` of `and`s."""
    if isinstance(tree, Row):
        return [(tree,)]
    parts = [disjuncts(child) for child in tree.children]
    if tree.kind == "or":
        return [d for part in parts for d in part]
    return [tuple(r for d in choice for r in d) for choice in product(*parts)]


def forward(layers: Layers, x: Sequence[Fraction]) -> list[Fraction]:
    """The network's exact outputs."""
    values = list(x)
    for i, (weight, bias) in enumerate(exact_layers(layers)):
        values = list(_affine(weight, bias, values))
        values = values if i == len(layers) - 1 else [max(v, Fraction(0)) for v in values]
    return values


def exact_layers(layers: Layers) -> list[tuple[list[list[Fraction]], list[Fraction]]]:
    """The weights as fractions."""
    return [
        ([[Fraction(float(w)) for w in r] for r in m], [Fraction(float(v)) for v in b]) for m, b in layers
    ]


def box_of(rows: Sequence[Row], inputs: int) -> Ends | None:
    """The closed box that the rows over single inputs describe; None when it is empty."""
    lower: dict[int, Fraction] = {}
    upper: dict[int, Fraction] = {}
    for r in rows:
        if len(r.terms) == 1 and r.terms[0][0] < inputs:
            (v, c), bound = r.terms[0], r.bound / r.terms[0][1]
            ends, better = (upper, min) if c > 0 else (lower, max)
            ends[v] = better(ends.get(v, bound), bound)
    ends = tuple((lower[i], upper[i]) for i in range(inputs))
    return ends if all(l <= u for l, u in ends) else None


# The exact walk: cells as vertex lists with tight constraints.


def box_cell(ends: Ends) -> Cell:
    """The corners of a box."""
    sides = [
        [(3 << 2 * i, l)] if l == u else [(1 << 2 * i, l), (2 << 2 * i, u)] for i, (l, u) in enumerate(ends)
    ]
    return [(sum(bits for bits, _ in corner), tuple(v for _, v in corner)) for corner in product(*sides)]


def cut(cell: Cell, heights: Sequence[Fraction], bit: int) -> Cell:
    """The part of a cell where an affine function, given by its values at the vertices, is <= 0."""
    kept = [(mask | bit if h == 0 else mask, p) for (mask, p), h in zip(cell, heights, strict=True) if h <= 0]
    below = [(v, h) for v, h in zip(cell, heights, strict=True) if h < 0]
    above = [(v, h) for v, h in zip(cell, heights, strict=True) if h > 0]
    for (mask_b, p), h in below:
        for (mask_a, q), g in above:
            common = mask_a & mask_b
            if sum(1 for mask, _ in cell if mask & common == common) == 2:  # an edge of the cell
                share = h / (h - g)
                kept.append((common | bit, tuple(a + share * (b - a) for a, b in zip(p, q, strict=True))))
    return kept


def cells(layers: Layers, ends: Ends, most: int) -> list[Cell]:
    """All activation cells of a box; vertices carry inputs, then outputs.

    Raises:
        TooManyCellsError: There are more than `most`.
    """
    inputs, number = len(ends), 2 * len(ends)
    found = [[(mask, (*x, *x)) for mask, x in box_cell(ends)]]
    for depth, (weight, bias) in enumerate(exact_layers(layers)):
        found = [[(m, (*p[:inputs], *_affine(weight, bias, p[inputs:]))) for m, p in cell] for cell in found]
        if depth == len(layers) - 1:
            break
        for neuron in range(len(bias)):
            found = [part for cell in found for part in _phases(cell, inputs + neuron, 1 << number)]
            number += 1
            if len(found) > most:
                raise TooManyCellsError
    return found


def _affine(weight: list[list[Fraction]], bias: list[Fraction], x: Sequence[Fraction]) -> Iterator[Fraction]:
    for r, b in zip(weight, bias, strict=True):
        yield sum((w * v for w, v in zip(r, x, strict=True) if w), b)


def _phases(cell: Cell, place: int, bit: int) -> Iterator[Cell]:
    """The inactive and the active part of a cell, with the ReLU applied."""
    heights = [p[place] for _, p in cell]
    if min(heights) >= 0:
        yield cell
        return
    inactive = cut(cell, heights, bit)
    yield [(mask, (*p[:place], Fraction(0), *p[place + 1 :])) for mask, p in inactive]
    if max(heights) > 0:
        yield cut(cell, [-h for h in heights], bit)


def meets(cell: Cell, rows: Sequence[Row]) -> bool:
    """Whether some point of a cell satisfies all rows."""
    for i, r in enumerate(rows):
        cell = cut(cell, [r.value(p) for _, p in cell], 1 << (10_000 + i))
        if not cell:
            return False
    # The closed rows have a common point; if each strict one is strict somewhere, all are at the mean.
    return all(any(r.value(p) < 0 for _, p in cell) for r in rows if r.strict)


def sizes(layers: Layers, ends: Ends) -> list[float]:
    """For inputs and outputs, the sum of the absolute values of everything that is added up in them."""
    inputs = [float(max(abs(l), abs(u))) for l, u in ends]
    size = np.array(inputs)
    for weight, bias in layers:
        size = np.abs(weight.astype(np.float64)) @ size + np.abs(bias.astype(np.float64))
    return [*inputs, *size.tolist()]


def moved(rows: Sequence[Row], inputs: int, size: Sequence[float], share: float) -> tuple[Row, ...]:
    """Rows made easier (`share` > 0) or harder by a share of their size; those of the input box stay."""
    result = []
    for r in rows:
        if len(r.terms) == 1 and r.terms[0][0] < inputs:
            result.append(r)
            continue
        total = sum(abs(float(c)) * size[v] for v, c in r.terms) + abs(float(r.bound))
        result.append(replace(r, bound=r.bound + Fraction(share * total + np.sign(share) * 1e-30)))
    return tuple(result)


def minimum(layers: Layers, ends: Ends, terms: dict[int, object], most: int = 3000) -> Fraction:
    """The exact minimum of a linear form of inputs and outputs over a box."""
    form = row(terms, 0)
    return min(form.value(p) for cell in cells(layers, ends, most) for _, p in cell)


def decide(layers: Layers, tree: Row | Tree, most: int = 600) -> Answer:
    """Decides whether some input satisfies the tree; exact with up to `most` cells a box."""
    inputs = layers[0][0].shape[1]
    options = [(box_of(rows, inputs), rows) for rows in disjuncts(tree)]
    options = [(ends, rows) for ends, rows in options if ends is not None]
    walk = cache(lambda ends: cells(layers, ends, most))
    try:
        found = [_decide_exactly(layers, walk, options, share) for share in (0.0, CLOSE, -CLOSE)]
    except TooManyCellsError:
        return _answer_of_margin([_margin(layers, ends, rows) for ends, rows in options])
    return Answer("sat" if found[0] else "unsat", True, found[1] != found[2])


def _decide_exactly(
    layers: Layers,
    walk: Callable[[Ends], list[Cell]],
    options: list[tuple[Ends, tuple[Row, ...]]],
    share: float,
) -> bool:
    for ends, rows in options:
        size = sizes(layers, ends)
        shifted = moved(rows, len(ends), size, share) if share else rows
        if any(meets(cell, shifted) for cell in walk(ends)):
            return True
    return False


# The fallback: one MILP for each disjunct, minimising the largest relative violation.


def _answer_of_margin(margins: list[float]) -> Answer:
    margin = min(margins, default=1.0)
    if abs(margin) < CLOSE:
        return Answer("close", False, True)
    return Answer("sat" if margin < 0 else "unsat", False, False)


def _margin(layers: Layers, ends: Ends, rows: tuple[Row, ...]) -> float:
    """The minimum over a box of the rows' largest violation, each relative to its size."""
    from scipy import optimize

    model = _Milp(layers, ends)
    size = sizes(layers, ends)
    inputs = len(ends)
    for r in rows:
        total = sum(abs(float(c)) * size[v] for v, c in r.terms) + abs(float(r.bound)) + 1e-30
        columns = {model.column(v, inputs): float(c) / total for v, c in r.terms}
        soft = len(r.terms) > 1 or r.terms[0][0] >= inputs
        model.add({**columns, 0: -1.0 if soft else 0.0}, -np.inf, float(r.bound) / total)
    cost = np.zeros(len(model.lower))
    cost[0] = 1.0
    answer = optimize.milp(
        cost,
        integrality=np.array(model.integer),
        bounds=optimize.Bounds(model.lower, model.upper),
        constraints=optimize.LinearConstraint(*model.constraints()),
        options={"mip_rel_gap": 0.0, "time_limit": 20.0},
    )
    if answer.status == 2:
        return 1.0
    return float(answer.x[0]) if answer.status == 0 else 0.0


class _Milp:
    """A growing model of a network on a box; column 0 is the largest violation."""

    def __init__(self, layers: Layers, ends: Ends) -> None:
        self.lower, self.upper, self.integer = [-2.0], [2.0], [0]
        self.rows: list[tuple[dict[int, float], float, float]] = []
        low, high = np.array(ends, dtype=np.float64).T
        values = [self.variable(l, u) for l, u in zip(low, high, strict=True)]
        for i, (weight, bias) in enumerate(layers):
            wide, offset = weight.astype(np.float64), bias.astype(np.float64)
            positive, negative = np.maximum(wide, 0), np.minimum(wide, 0)
            low, high = positive @ low + negative @ high + offset, positive @ high + negative @ low + offset
            affine = zip(wide, offset, low, high, strict=True)
            values = [self.linear(r, values, float(b), l, u) for r, b, l, u in affine]
            if i < len(layers) - 1:
                values = [self.relu(z, l, u) for z, l, u in zip(values, low, high, strict=True)]
                low, high = np.maximum(low, 0), np.maximum(high, 0)
        self.outputs = values

    def variable(self, low: float, high: float, integer: int = 0) -> int:
        self.lower.append(low)
        self.upper.append(high)
        self.integer.append(integer)
        return len(self.lower) - 1

    def column(self, v: int, inputs: int) -> int:
        return 1 + v if v < inputs else self.outputs[v - inputs]

    def add(self, columns: dict[int, float], low: float, high: float) -> None:
        self.rows.append((columns, low, high))

    def linear(self, r: np.ndarray, values: list[int], bias: float, low: float, high: float) -> int:
        z = self.variable(low, high)
        self.add({z: -1.0, **{v: float(w) for v, w in zip(values, r, strict=True)}}, -bias, -bias)
        return z

    def relu(self, z: int, low: float, high: float) -> int:
        if low >= 0:
            return z
        y = self.variable(0.0, max(high, 0.0))
        if high > 0:
            phase = self.variable(0, 1, 1)
            self.add({y: 1.0, z: -1.0}, 0.0, np.inf)
            self.add({y: 1.0, z: -1.0, phase: -low}, -np.inf, -low)
            self.add({y: 1.0, phase: -high}, -np.inf, 0.0)
        return y

    def constraints(self) -> tuple[np.ndarray, list[float], list[float]]:
        matrix = np.zeros((len(self.rows), len(self.lower)))
        for i, (columns, _, _) in enumerate(self.rows):
            for column, factor in columns.items():
                matrix[i, column] += factor
        return matrix, [low for _, low, _ in self.rows], [high for _, _, high in self.rows]


# Files.


def onnx_bytes(layers: Layers, style: str = "gemm") -> bytes:
    """The network as ONNX: `gemm` (with transB) or `matmul` (MatMul and Add)."""
    from onnx import TensorProto, helper, numpy_helper

    nodes, tensors, value = [], [], "x"
    for i, (weight, bias) in enumerate(layers):
        matrix = weight if style == "gemm" else weight.T
        tensors.append(numpy_helper.from_array(np.ascontiguousarray(matrix, np.float32), f"w{i}"))
        tensors.append(numpy_helper.from_array(np.asarray(bias, np.float32), f"b{i}"))
        if style == "gemm":
            nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [f"z{i}"], transB=1))
        else:
            nodes.append(helper.make_node("MatMul", [value, f"w{i}"], [f"p{i}"]))
            nodes.append(helper.make_node("Add", [f"p{i}", f"b{i}"], [f"z{i}"]))
        value = f"z{i}"
        if i < len(layers) - 1:
            nodes.append(helper.make_node("Relu", [value], [f"h{i}"]))
            value = f"h{i}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in (("x", layers[0][0].shape[1]), (value, layers[-1][0].shape[0]))
    ]
    graph = helper.make_graph(nodes, "net", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return model.SerializeToString(deterministic=True)


def vnnlib_text(tree: Tree, inputs: int, outputs: int) -> str:
    """The query as VNN-LIB 1; the children of an outer `and` become assertions of their own."""
    names = [*(f"X_{i}" for i in range(inputs)), *(f"Y_{i}" for i in range(outputs))]
    parts = tree.children if tree.kind == "and" else (tree,)
    lines = [f"(declare-const {name} Real)" for name in names]
    return "\n".join([*lines, *(f"(assert {_text(part, names)})" for part in parts), ""])


def _text(tree: Row | Tree, names: list[str]) -> str:
    if isinstance(tree, Tree):
        return f"({tree.kind} {' '.join(_text(child, names) for child in tree.children)})"
    op = "<" if tree.strict else "<="
    if len(tree.terms) == 1 and tree.terms[0][1] == -1:
        return f"({op.replace('<', '>')} {names[tree.terms[0][0]]} {number_text(-tree.bound)})"
    terms = [names[v] if c == 1 else f"(* {number_text(c)} {names[v]})" for v, c in tree.terms]
    left = terms[0] if len(terms) == 1 else f"(+ {' '.join(terms)})"
    return f"({op} {left} {number_text(tree.bound)})"


def number_text(number: Fraction) -> str:
    """An exact decimal where there is a finite one, a quotient otherwise."""
    rest, places = number.denominator, 0
    while rest % 10 == 0:
        rest, places = rest // 10, places + 1
    twos = (rest & -rest).bit_length() - 1
    fives, rest = 0, rest >> twos
    while rest % 5 == 0:
        rest, fives = rest // 5, fives + 1
    if rest > 1:
        return f"(/ {number.numerator}.0 {number.denominator}.0)"
    places += max(twos, fives)
    digits = str(abs(number.numerator) * 10**places // number.denominator).rjust(places + 1, "0")
    text = f"{digits[: len(digits) - places]}.{digits[len(digits) - places :] or '0'}"
    return f"-{text}" if number < 0 else text
