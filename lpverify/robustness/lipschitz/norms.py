"""Upper bounds of operator norms of affine maps, for norm 1, 2 and infinity on both sides.

Written out, a matrix has its largest column sum (norm 1), its largest row sum (infinity), or a verified
spectral norm (`bounds.ball`). Larger ones are bounded op by op without being written out.

Convolutions: with zeros around it, a convolution is a part of the circular one on any grid that no window
wraps around on, so its norm is at most that one's: the largest norm of the kernel's Fourier transform,
a matrix for each frequency (Sedghi et al. 2019, arXiv:1805.10408, section 2). Those norms follow from
`||G|| <= ||G^k||_F^(1/k)` for Gram matrices G, by repeated squaring (Delattre et al. 2023,
arXiv:2305.16173, section 4). Power iteration would give lower bounds, hence is no use here.
"""

from collections.abc import Sequence
from dataclasses import replace
from math import inf, prod, sqrt

import numpy as np

from lpverify.bounds.ball import UP, WEIGHTED, WEIGHTLESS, euclidean, schur_norm, spectral_norm
from lpverify.errors import UnsupportedError
from lpverify.interval import DOUBLE, LIBRARY, gamma, inflate
from lpverify.network import Network
from lpverify.ops.base import AffineOp, SelectionOp
from lpverify.ops.convolution import Conv
from lpverify.robustness.lipschitz.chain import Matrix, matrix_of
from lpverify.robustness.lipschitz.slopes import global_slopes, has_slopes, unsupported

SQUARINGS = 9  # the bound exceeds the norm by the 1024th root of the matrix' size at most
MOST_FOURIER = 2**22  # complex numbers held at a time


def matrix_norm(matrix: Matrix, norm: float) -> float:
    """An upper bound of the exact matrix' norm; infinite where entries are not finite."""
    if not matrix.value.size:
        return 0.0
    if norm == 2:
        error = float(euclidean(matrix.error.reshape(-1)))
        value = spectral_norm(matrix.value)
        return (value + error) * UP if error else value
    return float(_sums(matrix, 0 if norm == 1 else 1).max())


def _sums(matrix: Matrix, axis: int) -> np.ndarray:
    """Upper bounds of sums of absolute values; exact for 0, 1 and -1 alone."""
    size, whole = abs(matrix.value), not matrix.error.any() and bool(np.isin(matrix.value, (-1, 0, 1)).all())
    total = (size + matrix.error).sum(axis=axis)
    total = total if whole else total * inflate(size.shape[axis] + 4, DOUBLE)
    return np.where(np.isnan(total), inf, total)


def affine_norm(network: Network, nodes: Sequence[int], source: int, norm: float) -> float:
    """An upper bound of the norm of a part of affine nodes, the last one being its result.

    Raises:
        UnsupportedError: The entries of a large op's matrix are not known.
    """
    matrix = matrix_of(network, nodes, source, nodes[-1])
    if matrix is not None:
        return matrix_norm(matrix, norm)
    return stacked_norms(network, nodes, source, norm)[nodes[-1]]


def stacked_norms(network: Network, nodes: Sequence[int], source: int, norm: float) -> dict[int, float]:
    """How much each value changes for one unit of change of the source, node by node: sums of norms.

    Raises:
        UnsupportedError: There is no rule for a node, which the message names.
    """
    found = {source: 1.0}
    for k in nodes:
        node = network.nodes[k]
        inputs = [i for i in dict.fromkeys(node.inputs) if i in found]
        if isinstance(node.op, AffineOp):
            each = [(found[i] * op_norm(network, k, i, norm)) * UP for i in inputs]
            found[k] = sum(each) * (UP if len(each) > 1 else 1.0)
        elif has_slopes(node.op):
            steepest = max(map(abs, global_slopes(node.op, node.name)))  # type: ignore[arg-type]
            found[k] = found[inputs[0]] * steepest * (1.0 if steepest == 1.0 else UP)
        else:
            raise unsupported(network, k)
    return found


def op_norm(network: Network, k: int, source: int, norm: float) -> float:
    """An upper bound of the norm of one affine node as a function of one of its operands.

    Raises:
        UnsupportedError: The entries of its matrix are not known.
    """
    node = network.nodes[k]
    assert isinstance(node.op, AffineOp)
    single = len(node.inputs) == 1
    if not single and isinstance(node.op, (*WEIGHTLESS, SelectionOp)):
        return float(node.inputs.count(source))
    matrix = matrix_of(network, [k], source, k)
    if matrix is not None:
        return matrix_norm(matrix, norm)
    if not single:
        raise unsupported(network, k)
    one, other = (np.ones((1, *network.nodes[v].shape)) for v in (source, k))
    if norm == 2:
        bound = schur_norm(node.op, one, other)
        return min(bound, fourier_norm(node.op)) if isinstance(node.op, Conv) else bound
    if isinstance(node.op, SelectionOp):
        return 1.0 if norm == inf else float(node.op.adjoint(other)[0].max())
    factor = (1 + node.op.weight_error) * inflate(sum(node.op.terms), DOUBLE)
    sums = node.op.magnitude(one) if norm == inf else adjoint_size(node.op, other)[0]
    return float(np.max(sums)) * factor


