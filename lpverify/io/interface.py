"""What a query wants of a model beyond its inputs and outputs: sizes for open dimensions, hidden tensors.

Both are put into the model itself, so that the importer, the bounds and the replays see the same network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lpverify.errors import InputError

HIDDEN = "lpverify.hidden."  # in front of the names of the outputs that show hidden tensors


@dataclass(frozen=True, slots=True)
class Interface:
    """What is wanted.

    Attributes:
        shapes: For each input its name, empty for the next in order, and its shape.
        hidden: Names of tensors that become outputs, after the others and in this order.
    """

    shapes: tuple[tuple[str, tuple[int, ...]], ...] = ()
    hidden: tuple[str, ...] = ()


def adapt(proto: Any, interface: Interface) -> bool:
    """Changes a model (ModelProto) to what is wanted; says whether anything had to change.

    Raises:
        InputError: An input has another number of dimensions, or there is no such tensor.
    """
    changed = _set_sizes(_inputs(proto.graph), interface.shapes)
    if interface.hidden:
        _show(proto, interface.hidden)
    return changed or bool(interface.hidden)


def _inputs(graph: Any) -> list[Any]:
    """Those without a constant."""
    constants = {t.name for t in graph.initializer} | {t.values.name for t in graph.sparse_initializer}
    return [info for info in graph.input if info.name not in constants]


def _set_sizes(inputs: Sequence[Any], shapes: Sequence[tuple[str, tuple[int, ...]]]) -> bool:
    """Gives open dimensions their sizes; 1 is what they count as anyway."""
    changed, sizes = False, dict[str, int]()
    by_name = {info.name: info for info in inputs}
    for i, (name, shape) in enumerate(shapes):
        info = by_name.get(name) if name else (inputs[i] if i < len(inputs) else None)
        if info is None:
            continue  # told when the finished model is compared with the query
        dims = info.type.tensor_type.shape.dim
        if len(dims) != len(shape):
            continue
        for dim, size in zip(dims, shape, strict=True):
            if dim.HasField("dim_value"):
                continue
            known = sizes.setdefault(dim.dim_param, size) if dim.dim_param else size
            if known != size:
                raise InputError(f"dimension {dim.dim_param!r} is {known} and {size} in the query")
            if size != 1:
                dim.dim_value, changed = size, True
    return changed


def _show(proto: Any, names: Sequence[str]) -> None:
    """Copies tensors of the main graph to outputs."""
    from onnx import ValueInfoProto, helper  # noqa: PLC0415  (slow to import)

    graph = proto.graph
    known = {info.name for info in graph.input} | {t.name for t in graph.initializer}
    known |= {t.values.name for t in graph.sparse_initializer}
    known |= {name for node in graph.node for name in node.output if name}
    for i, name in enumerate(names):
        if name not in known:
            raise InputError(f"the model has no tensor {name!r}")
        copy = f"{HIDDEN}{i}"
        graph.node.append(helper.make_node("Identity", [name], [copy]))
        graph.output.append(ValueInfoProto(name=copy))  # its type and shape are inferred
