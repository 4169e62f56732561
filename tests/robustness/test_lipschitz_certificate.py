"""Radii from Lipschitz constants against complete verification and sampled counterexamples."""

from fractions import Fraction
from math import inf

import numpy as np
import pytest
from helpers import dense_model, random_dense

from lpverify.config import Config, Deadline
from lpverify.robustness.bounders import BatchedBounds
from lpverify.robustness.evidence import Question
from lpverify.robustness.lipschitz import LipschitzCertifier
from lpverify.robustness.margins import Margins
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat
from lpverify.verdict import Unsat
from lpverify.verify import verify_query

NORMS = (1, 2, inf)


def data(model, count=6, seed=0, wrong=0):
    """Random samples; all but some have the network's own answers as labels."""
    rng = np.random.default_rng(seed)
    x = np.asarray(rng.uniform(-1, 1, size=(count, model.network.input_size)), np.float32).astype(np.float64)
    y = model.network(x).argmax(axis=1)
    y[:wrong] = (y[:wrong] + 1) % model.outputs.sizes[0]
    return Samples(x, y.astype(np.int64), tuple(map(str, range(count))), (x.shape[1],))


def certifier(seed=0, norm=2, sizes=(3, 10, 8, 3), clip=None, wrong=0, targets="all", **options):
    model = random_dense(seed, sizes)
    samples = data(model, seed=seed, wrong=wrong)
    threat = Threat(model.outputs.sizes[0], norm, clip, targets)
    margins = Margins.of(model, samples, threat, Config())
    return LipschitzCertifier(margins, **options), model


def inside(rng, norm, count, n):
    """Points of the unit ball, most of them near its border."""
    raw = rng.normal(size=(count, n)) if norm == 2 else rng.laplace(size=(count, n))
    raw = rng.choice([-1.0, 1.0], size=(count, n)) if norm == inf else raw
    return raw / np.linalg.norm(raw, norm, axis=1)[:, None] * rng.choice([0.999999, 0.5], (count, 1))


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("norm", NORMS)
def test_no_sampled_point_within_a_radius_is_wrong(seed, norm):
    found, model = certifier(seed, norm, seconds=0)
    radii, rng, samples = found.radii(range(6)), np.random.default_rng(seed), found.margins.samples
    for i, radius in enumerate(radii):
        assert radius > 0
        for _ in range(3):
            points = samples.x[i] + float(radius) * inside(rng, norm, 500, 3)
            assert (model.network(points).argmax(axis=1) == samples.y[i]).all()


@pytest.mark.parametrize("seed", range(6))
def test_complete_verification_agrees(seed):
    found, model = certifier(seed, inf, seconds=0)
    samples = found.margins.samples
    for i, radius in enumerate(found.radii(range(4))):
        query = found.margins.threat.query(samples.x[i], int(samples.y[i]), radius)
        verdict = verify_query(model, query, Config(deadline=Deadline.after(10)))
        assert isinstance(verdict, Unsat)


def nearest_wrong(model, x, label, norm):
    """The distance of the nearest wrong point that a search along many directions meets."""
    rng = np.random.default_rng(0)
    best = inf
    for step in inside(rng, norm, 300, len(x)):
        scales = np.geomspace(1e-3, 5, 200)
        wrong = model.network(x + scales[:, None] * step).argmax(axis=1) != label
        if wrong.any():
            best = min(best, scales[wrong.argmax()] * np.linalg.norm(step, norm))
    return best


@pytest.mark.parametrize("seed", range(3))
def test_radii_are_below_counterexamples_and_worth_something(seed):
    found, model = certifier(seed, 2)
    samples = found.margins.samples
    shares = []
    for i, radius in enumerate(found.radii(range(6))):
        near = nearest_wrong(model, samples.x[i], samples.y[i], 2)
        assert radius <= near
        shares.append(float(radius) / near)
    assert np.median(shares) > 0.3


@pytest.mark.parametrize("norm", NORMS)
def test_local_constants_extend_radii(norm):
    found, _ = certifier(1, norm)
    both = found.found_radii(range(6))
    assert any(r.stage == "local" for r in both)
    leads = found._leads(range(6))
    for i, radius in enumerate(both):
        assert radius.value >= found._global(i, leads[i]).value


