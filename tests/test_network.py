import numpy as np
import pytest
from helpers import random_dense

from lpverify.errors import InternalError
from lpverify.network import Network, Node
from lpverify.ops.linear import Combine, Linear, Scale, SparseLinear
from lpverify.ops.piecewise import Relu


def single(op, shape=(2,)):
    return Network((Node(None, (), shape), Node(op, (0,), shape)), 1)


def converted(op):
    return single(op).convert(lambda array: array, np.float32).nodes[1].op


def test_rounded_weights_record_their_error():
    weight = np.array([[1 / 3, 0.1], [1e-20, 1e20]])
    op = converted(Linear(weight, np.array([0.1, 1e-42])))
    assert op.weight.dtype == np.float32
    deviation = np.abs(op.weight.astype(np.float64) - weight)
    assert (deviation <= op.weight_error * np.abs(weight)).all() and 0 < op.weight_error < 1e-6
    assert (np.abs(op.offset.astype(np.float64) - [0.1, 1e-42]) <= op.offset_error).all()


def test_representable_weights_record_none():
    op = converted(Linear(np.array([[0.5, 3.0]] * 2), np.array([0.25, 1.0])))
    assert op.weight_error == 0.0 and op.offset_error is None


@pytest.mark.parametrize("weight", [1e-46, 3.3e-44, 1e-60])
def test_weights_that_underflow_have_no_relative_error(weight):
    assert converted(Linear(np.full((2, 2), weight))).weight_error == np.inf


def test_sparse_weights_are_checked_too():
    from scipy import sparse

    op = converted(SparseLinear(sparse.csr_array(np.diag([0.1, 1.0]))))
    assert 0 < op.weight_error < 1e-6


def test_an_existing_error_is_kept():
    assert converted(Scale(np.asarray(0.1), None, 1e-3)).weight_error > 1e-3


def test_order_is_checked():
    with pytest.raises(InternalError):
        Network((Node(None, (), (2,)), Node(Relu(), (1,), (2,))), 1)
    with pytest.raises(InternalError):
        Network((Node(Relu(), (), (2,)),), 0)


def test_gradient_is_that_of_finite_differences():
    network = random_dense(0, (3, 8, 8, 2)).network
    x = np.random.default_rng(0).normal(size=(5, 3))
    seed = np.random.default_rng(1).normal(size=(5, 2))
    gradient = network.gradient(network.evaluate(x), seed, network.output)
    for i in range(3):
        step = np.zeros(3)
        step[i] = 1e-7
        slope = ((network(x + step) - network(x - step)) * seed).sum(axis=1) / 2e-7
        assert np.allclose(gradient[:, i], slope, rtol=1e-4, atol=1e-5)


def test_structure_of_a_residual_graph():
    nodes = (
        Node(None, (), (2,)),
        Node(Linear(np.eye(2)), (0,), (2,)),
        Node(Relu(), (1,), (2,)),
        Node(Combine((1, 1)), (1, 2), (2,)),
        Node(Relu(), (3,), (2,)),
    )
    network = Network(nodes, 4)
    assert network.consumers == (1, 2, 1, 1, 1)
    assert network.pre_activations == (1, 3) and network.activations == (2, 4)
    assert network.refinable == {3}, "one affine step from the input is exact already"
    assert network.ancestors[4] == {0, 1, 2, 3, 4}
    assert network.work[1] == 2 + 4 and network.work[4] > network.work[3] > 6
