"""Writes the networks, properties and expected verdicts of this folder.

    python vnnlib_specs/make_specs.py [folder]

Networks are trained on scikit-learn's digits within seconds, from fixed seeds. Expected verdicts come
from evidence that shares nothing with lpverify: `sat` from a point found by gradient descent and replayed
with onnxruntime, `unsat` from a big-M MILP (HiGHS through SciPy) that finds no point even when every
threshold is relaxed by `MARGIN`. Needs scikit-learn, torch and onnxruntime.
"""

import csv
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from decimal import Decimal
from fractions import Fraction
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
from onnx import TensorProto, helper, numpy_helper
from scipy import optimize, sparse

MARGIN = 1e-4
TRAINED_ON = 1400  # the first images; properties take later ones
CLASSES = 10

Row = tuple[dict[str, Decimal], Decimal]  # sum of coefficient * variable <= bound
Box = list[tuple[Decimal, Decimal]]


@dataclass(frozen=True)
class Stage:
    """`sum of matrix @ value[source] + bias`, then ReLU if `relu`; value 0 is the flat input."""

    terms: tuple[tuple[int, np.ndarray], ...]
    bias: np.ndarray
    relu: bool


@dataclass(frozen=True)
class Net:
    """A network twice: as ONNX and unrolled to dense stages."""

    name: str
    onnx: bytes
    stages: tuple[Stage, ...]

    @property
    def inputs(self) -> int:
        """Number of inputs."""
        return self.stages[0].terms[0][1].shape[1]

    @property
    def outputs(self) -> int:
        """Number of outputs."""
        return len(self.stages[-1].bias)

    def values(self, x: np.ndarray) -> list[np.ndarray]:
        """All values in float64, at points `(N, n)`."""
        values = [x]
        for stage in self.stages:
            z = stage.bias + sum(values[source] @ matrix.T for source, matrix in stage.terms)
            values.append(np.maximum(z, 0) if stage.relu else z)
        return values


@dataclass(frozen=True)
class Instance:
    """A property: some box with all rows of one of its options is a violation.

    Attributes:
        options: Alternatives, each a box with alternative sets of rows.
    """

    net: str
    name: str
    options: list[tuple[Box, list[list[Row]]]]
    timeout: int = 60
    comment: str = ""

    @property
    def alternatives(self) -> Iterator[tuple[Box, list[Row]]]:
        """Boxes with one set of rows each."""
        for box, choices in self.options:
            for rows in choices:
                yield box, rows


# Networks.


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    """Images `(N, 64)` as sixteenths in [0, 1], and classes."""
    from sklearn.datasets import load_digits  # noqa: PLC0415

    data = load_digits()
    return data.data / 16.0, data.target


@dataclass
class Builder:
    """An ONNX graph under construction."""

    nodes: list[Any] = field(default_factory=list)
    tensors: list[Any] = field(default_factory=list)

    def add(
        self, op: str, inputs: Sequence[str], weights: Sequence[np.ndarray] = (), **attributes: Any
    ) -> str:
        """Appends a node; returns its output."""
        names = []
        for array in weights:
            names.append(f"w{len(self.tensors)}")
            self.tensors.append(numpy_helper.from_array(np.ascontiguousarray(array), names[-1]))
        output = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, [*inputs, *names], [output], name=output, **attributes))
        return output

    def model(self, name: str, shape: Sequence[int], output: str, outputs: int) -> bytes:
        """The finished model, always the same bytes."""
        ends = [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, list(shape)),
            helper.make_tensor_value_info(output, TensorProto.FLOAT, [1, outputs]),
        ]
        graph = helper.make_graph(self.nodes, name, ends[:1], ends[1:], self.tensors)
        opset = helper.make_opsetid("", 13)
        model = helper.make_model(graph, opset_imports=[opset], ir_version=8, producer_name="lpverify specs")
        return model.SerializeToString(deterministic=True)


def dense_net(name: str, layers: Sequence[tuple[np.ndarray, np.ndarray]]) -> Net:
    """Gemm and ReLU; `layers` hold float32 `(out, in)` matrices and biases."""
    graph, value = Builder(), "x"
    for i, (weight, bias) in enumerate(layers):
        value = graph.add("Gemm", [value], [weight, bias], transB=1)
        value = graph.add("Relu", [value]) if i < len(layers) - 1 else value
    onnx = graph.model(name, [1, layers[0][0].shape[1]], value, len(layers[-1][1]))
    stages = [Stage(((i, wide(w)),), wide(b), i < len(layers) - 1) for i, (w, b) in enumerate(layers)]
    return Net(name, onnx, tuple(stages))


