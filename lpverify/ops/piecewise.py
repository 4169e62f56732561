"""Relu, and the piecewise-linear ops that are sums of Relu and affine ops.

One nonlinearity means that splits, linear bounds and certificates know one rule. The rewritings are
equalities over the reals:

    LeakyRelu(x) = a x + (1 - a) relu(x)        Abs(x) = 2 relu(x) - x
    Clip(x, l, h) = l + relu(x - l) - relu(x - h)   max(p, q) = q + relu(p - q)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import Array, Box, namespace, positive_part, round_up, tiny, unit_roundoff
from lpverify.ops.base import Constant, ElementwiseOp, GraphBuilder, Lines, OnnxNode, importer
from lpverify.ops.bilinear import product
from lpverify.ops.linear import ROUNDING, Combine, align, multiply_constant, shift
from lpverify.ops.shape import operand_value


@dataclass(frozen=True)
class Relu(ElementwiseOp):
    """`max(x, 0)`."""

    piecewise_linear: ClassVar[bool] = True
    mixes: ClassVar[tuple[float, ...]] = (0.0, 1.0)

    def forward(self, *xs: Array) -> Array:
        return positive_part(xs[0])

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        box = boxes[0]
        return self.forward(box.lower), self.forward(box.upper)

    def derivative(self, x: Array) -> Array:
        xp = namespace(x)
        return xp.where(x > 0, xp.ones_like(x), xp.zeros_like(x))

    def unstable(self, box: Box) -> Array:
        return (box.lower < 0) & (box.upper > 0)

    def split_points(self, low: np.ndarray, high: np.ndarray) -> list[np.ndarray]:
        """The kink."""
        return [np.zeros_like(low)]

    def relax(self, box: Box, alpha: Array | None) -> Lines:
        """Triangle: the chord above, `alpha x` below (Zhang et al. 2018, arXiv:1811.00866, section 3.3)."""
        low, high = box.lower, box.upper
        xp = namespace(low)
        zero, one = xp.zeros_like(low), xp.ones_like(low)
        unstable = self.unstable(box)
        width = xp.where(unstable, high - low, one)
        active = xp.where(low >= 0, one, zero)
        slope = xp.where(unstable, xp.minimum(high / width, one), active)
        # The chord with a rounded slope is above relu if it is so at both ends, 0 at low, high at high.
        # Where 1 - slope is not exact, it is above 1/2: nothing cancels.
        lift = xp.maximum(-slope * low, (1 - slope) * high)
        lift = round_up(lift * (1 + 4 * unit_roundoff(lift)) + 2 * tiny(lift))
        mixed = xp.where(high > -low, one, zero) if alpha is None else alpha
        return Lines(xp.where(unstable, mixed, active), None, slope, xp.where(unstable, lift, zero))


@importer("Relu", 6, 13, 14, whole=True)
def relu(node: OnnxNode, graph: GraphBuilder) -> int:
    """Rectifier."""
    return graph.add(Relu(), [node.value()])


@importer("LeakyRelu", 6, 16)
def leaky_relu(node: OnnxNode, graph: GraphBuilder) -> int:
    """`a x + (1 - a) relu(x)`."""
    slope = np.asarray(float(np.float32(node.attribute("alpha", 0.01))))
    value = node.value()
    rectified = graph.add(Relu(), [value])
    rest = multiply_constant(rectified, Constant(1.0 - slope, ROUNDING), graph)
    return graph.add(Combine((1, 1)), [multiply_constant(value, Constant(slope), graph), rest])


@importer("Abs", 6, 13, whole=True)
def absolute(node: OnnxNode, graph: GraphBuilder) -> int:
    """`2 relu(x) - x`."""
    value = node.value()
    twice = multiply_constant(graph.add(Relu(), [value]), Constant(np.asarray(2.0)), graph)
    return graph.add(Combine((1, -1)), [twice, value])


def clip_value(value: int, low: Constant | None, high: Constant | None, graph: GraphBuilder) -> int:
    """`min(max(x, low), high)`; ends are scalars or broadcast."""
    for end, sign in ((low, 1), (high, -1)):
        if end is None:
            continue
        array = np.asarray(end.array, np.float64)
        distance = graph.add(shift(-sign * array, end.error, sign), [value])  # sign * (x - end)
        rectified = graph.add(Relu(), [distance])
        value = graph.add(shift(array, end.error, sign), [rectified])  # end + sign * relu
    return value


@importer("Clip", 6, 11, 12, 13, whole=True)
def clip(node: OnnxNode, graph: GraphBuilder) -> int:
    """Clamp between constants, given as attributes or inputs."""
    if any(isinstance(o, Constant) and o.array.size != 1 for o in node.operands[1:]):
        raise UnsupportedError("an end that is no scalar")
    ends: list[Constant | None] = []
    for index, name, sign in ((1, "min", -1), (2, "max", 1)):
        end, number = node.optional(index), node.attribute(name)
        end = Constant(np.asarray(number, np.float32)) if end is None and number is not None else end
        if end is not None and _is_last(end.array, sign):
            end = None  # no element is beyond it
        ends.append(end)
    return clip_value(node.value(), ends[0], ends[1], graph)


def _is_last(end: np.ndarray, sign: int) -> bool:
    """Whether all are the largest or, with sign -1, the smallest number of their type."""
    if end.dtype.kind in "iu":
        span = np.iinfo(end.dtype)
        return bool((end == (span.max if sign > 0 else span.min)).all())
    limit = np.finfo(end.dtype).max if end.dtype.kind == "f" else np.inf
    return bool((sign * end.astype(np.float64) >= float(limit)).all())


def maximum(values: Sequence[int], graph: GraphBuilder) -> int:
    """Elementwise maximum of values of one shape, as a balanced tree."""
    level = list(values)
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [_maximum2(p, q, graph) for p, q in pairs] + ([level[-1]] if len(level) % 2 else [])
    return level[0]


def _maximum2(p: int, q: int, graph: GraphBuilder) -> int:
    if p == q:
        return p
    excess = graph.add(Relu(), [graph.add(Combine((1, -1)), [p, q])])
    return graph.add(Combine((1, 1)), [q, excess])


def _extreme(node: OnnxNode, graph: GraphBuilder, sign: int) -> int:
    values = []
    for operand, shape in zip(node.operands, node.shapes, strict=True):
        if operand is None:
            raise UnsupportedError("an operand is missing")
        value = graph.constant(operand, shape) if isinstance(operand, Constant) else operand
        values.append(value if sign > 0 else graph.add(Combine((-1,)), [value]))
    shape = np.broadcast_shapes(*node.shapes)
    result = maximum([align(v, shape, graph) for v in values], graph)
    return result if sign > 0 else graph.add(Combine((-1,)), [result])


@importer("Max", 6, 8, 12, 13, whole=True)
def max_(node: OnnxNode, graph: GraphBuilder) -> int:
    """Elementwise maximum of any number of operands."""
    return _extreme(node, graph, 1)


@importer("Min", 6, 8, 12, 13, whole=True)
def min_(node: OnnxNode, graph: GraphBuilder) -> int:
    """`-max(-x, ...)`."""
    return _extreme(node, graph, -1)


@importer("PRelu", 7, 9, 16)
def prelu(node: OnnxNode, graph: GraphBuilder) -> int:
    """`s x + (1 - s) relu(x)`, or `relu(x) - s relu(-x)` with slopes that are not exact constants."""
    slope = node.operand(1)
    value = align(operand_value(node, 0, graph), node.shapes[1], graph)
    rectified = graph.add(Relu(), [value])
    if isinstance(slope, Constant) and not slope.error:
        rest = Constant(1.0 - np.asarray(slope.array, np.float64), ROUNDING)
        terms = [multiply_constant(value, slope, graph), multiply_constant(rectified, rest, graph)]
        return graph.add(Combine((1, 1)), terms)
    below = graph.add(Relu(), [graph.add(Combine((-1,)), [value])])
    below = product(below, operand_value(node, 1, graph), graph)
    return graph.add(Combine((1, -1)), [rectified, below])
