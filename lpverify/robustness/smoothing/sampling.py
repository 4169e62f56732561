"""Classes that a network gives to an input under Gaussian noise, counted in batches.

Of three ways to evaluate a batch the first is taken that reproduces what onnxruntime computes point by
point, on some noisy copies of the input itself: onnxruntime on batches, the imported network in single
precision, onnxruntime point by point. A network that mixes the rows of a batch, or is sensitive to
rounding, ends with the last one.
"""

from collections.abc import Callable
from functools import cached_property
from math import prod
from typing import Literal, TypeAlias

import numpy as np

from lpverify.bounds.evaluate import to_numpy
from lpverify.errors import InputError, UnsupportedError
from lpverify.interval import Array
from lpverify.io.batched import batched_runtime
from lpverify.io.model import Model
from lpverify.io.runtime import runtime_of
from lpverify.loading import CHUNK_ELEMENTS
from lpverify.network import Network
from lpverify.ops.convolution import Conv
from lpverify.robustness.smoothing.noise import NormalStream
from lpverify.robustness.smoothing.settings import SmoothingSettings, distance

Engine: TypeAlias = Callable[[np.ndarray], np.ndarray | None]
Purpose: TypeAlias = Literal["selection", "estimation", "prediction", "check"]

PURPOSES: tuple[Purpose, ...] = ("selection", "estimation", "prediction", "check")  # the order is in the keys
CHECKED = 7  # copies of each input that are compared: no size that a reshape would have
TOLERANCE = 1e-4  # of the largest output of a point, between two ways to evaluate it
TORCH_WORK = 2_000_000  # multiplications of one evaluation from which torch pays for its import
USUAL_BATCH = 256


