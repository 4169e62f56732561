"""Complete verification in other processes, so that a crash or an overrun costs one question and no more.

Workers (`lpverify.robustness.pool.worker`) are started when there is work for them and live until the pool is
closed. They end with this process, whatever ends it, because their standard input does.
"""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from threading import Thread
from types import TracebackType
from typing import Any, Protocol, Self, TypeAlias

from lpverify import errors
from lpverify.errors import InputError, LpverifyError, UnsupportedError, one_line
from lpverify.robustness.evidence import Adversarial, Attempt, Question
from lpverify.robustness.pool.frames import framed, read, write
from lpverify.search.engines import usable_cores

THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
GRACE_SECONDS, GRACE_SHARE = 2.0, 0.5  # beyond the limit of a task, the larger one of the two
EXIT_SECONDS = 5.0  # how long a process may take to end after its pipe did
TICK_SECONDS = 1.0  # where Python's locks can't be interrupted, Ctrl-C waits that long


@dataclass(frozen=True)
class Task:
    """A question and how long to think about it.

    Attributes:
        question: The sample and the radius.
        seconds: Limit, wall clock; infinite: none. A worker that is well beyond it is killed.
    """

    question: Question
    seconds: float

    def __post_init__(self) -> None:
        if not self.seconds >= 0:
            raise InputError(f"seconds: expected a number from 0, got {self.seconds!r}")


@dataclass(frozen=True)
class Outcome:
    """What came of a task.

    Attributes:
        task: The one submitted.
        findings: As the job returned them; of a worker that died one attempt, `unknown`.
    """

    task: Task
    findings: list[Attempt | Adversarial]


Answer: TypeAlias = Callable[[Task], list[Attempt | Adversarial]]


class Job(Protocol):
    """What a worker is started with: pickled, so of a class that the worker can import.

    Attributes:
        method: What attempts that no worker answered are called.
    """

    @property
    def method(self) -> str:
        """See above."""
        ...

    def prepare(self) -> Answer:
        """Loads what is needed, once a worker; returns what answers tasks.

        Raises:
            LpverifyError: The job can't be done; `Pool.done` raises the same in the parent.
        """
        ...


