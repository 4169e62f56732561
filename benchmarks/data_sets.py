"""Bounds for many samples together against one sample after the other: seconds, and what each proves.

python benchmarks/data_sets.py NET.onnx DATA.npz [--eps 0.01 0.02] [--limit 100] [--method crown]
"""

import argparse
import math
import time
from fractions import Fraction

from lpverify.config import Config
from lpverify.io.onnx import load_model
from lpverify.robustness.bounders import BATCHED, BatchedBounds, SingleBounds
from lpverify.robustness.data.reading import read_samples
from lpverify.robustness.evidence import Question
from lpverify.robustness.margins import Margins, classes_of
from lpverify.robustness.threat import Threat


def main() -> None:
    """Prints a row for each radius."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("network")
    parser.add_argument("data")
    parser.add_argument("--eps", nargs="+", type=Fraction, default=[Fraction("0.01"), Fraction("0.02")])
    parser.add_argument("--limit", type=int, default=100)
    parser.add_argument("--method", choices=list(BATCHED), default="crown")
    parser.add_argument("--norm", type=float, default=math.inf)
    args = parser.parse_args()
    model = load_model(args.network)
    samples = read_samples(model, args.data, clip=(0, 1), limit=args.limit)
    margins = Margins.of(model, samples, Threat(classes_of(model), args.norm, (0, 1)), Config())
    print(f"{'eps':>8}  {'together':>10}  {'one by one':>10}  {'ratio':>6}  proven")
    for eps in args.eps:
        questions = [Question(i, eps) for i in range(len(samples))]
        seconds, proven = [], []
        for method in (BatchedBounds(margins, args.method), SingleBounds(margins, args.method)):
            start = time.perf_counter()
            attempts = list(method.answer(questions))
            seconds.append(time.perf_counter() - start)
            proven.append(sum(attempt.verdict == "proven" for attempt in attempts))
        times = f"{seconds[0]:9.2f}s  {seconds[1]:9.2f}s  {seconds[1] / seconds[0]:6.1f}"
        print(f"{float(eps):8.4f}  {times}  {proven[0]} {proven[1]}")


if __name__ == "__main__":
    main()
