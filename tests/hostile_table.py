"""Runs `lpverify verify` on every hostile file, in a process of its own, and prints a table.

python tests/hostile_table.py [--only TEXT] [--faults]
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from hostile import CASES
from hostile.cases import net, node
from hostile.properties import HEAD, PROPERTIES

SECONDS = 60  # that a run may take, with --timeout 10
MEMORY = 4 << 30  # of address space


def run(network: Path, prop: Path) -> tuple[int, str, float, int]:
    """Exit code, the first line that was printed, seconds, MB."""
    command = [sys.executable, "-m", "lpverify", "verify", str(network), str(prop), "--timeout", "10"]
    limit = lambda: resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))  # noqa: E731
    start = time.monotonic()
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, preexec_fn=limit)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                process.returncode = os.waitstatus_to_exitcode(status)
                break
            if time.monotonic() - start > SECONDS:
                process.kill()
            time.sleep(0.01)
        printed = []
        for file in (err, out):
            file.seek(0)
            printed += [
                line for line in file.read(10**6).decode("utf-8", "replace").splitlines() if line.strip()
            ]
    errors = [line for line in printed if "rror" in line] or printed or [""]
    return process.returncode, errors[0], time.monotonic() - start, usage.ru_maxrss >> 10


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", default="")
    parser.add_argument("--faults", action="store_true", help="only rows with another exit code than 0, 1, 3")
    parser.add_argument("--side", choices=("networks", "properties", "both"), default="both")
    args = parser.parse_args()
    print("| hazard | exit code | printed | s | MB |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        plain, prop = Path(name) / "plain.onnx", Path(name) / "plain.vnnlib"
        weights = {"w": np.float32([[1, -2], [3, 1]])}
        plain.write_bytes(
            net([node("MatMul", ["x", "w"], ["a"]), node("Relu", ["a"], ["y"])], weights).SerializeToString()
        )
        prop.write_text(HEAD + "(assert (>= Y_0 100))")
        jobs = [(case.name, case.write, None) for case in CASES if args.side != "properties"]
        jobs += [(name, None, make) for name, make in PROPERTIES.items() if args.side != "networks"]
        for number, (hazard, write, make) in enumerate(jobs):
            if args.only not in hazard:
                continue
            folder = Path(name) / str(number)
            folder.mkdir()
            network, text = plain, prop
            if write is not None:
                network = write(folder)
            elif make is not None:
                made = make()
                text = folder / "p.vnnlib"
                text.write_bytes(made if isinstance(made, bytes) else made.encode())
            code, line, seconds, megabytes = run(network, text)
            line = line.replace(str(folder), "").replace(name, "").replace("|", "\\|")
            if not args.faults or code not in (0, 1, 3):
                print(f"| {hazard} | {code} | {line[:110]} | {seconds:.1f} | {megabytes} |", flush=True)


if __name__ == "__main__":
    main()
