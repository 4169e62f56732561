"""How numbers and findings of a certification are put into words, for the terminal and the report."""

import math
import sys
from collections.abc import Iterator, Mapping
from decimal import Decimal
from fractions import Fraction
from typing import Any

from lpverify.robustness.certification import Certification, Row
from lpverify.robustness.evidence import SMOOTHED

EPS_WIDTH = 9  # characters of an exact radius
PIXELS = (15, 17, 51, 85, 255)  # denominators of radii that were given as so many 255ths
ORDER = (
    "certified accuracy <= true robust accuracy of the network <= empirical accuracy on these samples; "
    "what lies between is unknown."
)
INCOMPLETE = "This run is incomplete: questions without an answer count as unknown."


def percent(hits: int, count: int) -> str:
    """A share with one decimal; 0.0 % and 100.0 % only where they are exact."""
    if not count:
        return "-"
    tenths = round(1000 * hits / count)
    tenths = hits and min(max(tenths, 1), 1000 if hits == count else 999)
    return f"{tenths / 10:.1f} %"


def interval_text(ends: tuple[float, float]) -> str:
    """An interval of shares, in per cent."""
    return f"{100 * ends[0]:.1f} - {100 * ends[1]:.1f} %"


def eps_text(eps: Fraction) -> str:
    """A radius: a short decimal, so many 255ths or a short fraction; else rounded, with `~`."""
    odd = eps.denominator
    for prime in (2, 5):
        while odd % prime == 0:
            odd //= prime
    if odd == 1:
        text = f"{Decimal(eps.numerator) / Decimal(eps.denominator):.{EPS_WIDTH}f}".rstrip("0").rstrip(".")
        if len(text) <= EPS_WIDTH and Fraction(text) == eps:
            return text
    if eps.denominator in PIXELS:
        return f"{eps * 255}/255"
    if len(str(eps)) <= EPS_WIDTH:
        return str(eps)
    text = f"{float(eps):.4g}"
    return text if Fraction(text) == eps else f"~{text}"


def lower_text(value: float) -> str:
    """A certified radius with four digits, never rounded up."""
    return _rounded(value, -math.inf)


def upper_text(value: float) -> str:
    """A radius known to be too large with four digits, never rounded down."""
    return "unknown" if value == math.inf else _rounded(value, math.inf)


def _rounded(value: float, towards: float) -> str:
    if math.isnan(value):
        return "-"
    exact = Decimal(value)
    text = f"{exact:.3e}"
    if math.isfinite(value) and value:
        off = Decimal(text) > exact if towards < 0 else Decimal(text) < exact
        step = Decimal((0, (1,), exact.adjusted() - 3)).copy_sign(Decimal(towards))
        text = f"{Decimal(text) + step * off:.3e}"
    return text if 0 < value < sys.float_info.min else f"{float(text):.4g}"  # floats there are too coarse


def norm_text(norm: float) -> str:
    """`1`, `2` or `inf`."""
    return f"{norm:g}"


def printable(name: str, width: int) -> str:
    """A name on one line, cut to a width."""
    shown = "".join(c if c.isprintable() else "?" for c in name)
    return shown if len(shown) <= width else shown[: width - 3] + "..."


def evaluated(found: Certification) -> tuple[int, int]:
    """How many samples the network classifies correctly, and how many were evaluated."""
    known = [r.clean.correct for r in found.records if r.clean is not None]
    return sum(map(bool, known)), len(known)


def best_method(found: Certification) -> str | None:
    """The one that proves most; smoothing, which is about another classifier, only where it is alone."""
    names = [m for m in found.methods if m != SMOOTHED] or list(found.methods)
    proven = dict.fromkeys(names, 0)
    for row in found.rows():
        if row.method in proven:
            proven[row.method] += row.proven
    return max(names, key=lambda m: proven[m], default=None)


def headline(found: Certification) -> str:
    """The outcome in a sentence or two: by the best method, at the smallest and the largest radius."""
    best, count = best_method(found), len(found.samples)
    rows = [row for row in found.rows() if row.method == best]
    if best is None or not rows or not count:
        return "Nothing was asked."
    ends = rows if len(rows) == 1 else [rows[0], rows[-1]]
    said = "; ".join(map(_between, ends))
    of = f"{'1 sample' if count == 1 else f'{count} samples'}, norm {norm_text(found.threat.norm)}"
    if best == SMOOTHED:
        return f"By smoothing, the smoothed classifier is certified {said} ({of})."
    return f"By {printable(best, 40)}, the network is robust {said} ({of})."


def _between(row: Row) -> str:
    low, high = percent(row.proven, row.count), percent(row.count - row.refuted, row.count)
    exact = row.method == SMOOTHED or not row.unknown
    share = low if exact else f"at least {low} and at most {high}"
    return f"on {share} of samples within radius {eps_text(row.eps)}"


def alpha_of(found: Certification) -> float | None:
    """The failure probability that smoothing ran with, where the settings have it."""
    inner = found.settings.get(SMOOTHED)
    places: tuple[Mapping[str, Any], ...] = (inner if isinstance(inner, Mapping) else {}, found.settings)
    alpha = next((p["alpha"] for p in places if isinstance(p.get("alpha"), float | Fraction)), None)
    return None if alpha is None else float(alpha)


def smoothing_note(found: Certification) -> str:
    """What the rows of smoothing are about."""
    alpha = alpha_of(found)
    given = "" if alpha is None else f" (alpha = {alpha:g})"
    return (
        "Smoothing certifies the smoothed classifier, not the network: each of its certificates holds with "
        f"probability at least 1 - alpha{given} per sample. In its rows, refuted means that the smoothed "
        "classifier abstains or predicts another class than the label."
    )


def notes(found: Certification) -> Iterator[str]:
    """What a reader has to know about the numbers."""
    if not found.complete:
        yield INCOMPLETE
    missing = len(found.samples) - evaluated(found)[1]
    if missing:
        yield f"{missing} of {len(found.samples)} samples were not evaluated; clean accuracy leaves them out."
    yield ORDER[0].upper() + ORDER[1:]
    if SMOOTHED in found.methods:
        yield smoothing_note(found)
