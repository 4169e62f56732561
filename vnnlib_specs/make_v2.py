"""Queries of VNN-LIB 2 on tiny networks, with verdicts that are exact.

    python vnnlib_specs/make_v2.py [folder]

Writes the instances `v2_*` and replaces their lines in both tables; run it after `make_specs.py`. Queries
are read by the reference parser (package `vnnlib`), networks are evaluated operator by operator over
intervals. All weights and all ends of boxes are small multiples of powers of two, so that float64 rounds
nowhere but in thresholds, by far less than the margin.

`unsat` is proven by bisection of the inputs until intervals refute every box, with every comparison that
involves an output relaxed by `MARGIN`. `sat` is a corner or centre of such a box where the query holds
with every such inequality narrowed by `MARGIN`; equations hold exactly. So it does not matter whether
numbers are real or float32. Input tensors that an assertion declares equal, element by element, are one.
"""

import csv
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import vnnlib
from make_specs import MARGIN, Builder, toy_net, write_table
from onnx import TensorProto, helper, numpy_helper

BOXES = 400_000  # left at most; more means that a query needs another margin
ROUNDS = 80
Span = tuple[np.ndarray, np.ndarray]  # lower and upper ends, (boxes, ...)
Key = tuple[str, tuple[int, ...]]


@dataclass(frozen=True)
class Query:
    """A query and the networks it is about.

    Attributes:
        nets: Of each declared network its name and the name of the ONNX file.
        text: Without the version.
    """

    name: str
    nets: tuple[tuple[str, str], ...]
    text: str
    comment: str

    @property
    def file(self) -> str:
        """The whole file."""
        lines = [line.strip() for line in self.text.strip().splitlines()]
        return "\n".join([f"; {self.comment}", "", "(vnnlib-version <2.0>)", "", *lines, ""])

    @property
    def field(self) -> str:
        """The networks as `instances.csv` has them."""
        if len(self.nets) == 1:
            return f"onnx/{self.nets[0][1]}.onnx"
        return repr([(name, f"onnx/{net}.onnx") for name, net in self.nets])


# Networks.


def graph_bytes(builder: Builder, name: str, ends: Sequence[Sequence[tuple[str, int, list[int]]]]) -> bytes:
    """A model with several inputs and outputs, always the same bytes."""
    infos = [[helper.make_tensor_value_info(*end) for end in side] for side in ends]
    graph = helper.make_graph(builder.nodes, name, *infos, builder.tensors)
    opset = helper.make_opsetid("", 13)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=8, producer_name="lpverify specs")
    return model.SerializeToString(deterministic=True)


def sixteenths(rows: Any) -> np.ndarray:
    """Numbers given as multiples of 1/16, as float32."""
    return np.array(rows, np.float32) / 16


def eight_neurons(seed: int | None) -> bytes:
    """2-8-1 with weights that are multiples of 1/16; those of a seed are moved by up to 1/8 each."""
    rng = np.random.default_rng(7)
    parts = [rng.integers(-16, 17, shape) for shape in ((8, 2), (8,), (1, 8), (1,))]
    if seed is not None:
        moved = np.random.default_rng(seed)
        parts = [part + moved.integers(-2, 3, part.shape) for part in parts]
    graph, weights = Builder(), [sixteenths(part) for part in parts]
    hidden = graph.add("Relu", [graph.add("Gemm", ["x"], weights[:2], transB=1)])
    end = graph.add("Gemm", [hidden], weights[2:], transB=1)
    single = TensorProto.FLOAT
    return graph_bytes(graph, "eight", ([("x", single, [1, 2])], [(end, single, [1, 1])]))


def rising() -> bytes:
    """Increasing in its second input with slopes of at least 1/4, not so in its first."""
    graph = Builder()
    first = sixteenths([[16, 8], [-16, 8], [8, 16]]), sixteenths([-4, 2, 0])
    hidden = graph.add("Relu", [graph.add("Gemm", ["x"], first, transB=1)])
    bent = graph.add("Gemm", [hidden], [sixteenths([[16, 16, 8]]), sixteenths([0])], transB=1)
    straight = graph.add("Gemm", ["x"], [sixteenths([[0, 4]]), sixteenths([0])], transB=1)
    end = graph.add("Add", [bent, straight])
    single = TensorProto.FLOAT
    return graph_bytes(graph, "rising", ([("x", single, [1, 2])], [(end, single, [1, 1])]))


