"""Parses VNN-LIB version 1.

One regular expression runs over the text, matching whole simple comparisons and declarations where
it can; no token list is kept and nothing recurses. An open bracket knows whether its content is
negated.
"""

import re
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from typing import NoReturn

from lpverify.errors import UnsupportedError
from lpverify.io.vnnlib_terms import Term, checked, coefficients, linear_terms, relation, signed_sum, total
from lpverify.io.vnnlib_text import Limits, Source, shown
from lpverify.query import And, Formula, Or, Query, negate

_MAX_CACHED_FORMULAS = 1 << 16

# Possessive: no text makes a match backtrack over more than one number.
_SPACE = r"[ \t\r\n\f\v]"
_BLANK = rf"{_SPACE}*+(?:;[^\n]*+{_SPACE}*+)*+"
_WORD = r'[^ \t\r\n\f\v()";|]'
_GAP = rf"(?!{_WORD}){_BLANK}"
_FLAT = r'[^()";|]*+'
_NUMBER = r"[+-]?+(?:[0-9]{1,99}+(?:\.[0-9]{0,99}+)?+|\.[0-9]{1,99}+)(?:[eE][+-]?+[0-9]{1,4}+)?+"
_TOKEN = re.compile(
    rf"""{_BLANK}(?:
    (?P<comparison> (?P<assertion> \(assert{_SPACE}++ )?
        \( (?P<op> [<>]=?+ | ==?+ | != ) {_SPACE}++
            (?P<left> [XY]_[0-9]++ ) {_SPACE}++
            (?P<right> [XY]_[0-9]++ | {_NUMBER} ) {_SPACE}*+ \)
        (?(assertion) {_SPACE}*+ \) ) )
  | (?P<command> \( {_BLANK} (?:
        declare-(?: const | (?P<function> fun ) ) {_GAP}
            (?P<name> [XY]_(?: 0 | [1-9][0-9]{{0,8}}+ ) ) {_GAP}
            (?(function) \( {_BLANK} \) {_BLANK} ) Real {_BLANK}
      | (?: set-logic | set-info | set-option | check-sat | get-model | exit ) (?!{_WORD})
            {_FLAT} (?: (?: "[^"]*+" | \|[^|]*+\| | ;[^\n]*+ ) {_FLAT} )*+ ) \) )
  | (?P<open> \( {_BLANK} (?P<head> {_WORD}*+ ) )
  | (?P<close> \) ) | (?P<word> {_WORD}++ | . ) | \Z )""",
    re.DOTALL | re.VERBOSE,
)

_COMPLEMENT = {"<=": ">", ">": "<=", ">=": "<", "<": ">=", "=": "!=", "==": "!=", "!=": "="}
_HEADS = {  # what may open a bracket, by the content of the bracket around
    "command": frozenset(("assert",)),
    "formula": frozenset(("and", "or", "not", "=>", *_COMPLEMENT)),
    "term": frozenset("+-*/"),
}
_HINTS = {
    "": "expected an operator after '('",
    "vnnlib-version": "the version must come first",
    "declare-network": "expected (vnnlib-version <2.0>) at the beginning",
    "declare-const": "expected (declare-const X_i Real) or Y_i",
    "declare-fun": "expected (declare-fun X_i () Real) or Y_i",
    "set-info": "brackets inside set-info are not supported",
}
_CONTENT = dict.fromkeys((*_COMPLEMENT, *"+-*/"), "term")  # "formula" for the rest
_LEAST = dict.fromkeys((*_COMPLEMENT, "=>", "/"), 2)  # arguments; 1 for the rest
_MOST = {"assert": 1, "not": 1, "=>": 2, "!=": 2}  # `!=` of three could mean two things


@dataclass(slots=True)
class _Bracket:
    """An open bracket, or the whole file."""

    op: str
    at: int
    content: str  # what stands inside: "command", "formula" or "term"
    negated: bool = False  # the next formula inside is to be negated; for a comparison: itself
    disjunction: bool = False  # what stands inside is joined by `or`
    formulas: list[Formula] = field(default_factory=list)
    terms: list[Term] = field(default_factory=list)

    def add(self, formula: Formula) -> None:
        self.formulas.append(formula)
        if self.op == "=>":
            self.negated = not self.negated


def parse_version_1(text: str, path: str, limits: Limits) -> Query:
    """Parses the text, without byte-order mark; raises as `lpverify.io.vnnlib.parse_query` does.

    Source: the format of VNN-COMP 2021 to 2025, SMT-LIB's QF_LRA over variables X_i and Y_i.
    """
    parser = _Parser(text, path, limits, None)
    query = parser.parse()
    if parser.first_output not in (None, query.inputs):  # inputs declared after outputs were used
        query = _Parser(text, path, limits, query.inputs).parse()
    return query


def _arithmetic(op: str, terms: list[Term]) -> Term:
    result = terms[0]
    if op in "+-":
        return signed_sum(op, terms)
    for term in terms[1:]:
        if op == "*" and term.parts:
            result, term = term, result
        if term.parts:
            raise UnsupportedError(f"'{op}' of variables is not linear")
        if op == "/" and not term.constant:
            raise ZeroDivisionError("division by zero")
        factor = term.constant if op == "*" else checked(1 / Fraction(term.constant))
        result = total((factor,), (result,))
    return result


def _formula(bracket: _Bracket) -> Formula:
    formulas = bracket.formulas
    if bracket.content == "term":
        op = _COMPLEMENT[bracket.op] if bracket.negated else bracket.op
        differences = [total((1, -1), pair) for pair in pairwise(bracket.terms)]
        formulas = [relation(linear_terms(coefficients(d)[0]), op, negate(d.constant)) for d in differences]
    if len(formulas) == 1:
        return formulas[0]
    return Or(tuple(formulas)) if bracket.disjunction else And(tuple(formulas))


