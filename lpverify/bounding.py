"""Bounds on a network for the Python interface: NumPy in, NumPy out."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from lpverify.bounds.ball import Ball, enclosing_box
from lpverify.bounds.linear import backward, centre_value
from lpverify.bounds.propagate import Region
from lpverify.config import Config, Deadline
from lpverify.errors import InputError, InternalError
from lpverify.interval import Box
from lpverify.io.onnx import Model, Signature
from lpverify.loading import LoadedNetwork, Path, exact_array, model_of
from lpverify.methods import METHODS, Settings, Stages, stages_of
from lpverify.solvers.registry import require_solver

CHUNK_ELEMENTS = 2**25  # of the coefficients of rows, held at a time
NORMS = (1, 2, math.inf)


@dataclass(frozen=True)
class ValueBounds:
    """A proven box of one value of the network.

    Attributes:
        name: The ONNX node that the value comes from; several values may come from one node.
        op: What computes it, in this library's words; `input` for the flat input.
        lower: Not above the value anywhere in the input set; of the value's shape.
        upper: Not below it.
    """

    name: str
    op: str
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class BoundsResult:
    """Proven bounds on a network over a set of inputs: all rounding errors are covered.

    The rows are those of `objective`, or one for each element of the flat output `y (m,)`. With the flat
    input `x (n,)`, for every real x of the set and in exact arithmetic,
    `lower_a @ x + lower_b <= rows @ y <= upper_a @ x + upper_b` and `lower <= rows @ y <= upper`.

    Attributes:
        values: Boxes of all values, from the input to the output, in the order of evaluation.
        lower: `(R,)`.
        upper: `(R,)`.
        lower_a: `(R, n)`.
        lower_b: `(R,)`.
        upper_a: `(R, n)`.
        upper_b: `(R,)`.
        claimed_lower: `(R,)`: what the method's solver says of the lower ends, NaN where it says nothing. Not
            proven; of `milp` the value at the best point found.
        claimed_upper: The same for the upper ends.
        method: The method's name.
        seconds: Wall-clock time, loading not included.
    """

    values: tuple[ValueBounds, ...] = field(repr=False)
    lower: np.ndarray
    upper: np.ndarray
    lower_a: np.ndarray
    lower_b: np.ndarray
    upper_a: np.ndarray
    upper_b: np.ndarray
    claimed_lower: np.ndarray
    claimed_upper: np.ndarray
    method: str
    seconds: float


def bounds(
    network: LoadedNetwork | Path,
    lower: object = None,
    upper: object = None,
    *,
    method: str = "crown",
    center: object = None,
    eps: float | None = None,
    norm: float = math.inf,
    objective: object = None,
    layers: str | Sequence[str] = (),
    solver: str | None = None,
    seconds: float | None = None,
    threads: int = 1,
) -> BoundsResult:
    """Bounds linear functions of a network's outputs, and all its values, over a box or a ball of inputs.

    >>> import lpverify
    >>> found = lpverify.bounds("model.onnx", [[0.5, -1.0]], [[1.0, 0.0]])
    >>> found.lower.round(9), found.upper.round(9)
    (array([0.]), array([1.]))
    >>> [value.op for value in found.values]
    ['input', 'Reshape', 'Linear', 'Relu', 'Reshape']
    >>> near = lpverify.bounds("model.onnx", center=[[0.5, -1.0]], eps=0.25, norm=2, method="milp")
    >>> bool(near.lower[0] <= near.upper[0])
    True

    Methods, each never looser than those before it: `ibp`, interval arithmetic (Gowal et al. 2018,
    arXiv:1810.12715); `crown`, backward linear bounds (Zhang et al. 2018, arXiv:1811.00866); `alpha-crown`,
    with optimised slopes (Xu et al. 2021, arXiv:2011.13824); `lp`, the linear program of all relaxations
    (Ehlers 2017, arXiv:1705.01320). On top of `lp` there are `obbt`, linear programs for every neuron; `sdp`,
    for small networks (Raghunathan et al. 2018, arXiv:1811.01057); `milp`, exact for ReLU networks (Tjeng et
    al. 2019, arXiv:1711.07356). On top of `alpha-crown` there is `sdp-crown`, for balls of norm 1 and 2 (Chiu
    et al. 2025, arXiv:2506.06665). `crown-ibp` and `forward` (Singh et al. 2018) have cheaper boxes than
    `crown`. Over a ball of norm 1 or 2 linear and semidefinite programs see the box around it alone, so that
    there `milp` is not exact.

    Args:
        network: From `load`, or a path.
        lower: Lower ends of the box, of the input's shape (a leading 1 may be left out) or flat `(n,)`; of
            several inputs: flat, one after the other. With `center` they cut the ball, and may be numbers.
        upper: The same for the upper ends.
        method: See above.
        center: Centre of a ball, shaped like `lower`.
        eps: Its radius.
        norm: 1, 2 or infinity.
        objective: Rows over the flat output, `(R, m)` or `(m,)`; default: each element of the output.
        layers: Names of ONNX nodes whose values get the method's own bounds, element by element; `"all"`:
            every operand of a nonlinear node. Other values have the boxes that the relaxations are made of.
        solver: A backend, such as `highs`, `scs`, `clarabel` or `cvxpy:NAME`.
        seconds: What isn't done by then keeps a cheaper method's bounds.
        threads: Of the exact search.

    Raises:
        InputError: An argument is not usable: NaN, infinite ends, lower above upper, another shape, an
            unknown method, norm, layer or solver.
        UnsupportedError: The network has nodes that can't be translated, or the method does not treat it.
    """
    start = time.monotonic()
    _check_method(method, norm, center is not None)
    if solver is not None:
        require_solver(solver)
    settings = Settings(solver, deadline_of(seconds, start), Config().max_coefficients, _threads(threads))
    model = model_of(network)
    region = _region(model.inputs, lower, upper, center, eps, norm)
    rows = rows_of(objective, model)
    wanted = _wanted(model, layers)
    stages = stages_of(method, model.network, region, settings)
    if bool(stages.frame.empty.any()):
        raise InternalError("a set of inputs that is not empty was found to be empty")
    for value in wanted:
        _tighten(stages, value)
    return _result(model, method, stages, rows, start)


# Arguments


def _check_method(method: str, norm: float, ball: bool) -> None:
    if method not in METHODS:
        raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if norm not in NORMS:
        raise InputError(f"norm: expected 1, 2 or infinity, got {norm!r}")
    if METHODS[method].needs_ball and not (ball and norm != math.inf):
        raise InputError(f"method {method} is for balls: it needs center, eps and a norm of 1 or 2")


def deadline_of(seconds: float | None, start: float) -> Deadline:
    """So many seconds after a point of the monotonic clock; never for None.

    Raises:
        InputError: It is no positive number.
    """
    if seconds is None:
        return Deadline()
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise InputError(f"seconds: expected a positive number, got {seconds!r}")
    return Deadline(start + seconds)


def _threads(threads: int) -> int:
    if isinstance(threads, bool) or not isinstance(threads, (int, np.integer)) or threads < 1:
        raise InputError(f"threads: expected a whole number from 1, got {threads!r}")
    return int(threads)


def _region(
    inputs: Signature, lower: object, upper: object, center: object, eps: float | None, norm: float
) -> Region:
    """The set of inputs as a batch of one."""
    if center is None:
        if eps is not None or lower is None or upper is None:
            raise InputError("expected either lower and upper, or center and eps")
        low, high = (ends_of(end, inputs, what) for end, what in ((lower, "lower"), (upper, "upper")))
        return Region(box_between(low, high))
    if isinstance(eps, bool) or not isinstance(eps, (int, float, np.floating)) or not 0 <= eps < math.inf:
        raise InputError(f"eps: expected a number from 0, got {eps!r}")
    at = ends_of(center, inputs, "center")
    cut = [_cut(end, inputs, w, d) for end, w, d in ((lower, "lower", -1.0), (upper, "upper", 1.0))]
    box_between(*cut)
    ball = Ball(at[None], np.array([float(eps)]), 2 if norm == math.inf else int(norm))
    box, empty = enclosing_box(ball, cut[0][None], cut[1][None])
    if bool(empty.any()):
        raise InputError("the ball does not meet the range of lower and upper")
    return Region(box, ball=None if norm == math.inf else ball)


def _cut(end: object, inputs: Signature, what: str, side: float) -> np.ndarray:
    """One end of the range that cuts a ball; a number holds for all inputs."""
    total = sum(inputs.sizes)
    if end is None:
        return np.full(total, side * np.inf)
    if isinstance(end, (int, float)) and not isinstance(end, bool):
        if math.isnan(end):
            raise InputError(f"{what} is NaN")
        return np.full(total, float(end))
    return ends_of(end, inputs, what)


def box_between(low: np.ndarray, high: np.ndarray) -> Box:
    """A batch of one box, from its flat ends `(n,)`.

    Raises:
        InputError: They cross.
    """
    if not (low <= high).all():
        i = int(np.flatnonzero(~(low <= high))[0])
        raise InputError(f"lower end {low[i]} of input element {i} is above its upper end {high[i]}")
    return Box(low[None], high[None])


def ends_of(end: object, inputs: Signature, what: str) -> np.ndarray:
    """One end of a box of inputs, flat.

    Raises:
        InputError: It has another shape, or is not finite.
    """
    array = exact_array(end, what)
    total = sum(inputs.sizes)
    shapes: list[tuple[int, ...]] = [(total,)]
    if len(inputs.shapes) == 1:
        shape = inputs.shapes[0]
        shapes += [shape, shape[1:]] if shape[:1] == (1,) else [shape]
    if array.shape not in shapes:
        raise InputError(
            f"{what}: expected shape {' or '.join(map(str, dict.fromkeys(shapes)))}, got {array.shape}"
        )
    if not np.isfinite(array).all():
        raise InputError(f"{what} contains infinite numbers")
    return array.reshape(total)


def rows_of(objective: object, model: Model) -> np.ndarray | None:
    """Rows `(R, m)` over the flat output; None stands for the identity.

    Raises:
        InputError: They have another shape, or are not finite.
    """
    if objective is None:
        return None
    size = model.network.nodes[model.network.output].shape[0]
    rows = np.atleast_2d(exact_array(objective, "objective"))
    if rows.ndim != 2 or rows.shape[1] != size or not len(rows):
        raise InputError(f"objective: expected shape (R, {size}) or ({size},), got {rows.shape}")
    if not np.isfinite(rows).all():
        raise InputError("objective contains infinite numbers")
    return rows


def _wanted(model: Model, layers: str | Sequence[str]) -> list[int]:
    """The values that the names of layers stand for."""
    network = model.network
    needed = network.ancestors[network.output]
    if layers == "all":
        return [k for k in network.pre_activations if k in needed and k != 0]
    names = [layers] if isinstance(layers, str) else list(layers)
    found = {k: network.nodes[k].name for k in sorted(needed) if k and network.nodes[k].name in names}
    missing = sorted(set(names) - set(found.values()))
    if missing:
        known = dict.fromkeys(network.nodes[k].name for k in sorted(needed) if k and network.nodes[k].name)
        raise InputError(f"layers: no node is named {', '.join(missing)}; there are {', '.join(known)}")
    return list(found)


# Results


def _tighten(stages: Stages, value: int) -> None:
    """Both ends of every element of a value by the method's rows."""
    frame = stages.frame
    box, shape = frame.boxes[value], frame.network.nodes[value].shape
    low, high = box.lower.reshape(-1), box.upper.reshape(-1)
    unit = np.eye(len(low))
    below, above = (stages.lower(value, s * unit).lower for s in (1.0, -1.0))
    low, high = np.maximum(low, below), np.minimum(high, -above)
    frame.boxes[value] = Box(low.reshape((1, *shape)), high.reshape((1, *shape)))


