"""Certified radii from Lipschitz constants: a lead can't be lost before its certified size is used up.

For a sample x with certified leads m_i > 0 over its rivals and constants L_i of these leads (of the
difference of two rows of the last layer, where that is affine), no point nearer than `min m_i / L_i` is
misclassified (Tsuzuku et al. 2018, arXiv:1802.04034, proposition 1, with a constant for each pair). Constants
of the ball of radius r alone prove r if `m_i > L_i r` (Hein and Andriushchenko 2017, arXiv:1705.08475,
theorem 2.1); r is found by bisection. Comparisons are exact.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import cached_property
from math import inf, isfinite, nextafter

import numpy as np

from lpverify.bounds.evaluate import slices
from lpverify.bounds.propagate import propagate
from lpverify.config import Deadline
from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.network import Network
from lpverify.query import float_below
from lpverify.robustness.bounders import attempt_of
from lpverify.robustness.evidence import Attempt, Question
from lpverify.robustness.lipschitz.chain import Layers, Part, parts_of
from lpverify.robustness.lipschitz.deviation import deviation_bounds, deviation_layers, local_layers
from lpverify.robustness.lipschitz.local import LIMIT, boxes_of, dual_sizes, jacobian_rows
from lpverify.robustness.lipschitz.pairs import STAGES, dimension_factor, pair_constants
from lpverify.robustness.margins import Margins

BISECTIONS = 8
WORTH = 1.02  # by how much a radius has to be extensible for another bisection
FLATTEST = 2.0**-900  # a constant that is smaller counts as this: radii are finite


@dataclass(frozen=True)
class Radius:
    """A radius that is proven, and by which technique."""

    value: Fraction
    stage: str


@dataclass(frozen=True)
class LipschitzCertifier:
    """Certifies by Lipschitz constants, everywhere first and around each sample where that is not enough.

    Attributes:
        margins: The network, the samples and the threat.
        solver: Of semidefinite programs; None: the usual one.
        seconds: Limit of all semidefinite programs together; 0: none are solved.
        deadline: When to stop; what is not reached is not answered.
        name: What the attempts are called.
    """

    margins: Margins
    solver: str | None = None
    seconds: float = 60.0
    deadline: Deadline = field(default_factory=Deadline)
    name: str = "lipschitz"

    def radii(self, samples: Sequence[int]) -> list[Fraction]:
        """A certified radius for each sample: every ball up to it is robust; 0 where nothing is proven."""
        return [found.value for found in self.found_radii(samples)]

    def found_radii(self, samples: Sequence[int]) -> list[Radius]:
        """The same with the technique that each comes from."""
        found: list[Radius] = []
        for part in slices(len(samples), self._batch):
            some = list(samples[part])
            leads = self._leads(some)
            found += self._extended(
                some, leads, [self._global(i, lead) for i, lead in zip(some, leads, strict=True)]
            )
        return found

    def answer(self, questions: Sequence[Question]) -> Iterator[Attempt]:
        """Yields an attempt for each question: by constants that hold everywhere, then by local ones."""
        for part in slices(len(questions), self._batch):
            if self.deadline.passed:
                return
            some, start = list(questions[part]), time.monotonic()
            leads = self._leads([q.sample for q in some])
            found = [self._everywhere(q, lead) for q, lead in zip(some, leads, strict=True)]
            open_ = [k for k, (margin, _) in enumerate(found) if not margin > 0 and leads[k].min() > 0]
            reason = ""
            try:
                for k, margin in zip(
                    open_, self._around([some[k] for k in open_], leads[open_]), strict=True
                ):
                    found[k] = max(found[k], (margin, "local"), key=lambda pair: pair[0])
            except UnsupportedError as error:
                reason = str(error)
            seconds = (time.monotonic() - start) / len(some)
            for question, (margin, stage) in zip(some, found, strict=True):
                yield self._attempt(question, stage, margin, seconds, reason)

    def _attempt(self, question: Question, stage: str, margin: float, seconds: float, reason: str) -> Attempt:
        made = replace(attempt_of(question, self.name, margin, seconds), stage=stage)
        lacks = reason or self._constants[1]
        return made if made.verdict == "proven" or not lacks else replace(made, reason=lacks)

    @property
    def _batch(self) -> int:
        """Smaller than that of bounds: each rival has a row of its own."""
        return max(1, self.margins.batch // len(self.margins.problem.cases[0].forms))

    @property
    def _network(self) -> Network:
        return self.margins.problem.network

    @cached_property
    def _constants(self) -> tuple[Mapping[str, np.ndarray], str]:
        """Constants of all leads by technique, and why there are none."""
        norm = self.margins.threat.norm
        try:
            return pair_constants(self._network, norm, self.solver, self.deadline.within(self.seconds)), ""
        except UnsupportedError as error:
            return {}, str(error)

    def _forms(self, sample: int) -> np.ndarray:
        return self.margins.problem.cases[int(self.margins.cases([sample])[0])].forms

    def _leads(self, samples: Sequence[int]) -> np.ndarray:
        """Certified leads `(S, R)` at the samples themselves."""
        x = self.margins.threat.region(self.margins.samples.x[list(samples)], [Fraction(0)] * len(samples))
        with np.errstate(over="ignore", invalid="ignore"):
            frame = propagate(self._network, x, Effort("ibp"), LIMIT)
        lower = frame.boxes[self._network.output].lower
        return np.stack([low[self._forms(i)] for low, i in zip(lower, samples, strict=True)])

    def _global(self, sample: int, leads: np.ndarray) -> Radius:
        """The largest radius by constants that hold everywhere."""
        best = Radius(Fraction(0), STAGES[0])
        for stage, constants in self._constants[0].items():
            radius = _radius(leads, constants[self._forms(sample)])
            if radius > best.value:
                best = Radius(radius, stage)
        return best

    def _everywhere(self, question: Question, leads: np.ndarray) -> tuple[float, str]:
        """The best lower bound of the smallest lead at a radius, by constants that hold everywhere."""
        forms, found = self._forms(question.sample), (-inf, STAGES[0])
        for stage, constants in self._constants[0].items():
            margin = _margin(leads, constants[forms], question.eps)
            found = max(found, (margin, stage), key=lambda pair: pair[0])
        return found

    def _around(self, questions: Sequence[Question], leads: np.ndarray) -> list[float]:
        """Lower bounds of the smallest leads by constants of each ball."""
        if not questions:
            return []
        slopes = self._local([q.sample for q in questions], [q.eps for q in questions])
        return [_margin(m, s, q.eps) for m, s, q in zip(leads, slopes, questions, strict=True)]

    def _local(self, samples: Sequence[int], eps: Sequence[Fraction]) -> np.ndarray:
        """Constants `(S, R)` of leads on balls around samples.

        Raises:
            UnsupportedError: A node has no bounded slope.
        """
        region = self.margins.threat.region(self.margins.samples.x[list(samples)], eps)
        unit = np.eye(self._network.nodes[self._network.output].shape[0])
        rows = np.stack([unit[self._forms(i)] for i in samples])
        boxes, norm = boxes_of(self._network, region), self.margins.threat.norm
        sizes = dual_sizes(jacobian_rows(self._network, boxes, rows), norm)
        return np.minimum(sizes, self._deviations(samples, boxes) * dimension_factor(self._network, norm))

    def _deviations(self, samples: Sequence[int], boxes: Sequence[Box]) -> np.ndarray:
        """The same in norm 2 by mean Jacobians, infinite where the network is no plain chain."""
        parts, layers = self._chain
        if layers is None:
            return np.full((len(samples), 1), inf)
        each = local_layers(self._network, parts, layers, boxes)
        forms = (self._forms(i) for i in samples)
        return np.stack([deviation_bounds(c.with_rows(f))[0] for c, f in zip(each, forms, strict=True)])

    @cached_property
    def _chain(self) -> tuple[Sequence[Part], Layers | None]:
        try:
            parts = parts_of(self._network)
            return parts, deviation_layers(self._network, parts)
        except UnsupportedError:
            return (), None

    def _ends(self, samples: Sequence[int], leads: np.ndarray, eps: Sequence[Fraction]) -> list[Fraction]:
        """Radii that constants of larger balls than those can't reach."""
        if not samples:
            return []
        return [_radius(m, s) for m, s in zip(leads, self._local(samples, eps), strict=True)]

    def _extended(self, samples: Sequence[int], leads: np.ndarray, start: list[Radius]) -> list[Radius]:
        """Radii extended by local constants, by bisection between what is proven and what is beyond hope."""
        found = list(start)
        open_ = [k for k in range(len(samples)) if leads[k].min() > 0]
        try:
            ends = self._ends([samples[k] for k in open_], leads[open_], [found[k].value for k in open_])
            ends_of = dict(zip(open_, ends, strict=True))
            for _ in range(BISECTIONS):
                open_ = [k for k in open_ if float(ends_of[k]) > WORTH * float(found[k].value)]
                if not open_ or self.deadline.passed:
                    break
                tried = [_between(found[k].value, ends_of[k]) for k in open_]
                asked = [Question(samples[k], r) for k, r in zip(open_, tried, strict=True)]
                for k, r, margin in zip(open_, tried, self._around(asked, leads[open_]), strict=True):
                    if margin > 0:
                        found[k] = Radius(r, "local")
                    else:
                        ends_of[k] = r
        except UnsupportedError:
            return found
        return found


