"""Norms of affine parts, structure, and slopes, against matrices written out."""

from dataclasses import replace
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from helpers import model_of
from onnx import helper, numpy_helper

from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.kernels.convolution import Window
from lpverify.loading import LoadedNetwork
from lpverify.ops.activations import Erf, Gelu, Sigmoid, Swish, Tanh
from lpverify.ops.convolution import Conv
from lpverify.ops.piecewise import Relu
from lpverify.robustness.lipschitz import chain, lipschitz
from lpverify.robustness.lipschitz.certified import certified_bound
from lpverify.robustness.lipschitz.chain import Layers, Matrix, matrix_of, parts_of
from lpverify.robustness.lipschitz.deviation import deviation_bounds
from lpverify.robustness.lipschitz.eclipse import eclipse_bound
from lpverify.robustness.lipschitz.lipsdp import default_backend, lipsdp_bound
from lpverify.robustness.lipschitz.norms import fourier_norm, matrix_norm, op_norm
from lpverify.robustness.lipschitz.product import product_bound
from lpverify.robustness.lipschitz.slopes import slope_range
from lpverify.robustness.lipschitz.structure import residual_norm, weighed_norm
from lpverify.simplify import simplify

NORMS = (1, 2, inf)


def graph_model(nodes, constants, sizes):
    tensors = [
        numpy_helper.from_array(a if a.dtype == np.int64 else np.asarray(a, np.float32), n)
        for n, a in constants.items()
    ]
    made = [helper.make_node(op, ins, outs, **attributes) for op, ins, outs, attributes in nodes]
    return model_of(made, tensors, sizes)


def whole(values):
    return np.asarray(values, np.int64)


def assert_constant(model, expected, norm, exact=True):
    """The bound is what is expected and not below what is observed."""
    found = lipschitz(LoadedNetwork(model), norm=norm, method="product")
    assert found.observed <= found.value * (1 + 1e-9)
    if exact:
        assert found.value == pytest.approx(expected, rel=1e-6)
    return found


# Norms.


