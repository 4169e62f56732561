"""Runs both fuzzers for a while: LPVERIFY_FUZZ_SECONDS for each, 30 unless told, 0 to leave them out."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SECONDS = int(os.environ.get("LPVERIFY_FUZZ_SECONDS", "30"))
LIMITS = ["-rss_limit_mb=3000", "-timeout=20", "-max_len=20000", "-print_final_stats=1"]

needs_atheris = pytest.mark.skipif(
    importlib.util.find_spec("atheris") is None, reason="atheris is not installed"
)


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(HERE), str(HERE.parent)])}


@needs_atheris
@pytest.mark.skipif(SECONDS == 0, reason="LPVERIFY_FUZZ_SECONDS is 0")
@pytest.mark.parametrize("side", ["vnnlib", "onnx"])
def test_fuzzing_finds_nothing(side: str, tmp_path: Path) -> None:
    run = [sys.executable, "-W", "ignore"]
    subprocess.run(
        [*run, str(HERE / "corpus.py"), side, str(tmp_path / "corpus")], env=environment(), check=True
    )
    command = [*run, str(HERE / f"fuzz_{side}.py"), str(tmp_path / "corpus"), *LIMITS]
    command += [f"-max_total_time={SECONDS}", f"-artifact_prefix={tmp_path}/"]
    command += [f"-dict={HERE / 'vnnlib.dict'}"] if side == "vnnlib" else []
    done = subprocess.run(
        command,
        env=environment(),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=SECONDS * 3 + 300,
    )
    found = re.search(r"number_of_executed_units: (\d+)", done.stderr)
    count = int(found[1]) if found else 0
    print(f"{side}: {count} executions in {SECONDS} s")
    assert done.returncode == 0, done.stderr[-4000:]
    assert count > 100


def test_seeds_and_mutations_are_models() -> None:
    """The corpus is not refused as a whole, and neither are the mutations."""
    script = (
        "import random, sys, warnings; warnings.simplefilter('ignore')\n"
        "from fuzz_models import mutate, own_models\n"
        "from lpverify.errors import InputError, UnsupportedError\n"
        "from lpverify.io.onnx import import_model\n"
        "taken = 0\n"
        "for model in own_models().values():\n"
        "    import_model(model.SerializeToString())\n"
        "    for seed in range(30):\n"
        "        copy = type(model)(); copy.CopyFrom(model); mutate(copy, random.Random(seed))\n"
        "        try: import_model(copy.SerializeToString()); taken += 1\n"
        "        except (InputError, UnsupportedError): pass\n"
        "assert 20 < taken < 160, taken\n"
    )
    subprocess.run([sys.executable, "-c", script], env=environment(), check=True, timeout=300)
