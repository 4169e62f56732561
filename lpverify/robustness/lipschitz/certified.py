"""Quadratic certificates of Lipschitz bounds: rigorous for any multipliers that are not negative.

Method (LipSDP: Fazlyab et al. 2019, arXiv:1906.04893, section 2.3): with changes v_0 of the input, v_k of
layer k's results and z_k = W_k v_{k-1}, a function with slopes in [a, b] has `(v - a z)(b z - v) >= 0` in
each neuron. So if for some t >= 0 and all v

    L^2 |v_0|^2 - |W v_last|^2 - sum_k t_k (v_k - a z_k)(b z_k - v_k)  >=  0,

then L is a Lipschitz constant in norm 2. Here the left side is made from floats, its smallest eigenvalue is
bounded from below by a Cholesky factor whose residual is computed (Rump 2006, BIT 46), and what that and all
rounding lack, say `delta |v|^2`, is paid by L^2: norms of the layers bound |v_k| by a multiple of |v_0|.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf, sqrt

import numpy as np

from lpverify.bounds.ball import EXCESSES, UP, euclidean
from lpverify.errors import InputError
from lpverify.interval import DOUBLE, SUM_INFLATION, gamma, inflate, tiny
from lpverify.robustness.lipschitz.chain import Layers, Matrix
from lpverify.robustness.lipschitz.norms import matrix_norm

SHIFTS = (2.0**-44, 2.0**-36, 2.0**-30, 2.0**-24, 2.0**-18)  # of the form, relative, until it is definite
NEGLIGIBLE = 2.0**-27  # share of a bound that is not worth another attempt


@dataclass(frozen=True)
class Form:
    """A symmetric form in (v_0, v_1, ...), without the term `L^2 |v_0|^2`.

    Attributes:
        matrix: `(N, N)`.
        error: A bound of the spectral norm of the matrix minus the exact one.
        inputs: The size of v_0.
        reach: A bound of the squared length of all of v, for v_0 of length 1.
    """

    matrix: np.ndarray
    error: float
    inputs: int
    reach: float


def certified_bound(layers: Layers, multipliers: Sequence[np.ndarray]) -> float:
    """A Lipschitz bound of a chain in norm 2; infinite where the multipliers certify none.

    Args:
        layers: The chain.
        multipliers: A number from 0 for each neuron, `(n_k,)` for each layer.

    Raises:
        InputError: Numbers or shapes of multipliers do not fit, or some are negative or not finite.
    """
    for t, (low, _) in zip(_fitting(layers, multipliers), layers.slopes, strict=True):
        if t.shape != low.shape or not (np.isfinite(t) & (t >= 0)).all():
            raise InputError("multipliers: expected a finite number from 0 for each neuron")
    if not layers.slopes:
        return matrix_norm(layers.weights[0], 2)
    return least_bound(_form(layers, multipliers))


def _fitting(layers: Layers, multipliers: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
    if len(multipliers) != len(layers.slopes):
        raise InputError(
            f"multipliers: expected those of {len(layers.slopes)} layers, got {len(multipliers)}"
        )
    return multipliers


def reaches(layers: Layers) -> list[float]:
    """How long v_0, v_1, ... are at most, for v_0 of length 1."""
    found = [1.0]
    for weight, (low, high) in zip(layers.weights[:-1], layers.slopes, strict=True):
        steepest = float(np.maximum(abs(low), abs(high)).max(initial=0.0))
        found.append(found[-1] * matrix_norm(weight, 2) * steepest * UP)
    return found


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def _form(layers: Layers, multipliers: Sequence[np.ndarray]) -> Form:
    """In units of each layer's reach, rounded to powers of two, so that no layer dwarfs another."""
    lengths = reaches(layers)
    exponents = [0, *(int(np.frexp(v)[1]) if 0 < v < inf else 0 for v in lengths[1:])]
    sizes = [w.value.shape[1] for w in layers.weights]
    ends = np.cumsum([0, *sizes])
    blocks = [slice(int(a), int(b)) for a, b in pairwise(ends)]
    matrix, error = np.zeros((ends[-1], ends[-1])), np.zeros((ends[-1], ends[-1]))
    for k, (t, slopes) in enumerate(zip(multipliers, layers.slopes, strict=True)):
        weight = _scaled(layers.weights[k], exponents[k])
        add_neurons(matrix, error, blocks[k], blocks[k + 1], weight, slopes, t, exponents[k + 1])
    last = _scaled(layers.weights[-1], exponents[-1])
    add_square(matrix, error, blocks[-1], last, -np.ones(len(last.value)))
    reach = sum((v * 2.0**-e) ** 2 for v, e in zip(lengths[1:], exponents[1:], strict=True))
    loss = float(euclidean(error.reshape(-1))) * SUM_INFLATION + tiny(matrix)
    return Form(matrix, loss, sizes[0], (1.0 + reach) * inflate(len(lengths) + 4, DOUBLE))


