"""The official ONNX node tests: importer and forward evaluation, interval and backward bounds.

A node test passes its constants as graph inputs. Here every set of float inputs that is tried as data
(`_choices`) leaves the others as initializers; a test passes if the importer accepts at least one
choice and all accepted ones agree with the expected output.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from lpverify.bounds.linear import backward, centre_value
from lpverify.bounds.propagate import Region, propagate
from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.io.folding import ARITHMETIC, MOVES
from lpverify.io.onnx import Model, import_model
from lpverify.multipliers import Effort
from lpverify.network import Network
from lpverify.ops import REGISTRY

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
MOST_ROWS = 64  # output elements whose backward bounds are checked
LEAST_PASSED = 605


@cache
def _tests() -> dict[str, Any]:
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {test.name: test for test in load_model_tests(kind="node")}


def _supported(test: Any) -> bool:
    """Every node has an importer, or is one that folding takes; one at least has an importer."""
    names = {name for name, _ in REGISTRY.operators()}
    used = {node.op_type for node in test.model.graph.node}
    domains = {node.domain for node in test.model.graph.node}
    return domains == {""} and used <= names | MOVES | ARITHMETIC | {"Constant"} and bool(used & names)


def _names() -> list[str]:
    return sorted(name for name, test in _tests().items() if _supported(test))


def _skip_reason(test: Any) -> str | None:
    """Why a test is not about anything that a network over reals computes; None if it is."""
    values = [*test.data_sets[0][0], *test.data_sets[0][1]]
    if not all(isinstance(v, np.ndarray | np.generic) for v in values):
        return "string, sequence, optional or 8- to 16-bit type"
    inputs, outputs = ([np.asarray(v) for v in part] for part in test.data_sets[0])
    if not any(v.dtype in FLOATS and v.size for v in inputs):
        return "no float input"
    if not all(v.dtype in FLOATS for v in outputs):
        return "an output is not float"
    return None


def _choices(inputs: list[np.ndarray]) -> list[tuple[int, ...]]:
    """Sets of inputs to try as data: the first float one, the second, the first two, all."""
    floats = [i for i, v in enumerate(inputs) if v.dtype in FLOATS and v.size]
    tried = (floats[:1], floats[1:2], floats[:2], floats)
    return sorted({tuple(choice) for choice in tried if choice})


def _with_data(test: Any, inputs: list[np.ndarray], data: tuple[int, ...]) -> bytes:
    """The test's model with all inputs but those of `data` as initializers."""
    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    infos = list(model.graph.input)
    del model.graph.input[:]
    model.graph.input.extend(infos[i] for i in data)
    constants: list[TensorProto] = [
        numpy_helper.from_array(inputs[i], info.name) for i, info in enumerate(infos) if i not in data
    ]
    model.graph.initializer.extend(constants)
    return model.SerializeToString()


def _imported(test: Any) -> Iterator[tuple[Model, np.ndarray]]:
    """The accepted choices: models with their input points."""
    inputs = [np.asarray(v) for v in test.data_sets[0][0]]
    problems = []
    for data in _choices(inputs):
        try:
            model = import_model(_with_data(test, inputs, data))
        except UnsupportedError as error:
            problems.append(str(error))
            continue
        yield model, np.concatenate([inputs[i].reshape(-1).astype(np.float64) for i in data])
    if len(problems) == len(_choices(inputs)):
        raise UnsupportedError(problems[0])


def _check_value(name: str, model: Model, x: np.ndarray, outputs: list[np.ndarray]) -> None:
    assert model.outputs.shapes == tuple(v.shape for v in outputs)
    expected = np.concatenate([v.reshape(-1).astype(np.float64) for v in outputs])
    scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
    tolerance = 1e-3 if "last_window_starts_on_pad" in name else 1e-5  # expected: four digits
    np.testing.assert_allclose(
        model.network(x[None])[0], expected, rtol=tolerance, atol=tolerance / 10 * scale
    )


def _samples(lower: np.ndarray, upper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Points of the box: inner ones, corners, faces."""
    share = rng.uniform(size=(12, lower.size))
    share[4:8] = rng.integers(0, 2, size=(4, lower.size))
    share[8:] = np.clip(3 * share[8:] - 1, 0, 1)
    return np.clip(lower + share * (upper - lower), lower, upper)


def _exact(network: Network, points: np.ndarray) -> np.ndarray:
    """Results at the points, with 64-bit mantissas: 2048 times finer than what the bounds must cover."""
    assert np.finfo(np.longdouble).eps < 2.0**-60
    return network(points.astype(np.longdouble))


def _check_sound(network: Network, x: np.ndarray, rng: np.random.Generator) -> None:
    """Interval and backward bounds over a small box, against points of it: no tolerance."""
    radius = rng.uniform(0.0, 0.2, x.size) * rng.integers(0, 2, x.size)
    lower, upper = x - radius, x + radius
    values = _exact(network, _samples(lower, upper, rng))
    box = Box(lower[None], upper[None])
    frame = propagate(network, Region(box), Effort("ibp"), 2**20)
    result = frame.boxes[network.output]
    assert not np.isnan(values).all()  # part of a box may be outside of a function's domain
    assert not ((result.lower > values) | (values > result.upper)).any()
    chosen = rng.permutation(values.shape[1])[:MOST_ROWS]
    unit = (chosen[:, None] == np.arange(values.shape[1])).astype(np.float64)[None]
    for sign in (1.0, -1.0):
        at_centre = centre_value(sign * unit, frame.centres[network.output])
        linear = backward(frame, network.output, sign * unit, at_centre)
        assert not (linear.concretize(box)[0] > sign * values[:, chosen]).any()


@cache
def _outcome(name: str) -> str:
    """`passed`, or why the test is skipped.

    Raises:
        AssertionError: A value or bound is wrong.
    """
    test = _tests()[name]
    reason = _skip_reason(test)
    if reason is not None:
        return reason
    rng = np.random.default_rng(0)
    outputs = [np.asarray(v) for v in test.data_sets[0][1]]
    try:
        for model, x in _imported(test):
            _check_value(name, model, x, outputs)
            with np.errstate(all="ignore"):  # bounds may be infinite
                _check_sound(model.network, x, rng)
    except UnsupportedError as error:
        return "unsupported: " + str(error).rpartition(": ")[2]
    return "passed"


@pytest.mark.parametrize("name", _names())
def test_node(name: str) -> None:
    outcome = _outcome(name)
    if outcome != "passed":
        pytest.skip(outcome)


def test_most_node_tests_pass(record_property: Any) -> None:
    """No supported test turns into a skip unnoticed."""
    counts = Counter(_outcome(name) for name in _names())
    counts["no importer"] = len(_tests()) - len(_names())
    for reason, count in counts.most_common():
        record_property(reason, count)
        print(f"{count:5d}  {reason}")
    assert counts["passed"] >= LEAST_PASSED
