"""Norms and reaches of balls against exact values: fractions throughout, no tolerance on the sound side."""

import itertools
from dataclasses import dataclass, replace
from fractions import Fraction
from math import inf, isqrt

import numpy as np
import pytest
from helpers import dense_model, exact_dense
from scipy import sparse

from lpverify.bounds import ball as module
from lpverify.bounds.alpha import bound_rows
from lpverify.bounds.ball import (
    Ball,
    dual_norm,
    enclosing_box,
    enter,
    euclidean,
    product_norm,
    segments,
    spectral_norm,
)
from lpverify.bounds.linear import LinearBound
from lpverify.bounds.propagate import Region, propagate
from lpverify.errors import InternalError, UnsupportedError
from lpverify.interval import Box
from lpverify.kernels.convolution import Window
from lpverify.multipliers import Effort
from lpverify.network import Network, Node
from lpverify.ops.base import AffineOp
from lpverify.ops.convolution import Conv
from lpverify.ops.linear import Combine, Linear, MatMulConstant, Scale, SparseLinear, Sum
from lpverify.ops.piecewise import Relu
from lpverify.ops.resample import AxisMap
from lpverify.ops.shape import Broadcast, Pad, Reshape, Transpose
from lpverify.ops.transposed import ConvTranspose

SCALES = (1.0, 1e-200, 1e200, 1e-12)


def exact(array):
    return [Fraction(float(v)) for v in np.asarray(array).reshape(-1)]


def square(values):
    return sum((v * v for v in values), Fraction(0))


def root(value, digits=60):
    """The root of a fraction to that many digits, from below."""
    scale = 10**digits
    return Fraction(isqrt(int(value * scale * scale)), scale)


def top_vector(matrix):
    return np.linalg.svd(matrix)[2][0]


def stretched(matrix, vector):
    """Exact squared lengths of `matrix vector` and of the vector."""
    rows = [exact(r) for r in matrix]
    v = exact(vector)
    return square([sum((a * b for a, b in zip(r, v, strict=True)), Fraction(0)) for r in rows]), square(v)


def assert_norm(bound, matrix, slack=1e-8):
    """Not below the stretch of the vector that LAPACK finds, and not far above its norm."""
    longer, length = stretched(matrix, top_vector(matrix))
    assert Fraction(bound) ** 2 * length >= longer
    assert bound <= np.linalg.norm(matrix, 2) * (1 + slack)


# Balls.


def test_balls_are_checked():
    good = np.zeros((2, 3)), np.ones(2)
    assert Ball(*good, 2).rows([1]).radius.tolist() == [1.0]
    for centre, radius, norm in (
        (*good, 3),
        (good[0], -good[1], 2),
        (good[0], np.ones(3), 1),
        (good[0] * np.nan, good[1], 1),
        (good[0], np.full(2, np.nan), 1),
    ):
        with pytest.raises(InternalError):
            Ball(centre, radius, norm)


@pytest.mark.parametrize("seed", range(10))
def test_enclosing_box_contains_the_ball_and_is_tight(seed):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(3, 4)) * 10.0 ** rng.integers(-8, 9, (3, 4))
    radius = np.array([0.0, 0.1, 10.0 ** rng.integers(-20, 9)])
    box, empty = enclosing_box(Ball(centre, radius, 2), -inf, inf)
    assert not empty.any()
    for i, j in np.ndindex(centre.shape):
        c, r = Fraction(centre[i, j]), Fraction(radius[i])
        low, high = box.lower[i, j], box.upper[i, j]
        assert Fraction(low) <= c - r <= Fraction(low + 2 * np.spacing(abs(low)))
        assert Fraction(high) >= c + r >= Fraction(high - 2 * np.spacing(abs(high)))
    assert (box.lower[0] == centre[0]).all() and (box.upper[0] == centre[0]).all(), "radius 0 stays exact"


def test_enclosing_box_is_cut_by_the_range():
    ball = Ball(np.array([[0.5, 0.0], [3.0, 0.5]]), np.array([0.25, 1.0]), 2)
    box, empty = enclosing_box(ball, np.zeros(2), 1.0)
    assert empty.tolist() == [False, True]
    assert box.lower[0].tolist() == [0.25, 0.0] and box.upper[0].tolist() == [0.75, 0.25]


