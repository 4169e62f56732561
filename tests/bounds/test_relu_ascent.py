"""Ascent in alpha and beta: its values and gradients against the rigorous bound with the same multipliers."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from enumeration import dense_network

from lpverify.bounds.alpha import bound_rows, initial
from lpverify.bounds.evaluate import Arithmetic, to_numpy
from lpverify.bounds.frame import Frame
from lpverify.bounds.linear import Sides
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.relu_ascent import Ascended, ReluAscent, applies
from lpverify.interval import Box
from lpverify.multipliers import Effort, Multipliers, Schedule
from lpverify.network import Network, Node
from lpverify.ops.activations import Sigmoid
from lpverify.ops.linear import Combine, Linear, Scale
from lpverify.ops.piecewise import Relu
from lpverify.ops.shape import Concat, ConstantValue, Gather
from lpverify.problem import Problem
from lpverify.search.engines import numpy_float32, torch_float32

REGIONS, ROWS = 3, 2
TOLERANCE = {"double": 1e-10, "numpy32": 2e-4, "torch32": 2e-4}


def residual(rng: np.random.Generator) -> Network:
    """A block with a shortcut, a constant beside it, a ReLU of a sum; two ReLUs of one value."""

    def linear(*shape: int) -> Linear:
        return Linear(rng.normal(size=shape) / 2, rng.normal(size=shape[0]) / 2)

    nodes = [Node(None, (), (4,)), Node(linear(5, 4), (0,), (5,)), Node(Relu(), (1,), (5,))]
    nodes += [Node(linear(5, 5), (2,), (5,)), Node(Relu(), (3,), (5,)), Node(linear(5, 5), (4,), (5,))]
    nodes += [Node(Combine((1, -1)), (2, 5), (5,)), Node(Relu(), (6,), (5,))]
    nodes += [Node(ConstantValue(rng.normal(size=2)), (), (2,)), Node(Concat(0, (5, 2)), (7, 8), (7,))]
    nodes += [Node(Scale(rng.normal(size=7), rng.normal(size=7)), (9,), (7,)), Node(Relu(), (3,), (5,))]
    nodes += [Node(Gather((0, 6, 0), 0, (7,)), (10,), (3,)), Node(Concat(0, (3, 5)), (12, 11), (8,))]
    nodes += [Node(linear(3, 8), (13,), (3,))]
    return Network(tuple(nodes), 14)


def deep(rng: np.random.Generator) -> Network:
    return dense_network(
        [(rng.normal(size=(b, a)) / 2, rng.normal(size=b) / 2) for a, b in ((4, 6), (6, 5), (5, 5), (5, 3))]
    )


@dataclass(frozen=True)
class Setting:
    """Regions of a network with splits, and rows of a value on them."""

    frame: Frame
    rows: Any
    value: int
    splits: Mapping[int, Sides]

    @property
    def ascent(self) -> ReluAscent:
        network = self.frame.network
        boxes = {network.nodes[k].inputs[0]: None for k in self.frame.lines}
        boxes = {i: self.frame.coefficient_box(i) for i in boxes}
        inputs = self.frame.coefficient_box(0)
        return ReluAscent(network, self.rows, self.value, inputs, boxes, self.splits)

    def climb(self, start: Multipliers, schedule: Schedule) -> Ascended:
        return self.ascent.climb(start, schedule, lambda value: False)

    @property
    def start(self) -> Multipliers:
        return initial(self.frame, ROWS, self.splits)

    def rigorous(self, multipliers: Multipliers) -> np.ndarray:
        bound = bound_rows(self.frame, self.rows, multipliers, self.splits, start=self.value)
        return to_numpy(bound.concretize(self.frame.boxes[0]))


def setting(seed: int, kind: str = "double", value: int | None = None, split: bool = True) -> Setting:
    rng = np.random.default_rng(seed)
    network = (deep, residual)[seed % 2](rng)
    problem = Problem(network, (), None)
    arithmetic = Arithmetic(network, network, np.asarray, np.zeros(1))
    if kind != "double":
        arithmetic = {"numpy32": numpy_float32, "torch32": torch_float32}[kind](problem, 2**20)
    centre = rng.normal(size=(REGIONS, 4))
    box = arithmetic.box(centre - 0.5, centre + rng.choice([0.0, 0.5, 0.7], (REGIONS, 4)))
    arguments = (arithmetic.network, Effort("crown"), 2**20, arithmetic.reference, arithmetic.like)
    plain = propagate(arguments[0], Region(box), *arguments[1:])
    splits, known = {}, {}
    for k in sorted({network.nodes[i].inputs[0] for i in plain.lines}) if split else ():
        low, high = (to_numpy(end) for end in (plain.boxes[k].lower, plain.boxes[k].upper))
        sign = np.where((low < 0) & (high > 0), rng.choice([0, 0, 1, -1], low.shape), 0)
        low, high = np.where(sign > 0, np.maximum(low, 0), low), np.where(sign < 0, np.minimum(high, 0), high)
        splits[k] = Sides(arithmetic.array(sign.astype(np.float64)))
        known[k] = arithmetic.box(low, high)
    frame = propagate(arguments[0], Region(box, known), *arguments[1:])
    value = network.output if value is None else value
    rows = arithmetic.array(rng.normal(size=(REGIONS, ROWS, *network.nodes[value].shape)))
    return Setting(frame, rows, value, splits)


def random_multipliers(rng: np.random.Generator, start: Multipliers) -> Multipliers:
    """Inside of their ranges."""
    alpha = {k: rng.uniform(0.1, 0.9, v.shape) for k, v in start.alpha.items()}
    return Multipliers(alpha, {k: rng.uniform(0.05, 0.5, v.shape) for k, v in start.beta.items()})


def assert_admissible(multipliers: Multipliers) -> None:
    for array in multipliers.alpha.values():
        assert ((to_numpy(array) >= 0) & (to_numpy(array) <= 1)).all()
    for array in multipliers.beta.values():
        assert (to_numpy(array) >= 0).all() and np.isfinite(to_numpy(array)).all()


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("seed", range(12))
def test_values_are_those_of_the_rigorous_bound(seed: int, kind: str) -> None:
    """Of the output and of a value inside, from the adaptive multipliers and after some steps."""
    for value in (None, 6):
        s = setting(seed, kind, value)
        for steps in (0, 1, 12):
            found = s.climb(s.start, Schedule(steps=steps))
            size = 1 + np.abs(to_numpy(found.value))
            np.testing.assert_array_less(
                np.abs(to_numpy(found.value) - s.rigorous(found.multipliers)) / size, TOLERANCE[kind]
            )
            assert_admissible(found.multipliers)
            again = to_numpy(s.ascent.values(found.multipliers))
            np.testing.assert_array_less(np.abs(to_numpy(found.value) - again) / size, TOLERANCE[kind])


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("seed", range(6))
def test_more_steps_are_not_worse(seed: int, kind: str) -> None:
    s, last = setting(seed, kind), None
    for steps in (0, 1, 2, 4, 8, 16, 32):
        value = to_numpy(s.climb(s.start, Schedule(steps=steps)).value)
        assert last is None or (value >= last).all()
        last = value
    first = to_numpy(s.climb(s.start, Schedule(steps=0)).value)
    assert (last - first).max() > 1e-3


def gradients(s: Setting, at: Multipliers) -> dict[tuple[str, int], np.ndarray]:
    """What an ascent that ends where it starts says of the bound's derivatives (see the module)."""
    found, nodes = s.climb(at, Schedule(steps=0)), s.frame.network.nodes
    result = {}
    for k, a in found.coefficients.items():
        box = s.frame.boxes[nodes[k].inputs[0]]
        free = ((box.lower < 0) & (box.upper > 0))[:, None]
        result["alpha", k] = np.maximum(a, 0) * found.primal[nodes[k].inputs[0]] * free
    for k in at.beta:
        result["beta", k] = -found.primal[k] * s.splits[k].sign[:, None]
    return result


