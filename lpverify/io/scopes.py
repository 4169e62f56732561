"""Names inside of functions and subgraphs: every tensor gets a name that is unique in the whole import.

The importer knows a flat list of nodes. A body that is put into it, once for each call or iteration,
comes with a `Scope` that says which of the importer's tensors its names stand for.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any, TypeAlias

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.graphs import graphs_of
from lpverify.io.opsets import domain_of

GRAPH_TYPES = (5, 10)  # AttributeProto: a graph, graphs


@dataclass(frozen=True, slots=True)
class Step:
    """One node to be imported.

    Attributes:
        node: With the importer's names of tensors, without subgraphs unless it is of the main graph.
        source: The node as it is in the file.
        scope: Of the names in the source.
        label: What it is called in messages.
        domain: Of the operator; empty for standard ones.
    """

    node: Any
    source: Any
    scope: "Scope"
    label: str
    domain: str

    @classmethod
    def of(cls, node: Any, source: Any, scope: "Scope", label: str) -> "Step":
        """With the domain in its short spelling."""
        return cls(node, source, scope, label, domain_of(node))

    @property
    def opset(self) -> int:
        """The version of the operator's domain; 0 when the model or function imports none."""
        return self.scope.opsets.get(self.domain, 0)

    def graph(self, attribute: str) -> Any:
        """A subgraph of the node."""
        found = [a.g for a in self.source.attribute if a.name == attribute and a.HasField("g")]
        if len(found) != 1:
            raise OnnxError(f"{self.label}: it has no {attribute!r}")
        return found[0]


Steps: TypeAlias = Iterator[Step]


class Names:
    """A source of prefixes with which no name of the model begins."""

    def __init__(self, proto: Any) -> None:
        self.proto = proto
        self._marks = ""
        self._numbers = count()

    def fresh(self) -> str:
        """A new prefix; no two scopes share one."""
        if not self._marks:  # the first function or subgraph
            longest = max((len(n) - len(n.lstrip("@")) for n in _all_names(self.proto)), default=0)
            self._marks = "@" * (longest + 1)
        return f"{self._marks}{next(self._numbers)}/"


def _all_names(proto: Any) -> Iterator[str]:
    """Names of all tensors in the model."""
    for nodes, graph in graphs_of(proto):
        for node in nodes:
            yield from node.input
            yield from node.output
        for part in (graph.input, graph.output, graph.initializer) if graph is not None else ():
            yield from (item.name for item in part)
        yield from (s.values.name for s in (graph.sparse_initializer if graph is not None else ()))


class Scope:
    """The names of one body.

    Args:
        prefix: Of the importer's names for what the body defines; empty for the main graph.
        opsets: Versions by domain.
        outer: Whose names can be seen too; None for the main graph and for functions.
        attributes: Of the function call around it, by name.
        visible: For the main graph: whether a tensor of that name was defined so far.
    """

    def __init__(
        self,
        prefix: str,
        opsets: Mapping[str, int],
        outer: "Scope | None" = None,
        attributes: Mapping[str, Any] | None = None,
        visible: Callable[[str], bool] = lambda name: False,
    ) -> None:
        self.prefix, self.opsets, self.outer = prefix, opsets, outer
        self.attributes = attributes or {}
        self._visible = visible
        self._names: dict[str, str] = {}

    def inner(self, prefix: str) -> "Scope":
        """Of a subgraph of one of its nodes."""
        return Scope(prefix, self.opsets, self, self.attributes)

    def _find(self, name: str) -> "Scope | None":
        """The scope that a name belongs to, None if it is unknown."""
        scope: Scope | None = self
        while scope is not None:
            if name in scope._names or scope._visible(name):
                return scope
            scope = scope.outer
        return None

    def use(self, name: str) -> str:
        """The importer's name of a tensor that is read; for unknown ones a name that is defined nowhere."""
        if not name:
            return ""
        scope = self._find(name)
        return self.prefix + name if scope is None else scope._names.get(name, name)

    def bind(self, name: str, target: str) -> None:
        """Lets a formal input stand for a tensor of the importer; empty when it is omitted.

        Raises:
            OnnxError: The name is taken.
        """
        if not name or self._find(name) is not None:
            raise OnnxError(f"a subgraph or function defines {name!r}, which is defined before")
        self._names[name] = target

    def define(self, name: str) -> str:
        """The importer's name of a tensor that the body defines; raises as `bind`."""
        if not self.prefix:
            return name  # of the main graph; the importer looks for duplicates itself
        self.bind(name, self.prefix + name)
        return self.prefix + name

    def step(self, node: Any, label: str) -> Step:
        """A node of the body, in the importer's names."""
        from onnx import NodeProto  # noqa: PLC0415  (slow to import)

        copy = NodeProto(
            op_type=node.op_type,
            domain=node.domain,
            overload=node.overload,
            name=node.name,
            input=[self.use(name) for name in node.input],
            output=[name and self.define(name) for name in node.output],
        )
        copy.attribute.extend(filter(None, map(self._attribute, node.attribute)))
        name = f" {node.name!r}" if node.name else ""
        return Step.of(copy, node, self, f"{label}, inside: {node.op_type}{name}")

    def _attribute(self, attribute: Any) -> Any | None:
        """The attribute, with the call's in the place of a reference; None for graphs and what is unset."""
        from onnx import AttributeProto  # noqa: PLC0415

        if not attribute.ref_attr_name:
            return None if attribute.type in GRAPH_TYPES or attribute.HasField("g") else attribute
        given = self.attributes.get(attribute.ref_attr_name)
        if given is None:
            return None
        if given.type in GRAPH_TYPES:
            raise UnsupportedError("a graph that is passed to a function")
        copy = AttributeProto()
        copy.CopyFrom(given)
        copy.name = attribute.name
        return copy

    def alias(self, source: str, target: str, label: str) -> Step:
        """A node that gives the importer's tensor `source` another name."""
        return self.emit("Identity", [source], target, label)

    def emit(self, op_type: str, inputs: Sequence[str], output: str, label: str, **attributes: Any) -> Step:
        """A node in the importer's names that is in no file."""
        from onnx import helper  # noqa: PLC0415

        node = helper.make_node(op_type, inputs, [output], **attributes)
        return Step.of(node, node, self, label)