class Pool:
    """Answers tasks by workers.

    Args:
        job: What they do.
        jobs: How many of them; 0: the work is done in this process, within `done`, and nothing is killed.

    Raises:
        InputError: `jobs` is no whole number from 0, or the job can't be pickled.
    """

    def __init__(self, job: Job, jobs: int) -> None:
        if isinstance(jobs, bool) or not isinstance(jobs, int) or jobs < 0:
            raise InputError(f"jobs: expected a whole number from 0, got {jobs!r}")
        self.job, self.jobs = job, jobs
        self._start = _job_frame(job) if jobs else b""
        self._answer: Answer | None = None
        self._waiting: deque[Task] = deque()
        self._workers: list[_Worker] = []
        self._events: SimpleQueue[tuple[_Worker, str, Any]] = SimpleQueue()
        self._outcomes: list[Outcome] = []
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def idle(self) -> int:
        """How many more tasks would be started at once."""
        return max(0, max(self.jobs, 1) - self._running - len(self._waiting))

    @property
    def _running(self) -> int:
        return sum(worker.task is not None for worker in self._workers)

    def submit(self, task: Task) -> None:
        """Has a task answered; it waits while no worker is free.

        Raises:
            InputError: The pool is closed.
            UnsupportedError: No process can be started.
        """
        if self._closed:
            raise InputError("this pool is closed")
        self._waiting.append(task)
        if self.jobs:
            self._dispatch()

    def done(self, timeout: float | None = None) -> list[Outcome]:
        """Waits until there are outcomes, and returns all that there are.

        Args:
            timeout: Seconds, None: as long as it takes. Without workers the answer is computed here,
                however long that takes, unless the timeout is 0 or less.

        Returns:
            Each outcome once; empty after the timeout, and when there is nothing to wait for.

        Raises:
            LpverifyError: A worker could not get ready; of the class that `Job.prepare` raised.
        """
        end = time.monotonic() + (float("inf") if timeout is None else timeout)
        if not self.jobs and self._waiting and (timeout is None or timeout > 0):
            self._outcomes.append(self._work_here())
        while self.jobs and not self._outcomes and (self._waiting or self._running):
            if not self._step(end) and time.monotonic() >= end:
                break
        while not self._events.empty():
            self._step(end)
        found, self._outcomes = self._outcomes, []
        return found

    def close(self) -> None:
        """Kills all workers, busy or not; more than once does no harm."""
        self._closed = True
        self._waiting.clear()
        for worker in self._workers:  # all before the first is waited for
            worker.process.kill()
        while self._workers:
            self._workers.pop().end_process()

    def _step(self, end: float) -> bool:
        """Waits for something to happen, treats it, and tells whether anything did."""
        seconds = min([end, *(worker.end for worker in self._workers)]) - time.monotonic()
        try:
            event = self._events.get(timeout=min(max(seconds, 0.0), TICK_SECONDS))
        except Empty:  # so that no answer is on its way that came in time
            happened = self._stop_overruns()
        else:
            self._treat(*event)
            happened = True
        self._dispatch()
        return happened

    def _dispatch(self) -> None:
        """Gives tasks to free workers, and starts workers for those that are left."""
        for worker in [w for w in self._workers if w.ready and w.task is None]:
            if self._waiting and worker.take(self._waiting[0]):
                self._waiting.popleft()
        coming = sum(not worker.ready for worker in self._workers)
        while coming < len(self._waiting) and len(self._workers) < self.jobs:
            self._workers.append(_Worker(self._start, _environment(self.jobs), self._events))
            coming += 1

    def _treat(self, worker: "_Worker", kind: str, content: Any) -> None:
        if worker not in self._workers:  # was killed meanwhile
            return
        if kind == "ready":
            worker.ready = True
        elif kind == "done":
            if worker.task is not None:
                self._outcomes.append(Outcome(worker.task, content))
            worker.release()
        elif kind == "failed":
            self._bury(worker, content)
        elif kind == "unprepared":
            self._remove(worker, kill=True)
            raise getattr(errors, content[0])(content[1])
        else:
            code = self._remove(worker)
            if not worker.ready:
                raise LpverifyError(f"a worker could not start: {_death(code)}")
            self._lose(worker, _death(code))

    def _stop_overruns(self) -> bool:
        now = time.monotonic()
        late = [worker for worker in self._workers if now >= worker.end]
        for worker in late:
            self._bury(worker, f"killed, because it overran the limit of {worker.seconds:g} s")
        return bool(late)

    def _bury(self, worker: "_Worker", reason: str) -> None:
        self._remove(worker, kill=True)
        self._lose(worker, reason)

    def _remove(self, worker: "_Worker", kill: bool = False) -> int:
        if kill:
            worker.process.kill()
        self._workers.remove(worker)
        return worker.end_process()

    def _lose(self, worker: "_Worker", reason: str) -> None:
        if worker.task is not None:
            self._outcomes.append(
                lost(worker.task, self.job.method, reason, time.monotonic() - worker.started)
            )

    def _work_here(self) -> Outcome:
        if self._answer is None:
            self._answer = self.job.prepare()
        task, start = self._waiting.popleft(), time.monotonic()
        try:
            return Outcome(task, self._answer(task))
        except Exception as error:  # noqa: BLE001  (as a worker would)
            reason = " ".join(one_line(error).split())
            return lost(task, self.job.method, reason, time.monotonic() - start)


