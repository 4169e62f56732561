"""The compiled kernel's bounds hold bit for bit: everything is compared in exact arithmetic, no tolerance.

Each case is a graph with boxes. Its exact values at many points of every box (corners, among them those that
minimise the returned slopes) must not be below a bound, a linear row or the lower end of a neuron's box.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cache, cached_property
from itertools import pairwise, product
from math import inf, nan, nextafter

import numpy as np
import pytest
from helpers import box_assertions, query_of, random_dense

import lpverify.kernels.dense as dense
from lpverify.bounds.condense import condense
from lpverify.bounds.evaluate import Batch, double_precision, evaluate
from lpverify.bounds.propagate import Region
from lpverify.kernels.dense import (
    Affine,
    Ascent,
    Block,
    DenseBounds,
    DenseGraph,
    DenseKernel,
    Rectifier,
    block_of,
)
from lpverify.multipliers import Effort
from lpverify.problem import compile_problem
from lpverify.query import float_above, float_below

MODULE = dense.extension()
SETS = [] if MODULE is None else MODULE.instruction_sets()
needs_kernel = pytest.mark.skipif(MODULE is None, reason="the compiled kernel was not built")
pytestmark = needs_kernel


@pytest.fixture(autouse=True)
def quiet():
    """Overflow warnings are fine here; wrong bounds are not."""
    with np.errstate(all="ignore"):
        yield


# Exact arithmetic on arrays: floats are whole numbers times powers of two.


@dataclass(frozen=True)
class Exact:
    """`whole * 2**power`, elementwise; `whole` is an array of Python integers."""

    whole: np.ndarray
    power: int

    @staticmethod
    def of(array):
        mantissa, exponent = np.frexp(np.asarray(array, np.float64))
        used = exponent[mantissa != 0] - 53
        power = int(used.min(initial=0)) if used.size else 0
        whole = (mantissa * 2.0**53).astype(np.int64).astype(object)
        shift = np.where(mantissa != 0, exponent - 53 - power, 0).astype(object)
        return Exact(np.asarray(whole * 2**shift, object), power)

    def at(self, power):
        """The integers for a smaller power."""
        return self.whole * 2 ** (self.power - power)

    def __add__(self, other):
        power = min(self.power, other.power)
        return Exact(self.at(power) + other.at(power), power)

    def __mul__(self, other):
        return Exact(self.whole * other.whole, self.power + other.power)

    def __matmul__(self, other):
        return Exact(np.dot(self.whole, other.whole), self.power + other.power)

    def __getitem__(self, index):
        return Exact(self.whole[index], self.power)

    def __le__(self, other):
        power = min(self.power, other.power)
        return np.asarray(self.at(power) <= other.at(power), bool)

    def negative(self):
        return Exact(-self.whole, self.power)

    def positive_part(self):
        return Exact(np.maximum(self.whole, 0), self.power)

    def total(self):
        """Sum along the last axis."""
        return Exact(np.asarray(self.whole.sum(axis=-1), object), self.power)

    def fraction(self, *index):
        return Fraction(int(self.whole[index])) * Fraction(2) ** self.power


def below(bounds, values):
    """Elementwise: whether floats are proper lower bounds of exact values; NaN and inf are not."""
    finite = np.isfinite(bounds)
    return np.where(finite, Exact.of(np.where(finite, bounds, 0.0)) <= values, bounds == -inf)


def above(bounds, values):
    return below(-np.asarray(bounds), values.negative())


# Graphs.


class Net:
    """A graph under construction; `last` is the number of its last node."""

    def __init__(self, inputs):
        self.inputs, self.nodes = inputs, []

    @property
    def last(self):
        return len(self.nodes)

    def affine(self, bias, *parts, error=0.0, bias_error=None):
        """Parts are blocks, or pairs of a node and a matrix."""
        blocks = tuple(p if isinstance(p, Block) else block_of(p[0], np.array(p[1], float)) for p in parts)
        bias = np.array(bias, float)
        bias_error = np.zeros(len(bias)) if bias_error is None else np.array(bias_error, float)
        self.nodes.append(Affine(blocks, bias, bias_error, error))
        return self.last

    def relu(self, source):
        self.nodes.append(Rectifier(source, self.width(source)))
        return self.last

    def width(self, node):
        return self.nodes[node - 1].width if node else self.inputs

    def graph(self):
        values = {n.source: n.source for n in self.nodes if isinstance(n, Rectifier)}
        return DenseGraph(self.inputs, tuple(self.nodes), values)


def chain(inputs, *layers):
    """Affine nodes `(weight, bias)` with ReLUs between them."""
    net = Net(inputs)
    for i, (weight, bias) in enumerate(layers):
        source = net.relu(net.last) if i else 0
        net.affine(bias, (source, weight))
    return net.graph()


def copies(source, cols, rows):
    """A block from lists of entries `(column, value)`, one list a row, in that order."""
    start = np.cumsum([0, *map(len, rows)]).astype(np.int32)
    column = np.array([c for r in rows for c, _ in r], np.int32)
    return Block(source, cols, start, column, np.array([v for r in rows for _, v in r], float))


def halved(rng, block):
    """Each entry in two or three parts of the same column, shuffled within the row."""
    rows = []
    for first, last in pairwise(block.start):
        row = []
        for c, v in zip(block.column[first:last], block.value[first:last], strict=True):
            part = v * rng.normal()
            row += [(c, part), (c, v - part)] if rng.integers(2) else [(c, v), (c, part), (c, -0.9 * part)]
        rows.append([row[i] for i in rng.permutation(len(row))])
    return copies(block.source, block.cols, rows)


class Function:
    """A graph evaluated exactly.

    With the `gradients` of a form in the values of all nodes at some point, every weight and bias is at that
    end of its errors that makes the form smaller there.
    """

    def __init__(self, graph, values=None, gradients=None):
        self.graph, self.parts = graph, []
        for k, node in enumerate(graph.nodes, start=1):
            if isinstance(node, Rectifier):
                self.parts.append(None)
                continue
            bias, signs = Exact.of(node.bias), [None] * len(node.blocks)
            if gradients is not None:
                bias = bias + Exact.of(np.where(gradients[k] > 0, -1.0, 1.0)) * Exact.of(node.bias_error)
                signs = [self.signs(b, values[b.source], gradients[k]) for b in node.blocks]
            matrices = [self.matrix(b, node.weight_error, s) for b, s in zip(node.blocks, signs, strict=True)]
            self.parts.append((bias, matrices))

    @staticmethod
    def signs(block, value, gradient):
        """For each entry whether a larger magnitude makes the form smaller."""
        row = np.repeat(np.arange(len(block.start) - 1), np.diff(block.start))
        return block.value * gradient[row] * value[block.column] < 0

    @staticmethod
    def matrix(block, error, signs):
        """`(cols, rows)`; entries of a column that occurs more than once are added up."""
        value = Exact.of(block.value)
        if signs is not None and error:
            ends = Exact.of(np.array([-error, error])) + Exact.of(np.ones(2))  # exactly
            value = value * ends[signs.astype(int)]
        rows = len(block.start) - 1
        matrix = np.zeros((block.cols, rows), object)
        row = np.repeat(np.arange(rows), np.diff(block.start))
        for i, j, v in zip(row, block.column, value.whole, strict=True):
            matrix[j, i] += v
        return Exact(matrix, value.power)

    def __call__(self, points):
        """All values at points `(M, n)`."""
        values = [Exact.of(points)]
        for node, part in zip(self.graph.nodes, self.parts, strict=True):
            if part is None:
                values.append(values[node.source].positive_part())
                continue
            bias, matrices = part
            total = Exact(np.broadcast_to(bias.whole, (len(points), node.width)), bias.power)
            for block, matrix in zip(node.blocks, matrices, strict=True):
                total = total + values[block.source] @ matrix
            values.append(total)
        return values


def gradients(graph, x, form):
    """All values at a point in floating point, and what a form gains from each."""
    values = [x]
    for node in graph.nodes:
        if isinstance(node, Rectifier):
            values.append(np.maximum(values[node.source], 0))
        else:
            parts = [matrix_of(b) @ values[b.source] for b in node.blocks]
            values.append(sum(parts, node.bias))
    found = [np.zeros(len(v)) for v in values]
    found[-1][form] = 1.0
    for k in range(len(graph.nodes), 0, -1):
        node = graph.nodes[k - 1]
        if isinstance(node, Rectifier):
            found[node.source] += found[k] * (values[node.source] > 0)
        else:
            for b in node.blocks:
                found[b.source] += found[k] @ matrix_of(b)
    return values, found


def matrix_of(block):
    """The block's matrix in floating point."""
    matrix = np.zeros((len(block.start) - 1, block.cols))
    np.add.at(matrix, (np.repeat(np.arange(len(matrix)), np.diff(block.start)), block.column), block.value)
    return matrix


