"""The command line as users and competitions run it: a process, its output, its exit code, its time."""

import gzip
import hashlib
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import lpverify

ROOT = Path(lpverify.__file__).parent.parent
ENV = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
WORDS = ("sat", "unsat", "unknown", "timeout", "timed-out")
SLACK_SECONDS = 0.3

posix = pytest.mark.skipif(os.name != "posix", reason="signals and pipes as on POSIX")
linux = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")


def run(*arguments, cwd=None, python=("-m", "lpverify"), **options):
    command = [sys.executable, *python, *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "timeout": 60} | options
    return subprocess.run(command, cwd=cwd, env=ENV, text=True, **options)


def start(*arguments, cwd=None, **options):
    command = [sys.executable, "-m", "lpverify", *map(str, arguments)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, cwd=cwd, env=ENV, text=True, **options)


def save_network(path, sizes, seed=0, spoil=None):
    """A dense ReLU network with random weights, or with the unit sum for sizes [2, 1]."""
    rng = np.random.default_rng(seed)
    nodes, tensors, name = [], [], "x"
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        weight = np.ones((n, m)) if sizes == [2, 1] else rng.normal(size=(n, m)) / np.sqrt(n)
        weight[0, 0] = weight[0, 0] if spoil is None else spoil
        tensors.append(numpy_helper.from_array(weight.astype(np.float32), f"w{i}"))
        nodes.append(helper.make_node("MatMul", [name, f"w{i}"], [f"z{i}"]))
        name = f"z{i}"
        if i < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [name], [f"a{i}"], name=f"relu{i}"))
            name = f"a{i}"
    nodes[-1].output[0] = "y"
    return save_graph(path, nodes, {"x": (1, sizes[0])}, {"y": (1, sizes[-1])}, tensors)


def save_graph(path, nodes, inputs, outputs, tensors=()):
    def infos(table):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in table.items()]

    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), list(tensors))
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


