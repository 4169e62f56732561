"""`lpverify certify`: the table, the files, going on from a store, Ctrl-C, everything that can be wrong."""

import csv
import json
import os
import signal
import sqlite3
import subprocess
import sys
import time
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from robustness.cases import classifier, layers_of

from lpverify.cli import main
from lpverify.robustness.store.store import SqliteStore

posix = pytest.mark.skipif(os.name != "posix", reason="needs signals")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    model = classifier(layers_of(0, (4, 10, 10, 3)))
    Path("net.onnx").write_bytes(model.serialized)
    x = np.random.default_rng(1).integers(0, 65, (6, 4)) / 64
    y = model.network(x).argmax(axis=-1)
    np.savez("data.npz", x=x, y=y)
    np.savez("pixels.npz", x=(x * 64).astype(np.uint8), y=y)
    np.savez("far.npz", x=x + 1, y=y)
    np.savez("nan.npz", x=np.where(x == x[2, 1], np.nan, x), y=y)
    np.savez("labels.npz", x=x, y=y + 2)
    np.savez("short.npz", x=x, y=y[:4])
    np.savez("wide.npz", x=np.ones((6, 5)), y=y)
    return tmp_path


def certify(capsys, *words, data="data.npz"):
    """Exit code, stdout, stderr."""
    code = main(["certify", "net.onnx", data, "--jobs", "0", "--time-per-sample", "5", *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def answered(capsys, *words, **options):
    code, out, err = certify(capsys, *words, **options)
    assert (code, err) == (0, "")
    return out


def rows(out):
    """Method and radius to proven, refuted and unknown, of the printed table."""
    found = {}
    for line in out.splitlines():
        cells = line.split()
        if len(cells) > 8 and cells[0] in ("ibp", "crown", "ladder", "smoothing"):
            found[cells[0], cells[1]] = [int(c) for c in cells[-4:-1]]
    return found


def test_table_and_files_say_the_same(folder, capsys):
    words = ("--eps", "1/64", "0.0625", "--clip", 0, 1, "--method", "ibp", "--method", "ladder")
    out = answered(capsys, *words, "--json", "o.json", "--csv", "o.csv", "--report", "o.html")
    table = rows(out)
    assert list(table) == [(m, e) for m in ("ibp", "ladder") for e in ("0.015625", "0.0625")]
    assert all(sum(counts) == 6 for counts in table.values())
    content = json.loads(Path("o.json").read_text())
    assert [[r[k] for k in ("proven", "refuted", "unknown")] for r in content["rows"]] == list(table.values())
    lines = list(csv.DictReader(Path("o.csv").read_text().splitlines()))
    assert len(lines) == 6 * 4
    for method, eps in table:
        some = [r["verdict"] for r in lines if r["method"] == method and float(r["radius"]) == float(eps)]
        assert [some.count(v) for v in ("proven", "refuted", "unknown")] == table[method, eps]
    html = Path("o.html").read_text()
    assert html.startswith("<!DOCTYPE html>") and "ladder" in html


def test_exact_radii(folder, capsys):
    answered(capsys, "--eps", "8/255", "0.1", "--json", "o.json")
    radii = [row["eps"] for row in json.loads(Path("o.json").read_text())["rows"]]
    assert [Fraction(r) for r in radii] == [Fraction(8, 255), Fraction(1, 10)]


def test_radius(folder, capsys):
    out = answered(capsys, "--radius", "--clip", 0, 1, "--method", "crown", "--json", "o.json")
    assert "ACR" in out
    radii = json.loads(Path("o.json").read_text())["radii"]["crown"]
    assert 0 < radii["average_lower"] < radii["average_upper"] <= 1


def test_smoothing_says_what_it_is_about(folder, capsys):
    words = ("--eps", "0.01", "--norm", 2, "--method", "smoothing", "--sigma", "0.1", "--n", 300)
    out = answered(capsys, *words)
    assert "smoothed classifier" in out and "1 - alpha" in out


def test_pixels_are_divided_and_networks_normalised(folder, capsys):
    plain = rows(answered(capsys, "--eps", "1/64", "1/16", "--clip", 0, 1))
    divided = answered(capsys, "--eps", "1/64", "1/16", "--clip", 0, 1, "--divide", 64, data="pixels.npz")
    before = answered(capsys, "--eps", 1, 4, "--clip", 0, 64, "--mean", 0, "--std", 64, data="pixels.npz")
    assert list(rows(divided).values()) == list(rows(before).values()) == list(plain.values())


def test_a_store_is_used_and_belongs_to_its_run(folder, capsys):
    words = ("--eps", "1/16", "--clip", 0, 1, "--store", "s.sqlite")
    first = rows(answered(capsys, *words))
    assert rows(answered(capsys, *words)) == first
    more = rows(answered(capsys, "--eps", "1/64", "1/16", *words[2:]))
    assert more["ladder", "0.0625"] == first["ladder", "0.0625"]
    code, out, err = certify(capsys, *words, "--targets", "next")
    assert (code, out) == (1, "") and "targets" in err and err.count("\n") == 1


@posix
def test_ctrl_c_prints_what_is_known(folder):
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "from lpverify.cli import main; sys.exit(main(sys.argv[1:]))"
    model = classifier(layers_of(1, (30, 200, 200, 200, 3)))
    Path("net.onnx").write_bytes(model.serialized)
    x = np.random.default_rng(1).random((6, 30)).astype(np.float32)
    np.savez("data.npz", x=x, y=model.network(x.astype(float)).argmax(axis=-1))
    words = ["certify", "net.onnx", "data.npz", "--eps", "0.05", "--time-per-sample", "600", "--jobs", "1"]
    command = [sys.executable, "-c", code, *words, "--store", "s.sqlite", "--no-attack"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as running:
        end = time.monotonic() + 60
        while time.monotonic() < end and running.poll() is None and not os.path.exists("s.sqlite-wal"):
            time.sleep(0.05)
        time.sleep(3)
        running.send_signal(signal.SIGINT)
        try:
            out, err = running.communicate(timeout=60)
        finally:
            running.kill()
    assert running.returncode == 130, err
    assert rows(out) and "incomplete" in out
    with SqliteStore("s.sqlite", stored("s.sqlite")) as store:
        assert list(store.findings())


def stored(path):
    """The fingerprint that a store was made with."""
    with sqlite3.connect(path) as connection:
        found = dict(connection.execute("SELECT key, value FROM fingerprint"))
    connection.close()
    return found


@pytest.mark.parametrize(
    ("words", "data", "message"),
    [
        ((), "data.npz", "at least one radius"),
        (("--eps", "-0.1"), "data.npz", "negative"),
        (("--eps", "nan"), "data.npz", "finite"),
        (("--eps", "0.1", "--norm", "3"), "data.npz", "none of inf, 2, 1"),
        (("--eps", "0.1", "--clip", "1", "0"), "data.npz", "not below"),
        (("--eps", "0.1", "--method", "magic"), "data.npz", "magic"),
        (("--eps", "0.1", "--method", "smoothing"), "data.npz", "needs sigma"),
        (("--eps", "0.1", "--method", "smoothing", "--sigma", "0"), "data.npz", "sigma"),
        (("--eps", "0.1", "--method", "smoothing", "--sigma", "-1"), "data.npz", "sigma"),
        (("--eps", "0.1", "--clip", "0", "1"), "far.npz", "outside of the range"),
        (("--eps", "0.1", "--clip", "0", "1"), "pixels.npz", "outside of the range"),
        (("--eps", "0.1"), "nan.npz", "nan"),
        (("--eps", "0.1"), "labels.npz", "label"),
        (("--eps", "0.1"), "short.npz", "label"),
        (("--eps", "0.1"), "wide.npz", "5"),
        (("--eps", "0.1"), "missing.npz", "missing.npz"),
        (("--eps", "0.1"), "net.onnx", "net.onnx"),
        (("--eps", "0.1", "--report", "no/where.html"), "data.npz", "where.html"),
        (("--eps", "0.1", "--csv", "a", "--json", "a"), "data.npz", "same file"),
        (("--eps", "0.1", "--store", "data.npz"), "data.npz", "not a store"),
        (("--radius",), "data.npz", "largest radius"),
        (("--radius", "0"), "data.npz", "positive"),
        (("--eps", "0.1", "--spare", "-1"), "data.npz", "negative"),
        (("--eps", "0.1", "--limit", "0"), "data.npz", "whole number from 1"),
    ],
)
def test_what_is_wrong_is_one_line(folder, capsys, words, data, message):
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    code, out, err = certify(capsys, *words, data=data)
    assert (code, out) == (1, "") and err.count("\n") == 1 and message in err
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_file_that_fails_after_all_does_not_lose_the_table(folder, capsys, monkeypatch):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lpverify.result_files.write_atomically", full)
    code, out, err = certify(capsys, "--eps", "1/64", "--csv", "o.csv")
    assert code == 1 and rows(out) and "error: can't write what --csv asks for" in err


def test_help_names_all_methods(capsys):
    with pytest.raises(SystemExit):
        main(["certify", "--help"])
    shown = capsys.readouterr().out
    assert all(name in shown for name in ("ladder", "lipschitz", "smoothing", "sdp-crown", "--radius"))