@pytest.mark.parametrize("seed", range(10))
def test_nearest_point_is_no_farther_from_anything_in_the_box(seed):
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.normal(size=(2, 1, 3)), axis=0)
    ball = Ball(rng.normal(size=(1, 3)) * 2, np.ones(1), 2)
    near = ball.nearest(Box(low, high))
    for point in (*itertools.product(*zip(low[0], high[0], strict=True)), *rng.uniform(low, high, (9, 3))):
        for x, n, c in zip(exact(point), exact(near), exact(ball.centre), strict=True):
            assert abs(x - n) <= abs(x - c)


# Norms.


@pytest.mark.parametrize("scale", SCALES)
def test_dual_norms_are_upper_bounds(scale):
    rng = np.random.default_rng(1)
    a = np.concatenate([rng.normal(size=(40, 7)), 10.0 ** rng.uniform(-250, 0, (10, 7)), np.zeros((1, 7))])
    a[3] = [1, 0, 0, 0, 0, 0, 0]
    a = a * scale
    for row, two, one in zip(a, dual_norm(a, 2), dual_norm(a, 1), strict=True):
        largest = max(abs(v) for v in exact(row))
        assert Fraction(one) == largest
        assert Fraction(two) ** 2 >= square(exact(row))
        assert Fraction(two) <= root(square(exact(row)), 350) * (1 + Fraction(1, 10**13)) + Fraction(
            1, 10**289
        )
    assert dual_norm(a, 2)[-1] == 0.0


def test_undefined_norms_are_infinite():
    for row in ([np.nan, 1.0], [inf, 1.0], [inf, -inf]):
        assert euclidean(np.array(row)) == inf
        assert spectral_norm(np.array([row, row])) == inf


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("shape", [(1, 1), (1, 6), (5, 1), (2, 2), (8, 5), (5, 8), (40, 30)])
def test_spectral_norm_is_an_upper_bound(shape, scale):
    for seed in range(4):
        matrix = np.random.default_rng(seed).normal(size=shape) * scale
        assert_norm(spectral_norm(matrix), matrix)


def test_spectral_norm_of_two_columns_is_above_the_root_of_the_characteristic_polynomial():
    rng = np.random.default_rng(0)
    for _ in range(200):
        matrix = rng.integers(-9, 10, (3, 2)).astype(float) * 10.0 ** rng.integers(-6, 7)
        (a, b), (_, d) = ([sum(p * q for p, q in zip(u, v, strict=True)) for v in map(exact, matrix.T)]
                          for u in map(exact, matrix.T))  # fmt: skip
        bound = Fraction(spectral_norm(matrix)) ** 2
        assert 2 * bound >= a + d and bound * bound - (a + d) * bound + a * d - b * b >= 0


def test_spectral_norms_that_are_known():
    hadamard = np.array([[1.0]])
    for _ in range(5):
        hadamard = np.block([[hadamard, hadamard], [hadamard, -hadamard]])
    for matrix, norm in (
        (hadamard, 32**0.5),
        (np.ones((9, 16)), 12.0),
        (np.eye(20), 1.0),
        (np.zeros((2, 3)), 0.0),
    ):
        assert norm <= spectral_norm(matrix) <= norm * (1 + 1e-8)
    assert spectral_norm(np.diag([1.0, 1e-170])) <= 1 + 1e-8


def test_spectral_norm_does_not_trust_lapack(monkeypatch):
    matrix = np.random.default_rng(0).normal(size=(12, 9))
    true = np.linalg.norm(matrix, 2)
    eigenvalues, cholesky = np.linalg.eigvalsh, np.linalg.cholesky
    for factor in (0.0, 0.3, 0.99, 1.5):
        monkeypatch.setattr(np.linalg, "eigvalsh", lambda m, f=factor: f * eigenvalues(m))
        assert spectral_norm(matrix) >= true
    monkeypatch.setattr(np.linalg, "eigvalsh", lambda m: 0.5 * eigenvalues(m))
    for wrong in (np.eye(9), cholesky(20 * np.eye(9)), np.full((9, 9), np.nan)):
        monkeypatch.setattr(np.linalg, "cholesky", lambda m, w=wrong: w)
        assert spectral_norm(matrix) >= true


