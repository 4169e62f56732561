"""The VNN-LIB 2 reader: grammar, scoping, typing, numbering, products, places of errors, hostile files."""

import gc
import gzip
import random
from dataclasses import replace
from decimal import Decimal
from fractions import Fraction
from math import prod

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpverify.errors import UnsupportedError, VnnlibError
from lpverify.io.vnnlib import DEFAULT_LIMITS, Limits, parse_query, read_query
from lpverify.query import And, Atom, Declaration, Or, Query, Variable

VERSION = "(vnnlib-version <2.0>)\n"
NETWORK = """(declare-network f (declare-input X float32 [2,3]) (declare-input S float32 [])
(declare-input I int8 [2]) (declare-input U uint8 [1]) (declare-input B bool [1])
(declare-input D float64 [1]) (declare-hidden H float32 [2] "h") (declare-output Y float32 [2]))
"""
HEADER = VERSION + NETWORK
X, S, I, U, B, D, H, Y, FIRST = 0, 6, 7, 9, 10, 11, 12, 14, 16
LINE = HEADER.count("\n") + 1


def parse(assertion, **options):
    """The query of one assertion."""
    return parse_query(f"{HEADER}(assert {assertion})", **options)


def formula(assertion, **options):
    """The formula of one assertion that needs no remark."""
    query = parse(assertion, **options)
    assert query.remarks == ()
    (child,) = query.formula.children
    return child


def atom(bound, *terms, strict=False):
    return Atom(tuple(terms), bound, strict)


def declared(text, **options):
    """The query of some declarations, with an assertion about an element of X."""
    return parse_query(f"{VERSION}{text}\n(assert (<= X[0] 1.0))", **options)


def error(text, **options):
    with pytest.raises(VnnlibError) as caught:
        parse_query(text, "a.vnnlib", **options)
    place = f"a.vnnlib:{caught.value.line}:{caught.value.column}: "
    assert str(caught.value).startswith(place)
    return caught.value, str(caught.value).removeprefix(place)


# --- whole files ---


def test_whole_file():
    text = """; a comment (
    (vnnlib-version <2.1>) ; another
    (declare-network f (declare-input A float32 [2] "in ; (") (declare-output C real [] "a\\"b\\\\"))
    (declare-network g (isomorphic-to f) (declare-input P float32 [2])
       (declare-hidden Q int64 [1,2] "h") (declare-output R Real []))
    (assert (or (<= A[0] P[1]) (and (< C R) (> C -0.5))))
    (assert (== Q[0,1] 3))"""
    f = (Variable("A", "input", "float32", (2,), "in ; ("), Variable("C", "output", "real", (), 'a"b\\'))
    g = (
        Variable("P", "input", "float32", (2,)),
        Variable("Q", "hidden", "int64", (1, 2), "h"),
        Variable("R", "output", "real", ()),
    )
    choice = Or(
        (
            atom(0, (0, 1), (3, -1)),
            And((atom(0, (4, 1), (7, -1), strict=True), atom(Decimal("0.5"), (4, -1), strict=True))),
        )
    )
    equal = And((atom(3, (6, 1)), atom(-3, (6, -1))))
    networks = (Declaration("f", f), Declaration("g", g, "", "f"))
    expected = Query(4, 4, And((choice, equal)), "a", (), networks, "2.1")
    assert parse_query(text, "a") == expected
    assert parse_query(text.replace("\n", "\r\n"), "a") == expected
    assert parse_query("\ufeff" + text, "a") == expected


def test_packed_files(tmp_path):
    path = tmp_path / "a.txt"
    text = f"{HEADER}(assert (<= S 0.1))".encode()
    for data in (text, gzip.compress(text), b"\xef\xbb\xbf" + text):
        path.write_bytes(data)
        assert read_query(path).formula == And((atom(Decimal("0.1"), (S, 1)),))


@pytest.mark.parametrize("enabled", [True, False])
def test_collector_is_left_as_it_was(enabled):
    try:
        (gc.enable if enabled else gc.disable)()
        parse("(<= S 1.0)")
        with pytest.raises(VnnlibError):
            parse("(<= T 1.0)")
        assert gc.isenabled() is enabled
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("start", "version"),
    [
        ("(vnnlib-version <2.0>)", "2.0"),
        (" \n;(declare-const X_0 Real)\n(vnnlib-version<2.1>)", "2.1"),
        ("(vnnlib-version ; why\n <2.0> )", "2.0"),
    ],
)
def test_version_is_told_from_the_content(start, version):
    query = parse_query(start + NETWORK + "(assert (<= S 1.0))", "X_0.vnnlib1")
    assert (query.version, query.remarks) == (version, ())
    one = parse_query(
        "; (vnnlib-version <2.0>)\n(declare-const Y_0 Real)(assert (<= Y_0 1))", "2.0/v2.vnnlib"
    )
    assert (one.version, one.networks) == ("1.0", ())


def test_version_without_brackets_is_a_remark():
    query = parse_query("(vnnlib-version 2.0)" + NETWORK + "(assert (<= S 1.0))")
    assert (query.version, query.remarks) == ("2.0", ("1:17: a version without '<' and '>'",))


