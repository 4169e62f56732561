"""benchmarks/run.py against a fake solver whose behaviour is in the property's name."""

import csv
import importlib.util
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "run.py"

FAKE = """
import json, os, subprocess, sys, time

net, prop = sys.argv[1:3]
options = dict(zip(sys.argv[3::2], sys.argv[4::2]))
name = os.path.basename(prop)
with open(os.path.join(os.path.dirname(__file__), "calls"), "a") as calls:
    calls.write(f"{name} {options['--timeout']} {os.environ.get('OMP_NUM_THREADS', '-')}\\n")
if name.startswith("sleep"):
    code = "import time; time.sleep(60)"
    child = subprocess.Popen([sys.executable, "-c", code])
    print(os.getpid(), child.pid, file=open(os.path.join(os.path.dirname(__file__), "pids"), "w"))
    print("sat", flush=True)
    time.sleep(60)
if name.startswith("orphan"):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    print(os.getpid(), child.pid, file=open(os.path.join(os.path.dirname(__file__), "pids"), "w"))
    print("unsat", flush=True)
    os._exit(20)
if name.startswith("crash"):
    print("not a verdict")
    raise ValueError("broken, on purpose")
if name.startswith("silent"):
    sys.exit(3)
if name.startswith("big"):
    block = bytearray(200 * 2**20)
    block[::4096] = b"x" * len(block[::4096])
word = {"big": "unsat"}.get(name.split("_")[0], name.split("_")[0])
with open(options["--json"], "w") as report:
    report.write('[1' if "badjson" in name else json.dumps({"verdict": word, "stage": "crown"}))
print(word, "and more")
print("((X_0 1.0))")
sys.exit({"sat": 10, "unsat": 20}.get(word, 0))
"""


@pytest.fixture(scope="module")
def run() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_run", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


class Bench:
    """A folder of one family `fam`, the fake solver, and the runs of the script on them."""

    def __init__(self, folder, run):
        self.folder = folder
        self.run = run
        self.root = folder / "root"
        self.output = folder / "out.csv"
        (self.root / "fam").mkdir(parents=True)
        (folder / "fake.py").write_text(FAKE)

    def write(self, props, references=(), timeout="20"):
        names = [("onnx/net.onnx", f"vnnlib/{prop}.vnnlib") for prop in props]
        lines = [f"{net},{prop},{timeout}\n" for net, prop in names]
        (self.root / "fam" / "instances.csv").write_text("".join(lines))
        head = "family,onnx,vnnlib,timeout\n"
        (self.root / "quick.csv").write_text(head + "".join(f"fam,{line}" for line in lines))
        rows = [f"fam,{names[0][0]},vnnlib/{p}.vnnlib,{v},x,\n" for p, v in dict(references).items()]
        head = "family,onnx,vnnlib,verdict,evidence,best_time_s\n"
        (self.root / "reference.csv").write_text(head + "".join(rows))

    def arguments(self, *options, root=None):
        solver = shlex.join([sys.executable, str(self.folder / "fake.py")])
        return [str(root or self.root), "--solver", solver, "--output", str(self.output), *options]

    def main(self, *options, root=None):
        return self.run.main(self.arguments(*options, root=root))

    def rows(self):
        with self.output.open(newline="") as file:
            return list(csv.DictReader(file))

    def by_name(self):
        return {Path(row["vnnlib"]).stem: row for row in self.rows()}

    def calls(self):
        path = self.folder / "calls"
        return [line.split() for line in path.read_text().splitlines()] if path.exists() else []

    def pids(self):
        path = self.folder / "pids"
        wait_until(lambda: path.exists() and len(path.read_text().split()) == 2)
        return [int(word) for word in path.read_text().split()]


@pytest.fixture
def bench(tmp_path, run):
    return Bench(tmp_path, run)