def two_inputs() -> bytes:
    """`y = relu(a_0 - a_1) + 2 relu(b_0 + b_1 - 1/2) - a_0 b_0`; `a` and `b` have the same shape."""
    graph = Builder()
    left = graph.add("Relu", [graph.add("Gemm", ["a"], [sixteenths([[16, -16]])], transB=1)])
    right = graph.add(
        "Relu", [graph.add("Gemm", ["b"], [sixteenths([[16, 16]]), sixteenths([-8])], transB=1)]
    )
    twice = graph.add("Mul", [right], [sixteenths([[32]])])
    heads = [graph.add("Gemm", [name], [sixteenths([[16, 0]])], transB=1) for name in ("a", "b")]
    end = graph.add("Sub", [graph.add("Add", [left, twice]), graph.add("Mul", heads)])
    single = TensorProto.FLOAT
    inputs = [("a", single, [1, 2]), ("b", single, [1, 2])]
    return graph_bytes(graph, "two_inputs", (inputs, [(end, single, [1, 1])]))


def two_outputs() -> bytes:
    """`u = relu(x_0 - x_1), relu(x_1 - x_0)` and `v = [x_0 + x_1]`."""
    graph = Builder()
    u = graph.add("Relu", [graph.add("Gemm", ["x"], [sixteenths([[16, -16], [-16, 16]])], transB=1)])
    v = graph.add("Gemm", ["x"], [sixteenths([[16, 16]])], transB=1)
    single = TensorProto.FLOAT
    outputs = [(u, single, [1, 2]), (v, single, [1, 1])]
    return graph_bytes(graph, "two_outputs", ([("x", single, [1, 2])], outputs))


def counts() -> bytes:
    """`n = trunc(relu(4 x_0 + 2 x_1)), trunc(3 x_0 - 3 x_1)` as int64."""
    graph = Builder()
    up = graph.add("Relu", [graph.add("Gemm", ["x"], [sixteenths([[64, 32]])], transB=1)])
    down = graph.add("Gemm", ["x"], [sixteenths([[48, -48]])], transB=1)
    end = graph.add("Cast", [graph.add("Concat", [up, down], axis=1)], to=TensorProto.INT64)
    inputs = [("x", TensorProto.FLOAT, [1, 2])]
    return graph_bytes(graph, "counts", (inputs, [(end, TensorProto.INT64, [1, 2])]))


def scalar() -> bytes:
    """`y = relu(2 s - 1) - s / 2`, all of them scalars."""
    graph = Builder()
    for name, number in (("one", 1), ("two", 2), ("half", 0.5)):
        graph.tensors.append(numpy_helper.from_array(np.array(number, np.float32), name))
    inner = graph.add("Sub", [graph.add("Mul", ["s", "two"]), "one"])
    half = graph.add("Mul", ["s", "half"])
    end = graph.add("Sub", [graph.add("Relu", [inner]), half])
    single = TensorProto.FLOAT
    return graph_bytes(graph, "scalar", ([("s", single, [])], [(end, single, [])]))


NETS: dict[str, Callable[[], bytes]] = {
    "toy": lambda: toy_net().onnx,  # of make_specs
    "v2_eight": lambda: eight_neurons(None),
    "v2_eight_moved": lambda: eight_neurons(8),
    "v2_rising": rising,
    "v2_two_inputs": two_inputs,
    "v2_two_outputs": two_outputs,
    "v2_counts": counts,
    "v2_scalar": scalar,
}


# Queries.

TOY = """
(declare-network f
(declare-input X {0} [1,2])
(declare-output Y {0} [1,2])
)
"""
HIDDEN = """
(declare-network f
(declare-input X real [1,2])
(declare-hidden G real [1,3] "relu_3")
(declare-hidden H real [1,4] "relu_1")
(declare-output Y real [1,2])
)
"""
INPUTS = """
(declare-network f
(declare-input {1} {0} [1,2])
(declare-input {2} {0} [1,2])
(declare-output Y {0} [1,1])
)
"""
OUTPUTS = """
(declare-network f
(declare-input X real [1,2])
(declare-output U real [1,2])
(declare-output V real [1,1])
)
"""
COUNTS = """
(declare-network f
(declare-input X float32 [1,2])
(declare-output N int64 [1,2])
)
"""
SCALAR = """
(declare-network f
(declare-input S float32 [])
(declare-output Y float32 [])
)
"""
PAIR = """
(declare-network f
(declare-input X_f {1} [1,2])
(declare-output Y_f {1} [1,1])
)
(declare-network g
({0} f)
(declare-input X_g {1} [1,2])
(declare-output Y_g {1} [1,1])
)
"""
NAMESAKE = "variables named like the network's tensors, the other way round: order counts"


