"""Reads VNN-LIB files of any version: a property file in, a `Query` with exact numbers out.

The version is told from the content, never from the name of the file or its folder.
"""

import gc
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager

from lpverify.io.vnnlib1 import parse_version_1
from lpverify.io.vnnlib2 import parse_version_2
from lpverify.io.vnnlib_text import DEFAULT_LIMITS, Limits, read_text
from lpverify.query import Query

__all__ = ["DEFAULT_LIMITS", "Limits", "parse_query", "read_query"]

_VERSION_2 = re.compile(
    r"\s*+(?:;[^\n]*+\s*+)*+\(\s*+(?:;[^\n]*+\s*+)*+(?:vnnlib-version|declare-network)(?![\w-])"
)


def read_query(
    path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS, lenient: bool = False
) -> Query:
    """Reads a VNN-LIB file, plain or packed with gzip (told by its first bytes).

    Source: VNN-LIB standard 2.0, chapter 3; for files without `vnnlib-version` the older format of VNN-COMP.

    Args:
        path: The file.
        limits: How much it may ask for.
        lenient: Comparisons that mix element types, or fractions with whole-number types, are remarks of
            the query instead of errors (version 2).

    Raises:
        InputError: The file can't be read.
        VnnlibError: It is malformed, ill-typed or over a limit of its size.
        UnsupportedError: It is correct, but of a kind that can't be treated, such as products of variables
            in version 1, `initialized`, or products over `max_terms` or `max_degree` in version 2.
    """
    text = read_text(path, limits)
    return parse_query(text, os.fspath(path), limits, lenient=lenient)


def parse_query(
    text: str, path: str = "", limits: Limits = DEFAULT_LIMITS, *, lenient: bool = False
) -> Query:
    """Parses VNN-LIB text; `path` only names it in messages. The rest is as for `read_query`."""
    text = text.removeprefix("\ufeff")
    with _collector_off():
        if _VERSION_2.match(text):
            return parse_version_2(text, path, limits, lenient)
        return parse_version_1(text, path, limits)


@contextmanager
def _collector_off() -> Iterator[None]:
    # Millions of atoms without one cycle: the garbage collector would take half of the time.
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
