"""SDP-CROWN against exact values: fractions at points of ball and box, no tolerance on the sound side."""

import itertools
from dataclasses import replace
from fractions import Fraction
from math import inf, sqrt

import numpy as np
import pytest
from helpers import dense_model, exact_dense, model_of
from onnx import helper, numpy_helper

from lpverify.bounds import ball as norms
from lpverify.bounds import sdp_crown as module
from lpverify.bounds.alpha import bound_rows
from lpverify.bounds.ball import Ball, enclosing_box
from lpverify.bounds.frame import recentred, reference_error
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.sdp_crown import sdp_crown, segments_of
from lpverify.errors import UnsupportedError
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.ops.linear import Linear, Scale
from lpverify.ops.piecewise import Relu

CROWN, NO_BOX = Effort("crown"), (-inf, inf)


def exact(array):
    return [Fraction(float(v)) for v in np.asarray(array).reshape(-1)]


def random_layers(rng, sizes, scale=1.0):
    """Weights `(in, out)` and biases, float32."""
    return [
        (
            (scale * rng.normal(size=(a, b)) / np.sqrt(a)).astype(np.float32),
            (0.3 * scale * rng.normal(size=b)).astype(np.float32),
        )
        for a, b in itertools.pairwise(sizes)
    ]


def frame_over(network, centre, radius, ends=NO_BOX, method=CROWN, norm=2, with_ball=True):
    ball = Ball(np.atleast_2d(centre), np.atleast_1d(np.asarray(radius, float)), norm)
    box, empty = enclosing_box(ball, *ends)
    assert not empty.any()
    return propagate(network, Region(box, ball=ball if with_ball else None), method, 2**20)


def plain(frame, rows):
    return bound_rows(frame, rows).concretize(frame.boxes[0], frame.ball)


def shaped(network, rows):
    return rows.reshape((*rows.shape[:2], *network.nodes[network.output].shape))


def attack(network, row, centre, radius, box, rng, steps=60):
    """Points of ball and box where `row . output` is small, by descent; inside in exact arithmetic."""
    points, found = centre + radius * rng.normal(size=(8, len(centre))) / np.sqrt(len(centre)), []
    for step in range(steps):
        shift = points - centre
        length = np.linalg.norm(shift, axis=1, keepdims=True)
        points = centre + shift * np.minimum(1, (1 - 1e-12) * radius / np.maximum(length, 1e-300))
        points = np.clip(points, box.lower[0], box.upper[0])
        found.append(points)
        values = network.evaluate(points)
        seed = np.broadcast_to(row, values[network.output].shape)
        slope = network.gradient(values, np.ascontiguousarray(seed), network.output)
        slope = slope / np.maximum(np.linalg.norm(slope, axis=1, keepdims=True), 1e-300)
        points = points - radius * 0.95**step * slope
    found = np.concatenate(found)
    values = network(found).reshape(len(found), -1) @ row.reshape(-1)
    best = found[np.argsort(values)[:6]]
    for point in best:
        apart = [x - c for x, c in zip(exact(point), exact(centre), strict=True)]
        assert sum(a * a for a in apart) <= Fraction(radius) ** 2
        assert (box.lower[0] <= point).all() and (point <= box.upper[0]).all()
    return best


def assert_below(lower, layers, rows, points_of):
    """No bound is above the exact value at any point."""
    for bound, row in zip(lower, rows, strict=True):
        for point in points_of(row):
            y = exact_dense(layers, exact(point))
            assert Fraction(float(bound)) <= sum(
                (c * v for c, v in zip(exact(row), y, strict=True)), Fraction(0)
            )


# One layer.


def one_reach(centre, low, high, radius):
    """Of a ReLU's operand with deviations `low` to `high`."""
    centre, low, high = (np.asarray(v, float)[None] for v in (centre, low, high))
    pieces = module._relu_pieces(centre, low, high)
    frame = frame_over(dense_model([(np.eye(1), np.zeros(1))]).network, [0.0], 1.0)
    return module._reach(frame, pieces, np.array([radius]), centre + low, centre + high)


