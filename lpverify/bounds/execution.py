"""Executions of a model in floating point, as a network with noise.

Accepts: networks with the ONNX nodes that they stand for, all covered by `ops.roundings`.
Method: every result that is rounded gets a node that adds noise, `value + delta` with `|delta| <= error`
elementwise, delta being any function of the input. Errors depend on magnitudes; those come from intervals
of the network with the noise so far, value by value. Then all values of that network are bounded again,
backward: the boxes contain all computed values, so errors made from them hold, too, and are smaller.
Where a node has weights, what is proportional to its operand goes into `weight_error` instead: whoever
bounds a part of the box takes the magnitudes there.
Guarantee: for every input of the box, and every execution as `ops.roundings` defines them, the new network
with some noise has the computed values. Whatever bounds the network for all noise bounds all executions.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lpverify.bounds.propagate import Region, propagate
from lpverify.errors import InternalError, UnsupportedError
from lpverify.interval import SUM_INFLATION, Array, Box, intersect, namespace
from lpverify.multipliers import Effort
from lpverify.network import Network, Node
from lpverify.ops.base import AffineOp, BilinearOp, Constant, IntervalOp, SelectionOp
from lpverify.ops.convolution import Conv
from lpverify.ops.elementary import Square
from lpverify.ops.execution import FLOATS, FloatType, OnnxStep
from lpverify.ops.linear import Linear, MatMulConstant, Scale, SparseLinear
from lpverify.ops.piecewise import Relu
from lpverify.ops.roundings import EXTRA, NORMALISED, SUMS, rounds, rule_of, terms_error, uncovered
from lpverify.ops.steps import StepOp

BUDGET = 1e9  # multiplications for backward bounds; what they do not reach keeps its interval
LIMIT = 2**21  # coefficients of one backward pass held at a time
ROUNDS = 1  # of backward bounds
MOST_RELATIVE = 2.0**-12  # larger errors of weights are charged as absolute ones
WEIGHTED = (Linear, SparseLinear, Conv, MatMulConstant, Scale)

_Key = tuple[int, bool]  # a value of the given network, and whether with noise


@dataclass(frozen=True)
class Undefined(IntervalOp):
    """The value itself as long as it is finite; nothing is claimed of it, since it may overflow."""

    def forward(self, *xs: Array) -> Array:
        return xs[0]

    def interval(self, *boxes: Box) -> tuple[Array, Array]:
        """Everything."""
        everything = namespace(boxes[0].lower).full_like(boxes[0].lower, np.inf)
        return -everything, everything


@np.errstate(over="ignore", invalid="ignore")  # what is undefined makes errors infinite
def executed(network: Network, steps: Sequence[OnnxStep], box: Box) -> Network:
    """The network with noise that covers all executions; its values' order is not known (`ranked`).

    Args:
        network: Real-valued, its nodes as the importer made them, others behind them.
        steps: Of all its models, in the order of their nodes.
        box: Inputs `(n,)`, float64, which are numbers of the models' element types.

    Raises:
        UnsupportedError: For some nodes there is no bound; the message lists them all.
    """
    require_covered(steps)
    noisy = _Noisy(network, steps, box, {})
    for _ in range(ROUNDS if noisy.absolute else 0):
        frame = propagate(noisy.network, Region(noisy.box), Effort("crown", budget=BUDGET), LIMIT)
        known = {key: frame.boxes[new] for key, new in noisy.places.items()}
        noisy = _Noisy(network, steps, box, known)
    return noisy.network


def require_covered(steps: Sequence[OnnxStep]) -> None:
    """Raises UnsupportedError with all steps that have no bound in floating point."""
    reasons = [(step, uncovered(step)) for step in steps]
    lines = dict.fromkeys(f"  {step.label}: {reason}" for step, reason in reasons if reason)
    if lines:
        listed = "\n".join(lines)
        raise UnsupportedError(
            f"no bound of the floating-point execution for {len(lines)} node(s); declare the variables as"
            f" real to ask about real arithmetic\n{listed}"
        )


class _Noisy:
    """A network with noise under construction.

    Attributes:
        network: The result.
        box: The inputs as a batch of one.
        places: New indices of all values.
        absolute: Whether some errors were made from magnitudes of values.
    """

    def __init__(
        self, network: Network, steps: Sequence[OnnxStep], box: Box, known: Mapping[_Key, Box]
    ) -> None:
        self.source, self.known = network, known
        self.box = Box(box.lower[None], box.upper[None])
        self.chains = _chains(network)
        self.nodes: list[Node] = []
        self.boxes: list[Box] = []
        self.open: set[int] = set()  # new values that may have overflowed
        self.absolute = False
        self.index: dict[int, int] = {}
        self.places: dict[_Key, int] = {}
        ends = {step.last: step for step in steps if step.first <= step.last}
        inner = _inner(network, steps)
        self.relative = _relative(network, steps, self.chains)
        for k, node in enumerate(network.nodes):
            self._append((k, False), _with_error(node, self.relative.get(k, 0.0)))
            if k in inner:
                self._charge(inner[k], 0, k)
            if k in ends and not rule_of(ends[k].node).inner:
                self._finish(ends[k])
        self.network = Network(tuple(self.nodes), self.index[network.output])

    def _append(self, key: _Key, node: Node) -> None:
        """A node with operands of the given network."""
        inputs = tuple(self.index[i] for i in node.inputs)
        self._push(key, Node(node.op, inputs, node.shape, node.name))

    def _push(self, key: _Key, node: Node) -> None:
        box = self.box
        if node.op is not None:
            lower, upper = node.op.interval(*(self.boxes[i] for i in node.inputs))
            box = Box(lower, upper)
            if key in self.known:
                box, _ = intersect(self.known[key], lower, upper)
        new = len(self.nodes)
        if isinstance(node.op, Undefined) or self.open.intersection(node.inputs):
            self.open.add(new)
        self.nodes.append(node)
        self.boxes.append(box)
        self.index[key[0]] = self.places[key] = new

    def _finish(self, step: OnnxStep) -> None:
        """Adds the noise of a step's results; those of values that may have overflowed are undefined."""
        for i, value in enumerate(step.outputs):
            if step.first <= value <= step.last and self.index[value] in self.open:
                self._noise(value, None)
            elif rounds(step) and step.kind(i) in FLOATS:
                if not step.first <= value <= step.last:
                    raise InternalError(f"{step.label} rounds a value that is not its own")
                self._charge(step, i, value)

    def _charge(self, step: OnnxStep, output: int, value: int) -> None:
        charge, kind = rule_of(step.node).charge, _kind(step, output)
        assert charge is not None
        facts = _Facts(self, step, kind, value)
        error = np.asarray(charge(facts)) * SUM_INFLATION
        if any(k in self.relative for k in range(step.first, step.last + 1)) and np.isfinite(error).all():
            error = np.asarray(charge(replace(facts, constants=True))) * SUM_INFLATION
        else:
            self.absolute = True
        shape = (1, *self.source.nodes[value].shape)
        error = np.broadcast_to(error, shape)[0]
        overflow = not bool((self.boxes[self.index[value]].magnitude + error < kind.largest / 2).all())
        if overflow or error.any():
            self._noise(value, None if overflow else error)

    def _noise(self, value: int, error: np.ndarray | None) -> None:
        """A node that adds noise; with spatial axes one error for each channel, so that windows repeat."""
        node = self.source.nodes[value]
        op: Scale | Undefined = Undefined()
        if error is not None:
            if error.ndim > 3:
                error = error.max(axis=tuple(range(2, error.ndim)), keepdims=True)
            op = Scale(np.ones(()), np.zeros(error.shape), 0.0, np.array(error))
        self._push((value, True), Node(op, (self.index[value],), node.shape, node.name))


