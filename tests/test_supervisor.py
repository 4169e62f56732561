"""Crashes, signals and lost processes of `lpverify verify`: real processes, ended in all ways there are."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import lpverify

ROOT = Path(lpverify.__file__).parent.parent
SPECS = ROOT / "vnnlib_specs"
ENV = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
TOY = ("onnx/toy.onnx", "vnnlib/toy_order.vnnlib")
UNSAT, SAT, OTHER = "vnnlib/toy_order.vnnlib", "vnnlib/toy_corner.vnnlib", "vnnlib/toy_boxes.vnnlib"
PATIENCE = 30.0
IN_C = "__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)"

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="supervised where there is fork"),
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc"),
]

# Runs a command as the console script does, after the verification of the second property was replaced.
PROGRAM = """import importlib, os, signal, sys, time
v = importlib.import_module("lpverify.io.vnnlib" if {early} else "lpverify.verify")
name = "read_query" if {early} else "verify_query"
original = getattr(v, name)
def instead(*arguments, **options):
    path = arguments[0] if {early} else arguments[1].path
    if path == {where!r}:
        print("here", file=sys.stderr, flush=True)
        {action}
    return original(*arguments, **options)
setattr(v, name, instead)
sys.argv = {words!r}
from lpverify.supervisor import entry
entry()
"""


class Process(subprocess.Popen):
    """Ends with a test that fails."""

    def __exit__(self, kind, *rest):
        if kind is not None:
            self.kill()
        super().__exit__(kind, *rest)


def start(action, *words, where=UNSAT, early=False, **options):
    words = ["lpverify", "verify", *map(str, words)]
    code = PROGRAM.format(action=action, words=words, where=where, early=early)
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return Process([sys.executable, "-c", code], cwd=SPECS, env=ENV, text=True, **options)


def run(action, *words, **options):
    with start(action, *words, **options) as process:
        out, err = process.communicate(timeout=PATIENCE)
    return out, err.replace("here\n", ""), process.returncode


def until(condition):
    """Its first true value."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if found := condition():
            return found
        time.sleep(0.01)
    raise AssertionError("nothing happened")


def child_of(pid):
    """The number of a process's only child."""

    def find():
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid:
                return int(path.parent.name)
        return None

    return until(find)


