"""Changes of resolution.

Resizing is done axis by axis: a choice of elements, or a product with a small matrix of exact rationals, each
rounded once. Nodes whose choice depends on how coordinates are rounded are refused: implementations disagree.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import ceil, floor
from typing import Any

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import Array, namespace
from lpverify.ops.base import RATIONAL_COST, AffineOp, Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.linear import ROUNDING, Scale
from lpverify.ops.node import normal_axis
from lpverify.ops.shape import Gather


@dataclass(frozen=True)
class AxisMap(AffineOp):
    """`W x` along one axis; `weight` `(out, in)`, mostly zero.

    Attributes:
        counts: Nonzero entries of a row and of a column, at most.
    """

    weight: Array
    axis: int
    counts: tuple[int, int]
    weight_error: float = 0.0

    def linear(self, *xs: Array) -> Array:
        return self._along(xs[0], self.weight.T)

    def abs_linear(self, *xs: Array) -> Array:
        return self._along(xs[0], namespace(self.weight).abs(self.weight).T)

    def adjoint(self, a: Array) -> tuple[Array, ...]:
        return (self._along(a, self.weight),)

    def _along(self, x: Array, matrix: Array) -> Array:
        xp = namespace(x)
        return xp.moveaxis(xp.moveaxis(x, self.axis + 1, -1) @ matrix, -1, self.axis + 1)

    @property
    def terms(self) -> tuple[int, int]:
        return self.counts


@dataclass(frozen=True)
class _Axis:
    """How one axis is resized; numbers are all `Fraction` or all `numpy.float32`.

    Attributes:
        size: Elements before.
        length: Elements after.
        start: With `end` the region of `tf_crop_and_resize`.
    """

    scale: Any
    size: Any
    length: Any
    start: Any = Fraction(0)
    end: Any = Fraction(1)

    def cast(self, number: Callable[[Any], Any]) -> "_Axis":
        """The same in another type."""
        return _Axis(*(number(v) for v in (self.scale, self.size, self.length, self.start, self.end)))

    def half_pixel(self, x: Any) -> Any:
        """Coordinates of the elements' centres."""
        half = type(x)(0.5)
        return (x + half) / self.scale - half

    def pytorch_half_pixel(self, x: Any) -> Any:
        """The same, but zero for a single element."""
        return self.half_pixel(x) if self.length > 1 else 0 * x

    def half_pixel_symmetric(self, x: Any) -> Any:
        """Centred for lengths that are rounded."""
        return self.size / 2 * (1 - self.length / (self.scale * self.size)) + self.half_pixel(x)

    def tf_half_pixel_for_nn(self, x: Any) -> Any:
        """Centres, not shifted back."""
        return (x + type(x)(0.5)) / self.scale

    def asymmetric(self, x: Any) -> Any:
        """Coordinates of the elements' first corners."""
        return x / self.scale

    def align_corners(self, x: Any) -> Any:
        """The ends on the ends."""
        return x * (self.size - 1) / (self.length - 1) if self.length > 1 else 0 * x

    def tf_crop_and_resize(self, x: Any) -> Any:
        """The ends on the ends of the region."""
        last = self.size - 1
        if self.length > 1:
            return self.start * last + x * (self.end - self.start) * last / (self.length - 1)
        return type(x)(0.5) * (self.start + self.end) * last


_COORDINATES: dict[str, Callable[[_Axis, Any], Any]] = {
    name: function for name, function in vars(_Axis).items() if name[0] != "_" and callable(function)
}
_NEAREST: dict[str, Callable[[Any], int]] = {
    "round_prefer_floor": lambda x: ceil(x - type(x)(0.5)),
    "round_prefer_ceil": lambda x: floor(x + type(x)(0.5)),
    "floor": floor,
    "ceil": ceil,
}


