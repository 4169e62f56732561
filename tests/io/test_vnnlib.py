"""The VNN-LIB 1 reader: features, places of errors, exactness, hostile files."""

import decimal
import gzip
import random
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lpverify.errors import InputError, UnsupportedError, VnnlibError
from lpverify.io.vnnlib import Limits, parse_query, read_query
from lpverify.query import And, Atom, Or, Query

DECLARED = "(declare-const X_0 Real)(declare-const X_1 Real)(declare-const Y_0 Real)\n"
X0, X1, Y0 = 0, 1, 2


def parse(assertion):
    """The formula of one assertion over X_0, X_1 and Y_0."""
    (formula,) = parse_query(f"{DECLARED}(assert {assertion})").formula.children
    return formula


def atom(bound, strict=False, **coefficients):
    numbers = {"X0": X0, "X1": X1, "Y0": Y0}
    return Atom(tuple((numbers[name], c) for name, c in coefficients.items()), bound, strict)


def holds(formula, point):
    """Truth at a point; recursive, hence for shallow formulas."""
    if isinstance(formula, And):
        return all(holds(child, point) for child in formula.children)
    if isinstance(formula, Or):
        return any(holds(child, point) for child in formula.children)
    total = sum(Fraction(c) * point[variable] for variable, c in formula.terms)
    bound = Fraction(formula.bound)
    return total < bound if formula.strict else total <= bound


# --- features ---


def test_whole_file():
    text = """; a comment
    (set-logic QF_LRA) (set-info :source |a (quoted) ; text|) (set-info :x "say ""hi"" ; (")
    (set-option :produce-models true)
    (declare-const X_0 Real)  ; an input
    (declare-fun X_1 () Real)
    (declare-const Y_0 Real)
    (assert (<= X_0 0.5))
    (assert (or (and (>= Y_0 1e-5)) (and (< X_1 X_0) (> Y_0 -2))))
    (check-sat)(get-model) ( exit )"""
    choice = Or(
        (
            atom(Decimal("-1e-5"), Y0=-1),
            And((atom(0, strict=True, X0=-1, X1=1), atom(Decimal(2), strict=True, Y0=-1))),
        )
    )
    expected = And((atom(Decimal("0.5"), X0=1), choice))
    assert parse_query(text, "a.vnnlib") == Query(2, 1, expected, "a.vnnlib")


def test_outputs_follow_inputs_in_any_order_of_declaration():
    text = "(declare-const Y_1 Real)(declare-const X_1 Real)(declare-const Y_0 Real)"
    text += "(declare-const X_0 Real)(assert (<= Y_1 X_1))"
    assert parse_query(text) == Query(2, 2, And((Atom(((1, -1), (3, 1)), 0),)))


