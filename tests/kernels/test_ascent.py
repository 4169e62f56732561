"""Optimised multipliers in the compiled kernel: whatever they are, the bounds hold bit for bit.

Each case is a graph with boxes and, for each box, splits on whose sides some of its points are. At all points
that satisfy all splits, among them some next to where a split ends, the exact values must not be below a
bound; there is no tolerance.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, cached_property
from math import inf, nan

import numpy as np
import pytest
from helpers import box_assertions, query_of, random_dense
from kernels.test_dense import (
    CASES,
    SETS,
    Case,
    Checker,
    Function,
    Knowledge,
    Net,
    boxes,
    chain,
    matrix_of,
    needs_kernel,
    over,
    same,
    usual,
)

from lpverify.bounds.condense import condense
from lpverify.bounds.evaluate import double_precision, evaluate
from lpverify.bounds.subproblem import Subproblem, make_batch
from lpverify.kernels.dense import Ascent, Rectifier
from lpverify.multipliers import Effort, Multipliers
from lpverify.problem import compile_problem
from lpverify.proof import NeuronSplit

pytestmark = needs_kernel

STEPS = (1, 7, 30)
everywhere = pytest.mark.parametrize("instruction_set", SETS)
precisely = pytest.mark.parametrize("double", [False, True], ids=["float32", "float64"])


@pytest.fixture(autouse=True)
def quiet():
    """Overflow warnings are fine here; wrong bounds are not."""
    with np.errstate(all="ignore"):
        yield


# What the multipliers are at first.

Shapes = tuple[tuple[int, ...], tuple[int, ...]]


def none(rng: np.random.Generator, shapes: Shapes) -> list[np.ndarray]:
    return [np.full(shapes[0], -1.0), np.full(shapes[1], -1.0)]


def random(rng: np.random.Generator, shapes: Shapes) -> list[np.ndarray]:
    return [rng.random(shapes[0]), rng.exponential(size=shapes[1])]


def large(rng: np.random.Generator, shapes: Shapes) -> list[np.ndarray]:
    return [rng.integers(0, 2, shapes[0]), 1e6 * rng.random(shapes[1])]


def no_numbers(rng: np.random.Generator, shapes: Shapes) -> list[np.ndarray]:
    return [np.full(shapes[0], nan), np.full(shapes[1], nan)]


def wild(rng: np.random.Generator, shapes: Shapes) -> list[np.ndarray]:
    values = np.array([nan, -1, 0, 1, 0.3, inf, -inf, 2, 3e38, 1e-45, -0.0])
    return [rng.choice(values, shape) for shape in shapes]


STARTS: dict[str, Callable[[np.random.Generator, Shapes], list[np.ndarray]]] = {
    f.__name__: f for f in (none, random, large, no_numbers, wild)
}


def ascent_of(checker, given, rng, steps, start="none", goal=inf):
    """An ascent of all rows of `Checker.bound`."""
    count, rows = len(given.split), checker.case.forms + 2
    shapes = (count, rows, checker.neurons), (count, rows, given.split.shape[1])
    alpha, beta = (np.asarray(m, np.float32) for m in STARTS[start](rng, shapes))
    return Ascent(steps, int(rng.integers(0, 9)), np.full((count, rows), goal), alpha, beta)


# Points that splits leave.


@dataclass(frozen=True)
class Dense(Case):
    """A case with more points in each box."""

    @cached_property
    def points(self):
        rng = np.random.default_rng(1)
        points, owner = Case(self.graph, self.lower, self.upper).points
        more = [
            np.clip(low + (high - low) * rng.random((25, len(low))), low, high)
            for low, high in zip(self.lower, self.upper, strict=True)
        ]
        return np.concatenate([points, *more]), np.concatenate([owner, np.repeat(np.arange(len(more)), 25)])


class Plain(Dense):
    """A case whose errors of weights and biases are left out: its exact values are roughly right."""

    @cached_property
    def functions(self):
        return [Function(self.graph)]


def float_values(graph, points):
    """All values at points, roughly."""
    values = [points]
    for node in graph.nodes:
        if isinstance(node, Rectifier):
            values.append(np.maximum(values[node.source], 0))
        else:
            parts = [values[b.source] @ matrix_of(b).T for b in node.blocks]
            values.append(sum(parts, np.broadcast_to(node.bias, (len(points), node.width))))
    return values


def holding(checker, given, points, owner):
    """Which points satisfy all splits of their boxes, roughly."""
    values = float_values(checker.case.graph, points)
    order = sorted((first, k) for k, first in checker.kernel.offsets.items())
    z = np.concatenate([values[k] for _, k in order], axis=1)
    split, side = given.split[owner], given.side[owner]
    return ((split < 0) | (np.take_along_axis(z, np.maximum(split, 0), axis=1) * side >= 0)).all(axis=1)


def borders(checker, given, rng, most=6):
    """Points next to where splits end: bisection between some that satisfy all splits and some that don't."""
    points, owner = checker.case.points
    if not checker.neurons:
        return points[:0], owner[:0]
    holds, inside, outside, where = holding(checker, given, points, owner), [], [], []
    for b in range(len(given.split)):
        good, bad = (np.flatnonzero((owner == b) & which) for which in (holds, ~holds))
        if len(good) and len(bad):
            inside.append(points[rng.choice(good, most)])
            outside.append(points[rng.choice(bad, most)])
            where.append(np.full(most, b))
    if not where:
        return points[:0], owner[:0]
    near, far, where = np.concatenate(inside), np.concatenate(outside), np.concatenate(where)
    for _ in range(60):
        middle = 0.5 * near + 0.5 * far
        holds = holding(checker, given, middle, where)[:, None]
        near, far = np.where(holds, middle, near), np.where(holds, far, middle)
    return np.concatenate([near, far]), np.concatenate([where, where])