def property_text(inputs, low, high, *assertions, outputs=1):
    lines = [f"(declare-const X_{i} Real)" for i in range(inputs)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    for i in range(inputs):
        lines += [f"(assert (>= X_{i} {low}))", f"(assert (<= X_{i} {high}))"]
    return "\n".join([*lines, *(f"(assert {a})" for a in assertions)])


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """y = x_0 + x_1 with its properties, and a query that takes very long."""
    folder = tmp_path_factory.mktemp("cli")
    save_network(folder / "net.onnx", [2, 1])
    (folder / "net.onnx.gz").write_bytes(gzip.compress((folder / "net.onnx").read_bytes()))
    texts = {
        "unsat": property_text(2, 0, 1, "(>= Y_0 2.5)"),
        "sat": property_text(2, "0.1", "0.7", "(>= Y_0 0.25)"),
        "empty": property_text(2, 1, 0, "(>= Y_0 0.25)"),
        "wide": property_text(3, 0, 1, "(>= Y_0 0.25)"),
        "two_outputs": property_text(2, 0, 1, "(>= Y_1 0.25)", outputs=2),
        "no_bound": property_text(2, 0, 1, "(>= Y_0 1)").replace("(assert (<= X_1 1))", ""),
        "product": property_text(2, 0, 1, "(>= (* X_0 Y_0) 1)"),
        "syntax": property_text(2, 0, 1, "(>= Y_0 1"),
        "nested": property_text(2, 0, 1, "(and " * 100_000 + "(>= Y_0 1)" + ")" * 100_000),
        "version2": "(vnnlib-version <2.0>)",
        "blank": "",
    }
    for name, text in texts.items():
        (folder / f"{name}.vnnlib").write_text(text)
    (folder / "sat.vnnlib.gz").write_bytes(gzip.compress(texts["sat"].encode()))
    (folder / "bomb.vnnlib.gz").write_bytes(gzip.compress(b" " * (64 << 20)))
    (folder / "cut.vnnlib.gz").write_bytes(gzip.compress(texts["sat"].encode())[:-9])
    (folder / "bytes.vnnlib").write_bytes(b"\xff\xfe\x00")
    save_network(folder / "hard.onnx", [30, 80, 80, 80, 80, 1])
    (folder / "hard.vnnlib").write_text(property_text(30, -1, 1, "(>= Y_0 12)"))
    (folder / "easy.vnnlib").write_text(property_text(30, -1, 1, "(>= Y_0 1e9)"))
    return folder


def verdict(done):
    """The only verdict on stdout."""
    lines = done.stdout.splitlines()
    assert lines, done.stderr
    assert [line for line in lines if line in WORDS] == lines[:1]
    return lines[0]


# --- the answer ---


def test_unsat_is_one_word(files):
    done = run("verify", "net.onnx", "unsat.vnnlib", cwd=files)
    assert (done.stdout, done.stderr, done.returncode) == ("unsat\n", "", 0)


@pytest.mark.parametrize("files_", [("net.onnx", "sat.vnnlib"), ("net.onnx.gz", "sat.vnnlib.gz")])
def test_sat_comes_with_an_exact_witness(files, files_):
    done = run("verify", *files_, cwd=files)
    assert (verdict(done), done.stderr, done.returncode) == ("sat", "", 0)
    body = done.stdout.removeprefix("sat\n")
    assert body.startswith("((X_0 ")
    assert body.endswith("))\n")
    values = {name: Fraction(number) for name, number in re.findall(r"\((\w+) ([-\d.]+)\)", body)}
    assert list(values) == ["X_0", "X_1", "Y_0"]
    for i in range(2):
        assert Fraction("0.1") <= values[f"X_{i}"] <= Fraction("0.7")
    session = onnxruntime.InferenceSession(str(files / "net.onnx"), providers=["CPUExecutionProvider"])
    point = np.array([[float(values["X_0"]), float(values["X_1"])]], np.float32)
    assert [Fraction(float(v)) for v in point[0]] == [values["X_0"], values["X_1"]]
    assert Fraction(float(session.run(None, {"x": point})[0].item())) == values["Y_0"] >= Fraction("0.25")


def test_standard_form(files):
    done = run("verify", "sat.vnnlib", "--network", "f=net.onnx", "--timeout", "5.0", cwd=files)
    lines = done.stdout.splitlines()
    assert (verdict(done), done.returncode) == ("sat", 0)
    assert (lines[1], lines[4]) == ("X Real [1,2]", "Y Real [1,1]")
    assert len([float(v) for v in (*lines[2:4], lines[5])]) == len(lines) - 3
    done = run("verify", "--network", "f=net.onnx", "--timeout", "5.0", "unsat.vnnlib", cwd=files)
    assert done.stdout == "unsat\n"


def test_options_may_stand_anywhere(files):
    for words in itertools.permutations([["net.onnx"], ["unsat.vnnlib"], ["--timeout", "9"]]):
        flat = [w for word in words for w in word]
        if flat.index("net.onnx") < flat.index("unsat.vnnlib"):
            assert run("verify", *flat, cwd=files).stdout == "unsat\n"


def test_contradictory_bounds_are_unsat_with_a_note(files):
    done = run("verify", "net.onnx", "empty.vnnlib", cwd=files)
    assert (done.stdout, done.returncode) == ("unsat\n", 0)
    assert "note: the input set of the property is empty" in done.stderr
    assert run("verify", "net.onnx", "empty.vnnlib", "--quiet", cwd=files).stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("net.onnx", "sat.vnnlib"), 10),
        (("net.onnx", "unsat.vnnlib"), 20),
        (("hard.onnx", "hard.vnnlib", "--timeout", "0.01"), 40),
    ],
)
def test_exit_status(files, arguments, code):
    assert run("verify", *arguments, "--exit-status", cwd=files).returncode == code


def test_verbose_tells_stage_and_times_on_stderr(files):
    done = run("verify", "net.onnx", "unsat.vnnlib", "-v", "--check-import", "--record-proof", cwd=files)
    assert done.stdout == "unsat\n"
    assert "stage: interval bounds" in done.stderr
    assert "1 subproblem(s) closed, 0 open" in done.stderr
    assert "differs from onnxruntime by" in done.stderr


def test_recheck(files, tmp_path):
    done = run("verify", "net.onnx", "unsat.vnnlib", "--recheck", "-v", "--json", tmp_path / "r", cwd=files)
    assert (done.stdout, done.returncode) == ("unsat\n", 0)
    assert "1 leaves re-checked" in done.stderr
    assert json.loads((tmp_path / "r").read_text())["rechecked_leaves"] == 1
    assert verdict(run("verify", "net.onnx", "sat.vnnlib", "--recheck", cwd=files)) == "sat"
    assert verdict(run("verify", "net.onnx", "empty.vnnlib", "--recheck", cwd=files)) == "unsat"