@dataclass
class _Facts:
    """Answers the questions of a rule; see `ops.roundings.Ranges`."""

    noisy: _Noisy
    step: OnnxStep
    kind: FloatType
    value: int
    constants: bool = False
    _sums: dict[int, tuple[Array, int]] = field(default_factory=dict, init=False)

    def operand(self, index: int) -> Array:
        operand = self.step.node.operand(index)
        if isinstance(operand, Constant):
            return np.abs(np.asarray(operand.array, np.float64))[None]
        assert operand is not None
        return self._size(operand)

    def _size(self, value: int) -> Array:
        """Values before the step as computed, those in it as they are over the reals."""
        size = self.noisy.boxes[self.noisy.index[value]].magnitude
        return 0.0 * size if self.constants else size

    def result(self) -> Array:
        return self._size(self.value)

    def chain(self) -> int:
        return max((self.noisy.chains[o] for o in self.step.node.operands if isinstance(o, int)), default=0)

    def sums(self) -> tuple[Array, int]:
        for k in range(self.step.first, self.value + 1):
            self._sums[k] = self._sum(k)
        return self._sums[self.value]

    def _sum(self, k: int) -> tuple[Array, int]:
        node, floor = self.noisy.source.nodes[k], self.kind.floor
        parts = [self._sums.get(i) or (self._size(i) + floor, self.noisy.chains[i]) for i in node.inputs]
        sizes, counts = [p[0] for p in parts], [p[1] for p in parts]
        op = node.op
        if isinstance(op, AffineOp):
            size = op.magnitude(*sizes) if sizes else 0.0
            offset = op.offset if sizes else op.forward()
            size = size + (0.0 if offset is None else np.abs(offset)) + floor
            return size * SUM_INFLATION, op.terms[0] + 2 + max(counts, default=0)
        if isinstance(op, BilinearOp):
            return op.magnitude(*sizes) * SUM_INFLATION + floor, op.terms + 2 + sum(counts)
        if isinstance(op, Square):
            return sizes[0] ** 2 * SUM_INFLATION + floor, 2 * counts[0] + 2
        if isinstance(op, Relu):  # of Lipschitz constant 1, and zero at zero
            return parts[0]
        raise InternalError(f"{self.step.label} is no sum of products: {op!r}")


