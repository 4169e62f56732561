"""Branch and bound over phases: the exact minimum, whatever the solver claims; its trees are proofs."""

import threading
import time
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from types import SimpleNamespace

import numpy as np
import pytest
from bounds.test_lp import case
from enumeration import dense_network, random_layers, regional

from lpverify.bounds.phase_proof import AlternativePrograms, holds
from lpverify.bounds.phases import big_m, minimising, with_phases
from lpverify.bounds.safe import safe_bound
from lpverify.config import Deadline
from lpverify.errors import SolverError
from lpverify.proof import PhaseTree
from lpverify.search.phases import PhaseSearch
from lpverify.solvers.base import LpAnswer, LpStatus
from lpverify.solvers.highs import Highs
from lpverify.solvers.highs_session import HighsSession

LONG = 30.0


@dataclass(frozen=True)
class Setting:
    """One output of a network over a box, to be minimised."""

    layers: list
    low: np.ndarray
    high: np.ndarray

    @cached_property
    def network(self):
        return dense_network(self.layers)

    @cached_property
    def frame(self):
        return regional(self.network, self.low, self.high, "ibp")[0]

    @cached_property
    def programs(self):
        return AlternativePrograms(self.frame, SimpleNamespace(forms=np.array([0]), bounds=np.zeros(1)))

    @cached_property
    def program(self):
        region = self.programs.region
        return minimising(with_phases(region), *region.objective(self.network.output, np.array([[1.0, 0.0]])))

    def candidate(self, x):
        values = self.network.evaluate(np.clip(x, self.low, self.high)[None])
        return float(values[-1][0, 0]), self.program[0].signs_at(self.network, values)

    def search(self, target=-np.inf, gap=np.inf, tree=None):
        program, constant = self.program
        return PhaseSearch(program, constant, target, self.candidate, gap, tree)


def small(seed):
    """With its exact minimum."""
    layers, low, high, minima = case(seed)
    return Setting(layers, low, high), minima[0]


def larger(seed):
    """Some hundred nodes."""
    rng = np.random.default_rng(seed)
    centre = 0.3 * rng.normal(size=4)
    return Setting(random_layers(rng, (4, 12, 10, 2)), centre - 0.5, centre + 0.5)


def close(found, expected):
    return found == pytest.approx(float(expected), rel=1e-6, abs=1e-6)


def assert_proves(setting, tree, target):
    """Each leaf's bound, from its multipliers alone, is above the target."""
    program, constant = setting.program
    assert tree.complete()
    for leaf, (rows, values) in tree.multipliers.items():
        lp = program.fixed(tree.signs(leaf, len(program.node)))
        multipliers = np.zeros(len(lp.row_lower))
        multipliers[rows] = values
        bound = np.nextafter(safe_bound(lp, multipliers).value + constant, -np.inf)
        assert bound > target or safe_bound(lp, multipliers, np.zeros(len(lp.cost))).value > 0


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(40))
def test_the_minimum_is_the_exact_one(seed, threads):
    setting, minimum = small(seed)
    search = setting.search(gap=1e-8)
    search.run(Deadline.after(LONG), threads)
    assert search.finished and search.open == 0
    assert Fraction(search.lower) <= minimum and close(search.lower, minimum)
    assert search.best >= float(minimum) - 1e-9 and close(search.best, minimum)


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("seed", range(25))
def test_a_target_below_the_minimum_is_proven(seed, threads):
    setting, minimum = small(seed)
    for share in (1e-7, 1e-2, 1.0):
        target, tree = float(minimum) - share * (1 + abs(float(minimum))), PhaseTree((0,))
        search = setting.search(target, tree=tree)
        search.run(Deadline.after(LONG), threads)
        assert search.finished and target < search.lower and Fraction(search.lower) <= minimum
        assert_proves(setting, tree, target)
        case_ = SimpleNamespace(forms=np.array([0]), bounds=np.array([target]))
        assert holds(AlternativePrograms(setting.frame, case_), tree)


@pytest.mark.parametrize("seed", range(15))
def test_a_target_above_the_minimum_is_not(seed):
    setting, minimum = small(seed)
    for share in (1e-9, 1e-3, 1.0):
        target, tree = float(minimum) + share * (1 + abs(float(minimum))), PhaseTree((0,))
        search = setting.search(target, tree=tree)
        search.run(Deadline.after(LONG))
        assert not search.finished and search.open and Fraction(search.lower) <= minimum
        case_ = SimpleNamespace(forms=np.array([0]), bounds=np.array([target]))
        assert not holds(AlternativePrograms(setting.frame, case_), tree)


@pytest.mark.parametrize("seed", range(6))
def test_larger_networks_agree_with_mixed_integer_programs(seed):
    setting = larger(seed)
    program, constant = setting.program
    answer = Highs().solve(big_m(program), LONG)
    lowers = []
    for threads in (1, 2, 3):
        search = setting.search(gap=1e-8)
        search.run(Deadline.after(LONG), threads)
        assert search.finished
        lowers.append(search.lower)
    assert max(lowers) - min(lowers) <= 1e-7 and lowers[0] == pytest.approx(answer.bound + constant, abs=1e-5)
    tree = PhaseTree((0,))
    search = setting.search(lowers[0] - 1e-4, tree=tree)
    search.run(Deadline.after(LONG), 2)
    assert_proves(setting, tree, search.target)


