"""Comparisons, logical connectives and choices. Truth values are the numbers 0 and 1.

With truth values a and b the connectives are piecewise linear:

    a and b = relu(a + b - 1)    a or b = 1 - relu(1 - a - b)    a xor b = |a - b|

and with one of them constant affine. Floats are compared as real numbers.
"""

import numpy as np

from lpverify.ops.arithmetic import add, sub
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.indicators import (
    Undefined,
    choice,
    contrary,
    is_positive,
    is_zero,
    magnitude,
    negative,
    plus,
    rectified,
    truth,
    whole,
)
from lpverify.ops.linear import Scale, align
from lpverify.ops.select import numbered, pick
from lpverify.ops.shape import operand_value


@importer("Greater", 7, 9, 13, whole=True)
def greater(node: OnnxNode, graph: GraphBuilder) -> int:
    """`a > b`."""
    return is_positive(sub(node, graph), False, node.whole(), graph)


@importer("GreaterOrEqual", 12, 16, whole=True)
def greater_or_equal(node: OnnxNode, graph: GraphBuilder) -> int:
    """`a >= b`."""
    return is_positive(sub(node, graph), True, node.whole(), graph)


@importer("Less", 7, 9, 13, whole=True)
def less(node: OnnxNode, graph: GraphBuilder) -> int:
    """`b > a`."""
    return is_positive(negative(sub(node, graph), graph), False, node.whole(), graph)


@importer("LessOrEqual", 12, 16, whole=True)
def less_or_equal(node: OnnxNode, graph: GraphBuilder) -> int:
    """`b >= a`."""
    return is_positive(negative(sub(node, graph), graph), True, node.whole(), graph)


@importer("Equal", 7, 11, 13, 19, whole=True)
def equal(node: OnnxNode, graph: GraphBuilder) -> int:
    """`a = b`; of truth values the contrary of `a xor b`."""
    if node.types[0] == "bool":
        return contrary(xor(node, graph), graph)
    return is_zero(sub(node, graph), node.whole(), graph)


def _with_constant(node: OnnxNode) -> tuple[int, np.ndarray] | None:
    """The computed operand and the constant one, if there is one."""
    for i, operand in enumerate(node.operands):
        if isinstance(operand, Constant):
            return node.value(1 - i), np.asarray(operand.array, np.float64)
    return None


def _affine(value: int, factor: np.ndarray, offset: np.ndarray, graph: GraphBuilder) -> int:
    return truth(graph.add(Scale(factor, offset), [align(value, factor.shape, graph)]), graph)


@importer("And", 7, whole=True)
def and_(node: OnnxNode, graph: GraphBuilder) -> int:
    """1 where both are 1."""
    pair = _with_constant(node)
    if pair is not None:
        return _affine(pair[0], pair[1], np.zeros(()), graph)
    return rectified(whole(plus(add(node, graph), -1, graph), graph), graph)


@importer("Or", 7, whole=True)
def or_(node: OnnxNode, graph: GraphBuilder) -> int:
    """1 where one of them is 1, or both."""
    pair = _with_constant(node)
    if pair is not None:
        return _affine(pair[0], 1 - pair[1], pair[1], graph)
    neither = rectified(whole(plus(add(node, graph), 1, graph, -1), graph), graph)
    return contrary(neither, graph)


@importer("Xor", 7, whole=True)
def xor(node: OnnxNode, graph: GraphBuilder) -> int:
    """1 where they differ."""
    pair = _with_constant(node)
    if pair is not None:
        return _affine(pair[0], 1 - 2 * pair[1], pair[1], graph)
    return truth(magnitude(sub(node, graph), graph), graph)


@importer("Not", 1, whole=True)
def not_(node: OnnxNode, graph: GraphBuilder) -> int:
    """The contrary."""
    return contrary(node.value(), graph)


@importer("IsNaN", 9, 13, 20)
@importer("IsInf", 10, 20)
def is_undefined(node: OnnxNode, graph: GraphBuilder) -> int:
    """False of real numbers."""
    return graph.add(Undefined(), [node.value()])


@importer("Where", 9, 16, whole=True)
def where(node: OnnxNode, graph: GraphBuilder) -> int:
    """One of two operands, by a condition."""
    condition = node.operand(0)
    if isinstance(condition, int):
        first, second = node.operand(1), node.operand(2)
        if first is None or second is None:
            raise ValueError("an operand is missing")
        return choice(condition, first, second, graph)
    parts = [operand_value(node, i, graph) for i in (1, 2)]
    one = numbered(graph.shape(parts[0]))
    two = numbered(graph.shape(parts[1]), one.size)
    return pick(parts, np.where(node.constant(0).array, one, two), graph)