def test_input_declared_after_output_was_used():
    text = "(declare-const X_0 Real)(declare-const Y_0 Real)(assert (<= Y_0 1))"
    text += "(declare-const X_1 Real)(assert (<= X_1 2))"
    query = parse_query(text)
    assert query.formula == And((atom(Decimal(1), Y0=1), atom(Decimal(2), X1=1)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(<= X_0 1)", atom(1, X0=1)),
        ("(< X_0 1)", atom(1, True, X0=1)),
        ("(>= X_0 1)", atom(-1, X0=-1)),
        ("(> X_0 1)", atom(-1, True, X0=-1)),
        ("(= X_0 1)", And((atom(1, X0=1), atom(-1, X0=-1)))),
        ("(== X_0 1)", And((atom(1, X0=1), atom(-1, X0=-1)))),
        ("(!= X_0 1)", Or((atom(1, True, X0=1), atom(-1, True, X0=-1)))),
        ("(<= 1 X_0)", atom(-1, X0=-1)),
        ("(>= Y_0 X_0)", atom(0, X0=1, Y0=-1)),
        ("(<= 0 X_0 1)", And((atom(0, X0=-1), atom(1, X0=1)))),
        ("(= X_0 X_1 1)", And((parse("(= X_0 X_1)"), parse("(= X_1 1)")))),
    ],
)
def test_comparisons(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("(<= (+ X_0 X_1 2) Y_0)", atom(-2, X0=1, X1=1, Y0=-1)),
        ("(<= (- X_0 X_1 1) 0)", atom(1, X0=1, X1=-1)),
        ("(<= (- X_0) (- 3))", atom(-3, X0=-1)),
        ("(<= (* 2 X_0 3) 1)", atom(1, X0=6)),
        ("(<= (* (+ X_0 1) 2) 1)", atom(-1, X0=2)),
        ("(<= (/ X_0 4 2) 1)", atom(1, X0=Fraction(1, 8))),
        ("(<= X_0 (/ 1 3))", atom(Fraction(1, 3), X0=1)),
        ("(<= (+ Y_0 X_0) (+ Y_0 1))", atom(1, X0=1)),
        ("(<= (+ (* 0 Y_0) X_0) 1)", atom(1, X0=1)),
        ("(<= (+ X_0) (* 2))", atom(2, X0=1)),
        ("(<= Y_0 (- 1 (* 2 (- X_1 (- 3 X_0)))))", atom(7, X0=2, X1=2, Y0=1)),
    ],
)
def test_arithmetic(text, expected):
    assert parse(text) == expected


@pytest.mark.parametrize(
    ("text", "true"),
    [
        ("(<= 1 2)", True),
        ("(<= 2 2)", True),
        ("(< 2 2)", False),
        ("(= 1 2)", False),
        ("(!= 1 2)", True),
        ("(<= X_0 X_0)", True),
        ("(< X_0 X_0)", False),
        ("(<= (- X_0 X_0) -1e-9)", False),
    ],
)
def test_comparisons_without_variables_are_evaluated(text, true):
    assert holds(parse(text), {}) is true
    assert holds(parse(f"(not {text})"), {}) is not true


def test_constants_are_empty_connectives():
    assert (parse("(<= 1 2)"), parse("(<= 2 1)")) == (And(()), Or(()))


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("(not (<= X_0 1))", "(> X_0 1)"),
        ("(not (< X_0 X_1))", "(>= X_0 X_1)"),
        ("(not (>= 1 X_0))", "(< 1 X_0)"),
        ("(not (> (+ X_0 X_1) 1))", "(<= (+ X_0 X_1) 1)"),
        ("(not (= X_0 1))", "(!= X_0 1)"),
        ("(not (!= X_0 1))", "(= X_0 1)"),
        ("(not (not (<= X_0 1)))", "(<= X_0 1)"),
        ("(not (<= 0 X_0 1))", "(or (> 0 X_0) (> X_0 1))"),
        ("(not (and (<= X_0 1) (<= X_1 1)))", "(or (> X_0 1) (> X_1 1))"),
        ("(not (or (<= X_0 1) (not (<= X_1 1))))", "(and (> X_0 1) (<= X_1 1))"),
        ("(=> (<= X_0 1) (<= X_1 1))", "(or (> X_0 1) (<= X_1 1))"),
        ("(=> (<= 1 X_0) (<= 1 X_1))", "(or (> 1 X_0) (<= 1 X_1))"),
        ("(not (=> (<= X_0 1) (<= X_1 1)))", "(and (<= X_0 1) (> X_1 1))"),
        (
            "(=> (=> (<= X_0 1) (<= X_0 2)) (=> (<= X_0 3) (<= X_0 4)))",
            "(or (and (<= X_0 1) (> X_0 2)) (or (> X_0 3) (<= X_0 4)))",
        ),
        ("(and (or (<= X_0 1)))", "(<= X_0 1)"),
    ],
)
def test_connectives(text, same):
    assert parse(text) == parse(same)


