"""What `supports` claims, against what the code does."""

from pathlib import Path

import numpy as np
import pytest
from helpers import dense_model, model_of, query_of
from onnx import TensorProto, defs, helper, numpy_helper

import lpverify
from lpverify.capabilities import (
    BEGIN,
    END,
    STRUCTURE,
    as_text,
    capability,
    element_types,
    operators,
    opsets,
    with_table,
)
from lpverify.cli import main
from lpverify.config import Config
from lpverify.errors import InputError, VnnlibError
from lpverify.io.element_types import NAMES
from lpverify.io.onnx import import_model
from lpverify.io.vnnlib import parse_query
from lpverify.loading import LoadedNetwork
from lpverify.ops import REGISTRY
from lpverify.options import SPELLINGS, SUPPORTS
from lpverify.problem import compile_problem
from lpverify.verdict import Sat, Unsat
from lpverify.verify import verify_query

README = Path(lpverify.__file__).parent.parent / "README.md"
BOX = "".join(f"(assert (>= X_{i} 0))(assert (<= X_{i} 1))" for i in range(2))


def sums():
    """y = (x_0 + x_1, x_0 - x_1)."""
    return dense_model([(np.array([[1, 1], [1, -1]]), np.zeros(2))])


def two_ended(opset=13):
    """y = relu(a) and z = 2 b of two inputs and two outputs, of one element each."""
    ends = {n: helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 1]) for n in "abyz"}
    nodes = [helper.make_node("Relu", ["a"], ["y"]), helper.make_node("Add", ["b", "b"], ["z"])]
    graph = helper.make_graph(nodes, "g", [ends["a"], ends["b"]], [ends["y"], ends["z"]])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    return import_model(proto.SerializeToString())


def decide(model, body):
    return verify_query(model, query_of(model, BOX + body), Config(10.0))


def printed(capsysbinary, *words):
    assert main(words) == 0
    out, err = capsysbinary.readouterr()
    assert err == b""
    return out.decode().splitlines()


@pytest.mark.parametrize("option", SUPPORTS)
def test_every_option_prints_its_capability_alone(capsysbinary, option):
    assert printed(capsysbinary, "supports", f"--{option}") == list(capability(option))
    assert capability(option)


@pytest.mark.parametrize(("spelling", "option"), SPELLINGS.items())
def test_all_spellings_are_taken(capsysbinary, spelling, option):
    assert printed(capsysbinary, "capabilities", f"--{spelling}") == list(capability(option))


def test_without_an_option_everything_is_told(capsysbinary):
    lines = printed(capsysbinary, "supports")
    text = "\n".join(lines)
    assert [line for line in lines if line in SUPPORTS.values()] == [
        title for option, title in SUPPORTS.items() if option != "onnx-operator-types"
    ]
    for name in operators():
        assert f" {name}" in text
    assert "BND, OUTC, LIN, POLY" in text
    assert max(map(len, lines)) <= 100


def test_wrong_options_are_errors(capsysbinary):
    assert main(("supports", "--onnx")) == 1
    assert main(("supports", "Relu")) == 1
    assert capsysbinary.readouterr().out == b""


def test_operators_are_those_of_the_registry():
    assert {name for name in operators() if name not in STRUCTURE} == {
        f"{domain}.{op}" if domain else op for domain, op, _ in REGISTRY.table
    }
    assert all(len(line.split()) == 1 for line in capability("onnx-operators"))


def graph_of(nodes, inputs, outputs):
    """A part of a model: all tensors are floats of shape (1, 2) but conditions."""
    kinds = {"i": (TensorProto.INT64, []), "c": (TensorProto.BOOL, []), "d": (TensorProto.BOOL, [])}

    def info(name):
        return helper.make_tensor_value_info(name, *kinds.get(name, (TensorProto.FLOAT, [1, 2])))

    return helper.make_graph(nodes, "part", [*map(info, inputs)], [*map(info, outputs)])


def added(name):
    """Nodes that compute `f` with the operator, of x."""
    node = helper.make_node
    cast, doubled = node("Cast", ["k"], ["f"], to=TensorProto.FLOAT), node("Add", ["a", "a"], ["b"])
    value = numpy_helper.from_array(np.array([3, 4]))
    branches = {f"{side}_branch": graph_of([node(op, ["x"], ["b"])], [], ["b"]) for side, op in SIDES}
    body = graph_of([doubled, node("Identity", ["c"], ["d"])], ["i", "c", "a"], ["d", "b"])
    rows = graph_of([doubled], ["a"], ["b"])
    return {
        "Constant": [node("Constant", [], ["k"], value=value), cast],
        "ConstantOfShape": [node("ConstantOfShape", ["s"], ["k"]), cast],
        "Shape": [node("Shape", ["x"], ["k"]), cast],
        "Size": [node("Size", ["x"], ["k"]), cast],
        "If": [node("If", ["t"], ["f"], **branches)],
        "Loop": [node("Loop", ["n", "t", "x"], ["f"], body=body)],
        "Scan": [node("Scan", ["x"], ["f"], body=rows, num_scan_inputs=1)],
    }[name]


