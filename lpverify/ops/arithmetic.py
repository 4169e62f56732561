"""Sums of operands, and batch normalisation: affine maps with constant factors."""

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.linear import ROUNDING, Combine, Scale, align, checked, shift


def _binary(node: OnnxNode, graph: GraphBuilder, sign: int) -> int:
    """`first + sign * second`, either possibly constant."""
    first, second = node.operand(0), node.operand(1)
    if isinstance(first, Constant):
        value = align(node.value(1), first.array.shape, graph)
        return graph.add(shift(np.asarray(first.array, np.float64), first.error, sign), [value])
    if isinstance(second, Constant):
        value = align(node.value(0), second.array.shape, graph)
        return graph.add(shift(sign * np.asarray(second.array, np.float64), second.error), [value])
    one, two = node.value(0), node.value(1)
    one, two = align(one, graph.shape(two), graph), align(two, graph.shape(one), graph)
    return graph.add(Combine((1, sign)), [one, two])


@importer("Add", 7, 13, 14, whole=True)
def add(node: OnnxNode, graph: GraphBuilder) -> int:
    """Sum of two operands."""
    return _binary(node, graph, 1)


@importer("Sub", 7, 13, 14, whole=True)
def sub(node: OnnxNode, graph: GraphBuilder) -> int:
    """Difference of two operands."""
    return _binary(node, graph, -1)


@importer("Sum", 6, 8, 13, whole=True)
def sum_values(node: OnnxNode, graph: GraphBuilder) -> int:
    """Sum of any number of operands."""
    total = None
    for i in range(len(node.operands)):
        operand = node.operand(i)
        term = graph.constant(operand, node.shapes[i]) if isinstance(operand, Constant) else node.value(i)
        if total is None:
            total = term
            continue
        total, term = align(total, graph.shape(term), graph), align(term, graph.shape(total), graph)
        total = graph.add(Combine((1, 1)), [total, term])
    assert total is not None
    return total


@importer("Neg", 1, 6, 13, whole=True)
def neg(node: OnnxNode, graph: GraphBuilder) -> int:
    """Negation."""
    return graph.add(Combine((-1,)), [node.value()])


@importer("BatchNormalization", 7, 9, 14, 15)
def batch_normalization(node: OnnxNode, graph: GraphBuilder) -> int:
    """Inference form: `gamma (x - mean) / sqrt(variance + epsilon) + beta`, one factor a channel."""
    if node.attribute("training_mode", 0) or not node.attribute("spatial", 1):
        raise UnsupportedError("training_mode and spatial=0 are not supported")
    operands = [node.constant(i) for i in range(1, 5)]
    gamma, beta, mean, variance = (np.asarray(c.array, np.float64) for c in operands)
    spread = variance + float(np.float32(node.attribute("epsilon", 1e-5)))
    if any(c.error for c in operands) or not (spread > 0).all():
        raise UnsupportedError("computed operands and variances not above -epsilon are not supported")
    shape = (node.shapes[0][1],) + (1,) * (len(node.shapes[0]) - 2)
    scale = checked(gamma / np.sqrt(spread), gamma == 0)
    offset = beta - mean * scale
    error = (np.abs(mean * scale) * 8 + np.abs(offset) * 2) * 2.0**-53 + 1e-300
    op = Scale(scale.reshape(shape), offset.reshape(shape), 4 * ROUNDING, error.reshape(shape))
    return graph.add(op, [node.value()])
