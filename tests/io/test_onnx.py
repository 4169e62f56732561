"""The importer: element types, opsets, domains, initializers, and files that are not what they seem."""

import time
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from helpers import agrees, graph_proto, model_proto, refused
from onnx import TensorProto, helper, numpy_helper

from lpverify.errors import LpverifyError, OnnxError, UnsupportedError
from lpverify.io.element_types import NAMES, numpy_type
from lpverify.io.onnx import Model, Signature, import_model, load_model

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def imported(proto: Any) -> Model:
    return import_model(proto.SerializeToString(), "model.onnx")


def simple(opset: int = 18, **constants: np.ndarray) -> Any:
    """y = relu(x)."""
    graph = graph_proto([node("Relu", ["x"], ["y"])], {"x": (FLOAT, [1, 3])}, {"y": FLOAT}, constants)
    return model_proto(graph, opset)


# --- opsets, domains, versions ---


@pytest.mark.parametrize("opset", range(7, onnx.defs.onnx_opset_version() + 1))
def test_all_opsets_that_onnx_knows(opset: int) -> None:
    assert imported(simple(opset)).outputs.shapes == ((1, 3),)


@pytest.mark.parametrize("opset", [0, 1, 6, onnx.defs.onnx_opset_version() + 1, 2**62])
def test_other_opsets_are_refused_once(opset: int) -> None:
    proto = simple(opset)
    proto.graph.node.extend(node("Relu", ["x"], [f"z{i}"]) for i in range(5))
    refused(proto, UnsupportedError, rf"^model.onnx: opset {opset} is not supported, only 7 to \d+$")


def test_the_opset_must_be_given_once() -> None:
    proto = simple(18)
    proto.opset_import.add(domain="ai.onnx", version=18)
    imported(proto)
    proto.opset_import.add(domain="ai.onnx", version=17)
    refused(proto, OnnxError, "two versions")
    del proto.opset_import[:]
    refused(proto, OnnxError, "no version of the standard operators")


@pytest.mark.parametrize("version", [None, 0, -1, 3, 2**40])
def test_odd_versions_of_the_format(version: int | None) -> None:
    proto = simple()
    proto.ClearField("ir_version")
    if version is not None:
        proto.ir_version = version
    assert imported(proto).inputs.names == ("x",)


def test_operators_of_other_domains_are_listed() -> None:
    nodes = [
        node("Gelu", ["x"], ["a"], domain="com.microsoft"),
        node("Scaler", ["x"], ["b"], domain="ai.onnx.ml", name="scale"),
        node(
            "Gather", ["c", "c"], ["d"], domain="com.microsoft"
        ),  # of constants, and named like a standard one
        node("Det", ["a"], ["e"]),
        node("Relu", ["x"], ["y"], domain="ai.onnx"),
    ]
    proto = model_proto(graph_proto(nodes, {"x": (FLOAT, [2])}, {"y": FLOAT}, {"c": np.array([0, 1])}))
    proto.opset_import.add(domain="com.microsoft", version=1)
    with pytest.raises(UnsupportedError) as caught:
        imported(proto)
    first, *lines = str(caught.value).splitlines()
    assert "3 unsupported" in first
    names = ["com.microsoft.Gelu", "ai.onnx.ml.Scaler", "com.microsoft.Gather"]
    assert all(f"operator {name} is not supported" in line for name, line in zip(names, lines, strict=True))
    assert "node 1 'scale' (Scaler), opset 0" in lines[1]


# --- inputs and outputs ---


def test_names_that_other_modules_import() -> None:
    model = imported(simple())
    assert isinstance(model.inputs, Signature)
    assert model.inputs.tensors[0].part == slice(0, 3)


def test_sizes_that_are_open_count_as_one() -> None:
    graph = graph_proto([node("Relu", ["x"], ["y"])], {"x": (FLOAT, ["batch", None, 3])}, {"y": FLOAT})
    assert imported(model_proto(graph)).inputs.shapes == ((1, 1, 3),)


@pytest.mark.parametrize(
    ("shape", "error", "message"),
    [
        ([1, -3], OnnxError, "negative size"),
        ([1, 0], UnsupportedError, "no elements"),
        ([2**40, 2**40], UnsupportedError, "elements, more than"),
        (None, UnsupportedError, "has no shape"),
    ],
)
def test_impossible_inputs(shape: Any, error: type[Exception], message: str) -> None:
    refused(
        model_proto(graph_proto([node("Relu", ["x"], ["y"])], {"x": (FLOAT, shape)}, {"y": FLOAT})),
        error,
        message,
    )


