"""The growing proof tree and the open subproblems."""

from collections.abc import Sequence
from dataclasses import dataclass, field

from lpverify.bounds.subproblem import Subproblem
from lpverify.multipliers import Effort, Multipliers
from lpverify.verdict import Leaf, Proof, ProofNode, Split


@dataclass
class Tree:
    """Proof nodes so far; `record` keeps the multipliers of leaves."""

    record: bool
    nodes: list[ProofNode] = field(default_factory=list)
    closed: int = 0

    def root(self, case: int) -> int:
        """Adds the root of a case."""
        self.nodes.append(ProofNode(-1, case, None))
        return len(self.nodes) - 1

    def bounded(self, node: int, effort: Effort, clipped: bool) -> None:
        """Notes how a node was bounded and whether its children live in its clipped box."""
        entry = self.nodes[node]
        entry.effort, entry.clipped = entry.effort or effort, clipped

    def note(self, node: int, multipliers: Multipliers | None, rows: Sequence[int]) -> None:
        """Keeps what the node's bounds were computed with."""
        self.nodes[node].multipliers, self.nodes[node].rows = multipliers, tuple(rows)

    def close(self, node: int, leaf: Leaf) -> None:
        """Marks a node as refuted."""
        self.nodes[node].leaf = leaf
        self.closed += 1

    def child(self, parent: int, split: Split) -> int:
        """Adds a child of a node."""
        self.nodes.append(ProofNode(parent, self.nodes[parent].case, split))
        self.nodes[parent].children.append(len(self.nodes) - 1)
        return len(self.nodes) - 1

    def proof(self, cases: int) -> Proof:
        """The finished proof; raises if anything is open."""
        return Proof(cases, self.nodes, self.record)


@dataclass
class Frontier:
    """Open subproblems: a stack (the last pushed is the most promising), with best-bound restarts."""

    items: list[Subproblem] = field(default_factory=list)
    rounds: int = 0
    restart_every: int = 16

    def push(self, items: Sequence[Subproblem]) -> None:
        """Adds subproblems; the one with the worst margin is looked at first."""
        self.items.extend(sorted(items, key=lambda s: -s.margin))

    def take(self, count: int) -> list[Subproblem]:
        """Removes up to `count` subproblems."""
        self.rounds += 1
        if self.rounds % self.restart_every == 0:
            self.items.sort(key=lambda s: -s.margin)
        taken, self.items = self.items[-count:], self.items[:-count]
        return taken

    @property
    def margin(self) -> float:
        """The worst margin that is open."""
        return min((s.margin for s in self.items), default=float("inf"))
