"""Writes the seeds of the fuzzers into a folder: small models of many operators, small properties."""

import sys
import warnings
from pathlib import Path

import onnx
from fuzz_models import own_models

LARGEST = 2000  # bytes of a model


def write_models(folder: Path) -> int:
    """ONNX's node tests, with the operands that importers need as constants, and models of our own."""
    from onnx.backend.test.loader import load_model_tests

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tests = load_model_tests(kind="node")
    models = {test.name: with_constants(test) for test in tests}
    models |= own_models()
    count = 0
    for name, model in models.items():
        data = b"" if model is None else model.SerializeToString()
        if 0 < len(data) <= LARGEST:
            (folder / name).write_bytes(data)
            count += 1
    return count


def with_constants(test: object) -> onnx.ModelProto | None:
    """The test's model, all operands but the first constant."""
    import numpy as np
    from onnx import numpy_helper

    model = onnx.ModelProto()
    model.CopyFrom(test.model)
    inputs, _ = test.data_sets[0]
    names = [info.name for info in model.graph.input]
    for name, value in zip(names[1:], inputs[1:], strict=False):
        if isinstance(value, np.ndarray):
            model.graph.initializer.append(numpy_helper.from_array(value, name))
    del model.graph.input[1:]
    return model


def write_properties(folder: Path) -> int:
    from fuzz_vnnlib import SEEDS

    for i, text in enumerate(SEEDS):
        (folder / f"seed{i}").write_text(text)
    return len(SEEDS)


if __name__ == "__main__":
    where = Path(sys.argv[2])
    where.mkdir(parents=True, exist_ok=True)
    print(write_models(where) if sys.argv[1] == "onnx" else write_properties(where))