# --- errors ---


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "arguments are required"),
        (("net.onnx",), "expected NET.onnx PROP.vnnlib, got 1 file"),
        (("net.onnx", "sat.vnnlib", "--network", "f=net.onnx"), "not UTF-8"),
        (("--network", "f=net.onnx"), "arguments are required"),
        (("net.onnx", "sat.vnnlib", "missing.vnnlib"), "missing.vnnlib: No such file"),
        (("net.onnx", "sat.vnnlib", "syntax.vnnlib", "sat.vnnlib"), "syntax.vnnlib:8:1: '(' is never closed"),
        (
            ("net.onnx", "sat.vnnlib", "wide.vnnlib"),
            "declares 3 inputs and 1 outputs, the network has 2 and 1",
        ),
        (("missing.onnx", "sat.vnnlib", "unsat.vnnlib"), "missing.onnx: No such file"),
        (("sat.vnnlib", "--network", "net.onnx"), "not of the form NAME=FILE"),
        (("net.onnx", "sat.vnnlib", "--timeout", "0"), "not a positive number"),
        (("net.onnx", "sat.vnnlib", "--timeout", "nan"), "not a positive number"),
        (("net.onnx", "sat.vnnlib", "--timeout", "soon"), "not a positive number"),
        (("net.onnx", "sat.vnnlib", "--time", "3"), "unrecognized arguments: --time"),
        (("net.onnx", "sat.vnnlib", "--seed", "-1"), "not a whole number"),
        (("missing.onnx", "sat.vnnlib"), "missing.onnx: No such file"),
        (("net.onnx", "missing.vnnlib"), "missing.vnnlib: No such file"),
        ((".", "sat.vnnlib"), "Is a directory"),
        (("net.onnx", "."), "Is a directory"),
        (("sat.vnnlib", "net.onnx"), "is this a VNN-LIB file?"),
        (("sat.vnnlib", "sat.vnnlib"), "not an ONNX file"),
        (("net.onnx", "net.onnx"), "net.onnx"),
        (("net.onnx", "wide.vnnlib"), "declares 3 inputs and 1 outputs, the network has 2 and 1"),
        (("net.onnx", "two_outputs.vnnlib"), "declares 2 inputs and 2 outputs"),
        (("net.onnx", "syntax.vnnlib"), "syntax.vnnlib:8:1: '(' is never closed"),
        (("net.onnx", "nested.vnnlib"), "brackets open"),
        (("net.onnx", "version2.vnnlib"), "version2.vnnlib:1"),
        (("net.onnx", "blank.vnnlib"), "no assertion"),
        (("net.onnx", "bytes.vnnlib"), "not UTF-8"),
        (("net.onnx", "bomb.vnnlib.gz"), "refused"),
        (("net.onnx", "cut.vnnlib.gz"), "damaged gzip file"),
        (("net.onnx", "sat.vnnlib", "--json", "missing/r.json"), "can't write the report"),
        (("net.onnx", "sat.vnnlib", "--json", "."), "can't write the report"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(files, arguments, message):
    done = run("verify", *arguments, cwd=files)
    assert (done.stdout, done.returncode) == ("", 1)
    assert done.stderr.startswith("lpverify: error: ")
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert len(done.stderr) < 400


def test_damaged_networks(files, tmp_path):
    whole = (files / "net.onnx").read_bytes()
    save_network(tmp_path / "nan.onnx", [2, 1], spoil=np.nan)
    (tmp_path / "cut.onnx").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "cut.onnx.gz").write_bytes(gzip.compress(whole)[:-9])
    (tmp_path / "text.onnx").write_text("not a network at all")
    (tmp_path / "blank.onnx").write_bytes(b"")
    (tmp_path / "bomb.onnx.gz").write_bytes(gzip.compress(bytes(64 << 20)))
    for network in sorted(tmp_path.glob("*.onnx*")):
        done = run("verify", network, files / "sat.vnnlib")
        assert (done.stdout, done.returncode, done.stderr.count("\n")) == ("", 1, 1), (network, done.stderr)
        assert done.stderr.startswith(f"lpverify: error: {network}")


def test_infinite_weights_are_refused(files, tmp_path):
    done = run("verify", save_network(tmp_path / "inf.onnx", [2, 1], spoil=np.inf), files / "sat.vnnlib")
    assert (done.stdout, done.returncode in (1, 3)) == ("", True)


@pytest.mark.parametrize("command", ["verify", "info"])
def test_unsupported_nodes_are_all_listed(files, tmp_path, command):
    nodes = [
        helper.make_node("RandomUniformLike", ["x"], ["d"], name="first"),
        helper.make_node("RandomNormalLike", ["x"], ["y"]),
    ]
    save_graph(tmp_path / "odd.onnx", nodes, {"x": (1, 2)}, {"y": (1, 2)})
    done = run(command, tmp_path / "odd.onnx", files / "sat.vnnlib")
    assert (done.stdout, done.returncode) == ("", 3)
    assert "2 unsupported node(s)" in done.stderr
    assert re.search(r"first.*RandomUniformLike.*opset 13", done.stderr)
    assert "RandomNormalLike" in done.stderr


