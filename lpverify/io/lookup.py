"""Subgraphs that pick constants by computed whole numbers: run once for each key instead of translated.

A slice with computed bounds has no fixed shape, a range or a scatter with computed indices no weights. But
where such a subgraph starts from a few whole numbers and ends in a tensor of fixed shape, it is a table.
Only nodes that are exact are taken in: data movement, and arithmetic on whole numbers.
"""

from dataclasses import dataclass, field
from functools import cached_property
from math import inf, prod
from typing import Any

import numpy as np

from lpverify.errors import UnsupportedError
from lpverify.io.element_types import numpy_type
from lpverify.io.folding import MOVES, WHOLE, names_of
from lpverify.io.symbols import Symbols
from lpverify.ops.base import is_whole
from lpverify.ops.lookup import Lookup

_CARRY = names_of(  # every element of the result is one of an operand, or of a constant attribute
    "Concat ConstantOfShape DepthToSpace Expand Flatten Gather GatherElements GatherND Identity Reshape",
    "ScatterElements ScatterND Slice SpaceToDepth Split Squeeze Tile Transpose Unsqueeze Where",
)
STARTERS = names_of(  # whose result has a shape, or a choice, that numbers decide
    "Compress ConstantOfShape Expand Gather GatherElements GatherND NonZero OneHot Pad Range Reshape",
    "ScatterElements ScatterND Slice Split Squeeze Tile TopK Trilu Unsqueeze",
)
MOST_EXACT = 2**53
MOST_NUMBERS = 4  # that a table may depend on
CACHED_ELEMENTS = 2**23


@dataclass
class Tables:
    """The nodes of one graph that could not be translated but may belong to a table.

    Attributes:
        symbols: Of the importer.
        opsets: The model's opset imports.
        nodes: Which node makes a tensor.
    """

    symbols: Symbols
    opsets: Any
    nodes: dict[str, Any] = field(default_factory=dict)

    @property
    def reasons(self) -> dict[str, str]:
        """Why a deferred tensor's node could not be translated."""
        return self.symbols.deferred

    def note(self, node: Any) -> None:
        """Remembers who makes what."""
        self.nodes.update((name, node) for name in node.output if name)

    def takes(self, node: Any, opset: int) -> bool:
        """Whether a node may be deferred: exact, on constants, whole numbers and deferred tensors.

        A table begins with a node that needs numbers as constants, and goes on with any.
        """
        if opset not in [o.version for o in self.opsets if o.domain in ("", "ai.onnx")]:
            return False
        if node.op_type not in STARTERS and not any(name in self.reasons for name in node.input):
            return False
        return self._exact(node) and any(n and n not in self.symbols.constants for n in node.input)

    def defer(self, node: Any, reason: str) -> None:
        """Leaves a node to whoever needs its results; without a reason it has that of its operands."""
        inherited = (self.reasons[name] for name in node.input if name in self.reasons)
        reason = reason or next(inherited, "")
        self.reasons.update((name, reason) for name in node.output if name)

    def _kind(self, name: str) -> str:
        return self.symbols.types.get(name, "")

    def _exact(self, node: Any) -> bool:
        """Whether a node moves data or computes with whole numbers, and reads nothing else."""
        if node.domain not in ("", "ai.onnx") or any(a.HasField("g") for a in node.attribute):
            return False
        names = [name for name in node.input if name]
        whole = all(is_whole(self._kind(name)) for name in names)
        readable = all(
            n in self.symbols.constants or n in self.reasons or is_whole(self._kind(n)) for n in names
        )
        moves = node.op_type in MOVES and node.op_type != "Dropout"  # which may be random
        return readable and (moves or (node.op_type in WHOLE and whole))

    def lookup(self, name: str) -> tuple[Lookup, list[str]]:
        """The op that makes a deferred tensor, and the tensors of whole numbers it depends on.

        Raises:
            UnsupportedError: It depends on too many numbers, or has no fixed shape.
        """
        nodes, sources = self._slice(name)
        if not sources or not all(s in self.symbols.values for s in sources):
            raise UnsupportedError(self.reasons[name])
        shapes = tuple(self.symbols.shape(s) for s in sources)
        count = sum(map(prod, shapes))
        table = Table(self._model(name, nodes, sources, shapes), name, shapes)
        sample = table((0,) * count) if count <= MOST_NUMBERS else None
        if sample is None:
            raise UnsupportedError(self.reasons[name])
        table.shape = sample.shape
        return Lookup(table, sample.shape, self._span(nodes)), sources

    def _slice(self, name: str) -> tuple[list[Any], list[str]]:
        """The nodes behind a tensor in order, back to the whole numbers that are not made from others."""
        order = {id(node): i for i, node in enumerate(self.nodes.values())}
        nodes: dict[int, Any] = {}
        sources: list[str] = []
        seen, stack = set(), [name]
        while stack:
            tensor = stack.pop()
            if not tensor or tensor in seen or tensor in self.symbols.constants:
                continue
            seen.add(tensor)
            node = self.nodes.get(tensor)
            if node is not None and self._exact(node):
                nodes[id(node)] = node
                stack.extend(node.input)
            else:
                sources.append(tensor)
        return sorted(nodes.values(), key=lambda n: order[id(n)]), sorted(sources)

    def _model(
        self, name: str, nodes: list[Any], sources: list[str], shapes: tuple[tuple[int, ...], ...]
    ) -> bytes:
        from onnx import helper, numpy_helper  # noqa: PLC0415

        used = sorted({i for node in nodes for i in node.input if i in self.symbols.constants})
        constants = [numpy_helper.from_array(self._array(i), i) for i in used]
        inputs = [
            helper.make_tensor_value_info(s, self._code(s), shape)
            for s, shape in zip(sources, shapes, strict=True)
        ]
        outputs = [helper.make_tensor_value_info(name, self._code(name), None)]
        graph = helper.make_graph(nodes, "table", inputs, outputs, constants)
        return bytes(helper.make_model(graph, opset_imports=self.opsets, ir_version=8).SerializeToString())

    def _code(self, name: str) -> int:
        from onnx import helper  # noqa: PLC0415

        return int(helper.np_dtype_to_tensor_dtype(np.dtype(numpy_type(self._kind(name)))))

    def _array(self, name: str) -> np.ndarray:
        """A constant in the type that the model declares."""
        constant = self.symbols.constants[name]
        array: np.ndarray = constant.array.astype(numpy_type(self._kind(name)))
        if constant.error or constant.drift or (array != constant.array).any():
            raise UnsupportedError(f"the constant {name!r} is rounded")
        return np.asarray(array)

    def _span(self, nodes: list[Any]) -> tuple[float, float]:
        """Least and largest of all floats in the table, where it only moves them."""
        from onnx import numpy_helper  # noqa: PLC0415

        floats = [0.0]
        for node in nodes:
            whole = [is_whole(self._kind(n)) for n in node.output]
            if (node.op_type not in _CARRY and not all(whole)) or (node is nodes[-1] and any(whole)):
                return -inf, inf
            values = [numpy_helper.to_array(a.t) for a in node.attribute if a.HasField("t")]
            values += [c.array for c in map(self.symbols.constants.get, node.input) if c is not None]
            values = [a for a in values if a.dtype.kind == "f" and a.size]
            floats += [v for a in values for v in (float(a.min()), float(a.max()))]
        return min(floats), max(floats)


