import numpy as np
import pytest
from helpers import model_of, random_dense
from onnx import helper, numpy_helper

from lpverify.errors import InternalError
from lpverify.network import Network, Node
from lpverify.ops.convolution import Conv
from lpverify.ops.linear import Linear, Scale, SparseLinear
from lpverify.simplify import PASSES, FoldScale, MergeLinear, Pass, Prune, simplify


def tensor(name, array):
    return numpy_helper.from_array(np.asarray(array), name)


@pytest.fixture(scope="module")
def convolutional():
    rng = np.random.default_rng(0)
    f = lambda *shape: rng.normal(size=shape).astype(np.float32)  # noqa: E731
    tensors = [
        tensor("shape", np.array([1, 2, 4, 4])),
        tensor("flat", np.array([1, -1])),
        tensor("w", f(3, 2, 3, 3)),
        tensor("b", f(3)),
        tensor("s", f(3)),
        tensor("t", f(3)),
        tensor("m", f(3)),
        tensor("v", np.abs(f(3)) + 1),
        tensor("a", f(12, 5)),
        tensor("c", f(5)),
        tensor("d", f(5, 4)),
    ]
    nodes = [
        helper.make_node("Reshape", ["x", "shape"], ["x4"]),
        helper.make_node("Conv", ["x4", "w", "b"], ["z"]),
        helper.make_node("BatchNormalization", ["z", "s", "t", "m", "v"], ["n"]),
        helper.make_node("Relu", ["n"], ["r"]),
        helper.make_node("Reshape", ["r", "flat"], ["f"]),
        helper.make_node("MatMul", ["f", "a"], ["g"]),
        helper.make_node("Add", ["g", "c"], ["h"]),
        helper.make_node("MatMul", ["h", "d"], ["y"]),
    ]
    return model_of(nodes, tensors, (32, 4)).network


@pytest.mark.parametrize("rewrite", PASSES, ids=lambda p: type(p).__name__)
def test_each_pass_keeps_the_function(rewrite, convolutional):
    x = np.random.default_rng(1).normal(size=(20, 32))
    assert np.allclose(rewrite(convolutional)(x), convolutional(x), rtol=1e-12, atol=1e-12)


def test_all_passes_fold_batch_normalisation_and_chains(convolutional):
    network = simplify(convolutional)
    kinds = [type(n.op) for n in network.nodes[1:]]
    assert Scale not in kinds and kinds.count(Conv) == 1 and kinds.count(Linear) == 1
    x = np.random.default_rng(1).normal(size=(20, 32))
    assert np.allclose(network(x), convolutional(x), rtol=1e-12, atol=1e-12)
    assert network.nodes[network.output].op.weight_error < 2**-40


def test_folding_records_the_rounding(convolutional):
    (conv,) = (n.op for n in FoldScale()(convolutional).nodes[1:] if isinstance(n.op, Conv))
    assert 2**-53 <= conv.weight_error < 2**-45
    assert (conv.offset_error > 0).all()


def test_pure_shift_is_exact():
    network = FoldScale()(random_dense(0, (3, 4, 2)).network)
    assert all(
        n.op.weight_error == 0 and n.op.offset_error is None
        for n in network.nodes
        if isinstance(n.op, Linear)
    )


def test_a_shared_value_is_not_folded():
    a = Node(Linear(np.eye(2)), (0,), (2,))
    b = Node(Scale(np.asarray(2.0)), (1,), (2,))
    from lpverify.ops.linear import Combine

    network = Network((Node(None, (), (2,)), a, b, Node(Combine((1, 1)), (1, 2), (2,))), 3)
    assert len(FoldScale()(network).nodes) == 4


def test_cancelling_product_is_left_alone():
    inner = Linear(np.array([[1.0, 1.0], [1.0, 1.0 + 2**-50]]))
    outer = Linear(np.array([[1.0, -1.0]]))
    network = Network((Node(None, (), (2,)), Node(inner, (0,), (2,)), Node(outer, (1,), (1,))), 2)
    assert len(MergeLinear()(network).nodes) == 3


def test_sparse_matrices_merge():
    from scipy import sparse

    rng = np.random.default_rng(0)
    one, two = (sparse.random_array((60, 60), density=0.02, rng=rng, format="csr") for _ in range(2))
    ops = [SparseLinear(one, rng.normal(size=60)), SparseLinear(two, rng.normal(size=60))]
    network = Network((Node(None, (), (60,)), Node(ops[0], (0,), (60,)), Node(ops[1], (1,), (60,))), 2)
    merged = MergeLinear()(network)
    assert len(merged.nodes) == 2
    x = rng.normal(size=(5, 60))
    assert np.allclose(merged(x), network(x), rtol=1e-12, atol=1e-12)


def test_prune_ensures_that_nothing_unused_is_left():
    linear = Node(Linear(np.eye(2)), (0,), (2,))
    network = Network((Node(None, (), (2,)), linear, linear), 1)
    with pytest.raises(InternalError):
        Prune().ensure(network)
    assert len(Prune()(network).nodes) == 2


def test_a_pass_that_changes_shapes_is_caught():
    class Broken(Pass):
        def __call__(self, network):
            return Network(network.nodes, 0)

    with pytest.raises(InternalError, match="Broken"):
        simplify(random_dense(0, (3, 4, 2)).network, (Broken(),))