def test_inputs_that_are_no_tensors_of_numbers() -> None:
    proto = simple()
    proto.graph.input[0].type.tensor_type.elem_type = TensorProto.STRING
    refused(proto, UnsupportedError, "input 'x': element type 8")
    proto.graph.input[0].type.CopyFrom(
        helper.make_sequence_type_proto(helper.make_tensor_type_proto(FLOAT, [1]))
    )
    refused(proto, UnsupportedError, "input 'x': element type 0")


def test_twins_and_missing_ends() -> None:
    proto = simple()
    proto.graph.input.append(proto.graph.input[0])
    refused(proto, OnnxError, "two inputs have one name")
    proto = simple()
    del proto.graph.output[:]
    refused(proto, OnnxError, "no output")
    proto = simple(x=np.zeros((1, 3), np.float32))
    refused(proto, OnnxError, "no input")
    proto = simple()
    proto.graph.output[0].name = "z"
    refused(proto, OnnxError, "'z' is used, but defined nowhere")


def test_outputs_that_are_inputs_or_constants() -> None:
    graph = graph_proto(
        [node("Neg", ["x"], ["y"])], {"x": (FLOAT, [2])}, {"y": FLOAT, "x": FLOAT, "c": FLOAT}
    )
    proto = model_proto(graph)
    proto.graph.initializer.append(numpy_helper.from_array(np.float32([7]), "c"))
    model = imported(proto)
    np.testing.assert_array_equal(model.network(np.array([[1.0, 2.0]])), [[-1, -2, 1, 2, 7]])
    assert model.outputs.shapes == ((2,), (2,), (1,))


def test_identity_of_everything() -> None:
    nodes = [
        node("Identity", ["c"], ["d"]),
        node("Identity", ["x"], ["z"]),
        node("Add", ["z", "d"], ["w"]),
        node("Identity", ["w"], ["y"]),
    ]
    agrees(model_proto(graph_proto(nodes, {"x": (FLOAT, [2])}, {"y": FLOAT}, {"c": np.float32([3])})))


# --- element types ---


@pytest.mark.parametrize("kind", sorted(NAMES))
def test_inputs_of_all_types(kind: int) -> None:
    proto = model_proto(graph_proto([node("Identity", ["x"], ["y"])], {"x": (kind, [2, 2])}, {"y": kind}))
    model = imported(proto)
    assert model.inputs.dtypes == model.outputs.dtypes == (numpy_type(NAMES[kind]),)
    assert np.dtype(model.inputs.dtypes[0]).name == NAMES[kind]


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_weights_of_all_floats_are_exact(dtype: Any) -> None:
    weight = np.random.default_rng(0).normal(size=(3, 2)).astype(dtype)
    kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
    nodes = [node("MatMul", ["x", "w"], ["z"]), node("Add", ["z", "b"], ["y"])]
    graph = graph_proto(nodes, {"x": (kind, [3, 3])}, {"y": kind}, {"w": weight, "b": weight[0]})
    model = imported(model_proto(graph, 22))
    expected = weight.astype(np.float64) + weight[0].astype(np.float64)
    np.testing.assert_array_equal(model.network(np.eye(3).reshape(1, 9))[0], expected.reshape(-1))
    assert model.outputs.dtypes == (dtype,)


@pytest.mark.parametrize(
    "dtype", [np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16, np.uint32, np.uint64]
)
def test_whole_weights_are_exact(dtype: Any) -> None:
    ends = [np.iinfo(dtype).min, min(int(np.iinfo(dtype).max), 2**53)]
    nodes = [node("Max", ["x", "w"], ["y"])]
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = graph_proto(nodes, {"x": (kind, [2])}, {"y": kind}, {"w": np.array(ends, dtype)})
    model = imported(model_proto(graph))
    low = float(np.iinfo(dtype).min)
    assert model.network(np.array([[low, low]]))[0].tolist() == [float(v) for v in ends]