def wide(array: np.ndarray) -> np.ndarray:
    """As float64."""
    return array.astype(np.float64)


def toy_net() -> Net:
    """`Y_0 = max(|X_0|, |X_1|)`, `Y_1 = min(|X_0|, |X_1|)`, by hand."""
    first = np.array([[1, 0], [-1, 0], [0, 1], [0, -1]], np.float32)
    second = np.array([[1, 1, -1, -1], [-1, -1, 1, 1], [1, 1, 1, 1]], np.float32)
    last = np.array([[0.5, 0.5, 0.5], [-0.5, -0.5, 0.5]], np.float32)
    return dense_net("toy", [(w, np.zeros(len(w), np.float32)) for w in (first, second, last)])


def mlp_net() -> Net:
    """64-32-32-10, trained by scikit-learn."""
    from sklearn.neural_network import MLPClassifier  # noqa: PLC0415

    images, classes = digits()
    model = MLPClassifier((32, 32), alpha=0.01, max_iter=1000, tol=1e-4, random_state=1)
    model.fit(images[:TRAINED_ON], classes[:TRAINED_ON])
    layers = zip(model.coefs_, model.intercepts_, strict=True)
    return dense_net("mlp", [(w.T.astype(np.float32), b.astype(np.float32)) for w, b in layers])


def train(model: Any, epochs: int) -> list[np.ndarray]:
    """Fits a torch model to the digits; returns its parameters."""
    import torch  # noqa: PLC0415

    torch.set_num_threads(1)
    images, classes = digits()
    x = torch.tensor(images[:TRAINED_ON], dtype=torch.float32)
    y = torch.tensor(classes[:TRAINED_ON])
    optimiser = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.05)
    for _ in range(epochs):
        for part in torch.randperm(len(x)).split(64):
            noisy = x[part] + 0.08 * torch.randn_like(x[part])
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(model(noisy), y[part]).backward()
            optimiser.step()
    return [p.detach().numpy() for p in model.parameters()]


def conv_net() -> Net:
    """Two strided convolutions and a dense layer, trained by torch."""
    import torch  # noqa: PLC0415

    nn = torch.nn
    torch.manual_seed(3)
    layers = [nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.Flatten(), nn.Linear(32, CLASSES))
    weights = train(model, 30)
    graph, value = Builder(), "x"
    for weight, bias in (weights[:2], weights[2:4]):
        window = {"kernel_shape": [3, 3], "strides": [2, 2], "pads": [1, 1, 1, 1]}
        value = graph.add("Relu", [graph.add("Conv", [value], [weight, bias], **window)])
    value = graph.add("Gemm", [graph.add("Flatten", [value])], weights[4:], transB=1)
    onnx = graph.model("conv", [1, 1, 8, 8], value, CLASSES)
    first, second = unroll(weights[0], 8), unroll(weights[2], 4)
    stages = (
        Stage(((0, first),), wide(weights[1]).repeat(16), True),
        Stage(((1, second),), wide(weights[3]).repeat(4), True),
        Stage(((2, wide(weights[4])),), wide(weights[5]), False),
    )
    return Net("conv", onnx, stages)


def unroll(weight: np.ndarray, size: int) -> np.ndarray:
    """The matrix of a 3x3 convolution with stride 2 and pad 1 on square images."""
    outputs, inputs = weight.shape[:2]
    half = size // 2
    matrix = np.zeros((outputs, half, half, inputs, size, size))
    for i, j, p, q in np.ndindex(half, half, 3, 3):
        r, c = 2 * i + p - 1, 2 * j + q - 1
        if 0 <= r < size and 0 <= c < size:
            matrix[:, i, j, :, r, c] = weight[:, :, p, q]
    return matrix.reshape(outputs * half * half, inputs * size * size)


