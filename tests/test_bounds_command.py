"""`lpverify bounds`: the table, JSON and npz against the Python interface; everything that can be wrong."""

import json
import re
import sys
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

import lpverify
from lpverify import bounds_command
from lpverify.bounding import BoundsResult, ValueBounds
from lpverify.bounds_command import as_text
from lpverify.cli import main
from lpverify.io.files import write_atomically
from lpverify.methods import METHODS

SPECS = Path(lpverify.__file__).parent.parent / "vnnlib_specs"
TOY = str(SPECS / "onnx" / "toy.onnx")
CENTRE, EPS = np.array([0.05, -0.02]), 0.1
BALL = ("--center", "c.npy", "--eps", "0.1")
BOX = ("--lower", "l.npy", "--upper", "u.npy")
UP = np.nextafter(EPS, 1) if Decimal(EPS) < Decimal("0.1") else EPS


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arrays = {
        "c": CENTRE,
        "l": CENTRE - EPS,
        "u": CENTRE + EPS,
        "three": np.zeros(3),
        "rows": [[1, -1], [0.5, 2]],
    }
    arrays |= {"nan": np.array([np.nan, 0]), "text": np.array(["a", "b"]), "things": np.array([None, 1])}
    for name, array in arrays.items():
        np.save(tmp_path / f"{name}.npy", array)
    return tmp_path


def bounds(capsys, *words, network=TOY):
    """Exit code, stdout, stderr."""
    code = main(["bounds", network, *map(str, words)])
    shown = capsys.readouterr()
    return code, shown.out, shown.err


def answered(capsys, *words, **options):
    code, out, err = bounds(capsys, *words, **options)
    assert (code, err) == (0, "")
    return out


def rows(out, header):
    """The cells of the table that begins with these words."""
    lines = out.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.split()[: len(header)] == header) + 1
    end = next(
        (i for i in range(begin, len(lines)) if not lines[i] or lines[i].startswith("...")), len(lines)
    )
    return [line.split() for line in lines[begin:end]]


def printed(out, what="output"):
    """(number, method) to the printed bounds."""
    return {(int(r[0]), r[1]): (Decimal(r[2]), Decimal(r[3])) for r in rows(out, [what, "method"])}


def save(path, nodes, inputs, outputs, weights=()):
    def infos(table):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in table.items()]

    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return str(path)


def one_layer(path, inputs, outputs, op="Relu"):
    weight = np.random.default_rng(0).normal(size=(inputs, outputs))
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["z"]),
        helper.make_node(op, ["z"], ["y"], name="\tlayer" * 9),
    ]
    return save(path, nodes, {"x": (1, inputs)}, {"y": (1, outputs)}, [("w", weight)])


# --- the answer ---


@pytest.mark.parametrize("method", METHODS)
def test_each_method_gives_what_the_interface_gives(folder, capsys, method):
    words = ("--norm", "2", "--method", method, "--json", "r.json", "--npz", "r.npz", "--layers", "relu_1")
    out = answered(capsys, *BALL, *words)
    found = lpverify.bounds(TOY, center=CENTRE, eps=UP, norm=2, method=method, layers=["relu_1"])
    [content] = json.loads((folder / "r.json").read_text())["methods"]
    for end in ("lower", "upper", "claimed_lower", "claimed_upper"):
        numbers = [np.nan if v is None else v for v in content[end]]
        np.testing.assert_array_equal(numbers, getattr(found, end))
    shapes = [(v.name, v.op, list(v.lower.shape)) for v in found.values]
    assert [(v["name"], v["op"], v["shape"]) for v in content["layers"]] == shapes
    for layer, value in zip(content["layers"], found.values, strict=True):
        width = value.upper - value.lower
        assert (layer["mean_width"], layer["largest_width"]) == (width.mean(), width.max())
    arrays = np.load("r.npz")
    assert arrays["names"].tolist() == [v.name for v in found.values]
    assert arrays["ops"].tolist() == [v.op for v in found.values]
    assert len(arrays) == 4 + 2 * len(found.values)
    np.testing.assert_array_equal(arrays[f"{method}/lower"], found.lower)
    np.testing.assert_array_equal(arrays[f"{method}/upper"], found.upper)
    for i, value in enumerate(found.values):
        np.testing.assert_array_equal(arrays[f"{method}/{i}/lower"], value.lower)
        np.testing.assert_array_equal(arrays[f"{method}/{i}/upper"], value.upper)
    for i in range(2):
        low, high = printed(out)[i, method]
        assert low <= Decimal(found.lower[i]) <= Decimal(found.upper[i]) <= high
        assert float(high - low) < found.upper[i] - found.lower[i] + 1e-7
    assert sorted(p.name for p in folder.iterdir() if "r." in p.name) == ["r.json", "r.npz"]


