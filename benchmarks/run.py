"""Runs the verifier on VNN-COMP instances and writes one CSV row an instance.

    python benchmarks/run.py ROOT [ROOT ...] [--select quick|full|all|FAMILY[,FAMILY...]]

ROOT is a folder of family folders, or one family folder (then all its instances run, whatever
`--select` says). Every instance is a subprocess in its own process group; the whole group is killed
at the limit plus a grace. Rows are written at once, so a run that was cut off resumes: instances
that have a row of the same commit and limit are skipped (`--rerun` repeats them).

`commit` ends in `-dirty` when `lpverify/` or `pyproject.toml` differ from it; such a label does not
tell two edits apart, so repeat those with `--rerun`. `wall_s` runs from just before the start of
the process to its exit. `peak_mb` is the largest resident set of the process or of a child it
waited for; Linux counts in this script's own memory at the start, so it is never below about 20.

Exit code: 2 when a verdict contradicts the reference, else 1 when an instance crashed, else 0;
130 when interrupted.
"""

import argparse
import ast
import contextlib
import csv
import importlib.metadata
import json
import math
import os
import platform
import shlex
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from subprocess import DEVNULL

REPO = Path(__file__).resolve().parent.parent
SCHEMA = "1"
COLUMNS = (
    *("schema", "commit", "versions", "python", "host", "cores"),
    *("family", "onnx", "vnnlib", "timeout_s", "verdict", "reference", "agree"),
    *("wall_s", "peak_mb", "stage", "exit_code", "reason"),
)
SOLVED = ("sat", "unsat")
ANSWERS = (*SOLVED, "unknown", "timeout")
COUNTED = (*ANSWERS, "killed", "error")
PACKAGES = ("lpverify", "numpy", "onnxruntime", "highspy", "torch")
THREAD_VARIABLES = ("OMP", "OPENBLAS", "MKL", "NUMEXPR")
RSS_PER_MB = 1024**2 if sys.platform == "darwin" else 1024
REASON_LENGTH = 300

Row = dict[str, str]
Key = tuple[str, ...]
Child = subprocess.Popen[bytes]


@dataclass(frozen=True, slots=True)
class Instance:
    """One query: two files below `folder`, its limit, and the verdict others reached, or empty.

    `onnx` is a path, or VNN-COMP's literal of names and paths: `[('f', 'a.onnx'), ('g', 'b.onnx')]`.
    """

    folder: Path
    family: str
    onnx: str
    vnnlib: str
    timeout_s: float
    reference: str

    def key(self, commit: str) -> Key:
        """What tells the rows of an output file apart; see `row_key`."""
        return (self.family, self.onnx, self.vnnlib, f"{self.timeout_s:g}", commit)

    def arguments(self) -> list[str]:
        """Files and limit on the command line; a file may be there in packed form only."""
        query, limit = self._existing(self.vnnlib), ["--timeout", f"{self.timeout_s:g}"]
        if not self.onnx.startswith("["):
            return [self._existing(self.onnx), query, *limit]
        named = [f"--network={name}={self._existing(path)}" for name, path in ast.literal_eval(self.onnx)]
        return [query, *named, *limit]

    def _existing(self, name: str) -> str:
        path = self.folder / name
        packed = path.with_name(path.name + ".gz")
        return str(packed if packed.is_file() and not path.is_file() else path)


Outcomes = Generator[tuple[Instance, Row], None, None]


def read_lines(path: Path) -> list[list[str]]:
    """Lines of a CSV file with at least three fields."""
    if not path.is_file():
        sys.exit(f"no such file: {path}")
    with path.open(newline="") as file:
        return [[field.strip() for field in line] for line in csv.reader(file) if len(line) >= 3]


def listed(root: Path, select: str) -> list[list[str]]:
    """Family, two files and limit of what `select` names in a folder of family folders."""
    if select in ("quick", "full"):
        return read_lines(root / f"{select}.csv")[1:]
    families = select.split(",")
    if select == "all":
        families = sorted(path.parent.name for path in root.glob("*/instances.csv"))
    lists = {name: read_lines(root / name / "instances.csv") for name in families}
    return [[name, *line[:3]] for name, lines in lists.items() for line in lines]


