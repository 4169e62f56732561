"""A run over a data set: methods from cheap to dear, each where cheaper ones and attacks left it open."""

import math
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Protocol

from lpverify.bounds.evaluate import slices
from lpverify.config import Deadline
from lpverify.errors import UnsupportedError
from lpverify.io.onnx import Model
from lpverify.robustness.agenda import ATTACK, Agenda, Both, Grid, Radius, proven_by_any, unsettled
from lpverify.robustness.attack.attacks import Attack
from lpverify.robustness.attack.nearest import nearest
from lpverify.robustness.bounders import BATCHED, BatchedBounds, chain
from lpverify.robustness.evidence import SMOOTHED, Adversarial, Attempt, Question, Store
from lpverify.robustness.judge import Judge
from lpverify.robustness.ladder import LADDER, MethodJob
from lpverify.robustness.ledger import CHUNK, Ledger
from lpverify.robustness.lipschitz.certificate import LipschitzCertifier
from lpverify.robustness.margins import Margins
from lpverify.robustness.plan import Plan
from lpverify.robustness.pool.workers import Outcome, Pool, threads_of
from lpverify.robustness.samples import Samples
from lpverify.robustness.single import FirstPass, SecondPass, work
from lpverify.robustness.smoothing.certifier import SmoothingCertifier
from lpverify.robustness.threat import Threat

LIPSCHITZ = "lipschitz"
COSTS = (*BATCHED, LIPSCHITZ, ATTACK, "lp", "sdp-crown", "sdp", "obbt", "milp", LADDER, SMOOTHED)
METHODS = tuple(name for name in COSTS if name != ATTACK)
TELL_SECONDS = 0.2  # between reports
FLOOR = Fraction(1, 2**12)  # of the largest radius asked about: closer, it does not matter


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Attributes:
        phase: What is going on.
        total: Questions of the phase, or samples.
        proven: Those that are.
        refuted: Those that are.
        tried: Those that are neither, but through.
    """

    phase: str
    total: int
    proven: int = 0
    refuted: int = 0
    tried: int = 0


class ByRadius(Protocol):
    """A method that finds a sample's largest radius without being asked about single ones."""

    @property
    def name(self) -> str:
        """As in `Attempt.method`."""
        ...

    def radii(self, samples: Sequence[int]) -> Sequence[Fraction]:
        """Certified radii of samples, by their indices; 0 where nothing is certified."""
        ...

    def answer(self, questions: Sequence[Question]) -> Iterable[Attempt]:
        """An attempt for each question."""
        ...