SIDES = (("then", "Neg"), ("else", "Relu"))
ADDED = {
    "Constant": [3, 4],
    "ConstantOfShape": [0, 0],
    "Shape": [1, 2],
    "Size": [2, 2],
    "If": [-1, 2],
    "Loop": [8, -16],
    "Scan": [2, -4],
}


@pytest.mark.parametrize("name", STRUCTURE)
def test_operators_that_need_no_importer_are_read(name):
    """y = x + f."""
    constants = {"s": np.array([1, 2]), "n": np.array(3), "t": np.array(True)}
    tensors = [numpy_helper.from_array(array, key) for key, array in constants.items()]
    model = model_of([*added(name), helper.make_node("Add", ["x", "f"], ["y"])], tensors, (2, 2))
    assert model.network(np.array([[1.0, -2.0]])).tolist() == [[1 + ADDED[name][0], ADDED[name][1] - 2]]


def test_types():
    assert set(element_types("Reshape")) == set(NAMES.values())
    assert {"float32", "int32"} <= set(element_types("Relu")) < set(NAMES.values())
    assert {"float32", "float64", "float16"} <= set(element_types("Exp"))
    for name in operators():
        if name not in STRUCTURE and ("", name) not in REGISTRY.whole:
            assert all("float" in kind for kind in element_types(name)), name
        assert f"{name} {' '.join(element_types(name))}" in capability("onnx-operator-types")


def test_all_operators_are_there_in_the_range_of_opsets():
    first, last = opsets()
    assert first <= 9
    assert last == defs.onnx_opset_version()
    for opset in range(first, last + 1):
        assert two_ended(opset).network.input_size == 2
        for domain, op, version in REGISTRY.table:
            schema = defs.get_schema(op, opset, domain) if version <= opset and not domain else None
            if schema is not None and not schema.deprecated:
                assert (domain, op, schema.since_version) in REGISTRY.table, (op, opset)


SUMS = """(declare-network f (declare-input X real [1,2]) {hidden} (declare-output Y real [1,2]))"""
AGAIN = """(declare-network g ({} f) (declare-input A real [1,2]) (declare-output B real [1,2]))"""
OTHER = "(declare-network g (declare-input A real [1,2]) (declare-output B real [1,2]))"
TWICE = "(declare-network f (declare-input X real [1,1]) (declare-input A real [1,1]) {})"
ENDS = "(declare-output Y real [1,1]) (declare-output B real [1,1])"
HIDDEN = '(declare-hidden H real [1,2] "z0")'
EQUAL = "(assert (and (== X[0,0] A[0,0]) (== X[0,1] A[0,1])))"
FREE = "".join(f"(assert (>= A[0,{i}] 0))(assert (<= A[0,{i}] 1))" for i in range(2))
QUERIES = {  # the declarations, the assertions, and the verdict
    ("arithmetic-complexity-theories", "BND"): (SUMS, "(assert (>= Y[0,0] 2.5))", "unsat"),
    ("arithmetic-complexity-theories", "OUTC"): (SUMS, "(assert (>= Y[0,0] Y[0,1]))", "sat"),
    ("arithmetic-complexity-theories", "LIN"): (SUMS, "(assert (>= (- (* 2 Y[0,0]) Y[0,1]) 5))", "unsat"),
    ("arithmetic-complexity-theories", "POLY"): (SUMS, "(assert (>= (* Y[0,0] Y[0,1]) 1.5))", "unsat"),
    ("multiple-node-comparison-theories", "SNC"): (SUMS, "(assert (>= (+ Y[0,0] Y[0,1]) 2))", "sat"),
    ("multiple-node-comparison-theories", "MNC"): (SUMS, "(assert (>= X[0,0] (+ Y[0,0] 0.5)))", "unsat"),
    ("hidden-node-theories", "NH"): (SUMS, "(assert (<= Y[0,1] -0.5))", "sat"),
    ("hidden-node-theories", "H"): (SUMS, "(assert (>= H[0,0] 2.5))", "unsat"),
    ("multiple-network-theories", "SNET"): (SUMS, "(assert (<= Y[0,1] -1.5))", "unsat"),
    ("multiple-network-theories", "MENET"): (
        SUMS + AGAIN.format("equal-to"),
        EQUAL + "(assert (> B[0,0] (+ 0.5 Y[0,0])))",
        "unsat",
    ),
    ("multiple-network-theories", "MINET"): (
        SUMS + AGAIN.format("isomorphic-to"),
        EQUAL + "(assert (> B[0,0] (+ 0.5 Y[0,0])))",
        "sat",
    ),
    ("multiple-network-theories", "MNET"): (SUMS + OTHER, FREE + "(assert (> B[0,0] 4.5))", "unsat"),
    ("multiple-input-output-theories", "SIO"): (SUMS, "(assert (<= Y[0,0] 0.5))", "sat"),
    ("multiple-input-output-theories", "MIO"): (TWICE, "(assert (>= (+ Y[0,0] B[0,0]) 2.9))", "sat"),
}


