"""Norm balls of inputs: dual norms, enclosing boxes, and how far a ball reaches through layers.

Everything here is an upper bound in exact arithmetic. Floating-point eigenvalues and Cholesky factors
serve as guesses only; what is returned follows from products whose rounding is bounded.

A `Track` follows a ball through affine segments and ReLUs. On a region the change of a ReLU is
`D (z - m)` with a diagonal D between two slopes; with their mean C and half their distance E

    z - m = J d + r,     next:  J' = W C J,   |r'| <= |W| |C r| + |W E^(1/2)| |E^(1/2) (z - m)|,

all in the Euclidean (spectral) norm, and likewise for single rows and for the elements of a mask.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf, prod, sqrt
from typing import Any

import numpy as np

from lpverify.errors import InternalError, UnsupportedError
from lpverify.interval import (
    DOUBLE,
    SUM_INFLATION,
    Array,
    Box,
    add_down,
    add_up,
    gamma,
    inflate,
    intersect,
    namespace,
    round_up,
    tiny,
    to_double,
)
from lpverify.network import Network
from lpverify.ops.base import AffineOp, SelectionOp
from lpverify.ops.convolution import Conv
from lpverify.ops.linear import Combine, Linear, MatMulConstant, Scale, SparseLinear, Sum
from lpverify.ops.resample import AxisMap
from lpverify.ops.transposed import ConvTranspose

WEIGHTED = (Linear, SparseLinear, MatMulConstant, Scale, Conv, ConvTranspose, AxisMap)
WEIGHTLESS = (Combine, Sum)  # their entries are 0, 1 and -1
MOST_ENTRIES = 2**24  # of a matrix that is written out for its norm
WIDEST = 2048  # smaller side of such a matrix
WIDEST_TRACKED = 1024  # and of those for which there are several norms for each region
UP = inflate(8, DOUBLE)  # makes a sum of a few non-negative terms an upper bound
EXCESSES = (2.0**-36, 2.0**-24, 2.0**-12, 2.0**-4)  # by which a guessed eigenvalue is raised until it holds


@dataclass(frozen=True, slots=True)
class Ball:
    """For each region of a batch all x with `||x - centre||_norm <= radius`.

    Attributes:
        centre: `(B, n)` float64, finite.
        radius: `(B,)` float64, not negative.
        norm: 1 or 2.
    """

    centre: Array
    radius: Array
    norm: int

    def __post_init__(self) -> None:
        if self.norm not in (1, 2):
            raise InternalError(f"no balls of norm {self.norm}")
        if self.centre.ndim != 2 or self.radius.shape != self.centre.shape[:1]:
            raise InternalError(f"ball of shapes {self.centre.shape} and {self.radius.shape}")
        if not bool(namespace(self.centre).isfinite(self.centre).all()) or not bool((self.radius >= 0).all()):
            raise InternalError("ball with an undefined centre or a negative radius")

    def rows(self, index: Any) -> "Ball":
        """The balls of some regions of the batch."""
        return Ball(self.centre[index], self.radius[index], self.norm)

    def nearest(self, box: Box) -> Array:
        """The points `(B, n)` of the boxes that are nearest to the centres.

        What lies in box and ball is in the ball of the same radius around that point, too: in each
        coordinate it is at least as near to it as to the centre.
        """
        xp = namespace(self.centre)
        return xp.minimum(xp.maximum(self.centre, box.lower), box.upper)


def enclosing_box(ball: Ball, lower: Array, upper: Array) -> tuple[Box, Array]:
    """Boxes around the balls, rounded outward and cut by a range.

    Args:
        ball: `(B, n)`.
        lower: Lower ends of the range, broadcast to `(B, n)`; -inf for none.
        upper: Upper ends.

    Returns:
        The boxes, and a mask `(B,)` of the balls that do not meet the range; their boxes are not cut.
    """
    xp, reach = namespace(ball.centre), ball.radius[:, None]
    around = Box(add_down(ball.centre, -reach), add_up(ball.centre, reach))
    low, high = (xp.broadcast_to(xp.asarray(v, dtype=xp.float64), ball.centre.shape) for v in (lower, upper))
    return intersect(around, low, high)


def dual_norm(a: Array, norm: int) -> Array:
    """Upper bounds of the norm dual to norm 1 or 2 along the last axis, float64."""
    a = to_double(a)
    return namespace(a).max(abs(a), axis=-1) if norm == 1 else euclidean(a)


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def euclidean(a: Array) -> Array:
    """Upper bounds of the Euclidean norm along the last axis; infinite where it is undefined."""
    xp = namespace(a)
    largest = xp.max(abs(a), axis=-1)
    unit = xp.where(largest == 0, xp.ones_like(largest), largest)  # squares would overflow and underflow
    shares = a / unit[..., None]
    total = xp.sqrt(xp.sum(shares * shares, axis=-1)) * unit * inflate(a.shape[-1] + 8, DOUBLE) + tiny(a)
    total = xp.where(total == total, total, xp.full_like(total, inf))
    return xp.where(largest == 0, largest, total)


@dataclass(frozen=True)
class Segment:
    """The linear part of the affine ops between two ReLUs, or between the input and a ReLU.

    Attributes:
        nodes: Their indices, in order.
        whole: An upper bound of its spectral norm.
        rows: Upper bounds of the Euclidean norms of its rows `(n,)`.
        matrix: Itself `(n, m)`; None if it is too large.
        error: A bound of the spectral norm of the matrix minus the exact one.
    """

    nodes: tuple[int, ...]
    whole: float
    rows: np.ndarray
    matrix: np.ndarray | None
    error: float


def segments(network: Network, order: Sequence[int], like: Array) -> dict[int, Segment]:
    """The segments of a chain by the ReLU that they end at.

    Args:
        network: With float64 weights.
        order: The values of the chain, from the last one down to the input.
        like: A float64 array that says where the weights are.

    Raises:
        UnsupportedError: The absolute values of some op's matrix are not known.
    """
    found: dict[int, Segment] = {}
    nodes: list[int] = []
    source = 0
    for k in reversed(order[:-1]):
        if isinstance(network.nodes[k].op, AffineOp):
            nodes.append(k)
            continue
        found[k] = _segment(network, source, tuple(nodes), like)
        nodes, source = [], k
    return found


def _segment(network: Network, source: int, nodes: tuple[int, ...], like: Array) -> Segment:
    sizes = [prod(network.nodes[k].shape) for k in (source, *nodes)]
    if max(sizes) * sizes[0] <= MOST_ENTRIES and min(sizes[0], sizes[-1]) <= WIDEST:
        return _written_out(network, source, nodes, like)
    xp, shape = namespace(like), network.nodes[source].shape
    whole, rows = 1.0, None
    for k in nodes:
        op = network.nodes[k].op
        assert isinstance(op, AffineOp)
        ones = [
            xp.ones((1, *s), dtype=xp.float64, device=like.device) for s in (shape, network.nodes[k].shape)
        ]
        whole *= schur_norm(op, *ones) * (1 + 4 * DOUBLE)
        if rows is not None:
            rows = op.magnitude(rows) * (1 + op.weight_error)
        elif not isinstance(op, SelectionOp):
            rows = _row_norms(op, ones[0])
        shape = network.nodes[k].shape
    flat = np.full(sizes[-1], whole) if rows is None else to_numpy(rows).reshape(-1)
    return Segment(nodes, whole, np.minimum(flat, whole), None, inf)


def _written_out(network: Network, source: int, nodes: tuple[int, ...], like: Array) -> Segment:
    """The segment from unit vectors sent through its ops."""
    xp, node = namespace(like), network.nodes[source]
    size = prod(node.shape)
    value = xp.eye(size, dtype=xp.float64, device=like.device).reshape((size, *node.shape))
    bound, relative = value, 0.0
    for k in nodes:
        op = network.nodes[k].op
        assert isinstance(op, AffineOp)
        if not isinstance(op, SelectionOp):
            relative = (relative + op.error_factors(value)[0]) * UP
        value, bound = op.linear(value), op.magnitude(bound)
    matrix, sizes = (np.ascontiguousarray(to_numpy(v).reshape(size, -1).T) for v in (value, bound))
    relative = relative / (1 - relative) if relative < 0.5 else inf
    error = float(euclidean(sizes.reshape(-1))) * relative * UP if relative else 0.0
    rows = euclidean(matrix) + error
    return Segment(nodes, (spectral_norm(matrix) + error) * UP, rows, matrix, error)


def schur_norm(op: AffineOp, one: Array, other: Array) -> float:
    """An upper bound of the spectral norm of an op's matrix, from ones of the shapes of operand and result.

    The root of the largest row sum times the largest column sum of absolute values.

    Raises:
        UnsupportedError: The absolute values are not known.
    """
    xp = namespace(one)
    if isinstance(op, SelectionOp):  # rows have one entry at most, and columns are counted
        return _root_up(float(xp.max(op.adjoint(other)[0])))
    if isinstance(op, WEIGHTED):
        columns = replace(op, weight=abs(op.weight)).adjoint(other)[0]
    elif isinstance(op, WEIGHTLESS):
        columns = abs(op.adjoint(other)[0])
    else:
        raise UnsupportedError(f"no norm is known for {type(op).__name__}")
    factor = (1 + op.weight_error) * inflate(sum(op.terms), DOUBLE)
    return _root_up(float(xp.max(op.magnitude(one)))) * _root_up(float(xp.max(columns))) * factor


def _root_up(number: float) -> float:
    """An upper bound of the root, exact for 0 and 1."""
    return number if number in (0.0, 1.0) else sqrt(number) * (1 + 4 * DOUBLE)


def _row_norms(op: AffineOp, one: Array) -> Array:
    """Upper bounds of the Euclidean norms of the rows of an op's matrix, `(1, *shape)`."""
    xp, factor = namespace(one), (1 + op.weight_error) * inflate(sum(op.terms) + 8, DOUBLE)
    if isinstance(op, WEIGHTLESS):
        return xp.sqrt(op.abs_linear(one)) * factor
    if not isinstance(op, WEIGHTED):
        raise UnsupportedError(f"no norm is known for {type(op).__name__}")
    weight = abs(op.weight)
    largest = float(weight.max())
    weight = weight / largest if 0 < largest < inf else weight  # squares would overflow and underflow
    squares = replace(op, weight=weight * weight).abs_linear(one)
    return (xp.sqrt(squares) + sqrt(tiny(one))) * (largest * factor)