@dataclass(frozen=True)
class Case:
    """A graph and its boxes `(B, n)`."""

    graph: DenseGraph
    lower: np.ndarray
    upper: np.ndarray

    @property
    def forms(self):
        return self.graph.nodes[-1].width

    @cached_property
    def functions(self):
        """The graph and, if it has errors, for the corners of a box others within them."""
        found = [Function(self.graph)]
        affine = [n for n in self.graph.nodes if isinstance(n, Affine)]
        if any(n.weight_error or n.bias_error.any() for n in affine):
            corners = np.array(list(product(*zip(self.lower[0], self.upper[0], strict=True))))
            found += [
                Function(self.graph, *gradients(self.graph, x, f)) for x in corners for f in range(self.forms)
            ]
        return found

    @cached_property
    def points(self):
        """Corners, centres and others: `(M, n)`, and whose box each is in `(M,)`."""
        rng, found, owner = np.random.default_rng(0), [], []
        n = self.lower.shape[1]
        for b, (low, high) in enumerate(zip(self.lower, self.upper, strict=True)):
            corners = list(product((False, True), repeat=n)) if n <= 3 else rng.integers(0, 2, (8, n))
            mine = [np.where(c, high, low) for c in np.array(corners, bool)]
            mine.append(0.5 * low + 0.5 * high)
            mine += [low + (high - low) * rng.random(n) for _ in range(4)]
            mine = np.clip(mine, low, high)
            found.append(mine)
            owner.append(np.full(len(mine), b))
        return np.concatenate(found), np.concatenate(owner)

    @cached_property
    def values(self):
        """All values of all functions at the points."""
        return [function(self.points[0]) for function in self.functions]


@dataclass(frozen=True)
class Knowledge:
    """What is given to the kernel beside the boxes: boxes of neurons `(B, neurons)` and splits `(B, S)`."""

    lower: np.ndarray
    upper: np.ndarray
    split: np.ndarray
    side: np.ndarray

    @staticmethod
    def none(count, neurons):
        ends = np.full((2, count, neurons), inf)
        nothing = np.zeros((count, 0))
        return Knowledge(-ends[0], ends[1], nothing.astype(np.int32), nothing.astype(np.int8))


class Checker:
    """A kernel for a case, and the comparisons."""

    def __init__(self, case, instruction_set, double):
        self.case, self.double = case, double
        self.kernel = DenseKernel(case.graph, instruction_set)
        self.neurons = self.kernel.neurons

    def neuron_values(self, values):
        """The exact values `(M, neurons)` of the operands of ReLUs."""
        order = sorted((first, k) for k, first in self.kernel.offsets.items())
        parts = [values[k] for _, k in order]
        power = min((p.power for p in parts), default=0)
        whole = [p.at(power) for p in parts] or [np.zeros((len(values[0].whole), 0), object)]
        return Exact(np.concatenate(whole, axis=1), power)

    def bound(self, knowledge, threads=1, **more):
        """The result, and the boxes of neurons that were found; all forms are wanted, the last one twice."""
        case, count = self.case, len(self.case.lower)
        forms = np.array([*range(case.forms), -1, case.forms - 1], np.int32)
        wanted = np.ascontiguousarray(np.broadcast_to(forms, (count, len(forms))))
        known = knowledge.lower.copy(), knowledge.upper.copy()
        splits = knowledge.split, knowledge.side
        box = case.lower, case.upper
        return self.kernel.bound(box, known, wanted, splits, self.double, threads, **more), known

    def run(self, knowledge, split_needed=False, **more):
        """Bounds, and compares at all points of the boxes that have what is known; returns the bounds."""
        found, known = self.bound(knowledge, **more)
        assert not np.isnan(found.value).any() and not np.isnan(found.height).any()
        assert (found.value < inf).all() and (found.height < inf).all() and (found.split_height < inf).all()
        assert (known[0] >= knowledge.lower).all() and (known[1] <= knowledge.upper).all()
        assert (found.value[:, -2] == -inf).all() and (found.height[:, -2] == -inf).all(), "not wanted"
        for i, (function, values) in enumerate(zip(self.case.functions, self.case.values, strict=True)):
            compared = self.compare(knowledge, found, known, *self.case.points, values, split_needed)
            assert i or split_needed or len(np.unique(compared)) == len(self.case.lower), (
                "a box without a point"
            )
            points, owner = self.minimisers(found)
            self.compare(knowledge, found, known, points, owner, function(points), split_needed)
        return found

    def minimisers(self, found):
        """The corners at which the linear rows are least, and those of the splits greatest."""
        lower, upper = self.case.lower[:, None], self.case.upper[:, None]
        corners = np.concatenate(
            [np.where(found.slope > 0, lower, upper), np.where(found.split_slope > 0, upper, lower)], axis=1
        )
        owner = np.repeat(np.arange(len(lower)), corners.shape[1])
        return corners.reshape(len(owner), -1), owner

    def compare(self, knowledge, found, known, points, owner, values, split_needed):
        """Compares at those points that have what is known; returns whose boxes they are in."""
        z = self.neuron_values(values)
        holds = below(knowledge.lower[owner], z) & above(knowledge.upper[owner], z)
        holds = holds.all(axis=1)
        sign = Exact(np.sign(z.whole), 0).whole.astype(int)
        split, side = knowledge.split[owner], knowledge.side[owner]
        kept = (
            np.take_along_axis(sign, np.maximum(split, 0), axis=1) * side >= 0 if self.neurons else split < 0
        )
        kept = kept & (split >= 0)
        if split_needed:
            holds &= (kept | (split < 0)).all(axis=1)
        assert not found.empty[owner[holds]].any()
        holds &= found.empty[owner] == 0
        here, owner, z = points[holds], owner[holds], z[holds]
        forms = values[-1][holds]
        forms = forms[:, [*range(self.case.forms), 0, self.case.forms - 1]]
        assert below(found.value[owner], forms).all()
        self.rows_hold(found.slope[owner], found.height[owner], here, forms)
        assert below(known[0][owner], z).all() and above(known[1][owner], z).all()
        none = Exact(np.zeros(kept[holds].shape, object), 0)
        heights = np.where(kept[holds], found.split_height[owner], -inf)
        self.rows_hold(found.split_slope[owner], heights, here, none)
        return owner

    @staticmethod
    def rows_hold(slope, height, points, values):
        """`slope x + height <= values`, exactly, where the height is finite."""
        there = np.isfinite(height)
        assert (there | (height == -inf)).all()
        assert np.isfinite(slope[there]).all()
        slope = np.where(there[..., None], slope, 0.0)
        rows = (Exact.of(slope) * Exact.of(points[:, None])).total() + Exact.of(np.where(there, height, 0.0))
        assert (rows <= values)[there].all()

    # What may be known.

    def splits_through(self, rng, clamped, most=5):
        """Splits on whose sides some point of each box is; `clamped`: their neurons' boxes end at zero."""
        owner, z = self.case.points[1], self.neuron_values(self.case.values[0])
        count, width = len(self.case.lower), min(most, self.neurons)
        found = Knowledge.none(count, self.neurons)
        split, side = np.full((count, width + 1), -1, np.int32), np.zeros((count, width + 1), np.int8)
        for b in range(count):
            through = rng.choice(np.flatnonzero(owner == b))
            split[b, :width] = rng.choice(self.neurons, width, replace=False)
            for s in range(width):
                upper = z.whole[through, split[b, s]] >= 0
                side[b, s] = 1 if upper else -1
                if clamped:
                    (found.lower if upper else found.upper)[b, split[b, s]] = 0.0
        return Knowledge(found.lower, found.upper, split, side)

    def boxes_through(self, rng, most=2):
        """The tightest boxes of floats around all neurons at a few points of each box."""
        owner, z = self.case.points[1], self.neuron_values(self.case.values[0])
        found = Knowledge.none(len(self.case.lower), self.neurons)
        for b in range(len(self.case.lower)):
            chosen = rng.choice(np.flatnonzero(owner == b), most)
            low, high = z.whole[chosen].min(axis=0), z.whole[chosen].max(axis=0)
            for j in range(self.neurons):
                found.lower[b, j] = float_below(Fraction(low[j]) * Fraction(2) ** z.power)
                found.upper[b, j] = float_above(Fraction(high[j]) * Fraction(2) ** z.power)
        return found


