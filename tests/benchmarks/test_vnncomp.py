"""The scripts of benchmarks/vnncomp, run as the competition's driver runs them and judged as its scorer does.

The driver is VNN-COMP/vnncomp2026_benchmarks, `run_all_categories.sh` and `run_single_instance.sh`: it
prefixes paths, unpacks a packed network, calls `timeout 600 prepare_instance.sh`, writes `no_result_in_file`
to a file `out.txt` of its own folder, calls `timeout (limit + 60) run_instance.sh`, and looks at the file
only if the exit code is 0. Its scorer counts an answer that took longer than the limit as a timeout.
"""

import ast
import csv
import gzip
import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from onnx import helper, numpy_helper
from scorer import score

from lpverify.capabilities import capability

ROOT = Path(__file__).resolve().parents[2]
SCRIPTS = ROOT / "benchmarks" / "vnncomp"
SPECS = ROOT / "vnnlib_specs"
GRACE_SECONDS = 60.0  # of the driver, after the limit
QUICK = ("toy_order", "toy_corner", "toy_boxes", "toy_mixed", "mlp_attack_1501", "sat_v14_c60_s1")

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bash, coreutils and /proc")
needs_v2 = pytest.mark.skipif(
    max(float(version) for version in capability("vnnlib-versions")) < 2.0,
    reason="lpverify reads version 1 only",
)


def table(name):
    with (SPECS / name).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


INSTANCES = {Path(row[1]).stem: row for row in table("instances.csv")}
EXPECTED = {Path(row[1]).stem: row[2] for row in table("expected.csv")[1:]}
SECOND = [name for name in INSTANCES if name.startswith("v2_")]


@dataclass
class Outcome:
    """What the driver notes down: the verdict or what went wrong, seconds, contents of the result file."""

    verdict: str
    seconds: float
    result: str


