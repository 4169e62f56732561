"""Data sets: every format gives the same samples; whatever does not fit is refused in one line."""

import gzip
from decimal import Decimal
from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hn
from onnx import TensorProto, helper

from lpverify.errors import InputError
from lpverify.io.onnx import import_model
from lpverify.robustness.data.reading import read_samples, sample_shape, samples_of
from lpverify.robustness.data.rounding import nearest_number, quotients

CLASSES = 4
UNIT = (0, 1)


def classifier(shape, kind=TensorProto.FLOAT):
    """Some classifier of inputs of that shape."""
    size = int(np.prod([n for n in shape if isinstance(n, int)]))
    weight = helper.make_tensor("w", TensorProto.FLOAT, [size, CLASSES], np.ones(size * CLASSES))
    flat = helper.make_tensor("s", TensorProto.INT64, [2], [-1, size])
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Reshape", ["f", "s"], ["r"]),
        helper.make_node("MatMul", ["r", "w"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", kind, shape)]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)]
    graph = helper.make_graph(nodes, "g", inputs, outputs, [weight, flat])
    imports = [helper.make_opsetid("", 13)]
    return import_model(helper.make_model(graph, opset_imports=imports, ir_version=8).SerializeToString())


MODEL = classifier(["N", 2, 3])
X = np.array([[0.1, 1, 2, 3, 4, 5], [0, 0.2, 0, 0, 0, 1 / 3], [7, 7, 7, 7, 7, 7]])
Y = np.array([0, 3, 1])
SINGLE = X.astype(np.float32).astype(np.float64)


def same(found, x=SINGLE, y=Y):
    assert (found.x.dtype, found.y.dtype) == (np.float64, np.int64)
    np.testing.assert_array_equal(found.x, x)
    np.testing.assert_array_equal(found.y, y)
    assert len(set(found.names)) == len(found)


def refused(message, call, *args, **options):
    with pytest.raises(InputError) as caught:
        call(*args, **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# --- arrays ---


@pytest.mark.parametrize("shape", [(3, 6), (3, 2, 3), (3, 1, 2, 3), (3, 2, 3, 1)])
@pytest.mark.parametrize("y", [Y, Y.astype(float), Y[:, None], Y.tolist(), Y.astype(np.uint8)])
def test_arrays(shape, y):
    found = samples_of(MODEL, X.reshape(shape), y)
    same(found)
    assert (found.names, found.shape) == (("0", "1", "2"), (2, 3))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ((1, 3, 4, 5), (3, 4, 5)),
        (("N", 7), (7,)),
        ((7,), (7,)),
        ((1, 1), (1,)),
        ((1,), (1,)),
        ((2, 3), (2, 3)),
    ],
)
def test_shape_of_samples(shape, expected):
    assert sample_shape(classifier(shape)) == expected


def test_names():
    assert samples_of(MODEL, X, Y, names=["a", "b", "c"]).names == ("a", "b", "c")
    refused("2 names for 3 samples", samples_of, MODEL, X, Y, names=["a", "b"])
    refused("two samples have the name 'b'", samples_of, MODEL, X, Y, names=["a", "b", "b"])
    refused("expected strings", samples_of, MODEL, X, Y, names=[1, 2, 3])


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (X.reshape(3, 3, 2), "shape (3, 3, 2), the model takes (N, 2, 3) or (N, 6), axes in another order"),
        (X[:, :5], "shape (3, 5), the model takes (N, 2, 3) or (N, 6)"),
        (X[0], "shape (6,)"),
        (np.float32(1), "shape ()"),
        (X[:0], "there are no samples"),
        ([[1, 2], [3]], "x: "),
        (X.astype(str), "x: expected numbers"),
        (X.astype(complex), "x: expected numbers"),
        (X.astype(object), "x: expected numbers"),
    ],
)
def test_wrong_inputs(x, message):
    refused(message, samples_of, MODEL, x, Y[:0] if message == "there are no samples" else Y)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_inputs_that_are_not_finite(value):
    x = X.copy()
    x[1, 4] = value
    refused(f"sample 1 has {value} as its element 4", samples_of, MODEL, x, Y)
    refused("sample 1 has", samples_of, MODEL, x.astype(np.float16), Y)


