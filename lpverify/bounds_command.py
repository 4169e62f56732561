"""One `lpverify bounds`: arguments to arrays, bounds by each method, a table and files.

Decimals of the command line and of text files are read exactly. Radii and ends of boxes are rounded outward,
so that no input is lost. The table rounds bounds outward as well.
"""

import argparse
import io
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Context, Decimal
from typing import Any

import numpy as np

from lpverify import __version__
from lpverify.bounding import BoundsResult, ValueBounds, bounds
from lpverify.columns import aligned
from lpverify.errors import InputError, UnsupportedError
from lpverify.io.arrays import read_npy
from lpverify.io.onnx import ModelLimits, load_model
from lpverify.io.results import ReportFile, report_text
from lpverify.io.vnnlib import read_query
from lpverify.limit_options import model_limits, property_limits
from lpverify.loading import LoadedNetwork
from lpverify.methods import METHODS
from lpverify.models import Models
from lpverify.options import exact
from lpverify.plotting import require_matplotlib, widths_png
from lpverify.problem import compile_problem
from lpverify.query import Number, Query, float_above, float_below
from lpverify.result_files import result_files, write_results
from lpverify.solvers.registry import require_solver

SCHEMA = 1
MOST_ROWS = 20  # outputs in the table
DIGITS = 9
NAME_WIDTH = 32


def run(args: argparse.Namespace, put: Callable[[str], None], tell: Callable[[str], None]) -> int:
    """Runs the command and returns the exit code.

    Args:
        args: Of `options.bounds_parser`.
        put: Writes text to stdout.
        tell: Writes a line to stderr.

    Raises:
        InputError: A file or an option is wrong, or a result can't be written.
        UnsupportedError: The network, or a method on it.
    """
    methods = list(dict.fromkeys(args.method or ["crown"]))
    _check(args, methods)
    targets = _targets(args)
    query = None if args.property is None else read_query(args.property, limits=property_limits(args))
    network = _network(args.network, query, model_limits(args))
    arguments = _inputs(args, network, query, tell) | _choices(args)
    found = [_bounds(network, method, arguments, args, tell) for method in methods]
    failed = write_results(targets, lambda option: _content(option, args, found), tell)
    put(as_text(found, args.objective is not None))
    if failed:
        raise InputError(f"can't write what {', '.join(failed)} asks for")
    return 0


# Arguments


def _check(args: argparse.Namespace, methods: Sequence[str]) -> None:
    """What is wrong with the options whatever is in the files."""
    ball = (args.center, args.eps)
    box = (args.lower, args.upper)
    forms = [any(part is not None for part in form) for form in (ball, box, (args.property,))]
    halves = [None in form for form, given in zip((ball, box), forms[:2], strict=True) if given]
    if sum(forms) != 1 or any(halves):
        raise InputError("expected one of: --center and --eps; --lower and --upper; --property")
    for name, value in (("--norm", args.norm), ("--clip", args.clip)):
        if value is not None and args.center is None:
            raise InputError(f"{name} goes with --center")
    for method in methods:
        if METHODS[method].needs_ball and args.norm not in (1, 2):
            raise InputError(f"method {method} is for balls: it needs --center, --eps and --norm 1 or 2")
    if args.solver is not None:
        require_solver(args.solver)


def _network(path: str, query: Query | None, limits: ModelLimits) -> LoadedNetwork:
    """The network, its tensors in the order of the property if there is one."""
    if query is None:
        return LoadedNetwork(load_model(path, limits=limits), path)
    return LoadedNetwork(Models({"": path}, limits=limits).fitting(query).model, path)


def _inputs(
    args: argparse.Namespace, network: LoadedNetwork, query: Query | None, tell: Callable[[str], None]
) -> dict[str, Any]:
    """The set of inputs, as arguments of `bounds`."""
    if query is not None:
        return _box_of_property(query, network, tell)
    if args.center is None:
        return {
            "lower": read_array(args.lower, float_below, flat=True),
            "upper": read_array(args.upper, float_above, flat=True),
        }
    low, high = args.clip or (None, None)
    return {
        "center": read_array(args.center, float, flat=True),
        "eps": args.eps,
        "norm": math.inf if args.norm is None else args.norm,
        "lower": None if low is None else float_below(low),
        "upper": None if high is None else float_above(high),
    }