def exact_minimum(c, g, weight, centre, low, high, radius):
    """`h` in fractions; of elements on one side of the kink `c relu - g` is constant."""
    total = -weight * radius * radius / 2
    for ci, gi, m, l, h in zip(c, g, centre, low, high, strict=True):
        ends = [(max(l, -m), h, ci - gi, ci * min(m, Fraction(0)))] if h > -m or l >= -m else []
        ends += [(l, min(h, -m), -gi, -ci * max(m, Fraction(0)))] if l < -m else []
        least = [offset for _, _, _, offset in ends] if not l < -m < h else []
        for a, b, slope, offset in ends if l < -m < h else []:
            d = min(max(-slope / weight, a), b)
            least.append(offset + slope * d + weight * d * d / 2)
        total += min(least)
    return total


@pytest.mark.parametrize("seed", range(40))
def test_h_is_the_exact_minimum(seed):
    """Below it in any case, and by rounding only."""
    rng = np.random.default_rng(seed)
    scale = 10.0 ** rng.integers(-3, 4)
    centre, radius = scale * rng.normal(size=7), scale * 10.0 ** rng.uniform(-2, 1)
    low, high = np.sort(scale * rng.normal(size=(2, 7)) * 10.0 ** rng.integers(-1, 2), axis=0)
    low[0], high[1], centre[2] = -centre[0], -centre[1], 0.0
    low, high = np.minimum(low, high), np.maximum(low, high)
    reach = one_reach(centre, low, high, radius)
    c, weight = rng.normal(size=(1, 3, 7)), 10.0 ** rng.uniform(-4, 4, (1, 3))
    c[0, 0, :3] = 0.0
    g = np.where(reach.both, rng.normal(size=c.shape), reach.step * c)
    found = module._minimise(reach, c, g, weight)
    for r in range(3):
        numbers = [exact(v) for v in (c[0, r], g[0, r], centre, low, high)]
        true = exact_minimum(*numbers[:2], Fraction(weight[0, r]), *numbers[2:], Fraction(radius))
        assert Fraction(found.value[0, r]) - Fraction(found.error[0, r]) <= true
        assert float(true) <= found.value[0, r] + found.error[0, r] + 1e-300
        assert found.error[0, r] <= 1e-12 * (
            scale * abs(c[0, r]).sum() + weight[0, r] * (radius + 10 * scale) ** 2
        )


