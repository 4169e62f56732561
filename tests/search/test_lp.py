"""Linear-programming search on problems: its proofs re-check, tampered ones do not."""

from copy import deepcopy
from dataclasses import replace

import numpy as np
import onnx
import pytest
from helpers import box_assertions, model_of, query_of, random_dense

from lpverify.bounds.subproblem import Subproblem
from lpverify.check import check_proof
from lpverify.config import Config, Deadline
from lpverify.errors import InternalError, SolverError, UnsupportedError
from lpverify.problem import compile_problem
from lpverify.proof import Leaf, Proof
from lpverify.replay import Replayer
from lpverify.search.lp import LpSearch
from lpverify.search.milp import MilpSearch
from lpverify.search.phases import PhaseSearch
from lpverify.search.tree import Tree
from lpverify.solvers.base import LpAnswer, LpStatus
from lpverify.solvers.highs import Highs
from lpverify.solvers.highs_session import HighsSession
from lpverify.verdict import Sat, Timeout, Unsat
from lpverify.verify import verify_query


def searched(seed, body_of, sizes=(4, 10, 8, 2), seconds=60.0, threads=1):
    """A problem, and what the search says of it."""
    model = random_dense(seed, sizes)
    x = np.random.default_rng(seed).uniform(-1, 1, (50_000, sizes[0]))
    body = box_assertions([-1] * sizes[0], [1] * sizes[0]) + body_of(model.network(x))
    problem = compile_problem(model.network, query_of(model, body))
    tree = Tree(True)
    roots = [Subproblem(tree.root(i), i, c.box.lower, c.box.upper) for i, c in enumerate(problem.cases)]
    search = LpSearch(problem, Replayer(model, problem), tree, roots, threads)
    return problem, search.run(Deadline.after(seconds))


def below(share):
    """An atom whose threshold is that share of the range below (negative) or above the sampled minimum."""
    return lambda y: f"(assert (<= Y_0 {y[:, 0].min() + share * np.ptp(y[:, 0]):.9f}))"


def together(share):
    """Two atoms that can't hold at once: each can."""

    def body(y):
        low, high = y[:, 0].min(), y[:, 0].min() + 0.3 * np.ptp(y[:, 0])
        near = y[y[:, 0] <= high][:, 1]
        return (
            f"(assert (<= Y_0 {0.5 * (low + high):.9f}))"
            f"(assert (>= Y_1 {near.max() + share * np.ptp(y[:, 1]):.9f}))"
        )

    return body


def either(share):
    """Two alternatives."""
    first, second = below(share), lambda y: f"(>= Y_1 {y[:, 1].max() - share * np.ptp(y[:, 1]):.9f})"
    return lambda y: f"(assert (or {first(y)[len('(assert ') : -1]} {second(y)}))"


BODIES = {"one atom": below(-0.06), "two atoms": together(0.15), "two alternatives": either(-0.06)}


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kind", BODIES)
@pytest.mark.parametrize("seed", range(4))
def test_unsat_comes_with_a_proof_that_checks(kind, seed, threads):
    problem, verdict = searched(seed, BODIES[kind], threads=threads)
    assert isinstance(verdict, Unsat)
    trees = verdict.proof.nodes[0].leaf.trees
    assert trees is not None and all(t.complete() for t in trees)
    assert check_proof(problem, verdict.proof).valid


@pytest.mark.parametrize("seed", range(4))
def test_sat_comes_with_a_witness(seed):
    _, verdict = searched(seed, below(0.02))
    assert isinstance(verdict, Sat)


def test_no_time():
    _, verdict = searched(0, below(-0.01), sizes=(8, 30, 30, 2), seconds=0.0)
    assert isinstance(verdict, Timeout) and verdict.progress.open > 0


@pytest.fixture(scope="module")
def case():
    """A problem whose tree has several leaves."""
    problem, verdict = searched(1, below(-0.02))
    assert len(verdict.proof.nodes[0].leaf.trees[0].parent) > 5, "too easy to test anything"
    return problem, verdict.proof


def tampered(proof, change):
    node = proof.nodes[0]
    trees = deepcopy(node.leaf.trees)
    change(trees[0])
    return Proof(proof.cases, (replace(node, leaf=Leaf(trees=trees)), *proof.nodes[1:]), True)


def first_leaf(tree):
    return min(tree.multipliers)


def scale(tree):
    rows, values = tree.multipliers[first_leaf(tree)]
    tree.multipliers[first_leaf(tree)] = rows, -values


def drop_leaf(tree):
    del tree.multipliers[first_leaf(tree)]


def wrong_rows(tree):
    rows, values = tree.multipliers[first_leaf(tree)]
    tree.multipliers[first_leaf(tree)] = rows + 10_000, values


def same_sign(tree):
    tree.sign[1] = tree.sign[2]


def other_neuron(tree):
    tree.neuron[1] += 1


def root_as_leaf(tree):
    leaf = tree.multipliers[first_leaf(tree)]
    tree.parent, tree.neuron, tree.sign, tree.multipliers = [-1], [-1], [0], {0: leaf}


def other_atoms(tree):
    tree.atoms = (7,)


def no_multipliers(tree):
    tree.multipliers = {i: (r[:0], v[:0]) for i, (r, v) in tree.multipliers.items()}


