"""A query: which inputs and outputs violate the property, as an and/or tree over linear atoms.

Variables are numbered through: the inputs of all networks `0 .. inputs-1`, then their hidden tensors and
outputs, then the monomials. Networks follow in the order of their declarations, tensors too, elements in
row-major order. All numbers are exact (`Decimal` from the text, no rounding).
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from math import inf, isinf, nextafter, prod
from typing import Literal, TypeAlias

Number: TypeAlias = Decimal | Fraction | int


def negate(number: Number) -> Number:
    """The exact negative; Decimal's own operator would round to its context."""
    return number.copy_negate() if isinstance(number, Decimal) else -number


def less(first: Number, second: Number) -> bool:
    """Exact comparison, also between Decimal and Fraction."""
    if type(first) is type(second):
        return first < second
    return Fraction(first) < Fraction(second)


def float_below(number: Number) -> float:
    """The largest float64 not above the number."""
    try:
        nearest = float(number)
    except OverflowError:  # a Fraction or int beyond the floats; Decimal gives an infinity
        nearest = inf if number > 0 else -inf
    if isinf(nearest):
        return nearest if nearest < 0 else nextafter(inf, 0.0)
    exact: Number = Decimal(nearest) if isinstance(number, Decimal) else Fraction(nearest)
    return nextafter(nearest, -inf) if less(number, exact) else nearest


def float_above(number: Number) -> float:
    """The smallest float64 not below the number."""
    return -float_below(negate(number))


@dataclass(frozen=True, slots=True)
class Atom:
    """`sum coefficient * variable <= bound` (`<` when strict); `terms` sorted by variable, no zeros.

    Attributes:
        size: Where the query has arithmetic, the sum of the sizes of its constants; None where it compares
            a variable with a constant or variable as they are. Atoms that differ in it alone are equal.
    """

    terms: tuple[tuple[int, Number], ...]
    bound: Number
    strict: bool = False
    size: Number | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class And:
    """All children hold; no children: true."""

    children: tuple["Formula", ...]


@dataclass(frozen=True, slots=True)
class Or:
    """Some child holds; no children: false."""

    children: tuple["Formula", ...]


Formula: TypeAlias = Atom | And | Or


@dataclass(frozen=True, slots=True)
class Variable:
    """A declared tensor.

    Attributes:
        name: As the query calls it.
        kind: Its role in the network.
        element_type: The ONNX name, such as `float32`, or `real`.
        shape: Empty for a scalar.
        onnx_name: The tensor of the model that is meant; empty: the next one in the model's order.
    """

    name: str
    kind: Literal["input", "hidden", "output"]
    element_type: str
    shape: tuple[int, ...]
    onnx_name: str = ""

    @property
    def size(self) -> int:
        """Elements."""
        return prod(self.shape)


@dataclass(frozen=True, slots=True)
class Declaration:
    """A declared network.

    Attributes:
        name: As the query calls it.
        variables: Its inputs, then hidden tensors, then outputs, in the order of the file.
        equal_to: An earlier network that it is the same as; empty: none.
        isomorphic_to: A network that it has the graph of; empty: none.
    """

    name: str
    variables: tuple[Variable, ...]
    equal_to: str = ""
    isomorphic_to: str = ""


@dataclass(frozen=True, slots=True)
class Query:
    """A parsed VNN-LIB file: the violation `formula` over declared inputs and outputs.

    Attributes:
        inputs: Number of scalar input variables.
        outputs: Number of scalar hidden and output variables.
        formula: True exactly on the counterexamples.
        path: The file it was read from, for messages.
        monomials: Products that the formula has: variable `inputs + outputs + i` is the product of the
            variables listed by `monomials[i]`, sorted, at least two of them, repeated for powers.
        networks: What is declared; empty for version 1, which declares X and Y of one network.
        version: Of VNN-LIB.
        delicate: Whether the forms of the formula do not tell how far rounding may take the arithmetic that
            the file has, see `io.vnnlib_terms`.
        remarks: Where the file departs from the standard's letter, with line and column.
    """

    inputs: int
    outputs: int
    formula: Formula
    path: str = ""
    monomials: tuple[tuple[int, ...], ...] = ()
    networks: tuple[Declaration, ...] = ()
    version: str = "1.0"
    delicate: bool = False
    remarks: tuple[str, ...] = ()

    @property
    def semantics(self) -> str:
        """What verdicts are about: `real`, or computation in the types of the declared variables."""
        kinds = {v.element_type for network in self.networks for v in network.variables} - {"real"}
        floats = sorted(kind for kind in kinds if "float" in kind)
        return ", ".join(floats or sorted(kinds)) or "real"

    def tensors(self, *kinds: str) -> Iterator[tuple[Declaration, Variable]]:
        """The declared tensors of these kinds, in the order of the file."""
        for network in self.networks:
            yield from ((network, v) for v in network.variables if v.kind in kinds)

    def input_name(self, index: int) -> str:
        """How the query calls an input."""
        if not self.networks:
            return f"X_{index}"
        for _, variable in self.tensors("input"):
            if index < variable.size:
                places = ",".join(map(str, _unravel(index, variable.shape)))
                return f"{variable.name}[{places}]" if places else variable.name
            index -= variable.size
        raise IndexError(index)


def _unravel(index: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    places = []
    for size in reversed(shape):
        index, place = divmod(index, size)
        places.append(place)
    return tuple(reversed(places))


def atoms(formula: Formula) -> Iterator[Atom]:
    """Yields every atom of the formula, left to right, without recursion."""
    stack: list[Formula] = [formula]
    while stack:
        top = stack.pop()
        if isinstance(top, Atom):
            yield top
        else:
            stack.extend(reversed(top.children))


def normal_atom(
    terms: Mapping[int, Number], bound: Number, strict: bool, size: Number | None = None
) -> Formula:
    """The atom of these terms; true or false where they are all zero."""
    left = tuple(sorted((variable, factor) for variable, factor in terms.items() if factor))
    if left:
        return Atom(left, bound, strict, size)
    return And(()) if less(0, bound) or (not strict and not less(bound, 0)) else Or(())


def map_atoms(formula: Formula, rule: Callable[[Atom], Formula]) -> Formula:
    """The formula with every atom replaced, without recursion."""
    done: list[Formula] = []
    work: list[tuple[Formula, bool]] = [(formula, False)]
    while work:
        top, ready = work.pop()
        if isinstance(top, Atom):
            done.append(rule(top))
        elif not ready:
            work.append((top, True))
            work.extend((child, False) for child in reversed(top.children))
        else:
            count = len(top.children)
            children = tuple(done[len(done) - count :])
            del done[len(done) - count :]
            done.append(type(top)(children))
    return done.pop()


def conjuncts(formula: Formula) -> Iterator[Formula]:
    """The parts that all have to hold: nested conjunctions taken apart, without recursion."""
    stack: list[Formula] = [formula]
    while stack:
        top = stack.pop()
        if isinstance(top, And):
            stack.extend(reversed(top.children))
        else:
            yield top
