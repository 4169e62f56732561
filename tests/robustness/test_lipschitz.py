"""Lipschitz bounds against observed slopes and against each other."""

import doctest
from dataclasses import replace
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from helpers import dense_model, model_of, random_dense
from onnx import TensorProto, helper, numpy_helper

from lpverify.errors import InputError, UnsupportedError
from lpverify.loading import LoadedNetwork
from lpverify.robustness.lipschitz import api, lipschitz
from lpverify.robustness.lipschitz.certified import certified_bound
from lpverify.robustness.lipschitz.chain import Matrix, layers_of, parts_of
from lpverify.robustness.lipschitz.eclipse import eclipse_bound, eclipse_rows, multipliers
from lpverify.robustness.lipschitz.observed import observed_slope
from lpverify.simplify import simplify

NORMS = (1, 2, inf)


def layers(model):
    network = simplify(model.network)
    return network, layers_of(network, parts_of(network))


def steepest(network, norm=2, spread=2.0, seed=0):
    n = network.input_size
    return observed_slope(network, norm, -spread * np.ones(n), spread * np.ones(n), seed)[0]


def graph_model(nodes, constants, sizes):
    tensors = [numpy_helper.from_array(np.asarray(a, np.float32), n) for n, a in constants.items()]
    made = [helper.make_node(op, ins, outs, **attributes) for op, ins, outs, attributes in nodes]
    return model_of(made, tensors, sizes)


def activated(kind, seed, sizes, **attributes):
    """A dense network with some activation."""
    rng = np.random.default_rng(seed)
    nodes, constants, value = [], {}, "x"
    for k, (n, m) in enumerate(pairwise(sizes)):
        constants |= {f"w{k}": rng.normal(size=(n, m)), f"b{k}": rng.normal(size=m)}
        last = k == len(sizes) - 2
        nodes.append(("Gemm", [value, f"w{k}", f"b{k}"], ["y" if last else f"z{k}"], {}))
        if not last:
            nodes.append((kind, [f"z{k}"], [f"a{k}"], attributes))
        value = f"a{k}"
    return graph_model(nodes, constants, (sizes[0], sizes[-1]))


# Order and soundness on random networks.


@pytest.mark.parametrize("seed", range(50))
def test_every_method_is_above_observed_slopes(seed):
    rng = np.random.default_rng(seed)
    sizes = (int(rng.integers(1, 5)), *(int(v) for v in rng.integers(1, 9, rng.integers(1, 4))), 2)
    found = lipschitz(LoadedNetwork(random_dense(seed, sizes)))
    assert set(found.bounds) == {"product", "eclipse", "lipsdp"}
    assert 0 <= found.observed <= min(found.bounds.values()) * (1 + 1e-9)
    assert found.bounds["lipsdp"] <= found.bounds["eclipse"]
    assert found.bounds["eclipse"] <= found.bounds["product"] * (1 + 1e-6)
    assert found.value == min(found.bounds.values())


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("norm", NORMS)
def test_local_and_product_bounds_on_boxes(seed, norm):
    model = random_dense(seed, (3, 8, 8, 2))
    rng = np.random.default_rng(seed)
    centre, radius = rng.normal(size=3), 10.0 ** rng.uniform(-3, 0)
    lower, upper = centre - radius, centre + radius
    both = {
        m: lipschitz(LoadedNetwork(model), norm=norm, method=m, lower=lower, upper=upper)
        for m in ("local", "product")
    }
    for found in both.values():
        assert found.observed <= found.value * (1 + 1e-9)
    if radius < 0.01:
        assert both["local"].value <= both["product"].value


def test_local_bounds_are_exact_where_nothing_switches():
    model = random_dense(0, (3, 8, 8, 2))
    network = simplify(model.network)
    point = np.array([0.3, -0.2, 0.7])
    found = lipschitz(LoadedNetwork(model), method="local", lower=point - 1e-6, upper=point + 1e-6)
    values = network.evaluate(point[None])
    rows = [network.gradient(values, unit[None], network.output)[0] for unit in np.eye(2)]
    norm = np.linalg.norm(np.stack(rows), 2)
    assert norm * (1 - 1e-12) <= found.value <= norm * (1 + 1e-6)