def moved(at: Multipliers, key: tuple[str, int], element: tuple[int, ...], step: float) -> Multipliers:
    """With one element of all regions and rows moved."""
    groups = {"alpha": dict(at.alpha), "beta": dict(at.beta)}
    array = groups[key[0]][key[1]].copy()
    array[(slice(None), slice(None), *element)] += step
    groups[key[0]][key[1]] = array
    return Multipliers(groups["alpha"], groups["beta"])


@pytest.mark.parametrize("seed", range(8))
def test_gradients_are_those_of_the_bound(seed: int) -> None:
    """Central differences of the rigorous bound, where those to both sides agree."""
    s, step, compared = setting(seed), 1e-5, 0
    at = random_multipliers(np.random.default_rng(seed), s.start)
    middle = s.rigorous(at)
    for key, gradient in gradients(s, at).items():
        for element in np.ndindex(gradient.shape[2:]):
            left, right = (s.rigorous(moved(at, key, element, d)) for d in (-step, step))
            slopes = (middle - left) / step, (right - middle) / step
            smooth = np.abs(slopes[0] - slopes[1]) < 1e-5
            wanted = gradient[(slice(None), slice(None), *element)]
            np.testing.assert_allclose((0.5 * (slopes[0] + slopes[1]))[smooth], wanted[smooth], atol=1e-4)
            compared += (np.abs(wanted[smooth]) > 1e-3).sum()
    assert compared > 15


