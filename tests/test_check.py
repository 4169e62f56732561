"""Proofs of random problems re-check; every tampering that matters is noticed."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from helpers import box_assertions, query_of, random_dense

from lpverify.check import check_proof
from lpverify.config import Config, Deadline
from lpverify.errors import InternalError
from lpverify.problem import compile_problem
from lpverify.proof import Leaf, Proof
from lpverify.verdict import Unsat
from lpverify.verify import verify_query


def proven(seed, limit, sizes=(3, 8, 8, 1)):
    """A problem with an unsat verdict that needs splits, and its recorded proof."""
    model = random_dense(seed, sizes)
    x = np.clip(np.random.default_rng(seed).uniform(-1.5, 1.5, (50_000, sizes[0])), -1, 1)
    values = model.network(x)[:, 0]
    threshold = float(values.min()) - 0.08 * float(np.ptp(values))
    body = box_assertions([-1] * sizes[0], [1] * sizes[0]) + f"(assert (<= Y_0 {threshold:.9f}))"
    query = query_of(model, body)
    config = Config(deadline=Deadline.after(60), record_proof=True, input_split_limit=limit)
    with patch("lpverify.verify.reducible", return_value=False):  # else a phase proof is nested in a leaf
        verdict = verify_query(model, query, config)
    assert isinstance(verdict, Unsat)
    return compile_problem(model.network, query), verdict.proof


@pytest.fixture(scope="module", params=[16, 0], ids=["inputs", "phases"])
def case(request):
    problem, proof = proven(3, request.param)
    assert len(proof.nodes) > 3, "too easy to test anything"
    return problem, proof


def test_recorded_proofs_check(case):
    problem, proof = case
    report = check_proof(problem, proof)
    assert report.valid and report.leaves == sum(n.leaf is not None for n in proof.nodes)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("limit", [16, 0])
def test_more_proofs_check(seed, limit):
    problem, proof = proven(seed, limit, (4, 8, 6, 1))
    assert check_proof(problem, proof).valid


def test_a_higher_threshold_is_not_proven(case):
    problem, proof = case
    cases = tuple(replace(c, bounds=c.bounds + 1.0) for c in problem.cases)
    assert not check_proof(replace(problem, cases=cases), proof).valid


def test_dropped_split_is_noticed(case):
    problem, proof = case
    inner = next(k for k, n in enumerate(proof.nodes) if n.leaf is None)
    nodes = list(proof.nodes)
    nodes[inner] = replace(nodes[inner], children=nodes[inner].children[:1])
    with pytest.raises(InternalError):
        Proof(proof.cases, nodes, True)
    nodes[inner] = replace(proof.nodes[inner], children=[], leaf=Leaf())
    assert not check_proof(problem, Proof(proof.cases, nodes, True)).valid


def test_children_that_do_not_cover_are_noticed(case):
    problem, proof = case
    inner = next(k for k, n in enumerate(proof.nodes) if n.leaf is None)
    nodes = list(proof.nodes)
    first, second = nodes[inner].children
    nodes[second] = replace(nodes[second], split=nodes[first].split)
    with pytest.raises(InternalError):
        Proof(proof.cases, nodes, True)
    proof_like = object.__new__(Proof)
    for name, value in (("cases", proof.cases), ("nodes", nodes), ("recorded", True), ("reductions", {})):
        object.__setattr__(proof_like, name, value)
    assert not check_proof(problem, proof_like).valid


def test_a_leaf_twice_instead_of_its_sibling_is_noticed(case):
    """Both children are refuted then, but half of the parent is never looked at."""
    problem, proof = case
    inner, leaf = next(
        (k, c) for k, n in enumerate(proof.nodes) for c in n.children if proof.nodes[c].leaf is not None
    )
    nodes = list(proof.nodes)
    (other,) = (c for c in nodes[inner].children if c != leaf)
    nodes[other] = nodes[leaf]
    forged = object.__new__(Proof)
    for name, value in (("cases", proof.cases), ("nodes", nodes), ("recorded", True), ("reductions", {})):
        object.__setattr__(forged, name, value)
    report = check_proof(problem, forged)
    assert report.failures == (f"the children of node {inner} leave something out",)


def test_a_missing_case_is_noticed(case):
    problem, proof = case
    twice = replace(problem, cases=problem.cases * 2)
    assert not check_proof(twice, proof).valid


def test_multipliers_out_of_range_do_not_help(case):
    """Forcing them into range may lose a leaf but must never prove a wrong bound."""
    problem, proof = case
    cases = tuple(replace(c, bounds=c.bounds + 1.0) for c in problem.cases)
    wild = []
    for node in proof.nodes:
        m = node.multipliers
        if m is not None:
            alpha = {k: v * 5 - 2 for k, v in m.alpha.items()}
            m = replace(m, alpha=alpha, beta={k: -50 * v for k, v in m.beta.items()})
        wild.append(replace(node, multipliers=m))
    assert not check_proof(replace(problem, cases=cases), Proof(proof.cases, wild, True)).valid


def test_unrecorded_proofs_are_refused(case):
    problem, proof = case
    with pytest.raises(ValueError, match="record_proof"):
        check_proof(problem, Proof(proof.cases, proof.nodes, False))
