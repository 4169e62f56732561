"""Lipschitz constants for the Python interface."""

import math
import time
from dataclasses import dataclass, field, replace

import numpy as np

from lpverify.bounding import NORMS, box_between, deadline_of, ends_of, rows_of
from lpverify.bounds.propagate import Region
from lpverify.errors import InputError, UnsupportedError
from lpverify.interval import Box
from lpverify.io.onnx import Model
from lpverify.loading import LoadedNetwork, Path, model_of
from lpverify.network import Network, Node
from lpverify.ops.linear import Linear
from lpverify.robustness.lipschitz.chain import layers_of, parts_of
from lpverify.robustness.lipschitz.eclipse import eclipse_bound
from lpverify.robustness.lipschitz.lipsdp import default_backend, lipsdp_bound
from lpverify.robustness.lipschitz.local import local_bound
from lpverify.robustness.lipschitz.observed import observed_slope
from lpverify.robustness.lipschitz.product import product_bound
from lpverify.simplify import simplify

TECHNIQUES = ("product", "eclipse", "lipsdp", "local")
SECONDS = 60.0  # of a solver, unless said otherwise


@dataclass(frozen=True)
class LipschitzBound:
    """A proven Lipschitz constant: all rounding errors are covered.

    For all real x, x' of the input space (or of the box, where there is one) and in exact arithmetic,
    `||N(x) - N(x')|| <= value ||x - x'||`.

    Attributes:
        value: The least of `bounds`, infinite if there is none.
        method: The technique that it comes from.
        norm: Of changes of input and of output.
        seconds: Wall-clock time, loading not included.
        bounds: What each technique has proven.
        reasons: Why a technique proves nothing.
        observed: A difference quotient that was found, in floating point: for information, and where bounds
            are sharp perhaps above `value` by its rounding.
        pair: The two inputs `(n,)` that it is of.
    """

    value: float
    method: str
    norm: float
    seconds: float
    bounds: dict[str, float]
    reasons: dict[str, str] = field(repr=False)
    observed: float
    pair: tuple[np.ndarray, np.ndarray] = field(repr=False)


def lipschitz(
    network: LoadedNetwork | Path,
    *,
    norm: float = 2,
    method: str = "auto",
    lower: object = None,
    upper: object = None,
    objective: object = None,
    solver: str | None = None,
    seconds: float | None = None,
) -> LipschitzBound:
    """Bounds how fast a network's outputs change, everywhere or on a box.

    >>> import lpverify
    >>> found = lpverify.lipschitz("model.onnx")
    >>> found.method, round(found.value, 6)
    ('product', 1.414214)

    Methods: `product` of the layers' norms; `eclipse`, ECLipsE-Fast (Xu and Sivaranjani 2024,
    arXiv:2404.04375); `lipsdp`, by semidefinite programming (Fazlyab et al. 2019, arXiv:1906.04893), never
    looser than `eclipse`; `local`, by Jacobians on the box. `eclipse` and `lipsdp` are for norm 2 and plain
    chains of layers. `auto` takes the least of all that apply.

    Args:
        network: From `load`, or a path.
        norm: 1, 2 or infinity, of changes of input and of output alike.
        method: See above.
        lower: Lower ends of the box, as `lpverify.bounds` takes them; None: everywhere.
        upper: The same for the upper ends.
        objective: Rows over the flat output, `(R, m)` or `(m,)`, whose values count as the output.
        solver: Of semidefinite programs, such as `clarabel` or `scs`.
        seconds: Limit of the solver, 60 by default.

    Raises:
        InputError: An argument is not usable.
        UnsupportedError: The method does not treat the network; the message names the node.
    """
    start = time.monotonic()
    _check(norm, method, lower, upper)
    deadline_of(seconds, start)
    model = model_of(network)
    backend = None if solver is None else default_backend(solver)
    rows = rows_of(objective, model)
    region = None if lower is None else _region_of(model, lower, upper)
    function = simplify(_with_rows(model.network, rows))
    work = _Work(function, norm, region, backend, SECONDS if seconds is None else seconds)
    bounds, reasons = _all(work, method)
    best = min(bounds, key=bounds.__getitem__) if bounds else method
    around = (
        region.box if region is not None else Box(*(s * np.ones((1, function.input_size)) for s in (-1, 1)))
    )
    observed, pair = observed_slope(function, norm, around.lower[0], around.upper[0])
    spent = time.monotonic() - start
    return LipschitzBound(bounds.get(best, math.inf), best, norm, spent, bounds, reasons, observed, pair)


def _check(norm: float, method: str, lower: object, upper: object) -> None:
    if isinstance(norm, bool) or norm not in NORMS:
        raise InputError(f"norm: expected 1, 2 or infinity, got {norm!r}")
    if method not in ("auto", *TECHNIQUES):
        raise InputError(f"method: expected one of auto, {', '.join(TECHNIQUES)}, got {method!r}")
    if (lower is None) != (upper is None):
        raise InputError("expected both lower and upper, or none of them")
    if method == "local" and lower is None:
        raise InputError("method local needs a box: lower and upper")


def _region_of(model: Model, lower: object, upper: object) -> Region:
    return Region(box_between(ends_of(lower, model.inputs, "lower"), ends_of(upper, model.inputs, "upper")))


def _with_rows(network: Network, rows: np.ndarray | None) -> Network:
    """The network whose result are rows over its output."""
    if rows is None:
        return replace(network, ranked=None)
    node = Node(Linear(rows), (network.output,), (len(rows),), "objective")
    return replace(network, nodes=(*network.nodes, node), output=len(network.nodes), ranked=None)


@dataclass(frozen=True)
class _Work:
    """What is asked: the function, the norm, where, and how programs are solved."""

    network: Network
    norm: float
    region: Region | None
    backend: object
    seconds: float

    def bound(self, technique: str) -> float:
        """By one technique.

        Raises:
            UnsupportedError: It does not apply.
        """
        if technique == "local":
            if self.region is None:
                raise UnsupportedError("no box is given")
            return local_bound(self.network, self.region, self.norm)
        parts = parts_of(self.network)
        if technique == "product":
            return product_bound(self.network, parts, self.norm)
        if self.norm != 2:
            raise UnsupportedError(f"{technique} is for norm 2")
        layers = layers_of(self.network, parts)
        if technique == "eclipse":
            return eclipse_bound(layers)
        return lipsdp_bound(layers, self.backend or default_backend(), self.seconds)  # type: ignore[arg-type]


def _all(work: _Work, method: str) -> tuple[dict[str, float], dict[str, str]]:
    """Bounds by technique; those that `auto` can't use say why."""
    bounds: dict[str, float] = {}
    reasons: dict[str, str] = {}
    for technique in TECHNIQUES if method == "auto" else (method,):
        try:
            bounds[technique] = work.bound(technique)
        except UnsupportedError as error:
            if method != "auto":
                raise
            reasons[technique] = str(error)
    if not bounds:
        raise UnsupportedError(reasons["product"])
    return bounds, reasons
