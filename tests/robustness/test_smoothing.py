"""Randomized smoothing on classifiers whose smoothed version is known in closed form."""

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from helpers import dense_model
from smoothing_models import SIGMA, at_distance, linear

from lpverify.config import Deadline
from lpverify.errors import InputError, UnsupportedError
from lpverify.io.onnx import Model
from lpverify.loading import LoadedNetwork
from lpverify.robustness.evidence import Attempt, Certifier, Question
from lpverify.robustness.samples import Samples
from lpverify.robustness.smoothing.certifier import SmoothingCertifier, smooth_certify, smooth_predict
from lpverify.robustness.smoothing.sampling import Classifier, NoisyInput
from lpverify.robustness.smoothing.settings import SmoothingSettings
from lpverify.robustness.smoothing.smoother import Smoother
from lpverify.robustness.threat import Threat

ALPHA = 0.05
RUNS = 1000
MOST_WRONG = ALPHA * RUNS + 3 * math.sqrt(RUNS * ALPHA * (1 - ALPHA))


def repeated(distance: float, **options: Any) -> list[Any]:
    """Independent certificates of the same point."""
    x = np.tile(at_distance(distance), (RUNS, 1))
    return smooth_certify(linear(), x, sigma=SIGMA, n0=20, alpha=ALPHA, **options)


@pytest.mark.parametrize("n", [100, 1000])
def test_radius_exceeds_the_true_one_as_rarely_as_promised(n: int) -> None:
    found = repeated(0.5, n=n)
    wrong = sum(c.radius > 0.5 or c.predicted == 1 for c in found)
    assert 5 <= wrong <= MOST_WRONG  # at least 5: the bound is no looser than it must be
    assert all(c.n == n and sum(c.counts) == n for c in found)


@pytest.mark.parametrize("distance", [0.375, 0.5])
def test_sequential_answers_are_as_rarely_wrong(distance: float) -> None:
    """Just beyond the true radius each look has a chance of being wrong: without correction they add up."""
    eps = math.nextafter(distance, 1.0)
    found = repeated(distance, n=12_800, eps=eps)
    assert 1 <= sum(c.certifies(eps) for c in found) <= MOST_WRONG
    assert sum(c.radius > distance or c.predicted == 1 for c in found) <= MOST_WRONG


def test_looks_without_correction_would_be_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    looks = SmoothingSettings.looks

    def uncorrected(self: SmoothingSettings, sequential: bool) -> Any:
        return tuple(type(k)(k.samples, self.alpha) for k in looks(self, sequential))

    monkeypatch.setattr(SmoothingSettings, "looks", uncorrected)
    eps = math.nextafter(0.5, 1.0)
    assert sum(c.certifies(eps) for c in repeated(0.5, n=12_800, eps=eps)) > MOST_WRONG


def test_certificates_are_not_much_smaller_than_the_true_radius() -> None:
    found = repeated(0.5, n=4000)
    assert np.mean([c.radius for c in found[:200]]) > 0.46


def test_predictions_on_the_boundary_are_rare() -> None:
    x = np.zeros((RUNS, 3))
    found = smooth_predict(linear(), x, sigma=SIGMA, n=200, alpha=ALPHA)
    assert 5 <= sum(p.predicted != -1 for p in found) <= MOST_WRONG
    assert all((p.predicted != -1) == (p.p_value <= ALPHA) for p in found)


def test_predictions_away_from_it_are_right() -> None:
    x = np.stack([at_distance(0.5), -at_distance(0.5)])
    assert [p.predicted for p in smooth_predict(linear(), x, sigma=SIGMA)] == [0, 1]


def test_class_that_comes_up_most_but_seldom_is_predicted_and_not_certified() -> None:
    """Classes 1, 2 and 3 share the probability of class 0's complement; none has a majority."""
    turns = np.array([[1.0, 0.0, 0.0], [-0.5, math.sqrt(0.75), 0.0], [-0.5, -math.sqrt(0.75), 0.0]]).T
    network = LoadedNetwork(dense_model([(turns, np.array([0.05, 0.0, 0.0]))]))
    (certificate,) = smooth_certify(network, np.zeros(3), sigma=SIGMA)
    (prediction,) = smooth_predict(network, np.zeros(3), sigma=SIGMA, n=20_000)
    assert certificate.abstained and certificate.radius == 0.0 and "nothing" in certificate.statement
    assert not certificate.certifies(0.0) and 0.0 < certificate.p_lower < 0.5
    assert prediction.predicted == 0


def test_results_do_not_depend_on_batches_or_company() -> None:
    x = np.random.default_rng(0).normal(size=(4, 3))
    whole = smooth_certify(linear(), x, sigma=SIGMA, n=700)
    for batch in (1, 7, 700):
        found = smooth_certify(linear(), x[[3, 1]], sigma=SIGMA, n=700, batch=batch, indices=[3, 1])
        assert [c.counts for c in found] == [whole[3].counts, whole[1].counts]
        assert [c.radius for c in found] == [whole[3].radius, whole[1].radius]
    assert smooth_certify(linear(), x, sigma=SIGMA, n=700, seed=1)[0].counts != whole[0].counts
    same = smooth_certify(linear(), np.tile(x[0], (2, 1)), sigma=SIGMA, n=700)
    assert same[0].counts == whole[0].counts != same[1].counts


