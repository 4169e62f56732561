"""Random queries and their exact truth, for tests of what happens between a query and its problem."""

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from math import prod

import numpy as np

from lpverify.interval import Box
from lpverify.network import Network, repeat
from lpverify.query import And, Atom, Formula, Number, Or, Query, float_above, float_below

COEFFICIENTS = [1, -1, 1, -1, 2, -3, Fraction(1, 3), Fraction(-1, 10**40), 10**30]
GRID = [Fraction(-1), Fraction(0), Fraction(1, 3), Fraction(1)]


def holds(formula: Formula, values: Sequence[Fraction]) -> bool:
    """Truth of a small formula at values of all variables, monomials included."""
    if isinstance(formula, Atom):
        total = sum((Fraction(c) * values[v] for v, c in formula.terms), Fraction(0))
        return total < Fraction(formula.bound) if formula.strict else total <= Fraction(formula.bound)
    parts = [holds(child, values) for child in formula.children]
    return all(parts) if isinstance(formula, And) else any(parts)


def all_values(query: Query, known: Sequence[Fraction]) -> list[Fraction]:
    """Values of inputs and outputs with those of the monomials behind."""
    return [*known, *(prod((known[v] for v in m), start=Fraction(1)) for m in query.monomials)]


def equal(first: int, second: int, factor: Number = 1) -> And:
    """Two atoms that make two variables equal."""
    pairs = [(min(first, second), factor), (max(first, second), -Fraction(factor))]
    return And((Atom(tuple(pairs), 0), Atom(tuple((v, -Fraction(c)) for v, c in pairs), 0)))


class Random:
    """Draws queries."""

    def __init__(self, seed: int, inputs: int, outputs: int, coefficients: Sequence[Number]) -> None:
        self.rng = np.random.default_rng(seed)
        self.inputs, self.outputs, self.coefficients = inputs, outputs, coefficients
        self.monomials = [
            tuple(sorted(self.rng.integers(inputs + outputs, size=self.rng.integers(2, 6)).tolist()))
            for _ in range(3)
        ]

    def number(self, choices: Sequence[Number]) -> Number:
        return choices[self.rng.integers(len(choices))]

    def atom(self, variables: Sequence[int]) -> Atom:
        most = min(3, len(variables))
        chosen = sorted(self.rng.choice(variables, self.rng.integers(1, most + 1), replace=False).tolist())
        terms = tuple((v, self.number(self.coefficients)) for v in chosen)
        return Atom(terms, self.number([0, 0, 1, -1, Fraction(1, 3), 2]), bool(self.rng.random() < 0.3))

    def formula(self, depth: int) -> Formula:
        kind = self.rng.random()
        if depth == 0 or kind < 0.3:
            some = range(self.inputs) if self.rng.random() < 0.5 else range(self.inputs + self.outputs + 3)
            return self.atom(some)
        if kind < 0.5 and self.inputs > 1:
            i, j = self.rng.choice(self.inputs, 2, replace=False).tolist()
            return equal(i, j, self.number([1, -1, Fraction(1, 3), 10**30]))
        children = tuple(self.formula(depth - 1) for _ in range(self.rng.integers(1, 4)))
        return And(children) if self.rng.random() < 0.4 else Or(children)

    def query(self) -> Query:
        """Inputs within [-1, 1], some equal, and a random rest."""
        ends = [Atom(((i, sign),), 1) for i in range(self.inputs) for sign in (1, -1)]
        parts = [equal(i, i + 1) for i in range(self.inputs - 1) if self.rng.random() < 0.3]
        rest = [self.formula(3) for _ in range(2)]
        return Query(self.inputs, self.outputs, And((*ends, *parts, *rest)), monomials=tuple(self.monomials))


def grid(inputs: int) -> list[tuple[Fraction, ...]]:
    """All points with coordinates in `GRID`."""
    return list(product(GRID, repeat=inputs))


def around(point: Sequence[Number]) -> Box:
    """The smallest box of floats around one exact point, as a batch."""
    ends = ([float_below(v) for v in point], [float_above(v) for v in point])
    return Box(np.array(ends[0])[None], np.array(ends[1])[None])


def enclosure(network: Network, box: Box) -> Box:
    """Intervals of the result."""
    boxes = [box]
    for node in network.nodes[1:]:
        low, high = node.op.interval(*(boxes[i] for i in node.inputs))
        boxes.append(Box(repeat(low, 1), repeat(high, 1)))
    return boxes[network.output]
