"""Tensors in other files: read from the model's folder, and from nowhere else."""

import gzip
import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from helpers import graph_proto, model_proto, runtime_outputs
from onnx import TensorProto, helper, numpy_helper

import lpverify
from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.onnx import import_model, load_model

posix = pytest.mark.skipif(os.name != "posix", reason="links and pipes")
WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2) - 2.5
PROPERTY = """(declare-const X_0 Real)(declare-const X_1 Real)(declare-const X_2 Real)
(declare-const Y_0 Real)(declare-const Y_1 Real)
(assert (and (>= X_0 0) (<= X_0 1) (>= X_1 0) (<= X_1 1) (>= X_2 0) (<= X_2 1)))
(assert (>= Y_0 {}))"""


def external(name: str, array: np.ndarray, **entries: str) -> TensorProto:
    """A tensor whose numbers are elsewhere."""
    kind = helper.np_dtype_to_tensor_dtype(array.dtype)
    tensor = TensorProto(name=name, dims=array.shape, data_type=kind, data_location=TensorProto.EXTERNAL)
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return tensor


def model_with(tensor: TensorProto) -> Any:
    """y = x w with w as given."""
    graph = graph_proto([helper.make_node("MatMul", ["x", "w"], ["y"])], {"x": (1, [1, 3])}, {"y": 1})
    graph.initializer.append(tensor)
    return model_proto(graph)


def save(folder: Path, tensor: TensorProto, name: str = "model.onnx") -> Path:
    (folder / name).write_bytes(model_with(tensor).SerializeToString())
    return folder / name


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder `net` with weights, next to a secret."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "weights.bin").write_bytes(b"****" + WEIGHT.tobytes() + b"****")
    (tmp_path / "secret.bin").write_bytes(WEIGHT.tobytes())
    return tmp_path / "net"


def good() -> TensorProto:
    return external("w", WEIGHT, location="weights.bin", offset="4", length="24")


def test_weights_are_read_and_replayed(folder: Path) -> None:
    path = save(folder, good())
    model = load_model(path)
    x = np.array([[1.0, 0.5, -2.0]])
    np.testing.assert_array_equal(model.network(x), x @ WEIGHT)
    np.testing.assert_allclose(runtime_outputs(model.serialized, {"x": x.astype(np.float32)})[0], x @ WEIGHT)
    (folder / "p.vnnlib").write_text(PROPERTY.format("1.4"))
    result = lpverify.verify(str(path), str(folder / "p.vnnlib"))
    assert result.verdict == "sat"
    (folder / "p.vnnlib").write_text(PROPERTY.format("1.6"))
    assert lpverify.verify(str(path), str(folder / "p.vnnlib")).verdict == "unsat"


def test_a_packed_model_and_a_folder_below(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "data").mkdir()
    (folder / "data" / "w").write_bytes(WEIGHT.tobytes())
    data = model_with(external("w", WEIGHT, location="data/w")).SerializeToString()
    (folder / "model.onnx.gz").write_bytes(gzip.compress(data))
    np.testing.assert_array_equal(load_model(folder / "model.onnx.gz").network(np.eye(3)), WEIGHT)
    monkeypatch.chdir(folder)
    np.testing.assert_array_equal(load_model("model.onnx.gz").network(np.eye(3)), WEIGHT)


def test_what_onnx_itself_writes(folder: Path) -> None:
    proto = model_with(numpy_helper.from_array(WEIGHT, "w"))
    onnx.save(proto, folder / "m.onnx", save_as_external_data=True, location="all.data", size_threshold=0)
    assert load_model(folder / "m.onnx").network(np.eye(3)).tolist() == WEIGHT.tolist()


