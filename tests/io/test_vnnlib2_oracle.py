"""The VNN-LIB 2 reader against the standard's reference parser (package vnnlib) and its conformance cases.

The reference parser can crash, so it runs in a process of its own, over a whole batch of texts.
"""

import json
import random
import re
import subprocess
import sys
from fractions import Fraction
from itertools import product

import pytest

from lpverify.errors import UnsupportedError, VnnlibError
from lpverify.io.vnnlib import parse_query
from lpverify.query import And, Atom

pytest.importorskip("vnnlib")

REFERENCE = """
import json, sys, vnnlib

def tree(node):
    name = type(node).__name__
    if name == "Var":
        return [name, node.name, list(node.indices)]
    if hasattr(node, "lexeme"):
        return ["Literal", node.lexeme]
    if name == "Negate":
        return [name, tree(node.expr)]
    if name == "Minus":
        return [name, tree(node.head), *map(tree, node.rest)]
    if hasattr(node, "args"):
        return [name, *map(tree, node.args)]
    return [name, tree(node.lhs), tree(node.rhs)]

def parsed(text):
    try:
        query = vnnlib.parse_query_string(text)
    except Exception as error:
        return {"error": str(error) or "?"}
    networks = [
        [[[v.name, list(v.shape)] for v in tensors] for tensors in (n.inputs, n.hidden, n.outputs)]
        for n in query.networks
    ]
    return {"networks": networks, "assertions": [tree(a.expr) for a in query.assertions]}

with open(sys.argv[1]) as file:
    texts = json.load(file)
with open(sys.argv[2], "w") as file:
    json.dump([parsed(text) for text in texts], file)
"""

CASES = """
import json, sys
from vnntest.core.registry import get_cases

specs = [case.build_vnnlib_spec() for case in get_cases(suite="full")]
with open(sys.argv[1], "w") as file:
    json.dump([spec if isinstance(spec, str) else "\\n".join(spec) for spec in specs], file)
"""


def run(script, *paths):
    command = [sys.executable, "-c", script, *map(str, paths)]
    subprocess.run(command, check=True, capture_output=True, timeout=120, cwd=paths[0].parent)


def reference(texts, folder):
    """What the reference parser makes of each text: an error, or networks and assertions as lists."""
    (folder / "texts").write_text(json.dumps(texts))
    run(REFERENCE, folder / "texts", folder / "answers")
    return json.loads((folder / "answers").read_text())


def ours(text):
    """Our query, or the error as a text."""
    try:
        return parse_query(text)
    except (VnnlibError, UnsupportedError) as error:
        return str(error)


# --- evaluation at a point ---


def numbers(networks):
    """The number of each element by name and indices, counted here anew."""
    tensors = [tensor for inputs, _, _ in networks for tensor in inputs]
    tensors += [tensor for _, hidden, outputs in networks for tensor in hidden + outputs]
    elements = [(name, index) for name, shape in tensors for index in product(*map(range, shape))]
    return {element: number for number, element in enumerate(elements)}


def value(tree, point, where):
    """A term's value or a formula's truth, as the reference parser understood it."""
    kind, *children = tree
    if kind == "Var":
        return point[where[children[0], tuple(children[1])]]
    if kind == "Literal":
        return Fraction(children[0])
    parts = [value(child, point, where) for child in children]
    first, last = parts[0], parts[-1]
    if kind == "Multiply":
        for part in parts[1:]:
            first *= part
        return first
    return {
        "Negate": lambda: -first,
        "Plus": lambda: sum(parts),
        "Minus": lambda: first - sum(parts[1:]),
        "And": lambda: all(parts),
        "Or": lambda: any(parts),
        "LessThan": lambda: first < last,
        "LessEqual": lambda: first <= last,
        "GreaterThan": lambda: first > last,
        "GreaterEqual": lambda: first >= last,
        "Equal": lambda: first == last,
        "NotEqual": lambda: first != last,
    }[kind]()


def holds(formula, point):
    """Truth of our formula; `point` has the monomials behind the variables."""
    if isinstance(formula, Atom):
        total = sum(Fraction(factor) * point[variable] for variable, factor in formula.terms)
        bound = Fraction(formula.bound)
        return total < bound if formula.strict else total <= bound
    join = all if isinstance(formula, And) else any
    return join(holds(child, point) for child in formula.children)


