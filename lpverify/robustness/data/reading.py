"""Data sets from arrays and files, as `Samples` of a model.

A sample is what the model can be given: every number is rounded to the nearest one of the model's input type
(of most models float32), and that number is kept as a float64, which holds it exactly. What is certified is
certified for these samples. Pixels are taken as they are; `divide` alone changes their unit.
"""

import math
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from lpverify.errors import InputError
from lpverify.io.arrays import Archive, Table, read_npy, read_table
from lpverify.io.onnx import Model
from lpverify.query import Number
from lpverify.robustness.data.images import read_images
from lpverify.robustness.data.rounding import check_range, exact_number, quotients, typed
from lpverify.robustness.margins import classes_of
from lpverify.robustness.samples import Samples

PathLike: TypeAlias = str | os.PathLike[str]
Clip: TypeAlias = tuple[Number, Number]

KEYS = (("x", "y"), ("X", "Y"), ("X", "y"), ("images", "labels"), ("x_test", "y_test"), ("arr_0", "arr_1"))
LABEL_NAMES = frozenset({"label", "labels", "class", "target", "y"})
TABLES = (".csv", ".csv.gz", ".txt")


def samples_of(
    model: Model, x: Any, y: Any, *, names: Sequence[str] | None = None, clip: Clip | None = None
) -> Samples:
    """A data set from arrays.

    Args:
        model: A classifier.
        x: Inputs `(N, n)` or `(N, *shape)`, axes of size 1 as you like; they are rounded to the nearest
            numbers of the model's input type.
        y: Labels `(N,)`, whole numbers from 0 to the number of classes less 1; floats such as 3.0 as well.
        names: What to call each sample; distinct. Without them, their numbers from 0.
        clip: The range that all inputs must lie in, after rounding; both ends belong to it.

    Raises:
        InputError: The model is no classifier, shapes or numbers do not fit, or there are no samples.
    """
    return _Raw(_array(x, "x"), _array(y, "labels"), None if names is None else tuple(names)).checked(
        model, clip=clip
    )


def read_samples(
    model: Model,
    path: PathLike,
    *,
    labels: PathLike | None = None,
    label_column: str | int | None = None,
    divide: Number | float | None = None,
    clip: Clip | None = None,
    limit: int | None = None,
) -> Samples:
    """A data set from files.

    | `path` | inputs | labels |
    | --- | --- | --- |
    | `.npz` | array `x`, `X`, `images`, `x_test` or `arr_0` | `y`, `Y` or `y`, `labels`, `y_test`, `arr_1` |
    | `.npy` | the array | from `labels` |
    | `.csv`, `.csv.gz`, `.txt` | a line each | one of the columns, or from `labels` |
    | a folder | an image file each | subfolders `0`, `1` ..., or `labels.csv` (`file,label`) |

    Args:
        model: A classifier.
        path: Where the inputs are, shaped as in `samples_of`.
        labels: A file with the labels, in the order of the inputs: `.npy`, `.csv`, `.csv.gz` or `.txt`. For a
            folder: what to read instead of its `labels.csv`.
        label_column: Of a table: `first`, `last`, a number from 0, or a name of its header. Without it, the
            last column if there is one more than inputs.
        divide: All inputs are divided by it, exactly, and rounded once to the model's input type: 255 turns
            pixels into numbers from 0 to 1.
        clip: As in `samples_of`; in the unit after the division.
        limit: Take so many samples from the first on; all others are only counted. Folders of classes begin
            with the images of the first class.

    Raises:
        InputError: A file can't be read or is malformed, or as in `samples_of`; one line that begins with the
            file.
    """
    classes_of(model)
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise InputError(f"limit: expected a whole number from 1, got {limit!r}")
    divisor = None if divide is None else exact_number(divide, "divide")
    if divisor is not None and divisor <= 0:
        raise InputError(f"divide: expected a number above 0, got {divide}")
    raw = _raw(model, Path(path), labels, label_column, limit)
    try:
        return raw.checked(model, divisor, clip, limit)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def sample_shape(model: Model) -> tuple[int, ...]:
    """The shape of one input, without a leading 1 unless that is all of it."""
    shape = model.inputs.shapes[0]
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