def test_product_norm_leaves_out_what_the_masks_do():
    rng = np.random.default_rng(3)
    for _ in range(20):
        matrix = rng.normal(size=(7, 5))
        rows, columns = (rng.random(n) * (rng.random(n) < 0.7) for n in (7, 5))
        product = rows[:, None] * matrix * columns
        assert product_norm(rows, matrix, columns) >= np.linalg.norm(product, 2) * (1 - 1e-15)
        assert product_norm(rows, matrix, columns) <= np.linalg.norm(product, 2) * (1 + 1e-8)
    assert product_norm(np.zeros(7), matrix, None) == 0.0


# Segments.


def ops_with_shapes():
    rng = np.random.default_rng(7)
    csr = sparse.csr_array(rng.normal(size=(6, 8)) * (rng.random((6, 8)) < 0.4))
    window = Window((3, 3), (2, 1), (1, 1), (1, 1), (0, 1))
    image, turned = (1, 2, 3, 3), Window((3, 3), (2, 2), (1, 1), (1, 1), (1, 1))
    return [
        (Linear(rng.normal(size=(5, 8))), (8,), (5,)),
        (Linear(rng.normal(size=(5, 8)) * 1e-170, None, 1e-3), (8,), (5,)),
        (SparseLinear(csr), (8,), (6,)),
        (MatMulConstant(rng.normal(size=(4, 3)), False, (2, 4)), (2, 4), (2, 3)),
        (MatMulConstant(rng.normal(size=(5, 2)), True, (2, 4)), (2, 4), (5, 4)),
        (Scale(rng.normal(size=(2, 1)), rng.normal(size=(2, 4))), (2, 4), (2, 4)),
        (Combine((-1,)), (8,), (8,)),
        (Sum((0,), (2, 4)), (2, 4), (1, 4)),
        (Conv(rng.normal(size=(3, 2, 3, 3)), window, 1, (1, 2, 5, 4)), (1, 2, 5, 4), (1, 3, 2, 4)),
        (AxisMap(rng.normal(size=(3, 4)), 1, (4, 3)), (2, 4), (2, 3)),
        (ConvTranspose(rng.normal(size=(2, 3, 3, 3)), turned, 1, image, (5, 5)), image, (1, 3, 5, 5)),
        (Reshape((2, 4), (8,)), (8,), (2, 4)),
    ]  # fmt: skip


def chain_of(op, inputs, outputs):
    """A network of one op and a ReLU."""
    nodes = (
        Node(None, (), (int(np.prod(inputs)),)),
        Node(Reshape(inputs, (int(np.prod(inputs)),)), (0,), inputs),
    )
    return Network((*nodes, Node(op, (1,), outputs), Node(Relu(), (2,), outputs)), 3)


@pytest.mark.parametrize("case", range(len(ops_with_shapes())))
@pytest.mark.parametrize("large", [False, True])
def test_segments_of_single_ops(case, large, monkeypatch):
    """Written out, and by sums and squares of absolute values where they would be too large for that."""
    op, inputs, outputs = ops_with_shapes()[case]
    if large:
        monkeypatch.setattr(module, "MOST_ENTRIES", 0)
    segment = segments(chain_of(op, inputs, outputs), [3, 2, 1, 0], np.zeros(1))[3]
    size = int(np.prod(inputs))
    matrix = op.linear(np.eye(size).reshape((size, *inputs))).reshape(size, -1).T * (1 + op.weight_error)
    longer, length = stretched(matrix, top_vector(matrix))
    assert Fraction(segment.whole) ** 2 * length >= longer
    for bound, row in zip(segment.rows, matrix, strict=True):
        assert Fraction(bound) ** 2 >= square(exact(row)) * (1 - Fraction(1, 10**14))
        assert bound <= np.sqrt((row * row).sum()) * (1 + 1e-9) + 1e-140 or bound == segment.whole
    assert (segment.matrix is None) == large
    assert segment.whole <= np.linalg.norm(abs(matrix), 1) + np.linalg.norm(abs(matrix), inf)
    if not large:
        assert segment.whole <= np.linalg.norm(matrix, 2) * (1 + 1e-8 + 4 * op.weight_error * size)


