"""The command line; the only module that prints.

Exit codes: 0 a verdict was printed (10, 20, 30, 40 with `--exit-status`), 1 a file or an option is wrong,
3 the network or query is not supported, 70 internal error, 130 and 143 after Ctrl-C and SIGTERM.
Heavy modules are imported inside the commands that need them.
"""

import argparse
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NoReturn

from lpverify import __version__
from lpverify.config import Config, Deadline
from lpverify.errors import InputError, LpverifyError, UnsupportedError
from lpverify.io.results import (
    Answer,
    ReportFile,
    Variable,
    answer_of,
    competition_text,
    report,
    standard_text,
    undecided,
)
from lpverify.progress import ProgressLine, describe
from lpverify.watchdog import Watchdog, process_start

if TYPE_CHECKING:
    from lpverify.io.onnx import Model
    from lpverify.provenance import Provenance
    from lpverify.query import Query

USAGE = """\
usage: lpverify COMMAND ...

Decides whether a neural network can violate a property.

  lpverify verify NET.onnx PROP.vnnlib [options]        sat, unsat, unknown or timeout
  lpverify verify PROP.vnnlib --network f=NET.onnx      the same in the form of VNN-LIB 2
  lpverify info NET.onnx [PROP.vnnlib]                  what is in the files
  lpverify COMMAND --help                               all options of a command
  lpverify --version | --name | --help

The property describes the violation: sat comes with an input that has it, unsat says that none does.
Files may be packed with gzip.

exit codes: 0 answered, 1 wrong file or option, 3 not supported, 70 internal error
"""
EXIT_STATUS = {"sat": 10, "unsat": 20, "unknown": 30, "timeout": 40}
VERIFY_USAGE = """lpverify verify NET.onnx PROP.vnnlib [options]
       lpverify verify PROP.vnnlib --network NAME=NET.onnx [options]"""
VERIFY_HELP = """\
The first line of stdout is the verdict; after sat follows the input. All else goes to stderr.
Verdicts are over the real numbers; the input of a sat was run through onnxruntime.
"""


class _Parser(argparse.ArgumentParser):
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


