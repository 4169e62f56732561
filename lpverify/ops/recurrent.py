"""Recurrent layers, unrolled: every step becomes ops of its own.

The parts of the input that a layer sees are computed for all steps at once. Sequences that are shorter than
the longest keep their state and give zeros after their end.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.ops.activations import Sigmoid, Softplus, Softsign, Tanh
from lpverify.ops.base import Constant, ElementwiseOp, GraphBuilder, OnnxNode, importer
from lpverify.ops.bilinear import product
from lpverify.ops.linear import Combine, dense_or_sparse, multiply_constant, shift
from lpverify.ops.piecewise import Relu, clip_value
from lpverify.ops.select import pick
from lpverify.ops.shape import Concat, Transpose, operand_value, reshape_to, take_range

ACTIVATIONS: dict[str, ElementwiseOp] = {
    "relu": Relu(),
    "sigmoid": Sigmoid(),
    "softplus": Softplus(),
    "softsign": Softsign(),
    "tanh": Tanh(),
}
MOST_STEPS = 1024


@dataclass(frozen=True)
class _Part:
    """Weights of one direction for all gates: `(gates, hidden, inputs)`, or biases `(gates, hidden)`."""

    array: np.ndarray
    error: float

    def gates(self, first: int, last: int) -> Constant:
        """Some gates as one matrix or vector."""
        chosen = self.array[first:last]
        return Constant(chosen.reshape(-1, *chosen.shape[2:]), self.error)


@dataclass(frozen=True)
class _Cell:
    """One direction of a layer while it is unrolled.

    Attributes:
        gates: How many blocks of rows the weights have.
        inputs: Values `(batch, gates * hidden)` for each step, biases of the input included.
        recurrent: Weights on the state.
        bias: Biases that belong to the recurrent weights.
        peephole: Weights of the cell state in the gates of an LSTM.
        activations: The names of the functions.
    """

    graph: GraphBuilder
    node: OnnxNode
    hidden: int
    inputs: list[int]
    recurrent: _Part
    bias: _Part | None
    peephole: _Part | None
    activations: tuple[str, ...]

    def add(self, first: int, second: int, sign: int = 1) -> int:
        """`first + sign * second`."""
        return self.graph.add(Combine((1, sign)), [first, second])

    def times(self, first: int, second: int) -> int:
        return product(first, second, self.graph)

    def applied(self, index: int, value: int) -> int:
        """One of the functions, after the clip of its operand."""
        clip = self.node.attribute("clip")
        if clip is not None:
            end = np.asarray(float(np.float32(clip)))
            value = clip_value(value, Constant(-end), Constant(end), self.graph)
        return self.graph.add(ACTIVATIONS[self.activations[index]], [value])

    def gate(self, value: int, index: int, count: int = 1) -> int:
        """Some gates of a value that has them side by side."""
        chosen = range(index * self.hidden, (index + count) * self.hidden)
        return take_range(value, 1, chosen, self.graph)

    def of_state(self, state: int, first: int, last: int) -> int:
        """The recurrent weights of some gates times the state, with their biases."""
        weight = self.recurrent.gates(first, last)
        value = self.graph.add(dense_or_sparse(weight.array, None, weight.error), [state])
        return value if self.bias is None else _shifted(value, self.bias.gates(first, last), self.graph)

    def one_less(self, value: int) -> int:
        """`1 - x`."""
        return self.graph.add(shift(np.asarray(1.0), 0.0, -1.0), [value])

    def peeped(self, value: int, gate: int, cell: int) -> int:
        """Plus the cell state times its weight in a gate."""
        if self.peephole is None:
            return value
        weight = self.peephole.gates(gate, gate + 1)
        return self.add(value, multiply_constant(cell, weight, self.graph))


State = tuple[int, ...]
Step = Callable[[_Cell, int, State], State]


def _rnn_step(cell: _Cell, given: int, state: State) -> State:
    """`f(W x + R h)`."""
    return (cell.applied(0, cell.add(given, cell.of_state(state[0], 0, 1))),)


def _gru_step(cell: _Cell, given: int, state: State) -> State:
    """Gates z and r, candidate c: `c + z (h - c)`."""
    (hidden,) = state
    gates = cell.applied(0, cell.add(cell.gate(given, 0, 2), cell.of_state(hidden, 0, 2)))
    update, reset = cell.gate(gates, 0), cell.gate(gates, 1)
    if cell.node.attribute("linear_before_reset", 0):
        recalled = cell.times(reset, cell.of_state(hidden, 2, 3))
    else:
        recalled = cell.of_state(cell.times(reset, hidden), 2, 3)
    candidate = cell.applied(1, cell.add(cell.gate(given, 2), recalled))
    return (cell.add(candidate, cell.times(update, cell.add(hidden, candidate, -1))),)


def _lstm_step(cell: _Cell, given: int, state: State) -> State:
    """Gates i, o, f and candidate c: the cell state is `f s + i c`, the result `o h(s)`."""
    hidden, memory = state
    total = cell.add(given, cell.of_state(hidden, 0, 4))
    enter = cell.applied(0, cell.peeped(cell.gate(total, 0), 0, memory))
    if cell.node.attribute("input_forget", 0):
        keep = cell.one_less(enter)
    else:
        keep = cell.applied(0, cell.peeped(cell.gate(total, 2), 2, memory))
    candidate = cell.applied(1, cell.gate(total, 3))
    memory = cell.add(cell.times(keep, memory), cell.times(enter, candidate))
    leave = cell.applied(0, cell.peeped(cell.gate(total, 1), 1, memory))
    return cell.times(leave, cell.applied(2, memory)), memory


def _shifted(value: int, bias: Constant, graph: GraphBuilder) -> int:
    return graph.add(shift(np.asarray(bias.array, np.float64), bias.error), [value])


@dataclass(frozen=True)
class _Kind:
    """RNN, GRU or LSTM: gates, state values, default activations of a direction, one step."""

    gates: int
    states: int
    activations: tuple[str, ...]
    step: Step


def _part(node: OnnxNode, index: int, direction: int, shape: tuple[int, ...]) -> _Part | None:
    """A constant operand's share of one direction."""
    constant = node.optional(index)
    if constant is None:
        return None
    return _Part(np.asarray(constant.array[direction], np.float64).reshape(shape), constant.error)


