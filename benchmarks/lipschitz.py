"""Lipschitz bounds and seconds of each method on random dense ReLU networks.

    python benchmarks/lipschitz.py [--norm 2] [--seed 0] [--sizes 2,16,16,2 ...]

For each network and method one line: seconds, the bound, and its ratio to the steepest observed slope.
"""

import argparse
import sys
import time
from itertools import pairwise

import numpy as np
from onnx import TensorProto, helper, numpy_helper

import lpverify
from lpverify.io.onnx import import_model
from lpverify.robustness.lipschitz import lipschitz

SIZES = ("2,16,16,2", "10,20,20,20,5", "784,40,30,10", "784,200,200,10", "20,60,60,60,60,60,5")


def random_network(sizes: list[int], seed: int) -> lpverify.LoadedNetwork:
    """Gemm and ReLU in turn, with weights that keep the size of values."""
    rng = np.random.default_rng(seed)
    nodes, tensors, value = [], [], "x"
    for k, (n, m) in enumerate(pairwise(sizes)):
        arrays = rng.normal(size=(n, m)) * np.sqrt(2 / n), 0.1 * rng.normal(size=m)
        tensors += [
            numpy_helper.from_array(np.asarray(a, np.float32), f"{c}{k}")
            for c, a in zip("wb", arrays, strict=True)
        ]
        result = "y" if k == len(sizes) - 2 else f"z{k}"
        nodes.append(helper.make_node("Gemm", [value, f"w{k}", f"b{k}"], [result]))
        if result != "y":
            nodes.append(helper.make_node("Relu", [result], [f"x{k}"]))
            value = f"x{k}"
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, size])
        for name, size in (("x", sizes[0]), ("y", sizes[-1]))
    ]
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return lpverify.LoadedNetwork(import_model(proto.SerializeToString()))


def measure(sizes: list[int], norm: float, seed: int, radius: float) -> None:
    """Prints a line for each method."""
    network = random_network(sizes, seed)
    box = {"lower": np.full(sizes[0], -radius), "upper": np.full(sizes[0], radius)}
    for method in ("product", "eclipse", "lipsdp", "local"):
        start = time.monotonic()
        try:
            found = lipschitz(network, norm=norm, method=method, **(box if method == "local" else {}))
        except lpverify.UnsupportedError as error:
            print(f"{method:9s} {error}")
            continue
        ratio = found.value / found.observed if found.observed else float("inf")
        spent = time.monotonic() - start
        print(f"{method:9s} {spent:8.2f} s   {found.value:12.6g}   {ratio:10.4g} x observed")


def main() -> int:
    """Measures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--norm", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--radius", type=float, default=0.01, help="of the box around 0 for local bounds")
    parser.add_argument("--sizes", nargs="*", default=list(SIZES))
    args = parser.parse_args()
    for text in args.sizes:
        print(text)
        measure([int(part) for part in text.split(",")], args.norm, args.seed, args.radius)
    return 0


if __name__ == "__main__":
    sys.exit(main())
