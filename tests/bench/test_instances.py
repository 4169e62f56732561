"""Real instances (`pytest -m bench`, with LPVERIFY_BENCHMARKS): imports and verdicts against references.

Every network is compared with onnxruntime at `POINTS` points, in a box of inputs of its first property and
around it. They may differ by twice the bound of float32 rounding that `rounding` computes for the network
and the point. Only where ten points take `FEW_SECONDS` of the processor, a hundred more than a minute, those
ten are all; at the time of writing no network is that large. Points so near to a jump of the network (a sign,
a comparison, a rounding) that float32 may be on the other side don't count. With `-rP` every test tells how
much of the bounds is used.
"""

import csv
import os
import time
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from rounding import UNITS, estimate

from lpverify.config import Config, Deadline
from lpverify.errors import UnsupportedError
from lpverify.io.onnx import load_model
from lpverify.io.vnnlib import read_query
from lpverify.problem import compile_problem
from lpverify.verdict import Sat, Unsat
from lpverify.verify import verify_query

pytestmark = pytest.mark.bench
SECONDS = 8.0
POINTS, FEW, FEW_SECONDS = 100, 10, 6.0
OUTPUTS = 10  # compared at a point; others at the next one
TIGHT = 1e-3  # of the largest output; a looser bound would tell little


def rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def networks():
    """Paths in the folder of benchmarks, none if there is no folder."""
    folder = Path(os.environ.get("LPVERIFY_BENCHMARKS") or "missing")
    found = {
        str(path.relative_to(folder)).removesuffix(".gz"): path for path in sorted(folder.rglob("*.onnx*"))
    }
    names = [str(path.relative_to(folder)) for path in found.values()]
    return [pytest.param(name, id=name[:75]) for name in names]  # pytest numbers longer names


def input_boxes(folder, path, model):
    """Those of the first property that an instance has for the network, or a box around zero."""
    family, onnx = path.split("/", 1)
    with open(folder / family / "instances.csv", newline="") as file:
        properties = [row[1] for row in csv.reader(file) if row[0] == onnx]
    for name in properties:
        query = read_query(folder / family / name)
        boxes = [(case.box.lower, case.box.upper) for case in compile_problem(model.network, query).cases]
        if boxes:
            return boxes
    return [(-np.ones(model.network.input_size), np.ones(model.network.input_size))]


def draw(rng, boxes, count):
    """Points inside of the boxes, then as many in boxes that are wider."""
    points = []
    for i in range(count):
        low, high = boxes[rng.integers(len(boxes))]
        margin = 0.0 if 2 * i < count else 0.5 * (high - low) + 0.01 * np.maximum(np.abs(low), np.abs(high))
        points.append(rng.uniform(low - margin, high + margin))
    return points


def typed(model, point):
    """The point as the model's inputs, in their types."""
    parts = np.split(point, np.cumsum(model.inputs.sizes)[:-1])
    signature = zip(parts, model.inputs.shapes, map(np.dtype, model.inputs.dtypes), strict=True)
    return [(np.rint(p) if d.kind in "iub" else p).astype(d).reshape(s) for p, s, d in signature]


def kind_of(model):
    """The coarsest float type of the inputs and outputs."""
    kinds = {np.dtype(d).name for d in (*model.inputs.dtypes, *model.outputs.dtypes)} & set(UNITS)
    return max(kinds or {"float32"}, key=lambda kind: UNITS[kind])


class Comparison:
    """Of one network with onnxruntime."""

    def __init__(self, model, seed=0):
        options = onnxruntime.SessionOptions()
        options.log_severity_level, options.intra_op_num_threads = 3, 1
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(model.serialized, options, providers=providers)
        self.model, self.rng = model, np.random.default_rng(seed)
        self.differences, self.bounds, self.scale, self.points = [], [], 0.0, 0

    def add(self, points):
        """Notes differences and bounds at points; what isn't a number here but is one there has no excuse."""
        inputs = [typed(self.model, point) for point in points]
        theirs = np.stack([self.run(tensors) for tensors in inputs])
        x = np.stack([np.concatenate([t.reshape(-1) for t in tensors]) for tensors in inputs])
        count = min(OUTPUTS, theirs.shape[1])
        outputs = np.stack([self.rng.permutation(theirs.shape[1])[:count] for _ in points])
        found = estimate(self.model.network, x.astype(np.float64), outputs, kind_of(self.model))
        theirs = np.take_along_axis(theirs, outputs, axis=1)
        undefined = np.isfinite(theirs) & ~np.isfinite(found.values)
        counted = found.sure[:, None] & (np.isfinite(found.bounds) | undefined)
        self.differences += [*np.abs(theirs - found.values)[counted]]
        self.bounds += [*np.where(undefined, 0.0, found.bounds)[counted]]
        self.scale = max(self.scale, float(np.abs(theirs).max()))
        self.points += int(counted.any(axis=1).sum())

    def run(self, tensors):
        """All outputs in one row."""
        results = self.session.run(None, dict(zip(self.model.inputs.names, tensors, strict=True)))
        return np.concatenate([np.asarray(r, np.float64).reshape(-1) for r in results])


@pytest.mark.parametrize("path", networks())
def test_the_network_agrees_with_onnxruntime(benchmarks, path):
    model = load_model(benchmarks / path)
    comparison = Comparison(model)
    points = draw(comparison.rng, input_boxes(benchmarks, path, model), POINTS)
    begin = time.thread_time()
    comparison.add(points[:: POINTS // FEW])
    if time.thread_time() - begin < FEW_SECONDS:
        comparison.add([point for i, point in enumerate(points) if i % (POINTS // FEW)])
    if not comparison.points:
        pytest.skip("all points are nearer to jumps of the network than float32 can tell")
    differences, bounds = np.array(comparison.differences), np.array(comparison.bounds)
    used = differences[bounds > 0] / bounds[bounds > 0]
    share = f"{np.median(used):.1e} of the bounds, at most {used.max():.1e}" if len(used) else "exact bounds"
    print(f"{comparison.points} points use {share}")
    assert (differences <= 2 * bounds).all()
    assert np.median(bounds) <= TIGHT * comparison.scale


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
