"""Attacks as a method: counterexamples for many samples and radii at once, and nearer ones.

For each radius, smallest first, a sample goes through techniques of rising cost: the sample itself, a short
descent (`step`), many runs towards the strongest rivals (`pgd`), and a random search where gradients are zero
(`square`). A counterexample answers all radii from its distance on.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property, partial
from typing import TypeAlias

import numpy as np

from lpverify.bounds.evaluate import slices
from lpverify.config import Deadline
from lpverify.errors import InputError
from lpverify.query import float_below
from lpverify.robustness.attack.descent import Descent, Runs, diverse_starts, repeated
from lpverify.robustness.attack.leads import ANY, Leads
from lpverify.robustness.attack.segments import closer
from lpverify.robustness.attack.square import Search
from lpverify.robustness.evidence import Adversarial, Attempt, Question
from lpverify.robustness.judge import Judge
from lpverify.robustness.margins import Margins

BLOCK_ELEMENTS = 300_000  # inputs of all runs that are under way together: what a cache holds
LARGEST_BLOCK = 256

Technique: TypeAlias = Callable[["Hunt", Deadline], np.ndarray]  # returns the samples that it was tried on


@dataclass(frozen=True)
class AttackPlan:
    """Sizes of the attack.

    Attributes:
        short_steps: Of the first descent.
        restarts: Runs of each sample after that.
        steps: Of each run.
        rivals: How many of the strongest rivals get runs of their own.
        random_steps: Of the random search, where there are no gradients.
        random_restarts: Of that search.
        rounds: Of the search for nearer counterexamples, at shrinking radii.
    """

    short_steps: int = 20
    restarts: int = 6
    steps: int = 40
    rivals: int = 4
    random_steps: int = 400
    random_restarts: int = 2
    rounds: int = 12


@dataclass
class Hunt:
    """Counterexamples wanted, at most one for each sample; what is found nearer than wanted counts as well.

    Attributes:
        judge: Who decides.
        wanted: For each sample the radius.
        precision: Of displacements.
        found: By sample.
        flat: Samples at which most steps of all runs saw no gradient.
    """

    judge: Judge
    wanted: dict[int, Fraction]
    precision: type
    found: dict[int, Adversarial] = field(default_factory=dict)
    flat: set[int] = field(default_factory=set)

    @property
    def open(self) -> np.ndarray:
        """Samples without a counterexample."""
        return np.array([i for i in self.wanted if i not in self.found], np.int64)

    def runs(self, samples: np.ndarray) -> Runs:
        """A run for each sample towards any rival."""
        radius = np.array([float_below(self.wanted[i]) for i in samples.tolist()])
        return Runs.of(self.judge, samples, np.full(len(samples), ANY), radius, self.precision)

    def take(self, source: str, samples: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Brings points before the judge; which of them are counterexamples within the radius."""
        verdicts = np.zeros(len(samples), bool)
        for row, (sample, point) in enumerate(zip(samples.tolist(), points, strict=True)):
            adversarial = self.judge.adversarial(sample, point, source)
            if adversarial is not None and adversarial.distance <= self.wanted[sample]:
                self.found[sample], verdicts[row] = adversarial, True
        return verdicts


