"""Multiplies consecutive matrices where the product is no larger."""

from dataclasses import replace
from typing import Any

import numpy as np

from lpverify.interval import gamma
from lpverify.network import Network, Node
from lpverify.ops.linear import Linear, SparseLinear
from lpverify.simplify.base import Pass, Rebuild

MOST_ERROR = 2.0**-40  # relative error of an entry above which a product is left alone
Matrix = Linear | SparseLinear


class MergeLinear(Pass):
    """`A (B x + b) + a` becomes `(A B) x + (A b + a)` when A B has no more entries than A and B.

    Entries of the product must be accurate to a relative 2^-40, which the op then carries as
    `weight_error`; products with cancellation are left alone.
    """

    def __call__(self, network: Network) -> Network:
        return Rebuild(network).run(_merge)


def _merge(build: Rebuild, k: int, node: Node) -> Node | int:
    if not isinstance(node.op, Matrix) or not build.single(build.source.nodes[k].inputs[0]):
        return node
    position = node.inputs[0]
    before = build.nodes[position]
    if not isinstance(before.op, Matrix) or type(before.op) is not type(node.op):
        return node
    merged = product(node.op, before.op)
    if merged is None:
        return node
    build.nodes[position] = Node(merged, before.inputs, node.shape, node.name)
    return position


def product(outer: Matrix, inner: Matrix) -> Matrix | None:
    """The op `outer(inner(x))`, or None where it would not pay or not be accurate."""
    sparse = isinstance(outer, SparseLinear)
    if not (_moderate(outer.weight) and _moderate(inner.weight)):
        return None
    if not sparse and outer.weight.shape[0] * inner.weight.shape[1] > outer.weight.size + inner.weight.size:
        return None
    weight = outer.weight @ inner.weight
    if sparse and weight.nnz > outer.weight.nnz + inner.weight.nnz:
        return None
    terms = _terms(outer.weight) if sparse else outer.weight.shape[1]
    inherited = (outer.weight_error + inner.weight_error) * 1.01
    error = _relative_error(outer.weight, inner.weight, weight, gamma(terms, 2.0**-53) + inherited)
    if error > MOST_ERROR:
        return None
    offset, offset_error = _offset(outer, inner, terms)
    return replace(outer, weight=weight, weight_error=error, offset=offset, offset_error=offset_error)


def _moderate(matrix: Any) -> bool:
    """Whether products of entries stay far from underflow and overflow."""
    entries = np.abs(matrix.data if not isinstance(matrix, np.ndarray) else matrix)
    entries = entries[entries > 0]
    return not len(entries) or bool(entries.min() > 1e-140 and entries.max() < 1e140)


def _terms(matrix: Any) -> int:
    """Most entries in a row of a sparse matrix."""
    return int(np.diff(matrix.indptr).max(initial=0))


def _relative_error(outer: Any, inner: Any, weight: Any, factor: float) -> float:
    """Largest `factor |A| |B| / |A B|` over the entries; inf where a computed zero may be none."""
    size = abs(outer) @ abs(inner)
    if isinstance(size, np.ndarray):
        known, total = np.abs(weight), size
    else:
        total = size.tocoo()
        known = np.abs(np.asarray(weight[total.row, total.col])).reshape(-1)
        total = total.data
    if ((known == 0) & (total > 0)).any():
        return float("inf")
    mask = total > 0
    return float((factor * total[mask] / known[mask]).max(initial=0.0)) * 1.01


def _offset(outer: Matrix, inner: Matrix, terms: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """`A b + a` and a bound on its error."""
    if inner.offset is None and inner.offset_error is None:
        return outer.offset, outer.offset_error
    if inner.offset is None:
        inner = replace(inner, offset=np.zeros(()))
    assert inner.offset is not None
    inside = np.broadcast_to(inner.offset, (inner.weight.shape[0],))
    moved, size = outer.weight @ inside, abs(outer.weight) @ np.abs(inside)
    error = size * (gamma(terms + 2, 2.0**-53) + outer.weight_error * 1.01) + 1e-300
    if inner.offset_error is not None:
        error = error + abs(outer.weight) @ np.broadcast_to(inner.offset_error, inside.shape) * 1.01
    if outer.offset is None:
        return moved, error * 1.0001
    total = moved + outer.offset
    error = error + np.abs(total) * 2.0**-52 + (0.0 if outer.offset_error is None else outer.offset_error)
    return total, error * 1.0001