def test_gradients_count_the_points_of_splits() -> None:
    """Splits elsewhere than at zero: the value, and what moving their multipliers changes."""
    s = setting(0)
    rng, like = np.random.default_rng(0), s.splits[3].sign
    splits = {k: Sides(v.sign, rng.normal(size=v.sign.shape)) for k, v in s.splits.items()}
    s = Setting(s.frame, s.rows, s.value, splits)
    at, step = random_multipliers(rng, s.start), 1e-5
    found = s.climb(at, Schedule(steps=0))
    np.testing.assert_allclose(found.value, s.rigorous(at), rtol=1e-9)
    np.testing.assert_allclose(s.ascent.values(at), s.rigorous(at), rtol=1e-9)
    for element in np.ndindex(like.shape[1:]):
        left, right = (s.rigorous(moved(at, ("beta", 3), element, d)) for d in (-step, step))
        beyond = found.primal[3] - splits[3].point[:, None]
        wanted = (-beyond * like[:, None])[(slice(None), slice(None), *element)]
        smooth = np.abs(right + left - 2 * s.rigorous(at)) < 1e-9
        np.testing.assert_allclose(((right - left) / (2 * step))[smooth], wanted[smooth], atol=1e-4)


@pytest.mark.parametrize("seed", range(6))
def test_the_first_step_follows_the_gradient(seed: int) -> None:
    """Adam's first direction is the gradient's sign; steps so small that the bound gets better."""
    s, rate = setting(seed), 1e-6
    at = random_multipliers(np.random.default_rng(seed), s.start)
    wanted = gradients(s, at)
    first = s.climb(at, Schedule(steps=0))
    found = s.climb(at, Schedule(steps=1, alpha_rate=rate, beta_rate=rate))
    better = found.value > first.value
    assert better.mean() > 0.5
    for (name, k), gradient in wanted.items():
        before, after = (getattr(m, name)[k] for m in (first.multipliers, found.multipliers))
        steep = np.abs(gradient[better]) > 1e-6
        np.testing.assert_allclose(
            (after - before)[better][steep], rate * np.sign(gradient[better][steep]), atol=1e-3 * rate
        )


@pytest.mark.parametrize("kind", TOLERANCE)
def test_multipliers_are_admissible_whatever_the_rates(kind: str) -> None:
    for seed in range(4):
        s = setting(seed, kind)
        for rate in (1e-9, 1.0, 1e3):
            assert_admissible(s.climb(s.start, Schedule(6, rate, rate, 1.0)).multipliers)


