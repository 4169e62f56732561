"""Small models as files and queries of VNN-LIB 2 about several of them, for tests."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from helpers import graph_proto, model_proto
from onnx import TensorProto, helper

FLOAT, INT64, BOOL = TensorProto.FLOAT, TensorProto.INT64, TensorProto.BOOL
node = helper.make_node


def saved(folder: Path, name: str, proto: onnx.ModelProto) -> str:
    """Writes a model; returns its path."""
    path = folder / f"{name}.onnx"
    path.write_bytes(proto.SerializeToString())
    return str(path)


def dense(seed: int, sizes: tuple[int, int, int], batch: int | str | None = 1) -> onnx.ModelProto:
    """`y = W relu(V x + b) + c` with a hidden tensor `h` before and `r` behind the rectifier."""
    rng = np.random.default_rng(seed)
    a, b, c = sizes
    weights = {
        "V": rng.normal(size=(a, b)),
        "b": rng.normal(size=b),
        "W": rng.normal(size=(b, c)),
        "c": rng.normal(size=c),
    }
    constants = {k: np.round(v * 64).astype(np.float32) / 64 for k, v in weights.items()}
    nodes = [
        node("Gemm", ["x", "V", "b"], ["h"]),
        node("Relu", ["h"], ["r"]),
        node("Gemm", ["r", "W", "c"], ["y"]),
    ]
    return model_proto(graph_proto(nodes, {"x": (FLOAT, [batch, a])}, {"y": FLOAT}, constants), 13)


def two_by_two() -> onnx.ModelProto:
    """Inputs `a` (2,) and scalar `s`, outputs `sum` (2,), `count` (int64, scalar), `flag` (bool, (2,))."""
    nodes = [
        node("Add", ["a", "s"], ["sum"]),
        node("Greater", ["sum", "zero"], ["flag"]),
        node("Cast", ["flag"], ["ones"], to=INT64),
        node("ReduceSum", ["ones"], ["count"], keepdims=0),
    ]
    constants = {"zero": np.zeros((), np.float32)}
    inputs = {"a": (FLOAT, [2]), "s": (FLOAT, [])}
    return model_proto(
        graph_proto(nodes, inputs, {"sum": FLOAT, "count": INT64, "flag": BOOL}, constants), 13
    )


def header(*networks: str) -> str:
    """The beginning of a query that declares networks given as `name extra: declarations`."""
    parts = ["(vnnlib-version <2.0>)"]
    for network in networks:
        names, _, body = network.partition(":")
        parts.append(f"(declare-network {names}\n{body})")
    return "\n".join(parts) + "\n"


def tensors(inputs: Sequence[str], outputs: Sequence[str], hidden: Sequence[str] = ()) -> str:
    """Declarations such as `X real [1,2]`."""
    kinds: Mapping[str, Sequence[str]] = {"input": inputs, "hidden": hidden, "output": outputs}
    return "\n".join(f"(declare-{kind} {text})" for kind, texts in kinds.items() for text in texts)
