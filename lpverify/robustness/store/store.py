"""Where findings are kept: in memory, or in an SQLite file that survives the process, however it ends.

A transaction holds a whole call of `add`. The file is in WAL mode with full synchronisation, and one process
has it at a time: the lock is the kernel's, so it goes when the process does. Nothing but SQLite opens the
file, because closing any other descriptor of it would drop that lock (POSIX).
"""

import os
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from heapq import merge
from operator import itemgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from lpverify.errors import InputError
from lpverify.robustness.evidence import Adversarial, Attempt, Clean, Finding
from lpverify.robustness.store.tables import TABLES, Table, point_bytes

SCHEMA = 1  # version of the tables below
APPLICATION = 0x6C707673  # what SQLite's header says whose file it is: "lpvs"
SMALLEST_BYTES = 512  # a page of SQLite; it takes some smaller files for new ones
SHOWN_LENGTH = 24  # of a fingerprint's values in messages

FINGERPRINT = "CREATE TABLE fingerprint (key TEXT PRIMARY KEY, value TEXT)"
STATEMENTS = frozenset([FINGERPRINT, *(table.create for table in TABLES.values())])


class MemoryStore:
    """Keeps findings as long as the process lives; the same rules as `SqliteStore`."""

    def __init__(self) -> None:
        self._kept: dict[tuple[Any, ...], Finding] = {}

    def add(self, findings: Sequence[Finding]) -> None:
        """Keeps them, all or none.

        Of findings about the same question the last one stays, but `unknown` does not displace an answer;
        a counterexample that is known already is not kept again.
        """
        for key, finding in [(_key(f), f) for f in findings]:
            old = self._kept.get(key)
            if old is None or _displaces(finding, old):
                self._kept.pop(key, None)  # to the end
                self._kept[key] = finding

    def findings(self) -> Iterator[Finding]:
        """Everything kept so far, oldest first."""
        return iter(list(self._kept.values()))

    def close(self) -> None:
        """Does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _key(finding: Finding) -> tuple[Any, ...]:
    if isinstance(finding, Clean):
        return Clean, finding.sample
    if isinstance(finding, Attempt):
        return Attempt, finding.sample, finding.method, finding.eps
    return Adversarial, finding.sample, point_bytes(finding.point)


def _displaces(new: Finding, old: Finding) -> bool:
    if isinstance(new, Attempt) and isinstance(old, Attempt):
        return new.verdict != "unknown" or old.verdict == "unknown"
    return isinstance(new, Clean)


class SqliteStore:
    """Keeps findings in a file; a run that was ended goes on where it was.

    What `add` returned from is there after SIGKILL; of a call that was cut off, all or nothing is.

    Args:
        path: The file; made if it is missing or empty.
        fingerprint: What must be the same for findings to be about the same questions: hashes of model and
            samples, norm, range, rivals, seeds. Of a file that is there it is compared.

    Raises:
        InputError: The file belongs to another run, is no store, is damaged, in use by another process, or
            can't be written. It is left as it was.
    """

    def __init__(self, path: str | os.PathLike[str], fingerprint: Mapping[str, str]) -> None:
        self.path = os.fspath(path)
        absolute = Path(os.path.abspath(self.path))  # not a name that SQLite takes for something else
        if not absolute.parent.is_dir():
            raise InputError(f"{self.path}: there is no folder {absolute.parent}")
        if absolute.exists() and not absolute.is_file():
            raise InputError(f"{self.path}: not a file")
        if absolute.exists() and 0 < absolute.stat().st_size < SMALLEST_BYTES:
            raise InputError(f"{self.path}: not a store of lpverify")
        self._number = 0
        with self._explained():
            self._connection = sqlite3.connect(absolute, timeout=0, isolation_level=None)
            try:
                self._open(fingerprint)
            except BaseException:
                self._connection.close()
                raise

    def _open(self, fingerprint: Mapping[str, str]) -> None:
        for pragma in ("trusted_schema=OFF", "locking_mode=EXCLUSIVE", "synchronous=FULL"):
            self._connection.execute(f"PRAGMA {pragma}")
        with self._transaction("EXCLUSIVE"):
            if self._blank():
                self._create(fingerprint)
            else:
                self._check_kind()
                self._check_fingerprint(fingerprint)
            self._number = max(self._last(table) for table in TABLES.values())
        self._connection.execute("PRAGMA journal_mode=WAL")  # changes the file, so not before it is known

    def _value(self, query: str) -> Any:
        return self._connection.execute(query).fetchone()[0]

    def _blank(self) -> bool:
        """Also the file that a process left that was killed while it made the store."""
        marks = (self._value("PRAGMA application_id"), self._value("PRAGMA user_version"))
        return marks == (0, 0) and not self._value("SELECT count(*) FROM sqlite_master")

    def _create(self, fingerprint: Mapping[str, str]) -> None:
        self._connection.execute(f"PRAGMA application_id={APPLICATION}")
        self._connection.execute(f"PRAGMA user_version={SCHEMA}")
        for statement in sorted(STATEMENTS):
            self._connection.execute(statement)
        self._connection.executemany("INSERT INTO fingerprint VALUES (?, ?)", list(fingerprint.items()))

    def _check_kind(self) -> None:
        if self._value("PRAGMA application_id") != APPLICATION:
            raise InputError(f"{self.path}: a database of another program, not a store of lpverify")
        version = self._value("PRAGMA user_version")
        if version != SCHEMA:
            age = "a newer" if version > SCHEMA else "another"
            raise InputError(
                f"{self.path}: written by {age} lpverify (version {version} of the tables, "
                f"this one knows {SCHEMA}); use another store"
            )
        found = self._connection.execute(
            "SELECT sql FROM sqlite_master WHERE name NOT LIKE 'sqlite\\_%' ESCAPE '\\'"
        )
        if {sql for (sql,) in found} != STATEMENTS:
            raise InputError(f"{self.path}: the tables are not those of a store; it is damaged")
        if self._value("PRAGMA quick_check(1)") != "ok":
            raise InputError(f"{self.path}: damaged")

    def _check_fingerprint(self, fingerprint: Mapping[str, str]) -> None:
        kept = dict(self._connection.execute("SELECT key, value FROM fingerprint").fetchall())
        for key in sorted({*kept, *fingerprint}):
            there, here = kept.get(key), fingerprint.get(key)
            if there != here:
                raise InputError(
                    f"{self.path} belongs to another run: {key} differs ({_shown(there)} there, "
                    f"{_shown(here)} now); use another store"
                )

    def _last(self, table: Table) -> int:
        return int(self._value(f"SELECT coalesce(max(number), 0) FROM {table.name}"))

    def add(self, findings: Sequence[Finding]) -> None:
        """Keeps them, all or none, before it returns.

        Of findings about the same question the last one stays, but `unknown` does not displace an answer;
        a counterexample that is known already is not kept again.

        Raises:
            InputError: The file can't be written (any more); none of them is kept.
        """
        rows = [(table := TABLES[type(f)], table.row(f)) for f in findings]
        if not rows:
            return
        with self._explained(), self._transaction("IMMEDIATE"):
            for table, row in rows:
                self._number += 1
                self._connection.execute(table.insert, (self._number, *row))

    def findings(self) -> Iterator[Finding]:
        """Everything kept so far, oldest first; what is added meanwhile may or may not be among it.

        Raises:
            InputError: The file can't be read (any more), or is damaged.
        """
        for _, finding in merge(*map(self._numbered, TABLES.values()), key=itemgetter(0)):
            yield finding

    def _numbered(self, table: Table) -> Iterator[tuple[int, Finding]]:
        last = 0
        while page := self._page(table, last):
            yield from page
            last = page[-1][0]

    def _page(self, table: Table, after: int) -> list[tuple[int, Finding]]:
        with self._explained():
            rows = self._connection.execute(table.page, (after,)).fetchall()
        try:
            return [(int(row[0]), table.finding(*row[1:])) for row in rows]
        except (ValueError, TypeError, KeyError, ArithmeticError) as error:
            raise InputError(f"{self.path}: damaged ({table.name}: {error})") from None

    def close(self) -> None:
        """Lets go of the file; more than once does no harm."""
        with self._explained():
            self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @contextmanager
    def _transaction(self, kind: str) -> Iterator[None]:
        self._connection.execute(f"BEGIN {kind}")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # not after errors that SQLite answers with a rollback itself
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns SQLite's errors into ours."""
        try:
            yield
        except sqlite3.Error as error:
            raise InputError(f"{self.path}: {_words(error)}") from None


def _words(error: sqlite3.Error) -> str:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the rest tells details
    known = {
        sqlite3.SQLITE_BUSY: "in use by another process, or by another store of this one",
        sqlite3.SQLITE_NOTADB: "not a store of lpverify",
        sqlite3.SQLITE_CORRUPT: "damaged",
        sqlite3.SQLITE_FULL: "the disk is full",
        sqlite3.SQLITE_READONLY: "can't be written",
        sqlite3.SQLITE_CANTOPEN: "can't be opened for writing",
    }
    return known.get(code) or " ".join(str(error).split())


def _shown(value: str | None) -> str:
    if value is None:
        return "nothing"
    return repr(value if len(value) <= SHOWN_LENGTH else value[: SHOWN_LENGTH - 3] + "...")