def gone(pid):
    """Whether a process has ended; a zombie has."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def wait_until_there(process):
    assert process.stderr.readline() == "here\n"


# --- crashes ---


@pytest.mark.parametrize(
    ("action", "reason"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", "was killed by signal 9 (out of memory?)"),
        ("os.kill(os.getpid(), signal.SIGSEGV)", "was killed by signal 11 (SIGSEGV)"),
        ("os.abort()", "was killed by signal 6 (SIGABRT)"),
        ("os._exit(1)", "ended with exit code 1 and no answer"),
    ],
)
def test_a_crash_is_unknown(action, reason, tmp_path):
    words = (*TOY, "--json", tmp_path / "r.json", "--exit-status")
    out, err, code = run(action, *words)
    assert (out, code) == ("unknown\n", 30)
    assert f"lpverify: unknown: the verifier process {reason}; stage: lost" in err
    assert err.count("\n") == 1
    content = json.loads((tmp_path / "r.json").read_text())
    assert (content["verdict"], content["reason"]) == ("unknown", f"the verifier process {reason}")
    assert content["peak_mb"] > 10
    assert os.listdir(tmp_path) == ["r.json"]


def test_a_crash_is_told_when_all_else_is_quiet():
    out, err, code = run("os.abort()", *TOY, "--quiet", early=True)
    assert (out, code) == ("unknown\n", 0)
    assert err == "lpverify: error: the verifier process was killed by signal 6 (SIGABRT)\n"


def test_a_crash_leaves_what_was_answered(tmp_path):
    words = ("onnx/toy.onnx", SAT, UNSAT, OTHER, "--json", tmp_path / "r.json", "--exit-status")
    out, err, code = run("os.abort()", *words)
    assert re.findall(r"^(\S+) (\w+)$", out, re.MULTILINE) == [
        (SAT, "sat"),
        (UNSAT, "unknown"),
        (OTHER, "unknown"),
    ]
    assert code == 10
    assert f"{OTHER}: unknown: the verifier process was killed" in err
    reports = json.loads((tmp_path / "r.json").read_text())["queries"]
    assert [(r["query"], r["verdict"]) for r in reports] == [
        (SAT, "sat"),
        (UNSAT, "unknown"),
        (OTHER, "unknown"),
    ]
    assert reports[0]["witness"]["inputs"]


def test_a_crash_after_the_last_answer_adds_none():
    patch = "import lpverify.session as s; s.Session._save = lambda self: os.abort()"
    out, err, code = run(patch, *TOY, "--exit-status")
    assert (out, code) == ("unsat\n", 20)
    assert err == "lpverify: error: the verifier process was killed by signal 6 (SIGABRT)\n"


def test_a_crash_amid_an_answer_prints_it_not_at_all(tmp_path):
    patch = "import lpverify.link as k; send = k.frame; "
    patch += "k.frame = lambda kind, text: send(kind, text)[:-1] if kind == b'A' else os.abort(); "
    patch += "k.os.read = lambda *_: os.abort()"
    assert run(patch, "onnx/toy.onnx", SAT, where=SAT)[0] == "unknown\n"


def test_memory_errors_outside_the_search_are_unknown():
    patch = "import lpverify.session as s; s.competition_text = lambda *_: exec('raise MemoryError')"
    out, err, code = run(patch, *TOY, "--exit-status")
    assert (out, code) == ("unknown\n", 30)
    assert "unknown: out of memory" in err


def test_a_missing_report_folder_does_not_lose_the_answer(tmp_path):
    (tmp_path / "folder").mkdir()
    action = f"__import__('shutil').rmtree({str(tmp_path / 'folder')!r}); os.abort()"
    out, err, code = run(action, *TOY, "--json", tmp_path / "folder" / "r.json")
    assert (out, code, "SIGABRT" in err) == ("unknown\n", 0, True)


def test_errors_are_as_without_a_supervisor():
    for words, code in (((*TOY[:1],), 1), ((TOY[0], "missing"), 1), ((*TOY, "--memory", "x"), 1)):
        out, err, found = run("pass", *words)
        assert (out, found, err.count("\n")) == ("", code, 1)
        assert err.startswith("lpverify: error: ")


def test_only_verify_has_a_supervisor():
    code = "import os, sys; os.fork = None; sys.argv = ['lpverify', 'info', 'onnx/toy.onnx']\n"
    code += "from lpverify.supervisor import entry; entry()"
    done = subprocess.run([sys.executable, "-c", code], cwd=SPECS, env=ENV, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_without_more_processes_there_is_one():
    code = "import errno, os, sys\ndef fork(): raise OSError(errno.EAGAIN, 'no more')\nos.fork = fork\n"
    code += f"sys.argv = {['lpverify', 'verify', *TOY]!r}\nfrom lpverify.supervisor import entry; entry()"
    done = subprocess.run([sys.executable, "-c", code], cwd=SPECS, env=ENV, capture_output=True, text=True)
    assert (done.stdout, done.returncode, done.stderr) == ("unsat\n", 0, "")


# --- killed from outside ---


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_child_that_is_killed(number):
    command = [sys.executable, "-m", "lpverify", "verify", "onnx/toy.onnx", UNSAT, SAT]
    action = f"time.sleep({PATIENCE})"
    with start(action, *command[4:]) as process:
        wait_until_there(process)
        os.kill(child_of(process.pid), number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (out, process.returncode) == (f"{UNSAT} unknown\n{SAT} unknown\n", 0)
    assert err.count(f"the verifier process was killed by signal {int(number)}") == 2


def test_a_child_ends_with_its_parent():
    with start(IN_C, *TOY) as process:
        wait_until_there(process)
        child = child_of(process.pid)
        process.kill()
        until(lambda: gone(child))
        assert process.communicate(timeout=PATIENCE)[0] == ""


# --- signals ---


@pytest.mark.parametrize(
    ("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGHUP, True)]
)
def test_signals_are_passed_on(number, group, tmp_path):
    """To the first process alone, or to both as a terminal does."""
    words = ("onnx/toy.onnx", UNSAT, SAT, "--json", tmp_path / "r.json")
    with start(IN_C, *words, start_new_session=True) as process:
        wait_until_there(process)
        child = child_of(process.pid)
        (os.killpg if group else os.kill)(process.pid, number)
        out, err = process.communicate(timeout=PATIENCE)
    assert (out, process.returncode) == (f"{UNSAT} unknown\n{SAT} unknown\n", 128 + number)
    assert gone(child)
    assert "Traceback" not in err
    reports = json.loads((tmp_path / "r.json").read_text())["queries"]
    assert [r["reason"] for r in reports] == ["interrupted"] * 2


def test_signals_during_the_start_are_not_lost():
    for pause in (0.0, 0.1):
        command = [
            sys.executable,
            "-c",
            PROGRAM.format(action=IN_C, words=["", "verify", *TOY], where=UNSAT, early=1),
        ]
        with Process(command, cwd=SPECS, env=ENV, stdout=subprocess.PIPE, text=True, stderr=-3) as process:
            until(lambda pid=process.pid: _catches(pid, signal.SIGTERM))
            time.sleep(pause)
            process.send_signal(signal.SIGTERM)
            out = process.communicate(timeout=PATIENCE)[0]
        assert (out, process.returncode) == ("unknown\n", 143)


def _catches(pid, number):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) & (1 << (number - 1))


def test_a_second_signal_ends_a_process_that_does_not_listen():
    """A child that is stopped can't answer; the second Ctrl-C kills it."""
    with start(f"time.sleep({PATIENCE})", *TOY) as process:
        wait_until_there(process)
        child = child_of(process.pid)
        os.kill(child, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        time.sleep(2.2)
        assert process.poll() is None
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=PATIENCE)
    assert (out, process.returncode, gone(child)) == ("unknown\n", 130, True)
    assert "interrupted" in err


