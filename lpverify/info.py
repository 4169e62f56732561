"""What is in a network file and how a query fits it: as data and as text."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import prod
from typing import Any, get_args

import numpy as np

from lpverify.bounds.frame import Frame
from lpverify.bounds.propagate import Region, propagate
from lpverify.config import Config
from lpverify.interval import Box
from lpverify.io.onnx import Model, Signature
from lpverify.multipliers import Effort, Method
from lpverify.network import Network
from lpverify.ops.base import ElementwiseOp
from lpverify.problem import Problem, compile_problem
from lpverify.query import Query, atoms

FLOAT_TYPES = (1, 10, 11, 16)  # ONNX: float32, float16, float64, bfloat16


def describe_network(model: Model) -> dict[str, Any]:
    """Inputs, outputs, ONNX ops, and the values that they became."""
    import onnx  # noqa: PLC0415  (slow to import)

    proto = onnx.ModelProto.FromString(model.serialized)
    network = model.network
    activations = [prod(network.nodes[k].shape) for k in network.activations]
    return {
        "path": model.path,
        "opsets": {o.domain or "ai.onnx": o.version for o in proto.opset_import},
        "inputs": _tensors(model.inputs),
        "outputs": _tensors(model.outputs),
        "parameters": sum(_parameters(proto.graph)),
        "neurons": sum(activations),
        "onnx_nodes": len(proto.graph.node),
        "onnx_ops": dict(sorted(Counter(node.op_type for node in proto.graph.node).items())),
        "values": [
            {"index": k, "op": op_name(network, k), "shape": list(node.shape), "name": node.name}
            for k, node in enumerate(network.nodes)
        ],
    }


def op_name(network: Network, k: int) -> str:
    """What computes a value."""
    op = network.nodes[k].op
    return "input" if op is None else type(op).__name__


def _tensors(signature: Signature) -> list[dict[str, Any]]:
    rows = zip(signature.names, signature.dtypes, signature.shapes, strict=True)
    return [{"name": n, "type": np.dtype(d).name, "shape": list(s)} for n, d, s in rows]


def _parameters(graph: Any) -> Iterator[int]:
    """Sizes of the constant float tensors."""
    constants = [a.t for n in graph.node if n.op_type == "Constant" for a in n.attribute if a.name == "value"]
    for tensor in [*graph.initializer, *constants]:
        if tensor.data_type in FLOAT_TYPES:
            yield prod(tensor.dims)


def describe_query(model: Model, query: Query) -> dict[str, Any]:
    """Size of the query, and unstable neurons in its first case.

    Raises:
        InputError: Query and network do not fit.
    """
    problem = compile_problem(model.network, query)
    first = problem.cases[0].box if problem.cases else None
    unbounded = f"{len(problem.unbounded)} input(s) have no lower or no upper bound"
    return {
        "path": query.path,
        "cases": len(problem.cases),
        "atoms": len(set(atoms(query.formula))),
        "inputs": query.inputs,
        "free_inputs": None if first is None else int((first.upper > first.lower).sum()),
        "notes": [*problem.notes, *([unbounded] if problem.unbounded else [])],
        "layers": [] if first is None else _layers(problem, first),
    }


def _layers(problem: Problem, box: Box) -> list[dict[str, Any]]:
    """Per nonlinear node its size and how many elements are unstable under either method."""
    network, limit = problem.network, Config().max_coefficients
    region = Region(Box(box.lower[None], box.upper[None]))
    methods = get_args(Method)
    found = {method: propagate(network, region, Effort(method), limit) for method in methods}
    return [
        {
            "value": k,
            "op": op_name(network, k),
            "neurons": prod(network.nodes[k].shape),
            **{f"unstable_{method}": _unstable(network, k, bounds) for method, bounds in found.items()},
        }
        for k in network.activations
    ]


def _unstable(network: Network, k: int, bounds: Frame) -> int:
    node = network.nodes[k]
    assert isinstance(node.op, ElementwiseOp)
    return int(node.op.unstable(bounds.boxes[node.inputs[0]]).sum())


def as_text(network: Mapping[str, Any], query: Mapping[str, Any] | None) -> str:
    """The same for people."""
    lines = [f"network     {network['path']}"]
    lines += [f"{what:12}{t['name']}  {t['type']} {t['shape']}" for what, t in _ends(network)]
    lines.append(f"parameters  {network['parameters']}")
    lines.append(f"neurons     {network['neurons']}")
    ops = ", ".join(f"{count} {op}" for op, count in network["onnx_ops"].items())
    lines.append(f"ONNX nodes  {network['onnx_nodes']}: {ops}")
    lines += [
        "",
        *_table(("value", "op", "shape", "ONNX node"), [list(v.values()) for v in network["values"]]),
    ]
    return "\n".join([*lines, *(_query_lines(query) if query else [])]) + "\n"


def _ends(network: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    yield from (("input", tensor) for tensor in network["inputs"])
    yield from (("output", tensor) for tensor in network["outputs"])


def _query_lines(query: Mapping[str, Any]) -> list[str]:
    lines = [
        "",
        f"query       {query['path']}",
        f"cases       {query['cases']}",
        f"atoms       {query['atoms']}",
    ]
    lines += [f"note        {note}" for note in query["notes"]]
    if query["cases"]:
        lines.append(f"free inputs {query['free_inputs']} of {query['inputs']} (first case)")
    if query["layers"]:
        header = ("value", "op", "neurons", "unstable: ibp", "crown")
        lines += ["", *_table(header, [list(layer.values()) for layer in query["layers"]])]
    return lines


def _table(header: tuple[str, ...], rows: list[list[Any]]) -> list[str]:
    """Columns as wide as their widest cell."""
    cells = [list(header), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(header))]
    return ["  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)).rstrip() for row in cells]
