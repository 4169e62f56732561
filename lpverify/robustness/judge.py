"""The judge: the only place where a point becomes a counterexample, by the original model in onnxruntime."""

from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from lpverify.errors import InputError, UnsupportedError
from lpverify.io.onnx import Model
from lpverify.io.runtime import runtime_of
from lpverify.problem import Range
from lpverify.replay import inner_box, is_whole, nearest
from lpverify.robustness.evidence import Adversarial, Clean
from lpverify.robustness.margins import classes_of
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat


class Judge:
    """Runs the original model on single points, exactly as a user would; keeps the onnxruntime session.

    Attributes:
        model: A classifier.
        samples: The data set.
        threat: What counts as a counterexample.
        dtype: The type of the model's input.
        lower: The least number of that type in the clip range, as float64.
        upper: The largest one.
    """

    def __init__(self, model: Model, samples: Samples, threat: Threat) -> None:
        """Of a model and what is asked about it.

        Raises:
            InputError: The model is no classifier, does not fit the samples or the threat; the clip range
                has no number of its input type, or a sample lies outside of it.
        """
        self.model, self.samples, self.threat = model, samples, threat
        self.dtype: type = model.inputs.dtypes[0]
        _require_fit(model, samples, threat)
        self.lower, self.upper = _ends(threat, self.dtype)
        if not np.array_equal(self.rounded(samples.x), samples.x):
            kind = np.dtype(self.dtype).name
            raise InputError(f"a sample is no {kind} number, or lies outside of the clip range")
        self._runtime = runtime_of(model)

    def clean(self, indices: Sequence[int]) -> list[Clean]:
        """The model's answers at samples themselves.

        Raises:
            UnsupportedError: onnxruntime can't run the model.
        """
        return [self._clean(int(i)) for i in indices]

    def adversarial(self, sample: int, point: np.ndarray, source: str) -> Adversarial | None:
        """Judges a candidate.

        Args:
            sample: Index.
            point: Flat `(n,)`; it is rounded to the nearest number of the input type in the clip range.
            source: The technique that proposes it.

        Returns:
            None unless all outputs at the rounded point are finite and the label's is at most a rival's.
        """
        x = self.rounded(point)
        outputs = self._outputs(x) if np.isfinite(x).all() else None
        if outputs is None or not np.isfinite(outputs).all():
            return None
        label = int(self.samples.y[sample])
        rivals = list(self.threat.rivals(label))
        best = rivals[int(np.argmax(outputs[rivals]))]
        if not outputs[label] <= outputs[best]:
            return None
        distance = self.threat.distance(self.samples.x[sample], x)
        if distance is None:
            return None
        winner = int(np.argmax(outputs))
        winner = winner if outputs[winner] > outputs[best] else best  # a tie is lost to the rival
        return Adversarial(sample, x, winner, distance, source)

    def rounded(self, points: np.ndarray) -> np.ndarray:
        """The nearest numbers of the input type in the clip range, as float64; of any shape."""
        if is_whole(self.dtype) and not np.isfinite(points).all():
            return np.full(points.shape, np.nan)  # whole numbers have none
        x = np.asarray(nearest(points, self.dtype), np.float64)
        return np.minimum(np.maximum(x, self.lower), self.upper)

    def towards(self, points: np.ndarray, centres: np.ndarray) -> np.ndarray:
        """Numbers of the input type, none farther from its centre than the point was, as float64.

        Args:
            points: Any shape.
            centres: The same shape, numbers of the input type in the clip range.
        """
        x = self.rounded(points)
        if is_whole(self.dtype):
            inward = np.sign(centres - x)
            return np.where(np.abs(x - centres) > np.abs(points - centres), x + inward, x)
        typed: np.ndarray = x.astype(self.dtype)
        target: np.ndarray = centres.astype(self.dtype)
        inner = np.asarray(np.nextafter(typed, target), np.float64)
        return np.where(np.abs(x - centres) > np.abs(points - centres), inner, x)

    def _clean(self, sample: int) -> Clean:
        outputs = self._outputs(self.samples.x[sample])
        if outputs is None:
            reason = getattr(self._runtime, "failure", "") or "an output is not exactly a float64 number"
            raise UnsupportedError(f"onnxruntime can't evaluate the network: {reason}")
        if np.isnan(outputs).any():
            return Clean(sample, -1, False, float("nan"))
        label = int(self.samples.y[sample])
        own, other = outputs[label], np.delete(outputs, label).max()
        correct = bool(own > other)
        margin = 0.0 if own == other else float(own) - float(other)
        return Clean(sample, label if correct else int(np.argmax(outputs)), correct, margin)

    def _outputs(self, x: np.ndarray) -> np.ndarray | None:
        typed: np.ndarray = x.astype(self.dtype)
        with np.errstate(all="ignore"):
            return self._runtime(typed)


def _require_fit(model: Model, samples: Samples, threat: Threat) -> None:
    classes, size = classes_of(model), model.inputs.sizes[0]
    if classes != threat.classes:
        raise InputError(f"the network has {classes} outputs, the threat is about {threat.classes} classes")
    if samples.x.shape[1] != size:
        raise InputError(f"samples have {samples.x.shape[1]} inputs, the network has {size}")
    if len(samples) and (samples.y.min() < 0 or samples.y.max() >= classes):
        raise InputError(f"a label is not one of the classes 0 to {classes - 1}")


def _ends(threat: Threat, dtype: type) -> tuple[float, float]:
    """The ends of the clip range in the numbers of a type."""
    if threat.clip is None:
        return -np.inf, np.inf
    low, high = (Fraction(end) for end in threat.clip)
    lower, upper = (float(end[0]) for end in inner_box(Range((low,), (high,)), dtype))
    if not lower <= upper:
        raise InputError(f"clip: no number of the network's input type is from {low} to {high}")
    return lower, upper
