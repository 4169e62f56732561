"""Bounds of random networks against samples, and against exact values where the network is tiny.

Samples are evaluated in extended precision (`longdouble`), whose error is far below the rounding that
float64 bounds account for; exact ones in fractions. Nothing is compared with a tolerance.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Any

import numpy as np
import oracle
import pytest
from onnx import TensorProto, helper, numpy_helper

from lpverify.bounds.alpha import bound_rows, initial, optimise
from lpverify.bounds.frame import Frame
from lpverify.bounds.linear import Sides
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.subproblem import clamp
from lpverify.interval import Box, intersect
from lpverify.io.onnx import import_model
from lpverify.multipliers import Effort, Multipliers, Schedule
from lpverify.network import Network

SAMPLES = 2000
LIMIT = 2**18
IMAGE = (2, 6, 6)


class Graph:
    """A small ONNX graph under construction; `last` is the value to go on from."""

    def __init__(self, rng: np.random.Generator, shape: tuple[int, ...]) -> None:
        self.rng, self.shape, self.last = rng, shape, "x"
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def constant(self, array: np.ndarray) -> str:
        name = f"c{len(self.tensors)}"
        integer = array.dtype.kind == "i"
        self.tensors.append(numpy_helper.from_array(array.astype(np.int64 if integer else np.float32), name))
        return name

    def normal(self, *shape: int) -> str:
        return self.constant(self.rng.normal(size=shape) * (2.0 / np.sqrt(np.prod(shape[1:]) + 1)))

    def node(self, op: str, *inputs: str, **attributes: Any) -> str:
        self.last = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [self.last], **attributes))
        return self.last

    def dense(self, value: str, inputs: int, outputs: int) -> str:
        return self.node("Gemm", value, self.normal(outputs, inputs), self.normal(outputs), transB=1)

    def conv(self, value: str, inputs: int, outputs: int, **attributes: Any) -> str:
        weight, bias = self.normal(outputs, inputs, 3, 3), self.normal(outputs)
        return self.node("Conv", value, weight, bias, kernel_shape=[3, 3], **attributes)

    def network(self) -> Network:
        ends = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, *self.shape]),
            helper.make_tensor_value_info(self.last, TensorProto.FLOAT, None),
        ]
        graph = helper.make_graph(self.nodes, "g", ends[:1], ends[1:], self.tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        return import_model(model.SerializeToString()).network


# Families of networks.


def dense(rng: np.random.Generator) -> Network:
    g = Graph(rng, (5,))
    sizes = [5, *rng.integers(4, 20, int(rng.integers(1, 4))).tolist(), 3]
    value = "x"
    for i, (inputs, outputs) in enumerate(pairwise(sizes)):
        value = g.dense(value, inputs, outputs)
        value = g.node("Relu", value) if i < len(sizes) - 2 else value
    return g.network()


def convolutional(rng: np.random.Generator) -> Network:
    g = Graph(rng, IMAGE)
    first = g.node("Relu", g.conv("x", 2, 4, strides=[1, 1], pads=[1, 1, 1, 1]))
    second = g.node("Relu", g.conv(first, 4, 3, strides=[2, 2], pads=[1, 0, 0, 1]))
    g.dense(g.node("Flatten", second), 3 * 3 * 3, 4)
    return g.network()


def residual(rng: np.random.Generator) -> Network:
    g = Graph(rng, (6,))
    stem = g.node("Relu", g.dense("x", 6, 8))
    for _ in range(2):
        branch = g.dense(g.node("Relu", g.dense(stem, 8, 8)), 8, 8)
        stem = g.node("Relu", g.node("Add", branch, stem))
    g.dense(stem, 8, 3)
    return g.network()


def concatenated(rng: np.random.Generator) -> Network:
    g = Graph(rng, (4,))
    left, right = g.node("Relu", g.dense("x", 4, 5)), g.node("Relu", g.dense("x", 4, 3))
    both = g.node("Concat", left, right, "x", axis=1)
    g.dense(g.node("Relu", g.dense(both, 12, 6)), 6, 3)
    return g.network()


def sliced(rng: np.random.Generator) -> Network:
    g = Graph(rng, (6,))
    hidden = g.node("Relu", g.dense("x", 6, 8))
    one = np.array([1])
    even = g.node("Slice", hidden, *(g.constant(v) for v in (0 * one, 8 * one, one, 2 * one)))
    back = g.node("Slice", hidden, *(g.constant(v) for v in (7 * one, 3 * one, one, -one)))
    g.dense(g.node("Relu", g.node("Sub", even, back)), 4, 3)
    return g.network()


def pooled(rng: np.random.Generator) -> Network:
    g = Graph(rng, IMAGE)
    value = g.conv("x", 2, 3, pads=[1, 1, 1, 1])
    value = g.node("MaxPool", value, kernel_shape=[2, 2], strides=[2, 2])
    g.dense(g.node("Flatten", g.node("Relu", value)), 27, 3)
    return g.network()


def leaky(rng: np.random.Generator) -> Network:
    g = Graph(rng, (5,))
    value = g.node("LeakyRelu", g.dense("x", 5, 8), alpha=0.125)
    g.dense(g.node("LeakyRelu", g.dense(value, 8, 6), alpha=1.5), 6, 3)
    return g.network()


def smooth(rng: np.random.Generator) -> Network:
    g = Graph(rng, (5,))
    value = g.node("Tanh", g.dense(g.node("Sigmoid", g.dense("x", 5, 6)), 6, 6))
    gate = g.node("Mul", value, g.node("Softplus", g.dense("x", 5, 6)))
    g.dense(g.node("Add", gate, g.node("Sin", g.dense("x", 5, 6))), 6, 3)
    return g.network()


def attention(rng: np.random.Generator) -> Network:
    g = Graph(rng, (12,))
    tokens = g.node("Reshape", "x", g.constant(np.array([3, 4])))
    query, key, value = (g.node("MatMul", tokens, g.normal(4, 4)) for _ in range(3))
    scores = g.node("MatMul", query, g.node("Transpose", key, perm=[1, 0]))
    mixed = g.node("MatMul", g.node("Softmax", scores, axis=1), value)
    g.node("MatMul", g.node("Flatten", mixed, axis=0), g.normal(12, 3))
    return g.network()


def stepped(rng: np.random.Generator) -> Network:
    g = Graph(rng, (5,))
    signs = g.node("Sign", g.dense("x", 5, 6))
    whole = g.node("Floor", g.dense("x", 5, 6))
    g.dense(g.node("Relu", g.node("Add", signs, whole)), 6, 3)
    return g.network()


FAMILIES: dict[str, Callable[[np.random.Generator], Network]] = {
    f.__name__: f
    for f in (dense, convolutional, residual, concatenated, sliced, pooled, leaky, smooth, attention, stepped)
}
CASES = [(name, seed) for name in FAMILIES for seed in range(3)]


@dataclass(frozen=True)
class Sampled:
    """A network, a box as float64, points of it and all values there, in extended precision."""

    network: Network
    lower: np.ndarray
    upper: np.ndarray
    values: Sequence[np.ndarray]

    def restricted(self, mask: np.ndarray) -> "Sampled":
        return Sampled(self.network, self.lower, self.upper, [v[mask] for v in self.values])


def sampled(name: str, seed: int) -> Sampled:
    rng = np.random.default_rng([seed, *name.encode()])
    network = FAMILIES[name](rng)
    size = network.input_size
    centre, radius = rng.normal(size=size), 10.0 ** rng.uniform(-3, 0) * rng.random(size)
    radius[rng.random(size) < 0.1] = 0.0
    lower, upper = centre - radius, centre + radius
    points = rng.uniform(lower, upper, (SAMPLES, size))
    half = SAMPLES // 2
    points[:half] = np.where(rng.random((half, size)) < 0.5, lower, upper)
    return Sampled(network, lower, upper, network.evaluate(points.astype(np.longdouble)))


# Arithmetics: what float64 NumPy, float32 NumPy and float32 torch make of a network and a box.


def _torch(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


@dataclass(frozen=True)
class Place:
    """A network in an arithmetic, its reference in float64, and a box as a batch of one."""

    network: Network
    reference: Network
    box: Box
    like: Any

    def bounds(self, method: str, known: Mapping[int, Box] | None = None, limit: int = LIMIT) -> Frame:
        region = Region(self.box, known or {})
        effort = Effort("ibp", forward=True) if method == "forward" else Effort(method)  # type: ignore[arg-type]
        return propagate(self.network, region, effort, limit, self.reference, self.like)


def place(network: Network, lower: np.ndarray, upper: np.ndarray, kind: str) -> Place:
    put = _torch if kind == "torch32" else np.asarray
    dtype = np.float64 if kind == "double" else np.float32
    box = Box(put(lower[None]), put(upper[None]))
    return Place(network.convert(put, dtype), network.convert(put), box, put(np.zeros(1, dtype)))


ARITHMETICS = ("double", "numpy32", "torch32")


def to_numpy(array: Any) -> np.ndarray:
    return array if isinstance(array, np.ndarray) else array.numpy()


def assert_contains(boxes: Sequence[Box], values: Sequence[np.ndarray]) -> None:
    for k, (box, value) in enumerate(zip(boxes, values, strict=True)):
        assert (to_numpy(box.lower) <= value).all(), f"value {k}"
        assert (value <= to_numpy(box.upper)).all(), f"value {k}"


@pytest.mark.parametrize("kind", ARITHMETICS)
@pytest.mark.parametrize(("name", "seed"), CASES)
def test_boxes_contain_samples(name: str, seed: int, kind: str) -> None:
    s = sampled(name, seed)
    at = place(s.network, s.lower, s.upper, kind)
    found = {method: at.bounds(method) for method in ("ibp", "crown", "forward")}
    for bounds in found.values():
        assert not to_numpy(bounds.empty).any()
        assert_contains(bounds.boxes, s.values)
    for k in s.network.pre_activations:
        for method in ("crown", "forward"):
            ibp, tight = found["ibp"].boxes[k], found[method].boxes[k]
            assert (to_numpy(tight.lower) >= to_numpy(ibp.lower)).all()
            assert (to_numpy(tight.upper) <= to_numpy(ibp.upper)).all()
            both, empty = intersect(ibp, tight.lower, tight.upper)
            assert not to_numpy(empty).any()
            assert (to_numpy(both.lower) == to_numpy(tight.lower)).all()


@pytest.mark.parametrize("name", FAMILIES)
def test_chunks_of_rows_change_nothing(name: str) -> None:
    s = sampled(name, 0)
    at = place(s.network, s.lower, s.upper, "double")
    whole, small = (at.bounds("crown", limit=limit) for limit in (LIMIT, 1))
    for one, other in zip(whole.boxes, small.boxes, strict=True):
        np.testing.assert_allclose(one.lower, other.lower, rtol=1e-9, atol=1e-9)
        np.testing.assert_allclose(one.upper, other.upper, rtol=1e-9, atol=1e-9)
    assert_contains(small.boxes, s.values)


# Optimised and random multipliers, with phase splits.


def split_region(
    s: Sampled, rng: np.random.Generator, kind: str
) -> tuple[Frame, Mapping[int, Sides], Sampled]:
    """Bounds on a region with random neuron splits, and the samples that lie in it."""
    at = place(s.network, s.lower, s.upper, kind)
    network, bounds = at.network, at.bounds("crown")
    known = {k: (bounds.boxes[k].lower[0], bounds.boxes[k].upper[0]) for k in network.pre_activations}
    sides: dict[int, tuple[np.ndarray, np.ndarray]] = {}
    mask = np.ones(len(s.values[0]), dtype=bool)
    for k in network.pre_activations:
        values = s.values[k].reshape(len(mask), -1)
        box_k = bounds.boxes[k]
        open_ = np.flatnonzero(to_numpy(box_k.lower < box_k.upper).reshape(-1))
        for element in rng.permutation(open_)[: int(rng.integers(0, 3))].tolist():
            seen = values[mask, element].astype(np.float64)
            point = 0.0 if seen.min() < 0 < seen.max() and rng.random() < 0.5 else float(rng.choice(seen))
            upper = bool((seen >= point).mean() >= 0.5)  # so that samples stay
            known[k] = clamp(known[k], element, upper, point)
            mask &= values[:, element] >= point if upper else values[:, element] <= point
            sign, at_point = sides.setdefault(
                k, (np.zeros((1, values.shape[1])), np.zeros((1, values.shape[1])))
            )
            sign[0, element], at_point[0, element] = 1.0 if upper else -1.0, point
    batch = {k: Box(low[None], high[None]) for k, (low, high) in known.items()}
    method = str(rng.choice(["ibp", "crown", "forward"]))
    return at.bounds(method, batch), _placed(network, at.like, sides), s.restricted(mask)


def _placed(
    network: Network, like: Any, sides: Mapping[int, tuple[np.ndarray, np.ndarray]]
) -> dict[int, Sides]:
    """In the coefficients' type and library; points stay float64."""
    dtype, place = to_numpy(like).dtype, np.asarray if isinstance(like, np.ndarray) else _torch
    result = {}
    for k, (sign, point) in sides.items():
        shape = (1, *network.nodes[k].shape)
        result[k] = Sides(place(sign.reshape(shape).astype(dtype)), place(point.reshape(shape)))
    return result


