"""What lpverify supports, in the words of the VNN-LIB 2 standard: the one home of what `supports` prints.

Operators and opsets come from the registry, so neglect can't make them wrong. The theories say what the
reader of queries takes; a test feeds it a query of each. The README's table of operators is written from
here as well: `python -m lpverify.capabilities README.md`.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from textwrap import fill
from typing import Any

from lpverify.errors import InputError
from lpverify.io.element_types import NAMES
from lpverify.ops import REGISTRY

# Constants and what is replaced by a part of the graph: done by the reader of ONNX files, in every opset.
STRUCTURE = ("Constant", "ConstantOfShape", "If", "Loop", "Scan", "Shape", "Size")
FLOATS = tuple(name for name in NAMES.values() if "float" in name)
WHOLE = tuple(name for name in NAMES.values() if "float" not in name)
ELEMENT_TYPES = ("float64", "float32", "float16", *WHOLE)  # that queries may declare, beside `real`
BEGIN = "<!-- operators: written by `python -m lpverify.capabilities README.md` -->"
END = "<!-- end of operators -->"


def operators() -> dict[str, list[int]]:
    """Names of the supported operators with the versions of their schemas, none for `STRUCTURE`.

    Those of other domains than ONNX's own have their domain in front.
    """
    found: dict[str, list[int]] = {name: [] for name in STRUCTURE}
    for domain, op_type, version in REGISTRY.table:
        found.setdefault(_full_name(domain, op_type), []).append(version)
    return {name: sorted(found[name]) for name in sorted(found)}


def _full_name(domain: str, op_type: str) -> str:
    return f"{domain}.{op_type}" if domain else op_type


def _schemas(name: str) -> dict[int, Any]:
    """The schemas of an operator by the opset that brought each, deprecated ones left out."""
    from onnx import defs  # noqa: PLC0415  (slow to import)

    domain, _, op_type = name.rpartition(".")
    found: dict[int, Any] = {}
    top = defs.onnx_opset_version() if defs.has(op_type, domain) else 0
    while top > 0:
        try:
            schema = defs.get_schema(op_type, top, domain)
        except defs.SchemaError:  # older than the operator
            break
        if not schema.deprecated:
            found[schema.since_version] = schema
        top = schema.since_version - 1
    return found


def opsets() -> tuple[int, int]:
    """The longest run of opsets in which the listed operators are supported as they are defined there.

    In others some operators may be missing, or be those of another version.
    """
    from onnx import defs  # noqa: PLC0415

    newest = defs.onnx_opset_version()
    gaps = {0, newest + 1}
    for name, versions in operators().items():
        known = sorted(_schemas(name)) if versions and "." not in name else []
        for first, after in pairwise([*known, newest + 1]):
            gaps.update(() if first in versions else range(first, after))
    runs = [(first + 1, after - 1) for first, after in pairwise(sorted(gaps))]
    return max(runs, key=lambda run: (run[1] - run[0], run))


def element_types(name: str) -> list[str]:
    """The element types that an operator may have here: those of its schema that are treated exactly."""
    versions, known = operators()[name], _schemas(name)
    usable = [version for version in known if version in versions or name in STRUCTURE]
    newest = known[max(usable)] if usable else None
    formals = [] if newest is None else [*newest.inputs[:1], *newest.outputs[:1]]
    names = {"float": "float32", "double": "float64"}
    kinds = [kind.removeprefix("tensor(").removesuffix(")") for formal in formals for kind in formal.types]
    declared = {names.get(kind, kind) for kind in kinds}
    whole = name in STRUCTURE or name in {_full_name(*key) for key in REGISTRY.whole}
    possible = (*FLOATS, *WHOLE) if whole else FLOATS
    return [kind for kind in possible if kind in declared]


# By the name of the option. An element type is claimed where verdicts cover computation in it, see
# `ops.execution`; whole numbers and truth values are computed exactly or nothing is said.
_FACTS: Mapping[str, Callable[[], Sequence[str]]] = {
    "vnnlib-versions": lambda: ("1.0", "2.1"),
    "onnx-opset-versions": lambda: [str(version) for version in opsets()],
    "onnx-element-types": lambda: ("real", *ELEMENT_TYPES),
    "onnx-operators": lambda: list(operators()),
    "onnx-operator-types": lambda: [" ".join([name, *element_types(name)]) for name in operators()],
    "hidden-node-theories": lambda: ("NH", "H"),
    "multiple-input-output-theories": lambda: ("SIO", "MIO"),
    "multiple-network-theories": lambda: ("SNET", "MENET", "MINET", "MNET"),
    "multiple-node-comparison-theories": lambda: ("SNC", "MNC"),
    "arithmetic-complexity-theories": lambda: ("BND", "OUTC", "LIN", "POLY"),
    "optimised-disjunctive-reasoning": lambda: ("true",),
    "serialise-assignments": lambda: ("true",),
    "unsat-proofs": lambda: ("false",),
}


def capability(option: str) -> Sequence[str]:
    """The lines that `supports --OPTION` prints."""
    return _FACTS[option]()


def as_text(titles: Mapping[str, str]) -> str:
    """The capabilities under their titles, for people."""
    sections = []
    for option, title in titles.items():
        separator = " to " if option.endswith("versions") else "\n" if option.endswith("types") else ", "
        parts = separator.join(capability(option)).splitlines()
        if option == "onnx-operators":
            parts = [f"{what}: {', '.join(_unbroken(names))}" for what, names in _groups("-")]
        filled = (fill(part, 100, initial_indent="  ", subsequent_indent="    ") for part in parts)
        sections.append("\n".join([title, *filled]).replace("\xa0", " "))
    return "\n\n".join(sections) + "\n"


def _unbroken(names: Sequence[str]) -> list[str]:
    """With spaces at which lines are not broken."""
    return [name.replace(" ", "\xa0") for name in names]


def _groups(dash: str) -> Iterator[tuple[str, list[str]]]:
    """Operators by what they may be applied to, each with the versions of its schema."""
    groups: dict[str, list[str]] = {"floats and whole numbers": [], "floats": [], "any": []}
    for name, versions in operators().items():
        whole = not set(WHOLE).isdisjoint(element_types(name))
        what = "any" if name in STRUCTURE else "floats and whole numbers" if whole else "floats"
        groups[what].append(f"{name} {_spans(name, versions, dash)}".strip())
    yield from groups.items()


def _spans(name: str, versions: Sequence[int], dash: str) -> str:
    """Runs of schema versions without a gap, such as `7-14`."""
    history = sorted({*_schemas(name), *versions})
    runs: list[list[int]] = []
    for before, version in pairwise([0, *history]):
        if version in versions:
            if runs and runs[-1][-1] == before:
                runs[-1].append(version)
            else:
                runs.append([version])
    return " ".join(dash.join(str(version) for version in sorted({run[0], run[-1]})) for run in runs)


def markdown() -> str:
    """The table of operators."""
    rows = [f"| {what} | {', '.join(names)} |" for what, names in _groups("\u2013")]
    return "\n".join(["| operands | operators and the versions of their schemas |", "| --- | --- |", *rows])


def with_table(text: str) -> str:
    """A text with the table of operators brought up to date.

    Raises:
        InputError: It has no place for the table.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise InputError(f"there are no lines {BEGIN!r} and {END!r}")
    return f"{before}{BEGIN}\n{markdown()}\n{END}{after}"


def update(path: Path) -> None:
    """Brings the table of operators in a file up to date."""
    path.write_text(with_table(path.read_text("utf-8")), "utf-8")


if __name__ == "__main__":
    update(Path(sys.argv[1] if len(sys.argv) > 1 else "README.md"))
