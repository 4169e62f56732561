"""Functions with a constant parameter that differs from element to element."""

from collections.abc import Callable

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import GraphBuilder
from lpverify.ops.select import pick

MOST_GROUPS = 64


def by_number(
    value: int, numbers: np.ndarray, function: Callable[[int, float], int], graph: GraphBuilder
) -> int:
    """Applies a function to the elements that share a number, for each of the numbers.

    Args:
        value: The operand.
        numbers: They broadcast to its shape.
        function: From a part of the value and its number to a value of the same shape.
        graph: Where ops are added.
    """
    shape = graph.shape(value)
    flat = np.broadcast_to(numbers, shape).reshape(-1)
    different = np.unique(flat)
    if len(different) == 1:
        return function(value, float(different[0]))
    if len(different) > MOST_GROUPS:
        raise UnsupportedError(f"more than {MOST_GROUPS} different parameters")
    places = [np.flatnonzero(flat == number) for number in different]
    parts = [pick([value], place, graph) for place in places]
    parts = [function(part, float(number)) for part, number in zip(parts, different, strict=True)]
    back = np.argsort(np.concatenate(places), kind="stable")
    return pick(parts, back.reshape(shape), graph)