class _Parser:
    """One pass over the text.

    `first_output`, the number of the first output, is the count of inputs declared when an output
    is first used, unless given; the caller has to compare it with the count in the end.
    """

    def __init__(self, text: str, path: str, limits: Limits, first_output: int | None) -> None:
        self.source = Source(text, path, limits)
        self.first_output = first_output
        self.declared: dict[str, dict[str, int]] = {"X": {}, "Y": {}}  # name to place
        self.stack = [_Bracket("", 0, "command")]
        self.cache: tuple[dict[str, Formula], dict[str, Formula]] = ({}, {})

    def parse(self) -> Query:
        actions = {
            "comparison": self.on_comparison,
            "command": self.on_command,
            "open": self.on_open,
            "close": self.on_close,
            "word": self.on_word,
        }
        for match in _TOKEN.finditer(self.source.text):
            if match.lastgroup:
                actions[match.lastgroup](match)
        self.check_end()
        inputs, outputs = map(len, self.declared.values())
        return Query(inputs, outputs, And(tuple(self.stack[0].formulas)), self.source.path)

    def check_end(self) -> None:
        if len(self.stack) > 1:
            self.source.fail("'(' is never closed", self.stack[-1].at)
        for kind, names in self.declared.items():
            missing = [name for i in range(len(names)) if (name := f"{kind}_{i}") not in names]
            if missing:
                highest = max(names, key=lambda name: int(name[2:]))
                self.source.fail(f"{highest} is declared, {missing[0]} is not", names[highest])
        if not self.stack[0].formulas:
            self.source.fail("no assertion", len(self.source.text))

    def refuse(self, op: str, at: int) -> NoReturn:
        content = self.stack[-1].content
        known = any(op in heads for heads in _HEADS.values())
        wanted = f"expected a {content}, got" if known else "unknown operator"
        self.source.fail(_HINTS.get(op, f"{wanted} {shown(op)}"), at)

    def on_comparison(self, match: re.Match[str]) -> None:
        """Takes a whole comparison of a variable with a number or variable, maybe with `assert`."""
        around, text = self.stack[-1], match["comparison"]
        if around.content != ("formula" if match["assertion"] is None else "command"):
            op = match["op"] if match["assertion"] is None else "assert"
            self.refuse(op, match.start("comparison") + 1)
        cache = self.cache[around.negated]
        formula = cache.get(text)
        if formula is None:
            if len(cache) >= _MAX_CACHED_FORMULAS:
                cache.clear()
            formula = cache[text] = self.simple(match, around.negated)
        around.add(formula)

    def simple(self, match: re.Match[str], negated: bool) -> Formula:
        op, left, right = match.group("op", "left", "right")
        variable = self.variable(left, match.start("left"))
        if right[0] not in "XY":
            return relation(((variable, 1),), _COMPLEMENT[op] if negated else op, Decimal(right))
        terms = [Term(0, ((1, variable),)), self.operand(right, match.start("right"))]
        return _formula(_Bracket(op, 0, "term", negated, terms=terms))

    def on_command(self, match: re.Match[str]) -> None:
        name, at = match["name"], match.start("name")
        if len(self.stack) > 1:
            self.source.fail(f"expected a {self.stack[-1].content}, got a command", match.start("command"))
        if name:
            names = self.declared[name[0]]
            if name in names:
                self.source.fail(f"{name} is declared twice", at)
            names[name] = at

    def variable(self, name: str, at: int) -> int:
        if name not in self.declared[name[0]]:
            self.source.fail(f"{shown(name)} is not declared", at)
        if name[0] == "X":
            return int(name[2:])
        if self.first_output is None:
            self.first_output = len(self.declared["X"])
        return self.first_output + int(name[2:])

    def on_word(self, match: re.Match[str]) -> None:
        around, word, at = self.stack[-1], match["word"], match.start("word")
        if around.content != "term":
            self.source.fail(f"expected a {around.content} in brackets, got {shown(word)}", at)
        around.terms.append(self.operand(word, at))

    def operand(self, word: str, at: int) -> Term:
        if word.startswith(("X_", "Y_")):
            return Term(0, ((1, self.variable(word, at)),))
        return Term(self.source.number(word, at))

    def on_open(self, match: re.Match[str]) -> None:
        around, head, at = self.stack[-1], match["head"], match.start("open")
        if len(self.stack) > self.source.limits.max_depth:
            self.source.fail(f"more than {self.source.limits.max_depth} brackets open", at)
        if head not in _HEADS[around.content]:
            self.refuse(head, match.start("head"))
        negated = around.negated != (head in ("not", "=>"))
        disjunction = around.negated != (head in ("or", "=>"))
        self.stack.append(_Bracket(head, at, _CONTENT.get(head, "formula"), negated, disjunction))

    def on_close(self, match: re.Match[str]) -> None:
        if len(self.stack) == 1:
            self.source.fail("')' without '('", match.start("close"))
        inner, around = self.stack.pop(), self.stack[-1]
        count = len(inner.terms) + len(inner.formulas)
        least, most = _LEAST.get(inner.op, 1), _MOST.get(inner.op, count)
        if not least <= count <= most:
            self.source.fail(f"wrong number of arguments to '{inner.op}': {count}", inner.at)
        try:
            if around.content == "term":
                around.terms.append(_arithmetic(inner.op, inner.terms))
            else:
                around.add(_formula(inner))
        except ArithmeticError as error:
            self.source.fail(str(error), inner.at)
        except UnsupportedError as error:
            self.source.refuse(str(error), inner.at)
