"""All findings of a run: in the store, and by sample."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction

from lpverify.robustness.agenda import Agenda
from lpverify.robustness.evidence import Attempt, Finding, Question, Record, Store, records_of

CHUNK = 64  # findings that are kept at a time


class Ledger:
    """What is known; what is kept here is in the store.

    Args:
        count: Samples.
        store: With what earlier runs found.

    Attributes:
        records: By sample.
    """

    def __init__(self, count: int, store: Store) -> None:
        self.store = store
        self.records: list[Record] = records_of(count, store.findings())

    def keep(self, findings: Sequence[Finding]) -> None:
        """Some of them, all or none."""
        self.store.add(findings)
        for finding in findings:
            self.records[finding.sample].add(finding)

    def keep_all(self, findings: Iterable[Finding]) -> None:
        """As they come, a few at a time: what is kept survives.

        Where an exception ends them, those before it are kept, too.
        """
        waiting: list[Finding] = []
        try:
            for finding in findings:
                waiting.append(finding)
                if len(waiting) == CHUNK:
                    some, waiting = waiting, []
                    self.keep(some)
        finally:
            if waiting:
                self.keep(waiting)

    def questions(self, agenda: Agenda) -> list[Question]:
        """The next question about each sample that has one."""
        asked = ((i, agenda.next(record)) for i, record in enumerate(self.records))
        return [Question(i, eps) for i, eps in asked if eps is not None]

    def right(self) -> list[int]:
        """Samples that are classified correctly."""
        return [i for i, r in enumerate(self.records) if r.clean is not None and r.clean.correct]

    def adopt(self, method: str, sources: Sequence[str], eps: Sequence[Fraction]) -> None:
        """Proofs by cheaper methods become proofs by this one, at the seconds that they took.

        Args:
            method: Name.
            sources: Whose proofs count, from cheap to dear.
            eps: Radii at which they are wanted; beside these the furthest one is.
        """
        found = (_adopted(record, method, sources, eps) for record in self.records)
        self.keep_all([a for attempts in found for a in attempts])


def _adopted(
    record: Record, method: str, sources: Sequence[str], eps: Sequence[Fraction]
) -> Iterator[Attempt]:
    """The proofs of a sample that a method takes over, see `Ledger.adopt`."""
    proofs = [a for source in sources for a in record.proofs.get(source, ())]
    furthest = max(proofs, key=lambda a: a.eps, default=None)
    known = {a.eps for a in record.proofs.get(method, ())}
    for proof in proofs:
        if proof.eps not in known and (proof is furthest or proof.eps in eps):
            known.add(proof.eps)
            yield replace(proof, method=method)