def box(low: str, high: str, *names: str) -> str:
    """Assertions that hold each variable within the same range."""
    return "".join(f"\n(assert (and (>= {name} {low}) (<= {name} {high})))" for name in names)


def elements(*tensors: str) -> list[str]:
    """Both elements of tensors with shape [1,2]."""
    return [f"{tensor}[0,{i}]" for tensor in tensors for i in range(2)]


def on_toy(name: str, kind: str, assertions: str, comment: str, unit: bool = True) -> Query:
    """A query about `toy`, inputs in [-1, 1] unless the assertions say more."""
    text = TOY.format(kind) + (box("-1.0", "1.0", *elements("X")) if unit else "") + "\n" + assertions
    return Query(f"v2_{name}", (("f", "toy"),), text, comment)


def toy_queries() -> Iterator[Query]:
    """Strict, equal, unequal; boxes in disjunctions; squares and products; hidden tensors."""
    corner = "(assert (>= Y[0,1] 0.875))"
    yield on_toy("corner", "float32", corner, "both |X_0| and |X_1| at least 7/8")
    order = "(assert (>= (- Y[0,1] Y[0,0]) 0.01))"
    yield on_toy("order_never", "real", order, "min(|X_0|, |X_1|) above the max: never")
    band = "(assert (< Y[0,0] 0.5)) \n (assert (> 0.25 (- Y[0,1])))\n(assert (> Y[0,1] 0.25))"
    apart = "\n(assert (!= X[0,0] X[0,1]))"
    yield on_toy("strict", "float32", band + apart, "strict comparisons, and two inputs that differ")
    above = "(assert (or (> Y[0,0] 1.01) (< (+ Y[0,0] Y[0,1]) -0.01)))"
    yield on_toy("strict_never", "float32", above, "strict comparisons out of reach")
    equal = "(assert (== Y[0,0] 0.75)) \n (assert (== 0.5 Y[0,1])) \n (assert (!= X[0,0] 0.75))"
    yield on_toy("equal", "real", equal, "outputs with given values, an input without one")
    sums = "(assert (== (+ Y[0,0] Y[0,1]) 1.5)) \n (assert (<= (* Y[0,0] Y[0,1]) 0.45))"
    yield on_toy(
        "equal_never", "real", sums, "a sum of 1.5 has a product of 0.5 at least, as no output exceeds 1"
    )
    yield on_toy("boxes", "float32", boxes("0.7"), "input boxes in nested disjunctions", False)
    yield on_toy("boxes_never", "float32", boxes("0.8"), "input boxes in nested disjunctions", False)
    disc = "(assert (<= (+ (* X[0,0] X[0,0]) (* X[0,1] X[0,1])) {})) \n (assert (>= Y[0,0] 0.75))"
    yield on_toy("disc", "float32", disc.format("0.625"), "a disc that reaches max(|X_0|, |X_1|) = 3/4")
    yield on_toy("disc_never", "real", disc.format("0.5"), "a disc that does not")
    product = "(assert (>= (* Y[0,0] Y[0,1] 2.0) {})) \n (assert (>= (- X[0,0] X[0,1]) 0.5))"
    same = "\n (assert (>= (* X[0,0] X[0,1]) 0.0625))"
    yield on_toy(
        "product", "real", product.format("1.75"), "product of the outputs, signs of the inputs may differ"
    )
    yield on_toy(
        "product_never", "real", product.format("1.1") + same, "inputs of the same sign: at most 1/2"
    )
    square = "(assert (or (>= (* (- Y[0,0] Y[0,1]) (- Y[0,0] Y[0,1])) {}) (<= (* -1.0 Y[0,1] Y[0,1]) -1.01)))"
    yield on_toy("square", "float32", square.format("0.9"), "square of a difference of outputs")
    yield on_toy("square_never", "float32", square.format("1.02"), "square of a difference of outputs")


