"""Rewrites a network of affine ops and ReLUs as a graph of matrices for the dense kernel.

Accepts: networks whose nodes are all affine or ReLU.
Returns: the graph, or None for other networks and those that are too large.
Guarantee: the same function, rounding covered. Each op becomes one node, pure data movement an order of
columns; two affine nodes become one where no entry of the product is a sum.
"""

from dataclasses import dataclass, replace
from math import prod

import numpy as np

from lpverify.interval import DOUBLE, gamma
from lpverify.kernels.dense import Affine, Block, DenseGraph, Rectifier, block_of, stack
from lpverify.network import Network, Node
from lpverify.ops.base import AffineOp, SelectionOp
from lpverify.ops.linear import Linear, SparseLinear
from lpverify.ops.piecewise import Relu

MOST_WEIGHTS, MOST_NEURONS = 8_000_000, 50_000
MOST_PULLED = 200_000_000  # about a second's work
TINY = 1e-280  # smallest product of weights
CHUNK = 2**22  # elements of the unit rows that are pulled through an op at a time


@dataclass(frozen=True)
class _Value:
    """A value of the network as elements of a node of the graph.

    Attributes:
        node: The node.
        order: For each flat element of the value the element of the node, `(size,)`.
        single: Whether nothing else reads the node.
    """

    node: int
    order: np.ndarray
    single: bool = False


def condense(network: Network) -> DenseGraph | None:
    """The graph whose last node is the network's output; see above."""
    if any(n.op is not None and not isinstance(n.op, (AffineOp, Relu)) for n in network.nodes):
        return None
    if sum(prod(n.shape) for n in network.nodes) > MOST_NEURONS:
        return None
    if sum(_pulled(network, k) for k in range(1, len(network.nodes))) > MOST_PULLED:
        return None
    return _Builder(network).build()


def _pulled(network: Network, k: int) -> int:
    """Elements of the unit rows that are pulled through a node's op to find its matrix."""
    node = network.nodes[k]
    if isinstance(node.op, (Relu, Linear, SparseLinear, SelectionOp)):
        return 0
    return prod(node.shape) * sum(prod(network.nodes[i].shape) for i in node.inputs)


