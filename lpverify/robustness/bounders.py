"""Certifying by bounds alone: many samples at once by backward passes, single ones by programs."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from lpverify.bounds.evaluate import Batch, evaluate, slices
from lpverify.config import Deadline
from lpverify.errors import UnsupportedError
from lpverify.methods import BOX_STEPS, METHODS, ROW_STEPS, Settings, stages_of
from lpverify.multipliers import Effort, Schedule
from lpverify.robustness.evidence import Attempt, Question
from lpverify.robustness.margins import Margins

BATCHED: dict[str, Effort] = {  # what the methods of `lpverify.methods` spend, for many regions
    "ibp": Effort("ibp"),
    "crown-ibp": Effort("ibp"),
    "forward": Effort("ibp", forward=True),
    "crown": Effort("crown"),
    "alpha-crown": Effort("crown", Schedule(ROW_STEPS), ascent=BOX_STEPS),
}
COSTLIER = 4.0  # batches of optimised bounds are smaller by this


def chain(method: str) -> tuple[str, ...]:
    """A method of bounds and those that it is never looser than, from the cheapest on."""
    found = [method]
    while (base := METHODS[found[-1]].base) is not None:
        found.append(base)
    return tuple(reversed(found))


@dataclass(frozen=True)
class BatchedBounds:
    """`ibp`, `crown-ibp`, `forward`, `crown` or `alpha-crown` for many samples together.

    A question that a cheaper method answers is not asked of a dearer one, and never twice.

    Attributes:
        margins: The network, the samples and the threat.
        method: The dearest technique used.
        name: What the attempts are called.
        effort: Of that technique; None: its usual one.
        deadline: When to stop; what is not reached is not answered.
    """

    margins: Margins
    method: str
    name: str
    effort: Effort | None = None
    deadline: Deadline = field(default_factory=Deadline)

    def answer(self, questions: Sequence[Question]) -> Iterator[Attempt]:
        """Yields an attempt for each question."""
        stages = [m for m in chain(self.method) if m == self.method or m == "ibp"]
        open_ = list(questions)
        for stage in stages:
            left: list[Question] = []
            for attempt in self._stage(stage, open_):
                if attempt.verdict == "proven" or stage == stages[-1]:
                    yield attempt
                else:
                    left.append(Question(attempt.sample, attempt.eps))
            open_ = left

    def _stage(self, stage: str, questions: Sequence[Question]) -> Iterator[Attempt]:
        size = self.margins.batch
        size = max(1, int(size / COSTLIER)) if stage == "alpha-crown" else size
        for part in slices(len(questions), size):
            if self.deadline.passed:
                return
            some, start = questions[part], time.monotonic()
            margins = self._margins(stage, [q.sample for q in some], [q.eps for q in some])
            seconds = (time.monotonic() - start) / len(some)
            for question, margin in zip(some, margins.tolist(), strict=True):
                yield attempt_of(question, self.name, stage, margin, seconds)

    def _margins(self, stage: str, samples: Sequence[int], eps: Sequence[Fraction]) -> np.ndarray:
        if stage == "ibp":
            return self.margins.intervals(samples, eps)
        effort = self.effort if self.effort is not None and stage == self.method else BATCHED[stage]
        return backward_margins(self.margins, samples, eps, effort)


def backward_margins(
    margins: Margins, samples: Sequence[int], eps: Sequence[Fraction], effort: Effort
) -> np.ndarray:
    """Certified lower bounds `(B,)` of the smallest leads by backward passes."""
    batch = Batch(margins.cases(samples), margins.region(samples, eps), {})
    found = evaluate(margins.problem, margins.arithmetic, batch, effort)
    counts = [len(margins.problem.cases[c].distinct_forms) for c in batch.cases]
    return np.array([low[:count].min() for low, count in zip(found.lower, counts, strict=True)])


def attempt_of(question: Question, method: str, stage: str, margin: float, seconds: float) -> Attempt:
    """By a certified lower bound of the smallest lead; NaN and zero prove nothing."""
    proven = margin > 0
    reason = "" if proven else "the bound is too loose"
    verdict = "proven" if proven else "unknown"
    return Attempt(question.sample, method, question.eps, verdict, stage, seconds, reason, margin)  # type: ignore[arg-type]


@dataclass(frozen=True)
class SingleBounds:
    """Any method of `lpverify.methods`, one sample at a time; stops at the cheapest that proves it.

    Attributes:
        margins: The network, the samples and the threat.
        name: Of the method.
        seconds: Limit for each question; what is not reached keeps cheaper bounds.
        solver: As in `lpverify.methods.Settings`.
    """

    margins: Margins
    name: str
    seconds: float = math.inf
    solver: str | None = None

    def answer(self, questions: Iterable[Question]) -> Iterator[Attempt]:
        """Yields an attempt for each question."""
        for question in questions:
            start = time.monotonic()
            try:
                margin, reason = self.margin(question), ""
            except UnsupportedError as error:
                margin, reason = -math.inf, str(error)
            attempt = attempt_of(question, self.name, self.name, margin, time.monotonic() - start)
            yield replace(attempt, reason=reason) if reason else attempt

    def margin(self, question: Question) -> float:
        """A certified lower bound of the smallest lead."""
        margins, settings = self.margins, Settings(self.solver, Deadline().within(self.seconds))
        network, sample = margins.problem.network, question.sample
        case = margins.problem.cases[int(margins.cases([sample])[0])]
        region = margins.threat.region(margins.samples.x[[sample]], [question.eps])
        stages = stages_of(self.name, network, region, settings)
        lower = np.full(len(case.forms), -np.inf)
        rows = np.eye(network.nodes[network.output].shape[0])[case.forms]
        for frame, bounders in stages.parts:
            for bounder in bounders:
                open_ = np.flatnonzero(~(lower > 0))
                if not len(open_):
                    break
                found = bounder(frame, network.output, rows[open_], settings)
                lower[open_] = np.fmax(lower[open_], found.lower)
        return float(lower.min())
