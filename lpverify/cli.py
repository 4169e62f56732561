"""The command line; the only module that prints.

Exit codes: 0 a verdict was printed (10, 20, 30, 40 with `--exit-status`), 1 a file or an option is wrong,
3 the network or query is not supported, 70 internal error, 130 and 143 after Ctrl-C and SIGTERM.
Heavy modules are imported inside the commands that need them.
"""

import argparse
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
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
from lpverify.options import (
    SUPPORTS,
    USAGE,
    Parser,
    info_parser,
    paths,
    supports_parser,
    verify_parser,
)
from lpverify.progress import ProgressLine, describe
from lpverify.watchdog import Watchdog, process_start

if TYPE_CHECKING:
    from lpverify.io.onnx import Model
    from lpverify.provenance import Provenance
    from lpverify.query import Query
    from lpverify.verdict import Verdict

EXIT_STATUS = {"sat": 10, "unsat": 20, "unknown": 30, "timeout": 40}


class Run:
    """One `verify`: what both the main thread and the watchdog need to answer."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.args = args
        self.network, self.query = paths(args)
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
        self.rechecked: int | None = None
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
        record = self.args.record_proof or self.args.recheck
        config = Config(self.args.timeout, self.args.seed, record, deadline=self.deadline)
        answer = self._recheck(verify_query(model, query, config, self.line.update), model, query)
        self._enter("answer", "answering")
        return answer

    def _recheck(self, verdict: "Verdict", model: "Model", query: "Query") -> Answer:
        """The answer of a verdict; an `unsat` whose proof doesn't stand a wanted re-check is `unknown`."""
        answer = answer_of(verdict)
        if answer.verdict != "unsat" or not self.args.recheck:
            return answer
        from lpverify.check import check_proof
        from lpverify.problem import compile_problem

        self._enter("recheck", "re-check of the proof")
        self.line.update(replace(verdict.progress, stage="re-check of the proof"))
        found = check_proof(compile_problem(model.network, query), verdict.proof)  # type: ignore[union-attr]
        self.rechecked = found.leaves - len(found.failures)
        if not found.valid:
            reason = f"the proof does not stand its re-check: {found.failures[0]}"
            return undecided("unknown", reason, self.line.progress)
        return answer

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

        names = ("timeout", "check_import", "record_proof", "recheck", "exit_status", "quiet", "verbose")
        facts: dict[str, object] = {
            "rechecked_leaves": self.rechecked,
            "seconds": self._seconds(),
            "peak_mb": peak_mb(),
            "seed": self.args.seed,
        }
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
            checked = "" if self.rechecked is None else f"; {self.rechecked} leaves re-checked"
            _tell(f"stage: {answer.stage}; {how_far}{checked}; {seconds}")


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


def _supports(args: argparse.Namespace) -> int:
    from lpverify.capabilities import as_text, capability

    wanted = args.wanted or [option for option in SUPPORTS if option != "onnx-operator-types"]
    if len(wanted) == 1:
        _put("".join(f"{line}\n" for line in capability(wanted[0])))
    else:
        _put(as_text({option: SUPPORTS[option] for option in wanted}))
    return 0


COMMANDS: dict[str, tuple[Callable[[], Parser], Callable[[argparse.Namespace], int]]] = {
    "verify": (verify_parser, _verify),
    "info": (info_parser, _info),
    "supports": (supports_parser, _supports),
    "capabilities": (supports_parser, _supports),  # its name in one place of the standard
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
