"""What a pass is, and the walk that most of them share."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from lpverify.network import Network, Node


class Pass(ABC):
    """Network -> network with the same function over the reals, same input and output shape."""

    @abstractmethod
    def __call__(self, network: Network) -> Network:
        """The rewritten network; the argument is not changed."""

    def ensure(self, network: Network) -> None:
        """Checks what holds after the pass; raises InternalError if it doesn't."""
        del network


@dataclass
class Rebuild:
    """A network under reconstruction: old values map to new ones.

    Attributes:
        source: The network that is rewritten.
        nodes: The new nodes so far.
        index: New index of each old value that is done.
    """

    source: Network
    nodes: list[Node] = field(default_factory=list)
    index: dict[int, int] = field(default_factory=dict)

    def run(self, rule: Callable[["Rebuild", int, Node], Node | int]) -> Network:
        """Visits all nodes in order.

        Args:
            rule: Gets each node with its new operand indices; returns a node to append, or the index of an
                earlier new value that stands for it.
        """
        for k, node in enumerate(self.source.nodes):
            moved = replace(node, inputs=tuple(self.index[i] for i in node.inputs))
            result = rule(self, k, moved)
            if isinstance(result, Node):
                self.nodes.append(result)
                result = len(self.nodes) - 1
            self.index[k] = result
        return Network(tuple(self.nodes), self.index[self.source.output])

    def single(self, k: int) -> bool:
        """Whether old value `k` has one consumer, so that its op may be changed in place."""
        return self.source.consumers[k] == 1
