"""What a hostile network file is, and how to make one.

Every case is a function from a folder to the path of the file it has written there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from helpers import graph_proto, model_proto
from onnx import TensorProto, helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node
REFUSED = "OnnxError|UnsupportedError"  # a matter of taste
EYE = np.eye(2, dtype=np.float32)
HUGE = 2**40
IMAGE = [1, 1, 4, 4]


@dataclass(frozen=True)
class Case:
    """One file. `error` is the class of the error, "" if the file is to be accepted."""

    name: str
    write: Callable[[Path], Path]
    error: str
    message: str = ""


CASES: list[Case] = []


def case(
    name: str, error: str, message: str = ""
) -> Callable[[Callable[[Path], Path]], Callable[[Path], Path]]:
    """Decorator: adds a function from folder to path."""

    def decorate(function: Callable[[Path], Path]) -> Callable[[Path], Path]:
        CASES.append(Case(name, function, error, message))
        return function

    return decorate


def add(name: str, make: Callable[[], Any], error: str, message: str = "") -> None:
    """A case whose file is a model, or bytes."""

    def write(folder: Path) -> Path:
        made = make()
        path = folder / "model.onnx"
        path.write_bytes(made if isinstance(made, bytes) else made.SerializeToString())
        return path

    CASES.append(Case(name, write, error, message))


def net(
    nodes: list[onnx.NodeProto],
    constants: dict[str, np.ndarray] | None = None,
    shape: list[Any] | None = None,
    kind: int = FLOAT,
    opset: int = 18,
) -> onnx.ModelProto:
    """A model from x (1, 2, unless told) to y."""
    graph = graph_proto(nodes, {"x": (kind, [1, 2] if shape is None else shape)}, {"y": FLOAT}, constants)
    return model_proto(graph, opset)


def ints(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


def one(
    op: str,
    *constants: np.ndarray | None,
    shape: list[Any] | None = None,
    opset: int = 18,
    kind: int = FLOAT,
    **given: Any,
) -> Callable[[], Any]:
    """A model of one node, x and constants its operands."""
    names = [f"c{i}" if c is not None else "" for i, c in enumerate(constants)]
    known = {n: c for n, c in zip(names, constants, strict=True) if c is not None}
    return lambda: net([node(op, ["x", *names], ["y"], **given)], known, shape, kind, opset)


def folded(op: str, *constants: np.ndarray, opset: int = 18, **given: Any) -> Callable[[], Any]:
    """A node of constants whose result meets x."""
    names = [f"c{i}" for i in range(len(constants))]
    nodes = [node(op, names, ["k"], **given), node("ReduceMax", ["k"], ["s"]), node("Add", ["x", "s"], ["y"])]
    return lambda: net(nodes, dict(zip(names, constants, strict=True)), opset=opset)


def weights(tensor: TensorProto, shape: list[int] | None = None) -> onnx.ModelProto:
    """y = x + w."""
    proto = net([node("Add", ["x", "w"], ["y"])], shape=shape)
    tensor.name = "w"
    proto.graph.initializer.append(tensor)
    return proto


def tensor(dims: list[int], kind: int = FLOAT, **given: Any) -> TensorProto:
    return TensorProto(dims=dims, data_type=kind, **given)
