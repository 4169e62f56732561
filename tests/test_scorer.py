"""The scorer in `scorer.py` itself: right witnesses pass, altered ones do not."""

import ast
import csv
import math
from pathlib import Path

import numpy as np
import pytest
import vnnlib
from scorer import TOLERANCE, check_second, score, term

SPECS = Path(__file__).resolve().parents[1] / "vnnlib_specs"
STEPS = 9


def table(name):
    with (SPECS / name).open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


EXPECTED = {Path(row[1]).stem: row for row in table("expected.csv")[1:]}
SAT = [name for name, row in EXPECTED.items() if row[2] == "sat"]
SECOND = [name for name in EXPECTED if name.startswith("v2_")]


def field_of(name):
    """The networks, with absolute paths."""
    field = EXPECTED[name][0]
    if not field.startswith("["):
        return str(SPECS / field)
    return repr([(net, str(SPECS / path)) for net, path in ast.literal_eval(field)])


def query_of(name):
    return SPECS / EXPECTED[name][1]


def first_text(inputs):
    """A result file of version 1; the outputs do not matter."""
    return "sat\n(" + "\n".join(f"(X_{i} {v!r})" for i, v in enumerate(inputs)) + "\n(Y_0 77.5))\n"


def second_text(name, inputs):
    """A result file of version 2; all but the inputs is 7."""
    query = vnnlib.parse_query_file(str(query_of(name)))
    given, lines = iter(inputs), ["sat"]
    for network in query.networks:
        for d in (*network.inputs, *network.hidden, *network.outputs):
            kind = {"F32": "float32", "I64": "int64", "Real": "real"}[d.dtype.name]
            lines.append(f"{d.name} {kind} [{','.join(map(str, d.shape))}]")
            values = given if d in network.inputs else iter(lambda: 7, 8)
            lines += [repr(next(values)) for _ in range(math.prod(d.shape))]
    return "\n".join([*lines, ""])


def point(name):
    return [float(v) for v in EXPECTED[name][3].split()[1:]]


def judged(name, inputs):
    text = second_text(name, inputs) if name in SECOND else first_text(inputs)
    return score(text, field_of(name), query_of(name))


@pytest.mark.parametrize("name", SAT)
def test_points_of_the_table_are_correct(name):
    assert judged(name, point(name)) == "correct"


@pytest.mark.parametrize("name", SAT)
def test_altered_inputs_are_noticed(name):
    found = set()
    for i in range(min(len(point(name)), 6)):
        for moved in (-4.0, 4.0):
            altered = point(name)
            altered[i] += moved
            found.add(judged(name, altered))
    assert found == {"wrong"}


