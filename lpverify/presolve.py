"""What follows from the query alone: inputs that are equal, and ends that linear constraints imply.

Queries about two networks identify their inputs one by one (`X_f[0] == X_g[0]`). As separate inputs they
would be bounded as if they were independent; as one input they cost nothing.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import TypeAlias

import numpy as np

from lpverify.query import (
    Atom,
    Formula,
    Number,
    Query,
    conjuncts,
    float_above,
    float_below,
    less,
    map_atoms,
    normal_atom,
)

Ends: TypeAlias = dict[int, tuple[Number | None, Number | None]]

SWEEPS = 3
MOST_TERMS = 20_000  # of the constraints that are propagated


def merge_equal_inputs(
    query: Query, exact: Callable[[Atom], bool] = lambda atom: True
) -> tuple[Query, np.ndarray | None]:
    """The query with one input for each set of inputs that it makes equal.

    Args:
        query: Any.
        exact: Which atoms may be relied on; see `cases.drafts_of`.

    Returns:
        The query, and for each old input the new one; None when there are no equal ones.
    """
    parent = _equalities(query, exact)
    if parent is None:
        return query, None
    roots = sorted({_root(parent, i) for i in range(query.inputs)})
    position = {root: k for k, root in enumerate(roots)}
    merged = np.array([position[_root(parent, i)] for i in range(query.inputs)], np.int64)
    shift, known = len(roots) - query.inputs, query.inputs + query.outputs
    distinct: dict[tuple[int, ...], int] = {}  # products of equal inputs are equal

    def renamed(variable: int) -> int:
        if variable < query.inputs:
            return int(merged[variable])
        return variable + shift if variable < known else known + shift + places[variable - known]

    def rule(atom: Atom) -> Formula:
        return _substituted(atom, renamed)

    products = [tuple(sorted(map(renamed, factors))) for factors in query.monomials]
    places = [distinct.setdefault(factors, len(distinct)) for factors in products]
    formula = map_atoms(query.formula, rule)
    return replace(query, inputs=len(roots), formula=formula, monomials=tuple(distinct)), merged


def _equalities(query: Query, exact: Callable[[Atom], bool]) -> dict[int, int] | None:
    """A forest of equal inputs, None if there are none; strict atoms count, they are false then."""
    seen: set[tuple[int, int]] = set()
    parent: dict[int, int] = {}
    for part in conjuncts(query.formula):
        if not isinstance(part, Atom) or len(part.terms) != 2 or part.bound:
            continue
        (i, c), (j, d) = part.terms
        if j >= query.inputs or Fraction(c) != -Fraction(d) or not exact(part):
            continue
        below, above = (i, j) if c > 0 else (j, i)
        seen.add((below, above))
        if (above, below) in seen:
            first, second = _root(parent, i), _root(parent, j)
            parent[max(first, second)] = min(first, second)
    return parent or None


def _root(parent: dict[int, int], i: int) -> int:
    top = i
    while parent.get(top, top) != top:
        top = parent[top]
    while i != top:
        parent[i], i = top, parent.get(i, top)
    return top


def _substituted(atom: Atom, renamed: Callable[[int], int]) -> Formula:
    totals: dict[int, Number] = {}
    for variable, factor in atom.terms:
        name = renamed(variable)
        totals[name] = Fraction(totals[name]) + Fraction(factor) if name in totals else factor
    return normal_atom(totals, atom.bound, atom.strict, atom.size)


def propagate_ends(ends: Ends, parts: Sequence[Formula], inputs: int) -> None:
    """Tightens the ends of inputs by linear constraints on inputs that have to hold, rounded outward."""
    atoms = [p for p in parts if isinstance(p, Atom) and len(p.terms) > 1 and p.terms[-1][0] < inputs]
    if sum(len(atom.terms) for atom in atoms) > MOST_TERMS:
        return
    for _ in range(SWEEPS):
        changed = False
        for atom in atoms:
            changed = _propagate(ends, atom) or changed
        if not changed:
            return


def _propagate(ends: Ends, atom: Atom) -> bool:
    """`c_k x_k <= bound - sum of the least of the others`, for every k."""
    least = [_least(ends, variable, Fraction(factor)) for variable, factor in atom.terms]
    unknown = [k for k, value in enumerate(least) if value is None]
    if len(unknown) > 1:
        return False
    known = sum((value for value in least if value is not None), Fraction(0))
    changed = False
    for k in unknown or range(len(least)):
        variable, factor = atom.terms[k]
        rest = Fraction(atom.bound) - (known - (least[k] or 0))
        changed = _tighten(ends, variable, rest / Fraction(factor), factor > 0) or changed
    return changed


def _least(ends: Ends, variable: int, factor: Fraction) -> Fraction | None:
    """The least value of `factor * variable`."""
    end = ends.get(variable, (None, None))[0 if factor > 0 else 1]
    return None if end is None else factor * Fraction(end)


def _tighten(ends: Ends, variable: int, value: Fraction, upper: bool) -> bool:
    """Puts an end, rounded outward to a float so that numbers stay short; says whether it moved."""
    low, high = ends.get(variable, (None, None))
    nearest = float_above(value) if upper else float_below(value)
    if not abs(nearest) < 1e300:
        return False
    new = Fraction(nearest)
    if upper:
        if high is not None and not less(new, high):
            return False
        ends[variable] = low, new
    else:
        if low is not None and not less(low, new):
            return False
        ends[variable] = new, high
    return True
