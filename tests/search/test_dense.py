"""Searches with the compiled kernel, end to end: verdicts against an exact oracle, and proofs re-checked.

Every network here is small enough that the oracle walks all of its activation cells in exact arithmetic.
"""

from dataclasses import replace
from fractions import Fraction
from functools import cache
from itertools import pairwise
from time import monotonic

import numpy as np
import oracle
import pytest
from helpers import box_assertions, query_of
from oracle import row
from scipy import optimize
from soundness.test_verdicts import contradiction, instance

import lpverify.search.dense as dense
from lpverify.bounds.subproblem import Subproblem
from lpverify.check import check_proof
from lpverify.config import Config, Deadline
from lpverify.kernels.dense import extension
from lpverify.problem import compile_problem
from lpverify.replay import Replayer
from lpverify.search.dense import DenseSearch, Plan
from lpverify.search.engines import SHALLOW, dense_engines
from lpverify.search.tree import Tree
from lpverify.solvers.highs import Highs
from lpverify.verdict import Sat, Timeout, Unknown, Unsat
from lpverify.verify import verify_query

pytestmark = pytest.mark.skipif(extension() is None, reason="the compiled kernel was not built")

SECONDS = 60.0
PLANS = {"inputs": 16, "phases": 0}  # the most free inputs with which those are split
HIDDEN = {"inputs": (6, 5), "phases": (9,)}  # phases are split with one hidden layer
plans = pytest.mark.parametrize("plan", PLANS)


# Networks and queries.


@cache
def layers_of(seed, inputs, hidden, outputs=2):
    rng = np.random.default_rng(seed)
    sizes = (inputs, *hidden, outputs)
    return [
        (rng.normal(size=(b, a)).astype(np.float32), (0.4 * rng.normal(size=b)).astype(np.float32))
        for a, b in pairwise(sizes)
    ]


def box(inputs, low=-1, high=1):
    return [(Fraction(low), Fraction(high))] * inputs


def both(*children):
    return oracle.Tree("and", children)


def either(*children):
    return oracle.Tree("or", children)


def on(ends, *conditions):
    """A query on a box."""
    return both(*oracle.box_rows(ends), *conditions)


def least(layers, ends, terms):
    return oracle.minimum(layers, tuple(ends), terms, 20_000)


def bare_search(item, plan, threads=1, record=True):
    """Branch and bound by the kernel alone, from the boxes of the cases."""
    problem = compile_problem(item.model.network, item.query)
    engine = dense_engines(problem, Config(input_split_limit=PLANS[plan]))[0]
    points = all((case.box.lower == case.box.upper).all() for case in problem.cases)
    assert engine is not None and engine.plan == (Plan() if plan == "inputs" or points else SHALLOW)
    tree = Tree(record)
    roots = [
        Subproblem(tree.root(i), i, case.box.lower, case.box.upper) for i, case in enumerate(problem.cases)
    ]
    return DenseSearch(
        problem, engine.kernel, engine.table, Replayer(item.model, problem), tree, Highs(), threads,
        engine.plan, roots,
    )  # fmt: skip


def verdict_of(item, plan, seconds=SECONDS, record=True):
    config = Config(
        input_split_limit=PLANS[plan], deadline=Deadline.after(seconds), record_proof=record, threads=1
    )
    return verify_query(item.model, item.query, config)


def agree(item, plan, verdicts, decided=True):
    """Each verdict fits the oracle's answer, and proofs hold."""
    answer = oracle.decide(item.layers, item.tree, 20_000)
    assert answer.exact
    for verdict in verdicts:
        assert contradiction(item, answer, verdict) is None
        if isinstance(verdict, Unsat):
            problem = compile_problem(item.model.network, item.query)
            assert check_proof(problem, verdict.proof).valid if verdict.proof.nodes else not problem.cases
        if decided and not answer.close:
            assert isinstance(verdict, Sat if answer.verdict == "sat" else Unsat), verdict
    return answer.verdict