def random_rows(network: Network, rng: np.random.Generator, kind: str) -> Any:
    rows = rng.normal(size=(1, 3, *network.nodes[network.output].shape))
    return {"double": rows, "numpy32": rows.astype(np.float32)}.get(kind, _torch(rows.astype(np.float32)))


def assert_below(linear: Any, lower: Any, rows: Any, s: Sampled) -> None:
    """The linear bounds are below `rows . output` at the samples, and `lower` is too."""
    exact = to_numpy(rows)[0].astype(np.longdouble).reshape(3, -1)
    truth = s.values[-1].reshape(len(s.values[-1]), -1) @ exact.T
    deviation = s.values[0] - to_numpy(linear.centre)[0]
    line = deviation @ to_numpy(linear.a)[0].astype(np.longdouble).T + to_numpy(linear.constant)[0]
    assert (line <= truth).all()
    assert (to_numpy(lower)[0] <= truth.min(axis=0)).all()


@pytest.mark.parametrize("kind", ARITHMETICS)
@pytest.mark.parametrize(("name", "seed"), CASES)
def test_optimised_bounds_are_below_samples(name: str, seed: int, kind: str) -> None:
    s = sampled(name, seed)
    rng = np.random.default_rng(seed)
    frame, splits, inside = split_region(s, rng, kind)
    assert not to_numpy(frame.empty).any()
    assert len(inside.values[0])
    assert_contains(frame.boxes, inside.values)
    rows = random_rows(s.network, rng, kind)
    start = initial(frame, 3, splits)
    first = bound_rows(frame, rows).concretize(frame.boxes[0])
    linear, lower, best, _ = optimise(frame, rows, splits, start, Schedule(8), lambda _: False)
    assert_below(linear, lower, rows, inside)
    again = bound_rows(frame, rows, best, splits).concretize(frame.boxes[0])
    assert (to_numpy(again) >= to_numpy(lower) - 1e-4 * abs(to_numpy(lower))).all()
    assert (to_numpy(lower) >= to_numpy(first) - 1e-4 * abs(to_numpy(first))).all()


