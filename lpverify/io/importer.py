"""One import: walks the nodes of a model and adds what they stand for to a `Network`.

Subgraphs of constants are folded in `io.folding`. Functions, branches and loops are replaced by their
nodes, see `io.functions` and `io.subgraphs`. Every node that can't be translated is collected, so that
one error lists them all.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.drift import drifted
from lpverify.io.element_types import NAMES, element_type, numpy_type, result_types, with_values
from lpverify.io.folding import fold
from lpverify.io.functions import call, defaults_of, key_of, local_functions, standard_function
from lpverify.io.limits import MAX_RANK, Budget, LimitError
from lpverify.io.lookup import Tables
from lpverify.io.model import Model, Signature
from lpverify.io.node_check import check_agreement, check_node, check_sizes, inferred_shapes
from lpverify.io.opsets import domain_of, read_opsets
from lpverify.io.scopes import Names, Scope, Step, Steps
from lpverify.io.subgraphs import if_steps, loop_steps, scan_steps
from lpverify.io.symbols import SkippedError, Symbols
from lpverify.io.tensors import all_exact, has, read_tensor
from lpverify.ops import REGISTRY
from lpverify.ops.base import Constant, OnnxNode, SelectionOp
from lpverify.ops.cast import Within

MALFORMED = (LookupError, ValueError, TypeError, AttributeError, ArithmeticError, RuntimeError)  # odd files
_SUBGRAPHS: Mapping[str, Callable[[Step, Symbols], Steps]] = {
    "If": if_steps,
    "Loop": loop_steps,
    "Scan": scan_steps,
}


class Importer:
    """One import: the tensors known so far, and the problems found."""

    def __init__(self, proto: Any, budget: Budget) -> None:
        self.proto, self.budget = proto, budget
        self.symbols = Symbols(Names(proto), budget)
        self.graph = self.symbols.graph
        self.functions = local_functions(proto, budget.limits.max_steps)
        self.tables = Tables(self.symbols, proto.opset_import)
        self.problems: dict[str, None] = {}  # in order; iterations of a loop repeat them

    def run(self, data: bytes, path: str) -> Model:
        graph = self.proto.graph
        scope = Scope("", read_opsets(self.proto.opset_import), visible=self.symbols.known)
        self.symbols.define_initializers(graph, scope)
        inputs = self._inputs(graph)
        if "" not in scope.opsets and not all(map(domain_of, graph.node)):
            raise OnnxError("no version of the standard operators is imported")
        self._walk(Step.of(node, node, scope, _label(node, i)) for i, node in enumerate(graph.node))
        if self.problems:
            lines = "\n".join(f"  {problem}" for problem in self.problems)
            raise UnsupportedError(f"{len(self.problems)} unsupported node(s)\n{lines}")
        values, outputs = self._outputs(graph)
        steps = tuple(self.symbols.steps)
        return Model(self.graph.network(values), inputs, outputs, data, path, len(graph.node), steps)

    def _inputs(self, graph: Any) -> Signature:
        """Adds the network's inputs."""
        infos = [info for info in graph.input if not self.symbols.known(info.name)]
        names = tuple(info.name for info in infos)
        if not names:
            raise OnnxError("the model has no input")
        if len(set(names)) < len(names):
            raise OnnxError("two inputs have one name")
        kinds, shapes = zip(*map(_input_type, infos), strict=True)
        signature = Signature(names, shapes, tuple(map(numpy_type, kinds)))
        self.budget.reserve(sum(signature.sizes))
        self.symbols.values.update(zip(names, self.graph.inputs(signature), strict=True))
        self.symbols.declare(names, kinds)
        return signature

    def _outputs(self, graph: Any) -> tuple[list[int], Signature]:
        """Values of the outputs, and what they are."""
        names = tuple(info.name for info in graph.output)
        if not names:
            raise OnnxError("the model has no output")
        self._look_up(names)
        values = [self.symbols.value(name) for name in names]
        shapes = tuple(self.graph.shape(value) for value in values)
        declared = (NAMES.get(info.type.tensor_type.elem_type, "float32") for info in graph.output)
        kinds = [self.symbols.types.get(name) or kind for name, kind in zip(names, declared, strict=True)]
        for info, kind in zip(graph.output, kinds, strict=True):
            if NAMES.get(info.type.tensor_type.elem_type, kind) != kind:
                raise OnnxError(f"output {info.name!r} is declared with another element type than {kind}")
        return values, Signature(names, shapes, tuple(map(numpy_type, kinds)))

    def _walk(self, steps: Steps) -> None:
        """Translates nodes, what they expand to in between; a loop, since that may nest deeply."""
        stack: list[tuple[Steps, Step | None]] = [(steps, None)]
        while stack:
            inner, caller = stack[-1]
            step = None
            with self._blame(caller):
                step = next(inner, None)
            if step is None:
                stack.pop()
                continue
            if caller is not None:
                self.budget.step(step.node.ByteSize())
            with self._blame(step):
                expansion = self._translate(step)
                if expansion is not None:
                    stack.append((expansion, step))

    @contextmanager
    def _blame(self, step: Step | None) -> Iterator[None]:
        """Notes a problem of a step; what uses its results is skipped."""
        try:
            yield
        except LimitError as error:
            raise LimitError(f"{step.label}: {error}" if step else str(error)) from None
        except UnsupportedError as error:
            if step is None:
                raise
            if not isinstance(error, SkippedError):
                self.problems[f"{step.label}, opset {step.opset}: {error}"] = None
            self.symbols.skipped.update(name for name in step.node.output if name)
        except OnnxError as error:
            if step is None or str(error).startswith(step.label):
                raise
            raise OnnxError(f"{step.label}: {error}") from None
        except MALFORMED as error:
            raise OnnxError(f"{step.label if step else ''}: malformed ({error})") from None

    def _translate(self, step: Step) -> Steps | None:
        """Translates one node, leaves it to a table, or returns the nodes that it stands for.

        Raises:
            UnsupportedError: None of that is possible.
        """
        self._check_names(step)
        self.tables.note(step.node)
        if any(name in self.tables.reasons for name in step.node.input) and self._defer(step, ""):
            return None
        self._look_up(step.node.input)
        for name in filter(None, step.node.input):
            self.symbols.check(name)
        try:
            return self._expand(step)
        except (SkippedError, LimitError):
            raise
        except UnsupportedError as error:
            if not self._defer(step, f"{step.label}: {error}"):
                raise
            return None

    def _defer(self, step: Step, reason: str) -> bool:
        """Leaves a node to the table that its results will be looked up in, if it may be part of one."""
        if step.domain or not self.tables.takes(step.node, step.opset):
            return False
        check_node(step.node, {"": step.opset})
        self.symbols.declare(step.node.output, self._result_types(step, _schema(step)))
        self.tables.defer(step.node, reason)
        return True

    def _look_up(self, names: Iterable[str]) -> None:
        """Turns tensors that are left to tables into values."""
        for name in names:
            if name in self.tables.reasons and name not in self.symbols.values:
                op, sources = self.tables.lookup(name)
                self.graph.name = name
                self.symbols.values[name] = self.graph.add(op, [self.symbols.values[s] for s in sources])

    def _expand(self, step: Step) -> Steps | None:
        """Translates one node, or returns the nodes that it stands for."""
        node = step.node
        if self.functions and key_of(node) in self.functions:
            return call(self.functions[key_of(node)], step, self.symbols.names)
        if step.domain:
            raise UnsupportedError(f"operator {step.domain}.{node.op_type} is not supported")
        if node.op_type in _SUBGRAPHS:
            return _SUBGRAPHS[node.op_type](step, self.symbols)
        if node.op_type == "Identity":
            self.symbols.alias(node.input[0], node.output[0])
            return None
        inferred = self._check(step)
        expansion = self._translated(step)
        for name, shape in zip(node.output, inferred, strict=False):
            if name in self.symbols.values or name in self.symbols.constants:
                check_agreement(name, self.symbols.shape(name), shape)
        return expansion

    def _translated(self, step: Step) -> Steps | None:
        """A node of a standard operator without subgraphs."""
        if any(name in self.symbols.values for name in step.node.input):
            return self._computed(step)
        try:
            self._fold(step)
        except LimitError:
            raise
        except UnsupportedError as error:
            return self._unfolded(step, error)
        return None

    def _check(self, step: Step) -> list[list[int | None]]:
        """The shapes that the results must have, as far as they are known.

        Raises:
            OnnxError, UnsupportedError: The node is malformed, or a result would be too large.
        """
        schema, opsets = _schema(step), {"": step.opset}
        check_node(step.node, opsets)
        parsed = self._parse(step, schema)
        shapes = inferred_shapes(step.node, parsed, schema, opsets)
        check_sizes(shapes, parsed, self.budget)
        return shapes

    def _check_names(self, step: Step) -> None:
        symbols = self.symbols
        for name in step.node.input:
            if name and not symbols.known(name):
                raise OnnxError(f"{step.label}: its input {name!r} is defined nowhere before it")
        for name in step.node.output:
            if name and (symbols.known(name) or list(step.node.output).count(name) > 1):
                raise OnnxError(f"{step.label}: its output {name!r} is defined before")

    def _fold(self, step: Step) -> None:
        """A node of constants.

        Raises:
            UnsupportedError: It can't be computed without a rounding error that no one knows.
        """
        folded = fold(step.node, self.symbols.constants, step.opset, self._tensor)
        self.budget.spend(sum(c.array.nbytes for c in folded.values() if step.node.op_type != "Constant"))
        kinds = [] if step.node.op_type == "Constant" else self._parse(step, _schema(step)).result_types
        operands = [self.symbols.constants[name] if name else None for name in step.node.input]
        folded = drifted(step.node.op_type, operands, folded, kinds)
        self.symbols.declare(list(folded), [constant.array.dtype.name for constant in folded.values()])
        self.symbols.declare(step.node.output, kinds)
        self.symbols.constants.update(folded)

    def _tensor(self, tensor: Any, name: str) -> np.ndarray:
        return read_tensor(tensor, name, self.budget.limits)

    def _unfolded(self, step: Step, problem: UnsupportedError) -> Steps | None:
        """A node of constants that can't be folded: its function, or its first float operand as a value.

        The bounds then cover the rounding, if there is an importer.
        """
        schema = _schema(step)
        parsed = self._parse(step, schema)
        known = any((parsed.domain, parsed.op_type) == key[:2] for key in REGISTRY.table)
        for i, operand in enumerate(parsed.operands if known else ()):
            if isinstance(operand, Constant) and operand.array.dtype.kind == "f":
                value = self.symbols.constant_value(operand, parsed.types[i])
                operands = (*parsed.operands[:i], value, *parsed.operands[i + 1 :])
                self._add_values(replace(parsed, operands=operands), step, schema)
                return None
        function = None if known else standard_function(schema, step, parsed)
        if function is None:
            raise problem
        return call(function, step, self.symbols.names, defaults_of(schema))

    def _computed(self, step: Step) -> Steps | None:
        """A node of computed values."""
        schema = _schema(step)
        parsed = self._parse(step, schema)
        if parsed.op_type in ("Shape", "Size"):
            shape = np.asarray(parsed.shapes[0], np.int64)
            part = slice(parsed.attribute("start", 0), parsed.attribute("end"))
            result = shape[part] if parsed.op_type == "Shape" else np.asarray(shape.prod())
            self.symbols.define(step.node.output[0], result)
            return None
        by_function = parsed.op_type == "CastLike"  # then it is one of constants, if its first operand is
        if by_function or (parsed.domain, parsed.op_type, parsed.version) not in REGISTRY.table:
            function = standard_function(schema, step, parsed)
            if function is not None:
                return call(function, step, self.symbols.names, defaults_of(schema))
        self._add_values(parsed, step, schema)
        return None

    def _add_values(self, parsed: OnnxNode, step: Step, schema: Any) -> None:
        node = step.node
        self.graph.name = node.name or node.output[0]
        _check_constants(parsed, schema)
        translate = REGISTRY.find(parsed.domain, parsed.op_type, parsed.version)
        if (parsed.domain, parsed.op_type) not in REGISTRY.whole and any(
            parsed.whole(i) for i, o in enumerate(parsed.operands) if isinstance(o, int)
        ):
            raise UnsupportedError("operands of whole numbers are not supported")
        before = len(self.graph.nodes)
        results = translate(parsed, self.graph)
        outputs = [results] if isinstance(results, int) else list(results)
        kinds = (*parsed.result_types, *[""] * len(outputs))
        outputs = [self._guard(v, before, kind) for v, kind in zip(outputs, kinds, strict=False)]
        outputs = self.symbols.record(parsed, step.label, before, outputs)
        for name in filter(None, node.output[len(outputs) :]):
            self.symbols.untranslated[name] = f"output {name!r} of {parsed.op_type} is not supported"
        pairs = zip(node.output, outputs, strict=False)
        self.symbols.values.update((name, value) for name, value in pairs if name)
        self.symbols.declare(node.output, parsed.result_types)

    def _guard(self, value: int, before: int, kind: str) -> int:
        """The value, with a check that new whole numbers fit in their type."""
        if kind not in Within.RANGES or value < before:
            return value
        done = isinstance(self.graph.nodes[value].op, Within)
        if done or all(isinstance(node.op, SelectionOp) for node in self.graph.nodes[before:]):
            return value
        return self.graph.add(Within.range_of(kind), [value])

    def _parse(self, step: Step, schema: Any) -> OnnxNode:
        from onnx import helper  # noqa: PLC0415

        node = step.node
        types = tuple(self.symbols.types.get(name, "") for name in node.input)
        operands = tuple(self.symbols.operand(name) if name else None for name in node.input)
        shapes = tuple(
            self.graph.shape(o) if isinstance(o, int) else (() if o is None else o.array.shape)
            for o in operands
        )
        return OnnxNode(
            node.op_type,
            step.domain,
            schema.since_version,
            node.name,
            {a.name: helper.get_attribute_value(a) for a in node.attribute},
            operands,
            shapes,
            max((i for i, name in enumerate(node.output, start=1) if name), default=0),
            types,
            tuple(self._result_types(step, schema)),
        )

    def _result_types(self, step: Step, schema: Any) -> list[str]:
        from onnx import helper  # noqa: PLC0415

        attributes = {a.name: helper.get_attribute_value(a) for a in step.node.attribute}
        types = [self.symbols.types.get(name, "") for name in step.node.input]
        return result_types(schema, attributes, types, len(step.node.output))


