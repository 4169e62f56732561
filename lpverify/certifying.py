"""Certified robustness of data sets for the Python interface: NumPy in, dataclasses out."""

import math
from collections.abc import Callable, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from lpverify.config import Config
from lpverify.errors import InputError
from lpverify.loading import LoadedNetwork, Path, model_of, path_of
from lpverify.query import Number
from lpverify.robustness.certification import Certification, Radii
from lpverify.robustness.data.normalisation import Numbers, normalised
from lpverify.robustness.data.reading import samples_of
from lpverify.robustness.data.rounding import exact_number
from lpverify.robustness.lipschitz import LipschitzBound, lipschitz
from lpverify.robustness.margins import classes_of
from lpverify.robustness.plan import Plan
from lpverify.robustness.report.html import write_report
from lpverify.robustness.run import Status
from lpverify.robustness.setup import Setup
from lpverify.robustness.smoothing.certifier import (
    SmoothCertificate,
    SmoothPrediction,
    smooth_certify,
    smooth_predict,
)
from lpverify.robustness.smoothing.settings import SmoothingSettings
from lpverify.robustness.threat import Targets, Threat
from lpverify.search.engines import usable_cores

__all__ = [
    "Certification",
    "LipschitzBound",
    "Radii",
    "SmoothCertificate",
    "SmoothPrediction",
    "certified_radius",
    "certify",
    "lipschitz",
    "smooth_certify",
    "smooth_predict",
    "write_report",
]

Radius: TypeAlias = Number | float
Report: TypeAlias = Callable[[Status], None]


def certify(
    network: LoadedNetwork | Path,
    x: object,
    y: object,
    eps: Radius | Sequence[Radius] = (),
    *,
    norm: float = math.inf,
    method: str | Sequence[str] = "ladder",
    clip: tuple[Radius, Radius] | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    targets: Targets = "all",
    radius: Radius | None = None,
    seconds: float = 10.0,
    spare: float = 3.0,
    jobs: int | None = None,
    seed: int = 0,
    attack: bool = True,
    store: Path | None = None,
    sigma: float | None = None,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    names: Sequence[str] | None = None,
    report: Report = lambda status: None,
) -> Certification:
    """Certified, true and empirical robust accuracy of a classifier on labelled samples.

    A sample is robust at radius eps when for every real x' with `||x' - x|| <= eps`, within the range
    `clip`, the label's output is larger than every other one. What is proven holds with all rounding errors
    covered; what is refuted has a counterexample that was replayed with onnxruntime.

    >>> import lpverify
    >>> x, y = [[0.25, 0.75], [0.75, 0.5]], [1, 0]
    >>> found = lpverify.certify("classifier.onnx", x, y, eps=[0.1, 0.2], clip=(0, 1))
    >>> [(float(row.eps), row.proven, row.refuted, row.unknown) for row in found.rows()]
    [(0.1, 2, 0, 0), (0.2, 1, 1, 0)]

    Args:
        network: From `load`, or a path; a classifier with one input and one output `(classes,)`.
        x: Samples `(N, ...)` of the input's shape, with or without its leading 1, or flat.
        y: Labels `(N,)`, whole numbers from 0.
        eps: Radii in units of `x`. Fractions and decimals are exact; a float is the number that it holds.
        norm: 1, 2 or infinity.
        method: One or several: bounds alone as in `bounds` (`ibp`, `crown`, `alpha-crown`, `lp`, ...),
            `lipschitz`, `ladder`: all of it, cheapest first, up to complete verification, or `smoothing`,
            which certifies another classifier, see `smooth_certify`.
        clip: The range that every input stays in.
        mean: Subtracted from inputs in front of the network, a number or one for each channel.
        std: What the difference is divided by. Samples, radii and range are in units before that.
        targets: `all`: any other class refutes; `next`: only class `(label + 1) mod classes` does.
        radius: Look for each sample's largest certified radius as well, up to this one.
        seconds: Limit for each sample, all radii together, of each method that takes samples one by one.
        spare: Questions that ran out of time are asked again for up to so many times `seconds`, as far as
            other samples left time over; 0: never.
        jobs: Processes for these; None: one for each core; 0: this process does it.
        seed: Of all random choices.
        attack: Look for counterexamples before the dearer methods.
        store: SQLite file that keeps what is found; a later call goes on from there.
        sigma: Standard deviation of the noise; `smoothing` needs it.
        n0: Noise samples that choose the class.
        n: Noise samples that bound its probability.
        alpha: Probability, for each sample, that its smoothing certificate is wrong.
        names: What to call the samples; by default their numbers.
        report: Called with how far it is.

    Raises:
        InputError: An argument is not usable, or does not fit the network or the store.
        UnsupportedError: A method can't treat the network.

    Source: the cascade is that of CTBench, arXiv:2406.04848; intervals of accuracies are Wilson's.
    """
    model = normalised(model_of(network), mean, std)
    ends = None if clip is None else _range(clip)
    samples = samples_of(model, x, y, names=names, clip=ends)
    given = None if sigma is None else SmoothingSettings(sigma, n0, n, alpha, seed)
    most = None if radius is None else _exact(radius, "radius")
    workers = usable_cores() if jobs is None else jobs
    plan = Plan(seconds, spare, workers, seed, attack, most, given, Config(seed=seed))
    methods = (method,) if isinstance(method, str) else tuple(dict.fromkeys(method))
    threat = Threat(classes_of(model), norm, ends, targets)
    setup = Setup(model, samples, threat, _radii(eps), methods, plan)
    return setup.perform(None if store is None else path_of(store, "store"), report)