def check(checker, given, rng, steps, start, points=None, **more):
    """Runs, compares everywhere, and returns the bounds and the final multipliers."""
    ascent = ascent_of(checker, given, rng, steps, start)
    found = checker.run(given, split_needed=True, ascent=ascent, **more)
    points, owner = borders(checker, given, rng) if points is None else points
    if len(points):
        known = checker.bound(given, ascent=replace(ascent, steps=0), **more)[1]
        for function in checker.case.functions:
            checker.compare(given, found, known, points, owner, function(points), True)
    forms = [*range(checker.case.forms), checker.case.forms + 1]
    bounded = np.flatnonzero(found.empty == 0)
    alpha, beta = (m[bounded][:, forms] for m in (ascent.alpha, ascent.beta))
    assert ((alpha >= 0) & (alpha <= 1)).all()
    assert (((beta >= 0) & (beta < inf)) | (given.split[bounded] < 0)[:, None]).all()
    return found, ascent


# Cases.


def random_graph(seed):
    """Some layers of widths 1 to 40; half of the graphs read earlier layers, too."""
    rng = np.random.default_rng(seed)
    net, skips = Net(int(rng.choice([1, 2, 3, 5, 20]))), bool(seed % 2)
    readable = [0]
    for _ in range(int(rng.integers(1, 5))):
        width = int(rng.integers(1, 41))
        sources = {readable[-1], *(int(s) for s in rng.choice(readable, 2) if skips)}
        parts = [(s, rng.normal(size=(width, net.width(s))) / net.width(s) ** 0.5) for s in sources]
        readable.append(net.relu(net.affine(0.3 * rng.normal(size=width), *parts)))
    sources = {readable[-1], *(int(s) for s in rng.choice(readable, 2) if skips)}
    net.affine(rng.normal(size=2), *((s, rng.normal(size=(2, net.width(s)))) for s in sources))
    return dense(net.graph(), *usual(rng, net.inputs))


def dense(graph, lower, upper):
    """The case of a graph; ends of the boxes that are the same in all inputs are given once."""
    case = over(graph, lower, upper)
    return Dense(graph, case.lower, case.upper)


RANDOM = {f"random {seed}": (lambda s=seed: random_graph(s)) for seed in range(6)}


def copies_of_a_split():
    """The form is what is split: the bound is attained where the split ends."""
    net = Net(2)
    z = net.affine([-0.1, 1 / 3, 1e3], (0, [[1, 0.3], [-0.7, 0.1], [1e3, 1e-3]]))
    net.affine(
        [0, 0, 7], (net.relu(z), [[1, 1, 0], [0, 0, 1], [-1, 2, 0]]), (z, np.eye(3)), (0, np.ones((3, 2)))
    )
    graph = net.graph()
    return dense(graph, *boxes((-1, 1), (0, 1), (0.1, 0.5), (-1e-3, 1e-3), (-0.3, 0.1)))