@pytest.mark.parametrize(
    "version", ["<1.0>", "<2.2>", "<3.0>", "<02.0>", "<2.00>", "2", "<2.0", '"2.0"', "< 2.0>"]
)
def test_other_versions(version):
    caught, message = error(f"\n(vnnlib-version {version}){NETWORK}(assert (<= S 1.0))")
    assert "only <2.0> and <2.1>" in message
    assert (caught.line, caught.column) == (2, 17)


# --- declarations ---


def test_numbers_of_variables():
    text = """(declare-network f (declare-input A real [2]) (declare-hidden B real [1,2] "b")
    (declare-output C real [2])) (declare-network g (declare-input X real [3]) (declare-input E real [])
    (declare-output F real [1]))"""
    order = ["A[0]", "A[1]", "X[0]", "X[1]", "X[2]", "E", "B[0,0]", "B[0,1]", "C[0]", "C[1]", "F[0]"]
    query = parse_query(VERSION + text + "".join(f"(assert (<= {name} 1.0))" for name in order))
    assert (query.inputs, query.outputs) == (6, 5)
    assert [child.terms for child in query.formula.children] == [((i, 1),) for i in range(11)]


TYPES = """
float32 float64 float16 bfloat16 float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz float4e2m1
int4 uint4 int8 int16 int32 int64 uint8 uint16 uint32 uint64 bool string complex64 complex128 real
"""


@pytest.mark.parametrize("name", [*TYPES.split(), "Real"])
def test_element_types(name):
    query = declared(f"(declare-network f (declare-input X real [1]) (declare-output Y {name} [2,3]))")
    assert query.networks[0].variables[1] == Variable("Y", "output", name.lower(), (2, 3))
    assert query.remarks == ()


EQUAL = "(declare-network f (declare-input X {0} [2]) {1} (declare-output Y {0} [1,2]))"
OTHER = "(declare-network g ({2} f) (declare-input V {0} [2]) {1} (declare-output W {0} [1,2]))"


@pytest.mark.parametrize("which", ["equal-to", "isomorphic-to"])
def test_equivalence(which):
    query = declared(EQUAL.format("real", "") + OTHER.format("real", "", which))
    expected = ("f", "") if which == "equal-to" else ("", "f")
    assert (query.networks[1].equal_to, query.networks[1].isomorphic_to) == expected
    assert query.remarks == ()


def test_equal_networks_may_declare_other_hidden_tensors():
    one, two = '(declare-hidden {} real [{}] "one")', '(declare-hidden K int8 [1] "two")'
    query = declared(
        EQUAL.format("real", one.format("H", 3)) + OTHER.format("real", one.format("J", 3) + two, "equal-to")
    )
    assert query.networks[1].equal_to == "f"
    text = (
        VERSION
        + EQUAL.format("real", one.format("H", 3))
        + OTHER.format("real", one.format("J", 4), "equal-to")
    )
    assert "J and H have the shapes [4] and [3]" in error(text)[1]


def test_equivalences_that_the_standard_has_not():
    chain = EQUAL.format("real", "") + OTHER.format("real", "", "equal-to")
    chain += (
        "(declare-network h (isomorphic-to g) (declare-input Q float32 [2]) (declare-output R real [1,2]))"
    )
    (first, second) = declared(chain).remarks
    place = f"2:{chain.index('to g') + 4}"
    assert first == f"{place}: an equivalence to a network that has one itself"
    assert second == f"{place}: Q and V have the element types float32 and real; version 2.0 wants one"
    forward = OTHER.format("real", "", "equal-to") + EQUAL.format("real", "")
    assert declared(forward).remarks == ("2:30: an equivalence to a network that is declared later",)


def net(inside, name="f"):
    return f"(declare-network {name} {inside})"


IN, OUT, HID = "(declare-input X real [1])", "(declare-output Y real [1])", '(declare-hidden H real [1] "h")'


