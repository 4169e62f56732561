"""Subproblems of a proof tree: how a split makes children, and how several are stacked for bounding."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from lpverify.bounds.evaluate import Arithmetic, Batch, Evaluation
from lpverify.bounds.linear import Sides
from lpverify.bounds.propagate import Region
from lpverify.interval import Array, Box, namespace
from lpverify.multipliers import Multipliers
from lpverify.network import Network
from lpverify.ops.steps import StepOp
from lpverify.proof import InputSplit, NeuronSplit, Split


@dataclass(frozen=True)
class Subproblem:
    """One open case of the search.

    Attributes:
        node: Its index in the proof tree.
        case: Index of its case in the problem.
        lower: Input box, float64 `(n,)`.
        upper: The same.
        known: Boxes of some values that hold here, without batch axis.
        splits: Neuron splits on the path.
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
    splits: tuple[NeuronSplit, ...] = ()
    margin: float = float("-inf")
    warm: Multipliers | None = None
    rows: tuple[int, ...] = ()
    floor: np.ndarray | None = None


def inherit(item: Subproblem, network: Network, evaluation: Evaluation, i: int) -> Subproblem:
    """The subproblem with what entry `i` of an evaluation has proven for it."""
    boxes = evaluation.frame.boxes
    copy = namespace(boxes[0].lower).asarray  # views would keep the whole batch alive
    known = {
        k: (copy(boxes[k].lower[i], copy=True), copy(boxes[k].upper[i], copy=True)) for k in network.bounded
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


def child(item: Subproblem, node: int, split: Split, network: Network) -> Subproblem:
    """One child: the parent with one more split."""
    if isinstance(split, InputSplit):
        lower, upper = item.lower.copy(), item.upper.copy()
        (lower if split.upper else upper)[split.index] = split.point
        return replace(item, node=node, lower=lower, upper=upper)
    known = dict(item.known)
    known[split.value] = clamp(known[split.value], split.element, split.upper, split.point)
    for k in network.steps_on(split.value):
        end = step_end(network, k, split)
        known[k] = clamp(known[k], split.element, split.upper, end)
    item = replace(item, node=node, known=known, splits=(*item.splits, split))
    source = network.copied_input(split.value, split.element)
    if source is None:
        return item
    lower, upper = clamp((item.lower, item.upper), source, split.upper, split.point)
    return replace(item, lower=lower, upper=upper)


def step_end(network: Network, k: int, split: NeuronSplit) -> float:
    """The least result of step node `k` on the upper side of a split, the largest on the lower side."""
    op = network.nodes[k].op
    assert isinstance(op, StepOp)
    at = np.array([split.point])
    own = float(op.forward(at)[0])
    left, right = (float(side[0]) for side in op.sides(at))
    if split.upper:
        return min(own, right) if split.above else right
    return left if split.above else max(own, left)


def clamp(ends: tuple[Array, Array], element: int, upper: bool, point: float) -> tuple[Array, Array]:
    """The box of a value with one element restricted to one side of a point."""
    xp = namespace(ends[0])
    low, high = (xp.asarray(end.reshape(-1), copy=True) for end in ends)
    if upper:
        low[element] = max(float(low[element]), point)
    else:
        high[element] = min(float(high[element]), point)
    return low.reshape(ends[0].shape), high.reshape(ends[1].shape)


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
    return Batch(cases, Region(box, known), _sides(items, arithmetic), _floors(items))


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


def _sides(items: Sequence[Subproblem], arithmetic: Arithmetic) -> dict[int, Sides]:
    """The latest split of each element of each split value."""
    network = arithmetic.network
    signs: dict[int, np.ndarray] = {}
    points: dict[int, np.ndarray] = {}
    for i, item in enumerate(items):
        for split in item.splits:
            size = int(np.prod(network.nodes[split.value].shape))
            sign = signs.setdefault(split.value, np.zeros((len(items), size)))
            sign[i, split.element] = 1.0 if split.upper else -1.0
            if split.point or split.value in points:
                point = points.setdefault(split.value, np.zeros((len(items), size)))
                point[i, split.element] = split.point
    shapes = {k: (len(items), *network.nodes[k].shape) for k in signs}
    placed = {k: arithmetic.place(v.reshape(shapes[k])) for k, v in points.items()}
    return {k: Sides(arithmetic.array(v.reshape(shapes[k])), placed.get(k)) for k, v in signs.items()}


def make_warm(
    items: Sequence[Subproblem], splits: Mapping[int, Sides], rows: np.ndarray, like: Array
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
    for k, sides in splits.items():
        zero = xp.zeros((rows.shape[1], *sides.sign.shape[1:]), dtype=like.dtype, device=like.device)
        known = (xp.astype(w.beta[k][p], like.dtype) if k in w.beta else zero for w, p in pairs)
        beta[k] = xp.stack(list(known))
    return Multipliers(alpha, beta)
