"""Which neuron to split, and where: the one whose relaxation loosens the worst row most.

Accepts: any evaluated subproblem. ReLUs are scored by the gap of their lines, other elementwise nodes by
relaxing both halves again, products by the gap of McCormick's planes, which halves with a factor's width.
Source: intercept scores, Bunel et al. 2020, arXiv:1909.06588, section 5; for other nonlinearities the idea
of Shi et al. 2024 (GenBaB, arXiv:2405.21063, section 3.2).
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from lpverify.bounds.evaluate import Evaluation, to_numpy
from lpverify.bounds.frame import Frame
from lpverify.bounds.lines import open_elements
from lpverify.interval import Array, Box
from lpverify.ops.base import BilinearOp, ElementwiseOp, Lines, Op
from lpverify.ops.piecewise import Relu
from lpverify.ops.steps import StepOp
from lpverify.proof import NeuronSplit

RELAXED_AGAIN = 32  # most elements of one node that are scored by relaxing them again


@dataclass(frozen=True, slots=True)
class Candidate:
    """A split and how much it should help."""

    score: float
    split: NeuronSplit


@dataclass(frozen=True, slots=True)
class _Layer:
    """The elements of one operand of a nonlinear node, flat.

    Attributes:
        value: Index of the operand.
        coefficients: On the node's result, in the worst row.
        low: Lower ends.
        high: Upper ends.
    """

    value: int
    coefficients: np.ndarray
    low: np.ndarray
    high: np.ndarray

    def best(self, scores: np.ndarray, points: np.ndarray) -> Candidate | None:
        """The element with the largest score; negative ones do not count."""
        element = int(np.argmax(scores))
        if not scores[element] >= 0:
            return None
        point = float(points[element])
        above = point > self.low[element]  # else the box would not change
        return Candidate(float(scores[element]), NeuronSplit(self.value, element, True, point, above))


def neuron_split(
    evaluation: Evaluation,
    i: int,
    row: int,
    kinds: tuple[type[Op], ...] = (ElementwiseOp, BilinearOp),
    nodes: Collection[int] | None = None,
) -> NeuronSplit | None:
    """The best split of a neuron of batch entry `i`, None if none is open.

    Args:
        evaluation: Of the batch.
        i: The entry.
        row: The row of its linear bounds that matters.
        kinds: Classes of the nodes whose operands may be split.
        nodes: The nodes whose operands may be split, by default all.
    """
    allowed = range(len(evaluation.frame.network.nodes)) if nodes is None else nodes
    allowed = [k for k in allowed if isinstance(evaluation.frame.network.nodes[k].op, kinds)]
    found = [c for c in _candidates(evaluation, i, row, allowed) if c is not None]
    return max(found, key=lambda c: c.score).split if found else None


def step_split(frame: Frame, k: int, element: int) -> NeuronSplit | None:
    """A split of one element of a step node at its middle jump, None if it is settled.

    Args:
        frame: Of one region.
        k: The step node.
        element: Of its operand, flat.
    """
    mask = to_numpy(open_elements(frame, k)).reshape(-1)
    mask = mask & (np.arange(len(mask)) == element)
    if not mask.any():
        return None
    found = _elementwise(frame, k, np.zeros(len(mask)), mask)
    return None if found is None else found.split


def _candidates(
    evaluation: Evaluation, i: int, row: int, nodes: Collection[int]
) -> Iterator[Candidate | None]:
    frame = evaluation.frame.entry(i)
    for k in nodes:
        node = frame.network.nodes[k]
        a = evaluation.trace.coefficients.get(k)
        a = np.zeros(node.shape) if a is None else to_numpy(a[i, row]).astype(np.float64)
        if isinstance(node.op, BilinearOp):
            yield from _factors(frame, k, a)
        elif isinstance(node.op, ElementwiseOp):
            mask = to_numpy(open_elements(frame, k)).reshape(-1)
            if mask.any():
                yield _elementwise(frame, k, a.reshape(-1), mask)


def _layer(frame: Frame, value: int, a: np.ndarray) -> _Layer:
    box = frame.boxes[value]
    low, high = (to_numpy(end).astype(np.float64).reshape(-1) for end in (box.lower, box.upper))
    return _Layer(value, a, low, high)


def _elementwise(frame: Frame, k: int, a: np.ndarray, mask: np.ndarray) -> Candidate | None:
    op, layer = frame.network.nodes[k].op, _layer(frame, frame.network.nodes[k].inputs[0], a)
    if isinstance(op, Relu):
        return layer.best(np.where(mask, _relu_scores(layer, mask), -1.0), np.zeros_like(a))
    assert isinstance(op, ElementwiseOp)
    if isinstance(op, StepOp):
        return layer.best(*_step_scores(op, layer, mask, _layer(frame, k, a)))
    return layer.best(*_relaxed_scores(op, layer, mask))


def _relu_scores(layer: _Layer, mask: np.ndarray) -> np.ndarray:
    a, low, high = layer.coefficients, np.where(mask, layer.low, -1.0), np.where(mask, layer.high, 1.0)
    upper_gap = -low * high / (high - low)
    lower_gap = 0.5 * np.minimum(-low, high)
    return np.maximum(-a, 0) * upper_gap + np.maximum(a, 0) * lower_gap + 1e-12 * upper_gap


def _step_scores(
    op: StepOp, layer: _Layer, mask: np.ndarray, result: _Layer
) -> tuple[np.ndarray, np.ndarray]:
    """Half of what the result's range lets the row lose; at a jump."""
    with np.errstate(all="ignore"):
        points = np.full(mask.shape, np.nan)
        for jump in op.split_points(layer.low, layer.high):
            inside = (layer.low <= jump) & (jump <= layer.high)
            points = np.where(np.isnan(points) & inside, jump, points)
        scores = (0.5 * np.abs(layer.coefficients) + 1e-12) * (result.high - result.low)
    return np.where(mask & ~np.isnan(points), scores, -1.0), points


