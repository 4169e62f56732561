"""When this process started; light, as the supervisor needs it before anything else is imported."""

import os
import time

_IMPORTED = time.monotonic()
MOST_STARTUP_SECONDS = 10.0  # an older process is one that replaced another by exec


def process_start() -> float:
    """When this process started, on the monotonic clock.

    Linux tells (to 10 ms, never too late); elsewhere it is the import of this module.
    """
    try:
        with open("/proc/self/stat", "rb") as file:
            ticks = int(file.read().rpartition(b")")[2].split()[19])
        age = time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError, ValueError, IndexError):
        return _IMPORTED
    return time.monotonic() - age if 0.0 <= age <= MOST_STARTUP_SECONDS else _IMPORTED