@pytest.mark.parametrize("kind", ARITHMETICS)
@pytest.mark.parametrize(("name", "seed"), CASES)
def test_any_admissible_multipliers_are_sound(name: str, seed: int, kind: str) -> None:
    s = sampled(name, seed)
    rng = np.random.default_rng([seed, 1])
    frame, splits, inside = split_region(s, rng, kind)
    rows = random_rows(s.network, rng, kind)
    start = initial(frame, 3, splits)
    for scale in (0.1, 1.0, 100.0):
        alpha = {
            k: _like(rng.choice([0.0, 1.0, 0.3, rng.random()], v.shape), v) for k, v in start.alpha.items()
        }
        beta = {k: _like(scale * rng.exponential(size=v.shape), v) for k, v in start.beta.items()}
        linear = bound_rows(frame, rows, Multipliers(alpha, beta), splits)
        assert_below(linear, linear.concretize(frame.boxes[0]), rows, inside)


def _like(array: np.ndarray, like: Any) -> Any:
    if isinstance(like, np.ndarray):
        return array.astype(like.dtype)
    return _torch(array.astype(np.float32))


# Exact values: no rounding on the side of the truth at all.


def tiny_layers(seed: int) -> oracle.Layers:
    rng = np.random.default_rng(seed)
    sizes = [2, *rng.integers(2, 7, int(rng.integers(1, 4))).tolist(), 2]
    scale = 10.0 ** float(rng.choice([0, 0, 4, -4]))
    layers = []
    for inputs, outputs in pairwise(sizes):
        weight = (scale * rng.normal(size=(outputs, inputs))).astype(np.float32)
        layers.append((weight, (scale * rng.normal(size=outputs)).astype(np.float32)))
    return layers


