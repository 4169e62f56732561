"""Bounds a batch of subproblems: boxes of all values, then the linear forms of their conditions.

Search and checker both go through `evaluate`; it is the only place where a subproblem gets refuted by
bounds, and it does so only with certified ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import numpy as np

from lpverify.bounds.alpha import bound_rows, footprint, initial, optimise
from lpverify.bounds.frame import Frame
from lpverify.bounds.linear import LinearBound, Sides, Trace
from lpverify.bounds.propagate import Region, propagate
from lpverify.interval import Array, Box, namespace
from lpverify.multipliers import Effort, Multipliers
from lpverify.network import Network
from lpverify.problem import Problem

ROW_LIMITS = 16  # the final rows may take this many times the coefficients of other values


@dataclass(frozen=True)
class Arithmetic:
    """Where and how precisely coefficients are computed. Boxes are float64 in any case.

    Attributes:
        network: The problem's network with weights in the type of the coefficients.
        reference: The same in float64.
        place: Brings a NumPy array to where the networks are, its type unchanged.
        like: An array in the type of the coefficients.
        limit: Largest number of coefficients held at a time in one backward pass of a value.
        memory: Bytes that the multipliers of one batch may take; larger batches are bounded without.
    """

    network: Network
    reference: Network
    place: Callable[[np.ndarray], Array]
    like: Array
    limit: int = 2**21
    memory: float = 4e9

    def box(self, lower: np.ndarray, upper: np.ndarray) -> Box:
        """A float64 box placed there."""
        return Box(self.place(lower), self.place(upper))

    def for_network(self, network: Network) -> "Arithmetic":
        """The same for another network, whose weights are NumPy float64."""
        kind = np.float64 if self.like.dtype.itemsize == 8 else np.float32
        network, reference = network.convert(self.place, kind), network.convert(self.place)
        return replace(self, network=network, reference=reference)

    def array(self, values: np.ndarray) -> Array:
        """Numbers in the type of the coefficients, to nearest."""
        return self.place(
            values.astype(np.float64 if self.like.dtype.itemsize == 8 else np.float32, copy=False)
        )


def double_precision(problem: Problem, limit: int = 2**21) -> Arithmetic:
    """NumPy float64."""
    return Arithmetic(problem.network, problem.network, np.asarray, np.zeros(1), limit)


@dataclass(frozen=True)
class Batch:
    """Subproblems to bound together.

    Attributes:
        cases: Index of each one's case, `(B,)`.
        region: Their regions.
        splits: For split values the side that each element is on.
        floor: Lower bounds of the forms of each one's case that are known to hold, `(B, F)`; a case with
            fewer forms fills up with minus infinity. None: nothing is known.
    """

    cases: np.ndarray
    region: Region
    splits: Mapping[int, Sides]
    floor: np.ndarray | None = None


@dataclass
class Evaluation:
    """What is known of a batch after bounding.

    Attributes:
        frame: Boxes of all values, and what else bounds them.
        linear: Linear bounds of the rows.
        rows: Which forms of its case each subproblem's rows bound, `(B, R)`: positions in `case_forms`.
        lower: Certified lower bounds of all forms of the case, `(B, F)` NumPy float64.
        refuted: `(B,)`.
        multipliers: What the bounds were computed with, None: adaptive.
        trace: Coefficients for branching.
    """

    frame: Frame
    linear: LinearBound
    rows: np.ndarray
    lower: np.ndarray
    refuted: np.ndarray
    multipliers: Multipliers | None
    trace: Trace


@np.errstate(over="ignore", invalid="ignore")  # boxes may be unbounded; what is undefined proves nothing
def evaluate(
    problem: Problem,
    arithmetic: Arithmetic,
    batch: Batch,
    effort: Effort,
    warm: Multipliers | None = None,
    rows: np.ndarray | None = None,
) -> Evaluation:
    """Bounds every subproblem of the batch; refutes what it can.

    Args:
        problem: What the cases belong to.
        arithmetic: Where to compute.
        batch: The subproblems.
        effort: How much to spend.
        warm: Multipliers to start from, with one row for each of `rows`.
        rows: Which forms to bound, as in `Evaluation`; default: those not settled by the batch's floor.
    """
    frame = propagate(
        arithmetic.network, batch.region, effort, arithmetic.limit, arithmetic.reference, arithmetic.like
    )
    floor = np.maximum(known_floor(problem, batch), _interval_floor(problem, batch, frame))
    rows = open_rows(problem, batch.cases, floor) if rows is None else rows
    seeds = unit_rows(_row_forms(problem, batch.cases, rows), arithmetic)
    trace = Trace()
    multipliers = None

    def total(lower: Array) -> np.ndarray:
        best = floor.copy()
        np.maximum.at(best, (np.arange(len(rows))[:, None], rows), to_numpy(lower))
        return best

    def refuted(lower: Array) -> np.ndarray:
        return refute(problem, batch.cases, total(lower)) | to_numpy(frame.empty)

    parts = _parts(frame, rows.shape[1], ROW_LIMITS * arithmetic.limit)
    if len(parts) > 1:
        linear = _bound_in_parts(frame, seeds, warm, batch.splits, parts)
    else:
        linear = bound_rows(frame, seeds, warm, batch.splits, trace)
    best = linear.concretize(frame.boxes[0], frame.ball)
    affordable = len(parts) == 1 and footprint(frame, rows.shape[1]) <= arithmetic.memory
    if effort.schedule is not None and affordable and not refuted(best).all():
        start = initial(frame, rows.shape[1], batch.splits, warm)
        linear, improved, multipliers, trace = optimise(
            frame, seeds, batch.splits, start, effort.schedule, lambda low: bool(refuted(low).all())
        )
        best = namespace(best).maximum(best, improved)
    return Evaluation(frame, linear, rows, total(best), refuted(best), multipliers or warm, trace)


def _parts(frame: Frame, rows: int, limit: int) -> Sequence[slice]:
    """Slices of the rows whose coefficients fit the limit."""
    widest = max(prod(node.shape) for node in frame.network.nodes)
    return slices(rows, max(1, limit // (frame.empty.shape[0] * widest)))


def _bound_in_parts(
    frame: Frame,
    seeds: Array,
    warm: Multipliers | None,
    splits: Mapping[int, Sides],
    parts: Sequence[slice],
) -> LinearBound:
    """As `bound_rows`, some rows at a time; no trace is kept."""
    xp, bounds = namespace(seeds), []
    for part in parts:
        some = None if warm is None else warm.rows((slice(None), part))
        bounds.append(bound_rows(frame, seeds[:, part], some, splits))
    a, constant = (xp.concat([getattr(b, name) for b in bounds], axis=1) for name in ("a", "constant"))
    return LinearBound(a, constant, bounds[0].centre)


def case_forms(problem: Problem, case: int) -> np.ndarray:
    """The forms that a case's condition reads, sorted, at least one."""
    return problem.cases[case].distinct_forms