@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.01, 0.03])
@pytest.mark.parametrize("threads", [1, 2])
def test_the_deadline_leaves_a_bound_that_holds(threads, seconds):
    setting = larger(3)
    whole, search = setting.search(gap=1e-8), setting.search(gap=1e-8)
    whole.run(Deadline.after(LONG))
    start = time.monotonic()
    search.run(Deadline.after(seconds), threads)
    assert time.monotonic() - start < seconds + 1.0
    assert search.lower <= whole.best
    if not search.finished:
        assert search.open
        search.run(Deadline.after(LONG), threads)
    assert search.finished and search.lower == pytest.approx(whole.lower, abs=1e-7)


def test_interruptions_lose_nothing():
    """Turns of a node each."""
    turns = 0
    for seed in range(4):
        setting, tree = larger(seed), PhaseTree((0,))
        whole = setting.search(gap=1e-8)
        whole.run(Deadline.after(LONG))
        search = setting.search(whole.lower - 1e-5, tree=tree)
        while not search.finished:
            before, stop = search.lower, search.nodes + 1
            search.run(Deadline.after(LONG), enough=lambda s=search, stop=stop: s.nodes >= stop)
            assert search.nodes > stop - 1 and before - 1e-9 <= search.lower <= whole.best
            turns += 1
        assert_proves(setting, tree, search.target)
    assert turns > 20


def test_the_share_that_is_closed_ends_at_one():
    for seed in range(5):
        search = larger(seed).search(gap=1e-6)
        search.run(Deadline.after(LONG))
        assert search.finished and search.volume == pytest.approx(1.0)


@pytest.mark.parametrize("error", [ZeroDivisionError, MemoryError, KeyboardInterrupt])
@pytest.mark.parametrize("threads", [1, 3])
def test_a_failure_in_a_worker_is_raised(threads, error):
    """No node may get lost with its worker, and the search stays without a result."""
    setting, main = larger(3), threading.main_thread()
    search = setting.search(gap=1e-8)

    def candidate(x):
        if threads == 1 or threading.current_thread() is not main:
            raise error
        time.sleep(0.02)  # so that the others find nodes
        return setting.candidate(x)

    search.candidate = candidate
    for _ in range(2):
        with pytest.raises(error):
            search.run(Deadline.after(LONG), threads)


@pytest.mark.parametrize("method", ["_take", "_push", "_close"])
def test_a_failure_anywhere_in_a_worker_is_raised(method, monkeypatch):
    """Also between nodes; nobody waits for a worker that is gone."""
    search, main = larger(3).search(gap=1e-8), threading.main_thread()
    original = getattr(PhaseSearch, method)

    def fail(self, *arguments):
        if threading.current_thread() is not main:
            raise MemoryError
        time.sleep(0.01)
        return original(self, *arguments)

    monkeypatch.setattr(PhaseSearch, method, fail)
    start = time.monotonic()
    with pytest.raises(MemoryError):
        search.run(Deadline.after(LONG), 3)
    assert time.monotonic() - start < LONG / 2


def test_fewer_threads_than_wanted_find_the_same(monkeypatch):
    setting = larger(3)
    whole, search = setting.search(gap=1e-8), setting.search(gap=1e-8)
    whole.run(Deadline.after(LONG))
    original, count = threading.Thread.start, []

    def start(self):
        count.append(self)
        if len(count) != 2:
            raise RuntimeError("can't start new thread")
        original(self)

    monkeypatch.setattr(threading.Thread, "start", start)
    search.run(Deadline.after(LONG), 4)
    assert len(count) == 3
    assert search.finished and search.lower == pytest.approx(whole.lower, abs=1e-7)


# Solvers that fail.


def nothing(answer, rng):
    return LpAnswer(LpStatus.LIMIT, None, None, 0.0)


def error(answer, rng):
    raise SolverError("broken")


def false_ray(answer, rng):
    rows = len(answer.row_dual) if answer.row_dual is not None else 1
    return LpAnswer(LpStatus.INFEASIBLE, None, 10.0 ** rng.uniform(-3, 6) * rng.normal(size=rows), 0.0)


def unbounded(answer, rng):
    return LpAnswer(LpStatus.UNBOUNDED, None, None, 0.0)


def no_numbers(answer, rng):
    primal = None if answer.primal is None else np.full_like(answer.primal, np.nan)
    return replace(
        answer, primal=primal, row_dual=None if answer.row_dual is None else answer.row_dual * np.nan
    )


def other_duals(answer, rng):
    if answer.row_dual is None:
        return answer
    return replace(answer, row_dual=10.0 ** rng.uniform(-3, 9) * rng.normal(size=len(answer.row_dual)))


def noisy_duals(answer, rng):
    if answer.row_dual is None:
        return answer
    return replace(answer, row_dual=answer.row_dual * (1 + 1e-3 * rng.normal(size=len(answer.row_dual))))


