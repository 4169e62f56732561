"""Leads of labels and their gradients at many points, for attacks: proposals only."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from lpverify.bounds.evaluate import Arithmetic, slices, to_numpy
from lpverify.robustness.judge import Judge
from lpverify.robustness.margins import Margins
from lpverify.robustness.threat import Threat
from lpverify.search.attack import values_and_gradient
from lpverify.simplify import simplify

BATCH_ELEMENTS = 2_000_000  # of all values, at all points evaluated together
LARGEST_BATCH = 512
Seed: TypeAlias = Callable[[np.ndarray, slice], np.ndarray]
ANY = -1  # as a target: whichever rival is the strongest


@dataclass(frozen=True)
class Leads:
    """The outputs of a classifier, compared.

    Attributes:
        arithmetic: The network whose result is the outputs, or what a final softmax ranks.
        threat: Which classes are rivals.
        size: How many points to evaluate at a time.
    """

    arithmetic: Arithmetic
    threat: Threat
    size: int

    @classmethod
    def of(cls, margins: Margins, judge: Judge) -> "Leads":
        """Of the judge's model, where the margins are computed.

        Single precision is enough unless the model's input is in double.
        """
        network = judge.model.network
        if network.ranked is not None:
            network = replace(network, output=network.ranked)
        network, arithmetic = simplify(network), margins.arithmetic
        if isinstance(arithmetic.like, np.ndarray) and np.dtype(judge.dtype) != np.float64:
            arithmetic = replace(arithmetic, like=np.zeros(1, np.float32))
        total = sum(int(np.prod(node.shape)) for node in network.nodes)
        size = int(np.clip(BATCH_ELEMENTS // max(total, 1), 1, LARGEST_BATCH))
        return cls(arithmetic.for_network(network), judge.threat, size)

    @property
    def precision(self) -> type:
        """Of the computations: float32 or float64."""
        return np.float64 if self.arithmetic.like.dtype.itemsize == 8 else np.float32

    @np.errstate(all="ignore")
    def outputs(self, x: np.ndarray) -> np.ndarray:
        """Outputs `(R, classes)` at points `(R, n)`."""
        found = np.empty((len(x), self.threat.classes))
        for part in slices(len(x), self.size):
            outputs = to_numpy(self.arithmetic.network(self.arithmetic.array(x[part])))
            found[part] = outputs.reshape(len(outputs), -1)
        return found

    def lead(self, outputs: np.ndarray, labels: np.ndarray, targets: np.ndarray | None = None) -> np.ndarray:
        """The label's output minus that of the target or the strongest rival `(R,)`; infinite for NaN."""
        rows = np.arange(len(labels))
        chosen = self._chosen(outputs, labels, targets)
        with np.errstate(invalid="ignore"):
            lead = outputs[rows, labels] - outputs[rows, chosen]
        return np.where(np.isfinite(outputs).all(1), lead, np.inf)

    def strongest(self, outputs: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
        """The strongest rivals first `(R, k)`, k at most `count` and the number of rivals."""
        rivals = self._rivals(outputs, labels)
        most = 1 if self.threat.targets == "next" else self.threat.classes - 1
        return np.argsort(-rivals, axis=1, kind="stable")[:, : min(count, most)]

    def gradient(
        self, x: np.ndarray, labels: np.ndarray, targets: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Outputs `(R, classes)`, and gradients `(R, n)` of the leads over the targets."""

        def seed(outputs: np.ndarray, part: slice) -> np.ndarray:
            rows, weights = np.arange(len(outputs)), np.zeros(outputs.shape)
            weights[rows, labels[part]] = 1.0
            weights[rows, self._chosen(outputs, labels[part], targets[part])] -= 1.0
            return weights

        return self._gradients(x, seed)

    def along(self, x: np.ndarray, direction: np.ndarray) -> np.ndarray:
        """Gradients `(R, n)` of `direction . outputs`, directions `(R, classes)`."""
        return self._gradients(x, lambda _, part: direction[part])[1]

    @np.errstate(all="ignore")
    def _gradients(self, x: np.ndarray, seed: Seed) -> tuple[np.ndarray, np.ndarray]:
        outputs = np.empty((len(x), self.threat.classes))
        gradients: np.ndarray = np.empty(x.shape, self.precision)
        for part in slices(len(x), self.size):

            def weights(values: np.ndarray, part: slice = part) -> np.ndarray:
                return seed(values.reshape(len(values), -1), part).reshape(values.shape)

            values, gradients[part] = values_and_gradient(self.arithmetic, x[part], weights)
            outputs[part] = values.reshape(len(values), -1)
        if not np.isfinite(gradients.sum()):
            gradients[~np.isfinite(gradients)] = 0.0
        return outputs, gradients

    def _chosen(self, outputs: np.ndarray, labels: np.ndarray, targets: np.ndarray | None) -> np.ndarray:
        best = np.argmax(self._rivals(outputs, labels), axis=1)
        return best if targets is None else np.where(targets == ANY, best, targets)

    def _rivals(self, outputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The outputs of rivals, minus infinity elsewhere."""
        rows = np.arange(len(labels))
        if self.threat.targets == "next":
            rivals, following = np.full(outputs.shape, -np.inf), (labels + 1) % self.threat.classes
            rivals[rows, following] = np.nan_to_num(outputs[rows, following], nan=-np.finfo(float).max)
            return rivals
        rivals = np.nan_to_num(outputs, nan=-np.finfo(float).max)
        rivals[rows, labels] = -np.inf
        return rivals
