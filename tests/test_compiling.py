"""Verdicts on queries of version 2 against exact interval bisection, and witnesses against onnxruntime.

Formulas are evaluated here by a parser of this file's own, in rational arithmetic.
"""

import re
from fractions import Fraction
from itertools import pairwise

import numpy as np
import onnx
import pytest
from helpers import runtime_outputs
from networks import dense, header, saved, tensors
from onnx import numpy_helper

import lpverify

SIZES = {"f": (2, 3, 2), "g": (2, 4, 2)}


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return {name: saved(folder, name, dense(seed, SIZES[name])) for seed, name in ((5, "f"), (6, "g"))}


def parsed(text):
    """Nested lists of words."""
    stack = [[]]
    for word in re.findall(r"[()]|[A-Za-z]\w*\[[^\]]*\]|[^\s()]+", text):
        if word == "(":
            stack.append([])
        elif word == ")":
            stack[-2].append(stack.pop())
        else:
            stack[-1].append(word)
    return stack[0]


class Interval:
    """Exact interval arithmetic."""

    def __init__(self, low, high=None):
        self.low, self.high = Fraction(low), Fraction(low if high is None else high)

    def __add__(self, other):
        return Interval(self.low + other.low, self.high + other.high)

    def __sub__(self, other):
        return Interval(self.low - other.high, self.high - other.low)

    def __mul__(self, other):
        ends = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Interval(min(ends), max(ends))

    def relu(self):
        return Interval(max(self.low, 0), max(self.high, 0))


def term(tree, values):
    """An interval that contains the term; exact at points."""
    if isinstance(tree, str):
        return values[tree] if tree in values else Interval(Fraction(tree))
    parts = [term(part, values) for part in tree[1:]]
    if tree[0] == "-" and len(parts) == 1:
        return Interval(0) - parts[0]
    total = parts[0]
    for part in parts[1:]:
        total = total + part if tree[0] == "+" else total - part if tree[0] == "-" else total * part
    return total


def less(difference, strict):
    """Whether `difference < 0`: True, False, or None where it depends."""
    low, high = difference.low, difference.high
    if high < 0 or (high == 0 and not strict):
        return True
    return False if low > 0 or (low == 0 and strict) else None


def both(parts):
    return False if False in parts else None if None in parts else True


def truth(tree, values):
    """Of a formula: True, False or None."""
    op = tree[0]
    if op in ("and", "or"):
        parts = [truth(part, values) for part in tree[1:]]
        return both(parts) if op == "and" else negated(both([negated(p) for p in parts]))
    found = []
    for first, second in pairwise(term(part, values) for part in tree[1:]):
        a, b = first - second, second - first
        if op in ("==", "!="):
            equal = both([less(a, False), less(b, False)])
            found.append(equal if op == "==" else negated(equal))
        else:
            found.append(less(a if op[0] == "<" else b, len(op) == 1))
    return both(found)


def negated(value):
    return None if value is None else not value


def weights(path):
    tensors_ = {t.name: numpy_helper.to_array(t) for t in onnx.load(path).graph.initializer}
    return {
        k: np.array([[Fraction(float(v)) for v in row] for row in np.atleast_2d(a)])
        for k, a in tensors_.items()
    }


def layers(w, x):
    """Intervals of `h`, `r` and `y`."""

    def affine(matrix, offset, values):
        return [
            sum((v * Interval(a) for v, a in zip(values, column, strict=True)), Interval(b))
            for column, b in zip(matrix.T, offset[0], strict=True)
        ]

    h = affine(w["V"], w["b"], x)
    r = [v.relu() for v in h]
    return {"h": h, "r": r, "y": affine(w["W"], w["c"], r)}


NAMES = {"f": ("X", "Y", "H"), "g": ("U", "V", "R")}
F = "f: " + tensors(["X real [1,2]"], ["Y real [1,2]"], ['H real [1,3] "h"'])
G = "g: " + tensors(["U real [1,2]"], ["V real [1,2]"], ['R real [1,4] "r"'])
TWIN = "g (equal-to f): " + tensors(["U real [1,2]"], ["V real [1,2]"], ['R real [1,3] "r"'])
BOX = "(assert (and (>= {0} -1.0) (<= {0} 1.0)))"
BOXES = BOX.format("X[0,0]") + BOX.format("X[0,1]")
SAME = "(assert (== X[0,0] U[0,0])) (assert (and (<= X[0,1] U[0,1]) (>= X[0,1] U[0,1])))"
STEP = "(assert (== X[0,0] U[0,0])) (assert (== U[0,1] (+ X[0,1] 0.25)))"  # a shifted copy