def splits_that_cancel():
    """Large weights and nearly equal ones on both sides of a split."""
    big, ulp = 1e8, float(np.nextafter(np.float32(1e8), np.float32(inf)))
    first = ([[big, -ulp], [-big, big], [ulp, -big], [1, 1]], [1, -1, 0.1, -0.5])
    return dense(
        chain(2, first, ([[1e8, -1e8, 1, 3], [-1e-8, 1e8, -1, 1]], [0, 1])),
        *boxes((0, 1), (-1, 1), (0.3, 0.7), (0.5, 0.5 + 1e-9)),
    )


def one_input_and_many_splits():
    """On a line the splits leave an interval: its ends are the minima."""
    rng = np.random.default_rng(5)
    first = (rng.normal(size=(24, 1)), 0.5 * rng.normal(size=24))
    return dense(
        chain(1, first, (rng.normal(size=(9, 24)), rng.normal(size=9)), (rng.normal(size=(3, 9)), [0, 0, 0])),
        *boxes((-1, 1), (-2, 0.5), (0.1, 0.2), (-1e-5, 1e-5)),
    )


OWN = {
    f.__name__.replace("_", " "): f
    for f in (copies_of_a_split, splits_that_cancel, one_input_and_many_splits)
}
SLOW = {"many equal gains", "many terms that cancel", "many equal terms", "many vanishing weights at a point"}
SLOW |= {f"skips, columns twice {i}" for i in range(1, 6)}
ALL = {**OWN, **RANDOM, **{k: f for k, f in CASES.items() if k not in SLOW}}


@cache
def made(name):
    return ALL[name]()


def splits_of(checker, rng, clamped):
    """Splits through a point of each box, or none where there are no neurons."""
    if not checker.neurons:
        return Knowledge.none(len(checker.case.lower), 0)
    return checker.splits_through(rng, clamped, most=int(rng.integers(1, 9)))


# Bounds hold.


@precisely
@everywhere
@pytest.mark.parametrize("name", [*OWN, *RANDOM])
def test_bounds_hold_where_splits_do(name, instruction_set, double):
    checker, rng = Checker(made(name), instruction_set, double), np.random.default_rng(0)
    for i, start in enumerate(STARTS):
        given = splits_of(checker, rng, clamped=bool(i % 2))
        check(checker, given, rng, STEPS[i % 3], start)


@precisely
@everywhere
@pytest.mark.parametrize("name", [n for n in ALL if n not in OWN and n not in RANDOM])
def test_bounds_hold_in_traps(name, instruction_set, double):
    checker, rng = Checker(made(name), instruction_set, double), np.random.default_rng(1)
    starts = rng.permutation(list(STARTS))[:3]
    for steps, start, clamped in zip(STEPS, starts, (True, False, True), strict=True):
        given = splits_of(checker, rng, clamped)
        check(checker, given, rng, steps, start, refine=bool(rng.integers(2)), cuts=int(rng.integers(3)))


@precisely
@everywhere
@pytest.mark.parametrize("known", [False, True], ids=["open", "known"])
@pytest.mark.parametrize("side", [1, -1])
@pytest.mark.parametrize("start", [*STARTS])
def test_one_neuron_on_one_side(start, side, known, instruction_set, double):
    """`2 + relu(x)` and `x` on [-1, 3]; the multiplier of an inactive neuron must count all the same."""
    net = Net(1)
    net.affine([2.0, 0.0], (net.relu(net.affine([0.0], (0, [[1.0]]))), [[1.0], [0.0]]), (0, [[0.0], [1.0]]))
    for graph in (chain(1, ([[1.0]], [0.0]), ([[1.0], [-1.0]], [2.0, 0.0])), net.graph()):
        checker = Checker(dense(graph, *boxes((-1, 3))), instruction_set, double)
        ends = [np.full((1, 1), -inf), np.full((1, 1), inf)]
        if known:
            ends[0 if side > 0 else 1][:] = 0.0
        given = Knowledge(*ends, np.zeros((1, 1), np.int32), np.full((1, 1), side, np.int8))
        check(checker, given, np.random.default_rng(0), 30, start)


