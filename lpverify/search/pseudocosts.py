"""Pseudo-costs (Bénichou et al. 1971): how much bounds rose by splits, for each unit of what was wrong."""

from dataclasses import dataclass

import numpy as np

RELIABLE = 4  # observations of each phase from which a neuron's pseudo-costs are trusted
RIGHT = 1e-9  # a result that is off by less counts as right


@dataclass
class PseudoCosts:
    """Sums of rises and numbers of observations, `(2, neurons)`: first of the active phase."""

    total: np.ndarray
    count: np.ndarray

    @classmethod
    def of(cls, neurons: int) -> "PseudoCosts":
        """Nothing observed."""
        return cls(np.zeros((2, neurons)), np.zeros((2, neurons)))

    def reliable(self, neuron: int) -> bool:
        """Whether both phases were seen often enough."""
        return bool(self.count[:, neuron].min() >= RELIABLE)

    def observe(self, side: int, neuron: int, rise: float, wrong: float) -> None:
        """One more child: its bound rose, the neuron's result had been wrong by so much."""
        if np.isfinite(rise) and wrong > RIGHT:
            self.total[side, neuron] += max(rise, 0.0) / wrong
            self.count[side, neuron] += 1

    def scores(self, wrong: np.ndarray) -> np.ndarray:
        """Product of the expected rises, `(neurons,)`; -1 where nothing is wrong.

        Without observations a phase counts as the average one.
        """
        mean = (self.total.sum(axis=1) / np.maximum(self.count.sum(axis=1), 1))[:, None] + 1e-12
        each = np.where(self.count > 0, self.total / np.maximum(self.count, 1), mean)
        rise = np.maximum(each * wrong, 1e-9)
        return np.where(wrong > RIGHT, rise[0] * rise[1], -1.0)
