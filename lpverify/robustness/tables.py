"""The per-sample table, for CSV and pandas."""

from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from lpverify.errors import InputError

if TYPE_CHECKING:
    import pandas

    from lpverify.robustness.certification import Certification

COLUMNS = (
    "sample",
    "name",
    "label",
    "predicted",
    "correct",
    "method",
    "eps",
    "radius",
    "verdict",
    "stage",
    "seconds",
    "attacked",
    "distance",
    "reason",
)


def lines_of(found: "Certification") -> Iterator[tuple[Any, ...]]:
    """A line for each sample, method and radius, in the order of `COLUMNS`.

    `eps` is exact text such as `8/255`, `radius` the same as a float; `attacked` says whether a
    counterexample within the radius is known, `distance` how far the nearest one is (None: none known).
    """
    for i, record in enumerate(found.records):
        clean, near = record.clean, record.nearest
        about = (i, found.samples.names[i], int(found.samples.y[i]))
        answer = (None, None) if clean is None else (clean.predicted, clean.correct)
        distance = None if near is None else float(near.distance)
        for method in found.methods:
            for eps in found.eps:
                tried = record.tried.get((method, eps))
                yield (
                    *about,
                    *answer,
                    method,
                    str(eps),
                    float(eps),
                    record.verdict(method, eps),
                    record.decided_by(method, eps),
                    None if tried is None else tried.seconds,
                    near is not None and near.distance <= eps,
                    distance,
                    "" if tried is None else tried.reason,
                )


def frame_of(found: "Certification") -> "pandas.DataFrame":
    """The table as a pandas frame.

    Raises:
        InputError: pandas is not installed.
    """
    if find_spec("pandas") is None:
        raise InputError("tables need pandas; install it with: pip install 'lpverify[pandas]'")
    import pandas  # noqa: PLC0415  (slow, and may be missing)

    return pandas.DataFrame(list(lines_of(found)), columns=list(COLUMNS))