def other_primal(answer, rng):
    return (
        answer if answer.primal is None else replace(answer, primal=rng.normal(size=len(answer.primal)) * 1e3)
    )


FAILURES = (nothing, error, false_ray, unbounded, no_numbers, other_duals, noisy_duals, other_primal)


@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("failure", FAILURES, ids=lambda f: f.__name__)
def test_no_claim_of_the_solver_is_believed(failure, share, monkeypatch):
    """Nodes may stay open; but bounds hold, and trees that claim to be complete are proofs."""
    solve, rng = HighsSession.solve, np.random.default_rng(1)

    def broken(self, seconds, cutoff=None, primal_simplex=False):
        answer = solve(self, seconds, cutoff, primal_simplex)
        return failure(answer, rng) if rng.random() < share else answer

    monkeypatch.setattr(HighsSession, "solve", broken)
    for seed in range(8):
        setting, minimum = small(seed)
        search = setting.search(gap=1e-8)
        search.run(Deadline.after(LONG))
        assert Fraction(search.lower) <= minimum if np.isfinite(search.lower) else search.lower == -np.inf
        for side in (-1, 1):
            target, tree = float(minimum) + side * 1e-3, PhaseTree((0,))
            search = setting.search(target, tree=tree)
            search.run(Deadline.after(LONG))
            if search.finished:
                assert side < 0
                assert_proves(setting, tree, target)


def test_a_program_that_the_solver_refuses(monkeypatch):
    setting, _ = small(0)

    def refusing(self, lp):
        raise SolverError("numbers beyond the solver")

    monkeypatch.setattr(HighsSession, "__init__", refusing)
    search = setting.search(gap=1e-8)
    search.run(Deadline.after(LONG), 2)
    assert not search.finished and search.open and search.lower == -np.inf


# Trees that are not complete.


def random_tree(rng):
    """Complete: each leaf has a multiplier."""
    tree, leaves = PhaseTree((0,)), [0]
    for _ in range(int(rng.integers(1, 9))):
        at, neuron = leaves.pop(int(rng.integers(len(leaves)))), int(rng.integers(4))
        leaves += [tree.add(at, neuron, sign) for sign in rng.permutation([1, -1]).tolist()]
    for leaf in leaves:
        tree.close(leaf, np.ones(2))
    return tree


def some_child(tree, rng):
    return int(rng.integers(1, len(tree.parent)))


def missing_child(tree, rng):
    at = int(rng.choice([i for i in tree.multipliers if i]))
    del tree.multipliers[at]
    tree.parent[at] = -1


def open_leaf(tree, rng):
    del tree.multipliers[int(rng.choice(list(tree.multipliers)))]


def leaf_with_children(tree, rng):
    tree.close(tree.parent[some_child(tree, rng)], np.ones(2))


def child_used_twice(tree, rng):
    at = some_child(tree, rng)
    tree.close(tree.add(tree.parent[at], tree.neuron[at], tree.sign[at]), np.ones(2))


def other_neuron(tree, rng):
    tree.neuron[some_child(tree, rng)] += 1


def same_sign(tree, rng):
    tree.sign[some_child(tree, rng)] *= -1


def no_sign(tree, rng):
    tree.sign[some_child(tree, rng)] = int(rng.choice([0, 2, -3]))


def parent_behind(tree, rng):
    at = some_child(tree, rng)
    tree.parent[at] = int(rng.integers(at, len(tree.parent) + 2))


def parent_before_all(tree, rng):
    tree.parent[some_child(tree, rng)] = -int(rng.integers(1, 3))


def adopted(tree, rng):
    """A child moves to another node, if there is one before it."""
    at = some_child(tree, rng)
    tree.parent[at] = (tree.parent[at] + 1) % at if at > 1 else -1


def only_child(tree, rng):
    at = int(rng.choice(list(tree.multipliers)))
    del tree.multipliers[at]
    tree.close(tree.add(at, 0, 1), np.ones(2))


def no_nodes(tree, rng):
    for column in (tree.parent, tree.neuron, tree.sign, tree.multipliers):
        column.clear()


DAMAGE = (
    missing_child,
    open_leaf,
    leaf_with_children,
    child_used_twice,
    other_neuron,
    same_sign,
    no_sign,
    parent_behind,
    parent_before_all,
    adopted,
    only_child,
    no_nodes,
)


@pytest.mark.parametrize("damage", DAMAGE, ids=lambda f: f.__name__)
def test_damaged_trees_are_not_complete(damage):
    for seed in range(60):
        rng = np.random.default_rng(seed)
        tree = random_tree(rng)
        assert tree.complete()
        damage(tree, rng)
        assert not tree.complete(), seed


def test_circles_beside_the_root_are_not_complete():
    """Each has both phases below it or is a leaf, but whoever walks up from one never arrives."""
    tree = PhaseTree((0,), parent=[-1, 2, 1, 1, 2], neuron=[-1, 0, 0, 0, 0], sign=[0, 1, 1, -1, -1])
    for leaf in (0, 3, 4):
        tree.close(leaf, np.ones(2))
    assert not tree.complete()
