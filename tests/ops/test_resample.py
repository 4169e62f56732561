"""Resampling, selection, reduction and pool ops on generated models, against onnxruntime."""

from fractions import Fraction
from typing import Any

import numpy as np
import onnxruntime
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.onnx import import_model
from lpverify.ops.resample import AxisMap

fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.filter_too_much])
EMPTY = np.zeros(0, np.float32)
Constants = list[np.ndarray | None]


def _model(
    op: str, x: np.ndarray, constants: Constants, opset: int, place: int = 0, **attributes: Any
) -> bytes:
    """One node; `x` is its operand number `place`, the others are constants."""
    names = [f"c{i}" if c is not None else "" for i, c in enumerate(constants)]
    node = helper.make_node(op, [*names[:place], "x", *names[place:]], ["y"], **attributes)
    graph = helper.make_graph(
        [node],
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(c, f"c{i}") for i, c in enumerate(constants) if c is not None],
    )
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=8).SerializeToString()


def _expected(data: bytes, x: np.ndarray) -> np.ndarray | None:
    """What onnxruntime computes; None where it refuses."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        return np.asarray(session.run(None, {"x": x})[0])
    except Exception:  # noqa: BLE001  (onnxruntime's types have no common base)
        return None


def _agrees(
    op: str, x: np.ndarray, constants: Constants, opset: int, place: int = 0, **attributes: Any
) -> bool:
    """Imports and compares; False where either side refuses."""
    data = _model(op, x, constants, opset, place, **attributes)
    expected = _expected(data, x)
    try:
        model = import_model(data)
    except (UnsupportedError, OnnxError):
        return False
    if expected is None:
        return False
    assert model.outputs.shapes == (expected.shape,)
    result = model.network(x.reshape(1, -1).astype(np.float64))[0]
    np.testing.assert_allclose(result, expected.reshape(-1), rtol=1e-4, atol=1e-5)
    return True


def _normal(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def _integers(data: st.DataObject, count: int, low: int, high: int) -> list[int]:
    return [data.draw(st.integers(low, high)) for _ in range(count)]


@given(
    data=st.data(), rank=st.integers(1, 3), groups=st.sampled_from([1, 2]), opset=st.sampled_from([1, 11, 22])
)
@fuzz
def test_conv_transpose(data: st.DataObject, rank: int, groups: int, opset: int) -> None:
    size, kernel = _integers(data, rank, 1, 4), _integers(data, rank, 1, 3)
    stride, dilation = _integers(data, rank, 1, 3), _integers(data, rank, 1, 2)
    attributes: dict[str, Any] = {"strides": stride, "dilations": dilation, "group": groups}
    attributes["output_padding"] = [data.draw(st.integers(0, s - 1)) for s in stride]
    form = data.draw(st.sampled_from(["pads", "shape", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if form == "pads":
        attributes["pads"] = _integers(data, 2 * rank, 0, 2)
    elif form == "shape":
        full = [
            s * (n - 1) + d * (k - 1) + 1 for n, k, s, d in zip(size, kernel, stride, dilation, strict=True)
        ]
        attributes["output_shape"] = [max(n + data.draw(st.integers(-2, 1)), 1) for n in full]
        attributes["auto_pad"] = data.draw(st.sampled_from(["NOTSET", "SAME_UPPER"]))
    else:
        attributes["auto_pad"] = form
    weight, bias = _normal(1, 4, 3, *kernel), _normal(2, 3 * groups)
    constants: Constants = [weight, bias] if data.draw(st.booleans()) else [weight]
    assume(_agrees("ConvTranspose", _normal(0, 2, 4, *size), constants, max(opset, 7), **attributes))


TRANSFORMATIONS = [
    ("half_pixel", 11),
    ("half_pixel_symmetric", 19),
    ("pytorch_half_pixel", 13),
    ("asymmetric", 18),
    ("align_corners", 13),
    ("tf_crop_and_resize", 13),
]


@pytest.mark.parametrize("mode", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(("transformation", "opset"), TRANSFORMATIONS)
@given(
    size=st.integers(1, 7),
    length=st.integers(1, 10),
    scale=st.sampled_from([0.5, 0.6, 0.75, 1.0, 1.5, 2.0, 2.3, 3.0, None]),
    nearest=st.sampled_from(["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]),
    outside=st.booleans(),
)
@fuzz
def test_resize(
    mode: str,
    transformation: str,
    opset: int,
    size: int,
    length: int,
    scale: float | None,
    nearest: str,
    outside: bool,
) -> None:
    attributes: dict[str, Any] = {"mode": mode, "coordinate_transformation_mode": transformation}
    if mode == "nearest":
        attributes["nearest_mode"] = nearest
    if mode == "cubic":
        attributes["exclude_outside"] = int(outside)
    roi = EMPTY
    if transformation == "tf_crop_and_resize":
        scale, attributes["extrapolation_value"] = None, 7.5
        roi = np.array([0, 0, 0.25, 0, 1, 1, 1.3 if outside else 0.8, 1], np.float32)
    x = _normal(0, 1, 2, size, 4)
    if scale is None:
        constants: Constants = [roi, EMPTY, np.array([1, 2, length, 3])]
    else:
        constants = [roi, np.array([1, 1, scale, 1.5], np.float32)]
    assume(_agrees("Resize", x, constants, opset, **attributes))


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("op", "opset"), [("Upsample", 7), ("Upsample", 9), ("Resize", 10)])
@given(size=st.integers(1, 5), scale=st.sampled_from([0.5, 1.0, 1.5, 2.0, 2.3, 3.0]))
@fuzz
def test_upsample(mode: str, op: str, opset: int, size: int, scale: float) -> None:
    scales = np.array([1, 1, scale, 1.5], np.float32)
    attributes: dict[str, Any] = {"mode": mode}
    if opset == 7:
        attributes["scales"] = scales.tolist()
    assume(_agrees(op, _normal(0, 1, 2, size, 4), [] if opset == 7 else [scales], opset, **attributes))


@pytest.mark.parametrize("policy", ["not_larger", "not_smaller"])
@pytest.mark.parametrize("sizes", [(7, 8), (2, 9), (3, 3), (6, 4)])
def test_resize_keeps_the_aspect_ratio(policy: str, sizes: tuple[int, int]) -> None:
    constants: Constants = [None, None, np.array(sizes)]
    assert _agrees(
        "Resize",
        _normal(0, 1, 2, 3, 4),
        constants,
        19,
        mode="linear",
        keep_aspect_ratio_policy=policy,
        axes=[2, 3],
    )


@given(size=st.integers(1, 9), length=st.integers(1, 13))
@fuzz
def test_interpolation_weights_are_within_their_declared_error(size: int, length: int) -> None:
    """Linear mode, half_pixel: recomputed here in rationals."""
    x = _normal(0, size)
    data = _model("Resize", x, [None, None, np.array([length])], 13, mode="linear")
    ops = [node.op for node in import_model(data).network.nodes if isinstance(node.op, AxisMap)]
    for op in ops:
        for i in range(length):
            at = Fraction(2 * i + 1, 2) * Fraction(size, length) - Fraction(1, 2)
            at = min(max(at, Fraction(0)), Fraction(size - 1))
            for j in range(size):
                exact, weight = max(1 - abs(at - j), Fraction(0)), Fraction(float(op.weight[i, j]))
                assert abs(weight - exact) <= Fraction(op.weight_error) * abs(weight)


@pytest.mark.parametrize("mode", ["DCR", "CRD"])
def test_depth_to_space(mode: str) -> None:
    assert _agrees("DepthToSpace", _normal(0, 2, 8, 2, 3), [], 13, blocksize=2, mode=mode)


def test_space_to_depth() -> None:
    assert _agrees("SpaceToDepth", _normal(0, 2, 3, 4, 6), [], 13, blocksize=2)


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean"])
@given(axes=st.sets(st.integers(-3, 2), max_size=3), keep=st.booleans(), size=st.integers(1, 7))
@fuzz
def test_reductions(op: str, axes: set[int], keep: bool, size: int) -> None:
    axes = {a % 3 for a in axes}
    attributes: dict[str, Any] = {"keepdims": int(keep)}
    if axes:
        attributes["axes"] = sorted(axes)
    assume(_agrees(op, _normal(0, 2, size, 3), [], 11, **attributes))


def test_global_max_pool() -> None:
    assert _agrees("GlobalMaxPool", _normal(0, 2, 3, 5, 4), [], 7)


def test_mean() -> None:
    assert _agrees("Mean", _normal(0, 2, 3), [_normal(1, 3), _normal(2, 2, 1)], 13)


@given(data=st.data())
@fuzz
def test_gathers(data: st.DataObject) -> None:
    x = _normal(0, 3, 2, 4)
    axis = data.draw(st.integers(-3, 2))
    shape = (data.draw(st.integers(1, 3)), 2, data.draw(st.integers(1, 4)))
    shape = tuple(4 if i == axis % 3 else n for i, n in enumerate(shape))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    indices = rng.integers(-x.shape[axis], x.shape[axis], shape)
    assume(_agrees("GatherElements", x, [indices], 13, axis=axis))
    assume(_agrees("Gather", x, [indices], 13, axis=axis))


@pytest.mark.parametrize(
    ("batch", "indices"),
    [(0, [[0, 1], [2, -1]]), (0, [[[1]], [[0]]]), (1, [[1], [0], [-1]]), (1, [[[1, 3]], [[0, 0]], [[1, 2]]])],
)
def test_gather_nd(batch: int, indices: list[Any]) -> None:
    assert _agrees("GatherND", _normal(0, 3, 2, 4), [np.array(indices)], 12, batch_dims=batch)


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize(
    ("op", "indices", "attributes"),
    [("ScatterElements", [[0, -1, 2], [1, 0, 3]], {"axis": 0}), ("ScatterND", [[3], [1]], {})],
)
def test_scatters_with_one_constant_operand(
    op: str, indices: list[Any], attributes: dict[str, Any], place: int
) -> None:
    """The computed operand is the data, or what is written into it."""
    operands = [_normal(0, 4, 3), _normal(1, 2, 3)]
    x = operands.pop(place // 2)
    operands.insert(place // 2, np.array(indices))
    assert _agrees(op, x, [*operands], 13, place, **attributes)


@pytest.mark.parametrize("place", [1, 2])
def test_where_with_a_constant_condition(place: int) -> None:
    operands = [np.array([True, False, True]), _normal(0, 4, 1), _normal(1, 4, 3)]
    x = operands.pop(place)
    assert _agrees("Where", x, [*operands], 13, place)


def test_a_scatter_with_duplicates_is_refused() -> None:
    data = _model("ScatterND", _normal(0, 4), [np.array([[1], [1]]), _normal(1, 2)], 13)
    with pytest.raises(UnsupportedError, match="duplicate"):
        import_model(data)


@pytest.mark.parametrize("attributes", [{"antialias": 1, "mode": "linear"}, {"mode": "bogus"}])
def test_resize_refuses_what_it_does_not_know(attributes: dict[str, Any]) -> None:
    data = _model("Resize", _normal(0, 1, 1, 4), [None, None, np.array([1, 1, 2])], 18, **attributes)
    with pytest.raises(UnsupportedError):
        import_model(data)


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "wrap"])
@given(pads=st.lists(st.integers(-1, 2), min_size=4, max_size=4), fill=st.booleans())
@fuzz
def test_pad(mode: str, pads: list[int], fill: bool) -> None:
    constants: Constants = [np.array(pads)]
    if fill and mode == "constant":
        constants.append(np.array(2.5, np.float32))
    assume(_agrees("Pad", _normal(0, 3, 4), constants, 19, mode=mode))


@pytest.mark.parametrize(
    ("op", "opset"), [("MaxPool", 8), ("MaxPool", 12), ("AveragePool", 10), ("AveragePool", 19)]
)
@given(
    data=st.data(),
    rank=st.integers(1, 2),
    form=st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]),
)
@fuzz
def test_pools(op: str, opset: int, data: st.DataObject, rank: int, form: str) -> None:
    kernel = _integers(data, rank, 1, 3)
    attributes: dict[str, Any] = {
        "kernel_shape": kernel,
        "strides": _integers(data, rank, 1, 3),
        "auto_pad": form,
    }
    if form == "NOTSET":
        attributes["pads"] = _integers(data, 2 * rank, 0, 2)
    if opset in (12, 19):
        attributes["dilations"] = _integers(data, rank, 1, 2)
    if opset >= 10:
        attributes["ceil_mode"] = data.draw(st.integers(0, 1))
    if op == "AveragePool":
        attributes["count_include_pad"] = data.draw(st.integers(0, 1))
    assume(_agrees(op, _normal(0, 1, 2, *_integers(data, rank, 1, 7)), [], opset, **attributes))


@given(data=st.data(), rank=st.integers(1, 3), groups=st.sampled_from([1, 2]))
@fuzz
def test_conv(data: st.DataObject, rank: int, groups: int) -> None:
    attributes: dict[str, Any] = {"strides": _integers(data, rank, 1, 3), "group": groups}
    attributes["auto_pad"] = data.draw(st.sampled_from(["NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"]))
    if attributes["auto_pad"] == "NOTSET":
        attributes["pads"] = _integers(data, 2 * rank, 0, 2)
        attributes["dilations"] = _integers(data, rank, 1, 2)
    weight = _normal(1, 2 * groups, 4 // groups, *_integers(data, rank, 1, 3))
    assume(
        _agrees(
            "Conv",
            _normal(0, 2, 4, *_integers(data, rank, 1, 6)),
            [weight, _normal(2, 2 * groups)],
            11,
            **attributes,
        )
    )


@pytest.mark.parametrize("place", [0, 1])
@given(
    transposed=st.tuples(st.booleans(), st.booleans()),
    alpha=st.sampled_from([1.0, 0.5, -0.3]),
    scalar=st.booleans(),
)
@fuzz
def test_gemm(place: int, transposed: tuple[bool, bool], alpha: float, scalar: bool) -> None:
    shapes = [
        (2, 3)[:: -1 if transposed[0] else 1],
        (3, 4)[:: -1 if transposed[1] else 1],
        () if scalar else (4,),
    ]
    operands = [_normal(i, *shape) for i, shape in enumerate(shapes)]
    x = operands.pop(place)
    constants: Constants = [*operands]
    attributes = {"transA": int(transposed[0]), "transB": int(transposed[1]), "alpha": alpha, "beta": 0.7}
    assume(_agrees("Gemm", x, constants, 13, place, **attributes))