def run_both(layers, tree, plan, decided=True):
    """The whole ladder, and the search alone, on a query."""
    item = instance(layers, tree)
    verdicts = [verdict_of(item, plan)]
    if compile_problem(item.model.network, item.query).cases:
        verdicts.append(bare_search(item, plan).run(Deadline.after(SECONDS)))
    return agree(item, plan, verdicts, decided), verdicts


# Thresholds near the minimum.


@plans
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [-1e-3, 1e-3, -0.03, 0.03])
def test_thresholds_near_the_minimum(share, seed, plan):
    inputs = 2 + seed % 2
    layers, ends = layers_of(seed, inputs, HIDDEN[plan]), box(inputs)
    terms = {inputs: 1} if seed % 2 else {inputs: 1, inputs + 1: -1}
    size = oracle.sizes(layers, tuple(ends))
    bound = least(layers, ends, terms) + Fraction(share) * Fraction(sum(size[v] for v in terms)) / 4
    found, _ = run_both(layers, on(ends, row(terms, bound, strict=bool(seed % 3))), plan)
    assert found == ("sat" if share > 0 else "unsat")


@plans
def test_searches_are_trees(plan):
    """Some of these queries need many subproblems; in one hidden layer, phases on both sides."""
    counts, kinds = [], set()
    for seed in range(4):
        layers, ends = layers_of(seed, 3, HIDDEN[plan] if plan == "inputs" else (14,)), box(3)
        bound = least(layers, ends, {3: 1}) - Fraction(1, 1000)
        search = bare_search(instance(layers, on(ends, row({3: 1}, bound))), plan)
        verdict = search.run(Deadline.after(SECONDS))
        assert isinstance(verdict, Unsat)
        assert check_proof(search.problem, verdict.proof).valid
        counts.append(len(verdict.proof.nodes))
        kinds |= {(type(n.split).__name__, n.split.upper) for n in verdict.proof.nodes if n.split}
    assert max(counts) > 10
    name = "InputSplit" if plan == "inputs" else "NeuronSplit"
    assert {(name, False), (name, True)} <= kinds


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [-0.02, 0.02, 0.2])
def test_many_inputs_and_one_hidden_layer(share, seed):
    """As many as are never split: the minimum is that of a MILP."""
    inputs = 20
    layers = layers_of(seed, inputs, (10,), 1)
    lowest, size = milp_minimum(layers, tuple(box(inputs)))
    tree = on(box(inputs), row({inputs: 1}, Fraction(lowest + share * size)))
    item = instance(layers, tree)
    problem = compile_problem(item.model.network, item.query)
    assert dense_engines(problem, Config())[0].plan == SHALLOW
    config = Config(deadline=Deadline.after(SECONDS), record_proof=True)
    verdicts = [
        verify_query(item.model, item.query, config),
        bare_search(item, "phases").run(Deadline.after(SECONDS)),
    ]
    for verdict in verdicts:
        assert isinstance(verdict, Sat if share > 0 else Unsat)
        if isinstance(verdict, Unsat):
            assert check_proof(problem, verdict.proof).valid
        else:
            assert oracle.holds(tree, [*verdict.witness.x, *verdict.witness.outputs.tolist()])


def milp_minimum(layers, ends):
    """The minimum of the first output, and a tenth of the size of what is added up in it."""
    model = oracle._Milp(layers, ends)
    cost = np.zeros(len(model.lower))
    cost[model.column(len(ends), len(ends))] = 1.0
    answer = optimize.milp(
        cost,
        integrality=np.array(model.integer),
        bounds=optimize.Bounds(model.lower, model.upper),
        constraints=optimize.LinearConstraint(*model.constraints()),
        options={"mip_rel_gap": 0.0},
    )
    assert answer.status == 0
    return float(answer.fun), oracle.sizes(layers, ends)[len(ends)] / 10


# Conditions.


