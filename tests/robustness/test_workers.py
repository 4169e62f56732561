"""Worker processes: crashes, overruns, failures, lost parents; nothing is left over."""

import math
import os
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from toy_jobs import Toy

import lpverify
from lpverify.errors import InputError, InternalError, LpverifyError, UnsupportedError, VnnlibError
from lpverify.robustness.evidence import Attempt, Question
from lpverify.robustness.pool import workers
from lpverify.robustness.pool.workers import Pool, Task

ROOT = Path(lpverify.__file__).parent.parent
PATIENCE = 60.0
posix = pytest.mark.skipif(os.name != "posix", reason="signals")
proc = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs /proc")


def task(sample, seconds=math.inf):
    return Task(Question(sample, Fraction(1, 3)), seconds)


def until(condition):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("nothing happened")


def answers(pool, *tasks):
    """The findings of each task, by sample."""
    for one in tasks:
        pool.submit(one)
    found, end = {}, time.monotonic() + PATIENCE
    while len(found) < len(tasks):
        outcomes = pool.done(end - time.monotonic())
        assert outcomes, "no answer"
        for outcome in outcomes:
            assert outcome.task.question.sample not in found
            found[outcome.task.question.sample] = outcome.findings
    assert pool.done() == []
    return found


def lost(findings):
    """The reason of the only attempt, which tells that a worker died."""
    (attempt,) = findings
    expected = Attempt(attempt.sample, "ladder", Fraction(1, 3), "unknown", "", 0.0)
    assert repr(attempt).startswith(repr(expected).partition("seconds")[0])
    assert 0 <= attempt.seconds < PATIENCE and math.isnan(attempt.margin)
    start = "the worker died: "
    assert attempt.reason.startswith(start)
    return attempt.reason.removeprefix(start)


@pytest.mark.parametrize("jobs", [0, 1, 2])
def test_every_task_is_answered_once(jobs):
    count = 200 if jobs == 2 else 20
    with Pool(Toy({}), jobs) as pool:
        found = answers(pool, *map(task, range(count)))
    assert sorted(found) == list(range(count))
    assert all(a.sample == i and a.verdict == "proven" for i, (a,) in found.items())


def test_work_is_shared_and_workers_are_kept():
    plan = dict.fromkeys(range(12), "tell")
    with Pool(Toy(plan), 2) as pool:
        found = answers(pool, task(-1), task(-2))  # so that both are there
        found = answers(pool, *map(task, range(12)))
    processes = {f[0].reason for f in found.values()}
    assert len(processes) <= 2 and str(os.getpid()) not in processes


def test_points_come_whole_and_large_jobs_go():
    with Pool(Toy({0: "points 300000"}, ballast=bytes(3_000_000)), 1) as pool:
        adversarial, attempt = answers(pool, task(0))[0]
    assert np.array_equal(adversarial.point, np.arange(300000.0)) and adversarial.distance == Fraction(1, 3)
    assert attempt.verdict == "proven"


def test_threads_are_shared_out(monkeypatch):
    monkeypatch.setattr(workers, "usable_cores", lambda: 7)
    for wished, jobs, expected in (("", 2, "3"), ("1", 2, "1"), ("9", 3, "2"), ("x", 9, "1")):
        monkeypatch.setenv("OMP_NUM_THREADS", wished)
        environment = workers._environment(jobs)
        assert environment["OMP_NUM_THREADS"] == expected, (wished, jobs)
        assert environment["MKL_NUM_THREADS"] == environment["OPENBLAS_NUM_THREADS"] or wished == "1"
    monkeypatch.delenv("OMP_NUM_THREADS")
    with Pool(Toy({0: "tell"}), 3) as pool:
        assert answers(pool, task(0))[0][1].reason == "2"


def test_prints_do_not_disturb(capfd):
    with Pool(Toy({0: "print"}), 1) as pool:
        (attempt,) = answers(pool, task(0))[0]
    assert attempt.verdict == "proven"
    out, err = capfd.readouterr()
    assert out == "" and "stray" in err


