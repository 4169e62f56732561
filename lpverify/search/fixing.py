"""Phases that a node's multipliers and one more refute: reduced-cost tightening as a proof.

A node's multipliers make the cost at least `g . x + h` over the inputs, all other columns at their cheapest
ends. Assume a phase, `s z >= 0`; where z is an affine function `w . x + b` of the inputs, the cost is also at
least

    max over theta >= 0 of  min over the box of  g . x + h - theta s (w . x + b),

a concave function of one variable that bends where a coefficient changes its sign. If it is above the limit,
the phase holds no point that matters. This contains the tightening of inputs by reduced costs (Nemhauser and
Wolsey 1988, II.5.2), followed by interval bounds of z; as a multiplier of the row that defines z it needs no
other proof. The maximiser is found by the breakpoints (as in Clip-and-Verify, NeurIPS 2025, section 3).
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from lpverify.bounds.phases import PhaseProgram


@dataclass(frozen=True)
class Fixing:
    """The neurons of a program whose operands are functions of the inputs alone.

    Attributes:
        program: With its cost.
        neurons: `(k,)`.
        weights: Of their operands, `(k, inputs)`.
    """

    program: PhaseProgram
    neurons: np.ndarray
    weights: np.ndarray

    @classmethod
    def of(cls, program: PhaseProgram) -> "Fixing":
        """Finds them."""
        some = np.flatnonzero(program.definition >= 0)
        block = program.lp.matrix[program.definition[some]]
        first = np.asarray((block[:, program.inputs :] != 0).sum(axis=1)).reshape(-1) == 1  # z itself
        return cls(program, some[first], -block[first][:, : program.inputs].toarray())

    def refutable(
        self, signs: np.ndarray, multipliers: np.ndarray, reduced: np.ndarray, missing: float
    ) -> Iterator[tuple[int, int, np.ndarray]]:
        """Phases that seem to be refuted, each with the multipliers that seem to do it.

        Args:
            signs: `(p,)`: those of the node.
            multipliers: `(m,)`: of the rows.
            reduced: `(n,)`: what they leave of the cost.
            missing: By how much the bound has to rise.

        Yields:
            Neuron, sign, multipliers. The caller checks them.
        """
        lp, inputs = self.program.lp, self.program.inputs
        undecided = signs[self.neurons] == 0
        if not undecided.any():
            return
        neurons, weights = self.neurons[undecided], self.weights[undecided]
        rows = self.program.definition[neurons]
        offset, ends = lp.row_lower[rows], (lp.lower[:inputs], lp.upper[:inputs])
        for sign in (1, -1):
            theta, rise = _best(reduced[:inputs], sign * weights, sign * offset, *ends)
            for j in np.flatnonzero(rise > missing):
                changed = multipliers.copy()
                changed[rows[j]] -= sign * theta[j]  # the row is z - w . x = b
                yield int(neurons[j]), sign, changed


def _best(
    g: np.ndarray, w: np.ndarray, b: np.ndarray, low: np.ndarray, high: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """For each row of `w` the theta that lifts `min g . x - theta (w . x + b)` highest, and by how much."""
    with np.errstate(divide="ignore", invalid="ignore"):
        bend = g / w
    bend = np.where(np.isfinite(bend) & (bend > 0), bend, np.inf)
    order = np.argsort(bend, axis=1)
    bend = np.take_along_axis(bend, order, axis=1)
    bend = np.concatenate([bend, np.full((len(w), 1), np.inf)], axis=1)  # behind the last one it goes on
    # the slope of the function at zero, and after each bend; w falls behind a bend, so it does
    start = np.where((g > 0) | ((g == 0) & (w < 0)), low, high)
    slope = -(b + (w * start).sum(axis=1))
    drop = np.take_along_axis(np.abs(w) * (high - low), order, axis=1)
    drop = np.concatenate([drop, np.zeros((len(w), 1))], axis=1)
    after = slope[:, None] - np.cumsum(drop, axis=1)
    before = np.concatenate([slope[:, None], after[:, :-1]], axis=1)
    with np.errstate(invalid="ignore"):
        lengths = np.diff(np.concatenate([np.zeros((len(w), 1)), bend], axis=1), axis=1)
    rising = (before > 0) & np.isfinite(lengths)
    rise = np.where(rising, before * np.where(rising, lengths, 0.0), 0.0).sum(axis=1)
    theta = np.where(rising, bend, 0.0).max(axis=1, initial=0.0)
    endless = (before > 0) & ~np.isfinite(lengths)  # the phase has no point in the box
    return theta, np.where(endless.any(axis=1), np.inf, rise)