@dataclass(frozen=True)
class _Rule:
    """Attributes of a Resize node."""

    mode: str
    transformation: str
    nearest: str
    cubic: Fraction
    exclude_outside: bool

    def coordinates(self, axis: _Axis) -> list[Fraction]:
        """Where in the value each element of the result lies."""
        return [_COORDINATES[self.transformation](axis, Fraction(i)) for i in range(int(axis.length))]

    def rows(self, axis: _Axis) -> list[dict[int, Fraction]]:
        """The weights of the elements of the value in each element of the result."""
        last = int(axis.size) - 1
        if self.mode == "nearest":
            return [{i: Fraction(1)} for i in self._chosen(axis, last)]
        weights = _linear_weights if self.mode == "linear" else self._cubic_weights
        return [weights(x, last) for x in self.coordinates(axis)]

    def _chosen(self, axis: _Axis, last: int) -> list[int]:
        """Nearest elements, the same in exact and in float32 arithmetic."""
        found = []
        rounded = axis.cast(np.float32)
        plain = Fraction(float(rounded.scale)) == axis.scale and axis.length == axis.scale * axis.size
        wary = self.transformation == "half_pixel_symmetric" and not plain  # many ways to compute it
        around = Fraction(last + 1, 2**20) if wary else Fraction(0)
        for i, x in enumerate(self.coordinates(axis)):
            in_float32 = _COORDINATES[self.transformation](rounded, np.float32(i))
            near = (x - around, x, x + around, in_float32)
            choices = {min(max(_NEAREST[self.nearest](y), 0), last) for y in near}
            if len(choices) > 1:
                raise UnsupportedError("the nearest element depends on the rounding of coordinates")
            found.append(choices.pop())
        return found

    def _cubic_weights(self, x: Fraction, last: int) -> dict[int, Fraction]:
        """Keys 1981, equation 4."""
        a, first = self.cubic, floor(x) - 1
        row: dict[int, Fraction] = {}
        for i in range(first, first + 4):
            d = abs(x - i)
            near = ((a + 2) * d - (a + 3)) * d * d + 1
            weight = near if d <= 1 else ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
            inside = min(max(i, 0), last)
            if inside == i or not self.exclude_outside:
                row[inside] = row.get(inside, Fraction(0)) + weight
        total = sum(row.values())
        return {i: weight / total for i, weight in row.items() if weight}


def _linear_weights(x: Fraction, last: int) -> dict[int, Fraction]:
    x = min(max(x, Fraction(0)), Fraction(last))
    low = floor(x)
    return {i: w for i, w in ((low, 1 - (x - low)), (low + 1, x - low)) if w}


def resample_axis(value: int, axis: int, rows: Sequence[dict[int, Fraction]], graph: GraphBuilder) -> int:
    """Adds the op that makes each element along an axis a weighted sum of the value's."""
    shape = graph.shape(value)
    if all(list(row.values()) == [1] for row in rows):
        chosen = tuple(next(iter(row)) for row in rows)
        same = chosen == tuple(range(shape[axis]))
        return value if same else graph.add(Gather(chosen, axis, shape), [value])
    graph.reserve(len(rows), shape[axis])
    weight = np.zeros((len(rows), shape[axis]))
    exact = True
    for target, row in enumerate(rows):
        for source, number in row.items():
            weight[target, source] = float(number)
            exact = exact and Fraction(float(number)) == number
    counts = tuple(int(np.count_nonzero(weight, axis=k).max()) for k in (1, 0))
    op = AxisMap(weight, axis, (counts[0], counts[1]), 0.0 if exact else ROUNDING)
    return graph.add(op, [value])


def _whole(exact: Fraction, size: int, scale: Fraction) -> int:
    """The floor of a length, if float32 arithmetic has the same."""
    if floor(exact) != int(np.float32(size) * np.float32(scale)):
        raise UnsupportedError("the size of the result depends on rounding")
    return floor(exact)


def _floats(operand: Constant | None) -> list[Fraction] | None:
    """Numbers of an operand; None where it is omitted or empty."""
    if operand is None or operand.array.size == 0:
        return None
    if operand.error:
        raise UnsupportedError("a computed scale is not supported")
    return [Fraction(float(v)) for v in operand.array.reshape(-1)]


def _scaled(shape: tuple[int, ...], scales: Sequence[Fraction]) -> list[_Axis]:
    return [
        _Axis(scale, Fraction(n), Fraction(_whole(n * scale, n, scale)))
        for n, scale in zip(shape, scales, strict=True)
    ]


