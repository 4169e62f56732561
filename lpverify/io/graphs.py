"""The graphs of a model, from the main one to those inside of nodes and functions."""

from collections.abc import Iterator, Sequence
from typing import Any


def graphs_of(proto: Any) -> Iterator[tuple[Sequence[Any], Any | None]]:
    """Nodes of every graph with the graph itself; None for the body of a function."""
    yield from nested(proto.graph.node, proto.graph)
    for function in proto.functions:
        yield from nested(function.node, None)


def nested(nodes: Sequence[Any], graph: Any | None) -> Iterator[tuple[Sequence[Any], Any | None]]:
    """The same for one graph with the subgraphs of its nodes; a loop, since they may nest deeply."""
    work = [(nodes, graph)]
    while work:
        nodes, graph = work.pop()
        yield nodes, graph
        for node in nodes:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    work.append((attribute.g.node, attribute.g))
                work.extend((inner.node, inner) for inner in attribute.graphs)