def _box_of_property(query: Query, network: LoadedNetwork, tell: Callable[[str], None]) -> dict[str, Any]:
    problem = compile_problem(network.model.network, query)
    if problem.unbounded:
        raise InputError(f"{query.path}: {problem.unbounded[0]} has no lower or no upper bound")
    if len(problem.cases) != 1:
        what = f"{len(problem.cases)} different input boxes" if problem.cases else "an empty set of inputs"
        raise InputError(f"{query.path}: the property has {what}; bounds are for one box")
    for note in problem.notes:
        tell(f"{query.path}: note: {note}")
    box = problem.cases[0].box
    return {"lower": problem.full(box.lower), "upper": problem.full(box.upper)}


def _choices(args: argparse.Namespace) -> dict[str, Any]:
    """The rest of the arguments of `bounds`."""
    return {
        "objective": None if args.objective is None else read_array(args.objective, float),
        "layers": "all" if args.layers == ["all"] else args.layers,
        "solver": args.solver,
        "seconds": args.timeout,
        "threads": args.threads,
    }


def read_array(path: str, rounding: Callable[[Number], float], flat: bool = False) -> np.ndarray:
    """The array in a file.

    Args:
        path: `.npy`, or decimals in rows (`.csv`, `.txt`).
        rounding: Of decimals; arrays of `.npy` are as they are.
        flat: Decimals have no rows, row after row.

    Raises:
        InputError: The file can't be read, or is something else.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending not in (".npy", ".csv", ".txt"):
        raise InputError(f"{path}: expected a .npy, .csv or .txt file")
    try:
        if ending == ".npy":
            return read_npy(path)
        array = _read_text(path, rounding)
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    return array.reshape(-1) if flat else array


def _read_text(path: str, rounding: Callable[[Number], float]) -> np.ndarray:
    """Rows of decimals, separated by commas, semicolons or blanks; `#` begins a comment."""
    rows: list[list[float]] = []
    try:
        with open(path, encoding="utf-8-sig") as file:
            lines = [line.partition("#")[0].strip() for line in file]
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        try:
            rows.append([rounding(exact(word)) for word in re.split(r"\s*[,;]\s*|\s+", line)])
        except argparse.ArgumentTypeError as error:
            raise InputError(f"{path}:{number}: {error}") from None
        if len(rows[-1]) != len(rows[0]):
            raise InputError(f"{path}:{number}: {len(rows[-1])} numbers, but {len(rows[0])} in the first row")
    if not rows:
        raise InputError(f"{path}: no numbers")
    return np.array(rows)


# Bounds


def _bounds(
    network: LoadedNetwork,
    method: str,
    arguments: Mapping[str, Any],
    args: argparse.Namespace,
    tell: Callable[[str], None],
) -> BoundsResult:
    """By one method; says so where it was cut short."""
    if args.verbose:
        tell(f"{method} ...")
    try:
        found = bounds(network, method=method, **arguments)
    except UnsupportedError as error:
        raise UnsupportedError(f"method {method}: {error}") from None
    if args.verbose:
        tell(f"{method}: {found.seconds:.2f} s")
    if args.timeout is not None and found.seconds >= args.timeout:
        tell(
            f"note: {method} reached the limit of {args.timeout:g} s; bounds may be those of cheaper methods"
        )
    return found


@dataclass(frozen=True)
class _Widths:
    """Mean and largest width of a value's box; 0 of a value without elements."""

    mean: float
    largest: float


def _widths(value: ValueBounds) -> _Widths:
    with np.errstate(over="ignore"):
        width = value.upper - value.lower
        return _Widths(float(width.mean()), float(width.max())) if width.size else _Widths(0.0, 0.0)


# The table


def as_text(found: Sequence[BoundsResult], objective: bool = False) -> str:
    """Tables of seconds, bounds and widths, at most 100 columns wide.

    Args:
        found: Of one network and one set of inputs, by several methods.
        objective: The rows are those of an objective, not the outputs.
    """
    times = [[f.method, f"{f.seconds:.3f}"] for f in found]
    what = "row" if objective else "output"
    count = len(found[0].lower)
    rows = [
        [str(i), f.method, _outward(f.lower[i], ROUND_FLOOR), _outward(f.upper[i], ROUND_CEILING)]
        for i in range(min(count, MOST_ROWS))
        for f in found
    ]
    more = [f"... and {count - MOST_ROWS} more {what}s; --json has all"] if count > MOST_ROWS else []
    lines = [
        *aligned(("method", "seconds"), ">", times),
        "",
        *aligned((what, "method", "lower", "upper"), "<>>", rows),
        *more,
        "",
        *aligned(("layer", "node", "op", "method", "mean width", "largest width"), "<<<>>", _layers(found)),
    ]
    return "\n".join(lines) + "\n"