def adjoint_size(op: AffineOp, a: np.ndarray) -> tuple[np.ndarray, ...]:
    """`a |W|` for coefficients that are not negative, up to rounding.

    Raises:
        UnsupportedError: The absolute values of the op's matrix are not known.
    """
    if isinstance(op, SelectionOp):
        return op.adjoint(a)
    if isinstance(op, WEIGHTED):
        return replace(op, weight=abs(op.weight)).adjoint(a)
    if isinstance(op, WEIGHTLESS):
        return tuple(abs(part) for part in op.adjoint(a))
    raise UnsupportedError(f"no norm is known for {type(op).__name__}")


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def fourier_norm(op: Conv) -> float:
    """An upper bound of the spectral norm of a convolution, whatever its stride; infinite if it is too large.

    The grid has room for every window that meets the input, so that circular windows do not wrap around.
    """
    groups, (outputs, inputs) = op.groups, op.weight.shape[:2]
    spans = zip(op.input_shape[2:], op.window.kernel, op.window.dilation, strict=True)
    grid = tuple(n + d * (k - 1) for n, k, d in spans)
    if prod(grid) * outputs * inputs > MOST_FOURIER or not np.isfinite(op.weight).all():
        return inf
    largest = 0.0
    for part in op.weight.reshape(groups, outputs // groups, inputs, *op.window.kernel):
        transformed, error = _transform(part, grid, op.window.dilation)
        size = float(euclidean(abs(part).sum(axis=tuple(range(2, part.ndim))).reshape(-1)))
        total = float(_norms(transformed).max()) + size * (error + op.weight_error) * UP
        largest = max(largest, total * UP)
    return largest if largest == largest else inf


def _transform(kernel: np.ndarray, grid: Sequence[int], dilation: Sequence[int]) -> tuple[np.ndarray, float]:
    """The kernel's transform `(frequencies, outputs, inputs)`, and its error relative to sums of sizes."""
    value, error = kernel.astype(np.complex128), 0.0
    for size, step in zip(grid, dilation, strict=True):
        turns = np.outer(np.arange(value.shape[2]) * step, np.arange(size)) % size
        angle = turns * (2 * np.pi / size)
        phase = np.cos(angle) + 1j * np.sin(angle)
        value = np.tensordot(value, phase, axes=([2], [0]))  # the new axis comes last: order is kept
        # Each phase is off by a rounded angle below 8 and two library functions; sums of complex products.
        error += 64 * DOUBLE + 4 * LIBRARY + 4 * gamma(4 * len(turns) + 8, DOUBLE)
    flat = value.reshape(*value.shape[:2], -1)
    return np.ascontiguousarray(np.moveaxis(flat, 2, 0)), 2 * error


def _norms(matrices: np.ndarray) -> np.ndarray:
    """Upper bounds of the spectral norms of complex matrices `(B, n, m)`, by Gram matrices."""
    if matrices.shape[1] > matrices.shape[2]:
        matrices = matrices.swapaxes(1, 2)
    size, scale = _scaled(matrices)
    gram = size @ size.conj().swapaxes(1, 2)
    slip = 4 * gamma(4 * matrices.shape[2] + 16, DOUBLE)  # of a complex product of factors of norm 1
    return scale * np.sqrt(_squared(gram, SQUARINGS) + slip) * (1 + 8 * DOUBLE)


def _squared(gram: np.ndarray, steps: int) -> np.ndarray:
    """Upper bounds of the norms of square matrices, by `||G||^2 = ||G G*||` over and over."""
    if not steps:
        return _frobenius(gram)
    size, scale = _scaled(gram)
    slip = 4 * gamma(4 * gram.shape[1] + 16, DOUBLE)
    return scale * np.sqrt(_squared(size @ size.conj().swapaxes(1, 2), steps - 1) + slip) * (1 + 8 * DOUBLE)


def _scaled(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The matrices divided by powers of two of about their Frobenius norms, which are at most 1 then."""
    _, exponent = np.frexp(_frobenius(matrices))
    return matrices * np.ldexp(1.0, -exponent)[:, None, None], np.ldexp(1.0, exponent)


def _frobenius(matrices: np.ndarray) -> np.ndarray:
    flat = np.ascontiguousarray(matrices).reshape(len(matrices), -1)
    return np.asarray(euclidean(np.concatenate([flat.real, flat.imag], axis=1)))


def root_up(number: float) -> float:
    """An upper bound of the root, exact for 0 and 1."""
    return number if number in (0.0, 1.0) else sqrt(number) * (1 + 4 * DOUBLE)
