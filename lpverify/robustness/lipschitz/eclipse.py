"""Multipliers layer by layer in closed form: ECLipsE-Fast.

Xu and Sivaranjani 2024, arXiv:2404.04375, section 3. With slopes in [0, 1] and `M_0 = I`,

    l_k = 2 / ||W_k M_{k-1}^-1 W_k'||,   M_k = l_k I - l_k^2 / 4  W_k M_{k-1}^-1 W_k',

the form of `certified` is semidefinite for `t_k = L^2 l_k` and `L^2 = ||W_L M_{L-1}^-1 W_L'||`. That bound is
never above the product of norms: `M_k >= l_k / 2` by induction. Slopes up to b belong to the columns of the
next matrix. Here all of that only proposes multipliers.
"""

from math import inf

import numpy as np

from lpverify.bounds.ball import UP, euclidean
from lpverify.errors import UnsupportedError
from lpverify.interval import DOUBLE, SUM_INFLATION, gamma, tiny
from lpverify.robustness.lipschitz.certified import certified_bound, reaches
from lpverify.robustness.lipschitz.chain import Layers, Matrix

LARGEST_FORM = 3000  # inputs and neurons, whose form is factorised as a whole
EASED = (1.0, 1 + 2.0**-20)  # factors of multipliers; the second one leaves room for rounding


def eclipse_bound(layers: Layers) -> float:
    """A Lipschitz bound in norm 2 by one pass over the layers, proven by `certified_bound`.

    Raises:
        UnsupportedError: The network is too large, or a function falls somewhere.
    """
    require_size(layers, LARGEST_FORM)
    found = multipliers(layers)
    if found is None:
        return inf
    return _proven(layers, found)


def _proven(layers: Layers, found: list[np.ndarray]) -> float:
    slopes = tuple((np.zeros_like(low), high) for low, high in layers.slopes)  # what the closed form is for
    wider = Layers(layers.weights, slopes)
    return min(certified_bound(wider, [factor * t for t in found]) for factor in EASED)


def require_size(layers: Layers, limit: int) -> None:
    """Checks that the form of a chain has at most that many rows.

    Raises:
        UnsupportedError: It has more.
    """
    size = layers.hidden + layers.weights[0].value.shape[1]
    if size > limit:
        raise UnsupportedError(
            f"{size} inputs and neurons are too many for this method, the limit is {limit}"
        )


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def eclipse_rows(layers: Layers) -> np.ndarray:
    """Lipschitz bounds `(m,)` in norm 2 of each element of the result, by one certificate for all.

    With a root R of M_{L-1}, the chain whose last matrix is R has some bound l near 1. A row w of the last
    matrix is y R but for a small rest r, so `|w v| <= |y| |R v| + |r| |v| <= (|y| l + |r| reach) |v_0|`.

    Raises:
        UnsupportedError: The network is too large, or a function falls somewhere.
    """
    require_size(layers, LARGEST_FORM)
    last, found = layers.weights[-1], recursion(layers)
    unknown = np.full(len(last.value), inf)
    if found is None:
        return unknown
    try:
        root = np.linalg.cholesky(np.linalg.inv(found[1])).T
        rows = np.linalg.solve(root.T, last.value.T).T
    except np.linalg.LinAlgError:
        return unknown
    square = Matrix(root, np.zeros_like(root))
    length = _proven(Layers((*layers.weights[:-1], square), layers.slopes), found[0])
    slip = abs(rows) @ abs(root) * gamma(len(root) + 8, DOUBLE) + last.error
    rest = abs(last.value - rows @ root) * UP + slip * SUM_INFLATION + tiny(rows)
    bounds = (euclidean(rows) * length + euclidean(rest) * reaches(layers)[-1] * UP) * UP
    return np.where(np.isnan(bounds), inf, bounds)


def multipliers(layers: Layers) -> list[np.ndarray] | None:
    """The closed form's multipliers, None where a matrix turns out singular.

    Raises:
        UnsupportedError: A function falls somewhere.
    """
    found = recursion(layers)
    if found is None:
        return None
    last = layers.weights[-1].value
    try:
        square = float(np.linalg.norm(last @ found[1] @ last.T, 2))
    except np.linalg.LinAlgError:
        return None
    return [square * t for t in found[0]] if np.isfinite(square) and square > 0 else None


@np.errstate(over="ignore", invalid="ignore", divide="ignore", under="ignore")
def recursion(layers: Layers) -> tuple[list[np.ndarray], np.ndarray] | None:
    """The multipliers for L = 1, and the inverse of M_{L-1}; None where a matrix turns out singular.

    Raises:
        UnsupportedError: A function falls somewhere.
    """
    if any((low < 0).any() for low, _ in layers.slopes):
        raise UnsupportedError("this method is for functions that never fall")
    inverse = np.eye(layers.weights[0].value.shape[1])
    found: list[np.ndarray] = []
    try:
        for weight, (_, high) in zip(layers.weights, layers.slopes, strict=False):
            middle = weight.value @ inverse @ weight.value.T
            top = float(np.linalg.norm(middle, 2))
            if not 0 < top < inf:
                return None
            factor = 2.0 / top
            inverse = np.linalg.inv(factor * np.eye(len(middle)) - (factor * factor / 4) * middle)
            found.append(factor / np.where(high > 0, high * high, 1.0))
            inverse = np.outer(high, high) * inverse  # the recursion is about u with v = b u
    except np.linalg.LinAlgError:
        return None
    return found, inverse
