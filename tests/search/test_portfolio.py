"""Searches that take turns, with searches of no substance."""

from dataclasses import dataclass, field
from time import sleep

import pytest

from lpverify.config import Deadline
from lpverify.proof import Leaf
from lpverify.search import portfolio
from lpverify.search.portfolio import compete, share
from lpverify.search.tree import Tree
from lpverify.verdict import Progress, Timeout, Unknown


@dataclass
class Fake:
    """Closes a share of its root in each turn, and ends with a verdict when all is closed."""

    step: float
    end: object
    name: str = ""
    volume: float = 0.0
    turns: int = 0
    tree: Tree = field(default_factory=lambda: Tree(False))

    def run(self, deadline):
        self.turns += 1
        self.volume = min(1.0, self.volume + self.step)
        sleep(0.002)
        return self.end if self.volume >= 1.0 else Timeout(self.progress())

    def progress(self):
        return Progress(stage=self.name)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Turns of milliseconds."""
    monkeypatch.setattr(portfolio, "FIRST_TURN", 0.002)
    monkeypatch.setattr(portfolio, "PATIENCE", 0.01)


def test_the_faster_one_gets_the_turns():
    slow, fast = Fake(0.0001, "slow"), Fake(0.02, "fast")
    assert compete([slow, fast], Deadline.after(20)) == "fast"
    assert fast.turns == 50 and 1 <= slow.turns <= 15


def test_one_behind_is_tried_again():
    """It closes nothing at first, then all."""
    late = Fake(0.0, "late")
    run = late.run

    def waking(deadline):
        if late.turns == 3:
            late.step = 1.0
        return run(deadline)

    late.run = waking
    assert compete([Fake(1e-6, "never"), late], Deadline.after(20)) == "late"


def test_nobody_else_is_asked_when_one_is_about_to_finish():
    made = []

    def contestants():
        yield Fake(0.5, "done")
        made.append(1)
        yield Fake(0.5, "other")

    assert compete(contestants(), Deadline.after(20)) == "done" and not made


def test_unknown_only_when_all_are():
    unknown = Unknown("no")
    assert compete([Fake(1.0, unknown), Fake(0.1, "yes")], Deadline.after(20)) == "yes"
    assert compete([Fake(1.0, unknown), Fake(1.0, unknown)], Deadline.after(20)) is unknown


def test_the_deadline_holds():
    leader = Fake(1e-9, "never", name="leader")
    verdict = compete([leader, Fake(0.0, "never")], Deadline.after(0.1))
    assert isinstance(verdict, Timeout) and verdict.progress.stage == "leader"
    assert isinstance(compete([Fake(1.0, "yes")], Deadline.after(0)), Timeout)


def test_the_share_of_a_tree():
    tree = Tree(False)
    first, second = tree.root(0), tree.root(1)
    tree.close(first, Leaf())
    from lpverify.proof import InputSplit

    child = tree.child(second, InputSplit(0, 0.5, True))
    tree.close(child, Leaf())

    class Search:
        pass

    search = Search()
    search.tree = tree
    assert share(search) == 0.75