@pytest.mark.parametrize(
    ("text", "message", "column"),
    [
        ("", "expected (declare-network, got '(assert'", 1),
        (net(""), "expected (declare-input, got ')'", 20),
        (net(IN), "expected (declare-output, got ')'", 46),
        (net(OUT), "expected (declare-input, got '(declare-output'", 20),
        (net(HID + OUT), "expected (declare-input, got '(declare-hidden'", 20),
        (net(IN + HID), "expected (declare-output, got ')'", 77),
        (net(IN + OUT + HID), "hidden after output", 73),
        (net(IN + OUT + "(declare-input Z real [1])"), "input after output", 73),
        (net(IN + HID + "(declare-input Z real [1])" + OUT), "input after hidden", 77),
        (net(IN + OUT + "(declare-other Z)"), "expected a declaration or ')', got '(declare-other'", 73),
        (net(IN + OUT)[:-1], "expected a declaration or ')', got '(assert'", 73),
        (net(IN + OUT, ""), "expected a name of the network, got '(declare-input'", 19),
        (net(IN + OUT, "1f"), "expected a name of the network, got '1f'", 18),
        (net(IN + OUT, "f.g"), "expected a name of the network", 18),
        (net(IN + OUT, "_f"), "expected a name of the network", 18),
        (net(IN + OUT, "f\u00e4"), "expected a name of the network", 18),
        (net(IN + OUT, "and"), "expected a name of the network", 18),
        (net(IN + OUT, "X"), "'X' is declared twice", 35),
        (net(IN + IN + OUT), "'X' is declared twice", 61),
        (net(IN + "(declare-output X real [1])"), "'X' is declared twice", 62),
        (
            net(IN + OUT) + net("(declare-input V real [])(declare-output W real [])"),
            "'f' is declared twice",
            91,
        ),
        (net(IN + OUT) + net(IN + "(declare-output W real [])", "g"), "'X' is declared twice", 108),
        (net("(declare-input X float [1])" + OUT), "expected an element type, got 'float'", 37),
        (net("(declare-input X REAL [1])" + OUT), "expected an element type, got 'REAL'", 37),
        (net("(declare-input X [1])" + OUT), "expected an element type, got '['", 37),
        (net("(declare-input X real)" + OUT), "expected '[', got ')'", 41),
        (net("(declare-input X real [0])" + OUT), "expected a positive whole number, got '0'", 43),
        (net("(declare-input X real [-1])" + OUT), "expected a positive whole number, got '-1'", 43),
        (net("(declare-input X real [2.0])" + OUT), "expected a positive whole number, got '2.0'", 43),
        (net("(declare-input X real [n])" + OUT), "expected a positive whole number, got 'n'", 43),
        (net("(declare-input X real [1,])" + OUT), "expected a positive whole number, got ']'", 45),
        (net("(declare-input X real [1 4])" + OUT), "expected ',' or ']', got '4'", 45),
        (net("(declare-input X real [1" + OUT), "expected ',' or ']', got '(declare-output'", 44),
        (net("(declare-input X real [268435457])" + OUT), "refused: more than 268435456 elements", 43),
        (net("(declare-input X real [16384,16384])" + OUT), "refused: more than 268435456 elements", 80),
        (net(f"(declare-input X real [{'9' * 5000}])" + OUT), "expected a positive whole number", 43),
        (net(f"(declare-input X real [{'9' * 18},{'9' * 18}])" + OUT), "refused: more than", 43),
        (net('(declare-input X real [1] "x")' + OUT), "either all inputs and outputs of f have names", 20),
        (net(IN + '(declare-output Y real [1] "y")'), "either all inputs and outputs of f have names", 20),
        (
            net(
                '(declare-input X real [1] "x")(declare-input Z real [1] "x")(declare-output Y real [1] "y")'
            ),
            "two inputs of f have one name of the model",
            20,
        ),
        (net('(declare-input X real [1] "x" "z")' + OUT), "expected ')', got '\"z\"'", 50),
        (net('(declare-input X real [1] "")' + OUT), "expected ')' or the quoted name", 46),
        (net('(declare-input X real [1] "a\nb")' + OUT), "expected ')' or the quoted name", 46),
        (net("(declare-input X real [1] x)" + OUT), "expected ')' or the quoted name", 46),
        (net(IN + "(declare-hidden H real [1])" + OUT), "expected the quoted name of a tensor", 72),
        (net("(equal-to f)" + IN + OUT), "the equivalences of f go round", 30),
        (net("(equal-to h)" + IN + OUT), "'h' is not a declared network", 30),
        (net("(isomorphic-to X)" + IN + OUT), "'X' is not a declared network", 35),
        (net("(isomorphic-to f)(equal-to f)" + IN + OUT), "a second equivalence of one network", 37),
        (net("(equal-to f)(equal-to f)" + IN + OUT), "a second equivalence of one network", 32),
        (net("(equal-to)" + IN + OUT), "expected a name of a network, got ')'", 29),
        (net("(equal-to f g)" + IN + OUT), "expected ')', got 'g'", 32),
        (net(IN + "(equal-to f)" + OUT), "expected (declare-output, got '(equal-to'", 46),
    ],
)
def test_errors_of_declarations(text, message, column):
    caught, found = error(f"{VERSION}{text}(assert (<= X[0] 1.0))")
    assert message in found
    assert (caught.line, caught.column) == (2, column)
    assert len(found) < 120


@pytest.mark.parametrize(
    ("which", "inside", "message"),
    [
        ("equal-to", ("[2]", "real", "[1,2]", "float32"), "W and Y have the element types float32 and real"),
        ("equal-to", ("[2]", "float32", "[1,2]", "real"), "V and X have the element types float32 and real"),
        ("equal-to", ("[1,2]", "real", "[1,2]", "real"), "V and X have the shapes [1, 2] and [2]"),
        ("isomorphic-to", ("[2]", "real", "[2]", "real"), "W and Y have the shapes [2] and [1, 2]"),
        ("isomorphic-to", ("[2]", "real", "[]", "real"), "W and Y have the shapes [] and [1, 2]"),
    ],
)
def test_networks_that_are_not_equivalent(which, inside, message):
    shape, kind, shape_2, kind_2 = inside
    text = f"(declare-network g ({which} f) (declare-input V {kind} {shape})"
    text += f"(declare-output W {kind_2} {shape_2}))"
    caught, found = error(VERSION + EQUAL.format("real", "") + "\n" + text + "(assert (<= X[0] 1.0))")
    assert found == message
    assert (caught.line, caught.column) == (3, 22 + len(which))


def test_networks_with_other_counts_are_not_equivalent():
    text = net(IN + OUT) + net(
        "(equal-to f)(declare-input V real [1])(declare-input W real [1])(declare-output R real [])", "g"
    )
    assert error(VERSION + text + "(assert (<= X[0] 1.0))")[1] == "g and f have 2 and 1 inputs"


