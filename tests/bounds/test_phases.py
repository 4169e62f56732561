"""ReLU phases in programs: true values fulfil them exactly; trees that prove nothing are refused."""

from dataclasses import replace
from fractions import Fraction
from types import SimpleNamespace

import numpy as np
import oracle
import pytest
from bounds.test_lp import case
from enumeration import (
    Exact,
    column_values,
    dense_network,
    dot,
    points_of,
    random_box,
    random_graph,
    regional,
    violations,
)

from lpverify.bounds.phase_proof import AlternativePrograms, holds
from lpverify.bounds.phases import big_m, minimising, with_phases
from lpverify.bounds.safe import safe_bound
from lpverify.network import Network, Node
from lpverify.ops.elementary import Square
from lpverify.ops.linear import Combine, Linear
from lpverify.ops.piecewise import Relu
from lpverify.ops.shape import Gather
from lpverify.ops.steps import Floor, Sign
from lpverify.proof import PhaseTree
from lpverify.solvers.highs import Highs


def operands(plain, network, values):
    """The exact operands of all neurons."""
    nodes = zip(plain.node, plain.element, strict=True)
    return [values[network.nodes[k].inputs[0]][e] for k, e in nodes]


def signs_of(z, rng):
    """Phases of a point, where zero has both; some are left open."""
    signs = np.array([1 if v > 0 else -1 if v < 0 else int(rng.choice([1, -1])) for v in z], np.int8)
    return np.where(rng.random(len(z)) < 0.3, 0, signs).astype(np.int8)


def check_point(plain, network, values, columns, rng):
    """The parts that have a point's phases contain it, the mixed-integer program does with its binaries."""
    z = operands(plain, network, values)
    for _ in range(2):
        assert not violations(plain.fixed(signs_of(z, rng)), columns)
    for at_zero in (0, 1):
        binary = [Fraction(1 if v > 0 else 0 if v < 0 else at_zero) for v in z]
        assert not violations(big_m(plain), np.concatenate([columns, np.array(binary, object)]))


def check_largest(plain, region, network, values, columns, rng):
    """The program of the largest of some costs."""
    rows = rng.normal(size=(3, len(values[network.output])))
    costs, constants = region.objective(network.output, rows)
    largest, constant = minimising(plain, costs, constants)
    assert constant == 0
    t = max(dot(c, columns) + Fraction(float(k)) for c, k in zip(costs, constants, strict=True))
    assert not violations(largest.fixed(np.zeros(len(plain.node))), [*columns, t])
    assert t <= max(dot(row, values[network.output]) for row in rows)
    single, constant = minimising(plain, costs[:1], constants[:1])
    assert constant == constants[0] and np.array_equal(single.lp.cost, costs[0])


@pytest.mark.parametrize("seed", range(20))
def test_vertices_of_cells_fulfil_their_phases(seed):
    """Where phases change all inequalities of a neuron are tight."""
    layers, low, high, _ = case(seed)
    network, rng, size = dense_network(layers), np.random.default_rng(seed), len(low)
    _, region = regional(network, low, high, str(rng.choice(["ibp", "crown"])))
    plain, exact = with_phases(region), Exact(network)
    ends = tuple((Fraction(float(a)), Fraction(float(b))) for a, b in zip(low, high, strict=True))
    cells = oracle.cells(layers, ends, 10**4)
    for i in rng.permutation(len(cells))[:15]:
        for _, point in cells[i][:3]:
            values = exact.values(point[:size])
            columns = column_values(region, values)
            check_point(plain, network, values, columns, rng)
        check_largest(plain, region, network, values, columns, rng)


