"""The Python interface: load a network, decide a query, bound a network. NumPy in, NumPy out."""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, TypeAlias, get_args

import numpy as np

from lpverify.bounds.frame import Frame
from lpverify.bounds.linear import backward, centre_value
from lpverify.bounds.propagate import Region, propagate
from lpverify.config import Config, Deadline
from lpverify.errors import InputError, InternalError, LpverifyError, UnsupportedError
from lpverify.interval import Box
from lpverify.io.onnx import Model, Signature, load_model
from lpverify.io.results import Answer, answer_of
from lpverify.io.vnnlib import read_query
from lpverify.multipliers import Effort, Method
from lpverify.query import Number, Query
from lpverify.verdict import Proof, Sat, Unsat, Witness
from lpverify.verify import verify_query

Path: TypeAlias = str | os.PathLike[str]

__all__ = [
    "BoundsResult",
    "Counterexample",
    "InputError",
    "LoadedNetwork",
    "LpverifyError",
    "Result",
    "UnsupportedError",
    "ValueBounds",
    "bounds",
    "load",
    "verify",
]

CHUNK_ELEMENTS = 2**25


@dataclass(frozen=True)
class LoadedNetwork:
    """An imported network; call it to evaluate it in float64.

    >>> import lpverify
    >>> network = lpverify.load("model.onnx")
    >>> network.input_shapes, network.output_shapes
    (((1, 2),), ((1, 1),))
    >>> network([[1.0, -0.5]])
    array([[0.5]])
    >>> network([[1.0, -0.5], [0.5, 0.5], [-1.0, 0.0]])  # three points
    array([[0.5],
           [1. ],
           [0. ]])
    """

    model: Model = field(repr=False)
    path: str = ""

    @property
    def input_names(self) -> tuple[str, ...]:
        """ONNX names of the inputs."""
        return self.model.inputs.names

    @property
    def input_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the inputs, sizes that the model leaves open as 1."""
        return self.model.inputs.shapes

    @property
    def output_names(self) -> tuple[str, ...]:
        """ONNX names of the outputs."""
        return self.model.outputs.names

    @property
    def output_shapes(self) -> tuple[tuple[int, ...], ...]:
        """Shapes of the outputs."""
        return self.model.outputs.shapes

    def __call__(self, *inputs: object) -> np.ndarray | tuple[np.ndarray, ...]:
        """Evaluates the network; plain float64, no guarantee.

        Args:
            inputs: One array for each input of the model: of the input's shape, or of `(N, *shape)`
                for N points. A leading 1 of the shape, the batch axis of most models, may be left out.

        Returns:
            For each output an array of its shape, or of `(N, *shape)`; without its leading 1 when the
            input came as `(N, *shape[1:])`. A model with one output returns the array itself.

        Raises:
            InputError: Number, shape or type of the arrays do not fit, or they contain NaN.
        """
        signature = self.model.inputs
        if len(inputs) != len(signature.shapes):
            raise InputError(f"the network has {len(signature.shapes)} input(s), got {len(inputs)}")
        taken = [_points(x, s, n) for x, s, n in zip(inputs, signature.shapes, signature.names, strict=True)]
        if len({(len(flat), form) for flat, form in taken}) > 1:
            raise InputError("the inputs have different numbers of points")
        values = self._evaluate(np.concatenate([flat for flat, _ in taken], axis=1))
        outputs = _split(values, self.model.outputs, taken[0][1])
        return outputs[0] if len(outputs) == 1 else outputs

    def _evaluate(self, points: np.ndarray) -> np.ndarray:
        network = self.model.network
        step = max(1, CHUNK_ELEMENTS // sum(math.prod(n.shape) for n in network.nodes))
        parts = [network(points[i : i + step]) for i in range(0, len(points), step)]
        return np.concatenate(parts) if parts else np.zeros((0, *network.nodes[network.output].shape))


_Form: TypeAlias = Literal["one", "batch", "merged"]


def _points(x: object, shape: tuple[int, ...], name: str) -> tuple[np.ndarray, _Form]:
    """Points `(N, n)`, and whether `x` was one, had an axis for them, or used the leading 1 for it."""
    array = _exact(x, f"input {name!r}")
    form: _Form
    if array.shape == shape:
        form = "one"
    elif array.shape[1:] == shape:
        form = "batch"
    elif shape[:1] == (1,) and array.shape[1:] == shape[1:]:
        form = "merged"
    elif shape[:1] == (1,) and array.shape == shape[1:]:
        form = "one"
    else:
        raise InputError(f"input {name!r} has shape {shape}, got {array.shape}")
    return array.reshape(1 if form == "one" else len(array), math.prod(shape)), form


def _split(values: np.ndarray, outputs: Signature, form: _Form) -> tuple[np.ndarray, ...]:
    """Flat outputs `(N, m)` as one array for each output."""
    parts = np.split(values, np.cumsum(outputs.sizes)[:-1], axis=1)
    shaped = []
    for part, shape in zip(parts, outputs.shapes, strict=True):
        lead = () if form == "one" else (len(part),)
        tail = shape[1:] if form == "merged" and shape[:1] == (1,) else shape
        shaped.append(part.reshape((*lead, *tail)))
    return tuple(shaped)


def _exact(x: object, what: str) -> np.ndarray:
    """The array as float64, if that changes no number and none is NaN."""
    try:
        array = np.asarray(x)
    except ValueError as error:
        raise InputError(f"{what}: {error}") from None
    if array.dtype.kind not in "biuf":
        raise InputError(f"{what}: expected numbers, got {array.dtype}")
    with np.errstate(over="ignore"):
        result = array.astype(np.float64)
    if not np.array_equal(result.astype(array.dtype), array):
        raise InputError(f"{what} contains NaN or numbers that float64 can't hold")
    return result


def load(path: Path) -> LoadedNetwork:
    """Reads a network from `.onnx` or `.onnx.gz`; weights are kept exactly.

    >>> import lpverify
    >>> lpverify.load("model.onnx").input_names
    ('x',)

    Raises:
        InputError: The file can't be read or is no usable ONNX model.
        UnsupportedError: Some nodes can't be translated; the message lists every one of them.
    """
    name = _path(path, "path")
    return LoadedNetwork(load_model(name), name)


def _path(path: object, what: str) -> str:
    if isinstance(path, (str, os.PathLike)) and isinstance(name := os.fspath(path), str):
        return name
    raise InputError(f"{what}: expected a path, got {type(path).__name__}")


def _model(network: LoadedNetwork | Path) -> Model:
    if isinstance(network, LoadedNetwork):
        return network.model
    return load_model(_path(network, "network"))


@dataclass(frozen=True)
class Counterexample:
    """An input that has the property's violation, replayed with onnxruntime.

    Attributes:
        inputs: For each input of the model the array to feed to onnxruntime, in the model's float type.
        outputs: For each output what onnxruntime returned.
        exact: The inputs as exact numbers inside the query's ranges, flat; they differ from `inputs`
            only where a range contains no float of that type.
    """

    inputs: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    exact: tuple[Number, ...]


@dataclass(frozen=True)
class Result:
    """What is known about a query.

    Attributes:
        verdict: `sat`: the violation exists, see `witness`. `unsat`: it does not, over the real numbers.
        witness: With `sat`.
        reason: Why it is `unknown` or `timeout`, else empty.
        stage: The technique that decided, or that was at work last.
        seconds: Wall-clock time, loading included.
        proof: With `unsat`, if it was recorded.
    """

    verdict: Literal["sat", "unsat", "unknown", "timeout"]
    witness: Counterexample | None
    reason: str
    stage: str
    seconds: float
    proof: Proof | None = field(default=None, repr=False)


def verify(
    network: LoadedNetwork | Path,
    query: Query | Path,
    *,
    timeout: float = 60.0,
    seed: int = 0,
    record_proof: bool = False,
) -> Result:
    """Decides whether the violation that a VNN-LIB query describes exists.

    >>> import lpverify
    >>> lpverify.verify("model.onnx", "holds.vnnlib").verdict
    'unsat'
    >>> result = lpverify.verify("model.onnx", "violated.vnnlib", timeout=10)
    >>> result.verdict
    'sat'
    >>> network = lpverify.load("model.onnx")
    >>> bool(network(result.witness.inputs["x"]) >= 0.25)
    True

    Args:
        network: From `load`, or a path.
        query: Parsed, or the path of a VNN-LIB 1 file, packed with gzip or not.
        timeout: Wall-clock limit in seconds; may be overrun by the length of one step.
        seed: Of all random choices.
        record_proof: Keep what an `unsat` is proven with.

    Raises:
        InputError: A file or an argument is not usable, or query and network do not fit.
        UnsupportedError: Something in them can't be treated.

    Source: branch and bound over backward linear bounds, Bunel et al. 2020, arXiv:1909.06588, and Wang et
    al. 2021, arXiv:2103.06624; witnesses count after a replay with onnxruntime.
    """
    start = time.monotonic()
    config = _config(timeout, seed, record_proof, start)
    model = _model(network)
    parsed = query if isinstance(query, Query) else read_query(_path(query, "query"))
    verdict = verify_query(model, parsed, config)
    answer = answer_of(verdict)
    proof = verdict.proof if isinstance(verdict, Unsat) and record_proof else None
    witness = _counterexample(verdict.witness, model) if isinstance(verdict, Sat) else None
    return _result(answer, witness, proof, time.monotonic() - start)


def _config(timeout: float, seed: int, record_proof: bool, start: float) -> Config:
    number = isinstance(timeout, (int, float, np.integer, np.floating)) and not isinstance(timeout, bool)
    if not (number and timeout > 0):
        raise InputError(f"timeout: expected a positive number of seconds, got {timeout!r}")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise InputError(f"seed: expected a whole number from 0, got {seed!r}")
    return Config(float(timeout), int(seed), bool(record_proof), deadline=Deadline(start + float(timeout)))


def _result(answer: Answer, witness: Counterexample | None, proof: Proof | None, seconds: float) -> Result:
    if answer.verdict == "error":
        raise InternalError(answer.reason)
    return Result(answer.verdict, witness, answer.reason, answer.stage, seconds, proof)


def _counterexample(witness: Witness, model: Model) -> Counterexample:
    """The witness' flat arrays cut into the model's tensors."""
    tables: list[dict[str, np.ndarray]] = []
    for flat, signature in ((witness.inputs, model.inputs), (witness.outputs, model.outputs)):
        arrays = _split(flat[None], signature, "one")
        rows = zip(signature.names, arrays, signature.dtypes, strict=True)
        tables.append({name: array.astype(dtype) for name, array, dtype in rows})
    return Counterexample(tables[0], tables[1], witness.x)


@dataclass(frozen=True)
class ValueBounds:
    """A proven box of one value of the network.

    Attributes:
        name: The ONNX node that the value comes from; several values may come from one node.
        op: What computes it, in this library's words; `input` for the flat input.
        lower: Not above the value anywhere in the input box; of the value's shape.
        upper: Not below it.
    """

    name: str
    op: str
    lower: np.ndarray
    upper: np.ndarray


@dataclass(frozen=True)
class BoundsResult:
    """Proven bounds on a network over a box: all rounding errors are covered.

    With the flat input `x (n,)` and flat output `y (m,)`, for every real x in the box and in exact
    arithmetic, `lower_a @ x + lower_b <= y <= upper_a @ x + upper_b` and `lower <= y <= upper`.

    Attributes:
        values: Boxes of all values, from the input to the output, in the order of evaluation.
        lower: `(m,)`.
        upper: `(m,)`.
        lower_a: `(m, n)`.
        lower_b: `(m,)`.
        upper_a: `(m, n)`.
        upper_b: `(m,)`.
    """

    values: tuple[ValueBounds, ...] = field(repr=False)
    lower: np.ndarray
    upper: np.ndarray
    lower_a: np.ndarray
    lower_b: np.ndarray
    upper_a: np.ndarray
    upper_b: np.ndarray


def bounds(
    network: LoadedNetwork | Path, lower: object, upper: object, *, method: Method = "crown"
) -> BoundsResult:
    """Bounds all values of a network over an input box.

    >>> import lpverify
    >>> found = lpverify.bounds("model.onnx", [[0.5, -1.0]], [[1.0, 0.0]])
    >>> found.lower.round(9), found.upper.round(9)
    (array([0.]), array([1.]))
    >>> [value.op for value in found.values]
    ['input', 'Reshape', 'Linear', 'Relu', 'Reshape']

    Args:
        network: From `load`, or a path.
        lower: Lower ends of the box, of the input's shape (a leading 1 may be left out) or flat `(n,)`; of
            several inputs: flat, one after the other.
        upper: The same for the upper ends.
        method: `ibp`, interval arithmetic (Gowal et al. 2018, arXiv:1810.12715), for the boxes; or
            `crown`, which adds backward linear bounds for unstable neurons (Zhang et al. 2018,
            arXiv:1811.00866). The linear bounds of the output are backward bounds from these boxes.

    Raises:
        InputError: Box or method are not usable: NaN, infinite ends, lower above upper, another shape.
        UnsupportedError: The network has nodes that can't be translated.
    """
    if method not in get_args(Method):
        raise InputError(f"method: expected one of {', '.join(get_args(Method))}, got {method!r}")
    model = _model(network)
    low, high = (_ends(end, model.inputs, what) for end, what in ((lower, "lower"), (upper, "upper")))
    if not (low <= high).all():
        i = int(np.flatnonzero(~(low <= high))[0])
        raise InputError(f"lower end {low[i]} of input element {i} is above its upper end {high[i]}")
    box = Box(low[None], high[None])
    found = propagate(model.network, Region(box), Effort(method), Config().max_coefficients)
    if bool(found.empty.any()):
        raise InternalError("a box that is not empty was found to be empty")
    return _bounds_result(model, found)


def _ends(end: object, inputs: Signature, what: str) -> np.ndarray:
    """One end of the box, flat."""
    array = _exact(end, what)
    total = sum(inputs.sizes)
    shapes: list[tuple[int, ...]] = [(total,)]
    if len(inputs.shapes) == 1:
        shape = inputs.shapes[0]
        shapes += [shape, shape[1:]] if shape[:1] == (1,) else [shape]
    if array.shape not in shapes:
        raise InputError(f"{what}: expected shape {' or '.join(map(str, shapes))}, got {array.shape}")
    if not np.isfinite(array).all():
        raise InputError(f"{what} contains infinite numbers")
    return array.reshape(total)


def _bounds_result(model: Model, found: Frame) -> BoundsResult:
    network = model.network
    size = network.nodes[network.output].shape[0]
    parts = [_linear_bounds(model, found, rows) for rows in _row_chunks(model, size)]
    (lower_a, lower_b, low), (upper_a, upper_b, high) = (
        [np.concatenate(column) for column in zip(*side, strict=True)] for side in zip(*parts, strict=True)
    )
    output = found.boxes[network.output]
    found.boxes[network.output] = Box(
        np.maximum(output.lower, low[None]), np.minimum(output.upper, -high[None])
    )
    values = [
        ValueBounds(n.name, "input" if n.op is None else type(n.op).__name__, b.lower[0], b.upper[0])
        for n, b in zip(network.nodes, found.boxes, strict=True)
    ]
    last = values[network.output]
    return BoundsResult(tuple(values), last.lower, last.upper, lower_a, lower_b, -upper_a, -upper_b)


def _row_chunks(model: Model, size: int) -> Sequence[np.ndarray]:
    """The rows of the identity matrix, so many at a time that coefficients fit into memory."""
    widest = max(math.prod(n.shape) for n in model.network.nodes)
    step = max(1, CHUNK_ELEMENTS // widest)
    return [np.eye(min(step, size - i), size, i) for i in range(0, size, step)]


_Side: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray]


def _linear_bounds(model: Model, found: Frame, rows: np.ndarray) -> tuple[_Side, _Side]:
    """For rows of outputs and for their negatives: `a`, `b` of a lower line, and its minimum."""
    network, sides = model.network, []
    for signed in (rows, -rows):
        centre = centre_value(signed[None], found.centres[network.output])
        linear = backward(found, network.output, signed[None], centre)
        a, b = linear.absolute()
        sides.append((a[0], b[0], linear.concretize(found.boxes[0])[0]))
    return sides[0], sides[1]