class _Worker:
    """A process, and the thread that listens to it.

    Args:
        start: The frame with the job.
        environment: Of the process.
        events: Where the thread puts what it hears: the worker, a word, what belongs to it.

    Attributes:
        ready: Whether the job is prepared.
        task: What it is at; None: nothing.
        started: When it got the task, on the monotonic clock.
        end: When it is killed.
    """

    def __init__(
        self,
        start: bytes,
        environment: dict[str, str],
        events: "SimpleQueue[tuple[_Worker, str, Any]]",
    ) -> None:
        self.ready, self.events = False, events
        self.task: Task | None = None
        self.started, self.seconds, self.end = 0.0, float("inf"), float("inf")
        # not from the current folder, which could have a file of the same name as some module
        command = [sys.executable, "-P", "-m", "lpverify.robustness.pool.worker"]
        pipe = subprocess.PIPE
        with _interrupts_blocked():
            try:
                self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, bufsize=0, env=environment)
            except OSError as error:
                raise UnsupportedError(f"no worker can be started: {error}") from None
            self.thread = Thread(target=self._listen, args=(start,), name="worker", daemon=True)
            self.thread.start()

    def _listen(self, start: bytes) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(OSError):  # it died; reading tells
            write(self.process.stdin.fileno(), start)
        try:
            while True:
                kind, content = pickle.loads(read(self.process.stdout.fileno()))
                self.events.put((self, kind, content))
        except (EOFError, OSError):
            self.events.put((self, "gone", None))
        except Exception as error:  # noqa: BLE001  (it sent what can't be made here)
            self.events.put((self, "failed", one_line(error)))

    def take(self, task: Task) -> bool:
        """Starts a task; returns whether the process is still there."""
        assert self.process.stdin is not None
        try:
            write(self.process.stdin.fileno(), framed(task))
        except OSError:
            return False
        self.task, self.started = task, time.monotonic()
        self.seconds, self.end = task.seconds, self.started + _patience(task.seconds)
        return True

    def release(self) -> None:
        """Notes that the task is done."""
        self.task, self.end = None, float("inf")

    def end_process(self) -> int:
        """Waits for the process, which is about to end or is killed then; leaves no thread, file or zombie.

        Returns:
            Its exit code, negative: that of a signal.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        try:
            code = self.process.wait(EXIT_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        self.thread.join(EXIT_SECONDS)
        if not self.thread.is_alive():  # else a process that the job started holds the pipe
            self.process.stdin.close()
            self.process.stdout.close()
        return code


def lost(task: Task, method: str, reason: str, seconds: float) -> Outcome:
    """The outcome of a task whose worker gave no answer."""
    question, words = task.question, f"the worker died: {reason}"
    return Outcome(task, [Attempt(question.sample, method, question.eps, "unknown", "", seconds, words)])


def threads_of(jobs: int) -> int:
    """How many threads each of so many workers should use (0: this process works by itself)."""
    return max(1, usable_cores() // max(jobs, 1))


def _patience(seconds: float) -> float:
    return seconds + max(GRACE_SECONDS, GRACE_SHARE * seconds)


def _job_frame(job: Job) -> bytes:
    try:
        return framed(job)
    except (pickle.PicklingError, TypeError, AttributeError) as error:
        raise InputError(f"the job can't be sent to workers: {one_line(error)}") from None


def _environment(jobs: int) -> dict[str, str]:
    """That of this process, with its share of threads and the folders that modules are found in."""
    share = threads_of(jobs)
    wished = {name: os.environ.get(name, "") for name in THREADS}
    fewer = {n: int(v) for n, v in wished.items() if v.isdecimal() and 0 < int(v) < share}
    threads = {name: str(fewer.get(name, share)) for name in THREADS}
    folders = [os.path.abspath(entry) for entry in sys.path if isinstance(entry, str)]
    return {**os.environ, **threads, "PYTHONPATH": os.pathsep.join(folders)}


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Ctrl-C reaches all processes of a terminal; those started meanwhile don't hear it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _death(code: int) -> str:
    if code >= 0:
        return f"exit code {code}"
    if -code == getattr(signal, "SIGKILL", 9):
        return "killed by signal 9 (out of memory?)"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = "unknown"
    return f"killed by signal {-code} ({name})"