@dataclass
class Table:
    """Runs a subgraph for a key; no result where it fails, has another shape or is not finite."""

    serialized: bytes
    output: str
    shapes: tuple[tuple[int, ...], ...]
    shape: tuple[int, ...] | None = None
    _known: dict[tuple[int, ...], np.ndarray | None] = field(default_factory=dict, repr=False)

    @cached_property
    def _session(self) -> Any:
        import onnxruntime  # noqa: PLC0415

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        return onnxruntime.InferenceSession(self.serialized, options, providers=["CPUExecutionProvider"])

    def __call__(self, key: tuple[int, ...]) -> np.ndarray | None:
        if key not in self._known:
            value = self._run(key)
            if value is not None and len(self._known) * value.size > CACHED_ELEMENTS:
                self._known.clear()
            self._known[key] = value
        return self._known[key]

    def _run(self, key: tuple[int, ...]) -> np.ndarray | None:
        feeds, start = {}, 0
        try:
            entries = self._session.get_inputs()
        except Exception:  # noqa: BLE001  (onnxruntime's exception types are its own)
            return None
        for entry, shape in zip(entries, self.shapes, strict=True):
            size = prod(shape)
            kind = {"tensor(bool)": "bool"}.get(entry.type, entry.type.removeprefix("tensor(")[:-1])
            feeds[entry.name] = np.array(key[start : start + size]).astype(kind).reshape(shape)
            start += size
        try:
            value = np.asarray(self._session.run([self.output], feeds)[0])
        except Exception:  # noqa: BLE001  (onnxruntime's exception types are its own)
            return None
        usable = self.shape is None or value.shape == self.shape
        exact = value.dtype.kind == "f" or bool((np.abs(value.astype(np.float64)) <= MOST_EXACT).all())
        return value if usable and exact and bool(np.isfinite(value).all()) else None
