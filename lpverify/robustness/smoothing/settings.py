"""Settings of randomized smoothing: checked numbers, the radius of a probability, when to look at counts."""

import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lpverify.errors import InputError
from lpverify.interval import DOUBLE, add_down, inflate, round_down, round_up, tiny
from lpverify.robustness.smoothing.binomial import normal_quantile

FIRST_LOOK = 100  # samples before the first look, at least
MOST_SAMPLES = 10**8  # up to there the granted error of the binomial tail is a safe one
MOST_BATCH = 2**16
MOST_KEY = 2**32 - 1  # one word of a stream's key each, so that no two keys are the same words


@dataclass(frozen=True)
class Look:
    """A moment at which the counts are looked at: samples drawn by then, and the error spent on it."""

    samples: int
    alpha: float


@dataclass(frozen=True)
class SmoothingSettings:
    """Numbers of one certification.

    Attributes:
        sigma: Standard deviation of the noise, in the units of the input.
        n0: Samples that select the class.
        n: Samples that estimate its probability, or that a prediction takes.
        alpha: Probability that the answer about one input is wrong, at most.
        seed: Of the noise: same seed, same noise.
        batch: Points evaluated at a time, which changes no result; None: by the size of the network.

    Raises:
        InputError: One is not usable.
    """

    sigma: float
    n0: int = 100
    n: int = 10_000
    alpha: float = 0.001
    seed: int = 0
    batch: int | None = None

    def __post_init__(self) -> None:
        if not (_is_number(self.sigma) and 0.0 < self.sigma < math.inf):
            raise InputError(f"sigma: expected a positive number, got {self.sigma!r}")
        whole("n0", self.n0, 1, MOST_SAMPLES)
        whole("n", self.n, 1, MOST_SAMPLES)
        whole("seed", self.seed, 0, MOST_KEY)
        if self.batch is not None:
            whole("batch", self.batch, 1, MOST_BATCH)
        if not (_is_number(self.alpha) and 0.0 < self.alpha < 1.0):
            raise InputError(f"alpha: expected a number between 0 and 1, got {self.alpha!r}")
        with np.errstate(over="ignore"):
            scale = self.scale
        if not np.finfo(np.float32).tiny <= scale < np.inf:
            raise InputError(f"sigma: noise in float32 can't have a standard deviation of {self.sigma!r}")

    @property
    def scale(self) -> np.float32:
        """The standard deviation that is drawn: sigma in single precision."""
        return np.float32(self.sigma)

    def radius(self, p: float, size: int, norm: float, shift: float = 0.0) -> float:
        """A lower bound of the radius that follows from a class probability of at least `p`, 0 if none does.

        Cohen et al. 2019, theorem 1 with its binary bound: sigma times the normal quantile of `p`, in the
        Euclidean norm. A ball of norm 1 lies within that of norm 2; the corners of a box of half-width r are
        r times the root of the number of inputs away. Rounded down by a step at least, so that the closed
        ball is within the open one of the theorem.

        Args:
            p: In [0, 1].
            size: Number of inputs.
            norm: 1, 2 or infinity.
            shift: Euclidean distance from the centre that was asked for to the one noise was added to.
        """
        quantile = normal_quantile(p)
        if not 0.0 < quantile < math.inf:
            return math.inf if quantile == math.inf else 0.0
        radius = round_down(np.float64(min(self.sigma, float(self.scale)) * quantile))
        radius = add_down(radius, np.float64(-shift))
        if norm == math.inf:
            radius = round_down(radius / round_up(np.sqrt(np.float64(size))))
        return max(0.0, float(radius))

    def looks(self, sequential: bool) -> tuple[Look, ...]:
        """When to look at the counts; the errors spent add up to at most `alpha`.

        Sequential: after n samples, half of them, a quarter and so on, of which the `i`-th look in time
        spends `6 alpha / (pi i)^2`. By the union bound all of them hold together with probability 1 - alpha,
        so that one may stop after any of them, for any reason, and may report the best.
        """
        if not sequential:
            return (Look(self.n, self.alpha),)
        samples = [self.n]
        while samples[-1] >= 2 * FIRST_LOOK:
            samples.append((samples[-1] + 1) // 2)
        spent = (self.alpha * 6.0 / (math.pi * i) ** 2 for i in range(1, len(samples) + 1))
        return tuple(Look(s, a) for s, a in zip(reversed(samples), spent, strict=True))


def distance(x: np.ndarray, rounded: np.ndarray) -> float:
    """An upper bound of the Euclidean distance of two points `(n,)`, one of them the other one rounded."""
    difference = x - rounded.astype(np.float64)  # exact: the error of a rounding is a float
    if not difference.any():
        return 0.0
    norm = np.sqrt(np.square(difference).sum()) * inflate(len(x) + 2, DOUBLE)
    return float(norm + np.sqrt(np.float64(len(x)) * tiny(norm)))


def whole(name: str, value: object, least: int, most: int) -> None:
    """Refuses what is no whole number of a range.

    Raises:
        InputError: It is not.
    """
    usable = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not usable or not least <= value <= most:  # type: ignore[operator]
        raise InputError(f"{name}: expected a whole number from {least} to {most}, got {value!r}")


def radius_asked(eps: object) -> Fraction | None:
    """The radius that is asked about, exact; None for none.

    Raises:
        InputError: It is no finite number from 0.
    """
    if eps is None:
        return None
    if not (isinstance(eps, Fraction) or _is_number(eps)) or not 0 <= eps < math.inf:  # type: ignore[operator]
        raise InputError(f"eps: expected a number from 0, got {eps!r}")
    return Fraction(eps) if isinstance(eps, (int, Fraction)) else Fraction(float(eps))  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)
