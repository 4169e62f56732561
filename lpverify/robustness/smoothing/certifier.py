"""Randomized smoothing for data sets and as functions; what is certified, and how, is said in `smoother`."""

import time
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from lpverify.config import Deadline
from lpverify.errors import InputError
from lpverify.io.model import Model
from lpverify.loading import LoadedNetwork, Path, model_of, points_of
from lpverify.robustness.evidence import SMOOTHED, Attempt, Question, Verdict
from lpverify.robustness.samples import Samples
from lpverify.robustness.smoothing.settings import MOST_KEY, SmoothingSettings, radius_asked, whole
from lpverify.robustness.smoothing.smoother import SmoothCertificate, Smoother, SmoothPrediction
from lpverify.robustness.threat import Threat

__all__ = [
    "SmoothCertificate",
    "SmoothPrediction",
    "SmoothingCertifier",
    "SmoothingSettings",
    "smooth_certify",
    "smooth_predict",
]


class SmoothingCertifier:
    """Randomized smoothing as a method for data sets.

    `proven`: the smoothed classifier answers with the label in the whole ball. `refuted`: it abstains or
    predicts another class at the sample itself.

    All that one certifier answers about a sample holds together with probability 1 - alpha, whatever is asked
    in which order. A single radius, asked about first, gets a sequential certificate, which may stop early.
    Everything else is answered by one that draws all samples; it is sequential, too, if there was one before.

    Args:
        model: The base classifier.
        samples: The data set; the place of a sample chooses its noise.
        threat: Its norm counts. A range only leaves the adversary less.
        settings: Noise, numbers of samples, confidence.
        deadline: When to stop; what is not reached is not answered.

    Raises:
        InputError: The model is no classifier, or samples or threat do not fit it.
        UnsupportedError: Its input has another type.
    """

    name = SMOOTHED

    def __init__(
        self,
        model: Model,
        samples: Samples,
        threat: Threat,
        settings: SmoothingSettings,
        deadline: Deadline | None = None,
    ) -> None:
        self._smoother = Smoother(model, settings, threat.norm)
        classifier = self._smoother.classifier
        if threat.classes != classifier.classes:
            raise InputError(f"the threat has {threat.classes} classes, the network {classifier.classes}")
        if samples.x.shape[1] != classifier.input_size:
            raise InputError(
                f"samples have {samples.x.shape[1]} numbers, the network {classifier.input_size}"
            )
        self._samples, self._deadline = samples, deadline or Deadline()
        self._complete: dict[int, SmoothCertificate] = {}
        self._stopped: set[int] = set()

    def answer(self, questions: Sequence[Question]) -> Iterator[Attempt]:
        """Yields an attempt for each question, those about one sample together."""
        groups: dict[int, list[Question]] = {}
        for question in questions:
            groups.setdefault(question.sample, []).append(question)
        for sample, group in groups.items():
            if self._deadline.passed:
                return
            start = time.monotonic()
            found = self._certificate(sample, {q.eps for q in group})
            seconds = (time.monotonic() - start) / len(group)
            for question in group:
                verdict, reason = _verdict(found, int(self._samples.y[sample]), question.eps)
                yield Attempt(sample, self.name, question.eps, verdict, self.name, seconds, reason)

    def radii(self, samples: Sequence[int]) -> list[Fraction]:
        """Certified radii of samples, 0 where the label is not what is certified.

        Each draws all noise samples, and answers later questions about its sample.
        """
        labels = self._samples.y
        found = [(self._certificate(i, set()), int(labels[i])) for i in samples]
        right = [not c.abstained and c.predicted == label for c, label in found]
        return [Fraction(c.radius) if ok else Fraction(0) for (c, _), ok in zip(found, right, strict=True)]

    def _certificate(self, sample: int, asked: set[Fraction]) -> SmoothCertificate:
        """That answers questions about one sample."""
        x, fresh = self._samples.x[sample], sample not in self._stopped
        if len(asked) == 1 and fresh and sample not in self._complete:
            self._stopped.add(sample)
            return self._smoother.certificate(x, sample, next(iter(asked)))
        if sample not in self._complete:
            self._complete[sample] = self._smoother.certificate(x, sample, sequential=not fresh)
        return self._complete[sample]