def convolution(rng, stride, dilation, pads, groups):
    weight = rng.normal(size=(4, 4 // groups, 3, 2))
    window = Window((3, 2), (stride, 1), (dilation, 1), (pads, 0), (pads, 1))
    return Conv(weight, window, groups, (1, 4, 7, 5))


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("pads", [0, 1, 3])
@pytest.mark.parametrize("groups", [1, 2])
def test_fourier_norms_are_above_the_norm(stride, dilation, pads, groups):
    op = convolution(np.random.default_rng(stride + 2 * pads), stride, dilation, pads, groups)
    n = 4 * 7 * 5
    matrix = op.linear(np.eye(n).reshape(n, 1, 4, 7, 5)).reshape(n, -1).T
    exact = np.linalg.norm(matrix, 2)
    bound = fourier_norm(op)
    assert exact <= bound * (1 + 1e-12)
    if stride == 1 and pads >= 1:
        assert bound <= 1.5 * exact


def test_fourier_norms_are_sharp_on_large_images():
    rng = np.random.default_rng(0)
    window = Window((3, 3), (1, 1), (1, 1), (1, 1), (1, 1))
    op = Conv(rng.normal(size=(3, 2, 3, 3)), window, 1, (1, 2, 40, 40))
    grid = np.exp(2j * np.pi * np.outer(np.arange(3), np.arange(42)) / 42)
    spectrum = np.einsum("oiab,ax,by->xyoi", op.weight, grid, grid)
    assert fourier_norm(op) == pytest.approx(np.linalg.norm(spectrum, 2, axis=(2, 3)).max(), rel=0.01)


def test_weight_errors_enter_norms():
    rng = np.random.default_rng(0)
    op = convolution(rng, 1, 1, 1, 1)
    assert fourier_norm(replace(op, weight_error=0.01)) > fourier_norm(op) * 1.009
    exact = Matrix(np.eye(2), np.zeros((2, 2)))
    loose = Matrix(np.eye(2), np.full((2, 2), 0.1))
    for norm in NORMS:
        assert matrix_norm(exact, norm) == pytest.approx(1.0)
        assert matrix_norm(loose, norm) >= 1.2 * (1 - 1e-12)


@pytest.mark.parametrize("norm", NORMS)
def test_layers_too_large_to_write_out_are_bounded_op_by_op(norm, monkeypatch):
    rng = np.random.default_rng(0)
    constants = {"w": rng.normal(size=(2, 1, 3, 3)), "s": whole([1, 1, 6, 6]), "v": rng.normal(size=(32, 3))}
    nodes = [
        ("Reshape", ["x", "s"], ["i"], {}),
        ("Conv", ["i", "w"], ["c"], {}),
        ("Relu", ["c"], ["r"], {}),
        ("Flatten", ["r"], ["f"], {}),
        ("MatMul", ["f", "v"], ["y"], {}),
    ]
    model = graph_model(nodes, constants, (36, 3))
    small = lipschitz(LoadedNetwork(model), norm=norm, method="product")
    monkeypatch.setattr(chain, "MOST_ENTRIES", 100)
    large = lipschitz(LoadedNetwork(model), norm=norm, method="product")
    assert small.observed <= small.value <= large.value * (1 + 1e-9) < 50 * small.value


# Structure.


def pairs(kind):
    """Max and Min of the halves of the input, side by side."""
    constants = {"n": whole([2, 2])}
    nodes = [("Split", ["x", "n"], ["a", "b"], {"axis": 1})]
    nodes += [(k, ["a", "b"], [f"{k}{i}"], {}) for i, k in enumerate(kind)]
    both = [f"{k}{i}" for i, k in enumerate(kind)]
    return graph_model([*nodes, ("Concat", both, ["y"], {"axis": 1})], constants, (4, 2 * len(kind)))


@pytest.mark.parametrize("norm", NORMS)
def test_sorted_pairs_enlarge_nothing(norm):
    for order in (("Max", "Min"), ("Min", "Max")):
        assert assert_constant(pairs(order), 1.0, norm).value == 1.0


@pytest.mark.parametrize(("norm", "expected"), [(1, 2.0), (2, np.sqrt(2)), (inf, 1.0)])
def test_a_maximum_twice_does(norm, expected):
    assert_constant(pairs(("Max", "Max")), expected, norm)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("stride", [1, 2])
def test_max_pools(norm, stride):
    nodes = [
        ("Reshape", ["x", "s"], ["i"], {}),
        ("MaxPool", ["i"], ["m"], {"kernel_shape": [2, 2], "strides": [stride, stride]}),
        ("Flatten", ["m"], ["y"], {}),
    ]
    count = 4 if stride == 2 else 9
    model = graph_model(nodes, {"s": whole([1, 1, 4, 4])}, (16, count))
    overlap = {1: 4.0, 2: 2.0, inf: 1.0}[norm] if stride == 1 else 1.0
    assert_constant(model, overlap, norm)


@pytest.mark.parametrize("norm", NORMS)
def test_absolute_values_and_leaky_ones(norm):
    for kind in ("Abs", "LeakyRelu"):
        assert_constant(graph_model([(kind, ["x"], ["y"], {})], {}, (3, 3)), 1.0, norm)


def residual(w, t, seed=0):
    """`x - 2 W T^-1 relu(W'x + b)`."""
    b = np.random.default_rng(seed).normal(size=w.shape[1])
    nodes = [
        ("Gemm", ["x", "w", "b"], ["z"], {}),
        ("Relu", ["z"], ["r"], {}),
        ("MatMul", ["r", "v"], ["d"], {}),
        ("Sub", ["x", "d"], ["y"], {}),
    ]
    return graph_model(nodes, {"w": w, "b": b, "v": 2 * w.T / t[:, None]}, (len(w), len(w)))


@pytest.mark.parametrize("seed", range(5))
def test_residual_layers_that_are_made_to_be_1_lipschitz(seed):
    w = np.random.default_rng(seed).normal(size=(5, 4))
    t = abs(w.T @ w).sum(axis=1)
    found = assert_constant(residual(w, t, seed), 1.0, 2, exact=False)
    assert found.value <= 1 + 1e-5
    assert assert_constant(residual(w, 0.2 * t, seed), 0.0, 2, exact=False).value > 1


@pytest.mark.parametrize("seed", range(8))
def test_any_residual_part_is_bounded(seed):
    rng = np.random.default_rng(seed)
    model = residual(rng.normal(size=(3, 4)), rng.normal(size=4), seed)
    network = simplify(model.network)
    (part,) = [p for p in parts_of(network) if not p.affine]
    plain = {norm: assert_constant(model, 0.0, norm, exact=False).value for norm in NORMS}
    assert plain[2] <= residual_norm(network, part)
    with pytest.raises(UnsupportedError):
        weighed_norm(network, part, 2)


def test_parts_are_found_and_merged():
    network = simplify(residual(np.eye(3), np.ones(3)).network)
    parts = parts_of(network)
    assert [p.source for p in parts[1:]] == [p.target for p in parts[:-1]]
    assert parts[0].source == 0 and parts[-1].target == network.output
    assert all(not (a.affine and b.affine) for a, b in pairwise(parts))


def test_deep_residual_parts_take_sums_of_norms():
    rng = np.random.default_rng(1)
    constants = {f"w{k}": rng.normal(size=(3, 3)) for k in range(3)}
    nodes, value = [], "x"
    for k in range(3):
        nodes += [("MatMul", [value, f"w{k}"], [f"z{k}"], {}), ("Relu", [f"z{k}"], [f"r{k}"], {})]
        value = f"r{k}"
    model = graph_model([*nodes, ("Add", ["x", value], ["y"], {})], constants, (3, 3))
    norms = [np.linalg.norm(np.asarray(w, np.float32), 2) for w in constants.values()]
    assert_constant(model, 1 + np.prod(norms), 2)


def test_nodes_without_a_rule_are_named():
    nodes = [("Relu", ["x"], ["r"], {}), ("Mul", ["r", "x"], ["m"], {}), ("Relu", ["m"], ["y"], {})]
    network = simplify(graph_model(nodes, {}, (2, 2)).network)
    with pytest.raises(UnsupportedError, match="Multiply"):
        product_bound(network, parts_of(network), 2)


def test_matrices_hold_the_exact_ones():
    rng = np.random.default_rng(0)
    nodes = [("MatMul", ["x", "a"], ["z"], {}), ("MatMul", ["z", "b"], ["y"], {})]
    a, b = (np.asarray(rng.normal(size=(4, 4)), np.float32) for _ in range(2))
    network = graph_model(nodes, {"a": a, "b": b}, (4, 4)).network
    found = matrix_of(network, range(1, network.output + 1), 0, network.output)
    exact = np.array(
        [
            [
                sum(int(x * 2**40) * int(y * 2**40) for x, y in zip(r, c, strict=True))
                for c in b.T.astype(float)
            ]
            for r in a.astype(float)
        ],
        dtype=object,
    )
    for i in range(4):
        for j in range(4):
            difference = abs(int(found.value[j, i] * 2.0**80) - exact[i, j])
            assert difference <= found.error[j, i] * 2.0**80 + 1
    assert (found.error < 1e-13).all()
    for norm in NORMS:
        assert op_norm(network, network.output, network.nodes[network.output].inputs[0], norm) > 0


# Slopes.


@pytest.mark.parametrize(
    "op", [Relu(), Tanh(), Sigmoid(), Erf(), Gelu(), Swish(1.0)], ids=lambda o: type(o).__name__
)
def test_slope_ranges_hold_and_are_attained(op):
    rng = np.random.default_rng(0)
    low = rng.normal(size=40) * 3
    high = low + rng.exponential(size=40) * rng.choice([1e-3, 1.0, 5.0], 40)
    found = slope_range(op, Box(low[None], high[None]))
    points = np.linspace(low, high, 2001)
    slopes = op.derivative(points)
    assert (slopes >= found.lower).all() and (slopes <= found.upper).all()
    inner = op.derivative(points[1:-1])
    assert (found.upper[0] <= inner.max(axis=0) + 0.02).all() or isinstance(op, Relu)
    assert (found.lower[0] >= inner.min(axis=0) - 0.02).all() or isinstance(op, Relu)


def test_slopes_of_relus():
    box = Box(np.array([[-1.0, 0.0, -1.0, 1.0, 0.0]]), np.array([[1.0, 1.0, 0.0, 2.0, 0.0]]))
    found = slope_range(Relu(), box)
    assert found.lower.tolist() == [[0, 1, 0, 1, 1]]
    assert found.upper.tolist() == [[1, 1, 0, 1, 1]]


def test_fourier_grids_have_room_for_every_window():
    window = Window((2,), (1,), (1,), (1,), (1,))
    op = Conv(np.array([[[1.0, -1.0]]]), window, 1, (1, 1, 1))
    assert fourier_norm(op) >= np.sqrt(2)


# Slopes between given ends.


def random_chain(seed, falling):
    """A chain whose functions have arbitrary slopes, and a matrix of one choice of them after the other."""
    rng = np.random.default_rng(seed)
    sizes = [3, 6, 5, 2]
    weights = tuple(
        Matrix(w, np.zeros_like(w)) for w in (rng.normal(size=(m, n)) for n, m in pairwise(sizes))
    )
    ends = [np.sort(rng.uniform(-1 if falling else 0, 2, size=(2, n)), axis=0) for n in sizes[1:-1]]
    for low, high in ends:
        high[rng.random(len(low)) < 0.3] = 0  # some never move
        low[:] = np.minimum(low, high)
        low[rng.random(len(low)) < 0.3] = high[0]
        high[:] = np.maximum(low, high)
    layers = Layers(weights, tuple((low, high) for low, high in ends))

    def choice():
        matrix = weights[0].value
        for (low, high), weight in zip(ends, weights[1:], strict=True):
            slopes = np.where(rng.random(len(low)) < 0.5, low, high)
            matrix = weight.value @ (slopes[:, None] * matrix)
        return matrix

    return layers, choice


@pytest.mark.parametrize("falling", [False, True])
@pytest.mark.parametrize("seed", range(10))
def test_bounds_hold_for_any_slopes_within_their_ends(seed, falling):
    layers, choice = random_chain(seed, falling)
    rows, whole_ = deviation_bounds(layers)
    programmed = lipsdp_bound(layers, default_backend()) if seed < 4 else inf
    rng = np.random.default_rng(seed)
    guesses = [[rng.exponential(size=len(low)) * 10.0**k for low, _ in layers.slopes] for k in range(-2, 4)]
    certified = [certified_bound(layers, t) for t in guesses]
    for _ in range(300):
        matrix = choice()
        norm = np.linalg.norm(matrix, 2) * (1 - 1e-12)
        assert norm <= min([whole_, programmed, *certified])
        assert (np.linalg.norm(matrix, axis=1) * (1 - 1e-12) <= rows).all()
    if not falling:
        assert all((low >= 0).all() for low, _ in layers.slopes)
        assert eclipse_bound(layers) >= norm


def test_deviations_are_exact_without_any_and_infinite_without_ends():
    layers, _ = random_chain(0, falling=False)
    fixed = Layers(layers.weights, tuple((high, high) for _, high in layers.slopes))
    matrix = layers.weights[0].value
    for (_, high), weight in zip(fixed.slopes, layers.weights[1:], strict=True):
        matrix = weight.value @ (high[:, None] * matrix)
    assert deviation_bounds(fixed)[1] == pytest.approx(np.linalg.norm(matrix, 2))
    assert deviation_bounds(fixed)[0] == pytest.approx(np.linalg.norm(matrix, axis=1))
    free = Layers(layers.weights, tuple((low, np.full_like(high, inf)) for low, high in layers.slopes))
    assert deviation_bounds(free)[1] == inf
