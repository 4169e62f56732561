"""From a candidate point to a witness: into the exact box, through onnxruntime, exact comparison."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from math import ceil, floor, inf, prod

import numpy as np

from lpverify.condition import condition_of
from lpverify.io.model import Model
from lpverify.io.runtime import runtime_of
from lpverify.problem import Problem, Range
from lpverify.query import Atom, Number, float_above, float_below, less, negate
from lpverify.verdict import Witness

EXACT = 2**53  # all whole numbers up to this one are floats; witnesses have no larger ones


@dataclass(frozen=True)
class _Inner:
    """The numbers of the model's types in the exact range of a case, flat.

    Attributes:
        lower: The smallest ones.
        upper: The largest ones; below `lower` where there is none.
        missing: Where there is none.
        possible: False when a whole number or truth value is among those. A missing float is read as the
            nearest one, but a fraction is no whole number to anyone.
    """

    lower: np.ndarray
    upper: np.ndarray
    missing: np.ndarray
    possible: bool


@dataclass(frozen=True)
class _Limits:
    """Atoms on one variable as `sign * value <= most`: the same for every float64 number, at once for all."""

    atoms: np.ndarray
    variables: np.ndarray
    signs: np.ndarray
    most: np.ndarray

    @classmethod
    def of(cls, atoms: Sequence[Atom], variables: int) -> "_Limits":
        """Those on the first variables with a factor of 1 or -1."""
        chosen, rows = [], []
        for i, atom in enumerate(atoms):
            variable, factor = atom.terms[0]
            if len(atom.terms) == 1 and variable < variables and factor in (1, -1):
                chosen.append(i)
                rows.append((variable, float(factor), _most(atom)))
        table: np.ndarray = np.array(rows, np.float64).reshape(-1, 3)
        return cls(np.array(chosen, np.int64), table[:, 0].astype(np.int64), table[:, 1], table[:, 2])

    def truth(self, values: np.ndarray, unknown: np.ndarray, count: int) -> list[int]:
        """For each of `count` atoms 1 or 0, or -1 for the others and those on unknown variables."""
        found = np.full(count, -1, np.int8)
        found[self.atoms] = self.signs * values[self.variables] <= self.most
        found[self.atoms[np.isin(self.variables, unknown)]] = -1
        return found.tolist()


def _most(atom: Atom) -> float:
    """The largest float64 that fulfils an atom in place of its form."""
    below = float_below(atom.bound)
    if not atom.strict or np.isinf(below):
        return below
    exact: Number = Decimal(below) if isinstance(atom.bound, Decimal) else Fraction(below)
    return below if less(exact, atom.bound) else float(np.nextafter(below, -inf))


class Replayer:
    """Turns candidates into witnesses; keeps the onnxruntime session of the original model."""

    def __init__(self, model: Model, problem: Problem) -> None:
        self.model, self.problem = model, problem
        self.atoms: list[Atom] = []
        index: dict[Atom, int] = {}

        def number(atom: Atom) -> int:
            if atom not in index:
                index[atom] = len(self.atoms)
                self.atoms.append(atom)
            return index[atom]

        self.condition = condition_of(problem.query.formula, number)
        self.rounded = _rounded_strict(self.atoms, model)
        self._limits = _Limits.of(self.atoms, problem.query.inputs + problem.query.outputs)
        self.runtime = runtime_of(model)
        self._tensors = model.inputs.tensors
        kinds = set(model.inputs.dtypes)
        self._dtype = kinds.pop() if len(kinds) == 1 else np.float64
        self._inner: dict[int, _Inner] = {}

    def __call__(self, point: np.ndarray, case: int) -> Witness | None:
        """Replays a point `(n,)` of the problem's network.

        Returns:
            The witness when the query's formula holds exactly on the point and on what onnxruntime
            computes from it; None otherwise.
        """
        if not np.isfinite(point).all() or not self._inner_of(case).possible:
            return None
        x, inputs = self.round_into(self.problem.full(point), case)
        outputs = self.run(inputs) if np.isfinite(inputs).all() else None
        if outputs is None or not np.isfinite(outputs).all():
            return None
        holds = self._holds(x, inputs, outputs, self._inner_of(case).missing)
        return Witness(tuple(x), inputs, outputs) if holds else None

    def _holds(self, x: list[Number], inputs: np.ndarray, outputs: np.ndarray, inexact: np.ndarray) -> bool:
        """Truth of the query's formula; at inputs that are no floats (`inexact`) by their exact numbers."""
        floats = np.concatenate([inputs.astype(np.float64), outputs.astype(np.float64)])
        known = self._limits.truth(floats, inexact, len(self.atoms))
        values: list[Number | float] = []
        if -1 in known:
            values = [*x, *outputs.tolist()]
            values += [prod(Fraction(values[v]) for v in m) for m in self.problem.query.monomials]

        def true(atom: int) -> bool:
            if not (known[atom] if known[atom] >= 0 else atom_holds(self.atoms[atom], values)):
                return False
            other = self.rounded.get(atom)
            return other is None or atom_holds(other, floats)

        return self.condition.fold(true, all, any)

    def round_into(self, point: np.ndarray, case: int) -> tuple[list[Number], np.ndarray]:
        """The nearest point with coordinates of the model's types inside the exact box.

        A coordinate whose range contains no number of its type takes its exact lower end; the model then
        sees the nearest number to it, as any reader of the witness does.

        Args:
            point: All inputs of the query.
            case: Whose box it is.

        Returns:
            The exact point, and the flat array for the model: of its type, float64 if it has several.
        """
        inner = self._inner_of(case)
        inputs = np.minimum(np.maximum(self._nearest(point), inner.lower), inner.upper)
        x: list[Number] = [Fraction(v) for v in inputs.tolist()]
        if len(inner.missing):
            ends = self.problem.cases[case].range.lower
            seen = self._nearest(np.array([_float(v) for v in ends]))
            for i in inner.missing:
                x[i], inputs[i] = ends[i], seen[i]
        return x, inputs

    def run(self, inputs: np.ndarray) -> np.ndarray | None:
        """The original model's flat outputs, computed by onnxruntime on the CPU; see `Runtime`."""
        return self.runtime(inputs)

    def _nearest(self, point: np.ndarray) -> np.ndarray:
        """The nearest numbers of the model's types."""
        parts: list[np.ndarray] = [
            nearest(point[t.part], t.dtype).astype(self._dtype, copy=False) for t in self._tensors
        ]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _inner_of(self, case: int) -> _Inner:
        if case not in self._inner:
            ends, possible = self.problem.cases[case].range, True
            boxes: list[tuple[np.ndarray, np.ndarray]] = []
            for tensor in self._tensors:
                low, high = inner_box(Range(ends.lower[tensor.part], ends.upper[tensor.part]), tensor.dtype)
                possible = possible and not (is_whole(tensor.dtype) and (low > high).any())
                boxes.append((low.astype(self._dtype), high.astype(self._dtype)))
            lower, upper = (np.concatenate(part) for part in zip(*boxes, strict=True))
            self._inner[case] = _Inner(lower, upper, np.flatnonzero(lower > upper), possible)
        return self._inner[case]


