"""The report: one static HTML file of a certification that needs no network and runs no scripts."""

import json
import os
from base64 import b64encode
from collections.abc import Iterator, Mapping
from fractions import Fraction
from importlib.resources import files
from typing import Any

from lpverify.errors import InputError
from lpverify.io.files import check_writable, write_atomically
from lpverify.robustness.certification import Certification, Radii, Row
from lpverify.robustness.evidence import SMOOTHED, Record
from lpverify.robustness.report.charts import curve_svg, histogram_svg, require_report
from lpverify.robustness.report.data import median, plain
from lpverify.robustness.report.pictures import Painter, Picture
from lpverify.robustness.report.wording import (
    INCOMPLETE,
    best_method,
    eps_text,
    evaluated,
    headline,
    interval_text,
    lower_text,
    norm_text,
    notes,
    percent,
    printable,
    smoothing_note,
    upper_text,
)

TEMPLATE = "report.html.j2"
MOST_SHOWN = 8  # of each kind of sample in the gallery
NAME_WIDTH = 60
ATTACKED, UNKNOWN = "nearest counterexamples", "unknown at the smallest radius"


def write_report(found: Certification, path: str | os.PathLike[str]) -> None:
    """Writes the report; the file is there whole or not at all.

    Raises:
        InputError: jinja2, matplotlib or Pillow is not installed, or the file can't be written.
    """
    require_report()
    try:
        check_writable(path)
        write_atomically(path, report_html(found).encode(errors="replace"))
    except OSError as error:
        raise InputError(f"{os.fspath(path)}: can't write the report: {error.strerror or error}") from None