def test_methods_come_in_the_given_order(folder, capsys):
    names = ["milp", "ibp", "crown", "ibp"]
    out = answered(capsys, *BOX, *(w for n in names for w in ("--method", n)), "--json", "r.json")
    assert [r[0] for r in rows(out, ["method", "seconds"])] == names[:3]
    assert list(printed(out)) == [(i, name) for i in range(2) for name in names[:3]]
    content = json.loads((folder / "r.json").read_text())
    assert [m["method"] for m in content["methods"]] == names[:3]
    assert content["options"] == {"layers": [], "solver": None, "timeout": None, "threads": 1}
    assert content["inputs"] == {"lower": "l.npy", "upper": "u.npy"}
    shown = printed(out)
    for i in range(2):
        (low, high), (wide_low, wide_high) = shown[i, "milp"], shown[i, "ibp"]
        assert wide_low <= low < high <= wide_high
    assert shown[1, "milp"][0] > shown[1, "ibp"][0] + Decimal("0.05")


def test_crown_is_the_default(folder, capsys):
    assert [r[0] for r in rows(answered(capsys, *BOX), ["method", "seconds"])] == ["crown"]


def test_rows_of_an_objective(folder, capsys):
    out = answered(capsys, *BALL, "--objective", "rows.npy", "--norm", "1", "--json", "r.json")
    found = lpverify.bounds(TOY, center=CENTRE, eps=UP, norm=1, objective=[[1, -1], [0.5, 2]])
    content = json.loads((folder / "r.json").read_text())
    assert content["methods"][0]["lower"] == found.lower.tolist()
    assert content["inputs"] == {"center": "c.npy", "eps": UP, "norm": "1"}
    assert [key for key, _ in printed(out, "row")] == [0, 1]


def test_the_box_of_a_property(folder, capsys):
    out = answered(capsys, "--property", SPECS / "vnnlib" / "toy_order.vnnlib", "--npz", "r.npz")
    found = lpverify.bounds(TOY, [-1, -1], [1, 1])
    np.testing.assert_array_equal(np.load("r.npz")["crown/upper"], found.upper)
    assert len(printed(out)) == 2


def test_a_range_cuts_the_ball(folder, capsys):
    answered(capsys, *BALL, "--clip", "-0.1", "0.1", "--npz", "r.npz", "--json", "r.json")
    box = np.load("r.npz")["crown/0/lower"], np.load("r.npz")["crown/0/upper"]
    low, high = json.loads((folder / "r.json").read_text())["inputs"]["clip"]
    assert Decimal(low) <= Decimal("-0.1") < Decimal("0.1") <= Decimal(high)
    np.testing.assert_allclose(box, [[-0.05, -0.1], [0.1, 0.08]], atol=1e-9)
    assert (box[0][1], box[1][0]) == (low, high)


def test_layers_and_solver_and_limit_reach_the_interface(folder, capsys, monkeypatch):
    calls = []

    def spy(*arguments, **options):
        calls.append(options)
        return lpverify.bounds(*arguments, **options | {"method": "ibp"})

    monkeypatch.setattr(bounds_command, "bounds", spy)
    words = ("--solver", "scs", "--timeout", "1e-9", "--threads", "3", "--method", "lp", "--layers")
    code, _, err = bounds(capsys, *BOX, *words, "all")
    assert (code, err.count("\n")) == (0, 1)
    assert "note: " in err and "reached the limit of 1e-09 s" in err
    wanted = {
        "solver": "scs",
        "seconds": 1e-9,
        "threads": 3,
        "method": "lp",
        "layers": "all",
        "objective": None,
    }
    assert {key: calls[0][key] for key in wanted} == wanted
    bounds(capsys, *BOX, *words, "relu_1", "relu_3")
    assert calls[1]["layers"] == ["relu_1", "relu_3"]


def test_verbose_tells_methods_on_stderr(folder, capsys):
    code, out, err = bounds(capsys, *BOX, "-v", "--method", "ibp", "--method", "crown")
    assert code == 0
    assert re.findall(r"^lpverify: (\S+): [\d.]+ s$", err, re.MULTILINE) == ["ibp", "crown"]
    assert "lpverify:" not in out


