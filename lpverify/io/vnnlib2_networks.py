"""Parses what stands before the assertions of a VNN-LIB 2 file: the version and the declared networks."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Final, Literal, NoReturn

from lpverify.io.vnnlib_text import Source, shown
from lpverify.query import Declaration, Variable

SPACE: Final = r"[ \t\r\n\f]"
BLANK: Final = rf"{SPACE}*+(?:;[^\n]*+{SPACE}*+)*+"
WORD: Final = r'[^ \t\r\n\f()\[\],";|]'
NAME: Final = rf"[A-Za-z][A-Za-z0-9_]*+(?!{WORD})"

_TOKEN = re.compile(
    rf'{BLANK}(?P<token>\((?P<gap>{BLANK})(?:[A-Za-z][A-Za-z0-9_-]*+)?+|"(?:[^"\\\n]|\\[^\n])*+"|{WORD}++|.|\Z)',
    re.DOTALL,
)
_NAME = re.compile(NAME)
_SIZE = re.compile("[0-9]{1,18}")
_ESCAPE = re.compile(r'\\(["\\])')
_VERSIONS = {"<2.0>": "2.0", "<2.1>": "2.1"}
_RESERVED = ("and", "or")
_FLOATS = "float64 float32 float16 bfloat16 float8e4m3fn float8e4m3fnuz float8e5m2 float8e5m2fnuz float4e2m1"
_FAMILIES = {
    "fraction": (*_FLOATS.split(), "real"),
    "whole": ("int64", "int32", "int16", "int8", "int4"),
    "unsigned": ("uint64", "uint32", "uint16", "uint8", "uint4"),
    "bool": ("bool",),
    "other": ("string", "complex64", "complex128"),
}
_ELEMENT_TYPES = {name: family for family, names in _FAMILIES.items() for name in names}
_KINDS: dict[str, Literal["input", "hidden", "output"]] = {
    "(declare-input": "input",
    "(declare-hidden": "hidden",
    "(declare-output": "output",
}
_ORDER = ("input", "hidden", "output")
_EQUIVALENCES = ("(equal-to", "(isomorphic-to")


@dataclass(frozen=True, slots=True)
class Tensor:
    """A declared tensor with the numbers of its elements.

    Attributes:
        variable: What was declared.
        first: The number of its first element.
        strides: What one step along each dimension adds to the number.
        family: Of its element type: "fraction", "whole", "unsigned", "bool" or "other".
    """

    variable: Variable
    first: int
    strides: tuple[int, ...]
    family: str


@dataclass(frozen=True, slots=True)
class Header:
    """The part before the assertions: `end` is where they begin."""

    version: str
    networks: tuple[Declaration, ...]
    end: int


def numbered(networks: tuple[Declaration, ...]) -> tuple[dict[str, Tensor], int, int]:
    """The tensors by name, the count of elements of inputs, and that of all other tensors.

    Inputs of all networks are numbered first, as `lpverify.query` says.
    """
    variables = [variable for network in networks for variable in network.variables]
    inputs = [variable for variable in variables if variable.kind == "input"]
    tensors: dict[str, Tensor] = {}
    first = 0
    for variable in inputs + [variable for variable in variables if variable.kind != "input"]:
        strides = tuple(prod(variable.shape[i + 1 :]) for i in range(len(variable.shape)))
        family = _ELEMENT_TYPES[variable.element_type]
        tensors[variable.name] = Tensor(variable, first, strides, family)
        first += variable.size
    count = sum(variable.size for variable in inputs)
    return tensors, count, first - count


def parse_header(source: Source) -> Header:
    """Parses the version and all networks of a VNN-LIB 2 file.

    Source: VNN-LIB standard 2.0, chapter 3 (syntax, scoping, typing of declarations) and its grammar.

    Raises:
        VnnlibError: It is malformed, or over the limit of elements.
        UnsupportedError: It uses `initialized`.
    """
    return _Header(source).parse()


class _Header:
    """Takes one token after the other; `token` is the current one."""

    def __init__(self, source: Source) -> None:
        self.source = source
        self.names: set[str] = set()
        self.elements = 0
        self.equivalences: dict[str, tuple[str, int]] = {}  # network to what it names, and where
        self.advance(0)

    def advance(self, at: int) -> None:
        match = _TOKEN.match(self.source.text, at)
        assert match is not None
        self.at, self.end = match.span("token")
        self.token, self.gap = match["token"], match["gap"]
        if self.gap:
            self.token = "(" + self.token[1 + len(self.gap) :]

    def take(self) -> str:
        token = self.token
        if self.gap and token[1:].strip():
            self.source.remark("blanks between '(' and the word that follows", self.at)
        self.advance(self.end)
        return token

    def fail(self, wanted: str) -> NoReturn:
        if not self.token:
            self.source.fail(f"expected {wanted}, got the end of the file", self.at)
        self.source.fail(f"expected {wanted}, got {shown(self.token)}", self.at)

    def expect(self, token: str, wanted: str = "") -> None:
        if self.token != token:
            self.fail(wanted or f"'{token}'")
        self.take()

    def parse(self) -> Header:
        version = self.version()
        networks = []
        while self.token == "(declare-network":
            networks.append(self.network())
        if not networks:
            self.fail("(declare-network")
        self.check_equivalences({network.name: network for network in networks})
        return Header(version, tuple(networks), self.at)

    def version(self) -> str:
        self.expect("(vnnlib-version", "(vnnlib-version <2.0>)")
        bare = f"<{self.token}>" in _VERSIONS
        if bare:
            self.source.remark("a version without '<' and '>'", self.at)
        version = _VERSIONS.get(f"<{self.token}>" if bare else self.token)
        if not self.token:
            self.fail("a version")
        if version is None:
            supported = " and ".join(_VERSIONS)
            self.source.fail(f"version {shown(self.token)} is not supported, only {supported}", self.at)
        self.take()
        self.expect(")")
        return version

    def network(self) -> Declaration:
        self.take()
        name = self.name("a name of the network")
        equal_to, isomorphic_to = self.equivalence(name)
        variables: list[Variable] = []
        place = self.at
        while kind := _KINDS.get(self.token):
            if variables and _ORDER.index(kind) < _ORDER.index(variables[-1].kind):
                self.source.fail(
                    f"{kind} after {variables[-1].kind}: the order is inputs, hidden, outputs", self.at
                )
            if kind != "input" and not variables:
                self.fail("(declare-input")
            variables.append(self.variable(kind))
        if not variables or variables[-1].kind != "output":
            self.fail("(declare-output" if variables else "(declare-input")
        self.expect(")", "a declaration or ')'")
        self.check_onnx_names(name, variables, place)
        return Declaration(name, tuple(variables), equal_to, isomorphic_to)

    def equivalence(self, network: str) -> tuple[str, str]:
        found = {"(equal-to": "", "(isomorphic-to": ""}
        while self.token in _EQUIVALENCES:
            if any(found.values()):
                self.source.fail("a second equivalence of one network", self.at)
            key = self.take()
            if not _NAME.fullmatch(self.token):
                self.fail("a name of a network")
            self.equivalences[network] = self.token, self.at
            found[key] = self.take()
            self.expect(")")
        return found["(equal-to"], found["(isomorphic-to"]

    def name(self, wanted: str) -> str:
        name = self.token
        if not _NAME.fullmatch(name) or name in _RESERVED:
            self.fail(wanted)
        if name in self.names:
            self.source.fail(f"{shown(name)} is declared twice", self.at)
        self.names.add(name)
        self.take()
        return name

    def variable(self, kind: Literal["input", "hidden", "output"]) -> Variable:
        self.take()
        name = self.name("a name of the tensor")
        element_type = "real" if self.token == "Real" else self.token
        if element_type not in _ELEMENT_TYPES:
            self.fail("an element type")
        self.take()
        shape = self.shape()
        onnx_name = ""
        if self.token[:1] == '"' and len(self.token) > 2:
            onnx_name = _ESCAPE.sub(r"\1", self.take()[1:-1])
        elif kind == "hidden":
            self.fail("the quoted name of a tensor of the model")
        if self.token.strip("(:") == "initialized":
            self.source.refuse("'initialized' is not supported", self.at)
        self.expect(")", "')' or the quoted name of a tensor of the model" if not onnx_name else "")
        return Variable(name, kind, element_type, shape, onnx_name)

    def shape(self) -> tuple[int, ...]:
        self.expect("[")
        place, size = self.at, 1
        shape: list[int] = []
        while not (self.token == "]" and not shape):
            shape.append(self.dimension())
            size *= shape[-1]
            if self.elements + size > self.source.limits.max_elements:
                most = self.source.limits.max_elements
                self.source.fail(f"refused: more than {most} elements of all tensors together", place)
            if self.token == "]":
                break
            self.expect(",", "',' or ']'")
        self.take()
        self.elements += size
        return tuple(shape)

    def dimension(self) -> int:
        if not _SIZE.fullmatch(self.token) or not int(self.token):
            self.fail("a positive whole number")
        return int(self.take())

    def check_onnx_names(self, name: str, variables: list[Variable], place: int) -> None:
        ends = [variable.onnx_name for variable in variables if variable.kind != "hidden"]
        if any(ends) and not all(ends):
            self.source.fail(
                f"either all inputs and outputs of {name} have names of the model, or none", place
            )
        for kind in ("input", "output"):
            names = [variable.onnx_name for variable in variables if variable.kind == kind]
            if any(names) and len(set(names)) < len(names):
                self.source.fail(f"two {kind}s of {name} have one name of the model", place)

    def check_equivalences(self, networks: dict[str, Declaration]) -> None:
        order = {name: i for i, name in enumerate(networks)}
        for name, (other, place) in self.equivalences.items():
            if other not in networks:
                self.source.fail(f"{shown(other)} is not a declared network", place)
            if other in self.equivalences:
                self.source.remark("an equivalence to a network that has one itself", place)
            if order[other] > order[name]:
                self.source.remark("an equivalence to a network that is declared later", place)
            self.check_same(networks[name], networks[other], place)
        self.check_cycles()

    def check_cycles(self) -> None:
        done: set[str] = set()
        for start in self.equivalences:
            name, path = start, set[str]()
            while name in self.equivalences and name not in done:
                if name in path:
                    self.source.fail(f"the equivalences of {name} go round", self.equivalences[name][1])
                path.add(name)
                name = self.equivalences[name][0]
            done |= path

    def check_same(self, network: Declaration, other: Declaration, place: int) -> None:
        for kind in ("input", "output"):
            mine, theirs = _of_kind(network, kind), _of_kind(other, kind)
            if len(mine) != len(theirs):
                counts = f"{len(mine)} and {len(theirs)} {kind}s"
                self.source.fail(f"{network.name} and {other.name} have {counts}", place)
            for pair in zip(mine, theirs, strict=True):
                self.check_pair(*pair, bool(network.equal_to), place)
        if network.equal_to:
            names = {variable.onnx_name: variable for variable in _of_kind(other, "hidden")}
            for variable in _of_kind(network, "hidden"):
                self.check_pair(variable, names.get(variable.onnx_name, variable), True, place)

    def check_pair(self, mine: Variable, theirs: Variable, equal: bool, place: int) -> None:
        names = f"{mine.name} and {theirs.name}"
        if mine.shape != theirs.shape:
            shapes = f"{list(mine.shape)} and {list(theirs.shape)}"
            self.source.fail(f"{names} have the shapes {shapes}", place)
        if mine.element_type != theirs.element_type:
            what = f"{names} have the element types {mine.element_type} and {theirs.element_type}"
            report: Callable[[str, int], None] = self.source.fail if equal else self.source.remark
            report(what if equal else f"{what}; version 2.0 wants one", place)


def _of_kind(network: Declaration, kind: str) -> list[Variable]:
    return [variable for variable in network.variables if variable.kind == kind]
