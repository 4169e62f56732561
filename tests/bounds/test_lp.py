"""Bounds by linear programs, against exact ranges; whatever a solver answers, they hold."""

from dataclasses import replace
from fractions import Fraction
from functools import cache

import numpy as np
import oracle
import pytest
from enumeration import dense_network, random_layers, regional
from scipy import optimize

from lpverify.bounds.lp import lp_rows, obbt
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.triangle import triangle
from lpverify.config import Deadline
from lpverify.errors import SolverError
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.solvers.base import LpAnswer, LpBackend, LpStatus
from lpverify.solvers.highs import Highs
from lpverify.solvers.registry import lp_backend

ROWS = np.array([[1.0, 0.0], [0.0, -1.0], [1.0, -0.75]])


@cache
def case(seed):
    """Layers, a box, all its exact cells, and the exact minima of ROWS."""
    rng = np.random.default_rng(seed)
    sizes = (int(rng.integers(2, 4)), *(int(n) for n in rng.integers(3, 6, rng.integers(1, 3))), 2)
    layers, size = random_layers(rng, sizes), sizes[0]
    centre, radius = np.rint(4 * rng.normal(size=size)) / 8, rng.choice([0.25, 0.5, 1.0])
    low, high = centre - radius, centre + radius
    ends = tuple((Fraction(float(a)), Fraction(float(b))) for a, b in zip(low, high, strict=True))
    points = [p[size:] for cell in oracle.cells(layers, ends, 10**4) for _, p in cell]
    minima = [
        min(sum(Fraction(float(c)) * v for c, v in zip(row, p, strict=True)) for p in points) for row in ROWS
    ]
    return layers, low, high, minima


def operand_ranges(layers, low, high):
    """Exact ranges of the operands of all ReLUs, layer by layer."""
    ends = tuple((Fraction(float(a)), Fraction(float(b))) for a, b in zip(low, high, strict=True))
    for depth in range(1, len(layers)):
        points = [p[len(low) :] for cell in oracle.cells(layers[:depth], ends, 10**4) for _, p in cell]
        yield [(min(column), max(column)) for column in zip(*points, strict=True)]


def bound(seed, backend, deadline=None):
    layers, low, high, minima = case(seed)
    network = dense_network(layers)
    _, program = regional(network, low, high)
    return lp_rows(program, network.output, ROWS, backend, deadline or Deadline.after(20)), minima


def assert_holds(found, minima):
    assert not np.isnan(found.lower).any()
    assert all(
        low == -np.inf or Fraction(float(low)) <= m for low, m in zip(found.lower, minima, strict=True)
    )


@pytest.mark.parametrize("seed", range(30))
def test_bounds_hold_and_meet_the_claim(seed):
    found, minima = bound(seed, Highs())
    assert_holds(found, minima)
    assert np.abs(found.lower - found.claimed).max() <= 1e-6 * (1 + np.abs(found.claimed).max())
    other, _ = bound(seed, lp_backend("cvxpy:clarabel"))  # an interior-point method
    assert_holds(other, minima)
    assert np.abs(found.lower - other.lower).max() <= 1e-5 * (1 + np.abs(found.claimed).max())


