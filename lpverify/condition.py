"""An and/or tree over numbered atoms, folded without recursion.

`fold` is the one way to interpret it: with booleans it decides, with values it measures the violation,
with boxes it clips.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from lpverify.query import And, Atom, Formula

T = TypeVar("T")
AND, OR = -1, -2


@dataclass(frozen=True, slots=True)
class Condition:
    """The tree in postfix order: `(index, 0)` is an atom, `(AND, n)` and `(OR, n)` join the last n.

    Attributes:
        code: The instructions; never empty, leaves exactly one result.
    """

    code: tuple[tuple[int, int], ...]

    def fold(
        self, leaf: Callable[[int], T], both: Callable[[list[T]], T], either: Callable[[list[T]], T]
    ) -> T:
        """Evaluates bottom-up; `both` and `either` get the children's results, possibly none."""
        stack: list[T] = []
        for kind, count in self.code:
            if kind >= 0:
                stack.append(leaf(kind))
                continue
            parts = stack[len(stack) - count :]
            del stack[len(stack) - count :]
            stack.append(both(parts) if kind == AND else either(parts))
        return stack.pop()

    @property
    def atoms(self) -> tuple[int, ...]:
        """The atoms that occur, sorted."""
        return tuple(sorted({kind for kind, _ in self.code if kind >= 0}))

    def renumber(self, index: dict[int, int]) -> "Condition":
        """The same tree with atoms renamed."""
        return Condition(tuple((index[k], n) if k >= 0 else (k, n) for k, n in self.code))


def join(conditions: Sequence[Condition], kind: int) -> Condition:
    """One condition of several, joined by AND or OR; a single one stays as it is."""
    if len(conditions) == 1:
        return conditions[0]
    return Condition((*(step for c in conditions for step in c.code), (kind, len(conditions))))


def condition_of(formula: Formula, number: Callable[[Atom], int]) -> Condition:
    """Flattens a formula, atoms numbered by `number`."""
    code: list[tuple[int, int]] = []
    work: list[Formula | tuple[int, int]] = [formula]
    while work:
        top = work.pop()
        if isinstance(top, tuple):
            code.append(top)
        elif isinstance(top, Atom):
            code.append((number(top), 0))
        elif len(top.children) == 1:
            work.append(top.children[0])
        else:
            work.append((AND if isinstance(top, And) else OR, len(top.children)))
            work.extend(reversed(top.children))
    return Condition(tuple(code))