def _rounded_strict(atoms: Sequence[Atom], model: Model) -> dict[int, Atom]:
    """Strict comparisons of one float variable with the number that its type has in place of the constant.

    Some readers round the constant first. Other comparisons that hold exactly hold after that as well.
    """
    strict = [i for i, atom in enumerate(atoms) if atom.strict and len(atom.terms) == 1]
    if not strict:
        return {}
    dtypes = [t.dtype for s in (model.inputs, model.outputs) for t in s.tensors for _ in range(t.size)]
    found = {}
    for i in strict:
        (variable, factor), *_ = atoms[i].terms
        if variable < len(dtypes) and factor in (1, -1) and not is_whole(dtypes[variable]):
            bound = _float(atoms[i].bound)
            with np.errstate(over="ignore"):
                rounded = float(dtypes[variable](bound))
            if np.isfinite(rounded):
                found[i] = replace(atoms[i], bound=Fraction(rounded))
    return found


def is_whole(dtype: type) -> bool:
    """Whether a type consists of whole numbers or truth values (0 and 1)."""
    return np.dtype(dtype).kind in "iub"


def _span(dtype: type) -> tuple[int, int]:
    """Least and largest number of such a type, as far as all of them are floats."""
    if np.dtype(dtype).kind == "b":
        return 0, 1
    return max(int(np.iinfo(dtype).min), -EXACT), min(int(np.iinfo(dtype).max), EXACT)


def nearest(point: np.ndarray, dtype: type) -> np.ndarray:
    """The numbers of a type that are nearest to floats."""
    if is_whole(dtype):
        return np.clip(np.rint(point), *_span(dtype)).astype(dtype)
    with np.errstate(over="ignore"):
        return point.astype(dtype)


def inner_box(ends: Range, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest numbers of `dtype` in each exact range; lower > upper where there is none."""
    if is_whole(dtype):
        return _inner_whole(ends, dtype)
    return _upward(ends.lower, dtype), -_upward([negate(v) for v in ends.upper], dtype)


def _upward(numbers: Sequence[Number], dtype: type) -> np.ndarray:
    """The smallest floats of a type that are not below exact numbers."""
    floats = np.array([float_above(v) for v in numbers])
    with np.errstate(over="ignore"):
        closest: np.ndarray = floats.astype(dtype)
        above = np.nextafter(closest, np.full_like(closest, inf))
    return np.where(closest.astype(np.float64) < floats, above, closest)


def _inner_whole(ends: Range, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    least, most = _span(dtype)
    first = [max(_whole(low, ceil), least) for low in ends.lower]
    last = [min(_whole(high, floor), most) for high in ends.upper]
    pairs = [(low, high) if low <= high else (1, 0) for low, high in zip(first, last, strict=True)]
    both: np.ndarray = np.array(pairs, np.int64).reshape(-1, 2).astype(dtype)
    return both[:, 0], both[:, 1]


def _whole(number: Number, round_: Callable[[Number], int]) -> int:
    """The number rounded; one beyond `EXACT` for all that are larger, which may have a million digits."""
    closest = _float(number)
    return round_(number) if abs(closest) <= EXACT else (EXACT + 1 if closest > 0 else -EXACT - 1)


def _float(number: Number) -> float:
    """The nearest float, infinite if it is beyond all."""
    try:
        return float(number)
    except OverflowError:
        return inf if number > 0 else -inf


def atom_holds(atom: Atom, values: Sequence[Number | float] | np.ndarray) -> bool:
    """Exact truth of an atom at numbers or floats."""
    if len(atom.terms) == 1 and isinstance(atom.bound, Decimal):
        variable, factor = atom.terms[0]
        value = values[variable]
        if factor in (1, -1) and isinstance(value, float):
            value = Decimal(value) if factor == 1 else Decimal(-value)
            return value < atom.bound if atom.strict else value <= atom.bound
    total = sum((Fraction(c) * Fraction(values[v]) for v, c in atom.terms), Fraction(0))
    bound = Fraction(atom.bound)
    return total < bound if atom.strict else total <= bound
