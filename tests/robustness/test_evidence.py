"""What findings say together."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from lpverify.robustness.evidence import SMOOTHED, Adversarial, Attempt, Clean, Record, records_of

QUARTER, HALF, ONE = Fraction(1, 4), Fraction(1, 2), Fraction(1)
RADII = (QUARTER, HALF, ONE)
METHODS = ("crown", SMOOTHED)


def clean(correct=True, sample=0) -> Clean:
    return Clean(sample, 0 if correct else 1, correct, 1.0 if correct else -1.0)


def attempt(verdict, eps, method="crown", stage="crown", sample=0) -> Attempt:
    return Attempt(sample, method, eps, verdict, stage, 1.0)


def adversarial(distance, source="pgd", sample=0) -> Adversarial:
    return Adversarial(sample, np.zeros(2), 1, distance, source)


def record(*findings) -> Record:
    return records_of(1, findings)[0]


def expected(cleaned, proven, refuted, denied, method, eps) -> str:
    """The verdict by cases, for evidence about one method."""
    if method == SMOOTHED:
        if proven is not None and eps <= proven:
            return "proven"
        return "refuted" if denied == eps else "unknown"
    if cleaned is False or (refuted is not None and eps >= refuted):
        return "refuted"
    return "proven" if proven is not None and eps <= proven else "unknown"


@pytest.mark.parametrize("method", METHODS)
def test_verdicts_of_all_combinations(method) -> None:
    ends = (None, *RADII)
    for cleaned, proven, refuted, denied in itertools.product((None, True, False), ends, ends, ends):
        findings = [] if cleaned is None else [clean(cleaned)]
        findings += [] if denied is None else [attempt("refuted", denied, method)]
        findings += [] if proven is None or proven == denied else [attempt("proven", proven, method)]
        findings += [] if refuted is None else [adversarial(refuted)]
        found, proof = record(*findings), None if proven == denied else proven
        for eps in (Fraction(0), Fraction(1, 8), *RADII, Fraction(2)):
            verdict = expected(cleaned, proof, refuted, denied, method, eps)
            assert found.verdict(method, eps) == verdict, (cleaned, proof, refuted, denied, eps)


def test_a_counterexample_outweighs_a_proof() -> None:
    found = record(clean(), attempt("proven", ONE), adversarial(HALF))
    assert [found.verdict("crown", e) for e in RADII] == ["proven", "refuted", "refuted"]
    assert [found.decided_by("crown", e) for e in RADII] == ["crown", "pgd", "pgd"]
    assert (found.proven("crown"), found.refuted) == (ONE, HALF)


def test_methods_do_not_lend_proofs_to_others() -> None:
    found = record(clean(), attempt("proven", ONE, "ibp"), attempt("proven", ONE, SMOOTHED))
    assert found.verdict("ibp", ONE) == found.verdict(SMOOTHED, ONE) == "proven"
    assert found.verdict("crown", ONE) == "unknown"
    assert found.proven("crown") is None


def test_smoothing_stands_alone() -> None:
    network = record(clean(correct=False), adversarial(QUARTER), attempt("proven", HALF, SMOOTHED))
    assert [network.verdict(SMOOTHED, e) for e in RADII] == ["proven", "proven", "unknown"]
    assert [network.verdict("crown", e) for e in RADII] == ["refuted"] * 3
    smoothed = record(clean(), attempt("refuted", HALF, SMOOTHED, "abstained"))
    assert smoothed.verdict("crown", HALF) == "unknown"
    assert smoothed.decided_by(SMOOTHED, HALF) == "abstained"
    assert smoothed.refuted is None


def test_a_refuted_attempt_without_its_counterexample_says_nothing() -> None:
    assert record(clean(), attempt("refuted", HALF)).verdict("crown", HALF) == "unknown"


def test_a_later_failure_does_not_take_a_proof_back() -> None:
    found = record(clean(), attempt("proven", HALF), attempt("unknown", HALF))
    assert found.verdict("crown", HALF) == "proven"
    assert found.tried["crown", HALF].verdict == "unknown"


@pytest.mark.parametrize(
    ("findings", "eps", "stage"),
    [
        ([], HALF, ""),
        ([clean(correct=False), adversarial(QUARTER)], ONE, "clean"),
        ([clean(correct=False)], ONE, "clean"),
        ([adversarial(HALF, "far"), adversarial(QUARTER, "near")], ONE, "near"),
        ([attempt("unknown", ONE, stage="search")], ONE, "search"),
        ([attempt("unknown", ONE, stage="search")], HALF, ""),
        ([attempt("proven", ONE, stage="dear"), attempt("proven", HALF, stage="cheap")], QUARTER, "cheap"),
        ([attempt("proven", ONE, stage="dear"), attempt("proven", HALF, stage="cheap")], HALF, "cheap"),
        ([attempt("proven", HALF, stage="cheap"), attempt("proven", ONE, stage="dear")], ONE, "dear"),
        ([attempt("proven", HALF, stage="cheap"), attempt("unknown", ONE, stage="dear")], ONE, "dear"),
    ],
)
def test_decided_by(findings, eps, stage) -> None:
    assert record(*findings).decided_by("crown", eps) == stage


def test_smoothing_is_never_decided_by_the_network() -> None:
    found = record(clean(correct=False), adversarial(QUARTER), attempt("refuted", ONE, SMOOTHED, "smoothing"))
    assert found.decided_by(SMOOTHED, ONE) == "smoothing"
    assert found.decided_by(SMOOTHED, HALF) == ""


def test_the_order_of_findings_does_not_matter() -> None:
    findings = [
        clean(),
        attempt("proven", QUARTER),
        attempt("proven", HALF),
        adversarial(Fraction(3, 4), "near"),
        adversarial(ONE, "far"),
        attempt("unknown", ONE),
    ]
    radii, said = (Fraction(0), QUARTER, Fraction(3, 8), HALF, Fraction(5, 8), Fraction(3, 4), ONE), set()
    for order in itertools.permutations(findings):
        found = record(*order)
        said.add(tuple((found.verdict("crown", e), found.decided_by("crown", e)) for e in radii))
        assert (found.refuted, found.proven("crown")) == (Fraction(3, 4), HALF)
    assert len(said) == 1


def test_the_first_of_equally_near_counterexamples_stays() -> None:
    assert record(adversarial(HALF, "first"), adversarial(HALF, "second")).nearest.source == "first"


def test_records_are_by_sample() -> None:
    found = records_of(
        3, iter([clean(sample=2), attempt("proven", HALF, sample=0), adversarial(ONE, sample=2)])
    )
    assert [r.clean is not None for r in found] == [False, False, True]
    assert [r.proven("crown") for r in found] == [HALF, None, None]
    assert [r.refuted for r in found] == [None, None, ONE]
    assert records_of(0, []) == []
    with pytest.raises(IndexError):
        records_of(2, [clean(sample=2)])
