"""Condensed networks are the same functions; products of matrices are within their stated errors, exactly."""

from fractions import Fraction
from importlib import import_module
from itertools import pairwise

import numpy as np
import pytest
from helpers import box_assertions, dense_model, query_of, random_dense
from onnx import TensorProto, helper, numpy_helper

from lpverify.bounds.condense import compose, condense
from lpverify.io.onnx import import_model
from lpverify.kernels.dense import Affine, Block, Rectifier, block_of, stack
from lpverify.problem import compile_problem

MODULE = import_module("lpverify.bounds.condense")  # `lpverify.bounds` is a function, too


class Onnx:
    """A small ONNX graph under construction; the last value is its output."""

    def __init__(self, shape, seed=0):
        self.shape, self.last, self.rng = shape, "x", np.random.default_rng(seed)
        self.nodes, self.tensors = [], []

    def constant(self, array):
        array = np.asarray(array)
        array = array.astype(np.int64 if array.dtype.kind == "i" else np.float32)
        self.tensors.append(numpy_helper.from_array(array, f"c{len(self.tensors)}"))
        return self.tensors[-1].name

    def normal(self, *shape):
        return self.constant(self.rng.normal(size=shape))

    def node(self, op, *inputs, **attributes):
        self.last = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [self.last], **attributes))
        return self.last

    def dense(self, value, inputs, outputs):
        return self.node("Gemm", value, self.normal(outputs, inputs), self.normal(outputs), transB=1)

    def model(self):
        ends = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *self.shape]),
            helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None),
        ]
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.tensors)
        proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return import_model(proto.SerializeToString())


def matrix_of(block):
    """The block's matrix, entries of a column that occurs twice added up."""
    matrix = np.zeros((len(block.start) - 1, block.cols))
    for i, (first, last) in enumerate(pairwise(block.start)):
        np.add.at(matrix[i], block.column[first:last], block.value[first:last])
    return matrix


def run(graph, x):
    """All values of the graph's nodes at points `(N, n)`."""
    values = [x]
    for node in graph.nodes:
        if isinstance(node, Rectifier):
            values.append(np.maximum(values[node.source], 0))
        else:
            parts = (values[b.source] @ matrix_of(b).T for b in node.blocks)
            values.append(sum(parts, np.broadcast_to(node.bias, (len(x), node.width))))
    return values


def check(network, points=20):
    """The graph of a network, after a comparison with it."""
    graph = condense(network)
    assert graph is not None and isinstance(graph.nodes[-1], Affine)
    assert graph.inputs == network.input_size
    for node in graph.nodes:
        if isinstance(node, Rectifier):
            assert isinstance(graph.nodes[node.source - 1], Affine)
        else:
            sources = [b.source for b in node.blocks]
            assert len(set(sources)) == len(sources)
    x = np.random.default_rng(0).normal(size=(points, network.input_size))
    values, expected = run(graph, x), network.evaluate(x)
    for mine, theirs in [(len(graph.nodes), network.output), *graph.values.items()]:
        want = np.broadcast_to(expected[theirs].reshape(len(expected[theirs]), -1), values[mine].shape)
        scale = np.abs(want).max(initial=1e-300)
        np.testing.assert_allclose(values[mine], want, rtol=1e-9, atol=1e-9 * scale)
    assert {n.source for n in graph.nodes if isinstance(n, Rectifier)} == set(graph.values)
    return graph


def check_model(model):
    """The network as it was imported and as it is searched, with forms that read the inputs too."""
    graph = check(model.network)
    outputs = sum(model.outputs.sizes)
    forms = f"(or (<= (- (* 2 Y_0) X_0) 0.5) (>= (+ Y_{outputs - 1} Y_0) 1) (< Y_0 3))"
    sizes = sum(model.inputs.sizes)
    body = box_assertions([-1] * sizes, [1] * sizes) + f"(assert {forms})"
    check(compile_problem(model.network, query_of(model, body)).network)
    return graph


@pytest.mark.parametrize("sizes", [(3, 2), (2, 5, 1), (5, 16, 17, 3), (1, 1, 1, 1), (4, 30, 1, 30, 2)])
def test_dense_networks(sizes):
    graph = check_model(random_dense(1, sizes))
    assert [n.width for n in graph.nodes] == [w for s in sizes[1:-1] for w in (s, s)] + [sizes[-1]]


