"""Numbers of a data set as those of a model's input type: rounded to the nearest, then held exactly."""

import math
from fractions import Fraction

import numpy as np

from lpverify.errors import InputError
from lpverify.query import Number, float_above, float_below

EXACT = 2**53  # up to here float64 has all whole numbers
SHORT = 2**24  # the same of float32
PIXELS = 255  # the largest value of an 8-bit pixel


def exact_number(number: Number | float, what: str) -> Fraction:
    """The fraction that a number is.

    Raises:
        InputError: It is no finite number.
    """
    try:
        return Fraction(number)
    except (TypeError, ValueError, ArithmeticError):
        raise InputError(f"{what}: expected a finite number, got {number!r}") from None


def typed(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Each number rounded to the nearest of a type, ties to even, as float64.

    Args:
        x: Finite numbers `(N, n)` of at most 64 bits.
        dtype: Of the model's input; numbers of whole types must be whole.

    Raises:
        InputError: The type can't hold a number.
    """
    if dtype.kind in "iub":
        return _whole(x, dtype)
    with np.errstate(over="ignore", under="ignore"):
        result: np.ndarray = x.astype(dtype).astype(np.float64)
    _check(np.isfinite(result), x, f"{dtype} can't hold")
    return result


def _whole(x: np.ndarray, dtype: np.dtype) -> np.ndarray:
    least, most = (0, 1) if dtype.kind == "b" else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    least, most = max(int(least), -EXACT), min(int(most), EXACT)
    right = (x >= least) & (x <= most)
    if x.dtype.kind == "f":
        right &= x == np.rint(x)
    _check(right, x, f"{dtype} can't hold")
    return x.astype(np.float64)


def _check(right: np.ndarray, x: np.ndarray, problem: str) -> None:
    if not right.all():
        i, j = np.argwhere(~right)[0].tolist()
        raise InputError(f"sample {i} has {x[i, j]} as its element {j}, which {problem}")


def quotients(x: np.ndarray, divisor: Fraction, dtype: np.dtype) -> np.ndarray:
    """The exact quotients `x / divisor`, each rounded once as `typed` does.

    Raises:
        InputError: The type can't hold a quotient, or is one of whole numbers.
    """
    if dtype.kind in "iub":
        raise InputError(f"divide: the model's inputs are whole numbers ({dtype})")
    if _once(x, divisor, dtype):
        return typed(x.astype(np.float64) / float(divisor), dtype)
    values, places = np.unique(x, return_inverse=True)
    found = np.array([nearest_number(Fraction(v) / divisor, dtype) for v in values.tolist()])
    result = found[places.reshape(x.shape)]
    _check(np.isfinite(result), x, f"{dtype} can't hold when divided by {divisor}")
    return result


def _once(x: np.ndarray, divisor: Fraction, dtype: np.dtype) -> bool:
    """Whether a division in float64 and a rounding to the type are the same as one rounding.

    They are for numbers of 24 bits and shorter types: a quotient that is not half-way between two float32
    numbers differs from there by a share of 2**-49 at least, more than float64's rounding can bridge.
    """
    if divisor.denominator != 1 or divisor.numerator >= SHORT:
        return False
    if x.dtype.kind != "f":
        return int(x.min()) > -SHORT and int(x.max()) < SHORT
    if dtype == np.float64:
        return True
    with np.errstate(over="ignore", under="ignore"):
        return bool((x.astype(np.float32) == x).all())


def nearest_number(value: Fraction, dtype: np.dtype) -> float:
    """The number of a type nearest to an exact one, ties to even; infinite beyond its range."""
    try:
        between = float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    with np.errstate(over="ignore", under="ignore"):
        close = np.asarray(between, np.float64).astype(dtype)
        if not np.isfinite(close):
            return float(close)
        ends = np.asarray([-np.inf, np.inf]).astype(dtype)
        beside = [np.nextafter(close, end) for end in ends]
    # `close` is first: on a tie it is the even one, because then `between` is the value itself
    candidates = [float(c) for c in (close, *beside) if np.isfinite(c)]
    return min(candidates, key=lambda c: abs(Fraction(c) - value))


def check_range(x: np.ndarray, clip: tuple[Number, Number]) -> None:
    """Refuses samples with numbers outside of an exact range, both ends of which belong to it.

    Raises:
        InputError: There is such a number, or the range is none.
    """
    low, high = (exact_number(end, "clip") for end in clip)
    if not low < high:
        raise InputError(f"clip: {low} is not below {high}")
    right = (x >= float_above(low)) & (x <= float_below(high))
    hint = ""
    if low == 0 and high == 1 and x.min() >= 0 and 1 < x.max() <= PIXELS and (x == np.rint(x)).all():
        hint = f"; pixels from 0 to {PIXELS}? divide by {PIXELS} (--divide {PIXELS})"
    _check(right, x, f"is outside of the range {low} to {high}{hint}")
