"""Arrays in files: what NumPy and others write comes back; what is damaged or hostile is refused."""

import gzip
import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn

from lpverify.errors import InputError
from lpverify.io.arrays import Archive, parse_npy, read_npy, read_table

KINDS = st.one_of(
    hn.floating_dtypes(sizes=(16, 32, 64)),
    hn.integer_dtypes(),
    hn.unsigned_integer_dtypes(),
    hn.boolean_dtypes(),
)


def npy(array, **options):
    stream = io.BytesIO()
    np.lib.format.write_array(stream, array, **options)
    return stream.getvalue()


def npy_with(shape, descr="<f4", payload=b"", version=1):
    header = f"{{'descr': {descr!r}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(header))
    return b"\x93NUMPY" + bytes([version, 0]) + size + header + payload


@given(
    hn.arrays(KINDS, hn.array_shapes(min_dims=0, max_dims=4, min_side=0)), st.sampled_from([(1, 0), (2, 0)])
)
def test_arrays_come_back(array, version):
    found = parse_npy(npy(array, version=version), "")
    assert (found.dtype, found.shape) == (array.dtype, array.shape)
    np.testing.assert_array_equal(found, array)


def test_columns_first(tmp_path):
    array = np.asfortranarray(np.arange(6.0).reshape(2, 3))
    np.save(tmp_path / "a.npy", array)
    np.testing.assert_array_equal(read_npy(tmp_path / "a.npy"), array)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "magic"),
        (b"\x93NUMPY\x01\x00", "header"),
        (npy(np.zeros(4))[:-1], "truncated"),
        (npy_with("(1000000000000, 1000000)"), "truncated"),
        (npy_with("(10000000000000000000000000000,)"), "truncated"),
        (npy_with("(-1, 4)", payload=bytes(16)), "impossible shape"),
        (npy_with("(0, -4)"), "impossible shape"),
        (npy_with("(2.5,)"), "shape"),
        (npy_with("(4,)", descr="|O", payload=bytes(64)), "Object arrays cannot be loaded"),
        (npy_with("(4,)", descr="<q9", payload=bytes(64)), "a.npy: "),
        (npy_with("(" + "1, " * 200 + ")", payload=bytes(64)), "a.npy: "),
        (npy_with("(" * 4000 + ")" * 4000, payload=bytes(64)), "a.npy: "),
        (npy_with("(4,)", version=3, payload=bytes(64)), "version 3.0"),
        (b"\x80\x04K\x01.", "magic"),
    ],
)
def test_damaged_arrays(data, message):
    with pytest.raises(InputError, match=message) as caught:
        parse_npy(data, "a.npy")
    assert str(caught.value).startswith("a.npy: ")
    assert "\n" not in str(caught.value)


def test_objects_are_not_unpickled(tmp_path):
    np.save(tmp_path / "a.npy", np.array([None, 1]), allow_pickle=True)
    with pytest.raises(InputError, match="would have to be unpickled"):
        read_npy(tmp_path / "a.npy")


def test_no_such_file(tmp_path):
    for read in (read_npy, Archive.open, read_table):
        with pytest.raises(InputError, match="a: No such file"):
            read(tmp_path / "a")
        with pytest.raises(InputError, match=r"directory|plain file"):
            read(tmp_path)


def test_archives_come_back(tmp_path):
    arrays = {"x": np.arange(6).reshape(2, 3), "y": np.array([1.5])}
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", **arrays)
        file = Archive.open(tmp_path / "a.npz")
        assert set(file.members) == set(arrays)
        for name, array in arrays.items():
            np.testing.assert_array_equal(file.array(name), array)


