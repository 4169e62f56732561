"""The Python interface: examples of the docstrings, shapes, refusals, soundness of bounds."""

import doctest
import gzip
import importlib
import itertools
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import lpverify
from lpverify.errors import InputError, UnsupportedError
from lpverify.io.vnnlib import read_query
from lpverify.methods import METHODS

PROPERTY = """(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)
(assert (>= X_0 0))(assert (<= X_0 1))(assert (>= X_1 0))(assert (<= X_1 1))
(assert (>= Y_0 {}))"""


def save(path, nodes, inputs, outputs, weights=()):
    """Writes a model; inputs and outputs are name to shape."""

    def infos(table):
        return [helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in table.items()]

    tensors = [numpy_helper.from_array(array.astype(np.float32), name) for name, array in weights]
    graph = helper.make_graph(nodes, "g", infos(inputs), infos(outputs), tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return str(path)


def dense(path, sizes, seed=0, lead=(1,)):
    """A random dense ReLU network."""
    rng = np.random.default_rng(seed)
    nodes, weights, name = [], [], "x"
    for i, (n, m) in enumerate(itertools.pairwise(sizes)):
        weights += [(f"w{i}", rng.normal(size=(n, m)) / np.sqrt(n)), (f"b{i}", rng.normal(size=m) / 4)]
        nodes.append(helper.make_node("Gemm", [name, f"w{i}", f"b{i}"], [f"z{i}"]))
        name = f"z{i}"
        if i < len(sizes) - 2:
            nodes.append(helper.make_node("Relu", [name], [f"a{i}"], name=f"relu{i}"))
            name = f"a{i}"
    nodes[-1].output[0] = "y"
    return save(path, nodes, {"x": (*lead, sizes[0])}, {"y": (*lead, sizes[-1])}, weights)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The files that the docstrings speak of: y = relu(x_0 + x_1)."""
    monkeypatch.chdir(tmp_path)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    save(tmp_path / "model.onnx", nodes, {"x": (1, 2)}, {"y": (1, 1)}, [("w", np.ones((2, 1)))])
    weights = [("w", np.array([[1, 0], [0, 1]]))]  # the larger of two numbers
    node = helper.make_node("MatMul", ["x", "w"], ["y"])
    save(tmp_path / "classifier.onnx", [node], {"x": (1, 2)}, {"y": (1, 2)}, weights)
    (tmp_path / "holds.vnnlib").write_text(PROPERTY.format("2.5"))
    (tmp_path / "violated.vnnlib").write_text(PROPERTY.format("0.25"))
    return tmp_path


DATA_SETS = ("certifying", "robustness.smoothing.certifier", "robustness.lipschitz.api")
MODULES = ("api", "loading", "bounding", *DATA_SETS)


def test_examples(folder):
    modules = [importlib.import_module(f"lpverify.{name}") for name in MODULES]
    results = [doctest.testmod(m, optionflags=doctest.NORMALIZE_WHITESPACE) for m in modules]
    assert sum(r.failed for r in results) == 0
    assert sum(r.attempted for r in results) >= 10


def test_every_public_function_has_an_example():
    names = ("load", "verify", "verify_many", "bounds", "LoadedNetwork", "certify", "certified_radius")
    for name in (*names, "smooth_certify", "smooth_predict", "lipschitz"):
        assert ">>> " in getattr(lpverify, name).__doc__, name


# --- the package ---


def test_import_is_light():
    code = "import sys, lpverify; print([m for m in sys.modules if m.split('.')[0] in {}])"
    heavy = {"numpy", "torch", "cvxpy", "scipy", "onnx", "onnxruntime", "highspy", "importlib.metadata"}
    done = subprocess.run([sys.executable, "-c", code.format(heavy)], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_using_the_interface_loads_neither_torch_nor_cvxpy(folder):
    code = "import sys, lpverify; assert lpverify.verify('model.onnx', 'holds.vnnlib').verdict == 'unsat'; "
    code += "print([m for m in ('torch', 'cvxpy', 'scipy.optimize') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "[]", done.stderr


def test_submodules_do_not_hide_the_functions():
    for module in ("lpverify.verify", "lpverify.bounds.propagate", "lpverify.bounds"):
        assert importlib.import_module(module).__name__ == module
    assert lpverify.verify.__module__ == "lpverify.api" and lpverify.bounds.__module__ == "lpverify.bounding"
    from lpverify.verify import verify_query

    assert callable(verify_query)


def test_all_names_exist_and_others_do_not():
    for name in lpverify.__all__:
        assert getattr(lpverify, name).__name__ == name
    assert set(lpverify.__all__) <= set(dir(lpverify))
    with pytest.raises(AttributeError, match="no attribute 'certainly_not'"):
        lpverify.certainly_not  # noqa: B018


# --- load and call ---


def test_evaluation_agrees_with_onnxruntime(tmp_path):
    path = dense(tmp_path / "n.onnx", [3, 8, 2])
    network = lpverify.load(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    points = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)
    expected = np.concatenate([session.run(None, {"x": p[None]})[0] for p in points])
    np.testing.assert_allclose(network(points), expected, atol=1e-5)
    np.testing.assert_allclose(network(points[:, None]), expected[:, None], atol=1e-5)
    np.testing.assert_allclose(network(points[0]), expected[:1], atol=1e-5)
    assert network(np.zeros((0, 3))).shape == (0, 2)


def test_load_packed_and_path_objects(folder):
    (folder / "model.onnx.gz").write_bytes(gzip.compress((folder / "model.onnx").read_bytes()))
    assert lpverify.load(folder / "model.onnx.gz").output_names == ("y",)


def test_several_inputs_and_outputs(tmp_path):
    nodes = [helper.make_node("Add", ["a", "b"], ["s"]), helper.make_node("Relu", ["a"], ["r"])]
    path = save(tmp_path / "n.onnx", nodes, {"a": (1, 2), "b": (1, 2)}, {"s": (1, 2), "r": (1, 2)})
    network = lpverify.load(path)
    s, r = network([[1.0, -2.0]], [[3.0, 4.0]])
    assert (s.tolist(), r.tolist()) == ([[4.0, 2.0]], [[1.0, 0.0]])
    with pytest.raises(InputError, match=r"2 input\(s\), got 1"):
        network([[1.0, 2.0]])
    with pytest.raises(InputError, match="different numbers of points"):
        network(np.zeros((3, 2)), np.zeros((2, 2)))
    found = lpverify.bounds(path, [0, 0, -1, -1], [1, 1, 0, 0])
    assert found.lower.shape == (4,)
    assert found.lower_a.shape == (4, 4)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ([[1.0, 2.0, 3.0]], r"shape \(1, 2\), got \(1, 3\)"),
        (1.0, r"got \(\)"),
        ([[np.nan, 0.0]], "NaN"),
        ([["a", "b"]], "expected numbers"),
        ([[1j, 0]], "expected numbers"),
        ([[1.0], [2.0, 3.0]], "input 'x'"),
        ([[2**60 + 1, 0]], "float64 can't hold"),
        ([[None, 0]], "expected numbers"),
    ],
)
def test_calls_refuse_what_does_not_fit(folder, x, message):
    with pytest.raises(InputError, match=message):
        lpverify.load("model.onnx")(x)


def test_load_refuses(folder):
    with pytest.raises(InputError, match="No such file"):
        lpverify.load("missing.onnx")
    with pytest.raises(InputError, match="expected a path, got int"):
        lpverify.load(3)
    nodes = [
        helper.make_node("NonMaxSuppression", ["x", "x"], ["y"]),
        helper.make_node("NonZeroX", ["x"], ["q"]),
    ]
    save(folder / "odd.onnx", nodes, {"x": (1, 1, 4)}, {"y": (1, 3)})
    with pytest.raises(UnsupportedError, match=r"(?s)2 unsupported node.*NonMaxSuppression.*NonZeroX"):
        lpverify.load("odd.onnx")


# --- verify ---


def test_sat_comes_with_a_feed_for_onnxruntime(folder):
    result = lpverify.verify(lpverify.load("model.onnx"), read_query("violated.vnnlib"), seed=3)
    assert (result.verdict, result.reason) == ("sat", "")
    session = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"])
    outputs = session.run(None, result.witness.inputs)
    assert outputs[0].tolist() == result.witness.outputs["y"].tolist()
    assert outputs[0].item() >= 0.25
    assert result.witness.inputs["x"].dtype == np.float32
    assert [float(v) for v in result.witness.exact] == result.witness.inputs["x"].reshape(-1).tolist()
    assert result.proof is None
    assert 0 < result.seconds < 60


def test_unsat_keeps_the_proof_on_request(folder):
    assert lpverify.verify("model.onnx", "holds.vnnlib").proof is None
    result = lpverify.verify("model.onnx", "holds.vnnlib", record_proof=True)
    assert (result.verdict, result.witness) == ("unsat", None)
    assert result.proof.recorded


def test_a_timeout_has_a_reason(tmp_path):
    path = dense(tmp_path / "n.onnx", [30, 60, 60, 60, 1])
    text = "".join(
        f"(declare-const X_{i} Real)(assert (>= X_{i} -1))(assert (<= X_{i} 1))" for i in range(30)
    )
    (tmp_path / "q.vnnlib").write_text(text + "(declare-const Y_0 Real)(assert (>= Y_0 9))")
    result = lpverify.verify(path, tmp_path / "q.vnnlib", timeout=0.5)
    assert result.verdict == "timeout"
    assert result.reason
    assert result.stage


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"timeout": 0}, "timeout: expected a positive"),
        ({"timeout": float("nan")}, "timeout: expected a positive"),
        ({"timeout": "5"}, "timeout: expected a positive"),
        ({"timeout": True}, "timeout: expected a positive"),
        ({"seed": -1}, "seed: expected a whole number"),
        ({"seed": 1.5}, "seed: expected a whole number"),
        ({"query": 7}, "query: expected a path, got int"),
        ({"network": None}, "network: expected a path, got NoneType"),
    ],
)
def test_verify_refuses(folder, arguments, message):
    files = {"network": "model.onnx", "query": "holds.vnnlib"}
    with pytest.raises(InputError, match=message):
        lpverify.verify(**files | arguments)


def test_many_queries_get_the_results_of_one_by_one(folder):
    queries = ["violated.vnnlib", folder / "holds.vnnlib", read_query("violated.vnnlib")]
    many = lpverify.verify_many("model.onnx", iter(queries), seed=3, record_proof=True)
    single = [lpverify.verify("model.onnx", query, seed=3, record_proof=True) for query in queries]
    assert [r.verdict for r in many] == [r.verdict for r in single] == ["sat", "unsat", "sat"]
    for one, other in zip(many, single, strict=True):
        assert (one.stage, one.reason, one.proof is None) == (other.stage, other.reason, other.proof is None)
        if one.witness is not None:
            assert one.witness.exact == other.witness.exact
    assert many[1].proof.recorded
    assert all(0 < r.seconds < 60 for r in many)


def test_many_queries_load_the_network_once(folder, monkeypatch):
    models, calls = importlib.import_module("lpverify.models"), []
    original = models.load_model

    def slow(path, *rest):
        calls.append(path)
        time.sleep(0.3)
        return original(path, *rest)

    monkeypatch.setattr(models, "load_model", slow)
    results = lpverify.verify_many("model.onnx", ["holds.vnnlib"] * 3)
    assert calls == ["model.onnx"]
    assert results[0].seconds > 0.3 > results[1].seconds
    assert lpverify.verify_many(lpverify.load("model.onnx"), []) == []


def test_each_of_many_queries_has_its_own_limit(tmp_path):
    path, text = (
        dense(tmp_path / "n.onnx", [30, 60, 60, 60, 1]),
        "(declare-const Y_0 Real)(assert (>= Y_0 {}))",
    )
    for i in range(30):
        text += f"(declare-const X_{i} Real)(assert (>= X_{i} -1))(assert (<= X_{i} 1))"
    for name, bound in (("hard", "9"), ("easy", "90000")):
        (tmp_path / name).write_text(text.format(bound))
    names = ("hard", "easy", "hard")
    results = lpverify.verify_many(path, [tmp_path / name for name in names], timeout=0.5)
    assert [r.verdict for r in results] == ["timeout", "unsat", "timeout"]
    assert all(r.seconds > 0.4 for r in results[::2])


@pytest.mark.parametrize(
    ("queries", "message"),
    [
        ("holds.vnnlib", "queries: expected several, as in a list, got str"),
        (Path("holds.vnnlib"), "queries: expected several"),
        (7, "queries: expected several, as in a list, got int"),
        (["holds.vnnlib", 7], "query: expected a path, got int"),
        (["holds.vnnlib", "missing.vnnlib"], "missing.vnnlib: No such file"),
        (["holds.vnnlib", "wide.vnnlib"], "declares 3 inputs"),
    ],
)
def test_many_queries_are_refused_before_one_is_decided(folder, monkeypatch, queries, message):
    wide = PROPERTY.format(1) + "(declare-const X_2 Real)(assert (>= X_2 0))(assert (<= X_2 1))"
    (folder / "wide.vnnlib").write_text(wide)
    monkeypatch.setattr(importlib.import_module("lpverify.api"), "verify_query", None)
    with pytest.raises(InputError, match=message):
        lpverify.verify_many("model.onnx", queries)


def test_many_queries_take_one_query_for_a_mistake(folder):
    with pytest.raises(InputError, match="got Query"):
        lpverify.verify_many("model.onnx", read_query("holds.vnnlib"))
    with pytest.raises(InputError, match="timeout: expected a positive"):
        lpverify.verify_many("model.onnx", [], timeout=0)


def test_unknown_keywords_are_errors(folder):
    with pytest.raises(TypeError, match="timeout_seconds"):
        lpverify.verify("model.onnx", "holds.vnnlib", timeout_seconds=3)
    with pytest.raises(TypeError, match="radius"):
        lpverify.bounds("model.onnx", [0, 0], [1, 1], radius=0.1)


# --- bounds ---


@pytest.mark.parametrize("method", [m for m in METHODS if m != "sdp-crown"])
@pytest.mark.parametrize("seed", range(2))
def test_bounds_hold_at_samples(tmp_path, method, seed):
    network = lpverify.load(dense(tmp_path / "n.onnx", [4, 10, 10, 3], seed))
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=(1, 4))
    lower, upper = centre - 0.3, centre + 0.3
    found = lpverify.bounds(network, lower, upper, method=method)
    x = rng.uniform(lower, upper, (500, 4))
    x[:16] = np.where(rng.random((16, 4)) < 0.5, lower, upper)
    y, slack = network(x), 1e-12
    assert (y >= found.lower - slack).all()
    assert (y <= found.upper + slack).all()
    assert (y >= x @ found.lower_a.T + found.lower_b - slack).all()
    assert (y <= x @ found.upper_a.T + found.upper_b + slack).all()
    for box, value in zip(found.values, network.model.network.evaluate(x), strict=True):
        assert box.lower.shape == value.shape[1:]
        assert (value >= box.lower - slack).all()
        assert (value <= box.upper + slack).all()
    assert {"relu0", "relu1"} <= {value.name for value in found.values}


def test_crown_is_tighter_and_a_point_is_almost_exact(tmp_path):
    network = lpverify.load(dense(tmp_path / "n.onnx", [4, 10, 10, 3]))
    lower, upper = np.full(4, -0.2), np.full(4, 0.2)
    rough, fine = (lpverify.bounds(network, lower, upper, method=m) for m in ("ibp", "crown"))
    assert (fine.upper - fine.lower <= rough.upper - rough.lower + 1e-12).all()
    point = lpverify.bounds(network, upper, upper)
    np.testing.assert_allclose(point.lower, network(upper)[0], atol=1e-9)
    np.testing.assert_allclose(point.upper, network(upper)[0], atol=1e-9)


@pytest.mark.parametrize("method", [m for m in METHODS if m != "sdp-crown"])
def test_the_point_zero_has_bounds(tmp_path, method):
    """No input has any radius, not even that of a rounded centre."""
    network = lpverify.load(dense(tmp_path / "n.onnx", [4, 10, 3]))
    point = lpverify.bounds(network, np.zeros(4), np.zeros(4), method=method)
    np.testing.assert_allclose(point.lower, network(np.zeros(4))[0], atol=1e-9)
    np.testing.assert_allclose(point.upper, network(np.zeros(4))[0], atol=1e-9)


def test_rows_in_chunks_give_the_same(tmp_path, monkeypatch):
    network = lpverify.load(dense(tmp_path / "n.onnx", [4, 10, 7]))
    whole = lpverify.bounds(network, np.zeros(4), np.ones(4))
    monkeypatch.setattr(importlib.import_module("lpverify.bounding"), "CHUNK_ELEMENTS", 31)
    parts = lpverify.bounds(network, np.zeros(4), np.ones(4))
    np.testing.assert_allclose(parts.lower_a, whole.lower_a, atol=1e-12)
    np.testing.assert_allclose(parts.upper_b, whole.upper_b, atol=1e-12)


@pytest.mark.parametrize(
    ("lower", "upper", "method", "message"),
    [
        ([0, 0], [1, np.nan], "crown", "upper contains NaN"),
        ([0, 2], [1, 1], "crown", "lower end 2.0 of input element 1 is above"),
        ([0, -np.inf], [1, 1], "ibp", "lower contains infinite"),
        ([0], [1], "crown", r"lower: expected shape \(2,\) or \(1, 2\)"),
        (0, 1, "crown", "lower: expected shape"),
        ([0, 0], [1, 1], "CROWN", r"method: expected one of ibp, .*milp, got 'CROWN'"),
        ([0, 0], [1, 1], None, "method: expected one of"),
    ],
)
def test_bounds_refuse(folder, lower, upper, method, message):
    with pytest.raises(InputError, match=message):
        lpverify.bounds("model.onnx", lower, upper, method=method)


@pytest.mark.parametrize("norm", [1, 2, np.inf])
@pytest.mark.parametrize("method", METHODS)
def test_bounds_over_a_ball_hold_at_samples(tmp_path, method, norm):
    if (method, norm) == ("sdp-crown", np.inf):
        pytest.skip("needs a round ball")
    network = lpverify.load(dense(tmp_path / "n.onnx", [4, 8, 8, 3]))
    centre, rows = np.array([0.3, 0.05, 0.2, 0.4]), np.array([[1, -1, 0], [0.3, 1, 2]])
    x = np.random.default_rng(1).normal(size=(500, 4))
    x = centre + 0.25 * x / np.linalg.norm(x, norm, axis=1, keepdims=True)
    x = x[(x >= 0).all(axis=1)]
    assert len(x) > 50
    found = lpverify.bounds(
        network, 0.0, method=method, center=centre, eps=0.25, norm=norm, objective=rows, layers="all"
    )
    y, slack = network(x) @ rows.T, 1e-12
    assert found.lower.shape == found.claimed_upper.shape == (2,)
    assert (y >= np.maximum(found.lower, x @ found.lower_a.T + found.lower_b) - slack).all()
    assert (y <= np.minimum(found.upper, x @ found.upper_a.T + found.upper_b) + slack).all()
    for box, value in zip(found.values, network.model.network.evaluate(x), strict=True):
        assert (value >= box.lower - slack).all()
        assert (value <= box.upper + slack).all()


def test_dearer_methods_on_the_same_layers_are_not_looser(tmp_path):
    network = lpverify.load(dense(tmp_path / "n.onnx", [3, 8, 8, 2], 4))
    ball = {"center": np.zeros(3), "eps": 0.5, "norm": 2}
    widths = {m: _width(lpverify.bounds(network, method=m, **ball)) for m in METHODS}
    order = [("ibp", "crown-ibp"), ("ibp", "forward"), ("ibp", "crown"), ("alpha-crown", "lp"), ("lp", "sdp")]
    for cheap, dear in [*order, ("lp", "milp"), ("alpha-crown", "sdp-crown")]:
        assert (widths[dear] <= widths[cheap] + 1e-12).all(), (cheap, dear)
    assert (widths["crown"] < widths["ibp"]).all()
    assert (widths["sdp-crown"] < widths["alpha-crown"]).any()


def _width(found):
    return found.upper - found.lower


def test_milp_over_a_box_is_exact(folder):
    found = lpverify.bounds("model.onnx", [-1, -1], [1, 0.5], method="milp", objective=[[1], [-2]])
    np.testing.assert_allclose(found.lower, [0, -3], atol=1e-6)
    np.testing.assert_allclose(found.upper, [1.5, 0], atol=1e-6)
    assert (found.claimed_lower >= found.lower).all()


def test_layers_get_their_own_bounds(tmp_path):
    network = lpverify.load(dense(tmp_path / "n.onnx", [3, 8, 8, 2], 4))
    box = (np.full(3, -0.5), np.full(3, 0.5))
    plain, fine = (lpverify.bounds(network, *box, method="milp", layers=names) for names in ((), "relu1"))
    named = [(a, b) for a, b in zip(plain.values, fine.values, strict=True) if a.name == "relu1"]
    assert named
    assert all((_width(b) <= _width(a) + 1e-12).all() for a, b in named)
    assert any((_width(b) < _width(a) - 1e-3).any() for a, b in named)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"center": [0, 0], "eps": -0.1}, "eps: expected a number from 0"),
        ({"center": [0, 0], "eps": float("nan")}, "eps: expected a number from 0"),
        ({"center": [0, 0]}, "eps: expected a number from 0"),
        ({"center": [0, np.nan], "eps": 1}, "center contains NaN"),
        ({"eps": 1}, "expected either lower and upper, or center and eps"),
        ({"lower": [0, 0]}, "expected either lower and upper"),
        ({"center": [0, 0], "eps": 1, "norm": 3}, "norm: expected 1, 2 or infinity, got 3"),
        ({"center": [0, 0], "eps": 1, "method": "sdp-crown"}, "method sdp-crown is for balls"),
        ({"center": [0, 0], "eps": 1, "lower": 5}, "does not meet the range"),
        ({"center": [0, 0], "eps": 1, "objective": [1, 2]}, r"objective: expected shape \(R, 1\)"),
        ({"center": [0, 0], "eps": 1, "objective": [[np.nan]]}, "objective contains NaN"),
        ({"center": [0, 0], "eps": 1, "layers": ["nowhere"]}, "no node is named nowhere"),
        ({"center": [0, 0], "eps": 1, "method": "lp", "solver": "abacus"}, "no solver backend abacus"),
        ({"center": [0, 0], "eps": 1, "method": "milp", "solver": "scs"}, "works with highs, not with scs"),
        ({"center": [0, 0], "eps": 1, "seconds": 0}, "seconds: expected a positive number"),
        ({"center": [0, 0], "eps": 1, "threads": 0}, "threads: expected a whole number"),
    ],
)
def test_bounds_refuse_options(folder, options, message):
    with pytest.raises(InputError, match=message):
        lpverify.bounds("model.onnx", **options)


def test_the_model_is_what_onnx_accepts(folder):
    onnx.checker.check_model(onnx.load("model.onnx"))
