"""How far a run over many questions is, on one line of a terminal."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TextIO

from lpverify.robustness.evidence import Verdict
from lpverify.terminal import TerminalLine

WINDOW_SECONDS = 60.0  # what the rate is about: questions get harder as a run goes on
MARK_SECONDS = 1.0  # between the times that are remembered
REDRAW_SECONDS = 0.1
BAR_COLUMNS = 20
VERDICTS: tuple[Verdict, ...] = ("proven", "refuted", "unknown")
NONE: Mapping[Verdict, int] = MappingProxyType({})


class ProgressBar(TerminalLine):
    """Phase, share of questions done, verdicts, rate and time left; nothing where there is no terminal.

    Args:
        stream: Where to; None: nowhere.
        wanted: Whether it is to be shown on a terminal.
        clock: In seconds.

    Attributes:
        phase: What is going on.
        total: Questions of this phase.
        counts: Those done, by verdict.
    """

    def __init__(
        self, stream: TextIO | None, wanted: bool, clock: Callable[[], float] = time.monotonic
    ) -> None:
        super().__init__(stream, wanted)
        self.phase, self.total = "starting", 0
        self.counts: dict[Verdict, int] = dict.fromkeys(VERDICTS, 0)
        self._clock, self._drawn = clock, float("-inf")
        self._marks: deque[tuple[float, int]] = deque()

    def start(self, phase: str, total: int, done: Mapping[Verdict, int] = NONE) -> None:
        """Begins a phase of `total` questions, some of them done before."""
        self.phase, self.total = phase, total
        self.counts = dict.fromkeys(VERDICTS, 0) | dict(done)
        self._marks = deque([(self._clock(), self.done)])
        self._drawn = float("-inf")
        self.tick()

    def add(self, verdict: Verdict, count: int = 1) -> None:
        """Notes that so many more questions are done."""
        self.show(self.counts | {verdict: self.counts[verdict] + count})

    def show(self, counts: Mapping[Verdict, int]) -> None:
        """Notes how many questions are done by now."""
        self.counts |= counts
        self._mark()
        self.tick()

    def tick(self) -> None:
        """Draws the line unless it was a moment ago; also to be called while nothing happens."""
        now = self._clock()
        if now >= self._drawn + REDRAW_SECONDS:
            self._drawn = now
            self.draw()

    @property
    def done(self) -> int:
        """Questions of this phase that are."""
        return sum(self.counts.values())

    def rate(self) -> float:
        """Questions a second in the last minute, or since the last but one time that some were done.

        A batch that comes at once counts as spread over the time since the one before.
        """
        if not self._marks:
            return 0.0
        since, before = self._marks[0]
        seconds = self._clock() - since
        return (self.done - before) / seconds if seconds > 0 else 0.0

    def _mark(self) -> None:
        now, marks = self._clock(), self._marks
        if not marks or now >= marks[-1][0] + MARK_SECONDS:
            marks.append((now, self.done))
        while len(marks) > 1 and marks[1][0] <= now - WINDOW_SECONDS:
            marks.popleft()

    def text(self) -> str:
        """As many of the parts as fit on the line, the more important ones first to stay."""
        done, rate = self.done, self.rate()
        share = min(done / self.total, 1.0) if self.total else 1.0
        parts = {
            "phase": f"{self.phase} {done}/{self.total}",
            "left": _left(max(self.total - done, 0), rate),
            "counts": ", ".join(f"{count} {verdict}" for verdict, count in self.counts.items()),
            "rate": f"{rate:.3g}/s",
            "bar": "["
            + "#" * int(share * BAR_COLUMNS)
            + "-" * (BAR_COLUMNS - int(share * BAR_COLUMNS))
            + "]",
        }
        names = list(parts)
        order = ("bar", "phase", "counts", "rate", "left")
        while len(names) > 1:
            line = "  ".join(parts[name] for name in order if name in names and parts[name])
            if len(line) < self.columns():
                return line
            names.pop()
        return parts["phase"]


def _left(count: int, rate: float) -> str:
    if not count:
        return ""
    return f"{duration(count / rate)} left" if rate > 0 else "? left"


def duration(seconds: float) -> str:
    """In words, with two units at most."""
    minutes = round(seconds / 60)
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    if minutes < 100:
        return f"{minutes} min"
    hours = round(minutes / 60)
    if hours < 10:
        return f"{minutes // 60} h {minutes % 60} min"
    return f"{hours} h" if hours < 100 else f"{round(hours / 24)} days"