def test_norms_are_converted_downwards() -> None:
    x = at_distance(1.0)
    two, one, most = (
        smooth_certify(linear(), x, sigma=SIGMA, n=500, norm=norm)[0].radius for norm in (2, 1, math.inf)
    )
    assert one == two > 0.0
    assert Fraction(most) ** 2 * 3 < Fraction(two) ** 2 < Fraction(most) ** 2 * 3 * (1 + Fraction(1, 10**14))


def test_inputs_between_numbers_of_the_model_lose_the_distance() -> None:
    settings = SmoothingSettings(SIGMA)
    point = NoisyInput(Classifier(linear().model), settings, np.array([0.1, 0.0, 0.3]), 0)
    square = sum((Fraction(v) - Fraction(float(np.float32(v)))) ** 2 for v in (0.1, 0.3))
    assert square <= Fraction(point.shift) ** 2 <= square * Fraction(1 + 1e-9)
    at, moved = settings.radius(0.9, 3, 2), settings.radius(0.9, 3, 2, point.shift)
    assert Fraction(moved) <= Fraction(at) - Fraction(point.shift)
    assert settings.radius(0.9, 3, 2, 10.0) == 0.0
    assert settings.radius(0.5, 3, 2) == 0.0


def test_clear_questions_stop_early_and_close_ones_do_not() -> None:
    x = at_distance(0.75)

    def used(eps: float) -> tuple[int, bool]:
        (found,) = smooth_certify(linear(), x, sigma=SIGMA, eps=eps)
        assert found.n == sum(found.counts)
        return found.n, found.certifies(eps)

    assert used(0.1) == (157, True)  # 10,000 halved until below 200
    count, certain = used(2.0)
    assert count < 1000 and not certain
    assert used(0.75)[0] == 10_000
    assert used(0.0) == (157, True)


def test_stopping_leaves_the_class_settled() -> None:
    """Where a radius is hopeless at once, sampling goes on until it is clear whether there is one at all."""
    (found,) = smooth_certify(linear(), at_distance(0.125), sigma=SIGMA, eps=1)
    assert found.n > 157 and found.predicted == 0 and 0.0 < found.radius < 0.125
    (none,) = smooth_certify(linear(classes=3), np.zeros(3), sigma=SIGMA, eps=1)
    assert none.abstained


def test_looks_spend_no_more_than_alpha() -> None:
    for n in (1, 99, 200, 12_345):
        settings = SmoothingSettings(SIGMA, n=n)
        looks = settings.looks(True)
        assert looks[-1].samples == n
        assert all(a.samples < b.samples for a, b in itertools.pairwise(looks))
        assert sum(Fraction(look.alpha) for look in looks) <= Fraction(settings.alpha)
        assert [(k.samples, k.alpha) for k in settings.looks(False)] == [(n, 0.001)]


CENTRES = (0.75, 0.125, -0.75, 0.0)  # distances to the boundary; labels are 0


def certifier(n: int = 2000, norm: float = 2, labels: int = 0, end: float = math.inf) -> SmoothingCertifier:
    x = np.stack([at_distance(d) for d in CENTRES])
    samples = Samples(x, np.full(4, labels), tuple("abcd"), (3,))
    settings = SmoothingSettings(SIGMA, n=n)
    return SmoothingCertifier(linear().model, samples, Threat(2, norm), settings, Deadline(end))


def verdicts(found: list[Attempt]) -> list[tuple[int, Fraction, str]]:
    return [(a.sample, a.eps, a.verdict) for a in found]


HALF, TWO, TENTH = Fraction(1, 2), Fraction(2), Fraction(1, 10)


@pytest.mark.parametrize("several", [False, True])
def test_certifier(several: bool) -> None:
    method: Certifier = certifier()
    radii = (HALF, TWO) if several else (HALF,)
    found = list(method.answer([Question(i, eps) for eps in radii for i in range(4)]))
    by_half = {a.sample: a for a in found if a.eps == HALF}
    assert [by_half[i].verdict for i in range(4)] == ["proven", "unknown", "refuted", "refuted"]
    assert "radius" in by_half[1].reason and "answers 1" in by_half[2].reason
    assert "abstains" in by_half[3].reason
    assert all(a.method == a.stage == "smoothing" and a.seconds >= 0 for a in found)
    if several:
        assert {a.sample: a.verdict for a in found if a.eps == TWO}[0] == "unknown"
        assert len(found) == 8


def drawn(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Fraction | None, bool]]:
    """What certificates are asked for from now on."""
    calls: list[tuple[Fraction | None, bool]] = []
    original = Smoother.certificate

    def spy(self: Smoother, x: Any, index: int, asked: Any = None, sequential: bool = False) -> Any:
        calls.append((asked, sequential))
        return original(self, x, index, asked, sequential)

    monkeypatch.setattr(Smoother, "certificate", spy)
    return calls