@pytest.mark.parametrize("start", range(0, 150, 50))
def test_random_graphs(start):
    """ReLUs of inputs, of ReLUs, of products and steps; several of one value."""
    neurons = 0
    for seed in range(start, start + 50):
        rng = np.random.default_rng(seed)
        network = random_graph(rng, (Floor(), Sign(), Relu(), Relu()))
        low, high = random_box(rng)
        _, region = regional(network, low, high)
        plain = with_phases(region)
        neurons += len(plain.node)
        for x in points_of(low, high, rng, 3):
            values = Exact(network, rng=rng).values(x)
            columns = column_values(region, values)
            check_point(plain, network, values, columns, rng)
            if np.isfinite(region.program.lower).all() and np.isfinite(region.program.upper).all():
                check_largest(plain, region, network, values, columns, rng)
    assert neurons > 25


def shared():
    """ReLUs of inputs, two ReLUs of one value, and one of copies of its elements."""
    nodes = (
        Node(None, (), (3,)),
        Node(Relu(), (0,), (3,)),
        Node(Relu(), (0,), (3,)),
        Node(Gather((1, 1, 0), 0, (3,)), (0,), (3,)),
        Node(Relu(), (3,), (3,)),
        Node(Combine((1, -1, 1)), (1, 2, 4), (3,)),
        Node(Linear(np.array([[1.0, -1.0, 0.5]]), np.array([-0.25])), (5,), (1,)),
        Node(Relu(), (6,), (1,)),
    )
    return Network(nodes, 7)


def test_neurons_that_share_an_operand():
    network, low, high = shared(), np.array([-1.0, -0.5, -1.0]), np.array([1.0, 1.0, 0.0])
    _, region = regional(network, low, high)
    plain, rng = with_phases(region), np.random.default_rng(0)
    assert len(plain.node) > len(set(plain.operand.tolist()))
    for x in [*points_of(low, high, rng, 12), [Fraction(0)] * 3]:
        values = Exact(network).values(x)
        check_point(plain, network, values, column_values(region, values), rng)
    same = np.flatnonzero(plain.operand == plain.operand[0])
    signs = np.zeros(len(plain.node))
    signs[same] = 1
    assert plain.fixed(signs).lower[plain.operand[0]] == 0
    signs[same[0]] = -1
    both = plain.fixed(signs)
    assert both.lower[plain.operand[0]] == both.upper[plain.operand[0]] == 0


