"""Files that are no models, and protobuf messages that grow."""

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from helpers import graph_proto

from hostile.cases import BOOL, FLOAT, INT64, add, case, net, node, one, tensor, weights

# --- Files that are none ---

add("empty file", lambda: b"", "OnnxError", "not an ONNX file")
add("text", lambda: b"(declare-const X_0 Real)\n" * 100, "OnnxError", "not an ONNX file")
add("random bytes", lambda: np.random.default_rng(0).bytes(10**5), "OnnxError", "not an ONNX file")
add("zeros", lambda: bytes(10**6), "OnnxError", "not an ONNX file")
add("truncated model", lambda: one("Relu")().SerializeToString()[:-9], "OnnxError", "not an ONNX file")
add("gzip bomb", lambda: gzip.compress(bytes(2**28), 9), "OnnxError", "bytes when unpacked")
add("truncated gzip", lambda: gzip.compress(one("Relu")().SerializeToString())[:-12], "OnnxError", "damaged")
add(
    "gzip with garbage",
    lambda: gzip.compress(one("Relu")().SerializeToString()) + b"garbage",
    "OnnxError",
    "damaged",
)
add("gzip of gzip", lambda: gzip.compress(gzip.compress(b"x" * 999)), "OnnxError", "not an ONNX file")
add("gzip header alone", lambda: b"\x1f\x8b", "OnnxError", "damaged")


@case("gzip in two members", "")
def _members(folder: Path) -> Path:
    data = one("Relu")().SerializeToString()
    (folder / "model.onnx.gz").write_bytes(gzip.compress(data[:20]) + gzip.compress(data[20:]) + bytes(100))
    return folder / "model.onnx.gz"


@case("missing file", "InputError", "No such file")
def _missing(folder: Path) -> Path:
    return folder / "missing.onnx"


@case("folder", "InputError", "directory")
def _folder(folder: Path) -> Path:
    return folder


@case("pipe", "InputError", "plain file")
def _pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


@case("/dev/zero", "InputError", "plain file")
def _device(folder: Path) -> Path:
    return Path("/dev/zero")


@case("link to /dev/zero", "InputError", "plain file")
def _link(folder: Path) -> Path:
    (folder / "link").symlink_to("/dev/zero")
    return folder / "link"


# --- Protobuf ---


def field(number: int, content: bytes) -> bytes:
    """A field that holds bytes."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def varint(number: int) -> bytes:
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def _nested_ifs(depth: int) -> bytes:
    """Written by hand, since protobuf refuses to copy it; a string of `If` in `If`."""
    graph = field(1, field(1, b"x") + field(2, b"y") + field(4, b"Neg"))
    for _ in range(depth):
        attribute = field(1, b"then_branch") + field(6, graph) + b"\xa0\x01\x05"
        graph = field(1, field(1, b"c") + field(2, b"y") + field(4, b"If") + field(5, attribute))
    return field(7, graph)


def nested_loops(depth: int, trips: int) -> onnx.ModelProto:
    """Loops in loops, of the same number of trips each."""
    nodes = [node("Add", ["v", "v"], ["o"])]
    for level in range(depth):
        inputs = {f"i{level}": (INT64, []), f"c{level}": (BOOL, []), "v": (FLOAT, None)}
        passed = node("Identity", [f"c{level}"], [f"d{level}"])
        body = graph_proto([passed, *nodes], inputs, {f"d{level}": BOOL, "o": FLOAT})
        given = "x" if level == depth - 1 else "v"
        for inner in (body,):
            inner.input[2].name, inner.output[1].name = "v" if level == 0 else f"v{level}", f"o{level}"
        body = graph_proto(
            [passed, *[_renamed(n, level) for n in nodes]],
            {f"i{level}": (INT64, []), f"c{level}": (BOOL, []), f"v{level}": (FLOAT, None)},
            {f"d{level}": BOOL, f"o{level}": FLOAT},
        )
        result = "y" if level == depth - 1 else "o"
        nodes = [node("Loop", ["n", "t", given], [result], body=body)]
    return net(nodes, {"n": np.array(trips), "t": np.array(True)})


def _renamed(inner: onnx.NodeProto, level: int) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(inner)
    copy.input[:] = [f"v{level}" if n == "v" else n for n in copy.input]
    copy.output[:] = [f"o{level}" if n == "o" else n for n in copy.output]
    return copy


def _fields(number: int, count: int, content: bytes = b"") -> Callable[[], bytes]:
    return lambda: field(7, field(number, content) * count)


add("4 million empty nodes", _fields(1, 4 * 10**6), "OnnxError", "parts")
add("300,000 empty nodes", _fields(1, 300_000), "OnnxError", "nodes")
add("4 million empty tensors", _fields(5, 4 * 10**6), "OnnxError", "parts")
add("4 million empty inputs", _fields(11, 4 * 10**6), "OnnxError", "parts")
add("4 million attributes", lambda: field(7, field(1, field(5, b"") * 4 * 10**6)), "OnnxError", "parts")
add("4 million operands", lambda: field(7, field(1, field(1, b"") * 4 * 10**6)), "OnnxError", "parts")
add("8 million sizes", lambda: field(7, field(5, b"\x08\x01" * 8 * 10**6)), "OnnxError", "parts")
add("100,000 sizes", lambda: weights(tensor([1] * 10**5, raw_data=b"0000")), "OnnxError", "impossible shape")
add("name of 50 MB", lambda: net([node("A" * 50 * 10**6, ["x"], ["y"])]), "UnsupportedError", "AAA[.][.][.]")
add("escape sequences", lambda: net([node("\x1b[2J", ["x"], ["y"])]), "UnsupportedError", r"\(\?\[2J\)")
add("If in If, 30 deep", lambda: _nested_ifs(30), "OnnxError")
add("If in If, 1000 deep", lambda: _nested_ifs(1000), "OnnxError", "not an ONNX file")
add("If in If, 30,000 deep", lambda: _nested_ifs(5000), "OnnxError", "not an ONNX file")
add("loops in loops, 900 trips each", lambda: nested_loops(4, 900), "UnsupportedError", "nodes")
add("groups", lambda: b"\x0b" * 2_000_000, "OnnxError", "not an ONNX file")
