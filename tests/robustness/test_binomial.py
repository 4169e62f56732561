"""Confidence bounds and tests against exact sums over the rationals."""

import math
import random
from decimal import Decimal, localcontext
from fractions import Fraction
from statistics import NormalDist

import pytest

from lpverify.errors import InputError
from lpverify.interval import BINOMIAL_TAIL
from lpverify.robustness.smoothing.binomial import (
    lower_confidence,
    normal_quantile,
    sign_test,
    upper_confidence,
    upper_tail,
)


def exact_tail(count: int, trials: int, p: float) -> Fraction:
    """P[Bin(trials, p) >= count]."""
    yes, whole = Fraction(p).as_integer_ratio()
    no = whole - yes
    found = sum(math.comb(trials, j) * yes**j * no ** (trials - j) for j in range(count, trials + 1))
    return Fraction(found, whole**trials)


CASES = [
    (k, n, a) for n in (1, 2, 7, 60) for k in range(0, n + 1, max(1, n // 5)) for a in (0.001, 0.05, 0.7)
]


@pytest.mark.parametrize(("count", "trials", "alpha"), CASES)
def test_lower_bound_is_valid_and_no_looser_than_rounding(count: int, trials: int, alpha: float) -> None:
    bound = lower_confidence(count, trials, alpha)
    assert 0.0 <= bound < 1.0
    if count == 0:
        assert bound == 0.0
        return
    assert exact_tail(count, trials, bound) <= Fraction(alpha)
    assert exact_tail(count, trials, bound * (1 + 1e-4)) > Fraction(alpha)


@pytest.mark.parametrize(("count", "trials", "alpha"), CASES)
def test_upper_bound_is_valid(count: int, trials: int, alpha: float) -> None:
    bound = upper_confidence(count, trials, alpha)
    assert bound >= count / trials or alpha > 0.5
    below = 1 - exact_tail(count + 1, trials, bound)  # P[Bin <= count]
    assert bound == 1.0 if count == trials else below <= Fraction(alpha)


def test_all_successes_have_a_closed_form() -> None:
    for n in (10, 1000, 100_000):
        assert 0.0 <= 0.001 ** (1 / n) - lower_confidence(n, n, 0.001) < 1e-6


def test_coverage_is_exact() -> None:
    """The probability that the bound is above the truth, summed over all counts."""
    trials, alpha = 40, 0.05
    for p in (0.1, 0.5, 0.83):
        chances = {k: exact_tail(k, trials, p) - exact_tail(k + 1, trials, p) for k in range(trials + 1)}
        wrong = sum(chance for k, chance in chances.items() if lower_confidence(k, trials, alpha) > p)
        assert 0 < wrong <= Fraction(alpha)


def test_tail_of_many_trials() -> None:
    rng = random.Random(3)
    for trials in (2_000, 50_000):
        for _ in range(4):
            count = rng.randrange(trials // 3, trials - 50)
            p = count / trials - 3 * math.sqrt(count * (trials - count) / trials**3)
            with localcontext(prec=50):
                yes, no = Decimal(p), 1 - Decimal(p)
                term = Decimal(math.comb(trials, count)) * yes**count * no ** (trials - count)
                exact = Decimal(0)
                for j in range(count, trials + 1):
                    exact += term
                    term *= yes * (trials - j) / (no * (j + 1))
                ratio = float(Decimal(upper_tail(count, trials, p)) / exact)
            assert 1.0 < ratio < 1.0 + 2 * BINOMIAL_TAIL


def test_sign_test_is_exact_and_on_the_safe_side() -> None:
    for first, second in ((0, 0), (1, 0), (9, 1), (30, 12), (12, 30), (20, 20)):
        exact = min(Fraction(1), 2 * exact_tail(max(first, second), first + second, 0.5))
        assert exact <= Fraction(sign_test(first, second)) <= exact * Fraction(1 + 1e-5)


def test_quantile_is_below_the_true_one() -> None:
    """The normal distribution function as a series with 40 digits: the quantile must lie below its root."""
    for p in (0.5 + 2.0**-50, 0.500001, 0.6, 0.9, 0.999, 1 - 1e-9):
        z = normal_quantile(p)
        assert 0.0 <= z <= NormalDist().inv_cdf(p) + 1e-12
        assert z >= NormalDist().inv_cdf(p) - 1e-8
        with localcontext(prec=60):
            x, total, term, k = Decimal(z), Decimal(0), Decimal(z), 0
            while k < 400:  # Phi(x) = 1/2 + phi(x) (x + x^3 / 3 + x^5 / (3 5) + ...)
                total, k = total + term, k + 1
                term = term * x * x / (2 * k + 1)
            pi = Decimal("3.14159265358979323846264338327950288419716939937510582097494")
            assert Decimal("0.5") + total * (-x * x / 2).exp() / (2 * pi).sqrt() <= Decimal(p)


def test_quantile_of_what_is_no_majority() -> None:
    assert normal_quantile(0.5) == normal_quantile(0.0) == normal_quantile(math.nan) == -math.inf
    assert normal_quantile(1.0) == math.inf


@pytest.mark.parametrize(
    ("count", "trials", "alpha"),
    [(-1, 5, 0.1), (6, 5, 0.1), (0, 0, 0.1), (1, 5, 0.0), (1, 5, 1.0), (1, 5, math.nan)],
)
def test_bad_numbers(count: int, trials: int, alpha: float) -> None:
    with pytest.raises(InputError, match="expected"):
        lower_confidence(count, trials, alpha)
    with pytest.raises(InputError, match="expected"):
        upper_confidence(count, trials, alpha)


def test_bad_counts() -> None:
    with pytest.raises(InputError, match="counts"):
        sign_test(-1, 3)


def test_nan_proves_nothing() -> None:
    assert upper_tail(3, 5, math.nan) == 1.0
