"""Ops that become graphs of others: agreement with onnxruntime, bounds against samples, refusals."""

from typing import Any

import numpy as np
import pytest
from ops.node_checks import Case, check_bounds, results

from lpverify.errors import UnsupportedError

RNG = np.random.default_rng(20)


def _one(op: str, inputs: str, shapes: dict[str, tuple[int, ...]], **attributes: Any) -> Case:
    return Case(((op, inputs, "y", attributes),), shapes)


def _einsum(equation: str, *shapes: tuple[int, ...], data: str = "ab") -> Case:
    named = dict(zip("abc", shapes, strict=False))
    nodes = (("Einsum", " ".join(named), "y", {"equation": equation}),)
    constants = {n: RNG.normal(size=s) for n, s in named.items() if n not in data}
    return Case(nodes, {n: s for n, s in named.items() if n in data}, constants)


def _recurrent(op: str, inputs: str = "x W R B", outputs: str = "y", **attributes: Any) -> Case:
    """3 steps, 2 sequences, 2 inputs, 3 hidden numbers."""
    count = 2 if attributes.get("direction") == "bidirectional" else 1
    rows = 3 * {"RNN": 1, "GRU": 3, "LSTM": 4}[op]
    shapes = {"W": (count, rows, 2), "R": (count, rows, 3), "B": (count, 2 * rows), "P": (count, 9)}
    shapes |= {"h": (count, 2, 3), "c": (count, 2, 3)}
    constants: dict[str, Any] = {n: RNG.normal(size=s) for n, s in shapes.items() if n in inputs.split()}
    if "L" in inputs.split():
        constants["L"] = np.array([3, 1], np.int32)
    nodes = ((op, inputs, outputs, {"hidden_size": 3, **attributes}),)
    return Case(nodes, {"x": (3, 2, 2)}, constants)


def _attention(extra: str = "", opset: int = 24, heads: int = 2, **attributes: Any) -> Case:
    shapes = {"q": (1, 2, 3, 2), "k": (1, heads, 4, 2), "v": (1, heads, 4, 3)}
    masks: dict[str, Any] = {"m": RNG.normal(size=(3, 4)), "b": np.tri(3, 4, 1, dtype=bool)}
    masks |= {"pk": RNG.normal(size=(1, 2, 2, 2)), "pv": RNG.normal(size=(1, 2, 2, 3)), "n": np.array([3])}
    constants = {n: masks[n] for n in extra.split() if n != "-"}
    outputs = "y p r" if "pk" in extra.split() else "y"
    return Case((("Attention", "q k v " + extra, outputs, attributes),), shapes, constants, opset)


def _grid(mode: str, padding: str, corners: int, shape: tuple[int, ...] = (4, 3)) -> Case:
    grid = RNG.uniform(-1.6, 1.6, (2, *(3,) * len(shape), len(shape)))
    attributes = {"mode": mode, "padding_mode": padding, "align_corners": corners}
    return Case((("GridSample", "x g", "y", attributes),), {"x": (2, 2, *shape)}, {"g": grid}, 20)