def _scaled(weight: Matrix, exponent: int) -> Matrix:
    return Matrix(np.ldexp(weight.value, exponent), np.ldexp(weight.error, exponent))


def add_square(
    matrix: np.ndarray, error: np.ndarray, block: slice, weight: Matrix, factors: np.ndarray
) -> None:
    """Adds `|W v|^2` weighted by row to a form, and how far that may be off, entry by entry."""
    value, size = weight.value, weight.size
    weighted = abs(factors)[:, None] * size
    matrix[block, block] += value.T @ (factors[:, None] * value)
    slip = gamma(len(value) + 16, DOUBLE)
    both = weighted.T @ weight.error
    error[block, block] += (slip * (weighted.T @ size) + both + both.T) * SUM_INFLATION


def add_neurons(
    matrix: np.ndarray,
    error: np.ndarray,
    before: slice,
    after: slice,
    weight: Matrix,
    slopes: tuple[np.ndarray, np.ndarray],
    t: np.ndarray,
    exponent: int,
) -> None:
    """Adds `-t (v - a z)(b z - v)` of a layer, z = W u: u is `before`, v `after` in units of 2^exponent."""
    low, high = slopes
    if (low * high).any():
        add_square(matrix, error, before, weight, t * low * high)
    cross = np.ldexp(0.5 * t * (low + high), exponent)[:, None] * weight.value
    matrix[after, before] -= cross
    matrix[before, after] -= cross.T
    own = np.ldexp(t, 2 * exponent)
    index = np.arange(after.start, after.stop)
    matrix[index, index] += own
    size = np.ldexp(0.5 * t * (abs(low) + abs(high)), exponent)[:, None]
    slip = size * (weight.error + gamma(16, DOUBLE) * weight.size) * SUM_INFLATION
    error[after, before] += slip
    error[before, after] += slip.T
    error[index, index] += gamma(8, DOUBLE) * (own + abs(matrix[index, index]))


@np.errstate(over="ignore", invalid="ignore", under="ignore", divide="ignore")
def least_bound(form: Form) -> float:
    """The least L that the form certifies, up to a little; infinite for none."""
    if not (np.isfinite(form.matrix).all() and np.isfinite([form.error, form.reach]).all()):
        return inf
    best, scale = inf, float(abs(form.matrix).max())
    for shift in SHIFTS:
        top = _guess(form, shift * scale)
        if top is None:
            continue
        square = min((_certified(form, top, shift * scale, excess) for excess in EXCESSES[:2]), default=inf)
        best = min(best, square)
        if best <= top * (1 + NEGLIGIBLE):
            break
    return sqrt(best) * (1 + 8 * DOUBLE) if best < inf else inf


def _guess(form: Form, shift: float) -> float | None:
    """About the least L^2 with which the shifted form is semidefinite, None for none."""
    n, matrix = form.inputs, form.matrix
    rest = matrix[n:, n:] + shift * np.eye(len(matrix) - n)
    try:
        half = np.linalg.solve(np.linalg.cholesky(rest), matrix[n:, :n])
        top = float(np.linalg.eigvalsh(half.T @ half - matrix[:n, :n])[-1]) - shift
    except np.linalg.LinAlgError:
        return None
    return max(top, 0.0) if np.isfinite(top) else None


def _certified(form: Form, top: float, shift: float, excess: float) -> float:
    """A proven L^2: of the guess, raised by a share, and what the shift and all rounding cost."""
    square = top * (1 + excess) + shift * excess
    full, size = form.matrix.copy(), len(form.matrix)
    index = np.arange(size)
    full[index, index] += shift
    full[index[: form.inputs], index[: form.inputs]] += square
    try:
        factor = np.linalg.cholesky(full)
    except np.linalg.LinAlgError:
        return inf
    residual = float(euclidean((full - factor @ factor.T).reshape(-1)))
    rounding = float(euclidean(factor.reshape(-1))) ** 2 + float(abs(full).max())
    lack = shift + form.error + (residual + rounding * gamma(size + 16, DOUBLE)) * SUM_INFLATION
    total = (square + lack * SUM_INFLATION * form.reach) * UP
    return total if total == total else inf
