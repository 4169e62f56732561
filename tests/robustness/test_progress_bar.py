"""The progress line of a run: what it says, how it estimates, what it leaves out."""

import io

import pytest

from lpverify.robustness.progress_bar import ProgressBar, duration
from lpverify.terminal import CLEAR


class Terminal(io.StringIO):
    def isatty(self):
        return True


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.fixture
def clock():
    return Clock()


def wide(bar, columns=200):
    bar.columns = lambda: columns
    return bar


def test_what_it_says(clock):
    bar = wide(ProgressBar(Terminal(), True, clock))
    bar.start("bounds", 200)
    clock.now += 10
    bar.add("proven", 40)
    bar.add("refuted", 9)
    bar.add("unknown")
    expected = "[#####---------------]  bounds 50/200  40 proven, 9 refuted, 1 unknown  5/s  30 s left"
    assert bar.text() == expected and bar.done == 50
    bar.start("ladder", 1)
    assert bar.text() == "[--------------------]  ladder 0/1  0 proven, 0 refuted, 0 unknown  0/s  ? left"
    clock.now += 1
    bar.add("proven")
    assert bar.text() == "[####################]  ladder 1/1  1 proven, 0 refuted, 0 unknown  1/s"
    bar.add("proven")  # more than said
    assert "2/1 " in bar.text() and bar.text().count("#") == 20
    bar.start("none", 0)
    assert "none 0/0" in bar.text()


def test_the_rate_is_the_recent_one(clock):
    bar = ProgressBar(Terminal(), True, clock)
    bar.start("ladder", 100_000)
    for _ in range(100):  # the easy ones
        clock.now += 0.1
        bar.add("proven", 100)
    assert bar.rate() == pytest.approx(1000)
    for _ in range(100):
        clock.now += 2
        bar.add("unknown")
    assert bar.rate() == pytest.approx(0.5, rel=0.05)
    assert "days left" not in bar.text() and "50 h left" in bar.text()


def test_the_rate_falls_when_nothing_happens(clock):
    bar = ProgressBar(Terminal(), True, clock)
    assert bar.rate() == 0.0
    bar.start("ladder", 100)
    assert bar.rate() == 0.0
    clock.now += 10
    bar.add("proven", 10)
    clock.now += 90
    assert bar.rate() == pytest.approx(0.1)


def test_batches_are_spread(clock):
    bar = ProgressBar(Terminal(), True, clock)
    bar.start("bounds", 1000)
    for _ in range(5):
        clock.now += 100
        bar.tick()
        bar.add("proven", 50)
        assert bar.rate() == pytest.approx(0.5)


def test_it_fits(clock):
    stream = Terminal()
    for columns in range(2, 120):
        bar = wide(ProgressBar(stream, True, clock), columns)
        bar.start("bounds", 200)
        clock.now += 10
        bar.add("proven", 50)
        line = stream.getvalue().rpartition(CLEAR)[2]
        assert 0 < len(line) < columns
        assert "bounds 50/200".startswith(line[:13]) or line.startswith("[")
        assert ("30 s left" in line) == (columns >= 25)
    assert line.startswith("[#####---")


def test_it_is_redrawn_now_and_then_and_removed(clock):
    stream = Terminal()
    bar = wide(ProgressBar(stream, True, clock))
    bar.start("bounds", 2000)
    for _ in range(1000):
        clock.now += 0.01
        bar.add("proven")
    assert 50 <= stream.getvalue().count(CLEAR) <= 102
    bar.close()
    bar.add("proven")
    bar.tick()
    assert stream.getvalue().endswith(CLEAR)


def test_nothing_where_there_is_no_terminal(clock):
    for stream, wanted in ((io.StringIO(), True), (Terminal(), False)):
        bar = ProgressBar(stream, wanted, clock)
        bar.start("bounds", 2)
        clock.now += 1
        bar.add("proven")
        bar.close()
        assert stream.getvalue() == ""
    ProgressBar(None, True, clock).start("bounds", 2)


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.2, "0 s"),
        (99.4, "99 s"),
        (99.6, "2 min"),
        (3600, "60 min"),
        (5985, "1 h 40 min"),
        (7199, "2 h 0 min"),
        (36000, "10 h"),
        (100 * 3600, "4 days"),
    ],
)
def test_durations(seconds, words):
    assert duration(seconds) == words


def test_what_was_done_before_does_not_count_for_the_rate():
    clock = Clock()
    bar = ProgressBar(None, True, clock)
    bar.start("ladder", 100, {"proven": 50})
    clock.now += 10.0
    bar.show({"proven": 52, "unknown": 3})
    assert bar.done == 55 and bar.rate() == pytest.approx(0.5)