def _relaxed_scores(op: ElementwiseOp, layer: _Layer, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """How much higher the lines in use lie on both halves, in the middle of each, on average."""
    width = np.where(mask, (np.abs(layer.coefficients) + 1e-12) * (layer.high - layer.low), -1.0)
    tried = np.argsort(-width, kind="stable")[:RELAXED_AGAIN]
    a, low, high = (v[tried] for v in (layer.coefficients, layer.low, layer.high))
    points = np.stack(op.split_points(low, high))
    inside = mask[tried] & (low < points) & (points < high)
    points = np.where(inside, points, low)
    gains = np.where(inside, _gains(op, a, low, high, points), -1.0)
    best = np.argmax(gains, axis=0)
    scores, chosen = np.full(mask.shape, -1.0), np.zeros(mask.shape)
    each = np.arange(len(tried))
    scores[tried], chosen[tried] = gains[best, each], points[best, each]
    return scores, chosen


def _gains(
    op: ElementwiseOp, a: np.ndarray, low: np.ndarray, high: np.ndarray, points: np.ndarray
) -> np.ndarray:
    """Of splitting at points `(P, n)`; where lines are unbounded the width decides.

    All boxes are relaxed at once: the whole ones, then all lower and all upper halves.
    """
    count = len(points)
    ends = np.broadcast_to(low, points.shape), np.broadcast_to(high, points.shape)
    starts, stops = (
        np.concatenate([low[None], ends[0], points]),
        np.concatenate([high[None], points, ends[1]]),
    )
    with np.errstate(all="ignore"):
        lines = op.relax(Box(starts, stops), None)
        middle = (0.5 * starts + 0.5 * stops)[1:]
        before, after = (_heights(lines, a, middle, which) for which in (slice(0, 1), slice(1, None)))
        rise = np.abs(a) * np.maximum(after - before, 0.0)
        rise = np.where(np.isfinite(rise), rise, np.abs(a) * (high - low))
    return 0.5 * (rise[:count] + rise[count:]) + 1e-12 * np.minimum(high - low, 1e12)


def _heights(lines: Lines, a: np.ndarray, x: np.ndarray, which: slice) -> np.ndarray:
    """Heights at `x` of the lines that coefficients take, turned so that higher is better."""
    intercept = 0.0 if lines.lower_intercept is None else lines.lower_intercept[which]
    lower = lines.lower_slope[which] * x + intercept
    upper = lines.upper_slope[which] * x + lines.upper_intercept[which]
    return np.where(a >= 0, lower, -upper)


def _factors(frame: Frame, k: int, a: np.ndarray) -> Iterator[Candidate | None]:
    """Splits of the factors of a product, in their middle."""
    op, inputs = frame.network.nodes[k].op, frame.network.nodes[k].inputs
    assert isinstance(op, BilinearOp)
    layers = [_layer(frame, i, a) for i in inputs]
    widths: list[Array] = [
        (layer.high - layer.low).reshape(1, *frame.network.nodes[i].shape)
        for layer, i in zip(layers, inputs, strict=True)
    ]
    if not all(width.any() for width in widths):
        return  # a factor is constant: the product is linear
    with np.errstate(all="ignore"):
        slopes = op.vjp(np.abs(a)[None] + 1e-12, widths)
        for layer, width, slope in zip(layers, widths, slopes, strict=True):
            scores = 0.125 * np.asarray(slope).reshape(-1) * width.reshape(-1)
            points = 0.5 * layer.low + 0.5 * layer.high
            inside = (layer.low < points) & (points < layer.high)
            yield layer.best(np.where(inside & np.isfinite(scores), scores, -1.0), points)
