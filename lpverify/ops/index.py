"""Places of extreme elements: ArgMax and its like, by comparing all pairs; and one-hot codes.

With `s_ij = [x_j > x_i]` for i < j the element i is the first largest one if it beats the n - 1 others:

    e_i = relu(sum over j < i of s_ji + sum over j > i of (1 - s_ij) - (n - 2))

is 1 for it and 0 for the others. Ties go to the last one with `>=` instead of `>`.
"""

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.base import Constant, GraphBuilder, OnnxNode, importer
from lpverify.ops.cast import Within
from lpverify.ops.gather import from_end, one_hot
from lpverify.ops.indicators import Known, choice, is_positive, negative, rectified, truth, whole
from lpverify.ops.linear import Combine, Linear
from lpverify.ops.node import normal_axis
from lpverify.ops.reduce import maximum_along
from lpverify.ops.shape import Gather, Transpose, reshape_to
from lpverify.ops.steps import Trunc

MOST_COMPARED = 64  # elements of which all pairs are compared


def _swapped(value: int, axis: int, graph: GraphBuilder) -> int:
    """One axis and the last one exchanged."""
    order = list(range(len(graph.shape(value))))
    order[axis], order[-1] = order[-1], order[axis]
    return value if order == sorted(order) else graph.add(Transpose(tuple(order)), [value])


def _later_wins(value: int, last: bool, is_whole: bool, graph: GraphBuilder) -> int:
    """`s_ij` for all i < j along the last axis."""
    shape = graph.shape(value)
    if shape[-1] > MOST_COMPARED:
        raise UnsupportedError(f"more than {MOST_COMPARED} elements to compare with each other")
    pairs = [
        graph.add(Gather(tuple(map(int, side)), len(shape) - 1, shape), [value])
        for side in reversed(np.triu_indices(shape[-1], 1))
    ]
    return is_positive(graph.add(Combine((1, -1)), pairs), last, is_whole, graph)


def _winner(value: int, last: bool, is_whole: bool, graph: GraphBuilder) -> int:
    """`e_i` along the last axis."""
    shape = graph.shape(value)
    n = shape[-1]
    if n == 1:
        return graph.constant(Constant(np.ones(shape)), shape)
    graph.reserve(n, n * (n - 1) // 2)
    first, second = np.triu_indices(n, 1)
    weight = np.zeros((n, len(first)))
    weight[first, np.arange(len(first))] = -1
    weight[second, np.arange(len(first))] = 1
    wins = Linear(weight, 1.0 - np.arange(n))  # with the n - 1 - i of `1 - s_ij`, less n - 2
    scores = graph.add(wins, [_later_wins(value, last, is_whole, graph)])
    return truth(scores, graph) if n == 2 else rectified(whole(scores, graph), graph)


def _place(value: int, last: bool, is_whole: bool, graph: GraphBuilder) -> int:
    """The index of the winner along the last axis, which keeps length 1."""
    shape = graph.shape(value)
    n = shape[-1]
    if n == 1:
        return graph.constant(Constant(np.zeros(shape)), shape)
    if n == 2:
        return _later_wins(value, last, is_whole, graph)
    numbers = Linear(np.arange(n, dtype=np.float64)[None])
    index = graph.add(numbers, [_winner(value, last, is_whole, graph)])
    return graph.add(Known(0.0, n - 1.0, True), [index])


def _extreme_place(node: OnnxNode, graph: GraphBuilder, largest: bool) -> int:
    value, shape = node.value(), node.shapes[0]
    axis = normal_axis(node.attribute("axis", 0), len(shape))
    value = _swapped(value if largest else negative(value, graph), axis, graph)
    index = _place(value, bool(node.attribute("select_last_index", 0)), node.whole(), graph)
    index = _swapped(index, axis, graph)
    if node.attribute("keepdims", 1):
        return index
    return reshape_to(index, [n for i, n in enumerate(shape) if i != axis], graph)


@importer("ArgMax", 1, 11, 12, 13, whole=True)
def arg_max(node: OnnxNode, graph: GraphBuilder) -> int:
    """The index of the largest element along an axis."""
    return _extreme_place(node, graph, True)


@importer("ArgMin", 1, 11, 12, 13, whole=True)
def arg_min(node: OnnxNode, graph: GraphBuilder) -> int:
    """The index of the smallest element along an axis."""
    return _extreme_place(node, graph, False)


@importer("Hardmax", 1, 11, 13)
def hardmax(node: OnnxNode, graph: GraphBuilder) -> int:
    """1 for the first largest element along an axis (all axes from it on, before version 13), else 0."""
    value, shape = node.value(), node.shapes[0]
    axis = normal_axis(node.attribute("axis", 1 if node.version < 13 else -1), len(shape))
    if node.version < 13:
        flat = reshape_to(value, (*shape[:axis], int(np.prod(shape[axis:]))), graph)
        return reshape_to(_winner(flat, False, False, graph), shape, graph)
    return _swapped(_winner(_swapped(value, axis, graph), False, False, graph), axis, graph)


@importer("TopK", 1, 10, 11, 24, whole=True)
def top_k(node: OnnxNode, graph: GraphBuilder) -> list[int]:
    """The largest or smallest element and its index; no more than one."""
    count = node.attribute("k") if node.version < 10 else int(node.constant(1).array.reshape(-1)[0])
    if count != 1:
        raise UnsupportedError(f"k={count} is not supported, only 1")
    axis = normal_axis(node.attribute("axis", -1), len(node.shapes[0]))
    largest = node.attribute("largest", 1)
    value = node.value() if largest else negative(node.value(), graph)
    best = maximum_along(value, axis, graph)
    best = best if largest else negative(best, graph)
    if node.outputs < 2 or node.shapes[0][axis] > MOST_COMPARED:
        return [best]
    index = _place(_swapped(value, axis, graph), False, node.whole(), graph)
    return [best, _swapped(index, axis, graph)]


@importer("OneHot", 9, 11, 28, whole=True)
def one_hot_(node: OnnxNode, graph: GraphBuilder) -> int:
    """One of two constants; indices out of range choose none, negative ones count from the end since 11."""
    depth, values = int(node.constant(1).array.reshape(-1)[0]), node.constant(2)
    index = node.value()
    if not node.whole():
        index = graph.add(Within.range_of("int64"), [graph.add(Trunc(), [index])])
    if node.version >= 11:
        index = from_end(index, depth, graph)
    chosen = one_hot(index, depth, graph)
    rank = len(graph.shape(chosen))
    order = list(range(rank - 1))
    order.insert(normal_axis(node.attribute("axis", -1), rank), rank - 1)
    if order != sorted(order):
        chosen = graph.add(Transpose(tuple(order)), [chosen])
    off, on = (Constant(np.asarray(values.array.reshape(-1)[i]), values.error) for i in (0, 1))
    return choice(chosen, on, off, graph)
