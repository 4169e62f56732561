"""What an adversary may do to a sample, and what counts as success: exact numbers throughout."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, TypeAlias

import numpy as np

from lpverify.bounds.ball import Ball, enclosing_box
from lpverify.bounds.propagate import Region
from lpverify.errors import InputError
from lpverify.query import And, Atom, Formula, Number, Or, Query, float_above, float_below

Targets: TypeAlias = Literal["all", "next"]


@dataclass(frozen=True)
class Threat:
    """A ball around each sample, cut by the range of inputs; and the classes that must not win.

    A sample of label y is *robust* at radius eps when for every real x' with `||x' - x||_norm <= eps` and
    `low <= x' <= high` the output of y is larger than that of every rival class.

    Attributes:
        classes: Number of outputs.
        norm: 1, 2 or infinity.
        clip: The range `(low, high)` that every input stays in, exact; None: there is none.
        targets: `all`: every other class is a rival; `next`: only class `(y + 1) mod classes` is, as some
            benchmarks have it.
    """

    classes: int
    norm: float = math.inf
    clip: tuple[Number, Number] | None = None
    targets: Targets = "all"

    def __post_init__(self) -> None:
        if self.norm not in (1, 2, math.inf):
            raise InputError(f"norm: expected 1, 2 or infinity, got {self.norm!r}")
        if self.targets not in ("all", "next"):
            raise InputError(f"targets: expected all or next, got {self.targets!r}")
        if self.classes < 2:
            raise InputError(f"a classifier has at least two outputs, this network has {self.classes}")
        if self.clip is not None and not Fraction(self.clip[0]) < Fraction(self.clip[1]):
            raise InputError(f"clip: {self.clip[0]} is not below {self.clip[1]}")

    def rivals(self, label: int) -> tuple[int, ...]:
        """The classes that a counterexample's output may reach the label's with.

        Raises:
            InputError: There is no such class.
        """
        if not 0 <= label < self.classes:
            raise InputError(f"label {label}: the classes of this network are 0 to {self.classes - 1}")
        if self.targets == "next":
            return ((label + 1) % self.classes,)
        return tuple(i for i in range(self.classes) if i != label)

    def ends(self, x: np.ndarray, eps: Fraction) -> tuple[list[Fraction], list[Fraction]]:
        """The exact ends of the box around the ball of one sample `(n,)`, cut by the range."""
        centres = [Fraction(v) for v in x.tolist()]
        lower, upper = [c - eps for c in centres], [c + eps for c in centres]
        if self.clip is not None:
            low, high = Fraction(self.clip[0]), Fraction(self.clip[1])
            lower, upper = [max(v, low) for v in lower], [min(v, high) for v in upper]
        return lower, upper

    @np.errstate(over="ignore", invalid="ignore")  # ends beyond the floats become infinite
    def region(self, x: np.ndarray, eps: Sequence[Fraction]) -> Region:
        """Samples `(B, n)`, each with its own radius, as a batch of regions: rounded outward.

        Raises:
            InputError: A ball does not meet the range.
        """
        radius = np.array([float_above(e) for e in eps])
        low, high = (-np.inf, np.inf) if self.clip is None else self.clip_floats
        around = Ball(x, radius, 2 if self.norm == math.inf else int(self.norm))
        box, empty = enclosing_box(around, np.float64(low), np.float64(high))
        if bool(empty.any()):
            raise InputError("a sample lies outside of the clip range")
        return Region(box, ball=None if self.norm == math.inf else around)

    @property
    def clip_floats(self) -> tuple[float, float]:
        """The range rounded outward; infinite where there is none."""
        if self.clip is None:
            return -math.inf, math.inf
        return float_below(self.clip[0]), float_above(self.clip[1])

    def query(self, x: np.ndarray, label: int, eps: Fraction) -> Query:
        """The violation over the *box* around the ball: for norm 1 and 2 a superset of the threat."""
        n = len(x)
        lower, upper = self.ends(x, eps)
        ends: list[Formula] = []
        for i in range(n):
            ends += [Atom(((i, -1),), -lower[i]), Atom(((i, 1),), upper[i])]
        wrong: tuple[Formula, ...] = tuple(lead(n, label, rival) for rival in self.rivals(label))
        return Query(n, self.classes, And((*ends, Or(wrong))))

    def distance(self, x: np.ndarray, point: np.ndarray) -> Fraction | None:
        """How far a point `(n,)` is from a sample in the norm, rounded up; None outside of the range.

        Exact for norm 1 and infinity.
        """
        if not np.isfinite(point).all():
            return None
        if self.clip is not None:
            low, high = (Fraction(end) for end in self.clip)
            if Fraction(float(point.min())) < low or Fraction(float(point.max())) > high:
                return None
        moved = np.flatnonzero(point != x)
        gaps, unit = _gaps(point[moved], x[moved])
        if self.norm == math.inf:
            return Fraction(max(gaps, default=0), unit)
        if self.norm == 1:
            return Fraction(sum(gaps), unit)
        return _root_above(Fraction(sum(g * g for g in gaps), unit * unit))


def lead(inputs: int, label: int, rival: int) -> Atom:
    """`output of the label - output of the rival <= 0`, the outputs numbered after the inputs."""
    terms = ((inputs + label, 1), (inputs + rival, -1))
    return Atom(terms if label < rival else terms[::-1], 0)


def _gaps(first: np.ndarray, second: np.ndarray) -> tuple[list[int], int]:
    """How far floats are apart, exactly: whole numbers, and what to divide them by."""
    ratios = [v.as_integer_ratio() for v in (*first.tolist(), *second.tolist())]
    unit = max((below for _, below in ratios), default=1)  # all are powers of two
    whole = [above * (unit // below) for above, below in ratios]
    return [abs(p - c) for p, c in zip(whole[: len(first)], whole[len(first) :], strict=True)], unit


def _root_above(square: Fraction) -> Fraction:
    """A number not below the root, within two units in the last place of a float."""
    if not square:
        return square
    half = (square.numerator.bit_length() - square.denominator.bit_length()) // 2
    scale = Fraction(2) ** half  # squares of huge and tiny numbers are no floats
    guess = math.sqrt(float_above(square / scale**2))
    while (scale * Fraction(guess)) ** 2 < square:
        guess = math.nextafter(guess, math.inf)
    return scale * Fraction(guess)