# Cases.

CASES: dict[str, Callable[[], Case]] = {}


def case(function):
    CASES[function.__name__.replace("_", " ")] = function
    return function


def boxes(*ends):
    """Lower and upper ends: pairs of numbers for all inputs, or of rows of numbers."""
    width = max(np.size(e) for pair in ends for e in pair)
    return [np.array([np.broadcast_to(pair[i], width) for pair in ends], float) for i in (0, 1)]


def around(centre, *radii):
    """Boxes around a point; `None` is a box of one ulp, zero the point itself."""
    centre = np.array(centre, float)
    pairs = [(centre, np.nextafter(centre, inf)) if r is None else (centre - r, centre + r) for r in radii]
    return boxes(*pairs)


def usual(rng, inputs):
    """Boxes of many sizes around random points."""
    pairs = [around(rng.normal(size=inputs), r) for r in (2.0, 0.5, 1e-2, 1e-6, None, 0.0)]
    return [np.concatenate(part) for part in zip(*pairs, strict=True)]


def over(graph, lower, upper):
    """The case of a graph; ends of the boxes that are the same in all inputs are given once."""
    shape = (len(lower), graph.inputs)
    return Case(graph, *(np.array(np.broadcast_to(end, shape)) for end in (lower, upper)))


def random_chain(seed, sizes, scale=1.0):
    rng = np.random.default_rng(seed)
    layers = [(scale * rng.normal(size=(b, a)), rng.normal(size=b)) for a, b in pairwise(sizes)]
    return over(chain(sizes[0], *layers), *usual(rng, sizes[0]))


@case
def widths_that_are_no_multiples():
    return random_chain(0, (3, 17, 70, 5, 2))


@case
def one_neuron():
    return random_chain(1, (1, 1, 1, 1))


@case
def wide_and_narrow():
    return random_chain(2, (2, 33, 1, 48, 1))


@case
def many_inputs():
    return random_chain(3, (37, 20, 16, 3))


@case
def deep():
    return random_chain(4, (2, *([4] * 14), 2), 0.8)


@case
def no_relu():
    rng = np.random.default_rng(5)
    net = Net(3)
    net.affine(
        rng.normal(size=2), (net.affine(rng.normal(size=20), (0, rng.normal(size=(20, 3)))), np.ones((2, 20)))
    )
    return over(net.graph(), *usual(rng, 3))


@case
def only_forms_of_inputs():
    return over(
        chain(2, ([[1, 0], [0.1, -0.7], [0, 0]], [0, 1e-3, 1 / 3])), *usual(np.random.default_rng(6), 2)
    )


