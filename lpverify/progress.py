"""The progress line on a terminal, and the same facts in words."""

import math
import time
from typing import TYPE_CHECKING, TextIO

from lpverify.terminal import TerminalLine

if TYPE_CHECKING:
    from lpverify.verdict import Progress


def describe(closed: int, open_: int, margin: float | None) -> str:
    """How far a search came, in words."""
    words = f"{closed} subproblem(s) closed, {open_} open"
    known = margin is not None and math.isfinite(margin)
    return f"{words}, worst bound {margin:.4g}" if known else words


class ProgressLine(TerminalLine):
    """A line on `stream` that is redrawn in place, if that is a terminal.

    Args:
        end: The limit on the monotonic clock.
        label: Put before the text.
    """

    def __init__(self, stream: TextIO | None, end: float, wanted: bool, label: str = "") -> None:
        super().__init__(stream, wanted)
        self.end, self.label = end, label
        self.stage = "starting"
        self.progress: Progress | None = None

    def update(self, progress: "Progress") -> None:
        """Notes the latest state; `draw` shows it."""
        self.progress, self.stage = progress, progress.stage

    def text(self) -> str:
        """Stage, subproblems, worst bound, time left."""
        now = self.progress
        middle = f"{describe(now.closed, now.open, now.margin)}, " if now is not None else ""
        return f"{self.label}{self.stage}: {middle}{max(0.0, self.end - time.monotonic()):.0f} s left"