@pytest.mark.parametrize("norm", NORMS)
def test_answers_agree_with_radii(norm):
    found, _ = certifier(2, norm, seconds=0)
    radii = found.radii(range(6))
    questions = [Question(i, r * f) for i, r in enumerate(radii) for f in (Fraction(1, 2), 1, 50)]
    answers = {(a.sample, a.eps): a for a in found.answer(questions)}
    assert len(answers) == len(questions)
    for question in questions:
        attempt = answers[question.sample, question.eps]
        assert attempt.method == "lipschitz"
        assert (attempt.verdict == "proven") == (attempt.margin > 0)
        if question.eps <= radii[question.sample]:
            assert attempt.verdict == "proven"
        assert attempt.verdict == "proven" or attempt.reason


def test_margins_are_lower_bounds_of_leads():
    found, model = certifier(3, 2, seconds=0)
    samples, rng = found.margins.samples, np.random.default_rng(0)
    for attempt in found.answer([Question(i, Fraction(1, 50)) for i in range(6)]):
        points = samples.x[attempt.sample] + 0.02 * inside(rng, 2, 400, 3)
        out = model.network(points)
        label = samples.y[attempt.sample]
        rivals = np.delete(out, label, axis=1).max(axis=1)
        assert attempt.margin <= (out[:, label] - rivals).min() + 1e-12


def test_misclassified_samples_have_no_radius():
    found, _ = certifier(0, 2, wrong=3, seconds=0)
    radii = found.radii(range(6))
    assert radii[:3] == [0, 0, 0] and min(radii[3:]) > 0
    assert [a.verdict for a in found.answer([Question(i, Fraction(0)) for i in range(6)])].count(
        "proven"
    ) == 3
    assert found.radii([]) == []


def test_ties_are_no_proof():
    model = dense_model([(np.eye(2), np.zeros(2)), (np.eye(2), np.zeros(2))])
    samples = Samples(np.ones((1, 2)), np.zeros(1, np.int64), ("a",), (2,))
    found = LipschitzCertifier(Margins.of(model, samples, Threat(2, 2), Config()))
    assert found.radii([0]) == [0]
    (answer,) = found.answer([Question(0, Fraction(0))])
    assert answer.verdict == "unknown"


def test_the_radius_of_a_linear_network_is_the_distance():
    model = dense_model([(np.array([[3.0, 0.0], [4.0, 0.0]]), np.array([0.0, 1.0]))])
    samples = Samples(np.array([[1.0, 1.0]]), np.zeros(1, np.int64), ("a",), (2,))
    for norm, length in ((1, 4.0), (2, 5.0), (inf, 7.0)):
        (radius,) = LipschitzCertifier(Margins.of(model, samples, Threat(2, norm), Config())).radii([0])
        assert float(radius) == pytest.approx(6.0 / length, rel=1e-6)
        assert radius * Fraction(length) < 6


def test_semidefinite_programs_help():
    with_, without = (certifier(4, 2, sizes=(2, 12, 12, 12, 2), seconds=s)[0] for s in (60, 0))
    constants = [f._constants[0] for f in (with_, without)]
    assert "lipsdp" in constants[0] and "lipsdp" not in constants[1]
    assert (constants[0]["lipsdp"] < 0.9 * constants[0]["eclipse"]).all()
    assert (constants[0]["eclipse"] <= constants[0]["lipschitz-product"] * (1 + 1e-6)).all()


@pytest.mark.parametrize("norm", NORMS)
def test_clip_ranges_and_next_targets(norm):
    free, model = certifier(5, norm, seconds=0)
    cut, _ = certifier(5, norm, clip=(-1, 1), targets="next", seconds=0)
    for a, b in zip(free.radii(range(6)), cut.radii(range(6)), strict=True):
        assert b >= a * Fraction(9, 10)
    samples, rng = cut.margins.samples, np.random.default_rng(0)
    for i, radius in enumerate(cut.radii(range(6))):
        points = np.clip(samples.x[i] + float(radius) * inside(rng, norm, 500, 3), -1, 1)
        out, label = model.network(points), samples.y[i]
        assert (out[:, label] > out[:, (label + 1) % 3]).all()


def test_small_radii_are_proven_by_other_methods_too():
    found, _ = certifier(6, inf, seconds=0)
    questions = [Question(i, r) for i, r in enumerate(found.radii(range(6)))]
    attempts = BatchedBounds(found.margins, "alpha-crown").answer(questions)
    assert all(a.verdict == "proven" for a in attempts)


def test_a_passed_deadline_ends_the_work():
    found, _ = certifier(0, 2, deadline=Deadline.after(0))
    assert list(found.answer([Question(0, Fraction(1, 10))])) == []
    assert "lipsdp" not in found._constants[0]
    assert min(found.radii(range(6))) > 0
