"""Shrinks input boxes by half-spaces, alternative by alternative.

A counterexample in a subproblem fulfils all atoms of one alternative, so it lies in the half-spaces of
their linear bounds, and in those of the neuron splits. Every input is clipped against each of them with the
others at their best ends ("relaxed clipping", Clip-and-Verify, NeurIPS 2025), several times over; an
alternative whose box becomes empty is refuted. What remains is the hull of the others.
Guarantee: no counterexample is lost; rounding is outward.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from lpverify.bounds.farkas import alternatives
from lpverify.interval import DOUBLE, SUM_INFLATION, Box, gamma, round_down
from lpverify.problem import Problem

ROUNDS = 2
MOST_ATOMS = 64  # of all alternatives of one case


@dataclass(frozen=True)
class HalfSpaces:
    """Conditions `slope . x + height <= 0`: slopes `(B, ..., n)`, heights `(B, ...)`, float64."""

    slope: np.ndarray
    height: np.ndarray


class Table:
    """The conditions of all cases as disjunctions of conjunctions, padded to the same shape.

    Attributes:
        forms: The forms that each case reads, `(C, R)` int32, -1 for none.
        column: For atom a of alternative d of case c the position of its form there, `(C, D, A)`.
        bound: Its right-hand side, `(C, D, A)`.
        strict: Whether it is `<`.
        atom: Its number in the case.
        present: Whether there is one.
        exists: Whether there is such an alternative, `(C, D)`.
    """

    def __init__(self, problem: Problem, found: list[list[tuple[int, ...]]]) -> None:
        width = max(len(case.distinct_forms) for case in problem.cases)
        most = max((len(d) for d in found), default=0) or 1
        longest = max((len(atoms) for d in found for atoms in d), default=0) or 1
        shape = (len(problem.cases), most, longest)
        self.forms = np.full((len(problem.cases), width), -1, np.int32)
        self.column, self.atom = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
        self.bound, self.strict = np.zeros(shape), np.zeros(shape, bool)
        self.present, self.exists = np.zeros(shape, bool), np.zeros(shape[:2], bool)
        for c, (case, parts) in enumerate(zip(problem.cases, found, strict=True)):
            self.forms[c, : len(case.distinct_forms)] = case.distinct_forms
            for d, atoms in enumerate(parts):
                chosen, place = list(atoms), (c, d, slice(len(atoms)))
                self.exists[c, d] = self.present[place] = True
                self.column[place], self.atom[place] = case.columns[chosen], chosen
                self.bound[place], self.strict[place] = case.bounds[chosen], case.strict[chosen]

    def closed(self, cases: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """Which alternatives `(B, D)` have an atom that lower bounds `(B, R)` of the forms refute."""
        value = np.take_along_axis(lower[:, None], self.column[cases], axis=2)
        bound, strict = self.bound[cases], self.strict[cases]
        refuted = (value > bound) | (strict & (value >= bound))
        closed: np.ndarray = (refuted & self.present[cases]).any(axis=2) | ~self.exists[cases]
        return closed

    def gaps(self, cases: np.ndarray, lower: np.ndarray) -> np.ndarray:
        """`lower - bound` of all atoms `(B, D, A)`, -inf where there is none."""
        value = np.take_along_axis(lower[:, None], self.column[cases], axis=2)
        return np.where(self.present[cases], value - self.bound[cases], -np.inf)

    def violation(self, cases: np.ndarray, values: np.ndarray) -> np.ndarray:
        """How far points with form values `(B, R)` are from a counterexample, `(B,)`: <= 0 is one."""
        value = np.take_along_axis(values[:, None], self.column[cases], axis=2)
        worst = np.where(self.present[cases], value - self.bound[cases], -np.inf).max(axis=2)
        result: np.ndarray = np.where(self.exists[cases], worst, np.inf).min(axis=1)
        return result

    def half_spaces(self, cases: np.ndarray, rows: HalfSpaces) -> HalfSpaces:
        """Those of the atoms, `(B, D, A, n)`, from `form >= slope x + height` of the rows `(B, R, n)`."""
        column, entry = self.column[cases], np.arange(len(cases))[:, None, None]
        height = round_down(rows.height[entry, column] - self.bound[cases])
        height = np.where(self.present[cases], height, -np.inf)
        return HalfSpaces(rows.slope[entry, column], height)

    @cached_property
    def width(self) -> int:
        """Most forms of one case."""
        return self.forms.shape[1]


def table_of(problem: Problem) -> Table | None:
    """The table, None where the conditions are too large for it or there are none."""
    if not problem.cases:
        return None
    found = []
    for case in range(len(problem.cases)):
        parts = alternatives(problem, case, MOST_ATOMS)
        if parts is None or sum(map(len, parts)) > MOST_ATOMS:
            return None
        found.append(parts)
    return Table(problem, found)


def shrink(box: Box, atoms: HalfSpaces, closed: np.ndarray, splits: HalfSpaces) -> tuple[Box, np.ndarray]:
    """Clips boxes `(B, n)`.

    Args:
        box: What is clipped.
        atoms: Of the alternatives, `(B, D, A, n)`.
        closed: Alternatives that are refuted already, `(B, D)`.
        splits: Those that hold in any case, `(B, S, n)`.

    Returns:
        The clipped boxes, unchanged where all alternatives are refuted; and which are, `(B, D)`.
    """
    closed = np.array(closed)
    lower, upper = np.full(box.lower.shape, np.inf), np.full(box.lower.shape, -np.inf)
    for d in range(closed.shape[1]):
        low, high = box.lower.copy(), box.upper.copy()
        for _ in range(ROUNDS):
            for part in (splits, HalfSpaces(atoms.slope[:, d], atoms.height[:, d])):
                for s in range(part.height.shape[1]):
                    closed[:, d] |= _cut(low, high, part.slope[:, s], part.height[:, s])
        open_ = ~closed[:, d]
        lower[open_] = np.minimum(lower[open_], low[open_])
        upper[open_] = np.maximum(upper[open_], high[open_])
    gone = np.logical_and.reduce(closed, axis=1, keepdims=True)
    return Box(np.where(gone, box.lower, lower), np.where(gone, box.upper, upper)), closed


@np.errstate(divide="ignore", invalid="ignore", over="ignore")
def _cut(low: np.ndarray, high: np.ndarray, slope: np.ndarray, height: np.ndarray) -> np.ndarray:
    """Clips ends `(B, n)` in place to `slope . x + height <= 0`; returns which boxes have no such point."""
    least = np.minimum(slope * low, slope * high).sum(axis=1) + height
    size = (np.abs(slope) * np.maximum(np.abs(low), np.abs(high))).sum(axis=1) + np.abs(height)
    error = size * (gamma(slope.shape[1] + 4, DOUBLE) * SUM_INFLATION) + 1e-290
    slack = error - least + (error + np.abs(least)) * (4 * DOUBLE)  # what the sum may exceed its minimum by
    usable = np.isfinite(size) & np.isfinite(slack)  # anything that overflowed says nothing
    reach = np.maximum(slack, 0.0)[:, None] / np.abs(slope) * (1 + 8 * DOUBLE) + 1e-300
    up, down = (slope > 0) & usable[:, None], (slope < 0) & usable[:, None]
    top, bottom = low + reach, high - reach
    top, bottom = top + np.abs(top) * (4 * DOUBLE), bottom - np.abs(bottom) * (4 * DOUBLE)
    high[:] = np.where(up & (top < high), np.maximum(top, low), high)
    low[:] = np.where(down & (bottom > low), np.minimum(bottom, high), low)
    return usable & (slack < 0)
