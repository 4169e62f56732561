"""On random small networks each method is as tight as the cheaper ones, and the last one is exact."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import numpy as np
import oracle
import pytest

from lpverify.bounding import bounds
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.triangle import triangle
from lpverify.interval import Box
from lpverify.io.onnx import import_model
from lpverify.loading import LoadedNetwork
from lpverify.multipliers import Effort
from lpverify.solvers.highs import Highs

NETWORKS, CHUNK = 200, 10
CHAIN = ("ibp", "crown", "alpha-crown", "lp", "milp")


def random_layers(seed):
    rng = np.random.default_rng(seed)
    sizes = [int(rng.integers(2, 5)), *(int(n) for n in rng.integers(3, 7, rng.integers(1, 4))), 2]
    return [
        (rng.normal(size=(b, a)).astype(np.float32), rng.normal(size=b).astype(np.float32) * np.float32(0.4))
        for a, b in pairwise(sizes)
    ]


def loaded(layers):
    return LoadedNetwork(import_model(oracle.onnx_bytes(layers)))


def exact_range(layers, half):
    """Exact minimum and maximum of the first output over the cube of that half width."""
    size = layers[0][0].shape[1]
    ends = tuple((Fraction(-half), Fraction(half)) for _ in range(size))
    low, high = (float(oracle.minimum(layers, ends, {size: s})) for s in (1, -1))
    return low, -high


def widths(seed):
    """The proven range of the first output by each method, and the exact one."""
    layers, half = random_layers(seed), 0.5
    network, size = loaded(layers), layers[0][0].shape[1]
    box = np.full(size, -half), np.full(size, half)
    found = {m: bounds(network, *box, method=m, objective=[1.0, 0.0]) for m in CHAIN}
    return found, exact_range(layers, half)


@pytest.mark.parametrize("start", range(0, NETWORKS, CHUNK))
def test_the_chain_ends_at_the_exact_range(start):
    for seed in range(start, start + CHUNK):
        found, (low, high) = widths(seed)
        slack = 1e-6 * (1 + abs(low) + abs(high))
        for first, second in pairwise(CHAIN):
            assert found[first].lower[0] <= found[second].lower[0], (seed, first, second)
            assert found[first].upper[0] >= found[second].upper[0], (seed, first, second)
        for method in CHAIN:
            assert found[method].lower[0] <= low and high <= found[method].upper[0], (seed, method)
        assert found["milp"].lower[0] >= low - slack and found["milp"].upper[0] <= high + slack, seed


@pytest.mark.parametrize("seed", range(20))
def test_proven_and_claimed_bounds_of_linear_programs_are_close(seed):
    layers = random_layers(seed)
    size = layers[0][0].shape[1]
    found = bounds(loaded(layers), np.full(size, -0.5), np.full(size, 0.5), method="lp")
    scale = 1e-6 * (1 + np.abs(found.upper) + np.abs(found.lower))
    # what `alpha-crown` knows may be better than the program, never worse
    assert (found.lower >= found.claimed_lower - scale).all()
    assert (found.upper <= found.claimed_upper + scale).all()


@pytest.mark.parametrize("seed", range(20))
def test_linear_and_semidefinite_programs_compared(seed):
    """No order holds between the two relaxations alone; the method `sdp` has the better of both."""
    layers = random_layers(seed)
    size, half = layers[0][0].shape[1], 0.5
    box = np.full(size, -half), np.full(size, half)
    linear, semidefinite = (
        bounds(loaded(layers), *box, method=m, objective=[1.0, 0.0]) for m in ("lp", "sdp")
    )
    low, high = exact_range(layers, half)
    assert (
        linear.lower[0] <= semidefinite.lower[0] <= low and high <= semidefinite.upper[0] <= linear.upper[0]
    )
    close = 1e-4 * (1 + abs(low) + abs(high))
    assert semidefinite.lower[0] >= semidefinite.claimed_lower[0] - close


@pytest.mark.parametrize("seed", range(10))
def test_the_program_is_the_textbook_one(seed):
    """`z = W x + b` and three inequalities a neuron, stated with CVXPY, have the same optimum."""
    import cvxpy as cp

    layers = random_layers(seed)
    size = layers[0][0].shape[1]
    network = loaded(layers).model.network
    box = Box(np.full((1, size), -0.5), np.full((1, size), 0.5))
    frame = propagate(network, Region(box), Effort("crown"), 2**20)
    program = triangle(frame)
    row = np.zeros((1, network.nodes[network.output].shape[0]))
    row[0, 0] = 1.0
    cost, constant = program.objective(network.output, row)
    lp = program.program
    mine = cost[0] @ Highs().solve(replace(lp, cost=cost[0]), 30).primal + constant[0]

    x = cp.Variable(size)
    constraints, value = [x >= -0.5, x <= 0.5], x
    ends = [frame.boxes[i] for i in network.pre_activations]
    for (w, b), operand in zip(layers[:-1], ends, strict=True):
        z = w.astype(np.float64) @ value + b.astype(np.float64)
        low, high = operand.lower[0].reshape(-1), operand.upper[0].reshape(-1)
        y = cp.Variable(len(b))
        active, dead = low >= 0, high <= 0
        slope = np.where(active, 1.0, np.where(dead, 0.0, high / np.maximum(high - low, 1e-300)))
        lift = np.where(active | dead, 0.0, -slope * low)
        constraints += [y >= 0, y >= z, y <= cp.multiply(slope, z) + lift, z >= low, z <= high]
        value = y
    w, b = layers[-1]
    problem = cp.Problem(cp.Minimize((w.astype(np.float64) @ value + b.astype(np.float64))[0]), constraints)
    problem.solve(solver=cp.HIGHS)
    assert abs(problem.value - mine) <= 1e-6 * (1 + abs(mine))