def test_data_movement_stretches_by_its_copies(monkeypatch):
    monkeypatch.setattr(module, "MOST_ENTRIES", 0)
    for op, inputs, outputs, norm in (
        (Transpose((1, 0)), (2, 4), (4, 2), 1.0),
        (Pad((1, 0), (0, 2), (2, 4)), (2, 4), (3, 6), 1.0),
        (Broadcast((3, 4), (1, 4)), (1, 4), (3, 4), 3**0.5),
    ):
        whole = segments(chain_of(op, inputs, outputs), [3, 2, 1, 0], np.zeros(1))[3].whole
        assert norm <= whole <= norm * (1 + 1e-12)


def test_segments_of_several_ops(monkeypatch):
    rng = np.random.default_rng(2)
    nodes = [Node(None, (), (6,)), Node(Linear(rng.normal(size=(8, 6)), rng.normal(size=8)), (0,), (8,))]
    nodes += [Node(Scale(rng.normal(size=8), rng.normal(size=8)), (1,), (8,)), Node(Relu(), (2,), (8,))]
    nodes += [Node(Relu(), (3,), (8,)), Node(Reshape((2, 4), (8,)), (4,), (2, 4))]
    nodes += [Node(Transpose((1, 0)), (5,), (4, 2)), Node(Relu(), (6,), (4, 2))]
    network = Network(tuple(nodes), 7)
    product = nodes[2].op.weight[:, None] * nodes[1].op.weight
    for large in (False, True):
        monkeypatch.setattr(module, "MOST_ENTRIES", 0 if large else 2**24)
        found = segments(network, range(7, -1, -1), np.zeros(1))
        assert [found[k].nodes for k in sorted(found)] == [(1, 2), (), (5, 6)]
        assert np.linalg.norm(product, 2) <= found[3].whole
        assert (found[3].rows >= np.sqrt((product**2).sum(axis=1)) * (1 - 1e-15)).all()
        assert 1 <= found[4].whole <= 1 + 1e-8 and 1 <= found[7].whole <= 1 + 1e-8
        if not large:
            assert found[3].whole <= np.linalg.norm(product, 2) * (1 + 1e-8)


@dataclass(frozen=True)
class Unknown(AffineOp):
    """An op whose absolute values nobody knows."""

    def linear(self, *xs):
        return -xs[0]

    def abs_linear(self, *xs):
        return xs[0]

    def adjoint(self, a):
        return (-a,)

    @property
    def terms(self):
        return 1, 1


def test_unknown_ops_have_no_norm(monkeypatch):
    network = chain_of(Unknown(), (4,), (4,))
    assert segments(network, [3, 2, 1, 0], np.zeros(1))[3].whole <= 1 + 1e-8, "written out they have"
    monkeypatch.setattr(module, "MOST_ENTRIES", 0)
    with pytest.raises(UnsupportedError, match="Unknown"):
        segments(network, [3, 2, 1, 0], np.zeros(1))


# Tracks.


@pytest.mark.parametrize("seed", range(6))
def test_secants_contain_all_slopes(seed):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=60) * (rng.random(60) < 0.9)
    low, high = np.sort(rng.normal(size=(2, 60)) * 10.0 ** rng.integers(-3, 3), axis=0)
    mean, swing = module._secants(centre, low, high)
    for m, l, h, c, q in zip(*(exact(v) for v in (centre, low, high, mean, swing)), strict=True):
        for d in [l, h, -m, *(l + (h - l) * Fraction(i, 7) for i in range(1, 7))]:
            if l <= d <= h and d != 0:
                slope = (max(m + d, Fraction(0)) - max(m, Fraction(0))) / d
                assert abs(slope - c) <= q * q
    closed = (low >= -centre) & (centre >= 0) | (high <= -centre) & (centre <= 0) & (centre < 0)
    assert (swing[closed] == 0).all()