class Driver:
    """The competition's side, in folders with blanks in their names."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "the driver"
        self.category = folder / "bench marks" / "own specs" / "1.0"
        self.notes = folder / "run folder"
        self.tool = folder / "lp verify"
        for made in (self.home, *(self.category / part for part in ("onnx", "vnnlib"))):
            made.mkdir(parents=True)
        names = {"LPVERIFY", "LPVERIFY_VENV", "LPVERIFY_RUN_DIR"}
        self.env = {name: value for name, value in os.environ.items() if name not in names} | {
            "LPVERIFY": str(self.tool),
            "LPVERIFY_RUN_DIR": str(self.notes),
            "OMP_NUM_THREADS": "1",
            "SHELLOPTS": "xtrace",  # as on the competition's machines
        }
        self.install(f'PYTHONPATH="{ROOT}" exec "{sys.executable}" -m lpverify "$@"')

    def install(self, body: str) -> None:
        """Puts another program in lpverify's place."""
        self.tool.write_text(f"#!/bin/sh\n{body}\n")
        self.tool.chmod(0o755)

    def add(self, name: str, packed: bool = False) -> tuple[str, str, str]:
        """Copies an instance; returns its line with prefixed paths."""
        field, query, seconds = INSTANCES[name]
        nets = [path for _, path in ast.literal_eval(field)] if field.startswith("[") else [field]
        for path in (*nets, query):
            content = (SPECS / path).read_bytes()
            if packed:
                (self.category / f"{path}.gz").write_bytes(gzip.compress(content))
            else:
                (self.category / path).write_bytes(content)
        if field.startswith("["):
            field = repr([(net, str(self.category / path)) for net, path in ast.literal_eval(field)])
        else:
            field = str(self.category / field)
        return field, str(self.category / query), seconds

    def add_hard(self) -> tuple[str, str]:
        """An instance that takes far longer than any limit here: a large random network, its output high."""
        rng = np.random.default_rng(0)
        sizes = (30, 80, 80, 80, 1)
        rows = [f"(declare-const X_{i} Real)" for i in range(30)] + ["(declare-const Y_0 Real)"]
        rows += [f"(assert (and (>= X_{i} -1) (<= X_{i} 1)))" for i in range(30)]
        nodes, tensors, name = [], [], "x"
        for i, (n, m) in enumerate(itertools.pairwise(sizes)):
            weight = rng.normal(size=(n, m)) / np.sqrt(n)
            tensors.append(numpy_helper.from_array(weight.astype(np.float32), f"w{i}"))
            nodes.append(helper.make_node("MatMul", [name, f"w{i}"], [f"z{i}"]))
            nodes.append(helper.make_node("Relu", [f"z{i}"], [f"a{i}"]))
            name = f"a{i}"
        ends = [helper.make_tensor_value_info(*end) for end in (("x", 1, [1, 30]), (f"z{i}", 1, [1, 1]))]
        graph = helper.make_graph(nodes[:-1], "hard", ends[:1], ends[1:], tensors)
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
        field, query = self.category / "onnx" / "hard.onnx", self.category / "vnnlib" / "hard.vnnlib"
        field.write_bytes(model.SerializeToString())
        query.write_text("\n".join([*rows, "(assert (>= Y_0 5))", ""]))
        return str(field), str(query)

    def call(self, script: str, *words: object, **options: object) -> subprocess.CompletedProcess:
        """Runs a script in the driver's folder."""
        defaults = {"cwd": self.home, "env": self.env, "stdin": subprocess.DEVNULL, "capture_output": True}
        command = [str(SCRIPTS / script), *map(str, words)]
        return subprocess.run(command, text=True, timeout=120, **(defaults | options))

    def start(self, *words: object) -> subprocess.Popen:
        """Starts run_instance.sh in a process group of its own, as `timeout` does."""
        command = [str(SCRIPTS / "run_instance.sh"), *map(str, words)]
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        return subprocess.Popen(command, cwd=self.home, env=self.env, process_group=0, **streams)

    def run(self, field: str, query: str, limit: object, grace: float = GRACE_SECONDS) -> Outcome:
        """One instance, as run_single_instance.sh does it."""
        if field.endswith(".gz") and not Path(field[:-3]).exists():
            Path(field[:-3]).write_bytes(gzip.decompress(Path(field).read_bytes()))
        field = field.removesuffix(".gz")
        prepared = self.call("prepare_instance.sh", "v1", "own specs", field, query)
        if prepared.returncode:
            return Outcome(f"prepare_instance_error_{prepared.returncode}", 0.0, prepared.stderr)
        result = self.home / "out.txt"
        result.write_text("no_result_in_file\n")
        begin = time.monotonic()
        words = "v1", "own specs", field, query, "out.txt", str(limit)
        command = ["timeout", str(float(limit) + grace), str(SCRIPTS / "run_instance.sh"), *words]
        options = {"cwd": self.home, "env": self.env, "stdin": subprocess.DEVNULL, "capture_output": True}
        done = subprocess.run(command, check=False, timeout=300, **options)
        seconds = time.monotonic() - begin
        text = result.read_text()
        if done.returncode:
            code = done.returncode
            return Outcome(
                "run_instance_timeout" if code == 124 else f"error_exit_code_{code}", seconds, text
            )
        verdict = "".join(text.partition("\n")[0].split())
        return Outcome("timeout" if seconds > float(limit) else verdict, seconds, text)

    def leftovers(self) -> list[str]:
        """Files beside the result file, and notes of running processes."""
        notes = list(self.notes.iterdir()) if self.notes.exists() else []
        return sorted(path.name for path in [*self.home.iterdir(), *notes] if path.name != "out.txt")


@pytest.fixture
def driver(tmp_path):
    return Driver(tmp_path / "a tool's folder")


def wait_until(condition, seconds=20.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)


def group_is_gone(group):
    """Whether a process group has no member that runs."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, member = path.read_text().rpartition(")")[2].split()[:3]
        except OSError:
            continue
        if member == str(group) and state != "Z":
            return False
    return True


# --- Real instances. ---


@pytest.mark.parametrize(
    ("name", "packed"), [(n, n == "toy_corner") for n in QUICK] + [("toy_corner", False)]
)
def test_instances_of_version_1(driver, name, packed):
    field, query, limit = driver.add(name, packed)
    outcome = driver.run(field, query, limit)
    assert outcome.verdict == EXPECTED[name], outcome
    assert score(outcome.result, field, Path(query)) == {"sat": "correct", "unsat": "unsat"}[EXPECTED[name]]
    assert driver.leftovers() == []


def test_names_with_gz(driver):
    field, query, limit = driver.add("toy_corner", packed=True)
    outcome = driver.run(f"{field}.gz", f"{query}.gz", limit)
    assert outcome.verdict == "sat"
    assert score(outcome.result, field, Path(query)) == "correct"


@needs_v2
@pytest.mark.parametrize(("name", "packed"), [(name, i % 3 == 0) for i, name in enumerate(SECOND)])
def test_instances_of_version_2(driver, name, packed):
    field, query, limit = driver.add(name, packed)
    outcome = driver.run(field, query, limit)
    assert outcome.verdict == EXPECTED[name], outcome
    assert score(outcome.result, field, Path(query)) == {"sat": "correct", "unsat": "unsat"}[EXPECTED[name]]
    assert driver.leftovers() == []


def test_the_limit_holds(driver):
    field, query = driver.add_hard()
    for limit in (1.5, "3.0"):
        outcome = driver.run(field, query, limit)
        assert outcome.verdict == "timeout"
        assert outcome.result == "timeout\n"
        assert 0.4 * float(limit) < outcome.seconds < float(limit)
    assert driver.leftovers() == []


def test_the_driver_may_stop_it(driver):
    field, query = driver.add_hard()
    outcome = driver.run(field, query, 60, grace=-58.5)
    assert outcome.verdict == "run_instance_timeout"
    assert outcome.result == "timeout\n"
    assert outcome.seconds < 10.0
    assert driver.leftovers() == []


# --- Other programs in lpverify's place. ---

FAKES = {
    "sat": ("printf 'sat\\n((X_0 1))\\n'", "sat\n((X_0 1))\n"),
    "unsat": ("echo unsat", "unsat\n"),
    "standard spelling": ("echo timed-out", "timeout\n"),
    "timeout": ("echo timeout", "timeout\n"),
    "unknown": ("echo unknown", "unknown\n"),
    "unsupported": ("echo 'can not do that' >&2; exit 3", "unknown\n"),
    "bad input": ("exit 1", "error\n"),
    "crash": ("echo Traceback >&2; exit 70", "error\n"),
    "verdict of a crash": ("echo unsat; exit 70", "error\n"),
    "half a witness": ("printf 'sat\\n((X_0 1)'; exit 1", "error\n"),
    "out of memory": ("echo unsat; kill -KILL $$", "error\n"),
    "ended by someone": ("echo unsat; kill -TERM $$", "error\n"),
    "nothing": (":", "error\n"),
    "chatter": ("echo loading; echo unsat", "error\n"),
}


@pytest.mark.parametrize("name", FAKES)
def test_what_a_program_says_and_what_is_noted(driver, name):
    body, expected = FAKES[name]
    driver.install(body)
    field, query, limit = driver.add("toy_order")
    outcome = driver.run(field, query, limit)
    assert outcome.result == expected
    assert outcome.verdict == expected.partition("\n")[0]
    assert driver.leftovers() == []


def test_a_program_does_not_get_the_shell_options_of_the_scripts(driver):
    driver.install("bash -c ': $NAME_OF_NOTHING; false; echo unsat'")
    field, query, limit = driver.add("toy_order")
    assert driver.run(field, query, limit).result == "unsat\n"


def test_a_program_that_ignores_its_limit_is_killed(driver):
    driver.install("trap '' TERM; echo unsat; sleep 60")
    field, query, _ = driver.add("toy_order")
    outcome = driver.run(field, query, 2)
    assert (outcome.verdict, outcome.result) == ("timeout", "timeout\n")
    assert driver.leftovers() == []


def test_the_result_file_is_never_half_written(driver):
    driver.install("printf 'sat\\n((X_0 1'; sleep 1; printf '))\\n'")
    field, query, limit = driver.add("toy_order")
    result = driver.home / "out.txt"
    process = driver.start("v1", "own specs", field, query, "out.txt", limit)
    wait_until(result.exists)
    seen = set()
    while process.poll() is None:
        seen.add(result.read_text())
        time.sleep(0.01)
    process.wait()
    assert seen <= {"timeout\n", "sat\n((X_0 1))\n"}
    assert "timeout\n" in seen
    assert result.read_text() == "sat\n((X_0 1))\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
@pytest.mark.parametrize(
    "body", ["sleep 60", "trap '' TERM; sleep 60 & wait; sleep 60", "echo unsat; sleep 60"]
)
def test_signals_end_the_program_too(driver, number, body):
    driver.install(body)
    field, query, limit = driver.add("toy_order")
    process = driver.start("v1", "own specs", field, query, "out.txt", limit)
    wait_until(lambda: driver.notes.exists() and any(note.read_text() for note in driver.notes.iterdir()))
    (note,) = driver.notes.iterdir()
    time.sleep(0.2)
    begin = time.monotonic()
    process.send_signal(number)
    process.wait(timeout=20)
    assert time.monotonic() - begin < 5.0
    assert process.returncode == 128 + number
    assert (driver.home / "out.txt").read_text() == "timeout\n"
    assert driver.leftovers() == []
    wait_until(lambda: group_is_gone(note.name))


def test_an_answer_that_a_signal_brings_out_is_kept(driver):
    driver.install("trap 'echo unsat; exit 0' TERM; sleep 60 & wait")
    field, query, limit = driver.add("toy_order")
    process = driver.start("v1", "own specs", field, query, "out.txt", limit)
    wait_until(lambda: driver.notes.exists() and any(note.read_text() for note in driver.notes.iterdir()))
    time.sleep(0.3)
    process.terminate()
    process.wait(timeout=20)
    assert process.returncode == 0
    assert (driver.home / "out.txt").read_text() == "unsat\n"


# --- prepare_instance.sh. ---


def test_leftovers_are_killed_and_nobody_else(driver):
    driver.install("sleep 300 & sleep 300 & wait")
    field, query, limit = driver.add("toy_order")
    process = driver.start("v1", "own specs", field, query, "out.txt", limit)
    wait_until(lambda: driver.notes.exists() and any(note.read_text() for note in driver.notes.iterdir()))
    (note,) = driver.notes.iterdir()
    process.kill()
    process.wait()
    wait_until(lambda: not group_is_gone(note.name))
    bystander = subprocess.Popen(["sleep", "300"], process_group=0)
    try:
        (driver.notes / str(bystander.pid)).write_text("1\n")  # a number that was used anew
        (driver.notes / "1").write_text("1\n")
        (driver.notes / "something").write_text("1\n")
        done = driver.call("prepare_instance.sh", "v1", "own specs", field, query)
        assert done.returncode == 0, done.stderr
        wait_until(lambda: group_is_gone(note.name))
        assert bystander.poll() is None
        assert {path.name for path in driver.notes.iterdir()} == {"1", "something"}
    finally:
        bystander.kill()
        bystander.wait()


def test_prepare_does_nothing_else(driver):
    driver.install("echo it ran >>calls")
    field, query, _ = driver.add("toy_order")
    before = sorted(driver.category.rglob("*"))
    assert driver.call("prepare_instance.sh", "v2", "own specs", field, query).returncode == 0
    assert sorted(driver.category.rglob("*")) == before
    assert list(driver.home.iterdir()) == []


def test_a_folder_of_someone_else_is_not_used(driver, tmp_path):
    field, query, limit = driver.add("toy_order")
    (tmp_path / "elsewhere").mkdir()
    driver.notes.symlink_to(tmp_path / "elsewhere")
    assert driver.call("prepare_instance.sh", "v1", "own specs", field, query).returncode == 1
    assert driver.call("run_instance.sh", "v1", "c", field, query, "out.txt", limit).returncode == 0
    assert (driver.home / "out.txt").read_text() == "unsat\n"
    assert list((tmp_path / "elsewhere").iterdir()) == []


# --- Arguments. ---


def calls(driver, field, query):
    """The words that lpverify gets, the limit left out."""
    driver.install("printf '%s\\n' \"$@\" >calls; echo unsat")
    assert driver.run(field, query, 10).verdict == "unsat"
    words = (driver.home / "calls").read_text().splitlines()
    assert words[0] == "verify"
    assert words[-2] == "--timeout"
    assert 5.0 <= float(words[-1]) <= 9.5
    return words[1:-2]


def test_one_network_has_the_positional_form(driver):
    field, query, _ = driver.add("v2_corner")
    assert calls(driver, field, query) == [field, query]


@pytest.mark.parametrize("packed", [False, True])
def test_several_networks_are_named(driver, packed):
    field, query, _ = driver.add("v2_monotone", packed)
    suffix = ".gz" if packed else ""
    net = driver.category / f"onnx/v2_rising.onnx{suffix}"
    words = [f"{query}{suffix}", "--network", f"f={net}", "--network", f"g={net}"]
    assert calls(driver, field, query) == words
    assert calls(driver, field.replace("(", "[").replace(")", "]"), query) == words


def test_relative_and_odd_names(driver):
    field, query, _ = driver.add("toy_order")
    for name in ("-x.onnx", "[a] 'b' $(c).onnx", "ü=1.onnx"):
        shutil.copy(field, driver.home / name)
        assert calls(driver, name, os.path.relpath(query, driver.home)) == [str(driver.home / name), query]


def test_the_same_name_twice_and_other_nonsense(driver):
    field, query, _ = driver.add("toy_order")
    for literal in (f"[('f', {field!r}), ('f', {field!r})]", "[]", f"[('f g', {field!r})]", f"[{field!r}]"):
        assert driver.run(literal, query, 10).verdict == "prepare_instance_error_1"
        assert driver.call("run_instance.sh", "v1", "c", literal, query, "out.txt", 10).returncode == 1
        assert (driver.home / "out.txt").read_text() == "error\n"


@pytest.fixture
def good(driver):
    """Arguments of run_instance.sh that are right."""
    field, query, _ = driver.add("toy_order")
    return ["v1", "own specs", field, query, "out.txt", "10"]


@pytest.mark.parametrize("script", ["run_instance.sh", "prepare_instance.sh", "install_tool.sh"])
def test_wrong_numbers_of_arguments(driver, good, script):
    count = {"run_instance.sh": 6, "prepare_instance.sh": 4, "install_tool.sh": 1}[script]
    for words in (
        [],
        good[: count - 1],
        [*good[:count], "more"],
        ["v3", *good[1:count]],
        [*good[: count - 1], ""],
    ):
        done = driver.call(script, *words)
        assert done.returncode == 1
        assert script in done.stderr
        assert done.stdout == ""
    assert list(driver.home.iterdir()) == []


@pytest.mark.parametrize("place", [2, 3])
def test_files_that_cannot_be_read(driver, good, place):
    broken = driver.home / "broken"
    made = [broken.mkdir, broken.rmdir, broken.touch]
    if os.geteuid():  # root can read it
        made += [lambda: (broken.write_text("x"), broken.chmod(0))]
    for make in made:
        make()
        words = [*good[:place], str(broken), *good[place + 1 :]]
        done = driver.call("prepare_instance.sh", *words[:4])
        assert done.returncode == 1
        assert "broken" in done.stderr
        done = driver.call("run_instance.sh", *words)
        assert done.returncode == 1
        assert "broken" in done.stderr
        assert (driver.home / "out.txt").read_text() == "error\n"


@pytest.mark.parametrize("limit", ["0", "-1", "soon", "nan", "inf", "1,5", "10; true"])
def test_limits_that_are_none(driver, good, limit):
    done = driver.call("run_instance.sh", *good[:5], limit)
    assert done.returncode == 1
    assert "time limit" in done.stderr
    assert list(driver.home.iterdir()) == []


def test_results_that_cannot_be_written(driver, good):
    (driver.home / "folder").mkdir()
    for results in ("missing/out.txt", "folder", "folder/", "/dev/null"):
        done = driver.call("run_instance.sh", *good[:4], results, "10")
        assert done.returncode == 1
        assert results.strip("/") in done.stderr
    assert Path("/dev/null").is_char_device()


def test_broken_files_are_errors(driver, good):
    garbage = driver.home / "garbage"
    garbage.write_text("(this is no")
    for place in (2, 3):
        words = [*good[:place], str(garbage), *good[place + 1 :]]
        assert driver.call("run_instance.sh", *words).returncode == 0
        assert (driver.home / "out.txt").read_text() == "error\n"


def test_without_lpverify(driver, good):
    driver.tool.unlink()
    assert driver.call("prepare_instance.sh", *good[:4]).returncode == 1
    done = driver.call("run_instance.sh", *good)
    assert done.returncode == 1
    assert "install_tool.sh" in done.stderr
    assert (driver.home / "out.txt").read_text() == "error\n"


def test_limits_of_lpverify():
    command = [sys.executable, str(SCRIPTS / "arguments.py"), "limit"]
    for seconds, spent in itertools.product((0.2, 1, 20, 100, 3600), (0.0, 0.1)):
        begin = time.time() - spent
        done = subprocess.run(
            [*command, str(seconds), str(begin)], capture_output=True, text=True, check=True
        )
        limit, end = map(float, done.stdout.split())
        rest = seconds - max(0.5, 0.02 * seconds)
        assert (
            max(0.5 * seconds, rest - spent - 1.0) - 0.001
            <= limit
            <= max(0.5 * seconds, rest - spent) + 0.001
        )
        assert limit < end < seconds


# --- install_tool.sh. ---

PYTHON = """#!/bin/sh
echo "$@" >>"{log}"
case "$1 $2 $3 $4" in
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
*" ."|"-m pip --no-input install")
    for last; do :; done
    [ "$last" = . ] || exit 0
    printf '#!/bin/sh\\necho 1.2.3\\n' >"${{0%/*}}/lpverify" && chmod +x "${{0%/*}}/lpverify" ;;
