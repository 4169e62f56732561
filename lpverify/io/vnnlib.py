"""Reads VNN-LIB version 1: a property file in, a `Query` with exact numbers out.

One regular expression runs over the text, matching whole simple comparisons and declarations where
it can; no token list is kept and nothing recurses. An open bracket knows whether its content is
negated. Numbers stay `Decimal` as written; what is computed from them is computed in `Fraction`.
"""

import gzip
import os
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import reduce
from io import BufferedReader
from itertools import chain, pairwise, repeat
from typing import NoReturn, TypeAlias

from lpverify.errors import InputError, UnsupportedError, VnnlibError
from lpverify.query import And, Atom, Formula, Number, Or, Query, negate

__all__ = ["DEFAULT_LIMITS", "Limits", "parse_query", "read_query"]


@dataclass(frozen=True, slots=True)
class Limits:
    """How much a file may ask for; beyond it, reading stops with a `VnnlibError`."""

    max_bytes: int = 1 << 30  # of the unpacked text
    max_ratio: int = 500  # unpacked over packed, from 16 MiB on: deflate can 1032, benchmarks 49
    max_depth: int = 50_000  # brackets open at one place


DEFAULT_LIMITS = Limits()

_Terms: TypeAlias = tuple[tuple[int, Number], ...]

_RATIO_FREE_BYTES = 16 << 20
_MAX_CACHED_FORMULAS = 1 << 16
_MAX_DIGITS = 10_000  # of a literal, and the most that its exponent may be
_MAX_BITS, _MAX_LOG2 = 14_000, 1_000  # of a computed number: Python can print it, float() takes it

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
_LITERAL = re.compile(r"[+-]?+(?:[0-9]++(?:\.[0-9]*+)?+|\.[0-9]++)(?:[eE]([+-]?+[0-9]++))?+")