@pytest.mark.parametrize(
    ("kind", "attributes"),
    [
        ("Tanh", {}),
        ("Sigmoid", {}),
        ("LeakyRelu", {"alpha": 0.3}),
        ("Softplus", {}),
        ("Elu", {"alpha": 1.0}),
        ("HardSigmoid", {"alpha": 0.5, "beta": 0.5}),
        ("Abs", {}),
        ("Softsign", {}),
    ],
)
@pytest.mark.parametrize("norm", NORMS)
def test_other_activations(kind, attributes, norm):
    model = activated(kind, 3, (3, 6, 6, 2), **attributes)
    box = {"lower": -np.ones(3), "upper": np.ones(3)}
    found = lipschitz(LoadedNetwork(model), norm=norm, **box)
    assert set(found.bounds) >= {"product", "local"}
    for value in found.bounds.values():
        assert found.observed <= value * (1 + 1e-9) < inf
    if norm == 2 and kind != "Abs":
        assert found.bounds["lipsdp"] <= found.bounds["eclipse"] <= found.bounds["product"] * (1 + 1e-6)


def test_sigmoids_count_with_a_quarter():
    tight = lipschitz(LoadedNetwork(activated("Sigmoid", 1, (2, 4, 2))), method="product").value
    loose = lipschitz(LoadedNetwork(activated("Tanh", 1, (2, 4, 2))), method="product").value
    assert tight == pytest.approx(loose / 4)


def test_small_known_constants():
    relu = dense_model([(np.eye(2) * 3.0, np.zeros(2)), (np.eye(2) * 2.0, np.zeros(2))])
    for norm in NORMS:
        assert lipschitz(LoadedNetwork(relu), norm=norm).value == pytest.approx(6.0)
    absolute = dense_model([(np.array([[1.0, -1.0]]), np.zeros(2)), (np.ones((2, 1)), np.zeros(1))])
    found = lipschitz(LoadedNetwork(absolute))  # relu(x) + relu(-x)
    assert found.bounds["product"] == pytest.approx(2.0)
    assert found.observed == pytest.approx(1.0)
    linear = lipschitz(LoadedNetwork(dense_model([(np.array([[3.0], [4.0]]), np.zeros(1))])))
    assert linear.value == pytest.approx(5.0) and linear.value >= 5.0
    assert linear.observed == pytest.approx(5.0)


def test_objectives_count_as_outputs():
    model = random_dense(5, (3, 8, 3))
    rows = np.array([[1.0, -1.0, 0.0]])
    one = lipschitz(LoadedNetwork(model), objective=rows)
    assert one.observed <= one.value < lipschitz(LoadedNetwork(model)).value * np.sqrt(2)
    assert one.observed == pytest.approx(steepest(_differences(model), spread=1.0), rel=0.3)


def _differences(model):
    return simplify(api._with_rows(model.network, np.array([[1.0, -1.0, 0.0]])))


# The certificate.


@pytest.mark.parametrize("seed", range(30))
def test_no_multipliers_certify_too_little(seed):
    rng = np.random.default_rng(seed)
    network, chain = layers(random_dense(seed, (3, 6, 5, 2)))
    slope = max(steepest(network, seed=s) for s in range(2))
    good = multipliers(chain)
    for scale in (1e-6, 1e-2, 1.0, 1.0, 3.0, 1e3):
        guess = [t * scale * np.exp(rng.normal(size=t.shape) * rng.choice([0.0, 0.1, 2.0])) for t in good]
        assert certified_bound(chain, guess) >= slope * (1 - 1e-9)
    nothing = [np.zeros_like(t) for t in good]
    assert certified_bound(chain, nothing) >= slope * (1 - 1e-9)


@pytest.mark.parametrize("scale", [1e-30, 1e-5, 1e5, 1e30])
def test_certificates_do_not_depend_on_units(scale):
    plain = dense_model([(np.eye(3), np.zeros(3)), (np.ones((3, 2)), np.zeros(2))])
    scaled = dense_model([(np.eye(3) * scale, np.zeros(3)), (np.ones((3, 2)), np.zeros(2))])
    expected = eclipse_bound(layers(plain)[1])
    assert eclipse_bound(layers(scaled)[1]) == pytest.approx(scale * expected, rel=1e-6)