def skips(seed, twice):
    """Nodes that are read two, three and more times: affine nodes read several earlier ones of any kind."""
    rng = np.random.default_rng(seed)
    net = Net(int(rng.integers(1, 4)))
    for layer in range(5):
        width = int(rng.choice([1, 2, 7, 16, 23]))
        near = [net.last, *rng.choice(net.last + 1, min(net.last + 1, 1 + layer // 2), replace=False)]
        blocks = [
            block_of(s, rng.normal(size=(width, net.width(s))) / 2) for s in sorted(set(map(int, near)))
        ]
        if twice:
            blocks = [halved(rng, b) if rng.integers(2) else b for b in blocks]
        affine = net.affine(rng.normal(size=width), *blocks)
        if rng.integers(4):
            net.relu(affine)
        if not rng.integers(3):
            net.relu(affine)
    everything = [block_of(s, rng.normal(size=(3, net.width(s)))) for s in range(net.last + 1)]
    net.affine(rng.normal(size=3), *everything)
    return over(net.graph(), *usual(rng, net.inputs))


for index in range(6):
    CASES[f"skips {index}"] = lambda seed=index: skips(seed, False)
    CASES[f"skips, columns twice {index}"] = lambda seed=index: skips(10 + seed, True)


@case
def pre_activations_that_are_read_as_well():
    rng = np.random.default_rng(7)
    net = Net(2)
    z = net.affine(rng.normal(size=19), (0, rng.normal(size=(19, 2))))
    r = net.relu(z)
    y = net.affine(rng.normal(size=6), (z, rng.normal(size=(6, 19))), (r, rng.normal(size=(6, 19))))
    s = net.relu(y)
    parts = [(k, rng.normal(size=(2, net.width(k)))) for k in (0, z, r, y, s)]
    net.affine([0, 0], *parts)
    return over(net.graph(), *usual(rng, 2))


@case
def affine_nodes_in_a_row():
    rng = np.random.default_rng(8)
    net = Net(3)
    for width in (18, 5, 30):
        net.affine(rng.normal(size=width), (net.last, rng.normal(size=(width, net.width(net.last)))))
    net.relu(net.last)
    for width in (7, 9, 2):
        net.affine(rng.normal(size=width), (net.last, rng.normal(size=(width, net.width(net.last)))))
    return over(net.graph(), *usual(rng, 3))


@case
def a_node_with_eight_readers():
    rng = np.random.default_rng(9)
    net = Net(2)
    stem = net.relu(net.affine(rng.normal(size=21), (0, rng.normal(size=(21, 2)))))
    arms = [net.relu(net.affine(rng.normal(size=3), (stem, rng.normal(size=(3, 21))))) for _ in range(8)]
    net.affine([0.0], (stem, rng.normal(size=(1, 21))), *((a, rng.normal(size=(1, 3))) for a in arms))
    return over(net.graph(), *usual(rng, 2))


@case
def nodes_that_nothing_reads():
    rng = np.random.default_rng(10)
    net = Net(2)
    z = net.affine(rng.normal(size=4), (0, rng.normal(size=(4, 2))))
    first, _ = net.relu(z), net.relu(z)
    net.affine(rng.normal(size=3), (first, rng.normal(size=(3, 4))))
    net.affine(np.array([1.0, -2.0]))  # a constant
    net.affine([0.5], (first, rng.normal(size=(1, 4))), (5, [[1.0, 3.0]]))
    return over(net.graph(), *usual(rng, 2))


@case
def cancelling_weights():
    big, ulp = 1e8, float(np.nextafter(np.float32(1e8), np.float32(inf)))
    first = ([[big, 1], [ulp, -1], [-big, 1], [1, 1e-8]], [0, 0.1, -big, 1])
    second = ([[1, -1, 0, 1], [big, -ulp, 1, 3], [0.1, 0.1, 0.1, -0.7]], [0, 0, 1])
    third = ([[1, -1, 1], [-big, 1, 1e8]], [0, 0])
    ends = boxes((0, 1), (-1, 1), (0.3, 0.7), ([0.1, -0.3], [0.1, 0.4]), (0.1, nextafter(0.1, 1)))
    return over(chain(2, first, second, third), *ends)


@case
def layers_that_undo_each_other():
    rng = np.random.default_rng(11)
    half = rng.normal(size=(20, 2)).astype(np.float32)
    first = np.repeat(half, 2, axis=0)
    first[1::2] = np.nextafter(first[1::2], np.float32(inf))
    bias = 1e3 * rng.normal(size=20).repeat(2)
    second = rng.normal(size=(9, 20)).repeat(2, axis=1) * np.tile([1.0, -1.0], 20)
    return over(
        chain(2, (first, bias), (second, rng.normal(size=9)), (1e6 * rng.normal(size=(2, 9)), [0, 0])),
        *usual(rng, 2),
    )


@case
def absorbed_inputs():
    first = ([[1, 0.1], [1, 1], [-1, 3]], [1e8, 3e7, 1e16])
    return over(
        chain(2, first, ([[1, -1, 1e-8], [-1, 1, 0]], [-7e7, 7e7])), *boxes((0.5, 1), (-1, 1), (0.1, 0.2))
    )


@case
def scales_far_apart():
    rng = np.random.default_rng(12)
    layers = []
    for a, b in pairwise((2, 9, 8, 7, 2)):
        scale = 10.0 ** rng.integers(-30, 31, (b, a))
        layers.append(
            (rng.normal(size=(b, a)) * scale, rng.normal(size=b) * 10.0 ** rng.integers(-30, 31, b))
        )
    return over(chain(2, *layers), *usual(rng, 2))


@case
def scales_that_return():
    """Products of coefficients go down to 1e-60 and back up."""
    rng = np.random.default_rng(13)
    scales = (1e-30, 1e-30, 1e30, 1e30)
    layers = [
        (s * rng.normal(size=(b, a)), s * rng.normal(size=b))
        for s, (a, b) in zip(scales, pairwise((2, 6, 6, 6, 2)), strict=True)
    ]
    ends = boxes((-1, 1), (0, 1e3), (1e30, 1e35), (-1e-30, 1e-30), (0.5, 0.5))
    return over(chain(2, *layers), *ends)


@case
def subnormal_weights_of_float32():
    half = 2.0**-150
    first = ([[1e-42, half], [-half, 1.5 * half], [3e-45, -1e-44]], [1e-44, 0, half])
    ends = boxes((-1, 1), (0, 1e30), (1e37, 1.5e37), (-1e38, 1e38), (1e36, 1e36))
    return over(chain(2, first, ([[1e30, -1e30, 1], [1, 1, -1], [half, -half, half]], [0, 0, 0])), *ends)


@case
def weights_that_vanish_in_float32():
    rng = np.random.default_rng(14)
    layers = [(2.0**-150 * rng.random((b, a)), np.zeros(b)) for a, b in pairwise((3, 30))]
    layers.append((1e20 * rng.normal(size=(2, 30)), [0, 0]))
    return over(chain(3, *layers), *boxes((0, 1), (0, 1e30), (1e37, 3e37), (-2e37, 1e37)))


@case
def subnormal_weights_of_float64():
    tiny = 5e-324
    first = ([[tiny, 1e-310], [-tiny, 3 * tiny], [1e-308, 2e-308]], [tiny, -tiny, 0])
    second = ([[1e300, -1e300, 1], [1, tiny, -1]], [0, tiny])
    return over(
        chain(2, first, second),
        *boxes((-1, 1), (0, 1e300), (1e307, 1.2e308), (-1e308, 1e308), (tiny, 1e-300)),
    )


@case
def boxes_of_tiny_numbers():
    first = ([[1.0, 3.0], [0.1, -0.3]], [0, 1e-320])
    return over(
        chain(2, first, ([[0.7, -0.1]], [0])),
        *boxes((0, 5e-324), (-1e-310, 1e-310), (1e-45, 2e-45), (-1e-40, 3e-39)),
    )


@case
def far_from_zero():
    rng = np.random.default_rng(15)
    million = np.float64(1e6)
    ulps = [(million, np.nextafter(million, inf)), (np.nextafter(million, 0), np.nextafter(million, inf))]
    ends = boxes(
        *ulps, (million, million), (million - 1, million + 1), ([1e6, -1e6, 0.1], [1e6 + 1e-9, -1e6, 0.1])
    )
    first = rng.normal(size=(18, 3))
    bias = -first @ np.full(3, 1e6)
    return over(
        chain(
            3,
            (first, bias),
            (rng.normal(size=(6, 18)), rng.normal(size=6)),
            (rng.normal(size=(2, 6)), [0, 0]),
        ),
        *ends,
    )


@case
def boxes_of_one_ulp():
    rng = np.random.default_rng(16)
    layers = [(rng.normal(size=(b, a)), rng.normal(size=b)) for a, b in pairwise((2, 18, 9, 2))]
    return over(chain(2, *layers), *around(rng.normal(size=(1, 2))[0], None, 0, 1e-300, 1e-17))


@case
def zeros_everywhere():
    """Zero rows and columns; pre-activations that are zero on a box, in its centre or a corner."""
    first = ([[1, 0, -1], [0, 0, 0], [1, 1, 0], [0, -1, 0], [0, 2, 0]], [0, 0, -2, 1, -2])
    second = ([[1, 0, 0, 0, -1], [0, 1, 0, 0, 0], [1, 1, 1, 1, 1], [-1, 5, -1, 0, 0]], [0, 0, -1, 1])
    ends = boxes((0, 1), (-1, 1), (1, 1), (0, 0), ([0, 1, 0], [0, 1, 0]), ([-1, 0, 0], [0, 2, 1]))
    return over(chain(3, first, second, ([[1, 1, -1, 1], [0, 0, 0, 0]], [0, 0])), *ends)


@case
def kinks_at_the_ends():
    third = 1 / 3
    layers = [([[3], [-3], [1], [-1]], [-1, 1, -third, third]), ([[1, 1, 1, 1], [-1, -1, 1, 1]], [0, -1e-17])]
    ends = boxes((0, 1), (third, 1), (0, third), (third, third), (nextafter(third, 0), nextafter(third, 1)))
    return over(chain(1, *layers), *ends)


@case
def weights_beyond_float32():
    return over(
        chain(1, ([[1e39], [1]], [0, 0]), ([[1e-39, 1], [1e39, 1]], [0, 0])),
        *boxes((-1, 1), (0, 0), (0.5, 2)),
    )


@case
def coefficients_beyond_float32():
    """Weights are floats, their products are not."""
    w = 2.0**67
    return over(
        chain(1, ([[w], [-w]], [-w / 2, w / 2]), ([[w, w], [w, -w]], [0, 0])),
        *boxes((-1, 1), (0.5, 0.5), (0.25, 2)),
    )


@case
def values_beyond_float64():
    rng = np.random.default_rng(17)
    layers = [(1e200 * rng.normal(size=(b, a)), rng.normal(size=b)) for a, b in pairwise((2, 5, 4, 1))]
    return over(chain(2, *layers), *boxes((-1, 1), (0, 0), (1e-250, 1e-200), (1e300, 1e308)))


@case
def boxes_beyond_float32():
    rng = np.random.default_rng(18)
    layers = [(rng.normal(size=(b, a)), rng.normal(size=b)) for a, b in pairwise((2, 5, 4, 2))]
    return over(
        chain(2, *layers), *boxes((-1e39, 1e39), (3e38, 1e40), (-1e300, 1), (1e39, 1e39), (-1.7e308, 1.7e308))
    )


@case
def centres_beyond_float32():
    """Neurons far above and far below zero, brought back by a bias."""
    return over(
        chain(1, ([[1e-3], [1]], [1e39, -1e39]), ([[1, 1], [-1, 1]], [-1e39, 1e39])),
        *boxes((-1, 1), (0, 1e39)),
    )


@case
def many_equal_terms():
    """Rounding errors of a sum that do not average out."""
    first = (np.full((400, 1), 0.1), np.zeros(400))
    second = (np.full((2, 400), [[0.1], [-0.1]]), [0, 0])
    return over(chain(1, first, second), *boxes((0.25, 1), (0.5, 0.50001), (-1, 1), (0.3, 0.3)))


@case
def many_terms_that_cancel():
    rng = np.random.default_rng(19)
    weight = np.tile([0.1, -0.1], 300)[None] * (1 + 1e-6 * rng.random((2, 600)))
    return over(
        chain(1, (0.7 + 1e-6 * rng.random((600, 1)), 1e3 * np.ones(600)), (weight, [0, 0])),
        *boxes((0.25, 1), (-1, 1)),
    )


@case
def weights_with_errors():
    rng = np.random.default_rng(20)
    net = Net(2)
    for width, error in ((17, 1e-3), (5, 2.0**-20), (1, 1e-12)):
        source = net.relu(net.last) if net.last else 0
        matrix = rng.normal(size=(width, net.width(source)))
        net.affine(
            rng.normal(size=width), (source, matrix), error=error, bias_error=error * rng.random(width)
        )
    return over(net.graph(), *usual(rng, 2))


@case
def errors_of_affine_nodes_in_a_row():
    rng = np.random.default_rng(21)
    net = Net(2)
    for width in (8, 9, 3):
        parts = [(s, rng.normal(size=(width, net.width(s)))) for s in {0, net.last}]
        net.affine(1e3 * rng.normal(size=width), *parts, error=1e-4, bias_error=np.full(width, 0.5))
    net.relu(net.last)
    net.affine([0], (net.last, rng.normal(size=(1, 3))), error=0.25)
    return over(net.graph(), *usual(rng, 2))


@case
def an_error_of_the_last_weights_alone():
    """A backward row starts from weights that are off."""
    net = Net(2)
    net.affine([0, 0], (net.relu(net.affine([0, 0], (0, np.eye(2)))), [[1, 1], [1, -1]]), error=0.5)
    return over(net.graph(), *boxes((-1, 1), (0, 1), (0.25, 0.5), (3, 3)))


@case
def many_inputs_with_equal_weights():
    """Sums over the inputs round in one direction; the box is around zero, where nothing else is lost."""
    weights = np.array([0.1, -0.1, 0.3, -0.3, 0.7, 1 / 3, -1 / 7])[:, None]
    return over(
        chain(300, (weights * np.ones((7, 300)), np.zeros(7))), *boxes((-1, 1), (-0.3, 0.3), (-0.7, 0.1))
    )


@case
def many_equal_gains():
    """The heights of many lines add up, rounding in one direction."""
    weights = np.array([-0.1, -0.3, -0.7, -1 / 3, -1 / 7, 0.1])[:, None]
    first = (np.full((1600, 1), 0.1), np.full(1600, 1e-3))
    return over(chain(1, first, (weights * np.ones((6, 1600)), np.zeros(6))), *boxes((-1, 1), (-0.3, 0.7)))


@case
def many_vanishing_weights_at_a_point():
    """Of what these weights contribute to the centre float32 sees nothing."""
    weights = 2.0**-150 * np.array([0.1, -0.1, 0.9, -0.7])[:, None]
    return over(
        chain(200, (weights * np.ones((4, 200)), np.zeros(4))), *boxes((1e37, 1e37), (3e37, 3.0000001e37))
    )


@case
def columns_many_times():
    """Each row reads one element 300 times: its sums have more terms than the block has columns."""
    net = Net(1)
    wide = copies(net.affine([0.0], (0, [[1.0]])), 1, [[(0, 0.1)] * 300, [(0, -0.1)] * 300])
    hidden = net.relu(net.affine([0.0, 30.0], wide))
    net.affine([0.0, 0.0], copies(hidden, 2, [[(0, 0.1), (1, -0.3)] * 300, [(1, 0.1)] * 500]))
    return over(net.graph(), *boxes((0.25, 1), (0.5, 0.50001), (-1, 1), (0.3, 0.3), (0.999999, 1)))


@case
def columns_many_times_that_vanish_in_float32():
    """What is lost of each entry is within what is granted to one."""
    net = Net(1)
    net.affine([0.0, 0.0], copies(0, 1, [[(0, 2.0**-150)] * 10, [(0, -(2.0**-150))] * 10]))
    return over(net.graph(), *boxes((1e37, 2e37), (-1e37, 1e37), (1e38, 1e38)))


@cache
def made(name):
    return CASES[name]()


@cache
def knowledge_of(name):
    """Nothing, splits through points with and without boxes that end at zero, and boxes around points."""
    checker, rng = Checker(made(name), None, True), np.random.default_rng(0)
    none = Knowledge.none(len(made(name).lower), checker.neurons)
    if not checker.neurons:
        return [none]
    splits = [checker.splits_through(rng, clamped) for clamped in (False, True)]
    return [none, *splits, checker.boxes_through(rng)]


KINDS = [(name, "chosen") for name in SETS] + [(name, "sparse") for name in SETS[-1:]]


@pytest.fixture(params=KINDS, ids="-".join)
def instruction_set(request, monkeypatch):
    """Each instruction set, and one with all blocks in compressed rows instead of those that are kept so."""
    if request.param[1] == "sparse":
        monkeypatch.setattr(dense, "DENSE_ELEMENTS", -1)
        monkeypatch.setattr(dense, "DENSE_SHARE", 2.0)
    return request.param[0]


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_bounds_are_below_exact_values(name, instruction_set, double):
    checker = Checker(made(name), instruction_set, double)
    for given in knowledge_of(name):
        checker.run(given)


# Multipliers, that is slopes of lower lines and those of splits; `test_ascent.py` has more.


def ascended(graph, ends, splits, alpha, beta, double, instruction_set=None, steps=1):
    """The checker's run on one box with all multipliers of a kind alike; the neurons' boxes end at zero."""
    checker = Checker(over(graph, *boxes(ends)), instruction_set, double)
    given = Knowledge.none(1, checker.neurons)
    for neuron, side in splits:
        (given.lower if side > 0 else given.upper)[0, neuron] = 0.0
    columns = [np.array([part], kind) for part, kind in zip(zip(*splits, strict=True), "ib", strict=True)]
    given = Knowledge(given.lower, given.upper, *columns)
    shape = (1, checker.case.forms + 2)
    alpha = np.full((*shape, checker.neurons), alpha, np.float32)
    beta = np.ascontiguousarray(np.broadcast_to(np.array(beta, np.float32), (*shape, len(splits))))
    ascent = Ascent(steps, 0, np.full(shape, inf), alpha, beta)
    return checker.run(given, split_needed=True, ascent=ascent)


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_multipliers_of_neurons_that_their_split_makes_inactive(instruction_set, double):
    """`relu(x)` where x <= 0: the split's term must reach the input although the ReLU's slopes are zero."""
    graph = chain(1, ([[1.0]], [0.0]), ([[1.0]], [0.0]))
    found = ascended(graph, (-1, 3), [(0, -1)], -1, 1.0, double, instruction_set)
    assert found.value[0, 0] > -1e-5


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("side", [1, -1])
def test_multipliers_of_a_neuron_split_on_both_sides_may_cancel(double, side):
    """`1 + 1e9 - 1e9` is zero in float32: what is lost of the coefficient is not small against it."""
    graph = chain(1, ([[1.0], [-1.0]], [0.1, 0.0]), ([[1.0, 1.0], [-1.0, 1.0]], [0.0, 0.0]))
    for beta in (1e3, 1e9, 1e17):
        ascended(graph, (-0.1, 3), [(0, side), (0, -side)], 0.5, [beta, beta], double)


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("top", [1e-30, 1e-46, 1e-60, 1e-300, 5e-324])
def test_lower_lines_of_neurons_whose_upper_line_vanishes(top, double):
    """The slope `u / (u - l)` of the upper line underflows, but a lower line has the slope that was given."""
    graph = chain(1, ([[1.0]], [0.0]), ([[1.0], [-1.0]], [0.0, 0.0]))
    for low, alpha in ((-1.0, 0.5), (-1e30, 1.0), (-top, 0.25)):
        checker = Checker(over(graph, *boxes((low, -3 * low))), None, double)
        given = Knowledge.none(1, 1)
        given.upper[0, 0] = top
        rows, beta = np.full((1, 4, 1), alpha, np.float32), np.zeros((1, 4, 0), np.float32)
        checker.run(given, ascent=Ascent(1, 2, np.full((1, 4), inf), rows, beta))


def test_only_the_first_splits_give_half_spaces():
    checker = Checker(made("wide and narrow"), None, True)
    given = checker.splits_through(np.random.default_rng(0), clamped=False, most=5)
    whole = checker.run(given).split_height
    part = checker.run(given, cuts=2).split_height
    assert np.isfinite(whole[:, :5]).all() and np.array_equal(part[:, :2], whole[:, :2])
    assert (part[:, 2:] == -inf).all()


# Bounds are not more cautious than they must be.


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("name", ["many equal terms", "cancelling weights", "layers that undo each other"])
def test_without_error_terms_bounds_would_be_wrong(name, instruction_set, double):
    """What rounding takes from some bound is more than the bound is below the exact minimum."""
    checker = Checker(made(name), instruction_set, double)
    found, _ = checker.bound(Knowledge.none(len(made(name).lower), checker.neurons))
    points, owner = checker.minimisers(found)
    forms = made(name).functions[0](points)[-1]
    margins = [
        forms.fraction(m, r) - Fraction(found.value[owner[m], r]) - Fraction(found.loss[owner[m], r])
        for m in range(len(points))
        for r in range(made(name).forms)
        if np.isfinite(found.value[owner[m], r])
    ]
    assert min(margins) < 0


def stable_case(seed, sizes):
    """A network that is linear on its boxes, and the exact minima of its forms there."""
    rng = np.random.default_rng(seed)
    function = random_chain(seed, sizes)
    ends = around(rng.normal(size=sizes[0]), 1e-4, 1e-6, 0.0, None)
    found = over(function.graph, *ends)
    owner, forms = found.points[1], found.values[0][-1]
    least = np.array(
        [[forms[owner == b][:, r].whole.min() for r in range(found.forms)] for b in range(4)], object
    )
    return found, Exact(least, forms.power)


@pytest.mark.parametrize("sizes", [(3, 17, 30, 2), (1, 5, 1), (2, 70, 3), (3, 2, 2, 2, 2, 2)])
@pytest.mark.parametrize("seed", range(3))
def test_bounds_of_linear_networks_are_exact(seed, sizes, instruction_set):
    linear, least = stable_case(seed, sizes)
    checker = Checker(linear, instruction_set, True)
    found = checker.run(Knowledge.none(4, checker.neurons))
    stable = found.unstable == 0
    assert stable[1:].any()
    for b in np.flatnonzero(stable):
        for r in range(linear.forms):
            minimum = least.fraction(b, r)
            gap = minimum - Fraction(found.value[b, r])
            assert 0 <= gap <= Fraction(1e-12) * max(abs(minimum), 1)


@cache
def compared(sizes, seed):
    """A problem, boxes in its input set, and what NumPy finds there."""
    model, rng = random_dense(seed, sizes), np.random.default_rng(seed)
    forms = " ".join(f"(<= Y_{i} -1000)" for i in range(sizes[-1]))
    body = box_assertions([-2] * sizes[0], [2] * sizes[0]) + f"(assert (or {forms} (<= Y_0 (+ X_0 -1000))))"
    problem = compile_problem(model.network, query_of(model, body))
    centre, radius = rng.uniform(-1, 1, (40, sizes[0])), 10.0 ** rng.uniform(-4, 0, (40, 1))
    lower, upper = centre - radius, centre + radius
    arithmetic = double_precision(problem)
    batch = Batch(np.zeros(40, np.int64), Region(arithmetic.box(lower, upper)), {})
    theirs = evaluate(problem, arithmetic, batch, Effort("crown"))
    rows = np.asarray(theirs.linear.concretize(theirs.frame.boxes[0]))
    return condense(problem.network), lower, upper, rows, np.asarray(theirs.rows)


@pytest.mark.parametrize("sizes", [(2, 20, 20, 2), (5, 50, 50, 50, 3), (3, 7, 1), (4, 33, 17, 33, 17, 2)])
@pytest.mark.parametrize("seed", range(2))
def test_bounds_are_those_of_numpy(seed, sizes, instruction_set):
    graph, lower, upper, theirs, rows = compared(sizes, seed)
    found = {}
    for double in (False, True):
        checker = Checker(Case(graph, lower, upper), instruction_set, double)
        bounds, _ = checker.bound(Knowledge.none(len(lower), checker.neurons))
        found[double] = np.take_along_axis(bounds.value, rows, axis=1)
    scale = np.abs(theirs).max(axis=1, keepdims=True)
    off = (found[True] - theirs) / scale
    assert np.median(np.abs(off)) < 1e-9
    assert off.min() > -0.05
    rounding = (found[True] - found[False]) / scale
    assert np.median(rounding) < 1e-3 and rounding.max() < 0.1


def test_weights_beyond_float32_give_no_bound_there(instruction_set):
    weights, forms = made("weights beyond float32"), slice(0, 2)
    for double in (False, True):
        checker = Checker(weights, instruction_set, double)
        found = checker.run(Knowledge.none(3, checker.neurons))
        assert np.isfinite(found.value[:, forms]).all() == double
        assert (found.value[0, forms] == -inf).all() != double


# Subproblems without a point.


def touching(rng, linear, checker):
    """Boxes of neurons that only touch what they reach, and how far beyond it is a contradiction."""
    z = checker.neuron_values(linear.values[0])
    for b in range(1, len(linear.lower)):
        for j in rng.choice(checker.neurons, min(6, checker.neurons), replace=False):
            reached = z[linear.points[1] == b][:, j]
            low, high = (Fraction(end(reached.whole)) * Fraction(2) ** z.power for end in (min, max))
            slack = 1e-9 if j < linear.graph.nodes[0].width else 1e-3  # those of later layers are intervals
            yield b, j, float_above(low), float_below(high), slack * (1 + float(abs(low) + abs(high)))


@pytest.mark.parametrize("seed", range(3))
def test_only_contradictions_are_empty(seed, instruction_set):
    """The network is linear there, so that extremes of neurons are in corners; first and later layers."""
    linear, _ = stable_case(seed, (2, 9, 8, 2))
    checker = Checker(linear, instruction_set, True)
    for b, j, low, high, beyond in touching(np.random.default_rng(seed), linear, checker):
        for upper, end, outside in ((True, low, low - beyond), (False, high, high + beyond)):
            given = Knowledge.none(4, checker.neurons)
            ends = given.upper if upper else given.lower
            ends[b, j] = end
            assert not checker.run(given).empty.any()
            ends[b, j] = outside
            found, _ = checker.bound(given)
            assert found.empty.tolist() == [int(i == b) for i in range(4)]
            assert (found.value[b] == -inf).all() and (found.height[b] == -inf).all()


def test_float32_proves_contradictions_too():
    linear, _ = stable_case(0, (2, 9, 8, 2))
    checker = Checker(linear, None, False)
    given = Knowledge.none(4, checker.neurons)
    given.lower[:2, 0], given.upper[2:, 12] = 1e3, -1e3
    assert checker.bound(given)[0].empty.all()


def test_crossed_boxes_of_neurons_are_empty():
    checker = Checker(Case(made("one neuron").graph, np.zeros((2, 1)), np.ones((2, 1))), None, True)
    given = Knowledge.none(2, checker.neurons)
    given.lower[1, 1], given.upper[1, 1] = 2.0, 1.0
    assert checker.bound(given)[0].empty.tolist() == [0, 1]


# What is not a number, or infinite, proves nothing.


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("ends", [(-inf, inf), (0, inf), (-inf, 0)], ids=str)
def test_unbounded_boxes_have_no_bounds(ends, double):
    graph = chain(2, ([[1, 2], [-1, 1]], [0, 1]), ([[1, -1]], [0]))
    checker = Checker(Case(graph, np.array([[ends[0], 0.0]]), np.array([[ends[1], 1.0]])), None, double)
    found, _ = checker.bound(Knowledge.none(1, 2))
    assert not found.empty.any()
    assert (found.value == -inf).all() and (found.height == -inf).all()


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize(
    ("what", "value"),
    [*product(["weight", "bias", "bias_error"], [nan, inf, -inf]), ("weight_error", inf)],
)
@pytest.mark.parametrize("layer", [0, 1])
def test_networks_with_infinite_numbers(layer, what, value, double, instruction_set):
    if what == "bias_error" and value < 0:
        with pytest.raises(ValueError, match="negative"):
            dense.extension().DenseNetwork(1).add_affine(np.zeros(1), np.array([value]), 0.0)
        return
    net = Net(1)
    for i, weight in enumerate(([[1.0], [-1.0]], [[1.0, 0.5]])):
        parts = {"weight": np.array(weight), "bias": np.zeros(len(weight)), "weight_error": np.zeros(1)}
        parts["bias_error"] = parts["bias"].copy()
        if i == layer:
            parts[what].flat[0] = value
        source = net.relu(net.last) if i else 0
        block = copies(source, net.width(source), [list(enumerate(row)) for row in parts["weight"]])
        net.affine(parts["bias"], block, error=parts["weight_error"][0], bias_error=parts["bias_error"])
    checker = Checker(
        Case(net.graph(), np.array([[-1.0], [0.0], [0.0]]), np.array([[1.0], [1.0], [0.0]])),
        instruction_set,
        double,
    )
    found, known = checker.bound(Knowledge.none(3, 2))
    assert not found.empty.any()
    assert (found.value[:, 0] == -inf).all() and (found.height[:, 0] == -inf).all()
    assert not np.isnan(known).any()


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
def test_what_is_known_may_be_nothing(double):
    """NaN, and boxes so wide that they say nothing."""
    checker = Checker(made("widths that are no multiples"), None, double)
    none = Knowledge.none(6, checker.neurons)
    plain = checker.run(none)
    for value in (nan, 1e300):
        given = Knowledge(
            np.full_like(none.lower, -value), np.full_like(none.upper, value), none.split, none.side
        )
        found, known = checker.bound(given)
        same(found, plain)
        assert not np.isnan(known).any()


# Results depend on nothing else.


def same(first: DenseBounds, second: DenseBounds, rows=slice(None)):
    for name in DenseBounds.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(first, name)[rows], getattr(second, name))


MIXED = [
    "skips 1",
    "skips, columns twice 2",
    "widths that are no multiples",
    "boxes beyond float32",
    "zeros everywhere",
]


@pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])
@pytest.mark.parametrize("name", MIXED)
def test_results_do_not_depend_on_threads_or_neighbours(name, instruction_set, double):
    case, rng = made(name), np.random.default_rng(0)
    many = Case(case.graph, np.tile(case.lower, (4, 1)), np.tile(case.upper, (4, 1)))
    checker = Checker(many, instruction_set, double)
    given = checker.splits_through(rng, clamped=True)
    given.lower[3, 0], given.upper[3, 0] = 1.0, -1.0  # one that is empty
    one, known = checker.bound(given)
    for threads in (3, 50):
        others, known_there = checker.bound(given, threads)
        same(one, others)
        assert np.array_equal(known, known_there)
    for b in (0, 3, 4, len(many.lower) - 1):
        pick = slice(b, b + 1)
        alone = Checker(Case(case.graph, many.lower[pick], many.upper[pick]), instruction_set, double)
        there = Knowledge(given.lower[pick], given.upper[pick], given.split[pick], given.side[pick])
        found, known_there = alone.bound(there)
        same(one, found, pick)
        assert np.array_equal(np.array(known)[:, pick], known_there)


