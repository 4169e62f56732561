"""The JSON reports of one `lpverify verify`: gathered beside the work, written as a whole."""

import argparse
import contextlib
import os
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from lpverify.io.results import Answer, ReportFile, report, report_text
from lpverify.task import Task

if TYPE_CHECKING:
    from lpverify.provenance import Provenance

OPTIONS = (
    *("timeout", "memory", "check_import", "record_proof", "recheck", "exit_status", "quiet", "verbose"),
    *("lenient", "strict", "method", "device"),
)


class Reports:
    """Of all properties of one command; does nothing without `--json`.

    Args:
        args: The options.
        queries: The files of the properties.

    Raises:
        InputError: The file can't be written.
    """

    def __init__(self, args: argparse.Namespace, queries: Sequence[str]) -> None:
        self.args, self.queries = args, queries
        self.provenance: Provenance | None = None
        self._unsaved: list[dict[str, object]] = []
        self._file = None if args.json is None else ReportFile(args.json, self._several)
        if self._file is not None:
            self._file.check()

    @property
    def _several(self) -> bool:
        return len(self.queries) > 1

    def gather(self, models: Sequence[str]) -> None:
        """Starts to gather versions and hashes; those of several properties are taken as they are read."""
        if self._file is None:
            return
        from lpverify.provenance import Provenance  # noqa: PLC0415  (only with a report)

        files = {"network" if i == 0 else f"network {i + 1}": path for i, path in enumerate(models)}
        self.provenance = Provenance(files | ({} if self._several else {"query": self.queries[0]}))
        self.provenance.start()

    def hashed(self, task: Task) -> dict[str, dict[str, str | None]]:
        """The property's file with its hash."""
        if self._file is None:
            return {}
        from lpverify.provenance import sha256  # noqa: PLC0415

        found: dict[str, str | None] = {"path": task.path, "sha256": None}
        with contextlib.suppress(OSError):
            if os.path.isfile(task.path):  # a pipe can't be read twice
                found["sha256"] = sha256(task.path)
        return {"query": found}

    def adopt(self, reports: Sequence[str]) -> None:
        """Takes over those of a process that is gone."""
        if self._several and self._file is not None:
            self._file.adopt(reports)

    def add(self, answer: Answer, task: Task) -> str:
        """Keeps the report of a property for `save`; returns it as JSON, empty without `--json`."""
        if self._file is None:
            return ""
        self._unsaved.append(report(answer, **self._facts(task)))
        return report_text(self._unsaved[-1])

    def save(self, last: bool) -> None:
        """Writes the file.

        Args:
            last: Whether all properties have been answered; what is no plain file is written only then.

        Raises:
            OSError: That failed.
        """
        unsaved, file = self._unsaved, self._file
        if file is None or (file.direct and not last):  # what's there stays there
            return
        self._unsaved = []
        file.write(*unsaved)

    def _facts(self, task: Task) -> dict[str, object]:
        """What a report says beside the answer."""
        from lpverify.provenance import peak_mb  # noqa: PLC0415

        facts: dict[str, object] = {"query": task.path} if self._several else {}
        facts |= {
            "semantics": "real" if task.query is None else task.query.semantics,
            "vnnlib_version": None if task.query is None else task.query.version,
            "rechecked_leaves": task.rechecked,
            "seconds": task.seconds(),
            "peak_mb": peak_mb(),
            "seed": self.args.seed,
        }
        if self.provenance is not None:
            self.provenance.wait(min(5.0, task.end - time.monotonic() - 0.02))
            facts |= {"versions": self.provenance.versions, "files": self.provenance.files | task.files}
        return facts | {"options": {name: getattr(self.args, name) for name in OPTIONS}}
