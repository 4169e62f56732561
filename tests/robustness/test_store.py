"""Stores: exact round trips, natural keys, SIGKILL at any moment, locks, files of others, full disks."""

import math
import os
import random
import shutil
import signal
import sqlite3
import struct
import subprocess
import sys
import time
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

import lpverify
from lpverify.errors import InputError
from lpverify.robustness.evidence import Adversarial, Attempt, Clean, records_of
from lpverify.robustness.store.store import MemoryStore, SqliteStore
from lpverify.robustness.store.tables import PAGE

ROOT = Path(lpverify.__file__).parent.parent
PRINT = {"model": "a" * 64, "norm": "inf", "seed": "1"}
NAN, INF = math.nan, math.inf
posix = pytest.mark.skipif(os.name != "posix", reason="signals and limits")


def bits(value):
    return struct.pack("<d", value) if not math.isnan(value) else b"nan"


def same(finding):
    """Something comparable that differs wherever two findings do."""
    parts = []
    for value in vars(finding).values():
        exact = bits(value) if type(value) is float else value
        exact = (value.dtype.str, value.shape, value.tobytes()) if isinstance(value, np.ndarray) else exact
        parts.append((type(value), exact))
    return type(finding), *parts


def listed(store):
    return [same(finding) for finding in store.findings()]


def attempt(sample=0, eps=Fraction(1, 3), verdict="unknown", **options):
    return Attempt(sample, options.pop("method", "crown"), eps, verdict, "alpha", 0.1, **options)


def adversarial(sample=0, point=(1.0, 2.0), **options):
    options = {"predicted": 3, "distance": Fraction(1, 7), "source": "attack"} | options
    return Adversarial(sample, np.array(point), **options)


SPECIAL = [
    Clean(0, 3, True, -0.0),
    Clean(1, -1, False, NAN),
    Clean(2, 3, False, -INF),
    attempt(0, Fraction(8, 255), margin=-0.0),
    attempt(0, Fraction(3602879701896397, 2**55), margin=NAN),
    attempt(1, Fraction(0), margin=-INF, reason='a\0b\n\'; "ü"'),
    attempt(2**40, Fraction(10**300 + 1, 7**300), verdict="proven", margin=5e-324),
    attempt(3, Fraction(2), verdict="refuted", margin=INF, method=""),
    adversarial(0, (-0.0, NAN, INF, -INF, 5e-324, 0.1)),
    adversarial(0, (0.0, NAN, INF, -INF, 5e-324, 0.1)),  # another one: zeros have signs
    adversarial(5, (), distance=Fraction(1, 2**1074)),
    adversarial(6, np.arange(5000.0)),
]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run.db"


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_findings_come_back_exactly(kind, path):
    with MemoryStore() if kind == "memory" else SqliteStore(path, PRINT) as store:
        store.add(SPECIAL[:3])
        store.add([])
        store.add(SPECIAL[3:])
        assert listed(store) == [same(f) for f in SPECIAL]
    if kind == "sqlite":
        with SqliteStore(path, PRINT) as store:
            assert listed(store) == [same(f) for f in SPECIAL]
            points = [f.point for f in store.findings() if isinstance(f, Adversarial)]
        assert all(p.flags.writeable and p.dtype == np.float64 for p in points)
        assert os.listdir(path.parent) == ["run.db"]


def test_numpy_numbers_become_plain_ones(path):
    found = [
        Clean(np.int64(0), np.int64(2), np.True_, np.float64(1.5)),
        Attempt(np.int32(1), "ibp", Fraction(1, 2), "proven", "ibp", np.float32(0.5), "", np.float64(2)),
        Adversarial(np.int64(1), np.arange(4.0)[::2], np.int64(3), Fraction(1), "attack"),
    ]
    plain = [
        Clean(0, 2, True, 1.5),
        Attempt(1, "ibp", Fraction(1, 2), "proven", "ibp", 0.5, "", 2.0),
        Adversarial(1, np.array([0.0, 2.0]), 3, Fraction(1), "attack"),
    ]
    with SqliteStore(path, PRINT) as store:
        store.add(found)
        assert listed(store) == [same(f) for f in plain]


def test_text_that_has_no_encoding(path):
    with SqliteStore(path, PRINT) as store:
        store.add([attempt(reason="file \udcff")])
        assert [f.reason for f in store.findings()] == ["file \\udcff"]


def stores(path):
    return [MemoryStore(), SqliteStore(path, PRINT)]


