"""Which radius to ask about next, from what is known of a sample.

All evidence is monotone, so a grid of radii is searched by bisection like an interval of them.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from lpverify.robustness.evidence import SMOOTHED, Record

ATTACK = "attack"


class Agenda(Protocol):
    """What one method is asked about one sample."""

    def next(self, record: Record) -> Fraction | None:
        """The next radius, None when there is nothing left to ask."""
        ...

    def open(self, record: Record) -> float:
        """At most so many questions are left."""
        ...


def failed(record: Record, method: str) -> Fraction | None:
    """The smallest radius at which the method proved nothing, out of those beyond its proofs."""
    proven = record.proven(method)
    tried = (a for (m, _), a in record.tried.items() if m == method and a.verdict != "proven")
    return min((a.eps for a in tried if proven is None or a.eps > proven), default=None)


def proven_by_any(record: Record) -> Fraction | None:
    """The largest radius that some method has proven of the network itself."""
    radii = (a.eps for method, proofs in record.proofs.items() if method != SMOOTHED for a in proofs)
    return max(radii, default=None)


@dataclass(frozen=True)
class Grid:
    """Given radii by bisection: the middle one of those that are open.

    Attributes:
        method: Name.
        eps: Ascending.
        complete: Radii beyond one without an answer are asked, too, smallest first: a counterexample may be
            found there. Bounds only get looser.
    """

    method: str
    eps: tuple[Fraction, ...]
    complete: bool = False

    def next(self, record: Record) -> Fraction | None:
        """See `Agenda`."""
        open_ = self._open(record)
        limit = failed(record, self.method)
        below = [e for e in open_ if limit is None or e < limit]
        if below:
            return below[len(below) // 2]
        return open_[0] if open_ and self.complete else None

    def open(self, record: Record) -> float:
        """See `Agenda`."""
        return len(self._open(record))

    def _open(self, record: Record) -> list[Fraction]:
        untried = (e for e in self.eps if (self.method, e) not in record.tried)
        return [e for e in untried if record.verdict(self.method, e) == "unknown"]


@dataclass(frozen=True)
class Radius:
    """The largest radius that a method proves, by bisection between proofs and failures.

    Attributes:
        method: Name.
        most: Nothing is asked beyond it.
        tolerance: Relative width of the interval that is left.
        floor: Absolute width below which it does not matter.
    """

    method: str
    most: Fraction
    tolerance: Fraction = Fraction(1, 128)
    floor: Fraction = Fraction(0)

    def next(self, record: Record) -> Fraction | None:
        """See `Agenda`."""
        if record.clean is None or not record.clean.correct:
            return None
        low = record.proven(self.method) or Fraction(0)
        ends = [e for e in (record.refuted, failed(record, self.method)) if e is not None]
        if not ends and low < self.most:
            return self.most
        high = min([*ends, self.most])
        if high - low <= max(self.tolerance * high, self.floor):
            return None
        middle = Fraction(float((low + high) / 2))
        return middle if low < middle < high else None

    def open(self, record: Record) -> float:
        """See `Agenda`."""
        return 0 if self.next(record) is None else math.inf


@dataclass(frozen=True)
class Both:
    """One agenda after the other."""

    first: Agenda
    second: Agenda

    def next(self, record: Record) -> Fraction | None:
        """See `Agenda`."""
        eps = self.first.next(record)
        return self.second.next(record) if eps is None else eps

    def open(self, record: Record) -> float:
        """See `Agenda`."""
        return self.first.open(record) + self.second.open(record)


def unsettled(record: Record, eps: tuple[Fraction, ...]) -> list[Fraction]:
    """Radii that nothing is known of, and that the attack has not tried."""
    if record.clean is None or not record.clean.correct:
        return []
    proven, refuted = proven_by_any(record), record.refuted
    open_ = (e for e in eps if (proven is None or e > proven) and (refuted is None or e < refuted))
    return [e for e in open_ if (ATTACK, e) not in record.tried]
