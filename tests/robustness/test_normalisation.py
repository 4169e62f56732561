"""A model with its normalisation in front against onnxruntime on inputs that were normalised before."""

import dataclasses
import itertools
from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, checker, external_data_helper, helper, numpy_helper

import lpverify
from lpverify.errors import InputError, UnsupportedError
from lpverify.io.limits import ModelLimits
from lpverify.io.onnx import import_model, load_model
from lpverify.io.runtime import runtime_of
from lpverify.loading import LoadedNetwork
from lpverify.robustness.data import normalisation
from lpverify.robustness.data.normalisation import normalised
from tests.helpers import runtime_outputs

RNG = np.random.default_rng(0)
KINDS = {
    TensorProto.FLOAT: np.float32,
    TensorProto.FLOAT16: np.float16,
}


def conv_proto(shape=("N", 3, 4, 5), opset=13, kind=TensorProto.FLOAT, listed=False, ir_version=8):
    """A convolution, ReLU and a sum over places; the weight may be listed among the inputs."""
    dtype = KINDS[kind]
    weight = numpy_helper.from_array(RNG.normal(size=(4, shape[1], 2, 2)).astype(dtype), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["z"]),
        helper.make_node("Relu", ["z"], ["a"]),
        helper.make_node("GlobalAveragePool", ["a"], ["m"]),
        helper.make_node("Flatten", ["m"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    if listed:
        inputs.insert(0, helper.make_tensor_value_info("w", kind, weight.dims))
    outputs = [helper.make_tensor_value_info("y", kind, [shape[0], 4])]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir_version)


def any_proto(nodes, shape, kind=TensorProto.FLOAT, opset=13, tensors=(), domains=(), functions=()):
    """A model from x to y."""
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    outputs = [helper.make_tensor_value_info("y", kind, [None] * len(shape))]
    graph = helper.make_graph(nodes, "g", inputs, outputs, list(tensors))
    imports = [helper.make_opsetid(d, v) for d, v in (domains or [("", opset)])]
    return helper.make_model(graph, opset_imports=imports, ir_version=8, functions=list(functions))


def along(values, axis, rank):
    """Numbers that broadcast along an axis."""
    values = np.asarray(values, np.float64)
    return values if values.size == 1 else values.reshape((-1, *[1] * (rank - 1 - axis)))


def compare(proto, mean, std, axis=1, model=None):
    """The normalised model, the original one and the network agree; returns the first."""
    original = proto.SerializeToString()
    model = import_model(original, "a.onnx") if model is None else model
    found = normalised(model, mean, std)
    checker.check_model(found.serialized)
    assert (found.path, found.inputs.shapes, found.inputs.dtypes) == (
        model.path,
        model.inputs.shapes,
        model.inputs.dtypes,
    )
    assert found.outputs == model.outputs
    [tensor], dtype = found.inputs.tensors, np.dtype(found.inputs.dtypes[0])
    loose = {np.dtype(np.float16): 2e-2}.get(dtype, 1e-5)
    shift, scale = (along(v, axis, len(tensor.shape)).astype(dtype) for v in (mean, std))
    for _ in range(3):
        x = RNG.uniform(0, 2, tensor.shape).astype(dtype)
        before = ((x - shift) / scale).astype(dtype)
        [expected] = runtime_outputs(original, {model.inputs.names[0]: before})
        result = runtime_of(found)(x.reshape(-1).astype(np.float64))
        np.testing.assert_allclose(result, expected.reshape(-1), rtol=loose, atol=loose)
        real = found.network(x.reshape(1, -1).astype(np.float64))[0]
        np.testing.assert_allclose(real, expected.reshape(-1), rtol=loose, atol=loose)
    return found


MEAN, STD = [0.5, -0.25, 0.1], [0.2, 3, 0.7]


@pytest.mark.parametrize("opset", [7, 8, 9, 11, 12, 13, 14, 18, 21])
def test_opsets(opset):
    compare(conv_proto(opset=opset, ir_version=10 if opset > 20 else 8), MEAN, STD)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("mean", "std"), [(MEAN, STD), (0.5, STD), (MEAN, 0.3), (0.1307, 0.3081), ([0], [1])]
)
def test_types_and_numbers(kind, mean, std):
    compare(conv_proto(kind=kind), mean, std)


