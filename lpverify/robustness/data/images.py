"""Folders of labelled images. Pixels are taken as stored, from 0 to 255; images are never resized."""

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from io import BytesIO
from math import isqrt
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from lpverify.errors import InputError
from lpverify.io.model import read_plain

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".ppm", ".pgm"})
FORMATS = ("PNG", "JPEG", "BMP", "PPM")
MODES = frozenset({"1", "L", "LA", "P", "RGB", "RGBA"})  # those of 8 bits that have grey values or RGB
MOST_BYTES = 2**28  # of an image file
LABELS = "labels.csv"
_PNG, _DEPTH = b"\x89PNG\r\n\x1a\n", 24  # where a PNG file has its bits a channel


@dataclass(frozen=True)
class Layout:
    """How a model wants images.

    Attributes:
        height: In pixels.
        width: In pixels.
        channels: 1: grey, 3: RGB.
        first: Whether the axis of channels comes before the others.
    """

    height: int
    width: int
    channels: int
    first: bool

    @classmethod
    def of(cls, shape: tuple[int, ...]) -> "Layout":
        """Of an input's shape: `(C, H, W)`, `(H, W, C)`, `(H, W)`, or flat grey squares.

        Raises:
            InputError: That is no image.
        """
        if len(shape) == 3 and shape[0] in (1, 3):
            return cls(shape[1], shape[2], shape[0], True)
        if len(shape) == 3 and shape[2] in (1, 3):
            return cls(shape[0], shape[1], shape[2], False)
        if len(shape) == 2:
            return cls(*shape, 1, True)
        if len(shape) == 1 and isqrt(shape[0]) ** 2 == shape[0]:
            return cls(isqrt(shape[0]), isqrt(shape[0]), 1, True)
        raise InputError(f"the model's input of shape {shape} is no grey or RGB image")


def read_images(
    folder: Path, labels: Path | None, shape: tuple[int, ...], limit: int | None = None
) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    """Images, labels and names from a folder: `.png`, `.jpg`, `.bmp` and `.ppm` files of 8 bits a channel.

    Subfolders are named by the number of a class, and their files are taken in the order of classes and
    names; or the table `labels.csv` has the columns `file` and `label`, and its order counts. Hidden files
    are left out. Colours in images of a grey model and transparent pixels are refused.

    Args:
        folder: Where they are.
        labels: The table, if it is not the folder's own.
        shape: Of an input, see `Layout.of`.
        limit: Read so many images.

    Returns:
        Pixels `(N, *shape)` uint8; labels `(N,)` int64; paths within the folder.

    Raises:
        InputError: Pillow is missing; there are no images or other files; an image has another size, or can't
            be read; labels are no whole numbers.
    """
    if find_spec("PIL") is None:
        raise InputError("images need Pillow; install it with: pip install 'lpverify[report]'")
    try:
        layout = Layout.of(shape)
        own = folder / LABELS
        table = labels if labels is not None else own if own.exists() else None
        found = _by_folder(folder) if table is None else _by_table(table)
    except OSError as error:
        raise InputError(f"{folder}: {error.strerror or error}") from None
    except InputError as error:
        raise InputError(f"{folder}: {error}") from None
    if not found:
        raise InputError(f"{folder}: no images")
    found = found[:limit]
    x = np.stack([_pixels(folder / name, layout) for name, _ in found]).reshape(len(found), *shape)
    return x, np.array([label for _, label in found], np.int64), tuple(name for name, _ in found)


def _by_folder(folder: Path) -> list[tuple[str, int]]:
    """Files and labels, by the names of subfolders."""
    found = []
    for sub in _entries(folder):
        if not sub.is_dir() or not _is_number(sub.name):
            raise InputError(f"expected subfolders named 0, 1 ... or a {LABELS}, found {sub.name!r}")
        for file in _entries(sub):
            if file.suffix.lower() not in SUFFIXES or not file.is_file():
                raise InputError(f"{sub.name}/{file.name} is no .png, .jpg, .bmp or .ppm file")
            found.append((f"{sub.name}/{file.name}", int(sub.name)))
    return sorted(found, key=lambda pair: (pair[1], pair[0]))


def _entries(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if not p.name.startswith("."))


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 10


def _by_table(path: Path) -> list[tuple[str, int]]:
    """Files and labels from a table with the columns `file` and `label`, in any order if it has a header."""
    import csv  # noqa: PLC0415  (only needed here)

    try:
        text = read_plain(path, MOST_BYTES).decode("utf-8-sig")
        rows = [row for row in csv.reader(text.splitlines(), strict=True) if any(row)]
    except OSError:
        raise
    except (ValueError, csv.Error) as error:
        raise InputError(f"{path.name}: no readable table: {error}") from None
    names = [cell.strip().lower() for cell in rows[0]] if rows else []
    places = (0, 1)
    if {"file", "label"} <= set(names):
        places, rows = (names.index("file"), names.index("label")), rows[1:]
    return [_named(row, places, len(names), path.name) for row in rows]


def _named(row: Sequence[str], places: tuple[int, int], width: int, table: str) -> tuple[str, int]:
    """The file and label in a row."""
    if len(row) != width or width < 2 or (places == (0, 1) and width > 2):
        raise InputError(f"{table}: expected file,label in each line, got {','.join(row)[:60]!r}")
    name, label = (row[place].strip() for place in places)
    parts = PurePosixPath(name).parts
    if not parts or name.startswith("/") or ".." in parts or "\\" in name or "\0" in name:
        raise InputError(f"{table}: {name!r} is no file within the folder")
    if not _is_number(label):
        raise InputError(f"{table}: label {label!r} of {name!r} is no whole number from 0")
    return name, int(label)


def _pixels(path: Path, layout: Layout) -> np.ndarray:
    """One image as the layout has it, uint8."""
    try:
        pixels = _decoded(path, layout)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    except Exception as error:  # noqa: BLE001  (a damaged image can raise nearly anything)
        raise InputError(f"{path}: no readable image: {' '.join(str(error).split())[:200]}") from None
    if (pixels[..., 3] != 255).any():
        raise InputError(f"{path}: it has transparent pixels")
    colours = pixels[..., :3]
    if layout.channels == 1:
        if (colours != colours[..., :1]).any():
            raise InputError(f"{path}: it has colours, and the model's input is grey")
        colours = colours[..., :1]
    return np.moveaxis(colours, -1, 0) if layout.first else colours


def _decoded(path: Path, layout: Layout) -> np.ndarray:
    """Pixels `(H, W, 4)`: red, green, blue, opacity."""
    import warnings  # noqa: PLC0415

    from PIL import Image  # noqa: PLC0415  (may be missing)

    data = read_plain(path, MOST_BYTES)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large images, which are refused before they are unpacked
        image: Any = Image.open(BytesIO(data), formats=FORMATS)
    if image.size != (layout.width, layout.height):
        wanted = f"{layout.width}x{layout.height}"
        raise InputError(f"{image.size[0]}x{image.size[1]} pixels, the model takes {wanted}")
    if image.mode not in MODES or (data.startswith(_PNG) and data[_DEPTH] > 8):
        raise InputError(f"mode {image.mode}: expected grey or RGB pixels of 8 bits")
    if getattr(image, "n_frames", 1) != 1:
        raise InputError("more than one image in the file")
    Image.open(BytesIO(data), formats=FORMATS).verify()  # checksums, which are not looked at otherwise
    return np.asarray(image.convert("RGBA"))