# --- the table ---


def result(method, lower, upper, names=("input",)):
    values = tuple(ValueBounds(name, "Relu", lower, upper) for name in names)
    empty = np.zeros((len(lower), 0))
    return BoundsResult(values, lower, upper, empty, lower, empty, upper, lower, upper, method, 1.5)


def test_many_outputs_are_cut_off(folder, capsys):
    wide = one_layer(folder / "wide.onnx", 2, 23)
    out = answered(capsys, *BOX, "--method", "ibp", "--method", "crown", "--json", "r.json", network=wide)
    assert {i for i, _ in printed(out)} == set(range(20))
    assert "... and 3 more outputs; --json has all" in out
    assert len(json.loads((folder / "r.json").read_text())["methods"][1]["lower"]) == 23
    out = answered(capsys, *BOX, network=one_layer(folder / "fits.onnx", 2, 20))
    assert "more" not in out


def test_columns_are_aligned_and_lines_short():
    numbers = np.array([-1.2345678901234e-308, -5e-324, 0.0, -0.0, 1e22, -np.inf, -123456789.5, 0.15])
    names = ["model/" + "block/" * 30 + "relu", "short", "two\nlines", "名" * 80]
    found = [
        result(m, numbers, np.maximum(numbers * 2, 0.1) * 7, names) for m in ("alpha-crown", "sdp-crown")
    ]
    lines = as_text(found).splitlines()
    assert max(map(len, lines)) <= 100
    for header in ("output", "layer", "method"):
        begin = next(i for i, line in enumerate(lines) if line.startswith(header))
        block = lines[begin : next((i for i in range(begin, len(lines)) if not lines[i]), len(lines))]
        assert len({len(line) for line in block}) == 1  # the last column is to the right
        for match in re.finditer(r"method|op", block[0]):
            assert all(line[match.start()] != " " for line in block[1:])
            assert all(match.start() == 0 or line[match.start() - 1] == " " for line in block)
    assert any("/relu " in line for line in lines)
    assert any("two?lines" in line for line in lines)


def test_printed_bounds_are_never_tighter():
    rng = np.random.default_rng(0)
    numbers = np.concatenate(
        [rng.normal(size=50) * 10.0 ** rng.integers(-320, 300, 50), rng.normal(size=50), [0.1]]
    )
    numbers[60:70] = rng.integers(-(10**12), 10**12, 10)
    for part in np.array_split(np.concatenate([numbers, -numbers]), 20):
        for (i, _), (low, high) in printed(as_text([result("ibp", part, part)])).items():
            exact = Decimal(float(part[i]))
            assert low <= exact <= high
            assert high - low <= abs(exact) * Decimal("1.1e-8")
    shown = printed(as_text([result("ibp", np.array([0.5, -100.0, 1e9]), np.array([0.5, -100.0, 1e9]))]))
    assert [str(low) for low, _ in shown.values()] == ["0.5", "-100", "1E+9"]


def test_bounds_without_end_are_null_in_json(folder, capsys, monkeypatch):
    ends = np.array([-np.inf, 0.0]), np.array([np.inf, np.inf])
    monkeypatch.setattr(bounds_command, "bounds", lambda *_, **__: result("crown", *ends))
    out = answered(capsys, *BOX, "--json", "r.json")
    [content] = json.loads((folder / "r.json").read_text())["methods"]
    assert (content["lower"], content["upper"]) == ([None, 0.0], [None, None])
    assert content["layers"][0]["largest_width"] is None
    assert printed(out)[0, "crown"] == (Decimal("-inf"), Decimal("inf"))


# --- arrays ---


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int8, np.uint64])
def test_types_of_arrays(folder, capsys, dtype):
    np.save("l.npy", np.array([[0, 1]], dtype))
    np.save("u.npy", np.array([1, 2], dtype))
    answered(capsys, *BOX, "--npz", "r.npz")
    np.testing.assert_array_equal(np.load("r.npz")["crown/0/upper"], [1, 2])