def test_cycles_of_equivalences():
    names = [f"n{i}" for i in range(2000)]

    def text(last):
        each = (
            "(declare-network {0} (equal-to {1}) (declare-input X{0} real [1])(declare-output Y{0} real [1]))"
        )
        ring = [each.format(name, other) for name, other in zip(names, [*names[1:], last], strict=True)]
        return VERSION + net(IN + OUT) + "".join(ring) + "(assert (<= X[0] 1.0))"

    assert len(parse_query(text("f")).networks) == 2001
    assert "go round" in error(text("n1000"))[1]


def test_element_limit_is_of_all_tensors():
    limits = Limits(max_elements=20)
    text = net("(declare-input X real [8]) (declare-input Z real []) (declare-output Y real [{}])")
    assert declared(text.format(11), limits=limits).outputs == 11
    assert (
        "refused: more than 20 elements"
        in error(VERSION + text.format(12) + "(assert (<= X[0] 1.0))", limits=limits)[1]
    )


@pytest.mark.parametrize("word", ["initialized", ":initialized", "(initialized 1)"])
def test_initialized_is_not_supported(word):
    with pytest.raises(UnsupportedError, match=r"a:2:45: 'initialized' is not supported"):
        parse_query(VERSION + net(f"(declare-input X real [1]{word})" + OUT), "a")


def test_blanks_in_declarations():
    text = net("(declare-input X real[ 2 ;]\n , 3\t]\n)(declare-output Y real[ ])")
    assert [v.shape for v in declared(text.replace("2 ;]\n , 3\t", "2")).networks[0].variables] == [(2,), ()]
    query = parse_query(VERSION + text + "(assert (<= X [ 1 ; ]\n , ;\n 2 ] 1.0))")
    assert query.formula == And((atom(1, (5, 1)),))
    assert query.remarks == ()
    spread = "( ;(\nvnnlib-version <2.0>)" + net(IN + OUT) + "( assert (<= X[0] 1.0))"
    assert parse_query(spread).remarks == ("1:1: blanks between '(' and the word that follows",)


# --- assertions ---


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(<= X[0,0] 1.0)", atom(1, (X, 1))),
        ("(< X[1,2] 1.0)", atom(1, (X + 5, 1), strict=True)),
        ("(>= X[1,0] -1.5)", atom(Decimal("1.5"), (X + 3, -1))),
        ("(> X[01,000] 1.0)", atom(-1, (X + 3, -1), strict=True)),
        ("(== H[1] 1.0)", And((atom(1, (H + 1, 1)), atom(-1, (H + 1, -1))))),
        ("(!= Y[1] 1.0)", Or((atom(1, (Y + 1, 1), strict=True), atom(-1, (Y + 1, -1), strict=True)))),
        ("(<= 1.0 Y[0])", atom(-1, (Y, -1))),
        ("(<= S Y[0])", atom(0, (S, 1), (Y, -1))),
        ("(>= S Y[0])", atom(0, (S, -1), (Y, 1))),
        ("(<=X[0,0]Y[0])", atom(0, (X, 1), (Y, -1))),
        ("(<=X[0,0]1.0)", atom(1, (X, 1))),
        ("(<= (+ X[0,1] Y[0] 2.0) S)", atom(-2, (X + 1, 1), (S, -1), (Y, 1))),
        ("(<= (- S) (- 3.0))", atom(-3, (S, -1))),
        ("(<= (- S Y[0] 1.0) 0.0)", atom(1, (S, 1), (Y, -1))),
        ("(<= (* 2.0 S 3.0) 1.0)", atom(1, (S, 6))),
        ("(<= (* (+ S 1.0) 2.0) 1.0)", atom(-1, (S, 2))),
        ("(<= (-S) 1.0)", atom(1, (S, -1))),
        ("(<= (+ S (* 0.0 Y[0])) 1.0)", atom(1, (S, 1))),
        ("(< S S)", Or(())),
        ("(<= I[0] 3)", atom(3, (I, 1))),
        ("(>= I[1] -3)", atom(3, (I + 1, -1))),
        ("(<= (* 2 I[0]) (+ I[1] 3))", atom(3, (I, 2), (I + 1, -1))),
        ("(<= U[0] 3)", atom(3, (U, 1))),
        ("(<= (- U[0] 5) (- 3))", atom(2, (U, 1))),
        ("(and (<= S 1.0) (>= S 0.0))", And((atom(1, (S, 1)), atom(0, (S, -1))))),
        ("(or(<= S 1.0)(>= S Y[0]))", Or((atom(1, (S, 1)), atom(0, (S, -1), (Y, 1))))),
        ("( and ( or (<= S 1.0) ) )", atom(1, (S, 1))),
    ],
)
def test_formulas(text, expected):
    assert formula(text) == expected
    assert formula(text.replace(" ", "\n ; ) ]\n")) == expected  # no fast path