def test_nothing_counts_twice(path):
    for store in stores(path):
        with store:
            store.add([attempt(1), adversarial(), Clean(0, 1, False, 0.0), attempt(2)])
            again = [attempt(1, reason="new"), adversarial(source="later"), Clean(0, 2, True, 1.0)]
            store.add([*again, *again])
            kept = [adversarial(), attempt(2), attempt(1, reason="new"), Clean(0, 2, True, 1.0)]
            assert listed(store) == [same(f) for f in kept]
            store.add([attempt(2, method="ibp"), attempt(2, Fraction(2, 3)), adversarial(1)])
            assert len(listed(store)) == 7


def test_unknown_displaces_no_answer(path):
    for store in stores(path):
        with store:
            store.add([attempt(1), attempt(2, verdict="proven"), attempt(3, verdict="refuted")])
            store.add([attempt(1, verdict="proven"), attempt(2), attempt(3)])
            assert [(f.sample, f.verdict) for f in store.findings()] == [
                (2, "proven"),
                (3, "refuted"),
                (1, "proven"),
            ]
            store.add([attempt(2, verdict="refuted"), attempt(3, verdict="proven")])
            assert [f.verdict for f in store.findings()] == ["proven", "refuted", "proven"]


def some_finding(rng):
    kind, sample = rng.randrange(3), rng.randrange(4)
    if kind == 0:
        return Clean(sample, rng.randrange(3), rng.random() < 0.5, rng.random())
    if kind == 1:
        point = [float(rng.randrange(3)), 0.5]
        return adversarial(sample, point, distance=Fraction(rng.randrange(9), 9))
    verdict = rng.choice(["proven", "refuted", "unknown"])
    return attempt(
        sample, Fraction(rng.randrange(3), 3), verdict, method=rng.choice("ab"), margin=rng.random()
    )


def test_both_stores_agree(path):
    rng = random.Random(1)
    memory, kept = MemoryStore(), SqliteStore(path, PRINT)
    for step in range(60):
        batch = [some_finding(rng) for _ in range(rng.randrange(4))]
        memory.add(batch)
        kept.add(batch)
        if step % 20 == 19:
            kept.close()
            kept = SqliteStore(path, PRINT)
            assert listed(memory) == listed(kept)
    kept.close()


def test_a_resumed_run_knows_what_the_first_one_knew(path):
    rng = random.Random(2)
    for count in (5, 50):
        found = [some_finding(rng) for _ in range(count)]
        found = [f for f in found if not isinstance(f, Attempt) or f.verdict != "refuted"]
        path.unlink(missing_ok=True)
        with SqliteStore(path, PRINT) as store:
            for finding in found:
                store.add([finding])
            live, again = records_of(4, found), records_of(4, store.findings())
        for one, other in zip(live, again, strict=True):
            for method in "ab":
                assert one.proven(method) == other.proven(method) and one.refuted == other.refuted
                for eps in (Fraction(1, 9), Fraction(1, 3), Fraction(2, 3)):
                    assert one.verdict(method, eps) == other.verdict(method, eps)


def test_many_rows_and_adding_while_reading(path):
    count = 3 * PAGE + 5
    for store in stores(path):
        with store:
            store.add([attempt(i) for i in range(count)])
            seen = []
            for finding in store.findings():
                if not seen:
                    store.add([adversarial(), attempt(3, reason="new")])
                seen += [finding.sample] if isinstance(finding, Attempt) else []
            assert set(seen) == set(range(count))


def test_all_or_none(path):
    for store in stores(path):
        with store:
            store.add([attempt(1)])
            with pytest.raises((AttributeError, KeyError)):
                store.add([attempt(2), "no finding"])
            assert [f.sample for f in store.findings()] == [1]


@pytest.mark.parametrize(
    ("other", "key"),
    [
        (PRINT | {"seed": "2"}, "seed"),
        (PRINT | {"model": "a" * 63 + "b"}, "model"),
        (PRINT | {"sigma": "1/4"}, "sigma"),
        ({"model": "a" * 64, "norm": "inf"}, "seed"),
        ({}, "model"),
    ],
)
def test_another_run(path, other, key):
    with SqliteStore(path, PRINT) as store:
        store.add([attempt()])
    before = path.read_bytes()
    with pytest.raises(InputError, match=f"another run: {key} differs .*use another store") as caught:
        SqliteStore(path, other)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < len(str(path)) + 150
    assert path.read_bytes() == before and os.listdir(path.parent) == ["run.db"]
    with SqliteStore(path, dict(reversed(PRINT.items()))) as store:
        assert len(listed(store)) == 1


def foreign(path, *statements):
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for statement in statements:
            connection.execute(statement)


