"""Exact arithmetic on the terms of a VNN-LIB file, and the formulas made of their comparisons.

Numbers stay `Decimal` as written; what is computed from them is computed in `Fraction`. Sums are kept as
trees until a comparison or a product needs their coefficients, so that deep sums cost linear time.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import reduce
from itertools import chain, repeat
from typing import TypeAlias

from lpverify.errors import UnsupportedError
from lpverify.io.vnnlib_text import Limits
from lpverify.query import And, Atom, Formula, Number, Or, negate

Monomial: TypeAlias = tuple[int, ...]
Terms: TypeAlias = tuple[tuple[int, Number], ...]

MODERATE = 2**40  # factors up to this one and from its inverse on do not overflow or vanish on the way
_MAX_BITS, _MAX_LOG2 = 14_000, 1_000  # of a computed number: Python can print it, float() takes it


@dataclass(slots=True)
class Term:
    """A sum not multiplied out.

    Attributes:
        constant: Of the whole, constants of parts included.
        parts: A factor with a variable, a product of variables (sorted) or another sum.
        size: The sum of the sizes of all constants.
        bare: Whether it is written as one constant or variable, so that nothing has to be computed.
    """

    constant: Number
    parts: tuple[tuple[Number, "int | Monomial | Term"], ...] = ()
    size: Number = 0
    bare: bool = False


def checked(number: Fraction) -> Number:
    """The number, as an int where it is one.

    Raises:
        OverflowError: It has too many digits.
    """
    top, bottom = number.numerator.bit_length(), number.denominator.bit_length()
    if max(top, bottom) > _MAX_BITS or top - bottom > _MAX_LOG2:
        raise OverflowError("the result of this arithmetic is too large or has too many digits")
    return number if bottom > 1 else number.numerator


def _sum(a: Number, b: Number) -> Number:
    return checked(Fraction(a) + Fraction(b)) if a and b else a or b


def _product(a: Number, b: Number) -> Number:
    if not a or not b:
        return 0
    if a not in (1, -1):
        a, b = b, a
    if a in (1, -1):
        return b if a == 1 else negate(b)
    return checked(Fraction(a) * Fraction(b))


def _size(number: Number) -> Number:
    """The absolute value; Decimal's own would round to its context."""
    return negate(number) if number < 0 else number


def total(factors: Iterable[Number], terms: Iterable[Term]) -> Term:
    """The sum of `factor * term`, of at least one pair; raises `OverflowError` as `checked` does."""
    pairs = list(zip(factors, terms, strict=False))
    constant = reduce(_sum, (_product(factor, term.constant) for factor, term in pairs))
    size = reduce(_sum, (_product(_size(factor), term.size) for factor, term in pairs))
    return Term(constant, tuple(pair for pair in pairs if pair[1].parts), size)


def signed_sum(op: str, terms: list[Term]) -> Term:
    """`(+ a b ..)` or `(- a b ..)`; `(- a)` is the negative."""
    sign = 1 if op == "+" else -1
    return total(chain((1 if len(terms) > 1 else sign,), repeat(sign)), terms)


def coefficients(term: Term) -> tuple[dict[int | Monomial, Number], bool]:
    """What stands with each variable and product, zeros left out; and whether some of it cancelled."""
    totals: dict[int | Monomial, Number] = {}
    cancelled = False
    stack: list[tuple[Number, Term]] = [(1, term)]
    while stack:
        outer, inside = stack.pop()
        for inner, part in inside.parts:
            factor = _product(outer, inner)
            if isinstance(part, Term):
                stack.append((factor, part))
            else:
                known = totals.get(part, 0)
                cancelled = cancelled or (known > 0 > factor) or (known < 0 < factor)
                totals[part] = _sum(known, factor)
    return {part: factor for part, factor in totals.items() if factor}, cancelled


def linear_terms(totals: dict[int | Monomial, Number]) -> Terms:
    """The variables among the coefficients, sorted."""
    return tuple(sorted((part, factor) for part, factor in totals.items() if isinstance(part, int)))