def test_flushing_to_zero_elsewhere_does_not_matter():
    torch = pytest.importorskip("torch")
    checkers = [
        Checker(made("subnormal weights of float32"), s, double) for s in SETS for double in (False, True)
    ]
    none = Knowledge.none(5, checkers[0].neurons)
    before = [checker.bound(none, 2)[0] for checker in checkers]
    assert torch.set_flush_denormal(True)
    try:
        after = [checker.bound(none, 2)[0] for checker in checkers]
        flushed = float((torch.tensor([1e-42]) * torch.ones(1)).item())
    finally:
        torch.set_flush_denormal(False)
    assert flushed == 0, "the kernel has changed the caller's mode"
    for first, second in zip(before, after, strict=True):
        same(first, second)


def test_more_rows_than_are_bounded_at_a_time():
    """Rows go through the network in blocks of at most 96."""
    rng = np.random.default_rng(0)
    layers = (
        (rng.normal(size=(150, 2)), rng.normal(size=150)),
        (rng.normal(size=(130, 150)), rng.normal(size=130)),
    )
    graph = chain(2, *layers, (rng.normal(size=(120, 130)), np.zeros(120)))
    case = Case(graph, *around(rng.normal(size=2), 1.0, 0.1))
    for double in (False, True):
        checker = Checker(case, None, double)
        found = checker.run(Knowledge.none(2, checker.neurons))
        assert np.isfinite(found.value[:, :-2]).all()
        few = np.ascontiguousarray(np.broadcast_to(np.int32([7, 109]), (2, 2)))
        none = Knowledge.none(2, checker.neurons)
        box, known = (case.lower, case.upper), (none.lower, none.upper)
        part = checker.kernel.bound(box, known, few, (none.split, none.side), double, 1)
        np.testing.assert_allclose(part.value, found.value[:, [7, 109]], rtol=1e-12 if double else 1e-4)


