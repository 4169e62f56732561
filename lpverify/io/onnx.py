"""Reads an ONNX file into a `Network`, through the op registry.

Weights are kept exactly. Subgraphs of constants are folded in `io.folding`. Every node that can't be
translated is collected, so that one error lists them all.
"""

import os
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from lpverify.errors import InputError, OnnxError, UnsupportedError
from lpverify.io.element_types import element_type, result_types
from lpverify.io.folding import fold
from lpverify.network import Network, Node
from lpverify.ops import REGISTRY
from lpverify.ops.base import Constant, OnnxNode, Op, SelectionOp
from lpverify.ops.cast import Within
from lpverify.ops.shape import Concat, ConstantValue, Reshape, Slice

FLOATS = {1: np.float32, 11: np.float64}
MAX_BYTES = 4 * 2**30


@dataclass(frozen=True)
class Signature:
    """The inputs or outputs of a model: names, shapes with symbolic sizes as 1, NumPy types."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[type, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Elements of each tensor."""
        return tuple(prod(shape) for shape in self.shapes)


@dataclass(frozen=True)
class Model:
    """An imported network with the serialised model it came from (for replays)."""

    network: Network
    inputs: Signature
    outputs: Signature
    serialized: bytes = field(repr=False)
    path: str = ""
    node_count: int = 0


@dataclass
class _Graph:
    """The network under construction: implements `ops.base.GraphBuilder`."""

    nodes: list[Node]
    probes: list[np.ndarray]
    name: str = ""

    def add(self, op: Op, inputs: Sequence[int]) -> int:
        with np.errstate(all="ignore"):
            probe = op.forward(*(self.probes[i] for i in inputs))
        if 0 in probe.shape:
            raise UnsupportedError("the result is empty")
        self.nodes.append(Node(op, tuple(inputs), probe.shape[1:], self.name))
        # Only shapes matter: zeros keep the probes finite, broadcasting keeps them small.
        self.probes.append(np.broadcast_to(np.zeros(()), probe.shape))
        return len(self.nodes) - 1

    def shape(self, value: int) -> tuple[int, ...]:
        return self.nodes[value].shape

    def constant(self, operand: Constant, shape: tuple[int, ...]) -> int:
        array = np.asarray(operand.array, np.float64).reshape(shape)
        error = np.asarray(np.abs(array) * operand.error) if operand.error else None
        return self.add(ConstantValue(array, error), [])


def load_model(path: str | os.PathLike[str]) -> Model:
    """Reads `.onnx` or `.onnx.gz`.

    Raises:
        InputError: The file can't be read.
        OnnxError: It is not a usable ONNX model.
        UnsupportedError: Some nodes can't be translated; the message lists every one of them.
    """
    data = _read(Path(path))
    return import_model(data, str(path))


def _read(path: Path) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if data[:2] != b"\x1f\x8b":
        return data
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, MAX_BYTES)
    except zlib.error:
        plain = None
    if plain is None or not (unpacker.eof or unpacker.unconsumed_tail):
        raise OnnxError(f"{path}: damaged gzip file")
    if unpacker.unconsumed_tail:
        raise OnnxError(f"{path}: more than {MAX_BYTES} bytes when unpacked")
    return plain


def import_model(data: bytes, path: str = "") -> Model:
    """Translates a serialised model; raises as `load_model`."""
    import onnx  # noqa: PLC0415  (slow to import)

    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception as error:  # noqa: BLE001  (protobuf's own exception types differ by backend)
        raise OnnxError(f"{path}: not an ONNX file ({type(error).__name__})") from None
    if not proto.graph.node and not proto.graph.output:
        raise OnnxError(f"{path}: not an ONNX file (no graph)")
    return _Importer(proto, path).run(data)


