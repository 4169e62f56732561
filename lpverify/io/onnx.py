"""Reads an ONNX file into a `Network`, through the op registry. Weights are kept exactly."""

import os
from pathlib import Path
from typing import Any

from lpverify.errors import InputError, OnnxError, UnsupportedError
from lpverify.io.external_data import embed_external_data
from lpverify.io.graphs import graphs_of
from lpverify.io.importer import MALFORMED, Importer
from lpverify.io.interface import Interface, adapt
from lpverify.io.limits import DEFAULT_LIMITS, Budget, ModelLimits
from lpverify.io.model import Model, Signature, read_file
from lpverify.io.wire import check_fields

__all__ = ["DEFAULT_LIMITS", "Model", "ModelLimits", "Signature", "import_model", "load_model"]

MOST_WIDTH = 400  # of a line of a message, which may quote the file


def load_model(
    path: str | os.PathLike[str],
    interface: Interface | None = None,
    limits: ModelLimits = DEFAULT_LIMITS,
) -> Model:
    """Reads `.onnx` or `.onnx.gz`; external tensors from files in the same folder.

    Args:
        path: Of the file.
        interface: Sizes of open dimensions, and tensors that are wanted as outputs.
        limits: How much it may ask for.

    Raises:
        InputError: The file can't be read.
        OnnxError: It is not a usable ONNX model.
        UnsupportedError: Some nodes can't be translated; the message lists every one of them.
    """
    return import_model(read_file(path, limits), str(path), Path(path).parent, interface, limits)


def import_model(
    data: bytes,
    path: str = "",
    folder: Path | None = None,
    interface: Interface | None = None,
    limits: ModelLimits = DEFAULT_LIMITS,
) -> Model:
    """Translates a serialised model; raises as `load_model`.

    Args:
        data: The model.
        path: For messages.
        folder: Where its external files are; without it, a model that has some is refused.
        interface: Sizes of open dimensions, and tensors that are wanted as outputs.
        limits: How much it may ask for.
    """
    try:
        proto = _parsed(data, limits)
        changed = folder is not None and embed_external_data(proto, folder, limits)
        changed = (interface is not None and adapt(proto, interface)) or changed
        if changed:
            data = proto.SerializeToString()
        return Importer(proto, Budget(limits, len(data))).run(data, path)
    except (InputError, UnsupportedError) as error:
        raise type(error)((f"{path}: " if path else "") + _printable(str(error))) from None
    except (MemoryError, RecursionError) as error:
        place = f"{path}: " if path else ""
        raise UnsupportedError(
            f"{place}it needs more memory than there is ({type(error).__name__})"
        ) from None
    except MALFORMED as error:
        raise OnnxError((f"{path}: " if path else "") + _printable(f"malformed ({error})")) from None


def _printable(message: str) -> str:
    """A message that quotes the file: no long lines, nothing that a terminal would obey."""
    lines = (f"{line[:MOST_WIDTH]}..." if len(line) > MOST_WIDTH else line for line in message.split("\n"))
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in "\n".join(lines))


def _parsed(data: bytes, limits: ModelLimits) -> Any:
    """The model as a protobuf message.

    Raises:
        OnnxError: It is none, or too large.
    """
    import onnx  # noqa: PLC0415  (slow to import)

    if len(data) > limits.max_bytes:
        raise OnnxError(f"more than {limits.max_bytes} bytes")
    check_fields(data, limits.max_fields)
    try:
        proto = onnx.ModelProto.FromString(data)
    except Exception as error:  # noqa: BLE001  (protobuf's own exception types differ by backend)
        raise OnnxError(f"not an ONNX file ({type(error).__name__})") from None
    if not proto.graph.node and not proto.graph.output:
        raise OnnxError("not an ONNX file (no graph)")
    if sum(len(nodes) for nodes, _ in graphs_of(proto)) > limits.max_nodes:
        raise OnnxError(f"the network has more than {limits.max_nodes} nodes")
    return proto
