"""Search over phases of reduced networks: verdicts against exact cells, proofs that check, tampered ones."""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import pairwise

import numpy as np
import oracle
import pytest
from helpers import box_assertions, dense_model, query_of
from oracle import Tree as Formula
from oracle import row

from lpverify.bounds.evaluate import Arithmetic, double_precision
from lpverify.bounds.reduce import reduce
from lpverify.bounds.subproblem import Subproblem
from lpverify.check import check_proof
from lpverify.config import Config, Deadline
from lpverify.interval import Box
from lpverify.io.onnx import Model, import_model
from lpverify.io.vnnlib import parse_query
from lpverify.multipliers import Effort, Multipliers
from lpverify.problem import Problem, compile_problem
from lpverify.proof import Leaf, Proof, Reduction
from lpverify.query import Query
from lpverify.replay import Replayer
from lpverify.search.engines import numpy_float32, torch_float32
from lpverify.search.reduced import ReducedSearch
from lpverify.search.tree import Tree
from lpverify.solvers.base import LpAnswer, LpStatus
from lpverify.solvers.highs import Highs
from lpverify.verdict import Sat, Timeout, Unsat, Verdict
from lpverify.verify import verify_query

ARITHMETICS: dict[str, Callable[[Problem], Arithmetic]] = {
    "double": double_precision,
    "numpy32": lambda problem: numpy_float32(problem, 2**18),
    "torch32": lambda problem: torch_float32(problem, 2**18),
}
SIZES = ((2, 5, 4, 2), (2, 4, 3, 3, 2), (3, 5, 4, 2), (3, 4, 3, 2, 2))
WIDE = (Fraction(-1), Fraction(1))

# Instances: many inputs, of which the first layer reads a few sums over disjoint sets; those fill a box.


@dataclass(frozen=True)
class Instance:
    """A network and a query; `layers` and `formula` are the same with the sums as inputs."""

    model: Model
    query: Query
    layers: oracle.Layers
    formula: Formula

    @property
    def problem(self) -> Problem:
        return compile_problem(self.model.network, self.query)

    @property
    def answer(self) -> oracle.Answer:
        return oracle.decide(self.layers, self.formula, 4000)


@dataclass(frozen=True)
class Source:
    """A random network, its box, whole and for the sums, and the exact ranges of its outputs."""

    model: Model
    layers: oracle.Layers
    inputs: tuple[tuple[Fraction, Fraction], ...]
    sums: tuple[tuple[Fraction, Fraction], ...]
    ranges: tuple[tuple[Fraction, Fraction], ...]

    def instance(self, condition: Callable[[int], Formula | oracle.Row]) -> Instance:
        """`condition` gets the number of the first output."""
        count, few = len(self.inputs), len(self.sums)
        whole = Formula("and", (*oracle.box_rows(self.inputs), condition(count)))
        small = Formula("and", (*oracle.box_rows(self.sums), condition(few)))
        text = oracle.vnnlib_text(whole, count, len(self.ranges))
        return Instance(self.model, parse_query(text), self.layers, small)

    def below(self, first: int, output: int, share: float) -> oracle.Row:
        """`Y <= minimum + share of the range`; for shares above 2 `Y >= maximum - (share - 2)`."""
        low, high = self.ranges[output]
        if share > 2:
            return row({first + output: -1}, Fraction(share - 2) * (high - low) - high)
        return row({first + output: 1}, low + Fraction(share) * (high - low))


@cache
def source(seed: int) -> Source:
    rng = np.random.default_rng(seed)
    sizes = SIZES[seed % len(SIZES)]
    layers = [
        tuple(
            np.rint(16 * v).astype(np.float32) / 16
            for v in (rng.normal(size=(b, a)), 0.5 * rng.normal(size=b))
        )
        for a, b in pairwise(sizes)
    ]
    count = int(rng.integers(6, 31))
    owner = np.concatenate([np.arange(sizes[0]), rng.integers(0, sizes[0], count - sizes[0])])
    sums = np.zeros((sizes[0], count), np.float32)
    sums[owner, np.arange(count)] = rng.choice([0.5, -0.5, 0.25, -0.25, 0.125], count)
    inputs = tuple((Fraction(1, 2),) * 2 if rng.random() < 0.1 else WIDE for _ in range(count))
    spans = [
        [[Fraction(float(w)) * e for e in x] for w, x in zip(line, inputs, strict=True)] for line in sums
    ]
    ends = tuple((sum(map(min, span)), sum(map(max, span))) for span in spans)
    whole = [(layers[0][0] @ sums, layers[0][1]), *layers[1:]]
    signs = [{sizes[0] + i: s} for i in range(sizes[-1]) for s in (1, -1)]
    found = [oracle.minimum(layers, ends, s, 4000) for s in signs]
    ranges = tuple((found[i], -found[i + 1]) for i in range(0, len(found), 2))
    return Source(import_model(oracle.onnx_bytes(whole)), layers, inputs, ends, ranges)