CRASHES = {
    "exit 7": "exit code 7",
    "leave so it is": "SystemExit: so it is",
    "raise ValueError": "ValueError: so it is",
    "raise UnsupportedError": "so it is",
    "raise KeyboardInterrupt": "KeyboardInterrupt: so it is",
    "raise MemoryError": "out of memory",
    "unpicklable": "Can't pickle",
    "unmakeable": "Unmakeable",
    "signal SIGSEGV": "killed by signal 11 (SIGSEGV)",
    "signal SIGKILL": "killed by signal 9 (out of memory?)",
}


@posix
def test_crashes_cost_one_task_each():
    plan = dict(enumerate(CRASHES))
    with Pool(Toy(plan), 2) as pool:
        found = answers(pool, *map(task, range(2 * len(plan))))
    for i, (action, words) in enumerate(CRASHES.items()):
        assert words in lost(found[i]), action
    assert all(found[i][0].verdict == "proven" for i in range(len(plan), 2 * len(plan)))


def test_failures_in_this_process():
    with Pool(Toy({0: "raise ValueError", 1: "raise UnsupportedError"}), 0) as pool:
        found = answers(pool, task(0), task(1), task(2))
        assert lost(found[0]) == "ValueError: so it is" and lost(found[1]) == "so it is"
        assert found[2][0].verdict == "proven"
    with Pool(Toy({}, "raise UnsupportedError"), 0) as pool:
        pool.submit(task(0))
        with pytest.raises(UnsupportedError, match=r"^so it is$"):
            pool.done()


def test_overruns_are_killed_and_others_go_on(monkeypatch):
    monkeypatch.setattr(workers, "GRACE_SECONDS", 1.5)
    with Pool(Toy({0: "sleep 100", 1: "spin 100", 3: "sleep 0.3"}), 2) as pool:
        start = time.monotonic()
        found = answers(pool, task(0, 0.1), task(1, 0.1), task(2, 0.0), task(3, 0.1))
    assert time.monotonic() - start < 30
    for i in (0, 1):
        assert lost(found[i]) == "killed, because it overran the limit of 0.1 s"
        assert 1.6 <= found[i][0].seconds < 10
    assert [(a.verdict, a.reason) for i in (2, 3) for a in found[i]] == [("proven", "")] * 2  # in the grace


def test_patience():
    assert [workers._patience(s) for s in (0.0, 1.0, 4.0, 10.0, math.inf)] == [2.0, 3.0, 6.0, 15.0, math.inf]


@pytest.mark.parametrize(
    ("action", "kind", "words"),
    [
        ("raise InputError", InputError, "so it is"),
        ("raise UnsupportedError", UnsupportedError, "so it is"),
        ("raise VnnlibError", VnnlibError, "so it is"),
        ("raise LpverifyError", LpverifyError, "so it is"),
        ("raise ValueError", InternalError, "a worker could not start: ValueError: so it is"),
        ("exit 3", LpverifyError, "a worker could not start: exit code 3"),
    ],
)
def test_failures_while_a_job_is_prepared(action, kind, words):
    with Pool(Toy({}, action), 1) as pool:
        pool.submit(task(0))
        with pytest.raises(kind) as caught:
            pool.done(PATIENCE)
    assert type(caught.value) is kind and str(caught.value) == words


def test_a_job_that_the_worker_does_not_know(monkeypatch):
    monkeypatch.setattr(sys, "path", [p for p in sys.path if Path(p).name != "tests"])
    with Pool(Toy({}), 1) as pool:
        pool.submit(task(0))
        with pytest.raises(InternalError, match="toy_jobs"):
            pool.done(PATIENCE)


def test_modules_of_the_current_folder_do_not_get_in(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "path", [str(Path(p).absolute()) for p in sys.path])
    (tmp_path / "pickle.py").write_text("raise RuntimeError")
    monkeypatch.chdir(tmp_path)
    with Pool(Toy({}), 1) as pool:
        assert answers(pool, task(0))[0][0].verdict == "proven"


def test_idle_and_timeouts():
    with Pool(Toy({1: "sleep 30"}), 2) as pool:
        assert pool.idle == 2 and pool.done() == []
        answers(pool, task(0))
        assert pool.idle == 2
        pool.submit(task(1))
        assert pool.idle == 1
        pool.submit(task(2))
        pool.submit(task(3))
        assert pool.idle == 0
        assert {o.task.question.sample for _ in range(2) for o in pool.done()} <= {2, 3}
        until(lambda: pool.done(0) or pool.idle == 1)
        start = time.monotonic()
        assert pool.done(0.2) == [] and 0.2 <= time.monotonic() - start < 10
        assert pool.done(0) == []
    with pytest.raises(InputError, match="closed"):
        pool.submit(task(4))


