"""Lines that multipliers mix from a fan, and ascents with them."""

from dataclasses import replace

import numpy as np
import pytest
from helpers import box_assertions, model_of, query_of
from onnx import helper, numpy_helper

from lpverify.bounds.alpha import bound_rows, initial, optimise
from lpverify.bounds.frame import Frame
from lpverify.bounds.lines import move_gradient, moved_lines
from lpverify.bounds.propagate import Region, propagate
from lpverify.check import check_proof
from lpverify.config import Config, Deadline
from lpverify.interval import Box
from lpverify.io.onnx import Model
from lpverify.multipliers import Effort, Multipliers, Schedule
from lpverify.ops.base import ElementwiseOp
from lpverify.problem import compile_problem
from lpverify.verdict import Unsat
from lpverify.verify import verify_query

INPUTS, HIDDEN = 20, 12


def smooth_model(op: str, seed: int = 0, layers: int = 3, outputs: int = 2) -> Model:
    """A dense network with one smooth function after each hidden layer."""
    rng = np.random.default_rng(seed)
    nodes, tensors, value, size = [], [], "x", INPUTS
    for i in range(layers + 1):
        width = outputs if i == layers else HIDDEN
        weight, bias = rng.normal(size=(size, width)) * 3 / size**0.5, 0.3 * rng.normal(size=width)
        tensors += [
            numpy_helper.from_array(v.astype(np.float32), f"{n}{i}")
            for n, v in zip("wb", (weight, bias), strict=True)
        ]
        result = "y" if i == layers else f"z{i}"
        nodes.append(helper.make_node("Gemm", [value, f"w{i}", f"b{i}"], [result]))
        if i < layers:
            nodes.append(helper.make_node(op, [result], [f"x{i}"]))
        value, size = f"x{i}", width
    return model_of(nodes, tensors, (INPUTS, outputs))


def frame_of(model: Model, radius: float, effort: Effort, dtype: type = np.float64) -> Frame:
    centre = np.random.default_rng(1).normal(size=(2, INPUTS))
    network = model.network.convert(np.asarray, dtype)
    region = Region(Box(centre - radius, centre + radius))
    return propagate(network, region, effort, 2**20, model.network, np.zeros(1, dtype))


def smooth_nodes(frame: Frame) -> list[int]:
    return [k for k, n in enumerate(frame.network.nodes) if isinstance(n.op, ElementwiseOp)]


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("op", ["Sigmoid", "Tanh", "Atan", "Sin", "Softplus"])
def test_mixed_lines_hold(op, dtype):
    """Up to the cost that they come with, and a little for the function's own rounding."""
    frame = frame_of(smooth_model(op), 0.3, Effort(), dtype)
    rng = np.random.default_rng(2)
    for k in smooth_nodes(frame):
        source, count = frame.network.nodes[k].inputs[0], 40
        shape = (2, count, *frame.network.nodes[k].shape)
        alpha = rng.choice([0.0, 0.25, 0.5, 1.0, -1.0], shape, p=[0.1, 0.1, 0.1, 0.1, 0.6])
        alpha = np.where(alpha < 0, rng.random(shape), alpha).astype(dtype)
        lines, box = moved_lines(frame, k, alpha), frame.boxes[source]
        z = box.lower[:, None] + rng.random(shape) * (box.upper - box.lower)[:, None]
        function = frame.reference.nodes[k].op
        assert lines.lower_slope.dtype == lines.upper_gain.dtype == dtype
        rise = function.forward(z) - frame.centres[k][:, None]
        deviation = z - frame.centres[source][:, None]
        allowance = lines.cost.astype(np.float64) + 1e-13 * (1 + abs(rise) + abs(frame.centres[k][:, None]))
        lower = lines.lower_slope.astype(np.float64) * deviation + lines.lower_gain
        upper = lines.upper_slope.astype(np.float64) * deviation + lines.upper_gain
        assert (lower <= rise + allowance).all() and (upper >= rise - allowance).all()
        assert (lines.cost < (1e-4 if dtype == np.float32 else 1e-12) * (1 + abs(rise).max())).all()


def test_multipliers_reach_every_useful_slope():
    """From tangents at one end of the box to those at the other; one half is what is taken without any."""
    frame = frame_of(smooth_model("Sigmoid"), 0.5, Effort())
    for k in smooth_nodes(frame):
        shape = (2, 1, *frame.network.nodes[k].shape)
        low, middle, high = (moved_lines(frame, k, np.full(shape, a)) for a in (0.0, 0.5, 1.0))
        for name in ("lower_slope", "upper_slope"):
            ends = [getattr(v, name) for v in (low, high)]
            assert (np.minimum(*ends) <= getattr(middle, name)).all()
            assert (getattr(middle, name) <= np.maximum(*ends)).all()
            assert (abs(ends[0] - ends[1]) > 1e-3).any()
        np.testing.assert_array_equal(middle.lower_slope, frame.lines[k].lower_slope)
        np.testing.assert_array_equal(middle.upper_gain, frame.lines[k].upper_gain)