def single(s: Source, share: float) -> Instance:
    return s.instance(lambda first: s.below(first, 0, share))


def together(s: Source, *shares: float) -> Instance:
    return s.instance(lambda first: Formula("and", tuple(s.below(first, i, v) for i, v in enumerate(shares))))


def either(s: Source, *pairs: tuple[float, float]) -> Instance:
    """Alternatives of two atoms each."""

    def condition(first: int) -> Formula:
        parts = (tuple(s.below(first, i, v) for i, v in enumerate(pair)) for pair in pairs)
        return Formula("or", tuple(Formula("and", part) for part in parts))

    return s.instance(condition)


# Runs.


def search_of(item: Instance, kind: str = "double", ascent: int = 0) -> ReducedSearch:
    problem, tree, effort = item.problem, Tree(True), Effort("crown", ascent=ascent)
    box, arithmetic = problem.cases[0].box, ARITHMETICS[kind](problem)
    root = Subproblem(tree.root(0), 0, box.lower, box.upper)
    tree.bounded(root.node, Effort("ibp"), False)
    tree.reductions[0] = (effort,)
    reduced = reduce(problem, arithmetic, arithmetic.box(box.lower[None], box.upper[None]), effort)
    return ReducedSearch(problem, root, reduced, Replayer(item.model, problem), tree, Highs())


def verified(item: Instance, seconds: float = 20.0) -> Verdict:
    deadline = Deadline.after(seconds)
    config = Config(deadline=deadline, input_split_limit=0, record_proof=True, threads=1, attack_share=0.01)
    return verify_query(item.model, item.query, config)


def assert_agrees(item: Instance, verdict: Verdict) -> None:
    answer = item.answer
    assert answer.exact
    if isinstance(verdict, Unsat):
        assert answer.verdict == "unsat"
        report = check_proof(item.problem, verdict.proof)
        assert report.valid, report.failures
    elif isinstance(verdict, Sat):
        assert answer.verdict == "sat" or answer.close
    else:
        assert answer.close, "undecided"


@pytest.mark.parametrize("kind", ARITHMETICS)
@pytest.mark.parametrize("start", range(0, 4, 2))
def test_one_atom(start: int, kind: str) -> None:
    """Far from the exact minimum and near it; exactly at it there is a counterexample."""
    for seed in range(start, start + 2):
        s = source(seed)
        for share in (-0.05, -1e-4, 1e-3):
            item = single(s, share)
            assert_agrees(item, search_of(item, kind, ascent=3 * (seed % 2)).run(Deadline.after(20)))
        exact = search_of(single(s, 0.0), kind).run(Deadline.after(0.2))
        assert not isinstance(exact, Unsat)


@pytest.mark.parametrize("kind", ARITHMETICS)
@pytest.mark.parametrize("start", range(0, 4, 2))
def test_several_atoms(start: int, kind: str) -> None:
    """Conjunctions that bounds of single rows don't refute, and alternatives of them."""
    for seed in range(start, start + 2):
        s, rng = source(seed), np.random.default_rng(seed)
        for shares in ((0.1, 0.1), (0.2, 2.1), (0.3, 0.3)):
            item = together(s, *shares)
            assert_agrees(item, search_of(item, kind).run(Deadline.after(20)))
        pairs = [(float(rng.choice([0.05, 2.05])), float(rng.choice([0.02, 2.02, -0.01]))) for _ in range(4)]
        item = either(s, *pairs)
        assert_agrees(item, search_of(item, kind, ascent=2).run(Deadline.after(20)))


@pytest.mark.parametrize("start", range(0, 10, 5))
def test_the_ladder(start: int) -> None:
    for seed in range(100 + start, 105 + start):
        s = source(seed)
        for item in (
            single(s, (-0.02, -1e-3, 1e-3)[seed % 3]),
            together(s, 0.1, (0.1, 2.1)[seed % 2]),
            either(s, (0.02, 0.02), (2.02, 0.02), (-1e-3, 0.9)),
        ):
            assert_agrees(item, verified(item))


def reductions(verdict: Verdict) -> list[Reduction]:
    return [n.leaf.reduction for n in verdict.proof.nodes if n.leaf is not None and n.leaf.reduction]


