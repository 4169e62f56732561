"""The outcome for a whole data set: per sample, per method and radius, and in a few numbers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np

from lpverify.robustness.evidence import SMOOTHED, Record, Verdict
from lpverify.robustness.metrics import wilson
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Row:
    """One method at one radius, over all samples.

    `certified accuracy <= true robust accuracy <= empirical accuracy` holds on these samples; the difference
    is the share of samples that are unknown. Of `smoothing` the numbers are about the smoothed classifier,
    and `refuted` counts samples that it misclassifies or abstains on.

    Attributes:
        method: Its name.
        eps: The radius, exact.
        proven: Samples that are classified correctly and certified.
        refuted: Samples that are misclassified or have a counterexample.
        unknown: All others.
        seconds: Spent by the method at this radius.
    """

    method: str
    eps: Fraction
    proven: int
    refuted: int
    unknown: int
    seconds: float

    @property
    def count(self) -> int:
        """Samples."""
        return self.proven + self.refuted + self.unknown

    @property
    def certified_accuracy(self) -> float:
        """Share of samples that are proven."""
        return self.proven / self.count if self.count else float("nan")

    @property
    def empirical_accuracy(self) -> float:
        """Share of samples that are not refuted."""
        return 1 - self.refuted / self.count if self.count else float("nan")

    @property
    def certified_interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the certified accuracy over the distribution that samples come from."""
        return wilson(self.proven, self.count)

    @property
    def empirical_interval(self) -> tuple[float, float]:
        """The same of the empirical accuracy."""
        return wilson(self.count - self.refuted, self.count)


@dataclass(frozen=True)
class Radii:
    """Certified radii by one method.

    Attributes:
        method: Its name.
        lower: The largest proven radius of each sample, 0 where it is misclassified, never above `upper`
            `(N,)`.
        upper: The distance of the nearest counterexample, 0 where it is misclassified, infinite where none
            is known and for `smoothing`, which counterexamples say nothing about `(N,)`.
    """

    method: str
    lower: np.ndarray
    upper: np.ndarray

    @property
    def average(self) -> float:
        """The average certified radius (ACR): misclassified samples count as 0."""
        return float(self.lower.mean()) if len(self.lower) else float("nan")

    @property
    def average_upper(self) -> float:
        """The same of the upper ends; infinite if some sample has none."""
        return float(self.upper.mean()) if len(self.upper) else float("nan")


@dataclass(frozen=True)
class Certification:
    """What is known of the robustness of a network on a data set.

    Attributes:
        samples: The data set.
        threat: Norm, range and rivals.
        eps: The radii asked about, ascending.
        methods: Names, in the order asked.
        records: All evidence, by sample.
        settings: What the run can be repeated with: options, seeds, versions, hashes; plain values only.
        seconds: Of the run.
        complete: False when it was stopped before every question had its answer.
    """

    samples: Samples
    threat: Threat
    eps: tuple[Fraction, ...]
    methods: tuple[str, ...]
    records: tuple[Record, ...] = field(repr=False)
    settings: Mapping[str, Any] = field(repr=False)
    seconds: float = 0.0
    complete: bool = True

    @property
    def clean_accuracy(self) -> float:
        """Share of samples that the network classifies correctly; NaN without samples."""
        known = [r.clean.correct for r in self.records if r.clean is not None]
        return float(np.mean(known)) if known else float("nan")

    def verdict(self, sample: int, method: str, eps: Fraction) -> Verdict:
        """Of one question."""
        return self.records[sample].verdict(method, eps)

    def rows(self) -> list[Row]:
        """A row for each method and radius."""
        return [self._row(method, eps) for method in self.methods for eps in self.eps]

    def _row(self, method: str, eps: Fraction) -> Row:
        verdicts = [r.verdict(method, eps) for r in self.records]
        tried = [r.tried[method, eps] for r in self.records if (method, eps) in r.tried]
        proven, refuted = verdicts.count("proven"), verdicts.count("refuted")
        seconds = sum(a.seconds for a in tried)
        return Row(method, eps, proven, refuted, len(verdicts) - proven - refuted, seconds)

    def radii(self, method: str) -> Radii:
        """Of all samples."""
        upper = np.array([_upper(r, method) for r in self.records])
        lower = np.array([float(r.proven(method) or 0) for r in self.records])
        return Radii(method, np.minimum(lower, upper), upper)

    def to_pandas(self) -> "pandas.DataFrame":
        """A table with a line for each sample, method and radius.

        Raises:
            InputError: pandas is not installed.
        """
        from lpverify.robustness.tables import frame_of  # noqa: PLC0415  (needs pandas)

        return frame_of(self)


def _upper(record: Record, method: str) -> float:
    """The smallest radius known to be too large; counterexamples do not count for the smoothed classifier."""
    if method == SMOOTHED:
        return float("inf")
    if record.clean is not None and not record.clean.correct:
        return 0.0
    return float("inf") if record.refuted is None else float(record.refuted)
