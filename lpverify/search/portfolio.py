"""Several searches take turns on one problem; who closes more of it in the same time gets more turns.

The measure is the share of the tree that is closed, a child counting half of its parent (after Knuth 1975,
doi:10.1090/S0025-5718-1975-0373371-6), and how fast it grew in the last turn: easy parts are closed first.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from lpverify.config import Deadline
from lpverify.search.tree import Tree
from lpverify.verdict import Progress, Timeout, Unknown, Verdict

FIRST_TURN = 1.0  # seconds
GROWTH = 1.5
OTHERS = 4  # one turn in so many goes to those behind


class Contestant(Protocol):
    """A search that can be resumed."""

    tree: Tree

    def run(self, deadline: Deadline) -> Verdict:
        """Goes on until it has a verdict, or the deadline: Timeout."""

    def progress(self) -> Progress:
        """How far it is."""


@dataclass
class _Turn:
    """A contestant, the seconds it had, and the share it closed a second in its last turn."""

    search: Contestant
    seconds: float = 0.0
    rate: float = 0.0

    def take(self, deadline: Deadline) -> Verdict:
        start, before = monotonic(), share(self.search)
        verdict = self.search.run(deadline)
        took = monotonic() - start
        self.seconds += took
        self.rate = (share(self.search) - before) / max(took, 1e-3)
        return verdict

    @property
    def left(self) -> float:
        """Seconds that it still needs, should it go on like in its last turn."""
        return (1.0 - share(self.search)) / self.rate if self.rate > 0 else float("inf")


def share(search: Contestant) -> float:
    """The share of the problem that a search has closed."""
    volume = getattr(search, "volume", None)
    roots = int((search.tree.nodes.column("parent") < 0).sum())
    return float(volume if volume is not None else search.tree.volume / max(1, roots))


def compete(contestants: Iterable[Contestant], deadline: Deadline) -> Verdict:
    """The first verdict that is more than unknown; else the last one, or Timeout.

    Args:
        contestants: Made when their first turn comes.
        deadline: Of all together.
    """
    turns: list[_Turn] = []
    last: Verdict = Timeout()
    for search in contestants:
        turns.append(_Turn(search))
        verdict = turns[-1].take(deadline.within(FIRST_TURN))
        if not isinstance(verdict, Timeout | Unknown):
            return verdict
        if isinstance(verdict, Unknown):
            turns.pop()
            last = verdict
        if deadline.passed:
            break
    seconds, count = FIRST_TURN, 0
    while turns and not deadline.passed:
        turns.sort(key=lambda t: (t.left, t.seconds))
        count += 1
        behind = len(turns) > 1 and count % OTHERS == 0
        turn = min(turns[1:], key=lambda t: t.seconds) if behind else turns[0]
        alone = len(turns) == 1
        verdict = turn.take(deadline if alone else deadline.within(seconds))
        if not isinstance(verdict, Timeout | Unknown):
            return verdict
        if isinstance(verdict, Unknown):
            turns.remove(turn)
            last = verdict
        seconds *= GROWTH if not behind else 1.0
    return Timeout(turns[0].search.progress()) if turns else last
