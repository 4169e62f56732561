"""Query + network -> Problem: one graph whose last value holds every linear form the query compares.

An atom is `form <= bound`. The proof direction needs bounds on inputs rounded outward and bounds of
atoms rounded up; both are done here, exactly. A query whose variables have float types is about
computation in them: its constants, too, are numbers of those types, and what it computes is rounded.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property
from math import prod

import numpy as np

from lpverify.cases import Draft, drafts_of
from lpverify.condition import AND, OR, Condition, condition_of, join
from lpverify.errors import InputError
from lpverify.forms import Forms, append_forms
from lpverify.interval import Box, round_down, round_up
from lpverify.network import Network, Node
from lpverify.ops.shape import Gather
from lpverify.presolve import Ends, merge_equal_inputs
from lpverify.query import Atom, Number, Query, float_above, float_below, less
from lpverify.simplify import simplify
from lpverify.sums import without_sums
from lpverify.typed import Typed

WINDOW = 1_000  # largest size of an input without a bound where counterexamples are looked for


@dataclass(frozen=True)
class Range:
    """Exact ends of the inputs of one case; `lower[i]`, `upper[i]` as written in the query."""

    lower: tuple[Number, ...]
    upper: tuple[Number, ...]

    def box(self) -> Box:
        """The smallest float64 box that contains it."""
        return Box(*self.outward())

    def outward(self) -> tuple[np.ndarray, np.ndarray]:
        """Its ends, rounded outward."""
        lower = np.array([float_below(v) for v in self.lower])
        return lower, np.array([float_above(v) for v in self.upper])


@dataclass(frozen=True)
class Case:
    """One input box with the condition that a counterexample in it satisfies.

    Attributes:
        box: Contains the case's inputs, those that the query makes equal once, `(n,)`.
        range: The exact ends of all inputs of the query.
        condition: Over local atoms `0 .. k-1`.
        forms: For each local atom the index of its linear form, `(k,)`.
        bounds: Float64 numbers not below the atoms' right-hand sides, `(k,)`.
        strict: Which atoms are `<`, `(k,)`.
    """

    box: Box
    range: Range
    condition: Condition
    forms: np.ndarray
    bounds: np.ndarray
    strict: np.ndarray

    @cached_property
    def distinct_forms(self) -> np.ndarray:
        """The forms that the condition reads, sorted, at least one."""
        forms = np.unique(self.forms)
        return forms if len(forms) else np.zeros(1, np.int64)

    @cached_property
    def columns(self) -> np.ndarray:
        """For each atom the position of its form in `distinct_forms`, `(k,)`."""
        return np.searchsorted(self.distinct_forms, self.forms)

    def only(self, atoms: Sequence[int]) -> "Case":
        """The case in which exactly these atoms have to hold together."""
        chosen = np.asarray(atoms, np.int64)
        code = (*((i, 0) for i in range(len(chosen))), (AND, len(chosen)))
        parts = (self.forms[chosen], self.bounds[chosen], self.strict[chosen])
        return Case(self.box, self.range, Condition(code), *parts)

    def refuted(self, lower: np.ndarray) -> np.ndarray:
        """Which subproblems have no solution, by certified lower bounds `(B, k)` of the atoms' forms."""

        def leaf(atom: int) -> np.ndarray:
            column = lower[:, atom]
            return column >= self.bounds[atom] if self.strict[atom] else column > self.bounds[atom]

        return self.condition.fold(
            leaf,
            lambda p: _all_or(p, np.logical_or, len(lower), False),
            lambda p: _all_or(p, np.logical_and, len(lower), True),
        )

    def violation(self, values: np.ndarray) -> np.ndarray:
        """How far points with form values `(B, k)` are from a counterexample: <= 0 is one."""

        def leaf(atom: int) -> np.ndarray:
            return values[:, atom] - self.bounds[atom]

        infinity = np.full(len(values), np.inf)
        return self.condition.fold(
            leaf,
            lambda p: np.max([-infinity, *p], axis=0),
            lambda p: np.min([infinity, *p], axis=0),
        )


def _all_or(parts: list[np.ndarray], join_: np.ufunc, count: int, empty: bool) -> np.ndarray:
    return join_.reduce(parts) if parts else np.full(count, empty)


@dataclass(frozen=True)
class Problem:
    """The network extended by the query's linear forms, and the cases to refute.

    Attributes:
        network: Its output value is the vector of linear forms `(forms,)`.
        cases: All of them must be refuted for `unsat`; none when the input set is empty.
        query: For the exact evaluation of witnesses.
        notes: Worth telling.
        merged: For each of the query's inputs that of the network, where the query makes some equal.
        unbounded: Names of inputs without a bound; the cases are only a part of the set then.
    """

    network: Network
    cases: tuple[Case, ...]
    query: Query
    notes: tuple[str, ...] = ()
    merged: np.ndarray | None = None
    unbounded: tuple[str, ...] = ()

    def full(self, point: np.ndarray) -> np.ndarray:
        """All inputs of the query, from those of the network."""
        return point if self.merged is None else point[self.merged]