def boxes(least: str) -> str:
    """Three boxes, two of them within one disjunction inside another."""
    sides = [("0.5", "0.75", "-1.0", "1.0"), ("-0.75", "-0.5", "-1.0", "1.0"), ("-1.0", "1.0", "0.25", "0.5")]
    parts = [f"(and (>= X[0,0] {a}) (<= X[0,0] {b}) (>= X[0,1] {c}) (<= X[0,1] {d}))" for a, b, c, d in sides]
    inner = f"(and (or {parts[0]} {parts[1]}) (>= Y[0,1] {least}))"
    return f"(assert (or {inner} (and {parts[2]} (or (>= Y[0,1] 0.51) (< Y[0,0] 0.2)))))"


def other_queries() -> Iterator[Query]:
    """Hidden tensors, several inputs and outputs, whole numbers, scalars."""
    unit = box("-1.0", "1.0", *elements("X"))
    hidden = HIDDEN + unit + "\n(assert (>= (+ H[0,0] H[0,1]) 0.5))"
    some = "\n(assert (> H[0,3] 0.5)) \n (assert (<= G[0,0] 0.25)) \n (assert (>= Y[0,1] 0.5))"
    yield Query("v2_hidden", (("f", "toy"),), hidden + some, "hidden tensors, not in the network's order")
    never = "\n(assert (or (<= Y[0,0] 0.45) (>= (* H[0,0] H[0,1]) 0.01)))"
    yield Query("v2_hidden_never", (("f", "toy"),), hidden + never, "H_0 + H_1 = |X_0|, and one of them is 0")

    both = INPUTS.format("float32", "A", "B") + box("0.0", "1.0", *elements("A", "B"))
    net = (("f", "v2_two_inputs"),)
    yield Query("v2_inputs", net, both + "\n(assert (>= Y[0,0] 2.9))", "two inputs")
    mixed = "\n(assert (<= (+ B[0,0] B[0,1]) A[0,1])) \n (assert (>= (- Y[0,0] A[0,1]) 1.05))"
    yield Query("v2_inputs_never", net, both + mixed, "two inputs, compared with each other and the output")
    swapped = INPUTS.format("real", "b", "a") + box("0.0", "1.0", *elements("a", "b"))
    second = "\n(assert (>= Y[0,0] 2.5)) \n (assert (<= {0}[0,0] 0.25)) \n (assert (<= {0}[0,1] 0.25))"
    yield Query("v2_namesake", net, swapped + second.format("b"), NAMESAKE)
    yield Query("v2_namesake_never", net, swapped + second.format("a"), NAMESAKE)

    text, net = OUTPUTS + unit, (("f", "v2_two_outputs"),)
    far = "\n(assert (>= (* U[0,0] V[0,0]) 0.9))"
    yield Query("v2_outputs", net, text + far, "two outputs, their product")
    yield Query("v2_outputs_never", net, text + far.replace("0.9", "1.1"), "it is at most 1")

    text, net = COUNTS + box("0.0", "1.0", *elements("X")), (("f", "v2_counts"),)
    yield Query(
        "v2_counts", net, text + "\n(assert (and (== N[0,0] 3) (== N[0,1] 2)))", "output of type int64"
    )
    least = "\n(assert (>= N[0,0] 5)) \n (assert (<= N[0,1] -1))"
    yield Query("v2_counts_never", net, text + least, "output of type int64")

    text, net = SCALAR + box("-2.0", "2.0", "S"), (("f", "v2_scalar"),)
    yield Query("v2_scalar", net, text + "\n(assert (or (> Y 1.75) (<= Y -0.5)))", "scalars")
    yield Query(
        "v2_scalar_never", net, text + "\n(assert (or (>= Y 2.01) (<= (+ Y (* S S)) -0.07)))", "scalars"
    )


def pair_queries() -> Iterator[Query]:
    """Two networks: the same one twice, and one with other weights."""
    twice = (("f", "v2_rising"), ("g", "v2_rising"))
    text = PAIR.format("equal-to", "real") + box("-1.0", "1.0", *elements("X_f", "X_g"))
    for name, moved, comment in (
        ("v2_monotone_never", 1, "increasing in the second input"),
        ("v2_monotone", 0, "not increasing in the first input"),
    ):
        same = f"\n(assert (== X_g[0,{1 - moved}] X_f[0,{1 - moved}]))"
        larger = f"\n(assert (>= X_g[0,{moved}] (+ X_f[0,{moved}] 0.25)))"
        below = "\n(assert (< Y_g[0,0] (- Y_f[0,0] 0.05)))"
        yield Query(name, twice, text + same + larger + below, f"{comment}: g(x) below f(x)?")

    nets = (("f", "v2_eight"), ("g", "v2_eight_moved"))
    text = PAIR.format("isomorphic-to", "float32") + box("-1.0", "1.0", *elements("X_f"))
    text += "".join(f"\n(assert (== {g} {f}))" for f, g in zip(elements("X_f"), elements("X_g"), strict=True))
    apart = "\n(assert (or (> (- Y_f[0,0] Y_g[0,0]) {0}) (> (- Y_g[0,0] Y_f[0,0]) {0})))"
    for name, eps in (("v2_isomorphic", EPS[0]), ("v2_isomorphic_never", EPS[1])):
        yield Query(name, nets, text + apart.format(eps), f"two networks that differ by more than {eps}")


