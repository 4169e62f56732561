"""Reduced networks against the whole ones over the rationals: every error is inside the offsets' errors."""

from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np
import pytest
from enumeration import Exact, Values, dense_network, exact, points_of, random_graph, random_layers
from onnx import TensorProto, helper, numpy_helper

from lpverify.bounds.evaluate import Arithmetic, double_precision, to_numpy
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.reduce import Reduced, reduce, reduce_again
from lpverify.interval import Box
from lpverify.io.onnx import import_model
from lpverify.multipliers import Effort
from lpverify.network import Network, Node
from lpverify.ops.activations import Sigmoid
from lpverify.ops.bilinear import Multiply
from lpverify.ops.elementary import Square
from lpverify.ops.linear import Linear
from lpverify.ops.piecewise import Relu
from lpverify.ops.shape import Gather
from lpverify.problem import Problem
from lpverify.search.engines import numpy_float32, torch_float32

ARITHMETICS: dict[str, Callable[[Problem], Arithmetic]] = {
    "double": double_precision,
    "numpy32": lambda problem: numpy_float32(problem, 2**14),
    "torch32": lambda problem: torch_float32(problem, 2**14),
}
EFFORTS = (Effort("crown"), Effort("crown", ascent=3), Effort("crown", budget=3e3))
SIZES = (1e-6, 1e-3, 1.0, 1e3, 1e6)
WILD = (1e-320, 1e-200, 1e-150, 1e-40, 1e-31, 1e-20, 1.0, 1.0, 1.0, 1e20, 1e40, 1e150)


# Networks.


def random_network(rng: np.random.Generator, sizes: Sequence[float]) -> Network:
    """Sums, scales, constants and elements moved about, between layers and ReLUs."""
    while True:
        network = random_graph(rng, (), sizes)
        ops = [type(node.op) for node in network.nodes]
        if not {Multiply, Square} & set(ops) and (Relu in ops or rng.random() < 0.1):
            return network


