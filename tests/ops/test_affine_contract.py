"""The contract of every affine op, against exact rational arithmetic on small instances: no tolerance.

An op's matrix is read off by applying it to unit vectors, which rounds nothing. `_SAMPLES` makes
instances from a random generator that draws weights of all magnitudes, some of them cancelling; a
concrete subclass of `AffineOp` without a sample fails `test_every_affine_op_has_a_sample`.
"""

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from fractions import Fraction
from math import prod

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import lpverify.ops
from lpverify.bounds.linear import backward, centre_value
from lpverify.bounds.propagate import Region, propagate
from lpverify.interval import Array, Box, gamma, tiny
from lpverify.kernels.convolution import Window
from lpverify.multipliers import Effort
from lpverify.network import Network, Node
from lpverify.ops.base import AffineOp
from lpverify.ops.convolution import Conv
from lpverify.ops.indicators import Known
from lpverify.ops.linear import Combine, Linear, MatMulConstant, Scale, SparseLinear, Sum
from lpverify.ops.resample import AxisMap
from lpverify.ops.shape import (
    Broadcast,
    Concat,
    ConstantValue,
    Gather,
    Pad,
    Reshape,
    Slice,
    Transpose,
)
from lpverify.ops.transposed import ConvTranspose

UNIT = 2.0**-53


