"""benchmarks/compare.py on small tables."""

import csv
import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "compare.py"
RESULT = ("commit", "family", "onnx", "vnnlib", "timeout_s", "verdict", "reference")
RESULT = (*RESULT, "agree", "wall_s", "reason")
PEERS = ("tool", "family", "onnx", "vnnlib", "verdict", "wall_s", "cpu_s", "peak_mb", "timeout_s")


@pytest.fixture(scope="module")
def compare() -> ModuleType:
    spec = importlib.util.spec_from_file_location("benchmarks_compare", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def write(path, columns, rows):
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    return str(path)


def result(family, name, verdict, wall=1.0, **more):
    row = {"commit": "c1", "timeout_s": "60", "agree": "-", "onnx": "n.onnx"}
    return row | {"family": family, "vnnlib": name, "verdict": verdict, "wall_s": wall} | more


def peer(tool, family, name, verdict, timeout="60.0"):
    row = {"tool": tool, "family": family, "onnx": "n.onnx", "vnnlib": name, "wall_s": "2"}
    return row | {"verdict": verdict, "timeout_s": timeout}


def lines_of(capsys):
    return [line.split() for line in capsys.readouterr().out.splitlines()]


def test_counts_ratio_and_lists(compare, tmp_path, capsys):
    first = [
        result("f", "p1", "sat", 1.0),
        result("f", "p2", "unsat", 4.0),
        result("f", "p3", "unsat", 3.0),
        result("g", "p1", "timeout", 60.0),
        result("g", "only_a", "sat"),
    ]
    second = [
        result("f", "p1", "sat", 2.0),
        result("f", "p2", "unsat", 0.5),
        result("f", "p3", "error", 0.1, reason="ValueError: no"),
        result("g", "p1", "unsat", 9.0),
    ]
    a = write(tmp_path / "a.csv", RESULT, first)
    b = write(tmp_path / "b.csv", RESULT, second)
    assert compare.main([a, b]) == 0
    lines = lines_of(capsys)
    assert " ".join(lines[0]) == "4 common; 1 only in A, 0 only in B"
    assert ["f", "3", "3", "2", "0", "1", "0.50"] in lines
    assert ["g", "1", "0", "1", "1", "0", "-"] in lines
    assert ["total", "4", "3", "3", "1", "1", "0.50"] in lines
    assert ["lost", "(1):"] in lines
    lost = "f n.onnx p3: unsat 3.0 s -> error 0.1 s ValueError: no"
    assert lost.split() in lines


def test_contradiction_exits_2(compare, tmp_path, capsys):
    a = write(tmp_path / "a.csv", RESULT, [result("f", "p1", "sat")])
    b = write(tmp_path / "b.csv", RESULT, [result("f", "p1", "unsat")])
    assert compare.main([a, b]) == 2
    assert "CONTRADICTIONS (1):" in capsys.readouterr().out
    assert subprocess.run([sys.executable, str(SCRIPT), a, b], check=False).returncode == 2


def test_wrong_verdict_is_not_solved(compare, tmp_path, capsys):
    a = write(tmp_path / "a.csv", RESULT, [result("f", "p1", "sat", agree="no")])
    b = write(tmp_path / "b.csv", RESULT, [result("f", "p1", "unknown")])
    assert compare.main([a, b]) == 0
    assert ["f", "1", "0", "0", "0", "0", "-"] in lines_of(capsys)


def test_last_row_counts_and_notes(compare, tmp_path, capsys):
    rows = [result("f", "p1", "timeout"), result("f", "p1", "sat", commit="c2", timeout_s="20")]
    a = write(tmp_path / "a.csv", RESULT, rows)
    b = write(tmp_path / "b.csv", RESULT, [result("f", "p1", "sat", 0.0)])
    assert compare.main([a, b]) == 0
    out = capsys.readouterr().out
    assert "mixes the commits c1, c2" in out
    assert "the limits of 1 common instances differ" in out
    assert ["f", "1", "1", "1", "0", "0", "0.00"] in [line.split() for line in out.splitlines()]


def test_peers(compare, tmp_path, capsys):
    ours = [
        result("f", "p1", "sat", reference="sat", agree="yes"),
        result("f", "p2", "unknown", reference="unsat"),
        result("g", "p1", "unsat", timeout_s="20"),
        result("g", "not_run_by_peers", "sat"),
    ]
    theirs = [
        peer("one", "f", "p1", "unsat"),
        peer("one", "f", "p2", "unsat"),
        peer("one", "g", "p1", "timeout"),
        peer("two", "f", "p1", "sat"),
        peer("two", "h", "p1", "sat"),
    ]
    a = write(tmp_path / "a.csv", RESULT, ours)
    peers = write(tmp_path / "peers.csv", PEERS, theirs)
    assert compare.main([a, "--peers", peers]) == 0
    lines = lines_of(capsys)
    assert ["family", "n", "ours", "one", "two"] in lines
    assert ["f", "2", "1", "1", "1", "of", "1"] in lines
    assert ["g", "1", "1", "0", "-"] in lines
    assert ["total", "3", "2", "1", "1", "of", "1"] in lines
    text = [" ".join(line) for line in lines]
    assert text[0] == "3 common; 1 of the peers' have no row here"
    assert text[1].startswith("note: the limits of 1 common")
    opposed = "one against ours, f n.onnx p1: unsat 2 s -> sat 1.0 s (reference: sat)"
    assert opposed in text


def test_bad_inputs(compare, tmp_path):
    a = write(tmp_path / "a.csv", RESULT, [])
    with pytest.raises(SystemExit, match="no such file"):
        compare.main([a, str(tmp_path / "none.csv")])
    with pytest.raises(SystemExit, match="lacks the columns tool"):
        compare.main([a, "--peers", a])
    with pytest.raises(SystemExit):
        compare.main([a])


def test_result_columns_are_those_of_run(compare):
    text = (SCRIPT.parent / "run.py").read_text()
    assert all(f'"{column}"' in text for column in RESULT)
