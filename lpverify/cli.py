"""The command line; the only module that prints.

Exit codes: 0 answered (of a verdict 10, 20, 30, 40 with `--exit-status`), 1 a file or an option is wrong,
3 the network or query is not supported, 70 internal error, 129, 130 and 143 after SIGHUP, Ctrl-C and SIGTERM.
Heavy modules are imported inside the commands that need them.
"""

import argparse
import functools
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import NoReturn

from lpverify import __version__
from lpverify.certify_options import certify_parser
from lpverify.errors import InputError, LpverifyError, one_line, out_of_memory
from lpverify.link import Link
from lpverify.options import (
    SUPPORTS,
    USAGE,
    Parser,
    bounds_parser,
    info_parser,
    supports_parser,
    verify_parser,
)
from lpverify.output import Output, Remains
from lpverify.session import Session


def _verify(args: argparse.Namespace, link: Link | None = None) -> int:
    put = _put if link is None else functools.partial(_put_by, link)
    return Session(args, Output(put, _tell, _complain, link)).run()


def _bounds(args: argparse.Namespace) -> int:
    from lpverify.bounds_command import run
    from lpverify.memory import Budget

    Budget(args.memory).limit_allocations()
    return run(args, _put, _tell)


def _certify(args: argparse.Namespace) -> int:
    from lpverify.certify_command import run
    from lpverify.memory import Budget

    Budget(args.memory).limit_allocations()
    return run(args, _put, _tell)


def _info(args: argparse.Namespace) -> int:
    import json

    from lpverify.info import as_text, describe_network, describe_query
    from lpverify.io.onnx import load_model
    from lpverify.io.vnnlib import read_query
    from lpverify.limit_options import model_limits, property_limits
    from lpverify.models import Models

    model = load_model(args.network, limits=model_limits(args))
    network = describe_network(model)
    query = None
    if args.query is not None:
        parsed = read_query(args.query, limits=property_limits(args))
        query = describe_query(Models({"": model}, limits=model_limits(args)).fitting(parsed).model, parsed)
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
    "bounds": (bounds_parser, _bounds),
    "certify": (certify_parser, _certify),
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
        sys.stdout.buffer.write(text.encode(errors="surrogateescape"))  # paths are bytes
        sys.stdout.buffer.flush()
    except OSError as error:
        raise InputError(f"can't write the answer: {error.strerror or error}") from None


def _put_by(link: Link, text: str) -> None:
    """Has the supervisor write to stdout."""
    if sys.stdout is None:
        raise InputError("can't write the answer: stdout is closed")
    try:
        link.put(text.encode(errors="surrogateescape"))
    except OSError as error:
        raise InputError(f"can't write the answer: {error.strerror or error}") from None


def _tell(text: str) -> None:
    """Writes a line to stderr, if that is still possible."""
    if sys.stderr is not None:
        try:
            print(f"lpverify: {text}", file=sys.stderr, flush=True)
        except (OSError, ValueError):
            return


def _complain(error: Exception, verbose: bool, about: str = "") -> int:
    """Tells an error, of what `about` names, and returns its exit code."""
    code = error.exit_code if isinstance(error, LpverifyError) else 70
    if code == 70 and verbose:
        traceback.print_exception(error)
    kind = "internal error: " if code == 70 else ""
    what = "out of memory" if isinstance(error, MemoryError) else f"{kind}{one_line(error)}"
    _tell(f"error: {about}{what}")
    return code


def _dispatch(words: list[str], link: Link | None) -> int:
    if words[:1] in (["--version"], ["--name"], ["--help"], ["-h"]):
        _put({"--version": f"{__version__}\n", "--name": "lpverify\n"}.get(words[0], USAGE))
        return 0
    if not words or words[0] not in COMMANDS:
        what = f"unknown command {words[0]!r}" if words else "no command"
        raise InputError(f"{what}; there are {', '.join(COMMANDS)} (see 'lpverify --help')")
    parser, command = COMMANDS[words[0]]
    args = parser().parse_intermixed_args(words[1:])
    return command(args) if link is None else _verify(args, link)


def main(argv: Sequence[str] | None = None, link: Link | None = None) -> int:
    """Runs one command and returns the exit code; `--help` raises SystemExit.

    Args:
        argv: The words after the program's name; by default those of the process.
        link: To the supervisor of a `verify`, if there is one.

    Raises:
        MemoryError: There is a supervisor to answer instead.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    verbose = "-v" in words or "--verbose" in words
    try:
        return _dispatch(words, link)
    except KeyboardInterrupt:
        _tell("interrupted")
        return 130
    except Exception as error:
        if link is not None and out_of_memory(error):
            raise MemoryError from error
        return _complain(error, verbose)


def entry(link: Link | None = None) -> NoReturn:
    """Runs the process's command; ends it without the interpreter's clean-up, which takes time."""
    reason = ""
    try:
        code = main(link=link)
    except SystemExit as end:  # after --help
        code = int(end.code or 0)
    except MemoryError:
        code, reason = 70, "out of memory"
    code = _flush() or code
    if link is not None:
        link.finish(reason)
    os._exit(code)


def _flush() -> int:
    """The exit code: 1 if stdout can't take what is left."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except (OSError, ValueError) as error:
        return _complain(InputError(f"can't write to stdout: {error}"), False)
    return 0


def give_up(words: Sequence[str], left: Remains) -> int:
    """Answers `unknown` in place of a process that is gone; returns the exit code.

    Args:
        words: Of its `verify` command.
        left: What it left behind.
    """
    try:
        args = verify_parser().parse_intermixed_args(words[1:])
        output = Output(_put, _tell, _complain)
        try:
            session = Session(args, output)
        except InputError:  # the report's folder is gone, too
            args.json = None
            session = Session(args, output)
        return session.take_over(left)
    except Exception as error:  # noqa: BLE001
        return _complain(error, False)


__all__ = ["entry", "give_up", "main"]
