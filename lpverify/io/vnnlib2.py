"""Parses VNN-LIB version 2: networks declared first, then assertions over elements of their tensors.

As for version 1, one regular expression runs over the assertions, matching whole simple comparisons where it
can; nothing recurses.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from functools import reduce
from itertools import pairwise
from operator import ge, mul

from lpverify.errors import UnsupportedError
from lpverify.io.vnnlib2_networks import BLANK, NAME, SPACE, WORD, Tensor, numbered, parse_header
from lpverify.io.vnnlib_terms import Products, Term, relation, signed_sum, total
from lpverify.io.vnnlib_text import Limits, Source, shown
from lpverify.query import And, Atom, Formula, Or, Query, negate

_MAX_CACHED = 1 << 16
_GROUPS = ("op", "left", "number", "right")  # of a simple comparison

_ELEMENT = r"[A-Za-z][A-Za-z0-9_]*+(?:\[[0-9]{1,18}+(?:,[0-9]{1,18}+)*+\])?+"
_COMPARISON = r"[<>]=?+|[!=]=|="
_OPERAND = rf"{NAME}(?:{BLANK}\[(?:[^\];()]|;[^\n]*+)*+\])?+"
_SIMPLE_OPERAND = rf"(?:{_OPERAND}|[+.0-9-]{WORD}*+)"
_NUMBER = r"-?+[0-9]{1,99}+(?:\.[0-9]{1,99}+)?+"


def _simple(name: str) -> str:
    """The pattern of a comparison of an element with a number or element, with groups of these names."""
    return rf"""\( (?P<op{name}> [<>]=?+ | [!=]= ) {SPACE}*+ (?P<left{name}> {_ELEMENT} ) {SPACE}*+
        (?: (?P<number{name}> {_NUMBER} ) | (?P<right{name}> {_ELEMENT} ) ) {SPACE}*+ \)"""


_TOKEN = re.compile(
    rf"""{BLANK}(?:
    (?P<comparison> (?P<assertion> \(assert{SPACE}*+ )? {_simple("")} (?(assertion) {SPACE}*+ \) ) )
  | (?P<pair> \(assert{SPACE}*+\(and{SPACE}*+ {_simple("1")} {SPACE}*+ {_simple("2")} {SPACE}*+\){SPACE}*+\) )
  | (?P<infix> \( {BLANK} (?P<infix_left> {_SIMPLE_OPERAND} ) {BLANK} (?P<infix_op> {_COMPARISON} )
        {BLANK} (?P<infix_right> {_SIMPLE_OPERAND} ) {BLANK} \) )
  | (?P<open> \( (?P<gap> {BLANK} )
        (?P<head> => | [<>=!]=?+ | [+*/] | -(?![0-9.]) | [A-Za-z][A-Za-z0-9_-]*+ | {WORD}*+ ) )
  | (?P<close> \) ) | (?P<operand> {_OPERAND} ) | (?P<word> {WORD}++ | . ) | \Z )""",
    re.DOTALL | re.VERBOSE,
)
_SIMPLE, _FIRST, _SECOND = [tuple(f"{group}{i}" for group in _GROUPS) for i in ("", "1", "2")]
_STANDARD_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")
_COMMENT = re.compile(r";[^\n]*")
_INDEX = re.compile(r"[0-9]{1,18}")

_COMPARISONS = ("<", "<=", ">", ">=", "==", "!=", "=")
_HEADS = {  # what may open a bracket, by the content of the bracket around
    "command": ("assert",),
    "formula": ("and", "or", *_COMPARISONS),
    "term": ("+", "-", "*"),
}
_CONTENT = dict.fromkeys((*_COMPARISONS, *"+-*"), "term")  # "formula" for the rest
_HINTS = {
    "": "expected an operator after '('",
    "not": "'not' is not in VNN-LIB 2: turn the comparisons round",
    "=>": "'=>' is not in VNN-LIB 2: write an 'or'",
    "ite": "'ite' is not in VNN-LIB 2: write an 'or' of two 'and'",
    "/": "'/' is not in VNN-LIB 2: multiply instead",
    "declare-network": "networks are declared before the assertions",
    "vnnlib-version": "the version stands at the beginning, once",
    "declare-const": "declare-const is of version 1",
}


@dataclass(slots=True)
class _Bracket:
    """An open bracket, or the whole file."""

    op: str
    at: int
    content: str  # what stands inside: "command", "formula" or "term"
    formulas: list[Formula] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)


@dataclass(slots=True)
class _Typing:
    """What one comparison has met so far: its first variable and the places of its literals."""

    tensor: Tensor | None = None
    literals: dict[str, int] = field(default_factory=dict)  # "fraction", "whole" or "negative" to place


def parse_version_2(text: str, path: str, limits: Limits, lenient: bool) -> Query:
    """Parses the text, without byte-order mark; raises as `lpverify.io.vnnlib.parse_query` does.

    Source: VNN-LIB standard 2.0, chapter 3 (syntax, scoping, typing) and its grammar.
    """
    return _Parser(Source(text, path, limits), lenient).parse()


def _kind(literal: str) -> str:
    """For the typing rules: what a literal without exponent is."""
    if "." in literal:
        return "fraction"
    return "negative" if literal[0] == "-" else "whole"


class _Parser:
    """One pass over the assertions, after the header."""

    def __init__(self, source: Source, lenient: bool) -> None:
        self.source, self.lenient = source, lenient
        self.header = parse_header(source)
        self.tensors, self.inputs, self.outputs = numbered(self.header.networks)
        self.products = Products(self.inputs + self.outputs, source.limits)
        self.stack = [_Bracket("", 0, "command")]
        self.typing = _Typing()
        self.elements: dict[str, tuple[Tensor, int]] = {}  # caches, emptied when they are full
        self.numbers: dict[str, Decimal] = {}

    def parse(self) -> Query:
        actions: dict[str, Callable[[re.Match[str]], None]] = {
            "comparison": self.on_comparison,
            "pair": self.on_pair,
            "infix": self.on_infix,
            "open": self.on_open,
            "close": self.on_close,
            "operand": self.on_operand,
            "word": self.on_operand,
        }
        for match in _TOKEN.finditer(self.source.text, self.header.end):
            if match.lastgroup:
                actions[match.lastgroup](match)
        if len(self.stack) > 1:
            self.source.fail("'(' is never closed", self.stack[-1].at)
        if not self.stack[0].formulas:
            self.source.fail("no assertion", len(self.source.text))
        return Query(
            self.inputs,
            self.outputs,
            And(tuple(self.stack[0].formulas)),
            self.source.path,
            tuple(self.products.numbers),
            self.header.networks,
            self.header.version,
            self.products.delicate,
            self.source.remarks(),
        )

    def on_comparison(self, match: re.Match[str]) -> None:
        """Takes a whole simple comparison, maybe with `assert`."""
        around, assertion = self.stack[-1], match["assertion"]
        if around.content != ("formula" if assertion is None else "command"):
            self.misplaced(match["op"] if assertion is None else "assert", match.start("comparison") + 1)
        around.formulas.append(self.simple(match, _SIMPLE))

    def on_pair(self, match: re.Match[str]) -> None:
        """Takes a whole assertion of two simple comparisons: the usual box."""
        around = self.stack[-1]
        if around.content != "command":
            self.misplaced("assert", match.start("pair") + 1)
        around.formulas.append(And((self.simple(match, _FIRST), self.simple(match, _SECOND))))

    def simple(self, match: re.Match[str], groups: tuple[str, ...]) -> Formula:
        op, left, literal, right = match.group(*groups)
        tensor, number = self.elements.get(left) or self.element(left, match.start(groups[1]))
        if literal is None:
            return self.two_elements(tensor, number, op, right, match.start(groups[3]))
        if "." not in literal or tensor.family != "fraction":
            self.check_kind(tensor, _kind(literal), match.start(groups[2]))
        bound = self.numbers.get(literal)
        if bound is None:
            if len(self.numbers) >= _MAX_CACHED:
                self.numbers.clear()
            bound = self.numbers[literal] = Decimal(literal)
        if op[0] == "<":
            return Atom(((number, 1),), bound, len(op) == 1)
        if op[0] == ">":
            return Atom(((number, -1),), bound.copy_negate(), len(op) == 1)
        return relation(((number, 1),), op, bound)

    def two_elements(self, tensor: Tensor, number: int, op: str, right: str, at: int) -> Formula:
        other, second = self.elements.get(right) or self.element(right, at)
        self.check_types(tensor, other, at)
        terms = () if number == second else tuple(sorted(((number, 1), (second, -1))))
        return relation(terms, op, 0)

    def element(self, text: str, at: int) -> tuple[Tensor, int]:
        """The tensor and the number of an element, written `X[0,1]` or `X`."""
        if len(self.elements) >= _MAX_CACHED:
            self.elements.clear()
        name, bracket, indices = text.partition("[")
        found = self.elements[text] = self.indexed(name, indices[:-1] if bracket else None, at)
        return found

    def indexed(self, name: str, indices: str | None, at: int) -> tuple[Tensor, int]:
        tensor = self.tensors.get(name)
        if tensor is None:
            self.source.fail(f"{shown(name)} is not declared", at)
        if tensor.family == "other":
            self.source.refuse(f"comparison of {tensor.variable.element_type} elements", at)
        shape = tensor.variable.shape
        if not indices or not indices.strip():
            if shape:
                self.source.fail(f"{name} needs {len(shape)} indices: its shape is {list(shape)}", at)
            if indices is not None:
                self.source.remark("empty brackets after a scalar", at)
            return tensor, tensor.first
        places = tuple(map(int, indices.split(",")))
        if len(places) != len(shape):
            self.source.fail(f"{name} has {len(places)} indices, its shape is {list(shape)}", at)
        if any(map(ge, places, shape)):
            self.source.fail(f"{name}[{indices}] is out of range: the shape is {list(shape)}", at)
        return tensor, tensor.first + sum(map(mul, places, tensor.strides))

    def check_types(self, tensor: Tensor, other: Tensor, at: int) -> None:
        mine, theirs = tensor.variable, other.variable
        if mine.element_type != theirs.element_type:
            pair = f"{mine.name} is {mine.element_type}, {theirs.name} is {theirs.element_type}"
            self.depart(f"one comparison mixes element types: {pair}", at)

    def depart(self, what: str, at: int) -> None:
        """An error of typing, or a remark where that was asked for."""
        if self.lenient:
            self.source.remark(what, at)
        else:
            self.source.fail(what, at)

    def check_kind(self, tensor: Tensor, kind: str, at: int) -> None:
        element_type = tensor.variable.element_type
        if tensor.family == "fraction":
            if kind != "fraction":
                self.source.remark(
                    f"a whole number compared with {element_type} elements: write 1.0 for 1", at
                )
        elif kind == "fraction":
            self.depart(f"a number with a fraction compared with {element_type} elements", at)
        elif tensor.family == "bool":
            self.source.remark("a number compared with bool elements", at)
        elif tensor.family == "unsigned" and kind == "negative":
            self.source.remark(f"a negative number compared with {element_type} elements", at)

    def misplaced(self, op: str, at: int) -> None:
        content = self.stack[-1].content
        known = any(op in heads for heads in _HEADS.values())
        wanted = f"expected a {content}, got" if known else "unknown operator"
        self.source.fail(_HINTS.get(op, f"{wanted} {shown(op)}"), at)

    def on_infix(self, match: re.Match[str]) -> None:
        around, at = self.stack[-1], match.start("infix")
        if around.content != "formula":
            self.source.fail(f"expected a {around.content}, got a comparison", at)
        self.source.remark("a comparison with its operator in the middle", at)
        self.typing = _Typing()
        sides = [self.operand(match[side], match.start(side)) for side in ("infix_left", "infix_right")]
        around.formulas.append(self.comparison(_Bracket(match["infix_op"], at, "term", terms=sides)))

    def on_operand(self, match: re.Match[str]) -> None:
        around, at = self.stack[-1], match.start(match.lastgroup or 0)
        word = match[match.lastgroup or 0]
        if around.content != "term":
            self.source.fail(f"expected a {around.content} in brackets, got {shown(word)}", at)
        around.terms.append(self.operand(word, at))

    def operand(self, word: str, at: int) -> Term:
        if not ("A" <= word[0] <= "Z" or "a" <= word[0] <= "z"):
            value = self.source.number(word, at)
            if not _STANDARD_NUMBER.fullmatch(word):
                self.source.remark("a number not written as digits or digits.digits", at)
            kind = "fraction" if value != value.to_integral_value() else _kind(word)
            self.typing.literals.setdefault(kind, at)
            return Term(value, (), value if value >= 0 else value.copy_negate(), True)
        tensor, number = self.elements.get(word) or self.element(self.plain(word, at), at)
        if self.typing.tensor is None:
            self.typing.tensor = tensor
        else:
            self.check_types(self.typing.tensor, tensor, at)
        return Term(0, ((1, number),), 0, True)

    def plain(self, word: str, at: int) -> str:
        """An element without blanks and comments."""
        name, bracket, rest = _COMMENT.sub("", word).partition("[")
        indices = [part.strip(" \t\r\n\f") for part in rest.removesuffix("]").split(",")]
        for part in indices if indices != [""] else ():
            if not _INDEX.fullmatch(part):
                self.source.fail(f"index {shown(part)} is not a whole number", at)
        return name.rstrip(" \t\r\n\f") + (bracket and f"[{','.join(indices)}]")

    def on_open(self, match: re.Match[str]) -> None:
        around, head, at = self.stack[-1], match["head"], match.start("open")
        if len(self.stack) > self.source.limits.max_depth:
            self.source.fail(f"more than {self.source.limits.max_depth} brackets open", at)
        if head not in _HEADS[around.content]:
            self.misplaced(head, match.start("head"))
        if head == "assert" and match["gap"]:
            self.source.remark("blanks between '(' and the word that follows", at)
        if head in _COMPARISONS:
            self.typing = _Typing()
        self.stack.append(_Bracket(head, at, _CONTENT.get(head, "formula")))

    def on_close(self, match: re.Match[str]) -> None:
        if len(self.stack) == 1:
            self.source.fail("')' without '('", match.start("close"))
        inner, around = self.stack.pop(), self.stack[-1]
        self.check_count(inner)
        if around.content != "term":
            around.formulas.append(self.formula(inner))
            return
        try:
            around.terms.append(self.arithmetic(inner))
        except ArithmeticError as error:
            self.source.fail(str(error), inner.at)
        except UnsupportedError as error:
            self.source.refuse(str(error), inner.at)

    def check_count(self, inner: _Bracket) -> None:
        count = len(inner.terms) + len(inner.formulas)
        least = 2 if inner.op in _COMPARISONS else 1
        most = {"assert": 1, "!=": 2}.get(inner.op, count)
        if not least <= count <= most:
            self.source.fail(f"wrong number of arguments to '{inner.op}': {count}", inner.at)

    def arithmetic(self, bracket: _Bracket) -> Term:
        if bracket.op == "*":
            return reduce(self.products.product, bracket.terms)
        return signed_sum(bracket.op, bracket.terms)

    def formula(self, bracket: _Bracket) -> Formula:
        if bracket.content == "term":
            return self.comparison(bracket)
        formulas = bracket.formulas
        if len(formulas) == 1:
            return formulas[0]
        return Or(tuple(formulas)) if bracket.op == "or" else And(tuple(formulas))

    def compared(self, op: str, first: Term, second: Term) -> Formula:
        difference = total((1, -1), (first, second))
        terms = self.products.terms(difference)
        size = None if first.bare and second.bare else difference.size
        return relation(terms, op, negate(difference.constant), size)

    def comparison(self, bracket: _Bracket) -> Formula:
        op, at = bracket.op, bracket.at
        if op == "=":
            self.source.remark("'=' for '=='", at)
        if len(bracket.terms) > 2:
            self.source.remark("a comparison of more than two terms", at)
        if self.typing.tensor is None:
            self.source.remark("a comparison without a variable", at)
        else:
            for kind, place in self.typing.literals.items():
                self.check_kind(self.typing.tensor, kind, place)
        try:
            formulas = [self.compared(op, *pair) for pair in pairwise(bracket.terms)]
        except ArithmeticError as error:
            self.source.fail(str(error), at)
        return formulas[0] if len(formulas) == 1 else And(tuple(formulas))
