"""Query + network -> Problem: one graph whose last value holds every linear form the query compares.

An atom is `form <= bound`. The proof direction needs bounds on inputs rounded outward and bounds of
atoms rounded up; both are done here, exactly.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cached_property

import numpy as np

from lpverify.condition import AND, OR, Condition, condition_of, join
from lpverify.errors import InputError, UnsupportedError
from lpverify.interval import Box
from lpverify.network import Network, Node
from lpverify.ops.linear import Linear, dense_or_sparse
from lpverify.ops.shape import Concat
from lpverify.query import (
    And,
    Atom,
    Formula,
    Number,
    Or,
    Query,
    float_above,
    float_below,
    less,
    negate,
)
from lpverify.simplify import simplify

MAX_CASES = 1_000_000
MOST_TINY, MOST_HUGE = 1e-290, 1e290  # coefficients rounded to floats beyond these have no relative error


@dataclass(frozen=True)
class Range:
    """Exact ends of the inputs of one case; `lower[i]`, `upper[i]` as written in the query."""

    lower: tuple[Number, ...]
    upper: tuple[Number, ...]

    def box(self) -> Box:
        """The smallest float64 box that contains it."""
        lower = np.array([float_below(v) for v in self.lower])
        upper = np.array([float_above(v) for v in self.upper])
        return Box(lower, upper)


@dataclass(frozen=True)
class Case:
    """One input box with the condition that a counterexample in it satisfies.

    Attributes:
        box: Contains the case's inputs, `(n,)`.
        range: The exact ends.
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
    """

    network: Network
    cases: tuple[Case, ...]
    query: Query
    notes: tuple[str, ...] = ()


def compile_problem(network: Network, query: Query) -> Problem:
    """Builds the Problem, its network simplified.

    Raises:
        InputError: Sizes of query and network differ, or an input has no bound.
    """
    outputs = int(np.prod(network.nodes[network.output].shape))
    if (query.inputs, query.outputs) != (network.input_size, outputs):
        raise InputError(
            f"{query.path}: declares {query.inputs} inputs and {query.outputs} outputs, "
            f"the network has {network.input_size} and {outputs}"
        )
    table = _Forms(query.inputs)
    drafts = list(_split_cases(query.formula, query.inputs))
    cases, notes = _merge_cases(drafts, table, query)
    if network.ranked is not None and _only_order(cases, table, query):
        network = replace(network, output=network.ranked)
    return Problem(simplify(_append_forms(network, table, query)), cases, query, notes)


def _only_order(cases: Sequence[Case], table: "_Forms", query: Query) -> bool:
    """Whether all atoms compare two outputs: then a value of the same order serves, say before a softmax."""

    def compares(terms: tuple[tuple[int, Number], ...]) -> bool:
        if len(terms) != 2 or any(variable < query.inputs for variable, _ in terms):
            return False
        return Fraction(terms[0][1]) == -Fraction(terms[1][1])

    return all(map(compares, table.index)) and all((case.bounds == 0).all() for case in cases)


class _Forms:
    """Numbers the distinct left-hand sides of atoms."""

    def __init__(self, inputs: int) -> None:
        self.inputs = inputs
        self.index: dict[tuple[tuple[int, Number], ...], int] = {}

    def number(self, atom: Atom) -> int:
        return self.index.setdefault(atom.terms, len(self.index))


@dataclass
class _Draft:
    """A case under construction: exact input ends, and what is not about single inputs."""

    ends: dict[int, tuple[Number | None, Number | None]]
    pending: list[Formula]
    rest: list[Formula]


def _split_cases(formula: Formula, inputs: int) -> Iterator[_Draft]:
    """Moves bounds on single inputs into boxes; forks at disjunctions that contain such bounds."""
    stack = [_Draft({}, [formula], [])]
    count = 1
    while stack:
        draft = stack.pop()
        fork: Or | None = None
        while draft.pending and fork is None:
            part = draft.pending.pop()
            if isinstance(part, And):
                draft.pending.extend(reversed(part.children))
            elif isinstance(part, Atom):
                if not _tighten(draft.ends, part, inputs):
                    draft.rest.append(part)
            elif len(part.children) == 1:
                draft.pending.append(part.children[0])
            elif part.children and count < MAX_CASES and _bounds_inputs(part, inputs):
                fork = part
            else:
                draft.rest.append(part)
        if fork is None:
            yield draft
            continue
        count += len(fork.children) - 1
        stack.extend(
            _Draft(dict(draft.ends), [*draft.pending, child], list(draft.rest))
            for child in reversed(fork.children)
        )


def _tighten(ends: dict[int, tuple[Number | None, Number | None]], atom: Atom, inputs: int) -> bool:
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


def _merge_cases(
    drafts: Sequence[_Draft], table: _Forms, query: Query
) -> tuple[tuple[Case, ...], tuple[str, ...]]:
    """Drafts with the same box become one case; empty boxes are dropped, exactly."""
    groups: dict[tuple[tuple[Number, ...], tuple[Number, ...]], list[Condition]] = {}
    atoms: list[Atom] = []
    index: dict[Atom, int] = {}

    def number(atom: Atom) -> int:
        if atom not in index:
            index[atom] = len(atoms)
            atoms.append(atom)
            table.number(atom)
        return index[atom]

    dropped = 0
    for draft in drafts:
        key = _ends(draft, query)
        if any(less(u, l) for l, u in zip(*key, strict=True)):
            dropped += 1
            continue
        condition = (
            join([condition_of(f, number) for f in draft.rest], AND) if draft.rest else Condition(((AND, 0),))
        )
        groups.setdefault(key, []).append(condition)
    cases = tuple(_case(Range(*key), join(parts, OR), atoms, table) for key, parts in groups.items())
    note = (f"{dropped} of {len(drafts)} input sets are empty",) if dropped else ()
    return cases, note


def _ends(draft: _Draft, query: Query) -> tuple[tuple[Number, ...], tuple[Number, ...]]:
    lower, upper = [], []
    for i in range(query.inputs):
        low, high = draft.ends.get(i, (None, None))
        if low is None or high is None:
            raise InputError(f"{query.path}: input X_{i} has no {'lower' if low is None else 'upper'} bound")
        lower.append(low)
        upper.append(high)
    return tuple(lower), tuple(upper)


def _case(ends: Range, condition: Condition, atoms: list[Atom], table: _Forms) -> Case:
    used = condition.atoms
    local = condition.renumber({atom: i for i, atom in enumerate(used)})
    forms = np.array([table.number(atoms[a]) for a in used], dtype=np.int64)
    bounds = np.array([float_above(atoms[a].bound) for a in used], dtype=np.float64)
    strict = np.array([atoms[a].strict for a in used], dtype=bool)
    return Case(ends.box(), ends, local, forms, bounds, strict)


def _append_forms(network: Network, table: _Forms, query: Query) -> Network:
    """Adds the value of all linear forms; reads inputs only where some form does."""
    mixed = any(v < query.inputs for terms in table.index for v, _ in terms)
    offset = 0 if mixed else query.inputs
    weight = np.zeros((max(len(table.index), 1), query.inputs + query.outputs - offset))
    error = 0.0
    for terms, row in table.index.items():
        for variable, factor in terms:
            nearest = float_below(factor)
            weight[row, variable - offset] = nearest
            if Fraction(nearest) != Fraction(factor):
                normal = MOST_TINY < abs(nearest) < MOST_HUGE
                error = max(error, 2.0**-52 if normal else float("inf"))
    nodes, source = list(network.nodes), network.output
    shape = network.nodes[source].shape
    if len(shape) != 1:
        raise UnsupportedError("the output is not flat")
    if mixed:
        nodes.append(
            Node(
                Concat(0, (query.inputs, query.outputs)),
                (0, source),
                (query.inputs + query.outputs,),
            )
        )
        source = len(nodes) - 1
    op = dense_or_sparse(weight, None, error)
    op = op if weight.size else Linear(np.zeros((1, 1)))
    nodes.append(Node(op, (source,), (weight.shape[0],), "query"))
    return Network(tuple(nodes), len(nodes) - 1)
