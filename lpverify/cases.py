"""The alternatives of a query's formula by their input boxes, with exact ends.

Bounds on single inputs become ends of boxes; only disjunctions that contain such bounds fork, everything
else stays a formula.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction

from lpverify.presolve import Ends, propagate_ends
from lpverify.query import And, Atom, Formula, Or, Query, less, negate

MAX_CASES = 1_000_000
MOST_COMBINED = 2**16  # cases, where they are combinations of several disjunctions
MOST_PROPAGATED = 1_000  # cases whose linear input constraints tighten their ends


@dataclass
class Draft:
    """A case under construction: exact input ends, and what is not about single inputs.

    Attributes:
        ends: Closed; None where there is none.
        pending: Parts that are still to be looked at.
        rest: What the ends do not say.
        strict: Strict atoms among those that became ends.
        forks: Disjunctions that it comes from.
    """

    ends: Ends
    pending: list[Formula]
    rest: list[Formula]
    strict: list[Atom] = field(default_factory=list)
    forks: int = 0

    @property
    def most_cases(self) -> int:
        """How many there may be for this one to fork."""
        return MOST_COMBINED if self.forks else MAX_CASES

    def pointless(self) -> bool:
        """Whether strict atoms exclude the only number between two ends."""
        for atom in self.strict:
            variable, factor = atom.terms[0]
            low, high = self.ends[variable]
            if low is None or high is None or less(low, high):
                continue
            if Fraction(factor) * Fraction(low) >= Fraction(atom.bound):
                return True
        return False

    def take(self, atom: Atom, applied: bool) -> None:
        """Notes an atom, which was applied to the ends or not."""
        if not applied:
            self.rest.append(atom)
            return
        if atom.strict:
            self.strict.append(atom)
        if _empty(self.ends, atom):
            self.pending.clear()

    def fork(self, child: Formula) -> "Draft":
        """The case in which a disjunction holds by one of its alternatives."""
        rest, strict = list(self.rest), list(self.strict)
        return Draft(dict(self.ends), [*self.pending, child], rest, strict, self.forks + 1)


def _always(atom: Atom) -> bool:
    return True


def split_cases(formula: Formula, inputs: int, exact: Callable[[Atom], bool] = _always) -> Iterator[Draft]:
    """Moves bounds on single inputs into boxes; forks at disjunctions that contain such bounds.

    Args:
        formula: Of the query.
        inputs: Their number.
        exact: Which atoms may become ends.
    """
    stack, count = [Draft({}, [formula], [])], 1
    while stack:
        draft = stack.pop()
        fork: Or | None = None
        while draft.pending and fork is None:
            part = draft.pending.pop()
            if isinstance(part, And):
                draft.pending.extend(reversed(part.children))
            elif isinstance(part, Atom):
                draft.take(part, exact(part) and _tighten(draft.ends, part, inputs))
            elif len(part.children) == 1:
                draft.pending.append(part.children[0])
            elif part.children and count < draft.most_cases and _bounds_inputs(part, inputs):
                fork = part
            else:
                draft.rest.append(part)
        if fork is None:
            draft.rest += [Or(())] if draft.pointless() else []
            yield draft
            continue
        count += len(fork.children) - 1
        stack.extend(draft.fork(child) for child in reversed(fork.children))


def drafts_of(query: Query, exact: Callable[[Atom], bool] = _always) -> list[Draft]:
    """All cases, their ends tightened by the linear constraints on inputs.

    Args:
        query: With inputs that are left after merging.
        exact: Which atoms mean what they say; rounded arithmetic fulfils others beyond the ends they imply.
    """
    drafts = list(split_cases(query.formula, query.inputs, exact))
    if len(drafts) <= MOST_PROPAGATED:
        for draft in drafts:
            parts = [part for part in draft.rest if isinstance(part, Atom) and exact(part)]
            propagate_ends(draft.ends, parts, query.inputs)
    return drafts


def _tighten(ends: Ends, atom: Atom, inputs: int) -> bool:
    """Applies an atom over one input to the ends; False if it is of another kind."""
    if len(atom.terms) != 1 or atom.terms[0][0] >= inputs:
        return False
    variable, factor = atom.terms[0]
    lower, upper = ends.get(variable, (None, None))
    if factor == 1:
        bound = atom.bound
    else:
        bound = negate(atom.bound) if factor == -1 else Fraction(atom.bound) / Fraction(factor)
    if factor > 0:
        upper = bound if upper is None or less(bound, upper) else upper
    else:
        lower = bound if lower is None or less(lower, bound) else lower
    ends[variable] = lower, upper
    return True


def _empty(ends: Ends, atom: Atom) -> bool:
    """Whether the ends of the atom's only variable have crossed: nothing else about the case matters then."""
    low, high = ends[atom.terms[0][0]]
    return low is not None and high is not None and less(high, low)


def _bounds_inputs(part: Or, inputs: int) -> bool:
    """Some branch of the disjunction bounds a single input directly."""
    for child in part.children:
        work: list[Formula] = [child]
        while work:
            top = work.pop()
            if isinstance(top, Atom) and len(top.terms) == 1 and top.terms[0][0] < inputs:
                return True
            if isinstance(top, And):
                work.extend(top.children)
    return False
