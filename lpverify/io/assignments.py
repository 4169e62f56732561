"""The variables of a witness: for the standard's text form, and as files of tensors."""

import os
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from lpverify.errors import InputError
from lpverify.io.files import write_atomically
from lpverify.io.model import Model, Signature
from lpverify.io.results import Tensor
from lpverify.query import Query

if TYPE_CHECKING:
    from lpverify.verdict import Witness


def tensors_of(query: Query, model: Model) -> list[Tensor]:
    """All variables in the order of their declaration.

    Version 1 has X and Y, with the model's shapes where it has one tensor of each.
    """
    if not query.networks:
        pairs = (("X", model.inputs, 0), ("Y", model.outputs, query.inputs))
        return [_flat(name, signature, start) for name, signature, start in pairs]
    inputs = list(zip(query.tensors("input"), model.inputs.tensors, strict=True))
    outputs = list(zip(query.tensors("hidden", "output"), model.outputs.tensors, strict=True))
    both = [*((pair, t, t.part.start) for pair, t in inputs)]
    both += [(pair, t, query.inputs + t.part.start) for pair, t in outputs]
    found = {v.name: Tensor(v.name, v.element_type, v.shape, at, t.dtype) for (_, v), t, at in both}
    return [found[v.name] for network in query.networks for v in network.variables]


def _flat(name: str, signature: Signature, start: int) -> Tensor:
    single = len(signature.shapes) == 1
    shape = signature.shapes[0] if single else (sum(signature.sizes),)
    dtype = signature.dtypes[0] if len(set(signature.dtypes)) == 1 else np.float64
    return Tensor(name, "Real", shape, start, dtype)


def write_tensors(folder: str, tensors: Sequence[Tensor], witness: "Witness") -> None:
    """Writes `NAME.pb`, a serialised TensorProto of the model's type, for each variable; see `standard_text`.

    Raises:
        InputError: A file can't be written; the message names it.
    """
    from onnx import numpy_helper  # noqa: PLC0415  (slow to import)

    values = np.concatenate([witness.inputs, witness.outputs])
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for t in tensors:
            path = Path(folder) / f"{t.name}.pb"
            array: np.ndarray = values[t.start : t.start + prod(t.shape)].astype(t.dtype).reshape(t.shape)
            write_atomically(path, numpy_helper.from_array(array, t.name).SerializeToString())
    except OSError as error:
        raise InputError(f"{path}: can't write the assignment: {error.strerror or error}") from None


def check_folder(folder: str) -> None:
    """Finds out whether `write_tensors` could work; raises InputError if not."""
    try:
        os.makedirs(folder, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: can't write assignments: {error.strerror or error}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise InputError(f"{folder}: can't write assignments: the folder is not writable")