@pytest.mark.parametrize(
    "change",
    [scale, drop_leaf, wrong_rows, same_sign, other_neuron, root_as_leaf, other_atoms, no_multipliers],
)
def test_tampering_is_noticed(case, change):
    problem, proof = case
    assert check_proof(problem, proof).valid
    try:
        changed = tampered(proof, change)
    except InternalError:
        return  # it can't even be built
    assert not check_proof(problem, changed).valid


def test_a_higher_threshold_is_not_proven(case):
    problem, proof = case
    cases = tuple(replace(c, bounds=c.bounds + 1.0) for c in problem.cases)
    assert not check_proof(replace(problem, cases=cases), proof).valid


@pytest.mark.parametrize("method", ["lp", "milp"])
@pytest.mark.parametrize(("share", "wanted"), [(-0.05, Unsat), (0.02, Sat)])
def test_methods_of_verify(method, share, wanted):
    model = random_dense(2, (4, 10, 8, 2))
    y = model.network(np.random.default_rng(2).uniform(-1, 1, (50_000, 4)))
    body = box_assertions([-1] * 4, [1] * 4) + below(share)(y)
    config = Config(deadline=Deadline.after(60), method=method, record_proof=True)
    verdict = verify_query(model, query_of(model, body), config)
    assert isinstance(verdict, wanted)
    if wanted is Unsat:
        assert check_proof(compile_problem(model.network, query_of(model, body)), verdict.proof).valid


def test_mixed_integer_programs_look_first(monkeypatch):
    """The solver's claims are kept, and none of them decides."""
    model = random_dense(2, (4, 10, 8, 2))
    y = model.network(np.random.default_rng(2).uniform(-1, 1, (50_000, 4)))
    problem = compile_problem(
        model.network, query_of(model, box_assertions([-1] * 4, [1] * 4) + below(-0.05)(y))
    )
    tree = Tree(False)
    roots = [Subproblem(tree.root(0), 0, problem.cases[0].box.lower, problem.cases[0].box.upper)]
    search = MilpSearch(problem, Replayer(model, problem), tree, list(roots))
    assert isinstance(search.run(Deadline.after(30)), Unsat) and search.claims == ["optimal"]
    lying = LpAnswer(LpStatus.INFEASIBLE, None, None, 0.0)
    monkeypatch.setattr(Highs, "solve", lambda self, lp, seconds: lying)
    cases = tuple(replace(c, bounds=c.bounds + 0.1 * np.ptp(y[:, 0])) for c in problem.cases)
    easy = replace(problem, cases=cases)
    tree = Tree(False)
    search = MilpSearch(easy, Replayer(model, easy), tree, [replace(roots[0], node=tree.root(0))])
    assert not isinstance(search.run(Deadline.after(30)), Unsat) and search.claims == ["infeasible"]


def test_methods_refuse_other_networks():
    nodes = [onnx.helper.make_node("Sigmoid", ["x"], ["y"])]
    model = model_of(nodes, [], (2, 2))
    body = box_assertions([-1] * 2, [1] * 2) + "(assert (<= Y_0 0.3))"
    with pytest.raises(UnsupportedError, match="ReLU"):
        verify_query(model, query_of(model, body), Config(deadline=Deadline.after(30), method="lp"))


def test_what_a_worker_raises_is_raised(monkeypatch):
    """A node that is lost with it must not count as closed."""

    def fails(self, *arguments):
        raise RuntimeError("in a worker")

    monkeypatch.setattr(PhaseSearch, "_split", fails)
    for threads in (1, 2):
        with pytest.raises(RuntimeError, match="in a worker"):
            searched(1, below(-0.02), threads=threads)


def test_an_alternative_that_is_stuck_does_not_hide_a_counterexample(monkeypatch):
    solve = HighsSession.solve
    calls = []

    def first_fails(self, *arguments, **options):
        calls.append(self)
        if self is calls[0]:
            raise SolverError("no")
        return solve(self, *arguments, **options)

    monkeypatch.setattr(HighsSession, "solve", first_fails)
    body = lambda y: (  # noqa: E731
        f"(assert (or (<= Y_0 {y[:, 0].min() - 0.01 * np.ptp(y[:, 0]):.9f})"
        f" (>= Y_1 {y[:, 1].max() - 0.05 * np.ptp(y[:, 1]):.9f})))"
    )
    _, verdict = searched(1, body)
    assert isinstance(verdict, Sat) and len(set(map(id, calls))) == 2


def test_multipliers_are_kept_on_request_only():
    model = random_dense(1, (4, 10, 8, 2))
    y = model.network(np.random.default_rng(1).uniform(-1, 1, (50_000, 4)))
    problem = compile_problem(
        model.network, query_of(model, box_assertions([-1] * 4, [1] * 4) + below(-0.02)(y))
    )
    tree = Tree(False)
    roots = [Subproblem(tree.root(0), 0, problem.cases[0].box.lower, problem.cases[0].box.upper)]
    verdict = LpSearch(problem, Replayer(model, problem), tree, roots).run(Deadline.after(30))
    assert isinstance(verdict, Unsat)
    assert not any(len(rows) for rows, _ in verdict.proof.nodes[0].leaf.trees[0].multipliers.values())


def test_proofs_with_open_trees_cannot_be_built(case):
    with pytest.raises(InternalError, match="open branch"):
        tampered(case[1], drop_leaf)
