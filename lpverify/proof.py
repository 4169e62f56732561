"""Evidence that something is impossible: trees of splits whose leaves are refuted.

Nodes are kept in columns, because a search may make a million of them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias, overload

import numpy as np

from lpverify.errors import InternalError
from lpverify.multipliers import Effort, Multipliers


@dataclass(frozen=True, slots=True)
class InputSplit:
    """`x[index] <= point`, or `>= point` when `upper`."""

    index: int
    point: float
    upper: bool

    def opposite(self) -> "InputSplit":
        """The other side."""
        return replace(self, upper=not self.upper)


@dataclass(frozen=True, slots=True)
class NeuronSplit:
    """`z >= point` when `upper`, else `z <= point`, for one flat element of an operand of a nonlinear node.

    For step functions it matters which side has the point itself: the upper one if `above`, else the lower.
    """

    value: int
    element: int
    upper: bool
    point: float = 0.0
    above: bool = True

    def opposite(self) -> "NeuronSplit":
        """The other side."""
        return replace(self, upper=not self.upper)


Split: TypeAlias = InputSplit | NeuronSplit


@dataclass(frozen=True, slots=True)
class Combination:
    """Non-negative multipliers of one alternative of a condition (Farkas).

    Attributes:
        atoms: The alternative's atoms; all must hold together in a counterexample.
        weights: Multipliers of their forms, same length.
        splits: Multipliers of the region's neuron splits, in their order.
    """

    atoms: tuple[int, ...]
    weights: tuple[float, ...]
    splits: tuple[float, ...]


@dataclass
class PhaseTree:
    """Refutes one alternative of a condition on a region by fixing ReLU phases in its linear program.

    Nodes are in columns, the root first; each inner node has the two phases of one neuron below it.

    Attributes:
        atoms: The alternative's atoms; all must hold together in a counterexample.
        recorded: Whether leaves keep their multipliers.
        parent: Of each node, -1 for the root.
        neuron: Position among the neurons of the region's phase program; -1 for the root.
        sign: The phase: 1 active, -1 inactive.
        multipliers: Of leaves: which rows of the program have one, and what it is.
    """

    atoms: tuple[int, ...]
    recorded: bool = True
    parent: list[int] = field(default_factory=lambda: [-1])
    neuron: list[int] = field(default_factory=lambda: [-1])
    sign: list[int] = field(default_factory=lambda: [0])
    multipliers: dict[int, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)

    def add(self, parent: int, neuron: int, sign: int) -> int:
        """Opens a child; returns its index."""
        self.parent.append(parent)
        self.neuron.append(neuron)
        self.sign.append(sign)
        return len(self.parent) - 1

    def close(self, index: int, multipliers: np.ndarray) -> None:
        """Makes a node a leaf."""
        used = np.flatnonzero(multipliers) if self.recorded else np.zeros(0, np.int64)
        self.multipliers[index] = used.astype(np.int32), multipliers[used]

    def signs(self, index: int, neurons: int) -> np.ndarray:
        """The phases of a node, `(neurons,)`: 1 active, -1 inactive, 0 either."""
        result = np.zeros(neurons, np.int8)
        while index > 0:
            result[self.neuron[index]] = self.sign[index]
            index = self.parent[index]
        return result

    def complete(self) -> bool:
        """Whether each node is a leaf, or has below it both phases of one neuron and nothing else."""
        below: dict[int, list[tuple[int, int]]] = {}
        if self.parent[:1] != [-1]:
            return False
        for i in range(1, len(self.parent)):
            if not 0 <= self.parent[i] < i:
                return False
            below.setdefault(self.parent[i], []).append((self.neuron[i], self.sign[i]))
        for i in range(len(self.parent)):
            children = sorted(below.get(i, []))
            if (i in self.multipliers) == bool(children):
                return False
            if children and children != [(children[0][0], -1), (children[0][0], 1)]:
                return False
        return True


@dataclass(frozen=True, slots=True)
class Leaf:
    """Why a subproblem has no solution: its node's bounds, or evidence for each alternative.

    Attributes:
        combinations: One for each alternative, where the network is linear.
        trees: One for each alternative that the node's bounds do not refute.
        reduction: A proof about the reduced network of the region, a root.
    """

    combinations: tuple[Combination, ...] | None = None
    trees: tuple[PhaseTree, ...] | None = None
    reduction: "Reduction | None" = None


@dataclass(frozen=True, slots=True)
class Reduction:
    """What refutes a region by way of its reduced network (`bounds.reduce`).

    Attributes:
        kept: For each ReLU's operand the flat elements that remain.
        proof: Its cases are the alternatives of the region's case; None: the region has no point at all.
    """

    kept: Mapping[int, np.ndarray]
    proof: "Proof | None"


@dataclass(slots=True)
class ProofNode:
    """One subproblem of the proof tree.

    Attributes:
        parent: Index of the parent, -1 for the root of a case.
        case: Index of its case.
        split: What it adds to the parent.
        effort: How its boxes were first bounded; later passes only start from those.
        clipped: Its children live in the box clipped by its own linear bounds.
        multipliers: Those of its bounds, when recorded.
        rows: The forms that they bound, as positions among the case's forms.
        leaf: Set when refuted.
        children: How many children were opened.
    """

    parent: int
    case: int
    split: Split | None
    effort: Effort | None = None
    clipped: bool = False
    multipliers: Multipliers | None = None
    rows: tuple[int, ...] | None = None
    leaf: Leaf | None = None
    children: list[int] = field(default_factory=list)


_COLUMNS: dict[str, type] = {
    "parent": np.int64,
    "case": np.int32,
    "kind": np.int8,  # of the split: 0 none, 1 of an input, 2 of a neuron
    "value": np.int32,
    "element": np.int32,
    "point": np.float64,
    "upper": np.bool_,
    "above": np.bool_,
    "leaf": np.bool_,
    "clipped": np.bool_,
    "effort": np.int16,
    "weight": np.float64,  # share of its root that a node stands for: half of its parent's
}


class NodeTable(Sequence[ProofNode]):
    """Proof nodes in columns, parents before children; what few nodes have is in dictionaries."""

    def __init__(self) -> None:
        self._columns: dict[str, np.ndarray] = {name: np.zeros(16, dtype) for name, dtype in _COLUMNS.items()}
        self._size = 0
        self._efforts: list[Effort | None] = [None]
        self._order = self._starts = np.zeros(0, np.int64)  # nodes by parent, as of some size
        self.multipliers: dict[int, Multipliers | None] = {}
        self.rows: dict[int, tuple[int, ...]] = {}
        self.leaves: dict[int, Leaf] = {}  # those that are more than "refuted by bounds"

    def __len__(self) -> int:
        return self._size

    @overload
    def __getitem__(self, index: int) -> ProofNode: ...
    @overload
    def __getitem__(self, index: slice) -> list[ProofNode]: ...
    def __getitem__(self, index: int | slice) -> ProofNode | list[ProofNode]:
        if isinstance(index, slice):
            return [self[k] for k in range(*index.indices(self._size))]
        if not 0 <= index < self._size:
            raise IndexError(index)
        row = self._row(index)
        leaf = self.leaves.get(index, Leaf()) if row["leaf"] else None
        children = self._children_of(index)
        return ProofNode(
            row["parent"],
            row["case"],
            _split(row),
            self._efforts[row["effort"]],
            row["clipped"],
            self.multipliers.get(index),
            self.rows.get(index),
            leaf,
            children,
        )

    def _row(self, index: int) -> dict[str, Any]:
        return {name: column[index].item() for name, column in self._columns.items()}

    def split(self, index: int) -> Split | None:
        """What a node adds to its parent."""
        return _split(self._row(index))

    def _children_of(self, index: int) -> list[int]:
        if len(self._order) != self._size:
            self._order = np.argsort(self.column("parent"), kind="stable")
            self._starts = np.searchsorted(self.column("parent")[self._order], np.arange(self._size + 1))
        children: list[int] = self._order[self._starts[index] : self._starts[index + 1]].tolist()
        return children

    def column(self, name: str) -> np.ndarray:
        """One column, `(nodes,)`; writing to it changes the nodes."""
        return self._columns[name][: self._size]

    def append(self, count: int, **values: object) -> int:
        """Adds nodes with values of columns, scalars or `(count,)`; returns the first one's index."""
        first = self._size
        self._size += count
        for name, column in self._columns.items():
            if self._size > len(column):
                column = self._columns[name] = np.resize(column, 2 * self._size)
            column[first : self._size] = values.get(name, 0)
        return first

    def effort_number(self, effort: Effort) -> int:
        """What stands for an effort in its column."""
        if effort not in self._efforts:
            self._efforts.append(effort)
        return self._efforts.index(effort)

    def complete(self) -> bool:
        """Whether each node is refuted, or has two children that cover it; see `covers`."""
        inner = np.flatnonzero(~self.column("leaf"))
        parent = self.column("parent")
        order = np.argsort(parent, kind="stable")
        order = order[parent[order] >= 0]
        order = order[~self.column("leaf")[parent[order]]]
        if len(order) != 2 * len(inner):
            return False
        first, second = order[0::2], order[1::2]
        if not (np.array_equal(parent[first], inner) and np.array_equal(parent[second], inner)):
            return False
        same = ("kind", "value", "element", "point", "above")
        equal = all(np.array_equal(self.column(n)[first], self.column(n)[second]) for n in same)
        apart = bool((self.column("upper")[first] != self.column("upper")[second]).all())
        split = bool((self.column("kind")[first] != 0).all())
        return equal and apart and split and bool(np.isfinite(self.column("point")[first]).all())