@pytest.mark.parametrize("kind", ARITHMETICS)
@pytest.mark.parametrize("seed", range(30))
def test_bounds_contain_exact_ranges(seed: int, kind: str) -> None:
    layers = tiny_layers(seed)
    rng = np.random.default_rng([seed, 2])
    ends = tuple(tuple(Fraction(int(v), 8) for v in np.sort(rng.integers(-8, 9, 2))) for _ in range(2))
    network = import_model(oracle.onnx_bytes(layers)).network
    low, high = (np.array([float(e[i]) for e in ends]) for i in range(2))
    at = place(network, low, high, kind)
    outputs = [p[2:] for cell in oracle.cells(layers, ends, 3000) for _, p in cell]
    rows = _like(np.stack([np.eye(2), -np.eye(2)]).reshape(1, 4, 2), at.like)
    for method in ("ibp", "crown"):
        frame = at.bounds(method)
        final = frame.boxes[network.output]
        lower = to_numpy(bound_rows(frame, rows).concretize(at.box))[0]
        for i in range(2):
            smallest, largest = min(p[i] for p in outputs), max(p[i] for p in outputs)
            assert Fraction(float(final.lower[0, i])) <= smallest
            assert Fraction(float(final.upper[0, i])) >= largest
            assert Fraction(float(lower[i])) <= smallest
            assert Fraction(float(lower[2 + i])) <= -largest


