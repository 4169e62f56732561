"""Throughput of the compiled kernel: against the NumPy reference, and against a matrix product.

    python benchmarks/kernel.py [--sizes 5,50,50,50,50,50,50,4] [--width 0.1] [--batch 256]

Bounds a batch of random sub-boxes of the unit box on a random dense ReLU network, with one thread. Prints
subproblems a second of `lpverify.bounds.evaluate` (NumPy, float64) and of the kernel in float32 and float64
for each instruction set; then the multiplications of its backward rows a second, all other work of the
kernel included in the time, beside those of NumPy's `A @ W` in float32 for as many rows as one subproblem
has in a layer. A product and a sum count as two operations. Run it with OPENBLAS_NUM_THREADS=1.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from functools import partial

import numpy as np

from lpverify.bounds.condense import condense
from lpverify.bounds.evaluate import Batch, double_precision, evaluate
from lpverify.bounds.propagate import Region
from lpverify.io.vnnlib import parse_query
from lpverify.kernels.dense import DenseKernel, extension
from lpverify.multipliers import Effort
from lpverify.network import Network, Node
from lpverify.ops.linear import Linear
from lpverify.ops.piecewise import Relu
from lpverify.problem import Problem, compile_problem


def random_problem(sizes: list[int], rng: np.random.Generator) -> Problem:
    """Dense layers with ReLUs between them, weights of float32, and a query of each output."""
    nodes = [Node(None, (), (sizes[0],))]
    for a, b in itertools.pairwise(sizes):
        if len(nodes) > 1:
            nodes.append(Node(Relu(), (len(nodes) - 1,), nodes[-1].shape))
        weight = (rng.normal(size=(b, a)) / np.sqrt(a / 2)).astype(np.float32).astype(np.float64)
        nodes.append(Node(Linear(weight, 0.1 * rng.normal(size=b)), (len(nodes) - 1,), (b,)))
    lines = [f"(declare-const X_{i} Real)" for i in range(sizes[0])]
    lines += [f"(declare-const Y_{i} Real)" for i in range(sizes[-1])]
    lines += [f"(assert (and (>= X_{i} 0) (<= X_{i} 1)))" for i in range(sizes[0])]
    lines += [f"(assert (<= Y_{i} 0))" for i in range(sizes[-1])]
    return compile_problem(Network(tuple(nodes), len(nodes) - 1), parse_query("\n".join(lines)))


def seconds(function: Callable[[], object], least: float = 1.0) -> float:
    """Of one call, the best of several."""
    best, end = float("inf"), time.perf_counter() + least
    while time.perf_counter() < end:
        start = time.perf_counter()
        function()
        best = min(best, time.perf_counter() - start)
    return best


def measure_kernel(problem: Problem, box: tuple[np.ndarray, np.ndarray], name: str, double: bool) -> str:
    """One line about one instruction set."""
    graph = condense(problem.network)
    assert graph is not None
    kernel, count = DenseKernel(graph, name), len(box[0])
    forms = problem.network.nodes[problem.network.output].shape[0]
    wanted = np.ascontiguousarray(np.broadcast_to(np.arange(forms, dtype=np.int32), (count, forms)))
    none = np.zeros((count, 0), np.int32), np.zeros((count, 0), np.int8)

    def once() -> None:
        known = np.full((2, count, kernel.neurons), np.inf)
        kernel.work[:] = 0
        kernel.bound(box, (-known[0], known[1]), wanted, none, double, 1)

    taken = seconds(once)
    rows, products = kernel.work / count
    rate = f"{count / taken:8.0f} subproblems/s, {2e-9 * kernel.work[1] / taken:5.1f} GFLOP/s"
    kind = "float64" if double else "float32"
    return f"{name:8s} {kind} {rate}, {rows:.0f} rows of {products / rows:.0f} products"


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--sizes", default="5,50,50,50,50,50,50,4")
    parser.add_argument("--width", type=float, default=0.1)
    parser.add_argument("--batch", type=int, default=256)
    args = parser.parse_args()
    rng, sizes = np.random.default_rng(0), [int(s) for s in args.sizes.split(",")]
    problem, module = random_problem(sizes, rng), extension()
    if module is None:
        parser.exit(1, "the kernel is not there\n")
    lower = rng.uniform(0, 1 - args.width, (args.batch, sizes[0]))
    box, arithmetic = (lower, lower + args.width), double_precision(problem)
    batch = Batch(np.zeros(args.batch, np.int64), Region(arithmetic.box(*box)), {})
    taken = seconds(lambda: evaluate(problem, arithmetic, batch, Effort("crown")))
    print(f"NumPy    float64 {args.batch / taken:8.0f} subproblems/s")
    for name in module.instruction_sets():
        for double in (False, True):
            print(measure_kernel(problem, box, name, double))
    width = max(sizes[1:-1])
    for height in (16, 1024):
        a, w = (rng.normal(size=(n, width)).astype(np.float32) for n in (height, width))
        rate = 2e-9 * a.size * width / seconds(partial(np.matmul, a, w))
        print(f"A @ W    float32 {rate:5.1f} GFLOP/s, {height} rows")


if __name__ == "__main__":
    main()