EPS = "0.25", "0.5"


def queries() -> list[Query]:
    """All of them."""
    return [*toy_queries(), *other_queries(), *pair_queries()]


# Networks over intervals.


def relu(span: Span) -> Span:
    """Of every element."""
    return np.maximum(span[0], 0), np.maximum(span[1], 0)


def gemm(inputs: list[Span], node: Any) -> Span:
    """Gemm with a constant matrix, transposed, and a constant bias."""
    (low, high), (weight, _), *bias = inputs
    up, down = np.maximum(weight[0], 0).T, np.minimum(weight[0], 0).T
    offset = bias[0][0][0] if bias else 0.0
    return low @ up + high @ down + offset, high @ up + low @ down + offset


def times(a: Span, b: Span) -> Span:
    """Product; of a thing with itself it is as loose as any other."""
    corners = [x * y for x in a for y in b]
    return np.minimum.reduce(corners), np.maximum.reduce(corners)


OPERATORS: dict[str, Callable[[list[Span], Any], Span]] = {
    "Gemm": gemm,
    "Relu": lambda v, node: relu(v[0]),
    "Add": lambda v, node: (v[0][0] + v[1][0], v[0][1] + v[1][1]),
    "Sub": lambda v, node: (v[0][0] - v[1][1], v[0][1] - v[1][0]),
    "Mul": lambda v, node: times(v[0], v[1]),
    "Concat": lambda v, node: (np.concatenate([s[0] for s in v], -1), np.concatenate([s[1] for s in v], -1)),
    "Cast": lambda v, node: (np.trunc(v[0][0]), np.trunc(v[0][1])),
}


def tensors(model: onnx.ModelProto, inputs: dict[str, Span]) -> dict[str, Span]:
    """All tensors over boxes; shapes have the boxes in front."""
    values = dict(inputs)
    for tensor in model.graph.initializer:
        array = numpy_helper.to_array(tensor).astype(np.float64)[None]
        values[tensor.name] = array, array
    for node in model.graph.node:
        values[node.output[0]] = OPERATORS[node.op_type]([values[name] for name in node.input], node)
    return values


# Queries over intervals.


def value(term: Any, env: dict[str, Span]) -> Span:
    """Of an arithmetic expression of the reference parser."""
    kind = type(term).__name__
    if kind == "Var":
        low, high = env[term.name]
        place = (slice(None), *term.indices)
        return low[place], high[place]
    if kind in ("Float", "Int", "Literal"):
        number = np.array([float(term.value)])
        return number, number
    if kind == "Negate":
        low, high = value(term.expr, env)
        return -high, -low
    if kind == "Minus":
        low, high = value(term.head, env)
        for part in (value(rest, env) for rest in term.rest):
            low, high = low - part[1], high - part[0]
        return low, high
    first, *rest = [value(part, env) for part in term.args]
    for part in rest:
        first = times(first, part) if kind == "Multiply" else (first[0] + part[0], first[1] + part[1])
    return first


def variables(term: Any) -> set[str]:
    """Names of the tensors in an expression."""
    if type(term).__name__ == "Var":
        return {term.name}
    return set().union(*(variables(child) for child in term.children()))


def possible(formula: Any, env: dict[str, Span], inputs: set[str]) -> np.ndarray:
    """Boxes that intervals do not refute; comparisons with outputs are relaxed by `MARGIN`."""
    kind = type(formula).__name__
    if kind in ("And", "Or"):
        parts = [possible(part, env, inputs) for part in formula.args]
        return (np.logical_and if kind == "And" else np.logical_or).reduce(np.broadcast_arrays(*parts))
    (low, high), (least, most) = value(formula.lhs, env), value(formula.rhs, env)
    slack = 0.0 if variables(formula) <= inputs else MARGIN
    below, above = low <= most + slack, high >= least - slack
    return {"LessThan": below, "LessEqual": below, "GreaterThan": above, "GreaterEqual": above}.get(
        kind, below & above if kind == "Equal" else np.ones_like(below)
    )


