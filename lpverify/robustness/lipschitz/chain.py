"""A network as a chain of parts, each a map from one value to the next.

A value is a *cut* if every path from the input to the result goes through it. What lies between neighbouring
cuts is a part: affine, elementwise, or something else such as a residual block, which `structure` treats.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, prod

import numpy as np

from lpverify.bounds.ball import MOST_ENTRIES, UP, WIDEST
from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.network import Network
from lpverify.ops.base import AffineOp, SelectionOp
from lpverify.robustness.lipschitz.slopes import diagonal_root, diagonal_slopes, times


@dataclass(frozen=True)
class Part:
    """The map from one cut to another.

    Attributes:
        source: The value that it starts from.
        target: Its result.
        nodes: All nodes on the way that depend on the source, ascending; the last one is the target.
        affine: Whether all of them are.
        slopes: Of an elementwise part least and largest slopes `(1, *shape)`, else None.
    """

    source: int
    target: int
    nodes: tuple[int, ...]
    affine: bool
    slopes: Box | None = None


def parts_of(network: Network) -> list[Part]:
    """The parts of a network from the input to the result; neighbours that are affine are one.

    Raises:
        UnsupportedError: An elementwise function has no bounded slope.
    """
    parts: list[Part] = []
    moving = _moving(network)
    cuts = _cuts(network, moving)
    for source, target in pairwise(cuts):
        nodes = tuple(k for k in moving if source < k <= target)
        part = _part(network, source, target, nodes)
        if parts and parts[-1].affine and part.affine:
            before = parts.pop()
            part = Part(before.source, target, before.nodes + nodes, True)
        elif parts and parts[-1].slopes is not None and part.slopes is not None:
            before = parts.pop()
            product = times(before.slopes, part.slopes.lower, part.slopes.upper)  # type: ignore[arg-type]
            part = Part(before.source, target, before.nodes + nodes, False, product)
        parts.append(part)
    return parts


def _moving(network: Network) -> list[int]:
    """The values that the result depends on and that depend on the input, ascending."""
    depends = {0}
    for k, node in enumerate(network.nodes):
        if depends.intersection(node.inputs):
            depends.add(k)
    return sorted(depends & network.ancestors[network.output])


def _cuts(network: Network, moving: Sequence[int]) -> list[int]:
    """The input, the result and all cuts between; the input alone where the result is constant."""
    if network.output not in moving:
        return [0]
    cuts, reach = [], 0
    last = {i: k for k in moving for i in network.nodes[k].inputs}
    for k in moving:
        if reach <= k:  # no edge of an earlier value jumps over this one
            cuts.append(k)
        reach = max(reach, last.get(k, k))
    return cuts


def _part(network: Network, source: int, target: int, nodes: tuple[int, ...]) -> Part:
    if all(isinstance(network.nodes[k].op, AffineOp) for k in nodes):
        return Part(source, target, nodes, True)
    if diagonal_root(network, target) == source or len(nodes) == 1:
        return Part(source, target, nodes, False, diagonal_slopes(network, source, target))
    return Part(source, target, nodes, False)


@dataclass(frozen=True)
class Matrix:
    """A matrix `(n, m)` that is known up to rounding.

    Attributes:
        value: The floats.
        error: A bound of how far each entry is from the exact one, `(n, m)`.
    """

    value: np.ndarray
    error: np.ndarray

    @property
    def size(self) -> np.ndarray:
        """Upper bounds of the exact entries' absolute values."""
        return (abs(self.value) + self.error) * UP