def test_radii_of_one_sample_share_their_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, method = drawn(monkeypatch), certifier()
    found = list(method.answer([Question(0, e) for e in (HALF, TENTH, TWO)]))
    assert verdicts(found) == [(0, HALF, "proven"), (0, TENTH, "proven"), (0, TWO, "unknown")]
    assert [a.verdict for a in method.answer([Question(0, Fraction(3, 10))])] == ["proven"]
    assert calls == [(None, False)]


def test_questions_one_after_the_other_keep_the_confidence(monkeypatch: pytest.MonkeyPatch) -> None:
    calls, method = drawn(monkeypatch), certifier()
    for eps in (TENTH, HALF, TWO):
        list(method.answer([Question(0, eps)]))
    assert calls == [(TENTH, False), (None, True)]


def test_radii_are_compared_exactly() -> None:
    (radius,) = {c.radius for c in smooth_certify(linear(), at_distance(0.75), sigma=SIGMA, n=2000)}
    at = Fraction(radius)
    found = list(certifier().answer([Question(0, at), Question(0, at + Fraction(1, 10**30))]))
    assert [a.verdict for a in found] == ["proven", "unknown"]


def test_certifier_uses_the_norm_of_the_threat() -> None:
    between = Question(0, HALF)  # 0.75 / sqrt(3) is less
    assert [a.verdict for a in certifier(norm=1).answer([between])] == ["proven"]
    assert [a.verdict for a in certifier(norm=math.inf).answer([between])] == ["unknown"]


def test_abstaining_is_no_class() -> None:
    assert [a.verdict for a in certifier(labels=-1).answer([Question(3, TENTH)])] == ["refuted"]


def test_deadline() -> None:
    assert list(certifier(end=0.0).answer([Question(0, HALF)])) == []


def test_certifier_refuses_what_does_not_fit() -> None:
    samples = Samples(np.zeros((1, 3)), np.zeros(1, int), ("a",), (3,))
    settings = SmoothingSettings(SIGMA)
    with pytest.raises(InputError, match="classes"):
        SmoothingCertifier(linear().model, samples, Threat(3), settings)
    wide = Samples(np.zeros((1, 4)), np.zeros(1, int), ("a",), (4,))
    with pytest.raises(InputError, match="4 numbers"):
        SmoothingCertifier(linear().model, wide, Threat(2), settings)


BAD_OPTIONS: list[dict[str, Any]] = [
    *({"sigma": v} for v in (0.0, -1.0, math.nan, math.inf, 1e-60, 1e60, "1", True)),
    *({"n": v} for v in (0, -1, 2.0, math.nan, True, 10**9)),
    *({"n0": v} for v in (0, 1.5)),
    *({"alpha": v} for v in (0.0, 1.0, -0.1, 1.5, math.nan, "0.1")),
    *({"seed": v} for v in (-1, 0.5, 2**32)),
    *({"batch": v} for v in (0, 2**20)),
    *({"norm": v} for v in (3, 0, math.nan)),
    *({"eps": v} for v in (-1, math.nan, math.inf, "1/2")),
    *({"indices": v} for v in ([], [0, 1], [-1], [0.5], [2**32])),
]


@pytest.mark.parametrize("options", BAD_OPTIONS, ids=str)
def test_bad_options(options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=next(iter(options))):
        smooth_certify(linear(), np.zeros(3), **{"sigma": SIGMA, "n": 10, **options})


@pytest.mark.parametrize(
    "x", [np.zeros(4), np.zeros((2, 4)), [math.nan] * 3, [math.inf] * 3, [1e39] * 3, 0.0]
)
def test_bad_inputs(x: Any) -> None:
    with pytest.raises(InputError, match="x"):
        smooth_certify(linear(), x, sigma=SIGMA, n=10)
    with pytest.raises(InputError, match="x"):
        smooth_predict(linear(), x, sigma=SIGMA, n=10)


def test_shapes_and_paths(tmp_path: Path) -> None:
    path = tmp_path / "linear.onnx"
    path.write_bytes(linear().model.serialized)
    for x in (np.zeros(3), np.zeros((1, 3)), np.zeros((1, 1, 3))):
        assert len(smooth_certify(path, x, sigma=SIGMA, n=10)) == 1
    assert len(smooth_predict(str(path), np.zeros((5, 1, 3)), sigma=SIGMA, n=10)) == 5
    assert smooth_certify(path, np.zeros((0, 3)), sigma=SIGMA) == []


def one_output() -> Model:
    return dense_model([(np.ones((3, 1)), np.zeros(1))])


@pytest.mark.parametrize("make", [one_output])
def test_bad_networks(make: Callable[[], Model]) -> None:
    with pytest.raises((InputError, UnsupportedError), match="two classes"):
        smooth_certify(LoadedNetwork(make()), np.zeros(3), sigma=SIGMA)


def test_statement_says_what_is_certified() -> None:
    (found,) = smooth_certify(linear(), at_distance(0.5), sigma=SIGMA)
    assert "smoothed" in found.statement and "not the network itself" in found.statement
