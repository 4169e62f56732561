"""Everything that a run is about, checked and put together; and performing it."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from typing import Any

from lpverify.errors import InputError
from lpverify.io.onnx import Model
from lpverify.provenance import versions
from lpverify.robustness.certification import Certification
from lpverify.robustness.evidence import SMOOTHED, Record, Store
from lpverify.robustness.plan import Plan
from lpverify.robustness.run import METHODS, Run, Status
from lpverify.robustness.samples import Samples
from lpverify.robustness.store.store import MemoryStore, SqliteStore
from lpverify.robustness.threat import Threat

FORMAT = "1"  # of what the store's findings mean
NEED_BALL = ("sdp-crown",)
CURVE_POINTS = 8  # where no radii were given


@dataclass(frozen=True)
class Setup:
    """What is asked, of which network, about which samples, and how.

    Attributes:
        model: The network.
        samples: The data set.
        threat: Norm, range and rivals.
        eps: Radii, ascending and distinct; empty when only largest radii are wanted.
        methods: Names out of `run.METHODS`, distinct.
        plan: Limits and seeds.
        source: Where the samples come from, for the report.

    Raises:
        InputError: These do not fit together.
    """

    model: Model
    samples: Samples
    threat: Threat
    eps: tuple[Fraction, ...]
    methods: tuple[str, ...]
    plan: Plan = field(default_factory=Plan)
    source: str = ""

    def __post_init__(self) -> None:
        if not self.eps and self.plan.most is None:
            raise InputError("eps: at least one radius is needed")
        for eps in self.eps:
            if eps < 0:
                raise InputError(f"eps: {eps} is negative")
        if list(self.eps) != sorted(set(self.eps)):
            raise InputError("eps: radii must be distinct and ascend")
        self._check_methods()

    def _check_methods(self) -> None:
        if not self.methods:
            raise InputError("method: at least one is needed")
        for method in self.methods:
            if method not in METHODS:
                raise InputError(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
            if method in NEED_BALL and self.threat.norm == math.inf:
                raise InputError(f"method {method} is for norm 1 and 2")
        if SMOOTHED in self.methods and self.plan.smoothing is None:
            raise InputError("method smoothing needs sigma, the standard deviation of its noise")

    @cached_property
    def fingerprint(self) -> dict[str, str]:
        """What findings depend on: a store with another one is about something else."""
        threat, smoothing = self.threat, self.plan.smoothing
        noise = "" if SMOOTHED not in self.methods else f"{smoothing} at {', '.join(map(str, self.eps))}"
        return {
            "format": FORMAT,
            "network": hashlib.sha256(self.model.serialized).hexdigest(),
            "samples": self.samples.fingerprint,
            "norm": f"{threat.norm:g}",
            "clip": "" if threat.clip is None else " ".join(str(Fraction(end)) for end in threat.clip),
            "targets": threat.targets,
            "smoothing": noise,
        }

    @property
    def settings(self) -> dict[str, Any]:
        """What the run can be repeated with, as plain values."""
        plan, smoothing = self.plan, self.plan.smoothing
        found: dict[str, Any] = {
            "network": self.model.path,
            "network sha256": self.fingerprint["network"],
            "data": self.source,
            "samples": len(self.samples),
            "samples sha256": self.fingerprint["samples"],
            "norm": self.fingerprint["norm"],
            "clip": self.fingerprint["clip"] or None,
            "targets": self.threat.targets,
            "methods": list(self.methods),
            "seconds per sample": plan.seconds,
            "spare": plan.spare,
            "jobs": plan.jobs,
            "seed": plan.seed,
            "attack": plan.attack,
            "versions": versions(),
        }
        if plan.most is not None:
            found["radius"] = str(plan.most)
        if SMOOTHED in self.methods and smoothing is not None:
            found |= {name: getattr(smoothing, name) for name in ("sigma", "n0", "n", "alpha")}
        return found

    def perform(
        self,
        store: str | None = None,
        report: Callable[[Status], None] = lambda status: None,
        partial: bool = False,
    ) -> Certification:
        """Does it.

        Args:
            store: File that keeps what is found, and from which it goes on; None: nothing is kept.
            report: Called with how far it is.
            partial: Ctrl-C ends it with what is known by then.

        Raises:
            InputError: The store is about something else, or can't be used.
            UnsupportedError: A method can't treat the network.
        """
        with MemoryStore() if store is None else SqliteStore(store, self.fingerprint) as kept:
            return self._perform(kept, report, partial)

    def _perform(self, store: Store, report: Callable[[Status], None], partial: bool) -> Certification:
        start, complete = time.monotonic(), True
        parts = (self.samples, self.threat, self.eps, self.methods)
        run = Run(self.model, *parts, self.plan, store, report)
        try:
            run.go()
        except KeyboardInterrupt:
            if not partial:
                raise
            complete = False
        seconds, records = time.monotonic() - start, tuple(run.ledger.records)
        eps = self.eps or curve(records, self.plan.most or Fraction(1))
        about = (self.samples, self.threat, eps, self.methods)
        return Certification(*about, records, self.settings, seconds, complete)


def curve(records: Sequence[Record], most: Fraction) -> tuple[Fraction, ...]:
    """Radii for a curve, evenly up to where all samples are refuted, or to the largest one asked about."""
    right = [r for r in records if r.clean is not None and r.clean.correct]
    ends = [most if r.refuted is None else min(r.refuted, most) for r in right]
    last = Fraction(f"{float(max(ends, default=most)):.2g}")
    last += last / 50 if ends and last < max(ends) else 0  # was rounded down
    return tuple(last * k / CURVE_POINTS for k in range(1, CURVE_POINTS + 1))
