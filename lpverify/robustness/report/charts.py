"""Figures of a report as SVG, with matplotlib; the same certification gives the same text."""

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from lpverify.errors import InputError
from lpverify.robustness.certification import Certification, Radii, Row
from lpverify.robustness.evidence import SMOOTHED
from lpverify.robustness.metrics import wilson
from lpverify.robustness.report.wording import eps_text, norm_text, printable

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Told apart by readers with any kind of colour vision (after Okabe and Ito), darkened for a white page; a
# method also has a marker of its own.
COLOURS = ("#0063a6", "#b84e00", "#00745a", "#a03a78", "#6d5c00", "#4f4aa0", "#2f7f99", "#8a3030")
MARKERS = "osD^vPX*"
INK, GRID = "#1b2430", "#c9d1da"
DASHES = (0, (5, 3))
WIDTH = 8.0  # inches, 72 units each
MOST_TICKS = 8
BINS = 30
SHOWN = (1e-100, 1e100)  # radii that matplotlib's axes can take
STYLE = {
    "svg.fonttype": "path",  # looks the same everywhere; what it says is in the page's text, too
    "svg.hashsalt": "lpverify",
    "font.family": ["DejaVu Sans"],  # comes with matplotlib
    "font.size": 10.5,
    "text.parse_math": False,
    "axes.unicode_minus": False,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": INK,
    "ytick.color": INK,
}


def require_report() -> None:
    """Finds out whether reports can be made.

    Raises:
        InputError: jinja2, matplotlib or Pillow is not installed.
    """
    names = {"jinja2": "jinja2", "matplotlib": "matplotlib", "PIL": "Pillow"}
    missing = [name for module, name in names.items() if find_spec(module) is None]
    if missing:
        what = " and ".join(missing)
        raise InputError(f"reports need {what}; install what is missing with: pip install 'lpverify[report]'")


@dataclass(frozen=True)
class Line:
    """A method in a figure.

    Attributes:
        name: As it is printed; glyphs beyond ASCII may be missing from the font.
        colour: Of lines and bands.
        marker: At the radii that were asked about.
    """

    name: str
    colour: str
    marker: str


def lines_for(methods: Sequence[str]) -> list[Line]:
    """Each method's, by its place."""
    return [
        Line(
            printable(name, 28).encode("ascii", "replace").decode(),
            COLOURS[i % len(COLOURS)],
            MARKERS[i % len(MARKERS)],
        )
        for i, name in enumerate(methods)
    ]


def certified_hits(radii: Radii, eps: np.ndarray) -> np.ndarray:
    """How many samples are proven at each radius above 0 `(K,)`."""
    proven = radii.lower[:, None] >= eps
    return (proven & (radii.upper[:, None] > eps)).sum(axis=0)  # a counterexample outweighs a proof


def empirical_hits(radii: Radii, eps: np.ndarray) -> np.ndarray:
    """How many samples have no counterexample at each radius `(K,)`."""
    return (radii.upper[:, None] > eps).sum(axis=0)


# Accuracy over the radius


def curve_svg(found: Certification) -> str:
    """Certified (solid) and empirical (dashed) accuracy over the radius; bands are Wilson's 95 % intervals.

    The curves are made of all samples' radii; markers stand at the radii that were asked about.
    Counterexamples are shared by all methods that are about the network, so these have one empirical curve.

    Raises:
        InputError: matplotlib is not installed.
    """
    radii = [found.radii(method) for method in found.methods]
    rows, count, end = found.rows(), len(found.samples), _reach(found, radii)
    with _figure(4.8) as (figure, axes):
        for r, line in zip(radii, lines_for(found.methods), strict=True):
            eps, asked = _jumps(r, end), [row for row in rows if row.method == r.method]
            about = " (smoothed classifier)" if r.method == SMOOTHED else ""
            label = f"certified: {line.name}{about}"
            _curve(axes, eps, certified_hits(r, eps), count, color=line.colour, label=label)
            _markers(axes, asked, line)
            if r.method == SMOOTHED:
                _smoothed_empirical(axes, asked, line, end)
        shared = next((r for r in radii if r.method != SMOOTHED), None)
        if shared is not None:
            eps = _jumps(shared, end)
            style = {"color": INK, "linestyle": DASHES, "label": "empirical (no counterexample)"}
            _curve(axes, eps, empirical_hits(shared, eps), count, **style)
        _finish(figure, axes, found, end)
    return _svg(figure)


def _reach(found: Certification, radii: Sequence[Radii]) -> float:
    """Where the axis of radii ends."""
    largest = [_drawn(r.lower).max(initial=0.0) for r in radii] + [float(eps) for eps in found.eps]
    top = max((v for v in largest if SHOWN[0] < v < SHOWN[1]), default=0.0)
    return 1.06 * float(top) if top > 0 else 1.0


def _jumps(radii: Radii, end: float) -> np.ndarray:
    """Radii on both sides of all jumps of a curve, from above 0 to the end of the axis."""
    values = np.concatenate([radii.lower, radii.upper])
    inner = np.unique(values[(values > SHOWN[0]) & (values < end)])
    sides = [np.nextafter(inner, 0.0), inner, np.nextafter(inner, np.inf)]
    return np.concatenate([[SHOWN[0]], np.stack(sides, axis=1).reshape(-1), [end]])


