"""The linear forms that a query compares, as the last value of one network; products of variables before."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.network import Network, Node
from lpverify.ops.base import Op
from lpverify.ops.bilinear import Multiply
from lpverify.ops.elementary import Power, Square
from lpverify.ops.linear import Linear, dense_or_sparse
from lpverify.ops.shape import Concat, Gather
from lpverify.query import Atom, Number, Query, float_above, float_below

MOST_TINY, MOST_HUGE = 1e-290, 1e290  # coefficients rounded to floats beyond these have no relative error


class Forms:
    """Numbers the distinct left-hand sides of atoms.

    Attributes:
        index: The number of each.
        sizes: Where atoms have arithmetic, the largest of their sizes.
    """

    def __init__(self) -> None:
        self.index: dict[tuple[tuple[int, Number], ...], int] = {}
        self.sizes: dict[int, float] = {}

    def number(self, atom: Atom) -> int:
        """Of the atom's left-hand side."""
        row = self.index.setdefault(atom.terms, len(self.index))
        if atom.size is not None:
            self.sizes[row] = max(self.sizes.get(row, 0.0), float_above(atom.size))
        return row


def append_forms(network: Network, forms: Forms, query: Query) -> Network:
    """Adds the value of all forms; reads inputs and products only where some form does."""
    if len(network.nodes[network.output].shape) != 1:
        raise UnsupportedError("the output is not flat")
    values = _Values(network)
    known = query.inputs + query.outputs
    used = {variable for terms in forms.index for variable, _ in terms}
    factors = {v for v in used if v >= known}
    mixed = any(v < query.inputs for v in used) or bool(factors)
    if mixed and query.inputs:
        values.join([0, network.output])
    if factors:
        add_monomials(values, [query.monomials[v - known] for v in sorted(factors)])
    offset = 0 if mixed else query.inputs
    place = {v: known + i for i, v in enumerate(sorted(factors))}
    weight, error = _weights(forms, lambda v: place.get(v, v) - offset, values.size)
    op: Op = dense_or_sparse(weight, None, error) if weight.size else Linear(np.zeros((1, 1)))
    values.add(op, [values.last], weight.shape[0], "query")
    return values.network()


def _weights(forms: Forms, column: Callable[[int], int], width: int) -> tuple[np.ndarray, float]:
    """A row for each form, and the largest relative error of an entry."""
    weight, error = np.zeros((max(len(forms.index), 1), width)), 0.0
    for terms, row in forms.index.items():
        for variable, factor in terms:
            nearest = float_below(factor)
            weight[row, column(variable)] = nearest
            if Fraction(nearest) != Fraction(factor):
                normal = MOST_TINY < abs(nearest) < MOST_HUGE
                error = max(error, 2.0**-52 if normal else float("inf"))
    return weight, error


@dataclass
class _Values:
    """Flat values that are added behind a network; `last` is the one to read."""

    source: Network

    def __post_init__(self) -> None:
        self.nodes, self.last = list(self.source.nodes), self.source.output

    @property
    def size(self) -> int:
        return self.nodes[self.last].shape[0]

    def add(self, op: Op, inputs: Sequence[int], size: int, name: str = "") -> int:
        self.nodes.append(Node(op, tuple(inputs), (size,), name))
        self.last = len(self.nodes) - 1
        return self.last

    def gather(self, value: int, indices: Sequence[int]) -> int:
        op = Gather(tuple(indices), 0, self.nodes[value].shape)
        return self.add(op, [value], len(indices), "query")

    def join(self, values: Sequence[int]) -> int:
        sizes = tuple(self.nodes[v].shape[0] for v in values)
        return self.add(Concat(0, sizes), values, sum(sizes), "query")

    def network(self) -> Network:
        return replace(self.source, nodes=tuple(self.nodes), output=self.last, ranked=None)


def add_monomials(values: _Values, monomials: Sequence[tuple[int, ...]]) -> None:
    """Appends the products of elements of the last value to it: powers, then factor by factor."""
    base = values.last
    parts = [sorted(Counter(factors).items()) for factors in monomials]
    place = {(v, 1): v for powers in parts for v, _ in powers}
    pool = [base]
    for exponent in sorted({e for powers in parts for _, e in powers if e > 1}):
        chosen = sorted({v for powers in parts for v, e in powers if e == exponent})
        start = sum(values.nodes[p].shape[0] for p in pool)
        place.update({(v, exponent): start + i for i, v in enumerate(chosen)})
        op = Square() if exponent == 2 else Power(exponent)
        pool.append(values.add(op, [values.gather(base, chosen)], len(chosen), "query"))
    everything = values.join(pool) if len(pool) > 1 else base
    products = values.gather(everything, [place[powers[0]] for powers in parts])
    for round_ in range(1, max(map(len, parts))):
        products = _times(values, products, everything, parts, place, round_)
    values.join([base, products])


def _times(
    values: _Values,
    products: int,
    everything: int,
    parts: Sequence[Sequence[tuple[int, int]]],
    place: Mapping[tuple[int, int], int],
    round_: int,
) -> int:
    """Multiplies the products that have another factor by it."""
    longer = [i for i, powers in enumerate(parts) if len(powers) > round_]
    first = values.gather(products, longer)
    second = values.gather(everything, [place[parts[i][round_]] for i in longer])
    new = values.add(Multiply(), [first, second], len(longer), "query")
    if len(longer) == len(parts):
        return new
    both, fresh = values.join([products, new]), {i: len(parts) + k for k, i in enumerate(longer)}
    return values.gather(both, [fresh.get(i, i) for i in range(len(parts))])
