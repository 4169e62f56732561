"""What an operator is: the classes every op derives from, and the registry they are found by.

Values are arrays `(N, *shape)`: one leading batch axis before the ONNX shape. Linear coefficients on a
value have the value's shape behind leading axes `(batch, rows)`; the walkers in `bounds` flatten these
to one axis before they call an op. Ops hold weights, never bounds.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any, ClassVar, TypeVar

import numpy as np

from lpverify.errors import InternalError, UnsupportedError
from lpverify.interval import (
    Array,
    Box,
    gamma,
    inflate,
    namespace,
    sound_box,
    tiny,
    unit_roundoff,
)
from lpverify.ops.node import Constant as Constant
from lpverify.ops.node import GraphBuilder as GraphBuilder
from lpverify.ops.node import OnnxNode as OnnxNode
from lpverify.ops.node import is_whole as is_whole


class Op(ABC):
    """One operator. Abstract here, final in its file; a frozen dataclass whose fields are its weights."""

    @abstractmethod
    def forward(self, *xs: Array) -> Array:
        """Evaluates on `(N, *shape)` arrays; plain floating point, no guarantee."""

    @abstractmethod
    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """Lower and upper ends containing every value over the boxes, rounding covered."""

    @abstractmethod
    def vjp(self, gradient: Array, xs: Sequence[Array]) -> tuple[Array, ...]:
        """Gradients `(N, *input shape)` from one at the output; a proposal only (attacks)."""

    def convert(self, function: Callable[[np.ndarray], Array]) -> "Op":
        """The same op with every weight array passed through `function`."""
        changes = {f.name: _convert(getattr(self, f.name), function) for f in fields(self)}  # type: ignore[arg-type]
        return replace(self, **changes) if changes else self  # type: ignore[type-var]


def _convert(value: Any, function: Callable[[np.ndarray], Array]) -> Any:
    return function(value) if isinstance(value, np.ndarray) and value.dtype.kind == "f" else value


@dataclass(frozen=True, slots=True)
class Lines:
    """Two lines a neuron on a box: `slope * x + intercept`, each array `(B, *shape)`.

    The lower line is below the function on the whole box and the upper one above it, in exact arithmetic.
    """

    lower_slope: Array
    lower_intercept: Array | None  # None: zero, and no upper intercept is negative
    upper_slope: Array
    upper_intercept: Array


@dataclass(frozen=True, slots=True)
class Planes:
    """Two planes an element on a box: `first . x + second . y + intercept`, arrays with a leading batch axis.

    The lower plane is below the function on the whole box and the upper one above it, in exact arithmetic.
    How the coefficients meet the operands (elementwise or as in a matrix product) is the op's matter.
    """

    lower_first: Array
    lower_second: Array
    lower_intercept: Array
    upper_first: Array
    upper_second: Array
    upper_intercept: Array


class AffineOp(Op):
    """`y = W x_1 + ... + offset`. Weights may carry a relative error against the exact ones.

    Attributes:
        weight_error: `|W - exact W| <= weight_error * |W|`, elementwise.
        offset_error: The same for the offset, absolute, broadcastable to the output shape, or None.
    """

    weight_error: float = 0.0
    offset_error: Array | None = None
    offset: Array | None = None

    @abstractmethod
    def linear(self, *xs: Array) -> Array:
        """`W x`, without the offset."""

    @abstractmethod
    def abs_linear(self, *xs: Array) -> Array:
        """`|W| x`."""

    @abstractmethod
    def adjoint(self, a: Array) -> tuple[Array, ...]:
        """`a W` for coefficients `(N, *output shape)`: one array `(N, *shape)` for each input."""

    @property
    @abstractmethod
    def terms(self) -> tuple[int, int]:
        """Products summed for one element of `linear` and of `adjoint`; (0, 0) if neither rounds."""

    def work(self, size: int) -> int:
        """Multiplications of `linear` for a result of that many elements, roughly."""
        return size * self.terms[0]

    def forward(self, *xs: Array) -> Array:
        """`W x + offset`."""
        y = self.linear(*xs)
        return y if self.offset is None else y + self.offset

    def vjp(self, gradient: Array, xs: Sequence[Array]) -> tuple[Array, ...]:
        """The adjoint."""
        return self.adjoint(gradient)

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """Centre-radius form with a proven rounding term."""
        middle, radii = zip(*(box.centre_radius() for box in boxes), strict=True)
        xp = namespace(middle[0])
        centre, spread = self.linear(*middle), self.abs_linear(*radii)
        weight, offset, slack = self.error_factors(centre)
        size = self.abs_linear(*(xp.abs(m) for m in middle)) + spread
        if self.offset is not None:
            centre, size = centre + self.offset, size + xp.abs(self.offset)
        unit = unit_roundoff(centre)
        spread = (spread + (weight + 2 * unit) * size + offset) * inflate(self.terms[0], unit) + slack
        return sound_box(centre - spread, centre + spread)

    def magnitude(self, *sizes: Array) -> Array:
        """An upper bound of `|W| size`, rounding covered."""
        total = self.abs_linear(*sizes)
        return total * inflate(self.terms[0], unit_roundoff(total)) + tiny(total)

    def error_factors(self, like: Array, adjoint: bool = False) -> tuple[float, Array, float]:
        """Relative error of one element of the result (or the adjoint), offset error, underflow."""
        terms = self.terms[1] if adjoint else max(self.terms)
        relative = gamma(terms + 3, unit_roundoff(like)) + 2 * self.weight_error
        return relative, 0.0 if self.offset_error is None else self.offset_error, tiny(like)


class SelectionOp(AffineOp):
    """Each output element is one input element or one constant: data movement, never rounded."""

    @property
    def terms(self) -> tuple[int, int]:
        """No sums."""
        return 0, 0

    def abs_linear(self, *xs: Array) -> Array:
        """The weights are 0 and 1."""
        return self.linear(*xs)

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """Exact."""
        return self.forward(*(b.lower for b in boxes)), self.forward(*(b.upper for b in boxes))


class ElementwiseOp(Op):
    """A scalar function applied to every element of one value."""

    piecewise_linear: ClassVar[bool] = False
    mixes: ClassVar[tuple[float, ...]] = (0.0, 0.5, 1.0)  # of the lines that a linear program gets

    @abstractmethod
    def relax(self, box: Box, alpha: Array | None) -> Lines:
        """Lines on the box `(B, *shape)`; `alpha` in [0, 1] moves the lower line, None: adaptive."""

    def family(self, box: Box) -> list[Lines]:
        """Several lines on the box, which hold together in a linear program."""
        return [self.relax(box, namespace(box.lower).full_like(box.lower, mix)) for mix in self.mixes]

    @abstractmethod
    def derivative(self, x: Array) -> Array:
        """The (sub)gradient at `x`."""

    @abstractmethod
    def unstable(self, box: Box) -> Array:
        """Mask of the elements on which the function is not linear over the box."""

    def vjp(self, gradient: Array, xs: Sequence[Array]) -> tuple[Array, ...]:
        """Chain rule."""
        return (gradient * self.derivative(xs[0]),)

    def split_points(self, low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
        """Points at which to split boxes, inside of them where possible, the most natural ones first."""
        return [0.5 * low + 0.5 * high]

    def first_alpha(self, lines: Lines) -> Array:
        """The mix that adaptive lines have."""
        return namespace(lines.lower_slope).clip(lines.lower_slope, 0.0, 1.0)

    def alpha_gradient(self, box: Box, alpha: Array, x: Array) -> Array:
        """Derivative of the lower line's value at `x` in `alpha`; a proposal only."""
        return x * self.unstable(box)