def test_unsupported_queries(files):
    done = run("verify", "net.onnx", "product.vnnlib", cwd=files)
    assert (done.stdout, done.returncode) == ("", 3)
    done = run("verify", "sat.vnnlib", "--network", "f=net.onnx", "--network", "g=net.onnx", cwd=files)
    assert (done.stdout, done.returncode) == ("", 1)
    assert "is about one network, 2 are given" in done.stderr


def patched(files, patch, *options):
    """A run with some function replaced before it."""
    words = ["lpverify", "verify", "net.onnx", "sat.vnnlib", *options]
    code = f"import sys\nsys.argv = {words!r}\n{patch}\nfrom lpverify.cli import entry\nentry()\n"
    return run(python=("-c", code), cwd=files)


RAISE = """import lpverify.io.vnnlib
def boom(path, **options):
    raise {}
lpverify.io.vnnlib.read_query = boom"""


def test_internal_errors(files):
    done = patched(files, RAISE.format("KeyError('lost')"))
    assert (done.stdout, done.returncode) == ("", 70)
    assert done.stderr == "lpverify: error: internal error: KeyError: 'lost'\n"
    assert "Traceback" in patched(files, RAISE.format("KeyError('lost')"), "-v").stderr


def test_a_proof_that_fails_its_recheck_is_no_unsat(files):
    patch = """import lpverify.check as c
c.check_proof = lambda problem, proof: c.CheckReport(3, ("leaf 7 is not refuted",))
sys.argv[3] = "unsat.vnnlib\""""
    done = patched(files, patch, "--recheck", "--exit-status")
    assert (done.stdout, done.returncode) == ("unknown\n", 30)
    assert "leaf 7 is not refuted" in done.stderr
    assert verdict(patched(files, patch)) == "unsat"


def test_memory_errors_are_unknown(files):
    done = patched(files, RAISE.format("MemoryError()"), "--json", "memory.json", "--exit-status")
    assert (done.stdout, done.returncode) == ("unknown\n", 30)
    assert "out of memory" in done.stderr
    assert json.loads((files / "memory.json").read_text())["reason"] == "out of memory"


def test_an_import_that_differs_from_onnxruntime_is_told(files):
    patch = """import lpverify.network as n
call = n.Network.__call__
n.Network.__call__ = lambda self, x: call(self, x) * {}"""
    done = patched(files, patch.format(1.01), "--check-import")
    assert (done.stdout, done.returncode) == ("", 70)
    assert "differs from onnxruntime by 0.0" in done.stderr
    assert verdict(patched(files, patch.format(1.00001), "--check-import")) == "sat"


@posix
def test_an_answer_that_can_not_be_written_is_an_error(files):
    with open("/dev/full", "w") as full:
        done = run("verify", "net.onnx", "sat.vnnlib", cwd=files, stdout=full)
    assert done.returncode == 1
    assert "can't write the answer" in done.stderr
    command = f"{sys.executable} -m lpverify verify net.onnx sat.vnnlib"
    closed = subprocess.run(f"{command} >&-", shell=True, cwd=files, env=ENV, capture_output=True, text=True)
    assert closed.returncode == 1
    assert "stdout is closed" in closed.stderr
    silent = subprocess.run(
        f"{command} -v 2>&-", shell=True, cwd=files, env=ENV, capture_output=True, text=True
    )
    assert (verdict(silent), silent.returncode) == ("sat", 0)
    assert "lpverify:" not in silent.stdout


# --- the report ---


def test_report_of_a_sat(files, tmp_path):
    done = run("verify", "net.onnx", "sat.vnnlib", "--json", tmp_path / "r.json", "--seed", "5", cwd=files)
    content = json.loads((tmp_path / "r.json").read_text())
    assert verdict(done) == content["verdict"] == "sat"
    assert (content["schema"], content["semantics"], content["seed"]) == (1, "real", 5)
    assert content["options"]["timeout"] == 60
    assert {"lpverify", "python", "numpy", "onnxruntime", "highspy"} <= set(content["versions"])
    for role, name in (("network", "net.onnx"), ("query", "sat.vnnlib")):
        digest = hashlib.sha256((files / name).read_bytes()).hexdigest()
        assert content["files"][role] == {"path": name, "sha256": digest}
    assert {"load", "verify", "wall"} <= set(content["seconds"])
    assert content["seconds"]["wall"] < 60
    assert content["peak_mb"] > 10
    assert [f"(X_{i} {v})" in done.stdout for i, v in enumerate(content["witness"]["exact_inputs"])] == [
        True
    ] * 2
    assert sum(content["witness"]["inputs"]) == pytest.approx(content["witness"]["outputs"][0])
    assert os.listdir(tmp_path) == ["r.json"]