esac
"""


def test_installation(driver, tmp_path):
    log = tmp_path / "log"
    python = tmp_path / "py thon"
    python.write_text(PYTHON.format(log=log))
    python.chmod(0o755)
    venv = tmp_path / "a venv"
    del driver.env["LPVERIFY"]
    driver.env |= {"PYTHON": str(python), "LPVERIFY_VENV": str(venv)}
    seen = []
    for _ in range(2):
        done = driver.call("install_tool.sh", "v1")
        assert done.returncode == 0, done.stderr
        assert done.stdout == "1.2.3\n"
        seen.append(log.read_text().splitlines())
        log.unlink()
    made = [line for line in seen[0] if line.startswith("-m venv")]
    assert made == [f"-m venv {venv}"]
    assert [line for line in seen[1] if line.startswith("-m venv")] == []
    pips = [line for line in seen[0] if line.startswith("-m pip")]
    assert all(line.startswith("-m pip --no-input install") for line in pips)
    assert pips[-1].endswith(" .")


def test_installation_of_what_is_there(driver):
    driver.install("echo 1.2.3")
    assert driver.call("install_tool.sh", "v2").stdout == "1.2.3\n"


def test_entry_of_the_solver_database():
    from lpverify import __version__

    folder = SCRIPTS / "solver_database"
    lines = (folder / "install.sh").read_bytes().split(b"\n")
    assert lines[0] == b"#!/usr/bin/env bash"
    assert f"lpverify=={__version__}".encode() in b"\n".join(lines)
    assert os.access(folder / "install.sh", os.X_OK)
    import tomllib

    entry = tomllib.loads((folder / "solver.toml").read_text())
    assert set(entry) <= {"name", "url", "license", "contact"}
    assert "url" in entry