@pytest.mark.parametrize(
    "text",
    [
        "(assert(<= X_0 1))",
        "( assert (<= X_0 1) )",
        "( ; why\n assert\t(\r\n<= X_0 1))",
        "(assert (<= X_0 1 ; why (\n))",
        "(assert\n\n(<=\tX_0\n1\f)\v)",
        "(assert (<= X_0 1);why\n);why",
        "(assert ( ; why\n<= X_0;why\n1))",
    ],
)
def test_blanks_and_comments(text):
    assert parse_query(DECLARED + text).formula == And((atom(Decimal(1), X0=1),))


def test_declarations_with_blanks_and_comments():
    text = "( declare-const ; why\n X_0;why\nReal )(\ndeclare-fun Y_0( )Real)(assert (<= Y_0 X_0))"
    assert parse_query(text).formula == And((Atom(((0, -1), (1, 1)), 0),))


# --- numbers ---


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1", 1),
        ("-1", -1),
        ("+1.0", 1),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("1e-5", Fraction(1, 10**5)),
        ("1E+3", 1000),
        ("-.5e1", -5),
        ("0.1", Fraction(1, 10)),
        ("1e10000", Fraction(10) ** 10000),
        ("1e-00010000", Fraction(1, 10**10000)),
        ("0." + "3" * 150, Fraction(int("3" * 150), 10**150)),
        ("9" * 4000, Fraction(10) ** 4000 - 1),
    ],
)
@pytest.mark.parametrize("shape", ["(<= X_0 {})", "(<= X_0 {} )", "(>= {} X_0)", "(<= (+ X_0) {})"])
def test_numbers_are_exact(text, value, shape):
    formula = parse(shape.format(text))
    assert formula.terms == ((X0, 1),)
    assert Fraction(formula.bound) == value


def test_written_numbers_stay_decimals():
    formula = parse("(<= (+ (* 0.10 X_0) (* -2.50 X_1)) 1.50)")
    assert str(formula) == str(Atom(((X0, Decimal("0.10")), (X1, Decimal("-2.50"))), Decimal("1.50")))


def test_computed_integers_are_int():
    assert repr(parse("(<= (* 0.5 X_0 4) (/ 9 3))")) == repr(atom(3, X0=2))


@pytest.mark.parametrize("precision", [1, 28])
def test_arithmetic_ignores_the_decimal_context(precision):
    a, b = "1.000000000000000000000000000000000000001", "0.3333333333333333333333333333333333333337"
    with decimal.localcontext() as context:
        context.prec = precision
        product = parse(f"(<= (* {a} {b} X_0) (- (* {a} {b})))")
        total = parse(f"(>= (+ X_0 {a} {b}) (- {b} X_0))")
        literal = parse(f"(not (<= X_0 {a}))")
        factor = parse(f"(<= (* {a} (+ X_0 X_0)) 0)")
    exact_a, exact_b = Fraction(a), Fraction(b)
    assert product == atom(-exact_a * exact_b, X0=exact_a * exact_b)
    assert total == atom(exact_a, X0=-2)
    assert literal == atom(-exact_a, strict=True, X0=-1)
    assert factor == atom(0, X0=2 * exact_a)


# --- errors ---


