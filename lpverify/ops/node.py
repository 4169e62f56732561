"""What an importer gets and uses: a node with its operands, and the network under construction."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from lpverify.errors import UnsupportedError

if TYPE_CHECKING:
    from lpverify.ops.base import Op


@dataclass(frozen=True)
class Constant:
    """A constant operand; relative to `array`, `error` bounds how far the real one is, `drift` floats."""

    array: np.ndarray
    error: float = 0.0
    drift: float = 0.0


def is_whole(kind: str) -> bool:
    """Whether an element type, as NumPy names it, holds whole numbers or truth values."""
    return kind.startswith(("int", "uint", "bool"))


@dataclass(frozen=True)
class OnnxNode:
    """What an op's importer sees of one node.

    Attributes:
        operands: Per input a `Constant`, the index of a value (int), or None when omitted.
        shapes: Shapes of the operands, `()` for omitted ones.
        types: Element types of the operands as NumPy names them, empty for omitted ones.
        result_types: The same of the results, empty where the schema leaves it open.
    """

    op_type: str
    domain: str
    version: int
    name: str
    attributes: dict[str, Any]
    operands: tuple[Constant | int | None, ...]
    shapes: tuple[tuple[int, ...], ...]
    outputs: int = 1
    types: tuple[str, ...] = ()
    result_types: tuple[str, ...] = ()

    def whole(self, index: int = 0) -> bool:
        """Whether an operand's elements are whole numbers or truth values by their type."""
        return is_whole(self.types[index])

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute or its default."""
        value = self.attributes.get(name)
        return default if value is None else value

    def text(self, name: str, default: str) -> str:
        """An attribute that is a string."""
        value = self.attribute(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def operand(self, index: int) -> Constant | int | None:
        """The operand, None past the end."""
        return self.operands[index] if index < len(self.operands) else None

    def constant(self, index: int) -> Constant:
        """The operand as a constant.

        Raises:
            UnsupportedError: It is computed from the network's input.
        """
        operand = self.operand(index)
        if not isinstance(operand, Constant):
            raise UnsupportedError(f"input {index} must be a constant")
        return operand

    def optional(self, index: int) -> Constant | None:
        """The constant operand, or None when omitted."""
        return None if self.operand(index) is None else self.constant(index)

    def value(self, index: int = 0) -> int:
        """The operand as a computed value.

        Raises:
            UnsupportedError: It is a constant.
        """
        operand = self.operand(index)
        if not isinstance(operand, int):
            raise UnsupportedError(f"input {index} must depend on the network's input")
        return operand

    def integers(self, attribute: str, index: int, default: Any = None) -> Any:
        """A list of integers that older versions have as attribute, newer ones as constant input."""
        operand = self.optional(index)
        if operand is not None:
            return [int(v) for v in operand.array.reshape(-1)]
        return self.attribute(attribute, default)


class GraphBuilder(Protocol):
    """Where an importer puts the ops it translates a node to."""

    def add(self, op: "Op", inputs: Sequence[int]) -> int:
        """Appends an op and returns the index of its value."""

    def shape(self, value: int) -> tuple[int, ...]:
        """The shape of a value, batch axis of the engines not included."""

    def reserve(self, *sizes: int) -> None:
        """Asks for an array of these sizes before it is made, where it is larger than operands and result.

        Raises:
            UnsupportedError: The importer's limits do not allow it.
        """

    def constant(self, operand: Constant, shape: tuple[int, ...]) -> int:
        """Appends a constant value."""

    def note_order(self, value: int, source: int) -> None:
        """Notes that along the last axis the elements of a value are ordered as those of another."""

    def note_sum(self, value: int) -> None:
        """Notes that along the last axis the elements of a value sum up to 1."""


def normal_axis(axis: int, rank: int) -> int:
    """The axis counted from 0.

    Raises:
        UnsupportedError: There is no such axis.
    """
    if not -rank <= axis < rank:
        raise UnsupportedError(f"axis {axis} of a tensor with {rank} axes")
    return int(axis) % rank
