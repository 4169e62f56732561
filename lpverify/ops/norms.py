"""Norms, pools of norms, and normalisations by them."""

from math import floor, inf

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.bilinear import product
from lpverify.ops.composite import average, minus, plus, total
from lpverify.ops.convolution import ceil_pads, pool_window, window_sum
from lpverify.ops.elementary import InverseSqrt, RealPower, Reciprocal, Sqrt, Square, power
from lpverify.ops.indicators import IsZero, Known
from lpverify.ops.linear import ROUNDING, Combine, multiply_constant
from lpverify.ops.node import normal_axis
from lpverify.ops.piecewise import Relu
from lpverify.ops.resample import AxisMap

MVN_EPSILON = float(np.float32(1e-9))  # of the function that defines MeanVarianceNormalization


def _size(value: int, graph: GraphBuilder) -> int:
    """`|x| = relu(x) + relu(-x)`: intervals of it are not negative, rounding apart."""
    turned = graph.add(Combine((-1,)), [value])
    return graph.add(Combine((1, 1)), [graph.add(Relu(), [v]) for v in (value, turned)])


def _powers(value: int, p: int, graph: GraphBuilder) -> int:
    """`|x|^p`."""
    return power(_size(value, graph) if p % 2 else value, p, graph)


def _root(value: int, p: int, graph: GraphBuilder) -> int:
    """`x^(1 / p)` of a sum of powers, which is not negative."""
    if p == 1:
        return value
    exact = p & (p - 1) == 0
    op = Sqrt() if p == 2 else RealPower(1 / p, 0.0 if exact else ROUNDING)
    return graph.add(op, [graph.add(Known(0.0, inf), [value])])


def _order(node: OnnxNode) -> int:
    p = int(node.attribute("p", 2))
    if p < 1:
        raise UnsupportedError("p must be at least 1")
    return p


@importer("LpPool", 2, 11, 18, 22)
def lp_pool(node: OnnxNode, graph: GraphBuilder) -> int:
    """Norms of windows."""
    p, value = _order(node), node.value()
    size = graph.shape(value)[2:]
    window = ceil_pads(node, pool_window(node, size), size)
    return _root(window_sum(_powers(value, p, graph), window, graph), p, graph)


@importer("GlobalLpPool", 2, 22)
def global_lp_pool(node: OnnxNode, graph: GraphBuilder) -> int:
    """Norms over all spatial axes."""
    p, value = _order(node), node.value()
    axes = range(2, len(graph.shape(value)))
    return _root(total(_powers(value, p, graph), axes, graph), p, graph)


@importer("LpNormalization", 1, 22)
def lp_normalization(node: OnnxNode, graph: GraphBuilder) -> int:
    """The value over its norm along an axis, at most 1; zero where the norm is, to which 1 is added there."""
    p, value = _order(node), node.value()
    if p > 2:
        raise UnsupportedError("only the norms 1 and 2 are supported")
    axis = normal_axis(node.attribute("axis", -1), len(graph.shape(value)))
    powers = total(_powers(value, p, graph), [axis], graph)
    powers = graph.add(Combine((1, 1)), [powers, graph.add(IsZero(), [powers])])
    inverse = graph.add(Reciprocal() if p == 1 else InverseSqrt(), [powers])
    return graph.add(Known(-1.0, 1.0), [product(value, inverse, graph)])


@importer("MeanVarianceNormalization", 9, 13)
def mean_variance_normalization(node: OnnxNode, graph: GraphBuilder) -> int:
    """`(x - mean) / (deviation + 1e-9)`."""
    value = node.value()
    axes = [normal_axis(a, len(graph.shape(value))) for a in node.attribute("axes", (0, 2, 3))]
    rest = minus(value, average(value, axes, graph), graph)
    deviation = graph.add(Sqrt(), [average(graph.add(Square(), [rest]), axes, graph)])
    return product(rest, graph.add(Reciprocal(), [plus(deviation, MVN_EPSILON, graph)]), graph)


@importer("LRN", 1, 13)
def lrn(node: OnnxNode, graph: GraphBuilder) -> int:
    """`x / (bias + alpha / size * sum of squares of near channels)^beta`."""
    alpha, beta, bias = (
        float(np.float32(node.attribute(name, default)))
        for name, default in (("alpha", 1e-4), ("beta", 0.75), ("bias", 1.0))
    )
    value, size = node.value(), node.attribute("size")
    graph.reserve(graph.shape(value)[1], graph.shape(value)[1])
    channels = np.arange(graph.shape(value)[1])
    ahead = channels[None] - channels[:, None]
    near = (ahead >= -floor((size - 1) / 2)) & (ahead <= size - 1 - floor((size - 1) / 2))
    counts = int(near.sum(1).max()), int(near.sum(0).max())
    squares = graph.add(AxisMap(near.astype(np.float64), 1, counts), [graph.add(Square(), [value])])
    share = multiply_constant(squares, Constant(np.asarray(alpha / size), ROUNDING), graph)
    return product(value, power(plus(share, bias, graph), -beta, graph), graph)