@precisely
@everywhere
@pytest.mark.parametrize("name", ["splits that cancel", "random 1", "random 2", "cancelling weights"])
def test_neurons_that_are_split_several_times(name, instruction_set, double):
    """On the same side, and on both, where only points with a value of zero are left."""
    checker, rng = Checker(made(name), instruction_set, double), np.random.default_rng(9)
    for both in (False, True):
        given = checker.splits_through(rng, True, most=3)
        sides = np.concatenate([given.side, given.side, -given.side if both else given.side], axis=1)
        given = replace(given, split=np.tile(given.split, (1, 3)), side=sides)
        for start in ("large", "random", "none"):
            check(checker, given, rng, 7, start)


@precisely
@everywhere
def test_a_kink_between_both_sides_of_a_split(instruction_set, double):
    """At zero both sides hold: large multipliers cancel, and the bound must not exceed the value there."""
    graph = chain(2, ([[1, 0.1], [0.3, 1]], [0, 0]), ([[1, -1], [-1, 0.7]], [1 / 3, -0.1]))
    checker = Checker(dense(graph, *boxes((-1, 1), (-3, 0.1), (0, 1))), instruction_set, double)
    none_known = Knowledge.none(3, 2)
    split = np.tile(np.array([0, 0, 1, 1, 0], np.int32), (3, 1))
    side = np.tile(np.array([1, -1, 1, -1, 1], np.int8), (3, 1))
    given = replace(none_known, split=split, side=side)
    zero = np.zeros((3, 2)), np.arange(3)
    for start in STARTS:
        check(checker, given, np.random.default_rng(1), 30, start, points=zero)


# Ascent helps, and does nothing else.


def bounded_twice(name, instruction_set, double, rng, clamped, **more):
    """Bounds without and with ascent."""
    checker = Checker(made(name), instruction_set, double)
    given = splits_of(checker, rng, clamped)
    ascent = ascent_of(checker, given, rng, 20)
    return checker, given, checker.bound(given, **more), checker.bound(given, ascent=ascent, **more), ascent


@precisely
@everywhere
@pytest.mark.parametrize("name", [*ALL])
def test_ascent_never_loosens_a_bound(name, instruction_set, double):
    """Operands of two ReLUs are left out: both share one place for alpha, so the best can't be kept."""
    operands = [n.source for n in made(name).graph.nodes if isinstance(n, Rectifier)]
    if len(set(operands)) < len(operands):
        pytest.skip("two ReLUs with the same operand")
    for clamped in (False, True):
        rng = np.random.default_rng(2)
        _, _, (plain, known), (found, known_there), _ = bounded_twice(
            name, instruction_set, double, rng, clamped
        )
        assert (found.value >= plain.value).all()
        assert (found.empty == plain.empty).all() and (found.unstable == plain.unstable).all()
        assert np.array_equal(known, known_there)


@precisely
def test_ascent_raises_most_bounds_of_deep_networks(double):
    raised = []
    for name in RANDOM:
        rng = np.random.default_rng(3)
        _, _, (plain, _), (found, _), _ = bounded_twice(name, SETS[-1], double, rng, True)
        unstable = plain.unstable > 0
        raised.append((found.value[unstable, :2] > plain.value[unstable, :2]).ravel())
    assert np.concatenate(raised).mean() > 0.5


@precisely
@everywhere
@pytest.mark.parametrize("name", [*OWN, *RANDOM])
def test_rows_beyond_their_goal_stay_as_they_are(name, instruction_set, double):
    checker, rng = Checker(made(name), instruction_set, double), np.random.default_rng(4)
    given = splits_of(checker, rng, True)
    plain, _ = checker.bound(given)
    ascent = ascent_of(checker, given, rng, 30, "random", goal=-inf)
    found, _ = checker.bound(given, ascent=ascent)
    finite = np.isfinite(plain.value)
    assert np.array_equal(plain.value[finite], found.value[finite])
    bounded = finite & (plain.empty == 0)[:, None]
    real = np.broadcast_to((given.split >= 0)[:, None], ascent.beta.shape)
    assert (ascent.beta[bounded][real[bounded]] == 0).all()