def test_exact_numbers():
    mean, std = [Decimal("0.1"), Fraction(1, 3), 1], [Fraction(1, 7), Decimal("2.5"), np.float32(2)]
    found = compare(conv_proto(), np.asarray(mean, np.float64), np.asarray(std, np.float64))
    assert normalised(import_model(conv_proto().SerializeToString()), mean, std).inputs == found.inputs


@given(
    st.integers(1, 4).flatmap(
        lambda n: st.tuples(
            st.lists(st.floats(-300, 300, width=32), min_size=n, max_size=n),
            st.lists(st.floats(2**-7, 300, width=32), min_size=n, max_size=n),
        )
    )
)
@settings(max_examples=20, deadline=None)
def test_random_numbers_are_exact_in_the_network(numbers):
    mean, std = numbers
    proto = any_proto([helper.make_node("Identity", ["x"], ["y"])], ["N", len(mean)])
    found = normalised(import_model(proto.SerializeToString()), mean, std)
    x = RNG.uniform(0, 1, (1, len(mean)))
    exact = [
        (Fraction(v) - Fraction(m)) / Fraction(s) for v, m, s in zip(x[0].tolist(), mean, std, strict=True)
    ]
    np.testing.assert_allclose(found.network(x)[0], [float(v) for v in exact], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("shape", "count", "axis"),
    [
        ((3, 4, 5), 3, 0),
        ((1, 5), 5, 1),
        ((1, 4, 5, 3), 3, 3),
        ((1, 3, 4, 3), 3, 1),
        ((2, 6), 6, 1),
        ((7,), 1, 0),
    ],
)
def test_axis_of_channels(shape, count, axis):
    mean = RNG.normal(size=count)
    compare(any_proto([helper.make_node("Relu", ["x"], ["y"])], shape), mean, np.arange(1.0, count + 1), axis)


@pytest.mark.parametrize(("listed", "ir_version"), [(True, 8), (True, 3), (False, 8)])
def test_initializers_among_the_inputs(listed, ir_version):
    proto = conv_proto(opset=7, listed=listed, ir_version=ir_version)
    found = compare(proto, MEAN, STD)
    assert len(found.inputs.names) == 1


def test_open_sizes_stay_open():
    found = compare(conv_proto(), MEAN, STD)
    x = RNG.uniform(0, 1, (5, 3, 4, 5)).astype(np.float32)
    [five] = runtime_outputs(found.serialized, {found.inputs.names[0]: x})
    ones = [runtime_of(found)(v.reshape(-1).astype(np.float64)) for v in x]
    np.testing.assert_allclose(five, ones, rtol=1e-6, atol=1e-6)


def test_external_data(tmp_path):
    path, proto = tmp_path / "a.onnx", conv_proto()
    whole = onnx.ModelProto.FromString(proto.SerializeToString())
    external_data_helper.convert_model_to_external_data(proto, location="weights", size_threshold=0)
    onnx.save(proto, path)
    assert (tmp_path / "weights").exists()
    model = load_model(path)
    (tmp_path / "weights").unlink()
    assert compare(whole, MEAN, STD, model=model).path == str(path)


def test_as_if_loaded_from_a_file(tmp_path):
    found = compare(conv_proto(), MEAN, STD)
    (tmp_path / "a.onnx").write_bytes(found.serialized)
    loaded = load_model(tmp_path / "a.onnx")
    assert (loaded.inputs, loaded.outputs, loaded.node_count) == (
        found.inputs,
        found.outputs,
        found.node_count,
    )
    assert loaded.serialized == found.serialized
    again = normalised(found, 0.25, 2)
    x = RNG.uniform(0, 1, 60).astype(np.float32).astype(np.float64)
    expected = runtime_of(found)(((x - 0.25) / 2).astype(np.float32).astype(np.float64))
    np.testing.assert_allclose(runtime_of(again)(x), expected, rtol=1e-5, atol=1e-5)