@pytest.mark.parametrize("kind", ARITHMETICS)
@pytest.mark.parametrize("seed", range(12))
def test_linear_bounds_hold_exactly(seed: int, kind: str) -> None:
    """`a . (x - c) + constant <= row . f(x)` in fractions, at corners and random points."""
    layers = tiny_layers(seed)
    rng = np.random.default_rng([seed, 3])
    low, high = np.sort(rng.normal(size=(2, 2)), axis=0)
    at = place(import_model(oracle.onnx_bytes(layers)).network, low, high, kind)
    rows = _like(rng.integers(-3, 4, (1, 3, 2)), at.like)
    linear = bound_rows(at.bounds("crown"), rows)
    centre = [Fraction(float(v)) for v in linear.centre[0]]
    corners = [(a, b) for a in (low[0], high[0]) for b in (low[1], high[1])]
    for point in [*corners, *rng.uniform(low, high, (12, 2)).tolist()]:
        x = [Fraction(float(v)) for v in point]
        y = oracle.forward(layers, x)
        for r in range(3):
            deviation = [v - c for v, c in zip(x, centre, strict=True)]
            line = _exact_dot(linear.a[0, r], deviation) + Fraction(float(linear.constant[0, r]))
            assert line <= _exact_dot(rows[0, r], y)


def _exact_dot(a: Any, x: Sequence[Fraction]) -> Fraction:
    return sum((Fraction(float(c)) * v for c, v in zip(a, x, strict=True)), Fraction(0))