def certified_radius(
    network: LoadedNetwork | Path,
    x: object,
    y: object,
    most: Radius | None = None,
    *,
    norm: float = math.inf,
    method: str = "ladder",
    clip: tuple[Radius, Radius] | None = None,
    mean: Numbers | None = None,
    std: Numbers | None = None,
    targets: Targets = "all",
    seconds: float = 10.0,
    jobs: int | None = None,
    seed: int = 0,
    store: Path | None = None,
    sigma: float | None = None,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    report: Report = lambda status: None,
) -> Radii:
    """The largest certified radius of each sample, with the distance of the nearest counterexample known.

    >>> import lpverify
    >>> radii = lpverify.certified_radius("classifier.onnx", [[0.25, 0.75]], [1], clip=(0, 1))
    >>> bool(radii.lower[0] <= radii.upper[0])
    True

    Args:
        network: As for `certify`; the other arguments as well.
        x: Samples.
        y: Labels.
        most: Where the search ends; by default the width of the range.
        norm: 1, 2 or infinity.
        method: One of those of `certify`.
        clip: The range that every input stays in.
        mean: Subtracted from inputs in front of the network.
        std: What the difference is divided by.
        targets: `all` or `next`.
        seconds: Limit for each sample.
        jobs: Processes.
        seed: Of all random choices.
        store: SQLite file.
        sigma: Standard deviation of the noise of `smoothing`.
        n0: Noise samples that choose the class.
        n: Noise samples that bound its probability.
        alpha: Probability, for each sample, that its smoothing certificate is wrong.
        report: Called with how far it is.

    Raises:
        InputError: An argument is not usable, or does not fit the network or the store.
        UnsupportedError: The method can't treat the network.
    """
    if most is None and clip is None:
        raise InputError("most: without a range of inputs the search needs an end")
    if most is None and clip is not None:
        low, high = _range(clip)
        most = Fraction(high) - Fraction(low)
    found = certify(
        network,
        x,
        y,
        norm=norm,
        method=method,
        clip=clip,
        mean=mean,
        std=std,
        targets=targets,
        radius=most,
        seconds=seconds,
        jobs=jobs,
        seed=seed,
        store=store,
        sigma=sigma,
        n0=n0,
        n=n,
        alpha=alpha,
        report=report,
    )
    return found.radii(method)


def _radii(eps: Radius | Sequence[Radius]) -> tuple[Fraction, ...]:
    many = isinstance(eps, (Sequence, np.ndarray)) and not isinstance(eps, str)
    given = list(eps) if many else [eps]  # type: ignore[arg-type]
    return tuple(sorted({_exact(one, "eps") for one in given}))


def _exact(number: object, what: str) -> Fraction:
    """A number of any type as a fraction."""
    if isinstance(number, np.integer | np.floating):
        number = number.item()
    if isinstance(number, bool) or not isinstance(number, (int, float, Fraction, Decimal)):
        raise InputError(f"{what}: expected a number, got {number!r}")
    return exact_number(number, what)


def _range(clip: tuple[Radius, Radius]) -> tuple[Fraction, Fraction]:
    if not isinstance(clip, Sequence) or len(clip) != 2:
        raise InputError(f"clip: expected two numbers, got {clip!r}")
    return _exact(clip[0], "clip"), _exact(clip[1], "clip")
