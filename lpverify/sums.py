"""Outputs that sum up to 1: a constant multiple of their sum in a linear form is a number.

`y_0 + y_1` of a softmax of two is 1, whatever the bounds of the two may say. So the most frequent coefficient
of each group is taken out of a form; what is left has fewer terms.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

import numpy as np

from lpverify.network import Network
from lpverify.ops.base import SelectionOp
from lpverify.query import Atom, Formula, Number, Query, map_atoms, normal_atom


def without_sums(network: Network, query: Query) -> Query:
    """The same query over the reals, with sums of outputs that are known to be 1 replaced by 1."""
    groups = output_groups(network)
    if not groups:
        return query
    of = {query.inputs + place: group for group in groups for place in group}

    def rule(atom: Atom) -> Formula:
        terms, bound = dict(atom.terms), Fraction(atom.bound)
        for group in {of[v] for v in terms if v in of}:
            bound -= _take_out(terms, [query.inputs + place for place in group])
        return atom if terms == dict(atom.terms) else normal_atom(terms, bound, atom.strict)

    return replace(query, formula=map_atoms(query.formula, rule))


def _take_out(terms: dict[int, Number], group: Sequence[int]) -> Fraction:
    """Subtracts the most frequent coefficient of a group from all of them; returns it."""
    factors = {v: Fraction(terms.get(v, 0)) for v in group}
    (common, count), *_ = Counter(factors.values()).most_common(1)
    zeros = sum(factor == 0 for factor in factors.values())
    if common == 0 or count < 2 or count <= zeros:
        return Fraction(0)
    for v, factor in factors.items():
        terms.pop(v, None)
        if factor != common:
            terms[v] = factor - common
    return common


def output_groups(network: Network) -> list[tuple[int, ...]]:
    """Sets of elements of the flat result that together are all of a sum of 1."""
    found: list[tuple[int, ...]] = []
    for value in network.sums:
        origin = _origins(network, value)
        if origin is None:
            continue
        places: dict[int, list[int]] = {}
        for place, element in enumerate(origin):
            if element >= 0:
                places.setdefault(int(element), []).append(place)
        size = network.nodes[value].shape[-1]
        for start in range(0, len(places) and max(places) + 1, size):
            group = [places.get(start + i, []) for i in range(size)]
            if all(len(copies) == 1 for copies in group):
                found.append(tuple(copies[0] for copies in group))
    return found


def _origins(network: Network, value: int) -> np.ndarray | None:
    """For each element of the result the element of a value that it is a copy of, -1 if it is none."""
    size = int(np.prod(network.nodes[value].shape))
    first = np.arange(size, dtype=np.float64).reshape(1, *network.nodes[value].shape)
    runs = {value: (first, first + size)}
    for k in range(value + 1, network.output + 1):
        node = network.nodes[k]
        if not isinstance(node.op, SelectionOp) or not any(i in runs for i in node.inputs):
            continue
        pairs = [runs[i] if i in runs else _nothing(network.nodes[i].shape) for i in node.inputs]
        runs[k] = node.op.forward(*(low for low, _ in pairs)), node.op.forward(*(high for _, high in pairs))
    if network.output not in runs:
        return None
    low, high = (end.reshape(-1) for end in runs[network.output])
    return np.where(high - low == size, low, -1.0)


def _nothing(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    return np.zeros((1, *shape)), np.zeros((1, *shape))
