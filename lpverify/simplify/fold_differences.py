"""Differences of a matrix' results become differences of its rows."""

from dataclasses import replace
from math import prod

import numpy as np

from lpverify.interval import DOUBLE
from lpverify.network import Network, Node
from lpverify.ops.linear import Linear
from lpverify.ops.shape import Reshape
from lpverify.simplify.prune import Prune


def fold_differences(network: Network) -> Network:
    """A result that has differences of a matrix' results only, as one matrix; else the same network.

    Interval arithmetic is tighter on it (Gowal et al. 2018, arXiv:1810.12715, section 3). A difference of
    two floats has a relative error of 2^-53 at most, however much they cancel.
    """
    last = network.nodes[network.output]
    k = last.inputs[0] if last.inputs else network.output
    while isinstance(network.nodes[k].op, Reshape):
        k = network.nodes[k].inputs[0]
    inner = network.nodes[k]
    if not isinstance(last.op, Linear) or not isinstance(inner.op, Linear) or prod(inner.shape[:-1]) != 1:
        return network
    merged = _differences(last.op, inner.op)
    if merged is None:
        return network
    shape, count = (*inner.shape[:-1], *last.shape), len(network.nodes)
    flat = Node(Reshape(last.shape, shape), (count,), last.shape, last.name)
    return Prune()(Network((*network.nodes, Node(merged, inner.inputs, shape, last.name), flat), count + 1))


def _differences(outer: Linear, inner: Linear) -> Linear | None:
    """The product, None unless `outer` has one 1 and one -1 in each row and all of `inner` is exact."""
    signs = outer.weight
    plain = outer.offset is None and outer.offset_error is None and not outer.weight_error
    exact = not inner.weight_error and inner.offset_error is None and isinstance(inner.weight, np.ndarray)
    pairs = isinstance(signs, np.ndarray) and bool(
        np.isin(signs, (-1, 0, 1)).all()
        and ((signs == 1).sum(axis=1) == 1).all()
        and ((signs == -1).sum(axis=1) == 1).all()
    )
    if not (plain and exact and pairs):
        return None
    first, second = (signs == 1).argmax(axis=1), (signs == -1).argmax(axis=1)
    weight = inner.weight[first] - inner.weight[second]
    if inner.offset is None:
        return replace(inner, weight=weight, weight_error=DOUBLE)
    offset = np.broadcast_to(inner.offset, inner.weight.shape[:1])
    moved = offset[first] - offset[second]
    return replace(inner, weight=weight, weight_error=DOUBLE, offset=moved, offset_error=abs(moved) * DOUBLE)
