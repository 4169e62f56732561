"""Networks on which careless rounding gives a wrong verdict; thresholds at the exact optimum and next to it.

Each trap is a network, a box and a linear form. The exact minimum of the form is known (fractions), so
`form <= bound` is sat exactly if the minimum is not above the bound.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import nextafter

import numpy as np
import oracle
import pytest
from oracle import Layers, row

from lpverify.bounds.evaluate import Arithmetic, Batch, double_precision, evaluate, to_numpy
from lpverify.bounds.propagate import Region
from lpverify.config import Config, Deadline
from lpverify.io.onnx import Model, import_model
from lpverify.io.vnnlib import parse_query
from lpverify.multipliers import Effort, Schedule
from lpverify.problem import Problem, compile_problem
from lpverify.replay import Replayer
from lpverify.search.bab import Search
from lpverify.search.engines import choose_engine, numpy_float32, torch_float32
from lpverify.search.tree import Subproblem, Tree
from lpverify.verdict import Sat, Unsat, Verdict
from lpverify.verify import verify_query

SECONDS = 0.05
ARITHMETICS: dict[str, Callable[[Problem], Arithmetic]] = {
    "double": double_precision,
    "numpy32": lambda problem: numpy_float32(problem, 2**21),
    "torch32": lambda problem: torch_float32(problem, 2**21),
}
EFFORTS = (Effort("ibp"), Effort("crown"), Effort("crown", Schedule(steps=4)))


@dataclass(frozen=True)
class Trap:
    """A form to minimise over the network's box."""

    layers: Layers
    ends: tuple[tuple[Fraction, Fraction], ...]
    terms: dict[int, Fraction]

    def tree(self, bound: Fraction, strict: bool) -> oracle.Tree:
        return oracle.Tree("and", (*oracle.box_rows(self.ends), row(self.terms, bound, strict)))

    @property
    def minimum(self) -> Fraction:
        return oracle.minimum(self.layers, self.ends, self.terms)


def layer(weight: object, bias: object) -> tuple[np.ndarray, np.ndarray]:
    return np.array(weight, np.float32), np.array(bias, np.float32)


def trap(layers: list, ends: list, terms: dict) -> Trap:
    exact = tuple((Fraction(low), Fraction(high)) for low, high in ends)
    return Trap([layer(*part) for part in layers], exact, {v: Fraction(c) for v, c in terms.items()})


def next32(value: float, steps: int = 1) -> float:
    result = np.float32(value)
    for _ in range(steps):
        result = np.nextafter(result, np.float32(np.inf))
    return float(result)


