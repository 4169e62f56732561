"""Fuzzes the reader of networks: any bytes give a network, or an error that it documents.

What is imported must compute what onnxruntime computes, if that takes the model. Bytes are mutated as they
are, and as messages (`fuzz_models`). Set LPVERIFY_FUZZ_NO_RUNTIME to leave onnxruntime alone.
"""

import os
import random
import re
import sys
import traceback
import warnings
from dataclasses import fields
from pathlib import Path

import atheris
import numpy as np
import onnx

with atheris.instrument_imports(include=["lpverify.io", "lpverify.ops"]):
    from lpverify.errors import InputError, UnsupportedError
    from lpverify.io.limits import ModelLimits
    from lpverify.io.onnx import Model, import_model
    from lpverify.ops.cast import Within

from fuzz_models import mutate
from onnx import checker

import lpverify.ops  # noqa: F401  (registers the importers)

LIMITS = ModelLimits(max_elements=2**16, max_computed=2**22, max_steps=500, max_trips=50, max_nodes=2000)
COUNTS = {"imported": 0, "compared": 0}
LARGEST = 1e6  # weight of networks that are compared
TOLERANCE = 1e-3  # of the largest output


class DisagreementError(Exception):
    """The imported network is another function than the model."""


def one_input(data: bytes) -> None:
    """One run; with LPVERIFY_FUZZ_KEEP a folder that faults are collected in, one of each kind."""
    if "LPVERIFY_FUZZ_KEEP" not in os.environ:
        check(data)
        return
    try:
        check(data)
    except Exception as error:  # noqa: BLE001
        place = traceback.extract_tb(error.__traceback__)[-1]
        names = sorted({n.op_type for n in onnx.ModelProto.FromString(data).graph.node})
        where = f"{place.name}{place.lineno}" if not isinstance(error, DisagreementError) else ""
        name = re.sub("[^A-Za-z0-9]+", "_", f"{type(error).__name__} {where} {' '.join(names)}")[:120]
        path = Path(os.environ["LPVERIFY_FUZZ_KEEP"]) / name
        if not path.exists():
            path.write_bytes(data)
            path.with_suffix(".txt").write_text(f"{error!r:.2000}")


def check(data: bytes) -> None:
    try:
        model = import_model(data, limits=LIMITS)
    except (InputError, UnsupportedError) as error:
        if not str(error):
            raise RuntimeError("an empty message") from error
        return
    COUNTS["imported"] += 1
    if "LPVERIFY_FUZZ_NO_RUNTIME" not in os.environ:
        compare(model)


def compare(model: Model) -> None:
    """One evaluation on whole and half numbers."""
    if any(isinstance(node.op, Within) for node in model.network.nodes):
        return  # nothing is claimed of whole numbers that leave the range of their type
    if extreme(model):
        return
    if sum(model.inputs.sizes) > 4096 or np.dtype(model.inputs.dtypes[0]).kind == "V":
        return
    try:
        checker.check_model(model.serialized)
    except Exception:  # noqa: BLE001
        return
    flat = np.random.default_rng(len(model.serialized)).integers(-6, 7, sum(model.inputs.sizes)) / 2.0
    for t in model.inputs.tensors:
        if np.dtype(t.dtype).kind in "iub":
            flat[t.part] = np.clip(np.floor(flat[t.part]), 0, 1 if np.dtype(t.dtype).kind == "b" else 3)
    with np.errstate(all="ignore"):
        ours = model.network(flat[None])[0]
    found = evaluate(model, flat)
    if found is None or not np.isfinite(ours).all() or not np.isfinite(found).all():
        return
    COUNTS["compared"] += 1
    if found.size != ours.size:
        raise DisagreementError(f"{ours.size} outputs here, {found.size} in onnxruntime")
    scale = max(1.0, np.abs(found).max(initial=0.0))
    if scale < 1e30 and not np.abs(found - ours).max(initial=0.0) <= tolerance(model) * scale:
        raise DisagreementError(f"at {flat.tolist()}: {ours.tolist()} here, {found.tolist()} in onnxruntime")


def extreme(model: Model) -> bool:
    """Whether plain evaluation may cancel, here or in onnxruntime."""
    arrays = (getattr(n.op, f.name) for n in model.network.nodes[1:] for f in fields(n.op))
    if any(np.abs(a).max(initial=0.0) > LARGEST for a in arrays if isinstance(a, np.ndarray)):
        return True
    nodes = onnx.ModelProto.FromString(model.serialized).graph.node
    return any(abs(a.f) > LARGEST for node in nodes for a in node.attribute)


def tolerance(model: Model) -> float:
    half = any(np.dtype(t).itemsize == 2 for t in (*model.inputs.dtypes, *model.outputs.dtypes))
    return 3e-2 if half else TOLERANCE


def evaluate(model: Model, flat: np.ndarray) -> np.ndarray | None:
    """What onnxruntime computes; None where it can't."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    # Its folding of constants crashes on some models; the supervisor survives that, a fuzzer does not.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    feeds = {t.name: flat[t.part].astype(t.dtype).reshape(t.shape) for t in model.inputs.tensors}
    try:
        session = onnxruntime.InferenceSession(model.serialized, options, providers=["CPUExecutionProvider"])
        found = session.run(list(model.outputs.names), feeds)
    except Exception:  # noqa: BLE001
        return None
    return np.concatenate([np.asarray(f, np.float64).reshape(-1) for f in found])


def mutator(data: bytes, max_size: int, seed: int) -> bytes:
    """Half of the time as bytes, half of the time as a message."""
    rng = random.Random(seed)
    if rng.random() < 0.85:
        try:
            model = onnx.ModelProto.FromString(data)
            mutate(model, rng)
            changed = model.SerializeToString()
        except Exception:  # noqa: BLE001
            changed = b""
        if 0 < len(changed) <= max_size:
            return changed
    return atheris.Mutate(data, max_size)


def main() -> None:
    warnings.simplefilter("ignore")
    atheris.Setup(sys.argv, one_input, custom_mutator=mutator)
    atheris.Fuzz()


if __name__ == "__main__":
    import atexit

    atexit.register(lambda: print(COUNTS, flush=True))
    main()