class Classifier:
    """A network as a function from inputs to classes, evaluated in batches.

    The class of an input is the index of the largest output, the first of equal ones. An input with a NaN
    among its outputs has no class.

    Args:
        model: With one input of floats and one output of at least two elements along one axis.
        batch: Points evaluated at a time; None: 256, fewer where their values would take much memory.

    Raises:
        InputError: The model has another number of inputs, outputs or axes with several elements.
        UnsupportedError: Its input is of another type.
    """

    def __init__(self, model: Model, batch: int | None = None) -> None:
        _check_interface(model)
        self.model = model
        self.batch = min(USUAL_BATCH, self._chunk) if batch is None else batch
        self.input_size, self.classes = model.inputs.sizes[0], model.outputs.sizes[0]
        self.dtype = np.dtype(model.inputs.dtypes[0])
        self._runtime = runtime_of(model)

    def engine_for(self, points: np.ndarray) -> Engine:
        """The fastest way to evaluate batches that is right on some points `(N, n)` of the model's type.

        Raises:
            OnnxError: onnxruntime finds the model malformed.
            UnsupportedError: It can't evaluate the model.
        """
        expected = self.one_by_one(points)
        for engine in (self._batched, self._network):
            if engine is not None and _agrees(engine, points, expected):
                return engine
        return self.one_by_one

    def one_by_one(self, points: np.ndarray) -> np.ndarray:
        """The outputs `(N, m)` as onnxruntime computes them for each point alone."""
        rows = [self._runtime(point) for point in points]
        if any(row is None for row in rows):
            raise UnsupportedError(f"onnxruntime can't evaluate the network: {self._runtime.failure}")
        return np.stack([row for row in rows if row is not None])

    @cached_property
    def _chunk(self) -> int:
        """Points whose values are held at a time."""
        return max(1, CHUNK_ELEMENTS // sum(prod(n.shape) for n in self.model.network.nodes))

    @cached_property
    def _batched(self) -> Engine | None:
        return batched_runtime(self.model)

    @cached_property
    def _network(self) -> Engine:
        """The imported network, in float32; in float64 for inputs of that type."""
        dtype = np.float64 if self.dtype == np.float64 else np.float32
        network, place, step = self.model.network, _placement(self.model.network), self._chunk
        placed = network.convert(place, dtype)

        def evaluate(points: np.ndarray) -> np.ndarray:
            parts = (points[i : i + step].astype(dtype) for i in range(0, len(points), step))
            with np.errstate(all="ignore"):
                return np.concatenate([to_numpy(placed(place(part))) for part in parts])

        return evaluate


class NoisyInput:
    """One input, and the noise that belongs to it; for each purpose a stream of its own.

    Args:
        classifier: Of its noisy copies.
        settings: Noise and seed.
        x: `(n,)` float64.
        index: Of the input; chooses the streams.

    Raises:
        InputError: Numbers are infinite, or not within the range of the model's type.
        OnnxError: onnxruntime finds the model malformed.
        UnsupportedError: It can't evaluate the model.

    Attributes:
        shift: An upper bound of the Euclidean distance of x to the input in the model's type.
    """

    def __init__(
        self, classifier: Classifier, settings: SmoothingSettings, x: np.ndarray, index: int
    ) -> None:
        with np.errstate(over="ignore"):
            self._x = x.astype(classifier.dtype)
        if not np.isfinite(self._x).all():
            raise InputError(f"x contains infinite numbers, or some beyond {classifier.dtype}")
        self.shift = distance(x, self._x)
        self._classifier, self._scale = classifier, settings.scale
        self._streams = {p: NormalStream(settings.seed, index, k) for k, p in enumerate(PURPOSES)}
        self._buffer = np.empty((max(classifier.batch, CHECKED), len(x)), np.float32)
        self._engine = classifier.engine_for(self._copies("check", CHECKED).copy())

    def draw(self, purpose: Purpose, samples: int) -> np.ndarray:
        """How often each class comes up among the next noisy copies.

        Up to rounding within the network the result does not depend on the size of batches.

        Args:
            purpose: Chooses the stream.
            samples: How many copies.

        Returns:
            `(classes + 1,)`; the last element counts the copies without a class.
        """
        batch, classes = self._classifier.batch, self._classifier.classes
        total = np.zeros(classes + 1, np.int64)
        for start in range(0, samples, batch):
            points = self._copies(purpose, min(batch, samples - start))
            outputs = self._engine(points)
            if outputs is None:  # larger batches may fail where the small one of the check did not
                outputs = self._classifier.one_by_one(points)
            total += np.bincount(classes_of(outputs), minlength=classes + 1)
        return total

    def _copies(self, purpose: Purpose, count: int) -> np.ndarray:
        """Copies with fresh noise `(count, n)`, in the model's type; valid until the next call."""
        points = self._buffer[:count]
        self._streams[purpose].fill(points)
        points *= self._scale
        with np.errstate(over="ignore"):  # what is infinite then is up to the network
            if self._x.dtype != np.float32:
                return (points + self._x.astype(np.float64)).astype(self._x.dtype)
            points += self._x
        return points


def classes_of(outputs: np.ndarray) -> np.ndarray:
    """The class of each row `(N, m)` of outputs; `m`, one more than the last, for rows with NaN."""
    best = outputs.argmax(axis=1)  # stops at the first NaN, and at the first of equal ones
    undefined = np.isnan(outputs[np.arange(len(outputs)), best])
    return np.where(undefined, outputs.shape[1], best)


def _placement(network: Network) -> Callable[[np.ndarray], Array]:
    """Where arrays go: to torch for large convolutional networks, as the bounds do it, else nowhere."""
    convolutional = any(isinstance(n.op, Conv) for n in network.nodes)
    if not convolutional or network.work[network.output] <= TORCH_WORK:
        return np.asarray
    import torch  # noqa: PLC0415  (slow to import)

    return lambda array: torch.from_numpy(np.ascontiguousarray(array))


def _agrees(engine: Engine, points: np.ndarray, expected: np.ndarray) -> bool:
    """Whether an engine computes the expected outputs, up to rounding."""
    try:
        outputs = engine(points)
    except Exception:  # noqa: BLE001  (ops that the namespace of the arrays lacks; it is not used then)
        return False
    if outputs is None or outputs.shape != expected.shape:
        return False
    finite = np.where(np.isfinite(expected), np.abs(expected), 0.0).astype(np.float64)
    allowed = TOLERANCE * finite.max(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        near = np.abs(outputs.astype(np.float64) - expected) <= allowed
    same = (outputs == expected) | (np.isnan(outputs) & np.isnan(expected))
    return bool((near | same).all())


def _check_interface(model: Model) -> None:
    inputs, outputs = model.inputs, model.outputs
    if len(inputs.names) != 1 or len(outputs.names) != 1:
        raise InputError(
            "smoothing needs a network with one input and one output, "
            f"this one has {len(inputs.names)} and {len(outputs.names)}"
        )
    if outputs.sizes[0] < 2 or max(outputs.shapes[0]) != outputs.sizes[0]:
        raise InputError(
            f"smoothing needs an output of at least two classes along one axis, got shape {outputs.shapes[0]}"
        )
    if inputs.sizes[0] < 1:
        raise InputError("the network's input has no elements")
    if np.dtype(inputs.dtypes[0]) not in (np.float16, np.float32, np.float64):
        raise UnsupportedError(
            f"smoothing needs an input of float16, float32 or float64, got {np.dtype(inputs.dtypes[0])}"
        )
