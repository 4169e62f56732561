"""Errors of weights and offsets may depend on the input: every engine's bounds hold for the worst of them.

Networks of floating-point executions (`bounds.execution`) rest on that. Here such errors are large, and at
each point chosen by the gradient so that they move the result most.
"""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from helpers import box_assertions, query_of, random_dense
from onnx import TensorProto, helper, numpy_helper

import lpverify.search.engines as engines
from lpverify.bounds.evaluate import double_precision
from lpverify.bounds.lp import lp_rows
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.reduce import reduce
from lpverify.bounds.triangle import triangle
from lpverify.config import Config, Deadline
from lpverify.interval import Box
from lpverify.io.onnx import Model, import_model
from lpverify.multipliers import Effort
from lpverify.network import Network, Node
from lpverify.ops.base import AffineOp, SelectionOp
from lpverify.problem import compile_problem
from lpverify.search.engines import numpy_float32
from lpverify.simplify import simplify
from lpverify.solvers.highs import Highs
from lpverify.verdict import Unsat
from lpverify.verify import verify_query

LIMIT = 2**18


def noisy(network: Network, weights: float, offsets: float) -> Network:
    """With such errors of all weights, relative, and of all offsets, absolute."""

    def changed(node: Node) -> Node:
        op: Any = node.op
        if not isinstance(op, AffineOp) or isinstance(op, SelectionOp) or not hasattr(op, "weight"):
            return node
        error = np.full(node.shape, offsets) if offsets else None
        changes = {"weight_error": weights, "offset_error": error}
        return replace(node, op=replace(op, **{n: v for n, v in changes.items() if hasattr(op, n)}))

    return replace(network, nodes=tuple(changed(node) for node in network.nodes))


def worst_run(network: Network, x: np.ndarray, row: np.ndarray) -> float:
    """About the least `row . result` at one point over all errors."""
    values = network.evaluate(x[None])
    gradients = _gradients(network, values, row[None])
    run = [x[None]]
    for k, node in enumerate(network.nodes[1:], start=1):
        op: Any = node.op
        operands = [run[i] for i in node.inputs]
        value = op.forward(*operands)
        if isinstance(op, AffineOp):
            reach = op.weight_error * op.abs_linear(*(np.abs(v) for v in operands)) if operands else 0.0
            reach = reach + (0.0 if op.offset_error is None else op.offset_error)
            value = value - np.sign(gradients[k]) * reach * (1 - 1e-9)
        run.append(value)
    return float(run[network.output][0].reshape(-1) @ row)


def _gradients(network: Network, values: list[np.ndarray], seed: np.ndarray) -> list[np.ndarray]:
    found = [np.zeros_like(v) for v in values]
    found[network.output] = seed.reshape(values[network.output].shape)
    for k in range(network.output, 0, -1):
        node = network.nodes[k]
        assert node.op is not None
        parts = node.op.vjp(found[k], [values[i] for i in node.inputs])
        for i, part in zip(node.inputs, parts, strict=True):
            found[i] = found[i] + part
    return found


def convolutional(seed: int) -> Model:
    """Convolutions with a residual sum, and a dense head."""
    rng = np.random.default_rng(seed)

    def tensor(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.normal(size=shape).astype(np.float32) * 0.5, name)

    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]),
        node("Relu", ["c"], ["e"]),
        node("Conv", ["e", "v"], ["f"], pads=[1, 1, 1, 1]),
        node("Add", ["f", "e"], ["g"]),
        node("Relu", ["g"], ["h"]),
        node("Flatten", ["h"], ["i"]),
        node("Gemm", ["i", "head"], ["y"]),
    ]
    tensors = [tensor("w", 3, 1, 3, 3), tensor("b", 3), tensor("v", 3, 3, 3, 3), tensor("head", 48, 2)]
    ends = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, s)
        for n, s in (("x", [1, 1, 4, 4]), ("y", [1, 2]))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return import_model(proto.SerializeToString())


MODELS = {
    "dense": lambda seed: random_dense(seed, (4, 12, 10, 2)),
    "convolutional": convolutional,
}
ERRORS = [(2.0**-8, 0.0), (0.0, 0.05), (2.0**-10, 0.01)]


def worst(network: Network, low: np.ndarray, high: np.ndarray, row: np.ndarray, seed: int) -> float:
    """The least result found: corners, points, and those with errors."""
    rng = np.random.default_rng(seed)
    share = rng.uniform(size=(60, len(low)))
    share[:30] = rng.integers(0, 2, size=(30, len(low)))
    return min(worst_run(network, low + s * (high - low), row) for s in share)


@pytest.mark.parametrize("errors", ERRORS)
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("radius", [0.0, 0.01, 0.3])
def test_bounds_hold_for_errors_that_vary(family: str, errors: tuple[float, float], radius: float) -> None:
    for seed in range(3):
        network = noisy(simplify(MODELS[family](seed).network), *errors)
        rng = np.random.default_rng(seed)
        centre = rng.normal(size=network.input_size)
        low, high = centre - radius, centre + radius
        region = Region(Box(low[None], high[None]))
        rows = np.array([[1.0, 0.0], [-1.0, 0.0]])
        least = [worst(network, low, high, row, seed) for row in rows]
        query = query_of(MODELS[family](seed), box_assertions(list(low), list(high)))
        problem = replace(compile_problem(MODELS[family](seed).network, query), network=network)
        single = numpy_float32(problem, LIMIT)
        for effort in (Effort("ibp"), Effort("crown"), Effort("crown", forward=True)):
            for frame in (
                propagate(network, region, effort, LIMIT),
                propagate(single.network, region, effort, LIMIT, single.reference, single.like),
            ):
                box = frame.boxes[network.output]
                assert box.lower.reshape(-1)[0] <= least[0]
                assert -box.upper.reshape(-1)[0] <= least[1]
        frame = propagate(network, region, Effort("crown"), LIMIT)
        found = lp_rows(triangle(frame, network.output), network.output, rows, Highs(), Deadline()).lower
        assert (found <= least).all()
        small = reduce(problem, double_precision(problem), region.box, Effort("crown"))
        assert small is not None
        inner = propagate(small.problem.network, region, Effort("crown"), LIMIT)
        box = inner.boxes[small.problem.network.output]
        assert box.lower.reshape(-1)[0] <= least[0]
        assert -box.upper.reshape(-1)[0] <= least[1]


@pytest.mark.parametrize("errors", ERRORS)
@pytest.mark.parametrize("family", MODELS)
@pytest.mark.parametrize("kernel", [True, False])
def test_searches_leave_errors_open(
    family: str, errors: tuple[float, float], kernel: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A threshold that only errors pass is never refuted, by any engine."""
    if not kernel:
        monkeypatch.setattr(engines, "extension", lambda: None)
    model = MODELS[family](7)
    network = noisy(simplify(model.network), *errors)
    centre = np.random.default_rng(7).normal(size=network.input_size)
    low, high = centre - 0.02, centre + 0.02
    least = worst(network, low, high, np.array([1.0, 0.0]), 7)
    query = query_of(model, box_assertions(list(low), list(high)) + f"(assert (<= Y_0 {least:.17f}))")
    real = verify_query(model, query, Config(deadline=Deadline.after(10)))
    assert isinstance(real, Unsat)
    open_ = verify_query(replace(model, network=network), query, Config(deadline=Deadline.after(2)))
    assert not isinstance(open_, Unsat)
