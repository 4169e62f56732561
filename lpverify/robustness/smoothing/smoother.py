"""The smoothed classifier of a network, sampled (Cohen, Rosenfeld and Kolter 2019, arXiv:1902.02918).

It answers with the class that a function f gives most often to an input with Gaussian noise,

    g(x) = argmax_c P[f(x + N(0, sigma^2 I)) = c].

If the probability of a class at x is above p >= 1/2, g answers with it within the Euclidean distance
`sigma Phi^-1(p)` of x (theorem 1 there, binary bound).

What is said here is about g, not about f, and holds with a confidence, not for certain: p is estimated from
samples. f may be any deterministic function. Here it is the network as onnxruntime computes it: the first
class of equal ones, no class where an output is NaN. Noisy inputs are not clipped to a range of inputs,
which would make another classifier; the range of a threat only leaves the adversary less. Noise is taken
for normal and its sum with x for exact, as in the paper, although both are numbers in single precision; a
network made to tell sums apart by their last bits could exploit that (Voracek and Hein 2023,
arXiv:2207.07209).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from lpverify.errors import InputError
from lpverify.io.model import Model
from lpverify.robustness.smoothing.binomial import lower_confidence, sign_test, upper_confidence
from lpverify.robustness.smoothing.sampling import Classifier, NoisyInput
from lpverify.robustness.smoothing.settings import MOST_KEY, Look, SmoothingSettings, whole

ABSTAIN = -1


@dataclass(frozen=True)
class SmoothCertificate:
    """What is known about the smoothed classifier around one input.

    With probability at least 1 - alpha over the samples: it answers `predicted` at every input within the
    closed ball of `radius`. That is said of each input on its own; with alpha / N for each of N inputs all of
    it holds together with probability 1 - alpha.

    Attributes:
        predicted: The class, -1 if nothing is certified.
        radius: In the norm `norm`, rounded down; 0 if nothing is certified.
        norm: 1, 2 or infinity.
        selected: The class whose probability was estimated, -1 if no sample of the selection had a class.
        p_lower: Lower confidence bound on its probability; Clopper-Pearson, the best one where the counts
            were looked at several times.
        counts: `(classes + 1,)`, how often each class came up in the estimate, and none because of NaN.
        n: Samples of the estimate; fewer than allowed where the question was settled before.
        n0: Samples of the selection; they don't count for the estimate.
        alpha: Probability that the certificate is wrong, at most.
        sigma: Standard deviation of the noise, in the units of the input.
        index: Of the input; chooses its noise.
        seconds: Wall-clock time.
    """

    predicted: int
    radius: float
    norm: float
    selected: int
    p_lower: float
    counts: tuple[int, ...] = field(repr=False)
    n: int
    n0: int
    alpha: float
    sigma: float
    index: int
    seconds: float

    @property
    def abstained(self) -> bool:
        """Whether nothing is certified."""
        return self.predicted == ABSTAIN

    def certifies(self, eps: float | Fraction) -> bool:
        """Whether the ball of radius `eps` is certified, compared exactly; never for NaN."""
        return not self.abstained and self.radius >= eps

    @property
    def statement(self) -> str:
        """What the certificate says, in words."""
        about = f"the classifier smoothed with Gaussian noise of standard deviation {self.sigma:g}"
        if self.abstained:
            return f"nothing is certified about {about}"
        return (
            f"with probability at least 1 - {self.alpha:g} over the samples, {about} (not the network "
            f"itself) answers {self.predicted} within {self.radius:g} in norm {self.norm:g}"
        )


@dataclass(frozen=True)
class SmoothPrediction:
    """The answer of the smoothed classifier at one input.

    With probability at least 1 - alpha over the samples, `predicted` is its answer, or -1.

    Attributes:
        predicted: The class, -1 if the samples don't tell the two most frequent ones apart.
        p_value: Of the two-sided binomial test between these, rounded up.
        counts: `(classes + 1,)`, how often each class came up, and none because of NaN.
        n: Samples.
        alpha: Probability that the answer is wrong, at most.
        sigma: Standard deviation of the noise.
        index: Of the input; chooses its noise.
        seconds: Wall-clock time.
    """

    predicted: int
    p_value: float
    counts: tuple[int, ...] = field(repr=False)
    n: int
    alpha: float
    sigma: float
    index: int
    seconds: float


class Smoother:
    """The smoothed classifier of a model, sampled.

    Args:
        model: With one input of floats and one output of at least two classes.
        settings: Noise, numbers of samples, confidence.
        norm: Of radii: 1, 2 or infinity. What is proven is a Euclidean ball.

    Raises:
        InputError: The model has another interface, or the norm is another one.
        UnsupportedError: Its input has another type.
    """

    def __init__(self, model: Model, settings: SmoothingSettings, norm: float = 2) -> None:
        if norm not in (1, 2, np.inf):
            raise InputError(f"norm: expected 1, 2 or infinity, got {norm!r}")
        self.settings, self.norm = settings, float(norm)
        self.classifier = Classifier(model, settings.batch)

    def certificate(
        self, x: np.ndarray, index: int, asked: Fraction | None = None, sequential: bool = False
    ) -> SmoothCertificate:
        """CERTIFY of the paper; where a radius is asked about, no more samples are drawn than that takes.

        The result depends on the arguments and the settings, not on other inputs certified before.
        All sequential certificates of one input hold together with probability 1 - alpha.

        Args:
            x: `(n,)` float64.
            index: Chooses the noise: another one for each input.
            asked: A radius. Sampling stops as soon as it is settled whether it is certified, and whether any
                is: when the lower bound is there, when no count of the remaining samples would do, or when
                the upper confidence bound is too low. Giving up costs no confidence.
            sequential: Look at the counts as if a radius were asked about, but draw all samples.

        Raises:
            InputError: Shape or numbers do not fit.
            OnnxError: onnxruntime finds the model malformed.
            UnsupportedError: onnxruntime can't evaluate it.
        """
        start, settings = time.monotonic(), self.settings
        point = self._point(x, index)
        votes = point.draw("selection", settings.n0)[:-1]
        top = int(votes.argmax()) if votes.any() else ABSTAIN
        counts, best = self._estimate(point, top, asked, settings.looks(sequential or asked is not None))
        radius = settings.radius(best, len(x), self.norm, point.shift)
        return SmoothCertificate(
            predicted=top if radius > 0.0 else ABSTAIN,
            radius=radius,
            norm=self.norm,
            selected=top,
            p_lower=best,
            counts=tuple(counts.tolist()),
            n=int(counts.sum()),
            n0=settings.n0,
            alpha=settings.alpha,
            sigma=settings.sigma,
            index=index,
            seconds=time.monotonic() - start,
        )

    def _estimate(
        self, point: NoisyInput, top: int, asked: Fraction | None, looks: Sequence[Look]
    ) -> tuple[np.ndarray, float]:
        """Counts, and a lower bound of the probability of a class."""
        counts, best = np.zeros(self.classifier.classes + 1, np.int64), 0.0
        if top == ABSTAIN:
            return counts, best
        for i, look in enumerate(looks):
            counts += point.draw("estimation", look.samples - int(counts.sum()))
            count = int(counts[top])
            best = max(best, lower_confidence(count, look.samples, look.alpha))
            if asked is not None and self._settled(best, count, looks[i:], asked, point.shift):
                break
        return counts, best

    def _settled(self, best: float, count: int, looks: Sequence[Look], asked: Fraction, shift: float) -> bool:
        """Whether it is clear that a radius is certified or hopeless, and likewise that any radius is."""
        size, now = self.classifier.input_size, looks[0]

        def reaches(p: float, eps: Fraction) -> bool:
            radius = self.settings.radius(p, size, self.norm, shift)
            return radius > 0.0 and radius >= eps

        most = [
            best,
            *(lower_confidence(count + k.samples - now.samples, k.samples, k.alpha) for k in looks[1:]),
        ]
        limit = min(max(most), upper_confidence(count, now.samples, now.alpha))
        return all(reaches(best, eps) or not reaches(limit, eps) for eps in (asked, Fraction(0)))

    def prediction(self, x: np.ndarray, index: int) -> SmoothPrediction:
        """PREDICT of the paper; arguments and errors as those of `certificate`.

        That the two most frequent classes are tested as if they had been chosen beforehand is right for a
        two-sided test (Hung and Fithian 2019, Annals of Statistics 47).
        """
        start, settings = time.monotonic(), self.settings
        counts = self._point(x, index).draw("prediction", settings.n)
        first, second = np.argsort(-counts[:-1], kind="stable")[:2]
        p_value = sign_test(int(counts[first]), int(counts[second]))
        return SmoothPrediction(
            predicted=int(first) if p_value <= settings.alpha else ABSTAIN,
            p_value=p_value,
            counts=tuple(counts.tolist()),
            n=settings.n,
            alpha=settings.alpha,
            sigma=settings.sigma,
            index=index,
            seconds=time.monotonic() - start,
        )

    def _point(self, x: np.ndarray, index: int) -> NoisyInput:
        whole("index", index, 0, MOST_KEY)
        if x.shape != (self.classifier.input_size,):
            raise InputError(f"x: expected shape ({self.classifier.input_size},), got {x.shape}")
        return NoisyInput(self.classifier, self.settings, x, int(index))