@pytest.mark.parametrize(
    ("line", "message", "column"),
    [
        ("(assert (<= X_0 1)))", "')' without '('", 20),
        ("(assert (or (<= X_0 1) (<= X_1 1))", "'(' is never closed", 1),
        ("(assert (and (<= X_0 1)", "'(' is never closed", 9),
        ("(assert (<= X_2 1))", "'X_2' is not declared", 13),
        ("(assert (<= X_0 Y_01))", "'Y_01' is not declared", 17),
        ("(assert (<= 1 X_2))", "'X_2' is not declared", 15),
        ("(assert (<= Z_0 1))", "'Z_0' is neither a number nor a variable", 13),
        ("(assert (<= X_0 inf))", "'inf' is neither", 17),
        ("(assert (<= X_0 -Infinity))", "'-Infinity' is neither", 17),
        ("(assert (<= X_0 NaN))", "'NaN' is neither", 17),
        ("(assert (<= X_0 1_000))", "'1_000' is neither", 17),
        ("(assert (<= X_0 \u0663))", "'\u0663' is neither", 17),
        ("(assert (<= X_0 0x1))", "'0x1' is neither", 17),
        ("(assert (<= X_0 1e))", "'1e' is neither", 17),
        ("(assert (<= X_0 .))", "'.' is neither", 17),
        ("(assert (<= X_0 --1))", "'--1' is neither", 17),
        ("(assert (<= X_0 1e10001))", "number of more than 10000 digits", 17),
        ("(assert (<= X_0 1e-10001))", "number of more than 10000 digits", 17),
        ("(assert (<= X_0 1e123456789012345))", "number of more than 10000 digits", 17),
        (f"(assert (<= X_0 1e{'9' * 5000}))", "number of more than 10000 digits", 17),
        (f"(assert (<= X_0 {'9' * 10001}))", "number of more than 10000 digits", 17),
        ("(assert (xor (<= X_0 1) (<= X_1 1)))", "unknown operator 'xor'", 10),
        ("(assert (=< X_0 1))", "unknown operator '=<'", 10),
        ("(assert (<=X_0 1))", "unknown operator '<=X_0'", 10),
        ("(assert (<= (^ X_0 2) 1))", "unknown operator '^'", 14),
        ("(push 1)", "unknown operator 'push'", 2),
        ("(check-satx)", "unknown operator 'check-satx'", 2),
        ("((assert (<= X_0 1)))", "expected an operator after '('", 2),
        ("()", "expected an operator after '('", 2),
        ("(assert ((<= X_0 1)))", "expected an operator after '('", 10),
        ("(<= X_0 1)", "expected a command, got '<='", 2),
        ("(and (<= X_0 1))", "expected a command, got 'and'", 2),
        ("(assert (and (+ X_0 1)))", "expected a formula, got '+'", 15),
        ("(assert (and (assert (<= X_0 1))))", "expected a formula, got 'assert'", 15),
        ("(assert (and ( assert (<= X_0 1))))", "expected a formula, got 'assert'", 16),
        ("(assert (<= (<= X_0 1) 1))", "expected a term, got '<='", 14),
        ("(assert (<= (and (<= X_0 1)) 1))", "expected a term, got 'and'", 14),
        ("(assert (and (check-sat)))", "expected a formula, got a command", 14),
        ("(assert (and (declare-const X_2 Real)))", "expected a formula, got a command", 14),
        ("(assert (and X_0))", "expected a formula in brackets, got 'X_0'", 14),
        ("(assert 1)", "expected a formula in brackets, got '1'", 9),
        ("(assert (<= X_0 1)) rest", "expected a command in brackets, got 'rest'", 21),
        ("(assert)", "wrong number of arguments to 'assert': 0", 1),
        ("(assert (<= X_0 1) (<= X_1 1))", "wrong number of arguments to 'assert': 2", 1),
        ("(assert (and))", "wrong number of arguments to 'and': 0", 9),
        ("(assert (or ))", "wrong number of arguments to 'or': 0", 9),
        ("(assert (not (<= X_0 1) (<= X_1 1)))", "wrong number of arguments to 'not': 2", 9),
        ("(assert (=> (<= X_0 1)))", "wrong number of arguments to '=>': 1", 9),
        (
            "(assert (=> (<= X_0 1) (<= X_0 1) (<= X_0 1)))",
            "wrong number of arguments to '=>': 3",
            9,
        ),
        ("(assert (<= X_0))", "wrong number of arguments to '<=': 1", 9),
        ("(assert (!= X_0 X_1 1))", "wrong number of arguments to '!=': 3", 9),
        ("(assert (<= (+) X_0))", "wrong number of arguments to '+': 0", 13),
        ("(assert (<= (/ 1) X_0))", "wrong number of arguments to '/': 1", 13),
        ("(assert (<= (/ X_0 0.0) 1))", "division by zero", 13),
        ("(assert (<= (/ X_0 (- 1 1)) 1))", "division by zero", 13),
        ("(assert (<= (* 1e400 1e400) X_0))", "too large or has too many digits", 13),
        ("(assert (<= 1e9999 1e-9999))", "too large or has too many digits", 9),
        ("(assert (<= (+ 1e-9999 1) X_0))", "too large or has too many digits", 13),
        ('(assert (<= X_0 "1"))', "'\"' is neither a number nor a variable", 17),
        ("|rest|", "expected a command in brackets, got '|'", 1),
        ('(set-info :x "open)', "set-info", 2),
        ("(set-info :x (y))", "brackets inside set-info are not supported", 2),
        ("(declare-const X_1 Real)", "X_1 is declared twice", 16),
        ("(declare-fun Y_0 () Real)", "Y_0 is declared twice", 14),
        ("(declare-const X_2 Int)", "expected (declare-const X_i Real) or Y_i", 2),
        ("(declare-const X_02 Real)", "expected (declare-const X_i Real) or Y_i", 2),
        ("(declare-const Z Real)", "expected (declare-const X_i Real) or Y_i", 2),
        ("(declare-constX_2 Real)", "unknown operator 'declare-constX_2'", 2),
        ("(declare-const X_2 () Real)", "expected (declare-const X_i Real) or Y_i", 2),
        ("(declare-fun X_2 Real)", "expected (declare-fun X_i () Real) or Y_i", 2),
        ("(declare-const X_9999999999 Real)", "expected (declare-const X_i Real) or Y_i", 2),
        ("(declare-const X_4 Real)", "X_4 is declared, X_2 is not", 16),
        ("(declare-const Y_2 Real)", "Y_2 is declared, Y_1 is not", 16),
        ("; nothing", "no assertion", 10),
        ("\u00a0(assert (<= X_0 1))", "got '\\xa0'", 1),
    ],
)
def test_errors_have_their_place(line, message, column):
    with pytest.raises(VnnlibError) as caught:
        parse_query(DECLARED + line, "a.vnnlib")
    assert message in str(caught.value)
    assert (caught.value.line, caught.value.column) == (2, column)
    assert str(caught.value).startswith(f"a.vnnlib:2:{column}: ")
    assert len(str(caught.value)) < 120


