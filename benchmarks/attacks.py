"""How many samples an attack breaks, and how long it takes.

    python benchmarks/attacks.py [NET.onnx DATA.npz] [--norm inf] [--eps 0.05,0.1] [--clip 0,1] [--nearest 1]

DATA has the arrays `x` (samples, any shape) and `y` (labels). Without a network generated ones are attacked.
For each radius one line: samples that are broken, misclassified ones among them, and seconds a sample; with
`--nearest` another one with the median distance of the nearest counterexamples within that radius.
"""

import argparse
import itertools
import math
import time
from collections import Counter
from collections.abc import Iterator
from fractions import Fraction

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from lpverify.config import Config, Deadline
from lpverify.io.onnx import Model, import_model, load_model
from lpverify.robustness.attack.attacks import Attack
from lpverify.robustness.attack.nearest import nearest
from lpverify.robustness.evidence import Adversarial, Question
from lpverify.robustness.judge import Judge
from lpverify.robustness.margins import Margins
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat

GENERATED = ((16, 32, 32, 4), (64, 64, 64, 10), (784, 128, 128, 10))
COUNT = 50


def generated(sizes: tuple[int, ...]) -> Model:
    """A random dense ReLU network."""
    rng, nodes, constants, value = np.random.default_rng(0), [], [], "x"
    for i, (a, b) in enumerate(itertools.pairwise(sizes)):
        weights = {f"w{i}": rng.normal(size=(a, b)) * math.sqrt(2 / a), f"b{i}": 0.1 * rng.normal(size=b)}
        constants += [numpy_helper.from_array(w.astype(np.float32), name) for name, w in weights.items()]
        last = i == len(sizes) - 2
        nodes.append(helper.make_node("Gemm", [value, *weights], ["y" if last else f"z{i}"]))
        if not last:
            nodes.append(helper.make_node("Relu", [f"z{i}"], [value := f"x{i}"]))
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, sizes[0]])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, sizes[-1]])
    graph = helper.make_graph(nodes, "g", [x], [y], constants)
    proto: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    return import_model(proto.SerializeToString())


def tasks(paths: list[str]) -> Iterator[tuple[str, Model, Samples]]:
    """Name, network and samples."""
    if paths:
        network, data = paths
        with np.load(data) as arrays:
            x, y = arrays["x"], arrays["y"]
        model = load_model(network)
        yield network, model, samples_of(model, x, y)
        return
    for sizes in GENERATED:
        model = generated(sizes)
        x = np.random.default_rng(1).uniform(0, 1, (COUNT, sizes[0])).astype(np.float32)
        yield "-".join(map(str, sizes)), model, samples_of(model, x, np.argmax(model.network(x), axis=1))


def samples_of(model: Model, x: np.ndarray, y: np.ndarray) -> Samples:
    """Samples of arrays."""
    flat = x.reshape(len(x), -1).astype(model.inputs.dtypes[0]).astype(np.float64)
    return Samples(flat, y.astype(np.int64), tuple(str(i) for i in range(len(x))), x.shape[1:])


def measure(attack: Attack, eps: list[Fraction], reach: Fraction | None) -> None:
    """Prints the lines of one network."""
    count = len(attack.judge.samples)
    wrong = {c.sample for c in attack.judge.clean(range(count)) if not c.correct}
    for radius in eps:
        start = time.perf_counter()
        found = list(attack.answer([Question(i, radius) for i in range(count)]))
        seconds = time.perf_counter() - start
        by = Counter(f.source for f in found if isinstance(f, Adversarial))
        text = ", ".join(f"{source} {n}" for source, n in by.items())
        print(
            f"  eps {float(radius):8.4g}: {sum(by.values())} of {count} broken, {len(wrong)} wrong", end="; "
        )
        print(f"{seconds / count:.4f} s a sample; {text}")
    if reach is not None:
        start = time.perf_counter()
        distances = [float(a.distance) for a in nearest(attack, range(count), Deadline(), reach)]
        seconds, median = time.perf_counter() - start, np.median(distances) if distances else math.nan
        print(
            f"  nearest: {len(distances)} of {count}, median {median:.5g}; {seconds / count:.4f} s a sample"
        )


def main() -> None:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description="Measures attacks.")
    parser.add_argument("paths", nargs="*", metavar="NET DATA")
    parser.add_argument("--norm", default="inf", choices=("1", "2", "inf"))
    parser.add_argument("--eps", default="0.02,0.05,0.1")
    parser.add_argument("--clip", default="")
    parser.add_argument("--nearest", default="")
    args = parser.parse_args()
    if len(args.paths) not in (0, 2):
        parser.error("give NET and DATA, or neither")
    ends = [Fraction(end) for end in args.clip.split(",") if end]
    clip = (ends[0], ends[1]) if ends else None
    for name, model, samples in tasks(args.paths):
        print(name)
        threat = Threat(model.outputs.sizes[0], float(args.norm), clip)
        attack = Attack(Margins.of(model, samples, threat, Config()), Judge(model, samples, threat))
        reach = Fraction(args.nearest) if args.nearest else None
        measure(attack, [Fraction(e) for e in args.eps.split(",")], reach)


if __name__ == "__main__":
    main()
