"""Methods on small networks of all kinds: each within the exact minimum, none looser than a cheaper one.

`test_bounds_chain` does the same through the Python interface on networks with generic weights; here zeros,
ties and equal neurons are common, boxes have points as sides, and OBBT and inner values count.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import oracle
import pytest
from enumeration import dense_network, dot

from lpverify import methods
from lpverify.bounds.propagate import Region
from lpverify.config import Deadline
from lpverify.errors import InputError, SolverError, UnsupportedError
from lpverify.interval import Box
from lpverify.methods import METHODS, Settings, stages_of
from lpverify.network import Network, Node
from lpverify.ops.activations import Sigmoid
from lpverify.ops.linear import Linear
from lpverify.ops.piecewise import Relu
from lpverify.solvers.base import LpBackend

ROWS = np.array([[1.0, 0.0], [0.0, -1.0], [1.0, 0.3]])
CHAIN = ("ibp", "crown", "alpha-crown", "lp", "obbt")
NETWORKS, CHUNK = 60, 10
KINDS = ("generic", "whole", "scaled", "equal", "flat")
SCALES = (1e-6, 1e-3, 1e3, 1e6)


@dataclass(frozen=True)
class Case:
    """A dense network and a box, with the exact minima of ROWS over the outputs."""

    layers: list
    low: np.ndarray
    high: np.ndarray
    minima: tuple[Fraction, ...]

    def lower(self, method, value=None, rows=ROWS, **settings):
        network = dense_network(self.layers)
        region = Region(Box(self.low[None], self.high[None]))
        found = stages_of(method, network, region, Settings(**settings))
        return found.lower(network.output if value is None else value, rows)


def random_layers(rng, kind):
    sizes = [int(rng.integers(2, 5)), *(int(n) for n in rng.integers(3, 7, rng.integers(2, 4))), 2]
    layers = []
    for a, b in pairwise(sizes):
        weight, bias = rng.normal(size=(b, a)) / np.sqrt(a), 0.3 * rng.normal(size=b)
        if kind == "whole":
            weight, bias = rng.integers(-1, 2, (b, a)), rng.integers(-1, 2, b)
        if kind == "scaled":
            weight, bias = weight * (scale := rng.choice(SCALES)), bias * scale
        if kind == "equal":
            weight[1], bias[1] = weight[0], bias[0]
        layers.append((np.rint(weight * 2**30) / 2**30, np.rint(bias * 2**30) / 2**30))
    return layers


@cache
def case(seed):
    rng, kind = np.random.default_rng(seed), KINDS[seed % len(KINDS)]
    while True:
        layers = random_layers(rng, kind)
        size = layers[0][0].shape[1]
        centre = np.rint(rng.normal(size=size)) / 2
        radius = rng.choice([0.0, 0.5] if kind == "flat" else [0.5], size)
        low, high = centre - radius, centre + radius
        ends = tuple((Fraction(float(a)), Fraction(float(b))) for a, b in zip(low, high, strict=True))
        try:
            points = [p[size:] for cell in oracle.cells(layers, ends, 150) for _, p in cell]
        except oracle.TooManyCellsError:
            continue
        return Case(layers, low, high, tuple(min(dot(row, p) for p in points) for row in ROWS))


def scale_of(item):
    """What rounding and tolerances are relative to: the sums of absolute values in the outputs."""
    ends = tuple(zip(item.low, item.high, strict=True))
    return 1e-6 * (1 + max(oracle.sizes(item.layers, ends)[-2:]))


SOLVABLE = 1e20  # HiGHS takes numbers from there on for infinite; only soundness can be asked of it


@pytest.mark.parametrize("start", range(0, NETWORKS, CHUNK))
def test_the_chain_ends_at_the_exact_minimum(start):
    for seed in range(start, start + CHUNK):
        item, slack, before = case(seed), scale_of(case(seed)), np.full(len(ROWS), -np.inf)
        exact = np.array([float(m) for m in item.minima])
        for method in (*CHAIN, "milp"):
            found = item.lower(method)
            lows = zip(found.lower, item.minima, strict=True)
            assert all(Fraction(float(low)) <= m for low, m in lows), (seed, method)
            if method != "milp":  # it is on top of `lp`
                assert (found.lower >= before).all(), (seed, method)
                before = found.lower
        if slack > 1e-6 * SOLVABLE:
            continue
        assert (found.lower >= exact - slack).all() and (before <= found.lower + slack).all(), seed
        assert np.abs(found.claimed - exact).max() <= slack


@pytest.mark.parametrize("seed", range(20))
def test_what_is_proven_is_what_the_solver_claims(seed):
    """Cheaper methods may know more than the program. HiGHS refuses some of the large numbers."""
    item, slack = case(seed), scale_of(case(seed))
    for method in ("lp", "obbt"):
        found = item.lower(method)
        assert KINDS[seed % len(KINDS)] == "scaled" or not np.isnan(found.claimed).any()
        assert not (found.lower < found.claimed - slack).any()
        assert not (found.claimed > np.array([float(m) for m in item.minima]) + slack).any()


def test_linear_and_semidefinite_programs():
    """Neither is tighter than the other in general: `sdp` has the better of both, and the claim is met."""
    counts, gains = {"sdp": 0, "lp": 0, "same": 0}, []
    for seed in [s for s in range(40) if s % len(KINDS) != 2][:20]:
        item, slack = case(seed), scale_of(case(seed))
        linear, both = item.lower("lp", rows=ROWS[:1]), item.lower("sdp", rows=ROWS[:1])
        low, high, minimum = linear.lower[0], both.lower[0], float(item.minima[0])
        assert low <= high and Fraction(float(high)) <= item.minima[0], seed
        assert high >= both.claimed[0] - 100 * slack, seed
        gap = both.claimed[0] - linear.claimed[0]
        counts["sdp" if gap > 100 * slack else "lp" if gap < -100 * slack else "same"] += 1
        if minimum - low > 100 * slack:
            gains.append((high - low) / (minimum - low))
    print(f"\nclaims higher by {counts}; of the gap of lp, sdp closes {np.mean(gains):.0%} on average")
    assert counts["sdp"] > counts["lp"]


@pytest.mark.parametrize("method", ["crown", "alpha-crown", "lp", "obbt", "milp"])
def test_inner_values(method):
    """Operands of the second layer's ReLUs."""
    for seed in (0, 1, 3, 5):
        item = case(seed)
        size = len(item.layers[1][1])
        ends = tuple(
            (Fraction(float(a)), Fraction(float(b))) for a, b in zip(item.low, item.high, strict=True)
        )
        points = [p[len(item.low) :] for cell in oracle.cells(item.layers[:2], ends, 500) for _, p in cell]
        found = item.lower(method, 3, np.concatenate([np.eye(size), -np.eye(size)])).lower
        exact = [min(p[i] for p in points) for i in range(size)] + [
            -max(p[i] for p in points) for i in range(size)
        ]
        assert all(Fraction(float(low)) <= m for low, m in zip(found, exact, strict=True))
        if method == "milp":
            np.testing.assert_allclose(found, [float(m) for m in exact], atol=scale_of(item))