def test_line_of_an_error_counts_comments_and_blanks():
    with pytest.raises(VnnlibError) as caught:
        parse_query("; one\r\n\r\n(declare-const X_0 Real)\n; four\n\n \t (assert (<= X_1 1))")
    assert (caught.value.line, caught.value.column) == (6, 16)


@pytest.mark.parametrize("text", ["", "\ufeff", " ; only a comment"])
def test_empty_file(text):
    with pytest.raises(VnnlibError, match="no assertion") as caught:
        parse_query(text)
    assert caught.value.line == 1


@pytest.mark.parametrize(
    ("term", "operator"),
    [("(* X_0 X_1)", "*"), ("(* 2 (+ X_0 1) Y_0)", "*"), ("(/ 1 X_0)", "/"), ("(/ X_0 X_0)", "/")],
)
def test_nonlinear_terms_are_unsupported(term, operator):
    with pytest.raises(UnsupportedError) as caught:
        parse_query(f"{DECLARED}(assert (<= 1 {term}))", "a.vnnlib")
    assert str(caught.value) == f"a.vnnlib:2:15: '{operator}' of variables is not linear"


# --- files ---


def test_reads_plain_and_packed_files(tmp_path):
    text = DECLARED + "(assert (<= X_0 0.1))"
    expected = parse_query(text).formula
    for data in (text.encode(), gzip.compress(text.encode()), b"\xef\xbb\xbf" + text.encode()):
        for name in ("a.vnnlib", "a.gz"):  # the name must not matter
            (tmp_path / name).write_bytes(data)
            query = read_query(tmp_path / name)
            assert query == Query(2, 1, expected, str(tmp_path / name))