def to_numpy(array: Array) -> np.ndarray:
    """A NumPy copy or view of an array on any device."""
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()


@dataclass(frozen=True)
class Track:
    """A ReLU's result in one region.

    Attributes:
        jacobian: J `(n, m)`.
        origin: A bound of `|d|`.
        mean: C `(n,)`.
        root: The root of E.
        rest: A bound of `|C r|`.
        swing: A bound of `|E^(1/2) (z - m)|`.
    """

    jacobian: np.ndarray
    origin: float
    mean: np.ndarray
    root: np.ndarray
    rest: float
    swing: float


@dataclass(frozen=True)
class Entry:
    """How far the operand of a ReLU is from its reference in one region, `J d + r` with `|d| <= origin`.

    Attributes:
        segment: What leads there.
        track: Of the value before the segment; None: d is that value's own deviation.
        jacobian: J `(n, m)`.
        error: By element, what the reference run rounds `(n,)`.
        noise: All other rounding, in the Euclidean norm.
    """

    segment: Segment
    track: Track | None
    jacobian: np.ndarray
    origin: float
    error: np.ndarray
    noise: float

    def rows(self) -> np.ndarray:
        """By element, `(n,)`."""
        total = euclidean(self.jacobian) * self.origin + self.error + self.noise
        if self.track is not None:
            assert self.segment.matrix is not None
            total = total + euclidean(self.segment.matrix * (self.track.mean > 0)) * self.track.rest
            total = total + euclidean(self.segment.matrix * self.track.root) * self.track.swing
        return total * UP

    def rest(self, mask: np.ndarray) -> float:
        """Of `|mask r|`, masks being in [0, 1]."""
        total = float(euclidean(mask * self.error)) + self.noise
        if self.track is not None:
            rest, swing = self.track.rest, self.track.swing
            sharp = rest > swing * 2.0**-20  # else it is rounding alone
            total += rest * (self._norm(mask, 1.0 * (self.track.mean > 0)) if sharp else self.segment.whole)
            total += swing * self._norm(mask, self.track.root)
        return total * UP

    def reach(self, mask: np.ndarray) -> float:
        """Of `|mask (z - m)|`."""
        return (product_norm(mask, self.jacobian, None) * self.origin + self.rest(mask)) * UP

    def _norm(self, mask: np.ndarray, columns: np.ndarray) -> float:
        assert self.segment.matrix is not None
        return product_norm(mask, self.segment.matrix, columns)

    def passed(self, low: np.ndarray, high: np.ndarray, centre: np.ndarray) -> Track:
        """The track of the ReLU's result, deviations of the operand being in `[low, high]`."""
        mean, root = _secants(centre, low, high)
        return Track(self.jacobian, self.origin, mean, root, self.rest(mean), self.reach(root))