@pytest.mark.parametrize(
    ("text", "expected", "column", "remark"),
    [
        ("(<= S 1)", atom(1, (S, 1)), 15, "a whole number compared with float32 elements: write 1.0 for 1"),
        ("(<= 1 S)", atom(-1, (S, -1)), 13, "a whole number compared with float32 elements: write 1.0 for 1"),
        (
            "(<= (* 2 S) 1.0)",
            atom(1, (S, 2)),
            16,
            "a whole number compared with float32 elements: write 1.0 for 1",
        ),
        (
            "(<= S 1.0e-5)",
            atom(Decimal("1e-5"), (S, 1)),
            15,
            "a number not written as digits or digits.digits",
        ),
        ("(<= S +1.0)", atom(1, (S, 1)), 15, "a number not written as digits or digits.digits"),
        ("(<= S .5)", atom(Decimal("0.5"), (S, 1)), 15, "a number not written as digits or digits.digits"),
        ("(<= S 5.)", atom(5, (S, 1)), 15, "a number not written as digits or digits.digits"),
        ("(<= S[] 1.0)", atom(1, (S, 1)), 13, "empty brackets after a scalar"),
        ("(<= S [ ;\n] 1.0)", atom(1, (S, 1)), 13, "empty brackets after a scalar"),
        ("(= S 1.0)", And((atom(1, (S, 1)), atom(-1, (S, -1)))), 9, "'=' for '=='"),
        ("(<= 1.0 2.0)", And(()), 9, "a comparison without a variable"),
        ("(< 2 2.0)", Or(()), 9, "a comparison without a variable"),
        (
            "(<= 0.0 S 1.0)",
            And((atom(0, (S, -1)), atom(1, (S, 1)))),
            9,
            "a comparison of more than two terms",
        ),
        (
            "(S < Y[1])",
            atom(0, (S, 1), (Y + 1, -1), strict=True),
            9,
            "a comparison with its operator in the middle",
        ),
        ("(1.0 >= S)", atom(1, (S, 1)), 9, "a comparison with its operator in the middle"),
        ("( Y [0]\t== Y[1] )", formula("(== Y[0] Y[1])"), 9, "a comparison with its operator in the middle"),
        ("(<= U[0] -1)", atom(-1, (U, 1)), 18, "a negative number compared with uint8 elements"),
        ("(<= B[0] 1)", atom(1, (B, 1)), 18, "a number compared with bool elements"),
    ],
)
def test_what_is_accepted_with_a_remark(text, expected, column, remark):
    query = parse(text)
    assert query.formula == And((expected,))
    assert query.remarks == (f"{LINE}:{column}: {remark}",)


def test_infix_assertion_of_two_networks():
    text = net("(declare-input X real [1]) (declare-output Y_f real [4])")
    text += net("(equal-to f)(declare-input V real [1]) (declare-output Y_g real [4])", "g")
    query = parse_query(VERSION + text + "\n(assert (Y_f[3] < Y_g[3]))")
    assert query.formula == And((atom(0, (5, 1), (9, -1), strict=True),))
    assert query.remarks == ("3:9: a comparison with its operator in the middle",)


def test_each_remark_once_and_twenty_at_most():
    text = HEADER + "(assert (<= S 1))(assert (<= S 2))\n(assert (= S 1.0))"
    whole = f"{LINE}:15: a whole number compared with float32 elements: write 1.0 for 1"
    assert parse_query(text).remarks == (whole, f"{LINE + 1}:9: '=' for '=='")
    inputs = "".join(
        f"(declare-input {c}{i} {t} [])"
        for c, t in zip("VW", ("real", "int8"), strict=True)
        for i in range(30)
    )
    mixed = "".join(f"(assert (<= V{i} W{i}))" for i in range(30))
    query = parse_query(VERSION + net(inputs + OUT) + mixed, lenient=True)
    assert len(query.remarks) == 20
    assert len(query.formula.children) == 30


@pytest.mark.parametrize(
    "text", ["(<= S D[0])", "(<= (+ S 1.0) (* D[0] D[0]))", "(and (<= S 1.0) (<= S D[0]))", "(S <= D[0])"]
)
def test_mixed_types(text):
    message = "one comparison mixes element types: S is float32, D is float64"
    caught, found = error(f"{HEADER}(assert {text})")
    assert found == message
    column = 9 + text.index("D[0]")
    assert (caught.line, caught.column) == (LINE, column)
    assert f"{LINE}:{column}: {message}" in parse(text, lenient=True).remarks


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("(<= I[0] 1.5)", "1.5"),
        ("(<= I[0] 1.0)", "1"),
        ("(<= I[0] 15e-1)", "1.5"),
        ("(<= I[0] (+ 1 0.5))", "1.5"),
        ("(<= U[0] 0.5)", "0.5"),
    ],
)
def test_fraction_for_a_whole_number_type(text, bound):
    caught, found = error(f"{HEADER}(assert {text})")
    assert found in [f"a number with a fraction compared with {name} elements" for name in ("int8", "uint8")]
    assert caught.column > 13
    query = parse(text, lenient=True)
    assert any("a number with a fraction" in remark for remark in query.remarks)
    assert Fraction(query.formula.children[0].bound) == Fraction(bound)


def test_numbers_are_exact():
    digits = "0." + "3" * 150
    assert formula(f"(<= S {digits})").bound == Decimal(digits)
    assert formula(f"(<= (* {digits} {digits}) S)").bound == -(Fraction(digits) ** 2)


@pytest.mark.parametrize("name", ["string", "complex64", "complex128"])
def test_types_without_order(name):
    text = net(f"(declare-input X {name} [1])" + OUT)
    with pytest.raises(UnsupportedError, match=rf"a:3:13: comparison of {name} elements"):
        parse_query(f"{VERSION}{text}\n(assert (== X[0] X[0]))", "a")


