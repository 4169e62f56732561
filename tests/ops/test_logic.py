"""Networks with comparisons, logic, choices and indices, at ties and boundaries above all.

Weights are whole numbers and points multiples of 1/4, so that float32 is exact: results equal those of
onnxruntime, and every tie in a box is a real one.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from helpers import model_of
from onnx import TensorProto, helper, numpy_helper

from lpverify.bounds.alpha import bound_rows
from lpverify.bounds.frame import Frame
from lpverify.bounds.propagate import Region, propagate
from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.io.onnx import Model
from lpverify.multipliers import Effort, Multipliers
from lpverify.network import Network
from lpverify.ops.indicators import Known, Undefined

INPUTS = 3


@dataclass(frozen=True)
class Case:
    """Nodes `(op, inputs, outputs, attributes)`; the last output has `size` elements.

    `h` `(1, 6)` is computed by a Gemm, a and b `(1, 3)` are its halves, m and n those in int64, p `a > b` and
    q `m >= n`. Constants are named `c...`.
    """

    nodes: tuple[tuple[Any, ...], ...]
    size: int = 3
    constants: dict[str, Any] = field(default_factory=dict)


PRELUDE = (
    ("Gemm", "x w u", "h", {"transB": 1}),
    ("Split", "h", "a b", {"axis": 1}),
    ("Cast", "a", "m", {"to": TensorProto.INT64}),
    ("Cast", "b", "n", {"to": TensorProto.INT64}),
    ("Greater", "a b", "p", {}),
    ("GreaterOrEqual", "m n", "q", {}),
)
COMPARISONS = ("Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Equal")
INDEX = (("Mod", "m c5", "r", {}), ("Sub", "r c2", "i", {}))  # from -2 to 2
FIVE = {"c5": 5, "c2": 2}
TABLE = [[1.5, -2.0, 3.0], [0.25, 4.0, -1.0], [7.0, 0.5, -3.0]]


def _one(op: str, inputs: str, size: int = 3, constants: dict[str, Any] | None = None, **more: Any) -> Case:
    return Case(((op, inputs, "t", more),), size, constants or {})


CASES = {
    **{op: _one(op, "a b") for op in COMPARISONS},
    **{f"{op} constant": _one(op, "a c", 3, {"c": [[0.5, -1.0, 0.0]]}) for op in COMPARISONS},
    **{f"constant {op}": _one(op, "c a", 6, {"c": [[1.0], [0.25]]}) for op in COMPARISONS},
    **{f"{op} whole": _one(op, "m n") for op in COMPARISONS},
    **{f"{op} whole constant": _one(op, "c m", 3, {"c": [1, -2, 0]}) for op in COMPARISONS},
    **{op: _one(op, "p q") for op in ("And", "Or", "Xor")},
    **{f"{op} constant": _one(op, "p c", 3, {"c": [True, False, True]}) for op in ("And", "Or", "Xor")},
    "Equal of truth values": _one("Equal", "p q"),
    "Not": _one("Not", "p"),
    "IsNaN": _one("IsNaN", "a"),
    "IsInf": _one("IsInf", "a", detect_negative=0),
    "Where": _one("Where", "p a b"),
    "Where constant": _one("Where", "p a c", 6, {"c": [[0.5], [-2.0]]}),
    "Where constants": _one("Where", "p c d", 6, {"c": [[0.5], [-2.0]], "d": [[0.1, 1e-30, 3.0]]}),
    "Where whole": _one("Where", "p m n"),
    "Where constant condition": _one("Where", "c a b", 3, {"c": [True, False, True]}),
    "Cast to bool": _one("Cast", "a", to=TensorProto.BOOL),
    "Cast whole to bool": _one("Cast", "m", to=TensorProto.BOOL),
    "Cast of bool": Case((("Cast", "p", "s", {"to": TensorProto.INT32}), ("Mul", "s s", "t", {}))),
    "Cast to half": Case(
        (("Cast", "m", "s", {"to": TensorProto.INT8}), ("Cast", "s", "t", {"to": TensorProto.FLOAT16}))
    ),
    "ArgMax": _one("ArgMax", "h", 1, axis=1, keepdims=0),
    "ArgMax last": _one("ArgMax", "h", 1, axis=-1, select_last_index=1),
    "ArgMin": _one("ArgMin", "h", 1, axis=1),
    "ArgMin last": _one("ArgMin", "a", 1, axis=1, select_last_index=1),
    "ArgMax whole": _one("ArgMax", "m", 1, axis=1),
    "ArgMax of one": _one("ArgMax", "h", 6, axis=0),
    "ArgMax of two": Case(
        (("Reshape", "h c", "s", {}), ("ArgMax", "s", "t", {"axis": 1})), 3, {"c": [1, 2, 3]}
    ),
    "Hardmax": _one("Hardmax", "h", 6),
    "Hardmax of two": Case(
        (("Reshape", "h c", "s", {}), ("Hardmax", "s", "t", {"axis": 1})), 6, {"c": [1, 2, 3]}
    ),
    "TopK value": Case((("TopK", "h c", "t s", {}),), 1, {"c": [1]}),
    "TopK index": Case((("TopK", "h c", "s t", {"largest": 0}),), 1, {"c": [1]}),
    "OneHot": _one("OneHot", "m c4 c", 12, {"c4": 4, "c": [0.5, -2.0]}),
    "OneHot axis": _one("OneHot", "m c4 c", 12, {"c4": 4, "c": [0, 1]}, axis=1),
    "OneHot of float": _one("OneHot", "a c4 c", 12, {"c4": 4.0, "c": [0.0, 1.0]}),
    "Gather row": Case(
        (("ArgMax", "a", "s", {"axis": 1, "keepdims": 0}), ("Gather", "c s", "t", {})), 3, {"c": TABLE}
    ),
    "Gather column": Case((*INDEX, ("Gather", "c i", "t", {"axis": 1})), 9, {**FIVE, "c": TABLE}),
    "Gather whole": Case((*INDEX, ("Gather", "c i", "t", {})), 3, {**FIVE, "c": [4, -2, 9]}),
    "Gather of values": Case((*INDEX, ("Gather", "a i", "t", {"axis": 1})), 3, FIVE),
    "GatherElements": Case((*INDEX, ("GatherElements", "c i", "t", {"axis": 1})), 3, {**FIVE, "c": TABLE}),
    "GatherElements of values": Case((*INDEX, ("GatherElements", "a i", "t", {"axis": 1})), 3, FIVE),
    "GatherND": Case(
        (*INDEX, ("Reshape", "i cs", "s", {}), ("GatherND", "c s", "t", {})),
        9,
        {**FIVE, "cs": [3, 1], "c": TABLE},
    ),
    "GatherND pairs": Case(
        (
            *INDEX,
            ("Concat", "i i", "s", {"axis": 0}),
            ("Transpose", "s", "z", {}),
            ("GatherND", "c z", "t", {}),
        ),
        3,
        {**FIVE, "c": TABLE},
    ),
    "GatherND of values": Case(
        (*INDEX, ("Reshape", "i cs", "s", {}), ("GatherND", "a s", "t", {"batch_dims": 1})),
        3,
        {**FIVE, "cs": [1, 3, 1]},
    ),
    "Mod": _one("Mod", "m c", 3, {"c": [3, -3, 7]}),
    "Mod truncated": _one("Mod", "m c", 3, {"c": [3, -3, 7]}, fmod=1),
    "Mod of floats": _one("Mod", "a c", 3, {"c": [2.0, -0.5, 1.25]}, fmod=1),
}


def _tensor(name: str, value: Any) -> Any:
    array = np.asarray(value)
    return numpy_helper.from_array(array.astype(np.float32) if array.dtype.kind == "f" else array, name)


def _build(case: Case, seed: int) -> Model:
    rng = np.random.default_rng(seed)
    weight, offset = rng.integers(-2, 3, (6, INPUTS)).astype(float), rng.integers(-2, 3, 6).astype(float)
    constants = {"w": weight, "u": offset, "flat": np.array([1, -1]), **case.constants}
    end = (
        ("Cast", "t", "flattened", {"to": TensorProto.FLOAT}),
        ("Reshape", "flattened flat", "y", {}),
    )
    nodes = [
        helper.make_node(o, i.split(), r.split(), **more) for o, i, r, more in (*PRELUDE, *case.nodes, *end)
    ]
    return model_of(nodes, [_tensor(k, v) for k, v in constants.items()], (INPUTS, case.size))


@pytest.fixture(scope="module", params=[(name, seed) for name in CASES for seed in (0, 1)], ids=str)
def model(request: pytest.FixtureRequest) -> Model:
    name, seed = request.param
    return _build(CASES[name], seed)


def test_results_equal_those_of_onnxruntime(model: Model) -> None:
    session = onnxruntime.InferenceSession(model.serialized, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(5)
    for x in rng.integers(-8, 9, (60, 1, INPUTS)) / 4:
        expected = session.run(None, {"x": x.astype(np.float32)})[0].reshape(-1)
        np.testing.assert_array_equal(model.network(x).astype(np.float32)[0], expected)


def _frame(network: Network, lower: np.ndarray, upper: np.ndarray, method: str, kind: str) -> Frame:
    """Bounds with float64 or float32 coefficients, NumPy or torch."""
    if kind == "numpy64":
        return propagate(network, Region(Box(lower, upper)), Effort(method), 2**20)
    if kind == "numpy32":
        single = network.convert(np.asarray, np.float32)
        return propagate(
            single, Region(Box(lower, upper)), Effort(method), 2**20, network, np.zeros(1, np.float32)
        )
    box = Box(torch.from_numpy(lower), torch.from_numpy(upper))
    exact, single = network.convert(torch.asarray), network.convert(torch.asarray, np.float32)
    return propagate(single, Region(box), Effort(method), 2**20, exact, torch.zeros(1))


def _boxes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Points, edges and boxes whose ends are where ties are."""
    centre = rng.integers(-8, 9, (6, INPUTS)) / 4
    radius = np.array([0, 0.25, 0.25, 0.5, 1, 2])[:, None] * rng.integers(0, 2, (6, INPUTS))
    return centre - radius, centre + radius


