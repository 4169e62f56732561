"""Projected gradient descent on leads for many runs at once: several for each sample, each with its target.

Method: APGD (Croce and Hein 2020, arXiv:2003.01690): momentum, and steps that are halved where they stop
paying, from the best point so far. For norm 1 sparse steps (Croce and Hein 2021, arXiv:2103.01208). Runs
follow single rivals (Gowal et al. 2019, arXiv:1910.09338) from starts diversified in output space (Tashiro et
al. 2020, arXiv:2003.06878). Nothing here is trusted: a point counts only after the judge took it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lpverify.config import Deadline
from lpverify.interval import add_up
from lpverify.robustness.attack.leads import Leads
from lpverify.robustness.attack.projections import lengths, project
from lpverify.robustness.judge import Judge

SLACK = 16  # roundings; the radius less so many, so that what they add leaves points in the ball
MOMENTUM = 0.25
NEARLY = 1e-6  # of the outputs; a lead below this may be none in the original's arithmetic
SPARSITY = 0.2  # share of the inputs that the first steps for norm 1 move
DIVERSE_STEPS = 2

Found = Callable[[np.ndarray, np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Runs:
    """Descents, a row each.

    Attributes:
        sample: Indices `(R,)`.
        label: Of the samples.
        target: The rival to descend towards, or `leads.ANY`.
        centre: The samples `(R, n)`.
        lower: Ends of the box around the ball, in the clip range; numbers of the input type `(R, n)`.
        upper: Likewise.
        radius: `(R,)`.
        low: The box as displacements, in the precision of the computations.
        high: Likewise.
        origin: The samples likewise.
    """

    sample: np.ndarray
    label: np.ndarray
    target: np.ndarray
    centre: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    radius: np.ndarray
    low: np.ndarray
    high: np.ndarray
    origin: np.ndarray

    @classmethod
    def of(
        cls, judge: Judge, sample: np.ndarray, target: np.ndarray, radius: np.ndarray, precision: type
    ) -> "Runs":
        """Around samples, each with its own radius."""
        centre, label = judge.samples.x[sample], judge.samples.y[sample]
        wide = radius[:, None] + np.zeros_like(centre)
        lower = judge.towards(add_up(centre, -wide), centre)
        upper = judge.towards(-add_up(-centre, -wide), centre)
        low, high, origin = (v.astype(precision) for v in (lower - centre, upper - centre, centre))
        return cls(sample, label, target, centre, lower, upper, radius.astype(precision), low, high, origin)

    def take(self, rows: np.ndarray) -> "Runs":
        """Some of them."""
        return Runs(*(getattr(self, name)[rows] for name in self.__dataclass_fields__))

    def project(self, norm: float, moved: np.ndarray) -> np.ndarray:
        """Displacements brought into the ball and the range."""
        radius = self.radius * (1 - SLACK * np.finfo(moved.dtype).eps)
        return project(norm, moved, self.low, self.high, radius)

    def points(self, judge: Judge, moved: np.ndarray, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """The inputs at displacements `(R, n)` of some rows, numbers of the input type, not farther out."""
        x = judge.towards(self.centre[rows] + moved[rows], self.centre[rows])
        return np.clip(x, self.lower[rows], self.upper[rows])


def steepest(norm: float, gradient: np.ndarray, share: np.ndarray | float = SPARSITY) -> np.ndarray:
    """The directions of length about 1 in a norm that a gradient says to go up; 0 where it is 0.

    Args:
        norm: 1, 2 or infinity.
        gradient: `(R, n)`.
        share: For norm 1 of the coordinates that are moved, `(R,)` or one number.
    """
    if norm == math.inf:
        return np.sign(gradient)
    size = np.abs(gradient)
    if norm == 2:
        largest = size.max(1, keepdims=True, initial=0.0)
        scaled = gradient / np.where(largest > 0, largest, 1.0)
        length = np.sqrt((scaled * scaled).sum(1, keepdims=True))
        return scaled / np.where(length > 0, length, 1.0)
    n = gradient.shape[1]
    count = np.clip(np.rint(np.broadcast_to(share, len(gradient)) * n), 1, n).astype(np.int64)
    limit = np.take_along_axis(-np.sort(-size, axis=1), count[:, None] - 1, 1)
    chosen = np.where((size >= limit) & (size > 0), np.sign(gradient), 0.0)
    return chosen / np.maximum(np.abs(chosen).sum(1, keepdims=True), 1.0)


def diverse_starts(leads: Leads, judge: Judge, runs: Runs, keys: np.ndarray) -> np.ndarray:
    """Random displacements, moved along a random direction of the outputs.

    Args:
        leads: The network.
        judge: For the norm.
        runs: Where.
        keys: `(R, k)` whole numbers; the start of a row depends on its key alone.
    """
    norm, classes = judge.threat.norm, judge.threat.classes
    rngs, n = [np.random.default_rng(key) for key in keys.tolist()], runs.centre.shape[1]
    draws = [rng.uniform(-1, 1, n) if norm == math.inf else rng.normal(size=n) for rng in rngs]
    moved = np.array(draws, runs.origin.dtype).reshape(len(rngs), n)
    direction = np.array([rng.uniform(-1, 1, classes) for rng in rngs])
    moved *= (runs.radius / np.maximum(lengths(norm, moved), np.finfo(np.float32).tiny))[:, None]
    moved = runs.project(norm, moved)
    for _ in range(DIVERSE_STEPS):
        gradient = leads.along(runs.origin + moved, direction)
        moved = runs.project(norm, moved + runs.radius[:, None] * steepest(norm, gradient))
    return moved


@dataclass
class _Course:
    """Where runs are: displacements, and what their step sizes depend on."""

    runs: Runs
    moved: np.ndarray
    before: np.ndarray
    best: np.ndarray
    value: np.ndarray
    step: np.ndarray
    share: np.ndarray
    gains: np.ndarray
    halved: np.ndarray
    last: np.ndarray
    blind: np.ndarray

    @classmethod
    def of(cls, runs: Runs, start: np.ndarray, first_step: float) -> "_Course":
        count = len(runs.sample)
        zero, no = np.zeros(count), np.full(count, np.inf)
        share = np.full(count, SPARSITY)
        parts = (first_step * runs.radius, share, zero, np.ones(count, bool), no.copy(), zero)
        return cls(runs, start.copy(), start.copy(), start.copy(), no, *parts)

    def take(self, rows: np.ndarray) -> None:
        """Goes on with some of the runs only."""
        for name in self.__dataclass_fields__:
            part = getattr(self, name)
            setattr(self, name, part.take(rows) if isinstance(part, Runs) else part[rows])

    def note(self, value: np.ndarray) -> None:
        """The leads over the targets at the points where the runs are."""
        better = value < self.value
        self.gains = self.gains + better
        self.value = np.where(better, value, self.value)
        np.copyto(self.best, self.moved, where=better[:, None])

    def check(self, steps: int) -> None:
        """Halves step sizes that stopped paying in the last so many steps."""
        slow = self.gains < 0.75 * steps
        stuck = ~self.halved & (self.value >= self.last)
        halve = slow | stuck
        self.step[halve] *= 0.5
        self.moved[halve], self.before[halve] = self.best[halve], self.best[halve]
        moving = np.count_nonzero(self.best, axis=1) / (1.5 * self.best.shape[1])
        self.share = np.where(halve, np.minimum(self.share, moving), self.share)
        self.halved, self.last, self.gains = halve, self.value.copy(), np.zeros(len(halve))

    def go(self, norm: float, gradient: np.ndarray) -> None:
        """One step down."""
        if norm == 1:  # what is at its end must not take the place of others
            room = np.where(gradient > 0, self.moved > self.runs.low, self.moved < self.runs.high)
            gradient = gradient * room
        ahead = steepest(norm, gradient, self.share)
        ahead *= -self.step[:, None]
        ahead += (1 + MOMENTUM) * self.moved
        ahead -= MOMENTUM * self.before
        self.moved, self.before = self.runs.project(norm, ahead), self.moved


@dataclass(frozen=True)
class Descent:
    """How to go down.

    Attributes:
        leads: The network.
        judge: For the norm and the input type.
        steps: How many.
        first_step: Its size as a share of the radius.
    """

    leads: Leads
    judge: Judge
    steps: int
    first_step: float = 1.0

    def run(self, runs: Runs, start: np.ndarray, found: Found, deadline: Deadline) -> "Left":
        """Descends until every sample has its counterexample.

        Args:
            runs: What to do.
            start: Displacements `(R, n)`, in the ball.
            found: Judges: from rows' samples and points to which of them are counterexamples.
            deadline: When to give up.

        Returns:
            What is left of the runs of samples without one.
        """
        course, norm = _Course.of(runs, start, self.first_step), self.judge.threat.norm
        marks = _checkpoints(self.steps)
        for count in range(self.steps + 1):
            outputs, gradient = self._look(course, found)
            if not len(course.value) or deadline.passed or count == self.steps:
                break
            course.note(self.leads.lead(outputs, course.runs.label, course.runs.target))
            course.blind = course.blind + ~gradient.any(1)
            if count in marks:
                course.check(marks[count])
            course.go(norm, gradient)
        return Left(course.runs, course.best, course.value, 2 * course.blind > self.steps)

    def _look(self, course: _Course, found: Found) -> tuple[np.ndarray, np.ndarray]:
        """Evaluates; drops the runs of samples that have their counterexample."""
        runs = course.runs
        outputs, gradient = self.leads.gradient(runs.origin + course.moved, runs.label, runs.target)
        lead = self.leads.lead(outputs, runs.label)
        size = np.abs(np.where(np.isfinite(outputs), outputs, 0.0)).max(1, initial=0.0)
        hits = best_rows(runs.sample, np.where(lead <= NEARLY * size, lead, np.inf))
        if not len(hits):
            return outputs, gradient
        done = runs.sample[hits][found(runs.sample[hits], runs.points(self.judge, course.moved, hits))]
        kept = np.flatnonzero(~np.isin(runs.sample, done))
        if len(kept) < len(runs.sample):
            course.take(kept)
        return outputs[kept], gradient[kept]


@dataclass(frozen=True)
class Left:
    """Runs that found nothing: best displacements, the leads there, which saw hardly any gradient."""

    runs: Runs
    moved: np.ndarray
    value: np.ndarray
    flat: np.ndarray


def best_rows(sample: np.ndarray, value: np.ndarray) -> np.ndarray:
    """For each sample the row of its least finite value, ascending by sample."""
    order = np.lexsort((value, sample))
    order = order[np.isfinite(value[order])]
    return order[np.unique(sample[order], return_index=True)[1]]


def _checkpoints(steps: int) -> dict[int, int]:
    """When to look at step sizes, and how many steps after the last time."""
    marks, last, gap = {}, 0, max(int(0.22 * steps), 1)
    while last + gap < steps:
        marks[last + gap] = gap
        last, gap = last + gap, max(gap - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
    return marks


def repeated(runs: Runs, targets: np.ndarray) -> Runs:
    """Each run once for each of its targets `(R, k)`; those of one run follow each other."""
    copies = runs.take(np.repeat(np.arange(len(runs.sample)), targets.shape[1]))
    return replace(copies, target=targets.reshape(-1))