def textbook(layers, low, high, boxes, row):
    """The minimum of a row: variables for each layer, `z = W x + b`, and three inequalities a neuron."""
    sizes = [len(low), *(n for _, b in layers[:-1] for n in (len(b), len(b)))]
    starts = np.concatenate([[0], np.cumsum(sizes)])
    ends, equal, right, below, most = [*zip(low, high, strict=True)], [], [], [], []
    previous = 0
    for depth, ((weight, bias), box) in enumerate(zip(layers[:-1], boxes, strict=True)):
        z, x = starts[1 + 2 * depth], starts[2 + 2 * depth]
        for i, (l, u) in enumerate(box):
            line = np.zeros(starts[-1])
            line[z + i] = 1
            line[previous : previous + weight.shape[1]] -= weight[i]
            equal.append(line)
            right.append(bias[i])
            ends.append((l, u) if l < 0 < u else (None, None))
            slope = 1.0 if l >= 0 else (0.0 if u <= 0 else u / (u - l))
            for a, b, end in (
                (slope, -1, -slope * l if l < 0 < u else 0.0),
                (1 if l < 0 < u else slope, 1, 0.0),
            ):
                line = np.zeros(starts[-1])
                line[x + i], line[z + i] = -b, b * a  # b = -1: x <= a z + end; b = 1: a z <= x
                below.append(line)
                most.append(end)
        ends += [(0, None) if l < 0 < u else (None, None) for l, u in box]
        previous = x
    cost = np.zeros(starts[-1])
    cost[previous:] = row @ layers[-1][0]
    found = optimize.linprog(cost, np.array(below), np.array(most), np.array(equal), np.array(right), ends)
    return found.fun + row @ layers[-1][1]


@pytest.mark.parametrize("seed", range(15))
def test_programs_are_those_of_the_textbook(seed):
    layers, low, high, _ = case(seed)
    network = dense_network(layers)
    frame, program = regional(network, low, high)
    operands = [frame.boxes[k] for k in network.pre_activations]
    boxes = [list(zip(b.lower[0], b.upper[0], strict=True)) for b in operands]
    found = lp_rows(program, network.output, ROWS, Highs(), Deadline.after(20))
    for row, low_end in zip(ROWS, found.lower, strict=True):
        assert low_end == pytest.approx(textbook(layers, low, high, boxes, row), rel=1e-6, abs=1e-6)


@pytest.mark.parametrize("start", ["ibp", "crown"])
@pytest.mark.parametrize("seed", range(15))
def test_boxes_of_obbt_hold_and_are_no_wider(seed, start):
    layers, low, high, minima = case(seed)
    network = dense_network(layers)
    region = Region(Box(low[None], high[None]))
    frame = propagate(network, region, Effort(start), 2**20)
    tight = obbt(region, frame, Highs(), Deadline.after(20))
    assert not tight.empty.any()
    for old, new in zip(frame.boxes, tight.boxes, strict=True):
        assert (new.lower >= old.lower).all() and (new.upper <= old.upper).all()
    ranges = operand_ranges(layers, low, high)
    for k, exact in zip(network.pre_activations, ranges, strict=True):
        box = tight.boxes[k]
        for (least, most), a, b in zip(exact, box.lower[0], box.upper[0], strict=True):
            assert Fraction(float(a)) <= least and most <= Fraction(float(b))
    loose, found = (
        lp_rows(triangle(f), network.output, ROWS, Highs(), Deadline.after(20)) for f in (frame, tight)
    )
    assert_holds(found, minima)
    assert (found.lower >= loose.lower - 1e-6 * (1 + np.abs(loose.lower))).all()


def test_obbt_of_one_hidden_layer_after_another_is_exact_there():
    """The program up to the second layer's operands is the hull of one layer: no box can be exact by luck."""
    layers = [
        (np.array([[1.0, 1], [1, -1]]), np.zeros(2)),
        (np.array([[1.0, 1]]), np.array([-1.0])),
        (np.ones((1, 1)), np.zeros(1)),
    ]
    region = Region(Box(np.full((1, 2), -1.0), np.full((1, 2), 1.0)))
    frame = propagate(dense_network(layers), region, Effort("ibp"), 2**20)
    tight = obbt(region, frame, Highs(), Deadline.after(20))
    assert frame.boxes[3].upper[0, 0] == pytest.approx(3)
    assert tight.boxes[3].upper[0, 0] == pytest.approx(2)  # at a corner one ReLU is 2, the other 0


# Solvers that fail.


class Stub(LpBackend):
    """Answers by a function of the program."""

    name = "stub"

    def __init__(self, answer):
        self.answer, self.asked = answer, 0

    def solve(self, lp, seconds):
        self.asked += 1
        return self.answer(lp)


