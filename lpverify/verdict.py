"""Verdicts and their evidence.

`Sat` needs a replayed witness, `Unsat` a finished proof; there is no other way to build them. Everything
else is `Timeout` or `Unknown`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

import numpy as np

from lpverify.errors import InternalError
from lpverify.multipliers import Effort, Multipliers
from lpverify.query import Number


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


@dataclass(frozen=True, slots=True)
class Leaf:
    """Why a subproblem has no solution: its node's bounds, or one combination for each alternative."""

    combinations: tuple[Combination, ...] | None = None


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


@dataclass(frozen=True)
class Proof:
    """A finished tree: every case has a root, every leaf is refuted, children cover their parent.

    Attributes:
        cases: How many cases the problem has; zero means that the input set is empty.
        nodes: Parents before children.
        recorded: Whether leaves carry what `check` needs.
    """

    cases: int
    nodes: Sequence[ProofNode]
    recorded: bool

    def __post_init__(self) -> None:
        roots = {n.case for n in self.nodes if n.parent < 0}
        if roots != set(range(self.cases)):
            raise InternalError("a case of the problem has no proof")
        for node in self.nodes:
            if node.leaf is None and not covers([self.nodes[c].split for c in node.children]):
                raise InternalError("the proof tree has an open branch")


def covers(splits: Sequence[Split | None]) -> bool:
    """Whether the children's splits leave nothing out: a split and its complement."""
    if len(splits) != 2:
        return False
    first, second = splits
    if first is None or second is None or not np.isfinite(first.point):
        return False
    return first.opposite() == second


@dataclass(frozen=True)
class Witness:
    """A counterexample, replayed on the original model with onnxruntime.

    Attributes:
        x: Exact inputs inside the query's box.
        inputs: The same as the model's float type.
        outputs: What onnxruntime returned, flat.
    """

    x: tuple[Number, ...]
    inputs: np.ndarray
    outputs: np.ndarray


@dataclass(frozen=True)
class Progress:
    """How far a search came: subproblems refuted and open, worst margin, stage reached."""

    closed: int = 0
    open: int = 0
    margin: float = float("-inf")
    stage: str = ""


@dataclass(frozen=True)
class Sat:
    """Some input satisfies every assertion; `witness` is one."""

    witness: Witness
    progress: Progress = Progress()


@dataclass(frozen=True)
class Unsat:
    """No input satisfies the assertions, over the reals; `proof` says why."""

    proof: Proof
    progress: Progress = Progress()


@dataclass(frozen=True)
class Timeout:
    """Not decided in time."""

    progress: Progress = Progress()


@dataclass(frozen=True)
class Unknown:
    """Not decided, for a reason that more time does not cure."""

    reason: str
    progress: Progress = Progress()


Verdict: TypeAlias = Sat | Unsat | Timeout | Unknown