def worst_points(weights, biases, centre, radius, layer, mask, rng):
    """Points of the ball at which a layer's operand is far from its reference, found by ascent."""
    x = centre + radius * rng.normal(size=(12, len(centre))) / np.sqrt(len(centre))
    found = []
    for _ in range(60):
        shift = x - centre
        length = np.linalg.norm(shift, axis=1, keepdims=True)
        x = centre + shift * np.minimum(1, (1 - 1e-12) * radius / np.maximum(length, 1e-300))
        found.append(x)
        values, masks = forward(weights, biases, x, layer)
        gradient = (values - forward(weights, biases, centre[None], layer)[0]) * mask**2
        for weight, m in zip(weights[layer::-1], [np.ones(1), *masks[::-1]], strict=True):
            gradient = (gradient * m) @ weight
        x = x + radius * gradient / np.maximum(np.linalg.norm(gradient, axis=1, keepdims=True), 1e-300)
    return np.concatenate(found)


def forward(weights, biases, x, layer):
    masks = []
    for k in range(layer + 1):
        z = x @ weights[k].T + biases[k]
        masks, x = [*masks, 1.0 * (z > 0)], np.maximum(z, 0)
    return z, masks[:-1]


@pytest.mark.parametrize("seed", range(8))
def test_tracks_reach_at_least_as_far_as_the_network(seed):
    """Every layer, every element, random masks; at points that ascent finds."""
    rng = np.random.default_rng(seed)
    sizes, radius = [4, 6, 7, 5, 6], 10.0 ** rng.uniform(-2, 0.3)
    weights = [rng.normal(size=(b, a)) / np.sqrt(a) for a, b in itertools.pairwise(sizes)]
    biases, centre = [0.5 * rng.normal(size=b) for b in sizes[1:]], rng.normal(size=4)
    nodes = [Node(None, (), (4,))]
    for weight, bias in zip(weights, biases, strict=True):
        nodes += [Node(Linear(weight, bias), (len(nodes) - 1,), (len(bias),))]
        nodes += [Node(Relu(), (len(nodes) - 1,), (len(bias),))]
    found = segments(Network(tuple(nodes), 8), range(8, -1, -1), np.zeros(1))
    track, reach = None, radius
    for layer in range(4):
        reference = forward(weights, biases, centre[None], layer)[0][0]
        entry = enter(track, found[2 * layer + 2], reach, np.zeros(len(reference)))
        masks = [np.ones(len(reference)), *rng.random((2, len(reference))), *np.eye(len(reference))]
        for mask in masks:
            points = worst_points(weights, biases, centre, radius, layer, mask, rng)
            apart = abs(forward(weights, biases, points, layer)[0] - reference)
            assert np.linalg.norm(apart * mask, axis=1).max() <= entry.reach(mask) * (1 + 1e-12)
            assert (apart.max(axis=0) <= entry.rows() * (1 + 1e-12)).all()
        reach = min(entry.reach(masks[0]), found[2 * layer + 2].whole * reach)
        assert entry.reach(masks[0]) <= 2 * found[2 * layer + 2].whole * reach
        rows = entry.rows()
        track = entry.passed(-rows, rows, reference)


def test_tracks_are_exact_where_nothing_is_unstable():
    rng = np.random.default_rng(5)
    weights = [rng.normal(size=(6, 4)), rng.normal(size=(5, 6))]
    nodes = (Node(None, (), (4,)), Node(Linear(weights[0]), (0,), (6,)), Node(Relu(), (1,), (6,)),
             Node(Linear(weights[1]), (2,), (5,)), Node(Relu(), (3,), (5,)))  # fmt: skip
    found = segments(Network(nodes, 4), range(4, -1, -1), np.zeros(1))
    centre = np.array([3.0, -3.0, 3.0, -3.0, 3.0, 3.0])
    track = enter(None, found[2], 0.25, np.zeros(6)).passed(-np.full(6, 2.0), np.full(6, 2.0), centre)
    entry = enter(track, found[4], 1.0, np.zeros(5))
    product = weights[1] @ ((centre > 0)[:, None] * weights[0])
    assert (
        np.linalg.norm(product, 2) * 0.25
        <= entry.reach(np.ones(5))
        <= np.linalg.norm(product, 2) * 0.25 + 1e-9
    )
    np.testing.assert_allclose(entry.rows(), 0.25 * np.linalg.norm(product, axis=1), rtol=1e-9)