def certain(formula: Any, env: dict[str, Span], inputs: set[str]) -> np.ndarray:
    """Points (boxes without extent) where a formula holds; inequalities with outputs narrowed by `MARGIN`."""
    kind = type(formula).__name__
    if kind in ("And", "Or"):
        parts = [certain(part, env, inputs) for part in formula.args]
        return (np.logical_and if kind == "And" else np.logical_or).reduce(np.broadcast_arrays(*parts))
    difference = value(formula.lhs, env)[0] - value(formula.rhs, env)[0]
    slack = 0.0 if variables(formula) <= inputs else MARGIN
    return {
        "LessThan": difference < -slack,
        "LessEqual": difference <= -slack,
        "GreaterThan": difference > slack,
        "GreaterEqual": difference >= slack,
        "Equal": difference == 0,
        "NotEqual": abs(difference) > MARGIN,
    }[kind]


def hull(formula: Any) -> dict[Key, tuple[float, float]]:
    """Ranges outside of which a formula is false, from comparisons of an element with a number."""
    kind = type(formula).__name__
    if kind in ("And", "Or"):
        parts = [hull(part) for part in formula.args]
        if kind == "Or":
            shared = set.intersection(*(set(part) for part in parts))
            ends = {key: list(zip(*(part[key] for part in parts), strict=True)) for key in shared}
            return {key: (min(low), max(high)) for key, (low, high) in ends.items()}
        return meet(parts)
    left, right = formula.lhs, formula.rhs
    if type(left).__name__ != "Var" or type(right).__name__ not in ("Float", "Int", "Literal"):
        return {}
    key, number = (left.name, tuple(left.indices)), float(right.value)
    if kind in ("LessThan", "LessEqual"):
        return {key: (-np.inf, number)}
    return {key: (number, np.inf)} if kind in ("GreaterThan", "GreaterEqual") else {}


def meet(parts: Sequence[dict[Key, tuple[float, float]]]) -> dict[Key, tuple[float, float]]:
    """Ranges that satisfy all parts."""
    ranges: dict[Key, tuple[float, float]] = {}
    for part in parts:
        for key, (low, high) in part.items():
            least, most = ranges.get(key, (-np.inf, np.inf))
            ranges[key] = max(low, least), min(high, most)
    return ranges


