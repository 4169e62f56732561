"""The program of a region: the true values fulfil it exactly, for every kind of op, without tolerance."""

from fractions import Fraction
from functools import cache
from math import prod

import mpmath as mp
import numpy as np
import pytest
from enumeration import (
    DIGITS,
    SIZES,
    Exact,
    column_values,
    dense_network,
    dot,
    points_of,
    random_box,
    random_graph,
    regional,
    sparse_rows,
    violations,
)
from ops.test_affine_contract import _SAMPLES as AFFINE
from ops.test_affine_contract import Draw
from ops.test_elementwise_contract import SAMPLES, _boxes, _inside
from ops.test_nonlinear_networks import CASES, _model, _with_shapes
from soundness.test_bounds import FAMILIES

from lpverify.bounds.lp import lp_rows, obbt
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.triangle import triangle
from lpverify.config import Deadline
from lpverify.interval import Box
from lpverify.io.onnx import import_model
from lpverify.multipliers import Effort
from lpverify.network import Network, Node
from lpverify.ops.activations import Atan, Sigmoid, Tanh
from lpverify.ops.bilinear import MatMulValues, Multiply
from lpverify.ops.elementary import Reciprocal
from lpverify.ops.indicators import IsZero
from lpverify.ops.linear import Combine, Linear, Scale
from lpverify.ops.piecewise import Relu
from lpverify.ops.shape import Concat, Reshape, Slice
from lpverify.ops.steps import Floor, Heaviside, Round, Sign, Trunc
from lpverify.solvers.highs import Highs

FUNCTIONS = {s.op: s.function for s in SAMPLES}
STEPS = (Floor(), Sign(), Trunc(), Round(), IsZero(), Heaviside(True), Heaviside(False))
SMOOTH = (Sigmoid(), Tanh(), Atan())


def exactly(network, rng):
    return Exact(network, FUNCTIONS.get, rng)


def check(program, network, values, rng):
    """Columns, rows, expressions and objectives at a point."""
    columns = column_values(program, values)
    assert not violations(program.program, columns)
    for k, expression in program.expressions.items():
        parts = zip(sparse_rows(expression.matrix), expression.offset, expression.error, strict=True)
        for value, (row, offset, error) in zip(values[k], parts, strict=True):
            assert row is not None or not np.isfinite(error)
            if np.isfinite(error):
                found = sum((c * columns[j] for j, c in row), Fraction(float(offset)))
                assert abs(value - found) <= Fraction(float(error)), network.nodes[k]
    rows = rng.normal(size=(2, len(values[network.output])))
    for row, cost, constant in zip(rows, *program.objective(network.output, rows), strict=True):
        assert not np.isnan(constant)
        if np.isfinite(constant):
            assert dot(cost, columns) + Fraction(float(constant)) <= dot(row, values[network.output])


# Every op, on its own.


def affine_case(name, seed):
    """ReLUs of the inputs, the op, and `relu(relu(y) - y)`."""
    draw, sample = Draw(seed, (-30, -12, -1, 0, 0, 3, 12, 30)[seed]), AFFINE[name]
    total = max(1, sum(prod(shape) for shape in sample.shapes))
    nodes, at, parts = [Node(None, (), (total,))], 0, []

    def add(op, inputs, shape):
        nodes.append(Node(op, inputs, shape))
        return len(nodes) - 1

    for shape in sample.shapes:
        size = prod(shape)
        value = add(Slice((at,), (1,), (size,), (total,)), (0,), (size,))
        value = add(Reshape(shape, (size,)), (value,), shape)
        value = add(Scale(draw(1).reshape(()), draw(1).reshape(())), (value,), shape)
        parts.append(add(Relu(), (value,), shape))
        at += size
    op = sample.make(draw)
    shape = op.forward(*(np.zeros((1, *s)) for s in sample.shapes)).shape[1:]
    value = add(op, tuple(parts), shape)
    rectified = add(Relu(), (value,), shape)
    last = add(Relu(), (add(Combine((1, -1)), (rectified, value), shape),), shape)
    return Network(tuple(nodes), last), draw.box(total)


@pytest.mark.parametrize("name", AFFINE)
def test_affine_ops(name):
    for seed in range(8):
        network, box = affine_case(name, seed)
        _, program = regional(network, box.lower, box.upper)
        rng = np.random.default_rng(seed)
        for x in points_of(box.lower, box.upper, rng, 4):
            check(program, network, exactly(network, rng).values(x), rng)


@cache
def elementwise_boxes(index):
    """Boxes on which a function is defined and no exponent gets too large, and points of them."""
    sample, rng = SAMPLES[index], np.random.default_rng(index)
    low, high = _boxes(sample, np.float64)
    with mp.workdps(DIGITS):
        fine = [
            max(-a, b) <= 40 and all(sample.domain(mp.mpf(float(v))) for v in (a, b))
            for a, b in zip(low, high, strict=True)
        ]
        some = rng.permutation(np.flatnonzero(fine))[:25]
        points = [
            [p for p in _inside(sample, float(low[i]), float(high[i]), rng) if sample.domain(mp.mpf(p))]
            for i in some
        ]
    return low[some], high[some], points