def _samples(lower: np.ndarray, upper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points `(S, B, n)` of the boxes: corners, the grid, anywhere."""
    share = rng.random((60, *lower.shape))
    share[:15] = share[:15] < 0.5
    share[15:40] = np.round(share[15:40] * 4) / 4
    return lower + share * (upper - lower)


@pytest.mark.parametrize(
    ("method", "kind"), [("ibp", "numpy64"), ("crown", "numpy64"), ("crown", "numpy32"), ("crown", "torch32")]
)
def test_all_bounds_hold(model: Model, method: str, kind: str) -> None:
    rng, network = np.random.default_rng(11), model.network
    lower, upper = _boxes(rng)
    with np.errstate(all="ignore"):  # indices out of range are unbounded
        frame = _frame(network, lower, upper, method, kind)
    points = _samples(lower, upper, rng)
    flat = network.evaluate(points.reshape(-1, INPUTS).astype(np.longdouble))
    values = [v.reshape((*points.shape[:2], *v.shape[1:])) for v in flat]
    for k, value in enumerate(values):
        box = frame.boxes[k]
        assert (np.asarray(box.lower) <= value).all(), network.nodes[k]
        assert (value <= np.asarray(box.upper)).all(), network.nodes[k]
    size = values[network.output].shape[-1]
    rows = np.concatenate([np.eye(size), -np.eye(size), rng.normal(size=(2, size))])
    rows = np.broadcast_to(rows.astype(np.float32), (len(lower), *rows.shape))
    rows = rows.astype(np.asarray(frame.like).dtype)
    exact = np.einsum("brn,sbn->sbr", rows.astype(np.longdouble), values[network.output])
    shapes = {k: (len(lower), rows.shape[1], *network.nodes[k].shape) for k in network.activations}
    alphas = {k: rng.random(shape).astype(rows.dtype) for k, shape in shapes.items()}
    if kind == "torch32":
        rows, alphas = torch.from_numpy(rows.copy()), {k: torch.from_numpy(v) for k, v in alphas.items()}
    for multipliers in (None, Multipliers(alphas)):
        with np.errstate(all="ignore"):
            found = bound_rows(frame, rows, multipliers).concretize(frame.boxes[0])
        assert (np.asarray(found) <= exact).all()


def test_points_are_settled(model: Model) -> None:
    """Where there is no tie, bounds over a point are as good as exact."""
    rng = np.random.default_rng(2)
    x = rng.uniform(-2, 2, (8, INPUTS))
    result = propagate(model.network, Region(Box(x, x)), Effort("crown"), 2**20).boxes[model.network.output]
    np.testing.assert_allclose(result.lower, model.network(x), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(result.upper, model.network(x), rtol=1e-9, atol=1e-9)


def test_what_is_known_cuts_boxes() -> None:
    box = Box(np.array([[-2.5, -1e-300, 0.3, -9.0, 1.0]]), np.array([[2.5, 1 + 1e-15, 0.7, -8.0, 1.0]]))
    lower, upper = Known(-1.0, 2.0, True).interval(box)
    np.testing.assert_array_equal(lower, [[-1.0, 0.0, 0.3, -1.0, 1.0]])  # without whole numbers no points
    np.testing.assert_array_equal(upper, [[2.0, 1.0, 0.7, -1.0, 1.0]])
    lower, upper = Known(-1.0, 2.0).interval(box)
    np.testing.assert_array_equal(lower, [[-1.0, -1e-300, 0.3, -1.0, 1.0]])
    np.testing.assert_array_equal(upper, [[2.0, 1 + 1e-15, 0.7, -1.0, 1.0]])


def test_undefined_values_are_not_proven_to_be_numbers() -> None:
    box = Box(np.array([[-1.0, 0.0, -np.inf]]), np.array([[1.0, np.inf, 2.0]]))
    lower, upper = Undefined().interval(box)
    np.testing.assert_array_equal(lower, [[0.0, 0.0, 0.0]])
    np.testing.assert_array_equal(upper, [[0.0, 1.0, 1.0]])
    lines = Undefined().relax(box, None)
    np.testing.assert_array_equal(lines.upper_intercept, upper)
    np.testing.assert_array_equal(lines.upper_slope, lower)


OUT_OF_RANGE = {
    "Gather": Case((("Gather", "c m", "t", {}),), 9, {"c": TABLE}),
    "GatherElements": Case((("GatherElements", "c m", "t", {"axis": 1}),), 3, {"c": TABLE}),
    "GatherND": Case(
        (("Reshape", "m cs", "s", {}), ("GatherND", "c s", "t", {})), 9, {"cs": [3, 1], "c": TABLE}
    ),
}


@pytest.mark.parametrize("method", ["ibp", "crown"])
@pytest.mark.parametrize("case", OUT_OF_RANGE.values(), ids=OUT_OF_RANGE)
def test_results_of_indices_that_may_be_out_of_range_are_unbounded(case: Case, method: str) -> None:
    model, wide = _build(case, 0), np.full((1, INPUTS), 3.0)
    with np.errstate(all="ignore"):
        frame = propagate(model.network, Region(Box(-wide, wide)), Effort(method), 2**20)
        rows = np.eye(case.size)[None]
        found = bound_rows(frame, np.concatenate([rows, -rows], axis=1)).concretize(frame.boxes[0])
    result = frame.boxes[model.network.output]
    assert np.isinf(result.lower).all()
    assert np.isinf(result.upper).all()
    assert (found == -np.inf).all()


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (Case((("TopK", "h c", "t s", {}),), 2, {"c": [2]}), "k=2"),
        (_one("Cast", "a", to=TensorProto.FLOAT16), "not exact"),
        (_one("Mod", "a b", fmod=1), "constant"),
        (
            Case((("Tile", "h c", "s", {}), ("ArgMax", "s", "t", {"axis": 1})), 1, {"c": [1, 11]}),
            "more than 64",
        ),
    ],
)
def test_what_is_not_exact_is_refused(case: Case, reason: str) -> None:
    with pytest.raises(UnsupportedError, match=reason):
        _build(case, 0)
