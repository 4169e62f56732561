"""One sample after the other on a pool of processes, each within its time; then what is left over."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

from lpverify.robustness.agenda import Agenda
from lpverify.robustness.evidence import Attempt, Question, Record
from lpverify.robustness.ladder import TIMEOUT
from lpverify.robustness.plan import Plan
from lpverify.robustness.pool.workers import Outcome, Pool, Task

LEAST_SHARE = 1 / 64  # of a sample's time, below which it is used up


def work(
    pool: Pool,
    samples: Iterable[int],
    ask: Callable[[int], Task | None],
    keep: Callable[[Outcome], None],
) -> None:
    """Keeps the pool busy; a sample is worked on until there is nothing more to ask of it."""
    waiting, busy = deque(samples), 0
    while waiting or busy:
        while waiting and pool.idle:
            task = ask(waiting.popleft())
            if task is not None:
                pool.submit(task)
                busy += 1
        if busy:
            for outcome in pool.done():
                busy -= 1
                keep(outcome)
                waiting.appendleft(outcome.task.question.sample)


@dataclass(frozen=True)
class FirstPass:
    """Every sample has the same time for all its questions; one question at most half of what is left.

    Attributes:
        method: Name.
        agenda: Of questions.
        records: By sample.
        plan: Limits.
    """

    method: str
    agenda: Agenda
    records: Sequence[Record]
    plan: Plan

    def ask(self, sample: int) -> Task | None:
        """The next task of a sample, None when there is no question or no time left."""
        record = self.records[sample]
        eps = self.agenda.next(record)
        left = self.plan.seconds - spent(record, self.method)
        if eps is None or left < LEAST_SHARE * self.plan.seconds:
            return None
        share = left if self.agenda.open(record) <= 1 else left / 2
        return Task(Question(sample, eps), share)

    def settle(self, outcome: Outcome) -> None:
        """What was spent is in the records."""


@dataclass
class SecondPass:
    """Time that samples left over goes to questions that ran out of it, the smallest radius of each sample.

    Attributes:
        method: Name.
        eps: Radii, ascending.
        records: By sample.
        plan: Limits.
        saved: Seconds to give away.
    """

    method: str
    eps: tuple[Fraction, ...]
    records: Sequence[Record]
    plan: Plan
    saved: float = field(init=False)
    _granted: dict[Question, float] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        used = sum(spent(record, self.method) for record in self.records)
        self.saved = self.plan.seconds * len(self.records) - used

    def order(self) -> list[int]:
        """Samples with something to ask, the one that came nearest to a proof first."""
        found = [(self._pending(record), i) for i, record in enumerate(self.records)]
        ranked = [(-_finite(attempt.margin), i) for attempt, i in found if attempt is not None]
        return [i for _, i in sorted(ranked)]

    def ask(self, sample: int) -> Task | None:
        """The next task of a sample, None when there is no question or no time left."""
        attempt = self._pending(self.records[sample])
        seconds = min(self.plan.spare * self.plan.seconds, self.saved)
        if attempt is None or seconds <= attempt.seconds:
            return None
        self.saved -= seconds
        question = Question(sample, attempt.eps)
        self._granted[question] = seconds
        return Task(question, seconds)

    def settle(self, outcome: Outcome) -> None:
        """Takes back what a task did not need."""
        used = sum(f.seconds for f in outcome.findings if isinstance(f, Attempt))
        self.saved += max(0.0, self._granted[outcome.task.question] - used)

    def _pending(self, record: Record) -> Attempt | None:
        """The attempt to repeat."""
        for eps in self.eps:
            last = record.tried.get((self.method, eps))
            if last is None or last.reason != TIMEOUT or record.verdict(self.method, eps) != "unknown":
                continue
            if last.seconds < 0.9 * self.plan.spare * self.plan.seconds:
                return last
        return None


def spent(record: Record, method: str) -> float:
    """Seconds that a method has worked on a sample."""
    return sum(a.seconds for (m, _), a in record.tried.items() if m == method)


def _finite(margin: float) -> float:
    return margin if math.isfinite(margin) else -math.inf
