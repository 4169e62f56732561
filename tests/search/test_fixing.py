"""Phases refuted by reduced costs: what is proposed is the best multiplier, and proves what it says."""

from fractions import Fraction

import numpy as np
import oracle
import pytest
from bounds.test_lp import case
from enumeration import Exact, column_values, dense_network, dot, random_layers, regional

from lpverify.bounds.phases import minimising, with_phases
from lpverify.bounds.safe import safe_bound
from lpverify.search.fixing import Fixing, _best
from lpverify.solvers.highs import Highs

ROW = np.array([[1.0, 0.0]])


def node_of(layers, low, high, rng):
    """A search node: its program, some phases of a point, and the multipliers of its optimum."""
    network = dense_network(layers)
    _, region = regional(network, low, high, "ibp")
    program, constant = minimising(with_phases(region), *region.objective(network.output, ROW))
    values = network.evaluate(rng.uniform(low, high)[None])
    signs = program.signs_at(network, values)
    signs = np.where(rng.random(len(signs)) < 0.4, signs, 0).astype(np.int8)
    lp = program.fixed(signs)
    found = safe_bound(lp, Highs().solve(lp, 10).row_dual)
    return network, region, program, constant, signs, found


def cells_of(layers, low, high):
    ends = tuple((Fraction(float(a)), Fraction(float(b))) for a, b in zip(low, high, strict=True))
    return oracle.cells(layers, ends, 10**4)


@pytest.mark.parametrize("seed", range(60))
def test_no_point_with_a_refuted_phase_is_below_the_limit(seed):
    """At all vertices of the exact cells that have the node's phases and the refuted one."""
    layers, low, high, _ = case(seed)
    rng = np.random.default_rng(seed)
    network, region, program, constant, signs, found = node_of(layers, low, high, rng)
    exact, size = Exact(network), len(low)
    points = [exact.values(p[:size]) for cell in cells_of(layers, low, high)[:60] for _, p in cell]
    for missing in (1e-6, 1e-2, 0.3):
        limit = found.value + constant + missing
        proposals = Fixing.of(program).refutable(signs, found.multipliers, found.reduced, missing)
        for neuron, sign, multipliers in proposals:
            assert signs[neuron] == 0 and sign in (-1, 1)
            child = signs.copy()
            child[neuron] = sign
            bound = safe_bound(program.fixed(child), multipliers).value + constant
            places = program.lp.lower[program.operand[neuron]], program.lp.upper[program.operand[neuron]]
            if max(sign * np.array(places)) > 1e-9:  # it does what it was proposed for
                assert bound > limit - 1e-9 * (1 + abs(limit))
            for values in points:
                if has_phases(program, network, values, child):
                    assert dot(ROW[0], values[network.output]) >= Fraction(bound) - Fraction(1, 10**12)
                    columns = column_values(region, values)
                    assert dot(program.lp.cost, columns) >= Fraction(
                        safe_bound(program.fixed(child), multipliers).value
                    )


def has_phases(program, network, values, signs):
    """At zero both phases hold."""
    for k, element, sign in zip(program.node, program.element, signs, strict=True):
        z = values[network.nodes[k].inputs[0]][element]
        if (sign > 0 and z < 0) or (sign < 0 and z > 0):
            return False
    return True


def test_some_phases_are_refuted():
    """With a limit a little above the bound, as in a search near its end."""
    count = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        centre = 0.3 * rng.normal(size=3)
        layers = random_layers(rng, (3, 8, 6, 2))
        _, _, program, _, signs, found = node_of(layers, centre - 0.5, centre + 0.5, rng)
        proposals = Fixing.of(program).refutable(signs, found.multipliers, found.reduced, 0.05)
        for neuron, sign, multipliers in proposals:
            child = signs.copy()
            child[neuron] = sign
            assert safe_bound(program.fixed(child), multipliers).value > found.value + 0.05 - 1e-9
            count += 1
    assert count > 15


@pytest.mark.parametrize("seed", range(10))
def test_only_neurons_of_inputs_alone_are_looked_at(seed):
    layers = random_layers(np.random.default_rng(seed), (3, 5, 4, 2))
    network = dense_network(layers)
    _, region = regional(network, np.full(3, -1.0), np.full(3, 1.0))
    fixing = Fixing.of(with_phases(region))
    assert (fixing.program.node[fixing.neurons] == 2).all()  # the first layer's ReLUs
    expected = layers[0][0][fixing.program.element[fixing.neurons]]
    np.testing.assert_allclose(fixing.weights, expected)


def height(theta, g, w, b, low, high):
    """`min (g - theta w) . x - theta b` over the box."""
    c = g - theta * w
    return np.where(c > 0, c * low, c * high).sum() - theta * b


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_the_best_multiplier_is_found(start):
    """Against the values at all bends of the concave function, and far out."""
    for seed in range(start, start + 100):
        rng = np.random.default_rng(seed)
        inputs = int(rng.integers(1, 6))
        g = rng.normal(size=inputs) * rng.choice([0, 1, 1], inputs)
        w = rng.normal(size=(3, inputs)) * rng.choice([0, 1, 1, 1e-3], (3, inputs))
        b = rng.normal(size=3) * rng.choice([0, 1, 3], 3)
        low = rng.normal(size=inputs)
        high = low + rng.choice([0.0, 0.1, 1.0, 3.0], inputs)
        theta, rise = _best(g, w, b, low, high)
        assert (theta >= 0).all() and (rise >= 0).all()
        for j in range(3):
            with np.errstate(divide="ignore", invalid="ignore"):
                bends = g / w[j]
            bends = [0.0, *bends[np.isfinite(bends) & (bends > 0)]]
            start_at = height(0.0, g, w[j], b[j], low, high)
            best = max(height(t, g, w[j], b[j], low, high) for t in bends) - start_at
            most = np.where(w[j] > 0, w[j] * high, w[j] * low).sum() + b[j]
            if most < -1e-12:  # the phase has no point: the function rises for ever
                assert rise[j] >= best - 1e-9
            elif most > 1e-12:
                assert rise[j] == pytest.approx(best, abs=1e-9)
                reached = height(theta[j], g, w[j], b[j], low, high) - start_at
                assert reached == pytest.approx(best, abs=1e-9)


def test_a_point_as_box():
    theta, rise = _best(
        np.array([1.0]), np.array([[2.0], [-2.0]]), np.array([1.0, 1.0]), np.ones(1), np.ones(1)
    )
    assert rise[0] == 0 and theta[0] == 0  # `2 x + 1 >= 0` holds at 1
    assert rise[1] == np.inf  # `1 - 2 x >= 0` does not
