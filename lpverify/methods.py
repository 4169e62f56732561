"""Methods that bound rows over values of a region, from cheap to exact, each on top of the cheaper ones.

A method has two parts: how the boxes of all values are found, and how rows are bounded from there. Whatever
it finds is intersected with what its cheaper ones found, so that a dearer one is never looser.
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
from lpverify.interval import DOUBLE, gamma, tiny
from lpverify.multipliers import Effort
from lpverify.network import Network
from lpverify.search.phases import PhaseSearch
from lpverify.solvers.base import LpBackend
from lpverify.solvers.highs import Highs
from lpverify.solvers.registry import lp_backend, sdp_backend

BOX_STEPS, ROW_STEPS = 20, 50  # of ascent in alpha: for boxes, for rows
ROWS_AT_ONCE = 2**22  # multipliers of rows that ascend together
EXACT_GAP = 1e-7  # relative to the bound's size, within which the exact search stops


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
    """What a method adds to a cheaper one.

    Attributes:
        base: The cheaper method's name, None: it is the cheapest.
        rows: How it bounds rows.
        effort: For its own boxes; None: the base's will do.
        obbt: The boxes are tightened by linear programs, too.
        needs_ball: Only for balls of norm 1 and 2.
    """

    base: str | None
    rows: tuple[RowMethod, ...]
    effort: Effort | None = None
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
        slack = 4 * gamma(len(used) + 2, DOUBLE) * np.abs(parts).sum() + tiny(parts)
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
        if not np.isfinite(constants[i]):  # the row reads a value without finite bounds
            continue

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


METHODS: Mapping[str, Method] = MappingProxyType(
    {
        "ibp": Method(None, (interval_rows,), Effort("ibp")),
        "crown-ibp": Method("ibp", (crown_rows,)),
        "forward": Method("crown-ibp", (interval_rows, crown_rows), Effort("ibp", forward=True)),
        "crown": Method("ibp", (interval_rows, crown_rows), Effort("crown")),
        "alpha-crown": Method(
            "crown", (interval_rows, crown_rows, alpha_rows), Effort("crown", ascent=BOX_STEPS)
        ),
        "lp": Method("alpha-crown", (linear_rows,)),
        "obbt": Method("lp", (interval_rows, crown_rows, alpha_rows, linear_rows), obbt=True),
        "sdp-crown": Method("alpha-crown", (ball_rows,), needs_ball=True),
        "sdp": Method("lp", (semidefinite_rows,)),
        "milp": Method("lp", (exact_rows,)),
    }
)


@dataclass(frozen=True)
class Stages:
    """The boxes that a method and its cheaper ones found, and how each bounds rows on them.

    Attributes:
        parts: From the cheapest on.
        settings: What they may use.
    """

    parts: tuple[tuple[Frame, tuple[RowMethod, ...]], ...]
    settings: Settings

    @property
    def frame(self) -> Frame:
        """The tightest boxes."""
        return self.parts[-1][0]

    def lower(self, value: int, rows: np.ndarray) -> RowBounds:
        """The best lower bounds of rows `(R, size)` over a value; claims are the dearest method's."""
        best, claimed = np.full(len(rows), -np.inf), np.full(len(rows), np.nan)
        for frame, bounders in self.parts:
            for bounder in bounders:
                found = bounder(frame, value, rows, self.settings)
                best = np.fmax(best, found.lower)
                claimed = np.where(np.isnan(found.claimed), claimed, found.claimed)
        return RowBounds(best, claimed)


def stages_of(name: str, network: Network, region: Region, settings: Settings) -> Stages:
    """Finds the boxes of a method and of all cheaper ones, each within those before."""
    chain, step = [], METHODS[name]
    while True:
        chain.append(step)
        if step.base is None:
            break
        step = METHODS[step.base]
    frame: Frame | None = None
    parts: list[tuple[Frame, tuple[RowMethod, ...]]] = []
    for step in reversed(chain):
        if step.effort is not None:
            known = {} if frame is None else dict(enumerate(frame.boxes))
            frame = propagate(network, replace(region, known=known), step.effort, settings.limit)
        assert frame is not None  # the cheapest method has an effort
        if step.obbt and not bool(frame.empty.any()):
            frame = obbt(region, frame, settings.lp, settings.deadline)
        parts.append((frame, step.rows))
    return Stages(tuple(parts), settings)
