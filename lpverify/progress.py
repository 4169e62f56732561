"""The progress line on a terminal, and the same facts in words."""

import math
import os
import threading
import time
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from lpverify.verdict import Progress

CLEAR = "\r\x1b[K"


def describe(closed: int, open_: int, margin: float | None) -> str:
    """How far a search came, in words."""
    words = f"{closed} subproblem(s) closed, {open_} open"
    known = margin is not None and math.isfinite(margin)
    return f"{words}, worst bound {margin:.4g}" if known else words


class ProgressLine:
    """A line on `stream` that is redrawn in place, if that is a terminal.

    Args:
        end: The limit on the monotonic clock.
        label: Put before the text.
    """

    def __init__(self, stream: TextIO | None, end: float, wanted: bool, label: str = "") -> None:
        self.stream, self.end, self.label = stream, end, label
        self.enabled = wanted and stream is not None and stream.isatty()
        self.stage = "starting"
        self.progress: Progress | None = None
        self._lock = threading.Lock()

    def update(self, progress: "Progress") -> None:
        """Notes the latest state; `draw` shows it."""
        self.progress, self.stage = progress, progress.stage

    def draw(self) -> None:
        """Shows the state, until `close`; safe from any thread."""
        with self._lock:
            if self.enabled:
                self._write(CLEAR + self.text()[: self._columns() - 1])

    def close(self) -> None:
        """Removes the line for good."""
        with self._lock:
            if self.enabled:
                self._write(CLEAR)
            self.enabled = False

    def text(self) -> str:
        """Stage, subproblems, worst bound, time left."""
        now = self.progress
        middle = f"{describe(now.closed, now.open, now.margin)}, " if now is not None else ""
        return f"{self.label}{self.stage}: {middle}{max(0.0, self.end - time.monotonic()):.0f} s left"

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80  # type: ignore[union-attr]
        except (OSError, ValueError):
            return 80

    def _write(self, text: str) -> None:
        try:
            self.stream.write(text)  # type: ignore[union-attr]
            self.stream.flush()  # type: ignore[union-attr]
        except (OSError, ValueError):
            self.enabled = False