def test_gradient_is_that_of_the_lines():
    frame = frame_of(smooth_model("Sigmoid"), 0.5, Effort())
    rng = np.random.default_rng(3)
    for k in smooth_nodes(frame):
        node, box = frame.network.nodes[k], frame.boxes[frame.network.nodes[k].inputs[0]]
        shape = (2, 5, *node.shape)
        alpha, a = 0.0313 + 0.9 * rng.random(shape), rng.normal(size=shape)
        x = box.lower[:, None] + rng.random(shape) * (box.upper - box.lower)[:, None]
        centre = frame.centres[node.inputs[0]][:, None]

        def height(alpha, a=a, x=x, centre=centre, k=k):
            lines = moved_lines(frame, k, alpha)
            slope = np.where(a < 0, lines.upper_slope, lines.lower_slope)
            return a * (slope * (x - centre) + np.where(a < 0, lines.upper_gain, lines.lower_gain))

        step = 1e-7
        numeric = (height(alpha + step) - height(alpha - step)) / (2 * step)
        found = move_gradient(frame, k, alpha, a, x)
        inner = abs((alpha * 16 + 0.5) % 1 - 0.5) > 1e-3  # between the lines of the fan
        moves = abs(numeric) > 1e-6  # elsewhere the gradient leads back to where multipliers matter
        assert (inner & moves).any()
        np.testing.assert_allclose(found[inner & moves], numeric[inner & moves], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("dtype", [np.float64, np.float32])
@pytest.mark.parametrize("op", ["Sigmoid", "Tanh"])
def test_ascent_tightens_boxes_and_keeps_all_values(op, dtype):
    model = smooth_model(op)
    plain = frame_of(model, 0.2, Effort(), dtype)
    risen = frame_of(model, 0.2, Effort(ascent=8), dtype)
    box, rng = plain.boxes[0], np.random.default_rng(4)
    values = [None] * 2
    for i in range(2):
        x = rng.uniform(box.lower[i], box.upper[i], (200, INPUTS))
        x[:100] = np.where(rng.random((100, INPUTS)) < 0.5, box.lower[i], box.upper[i])
        values[i] = model.network.evaluate(x)
    last = max(model.network.pre_activations)
    for k in range(1, len(plain.boxes)):
        old, new = plain.boxes[k], risen.boxes[k]
        assert (new.upper - new.lower <= (old.upper - old.lower) * (1 + 1e-6)).all()
        for i in range(2):
            v = values[i][k].reshape((200, *new.lower.shape[1:]))
            assert (new.lower[i] <= v + 1e-12).all() and (v <= new.upper[i] + 1e-12).all()
    widths = [(f.boxes[last].upper - f.boxes[last].lower).mean() for f in (plain, risen)]
    assert widths[1] < 0.97 * widths[0]


def test_any_multipliers_give_sound_bounds():
    model = smooth_model("Sigmoid")
    frame, rng = frame_of(model, 0.3, Effort()), np.random.default_rng(5)
    rows = rng.normal(size=(2, 6, 1, 2))
    alpha = {k: rng.random((2, 6, *frame.network.nodes[k].shape)) for k in smooth_nodes(frame)}
    rows = rows.reshape((2, 6, *frame.network.nodes[frame.network.output].shape))
    lower = bound_rows(frame, rows, Multipliers(alpha, {})).concretize(frame.boxes[0])
    for i in range(2):
        x = rng.uniform(frame.boxes[0].lower[i], frame.boxes[0].upper[i], (500, INPUTS))
        y = model.network(x)
        assert (lower[i][:, None] <= rows[i].reshape(6, -1) @ y.T + 1e-12).all()


@pytest.mark.parametrize("faulty", ["", "efforts", "multipliers"])
def test_ladder_proves_with_optimised_boxes_and_the_checker_agrees(faulty):
    """The threshold needs optimised boxes and rows; the checker repeats the ones and reads the others."""
    model = smooth_model("Sigmoid", layers=4, outputs=1)
    lower, upper = -0.15 * np.ones(INPUTS), 0.15 * np.ones(INPUTS)
    frame = propagate(model.network, Region(Box(lower[None], upper[None])), Effort(ascent=10), 2**20)
    rows = np.ones((1, 1, *model.network.nodes[model.network.output].shape))
    first = initial(frame, 1, {})
    plain = bound_rows(frame, rows).concretize(frame.boxes[0])[0, 0]
    best = optimise(frame, rows, {}, first, Schedule(), lambda found: False)[1][0, 0]
    assert plain < best
    threshold = plain + 0.8 * (best - plain)
    query = query_of(model, box_assertions(list(lower), list(upper)) + f"(assert (<= Y_0 {threshold:.12f}))")
    stages = []
    config = Config(record_proof=True, deadline=Deadline.after(60))
    verdict = verify_query(model, query, config, lambda progress: stages.append(progress.stage))
    assert isinstance(verdict, Unsat)
    assert "optimised bounds" in stages and "branch and bound" not in stages
    nodes = verdict.proof.nodes
    if faulty == "efforts":
        nodes._efforts[:] = [effort and replace(effort, ascent=0) for effort in nodes._efforts]
    elif faulty:
        nodes.multipliers.clear()
    assert check_proof(compile_problem(model.network, query), verdict.proof).valid == (not faulty)
