"""Lines of elementwise nodes over the boxes of a frame."""

from lpverify.bounds.frame import Frame
from lpverify.interval import Array, Box, namespace
from lpverify.ops.base import ElementwiseOp, Lines
from lpverify.ops.steps import StepOp


def row_lines(frame: Frame, k: int, alpha: Array | None) -> Lines:
    """Lines of elementwise node `k` with a row axis: arrays `(B, 1 or R, *shape)`."""
    op = frame.network.nodes[k].op
    assert isinstance(op, ElementwiseOp)
    box = frame.coefficient_box(frame.network.nodes[k].inputs[0])
    lines = op.relax(Box(box.lower[:, None], box.upper[:, None]), alpha)
    return _level(frame, k, lines) if isinstance(op, StepOp) else lines


def _level(frame: Frame, k: int, lines: Lines) -> Lines:
    """Constants where a split has settled a step: lines over the operand's closed box still see the jump."""
    xp, box = namespace(frame.like), frame.coefficient_box(k)
    settled = (frame.boxes[k].lower == frame.boxes[k].upper)[:, None]
    zero = xp.zeros_like(lines.lower_slope)
    return Lines(
        xp.where(settled, zero, lines.lower_slope),
        xp.where(settled, box.lower[:, None], lines.lower_intercept),
        xp.where(settled, zero, lines.upper_slope),
        xp.where(settled, box.upper[:, None], lines.upper_intercept),
    )


def open_elements(frame: Frame, k: int) -> Array:
    """Mask `(B, *shape)` of the elements of elementwise node `k` that are not linear on their boxes."""
    op = frame.network.nodes[k].op
    assert isinstance(op, ElementwiseOp)
    mask = op.unstable(frame.boxes[frame.network.nodes[k].inputs[0]])
    if isinstance(op, StepOp):
        mask = mask & (frame.boxes[k].lower < frame.boxes[k].upper)
    return mask
