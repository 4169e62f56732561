"""Minimal distances: counterexamples as near as they can be found, for the upper ends of radii.

Method: from a first counterexample, or the sample itself, repeated steps to the nearest point of the
linearised boundary (DeepFool, Moosavi-Dezfooli et al. 2016, arXiv:1511.04599; with a box FAB, Croce and Hein
2020, arXiv:1907.02044), the best cut back to where the label still loses; then descents at a radius somewhat
below the best distance, again and again, the share approaching 1 where they fail.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from lpverify.config import Deadline
from lpverify.errors import InputError
from lpverify.robustness.attack.attacks import Attack
from lpverify.robustness.attack.descent import Descent, Runs, best_rows, diverse_starts, repeated
from lpverify.robustness.attack.leads import ANY
from lpverify.robustness.attack.projections import lengths, to_plane
from lpverify.robustness.attack.segments import accepted, crossings
from lpverify.robustness.evidence import Adversarial

FIRST_SHARE = 0.8  # of the best distance, where the first descents look for a nearer counterexample
LAST_SHARE = 0.99  # failing beyond this share, a sample is left as it is
OVERSHOOT = 1.001  # of a step to the linearised boundary
LINEAR_STEPS = 12
RUNS = 4  # of each sample in a round, the first one from the best counterexample
ROUND_STEPS = 25


def nearest(
    attack: Attack, indices: Sequence[int], deadline: Deadline, most_eps: Fraction
) -> Iterator[Adversarial]:
    """Yields the nearest counterexample that was found for each sample, within a radius.

    Args:
        attack: What to look with.
        indices: Samples.
        deadline: When to stop improving; samples that were not begun get nothing.
        most_eps: The largest distance that is of interest.

    Raises:
        InputError: `most_eps` is not positive.
    """
    if most_eps <= 0:
        raise InputError(f"the largest distance must be positive, got {most_eps}")
    for block in attack.blocks(list(dict.fromkeys(int(i) for i in indices))):
        if deadline.passed:
            return
        near = _Near(attack, most_eps, {})
        clean = {i: attack.judge.adversarial(i, attack.judge.samples.x[i], "clean") for i in block}
        near.best.update((i, found) for i, found in clean.items() if found is not None)
        open_ = [i for i in block if i not in near.best]
        near.linearise(np.array(open_, np.int64), deadline)
        missing = {i: most_eps for i in open_ if i not in near.best}
        near.best.update(attack.hunt(missing, deadline))
        near.refine(deadline)
        yield from near.best.values()


def shrink(attack: Attack, adversarial: Adversarial, deadline: Deadline) -> Adversarial:
    """The nearest counterexample for its sample that a search from a known one finds; at worst itself."""
    near = _Near(attack, adversarial.distance, {adversarial.sample: adversarial})
    near.refine(deadline)
    return near.best[adversarial.sample]


@dataclass
class _Near:
    """The nearest counterexamples so far.

    Attributes:
        attack: What to look with.
        most: The largest distance of interest.
        best: By sample.
    """

    attack: Attack
    most: Fraction
    best: dict[int, Adversarial]

    def refine(self, deadline: Deadline) -> None:
        """Brings all nearer, until the deadline or until nothing helps."""
        share = {i: FIRST_SHARE for i, found in self.best.items() if found.distance > 0}
        self._restart(np.array(list(share), np.int64), deadline)
        for turn in range(self.attack.plan.rounds):
            samples = np.array([i for i, part in share.items() if part < LAST_SHARE], np.int64)
            if not len(samples) or deadline.passed:
                break
            before = {i: self.best[i].distance for i in samples.tolist()}
            self._round(samples, share, turn, deadline)
            for i in samples.tolist():
                if not self.best[i].distance < before[i]:
                    share[i] = share[i] ** 0.5
        self._restart(np.array(list(share), np.int64), deadline)

    def linearise(self, samples: np.ndarray, deadline: Deadline) -> None:
        """Steps to the linearised boundary from the samples themselves, towards the strongest rivals."""
        if not len(samples):
            return
        runs = self._runs(samples, np.full(len(samples), float(self.most)))
        runs = repeated(runs, self.attack.targets(runs))
        self._walk(runs, np.zeros_like(runs.origin), deadline)

    def _restart(self, samples: np.ndarray, deadline: Deadline) -> None:
        """The same from the best counterexamples."""
        if not len(samples) or deadline.passed:
            return
        runs = self._runs(samples, np.array([float(self.best[i].distance) for i in samples.tolist()]))
        targets = self.attack.targets(runs)
        moved = np.repeat(self._moved(samples), targets.shape[1], axis=0)
        self._walk(repeated(runs, targets), moved, deadline)

    def _walk(self, runs: Runs, moved: np.ndarray, deadline: Deadline) -> None:
        """Each step ends at the nearest point of the boundary as it looks from where the run is."""
        norm, leads = self.attack.judge.threat.norm, self.attack.leads
        best, length = moved.copy(), np.full(len(moved), np.inf)
        for count in range(LINEAR_STEPS + 1):
            outputs, gradient = leads.gradient(runs.origin + moved, runs.label, runs.target)
            loses = leads.lead(outputs, runs.label) <= 0
            better = loses & (lengths(norm, moved) < length)
            best[better], length[better] = moved[better], lengths(norm, moved[better])
            if count == LINEAR_STEPS or deadline.passed:
                break
            lead = leads.lead(outputs, runs.label, runs.target)
            slope = (gradient * moved).sum(1)
            drop = np.where(np.isfinite(lead), OVERSHOOT * (lead - slope), 0.0)
            there = to_plane(norm, gradient, drop, runs.low, runs.high)
            moved = there if count % 2 == 0 else 0.5 * (there + moved)
        rows = np.flatnonzero(np.isfinite(length))
        self._enter(runs.take(rows), best[rows], "boundary")

    def _round(self, samples: np.ndarray, share: dict[int, float], turn: int, deadline: Deadline) -> None:
        """Descents at a share of the best distances, one of each sample from its best counterexample."""
        attack, norm = self.attack, self.attack.judge.threat.norm
        radius = np.array([float(self.best[i].distance) * share[i] for i in samples.tolist()])
        runs = self._runs(samples, radius)
        rivals = np.array([self.best[i].predicted for i in samples.tolist()])
        targets = np.concatenate([rivals[:, None], attack.targets(runs)[:, : RUNS - 1]], axis=1)
        runs = repeated(runs, targets)
        width = targets.shape[1]
        start = diverse_starts(attack.leads, attack.judge, runs, attack.keys(samples, width, salt=2 + turn))
        start[::width] = runs.take(np.arange(0, len(start), width)).project(norm, self._moved(samples))
        hits: list[tuple[int, np.ndarray]] = []

        def found(some: np.ndarray, points: np.ndarray) -> np.ndarray:
            hits.extend(zip(some.tolist(), points, strict=True))
            return np.ones(len(some), bool)

        Descent(attack.leads, attack.judge, ROUND_STEPS, 0.5).run(runs, start, found, deadline)
        if hits:
            self._enter_points(hits)

    def _enter_points(self, hits: list[tuple[int, np.ndarray]]) -> None:
        samples, points = np.array([i for i, _ in hits], np.int64), np.array([x for _, x in hits])
        runs = self._runs(samples, np.array([float(self.best[i].distance) for i in samples.tolist()]))
        self._enter(runs, points - runs.centre, "pgd")

    def _enter(self, runs: Runs, moved: np.ndarray, source: str) -> None:
        """Cuts displacements back to the boundary; the best of each sample goes before the judge."""
        judge, norm = self.attack.judge, self.attack.judge.threat.norm
        share = crossings(self.attack.leads, runs.centre, runs.label, moved)
        for row in best_rows(runs.sample, share * lengths(norm, moved)).tolist():
            sample = int(runs.sample[row])
            known = self.best.get(sample)
            below = None if known is None else known.distance
            found = accepted(judge, sample, moved[row], float(share[row]), source, below)
            if found is not None and found.distance <= self.most:
                self.best[sample] = found

    def _runs(self, samples: np.ndarray, radius: np.ndarray) -> Runs:
        precision = self.attack.leads.precision
        return Runs.of(self.attack.judge, samples, np.full(len(samples), ANY), radius, precision)

    def _moved(self, samples: np.ndarray) -> np.ndarray:
        judge = self.attack.judge
        found = [self.best[i].point - judge.samples.x[i] for i in samples.tolist()]
        return np.array(found, self.attack.leads.precision)