@dataclass(frozen=True)
class _Raw:
    """Arrays as they were found; nothing is checked.

    Attributes:
        x: Inputs.
        y: Labels.
        names: Of samples, if they have any.
    """

    x: np.ndarray
    y: np.ndarray
    names: tuple[str, ...] | None = None

    def checked(
        self,
        model: Model,
        divide: Any = None,
        clip: Clip | None = None,
        limit: int | None = None,
    ) -> Samples:
        """The data set; raises as `samples_of`."""
        classes, shape, dtype = classes_of(model), sample_shape(model), np.dtype(model.inputs.dtypes[0])
        x = _flat(self.x, shape)
        y = _labels(self.y, len(x), classes)
        names = _names(self.names, len(x))
        x, y, names = x[:limit], y[:limit], names[:limit]
        _check_finite(x)
        numbers = typed(x, dtype) if divide is None else quotients(x, divide, dtype)
        if clip is not None:
            check_range(numbers, clip)
        return Samples(numbers, y, names, shape)


def _array(values: Any, what: str) -> np.ndarray:
    """An array of numbers."""
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise InputError(f"{what}: {error}") from None
    if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
        raise InputError(f"{what}: expected numbers of at most 64 bits, got {array.dtype}")
    return array


def _flat(x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Inputs as `(N, n)`; axes are never moved."""
    size = math.prod(shape)
    plain = [[s for s in of if s != 1] for of in (x.shape[1:], shape)]
    if x.ndim == 0 or (x.shape[1:] != (size,) and plain[0] != plain[1]):
        moved = ", axes in another order" if x.ndim and sorted(plain[0]) == sorted(plain[1]) else ""
        expected = f"(N, {', '.join(map(str, shape))})" + (f" or (N, {size})" if len(shape) > 1 else "")
        raise InputError(f"inputs have shape {x.shape}, the model takes {expected}{moved}")
    if not len(x):
        raise InputError("there are no samples")
    return x.reshape(len(x), size)


def _labels(y: np.ndarray, count: int, classes: int) -> np.ndarray:
    """Labels as `(N,)` int64."""
    if y.ndim == 2 and y.shape[1] == classes:
        raise InputError(f"labels have shape {y.shape}: one-hot? expected class numbers, y.argmax(axis=1)")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1 or len(y) != count:
        raise InputError(f"labels have shape {y.shape}, expected ({count},): one for each sample")
    if y.dtype.kind == "f":
        _first_wrong(np.isfinite(y) & (y == np.rint(y)), y, "is no whole number")
    _first_wrong((y >= 0) & (y < classes), y, f"is no class from 0 to {classes - 1}")
    return y.astype(np.int64)


def _first_wrong(right: np.ndarray, y: np.ndarray, problem: str) -> None:
    if not right.all():
        i = int(np.argmin(right))
        raise InputError(f"the label of sample {i}, {y[i]}, {problem}")


def _names(names: tuple[str, ...] | None, count: int) -> tuple[str, ...]:
    if names is None:
        return tuple(map(str, range(count)))
    if len(names) != count:
        raise InputError(f"{len(names)} names for {count} samples")
    if not all(isinstance(name, str) for name in names):
        raise InputError("names: expected strings")
    if len(set(names)) < count:
        raise InputError(f"two samples have the name {Counter(names).most_common(1)[0][0]!r}")
    return names


def _check_finite(x: np.ndarray) -> None:
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        i, j = np.argwhere(~np.isfinite(x))[0].tolist()
        raise InputError(f"sample {i} has {x[i, j]} as its element {j}")


# Files


def _raw(
    model: Model, path: Path, labels: PathLike | None, column: str | int | None, limit: int | None
) -> _Raw:
    """What a file or folder contains."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder")
    kind = _suffix(path)
    if column is not None and kind not in TABLES:
        raise InputError(f"{path}: label_column is for tables ({', '.join(TABLES)})")
    if column is not None and labels is not None:
        raise InputError("label_column and labels exclude each other")
    if path.is_dir():
        table = None if labels is None else Path(labels)
        x, y, names = read_images(path, table, sample_shape(model), limit)
        return _Raw(x, y, names)
    if kind == ".npz":
        return _from_npz(path, labels)
    if kind == ".npy":
        if labels is None:
            raise InputError(f"{path}: a .npy file has no labels; give a file with them (--labels)")
        return _Raw(_numbers(read_npy(path), path), _read_labels(labels))
    if kind in TABLES:
        return _from_table(path, labels, column, math.prod(sample_shape(model)))
    raise InputError(f"{path}: expected .npz, .npy, .csv, .csv.gz, .txt or a folder of images")


