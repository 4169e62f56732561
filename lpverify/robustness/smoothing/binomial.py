"""Probabilities behind counts: confidence bounds and tests, every rounding on the safe side.

SciPy's special functions make proposals. What is returned has been confirmed by evaluating the distribution
itself at it, with the relative error that `lpverify.interval` grants to that function.
"""

import math
from collections.abc import Callable

import numpy as np

from lpverify.errors import InputError
from lpverify.interval import BINOMIAL_TAIL, NORMAL_TAIL, add_up, tiny

SMALLEST = tiny(np.float64(0.0))  # below it a tail may have underflowed
FIRST_STEP = 2.0**-32  # relative, by which a proposal is lowered first: costs nothing visible, saves trials


def upper_tail(count: int, trials: int, p: float) -> float:
    """An upper bound of P[Bin(trials, p) >= count]; 1 for a `p` that is NaN."""
    if count <= 0:
        return 1.0
    if p <= 0.0:
        return 0.0
    from scipy.special import betainc  # noqa: PLC0415  (only needed for statistics)

    value = float(betainc(count, trials - count + 1, p))
    return min(1.0, value * (1.0 + BINOMIAL_TAIL) + SMALLEST) if value >= 0.0 else 1.0


def lower_confidence(count: int, trials: int, alpha: float) -> float:
    """One-sided lower confidence bound on a probability, in [0, 1).

    Whatever the probability is, the bound is above it with probability at most `alpha` (Clopper and Pearson
    1934, Biometrika 26). An `alpha` below 1e-290 gets 0.

    Args:
        count: Successes.
        trials: Independent trials, at least 1.
        alpha: Between 0 and 1.

    Raises:
        InputError: The numbers are not usable.
    """
    _check(count, trials, alpha)
    if count == 0:
        return 0.0
    from scipy.special import betaincinv  # noqa: PLC0415  (only needed for statistics)

    proposal = float(betaincinv(count, trials - count + 1, alpha))
    return _lowered(proposal, lambda p: upper_tail(count, trials, p) <= alpha)


def upper_confidence(count: int, trials: int, alpha: float) -> float:
    """One-sided upper confidence bound: that of the failures, mirrored."""
    return float(add_up(np.float64(1.0), np.float64(-lower_confidence(trials - count, trials, alpha))))


def sign_test(first: int, second: int) -> float:
    """An upper bound of the p-value of two counts if both were equally likely, two-sided and exact.

    Raises:
        InputError: A count is negative.
    """
    if first < 0 or second < 0:
        raise InputError(f"counts: expected numbers from 0, got {first} and {second}")
    return min(1.0, 2.0 * upper_tail(max(first, second), first + second, 0.5))


def normal_quantile(p: float) -> float:
    """A lower bound of the standard normal quantile; minus infinity unless `p` is above 1/2."""
    if not p > 0.5:
        return -math.inf
    if p >= 1.0:
        return math.inf
    from scipy.special import ndtr, ndtri  # noqa: PLC0415  (only needed for statistics)

    above = 1.0 - p  # exact for p in [1/2, 1]
    return _lowered(float(ndtri(p)), lambda z: float(ndtr(-z)) * (1.0 - NORMAL_TAIL) >= above)


def _lowered(proposal: float, holds: Callable[[float], bool]) -> float:
    """The proposal, lowered by doubling steps until it is confirmed; 0 when it never is."""
    value, step = proposal, FIRST_STEP
    while not holds(value):
        if step >= 1.0:
            return 0.0
        value, step = proposal * (1.0 - step), 2.0 * step
    return value


def _check(count: int, trials: int, alpha: float) -> None:
    if not (trials >= 1 and 0 <= count <= trials):
        raise InputError(f"expected 0 <= count <= trials and 1 <= trials, got {count} of {trials}")
    if not 0.0 < alpha < 1.0:
        raise InputError(f"alpha: expected a number between 0 and 1, got {alpha!r}")
