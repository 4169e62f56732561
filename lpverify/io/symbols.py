"""What the tensor names of an import stand for: constants, values of the network, or why nothing."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.builder import NetworkBuilder
from lpverify.io.element_types import NAMES
from lpverify.io.limits import Budget, ModelLimits
from lpverify.io.scopes import Names, Scope
from lpverify.io.tensors import read_sparse, read_tensor
from lpverify.ops.base import Constant, OnnxNode
from lpverify.ops.execution import OnnxStep
from lpverify.ops.roundings import rounds
from lpverify.ops.shape import Reshape


class SkippedError(UnsupportedError):
    """Follows from an earlier problem, and is not worth a message."""


class Symbols:
    """The tensors known so far, by name.

    Attributes:
        names: For new tensors of subgraphs and functions.
        budget: Of the import.
        constants: Tensors that do not depend on the network's input.
        values: Those that do, as values of `graph`.
        types: Element types of both, as NumPy names them.
        skipped: Results of nodes that could not be translated.
        untranslated: Tensors that can't be used, and why.
        deferred: Tensors left to a table, and why their node could not be translated.
        graph: The network under construction.
        steps: The nodes that were translated so far.
    """

    def __init__(self, names: Names, budget: Budget) -> None:
        self.names = names
        self.budget = budget
        self.constants: dict[str, Constant] = {}
        self.values: dict[str, int] = {}
        self.types: dict[str, str] = {}
        self.skipped: set[str] = set()
        self.untranslated: dict[str, str] = {}
        self.deferred: dict[str, str] = {}
        self.graph = NetworkBuilder(budget)
        self.steps: list[OnnxStep] = []

    def known(self, name: str) -> bool:
        """Whether the name is taken."""
        return (
            name in self.values
            or name in self.constants
            or name in self.skipped
            or name in self.untranslated
            or name in self.deferred
        )

    def check(self, name: str) -> None:
        """Raises what stands against reading a tensor.

        Raises:
            OnnxError: It is not defined.
            UnsupportedError: It is, but can't be used.
        """
        if name in self.skipped:
            raise SkippedError
        if name in self.untranslated:
            raise UnsupportedError(self.untranslated[name])
        if name not in self.values and name not in self.constants:
            raise OnnxError(f"tensor {name!r} is used, but defined nowhere before")

    def constant(self, name: str, what: str) -> Constant:
        """The constant of that name; raises as `check`, or when it depends on the network's input."""
        self.check(name)
        if name in self.values:
            raise UnsupportedError(f"{what} depends on the network's input")
        if self.constants[name].drift:
            raise UnsupportedError(f"{what} depends on constants that are rounded")
        return self.constants[name]

    def operand(self, name: str) -> Constant | int:
        """What a node reads; importers see float16 and bfloat16 as float32, which holds them exactly."""
        if name not in self.constants:
            return self.values[name]
        constant = self.constants[name]
        kind = constant.array.dtype
        if kind.itemsize == 2 and kind.kind in "fV":
            return replace(constant, array=constant.array.astype(np.float32))
        return constant

    def shape(self, name: str) -> tuple[int, ...]:
        """The shape of a tensor; raises as `check`."""
        self.check(name)
        if name in self.values:
            return self.graph.shape(self.values[name])
        return self.constants[name].array.shape

    def value(self, name: str) -> int:
        """The tensor as a value of the network, also if it is constant; raises as `check`."""
        self.check(name)
        if name not in self.values:
            self.values[name] = self.constant_value(self.constants[name], self.types.get(name, ""))
        return self.values[name]

    def constant_value(self, constant: Constant, kind: str) -> int:
        """A new value of the network for a constant of some element type."""
        value = self.graph.constant(constant, constant.array.shape)
        if constant.drift:
            node = OnnxNode(
                "Constant", "", 1, "", {}, (constant,), (constant.array.shape,), 1, (kind,), (kind,)
            )
            self.steps.append(OnnxStep(node, "a constant", value, value, (value,)))
        return value

    def record(self, node: OnnxNode, label: str, first: int, outputs: list[int]) -> list[int]:
        """Notes a translated node; results of it that may be rounded become values of their own.

        Args:
            node: As its importer saw it.
            label: For messages.
            first: How many values there were before it.
            outputs: The values of its results.
        """
        step = OnnxStep(node, label, first, len(self.graph.nodes) - 1, tuple(outputs))
        if rounds(step):
            for i, value in enumerate(outputs):
                if value < first or value in outputs[:i]:
                    shape = self.graph.shape(value)
                    outputs[i] = self.graph.add(Reshape(shape, shape), [value])
        self.steps.append(replace(step, last=len(self.graph.nodes) - 1, outputs=tuple(outputs)))
        return outputs

    def define(self, name: str, array: np.ndarray, kind: str = "") -> None:
        """Adds an exact constant; `kind` is its element type, by default that of the array."""
        if self.known(name):
            raise OnnxError(f"tensor {name!r} is defined twice")
        self.constants[name] = Constant(array)
        self.types[name] = kind or array.dtype.name

    def define_initializers(self, graph: Any, scope: Scope) -> None:
        """Adds those of a graph."""
        for tensor in graph.initializer:
            self._initializer(tensor, tensor, read_tensor, scope)
        for sparse in graph.sparse_initializer:
            self._initializer(sparse, sparse.values, read_sparse, scope)

    def _initializer(
        self, tensor: Any, values: Any, read: Callable[[Any, str, ModelLimits], np.ndarray], scope: Scope
    ) -> None:
        name = scope.define(values.name)
        try:
            self.define(name, read(tensor, values.name, self.budget.limits), NAMES.get(values.data_type, ""))
        except UnsupportedError as error:
            self.untranslated[name] = str(error)

    def alias(self, name: str, target: str) -> None:
        """Adds another name for a tensor."""
        if name in self.values:
            self.values[target] = self.values[name]
        else:
            self.constants[target] = self.constants[name]
        self.types[target] = self.types.get(name, "")

    def declare(self, names: Sequence[str], types: Sequence[str]) -> None:
        """Notes element types, where they are known."""
        self.types.update((name, kind) for name, kind in zip(names, types, strict=False) if name and kind)