def evaluated(given, x, paths):
    """Values of all variables by their names, as intervals."""
    values = {}
    for name, flat in zip(given, x, strict=True):
        inputs, outputs, hidden = NAMES[name]
        found = layers(paths[name], flat)
        rows = ((inputs, flat), (outputs, found["y"]), (hidden, found["h" if name == "f" else "r"]))
        values |= {f"{prefix}[0,{i}]": v for prefix, row in rows for i, v in enumerate(row)}
    return values


def bisect(decide, most=1500):
    """`sat`, `unsat` or None by cutting [-1, 1]^2; `decide` gets two intervals."""
    boxes, count = [(Interval(-1, 1), Interval(-1, 1))], 0
    while boxes:
        count += 1
        box = boxes.pop(0)
        value = decide(box)
        centre = tuple(Interval((v.low + v.high) / 2) for v in box)
        if value or decide(centre):
            return "sat"
        if count > most:
            return None
        if value is None:
            wide = max((0, 1), key=lambda i: box[i].high - box[i].low)
            halves = (box[wide].low, centre[wide].low), (centre[wide].low, box[wide].high)
            boxes += [tuple(Interval(*h) if i == wide else box[i] for i in (0, 1)) for h in halves]
    return "unsat"


Y, Z = "Y[0,0]", "Y[0,1]"
ONE, TWO, COPY = (F,), (F, G), (F, TWIN)
TEMPLATES = {
    "output": (ONE, "", f"(>= (+ {Y} (* -0.3 {Z})) {{c}})", (-1, 1, 2, 3)),
    "difference": (TWO, SAME, f"(>= (- {Y} V[0,0]) {{c}})", (-2, 0.5, 1.5, 4)),
    "difference, both ways": (
        TWO,
        SAME,
        f"(or (> (- {Y} V[0,1]) {{c}}) (< (- {Y} V[0,1]) -{{c}}))",
        (1, 3, 4, 6),
    ),
    "shifted copy": (COPY, STEP, f"(> {Y} (+ V[0,0] {{c}}))", (-1, -0.1, 0.1, 0.5)),
    "hidden": (ONE, "", f"(and (<= H[0,0] {{c}}) (>= H[0,1] 0.1) (>= {Y} {Z}))", (-2, -1, 0, 1)),
    "hidden copies": (COPY, SAME, "(> (- R[0,1] H[0,1]) {c})", (0.5, 1, 2, 3)),
    "disc": (
        ONE,
        "",
        f"(and (<= (+ (* X[0,0] X[0,0]) (* X[0,1] X[0,1])) 0.25) (>= {Y} {{c}}))",
        (-1, 0.5, 1, 2),
    ),
    "outside a disc": (
        ONE,
        "",
        "(and (>= (+ (* X[0,0] X[0,0]) (* X[0,1] X[0,1])) {c}) (<= X[0,0] 0.5))",
        (1, 1.3, 2),
    ),
    "cubic": (ONE, "", f"(<= (* X[0,0] X[0,0] X[0,0] {Y}) {{c}})", (-0.1, -1, -3, -9)),
    "outputs multiplied": (ONE, "", f"(>= (* {Y} {Z}) {{c}})", (-1, 0.2, 1, 4)),
    "other than": (ONE, "", f"(and (!= {Y} {{c}}) (!= {Y} {Z}))", (0, 1)),
    "equal outputs": (ONE, "", f"(and (== {Y} {Z}) (>= X[0,0] {{c}}))", (2, 0.999)),
    "half-plane": (ONE, "", f"(and (>= (+ X[0,0] X[0,1]) {{c}}) (<= {Y} (* 0.5 {Z})))", (0, 1.5, 2.5)),
}
CASES = [(name, c) for name, (*_, constants) in TEMPLATES.items() for c in constants]


def checked(result, text, given, models):
    """A witness must fulfil every assertion exactly with what onnxruntime computes from it."""
    values = {}
    for name in given:
        inputs, outputs, hidden = NAMES[name]
        x = result.witness.inputs[inputs]
        proto = onnx.load(models[name])
        proto.graph.output.append(onnx.ValueInfoProto(name="h" if hidden == "H" else "r"))
        assert x.dtype == np.float32
        y, z = runtime_outputs(proto.SerializeToString(), {"x": x})
        for prefix, array in ((inputs, x), (outputs, y), (hidden, z)):
            values |= {f"{prefix}[0,{i}]": Interval(float(v)) for i, v in enumerate(array[0])}
        assert np.array_equal(result.witness.outputs[outputs], y)
        assert hidden not in result.witness.outputs or np.array_equal(result.witness.outputs[hidden], z)
    assertions = [tree[1] for tree in parsed(text) if tree[0] == "assert"]
    assert assertions and all(truth(tree, values) for tree in assertions)