def _curve(axes: "Axes", eps: np.ndarray, hits: np.ndarray, count: int, **style: Any) -> None:
    """A line with its band; nothing without samples."""
    if not count:
        return
    bands = 100 * np.array([wilson(int(n), count) for n in hits])
    axes.fill_between(eps, bands[:, 0], bands[:, 1], color=style["color"], alpha=0.09, linewidth=0, zorder=1)
    axes.plot(eps, 100 * hits / count, linewidth=1.9, zorder=3, **style)


def _markers(axes: "Axes", rows: Sequence[Row], line: Line) -> None:
    if rows and rows[0].count:
        shares = [100 * row.certified_accuracy for row in rows]
        eps = [float(row.eps) for row in rows]
        axes.plot(eps, shares, line.marker, color=line.colour, markersize=6, zorder=4)


def _smoothed_empirical(axes: "Axes", rows: Sequence[Row], line: Line, end: float) -> None:
    """Where the smoothed classifier is not known to be wrong; it was asked at a few radii only."""
    if rows and rows[0].count:
        eps = np.array([0.0, *(float(row.eps) for row in rows), end])
        hits = [row.count - row.refuted for row in rows]
        style: dict[str, Any] = {"color": line.colour, "linestyle": DASHES, "drawstyle": "steps-post"}
        values = 100 * np.array([hits[0], *hits, hits[-1]]) / rows[0].count
        axes.plot(eps, values, linewidth=1.4, zorder=2, label=f"not wrong: {line.name}", **style)


def _finish(figure: "Figure", axes: "Axes", found: Certification, end: float) -> None:
    axes.set_xlim(0, end)
    axes.set_ylim(0, 103)
    axes.set_yticks(range(0, 101, 20))
    axes.set_ylabel("samples (%)")
    axes.set_xlabel(f"radius eps (norm {norm_text(found.threat.norm)})")
    values = [float(eps) for eps in found.eps]
    gaps = np.diff([0.0, *values]) / end
    if values and len(values) <= MOST_TICKS and gaps.min() > 0.07:  # there is room for exact ones
        axes.set_xticks([0, *values], ["0", *map(eps_text, found.eps)])
    if axes.get_legend_handles_labels()[0]:
        figure.legend(loc="outside upper left", ncols=2, frameon=False, labelcolor=INK, handlelength=2.6)


# Radii


def histogram_svg(found: Certification) -> str:
    """How the radii are distributed, a panel for each method: lower ends filled, upper ends outlined.

    Samples with radius 0 and those without a finite upper end are counted in words.

    Raises:
        InputError: matplotlib is not installed.
    """
    radii = [found.radii(method) for method in found.methods]
    ends = [_drawn(np.concatenate([r.lower, r.upper])).max(initial=0.0) for r in radii]
    top = max(ends, default=0.0)
    edges = np.linspace(0, 1.02 * top if top > 0 else 1.0, BINS + 1).tolist()
    with _figure(0.9 + 1.5 * len(radii), max(1, len(radii))) as (figure, axes):
        panels = np.atleast_1d(axes)
        for panel, r, line in zip(panels, radii, lines_for(found.methods), strict=False):
            _panel(panel, r, line, edges)
        panels[-1].set_xlabel(f"radius (norm {norm_text(found.threat.norm)})")
        handles, labels = panels[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles, labels, loc="outside upper right", ncols=2, frameon=False, labelcolor=INK)
    return _svg(figure)


def _drawn(values: np.ndarray) -> np.ndarray:
    return values[(values > SHOWN[0]) & (values < SHOWN[1])]


def _panel(axes: "Axes", radii: Radii, line: Line, edges: list[float]) -> None:
    from matplotlib.ticker import MaxNLocator  # noqa: PLC0415

    axes.hist(_drawn(radii.lower), bins=edges, color=line.colour, alpha=0.75, label="lower end: certified")
    label = "upper end: nearest counterexample"
    axes.hist(_drawn(radii.upper), bins=edges, label=label, histtype="step", edgecolor=INK, linewidth=1.2)
    zero, none = int((radii.lower == 0).sum()), int((radii.upper == np.inf).sum())
    title = f"{line.name}: {zero} at radius 0, {none} without upper end"
    axes.set_title(title, loc="left", fontsize=10.5, color=INK)
    axes.set_xlim(0, edges[-1])
    axes.set_ylabel("samples")
    axes.yaxis.set_major_locator(MaxNLocator(4, integer=True))


# SVG


@contextmanager
def _figure(height: float, panels: int = 1) -> "Iterator[tuple[Figure, Any]]":
    """A figure with axes above each other, in the style of the report."""
    require_report()
    import matplotlib  # noqa: PLC0415  (slow, and may be missing)
    from matplotlib.figure import Figure  # noqa: PLC0415

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        yield figure, figure.subplots(panels, 1, sharex=True)


def _svg(figure: "Figure") -> str:
    import matplotlib  # noqa: PLC0415
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415

    stream = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))  # a block of links would say so otherwise
    with matplotlib.rc_context(STYLE):
        FigureCanvasSVG(figure).print_svg(stream, metadata=nothing)
    text = stream.getvalue()
    return text[text.index("<svg") :]
