"""A network file as bytes, and what an import makes of it."""

import errno
import gzip
import os
import stat
import zlib
from dataclasses import dataclass, field
from io import BytesIO
from itertools import accumulate
from math import prod

import numpy as np

from lpverify.errors import InputError, OnnxError
from lpverify.io.limits import DEFAULT_LIMITS, RATIO_FREE_BYTES, ModelLimits
from lpverify.network import Network
from lpverify.ops.execution import OnnxStep

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Tensor:
    """One input or output of a model, and its place among all of them, flat one after the other."""

    name: str
    shape: tuple[int, ...]
    dtype: type
    part: slice

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Signature:
    """The inputs or outputs of a model: names, shapes with symbolic sizes as 1, NumPy types."""

    names: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]
    dtypes: tuple[type, ...]

    @property
    def sizes(self) -> tuple[int, ...]:
        """Elements of each tensor."""
        return tuple(prod(shape) for shape in self.shapes)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The same one by one."""
        ends = accumulate(self.sizes)
        rows = zip(self.names, self.shapes, self.dtypes, self.sizes, ends, strict=True)
        return tuple(Tensor(n, shape, dtype, slice(e - size, e)) for n, shape, dtype, size, e in rows)


@dataclass(frozen=True)
class Model:
    """An imported network with the serialised model it came from (for replays).

    The network is the real-valued function of the stored weights, whatever the element types: with
    float16 weights, too, it does not round in between. Symbolic sizes of the inputs count as 1.

    Attributes:
        network: Takes all inputs and returns all outputs, flat, one after the other.
        inputs: Of the model, without those that are constant.
        outputs: In the model's order.
        serialized: What onnxruntime loads: the file, with tensors from external files put into it.
        path: Where it came from.
        node_count: Nodes of the file's main graph.
        steps: What an execution of the model runs, in order: its nodes, functions and subgraphs expanded.
        parts: The models that an assembled one consists of, see `io.assembly`; it has no file of its own.
    """

    network: Network
    inputs: Signature
    outputs: Signature
    serialized: bytes = field(repr=False)
    path: str = ""
    node_count: int = 0
    steps: tuple[OnnxStep, ...] = field(default=(), repr=False)
    parts: tuple["Part", ...] = ()


@dataclass(frozen=True)
class Part:
    """A model within an assembled one.

    Attributes:
        model: Of one file.
        inputs: For each element of its inputs, flat, the place among all inputs.
        outputs: The elements of its outputs, flat, that are wanted; those of all parts follow each other.
    """

    model: Model
    inputs: np.ndarray
    outputs: np.ndarray


def read_file(path: str | os.PathLike[str], limits: ModelLimits = DEFAULT_LIMITS) -> bytes:
    """The bytes of a file, unpacked if they are packed with gzip.

    Raises:
        InputError: The file can't be read.
        OnnxError: It is no plain file, damaged, or too large, packed or unpacked.
    """
    try:
        data = read_plain(path, limits.max_bytes + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > limits.max_bytes:
        raise OnnxError(f"{path}: more than {limits.max_bytes} bytes")
    return data if data[:2] != b"\x1f\x8b" else _unpack(data, str(path), limits)


def read_plain(path: str | os.PathLike[str], most: int, start: int = 0) -> bytes:
    """At most so many bytes of a plain file; others may block or never end.

    Raises:
        OSError, ValueError: It can't be read, or is none.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    with open(os.open(path, flags), "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a plain file")
        file.seek(start)
        return file.read(min(most, max(status.st_size - start, 0)))


def _unpack(data: bytes, path: str, limits: ModelLimits) -> bytes:
    """All members of a gzip file."""
    most = min(limits.max_bytes, max(RATIO_FREE_BYTES, limits.max_ratio * len(data)))
    parts, total = [b""], 0
    try:
        with gzip.GzipFile(fileobj=BytesIO(data)) as file:
            while part := file.read(_CHUNK):
                parts.append(part)
                total += len(part)
                if total > most:
                    raise OnnxError(f"{path}: more than {most} bytes when unpacked from {len(data)}")
    except (EOFError, OSError, zlib.error):
        raise OnnxError(f"{path}: damaged gzip file") from None
    return b"".join(parts)