def check_meaning(query, answer, chance):
    """Each assertion has the same truth in both, at points where that is not always the same."""
    where = numbers(answer["networks"])
    assert query.inputs + query.outputs == len(where)
    assert len(query.formula.children) == len(answer["assertions"])
    grid = [Fraction(n, 2) for n in range(-4, 5)] + [Fraction(1, 3)]
    seen = set()
    for _ in range(12):
        point = [chance.choice(grid) for _ in where]
        full = list(point)
        for monomial in query.monomials:
            assert list(monomial) == sorted(monomial)
            assert len(monomial) > 1
            full.append(Fraction(1))
            for variable in monomial:
                full[-1] *= point[variable]
        for formula, tree in zip(query.formula.children, answer["assertions"], strict=True):
            truth = value(tree, point, where)
            assert holds(formula, full) is truth
            seen.add(truth)
    return len(seen) > 1


# --- texts ---

TYPES = ["float32", "real", "float64", "bfloat16", "int8", "int64", "uint8"]
BLANKS = [" ", " ", " ", "\n", "\t", "  ", "\r\n", " ; a ) [ comment\n"]


class Writer:
    """Writes one random query; almost all that it writes is well-typed."""

    def __init__(self, seed):
        self.chance = random.Random(seed)
        self.count = 0
        self.elements = {}  # by element type

    def blank(self):
        return self.chance.choice(BLANKS)

    def tensor(self, kind, name, element_type, shape):
        for index in product(*map(range, shape)):
            text = self.chance.choice([",", ", ", " , "]).join(map(str, index))
            gap = self.chance.choice(["", "", "", " "])
            self.elements.setdefault(element_type, []).append(f"{name}{gap}[{text}]" if shape else name)
        onnx_name = f'"{name};"' if kind == "hidden" else ""
        dims = ", ".join(map(str, shape))
        return f"(declare-{kind}{self.blank()}{name} {element_type} [{dims}]{self.blank()}{onnx_name})"

    def shapes(self):
        return [
            (
                kind,
                self.chance.choice(TYPES),
                [self.chance.randint(1, 3) for _ in range(self.chance.choice([0, 1, 1, 2]))],
            )
            for kind in ("input", "hidden", "output")
            for _ in range(self.chance.randint(0 if kind == "hidden" else 1, 2))
        ]

    def network(self, name, shapes, equivalence):
        tensors = []
        for kind, element_type, shape in shapes:
            self.count += 1
            tensors.append(self.tensor(kind, f"T{self.count}_", element_type, shape))
        return f"(declare-network {name}{self.blank()}{equivalence}{self.blank().join(tensors)})"

    def literal(self, element_type):
        whole = element_type.startswith(("int", "uint"))
        if self.chance.random() < 0.03:
            return self.chance.choice(["1", "1.5", "-2", "1e1", "+1.0", ".5"])
        if whole:
            return self.chance.choice(
                ["0", "1", "2", "07"] if element_type[0] == "u" else ["0", "1", "-2", "3"]
            )
        return self.chance.choice(
            ["0.0", "1.0", "-1.0", "0.5", "-2.25", "00.10", "0.333333333333333333333333333"]
        )

    def term(self, element_type, depth):
        draw = self.chance.random()
        if depth == 0 or draw < 0.4:
            return self.chance.choice(self.elements[element_type])
        if draw < 0.55:
            return self.literal(element_type)
        op = self.chance.choice("+-*")
        parts = [self.term(element_type, depth - 1) for _ in range(self.chance.randint(1, 3))]
        return f"({op}{self.blank()}{self.blank().join(parts)})"

    def formula(self, depth):
        if depth and self.chance.random() < 0.4:
            parts = [self.formula(depth - 1) for _ in range(self.chance.randint(1, 3))]
            return f"({self.chance.choice(['and', 'or'])}{self.blank()}{self.blank().join(parts)})"
        element_type = self.chance.choice(list(self.elements))
        op = self.chance.choice(["<=", ">=", "<", ">", "==", "!="])
        depths = self.chance.choice([(0, 0), (0, 1), (2, 1), (3, 2)])
        sides = [self.term(element_type, depth) for depth in depths]
        self.chance.shuffle(sides)
        return f"({op} {sides[0]}{self.blank()}{sides[1]})"

    def query(self):
        shapes = self.shapes()
        text = [self.chance.choice(["(vnnlib-version <2.0>)", "; c\n(vnnlib-version <2.1>)"])]
        text.append(self.network("f", shapes, ""))
        if self.chance.random() < 0.4:
            which = self.chance.choice(["equal-to", "isomorphic-to"])
            text.append(self.network("g", shapes, f"({which} f)"))
        if self.chance.random() < 0.2:
            text.append(self.network("h", self.shapes(), ""))
        text += [f"(assert{self.blank()}{self.formula(2)})" for _ in range(self.chance.randint(1, 4))]
        return self.blank().join(text)


