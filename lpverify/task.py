"""One property on its way through `lpverify verify`."""

import time
from typing import TYPE_CHECKING

from lpverify.io.results import Answer, Tensor, Word, undecided
from lpverify.progress import ProgressLine

if TYPE_CHECKING:
    from lpverify.io.model import Model
    from lpverify.query import Query


class Task:
    """One property: how far it is, and when.

    Attributes:
        query: Once it is read.
        model: The networks that it declares.
        tensors: Its variables, as they are printed.
        spent: Seconds that reading it took.
        marks: The phases and when they began.
        files: Its file with its hash, where that isn't left to the background.
        rechecked: Leaves of its proof that stood the re-check, if that was wanted.
    """

    def __init__(self, path: str, timeout: float, line: ProgressLine) -> None:
        self.path, self.timeout, self.line = path, timeout, line
        self.query: Query | None = None
        self.model: Model | None = None
        self.tensors: list[Tensor] = []
        self.files: dict[str, dict[str, str | None]] = {}
        self.rechecked: int | None = None
        self.spent = 0.0
        self.margin = min(max(0.1, 0.02 * timeout), 0.5 * timeout)
        self.begin("load", time.monotonic())

    @property
    def end(self) -> float:
        """The limit, on the monotonic clock."""
        return self.marks[0][1] + self.timeout

    @property
    def hard_end(self) -> float:
        """When the watchdog has to answer; the rest is for the exit."""
        return self.end - 0.75 * self.margin

    def begin(self, phase: str, start: float) -> None:
        """Starts the clock."""
        self.marks = [(phase, start)]
        self.line.end = self.end

    def enter(self, phase: str, stage: str) -> None:
        """Notes that a phase begins; `stage` is how it is called while there is no progress."""
        self.marks.append((phase, time.monotonic()))
        if self.line.progress is None:
            self.line.stage = stage

    def shift(self, seconds: float) -> None:
        """Leaves the last `seconds` out of account."""
        self.marks = [(name, begin + seconds) for name, begin in self.marks]
        self.line.end = self.end

    def seconds(self) -> dict[str, float]:
        """Seconds of every phase so far, and of all together."""
        now = time.monotonic()
        ends = [time_ for _, time_ in self.marks[1:]] + [now]
        phases = zip(self.marks, ends, strict=True)
        return {name: round(end - begin, 4) for (name, begin), end in phases} | {
            "wall": round(now - self.marks[0][1], 4)
        }

    def forget(self) -> None:
        """Drops what holds memory."""
        self.query = self.model = None

    def undecided(self, word: Word, reason: str) -> Answer:
        """An answer with what is known so far."""
        return undecided(word, reason, self.line.progress, self.line.stage)