@pytest.mark.parametrize("name", [name for name in SECOND if EXPECTED[name][2] == "unsat"])
def test_no_point_of_a_grid_is_a_witness(name):
    """Bisection in `make_v2.py` and this evaluation share the reference parser only."""
    query = vnnlib.parse_query_file(str(query_of(name)))
    count = sum(math.prod(d.shape) for network in query.networks for d in network.inputs)
    steps = {1: STEPS**2, 2: STEPS}.get(count, STEPS // 2)
    for inputs in np.stack(np.meshgrid(*[np.linspace(-1.0, 1.0, steps)] * count), -1).reshape(-1, count):
        text = second_text(name, [float(v) for v in inputs]).partition("\n")[2]
        assert not check_second(text, field_of(name), query_of(name).read_text())(0.0)


def test_tolerance_is_for_inputs_only(tmp_path):
    query = tmp_path / "p.vnnlib"
    lines = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1")]
    lines += ["(assert (<= X_0 0.5))", "(assert (>= X_1 -0.5))", "(assert (>= Y_0 0.5))"]
    query.write_text("\n".join(lines))
    net = str(SPECS / "onnx" / "toy.onnx")
    verdicts = {
        (0.5, 0.0): "correct",
        (0.5 + 0.9 * TOLERANCE, 0.0): "tolerated",
        (0.5 + 1.1 * TOLERANCE, 0.0): "wrong",
        (0.5 - 0.5 * TOLERANCE, 0.0): "wrong",  # the output is too low
        (0.0, -0.5 - 0.5 * TOLERANCE): "tolerated",
    }
    assert {p: score(first_text(p), net, query) for p in verdicts} == verdicts


def test_bounds_are_compared_in_the_type_of_the_model(tmp_path):
    lines = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1")]
    query = tmp_path / "p.vnnlib"
    net = str(SPECS / "onnx" / "toy.onnx")
    query.write_text("\n".join([*lines, "(assert (<= X_0 0.1))", "(assert (>= X_0 0.1))"]))
    above = float(np.nextafter(np.float32(0.1), np.float32(1)))
    assert float(np.float32(0.1)) > 0.1
    assert score(first_text((float(np.float32(0.1)), 0)), net, query) == "correct"
    assert score(first_text((above, 0)), net, query) == "tolerated"
    query.write_text("\n".join([*lines, "(assert (<= Y_0 0.1))"]))  # outputs are compared in float64
    assert score(first_text((float(np.float32(0.1)), 0)), net, query) == "wrong"


def test_terms():
    values = {"X_0": np.float32(2.0)}
    assert term(["-", ["+", "X_0", "1.5", ["*", "2", "X_0"]]], values) == -7.5
    assert term(["-", "X_0", "1", "1"], values) == 0


def test_formulas_may_be_nested(tmp_path):
    lines = [f"(declare-const {name} Real)" for name in ("X_0", "X_1", "Y_0", "Y_1")]
    query = tmp_path / "p.vnnlib"
    query.write_text(
        "\n".join([*lines, "(assert (or (and (< X_0 0) (> Y_0 0)) (and (>= X_1 1) (or (<= Y_1 0)))))"])
    )
    verdicts = {(-1.0, 0.0): "correct", (0.0, 1.0): "correct", (1.0, 1.0): "wrong", (0.0, 0.0): "wrong"}
    net = str(SPECS / "onnx" / "toy.onnx")
    assert {p: score(first_text(p), net, query) for p in verdicts} == verdicts


@pytest.mark.parametrize("word", ["unsat", "timeout", "timed-out", "unknown", "error"])
def test_other_verdicts_are_passed_on(word):
    assert score(f"{word}\n", field_of("toy_order"), query_of("toy_order")) == word


BAD_FIRST = {
    "": "malformed",
    "SAT\n": "malformed",
    "no_result_in_file\n": "malformed",
    "sat\n": "missing",
    "sat\n(": "missing",
    "sat\n((X_0 1) (X_1 1)": "malformed",
    "sat\n(X_0 1) (X_1 1)": "malformed",
    "sat\n((X_0 1))": "malformed",
    "sat\n((X_1 1) (X_0 1))": "malformed",
    "sat\n((X_0 1) (X_1 1) (X_2 1))": "malformed",
    "sat\n((X_0 one) (X_1 1))": "malformed",
    "sat\n((X_0 1) (X_1 1) (Z_0 1))": "malformed",
    "sat\n((X_0 nan) (X_1 1))": "wrong",
    "sat\n((X_0 1 1) (X_1 1))": "malformed",
}


@pytest.mark.parametrize("text", BAD_FIRST)
def test_files_of_version_1_that_are_wrong(text):
    assert score(text, field_of("toy_corner"), query_of("toy_corner")).partition(":")[0] == BAD_FIRST[text]


def test_files_of_version_2_that_are_wrong():
    name = "v2_hidden"
    good = second_text(name, point(name))
    alterations = [
        ("X real", "X float64"),
        ("X real", "Z real"),
        ("[1,2]", "[2,1]"),
        ("[1,2]", "[1,3]"),
        ("[1,2]\n", "[1,2]\n0.0\n"),
        ("G real [1,3]\n7\n7\n7\n", ""),
        (
            "G real [1,3]\n7\n7\n7\nH real [1,4]\n7\n7\n7\n7\n",
            "H real [1,4]\n7\n7\n7\n7\nG real [1,3]\n7\n7\n7\n",
        ),
        ("Y real [1,2]\n7\n7\n", "Y real [1,2]\n7\n"),
        ("7\n", "seven\n"),
    ]
    for old, new in alterations:
        assert old in good
        text = good.replace(old, new, 1)
        assert score(text, field_of(name), query_of(name)).startswith("malformed")
    assert score(good + "more\n", field_of(name), query_of(name)).startswith("malformed")
    assert score("sat\n\n\n", field_of(name), query_of(name)) == "missing"


def test_network_names_must_be_the_declared_ones():
    field = field_of("v2_isomorphic").replace("'g'", "'h'")
    text = second_text("v2_isomorphic", point("v2_isomorphic"))
    assert score(text, field, query_of("v2_isomorphic")).startswith("malformed")