def test_report_of_an_error_replaces_the_old_one(files, tmp_path):
    (tmp_path / "r.json").write_text("old")
    run("verify", "net.onnx", "syntax.vnnlib", "--json", tmp_path / "r.json", cwd=files)
    content = json.loads((tmp_path / "r.json").read_text())
    assert content["verdict"] == "error"
    assert "never closed" in content["reason"]


def test_report_of_a_timeout(files, tmp_path):
    done = run("verify", "hard.onnx", "hard.vnnlib", "--timeout", "2", "--json", tmp_path / "r", cwd=files)
    content = json.loads((tmp_path / "r").read_text())
    assert (verdict(done), content["verdict"]) == ("timeout", "timeout")
    assert content["reason"]
    assert content["stage"]
    assert content["subproblems"]["open"] >= 1
    assert content["seconds"]["wall"] < 2


# --- time and signals ---


@linux
@pytest.mark.parametrize("limit", [0.05, 0.5, 2.0])
def test_the_limit_is_hard(files, limit):
    begin = time.monotonic()
    done = run("verify", "hard.onnx", "hard.vnnlib", "--timeout", limit, cwd=files)
    seconds = time.monotonic() - begin
    assert (done.stdout, done.returncode) == ("timeout\n", 0)
    assert seconds < limit + SLACK_SECONDS
    assert "limit" in done.stderr


def test_the_standard_form_spells_timeout_otherwise(files):
    done = run("verify", "hard.vnnlib", "--network", "f=hard.onnx", "--timeout", "0.5", cwd=files)
    assert done.stdout == "timed-out\n"


def test_one_verdict_when_limit_and_answer_race(files):
    for limit in np.linspace(0.05, 0.6, 12):
        done = run("verify", "net.onnx", "sat.vnnlib", "--timeout", f"{limit:.3f}", cwd=files)
        assert verdict(done) in ("sat", "timeout")
        assert done.returncode == 0
        assert done.stdout.startswith("sat\n((X_0 ") or done.stdout == "timeout\n"


def wait_for_handlers(child):
    """Until the process catches SIGTERM."""
    for _ in range(2000):
        status = Path(f"/proc/{child.pid}/status").read_text()
        if int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16) & (1 << (signal.SIGTERM - 1)):
            return
        time.sleep(0.005)
    raise AssertionError("no handler")


@linux
@pytest.mark.parametrize("pause", [0.0, 1.0])
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_with_what_is_known(files, tmp_path, number, code, pause):
    arguments = ("verify", "hard.onnx", "hard.vnnlib", "--json", tmp_path / "r.json")
    with start(*arguments, cwd=files) as child:
        wait_for_handlers(child)
        time.sleep(pause)
        begin = time.monotonic()
        child.send_signal(number)
        out, err = child.communicate(timeout=30)
    assert time.monotonic() - begin < 1.5
    assert (out, child.returncode) == ("unknown\n", code)
    assert "interrupted" in err
    assert "Traceback" not in err
    assert json.loads((tmp_path / "r.json").read_text())["reason"] == "interrupted"


@posix
def test_progress_is_for_terminals(files):
    import pty

    master, slave = pty.openpty()
    with start("verify", "hard.onnx", "hard.vnnlib", "--timeout", "1.5", cwd=files, stderr=slave) as child:
        os.close(slave)
        out = child.communicate(timeout=30)[0]
    shown = b""
    try:
        while chunk := os.read(master, 4096):
            shown += chunk
    except OSError:
        pass
    os.close(master)
    assert out == "timeout\n"
    assert shown.count(b"\r\x1b[K") >= 3
    assert b" s left" in shown
    assert shown.rindex(b"\r\x1b[K") < shown.index(b"lpverify: timeout:")


# --- several properties ---


def answers(done):
    """Path and verdict of each property on stdout, in that order."""
    return re.findall(rf"^(\S+) ({'|'.join(WORDS)}|error)$", done.stdout, re.MULTILINE)


@pytest.mark.parametrize("form", [("net.onnx",), ("--network", "f=net.onnx")])
def test_several_properties_are_answered_as_one_by_one(files, form):
    names = ("sat.vnnlib", "unsat.vnnlib", "empty.vnnlib", "sat.vnnlib", str(files / "unsat.vnnlib"))
    singles = [run("verify", *form, name, cwd=files) for name in names]
    done = run("verify", *form, *names, "--seed", "0", cwd=files)
    assert done.stdout == "".join(f"{n} {s.stdout}" for n, s in zip(names, singles, strict=True))
    assert done.returncode == 0
    assert done.stderr == "lpverify: empty.vnnlib: note: the input set of the property is empty\n"
    assert run("verify", *form, *names, "--quiet", cwd=files).stderr == ""


