"""Quantised numbers: whole numbers that stand for `scale (q - zero)`.

Rounding is to the nearest whole number of the exact quotient. An implementation that rounds the quotient
itself may have a neighbour where that is nearly halfway between two.
"""

from dataclasses import dataclass

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.interval import Array, namespace
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.cast import Within
from lpverify.ops.convolution import convolved
from lpverify.ops.grouping import by_number
from lpverify.ops.linear import ROUNDING, align, checked, divide_constant, multiply_constant, shift
from lpverify.ops.matrix import multiplied
from lpverify.ops.node import normal_axis
from lpverify.ops.steps import Round, StepOp

QUANTISED = {kind: Within.RANGES[kind] for kind in ("int8", "uint8", "int16", "uint16")}
VERSIONS = (10, 13, 19, 21, 23, 24, 25, 28)


@dataclass(frozen=True)
class Quantise(StepOp):
    """The nearest whole number, the even one where two are, plus `zero`, and at least and at most an end."""

    zero: float
    least: float
    most: float

    def _moved(self, whole: Array) -> Array:
        return namespace(whole).clip(whole + self.zero, self.least, self.most)

    def forward(self, *xs: Array) -> Array:
        return self._moved(Round().forward(xs[0]))

    def jumps(self, low: Array, high: Array) -> tuple[Array, Array]:
        """Halfway between whole numbers, but not beyond the ends."""
        xp = namespace(low)
        first, last = Round().jumps(low, high)
        start, end = self.least - self.zero + 0.5, self.most - self.zero - 0.5
        return xp.clip(first, start, None), xp.clip(last, None, end)

    def sides(self, point: Array) -> tuple[Array, Array]:
        below, above = Round().sides(point)
        return self._moved(below), self._moved(above)