def matrix_of(network: Network, nodes: Sequence[int], source: int, target: int) -> Matrix | None:
    """How value `target` depends on value `source` by affine ones of the nodes alone.

    What comes by other nodes is left out. None if the matrix, or one on the way, would be too large.

    Args:
        network: With float64 weights, NumPy.
        nodes: Ascending.
        source: Where unit vectors start.
        target: One of the nodes, or the source.
    """
    size = prod(network.nodes[source].shape)
    widths = [prod(network.nodes[k].shape) for k in (source, *nodes) if source <= k <= target]
    if max(widths) * size > MOST_ENTRIES or min(size, prod(network.nodes[target].shape)) > WIDEST:
        return None
    unit = np.eye(size).reshape((size, *network.nodes[source].shape))
    values, bounds, relative = {source: unit}, {source: unit}, {source: 0.0}
    for k in (k for k in nodes if source < k <= target):
        _step(network, k, values, bounds, relative)
    if target not in values:
        return Matrix(*(np.zeros((prod(network.nodes[target].shape), size)) for _ in range(2)))
    total = relative[target]
    factor = total / (1 - total) * UP if total < 0.5 else inf
    value, bound = (np.ascontiguousarray(v[target].reshape(size, -1).T) for v in (values, bounds))
    return Matrix(value, bound * factor if factor else np.zeros_like(bound))


def _step(
    network: Network,
    k: int,
    values: dict[int, np.ndarray],
    bounds: dict[int, np.ndarray],
    relative: dict[int, float],
) -> None:
    """Sends the columns and what bounds them through one affine node."""
    node = network.nodes[k]
    present = [i for i in node.inputs if i in values]
    if not present or not isinstance(node.op, AffineOp):
        return
    count = len(values[present[0]])
    zeros = [np.zeros((count, *network.nodes[i].shape)) for i in node.inputs]
    takes = [(values.get(i, z), bounds.get(i, z)) for i, z in zip(node.inputs, zeros, strict=True)]
    values[k] = node.op.linear(*(v for v, _ in takes))
    own = 0.0 if isinstance(node.op, SelectionOp) else float(node.op.error_factors(values[k])[0])
    own = 0.0 if own and node.op.terms == (1, 0) else own  # one summand, as in `-x`
    exact = isinstance(node.op, SelectionOp) or not own
    bounds[k] = (
        node.op.abs_linear(*(b for _, b in takes)) if exact else node.op.magnitude(*(b for _, b in takes))
    )
    relative[k] = (max(relative[i] for i in present) + own) * (UP if own else 1.0)


@dataclass(frozen=True)
class Layers:
    """A plain chain `W_L s_{L-1}(... s_1(W_1 x))` up to offsets: matrices and slopes of what is between.

    Attributes:
        weights: One more than there are slopes.
        slopes: Of each layer's function least and largest slopes, `(n,)` each.
    """

    weights: tuple[Matrix, ...]
    slopes: tuple[tuple[np.ndarray, np.ndarray], ...]

    @property
    def hidden(self) -> int:
        """Number of neurons."""
        return sum(len(low) for low, _ in self.slopes)

    def with_rows(self, rows: np.ndarray) -> "Layers":
        """The chain whose result is some rows of the last matrix."""
        last = self.weights[-1]
        return Layers((*self.weights[:-1], Matrix(last.value[rows], last.error[rows])), self.slopes)


def layers_of(network: Network, parts: Sequence[Part]) -> Layers:
    """The parts as a plain chain.

    Raises:
        UnsupportedError: A part is neither affine nor elementwise, or a matrix is too large.
    """
    weights: list[Matrix] = []
    slopes: list[tuple[np.ndarray, np.ndarray]] = []
    for part in parts:
        if part.slopes is not None:
            if len(weights) == len(slopes):
                weights.append(_identity(prod(network.nodes[part.source].shape)))
            slopes.append((part.slopes.lower.reshape(-1), part.slopes.upper.reshape(-1)))
        elif part.affine:
            matrix = matrix_of(network, part.nodes, part.source, part.target)
            if matrix is None:
                raise UnsupportedError(f"a layer is too large for this method: {_name(network, part)}")
            weights.append(matrix)
        else:
            raise UnsupportedError(f"this method is for plain chains of layers: {_name(network, part)}")
    if len(weights) == len(slopes):
        weights.append(_identity(prod(network.nodes[network.output].shape)))
    return Layers(tuple(weights), tuple(slopes))


def _identity(size: int) -> Matrix:
    return Matrix(np.eye(size), np.zeros((size, size)))


def _name(network: Network, part: Part) -> str:
    node = network.nodes[part.target]
    return f"{type(node.op).__name__} {node.name}".rstrip()
