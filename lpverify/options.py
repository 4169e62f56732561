"""Options of the command line: the parsers, and what `--help` shows."""

import argparse
import math
from typing import NoReturn

from lpverify.errors import InputError, UnsupportedError

USAGE = """\
usage: lpverify COMMAND ...

Decides whether a neural network can violate a property.

  lpverify verify NET.onnx PROP.vnnlib ... [options]    sat, unsat, unknown or timeout
  lpverify verify PROP.vnnlib --network f=NET.onnx      the same in the form of VNN-LIB 2
  lpverify info NET.onnx [PROP.vnnlib]                  what is in the files
  lpverify supports [--onnx-operators ...]              what is supported, in the words of VNN-LIB 2
  lpverify COMMAND --help                               all options of a command
  lpverify --version | --name | --help

The property describes the violation: sat comes with an input that has it, unsat says that none does.
Files may be packed with gzip.

exit codes: 0 answered, 1 wrong file or option, 3 not supported, 70 internal error
"""
VERIFY_USAGE = """lpverify verify NET.onnx PROP.vnnlib [PROP.vnnlib ...] [options]
       lpverify verify PROP.vnnlib [PROP.vnnlib ...] --network NAME=NET.onnx [options]"""
VERIFY_HELP = """\
The first line of stdout is the verdict; after sat follows the input. All else goes to stderr.
Verdicts are over the real numbers; the input of a sat was run through onnxruntime.

Several properties of one network share loading. All are read first, so that a wrong file is told before
anything is decided. Each one's answer comes as soon as it is known, in the order given: a line
'PROP.vnnlib VERDICT', after sat followed by the input. Each has the whole time limit; where one can't be
stopped within a fifth of it more, or five seconds, the others are unknown. An internal error in one is
told as the verdict 'error' and by the exit code at the end; the others are still decided. The report is
{"queries": [report, ...]}, written after each. With --exit-status any sat gives 10, else any unknown 30,
else any timeout 40, else 20.
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


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0.0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is not a positive number of seconds")
    return value


def _seed(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 0")
    return int(text)


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
    add("--network", action="append", metavar="NAME=FILE", help="the network, in the form of VNN-LIB 2")
    add(
        "--timeout",
        type=_seconds,
        default=60.0,
        metavar="S",
        help="wall-clock limit of each property, start included (60)",
    )
    add("--json", metavar="FILE", help="write a report")
    add("--seed", type=_seed, default=0, metavar="N", help="of all random choices (0)")
    add("--check-import", action="store_true", help="first compare the network with onnxruntime")
    add("--record-proof", action="store_true", help="keep what an unsat is proven with (uses memory)")
    add("--recheck", action="store_true", help="recompute the proof of an unsat by independent code")
    add("--exit-status", action="store_true", help="exit with 10 sat, 20 unsat, 30 unknown, 40 timeout")
    add("--quiet", action="store_true", help="nothing on stderr but errors")
    add("-v", "--verbose", action="store_true", help="statistics, and tracebacks of internal errors")
    return parser


def info_parser() -> Parser:
    """Of `lpverify info`."""
    parser = Parser(
        "lpverify info", description="Shows what is in a network and a query.", allow_abbrev=False
    )
    parser.add_argument("network", metavar="NET.onnx")
    parser.add_argument("query", metavar="PROP.vnnlib", nargs="?", help="adds its size and unstable neurons")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("-v", "--verbose", action="store_true", help="tracebacks of internal errors")
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


def paths(args: argparse.Namespace) -> tuple[str, ...]:
    """The network and then its properties, at least one, from either form of the command.

    Raises:
        InputError: There are too few files.
        UnsupportedError: There is more than one network.
    """
    if args.network is None:
        if len(args.files) < 2:
            raise InputError(f"expected NET.onnx PROP.vnnlib, got {len(args.files)} file(s)")
        return tuple(args.files)
    if len(args.network) != 1:
        raise UnsupportedError(
            f"{len(args.network)} networks given, only queries of one network are supported"
        )
    name, equals, path = args.network[0].partition("=")
    if not (name and equals and path):
        raise InputError(f"--network {args.network[0]!r} is not of the form NAME=FILE")
    return path, *args.files
