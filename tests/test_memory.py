"""The memory budget: sizes, what the system offers, and processes that use it up."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lpverify
from lpverify import memory
from lpverify.errors import InputError, out_of_memory
from lpverify.memory import Budget, default_budget, parse_size, resident
from lpverify.options import bounds_parser, verify_parser

ROOT = Path(lpverify.__file__).parent.parent
ENV = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
NET, UNSAT, SAT = "onnx/toy.onnx", "vnnlib/toy_order.vnnlib", "vnnlib/toy_corner.vnnlib"

linux = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc")


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("1500", 1500),
        ("2k", 2048),
        ("4G", 4 * 2**30),
        ("500M", 500 * 2**20),
        ("500MB", 500_000_000),
        ("1.5GiB", 3 * 2**29),
        ("1.5 gib", 3 * 2**29),
        ("0.5t", 2**39),
        ("10B", 10),
    ],
)
def test_sizes(text, size):
    assert parse_size(text) == size
    assert verify_parser().parse_args(["n", "q", "--memory", text]).memory == size


@pytest.mark.parametrize(
    "text", ["", "0", "0.2", "-1", "G", "1e9", "nan", "inf", "4X", "4iB", "4Gi", "1,5G", "٤G", "1_0"]
)
def test_no_sizes(text):
    with pytest.raises(ValueError, match=r"size|byte"):
        parse_size(text)
    with pytest.raises(InputError, match="expected 4G"):
        bounds_parser().parse_args(["n", f"--memory={text}"])


def test_budgets_in_words():
    assert [str(Budget(size)) for size in (2**20, 500 * 2**20, 3 * 2**29)] == ["1 MiB", "500 MiB", "1.5 GiB"]


@linux
def test_what_there_is():
    total = int(Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert 0 < default_budget() <= memory.SHARE * total
    data = b"x" * (64 << 20)
    before = resident()
    assert len(data) < before < total
    del data
    assert resident() < before


def test_limits_of_control_groups(tmp_path):
    """The tightest one on the way up; in both versions of the interface."""

    def found(lines, limits):
        (tmp_path / "cgroup").write_text(lines)
        for name, text in limits.items():
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(text)
        ends = (str(tmp_path / "v1{}/limit"), str(tmp_path / "v2{}/memory.max"))
        return memory._group(str(tmp_path / "cgroup"), *ends)

    assert found("0::/\n", {}) is None
    assert found("0::/a/b\n", {"v2/a/b/memory.max": "max\n", "v2/a/memory.max": "5000\n"}) == 5000
    assert found("0::/a/b\n", {"v2/a/b/memory.max": "4000\n"}) == 4000
    assert found("0::/../x\n5:cpu:/c\nodd\n", {"v1/c/limit": "1"}) is None
    assert found("4:cpu,memory:/e/d\n", {"v1/e/d/limit": f"{2**63 - 4096}\n", "v1/limit": "7000\n"}) == 7000
    assert memory._group(str(tmp_path / "missing")) is None


def test_systems_that_do_not_tell(monkeypatch):
    monkeypatch.setattr(memory, "resident", lambda: None)
    assert Budget(5).guard is None
    monkeypatch.setattr(memory, "default_budget", lambda: None)
    assert Budget().guard is None
    Budget().limit_allocations()


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (MemoryError(), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:118] DefaultCPUAllocator: not enough memory"), True),
        (RuntimeError("wrong shape"), False),
        (KeyError("alloc"), False),
        (InputError("a file about alloc"), False),
    ],
)
def test_words_for_out_of_memory(error, expected):
    assert out_of_memory(error) == expected
    outer = InputError("damaged file")
    outer.__context__ = error  # as after `raise ... from None`
    assert out_of_memory(outer) == expected


# --- processes ---


def run(action, *words, before="pass", where=UNSAT):
    """A run in which the verification of a property is preceded by something else."""
    code = f"""import importlib, sys, time
v = importlib.import_module("lpverify.verify")
original = v.verify_query
def instead(model, query, config, report):
    if query.path == {where!r}:
        {action}
    return original(model, query, config, report)
v.verify_query = instead
{before}
sys.argv = ["lpverify", *{list(map(str, words))!r}]
from lpverify.supervisor import entry
entry()"""
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, cwd=ROOT / "vnnlib_specs", env=ENV, capture_output=True, text=True, timeout=60
    )


@linux
def test_a_budget_that_is_used_up(tmp_path):
    words = ("verify", NET, SAT, UNSAT, SAT, "--memory", "300M", "--json", tmp_path / "r", "--exit-status")
    done = run("held = b'x' * (300 << 20); time.sleep(30)", *words)
    assert done.stdout.splitlines()[0] == f"{SAT} sat"
    assert done.stdout.endswith(f")\n{UNSAT} unknown\n{SAT} unknown\n")
    assert done.returncode == 10
    assert done.stderr.count("unknown: the memory budget of 300 MiB is used up") == 2
    reports = json.loads((tmp_path / "r").read_text())["queries"]
    assert [r["verdict"] for r in reports] == ["sat", "unknown", "unknown"]
    assert reports[0]["options"]["memory"] == 300 << 20


@linux
def test_within_the_budget():
    done = run("held = b'x' * (50 << 20); time.sleep(0.5)", "verify", NET, UNSAT, "--memory", "1G")
    assert (done.stdout, done.stderr, done.returncode) == ("unsat\n", "", 0)


@linux
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="not limited beside CUDA")
@pytest.mark.parametrize("action", ["bytearray(2**33)", "__import__('numpy').ones(2**30)"])
def test_a_huge_allocation_fails_at_once(action):
    """8 GiB with a budget of 1: it never gets there."""
    done = run(action, "verify", NET, UNSAT, SAT, "--memory", "1G")
    assert done.stdout.startswith(f"{UNSAT} unknown\n{SAT} sat\n")
    assert "unknown: out of memory" in done.stderr


@linux
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="not limited beside CUDA")
def test_torch_and_onnxruntime_work_within_the_limit():
    action = "; ".join(
        [
            "import torch",
            "assert (torch.ones(500, 500) @ torch.ones(500, 500)).sum() > 0",
            "from lpverify.solvers.highs import Highs",
            "import scipy.linalg as s, numpy as n",
            "s.cholesky(n.eye(500))",
        ]
    )
    done = run(action, "verify", NET, UNSAT, SAT, "--check-import", "--memory", "1G")
    assert done.stdout.startswith(f"{UNSAT} unsat\n{SAT} sat\n")
    assert done.stderr == ""


@linux
@pytest.mark.skipif(Path("/dev/nvidiactl").exists(), reason="not limited beside CUDA")
def test_bounds_have_a_budget():
    before = "import lpverify.bounds_command as c; c.bounds = lambda *_, **__: bytearray(2**33)"
    words = ("bounds", NET, "--property", UNSAT, "--memory")
    done = run("pass", *words, "1G", before=before)
    assert (done.stdout, done.returncode) == ("", 70)
    assert done.stderr == "lpverify: error: out of memory\n"
    assert run("pass", *words, "1G").returncode == 0


def test_a_system_that_does_not_tell_says_so_once():
    blind = "import lpverify.memory as m; m.resident = lambda: None"
    done = run("pass", "verify", NET, UNSAT, SAT, "--memory", "1G", before=blind)
    assert done.stderr == "lpverify: note: --memory has no effect on this system\n"
    assert run("pass", "verify", NET, UNSAT, before=blind).stderr == ""
