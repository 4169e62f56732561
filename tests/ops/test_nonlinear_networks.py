"""Small networks with every nonlinear op: they agree with onnxruntime, and all bounds hold at samples."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from lpverify.bounds.alpha import bound_rows, initial, optimise
from lpverify.bounds.frame import Frame
from lpverify.bounds.propagate import Region, propagate
from lpverify.interval import Box
from lpverify.io.onnx import Model, import_model
from lpverify.multipliers import Effort, Multipliers, Schedule
from lpverify.network import Network

INPUTS, WIDTH = 3, 6


@dataclass(frozen=True)
class Case:
    """Nodes `(op, inputs, attributes)` from `h` `(1, WIDTH)` to `g`; a name `c...` is a constant."""

    nodes: tuple[tuple[str, str, dict[str, Any]], ...]
    constants: dict[str, Any] = field(default_factory=dict)
    opset: int = 22
    scale: float = 1.0
    shift: float = 0.0


def _unary(op: str, opset: int = 22, scale: float = 1.0, shift: float = 0.0, **attributes: Any) -> Case:
    return Case(((op, "h", attributes),), {}, opset, scale, shift)


CASES = {
    **{
        op: _unary(op)
        for op in ("Sigmoid", "Tanh", "Exp", "Sin", "Cos", "Atan", "Erf", "Softplus", "Elu", "Selu")
    },
    **{op: _unary(op) for op in ("Celu", "HardSigmoid", "HardSwish", "Gelu", "Softsign", "Mish")},
    **{op: _unary(op, scale=3.0) for op in ("Sign", "Floor", "Ceil", "Round")},
    **{op: _unary(op, shift=4.0, scale=0.5) for op in ("Log", "Sqrt", "Reciprocal")},
    "Gelu tanh": _unary("Gelu", approximate="tanh"),
    "Elu alpha": _unary("Elu", alpha=1.7),
    "LogSoftmax": _unary("LogSoftmax"),
    "Softmax": _unary("Softmax"),
    "Softmax 11": _unary("Softmax", opset=11, axis=0),
    "Pow 2": Case((("Pow", "h c", {}),), {"c": 2.0}),
    "Pow 3": Case((("Pow", "h c", {}),), {"c": 3.0}),
    "Pow 0.5": Case((("Pow", "h c", {}),), {"c": 0.5}, shift=4.0, scale=0.5),
    "Pow -2": Case((("Pow", "h c", {}),), {"c": -2.0}, shift=4.0, scale=0.5),
    "Pow base": Case((("Pow", "c h", {}),), {"c": 1.5}),
    "Mul": Case((("Split", "h", {"axis": 1, "num_outputs": 2}), ("Mul", "v0 v0_1", {}))),
    "Mul self": Case((("Mul", "h h", {}),)),
    "Mul broadcast": Case((("ReduceSum", "h c", {}), ("Mul", "h v0", {})), {"c": [1]}),
    "Div": Case((("Exp", "h", {}), ("Div", "h v0", {}))),
    "Div constant": Case((("Exp", "h", {}), ("Div", "c v0", {})), {"c": 2.0}),
    "MatMul": Case(
        (("Reshape", "h c", {}), ("Reshape", "h ct", {}), ("MatMul", "v0 v1", {})),
        {"c": [2, 3], "ct": [3, 2]},
    ),
    "LayerNormalization": Case(
        (("LayerNormalization", "h cs cb", {}),), {"cs": [1.0, 2, 3, -1, 0.5, 1], "cb": [0.1, 0, 0, 1, 2, 3]}
    ),
    "RMSNormalization": Case((("RMSNormalization", "h cs", {}),), {"cs": [1.0, 2, 3, -1, 0.5, 1]}, opset=23),
    "ReduceL2": Case((("ReduceL2", "h c", {}),), {"c": [1]}),
    "ReduceL1": Case((("ReduceL1", "h c", {}),), {"c": [1]}),
    "ReduceProd": Case((("ReduceProd", "h c", {}),), {"c": [1]}),
    "ReduceLogSumExp": Case((("ReduceLogSumExp", "h c", {}),), {"c": [1]}),
    "GroupNormalization": Case(
        (("Reshape", "h c", {}), ("GroupNormalization", "v0 cs cb", {"num_groups": 2})),
        {"c": [1, 2, 3], "cs": [1.0, -2.0], "cb": [0.0, 1.0]},
    ),
}


def _model(case: Case, seed: int) -> bytes:
    """`x -> Gemm -> case -> flatten`: the affine part is random."""
    rng = np.random.default_rng(seed)
    weight = (case.scale * rng.normal(size=(WIDTH, INPUTS))).astype(np.float32)
    bias = (case.shift + 0.5 * case.scale * rng.normal(size=WIDTH)).astype(np.float32)
    constants = {"w": weight, "b": bias, "flat": np.array([1, -1])}
    for name, value in case.constants.items():
        array = np.asarray(value)
        constants[name] = array.astype(np.float32) if array.dtype.kind == "f" else array
    nodes = [helper.make_node("Gemm", ["x", "w", "b"], ["h"], transB=1)]
    for i, (op, inputs, attributes) in enumerate(case.nodes):
        outputs = [f"v{i}", f"v{i}_1"] if op == "Split" else [f"v{i}"]
        nodes.append(helper.make_node(op, inputs.split(), outputs, **attributes))
    nodes.append(helper.make_node("Reshape", [f"v{len(case.nodes) - 1}", "flat"], ["y"]))
    graph = helper.make_graph(
        nodes,
        "test",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, INPUTS])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    opset = [helper.make_opsetid("", case.opset)]
    return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()


@pytest.fixture(scope="module", params=[(name, seed) for name in CASES for seed in (0, 1)], ids=str)
def model(request: pytest.FixtureRequest) -> Model:
    name, seed = request.param
    return import_model(_with_shapes(_model(CASES[name], seed)))


def _with_shapes(data: bytes) -> bytes:
    """The output's shape is left to shape inference, or to what a run gives."""
    proto = onnx.load_from_string(data)
    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    shape = session.run(None, {"x": np.zeros((1, INPUTS), np.float32)})[0].shape
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, shape))
    return proto.SerializeToString()


