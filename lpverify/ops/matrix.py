"""Matrix products by ONNX's rules: MatMul and Gemm, of values and constants."""

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.bilinear import MatMulValues
from lpverify.ops.linear import (
    Combine,
    Linear,
    MatMulConstant,
    dense_or_sparse,
    multiply_constant,
    scaled,
    shift,
)
from lpverify.ops.shape import Transpose, broadcast_to, reshape_to


def multiply_matrix(value: int, constant: Constant, left: bool, graph: GraphBuilder) -> int:
    """`constant @ value` with `left`, else `value @ constant`, by ONNX's rule for vectors and stacks."""
    if not left and constant.array.ndim == 2:
        graph.reserve(*graph.shape(value)[:-1], constant.array.shape[1])
        return graph.add(dense_or_sparse(constant.array.T, None, constant.error), [value])
    return _stacked(value, constant, left, graph)


def _stacked(value: int, constant: Constant, left: bool, graph: GraphBuilder) -> int:
    weight = np.asarray(constant.array, np.float64)
    shape = graph.shape(value)
    if len(shape) == 1:
        return _vector_product(value, constant, left, graph)
    if weight.ndim == 1:  # ONNX: a vector is a row (left) or a column (right), then dropped
        weight = weight[None, :] if left else weight[:, None]
        op = MatMulConstant(weight, left, shape, constant.error)
        result = graph.add(op, [value])
        squeezed = list(graph.shape(result))
        del squeezed[-2 if left else -1]
        return reshape_to(result, squeezed, graph)
    lead = np.broadcast_shapes(shape[:-2], weight.shape[:-2])
    value = broadcast_to(value, (*lead, *shape[-2:]), graph)
    return graph.add(MatMulConstant(weight, left, graph.shape(value), constant.error), [value])


def _vector_product(value: int, constant: Constant, left: bool, graph: GraphBuilder) -> int:
    """A one-dimensional value times a constant vector or matrix."""
    weight = np.asarray(constant.array, np.float64)
    if weight.ndim == 1:
        total = graph.add(Linear(weight[None, :], None, constant.error), [value])
        return reshape_to(total, (), graph)
    if weight.ndim > 2:
        raise UnsupportedError("a vector times a stack of matrices")
    return graph.add(dense_or_sparse(weight if left else weight.T, None, constant.error), [value])


def matrix_product(first: int, second: int, graph: GraphBuilder) -> int:
    """`X Y` by ONNX's rule: a vector is a row (left) or a column (right), which is then dropped."""
    shapes = graph.shape(first), graph.shape(second)
    if not all(shapes):
        raise UnsupportedError("a matrix product of a scalar")
    graph.reserve(*np.broadcast_shapes(shapes[0][:-2], shapes[1][:-2]), *shapes[0][-2:-1], shapes[1][-1])
    vectors = len(shapes[0]) == 1, len(shapes[1]) == 1
    first = reshape_to(first, (1, *shapes[0]), graph) if vectors[0] else first
    second = reshape_to(second, (*shapes[1], 1), graph) if vectors[1] else second
    left, right = graph.shape(first), graph.shape(second)
    if left[-1] != right[-2]:
        raise ValueError(f"inner sizes {left[-1]} and {right[-2]}")
    lead = np.broadcast_shapes(left[:-2], right[:-2])
    first = broadcast_to(first, (*lead, *left[-2:]), graph)
    second = broadcast_to(second, (*lead, *right[-2:]), graph)
    result = graph.add(MatMulValues((left[-2], left[-1], right[-1])), [first, second])
    shape = [*lead, *([] if vectors[0] else [left[-2]]), *([] if vectors[1] else [right[-1]])]
    return reshape_to(result, shape, graph)


def multiplied(first: Constant | int, second: Constant | int, graph: GraphBuilder) -> int:
    """`first @ second` by ONNX's rule, one of them a value at least."""
    if isinstance(second, Constant):
        if isinstance(first, Constant):
            raise UnsupportedError("a product of constants")
        return multiply_matrix(first, second, False, graph)
    if isinstance(first, Constant):
        return multiply_matrix(second, first, True, graph)
    return matrix_product(first, second, graph)


@importer("MatMul", 1, 9, 13, whole=True)
def matmul(node: OnnxNode, graph: GraphBuilder) -> int:
    """Product of two matrices or stacks of them."""
    first, second = (o if isinstance(o, Constant) else node.value(i) for i, o in enumerate(node.operands))
    return multiplied(first, second, graph)


@importer("Gemm", 7, 9, 11, 13, whole=True)
def gemm(node: OnnxNode, graph: GraphBuilder) -> int:
    """`alpha A' B' + beta C`."""
    beta, c = node.attribute("beta", 1.0), node.operand(2)
    if node.whole() and not float(beta * node.attribute("alpha", 1.0)).is_integer():
        raise UnsupportedError("fractions of whole numbers are rounded")
    value = _gemm_product(node, graph)
    if c is None or beta == 0.0:
        return value
    if isinstance(c, Constant):
        offset = scaled(c, beta)
        if np.broadcast_shapes(offset.array.shape, graph.shape(value)) != graph.shape(value):
            raise ValueError("C does not broadcast to the product")
        return graph.add(shift(offset.array, offset.error), [value])
    term = c if beta == 1.0 else multiply_constant(c, Constant(np.asarray(beta)), graph)
    return graph.add(Combine((1, 1)), [value, broadcast_to(term, graph.shape(value), graph)])


def _gemm_product(node: OnnxNode, graph: GraphBuilder) -> int:
    """`alpha A' B'`."""
    alpha, turn = node.attribute("alpha", 1.0), [node.attribute("transA", 0), node.attribute("transB", 0)]
    values = [
        _turned(o, turn[i], graph) if isinstance(o, int) else None for i, o in enumerate(node.operands[:2])
    ]
    if values[0] is not None and values[1] is not None:
        result = matrix_product(values[0], values[1], graph)
        return result if alpha == 1.0 else multiply_constant(result, Constant(np.asarray(alpha)), graph)
    left = values[0] is None
    value, constant = values[int(left)], scaled(node.constant(int(not left)), alpha)
    if value is None:
        raise UnsupportedError("a product of constants with a computed summand")
    weight = constant.array.T if turn[not left] else constant.array
    if left:
        return graph.add(MatMulConstant(weight, True, graph.shape(value), constant.error), [value])
    return graph.add(dense_or_sparse(weight.T, None, constant.error), [value])


def _turned(value: int, turn: int, graph: GraphBuilder) -> int:
    return graph.add(Transpose((1, 0)), [value]) if turn else value