def _kind(step: OnnxStep, output: int) -> FloatType:
    """Of a result; where that is a quantised one, of the scale."""
    kinds = [step.kind(output), *step.node.types, "float32"]
    return next(FLOATS[kind] for kind in kinds if kind in FLOATS)


def _chains(network: Network) -> list[int]:
    """For each value the roundings of a term since the last nonlinear node."""
    counts: list[int] = []
    for node in network.nodes:
        before, op = max((counts[i] for i in node.inputs), default=0), node.op
        if isinstance(op, AffineOp):
            counts.append(before if op.terms == (0, 0) else before + op.terms[0] + 2)
        else:
            counts.append(before + op.terms + 2 if isinstance(op, BilinearOp) else 0)
    return counts


def _relative(network: Network, steps: Sequence[OnnxStep], chains: Sequence[int]) -> dict[int, float]:
    """For nodes with weights the errors relative to them: bounds of a part of the box have smaller ones."""
    found: dict[int, float] = {}
    for step in steps:
        rule = rule_of(step.node)
        if rule not in (SUMS, NORMALISED) or not rounds(step) or step.kind(0) not in FLOATS:
            continue
        weighted = _weighted(network, step)
        before = max((chains[o] for o in step.node.operands if isinstance(o, int)), default=0)
        own = chains[step.last] - before + 2 * EXTRA
        error = terms_error(own, step.drift, FLOATS[step.kind(0)])
        if weighted is not None and error < MOST_RELATIVE:
            found[weighted] = error
    return found


def _weighted(network: Network, step: OnnxStep) -> int | None:
    """The only node of a step with weights, if all others move data, or add constants after it."""
    weighted = None
    for k in range(step.first, step.last + 1):
        op = network.nodes[k].op
        if isinstance(op, SelectionOp) and len(network.nodes[k].inputs) == 1 and op.offset is None:
            continue
        if weighted is None and isinstance(op, WEIGHTED):
            weighted = k
        elif not (weighted is not None and isinstance(op, Scale) and bool((op.weight == 1.0).all())):
            return None
    return weighted


def _with_error(node: Node, error: float) -> Node:
    if not error:
        return node
    assert isinstance(node.op, WEIGHTED)
    return replace(node, op=replace(node.op, weight_error=(node.op.weight_error + error) * SUM_INFLATION))


def _inner(network: Network, steps: Sequence[OnnxStep]) -> dict[int, OnnxStep]:
    """The operands of step functions within nodes that quantise."""
    found: dict[int, OnnxStep] = {}
    for step in steps:
        if rule_of(step.node).inner:
            nodes = [network.nodes[k] for k in range(step.first, step.last + 1)]
            operands = [n.inputs[0] for n in nodes if isinstance(n.op, StepOp)]
            if not operands or min(operands) < step.first:
                raise InternalError(f"{step.label} quantises a value that is not its own")
            found.update(dict.fromkeys(operands, step))
    return found
