"""The tables of an SQLite store: how each kind of finding is written to one and read from it, exactly."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeAlias

import numpy as np

from lpverify.errors import InputError
from lpverify.robustness.evidence import Adversarial, Attempt, Clean, Finding, Verdict

PAGE = 64  # rows read at once; points may be large
VERDICTS: dict[str, Verdict] = {"proven": "proven", "refuted": "refuted", "unknown": "unknown"}

Row: TypeAlias = tuple[Any, ...]


@dataclass(frozen=True)
class Table:
    """How one kind of finding is kept.

    Columns of floats have no declared type: SQLite keeps all bits of a float there, with one it drops the
    sign of zero. NaN is kept as NULL.

    Attributes:
        name: Of the table.
        columns: After `number`, which counts findings in the order added.
        key: The columns that tell findings apart.
        clash: What happens to one with the same key.
        row: From a finding to its columns.
        finding: The inverse.
    """

    name: str
    columns: str
    key: str
    clash: str
    row: Callable[[Any], Row]
    finding: Callable[..., Finding]

    @property
    def names(self) -> list[str]:
        """Of the columns after `number`."""
        return [column.split()[0] for column in self.columns.split(", ")]

    @property
    def create(self) -> str:
        """The statement that makes the table."""
        return f"CREATE TABLE {self.name} (number INTEGER PRIMARY KEY, {self.columns}, UNIQUE ({self.key}))"

    @property
    def insert(self) -> str:
        """The statement that keeps a finding."""
        places = ", ".join("?" * (1 + len(self.names)))
        return f"INSERT INTO {self.name} VALUES ({places}) ON CONFLICT ({self.key}) DO {self.clash}"

    @property
    def page(self) -> str:
        """The statement that reads the next findings after a number."""
        return f"SELECT * FROM {self.name} WHERE number > ? ORDER BY number LIMIT {PAGE}"


def _last_wins(columns: str) -> str:
    return "UPDATE SET " + ", ".join(f"{c} = excluded.{c}" for c in ("number", *columns.split()))


def _clean_row(found: Clean) -> Row:
    return int(found.sample), int(found.predicted), int(found.correct), float(found.margin)


def _clean(sample: int, predicted: int, correct: int, margin: float | None) -> Clean:
    return Clean(sample, predicted, bool(correct), _float(margin))


def _attempt_row(found: Attempt) -> Row:
    key = (int(found.sample), _encodable(found.method), _ratio(found.eps))
    words = (_encodable(found.stage), _encodable(found.reason))
    return *key, found.verdict, float(found.seconds), float(found.margin), *words


def _attempt(
    sample: int,
    method: str,
    eps: str,
    verdict: str,
    seconds: float | None,
    margin: float | None,
    stage: str,
    reason: str,
) -> Attempt:
    known = (Fraction(eps), VERDICTS[verdict], stage, _float(seconds), reason, _float(margin))
    return Attempt(sample, method, *known)


def _adversarial_row(found: Adversarial) -> Row:
    point = point_bytes(found.point)
    about = (int(found.predicted), _ratio(found.distance), _encodable(found.source))
    return int(found.sample), hashlib.sha256(point).digest(), *about, point


def _adversarial(
    sample: int, digest: bytes, predicted: int, distance: str, source: str, point: bytes
) -> Adversarial:
    if hashlib.sha256(point).digest() != digest:
        raise ValueError("a point does not have its hash")
    values = np.frombuffer(point, "<f8").astype(np.float64)
    return Adversarial(sample, values, predicted, Fraction(distance), source)


def _float(value: float | None) -> float:
    return float("nan") if value is None else float(value)


def point_bytes(point: np.ndarray) -> bytes:
    """All bits of a point, the same on every machine."""
    return np.ascontiguousarray(point, "<f8").tobytes()


def _ratio(value: Fraction) -> str:
    try:
        return f"{value.numerator}/{value.denominator}"
    except ValueError:  # Python's limit on digits
        raise InputError("a radius with thousands of digits can't be kept") from None


def _encodable(text: str) -> str:
    """Names of files in reasons may have bytes that are no text."""
    return text.encode(errors="backslashreplace").decode()


TABLES: dict[type, Table] = {
    Clean: Table(
        "clean",
        "sample INTEGER, predicted INTEGER, correct INTEGER, margin",
        "sample",
        _last_wins("predicted correct margin"),
        _clean_row,
        _clean,
    ),
    Attempt: Table(
        "attempts",
        "sample INTEGER, method TEXT, eps TEXT, verdict TEXT, seconds, margin, stage TEXT, reason TEXT",
        "sample, method, eps",
        _last_wins("verdict seconds margin stage reason")
        + " WHERE excluded.verdict <> 'unknown' OR attempts.verdict = 'unknown'",
        _attempt_row,
        _attempt,
    ),
    Adversarial: Table(
        "counterexamples",
        "sample INTEGER, digest BLOB, predicted INTEGER, distance TEXT, source TEXT, point BLOB",
        "sample, digest",
        "NOTHING",
        _adversarial_row,
        _adversarial,
    ),
}
