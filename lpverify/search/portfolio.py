"""Several searches take turns on one problem; who closes more of it in the same time gets more turns.

The measure is the share of the tree that is closed, a child counting half of its parent (after Knuth 1975,
doi:10.1090/S0025-5718-1975-0373371-6), and how fast it grew in the last turn: easy parts are closed first.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Protocol

from lpverify.config import Deadline
from lpverify.search.tree import Tree
from lpverify.verdict import Progress, Timeout, Unknown, Verdict

FIRST_TURN = 1.0  # seconds
GROWTH = 1.5
OTHERS = 5  # one turn in so many goes to those behind
PATIENCE = 10.0  # seconds: who needs no more, it seems, is not interrupted


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
        contestants: Made one by one, each when the others are not about to finish.
        deadline: Of all together.
    """
    waiting, turns = iter(contestants), list[_Turn]()
    last: Verdict = Timeout()
    seconds, count = FIRST_TURN, 0
    while not deadline.passed:
        turn = _newcomer(waiting, turns)
        if turn is not None:
            turns.append(turn)
            verdict = turn.take(deadline.within(FIRST_TURN))
        elif turns:
            count += 1
            turn = _next(turns, count)
            verdict = turn.take(deadline if len(turns) == 1 else deadline.within(seconds))
            seconds *= GROWTH
        else:
            return last
        if not isinstance(verdict, Timeout | Unknown):
            return verdict
        if isinstance(verdict, Unknown):
            turns.remove(turn)
            last = verdict
    return Timeout(min(turns, key=_order).search.progress()) if turns else last


def _order(turn: _Turn) -> tuple[float, float]:
    """The one that seems to finish first comes first."""
    return turn.left, turn.seconds


def _newcomer(waiting: Iterator[Contestant], turns: Sequence[_Turn]) -> _Turn | None:
    """The next contestant, unless one of those before is about to finish."""
    if any(turn.left < PATIENCE for turn in turns):
        return None
    search = next(waiting, None)
    return None if search is None else _Turn(search)


def _next(turns: Sequence[_Turn], count: int) -> _Turn:
    """Mostly the leader, now and then the one behind that had least time."""
    leader, *behind = sorted(turns, key=_order)
    if behind and count % OTHERS == 0 and leader.left > PATIENCE:
        return min(behind, key=lambda t: t.seconds)
    return leader