def test_threads_do_not_change_the_minimum():
    for seed in range(0, 20, 4):
        one, two = (case(seed).lower("milp", threads=n).lower for n in (1, 2))
        np.testing.assert_allclose(one, two, atol=scale_of(case(seed)))


# Limits and failures.


@pytest.mark.parametrize("method", ["obbt", "lp", "sdp", "milp"])
def test_without_time_cheaper_bounds_are_left(method):
    for seed in range(5):
        plain, found = case(seed).lower("crown"), case(seed).lower(method, deadline=Deadline.after(-1))
        assert (found.lower >= plain.lower).all() and np.isnan(found.claimed).all()
        assert all(Fraction(float(low)) <= m for low, m in zip(found.lower, case(seed).minima, strict=True))


@pytest.mark.parametrize("method", ["lp", "obbt"])
def test_a_solver_that_fails_costs_nothing(method, monkeypatch):
    class Broken(LpBackend):
        name = "broken"

        def solve(self, lp, seconds):
            raise SolverError("broken")

    monkeypatch.setattr(methods, "lp_backend", lambda name: Broken())
    for seed in range(5):
        plain, found = case(seed).lower("alpha-crown"), case(seed).lower(method, solver="broken")
        assert (found.lower >= plain.lower).all() and np.isnan(found.claimed).all()
        assert all(Fraction(float(low)) <= m for low, m in zip(found.lower, case(seed).minima, strict=True))


HUGE = {
    "overflow": [(np.array([[1e200], [-1.0]]), np.zeros(2)), (np.array([[1e200, 1.0]]), np.zeros(1))],
    "beyond the solver": [(np.array([[1e30], [-1.0]]), np.zeros(2)), (np.array([[1e30, 1.0]]), -np.ones(1))],
    "tiny": [(np.array([[1e-200], [-1e-200]]), np.zeros(2)), (np.array([[1e-200, 1.0]]), np.zeros(1))],
}


@pytest.mark.parametrize("name", HUGE)
@pytest.mark.parametrize("method", [m for m in METHODS if m != "sdp-crown"])
def test_numbers_that_no_solver_takes(method, name):
    layers = [*HUGE[name], (np.array([[1.0], [-1.0]]), np.zeros(2))]
    item = Case(layers, -np.ones(1), np.ones(1), ())
    with np.errstate(all="ignore"):
        try:
            found = item.lower(method).lower
        except UnsupportedError as error:
            assert method == "sdp" and name == "overflow" and "finite" in str(error)
            return
    points = [oracle.forward(layers, [Fraction(x)]) for x in (-1, 0, 1, Fraction(1, 3))]
    for low, row in zip(found, ROWS, strict=True):
        assert low < np.inf  # NaN is not
        assert low == -np.inf or Fraction(float(low)) <= min(dot(row, p) for p in points)


def test_the_exact_search_refuses_what_it_does_not_know():
    nodes = (
        Node(None, (), (1,)),
        Node(Sigmoid(), (0,), (1,)),
        Node(Linear(np.ones((2, 1)), np.zeros(2)), (1,), (2,)),
    )
    region = Region(Box(-np.ones((1, 1)), np.ones((1, 1))))
    with pytest.raises(UnsupportedError, match="ReLU"):
        stages_of("milp", Network(nodes, 2), region, Settings()).lower(2, ROWS)
    with pytest.raises(InputError, match="highs"):
        case(0).lower("milp", solver="cvxpy:clarabel")


def test_networks_without_anything_nonlinear():
    layers = [(np.array([[1.0, -2.0], [0.5, 0.0]]), np.array([0.0, 1.0]))]
    item = Case(layers, -np.ones(2), np.ones(2), ())
    for method in (m for m in METHODS if m != "sdp-crown"):
        np.testing.assert_allclose(item.lower(method).lower, [-3.0, -1.5, -2.85], atol=1e-6)
    nodes = (Node(None, (), (2,)), Node(Relu(), (0,), (2,)))  # with a ReLU of the inputs themselves
    region = Region(Box(-np.ones((1, 2)), np.ones((1, 2))))
    for method in ("lp", "obbt", "sdp", "milp"):
        found = stages_of(method, Network(nodes, 1), region, Settings()).lower(1, ROWS).lower
        np.testing.assert_allclose(found, [0.0, -1.0, 0.0], atol=1e-6)
