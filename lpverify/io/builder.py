"""The network under construction: implements `ops.base.GraphBuilder`."""

from collections.abc import Sequence
from dataclasses import fields
from math import prod

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.io.limits import Budget
from lpverify.io.model import Signature
from lpverify.io.tensors import exact_floats
from lpverify.network import Network, Node
from lpverify.ops.base import Constant, Op
from lpverify.ops.shape import Concat, ConstantValue, Reshape, Slice


class NetworkBuilder:
    """Nodes in the order of evaluation; a run on zeros finds the shape of each value.

    Args:
        budget: What the import may use.

    Attributes:
        nodes: So far.
        name: Given to the nodes that are added next.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self.nodes: list[Node] = []
        self.name = ""
        self._probes: list[np.ndarray] = []
        self._orders: dict[int, int] = {}
        self._sums: list[int] = []

    def add(self, op: Op, inputs: Sequence[int]) -> int:
        self._budget.nodes(len(self.nodes) + 1)
        self._budget.spend(_weight_bytes(op))
        with np.errstate(all="ignore"):
            probe = op.forward(*(self._probes[i] for i in inputs))
        if 0 in probe.shape:
            raise UnsupportedError("the result is empty")
        self._budget.reserve(probe.size)
        self._append(Node(op, tuple(inputs), probe.shape[1:], self.name))
        return len(self.nodes) - 1

    def _append(self, node: Node) -> None:
        self.nodes.append(node)
        # Only shapes matter: zeros keep the probes finite, broadcasting keeps them small.
        self._probes.append(np.broadcast_to(np.zeros(()), (1, *node.shape)))

    def reserve(self, *sizes: int) -> None:
        self._budget.reserve(*sizes)

    def shape(self, value: int) -> tuple[int, ...]:
        return self.nodes[value].shape

    def constant(self, operand: Constant, shape: tuple[int, ...]) -> int:
        array = exact_floats(np.asarray(operand.array)).reshape(shape)
        error = np.asarray(np.abs(array) * operand.error) if operand.error else None
        return self.add(ConstantValue(array, error), [])

    def note_order(self, value: int, source: int) -> None:
        self._orders[value] = source

    def note_sum(self, value: int) -> None:
        self._sums.append(value)

    def inputs(self, signature: Signature) -> list[int]:
        """The network's flat input, cut into the model's tensors."""
        total = sum(signature.sizes)
        self._append(Node(None, (), (total,), "input"))
        values, start = [], 0
        for shape, size in zip(signature.shapes, signature.sizes, strict=True):
            value = 0
            if size != total:
                value = self.add(Slice((start,), (1,), (size,), (total,)), [0])
            if shape != (size,):
                value = self.add(Reshape(shape, (size,)), [value])
            values.append(value)
            start += size
        return values

    def network(self, outputs: Sequence[int]) -> Network:
        """The finished network, its outputs one after the other as its last value."""
        flat = []
        for value in outputs:
            shape = self.shape(value)
            size = prod(shape)
            flat.append(value if shape == (size,) else self.add(Reshape((size,), shape), [value]))
        last = flat[0]
        if len(flat) > 1:
            last = self.add(Concat(0, tuple(self.shape(v)[0] for v in flat)), flat)
        ranked = self._ranked(last)
        return Network(tuple(self.nodes), last, ranked, tuple(self._sums))

    def _ranked(self, value: int) -> int | None:
        """A flat value whose elements are ordered as those of another flat one, if one is known."""
        size = prod(self.shape(value))
        while value not in self._orders and isinstance(self.nodes[value].op, Reshape):
            value = self.nodes[value].inputs[0]
        source = self._orders.get(value)
        if source is None or self.shape(source)[-1] != size:
            return None
        return self.add(Reshape((size,), self.shape(source)), [source])


def _weight_bytes(op: Op) -> int:
    """Bytes of the op's arrays; the indices that it lists count as well."""
    values = (getattr(op, f.name) for f in fields(op))  # type: ignore[arg-type]
    return sum(
        v.nbytes if isinstance(v, np.ndarray) else 40 * len(v) if isinstance(v, tuple) else 0 for v in values
    )