@posix
def test_answers_come_as_soon_as_they_are_known(files):
    with start("verify", "hard.onnx", "easy.vnnlib", "hard.vnnlib", cwd=files) as child:
        assert child.stdout.readline() == "easy.vnnlib unsat\n"
        assert child.poll() is None
        child.send_signal(signal.SIGINT)
        assert child.communicate(timeout=20)[0] == "hard.vnnlib unknown\n"
    assert child.returncode == 130


@pytest.mark.parametrize(
    ("network", "names", "code"),
    [
        ("net.onnx", ("unsat.vnnlib", "empty.vnnlib"), 20),
        ("net.onnx", ("unsat.vnnlib", "sat.vnnlib", "unsat.vnnlib"), 10),
        ("hard.onnx", ("hard.vnnlib", "easy.vnnlib"), 40),
    ],
)
def test_exit_status_of_several(files, network, names, code):
    done = run("verify", network, *names, "--exit-status", "--timeout", "1.5", cwd=files)
    assert done.returncode == code


def test_options_hold_for_each_property(files):
    options = ("-v", "--check-import", "--record-proof", "--recheck")
    done = run("verify", "net.onnx", "unsat.vnnlib", "sat.vnnlib", "unsat.vnnlib", *options, cwd=files)
    assert [word for _, word in answers(done)] == ["unsat", "sat", "unsat"]
    assert done.stderr.count("differs from onnxruntime by") == 1
    assert done.stderr.count("unsat.vnnlib: stage: ") == 2
    assert done.stderr.count("1 leaves re-checked") == 2


def test_report_of_several(files, tmp_path):
    names = ("sat.vnnlib", "unsat.vnnlib")
    run("verify", "net.onnx", *names, "--json", tmp_path / "r.json", cwd=files)
    content = json.loads((tmp_path / "r.json").read_text())
    assert list(content) == ["queries"]
    for name, found in zip(names, content["queries"], strict=True):
        run("verify", "net.onnx", name, "--json", tmp_path / "one.json", cwd=files)
        single = json.loads((tmp_path / "one.json").read_text())
        assert found["query"] == name
        assert set(found) == set(single) | {"query"}
        for key in ("verdict", "witness", "stage", "files", "versions", "options", "proof_nodes"):
            assert found[key] == single[key], key
    first, second = (found["seconds"] for found in content["queries"])
    assert first["start"] > 0
    assert list(second) == ["load", "verify", "answer", "wall"]
    assert second["wall"] < first["wall"]


@posix
def test_a_report_that_is_no_file_is_written_once(files):
    done = run("verify", "net.onnx", "unsat.vnnlib", "sat.vnnlib", "--json", "/dev/stderr", cwd=files)
    assert [found["verdict"] for found in json.loads(done.stderr)["queries"]] == ["unsat", "sat"]


def test_report_of_a_bad_file_among_several(files, tmp_path):
    run("verify", "net.onnx", "sat.vnnlib", "syntax.vnnlib", "--json", tmp_path / "r", cwd=files)
    content = json.loads((tmp_path / "r").read_text())["queries"]
    assert [found["query"] for found in content] == ["sat.vnnlib", "syntax.vnnlib"]
    for found in content:
        assert found["verdict"] == "error"
        assert found["reason"].startswith("syntax.vnnlib:8:1")


def test_a_limit_holds_for_each_property(files, tmp_path):
    names = ("hard.vnnlib", "easy.vnnlib", "hard.vnnlib", "easy.vnnlib")
    begin = time.monotonic()
    done = run("verify", "hard.onnx", *names, "--timeout", "2", "--json", tmp_path / "r", cwd=files)
    assert answers(done) == list(zip(names, ("timeout", "unsat") * 2, strict=True))
    assert 3.5 < time.monotonic() - begin < 8
    seconds = [r["seconds"]["wall"] for r in json.loads((tmp_path / "r").read_text())["queries"]]
    assert max(seconds) < 2 + SLACK_SECONDS
    assert min(seconds[::2]) > 1.8


# Replaces the verification of unsat.vnnlib by something else.
INSTEAD = """import importlib, time
v = importlib.import_module("lpverify.verify")
original = v.verify_query
def instead(model, query, config, report):
    if query.path == "unsat.vnnlib":
        {}
    return original(model, query, config, report)
v.verify_query = instead"""
THREE = ("unsat.vnnlib", "empty.vnnlib")  # after sat.vnnlib