def test_reads_several_gzip_members(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(gzip.compress(DECLARED.encode()) + gzip.compress(b"(assert (<= X_0 1))"))
    assert read_query(path).formula == And((atom(Decimal(1), X0=1),))


def test_comments_may_hold_any_utf8(tmp_path):
    path = tmp_path / "a"
    path.write_text("; \u00fc \U0001f600 \x00\n" + DECLARED + "(assert (<= X_9 1))", "utf-8")
    with pytest.raises(VnnlibError) as caught:
        read_query(path)
    assert (caught.value.line, caught.value.column) == (3, 13)


def test_file_that_is_not_there(tmp_path):
    for path in (tmp_path / "none", tmp_path, "a\0b"):
        with pytest.raises(InputError) as caught:
            read_query(path)
        assert not isinstance(caught.value, VnnlibError)
        assert str(caught.value).startswith(f"{path}: ")
        assert "\n" not in str(caught.value)


def test_invalid_utf8(tmp_path):
    path = tmp_path / "a"
    for start in (b"", b"\xef\xbb\xbf"):
        for text, place in (("; \u00fc ", (1, 5)), ("(x)\n; \u00fc ", (2, 5))):
            path.write_bytes(start + text.encode() + b"\xff rest")
            with pytest.raises(VnnlibError, match="not UTF-8") as caught:
                read_query(path)
            assert (caught.value.line, caught.value.column) == place


def test_damaged_gzip(tmp_path):
    path = tmp_path / "a.gz"
    noise = random.Random(0).randbytes(1000).hex()
    packed = gzip.compress(f"{DECLARED}(assert (<= X_0 1)) ; {noise}".encode())
    swapped = bytearray(packed)
    swapped[len(packed) // 2] ^= 255
    for data in (packed[:-1], packed[:-12], packed[:5], b"\x1f\x8b", bytes(swapped), packed + b"x"):
        path.write_bytes(data)
        with pytest.raises(VnnlibError, match="damaged gzip file"):
            read_query(path)
    path.write_bytes(packed)
    assert read_query(path).outputs == 1


def test_gzip_bomb(tmp_path):
    path = tmp_path / "a.gz"
    text = f"{DECLARED}(assert (<= X_0 1))".encode()
    path.write_bytes(gzip.compress(text + b" " * (17 << 20)))
    with pytest.raises(VnnlibError, match="refused: more than 16777216 bytes"):
        read_query(path)
    assert read_query(path, limits=Limits(max_ratio=2000)).inputs == 2
    path.write_bytes(gzip.compress(text + b" " * (15 << 20)))
    assert read_query(path).inputs == 2


def test_size_limit(tmp_path):
    text = f"{DECLARED}(assert (<= X_0 1))".encode()
    for data in (text, gzip.compress(text)):
        (tmp_path / "a").write_bytes(data)
        assert read_query(tmp_path / "a", limits=Limits(max_bytes=len(text))).inputs == 2
        with pytest.raises(VnnlibError, match="refused: more than"):
            read_query(tmp_path / "a", limits=Limits(max_bytes=len(text) - 1))


# --- depth and length ---


def test_deep_valid_nesting():
    levels = 5_000
    text = "(and (or (<= X_0 1) " * levels + "(<= X_0 2)" + ") (<= X_1 3))" * levels
    formula = parse(text)
    for _ in range(levels):
        choice, right = formula.children
        left, formula = choice.children
        assert (type(choice), right, left) == (Or, atom(3, X1=1), atom(1, X0=1))
    assert formula == atom(2, X0=1)


@pytest.mark.parametrize(("levels", "expected"), [(20_001, "(> X_0 1)"), (20_002, "(<= X_0 1)")])
def test_deep_negation(levels, expected):
    assert parse("(not " * levels + "(<= X_0 1)" + ")" * levels) == parse(expected)


def test_deep_implication():
    levels = 10_001
    formula = parse("(=> " * levels + "(<= X_0 1)" + " (<= X_1 2))" * levels)
    for level in range(levels):  # not (a => b) is (a and not b)
        assert type(formula) is (And if level % 2 else Or)
        formula, right = formula.children
        assert right == parse("(> X_1 2)" if level % 2 else "(<= X_1 2)")
    assert formula == parse("(> X_0 1)")


def test_deep_arithmetic():
    levels = 20_001
    text = "(- 1 " * levels + "(* 0.5 X_0)" + ")" * levels
    assert parse(f"(<= {text} 0)") == atom(-1, X0=Decimal("-0.5"))


@pytest.mark.parametrize("opening", ["(", "(and ", "(not ", "(or (<= X_0 1)", "(=> (<= X_0 1)"])
def test_hostile_nesting_of_formulas(opening):
    with pytest.raises(VnnlibError) as caught:
        parse(opening * 100_000)
    assert caught.value.line == 2


@pytest.mark.parametrize("opening", ["(+ ", "(- 1 ", "(* 2 ", "(/ "])
def test_hostile_nesting_of_terms(opening):
    with pytest.raises(VnnlibError, match="more than 50000 brackets open") as caught:
        parse("(<= " + opening * 100_000)
    assert (caught.value.line, caught.value.column) == (2, 13 + (50_000 - 2) * len(opening))


def test_depth_limit_counts_open_brackets():
    text = f"{DECLARED}(assert (and (or (<= X_0 1 ))))"
    assert parse_query(text, limits=Limits(max_depth=3)).inputs == 2
    with pytest.raises(VnnlibError, match="more than 2 brackets open") as caught:
        parse_query(text, limits=Limits(max_depth=2))
    assert (caught.value.line, caught.value.column) == (2, 14)


@pytest.mark.parametrize(
    "text",
    [
        " " * 5_000_000 + "(assert (<= X_0 1))",
        ";(\n" * 1_000_000 + "(assert (<= X_0 1))",
        "(assert " + " " * 5_000_000 + "(<= X_0 " + "\n" * 5_000_000 + "1))" + " " * 5_000_000,
        '(set-info :x "' + "(" * 5_000_000 + '")(assert (<= X_0 1))',
        "(set-info :x" + ' ";"' * 1_000_000 + ")(assert (<= X_0 1))",
    ],
    ids=["blanks", "comments", "inner blanks", "long quote", "many quotes"],
)
def test_long_stretches(text):
    assert parse_query(DECLARED + text).formula == And((atom(Decimal(1), X0=1),))


def test_more_comparisons_than_the_cache_holds():
    count = 70_000
    body = "".join(f"(<= X_0 {i})\n(> X_0 {i})" for i in range(count)) + "(<= X_0 0)"
    for negation in ("(and ", "(not (or "):
        closing = ")" * negation.count("(")
        formula = parse(f"{negation}{body}{closing}")
        strict = negation != "(and "
        expected = []
        for i in range(count):
            low = atom(i, X0=1) if not strict else atom(-i, True, X0=-1)
            high = atom(-i, True, X0=-1) if not strict else atom(i, X0=1)
            expected += [low, high]
        assert formula.children == (*expected, expected[0])


# --- random formulas against an evaluator of their own ---

NUMBERS = ["0", "1", "-1", "2.", "+3", ".5", "-0.5", "1e-1", "25E-2", "0.30", "-1.5e+0"]
NAMES = ["X_0", "X_1", "Y_0"]
numbers = st.sampled_from(NUMBERS)
constants = st.recursive(
    numbers,
    lambda inner: st.tuples(st.sampled_from("+-*"), st.lists(inner, min_size=1, max_size=3)),
    max_leaves=4,
)
terms = st.recursive(
    numbers | st.sampled_from(NAMES),
    lambda inner: (
        st.tuples(st.sampled_from("+-"), st.lists(inner, min_size=1, max_size=3))
        | st.tuples(st.just("*"), st.tuples(constants, inner))
        | st.tuples(st.just("*"), st.tuples(constants, inner, constants))
        | st.tuples(st.just("/"), st.tuples(inner, numbers.filter(lambda number: Fraction(number) != 0)))
    ),
    max_leaves=5,
)
comparisons = st.tuples(
    st.sampled_from(["<=", ">=", "<", ">", "=", "=="]), st.lists(terms, min_size=2, max_size=3)
) | st.tuples(st.just("!="), st.tuples(terms, terms))
simple = st.tuples(
    st.sampled_from(["<=", ">=", "<", ">", "=", "==", "!="]),
    st.tuples(st.sampled_from(NAMES), st.sampled_from(NAMES + NUMBERS)),
)
formulas = st.recursive(
    simple | comparisons,
    lambda inner: (
        st.tuples(st.sampled_from(["and", "or"]), st.lists(inner, min_size=1, max_size=3))
        | st.tuples(st.just("not"), st.tuples(inner))
        | st.tuples(st.just("=>"), st.tuples(inner, inner))
    ),
    max_leaves=8,
)
values = st.sampled_from([Fraction(v) for v in ("0", "1", "-1", "1/2", "-1/2", "3/10", "1/3", "2")])
points = st.lists(st.tuples(values, values, values), min_size=3, max_size=6)


def written(tree, blank):
    """The text of a formula; `blank` gives what separates tokens."""
    if isinstance(tree, str):
        return tree
    op, children = tree
    inner = "".join(blank() + written(child, blank) for child in children)
    return f"({op}{inner}{blank()})"


def value(tree, point):
    """The value of a term or the truth of a formula."""
    if isinstance(tree, str):
        return point[NAMES.index(tree)] if tree in NAMES else Fraction(tree)
    op, children = tree
    parts = [value(child, point) for child in children]
    first, rest = parts[0], parts[1:]
    pairs = list(zip(parts, rest, strict=False))
    meanings = {
        "+": lambda: sum(parts),
        "-": lambda: first - sum(rest) if rest else -first,
        "*": lambda: first * (rest[0] if rest else 1) * (rest[1] if rest[1:] else 1),
        "/": lambda: first / rest[0],
        "and": lambda: all(parts),
        "or": lambda: any(parts),
        "not": lambda: not first,
        "=>": lambda: not first or rest[0],
        "<=": lambda: all(a <= b for a, b in pairs),
        ">=": lambda: all(a >= b for a, b in pairs),
        "<": lambda: all(a < b for a, b in pairs),
        ">": lambda: all(a > b for a, b in pairs),
        "=": lambda: all(a == b for a, b in pairs),
        "==": lambda: all(a == b for a, b in pairs),
        "!=": lambda: first != rest[0],
    }
    return meanings[op]()


@settings(max_examples=400, deadline=None)
@given(st.lists(formulas, min_size=1, max_size=3), points, st.integers(0, 2**32))
def test_random_formulas_mean_what_is_written(trees, places, seed):
    chance = random.Random(seed)
    blanks = [" ", " ", "\n", "\t ", " ; a ) comment\n"]
    text = DECLARED
    for tree in trees:
        text += f"(assert {written(tree, lambda: chance.choice(blanks))})\n"
    formula = parse_query(text).formula
    for point in places:
        assert holds(formula, point) is all(value(tree, point) for tree in trees)


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet='()<=>! ;"|\n+-*/01.eXY_andorts', max_size=60))
def test_any_text_gives_a_query_or_an_error_of_ours(text):
    try:
        parse_query(f"{DECLARED}(assert (<= X_0 1)) {text}")
    except VnnlibError as error:
        assert error.line >= 2
        assert error.column >= 1
    except UnsupportedError:
        pass


@settings(max_examples=200, deadline=None)
@given(formulas, st.data())
def test_damaged_formulas_give_a_query_or_an_error_of_ours(tree, data):
    text = f"(assert {written(tree, lambda: ' ')})"
    at = data.draw(st.integers(0, len(text) - 1))
    patch = data.draw(st.sampled_from(["", "(", ")", " ", "X_0", "-", "=", "1e9", "not", ";"]))
    try:
        parse_query(DECLARED + text[:at] + patch + text[at + 1 :])
    except VnnlibError as error:
        assert error.line == 2
    except UnsupportedError:
        pass