@pytest.mark.parametrize("number", [2**53 + 1, -(2**53) - 1, 2**63 - 1])
def test_whole_numbers_that_are_no_floats_are_refused(number: int) -> None:
    for op_type in ("Add", "Max", "Mul"):
        graph = graph_proto(
            [node(op_type, ["x", "w"], ["y"])], {"x": (INT64, [2])}, {"y": INT64}, {"w": np.array([number])}
        )
        refused(model_proto(graph), UnsupportedError, "not exact as floats")
    nodes = [node("Concat", ["x", "w"], ["y"], axis=0)]
    graph = graph_proto(nodes, {"x": (INT64, [2])}, {"y": INT64}, {"w": np.array([number])})
    refused(model_proto(graph), UnsupportedError, "not exact as floats")
    output = graph_proto([], {"x": (INT64, [2])}, {"w": INT64}, {"w": np.array([number])})
    refused(model_proto(output), UnsupportedError, "not exact as floats")


def test_large_indices_are_no_values() -> None:
    nodes = [node("Slice", ["x", "zero", "end"], ["y"])]
    constants = {"zero": np.array([0]), "end": np.array([2**63 - 1])}
    for kind in (FLOAT, INT64):
        graph = graph_proto(nodes, {"x": (kind, [3])}, {"y": kind}, constants)
        assert imported(model_proto(graph)).outputs.shapes == ((3,),)
    power = graph_proto(
        nodes, {"x": (INT64, [3])}, {"y": INT64}, {**constants, "unused": np.array([2**53 + 1])}
    )
    imported(model_proto(power))


def test_large_powers_of_two_are_floats() -> None:
    graph = graph_proto(
        [node("Min", ["x", "w"], ["y"])], {"x": (INT64, [1])}, {"y": INT64}, {"w": np.array([2**60])}
    )
    assert imported(model_proto(graph)).network(np.array([[2.0**61]]))[0, 0] == 2.0**60


def test_all_results_of_one_type_are_whole() -> None:
    """A second result of Split is no less whole than the first: its quotient would be rounded."""
    nodes = [node("Split", ["x"], ["a", "b"], num_outputs=2), node("Sqrt", ["b"], ["y"])]
    refused(
        model_proto(graph_proto(nodes, {"x": (TensorProto.INT32, [2])}, {"y": FLOAT})),
        OnnxError,
        "unsupported type: tensor\\(int32\\)",
    )


def test_types_that_are_not_treated_matter_only_where_they_are_used() -> None:
    proto = simple()
    proto.graph.initializer.append(helper.make_tensor("s", TensorProto.STRING, [1], [b"text"]))
    imported(proto)
    proto.graph.node.append(node("Expand", ["s", "s"], ["t"], name="use"))
    refused(proto, UnsupportedError, r"node 1 'use' \(Expand\), opset 18: tensor 's': element type 8")
    proto.graph.node.pop()
    proto.graph.output.append(helper.make_tensor_value_info("s", TensorProto.STRING, [1]))
    refused(proto, UnsupportedError, "element type 8")


# --- initializers ---


def stored(tensor: TensorProto) -> Any:
    proto = simple()
    proto.graph.initializer.append(tensor)
    return proto


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        (TensorProto(name="w", data_type=FLOAT, dims=[2**40], raw_data=b"1234"), "impossible shape"),
        (TensorProto(name="w", data_type=FLOAT, dims=[2**20, 2**20, 2**24]), "impossible shape"),
        (TensorProto(name="w", data_type=FLOAT, dims=[-1], raw_data=b"1234"), "impossible shape"),
        (TensorProto(name="w", data_type=FLOAT, dims=[2**20], raw_data=b"1234"), "tensor 'w'"),
        (TensorProto(name="w", data_type=FLOAT, dims=[1], raw_data=b"12345"), "tensor 'w'"),
        (TensorProto(name="w", data_type=FLOAT, dims=[2]), "tensor 'w'"),
        (TensorProto(name="w", data_type=BOOL, dims=[2], raw_data=b"\1\2"), "truth values"),
        (TensorProto(name="w", data_type=FLOAT, dims=[1], float_data=[float("nan")]), "NaN"),
        (numpy_helper.from_array(np.array([np.nan], ml_dtypes.bfloat16), "w"), "NaN"),
    ],
)
def test_malformed_tensors(tensor: TensorProto, message: str) -> None:
    refused(stored(tensor), OnnxError, message)


