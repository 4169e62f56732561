"""Small networks and problems that many tests use."""

import itertools
from fractions import Fraction

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lpverify.io.onnx import Model, import_model
from lpverify.io.vnnlib import parse_query
from lpverify.query import Query


def dense_model(layers: list[tuple[np.ndarray, np.ndarray]]) -> Model:
    """Gemm and Relu in turn, the last layer linear; weights `(in, out)` float32."""
    nodes, tensors, value = [], [], "x"
    for i, (weight, bias) in enumerate(layers):
        tensors.append(numpy_helper.from_array(np.asarray(weight, np.float32), f"w{i}"))
        tensors.append(numpy_helper.from_array(np.asarray(bias, np.float32), f"b{i}"))
        result = "y" if i == len(layers) - 1 else f"z{i}"
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [result]))
        if result != "y":
            nodes.append(helper.make_node("Relu", [result], [f"x{i}"]))
            value = f"x{i}"
    sizes = layers[0][0].shape[0], layers[-1][0].shape[1]
    return model_of(nodes, tensors, sizes)


def model_of(nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], sizes: tuple[int, int]) -> Model:
    """A model from `x` `(1, n)` to `y` `(1, m)`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, sizes[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, sizes[1]])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return import_model(proto.SerializeToString())


def random_dense(seed: int, sizes: tuple[int, ...]) -> Model:
    """A random dense ReLU network."""
    rng = np.random.default_rng(seed)
    return dense_model(
        [(rng.normal(size=(a, b)), 0.3 * rng.normal(size=b)) for a, b in itertools.pairwise(sizes)]
    )


def query_of(model: Model, body: str) -> Query:
    """A query with declarations for the model and the given assertions."""
    inputs, outputs = sum(model.inputs.sizes), sum(model.outputs.sizes)
    declarations = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    declarations += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    return parse_query("\n".join([*declarations, body]))


def box_assertions(lower: list[object], upper: list[object]) -> str:
    """Bounds on all inputs."""
    return "\n".join(
        f"(assert (and (>= X_{i} {low}) (<= X_{i} {high})))"
        for i, (low, high) in enumerate(zip(lower, upper, strict=True))
    )


def exact_dense(layers: list[tuple[np.ndarray, np.ndarray]], x: list[Fraction]) -> list[Fraction]:
    """The network's output over the rationals."""
    for i, (weight, bias) in enumerate(layers):
        columns = [[Fraction(float(np.float32(v))) for v in column] for column in np.asarray(weight).T]
        x = [
            sum((w * v for w, v in zip(column, x, strict=True)), Fraction(float(np.float32(b))))
            for column, b in zip(columns, bias, strict=True)
        ]
        if i < len(layers) - 1:
            x = [max(v, Fraction(0)) for v in x]
    return x