def root_instances(root: Path, select: str, cap_s: float) -> list[Instance]:
    """Instances of one ROOT, each limited to the smaller of its own limit and `cap_s`."""
    is_family = (root / "instances.csv").is_file()
    base, select = (root.parent, root.name) if is_family else (root, select)
    tables = [path for folder in (base, root) if (path := folder / "reference.csv").is_file()]
    references = {tuple(ln[:3]): ln[3] for path in tables for ln in read_lines(path)[1:]}
    found = []
    for family, onnx, vnnlib, limit in listed(base, select):
        reference = references.get((family, onnx, vnnlib), "")
        cap = min(float(limit), cap_s)
        found.append(Instance(base / family, family, onnx, vnnlib, cap, reference))
    return found


def kill_group(leader: int) -> None:
    """Kills a process group; it may be gone already."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


class Runner:
    """Runs instances from several threads; `stop` kills all that are under way."""

    def __init__(self, command: Sequence[str], env: dict[str, str], grace_s: float) -> None:
        self.command = list(command)
        self.env = env
        self.grace_s = grace_s
        self._lock = threading.Lock()
        self._live: set[int] = set()
        self._stopped = False

    def run(self, instance: Instance) -> Row:
        """Runs one instance to its end or to the hard kill; returns what it did, as columns."""
        limit_s = instance.timeout_s + self.grace_s
        with tempfile.TemporaryDirectory(prefix="lpverify-bench-") as name:
            folder = Path(name)
            command = [*self.command, *instance.arguments(), "--json", f"{folder / 'report.json'}"]
            start = time.perf_counter()
            child = self._spawn(command, folder)
            wall_s, peak_mb = self._wait(child, start, limit_s)
            killed = wall_s >= limit_s and child.returncode == -signal.SIGKILL
            measured = {"wall_s": f"{wall_s:.3f}", "peak_mb": f"{peak_mb:.1f}"}
            return measured | answer(folder, killed) | {"exit_code": str(child.returncode)}

    def stop(self) -> None:
        """Kills every process group under way and lets no further one start."""
        with self._lock:
            self._stopped = True
            for pid in self._live:
                kill_group(pid)

    def _spawn(self, command: Sequence[str], folder: Path) -> Child:
        with self._lock, (folder / "out").open("wb") as out, (folder / "err").open("wb") as err:
            if self._stopped:
                raise InterruptedError
            child = subprocess.Popen(
                command, stdin=DEVNULL, stdout=out, stderr=err, env=self.env, start_new_session=True
            )
            self._live.add(child.pid)
        return child

    def _wait(self, child: Child, start: float, limit_s: float) -> tuple[float, float]:
        """Waits, kills what is left of the group, reaps; returns wall seconds and peak memory.

        It stays a zombie until its group was killed, so that its number cannot be reused meanwhile.
        `wait4` and not `getrusage`, which gives the maximum over all children.
        """
        timer = threading.Timer(limit_s, kill_group, (child.pid,))
        timer.start()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        wall_s = time.perf_counter() - start
        timer.cancel()
        timer.join()
        with self._lock:
            self._live.discard(child.pid)
        kill_group(child.pid)
        _, status, usage = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        return wall_s, usage.ru_maxrss / RSS_PER_MB


def answer(folder: Path, killed: bool) -> Row:
    """Verdict, stage and reason, from what a process wrote; before a hard kill nothing counts."""
    report = {}
    with contextlib.suppress(OSError, TypeError, ValueError):
        report = dict(json.loads((folder / "report.json").read_text()))
    with (folder / "out").open(errors="replace") as out:
        word = (out.readline(REASON_LENGTH).split() or [""])[0]
    with (folder / "err").open("rb") as err:
        err.seek(max(0, os.fstat(err.fileno()).st_size - 16384))
        lines = err.read().decode(errors="replace").strip().splitlines()
    reason = str(report.get("reason") or "")
    if killed:
        word, reason = "killed", "hard kill: the limit passed without an exit"
    elif word not in ANSWERS:
        word, reason = "error", lines[-1] if lines else reason or "no verdict and no message"
    texts = {"stage": str(report.get("stage") or ""), "reason": reason}
    short = {name: " ".join(text.split())[:REASON_LENGTH] for name, text in texts.items()}
    return {"verdict": word, **short}


def execute(runner: Runner, todo: Sequence[Instance], jobs: int) -> Outcomes:
    """Yields what instances did as they finish; closing it kills what is under way."""
    pool = ThreadPoolExecutor(jobs)
    try:
        futures = {pool.submit(runner.run, instance): instance for instance in todo}
        for future in as_completed(futures):
            yield futures[future], future.result()
    finally:
        runner.stop()
        pool.shutdown(cancel_futures=True)


def git(*arguments: str) -> str:
    """Output of a git command on this repository; empty where it fails."""
    command = ["git", "-C", str(REPO), *arguments]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def count_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def provenance() -> Row:
    """The columns that are the same in all rows of a run."""
    changed = git("status", "--porcelain", "--", "lpverify", "pyproject.toml")
    versions = dict.fromkeys(PACKAGES, "-")
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return {
        "schema": SCHEMA,
        "commit": (git("rev-parse", "--short", "HEAD") or "none") + ("-dirty" if changed else ""),
        "versions": " ".join(f"{package}={number}" for package, number in versions.items()),
        "python": platform.python_version(),
        "host": platform.node(),
        "cores": str(count_cores()),
    }


def result_row(shared: Row, instance: Instance, outcome: Row) -> Row:
    """The CSV row of a finished instance; `agree` is a dash unless both verdicts are definite."""
    row = shared | outcome
    row |= {name: getattr(instance, name) for name in ("family", "onnx", "vnnlib", "reference")}
    row["timeout_s"] = f"{instance.timeout_s:g}"
    definite = row["verdict"] in SOLVED and row["reference"] in SOLVED
    same = row["verdict"] == row["reference"]
    row["agree"] = ("yes" if same else "no") if definite else "-"
    return row


def row_key(row: Row) -> Key:
    """`Instance.key` of a row."""
    return tuple(row[name] for name in ("family", "onnx", "vnnlib", "timeout_s", "commit"))


def read_results(path: Path) -> dict[Key, Row]:
    """The rows of an output file, the last of each key; drops a line that was cut off."""
    if not path.is_file() or path.stat().st_size == 0:
        return {}
    content = path.read_bytes()
    if not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])
    with path.open(newline="") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or COLUMNS) != COLUMNS:
            sys.exit(f"{path} has other columns; name another --output")
        return {row_key(row): row for row in reader if row["schema"] == SCHEMA}


def progress(row: Row) -> str:
    """What is printed about a finished instance; a wrong verdict adds a loud line."""
    figures = f"{row['verdict']:8}{float(row['wall_s']):8.2f} s {float(row['peak_mb']):6.0f} MB"
    line = f"{figures}  {row['family']} {Path(row['onnx']).name} {Path(row['vnnlib']).name}"
    line += f"  ({row['reason']})" if row["reason"] else ""
    return f"{line}\n{wrong(row)}" if row["agree"] == "no" else line


def wrong(row: Row) -> str:
    """The alarm about a verdict that contradicts the reference."""
    names = f"{row['family']} {row['onnx']} {row['vnnlib']}"
    return f"WRONG !!! {row['verdict']}, but the reference says {row['reference']}: {names}"


def table_line(name: str, rows: Sequence[Row]) -> str:
    """Counts of some rows; solved leaves out the wrong ones, and times are of the solved."""
    verdicts = [row["verdict"] for row in rows]
    solved = [row for row in rows if row["verdict"] in SOLVED and row["agree"] != "no"]
    walls = sorted(float(row["wall_s"]) for row in solved)
    times = [statistics.median(walls), walls[math.ceil(0.9 * len(walls)) - 1]] if walls else []
    counts = [len(rows), len(walls), *map(verdicts.count, COUNTED)]
    counts.append(sum(row["agree"] == "no" for row in rows))
    cells = [*map(str, counts), *([f"{t:.2f}" for t in times] or ["-", "-"])]
    cells.append(f"{max(float(row['peak_mb']) for row in rows):.0f}")
    return f"{name:20}" + "".join(f"{cell:>9}" for cell in cells)


def summary(rows: Sequence[Row]) -> str:
    """The table per family, with a total."""
    header = ("n", "solved", *COUNTED, "wrong", "median_s", "p90_s", "max_mb")
    lines = [f"{'family':20}" + "".join(f"{name:>9}" for name in header)]
    families = dict.fromkeys(row["family"] for row in rows)
    lines += [table_line(name, [row for row in rows if row["family"] == name]) for name in families]
    return "\n".join([*lines, table_line("total", rows)])


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Command-line arguments."""
    parser = argparse.ArgumentParser(description="Run lpverify on VNN-COMP instances.")
    add = parser.add_argument
    add("roots", nargs="+", type=lambda text: Path(text).resolve(), metavar="ROOT")
    add("--select", default="quick", help="quick, full, all, or families with commas (%(default)s)")
    add("--filter", default="", help="only instances whose family or file names hold this text")
    add("--timeout", type=float, default=math.inf, help="cap on each instance's limit, seconds")
    add("--grace", type=float, default=5.0, help="seconds from limit to hard kill (%(default)s)")
    add("--jobs", type=int, default=1, help="instances at a time; they share the cores")
    add("--output", type=Path, help="CSV file (benchmarks/results/<select>-<commit>.csv)")
    add("--rerun", action="store_true", help="repeat instances that have a row")
    add("--solver", help="command before NET PROP, instead of 'PYTHON -m lpverify verify'")
    add("--python-args", default="", help="for PYTHON itself, such as --python-args='-X dev'")
    args = parser.parse_args(argv)
    if args.solver and not args.output:
        parser.error("--solver needs --output: its rows must not mix with those of this commit")
    return args


