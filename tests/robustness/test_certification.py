"""Outcomes of data sets: rows, radii, the table; statistics of shares."""

import csv
import io
import itertools
import math
from fractions import Fraction

import numpy as np
import pytest

from lpverify.errors import InputError
from lpverify.robustness import tables
from lpverify.robustness.certification import Certification, Row
from lpverify.robustness.evidence import SMOOTHED, Adversarial, Attempt, Clean, records_of
from lpverify.robustness.metrics import wilson
from lpverify.robustness.samples import Samples
from lpverify.robustness.tables import COLUMNS, lines_of
from lpverify.robustness.threat import Threat

THIRD, HALF, ONE = Fraction(1, 3), Fraction(1, 2), Fraction(1)
EPS = (THIRD, HALF, ONE)


def certification(count, findings, methods=("crown",), eps=EPS) -> Certification:
    samples = Samples(np.zeros((count, 2)), np.arange(count) % 2, tuple(f"n{i}" for i in range(count)), (2,))
    return Certification(samples, Threat(2), eps, methods, tuple(records_of(count, findings)), {})


def attempt(sample, verdict, eps, method="crown", seconds=0.5, reason="") -> Attempt:
    return Attempt(sample, method, eps, verdict, method, seconds, reason)


def by_hand() -> Certification:
    """Proven to 1/2, attacked at 1; wrong; nothing known; a counterexample below a proof; not evaluated."""
    findings = [
        *(Clean(i, i % 2, i != 1, 1.0) for i in range(4)),
        attempt(0, "proven", HALF),
        attempt(0, "unknown", ONE, reason="the bound is too loose"),
        Adversarial(0, np.zeros(2), 1, ONE, "pgd"),
        attempt(1, "proven", ONE),
        attempt(2, "unknown", THIRD, seconds=2.0),
        attempt(3, "proven", ONE),
        Adversarial(3, np.zeros(2), 0, THIRD, "square"),
        *(attempt(i, "proven", HALF, SMOOTHED) for i in (0, 1)),
        attempt(2, "refuted", HALF, SMOOTHED),
    ]
    return certification(5, findings, ("crown", SMOOTHED))


# Rows


def test_rows_by_hand() -> None:
    rows = by_hand().rows()
    assert [(r.method, r.eps) for r in rows] == [(m, e) for m in ("crown", SMOOTHED) for e in EPS]
    counts = [(r.proven, r.refuted, r.unknown) for r in rows]
    assert counts == [(1, 2, 2), (1, 2, 2), (0, 3, 2), (2, 0, 3), (2, 1, 2), (0, 0, 5)]
    assert [r.seconds for r in rows] == [2.0, 0.5, 1.5, 0, 1.5, 0]
    assert (rows[0].certified_accuracy, rows[0].empirical_accuracy) == (0.2, 0.6)
    assert by_hand().clean_accuracy == 0.75
    assert by_hand().verdict(0, "crown", HALF) == "proven"
    assert by_hand().verdict(3, "crown", HALF) == "refuted"


def random_certification(rng, count) -> Certification:
    findings = []
    for i in range(count):
        if rng.random() < 0.9:
            findings.append(Clean(i, 0, bool(rng.random() < 0.8), 0.0))
        for method in ("ibp", "crown"):
            for eps in EPS:
                verdict = str(rng.choice(["proven", "refuted", "unknown"]))
                findings += [attempt(i, verdict, eps, method)] * bool(rng.random() < 0.4)
        if rng.random() < 0.4:
            near = Fraction(int(rng.integers(0, 9)), 6)
            findings.append(Adversarial(i, np.zeros(2), 1, near, "pgd"))
    return certification(count, findings, ("ibp", "crown"))


@pytest.mark.parametrize("seed", range(10))
def test_rows_of_anything(seed) -> None:
    found = random_certification(np.random.default_rng(seed), 17)
    for row in found.rows():
        assert row.count == 17 == row.proven + row.refuted + row.unknown
        assert row.certified_accuracy <= row.empirical_accuracy
        share = row.unknown / 17
        assert row.empirical_accuracy - row.certified_accuracy == pytest.approx(share, abs=1e-12)
        low, high = row.certified_interval
        assert 0 <= low <= row.certified_accuracy <= high <= 1
        assert row.empirical_interval == wilson(17 - row.refuted, 17)
    rows = found.rows()
    for first, second in itertools.pairwise(rows):
        if first.method == second.method:  # ascending radii
            assert first.proven >= second.proven
            assert first.refuted <= second.refuted


@pytest.mark.parametrize("seed", range(10))
def test_radii_of_anything(seed) -> None:
    found = random_certification(np.random.default_rng(seed), 17)
    for method in found.methods:
        radii = found.radii(method)
        assert (radii.lower <= radii.upper).all()
        assert (radii.lower >= 0).all()
        for i, record in enumerate(found.records):
            wrong = record.clean is not None and not record.clean.correct
            assert radii.upper[i] == (
                0 if wrong else float(record.refuted or math.inf) if record.refuted != 0 else 0
            )
            proven = float(record.proven(method) or 0)
            assert radii.lower[i] == min(proven, radii.upper[i])