def test_results_can_be_put_into_others():
    checker = Checker(made("widths that are no multiples"), None, True)
    none = Knowledge.none(6, checker.neurons)
    whole, _ = checker.bound(none)
    picked = np.array([4, 1])
    case = Case(checker.case.graph, checker.case.lower[picked], checker.case.upper[picked])
    part, _ = Checker(case, None, False).bound(Knowledge.none(2, checker.neurons))
    whole.put(picked, part)
    same(whole, part, picked)


def test_work_is_counted():
    checker = Checker(made("widths that are no multiples"), None, True)
    checker.bound(Knowledge.none(6, checker.neurons))
    rows, products = checker.kernel.work
    assert rows >= 6 * 3 and products > rows
    checker.bound(Knowledge.none(6, checker.neurons), 3)
    assert checker.kernel.work.tolist() == [2 * rows, 2 * products]


# Arguments.


def integers(*values):
    return np.array(values, np.int32)


def begun():
    """An unfinished network with one affine node."""
    network = MODULE.DenseNetwork(2)
    network.add_affine(np.zeros(3), np.zeros(3), 0.0)
    return network


def finished():
    network = begun()
    network.finish(SETS[0])
    return network


BAD_NODES = {
    "no inputs": lambda: MODULE.DenseNetwork(0),
    "negative inputs": lambda: MODULE.DenseNetwork(-1),
    "ReLU of the input": lambda: begun().add_relu(0),
    "ReLU of itself": lambda: begun().add_relu(2),
    "ReLU of nothing": lambda: begun().add_relu(-1),
    "ReLU of a ReLU": lambda: (network := begun(), network.add_relu(1), network.add_relu(2)),
    "no width": lambda: begun().add_affine(np.zeros(0), np.zeros(0), 0.0),
    "errors of another size": lambda: begun().add_affine(np.zeros(2), np.zeros(3), 0.0),
    "negative error": lambda: begun().add_affine(np.zeros(2), np.zeros(2), -1.0),
    "error that is no number": lambda: begun().add_affine(np.zeros(2), np.zeros(2), nan),
    "block of the input": lambda: MODULE.DenseNetwork(2).add_dense(0, np.zeros((2, 2))),
    "block of a ReLU": lambda: (
        network := begun(),
        network.add_relu(1),
        network.add_dense(1, np.zeros((3, 3))),
    ),
    "block on itself": lambda: begun().add_dense(1, np.zeros((3, 3))),
    "block on a later node": lambda: begun().add_dense(2, np.zeros((3, 2))),
    "block on nothing": lambda: begun().add_dense(-1, np.zeros((3, 2))),
    "rows": lambda: begun().add_dense(0, np.zeros((2, 2))),
    "columns": lambda: begun().add_dense(0, np.zeros((3, 3))),
    "flat": lambda: begun().add_dense(0, np.zeros(6)),
    "rows that start late": lambda: begun().add_sparse(
        0, 2, integers(1, 1, 1, 2), integers(0, 1), np.zeros(2)
    ),
    "rows that decrease": lambda: begun().add_sparse(0, 2, integers(0, 2, 1, 2), integers(0, 1), np.zeros(2)),
    "negative rows": lambda: begun().add_sparse(0, 2, integers(0, -5, 1, 2), integers(0, 1), np.zeros(2)),
    "rows beyond the end": lambda: begun().add_sparse(
        0, 2, integers(0, 1, 9, 2), integers(0, 1), np.zeros(2)
    ),
    "rows that end late": lambda: begun().add_sparse(0, 2, integers(0, 1, 1, 3), integers(0, 1), np.zeros(2)),
    "too few rows": lambda: begun().add_sparse(0, 2, integers(0, 1, 2), integers(0, 1), np.zeros(2)),
    "no rows": lambda: begun().add_sparse(0, 2, integers(), integers(), np.zeros(0)),
    "column too large": lambda: begun().add_sparse(0, 2, integers(0, 1, 1, 2), integers(0, 2), np.zeros(2)),
    "negative column": lambda: begun().add_sparse(0, 2, integers(0, 1, 1, 2), integers(-1, 0), np.zeros(2)),
    "columns without values": lambda: begun().add_sparse(
        0, 2, integers(0, 1, 1, 2), integers(0, 1, 1), np.zeros(2)
    ),
    "more columns than the operand": lambda: begun().add_sparse(
        0, 3, integers(0, 0, 0, 0), integers(), np.zeros(0)
    ),
    "no nodes": lambda: MODULE.DenseNetwork(2).finish(SETS[0]),
    "ReLU at the end": lambda: (network := begun(), network.add_relu(1), network.finish(SETS[0])),
    "unknown instructions": lambda: begun().finish("sse9"),
    "finished twice": lambda: finished().finish(SETS[0]),
    "ReLU after the end": lambda: finished().add_relu(1),
    "node after the end": lambda: finished().add_affine(np.zeros(2), np.zeros(2), 0.0),
    "block after the end": lambda: finished().add_dense(0, np.zeros((3, 2))),
    "offset of nothing": lambda: finished().offset(7),
    "offset before the input": lambda: finished().offset(-1),
}