def compile_problem(network: Network, query: Query, typed: Typed | None = None) -> Problem:
    """Builds the Problem, its network simplified.

    Args:
        network: Takes all inputs of the query, flat, and returns all its outputs.
        query: Describes the violation.
        typed: With a query about computation in float types.

    Raises:
        InputError: Sizes of query and network differ.
        UnsupportedError: There is no bound on the errors of the computation.
    """
    outputs = prod(network.nodes[network.output].shape)
    if (query.inputs, query.outputs) != (network.input_size, outputs):
        raise InputError(
            f"{query.path}: declares {query.inputs} inputs and {query.outputs} outputs, "
            f"the network has {network.input_size} and {outputs}"
        )
    reduced, merged, drafts = _reduced(network, query, typed)
    typed = None if typed is None else typed.merged(merged, reduced.inputs)
    forms, ends = Forms(), _Ends(query, merged, typed)
    cases, notes = _merge_cases(drafts, forms, ends)
    if merged is not None:
        network = _with_shared_inputs(network, merged, reduced.inputs)
    if typed is None and network.ranked is not None and _only_order(cases, forms, reduced):
        network = replace(network, output=network.ranked)
    if typed is not None and cases:
        network = typed.execute(network, _hull(cases), 0 if merged is None else 1)
    network = append_forms(network, forms, reduced)
    if typed is not None and cases:
        network = typed.with_noise(network, forms, reduced, _hull(cases), _largest(cases, forms))
    return Problem(simplify(network), cases, query, notes, merged, tuple(ends.missing))


def _reduced(
    network: Network, query: Query, typed: Typed | None
) -> tuple[Query, np.ndarray | None, list[Draft]]:
    """The query without what follows from itself, see `merge_equal_inputs`; and its cases."""
    if typed is None:
        reduced, merged = merge_equal_inputs(without_sums(network, query))
        return reduced, merged, drafts_of(reduced)
    reduced, merged = merge_equal_inputs(query, typed.exact)
    return reduced, merged, drafts_of(reduced, typed.merged(merged, reduced.inputs).exact)


def _with_shared_inputs(network: Network, merged: np.ndarray, inputs: int) -> Network:
    """The network of fewer inputs, some of which stand for several."""
    first = Node(None, (), (inputs,), "input")
    copies = Node(Gather(tuple(merged.tolist()), 0, (inputs,)), (0,), (len(merged),), "query")
    rest = (replace(n, inputs=tuple(i + 1 for i in n.inputs)) for n in network.nodes[1:])
    ranked = None if network.ranked is None else network.ranked + 1
    return Network((first, copies, *rest), network.output + 1, ranked)


def _hull(cases: Sequence[Case]) -> Box:
    """The box around all cases."""
    lower = np.min([case.box.lower for case in cases], axis=0)
    return Box(lower, np.max([case.box.upper for case in cases], axis=0))


def _largest(cases: Sequence[Case], forms: Forms) -> np.ndarray:
    """For each form the size of the largest constant that it is compared with."""
    sizes = np.zeros(max(len(forms.index), 1))
    for case in cases:
        np.maximum.at(sizes, case.forms, np.abs(case.bounds))
    for row, size in forms.sizes.items():
        sizes[row] = max(sizes[row], size)
    return sizes


def _only_order(cases: Sequence[Case], forms: Forms, query: Query) -> bool:
    """Whether all atoms compare two outputs: then a value of the same order serves, say before a softmax."""
    known = range(query.inputs, query.inputs + query.outputs)

    def compares(terms: tuple[tuple[int, Number], ...]) -> bool:
        if len(terms) != 2 or any(variable not in known for variable, _ in terms):
            return False
        return Fraction(terms[0][1]) == -Fraction(terms[1][1])

    return all(map(compares, forms.index)) and all((case.bounds == 0).all() for case in cases)