class BilinearOp(Op):
    """A function of two values, linear in each."""

    @abstractmethod
    def relax(self, first: Box, second: Box, mix: Array | None) -> Planes:
        """Planes on the boxes `(B, *shape)`; `mix` in [0, 1] moves both planes, None: adaptive."""

    @abstractmethod
    def substitute(self, a: Array, planes: Planes) -> tuple[Array, Array]:
        """Coefficients on the operands from those on the result `(B, R, *shape)`, planes `(B, *shape)`.

        Positive ones take the lower plane, negative ones the upper plane.
        """

    @abstractmethod
    def magnitude(self, first: Array, second: Array) -> Array:
        """An upper bound of the sum of `|x| |y|` over the products in each element."""

    @property
    @abstractmethod
    def terms(self) -> int:
        """Products summed for one element of `forward` or `substitute`, at most."""


class IntervalOp(Op):
    """A function that is known by its interval alone; backward passes end there."""

    def vjp(self, gradient: Array, xs: Sequence[Array]) -> tuple[Array, ...]:
        """No slope is known."""
        return tuple(namespace(x).zeros_like(x) for x in xs)


Importer = Callable[[OnnxNode, GraphBuilder], "int | Sequence[int]"]
ImporterT = TypeVar("ImporterT", bound=Importer)


@dataclass(frozen=True)
class Registry:
    """Importers by (domain, op, schema version).

    Attributes:
        table: The importers.
        whole: (domain, op) of those that are right for whole numbers too, overflow apart.
    """

    table: dict[tuple[str, str, int], Importer] = field(default_factory=dict)
    whole: set[tuple[str, str]] = field(default_factory=set)

    def add(
        self, op_type: str, versions: Sequence[int], importer: Importer, domain: str, whole: bool
    ) -> None:
        """Registers; the same key twice is an error."""
        if whole:
            self.whole.add((domain, op_type))
        for version in versions:
            key = (domain, op_type, version)
            if key in self.table:
                raise InternalError(f"{op_type} version {version} is registered twice")
            self.table[key] = importer

    def find(self, domain: str, op_type: str, version: int) -> Importer:
        """The importer for a schema version.

        Raises:
            UnsupportedError: There is none; names the versions there are.
        """
        importer = self.table.get((domain, op_type, version))
        if importer is None:
            known = sorted(v for d, o, v in self.table if (d, o) == (domain, op_type))
            hint = f"version {version} is not supported, only {known}" if known else "not supported"
            raise UnsupportedError(hint)
        return importer

    def operators(self) -> Iterator[tuple[str, list[int]]]:
        """Op names with their versions, sorted."""
        for name in sorted({o for _, o, _ in self.table}):
            yield name, sorted(v for _, o, v in self.table if o == name)


REGISTRY = Registry()
RATIONAL_COST = 256  # array elements that take as long to compute as one number in rationals


def importer(
    op_type: str, *versions: int, domain: str = "", whole: bool = False
) -> Callable[[ImporterT], ImporterT]:
    """Decorator: registers a function `(node, graph) -> values` for the schema versions of an ONNX op.

    `whole`: what it adds is right for operands of whole numbers and truth values (0 and 1) as well;
    that results stay in the range of their type is checked apart.
    """

    def decorate(function: ImporterT) -> ImporterT:
        REGISTRY.add(op_type, versions, function, domain, whole)
        return function

    return decorate
