"""The watchdog against a main thread that is deep in C code, and against one that answers itself."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lpverify
from lpverify.clock import process_start

ENV = os.environ | {"PYTHONPATH": str(Path(lpverify.__file__).parent.parent)}
PROGRAM = """
import hashlib, time
from lpverify.clock import process_start
from lpverify.watchdog import Watchdog

def conclude(number):
    time.sleep({pause})
    print("concluded", number, flush=True)
    return 128 + number if number else 5

dog = Watchdog({end}, conclude)
dog.start()
print("ready", flush=True)
{work}
dog.claim()
print("main", flush=True)
"""
IN_C = "hashlib.pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"

pytestmark = pytest.mark.skipif(os.name != "posix", reason="signals as on POSIX")


class Process(subprocess.Popen):
    """Ends with a test that fails."""

    def __exit__(self, kind, *rest):
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


def start(end="time.monotonic() + 60", work=IN_C, pause=0):
    code = PROGRAM.format(end=end, work=work, pause=pause)
    return Process([sys.executable, "-c", code], env=ENV, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signals_reach_a_main_thread_in_c_code(number):
    with start() as child:
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.2)
        begin = time.monotonic()
        child.send_signal(number)
        assert child.communicate(timeout=20)[0] == f"concluded {int(number)}\n"
    assert time.monotonic() - begin < 1.0
    assert child.returncode == 128 + number


def test_the_limit_ends_c_code():
    with start(end="process_start() + 0.5") as child:
        assert child.communicate(timeout=20)[0] == "ready\nconcluded 0\n"
    assert child.returncode == 5


def test_the_main_thread_waits_for_the_watchdog_that_came_first():
    with start(end="time.monotonic()", work="time.sleep(0.2)", pause=0.6) as child:
        assert child.communicate(timeout=20)[0] == "ready\nconcluded 0\n"


def test_the_watchdog_leaves_a_main_thread_that_came_first_alone():
    work = "dog.claim(); dog.claim = lambda: None; time.sleep(0.4)"
    with start(end="time.monotonic() + 0.2", work=work) as child:
        assert child.communicate(timeout=20)[0] == "ready\nmain\n"
    assert child.returncode == 0


def test_a_main_thread_that_resumes_is_watched_again():
    work = f"dog.claim(); time.sleep(0.4); dog.resume(time.monotonic() + 0.3); {IN_C}"
    begin = time.monotonic()
    with start(end="time.monotonic() + 0.2", work=work) as child:
        assert child.communicate(timeout=20)[0] == "ready\nconcluded 0\n"
    assert 0.7 <= time.monotonic() - begin < 3
    assert child.returncode == 5


def test_claims_and_limits_may_race():
    """No limit that a claim came before is acted on, however close."""
    work = "\n".join(
        [
            "def checked(number):",
            "    global due",
            "    early, due = time.monotonic() < due, time.monotonic() + 60",
            "    dog.end = due",
            "    return conclude(number) if early else None",
            "dog.conclude = checked",
            "for i in range(2000):",
            "    dog.claim()",
            "    due = time.monotonic() + (60 if i % 2 else 2e-4)",
            "    dog.resume(due)",
            "    if not i % 2: dog.claim(); due = time.monotonic() + 60; dog.resume(due)",
        ]
    )
    with start(work=work) as child:
        assert child.communicate(timeout=20)[0] == "ready\nmain\n"


def test_a_signal_waits_for_a_main_thread_that_resumes():
    work = f"dog.claim(); print('answering', flush=True); time.sleep(0.5); dog.resume(dog.end); {IN_C}"
    with start(work=work) as child:
        assert [child.stdout.readline() for _ in range(2)] == ["ready\n", "answering\n"]
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=20)[0] == "concluded 2\n"
    assert child.returncode == 130


def test_the_process_goes_on_if_the_answer_says_so():
    work = """calls = []
def first_goes_on(number):
    calls.append(number)
    dog.end = time.monotonic() + 0.2
    return None if len(calls) == 1 else conclude(number)
dog.conclude = first_goes_on
time.sleep(10)"""
    begin = time.monotonic()
    with start(end="time.monotonic() + 0.3", work=work) as child:
        assert child.communicate(timeout=20)[0] == "ready\nconcluded 0\n"
    assert 0.5 <= time.monotonic() - begin < 5


def test_a_signal_ends_a_main_thread_that_answers_for_ever():
    work = f"dog.claim(); print('answering', flush=True); {IN_C}"
    with start(work=work) as child:
        assert [child.stdout.readline() for _ in range(2)] == ["ready\n", "answering\n"]
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=20)[0] == ""
    assert child.returncode == 130


def test_ignored_signals_stay_ignored():
    code = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"
    program = code + PROGRAM.format(end="time.monotonic() + 60", work="time.sleep(0.5)", pause=0)
    with Process([sys.executable, "-c", program], env=ENV, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=20)[0] == "main\n"


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_the_start_of_a_process():
    code = "import time; time.sleep(0.5); from lpverify.clock import process_start as s; "
    code += "print(time.monotonic() - s())"
    begin = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code], env=ENV, capture_output=True, text=True)
    assert 0.5 <= float(done.stdout) <= time.monotonic() - begin + 0.02
    assert process_start() <= time.monotonic()


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")
def test_a_process_that_is_too_old_counts_from_the_import():
    code = "import time, lpverify.clock as w; w.MOST_STARTUP_SECONDS = -1.0; "
    code += "assert w.process_start() == w._IMPORTED"
    assert subprocess.run([sys.executable, "-c", code], env=ENV).returncode == 0


def test_hanging_up_is_a_signal():
    with start() as child:
        assert child.stdout.readline() == "ready\n"
        child.send_signal(signal.SIGHUP)
        assert child.communicate(timeout=20)[0] == "concluded 1\n"
    assert child.returncode == 129


def test_memory_is_asked_for_several_times_a_second():
    work = f"begin = time.monotonic(); dog.full = lambda: time.monotonic() > begin + 0.5; {IN_C}"
    program = PROGRAM.replace("conclude)", "conclude, full=lambda: False)")
    code = program.format(end="time.monotonic() + 60", work=work, pause=0)
    with Process([sys.executable, "-c", code], env=ENV, stdout=subprocess.PIPE, text=True) as child:
        assert child.communicate(timeout=20)[0] == "ready\nconcluded -1\n"
    assert child.returncode == 127


def test_memory_does_not_disturb_an_answer():
    work = "dog.claim(); dog.claim = lambda: None; dog.full = lambda: True; time.sleep(0.7)"
    program = PROGRAM.replace("conclude)", "conclude, full=lambda: False)")
    code = program.format(end="time.monotonic() + 60", work=work, pause=0)
    with Process([sys.executable, "-c", code], env=ENV, stdout=subprocess.PIPE, text=True) as child:
        assert child.communicate(timeout=20)[0] == "ready\nmain\n"


def test_the_end_of_the_supervisor_is_the_end():
    reader, writer = os.pipe()
    program = PROGRAM.replace("conclude)", f"conclude, alive={reader})")
    code = program.format(end="time.monotonic() + 60", work=IN_C, pause=0)
    command = [sys.executable, "-c", code]
    with Process(command, env=ENV, stdout=subprocess.PIPE, text=True, pass_fds=[reader]) as child:
        os.close(reader)
        assert child.stdout.readline() == "ready\n"
        os.close(writer)
        assert child.communicate(timeout=20)[0] == ""
    assert child.returncode == 137