def test_multipliers_are_checked():
    _, chain = layers(random_dense(0, (2, 3, 2)))
    for wrong in ([], [np.ones(2)], [-np.ones(3)], [np.full(3, np.nan)], [np.full(3, np.inf)]):
        with pytest.raises(InputError):
            certified_bound(chain, wrong)


def test_errors_of_weights_are_paid_for():
    _, chain = layers(random_dense(0, (2, 3, 2)))
    t = multipliers(chain)
    first = chain.weights[0]
    loose = replace(first, error=np.full_like(first.error, 1e-3))
    more = certified_bound(replace(chain, weights=(loose, *chain.weights[1:])), t)
    moved = replace(first, value=first.value + 1e-3 * np.sign(first.value), error=0 * first.error)
    other = eclipse_bound(replace(chain, weights=(moved, *chain.weights[1:])))
    assert more > certified_bound(chain, t)
    assert more >= 0.999 * other


def test_examples(tmp_path, monkeypatch):
    nodes = [helper.make_node("MatMul", ["x", "w"], ["z"]), helper.make_node("Relu", ["z"], ["y"])]
    ends = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, k]) for n, k in (("x", 2), ("y", 1))]
    weight = numpy_helper.from_array(np.ones((2, 1), np.float32), "w")
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], [weight])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    (tmp_path / "model.onnx").write_bytes(proto.SerializeToString())
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(api)
    assert found.failed == 0 and found.attempted >= 3


# Errors.


def test_wrong_arguments():
    network = LoadedNetwork(random_dense(0, (2, 3, 2)))
    for wrong in (
        {"norm": 3},
        {"norm": True},
        {"method": "best"},
        {"method": "local"},
        {"lower": np.zeros(2)},
        {"lower": np.ones(2), "upper": np.zeros(2)},
        {"objective": np.ones(3)},
        {"seconds": 0},
        {"solver": "none"},
    ):
        with pytest.raises(InputError):
            lipschitz(network, **wrong)


def test_what_does_not_apply_is_said():
    network = LoadedNetwork(random_dense(0, (2, 3, 2)))
    for method in ("eclipse", "lipsdp"):
        with pytest.raises(UnsupportedError, match="norm 2"):
            lipschitz(network, method=method, norm=inf)
    found = lipschitz(network, norm=1)
    assert set(found.bounds) == {"product"} and set(found.reasons) == {"eclipse", "lipsdp", "local"}
    square = graph_model([("Mul", ["x", "x"], ["y"], {})], {}, (2, 2))
    with pytest.raises(UnsupportedError):
        lipschitz(LoadedNetwork(square))


def test_constant_networks_have_no_slope():
    model = graph_model(
        [("Mul", ["x", "c"], ["z"], {}), ("Relu", ["z"], ["y"], {})], {"c": np.zeros(2)}, (2, 2)
    )
    assert lipschitz(LoadedNetwork(model)).value == 0.0


def test_exponentials_are_local_only():
    model = graph_model([("Exp", ["x"], ["y"], {})], {}, (2, 2))
    with pytest.raises(UnsupportedError, match="Exp"):
        lipschitz(LoadedNetwork(model))
    found = lipschitz(LoadedNetwork(model), lower=np.zeros(2), upper=np.ones(2))
    assert found.method == "local"
    assert np.e <= found.value <= np.e * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_one_certificate_for_all_rows_is_as_good_as_one_for_each(seed):
    chain = layers(random_dense(seed, (6, 12, 9, 5)))[1]
    together = eclipse_rows(chain)
    each = [eclipse_bound(chain.with_rows(np.array([i]))) for i in range(5)]
    assert together == pytest.approx(each, rel=1e-4)
    scaled = replace(chain, weights=(*chain.weights[:-1], Matrix(*(np.zeros((2, 9)),) * 2)))
    assert (eclipse_rows(scaled) < 1e-9).all()


def test_rows_that_the_root_can_not_express_are_paid_for(monkeypatch):
    chain = layers(random_dense(1, (6, 12, 9, 5)))[1]
    honest = eclipse_rows(chain)
    solve = np.linalg.solve
    monkeypatch.setattr(np.linalg, "solve", lambda a, b: solve(a, b) * 0.5)
    assert (eclipse_rows(chain) >= honest * (1 - 1e-9)).all()
