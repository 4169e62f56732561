"""Where a session writes, the exit codes of its verdicts, and what one leaves behind that crashed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lpverify.clock import process_start
from lpverify.link import Link

EXIT_STATUS = {"sat": 10, "unknown": 30, "timeout": 40, "unsat": 20}  # the first that occurs counts


@dataclass(frozen=True)
class Output:
    """Where a session writes.

    Attributes:
        put: Writes text to stdout.
        tell: Writes a line to stderr.
        complain: Tells an error of what the text before it names, with its traceback or not; returns the
            exit code.
        link: To the supervisor, if there is one.
    """

    put: Callable[[str], None]
    tell: Callable[[str], None]
    complain: Callable[[Exception, bool, str], int]
    link: Link | None = None

    @property
    def start(self) -> float:
        """When the first process started, on the monotonic clock."""
        return process_start() if self.link is None else self.link.start

    @property
    def alive(self) -> int:
        """The pipe that ends with the supervisor; -1 if there is none."""
        return -1 if self.link is None else self.link.alive

    def listen(self) -> None:
        """Lets signals through that waited for the watchdog."""
        if self.link is not None:
            self.link.listen()

    def note(self, code: int, report: str) -> None:
        """Tells the supervisor the exit code if all other properties are unknown, and a report."""
        if self.link is not None:
            self.link.note(code, report)

    def finish(self, reason: str = "") -> None:
        """Tells the supervisor that the process is about to end, or why it has to answer."""
        if self.link is not None:
            self.link.finish(reason)


@dataclass(frozen=True)
class Remains:
    """What is known of a process that ended too early.

    Attributes:
        reason: Why it did.
        answered: For how many properties it had answered.
        code: The exit code if all others are unknown; None before the first answer.
        reports: Of those answered, as JSON.
        interrupted: Whether someone wanted it to end.
    """

    reason: str
    answered: int = 0
    code: int | None = None
    reports: Sequence[str] = ()
    interrupted: bool = False
