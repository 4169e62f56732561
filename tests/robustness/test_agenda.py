"""Which radius is asked next: complete, sparing, and it ends."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest

from lpverify.robustness.agenda import ATTACK, Both, Grid, Radius, failed, proven_by_any, unsettled
from lpverify.robustness.evidence import SMOOTHED, Adversarial, Attempt, Clean, Record

METHOD = "crown"
ONE = Fraction(1)
Oracle = Callable[[Fraction], str]


def started(correct=True) -> Record:
    record = Record()
    record.add(Clean(0, 0 if correct else 1, correct, 1.0))
    return record


def attempt(verdict, eps, method=METHOD) -> Attempt:
    return Attempt(0, method, eps, verdict, method, 0.0)


def adversarial(distance) -> Adversarial:
    return Adversarial(0, np.zeros(1), 1, distance, "pgd")


def asked(agenda, record, oracle: Oracle, limit=10**4) -> list[Fraction]:
    """Asks until the agenda is through; with `refuted` comes the counterexample."""
    questions = []
    while (eps := agenda.next(record)) is not None:
        before = agenda.open(record)
        assert before >= 1
        questions.append(eps)
        assert len(questions) <= limit
        verdict = oracle(eps)
        if verdict == "refuted":
            record.add(adversarial(eps))
        record.add(attempt(verdict, eps))
        assert agenda.open(record) < before or before == math.inf
    return questions


# Radii that are given


def grid(size) -> tuple[Fraction, ...]:
    return tuple(Fraction(i + 1, 8) for i in range(size))


@pytest.mark.parametrize("complete", [False, True])
@pytest.mark.parametrize("size", range(7))
def test_the_grid_finds_the_largest_provable_radius(size, complete) -> None:
    radii = grid(size)
    for provable, refutable in itertools.product(range(size + 1), repeat=2):
        if refutable < provable:
            continue

        def oracle(eps, provable=provable, refutable=refutable) -> str:
            place = radii.index(eps)
            return "proven" if place < provable else "unknown" if place < refutable else "refuted"

        record = started()
        questions = asked(Grid(METHOD, radii, complete), record, oracle)
        assert len(questions) == len(set(questions))
        verdicts = [record.verdict(METHOD, eps) for eps in radii]
        assert verdicts[:provable] == ["proven"] * provable
        assert "proven" not in verdicts[provable:]
        if complete:  # every counterexample is found
            assert verdicts[refutable:] == ["refuted"] * (size - refutable)
        else:
            assert len(questions) <= size.bit_length()


def test_the_grid_ends_with_any_oracle() -> None:
    radii = grid(4)
    for answers in itertools.product(("proven", "refuted", "unknown"), repeat=4):
        for complete in (False, True):
            questions = asked(
                Grid(METHOD, radii, complete), started(), lambda e, a=answers: a[radii.index(e)]
            )
            assert len(questions) == len(set(questions))
            assert set(questions) <= set(radii)


def test_the_grid_beyond_a_failure() -> None:
    radii, record = grid(3), started()
    assert asked(Grid(METHOD, radii), record, lambda _: "unknown") == [radii[1], radii[0]]
    assert Grid(METHOD, radii, complete=True).next(record) == radii[2]


def test_the_grid_leaves_out_what_is_known() -> None:
    radii, record = grid(4), started()
    record.add(attempt("proven", radii[0]))
    record.add(adversarial(radii[3]))
    assert asked(Grid(METHOD, radii), record, lambda _: "proven") == [radii[2]]
    for finished in (Grid(METHOD, radii), Grid(METHOD, ())):
        assert finished.next(record) is None
        assert finished.open(record) == 0
    assert asked(Grid(METHOD, radii, complete=True), started(correct=False), lambda _: "proven") == []


def test_other_methods_do_not_answer() -> None:
    record = started()
    record.add(attempt("proven", ONE, "ibp"))
    record.add(attempt("unknown", ONE, "ibp"))
    assert Grid(METHOD, (ONE,)).next(record) == ONE
    assert Radius(METHOD, ONE).next(record) == ONE


# The largest radius


@pytest.mark.parametrize("most", [ONE, Fraction(1, 3), Fraction(1000)])
@pytest.mark.parametrize("tolerance", [Fraction(1, 128), Fraction(1, 10**6)])
def test_the_radius_is_found_within_its_tolerance(most, tolerance) -> None:
    for share in (Fraction(1, 3), Fraction(1, 10**6), Fraction(999, 1000), Fraction(0.7)):
        for beyond in ("unknown", "refuted"):
            truth, record = share * most, started()
            agenda = Radius(METHOD, most, tolerance)
            questions = asked(
                agenda,
                record,
                lambda e, t=truth, b=beyond: "proven" if e <= t else b,
                60,
            )
            assert len(questions) == len(set(questions))
            assert all(0 < e <= most for e in questions)
            proven, end = record.proven(METHOD), failed(record, METHOD)
            assert proven <= truth < end
            assert end - proven <= tolerance * end
            assert agenda.open(record) == 0


def test_everything_is_proven() -> None:
    record = started()
    assert asked(Radius(METHOD, ONE), record, lambda _: "proven") == [ONE]
    assert Radius(METHOD, 2 * ONE).next(record) == 2


def test_nothing_is_proven() -> None:
    floored = asked(Radius(METHOD, ONE, floor=Fraction(1, 4096)), started(), lambda _: "unknown")
    assert floored == [Fraction(1, 2**i) for i in range(13)]
    bare = asked(Radius(METHOD, ONE), started(), lambda _: "unknown", 1100)
    assert bare[-1] == Fraction(5e-324)  # without a floor it takes all floats to end


@pytest.mark.parametrize("verdict", ["unknown", "refuted"])
@pytest.mark.parametrize("seed", range(20))
def test_the_search_ends_with_any_oracle(seed, verdict) -> None:
    rng = np.random.default_rng(seed)
    record, agenda = started(), Radius(METHOD, ONE, floor=Fraction(1, 1000))
    asked(agenda, record, lambda _: str(rng.choice(["proven", verdict])), 20)


def test_a_counterexample_below_a_proof() -> None:
    record = started()
    record.add(attempt("proven", Fraction(1, 2)))
    record.add(adversarial(Fraction(1, 4)))
    assert Radius(METHOD, ONE).next(record) is None
    assert Grid(METHOD, grid(8)).next(record) is None


def test_refuted_without_a_counterexample() -> None:
    """Such an answer proves nothing; the question must not come back."""
    for agenda in (
        Radius(METHOD, ONE, floor=Fraction(1, 64)),
        Grid(METHOD, grid(4)),
        Grid(METHOD, grid(4), True),
    ):
        record, questions = started(), []
        while (eps := agenda.next(record)) is not None:
            assert eps not in questions
            questions.append(eps)
            record.add(attempt("refuted", eps))
        assert questions


def test_a_failure_below_a_proof_is_out_of_date() -> None:
    record = started()
    record.add(attempt("unknown", Fraction(1, 4)))  # such as out of time
    record.add(attempt("proven", Fraction(1, 2)))
    assert failed(record, METHOD) is None
    assert Radius(METHOD, ONE).next(record) == ONE
    assert Grid(METHOD, grid(8)).next(record) in grid(8)[4:]
    record.add(attempt("unknown", ONE))
    assert failed(record, METHOD) == ONE
    assert Radius(METHOD, ONE).next(record) == Fraction(3, 4)


def test_a_failure_at_radius_zero_counts() -> None:
    record = started()
    record.add(attempt("unknown", Fraction(0)))
    assert failed(record, METHOD) == 0
    assert Radius(METHOD, ONE).next(record) is None


def test_no_radius_of_samples_that_are_wrong_or_not_evaluated() -> None:
    for record in (started(correct=False), Record()):
        assert Radius(METHOD, ONE).next(record) is None
        assert Radius(METHOD, ONE).open(record) == 0


def test_questions_are_floats_between_the_ends() -> None:
    record, most = started(), Fraction(1, 3)
    for eps in asked(Radius(METHOD, most), record, lambda e: "proven" if e < Fraction(1, 7) else "unknown"):
        assert eps == most or Fraction(float(eps)) == eps


# Agendas together; attacks


def test_both() -> None:
    agenda, record = Both(Grid(METHOD, grid(4)), Radius(METHOD, ONE)), started()
    assert agenda.open(record) == math.inf
    questions = asked(agenda, record, lambda e: "proven" if e <= Fraction(0.3) else "unknown")
    assert questions[:2] == [Fraction(3, 8), Fraction(1, 4)]
    assert len(questions) == len(set(questions))
    assert (
        record.proven(METHOD)
        <= Fraction(0.3)
        < failed(record, METHOD)
        <= record.proven(METHOD) * Fraction(128, 127)
    )
    assert agenda.open(record) <= 4


def test_proven_by_any() -> None:
    record = started()
    assert proven_by_any(record) is None
    record.add(attempt("proven", ONE, SMOOTHED))
    assert proven_by_any(record) is None  # says nothing of the network
    record.add(attempt("proven", Fraction(1, 2)))
    record.add(attempt("proven", Fraction(1, 4), "ibp"))
    assert proven_by_any(record) == Fraction(1, 2)


def test_attacks_where_nothing_is_known() -> None:
    radii, record = grid(6), started()
    assert unsettled(record, radii) == list(radii)
    record.add(attempt("proven", radii[0], "ibp"))
    record.add(attempt("proven", radii[5], SMOOTHED))
    record.add(adversarial(radii[4]))
    assert unsettled(record, radii) == list(radii[1:4])
    record.add(attempt("unknown", radii[2], ATTACK))
    record.add(attempt("unknown", radii[3]))
    assert unsettled(record, radii) == [radii[1], radii[3]]
    assert unsettled(started(correct=False), radii) == unsettled(Record(), radii) == []
