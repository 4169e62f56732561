"""Acts in time: at the limit, on Ctrl-C, SIGTERM and SIGHUP, when memory runs short, also during C code.

A daemon thread waits for the limit and for the bytes that Python's C signal handler writes to a pipe
(`signal.set_wakeup_fd`); it needs the interpreter lock only to act, so C code that holds the lock for
long delays it. Two threads may want to answer: `claim` lets one of them do so, the first. A main thread that
has more to do after its answer gives the claim back with `resume`. When the supervisor is gone, the thread
ends the process at once: nobody is left to answer to.
"""

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable

from lpverify.link import SIGNALS

LAST_WORDS_SECONDS = 1.0  # how long a signal waits for a main thread that is already answering
WAIT_SECONDS = 3600.0
TICK_SECONDS = 0.2
MEMORY = -1  # in place of a signal's number
ORPHANED = 128 + 9  # exit code when the supervisor is gone, which only SIGKILL does


class Watchdog:
    """Answers in place of the main thread when that is not ready.

    Args:
        end: When, on the monotonic clock; `conclude` may set the attribute, others use `resume`.
        conclude: Answers and returns the exit code, or None if the process goes on until a new `end`; gets
            the number of the signal, 0 at the limit, or `MEMORY`.
        tick: Called several times a second until then, if given.
        full: Whether too much memory is held; asked several times a second, if given.
        alive: A pipe that ends when the supervisor does; -1 if there is none.
    """

    def __init__(
        self,
        end: float,
        conclude: Callable[[int], int | None],
        tick: Callable[[], None] | None = None,
        full: Callable[[], bool] | None = None,
        alive: int = -1,
    ) -> None:
        self.end, self.conclude, self.tick, self.full, self.alive = end, conclude, tick, full, alive
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
        idle = self.tick is None and self.full is None
        while True:
            left = min(self.end - time.monotonic(), WAIT_SECONDS if idle else TICK_SECONDS)
            number = self._wait(max(left, 0.0))
            if number or time.monotonic() >= self.end:
                self._end_process(number)
            elif self.full is not None and self.full():
                self._end_process(MEMORY)
            elif self.tick is not None:
                self.tick()

    def _wait(self, seconds: float) -> int:
        """The signal that came within that time, or 0."""
        if self._reader < 0:
            time.sleep(min(seconds, TICK_SECONDS))  # nothing wakes it when `end` changes
            return 0
        pipes = [self._reader] if self.alive < 0 else [self._reader, self.alive]
        ready, _, _ = select.select(pipes, [], [], seconds)
        if self.alive in ready:
            os._exit(ORPHANED)
        number = os.read(self._reader, 1)[0] if ready else 0
        return number if number in SIGNALS else 0

    def _end_process(self, number: int) -> None:
        """Answers and ends the process; returns if the main thread is answering, or if it has to go on."""
        if not self._claimed.acquire(timeout=LAST_WORDS_SECONDS if number > 0 else 0.0):
            if number > 0:
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