def test_proofs_are_about_reduced_networks() -> None:
    """With more than a root, and fewer neurons than the network has."""
    splits = kept = neurons = 0
    for seed in range(8):
        verdict = search_of(single(source(seed), -1e-3)).run(Deadline.after(20))
        assert isinstance(verdict, Unsat)
        (found,) = reductions(verdict)
        splits += len(found.proof.nodes) - 1
        kept += sum(map(len, found.kept.values()))
        neurons += sum(SIZES[seed % len(SIZES)][1:-1])
    assert splits > 40 and 0 < kept < neurons


def test_linear_programs_decide_what_is_left() -> None:
    """Two atoms that can't hold together: without unstable neurons row bounds don't say so."""
    found = []
    for seed in range(12):
        search = search_of(together(source(seed), 0.1, 0.1))
        found.append((search.run(Deadline.after(20)), search.leaves))
    closed = [v for v, leaves in found if leaves is not None and isinstance(v, Unsat)]
    assert closed
    assert any(n.leaf and n.leaf.combinations for v in closed for n in reductions(v)[0].proof.nodes)


@pytest.mark.parametrize("offset", [0.0, 200.0])
def test_networks_without_unstable_neurons(offset: float) -> None:
    """No hidden layers at all, or only active neurons in them; two atoms, so that rows don't decide."""
    rng = np.random.default_rng(0)
    parts = ((20, 5, offset), (5, 5, 25 * offset), (5, 2, 0.0))[: 3 if offset else 1]
    model = dense_model([(rng.normal(size=(a, b)), np.full(b, c)) for a, b, c in parts])
    y = model.network(rng.uniform(-1, 1, (20_000, 20)))[:, :2]
    low, middle, spread = y.min(axis=0), y.mean(axis=0), np.ptp(y, axis=0)
    for bound, wanted in ((middle.sum(), Sat), (middle.sum() + spread.sum(), Unsat)):
        body = f"(assert (>= (+ Y_0 Y_1) {bound:.6f}))(assert (<= Y_0 {low[0] + 0.4 * spread[0]:.6f}))"
        query = query_of(model, box_assertions([-1] * 20, [1] * 20) + body)
        item = Instance(model, query, [], Formula("and", ()))
        search = search_of(item)
        assert not any(map(len, search.reduced.kept.values()))
        for verdict in (search.run(Deadline.after(20)), verified(item)):
            assert isinstance(verdict, wanted)
            assert wanted is Sat or check_proof(item.problem, verdict.proof).valid


# Time.


def test_no_time() -> None:
    item = single(source(1), -1e-3)
    for verdict in (search_of(item).run(Deadline.after(0)), verified(item, 0.0)):
        assert isinstance(verdict, Timeout)
    assert search_of(item).run(Deadline.after(0)).progress.open > 0


@pytest.mark.parametrize("kind", ARITHMETICS)
def test_runs_can_be_resumed(kind: str) -> None:
    timeouts = 0
    for seed in (1, 3, 5):
        for item in (single(source(seed), -1e-3), together(source(seed), 0.1, 0.1)):
            search, volume, verdict = search_of(item, kind), 0.0, None
            while verdict is None or isinstance(verdict, Timeout):
                verdict = search.run(Deadline.after(20), rounds=1)
                assert search.volume >= volume
                volume, timeouts = search.volume, timeouts + isinstance(verdict, Timeout)
            assert_agrees(item, verdict)
            assert volume == 1.0 or not isinstance(verdict, Unsat)
    assert timeouts > 10


