"""Acts in time: at the limit, on Ctrl-C, on SIGTERM, also while the main thread is in C code.

A daemon thread waits for the limit and for the bytes that Python's C signal handler writes to a pipe
(`signal.set_wakeup_fd`); it needs the interpreter lock only to act, so C code that holds the lock for
long delays it. Two threads may want to answer: `claim` lets one of them do so, the first. A main thread that
has more to do after its answer gives the claim back with `resume`.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable

_IMPORTED = time.monotonic()
MOST_STARTUP_SECONDS = 10.0  # an older process is one that replaced another by exec
LAST_WORDS_SECONDS = 1.0  # how long a signal waits for a main thread that is already answering
WAIT_SECONDS = 3600.0
TICK_SECONDS = 0.2
SIGNALS = (signal.SIGINT, signal.SIGTERM)


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


class Watchdog:
    """Answers in place of the main thread when that is not ready.

    Args:
        end: When, on the monotonic clock; `conclude` may set the attribute, others use `resume`.
        conclude: Answers and returns the exit code, or None if the process goes on until a new `end`; gets
            the number of the signal, 0 at the limit.
        tick: Called several times a second until then, if given.
    """

    def __init__(
        self, end: float, conclude: Callable[[int], int | None], tick: Callable[[], None] | None = None
    ) -> None:
        self.end, self.conclude, self.tick = end, conclude, tick
        self._claimed = threading.Lock()
        self._reader = self._writer = -1

    def claim(self) -> None:
        """Returns when the main thread is the one to answer; never if the process is about to end."""
        self._claimed.acquire()
        self.end = float("inf")

    def resume(self, end: float) -> None:
        """Gives the claim back and waits for a new limit."""
        self.end = end
        self._claimed.release()
        if self._writer >= 0:
            with contextlib.suppress(BlockingIOError):  # a full pipe wakes the thread as well
                os.write(self._writer, b"\0")

    def start(self) -> None:
        """Takes over the signals and starts the thread; call it in the main thread."""
        if os.name == "posix":
            self._reader, self._writer = os.pipe()
            os.set_blocking(self._writer, False)
            signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._on_signal)
        threading.Thread(target=self._run, name="watchdog", daemon=True).start()

    def _on_signal(self, number: int, frame: object) -> None:
        if self._reader < 0:  # without a pipe the main thread has to do it, when it gets there
            self._end_process(number)

    def _run(self) -> None:
        while True:
            left = min(self.end - time.monotonic(), WAIT_SECONDS if self.tick is None else TICK_SECONDS)
            number = self._wait(max(left, 0.0))
            if number or time.monotonic() >= self.end:
                self._end_process(number)
            elif self.tick is not None:
                self.tick()

    def _wait(self, seconds: float) -> int:
        """The signal that came within that time, or 0."""
        if self._reader < 0:
            time.sleep(min(seconds, TICK_SECONDS))  # nothing wakes it when `end` changes
            return 0
        ready, _, _ = select.select([self._reader], [], [], seconds)
        number = os.read(self._reader, 1)[0] if ready else 0
        return number if number in SIGNALS else 0

    def _end_process(self, number: int) -> None:
        """Answers and ends the process; returns if the main thread is answering, or if it has to go on."""
        if not self._claimed.acquire(timeout=LAST_WORDS_SECONDS if number else 0.0):
            if number:
                os._exit(128 + number)
            return
        if number or time.monotonic() >= self.end:  # else the main thread answered and resumed meanwhile
            code: int | None = 70
            try:
                code = self.conclude(number)
            finally:
                if code is not None:
                    os._exit(code)
        self._claimed.release()
