"""The comparison with onnxruntime: agrees on sound imports, refuses wrong ones and NaN."""

from dataclasses import replace

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from lpverify.errors import InternalError
from lpverify.import_check import check_import
from lpverify.io.onnx import import_model
from lpverify.io.vnnlib import parse_query
from lpverify.problem import compile_problem

QUERY = """(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)
(assert (>= X_0 {low}))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))(assert (>= Y_0 9))"""


def linear(weights):
    """y = w . x as a model and its problem."""

    def info(name, size):
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])

    tensor = numpy_helper.from_array(np.array(weights, np.float32)[:, None], "w")
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([node], "g", [info("x", 2)], [info("y", 1)], [tensor])
    opset = [helper.make_opsetid("", 13)]
    return import_model(helper.make_model(graph, opset_imports=opset, ir_version=8).SerializeToString())


def problem_of(model, low="0"):
    return compile_problem(model.network, parse_query(QUERY.format(low=low)))


def test_agreement():
    model = linear([0.1, 0.7])
    agreement = check_import(model, problem_of(model), seed=1)
    assert agreement.difference <= 1e-6 * agreement.scale
    assert 0.1 < agreement.scale <= 0.81


def test_points_are_the_same_for_the_same_seed():
    model = linear([0.1, 0.7])
    first, second = (check_import(model, problem_of(model), seed=2) for _ in range(2))
    assert first == second


@pytest.mark.parametrize(
    ("weights", "good"), [([0.10001, 0.7], True), ([0.102, 0.7], False), ([0, 0], False)]
)
def test_wrong_networks(weights, good):
    model = linear([0.1, 0.7])
    wrong = replace(model, network=linear(weights).network)
    if good:
        check_import(wrong, problem_of(wrong), seed=0)
        return
    with pytest.raises(InternalError, match="differs from onnxruntime by"):
        check_import(wrong, problem_of(wrong), seed=0)


def test_nan_never_agrees(monkeypatch):
    model = linear([0.1, 0.7])
    problem = problem_of(model)
    monkeypatch.setattr("lpverify.replay.Replayer.run", lambda self, inputs: np.array([np.nan], np.float32))
    with pytest.raises(InternalError, match="differs from onnxruntime by nan"):
        check_import(model, problem, seed=0)


def test_an_empty_input_set_has_nothing_to_compare():
    model = linear([0.1, 0.7])
    assert check_import(model, problem_of(model, low="2"), seed=0).scale == 0.0