def refused(path, words):
    before = path.read_bytes()
    with pytest.raises(InputError, match=words) as caught:
        SqliteStore(path, PRINT)
    assert "\n" not in str(caught.value) and str(path) in str(caught.value)
    assert path.read_bytes() == before


def test_files_that_are_no_stores(path):
    for content in (
        b"x",
        b"sample,label\n" * 1000,
        bytes(5000),
        b"SQLite format 3\0",
        b"SQLite format 3\0" * 500,
    ):
        path.write_bytes(content)
        refused(path, "not a store|damaged")


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_databases_of_others(path, mode):
    foreign(
        path, f"PRAGMA journal_mode={mode}", "CREATE TABLE photos (name)", "INSERT INTO photos VALUES (1)"
    )
    refused(path, "another program")
    path.unlink()
    foreign(path, f"PRAGMA journal_mode={mode}", "PRAGMA application_id=7")
    refused(path, "another program")


@pytest.mark.parametrize(
    ("statement", "words"),
    [
        ("PRAGMA user_version=2", "newer lpverify"),
        ("PRAGMA user_version=0", "another lpverify"),
        ("CREATE VIEW more AS SELECT 1", "damaged"),
        ("ALTER TABLE attempts ADD COLUMN more", "damaged"),
        ("DROP TABLE counterexamples", "damaged"),
        ("CREATE TRIGGER t AFTER INSERT ON clean BEGIN DELETE FROM clean; END", "damaged"),
    ],
)
def test_other_tables(path, statement, words):
    SqliteStore(path, PRINT).close()
    foreign(path, statement)
    refused(path, words)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE attempts SET eps = '1/0'",
        "UPDATE attempts SET eps = 'x'",
        "UPDATE attempts SET verdict = 'perhaps'",
        "UPDATE attempts SET margin = 'x'",
        "UPDATE attempts SET reason = CAST(X'ff' AS TEXT)",
        "UPDATE counterexamples SET point = X'00'",
        "UPDATE counterexamples SET point = zeroblob(16)",
        "UPDATE counterexamples SET distance = NULL",
    ],
)
def test_damaged_values(path, statement):
    with SqliteStore(path, PRINT) as store:
        store.add([attempt(), adversarial()])
    foreign(path, statement)
    with SqliteStore(path, PRINT) as store, pytest.raises(InputError, match=r"run\.db: "):
        list(store.findings())