def test_inputs_beyond_the_type():
    x = X.copy()
    x[2, 0] = -1e39
    refused("sample 2 has -1e+39 as its element 0, which float32 can't hold", samples_of, MODEL, x, Y)
    x[2, 0] = 1e-60
    assert samples_of(MODEL, x, Y).x[2, 0] == 0


@pytest.mark.parametrize(
    ("y", "message"),
    [
        (Y[:2], "labels have shape (2,), expected (3,)"),
        ([0, 1, 4], "the label of sample 2, 4, is no class from 0 to 3"),
        ([0, -1, 3], "the label of sample 1, -1, is no class"),
        (np.array([0, 1, 2**63], np.uint64), "is no class"),
        ([0, 1.5, 3], "the label of sample 1, 1.5, is no whole number"),
        ([0, np.nan, 3], "the label of sample 1, nan, is no whole number"),
        ([0, np.inf, 3], "is no whole number"),
        (np.eye(4)[Y], "one-hot?"),
        (np.zeros((3, 2)), "labels have shape (3, 2)"),
        (["a", "b", "c"], "labels: expected numbers"),
        ([], "labels have shape (0,)"),
    ],
)
def test_wrong_labels(y, message):
    refused(message, samples_of, MODEL, X, y)


def test_model_that_is_no_classifier():
    import dataclasses

    outputs = dataclasses.replace(MODEL.outputs, shapes=((1, 1),))
    refused("a classifier has an output", samples_of, dataclasses.replace(MODEL, outputs=outputs), X, Y)


# --- numbers of the input's type ---


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [
        (TensorProto.FLOAT, np.float32),
        (TensorProto.DOUBLE, np.float64),
        (TensorProto.FLOAT16, np.float16),
        (TensorProto.BFLOAT16, ml_dtypes.bfloat16),
    ],
)
def test_numbers_are_those_of_the_type(kind, dtype):
    found = samples_of(classifier([1, 6], kind), X, Y)
    same(found, X.astype(dtype).astype(np.float64))


def test_whole_numbers():
    model = classifier([1, 6], TensorProto.UINT8)
    x = np.arange(18.0).reshape(3, 6)
    same(samples_of(model, x, Y), x)
    refused("has 0.1 as its element 0, which uint8 can't hold", samples_of, model, X, Y)
    refused("which uint8 can't hold", samples_of, model, x - 1, Y)
    refused("which uint8 can't hold", samples_of, model, x + 250, Y)


@given(
    hn.arrays(
        st.sampled_from([np.float64, np.float32, np.float16, np.uint8, np.int64]),
        (2, 3),
        elements=st.integers(0, 255),
    )
    | hn.arrays(np.float64, (2, 3), elements=st.floats(-1e30, 1e30)),
    st.sampled_from([Fraction(255), Fraction(1, 3), Fraction(7, 10**9), Fraction(2**24 + 1)]),
    st.sampled_from([np.float64, np.float32, np.float16, ml_dtypes.bfloat16]),
)
def test_quotients_are_the_nearest_numbers(x, divisor, dtype):
    try:
        found = quotients(x, divisor, np.dtype(dtype))
    except InputError:
        with np.errstate(over="ignore"):
            assert not np.isfinite((x.astype(np.float64) / float(divisor)).astype(dtype)).all()
        return
    for value, result in zip(x.ravel().tolist(), found.ravel(), strict=True):
        exact, number = Fraction(value) / divisor, dtype(result)
        assert float(number) == result
        for end in (-np.inf, np.inf):
            beside = float(np.nextafter(number, dtype(end)))
            assert not np.isfinite(beside) or abs(Fraction(beside) - exact) >= abs(Fraction(result) - exact)