def test_constants_of_nodes_branches_and_functions(folder: Path) -> None:
    def constant(name: str) -> Any:
        return helper.make_node("Constant", [], [name], value=good())

    branch = graph_proto([constant("b")], {}, {"b": 1})
    function = helper.make_function("own", "F", [], ["f"], [constant("f")], [helper.make_opsetid("", 18)])
    nodes = [
        constant("a"),
        helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch),
        helper.make_node("F", [], ["e"], domain="own"),
        helper.make_node("Sum", ["a", "d", "e"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    graph = graph_proto(nodes, {"x": (1, [1, 3])}, {"y": 1}, {"c": np.array(True)})
    (folder / "m.onnx").write_bytes(model_proto(graph, functions=(function,)).SerializeToString())
    model = load_model(folder / "m.onnx")
    np.testing.assert_array_equal(model.network(np.eye(3)), 3 * WEIGHT)
    assert b"weights.bin" not in model.serialized


def test_a_model_without_external_data_is_kept_as_it_is(folder: Path) -> None:
    path = save(folder, numpy_helper.from_array(WEIGHT, "w"))
    assert load_model(path).serialized == path.read_bytes()


def test_bytes_have_no_folder() -> None:
    data = model_with(good()).SerializeToString()
    with pytest.raises(OnnxError, match="without a folder"):
        import_model(data)


def refuse(folder: Path, message: str, **entries: str) -> None:
    with pytest.raises(OnnxError, match=message):
        load_model(save(folder, external("w", WEIGHT, **entries)))


@pytest.mark.parametrize(
    "location",
    [
        "../secret.bin",
        "data/../../secret.bin",
        "./../secret.bin",
        "..\\secret.bin",
        "C:\\secret.bin",
        "C:secret.bin",
        "\\\\host\\share\\secret.bin",
        "/etc/passwd",
        "//etc/passwd",
        "..",
        "",
        ".",
        "weights.bin\0.txt",
    ],
)
def test_other_folders_are_not_read(folder: Path, location: str) -> None:
    (folder / "data").mkdir()
    refuse(folder, "not inside|not a plain file", location=location)
    refuse(folder, "not inside|not a plain file", location=str(folder.parent / "secret.bin"))


@posix
def test_links(folder: Path) -> None:
    (folder / "out").symlink_to(folder.parent / "secret.bin")
    (folder / "up").symlink_to(folder.parent)
    (folder / "loop").symlink_to(folder / "loop")
    os.link(folder.parent / "secret.bin", folder / "hard")
    refuse(folder, "leads out", location="out")
    refuse(folder, "leads out", location="up/secret.bin")
    refuse(folder, "can't be read", location="loop")
    refuse(folder, "not a plain file", location="hard")
    (folder / "in").symlink_to(folder / "weights.bin")
    load_model(save(folder, external("w", WEIGHT, location="in", offset="4", length="24")))
    (folder.parent / "linked.onnx").symlink_to(save(folder, good()))  # then the folder is that of the link
    with pytest.raises(OnnxError, match="can't be read"):
        load_model(folder.parent / "linked.onnx")
    (folder.parent / "alias").symlink_to(folder)
    load_model(folder.parent / "alias" / "model.onnx")


@posix
def test_what_is_not_a_file(folder: Path) -> None:
    os.mkfifo(folder / "pipe")
    (folder / "data").mkdir()
    refuse(folder, "not a plain file", location="pipe")
    refuse(folder, "not a plain file", location="data")
    refuse(folder, "can't be read", location="missing")
    refuse(folder, "can't be read", location="weights.bin/w")
    refuse(folder, "not inside", offset="4")


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": "10"},
        {"offset": "4", "length": "20"},
        {"offset": "4", "length": "28"},
        {"offset": "12", "length": "24"},
        {"offset": "9223372036854775807", "length": "24"},
        {"length": "24", "offset": "1000"},
        {},
    ],
)
def test_places_that_do_not_fit(folder: Path, entries: dict[str, str]) -> None:
    refuse(folder, "does not hold its 24 bytes", location="weights.bin", **entries)


@pytest.mark.parametrize("number", ["-4", "4.0", "0x4", "", " 4", "٤", "9" * 30, "four"])
def test_places_that_are_no_numbers(folder: Path, number: str) -> None:
    refuse(folder, "of its external data is", location="weights.bin", offset=number)
    refuse(folder, "of its external data is", location="weights.bin", length=number, offset="4")


def test_malformed_descriptions(folder: Path) -> None:
    tensor = good()
    tensor.external_data.add(key="location", value="../secret.bin")
    with pytest.raises(OnnxError, match="twice"):
        load_model(save(folder, tensor))
    tensor = good()
    tensor.external_data.add(key="__class__", value="x")  # unknown ones have no effect
    load_model(save(folder, tensor))


@pytest.mark.parametrize("dims", [[2**40], [2**62, 2**62], [3, 2**31]])
def test_huge_tensors(folder: Path, dims: list[int]) -> None:
    tensor = good()
    tensor.dims[:] = dims
    with pytest.raises(UnsupportedError, match="with its external files"):
        load_model(save(folder, tensor))


def test_negative_sizes_and_other_types(folder: Path) -> None:
    tensor = good()
    tensor.dims[:] = [-3, -2]
    with pytest.raises(OnnxError, match="impossible shape"):
        load_model(save(folder, tensor))
    tensor = good()
    tensor.data_type = TensorProto.STRING
    with pytest.raises(UnsupportedError, match="element type 8"):
        load_model(save(folder, tensor))
