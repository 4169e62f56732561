"""A network file as bytes, and what an import makes of it."""

import os
import zlib
from dataclasses import dataclass, field
from itertools import accumulate
from math import prod
from pathlib import Path

import numpy as np

from lpverify.errors import InputError, OnnxError
from lpverify.network import Network
from lpverify.ops.execution import OnnxStep

MAX_BYTES = 4 * 2**30


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


def read_file(path: str | os.PathLike[str]) -> bytes:
    """The bytes of a file, unpacked if they are packed with gzip.

    Raises:
        InputError: The file can't be read.
        OnnxError: It is damaged, or too large when unpacked.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if data[:2] != b"\x1f\x8b":
        return data
    unpacker = zlib.decompressobj(wbits=31)
    try:
        plain = unpacker.decompress(data, MAX_BYTES)
    except zlib.error:
        plain = None
    if plain is None or not (unpacker.eof or unpacker.unconsumed_tail):
        raise OnnxError(f"{path}: damaged gzip file")
    if unpacker.unconsumed_tail:
        raise OnnxError(f"{path}: more than {MAX_BYTES} bytes when unpacked")
    return plain