def test_radii_by_hand() -> None:
    crown, smoothed = (by_hand().radii(m) for m in ("crown", SMOOTHED))
    assert crown.lower.tolist() == [0.5, 0, 0, 1 / 3, 0]
    assert crown.upper.tolist() == [1, 0, math.inf, 1 / 3, math.inf]
    assert crown.average == pytest.approx((1 / 2 + 1 / 3) / 5)
    assert crown.average_upper == math.inf
    assert smoothed.lower.tolist() == [0.5, 0.5, 0, 0, 0]
    assert smoothed.upper.tolist() == [math.inf] * 5
    known = certification(2, [Adversarial(i, np.zeros(2), 1, Fraction(i + 1, 2), "pgd") for i in (0, 1)])
    assert known.radii("crown").average_upper == 0.75


def test_without_samples() -> None:
    nothing = certification(0, [])
    (row, *_) = nothing.rows()
    assert row.count == 0
    assert all(map(math.isnan, (row.certified_accuracy, row.empirical_accuracy, nothing.clean_accuracy)))
    assert row.certified_interval == row.empirical_interval == (0, 1)
    radii = nothing.radii("crown")
    assert (len(radii.lower), len(radii.upper)) == (0, 0)
    assert math.isnan(radii.average)
    assert math.isnan(radii.average_upper)
    assert list(lines_of(nothing)) == []


def test_clean_accuracy_of_samples_that_were_evaluated() -> None:
    assert math.isnan(certification(2, []).clean_accuracy)
    assert certification(2, [Clean(1, 1, True, 1.0)]).clean_accuracy == 1


# The table


def test_the_table() -> None:
    found = by_hand()
    lines = list(lines_of(found))
    assert len(lines) == 5 * 2 * 3
    assert all(len(line) == len(COLUMNS) for line in lines)
    table = {
        (d["sample"], d["method"], d["eps"]): d for d in (dict(zip(COLUMNS, v, strict=True)) for v in lines)
    }
    assert table[0, "crown", "1"] == {
        "sample": 0,
        "name": "n0",
        "label": 0,
        "predicted": 0,
        "correct": True,
        "method": "crown",
        "eps": "1",
        "radius": 1.0,
        "verdict": "refuted",
        "stage": "pgd",
        "seconds": 0.5,
        "attacked": True,
        "distance": 1.0,
        "reason": "the bound is too loose",
    }
    near = table[0, "crown", "1/3"]
    assert (near["verdict"], near["seconds"], near["attacked"], near["distance"]) == (
        "proven",
        None,
        False,
        1,
    )
    assert (near["radius"], near["stage"], near["reason"]) == (1 / 3, "crown", "")
    open_ = table[4, "crown", "1/2"]
    assert [open_[c] for c in ("predicted", "correct", "distance", "stage", "seconds")] == [None] * 3 + [
        "",
        None,
    ]
    assert table[3, "crown", "1/3"]["attacked"]  # on the surface
    assert table[1, "crown", "1/3"]["stage"] == "clean"


def test_pandas() -> None:
    found = by_hand()
    frame = found.to_pandas()
    assert tuple(frame.columns) == COLUMNS
    assert len(frame) == len(list(lines_of(found)))
    counts = frame[frame.verdict == "proven"].groupby(["method", "eps"]).size().to_dict()
    assert counts == {(r.method, str(r.eps)): r.proven for r in found.rows() if r.proven}
    text = io.StringIO(frame.to_csv(index=False))
    assert [d["verdict"] for d in csv.DictReader(text)] == frame.verdict.tolist()
    assert tuple(certification(0, []).to_pandas().columns) == COLUMNS


def test_pandas_is_missing(monkeypatch) -> None:
    monkeypatch.setattr(tables, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="need pandas"):
        by_hand().to_pandas()


# Shares


@pytest.mark.parametrize("count", [1, 2, 3, 10, 97, 10**6])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.999])
def test_wilson_against_scipy(count, level) -> None:
    from scipy.stats import binomtest

    for hits in sorted({0, 1, count // 3, count - 1, count}):
        expected = binomtest(hits, count).proportion_ci(level, method="wilson")
        assert wilson(hits, count, level) == pytest.approx((expected.low, expected.high), rel=1e-9, abs=1e-12)


def test_wilson_solves_its_equation() -> None:
    """The ends p are where `|hits / count - p| = z sqrt(p (1 - p) / count)`."""
    z = 1.959963984540054
    for hits, count in ((1, 7), (30, 100), (99, 100)):
        for p in wilson(hits, count):
            assert abs(hits / count - p) == pytest.approx(z * math.sqrt(p * (1 - p) / count), rel=1e-9)


def test_wilson_at_the_ends() -> None:
    assert wilson(0, 0) == (0, 1)
    for count in range(1, 200):
        assert wilson(0, count)[0] == 0
        assert wilson(count, count)[1] == 1
        for hits in (0, 1, count - 1, count):
            low, high = wilson(hits, count)
            assert 0 <= low <= hits / count <= high <= 1


def test_a_row_is_exact_about_its_radius() -> None:
    assert Row("crown", THIRD, 1, 1, 2, 0.0).count == 4
    assert next(r.eps for r in by_hand().rows()) == Fraction(1, 3)