@pytest.mark.parametrize(
    ("line", "message", "column"),
    [
        ("", "no assertion", 1),
        ("(assert (<= S 1.0)))", "')' without '('", 20),
        ("(assert (or (<= S 1.0) (<= S 1.0))", "'(' is never closed", 1),
        ("(assert (<= T 1.0))", "'T' is not declared", 13),
        ("(assert (<= f 1.0))", "'f' is not declared", 13),
        ("(assert (<= s 1.0))", "'s' is not declared", 13),
        ("(assert (<= S T[0]))", "'T' is not declared", 15),
        ("(assert (<= (+ S T [0]) 1.0))", "'T' is not declared", 18),
        ("(assert (<= S[0] 1.0))", "S has 1 indices, its shape is []", 13),
        ("(assert (<= X 1.0))", "X needs 2 indices: its shape is [2, 3]", 13),
        ("(assert (<= X[] 1.0))", "X needs 2 indices: its shape is [2, 3]", 13),
        ("(assert (<= D 1.0))", "D needs 1 indices: its shape is [1]", 13),
        ("(assert (<= S (+ D 1.0)))", "D needs 1 indices: its shape is [1]", 18),
        ("(assert (<= X[0] 1.0))", "X has 1 indices, its shape is [2, 3]", 13),
        ("(assert (<= X[0,0,0] 1.0))", "X has 3 indices, its shape is [2, 3]", 13),
        ("(assert (<= X[2,0] 1.0))", "X[2,0] is out of range: the shape is [2, 3]", 13),
        ("(assert (<= S X[0,3]))", "X[0,3] is out of range: the shape is [2, 3]", 15),
        ("(assert (<= X[0,-1] 1.0))", "index '-1' is not a whole number", 13),
        ("(assert (<= X[0,1.0] 1.0))", "index '1.0' is not a whole number", 13),
        ("(assert (<= X[0,] 1.0))", "index '' is not a whole number", 13),
        ("(assert (<= X[,] 1.0))", "index '' is not a whole number", 13),
        ("(assert (<= S[,] 1.0))", "index '' is not a whole number", 13),
        ("(assert (<= X[0,S] 1.0))", "index 'S' is not a whole number", 13),
        (f"(assert (<= X[0,{'9' * 30}] 1.0))", "is not a whole number", 13),
        ("(assert (<= X[0 1] 1.0))", "index '0 1' is not a whole number", 13),
        ("(assert (<= X[0,\u0661] 1.0))", "is not a whole number", 13),
        ("(assert (<= X[0,1 1.0))", "'X'", 13),
        ("(assert (<= -S 1.0))", "'-S' is neither a number nor a variable", 13),
        ("(assert (<= S 1.0.0))", "'1.0.0' is neither", 15),
        ("(assert (<= S 1.0S))", "'1.0S' is neither", 15),
        ("(assert (<= S inf))", "'inf' is not declared", 15),
        ("(assert (<= S 0x1))", "'0x1' is neither", 15),
        ("(assert (<= S \u0663))", "'\u0663' is neither", 15),
        ("(assert (<= S 1e10001))", "number of more than 10000 digits", 15),
        ('(assert (<= S "1"))', "'\"' is neither", 15),
        ("(assert (not (<= S 1.0)))", "'not' is not in VNN-LIB 2", 10),
        ("(assert (=> (<= S 1.0) (<= S 1.0)))", "'=>' is not in VNN-LIB 2", 10),
        ("(assert (<= (/ S 2.0) 1.0))", "'/' is not in VNN-LIB 2", 14),
        ("(assert (<= (ite (<= S 1.0) S S) 1.0))", "'ite' is not in VNN-LIB 2", 14),
        ("(assert (xor (<= S 1.0) (<= S 1.0)))", "unknown operator 'xor'", 10),
        ("(assert (<= (^ S 2.0) 1.0))", "unknown operator '^'", 14),
        ("(assert (<= (-1.0) S))", "unknown operator '-1.0'", 14),
        ("(assert ((<= S 1.0)))", "expected an operator after '('", 10),
        ("()", "expected an operator after '('", 2),
        ("(check-sat)", "unknown operator 'check-sat'", 2),
        ("(vnnlib-version <2.0>)", "the version stands at the beginning, once", 2),
        ("(declare-const X_0 Real)", "declare-const is of version 1", 2),
        ("(assert (<= S 1.0))(declare-network g)", "networks are declared before the assertions", 21),
        ("(<= S 1.0)", "expected a command, got '<='", 2),
        ("(S <= 1.0)", "expected a command, got a comparison", 1),
        ("(assert (<= (S <= 1.0) 1.0))", "expected a term, got a comparison", 13),
        ("(assert (<= (+ (<= S 1.0)) 1.0))", "expected a term, got '<='", 17),
        ("(assert (and (assert (<= S 1.0))))", "expected a formula, got 'assert'", 15),
        ("(assert (and (assert (and (<= S 1.0) (>= S 1.0)))))", "expected a formula, got 'assert'", 15),
        ("(assert (and S))", "expected a formula in brackets, got 'S'", 14),
        ("(assert true)", "expected a formula in brackets, got 'true'", 9),
        ("(assert (<= S 1.0)) rest", "expected a command in brackets, got 'rest'", 21),
        ("(assert)", "wrong number of arguments to 'assert': 0", 1),
        ("(assert (<= S 1.0) (<= S 1.0))", "wrong number of arguments to 'assert': 2", 1),
        ("(assert (and))", "wrong number of arguments to 'and': 0", 9),
        ("(assert (<= S))", "wrong number of arguments to '<=': 1", 9),
        ("(assert (!= S S 1.0))", "wrong number of arguments to '!=': 3", 9),
        ("(assert (<= (*) S))", "wrong number of arguments to '*': 0", 13),
        ("(assert (<= (* 1.0e400 1.0e400) S))", "too large or has too many digits", 13),
        ("(assert (<= 1e9999 1e-9999))", "too large or has too many digits", 9),
        ("(assert (S < (+ S 1.0)))", "'S' is neither", 10),
        ("(assert\v(<= S 1.0))", "", 8),
    ],
)
def test_errors_of_assertions(line, message, column):
    caught, found = error(HEADER + line)
    if message not in ("'X'", "'S' is neither"):
        assert message in found
        assert caught.column == column
    assert caught.line == LINE
    assert len(found) < 120