def test_bounds_are_about_the_unit_of_the_data():
    found, centre = compare(conv_proto(), MEAN, STD), RNG.uniform(0, 1, 60).astype(np.float32)
    result = lpverify.bounds(LoadedNetwork(found), center=centre, eps=1 / 16, method="crown")
    for _ in range(100):
        x = centre + RNG.uniform(-1 / 16, 1 / 16, 60)
        y = found.network(x[None])[0]
        assert (result.lower <= y).all()
        assert (y <= result.upper).all()


def test_input_within_branches_and_functions():
    """A branch sees the input by its name; a function of that name has nothing to do with it."""
    condition = helper.make_tensor("c", TensorProto.BOOL, [], [True])
    branches = [
        helper.make_graph(
            [helper.make_node(op, ["x"], ["b"])], op, [], [helper.make_tensor_value_info("b", 1, None)]
        )
        for op in ("Relu", "Neg")
    ]
    inner = helper.make_node("Neg", ["x"], ["y"])
    function = helper.make_function("own", "F", ["x"], ["y"], [inner], [helper.make_opsetid("", 13)])
    nodes = [
        helper.make_node("If", ["c"], ["i"], then_branch=branches[0], else_branch=branches[1]),
        helper.make_node("F", ["x"], ["f"], domain="own"),
        helper.make_node("Sub", ["i", "f"], ["y"]),
    ]
    domains, functions = [("", 13), ("own", 1)], [function]
    compare(any_proto(nodes, [1, 4], tensors=[condition], domains=domains, functions=functions), 0.7, 0.3)


def test_models_without_standard_operators():
    inner = helper.make_node("Neg", ["x"], ["y"])
    function = helper.make_function("own", "F", ["x"], ["y"], [inner], [helper.make_opsetid("", 14)])
    nodes = [helper.make_node("F", ["x"], ["y"], domain="own")]
    compare(any_proto(nodes, [1, 4], domains=[("own", 1)], functions=[function]), 0.7, 0.3)


def test_standard_operators_by_their_long_name():
    compare(any_proto([helper.make_node("Relu", ["x"], ["y"])], [1, 4], domains=[("ai.onnx", 13)]), 0.7, 0.3)


def test_names_that_are_taken():
    names = ["x.raw", "x.raw_", "x.centred", "x.mean", "x.std"]
    nodes = [helper.make_node("Relu", [a], [b], b) for a, b in itertools.pairwise(["x", *names, "y"])]
    compare(any_proto(nodes, [1, 4]), 0.7, 0.3)


def test_bfloat16():
    proto = any_proto([helper.make_node("Identity", ["x"], ["y"])], [1, 3], TensorProto.BFLOAT16)
    found = normalised(import_model(proto.SerializeToString()), MEAN, STD)
    kept = [float(ml_dtypes.bfloat16(v)) for v in STD]
    np.testing.assert_allclose(found.network(np.zeros((1, 3)) + 0.5)[0][0], 0, atol=1e-12)
    steps = np.diff(found.network(np.array([[0.0] * 3, [1.0] * 3])), axis=0)[0]
    np.testing.assert_allclose(steps, 1 / np.array(kept), rtol=1e-12)


