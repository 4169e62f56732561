"""Certifying by bounds alone: many samples at once by backward passes, single ones by programs."""

import math
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
FEW = {"crown": 2, "alpha-crown": 1}  # regions of a batch: it bounds the neurons unstable in any of them


def chain(method: str) -> tuple[str, ...]:
    """A method of bounds and those that it is never looser than, from the cheapest on."""
    found = [method]
    while (base := METHODS[found[-1]].base) is not None:
        found.append(base)
    return tuple(reversed(found))


@dataclass(frozen=True)
class BatchedBounds:
    """`ibp`, `crown-ibp`, `forward`, `crown` or `alpha-crown` for many samples together.

    Each is the technique alone: what cheaper ones prove is not looked at.

    Attributes:
        margins: The network, the samples and the threat.
        name: Of the method.
    """

    margins: Margins
    name: str

    def answer(self, questions: Sequence[Question]) -> Iterator[Attempt]:
        """Yields an attempt for each question."""
        size = min(self.margins.batch, FEW.get(self.name, self.margins.batch))
        for part in slices(len(questions), size):
            some, start = questions[part], time.monotonic()
            found = self._bound([q.sample for q in some], [q.eps for q in some])
            seconds = (time.monotonic() - start) / len(some)
            for question, margin in zip(some, found.tolist(), strict=True):
                yield attempt_of(question, self.name, margin, seconds)

    def _bound(self, samples: Sequence[int], eps: Sequence[Fraction]) -> np.ndarray:
        if self.name == "ibp":
            return self.margins.intervals(samples, eps)
        return backward_margins(self.margins, samples, eps, BATCHED[self.name])


def backward_margins(
    margins: Margins, samples: Sequence[int], eps: Sequence[Fraction], effort: Effort
) -> np.ndarray:
    """Certified lower bounds `(B,)` of the smallest leads by backward passes."""
    batch = Batch(margins.cases(samples), margins.region(samples, eps), {})
    found = evaluate(margins.problem, margins.arithmetic, batch, effort)
    counts = [len(margins.problem.cases[c].distinct_forms) for c in batch.cases]
    return np.array([low[:count].min() for low, count in zip(found.lower, counts, strict=True)])


def attempt_of(question: Question, method: str, margin: float, seconds: float) -> Attempt:
    """By a certified lower bound of the smallest lead; NaN, zero and infinities prove nothing."""
    sample, eps = question.sample, question.eps
    if 0 < margin < math.inf:
        return Attempt(sample, method, eps, "proven", method, seconds, "", margin)
    return Attempt(sample, method, eps, "unknown", method, seconds, "the bound is too loose", margin)


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
            attempt = attempt_of(question, self.name, margin, time.monotonic() - start)
            yield replace(attempt, reason=reason) if reason else attempt

    @np.errstate(over="ignore", invalid="ignore")  # boxes may be unbounded; what is undefined proves nothing
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
