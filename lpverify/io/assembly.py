"""The models of a query's networks as one: all inputs side by side, hidden tensors and outputs likewise."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np

from lpverify.errors import InputError
from lpverify.io.element_types import NAMES
from lpverify.io.interface import Interface
from lpverify.io.model import Model, Part, Signature, Tensor
from lpverify.network import Network, Node
from lpverify.ops.base import Op
from lpverify.ops.execution import OnnxStep
from lpverify.ops.shape import Concat, Gather, Slice
from lpverify.query import Declaration, Query, Variable

Loader = Callable[[str, Interface], Model]


@dataclass(frozen=True)
class Assembly:
    """A model that fits a query, and what was accepted although the standard has it otherwise."""

    model: Model
    remarks: tuple[str, ...] = ()


def assemble(query: Query, load: Loader, lenient: bool = False) -> Assembly:
    """Loads the models of the networks that a query of version 2 declares, and joins them.

    Args:
        query: Declares networks.
        load: Gets the name of a network that is not declared equal to another one, and what is wanted of its
            model.
        lenient: Element types may differ from the models'; then those of the models count.

    Raises:
        InputError: A model does not fit its declaration.
    """
    wanted = _interfaces(query)
    models = {name: load(name, interface) for name, interface in wanted.items()}
    remarks: list[str] = []
    parts: list[_Fitted] = []
    for declaration in query.networks:
        model = models[_origin(query, declaration.name)]
        places = _hidden_places(query, declaration)
        parts.append(_Fit(query.path, declaration, model, places, lenient, remarks).result())
    return Assembly(_joined(query, parts), tuple(dict.fromkeys(remarks)))


def _origin(query: Query, name: str) -> str:
    """The network that one is equal to, at the end of the chain."""
    equal = {d.name: d.equal_to for d in query.networks}
    while equal[name]:
        name = equal[name]
    return name


def _interfaces(query: Query) -> dict[str, Interface]:
    """What is wanted of each model; networks that are equal to it add their hidden tensors."""
    hidden: dict[str, dict[str, None]] = {}
    shapes: dict[str, tuple[tuple[str, tuple[int, ...]], ...]] = {}
    for declaration in query.networks:
        origin = _origin(query, declaration.name)
        names = hidden.setdefault(origin, {})
        names.update((v.onnx_name, None) for v in declaration.variables if v.kind == "hidden")
        if origin == declaration.name:
            inputs = (v for v in declaration.variables if v.kind == "input")
            shapes[origin] = tuple((v.onnx_name, v.shape) for v in inputs)
    return {name: Interface(shapes[name], tuple(hidden[name])) for name in shapes}


def _hidden_places(query: Query, declaration: Declaration) -> dict[str, int]:
    """For the names of hidden tensors their position among those shown."""
    names = _interfaces(query)[_origin(query, declaration.name)].hidden
    return {name: i for i, name in enumerate(names)}


@dataclass(frozen=True)
class _Fitted:
    """A declared network with its model: for each variable the tensor of the model."""

    declaration: Declaration
    model: Model
    tensors: tuple[Tensor, ...]

    def of(self, inputs: bool) -> list[Tensor]:
        """The tensors of its inputs, or of its hidden tensors and outputs."""
        pairs = zip(self.declaration.variables, self.tensors, strict=True)
        return [tensor for variable, tensor in pairs if (variable.kind == "input") == inputs]


@dataclass
class _Fit:
    """Finds the tensor for each variable of a declared network and compares the two."""

    path: str
    declaration: Declaration
    model: Model
    hidden: Mapping[str, int]
    lenient: bool
    remarks: list[str]

    def result(self) -> _Fitted:
        kinds = [
            [v for v in self.declaration.variables if v.kind == k] for k in ("input", "hidden", "output")
        ]
        inputs, outputs = self.model.inputs.tensors, self.model.outputs.tensors
        own = outputs[: len(outputs) - len(self.hidden)]
        shown = [outputs[len(own) + self.hidden[v.onnx_name]] for v in kinds[1]]
        found = [*self._match("input", kinds[0], inputs), *shown, *self._match("output", kinds[2], own)]
        for variable, tensor in zip((v for kind in kinds for v in kind), found, strict=True):
            self._compare(variable, tensor)
        return _Fitted(self.declaration, self.model, tuple(found))

    def _fail(self, text: str) -> InputError:
        return InputError(f"{self.path}: network {self.declaration.name}: {text} ({self.model.path})")

    def _match(self, kind: str, variables: Sequence[Variable], tensors: Sequence[Tensor]) -> list[Tensor]:
        """By their names in the model if the query has them, else by order."""
        if len(variables) != len(tensors):
            raise self._fail(f"declares {len(variables)} {kind}(s), the model has {len(tensors)}")
        if not variables[0].onnx_name:
            return list(tensors)
        by_name = {tensor.name: tensor for tensor in tensors}
        names = [v.onnx_name for v in variables]
        if set(names) != set(by_name):
            raise self._fail(f"{kind}s {', '.join(names)} are declared, the model has {', '.join(by_name)}")
        return [by_name[name] for name in names]

    def _compare(self, variable: Variable, tensor: Tensor) -> None:
        if variable.shape != tensor.shape:
            text = f"{variable.name} has shape {list(variable.shape)}, in the model {list(tensor.shape)}"
            if [n for n in variable.shape if n != 1] != [n for n in tensor.shape if n != 1]:
                raise self._fail(text)
            self.remarks.append(f"{self.declaration.name}: {text}")
        kind = type_name(tensor.dtype)
        if variable.element_type not in ("real", kind):
            text = f"{variable.name} has element type {variable.element_type}, in the model {kind}"
            if not self.lenient:
                raise self._fail(f"{text}; --lenient takes the model's")
            self.remarks.append(f"{self.declaration.name}: {text}, which counts")


def type_name(dtype: type) -> str:
    """The ONNX name of a NumPy type."""
    name = np.dtype(dtype).name
    return name if name in NAMES.values() else dtype.__name__


def _joined(query: Query, fitted: Sequence[_Fitted]) -> Model:
    """One model whose tensors are the query's variables, in the order of their numbers."""
    parts, starts = [], [0, *accumulate(sum(one.model.inputs.sizes) for one in fitted)]
    for one, start in zip(fitted, starts, strict=False):
        tensors = {first: one.of(first) for first in (True, False)}
        places = start + np.argsort(np.concatenate([_elements(t) for t in tensors[True]]))
        parts.append(Part(one.model, places, np.concatenate([_elements(t) for t in tensors[False]])))
    first = parts[0].model
    alone = len(parts) == 1 and _plain(parts[0])
    network, steps = first.network, first.steps
    if not alone:
        network, steps = _network(parts, [d.name for d in query.networks])
    return Model(
        network,
        _signature(fitted, True),
        _signature(fitted, False),
        b"",
        ", ".join(dict.fromkeys(part.model.path for part in parts)),
        sum(part.model.node_count for part in parts),
        steps,
        tuple(parts),
    )