def _resize(node: OnnxNode, graph: GraphBuilder, rule: _Rule, axes: dict[int, _Axis]) -> int:
    """Resizes along all axes; outside of a cropped region there is `extrapolation_value`."""
    if rule.mode not in ("nearest", "linear", "cubic") or rule.transformation not in _COORDINATES:
        raise UnsupportedError(f"mode={rule.mode} with {rule.transformation} is not supported")
    value = node.value()
    inside = np.ones(graph.shape(value)[:0])
    for k, size in enumerate(graph.shape(value)):
        axis = axes.get(k, _Axis(Fraction(1), Fraction(size), Fraction(size)))
        if axis.length < 1:
            raise UnsupportedError(f"an axis of {axis.length} elements")
        graph.reserve(int(axis.length), RATIONAL_COST)
        if k in axes:
            value = resample_axis(value, k, rule.rows(axis), graph)
        covered = [0 <= x < axis.size - 1 or x == axis.size - 1 for x in rule.coordinates(axis)]
        inside = np.multiply.outer(inside, np.asarray(covered, np.float64))
    if rule.transformation != "tf_crop_and_resize" or inside.all():
        return value
    outside = (1 - inside) * float(np.float32(node.attribute("extrapolation_value", 0.0)))
    return graph.add(Scale(inside, outside), [value])


@importer("Upsample", 7, 9)
def upsample(node: OnnxNode, graph: GraphBuilder) -> int:
    """Resize from the corners of elements, nearest below or linear."""
    scales = _floats(node.optional(1)) or [Fraction(v) for v in node.attribute("scales")]
    mode = node.text("mode", "nearest")
    if mode not in ("nearest", "linear"):
        raise UnsupportedError(f"mode={mode} is not supported")
    rule = _Rule(mode, "asymmetric", "floor", Fraction(0), False)
    return _resize(node, graph, rule, dict(enumerate(_scaled(graph.shape(node.value()), scales))))


@importer("Resize", 10)
def resize10(node: OnnxNode, graph: GraphBuilder) -> int:
    """As Upsample; for a smaller result its nearest element is not defined well enough."""
    scales = _floats(node.constant(1)) or []
    if node.text("mode", "nearest") == "nearest" and min(scales) < 1:
        raise UnsupportedError("the nearest element is not defined for scales below 1")
    return upsample(node, graph)


@importer("Resize", 11, 13, 18, 19)
def resize(node: OnnxNode, graph: GraphBuilder) -> int:
    """Resize by constant scales or to constant sizes; without antialiasing."""
    if node.attribute("antialias", 0):
        raise UnsupportedError("antialias is not supported")
    rule = _Rule(
        node.text("mode", "nearest"),
        node.text("coordinate_transformation_mode", "half_pixel"),
        node.text("nearest_mode", "round_prefer_floor"),
        Fraction(float(np.float32(node.attribute("cubic_coeff_a", -0.75)))),
        bool(node.attribute("exclude_outside", 0)),
    )
    shape = graph.shape(node.value())
    chosen = [normal_axis(a, len(shape)) for a in node.attribute("axes", range(len(shape)))]
    parts = tuple(shape[a] for a in chosen)
    scales = _floats(node.optional(2))
    axes = _fitted(node, parts) if scales is None else _scaled(parts, scales)
    if rule.transformation == "tf_crop_and_resize":
        roi = _floats(node.optional(1)) or []
        if scales is not None:
            raise UnsupportedError("tf_crop_and_resize with scales is not supported")
        ends = zip(axes, roi[: len(parts)], roi[len(parts) :], strict=True)
        axes = [replace(axis, start=start, end=end) for axis, start, end in ends]
        if any(axis.scale == 1 and (axis.start, axis.end) != (0, 1) for axis in axes):
            raise UnsupportedError("a region cropped to its own size is not defined well enough")
    if rule.transformation == "align_corners" and any(a.length != a.size * a.scale for a in axes):
        raise UnsupportedError("align_corners with a fractional size is not defined well enough")
    return _resize(node, graph, rule, dict(zip(chosen, axes, strict=True)))


def _fitted(node: OnnxNode, shape: tuple[int, ...]) -> list[_Axis]:
    """Axes for given sizes, under the policy for the aspect ratio."""
    sizes = [int(n) for n in node.constant(3).array.reshape(-1)]
    policy = node.text("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch" and any(axis < 0 for axis in node.attribute("axes", ())):
        raise UnsupportedError("implementations disagree about negative axes with an aspect ratio to keep")
    if policy not in ("stretch", "not_larger", "not_smaller"):
        raise UnsupportedError(f"keep_aspect_ratio_policy={policy} is not supported")
    ratios = [Fraction(new, n) for new, n in zip(sizes, shape, strict=True)]
    if policy == "stretch":
        return [_Axis(r, Fraction(n), Fraction(new)) for r, n, new in zip(ratios, shape, sizes, strict=True)]
    ratio = min(ratios) if policy == "not_larger" else max(ratios)
    return [_Axis(ratio, Fraction(n), Fraction(floor(ratio * n + Fraction(1, 2)))) for n in shape]
