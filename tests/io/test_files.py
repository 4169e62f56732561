"""Files that are there whole or not at all: full disks, folders that are gone, devices, links."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

import lpverify
import lpverify.io.files as files
from lpverify.errors import InputError
from lpverify.io.files import check_writable, write_atomically
from lpverify.io.results import ReportFile

ROOT = Path(lpverify.__file__).parent.parent


class _Full:
    """A file on a disk that is full; the error comes in `write` or, as with buffers, in `close`."""

    def __init__(self, path, when):
        self.file, self.when = open(path, "xb"), when  # noqa: SIM115

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def write(self, data):
        self.file.write(data[: len(data) // 2])
        self._fail("write")

    def close(self):
        self.file.close()
        self._fail("close")

    def _fail(self, when):
        if when == self.when:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fill(monkeypatch, when):
    def fail(source, target):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), source, target)

    if when == "rename":
        monkeypatch.setattr(os, "replace", fail)
    else:
        opened = open
        fake = lambda path, mode: _Full(path, when) if mode == "xb" else opened(path, mode)  # noqa: E731
        monkeypatch.setattr(files, "open", fake, raising=False)


def test_content_and_nothing_else(tmp_path):
    for data in (b"", b"\x00\xff\n", b"x" * 2**20):
        check_writable(tmp_path / "f")
        write_atomically(tmp_path / "f", data)
        assert (tmp_path / "f").read_bytes() == data
        assert os.listdir(tmp_path) == ["f"]


@pytest.mark.parametrize("when", ["write", "close", "rename"])
@pytest.mark.parametrize("old", [None, b"old"])
def test_a_full_disk(tmp_path, monkeypatch, when, old):
    target = tmp_path / "f"
    if old is not None:
        target.write_bytes(old)
    fill(monkeypatch, when)
    with pytest.raises(OSError, match="No space left") as caught:
        write_atomically(target, b"new content")
    monkeypatch.undo()
    assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(target))
    assert os.listdir(tmp_path) == ([] if old is None else ["f"])
    assert old is None or target.read_bytes() == old


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_no_draft_stays_whatever_happens(tmp_path, monkeypatch, error):
    def fail(*_):
        raise error

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(error):
        write_atomically(tmp_path / "f", b"new")
    assert os.listdir(tmp_path) == []


def test_folders_and_missing_folders(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"")
    for name in ("folder", "missing/f", "file/f"):
        for action in (check_writable, lambda path: write_atomically(path, b"new")):
            with pytest.raises(OSError):
                action(tmp_path / name)
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]
    assert os.listdir(tmp_path / "folder") == []


def test_a_folder_that_vanishes(tmp_path):
    (tmp_path / "folder").mkdir()
    file = ReportFile(str(tmp_path / "folder" / "r"))
    file.check()
    (tmp_path / "folder").rmdir()
    with pytest.raises(FileNotFoundError):
        file.write({})


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root writes everywhere")
def test_a_read_only_folder(tmp_path):
    (tmp_path / "folder").mkdir(mode=0o500)
    with pytest.raises(PermissionError):
        check_writable(tmp_path / "folder" / "f")
    with pytest.raises(InputError, match="can't write the report"):
        ReportFile(str(tmp_path / "folder" / "f")).check()


def test_names_as_long_as_allowed(tmp_path):
    target = tmp_path / ("n" * 255)
    write_atomically(target, b"new")
    assert target.read_bytes() == b"new"


@pytest.mark.skipif(os.name != "posix", reason="links as on POSIX")
def test_links_and_devices_stay(tmp_path):
    (tmp_path / "link").symlink_to("real")
    write_atomically(tmp_path / "link", b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"new"
    write_atomically(os.devnull, b"new")
    assert not os.path.isfile(os.devnull)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_device_that_is_full():
    with pytest.raises(OSError, match="No space left"):
        write_atomically("/dev/full", b"new")


def test_a_report_that_can_not_be_written_changes_no_verdict(tmp_path):
    (tmp_path / "r.json").write_text("old")
    code = f"""import errno, os, sys
def fail(*_): raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
os.replace = fail
files = ["onnx/toy.onnx", "vnnlib/toy_order.vnnlib"]
sys.argv = ["lpverify", "verify", *files, "--json", {str(tmp_path / "r.json")!r}]
from lpverify.supervisor import entry
entry()"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT / "vnnlib_specs",
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.stdout, done.returncode) == ("unsat\n", 0)
    assert done.stderr.count("\n") == 1
    assert "can't write the report" in done.stderr
    assert "No space left" in done.stderr
    assert os.listdir(tmp_path) == ["r.json"]
    assert (tmp_path / "r.json").read_text() == "old"