class _Importer:
    """One import: constants and values by tensor name, and the problems found so far."""

    def __init__(self, proto: Any, path: str) -> None:
        self.proto, self.path = proto, path
        self.opsets = {o.domain if o.domain != "ai.onnx" else "": o.version for o in proto.opset_import}
        self.constants: dict[str, Constant] = {}
        self.values: dict[str, int] = {}
        self.types: dict[str, str] = {}
        self.problems: list[str] = []
        self.skipped: set[str] = set()
        self.untranslated: dict[str, str] = {}  # outputs of nodes that their importer does not provide
        self.graph = _Graph([], [])

    def run(self, data: bytes) -> Model:
        graph = self.proto.graph
        if self.proto.functions:
            raise UnsupportedError(f"{self.path}: local functions are not supported")
        self._read_initializers(graph)
        inputs = self._signature([i for i in graph.input if i.name not in self.constants], "input")
        self._add_inputs(inputs)
        for position, node in enumerate(graph.node):
            self._node(node, position)
        if self.problems:
            lines = "\n".join(f"  {problem}" for problem in self.problems)
            raise UnsupportedError(f"{self.path}: {len(self.problems)} unsupported node(s)\n{lines}")
        output, outputs = self._add_outputs(graph)
        network = Network(tuple(self.graph.nodes), output)
        return Model(network, inputs, outputs, data, self.path, len(graph.node))

    def _fail(self, message: str) -> OnnxError:
        return OnnxError(f"{self.path}: {message}")

    def _read_initializers(self, graph: Any) -> None:
        if graph.sparse_initializer:
            raise UnsupportedError(f"{self.path}: sparse initializers are not supported")
        for tensor in graph.initializer:
            if tensor.name in self.constants:
                raise self._fail(f"initializer {tensor.name!r} is defined twice")
            self.constants[tensor.name] = Constant(self._tensor(tensor, tensor.name))
            self.types[tensor.name] = element_type(tensor.data_type)

    def _tensor(self, tensor: Any, name: str) -> np.ndarray:
        from onnx import numpy_helper  # noqa: PLC0415

        if tensor.data_location:
            raise UnsupportedError(f"{self.path}: {name!r} is stored in an external file")
        size = prod(tensor.dims)
        if size > 2**31 or any(d < 0 for d in tensor.dims):
            raise self._fail(f"{name!r} has an impossible shape {list(tensor.dims)}")
        try:
            array = np.asarray(numpy_helper.to_array(tensor))
        except Exception as error:  # noqa: BLE001  (onnx raises many types on malformed tensors)
            raise self._fail(f"tensor {name!r}: {error}") from None
        if _has(np.isnan, array):
            raise self._fail(f"{name!r} contains NaN")
        return array

    def _signature(self, infos: Sequence[Any], what: str) -> Signature:
        names, shapes, dtypes = [], [], []
        for info in infos:
            tensor = info.type.tensor_type
            if tensor.elem_type not in FLOATS:
                raise UnsupportedError(f"{self.path}: {what} {info.name!r} is not float32 or float64")
            names.append(info.name)
            shapes.append(tuple(d.dim_value if d.dim_value > 0 else 1 for d in tensor.shape.dim))
            if any(d.HasField("dim_value") and d.dim_value == 0 for d in tensor.shape.dim):
                raise UnsupportedError(f"{self.path}: {what} {info.name!r} has no elements")
            dtypes.append(FLOATS[tensor.elem_type])
        if not names:
            raise self._fail(f"the model has no {what}")
        return Signature(tuple(names), tuple(shapes), tuple(dtypes))

    def _add_inputs(self, inputs: Signature) -> None:
        total = sum(inputs.sizes)
        if total == 0 or total > 2**28:
            raise self._fail(f"the inputs have {total} elements")
        self.graph.nodes.append(Node(None, (), (total,), "input"))
        self.graph.probes.append(np.broadcast_to(np.zeros(()), (1, total)))
        start = 0
        for name, shape, size in zip(inputs.names, inputs.shapes, inputs.sizes, strict=True):
            value = 0
            if size != total:
                value = self.graph.add(Slice((start,), (1,), (size,), (total,)), [0])
            if shape != (size,):
                value = self.graph.add(Reshape(shape, (size,)), [value])
            self.values[name] = value
            self.types[name] = np.dtype(inputs.dtypes[len(self.values) - 1]).name
            start += size

    def _add_outputs(self, graph: Any) -> tuple[int, Signature]:
        unknown = [o.name for o in graph.output if o.name in self.untranslated]
        if unknown:
            raise UnsupportedError(f"{self.path}: {self.untranslated[unknown[0]]}")
        missing = [o.name for o in graph.output if o.name not in self.values and o.name not in self.constants]
        if missing:
            raise self._fail(f"no node computes the output {missing[0]!r}")
        flat, shapes, names, dtypes = [], [], [], []
        for info in graph.output:
            value = self.values.get(info.name)
            if value is None:
                operand = self.constants[info.name]
                value = self.graph.constant(operand, operand.array.shape)
            shape = self.graph.shape(value)
            names.append(info.name)
            shapes.append(shape)
            dtypes.append(FLOATS.get(info.type.tensor_type.elem_type, np.float32))
            size = prod(shape)
            flat.append(value if shape == (size,) else self.graph.add(Reshape((size,), shape), [value]))
        output = flat[0]
        if len(flat) > 1:
            output = self.graph.add(Concat(0, tuple(prod(s) for s in shapes)), flat)
        return output, Signature(tuple(names), tuple(shapes), tuple(dtypes))

    def _node(self, node: Any, position: int) -> None:
        """Translates one node, or notes why not."""
        label = (
            f"node {position} {node.name!r} ({node.op_type})"
            if node.name
            else f"node {position} ({node.op_type})"
        )
        outputs = [name for name in node.output if name]
        if any(name in self.skipped for name in node.input):
            self.skipped.update(outputs)  # follows from an earlier problem
            return
        try:
            self._translate(node, label)
        except UnsupportedError as error:
            self.problems.append(f"{label}, opset {self._opset(node)}: {error}")
            self.skipped.update(outputs)
        except (ValueError, IndexError, TypeError, KeyError, AttributeError, ArithmeticError) as error:
            raise self._fail(f"{label}: malformed ({error})") from None

    def _opset(self, node: Any) -> int:
        return int(self.opsets.get("" if node.domain == "ai.onnx" else node.domain, 0))

    def _translate(self, node: Any, label: str) -> None:
        self._check_names(node, label)
        if not any(name in self.values for name in node.input):
            try:
                folded = fold(node, self.constants, self._opset(node), self._tensor)
                self._note_types(node, folded)
                self.constants.update(folded)
            except UnsupportedError as error:
                self._add_values(self._with_a_value(node, error), node)
            return
        parsed = self._parse(node)
        self._declare(node, parsed.result_types)
        if parsed.op_type in ("Shape", "Size"):
            shape = np.asarray(parsed.shapes[0], np.int64)
            part = slice(parsed.attribute("start", 0), parsed.attribute("end"))
            self.constants[node.output[0]] = Constant(
                shape[part] if parsed.op_type == "Shape" else shape.prod()
            )
            return
        self._add_values(parsed, node)

    def _note_types(self, node: Any, folded: Mapping[str, Constant]) -> None:
        """Element types of folded constants: the schema's, or else what they were computed as."""
        self.types.update((name, constant.array.dtype.name) for name, constant in folded.items())
        if node.op_type != "Constant":
            self._declare(node, self._parse(node).result_types)

    def _declare(self, node: Any, types: Sequence[str]) -> None:
        self.types.update(
            (name, kind) for name, kind in zip(node.output, types, strict=False) if name and kind
        )

    def _check_names(self, node: Any, label: str) -> None:
        for name in node.input:
            if name in self.untranslated:
                raise UnsupportedError(self.untranslated[name])
            if name and name not in self.values and name not in self.constants:
                raise self._fail(f"{label}: its input {name!r} is defined nowhere before it")
        for name in node.output:
            if name and (name in self.values or name in self.constants):
                raise self._fail(f"{label}: its output {name!r} is defined before")

    def _with_a_value(self, node: Any, problem: UnsupportedError) -> OnnxNode:
        """A node of constants that can't be folded, its first float operand turned into a value.

        The bounds then cover the rounding, if there is an importer.
        """
        parsed = self._parse(node)
        known = any((parsed.domain, parsed.op_type) == key[:2] for key in REGISTRY.table)
        for i, operand in enumerate(parsed.operands if known else ()):
            if isinstance(operand, Constant) and operand.array.dtype.kind == "f":
                value = self.graph.constant(operand, operand.array.shape)
                operands = (*parsed.operands[:i], value, *parsed.operands[i + 1 :])
                return replace(parsed, operands=operands)
        raise problem

    def _add_values(self, parsed: OnnxNode, node: Any) -> None:
        self.graph.name = node.name or node.output[0]
        for operand in parsed.operands if parsed.op_type != "Clip" else ():
            if isinstance(operand, Constant) and _has(np.isinf, operand.array):
                raise UnsupportedError("a constant operand is infinite")
        translate = REGISTRY.find(parsed.domain, parsed.op_type, parsed.version)
        if (parsed.domain, parsed.op_type) not in REGISTRY.whole and any(
            parsed.whole(i) for i, o in enumerate(parsed.operands) if isinstance(o, int)
        ):
            raise UnsupportedError("operands of whole numbers are not supported")
        before = len(self.graph.nodes)
        results = translate(parsed, self.graph)
        outputs = [results] if isinstance(results, int) else list(results)
        kinds = (*parsed.result_types, *[""] * len(outputs))  # a variadic output has one type for all
        outputs = [self._guard(v, before, kind) for v, kind in zip(outputs, kinds, strict=False)]
        for name in node.output[len(outputs) :]:
            self.untranslated[name] = f"output {name!r} of {parsed.op_type} is not supported"
        self.values.update((name, value) for name, value in zip(node.output, outputs, strict=False) if name)
        self.untranslated.pop("", None)

    def _guard(self, value: int, before: int, kind: str) -> int:
        """The value, with a check that new whole numbers fit in their type."""
        new = value >= before and not isinstance(self.graph.nodes[value].op, SelectionOp)
        return self.graph.add(Within.range_of(kind), [value]) if new and kind in Within.RANGES else value

    def _parse(self, node: Any) -> OnnxNode:
        import onnx  # noqa: PLC0415

        domain = "" if node.domain == "ai.onnx" else node.domain
        if not onnx.defs.has(node.op_type, domain):
            raise UnsupportedError(f"unknown operator of domain {domain!r}")
        if not domain and self._opset(node) > onnx.defs.onnx_opset_version():
            raise UnsupportedError("this opset is newer than the installed onnx package")
        try:
            schema = onnx.defs.get_schema(node.op_type, self._opset(node), domain)
        except onnx.defs.SchemaError:
            raise UnsupportedError("no such operator in this opset") from None
        operands = tuple(self._operand(name) for name in node.input)
        shapes = tuple(
            self.graph.shape(o) if isinstance(o, int) else (() if o is None else o.array.shape)
            for o in operands
        )
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        outputs = max((i for i, name in enumerate(node.output, start=1) if name), default=0)
        types = tuple(self.types.get(name, "") for name in node.input)
        results = tuple(result_types(schema, attributes, types))
        return OnnxNode(
            node.op_type,
            domain,
            schema.since_version,
            node.name,
            attributes,
            operands,
            shapes,
            outputs,
            types,
            results,
        )

    def _operand(self, name: str) -> Constant | int | None:
        if not name:
            return None
        return self.constants[name] if name in self.constants else self.values[name]


def _has(test: Callable[[np.ndarray], np.ndarray], array: np.ndarray) -> bool:
    """Whether the test is true of any float in the array, also in types that NumPy does not know."""
    kind = array.dtype.kind
    return kind in "fV" and bool(test(array if kind == "f" else array.astype(np.float64)).any())