def conditions(seed, inputs, layers, ends):
    """Conditions of all shapes, thresholds around what is possible."""
    rng = np.random.default_rng(seed)

    def atom(strict=False, share=None):
        terms = {inputs + int(rng.integers(2)): int(rng.choice([-1, 1]))}
        if rng.integers(3) == 0:
            terms = {
                inputs: 1,
                inputs + 1: int(rng.choice([-1, 1])),
                0: Fraction(int(rng.integers(-3, 4)), 2),
            }
        low = least(layers, ends, terms)
        high = -least(layers, ends, {v: -c for v, c in terms.items()})
        share = float(rng.choice([-0.02, 0.02, 0.2, 0.4])) if share is None else share
        return row(terms, low + (high - low) * Fraction(share), strict)

    return {
        "or": either(atom(share=-0.01), atom(share=-0.02), atom()),
        "and": both(atom(share=0.3), atom(share=0.3), atom(share=0.2)),
        "or of ands": either(both(atom(), atom()), both(atom(share=0.3), atom(share=0.1)), atom(share=-0.01)),
        "and of ors": both(either(atom(share=0.1), atom()), either(atom(share=0.1), atom())),
        "strict": both(atom(True, 0.25), either(atom(True), atom(True, -0.01))),
        "an input": both(atom(share=0.2), row({0: 1, 1: 1}, Fraction(-1, 3)), row({inputs: 1}, 100)),
        "an input or": either(row({0: 1, 1: -1}, -3), both(row({0: 1}, Fraction(1, 5)), atom(share=-0.01))),
    }


@plans
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("shape", [*conditions(0, 2, layers_of(0, 2, (3,)), box(2))])
def test_conditions(shape, seed, plan):
    hidden = (4, 4) if plan == "inputs" else (6,)
    layers, ends = layers_of(100 + seed, 2, hidden), box(2)
    run_both(layers, on(ends, conditions(seed, 2, layers, ends)[shape]), plan)


@plans
@pytest.mark.parametrize("seed", range(5))
def test_several_boxes(seed, plan):
    layers = layers_of(200 + seed, 2, (5, 4) if plan == "inputs" else (8,))
    rng, options = np.random.default_rng(seed), []
    for i in range(3):
        low = [Fraction(int(v), 8) for v in rng.integers(-12, 4, 2)]
        ends = [(a, a + Fraction(int(rng.integers(1, 9)), 8)) for a in low]
        share = Fraction(1, 100) if i == 2 and seed % 2 else -Fraction(1, 100)
        options.append(on(ends, row({2: 1}, least(layers, ends, {2: 1}) + share)))
    found, _ = run_both(layers, either(*options), plan)
    assert found == ("sat" if seed % 2 else "unsat")


CONSTANT = {
    "(<= Y_0 (- Y_0 1))": False,
    "(>= Y_0 (- Y_0 1))": True,
    "(< Y_0 Y_0)": False,
    "(<= Y_0 Y_0)": True,
    "(<= (* 0 Y_0) -1)": False,
    "(or (<= Y_0 (- Y_0 1)) (<= Y_1 -1000))": False,
    "(or (< Y_1 Y_1) (<= Y_0 1000))": True,
    "(and (<= Y_0 Y_0) (<= Y_1 -1000))": False,
    "(and (<= Y_0 Y_0) (<= Y_1 1000))": True,
    "(and (<= X_0 (- X_0 1)) (<= Y_0 1000))": False,
    "(or (<= X_0 (- X_0 1)) (<= Y_0 LEAST))": False,
    "(and (<= X_0 (+ X_0 1)) (<= Y_0 LEAST))": False,
}


@plans
@pytest.mark.parametrize("text", CONSTANT)
def test_conditions_that_are_always_or_never_true(text, plan):
    layers, ends = layers_of(1, 2, HIDDEN[plan]), box(2)
    bound = least(layers, ends, {2: 1}) - Fraction(1, 1000)
    assertion = f"(assert {text.replace('LEAST', oracle.number_text(bound))})"
    plain = instance(layers, on(ends))
    item = replace(plain, query=query_of(plain.model, box_assertions([-1, -1], [1, 1]) + assertion))
    problem = compile_problem(item.model.network, item.query)
    verdicts = [verdict_of(item, plan)]
    if problem.cases:
        verdicts.append(bare_search(item, plan).run(Deadline.after(SECONDS)))
    for verdict in verdicts:
        assert isinstance(verdict, Sat if CONSTANT[text] else Unsat)
        if isinstance(verdict, Unsat):
            assert check_proof(problem, verdict.proof).valid