def random_box(rng: np.random.Generator, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Around whole and half numbers and far from zero; points, one ulp, thin and wide sides."""
    centre = rng.choice([0.0, 1.0, 0.5, 0.1, 1e6, 1e-310], size) * rng.choice([1, -1], size)
    radius = rng.choice(
        [0.0, 5e-324, 1e-16, 1e-9, 0.5, 1.0, 1e3], size, p=[0.1, 0.05, 0.05, 0.1, 0.3, 0.3, 0.1]
    )
    lower, upper = centre - radius, centre + radius
    ulp = rng.random(size) < 0.1
    return lower, np.where(ulp, np.nextafter(lower, np.inf), upper)


def pictured(seed: int) -> Network:
    """Convolutions with strides and pads, a sum with a shortcut, pools of both kinds."""
    rng, tensors, nodes = np.random.default_rng(seed), [], []
    scale = 10.0 ** rng.choice([-6, 0, 0, 6])

    def node(op: str, inputs: Sequence[str], **attributes: object) -> str:
        nodes.append(helper.make_node(op, list(inputs), [f"v{len(nodes)}"], **attributes))
        return f"v{len(nodes) - 1}"

    def constant(*shape: int) -> str:
        array = rng.normal(size=shape) * scale * rng.choice([1, 1, 0], size=shape)
        tensors.append(numpy_helper.from_array(array.astype(np.float32), f"c{len(tensors)}"))
        return f"c{len(tensors) - 1}"

    def conv(value: str, inputs: int, outputs: int, kernel: int, **attributes: object) -> str:
        return node(
            "Conv", (value, constant(outputs, inputs, kernel, kernel), constant(outputs)), **attributes
        )

    first = node("Relu", [conv("x", 1, 2, 3, strides=[1, 1], pads=[1, 1, 1, 1])])
    second = conv(first, 2, 2, 2, strides=[1, 1], pads=[0, 1, 1, 0])
    both = node("Add", [second, first]) if seed % 2 else node("Sub", [first, second])
    kind = ("MaxPool", "AveragePool")[seed // 2 % 2]
    pooled = node(kind, [both], kernel_shape=[2, 2], strides=[2, 1], pads=[0, 0, 0, 1])
    third = node("Relu", [conv(pooled, 2, 2, 2, strides=[2, 2], pads=[1, 0, 0, 1])])
    node("Gemm", [node("Flatten", [third]), constant(2 * 2, 2), constant(2)])
    ends = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 4, 4])]
    ends.append(helper.make_tensor_value_info(f"v{len(nodes) - 1}", TensorProto.FLOAT, None))
    graph = helper.make_graph(nodes, "g", ends[:1], ends[1:], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    return import_model(model.SerializeToString()).network


# Checks.


def problem_of(network: Network) -> Problem:
    return Problem(network, (), None)


def arithmetic_of(network: Network, kind: str) -> Arithmetic:
    with np.errstate(over="ignore"):
        return ARITHMETICS[kind](problem_of(network))


def box_of(arithmetic: Arithmetic, lower: np.ndarray, upper: np.ndarray) -> Box:
    return arithmetic.box(lower[None], upper[None])


def numbers(array: object) -> np.ndarray:
    return np.asarray(to_numpy(array), np.float64)


def assert_within(op: Linear, symbols: np.ndarray, wanted: np.ndarray) -> None:
    """`W v + b` is the number that is wanted, up to the errors that the op admits."""
    error = np.zeros(len(wanted)) if op.offset_error is None else numbers(op.offset_error)
    weight, offset = numbers(op.weight), numbers(op.offset)
    for i in np.flatnonzero(error < np.inf):  # NaN and infinity admit all numbers
        row = exact(weight[i])
        lost = Fraction(op.weight_error) * sum((abs(p) for p in row * symbols), Fraction(0))
        value = sum(row * symbols, Fraction(float(offset[i])))
        assert abs(value - wanted[i]) <= Fraction(float(error[i])) + lost, f"element {i}"


def assert_inside(low: object, high: object, wanted: np.ndarray) -> None:
    for a, b, value in zip(numbers(low).reshape(-1), numbers(high).reshape(-1), wanted, strict=True):
        assert (a == -np.inf or Fraction(float(a)) <= value) and (b == np.inf or value <= Fraction(float(b)))


def assert_same(network: Network, reduced: Reduced, values: Values) -> None:
    """The reduced network, given the exact symbols, has the whole network's values."""
    converted = zip(reduced.arithmetic.reference.nodes, reduced.arithmetic.network.nodes, strict=True)
    for wide, narrow in converted:
        if isinstance(wide.op, Linear):  # offsets and their errors are taken from the former alone
            assert (numbers(wide.op.weight) == numbers(narrow.op.weight)).all()
    for variant in (reduced.problem.network, reduced.arithmetic.reference):
        symbols, place = values[0], 1
        if isinstance(variant.nodes[1].op, Gather):
            symbols, place = symbols[list(variant.nodes[1].op.indices)], 2
        for node in network.nodes[1:]:
            kept = reduced.kept[node.inputs[0]] if isinstance(node.op, Relu) else ()
            if len(kept):
                wanted = values[node.inputs[0]][kept]
                assert_within(variant.nodes[place].op, symbols, wanted)
                assert_inside(*reduced.known[place], wanted)
                assert isinstance(variant.nodes[place + 1].op, Relu)
                symbols, place = np.concatenate([symbols, np.maximum(wanted, 0)]), place + 3
        assert place == len(variant.nodes) - 1 == variant.output
        assert_within(variant.nodes[place].op, symbols, values[network.output])


def assert_stable(network: Network, reduced: Reduced, values: Values) -> None:
    """The boxes hold, and neurons that are gone are linear on them."""
    operands = {n.inputs[0] for n in network.nodes if isinstance(n.op, Relu)}
    assert set(reduced.kept) == set(reduced.boxes) == operands
    for value, kept in reduced.kept.items():
        low, high = (
            numbers(end).reshape(-1) for end in (reduced.boxes[value].lower, reduced.boxes[value].upper)
        )
        assert_inside(low, high, values[value])
        gone = np.delete(np.arange(len(low)), kept)
        assert ((low[gone] >= 0) | (high[gone] <= 0)).all()


def assert_right(
    network: Network, lower: np.ndarray, upper: np.ndarray, reduced: Reduced, seed: int, points: int = 5
) -> None:
    assert not reduced.empty
    rng = np.random.default_rng(seed)
    truth = Exact(network, rng=rng)
    for x in points_of(lower, upper, rng, points):
        values = truth.values(x)
        assert_stable(network, reduced, values)
        assert_same(network, reduced, values)


@pytest.mark.parametrize("kind", ARITHMETICS)
@pytest.mark.parametrize("sizes", [SIZES, WILD, (1.0,)], ids=["scaled", "wild", "plain"])
def test_reduced_networks_are_right(sizes: Sequence[float], kind: str) -> None:
    """With every effort; what can't be reduced must have numbers beyond all."""
    found = 0
    for seed in range(40):
        rng = np.random.default_rng(seed)
        network = random_network(rng, sizes)
        lower, upper = random_box(rng, network.input_size)
        arithmetic = arithmetic_of(network, kind)
        box, effort = box_of(arithmetic, lower, upper), EFFORTS[seed % len(EFFORTS)]
        reduced = reduce(problem_of(network), arithmetic, box, effort)
        if reduced is None:
            assert sizes is WILD or effort.budget < 1e4
            continue
        assert_right(network, lower, upper, reduced, seed)
        found += sum(map(len, reduced.kept.values()))
    assert found > 40


@pytest.mark.parametrize("kind", ARITHMETICS)
@pytest.mark.parametrize("seed", range(4))
def test_reduced_pictures_are_right(seed: int, kind: str) -> None:
    network, rng = pictured(seed), np.random.default_rng(seed)
    centre, radius = rng.normal(size=16).astype(np.float32), rng.choice([0.0, 0.01, 1.0], 16)
    lower, upper = centre - radius, centre + radius
    arithmetic = arithmetic_of(network, kind)
    reduced = reduce(problem_of(network), arithmetic, box_of(arithmetic, lower, upper), EFFORTS[seed % 2])
    assert_right(network, lower, upper, reduced, seed, points=2)
    assert (
        5
        < sum(map(len, reduced.kept.values()))
        < sum(b.lower.reshape(-1).shape[0] for b in reduced.boxes.values())
    )


def float_hull(values: Sequence[Fraction]) -> tuple[float, float]:
    """The tightest floats around some numbers."""
    low, high = min(values), max(values)
    below, above = float(low), float(high)
    return (
        np.nextafter(below, -np.inf) if Fraction(below) > low else below,
        np.nextafter(above, np.inf) if Fraction(above) < high else above,
    )


def first_ranges(network: Network, lower: np.ndarray, upper: np.ndarray) -> dict[int, Box]:
    """The exact ranges of affine functions of the inputs, to the ulp; not with inexact weights."""
    found = {}
    for k, node in enumerate(network.nodes):
        if node.inputs != (0,) or not isinstance(node.op, Linear) or node.op.weight_error:
            continue
        ends = []
        for row, offset in zip(exact(node.op.weight), exact(node.op.offset), strict=True):
            low, high = (np.where(row > 0, a, b) for a, b in ((lower, upper), (upper, lower)))
            ends.append(float_hull([sum(row * exact(end), offset) for end in (low, high)]))
        found[k] = Box(*(np.array([[e[i] for e in ends]]) for i in (0, 1)))
    return found


@pytest.mark.parametrize("kind", ARITHMETICS)
def test_hints_are_used_and_stay_right(kind: str) -> None:
    """Exact ranges of first layers, and what earlier reductions found: boxes only get smaller."""
    hinted = 0
    for seed in range(30):
        rng = np.random.default_rng(1000 + seed)
        network = random_network(rng, SIZES) if seed % 2 else dense_network(random_layers(rng, (3, 4, 4, 2)))
        lower, upper = random_box(rng, network.input_size)
        arithmetic, hints = arithmetic_of(network, kind), first_ranges(network, lower, upper)
        known = {k: arithmetic.box(b.lower[0], b.upper[0]) for k, b in hints.items()}
        known = {k: Box(b.lower[None], b.upper[None]) for k, b in known.items()}
        args = (problem_of(network), arithmetic, box_of(arithmetic, lower, upper))
        plain, reduced = reduce(*args, Effort("crown")), reduce(*args, Effort("crown"), known)
        assert_right(network, lower, upper, reduced, seed, points=3)
        for k in hints.keys() & reduced.boxes.keys():
            hinted += 1
            low, high = (numbers(end) for end in (reduced.boxes[k].lower, reduced.boxes[k].upper))
            assert (low >= hints[k].lower).all() and (high <= hints[k].upper).all()
        again = reduce_again(*args, (Effort("crown"), Effort("crown", ascent=2)))
        assert_right(network, lower, upper, again, seed, points=3)
        for k, box in again.boxes.items():
            assert (numbers(box.lower) >= numbers(plain.boxes[k].lower)).all()
            assert (numbers(box.upper) <= numbers(plain.boxes[k].upper)).all()
    assert hinted > 10


def test_bounds_through_the_reduced_network_are_tight() -> None:
    """Of stacked layers they beat intervals; ascent helps, and without a budget there is nothing."""
    widths = {}
    for seed in range(10):
        rng = np.random.default_rng(seed)
        layers = [(rng.normal(size=(8, 8)), rng.normal(size=8)) for _ in range(4)]
        network = dense_network(layers)
        arithmetic = arithmetic_of(network, "double")
        box = Box(np.full((1, 8), -0.1), np.full((1, 8), 0.1))
        interval = propagate(network, Region(box), Effort("ibp"), 2**20).boxes[5]
        for effort in EFFORTS[:2]:
            found = reduce(problem_of(network), arithmetic, box, effort).boxes[5]
            widths[effort] = widths.get(effort, 0.0) + (found.upper - found.lower).sum()
        widths["ibp"] = widths.get("ibp", 0.0) + (interval.upper - interval.lower).sum()
        assert reduce(problem_of(network), arithmetic, box, Effort("crown", budget=100.0)) is None
    plain, ascended = (widths[e] for e in EFFORTS[:2])
    assert ascended < plain < widths["ibp"]


def chain(*numbers_: float) -> Network:
    """Products one after the other."""
    nodes = [Node(None, (), (1,))]
    nodes += [Node(Linear(np.array([[w]]), np.zeros(1)), (i,), (1,)) for i, w in enumerate(numbers_)]
    return Network(tuple(nodes), len(numbers_))


@pytest.mark.parametrize(
    ("weights", "low", "high"),
    [
        ((1e-100, 1e-250), 1e200, 3e200),
        ((1e-165, 1e-165), 0.0, 1e300),
        ((2.0**-149,) * 6 + (2.0**-181,), 0.0, 3e38),
        ((1e-31,), 0.0, 1e31),  # below what single precision keeps, and not small at all
        ((1e-29, 1e29), -1e30, 1e30),
        ((1e-31, 1e-8), -5e-324, 5e-324),
    ],
)
@pytest.mark.parametrize("kind", ARITHMETICS)
def test_products_that_vanish_count(weights: tuple[float, ...], low: float, high: float, kind: str) -> None:
    network, lower, upper = chain(*weights), np.array([low]), np.array([high])
    arithmetic = arithmetic_of(network, kind)
    reduced = reduce(problem_of(network), arithmetic, box_of(arithmetic, lower, upper), Effort("crown"))
    assert_right(network, lower, upper, reduced, 0)


def test_neurons_on_their_kink() -> None:
    """Zero at a corner of the box, exactly or but for the last bit; on both sides, in both layers."""
    for eps in (0.0, 2.0**-52, -(2.0**-52), 5e-324, -5e-324):
        weight = np.array([[1.0, 1.0], [-1.0, -1.0], [1.0, 0.0], [0.0, -1.0], [0.1, 0.2]])
        bias = np.array([2.0 + eps, 2.0 + eps, -1.0, -1.0 + eps, 0.3])
        second = np.array([[1.0, 0, 0, 0, -1], [0, -1.0, 1, 1, 0]])
        network = dense_network(
            [(weight, bias), (second, np.array([-4.0 - eps, eps])), (np.ones((1, 2)), np.zeros(1))]
        )
        lower, upper = np.full(2, -1.0), np.ones(2)
        for kind in ARITHMETICS:
            arithmetic = arithmetic_of(network, kind)
            for effort in EFFORTS[:2]:
                reduced = reduce(problem_of(network), arithmetic, box_of(arithmetic, lower, upper), effort)
                assert_right(network, lower, upper, reduced, 0, points=12)


# What can't be reduced.


def unit_box(size: int) -> Box:
    return Box(np.full((1, size), -1.0), np.ones((1, size)))


@pytest.mark.parametrize("op", [Square(), Sigmoid()])
def test_other_nodes_are_refused(op: object) -> None:
    layers = dense_network([(np.ones((2, 2)), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))]).nodes
    network = Network((layers[0], layers[1], Node(op, (1,), (2,)), layers[3]), 3)
    assert reduce(problem_of(network), arithmetic_of(network, "double"), unit_box(2), Effort("crown")) is None


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf, 1e308])
@pytest.mark.parametrize("place", ["weight", "offset"])
def test_undefined_numbers_are_refused(wrong: float, place: str) -> None:
    layers = [(np.ones((2, 2)), np.zeros(2)), (np.ones((2, 2)), np.zeros(2)), (np.ones((1, 2)), np.zeros(1))]
    layers[1][place == "offset"][...] = wrong
    layers[2][0][...] = 1e10
    network = dense_network(layers)
    assert reduce(problem_of(network), arithmetic_of(network, "double"), unit_box(2), Effort("crown")) is None