# Bounds over balls.


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e30])
def test_linear_bounds_over_balls_are_exact(norm, scale):
    """`min a . (x - c) + b` over the ball, in fractions; the reference c is not the ball's centre."""
    rng = np.random.default_rng(norm)
    a = rng.normal(size=(2, 6, 5)) * scale
    a[0, 1], a[1, 2, 3:] = 0.0, 0.0
    constant, reference = rng.normal(size=(2, 6)), rng.normal(size=(2, 5))
    ball = Ball(reference + rng.normal(size=(2, 5)) * [[1.0], [0.0]], np.array([0.7, 0.0]), norm)
    wide = Box(np.full((2, 5), -inf), np.full((2, 5), inf))
    with np.errstate(invalid="ignore"):
        lower = LinearBound(a, constant, reference).concretize(wide, ball)
    for i, r in np.ndindex(2, 6):
        row = exact(a[i, r])
        shift = [x - c for x, c in zip(exact(ball.centre[i]), exact(reference[i]), strict=True)]
        least = sum((p * q for p, q in zip(row, shift, strict=True)), Fraction(constant[i, r]))
        reach = root(square(row)) if norm == 2 else max(abs(v) for v in row)
        below = reach if norm == 1 else reach + Fraction(1, 10**59)
        true = least - Fraction(ball.radius[i]) * reach
        assert Fraction(lower[i, r]) <= least - Fraction(ball.radius[i]) * (reach if norm == 2 else below)
        size = 1 + abs(least) + reach
        assert Fraction(lower[i, r]) >= true - size * Fraction(1, 10**9)


def test_the_better_of_box_and_ball_counts():
    linear = LinearBound(np.array([[[1.0, 0.0], [1.0, 1.0]]]), np.zeros((1, 2)), np.zeros((1, 2)))
    box, ball = Box(-np.ones((1, 2)), np.ones((1, 2))), Ball(np.zeros((1, 2)), np.array([1.25]), 2)
    np.testing.assert_allclose(linear.concretize(box, ball), [[-1.0, -1.25 * 2**0.5]], rtol=1e-12)
    np.testing.assert_allclose(linear.concretize(box), [[-1.0, -2.0]], rtol=1e-12)


def plain_network(layers):
    """Linear ops of `(out, in)` and ReLUs in turn, the first operand one step from the input."""
    nodes = [Node(None, (), (layers[0][0].shape[1],))]
    for weight, bias in layers:
        nodes += [Node(Linear(weight, bias), (len(nodes) - 1,), (len(bias),))]
        nodes += [Node(Relu(), (len(nodes) - 1,), (len(bias),))]
    return Network(tuple(nodes[:-1]), len(nodes) - 2)


def layers_of(rng, sizes):
    return [
        (rng.normal(size=(a, b)).astype(np.float32), rng.normal(size=b).astype(np.float32))
        for a, b in itertools.pairwise(sizes)
    ]


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_linear_networks_have_exact_bounds(norm, seed):
    """The bound of each output is within 1e-9 of the exact minimum, and not above it."""
    rng = np.random.default_rng(seed)
    (first, c), (second, d) = layers_of(rng, (5, 4, 3))
    network = dense_model([(first.astype(float) @ second, c.astype(float) @ second + d)]).network
    offset = rng.normal(size=(1, 5))
    ball = Ball(offset, np.array([0.5]), norm)
    box, _ = enclosing_box(ball, -inf, inf)
    frame = propagate(network, Region(box, ball=ball), Effort("crown"), 2**20)
    rows = np.concatenate([np.eye(3), -np.eye(3)])[None]
    lower = bound_rows(frame, rows.reshape(1, 6, 3)).concretize(frame.boxes[0], frame.ball)[0]
    matrix = (first.astype(float) @ second).astype(np.float32)
    bias = (c.astype(float) @ second + d).astype(np.float32)
    for r, bound in enumerate(lower):
        sign, column = (1 if r < 3 else -1), exact(matrix[:, r % 3])
        at = sum((w * x for w, x in zip(column, exact(offset), strict=True)), Fraction(float(bias[r % 3])))
        reach = root(square(column)) if norm == 2 else max(abs(w) for w in column)
        least = sign * at - Fraction(1, 2) * reach
        assert least - Fraction(1, 10**9) <= Fraction(bound) <= least


