"""All findings of a run."""

from collections.abc import Iterable, Sequence
from fractions import Fraction

import numpy as np
import pytest

from lpverify.robustness.agenda import Grid
from lpverify.robustness.evidence import Adversarial, Attempt, Clean, Finding, Question
from lpverify.robustness.ledger import CHUNK, Ledger

QUARTER, HALF, ONE = Fraction(1, 4), Fraction(1, 2), Fraction(1)


class Memory:
    """A store that survives nothing; counts what it is given at a time."""

    def __init__(self, findings: Sequence[Finding] = ()) -> None:
        self.kept: list[Finding] = list(findings)
        self.sizes: list[int] = []

    def add(self, findings: Sequence[Finding]) -> None:
        self.kept += findings
        self.sizes.append(len(findings))

    def findings(self) -> Iterable[Finding]:
        return iter(self.kept)


class Full(Memory):
    """A store that refuses everything."""

    def add(self, findings: Sequence[Finding]) -> None:
        raise OSError("disk full")


def proof(eps, method="ibp", sample=0, seconds=1.0) -> Attempt:
    return Attempt(sample, method, eps, "proven", f"stage of {method}", seconds)


def adopted(ledger: Ledger, method="crown", sample=0) -> list[Attempt]:
    return ledger.records[sample].proofs.get(method, [])


def same(ledger: Ledger, count: int) -> bool:
    """Whether the store alone says what the ledger says."""
    return Ledger(count, Memory(ledger.store.kept)).records == ledger.records


# Keeping


def test_what_is_kept_is_in_the_store() -> None:
    ledger = Ledger(3, Memory())
    findings = [Clean(1, 0, True, 1.0), proof(HALF, sample=1), Adversarial(2, np.zeros(1), 1, ONE, "pgd")]
    ledger.keep(findings)
    assert ledger.store.kept == findings
    assert ledger.store.sizes == [3]
    assert ledger.records[1].verdict("ibp", HALF) == "proven"
    assert ledger.records[2].refuted == ONE
    assert ledger.right() == [1]
    assert same(ledger, 3)


def test_what_earlier_runs_found_is_known() -> None:
    ledger = Ledger(2, Memory([Clean(0, 0, False, -1.0), Clean(1, 0, True, 1.0), proof(HALF, sample=1)]))
    assert ledger.right() == [1]
    assert ledger.records[1].proven("ibp") == HALF
    assert ledger.store.sizes == []


def test_a_store_that_fails() -> None:
    ledger = Ledger(1, Full())
    for keep in (ledger.keep, ledger.keep_all):
        with pytest.raises(OSError, match="disk full"):
            keep([proof(HALF)])
    assert ledger.records[0].proven("ibp") is None


@pytest.mark.parametrize("count", [0, 1, CHUNK, CHUNK + 1, 3 * CHUNK])
def test_many_are_kept_in_chunks(count) -> None:
    ledger = Ledger(1, Memory())
    ledger.keep_all(proof(Fraction(i + 1, 1000)) for i in range(count))
    assert len(ledger.store.kept) == len(adopted(ledger, "ibp")) == count
    assert max(ledger.store.sizes, default=0) <= CHUNK
    assert len(ledger.store.sizes) == -(-count // CHUNK)


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_came_before_an_error_is_kept(error) -> None:
    ledger = Ledger(1, Memory())

    def findings():
        for i in range(CHUNK + 2):
            yield proof(Fraction(i + 1, 1000))
        raise error

    with pytest.raises(error):
        ledger.keep_all(findings())
    assert ledger.store.sizes == [CHUNK, 2]
    assert ledger.records[0].proven("ibp") == Fraction(CHUNK + 2, 1000)
    assert same(ledger, 1)


# Asking


def test_questions() -> None:
    ledger = Ledger(4, Memory([Clean(i, 0, i != 1, 1.0) for i in range(4)]))
    ledger.keep([proof(ONE, sample=2), proof(QUARTER, sample=3)])
    grid = Grid("ibp", (QUARTER, HALF, ONE))
    assert ledger.questions(grid) == [Question(0, HALF), Question(3, ONE)]
    assert ledger.questions(Grid("ibp", ())) == []


# Adopting


def test_proofs_on_the_grid_and_the_furthest_are_adopted() -> None:
    ledger = Ledger(2, Memory())
    ledger.keep([proof(QUARTER), proof(Fraction(3, 8)), proof(HALF), proof(Fraction(5, 8))])
    ledger.adopt("crown", ["ibp"], [QUARTER, HALF, ONE])
    assert [a.eps for a in adopted(ledger)] == [QUARTER, HALF, Fraction(5, 8)]
    assert {(a.stage, a.seconds, a.verdict) for a in adopted(ledger)} == {("stage of ibp", 1.0, "proven")}
    assert adopted(ledger, sample=1) == []
    assert len(adopted(ledger, "ibp")) == 4
    assert ledger.records[0].decided_by("crown", HALF) == "stage of ibp"
    assert same(ledger, 2)


def test_proofs_are_adopted_once() -> None:
    ledger = Ledger(1, Memory())
    ledger.keep([proof(HALF), proof(HALF), proof(HALF, "forward"), proof(ONE, "forward")])
    for _ in range(2):
        ledger.adopt("crown", ["ibp", "forward"], [HALF])
        assert [(a.eps, a.stage) for a in adopted(ledger)] == [
            (HALF, "stage of ibp"),
            (ONE, "stage of forward"),
        ]
    assert len(ledger.store.kept) == 6
    resumed = Ledger(1, ledger.store)
    resumed.adopt("crown", ["ibp", "forward"], [HALF])
    assert len(ledger.store.kept) == 6


def test_own_proofs_stay() -> None:
    ledger = Ledger(1, Memory())
    ledger.keep([proof(HALF, "crown"), proof(HALF, "ibp"), proof(QUARTER, "ibp")])
    ledger.adopt("crown", ["ibp", "crown"], [QUARTER, HALF])
    assert [(a.eps, a.stage) for a in adopted(ledger)] == [
        (HALF, "stage of crown"),
        (QUARTER, "stage of ibp"),
    ]


def test_an_adopted_proof_replaces_a_failure() -> None:
    ledger = Ledger(1, Memory([Clean(0, 0, True, 1.0)]))
    ledger.keep([Attempt(0, "crown", HALF, "unknown", "crown", 1.0), proof(HALF)])
    ledger.adopt("crown", ["ibp"], [HALF])
    assert ledger.records[0].tried["crown", HALF].verdict == "proven"
    assert ledger.questions(Grid("crown", (HALF, ONE))) == [Question(0, ONE)]


def test_only_the_given_sources_and_only_proofs_are_adopted() -> None:
    ledger = Ledger(1, Memory())
    ledger.keep([proof(HALF, "smoothing"), Attempt(0, "ibp", HALF, "unknown", "ibp", 1.0)])
    ledger.adopt("crown", ["ibp", "forward"], [HALF])
    assert adopted(ledger) == []
    assert ledger.records[0].verdict("crown", HALF) == "unknown"


def test_many_proofs_are_adopted_in_few_steps() -> None:
    ledger = Ledger(3 * CHUNK, Memory())
    ledger.keep_all(proof(HALF, sample=i) for i in range(3 * CHUNK))
    ledger.store.sizes.clear()
    ledger.adopt("crown", ["ibp"], [HALF])
    assert ledger.store.sizes == [CHUNK] * 3