def test_a_name_twice() -> None:
    proto = stored(numpy_helper.from_array(np.float32([1]), "w"))
    proto.graph.initializer.append(proto.graph.initializer[0])
    refused(proto, OnnxError, "'w' is defined twice")


def sparse(values: Any, indices: Any, dims: list[int]) -> Any:
    """x + w with a sparse w."""
    graph = graph_proto([node("Add", ["x", "w"], ["y"])], {"x": (FLOAT, [2, 3])}, {"y": FLOAT})
    tensor = graph.sparse_initializer.add(dims=dims)
    tensor.values.CopyFrom(numpy_helper.from_array(np.asarray(values, np.float32), "w"))
    tensor.indices.CopyFrom(numpy_helper.from_array(np.asarray(indices), "i"))
    return model_proto(graph)


@pytest.mark.parametrize("indices", [[1, 5], [[0, 1], [1, 2]]])
def test_sparse_initializers(indices: Any) -> None:
    model = agrees(sparse([2, 3], indices, [2, 3]))
    np.testing.assert_array_equal(model.network(np.zeros((1, 6)))[0], [0, 2, 0, 0, 0, 3])


@pytest.mark.parametrize(
    ("indices", "dims", "message"),
    [
        ([1, 6], [2, 3], "out of range"),
        ([-1, 5], [2, 3], "out of range"),
        ([[0, 1], [0, 3]], [2, 3], "out of range"),
        ([[0, 1], [-1, 0]], [2, 3], "out of range"),
        ([1, 1], [2, 3], "twice"),
        ([1], [2, 3], "malformed indices"),
        ([[1, 2, 3]], [2, 3], "malformed indices"),
        ([0.0, 1.0], [2, 3], "malformed indices"),
        ([0, 1], [2, -3], "impossible shape"),
        ([0, 1], [2**20, 2**20], "elements"),
    ],
)
def test_malformed_sparse_initializers(indices: Any, dims: list[int], message: str) -> None:
    refused(sparse([2, 3], indices, dims), LpverifyError, message)


# --- files ---


@pytest.mark.parametrize("data", [b"", b"\0" * 100, b"text", b"\x08\x08", b"\x1f\x8b\x08"])
def test_what_is_no_model(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "m.onnx").write_bytes(data)
    with pytest.raises(OnnxError, match=r"m\.onnx"):
        load_model(tmp_path / "m.onnx")


def test_damaged_models_end_in_our_errors() -> None:
    data = simple(w=np.ones((4, 4), np.float32)).SerializeToString()
    rng = np.random.default_rng(0)
    for _ in range(300):
        changed = bytearray(data)
        for position in rng.integers(0, len(data), 2):
            changed[position] = rng.integers(0, 256)
        try:
            import_model(bytes(changed), "m")
        except LpverifyError as error:
            assert str(error).startswith("m: ")


def test_subgraphs_that_nest_deeply() -> None:
    inner = graph_proto([node("Neg", ["x"], ["r"])], {}, {"r": FLOAT})
    for i in range(15):  # protobuf itself ends at about 30
        choice = node(
            "If", ["c"], [f"r{i}"], then_branch=inner, else_branch=graph_proto([], {}, {"x": FLOAT})
        )
        inner = graph_proto([choice], {}, {f"r{i}": FLOAT})
    graph = graph_proto(
        [node("If", ["c"], ["y"], then_branch=inner, else_branch=inner)],
        {"x": (FLOAT, [1])},
        {"y": FLOAT},
        {"c": np.array(True)},
    )
    try:
        assert imported(model_proto(graph)).outputs.shapes == ((1,),)
    except OnnxError as error:
        assert "not an ONNX file" in str(error)


def test_a_common_model_is_read_fast() -> None:
    rng = np.random.default_rng(0)
    nodes, constants, last = [], {}, "x"
    for i in range(200):
        constants[f"w{i}"] = rng.normal(size=(8, 8)).astype(np.float32)
        nodes += [node("MatMul", [last, f"w{i}"], [f"z{i}"]), node("Relu", [f"z{i}"], [f"x{i}"])]
        last = f"x{i}"
    data = model_proto(
        graph_proto(nodes, {"x": (FLOAT, [1, 8])}, {last: FLOAT}, constants)
    ).SerializeToString()
    import_model(data)
    start = time.monotonic()
    import_model(data)
    assert time.monotonic() - start < 1.0
