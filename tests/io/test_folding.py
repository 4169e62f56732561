"""Constant subgraphs: exact, or with a bound on their rounding, or refused."""

from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lpverify.errors import OnnxError, UnsupportedError
from lpverify.io.folding import fold
from lpverify.io.onnx import import_model
from lpverify.ops.base import Constant

EPS = 2.0**-40


def _fold(op: str, *operands: Constant, opset: int = 18, **attributes: Any) -> Constant:
    names = [f"i{k}" for k in range(len(operands))]
    node = helper.make_node(op, names, ["o"], **attributes)
    return fold(node, dict(zip(names, operands, strict=True)), opset, lambda t, _: numpy_helper.to_array(t))[
        "o"
    ]


def _constant(*values: float, error: float = 0.0) -> Constant:
    return Constant(np.array(values, np.float64 if error else np.float32), error)


def _exact(op: str, a: Fraction, b: Fraction) -> Fraction:
    return {"Add": a + b, "Sub": a - b, "Mul": a * b, "Div": a / b}[op]


@pytest.mark.parametrize("op", ["Add", "Sub", "Mul", "Div"])
@pytest.mark.parametrize("signs", [(1, 1), (1, -1), (-1, 1), (-1, -1)])
def test_arithmetic_covers_the_errors_of_its_operands(op: str, signs: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=50), rng.normal(size=50)
    result = _fold(op, _constant(*a, error=EPS), _constant(*b, error=2 * EPS))
    for x, y, z in zip(a, b, result.array, strict=True):
        first = Fraction(x) * (1 + signs[0] * Fraction(EPS))
        second = Fraction(y) * (1 + signs[1] * 2 * Fraction(EPS))
        exact = _exact(op, first, second)
        assert abs(exact - Fraction(float(z))) <= Fraction(result.error) * abs(Fraction(float(z)))


def test_a_matrix_product_covers_its_rounding() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(4, 9)), rng.normal(size=(9, 3))
    result = _fold("MatMul", Constant(a, EPS), Constant(b))
    exact = np.array(
        [[sum(Fraction(x) * Fraction(y) for x, y in zip(r, c, strict=True)) for c in b.T] for r in a]
    )
    for value, z in zip((exact * (1 + Fraction(EPS))).flat, result.array.flat, strict=True):
        assert abs(value - Fraction(float(z))) <= Fraction(result.error) * abs(Fraction(float(z)))


@pytest.mark.parametrize(
    ("op", "operands", "attributes"),
    [
        ("Floor", [_constant(2.0, error=EPS)], {}),
        ("Sign", [_constant(1e-20, error=EPS)], {}),
        ("Cast", [_constant(2.5, error=EPS)], {"to": TensorProto.INT64}),
        ("Cast", [_constant(2.5, error=EPS)], {"to": TensorProto.FLOAT16}),
        ("Less", [_constant(1.0, error=EPS), _constant(2.0)], {}),
        ("Range", [Constant(np.float32(v)) for v in (0.0, 1.0, 0.1)], {}),
        ("ScatterND", [_constant(1, 2), Constant(np.array([[0]])), _constant(3)], {"reduction": "add"}),
        ("RandomNormal", [], {"shape": [2]}),
        ("HannWindow", [Constant(np.array(5))], {}),
        ("Exp", [_constant(1.0)], {}),
        ("Sub", [_constant(1.0, error=EPS), _constant(1.0)], {}),
        ("Div", [_constant(1.0), _constant(0.0)], {}),
        ("Mul", [Constant(np.array([1e-200])), Constant(np.array([1e-200]))], {}),
        ("QuantizeLinear", [_constant(1.0, error=EPS), _constant(1.0)], {}),
        ("QuantizeLinear", [_constant(1.0), _constant(0.0)], {}),
        ("QuantizeLinear", [_constant(1.0), _constant(1.0)], {"output_dtype": TensorProto.INT32}),
        ("DequantizeLinear", [Constant(np.array([1])), _constant(1.0)], {}),
    ],
)
def test_untracked_rounding_is_refused(op: str, operands: list[Constant], attributes: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedError):
        _fold(op, *operands, **attributes)