class Problem:
    """A query ready to be bisected: one parameter for each class of input elements that must be equal.

    Args:
        text: The query.
        models: One for each of its networks.
    """

    def __init__(self, text: str, models: Sequence[onnx.ModelProto]) -> None:
        self.query = vnnlib.parse_query_string(text)
        self.models = models
        self.formulas = [assertion.expr for assertion in self.query.assertions]
        definitions = [d for network in self.query.networks for d in network.inputs]
        self.inputs = {d.name for d in definitions}
        self.shapes = {d.name: tuple(d.shape) for d in definitions}
        self.keys: list[Key] = [(d.name, place) for d in definitions for place in np.ndindex(*d.shape)]
        self.leader: dict[Key, Key] = {key: key for key in self.keys}
        for formula in self.formulas:
            self.unite(formula)
        self.parameters = sorted(set(self.leader.values()))

    def unite(self, formula: Any) -> None:
        """Takes in an assertion that two input elements are equal."""
        kinds = [type(term).__name__ for term in (formula, *formula.children())]
        if kinds != ["Equal", "Var", "Var"] or not variables(formula) <= self.inputs:
            return
        first, second = (self.leader[term.name, tuple(term.indices)] for term in (formula.lhs, formula.rhs))
        self.leader = {key: first if leader == second else leader for key, leader in self.leader.items()}

    def domain(self) -> tuple[np.ndarray, np.ndarray]:
        """One box `(1, parameters)` with everything that can satisfy the query."""
        ranges = meet([hull(formula) for formula in self.formulas])
        parts = [
            meet([{leader: ranges[key]} for key in self.keys if self.leader[key] == leader and key in ranges])
            for leader in self.parameters
        ]
        ends = np.array([part[leader] for part, leader in zip(parts, self.parameters, strict=True)])
        if not np.isfinite(ends).all():
            raise RuntimeError("an input has no bound")
        return ends[None, :, 0], ends[None, :, 1]

    def environment(self, low: np.ndarray, high: np.ndarray) -> dict[str, Span]:
        """All declared tensors over boxes of parameters."""
        place = {leader: i for i, leader in enumerate(self.parameters)}
        env: dict[str, Span] = {}
        for name, shape in self.shapes.items():
            columns = [place[self.leader[name, index]] for index in np.ndindex(*shape)]
            env[name] = low[:, columns].reshape(-1, *shape), high[:, columns].reshape(-1, *shape)
        for network, model in zip(self.query.networks, self.models, strict=True):
            names = [end.name for end in model.graph.input]
            given = {name: env[d.name] for name, d in zip(names, network.inputs, strict=True)}
            found = tensors(model, given)
            outputs = [end.name for end in model.graph.output]
            for name, definition in zip(outputs, network.outputs, strict=True):
                env[definition.name] = found[name]
            for definition in network.hidden:
                env[definition.name] = found[definition.onnx_name.strip('"')]
        return env

    def point(self, low: np.ndarray, high: np.ndarray) -> list[float] | None:
        """All inputs where the query holds for certain, from the boxes' corners and centres."""
        for candidate in (low, high, (low + high) / 2):
            env = self.environment(candidate, candidate)
            holds = np.logical_and.reduce(
                np.broadcast_arrays(*(certain(formula, env, self.inputs) for formula in self.formulas))
            )
            exact = (candidate.astype(np.float32) == candidate).all(axis=1)
            for i in np.flatnonzero(holds & exact)[:1]:
                place = {leader: k for k, leader in enumerate(self.parameters)}
                return [float(candidate[i, place[self.leader[key]]]) for key in self.keys]
        return None

    def decide(self) -> tuple[str, str]:
        """Verdict and evidence; raises RuntimeError if there is none for either."""
        low, high = self.domain()
        for _ in range(ROUNDS):
            env = self.environment(low, high)
            left = np.logical_and.reduce(
                np.broadcast_arrays(*(possible(formula, env, self.inputs) for formula in self.formulas))
            )
            seen = len(low)
            low, high = low[left], high[left]
            if not len(low):
                return "unsat", f"bisection, comparisons with outputs relaxed by {MARGIN}"
            point = self.point(low, high)
            if point is not None:
                return "sat", "point " + " ".join(map(repr, point))
            if seen > BOXES:
                break
            low, high = halves(low, high)
        raise RuntimeError(f"neither verdict: {len(low)} boxes left")


def halves(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both halves of each box, cut along its longest side near the middle, at a number with few bits."""
    rows, side = np.arange(len(low)), np.argmax(high - low, axis=1)
    least, most = low[rows, side], high[rows, side]
    unit = 2.0 ** np.floor(np.log2(np.maximum(most - least, 2.0**-40)) - 2)
    middle = np.round((least + most) / 2 / unit) * unit
    first, second = high.copy(), low.copy()
    first[rows, side] = second[rows, side] = middle
    return np.concatenate([low, second]), np.concatenate([first, high])


# The folder.


def write(folder: Path) -> list[tuple[str, str, int, str, str]]:
    """Writes networks and queries; returns the lines of both tables."""
    models = {name: make() for name, make in NETS.items()}
    for name, content in models.items():
        if name.startswith("v2_"):
            (folder / "onnx" / f"{name}.onnx").write_bytes(content)
    lines = []
    for query in queries():
        graphs = [onnx.load_model_from_string(models[net]) for _, net in query.nets]
        verdict, reason = Problem(query.file, graphs).decide()
        (folder / "vnnlib" / f"{query.name}.vnnlib").write_text(query.file, encoding="utf-8")
        print(f"{query.name}: {verdict}")
        lines.append((query.field, f"vnnlib/{query.name}.vnnlib", 60, verdict, reason))
    return lines


def main(folder: Path) -> None:
    """Writes everything and the lines of both tables."""
    lines = write(folder)
    for name, columns in (("instances.csv", (0, 1, 2)), ("expected.csv", (0, 1, 3, 4))):
        with (folder / name).open(newline="", encoding="utf-8") as file:
            kept = [row for row in csv.reader(file) if not row[1].startswith("vnnlib/v2_")]
        write_table(folder / name, [*kept, *([line[i] for i in columns] for line in lines)])


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
