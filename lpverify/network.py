"""A network: ops in topological order over numbered values; plain evaluation."""

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import prod
from typing import Any

import numpy as np

from lpverify.errors import InternalError
from lpverify.interval import Array, namespace
from lpverify.ops.base import AffineOp, BilinearOp, ElementwiseOp, Op, SelectionOp
from lpverify.ops.steps import StepOp


@dataclass(frozen=True)
class Node:
    """One op applied to earlier values.

    Attributes:
        op: The operator; None only for value 0, the flat input.
        inputs: Indices of its operands, all smaller than its own.
        shape: Shape of its value, without the engines' batch axis.
        name: The ONNX node it came from, for messages.
    """

    op: Op | None
    inputs: tuple[int, ...]
    shape: tuple[int, ...]
    name: str = ""


@dataclass(frozen=True)
class Network:
    """Nodes in topological order; value 0 is the flat input `(n,)`, value `k` that of node `k`.

    Attributes:
        nodes: `nodes[0]` stands for the input.
        output: Index of the value that is the network's result.
        ranked: Index of a value whose elements have the same order as those of the result, if one is known.
        sums: Indices of values whose elements along the last axis sum up to 1, over the reals.
    """

    nodes: tuple[Node, ...]
    output: int
    ranked: int | None = None
    sums: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for k, node in enumerate(self.nodes):
            if (node.op is None) != (k == 0) or any(i >= k for i in node.inputs):
                raise InternalError(f"value {k} ({node.name}) is out of order")

    @property
    def input_size(self) -> int:
        """Number of scalar inputs."""
        return self.nodes[0].shape[0]

    @cached_property
    def consumers(self) -> tuple[int, ...]:
        """How many times each value is an operand; the output counts once more."""
        counts = [0] * len(self.nodes)
        for node in self.nodes:
            for i in node.inputs:
                counts[i] += 1
        counts[self.output] += 1
        return tuple(counts)

    @cached_property
    def adjoint_terms(self) -> tuple[int, ...]:
        """For each value a number above the operations behind one coefficient on it in a backward pass."""
        counts = [4] * len(self.nodes)
        for node in self.nodes[1:]:
            for i in node.inputs:
                terms = getattr(node.op, "terms", 1)
                counts[i] += (terms[1] if isinstance(terms, tuple) else terms) + 4
        return tuple(counts)

    @cached_property
    def activations(self) -> tuple[int, ...]:
        """Indices of the elementwise nonlinear nodes, in order."""
        return tuple(k for k, n in enumerate(self.nodes) if isinstance(n.op, ElementwiseOp))

    @cached_property
    def pre_activations(self) -> tuple[int, ...]:
        """Indices of the values that are operands of nonlinear nodes, in order."""
        nonlinear = (n for n in self.nodes if isinstance(n.op, (ElementwiseOp, BilinearOp)))
        return tuple(sorted({i for n in nonlinear for i in n.inputs}))

    @cached_property
    def bounded(self) -> tuple[int, ...]:
        """Indices of the values whose boxes a subproblem hands on: operands of nonlinear nodes, steps."""
        steps = (k for k, n in enumerate(self.nodes) if isinstance(n.op, StepOp))
        return tuple(sorted({*self.pre_activations, *steps}))

    def steps_on(self, value: int) -> tuple[int, ...]:
        """Indices of the step functions of a value."""
        return tuple(k for k, n in enumerate(self.nodes) if isinstance(n.op, StepOp) and n.inputs[0] == value)

    def copied_input(self, value: int, element: int) -> int | None:
        """The input of which an element of a value is a copy, None if it is computed."""
        source = self._copies.get(value)
        return None if source is None or source[element] < 0 else int(source[element])

    @cached_property
    def steps_of_inputs(self) -> dict[int, tuple[int, int]]:
        """For inputs that a step function is applied to: the node, and which of its elements."""
        places: dict[int, tuple[int, int]] = {}
        for k, node in enumerate(self.nodes):
            if isinstance(node.op, StepOp) and node.inputs[0] in self._copies:
                source = self._copies[node.inputs[0]]
                places.update((int(source[e]), (k, int(e))) for e in np.flatnonzero(source >= 0))
        return places

    @cached_property
    def _copies(self) -> dict[int, np.ndarray]:
        """For each value that is data movement alone the input behind each element, -1 for constants."""
        first = np.arange(self.input_size, dtype=np.float64)[None]
        runs = {0: (first, first + self.input_size)}
        for k, node in enumerate(self.nodes):
            if isinstance(node.op, SelectionOp) and all(i in runs for i in node.inputs):
                low, high = ([runs[i][j] for i in node.inputs] for j in (0, 1))
                runs[k] = repeat(node.op.forward(*low), 1), repeat(node.op.forward(*high), 1)
        return {
            k: np.where(high - low == self.input_size, low, -1.0).reshape(-1)
            for k, (low, high) in runs.items()
        }

    @cached_property
    def refinable(self) -> frozenset[int]:
        """Operands of nonlinear nodes whose backward bounds can beat the interval of one affine step."""
        depth = [0] * len(self.nodes)
        for k, node in enumerate(self.nodes[1:], start=1):
            rounds = not isinstance(node.op, AffineOp) or node.op.terms != (0, 0)
            depth[k] = max((depth[i] for i in node.inputs), default=0) + rounds
        return frozenset(k for k in self.pre_activations if depth[k] > 1)

    @cached_property
    def work(self) -> tuple[int, ...]:
        """For each value the multiplications of its computation from the input, roughly."""
        own = [n.op.work(prod(n.shape)) if isinstance(n.op, AffineOp) else prod(n.shape) for n in self.nodes]
        return tuple(sum(own[i] for i in known) for known in self.ancestors)

    @cached_property
    def ancestors(self) -> tuple[frozenset[int], ...]:
        """For each value all values it depends on, itself included."""
        known: list[frozenset[int]] = []
        for k, node in enumerate(self.nodes):
            known.append(frozenset([k]).union(*(known[i] for i in node.inputs)))
        return tuple(known)

    @cached_property
    def derived(self) -> dict[Hashable, Any]:
        """What others have found out about the network and keep, each by keys of its own."""
        return {}

    @cached_property
    def _relevance(self) -> list[Array | None]:
        return []

    def relevance(self, like: Array) -> Sequence[Array | None]:
        """For each value a mask `(*shape)` of the elements that the result depends on, None for no element.

        Found by a backward pass of arbitrary numbers; should some cancel exactly, a mask has less, which
        costs precision of bounds and nothing else. `like` is an array of the kind of the weights.
        """
        if not self._relevance:
            self._relevance.extend(_relevance(self, like))
        return self._relevance

    def evaluate(self, x: Array) -> list[Array]:
        """All values at inputs `(N, n)`; plain floating point."""
        values: list[Array] = [x]
        for node in self.nodes[1:]:
            assert node.op is not None
            value = node.op.forward(*(values[i] for i in node.inputs))
            values.append(repeat(value, x.shape[0]))
        return values

    def __call__(self, x: Array) -> Array:
        """The result at inputs `(N, n)`."""
        return self.evaluate(x)[self.output]

    def gradient(self, values: Sequence[Array], seed: Array, start: int) -> Array:
        """The gradient `(N, n)` of `seed . value[start]` at an evaluated batch; a proposal only."""
        pending: dict[int, Array] = {start: seed}
        for k in range(start, 0, -1):
            gradient = pending.pop(k, None)
            if gradient is None:
                continue
            node = self.nodes[k]
            assert node.op is not None
            parts = node.op.vjp(gradient, [values[i] for i in node.inputs])
            for i, part in zip(node.inputs, parts, strict=True):
                pending[i] = pending[i] + part if i in pending else part
        return pending.get(0, namespace(seed).zeros_like(values[0]))

    def convert(self, function: Callable[[np.ndarray], Array], dtype: type = np.float64) -> "Network":
        """The same network with weights rounded to `dtype` (errors recorded), passed through `function`."""
        return replace(self, nodes=tuple(replace(n, op=_convert(n.op, function, dtype)) for n in self.nodes))