@pytest.mark.parametrize("seed", range(25))
def test_the_mixed_integer_program_has_the_exact_minimum(seed):
    layers, low, high, minima = case(seed)
    network = dense_network(layers)
    _, region = regional(network, low, high, "ibp")
    plain = with_phases(region)
    costs, constants = region.objective(network.output, np.array([[1.0, 0.0]]))
    single, constant = minimising(plain, costs, constants)
    answer = Highs().solve(big_m(single), 20)
    if not len(plain.node):
        return
    assert answer.bound + constant == pytest.approx(float(minima[0]), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("seed", range(15))
def test_with_all_phases_known_the_program_is_exact(seed):
    """The least over all patterns that some point has is the minimum, the one of each cell is exact there."""
    layers, low, high, minima = case(seed)
    network, size = dense_network(layers), len(low)
    _, region = regional(network, low, high)
    plain, exact = with_phases(region), Exact(network)
    costs, constants = region.objective(network.output, np.array([[1.0, 0.0]]))
    single, constant = minimising(plain, costs, constants)
    ends = tuple((Fraction(float(a)), Fraction(float(b))) for a, b in zip(low, high, strict=True))
    best = np.inf
    for cell in oracle.cells(layers, ends, 10**4)[:40]:
        middle = [sum(column) / len(cell) for column in zip(*(p[:size] for _, p in cell), strict=True)]
        z = operands(plain, network, exact.values(middle))
        if any(v == 0 for v in z):
            continue
        lp = single.fixed(np.array([1 if v > 0 else -1 for v in z]))
        found = safe_bound(lp, Highs().solve(lp, 10).row_dual).value + constant
        true = min(p[size] for _, p in cell)
        assert Fraction(found) <= true and found == pytest.approx(float(true), rel=1e-6, abs=1e-6)
        best = min(best, found)
    assert best >= float(minima[0]) - 1e-6


def test_other_nonlinear_nodes_keep_their_lines():
    nodes = (
        Node(None, (), (1,)),
        Node(Square(), (0,), (1,)),
        Node(Relu(), (0,), (1,)),
        Node(Combine((1, 1)), (1, 2), (1,)),
    )
    _, region = regional(Network(nodes, 3), np.array([-1.0]), np.array([1.0]))
    assert not region.complete and len(with_phases(region).node) == 1


# Trees that are no proof.


def impossible_case():
    """A region and an atom that points of it fulfil, so that nothing may refute it."""
    layers, low, high, minima = case(1)
    network = dense_network(layers)
    frame, _ = regional(network, low, high)
    bound = float(minima[0]) + 0.01 * (1 + abs(float(minima[0])))
    return AlternativePrograms(frame, SimpleNamespace(forms=np.array([0]), bounds=np.array([bound])))


def split_tree(leaves):
    """The root's two phases of neuron 0, with the same multipliers for both leaves."""
    tree = PhaseTree((0,))
    for sign in (1, -1):
        tree.close(tree.add(0, 0, sign), leaves)
    return tree


def no_nodes():
    return PhaseTree((0,), parent=[], neuron=[], sign=[])


def no_leaves():
    return PhaseTree((0,))


def root_refuted_by(multipliers):
    def make():
        tree = PhaseTree((0,))
        tree.close(0, multipliers)
        return tree

    return make


def leaves_with(value):
    return lambda: split_tree(np.full(4, value))


def with_inner_node_closed():
    tree = split_tree(np.ones(3))
    tree.multipliers.clear()
    tree.close(0, np.ones(3))
    return tree


def other_neurons():
    tree = split_tree(np.ones(3))
    tree.neuron[1:] = [10**6, 10**6]
    return tree


def rows_beyond():
    return replace(
        split_tree(np.ones(3)), multipliers={i: (np.array([10**6]), np.array([1e9])) for i in (1, 2)}
    )


def negative_rows():
    return replace(split_tree(np.ones(3)), multipliers={i: (np.array([-1]), np.array([1e9])) for i in (1, 2)})


FORGED = {
    "no nodes": no_nodes,
    "no leaves": no_leaves,
    "no multipliers": root_refuted_by(np.zeros(4)),
    "infinite multipliers": root_refuted_by(np.full(4, np.inf)),
    "large multipliers": leaves_with(1e300),
    "no numbers": leaves_with(np.nan),
    "negative multipliers": leaves_with(-1e9),
    "only an inner node is closed": with_inner_node_closed,
    "neurons that there are not": other_neurons,
    "rows beyond": rows_beyond,
    "negative rows": negative_rows,
}


@pytest.mark.parametrize("name", FORGED)
def test_forged_trees_refute_nothing(name):
    assert not holds(impossible_case(), FORGED[name]())


@pytest.mark.parametrize("seed", range(100))
def test_random_trees_refute_nothing(seed):
    """Complete ones with all kinds of multipliers, neurons that come twice, too."""
    rng, programs = np.random.default_rng(seed), impossible_case()
    count, rows = len(programs.phases.node), len(programs.phases.lp.row_lower)
    tree, leaves = PhaseTree((0,)), [0]
    for _ in range(int(rng.integers(0, 6))):
        at, neuron = leaves.pop(int(rng.integers(len(leaves)))), int(rng.integers(count))
        leaves += [tree.add(at, neuron, sign) for sign in (1, -1)]
    for leaf in leaves:
        size = 10.0 ** rng.choice([-300, -9, 0, 3, 12, 300], rows)
        tree.close(leaf, rng.normal(size=rows) * size * rng.choice([0, 1], rows))
    assert tree.complete() and not holds(programs, tree)
