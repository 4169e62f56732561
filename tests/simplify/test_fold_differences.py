"""Leads as differences of rows: the same function, exactly; tighter intervals."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from helpers import random_dense

from lpverify.bounds.propagate import Region, propagate
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.network import Network, Node
from lpverify.ops.linear import Linear
from lpverify.simplify import simplify
from lpverify.simplify.fold_differences import fold_differences

LEADS = np.array([[1, -1, 0], [1, 0, -1], [0, -1, 1]], float)


def leads_of(seed, matrix=LEADS, **options):
    """A dense network, then a matrix."""
    network = simplify(random_dense(seed, (4, 8, 3)).network)
    last = network.nodes[network.output]
    node = Node(Linear(matrix, **options), (network.output,), (len(matrix),), last.name)
    return Network((*network.nodes, node), len(network.nodes))


@pytest.mark.parametrize("seed", range(5))
def test_the_function_stays_and_intervals_get_tighter(seed):
    network = leads_of(seed)
    folded = fold_differences(network)
    assert len(folded.nodes) <= len(network.nodes)
    x = np.random.default_rng(seed).normal(size=(50, 4))
    assert np.allclose(folded(x), network(x), rtol=1e-12, atol=1e-12)
    box = Box(x[:1] - 0.1, x[:1] + 0.1)
    boxes = [propagate(n, Region(box), Effort("ibp"), 2**20).boxes[n.output] for n in (network, folded)]
    assert (boxes[1].lower >= boxes[0].lower - 1e-12).all()
    assert (boxes[1].lower > boxes[0].lower + 1e-3).any()
    inside = network(x[:1] + np.random.default_rng(1).uniform(-0.1, 0.1, (500, 4)))
    assert (boxes[1].lower <= inside).all() and (inside <= boxes[1].upper).all()


def test_rounding_of_differences_is_recorded():
    network = leads_of(0)
    node = network.nodes[network.output - 1]
    while not isinstance(node.op, Linear):
        node = network.nodes[node.inputs[0]]
    merged = next(n.op for n in reversed(fold_differences(network).nodes) if isinstance(n.op, Linear))
    for row, signs in zip(merged.weight, LEADS, strict=True):
        i, j = int(np.flatnonzero(signs == 1)[0]), int(np.flatnonzero(signs == -1)[0])
        for got, a, b in zip(row, node.op.weight[i], node.op.weight[j], strict=True):
            exact = Fraction(float(a)) - Fraction(float(b))
            assert abs(Fraction(float(got)) - exact) <= Fraction(merged.weight_error) * abs(exact)
    assert merged.weight_error > 0 and (merged.offset_error is None or (merged.offset_error >= 0).all())


@pytest.mark.parametrize(
    ("matrix", "options"),
    [
        (2 * LEADS, {}),
        (np.array([[1.0, -1, -1]]), {}),
        (np.array([[1.0, 0, 0]]), {}),
        (LEADS, {"offset": np.ones(3)}),
        (LEADS, {"weight_error": 1e-9}),
    ],
)
def test_other_matrices_stay(matrix, options):
    network = leads_of(0, matrix, **options)
    assert fold_differences(network) is network


def test_weights_that_are_not_exact_stay():
    network = leads_of(0)
    nodes = [
        replace(n, op=replace(n.op, weight_error=1e-9)) if isinstance(n.op, Linear) else n
        for n in network.nodes[:-1]
    ]
    blurred = Network((*nodes, network.nodes[-1]), network.output)
    assert fold_differences(blurred) is blurred
