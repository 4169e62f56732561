"""The growing proof tree and the open subproblems."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lpverify.bounds.evaluate import Arithmetic, Batch
from lpverify.bounds.propagate import Region
from lpverify.interval import Array, Box, namespace
from lpverify.multipliers import Effort, Multipliers
from lpverify.verdict import Leaf, PhaseSplit, Proof, ProofNode, Split


@dataclass(frozen=True)
class Subproblem:
    """One open case of the search.

    Attributes:
        node: Its index in the proof tree.
        case: Index of its case in the problem.
        lower: Input box, float64 `(n,)`.
        upper: The same.
        known: Boxes of pre-activation values that hold here, without batch axis.
        phases: Phase splits on the path.
        margin: Best proven margin of an ancestor; positive would be refuted.
        warm: Multipliers of the parent, without batch axis.
    """

    node: int
    case: int
    lower: np.ndarray
    upper: np.ndarray
    known: Mapping[int, tuple[Array, Array]] = field(default_factory=dict)
    phases: tuple[PhaseSplit, ...] = ()
    margin: float = float("-inf")
    warm: Multipliers | None = None


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

    def bounded(self, node: int, effort: Effort, multipliers: Multipliers | None, clipped: bool) -> None:
        """Notes how a node was bounded and whether its children live in its clipped box."""
        entry = self.nodes[node]
        entry.effort, entry.clipped = effort, clipped
        if self.record and clipped:
            entry.multipliers = multipliers

    def close(self, node: int, leaf: Leaf) -> None:
        """Marks a node as refuted."""
        self.nodes[node].leaf = leaf if self.record or leaf.combinations else Leaf()
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


def make_batch(items: Sequence[Subproblem], arithmetic: Arithmetic) -> Batch:
    """Stacks subproblems."""
    box = arithmetic.box(np.stack([s.lower for s in items]), np.stack([s.upper for s in items]))
    xp = namespace(box.lower)
    known = {
        k: Box(xp.stack([s.known[k][0] for s in items]), xp.stack([s.known[k][1] for s in items]))
        for k in items[0].known
        if all(k in s.known for s in items)
    }
    cases = np.array([s.case for s in items])
    return Batch(cases, Region(box, known), _signs(items, arithmetic))


def _signs(items: Sequence[Subproblem], arithmetic: Arithmetic) -> dict[int, Array]:
    """+1 and -1 at the split elements of each split value, `(B, *shape)`."""
    network = arithmetic.network
    signs: dict[int, np.ndarray] = {}
    for i, item in enumerate(items):
        for split in item.phases:
            shape = network.nodes[split.value].shape
            if split.value not in signs:
                signs[split.value] = np.zeros((len(items), int(np.prod(shape))))
            signs[split.value][i, split.element] = 1.0 if split.active else -1.0
    return {k: arithmetic.array(v.reshape(-1, *network.nodes[k].shape)) for k, v in signs.items()}


def make_warm(
    items: Sequence[Subproblem], signs: Mapping[int, Array], rows: int, like: Array
) -> Multipliers | None:
    """Stacks the parents' multipliers where all have them with that many rows; new betas are zero."""
    if any(s.warm is None or any(v.shape[0] != rows for v in s.warm.alpha.values()) for s in items):
        return None
    warms = [s.warm for s in items if s.warm is not None]
    xp = namespace(like)
    alpha = {k: xp.stack([w.alpha[k] for w in warms]) for k in warms[0].alpha}
    beta = {}
    for k, sign in signs.items():
        zero = xp.zeros((rows, *sign.shape[1:]), dtype=like.dtype, device=like.device)
        beta[k] = xp.stack([w.beta.get(k, zero) for w in warms])
    return Multipliers(alpha, beta)


def with_warm(item: Subproblem, warm: Multipliers | None) -> Subproblem:
    """The subproblem with other starting multipliers."""
    return replace(item, warm=warm)