@pytest.mark.parametrize("index", range(len(SAMPLES)), ids=[s.name for s in SAMPLES])
def test_elementwise_ops(index):
    """The op, of copies of inputs and of sums; its result in a sum, a ReLU and a product."""
    sample, rng = SAMPLES[index], np.random.default_rng(index)
    low, high, points = elementwise_boxes(index)
    size = len(low)
    first = Scale(np.ones(size), np.zeros(size)) if index % 2 else Reshape((size,), (size,))
    ops = [(first, 0), (sample.op, 1), (Combine((1, -1)), 2, 1), (Relu(), 3), (Multiply(), 4, 2)]
    nodes = [Node(None, (), (size,)), *(Node(op, tuple(inputs), (size,)) for op, *inputs in ops)]
    network = Network(tuple(nodes), 5)
    _, program = regional(network, low, high)
    for _ in range(4):
        x = [Fraction(float(rng.choice(p))) for p in points]
        check(program, network, exactly(network, rng).values(x), rng)


@pytest.mark.parametrize("sizes", [(2, 3, 2), (1, 1, 3)])
@pytest.mark.parametrize("seed", range(4))
def test_matrix_products(sizes, seed):
    """Also of a value with itself."""
    m, k, n = sizes
    rng, total = np.random.default_rng(seed), m * k + k * n
    nodes = (
        Node(None, (), (total,)),
        Node(Linear(rng.normal(size=(m * k, total)), rng.normal(size=m * k)), (0,), (m * k,)),
        Node(Relu(), (1,), (m * k,)),
        Node(Reshape((m, k), (m * k,)), (2,), (m, k)),
        Node(Slice((m * k,), (1,), (k * n,), (total,)), (0,), (k * n,)),
        Node(Reshape((k, n), (k * n,)), (4,), (k, n)),
        Node(MatMulValues(sizes), (3, 5), (m, n)),
        Node(Relu(), (6,), (m, n)),
    )
    network = Network(nodes, 7)
    radius = rng.choice([0.0, 1e-12, 0.5], total)
    centre = rng.normal(size=total)
    _, program = regional(network, centre - radius, centre + radius)
    for x in points_of(centre - radius, centre + radius, rng, 4):
        check(program, network, exactly(network, rng).values(x), rng)


# Networks.


@pytest.mark.parametrize("start", range(0, 200, 20))
@pytest.mark.parametrize("kind", ["steps", "smooth", "wild"])
def test_random_graphs(kind, start):
    """Wild ones have huge and tiny weights; LP bounds and boxes after OBBT hold exactly, too."""
    ops, sizes = {"steps": (STEPS, (1.0,)), "smooth": (SMOOTH, (1.0,)), "wild": (STEPS, SIZES)}[kind]
    for seed in range(start, start + 20):
        rng = np.random.default_rng([seed, len(kind)])
        network = random_graph(rng, ops, sizes)
        low, high = random_box(rng)
        frame, program = regional(network, low, high, str(rng.choice(["ibp", "crown"])))
        rows = rng.normal(size=(2, 2))
        with np.errstate(all="ignore"):
            found = lp_rows(program, network.output, rows, Highs(), Deadline.after(20)).lower
            if seed % 4 == 0:
                frame = obbt(Region(frame.boxes[0]), frame, Highs(), Deadline.after(20))
        assert not np.isnan(found).any() and (found < np.inf).all()
        for x in points_of(low, high, rng, 3):
            values = exactly(network, rng).values(x)
            check(program, network, values, rng)
            inside(frame, values)
            for row, bound in zip(rows, found, strict=True):
                assert bound == -np.inf or Fraction(float(bound)) <= dot(row, values[network.output])


def inside(frame, values):
    """All values are in their boxes."""
    for k, box in enumerate(frame.boxes):
        for value, low, high in zip(values[k], box.lower.reshape(-1), box.upper.reshape(-1), strict=True):
            assert low == -np.inf or Fraction(float(low)) <= value
            assert high == np.inf or value <= Fraction(float(high))


@pytest.mark.parametrize("name", FAMILIES)
def test_families(name):
    """Convolutions, residual sums, concatenations, attention, ... as imported from ONNX."""
    rng = np.random.default_rng([1, *name.encode()])
    network = FAMILIES[name](rng)
    centre, radius = rng.normal(size=network.input_size), 10.0 ** rng.uniform(-2, -0.5)
    low, high = centre - radius, centre + radius
    _, program = regional(network, low, high)
    for x in points_of(low, high, rng, 2):
        check(program, network, exactly(network, rng).values(x), rng)


