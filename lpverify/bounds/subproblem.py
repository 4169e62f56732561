"""Subproblems of a proof tree: how a split makes children, and how several are stacked for bounding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lpverify.bounds.evaluate import Arithmetic, Batch, Evaluation
from lpverify.bounds.propagate import Region
from lpverify.interval import Array, Box, namespace
from lpverify.multipliers import Multipliers
from lpverify.network import Network
from lpverify.verdict import InputSplit, PhaseSplit, Split


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
        rows: The forms that `warm` speaks of, as positions among the case's forms.
        floor: Lower bounds of all forms of the case, proven for an ancestor; None: unknown.
    """

    node: int
    case: int
    lower: np.ndarray
    upper: np.ndarray
    known: Mapping[int, tuple[Array, Array]] = field(default_factory=dict)
    phases: tuple[PhaseSplit, ...] = ()
    margin: float = float("-inf")
    warm: Multipliers | None = None
    rows: tuple[int, ...] = ()
    floor: np.ndarray | None = None


def inherit(item: Subproblem, network: Network, evaluation: Evaluation, i: int) -> Subproblem:
    """The subproblem with what entry `i` of an evaluation has proven for it."""
    boxes = evaluation.frame.boxes
    copy = namespace(boxes[0].lower).asarray  # views would keep the whole batch alive
    known = {
        k: (copy(boxes[k].lower[i], copy=True), copy(boxes[k].upper[i], copy=True))
        for k in network.pre_activations
    }
    multipliers = None if evaluation.multipliers is None else compact(evaluation.multipliers.rows(i))
    rows = tuple(int(r) for r in evaluation.rows[i])
    return replace(item, known=known, warm=multipliers, rows=rows, floor=evaluation.lower[i])


def compact(multipliers: Multipliers) -> Multipliers:
    """Copies in small types, for the queue: any rounding of multipliers stays admissible."""

    def small(array: Array, name: str) -> Array:
        xp = namespace(array)
        return xp.astype(array, getattr(xp, name), copy=True)

    alpha = {k: small(v, "float16") for k, v in multipliers.alpha.items()}
    return Multipliers(alpha, {k: small(v, "float32") for k, v in multipliers.beta.items()})


def child(item: Subproblem, node: int, split: Split) -> Subproblem:
    """One child: the parent with one more split."""
    if isinstance(split, InputSplit):
        lower, upper = item.lower.copy(), item.upper.copy()
        (lower if split.upper else upper)[split.index] = split.point
        return replace(item, node=node, lower=lower, upper=upper)
    known = dict(item.known)
    known[split.value] = clamp_phase(known[split.value], split)
    return replace(item, node=node, known=known, phases=(*item.phases, split))


def clamp_phase(ends: tuple[Array, Array], split: PhaseSplit) -> tuple[Array, Array]:
    """The box of a value with one element restricted to its phase."""
    lower, upper = ends
    xp = namespace(lower)
    flat_lower = xp.asarray(lower.reshape(-1), copy=True)
    flat_upper = xp.asarray(upper.reshape(-1), copy=True)
    if split.active:
        flat_lower[split.element] = max(float(flat_lower[split.element]), 0.0)
    else:
        flat_upper[split.element] = min(float(flat_upper[split.element]), 0.0)
    return flat_lower.reshape(lower.shape), flat_upper.reshape(upper.shape)


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
    return Batch(cases, Region(box, known), _signs(items, arithmetic), _floors(items))


def _floors(items: Sequence[Subproblem]) -> np.ndarray | None:
    """The known floors side by side, as wide as the widest."""
    floors = [s.floor for s in items]
    if any(f is None for f in floors):
        return None
    width = max(len(f) for f in floors if f is not None)
    result = np.full((len(items), width), -np.inf)
    for row, floor in zip(result, floors, strict=True):
        if floor is not None:
            row[: len(floor)] = floor
    return result


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
    items: Sequence[Subproblem], signs: Mapping[int, Array], rows: np.ndarray, like: Array
) -> Multipliers | None:
    """Stacks the parents' multipliers of the wanted rows `(B, R)`; new betas are zero.

    None unless every parent has multipliers for all of its rows.
    """
    picks, warms = [], []
    for item, wanted in zip(items, rows, strict=True):
        place = {row: i for i, row in enumerate(item.rows)}
        if item.warm is None or any(int(r) not in place for r in wanted):
            return None
        picks.append([place[int(r)] for r in wanted])
        warms.append(item.warm)
    xp = namespace(like)
    pairs = list(zip(warms, picks, strict=True))
    alpha = {k: xp.astype(xp.stack([w.alpha[k][p] for w, p in pairs]), like.dtype) for k in warms[0].alpha}
    beta = {}
    for k, sign in signs.items():
        zero = xp.zeros((rows.shape[1], *sign.shape[1:]), dtype=like.dtype, device=like.device)
        known = (xp.astype(w.beta[k][p], like.dtype) if k in w.beta else zero for w, p in pairs)
        beta[k] = xp.stack(list(known))
    return Multipliers(alpha, beta)
