"""Tensors that a model keeps in other files: read from plain files of its own folder, or refused.

A network file is untrusted: the names in it must not make lpverify read anything else. What is read
is put into the model itself, so that what is verified and what onnxruntime replays are the same bytes.
"""

import stat
from collections.abc import Iterator
from math import prod
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.element_types import element_type, numpy_type
from lpverify.io.graphs import graphs_of
from lpverify.io.limits import DEFAULT_LIMITS, ModelLimits
from lpverify.io.model import read_plain

EXTERNAL = 1  # TensorProto.DataLocation


def embed_external_data(proto: Any, folder: Path, limits: ModelLimits = DEFAULT_LIMITS) -> bool:
    """Moves all external tensors into the model; tells whether there were any.

    Raises:
        OnnxError: A file is missing, is not a plain file inside the folder, or does not fit its tensor.
        UnsupportedError: The model would become too large.
    """
    tensors = [tensor for tensor in _tensors(proto) if tensor.data_location == EXTERNAL]
    total = proto.ByteSize() + sum(_size(tensor) for tensor in tensors) if tensors else 0
    if total > limits.max_bytes:
        raise UnsupportedError(f"{total} bytes with its external files, more than {limits.max_bytes}")
    for tensor in tensors:
        data = _read(tensor, folder)
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")
        tensor.raw_data = data
    return bool(tensors)


def _tensors(proto: Any) -> Iterator[Any]:
    """Every tensor of the model, those of functions and subgraphs included."""
    for nodes, graph in graphs_of(proto):
        if graph is not None:
            yield from graph.initializer
            for sparse in graph.sparse_initializer:
                yield from (sparse.values, sparse.indices)
        for node in nodes:
            for attribute in node.attribute:
                yield from attribute.tensors
                if attribute.HasField("t"):
                    yield attribute.t


def _size(tensor: Any) -> int:
    """Bytes of the tensor's numbers."""
    if any(d < 0 for d in tensor.dims):
        raise OnnxError(f"{tensor.name!r} has an impossible shape {list(tensor.dims)}")
    name = element_type(tensor.data_type)
    return prod(tensor.dims) * numpy_type(name)().itemsize


def _read(tensor: Any, folder: Path) -> bytes:
    """The tensor's bytes."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if len(entries) != len(tensor.external_data):
        raise OnnxError(f"{tensor.name!r}: a key of its external data occurs twice")
    size = _size(tensor)
    path = _file(entries.get("location", ""), folder, tensor.name)
    offset, length = (_number(entries, key, tensor.name) for key in ("offset", "length"))
    try:
        available = path.stat().st_size - (offset or 0)
        if (available if length is None else length) != size or available < size:
            raise OnnxError(f"{tensor.name!r}: its place in {path.name!r} does not hold its {size} bytes")
        data = read_plain(path, size, offset or 0)
    except OSError as error:
        raise OnnxError(f"{tensor.name!r}: {path}: {error.strerror or error}") from None
    if len(data) != size:
        raise OnnxError(f"{tensor.name!r}: {path.name!r} became shorter")
    return data


def _number(entries: dict[str, str], key: str, name: str) -> int | None:
    """A whole number of the description, None where it has none."""
    text = entries.get(key)
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 20):
        raise OnnxError(f"{name!r}: {key} of its external data is {text[:40]!r}")
    return int(text)


def _file(location: str, folder: Path, name: str) -> Path:
    """The file that a tensor is in.

    Hard links are refused as well: there is no telling which folder such a file belongs to.
    """
    parts = PurePosixPath(location).parts
    absolute = PurePosixPath(location).is_absolute() or bool(PureWindowsPath(location).anchor)
    if not parts or absolute or ".." in parts or "\\" in location or "\0" in location:
        raise OnnxError(f"{name!r}: its external file {location!r} is not inside the model's folder")
    try:
        path = (folder / location).resolve(strict=True)
        inside = path.is_relative_to(folder.resolve(strict=True))
        status = path.stat()
    except (OSError, RuntimeError, ValueError) as error:
        raise OnnxError(f"{name!r}: its external file {location!r} can't be read: {error}") from None
    if not inside:
        raise OnnxError(f"{name!r}: its external file {location!r} leads out of the model's folder")
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise OnnxError(f"{name!r}: its external file {location!r} is not a plain file with one name")
    return path