def query_of_2(declarations, body):
    """A query whose first network has its inputs in the unit box."""
    wanted = HIDDEN if "H[" in body else ENDS if declarations == TWICE else ""
    single = declarations == TWICE
    declarations = declarations.replace("{hidden}", wanted).replace("{}", wanted)
    inputs = ["X[0,0]", "A[0,0]"] if single else ["X[0,0]", "X[0,1]"]
    box = "".join(f"(assert (>= {x} 0))(assert (<= {x} 1))" for x in inputs)
    return parse_query(f"(vnnlib-version <2.0>) {declarations} {box} {body}")


@pytest.mark.parametrize(("theory", "query"), QUERIES.items())
def test_queries_of_a_claimed_theory_are_decided(theory, query):
    option, name = theory
    assert name in capability(option)
    declarations, body, verdict = query
    double = dense_model([(2 * np.array([[1, 1], [1, -1]]), np.zeros(2))])
    first = two_ended() if declarations == TWICE else sums()
    if "H[" in body:
        first = dense_model([(np.array([[1, 1], [1, -1]]), np.zeros(2)), (np.eye(2), np.zeros(2))])
    networks = {"f": LoadedNetwork(first)}
    if "isomorphic" in declarations or "network g (declare-input" in declarations:
        networks["g"] = LoadedNetwork(double)
    assert lpverify.verify(networks, query_of_2(declarations, body), timeout=10).verdict == verdict


def test_every_claimed_theory_has_a_query():
    options = {option for option, _ in QUERIES}
    assert {(option, name) for option in options for name in capability(option)} == set(QUERIES)


def test_several_inputs_and_outputs_in_version_1():
    model = two_ended()
    assert isinstance(decide(model, "(assert (>= (+ Y_0 Y_1) 2.9))"), Sat)
    assert isinstance(decide(model, "(assert (>= Y_1 2.1))"), Unsat)


@pytest.mark.parametrize("kind", capability("onnx-element-types"))
def test_claimed_element_types_are_decided(kind):
    """y = max(x, x) or x in that type: never above 1, and above 0 for some x."""
    stored = kind if kind != "real" else "float32"
    number = next(n for n, name in NAMES.items() if name == stored)
    floats = "float" in stored  # onnxruntime has no Max of all whole-number types
    node = helper.make_node("Max" if floats else "Concat", ["x", "x"] if floats else ["x"], ["y"])
    if not floats:
        node.attribute.append(helper.make_attribute("axis", 0))
    ends = [helper.make_tensor_value_info(name, number, [2]) for name in "xy"]
    graph = helper.make_graph([node], "g", ends[:1], ends[1:])
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    network = LoadedNetwork(import_model(proto.SerializeToString()))
    declared = f"(declare-network f (declare-input X {kind} [2]) (declare-output Y {kind} [2]))"
    box = "".join(f"(assert (and (>= X[{i}] 0) (<= X[{i}] 1)))" for i in range(2))
    for body, verdict in (("(assert (> Y[0] 1))", "unsat"), ("(assert (> Y[1] 0))", "sat")):
        query = parse_query(f"(vnnlib-version <2.0>) {declared} {box} {body}")
        assert lpverify.verify(network, query, timeout=10).verdict == verdict


def test_other_versions_are_refused():
    assert capability("vnnlib-versions") == ("1.0", "2.1")
    declared = (
        "(declare-network f (declare-input X real [1]) (declare-output Y real [1]))(assert (<= X[0] 1))"
    )
    for version in ("2.0", "2.1"):
        assert parse_query(f"(vnnlib-version <{version}>){declared}").networks
    with pytest.raises(VnnlibError):
        parse_query(f"(vnnlib-version <3.0>){declared}")


def test_disjunctions_of_outputs_are_not_expanded():
    either = "(assert (or (>= Y_0 2) (and (>= Y_1 1) (<= Y_0 3))))"
    assert len(compile_problem(sums().network, query_of(sums(), BOX + either * 12)).cases) == 1
    assert capability("optimised-disjunctive-reasoning") == ("true",)


def test_the_readme_is_current():
    text = README.read_text("utf-8")
    assert with_table(text) == text, "not current; run: python -m lpverify.capabilities README.md"


def test_a_text_without_a_place_for_the_table_is_refused():
    assert "| Relu" not in with_table(f"a\n{BEGIN}\n| Relu | old |\n{END}\nb")
    assert with_table(f"a\n{BEGIN}{END}\nb").startswith(f"a\n{BEGIN}\n| operands |")
    for text in ("", BEGIN, END + BEGIN):
        with pytest.raises(InputError):
            with_table(text)


def test_text_for_some():
    text = as_text({"vnnlib-versions": "Versions", "hidden-node-theories": "Hidden"})
    assert text == "Versions\n  1.0 to 2.1\n\nHidden\n  NH, H\n"
