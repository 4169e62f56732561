"""Hashes, versions and memory of a report."""

import hashlib
import platform

import numpy as np

import lpverify
from lpverify.provenance import Provenance, peak_mb, sha256, versions


def test_versions():
    found = versions()
    assert found["lpverify"] == lpverify.__version__
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__


def test_hashes_are_gathered_in_the_background(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"content")
    gathered = Provenance({"network": str(path), "query": str(tmp_path / "missing")})
    gathered.wait(1.0)  # not started: nothing to wait for
    gathered.start()
    gathered.wait(30.0)
    digest = hashlib.sha256(b"content").hexdigest()
    assert sha256(str(path)) == digest
    assert gathered.files["network"] == {"path": str(path), "sha256": digest}
    assert gathered.files["query"]["sha256"] is None
    assert gathered.versions == versions()


def test_memory():
    assert peak_mb() is None or 1 < peak_mb() < 1e6
