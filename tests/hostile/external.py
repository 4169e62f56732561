"""Tensors in other files."""

import os
from pathlib import Path

from onnx import TensorProto

from hostile.cases import FLOAT, case, weights

# --- External data ---


def external(folder: Path, location: str, **entries: str) -> Path:
    made = TensorProto(dims=[2], data_type=FLOAT, data_location=TensorProto.EXTERNAL)
    for key, value in {"location": location, **entries}.items():
        made.external_data.add(key=key, value=value)
    (folder / "model.onnx").write_bytes(weights(made).SerializeToString())
    return folder / "model.onnx"


for location in (
    "../secret.bin",
    "/etc/passwd",
    "/dev/zero",
    "",
    ".",
    "..",
    "missing.bin",
    "C:\\x",
    "a/../../secret.bin",
):
    case(f"external data in {location!r}", "OnnxError")(lambda folder, at=location: external(folder, at))


@case("external data in a pipe", "OnnxError", "not a plain file")
def _external_pipe(folder: Path) -> Path:
    os.mkfifo(folder / "pipe")
    return external(folder, "pipe")


@case("external data by a link", "OnnxError", "leads out")
def _external_link(folder: Path) -> Path:
    (folder / "link").symlink_to("/etc/hostname")
    return external(folder, "link")


@case("external data of 2^60 bytes", "OnnxError", "does not hold")
def _external_length(folder: Path) -> Path:
    (folder / "w.bin").write_bytes(bytes(8))
    return external(folder, "w.bin", length=str(2**60))


@case("external data at -4", "OnnxError", "offset")
def _external_offset(folder: Path) -> Path:
    (folder / "w.bin").write_bytes(bytes(8))
    return external(folder, "w.bin", offset="-4")


@case("external data, other attributes", "")
def _external_injection(folder: Path) -> Path:
    (folder / "w.bin").write_bytes(bytes(8))
    return external(folder, "w.bin", __class__="os.system", basepath="/etc", checksum="0")
