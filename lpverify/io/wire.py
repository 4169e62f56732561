"""Counts the fields of a serialised model before protobuf unpacks it.

An empty node takes two bytes in a file and more than a hundred in memory. So the wire format is scanned
first; contents that are no messages, weights above all, are skipped unread.
"""

from typing import Any

from lpverify.errors import OnnxError

UNCOUNTED_BYTES = 1 << 20  # smaller files need no counting
_SIZES = {1: 8, 5: 4}  # bytes of the wire types of fixed size
_VARINT, _BYTES = 0, 2


def check_fields(data: bytes, most: int) -> None:
    """Refuses a model with more fields than that, those of all its parts counted.

    Raises:
        OnnxError: It has more, or is no protobuf message.
    """
    from onnx import ModelProto  # noqa: PLC0415  (slow to import)

    if len(data) <= UNCOUNTED_BYTES:
        return
    messages: dict[str, dict[int, Any]] = {}
    work, count = [(0, len(data), ModelProto.DESCRIPTOR)], 0
    while work:
        position, end, descriptor = work.pop()
        if descriptor.full_name not in messages:
            messages[descriptor.full_name] = {f.number: f.message_type for f in descriptor.fields}
        inner = messages[descriptor.full_name]
        while position < end:
            count += 1
            if count > most:
                raise OnnxError(f"not a network: it has more than {most} parts")
            key = data[position]
            if key < 128:  # nearly all
                position += 1
            else:
                key, position = _varint(data, position, end)
            start, position = _skip(data, position, end, key & 7)
            if key & 7 == _BYTES and inner.get(key >> 3) is not None:
                work.append((start, position, inner[key >> 3]))


def _skip(data: bytes, position: int, end: int, kind: int) -> tuple[int, int]:
    """Where the content of a field starts and ends."""
    if kind == _VARINT:
        return position, _varint(data, position, end)[1]
    size = _SIZES.get(kind, 0)
    if kind == _BYTES and position < end and data[position] < 128:
        size, position = data[position], position + 1
    elif kind == _BYTES:
        size, position = _varint(data, position, end)
    elif not size:
        raise OnnxError("not an ONNX file (groups)")
    if position + size > end:
        raise OnnxError("not an ONNX file (truncated)")
    return position, position + size


def _varint(data: bytes, position: int, end: int) -> tuple[int, int]:
    """A number, and where it ends."""
    value = shift = 0
    while position < end and shift < 70:
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
        shift += 7
    raise OnnxError("not an ONNX file (truncated)")