def test_in_this_process_one_at_a_time():
    with Pool(Toy({}), 0) as pool:
        assert pool.idle == 1
        pool.submit(task(0))
        pool.submit(task(1))
        assert pool.idle == 0 and pool.done(0) == []
        assert [o.task for o in pool.done(1)] == [task(0)]
        assert [o.task for o in pool.done()] == [task(1)] and pool.idle == 1


def test_wrong_arguments():
    for jobs in (-1, 1.0, True, None):
        with pytest.raises(InputError, match="jobs"):
            Pool(Toy({}), jobs)
    for seconds in (-1.0, math.nan):
        with pytest.raises(InputError, match="seconds"):
            task(0, seconds)
    with pytest.raises(InputError, match="can't be sent"):
        Pool(Toy({0: lambda: None}), 1)


def children():
    """The numbers of all processes that this one started and has not waited for."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) == os.getpid():
            found.append(int(stat.parent.name))
    return sorted(found)


@proc
def test_nothing_is_left():
    before, files = children(), len(os.listdir("/proc/self/fd"))
    plan = {0: "exit 1", 1: "raise ValueError", 2: "signal SIGKILL", 4: "sleep 100"}
    with Pool(Toy(plan), 2) as pool:
        answers(pool, *map(task, range(4)))
        pool.submit(task(4))
        pool.submit(task(5))
    assert children() == before and len(os.listdir("/proc/self/fd")) == files
    with pytest.raises(KeyboardInterrupt), Pool(Toy({4: "sleep 100"}), 2) as pool:
        pool.submit(task(4))
        raise KeyboardInterrupt
    pool.close()
    assert children() == before and len(os.listdir("/proc/self/fd")) == files


@proc
def test_a_free_worker_that_dies_costs_nothing():
    with Pool(Toy({0: "tell", 1: "tell"}), 1) as pool:
        first = int(answers(pool, task(0))[0][0].reason)
        os.kill(first, signal.SIGKILL)
        until(lambda: not pool._events.empty())  # it is known to be gone, but not looked at
        second = int(answers(pool, task(1))[1][0].reason)
    assert second != first


PARENT = """import sys
sys.path[:0] = {folders!r}
from toy_jobs import Toy
from lpverify.robustness.evidence import Question
from lpverify.robustness.pool.workers import Pool, Task
with Pool(Toy({{1: {action!r}, 2: {action!r}, 3: "tell", 4: "tell"}}), 2) as pool:
    for sample in (3, 4, 1, 2):
        pool.submit(Task(Question(sample, 1), float("inf")))
    tell, left = set(), 2
    while left:
        for outcome in pool.done():
            print(outcome.findings[0].reason, flush=True)
            left -= 1
    print("both", flush=True)
    pool.done()
"""


def parent(action):
    code = PARENT.format(folders=[str(ROOT), str(Path(__file__).parent.parent)], action=action)
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def group(number):
    """Living processes of a session."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == number and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


@proc
@pytest.mark.parametrize("action", ["sleep 100", "spin 100"])
def test_workers_end_with_their_parent(action):
    with parent(action) as process:
        lines = iter(process.stdout)
        assert "both\n" in lines
        assert len(group(process.pid)) >= 2
        process.kill()
        until(lambda: not group(process.pid))


@proc
def test_ctrl_c_is_for_the_parent():
    with parent("sleep 100") as process:
        assert "both\n" in iter(process.stdout)
        os.killpg(process.pid, signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE)
        assert not group(process.pid)
    assert (
        err.count("Traceback") == err.count("KeyboardInterrupt") == 1 and process.returncode == -signal.SIGINT
    )


@posix
def test_ctrl_c_does_not_reach_workers_that_start():
    for delay in (0.0, 0.02, 0.05, 0.1, 0.2):
        with Pool(Toy({}), 1) as pool:
            pool.submit(task(0))
            time.sleep(delay)
            os.kill(pool._workers[0].process.pid, signal.SIGINT)
            (outcome,) = pool.done(PATIENCE)
            assert outcome.findings[0].verdict == "proven"
