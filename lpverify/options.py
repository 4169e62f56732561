"""Options of the command line: the parsers, and what `--help` shows."""

import argparse
import math
import re
import sys
from decimal import Decimal
from fractions import Fraction
from typing import Any, NoReturn

from lpverify.config import DEVICES, SEARCHES
from lpverify.errors import InputError
from lpverify.limit_options import add_limits
from lpverify.memory import parse_size
from lpverify.query import Number, float_above

USAGE = """\
usage: lpverify COMMAND ...

Decides whether a neural network can violate a property, and bounds what it computes.

  lpverify verify NET.onnx PROP.vnnlib ... [options]    sat, unsat, unknown or timeout
  lpverify verify PROP.vnnlib --network f=NET.onnx ...  the same in the form of VNN-LIB 2
  lpverify bounds NET.onnx --center X.npy --eps 8/255   proven bounds over a set of inputs
  lpverify certify NET.onnx DATA.npz --eps 8/255        certified robustness of a data set
  lpverify info NET.onnx [PROP.vnnlib]                  what is in the files
  lpverify supports [--onnx-operators ...]              what is supported, in the words of VNN-LIB 2
  lpverify COMMAND --help                               all options of a command
  lpverify --version | --name | --help

The property describes the violation: sat comes with an input that has it, unsat says that none does.
Files may be packed with gzip.

exit codes: 0 answered, 1 wrong file or option, 3 not supported, 70 internal error
"""
VERIFY_USAGE = """lpverify verify NET.onnx PROP.vnnlib [PROP.vnnlib ...] [options]
       lpverify verify PROP.vnnlib [PROP.vnnlib ...] --network NAME=NET.onnx [--network ...] [options]"""
VERIFY_HELP = """\
The first line of stdout is the verdict; after sat follows the input. All else goes to stderr. The input of a
sat was run through onnxruntime. Verdicts are over the real numbers, or, where a VNN-LIB 2 property declares
float types, over computation in them in any order of summation.

Several properties of one network share loading. All are read first, so that a wrong file is told before
anything is decided. Each one's answer comes as soon as it is known, in the order given: a line
'PROP.vnnlib VERDICT', after sat followed by the input. Each has the whole time limit; where one can't be
stopped within a fifth of it more, or five seconds, the others are unknown. An internal error in one is
told as the verdict 'error' and by the exit code at the end; the others are still decided. The report is
{"queries": [report, ...]}, written after each. With --exit-status any sat gives 10, else any unknown 30,
else any timeout 40, else 20.
"""
BOUNDS_USAGE = """lpverify bounds NET.onnx --center FILE --eps E [--norm inf|2|1] [--clip LOW HIGH] [options]
       lpverify bounds NET.onnx --lower FILE --upper FILE [options]
       lpverify bounds NET.onnx --property PROP.vnnlib [options]"""
BOUND_METHODS = {  # of `bounds`: what each does, and what it treats where that is not every network
    "ibp": "interval arithmetic",
    "crown-ibp": "backward linear bounds of the output, intervals inside",
    "forward": "forward linear bounds inside, backward ones of the output; for few inputs",
    "crown": "backward linear bounds of everything (the default)",
    "alpha-crown": "crown with optimised slopes",
    "lp": "linear program of all relaxations, after alpha-crown",
    "obbt": "lp, after linear programs for the ends of every unstable neuron",
    "sdp-crown": "alpha-crown with the neurons of a layer seen together; balls of norm 1 and 2 only,\n"
    "chains of affine operators and ReLU",
    "sdp": "semidefinite program, after lp; small networks",
    "milp": "branch and bound over ReLU phases, after lp; exact over boxes up to 1e-7 of the numbers'\n"
    "size; networks whose nonlinear operators are ReLU, or become ReLU",
}
BOUNDS_HELP = """\
methods, all of them proven for real numbers, every rounding error covered:
{}

stdout has a table; all else goes to stderr. The table's bounds are rounded outward; the files have them
exactly. Over a ball of norm 1 or 2, the programs of lp, obbt, sdp and milp know the box around it only; their
bounds are no looser than alpha-crown's, which knows the ball.

Arrays come from .npy (numbers of any type that float64 holds), or from .csv and .txt: decimals, a row a line;
ends of boxes are rounded outward, other decimals to the nearest float64. Points have the input's shape or are
flat; several inputs are one flat array. E, LOW and HIGH are taken exactly and rounded outward.
"""
SUPPORTS = {  # options of `supports`, and what they ask for
    "vnnlib-versions": "VNN-LIB versions",
    "onnx-opset-versions": "ONNX opset versions",
    "onnx-element-types": "element types that queries may declare",
    "onnx-operators": "ONNX operators",
    "onnx-operator-types": "ONNX operators with the element types of their operands",
    "hidden-node-theories": "hidden nodes",
    "multiple-input-output-theories": "several inputs and outputs",
    "multiple-network-theories": "several networks",
    "multiple-node-comparison-theories": "comparisons between nodes",
    "arithmetic-complexity-theories": "arithmetic",
    "optimised-disjunctive-reasoning": "disjunctions are not just expanded",
    "serialise-assignments": "witnesses as files",
    "unsat-proofs": "proofs as files",
}
SPELLINGS = {  # others that are in the text of the standard, or easily meant
    "multiple-inputs-output-theories": "multiple-input-output-theories",
    "multiple-inputs-outputs-theories": "multiple-input-output-theories",
    "multiple-input-outputs-theories": "multiple-input-output-theories",
    "assignments": "serialise-assignments",
    "serialize-assignments": "serialise-assignments",
    "optimized-disjunctive-reasoning": "optimised-disjunctive-reasoning",
}