def test_one_rounding():
    """2**29 + 2**5 + 1/2**30 rounds to a tie of float32 first in float64, and down from there."""
    value = Fraction(2**29) + 2**5 + Fraction(1, 2**30)
    assert float(np.float32(float(value))) == 2**29
    assert nearest_number(value, np.dtype(np.float32)) == 2**29 + 2**6
    assert nearest_number(Fraction(2**29 + 2**5), np.dtype(np.float32)) == 2**29
    assert nearest_number(-value, np.dtype(np.float32)) == -(2**29) - 2**6
    assert nearest_number(Fraction(10**400), np.dtype(np.float32)) == np.inf
    found = quotients(np.array([[2**59 + 2**35 + 1]]), Fraction(2**30), np.dtype(np.float32))
    assert found == 2**29 + 2**6
    for sign in (1, -1):  # whole numbers that float64 rounds
        x = np.array([[sign * (2**59 + 2**35 + 1), 0]])
        found = quotients(x, Fraction(2**23), np.dtype(np.float32))
        assert found.tolist() == [[sign * (2**36 + 2**13), 0]]


# --- the range ---


def test_range():
    x = np.array([[0, 0.5, 1, 1, 1, 0]] * 3)
    same(samples_of(MODEL, x, Y, clip=UNIT), x)
    refused(
        "sample 0 has 0.0 as its element 0, which is outside",
        samples_of,
        MODEL,
        x,
        Y,
        clip=(Fraction(1, 9), 1),
    )
    message = "sample 0 has 1.0 as its element 2, which is outside of the range 0 to 3/4"
    refused(message, samples_of, MODEL, x, Y, clip=(0, Decimal("0.75")))
    refused("1 is not below 0", samples_of, MODEL, x, Y, clip=(1, 0))
    refused("clip: expected a finite number", samples_of, MODEL, x, Y, clip=(0, float("nan")))


def test_range_is_exact():
    """float32 has no 0.1; the number above it is outside of a range that ends at 0.1."""
    model = classifier([1, 1])
    refused("is outside of the range 0 to 1/10", samples_of, model, [[0.1]], [0], clip=(0, Decimal("0.1")))
    assert len(samples_of(model, [[0.3]], [0], clip=(Decimal("0.3"), 1))) == 1  # float32(0.3) is above 0.3
    refused("is outside", samples_of, model, [[0.7]], [0], clip=(Decimal("0.7"), 1))


def test_range_is_exact_between_neighbours():
    """float64(0.1) is above 0.1, float64(0.3) below 0.3."""
    model = classifier([1, 1], TensorProto.DOUBLE)
    refused("is outside", samples_of, model, [[0.1]], [0], clip=(0, Decimal("0.1")))
    refused("is outside", samples_of, model, [[0.3]], [0], clip=(Decimal("0.3"), 1))
    assert len(samples_of(model, [[0.1], [0.3]], [0, 0], clip=(Decimal("0.1"), Decimal("0.3")))) == 2


def test_pixels_beyond_the_range_are_told_apart():
    pixels = np.array([[0, 255, 3, 4, 5, 6]] * 3, np.uint8)
    refused("divide by 255", samples_of, MODEL, pixels, Y, clip=UNIT)
    with pytest.raises(InputError) as caught:
        samples_of(MODEL, pixels + 0.5, Y, clip=UNIT)
    assert "divide" not in str(caught.value)
    same(samples_of(MODEL, pixels, Y), pixels)  # never divided silently


# --- files ---


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def csv(x, y=None, header=None, separator=",", first=False):
    columns = x if y is None else np.column_stack([y, x] if first else [x, y])
    lines = [separator.join(map(repr, row)) for row in columns.tolist()]
    return "\n".join([*([header] if header else []), *lines]) + "\n"