class Draw:
    """A source of floats around a magnitude."""

    def __init__(self, seed: int, exponent: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.magnitude = 10.0**exponent

    def __call__(self, *shape: int) -> np.ndarray:
        """Numbers of similar or very different size, zeros, and pairs that nearly cancel."""
        size = prod(shape)
        array = self.rng.normal(size=size) * self.magnitude
        array *= self.rng.choice([1.0, 1.0, 1.0, 0.0, 1e-9, 2.0**-24], size=size)
        pairs = self.rng.random(size // 2) < 0.4
        array[: 2 * len(pairs) : 2] = np.where(
            pairs, -array[1::2][: len(pairs)] * (1 + 2.0**-40), array[: 2 * len(pairs) : 2]
        )
        return np.asarray(array.reshape(shape))

    def box(self, *shape: int) -> Box:
        """Points, boxes of a few ulp, thin and wide boxes, element by element."""
        lower = self(*shape)
        width = np.abs(self(*shape)) * self.rng.choice([0.0, 1e-16, 1e-12, 1.0], size=shape)
        return Box(lower, np.maximum(lower + width, lower))


@dataclass(frozen=True)
class Sample:
    """How to make an op, and the shapes of its operands."""

    make: Callable[[Draw], AffineOp]
    shapes: tuple[tuple[int, ...], ...]


WINDOW = Window((2, 2), (2, 1), (1, 2), (1, 0), (0, 1))
LINE = Window((3,), (2,), (1,), (1,), (1,))


def _padded(draw: Draw) -> Pad:
    return Pad((0, 1), (2, 0), (2, 3)).filled(float(draw(1)[0]), 2.0**-30)


def _axis_map(draw: Draw) -> AxisMap:
    weight = draw(4, 3)
    return AxisMap(weight, 1, (3, 4), 2.0**-52)


def _sparse(draw: Draw) -> SparseLinear:
    from scipy import sparse

    return SparseLinear(sparse.csr_array(draw(4, 6)), draw(4), 2.0**-40)


def _copying(draw: Draw, offset: bool, error: bool) -> Linear:
    """Rows that copy an element, its negative, or that only look like it."""
    weight = np.zeros((6, 4))
    weight[0, 2], weight[1, 0], weight[2, 3], weight[4, 1] = 1.0, -1.0, 1.0 + 2.0**-52, -1.0
    weight[5] = draw(4)
    errors = np.abs(draw(6)) * draw.rng.integers(0, 2, 6) if error else None
    return Linear(weight, draw(6) if offset else None, 0.0, errors)


def _signs(draw: Draw, error: float, offset: bool) -> Scale:
    weight = draw.rng.choice([1.0, -1.0, 0.0, 0.5, -3.0, 1.0 - 2.0**-53], size=(3, 2))
    return Scale(weight, draw(2) if offset else None, error, np.abs(draw(3, 1)))


_SAMPLES: dict[str, Sample] = {
    "Linear, copies": Sample(lambda d: _copying(d, False, False), ((2, 4),)),
    "Linear, copies and offset": Sample(lambda d: _copying(d, True, False), ((4,),)),
    "Linear, copies and errors": Sample(lambda d: _copying(d, True, True), ((4,),)),
    "Linear, copies and errors alone": Sample(lambda d: _copying(d, False, True), ((4,),)),
    "Scale, signs": Sample(lambda d: _signs(d, 0.0, False), ((3, 2),)),
    "Scale, signs and offset": Sample(lambda d: _signs(d, 0.0, True), ((3, 2),)),
    "Scale, signs and errors": Sample(lambda d: _signs(d, 2.0**-52, True), ((3, 2),)),
    "Scale, large error": Sample(lambda d: Scale(d(3, 2), None, 0.4), ((3, 2),)),
    "Linear": Sample(lambda d: Linear(d(3, 8), d(3)), ((8,),)),
    "Linear, inexact": Sample(lambda d: Linear(d(3, 4), d(3), 2.0**-24, np.abs(d(3))), ((2, 4),)),
    "SparseLinear": Sample(_sparse, ((6,),)),
    "MatMulConstant, right": Sample(lambda d: MatMulConstant(d(2, 3, 2), False, (2, 2, 3)), ((2, 2, 3),)),
    "MatMulConstant, left": Sample(lambda d: MatMulConstant(d(2, 5), True, (5, 2), 1e-9), ((5, 2),)),
    "Scale": Sample(lambda d: Scale(d(3, 1), d(2), 2.0**-52, np.abs(d(2))), ((3, 2),)),
    "Scale, scalar": Sample(lambda d: Scale(d(1).reshape(())), ((4,),)),
    "Combine": Sample(lambda d: Combine((1, -1, 1)), ((5,), (5,), (5,))),
    "Combine, negation": Sample(lambda d: Combine((-1,)), ((5,),)),
    "Sum": Sample(lambda d: Sum((0, 2), (2, 2, 3)), ((2, 2, 3),)),
    "ConstantValue": Sample(lambda d: ConstantValue(d(2, 3)), ()),
    "ConstantValue, inexact": Sample(lambda d: ConstantValue(d(4), np.abs(d(4))), ()),
    "Reshape": Sample(lambda d: Reshape((3, 2), (2, 3)), ((2, 3),)),
    "Transpose": Sample(lambda d: Transpose((2, 0, 1)), ((2, 3, 2),)),
    "Slice": Sample(lambda d: Slice((1, 0), (2, 1), (2, 2), (5, 3)), ((5, 3),)),
    "Gather": Sample(lambda d: Gather((2, 0, 0), 1, (2, 3)), ((2, 3),)),
    "Gather, often": Sample(lambda d: Gather((1, 1, 1, 0, 1, 1), 0, (2,)), ((2,),)),
    "Concat": Sample(lambda d: Concat(1, (2, 1)), ((2, 2), (2, 1))),
    "Pad": Sample(lambda d: Pad((0, 1), (2, 0), (2, 3)), ((2, 3),)),
    "Pad, filled": Sample(_padded, ((2, 3),)),
    "Broadcast": Sample(lambda d: Broadcast((3, 2, 2), (1, 2, 1)), ((1, 2, 1),)),
    "Conv": Sample(lambda d: Conv(d(3, 2, 2, 2), WINDOW, 1, (1, 2, 3, 3), d(3, 1, 1)), ((1, 2, 3, 3),)),
    "Conv, groups": Sample(lambda d: Conv(d(4, 1, 3), LINE, 2, (2, 2, 4), None, 2.0**-24), ((2, 2, 4),)),
    "ConvTranspose": Sample(
        lambda d: ConvTranspose(d(2, 3, 2, 2), WINDOW, 1, (1, 2, 2, 2), (3, 3)), ((1, 2, 2, 2),)
    ),
    "ConvTranspose, groups": Sample(
        lambda d: ConvTranspose(d(4, 1, 3), LINE, 2, (1, 4, 3), (5,), 2.0**-52), ((1, 4, 3),)
    ),
    "Known": Sample(lambda d: Known(-1e99, 1e99), ((2, 3),)),
    "AxisMap": Sample(_axis_map, ((2, 3, 2),)),
}

samples = pytest.mark.parametrize("name", list(_SAMPLES))
seeds = st.integers(0, 2**32 - 1)
exponents = st.sampled_from([-30, -12, -1, 0, 3, 12, 30])
contract = settings(max_examples=25, deadline=None)


def _subclasses(base: type) -> Iterator[type]:
    for subclass in base.__subclasses__():
        yield subclass
        yield from _subclasses(subclass)


def _batched(op: AffineOp, name: str, *xs: np.ndarray) -> np.ndarray:
    return np.asarray(getattr(op, name)(*xs))


def _units(shape: tuple[int, ...]) -> np.ndarray:
    return np.eye(prod(shape)).reshape(-1, *shape)


def _matrices(op: AffineOp, shapes: tuple[tuple[int, ...], ...], name: str = "linear") -> list[np.ndarray]:
    """The op's matrix for each operand, `(out, in)`; exact, as each element is one product with 1."""
    result = []
    for i, shape in enumerate(shapes):
        zeros = [np.zeros((prod(shape), *other)) for other in shapes]
        columns = _batched(op, name, *zeros[:i], _units(shape), *zeros[i + 1 :])
        result.append(columns.reshape(prod(shape), -1).T)
    return result


def _exact(array: np.ndarray) -> np.ndarray:
    """The same numbers as rationals."""
    return np.array([Fraction(float(v)) for v in array.reshape(-1)], object).reshape(array.shape)


def _result_shape(op: AffineOp, shapes: tuple[tuple[int, ...], ...]) -> tuple[int, ...]:
    return tuple(op.forward(*(np.zeros((1, *shape)) for shape in shapes)).shape[1:])


def _flat(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    return np.broadcast_to(array, shape).reshape(-1)


@dataclass(frozen=True)
class Exact:
    """One of the exact ops that an op with errors stands for: matrices and offset in rationals."""

    matrices: list[np.ndarray]
    offset: np.ndarray

    @classmethod
    def near(cls, op: AffineOp, shapes: tuple[tuple[int, ...], ...], rng: np.random.Generator) -> "Exact":
        """Errors of the weights and the offset at their limits."""
        error = Fraction(float(op.weight_error))
        out = _result_shape(op, shapes)
        matrices = [
            _exact(w) * (1 + error * rng.integers(-1, 2, w.shape).astype(object))
            for w in _matrices(op, shapes)
        ]
        offset = _exact(_flat(np.zeros(()) if op.offset is None else op.offset, out))
        if op.offset_error is not None:
            offset = offset + _exact(_flat(op.offset_error, out)) * rng.integers(-1, 2, offset.shape)
        return cls(matrices, offset)

    def range(self, boxes: list[Box], rows: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """The smallest and the largest value of each element, or of rows of elements, over the boxes."""
        low = high = self.offset if rows is None else rows @ self.offset
        for matrix, box in zip(self.matrices, boxes, strict=True):
            matrix = matrix if rows is None else rows @ matrix
            positive, negative = np.maximum(matrix, 0), np.minimum(matrix, 0)
            lower, upper = _exact(box.lower.reshape(-1)), _exact(box.upper.reshape(-1))
            low = low + positive @ lower + negative @ upper
            high = high + positive @ upper + negative @ lower
        return low, high


def _boxes(draw: Draw, sample: Sample) -> list[Box]:
    return [draw.box(*shape) for shape in sample.shapes]


def _batch(box: Box) -> Box:
    return Box(box.lower[None], box.upper[None])


def test_every_affine_op_has_a_sample() -> None:
    for module in pkgutil.iter_modules(lpverify.ops.__path__):
        importlib.import_module(f"lpverify.ops.{module.name}")
    ours = {c for c in _subclasses(AffineOp) if c.__module__.startswith("lpverify.")}
    sampled = {type(sample.make(Draw(0, 0))) for sample in _SAMPLES.values()}
    assert {c for c in ours if not inspect.isabstract(c)} <= sampled


@samples
@given(seed=seeds, exponent=exponents)
@contract
def test_absolute_map_and_adjoint_have_the_matrix_of_the_map(name: str, seed: int, exponent: int) -> None:
    sample = _SAMPLES[name]
    op = sample.make(Draw(seed, exponent))
    matrices = _matrices(op, sample.shapes)
    for matrix, absolute in zip(matrices, _matrices(op, sample.shapes, "abs_linear"), strict=True):
        np.testing.assert_array_equal(absolute, np.abs(matrix))
    rows = op.adjoint(_units(_result_shape(op, sample.shapes)))
    for matrix, part, shape in zip(matrices, rows, sample.shapes, strict=True):
        assert part.shape[1:] == shape
        np.testing.assert_array_equal(part.reshape(matrix.shape), matrix)


@samples
@given(seed=seeds, exponent=exponents)
@contract
def test_rounding_is_within_the_declared_number_of_terms(name: str, seed: int, exponent: int) -> None:
    sample, draw = _SAMPLES[name], Draw(seed, exponent)
    op = sample.make(draw)
    xs = [draw(*shape) for shape in sample.shapes]
    a = draw(*_result_shape(op, sample.shapes))
    matrices = _matrices(op, sample.shapes)
    pairs = [(op.linear(*(x[None] for x in xs))[0], matrices, xs)]
    parts = op.adjoint(a[None])
    pairs += [(part[0], [matrix.T], [a]) for part, matrix in zip(parts, matrices, strict=True)]
    for (computed, maps, operands), terms in zip(
        pairs, [op.terms[0]] + [op.terms[1]] * len(parts), strict=True
    ):
        exact = size = np.zeros(computed.size, object)
        for matrix, x in zip(maps, operands, strict=True):
            exact = exact + _exact(matrix) @ _exact(x.reshape(-1))
            size = size + _exact(np.abs(matrix)) @ _exact(np.abs(x).reshape(-1))
        limit = Fraction(gamma(terms, UNIT)) * size + Fraction(tiny(computed)) if terms else 0
        assert (abs(_exact(computed.reshape(-1)) - exact) <= limit).all()


@samples
@given(seed=seeds, weights=exponents, values=exponents)
@contract
def test_interval_contains_the_exact_range(name: str, seed: int, weights: int, values: int) -> None:
    sample, draw = _SAMPLES[name], Draw(seed, values)
    op = sample.make(Draw(seed + 1, weights))
    boxes = _boxes(draw, sample)
    lower, upper = op.interval(*map(_batch, boxes))
    low, high = Exact.near(op, sample.shapes, draw.rng).range(boxes)
    assert (_exact(lower.reshape(-1)) <= low).all()
    assert (_exact(upper.reshape(-1)) >= high).all()


def test_rows_that_copy_are_exact() -> None:
    """Also next to unbounded elements, at the ends of the floats, and with zeros of both signs."""
    weight = np.array([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.0]])
    box = Box(np.array([[0.1, -np.inf]]), np.array([[0.30000000000000004, np.inf]]))
    with np.errstate(invalid="ignore"):
        low, high = Linear(weight).interval(box)
        moved = Linear(weight, np.array([0.25, 1e-20, 1.0, 1.0, 3.0])).interval(box)
    assert low[0].tolist()[:4] == [0.1, -0.30000000000000004, -np.inf, -np.inf]
    assert high[0].tolist()[:4] == [0.30000000000000004, -0.1, np.inf, np.inf]
    assert low[0, 4] <= 0 <= high[0, 4] and moved[0][0, 4] <= 3 <= moved[1][0, 4]
    assert (
        Fraction(moved[0][0, 0])
        <= Fraction(0.1) + Fraction(1, 4)
        <= Fraction(moved[0][0, 0]) + Fraction(1, 2**53)
    )
    assert Fraction(moved[0][0, 1]) <= Fraction(-0.30000000000000004) + Fraction(1e-20) <= 0
    for ends in ((-0.0, 0.0), (0.0, 0.0), (-1.7e308, 1.7e308), (5e-324, 5e-324), (-np.inf, -5e-324)):
        box = Box(np.array([[ends[0], 0.0]]), np.array([[ends[1], -0.0]]))
        with np.errstate(invalid="ignore", over="ignore"):
            low, high = Linear(weight).interval(box)
            assert (low[0, 0], high[0, 0], low[0, 1], high[0, 1]) == (*ends, -ends[1], -ends[0])
            low, high = Linear(weight, np.full(5, 1.7e308)).interval(box)
            assert low[0, 0] <= np.float64(ends[0]) + 1.7e308 and high[0, 0] >= np.float64(ends[1]) + 1.7e308
            assert low[0, 0] < np.inf and high[0, 0] > -np.inf


def test_scale_is_exact_for_signs_and_covers_errors_without_offset() -> None:
    box = Box(np.array([[0.1, -0.3, -np.inf, -0.0]]), np.array([[0.2, 0.7, 5e-324, np.inf]]))
    weight = np.array([1.0, -1.0, -1.0, 1.0])
    low, high = Scale(weight).interval(box)
    assert (low.tolist(), high.tolist()) == ([[0.1, -0.7, -5e-324, 0]], [[0.2, 0.3, np.inf, np.inf]])
    low, high = Scale(weight, None, 0.0, np.array([0.5, 0.0, 1.0, 1.0])).interval(box)
    assert low[0, 0] <= 0.1 - 0.5 and high[0, 0] >= 0.2 + 0.5 and low[0, 2] <= -1 and low[0, 3] <= -1
    with np.errstate(invalid="ignore"):
        low, high = Scale(np.array([0.0, 1e-300, -2.0, 0.0]), None, np.inf).interval(box)
    assert ((low <= np.array([0, -1e-300, -2, 0])) & (high >= np.array([0, 1e-300, 2, 0]))).all()


def _network(op: AffineOp, shapes: tuple[tuple[int, ...], ...]) -> Network:
    """The op applied to parts of a flat input."""
    total = max(sum(map(prod, shapes)), 1)
    nodes, operands, start = [Node(None, (), (total,))], [], 0
    for shape in shapes:
        nodes.append(Node(Slice((start,), (1,), (prod(shape),), (total,)), (0,), (prod(shape),)))
        nodes.append(Node(Reshape(shape, (prod(shape),)), (len(nodes) - 1,), shape))
        operands.append(len(nodes) - 1)
        start += prod(shape)
    nodes.append(Node(op, tuple(operands), _result_shape(op, shapes)))
    return Network(tuple(nodes), len(nodes) - 1)


def _joined(boxes: list[Box]) -> Box:
    lower, upper = (
        np.concatenate([np.zeros(0 if boxes else 1), *(getattr(b, end).reshape(-1) for b in boxes)])
        for end in ("lower", "upper")
    )
    return Box(lower[None], upper[None])


def _bound(network: Network, box: Box, rows: Array, reference: Network) -> Array:
    """Lower bounds of rows of the result over a box; coefficients in the type of the rows."""
    frame = propagate(network, Region(box), Effort("ibp"), 2**20, reference, rows)
    at_centre = centre_value(rows[None], frame.centres[network.output])
    return backward(frame, network.output, rows[None], at_centre).concretize(box)[0]


@samples
@given(seed=seeds, weights=exponents, values=exponents)
@contract
def test_backward_bound_is_below_the_exact_minimum(name: str, seed: int, weights: int, values: int) -> None:
    sample, draw = _SAMPLES[name], Draw(seed, values)
    op = sample.make(Draw(seed + 1, weights))
    boxes = _boxes(draw, sample)
    network, box = _network(op, sample.shapes), _joined(boxes)
    rows = Draw(seed + 2, 0)(2, *_result_shape(op, sample.shapes))
    bound = _bound(network, box, rows, network)
    exact = Exact.near(op, sample.shapes, draw.rng)
    assert (_exact(bound) <= exact.range(boxes, _exact(rows.reshape(2, -1)))[0]).all()


@samples
@given(seed=seeds, exponent=exponents)
@contract
def test_torch_agrees_with_numpy(name: str, seed: int, exponent: int) -> None:
    torch = pytest.importorskip("torch")
    sample, draw = _SAMPLES[name], Draw(seed, exponent)
    op = sample.make(draw)
    if isinstance(op, SparseLinear):
        return  # NumPy only
    other = op.convert(torch.from_numpy)
    assert all(not isinstance(getattr(other, f.name), np.ndarray) for f in fields(other))  # type: ignore[arg-type]
    xs = [draw(1, *shape) for shape in sample.shapes]
    a = draw(1, *_result_shape(op, sample.shapes))
    ts = [torch.from_numpy(x) for x in xs]
    magnitude = op.abs_linear(*(np.abs(x) for x in xs))
    error = 2 * gamma(op.terms[0], UNIT) * magnitude + tiny(a)
    assert (np.abs(other.linear(*ts).numpy() - op.linear(*xs)) <= error).all()
    assert (np.abs(other.abs_linear(*map(torch.abs, ts)).numpy() - magnitude) <= error).all()
    sizes = _absolute_adjoint(op, sample, a)
    for ours, theirs, size in zip(op.adjoint(a), other.adjoint(torch.from_numpy(a)), sizes, strict=True):
        assert (np.abs(theirs.numpy() - ours) <= 2 * gamma(op.terms[1], UNIT) * size + tiny(a)).all()


def _absolute_adjoint(op: AffineOp, sample: Sample, a: np.ndarray) -> list[np.ndarray]:
    """`|a| |W|` for each operand."""
    flat = np.abs(a).reshape(1, -1)
    matrices = _matrices(op, sample.shapes)
    return [(flat @ np.abs(m)).reshape(1, *shape) for m, shape in zip(matrices, sample.shapes, strict=True)]


@samples
@given(seed=seeds, weights=st.integers(-12, 12), values=st.integers(-12, 12))
@contract
def test_float32_bounds_hold_for_the_float64_weights(name: str, seed: int, weights: int, values: int) -> None:
    torch = pytest.importorskip("torch")
    sample, draw = _SAMPLES[name], Draw(seed, values)
    op = sample.make(Draw(seed + 1, weights))
    if isinstance(op, SparseLinear):
        return  # NumPy only
    boxes = _boxes(draw, sample)
    network, box = _network(op, sample.shapes), _joined(boxes)
    there = Box(torch.from_numpy(box.lower), torch.from_numpy(box.upper))
    rows = np.asarray(Draw(seed + 2, 0)(2, *_result_shape(op, sample.shapes)), np.float32)
    bound = _bound(
        network.convert(torch.from_numpy, np.float32),
        there,
        torch.from_numpy(rows),
        network.convert(torch.from_numpy),
    )
    exact = Exact.near(op, sample.shapes, draw.rng)
    assert (
        _exact(np.maximum(bound.numpy(), -1e300)) <= exact.range(boxes, _exact(rows.reshape(2, -1)))[0]
    ).all()
