"""Folds scaling and shifting by constants (biases, BatchNormalization) into the affine op before it."""

from dataclasses import replace
from typing import Any

import numpy as np

from lpverify.interval import DOUBLE
from lpverify.network import Network, Node
from lpverify.ops.convolution import Conv
from lpverify.ops.linear import Linear, Scale, SparseLinear
from lpverify.simplify.base import Pass, Rebuild

Foldable = Linear | SparseLinear | Conv


class FoldScale(Pass):
    """`s (W x + b) + t` becomes `(s W) x + (s b + t)`, for scales that vary with the output channel only.

    Requires: nothing. Ensures: no Scale follows a Linear, SparseLinear or Conv of which it is the only
    consumer, unless it varies within a channel.
    """

    def __call__(self, network: Network) -> Network:
        return Rebuild(network).run(_fold)


def _fold(build: Rebuild, k: int, node: Node) -> Node | int:
    if not isinstance(node.op, Scale) or not build.single(build.source.nodes[k].inputs[0]):
        return node
    position = node.inputs[0]
    before = build.nodes[position]
    if not isinstance(before.op, Foldable) or before.shape != node.shape:
        return node
    rows = _per_channel(np.asarray(node.op.weight), before)
    if rows is None or not _normal(rows, before.op.weight):
        return node
    build.nodes[position] = replace(before, op=fold(before.op, node.op, rows, before.shape))
    return position


def _normal(rows: np.ndarray, weight: Any) -> bool:
    """Whether no product can leave the range in which rounding is relative."""
    entries = np.abs(weight.data if not isinstance(weight, np.ndarray) else weight)
    positive = [a[a > 0] for a in (np.abs(rows), entries)]
    if bool((rows == 1.0).all()) or not all(len(p) for p in positive):
        return True
    lowest, highest = (float(f(positive[0])) * float(f(positive[1])) for f in (np.min, np.max))
    return lowest > 1e-290 and highest < 1e290


def _per_channel(weight: np.ndarray, node: Node) -> np.ndarray | None:
    """The scale as one number for each channel of the op's weights, None if it is not that."""
    axis = len(node.shape) - 1 if isinstance(node.op, Linear | SparseLinear) else 1
    padded = weight.reshape((1,) * (len(node.shape) - weight.ndim) + weight.shape)
    if any(n != 1 for i, n in enumerate(padded.shape) if i != axis):
        return None
    return np.broadcast_to(padded.reshape(-1), (node.shape[axis],))


def fold(op: Foldable, scale: Scale, rows: np.ndarray, shape: tuple[int, ...]) -> Foldable:
    """The folded op; a pure shift of an op without offset is exact."""
    changes: dict[str, object] = {}
    identity = bool((rows == 1.0).all()) and not scale.weight_error
    if not identity:
        changes["weight"] = _scale_rows(op, rows)
        changes["weight_error"] = (op.weight_error + scale.weight_error) * 1.01 + 2 * DOUBLE
    changes["offset"], changes["offset_error"] = _offset(op, scale, identity)
    return replace(op, **changes)  # type: ignore[arg-type]


def _scale_rows(op: Foldable, rows: np.ndarray) -> object:
    if isinstance(op, SparseLinear):
        from scipy import sparse  # noqa: PLC0415  (slow to import)

        return sparse.csr_array(sparse.diags_array(rows) @ op.weight)
    return op.weight * rows.reshape(-1, *(1,) * (op.weight.ndim - 1))


def _offset(op: Foldable, scale: Scale, identity: bool) -> tuple[np.ndarray | None, np.ndarray | None]:
    """`s b + t` and a bound on its error."""
    if op.offset is None and op.offset_error is None:
        return scale.offset, scale.offset_error
    if op.offset is None:
        op = replace(op, offset=np.zeros(()))
    assert op.offset is not None
    old_error = 0.0 if op.offset_error is None else op.offset_error
    new_error = 0.0 if scale.offset_error is None else scale.offset_error
    weight = np.asarray(scale.weight)
    product = op.offset if identity else weight * op.offset
    offset = product if scale.offset is None else product + scale.offset
    error = (
        np.abs(weight) * old_error * 1.01
        + new_error
        + (0.0 if scale.offset is None else np.abs(offset) * 2 * DOUBLE)
    )
    if not identity:
        error = error + np.abs(product) * (scale.weight_error + 2 * DOUBLE) * 1.01 + 1e-300
    shape = np.broadcast_shapes(np.shape(error), np.shape(offset))
    error = np.broadcast_to(error, shape)
    return np.array(np.broadcast_to(offset, shape)), (error * 1.0001 if error.any() else None)
