"""What onnxruntime computes for the official ONNX node tests is within the bounds of float executions."""

from collections import Counter
from collections.abc import Callable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import numpy as np
import pytest
from bounds.test_execution import floats, inside, onnx_model
from conformance.test_onnx_nodes import Imported, _imported, _names, _skip_reason, _tests
from onnx import TensorProto, helper

from lpverify.bounds.execution import Undefined, executed, require_covered
from lpverify.bounds.propagate import Region, propagate
from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.io.onnx import Model
from lpverify.multipliers import Effort
from lpverify.ops import REGISTRY
from lpverify.ops.roundings import RULES

LEVELS = ("ORT_DISABLE_ALL", "ORT_ENABLE_ALL")
POINTS = 2
TESTS = 8  # of each operator


def _sessions(model: Model) -> list[Any]:
    """onnxruntime without and with its fusions; none where it has no kernel."""
    import onnxruntime

    sessions = []
    for level in LEVELS:
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
        try:
            sessions.append(
                onnxruntime.InferenceSession(model.serialized, options, providers=["CPUExecutionProvider"])
            )
        except Exception:  # noqa: BLE001  (onnxruntime's exception types are its own)
            return []
    return sessions


def _run(session: Any, feeds: dict[str, np.ndarray]) -> np.ndarray | None:
    try:
        outputs = session.run(None, feeds)
    except Exception:  # noqa: BLE001
        return None
    return np.concatenate([np.asarray(y).astype(np.float64).reshape(-1) for y in outputs])


def _typed(model: Model, x: np.ndarray) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """The point in the model's types."""
    feeds = {t.name: x[t.part].astype(t.dtype).reshape(t.shape) for t in model.inputs.tensors}
    return np.concatenate([f.astype(np.float64).reshape(-1) for f in feeds.values()]), feeds


def _compared(model: Model, at: np.ndarray, sessions: list[Any]) -> bool:
    """Checks one point; whether there was anything to compare with finite bounds."""
    x, feeds = _typed(model, at)
    noisy = executed(model.network, model.steps, Box(x, x))
    box = propagate(noisy, Region(Box(x[None], x[None])), Effort("ibp"), 2**20).boxes[noisy.output]
    runs = [y for y in (_run(s, feeds) for s in sessions) if y is not None and y.shape == box.lower[0].shape]
    open_ = np.isinf(box.lower[0]) | np.isinf(box.upper[0])
    for y in runs:
        bounded = Box(box.lower[0][~open_], box.upper[0][~open_])
        assert inside(bounded, y[~open_])
    return bool(runs) and not any(isinstance(n.op, Undefined) for n in noisy.nodes)


def _covered(test: Any) -> Iterator[Imported]:
    try:
        for case in _imported(test):
            require_covered(case.model.steps)
            yield case
    except UnsupportedError:
        return


@cache
def _checked(name: str) -> frozenset[str]:
    """The operators that a node test is a test of."""
    test, rng = _tests()[name], np.random.default_rng(0)
    if _skip_reason(test) is not None:
        return frozenset()
    found: set[str] = set()
    with np.errstate(all="ignore"):  # results may be undefined
        for case in islice(_covered(test), 2):
            sessions = _sessions(case.model)
            for x in case.samples(*case.box(rng), rng)[:: 12 // (POINTS - 1)]:
                if sessions and _compared(case.model, x, sessions):
                    found |= {step.node.op_type for step in case.model.steps}
    return frozenset(found)


@cache
def _chosen() -> list[str]:
    """A few tests of each operator, of those that have one node."""
    counts: Counter[str] = Counter()
    chosen = []
    for name in _names():
        nodes = _tests()[name].model.graph.node
        if len(nodes) == 1 and counts[nodes[0].op_type] < TESTS:
            chosen.append(name)
            counts[nodes[0].op_type] += 1
    return chosen


@pytest.mark.parametrize("name", _chosen())
def test_executions_of_a_node(name: str) -> None:
    if not _checked(name):
        pytest.skip("not covered, or onnxruntime does not run it")


def _node(op: str, *inputs: str, outputs: tuple[str, ...] = ("y",), **attributes: Any) -> Any:
    return helper.make_node(op, ["x", *inputs], list(outputs), **attributes)


BOOL = TensorProto.BOOL
OTHERS: dict[str, Callable[[], Model]] = {  # what no node test of theirs covers
    "Cast": lambda: onnx_model([_node("Cast", to=1)], [2, 3], kinds=(TensorProto.DOUBLE, 1)),
    "IsNaN": lambda: onnx_model([_node("IsNaN")], [2, 3], kinds=(1, BOOL)),
    "IsInf": lambda: onnx_model([_node("IsInf")], [2, 3], kinds=(1, BOOL)),
    "Not": lambda: onnx_model(
        [_node("Less", "c", outputs=("l",)), helper.make_node("Not", ["l"], ["y"])],
        [2, 3],
        {"c": floats(2, 3)},
        kinds=(1, BOOL),
    ),
    "TopK": lambda: onnx_model([_node("TopK", "k", outputs=("y", "i"))], [2, 5], {"k": np.array([1])}),
    "Upsample": lambda: onnx_model(
        [_node("Upsample", "s", mode="linear")],
        [1, 2, 3, 4],
        {"s": np.array([1, 1, 3, 2], np.float32)},
        opset=9,
    ),
    "QuantizeLinear": lambda: onnx_model(
        [_node("QuantizeLinear", "s", "z")],
        [2, 3],
        {"s": np.float32(0.3), "z": np.uint8(7)},
        kinds=(1, TensorProto.UINT8),
    ),
    "DequantizeLinear": lambda: onnx_model(
        [_node("DequantizeLinear", "s", "z")],
        [2, 3],
        {"s": np.float32(0.3), "z": np.uint8(7)},
        kinds=(TensorProto.UINT8, 1),
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_executions_of_other_nodes(name: str) -> None:
    model, rng = OTHERS[name](), np.random.default_rng(0)
    sessions = _sessions(model)
    assert {step.node.op_type for step in model.steps} >= {name}
    for _ in range(5):
        assert _compared(model, np.abs(rng.normal(size=model.network.input_size) * 3), sessions)


def test_every_covered_operator_is_compared() -> None:
    """A rule without a comparison is a claim without a test."""
    compared = set(OTHERS).union(*map(_checked, _chosen()))
    elsewhere = {"Identity", "CastLike"}  # no step of its own; a Cast
    assert {name for name, _ in REGISTRY.operators() if not RULES[name].reason} <= compared | elsewhere