PAIRS = [("x", "y"), ("X", "Y"), ("X", "y"), ("images", "labels"), ("x_test", "y_test"), ("arr_0", "arr_1")]


@pytest.mark.parametrize(("x", "y"), PAIRS)
def test_npz(folder, x, y):
    for save in (np.savez, np.savez_compressed):
        save("a.npz", **{x: X.reshape(3, 2, 3), y: Y, "more": np.array([None])}, allow_pickle=True)
        same(read_samples(MODEL, "a.npz"))


def test_npz_with_other_arrays(folder):
    np.savez("a.npz", data=X, target=Y)
    refused(
        "a.npz: no inputs; expected the arrays x and y, it has data, target", read_samples, MODEL, "a.npz"
    )
    np.savez("a.npz", x=X)
    refused("a.npz: no labels; expected the arrays x and y, it has x", read_samples, MODEL, "a.npz")
    np.savez("a.npz", x=X, y=Y, x_test=X, y_test=Y)
    refused("which arrays are the samples?", read_samples, MODEL, "a.npz")
    np.savez("a.npz", x=X, y=Y)
    np.save("y.npy", Y)
    refused("it has labels of its own (y)", read_samples, MODEL, "a.npz", labels="y.npy")
    np.savez("a.npz", x=X, y=np.array(list("abc")))
    refused("a.npz: array 'y': expected numbers", read_samples, MODEL, "a.npz")
    np.savez("a.npz", x=np.array([None] * 3), y=Y, allow_pickle=True)
    refused("a.npz: array 'x' is not readable: Object arrays", read_samples, MODEL, "a.npz")
    np.savez("a.npz")
    refused("it has nothing", read_samples, MODEL, "a.npz")


def test_damaged_files(folder):
    for name in ("a.npz", "a.npy"):
        (folder / name).write_bytes(b"not one")
        refused(f"{name}: no readable", read_samples, MODEL, name, labels="y.npy")


@pytest.mark.parametrize("name", ["y.npy", "y.csv", "y.txt", "y.csv.gz"])
def test_files_of_labels(folder, name):
    text = {"y.csv": "label\n0\n3\n1\n", "y.txt": "0 3 1\n", "y.csv.gz": "0.0\n3.0\n1.0\n"}.get(name, "")
    (folder / name).write_bytes(gzip.compress(text.encode()) if name.endswith("gz") else text.encode())
    if name == "y.npy":
        np.save(name, Y)
    np.save("x.npy", X)
    np.savez("x.npz", x=X)
    (folder / "x.csv").write_text(csv(X))
    for path in ("x.npy", "x.npz", "x.csv"):
        same(read_samples(MODEL, path, labels=name))


def test_wrong_files_of_labels(folder):
    np.save("x.npy", X)
    refused("a .npy file has no labels", read_samples, MODEL, "x.npy")
    np.save("y.npy", Y[:2])
    refused("x.npy: labels have shape (2,)", read_samples, MODEL, "x.npy", labels="y.npy")
    np.save("y.npy", Y.astype(str))
    refused("y.npy: expected numbers", read_samples, MODEL, "x.npy", labels="y.npy")
    (folder / "y.csv").write_text("0,1\n1,2\n2,3\n")
    refused("y.csv: expected one label a line", read_samples, MODEL, "x.npy", labels="y.csv")
    refused("y.json: expected labels in a", read_samples, MODEL, "x.npy", labels="y.json")
    refused("no.npy: No such file", read_samples, MODEL, "x.npy", labels="no.npy")


