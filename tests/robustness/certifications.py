"""Small certifications made by hand, for the tests of what is written about them."""

import math
from fractions import Fraction

import numpy as np

from lpverify.robustness.certification import Certification
from lpverify.robustness.evidence import Adversarial, Attempt, Clean, records_of
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat

EPS = (Fraction(2, 255), Fraction(4, 255), Fraction(8, 255))
HOSTILE = "<script>alert(1)</script>\"'&"


def certification(
    count=12, shape=(1, 8, 8), methods=("ibp", "ladder", "smoothing"), norm=math.inf, eps=EPS, **changes
):
    """Sample i has margin i; every fifth is wrong, every third has a counterexample.

    `ibp` proves the last quarter at the smallest radius, `ladder` a half at the two smallest ones, smoothing
    all but the first at the largest; smoothing is wrong about the first.
    """
    rng = np.random.default_rng(count)
    n = math.prod(shape)
    x = rng.integers(0, 256, (count, n)) / 256
    y = np.arange(count) % 3
    names = tuple(HOSTILE if i == 3 else f"sample {i}" for i in range(count))
    samples = Samples(x, y, names, shape)
    findings = []
    for i in range(count):
        wrong = i % 5 == 4
        findings.append(Clean(i, int(y[i] + wrong) % 3, not wrong, -1.0 if wrong else float(i)))
        if i % 3 == 0 and not wrong:
            point = x[i].copy()
            point[: 1 + i % n] = np.clip(point[: 1 + i % n] + 5 / 256, 0, 1)
            findings.append(Adversarial(i, point, int(y[i] + 1) % 3, Fraction(5 + i, 256), HOSTILE))
        findings += [_attempt(m, i, e, count, eps) for m in methods for e in eps]
    settings = {
        "model": HOSTILE,
        "seed": 0,
        "smoothing": {"sigma": 0.25, "alpha": 0.001, "n": 1000},
        "versions": {"numpy": "2.1"},
    }
    given = {"settings": settings, "seconds": 12.5, "complete": True} | changes
    threat = Threat(3, norm, (0, 1))
    return Certification(samples, threat, eps, methods, tuple(records_of(count, findings)), **given)


def _attempt(method, i, eps, count, radii):
    proven = {
        "ibp": 4 * i >= 3 * count and eps == radii[0],
        "ladder": 2 * i >= count and eps in radii[:2],
        "smoothing": i > 0,
    }.get(method, False)
    verdict = "proven" if proven else "refuted" if method == "smoothing" else "unknown"
    return Attempt(i, method, eps, verdict, method, 0.25, "" if proven else 'too loose, "=cmd"')


def empty(methods=("ibp",), eps=EPS):
    """No samples at all."""
    samples = Samples(np.zeros((0, 4)), np.zeros(0, np.int64), (), (4,))
    return Certification(samples, Threat(2), eps, methods, (), {}, 0.0, False)