def test_zero_weights_are_left_out():
    weight = np.array([[0.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    graph = check(dense_model([(weight, [1, 0, 0]), (np.eye(3), np.zeros(3))]).network)
    assert graph.weights == 1 + 3


# Graphs.


def reshaped(g):
    hidden = g.node("Relu", g.dense("x", 6, 8))
    grid = g.node("Reshape", hidden, g.constant([1, 2, 4]))
    turned = g.node("Transpose", grid, perm=[0, 2, 1])
    g.dense(g.node("Reshape", turned, g.constant([1, 8])), 8, 3)


def sliced(g):
    hidden = g.node("Relu", g.dense("x", 6, 8))
    even = g.node("Slice", hidden, *(g.constant([v]) for v in (0, 8, 1, 2)))
    back = g.node("Slice", hidden, *(g.constant([v]) for v in (7, 3, 1, -1)))
    g.dense(g.node("Relu", g.node("Sub", even, back)), 4, 3)


def sliced_before_relu(g):
    """The ReLU reads a part of an affine node in another order; the rest is read as it is."""
    hidden = g.dense("x", 6, 8)
    part = g.node("Slice", hidden, *(g.constant([v]) for v in (6, 1, 1, -2)))
    g.node("Concat", g.dense(g.node("Relu", part), 3, 2), hidden, part, axis=1)


def concatenated(g):
    left, right = g.node("Relu", g.dense("x", 6, 5)), g.node("Relu", g.dense("x", 6, 3))
    both = g.node("Concat", left, g.normal(1, 2), right, "x", left, axis=1)
    g.dense(g.node("Relu", g.dense(both, 21, 6)), 6, 2)


def residual(g):
    stem = g.node("Relu", g.dense("x", 6, 8))
    for _ in range(2):
        part = g.dense(g.node("Relu", g.dense(stem, 8, 8)), 8, 8)
        stem = g.node("Relu", g.node("Add", part, stem))
    g.dense(stem, 8, 3)


def two_branches(g):
    stem = g.dense("x", 6, 8)
    g.node("Add", g.dense(g.node("Relu", stem), 8, 3), g.dense(stem, 8, 3))


def same_twice(g):
    hidden = g.node("Relu", g.dense("x", 6, 4))
    double = g.node("Add", hidden, hidden)
    g.dense(g.node("Sub", double, g.node("Slice", double, *(g.constant([v]) for v in (3, -9, 1, -1)))), 4, 2)


def scaled(g):
    hidden = g.node("Add", g.node("Mul", "x", g.normal(6)), g.normal(6))
    hidden = g.node("Mul", g.node("Relu", g.dense(hidden, 6, 5)), g.normal(5))
    g.node("Mul", g.node("Add", g.dense(g.node("Neg", hidden), 5, 2), g.normal(2)), g.normal(1))


def scaled_and_read_twice(g):
    """An affine node between two others that must not be swallowed by either."""
    hidden = g.node("Mul", g.dense("x", 6, 5), g.normal(5))
    g.node("Concat", g.node("Mul", hidden, g.normal(5)), g.node("Add", hidden, g.normal(5)), axis=1)


def expanded(g):
    """Elements that are copied many times: a column occurs many times in a row."""
    hidden = g.node("Reshape", g.node("Relu", g.dense("x", 6, 3)), g.constant([3, 1]))
    wide = g.node("Expand", hidden, g.constant([3, 7]))
    g.dense(g.node("Reshape", wide, g.constant([1, 21])), 21, 2)


def padded(g):
    hidden = g.node("Relu", g.dense("x", 6, 4))
    g.dense(g.node("Pad", hidden, g.constant([0, 2, 0, 1]), g.constant(np.float32(0.5))), 7, 2)


def leaky(g):
    g.dense(g.node("LeakyRelu", g.dense("x", 6, 8), alpha=0.1), 8, 3)


def absolute(g):
    g.dense(g.node("Abs", g.dense("x", 6, 8)), 8, 3)


def maximum(g):
    first, second = g.dense("x", 6, 5), g.dense("x", 6, 5)
    g.dense(g.node("Max", first, second, g.normal(1, 5)), 5, 2)


def clipped(g):
    ends = g.constant(np.float32(-0.5)), g.constant(np.float32(0.75))
    g.dense(g.node("Clip", g.dense("x", 6, 5), *ends), 5, 2)


def ends_in_relu(g):
    g.node("Relu", g.dense("x", 6, 3))


def relu_of_the_input(g):
    g.dense(g.node("Relu", g.node("Relu", "x")), 6, 2)


def only_moved(g):
    g.node("Slice", "x", *(g.constant([v]) for v in (5, 1, 1, -2)))


def sum_of_relus(g):
    hidden = g.node("Relu", g.dense("x", 6, 8))
    g.node("ReduceSum", g.node("Mul", hidden, g.constant(np.float32(0.3))), g.constant([1]), keepdims=1)


GRAPHS = [
    reshaped,
    sliced,
    sliced_before_relu,
    concatenated,
    residual,
    two_branches,
    same_twice,
    scaled,
    scaled_and_read_twice,
    expanded,
    padded,
    leaky,
    absolute,
    maximum,
    clipped,
    ends_in_relu,
    relu_of_the_input,
    only_moved,
    sum_of_relus,
]


@pytest.mark.parametrize("build", GRAPHS)
def test_graphs(build):
    g = Onnx((6,))
    build(g)
    check_model(g.model())


@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"strides": [2, 1], "pads": [1, 0, 1, 2]},
        {"group": 2, "dilations": [2, 1]},
        {"pads": [1, 1, 1, 1], "strides": [2, 2]},
    ],
)
def test_convolutions(attributes):
    g = Onnx((2, 5, 6))
    inputs = 2 // attributes.get("group", 1)
    first = g.node("Conv", "x", g.normal(4, inputs, 3, 3), g.normal(4), kernel_shape=[3, 3], **attributes)
    pooled = g.node("AveragePool", g.node("Relu", first), kernel_shape=[1, 2])
    g.node("Flatten", pooled)
    size = sum(g.model().outputs.sizes)
    g.dense(g.last, size, 3)
    check_model(g.model())