def report_html(found: Certification) -> str:
    """The report's text; the same certification gives the same.

    Raises:
        InputError: jinja2, matplotlib or Pillow is not installed.
    """
    require_report()
    from jinja2 import Environment, StrictUndefined  # noqa: PLC0415  (may be missing)

    source = files("lpverify.robustness.report").joinpath(TEMPLATE).read_text("utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.from_string(source).render(_content(found))


def hardest(found: Certification) -> list[tuple[str, list[int]]]:
    """What the gallery shows: correctly classified samples, by kind, `MOST_SHOWN` of each at most.

    First those nearest to their counterexamples, then those that the best method does not know anything
    about at the smallest radius, the ones with the smallest lead of their label first.
    """
    right = [i for i, r in enumerate(found.records) if r.clean is not None and r.clean.correct]
    attacked = [i for i in right if found.records[i].nearest is not None]
    attacked.sort(key=lambda i: _distance(found.records[i]))
    groups = [(ATTACKED, attacked[:MOST_SHOWN])]
    best = best_method(found)
    if best is not None and found.eps:
        unknown = [i for i in right if found.verdict(i, best, found.eps[0]) == "unknown"]
        unknown = [i for i in unknown if i not in groups[0][1]]
        unknown.sort(key=lambda i: _lead(found.records[i]))
        groups.append((UNKNOWN, unknown[:MOST_SHOWN]))
    return [(title, chosen) for title, chosen in groups if chosen]


def _distance(record: Record) -> Fraction:
    return record.nearest.distance if record.nearest is not None else Fraction(0)


def _lead(record: Record) -> float:
    return record.clean.margin if record.clean is not None else 0.0


def _content(found: Certification) -> dict[str, Any]:
    """What the template fills in; everything there is plain text, escaped by it."""
    correct, count = evaluated(found)
    return {
        "headline": headline(found),
        "clean": f"Clean accuracy {percent(correct, count)} ({correct} of {count}).",
        "incomplete": "" if found.complete else INCOMPLETE,
        "smoothing": smoothing_note(found) if SMOOTHED in found.methods else "",
        "notes": [note for note in notes(found) if note not in (INCOMPLETE, smoothing_note(found))],
        "curve": _svg_uri(curve_svg(found)),
        "methods": [_method(found, method) for method in found.methods],
        "histogram": _svg_uri(histogram_svg(found)) if found.methods else "",
        "radii": [_radii(found.radii(method)) for method in found.methods],
        "gallery": _gallery(found),
        "facts": list(_facts(found)),
        "settings": list(flat(plain(found.settings))),
    }


def _svg_uri(text: str) -> str:
    return f"data:image/svg+xml;base64,{b64encode(text.encode()).decode()}"


def _method(found: Certification, method: str) -> dict[str, Any]:
    rows = [_cells(row) for row in found.rows() if row.method == method]
    return {"name": printable(method, NAME_WIDTH), "smoothed": method == SMOOTHED, "rows": rows}


def _cells(row: Row) -> dict[str, Any]:
    return {
        "eps": eps_text(row.eps),
        "exact": str(row.eps),
        "certified": percent(row.proven, row.count),
        "certified_interval": interval_text(row.certified_interval),
        "empirical": percent(row.count - row.refuted, row.count),
        "empirical_interval": interval_text(row.empirical_interval),
        "counts": (row.proven, row.refuted, row.unknown),
        "seconds": f"{row.seconds:.1f}",
    }


def _radii(radii: Radii) -> dict[str, Any]:
    return {
        "name": printable(radii.method, NAME_WIDTH),
        "average": (lower_text(radii.average), upper_text(radii.average_upper)),
        "median": (lower_text(median(radii.lower)), upper_text(median(radii.upper))),
        "zero": int((radii.lower == 0).sum()),
        "unbounded": int((radii.upper == float("inf")).sum()),
    }


# Gallery


def _gallery(found: Certification) -> list[dict[str, Any]]:
    painter, best = Painter.of(found), best_method(found)
    radii = None if best is None else found.radii(best)
    return [
        {"title": title, "cards": [_card(found, painter, radii, i) for i in chosen]}
        for title, chosen in hardest(found)
    ]


def _card(found: Certification, painter: Painter, radii: Radii | None, i: int) -> dict[str, Any]:
    record, x = found.records[i], found.samples.x[i]
    name, label = printable(found.samples.names[i], NAME_WIDTH), int(found.samples.y[i])
    near = record.nearest
    pictures = [_image(painter.sample(x), f"sample {name}, label {label}", f"label {label}")]
    words = "No counterexample is known."
    if near is not None:
        alt = f"counterexample to {name}, predicted class {near.predicted}"
        pictures.append(_image(painter.sample(near.point), alt, f"predicted {near.predicted}"))
        change, largest = painter.difference(x, near.point)
        caption = f"difference (full scale {largest:.3g})" if largest else "no difference"
        pictures.append(_image(change, f"amplified difference of {name}", caption))
        norm = norm_text(found.threat.norm)
        words = f"Distance {upper_text(float(near.distance))} (norm {norm}), found by {near.source}."
    return {"name": name, "pictures": pictures, "words": f"{words} {_certified(radii, i)}"}


def _certified(radii: Radii | None, i: int) -> str:
    lower = 0.0 if radii is None else float(radii.lower[i])
    if radii is None or not lower:
        return "No radius is certified."
    about = " (the smoothed classifier)" if radii.method == SMOOTHED else ""
    return f"Certified up to {lower_text(lower)} by {printable(radii.method, NAME_WIDTH)}{about}."


def _image(picture: Picture, alt: str, caption: str) -> dict[str, Any]:
    uri = f"data:image/png;base64,{b64encode(picture.png).decode()}"
    return {
        "uri": uri,
        "width": picture.width,
        "height": picture.height,
        "strip": picture.strip,
        "alt": alt,
        "caption": caption,
    }


# Settings


def _facts(found: Certification) -> Iterator[tuple[str, str]]:
    """What the run was about."""
    threat, samples = found.threat, found.samples
    clip = threat.clip
    yield "samples", str(len(samples))
    yield "shape of a sample", " x ".join(map(str, samples.shape))
    yield "SHA-256 of samples and labels", samples.fingerprint
    yield "classes", str(threat.classes)
    yield "norm", norm_text(threat.norm)
    yield "range of inputs", "none" if clip is None else " to ".join(str(Fraction(end)) for end in clip)
    yield "rival classes", "all others" if threat.targets == "all" else "the next one"
    yield "radii", ", ".join(map(str, found.eps))
    yield "methods", ", ".join(found.methods)
    yield "seconds", f"{found.seconds:.1f}"
    yield "complete", "yes" if found.complete else "no"


def flat(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Nested settings as names with dots and text; settings are a few levels deep."""
    if isinstance(value, Mapping) and value:
        for key, inner in value.items():
            yield from flat(inner, f"{name}.{key}" if name else key)
    elif name:
        yield name, value if isinstance(value, str) else json.dumps(value)
