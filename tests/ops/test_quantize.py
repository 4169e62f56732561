"""Quantised networks: agreement with onnxruntime but for ties of rounding, bounds against samples."""

from typing import Any

import numpy as np
import pytest
from ops.node_checks import Case, check_bounds, results

from lpverify.bounds.propagate import Region, propagate
from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.ops.quantize import Quantise, granular
from lpverify.ops.steps import Round

RNG = np.random.default_rng(31)
Q, DQ = "QuantizeLinear", "DequantizeLinear"


def _through(name: str, scale: str, zero: str, result: str) -> list[tuple[str, str, str, dict[str, Any]]]:
    """A value quantised and back."""
    return [(Q, f"{name} {scale} {zero}", f"{name}_q", {}), (DQ, f"{name}_q {scale} {zero}", result, {})]


def _dense(columns: bool, kind: type = np.int8) -> Case:
    """QDQ around Gemm, Relu and Gemm; weights of 8 bits, a scale for each column or for all."""
    nodes = [
        *_through("x", "sx", "zx", "x1"),
        (DQ, "w ws wz" if not columns else "w ws", "w1", {"axis": 1}),
        (DQ, "b bs", "b1", {}),
        ("Gemm", "x1 w1 b1", "h", {}),
        ("Relu", "h", "r", {}),
        *_through("r", "sr", "zr", "r1"),
        (DQ, "v vs", "v1", {}),
        ("MatMul", "r1 v1", "o", {}),
        *_through("o", "so", "zo", "y"),
    ]
    scales = RNG.uniform(0.01, 0.02, 5) if columns else np.array(0.013)
    constants = {
        "sx": 0.02, "zx": np.array(3, kind), "w": RNG.integers(-127, 128, (4, 5)).astype(np.int8),
        "ws": scales, "wz": np.array(2, np.int8), "b": RNG.integers(-900, 900, 5).astype(np.int32),
        "bs": 0.0003, "sr": 0.05, "zr": np.array(-5 if kind is np.int8 else 4, kind), "vs": 0.011,
        "v": RNG.integers(-127, 128, (5, 3)).astype(np.int8), "so": 0.07, "zo": np.array(7, kind),
    }  # fmt: skip
    if columns:
        del constants["wz"]
    return Case(tuple(nodes), {"x": (2, 4)}, constants, 19, low=-2.6, high=2.6)


def _convolution() -> Case:
    """QDQ around Conv and Relu, one scale for each channel of the weights."""
    nodes = [
        *_through("x", "sx", "zx", "x1"),
        (DQ, "w ws wz", "w1", {"axis": 0}),
        ("Conv", "x1 w1", "h", {"pads": [1, 1, 0, 0]}),
        ("Relu", "h", "r", {}),
        *_through("r", "sr", "zr", "y"),
    ]
    constants = {
        "sx": 0.01, "zx": np.array(128, np.uint8), "w": RNG.integers(-127, 128, (3, 2, 2, 2)).astype(np.int8),
        "ws": RNG.uniform(0.005, 0.01, 3), "wz": np.zeros(3, np.int8), "sr": 0.02,
        "zr": np.array(0, np.uint8),
    }  # fmt: skip
    return Case(tuple(nodes), {"x": (1, 2, 3, 3)}, constants, 19)


def _integer(op: str, inputs: str, **attributes: Any) -> Case:
    """Whole numbers from the input, an op on them, and back."""
    convolution = "Conv" in op
    weight = (3, 2, 2, 2) if convolution else (4, 3)
    back = ("Cast", "o", "y", {"to": 1}) if "Integer" in op else (DQ, "o sy zy", "y", {})
    nodes = ((Q, "x sx zx", "q", {}), (op, inputs, "o", attributes), back)
    constants = {
        "sx": 0.02, "zx": np.array(120, np.uint8), "sy": 0.03, "zy": np.array(5, np.uint8),
        "w": RNG.integers(0, 256, weight).astype(np.uint8), "zw": np.array(127, np.uint8),
        "sw": 0.015, "b": RNG.integers(-500, 500, 3).astype(np.int32),
    }  # fmt: skip
    used = {n for _, names, _, _ in nodes for n in names.split()}
    constants = {n: v for n, v in constants.items() if n in used}
    return Case(nodes, {"x": (1, 2, 3, 3) if convolution else (2, 4)}, constants, 19)