@pytest.mark.parametrize("text", ["", "\ufeff", "; only a comment"])
def test_empty_files(text):
    with pytest.raises(VnnlibError, match="no assertion"):
        parse_query(text)


def test_file_without_version():
    caught, found = error("\n" + NETWORK + "(assert (<= S 1.0))")
    assert found == "expected (vnnlib-version <2.0>), got '(declare-network'"
    assert (caught.line, caught.column) == (2, 1)


@pytest.mark.parametrize(
    "text", [VERSION, VERSION + "(", VERSION + "(declare-network", HEADER[:-5], "(vnnlib-version"]
)
def test_files_that_end_early(text):
    assert "the end of the file" in error(text)[1] or "never" in error(text)[1] or "got '('" in error(text)[1]


# --- products ---


@pytest.mark.parametrize(
    ("text", "terms", "bound", "monomials"),
    [
        ("(<= (* S Y[0]) 1.0)", [(FIRST, 1)], 1, [(S, Y)]),
        ("(<= (* Y[0] 2.0 S) 1.0)", [(FIRST, 2)], 1, [(S, Y)]),
        ("(<= (* S S S) 1.0)", [(FIRST, 1)], 1, [(S, S, S)]),
        ("(<= (* (+ S 1.0) (- S 1.0)) 0.0)", [(FIRST, 1)], 1, [(S, S)]),
        ("(<= (* (+ S 2.0) (+ Y[0] 3.0)) 0.0)", [(S, 3), (Y, 2), (FIRST, 1)], -6, [(S, Y)]),
        ("(<= (- (* S Y[0]) (* Y[0] S)) 1.0)", None, 1, []),
        ("(<= (* (- S S) Y[0]) 1.0)", None, 1, []),
        ("(<= (* 0.0 S Y[0]) 1.0)", None, 1, []),
        (
            "(<= (* (* S 0.5) (* Y[0] 4.0)) (* Y[1] S))",
            [(FIRST, 2), (FIRST + 1, -1)],
            0,
            [(S, Y), (S, Y + 1)],
        ),
        (
            "(<= (* (+ S Y[0]) (+ S Y[0])) S)",
            [(S, -1), (FIRST, 1), (FIRST + 1, 2), (FIRST + 2, 1)],
            0,
            [(S, S), (S, Y), (Y, Y)],
        ),
        ("(<= (* (- S S -2.0) Y[0]) 1.0)", [(Y, 2)], 1, []),
    ],
)
def test_products_are_multiplied_out(text, terms, bound, monomials):
    query = parse(text)
    expected = And(()) if terms is None else Atom(tuple(terms), bound)
    assert query.formula == And((expected,))
    assert query.monomials == tuple(monomials)


def test_monomials_of_a_file_are_numbered_once():
    text = (
        HEADER
        + "(assert (<= (* S S) 1.0))(assert (<= (+ (* Y[0] S) (* S S)) 1.0))(assert (>= (* S Y[0]) 1.0))"
    )
    query = parse_query(text)
    assert query.monomials == ((S, S), (S, Y))
    one, two, three = query.formula.children
    assert one.terms == ((FIRST, 1),)
    assert two.terms == ((FIRST, 1), (FIRST + 1, 1))
    assert three.terms == ((FIRST + 1, -1),)


def test_products_in_between_get_no_number():
    assert parse("(<= (* (* S S) S) 1.0)").monomials == ((S, S, S),)


def test_limits_of_products():
    limits = Limits(max_terms=9, max_degree=4)
    cube = "(* (+ X[0,0] X[0,1] X[0,2]) (+ Y[0] Y[1] S))"
    assert len(parse(f"(<= {cube} 1.0)", limits=limits).monomials) == 9
    with pytest.raises(UnsupportedError, match=rf"a:{LINE}:13: .* multiplies out to more than 9 terms"):
        parse(f"(<= {cube.replace('S', 'S 1.0')} 1.0)", path="a", limits=limits)
    with pytest.raises(UnsupportedError, match=rf"a:{LINE}:13: .* multiplies out to more than 9 terms"):
        parse(f"(<= {cube[:-1]} (+ S 1.0)) 1.0)", path="a", limits=limits)
    assert parse("(<= (* S S S S) 1.0)", limits=limits).monomials == ((S,) * 4,)
    with pytest.raises(UnsupportedError, match=rf"a:{LINE}:13: a product of more than 4 variables"):
        parse("(<= (* S S S S S) 1.0)", path="a", limits=limits)


