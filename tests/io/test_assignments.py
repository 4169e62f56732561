"""The variables of a witness, named and cut as the query declares them."""

import numpy as np
import onnx
import pytest
from helpers import random_dense
from networks import dense, header, saved, tensors, two_by_two
from onnx import numpy_helper

from lpverify.errors import InputError
from lpverify.io.assignments import check_folder, tensors_of, write_tensors
from lpverify.io.vnnlib import parse_query
from lpverify.models import Models
from lpverify.verdict import Witness


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    sources = {"f": saved(folder, "f", dense(0, (2, 3, 2))), "m": saved(folder, "m", two_by_two())}
    text = header(
        "f: " + tensors(["X float32 [1,2]"], ["Y float32 [1,2]"], ['H float32 [3,1] "h"']),
        "m: " + tensors(["A float32 [2]", "S float32 []"], ["P float32 [2]", "C int64 []", "B bool [2]"]),
    )
    query = parse_query(text + "(assert (<= X[0,0] 0.0))")
    return query, Models(sources).fitting(query).model


def test_places_and_types(fitted):
    rows = [(t.name, t.shape, t.start, np.dtype(t.dtype).name) for t in tensors_of(*fitted)]
    assert rows == [
        ("X", (1, 2), 0, "float32"),
        ("H", (3, 1), 5, "float32"),
        ("Y", (1, 2), 8, "float32"),
        ("A", (2,), 2, "float32"),
        ("S", (), 4, "float32"),
        ("P", (2,), 10, "float32"),
        ("C", (), 12, "int64"),
        ("B", (2,), 13, "bool"),
    ]


def test_version_1_has_two_tensors():
    model = random_dense(0, (2, 3, 4))
    query = parse_query(
        "".join(f"(declare-const X_{i} Real)" for i in range(2))
        + "".join(f"(declare-const Y_{i} Real)" for i in range(4))
        + "(assert (<= X_0 0))"
    )
    assert [(t.name, t.shape, t.start) for t in tensors_of(query, model)] == [
        ("X", (1, 2), 0),
        ("Y", (1, 4), 2),
    ]


def test_files_hold_the_numbers_in_the_models_types(fitted, tmp_path):
    inputs = np.arange(5, dtype=np.float32) / 3
    outputs = np.array([0.1, 0.2, 0.3, -1, 1e-45, 7, 8, 2**53, 1, 0])
    write_tensors(str(tmp_path / "new" / "one"), tensors_of(*fitted), Witness((), inputs, outputs))
    found = {}
    for path in (tmp_path / "new" / "one").iterdir():
        proto = onnx.TensorProto.FromString(path.read_bytes())
        assert proto.name == path.stem
        found[proto.name] = numpy_helper.to_array(proto)
    assert sorted(found) == ["A", "B", "C", "H", "P", "S", "X", "Y"]
    assert np.array_equal(found["X"], inputs[None, :2]) and found["X"].dtype == np.float32
    assert np.array_equal(found["A"], inputs[2:4]) and found["S"].shape == () and found["S"] == inputs[4]
    assert np.array_equal(found["H"], np.float32([[0.1], [0.2], [0.3]]))
    assert found["C"] == 2**53 and found["C"].dtype == np.int64
    assert found["B"].tolist() == [True, False] and found["Y"][0, 1] == np.float32(1e-45) > 0


def test_folders_that_cannot_be_written(tmp_path, fitted):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="file: can't write assignments"):
        check_folder(str(tmp_path / "file"))
    with pytest.raises(InputError, match="can't write the assignment"):
        write_tensors(str(tmp_path / "file"), tensors_of(*fitted), Witness((), np.zeros(5), np.zeros(10)))
    check_folder(str(tmp_path / "a" / "b"))
    assert (tmp_path / "a" / "b").is_dir()