@pytest.mark.parametrize("norm", [1, 2])
@pytest.mark.parametrize("seed", range(6))
def test_boxes_over_balls_contain_exact_values_and_are_tighter(norm, seed):
    """First-layer operands get the dual norm; deeper ones backward bounds over the ball."""
    rng = np.random.default_rng(seed)
    layers = layers_of(rng, (6, 7, 6, 3))
    network = plain_network([(w.T.astype(float), b.astype(float)) for w, b in layers])
    centre, radius = rng.normal(size=6), 0.5
    ball = Ball(centre[None], np.array([radius]), norm)
    box, _ = enclosing_box(ball, centre - rng.random(6), inf)
    frame = propagate(network, Region(box, ball=ball), Effort("crown"), 2**20)
    plain = propagate(network, Region(box), Effort("crown"), 2**20)
    assert frame.entry(0).ball.radius.tolist() == [radius] and plain.ball is None
    first = network.pre_activations[0]
    assert first not in network.refinable
    tight, loose = frame.boxes[first], plain.boxes[first]
    assert (tight.lower >= loose.lower).all() and (tight.upper <= loose.upper).all()
    weight = layers[0][0].astype(float)
    reach = radius * (np.linalg.norm(weight, axis=0) if norm == 2 else abs(weight).max(axis=0))
    at = centre @ weight + layers[0][1]
    unstable = ((plain.boxes[first].lower < 0) & (plain.boxes[first].upper > 0))[0].reshape(-1)
    assert unstable.any()
    low, high = (e[0].reshape(-1)[unstable] for e in (frame.boxes[first].lower, frame.boxes[first].upper))
    assert (low >= (at - reach)[unstable] - 1e-9).all() and (high <= (at + reach)[unstable] + 1e-9).all()
    for point in inner_points(rng, centre, radius, norm, box):
        for k, value in zip(network.pre_activations, exact_operands(layers, point), strict=True):
            for v, l, h in zip(value, exact(frame.boxes[k].lower), exact(frame.boxes[k].upper), strict=True):
                assert l <= v <= h


def exact_operands(layers, x):
    """The exact operands of all ReLUs."""
    return [exact_dense(layers[: k + 1], exact(x)) for k in range(len(layers) - 1)]


def inner_points(rng, centre, radius, norm, box):
    """Points of the surface, moved inside box and ball; checked in fractions."""
    for i in range(24):
        direction = rng.normal(size=len(centre))
        if norm == 1 and i % 2:
            direction = np.eye(len(centre))[i // 2 % len(centre)] * rng.choice([-1, 1])
        length = np.linalg.norm(direction, norm)
        point = np.clip(centre + direction / length * radius * (1 - 1e-13), box.lower[0], box.upper[0])
        apart = [x - c for x, c in zip(exact(point), exact(centre), strict=True)]
        size = square(apart) if norm == 2 else sum(map(abs, apart))
        assert size <= Fraction(radius) ** norm
        yield point


def test_a_ball_around_the_box_changes_nothing():
    layers = layers_of(np.random.default_rng(3), (5, 8, 8, 2))
    network = dense_model(layers).network
    box = Box(-np.ones((2, 5)), np.ones((2, 5)))
    plain = propagate(network, Region(box), Effort("crown"), 2**20)
    around = propagate(
        network, Region(box, ball=Ball(np.zeros((2, 5)), np.full(2, 9.0), 2)), Effort("crown"), 2**20
    )
    for one, other in zip(plain.boxes, around.boxes, strict=True):
        np.testing.assert_allclose(one.lower, other.lower, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(one.upper, other.upper, rtol=1e-9, atol=1e-9)
    moved = replace(plain, ball=around.ball)
    rows = np.broadcast_to(np.eye(2), (2, 2, 2))
    found = [bound_rows(f, rows).concretize(f.boxes[0], f.ball) for f in (plain, moved)]
    assert (found[0] == found[1]).all()
