"""Einstein sums: diagonals, sums and transposes of the operands, joined two at a time by products.

Axes are named by letters. Two operands are brought to the axes (shared and kept, own, summed) and become a
product of matrices, or an elementwise product where nothing is summed.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.bilinear import product
from lpverify.ops.linear import Sum, multiply_constant
from lpverify.ops.matrix import multiplied
from lpverify.ops.select import pick
from lpverify.ops.shape import Transpose, broadcast_to, reshape_to

Operand = Constant | int


@dataclass(frozen=True)
class _Term:
    """An operand and the names of its axes."""

    operand: Operand
    axes: str


@dataclass(frozen=True)
class _Sums:
    """The graph that an Einsum is added to, and the length of each axis."""

    graph: GraphBuilder
    sizes: dict[str, int]

    def shape(self, operand: Operand) -> tuple[int, ...]:
        return operand.array.shape if isinstance(operand, Constant) else self.graph.shape(operand)

    def length(self, axes: str) -> int:
        """Of several axes that become one."""
        return prod(self.sizes[a] for a in axes)

    def value(self, operand: Operand) -> int:
        """The operand as a value."""
        return self.graph.constant(operand, operand.array.shape) if isinstance(operand, Constant) else operand

    def reduced(self, term: _Term, needed: set[str]) -> _Term:
        """Diagonals of repeated axes, sums over those that are not needed."""
        axes = "".join(dict.fromkeys(term.axes))
        operand = self._diagonal(term, axes)
        unneeded = tuple(i for i, a in enumerate(axes) if a not in needed)
        if not unneeded:
            return _Term(operand, axes)
        value = self.value(operand)
        shape = self.graph.shape(value)
        value = self.graph.add(Sum(unneeded, shape), [value])
        kept = [i for i in range(len(axes)) if i not in unneeded]
        value = reshape_to(value, [shape[i] for i in kept], self.graph)
        return _Term(value, "".join(axes[i] for i in kept))

    def _diagonal(self, term: _Term, axes: str) -> Operand:
        if axes == term.axes:
            return term.operand
        shape = self.shape(term.operand)
        if any(n != self.sizes[a] for n, a in zip(shape, term.axes, strict=True)):
            raise UnsupportedError("a repeated axis of different lengths")
        places = [axes.index(a) for a in term.axes]
        index = np.indices([self.sizes[a] for a in axes])
        chosen = np.arange(prod(shape)).reshape(shape)[tuple(index[p] for p in places)]
        if isinstance(term.operand, Constant):
            return replace(term.operand, array=term.operand.array.reshape(-1)[chosen])
        return pick([term.operand], chosen, self.graph)

    def arranged(self, term: _Term, axes: str, shape: Sequence[int]) -> Operand:
        """The operand with its axes in this order, broadcast to their lengths, under another shape."""
        order = tuple(term.axes.index(a) for a in axes)
        full = [self.sizes[a] for a in axes]
        self.graph.reserve(*full)
        if isinstance(term.operand, Constant):
            array = np.broadcast_to(np.transpose(term.operand.array, order), full)
            return replace(term.operand, array=array.reshape(shape))
        value = term.operand
        if order != tuple(range(len(order))):
            value = self.graph.add(Transpose(order), [value])
        return reshape_to(broadcast_to(value, full, self.graph), shape, self.graph)

    def joined(self, first: _Term, second: _Term, needed: set[str]) -> _Term:
        """The product of two terms, summed over shared axes that are not needed."""
        shared = [a for a in first.axes if a in second.axes]
        batch = "".join(a for a in shared if a in needed)
        summed = "".join(a for a in shared if a not in needed)
        left = "".join(a for a in first.axes if a not in shared)
        right = "".join(a for a in second.axes if a not in shared)
        lead = [self.length(batch)] if batch else []
        rows, columns, inner = self.length(left), self.length(right), self.length(summed)
        one = self.arranged(first, batch + left + summed, [*lead, rows, inner])
        two = self.arranged(second, batch + summed + right, [*lead, inner, columns])
        value = multiplied(one, two, self.graph) if summed else self._product(one, two)
        axes = batch + left + right
        return _Term(reshape_to(value, [self.sizes[a] for a in axes], self.graph), axes)

    def _product(self, first: Operand, second: Operand) -> int:
        """A column times a row."""
        if isinstance(first, Constant):
            return multiply_constant(self.value(second), first, self.graph)
        if isinstance(second, Constant):
            return multiply_constant(first, second, self.graph)
        return product(first, second, self.graph)


def _parsed(equation: str, ranks: Sequence[int]) -> tuple[list[str], str]:
    """The names of the operands' axes and of the result's; an ellipsis stands for digits."""
    if any(c.isdigit() for c in equation):
        raise UnsupportedError("an axis named by a digit")
    left, arrow, right = equation.replace(" ", "").partition("->")
    names, hidden = [], 0
    for part, rank in zip(left.split(","), ranks, strict=True):
        count = rank - len(part.replace("...", ""))
        hidden = max(hidden, count)
        names.append(part.replace("...", _digits(count)))
    if not arrow:
        counts = Counter(left.replace(",", "").replace("...", ""))
        right = "..." + "".join(sorted(a for a, n in counts.items() if n == 1))
    return names, right.replace("...", _digits(hidden))


def _digits(count: int) -> str:
    """Names of the last axes that an ellipsis can stand for."""
    if not 0 <= count < 10:
        raise UnsupportedError("the equation does not fit the operands")
    return "".join(str(d) for d in range(count - 1, -1, -1))


@importer("Einsum", 12, 28, whole=True)
def einsum(node: OnnxNode, graph: GraphBuilder) -> int:
    """Any number of operands."""
    equation = node.attribute("equation")
    names, result = _parsed(
        equation.decode() if isinstance(equation, bytes) else equation, [*map(len, node.shapes)]
    )
    sizes: dict[str, int] = {}
    for part, shape in zip(names, node.shapes, strict=True):
        for axis, size in zip(part, shape, strict=True):
            sizes[axis] = max(sizes.get(axis, 1), size)
    if len(set(result)) != len(result) or not set(result) <= set(sizes):
        raise UnsupportedError(f"a result with the axes {result!r}")
    sums = _Sums(graph, sizes)
    terms = [_Term(o, part) for o, part in zip(node.operands, names, strict=True) if o is not None]
    while len(terms) > 1:
        needed = set(result).union(*(t.axes for t in terms[2:]))
        first = sums.reduced(terms[0], needed | set(terms[1].axes))
        second = sums.reduced(terms[1], needed | set(first.axes))
        if isinstance(first.operand, Constant) and isinstance(second.operand, Constant):
            first = replace(first, operand=sums.value(first.operand))
        terms = [sums.joined(first, second, needed), *terms[2:]]
    term = sums.reduced(terms[0], set(result))
    return sums.value(sums.arranged(term, result, [sizes[a] for a in result]))
