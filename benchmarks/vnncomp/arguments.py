"""Arguments of VNN-COMP as arguments of lpverify; standard library only, any Python 3.

    arguments.py check ONNX VNNLIB
    arguments.py limit TIMEOUT STARTED
    arguments.py command ONNX VNNLIB

ONNX is a path, or the Python literal `[('f', 'onnx/a.onnx'), ('g', 'onnx/b.onnx')]` that the competition
uses for queries of several networks. A file may be there under its name or with `.gz` added. `command`
prints files and options of `lpverify verify`, each ended by a zero byte. `limit` prints two numbers of
seconds: after which lpverify is to answer, and after which it is to be killed; STARTED is when the clock
began, in seconds since 1970.
"""

from __future__ import annotations

import ast
import math
import os
import re
import sys
import time

MARGIN_SECONDS, MARGIN_SHARE = 0.5, 0.02  # between lpverify's limit and the competition's
LEAST_SHARE = 0.5
NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def networks(field: str) -> list[tuple[str | None, str]]:
    """Pairs of a network's name, None for a plain path, and its file's path."""
    try:
        value = ast.literal_eval(field.strip())
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        return [(None, field)]
    if not isinstance(value, list):
        return [(None, field)]
    for pair in value:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and all(isinstance(p, str) for p in pair)):
            raise ValueError(f"{pair!r} is not a pair of a network's name and a file")
        if not NAME.fullmatch(pair[0]):
            raise ValueError(f"{pair[0]!r} is not a network's name")
    names = [name for name, _ in value]
    if not value or len(set(names)) < len(names):
        raise ValueError(f"{field}: no network, or one of them twice")
    return [(name, path) for name, path in value]


def existing(path: str) -> str:
    """The absolute path of a file that can be read, packed or not."""
    path = os.path.abspath(path)  # never looks like an option
    found = next((p for p in (path, path + ".gz") if os.path.exists(p)), None)
    if found is None:
        raise ValueError(f"{path} does not exist")
    if not os.path.isfile(found):
        raise ValueError(f"{found} is no file")
    with open(found, "rb") as file:
        if not file.read(1):
            raise ValueError(f"{found} is empty")
    return found


def command(onnx: str, vnnlib: str) -> list[str]:
    """Files and options of `lpverify verify`."""
    query = existing(vnnlib)
    found = [(name, existing(path)) for name, path in networks(onnx)]
    if found[0][0] is None:
        return [found[0][1], query]
    return [query] + [word for name, path in found for word in ("--network", f"{name}={path}")]


def limits(timeout: str, started: str) -> list[str]:
    """Seconds from now until lpverify is to answer, and until it is to be killed."""
    try:
        seconds, spent = float(timeout), max(time.time() - float(started), 0.0)
    except ValueError:
        seconds, spent = math.nan, 0.0
    if not 0.0 < seconds < math.inf:
        raise ValueError(f"the time limit {timeout!r} is not a positive number of seconds")
    margin = max(MARGIN_SECONDS, MARGIN_SHARE * seconds)
    limit = max(seconds - margin - spent, LEAST_SHARE * seconds)
    return [f"{limit:.3f}", f"{limit + 0.5 * min(margin, seconds - limit):.3f}"]


def main(words: list[str]) -> int:
    """Prints the answer; returns the exit code."""
    mode, *rest = words
    try:
        if mode == "limit":
            print(*limits(*rest))
            return 0
        answer = command(*rest)
    except (ValueError, OSError) as error:
        print(f"arguments.py: {error}", file=sys.stderr)
        return 1
    if mode == "command":
        sys.stdout.buffer.write(b"".join(os.fsencode(word) + b"\0" for word in answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