def _split(row: dict[str, Any]) -> Split | None:
    if row["kind"] == 1:
        return InputSplit(row["value"], row["point"], row["upper"])
    if row["kind"] == 2:
        return NeuronSplit(row["value"], row["element"], row["upper"], row["point"], row["above"])
    return None


def split_columns(split: Split) -> dict[str, object]:
    """A split as values of columns."""
    if isinstance(split, InputSplit):
        return {"kind": 1, "value": split.index, "point": split.point, "upper": split.upper}
    names = ("value", "element", "point", "upper", "above")
    return {"kind": 2, **{name: getattr(split, name) for name in names}}


@dataclass(frozen=True)
class Proof:
    """A finished tree: every case has a root, every leaf is refuted, children cover their parent.

    Attributes:
        cases: How many cases the problem has; zero means that the input set is empty.
        nodes: Parents before children.
        recorded: Whether leaves carry what `check` needs.
        reductions: For cases whose root starts from the boxes of reductions (`bounds.reduce`) their efforts,
            each starting from the boxes of the one before.
    """

    cases: int
    nodes: Sequence[ProofNode]
    recorded: bool
    reductions: Mapping[int, tuple[Effort, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        kept = (
            self.nodes.leaves.values() if isinstance(self.nodes, NodeTable) else (n.leaf for n in self.nodes)
        )
        if not all(tree.complete() for leaf in kept for tree in (leaf and leaf.trees) or ()):
            raise InternalError("a tree of phases has an open branch")
        if isinstance(self.nodes, NodeTable):
            roots = set(self.nodes.column("case")[self.nodes.column("parent") < 0].tolist())
            complete = self.nodes.complete()
        else:
            roots = {n.case for n in self.nodes if n.parent < 0}
            complete = all(
                n.leaf is not None or covers([self.nodes[c].split for c in n.children]) for n in self.nodes
            )
        if roots != set(range(self.cases)):
            raise InternalError("a case of the problem has no proof")
        if not complete:
            raise InternalError("the proof tree has an open branch")


def covers(splits: Sequence[Split | None]) -> bool:
    """Whether the children's splits leave nothing out: a split and its complement."""
    if len(splits) != 2:
        return False
    first, second = splits
    if first is None or second is None or not np.isfinite(first.point):
        return False
    return first.opposite() == second
