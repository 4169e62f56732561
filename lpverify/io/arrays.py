"""Arrays of numbers in untrusted files: `.npy`, `.npz` and tables of decimals.

Nothing is unpickled. What a header says is compared with the bytes that are there before anything is made.
"""

import os
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import TypeAlias

import numpy as np

from lpverify.errors import InputError, OnnxError
from lpverify.io.limits import DEFAULT_LIMITS, RATIO_FREE_BYTES
from lpverify.io.model import read_file, read_plain

Path: TypeAlias = str | os.PathLike[str]

MOST_BYTES = 2**33  # of a file or an unpacked array
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npy(path: Path) -> np.ndarray:
    """The array in a `.npy` file, of any element type but objects; read-only.

    Raises:
        InputError: The file can't be read, is damaged, or would have to be unpickled.
    """
    return parse_npy(_plain(path), f"{path}: no readable .npy file")


def parse_npy(data: bytes, problem: str) -> np.ndarray:
    """The array in the content of a `.npy` file.

    Args:
        data: The content.
        problem: What error messages begin with.

    Raises:
        InputError: As `read_npy`.
    """
    try:
        return _parsed(data)
    except Exception as error:  # noqa: BLE001  (a damaged header can raise nearly anything)
        raise InputError(f"{problem}: {_short(error)}") from None


def _parsed(data: bytes) -> np.ndarray:
    stream = BytesIO(data)
    version = np.lib.format.read_magic(stream)
    if version not in _HEADERS:  # later ones are for fields with names
        raise ValueError(f"version {version[0]}.{version[1]} of the format is not supported")
    shape, fortran, dtype = _HEADERS[version](stream)
    if dtype.hasobject:
        raise ValueError("Object arrays cannot be loaded: they would have to be unpickled")
    if any(size < 0 for size in shape):
        raise ValueError(f"impossible shape {shape}")
    count, start = prod(shape), stream.tell()
    if count * dtype.itemsize > len(data) - start:
        raise ValueError(
            f"shape {shape} needs {count * dtype.itemsize} bytes, it has {len(data) - start}: truncated?"
        )
    flat = np.frombuffer(data, dtype, count, start) if count else np.zeros(0, dtype)
    return flat.reshape(shape, order="F" if fortran else "C")


def _short(error: BaseException) -> str:
    """A message on one line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def _plain(path: Path) -> bytes:
    try:
        data = read_plain(path, MOST_BYTES + 1)
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: {getattr(error, 'strerror', None) or error}") from None
    if len(data) > MOST_BYTES:
        raise InputError(f"{path}: more than {MOST_BYTES} bytes")
    return data


@dataclass(frozen=True)
class Archive:
    """A `.npz` file; its arrays are unpacked when they are asked for.

    Attributes:
        path: For messages.
        members: By name, without `.npy`.
    """

    path: Path
    members: dict[str, zipfile.ZipInfo]
    _file: zipfile.ZipFile

    @classmethod
    def open(cls, path: Path) -> "Archive":
        """Reads the directory of the file.

        Raises:
            InputError: The file can't be read, or is no zip file.
        """
        data = _plain(path)
        try:
            file = zipfile.ZipFile(BytesIO(data))
            infos = file.infolist()
        except Exception as error:  # noqa: BLE001  (a damaged directory can raise nearly anything)
            raise InputError(f"{path}: no readable .npz file: {_short(error)}") from None
        members = {info.filename.removesuffix(".npy"): info for info in infos}
        if len(members) < len(infos):
            raise InputError(f"{path}: no readable .npz file: two arrays have one name")
        return cls(path, members, file)

    def array(self, name: str) -> np.ndarray:
        """One of the arrays, read-only.

        Raises:
            InputError: It is damaged, packed beyond reason, or would have to be unpickled.
        """
        info = self.members[name]
        most = max(RATIO_FREE_BYTES, DEFAULT_LIMITS.max_ratio * info.compress_size)
        if info.file_size > min(MOST_BYTES, most):
            raise InputError(f"{self.path}: array {name!r} has {info.file_size} bytes: too many")
        try:
            data = self._file.read(info)  # at most the size that the directory says
        except Exception as error:  # noqa: BLE001  (zipfile, zlib and others raise many types)
            raise InputError(f"{self.path}: array {name!r} is not readable: {_short(error)}") from None
        return parse_npy(data, f"{self.path}: array {name!r} is not readable")


@dataclass(frozen=True)
class Table:
    """Decimals in rows.

    Attributes:
        header: Names of the columns; empty where the file has none.
        numbers: `(N, columns)` float64, each the nearest one to its decimal; NaN and infinities as written.
    """

    header: tuple[str, ...]
    numbers: np.ndarray


def read_table(path: Path) -> Table:
    """The table in a text file, packed with gzip or not.

    Columns are separated by commas, semicolons, tabs or blanks, whichever of these comes first in this list
    and is in the first line. Blank lines and lines that begin with `#` are left out. The first line is a
    header if no cell of it is a number, or if its numbers are those of their columns, counted from 0.

    Raises:
        InputError: The file can't be read or is not UTF-8, a cell is no number, or rows differ in length.
    """
    rows: list[np.ndarray] = []
    header: tuple[str, ...] = ()
    width, separator = 0, None
    for number, line in _lines(path):
        if not width:
            separator = next((s for s in ",;\t" if s in line), None)
        cells = [_unquoted(c) for c in line.split(separator)] if '"' in line else line.split(separator)
        if width and len(cells) != width:
            raise InputError(f"{path}:{number}: {len(cells)} cells, but {width} in the first line")
        if not width and _is_header(cells):
            header, width = tuple(cell.strip() for cell in cells), len(cells)
            continue
        width = len(cells)
        rows.append(_numbers(cells, f"{path}:{number}"))
    if not rows:
        raise InputError(f"{path}: no numbers")
    return Table(header, np.stack(rows))


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Lines with something in them, by their numbers."""
    try:
        text = read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InputError(f"{path}: not UTF-8") from None
    except OnnxError as error:  # of the same reader; it is no network here
        raise InputError(str(error)) from None
    for number, line in enumerate(text.split("\n"), 1):
        line = line.strip(" \r")
        if line.strip() and not line.startswith("#"):
            yield number, line


def _unquoted(cell: str) -> str:
    """A cell without the quotes around it; a separator within quotes is not understood."""
    cell = cell.strip()
    return cell[1:-1] if len(cell) > 1 and cell[0] == cell[-1] == '"' else cell


def _numbers(cells: list[str], place: str) -> np.ndarray:
    try:
        if not any("_" in cell for cell in cells):  # which Python allows between digits
            return np.array(list(map(float, cells)))
    except ValueError:
        pass
    wrong = next(cell for cell in cells if not _is_number(cell))
    raise InputError(f"{place}: {wrong[:40]!r} is not a number")


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return "_" not in cell


def _is_header(cells: list[str]) -> bool:
    numbers = [(i, cell) for i, cell in enumerate(cells) if _is_number(cell)]
    return len(numbers) < len(cells) and all(cell.strip() == str(i) for i, cell in numbers)
