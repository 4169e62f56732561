"""The common currency of all engines: multipliers, and how much effort finds them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from lpverify.interval import Array

Method = Literal["ibp", "crown"]


@dataclass(frozen=True)
class Multipliers:
    """Admissible multipliers of a batch of backward passes.

    Attributes:
        alpha: For each nonlinear node mixes in [0, 1], `(B, R, *shape)`.
        beta: For pre-activation values `(B, R, *shape)`, >= 0, zero where nothing is split.
    """

    alpha: Mapping[int, Array] = field(default_factory=dict)
    beta: Mapping[int, Array] = field(default_factory=dict)

    def rows(self, index: object) -> "Multipliers":
        """Those of some regions of the batch."""
        alpha = {k: v[index] for k, v in self.alpha.items()}
        return Multipliers(alpha, {k: v[index] for k, v in self.beta.items()})


@dataclass(frozen=True)
class Schedule:
    """How long and how fast multipliers ascend: `steps`, first step sizes, decay a step."""

    steps: int = 20
    alpha_rate: float = 0.25
    beta_rate: float = 0.1
    decay: float = 0.96


@dataclass(frozen=True)
class Effort:
    """How a subproblem is bounded.

    Attributes:
        method: For the boxes.
        schedule: For alpha and beta; None: adaptive slopes, no split terms.
        budget: Multiplications that the backward bounds of all values may take; a value that needs more
            than is left keeps its interval.
        forward: Tighten intervals by a forward pass first.
        ascent: So many steps of ascent in alpha for each backward bound of a value that stays unstable, where
            the budget then still has what the first bounds of all later values can take.
        half_spaces: Input boxes of children are clipped alternative by alternative (`bounds.halfspaces`).
        cuts: So many of the latest neuron splits give half-spaces, too.
    """

    method: Method = "crown"
    schedule: Schedule | None = None
    budget: float = float("inf")
    forward: bool = False
    ascent: int = 0
    half_spaces: bool = False
    cuts: int = 0
