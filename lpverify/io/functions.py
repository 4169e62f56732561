"""Calls of functions, put into the caller node by node.

Functions are those of the model, and those that the ONNX standard defines its own operators by.
"""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypeAlias

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.element_types import type_number
from lpverify.io.graphs import nested
from lpverify.io.opsets import domain_of, read_opsets
from lpverify.io.scopes import Names, Scope, Step, Steps
from lpverify.ops.base import OnnxNode

_Key: TypeAlias = tuple[str, str, str]


def local_functions(proto: Any, max_steps: int) -> dict[_Key, Any]:
    """The model's functions by domain, name and overload.

    Args:
        proto: The model.
        max_steps: Nodes that a call may expand to.

    Raises:
        OnnxError: A function is defined twice, or calls itself.
        UnsupportedError: One is named like a standard operator, or becomes too large with what it calls.
    """
    import onnx  # noqa: PLC0415  (slow to import)

    table: dict[_Key, Any] = {}
    for function in proto.functions:
        key = (domain_of(function), function.name, function.overload)
        if key in table:
            raise OnnxError(f"function {function.name!r} is defined twice")
        if onnx.defs.has(function.name, key[0]):
            raise UnsupportedError(f"function {function.name!r} is named like a standard operator")
        table[key] = function
    _check_sizes(table, max_steps)
    return table


def key_of(node: Any) -> _Key:
    """What a node calls."""
    return domain_of(node), node.op_type, node.overload


def _check_sizes(table: Mapping[_Key, Any], max_steps: int) -> None:
    """Finds circles and explosions before anything is expanded; a loop, since calls may nest deeply."""
    calls = {key: _calls(function, table) for key, function in table.items()}
    sizes: dict[_Key, int] = {}
    for start in table:
        path: dict[_Key, int] = {start: 0}  # the callers at work, each with its next call
        while path:
            key, position = next(reversed(path.items()))
            inner, own = calls[key]
            if position < len(inner):
                path[key] += 1
                if inner[position] in path:
                    raise OnnxError(f"function {inner[position][1]!r} calls itself")
                if inner[position] not in sizes:
                    path[inner[position]] = 0
                continue
            sizes[key] = own + sum(sizes[k] for k in inner)
            if sizes[key] > max_steps:
                raise UnsupportedError(f"function {key[1]!r} expands to more than {max_steps} nodes")
            del path[key]


def _calls(function: Any, table: Mapping[_Key, Any]) -> tuple[list[_Key], int]:
    """What a function calls, and how many nodes it has."""
    nodes = [node for graph, _ in nested(function.node, None) for node in graph]
    return [key for key in map(key_of, nodes) if key in table], len(nodes)


def standard_function(schema: Any, step: Step, parsed: OnnxNode) -> Any | None:
    """The function that the standard defines an operator by; None if it has none.

    Of several ones, which differ in the opset of their nodes, the newest that the caller's opset allows.

    Raises:
        UnsupportedError: The element type of an operand is not known.
    """
    import onnx  # noqa: PLC0415

    dependent = [v for v in schema.context_dependent_function_opset_versions if v <= step.opset]
    fixed = [v for v in schema.function_opset_versions if v <= step.opset]
    if dependent:
        types = [
            _type_proto(*given) for given in zip(parsed.types, parsed.shapes, parsed.operands, strict=True)
        ]
        data = schema.get_context_dependent_function_with_opset_version(
            max(dependent), step.node.SerializeToString(), [t.SerializeToString() for t in types]
        )
    else:
        data = schema.get_function_with_opset_version(max(fixed)) if fixed else None
    return onnx.FunctionProto.FromString(data) if data else None


def _type_proto(kind: str, shape: tuple[int, ...], operand: object) -> Any:
    """The type of an operand as ONNX has it, empty when it is omitted."""
    from onnx import TypeProto, helper  # noqa: PLC0415

    return TypeProto() if operand is None else helper.make_tensor_type_proto(type_number(kind), shape)


def defaults_of(schema: Any) -> list[Any]:
    """The attributes that a call of a standard operator has without being written."""
    values = [attribute.default_value for attribute in schema.attributes.values()]
    return [value for value in values if value.type]


def call(function: Any, step: Step, names: Names, defaults: Sequence[Any] = ()) -> Steps:
    """The nodes of a function in the place of a node that calls it.

    Raises:
        OnnxError: Operands, results or names do not fit.
    """
    node = step.node
    if len(node.input) > len(function.input) or len(node.output) > len(function.output):
        raise OnnxError(f"{step.label}: the function has fewer inputs or outputs")
    attributes = {a.name: a for a in (*defaults, *function.attribute_proto, *node.attribute)}
    scope = Scope(names.fresh(), read_opsets(function.opset_import), attributes=attributes)
    for formal, actual in zip_longest(function.input, node.input, fillvalue=""):
        scope.bind(formal, actual)
    for inner in function.node:
        yield scope.step(inner, step.label)
    for formal, result in zip(function.output, node.output, strict=False):
        if result:
            yield scope.alias(scope.use(formal), result, step.label)