@pytest.mark.parametrize(("name", "constant"), CASES)
def test_verdicts_agree_with_exact_bisection(name, constant, models):
    networks, links, body, _ = TEMPLATES[name]
    given = {"f": models["f"]} | ({"g": models["g"]} if networks is TWO else {})
    body = body.format(c=float(constant)).replace("--", "")
    text = header(*networks) + BOXES + links + f"(assert {body})"
    paths = {"f": weights(models["f"]), "g": weights(models["g" if networks is TWO else "f"])}
    names = [one[0] for one in networks]
    (tree,) = parsed(body)

    def decide(box):
        second = (box[0], box[1] + Interval(Fraction(1, 4))) if links is STEP else box
        return truth(tree, evaluated(names, [list(box), list(second)][: len(names)], paths))

    expected = bisect(decide)
    result = lpverify.verify(given, lpverify_query(text), timeout=20)
    if result.verdict == "sat":
        every = given if networks is not COPY else {"f": models["f"], "g": models["f"]}
        checked(result, text, names, every)
        assert expected != "unsat"
    elif result.verdict == "unsat":
        assert expected != "sat"
    measure_zero = name in ("equal outputs", "shifted copy")
    assert expected is None or measure_zero or result.verdict == expected


def lpverify_query(text):
    from lpverify.io.vnnlib import parse_query

    return parse_query(text, "query.vnnlib")


def verdict(models, *assertions, networks=ONE):
    text = header(*networks) + "".join(f"(assert {a})" for a in assertions)
    given = {"f": models["f"]} | ({"g": models["g"]} if networks is TWO else {})
    result = lpverify.verify(given, lpverify_query(text), timeout=6)
    if result.verdict == "sat":
        every = {"f": models["f"], "g": models["f" if networks is COPY else "g"]}
        checked(result, text, [one[0] for one in networks], every)
    return result.verdict


def test_unbounded_inputs_are_never_proven(models):
    half = ("(>= X[0,0] 0.0)", "(<= X[0,0] 1.0)", "(>= X[0,1] 0.0)")
    assert verdict(models, *half, "(>= (* Y[0,0] Y[0,0]) 0.01)") == "sat"
    assert verdict(models, *half, "(< (* Y[0,0] Y[0,0]) 0.0)") == "unknown"
    assert verdict(models, *half, "(> X[0,1] 100000.0)", "(<= (* X[0,1] X[0,1]) 0.0)") == "unknown"
    assert verdict(models, *half, "(<= (+ X[0,0] X[0,1]) -0.5)") == "unsat"  # a bound follows, then nothing
    assert verdict(models, *half, "(<= (+ X[0,0] X[0,1]) 1.5)", "(>= (* Y[0,0] Y[0,0]) 900000.0)") == "unsat"


def test_contradictory_inputs(models):
    box = [f"(and (>= X[0,{i}] -1.0) (<= X[0,{i}] 1.0))" for i in (0, 1)]
    assert verdict(models, *box, "(>= X[0,0] 1.00000000000000000000001)", "(>= Y[0,0] -100.0)") == "unsat"
    assert verdict(models, *box, "(< X[0,0] X[0,1])", "(< X[0,1] X[0,0])") == "unsat"
    links = "(== X[0,0] U[0,0])", "(== U[0,0] X[0,1])", "(!= X[0,1] X[0,0])", "(== U[0,1] 0.5)"
    assert verdict(models, *box, *links, networks=COPY) == "unsat"
    assert verdict(models, *box, "(> X[0,0] 1.0)") == "unsat"
    assert verdict(models, *box, "(or (> X[0,0] 1.0) (and (<= X[0,0] -1.0) (>= X[0,1] 1.0)))") == "sat"


def test_merged_inputs_of_a_witness_are_the_same_floats(models):
    text = header(*TWO) + BOXES + SAME + "(assert (>= (+ Y[0,0] V[0,0]) -3.1))"
    result = lpverify.verify(models, lpverify_query(text), timeout=20)
    assert result.verdict == "sat"
    checked(result, text, ["f", "g"], models)
    first, second = result.witness.inputs["X"], result.witness.inputs["U"]
    assert first.tobytes() == second.tobytes()


def test_a_copy_at_the_same_inputs(models):
    """`Y - V` of equal networks at equal inputs is 0."""
    for op, bound in ((">", "0.0"), (">=", "0.0"), (">=", "0.000001")):
        text = header(*COPY) + BOXES + SAME + f"(assert ({op} (- Y[0,1] V[0,1]) {bound}))"
        result = lpverify.verify({"f": models["f"]}, lpverify_query(text), timeout=1)
        assert (result.verdict == "sat") == ((op, bound) == (">=", "0.0"))