def test_movement_needs_no_node():
    g = Onnx((6,))
    reshaped(g)
    assert [n.width for n in condense(g.model().network).nodes] == [8, 8, 3]


def test_scales_become_one_node_with_what_they_scale():
    g = Onnx((6,))
    hidden = g.node("Mul", g.node("Add", g.dense("x", 6, 5), g.normal(5)), g.normal(5))
    g.dense(g.node("Relu", hidden), 5, 2)
    assert [n.width for n in check(g.model().network).nodes] == [5, 5, 2]


def test_rows_pulled_in_parts_are_the_same(monkeypatch):
    g = Onnx((2, 5, 6))
    g.node("Relu", g.node("Conv", "x", g.normal(4, 2, 3, 3), g.normal(4), kernel_shape=[3, 3]))
    whole = condense(g.model().network)
    monkeypatch.setattr(MODULE, "CHUNK", 150)
    parts = condense(g.model().network)
    for a, b in zip(whole.nodes, parts.nodes, strict=True):
        if isinstance(a, Affine):
            pairs = zip(a.blocks, b.blocks, strict=True)
            assert all(np.array_equal(matrix_of(s), matrix_of(t)) for s, t in pairs)


def test_other_networks_are_refused():
    g = Onnx((6,))
    g.dense(g.node("Sigmoid", g.dense("x", 6, 5)), 5, 2)
    assert condense(g.model().network) is None
    g = Onnx((6,))
    hidden = g.dense("x", 6, 5)
    g.node("Mul", hidden, g.node("Relu", hidden))
    assert condense(g.model().network) is None


def test_large_networks_are_refused(monkeypatch):
    network = random_dense(0, (3, 10, 2)).network
    weights = condense(network).weights
    assert weights == 50
    monkeypatch.setattr(MODULE, "MOST_WEIGHTS", weights - 1)
    assert condense(network) is None
    monkeypatch.undo()
    elements = sum(int(np.prod(node.shape)) for node in network.nodes)
    monkeypatch.setattr(MODULE, "MOST_NEURONS", elements)
    assert condense(network) is not None
    monkeypatch.setattr(MODULE, "MOST_NEURONS", elements - 1)
    assert condense(network) is None


# Products, exactly.


def exact(value):
    return Fraction(float(value))


def rows_of(block):
    """For each row its entries, `(column, value)`."""
    entries = list(zip(block.column.tolist(), block.value.tolist(), strict=True))
    return [entries[first:last] for first, last in pairwise(block.start.tolist())]


def check_product(outer, inner, joined):
    """The joined node covers every pair of nodes that is within the errors of the two."""
    first, second = rows_of(outer.blocks[0]), rows_of(inner.blocks[0])
    errors = exact(outer.weight_error), exact(inner.weight_error)
    growth = errors[0] + errors[1] + errors[0] * errors[1]
    for i, found in enumerate(rows_of(joined.blocks[0])):
        wanted = [(c, exact(a) * exact(b)) for j, a in first[i] for c, b in second[j]]
        assert len(found) == len(wanted)
        for (column, value), (place, product) in zip(sorted(found), sorted(wanted), strict=True):
            assert column == place
            off = abs(product - exact(value)) + abs(product) * growth
            assert off <= exact(joined.weight_error) * abs(exact(value))
        bias, size = exact(outer.bias[i]), exact(outer.bias_error[i])
        for j, a in first[i]:
            bias += exact(a) * exact(inner.bias[j])
            size += abs(exact(a) * exact(inner.bias[j])) * errors[0]
            size += abs(exact(a)) * (1 + errors[0]) * exact(inner.bias_error[j])
        assert abs(bias - exact(joined.bias[i])) + size <= exact(joined.bias_error[i])