def test_damaged_pages(path):
    with SqliteStore(path, PRINT) as store:
        store.add([attempt(i) for i in range(2000)])
    whole = path.read_bytes()
    rng = random.Random(3)
    for size in (100, 4096, len(whole) // 2, len(whole) - 5000):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError), SqliteStore(path, PRINT) as store:
            list(store.findings())
    for _ in range(30):
        start = rng.randrange(len(whole) - 4096)
        path.write_bytes(whole[:start] + rng.randbytes(4096) + whole[start + 4096 :])
        for rest in path.parent.glob("run.db-*"):
            rest.unlink()
        try:
            with SqliteStore(path, PRINT) as store:
                list(store.findings())
        except InputError:
            continue


def test_an_empty_file_is_a_new_store(path):
    path.touch()
    with SqliteStore(path, PRINT) as store:
        store.add([attempt()])
    with SqliteStore(str(path), PRINT) as store:
        assert len(listed(store)) == 1


def test_places_that_can_not_be(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        SqliteStore(tmp_path / "missing" / "run.db", PRINT)
    with pytest.raises(InputError, match="not a file"):
        SqliteStore(tmp_path, PRINT)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="no folder"):
        SqliteStore(tmp_path / "file" / "run.db", PRINT)
    if Path("/proc/self").exists():
        with pytest.raises(InputError, match="can't be"):
            SqliteStore("/proc/run.db", PRINT)
    if Path("/dev/full").exists():
        with pytest.raises(InputError, match="not a file"):
            SqliteStore("/dev/full", PRINT)


@posix
@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_read_only(path):
    SqliteStore(path, PRINT).close()
    for place, mode in ((path, 0o444), (path.parent, 0o555)):
        place.chmod(mode)
        with pytest.raises(InputError, match="can't be"):
            SqliteStore(path, PRINT)
        place.chmod(0o755)


def test_names_that_mean_something_to_sqlite(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in (":memory:", "file:x?mode=memory"):
        with SqliteStore(name, PRINT) as store:
            store.add([attempt()])
        assert Path(name).stat().st_size > 0


def test_closing(path):
    with SqliteStore(path, PRINT) as store:
        store.close()
    with pytest.raises(InputError):
        store.add([attempt()])
    shutil.move(path, path.with_suffix(".other"))  # nobody holds it


def test_one_store_at_a_time(path):
    with SqliteStore(path, PRINT) as store:
        for _ in range(2):
            start = time.monotonic()
            with pytest.raises(InputError, match="in use"):
                SqliteStore(path, PRINT)
            assert time.monotonic() - start < 2
        store.add([attempt()])
    with SqliteStore(path, PRINT) as store:
        assert len(listed(store)) == 1


# Other processes

HEAD = """import sys, time
sys.path.insert(0, {root!r})
from fractions import Fraction
import numpy as np
from lpverify.robustness.evidence import Adversarial, Attempt, Clean
from lpverify.robustness.store.store import SqliteStore
path, first = sys.argv[1], int(sys.argv[2])
def batch(n):
    rng = np.random.default_rng(n)
    clean = [Clean(100 * n + i, 1, True, 0.5) for i in range(n % 4)]
    tried = [Attempt(100 * n + i, "ibp", Fraction(n, 255), "proven", "ibp", 0.1) for i in range(5 + n % 7)]
    shared = Attempt(7, "shared", Fraction(n // 3, 9), "unknown", "", float(n))
    point = rng.random(10 ** rng.integers(1, 5))
    return [*clean, *tried, shared, Adversarial(100 * n, point, 2, Fraction(n, 9), "attack")]
"""
ADDING = """
with SqliteStore(path, {"a": "b"}) as store:
    print(-1, flush=True)
    for n in range(first, first + 10000):
        store.add(batch(n))
        print(n, flush=True)
"""
HOLDING = """
with SqliteStore(path, {"a": "b"}) as store:
    print("open", flush=True)
    time.sleep(100)
"""
FULL = """
import resource, signal
from lpverify.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with SqliteStore(path, {"a": "b"}) as store:
    store.add(batch(0))
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, hard))
    try:
        for n in range(1, 1000):
            store.add(batch(n))
    except InputError as error:
        print(n, "|", error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    store.add(batch(n + 1))
"""
NEW_FULL = """
import resource, signal
from lpverify.errors import InputError
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
try:
    SqliteStore(path, {"a": "b"})
except InputError as error:
    print(error)
"""
head = HEAD.format(root=str(ROOT))
names: dict = {}
exec(head.partition("path, first")[0] + head[head.index("def batch") :], names)
batch = names["batch"]


def process(code, path, first=0):
    command = [sys.executable, "-c", head + code, str(path), str(first)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def expected(numbers):
    memory = MemoryStore()
    for n in numbers:
        memory.add(batch(n))
    return listed(memory)


@posix
def test_killed_at_any_moment(path):
    rng, numbers = random.Random(4), []
    for _ in range(12):
        first = numbers[-1] + 1 if numbers else 0
        with process(ADDING, path, first) as running:
            if rng.random() < 0.8:
                assert running.stdout.readline() == "-1\n"
                time.sleep(rng.random() ** 2 * 0.1)
            else:  # maybe while the file is made or opened
                time.sleep(0.15 + rng.random() * 0.15)
            running.send_signal(signal.SIGKILL)
            told = [
                int(line) for line in running.stdout.read().splitlines() if line.endswith(tuple("0123456789"))
            ]
        numbers += [n for n in told if n >= 0]
        with SqliteStore(path, {"a": "b"}) as store:
            kept, following = listed(store), numbers[-1] + 1 if numbers else 0
        if kept != expected(numbers):  # the last call was finished, but nobody heard of it
            numbers.append(following)
            assert kept == expected(numbers)
    assert len(numbers) >= 3  # how many depends on the machine


@posix
def test_the_lock_goes_with_its_process(path):
    with process(HOLDING, path) as holder:
        assert holder.stdout.readline() == "open\n"
        with pytest.raises(InputError, match="in use by another process"):
            SqliteStore(path, {"a": "b"})
        holder.kill()
    with SqliteStore(path, {"a": "b"}) as store:
        store.add(batch(0))


@posix
def test_full_disks(path):
    with process(FULL, path) as running:
        out, _ = running.communicate(timeout=60)
    assert running.returncode == 0 and "run.db: " in out and out.count("\n") == 1
    failed = int(out.split()[0])
    with SqliteStore(path, {"a": "b"}) as store:
        assert listed(store) == expected([*range(failed), failed + 1])


@posix
def test_a_disk_too_full_for_a_new_store(path):
    with process(NEW_FULL, path) as running:
        out, _ = running.communicate(timeout=60)
    assert running.returncode == 0 and "run.db: " in out
    SqliteStore(path, PRINT).close()