def test_the_start_is_left_as_it_was() -> None:
    """Rows that do not get better keep their multipliers, and nobody else's array is written to."""
    s = setting(0)
    start = random_multipliers(np.random.default_rng(0), s.start)
    copies = Multipliers(*({k: v.copy() for k, v in m.items()} for m in (start.alpha, start.beta)))
    found = s.climb(start, Schedule(steps=3, alpha_rate=1.0, beta_rate=1.0))
    for name in ("alpha", "beta"):
        for k, array in getattr(start, name).items():
            np.testing.assert_array_equal(array, getattr(copies, name)[k])
            assert not np.shares_memory(array, getattr(found.multipliers, name)[k])
    worst = s.climb(found.multipliers, Schedule(steps=1, alpha_rate=50.0, beta_rate=50.0))
    same = worst.value == s.climb(found.multipliers, Schedule(steps=0)).value
    assert same.any()
    for k, array in worst.multipliers.beta.items():
        np.testing.assert_array_equal(array[same], found.multipliers.beta[k][same])


def test_it_stops_when_that_is_enough() -> None:
    s, asked = setting(1), []

    def done(value: np.ndarray) -> bool:
        asked.append(value)
        return len(asked) == 3

    s.ascent.climb(s.start, Schedule(steps=50), done)
    assert len(asked) == 3 and all((b >= a).all() for a, b in pairwise(asked))


@pytest.mark.parametrize("kind", TOLERANCE)
@pytest.mark.parametrize("which", ["all", "some", "half"])
def test_unbounded_boxes_do_no_harm(which: str, kind: str) -> None:
    """Nothing is raised, multipliers stay admissible; what is said of other regions stays as it was."""
    for seed in range(4):
        s = setting(seed, kind, split=False)
        boxes = {s.frame.network.nodes[k].inputs[0] for k in s.frame.lines}
        plain = s.climb(s.start, Schedule(steps=5))
        for k in boxes:
            low, high = (to_numpy(end).copy() for end in (s.frame.boxes[k].lower, s.frame.boxes[k].upper))
            chosen = (slice(0, 1), slice(None) if which == "all" else slice(0, 1))
            low[chosen] = -np.inf
            if which != "half":
                high[chosen] = np.inf
            put = (lambda a: a) if kind != "torch32" else _torch
            s.frame.boxes[k] = Box(put(low), put(high))
        with np.errstate(all="ignore"):
            found = s.climb(s.start, Schedule(steps=5))
        assert_admissible(found.multipliers)
        others = to_numpy(found.value)[1:], to_numpy(plain.value)[1:]
        np.testing.assert_allclose(*others, rtol=1e-5)


def _torch(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array)


def test_unbounded_inputs_do_no_harm() -> None:
    s = setting(0, split=False)
    for end in (s.frame.boxes[0].lower, s.frame.boxes[0].upper):
        end[0, 0] = np.copysign(np.inf, end[0, 0])
    with np.errstate(all="ignore"):
        low, high = (getattr(s.frame.boxes[0], name).copy() for name in ("lower", "upper"))
        low[0], high[0] = -np.inf, np.inf
        s.frame.boxes[0] = Box(low, high)
        found = s.climb(s.start, Schedule(steps=5))
    assert_admissible(found.multipliers)
    assert not (found.value[0] > -1e300).any() and np.isfinite(found.value[1:]).all()


def test_rows_of_zeros_and_of_stable_neurons() -> None:
    """Nothing depends on the multipliers; the value is exact."""
    layers = [(np.eye(2), np.array([5.0, -5.0])), (np.array([[2.0, 3.0]]), np.ones(1))]
    network = dense_network(layers)
    box = Box(np.full((1, 2), -1.0), np.full((1, 2), 1.0))
    frame = propagate(network, Region(box), Effort("crown"), 2**20)
    s = Setting(frame, np.array([[[1.0], [-1.0]]]), 3, {})
    np.testing.assert_allclose(s.climb(s.start, Schedule(steps=4)).value, [[9.0, -13.0]])
    s = Setting(frame, np.zeros((1, ROWS, 1)), 3, {})
    np.testing.assert_array_equal(s.climb(s.start, Schedule(steps=4)).value, np.zeros((1, ROWS)))


def test_only_relus() -> None:
    nodes = (
        Node(None, (), (2,)),
        Node(Relu(), (0,), (2,)),
        Node(Sigmoid(), (1,), (2,)),
        Node(Combine((1, 1)), (1, 0), (2,)),
        Node(Combine((1, 1)), (2, 3), (2,)),
    )
    network = Network(nodes, 4)
    assert [applies(network, k) for k in range(5)] == [True, True, False, True, False]
