"""Noise, and the ways to evaluate networks on it."""

import math

import numpy as np
import pytest
from helpers import dense_model, model_of
from onnx import helper, numpy_helper
from scipy.stats import kstest
from smoothing_models import SIGMA, WEIGHT, at_distance, linear

from lpverify.errors import InputError
from lpverify.io.batched import BatchedRuntime, batched_runtime
from lpverify.io.onnx import Model, import_model
from lpverify.loading import LoadedNetwork
from lpverify.robustness.smoothing import sampling
from lpverify.robustness.smoothing.certifier import smooth_certify
from lpverify.robustness.smoothing.noise import BLOCK, NormalStream
from lpverify.robustness.smoothing.sampling import Classifier, NoisyInput, classes_of
from lpverify.robustness.smoothing.settings import SmoothingSettings


def test_selection_and_estimate_have_noise_of_their_own() -> None:
    point = NoisyInput(Classifier(linear().model), SmoothingSettings(SIGMA), np.zeros(3), 0)
    drawn = {purpose: tuple(point.draw(purpose, 2001)) for purpose in sampling.PURPOSES}
    assert len(set(drawn.values())) == len(drawn)


def test_noise_is_normal() -> None:
    parts = np.empty(3 * BLOCK + 10, np.float32)
    NormalStream(5, 1, 2).fill(parts)
    assert kstest(parts, "norm").pvalue > 0.01
    assert abs(float((parts[1:] * parts[:-1]).mean())) < 4 / math.sqrt(len(parts))
    assert np.abs(parts).max() < 6.8 and abs(float(parts.std()) - 1) < 0.01
    pieces, stream = np.empty_like(parts), NormalStream(5, 1, 2)
    for start, end in ((0, 1), (1, BLOCK + 5), (BLOCK + 5, len(parts))):
        stream.fill(pieces[start:end])
    assert np.array_equal(parts, pieces)


def test_noise_has_the_standard_deviation_and_is_not_clipped() -> None:
    seen = []
    classifier = Classifier(linear().model)
    point = NoisyInput(classifier, SmoothingSettings(2.0), np.array([0.0, 1.0, 0.5]), 0)

    def record(points: np.ndarray) -> np.ndarray:
        seen.append(points.copy())
        return np.zeros((len(points), 2))

    point._engine = record
    assert point.draw("estimation", 5000).tolist() == [5000, 0, 0]  # equal outputs: the first class
    noise = np.concatenate(seen) - np.array([0.0, 1.0, 0.5])
    assert np.allclose(noise.std(axis=0), 2.0, rtol=0.05) and np.allclose(noise.mean(axis=0), 0.0, atol=0.12)


def test_classes_of_ties_and_nan() -> None:
    outputs = np.array([[1.0, 1.0], [0.0, 2.0], [np.nan, 5.0], [5.0, np.nan], [np.inf, 1.0]])
    assert classes_of(outputs).tolist() == [0, 1, 2, 2, 0]


def test_outputs_that_are_nan_count_against_the_class() -> None:
    """`inf - inf` where x > 0."""
    split = [
        (np.array([[1e30, 1e30]]), np.zeros(2)),
        (np.array([[1e30, 0.0], [0.0, 1e30]]), np.zeros(2)),
        (np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([1.0, 0.0])),
    ]
    network = LoadedNetwork(dense_model(split))
    (found,) = smooth_certify(network, np.zeros(1), sigma=SIGMA, n=1000)
    assert found.counts[1] == 0 and 400 < found.counts[2] < 600 and sum(found.counts) == 1000
    assert found.abstained
    (undefined,) = smooth_certify(network, np.array([50.0]), sigma=SIGMA, n=1000)
    assert undefined.selected == -1 and undefined.n == 0 and undefined.abstained
    assert undefined.p_lower == 0.0


def fixed_batch() -> Model:
    """A reshape that insists on one point."""
    weight = numpy_helper.from_array(WEIGHT.reshape(3, 1).astype(np.float32) @ np.float32([[1, 0]]), "w")
    shape = numpy_helper.from_array(np.array([1, 3]), "s")
    nodes = [helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("MatMul", ["r", "w"], ["y"])]
    return model_of(nodes, [weight, shape], (3, 2))