@dataclass(frozen=True)
class Attack:
    """Looks for counterexamples; never proves anything.

    Attributes:
        margins: The network, the samples and the threat.
        judge: Of the same.
        seed: Of every random choice; a sample's are its own, whatever else is asked.
        plan: Sizes.
        name: What the attempts are called.
    """

    margins: Margins
    judge: Judge
    seed: int = 0
    plan: AttackPlan = AttackPlan()
    name: str = "attack"

    def __post_init__(self) -> None:
        if self.seed < 0:
            raise InputError(f"seed: {self.seed} is negative")

    @cached_property
    def leads(self) -> Leads:
        """The network as attacks use it."""
        return Leads.of(self.margins, self.judge)

    def answer(
        self, questions: Sequence[Question], deadline: Deadline | None = None
    ) -> Iterator[Attempt | Adversarial]:
        """Yields counterexamples and an attempt for each question that was begun before the deadline.

        Raises:
            InputError: A radius is negative.
        """
        deadline = deadline or Deadline()
        if any(question.eps < 0 for question in questions):
            raise InputError("a radius is negative")
        radii: dict[int, set[Fraction]] = {}
        for question in questions:
            radii.setdefault(question.sample, set()).add(question.eps)
        for block in self.blocks(list(radii)):
            yield from self._answer({i: sorted(radii[i]) for i in block}, deadline)

    def blocks(self, samples: Sequence[int]) -> Iterator[Sequence[int]]:
        """Samples to be attacked together."""
        runs = max(self.plan.restarts, 1) * max(self.judge.samples.x.shape[1], 1)
        size = int(np.clip(BLOCK_ELEMENTS // runs, 1, LARGEST_BLOCK))
        for part in slices(len(samples), size):
            yield samples[part]

    @property
    def techniques(self) -> tuple[tuple[str, Technique], ...]:
        """From the cheapest on."""
        return (
            ("clean", self._clean),
            ("step", self._step),
            ("pgd", self._descend),
            ("square", self._search),
        )

    def hunt(self, wanted: dict[int, Fraction], deadline: Deadline) -> dict[int, Adversarial]:
        """One counterexample for each sample within its radius, where there is one to be found."""
        hunt = Hunt(self.judge, wanted, self.leads.precision)
        for _, technique in self.techniques:
            technique(hunt, deadline)
        return hunt.found

    def _answer(
        self, radii: dict[int, list[Fraction]], deadline: Deadline
    ) -> Iterator[Attempt | Adversarial]:
        ledger = _Ledger(radii)
        for stage, technique in self.techniques:
            for wanted in ledger.levels():
                if deadline.passed:
                    break
                start = time.monotonic()
                hunt = Hunt(self.judge, wanted, self.leads.precision, flat=ledger.flat)
                tried = technique(hunt, deadline).tolist()
                found = [self._nearer(a, radii, deadline) for a in hunt.found.values()]
                ledger.enter(stage, {i: wanted[i] for i in tried}, found, time.monotonic() - start)
                yield from found
        reason = "the time was used up" if deadline.passed else "no counterexample was found"
        yield from ledger.attempts(self.name, reason)

    def _nearer(
        self, found: Adversarial, radii: dict[int, list[Fraction]], deadline: Deadline
    ) -> Adversarial:
        """Where it may answer smaller radii as well, the nearest one on the way from the sample."""
        smaller = any(eps < found.distance for eps in radii[found.sample])
        return closer(self.judge, found) if smaller and not deadline.passed else found

    def keys(self, samples: np.ndarray, count: int, salt: int = 0) -> np.ndarray:
        """Seeds `(R * count, 4)` of random choices, those of one sample follow each other."""
        rows = [(self.seed, salt, i, k) for i in samples.tolist() for k in range(count)]
        return np.array(rows, np.int64).reshape(-1, 4)

    def _clean(self, hunt: Hunt, deadline: Deadline) -> np.ndarray:
        samples = hunt.open
        hunt.take("clean", samples, self.judge.samples.x[samples])
        return samples

    def _step(self, hunt: Hunt, deadline: Deadline) -> np.ndarray:
        samples = hunt.open
        if len(samples):
            runs, descent = hunt.runs(samples), Descent(self.leads, self.judge, self.plan.short_steps)
            descent.run(runs, np.zeros_like(runs.origin), partial(hunt.take, "step"), deadline)
        return samples

    def _descend(self, hunt: Hunt, deadline: Deadline) -> np.ndarray:
        samples = hunt.open
        if not len(samples) or deadline.passed:
            return samples[:0]
        runs = hunt.runs(samples)
        targets = self.targets(runs)
        runs = repeated(runs, targets)
        starts = diverse_starts(self.leads, self.judge, runs, self.keys(samples, targets.shape[1]))
        descent = Descent(self.leads, self.judge, self.plan.steps)
        left = descent.run(runs, starts, partial(hunt.take, "pgd"), deadline)
        seeing = set(left.runs.sample[~left.flat].tolist())
        hunt.flat.update(i for i in hunt.open.tolist() if i not in seeing)
        return samples

    def targets(self, runs: Runs) -> np.ndarray:
        """What the runs of each sample go for `(R, restarts)`: any rival, and the strongest in turn."""
        strongest = self.leads.strongest(self.leads.outputs(runs.origin), runs.label, self.plan.rivals)
        whichever = np.full((len(strongest), 1), ANY)
        once = np.concatenate([whichever, strongest], axis=1)
        return np.take(once, np.arange(self.plan.restarts) % once.shape[1], axis=1)

    def _search(self, hunt: Hunt, deadline: Deadline) -> np.ndarray:
        samples = np.array([i for i in hunt.open.tolist() if i in hunt.flat], np.int64)
        if not len(samples) or deadline.passed:
            return samples[:0]
        count = self.plan.random_restarts
        runs = repeated(hunt.runs(samples), np.full((len(samples), count), ANY))
        search = Search(self.leads, self.judge, self.plan.random_steps)
        search.run(runs, self.keys(samples, count, salt=1), partial(hunt.take, "square"), deadline)
        return samples


class _Ledger:
    """Which questions are open, and what was spent on each."""

    def __init__(self, radii: dict[int, list[Fraction]]) -> None:
        self.radii = radii
        self.flat: set[int] = set()
        self._nearest: dict[int, Adversarial] = {}
        self._spent: dict[tuple[int, Fraction], tuple[str, float]] = {}

    def levels(self) -> Iterator[dict[int, Fraction]]:
        """For each sample its smallest radius, then the second, and so on, while they are open."""
        for level in range(max(map(len, self.radii.values()), default=0)):
            asked = {i: eps[level] for i, eps in self.radii.items() if level < len(eps)}
            wanted = {i: eps for i, eps in asked.items() if not self._refuted(i, eps)}
            if wanted:
                yield wanted

    def enter(
        self, stage: str, tried: dict[int, Fraction], found: Iterable[Adversarial], seconds: float
    ) -> None:
        """What a technique found."""
        for key in tried.items():
            self._spent[key] = stage, self._spent.get(key, ("", 0.0))[1] + seconds / len(tried)
        for adversarial in found:
            known = self._nearest.get(adversarial.sample)
            if known is None or adversarial.distance < known.distance:
                self._nearest[adversarial.sample] = adversarial

    def attempts(self, name: str, reason: str) -> Iterator[Attempt]:
        """For all questions that were begun."""
        for sample, radii in self.radii.items():
            for eps in radii:
                stage, seconds = self._spent.get((sample, eps), ("", 0.0))
                if self._refuted(sample, eps):
                    yield Attempt(sample, name, eps, "refuted", self._nearest[sample].source, seconds)
                elif stage:
                    yield Attempt(sample, name, eps, "unknown", stage, seconds, reason)

    def _refuted(self, sample: int, eps: Fraction) -> bool:
        known = self._nearest.get(sample)
        return known is not None and known.distance <= eps