@pytest.mark.parametrize(
    "text",
    ["0.1, 1/3\n", "0.1;1/3", "# two\n  0.1\n\n  1/3  # the last\n", "\ufeff0.1 1/3", "1e-1\t1/3\r\n"],
)
def test_text_files_are_rounded_outward(folder, capsys, text):
    for name in ("l.csv", "u.txt"):
        (folder / name).write_text(text, encoding="utf-8")
    answered(capsys, "--lower", "l.csv", "--upper", "u.txt", "--npz", "r.npz")
    box = np.load("r.npz")["crown/0/lower"], np.load("r.npz")["crown/0/upper"]
    for i, exact in enumerate([Decimal("0.1"), Decimal(1) / 3]):
        assert Decimal(box[0][i]) < exact < Decimal(box[1][i])
        assert box[1][i] == np.nextafter(box[0][i], 1)


def test_rows_of_text(folder, capsys):
    (folder / "rows.csv").write_text("1,-1\n0.5,2\n")
    (folder / "c.txt").write_text("0.05\n-0.02\n")
    words = ("--center", "c.txt", "--eps", "0.1", "--objective", "rows.csv", "--npz", "r.npz")
    answered(capsys, *words)
    found = lpverify.bounds(TOY, center=CENTRE, eps=UP, objective=[[1, -1], [0.5, 2]])
    np.testing.assert_array_equal(np.load("r.npz")["crown/lower"], found.lower)


# --- what is wrong ---


def refused(capsys, *words, code=1, **options):
    """The only line on stderr."""
    found, out, err = bounds(capsys, *words, **options)
    assert (found, out, err.count("\n")) == (code, "", 1), err
    assert err.startswith("lpverify: error: ")
    return err


