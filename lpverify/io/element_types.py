"""Element types of tensors, as the ONNX schemas declare them: which result has which type."""

from collections.abc import Sequence
from typing import Any

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
_ATTRIBUTES = ("to", "dtype", "output_dtype")  # of ops whose result type is free


def element_type(number: int) -> str:
    """The name of an ONNX element type.

    Raises:
        UnsupportedError: It is none that is treated exactly.
    """
    if number not in NAMES:
        raise UnsupportedError(f"element type {number} is not supported")
    return NAMES[number]


def result_types(schema: Any, attributes: dict[str, Any], operands: Sequence[str]) -> list[str]:
    """The element types of a node's results; an empty string where the schema leaves it open.

    Args:
        schema: The op's schema from `onnx.defs`.
        attributes: Of the node.
        operands: Element types of its operands, empty for omitted ones.
    """
    known: dict[str, str] = {}
    for i, name in enumerate(operands):
        formal = schema.inputs[min(i, len(schema.inputs) - 1)] if schema.inputs else None
        if name and formal is not None:
            known.setdefault(formal.type_str, name)
    given = next((attributes[a] for a in _ATTRIBUTES if attributes.get(a)), None)
    types = []
    for formal in schema.outputs:
        literal = formal.type_str.removeprefix("tensor(").removesuffix(")")
        if formal.type_str in known:
            types.append(known[formal.type_str])
        elif literal != formal.type_str:
            types.append(_LITERALS.get(literal, literal))
        else:
            types.append("" if given is None else element_type(given))
    return types