class Parser(argparse.ArgumentParser):
    """Errors are exceptions, so that they end as any other error does."""

    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see '{self.prog} --help')")

    def _print_message(self, message: str, file: Any = None) -> None:
        """The inherited one says nothing when that fails."""
        stream = sys.stdout if file is None else file
        try:
            if stream is not None and message:
                stream.write(message)
                stream.flush()
        except OSError as error:
            raise InputError(f"can't write the help: {error.strerror or error}") from None


def seconds(text: str) -> float:
    """A positive number."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def _memory(text: str) -> int:
    try:
        return parse_size(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{error}; expected 4G, 500M, 1.5GiB or bytes") from None


def seed(text: str) -> int:
    """A whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


def _threads(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def norm(text: str) -> float:
    """1, 2 or infinity."""
    if text not in ("inf", "2", "1"):
        raise argparse.ArgumentTypeError(f"{text!r} is none of inf, 2, 1")
    return float(text)


def exact(text: str) -> Number:
    """The number that a decimal such as `0.03` or a fraction such as `8/255` stands for.

    Raises:
        argparse.ArgumentTypeError: It is neither, or not finite.
    """
    top, slash, bottom = text.partition("/")
    try:
        if slash and re.fullmatch(r"[+-]?[\d.]+", top) and re.fullmatch(r"[\d.]+", bottom):
            return Fraction(top) / Fraction(bottom)
        number = Decimal(text)
    except (ValueError, ArithmeticError):
        number = Decimal("nan")
    if not number.is_finite():
        raise argparse.ArgumentTypeError(f"{text!r} is not a finite number")
    return number


def _radius(text: str) -> float:
    """The smallest float64 not below the number."""
    value = float_above(exact(text))
    if not 0.0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 0")
    return value


def verify_parser() -> Parser:
    """Of `lpverify verify`."""
    parser = Parser(
        "lpverify verify",
        VERIFY_USAGE,
        "Decides a query.",
        VERIFY_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "files", nargs="+", metavar="FILE", help="NET.onnx PROP.vnnlib ..., or PROP.vnnlib ... with --network"
    )
    add("--network", action="append", metavar="NAME=FILE", help="a network that the property declares")
    add(
        "--timeout",
        type=seconds,
        default=60.0,
        metavar="S",
        help="wall-clock limit of each property, start included (60)",
    )
    about = "4G, 500M, 1.5GiB: unknown once that is used up (90 %% of the machine's or its control group's)"
    add("--memory", type=_memory, metavar="SIZE", help=about)
    add("--json", metavar="FILE", help="write a report")
    add(
        "--serialise-assignments",
        "--serialize-assignments",
        "--assignments",
        metavar="DIR",
        help="write the variables of a sat to DIR/NAME.pb (TensorProto) in place of stdout",
    )
    add("--lenient", action="store_true", help="accept element types other than the model's; see the README")
    add("--strict", action="store_true", help="tell where a property departs from the letter of VNN-LIB 2")
    add("--seed", type=seed, default=0, metavar="N", help="of all random choices (0)")
    add("--check-import", action="store_true", help="first compare the network with onnxruntime")
    add("--record-proof", action="store_true", help="keep what an unsat is proven with (uses memory)")
    add("--recheck", action="store_true", help="recompute the proof of an unsat by independent code")
    add(
        "--method",
        choices=SEARCHES,
        default="auto",
        help="auto: several searches compete; lp, milp: such programs alone (ReLU networks)",
    )
    add(
        "--device",
        choices=DEVICES,
        default="auto",
        help="where large networks are bounded and searched; auto: a GPU that CUDA finds, else the CPU",
    )
    add("--exit-status", action="store_true", help="exit with 10 sat, 20 unsat, 30 unknown, 40 timeout")
    add("--quiet", action="store_true", help="nothing on stderr but errors")
    add("-v", "--verbose", action="store_true", help="statistics, and tracebacks of internal errors")
    add_limits(parser)
    return parser


def bounds_parser() -> Parser:
    """Of `lpverify bounds`."""
    width = max(map(len, BOUND_METHODS))
    lines = (f"  {m:{width}}  {t}".replace("\n", "\n" + " " * (width + 4)) for m, t in BOUND_METHODS.items())
    parser = Parser(
        "lpverify bounds",
        BOUNDS_USAGE,
        "Bounds a network's outputs and layers over a set of inputs.",
        BOUNDS_HELP.format("\n".join(lines)),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("network", metavar="NET.onnx")
    _add_inputs(parser.add_argument_group("inputs, in one of three forms"))
    _add_methods(parser.add_argument_group("what is bounded, and how"))
    add = parser.add_argument_group("where to").add_argument
    add("--json", metavar="FILE", help="write all bounds and the widths of all layers")
    add(
        "--npz",
        metavar="FILE",
        help="write the arrays METHOD/lower and METHOD/upper, of layer i METHOD/i/lower",
    )
    add("--plot", metavar="FILE.png", help="draw the mean width of each layer (needs matplotlib)")
    add("-v", "--verbose", action="store_true", help="progress, and tracebacks of internal errors")
    add_limits(parser)
    return parser


def _add_inputs(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--center", metavar="FILE", help="centre of a ball")
    add("--eps", type=_radius, metavar="E", help="its radius: 0.03, 8/255")
    add("--norm", type=norm, metavar="inf|2|1", help="its norm (inf)")
    add("--clip", type=exact, nargs=2, metavar=("LOW", "HIGH"), help="the range that every input stays in")
    add("--lower", metavar="FILE", help="lower ends of a box")
    add("--upper", metavar="FILE", help="upper ends")
    add("--property", metavar="PROP.vnnlib", help="the input box of a property")


def _add_methods(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    about = "one of those below; may be given several times (crown)"
    add("--method", action="append", choices=list(BOUND_METHODS), metavar="NAME", help=about)
    add("--objective", metavar="FILE", help="rows over the flat output, in place of each element of it")
    about = "ONNX nodes that get the method's own bounds; all: every operand of a nonlinear node"
    add("--layers", nargs="+", default=[], metavar="NAME", help=about)
    about = "of lp, obbt, sdp: highs (not sdp), or what CVXPY has: scs, clarabel, cvxpy:NAME"
    add("--solver", metavar="NAME", help=about)
    about = "what a method has not reached by then keeps cheaper bounds; checked between steps"
    add("--timeout", type=seconds, metavar="S", help=about)
    add("--threads", type=_threads, default=1, metavar="N", help="of milp (1)")
    add_memory(group)


def add_memory(group: argparse._ArgumentGroup) -> None:
    """Adds the option of commands that have no supervisor."""
    about = "4G, 500M: allocations far beyond it fail"
    group.add_argument("--memory", type=_memory, metavar="SIZE", help=about)


def info_parser() -> Parser:
    """Of `lpverify info`."""
    parser = Parser(
        "lpverify info", description="Shows what is in a network and a query.", allow_abbrev=False
    )
    parser.add_argument("network", metavar="NET.onnx")
    parser.add_argument("query", metavar="PROP.vnnlib", nargs="?", help="adds its size and unstable neurons")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("-v", "--verbose", action="store_true", help="tracebacks of internal errors")
    add_limits(parser)
    return parser


def supports_parser() -> Parser:
    """Of `lpverify supports`."""
    parser = Parser(
        "lpverify supports",
        description="Prints what is supported: a line an item for one option, all for people for none.",
        allow_abbrev=False,
    )
    spellings = {option: [option] for option in SUPPORTS}
    for other, option in SPELLINGS.items():
        spellings[option].append(other)
    for option, names in spellings.items():
        flags = [f"--{name}" for name in names]
        parser.add_argument(*flags, dest="wanted", action="append_const", const=option, help=SUPPORTS[option])
    parser.add_argument("-v", "--verbose", action="store_true", help="tracebacks of internal errors")
    return parser


def networks(args: argparse.Namespace) -> tuple[dict[str, str], list[str]]:
    """The files of networks by name, empty in the plain form of the command, and the properties.

    Raises:
        InputError: There are too few files, or a network is given twice.
    """
    if args.network is None:
        if len(args.files) < 2:
            raise InputError(f"expected NET.onnx PROP.vnnlib, got {len(args.files)} file(s)")
        return {"": args.files[0]}, args.files[1:]
    found: dict[str, str] = {}
    for text in args.network:
        name, equals, path = text.partition("=")
        if not (name and equals and path):
            raise InputError(f"--network {text!r} is not of the form NAME=FILE")
        if name in found:
            raise InputError(f"network {name} is given twice")
        found[name] = path
    return found, args.files
