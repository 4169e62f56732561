"""Parts that are no chains of layers but have a known Lipschitz constant all the same.

Data movement, elementwise functions, maxima (hence max pooling) and sorted pairs (MaxMin, GroupSort of two:
Anil et al. 2019, arXiv:1811.05381) never enlarge changes by more than how often they read an element. One
pass back from the result collects a weight for each element: what a change of it adds to the sum of
squares (norm 2), to the sum of sizes (norm 1) or to the largest size (infinity).

    |max(p, q) - max(p', q')| <= max(|p - p'|, |q - q'|)     and sorting pairs enlarges none of these norms.

Residual parts `A x + B s(C x + c)` with slope-restricted s get a quadratic certificate in norm 2. For the
layers of Araujo et al. 2023 (arXiv:2303.03169, section 3), `x - 2 W T^-1 relu(W'x + b)`, that is 1.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import inf, prod

import numpy as np

from lpverify.bounds.ball import UP, euclidean
from lpverify.errors import UnsupportedError
from lpverify.interval import DOUBLE, SUM_INFLATION, inflate, tiny
from lpverify.network import Network
from lpverify.ops.base import AffineOp, ElementwiseOp, SelectionOp
from lpverify.ops.linear import Combine
from lpverify.ops.piecewise import Relu
from lpverify.robustness.lipschitz.certified import Form, add_neurons, add_square, least_bound
from lpverify.robustness.lipschitz.chain import Matrix, Part, matrix_of
from lpverify.robustness.lipschitz.norms import matrix_norm, root_up
from lpverify.robustness.lipschitz.slopes import diagonal_root, diagonal_slopes, global_slopes, unsupported

LARGEST_RESIDUAL = 1500  # inputs and neurons of a residual part that gets a certificate


@dataclass(frozen=True)
class Extreme:
    """A node that is the maximum (sign 1) or the minimum (-1) of two values of its shape."""

    sign: int
    values: tuple[int, int]


def extreme(network: Network, k: int) -> Extreme | None:
    """Recognises `q + relu(p - q)`, and `-max(-p, -q)`."""
    node = network.nodes[k]
    if not isinstance(node.op, Combine):
        return None
    if node.op.signs == (-1,):
        inner = extreme(network, node.inputs[0])
        if inner is None:
            return None
        plain = [_negated(network, v) for v in inner.values]
        return None if None in plain else Extreme(-inner.sign, (plain[0], plain[1]))  # type: ignore[arg-type]
    if node.op.signs != (1, 1):
        return None
    for q, r in (node.inputs, node.inputs[::-1]):
        relu = network.nodes[r]
        if isinstance(relu.op, Relu):
            excess = network.nodes[relu.inputs[0]]
            if isinstance(excess.op, Combine) and excess.op.signs == (1, -1) and excess.inputs[1] == q:
                return Extreme(1, (excess.inputs[0], q))
    return None


def _negated(network: Network, k: int) -> int | None:
    node = network.nodes[k]
    return node.inputs[0] if isinstance(node.op, Combine) and node.op.signs == (-1,) else None


def weighed_norm(network: Network, part: Part, norm: float) -> float:
    """An upper bound of a part's Lipschitz constant by weights alone.

    Raises:
        UnsupportedError: A node is none of those that this pass knows; the message names it.
    """
    weights = {part.target: np.ones((1, *network.nodes[part.target].shape))}
    members = {part.source, *part.nodes}
    while (k := max(weights)) > part.source:
        weight = weights.pop(k)
        if k not in members:  # a constant
            continue
        for value, share in _shares(network, k, weight, weights, norm):
            before = weights.get(value)
            joined = np.maximum if norm == inf else np.add
            weights[value] = share if before is None else joined(before, share)
    largest = float(weights[part.source].max()) if part.source in weights else 0.0
    if not largest.is_integer():
        largest *= inflate(4 * len(part.nodes), DOUBLE)
    return root_up(largest) if norm == 2 else largest


def _shares(
    network: Network, k: int, weight: np.ndarray, weights: dict[int, np.ndarray], norm: float
) -> list[tuple[int, np.ndarray]]:
    """What a value's weight puts on the values that it is made of."""
    node = network.nodes[k]
    if isinstance(node.op, SelectionOp):
        return list(zip(node.inputs, _moved(node.op, weight, norm), strict=True))
    found = extreme(network, k)
    if found is not None:
        partner = _partner(network, found, weights)
        if partner is not None:
            other = weights.pop(partner)
            weight = np.maximum(weight, other)  # of a sorted pair: what enters is as large as what leaves
        return [(v, weight) for v in found.values]
    root = diagonal_root(network, k)
    if root is None:
        raise unsupported(network, k)
    slopes = diagonal_slopes(network, root, k)
    steepest = np.maximum(abs(slopes.lower), abs(slopes.upper))
    factor = steepest * steepest if norm == 2 else steepest
    exact = bool(np.isin(factor, (0.0, 1.0)).all())
    return [(root, weight * factor * (1.0 if exact else inflate(8, DOUBLE)))]