def residual_net() -> Net:
    """A dense layer, a block with a skip connection, a dense layer, trained by torch."""
    import torch  # noqa: PLC0415

    nn = torch.nn

    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.inner = nn.Linear(64, 24), nn.Linear(24, 24)
            self.outer, self.head = nn.Linear(24, 24), nn.Linear(24, CLASSES)

        def forward(self, x: Any) -> Any:
            h = self.stem(x).relu()
            return self.head((self.outer(self.inner(h).relu()) + h).relu())

    torch.manual_seed(4)
    weights = train(Residual(), 30)
    graph = Builder()
    stem = graph.add("Relu", [graph.add("Gemm", ["x"], weights[:2], transB=1)])
    inner = graph.add("Relu", [graph.add("Gemm", [stem], weights[2:4], transB=1)])
    outer = graph.add("Gemm", [inner], weights[4:6], transB=1)
    joined = graph.add("Relu", [graph.add("Add", [outer, stem])])
    onnx = graph.model("residual", [1, 64], graph.add("Gemm", [joined], weights[6:], transB=1), CLASSES)
    w = [wide(v) for v in weights]
    stages = (
        Stage(((0, w[0]),), w[1], True),
        Stage(((1, w[2]),), w[3], True),
        Stage(((2, w[4]), (1, np.eye(24))), w[5], True),
        Stage(((3, w[6]),), w[7], False),
    )
    return Net("residual", onnx, stages)


NETS = {"toy": toy_net, "mlp": mlp_net, "conv": conv_net, "residual": residual_net}


# Properties.


def ball(index: int, eps: str) -> Box:
    """The pixels of an image give or take `eps`, in [0, 1]; exact."""
    pixels = [Decimal(int(v * 16)) / 16 for v in digits()[0][index]]
    radius = Decimal(eps)
    return [(max(p - radius, Decimal(0)), min(p + radius, Decimal(1))) for p in pixels]


def robustness(
    net: str, kind: str, index: int, eps: str, confidence: str = "0", timeout: int = 60
) -> Instance:
    """Violated where the logit of another class exceeds that of the image's class by `confidence`."""
    true = int(digits()[1][index])
    least = Decimal(confidence)
    choices = [
        [({f"Y_{true}": Decimal(1), f"Y_{j}": Decimal(-1)}, -least)] for j in range(CLASSES) if j != true
    ]
    comment = f"{kind}: image {index} of scikit-learn's digits, class {true}, eps {eps}"
    comment += f", wrong by {confidence} at least" if least else ""
    return Instance(net, f"{net}_{kind}_{index}", [(ball(index, eps), choices)], timeout, comment)


def square(low: str, high: str, low_1: str, high_1: str) -> Box:
    """A box of the toy network."""
    return [(Decimal(low), Decimal(high)), (Decimal(low_1), Decimal(high_1))]


def toy_instances() -> list[Instance]:
    """Small enough to check by hand."""
    one, unit = Decimal(1), square("-1", "1", "-1", "1")
    above = [[({"Y_0": one, "Y_1": -one}, Decimal("-0.001"))]]
    corner = [[({"Y_1": -one}, Decimal("-0.9"))]]
    rings = [
        (square("0.5", "1", "-1", "1"), [[({"Y_0": one}, Decimal("0.499"))]]),
        (square("-1", "1", "-0.5", "-0.25"), [[({"Y_1": -one}, Decimal("-0.501"))]]),
    ]
    below = [[({"Y_0": one, "X_0": -one}, Decimal("-0.001"))]]
    return [
        Instance("toy", "toy_order", [(unit, above)], comment="min(|X_0|, |X_1|) above the max: never"),
        Instance("toy", "toy_corner", [(unit, corner)], comment="both |X_0| and |X_1| at least 0.9"),
        Instance("toy", "toy_boxes", rings, comment="input boxes inside the or"),
        Instance("toy", "toy_mixed", [(unit, below)], comment="inputs and outputs: max(|X_0|, |X_1|) < X_0"),
    ]


def digit_instances() -> list[Instance]:
    """Robustness of the trained networks."""
    return [
        robustness("mlp", "easy", 1501, "0.02"),
        robustness("mlp", "attack", 1501, "0.1"),
        robustness("mlp", "hard", 1502, "0.15", timeout=120),
        robustness("mlp", "confident", 1502, "0.2", "4.56", timeout=120),
        two_images("mlp", 1502, 1503, "0.05"),
        robustness("conv", "easy", 1502, "0.05"),
        robustness("conv", "attack", 1501, "0.1"),
        robustness("conv", "hard", 1502, "0.15", timeout=120),
        robustness("conv", "confident", 1502, "0.2", "4.32", timeout=120),
        robustness("residual", "easy", 1502, "0.05"),
        robustness("residual", "attack", 1501, "0.1"),
        robustness("residual", "hard", 1502, "0.16", timeout=120),
    ]