def test_a_property_that_comes_back_late_loses_only_itself(files):
    late = INSTEAD.format("time.sleep(2.5)")
    done = patched(files, late, *THREE, "--timeout", "2", "--exit-status")
    assert [word for _, word in answers(done)] == ["sat", "timeout", "unsat"]
    assert "unsat.vnnlib: timeout: the limit of 2 s was reached; stage: first bounds" in done.stderr
    assert done.returncode == 10


def test_a_property_that_does_not_come_back_ends_the_process(files):
    stuck = INSTEAD.format("__import__('hashlib').pbkdf2_hmac('sha256', b'', b'', 2**31 - 1)")
    begin = time.monotonic()
    done = patched(files, stuck, *THREE, "sat.vnnlib", "--timeout", "2", "--json", "stuck.json")
    assert 7 < time.monotonic() - begin < 11
    assert [word for _, word in answers(done)] == ["sat", "timeout", "unknown", "unknown"]
    assert "empty.vnnlib: unknown: unsat.vnnlib did not end in time; stage: not started" in done.stderr
    assert done.returncode == 0
    reports = json.loads((files / "stuck.json").read_text())["queries"]
    assert [found["verdict"] for found in reports] == ["sat", "timeout", "unknown", "unknown"]


@linux
def test_loading_that_takes_too_long_loses_only_the_first(files):
    slow = """import time, lpverify.models as m
load = m.load_model
m.load_model = lambda *arguments: time.sleep(2.2) or load(*arguments)"""
    done = patched(files, slow, *THREE, "--timeout", "2")
    assert [word for _, word in answers(done)] == ["timeout", "unsat", "unsat"]


@linux
def test_reading_many_properties_does_not_use_up_the_first_limit(files):
    slow = """import time, lpverify.io.vnnlib as q
read = q.read_query
q.read_query = lambda path, **options: time.sleep(0.7) or read(path, **options)"""
    done = patched(files, slow, *THREE * 2, "--timeout", "3", "--json", "slow.json")
    assert [word for _, word in answers(done)] == ["sat", *("unsat",) * 4]
    reports = json.loads((files / "slow.json").read_text())["queries"]
    assert all(0.7 <= found["seconds"]["load"] < 2.5 for found in reports)
    assert all(found["seconds"]["wall"] < 3 for found in reports)


def test_an_internal_error_loses_only_its_property(files):
    broken = INSTEAD.format("raise KeyError('lost')")
    done = patched(files, broken, *THREE, "--json", "broken.json", "--exit-status")
    assert [word for _, word in answers(done)] == ["sat", "error", "unsat"]
    assert "lpverify: error: unsat.vnnlib: internal error: KeyError: 'lost'\n" in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 70
    reports = json.loads((files / "broken.json").read_text())["queries"]
    assert [found["verdict"] for found in reports] == ["sat", "error", "unsat"]
    assert reports[1]["reason"] == "KeyError: 'lost'"
    assert "Traceback" in patched(files, broken, *THREE, "-v").stderr


def test_out_of_memory_loses_only_its_property(files):
    done = patched(files, INSTEAD.format("raise MemoryError"), *THREE, "--exit-status")
    assert [word for _, word in answers(done)] == ["sat", "unknown", "unsat"]
    assert "unsat.vnnlib: unknown: out of memory" in done.stderr
    assert done.returncode == 10
    done = patched(files, RAISE.format("MemoryError()"), *THREE, "--exit-status")
    assert [word for _, word in answers(done)] == ["unknown"] * 3
    assert done.returncode == 30


@linux
@pytest.mark.parametrize("pause", [0.0, 1.0])
def test_signals_end_several_with_what_is_known(files, tmp_path, pause):
    arguments = ("verify", "hard.onnx", "hard.vnnlib", "easy.vnnlib", "--json", tmp_path / "r.json")
    with start(*arguments, cwd=files) as child:
        wait_for_handlers(child)
        time.sleep(pause)
        child.send_signal(signal.SIGTERM)
        out, err = child.communicate(timeout=30)
    assert (out, child.returncode) == ("hard.vnnlib unknown\neasy.vnnlib unknown\n", 143)
    assert "hard.vnnlib: unknown: interrupted; stage: " in err
    assert "easy.vnnlib: unknown: interrupted; stage: not started" in err
    reports = json.loads((tmp_path / "r.json").read_text())["queries"]
    assert [found["reason"] for found in reports] == ["interrupted"] * 2


@linux
def test_each_property_has_one_answer_when_limits_race(files):
    names = ("sat.vnnlib", "unsat.vnnlib", "sat.vnnlib")
    for limit in np.linspace(0.02, 0.6, 7):
        done = run("verify", "net.onnx", *names, "--timeout", f"{limit:.3f}", cwd=files)
        found = answers(done)
        assert [name for name, _ in found] == list(names)
        assert all(word in (expected, "timeout") for (name, word) in found for expected in [name[:-7]])
        assert done.returncode == 0