def test_forward_agrees_with_onnxruntime(model: Model) -> None:
    session = onnxruntime.InferenceSession(model.serialized, providers=["CPUExecutionProvider"])
    for x in np.random.default_rng(5).uniform(-1, 1, (10, 1, INPUTS)).astype(np.float32):
        expected = session.run(None, {"x": x})[0].reshape(-1)
        np.testing.assert_allclose(model.network(x.astype(np.float64))[0], expected, rtol=1e-5, atol=1e-5)


def _frame(network: Network, lower: np.ndarray, upper: np.ndarray, method: str, kind: str) -> Frame:
    """Bounds with float64 or float32 coefficients, NumPy or torch."""
    if kind == "numpy64":
        return propagate(network, Region(Box(lower, upper)), Effort(method), 2**20)
    if kind == "numpy32":
        like, single = np.zeros(1, np.float32), network.convert(np.asarray, np.float32)
        return propagate(single, Region(Box(lower, upper)), Effort(method), 2**20, network, like)
    box = Box(torch.from_numpy(lower), torch.from_numpy(upper))
    exact, single = network.convert(torch.asarray), network.convert(torch.asarray, np.float32)
    return propagate(single, Region(box), Effort(method), 2**20, exact, torch.zeros(1))


def _boxes(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    centre = rng.uniform(-1, 1, (4, INPUTS))
    radius = np.array([0.0, 1e-6, 0.1, 0.5])[:, None] * rng.random((4, INPUTS))
    return centre - radius, centre + radius


def _samples(lower: np.ndarray, upper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points `(S, B, n)` of the boxes, corners among them."""
    share = rng.random((40, *lower.shape))
    share[:10] = share[:10] < 0.5
    return np.clip(lower + share * (upper - lower), lower, upper)


def _values(network: Network, points: np.ndarray) -> list[np.ndarray]:
    """All values at `(S, B, n)`, 11 bits more precise than what bounds have to cover."""
    values = network.evaluate(points.reshape(-1, points.shape[-1]).astype(np.longdouble))
    return [v.reshape((*points.shape[:2], *v.shape[1:])) for v in values]


@pytest.mark.parametrize("kind", ["numpy64", "numpy32", "torch32"])
@pytest.mark.parametrize("method", ["ibp", "crown"])
def test_all_bounds_hold(model: Model, method: str, kind: str) -> None:
    rng = np.random.default_rng(11)
    lower, upper = _boxes(rng)
    frame = _frame(model.network, lower, upper, method, kind)
    values = _values(model.network, _samples(lower, upper, rng))
    for k, value in enumerate(values):
        box = frame.boxes[k]
        assert (np.asarray(box.lower) <= value).all(), model.network.nodes[k]
        assert (value <= np.asarray(box.upper)).all(), model.network.nodes[k]
    size = values[model.network.output].shape[-1]
    rows = np.concatenate([np.eye(size), -np.eye(size), rng.normal(size=(2, size))])
    rows = np.broadcast_to(rows.astype(np.float32), (4, *rows.shape)).astype(np.asarray(frame.like).dtype)
    exact = np.einsum("brn,sbn->sbr", rows.astype(np.longdouble), values[model.network.output])
    seeds = torch.from_numpy(rows.copy()) if kind == "torch32" else rows
    alphas = {
        k: rng.random((4, rows.shape[1], *model.network.nodes[k].shape)).astype(rows.dtype)
        for k in model.network.activations
    }
    if kind == "torch32":
        alphas = {k: torch.from_numpy(v) for k, v in alphas.items()}
    for multipliers in (None, Multipliers(alphas)):
        found = bound_rows(frame, seeds, multipliers).concretize(frame.boxes[0])
        assert (np.asarray(found) <= exact).all()


def test_optimised_lines_are_sound_and_no_worse(model: Model) -> None:
    rng = np.random.default_rng(3)
    lower, upper = _boxes(rng)
    frame = _frame(model.network, lower, upper, "crown", "numpy64")
    values = _values(model.network, _samples(lower, upper, rng))[model.network.output]
    rows = np.broadcast_to(rng.normal(size=(1, values.shape[-1])), (4, 1, values.shape[-1])).copy()
    before = bound_rows(frame, rows).concretize(frame.boxes[0])
    start = initial(frame, 1, {})
    found = optimise(frame, rows, {}, start, Schedule(10), lambda low: False)[1]
    exact = np.einsum("brn,sbn->sbr", rows.astype(np.longdouble), values)
    assert (found <= exact).all()
    assert (found >= before - 1e-4 * (1 + abs(before))).all()