def traps() -> Iterator[tuple[str, Trap]]:
    """The hand-made ones."""
    yield "identity at decimals", trap([([[1]], [0]), ([[1]], [0])], [("0.1", "0.1")], {1: 1})
    yield "identity at decimals, above", trap([([[1]], [0]), ([[1]], [0])], [("0.1", "0.3")], {1: -1})
    big, ulp = 1e8, next32(1e8)
    yield "cancelling", trap([([[big], [ulp]], [0, 0]), ([[1, -1]], [0])], [(0, 1)], {1: 1})
    yield "cancelling, up", trap([([[big], [ulp]], [0, 0]), ([[-1, 1]], [0])], [("0.3", "0.7")], {1: 1})
    yield (
        "three that cancel",
        trap([([[1], [1], [1]], [0, 0, 0]), ([[big, -ulp, 8.5]], [0])], [("-0.5", "0.5")], {1: 1}),
    )
    yield "absorbed input", trap([([[1]], [big]), ([[1]], [-big])], [("0.5", 1)], {1: 1})
    yield "absorbed input, max", trap([([[1]], [big]), ([[1]], [-big])], [(-1, 1)], {1: -1})
    yield "absorbed twice", trap([([[1, 1]], [3e7]), ([[1]], [-3e7])], [(-1, 1), ("0.1", "0.2")], {2: -1})
    point = 0.7
    yield (
        "box of one ulp",
        trap(
            [([[1, -1], [3, 1]], [0, 0]), ([[1, -0.3]], [0])],
            [(float(np.float32(point)), next32(point)), (-point, nextafter(-point, 1))],
            {2: 1},
        ),
    )
    yield "ulps of the input", trap([([[3]], [-2.1]), ([[1]], [0])], [(0.7, nextafter(0.7, 1))], {1: -1})
    yield "kink at the corner", trap([([[1], [-1]], [-1, 1]), ([[1, 1]], [0])], [(1, 2)], {1: 1})
    yield "kink inside", trap([([[1], [-1]], [-1, 1]), ([[1, 1]], [0])], [(0, "1.7")], {1: 1})
    yield "thirds", trap([([[3], [-3]], [-1, 1]), ([[1, 1]], [0])], [(0, 1)], {1: 1})
    yield (
        "sevenths",
        trap([([[7, 3], [-3, 7]], [-1, -1]), ([[1, 1], [-1, 0.1]], [0.1, 0])], [(0, 1)] * 2, {2: 1, 3: 1}),
    )
    yield "tiny weights", trap([([[1e-42]], [0]), ([[1e30]], [0])], [(-1, 1)], {1: -1})
    yield "tiny product", trap([([[1e-25]], [0]), ([[1e-21]], [0])], [(0, 1)], {1: -1})
    yield "tiny product, huge input", trap([([[1e-25]], [0]), ([[1e-21]], [0])], [(0, 1e38)], {1: -1})
    yield (
        "tiny coefficients, huge values",
        trap([([[1e-30]], [0]), ([[1e-30]], [0]), ([[1e30]], [0])], [(0, 1e37)], {1: -1}),
    )
    yield "subnormal bias", trap([([[1e-44]], [3e-45]), ([[-1]], [1e-45])], [(-1, 1)], {1: 1})
    yield "overflowing float32", trap([([[1e30]], [0]), ([[1e30]], [0])], [(-1, 1)], {1: -1})
    yield (
        "infinity minus infinity",
        trap([([[3e38], [3e38]], [0, 0]), ([[10, -10]], [1])], [(0, 1)], {1: 1}),
    )
    yield "tiny form", trap([([[1]], [0]), ([[1]], [0])], [(0, 1e11)], {1: Fraction("-1e-46")})
    yield "tiny form, huge values", trap([([[1]], [0]), ([[1]], [0])], [(0, 1e35)], {1: Fraction("-1e-46")})
    yield "form below float32", trap([([[1]], [0]), ([[1e30]], [0])], [(0, 1)], {1: Fraction("-1e-60")})
    yield (
        "form far below",
        trap([([[1]], [0]), ([[1]], [0])], [(0, Fraction(10) ** 200)], {1: -(Fraction(10) ** -190)}),
    )
    huge = Fraction(10) ** 300
    yield (
        "form that underflows on the way back",
        trap([([[1e-30]], [0]), ([[1]], [0])], [(0, huge)], {1: -1 / huge}),
    )
    yield "form below float64", trap([([[1]], [0]), ([[1]], [0])], [(0, huge)], {1: -1 / huge / 10**30})
    yield "huge form", trap([([[1]], [0]), ([[1]], [0])], [(0, 1)], {1: -(Fraction(10) ** 45)})
    yield (
        "decimal form",
        trap([([[1], [1]], [0, 0]), ([[1, 1]], [0])], [("0.1", "0.7")], {1: Fraction("0.1")}),
    )
    yield "mixed form", trap([([[1]], [0]), ([[1]], [0])], [("0.1", "0.7")], {0: Fraction("-1.1"), 1: 1})
    yield "cancelling form", trap([([[1]], [0]), ([[1]], [0])], [("0.1", "0.7")], {0: -1, 1: Fraction(1)})


def deep_trap(rng: np.random.Generator, scale: float) -> Trap:
    """A random network in which each layer undoes much of the one before it."""
    inputs = int(rng.integers(1, 3))
    first = (scale * rng.normal(size=(4, inputs))).astype(np.float32)
    twin = np.repeat(first, 2, axis=0)
    twin[1::2] = np.nextafter(twin[1::2], np.float32(np.inf))
    second = rng.normal(size=(3, 4)).repeat(2, axis=1) * np.tile([1.0, -1.0], 4)
    layers = [(twin, scale * rng.normal(size=4).repeat(2)), (second, rng.normal(size=3))]
    layers.append((rng.normal(size=(1, 3)), rng.normal(size=1)))
    ends = [(Fraction(int(l), 8), Fraction(int(h), 8)) for l, h in np.sort(rng.integers(-8, 9, (inputs, 2)))]
    return trap(layers, ends, {inputs: int(rng.choice([-1, 1]))})


def small_terms(count: int) -> Trap:
    """A sum of many small terms: its rounding error grows with their number."""
    rng = np.random.default_rng(5)
    first = (0.1 + 1e-3 * rng.random((count, 1))).astype(np.float32)
    second = (rng.normal(size=(1, count)) * 1e-3 + 0.1).astype(np.float32)
    return trap([(first, np.zeros(count)), (second, [0.0])], [(Fraction(1, 2), 1)], {1: 1})


HAND_MADE = dict(traps())
MANY = "many small terms"
RANDOM = {f"deep {seed}": (seed, scale) for seed, scale in enumerate([1.0, 1e3, 1e8, 1e-6, 1e-18, 1e15])}