def _cell(node: OnnxNode, graph: GraphBuilder, kind: _Kind, direction: int, steps: list[int]) -> _Cell:
    """Weights of one direction, and its inputs for all steps."""
    hidden = node.shapes[2][-1]
    weight = _part(node, 1, direction, (kind.gates, hidden, -1))
    recurrent = _part(node, 2, direction, (kind.gates, hidden, hidden))
    if weight is None or recurrent is None:
        raise UnsupportedError("weights are missing")
    both = _part(node, 3, direction, (2 * kind.gates, hidden))
    bias = None
    matrix = weight.gates(0, kind.gates)
    op = dense_or_sparse(matrix.array, None, matrix.error)
    inputs = [graph.add(op, [step]) for step in steps]
    if both is not None:
        bias = replace(both, array=both.array[kind.gates :])
        own = both.gates(0, kind.gates)
        inputs = [_shifted(value, own, graph) for value in inputs]
    peephole = _part(node, 7, direction, (3, hidden)) if kind.states == 2 else None
    names = _activations(node, kind)[direction]
    return _Cell(graph, node, hidden, inputs, recurrent, bias, peephole, names)


def _activations(node: OnnxNode, kind: _Kind) -> list[tuple[str, ...]]:
    """The functions of each direction."""
    count = len(kind.activations)
    given = node.attribute("activations")
    names = [n.decode() if isinstance(n, bytes) else n for n in given] if given else kind.activations * 2
    chosen = [tuple(n.lower() for n in names[i : i + count]) for i in range(0, len(names), count)]
    unknown = {n for names in chosen for n in names} - set(ACTIVATIONS)
    if unknown:
        raise UnsupportedError(f"the activation {unknown.pop()} is not supported")
    return chosen


def _initial(node: OnnxNode, graph: GraphBuilder, kind: _Kind, direction: int, batch: int) -> State:
    """The state before the first step, zero if none is given."""
    states = []
    for index in range(5, 5 + kind.states):
        shape = (batch, node.shapes[2][-1])
        if node.operand(index) is None:
            states.append(graph.constant(Constant(np.zeros(shape)), shape))
            continue
        axis = 1 if node.attribute("layout", 0) else 0
        chosen = range(direction, direction + 1)
        part = take_range(operand_value(node, index, graph), axis, chosen, graph)
        states.append(reshape_to(part, shape, graph))
    return tuple(states)


