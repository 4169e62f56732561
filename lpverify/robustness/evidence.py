"""What is found out about samples: the rows of the store, and what they say together.

A proof at a radius holds at every smaller one, a counterexample at every radius from its distance on. So
all evidence about a sample by one method is an interval of radii: proven up to `proven`, refuted from
`refuted` on, unknown between.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, Protocol, TypeAlias

import numpy as np

Verdict: TypeAlias = Literal["proven", "refuted", "unknown"]
SMOOTHED = "smoothing"  # the one method that is about another classifier


@dataclass(frozen=True)
class Question:
    """Is this sample robust at this radius?"""

    sample: int
    eps: Fraction


@dataclass(frozen=True)
class Clean:
    """The network's answer at the sample itself, by onnxruntime.

    Attributes:
        sample: Its index.
        predicted: The class of the largest output, the first one of several; -1 if an output is NaN.
        correct: Whether the label's output is larger than all others.
        margin: The label's output minus the largest other one; NaN if an output is.
    """

    sample: int
    predicted: int
    correct: bool
    margin: float


@dataclass(frozen=True)
class Attempt:
    """What one method said of one question.

    Attributes:
        sample: Index.
        method: Its name.
        eps: The radius.
        verdict: `proven` is certified: over the reals, all rounding covered (of `smoothing`: with the stated
            probability and about the smoothed classifier). `refuted`: a counterexample was replayed.
        stage: The technique that decided, or was at work last.
        seconds: Wall-clock time spent on it; batches share theirs equally.
        reason: Why it is unknown.
        margin: The smallest certified lower bound of the label's lead over a rival; NaN if there is none.
    """

    sample: int
    method: str
    eps: Fraction
    verdict: Verdict
    stage: str
    seconds: float
    reason: str = ""
    margin: float = float("nan")


@dataclass(frozen=True)
class Adversarial:
    """A counterexample, replayed with onnxruntime.

    Attributes:
        sample: Index.
        point: The input, flat `(n,)` float64, exactly numbers of the network's input type, in the range.
        predicted: The class that wins there.
        distance: From the sample in the threat's norm; exact, or rounded up.
        source: The technique that found it.
    """

    sample: int
    point: np.ndarray = field(repr=False)
    predicted: int
    distance: Fraction
    source: str


Finding: TypeAlias = Clean | Attempt | Adversarial


class Certifier(Protocol):
    """A method: anything that answers questions.

    Attributes:
        name: As in `Attempt.method`.
    """

    name: str

    def answer(self, questions: Sequence[Question]) -> Iterator[Attempt | Adversarial]:
        """Yields an `Attempt` for each question, in any order, and counterexamples met on the way."""
        ...


class Store(Protocol):
    """Where findings are kept; what is added survives the process."""

    def add(self, findings: Sequence[Finding]) -> None:
        """Keeps them, all or none, before it returns."""
        ...

    def findings(self) -> Iterable[Finding]:
        """Everything kept so far, oldest first."""
        ...


@dataclass
class Record:
    """What is known of one sample.

    Attributes:
        clean: None until it was evaluated.
        proofs: For each method its proven attempts.
        nearest: The counterexample with the smallest distance; None if there is none.
        tried: For each method and radius the last attempt.
    """

    clean: Clean | None = None
    proofs: dict[str, list[Attempt]] = field(default_factory=dict)
    nearest: Adversarial | None = None
    tried: dict[tuple[str, Fraction], Attempt] = field(default_factory=dict)

    def add(self, finding: Finding) -> None:
        """Takes in a finding about this sample."""
        if isinstance(finding, Clean):
            self.clean = finding
        elif isinstance(finding, Adversarial):
            if self.nearest is None or finding.distance < self.nearest.distance:
                self.nearest = finding
        else:
            self.tried[finding.method, finding.eps] = finding
            if finding.verdict == "proven":
                self.proofs.setdefault(finding.method, []).append(finding)

    def proven(self, method: str) -> Fraction | None:
        """The largest radius that the method has proven, None if there is none."""
        return max((a.eps for a in self.proofs.get(method, ())), default=None)

    @property
    def refuted(self) -> Fraction | None:
        """The distance of the nearest counterexample."""
        return None if self.nearest is None else self.nearest.distance

    def verdict(self, method: str, eps: Fraction) -> Verdict:
        """Of a question, by all evidence; a counterexample outweighs a proof.

        A proof is about real arithmetic and a counterexample about onnxruntime's: where a margin is below
        the rounding of the network they may disagree. Proofs about the smoothed classifier stand alone.
        """
        refuted, proven = self.refuted, self.proven(method)
        if method != SMOOTHED:
            if self.clean is not None and not self.clean.correct:
                return "refuted"
            if refuted is not None and refuted <= eps:
                return "refuted"
        if proven is not None and eps <= proven:
            return "proven"
        tried = self.tried.get((method, eps)) if method == SMOOTHED else None
        return "refuted" if tried is not None and tried.verdict == "refuted" else "unknown"

    def decided_by(self, method: str, eps: Fraction) -> str:
        """The technique behind the verdict."""
        verdict = self.verdict(method, eps)
        if verdict == "refuted" and method != SMOOTHED:
            wrong = self.clean is not None and not self.clean.correct
            return "clean" if wrong or self.nearest is None else self.nearest.source
        if verdict == "proven":
            return min((a for a in self.proofs[method] if a.eps >= eps), key=lambda a: a.eps).stage
        tried = self.tried.get((method, eps))
        return "" if tried is None else tried.stage


def records_of(count: int, findings: Iterable[Finding]) -> list[Record]:
    """All findings by sample."""
    records = [Record() for _ in range(count)]
    for finding in findings:
        records[finding.sample].add(finding)
    return records
