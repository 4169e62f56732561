"""Semidefinite programs of regions: products of true values fulfil them exactly; failures leave weak ones."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import oracle
import pytest
from enumeration import (
    SIZES,
    Exact,
    column_values,
    dense_network,
    dot,
    points_of,
    random_box,
    random_graph,
    random_layers,
    regional,
    violations,
)

from lpverify.bounds import moments as module
from lpverify.bounds.lp import lp_rows
from lpverify.bounds.moments import moments
from lpverify.bounds.safe import safe_moment_bound
from lpverify.bounds.sdp import sdp_rows
from lpverify.config import Deadline
from lpverify.errors import SolverError, UnsupportedError
from lpverify.ops.indicators import IsZero
from lpverify.ops.steps import Floor, Sign, Trunc
from lpverify.solvers.base import LpStatus, SdpAnswer, SdpBackend
from lpverify.solvers.highs import Highs
from lpverify.solvers.registry import sdp_backend

OPS = (Floor(), Sign(), Trunc(), IsZero())


@pytest.fixture(params=[48, 0], ids=["one block", "many blocks"])
def blocks(request, monkeypatch):
    monkeypatch.setattr(module, "ONE_BLOCK", request.param)
    return request.param


def moment_values(built, columns):
    """The moments at a point; pairs that several blocks share must agree."""
    found = np.full(len(built.lower), None, object)
    found[0] = Fraction(1)
    column_of = {int(moment): c for c, moment in enumerate(built.first) if moment >= 0}
    for block in built.program.blocks:
        assert (block == block.T).all() and block[0, 0] == 0
        v = [Fraction(1), *(columns[column_of[int(m)]] for m in block[0, 1:])]
        for i, row in enumerate(block):
            for j, moment in enumerate(row):
                assert found[moment] is None or found[moment] == v[i] * v[j]
                found[moment] = v[i] * v[j]
    assert all(m is not None for m in found)
    return found


def both(built, linear):
    """The program that a solver gets, and the one with the ends that bounds use."""
    return linear, replace(linear, lower=built.lower, upper=built.upper)


@pytest.mark.parametrize("kind", ["tame", "wild"])
@pytest.mark.parametrize("start", range(0, 100, 25))
def test_products_of_true_values_fulfil_the_program(kind, start, blocks):
    """And so any multipliers give bounds that hold."""
    seen = 0
    for seed in range(start, start + 25):
        rng = np.random.default_rng([seed, len(kind)])
        network = random_graph(rng, OPS, SIZES if kind == "wild" else (1.0,))
        low, high = random_box(rng)
        _, region = regional(network, low, high)
        try:
            built = moments(region)
        except UnsupportedError:
            continue
        cost = region.objective(network.output, rng.normal(size=(1, 2)))[0][0]
        sdp = built.with_cost(cost)
        given, boxed = both(built, sdp.linear)
        factors = [rng.normal(size=b.shape) for b in sdp.blocks]
        multipliers = rng.normal(size=len(given.row_lower)) * 10.0 ** rng.choice([0, -3, 3])
        bound = safe_moment_bound(boxed, sdp.blocks, multipliers, [f @ f.T for f in factors])
        for x in points_of(low, high, rng, 3):
            columns = column_values(region, Exact(network, rng=rng).values(x))
            values = moment_values(built, columns)
            assert not violations(given, values) and not violations(boxed, values)
            assert bound == -np.inf or Fraction(bound) <= dot(sdp.linear.cost, values)
            seen += 1
    assert seen > 20


def dense_case(seed, sizes=(3, 5, 4, 1)):
    """A dense network, a box, and its exact minimum."""
    rng = np.random.default_rng(seed)
    layers = random_layers(rng, sizes)
    centre, radius = np.rint(4 * rng.normal(size=sizes[0])) / 8, 0.5
    low, high = centre - radius, centre + radius
    ends = tuple((Fraction(float(a)), Fraction(float(b))) for a, b in zip(low, high, strict=True))
    return dense_network(layers), low, high, oracle.minimum(layers, ends, {sizes[0]: 1})


@pytest.mark.parametrize("solver", ["clarabel", "scs"])
@pytest.mark.parametrize("seed", range(4))
def test_bounds_hold_and_are_close_to_the_claim(seed, solver, blocks):
    """SCS is inaccurate by nature; the better the claim is met, the fewer its errors."""
    network, low, high, minimum = dense_case(seed)
    _, region = regional(network, low, high)
    found = sdp_rows(region, network.output, np.ones((1, 1)), sdp_backend(solver), Deadline.after(60))
    assert Fraction(found.lower[0]) <= minimum
    assert found.lower[0] >= found.claimed[0] - (1e-4 if solver == "clarabel" else 0.1) * (
        1 + abs(found.claimed[0])
    )


@pytest.mark.parametrize("seed", range(6))
def test_claims_are_no_lower_than_those_of_linear_programs(seed):
    """All rows of the linear program are there: no claim is lower than that of linear programs."""
    network, low, high, _ = dense_case(seed)
    _, region = regional(network, low, high)
    args = network.output, np.ones((1, 1))
    linear = lp_rows(region, *args, Highs(), Deadline.after(20))
    found = sdp_rows(region, *args, sdp_backend("clarabel"), Deadline.after(60))
    assert found.claimed[0] >= linear.claimed[0] - 1e-5 * (1 + abs(linear.claimed[0]))


def test_too_many_columns_are_refused():
    network = dense_network(random_layers(np.random.default_rng(0), (2, 200, 1)))
    _, region = regional(network, np.full(2, -1.0), np.full(2, 1.0))
    with pytest.raises(UnsupportedError, match="at most"):
        moments(region)


def test_unbounded_values_are_refused():
    layers = [
        (np.array([[1e300]]), np.zeros(1)),
        (np.array([[1e300]]), np.zeros(1)),
        (np.ones((1, 1)), np.zeros(1)),
    ]
    _, region = regional(dense_network(layers), -np.ones(1), np.ones(1))
    with pytest.raises(UnsupportedError, match="finite"):
        moments(region)


# Solvers that fail.


class Stub(SdpBackend):
    """Answers by a function of the program; what it was asked is kept."""

    name = "stub"

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def solve(self, sdp, seconds):
        self.asked.append(sdp)
        return self.answer(sdp)


def multipliers(sdp, fill):
    """An answer whose multipliers are those of a function of shapes."""
    return fill(len(sdp.linear.row_lower)), tuple(fill(len(b), len(b)) for b in sdp.blocks)


def filled(status, fill, primal=None):
    def answer(sdp):
        x = None if primal is None else np.full(len(sdp.linear.cost), primal)
        return SdpAnswer(status, x, *multipliers(sdp, fill), 0.0)

    return answer


def failing(sdp):
    raise SolverError("broken")


def wild(*shape):
    rng = np.random.default_rng(1)
    return rng.choice([np.nan, np.inf, -np.inf, 0.0, 1.0, -1.0, 1e308, 1e-308], shape)


def large(*shape):
    return 1e12 * np.random.default_rng(2).normal(size=shape)


ANSWERS = {
    "error": failing,
    "limit": lambda sdp: SdpAnswer(LpStatus.LIMIT, None, None, None, 0.0),
    "no duals": lambda sdp: SdpAnswer(LpStatus.OPTIMAL, np.zeros(len(sdp.linear.cost)), None, None, 0.0),
    "no duals of blocks": lambda sdp: SdpAnswer(
        LpStatus.OPTIMAL, None, np.ones(len(sdp.linear.row_lower)), None, 0.0
    ),
    "no numbers": filled(LpStatus.OPTIMAL, lambda *s: np.full(s, np.nan), np.nan),
    "infinite": filled(LpStatus.OPTIMAL, lambda *s: np.full(s, np.inf), np.inf),
    "wild": filled(LpStatus.OPTIMAL, wild, -np.inf),
    "large": filled(LpStatus.OPTIMAL, large, 1e300),
    "zero": filled(LpStatus.OPTIMAL, lambda *s: np.zeros(s), 0.0),
    "infeasible": filled(LpStatus.INFEASIBLE, large),
    "unbounded": filled(LpStatus.UNBOUNDED, lambda *s: -np.ones(s)),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_failures_leave_weak_bounds(name):
    network, low, high, minimum = dense_case(3)
    _, region = regional(network, low, high)
    backend = Stub(ANSWERS[name])
    found = sdp_rows(region, network.output, np.ones((1, 1)), backend, Deadline.after(20))
    assert len(backend.asked) == 1 and not np.isnan(found.lower[0])
    assert found.lower[0] == -np.inf or Fraction(found.lower[0]) <= minimum


@pytest.mark.parametrize("seed", range(10))
def test_damaged_answers_leave_bounds_that_hold(seed):
    """A true answer, scaled, turned, or with noise; its blocks are not semidefinite any more."""
    network, low, high, minimum = dense_case(seed)
    _, region = regional(network, low, high)
    rng, true = np.random.default_rng(seed), sdp_backend("clarabel")

    def damaged(sdp):
        answer = true.solve(sdp, 30)
        factor = rng.choice([-1.0, 0.5, 1.0, 3.0])
        noise = [10.0 ** rng.uniform(-9, 0) * rng.normal(size=b.shape) for b in answer.block_duals]
        duals = tuple(factor * (b + n) for b, n in zip(answer.block_duals, noise, strict=True))
        shift = 10.0 ** rng.uniform(-9, 0) * rng.normal(size=len(answer.row_dual))
        return replace(answer, row_dual=factor * (answer.row_dual + shift), block_duals=duals)

    found = sdp_rows(region, network.output, np.ones((1, 1)), Stub(damaged), Deadline.after(30))
    assert found.lower[0] == -np.inf or Fraction(found.lower[0]) <= minimum


def test_no_time():
    network, low, high, _ = dense_case(0)
    _, region = regional(network, low, high)
    found = sdp_rows(region, network.output, np.ones((1, 1)), Stub(failing), Deadline.after(-1))
    assert found.lower[0] == -np.inf and np.isnan(found.claimed[0])