@dataclass
class Run:
    """One run; what it finds is in the ledger and in the store.

    Attributes:
        model: The network.
        samples: The data set.
        threat: The threat.
        eps: Radii asked about, ascending.
        methods: Names out of `METHODS`.
        plan: Limits and seeds.
        store: Keeps findings; those that are there already are used.
        report: Called with the status, often.
    """

    model: Model
    samples: Samples
    threat: Threat
    eps: tuple[Fraction, ...]
    methods: tuple[str, ...]
    plan: Plan
    store: Store
    report: Callable[[Status], None] = lambda status: None
    ledger: Ledger = field(init=False)
    _told: float = field(init=False, default=-math.inf)

    def __post_init__(self) -> None:
        self.ledger = Ledger(len(self.samples), self.store)
        self.margins = Margins.of(self.model, self.samples, self.threat, self.plan.config)
        self.judge = Judge(self.model, self.samples, self.threat)

    def go(self) -> None:
        """The schedule.

        Raises:
            UnsupportedError: A method that was asked for can't treat the network.
        """
        self._evaluate()
        for method in self._phases():
            try:
                self._phase(method)
            except UnsupportedError as error:
                if method in self.methods:
                    raise UnsupportedError(f"method {method}: {error}") from None

    def _phases(self) -> tuple[str, ...]:
        """The methods asked for and those whose proofs count for them, from cheap to dear."""
        wanted = set(self.methods).union(*(self._rungs(method) for method in self.methods))
        attack = {ATTACK} if self.plan.attack and wanted != {SMOOTHED} else set()
        return tuple(method for method in COSTS if method in wanted | attack)

    def _rungs(self, method: str) -> tuple[str, ...]:
        """Cheaper methods that are tried before."""
        if method == LADDER:
            ball = () if self.threat.norm == math.inf else ("alpha-crown", LIPSCHITZ)
            return ("ibp", "crown-ibp", "crown", *ball)
        return () if method in (LIPSCHITZ, SMOOTHED) else chain(method)[:-1]

    def _phase(self, method: str) -> None:
        if method == ATTACK:
            self._attack()
            return
        deterministic = tuple(m for m in METHODS if m not in (LADDER, SMOOTHED))
        sources = deterministic if method == LADDER else self._rungs(method)
        self.ledger.adopt(method, sources, self.eps)
        if method == LIPSCHITZ:
            self._by_radius(LipschitzCertifier(self.margins), self.ledger.right())
        elif method == SMOOTHED:
            settings = self.plan.smoothing
            assert settings is not None  # see `Setup`
            certifier = SmoothingCertifier(self.model, self.samples, self.threat, settings)
            self._by_radius(certifier, range(len(self.samples)))
        elif method in BATCHED:
            self._batched(method)
        else:
            self._single(method)

    # Phases

    def _evaluate(self) -> None:
        """Clean predictions."""
        new = [i for i, record in enumerate(self.ledger.records) if record.clean is None]
        for part in slices(len(new), CHUNK):
            self.report(Status("evaluating", len(new), tried=part.start))
            self.ledger.keep(self.judge.clean(new[part]))

    def _attack(self) -> None:
        """Looks for counterexamples at all radii that nothing is known of, and for the nearest ones."""
        attack, records = Attack(self.margins, self.judge, self.plan.seed), self.ledger.records
        self._tell(ATTACK, ATTACK)
        questions = [Question(i, e) for i, record in enumerate(records) for e in unsettled(record, self.eps)]
        self.ledger.keep_all(attack.answer(questions))
        most = self.plan.most
        if most is None:
            return
        untried = [i for i in self.ledger.right() if (ATTACK, most) not in records[i].tried]
        for part in slices(len(untried), CHUNK):
            self.report(Status("nearest counterexamples", len(untried), tried=part.start))
            self._nearest(attack, untried[part], most)

    def _nearest(self, attack: Attack, samples: Sequence[int], most: Fraction) -> None:
        start = time.monotonic()
        found = list(nearest(attack, samples, Deadline().within(self.plan.seconds * len(samples)), most))
        seconds, refuted = (time.monotonic() - start) / len(samples), {a.sample for a in found}
        attempts = [
            Attempt(i, ATTACK, most, "refuted" if i in refuted else "unknown", "nearest", seconds)
            for i in samples
        ]
        self.ledger.keep([*found, *attempts])

    def _by_radius(self, certifier: ByRadius, samples: Sequence[int]) -> None:
        """Methods that find a sample's radius at once; all questions about a sample at the same time."""
        open_ = [(i, radii) for i in samples if (radii := self._asked(certifier.name, i))]
        for part in slices(len(open_), CHUNK):
            self.report(Status(certifier.name, len(open_), tried=part.start))
            some = open_[part]
            found = self._largest(certifier, [i for i, _ in some])
            found += certifier.answer([Question(i, e) for i, radii in some for e in radii])
            self.ledger.keep(found)

    def _asked(self, method: str, sample: int) -> list[Fraction]:
        """The radii that such a method is asked about."""
        record, most = self.ledger.records[sample], self.plan.most
        every = sorted({*self.eps, *([] if most is None else [most])})
        untried = [e for e in every if (method, e) not in record.tried]
        if method == SMOOTHED:  # one run of noise answers all
            return every if untried else []
        proven = None if method in self.methods else proven_by_any(record)
        open_ = [e for e in untried if e == most or record.verdict(method, e) == "unknown"]
        return [e for e in open_ if proven is None or e > proven]

    def _largest(self, certifier: ByRadius, samples: Sequence[int]) -> list[Attempt | Adversarial]:
        """Largest radii, where they are wanted."""
        most, name = self.plan.most, certifier.name
        if most is None:
            return []
        radii = zip(samples, certifier.radii(samples), strict=True)
        return [Attempt(i, name, r, "proven", name, 0.0) for i, r in radii if 0 < r < most]

    def _batched(self, method: str) -> None:
        """Bounds of many samples together, bisecting for all of them at once."""
        certifier, agenda = BatchedBounds(self.margins, method), self._agenda(method)
        while questions := self.ledger.questions(agenda):
            self._tell(method, method)
            self.ledger.keep_all(certifier.answer(questions))

    def _single(self, method: str) -> None:
        """Methods that take the samples one by one."""
        agenda, records = self._agenda(method), self.ledger.records
        open_ = [q.sample for q in self.ledger.questions(agenda)]
        if not open_ and not SecondPass(method, self.eps, records, self.plan).order():
            return
        config = replace(self.plan.config, threads=threads_of(self.plan.jobs))
        model = (self.model.serialized, self.model.path)
        with Pool(MethodJob(*model, self.samples, self.threat, method, config), self.plan.jobs) as pool:
            first = FirstPass(method, agenda, records, self.plan)
            self._work(pool, open_, first, method)
            second = SecondPass(method, self.eps, records, self.plan)
            self._work(pool, second.order(), second, f"{method}, spare time")

    def _work(self, pool: Pool, samples: Sequence[int], turn: FirstPass | SecondPass, phase: str) -> None:
        def keep(outcome: Outcome) -> None:
            self.ledger.keep(outcome.findings)
            turn.settle(outcome)
            self._tell(phase, turn.method)

        self._tell(phase, turn.method)
        work(pool, samples, turn.ask, keep)

    # Bookkeeping

    def _agenda(self, method: str) -> Agenda:
        grid = Grid(method, self.eps, complete=method == LADDER)
        if self.plan.most is None:
            return grid
        return Both(grid, Radius(method, self.plan.most, floor=FLOOR * self.plan.most))

    def _tell(self, phase: str, method: str) -> None:
        now = time.monotonic()
        if now < self._told + TELL_SECONDS:
            return
        self._told = now
        if self.eps:
            self.report(self._status(phase, method))
        else:
            done = sum(self._agenda(method).next(record) is None for record in self.ledger.records)
            self.report(Status(phase, len(self.samples), tried=done))

    def _status(self, phase: str, method: str) -> Status:
        """All questions about given radii by their verdicts."""
        records = self.ledger.records
        verdicts = Counter(r.verdict(method, eps) for r in records for eps in self.eps)
        tried = sum(
            (method, eps) in r.tried and r.verdict(method, eps) == "unknown"
            for r in records
            for eps in self.eps
        )
        return Status(phase, verdicts.total(), verdicts["proven"], verdicts["refuted"], tried)
