"""Options of `lpverify certify`, and what its `--help` shows."""

import argparse
from fractions import Fraction

from lpverify.limit_options import add_limits, count
from lpverify.options import Parser, add_memory, exact, norm, seconds, seed

CERTIFY_USAGE = """lpverify certify NET.onnx DATA --eps E [E ...] [--norm inf|2|1] [--clip LOW HIGH] [options]
       lpverify certify NET.onnx DATA --radius [MAX] [options]"""
RANGE = -1  # what --radius is without a number
CERTIFY_METHODS = {
    "ladder": "intervals, crown, attacks, then complete verification (the default)",
    "lipschitz": "leads over Lipschitz bounds",
    "smoothing": "randomized smoothing: certifies the *smoothed* classifier, with probability 1 - ALPHA;\n"
    "needs --sigma",
}
CERTIFY_HELP = """\
methods:
{}
  ibp, crown-ibp, forward, crown, alpha-crown, lp, obbt, sdp-crown, sdp, milp
              bounds alone, as in `lpverify bounds`

A sample is robust at radius E when everywhere within E of it, and within the range, the label's output is
larger than every other one. Proven is proven for real numbers, every rounding error covered; refuted has a
counterexample that was run through onnxruntime; misclassified samples count as refuted. So
certified accuracy <= true robust accuracy <= empirical accuracy; the gap is the share of unknown samples.
Intervals are Wilson's, 95 %, for the distribution that the samples come from.

DATA is .npz with arrays x and y, or .npy, .csv, .csv.gz, .txt, or a folder of images. Samples have the
network's input shape or are flat. E, LOW and HIGH are taken exactly; all are in units of the samples as the
network gets them, with --mean and --std in units before these.

With --store a run can be killed and started again: it goes on where it was. Ctrl-C prints what is known.
"""


def certify_parser() -> Parser:
    """Of `lpverify certify`."""
    width = max(map(len, CERTIFY_METHODS)) + 1
    texts = CERTIFY_METHODS.items()
    lines = (f"  {m:{width}}  {t}".replace("\n", "\n" + " " * (width + 4)) for m, t in texts)
    parser = Parser(
        "lpverify certify",
        CERTIFY_USAGE,
        "Measures the certified robustness of a classifier on labelled samples.",
        CERTIFY_HELP.format("\n".join(lines)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("network", metavar="NET.onnx")
    parser.add_argument("data", metavar="DATA")
    _add_data(parser.add_argument_group("data"))
    _add_threat(parser.add_argument_group("what an adversary may do"))
    _add_methods(parser.add_argument_group("methods and limits"))
    _add_smoothing(parser.add_argument_group("randomized smoothing"))
    _add_files(parser.add_argument_group("where to"))
    add_limits(parser)
    return parser


def _add_data(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--labels", metavar="FILE", help="labels in a file of their own (.npy, .csv, .txt)")
    about = "of a table: first, last, a number from 0 or a heading (last, if there is one column too many)"
    add("--label-column", metavar="COLUMN", help=about)
    add("--divide", type=exact, metavar="D", help="divide what is in the file by D, such as 255")
    add("--limit", type=count, metavar="N", help="the first N samples")
    add("--mean", type=exact, nargs="+", metavar="M", help="subtracted in front of the network, by channel")
    add("--std", type=exact, nargs="+", metavar="S", help="what the difference is divided by")


def _add_threat(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--eps", type=_radius, nargs="+", default=[], metavar="E", help="radii: 0.03, 8/255")
    add("--norm", type=norm, default=float("inf"), metavar="inf|2|1", help="of radii (inf)")
    add("--clip", type=exact, nargs=2, metavar=("LOW", "HIGH"), help="the range that every input stays in")
    about = "classes that refute: all others, or only the one after the label (all)"
    add("--targets", choices=("all", "next"), default="all", help=about)
    about = "look for the largest certified radius of each sample, up to MAX (width of the range)"
    add("--radius", type=_radius, nargs="?", const=RANGE, metavar="MAX", help=about)


def _add_methods(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--method", action="append", metavar="NAME", help="one of those below; may be given several times")
    about = "limit for each sample, all radii together, of methods that take samples one by one (10)"
    add("--time-per-sample", type=seconds, default=10.0, metavar="S", help=about)
    about = "questions that ran out of time get up to F times as much of what others left over; 0: none (3)"
    add("--spare", type=_factor, default=3.0, metavar="F", help=about)
    add("--no-attack", action="store_true", help="do not look for counterexamples first")
    add("--jobs", type=_jobs, metavar="N", help="processes (one for each core); 0: only this one")
    add("--seed", type=seed, default=0, metavar="N", help="of all random choices (0)")
    add_memory(group)


def _add_smoothing(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--sigma", type=_number, metavar="SIGMA", help="standard deviation of the noise")
    add("--n0", type=count, default=100, metavar="N", help="noise samples that choose the class (100)")
    add("--n", type=count, default=10_000, metavar="N", help="those that bound its probability (10000)")
    add("--alpha", type=_number, default=0.001, metavar="P", help="probability of an error (0.001)")


def _add_files(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--store", metavar="FILE", help="keep what is found (SQLite), and go on from what is there")
    add("--report", metavar="FILE.html", help="write a report with curves, tables and images")
    add("--json", metavar="FILE", help="write everything but the counterexamples")
    add("--csv", metavar="FILE", help="write a line for each sample, method and radius")
    add("--quiet", action="store_true", help="no progress bar")
    add("-v", "--verbose", action="store_true", help="tracebacks of internal errors")


def _radius(text: str) -> Fraction:
    value = Fraction(exact(text))
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is negative")
    return value


def _number(text: str) -> float:
    return float(exact(text))


def _factor(text: str) -> float:
    value = _number(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is negative")
    return value


def _jobs(text: str) -> int:
    if not text.isdecimal() or len(text) > 4:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)
