"""The official ONNX node tests: importer and forward evaluation, interval and backward bounds.

A node test passes its constants as graph inputs. Here every set of inputs that is tried as data (`_choices`)
leaves the others as initializers; a test passes if the importer accepts at least one choice and all accepted
ones agree with the expected output: floats to their precision, whole numbers and truth values exactly.
"""

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
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
from lpverify.io.element_types import NAMES
from lpverify.io.folding import ARITHMETIC, MOVES
from lpverify.io.onnx import Model, import_model
from lpverify.multipliers import Effort
from lpverify.network import Network
from lpverify.ops import REGISTRY

FLOATS = ("float16", "bfloat16", "float32", "float64")
PRECISION = {"float16": 2e-3, "bfloat16": 2e-2}  # else 1e-5
MOST_ROWS = 64  # output elements whose backward bounds are checked
LEAST_PASSED = 1126


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


def _arrays(values: list[Any]) -> list[Any]:
    """Tensors of types that NumPy does not have are given as they are stored."""
    return [numpy_helper.to_array(v) if isinstance(v, TensorProto) else v for v in values]


def _data(test: Any) -> tuple[list[Any], list[Any]]:
    """Inputs and expected outputs."""
    inputs, outputs = (_arrays(part) for part in test.data_sets[0])
    return inputs, outputs


def _skip_reason(test: Any) -> str | None:
    """Why a test is not about anything that a network over reals computes; None if it is."""
    inputs, outputs = _data(test)
    if not all(isinstance(v, np.ndarray | np.generic) for v in inputs + outputs):
        return "a sequence or an optional value"
    if not all(v.dtype.name in NAMES.values() for v in inputs + outputs):
        return "strings, complex numbers or a type of 2 to 8 bits"
    if not all(np.isfinite(v.astype(np.float64)).all() for v in outputs):
        return "an expected output is not finite"
    if not _choices(inputs):
        return "no finite input of reals"
    return None


def _is_float(array: np.ndarray) -> bool:
    return array.dtype.name in FLOATS


def _choices(inputs: list[np.ndarray]) -> list[tuple[int, ...]]:
    """Sets of inputs to try as data, of floats and of others: the first, the second, these two, all."""
    usable = [i for i, v in enumerate(inputs) if v.size and _is_real(v)]
    floats = [i for i in usable if _is_float(inputs[i])]
    whole = [i for i in usable if i not in floats]
    tried = [part for kind in (floats, whole) for part in (kind[:1], kind[1:2], kind[:2], kind)]
    return sorted({tuple(choice) for choice in (*tried, usable) if choice})


def _is_real(array: np.ndarray) -> bool:
    """Finite numbers that are exact in float64."""
    wide = array.astype(np.float64)
    return bool(np.isfinite(wide).all()) and bool((wide.astype(array.dtype) == array).all())


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


@dataclass(frozen=True)
class Imported:
    """A model whose inputs are the chosen ones, and the point of the test with its element types."""

    model: Model
    x: np.ndarray
    dtypes: tuple[np.dtype, ...]

    def box(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """A small box around the point, in the range of each type."""
        radius = rng.uniform(0.0, 0.2, self.x.size) * rng.integers(0, 2, self.x.size)
        steps = rng.integers(0, 3, self.x.size) * rng.integers(0, 2, self.x.size)
        radius = np.where(self.whole, steps, radius)
        ends = [_range(t) for t in self.dtypes]
        least, most = np.array(ends, np.float64).reshape(-1, 2).T
        return np.maximum(self.x - radius, least), np.minimum(self.x + radius, most)

    @property
    def whole(self) -> np.ndarray:
        """Mask of the inputs that are whole numbers or truth values."""
        return np.array([t.kind in "iub" for t in self.dtypes])

    def samples(self, lower: np.ndarray, upper: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Points of the box: the test's own, inner ones, corners, faces."""
        share = rng.uniform(size=(12, lower.size))
        share[4:8] = rng.integers(0, 2, size=(4, lower.size))
        share[8:] = np.clip(3 * share[8:] - 1, 0, 1)
        points = np.concatenate([self.x[None], lower + share * (upper - lower)])
        return np.clip(np.where(self.whole, np.round(points), points), lower, upper)


def _range(dtype: np.dtype) -> tuple[float, float]:
    if dtype.kind == "b":
        return 0, 1
    return (np.iinfo(dtype).min, np.iinfo(dtype).max) if dtype.kind in "iu" else (-np.inf, np.inf)


def _imported(test: Any) -> Iterator[Imported]:
    """The accepted choices."""
    inputs = _data(test)[0]
    problems = []
    for data in _choices(inputs):
        try:
            model = import_model(_with_data(test, inputs, data))
        except UnsupportedError as error:
            problems.append(str(error))
            continue
        parts = [inputs[i].reshape(-1) for i in data]
        dtypes = tuple(v.dtype for v in parts for _ in range(v.size))
        yield Imported(model, np.concatenate([v.astype(np.float64) for v in parts]), dtypes)
    if len(problems) == len(_choices(inputs)):
        raise UnsupportedError(problems[0])


def _is_defined(case: Imported) -> bool:
    """Whether the results over the reals exist at the point; where they don't, nothing may be claimed."""
    network, x = case.model.network, case.x[None]
    undefined = np.isnan(network(x))
    if not undefined.any():
        return True
    result = propagate(network, Region(Box(x, x)), Effort("ibp"), 2**20).boxes[network.output]
    assert not (np.isfinite(result.lower) & np.isfinite(result.upper))[undefined].any()
    return False


def _check_value(case: Imported, outputs: list[np.ndarray]) -> None:
    assert case.model.outputs.shapes == tuple(v.shape for v in outputs)
    results, start = case.model.network(case.x[None])[0], 0
    for output in outputs:
        expected, got = output.reshape(-1).astype(np.float64), results[start : start + output.size]
        start += output.size
        if not _is_float(output):
            np.testing.assert_array_equal(got, expected)
            continue
        scale = max(1.0, float(np.abs(expected).max(initial=0.0)))
        tolerance = PRECISION.get(output.dtype.name, 1e-5)
        absolute = max(tolerance / 10 * scale, 1e-4 if _is_typed(output) else 0.0)
        np.testing.assert_allclose(got, expected, rtol=tolerance, atol=absolute)


def _is_typed(output: np.ndarray) -> bool:
    """Whether expected numbers were written down with four decimals."""
    return bool((np.round(output.astype(np.float64), 4).astype(output.dtype) == output).all())


def _exact(network: Network, points: np.ndarray) -> np.ndarray:
    """Results at the points, with 64-bit mantissas: 2048 times finer than what the bounds must cover."""
    assert np.finfo(np.longdouble).eps < 2.0**-60
    return network(points.astype(np.longdouble))


def _check_sound(case: Imported, rng: np.random.Generator) -> None:
    """Interval and backward bounds over a small box, against points of it: no tolerance."""
    network, (lower, upper) = case.model.network, case.box(rng)
    values = _exact(network, case.samples(lower, upper, rng))
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
    outputs = _data(test)[1]
    outcome = "undefined at the point of the test"
    try:
        for case in _imported(test):
            with np.errstate(all="ignore"):  # values may be undefined, bounds infinite
                if _is_defined(case):
                    _check_value(case, outputs)
                    _check_sound(case, rng)
                    outcome = "passed"
    except UnsupportedError as error:
        return "unsupported: " + str(error).rpartition(": ")[2]
    return outcome


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
