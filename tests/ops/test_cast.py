"""Whole numbers beyond the range of their type: nothing is claimed about them."""

import numpy as np
import pytest
from helpers import box_assertions, model_of, query_of
from onnx import TensorProto, helper, numpy_helper

from lpverify.config import Config, Deadline
from lpverify.interval import Box
from lpverify.io.onnx import Model
from lpverify.ops.cast import Within
from lpverify.verdict import Unsat
from lpverify.verify import verify_query


@pytest.mark.parametrize("kind", sorted(Within.RANGES))
def test_boxes_that_leave_the_range_are_unbounded(kind: str) -> None:
    op, (least, most) = Within.range_of(kind), Within.RANGES[kind]
    step = max(1.0, float(most) * 2.0**-40)
    for low, high, inside in (
        (0.0, 1.0, True),
        (float(least), op.most, True),
        (float(least) - step, 0.0, False),
        (0.0, float(most) + step, False),
    ):
        box = Box(np.array([[low]]), np.array([[high]]))
        lower, upper = op.interval(box)
        assert op.unstable(box).all() != inside
        assert (lower <= low).all() and (upper >= high).all()
        assert np.isfinite([lower, upper]).all() == inside
        lines = op.relax(box, None)
        assert np.isfinite([lines.lower_intercept, lines.upper_intercept]).all() == inside


def casting(kind: int, addend: int = 0) -> Model:
    """`y = cast(cast(x) + addend)`, the inner cast and the sum in an integer type."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=kind),
        helper.make_node("Add", ["whole", "c"], ["sum"]),
        helper.make_node("Cast", ["sum"], ["y"], to=TensorProto.FLOAT),
    ]
    return model_of(nodes, [numpy_helper.from_array(np.asarray([[addend]], dtype), "c")], (1, 1), 14)


def test_overflow_of_one_part_is_not_unsat() -> None:
    """Powers with different exponents are put together at the end; 2^75 in 32 bits is negative."""
    nodes = [
        helper.make_node("Cast", ["x"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Pow", ["whole", "c"], ["power"]),
        helper.make_node("Cast", ["power"], ["y"], to=TensorProto.FLOAT),
    ]
    constants = [numpy_helper.from_array(np.array([[4, 75]], np.int32), "c")]
    model = model_of(nodes, constants, (2, 2), 15)
    box = box_assertions([2, 2], [2, 2])
    for output, holds in ((0, True), (1, False)):
        query = query_of(model, f"{box}(assert (<= Y_{output} -1.0))")
        assert isinstance(verify_query(model, query, Config(deadline=Deadline.after(3))), Unsat) == holds


@pytest.mark.parametrize(("kind", "addend"), [(TensorProto.INT8, 0), (TensorProto.INT32, 2**31 - 50)])
def test_overflow_is_not_unsat(kind: int, addend: int) -> None:
    """The runtime wraps around to negative numbers, the sum over the reals is positive."""
    model = casting(kind, addend)
    for high, holds in ((40, True), (300, False)):
        query = query_of(model, box_assertions([0], [high]) + "(assert (<= Y_0 -1.0))")
        verdict = verify_query(model, query, Config(deadline=Deadline.after(3)))
        assert isinstance(verdict, Unsat) == holds, verdict