def _suffix(path: Path) -> str:
    """The ending that tells the format, in small letters."""
    ends = [s.lower() for s in path.suffixes[-2:]]
    return ".csv.gz" if ends == [".csv", ".gz"] else "".join(ends[-1:])


def _numbers(array: np.ndarray, path: PathLike, name: str = "") -> np.ndarray:
    """The array, if its elements are numbers."""
    return _array(array, f"{path}: array {name!r}" if name else f"{path}")


def _from_npz(path: Path, labels: PathLike | None) -> _Raw:
    file = Archive.open(path)
    has = ", ".join(sorted(file.members)) or "nothing"
    pairs = [pair for pair in KEYS if pair[0] in file.members]
    whole = [pair for pair in pairs if pair[1] in file.members]
    if not pairs or (labels is None and not whole):
        missing = "inputs" if not pairs else "labels"
        raise InputError(f"{path}: no {missing}; expected the arrays x and y, it has {has}")
    if len({name for name, _ in whole or pairs}) > 1:
        raise InputError(f"{path}: which arrays are the samples? it has {has}")
    if labels is not None and whole:
        raise InputError(f"{path}: it has labels of its own ({whole[0][1]}), and {labels} was given")
    name, of_labels = (whole or pairs)[0]
    x = _numbers(file.array(name), path, name)
    if labels is not None:
        return _Raw(x, _read_labels(labels))
    return _Raw(x, _numbers(file.array(of_labels), path, of_labels))


def _from_table(path: Path, labels: PathLike | None, column: str | int | None, inputs: int) -> _Raw:
    table = read_table(path)
    width = table.numbers.shape[1]
    if labels is not None:
        if width != inputs:
            raise InputError(f"{path}: {width} columns, the model has {inputs} inputs; labels are elsewhere")
        return _Raw(table.numbers, _read_labels(labels))
    place = _place(table, column, inputs, path)
    if width != inputs + 1:
        raise InputError(f"{path}: {width} columns, the model has {inputs} inputs, and a label is expected")
    return _Raw(np.delete(table.numbers, place, axis=1), table.numbers[:, place])


def _place(table: Table, column: str | int | None, inputs: int, path: Path) -> int:
    """Which column has the labels."""
    width = table.numbers.shape[1]
    if column is None:
        return _last_place(table, inputs, path)
    if isinstance(column, str) and table.header.count(column) == 1:
        return table.header.index(column)
    if isinstance(column, str) and column in ("first", "last"):
        return 0 if column == "first" else width - 1
    if isinstance(column, int) or (column.isascii() and column.isdigit() and len(column) < 10):
        if not isinstance(column, bool) and 0 <= int(column) < width:
            return int(column)
        raise InputError(f"{path}: label column {column}: expected 0 to {width - 1}")
    names = ", ".join(table.header[:5]) + (" ..." if len(table.header) > 5 else "")
    raise InputError(f"{path}: no single column {column!r}; its header: {names or 'it has none'}")


def _last_place(table: Table, inputs: int, path: Path) -> int:
    """The last column, if that can be the labels."""
    width = table.numbers.shape[1]
    if width == inputs:
        raise InputError(
            f"{path}: {width} columns are {inputs} inputs and no labels; give a file with them (--labels)"
        )
    named = [i for i, name in enumerate(table.header) if name.strip().lower() in LABEL_NAMES]
    if named and named != [width - 1]:
        name = table.header[named[0]]
        raise InputError(
            f"{path}: column {name!r} is not the last one; name the one with the labels (--label-column)"
        )
    return width - 1


def _read_labels(path: PathLike) -> np.ndarray:
    """Labels from a file of their own; a table has one column or one row."""
    kind = _suffix(Path(path))
    if kind == ".npy":
        return _numbers(read_npy(path), path)
    if kind not in TABLES:
        raise InputError(f"{path}: expected labels in a .npy, .csv, .csv.gz or .txt file")
    table = read_table(path)
    if 1 not in table.numbers.shape:
        raise InputError(f"{path}: expected one label a line, got {table.numbers.shape[1]} columns")
    return table.numbers.reshape(-1)