class _Builder:
    def __init__(self, network: Network) -> None:
        self.network = network
        self.nodes: list[Affine | Rectifier] = []
        self.values: dict[int, int] = {}
        self.where: list[_Value] = [_Value(0, np.arange(network.input_size))]
        self.weights = 0

    def build(self) -> DenseGraph | None:
        for k, node in enumerate(self.network.nodes[1:], start=1):
            value = self._relu(node) if isinstance(node.op, Relu) else self._moved(node) or self._affine(node)
            self.where.append(replace(value, single=value.single and self.network.consumers[k] == 1))
            if self.weights > MOST_WEIGHTS:
                return None
            if k == self.network.output:
                break
        last = self._plain(self.where[self.network.output])
        if last.node != len(self.nodes) or not isinstance(self.nodes[-1], Affine):
            last = self._copy(last)
        return DenseGraph(self.network.input_size, tuple(self.nodes), self.values)

    def _width(self, node: int) -> int:
        return self.network.input_size if node == 0 else self.nodes[node - 1].width

    def _plain(self, value: _Value) -> _Value:
        """The same value with the elements of a node in their own order."""
        return value if np.array_equal(value.order, np.arange(self._width(value.node))) else self._copy(value)

    def _copy(self, value: _Value) -> _Value:
        """A node of its own for a value."""
        size, columns = len(value.order), value.order.astype(np.int32)
        start = np.arange(size + 1, dtype=np.int32)
        block = Block(value.node, self._width(value.node), start, columns, np.ones(size))
        return self._push(Affine((block,), np.zeros(size), np.zeros(size), 0.0))

    def _push(self, node: Affine | Rectifier) -> _Value:
        self.nodes.append(node)
        self.weights += sum(len(b.value) for b in node.blocks) if isinstance(node, Affine) else 0
        return _Value(len(self.nodes), np.arange(node.width), True)

    def _relu(self, node: Node) -> _Value:
        value = self.where[node.inputs[0]]
        below = self._plain(value)
        if below.node == 0 or isinstance(self.nodes[below.node - 1], Rectifier):
            below = self._copy(below)
        self.where[node.inputs[0]] = below
        self.values[below.node] = node.inputs[0]
        return self._push(Rectifier(below.node, len(below.order)))

    def _moved(self, node: Node) -> _Value | None:
        """Data movement from one value, where no constants are put in."""
        if not isinstance(node.op, SelectionOp) or len(node.inputs) != 1:
            return None
        value, shape = self.where[node.inputs[0]], self.network.nodes[node.inputs[0]].shape
        places = np.arange(len(value.order), dtype=np.float64).reshape(1, *shape)
        first, second = (node.op.forward(places + shift).reshape(-1) for shift in (0.0, 1.0))
        if not (second - first == 1).all():
            return None
        return replace(value, order=value.order[first.astype(np.int64)])

    def _affine(self, node: Node) -> _Value:
        op, size = node.op, prod(node.shape)
        assert isinstance(op, AffineOp)
        parts = self._matrices(node, op, size)
        merged = [_reorder(part, self.where[i]) for part, i in zip(parts, node.inputs, strict=True)]
        blocks = tuple(
            _merge([b for b in merged if b.source == s]) for s in sorted({b.source for b in merged})
        )
        widths = tuple(Block(b.source, self._width(b.source), b.start, b.column, b.value) for b in blocks)
        bias, error = (
            np.zeros(size)
            if offset is None
            else np.array(np.broadcast_to(offset, (1, *node.shape)), np.float64).reshape(-1)
            for offset in (op.offset, op.offset_error)
        )
        relative = 0.0 if op.terms == (0, 0) else op.error_factors(bias, adjoint=True)[0]
        affine = Affine(widths, bias, error, relative)
        behind = self.where[node.inputs[0]] if node.inputs else None
        if behind is not None and len(widths) == 1 and behind.single and behind.node == len(self.nodes):
            inner = self.nodes[-1]
            joined = compose(affine, inner) if isinstance(inner, Affine) else None
            if joined is not None:
                self.nodes.pop()
                affine = joined
        return self._push(affine)

    def _matrices(self, node: Node, op: AffineOp, size: int) -> list[Block]:
        """The op's matrix for each operand."""
        sizes = [prod(self.network.nodes[i].shape) for i in node.inputs]
        if (
            isinstance(op, (Linear, SparseLinear))
            and size == op.weight.shape[0]
            and sizes[0] == op.weight.shape[1]
        ):
            if isinstance(op, Linear):
                return [block_of(0, np.asarray(op.weight, np.float64))]
            w = op.weight.tocsr()
            return [
                Block(
                    0,
                    w.shape[1],
                    w.indptr.astype(np.int32),
                    w.indices.astype(np.int32),
                    w.data.astype(np.float64),
                )
            ]
        step, rows = max(1, CHUNK // max(size, *sizes, 1)), []
        for first in range(0, size, step):
            count = min(step, size - first)
            unit = np.zeros((count, size))
            unit[np.arange(count), first + np.arange(count)] = 1.0
            rows.append([p.reshape(count, -1) for p in op.adjoint(unit.reshape(count, *node.shape))])
        return [stack([block_of(0, part[j]) for part in rows]) for j in range(len(sizes))]


def compose(outer: Affine, inner: Affine) -> Affine | None:
    """One node for `outer(inner(x))`, where all entries of the product are products and not too many."""
    if len(inner.blocks) != 1:
        return None
    o, i = outer.blocks[0], inner.blocks[0]
    lengths = np.diff(i.start)[o.column]
    total = int(lengths.sum())
    if total > len(o.value) + len(i.value) + outer.width:
        return None
    if np.diff(o.start).max(initial=0) > 1 and np.bincount(i.column).max(initial=0) > 1:
        return None
    inside = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    entry = np.repeat(i.start[:-1][o.column], lengths) + inside
    value = np.repeat(o.value, lengths) * i.value[entry]
    if not np.isfinite(value).all() or (np.abs(value) < TINY).any():
        return None
    row = np.repeat(np.arange(outer.width), np.diff(o.start))
    ends = np.concatenate([[0], np.cumsum(np.bincount(row, lengths, minlength=outer.width))])
    block = Block(i.source, i.cols, ends.astype(np.int32), i.column[entry], value)
    errors = outer.weight_error + inner.weight_error + outer.weight_error * inner.weight_error
    relative = errors * (1 + 1e-9) + 4 * DOUBLE * (1 + errors)
    return Affine((block,), *_composed_bias(outer, inner, row), relative)


def _composed_bias(outer: Affine, inner: Affine, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bias and its error; `row` is the row of each entry of the outer matrix."""
    o = outer.blocks[0]

    def through(weight: np.ndarray, part: np.ndarray) -> np.ndarray:
        return np.bincount(row, weight * part[o.column], minlength=outer.width)

    size = through(np.abs(o.value), np.abs(inner.bias)) + np.abs(outer.bias)
    terms = int(np.diff(o.start).max(initial=0)) + 3
    error = size * (gamma(terms, DOUBLE) + outer.weight_error) + outer.bias_error
    carried = through(np.abs(o.value), inner.bias_error) * (1 + outer.weight_error)
    error = (error + carried) * (1 + 1e-9) + 1e-300
    return through(o.value, inner.bias) + outer.bias, error


def _reorder(block: Block, value: _Value) -> Block:
    """The block on the node behind a value."""
    column = value.order[block.column].astype(np.int32)
    return Block(value.node, 0, block.start, column, block.value)


def _merge(blocks: list[Block]) -> Block:
    """The sum of blocks of one source, entries side by side."""
    if len(blocks) == 1:
        return blocks[0]
    counts = np.array([np.diff(b.start) for b in blocks])
    row = np.concatenate([np.repeat(np.arange(counts.shape[1]), c) for c in counts])
    order = np.argsort(row, kind="stable")
    start = np.concatenate([[0], np.cumsum(counts.sum(axis=0))]).astype(np.int32)
    column, value = (np.concatenate([getattr(b, n) for b in blocks])[order] for n in ("column", "value"))
    return Block(blocks[0].source, blocks[0].cols, start, column, value)
