"""A certification as data: JSON, CSV, and the table for the terminal."""

import csv
import io
import json
import math
import textwrap
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any

import numpy as np

from lpverify.columns import aligned
from lpverify.robustness.certification import Certification, Radii, Row
from lpverify.robustness.evidence import SMOOTHED
from lpverify.robustness.metrics import wilson
from lpverify.robustness.report.wording import (
    eps_text,
    evaluated,
    interval_text,
    lower_text,
    norm_text,
    notes,
    percent,
    printable,
    upper_text,
)
from lpverify.robustness.tables import COLUMNS, lines_of

SCHEMA = 1
WIDTH = 100  # columns of the text
NAME_WIDTH = 14  # of a method in the text
HEADER = (
    "method",
    "eps",
    "certified",
    "95 % interval",
    "empirical",
    "proven",
    "refuted",
    "unknown",
    "seconds",
)
NUMBERS = ">" * (len(HEADER) - 1)  # are to the right


def summary(found: Certification) -> dict[str, Any]:
    """The outcome in plain JSON values; null stands for what is not finite or not known.

    `eps` is exact text such as `8/255`, `radius` the float next to it. All intervals are Wilson's, 95 %.
    """
    return {
        "schema": SCHEMA,
        "complete": bool(found.complete),
        "seconds": finite(found.seconds),
        "settings": plain(found.settings),
        "data": {
            "count": len(found.samples),
            "shape": [int(n) for n in found.samples.shape],
            "sha256": found.samples.fingerprint,
        },
        "threat": _threat(found),
        "eps": [{"eps": str(eps), "radius": float(eps)} for eps in found.eps],
        "methods": list(found.methods),
        "clean": _clean(found),
        "rows": [_row(row) for row in found.rows()],
        "radii": {method: _radii(found.radii(method)) for method in found.methods},
        "notes": list(notes(found)),
    }


def as_json(found: Certification) -> str:
    """The summary, and under `samples` each sample with both ends of its radius by each method."""
    radii = [found.radii(method) for method in found.methods]
    samples = [_sample(found, radii, i) for i in range(len(found.records))]
    return json.dumps({**summary(found), "samples": samples}, indent=1, allow_nan=False) + "\n"


def as_csv(found: Certification) -> str:
    """A line for each sample, method and radius under `tables.COLUMNS`, as RFC 4180 has it; None is empty."""
    stream = io.StringIO()
    writer = csv.writer(stream)  # its defaults are those of RFC 4180: commas, double quotes, CRLF
    writer.writerow(COLUMNS)
    writer.writerows(lines_of(found))
    return stream.getvalue()


def as_text(found: Certification) -> str:
    """The table for the terminal, at most 100 columns wide; ends in a newline."""
    correct, count = evaluated(found)
    lines = [f"clean accuracy {percent(correct, count)} ({correct} of {count})", ""]
    lines += [*aligned(HEADER, NUMBERS, [_cells(row) for row in found.rows()]), ""]
    lines += [*_averages(found), ""]
    for note in notes(found):
        lines += textwrap.wrap(note, WIDTH)
    return "\n".join(lines) + "\n"


def finite(value: float | None) -> float | None:
    """A number as JSON has it; None where it is not finite."""
    return float(value) if value is not None and math.isfinite(value) else None


def plain(value: Any) -> Any:
    """Settings as JSON has them: mappings and lists of text, finite numbers, truth values and None."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return finite(value)
    if isinstance(value, Mapping):
        return {str(key): plain(v) for key, v in value.items()}
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, set | frozenset):
        return [plain(v) for v in sorted(value, key=str)]
    return [plain(v) for v in value] if isinstance(value, list | tuple) else str(value)


def median(values: np.ndarray) -> float:
    """Of some numbers, infinite ones among them; NaN without any."""
    return float(np.median(values)) if len(values) else math.nan


def _threat(found: Certification) -> dict[str, Any]:
    threat = found.threat
    return {
        "norm": norm_text(threat.norm),
        "clip": None if threat.clip is None else [str(Fraction(end)) for end in threat.clip],
        "targets": threat.targets,
        "classes": int(threat.classes),
    }


def _clean(found: Certification) -> dict[str, Any]:
    correct, count = evaluated(found)
    return {
        "count": count,
        "correct": correct,
        "accuracy": finite(found.clean_accuracy),
        "interval": list(wilson(correct, count)),
    }


def _row(row: Row) -> dict[str, Any]:
    return {
        "method": row.method,
        "eps": str(row.eps),
        "radius": float(row.eps),
        "about": "smoothed classifier" if row.method == SMOOTHED else "network",
        "count": row.count,
        "proven": row.proven,
        "refuted": row.refuted,
        "unknown": row.unknown,
        "certified_accuracy": finite(row.certified_accuracy),
        "certified_interval": list(row.certified_interval),
        "empirical_accuracy": finite(row.empirical_accuracy),
        "empirical_interval": list(row.empirical_interval),
        "seconds": finite(row.seconds),
    }


def _radii(radii: Radii) -> dict[str, Any]:
    return {
        "average_lower": finite(radii.average),
        "average_upper": finite(radii.average_upper),
        "median_lower": finite(median(radii.lower)),
        "median_upper": finite(median(radii.upper)),
    }


def _sample(found: Certification, radii: Sequence[Radii], i: int) -> dict[str, Any]:
    clean, near = found.records[i].clean, found.records[i].nearest
    attack = near and {
        "distance": float(near.distance),
        "predicted": int(near.predicted),
        "technique": near.source,
    }
    return {
        "sample": i,
        "name": found.samples.names[i],
        "label": int(found.samples.y[i]),
        "predicted": None if clean is None else int(clean.predicted),
        "correct": None if clean is None else bool(clean.correct),
        "margin": None if clean is None else finite(clean.margin),
        "counterexample": attack,
        "radii": {r.method: {"lower": finite(r.lower[i]), "upper": finite(r.upper[i])} for r in radii},
    }


def _cells(row: Row) -> list[str]:
    return [
        printable(row.method, NAME_WIDTH),
        eps_text(row.eps),
        percent(row.proven, row.count),
        interval_text(row.certified_interval),
        percent(row.count - row.refuted, row.count),
        *(str(n) for n in (row.proven, row.refuted, row.unknown)),
        f"{row.seconds:.1f}",
    ]


def _averages(found: Certification) -> list[str]:
    """Average and median radius of each method, from below and above."""
    header, rows = ("method", "ACR from", "to", "median from", "to"), []
    for method in found.methods:
        radii = found.radii(method)
        average = [lower_text(radii.average), upper_text(radii.average_upper)]
        middle = [lower_text(median(radii.lower)), upper_text(median(radii.upper))]
        rows.append([printable(method, NAME_WIDTH), *average, *middle])
    return [
        *aligned(header, ">" * (len(header) - 1), rows),
        "ACR: average certified radius, 0 where the network is wrong",
    ]