def _elements(tensor: Tensor) -> np.ndarray:
    return np.arange(tensor.part.start, tensor.part.stop)


def _plain(part: Part) -> bool:
    """Whether the model has the query's tensors in the query's order, and no others."""
    outputs = np.arange(sum(part.model.outputs.sizes))
    return np.array_equal(part.inputs, np.arange(len(part.inputs))) and np.array_equal(part.outputs, outputs)


def _signature(fitted: Sequence[_Fitted], inputs: bool) -> Signature:
    rows = [
        (variable.name, variable.shape, tensor.dtype)
        for one in fitted
        for variable, tensor in zip(one.declaration.variables, one.tensors, strict=True)
        if (variable.kind == "input") == inputs
    ]
    names, shapes, dtypes = zip(*rows, strict=True)
    return Signature(names, shapes, dtypes)


def _network(parts: Sequence[Part], names: Sequence[str]) -> tuple[Network, tuple[OnnxStep, ...]]:
    """All networks side by side on one flat input, with their steps; the result has their chosen outputs."""
    total = sum(len(part.inputs) for part in parts)
    nodes, ends, sums = [Node(None, (), (total,), "input")], [], list[int]()
    steps: list[OnnxStep] = []
    for part, name in zip(parts, names, strict=True):
        inner = part.model.network
        shift = len(nodes)  # where its input will be
        nodes.append(_gather(0, part.inputs, total))
        for node in inner.nodes[1:]:
            moved = tuple(i + shift for i in node.inputs)
            nodes.append(replace(node, inputs=moved, name=f"{name}: {node.name}"))
        steps += [step.moved(shift.__add__) for step in part.model.steps]
        sums += [value + shift for value in inner.sums]
        nodes.append(_gather(inner.output + shift, part.outputs, inner.nodes[inner.output].shape[0]))
        ends.append(len(nodes) - 1)
    sizes = tuple(nodes[end].shape[0] for end in ends)
    nodes.append(Node(Concat(0, sizes), tuple(ends), (sum(sizes),), "outputs"))
    return Network(tuple(nodes), len(nodes) - 1, None, tuple(sums)), tuple(steps)


def _gather(value: int, places: np.ndarray, size: int) -> Node:
    """Elements of a flat value of that size; a run of them is a slice."""
    first, count = int(places[0]), len(places)
    op: Op = Gather(tuple(places.tolist()), 0, (size,))
    if np.array_equal(places, np.arange(first, first + count)):
        op = Slice((first,), (1,), (count,), (size,))
    return Node(op, (value,), (count,), "query")