def _rotary(inputs: str = "x c s", shape: tuple[int, ...] = (1, 2, 3, 4), **attributes: Any) -> Case:
    angles = RNG.uniform(0, 3, (5, attributes.get("rotary_embedding_dim", 4) // 2))
    cosine, sine = np.cos(angles), np.sin(angles)
    if "p" not in inputs.split():
        cosine, sine = cosine[None, :3], sine[None, :3]
    constants = {"c": cosine, "s": sine, "p": np.array([[0, 4, 2]])}
    constants = {n: v for n, v in constants.items() if n in inputs.split()}
    return Case((("RotaryEmbedding", inputs, "y", attributes),), {"x": shape}, constants, 23)


X = {"x": (2, 3)}
IMAGE = {"x": (1, 2, 4, 4)}
CASES: dict[str, Case] = {
    "Einsum matrices": _einsum("ij,jk->ik", (2, 3), (3, 4)),
    "Einsum constant": _einsum("bij,bkj->bki", (2, 2, 3), (2, 4, 3), data="a"),
    "Einsum constant first": _einsum("ij,kj->ki", (2, 3), (4, 3), data="b"),
    "Einsum product": _einsum("ij,i->ji", (2, 3), (2,)),
    "Einsum ellipsis": _einsum("...i,...i->...", (2, 3, 2), (2, 3, 2)),
    "Einsum own sums": _einsum("ijm,jk->ik", (2, 3, 2), (3, 4), data="a"),
    "Einsum sum of a constant": _einsum("ij,jkm->ik", (2, 3), (3, 4, 2), data="a"),
    "Einsum diagonal": _einsum("ii->i", (3, 3), data="a"),
    "Einsum trace": _einsum("iij->j", (3, 3, 2), data="a"),
    "Einsum three": _einsum("ij,jk,kl->il", (2, 3), (3, 2), (2, 2)),
    "RNN": _recurrent("RNN", "x W R B L h"),
    "RNN reverse": _recurrent("RNN", "x W R - L", direction="reverse", activations=["Relu"]),
    "RNN bidirectional": _recurrent("RNN", direction="bidirectional", clip=0.5),
    "GRU": _recurrent("GRU", "x W R B - h"),
    "GRU reset after": _recurrent("GRU", "x W R B L", linear_before_reset=1, direction="reverse"),
    "GRU last state": _recurrent("GRU", outputs="s y", activations=["Sigmoid", "Softsign"]),
    "LSTM": _recurrent("LSTM", "x W R B L h c P"),
    "LSTM cell state": _recurrent("LSTM", outputs="s t y", input_forget=1),
    "LSTM bidirectional": _recurrent("LSTM", "x W R", direction="bidirectional"),
    "Attention": _attention(),
    "Attention causal": _attention(is_causal=1),
    "Attention summand": _attention("m", softcap=1.5, scale=0.7),
    "Attention mask": _attention("b", heads=1),
    "Attention cache": _attention("- pk pv", is_causal=1),
    "Attention padding": _attention("- - - n"),
    "Attention window": _attention(opset=25, left_window_size=1, right_window_size=1),
    "RotaryEmbedding": _rotary(),
    "RotaryEmbedding pairs": _rotary(interleaved=1),
    "RotaryEmbedding part": _rotary("x c s p", rotary_embedding_dim=2, interleaved=1),
    "RotaryEmbedding flat": _rotary("x c s p", (1, 3, 8), num_heads=2),
    "GridSample linear": _grid("linear", "zeros", 0),
    "GridSample border": _grid("linear", "border", 0),
    "GridSample reflection": _grid("linear", "reflection", 1),
    "GridSample nearest": _grid("nearest", "border", 1),
    "GridSample cubic": _grid("cubic", "reflection", 0),
    "GridSample volume": _grid("linear", "zeros", 1, (2, 3, 2)),
    "Col2Im": Case(
        (("Col2Im", "x i k", "y", {"pads": [0, 1, 0, 1], "strides": [1, 2]}),),
        {"x": (1, 8, 9)},
        {"i": np.array([4, 5]), "k": np.array([2, 2])},
    ),
    "LpPool 1": _one("LpPool", "x", IMAGE, kernel_shape=[2, 2], p=1, pads=[1, 0, 0, 1]),
    "LpPool 2": _one("LpPool", "x", IMAGE, kernel_shape=[3, 2], p=2, strides=[1, 2], ceil_mode=1),
    "LpPool 3": _one("LpPool", "x", IMAGE, kernel_shape=[2, 2], p=3),
    "GlobalLpPool": _one("GlobalLpPool", "x", IMAGE),
    "LpNormalization 1": _one("LpNormalization", "x", X, p=1),
    "LpNormalization 2": _one("LpNormalization", "x", X, axis=0),
    "LRN": _one("LRN", "x", {"x": (1, 5, 2, 2)}, size=3, alpha=2.0, beta=0.6, bias=1.5),
    "MeanVarianceNormalization": _one("MeanVarianceNormalization", "x", IMAGE),
    "GroupNormalization 18": Case(
        (("GroupNormalization", "x s c", "y", {"num_groups": 2}),),
        {"x": (1, 4, 2)},
        {"s": np.array([1.5, -0.5]), "c": np.array([0.1, 0.2])},
        18,
    ),
    "CumSum": Case((("CumSum", "x c", "y", {"exclusive": 1, "reverse": 1}),), X, {"c": np.array(1)}),
    "ReverseSequence": Case(
        (("ReverseSequence", "x c", "y", {"batch_axis": 0, "time_axis": 1}),), X, {"c": np.array([2, 3])}
    ),
    "Trilu": Case((("Trilu", "x c", "y", {"upper": 0}),), IMAGE, {"c": np.array(1)}),
    "Compress": Case((("Compress", "x c", "y", {"axis": 1}),), X, {"c": np.array([True, False, True])}),
    "Compress flat": Case((("Compress", "x c", "y", {}),), X, {"c": np.array([False, True, False, True])}),
    "Gemm of values": _one("Gemm", "x z", {"x": (3, 2), "z": (4, 3)}, transA=1, transB=1, alpha=0.3),
    "PRelu of values": _one("PRelu", "x z", {"x": (2, 3), "z": (1, 3)}),
    "Pow exponents": Case((("Pow", "x c", "y", {}),), X, {"c": np.array([2.0, 3.0, 0.0])}),
    "Pow fraction": Case((("Pow", "x c", "y", {}),), X, {"c": np.array(1.7)}, low=0.3, high=2.0),
    "Pow negative fraction": Case((("Pow", "x c", "y", {}),), X, {"c": np.array(-0.3)}, low=0.3, high=2.0),
    "ThresholdedRelu": _one("ThresholdedRelu", "x", X, alpha=0.25),
    "ThresholdedRelu negative": _one("ThresholdedRelu", "x", X, alpha=-0.4),
    "Shrink": _one("Shrink", "x", X, lambd=0.25, bias=0.1),
    "Shrink soft": _one("Shrink", "x", X, lambd=0.25, bias=0.25),
    **{op: _one(op, "x", X) for op in ("Tan", "Asin", "Acos", "Sinh", "Cosh", "Asinh", "Atanh")},
    "Acosh": Case((("Acosh", "x", "y", {}),), X, low=1.1, high=4.0),
}


@pytest.mark.parametrize("name", CASES)
def test_forward_agrees_with_onnxruntime(name: str) -> None:
    case = CASES[name]
    points = case.points(6, np.random.default_rng(1))
    expected = results(case, points)
    np.testing.assert_allclose(case.imported().network(points), expected, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("name", CASES)
def test_all_bounds_hold(name: str) -> None:
    rng = np.random.default_rng(2)
    check_bounds(CASES[name].imported().network, CASES[name].points(4, rng), rng)


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (_recurrent("LSTM", clip=0.5), "clip"),
        (_recurrent("RNN", activations=["Affine"]), "activation"),
        (_attention("b", is_causal=0), "nothing"),
        (_grid("cubic", "border", 0), "differ"),
        (_one("Shrink", "x", X, lambd=-1.0), "lambd"),
    ],
)
def test_what_is_not_defined_well_enough_is_refused(case: Case, reason: str) -> None:
    if "b" in case.constants:
        case.constants["b"] = np.zeros((3, 4), bool)
    with pytest.raises(UnsupportedError, match=reason):
        case.imported()


def test_the_nearest_element_of_a_grid_must_not_depend_on_rounding() -> None:
    grid = np.full((1, 1, 1, 2), np.float32(0.2))  # 2.500000007 of 5 elements, 2.5 in float32
    case = Case((("GridSample", "x g", "y", {"mode": "nearest"}),), {"x": (1, 1, 5, 5)}, {"g": grid})
    with pytest.raises(UnsupportedError, match="rounding"):
        case.imported()