PATCHES = """
( ) [ ] , ; " T1_ T1_[0] T1_[0,0] T2_ T2_[1] T9_ f g 1 1.0 -1.0 .5 1e3 - + * / = == <= < != and or not (and
(or (<= (+ (assert (declare-input (declare-hidden (declare-output (declare-network (equal-to (isomorphic-to
float32 real int8 Real foo <2.0> <2.1> <3.0> [0] [1] [2] [1,1] [] e x "n"
"""
PIECES = re.compile(r"\s+|;[^\n]*\n|\"[^\"]*\"|[()]|[^\s();]+|.", re.DOTALL)


def damaged(text, chance):
    """The text with one or two pieces changed, mostly whole tokens."""
    for _ in range(chance.choice([1, 1, 2])):
        pieces = PIECES.findall(text) if chance.random() < 0.7 else list(text)
        at = chance.randrange(len(pieces))
        patch = chance.choice(["", " ", chance.choice(pieces), chance.choice(PATCHES.split())])
        pieces[at : at + chance.choice([0, 1, 1, 2])] = [patch]
        text = "".join(pieces)
    return text


def onnx_names_of_ends(error):
    """The grammar of 1.0.2 has names of the model only for hidden tensors; the standard has them for all."""
    return "syntax error" in error and "'\"" in error


def whole_number_too_long_for_it(error):
    return error in ("stoll", "stoi")


EXCEPTIONS = (onnx_names_of_ends, whole_number_too_long_for_it)  # what ours takes silently, the reference not


def compare(texts, tmp_path, seed):
    """Counts of what both parsers made of the texts, after all comparisons."""
    chance = random.Random(seed)
    counts = {"both": 0, "neither": 0, "remark": 0, "ours refuses": 0, "varied": 0}
    for text, answer in zip(texts, reference(texts, tmp_path), strict=True):
        query, error = ours(text), answer.get("error")
        if isinstance(query, str):
            counts["neither" if error else "ours refuses"] += 1
            continue
        if error:
            excused = any(exception(error) for exception in EXCEPTIONS)
            assert query.remarks or excused, (text, error)
            counts["remark"] += 1
            continue
        counts["both"] += 1
        counts["varied"] += check_meaning(query, answer, chance)
    return counts


def test_written_queries_mean_the_same(tmp_path):
    texts = [Writer(seed).query() for seed in range(600)]
    counts = compare(texts, tmp_path, 1)
    assert counts["both"] > 400
    assert counts["varied"] > 300
    assert counts["ours refuses"] == 0, [t for t in texts if isinstance(ours(t), str)][:3]


@pytest.mark.parametrize("seed", range(3))
def test_damaged_queries_are_refused_by_both(seed, tmp_path):
    chance = random.Random(seed)
    texts = [damaged(Writer(f"{seed} {i}").query(), chance) for i in range(700)]
    counts = compare(texts, tmp_path, seed)
    assert counts["both"] > 30
    assert counts["neither"] > 100


def test_conformance_cases(tmp_path):
    pytest.importorskip("vnntest")
    run(CASES, tmp_path / "cases")
    texts = json.loads((tmp_path / "cases").read_text())
    assert len(texts) == 178
    counts = compare(texts, tmp_path, 0)
    assert counts["both"] == 177
    assert counts["remark"] == 1  # isomorphic networks of two element types
    assert sum(bool(parse_query(text).remarks) for text in texts) == 1
