"""Settings and the deadline: frozen values that are passed down, never read as global state."""

import time
from dataclasses import dataclass, field

SEARCHES = ("auto", "lp", "milp")
DEVICES = ("auto", "cpu", "cuda")


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point of the monotonic clock, in seconds; infinite by default."""

    end: float = float("inf")

    @classmethod
    def after(cls, seconds: float) -> "Deadline":
        """The deadline that many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def remaining(self) -> float:
        """Seconds left, 0 when passed."""
        return max(0.0, self.end - time.monotonic())

    @property
    def passed(self) -> bool:
        """True when no time is left."""
        return time.monotonic() >= self.end

    def within(self, seconds: float) -> "Deadline":
        """The earlier of this deadline and one that many seconds from now."""
        return Deadline(min(self.end, time.monotonic() + seconds))


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of one verification.

    Attributes:
        timeout: Wall-clock limit in seconds.
        seed: Of every random choice; the same seed gives the same candidates.
        record_proof: Keep the multipliers of every leaf, so that `check` can recompute an `unsat`.
        input_split_limit: Up to this many free inputs the search bisects inputs instead of ReLU phases.
        attack_share: Share of the remaining time that the gradient attack may take before the search.
        threads: For the compiled kernel; 0: one for each usable core.
        method: Of the search: `auto` lets several compete, `lp` and `milp` take linear programs alone.
        device: Where large networks are bounded and searched; `auto`: a GPU that CUDA finds, else the CPU.
        max_coefficients: Coefficients of one backward pass held at a time, a value and a row each.
    """

    timeout: float = 60.0
    seed: int = 0
    record_proof: bool = False
    input_split_limit: int = 16
    attack_share: float = 0.05
    threads: int = 0
    method: str = "auto"
    device: str = "auto"
    max_coefficients: int = 2**22
    deadline: Deadline = field(default_factory=Deadline)
