"""Small networks and problems that many tests use."""

import itertools
from fractions import Fraction

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lpverify.io.limits import DEFAULT_LIMITS, ModelLimits
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


def model_of(
    nodes: list[onnx.NodeProto], tensors: list[onnx.TensorProto], sizes: tuple[int, int], opset: int = 13
) -> Model:
    """A model from `x` `(1, n)` to `y` `(1, m)`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, sizes[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, sizes[1]])
    graph = helper.make_graph(nodes, "g", [x], [y], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
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


def graph_proto(
    nodes: list[onnx.NodeProto],
    inputs: dict[str, tuple[int, list[int] | None]],
    outputs: dict[str, int],
    constants: dict[str, np.ndarray] | None = None,
) -> onnx.GraphProto:
    """A graph; inputs are element type and shape by name, outputs element types."""
    return helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(np.asarray(array), name) for name, array in (constants or {}).items()],
    )


def model_proto(graph: onnx.GraphProto, opset: int = 18, functions: tuple = ()) -> onnx.ModelProto:
    """A model of a graph; the functions' domains are imported in version 1."""
    domains = {"": opset} | {f.domain: 1 for f in functions}
    imports = [helper.make_opsetid(domain, version) for domain, version in domains.items()]
    return helper.make_model(graph, opset_imports=imports, functions=list(functions), ir_version=10)


def runtime_outputs(data: bytes, feeds: dict[str, np.ndarray]) -> list[np.ndarray]:
    """What onnxruntime computes."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def agrees(proto: onnx.ModelProto, points: int = 3, seed: int = 0) -> Model:
    """Imports a model whose inputs are floats and compares it with onnxruntime at random points."""
    data = proto.SerializeToString()
    model, rng = import_model(data), np.random.default_rng(seed)
    for _ in range(points):
        flat = rng.normal(size=sum(model.inputs.sizes)).astype(np.float32)
        feeds = {t.name: flat[t.part].astype(t.dtype).reshape(t.shape) for t in model.inputs.tensors}
        expected = runtime_outputs(data, feeds)
        assert model.outputs.shapes == tuple(e.shape for e in expected)
        flat_expected = np.concatenate([np.asarray(e, np.float64).reshape(-1) for e in expected])
        np.testing.assert_allclose(model.network(flat[None].astype(np.float64))[0], flat_expected, atol=1e-5)
    return model


def calling(
    nodes: list[onnx.NodeProto],
    *functions: onnx.FunctionProto,
    constants: dict[str, np.ndarray] | None = None,
) -> onnx.ModelProto:
    """A model from x (2, 3) to y."""
    graph = graph_proto(nodes, {"x": (TensorProto.FLOAT, [2, 3])}, {"y": TensorProto.FLOAT}, constants)
    return model_proto(graph, functions=functions)


def branch(
    nodes: list[onnx.NodeProto], output: str = "r", constants: dict[str, np.ndarray] | None = None
) -> onnx.GraphProto:
    """A branch of `If` with one result."""
    return graph_proto(nodes, {}, {output: TensorProto.FLOAT}, constants)


def refused(
    proto: onnx.ModelProto, error: type[Exception], message: str, limits: ModelLimits = DEFAULT_LIMITS
) -> None:
    """The import must end in that error; the name of the file is its first word, once."""
    import pytest

    with pytest.raises(error, match=message) as caught:
        import_model(proto.SerializeToString(), "model.onnx", limits=limits)
    assert str(caught.value).startswith("model.onnx: ")
    assert str(caught.value).count("model.onnx") == 1
