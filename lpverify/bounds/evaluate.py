"""Bounds a batch of subproblems: boxes of all values, then the linear forms of their conditions.

Search and checker both go through `evaluate`; it is the only place where a subproblem gets refuted by
bounds, and it does so only with certified ones.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lpverify.bounds.alpha import bound_rows, initial, optimise
from lpverify.bounds.frame import Frame
from lpverify.bounds.linear import LinearBound, Trace
from lpverify.bounds.propagate import Region, propagate
from lpverify.interval import Array, Box, namespace
from lpverify.multipliers import Effort, Multipliers
from lpverify.network import Network
from lpverify.problem import Problem


@dataclass(frozen=True)
class Arithmetic:
    """Where and how precisely coefficients are computed. Boxes are float64 in any case.

    Attributes:
        network: The problem's network with weights in the type of the coefficients.
        reference: The same in float64.
        place: Brings a NumPy array to where the networks are, its type unchanged.
        like: An array in the type of the coefficients.
        limit: Largest number of coefficients held at a time in one backward pass.
    """

    network: Network
    reference: Network
    place: Callable[[np.ndarray], Array]
    like: Array
    limit: int = 2**21

    def box(self, lower: np.ndarray, upper: np.ndarray) -> Box:
        """A float64 box placed there."""
        return Box(self.place(lower), self.place(upper))

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
        signs: For split values `(B, *shape)` with +1, -1, 0.
    """

    cases: np.ndarray
    region: Region
    signs: Mapping[int, Array]


@dataclass
class Evaluation:
    """What is known of a batch after bounding.

    Attributes:
        frame: Boxes of all values, and what else bounds them.
        linear: Linear bounds of the conditions' forms.
        lower: Certified lower bounds `(B, R)` of the forms `forms`, NumPy float64.
        forms: Which form each row is, `(B, R)`.
        refuted: `(B,)`.
        multipliers: What the bounds were computed with, None: adaptive.
        trace: Coefficients for branching.
    """

    frame: Frame
    linear: LinearBound
    lower: np.ndarray
    forms: np.ndarray
    refuted: np.ndarray
    multipliers: Multipliers | None
    trace: Trace


def evaluate(
    problem: Problem,
    arithmetic: Arithmetic,
    batch: Batch,
    effort: Effort,
    warm: Multipliers | None = None,
) -> Evaluation:
    """Bounds every subproblem of the batch; refutes what it can."""
    frame = propagate(
        arithmetic.network, batch.region, effort, arithmetic.limit, arithmetic.reference, arithmetic.like
    )
    forms = form_table(problem, batch.cases)
    rows = unit_rows(forms, arithmetic)
    trace = Trace()
    multipliers = None

    def refuted(lower: Array) -> np.ndarray:
        return refute(problem, batch.cases, forms, to_numpy(lower)) | to_numpy(frame.empty)

    linear = bound_rows(frame, rows, warm, batch.signs, trace)
    best = _with_box(linear.concretize(frame.boxes[0]), frame, forms)
    if effort.schedule is not None and not refuted(best).all():
        start = initial(frame, forms.shape[1], batch.signs, warm)
        linear, improved, multipliers, trace = optimise(
            frame, rows, batch.signs, start, effort.schedule, lambda low: bool(refuted(low).all())
        )
        best = namespace(best).maximum(best, improved)
    return Evaluation(frame, linear, to_numpy(best), forms, refuted(best), multipliers or warm, trace)


def _with_box(lower: Array, frame: Frame, forms: np.ndarray) -> Array:
    """The better of the backward bounds and the interval of the forms."""
    xp = namespace(lower)
    interval = frame.boxes[frame.network.output].lower
    index = forms if xp is np else xp.asarray(forms, device=interval.device)
    return xp.maximum(lower, xp.take_along_axis(interval, index, axis=1))


def form_table(problem: Problem, cases: np.ndarray) -> np.ndarray:
    """For each subproblem the forms its condition reads, `(B, R)`; short rows repeat their last form."""
    lists = [_forms(problem, int(c)) for c in cases]
    width = max(len(f) for f in lists)
    return np.array([np.concatenate([f, np.repeat(f[-1:], width - len(f))]) for f in lists])


def _forms(problem: Problem, case: int) -> np.ndarray:
    forms = np.unique(problem.cases[case].forms)
    return forms if len(forms) else np.zeros(1, np.int64)


def unit_rows(forms: np.ndarray, arithmetic: Arithmetic) -> Array:
    """Rows `(B, R, forms)` that pick the forms."""
    network = arithmetic.network
    size = network.nodes[network.output].shape[0]
    return arithmetic.array((forms[:, :, None] == np.arange(size)).astype(np.float64))


def refute(problem: Problem, cases: np.ndarray, forms: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """Which subproblems have no solution, by certified lower bounds `(B, R)` of their forms."""
    result = np.zeros(len(cases), dtype=bool)
    for case in np.unique(cases):
        members = np.flatnonzero(cases == case)
        description = problem.cases[case]
        columns = np.searchsorted(_forms(problem, int(case)), description.forms)
        result[members] = description.refuted(lower[members][:, columns])
    return result


def columns_of(problem: Problem, case: int) -> np.ndarray:
    """For each atom of a case its column in the rows of `form_table`."""
    return np.searchsorted(_forms(problem, case), problem.cases[case].forms)


def to_numpy(array: Array) -> np.ndarray:
    """A NumPy copy or view of an array on any device."""
    return array if isinstance(array, np.ndarray) else array.detach().cpu().numpy()


def slices(count: int, size: int) -> Sequence[slice]:
    """Consecutive slices of at most `size` that cover `count`."""
    return [slice(i, min(i + size, count)) for i in range(0, count, size)]
