"""Methods that bound rows over values of a region, from cheap to exact, each on top of the cheaper ones.

A method has two parts: how the boxes of all values are found, and how rows are bounded from there. Whatever a
method finds is intersected with what the cheaper ones before it found, so that a dearer one is never looser.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np

from lpverify.bounds.alpha import ascend
from lpverify.bounds.frame import Frame
from lpverify.bounds.linear import backward, centre_value
from lpverify.bounds.lp import RowBounds, lp_rows, obbt
from lpverify.bounds.phases import minimising, with_phases
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.sdp import sdp_rows
from lpverify.bounds.sdp_crown import sdp_crown
from lpverify.bounds.triangle import triangle
from lpverify.config import Deadline
from lpverify.errors import InputError, UnsupportedError
from lpverify.multipliers import Effort
from lpverify.network import Network
from lpverify.search.phases import PhaseSearch
from lpverify.solvers.base import LpBackend
from lpverify.solvers.highs import Highs
from lpverify.solvers.registry import lp_backend, sdp_backend

BOX_STEPS, ROW_STEPS = 20, 50  # of ascent in alpha: for boxes, for rows
ROWS_AT_ONCE = 2**22  # multipliers of rows that ascend together
EXACT_GAP = 1e-7  # relative to the bound's size, within which the exact search stops
NO_EFFORT = Effort("ibp")


@dataclass(frozen=True)
class Settings:
    """What the methods may use.

    Attributes:
        solver: Name of a backend; None: HiGHS for linear programs, Clarabel for semidefinite ones.
        deadline: What is not reached in time keeps the bounds of a cheaper method.
        limit: Coefficients of one backward pass held at a time.
        threads: Of the exact search.
    """

    solver: str | None = None
    deadline: Deadline = field(default_factory=Deadline)
    limit: int = 2**22
    threads: int = 1

    @property
    def lp(self) -> LpBackend:
        """The backend of linear programs."""
        return Highs() if self.solver is None else lp_backend(self.solver)


RowMethod = Callable[[Frame, int, np.ndarray, Settings], RowBounds]


@dataclass(frozen=True)
class Method:
    """How boxes and rows are bounded.

    Attributes:
        effort: For the boxes.
        rows: Row bounds from cheap to dear; the last is the method's own.
        obbt: The boxes are tightened by linear programs, too.
        needs_ball: Only for balls of norm 1 and 2.
    """

    effort: Effort
    rows: tuple[RowMethod, ...]
    obbt: bool = False
    needs_ball: bool = False


def interval_rows(frame: Frame, value: int, rows: np.ndarray, settings: Settings) -> RowBounds:
    """By the box of the value."""
    box = frame.boxes[value]
    low, high = box.lower.reshape(-1), box.upper.reshape(-1)
    lower = []
    for row in rows:
        used = np.flatnonzero(row)
        if len(used) == 1 and abs(row[used[0]]) == 1:  # the end itself, exactly
            lower.append(float(low[used[0]] if row[used[0]] > 0 else -high[used[0]]))
            continue
        parts = np.where(row[used] > 0, row[used] * low[used], row[used] * high[used])
        slack = (len(used) + 2) * 2.0**-51 * np.abs(parts).sum() + 1e-300
        lower.append(float(parts.sum() - slack))
    return RowBounds(np.array(lower), np.full(len(rows), np.nan))


def crown_rows(frame: Frame, value: int, rows: np.ndarray, settings: Settings) -> RowBounds:
    """By a backward pass."""
    lower = []
    for part in _parts(frame, rows, settings, 1):
        seeds = part.reshape((1, len(part), *frame.network.nodes[value].shape))
        linear = backward(frame, value, seeds, centre_value(seeds, frame.centres[value]))
        lower.append(linear.concretize(frame.boxes[0], frame.ball)[0])
    return RowBounds(np.concatenate(lower), np.full(len(rows), np.nan))


def alpha_rows(frame: Frame, value: int, rows: np.ndarray, settings: Settings) -> RowBounds:
    """By backward passes with ascent in the slopes."""
    lower = []
    for part in _parts(frame, rows, settings, 4 * len(frame.network.activations) + 4):
        if settings.deadline.passed:
            lower.append(np.full(len(part), -np.inf))
            continue
        seeds = part.reshape((1, len(part), *frame.network.nodes[value].shape))
        lower.append(ascend(frame, seeds, value, ROW_STEPS)[0])
    return RowBounds(np.concatenate(lower), np.full(len(rows), np.nan))


def linear_rows(frame: Frame, value: int, rows: np.ndarray, settings: Settings) -> RowBounds:
    """By linear programs."""
    return lp_rows(triangle(frame, value), value, rows, settings.lp, settings.deadline)


def semidefinite_rows(frame: Frame, value: int, rows: np.ndarray, settings: Settings) -> RowBounds:
    """By semidefinite programs."""
    backend = sdp_backend("clarabel" if settings.solver is None else settings.solver)
    return sdp_rows(triangle(frame, value), value, rows, backend, settings.deadline)


def ball_rows(frame: Frame, value: int, rows: np.ndarray, settings: Settings) -> RowBounds:
    """By SDP-CROWN."""
    seeds = rows.reshape((1, len(rows), *frame.network.nodes[value].shape))
    return RowBounds(sdp_crown(frame, seeds, start=value)[0], np.full(len(rows), np.nan))


def exact_rows(frame: Frame, value: int, rows: np.ndarray, settings: Settings) -> RowBounds:
    """By branch and bound over ReLU phases; the claim is the best point's value.

    Raises:
        UnsupportedError: Some nonlinear node is no ReLU.
    """
    if settings.solver not in (None, "highs"):
        raise InputError(f"the exact search works with highs, not with {settings.solver}")
    program = triangle(frame, value)
    if not program.complete:
        raise UnsupportedError("the exact search needs networks whose nonlinear nodes are ReLUs")
    plain, network = with_phases(program), frame.network
    lower, claimed = np.full(len(rows), -np.inf), np.full(len(rows), np.nan)
    costs, constants = program.objective(value, rows)
    for i in range(len(rows)):
        if settings.deadline.passed:
            break

        def true_value(x: np.ndarray, row: np.ndarray = rows[i]) -> tuple[float, np.ndarray]:
            x = np.clip(x, frame.boxes[0].lower[0], frame.boxes[0].upper[0])
            values = network.evaluate(x[None])
            return float(row @ values[value].reshape(-1)), plain.signs_at(network, values)

        if not len(program.program.cost) or not len(plain.lp.row_lower):
            lower[i] = lp_rows(program, value, rows[i : i + 1], settings.lp, settings.deadline).lower[0]
            continue
        fixed, constant = minimising(plain, costs[i : i + 1], constants[i : i + 1])
        size = 1.0 + float(np.abs(costs[i]) @ program.magnitude)
        search = PhaseSearch(fixed, constant, float("-inf"), true_value, gap=EXACT_GAP * size)
        search.run(settings.deadline, settings.threads)
        lower[i], claimed[i] = search.lower, search.best
    return RowBounds(lower, claimed)


def _parts(frame: Frame, rows: np.ndarray, settings: Settings, copies: int) -> list[np.ndarray]:
    """Some rows at a time, so that coefficients fit into memory."""
    widest = max(int(np.prod(n.shape)) for n in frame.network.nodes)
    step = max(1, settings.limit // (copies * widest))
    return [rows[i : i + step] for i in range(0, len(rows), step)]


_ALPHA = Effort("crown", ascent=BOX_STEPS)
_LADDER: tuple[RowMethod, ...] = (interval_rows, crown_rows, alpha_rows)
METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "ibp": Method(NO_EFFORT, (interval_rows,)),
        "crown-ibp": Method(NO_EFFORT, (interval_rows, crown_rows)),
        "forward": Method(Effort("ibp", forward=True), (interval_rows, crown_rows)),
        "crown": Method(Effort("crown"), (interval_rows, crown_rows)),
        "alpha-crown": Method(_ALPHA, _LADDER),
        "lp": Method(_ALPHA, (*_LADDER, linear_rows)),
        "obbt": Method(_ALPHA, (*_LADDER, linear_rows), obbt=True),
        "sdp-crown": Method(_ALPHA, (*_LADDER, ball_rows), needs_ball=True),
        "sdp": Method(_ALPHA, (*_LADDER, linear_rows, semidefinite_rows)),
        "milp": Method(_ALPHA, (*_LADDER, linear_rows, exact_rows)),
    }
)


def frame_of(method: Method, network: Network, region: Region, settings: Settings) -> Frame:
    """The boxes of all values by a method, each at least as tight as the interval's."""
    effort = method.effort
    if effort.ascent and not any(network.activations):
        effort = replace(effort, ascent=0)
    frame = propagate(network, region, effort, settings.limit)
    if method.obbt and not bool(frame.empty.any()):
        frame = obbt(region, frame, settings.lp, settings.deadline)
    return frame


def bound_rows_by(
    method: Method, frame: Frame, value: int, rows: np.ndarray, settings: Settings
) -> RowBounds:
    """Lower bounds of rows by a method and all cheaper ones; claims are of the dearest that makes some."""
    best, claimed = np.full(len(rows), -np.inf), np.full(len(rows), np.nan)
    for bounder in method.rows:
        found = bounder(frame, value, rows, settings)
        best = np.fmax(best, found.lower)
        claimed = np.where(np.isnan(found.claimed), claimed, found.claimed)
    return RowBounds(best, claimed)
