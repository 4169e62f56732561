"""Boxes and rounding: every unit roundoff, error factor and outward step of the program lives here.

The rounding model is IEEE 754, round to nearest, sums and products in any order, fused or not:
`|fl(a . w) - a . w| <= gamma(n) |a| . |w|` with `gamma(n) = n u / (1 - n u)` (Higham 2002, section 3.1),
plus `tiny` for underflow. It excludes Winograd and Strassen products.

Arrays may be NumPy or torch; results are of the kind of their arguments.
"""

from dataclasses import dataclass
from math import prod
from typing import Any, TypeAlias

import numpy as np

from lpverify.errors import InternalError

Array: TypeAlias = Any  # numpy.ndarray or torch.Tensor of any shape


def namespace(array: Array) -> Any:
    """Returns the array-API namespace of a NumPy or torch array."""
    if isinstance(array, (np.ndarray, np.generic)):
        return np
    import array_api_compat  # noqa: PLC0415  (torch side only: keeps the start-up small)

    return array_api_compat.array_namespace(array)


def positive_part(array: Array) -> Array:
    """`max(x, 0)` elementwise; NaN stays NaN."""
    return np.maximum(array, 0) if isinstance(array, np.ndarray) else array.clamp(min=0)


def negative_part(array: Array) -> Array:
    """`min(x, 0)` elementwise; NaN stays NaN."""
    return np.minimum(array, 0) if isinstance(array, np.ndarray) else array.clamp(max=0)


def is_double(array: Array) -> bool:
    """True for 64-bit floats."""
    return array.dtype.itemsize == 8


def unit_roundoff(array: Array) -> float:
    """Largest relative error of one operation in the array's type."""
    return 2.0**-53 if is_double(array) else 2.0**-24


def gamma(terms: int, unit: float) -> float:
    """Relative error factor of a sum of `terms` products, any order; inf when it is meaningless."""
    product = (terms + 1) * unit
    return product / (1.0 - product) * (1.0 + 1e-9) if product < 0.5 else float("inf")


def tiny(array: Array) -> float:
    """An absolute error above that of any single underflow, small against every real quantity."""
    return 1e-290 if is_double(array) else 1e-36


def inflate(terms: int, unit: float) -> float:
    """Factor that makes a computed sum of `terms` non-negative products an upper bound of it."""
    return 1.0 + 2.0 * gamma(terms + 4, unit)


def round_down(array: Array) -> Array:
    """Largest float below each element: a lower bound after one rounded operation."""
    xp = namespace(array)
    return xp.nextafter(array, xp.full_like(array, -float("inf")))


def round_up(array: Array) -> Array:
    """Smallest float above each element: an upper bound after one rounded operation."""
    xp = namespace(array)
    return xp.nextafter(array, xp.full_like(array, float("inf")))


def add_down(a: Array, b: Array) -> Array:
    """A lower bound of `a + b`: the sum itself where it is exact, which keeps whole numbers whole."""
    xp, total = namespace(a), a + b
    with np.errstate(invalid="ignore", over="ignore"):
        part = total - a  # TwoSum, Knuth: the rounding error is a float, zero if the sum is exact
        error = (a - (total - part)) + (b - part)
    return xp.where(error == 0, total, round_down(total))


def add_up(a: Array, b: Array) -> Array:
    """An upper bound of `a + b`, exact where the sum is."""
    return -add_down(-a, -b)


def to_double(array: Array) -> Array:
    """The same numbers in float64."""
    return array if is_double(array) else namespace(array).astype(array, namespace(array).float64)


def to_type(array: Array, like: Array) -> Array:
    """Float64 numbers in the type of `like`, to nearest; those that would underflow there become zero."""
    xp = namespace(array)
    array = xp.where(xp.abs(array) < tiny(like), xp.zeros_like(array), array)
    return array if is_double(like) else xp.astype(array, like.dtype)


def to_type_down(array: Array, like: Array) -> Array:
    """Float64 numbers in the type of `like`, rounded towards minus infinity."""
    if is_double(like):
        return array
    xp = namespace(array)
    cast = xp.astype(array, like.dtype)
    return xp.where(xp.astype(cast, xp.float64) > array, round_down(cast), cast)


def to_type_up(array: Array, like: Array) -> Array:
    """Float64 numbers in the type of `like`, rounded towards plus infinity."""
    return -to_type_down(-array, like)


LIBRARY = 2.0**-49  # relative error granted to one float64 library function: 8 ulp, vendors document 1 to 4

BINOMIAL_TAIL = 2.0**-20  # granted to SciPy's incomplete beta function: 2**-38 was seen up to 10**8 trials

