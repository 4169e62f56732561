"""The text of a VNN-LIB file: reading and unpacking it, its limits, places in it, its numbers."""

import gzip
import os
import re
import zlib
from dataclasses import dataclass
from decimal import Decimal
from io import BufferedReader
from typing import NoReturn

from lpverify.errors import InputError, UnsupportedError, VnnlibError

_RATIO_FREE_BYTES = 16 << 20
_MAX_DIGITS = 10_000  # of a literal, and the most that its exponent may be
_MAX_REMARKS = 20
_LITERAL = re.compile(r"[+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE]([+-]?+[0-9]++))?+")


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a file may ask for; beyond it, reading stops with an error."""

    max_bytes: int = 1 << 30  # of the unpacked text
    max_ratio: int = 500  # unpacked over packed, from 16 MiB on: deflate can 1032, benchmarks 49
    max_depth: int = 50_000  # brackets open at one place
    max_elements: int = 1 << 28  # of all tensors together (version 2)
    max_terms: int = 100_000  # that a product of sums multiplies out to; all of a file: a hundred times it
    max_degree: int = 64  # of a product of variables


DEFAULT_LIMITS = Limits()


def read_text(path: str | os.PathLike[str], limits: Limits) -> str:
    """Reads a plain or packed file (gzip, told by its first bytes).

    Raises:
        InputError: The file can't be read.
        VnnlibError: It is not UTF-8, a damaged archive or over a limit.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = _unpacked(file, name, limits)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8").removeprefix("\ufeff")
        raise VnnlibError("not UTF-8; is this a VNN-LIB file?", name, *_place(before, len(before))) from error


def _unpacked(file: BufferedReader, path: str, limits: Limits) -> bytearray:
    packed = file.peek(2)[:2] == b"\x1f\x8b"
    most = limits.max_bytes
    if packed:
        by_ratio = limits.max_ratio * os.fstat(file.fileno()).st_size
        most = min(most, max(_RATIO_FREE_BYTES, by_ratio))
    data = bytearray()
    try:
        with gzip.GzipFile(fileobj=file) if packed else file as stream:
            while chunk := stream.read(1 << 20):
                data += chunk
                if len(data) > most:
                    raise VnnlibError(f"refused: more than {most} bytes of text", path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise VnnlibError(f"damaged gzip file: {error}", path) from error
    return data


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def shown(token: str) -> str:
    """The token as a message shows it: quoted, and cut when it is long."""
    return repr(token if len(token) <= 40 else token[:37] + "...")


class Source:
    """A text with its name and limits; errors and remarks about it get their line and column."""

    def __init__(self, text: str, path: str, limits: Limits) -> None:
        self.text, self.path, self.limits = text, path, limits
        self._remarks: dict[str, str] = {}  # what to where, first

    def fail(self, message: str, at: int) -> NoReturn:
        """Raises a `VnnlibError` about the character `at`."""
        raise VnnlibError(message, self.path, *_place(self.text, at))

    def refuse(self, message: str, at: int) -> NoReturn:
        """Raises an `UnsupportedError` about the character `at`."""
        line, column = _place(self.text, at)
        raise UnsupportedError(f"{self.path}:{line}:{column}: {message}") from None

    def remark(self, what: str, at: int) -> None:
        """Notes a departure from the standard; each is noted once, at its first place."""
        if what not in self._remarks and len(self._remarks) < _MAX_REMARKS:
            line, column = _place(self.text, at)
            self._remarks[what] = f"{line}:{column}"

    def remarks(self) -> tuple[str, ...]:
        """What was noted, as `line:column: what`."""
        return tuple(f"{place}: {what}" for what, place in self._remarks.items())

    def number(self, word: str, at: int) -> Decimal:
        """The exact value of a literal in any notation: signs, points and exponents are optional.

        Raises:
            VnnlibError: It is no number, or one of too many digits.
        """
        match = _LITERAL.fullmatch(word)
        if match is None:
            self.fail(f"{shown(word)} is neither a number nor a variable", at)
        exponent = (match[1] or "").lstrip("+-0")
        digits = max(len(word), int(exponent or 0) if len(exponent) < 6 else 10**5)
        if digits > _MAX_DIGITS:
            self.fail(f"number of more than {_MAX_DIGITS} digits", at)
        return Decimal(word)