class _Ends:
    """Completes the ends of cases.

    Attributes:
        missing: Names of the inputs that have no bound, not even by their type; in order.
    """

    def __init__(self, query: Query, merged: np.ndarray | None, typed: Typed | None) -> None:
        self.query, self.typed = query, typed
        self.merged = np.arange(query.inputs) if merged is None else merged
        self.first = {int(k): i for i, k in reversed(list(enumerate(self.merged)))}
        self.missing: dict[str, None] = {}

    def complete(self, draft: Draft) -> tuple[tuple[Number, ...], tuple[Number, ...]]:
        """Lower and upper ends of the inputs that are left; those without get some."""
        pairs = [draft.ends.get(i, (None, None)) for i in range(len(self.first))]
        for i, (low, high) in enumerate(pairs):
            if low is None or high is None:
                pairs[i] = self._completed(i, low, high)
        return tuple(low for low, _ in pairs), tuple(high for _, high in pairs)  # type: ignore[misc]

    def _completed(self, i: int, low: Number | None, high: Number | None) -> tuple[Number, Number]:
        """With the ends of its type; if that is too wide, with ends of where to look."""
        spans = None if self.typed is None else self.typed.spans[self.merged == i]
        if spans is not None and not np.isnan(spans).any():
            least, most = int(spans[:, 0].max()), int(spans[:, 1].min())
            return least if low is None else low, most if high is None else high
        self.missing[self.query.input_name(self.first[i])] = None
        if low is None:
            low = -WINDOW if high is None else Fraction(high) - WINDOW
        return low, Fraction(low) + 2 * WINDOW if high is None else high

    def empty(self, ends: Ends) -> bool:
        """Whether some input has an upper end below its lower one, whatever the two are rounded to."""
        for i, (low, high) in ends.items():
            if low is not None and high is not None and less(high, low):
                whole = self.typed is None or self.typed.whole[i]
                slack = 0.0 if whole or self.typed is None else self.typed.slack(low) + self.typed.slack(high)
                if slack < np.inf and Fraction(low) - Fraction(high) > Fraction(slack):
                    return True
        return False

    def range(self, lower: Sequence[Number], upper: Sequence[Number]) -> Range:
        """The ends of all inputs of the query."""
        places = self.merged.tolist()
        return Range(tuple(lower[k] for k in places), tuple(upper[k] for k in places))

    def box(self, lower: Sequence[Number], upper: Sequence[Number]) -> Box:
        """The smallest float64 box that contains them, and what they are rounded to."""
        low, high = Range(tuple(lower), tuple(upper)).outward()
        if self.typed is None or self.typed.dtype is None:
            return Box(low, high)
        below, above = (np.array([self.typed.slack(v) for v in ends]) for ends in (lower, upper))
        floats = ~self.typed.whole[: len(lower)]
        lowest = np.where(floats & (below > 0), round_down(low - below), low)
        return Box(lowest, np.where(floats & (above > 0), round_up(high + above), high))

    def bound(self, atom: Atom) -> float:
        """A float not below the atom's right-hand side, nor below what that is rounded to."""
        value = float_above(atom.bound)
        if self.typed is None or all(
            v < len(self.typed.whole) and self.typed.whole[v] for v, _ in atom.terms
        ):
            return value
        slack = self.typed.slack(atom.bound)
        return float(np.nextafter(value + slack, np.inf)) if slack else value


def _merge_cases(
    drafts: Sequence[Draft], forms: Forms, ends: _Ends
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Drafts with the same box become one case; empty boxes are dropped, exactly."""
    groups: dict[tuple[tuple[Number, ...], tuple[Number, ...]], list[Condition]] = {}
    atoms: list[Atom] = []
    index: dict[Atom, int] = {}

    def number(atom: Atom) -> int:
        forms.number(atom)  # each, as equal ones may differ in size
        if atom not in index:
            index[atom] = len(atoms)
            atoms.append(atom)
        return index[atom]

    dropped = 0
    for draft in drafts:
        key = None if ends.empty(draft.ends) else ends.complete(draft)
        if key is None or ends.empty(dict(enumerate(zip(*key, strict=True)))):
            dropped += 1
            continue
        condition = (
            join([condition_of(f, number) for f in draft.rest], AND) if draft.rest else Condition(((AND, 0),))
        )
        groups.setdefault(key, []).append(condition)
    cases = tuple(_case(key, join(parts, OR), atoms, forms, ends) for key, parts in groups.items())
    note = (f"{dropped} of {len(drafts)} input sets are empty",) if dropped else ()
    return cases, note


def _case(
    key: tuple[tuple[Number, ...], tuple[Number, ...]],
    condition: Condition,
    atoms: list[Atom],
    table: Forms,
    ends: _Ends,
) -> Case:
    used = condition.atoms
    local = condition.renumber({atom: i for i, atom in enumerate(used)})
    forms = np.array([table.number(atoms[a]) for a in used], dtype=np.int64)
    bounds = np.array([ends.bound(atoms[a]) for a in used], dtype=np.float64)
    strict = np.array([atoms[a].strict for a in used], dtype=bool)
    return Case(ends.box(*key), ends.range(*key), local, forms, bounds, strict)