class Products:
    """Multiplies terms and numbers the products of variables that comparisons have.

    Args:
        first: The number of the first monomial.
        limits: How much may be multiplied out.

    Attributes:
        delicate: Whether the coefficients do not tell how far rounding may take a computation: terms
            cancelled on the way, or factors were extreme.
    """

    def __init__(self, first: int, limits: Limits) -> None:
        self.first, self.limits = first, limits
        self.numbers: dict[Monomial, int] = {}
        self.delicate = False
        self._room = 100 * limits.max_terms  # pairs of terms that the file may still multiply

    def product(self, first: Term, second: Term) -> Term:
        """The exact product.

        Raises:
            OverflowError: A coefficient has too many digits.
            UnsupportedError: It has too many terms or too high a degree.
        """
        if not (first.parts and second.parts):
            factor, term = (first, second) if second.parts else (second, first)
            self._note(factor)
            return total((factor.constant,), (term,))
        a, b = self._polynomial(first), self._polynomial(second)
        if a and b and max(map(len, a)) + max(map(len, b)) > self.limits.max_degree:
            raise UnsupportedError(f"a product of more than {self.limits.max_degree} variables")
        self._room -= len(a) * len(b)
        if self._room < 0:
            raise UnsupportedError("the products of this file multiply out to too many terms")
        return self._multiplied(a, b)

    def _note(self, factor: Term) -> None:
        """Whether a constant is moderate and was not computed with a loss."""
        moderate = not factor.size or MODERATE > factor.size > 1 / MODERATE
        self.delicate = self.delicate or not moderate or factor.size != _size(factor.constant)

    def _polynomial(self, term: Term) -> dict[Monomial, Number]:
        self._note(term)
        totals, cancelled = coefficients(term)
        self.delicate = self.delicate or cancelled
        self._check(len(totals))
        result = {(part,) if isinstance(part, int) else part: factor for part, factor in totals.items()}
        return result | {(): term.constant} if term.constant else result

    def _multiplied(self, a: dict[Monomial, Number], b: dict[Monomial, Number]) -> Term:
        result: dict[Monomial, Number] = {}
        for left, factor in a.items():
            for right, other in b.items():
                key, new = tuple(sorted(left + right)), _product(factor, other)
                known = result.get(key, 0)
                self.delicate = self.delicate or known > 0 > new or known < 0 < new
                result[key] = _sum(known, new)
            self._check(len(result))
        constant = result.pop((), 0)  # of two constants, see `_note`
        pairs = ((factor, key[0] if len(key) == 1 else key) for key, factor in result.items() if factor)
        return Term(constant, tuple(pairs), _size(constant))

    def _check(self, terms: int) -> None:
        if terms > self.limits.max_terms:
            raise UnsupportedError(
                f"a product that multiplies out to more than {self.limits.max_terms} terms"
            )

    def terms(self, term: Term) -> Terms:
        """The terms of an atom; products that are new get their numbers."""
        totals, cancelled = coefficients(term)
        self.delicate = self.delicate or cancelled
        linear = linear_terms(totals)
        if len(linear) == len(totals):
            return linear
        products = sorted(part for part in totals if not isinstance(part, int))
        numbered = [
            (self.numbers.setdefault(part, self.first + len(self.numbers)), totals[part]) for part in products
        ]
        return linear + tuple(sorted(numbered))


def _atom(terms: Terms, op: str, bound: Number, size: Number | None) -> Formula:
    if op[0] == ">":
        terms = tuple([(variable, negate(factor)) for variable, factor in terms])
        bound = negate(bound)
    strict = len(op) == 1
    if terms:
        return Atom(terms, bound, strict, size)
    return And(()) if bound > 0 or (bound == 0 and not strict) else Or(())


def relation(terms: Terms, op: str, bound: Number, size: Number | None = None) -> Formula:
    """`terms op bound` for any of the comparisons; without terms it is evaluated. `size`: see `Atom`."""
    if op == "!=":
        return Or((_atom(terms, "<", bound, size), _atom(terms, ">", bound, size)))
    if op in ("=", "=="):
        return And((_atom(terms, "<=", bound, size), _atom(terms, ">=", bound, size)))
    return _atom(terms, op, bound, size)