@pytest.mark.parametrize("name", BAD_NODES)
def test_bad_nodes_are_refused(name):
    with pytest.raises((ValueError, TypeError)):
        BAD_NODES[name]()


BAD_ARRAYS = {
    "fewer boxes": {"lower": np.zeros((3, 2))},
    "other inputs": {"upper": np.zeros((4, 3))},
    "flat boxes": {"lower": np.zeros(8)},
    "no boxes": {"lower": None},
    "neurons": {"known_lower": np.zeros((4, 2))},
    "fewer neuron boxes": {"known_upper": np.zeros((3, 3))},
    "fewer forms": {"wanted": np.zeros((3, 1), np.int32)},
    "flat forms": {"wanted": np.zeros(4, np.int32)},
    "unknown form": {"wanted": np.full((4, 1), 2, np.int32)},
    "unknown neuron": {"split": np.full((4, 1), 3, np.int32), "side": np.ones((4, 1), np.int8)},
    "crossed boxes": {"upper": np.full((4, 2), -1.0)},
    "no lower end": {"lower": np.full((4, 2), nan)},
    "no upper end": {"upper": np.full((4, 2), nan)},
    "splits without sides": {"split": np.zeros((4, 1), np.int32)},
    "sides without splits": {"side": np.zeros((4, 1), np.int8)},
    "fewer splits": {"split": np.zeros((3, 1), np.int32), "side": np.zeros((4, 1), np.int8)},
    "no threads": {"threads": 0},
    "negative threads": {"threads": -2},
    "half a thread": {"threads": 1.5},
}