def two_images(net: str, first: int, second: int, eps: str) -> Instance:
    """Two robustness properties in one file, each with its box inside the `or`."""
    parts = [robustness(net, "either", index, eps) for index in (first, second)]
    comment = f"{parts[0].comment}; or {parts[1].comment}"
    options = [option for part in parts for option in part.options]
    return Instance(net, f"{net}_either_{first}_{second}", options, 60, comment)


def number(value: Decimal) -> str:
    """A decimal as VNN-LIB writes it."""
    text = format(value.normalize(), "f")
    return text if "." in text else f"{text}.0"


def row_text(row: Row) -> str:
    """A row as an atom, as simple as it gets."""
    terms, bound = row
    up = [v for v, c in terms.items() if c == 1]
    down = [v for v, c in terms.items() if c == -1]
    if len(terms) == 2 and len(up) == len(down) == 1 and bound == 0:
        return f"(>= {down[0]} {up[0]})"
    if len(terms) == 1 and down:
        return f"(>= {down[0]} {number(-bound)})"
    parts = [v if c == 1 else f"(* {number(c)} {v})" for v, c in terms.items()]
    return f"(<= {parts[0] if len(parts) == 1 else '(+ ' + ' '.join(parts) + ')'} {number(bound)})"


def box_text(box: Box) -> list[str]:
    """The atoms of a box."""
    sides = [(f"(>= X_{i} {number(low)})", f"(<= X_{i} {number(high)})") for i, (low, high) in enumerate(box)]
    return [text for pair in sides for text in pair]


def vnnlib(instance: Instance, inputs: int, outputs: int) -> str:
    """The property file."""
    lines = [f"; {instance.comment}", ""]
    lines += [f"(declare-const X_{i} Real)" for i in range(inputs)]
    lines += [f"(declare-const Y_{i} Real)" for i in range(outputs)]
    lines.append("")
    if len(instance.options) == 1:
        box, choices = instance.options[0]
        lines += [f"(assert {text})" for text in box_text(box)]
        if len(choices) == 1:
            lines += [f"(assert {row_text(row)})" for row in choices[0]]
        else:
            parts = [f"    (and {' '.join(map(row_text, rows))})" for rows in choices]
            lines += ["(assert (or", *parts, "))"]
    else:
        parts = [
            f"    (and {' '.join([*box_text(box), *map(row_text, rows)])})"
            for box, rows in instance.alternatives
        ]
        lines += ["(assert (or", *parts, "))"]
    return "\n".join([*lines, ""])


# Evidence for sat: gradient descent on the violation, replayed.


def form(row: Row, inputs: int, outputs: int) -> tuple[np.ndarray, float]:
    """Coefficients over inputs and outputs, and the bound, in float64."""
    coefficients = np.zeros(inputs + outputs)
    for name, factor in row[0].items():
        place = int(name[2:])
        coefficients[place if name[0] == "X" else inputs + place] = float(factor)
    return coefficients, float(row[1])


def inside(box: Box) -> tuple[np.ndarray, np.ndarray]:
    """The largest float32 box inside an exact one."""
    ends = []
    for place, direction in ((0, np.inf), (1, -np.inf)):
        side = [np.float32(float(pair[place])) for pair in box]
        for i, (value, pair) in enumerate(zip(side, box, strict=True)):
            outside = Decimal(float(value)) < pair[0] or Decimal(float(value)) > pair[1]
            side[i] = np.nextafter(value, np.float32(direction)) if outside else value
        ends.append(np.array(side, np.float32))
    return ends[0], ends[1]


def descend(net: Net, box: Box, rows: list[Row], rng: np.random.Generator) -> np.ndarray:
    """The best point of some sign-gradient descents on the largest row."""
    low, high = inside(box)
    parts = [form(row, net.inputs, net.outputs) for row in rows]
    matrix, bounds = np.array([p[0] for p in parts]), np.array([p[1] for p in parts])
    x = rng.uniform(low, high, (64, net.inputs))
    best, worst = x[0], np.inf
    for step in 0.5 * 0.93 ** np.arange(60):
        values = net.values(x)
        heights = np.concatenate([x, values[-1]], axis=1) @ matrix.T - bounds
        largest = heights.max(axis=1)
        if largest.min() < worst:
            best, worst = x[largest.argmin()], largest.min()
        seed = matrix[heights.argmax(axis=1)]
        slope = gradient(net, values, seed[:, net.inputs :]) + seed[:, : net.inputs]
        x = np.clip(x - step * (high - low) * np.sign(slope), low, high)
    return best