@pytest.mark.parametrize("seed", range(10))
def test_without_a_box_h_is_that_of_the_paper(seed):
    """`-1/2 (lambda (rho^2 - |zh|^2) + |phi|^2 / lambda)`; phi as below."""
    rng = np.random.default_rng(seed)
    zh, radius = rng.normal(size=9), 3.0
    c, g, weight = rng.normal(size=(1, 4, 9)), rng.normal(size=(1, 4, 9)), rng.uniform(0.5, 5, (1, 4))
    found = module._minimise(one_reach(zh, np.full(9, -50.0), np.full(9, 50.0), radius), c, g, weight)
    scaled = weight[:, :, None] * zh
    phi = np.minimum(np.minimum(c - g - scaled, g + scaled), 0)
    h = -0.5 * (weight * (radius**2 - zh @ zh) + (phi**2).sum(axis=2) / weight)
    moved = h - (c * np.maximum(zh, 0)).sum(axis=2) + (g * zh).sum(axis=2)  # from z = 0 to z = zh
    np.testing.assert_allclose(found.value, moved, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_the_box_can_only_help_and_small_lambda_is_the_box_alone(seed):
    rng = np.random.default_rng(seed)
    centre, radius = rng.normal(size=9), 2.0
    low, high = -rng.random(9), rng.random(9)
    low[:4], high[:4] = np.minimum(low[:4], -centre[:4] - 0.1), np.maximum(high[:4], -centre[:4] + 0.1)
    both = one_reach(centre, low, high, radius)
    wide = one_reach(centre, np.full(9, -50.0), np.full(9, 50.0), radius)
    c = rng.normal(size=(1, 5, 9))
    g = np.where(both.both, both.chord * c, both.step * c)
    weight = module._search(wide, c, g)
    assert (
        module._minimise(both, c, g, weight).value >= module._minimise(wide, c, g, weight).value - 1e-12
    ).all()
    found = module._minimise(both, c, g, np.full((1, 5), 1e-200)).value
    ends = np.stack([low, high, np.clip(-centre, low, high)])[:, None, None]
    change = c * (np.maximum(centre + ends, 0) - np.maximum(centre, 0)) - g * ends
    np.testing.assert_allclose(found, change.min(axis=0).sum(axis=2), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("seed", range(10))
def test_the_search_finds_the_best_lambda(seed):
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=6)
    reach = one_reach(centre, -3 * rng.random(6), 3 * rng.random(6), 10.0 ** rng.uniform(-1, 1))
    c = rng.normal(size=(1, 4, 6))
    g = np.where(reach.both, rng.random((1, 4, 6)) * c, reach.step * c)
    found = module._minimise(reach, c, g, module._search(reach, c, g)).value
    for factor in 10.0 ** np.linspace(-6, 6, 200):
        other = module._minimise(reach, c, g, np.full((1, 4), factor)).value
        assert (found >= other - 1e-3 * (abs(other) + 1e-3)).all()


# Networks.

SIZES = [(3, 5, 2), (4, 6, 5, 2), (2, 3, 4, 3, 2), (5, 1, 1, 2), (6, 4, 4, 4, 4, 1)]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("seed", range(5))
def test_no_point_is_below_the_bound(sizes, seed):
    """Any scale, radius, range, depth; the ball's centre is not that of its box."""
    rng = np.random.default_rng([seed, *sizes])
    layers = random_layers(rng, sizes, 10.0 ** rng.choice([0, 0, 3, -3]))
    network, centre = dense_model(layers).network, rng.normal(size=sizes[0])
    radius = float(rng.choice([1e-3, 0.3, 1.0, 3.0]))
    ends = (centre - rng.random(sizes[0]), centre + 2.0) if seed % 2 else NO_BOX
    frame = frame_over(network, centre, radius, ends)
    rows = np.concatenate([rng.normal(size=(2, sizes[-1])), np.eye(sizes[-1]), 0 * np.eye(sizes[-1])[:1]])[
        None
    ]
    crown = plain(frame, rows.reshape(shaped(network, rows).shape))
    found = {
        (steps, local): sdp_crown(frame, shaped(network, rows), steps, local=local)
        for steps, local in ((0, True), (6, True), (6, False))
    }
    for lower in found.values():
        assert (lower >= crown).all() and np.isfinite(lower).all()
        assert_below(
            lower[0], layers, rows[0], lambda row: attack(network, row, centre, radius, frame.boxes[0], rng)
        )
    assert (found[6, True] >= found[0, True]).all()
    assert abs(found[0, True][0, -1]) <= 1e-9, "a zero row is bounded by nothing but rounding"


@pytest.mark.parametrize("scale", [1e-12, 1e-3, 1e3, 1e12])
def test_bounds_scale_with_the_network(scale):
    """Nothing but rounding changes when biases, inputs and radius are scaled."""
    rng = np.random.default_rng(0)
    layers = random_layers(rng, (4, 6, 5, 2))
    big = [(w, (b * np.float32(scale))) for w, b in layers]
    centre, rows = rng.normal(size=4), np.eye(2)[None]
    found = [
        sdp_crown(frame_over(dense_model(l).network, centre * s, 0.5 * s), rows, 5) / s
        for l, s in ((layers, 1.0), (big, scale))
    ]
    np.testing.assert_allclose(*found, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("gain", [1.0, 2.0, 0.25])
def test_sums_of_rectified_inputs_are_bounded_exactly(depth, gain):
    """`-sum relu(gain ... relu(gain x))` over a ball around 0 is `-gain^depth sqrt(n) r` at least."""
    n, radius = 9, 0.5
    layers = [(gain * np.eye(n), np.zeros(n))] * depth + [(-np.ones((n, 1)), np.zeros(1))]
    frame = frame_over(dense_model(layers).network, np.zeros(n), radius)
    true = -(gain**depth) * sqrt(n) * radius
    for local in (True, False):
        lower = float(sdp_crown(frame, np.ones((1, 1, 1)), 300, local=local)[0, 0])
        assert lower <= true
        assert lower >= true * (1 + (1e-3 if depth == 1 else 0.5))
    assert plain(frame, np.ones((1, 1, 1)))[0, 0] < 1.4 * true


@pytest.mark.parametrize("shift", [0.0, 0.4, -0.3])
def test_single_neurons_are_bounded_exactly(shift):
    """`-relu(w . x + b)` and its double: all there is to find is the ball's surface."""
    weight = np.array([[3.0], [4.0]])
    for layers, factor in (
        ([(weight, [shift]), ([[-1.0]], [0.0])], 1.0),
        ([(weight, [shift]), ([[2.0]], [0.0]), ([[-1.0]], [0.0])], 2.0),
    ):
        layers = [(np.asarray(w), np.asarray(b)) for w, b in layers]
        frame = frame_over(dense_model(layers).network, np.array([0.5, -0.25]), 0.125)
        true = -factor * max(0.0, 0.5 + float(np.float32(shift)) + 5 * 0.125)
        lower = float(sdp_crown(frame, np.ones((1, 1, 1)), 100)[0, 0])
        assert true * (1 + 1e-6) - 1e-9 <= lower <= true


def test_a_ball_of_radius_zero_is_a_point():
    rng = np.random.default_rng(4)
    layers, centre = random_layers(rng, (4, 8, 8, 3)), rng.normal(size=4)
    network, rows = dense_model(layers).network, np.concatenate([np.eye(3), -np.eye(3)])[None]
    lower = sdp_crown(frame_over(network, centre, 0.0), rows, 3)[0]
    value = exact_dense(layers, exact(centre))
    for bound, v in zip(lower, [*value, *(-v for v in value)], strict=True):
        assert v - Fraction(1, 10**12) <= Fraction(float(bound)) <= v


@pytest.mark.parametrize("seed", range(12))
def test_rounding_is_covered_where_terms_cancel(seed):
    """Inputs of a million, results near 1: the reference run is off by far more than its own rounding."""
    rng = np.random.default_rng(seed)
    centre, layers = 1e6 * rng.normal(size=4), random_layers(rng, (4, 6, 5, 2))
    first = layers[0][0].astype(float)
    layers[0] = layers[0][0], (rng.normal(size=6) - centre @ first).astype(np.float32)
    network, rows = dense_model(layers).network, np.concatenate([np.eye(2), -np.eye(2)])[None]
    for radius in (0.0, 1e-12, 0.25):
        frame = frame_over(network, centre, radius)
        lower = sdp_crown(frame, rows, 3)[0]
        assert_below(lower, layers, rows[0], lambda _: [centre])
        order = module._order(network, network.output)
        double = recentred(frame, order, centre[None])
        for k, part in segments_of(network, frame.like).items():
            operand, start = network.nodes[k].inputs[0], network.nodes[part.nodes[0]].inputs[0]
            value = exact(double.centres[start])
            for node in part.nodes:
                value = exact_value(network.nodes[node].op, value)
            error = exact(reference_error(double, operand, part.nodes))
            for z, m, e in zip(value, exact(double.centres[operand]), error, strict=True):
                assert abs(z - m) <= e <= Fraction(1, 10**6)


def exact_value(op, x):
    """An op's result in fractions, for those that dense models have."""
    if isinstance(op, Linear):
        offset = exact(op.offset) if op.offset is not None else [Fraction(0)] * len(op.weight)
        rows = [exact(r) for r in op.weight]
        return [sum((a * b for a, b in zip(r, x, strict=True)), o) for r, o in zip(rows, offset, strict=True)]
    if isinstance(op, Scale):
        weight, offset = (exact(np.broadcast_to(v, (len(x),))) for v in (op.weight, op.offset))
        return [w * v + o for w, v, o in zip(weight, x, offset, strict=True)]
    return [max(v, Fraction(0)) for v in x] if isinstance(op, Relu) else x


def test_errors_of_every_layer_are_subtracted(monkeypatch):
    frame = frame_over(
        dense_model(random_layers(np.random.default_rng(1), (3, 9, 9, 2))).network, np.ones(3), 1.0
    )
    rows, minimise = np.eye(2)[None], module._minimise
    assert (sdp_crown(frame, rows, 0) > plain(frame, rows)).all()
    for size in ((3,), (9,)):

        def worse(reach, c, g, weight, size=size):
            found = minimise(reach, c, g, weight)
            return replace(found, error=found.error + 1e6 * (c.shape[2:] == size))

        monkeypatch.setattr(module, "_minimise", worse)
        assert (sdp_crown(frame, rows, 0) == plain(frame, rows)).all()


@pytest.mark.parametrize("seed", range(4))
def test_hundred_neurons_are_bounded_together(seed):
    """At least twice as tight as CROWN over the ball, which is far tighter than CROWN over its box."""
    rng = np.random.default_rng(seed)
    layers = [(rng.normal(size=(100, 100)) / 10, np.zeros(100)), (rng.normal(size=(100, 1)), np.zeros(1))]
    network, rows = dense_model(layers).network, np.ones((1, 1, 1))
    frame = frame_over(network, np.zeros(100), 1.0)
    loose = plain(frame_over(network, np.zeros(100), 1.0, with_ball=False), rows)[0, 0]
    crown, lower = plain(frame, rows)[0, 0], sdp_crown(frame, rows)[0, 0]
    point = attack(network, np.ones(1), np.zeros(100), 1.0, frame.boxes[0], rng)[0]
    true = float(network(point[None])[0, 0])
    assert loose < 4 * crown < 4 * 2 * lower
    assert 1.8 * true < lower <= true


def test_radii_by_region_are_smaller():
    rng = np.random.default_rng(1)
    layers = random_layers(rng, (40, 60, 60, 60, 3), 1.4)
    frame = frame_over(dense_model(layers).network, rng.normal(size=40), 1.0)
    rows = np.eye(3)[None]
    values = frame.network(frame.ball.centre)
    local, coarse = (values - sdp_crown(frame, rows, local=flag)[0] for flag in (True, False))
    assert local.mean() < 0.7 * coarse.mean()


# Inputs and refusals.


def test_batches_parts_and_inner_values():
    rng = np.random.default_rng(6)
    layers = random_layers(rng, (5, 7, 6, 3))
    network = dense_model(layers).network
    centre, radius = rng.normal(size=(2, 5)), np.array([0.2, 1.5])
    frame, rows = frame_over(network, centre, radius), np.broadcast_to(np.eye(3), (2, 3, 3))
    parts = segments_of(network, frame.like)
    together = sdp_crown(frame, rows, 4, parts=parts)
    for i in range(2):
        np.testing.assert_allclose(sdp_crown(frame.entry(i), rows[:1], 4)[0], together[i], rtol=1e-9)
    inner = network.pre_activations[1]
    units = np.broadcast_to(np.concatenate([np.eye(6), -np.eye(6)]), (2, 12, 6))
    units = units.reshape((2, 12, *network.nodes[inner].shape))
    lower = sdp_crown(frame, units, 4, start=inner, parts=parts)
    assert (lower >= bound_rows(frame, units, start=inner).concretize(frame.boxes[0], frame.ball)).all()
    for i in range(2):
        for x in attack(network, np.ones(3), centre[i], radius[i], frame.entry(i).boxes[0], rng):
            value = exact_dense(layers[:2], exact(x))
            for bound, v in zip(exact(lower[i]), [*value, *(-v for v in value)], strict=True):
                assert bound <= v


@pytest.mark.parametrize("kind", ["numpy32", "torch32", "torch64"])
def test_other_arithmetics(kind):
    import torch

    rng = np.random.default_rng(8)
    layers = random_layers(rng, (5, 7, 6, 2))
    network, centre, rows = dense_model(layers).network, rng.normal(size=5), np.eye(2)[None]
    put = np.asarray if kind == "numpy32" else lambda v: torch.from_numpy(np.ascontiguousarray(v))
    dtype = np.float64 if kind == "torch64" else np.float32
    ball = Ball(put(centre[None]), put(np.array([0.5])), 2)
    box, _ = enclosing_box(ball, *NO_BOX)
    networks = network.convert(put, dtype), network.convert(put)
    frame = propagate(networks[0], Region(box, ball=ball), CROWN, 2**20, networks[1], put(np.zeros(1, dtype)))
    lower = np.asarray(sdp_crown(frame, put(rows.astype(dtype)), 5))
    assert lower.dtype == np.float64
    np.testing.assert_allclose(lower, sdp_crown(frame_over(network, centre, 0.5), rows, 5), rtol=1e-3)
    assert_below(lower[0], layers, rows[0], lambda r: attack(network, r, centre, 0.5, Box(
        *(np.asarray(e) for e in (box.lower, box.upper))), rng))  # fmt: skip


def test_balls_of_norm_one_are_in_those_of_norm_two():
    rng = np.random.default_rng(9)
    layers, centre = random_layers(rng, (5, 7, 2)), rng.normal(size=5)
    network, rows = dense_model(layers).network, np.eye(2)[None]
    frame = frame_over(network, centre, 0.5, norm=1)
    lower = sdp_crown(frame, rows)
    assert (lower >= plain(frame, rows)).all()
    corners = centre + 0.4999 * np.concatenate([np.eye(5), -np.eye(5)])
    assert_below(lower[0], layers, rows[0], lambda _: corners)


def convolutional():
    rng = np.random.default_rng(3)

    def tensor(name, *shape):
        return numpy_helper.from_array((rng.normal(size=shape) * 0.4).astype(np.float32), name)

    tensors = [tensor("a", 4, 1, 3, 3), tensor("b", 4), tensor("c", 3, 4, 3, 3), tensor("d", 27, 3)]
    tensors.append(numpy_helper.from_array(np.array([1, 1, 6, 6]), "s"))
    nodes = [
        helper.make_node("Reshape", ["x", "s"], ["i"]),
        helper.make_node("Conv", ["i", "a", "b"], ["p"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["p"], ["q"]),
        helper.make_node("Conv", ["q", "c"], ["r"], strides=[2, 2], pads=[1, 1, 0, 0]),
        helper.make_node("Relu", ["r"], ["t"]),
        helper.make_node("Flatten", ["t"], ["u"]),
        helper.make_node("MatMul", ["u", "d"], ["y"]),
    ]
    return model_of(nodes, tensors, (36, 3)).network


@pytest.mark.parametrize("large", [False, True])
def test_convolutions(large, monkeypatch):
    if large:
        monkeypatch.setattr(norms, "MOST_ENTRIES", 0)
    network, rng, rows = convolutional(), np.random.default_rng(0), np.eye(3)[None]
    centre = rng.random(36)
    for radius in (0.05, 1.0):
        frame = frame_over(network, centre, radius, (0.0, 1.0))
        lower = sdp_crown(frame, rows, 8)
        assert (lower >= plain(frame, rows)).all()
        assert large or (lower > plain(frame, rows)).all()
        for bound, row in zip(lower[0], rows[0], strict=True):
            points = attack(network, row, centre, radius, frame.boxes[0], rng)
            values = network.evaluate(points.astype(np.longdouble))[network.output] @ row
            assert (bound <= values).all()


def test_what_is_no_chain_is_refused():
    frame = frame_over(
        dense_model(random_layers(np.random.default_rng(0), (3, 4, 2))).network, np.zeros(3), 1.0
    )
    with pytest.raises(UnsupportedError, match="ball"):
        sdp_crown(replace(frame, ball=None), np.eye(2)[None])
    one = numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    for nodes in (
        [helper.make_node("Relu", ["x"], ["z"]), helper.make_node("Add", ["x", "z"], ["y"])],
        [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Tanh", ["z"], ["y"])],
    ):
        network = model_of(nodes, [one], (3, 3)).network
        with pytest.raises(UnsupportedError, match="chain"):
            sdp_crown(frame_over(network, np.zeros(3), 1.0), np.eye(3)[None])
        with pytest.raises(UnsupportedError, match="chain"):
            segments_of(network, np.zeros(1))


def test_regions_that_box_and_ball_do_not_share_do_no_harm():
    """Splits may leave such regions; whatever is said of them holds, and the others are not touched."""
    rng = np.random.default_rng(2)
    network = dense_model(random_layers(rng, (3, 4, 2))).network
    ball = Ball(np.zeros((2, 3)), np.ones(2), 2)
    box = Box(np.array([[2.0] * 3, [-1.0] * 3]), np.array([[3.0] * 3, [1.0] * 3]))
    frame = propagate(network, Region(box, ball=ball), CROWN, 2**20)
    rows = np.broadcast_to(np.eye(2), (2, 2, 2))
    found = sdp_crown(frame, rows, 3)
    alone = sdp_crown(frame_over(network, np.zeros(3), 1.0), rows[:1], 3)
    np.testing.assert_allclose(found[1], alone[0], rtol=1e-9)
