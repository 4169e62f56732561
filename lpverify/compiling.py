"""A model and a query as a problem: over the real numbers, or over computation in the declared types."""

from collections.abc import Sequence
from functools import partial

import numpy as np

from lpverify.bounds.execution import executed
from lpverify.errors import InputError, InternalError, UnsupportedError
from lpverify.interval import Box
from lpverify.io.model import Model
from lpverify.network import Network
from lpverify.ops.base import SelectionOp
from lpverify.ops.execution import OnnxStep
from lpverify.problem import Problem, compile_problem
from lpverify.query import Query
from lpverify.replay import is_whole
from lpverify.typed import Typed, float_info

MOST_SPAN = 2**17  # largest numbers of types whose whole range is used as bounds of an input


def compile_query(model: Model, query: Query) -> Problem:
    """Builds the problem of a query about a model that fits it.

    Raises:
        InputError: They do not fit.
        UnsupportedError: Something in them can't be treated.
    """
    if query.networks and len(query.networks) > 1 and not model.parts:
        raise InputError(f"{query.path}: declares {len(query.networks)} networks, there is one model")
    typed = None if query.semantics == "real" else _typed(model)
    if typed is not None and typed.dtype is not None and query.delicate:
        raise UnsupportedError(
            f"{query.path}: arithmetic in which terms cancel or factors are extreme: how far rounding takes "
            "it is not known; declare the variables as real to ask about real arithmetic"
        )
    return compile_problem(model.network, query, typed)


def _typed(model: Model) -> Typed:
    tensors = [t for signature in (model.inputs, model.outputs) for t in signature.tensors]
    sizes = [t.size for t in tensors]
    whole = np.repeat([is_whole(t.dtype) for t in tensors], sizes)
    floats = [t.dtype for t in tensors if not is_whole(t.dtype)]
    if {np.dtype(dtype).name for dtype in floats} >= {"float16", "bfloat16"}:
        raise UnsupportedError(
            "a query about both float16 and bfloat16: neither has all roundings of the other"
        )
    coarsest = max(floats, key=lambda dtype: float(float_info(dtype).eps), default=None)
    spans = np.repeat([_span(t.dtype) for t in model.inputs.tensors], model.inputs.sizes, axis=0)
    return Typed(coarsest, whole, spans, partial(_executed, model.steps))


def _span(dtype: type) -> tuple[float, float]:
    """Least and largest number of a narrow type, NaN for a wide one."""
    if np.dtype(dtype).kind == "b":
        return 0.0, 1.0
    info = np.iinfo(dtype) if is_whole(dtype) else float_info(dtype)
    return (float(info.min), float(info.max)) if float(info.max) <= MOST_SPAN else (np.nan, np.nan)


def _executed(steps: Sequence[OnnxStep], network: Network, box: Box, before: int) -> Network:
    if not steps and any(not isinstance(node.op, SelectionOp) for node in network.nodes[1:]):
        raise InternalError("it is not known which computations the network stands for")
    moved = [step.moved(lambda i: i + before) for step in steps] if before else steps
    return executed(network, moved, box)