def granular(parameter: np.ndarray, shape: tuple[int, ...], axis: int, block: int) -> np.ndarray:
    """A scale or zero point for a tensor, an axis or blocks of one, made to broadcast to a shape."""
    if parameter.size == 1:
        return parameter.reshape(())
    axis = normal_axis(axis, len(shape))
    if block:
        parameter = parameter.take(np.arange(shape[axis]) // block, axis)
    elif parameter.ndim == 1:
        parameter = parameter.reshape([-1 if i == axis else 1 for i in range(len(shape))])
    if np.broadcast_shapes(parameter.shape, shape) != shape:
        raise ValueError(f"a parameter of shape {parameter.shape} for {shape}")
    return parameter


def _parameters(node: OnnxNode, graph: GraphBuilder) -> tuple[Constant, np.ndarray]:
    """Scale and zero point of the second and third operand."""
    shape, scale, zero = graph.shape(node.value()), node.constant(1), node.optional(2)
    place = node.attribute("axis", 1), node.attribute("block_size", 0)
    points = np.zeros(()) if zero is None else granular(zero.array, shape, *place)
    return Constant(granular(scale.array, shape, *place), scale.error), points.astype(np.float64)


def _rounded(value: int, zero: np.ndarray, kind: str, graph: GraphBuilder) -> int:
    """To whole numbers of a type."""
    if kind not in QUANTISED:
        raise UnsupportedError(f"quantisation to {kind} is not supported")
    least, most = QUANTISED[kind]

    def quantise(part: int, number: float) -> int:
        return graph.add(Quantise(number, float(least), float(most)), [part])

    return by_number(value, zero, quantise, graph)


@importer("QuantizeLinear", *VERSIONS, whole=True)
def quantize_linear(node: OnnxNode, graph: GraphBuilder) -> int:
    """`round(x / scale) + zero` within the range of the type."""
    if node.attribute("precision", 0) not in (0, 1, 11):
        raise UnsupportedError("a quotient in less than float32")
    scale, zero = _parameters(node, graph)
    quotient = divide_constant(node.value(), scale, graph)
    return _rounded(quotient, zero, node.result_types[0] or "uint8", graph)


@importer("DequantizeLinear", *VERSIONS, whole=True)
def dequantize_linear(node: OnnxNode, graph: GraphBuilder) -> int:
    """`scale (q - zero)`."""
    scale, zero = _parameters(node, graph)
    return multiply_constant(_centred(node.value(), zero, graph), scale, graph)


def _centred(value: int, zero: np.ndarray, graph: GraphBuilder) -> int:
    """The value minus its zero point."""
    if not zero.any():
        return value
    return graph.add(shift(-zero, 0.0), [align(value, zero.shape, graph)])


def _zero(node: OnnxNode, index: int, column: int) -> np.ndarray:
    """A zero point: one number, or one for each index of an axis that `column` others follow."""
    constant = node.optional(index)
    return np.zeros(()) if constant is None else _spread(constant.array, column)


def _spread(parameter: np.ndarray, column: int) -> np.ndarray:
    array = np.asarray(parameter, np.float64)
    return (
        array.reshape(())
        if array.size == 1
        else array.reshape(-1, *(1,) * column)
        if array.ndim == 1
        else array
    )


def _operand(node: OnnxNode, index: int, zero: np.ndarray, graph: GraphBuilder) -> Constant | int:
    """An operand minus its zero point: small whole numbers, exact."""
    operand = node.operand(index)
    if isinstance(operand, Constant):
        return Constant(np.asarray(operand.array, np.float64) - zero)
    return _centred(node.value(index), zero, graph)


def _factor(node: OnnxNode, indices: tuple[int, int, int], columns: tuple[int, int]) -> Constant:
    """The product of two scales over the third."""
    scales = [node.constant(i) for i in indices]
    if any(s.error or s.array.dtype.itemsize > 4 for s in scales):
        raise UnsupportedError("scales that are not exact")
    one, two = (_spread(s.array, column) for s, column in zip(scales, columns, strict=False))
    three = np.asarray(scales[2].array, np.float64)
    return Constant(checked(one * two / three.reshape(())), ROUNDING)


@importer("MatMulInteger", 10, whole=True)
def matmul_integer(node: OnnxNode, graph: GraphBuilder) -> int:
    """Product of matrices, each minus its zero point (by rows of the first, columns of the second)."""
    first, second = _operand(node, 0, _zero(node, 2, 1), graph), _operand(node, 1, _zero(node, 3, 0), graph)
    return multiplied(first, second, graph)


@importer("QLinearMatMul", 10, 21, whole=True)
def qlinear_matmul(node: OnnxNode, graph: GraphBuilder) -> int:
    """Product of quantised matrices, quantised."""
    first, second = _operand(node, 0, _zero(node, 2, 1), graph), _operand(node, 3, _zero(node, 5, 0), graph)
    value = multiplied(first, second, graph)
    value = multiply_constant(value, _factor(node, (1, 4, 6), (1, 0)), graph)
    return _rounded(value, _zero(node, 7, 0), node.result_types[0], graph)


def _convolved(node: OnnxNode, index: int, zeros: tuple[int, int], graph: GraphBuilder, bias: int) -> int:
    """A convolution of a value with weights (operand `index`), each minus its zero point."""
    columns = len(node.shapes[index]) - 1
    value = _centred(node.value(), _zero(node, zeros[0], 0), graph)
    kernel = np.asarray(node.constant(index).array, np.float64) - _zero(node, zeros[1], columns)
    return convolved(node, value, Constant(kernel), node.optional(bias), graph)


@importer("ConvInteger", 10, whole=True)
def conv_integer(node: OnnxNode, graph: GraphBuilder) -> int:
    """Convolution of whole numbers; padding is with the zero point."""
    return _convolved(node, 1, (2, 3), graph, len(node.operands))


@importer("QLinearConv", 10, whole=True)
def qlinear_conv(node: OnnxNode, graph: GraphBuilder) -> int:
    """Convolution of quantised numbers, quantised; the bias has the scale of the products."""
    value = _convolved(node, 3, (2, 5), graph, 8)
    value = multiply_constant(value, _factor(node, (1, 4, 6), (0, len(node.shapes[3]) - 2)), graph)
    return _rounded(value, _zero(node, 7, 0), node.result_types[0], graph)
