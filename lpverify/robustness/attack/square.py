"""Random search without gradients: blocks of a point are changed at a time, and kept if the lead falls.

Method: the square attack (Andriushchenko et al. 2020, arXiv:1912.00049), simplified: for norm infinity blocks
get the ends of the box, a random one for each channel; for norms 1 and 2 they get noise, and the point is
projected back. Nothing here is trusted: a point counts only after the judge took it.
"""

import math
from dataclasses import dataclass

import numpy as np

from lpverify.config import Deadline
from lpverify.robustness.attack.descent import Found, Runs, best_rows
from lpverify.robustness.attack.leads import Leads
from lpverify.robustness.judge import Judge

FIRST_SHARE = 0.3  # of the inputs that the first blocks cover
HALVINGS = (0.02, 0.06, 0.15, 0.3, 0.5, 0.7)  # shares of the steps after which blocks cover half as many


@dataclass(frozen=True)
class Search:
    """How to search.

    Attributes:
        leads: The network.
        judge: For the norm and the input type.
        steps: How many changes a run tries.
    """

    leads: Leads
    judge: Judge
    steps: int

    def run(self, runs: Runs, keys: np.ndarray, found: Found, deadline: Deadline) -> None:
        """Searches until every sample has its counterexample; see `Descent.run`.

        Args:
            runs: What to do; their targets mean nothing.
            keys: `(R, k)` whole numbers; what a row tries depends on its key alone.
            found: Judges.
            deadline: When to give up.
        """
        rngs = [np.random.default_rng(key) for key in keys.tolist()]
        moved, best = self._starts(runs, rngs), np.full(len(rngs), np.inf)
        proposed = moved
        for count in range(self.steps + 1):
            points = runs.points(self.judge, proposed)
            lead = self.leads.lead(self.leads.outputs(points), runs.label)
            better = lead <= best  # a step to an equal lead crosses plateaus
            best = np.where(better, lead, best)
            moved = np.where(better[:, None], proposed, moved)
            hits = best_rows(runs.sample, np.where(lead <= 0, lead, np.inf))
            done = runs.sample[hits][found(runs.sample[hits], points[hits])] if len(hits) else hits
            kept = np.flatnonzero(~np.isin(runs.sample, done))
            runs, moved, best, rngs = runs.take(kept), moved[kept], best[kept], [rngs[k] for k in kept]
            if not rngs or deadline.passed:
                return
            proposed = self._changed(runs, moved, rngs, _share(count / self.steps))

    def _starts(self, runs: Runs, rngs: list[np.random.Generator]) -> np.ndarray:
        """Stripes of random signs."""
        shape, n = self.judge.samples.shape, runs.centre.shape[1]
        signs = []
        for rng in rngs:
            stripes = rng.choice([-1.0, 1.0], (shape[0], 1, shape[2]) if len(shape) == 3 else (n,))
            signs.append(np.broadcast_to(stripes, shape if len(shape) == 3 else (n,)).reshape(-1))
        return runs.project(self.judge.threat.norm, np.array(signs) * runs.radius[:, None])

    def _changed(
        self, runs: Runs, moved: np.ndarray, rngs: list[np.random.Generator], share: float
    ) -> np.ndarray:
        """The points with one block changed in each."""
        norm, ahead = self.judge.threat.norm, moved.copy()
        for row, rng in enumerate(rngs):
            block, channel = _block(rng, self.judge.samples.shape, moved.shape[1], share)
            if norm == math.inf:
                ahead[row, block] = runs.radius[row] * rng.choice([-1.0, 1.0], channel.max() + 1)[channel]
            else:
                size = (
                    2 * runs.radius[row] * len(moved[row]) ** (-1 / norm)
                )  # twice what each gets on average
                ahead[row, block] += size * rng.normal(size=len(block))
        return runs.project(norm, ahead)


def _share(progress: float) -> float:
    """How much a block covers."""
    return FIRST_SHARE * 0.5 ** sum(progress > mark for mark in HALVINGS)


def _block(
    rng: np.random.Generator, shape: tuple[int, ...], n: int, share: float
) -> tuple[np.ndarray, np.ndarray]:
    """A random square of an image, a run of a vector: flat indices, and the channel of each."""
    if len(shape) != 3:
        size = max(round(share * n), 1)
        start = rng.integers(n - size + 1)
        return np.arange(start, start + size), np.zeros(size, np.int64)
    height, width = shape[1:]
    side = max(round(math.sqrt(share * height * width)), 1)
    rows, columns = min(side, height), min(side, width)
    top, left = rng.integers(height - rows + 1), rng.integers(width - columns + 1)
    places = np.arange(n).reshape(shape)[:, top : top + rows, left : left + columns].reshape(-1)
    return places, places // (height * width)
