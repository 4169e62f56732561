"""How a run goes about it: limits and seeds."""

import math
from dataclasses import dataclass, field
from fractions import Fraction

from lpverify.config import Config
from lpverify.errors import InputError
from lpverify.robustness.smoothing.settings import SmoothingSettings


@dataclass(frozen=True)
class Plan:
    """Limits and seeds.

    Attributes:
        seconds: For each sample, all radii together, by each method that works on single samples.
        spare: Questions that ran out of time are asked once more for up to so many times `seconds`, out of
            what other samples left over; 0: they are not.
        jobs: Processes that work on single samples; 0: this one does.
        seed: Of all random choices.
        attack: Whether to look for counterexamples before the dearer methods.
        most: Certified radii are searched up to this; None: they are not.
        smoothing: Settings of `smoothing`.
        config: Of verifications.

    Raises:
        InputError: A number is out of range.
    """

    seconds: float = 10.0
    spare: float = 3.0
    jobs: int = 1
    seed: int = 0
    attack: bool = True
    most: Fraction | None = None
    smoothing: SmoothingSettings | None = None
    config: Config = field(default_factory=Config)

    def __post_init__(self) -> None:
        if not 0 < self.seconds < math.inf:
            raise InputError(f"seconds: expected a positive number, got {self.seconds!r}")
        if not 0 <= self.spare < math.inf:
            raise InputError(f"spare: expected a number from 0, got {self.spare!r}")
        if self.jobs < 0:
            raise InputError(f"jobs: expected a whole number from 0, got {self.jobs!r}")
        if self.most is not None and self.most <= 0:
            raise InputError(f"radius: expected a positive number, got {self.most}")
