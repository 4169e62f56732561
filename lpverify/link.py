"""How a supervised process talks to its supervisor (`lpverify.supervisor`).

Frames go up: one byte that tells the kind, eight that tell the length, then so many bytes. The supervisor
writes an answer to stdout once it has all of it, and sends back the error number, 0 for none. So an answer is
printed whole or not at all, and both sides agree on which, wherever a crash comes between. A third pipe is
never written to: it ends when the supervisor does.

Light: what is imported before the fork makes the fork slower.
"""

import os
import signal
from collections.abc import Iterable

SIGNALS = tuple(s for s in signal.Signals if s.name in ("SIGINT", "SIGTERM", "SIGHUP"))  # that end it
ANSWER, NOTE, FINISH = b"A", b"N", b"F"
LENGTH_BYTES = 8
ACKNOWLEDGED_BYTES = 2


def frame(kind: bytes, content: bytes) -> bytes:
    """What is sent for some content."""
    return kind + len(content).to_bytes(LENGTH_BYTES) + content


class Link:
    """The end of the process that does the work.

    Args:
        up: Where frames are written.
        down: Where error numbers come from.
        alive: Ends when the supervisor does; for `select`.
        start: When the first of both processes started, on the monotonic clock.
        blocked: Signals that wait until `listen`.
    """

    def __init__(self, up: int, down: int, alive: int, start: float, blocked: Iterable[int]) -> None:
        self.up, self.down, self.alive, self.start = up, down, alive, start
        self.blocked = tuple(blocked)
        import threading  # noqa: PLC0415  (after the fork)

        self._lock = threading.Lock()

    def listen(self) -> None:
        """Lets signals through; those that came before are delivered now."""
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self.blocked)

    def put(self, text: bytes) -> None:
        """Has an answer printed.

        Raises:
            OSError: It could not be written, or the supervisor is gone.
        """
        self._send(ANSWER, text)
        number = int.from_bytes(os.read(self.down, ACKNOWLEDGED_BYTES) or b"\xff\xff")
        if number:
            gone = number == 0xFFFF
            raise OSError(number, "the supervisor is gone" if gone else os.strerror(number))

    def note(self, code: int, report: str) -> None:
        """Leaves word after an answer.

        Args:
            code: The exit code if all others are unknown.
            report: Of the answer, as JSON; empty if none is wanted.
        """
        self._send(NOTE, bytes([code]) + report.encode(errors="surrogateescape"))

    def finish(self, reason: str = "") -> None:
        """Says that the process is about to end as it should, or why the supervisor has to answer."""
        try:
            self._send(FINISH, reason.encode(errors="replace"))
        except OSError:
            return  # nobody is there to care

    def _send(self, kind: bytes, content: bytes) -> None:
        left = memoryview(frame(kind, content))
        with self._lock:
            while left:
                left = left[os.write(self.up, left) :]
