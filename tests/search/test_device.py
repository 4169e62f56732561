"""The device is a choice of the user: what it means, and what it does where there is none."""

import numpy as np
import pytest
import torch
from helpers import box_assertions, query_of, random_dense

from lpverify.config import DEVICES, Config, Deadline
from lpverify.errors import UnsupportedError
from lpverify.problem import compile_problem
from lpverify.search.engines import torch_device, torch_float32
from lpverify.verdict import Sat, Unsat
from lpverify.verify import verify_query

MODEL = random_dense(5, (4, 8, 8, 1))


def violated_from(threshold):
    return query_of(MODEL, box_assertions([-1] * 4, [1] * 4) + f"(assert (<= Y_0 {threshold}))")


@pytest.mark.parametrize("device", DEVICES)
def test_every_device_means_one_that_torch_has(device):
    config = Config(device=device)
    if device == "cuda" and not torch.cuda.is_available():
        with pytest.raises(UnsupportedError, match="no CUDA device"):
            torch_device(config)
        with pytest.raises(UnsupportedError, match="no CUDA device"):
            verify_query(MODEL, violated_from(0.0), config)
    else:
        assert torch.zeros(1, device=torch_device(config)).device.type in ("cpu", "cuda")


def test_arithmetic_lives_on_its_device():
    arithmetic = torch_float32(compile_problem(MODEL.network, violated_from(0.0)), 2**20, "meta")
    assert arithmetic.place(np.zeros(3)).device.type == arithmetic.like.device.type == "meta"
    weights = [getattr(node.op, "weight", None) for node in arithmetic.network.nodes]
    assert {w.device.type for w in weights if w is not None} == {"meta"}


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_verdicts_do_not_depend_on_it(device):
    lowest = MODEL.network(np.random.default_rng(0).uniform(-1, 1, (20_000, 4))).min()
    config = {"device": device, "input_split_limit": 0}
    for threshold, kind in ((lowest + 0.01, Sat), (lowest - 2.0 * abs(lowest) - 1.0, Unsat)):
        deadline = Deadline.after(60)
        assert isinstance(
            verify_query(MODEL, violated_from(threshold), Config(**config, deadline=deadline)), kind
        )
