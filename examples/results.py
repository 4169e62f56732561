"""What the tutorial shows of its outcomes: tables, checks and the figure."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from io import BytesIO, StringIO
from itertools import pairwise
from typing import TYPE_CHECKING

from lpverify.robustness.certification import Certification, Row
from lpverify.robustness.evidence import SMOOTHED, Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CHAIN = ("ibp", "crown", "lp", "ladder")  # each is built on top of the one before
OUT_OF_TIME = 0.9  # share of its limit from which a method is taken to have been stopped
STYLES = {  # told apart with any kind of colour vision
    "ibp": ("#a03a78", "o"),
    "crown-ibp": ("#6d5c00", "s"),
    "crown": ("#2f7f99", "D"),
    "lp": ("#b84e00", "^"),
    "ladder": ("#0063a6", "v"),
    "lipschitz": ("#00745a", "P"),
    SMOOTHED: ("#777777", "X"),
}
COLUMNS = ("data", "network", "test_accuracy", "samples", "clean", "method", "eps", "proven", "refuted")
COLUMNS += ("unknown", "certified", "empirical", "seconds")


@dataclass(frozen=True)
class Study:
    """One network on one data set.

    Attributes:
        data: Name of the data set.
        network: How it was trained: `plain` or `ibp`.
        test_accuracy: Clean accuracy on the whole test set, by torch.
        found: About the first samples of the test set.
    """

    data: str
    network: str
    test_accuracy: float
    found: Certification

    @property
    def title(self) -> str:
        """For headings."""
        return f"{self.data}, {'plain' if self.network == 'plain' else 'IBP'} training"

    def rows(self, method: str) -> list[Row]:
        """Of one method, by radius."""
        return [row for row in self.found.rows() if row.method == method]

    @property
    def empirical(self) -> list[tuple[Fraction, float]]:
        """For each radius the share of samples without a counterexample; the same by every method."""
        method = next(m for m in self.found.methods if m != SMOOTHED)
        return [(row.eps, row.empirical_accuracy) for row in self.rows(method)]

    def certified(self, method: str, eps: Fraction) -> float:
        """Share of samples that a method proves at a radius."""
        return next(row.certified_accuracy for row in self.rows(method) if row.eps == eps)


# Tables


def table(study: Study) -> str:
    """Certified accuracy by method and radius, in Markdown; the last line is the empirical accuracy."""
    found = study.found
    head = ("method", *(f"{float(eps):g}" for eps in found.eps), "average radius", "seconds")
    lines = [head, ("---", *["---:"] * (len(head) - 1))]
    for method in found.methods:
        rows = study.rows(method)
        shares = [f"{row.certified_accuracy:.2f}" for row in rows]
        lines.append(
            (method, *shares, f"{found.radii(method).average:.4f}", f"{sum(r.seconds for r in rows):.1f}")
        )
    lines.append(("*not attacked*", *(f"{share:.2f}" for _, share in study.empirical), "", ""))
    text = f"**{study.title}**: clean accuracy {study.test_accuracy:.3f} on the whole test set, "
    text += f"{found.clean_accuracy:.3f} on the {len(found.samples)} samples below\n\n"
    return text + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def as_csv(studies: Sequence[Study]) -> str:
    """A line for each network, method and radius."""
    stream = StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(COLUMNS)
    for study in studies:
        found = study.found
        about = (study.data, study.network, study.test_accuracy, len(found.samples), found.clean_accuracy)
        for row in found.rows():
            counts = (row.proven, row.refuted, row.unknown)
            shares = (row.certified_accuracy, row.empirical_accuracy, round(row.seconds, 3))
            writer.writerow((*about, row.method, row.eps, *counts, *shares))
    return stream.getvalue()


# Checks


def check_inclusions(study: Study, seconds: float) -> str:
    """Whoever is certified by a method is certified by every dearer one.

    Args:
        study: What to check.
        seconds: The limit of each sample: where a method was stopped by it, nothing is to be expected.

    Returns:
        That it is so, as a sentence.

    Raises:
        AssertionError: Some sample breaks the chain; the text says which.
    """
    asked = [method for method in CHAIN if method in study.found.methods]
    count = stopped = 0
    for i, record in enumerate(study.found.records):
        for cheap, dear, eps in _broken(record, asked, study.found.eps):
            late = seconds_of(record, dear) >= OUT_OF_TIME * seconds
            assert late, f"{study.title}: sample {i} at eps {eps} is certified by {cheap} but not by {dear}"
            stopped += 1
        count += len(study.found.eps)
    text = f"{study.title}: {' => '.join(asked)} holds for all {count} pairs of sample and radius"
    return text + (f"; {stopped} steps are left out, the time limit came first" if stopped else "")


def _broken(
    record: Record, methods: Sequence[str], radii: Sequence[Fraction]
) -> Iterator[tuple[str, str, Fraction]]:
    for eps in radii:
        for cheap, dear in pairwise(methods):
            if record.verdict(cheap, eps) == "proven" and record.verdict(dear, eps) != "proven":
                yield cheap, dear, eps


def seconds_of(record: Record, method: str) -> float:
    """Spent by a method on a sample, all radii together."""
    return sum(tried.seconds for (name, _), tried in record.tried.items() if name == method)


def check_attacks(study: Study) -> str:
    """No counterexample lies within a radius that was proven, and what is proven is classified correctly.

    `Record.verdict` would hide such a contradiction, so that this looks at the evidence itself.

    Returns:
        That it is so, as a sentence.

    Raises:
        AssertionError: Some sample is both certified and attacked; the text says which.
    """
    for i, record in enumerate(study.found.records):
        for method in study.found.methods:
            proven = record.proven(method)
            if method == SMOOTHED or proven is None:
                continue
            text = f"{study.title}: sample {i} is certified at eps {proven} by {method}"
            assert record.clean is None or record.clean.correct, f"{text} but misclassified"
            near = record.refuted
            assert near is None or near > proven, f"{text} but has a counterexample at {near}"
    attacked = sum(record.nearest is not None for record in study.found.records)
    return f"{study.title}: of {attacked} counterexamples none lies within a certified radius"


def tension(studies: Sequence[Study], method: str = "ladder") -> list[str]:
    """What training for certificates costs and gains, a sentence for each data set with both networks."""
    by_name = {(study.data, study.network): study for study in studies}
    sentences = []
    for name in dict.fromkeys(study.data for study in studies):
        pair = [by_name.get((name, network)) for network in ("plain", "ibp")]
        parts = []
        for study in filter(None, pair):
            eps = study.found.eps[-1]
            share = f"{study.certified(method, eps):.2f} certified by {method} at eps {float(eps):g}"
            parts.append(f"{study.network} training {study.test_accuracy:.3f} clean and {share}")
        sentences.append(f"{name}: {', '.join(parts)}")
    return sentences


# Figure


def figure(studies: Sequence[Study]) -> dict[str, bytes]:
    """The files `png` and `svg` of the figure: a row for each data set, a panel for each network."""
    import matplotlib  # noqa: PLC0415  (slow, and may be missing)
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415

    names = list(dict.fromkeys(study.data for study in studies))
    kinds = list(dict.fromkeys(study.network for study in studies))
    with matplotlib.rc_context({"svg.hashsalt": "lpverify", "font.size": 10.5}):
        size = (4.9 * len(kinds), 0.6 + 3.5 * len(names))
        drawing = Figure(figsize=size, layout="constrained")
        FigureCanvasAgg(drawing)  # pyplot would keep state and ask for a screen
        panels = drawing.subplots(len(names), len(kinds), squeeze=False, sharey=True, sharex="row")
        for study in studies:
            draw(panels[names.index(study.data), kinds.index(study.network)], study)
        for first in panels[:, 0]:
            first.set_ylabel("accuracy")
        handles, labels = panels[0, 0].get_legend_handles_labels()
        drawing.legend(handles, labels, loc="outside lower center", ncols=3 if len(kinds) == 1 else 5)
        files = {}
        for kind, metadata in (("png", {}), ("svg", {"Date": None})):
            stream = BytesIO()
            drawing.savefig(stream, format=kind, dpi=150, metadata=metadata)
            files[kind] = stream.getvalue()
    return files


def draw(axes: "Axes", study: Study) -> None:
    """Certified accuracy of each method over the radius, the empirical one above, the clean one at 0."""
    clean = study.found.clean_accuracy
    axes.axhline(clean, color="black", linewidth=0.8, linestyle=":")
    axes.plot([0], [clean], color="black", marker="*", markersize=11, linestyle="", label="clean")
    ends, shares = zip(*study.empirical, strict=True)
    line = {"color": "black", "linestyle": (0, (5, 4)), "linewidth": 1.8, "zorder": 5}
    axes.plot([float(e) for e in ends], shares, label="not attacked (empirical)", **line)
    for rank, method in enumerate(study.found.methods):  # later ones are thinner: both stay visible
        colour, marker = STYLES.get(method, ("#4f4aa0", "d"))
        rows = study.rows(method)
        other = method == SMOOTHED  # certifies another classifier: not comparable line by line
        style = {
            "color": colour,
            "marker": marker,
            "markersize": 10 - rank,
            "linewidth": 4.5 - rank / 2,
            "markerfacecolor": "none",
        }
        style |= {
            "linestyle": ":" if other else "-",
            "label": f"{method} (of another classifier)" if other else method,
        }
        axes.plot([float(r.eps) for r in rows], [r.certified_accuracy for r in rows], **style)
    axes.set_title(f"{study.title}: {clean:.2f} clean", fontsize=10.5)
    axes.set_xlabel("radius (largest norm)")
    axes.set_ylim(-0.03, 1.03)
    axes.grid(alpha=0.3)
