"""A process of `lpverify.robustness.pool.workers.Pool`: `python -m lpverify.robustness.pool.worker`.

It gets a job and then tasks from its standard input, one at a time, and sends what it finds to its standard
output. Both are moved out of reach first, so that prints, also those of native libraries, go to stderr. A
thread reads the input, so that the process ends with its parent also while it computes.
"""

import os
import pickle
import signal
import sys
import threading
from queue import SimpleQueue
from typing import NoReturn

from lpverify import errors
from lpverify.errors import InternalError, LpverifyError, one_line, out_of_memory
from lpverify.robustness.pool.frames import framed, read, write
from lpverify.robustness.pool.workers import Answer, Job, Task  # before the first task, whose time runs

ORPHANED = 128 + 9  # exit code when the parent is gone
FAILED = 1


def main() -> NoReturn:
    """Works until the parent closes the pipe, dies, or kills it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's business
    inward, outward = _own_pipes()
    inbox: SimpleQueue[bytes] = SimpleQueue()
    threading.Thread(target=_listen, args=(inward, inbox), name="inbox", daemon=True).start()
    try:
        _work(inbox, outward)
    except OSError:  # nobody listens any more
        os._exit(ORPHANED)


def _own_pipes() -> tuple[int, int]:
    """Standard input and output under other numbers; what had theirs is nothing and stderr now."""
    inward, outward = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDWR)
    os.dup2(nothing, 0)
    try:
        os.dup2(2, 1)
    except OSError:  # stderr is closed
        os.dup2(nothing, 1)
    sys.stdout = sys.stderr
    return inward, outward


def _listen(pipe: int, inbox: SimpleQueue[bytes]) -> None:
    try:
        while True:
            inbox.put(read(pipe))
    except (EOFError, OSError):
        os._exit(ORPHANED)


def _work(inbox: SimpleQueue[bytes], pipe: int) -> NoReturn:
    try:
        job: Job = pickle.loads(inbox.get())
        answer: Answer = job.prepare()
    except BaseException as error:  # noqa: BLE001  (the parent decides)
        write(pipe, framed(("unprepared", described(error))))
        os._exit(FAILED)
    write(pipe, framed(("ready", None)))
    while True:
        content = inbox.get()
        try:
            task: Task = pickle.loads(content)
            frame = framed(("done", answer(task)))
        except BaseException as error:  # noqa: BLE001
            write(pipe, framed(("failed", words(error))))
            os._exit(FAILED)
        write(pipe, frame)


def words(error: BaseException) -> str:
    """What went wrong, in one line."""
    return "out of memory" if out_of_memory(error) else " ".join(one_line(error).split())


def described(error: BaseException) -> tuple[str, str]:
    """The name of the class in `lpverify.errors` and the message that an error is told to the parent by."""
    if isinstance(error, LpverifyError):
        names = (kind.__name__ for kind in type(error).__mro__ if kind.__module__ == errors.__name__)
        return next(names), str(error)
    return InternalError.__name__, f"a worker could not start: {words(error)}"


if __name__ == "__main__":
    main()
