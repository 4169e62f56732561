"""The first process of `lpverify verify`: it waits, prints, and answers for a process that crashed.

It forks before anything heavy is imported. The other process does all the work and tells what it finds
(`lpverify.link`). When that process dies of a signal (a segmentation fault, an abort in a native library, the
kernel's out-of-memory killer), or ends without saying so, this one answers `unknown` for every property
without an answer. It passes on SIGINT, SIGTERM and SIGHUP, once. Without `fork` there is one process.
"""

import gc
import os
import signal
import sys
import time
from collections.abc import Callable
from errno import EBADF, EIO
from types import FrameType
from typing import NoReturn

from lpverify.clock import process_start
from lpverify.link import ACKNOWLEDGED_BYTES, ANSWER, FINISH, LENGTH_BYTES, NOTE, SIGNALS, Link

PATIENCE_SECONDS = 2.0  # after a signal; another one kills then
MOST_SECONDS = 10.0  # after a signal, then the process is killed
LAST_SECONDS = 1.0  # after that, then this one ends, too, whatever it does


def entry() -> NoReturn:
    """The console script."""
    gc.disable()  # imports make no garbage, and a collection touches all pages that the processes share
    link = supervised() if sys.argv[1:2] == ["verify"] and hasattr(os, "fork") else None
    from lpverify.cli import entry as work  # noqa: PLC0415  (after the fork, which it would slow down)

    gc.enable()
    work(link)


def supervised() -> Link | None:
    """Forks; returns in the process that is to do the work, None if there is no other one."""
    start = process_start()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        pipes = [_pipe() for _ in range(3)]
        child = os.fork()
    except OSError:  # no more processes or files
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return None
    (up, to_up), (down, to_down), (alive, to_alive) = pipes
    if child:
        for end in (to_up, down, alive):
            os.close(end)
        supervisor = Supervisor(child, up, to_down)
        supervisor.catch(set(SIGNALS) - blocked)
        _end(supervisor.run())
    for end in (up, to_down, to_alive):
        os.close(end)
    return Link(to_up, down, alive, start, set(SIGNALS) - blocked)


def _pipe() -> tuple[int, int]:
    """A pipe clear of the standard streams: where one of those is closed, its number is free."""
    ends = os.pipe()
    while min(ends) <= 2:
        spare, ends = ends, os.pipe()
        for end in spare:
            if end > 2:
                os.close(end)
    return ends


def _end(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            continue
    os._exit(code)


class Supervisor:
    """What the waiting process knows.

    Args:
        child: The process that does the work.
        up: Where its frames come from.
        down: Where error numbers go.

    Attributes:
        answered: How many properties have been.
        code: The exit code if all others are unknown; None before the first answer.
        reports: Of those answered, as JSON.
        finished: Whether the other process said that it is about to end, and whether it left nothing to do.
    """

    def __init__(self, child: int, up: int, down: int) -> None:
        self.child, self.up, self.down = child, up, down
        self.answered = 0
        self.code: int | None = None
        self.reports: list[str] = []
        self.finished: str | None = None
        self.number, self._first, self._killed, self._printing = 0, 0.0, False, False

    def catch(self, numbers: set[signal.Signals]) -> None:
        """Takes over the signals that are not ignored, and lets them through."""
        for number in numbers:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._pass_on)
        signal.signal(signal.SIGALRM, self._kill)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)

    def run(self) -> int:
        """Waits for the other process and returns the exit code."""
        actions: dict[bytes, Callable[[bytes], None]] = {
            ANSWER: self._answer,
            NOTE: self._note,
            FINISH: self._finish,
        }
        while (head := self._read(1 + LENGTH_BYTES)) is not None:
            content = self._read(int.from_bytes(head[1:]))
            if content is None:
                break
            actions[head[:1]](content)
        code = os.waitstatus_to_exitcode(os.waitpid(self.child, 0)[1])
        self.child = 0
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        if self.finished == "":
            return code
        return self._take_over(code)

    def _read(self, count: int) -> bytes | None:
        """So many bytes, or None if they don't come any more."""
        parts = []
        while count:
            part = os.read(self.up, min(count, 2**20))
            if not part:
                return None
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    # Frames

    def _answer(self, content: bytes) -> None:
        number, self._printing = 0, True
        try:
            print_bytes(content)
            self.answered += 1
        except OSError as error:
            number = error.errno or EIO
        self._printing = False
        try:
            os.write(self.down, number.to_bytes(ACKNOWLEDGED_BYTES))
        except OSError:
            return  # it died meanwhile; the answer stands

    def _note(self, content: bytes) -> None:
        self.code = content[0]
        if len(content) > 1:
            self.reports.append(content[1:].decode(errors="surrogateescape"))

    def _finish(self, content: bytes) -> None:
        self.finished = content.decode()

    # Signals

    def _pass_on(self, number: int, frame: FrameType | None) -> None:
        now = time.monotonic()
        if not self.number:
            self.number, self._first = number, now
            most = PATIENCE_SECONDS if self._printing else MOST_SECONDS
            signal.setitimer(signal.ITIMER_REAL, most, LAST_SECONDS)
            self._send(signal.Signals(number))
        elif (
            now - self._first > PATIENCE_SECONDS
        ):  # sooner, it is the same one: to the process and to its group
            self._kill(number, frame)

    def _kill(self, number: int, frame: FrameType | None) -> None:
        """Ends the other process; the second time this one, which is stuck in printing."""
        if self._killed:
            os._exit(128 + self.number)
        self._killed = True
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.child:  # a process that was waited for has no number any more
            os.kill(self.child, number)

    # After a crash

    def _take_over(self, code: int) -> int:
        """Answers for what is left and returns the exit code."""
        from lpverify.cli import give_up  # noqa: PLC0415  (as late as possible)
        from lpverify.output import Remains  # noqa: PLC0415

        interrupted = self.number > 0
        reason = "interrupted" if interrupted else self.finished or _death(code)
        found = give_up(sys.argv[1:], Remains(reason, self.answered, self.code, self.reports, interrupted))
        return 128 + self.number if interrupted else found


def _death(code: int) -> str:
    if code >= 0:
        return f"the verifier process ended with exit code {code} and no answer"
    if code == -signal.SIGKILL:
        return "the verifier process was killed by signal 9 (out of memory?)"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"the verifier process was killed by signal {-code} ({name})"


def print_bytes(content: bytes) -> None:
    """Writes to stdout at once.

    Raises:
        OSError: That failed, or stdout is closed.
    """
    if sys.stdout is None:
        raise OSError(EBADF, "stdout is closed")
    stdout, left = sys.stdout.fileno(), memoryview(content)
    while left:
        try:
            left = left[os.write(stdout, left) :]
        except BlockingIOError:  # someone else made it so
            time.sleep(0.01)