def affine(block, rng, scale, error):
    rows = len(block.start) - 1
    bias = rng.normal(size=rows) * scale
    slack = np.abs(bias) * error * rng.random(rows)
    return Affine((block,), bias, slack, error)


def scattered(rng, source, rows, cols, most):
    """A block with up to `most` entries in a row, columns in any order and maybe twice."""
    counts = rng.integers(0, most + 1, rows)
    start = np.concatenate([[0], np.cumsum(counts)]).astype(np.int32)
    column = rng.integers(0, cols, counts.sum()).astype(np.int32)
    return Block(source, cols, start, column, rng.normal(size=counts.sum()))


def diagonal(rng, source, size):
    """One entry in each row, each column once."""
    start = np.arange(size + 1, dtype=np.int32)
    return Block(source, size, start, rng.permutation(size).astype(np.int32), rng.normal(size=size))


@pytest.mark.parametrize("error", [0.0, 2.0**-52, 2.0**-40, 1e-9])
@pytest.mark.parametrize("scale", [1.0, 1e-20, 1e20])
@pytest.mark.parametrize("seed", range(5))
def test_products_are_within_their_errors(seed, scale, error):
    rng = np.random.default_rng(seed)
    rows, cols = int(rng.integers(1, 8)), int(rng.integers(1, 8))
    scaled_inside = scattered(rng, 1, rows, cols, 5), diagonal(rng, 0, cols)
    single_entries = diagonal(rng, 1, rows), scattered(rng, 0, rows, cols, 5)
    for outer, inner in (scaled_inside, single_entries):
        pair = affine(outer, rng, scale, error), affine(inner, rng, 1.0, 2 * error)
        joined = compose(*pair)
        assert joined is not None and joined.blocks[0].source == 0
        check_product(*pair, joined)


def test_biases_that_cancel_are_within_their_errors():
    block, big = block_of(1, np.ones((1, 50))), np.tile([1e16, -1e16, 1.1], 17)[:50]
    inner = Affine((block_of(0, np.diag(np.full(50, 0.1))),), big, np.zeros(50), 0.0)
    outer = Affine((block,), np.array([-0.3]), np.zeros(1), 0.0)
    joined = compose(outer, inner)
    check_product(outer, inner, joined)
    lost = exact(-0.3) + sum(map(exact, big)) - exact(joined.bias[0])
    assert lost != 0, "nothing is rounded, so the test shows nothing"


def test_products_that_do_not_pay_or_are_not_accurate_are_refused():
    rng = np.random.default_rng(0)

    def joined(outer, inner):
        return compose(affine(outer, rng, 1.0, 0.0), affine(inner, rng, 1.0, 0.0))

    full, eye = block_of(1, rng.normal(size=(4, 4))), block_of(0, np.eye(4))
    assert joined(full, block_of(0, rng.normal(size=(4, 4)))) is None, "entries would be sums"
    assert joined(block_of(1, np.ones((9, 1))), block_of(0, np.ones((1, 9)))) is None, "too many entries"
    assert joined(full, eye) is not None
    assert joined(block_of(1, 1e-200 * np.eye(4)), block_of(0, 1e-100 * np.eye(4))) is None
    with np.errstate(over="ignore"):
        assert joined(block_of(1, 1e200 * np.eye(4)), block_of(0, 1e200 * np.eye(4))) is None
    two = Affine((eye, block_of(1, np.eye(4))), np.zeros(4), np.zeros(4), 0.0)
    assert compose(affine(full, rng, 1.0, 0.0), two) is None


def test_stacked_blocks_are_the_stacked_matrices():
    rng = np.random.default_rng(0)
    parts = [rng.normal(size=(rows, 5)) * (rng.random((rows, 5)) < 0.5) for rows in (3, 1, 4)]
    block = stack([block_of(2, part) for part in parts])
    assert block.source == 2 and block.start.dtype == block.column.dtype == np.int32
    assert np.array_equal(matrix_of(block), np.concatenate(parts))
    assert np.array_equal(block.dense(), np.concatenate(parts))


def test_columns_that_occur_twice_have_no_dense_matrix():
    start, column = np.array([0, 2, 3], np.int32), np.array([1, 1, 0], np.int32)
    assert Block(0, 2, start, column, np.ones(3)).dense() is None
    once = Block(0, 2, start, np.array([1, 0, 0], np.int32), np.ones(3))
    assert once.dense().tolist() == [[1, 1], [1, 0]]
