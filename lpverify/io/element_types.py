"""Element types of tensors, as the ONNX schemas declare them: which result has which type."""

from collections.abc import Iterator, Sequence
from itertools import compress
from typing import Any

import numpy as np

from lpverify.errors import UnsupportedError

# By the numbers of TensorProto.DataType; types that are not here are refused.
NAMES = {
    1: "float32",
    2: "uint8",
    3: "int8",
    4: "uint16",
    5: "int16",
    6: "int32",
    7: "int64",
    9: "bool",
    10: "float16",
    11: "float64",
    12: "uint32",
    13: "uint64",
    16: "bfloat16",
}
_LITERALS = {"float": "float32", "double": "float64"}  # as schemas write them
_DEFAULTS = {"QuantizeLinear": "uint8"}  # of results that neither operands nor attributes tell
_ATTRIBUTES = ("to", "dtype", "output_dtype")  # of ops whose result type is free


def element_type(number: int) -> str:
    """The name of an ONNX element type.

    Raises:
        UnsupportedError: It is none that is treated exactly.
    """
    if number not in NAMES:
        raise UnsupportedError(f"element type {number} is not supported")
    return NAMES[number]


def numpy_type(name: str) -> type:
    """The scalar type of that name.

    Raises:
        UnsupportedError: The name is empty: the type is not known.
    """
    if not name:
        raise UnsupportedError("an unknown element type")
    if name == "bfloat16":
        import ml_dtypes  # noqa: PLC0415  (comes with onnx)

        return ml_dtypes.bfloat16
    return np.dtype(name).type


def type_number(name: str) -> int:
    """The ONNX number of an element type.

    Raises:
        UnsupportedError: The name is empty: the type is not known.
    """
    number = next((n for n, known in NAMES.items() if known == name), 0)
    if not number:
        raise UnsupportedError(f"an operand of unknown element type {name!r}")
    return number


def result_types(
    schema: Any, attributes: dict[str, Any], operands: Sequence[str], outputs: int = 1
) -> list[str]:
    """The element types of a node's results; an empty string where the schema leaves it open.

    Args:
        schema: The op's schema from `onnx.defs`.
        attributes: Of the node.
        operands: Element types of its operands, empty for omitted ones.
        outputs: Of the node; all results of a variadic output have one type.
    """
    known: dict[str, str] = {}
    formals = schema.inputs
    for i, name in enumerate(operands):
        if name and formals:
            known.setdefault(formals[min(i, len(formals) - 1)].type_str, name)
    given = next((attributes[a] for a in _ATTRIBUTES if attributes.get(a)), None)
    if given is None and hasattr(attributes.get("value"), "data_type"):  # of ConstantOfShape
        given = attributes["value"].data_type
    kinds = [known[f.type_str] if f.type_str in known else _declared(f, given) for f in schema.outputs]
    kinds = [kind or _DEFAULTS.get(schema.name, "") for kind in kinds]
    return kinds + kinds[-1:] * (outputs - len(kinds))


def _declared(formal: Any, given: int | None) -> str:
    """The type of a result that no operand tells."""
    types = {formal.type_str} if formal.type_str.startswith("tensor(") else formal.types
    if len(types) == 1:
        literal = next(iter(types)).removeprefix("tensor(").removesuffix(")")
        return _LITERALS.get(literal, literal)
    return "" if given is None else element_type(given)


def with_values(schema: Any, computed: Sequence[bool]) -> Iterator[int]:
    """Positions of operands whose elements are numbers like those of the results or of computed operands.

    Indices, axes and sizes are none of them: their types are declared apart from those.

    Args:
        schema: The op's.
        computed: For each operand whether it is a computed value.
    """
    formals = schema.inputs
    places = [formals[min(i, len(formals) - 1)].type_str for i in range(len(computed)) if formals]
    names = {f.type_str for f in schema.outputs} | set(compress(places, computed))
    return (i for i, name in enumerate(places) if name in names and not name.startswith("tensor("))