def _layers(found: Sequence[BoundsResult]) -> list[list[str]]:
    """A row for each value and method."""
    rows = []
    for i, values in enumerate(zip(*(f.values for f in found), strict=True)):
        for f, value in zip(found, values, strict=True):
            width = _widths(value)
            ends = [f"{width.mean:.4g}", f"{width.largest:.4g}"]
            rows.append([str(i), _short(value.name), value.op[:16], f.method, *ends])
    return rows


def _short(name: str) -> str:
    """The end of a name, which tells layers apart, on one line."""
    shown = "".join(c if c.isprintable() else "?" for c in name)
    return shown if len(shown) <= NAME_WIDTH else "..." + shown[3 - NAME_WIDTH :]


def _outward(value: float, rounding: str) -> str:
    """A decimal that is not tighter than the bound."""
    if not math.isfinite(value) or value == 0:
        return f"{abs(value) if value == 0 else value:g}"
    number = Context(prec=DIGITS, rounding=rounding).create_decimal(Decimal(float(value))).normalize()
    return f"{number:f}" if -5 <= number.adjusted() < DIGITS else f"{number:e}"


# Files


def _targets(args: argparse.Namespace) -> dict[str, ReportFile]:
    """The files that are wanted, by their options; all can be written."""
    if args.plot is not None:
        if not args.plot.lower().endswith(".png"):
            raise InputError(f"--plot {args.plot}: expected a name that ends in .png")
        require_matplotlib()
    return result_files({"--json": args.json, "--npz": args.npz, "--plot": args.plot})


def _content(option: str, args: argparse.Namespace, found: Sequence[BoundsResult]) -> bytes:
    if option == "--json":
        return f"{report_text(report(args, found))}\n".encode(errors="surrogateescape")
    return _npz(found) if option == "--npz" else _plot(found)


def report(args: argparse.Namespace, found: Sequence[BoundsResult]) -> dict[str, object]:
    """All bounds and the widths of all layers as JSON has them; null stands for what is not finite."""
    names = ("center", "eps", "norm", "lower", "upper", "property")
    inputs = {name: getattr(args, name) for name in names if getattr(args, name) is not None}
    if "center" in inputs:
        inputs["norm"] = f"{inputs.get('norm', math.inf):g}"
    if args.clip is not None:
        inputs["clip"] = [float_below(args.clip[0]), float_above(args.clip[1])]
    return {
        "schema": SCHEMA,
        "lpverify": __version__,
        "network": args.network,
        "inputs": inputs,
        "objective": args.objective,
        "options": {name: getattr(args, name) for name in ("layers", "solver", "timeout", "threads")},
        "methods": [_method_report(f) for f in found],
    }


def _method_report(found: BoundsResult) -> dict[str, object]:
    ends = ("lower", "upper", "claimed_lower", "claimed_upper")
    layers = []
    for value in found.values:
        width = _widths(value)
        about = {"name": value.name, "op": value.op, "shape": list(value.lower.shape)}
        layers.append(about | {"mean_width": _finite(width.mean), "largest_width": _finite(width.largest)})
    bounds_ = {end: [_finite(v) for v in getattr(found, end).tolist()] for end in ends}
    return {"method": found.method, "seconds": found.seconds, **bounds_, "layers": layers}


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _npz(found: Sequence[BoundsResult]) -> bytes:
    """Bounds of the rows and boxes of all values, by method and number; names and ops of the values."""
    arrays = {
        "names": np.array([v.name for v in found[0].values], dtype=np.str_),
        "ops": np.array([v.op for v in found[0].values], dtype=np.str_),
    }
    for f in found:
        arrays |= {f"{f.method}/lower": f.lower, f"{f.method}/upper": f.upper}
        for i, value in enumerate(f.values):
            arrays |= {f"{f.method}/{i}/lower": value.lower, f"{f.method}/{i}/upper": value.upper}
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def _plot(found: Sequence[BoundsResult]) -> bytes:
    names = [f"{i} {v.op}" for i, v in enumerate(found[0].values)]
    return widths_png(names, {f.method: [_widths(v).mean for v in f.values] for f in found})