def _result(model: Model, method: str, stages: Stages, rows: np.ndarray | None, start: float) -> BoundsResult:
    network, frame = model.network, stages.frame
    size = network.nodes[network.output].shape[0]
    wanted = np.eye(size) if rows is None else rows
    sides = [_side(model, stages, sign * wanted) for sign in (1.0, -1.0)]
    low, high = sides[0][0], -sides[1][0]
    if rows is None:
        output = frame.boxes[network.output]
        low, high = np.maximum(output.lower[0], low), np.minimum(output.upper[0], high)
        frame.boxes[network.output] = Box(low[None], high[None])
    values = [
        ValueBounds(n.name, "input" if n.op is None else type(n.op).__name__, b.lower[0], b.upper[0])
        for k, (n, b) in enumerate(zip(network.nodes, frame.boxes, strict=True))
        if k in network.ancestors[network.output]
    ]
    linear = (sides[0][2], sides[0][3], -sides[1][2], -sides[1][3])
    claims = (sides[0][1], -sides[1][1])
    return BoundsResult(tuple(values), low, high, *linear, *claims, method, time.monotonic() - start)


def _side(
    model: Model, stages: Stages, rows: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Lower bounds of rows, claims, and slopes and constants of linear lower bounds."""
    found, frame = stages.lower(model.network.output, rows), stages.frame
    widest = max(math.prod(n.shape) for n in model.network.nodes)
    step = max(1, CHUNK_ELEMENTS // widest)
    slopes, constants = [], []
    for part in (rows[i : i + step] for i in range(0, len(rows), step)):
        centre = centre_value(part[None], frame.centres[model.network.output])
        a, b = backward(frame, model.network.output, part[None], centre).absolute()
        slopes.append(a[0])
        constants.append(b[0])
    return found.lower, found.claimed, np.concatenate(slopes), np.concatenate(constants)
