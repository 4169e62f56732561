"""A model with the normalisation of its inputs in front: radii and ranges are then in the unit of the data.

The two nodes are put into the ONNX model itself, so that bounds, attacks and replays are about the very same
network, and what rounding they add is part of every claim about it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np

from lpverify.errors import InputError, OnnxError, UnsupportedError
from lpverify.io.graphs import graphs_of
from lpverify.io.limits import DEFAULT_LIMITS, ModelLimits
from lpverify.io.onnx import Model, import_model
from lpverify.io.opsets import OLDEST, domain_of
from lpverify.query import Number

Numbers: TypeAlias = Number | float | Sequence[Number | float] | np.ndarray

COLOURS = 3


def normalised(
    model: Model, mean: Numbers | None, std: Numbers | None, limits: ModelLimits = DEFAULT_LIMITS
) -> Model:
    """The model of `(x - mean) / std`, as if it had been loaded from a file that begins so.

    Sizes that the model leaves open stay open. The input gets another name, outputs keep theirs.

    Args:
        model: With one input of floats.
        mean: A number, or one for each channel; rounded to the input's type. None: 0.
        std: The same; above 0. None: 1. Without both, it is the model itself.
        limits: How much the result may ask for, as in `load_model`.

    Channels are the second axis of inputs `(1, C, H, W)` and `(N, C)`, the first one of `(C, H, W)`, and the
    last one of `(1, H, W, 3)`.

    Raises:
        InputError: The model has several inputs; numbers are not finite, 0 or below where they must not be,
            or not as many as channels.
        OnnxError: The result is malformed or too large, such as bfloat16 before version 13 of the operators.
        UnsupportedError: The input is of whole numbers, or the model is an assembled one.
    """
    if mean is None and std is None:
        return model
    if len(model.inputs.names) != 1:
        raise InputError(f"normalisation: the model has {len(model.inputs.names)} inputs, expected one")
    if model.parts or not model.serialized:
        raise UnsupportedError("normalisation: the model is assembled from several")
    tensor = model.inputs.tensors[0]
    kind = np.dtype(tensor.dtype)
    if kind.kind in "iub":
        raise UnsupportedError(f"normalisation: the model's inputs are whole numbers ({kind})")
    shift = _constant(0 if mean is None else mean, tensor.shape, kind, "mean")
    scale = _constant(1 if std is None else std, tensor.shape, kind, "std")
    if not (scale > 0).all():
        raise InputError(f"std: expected numbers above 0 in {kind}, got {std}")
    data = _prepended(model.serialized, tensor.name, shift, scale, limits)
    return import_model(data, model.path, limits=limits)


def _constant(values: Numbers, shape: tuple[int, ...], kind: np.dtype, what: str) -> np.ndarray:
    """The numbers in the input's type, of a shape that broadcasts against it."""
    try:
        array = np.asarray(values, np.float64)
    except (TypeError, ValueError, ArithmeticError):
        raise InputError(f"{what}: expected a number, or one for each channel") from None
    with np.errstate(over="ignore", under="ignore"):
        typed = array.astype(kind)
    finite = np.isfinite(typed.astype(np.float64))
    if array.ndim > 1 or not array.size or not finite.all():
        raise InputError(f"{what}: expected finite numbers in {kind}, one or one for each channel")
    if array.size == 1:
        return typed.reshape(())
    axis = _axis(shape, array.size, what)
    return typed.reshape((array.size, *[1] * (len(shape) - 1 - axis)))


def _axis(shape: tuple[int, ...], count: int, what: str) -> int:
    """Which axis the channels are, of so many."""
    places = {2: [1], 3: [0], 4: [1]}.get(len(shape), [])
    if len(shape) == 4 and shape[3] == COLOURS:
        places.append(3)
    for axis in places:
        if shape[axis] == count:
            return axis
    channels = f"{shape[places[0]]} channel(s)" if places else "no channels"
    raise InputError(f"{what}: {count} numbers, the input of shape {shape} has {channels}")


def _prepended(data: bytes, name: str, shift: np.ndarray, scale: np.ndarray, limits: ModelLimits) -> bytes:
    """The model with both nodes; they compute the tensor that was its input."""
    import onnx  # noqa: PLC0415  (slow to import)
    from onnx import helper, numpy_helper  # noqa: PLC0415

    proto = onnx.ModelProto.FromString(data)
    names = _Fresh(_names(proto))
    raw, moved = names.of(f"{name}.raw"), names.of(f"{name}.centred")
    operands = {names.of(f"{name}.mean"): shift, names.of(f"{name}.std"): scale}
    # nodes, because models of the first versions must list initializers among their inputs
    nodes = [
        helper.make_node("Constant", [], [key], key, value=numpy_helper.from_array(array, key))
        for key, array in operands.items()
    ]
    mean, std = operands
    nodes.append(helper.make_node("Sub", [raw, mean], [moved], moved))
    nodes.append(helper.make_node("Div", [moved, std], [name], names.of(f"{name}.normalised")))
    next(info for info in proto.graph.input if info.name == name).name = raw
    old = list(proto.graph.node)
    del proto.graph.node[:]
    proto.graph.node.extend([*nodes, *old])
    _import_standard(proto)
    result = bytes(proto.SerializeToString())
    _check(result, data, limits)
    return result


@dataclass
class _Fresh:
    """Names that nothing in a model has yet."""

    taken: set[str]

    def of(self, name: str) -> str:
        while name in self.taken:
            name += "_"
        self.taken.add(name)
        return name


def _names(proto: Any) -> set[str]:
    """Every name of a tensor or node."""
    found: set[str] = set()
    for nodes, graph in graphs_of(proto):
        if graph is not None:
            infos = (*graph.input, *graph.output, *graph.initializer, *graph.value_info)
            found |= {info.name for info in infos} | {t.values.name for t in graph.sparse_initializer}
        for node in nodes:
            found |= {node.name, *node.input, *node.output}
    return found


def _import_standard(proto: Any) -> None:
    """Lets a model that consists of its own functions use standard operators."""
    if any(not domain_of(entry) for entry in proto.opset_import):
        return
    versions = [e.version for f in proto.functions for e in f.opset_import if not domain_of(e)]
    proto.opset_import.add(version=max([OLDEST, *versions]))


def _check(data: bytes, original: bytes, limits: ModelLimits) -> None:
    """Refuses what ONNX's checker refuses, unless it refuses the original as well.

    The importer and onnxruntime take some models that the checker does not, such as those with deprecated
    operators.
    """
    if len(data) > limits.max_bytes:
        raise OnnxError(f"normalisation: more than {limits.max_bytes} bytes")
    problem = _complaint(data)
    if problem and not _complaint(original):
        raise OnnxError(f"normalisation: ONNX's checker refuses the model: {problem}")


def _complaint(data: bytes) -> str:
    """What the checker says of a model, in a line; empty if it is fine."""
    from onnx import checker  # noqa: PLC0415

    try:
        checker.check_model(data)
    except (checker.ValidationError, RuntimeError, ValueError) as error:
        return str(error).strip().partition("\n")[0][:200] or type(error).__name__
    return ""