def _moved(op: SelectionOp, weight: np.ndarray, norm: float) -> tuple[np.ndarray, ...]:
    """Weights of the elements that data movement reads; for norm infinity the largest, not the sum."""
    if norm != inf:
        return op.adjoint(weight)
    return tuple(np.where(part > 0, float(weight.max()), 0.0) for part in op.adjoint(weight))


def _partner(network: Network, found: Extreme, weights: dict[int, np.ndarray]) -> int | None:
    """A value that is still to come and is the other one of a sorted pair."""
    for k in weights:
        other = extreme(network, k)
        if other is not None and other.sign == -found.sign and set(other.values) == set(found.values):
            return k
    return None


@dataclass(frozen=True)
class _Residual:
    """`A x + B s(C x)`, up to offsets; slopes `(m,)` of s."""

    outer: Matrix
    back: Matrix
    inner: Matrix
    slopes: tuple[np.ndarray, np.ndarray]


def residual_norm(network: Network, part: Part) -> float:
    """A Lipschitz bound in norm 2 of a part with one layer of functions, by a quadratic certificate.

    Raises:
        UnsupportedError: It is not of that kind, or too large.
    """
    found = _residual(network, part)
    forms = (_form(found, t) for t in _proposals(found))
    return min((least_bound(form) for form in forms), default=inf)


def _residual(network: Network, part: Part) -> _Residual:
    functions = [k for k in part.nodes if isinstance(network.nodes[k].op, ElementwiseOp)]
    for k in part.nodes:
        op = network.nodes[k].op
        nested = k in functions and network.ancestors[k].intersection(functions) != {k}
        if nested or not isinstance(op, AffineOp | ElementwiseOp):
            raise unsupported(network, k)
    size = prod(network.nodes[part.source].shape)
    if not functions or size + sum(prod(network.nodes[k].shape) for k in functions) > LARGEST_RESIDUAL:
        raise UnsupportedError("a part is too large for a certificate")
    outer = matrix_of(network, part.nodes, part.source, part.target)
    inner = [matrix_of(network, part.nodes, part.source, network.nodes[k].inputs[0]) for k in functions]
    back = [matrix_of(network, part.nodes, k, part.target) for k in functions]
    if outer is None or None in inner or None in back:
        raise UnsupportedError("a part is too large for a certificate")
    ends = [global_slopes(network.nodes[k].op, network.nodes[k].name) for k in functions]  # type: ignore[arg-type]
    sizes = [prod(network.nodes[k].shape) for k in functions]
    low, high = (np.repeat([e[side] for e in ends], sizes) for side in (0, 1))
    return _Residual(outer, _joined(back, 1), _joined(inner, 0), (low, high))


def _joined(parts: Sequence[Matrix | None], axis: int) -> Matrix:
    known = [p for p in parts if p is not None]
    return Matrix(*(np.concatenate([getattr(p, n) for p in known], axis=axis) for n in ("value", "error")))


def _proposals(found: _Residual) -> list[np.ndarray]:
    """Multipliers that cancel the mixed terms as well as they can, and larger ones."""
    outer, back, inner = (m.value for m in (found.outer, found.back, found.inner))
    low, high = found.slopes
    lengths = (inner * inner).sum(axis=1) * (low + high)
    mixed = np.einsum("ij,ji->i", inner, outer.T @ back)
    cancel = np.maximum(-2 * mixed / np.where(lengths > 0, lengths, inf), 0.0)
    rows = abs(back.T @ back).sum(axis=1)
    return [cancel * (1 + 2.0**-30), np.maximum(cancel, rows), cancel + rows, cancel + 2 * rows]


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def _form(found: _Residual, t: np.ndarray) -> Form:
    n, m = found.inner.value.shape[1], len(t)
    steepest = float(np.maximum(*map(abs, found.slopes)).max(initial=0.0))
    length = matrix_norm(found.inner, 2) * steepest * UP
    exponent = int(np.frexp(length)[1]) if 0 < length < inf else 0
    both = Matrix(*(np.hstack([a, np.ldexp(b, exponent)]) for a, b in _pairs(found)))
    matrix, error = np.zeros((n + m, n + m)), np.zeros((n + m, n + m))
    add_square(matrix, error, slice(0, n + m), both, -np.ones(len(both.value)))
    add_neurons(matrix, error, slice(0, n), slice(n, n + m), found.inner, found.slopes, t, exponent)
    loss = float(euclidean(error.reshape(-1))) * SUM_INFLATION + tiny(matrix)
    reach = 1.0 + (length * 2.0**-exponent) ** 2 * UP
    return Form(matrix, loss, n, reach * UP)


def _pairs(found: _Residual) -> list[tuple[np.ndarray, np.ndarray]]:
    outer, back = found.outer, found.back
    return [(outer.value, back.value), (outer.error, back.error)]


def known_norm(network: Network, part: Part, norm: float) -> float:
    """The least bound of a part that its structure gives, infinite if it gives none."""
    bounds = [inf]
    with suppress(UnsupportedError):
        bounds.append(weighed_norm(network, part, norm))
    if norm == 2 and not part.affine:
        with suppress(UnsupportedError):
            bounds.append(residual_norm(network, part))
    return min(bounds)