def enter(track: Track | None, segment: Segment, radius: float, error: np.ndarray) -> Entry | None:
    """Follows a segment from a value within `radius` of its reference; None if its matrix is too large."""
    matrix = segment.matrix
    if matrix is None or min(matrix.shape) > WIDEST_TRACKED:
        return None
    if track is None or len(matrix) * track.jacobian.shape[1] > MOST_ENTRIES:
        return Entry(segment, None, matrix, radius, error, segment.error * radius * UP)
    inner = track.mean[:, None] * track.jacobian
    size = float(euclidean(matrix.reshape(-1))) * float(euclidean(inner.reshape(-1)))
    noise = (size * gamma(len(inner) + 4, DOUBLE) + tiny(matrix)) * track.origin + segment.error * radius
    return Entry(segment, track, matrix @ inner, track.origin, error, noise * UP)


def _secants(centre: np.ndarray, low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The mean C of the slopes of secants of ReLUs through their references, and the root of E."""
    active, down, up = centre >= 0, 1 - 8 * DOUBLE, 1 + 8 * DOUBLE
    below = active & (low < -centre)  # the kink is on the lower side
    least = np.maximum(centre / np.where(below, -low, 1.0) * down - tiny(centre), 0.0)
    least = np.where(below, least, np.where(active, 1.0, 0.0))
    above = ~active & (high > -centre)
    most = (centre + high) / np.where(above, high, 1.0) * up + 2.0 * tiny(centre)
    most = np.where(above & (most < 1.0), most, np.where(active | above, 1.0, 0.0))
    mean = 0.5 * (least + most)
    spread = np.where(least == most, 0.0, round_up(np.maximum(most - mean, mean - least)))
    return mean, np.sqrt(spread) * (1 + 4 * DOUBLE)


def product_norm(rows: np.ndarray, matrix: np.ndarray, columns: np.ndarray | None) -> float:
    """An upper bound of the spectral norm of `diag(rows) matrix diag(columns)`, factors not negative."""
    keep = rows > 0
    part = matrix[keep] * rows[keep, None]
    part = part if columns is None else part[:, columns > 0] * columns[columns > 0]
    if not part.size:
        return 0.0
    return (spectral_norm(part) + float(euclidean(part.reshape(-1))) * (4 * DOUBLE)) * UP


@np.errstate(over="ignore", invalid="ignore", under="ignore")
def spectral_norm(matrix: np.ndarray) -> float:
    """An upper bound of the spectral norm of a float64 matrix, sharp to some 1e-10 where all goes well.

    Method: with the Gram matrix G, `v' G v <= top v'v - v' A v` for `A = top I - G`; A is at least minus
    the norm of `A - L L'` whatever L is, and L is a Cholesky factor from LAPACK. (Rump 2006, "Verification
    of positive definiteness", BIT 46, with the residual computed in place of its a-priori bound.)
    """
    frobenius = float(euclidean(matrix.reshape(-1)))
    if frobenius == 0 or not frobenius < inf:
        return frobenius
    exponent = int(np.frexp(frobenius)[1])
    scaled = np.ldexp(matrix, -exponent)  # exact but for underflow far below `margin`
    scaled = scaled.T if scaled.shape[0] > scaled.shape[1] else scaled
    gram = scaled @ scaled.T
    margin = gamma(scaled.shape[1] + 8, DOUBLE) + tiny(matrix)  # the scaled Frobenius norm is at most 1
    best = _largest_eigenvalue(gram)
    return min(frobenius, float(np.ldexp(sqrt(best + margin) * (1 + 8 * DOUBLE), exponent)))


def _largest_eigenvalue(gram: np.ndarray) -> float:
    """An upper bound of `v' G v` over all v of length 1."""
    try:
        top = float(np.linalg.eigvalsh(gram)[-1])
    except np.linalg.LinAlgError:
        return inf
    for excess in EXCESSES:
        raised = top * (1 + excess)
        rest = -gram
        np.fill_diagonal(rest, raised - gram.diagonal())
        try:
            factor = np.linalg.cholesky(rest)
        except np.linalg.LinAlgError:
            continue
        residual = float(euclidean((rest - factor @ factor.T).reshape(-1)))
        size = float(euclidean(factor.reshape(-1))) ** 2 + float(abs(rest).max())
        bound = raised + (residual + size * gamma(len(gram) + 8, DOUBLE)) * SUM_INFLATION
        return bound if bound == bound else inf
    return inf