def _chosen(new: int, old: int, running: np.ndarray, graph: GraphBuilder) -> int:
    """Rows of the new value where sequences are running, of the old one elsewhere."""
    if running.all():
        return new
    shape = graph.shape(new)
    numbers = np.arange(np.prod(shape)).reshape(shape)
    return pick([new, old], np.where(running[:, None], numbers, numbers + numbers.size), graph)


def _unrolled(
    cell: _Cell, kind: _Kind, state: State, lengths: np.ndarray, backward: bool
) -> tuple[list[int], State]:
    """The results of all steps, in the order of the input, and the last state."""
    graph, count = cell.graph, len(cell.inputs)
    shape = graph.shape(state[0])
    results = [0] * count
    for step in range(count - 1, -1, -1) if backward else range(count):
        running = lengths > step
        if not running.any():
            results[step] = graph.constant(Constant(np.zeros(shape)), shape)
            continue
        new = kind.step(cell, cell.inputs[step], state)
        state = tuple(_chosen(n, o, running, graph) for n, o in zip(new, state, strict=True))
        mask = Constant(running[:, None].astype(np.float64))
        results[step] = new[0] if running.all() else multiply_constant(new[0], mask, graph)
    return results, state


def _stacked(values: list[int], axis: int, graph: GraphBuilder) -> int:
    """Values `(batch, hidden)` along a new axis."""
    shape = list(graph.shape(values[0]))
    shape.insert(axis, 1)
    wide = [reshape_to(v, shape, graph) for v in values]
    return graph.add(Concat(axis, (1,) * len(wide)), wide) if len(wide) > 1 else wide[0]


def _layer(node: OnnxNode, graph: GraphBuilder, kind: _Kind) -> list[int]:
    """All directions: results `(steps, directions, batch, hidden)` and last states."""
    first = bool(node.attribute("layout", 0))
    value = graph.add(Transpose((1, 0, 2)), [node.value()]) if first else node.value()
    count, batch, width = graph.shape(value)
    if count > MOST_STEPS:
        raise UnsupportedError(f"a sequence of {count} steps")
    parts = [take_range(value, 0, range(i, i + 1), graph) for i in range(count)]
    steps = [reshape_to(part, (batch, width), graph) for part in parts]
    given = node.optional(4)
    lengths = np.full(batch, count) if given is None else given.array.reshape(-1)
    direction = node.attribute("direction", b"forward")
    direction = direction.decode() if isinstance(direction, bytes) else direction
    turns = {"forward": [False], "reverse": [True], "bidirectional": [False, True]}[direction]
    found = []
    for index, backward in enumerate(turns):
        cell = _cell(node, graph, kind, index, steps)
        state = _initial(node, graph, kind, index, batch)
        found.append(_unrolled(cell, kind, state, lengths, backward))
    rows = [_stacked([results[i] for results, _ in found], 0, graph) for i in range(count)]
    outputs = [_stacked(rows, 0, graph)]
    outputs += [_stacked([state[k] for _, state in found], 0, graph) for k in range(kind.states)]
    if first:
        orders = (2, 0, 1, 3), *[(1, 0, 2)] * kind.states
        outputs = [graph.add(Transpose(o), [v]) for o, v in zip(orders, outputs, strict=True)]
    return outputs


@importer("RNN", 7, 14, 22)
def rnn(node: OnnxNode, graph: GraphBuilder) -> list[int]:
    """A plain recurrent layer."""
    return _layer(node, graph, _Kind(1, 1, ("tanh",), _rnn_step))


@importer("GRU", 7, 14, 22)
def gru(node: OnnxNode, graph: GraphBuilder) -> list[int]:
    """Gated recurrent units."""
    return _layer(node, graph, _Kind(3, 1, ("sigmoid", "tanh"), _gru_step))


@importer("LSTM", 7, 14, 22)
def lstm(node: OnnxNode, graph: GraphBuilder) -> list[int]:
    """Long short-term memory."""
    if node.attribute("clip") is not None:
        raise UnsupportedError("clip, which implementations apply to the cell state or not")
    return _layer(node, graph, _Kind(4, 2, ("sigmoid", "tanh", "tanh"), _lstm_step))