FORMS = "expected one of: --center and --eps; --lower and --upper; --property"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), FORMS),
        (("--center", "c.npy"), FORMS),
        (("--eps", "1"), FORMS),
        (("--lower", "l.npy"), FORMS),
        ((*BALL, *BOX), FORMS),
        ((*BOX, "--property", "p"), FORMS),
        ((*BALL, "--lower", "l.npy"), FORMS),
        ((*BOX, "--norm", "2"), "--norm goes with --center"),
        ((*BOX, "--clip", "0", "1"), "--clip goes with --center"),
        (("--center", "missing.npy", "--eps", "1"), "missing.npy: No such file"),
        (("--center", ".", "--eps", "1"), "expected a .npy, .csv or .txt file"),
        (("--center", "c.npz", "--eps", "1"), "expected a .npy, .csv or .txt file"),
        (("--center", "three.npy", "--eps", "1"), "center: expected shape (2,) or (1, 2), got (3,)"),
        (("--center", "nan.npy", "--eps", "1"), "center contains NaN"),
        (("--center", "text.npy", "--eps", "1"), "center: expected numbers"),
        (("--center", "things.npy", "--eps", "1"), "things.npy: no readable .npy file: Object arrays"),
        (("--lower", "u.npy", "--upper", "l.npy"), "is above its upper end"),
        ((*BALL, "--clip", "1", "2"), "the ball does not meet the range"),
        (
            (*BALL, "--clip", "0.1", "0"),
            "lower end 0.09999999999999999 of input element 0 is above its upper end",
        ),
        (("--center", "c.npy", "--eps", "-0.1"), "'-0.1' is not a number from 0"),
        (("--center", "c.npy", "--eps", "nan"), "'nan' is not a finite number"),
        ((*BALL, "--norm", "3"), "'3' is none of inf, 2, 1"),
        ((*BALL, "--method", "magic"), "invalid choice: 'magic'"),
        (
            (*BALL, "--layers", "relu_1", "nowhere"),
            "layers: no node is named nowhere; there are gemm_0, relu_1",
        ),
        ((*BALL, "--solver", "abacus"), "no solver backend abacus for this; there are highs, "),
        ((*BALL, "--solver", "cvxpy:abacus", "--method", "ibp"), "no solver backend cvxpy:abacus"),
        ((*BALL, "--solver", "highs", "--method", "sdp"), "no solver backend highs for this"),
        ((*BALL, "--method", "milp", "--method", "sdp-crown"), "it needs --center, --eps and --norm 1 or 2"),
        ((*BOX, "--method", "sdp-crown"), "method sdp-crown is for balls"),
        ((*BOX, "--objective", "three.npy"), "objective: expected shape (R, 2) or (2,), got (1, 3)"),
        ((*BOX, "--objective", "nan.npy"), "objective contains NaN"),
        ((*BOX, "--json", "missing/r.json"), "can't write the report"),
        ((*BOX, "--npz", "."), "can't write the report"),
        ((*BOX, "--npz", "r", "--json", "./r"), "--json, --npz name the same file"),
        ((*BOX, "--plot", "r.pdf"), "expected a name that ends in .png"),
        (("--property", "missing.vnnlib"), "missing.vnnlib: No such file"),
        (
            ("--property", SPECS / "vnnlib" / "toy_boxes.vnnlib"),
            "has 2 different input boxes; bounds are for one box",
        ),
        (("--property", SPECS / "vnnlib" / "mlp_hard_1502.vnnlib"), "the network has 2 and 2"),
        ((*BOX, "--time", "3"), "unrecognized arguments: --time"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_1(folder, capsys, words, message):
    assert message in refused(capsys, *words)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "bad.csv: no numbers"),
        ("1,2\n3\n", "bad.csv:2: 1 numbers, but 2 in the first row"),
        ("a,b\n1,2\n", "bad.csv:1: 'a' is not a finite number"),
        ("1,,2", "'' is not a finite number"),
        ("nan 1", "'nan' is not a finite number"),
        (b"\xff\xfe\x00", "not UTF-8"),
        ("1e400, 0", "center contains infinite numbers"),
    ],
)
def test_bad_text_files(folder, capsys, text, message):
    (folder / "bad.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    assert message in refused(capsys, "--center", "bad.csv", "--eps", "1")


def test_damaged_arrays(folder, capsys):
    whole = (folder / "c.npy").read_bytes()
    for content in (b"", b"PK\x03\x04", whole[:-1], whole[:20], whole.replace(b"{", b"["), b"\x80\x04N."):
        (folder / "bad.npy").write_bytes(content)
        assert "bad.npy: no readable .npy file" in refused(capsys, "--center", "bad.npy", "--eps", "1")


def test_an_empty_property_has_no_bounds(folder, capsys):
    text = (SPECS / "vnnlib" / "toy_order.vnnlib").read_text()
    (folder / "empty.vnnlib").write_text(text + "(assert (>= X_0 2.0))")
    assert "the property has an empty set of inputs" in refused(capsys, "--property", "empty.vnnlib")


def test_networks_that_are_missing_or_unsupported(folder, capsys):
    assert "missing.onnx: No such file" in refused(capsys, *BOX, network="missing.onnx")
    odd = save(folder / "odd.onnx", [helper.make_node("Det", ["x"], ["y"])], {"x": (1, 1)}, {"y": ()})
    code, out, err = bounds(capsys, *BOX, network=odd)
    assert (code, out) == (3, "")
    assert "Det" in err


def test_methods_that_do_not_treat_the_network(folder, capsys):
    smooth = one_layer(folder / "smooth.onnx", 2, 3, "Sigmoid")
    words = ("--method", "ibp", "--method", "milp", "--json", "r.json")
    assert "error: method milp: the exact search" in refused(capsys, *BOX, *words, code=3, network=smooth)
    words = ("--norm", "2", "--method", "sdp-crown")
    assert "error: method sdp-crown: SDP-CROWN" in refused(capsys, *BALL, *words, code=3, network=smooth)
    large = one_layer(folder / "large.onnx", 2, 170)
    assert "error: method sdp: the semidefinite program" in refused(
        capsys, *BOX, "--method", "sdp", code=3, network=large
    )
    assert not (folder / "r.json").exists()


def test_a_file_that_fails_after_all_does_not_lose_the_table(folder, capsys, monkeypatch):
    def full(path, content):
        if path.name == "r.npz":
            raise OSError(28, "No space left on device")
        write_atomically(path, content)

    monkeypatch.setattr("lpverify.result_files.write_atomically", full)
    code, out, err = bounds(capsys, *BOX, "--npz", "r.npz", "--json", "r.json")
    assert code == 1
    assert printed(out)
    assert "r.npz: No space left on device" in err
    assert "error: can't write what --npz asks for" in err
    assert json.loads((folder / "r.json").read_text())["methods"]


def test_old_files_are_replaced(folder, capsys):
    (folder / "r.npz").write_text("old")
    answered(capsys, *BOX, "--npz", "r.npz")
    assert "crown/lower" in np.load("r.npz")
    assert not list(folder.glob(".*.tmp"))


def test_a_plot_without_matplotlib_says_how_to_get_it(folder, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("lpverify.plotting.find_spec", lambda name: None)
    assert "pip install 'lpverify[plot]'" in refused(capsys, *BOX, "--plot", "r.png")
    assert not (folder / "r.png").exists()