@pytest.mark.parametrize("kind", ["numpy32", "torch32"])
def test_what_overflows_in_single_precision_proves_nothing(kind: str) -> None:
    """Rows whose product is beyond float32: no reduction, or one that is right."""
    network = dense_network([(np.full((3, 2), 1e30), np.zeros(3)), (np.full((2, 3), 1e30), np.zeros(2))])
    arithmetic = arithmetic_of(network, kind)
    for low in (-1.0, 0.5):
        lower, upper = np.full(2, low), np.ones(2)
        reduced = reduce(problem_of(network), arithmetic, box_of(arithmetic, lower, upper), Effort("crown"))
        if reduced is not None:
            assert_right(network, lower, upper, reduced, 0)


def stacked(seed: int = 0) -> tuple[Network, Box]:
    rng = np.random.default_rng(seed)
    return dense_network([(rng.normal(size=(5, 5)), rng.normal(size=5)) for _ in range(3)]), unit_box(5)


def test_elements_that_have_to_remain() -> None:
    """All unstable ones: else nothing. More than those, twice, or such as there are not: no harm."""
    network, box = stacked()
    args = (problem_of(network), arithmetic_of(network, "double"), box, Effort("crown"))
    plain = reduce(*args)
    assert len(plain.kept[1]) > 1 and len(plain.kept[3]) > 1
    for value in (1, 3):
        for missing in range(len(plain.kept[value])):
            kept = {**plain.kept, value: np.delete(plain.kept[value], missing)}
            assert reduce(*args, kept=kept) is None
            assert reduce_again(*args[:3], (Effort("crown"), Effort("crown")), kept) is None
    assert reduce(*args, kept={}) is None
    odd = {k: np.array([99, -1, -5, 10**12, *v, *v[::-1]]) for k, v in plain.kept.items()}
    for kept in (plain.kept, odd, {**odd, 77: np.arange(3)}):
        again = reduce(*args, kept=kept)
        assert {k: v.tolist() for k, v in again.kept.items()} == {
            k: v.tolist() for k, v in plain.kept.items()
        }
        assert_right(network, box.lower[0], box.upper[0], again, 0)
    everything = reduce(*args, kept={1: np.arange(5), 3: range(5)})
    assert [len(everything.kept[k]) for k in (1, 3)] == [5, 5]
    assert_right(network, box.lower[0], box.upper[0], everything, 0)


def test_regions_without_points_are_empty() -> None:
    network, box = stacked()
    arithmetic, effort = arithmetic_of(network, "double"), Effort("crown")
    plain = reduce(problem_of(network), arithmetic, box, effort)
    for k in plain.boxes:
        impossible = {k: Box(plain.boxes[k].upper + 1e3, plain.boxes[k].upper + 1e4)}
        assert reduce(problem_of(network), arithmetic, box, effort, impossible).empty
    assert reduce_again(problem_of(network), arithmetic, box, ()) is None