@pytest.mark.parametrize("name", ["a.csv", "a.txt", "a.csv.gz", "A.CSV"])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("header", [None, "names"])
def test_tables(folder, name, first, header):
    names = [f"p{i}" for i in range(6)]
    names = ["label", *names] if first else [*names, "label"]
    separator = " " if name == "a.txt" else ","
    text = csv(X, Y, separator.join(names) if header else None, separator, first).encode()
    (folder / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    columns = ["first", 0, "0"] if first else ["last", 6, "6", None]
    for column in [*columns, *(["label"] if header else [])]:
        same(read_samples(MODEL, name, label_column=column))


def test_tables_whose_columns_do_not_fit(folder):
    (folder / "a.csv").write_text(csv(X, Y))
    (folder / "x.csv").write_text(csv(X))
    (folder / "short.csv").write_text(csv(X[:, :3], Y))
    np.save("y.npy", Y)
    refused("x.csv: 6 columns are 6 inputs and no labels", read_samples, MODEL, "x.csv")
    refused(
        "x.csv: 6 columns, the model has 6 inputs, and", read_samples, MODEL, "x.csv", label_column="last"
    )
    refused("short.csv: 4 columns, the model has 6 inputs", read_samples, MODEL, "short.csv")
    refused("a.csv: 7 columns, the model has 6 inputs", read_samples, MODEL, "a.csv", labels="y.npy")
    for column in (7, "7", -1, True):
        refused("expected 0 to 6", read_samples, MODEL, "a.csv", label_column=column)
    refused(
        "no single column 'label'; its header: it has none",
        read_samples,
        MODEL,
        "a.csv",
        label_column="label",
    )
    both = {"labels": "y.npy", "label_column": "last"}
    refused("exclude each other", read_samples, MODEL, "a.csv", **both)
    refused("label_column is for tables", read_samples, MODEL, "y.npy", label_column="last")
    (folder / "bad.csv").write_text("1,2,3\n4,5\n")
    refused("bad.csv:2: 2 cells", read_samples, MODEL, "bad.csv")


def test_labels_that_are_elsewhere_are_not_guessed(folder):
    (folder / "a.csv").write_text(csv(X, Y, "label,a,b,c,d,e,f", first=True))
    refused("column 'label' is not the last one", read_samples, MODEL, "a.csv")
    (folder / "a.csv").write_text(csv(X, Y, "a,a,b,c,d,e,y"))
    same(read_samples(MODEL, "a.csv"))
    refused(
        "no single column 'a'; its header: a, a, b, c, d ...", read_samples, MODEL, "a.csv", label_column="a"
    )


def test_infinite_decimals(folder):
    for word in ("nan", "inf", "1e999"):
        (folder / "a.csv").write_text(f"1,2,3,4,5,6,0\n1,2,3,{word},5,6,0\n")
        refused("a.csv: sample 1 has", read_samples, MODEL, "a.csv")


def test_division(folder):
    pixels = np.arange(18, dtype=np.uint8).reshape(3, 6) * 15
    np.savez("a.npz", x=pixels, y=Y)
    expected = (pixels.astype(np.float32) / np.float32(255)).astype(np.float64)
    for divisor in (255, 255.0, Fraction(255), Decimal(255)):
        same(read_samples(MODEL, "a.npz", divide=divisor, clip=UNIT), expected)
    refused("a.npz: sample 0 has", read_samples, MODEL, "a.npz", clip=UNIT)
    for divisor in (0, -1, float("nan"), Decimal("inf"), "x"):
        refused("divide: expected a", read_samples, MODEL, "a.npz", divide=divisor)
    whole = classifier([1, 6], TensorProto.UINT8)
    refused("whole numbers (uint8)", read_samples, whole, "a.npz", divide=255)


def test_limit(folder):
    np.savez("a.npz", x=X, y=Y)
    same(read_samples(MODEL, "a.npz", limit=2), SINGLE[:2], Y[:2])
    same(read_samples(MODEL, "a.npz", limit=5))
    for limit in (0, -1, 1.5, True):
        refused("limit: expected a whole number", read_samples, MODEL, "a.npz", limit=limit)


def test_unknown_files(folder):
    (folder / "a.json").write_text("{}")
    refused("a.json: expected .npz, .npy", read_samples, MODEL, "a.json")
    refused("b.json: no such file", read_samples, MODEL, "b.json")