def _verify_parser() -> _Parser:
    parser = _Parser(
        "lpverify verify",
        VERIFY_USAGE,
        "Decides a query.",
        VERIFY_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add("files", nargs="+", metavar="FILE", help="NET.onnx PROP.vnnlib, or PROP.vnnlib alone with --network")
    add("--network", action="append", metavar="NAME=FILE", help="the network, in the form of VNN-LIB 2")
    add("--timeout", type=_seconds, default=60.0, metavar="S", help="wall-clock limit, start included (60)")
    add("--json", metavar="FILE", help="write a report")
    add("--seed", type=_seed, default=0, metavar="N", help="of all random choices (0)")
    add("--check-import", action="store_true", help="first compare the network with onnxruntime")
    add("--record-proof", action="store_true", help="keep what an unsat is proven with (uses memory)")
    add("--exit-status", action="store_true", help="exit with 10 sat, 20 unsat, 30 unknown, 40 timeout")
    add("--quiet", action="store_true", help="nothing on stderr but errors")
    add("-v", "--verbose", action="store_true", help="statistics, and tracebacks of internal errors")
    return parser


def _info_parser() -> _Parser:
    parser = _Parser(
        "lpverify info", description="Shows what is in a network and a query.", allow_abbrev=False
    )
    parser.add_argument("network", metavar="NET.onnx")
    parser.add_argument("query", metavar="PROP.vnnlib", nargs="?", help="adds its size and unstable neurons")
    parser.add_argument("--json", action="store_true", help="machine-readable")
    parser.add_argument("-v", "--verbose", action="store_true", help="tracebacks of internal errors")
    return parser


def _paths(args: argparse.Namespace) -> tuple[str, str]:
    """Network and query, from either form of the command."""
    if args.network is None:
        if len(args.files) != 2:
            raise InputError(f"expected NET.onnx PROP.vnnlib, got {len(args.files)} file(s)")
        return args.files[0], args.files[1]
    if len(args.files) != 1:
        raise InputError(f"expected PROP.vnnlib alone with --network, got {len(args.files)} files")
    if len(args.network) != 1:
        raise UnsupportedError(
            f"{len(args.network)} networks given, only queries of one network are supported"
        )
    name, equals, path = args.network[0].partition("=")
    if not (name and equals and path):
        raise InputError(f"--network {args.network[0]!r} is not of the form NAME=FILE")
    return path, args.files[0]


class Run:
    """One `verify`: what both the main thread and the watchdog need to answer."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.network, self.query = _paths(args)
        self.start = process_start()
        end = self.start + args.timeout
        margin = min(max(0.1, 0.02 * args.timeout), 0.5 * args.timeout)
        self.deadline = Deadline(end - margin)
        self.line = ProgressLine(sys.stderr, end, not args.quiet)
        tick = self.line.draw if self.line.enabled else None
        self.watchdog = Watchdog(end - 0.75 * margin, self.cut_short, tick)  # the rest is for the exit
        self.marks = [("start", self.start)]
        self.variables: list[Variable] = []
        self.provenance: Provenance | None = None
        self.report_file = None if args.json is None else ReportFile(args.json)
        if self.report_file is not None:
            self.report_file.check()

    def work(self) -> Answer:
        """Verifies; raises what loading and verification raise."""
        self._enter("load", "loading")
        from lpverify.io.onnx import load_model
        from lpverify.io.vnnlib import read_query
        from lpverify.verify import verify_query

        model = load_model(self.network)
        query = read_query(self.query)
        self.variables = _variables(model)
        self._gather()
        if self.args.check_import:
            self._check_import(model, query)
        self._enter("verify", "first bounds")
        config = Config(self.args.timeout, self.args.seed, self.args.record_proof, deadline=self.deadline)
        verdict = verify_query(model, query, config, self.line.update)
        self._enter("answer", "answering")
        return answer_of(verdict)

    def cut_short(self, number: int) -> int:
        """Answers for a main thread that isn't ready, with what is known; 0 stands for the limit."""
        progress, stage = self.line.progress, self.line.stage
        if not number:
            reason = f"the limit of {self.args.timeout:g} s was reached"
            return self.finish(undecided("timeout", reason, progress, stage))
        self.finish(undecided("unknown", "interrupted", progress, stage))
        return 128 + number

    def finish(self, answer: Answer) -> int:
        """Prints an answer and returns the exit code; only for the thread that may answer."""
        self.line.close()
        standard = self.args.network is not None
        _put(standard_text(answer, self.variables) if standard else competition_text(answer))
        self._explain(answer)
        self.write_report(answer)
        return EXIT_STATUS[answer.verdict] if self.args.exit_status else 0

    def write_report(self, answer: Answer) -> None:
        """Writes the JSON file if one is wanted; a failure is told and changes nothing else."""
        if self.report_file is None:
            return
        try:
            self.report_file.write(report(answer, **self._facts()))
        except OSError as error:
            _tell(f"can't write the report: {error}")

    def _facts(self) -> dict[str, object]:
        """What a report says beside the answer."""
        from lpverify.provenance import peak_mb

        names = ("timeout", "check_import", "record_proof", "exit_status", "quiet", "verbose")
        facts: dict[str, object] = {"seconds": self._seconds(), "peak_mb": peak_mb(), "seed": self.args.seed}
        if self.provenance is not None:
            self.provenance.wait(min(5.0, self.start + self.args.timeout - time.monotonic() - 0.02))
            facts |= {"versions": self.provenance.versions, "files": self.provenance.files}
        return facts | {"options": {name: getattr(self.args, name) for name in names}}

    def _seconds(self) -> dict[str, float]:
        """Seconds of every phase so far, and of all together."""
        now = time.monotonic()
        ends = [time_ for _, time_ in self.marks[1:]] + [now]
        phases = zip(self.marks, ends, strict=True)
        return {name: round(end - begin, 4) for (name, begin), end in phases} | {
            "wall": round(now - self.start, 4)
        }

    def _enter(self, phase: str, stage: str) -> None:
        self.marks.append((phase, time.monotonic()))
        if self.line.progress is None:
            self.line.stage = stage

    def _gather(self) -> None:
        if self.report_file is not None:
            from lpverify.provenance import Provenance

            self.provenance = Provenance({"network": self.network, "query": self.query})
            self.provenance.start()

    def _check_import(self, model: "Model", query: "Query") -> None:
        from lpverify.import_check import check_import
        from lpverify.problem import compile_problem

        self._enter("check", "comparing with onnxruntime")
        agreement = check_import(model, compile_problem(model.network, query), self.args.seed)
        if self.args.verbose:
            _tell(f"differs from onnxruntime by {agreement.difference:.2g} of {agreement.scale:.2g}")

    def _explain(self, answer: Answer) -> None:
        """Why it is undecided, and what is worth a note; statistics if wanted."""
        if self.args.quiet:
            return
        how_far = describe(answer.closed, answer.open, answer.margin)
        if answer.reason:
            _tell(f"{answer.verdict}: {answer.reason}; stage: {answer.stage}; {how_far}")
        if answer.proof_nodes == 0:
            _tell("note: the input set of the property is empty")
        if self.args.verbose:
            seconds = ", ".join(f"{name} {value:.2f} s" for name, value in self._seconds().items())
            _tell(f"stage: {answer.stage}; {how_far}; {seconds}")


def _variables(model: "Model") -> list[Variable]:
    """Those that VNN-LIB 1 stands for: X and Y, with the model's shapes where it has one tensor."""
    found = []
    for name, signature in (("X", model.inputs), ("Y", model.outputs)):
        single = len(signature.shapes) == 1
        found.append((name, "Real", signature.shapes[0] if single else (sum(signature.sizes),)))
    return found


def _verify(args: argparse.Namespace) -> int:
    run = Run(args)
    run.watchdog.start()
    try:
        answer = run.work()
    except Exception as error:
        run.watchdog.claim()
        run.line.close()
        if _out_of_memory(error):
            return run.finish(undecided("unknown", "out of memory", run.line.progress, run.line.stage))
        run.write_report(Answer("error", _one_line(error), run.line.stage))
        raise
    run.watchdog.claim()
    return run.finish(answer)


def _out_of_memory(error: Exception) -> bool:
    """Also torch's way to say it."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and "alloc" in str(error))


def _info(args: argparse.Namespace) -> int:
    import json

    from lpverify.info import as_text, describe_network, describe_query
    from lpverify.io.onnx import load_model
    from lpverify.io.vnnlib import read_query

    model = load_model(args.network)
    network = describe_network(model)
    query = None if args.query is None else describe_query(model, read_query(args.query))
    _put(json.dumps({"network": network, "query": query}) + "\n" if args.json else as_text(network, query))
    return 0


COMMANDS: dict[str, tuple[Callable[[], _Parser], Callable[[argparse.Namespace], int]]] = {
    "verify": (_verify_parser, _verify),
    "info": (_info_parser, _info),
}


def _put(text: str) -> None:
    """Writes to stdout at once, newlines as they are."""
    if sys.stdout is None:
        raise InputError("can't write the answer: stdout is closed")
    try:
        sys.stdout.flush()
        sys.stdout.buffer.write(text.encode())
        sys.stdout.buffer.flush()
    except OSError as error:
        raise InputError(f"can't write the answer: {error.strerror or error}") from None


def _tell(text: str) -> None:
    """Writes a line to stderr, if that is still possible."""
    if sys.stderr is not None:
        try:
            print(f"lpverify: {text}", file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return


def _one_line(error: BaseException) -> str:
    """What went wrong; the list of unsupported nodes keeps its lines."""
    text = str(error)
    if not isinstance(error, LpverifyError):
        text = f"{type(error).__name__}: {text}"
    return text if isinstance(error, UnsupportedError) else " ".join(text.split())


def _complain(error: Exception, verbose: bool) -> int:
    """Tells an error and returns its exit code."""
    code = error.exit_code if isinstance(error, LpverifyError) else 70
    if code == 70 and verbose:
        traceback.print_exception(error)
    kind = "internal error: " if code == 70 else ""
    _tell(f"error: {kind}{_one_line(error)}")
    return code


def _dispatch(words: list[str]) -> int:
    if words[:1] in (["--version"], ["--name"], ["--help"], ["-h"]):
        _put({"--version": f"{__version__}\n", "--name": "lpverify\n"}.get(words[0], USAGE))
        return 0
    if not words or words[0] not in COMMANDS:
        what = f"unknown command {words[0]!r}" if words else "no command"
        raise InputError(f"{what}; there are {', '.join(COMMANDS)} (see 'lpverify --help')")
    parser, command = COMMANDS[words[0]]
    return command(parser().parse_intermixed_args(words[1:]))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code; `--help` raises SystemExit."""
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = "-v" in words or "--verbose" in words
    try:
        return _dispatch(words)
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    except Exception as error:  # noqa: BLE001  (every way out is an exit code)
        return _complain(error, verbose)


def entry() -> NoReturn:
    """The console script: ends the process without the interpreter's clean-up, which takes time."""
    code = main()
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue
    os._exit(code)


__all__ = ["entry", "main"]