def mixing() -> Model:
    """Subtracts the mean over the batch, which is the point itself if it is alone: class 0 always."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["x", "m"], ["d"]),
        helper.make_node("Neg", ["d"], ["y"]),
    ]
    return model_of(nodes, [], (3, 3))


def test_engines() -> None:
    points = np.random.default_rng(1).normal(size=(7, 3)).astype(np.float32)
    assert isinstance(Classifier(linear().model).engine_for(points), BatchedRuntime)
    for model in (fixed_batch(), mixing()):
        classifier = Classifier(model)
        engine = classifier.engine_for(points)
        assert not isinstance(engine, BatchedRuntime) and engine != classifier.one_by_one
        assert np.allclose(engine(points), classifier.one_by_one(points), atol=1e-5)
    runtime = batched_runtime(mixing())
    assert runtime is not None
    assert not np.allclose(runtime(points), Classifier(mixing()).one_by_one(points))


def test_networks_without_an_axis_for_points_give_the_same_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = smooth_certify(linear(), at_distance(0.25), sigma=SIGMA, n=300)[0].counts
    network = LoadedNetwork(fixed_batch())
    assert smooth_certify(network, at_distance(0.25), sigma=SIGMA, n=300)[0].counts == expected
    (constant,) = smooth_certify(LoadedNetwork(mixing()), np.ones(3), sigma=SIGMA, n=300)
    assert constant.counts == (300, 0, 0, 0)
    monkeypatch.setattr(sampling, "_agrees", lambda *_: False)
    assert smooth_certify(linear(), at_distance(0.25), sigma=SIGMA, n=300)[0].counts == expected


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_other_types_of_floats(dtype: type) -> None:
    """Noise is the same, so that counts differ where rounding moves a point across the boundary only."""
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    weight = np.stack([WEIGHT, np.zeros(3)], axis=1).astype(dtype)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", kind, ["N", 3])],
        [helper.make_tensor_value_info("y", kind, ["N", 2])],
        [numpy_helper.from_array(weight, "w")],
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    network = LoadedNetwork(import_model(proto.SerializeToString()))
    x = at_distance(0.25)
    (found,), (single,) = (smooth_certify(k, x, sigma=SIGMA, n=2000) for k in (network, linear()))
    assert abs(found.counts[0] - single.counts[0]) <= 4
    if dtype == np.float16:
        with pytest.raises(InputError, match="float16"):
            smooth_certify(network, 1e5 * np.ones(3), sigma=SIGMA)


def test_convolutions_that_need_the_imported_network(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = np.random.default_rng(2).normal(size=(2, 1, 2, 2)).astype(np.float32)
    constants = {"k": kernel, "in": np.array([1, 1, 3, 3]), "out": np.array([1, 8])}
    nodes = [
        helper.make_node("Reshape", ["x", "in"], ["image"]),
        helper.make_node("Conv", ["image", "k"], ["c"]),
        helper.make_node("Reshape", ["c", "out"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in constants.items()]
    network = LoadedNetwork(model_of(nodes, tensors, (9, 8)))
    monkeypatch.setattr(sampling, "TORCH_WORK", 0)
    (by_torch,) = smooth_certify(network, np.ones(9), sigma=SIGMA, n=200)
    classifier = Classifier(network.model)
    assert classifier.engine_for(np.ones((7, 9), np.float32)) == classifier._network
    monkeypatch.setattr(sampling, "_agrees", lambda *_: False)
    assert smooth_certify(network, np.ones(9), sigma=SIGMA, n=200)[0].counts == by_torch.counts


def test_batches_that_fail_are_done_point_by_point() -> None:
    classifier = Classifier(linear().model)
    point = NoisyInput(classifier, SmoothingSettings(SIGMA), at_distance(0.25), 0)
    expected = point.draw("estimation", 300).tolist()
    point = NoisyInput(classifier, SmoothingSettings(SIGMA), at_distance(0.25), 0)
    point._engine = lambda points: None
    assert point.draw("estimation", 300).tolist() == expected