# Where rounding decides.


def absolute(rows, offsets, scale=1.0):
    """The sum of |row . x - offset|: its minimum is a kink in all directions."""
    weight = scale * np.repeat(np.array(rows, float), 2, axis=0)
    weight[1::2] *= -1
    bias = scale * np.repeat(-np.array(offsets, float), 2)
    bias[1::2] *= -1
    last = np.ones((1, len(bias)), np.float32), np.zeros(1, np.float32)
    return [(weight.astype(np.float32), bias.astype(np.float32)), last]


KINKS = {
    "on a grid": absolute([[1, 0], [0, 1]], [0.25, -0.5]),
    "no float": absolute([[3, 0], [0, 7]], [1, 2]),
    "oblique": absolute([[1, 2], [3, -1]], [0.1, 0.2], 0.3),
    "one direction": absolute([[1, 1]], [0.125]),
}


@plans
@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("name", KINKS)
def test_a_threshold_at_a_minimum_in_a_kink(name, strict, plan):
    """Honest ends are an unknown and running out of time; the whole takes little more than it may."""
    layers, ends, start = KINKS[name], box(2), monotonic()
    item = instance(layers, on(ends, row({2: 1}, least(layers, ends, {2: 1}), strict)))
    verdicts = [verdict_of(item, plan, 1.0), bare_search(item, plan).run(Deadline.after(0.5))]
    agree(item, plan, verdicts, decided=False)
    assert not (strict and any(isinstance(v, Sat) for v in verdicts) and name == "on a grid")
    assert monotonic() - start < 20


@plans
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [-1e-2, 1e-2])
def test_points_in_some_dimensions(share, seed, plan):
    layers = layers_of(300 + seed, 4, (6, 5) if plan == "inputs" else (9,))
    ends = [
        (Fraction(1, 3),) * 2 if seed == 3 else (Fraction(1, 4),) * 2,
        *box(1),
        (Fraction(-1, 2),) * 2,
        *box(1),
    ]
    bound = least(layers, ends, {4: 1}) + Fraction(share) * Fraction(oracle.sizes(layers, tuple(ends))[4])
    found, _ = run_both(layers, on(ends, row({4: 1}, bound)), plan)
    assert found == ("sat" if share > 0 else "unsat")


@plans
@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("share", [-1e-3, 1e-3, -1e-12, 1e-12, 0])
def test_boxes_of_one_ulp(share, kind, plan):
    layers = layers_of(400, 2, HIDDEN[plan])
    lower = np.array([0.3, -0.7], kind)
    ends = [(Fraction(float(v)), Fraction(float(np.nextafter(v, kind(2))))) for v in lower]
    bound = least(layers, ends, {2: 1}) + Fraction(share)
    run_both(layers, on(ends, row({2: 1}, bound)), plan, decided=share < -1e-4)
    run_both(layers, on([(e[0],) * 2 for e in ends], row({2: 1}, bound)), plan, decided=share < -1e-4)


# The same without the kernel, in parts and with more threads.


@plans
@pytest.mark.parametrize("seed", range(4))
def test_verdicts_are_those_without_the_kernel(seed, plan, monkeypatch):
    layers, ends = layers_of(500 + seed, 2, (6, 5) if plan == "inputs" else (9,)), box(2)
    bound = least(layers, ends, {2: 1}) + Fraction(1 if seed % 2 else -1, 200)
    item = instance(layers, on(ends, row({2: 1}, bound)))
    ours = verdict_of(item, plan)
    monkeypatch.setenv("LPVERIFY_NO_KERNEL", "1")
    assert dense_engines(compile_problem(item.model.network, item.query), Config()) == ()
    theirs = verdict_of(item, plan)
    assert isinstance(ours, Sat | Unsat) and type(ours) is type(theirs)


