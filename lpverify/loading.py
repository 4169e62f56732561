"""Networks for the Python interface: loaded, and evaluated on points of several shapes."""

import math
import os
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

import numpy as np

from lpverify.errors import InputError
from lpverify.io.onnx import Model, Signature, load_model

Path: TypeAlias = str | os.PathLike[str]

CHUNK_ELEMENTS = 2**25  # of all values, evaluated at a time


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
        taken = [
            points_of(x, s, n) for x, s, n in zip(inputs, signature.shapes, signature.names, strict=True)
        ]
        if len({(len(flat), form) for flat, form in taken}) > 1:
            raise InputError("the inputs have different numbers of points")
        values = self._evaluate(np.concatenate([flat for flat, _ in taken], axis=1))
        outputs = split_outputs(values, self.model.outputs, taken[0][1])
        return outputs[0] if len(outputs) == 1 else outputs

    def _evaluate(self, points: np.ndarray) -> np.ndarray:
        network = self.model.network
        step = max(1, CHUNK_ELEMENTS // sum(math.prod(n.shape) for n in network.nodes))
        parts = [network(points[i : i + step]) for i in range(0, len(points), step)]
        return np.concatenate(parts) if parts else np.zeros((0, *network.nodes[network.output].shape))


_Form: TypeAlias = Literal["one", "batch", "merged"]


def points_of(x: object, shape: tuple[int, ...], name: str) -> tuple[np.ndarray, _Form]:
    """Points `(N, n)`, and whether `x` was one, had an axis for them, or used the leading 1 for it.

    Raises:
        InputError: It has another shape, or numbers that float64 can't hold.
    """
    array = exact_array(x, f"input {name!r}")
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


def split_outputs(values: np.ndarray, outputs: Signature, form: _Form) -> tuple[np.ndarray, ...]:
    """Flat outputs `(N, m)` as one array for each output."""
    parts = np.split(values, np.cumsum(outputs.sizes)[:-1], axis=1)
    shaped = []
    for part, shape in zip(parts, outputs.shapes, strict=True):
        lead = () if form == "one" else (len(part),)
        tail = shape[1:] if form == "merged" and shape[:1] == (1,) else shape
        shaped.append(part.reshape((*lead, *tail)))
    return tuple(shaped)


def exact_array(x: object, what: str) -> np.ndarray:
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
    name = path_of(path, "path")
    return LoadedNetwork(load_model(name), name)


def path_of(path: object, what: str) -> str:
    """A path as a string."""
    if isinstance(path, (str, os.PathLike)) and isinstance(name := os.fspath(path), str):
        return name
    raise InputError(f"{what}: expected a path, got {type(path).__name__}")


def model_of(network: LoadedNetwork | Path) -> Model:
    """The model of a loaded network, or of one still to load."""
    if isinstance(network, LoadedNetwork):
        return network.model
    return load_model(path_of(network, "network"))