NORMAL_TAIL = 2.0**-36  # granted to its normal distribution function: 2**-44 documented, 2**-46 seen

DOUBLE = 2.0**-53  # unit roundoff of float64

SUM_INFLATION = 1.0 + 2.0**-12  # covers the rounding of computed error terms, which are sums by `dot`


BLOCK = 512  # longest float32 sum inside `dot`


def dot(a: Array, v: Array) -> Array:
    """`sum a v` over the value axes of `a` `(B, R, *shape)` and `v` `(B or 1, [1 or R,] *shape)`: `(B, R)`.

    In float64; float32 operands are summed in blocks of at most `BLOCK`, and the blocks in float64.
    """
    xp = namespace(a)
    count, rows = a.shape[0], a.shape[1]
    v = v[:, None] if v.ndim < a.ndim else v
    size = prod(a.shape[2:])
    block = size if is_double(a) else _block(size)
    if v.shape[1] != 1 or block == 1:
        axes = tuple(range(2, a.ndim))
        return xp.sum(a * v, axis=axes, dtype=xp.float64) if axes else xp.astype(a * v, xp.float64)
    left = a.reshape((count, rows, size // block, block))
    right = v.reshape((v.shape[0], size // block, block))
    if xp is np:  # NumPy's batched matrix-vector product is ten times slower than einsum
        parts = np.einsum("brkn,bkn->brk", left, np.broadcast_to(right, (count, *right.shape[1:])))
    else:
        parts = (left.swapaxes(1, 2) @ right[..., None])[..., 0].swapaxes(1, 2)
    return xp.sum(parts, axis=2, dtype=xp.float64)


def _block(size: int) -> int:
    """The largest divisor of a size that is at most BLOCK; 1 when they are all too small to pay."""
    best = max(d for d in range(1, min(size, BLOCK) + 1) if size % d == 0) if size else 1
    return best if best >= 16 else 1


def dot_error(like: Array, terms: int) -> float:
    """`|dot(a, v) - a . v| <= dot_error |a| . |v|`, plus underflow, for arrays of that type."""
    return gamma(terms, 2.0**-53) + (0.0 if is_double(like) else gamma(min(terms, BLOCK) + 1, 2.0**-24))


def smallest(like: Array) -> float:
    """Above the error of one product or sum that underflows in the type of `like`."""
    return 1e-305 if is_double(like) else 2.0**-149


@dataclass(frozen=True, slots=True)
class Box:
    """All points between `lower` and `upper`, elementwise; both `(*shape)`, no NaN, never empty."""

    lower: Array
    upper: Array

    def __post_init__(self) -> None:
        if self.lower.shape != self.upper.shape:
            raise InternalError(f"box ends of shapes {self.lower.shape} and {self.upper.shape}")
        if not bool((self.lower <= self.upper).all()):
            raise InternalError("box is empty or contains NaN")

    @property
    def magnitude(self) -> Array:
        """Largest absolute value in the box, elementwise."""
        xp = namespace(self.lower)
        return xp.maximum(xp.abs(self.lower), xp.abs(self.upper))

    def centre_radius(self) -> tuple[Array, Array]:
        """A point `m` and a radius `r` with `[m - r, m + r]` containing the box, rounding included."""
        xp = namespace(self.lower)
        with np.errstate(invalid="ignore"):
            centre = 0.5 * self.lower + 0.5 * self.upper
        centre = xp.where(xp.isfinite(centre), centre, xp.zeros_like(centre))  # of unbounded boxes
        radius = xp.maximum(self.upper - centre, centre - self.lower)
        return centre, xp.where(radius > 0, round_up(radius), radius)

    def rows(self, index: Any) -> "Box":
        """The boxes of a batch picked by index or mask along the first axis."""
        return Box(self.lower[index], self.upper[index])


def sound_box(lower: Array, upper: Array) -> tuple[Array, Array]:
    """Turns NaN ends into unbounded ones, so that an undefined bound never counts as one."""
    xp = namespace(lower)
    infinity = xp.full_like(lower, float("inf"))
    return xp.where(lower == lower, lower, -infinity), xp.where(upper == upper, upper, infinity)


def intersect(first: Box, lower: Array, upper: Array) -> tuple[Box, Array]:
    """Intersects batched boxes; also returns the batch mask `(B,)` of *proven empty* ones.

    Where an element is empty the first box is kept, so that the result is a valid Box.
    """
    xp = namespace(first.lower)
    low, high = xp.maximum(first.lower, lower), xp.minimum(first.upper, upper)
    empty = low > high
    axes = tuple(range(1, empty.ndim))
    box = Box(xp.where(empty, first.lower, low), xp.where(empty, first.upper, high))
    return box, xp.any(empty, axis=axes) if axes else empty