def gradient(net: Net, values: list[np.ndarray], seed: np.ndarray) -> np.ndarray:
    """Of `seed . output` at evaluated points."""
    pending = [np.zeros_like(v) for v in values]
    pending[-1] = seed
    for k in range(len(net.stages), 0, -1):
        stage, part = net.stages[k - 1], pending[k]
        part = part * (values[k] > 0) if stage.relu else part
        for source, matrix in stage.terms:
            pending[source] = pending[source] + part @ matrix
    return pending[0]


def replay(onnx: bytes, x: np.ndarray) -> np.ndarray:
    """What onnxruntime computes at one float32 point."""
    import onnxruntime  # noqa: PLC0415

    session = onnxruntime.InferenceSession(onnx, providers=["CPUExecutionProvider"])
    signature = session.get_inputs()[0]
    return session.run(None, {signature.name: x.astype(np.float32).reshape(signature.shape)})[0].reshape(-1)


def satisfied(box: Box, rows: list[Row], x: np.ndarray, y: np.ndarray) -> bool:
    """Exact truth of one alternative at float32 inputs and outputs."""
    values = {f"X_{i}": Fraction(float(v)) for i, v in enumerate(x)}
    values |= {f"Y_{i}": Fraction(float(v)) for i, v in enumerate(y)}
    within = all(Fraction(low) <= values[f"X_{i}"] <= Fraction(high) for i, (low, high) in enumerate(box))
    return within and all(
        sum(Fraction(c) * values[v] for v, c in terms.items()) <= Fraction(bound) for terms, bound in rows
    )


def find_point(net: Net, instance: Instance) -> np.ndarray | None:
    """A replayed counterexample, or None."""
    rng = np.random.default_rng(0)
    for box, rows in instance.alternatives:
        x = descend(net, box, rows, rng).astype(np.float32)
        if satisfied(box, rows, x, replay(net.onnx, x)):
            return x
    return None


# Evidence for unsat: a MILP.


class Milp:
    """A network on a box: columns for all values, big-M rows for unstable ReLUs."""

    def __init__(self, net: Net, box: Box) -> None:
        self.lower: list[float] = []
        self.upper: list[float] = []
        self.integer: list[int] = []
        self.rows: list[tuple[list[int], list[float], float, float]] = []
        self.values = [[self.column(float(low), float(high)) for low, high in box]]
        for depth, stage in enumerate(net.stages):
            columns = [self.affine(stage, i, depth > 0 and stage.relu) for i in range(len(stage.bias))]
            self.values.append([self.relu(z) for z in columns] if stage.relu else columns)

    def column(self, low: float, high: float, integer: int = 0) -> int:
        """Appends a variable."""
        self.lower.append(low)
        self.upper.append(high)
        self.integer.append(integer)
        return len(self.lower) - 1

    def affine(self, stage: Stage, i: int, tighten: bool) -> int:
        """Appends one element of a stage before its ReLU."""
        columns = [c for source, _ in stage.terms for c in self.values[source]]
        factors = np.concatenate([matrix[i] for _, matrix in stage.terms])
        ends = np.array([[self.lower[c], self.upper[c]] for c in columns]).T
        low = stage.bias[i] + np.minimum(factors * ends[0], factors * ends[1]).sum()
        high = stage.bias[i] + np.maximum(factors * ends[0], factors * ends[1]).sum()
        z = self.column(low - 1e-7, high + 1e-7)
        self.rows.append(([*columns, z], [*factors, -1.0], -stage.bias[i], -stage.bias[i]))
        if tighten and low < 0 < high:
            self.lower[z], self.upper[z] = self.end(z, 1), self.end(z, -1)
        return z

    def end(self, z: int, sign: int) -> float:
        """One end of a column by the LP relaxation, with a little slack."""
        cost = np.zeros(len(self.lower))
        cost[z] = sign
        answer = self.solve(cost, relaxed=True)
        return (self.lower if sign > 0 else self.upper)[z] if answer.x is None else answer.x[z] - sign * 1e-6

    def relu(self, z: int) -> int:
        """Appends a ReLU of a column."""
        low, high = self.lower[z], self.upper[z]
        if low >= 0:
            return z
        y = self.column(0.0, max(high, 0.0))
        if high > 0:
            phase = self.column(0, 1, 1)
            self.rows.append(([y, z], [1.0, -1.0], 0.0, np.inf))
            self.rows.append(([y, z, phase], [1.0, -1.0, -low], -np.inf, -low))
            self.rows.append(([y, phase], [1.0, -high], -np.inf, 0.0))
        return y

    def solve(self, cost: np.ndarray, relaxed: bool = False) -> Any:
        """Runs HiGHS."""
        place = [i for i, row in enumerate(self.rows) for _ in row[0]]
        columns = [c for row in self.rows for c in row[0]]
        factors = [f for row in self.rows for f in row[1]]
        matrix = sparse.csr_array((factors, (place, columns)), shape=(len(self.rows), len(self.lower)))
        ends = [row[2] for row in self.rows], [row[3] for row in self.rows]
        return optimize.milp(
            cost,
            integrality=np.zeros(len(self.lower)) if relaxed else np.array(self.integer),
            bounds=optimize.Bounds(np.array(self.lower), np.array(self.upper)),
            constraints=optimize.LinearConstraint(matrix, *ends),
        )

    def excludes(self, rows: list[Row]) -> bool:
        """Whether no point satisfies the rows, each relaxed by `MARGIN`."""
        kept = len(self.rows)
        for terms, bound in rows:
            columns = [self.values[0 if name[0] == "X" else -1][int(name[2:])] for name in terms]
            factors = [float(c) for c in terms.values()]
            self.rows.append((columns, factors, -np.inf, float(bound) + MARGIN))
        answer = self.solve(np.zeros(len(self.lower)))
        del self.rows[kept:]
        return answer.status == 2