def _label(node: Any, position: int) -> str:
    name = f" {node.name!r}" if node.name else ""
    return f"node {position}{name} ({node.op_type})"


def _input_type(info: Any) -> tuple[str, tuple[int, ...]]:
    """Element type and shape of an input; a size that the model leaves open is 1."""
    tensor = info.type.tensor_type
    try:
        kind = element_type(tensor.elem_type)
    except UnsupportedError as error:
        raise UnsupportedError(f"input {info.name!r}: {error}") from None
    if not tensor.HasField("shape"):
        raise UnsupportedError(f"input {info.name!r} has no shape")
    if any(d.dim_value < 0 for d in tensor.shape.dim):
        raise OnnxError(f"input {info.name!r} has a negative size")
    if len(tensor.shape.dim) > MAX_RANK:
        raise UnsupportedError(f"input {info.name!r} has more than {MAX_RANK} axes")
    if any(d.HasField("dim_value") and d.dim_value == 0 for d in tensor.shape.dim):
        raise UnsupportedError(f"input {info.name!r} has no elements")
    return kind, tuple(d.dim_value or 1 for d in tensor.shape.dim)


def _schema(step: Step) -> Any:
    """The definition of a node's operator.

    Raises:
        UnsupportedError: There is none.
    """
    import onnx  # noqa: PLC0415

    if not onnx.defs.has(step.node.op_type, step.domain):
        raise UnsupportedError(f"unknown operator of domain {step.domain!r}")
    try:
        return onnx.defs.get_schema(step.node.op_type, step.opset, step.domain)
    except onnx.defs.SchemaError:
        raise UnsupportedError("no such operator in this opset") from None


def _check_constants(parsed: OnnxNode, schema: Any) -> None:
    """Refuses constant operands that are no numbers, or no floats where they count as numbers."""
    constants = {i: o.array for i, o in enumerate(parsed.operands) if isinstance(o, Constant)}
    if parsed.op_type != "Clip" and any(has(np.isinf, array) for array in constants.values()):
        raise UnsupportedError("a constant operand is infinite")
    inexact = [i for i, array in constants.items() if not all_exact(array)]
    if inexact:
        computed = [isinstance(o, int) for o in parsed.operands]
        if not set(inexact).isdisjoint(with_values(schema, computed)):
            raise UnsupportedError("a constant has whole numbers that are not exact as floats")