def _between(low: Fraction, high: Fraction) -> Fraction:
    """A float about in the middle."""
    return Fraction(0.5 * (float(low) + float(high)))


def _radius(leads: np.ndarray, constants: np.ndarray) -> Fraction:
    """The largest float r, about, with `lead > constant r` for all rivals; 0 where a lead is not positive."""
    smallest = inf
    for lead, constant in zip(leads.tolist(), constants.tolist(), strict=True):
        if not (isfinite(lead) and lead > 0 and constant < inf):
            return Fraction(0)
        constant = max(constant, FLATTEST)
        share = float_below(Fraction(lead) / Fraction(constant))
        smallest = min(smallest, share)
    radius = max(nextafter(smallest, 0.0), 0.0)
    return Fraction(radius) if isfinite(radius) else Fraction(0)


def _margin(leads: np.ndarray, constants: np.ndarray, eps: Fraction) -> float:
    """A lower bound of the smallest `lead - constant eps`, minus infinity where that is undefined."""
    smallest = inf
    for lead, constant in zip(leads.tolist(), constants.tolist(), strict=True):
        if not (isfinite(lead) and isfinite(constant)):
            return -inf
        exact = Fraction(lead) - Fraction(constant) * eps
        smallest = min(smallest, float_below(exact))
    return smallest
