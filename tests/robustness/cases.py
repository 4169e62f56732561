"""Small classifiers, samples and points of balls, for the tests of this folder."""

import itertools
import math
from fractions import Fraction

import numpy as np
from helpers import dense_model, model_of
from onnx import helper, numpy_helper

from lpverify.io.onnx import Model
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat

Layers = list[tuple[np.ndarray, np.ndarray]]


def layers_of(seed: int, sizes: tuple[int, ...]) -> Layers:
    """Random float32 layers; weights `(in, out)` are multiples of 1/64."""
    rng = np.random.default_rng(seed)
    found = []
    for a, b in itertools.pairwise(sizes):
        weight, bias = rng.normal(size=(a, b)), 0.3 * rng.normal(size=b)
        found.append(tuple((np.round(64 * v) / 64).astype(np.float32) for v in (weight, bias)))
    return found


def classifier(layers: Layers, activation: str = "Relu", head: str | None = None) -> Model:
    """Dense layers with an activation between them, and a function of the last result such as `Softmax`."""
    if activation == "Relu" and head is None:
        return dense_model(layers)
    nodes, tensors, value = [], [], "x"
    for i, parts in enumerate(layers):
        last = i == len(layers) - 1
        tensors += [
            numpy_helper.from_array(part, f"{kind}{i}") for kind, part in zip("wb", parts, strict=True)
        ]
        result = "y" if last and head is None else f"z{i}"
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [result]))
        if not last:
            nodes.append(helper.make_node(activation, [result], [f"x{i}"]))
            value = f"x{i}"
        elif head is not None:
            nodes.append(helper.make_node(head, [result], ["y"], axis=1))
    return model_of(nodes, tensors, (layers[0][0].shape[0], layers[-1][0].shape[1]))


def samples_for(model: Model, count: int, seed: int = 0) -> Samples:
    """Random inputs in [0, 1], multiples of 1/256, with the labels that the network gives them."""
    n = model.network.input_size
    x = np.random.default_rng(seed).integers(0, 257, (count, n)) / 256
    y = model.network(x).argmax(axis=-1).astype(np.int64)
    return Samples(x, y, tuple(f"s{i}" for i in range(count)), (n,))


def least_lead(outputs: list, label: int, threat: Threat):
    """The smallest lead of the label over its rivals."""
    return min(outputs[label] - outputs[rival] for rival in threat.rivals(label))


def points_of(
    x: np.ndarray, eps: Fraction, threat: Threat, count: int, seed: int = 0
) -> list[list[Fraction]]:
    """Exact points of a ball cut by the range: its centre, and others mostly on its surface."""
    rng, exact = np.random.default_rng(seed), [Fraction(v) for v in x.tolist()]
    shares = [_share(rng, len(exact), threat.norm) for _ in range(count)]
    moves = [[Fraction(0)] * len(exact), *([eps * v for v in share] for share in shares)]
    points = [[c + d for c, d in zip(exact, move, strict=True)] for move in moves]
    if threat.clip is None:
        return points
    low, high = (Fraction(end) for end in threat.clip)  # cutting moves towards the sample, which is in it
    return [[min(max(v, low), high) for v in point] for point in points]


def _share(rng: np.random.Generator, n: int, norm: float) -> list[Fraction]:
    """A random point of the unit ball, exactly in it."""
    if norm == math.inf:
        return [Fraction(v) for v in rng.choice([-1.0, 1.0, rng.uniform(-1, 1)], n).tolist()]
    if rng.random() < 0.3:  # corners of the ball of norm 1
        corner = [Fraction(0)] * n
        corner[rng.integers(n)] = Fraction(int(rng.choice([-1, 1])))
        return corner
    share = [Fraction(v) for v in rng.normal(size=n).tolist()]
    size = sum(abs(v) for v in share)
    if norm == 2:
        square = sum(v * v for v in share)
        size = Fraction(math.sqrt(square)) * (1 + Fraction(1, 2**50))
        assert size * size >= square
    return [v / size for v in share]


def convolutional(seed: int) -> Model:
    """A convolution, a ReLU and a dense layer: 1x6x6 inputs, three classes."""
    rng = np.random.default_rng(seed)
    shapes = {"k": (2, 1, 3, 3), "w": (72, 3), "b": (3,)}
    arrays = {k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()}
    nodes = [
        helper.make_node("Reshape", ["x", "square"], ["image"]),
        helper.make_node("Conv", ["image", "k"], ["c"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("Gemm", ["f", "w", "b"], ["y"]),
    ]
    tensors = [numpy_helper.from_array(a, k) for k, a in arrays.items()]
    tensors.append(numpy_helper.from_array(np.array([1, 1, 6, 6]), "square"))
    return model_of(nodes, tensors, (36, 3))