def is_running(pid):
    """Whether a process runs; one that nobody has reaped yet does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until(condition, seconds=15.0):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def test_verdicts_columns_and_exit_code(bench, run, capsys):
    props = ["sat_a", "unsat_a", "unknown_a", "timeout_a", "unsat_badjson"]
    bench.write(props, references={"sat_a": "sat", "unsat_a": "unsat", "unknown_a": "sat"})
    assert bench.main() == 0
    rows = bench.by_name()
    assert [rows[prop]["verdict"] for prop in props] == [p.split("_")[0] for p in props]
    assert [rows[prop]["agree"] for prop in props] == ["yes", "yes", "-", "-", "-"]
    assert [rows[prop]["exit_code"] for prop in props] == ["10", "20", "0", "0", "20"]
    assert [rows[prop]["stage"] for prop in props] == ["crown"] * 4 + [""]
    row = rows["sat_a"]
    assert tuple(row) == run.COLUMNS
    assert row["schema"] == "1"
    assert row["commit"]
    assert row["versions"].startswith("lpverify=")
    assert row["timeout_s"] == "20"
    assert 0 < float(row["wall_s"]) < 20
    assert "WRONG" not in capsys.readouterr().out


def test_crash_is_an_error_with_the_last_line(bench):
    bench.write(["crash_a", "silent_a", "unsat_a"])
    assert bench.main() == 1
    rows = bench.by_name()
    assert rows["crash_a"]["verdict"] == "error"
    assert rows["crash_a"]["reason"] == "ValueError: broken, on purpose"
    assert rows["silent_a"]["verdict"] == "error"
    assert rows["silent_a"]["exit_code"] == "3"
    assert rows["unsat_a"]["verdict"] == "unsat"


def test_wrong_verdict_is_loud_and_beats_a_crash(bench, capsys):
    bench.write(["sat_a", "crash_a"], references={"sat_a": "unsat"})
    assert bench.main() == 2
    assert bench.by_name()["sat_a"]["agree"] == "no"
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("WRONG") and "sat_a" in line for line in lines)
    total = next(line.split() for line in lines if line.startswith("total"))
    assert total[1:10] == ["2", "0", "1", "0", "0", "0", "0", "1", "1"]
    assert bench.main() == 2, "a resumed run still reports it"


def test_hard_kill_takes_grandchildren(bench):
    bench.write(["sleep_a"], timeout="0.5")
    start = time.monotonic()
    assert bench.main("--grace", "1") == 0
    assert time.monotonic() - start < 15
    row = bench.by_name()["sleep_a"]
    assert row["verdict"] == "killed", "a verdict printed before the kill does not count"
    assert row["exit_code"] == str(-signal.SIGKILL)
    assert 1.5 <= float(row["wall_s"]) < 10
    pids = bench.pids()
    wait_until(lambda: not any(map(is_running, pids)))


def test_grandchild_left_behind_neither_delays_nor_survives(bench):
    bench.write(["orphan_a"])
    assert bench.main() == 0
    row = bench.by_name()["orphan_a"]
    assert (row["verdict"], row["exit_code"]) == ("unsat", "20")
    assert float(row["wall_s"]) < 15
    pids = bench.pids()
    wait_until(lambda: not any(map(is_running, pids)))


def test_resume_skips_rows_of_the_same_commit_and_limit(bench, capsys):
    bench.write(["sat_a", "unsat_a"])
    bench.main("--filter", "unsat_a")
    bench.main()
    assert [name for name, *_ in bench.calls()] == ["unsat_a.vnnlib", "sat_a.vnnlib"]
    table = capsys.readouterr().out
    assert next(ln for ln in reversed(table.splitlines()) if ln.startswith("fam")).split()[1] == "2"
    bench.main("--timeout", "7")
    assert len(bench.calls()) == 4
    bench.main("--rerun")
    assert len(bench.rows()) == len(bench.calls()) == 6


def test_rows_of_another_commit_do_not_count(bench, run, monkeypatch):
    bench.write(["sat_a"])
    bench.main()
    other = {**run.provenance(), "commit": "0000000"}
    monkeypatch.setattr(run, "provenance", lambda: other)
    bench.main()
    assert len(bench.rows()) == 2


def test_line_cut_off_is_dropped_and_run_again(bench):
    bench.write(["sat_a", "unsat_a"])
    bench.main()
    content = bench.output.read_bytes()
    bench.output.write_bytes(content[:-30])
    bench.main()
    assert [row["verdict"] for row in bench.rows()] == ["sat", "unsat"]
    assert len(bench.calls()) == 3


def test_other_columns_are_refused(bench):
    bench.write(["sat_a"])
    bench.output.write_text("a,b\n1,2\n")
    with pytest.raises(SystemExit, match="other columns"):
        bench.main()
    assert bench.output.read_text() == "a,b\n1,2\n"


def test_row_is_on_disk_while_later_instances_run_and_interrupt_kills(bench):
    bench.write(["sat_a", "sleep_a", "unsat_a"])
    command = [sys.executable, str(SCRIPT), *bench.arguments()]
    script = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        pids = bench.pids()
        assert [row["verdict"] for row in bench.rows()] == ["sat"]
        script.send_signal(signal.SIGTERM)
        _, errors = script.communicate(timeout=20)
    finally:
        script.kill()
    assert script.returncode == 130
    assert errors == "interrupted; the same command resumes\n"
    wait_until(lambda: not any(map(is_running, pids)))
    assert [row["verdict"] for row in bench.rows()] == ["sat"]
    assert "unsat_a.vnnlib" not in [name for name, *_ in bench.calls()]


def test_peak_memory_is_that_of_the_child(bench):
    # In a process of its own: Linux counts the parent's memory at the start in, and pytest is big.
    bench.write(["sat_before", "big_a", "sat_after"])
    subprocess.run([sys.executable, str(SCRIPT), *bench.arguments()], check=True, timeout=60)
    peaks = {name: float(row["peak_mb"]) for name, row in bench.by_name().items()}
    assert 200 <= peaks["big_a"] < 320
    assert 1 < peaks["sat_before"] < 100
    assert 1 < peaks["sat_after"] < 100


def test_peak_memory_of_concurrent_children(bench):
    bench.write(["sat_a", "big_a", "sat_b", "sat_c"])
    command = [sys.executable, str(SCRIPT), *bench.arguments("--jobs", "2")]
    subprocess.run(command, check=True, timeout=60)
    peaks = {name: float(row["peak_mb"]) for name, row in bench.by_name().items()}
    assert peaks.pop("big_a") >= 200
    assert max(peaks.values()) < 100


def test_jobs_share_the_cores(bench, monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(bench.run, "count_cores", lambda: 8)
    bench.write(["sat_a", "sat_b", "sat_c"])
    assert bench.main("--jobs", "3") == 0
    assert {threads for *_, threads in bench.calls()} == {"2"}
    bench.main("--rerun", "--filter", "sat_a")
    assert bench.calls()[-1][2] == "-"


def test_timeout_is_the_smaller_of_both(bench):
    bench.write(["sat_a"], timeout="20")
    bench.main("--timeout", "7.5")
    bench.main("--timeout", "300")
    assert [limit for _, limit, _ in bench.calls()] == ["7.5", "20"]
    assert [row["timeout_s"] for row in bench.rows()] == ["7.5", "20"]


def test_selections(bench):
    bench.write(["sat_a", "unsat_a"])
    (bench.root / "other").mkdir()
    (bench.root / "other" / "instances.csv").write_text("n.onnx,sat_o.vnnlib,5\n\n")
    bench.main("--select", "other")
    assert list(bench.by_name()) == ["sat_o"]
    bench.main("--select", "all")
    assert sorted(bench.by_name()) == ["sat_a", "sat_o", "unsat_a"]
    bench.main("--select", "fam,other", "--rerun")
    assert len(bench.rows()) == 6
    for select in ("full", "nosuch"):
        with pytest.raises(SystemExit, match="no such file"):
            bench.main("--select", select)
    with pytest.raises(SystemExit, match="no instance"):
        bench.main("--filter", "nosuch")


def test_family_folder_as_root_finds_the_references_above(bench):
    bench.write(["sat_a"], references={"sat_a": "unsat"})
    assert bench.main(root=bench.root / "fam") == 2
    assert bench.rows()[0]["family"] == "fam"


def test_packed_files_are_found(run, tmp_path):
    (tmp_path / "net.onnx.gz").touch()
    (tmp_path / "p.vnnlib").touch()
    (tmp_path / "p.vnnlib.gz").touch()
    instance = run.Instance(tmp_path, "fam", "net.onnx", "p.vnnlib", 60.0, "")
    names = [Path(text).name for text in instance.arguments()]
    assert names == ["net.onnx.gz", "p.vnnlib", "--timeout", "60"]


def test_default_command_runs_this_tree(run):
    runner = run.make_runner(run.parse(["root", "--python-args=-X dev"]))
    assert runner.command == [sys.executable, "-X", "dev", "-m", "lpverify", "verify"]
    assert runner.env["PYTHONPATH"].split(os.pathsep)[0] == str(SCRIPT.parents[1])


def test_solver_needs_an_output_and_must_exist(run, bench):
    with pytest.raises(SystemExit):
        run.parse(["root", "--solver", "x"])
    bench.write(["sat_a"])
    with pytest.raises(SystemExit, match="no such command"):
        bench.run.main([str(bench.root), "--solver", "/no/such", "--output", str(bench.output)])


def test_default_output_lies_in_the_results_folder(run, bench, monkeypatch, tmp_path):
    bench.write(["sat_a"])
    monkeypatch.setattr(run, "REPO", tmp_path)
    monkeypatch.setattr(run, "provenance", lambda: dict.fromkeys(run.COLUMNS[:6], "c0ffee"))
    run.main([str(bench.root), "--select", "fam,fam"])
    assert (tmp_path / "benchmarks" / "results" / "fam+fam-c0ffee.csv").is_file()


def test_table(run):
    def row(family, verdict, wall, agree="-", peak=10):
        return {
            "family": family,
            "verdict": verdict,
            "wall_s": str(wall),
            "agree": agree,
            "peak_mb": str(peak),
        }

    rows = [row("a", "sat", t) for t in range(1, 11)]
    rows += [row("a", "unsat", 99, agree="no"), row("a", "timeout", 60, peak=700)]
    rows += [row("b", "killed", 65), row("b", "unknown", 1), row("b", "error", 1)]
    table = [" ".join(line.split()) for line in run.summary(rows).splitlines()]
    header = "family n solved sat unsat unknown timeout killed error wrong median_s p90_s max_mb"
    assert table[0] == header
    assert table[1] == "a 12 10 10 1 0 1 0 0 1 5.50 9.00 700"
    assert table[2] == "b 3 0 0 0 1 0 1 1 0 - - 10"
    assert table[3] == "total 15 10 10 1 1 1 1 1 1 5.50 9.00 700"
