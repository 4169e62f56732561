"""From a candidate point to a witness: into the exact box, through onnxruntime, exact comparison."""

from decimal import Decimal
from fractions import Fraction

import numpy as np

from lpverify.condition import condition_of
from lpverify.io.onnx import Model
from lpverify.problem import Problem, Range
from lpverify.query import Atom, Number, less
from lpverify.verdict import Witness


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
        self._session: object = None
        self._inner: dict[int, tuple[np.ndarray, np.ndarray]] = {}

    def __call__(self, point: np.ndarray, case: int) -> Witness | None:
        """Replays a point `(n,)`.

        Returns:
            The witness when the query's formula holds exactly on the point and on what onnxruntime
            computes from it; None otherwise.
        """
        if not np.isfinite(point).all():
            return None
        x, inputs = self.round_into(point, case)
        outputs = self.run(inputs)
        if outputs is None or not np.isfinite(outputs).all():
            return None
        values = [*x, *outputs.tolist()]
        holds = self.condition.fold(lambda a: atom_holds(self.atoms[a], values), all, any)
        return Witness(tuple(x), inputs, outputs) if holds else None

    def round_into(self, point: np.ndarray, case: int) -> tuple[list[Number], np.ndarray]:
        """The nearest point with coordinates of the model's type inside the exact box.

        A coordinate whose range contains no such float takes its exact lower end; the model then sees the
        nearest float of it, as any reader of the witness does.
        """
        dtype = self.model.inputs.dtypes[0]
        description = self.problem.cases[case]
        if case not in self._inner:
            self._inner[case] = inner_box(description.range, dtype)
        lower, upper = self._inner[case]
        inputs = np.minimum(np.maximum(point.astype(dtype), lower), upper)
        x: list[Number] = [Fraction(v) for v in inputs.tolist()]
        for i in np.flatnonzero(lower > upper):
            x[i] = description.range.lower[i]
            inputs[i] = dtype(float(description.range.lower[i]))
        return x, inputs

    def run(self, inputs: np.ndarray) -> np.ndarray | None:
        """The original model's flat outputs, computed by onnxruntime on the CPU."""
        if self._session is None:
            self._session = _session(self.model)
        feeds: dict[str, np.ndarray] = {}
        start = 0
        signature = self.model.inputs
        for name, shape, dtype, size in zip(
            signature.names, signature.shapes, signature.dtypes, signature.sizes, strict=True
        ):
            feeds[name] = inputs[start : start + size].astype(dtype).reshape(shape)
            start += size
        results = self._session.run(list(self.model.outputs.names), feeds)  # type: ignore[attr-defined]
        return np.concatenate([np.asarray(r).reshape(-1) for r in results])


def _session(model: Model) -> object:
    import onnxruntime  # noqa: PLC0415  (only needed for witnesses)

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(model.serialized, options, providers=["CPUExecutionProvider"])


def inner_box(ends: Range, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest floats of `dtype` in each exact range; lower > upper where there is none."""
    lower: np.ndarray = np.array([_inside(v, dtype, +1) for v in ends.lower], dtype)
    upper: np.ndarray = np.array([_inside(v, dtype, -1) for v in ends.upper], dtype)
    return lower, upper


def _inside(number: Number, dtype: type, direction: int) -> np.floating:
    """The float nearest to a number that is not below it (+1) or not above it (-1)."""
    nearest = dtype(float(number))
    exact: Number = Decimal(float(nearest)) if isinstance(number, Decimal) else Fraction(float(nearest))
    outside = less(exact, number) if direction > 0 else less(number, exact)
    return np.nextafter(nearest, dtype(direction * np.inf)) if outside else nearest


def atom_holds(atom: Atom, values: list[Number | float]) -> bool:
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