def columns_of(problem: Problem, case: int) -> np.ndarray:
    """For each atom of a case the position of its form in `case_forms`."""
    return problem.cases[case].columns


def known_floor(problem: Problem, batch: Batch) -> np.ndarray:
    """The batch's floor, or minus infinity."""
    if batch.floor is not None:
        return batch.floor
    width = max(len(case_forms(problem, int(c))) for c in np.unique(batch.cases))
    return np.full((len(batch.cases), width), -np.inf)


def _interval_floor(problem: Problem, batch: Batch, frame: Frame) -> np.ndarray:
    """Interval bounds of the forms of each case."""
    interval = to_numpy(frame.boxes[frame.network.output].lower)
    floor = np.full(known_floor(problem, batch).shape, -np.inf)
    for case in np.unique(batch.cases):
        members = np.flatnonzero(batch.cases == case)
        forms = case_forms(problem, int(case))
        floor[members, : len(forms)] = interval[members][:, forms]
    return floor


def open_rows(problem: Problem, cases: np.ndarray, floor: np.ndarray) -> np.ndarray:
    """Positions of the forms that some atom still needs, `(B, R)`; short rows repeat their last one."""
    lists = []
    for case, known in zip(cases, floor, strict=True):
        columns = columns_of(problem, int(case))
        needed = np.unique(columns[~(known[columns] > problem.cases[int(case)].bounds)])
        lists.append(needed if len(needed) else np.zeros(1, np.int64))
    width = max(len(f) for f in lists)
    return np.array([np.concatenate([f, np.repeat(f[-1:], width - len(f))]) for f in lists])


def _row_forms(problem: Problem, cases: np.ndarray, rows: np.ndarray) -> np.ndarray:
    return np.stack([case_forms(problem, int(c))[r] for c, r in zip(cases, rows, strict=True)])


def unit_rows(forms: np.ndarray, arithmetic: Arithmetic) -> Array:
    """Rows `(B, R, forms)` that pick the forms."""
    network = arithmetic.network
    size = network.nodes[network.output].shape[0]
    return arithmetic.array((forms[:, :, None] == np.arange(size)).astype(np.float64))


def refute(problem: Problem, cases: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Which subproblems have no solution, by certified lower bounds `(B, F)` of their case's forms."""
    result = np.zeros(len(cases), dtype=bool)
    for case in np.unique(cases):
        members = np.flatnonzero(cases == case)
        result[members] = problem.cases[case].refuted(lower[members][:, columns_of(problem, int(case))])
    return result


def to_numpy(array: Array) -> np.ndarray:
    """A NumPy copy or view of an array on any device."""
    return np.asarray(array) if isinstance(array, (np.ndarray, np.generic)) else array.detach().cpu().numpy()


def slices(count: int, size: int) -> Sequence[slice]:
    """Consecutive slices of at most `size` that cover `count`."""
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]