# --- what is refused ---


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        (0, 0, "std: expected numbers above 0 in float32, got 0"),
        (0, [1, -1, 1], "std: expected numbers above 0"),
        (0, 1e-60, "std: expected numbers above 0 in float32"),  # it is 0 there
        (0, 1e60, "std: expected finite numbers in float32"),
        (0, float("nan"), "std: expected finite numbers"),
        ([0, np.inf, 0], 1, "mean: expected finite numbers"),
        ([0, None, 0], 1, "mean: expected finite numbers"),
        ([0, 0], 1, "mean: 2 numbers, the input of shape (1, 3, 4, 5) has 3 channel(s)"),
        (0, [1] * 4, "std: 4 numbers, the input of shape (1, 3, 4, 5) has 3 channel(s)"),
        (0, [1] * 5, "std: 5 numbers"),
        ([], 1, "mean: expected finite numbers"),
        ([[0, 0, 0]], 1, "mean: expected finite numbers"),
        ("a", 1, "mean: expected a number"),
        ([1, [2]], 1, "mean: expected a number"),
    ],
)
def test_wrong_numbers(mean, std, message):
    model = import_model(conv_proto().SerializeToString())
    with pytest.raises(InputError) as caught:
        normalised(model, mean, std)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_inputs_without_channels():
    model = import_model(any_proto([helper.make_node("Relu", ["x"], ["y"])], [7]).SerializeToString())
    with pytest.raises(InputError, match="has no channels"):
        normalised(model, [0] * 7, 1)


def test_wrong_models():
    two = helper.make_graph(
        [helper.make_node("Add", ["x", "z"], ["y"])],
        "g",
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 3]) for n in "xz"],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3])],
    )
    proto = helper.make_model(two, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    with pytest.raises(InputError, match="has 2 inputs"):
        normalised(import_model(proto.SerializeToString()), 0, 1)
    whole = any_proto([helper.make_node("Identity", ["x"], ["y"])], [1, 3], TensorProto.UINT8)
    with pytest.raises(UnsupportedError, match=r"whole numbers \(uint8\)"):
        normalised(import_model(whole.SerializeToString()), 0, 1)
    model = import_model(conv_proto().SerializeToString())
    with pytest.raises(UnsupportedError, match="assembled"):
        normalised(dataclasses.replace(model, serialized=b""), 0, 1)
    with pytest.raises(InputError, match="more than 100 bytes"):
        normalised(model, 0, 1, ModelLimits(max_bytes=100))


def test_models_that_the_checker_refuses_anyway():
    """They are loaded without their normalisation as well."""
    proto = conv_proto()
    proto.graph.output[0].type.tensor_type.ClearField("shape")
    with pytest.raises(checker.ValidationError, match="shape"):
        checker.check_model(proto.SerializeToString())
    found = normalised(import_model(proto.SerializeToString()), 0, 1)
    x = RNG.uniform(0, 1, (1, 3, 4, 5)).astype(np.float32)
    [expected] = runtime_outputs(proto.SerializeToString(), {"x": x})
    np.testing.assert_array_equal(runtime_of(found)(x.reshape(-1).astype(np.float64)), expected.reshape(-1))


def test_results_that_are_malformed(monkeypatch):
    """Versions of the operators before 13 have no bfloat16; what the checker alone finds counts as well."""
    proto = any_proto([helper.make_node("Identity", ["x"], ["y"])], [1, 3], TensorProto.BFLOAT16, opset=12)
    with pytest.raises(InputError, match="bfloat16"):
        normalised(import_model(proto.SerializeToString()), MEAN, STD)
    original = conv_proto().SerializeToString()
    monkeypatch.setattr(normalisation, "_complaint", lambda data: "" if data == original else "it is odd")
    with pytest.raises(InputError, match="ONNX's checker refuses the model: it is odd"):
        normalised(import_model(original), MEAN, STD)


def test_deprecated_operators():
    """onnxruntime runs them and ONNX's checker refuses them."""
    scales = numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "s")
    nodes = [helper.make_node("Upsample", ["x", "s"], ["y"])]
    proto = any_proto(nodes, [1, 3, 2, 2], opset=9, tensors=[scales])
    found = normalised(import_model(proto.SerializeToString()), MEAN, 1)
    x = RNG.uniform(0, 1, 12).astype(np.float32).astype(np.float64)
    expected = (x.reshape(3, 2, 2) - np.reshape(MEAN, (3, 1, 1))).repeat(2, 1).repeat(2, 2)
    np.testing.assert_allclose(runtime_of(found)(x), expected.reshape(-1), rtol=1e-5, atol=1e-6)
