"""Models of a few nodes: agreement with onnxruntime, and bounds against samples."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from lpverify.bounds.alpha import bound_rows
from lpverify.bounds.propagate import Region, propagate
from lpverify.interval import Box
from lpverify.io.onnx import Model, import_model
from lpverify.multipliers import Effort
from lpverify.network import Network

Nodes = Sequence[tuple[str, str, str, dict[str, Any]]]
MOST_ROWS = 24


@dataclass(frozen=True)
class Case:
    """Nodes `(op, inputs, outputs, attributes)`; a `-` is an omitted input; `y` is the result.

    Attributes:
        inputs: Shapes of the inputs, whose elements are between `low` and `high`.
        constants: Arrays; those of float64 become float32.
    """

    nodes: Nodes
    inputs: dict[str, tuple[int, ...]]
    constants: dict[str, Any] = field(default_factory=dict)
    opset: int = 21
    low: float = -1.0
    high: float = 1.0

    def model(self) -> bytes:
        """The serialised model."""
        arrays = {name: np.asarray(value) for name, value in self.constants.items()}
        tensors = [
            numpy_helper.from_array(a.astype(np.float32) if a.dtype == np.float64 else a, name)
            for name, a in arrays.items()
        ]
        nodes = [
            helper.make_node(
                op, ["" if n == "-" else n for n in inputs.split()], outputs.split(), **attributes
            )
            for op, inputs, outputs, attributes in self.nodes
        ]
        infos = [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in self.inputs.items()]
        result = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
        graph = helper.make_graph(nodes, "test", infos, [result], tensors)
        opset = [helper.make_opsetid("", self.opset)]
        return helper.make_model(graph, opset_imports=opset, ir_version=10).SerializeToString()

    def imported(self) -> Model:
        """The model as the verifier reads it."""
        return import_model(_with_shape(self.model(), self.inputs))

    def points(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Flat inputs, exact in float32."""
        size = sum(int(np.prod(s)) for s in self.inputs.values())
        return rng.uniform(self.low, self.high, (count, size)).astype(np.float32).astype(np.float64)

    def feeds(self, point: np.ndarray) -> dict[str, np.ndarray]:
        """The inputs by name."""
        ends = np.cumsum([int(np.prod(s)) for s in self.inputs.values()])
        parts = np.split(point.astype(np.float32), ends[:-1])
        return {n: p.reshape(s) for (n, s), p in zip(self.inputs.items(), parts, strict=True)}


def _with_shape(data: bytes, inputs: dict[str, tuple[int, ...]]) -> bytes:
    """The output gets the shape that a run gives."""
    proto = onnx.load_from_string(data)
    result = session(data).run(None, {n: np.full(s, 0.5, np.float32) for n, s in inputs.items()})[0]
    proto.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, result.shape))
    return proto.SerializeToString()


def session(data: bytes) -> onnxruntime.InferenceSession:
    """A session without the rewriting of graphs."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])


def results(case: Case, points: np.ndarray) -> np.ndarray:
    """What onnxruntime computes, a flat row for each point."""
    run = session(case.model())
    return np.stack([run.run(None, case.feeds(p))[0].reshape(-1) for p in points])


def check_bounds(network: Network, centres: np.ndarray, rng: np.random.Generator) -> None:
    """All boxes and some backward bounds, at points of boxes of several widths: no tolerance."""
    radius = np.resize([0.0, 1e-6, 0.02, 0.2], len(centres))[:, None] * rng.random(centres.shape)
    lower, upper = centres - radius, centres + radius
    share = rng.random((24, *centres.shape))
    share[:8] = share[:8] < 0.5
    points = np.clip(lower + share * (upper - lower), lower, upper)
    flat = network.evaluate(points.reshape(-1, centres.shape[1]).astype(np.longdouble))
    values = [v.reshape((*points.shape[:2], *v.shape[1:])) for v in flat]
    rows = _rows(values[network.output].shape[-1], rng)
    exact = np.einsum("rn,sbn->sbr", rows.astype(np.longdouble), values[network.output])
    for method in ("ibp", "crown"):
        with np.errstate(all="ignore"):  # bounds may be infinite
            frame = propagate(network, Region(Box(lower, upper)), Effort(method), 2**20)
            found = bound_rows(frame, np.broadcast_to(rows, (len(centres), *rows.shape)).copy())
            bounds = found.concretize(frame.boxes[0])
        for k, value in enumerate(values):
            low, high = frame.boxes[k].lower, frame.boxes[k].upper
            assert not ((low > value) | (value > high)).any(), network.nodes[k]
        assert not (bounds > exact).any()


def _rows(size: int, rng: np.random.Generator) -> np.ndarray:
    unit = np.eye(size)[rng.permutation(size)[:MOST_ROWS]]
    return np.concatenate([unit, -unit, rng.normal(size=(2, size))])