def refuted(net: Net, instance: Instance) -> bool:
    """Whether the MILP excludes every alternative."""
    return all(_refuted(net, box, choices) for box, choices in instance.options)


def _refuted(net: Net, box: Box, choices: list[list[Row]]) -> bool:
    model = Milp(net, box)
    return all(model.excludes(rows) for rows in choices)


# The folder.


def evidence(net: Net, instance: Instance) -> tuple[str, str]:
    """Verdict and what it rests on.

    Raises:
        RuntimeError: There is no evidence for either verdict.
    """
    point = find_point(net, instance)
    if point is not None:
        return "sat", "point " + " ".join(repr(float(v)) for v in point)
    if refuted(net, instance):
        return "unsat", f"milp, every threshold relaxed by {MARGIN}"
    raise RuntimeError(f"{instance.name}: no point found, not refuted")


def check_unrolling(net: Net) -> None:
    """The dense stages compute what onnxruntime computes.

    Raises:
        RuntimeError: They don't.
    """
    x = np.random.default_rng(1).uniform(0, 1, (20, net.inputs)).astype(np.float32)
    ours = net.values(wide(x))[-1]
    for point, expected in zip(x, ours, strict=True):
        if not np.allclose(replay(net.onnx, point), expected, atol=1e-4):
            raise RuntimeError(f"{net.name}: the unrolled network differs")


def write_table(path: Path, rows: Sequence[Sequence[object]]) -> None:
    """A CSV file with Unix line ends."""
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, lineterminator="\n").writerows(rows)


def main(folder: Path) -> None:
    """Writes everything."""
    for part in ("onnx", "vnnlib"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    nets = {name: make() for name, make in NETS.items()}
    for name, net in nets.items():
        check_unrolling(net)
        (folder / "onnx" / f"{name}.onnx").write_bytes(net.onnx)
    instances = [*toy_instances(), *digit_instances()]
    runs: list[Sequence[object]] = []
    expected: list[Sequence[object]] = [("onnx", "vnnlib", "verdict", "evidence")]
    with ProcessPoolExecutor(2, get_context("spawn")) as pool:
        verdicts = list(pool.map(evidence, [nets[i.net] for i in instances], instances))
    for instance, (verdict, reason) in zip(instances, verdicts, strict=True):
        net = nets[instance.net]
        files = f"onnx/{net.name}.onnx", f"vnnlib/{instance.name}.vnnlib"
        (folder / files[1]).write_text(vnnlib(instance, net.inputs, net.outputs), encoding="utf-8")
        print(f"{instance.name}: {verdict}")
        runs.append((*files, instance.timeout))
        expected.append((*files, verdict, reason))
    write_table(folder / "instances.csv", runs)
    write_table(folder / "expected.csv", expected)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent)
