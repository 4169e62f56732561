"""Real instances (`pytest -m bench`, with LPVERIFY_BENCHMARKS): imports and verdicts against references."""

import csv

import numpy as np
import onnxruntime
import pytest

from lpverify.config import Config, Deadline
from lpverify.errors import UnsupportedError
from lpverify.io.onnx import load_model
from lpverify.io.vnnlib import read_query
from lpverify.verdict import Sat, Unsat
from lpverify.verify import verify_query

pytestmark = pytest.mark.bench
SECONDS = 8.0


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_network_agrees_with_onnxruntime(benchmarks):
    rng = np.random.default_rng(0)
    failures, unsupported, compared = [], [], 0
    for path in sorted(benchmarks.glob("*/onnx/**/*.onnx.gz")):
        try:
            model = load_model(path)
        except UnsupportedError:
            unsupported.append(path.name)
            continue
        session = onnxruntime.InferenceSession(model.serialized, providers=["CPUExecutionProvider"])
        for _ in range(3):
            x = [
                rng.uniform(-0.5, 0.5, s).astype(d)
                for s, d in zip(model.inputs.shapes, model.inputs.dtypes, strict=True)
            ]
            feeds = dict(zip(model.inputs.names, x, strict=True))
            expected = np.concatenate([np.asarray(y).reshape(-1) for y in session.run(None, feeds)])
            with np.errstate(all="ignore"):
                ours = model.network(np.concatenate([v.reshape(-1) for v in x])[None].astype(np.float64))[0]
            compared += 1
            if not np.abs(ours - expected).max() <= 1e-4 * max(1.0, np.abs(expected).max()):
                failures.append(path.name)
    assert not failures, failures
    assert compared > 300 and len(unsupported) < 12, unsupported


def test_no_verdict_contradicts_a_reference(benchmarks):
    reference = {
        (r["family"], r["onnx"], r["vnnlib"]): r["verdict"] for r in rows(benchmarks / "reference.csv")
    }
    wrong, solved = [], 0
    for row in rows(benchmarks / "quick.csv"):
        folder = benchmarks / row["family"]
        try:
            model = load_model(folder / row["onnx"])
        except UnsupportedError:
            continue
        query = read_query(folder / row["vnnlib"])
        verdict = verify_query(model, query, Config(deadline=Deadline.after(SECONDS)))
        expected = reference[row["family"], row["onnx"], row["vnnlib"]]
        solved += isinstance(verdict, Sat | Unsat)
        if (isinstance(verdict, Sat) and expected == "unsat") or (
            isinstance(verdict, Unsat) and expected == "sat"
        ):
            wrong.append(row)
    assert not wrong, wrong
    assert solved >= 36