@cache
def named(name: str) -> tuple[Trap, Fraction]:
    if name in RANDOM:
        seed, scale = RANDOM[name]
        found = deep_trap(np.random.default_rng(seed), scale)
    else:
        found = HAND_MADE[name] if name in HAND_MADE else small_terms(100_000)
    return found, found.minimum


@cache
def model_of(name: str) -> Model:
    return import_model(oracle.onnx_bytes(named(name)[0].layers))


def compiled(name: str, bound: Fraction, strict: bool = False) -> Problem:
    item = named(name)[0]
    sizes = item.layers[0][0].shape[1], item.layers[-1][0].shape[0]
    query = parse_query(oracle.vnnlib_text(item.tree(bound, strict), *sizes))
    return compile_problem(model_of(name).network, query)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """Overflow warnings are fine here; wrong verdicts are not."""
    with np.errstate(all="ignore"):
        yield


def bounds_near(name: str) -> list[Fraction]:
    """The minimum, its neighbours among floats and rationals, and what float32 just can tell."""
    minimum = named(name)[1]
    middle = float(minimum)
    around = [nextafter(middle, -np.inf), middle, nextafter(middle, np.inf)]
    offsets = [abs(minimum) * Fraction(f) for f in (-1e-6, -1e-12, 1e-25, 1e-6)]
    least = Fraction(10) ** -60
    return [
        minimum,
        *map(Fraction, around),
        minimum - least,
        minimum + least,
        *(minimum + o for o in offsets),
    ]


def search(name: str, problem: Problem, arithmetic: str, phases: bool) -> Verdict:
    config = Config(input_split_limit=0 if phases else 16, deadline=Deadline.after(SECONDS))
    engine = choose_engine(problem, ARITHMETICS[arithmetic](problem), config)
    tree = Tree(False)
    roots = [Subproblem(tree.root(i), i, c.box.lower, c.box.upper) for i, c in enumerate(problem.cases)]
    search = Search(problem, engine, Replayer(model_of(name), problem), tree, roots)
    return search.run(config.deadline)


def check(verdict: Verdict, name: str, bound: Fraction, strict: bool) -> None:
    """No false unsat; a sat has a witness that an onnxruntime of our own confirms."""
    item, minimum = named(name)
    sat = minimum < bound or (minimum == bound and not strict)
    assert not (isinstance(verdict, Unsat) and sat)
    if isinstance(verdict, Sat):
        import onnxruntime

        session = onnxruntime.InferenceSession(model_of(name).serialized, providers=["CPUExecutionProvider"])
        inputs = verdict.witness.inputs
        outputs = session.run(None, {"x": inputs[None].astype(np.float32)})[0].reshape(-1)
        assert outputs.tolist() == verdict.witness.outputs.tolist()
        assert oracle.holds(item.tree(bound, strict), [*verdict.witness.x, *outputs.tolist()])
        for x, seen in zip(verdict.witness.x, inputs.tolist(), strict=True):
            assert np.float32(float(x)) == np.float32(seen)


NAMES = [*HAND_MADE, *RANDOM, MANY]


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("name", NAMES)
def test_bounds_are_not_above_the_minimum(name: str, arithmetic: str) -> None:
    minimum = named(name)[1]
    problem = compiled(name, minimum)
    place, case = ARITHMETICS[arithmetic](problem), problem.cases[0]
    box = place.box(case.box.lower[None], case.box.upper[None])
    for effort in EFFORTS:
        found = evaluate(problem, place, Batch(np.zeros(1, np.int64), Region(box), {}), effort)
        assert not found.refuted[0]
        assert not to_numpy(found.frame.empty)[0]
        for low in found.lower.reshape(-1).tolist():
            assert low == -np.inf or Fraction(low) <= minimum, effort


@pytest.mark.parametrize("arithmetic", ARITHMETICS)
@pytest.mark.parametrize("name", NAMES)
def test_search_is_right_next_to_the_optimum(name: str, arithmetic: str) -> None:
    for i, bound in enumerate(bounds_near(name)):
        strict = bool(i % 2)
        problem = compiled(name, bound, strict)
        check(search(name, problem, arithmetic, phases=i % 4 < 2), name, bound, strict)


@pytest.mark.parametrize("name", NAMES)
def test_ladder_is_right_next_to_the_optimum(name: str) -> None:
    for i, bound in enumerate(bounds_near(name)):
        strict = not i % 2
        problem = compiled(name, bound, strict)
        config = Config(input_split_limit=16 * (i % 4 < 2), deadline=Deadline.after(SECONDS))
        check(verify_query(model_of(name), problem.query, config), name, bound, strict)