def make_runner(args: argparse.Namespace) -> Runner:
    """Command and environment: this tree's lpverify first, the cores shared out among the jobs."""
    python = [sys.executable, *shlex.split(args.python_args), "-m", "lpverify", "verify"]
    command = shlex.split(args.solver) if args.solver else python
    if shutil.which(command[0]) is None:
        sys.exit(f"no such command: {command[0]}")
    env = dict(os.environ)
    env["PYTHONPATH"] = os.pathsep.join(filter(None, (str(REPO), env.get("PYTHONPATH"))))
    if args.jobs > 1:
        share = str(max(1, count_cores() // args.jobs))
        env |= {f"{name}_NUM_THREADS": share for name in THREAD_VARIABLES}
    return Runner(command, env, args.grace)


def record(outcomes: Outcomes, count: int, shared: Row, path: Path) -> list[Row]:
    """Writes and prints the outcomes as they come; returns the rows."""
    rows: list[Row] = []
    with path.open("a", newline="") as file, contextlib.closing(outcomes) as finished:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        if file.tell() == 0:
            writer.writeheader()
        for instance, outcome in finished:
            rows.append(result_row(shared, instance, outcome))
            writer.writerow(rows[-1])
            file.flush()
            print(f"[{len(rows)}/{count}] {progress(rows[-1])}", flush=True)
    return rows


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the selection; the table and the exit code cover the resumed rows too."""
    args = parse(argv)
    shared = provenance()
    commit = shared["commit"]
    found = [i for root in args.roots for i in root_instances(root, args.select, args.timeout)]
    chosen = [i for i in found if args.filter in f"{i.family} {i.onnx} {i.vnnlib}"]
    instances = {instance.key(commit): instance for instance in chosen}
    if not instances:
        sys.exit("no instance selected")
    default = f"benchmarks/results/{args.select.replace(',', '+')}-{commit}.csv"
    path = args.output or REPO / default
    path.parent.mkdir(parents=True, exist_ok=True)
    known = read_results(path)
    old = {} if args.rerun else {key: known[key] for key in instances if key in known}
    todo = [instance for key, instance in instances.items() if key not in old]
    print(f"{len(todo)} to run, {len(old)} have a row of {commit}: {path}", flush=True)
    outcomes = execute(make_runner(args), todo, args.jobs)
    rows = [*old.values(), *record(outcomes, len(todo), shared, path)]
    alarms = [wrong(row) for row in rows if row["agree"] == "no"]
    print("\n".join(["", summary(rows), *alarms]))
    return 2 if alarms else int(any(row["verdict"] == "error" for row in rows))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        sys.exit(130)