# --- the rest ---


def test_name_version_help():
    assert run("--name").stdout == "lpverify\n"
    assert run("--version").stdout == f"{lpverify.__version__}\n"
    assert f'version = "{lpverify.__version__}"' in (ROOT / "pyproject.toml").read_text()
    assert "verify NET.onnx PROP.vnnlib" in run("--help").stdout
    assert "--timeout" in run("verify", "--help").stdout
    assert "lpverify supports" in run("--help").stdout
    assert "lpverify bounds NET.onnx" in run("--help").stdout
    assert "alpha-crown" in run("bounds", "--help").stdout
    for words in ((), ("prove",), ("--verbose",)):
        done = run(*words)
        assert (done.stdout, done.returncode) == ("", 1)
        assert done.stderr.startswith("lpverify: error: ")


def test_the_command_line_itself_is_light():
    code = "import sys, lpverify.cli; print([m for m in sys.modules if m.split('.')[0] in {}])"
    heavy = {"numpy", "torch", "cvxpy", "scipy", "onnx", "onnxruntime", "highspy"}
    assert run(python=("-c", code.format(heavy))).stdout == "[]\n"


def test_a_trivial_query_needs_neither_torch_nor_cvxpy(files):
    words = ["lpverify", "verify", "net.onnx", "sat.vnnlib"]
    code = f"import sys; sys.argv = {words!r}; from lpverify.cli import main; main(); "
    code += "print([m for m in ('torch', 'cvxpy', 'highspy') if m in sys.modules], file=sys.stderr)"
    assert run(python=("-c", code), cwd=files).stderr == "[]\n"


def test_bounds(files):
    done = run(
        "bounds", "net.onnx", "--property", "sat.vnnlib", "--method", "ibp", "--method", "crown", cwd=files
    )
    assert (done.stderr, done.returncode) == ("", 0)
    assert [line.split()[:2] for line in done.stdout.splitlines()[4:7]] == [
        ["output", "method"],
        ["0", "ibp"],
        ["0", "crown"],
    ]


@posix
def test_bounds_without_stdout_are_an_error(files):
    command = f"{sys.executable} -m lpverify bounds net.onnx --property sat.vnnlib --json without.json >&-"
    closed = subprocess.run(command, shell=True, cwd=files, env=ENV, capture_output=True, text=True)
    assert (closed.returncode, closed.stderr.count("\n")) == (1, 1)
    assert "stdout is closed" in closed.stderr
    assert json.loads((files / "without.json").read_text())["methods"]  # what was found is not lost
    with open("/dev/full", "w") as full:
        done = run("bounds", "net.onnx", "--property", "sat.vnnlib", cwd=files, stdout=full)
    assert (done.returncode, "can't write the answer" in done.stderr) == (1, True)


def test_info(files):
    done = run("info", "hard.onnx", "hard.vnnlib", cwd=files)
    assert (done.stderr, done.returncode) == ("", 0)
    for line in ("input       x  float32 [1, 30]", "neurons     320", "9: 5 MatMul, 4 Relu", "cases       1"):
        assert line in done.stdout
    content = json.loads(run("info", "hard.onnx", "hard.vnnlib", "--json", cwd=files).stdout)
    assert content["network"]["onnx_ops"] == {"MatMul": 5, "Relu": 4}
    assert content["network"]["parameters"] == 30 * 80 + 3 * 80 * 80 + 80
    assert content["query"]["free_inputs"] == 30
    layers = content["query"]["layers"]
    assert [layer["neurons"] for layer in layers] == [80] * 4
    assert all(layer["unstable_crown"] <= layer["unstable_ibp"] for layer in layers)
    assert json.loads(run("info", "net.onnx", "--json", cwd=files).stdout)["query"] is None
    assert run("info", "net.onnx", "wide.vnnlib", cwd=files).returncode == 1
    assert "empty" in run("info", "net.onnx", "empty.vnnlib", cwd=files).stdout


def test_supports_answers_a_line_an_item():
    for command in ("supports", "capabilities"):
        done = run(command, "--vnnlib-versions")
        assert (done.stdout, done.stderr, done.returncode) == ("1.0\n2.1\n", "", 0)
    assert run("supports", "--serialise-assignments").stdout == "true\n"
    assert "Relu" in run("supports", "--onnx-operators").stdout.splitlines()
    done = run("supports", "--colours")
    assert (done.stdout, done.returncode) == ("", 1)
    assert "unrecognized arguments: --colours" in done.stderr
