"""What `info` tells, from the models and queries it tells it of."""

import numpy as np
from onnx import TensorProto, helper, numpy_helper

from lpverify.info import as_text, describe_network, describe_query
from lpverify.io.onnx import import_model
from lpverify.io.vnnlib import parse_query

QUERY = """(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)
(assert (>= X_0 {0}))(assert (<= X_0 {1}))(assert (= X_1 0.5))
(assert (or (>= Y_0 9) (<= Y_0 -9)))"""


def example():
    """y = sum of relu(x_0 + x_1), relu(x_0 - x_1) and relu(5); a weight and a bias as Constant nodes."""
    weight = numpy_helper.from_array(np.array([[1, 1, 0], [1, -1, 0]], np.float32))
    bias = numpy_helper.from_array(np.array([0, 0, 5], np.float32))
    ones = numpy_helper.from_array(np.ones((3, 1), np.float32), "ones")
    nodes = [
        helper.make_node("Constant", [], ["w"], value=weight),
        helper.make_node("Constant", [], ["b"], value=bias),
        helper.make_node("Gemm", ["x", "w", "b"], ["z"], name="affine"),
        helper.make_node("Relu", ["z"], ["a"], name="relu"),
        helper.make_node("MatMul", ["a", "ones"], ["y"]),
    ]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, s]) for n, s in (("x", 2), ("y", 1))]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [ones])
    opset = [helper.make_opsetid("", 13)]
    return import_model(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString(), "e")


def test_network():
    told = describe_network(example())
    assert told["inputs"] == [{"name": "x", "type": "float32", "shape": [1, 2]}]
    assert told["outputs"] == [{"name": "y", "type": "float32", "shape": [1, 1]}]
    assert (told["parameters"], told["neurons"], told["onnx_nodes"]) == (12, 3, 5)
    assert told["onnx_ops"] == {"Constant": 2, "Gemm": 1, "MatMul": 1, "Relu": 1}
    assert told["opsets"] == {"ai.onnx": 13}
    assert told["values"][0]["op"] == "input"
    assert [v["name"] for v in told["values"] if v["op"] == "Relu"] == ["relu"]


def test_query():
    told = describe_query(example(), parse_query(QUERY.format(-1, 1)))
    assert (told["cases"], told["inputs"], told["free_inputs"]) == (1, 2, 1)
    (layer,) = told["layers"]
    assert (layer["neurons"], layer["unstable_ibp"], layer["unstable_crown"]) == (3, 2, 2)
    (layer,) = describe_query(example(), parse_query(QUERY.format(1, 2)))["layers"]
    assert layer["unstable_ibp"] == 0


def test_empty_query():
    told = describe_query(example(), parse_query(QUERY.format(2, 1)))
    assert (told["cases"], told["free_inputs"], told["layers"]) == (0, None, [])
    assert "note        1 of 1 input sets are empty" in as_text(describe_network(example()), told)


def test_text():
    text = as_text(
        describe_network(example()), describe_query(example(), parse_query(QUERY.format(-1, 1), "q"))
    )
    assert "ONNX nodes  5: 2 Constant, 1 Gemm, 1 MatMul, 1 Relu" in text
    assert "free inputs 1 of 2 (first case)" in text
    assert text.endswith("\n")
    assert not any(line.endswith(" ") for line in text.splitlines())
    assert "query" not in as_text(describe_network(example()), None)