def test_a_program_that_runs_out_of_time_is_looked_at_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first one takes all there is: no verdict, and nothing is lost."""
    item, solve, calls = together(source(5), 0.1, 0.1), Highs.solve, []

    def slow(self: Highs, *arguments: object, **options: object) -> LpAnswer:
        calls.append(self)
        if len(calls) > 1:
            return solve(self, *arguments, **options)
        time.sleep(max(0.0, end.remaining + 0.01))
        return LpAnswer(LpStatus.LIMIT, None, None, 0.0)

    monkeypatch.setattr(Highs, "solve", slow)
    search, end = search_of(item), Deadline.after(2)
    assert isinstance(search.run(end), Timeout) and calls
    assert isinstance(search.run(Deadline.after(20)), Unsat)


# Tampering.


@pytest.fixture(scope="module")
def case() -> tuple[Instance, Proof]:
    """Two alternatives, trees with several leaves."""
    item = either(source(3), (-1e-3, 0.9), (0.9, -1e-3))
    verdict = search_of(item).run(Deadline.after(20))
    assert isinstance(verdict, Unsat)
    inner = reductions(verdict)[0].proof
    assert inner.cases == 2 and len(inner.nodes) > 8 and inner.nodes.multipliers
    return item, verdict.proof


def changed(proof: Proof, change: Callable[[Reduction], Reduction | None]) -> Proof:
    copy = deepcopy(proof)
    reduction = copy.nodes.leaves[0].reduction
    copy.nodes.leaves[0] = Leaf(reduction=change(reduction) or reduction)
    return copy


def column(name: str, change: Callable[[np.ndarray, int], object]) -> Callable[[Reduction], None]:
    """Changes a column of the inner proof, given the first child of its first root."""

    def apply(r: Reduction) -> None:
        change(r.proof.nodes.column(name), int(np.flatnonzero(r.proof.nodes.column("parent") == 0)[0]))

    return apply


CHANGES: dict[str, Callable[[Reduction], Reduction | None]] = {
    "other neuron": column("element", lambda a, i: a.__setitem__(i, a[i] + 1)),
    "other layer": column("value", lambda a, i: a.__setitem__(i, a[i] + 3)),
    "same side": column("upper", lambda a, i: a.__setitem__(i, not a[i])),
    "leaf dropped": column("leaf", lambda a, i: a.__setitem__(np.flatnonzero(a)[0], False)),
    "roots as leaves": column("leaf", lambda a, i: a.__setitem__(slice(2), True)),
    "case missing": column("case", lambda a, i: a.__setitem__(slice(None), 0)),
    "fewer cases": lambda r: object.__setattr__(r.proof, "cases", 1),
    "no cases": lambda r: replace(r, proof=Proof(0, (), True)),
    "no proof": lambda r: replace(r, proof=None),
    "nothing kept": lambda r: replace(r, kept={}),
    "a layer not kept": lambda r: replace(r, kept=dict(list(r.kept.items())[1:])),
}


@pytest.mark.parametrize("name", CHANGES)
def test_tampering_is_noticed(case: tuple[Instance, Proof], name: str) -> None:
    item, proof = case
    assert check_proof(item.problem, changed(proof, lambda r: r)).valid
    assert not check_proof(item.problem, changed(proof, CHANGES[name])).valid


def test_an_unstable_neuron_that_is_missing_is_noticed(case: tuple[Instance, Proof]) -> None:
    item, proof = case
    for value, elements in proof.nodes.leaves[0].reduction.kept.items():
        for i in range(len(elements)):
            less = {**proof.nodes.leaves[0].reduction.kept, value: np.delete(elements, i)}
            copy = changed(proof, lambda r, less=less: replace(r, kept=less))
            assert not check_proof(item.problem, copy).valid


@pytest.mark.parametrize("number", [-1e3, np.nan, np.inf, -np.inf, 1e300])
def test_wrong_multipliers_prove_nothing_wrong(case: tuple[Instance, Proof], number: float) -> None:
    """What can be refuted may stay so; of a query with counterexamples no leaf does."""

    def change(r: Reduction) -> None:
        for node, m in r.proof.nodes.multipliers.items():
            groups = ({k: np.full_like(v, number) for k, v in a.items()} for a in (m.alpha, m.beta))
            r.proof.nodes.multipliers[node] = Multipliers(*groups)

    item, proof = case
    check_proof(item.problem, changed(proof, change))
    whole = float(max(high - low for low, high in source(3).ranges))
    (one,) = item.problem.cases
    false = replace(item.problem, cases=(replace(one, bounds=one.bounds + 0.01 * whole),))
    for copy in (proof, changed(proof, change)):
        assert not check_proof(false, copy).valid


def test_proofs_of_other_problems_are_noticed(case: tuple[Instance, Proof]) -> None:
    item, proof = case
    same = either(source(3), (-0.5, 0.9), (0.9, -0.5)), single(source(3), -1e-3)
    for other in (*same, either(source(7), (-1e-3, 0.9), (0.9, -1e-3))):
        verdict = search_of(other).run(Deadline.after(20))
        (found,) = reductions(verdict)
        nested = changed(proof, lambda r, found=found: replace(r, proof=found.proof))
        for wrong in (nested, verdict.proof):
            assert not check_proof(item.problem, wrong).valid
    assert not check_proof(item.problem, replace(deepcopy(proof), reductions={})).valid


def test_a_region_without_points_is_refuted() -> None:
    """Boxes known of another region, which don't meet this one's; its proof does not check."""
    search = search_of(single(source(1), 0.5))
    boxes = {k: Box(b.upper + 1e3, b.upper + 1e4) for k, b in search.reduced.boxes.items()}
    box, problem = search.problem.cases[0].box, search.problem
    args = (problem, double_precision(problem), Box(box.lower[None], box.upper[None]), Effort("crown"))
    search.reduced = reduce(*args, boxes)
    verdict = search.run(Deadline.after(5))
    assert search.reduced.empty and isinstance(verdict, Unsat)
    assert not check_proof(problem, verdict.proof).valid