CASES = {
    "dense": _dense(False),
    "dense, unsigned": _dense(False, np.uint8),
    "dense, by columns": _dense(True),
    "convolution": _convolution(),
    "MatMulInteger": _integer("MatMulInteger", "q w zx zw"),
    "ConvInteger": _integer("ConvInteger", "q w zx zw", pads=[1, 0, 0, 1]),
    "QLinearMatMul": _integer("QLinearMatMul", "q sx zx w sw zw sy zy"),
    "QLinearConv": _integer("QLinearConv", "q sx zx w sw zw sy zy b", strides=[2, 1]),
    "by axis": Case(
        ((Q, "x s z", "q", {"axis": 1}), (DQ, "q s z", "y", {"axis": 1})),
        {"x": (2, 3)},
        {"s": np.array([0.1, 0.02, 0.3]), "z": np.array([0, 5, 100], np.uint8)},
        19,
    ),
    "16 bits": Case(
        ((Q, "x s z", "q", {}), (DQ, "q s z", "y", {})),
        {"x": (2, 3)},
        {"s": np.array(0.001), "z": np.array(-700, np.int16)},
        21,
    ),
    "blocks": Case(
        (
            (Q, "x s z", "q", {"axis": 1, "block_size": 2}),
            (DQ, "q s z", "y", {"axis": 1, "block_size": 2}),
        ),
        {"x": (2, 3)},
        {"s": RNG.uniform(0.02, 0.1, (2, 2)), "z": np.array([[0, 3], [-4, 1]], np.int8)},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_agrees_with_onnxruntime(name: str) -> None:
    """Rounding once the other way moves a few elements of the result by a step, most not at all."""
    case = CASES[name]
    points = case.points(50, np.random.default_rng(1))
    expected, found = results(case, points), case.imported().network(points)
    same = np.isclose(found, expected, rtol=1e-5, atol=1e-5)
    assert same.mean() > 0.98
    np.testing.assert_allclose(found, expected, atol=0.15)


@pytest.mark.parametrize("name", CASES)
def test_all_bounds_hold(name: str) -> None:
    rng = np.random.default_rng(2)
    network = CASES[name].imported().network
    check_bounds(network, CASES[name].points(4, rng), rng)


def test_the_range_of_the_type_bounds_the_result() -> None:
    """Saturation: whatever the input, `q` is between 0 and 255."""
    network = CASES["16 bits"].imported().network
    box = np.full((1, 6), -1e30), np.full((1, 6), 1e30)
    found = propagate(network, Region(Box(*box)), Effort("ibp"), 2**20).boxes[network.output]
    scale = float(np.float32(0.001))
    np.testing.assert_allclose(found.lower, (-32768 + 700) * scale, rtol=1e-12)
    np.testing.assert_allclose(found.upper, (32767 + 700) * scale, rtol=1e-12)


def test_ties_are_rounded_to_even_before_the_zero_point_is_added() -> None:
    op = Quantise(1.0, -128.0, 127.0)
    np.testing.assert_array_equal(op.forward(np.array([0.5, 1.5, 2.5, -0.5])), [1.0, 3.0, 3.0, 1.0])
    np.testing.assert_array_equal(Round().forward(np.array([0.5, 1.5])) + 1, [1.0, 3.0])


def test_parameters_of_blocks_are_repeated() -> None:
    array = np.arange(4).reshape(2, 2)
    np.testing.assert_array_equal(granular(array, (2, 3), 1, 2), [[0, 0, 1], [2, 2, 3]])
    np.testing.assert_array_equal(granular(np.array([1, 2]), (2, 3), 0, 0), [[1], [2]])
    with pytest.raises(ValueError, match="shape"):
        granular(np.array([1, 2]), (2, 3), 1, 0)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (
            Case((("DynamicQuantizeLinear", "x", "q s z", {}), (DQ, "q s z", "y", {})), {"x": (2, 3)}),
            "support",
        ),
        (Case(((Q, "x x", "q", {}), (DQ, "q x", "y", {})), {"x": ()}), "constant"),
    ],
)
def test_computed_parameters_are_refused(case: Case, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        case.imported()
