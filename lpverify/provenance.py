"""What a report needs to be repeatable: hashes of the files, versions, memory."""

import hashlib
import importlib.metadata
import platform
import sys
import threading
from collections.abc import Mapping
from importlib.util import find_spec

PACKAGES = ("lpverify", "numpy", "onnx", "onnxruntime", "highspy")


def versions() -> dict[str, str]:
    """Versions of lpverify, Python and the installed packages that verdicts depend on."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def sha256(path: str) -> str:
    """Hash of a file as it is on the disk, hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def peak_mb() -> float | None:
    """Largest memory of this process so far, or of one it waited for, in MiB; None if that is not known."""
    if find_spec("resource") is None:
        return None
    import resource  # noqa: PLC0415  (not on Windows)

    scale = 2**20 if sys.platform == "darwin" else 2**10
    who = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    return round(max(resource.getrusage(w).ru_maxrss for w in who) / scale, 1)


class Provenance:
    """Gathers hashes and versions in the background.

    Args:
        paths: Files by their role.
    """

    def __init__(self, paths: Mapping[str, str]) -> None:
        self.files: dict[str, dict[str, str | None]] = {
            role: {"path": path, "sha256": None} for role, path in paths.items()
        }
        self.versions: dict[str, str] = {}
        self._thread = threading.Thread(target=self._gather, daemon=True)

    def start(self) -> None:
        """Starts to gather."""
        self._thread.start()

    def wait(self, seconds: float) -> None:
        """Waits that long for what is missing; it stays None or absent after that."""
        if self._thread.ident is not None:
            self._thread.join(max(0.0, seconds))

    def _gather(self) -> None:
        self.versions = versions()
        for entry in self.files.values():
            try:
                entry["sha256"] = sha256(entry["path"] or "")
            except (OSError, MemoryError):
                continue