def _relevance(network: Network, like: Array) -> list[Array | None]:
    xp = namespace(like)

    def arbitrary(shape: tuple[int, ...]) -> Array:
        numbers = xp.arange(prod(shape), dtype=like.dtype, device=like.device)
        return (1.5 + xp.cos(numbers)).reshape((1, *shape))

    pending = {network.output: arbitrary(network.nodes[network.output].shape)}
    masks: list[Array | None] = [None] * len(network.nodes)
    for k in range(network.output, 0, -1):
        node, a = network.nodes[k], pending.pop(k, None)
        if a is None:
            continue
        masks[k] = a[0] != 0
        parts = _dependence(node, a, [arbitrary(network.nodes[i].shape) for i in node.inputs])
        for i, part in zip(node.inputs, parts, strict=True):
            pending[i] = pending[i] + part if i in pending else part
    return masks


def _dependence(node: Node, a: Array, operands: Sequence[Array]) -> tuple[Array, ...]:
    """Numbers on the operands, zero where nothing depends on them."""
    if isinstance(node.op, AffineOp):
        return node.op.adjoint(a)
    if isinstance(node.op, BilinearOp):
        return node.op.vjp(a, operands)
    return (a,) if isinstance(node.op, ElementwiseOp) else tuple(operands)


def repeat(value: Array, count: int) -> Array:
    """Repeats a batch of one `count` times, as constant ops return it."""
    if value.shape[0] == count:
        return value
    return namespace(value).broadcast_to(value, (count, *value.shape[1:]))


def _convert(op: Op | None, function: Callable[[np.ndarray], Array], dtype: type) -> Op | None:
    if op is None or dtype is np.float64:
        return op if op is None else op.convert(function)
    changes = rounding_errors(op) if isinstance(op, AffineOp) else {}
    op = replace(op, **changes) if changes else op  # type: ignore[type-var]
    return op.convert(lambda array: function(np.asarray(array, dtype)))


def rounding_errors(op: AffineOp) -> dict[str, object]:
    """The error fields of an op whose weights are about to be rounded to float32."""
    changes: dict[str, object] = {}
    weight = getattr(op, "weight", None)
    entries = (
        getattr(weight, "data", weight)
        if weight is not None and not isinstance(weight, np.ndarray)
        else weight
    )
    if entries is not None and bool((entries.astype(np.float32) != entries).any()):
        lost = (np.abs(entries) < 2.0**-126) & (entries.astype(np.float32) != entries)
        changes["weight_error"] = float("inf") if lost.any() else op.weight_error + 2.0**-23
    if op.offset is not None and bool((op.offset.astype(np.float32) != op.offset).any()):
        error = np.abs(op.offset) * 2.0**-23 + 1e-37
        changes["offset_error"] = error if op.offset_error is None else (error + op.offset_error) * 1.0001
    return changes
