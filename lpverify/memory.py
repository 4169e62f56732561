"""How much memory there is, and how much of it this process holds.

Linux tells both; elsewhere there is no budget. A control group's limit counts where it is below the
machine's memory, in version 1 and 2 of the interface.
"""

import contextlib
import os
import re
from collections.abc import Callable
from decimal import Decimal
from importlib.util import find_spec

SHARE = 0.9  # of what there is, if nothing else is wished
MARGIN_SHARE, MARGIN_BYTES = (
    0.25,
    2**30,
)  # address space beyond the budget: stacks, pools, pages never touched
_UNITS = {"": 0, "k": 1, "m": 2, "g": 3, "t": 4}
_UNLIMITED = 2**60
_V1, _V2 = "/sys/fs/cgroup/memory{}/memory.limit_in_bytes", "/sys/fs/cgroup{}/memory.max"


def parse_size(text: str) -> int:
    """Bytes that a size such as `4G`, `1.5GiB` or `500MB` stands for; only `KB`, `MB`... are powers of 1000.

    Raises:
        ValueError: It is none, or no whole byte.
    """
    match = re.fullmatch(
        r"(\d{1,20}(?:\.\d{1,20})?) ?([kmgt]?)(i?b)?", text.strip(), re.IGNORECASE | re.ASCII
    )
    if match is None:
        raise ValueError(f"{text!r} is not a size")
    number, unit, suffix = match[1], match[2].lower(), (match[3] or "").lower()
    if suffix == "ib" and not unit:
        raise ValueError(f"{text!r} is not a size")
    size = int(Decimal(number) * (1000 if suffix == "b" else 1024) ** _UNITS[unit])
    if size < 1:
        raise ValueError(f"{text!r} is less than a byte")
    return size


class Budget:
    """How much memory a process may hold.

    Args:
        wanted: In bytes; None stands for a share of what there is.

    Attributes:
        size: In bytes; None if it isn't known.
        guard: Whether the process holds more now; None if that can't be told.
    """

    def __init__(self, wanted: int | None = None) -> None:
        self.size = default_budget() if wanted is None else wanted
        known = self.size is not None and resident() is not None
        self.guard: Callable[[], bool] | None = self._exceeded if known else None

    def __str__(self) -> str:
        size = self.size or 0
        return f"{size / 2**30:.3g} GiB" if size >= 2**30 else f"{size / 2**20:.4g} MiB"

    def limit_allocations(self) -> None:
        """Lets allocations fail that would go far beyond the budget, so that they end as MemoryError.

        Not where there is an NVIDIA GPU: CUDA reserves much more address space than it uses.
        """
        if self.size is None or find_spec("resource") is None or os.path.exists("/dev/nvidiactl"):
            return
        import resource  # noqa: PLC0415  (not on Windows)

        wanted = self.size + int(MARGIN_SHARE * self.size) + MARGIN_BYTES
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        ends = [end for end in (soft, hard) if end != resource.RLIM_INFINITY]
        with contextlib.suppress(OSError, ValueError):  # the guard is still there
            resource.setrlimit(resource.RLIMIT_DATA, (min([wanted, *ends]), hard))

    def _exceeded(self) -> bool:
        return (resident() or 0) > (self.size or 0)


def default_budget() -> int | None:
    """A share of what the machine or its control group offers; None where that isn't known."""
    found = [size for size in (_machine(), _group()) if size is not None]
    return int(SHARE * min(found)) if found else None


def resident() -> int | None:
    """Bytes of memory that this process holds now; None where the system doesn't tell."""
    try:
        with open("/proc/self/statm", "rb") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        return None


def _machine() -> int | None:
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _group(membership: str = "/proc/self/cgroup", v1: str = _V1, v2: str = _V2) -> int | None:
    """The tightest limit of the control groups that this process is in, and of those above them."""
    try:
        with open(membership, encoding="utf-8", errors="surrogateescape") as file:
            lines = [line.rstrip("\n").split(":", 2) for line in file]
    except OSError:
        return None
    found = []
    for _, controllers, group in (line for line in lines if len(line) == 3):
        if controllers in ("", "memory") or "memory" in controllers.split(","):
            pattern = v1 if controllers else v2
            found += [_limit(pattern.format(path)) for path in _and_above(group)]
    return min((size for size in found if size is not None), default=None)


def _and_above(group: str) -> list[str]:
    """A group and those that contain it, each with a leading slash; that of the root is empty."""
    parts = [part for part in group.split("/") if part]
    return ["".join(f"/{part}" for part in parts[:count]) for count in range(len(parts) + 1)]


def _limit(path: str) -> int | None:
    try:
        with open(path, encoding="ascii") as file:
            size = int(file.read())  # "max" is none
    except (OSError, ValueError):
        return None
    return size if 0 < size < _UNLIMITED else None