def arguments(**changes):
    """Good ones, changed."""
    values = {
        "lower": np.zeros((4, 2)),
        "upper": np.ones((4, 2)),
        "known_lower": np.full((4, 3), -inf),
        "known_upper": np.full((4, 3), inf),
        "wanted": np.zeros((4, 1), np.int32),
        "split": np.zeros((4, 0), np.int32),
        "side": np.zeros((4, 0), np.int8),
        "threads": 1,
    } | changes
    box, known = (values["lower"], values["upper"]), (values["known_lower"], values["known_upper"])
    return box, known, values["wanted"], (values["split"], values["side"]), False, values["threads"]


def small_kernel():
    return DenseKernel(chain(2, (np.ones((3, 2)), np.zeros(3)), (np.ones((2, 3)), np.zeros(2))))


@pytest.mark.parametrize("name", BAD_ARRAYS)
def test_bad_arrays_are_refused(name):
    kernel = small_kernel()
    assert kernel.bound(*arguments()).value.shape == (4, 1)
    with pytest.raises((ValueError, TypeError)):
        kernel.bound(*arguments(**BAD_ARRAYS[name]))


BAD_MULTIPLIERS = {
    "negative steps": {"steps": -1},
    "goals": {"goal": np.zeros((4, 2))},
    "fewer goals": {"goal": np.zeros((3, 1))},
    "slopes": {"alpha": np.zeros((4, 1, 2), np.float32)},
    "slopes of other rows": {"alpha": np.zeros((4, 2, 3), np.float32)},
    "slopes that would be converted": {"alpha": np.zeros((4, 1, 3))},
    "flat slopes": {"alpha": np.zeros((4, 3), np.float32)},
    "splits": {"beta": np.zeros((4, 1, 2), np.float32)},
    "splits that would be converted": {"beta": np.zeros((4, 1, 1))},
}


@pytest.mark.parametrize("name", BAD_MULTIPLIERS)
def test_bad_multipliers_are_refused(name):
    split, side = np.zeros((4, 1), np.int32), np.ones((4, 1), np.int8)
    alpha, beta = np.zeros((4, 1, 3), np.float32), np.zeros((4, 1, 1), np.float32)
    good = {"steps": 2, "ahead": 2, "goal": np.zeros((4, 1)), "alpha": alpha, "beta": beta}
    small_kernel().bound(*arguments(split=split, side=side), ascent=Ascent(**good))
    with pytest.raises((ValueError, TypeError)):
        small_kernel().bound(
            *arguments(split=split, side=side), ascent=Ascent(**good | BAD_MULTIPLIERS[name])
        )


def test_numbers_that_stand_for_nothing_do():
    """-1, or anything negative, is no form and no split."""
    for number in (-1, -7, -(2**31)):
        nothing = np.full((4, 1), number, np.int32)
        found = small_kernel().bound(*arguments(wanted=nothing, split=nothing, side=np.ones((4, 1), np.int8)))
        assert (found.value == -inf).all() and (found.split_height == -inf).all()


def test_empty_batches():
    found = small_kernel().bound(
        (np.zeros((0, 2)), np.zeros((0, 2))), (np.zeros((0, 3)), np.zeros((0, 3))),
        np.zeros((0, 1), np.int32), (np.zeros((0, 0), np.int32), np.zeros((0, 0), np.int8)), False, 2,
    )  # fmt: skip
    assert found.value.shape == (0, 1)
    assert small_kernel().bound(*arguments(wanted=np.zeros((4, 0), np.int32))).value.shape == (4, 0)


@pytest.mark.parametrize("kind", ["float32", "Fortran", "strided", "read-only"])
def test_boxes_of_neurons_are_tightened_in_place_or_refused(kind):
    ends = np.full((4, 3), -inf)
    if kind == "float32":
        ends = ends.astype(np.float32)
    elif kind == "Fortran":
        ends = np.asfortranarray(ends)
    elif kind == "strided":
        ends = np.full((4, 6), -inf)[:, ::2]
    else:
        ends.flags.writeable = False
    try:
        small_kernel().bound(*arguments(known_lower=ends))
    except (ValueError, TypeError):
        return
    assert (ends > -1e-3).all()


def test_a_network_that_is_not_finished_bounds_nothing():
    kernel = small_kernel()
    kernel._network = MODULE.DenseNetwork(2)
    with pytest.raises(ValueError, match="not finished"):
        kernel.bound(*arguments())


def test_unknown_instruction_sets_are_refused():
    with pytest.raises(ValueError, match="sse9"):
        DenseKernel(chain(1, ([[1.0]], [0.0])), "sse9")


def test_instruction_sets_of_this_processor():
    assert SETS[0] == "generic" and len(set(SETS)) == len(SETS)


@pytest.mark.parametrize("value", ["1", "yes"])
def test_the_kernel_can_be_switched_off(monkeypatch, value):
    monkeypatch.setenv("LPVERIFY_NO_KERNEL", value)
    assert dense.extension() is None
    with pytest.raises(ImportError):
        small_kernel()


@pytest.mark.parametrize("value", ["", "0"])
def test_it_is_on_otherwise(monkeypatch, value):
    monkeypatch.setenv("LPVERIFY_NO_KERNEL", value)
    assert dense.extension() is MODULE
