"""What a floating-point execution of a model runs: its nodes one after the other, and their element types."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from lpverify.ops.base import Constant, OnnxNode


@dataclass(frozen=True)
class FloatType:
    """An IEEE type: unit roundoff, smallest normal and largest finite number."""

    unit: float
    normal: float
    largest: float

    @property
    def floor(self) -> float:
        """Added to magnitudes, so that relative errors of them cover what is flushed to zero."""
        return self.normal / self.unit


FLOATS: Mapping[str, FloatType] = {
    "float64": FloatType(2.0**-53, 2.0**-1022, float(np.finfo(np.float64).max)),
    "float32": FloatType(2.0**-24, 2.0**-126, float(np.finfo(np.float32).max)),
    "bfloat16": FloatType(2.0**-8, 2.0**-126, 2.0**127),
    "float16": FloatType(2.0**-11, 2.0**-14, 65504.0),
}


@dataclass(frozen=True)
class OnnxStep:
    """One node of a model and the part of the network that stands for it.

    Attributes:
        node: As its importer saw it; its computed operands are values of the network.
        label: For messages.
        first: Index of the first value that was added for it.
        last: Index of the last one; below `first` if it is data movement without any.
        outputs: Values of its results.
    """

    node: OnnxNode
    label: str
    first: int
    last: int
    outputs: tuple[int, ...]

    def moved(self, place: Callable[[int], int]) -> "OnnxStep":
        """The same step of a network where old values have new indices."""
        operands = tuple(place(o) if isinstance(o, int) else o for o in self.node.operands)
        ends = (place(self.first), place(self.last)) if self.first <= self.last else (1, 0)
        outputs = tuple(map(place, self.outputs))
        return OnnxStep(replace(self.node, operands=operands), self.label, *ends, outputs)

    @property
    def drift(self) -> float:
        """How far the constant operands may be from those of an execution, relatively."""
        return max((o.drift for o in self.node.operands if isinstance(o, Constant)), default=0.0)

    def kind(self, output: int) -> str:
        """Element type of a result; where the schema leaves it open, that of the first operand."""
        kinds = self.node.result_types
        kind = kinds[output] if output < len(kinds) else ""
        return kind or next(filter(None, self.node.types), "")
