import numpy as np
from helpers import box_assertions, query_of, random_dense

from lpverify.bounds.evaluate import double_precision
from lpverify.config import Deadline
from lpverify.problem import compile_problem
from lpverify.replay import Replayer
from lpverify.search.attack import (
    AttackPlan,
    active_atoms,
    descend,
    first_candidates,
    gradient_attack,
    try_points,
)

ATOMS = "(assert (or (and (<= Y_0 {a}) (<= Y_1 {b})) (>= Y_0 {c})))"


def setup(seed, a="0", b="0", c="100"):
    model = random_dense(seed, (4, 16, 16, 2))
    query = query_of(model, box_assertions([-1] * 4, [1] * 4) + ATOMS.format(a=a, b=b, c=c))
    problem = compile_problem(model.network, query)
    return problem, Replayer(model, problem)


def test_attack_beats_random_search():
    """The minimum that the attack finds is below that of many random points."""
    found = 0
    for seed in range(8):
        model = random_dense(seed, (12, 24, 24, 1))
        x = np.random.default_rng(1).uniform(-1, 1, (3000, 12))
        threshold = float(model.network(x).min())
        query = query_of(
            model, box_assertions([-1] * 12, [1] * 12) + f"(assert (<= Y_0 {threshold - 0.5:.6f}))"
        )
        problem = compile_problem(model.network, query)
        rng = np.random.default_rng(seed)
        plan = AttackPlan()
        found += (
            gradient_attack(
                problem, double_precision(problem), 0, Replayer(model, problem), rng, plan, Deadline()
            )
            is not None
        )
    assert found >= 6


def test_a_descent_starts_where_it_is_told():
    """From a point next to a violation, found by sampling, it gets there; without steps it does not."""
    found = 0
    for seed in range(8):
        model = random_dense(seed, (12, 24, 24, 1))
        x = np.random.default_rng(1).uniform(-1, 1, (3000, 12))
        values = model.network(x)[:, 0]
        start, threshold = x[[values.argmin()]], float(values.min()) - 0.2
        body = box_assertions([-1] * 12, [1] * 12) + f"(assert (<= Y_0 {threshold:.6f}))"
        problem = compile_problem(model.network, query_of(model, body))
        goal = (problem, double_precision(problem), 0, start, Replayer(model, problem))
        assert descend(*goal, AttackPlan(steps=0), Deadline()) is None
        found += descend(*goal, AttackPlan(steps=12, first_step=0.05), Deadline()) is not None
    assert found >= 6


def test_active_atom_is_the_one_that_decides():
    problem, _ = setup(0, a="0", b="1", c="9")
    (case,) = problem.cases
    forms = np.random.default_rng(0).normal(size=(50, len(case.forms))) * 5
    weights = active_atoms(case, forms, 0)
    assert (weights.sum(axis=1) == 1).all()
    half = 25  # the first half follows the best alternative
    chosen = (forms - case.bounds)[np.arange(50), weights.argmax(axis=1)]
    assert np.allclose(chosen[:half], case.violation(forms)[:half])


def test_nothing_is_claimed_without_replay():
    problem, _ = setup(0, a="1000", b="1000")
    calls = []

    def refuse(point, case):
        calls.append(point)

    rng = np.random.default_rng(0)
    assert first_candidates(problem, 0, refuse, rng) is None
    assert (
        gradient_attack(problem, double_precision(problem), 0, refuse, rng, AttackPlan(steps=3), Deadline())
        is None
    )
    assert try_points(problem, 0, np.zeros((1, 4)), refuse) is None
    assert calls


def test_a_passed_deadline_ends_the_attack():
    problem, replay = setup(0, a="-1000")
    rng = np.random.default_rng(0)
    assert (
        gradient_attack(
            problem, double_precision(problem), 0, replay, rng, AttackPlan(steps=10**9), Deadline(0.0)
        )
        is None
    )