_COMPLEMENT = {"<=": ">", ">": "<=", ">=": "<", "<": ">=", "=": "!=", "==": "!=", "!=": "="}
_HEADS = {  # what may open a bracket, by the content of the bracket around
    "command": frozenset(("assert",)),
    "formula": frozenset(("and", "or", "not", "=>", *_COMPLEMENT)),
    "term": frozenset("+-*/"),
}
_HINTS = {
    "": "expected an operator after '('",
    "vnnlib-version": "VNN-LIB 2 is not supported yet",
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
    terms: list["_Linear"] = field(default_factory=list)

    def add(self, formula: Formula) -> None:
        self.formulas.append(formula)
        if self.op == "=>":
            self.negated = not self.negated


@dataclass(slots=True)
class _Linear:
    """A sum not multiplied out: `constant` is that of the whole, constants of parts included."""

    constant: Number
    parts: tuple[tuple[Number, "int | _Linear"], ...] = ()


def read_query(path: str | os.PathLike[str], *, limits: Limits = DEFAULT_LIMITS) -> Query:
    """Reads a VNN-LIB 1 file, plain or packed with gzip (told by its first bytes).

    Raises:
        InputError: The file can't be read.
        VnnlibError: It is malformed or over a limit.
        UnsupportedError: It has a product of variables.
    """
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = _read(file, name, limits)
    except (OSError, ValueError) as error:
        raise InputError(f"{name}: {getattr(error, 'strerror', None) or error}") from error
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        before = data[: error.start].decode("utf-8").removeprefix("\ufeff")
        raise VnnlibError("not UTF-8", name, *_place(before, len(before))) from error
    del data
    return parse_query(text, name, limits)


def parse_query(text: str, path: str = "", limits: Limits = DEFAULT_LIMITS) -> Query:
    """Parses VNN-LIB 1 text; `path` only names it in messages. Raises as `read_query` does."""
    text = text.removeprefix("\ufeff")
    parser = _Parser(text, path, limits, None)
    query = parser.parse()
    if parser.first_output not in (None, query.inputs):  # inputs declared after outputs were used
        query = _Parser(text, path, limits, query.inputs).parse()
    return query


def _read(file: BufferedReader, path: str, limits: Limits) -> bytearray:
    packed = file.peek(2)[:2] == b"\x1f\x8b"
    most = limits.max_bytes
    if packed:
        by_ratio = limits.max_ratio * os.fstat(file.fileno()).st_size
        most = min(most, max(_RATIO_FREE_BYTES, by_ratio))
    data = bytearray()
    try:
        with gzip.GzipFile(fileobj=file) if packed else file as stream:
            while chunk := stream.read(1 << 20):
                data += chunk
                if len(data) > most:
                    raise VnnlibError(f"refused: more than {most} bytes of text", path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise VnnlibError(f"damaged gzip file: {error}", path) from error
    return data


def _place(text: str, at: int) -> tuple[int, int]:
    return text.count("\n", 0, at) + 1, at - text.rfind("\n", 0, at)


def _shown(token: str) -> str:
    return repr(token if len(token) <= 40 else token[:37] + "...")


def _checked(number: Fraction) -> Number:
    top, bottom = number.numerator.bit_length(), number.denominator.bit_length()
    if max(top, bottom) > _MAX_BITS or top - bottom > _MAX_LOG2:
        raise OverflowError("the result of this arithmetic is too large or has too many digits")
    return number if bottom > 1 else number.numerator


def _sum(a: Number, b: Number) -> Number:
    return _checked(Fraction(a) + Fraction(b)) if a and b else a or b


def _product(a: Number, b: Number) -> Number:
    if not a or not b:
        return 0
    if a not in (1, -1):
        a, b = b, a
    if a in (1, -1):
        return b if a == 1 else negate(b)
    return _checked(Fraction(a) * Fraction(b))


def _total(factors: Iterable[Number], terms: Iterable[_Linear]) -> _Linear:
    """The sum of `factor * term`."""
    pairs = list(zip(factors, terms, strict=False))
    constant = reduce(_sum, (_product(factor, term.constant) for factor, term in pairs))
    return _Linear(constant, tuple(pair for pair in pairs if pair[1].parts))


def _multiplied_out(term: _Linear) -> _Terms:
    totals: dict[int, Number] = {}
    stack: list[tuple[Number, _Linear]] = [(1, term)]
    while stack:
        outer, linear = stack.pop()
        for inner, part in linear.parts:
            factor = _product(outer, inner)
            if isinstance(part, _Linear):
                stack.append((factor, part))
            else:
                totals[part] = _sum(totals.get(part, 0), factor)
    return tuple(sorted((variable, factor) for variable, factor in totals.items() if factor))


def _arithmetic(op: str, terms: list[_Linear]) -> _Linear:
    result = terms[0]
    if op in "+-":
        sign = 1 if op == "+" else -1
        return _total(chain((1 if len(terms) > 1 else sign,), repeat(sign)), terms)
    for term in terms[1:]:
        if op == "*" and term.parts:
            result, term = term, result
        if term.parts:
            raise UnsupportedError(f"'{op}' of variables is not linear")
        if op == "/" and not term.constant:
            raise ZeroDivisionError("division by zero")
        factor = term.constant if op == "*" else _checked(1 / Fraction(term.constant))
        result = _total((factor,), (result,))
    return result


def _atom(terms: _Terms, op: str, bound: Number) -> Formula:
    if op[0] == ">":
        terms = tuple([(variable, negate(factor)) for variable, factor in terms])
        bound = negate(bound)
    strict = len(op) == 1
    if terms:
        return Atom(terms, bound, strict)
    return And(()) if bound > 0 or (bound == 0 and not strict) else Or(())


def _relation(terms: _Terms, op: str, bound: Number) -> Formula:
    """`terms op bound` for any of the comparisons."""
    if op == "!=":
        return Or((_atom(terms, "<", bound), _atom(terms, ">", bound)))
    if op in ("=", "=="):
        return And((_atom(terms, "<=", bound), _atom(terms, ">=", bound)))
    return _atom(terms, op, bound)


def _formula(bracket: _Bracket) -> Formula:
    formulas = bracket.formulas
    if bracket.content == "term":
        op = _COMPLEMENT[bracket.op] if bracket.negated else bracket.op
        differences = [_total((1, -1), pair) for pair in pairwise(bracket.terms)]
        formulas = [_relation(_multiplied_out(d), op, negate(d.constant)) for d in differences]
    if len(formulas) == 1:
        return formulas[0]
    return Or(tuple(formulas)) if bracket.disjunction else And(tuple(formulas))


class _Parser:
    """One pass over the text.

    `first_output`, the number of the first output, is the count of inputs declared when an output
    is first used, unless given; the caller has to compare it with the count in the end.
    """

    def __init__(self, text: str, path: str, limits: Limits, first_output: int | None) -> None:
        self.text, self.path, self.limits = text, path, limits
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
        for match in _TOKEN.finditer(self.text):
            if match.lastgroup:
                actions[match.lastgroup](match)
        self.check_end()
        inputs, outputs = map(len, self.declared.values())
        return Query(inputs, outputs, And(tuple(self.stack[0].formulas)), self.path)

    def check_end(self) -> None:
        if len(self.stack) > 1:
            self.fail("'(' is never closed", self.stack[-1].at)
        for kind, names in self.declared.items():
            missing = [name for i in range(len(names)) if (name := f"{kind}_{i}") not in names]
            if missing:
                highest = max(names, key=lambda name: int(name[2:]))
                self.fail(f"{highest} is declared, {missing[0]} is not", names[highest])
        if not self.stack[0].formulas:
            self.fail("no assertion", len(self.text))

    def fail(self, message: str, at: int) -> NoReturn:
        raise VnnlibError(message, self.path, *_place(self.text, at))

    def refuse(self, op: str, at: int) -> NoReturn:
        content = self.stack[-1].content
        known = any(op in heads for heads in _HEADS.values())
        wanted = f"expected a {content}, got" if known else "unknown operator"
        self.fail(_HINTS.get(op, f"{wanted} {_shown(op)}"), at)

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
            return _relation(((variable, 1),), _COMPLEMENT[op] if negated else op, Decimal(right))
        terms = [_Linear(0, ((1, variable),)), self.operand(right, match.start("right"))]
        return _formula(_Bracket(op, 0, "term", negated, terms=terms))

    def on_command(self, match: re.Match[str]) -> None:
        name, at = match["name"], match.start("name")
        if len(self.stack) > 1:
            self.fail(f"expected a {self.stack[-1].content}, got a command", match.start("command"))
        if name:
            names = self.declared[name[0]]
            if name in names:
                self.fail(f"{name} is declared twice", at)
            names[name] = at

    def variable(self, name: str, at: int) -> int:
        if name not in self.declared[name[0]]:
            self.fail(f"{_shown(name)} is not declared", at)
        if name[0] == "X":
            return int(name[2:])
        if self.first_output is None:
            self.first_output = len(self.declared["X"])
        return self.first_output + int(name[2:])

    def on_word(self, match: re.Match[str]) -> None:
        around, word, at = self.stack[-1], match["word"], match.start("word")
        if around.content != "term":
            self.fail(f"expected a {around.content} in brackets, got {_shown(word)}", at)
        around.terms.append(self.operand(word, at))

    def operand(self, word: str, at: int) -> _Linear:
        if word.startswith(("X_", "Y_")):
            return _Linear(0, ((1, self.variable(word, at)),))
        match = _LITERAL.fullmatch(word)
        if match is None:
            self.fail(f"{_shown(word)} is neither a number nor a variable", at)
        exponent = (match[1] or "").lstrip("+-0")
        digits = max(len(word), int(exponent or 0) if len(exponent) < 6 else 10**5)
        if digits > _MAX_DIGITS:
            self.fail(f"number of more than {_MAX_DIGITS} digits", at)
        return _Linear(Decimal(word))

    def on_open(self, match: re.Match[str]) -> None:
        around, head, at = self.stack[-1], match["head"], match.start("open")
        if len(self.stack) > self.limits.max_depth:
            self.fail(f"more than {self.limits.max_depth} brackets open", at)
        if head not in _HEADS[around.content]:
            self.refuse(head, match.start("head"))
        negated = around.negated != (head in ("not", "=>"))
        disjunction = around.negated != (head in ("or", "=>"))
        self.stack.append(_Bracket(head, at, _CONTENT.get(head, "formula"), negated, disjunction))

    def on_close(self, match: re.Match[str]) -> None:
        if len(self.stack) == 1:
            self.fail("')' without '('", match.start("close"))
        inner, around = self.stack.pop(), self.stack[-1]
        count = len(inner.terms) + len(inner.formulas)
        least, most = _LEAST.get(inner.op, 1), _MOST.get(inner.op, count)
        if not least <= count <= most:
            self.fail(f"wrong number of arguments to '{inner.op}': {count}", inner.at)
        try:
            if around.content == "term":
                around.terms.append(_arithmetic(inner.op, inner.terms))
            else:
                around.add(_formula(inner))
        except ArithmeticError as error:
            self.fail(str(error), inner.at)
        except UnsupportedError as error:
            line, column = _place(self.text, inner.at)
            raise UnsupportedError(f"{self.path}:{line}:{column}: {error}") from None