@pytest.mark.parametrize("name", CASES)
def test_every_nonlinear_operator_of_onnx(name):
    """In extended precision, whose rounding is far below that which rows have to cover."""
    network = import_model(_with_shapes(_model(CASES[name], 0))).network
    rng = np.random.default_rng(7)
    for radius in (0.0, 1e-6, 0.1, 0.5):
        centre = rng.uniform(-1, 1, network.input_size)
        low, high = centre - radius * rng.random(len(centre)), centre + radius * rng.random(len(centre))
        _, program = regional(network, low, high)
        share = rng.random((12, len(low)))
        share[:8] = share[:8] < 0.5
        points = np.clip(low + share * (high - low), low, high).astype(np.longdouble)
        values = [v.reshape((len(points), -1)) for v in network.evaluate(points)]
        columns = np.zeros((len(points), len(program.program.cost)), np.longdouble)
        for k, places in program.columns.items():
            columns[:, places[places >= 0]] = values[k][:, places >= 0]
        results = columns @ program.program.matrix.toarray().astype(np.longdouble).T
        least, most = program.program.row_ends
        assert (results >= least).all() and (results <= most).all()
        assert (columns >= program.program.lower).all() and (columns <= program.program.upper).all()


# Special places.

TOUCHING = [
    (0.0, 1.0),
    (-1.0, 0.0),
    (0.0, 0.0),
    (-0.0, 5e-324),
    (-5e-324, 0.0),
    (-5e-324, 5e-324),
    (1.0, 1.0),
]


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_boxes_that_touch_zero(side):
    low, high = np.array(TOUCHING).T
    size = len(low)
    layers = [(side * np.eye(size), np.zeros(size)), (np.eye(size) - np.eye(size, k=1), np.zeros(size))]
    network = dense_network([*layers, (np.ones((1, size)), np.zeros(1))])
    for effort in ("ibp", "crown"):
        _, program = regional(network, low, high, effort)
        for x in points_of(low, high, np.random.default_rng(0), 9):
            check(program, network, exactly(network, None).values(x), np.random.default_rng(0))


def test_sums_that_cancel():
    """`1e16 x + y - 1e16 x` loses y in float64."""
    weight = np.array([[1e16, 1.0], [-1e16, 1.0], [1e16, -1.0]])
    layers = [
        (weight, np.array([0.1, 0.2, -0.3])),
        (np.array([[1.0, 1, 0], [0, 1, 1]]), np.zeros(2)),
        (np.eye(2), np.zeros(2)),
    ]
    network, low, high = dense_network(layers), np.array([1 / 3, -1.0]), np.array([1 / 3 + 1e-9, 1.0])
    _, program = regional(network, low, high)
    for x in points_of(low, high, np.random.default_rng(0), 12):
        check(program, network, exactly(network, None).values(x), np.random.default_rng(0))


def test_an_unbounded_value_costs_others_nothing():
    """`1 / x` over zero beside ReLUs of x: its column has no ends, theirs have."""
    nodes = (
        Node(None, (), (1,)),
        Node(Reciprocal(), (0,), (1,)),
        Node(Linear(np.array([[1.0], [-1.0]]), np.zeros(2)), (0,), (2,)),
        Node(Relu(), (2,), (2,)),
        Node(Concat(0, (1, 2)), (1, 3), (3,)),
        Node(Linear(np.array([[1.0, 1, 0], [0, 1, 1]]), np.zeros(2)), (4,), (2,)),
        Node(Relu(), (5,), (2,)),
    )
    region = Region(Box(np.array([[-1.0]]), np.array([[1.0]])))
    for output in (4, 6):
        network = Network(nodes[: output + 1], output)
        frame = propagate(network, region, Effort("crown"), 2**20)
        rows = np.eye(len(frame.boxes[output].lower[0]))
        found = lp_rows(triangle(frame), output, rows, Highs(), Deadline.after(20)).lower
        assert not np.isnan(found).any() and (found < 1e-9).all()
        assert output == 6 or (found[1:] > -1e-9).all()
        tighter = obbt(region, frame, Highs(), Deadline.after(20))
        assert tighter.boxes[3].upper.max() <= 1 + 1e-9


def test_more_steps_than_one_on_a_value():
    """Results that are settled by what is known of them, though operands' closed boxes have the jump."""
    nodes = (
        Node(None, (), (2,)),
        Node(Sign(), (0,), (2,)),
        Node(Heaviside(True), (0,), (2,)),
        Node(Combine((1, 1)), (1, 2), (2,)),
    )
    network, known = Network(nodes, 3), {1: Box(np.array([[-1.0, 1.0]]), np.array([[-1.0, 1.0]]))}
    region = Region(Box(np.array([[-1.0, 0.0]]), np.array([[0.0, 1.0]])), known)
    rows = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
    program = triangle(propagate(network, region, Effort("crown"), 2**20))
    for x in ((-1.0, 1.0), (-5e-324, 5e-324), (-0.5, 0.5)):
        check(
            program,
            network,
            exactly(network, None).values([Fraction(v) for v in x]),
            np.random.default_rng(0),
        )
    signs = lp_rows(program, 1, rows, Highs(), Deadline.after(20)).lower
    np.testing.assert_allclose(signs, [-1, 1, 1, -1], atol=1e-9)