def test_limit_of_all_products_together():
    line = "(assert (<= (* (+ X[0,0] X[0,1]) (+ Y[0] Y[1])) 1.0))"
    limits = Limits(max_terms=4)
    assert len(parse_query(HEADER + line * 100, limits=limits).formula.children) == 100
    with pytest.raises(UnsupportedError, match="the products of this file"):
        parse_query(HEADER + line * 101, limits=limits)


@pytest.mark.parametrize("depth", [6, 60])
def test_products_that_explode_are_refused(depth):
    text = "(+ S 1.0)"
    for i in range(depth):
        text = f"(* {text} (+ X[{i % 2},{i % 3}] Y[0] Y[1] S {i}.5))"
    if depth == 6:
        assert parse(f"(<= {text} 1.0)").monomials
    else:
        with pytest.raises(UnsupportedError):
            parse(f"(<= {text} 1.0)", limits=replace(DEFAULT_LIMITS, max_terms=10_000))


# --- depth and length ---


def test_deep_nesting():
    levels = 20_000
    found = formula("(and (or (<= S 1.0) " * levels + "(<= S 2.0)" + ") (<= Y[0] 3.0))" * levels)
    for _ in range(levels):
        choice, right = found.children
        left, found = choice.children
        assert (type(choice), right, left) == (Or, atom(3, (Y, 1)), atom(1, (S, 1)))
    deep = "(- 1.0 " * levels + "(* 0.5 S)" + ")" * levels
    assert formula(f"(<= {deep} 0.0)") == atom(0, (S, Fraction(1, 2)))


@pytest.mark.parametrize(
    "opening", ["(", "(and ", "(or (<= S 1.0)", "(<= (+ ", "(<= (* S ", "(<= (- 1.0 ", "(assert ", "["]
)
def test_hostile_nesting(opening):
    error(HEADER + "(assert " + opening * 200_000)
    error(VERSION + opening * 200_000)
    error(VERSION + "(declare-network f " + opening * 200_000)


def test_depth_limit():
    text = f"{HEADER}(assert (and (or (<= S 1.0 ))))"
    assert parse_query(text, limits=replace(DEFAULT_LIMITS, max_depth=4)).inputs == 12
    caught, found = error(text, limits=replace(DEFAULT_LIMITS, max_depth=2))
    assert "more than 2 brackets open" in found
    assert (caught.line, caught.column) == (LINE, 14)


@pytest.mark.parametrize(
    "text",
    [
        " " * 5_000_000 + "(assert (<= S 1.0))",
        ";(\n" * 1_000_000 + "(assert (<= S 1.0))",
        "(assert (<= " + " " * 5_000_000 + "S" + "\n" * 5_000_000 + "1.0))" + " " * 5_000_000,
        "(assert (<= (+ S " + "0.0 " * 500_000 + ") 1.0))",
        "(assert (or " + "(<= S 1.0)" * 200_000 + "))",
        "(assert (and " + "(S <= 1.0)" * 200_000 + "))",
    ],
    ids=["blanks", "comments", "inner blanks", "long sum", "long or", "long infix"],
)
def test_long_stretches(text):
    assert parse_query(HEADER + text).inputs == 12


@pytest.mark.parametrize(
    "tail", ["(assert (<= X[" + "0," * 500_000, "(assert (<= " + "S" * 5_000_000, "(assert (S " * 200_000]
)
def test_long_stretches_that_end_in_an_error(tail):
    error(HEADER + tail)


def test_more_elements_than_the_caches_hold():
    count = 70_000
    text = VERSION + net(f"(declare-input X real [{count}])(declare-output Y real [])")
    text += "".join(
        f"(assert (<= X[{i}] {i}.5))(assert (and (>= X[{i}] {i}.25) (<= X[{i}] Y)))\n" for i in range(count)
    )
    query = parse_query(text)
    for i, (top, both) in enumerate(
        zip(query.formula.children[::2], query.formula.children[1::2], strict=True)
    ):
        assert top == atom(Decimal(f"{i}.5"), (i, 1))
        assert both == And((atom(Decimal(f"-{i}.25"), (i, -1)), atom(0, (i, 1), (count, -1))))


# --- any text ---


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='()[]<>=! ;",\n+-*/01.eXYSandorts', max_size=60))
def test_any_text_gives_a_query_or_an_error_of_ours(text):
    for before in (HEADER + "(assert (<= S 1.0))", VERSION, VERSION + "(declare-network f "):
        try:
            parse_query(before + text)
        except VnnlibError as caught:
            assert caught.line >= 1
            assert caught.column >= 1
        except UnsupportedError:
            pass


@pytest.mark.parametrize("seed", range(20))
def test_numbering_of_random_shapes(seed):
    chance = random.Random(seed)
    shape = [chance.randint(1, 4) for _ in range(chance.randint(1, 4))]
    index = [chance.randrange(size) for size in shape]
    text = net(f"(declare-input A real [3])(declare-input X real {shape})(declare-output Y real [])")
    query = parse_query(f"{VERSION}{text}(assert (<= X{index} 1.0))")
    number = 0
    for place, size in zip(index, shape, strict=True):
        number = number * size + place
    assert query.formula.children[0].terms == ((3 + number, 1),)
    assert query.inputs == 3 + prod(shape)
