"""Queries about computation in float types: their constants and their arithmetic are rounded, too.

A verdict must not depend on how a reader takes a constant such as 0.1 in a comparison with a float32
variable: as the decimal, or as the nearest float32 number. Proofs cover both; so do witnesses, see `replay`.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np

from lpverify.forms import Forms
from lpverify.interval import Box
from lpverify.network import Network, repeat
from lpverify.ops.linear import Linear, SparseLinear
from lpverify.query import Atom, Number, Query, float_above, negate

ROUNDINGS = 16  # of one term, with a wide margin: products, sums in any order, fused or not


@dataclass(frozen=True)
class Typed:
    """What is computed in which type.

    Attributes:
        dtype: The coarsest float type among the variables; None if all are whole.
        whole: For each of the query's inputs and outputs whether it is a whole number or truth value.
        spans: Least and largest number of each input's type `(inputs, 2)`, NaN where that is no use.
        execute: Makes of a network one that covers its computation on a box of inputs; gets also how many
            nodes are in front of those of the models.
    """

    dtype: type | None
    whole: np.ndarray
    spans: np.ndarray
    execute: Callable[[Network, Box, int], Network]

    def slack(self, number: Number) -> float:
        """How far the number may be from what it is rounded to, with a margin."""
        if self.dtype is None:
            return 0.0
        info = float_info(self.dtype)
        value = -float_above(negate(number)) if number < 0 else float_above(number)
        with np.errstate(over="ignore"):
            nearest = float(self.dtype(value))
        if nearest == value and value == number:
            return 0.0
        return abs(value) * 2.0 * float(info.eps) + 2.0 * float(info.smallest_subnormal)

    def merged(self, merged: np.ndarray | None, inputs: int) -> "Typed":
        """The same after some inputs became one; a float among them makes it a float."""
        if merged is None:
            return self
        whole = np.ones(inputs, bool)
        np.logical_and.at(whole, merged, self.whole[: len(merged)])
        return replace(self, whole=np.concatenate([whole, self.whole[len(merged) :]]))

    def exact(self, atom: Atom) -> bool:
        """Whether the comparison needs no arithmetic on floats: it means the same in the types."""
        return not self._rounded(atom.terms, bool(atom.bound), atom.size is not None)

    def with_noise(
        self, network: Network, forms: Forms, query: Query, box: Box, largest: np.ndarray
    ) -> Network:
        """Lets the forms that need arithmetic be off by what its rounding may do.

        Args:
            network: Its output node computes the forms.
            forms: Of the query.
            query: Of which the forms' variables are.
            box: All inputs, of the network.
            largest: For each form the size of the largest constant that it is compared with.
        """
        rows = [
            row
            for terms, row in forms.index.items()
            if self._rounded(terms, largest[row] > 0, row in forms.sizes)
        ]
        if not rows or self.dtype is None:
            return network
        node = network.nodes[network.output]
        assert isinstance(node.op, (Linear, SparseLinear))
        operand = _boxes(network, box)[node.inputs[0]]
        size = node.op.magnitude(operand.magnitude)[0]
        peak = _peaks(operand.magnitude[0], forms, query)
        info = float_info(self.dtype)
        lengths = np.array([len(terms) + sum(_degree(v, query) for v, _ in terms) for terms in forms.index])
        noise = np.zeros(node.shape)
        with np.errstate(over="ignore", invalid="ignore"):
            errors = float(info.eps) * (size + largest)[rows] + float(info.tiny) * peak[rows]
            errors = ROUNDINGS * (lengths[rows] + 4.0) * errors
        known = np.isfinite(errors) & (peak[rows] < 0.25 * float(info.max))
        noise[rows] = np.where(known, errors, np.inf)
        op = replace(node.op, offset=np.zeros(node.shape), offset_error=noise)
        nodes = (*network.nodes[: network.output], replace(node, op=op))
        return replace(network, nodes=nodes)

    def _rounded(self, terms: tuple[tuple[int, Number], ...], shifted: bool, computed: bool) -> bool:
        """Whether the comparison needs arithmetic on floats; that of two variables alone does not."""
        if any(v >= len(self.whole) for v, _ in terms):
            return True
        factors = [c for _, c in terms]
        plain = factors in ([1], [-1]) or (not shifted and factors in ([1, -1], [-1, 1]))
        return (computed or not plain) and not all(self.whole[v] for v, _ in terms)


def float_info(dtype: type) -> Any:
    """What `numpy.finfo` tells, also of bfloat16."""
    if np.dtype(dtype).kind != "V":
        return np.finfo(dtype)
    import ml_dtypes  # noqa: PLC0415  (comes with onnx)

    return ml_dtypes.finfo(dtype)  # type: ignore[no-untyped-call]


def _peaks(sizes: np.ndarray, forms: Forms, query: Query) -> np.ndarray:
    """For each form a number above all that its computation meets, and above all factors of an underflow.

    A product that underflows on the way is off by a number that has no part in the size of the result.
    """
    known = query.inputs + query.outputs
    reach = np.maximum(sizes, 1.0)
    offset = query.inputs if len(sizes) == query.outputs else 0  # forms of outputs alone read no inputs
    peaks = np.zeros(max(len(forms.index), 1))
    with np.errstate(over="ignore"):
        for terms, row in forms.index.items():
            for v, c in terms:
                factors = query.monomials[v - known] if v >= known else (v,)
                size = prod(reach[i - offset] for i in factors)
                peaks[row] += np.float64(max(float_above(c), float_above(negate(c)), 1.0)) * size
    return peaks


def _degree(variable: int, query: Query) -> int:
    known = query.inputs + query.outputs
    return len(query.monomials[variable - known]) if variable >= known else 0


def _boxes(network: Network, box: Box) -> list[Box]:
    """Intervals of all values."""
    boxes = [Box(box.lower[None], box.upper[None])]
    for node in network.nodes[1:]:
        assert node.op is not None
        with np.errstate(all="ignore"):
            low, high = node.op.interval(*(boxes[i] for i in node.inputs))
        boxes.append(Box(repeat(low, 1), repeat(high, 1)))
    return boxes
