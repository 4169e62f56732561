"""The progress line: only on terminals, redrawn in place, gone after `close`."""

import io
import math
import time

from lpverify.progress import ProgressLine, describe
from lpverify.terminal import CLEAR
from lpverify.verdict import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_words():
    assert describe(3, 2, -0.125) == "3 subproblem(s) closed, 2 open, worst bound -0.125"
    for margin in (None, math.inf, -math.inf, math.nan):
        assert describe(0, 1, margin) == "0 subproblem(s) closed, 1 open"


def test_the_line_is_redrawn_and_removed():
    stream = Terminal()
    line = ProgressLine(stream, time.monotonic() + 30, wanted=True)
    line.stage = "loading"
    line.draw()
    line.update(Progress(5, 1, -0.5, "attack"))
    line.draw()
    line.close()
    line.draw()
    parts = stream.getvalue().split(CLEAR)
    assert len(parts) == 4
    assert parts[1].startswith("loading: ")
    assert parts[2].startswith("attack: 5 subproblem(s) closed, 1 open, worst bound -0.5, ")
    assert parts[3] == ""
    assert max(map(len, parts)) < 80


def test_a_label_stands_first():
    assert ProgressLine(None, math.inf, True, "2 of 3, ").text().startswith("2 of 3, starting: ")


def test_nothing_without_a_terminal():
    for stream, wanted in ((io.StringIO(), True), (Terminal(), False), (None, True)):
        line = ProgressLine(stream, math.inf, wanted)
        line.draw()
        line.close()
        assert not line.enabled
        assert stream is None or stream.getvalue() == ""


def test_a_broken_terminal_is_left_alone():
    class Broken(Terminal):
        def write(self, text):
            raise OSError("gone")

    line = ProgressLine(Broken(), time.monotonic() + 1, wanted=True)
    line.draw()
    assert not line.enabled