@pytest.mark.parametrize("kind", [np.int8, np.uint8, np.int16, np.uint16, np.int32])
def test_dequantised_weights_are_exact_or_cover_their_rounding(kind: type) -> None:
    rng = np.random.default_rng(0)
    ends = np.iinfo(kind)
    q, scale = rng.integers(ends.min, ends.max, 50).astype(kind), np.float32(0.0123456789)
    zero = np.array(0 if kind is np.int32 else ends.max // 3, kind)
    result = _fold("DequantizeLinear", Constant(q), Constant(np.array(scale)), Constant(zero))
    assert (result.error == 0) == (kind is not np.int32)
    for number, found in zip(q.tolist(), result.array.tolist(), strict=True):
        exact = (number - int(zero)) * Fraction(float(scale))
        assert abs(exact - Fraction(found)) <= Fraction(result.error) * abs(Fraction(found))


def test_dequantised_weights_have_the_error_of_their_scale() -> None:
    q, scale = Constant(np.array([-3, 5], np.int8)), _fold("Div", _constant(1.0), _constant(3.0))
    result = _fold("DequantizeLinear", q, Constant(scale.array.reshape(()), scale.error))
    for number, found in zip((-3, 5), result.array.tolist(), strict=True):
        assert abs(Fraction(number, 3) - Fraction(found)) <= Fraction(result.error) * abs(Fraction(found))


def test_scales_of_an_axis_are_spread() -> None:
    q = Constant(np.array([[1, 2, 3], [4, 5, 6]], np.int8))
    result = _fold("DequantizeLinear", q, _constant(1.0, 2.0), axis=0)
    np.testing.assert_array_equal(result.array, [[1, 2, 3], [8, 10, 12]])


def test_quantised_constants_are_rounded_exactly() -> None:
    """Also where the quotient of floats is a tie and the exact one is next to it."""
    scale = np.float32(0.1)
    x = np.array([0.25, 0.35, -0.05, 0.15, 1e9, -1e9, 0.3], np.float32)
    zero = np.array(10, np.int8)
    result = _fold("QuantizeLinear", Constant(x), Constant(np.array(scale)), Constant(zero))
    exact = [round(Fraction(float(v)) / Fraction(float(scale))) + 10 for v in x]
    assert result.array.dtype == np.int8
    assert result.array.tolist() == [min(max(v, -128), 127) for v in exact]
    assert result.error == 0


def test_constants_of_quotients_near_ties_are_rounded_in_rationals() -> None:
    scale = np.float32(1 / 3)
    x = np.nextafter(np.float64(scale) * np.arange(-9.5, 10), [[np.inf], [-np.inf]]).reshape(-1)
    result = _fold("QuantizeLinear", Constant(x), Constant(np.array(scale)))
    exact = [round(Fraction(float(v)) / Fraction(float(scale))) for v in x]
    assert result.array.tolist() == [min(max(v, 0), 255) for v in exact]


def test_a_cast_of_a_computed_constant_does_not_round_it() -> None:
    third = _fold("Div", _constant(1.0), _constant(3.0))
    assert _fold("Cast", third, to=TensorProto.FLOAT) == third


def test_shapes_of_computed_constants_are_exact() -> None:
    assert _fold("Shape", _constant(1.0, 2.0, error=EPS)).error == 0.0


def _model(nodes: list[Any], outputs: list[str], constants: dict[str, np.ndarray], shape: list[int]) -> bytes:
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    ).SerializeToString()


def test_constants_that_cannot_be_folded_become_values() -> None:
    """The interval of `sum(c) + x` covers the rounding of the sum."""
    nodes = [
        helper.make_node("ReduceSum", ["c"], ["s"], keepdims=0),
        helper.make_node("Add", ["x", "s"], ["y"]),
    ]
    c = np.full(10, 0.1, np.float32)
    network = import_model(_model(nodes, ["y"], {"c": c}, [2])).network
    np.testing.assert_allclose(network(np.zeros((1, 2)))[0], c.astype(np.float64).sum())


def test_an_infinite_constant_is_refused_but_as_an_end_of_clip() -> None:
    ends = {"low": np.array(-np.inf, np.float32), "high": np.array(1.0, np.float32)}
    data = _model([helper.make_node("Clip", ["x", "low", "high"], ["y"])], ["y"], ends, [2])
    np.testing.assert_array_equal(import_model(data).network(np.array([[-5.0, 5.0]]))[0], [-5.0, 1.0])
    data = _model([helper.make_node("Add", ["x", "low"], ["y"])], ["y"], ends, [2])
    with pytest.raises(UnsupportedError, match="infinite"):
        import_model(data)


def test_a_clip_above_everything_is_not_taken_for_no_clip() -> None:
    ends = {"low": np.array(np.finfo(np.float32).max)}
    data = _model([helper.make_node("Clip", ["x", "low"], ["y"])], ["y"], ends, [1])
    assert import_model(data).network(np.zeros((1, 1)))[0, 0] == np.finfo(np.float32).max


def test_an_output_without_an_importer_is_named() -> None:
    node = helper.make_node("MaxPool", ["x"], ["y", "i"], kernel_shape=[2])
    with pytest.raises(UnsupportedError, match="Indices"):
        import_model(_model([node], ["y"], {}, [1, 1, 4]))
    node = helper.make_node("Dropout", ["x"], ["y", "mask"])
    assert import_model(_model([node], ["y"], {}, [4])).network.output == 0
    with pytest.raises(UnsupportedError, match="mask"):
        import_model(_model([node], ["mask"], {}, [4]))


def test_a_tensor_defined_twice_is_an_error() -> None:
    nodes = [helper.make_node("Relu", ["x"], ["w"]), helper.make_node("Add", ["x", "w"], ["y"])]
    with pytest.raises(OnnxError, match="defined before"):
        import_model(_model(nodes, ["y"], {"w": np.ones(2, np.float32)}, [2]))


def test_an_index_out_of_range_is_an_error() -> None:
    data = _model([helper.make_node("Gather", ["x", "i"], ["y"])], ["y"], {"i": np.array([4])}, [3])
    with pytest.raises(OnnxError, match="out of range"):
        import_model(data)


def test_an_input_without_elements_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="no elements"):
        import_model(_model([helper.make_node("Relu", ["x"], ["y"])], ["y"], {}, [0, 3]))