@precisely
@everywhere
@pytest.mark.parametrize("name", [*OWN, *RANDOM, "skips 1", "zeros everywhere"])
def test_the_best_neuron_can_be_split(name, instruction_set, double):
    checker, rng = Checker(made(name), instruction_set, double), np.random.default_rng(5)
    given, seen = splits_of(checker, rng, True), 0
    for ahead in (0, 1, 2, 40):
        found, known = checker.bound(given, ascent=replace(ascent_of(checker, given, rng, 7), ahead=ahead))
        open_ = (known[0] < 0) & (known[1] > 0)
        for b, neurons in enumerate(found.best_neuron):
            chosen = neurons[neurons >= 0]
            assert (neurons >= -1).all() and open_[b, chosen].all()
            assert not np.isin(chosen, given.split[b]).any()
            seen += len(chosen)
    assert seen or not open_.any()


@everywhere
@pytest.mark.parametrize("name", [*OWN, *RANDOM])
def test_boxes_without_backward_rows_are_not_tighter(name, instruction_set):
    """Up to rounding, which differs."""
    checker, rng = Checker(made(name), instruction_set, True), np.random.default_rng(6)
    given = splits_of(checker, rng, True)
    (fine, near), (rough, far) = (checker.bound(given, refine=refine) for refine in (True, False))
    both = (fine.empty == 0) & (rough.empty == 0)
    assert both.any() and not (rough.empty > fine.empty).any()
    slack = 1e-9 * (1 + np.abs(np.array(near)))[:, both]
    assert (far[0][both] <= near[0][both] + slack[0]).all()
    assert (far[1][both] >= near[1][both] - slack[1]).all()


@precisely
@everywhere
@pytest.mark.parametrize("name", [*OWN, "random 1", "random 4"])
def test_only_the_first_splits_give_half_spaces(name, instruction_set, double):
    checker, rng = Checker(made(name), instruction_set, double), np.random.default_rng(7)
    given = checker.splits_through(rng, True, most=3)
    width = given.split.shape[1]
    whole, _ = checker.bound(given)
    for cuts in range(width + 1):
        for ascent in (None, ascent_of(checker, given, rng, 3)):
            found, _ = checker.bound(given, ascent=ascent, cuts=cuts)
            assert (found.split_height[:, cuts:] == -inf).all()
            assert np.array_equal(found.split_height[:, :cuts], whole.split_height[:, :cuts])


@precisely
@everywhere
def test_results_do_not_depend_on_threads(instruction_set, double):
    for name in ("random 1", "random 4", "one input and many splits"):
        results = []
        for threads in (1, 3):
            checker, rng = Checker(made(name), instruction_set, double), np.random.default_rng(8)
            given = splits_of(checker, rng, True)
            ascent = ascent_of(checker, given, rng, 7, "random")
            results.append((checker.bound(given, threads, ascent=ascent)[0], ascent))
        (one, first), (other, second) = results
        same(one, other)
        assert np.array_equal(first.alpha, second.alpha) and np.array_equal(first.beta, second.beta)


# These tests notice wrong multipliers.


@precisely
@pytest.mark.parametrize("name", ["copies of a split", "one input and many splits", "random 1", "random 3"])
def test_multipliers_of_splits_matter(name, double):
    """Some bound needs one: it is higher than without, and wrong on the other side of the split."""
    checker, better, wrong = Checker(made(name), SETS[-1], double), 0, 0
    for seed in range(6):
        rng = np.random.default_rng(seed)
        given = checker.splits_through(rng, True)
        ascent = ascent_of(checker, given, rng, 30)
        found, _ = check(checker, given, rng, 30, "none")
        checker.bound(given, ascent=ascent)
        nothing = replace(given, split=np.full_like(given.split, -1))
        without, _ = checker.bound(nothing, ascent=ascent_of(checker, given, rng, 30))
        used = (ascent.beta > 0).any(axis=2) & (found.value > without.value + 1e-3 * np.abs(without.value))
        better += int(used.sum())
        flipped = replace(Knowledge.none(*given.lower.shape), split=given.split, side=-given.side)
        turned, _ = checker.bound(flipped, ascent=ascent_of(checker, given, rng, 30))
        forms = checker.case.values[0][-1]
        points, owner = checker.case.points
        holds = holding(checker, given, points, owner) & (turned.empty[owner] == 0)
        wrong += sum(
            turned.value[owner[m], r] > forms.fraction(m, r)
            for m in np.flatnonzero(holds)
            for r in range(checker.case.forms)
        )
    assert better and wrong