def failing(lp):
    raise SolverError("broken")


def filled(status, duals, primal=None):
    """An answer with duals by a function of their number, and one number for all columns."""

    def answer(lp):
        x = None if primal is None else np.full(len(lp.cost), primal)
        return LpAnswer(status, x, duals(len(lp.row_lower)), 0.0)

    return answer


def nothing(rows):
    return None


def wild(rows):
    values = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.0, -1.0, 1e308, -1e308, 5e-324]
    return np.random.default_rng(rows).choice(values, rows)


def random(rows):
    return 10.0 ** np.random.default_rng(rows).uniform(-9, 9, rows) * np.random.default_rng(1).choice(
        [-1, 1], rows
    )


ANSWERS = {
    "error": failing,
    "limit": filled(LpStatus.LIMIT, nothing),
    "limit with values": filled(LpStatus.LIMIT, random, 0.5),
    "optimal without values": filled(LpStatus.OPTIMAL, nothing, np.nan),
    "no numbers": filled(LpStatus.OPTIMAL, lambda m: np.full(m, np.nan), np.nan),
    "infinite": filled(LpStatus.OPTIMAL, lambda m: np.full(m, np.inf), np.inf),
    "wild": filled(LpStatus.OPTIMAL, wild, -np.inf),
    "random": filled(LpStatus.OPTIMAL, random, 1e300),
    "infeasible with a false ray": filled(LpStatus.INFEASIBLE, random),
    "infeasible without a ray": filled(LpStatus.INFEASIBLE, nothing),
    "unbounded": filled(LpStatus.UNBOUNDED, nothing),
    "unbounded with values": filled(LpStatus.UNBOUNDED, random, -1e300),
}


@pytest.mark.parametrize("name", ANSWERS)
@pytest.mark.parametrize("seed", range(3))
def test_failures_leave_bounds_that_hold(name, seed):
    backend = Stub(ANSWERS[name])
    found, minima = bound(seed, backend)
    assert backend.asked == len(ROWS)
    assert_holds(found, minima)


@pytest.mark.parametrize("name", ANSWERS)
def test_obbt_keeps_boxes_when_the_solver_fails(name):
    layers, low, high, _ = case(4)
    network, region = dense_network(layers), Region(Box(low[None], high[None]))
    frame = propagate(network, region, Effort("ibp"), 2**20)
    backend = Stub(ANSWERS[name])
    found = obbt(region, frame, backend, Deadline.after(20))
    assert backend.asked and not found.empty.any()
    for k, exact in zip(network.pre_activations, operand_ranges(layers, low, high), strict=True):
        box = found.boxes[k]
        for (least, most), a, b in zip(exact, box.lower[0], box.upper[0], strict=True):
            assert Fraction(float(a)) <= least and most <= Fraction(float(b))


@pytest.mark.parametrize("seed", range(20))
def test_damaged_multipliers_leave_bounds_that_hold(seed):
    """True ones, scaled, turned, or with noise."""
    rng = np.random.default_rng(seed)

    def damaged(lp):
        answer = Highs().solve(lp, 10)
        noise = 10.0 ** rng.uniform(-12, 0) * rng.normal(size=len(lp.row_lower))
        return replace(answer, row_dual=rng.choice([1, 1, 0.9, 1.1, -1, 1e6]) * (answer.row_dual + noise))

    assert_holds(*bound(seed, Stub(damaged)))


def test_no_time():
    backend = Stub(failing)
    found, _ = bound(0, backend, Deadline.after(-1))
    assert not backend.asked and (found.lower == -np.inf).all() and np.isnan(found.claimed).all()
    layers, low, high, _ = case(0)
    region = Region(Box(low[None], high[None]))
    frame = propagate(dense_network(layers), region, Effort("ibp"), 2**20)
    assert obbt(region, frame, backend, Deadline.after(-1)).boxes == frame.boxes
