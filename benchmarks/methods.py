"""Width of bounds against time, for each method, on one network around one input.

    python benchmarks/methods.py NET.onnx PROP.vnnlib [--methods ibp,crown,...] [--plot FILE.png]

The input set is the box of the property's first case. For each method one line: seconds, mean width of the
outputs' bounds, and that width relative to the first method's.
"""

import argparse
import sys
from pathlib import Path

import lpverify
from lpverify.io.vnnlib import read_query
from lpverify.problem import compile_problem

METHODS = ("ibp", "crown-ibp", "crown", "alpha-crown", "lp", "obbt", "milp")


def measure(
    network: lpverify.LoadedNetwork, query: str, methods: list[str], seconds: float
) -> list[tuple[str, float, float]]:
    """Method, seconds and mean width of the outputs' bounds."""
    box = compile_problem(network.model.network, read_query(query)).cases[0].box
    rows = []
    for method in methods:
        found = lpverify.bounds(network, box.lower, box.upper, method=method, seconds=seconds, threads=2)
        rows.append((method, found.seconds, float((found.upper - found.lower).mean())))
        width = rows[-1][2]
        print(f"{method:12s} {found.seconds:9.3f} s   width {width:12.6g}   {width / rows[0][2]:.3e}")
    return rows


def draw(rows: list[tuple[str, float, float]], title: str, path: Path) -> None:
    """Width against time, both on log scales."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (only for --plot)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(6.4, 4.8), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xscale="log", yscale="log", xlabel="seconds", ylabel="mean width", title=title)
    axes.plot([r[1] for r in rows], [r[2] for r in rows], marker="o")
    for method, seconds, width in rows:
        axes.annotate(method, (seconds, width), textcoords="offset points", xytext=(6, 4))
    axes.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def main() -> int:
    """Measures and draws."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("network")
    parser.add_argument("query")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--seconds", type=float, default=120.0, help="limit of each method")
    parser.add_argument("--plot", type=Path)
    args = parser.parse_args()
    rows = measure(lpverify.load(args.network), args.query, args.methods.split(","), args.seconds)
    if args.plot:
        draw(rows, Path(args.network).name, args.plot)
    return 0


if __name__ == "__main__":
    sys.exit(main())
