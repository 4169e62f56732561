"""Bounds on a network for the Python interface: NumPy in, NumPy out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from lpverify.bounds.frame import Frame
from lpverify.bounds.linear import backward, centre_value
from lpverify.bounds.propagate import Region, propagate
from lpverify.config import Config
from lpverify.errors import InputError, InternalError
from lpverify.interval import Box
from lpverify.io.onnx import Model, Signature
from lpverify.loading import LoadedNetwork, Path, exact_array, model_of
from lpverify.multipliers import Effort

CHUNK_ELEMENTS = 2**25  # of the coefficients of rows, held at a time
METHODS: Mapping[str, Effort] = {
    "ibp": Effort("ibp"),
    "forward": Effort("ibp", forward=True),
    "crown": Effort("crown"),
}


@dataclass(frozen=True)
class ValueBounds:
    """A proven box of one value of the network.

    Attributes:
        name: The ONNX node that the value comes from; several values may come from one node.
        op: What computes it, in this library's words; `input` for the flat input.
        lower: Not above the value anywhere in the input box; of the value's shape.
        upper: Not below it.
    """

    name: str
    op: str
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class BoundsResult:
    """Proven bounds on a network over a box: all rounding errors are covered.

    With the flat input `x (n,)` and flat output `y (m,)`, for every real x in the box and in exact
    arithmetic, `lower_a @ x + lower_b <= y <= upper_a @ x + upper_b` and `lower <= y <= upper`.

    Attributes:
        values: Boxes of all values, from the input to the output, in the order of evaluation.
        lower: `(m,)`.
        upper: `(m,)`.
        lower_a: `(m, n)`.
        lower_b: `(m,)`.
        upper_a: `(m, n)`.
        upper_b: `(m,)`.
    """

    values: tuple[ValueBounds, ...] = field(repr=False)
    lower: np.ndarray
    upper: np.ndarray
    lower_a: np.ndarray
    lower_b: np.ndarray
    upper_a: np.ndarray
    upper_b: np.ndarray


def bounds(
    network: LoadedNetwork | Path,
    lower: object,
    upper: object,
    *,
    method: Literal["ibp", "forward", "crown"] = "crown",
) -> BoundsResult:
    """Bounds all values of a network over an input box.

    >>> import lpverify
    >>> found = lpverify.bounds("model.onnx", [[0.5, -1.0]], [[1.0, 0.0]])
    >>> found.lower.round(9), found.upper.round(9)
    (array([0.]), array([1.]))
    >>> [value.op for value in found.values]
    ['input', 'Reshape', 'Linear', 'Relu', 'Reshape']

    Args:
        network: From `load`, or a path.
        lower: Lower ends of the box, of the input's shape (a leading 1 may be left out) or flat `(n,)`; of
            several inputs: flat, one after the other.
        upper: The same for the upper ends.
        method: `ibp`, interval arithmetic (Gowal et al. 2018, arXiv:1810.12715), for the boxes; `forward`,
            which adds affine functions of the inputs (Singh et al. 2018; cheap for few inputs); or `crown`,
            which adds backward linear bounds for unstable neurons (Zhang et al. 2018, arXiv:1811.00866).
            The linear bounds of the output are backward bounds from these boxes.

    Raises:
        InputError: Box or method are not usable: NaN, infinite ends, lower above upper, another shape.
        UnsupportedError: The network has nodes that can't be translated.
    """
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    model = model_of(network)
    low, high = (_ends(end, model.inputs, what) for end, what in ((lower, "lower"), (upper, "upper")))
    if not (low <= high).all():
        i = int(np.flatnonzero(~(low <= high))[0])
        raise InputError(f"lower end {low[i]} of input element {i} is above its upper end {high[i]}")
    box = Box(low[None], high[None])
    found = propagate(model.network, Region(box), METHODS[method], Config().max_coefficients)
    if bool(found.empty.any()):
        raise InternalError("a box that is not empty was found to be empty")
    return _bounds_result(model, found)


def _ends(end: object, inputs: Signature, what: str) -> np.ndarray:
    """One end of the box, flat."""
    array = exact_array(end, what)
    total = sum(inputs.sizes)
    shapes: list[tuple[int, ...]] = [(total,)]
    if len(inputs.shapes) == 1:
        shape = inputs.shapes[0]
        shapes += [shape, shape[1:]] if shape[:1] == (1,) else [shape]
    if array.shape not in shapes:
        raise InputError(f"{what}: expected shape {' or '.join(map(str, shapes))}, got {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{what} contains infinite numbers")
    return array.reshape(total)


def _bounds_result(model: Model, found: Frame) -> BoundsResult:
    network = model.network
    size = network.nodes[network.output].shape[0]
    parts = [_linear_bounds(model, found, rows) for rows in _row_chunks(model, size)]
    (lower_a, lower_b, low), (upper_a, upper_b, high) = (
        [np.concatenate(column) for column in zip(*side, strict=True)] for side in zip(*parts, strict=True)
    )
    output = found.boxes[network.output]
    found.boxes[network.output] = Box(
        np.maximum(output.lower, low[None]), np.minimum(output.upper, -high[None])
    )
    values = [
        ValueBounds(n.name, "input" if n.op is None else type(n.op).__name__, b.lower[0], b.upper[0])
        for k, (n, b) in enumerate(zip(network.nodes, found.boxes, strict=True))
        if k in network.ancestors[network.output]
    ]
    last = found.boxes[network.output]
    return BoundsResult(tuple(values), last.lower[0], last.upper[0], lower_a, lower_b, -upper_a, -upper_b)


def _row_chunks(model: Model, size: int) -> Sequence[np.ndarray]:
    """The rows of the identity matrix, so many at a time that coefficients fit into memory."""
    widest = max(math.prod(n.shape) for n in model.network.nodes)
    step = max(1, CHUNK_ELEMENTS // widest)
    return [np.eye(min(step, size - i), size, i) for i in range(0, size, step)]


_Side: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


def _linear_bounds(model: Model, found: Frame, rows: np.ndarray) -> tuple[_Side, _Side]:
    """For rows of outputs and for their negatives: `a`, `b` of a lower line, and its minimum."""
    network, sides = model.network, []
    for signed in (rows, -rows):
        centre = centre_value(signed[None], found.centres[network.output])
        linear = backward(found, network.output, signed[None], centre)
        a, b = linear.absolute()
        sides.append((a[0], b[0], linear.concretize(found.boxes[0])[0]))
    return sides[0], sides[1]