class Rounds:
    """A deadline that passes after so many questions."""

    def __init__(self, left):
        self.left = left

    @property
    def passed(self):
        self.left -= 1
        return self.left < 0


def hard(plan, sat=False):
    """A query whose search takes some rounds."""
    inputs = 3
    layers, ends = layers_of(1, inputs, HIDDEN[plan]), box(inputs)
    bound = least(layers, ends, {inputs: 1}) + Fraction(1 if sat else -1, 1000)
    return instance(layers, on(ends, row({inputs: 1}, bound)))


@plans
@pytest.mark.parametrize("sat", [False, True])
def test_an_interrupted_search_goes_on(sat, plan):
    item = hard(plan, sat)
    search = bare_search(item, plan)
    verdict = search.run(Deadline.after(0))
    assert isinstance(verdict, Timeout) and verdict.progress.open >= 1 and verdict.progress.closed == 0
    verdict = search.run(Deadline.after(SECONDS))
    assert isinstance(verdict, Sat if sat else Unsat)
    agree(item, plan, [verdict])


@plans
def test_interruptions_change_nothing(plan):
    whole = bare_search(hard(plan), plan)
    assert isinstance(whole.run(Deadline.after(SECONDS)), Unsat)
    search, verdict, times = bare_search(hard(plan), plan), None, 0
    while verdict is None or isinstance(verdict, Timeout):
        assert verdict is None or verdict.progress.open >= 1
        verdict, times = search.run(Rounds(1)), times + 1
        assert times < 10_000
    assert times > 2
    agree(hard(plan), plan, [verdict])
    assert verdict.progress.closed == whole.tree.closed


@plans
@pytest.mark.parametrize("sat", [False, True])
def test_roots_are_pushed_in_parts(sat, plan, monkeypatch):
    monkeypatch.setattr(dense, "ROOT_ELEMENTS", 1)
    monkeypatch.setattr(dense, "BATCH", 2)
    layers, options = layers_of(2, 2, HIDDEN[plan]), []
    cells = [(Fraction(i, 3), Fraction(i + 1, 3)) for i in range(-3, 3)]
    for i, ends in enumerate((a, b) for a in cells for b in cells[:2]):
        sign = 1 if sat and i == 7 else -1
        options.append(on(ends, row({2: 1}, least(layers, ends, {2: 1}) + Fraction(sign, 1000))))
    item = instance(layers, either(*options))
    search, most = bare_search(item, plan), []
    assert len(search.waiting) == 12
    push = search._push_roots
    monkeypatch.setattr(search, "_push_roots", lambda: (push(), most.append(len(search.pool))))
    first = search.run(Rounds(1))
    assert isinstance(first, Timeout) and len(search.waiting) == 10
    assert first.progress.open == len(search.pool) + 10
    verdict = search.run(Deadline.after(SECONDS))
    agree(item, plan, [verdict])
    assert isinstance(verdict, Sat if sat else Unsat)
    assert max(most) == 2 and (sat or len(most) == 6)


@plans
def test_threads_change_nothing(plan):
    for sat in (False, True):
        closed = []
        for threads in (1, 2):
            search = bare_search(hard(plan, sat), plan, threads)
            verdict = search.run(Deadline.after(SECONDS))
            assert isinstance(verdict, Sat if sat else Unsat)
            closed.append(verdict.progress.closed)
        assert sat or closed[0] == closed[1] > 0


@plans
def test_progress_is_reported(plan):
    search, reports = bare_search(hard(plan), plan), []
    search.report = reports.append
    verdict = search.run(Deadline.after(SECONDS))
    assert reports and reports[-1] == verdict.progress and verdict.progress.open == 0
    assert [r.closed for r in reports] == sorted(r.closed for r in reports)


@plans
def test_too_little_time_is_no_verdict(plan):
    verdict = verdict_of(hard(plan), plan, 0.0)
    assert isinstance(verdict, Timeout | Unknown)
