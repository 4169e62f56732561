"""Compares an imported network with onnxruntime on random points of a query's input boxes."""

from dataclasses import dataclass

import numpy as np

from lpverify.errors import InternalError
from lpverify.io.onnx import Model
from lpverify.problem import Problem
from lpverify.replay import Replayer

POINTS = 20
TOLERANCE = 1e-4  # of the largest output; float32 rounding makes up to 5e-6 on VNN-COMP's networks


@dataclass(frozen=True)
class Agreement:
    """How well two evaluations agree: the largest difference of an output, and the largest output."""

    difference: float
    scale: float


def check_import(model: Model, problem: Problem, seed: int) -> Agreement:
    """Evaluates both on `POINTS` random points; float64 here, the model's type there.

    Raises:
        InternalError: They differ by more than `TOLERANCE` of the largest output, or one of them has NaN.
    """
    rng, replay = np.random.default_rng(seed), Replayer(model, problem)
    difference = scale = np.float64(0.0)
    for i in range(POINTS if problem.cases else 0):
        case = i % len(problem.cases)
        box = problem.cases[case].box
        _, inputs = replay.round_into(problem.full(np.asarray(rng.uniform(box.lower, box.upper))), case)
        theirs = replay.run(inputs)
        if theirs is None:
            raise InternalError(f"{model.path}: onnxruntime can't evaluate the network")
        ours = model.network(inputs[None].astype(np.float64))[0]
        difference = np.maximum(difference, np.abs(ours - theirs).max())
        scale = np.maximum(scale, np.abs(theirs).max())
    if not difference <= TOLERANCE * scale:
        raise InternalError(
            f"{model.path}: the imported network differs from onnxruntime by {difference:.4g} in an output "
            f"(the largest output is {scale:.4g})"
        )
    return Agreement(float(difference), float(scale))
