"""Drops what does nothing: unused values, and chains of reshapes."""

from lpverify.errors import InternalError
from lpverify.network import Network, Node
from lpverify.ops.shape import Reshape
from lpverify.simplify.base import Pass, Rebuild


class Prune(Pass):
    """Removes values that the output does not depend on; merges a Reshape of a Reshape.

    Ensures: every value but the input is an ancestor of the output.
    """

    def __call__(self, network: Network) -> Network:
        return _drop_unused(Rebuild(network).run(_merge_reshapes))

    def ensure(self, network: Network) -> None:
        if set(range(1, len(network.nodes))) - network.ancestors[network.output]:
            raise InternalError("an unused value is left")


def _merge_reshapes(build: Rebuild, k: int, node: Node) -> Node | int:
    if not isinstance(node.op, Reshape):
        return node
    source = build.nodes[node.inputs[0]]
    while isinstance(source.op, Reshape):
        node = Node(node.op, source.inputs, node.shape, node.name)
        source = build.nodes[node.inputs[0]]
    if source.shape == node.shape:
        return node.inputs[0]
    return Node(Reshape(node.shape, source.shape), node.inputs, node.shape, node.name)


def _drop_unused(network: Network) -> Network:
    used = sorted(network.ancestors[network.output] | {0})
    index = {old: new for new, old in enumerate(used)}
    nodes = tuple(
        Node(n.op, tuple(index[i] for i in n.inputs), n.shape, n.name)
        for n in (network.nodes[k] for k in used)
    )
    return Network(nodes, index[network.output])