def test_every_truncation_of_an_archive_is_refused(tmp_path):
    path = tmp_path / "a.npz"
    np.savez_compressed(path, x=np.arange(50.0))
    whole = path.read_bytes()
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"a\.npz: no readable"):
            Archive.open(path)


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_damaged_archives(tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=np.arange(50.0))
    whole = bytearray(path.read_bytes())
    whole[300] ^= 1  # of the array's numbers: its checksum does not fit
    path.write_bytes(whole)
    with pytest.raises(InputError, match="'x' is not readable: Bad CRC"):
        Archive.open(path).array("x")
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("x.npy", npy(np.zeros(2)))
        file.writestr("x.npy", npy(np.ones(2)))
    with pytest.raises(InputError, match="two arrays have one name"):
        Archive.open(path)


def test_bombs(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x.npy", npy_with("(1000000000000,)"))
        file.writestr("y.npy", npy_with("(40000000,)", "|u1", bytes(40_000_000)))
    archive = Archive.open(path)
    with pytest.raises(InputError, match=r"'x' is not readable: shape .* truncated"):
        archive.array("x")
    with pytest.raises(InputError, match=r"'y' has 4.* bytes: too many"):
        archive.array("y")


def table(tmp_path, text, name="t.csv"):
    data = text if isinstance(text, bytes) else text.encode()
    (tmp_path / name).write_bytes(data)
    return read_table(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    [
        "1,2.5\n3,-4e-3\n",
        "1;2.5\r\n3;-4e-3\r\n",
        "1\t2.5\n3\t-4e-3",
        "  1   2.5 \n\n 3 -4e-3\n",
        '# numbers\n"1","2.5"\n3,-4e-3\n',
        "\ufeff1, 2.5\n 3 , -4e-3\n",
    ],
)
def test_tables(tmp_path, text):
    found = table(tmp_path, text)
    assert found.header == ()
    np.testing.assert_array_equal(found.numbers, [[1, 2.5], [3, -4e-3]])


@pytest.mark.parametrize(
    ("header", "names"),
    [
        ("a,b", ("a", "b")),
        ('"a", b ', ("a", "b")),
        ("0,label", ("0", "label")),
        ("label,1", ("label", "1")),
        ("1x1,b_2", ("1x1", "b_2")),
    ],
)
def test_headers(tmp_path, header, names):
    found = table(tmp_path, f"{header}\n1,2\n")
    assert found.header == names
    np.testing.assert_array_equal(found.numbers, [[1, 2]])


@given(hn.arrays(np.float64, hn.array_shapes(min_dims=2, max_dims=2), elements={"allow_nan": False}))
def test_decimals_come_back(tmp_path_factory, array):
    path = tmp_path_factory.mktemp("t") / "t.csv.gz"
    text = "\n".join(",".join(map(repr, row)) for row in array.tolist())
    path.write_bytes(gzip.compress(text.encode()))
    np.testing.assert_array_equal(read_table(path).numbers, array)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no numbers"),
        ("a,b\n", "no numbers"),
        ("1,2\n3\n", "t.csv:2: 1 cells, but 2 in the first line"),
        ("1,2\n\n3,4,5\n", "t.csv:3: 3 cells, but 2"),
        ("a,b\n1,2,3\n", "t.csv:2: 3 cells, but 2"),
        ("1,2\n3,\n", "t.csv:2: '' is not a number"),
        ("1,2\n3,x\n", "t.csv:2: 'x' is not a number"),
        ("1,2\n3,1_0\n", "t.csv:2: '1_0' is not a number"),
        ("1,x2\n3,4\n", "t.csv:1: 'x2' is not a number"),  # no header: a sample with an error in it
        (b"1,2\n\xff\xfe,3\n", "t.csv: not UTF-8"),
        (gzip.compress(b"1,2\n")[:-3], "t.csv: damaged gzip file"),
        (gzip.compress(b"0" * 40_000_000), "t.csv: more than"),
    ],
)
def test_damaged_tables(tmp_path, text, message):
    with pytest.raises(InputError) as caught:
        table(tmp_path, text)
    assert message in str(caught.value)
    assert type(caught.value) is InputError
