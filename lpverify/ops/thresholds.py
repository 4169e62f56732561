"""Rectifiers that jump: sums of continuous ones and of steps.

ThresholdedRelu(x) = relu(x - a) + a [x > a]
Shrink(x) = relu(x - l) - relu(-x - l) + (l - b) ([x > l] - [-x > l])
"""

from collections.abc import Sequence

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.linear import ROUNDING, Combine, multiply_constant, shift
from lpverify.ops.piecewise import Relu
from lpverify.ops.steps import Heaviside


def _number(node: OnnxNode, name: str, default: float) -> float:
    return float(np.float32(node.attribute(name, default)))


def _excess(value: int, limit: float, sign: int, graph: GraphBuilder) -> int:
    """`sign * x - limit`."""
    return graph.add(shift(np.asarray(-limit), 0.0, sign), [value])


def _rectified(excess: int, graph: GraphBuilder) -> int:
    return graph.add(Relu(), [excess])


def _positive(excess: int, graph: GraphBuilder) -> int:
    """1 where a value is positive, else 0."""
    return graph.add(Heaviside(closed=False), [excess])


def _with_jump(terms: Sequence[int], steps: Sequence[int], height: Constant, graph: GraphBuilder) -> int:
    """The first of two terms minus the second, plus `height` times the same of steps."""
    signs = (1, -1)[: len(terms)]
    value = graph.add(Combine(signs), list(terms)) if len(terms) > 1 else terms[0]
    jump = graph.add(Combine(signs), list(steps)) if len(steps) > 1 else steps[0]
    return graph.add(Combine((1, 1)), [value, multiply_constant(jump, height, graph)])


@importer("ThresholdedRelu", 10, 22)
def thresholded_relu(node: OnnxNode, graph: GraphBuilder) -> int:
    """The value above `alpha`, else 0."""
    limit = _number(node, "alpha", 1.0)
    excess = _excess(node.value(), limit, 1, graph)
    if limit == 0:
        return _rectified(excess, graph)
    height = Constant(np.asarray(limit))
    return _with_jump([_rectified(excess, graph)], [_positive(excess, graph)], height, graph)


@importer("Shrink", 9)
def shrink(node: OnnxNode, graph: GraphBuilder) -> int:
    """Values nearer than `lambd` to 0 become 0, others are moved to it by `bias`."""
    limit, bias = _number(node, "lambd", 0.5), _number(node, "bias", 0.0)
    if not limit >= 0:
        raise UnsupportedError("lambd must not be negative")
    excesses = [_excess(node.value(), limit, sign, graph) for sign in (1, -1)]
    terms = [_rectified(e, graph) for e in excesses]
    if limit == bias:
        return graph.add(Combine((1, -1)), terms)
    height = Constant(np.asarray(limit - bias), ROUNDING)
    return _with_jump(terms, [_positive(e, graph) for e in excesses], height, graph)