def test_ignored_signals_stay_ignored():
    with start(
        "time.sleep(1.0)", *TOY, preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)
    ) as process:
        wait_until_there(process)
        process.send_signal(signal.SIGHUP)
        out = process.communicate(timeout=PATIENCE)[0]
    assert (out, process.returncode) == ("unsat\n", 0)


def test_a_signal_while_nobody_reads_stdout():
    """The answer does not fit into the pipe: a signal ends both processes all the same."""
    patch = "import lpverify.session as s; s.competition_text = lambda *_: 'unsat ' * 2**16"
    with start(patch, *TOY) as process:
        wait_until_there(process)
        child = child_of(process.pid)
        assert process.stdout.read(6) == "unsat "
        process.send_signal(signal.SIGTERM)
        until(lambda: process.poll() is not None and gone(child))
    assert process.returncode == 143


# --- stdout ---


@pytest.mark.parametrize(
    ("action", "more"), [("pass", []), ("pass", [SAT]), (f"time.sleep({PATIENCE})", []), ("os.abort()", [])]
)
def test_nobody_reads(action, more):
    """An answer, a timeout or a crash that can't be told is an error, without a traceback."""
    words = [*TOY, *more, "--timeout", "1"]
    reader, writer = os.pipe()
    os.close(reader)
    _, err, code = run(action, *words, stdout=writer)
    os.close(writer)
    assert code == 1
    assert "can't write the answer: Broken pipe" in err
    assert "Traceback" not in err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_stdout_on_a_full_disk():
    with open("/dev/full", "w") as full:
        _, err, code = run("pass", *TOY, stdout=full)
    assert (code, err) == (1, "lpverify: error: can't write the answer: No space left on device\n")


@pytest.mark.parametrize("streams", ["<&- >&-", "<&- 2>&-"])
def test_closed_streams(streams):
    command = f"{sys.executable} -m lpverify verify {' '.join(TOY)} {streams}"
    done = subprocess.run(command, shell=True, cwd=SPECS, env=ENV, capture_output=True, text=True)
    closed = ">&-" in streams.split()
    assert (done.stdout, done.returncode) == (("", 1) if closed else ("unsat\n", 0))
    assert ("stdout is closed" in done.stderr) == (closed and "2>&-" not in streams)


def test_help_that_nobody_reads():
    reader, writer = os.pipe()
    os.close(reader)
    _, err, code = run("pass", "--help", stdout=writer)
    os.close(writer)
    assert (code, err.count("\n"), "Broken pipe" in err) == (1, 1, True)


# --- time ---


def test_the_clock_starts_with_the_first_process(tmp_path):
    code = "import time; time.sleep(0.5); import sys\n"
    code += f"sys.argv = {['lpverify', 'verify', *TOY, '--json', str(tmp_path / 'r')]!r}\n"
    code += "from lpverify.supervisor import entry; entry()"
    subprocess.run([sys.executable, "-c", code], cwd=SPECS, env=ENV, capture_output=True, check=True)
    assert json.loads((tmp_path / "r").read_text())["seconds"]["start"] >= 0.5


def test_little_is_imported_before_the_fork():
    code = "import sys, lpverify.supervisor; print([m for m in {} if m in sys.modules])"
    heavy = ["numpy", "argparse", "dataclasses", "threading", "json", "decimal", "lpverify.session"]
    done = subprocess.run([sys.executable, "-c", code.format(heavy)], env=ENV, capture_output=True, text=True)
    assert done.stdout == "[]\n"