def _verdict(found: SmoothCertificate, label: int, eps: Fraction) -> tuple[Verdict, str]:
    """What a certificate says of a radius, and why if it proves nothing."""
    if found.abstained:
        return "refuted", "the smoothed classifier abstains"
    if found.predicted != label:
        return "refuted", f"the smoothed classifier answers {found.predicted}"
    if found.certifies(eps):
        return "proven", ""
    return "unknown", f"the certified radius is {found.radius:.4g}"


def smooth_certify(
    network: LoadedNetwork | Path,
    x: object,
    *,
    sigma: float,
    n0: int = 100,
    n: int = 10_000,
    alpha: float = 0.001,
    norm: float = 2,
    eps: float | Fraction | None = None,
    seed: int = 0,
    batch: int | None = None,
    indices: Sequence[int] | None = None,
) -> list[SmoothCertificate]:
    """Certifies a radius around inputs for the smoothed classifier; not for the network itself.

    >>> import lpverify
    >>> (found,) = lpverify.smooth_certify("classifier.onnx", [[0.25, 0.75]], sigma=0.25, n=1000)
    >>> found.predicted, 0 < found.radius <= 0.5 / 2**0.5  # where both classes are equal
    (1, True)

    Args:
        network: From `load`, or a path.
        x: One input or `(N, *shape)`; a leading 1 of the shape may be left out.
        sigma: Standard deviation of the noise, in the units of the input; noisy inputs are not clipped.
        n0: Samples that select the class.
        n: Samples that estimate its probability.
        alpha: Probability that the certificate of an input is wrong, at most.
        norm: 1, 2 or infinity: that of the radius. What is proven is a Euclidean ball.
        eps: Only whether this radius is certified is wanted: sampling stops when that is settled.
        seed: Of the noise: same seed, same noise.
        batch: Points evaluated at a time; None: by the size of the network.
        indices: Of the inputs, in a data set for instance; they choose the noise. Default: 0, 1, 2, ...

    Raises:
        InputError: An argument is not usable: NaN, a number out of its range, another shape, a network that
            has more than one input or output or less than two classes.
        UnsupportedError: The network has nodes that can't be translated, or onnxruntime can't evaluate it.
    """
    asked, settings = radius_asked(eps), SmoothingSettings(sigma, n0, n, alpha, seed, batch)
    smoother, points = _prepared(network, x, settings, norm, indices)
    return [smoother.certificate(point, index, asked) for index, point in points]


def smooth_predict(
    network: LoadedNetwork | Path,
    x: object,
    *,
    sigma: float,
    n: int = 1000,
    alpha: float = 0.001,
    seed: int = 0,
    batch: int | None = None,
    indices: Sequence[int] | None = None,
) -> list[SmoothPrediction]:
    """Answers of the smoothed classifier; arguments and errors as those of `smooth_certify`.

    >>> import lpverify
    >>> (found,) = lpverify.smooth_predict("classifier.onnx", [[0.25, 0.75]], sigma=0.25)
    >>> found.predicted
    1
    """
    settings = SmoothingSettings(sigma, n=n, alpha=alpha, seed=seed, batch=batch)
    smoother, points = _prepared(network, x, settings, 2, indices)
    return [smoother.prediction(point, index) for index, point in points]


def _prepared(
    network: LoadedNetwork | Path,
    x: object,
    settings: SmoothingSettings,
    norm: float,
    indices: Sequence[int] | None,
) -> tuple[Smoother, list[tuple[int, np.ndarray]]]:
    """What samples, and the inputs `(n,)` with their indices."""
    model = model_of(network)
    smoother = Smoother(model, settings, norm)  # refuses models of several inputs
    points, _ = points_of(x, model.inputs.shapes[0], "x")
    places = range(len(points)) if indices is None else list(indices)
    for place in places:
        whole("indices", place, 0, MOST_KEY)
    if len(places) != len(points):
        raise InputError(f"indices: expected {len(points)}, one for each input, got {len(places)}")
    return smoother, list(zip(places, points, strict=True))
