"""The public suite of tiny VNN-LIB 2 queries with known answers, run through the command line."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

SUITE = [sys.executable, "-m", "vnntest"]
SECONDS = 60  # for one query: time is measured elsewhere, and this machine may be busy
ILL_TYPED = (
    "network_isomorphic01"  # declares float16 for a model of float32, which the standard calls an error
)


@pytest.fixture(scope="module")
def solver(tmp_path_factory):
    """Writes an executable that is lpverify, with options for `verify`."""

    def make(*options: str) -> Path:
        path = tmp_path_factory.mktemp("solver") / "lpverify"
        program = f'"{sys.executable}" -m lpverify'
        path.write_text(
            "#!/bin/sh\n"
            f'if [ "$1" = verify ]; then shift; exec {program} verify "$@" {" ".join(options)}; fi\n'
            f'exec {program} "$@"\n'
        )
        path.chmod(0o755)
        return path

    return make


@pytest.fixture(scope="module")
def results(solver, tmp_path_factory):
    """The suite's report on all of its tests."""
    folder = tmp_path_factory.mktemp("suite")
    command = [*SUITE, "run", "--solver", str(solver("--lenient")), "--timeout", str(SECONDS)]
    subprocess.run(command, cwd=folder, capture_output=True, check=True)
    return folder, json.loads((folder / ".vnnlib-satisfactory" / "report.json").read_text())


def test_every_answer_is_right_and_none_is_left_out(results):
    _, report = results
    others = [
        (r["test_id"], r["outcome"], r["actual"], r["stderr"])
        for r in report["results"]
        if r["outcome"] != "pass"
    ]
    assert not others and not report["skipped"]
    assert report["summary"]["passed"] == len(report["results"]) == 178


def test_types_that_differ_are_refused_without_the_option(results, solver):
    folder, _ = results
    case = folder / ".vnnlib-satisfactory" / "tests" / "network_isomorphic" / ILL_TYPED
    networks = [f"--network={name}={case}.onnx" for name in ("N1", "N2")]
    done = subprocess.run([solver(), "verify", f"{case}.vnnlib", *networks], capture_output=True, text=True)
    assert done.returncode == 1 and not done.stdout
    assert "float16" in done.stderr and "float32" in done.stderr


@pytest.mark.parametrize("check", ["opset", "vnnlib", "serialise-assignments"])
def test_what_it_says_of_itself_has_the_form(check, solver):
    done = subprocess.run(
        [*SUITE, "compliance", check, "--solver", str(solver())], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout
