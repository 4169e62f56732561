"""Remainders of divisions by constants.

Whole numbers are divided half a unit away from the jumps, where rounding of the quotient does not matter.
"""

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.indicators import Known, negative, rectified
from lpverify.ops.linear import Combine, align, divide_constant, multiply_constant, shift
from lpverify.ops.steps import Floor, Trunc


def _quotient(value: int, divisor: np.ndarray, whole: bool, graph: GraphBuilder) -> int:
    """`floor(x / d)`; for whole x and d `floor((x + 1/2) / d)`, or with `- 1/2` if d is negative."""
    if whole:
        value = align(value, divisor.shape, graph)
        value = graph.add(shift(0.5 * np.sign(divisor), 0.0), [value])
    return graph.add(Floor(), [divide_constant(value, Constant(divisor), graph)])


def _truncated(value: int, divisor: np.ndarray, whole: bool, graph: GraphBuilder) -> int:
    """`x / |d|` rounded toward zero; for whole x as the difference of two that are not negative."""
    divisor = np.abs(divisor)
    if not whole:
        return graph.add(Trunc(), [divide_constant(value, Constant(divisor), graph)])
    parts = [rectified(value, graph), rectified(negative(value, graph), graph)]
    return graph.add(Combine((1, -1)), [_quotient(part, divisor, True, graph) for part in parts])


@importer("Mod", 10, 13, 28, whole=True)
def mod(node: OnnxNode, graph: GraphBuilder) -> int:
    """`x - d floor(x / d)`, with `fmod` `x - d trunc(x / d)`, for a constant d."""
    constant, truncate = node.constant(1), bool(node.attribute("fmod", 0))
    divisor, whole = np.asarray(constant.array, np.float64), node.whole()
    if constant.error:
        raise UnsupportedError("a divisor that is rounded")
    if not (truncate or whole or node.version >= 28):
        raise ValueError("fmod=0 of floats")
    value = align(node.value(), divisor.shape, graph)
    if truncate:
        divisor = np.abs(divisor)
    quotient = (_truncated if truncate else _quotient)(value, divisor, whole, graph)
    rest = multiply_constant(quotient, Constant(divisor), graph)
    rest = graph.add(Combine((1, -1)), [value, rest])
    return graph.add(_range(divisor, whole, truncate), [rest])


def _range(divisor: np.ndarray, whole: bool, truncate: bool) -> Known:
    """Remainders are nearer to zero than the divisor, on its side of it unless truncated."""
    most = max(0.0, float(divisor.max()) - whole)
    return Known(-most if truncate else min(0.0, float(divisor.min()) + whole), most, whole)
