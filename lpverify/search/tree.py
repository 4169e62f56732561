"""The growing proof tree and the open subproblems."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lpverify.bounds.subproblem import Subproblem
from lpverify.multipliers import Effort, Multipliers
from lpverify.proof import Leaf, NodeTable, Proof, Split, split_columns
from lpverify.verdict import Progress, Unknown, Unsat, Verdict


@dataclass
class Tree:
    """Proof nodes so far; `record` keeps the multipliers of leaves.

    Attributes:
        closed: How many nodes are refuted.
        volume: What they stand for, a case counting 1.
        reductions: As in `Proof`.
    """

    record: bool
    nodes: NodeTable = field(default_factory=NodeTable)
    closed: int = 0
    volume: float = 0.0
    reductions: dict[int, tuple[Effort, ...]] = field(default_factory=dict)

    def root(self, case: int) -> int:
        """Adds the root of a case."""
        return self.nodes.append(1, parent=-1, case=case, weight=1.0)

    def bounded(self, node: int, effort: Effort, clipped: bool, anew: bool = False) -> None:
        """Notes how a node was bounded and whether its children live in its clipped box.

        The first effort counts, because later passes start from its boxes; unless they were made `anew`.
        """
        if anew or not self.nodes.column("effort")[node]:
            self.nodes.column("effort")[node] = self.nodes.effort_number(effort)
        self.nodes.column("clipped")[node] = clipped

    def note(self, node: int, multipliers: Multipliers | None, rows: Sequence[int]) -> None:
        """Keeps what the node's bounds were computed with."""
        self.nodes.multipliers[node], self.nodes.rows[node] = multipliers, tuple(rows)

    def close(self, node: int, leaf: Leaf) -> None:
        """Marks a node as refuted."""
        self.nodes.column("leaf")[node] = True
        if leaf != Leaf():
            self.nodes.leaves[node] = leaf
        self.closed += 1
        self.volume += float(self.nodes.column("weight")[node])

    def child(self, parent: int, split: Split) -> int:
        """Adds a child of a node."""
        case, weight = (self.nodes.column(name)[parent] for name in ("case", "weight"))
        return self.nodes.append(1, parent=parent, case=case, weight=0.5 * weight, **split_columns(split))

    def close_all(self, nodes: np.ndarray) -> None:
        """Marks nodes as refuted by their bounds."""
        self.nodes.column("leaf")[nodes] = True
        self.closed += len(nodes)
        self.volume += float(self.nodes.column("weight")[nodes].sum())

    def children(self, parents: np.ndarray, **columns: object) -> np.ndarray:
        """Adds one child of each of many nodes, with columns of their splits; returns their indices."""
        cases, weights = (self.nodes.column(name)[parents] for name in ("case", "weight"))
        first = self.nodes.append(len(parents), parent=parents, case=cases, weight=0.5 * weights, **columns)
        return np.arange(first, first + len(parents))

    def path(self, node: int) -> list[Split]:
        """The splits from the root to a node."""
        splits: list[Split] = []
        while node >= 0:
            entry = self.nodes.split(node)
            splits += [] if entry is None else [entry]
            node = int(self.nodes.column("parent")[node])
        return splits[::-1]

    def verdict(self, cases: int, stuck: int, progress: Progress) -> Verdict:
        """What a search that has nothing left to look at proves, `stuck` subproblems being undecided."""
        if stuck:
            return Unknown(f"{stuck} subproblem(s) can't be decided within rounding error", progress)
        return Unsat(self.proof(cases), progress)

    def proof(self, cases: int) -> Proof:
        """The finished proof; raises if anything is open."""
        return Proof(cases, self.nodes, self.record, dict(self.reductions))


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
