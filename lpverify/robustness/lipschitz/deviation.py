"""Local Lipschitz constants in norm 2 by a mean Jacobian and what may deviate from it.

With local slopes in `[c - s, c + s]` a layer's change of results is followed as `v = J v_0 + r`:

    J' = c W J,    |r'| <= ||s W J|| |v_0| + ||(|c| + s) W|| |r|,

all in the spectral norm (`bounds.ball` follows balls in the same way). Where no neuron of the region switches
that is the norm of the Jacobian itself, which intervals of its entries (`local`) are not near to for several
outputs or many unstable neurons.
"""

from collections.abc import Sequence
from math import inf, prod

import numpy as np

from lpverify.bounds.ball import UP, euclidean, product_norm, spectral_norm
from lpverify.errors import UnsupportedError
from lpverify.interval import DOUBLE, Box, gamma, round_up, tiny
from lpverify.network import Network
from lpverify.robustness.lipschitz.chain import Layers, Matrix, Part, layers_of
from lpverify.robustness.lipschitz.slopes import diagonal_slopes

MOST_ENTRIES = 2**22  # of all matrices of a chain together


def deviation_layers(network: Network, parts: Sequence[Part]) -> Layers:
    """The parts as a chain small enough for this.

    Raises:
        UnsupportedError: It is no plain chain, or too large.
    """
    sizes = [
        prod(network.nodes[p.source].shape) * prod(network.nodes[p.target].shape) for p in parts if p.affine
    ]
    if sum(sizes) > MOST_ENTRIES:
        raise UnsupportedError("the layers are too large for their spectral norms on each region")
    return layers_of(network, parts)


def local_layers(
    network: Network, parts: Sequence[Part], layers: Layers, boxes: Sequence[Box]
) -> list[Layers]:
    """The chain with the slopes that hold on each region, from boxes `(B, *shape)` of all values."""
    count = len(boxes[0].lower)
    ends = []
    for part in parts:
        if part.slopes is not None:
            found = diagonal_slopes(network, part.source, part.target, boxes)
            shape = (count, prod(network.nodes[part.target].shape))
            ends.append(
                [np.broadcast_to(e, (count, *e.shape[1:])).reshape(shape) for e in (found.lower, found.upper)]
            )
    return [Layers(layers.weights, tuple((low[b], high[b]) for low, high in ends)) for b in range(count)]


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def deviation_bounds(layers: Layers) -> tuple[np.ndarray, float]:
    """Upper bounds in norm 2 for each element of the result, and for the result as a whole."""
    if not all(np.isfinite(end).all() for ends in layers.slopes for end in ends):
        return np.full(len(layers.weights[-1].value), inf), inf
    jacobian, rest = np.eye(layers.weights[0].value.shape[1]), 0.0
    size = float(euclidean(jacobian.reshape(-1)))
    for weight, (low, high) in zip(layers.weights[:-1], layers.slopes, strict=True):
        jacobian, rest = _layer(weight, low, high, jacobian, size, rest)
        size = float(euclidean(jacobian.reshape(-1)))
    last, error, frobenius = layers.weights[-1], *_sizes(layers.weights[-1])
    product = last.value @ jacobian
    slip = (error + frobenius * gamma(len(jacobian) + 4, DOUBLE)) * size + tiny(jacobian)
    rows = (euclidean(product) + (euclidean(last.value) + error) * rest + slip) * UP
    whole = (spectral_norm(product) + (spectral_norm(last.value) + error) * rest + slip) * UP
    return np.where(np.isnan(rows), inf, rows), whole if whole == whole else inf


def _sizes(weight: Matrix) -> tuple[float, float]:
    """Frobenius norms of the error and of the floats."""
    return float(euclidean(weight.error.reshape(-1))), float(euclidean(weight.value.reshape(-1)))


def _layer(
    weight: Matrix, low: np.ndarray, high: np.ndarray, jacobian: np.ndarray, size: float, rest: float
) -> tuple[np.ndarray, float]:
    """The mean Jacobian behind a layer, and the bound of what deviates."""
    mean = 0.5 * (low + high)
    spread = np.where(low == high, 0.0, round_up(np.maximum(high - mean, mean - low)))
    steep = np.maximum(abs(low), abs(high))
    steepest = float(steep.max(initial=0.0)) * UP
    error, frobenius = _sizes(weight)
    product = weight.value @ jacobian
    slip = (error + frobenius * gamma(len(jacobian) + 8, DOUBLE)) * size * steepest + tiny(jacobian)
    moved = product_norm(spread, product, None)
    passed = product_norm(steep, weight.value, None) + error * steepest
    return mean[:, None] * product, (moved + passed * rest + slip * 4) * UP