# The multipliers give the same bounds elsewhere.


def multipliers_in_network(network, kernel, ascent, split):
    """Of all subproblems, in the shapes of the network; as `DenseSearch` records them."""
    count, rows = ascent.alpha.shape[:2]
    alpha, beta = {}, {}
    for k, value in kernel.graph.values.items():
        shape = network.nodes[value].shape
        part = slice(kernel.offsets[k], kernel.offsets[k] + int(np.prod(shape)))
        for relu in (n for n in network.activations if network.nodes[n].inputs[0] == value):
            alpha[relu] = ascent.alpha[:, :, part].reshape(count, rows, *shape).astype(np.float64)
        beta[value] = np.zeros((count, rows, part.stop - part.start))
        for b in range(count):
            for s in np.flatnonzero((split[b] >= part.start) & (split[b] < part.stop)):
                beta[value][b, :, split[b, s] - part.start] = ascent.beta[b, :, s]
        beta[value] = beta[value].reshape(count, rows, *shape)
    return Multipliers(alpha, beta)


@precisely
@everywhere
@pytest.mark.parametrize("sizes", [(3, 20, 2), (4, 17, 12, 2), (20, 30, 1), (2, 9, 9, 9, 3)], ids=str)
@pytest.mark.parametrize("seed", range(3))
def test_numpy_finds_the_same_bounds_with_the_multipliers(seed, sizes, instruction_set, double):
    model, rng = random_dense(seed, sizes), np.random.default_rng(seed)
    atoms = " ".join(f"(<= Y_{i} -1000)" for i in range(sizes[-1]))
    body = box_assertions([-2] * sizes[0], [2] * sizes[0]) + f"(assert (or {atoms} (<= Y_0 (+ X_0 -1000))))"
    problem = compile_problem(model.network, query_of(model, body))
    centre, radius = rng.uniform(-1, 1, (6, sizes[0])), 10.0 ** rng.uniform(-1, 0, (6, 1))
    checker = Checker(
        Plain(condense(problem.network), centre - radius, centre + radius), instruction_set, double
    )
    given = checker.splits_through(rng, True)
    ascent = ascent_of(checker, given, rng, 30)
    found, known = checker.bound(given, ascent=ascent)
    assert (
        not found.empty.any()
        and (ascent.beta[given.split[:, None].repeat(ascent.beta.shape[1], 1) >= 0] > 0).any()
    )
    theirs, rows = bounded_by_numpy(problem, checker, given, ascent, known)
    scale = np.abs(theirs).max(axis=1, keepdims=True) + 1
    assert (np.abs(np.take_along_axis(found.value, rows, axis=1) - theirs) / scale).max() < (
        1e-6 if double else 1e-3
    )


def bounded_by_numpy(problem, checker, given, ascent, known):
    """Bounds of the rows of each subproblem with the multipliers that the kernel returned."""
    places = [(k, j) for _, k in sorted((f, k) for k, f in checker.kernel.offsets.items())
              for j in range(checker.case.graph.nodes[k - 1].width)]  # fmt: skip
    items = []
    for b in range(len(given.split)):
        boxes_there = {}
        for k, value in checker.kernel.graph.values.items():
            shape, first = problem.network.nodes[value].shape, checker.kernel.offsets[k]
            part = slice(first, first + int(np.prod(shape)))
            boxes_there[value] = tuple(end[b, part].reshape(shape) for end in known)
        pairs = [(places[n], s > 0) for n, s in zip(given.split[b], given.side[b], strict=True) if n >= 0]
        splits = tuple(NeuronSplit(checker.kernel.graph.values[k], j, bool(up)) for (k, j), up in pairs)
        items.append(Subproblem(0, 0, checker.case.lower[b], checker.case.upper[b], boxes_there, splits))
    arithmetic = double_precision(problem)
    rows = np.broadcast_to(np.arange(checker.case.forms), (len(items), checker.case.forms))
    warm = multipliers_in_network(problem.network, checker.kernel, ascent, given.split)
    warm = warm.rows((slice(None), slice(checker.case.forms)))
    there = evaluate(problem, arithmetic, make_batch(items, arithmetic), Effort("ibp"), warm, rows)
    return np.asarray(there.linear.concretize(there.frame.boxes[0])), rows
