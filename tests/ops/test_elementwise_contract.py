"""The contract of every elementwise op: intervals and lines hold in exact arithmetic.

Checked against mpmath without tolerance: slopes and intercepts are floats, so `slope x + intercept` is
exact there, and the functions are evaluated to 60 digits.
"""

import inspect
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

import mpmath as mp
import numpy as np
import pytest
import torch

import lpverify.ops  # noqa: F401  (fills the subclass lists)
from lpverify.bounds.subproblem import step_end
from lpverify.interval import Box
from lpverify.network import Network, Node
from lpverify.ops.activations import (
    Atan,
    Erf,
    ExponentialLinear,
    Gelu,
    GeluTanh,
    HardSwish,
    Mish,
    Sigmoid,
    Softplus,
    Softsign,
    Swish,
    Tanh,
)
from lpverify.ops.base import ElementwiseOp
from lpverify.ops.cast import Within
from lpverify.ops.elementary import Exp, InverseSqrt, Log, Power, RealPower, Reciprocal, Sqrt, Square
from lpverify.ops.gather import ZeroWithin
from lpverify.ops.hyperbolic import Acosh, Asinh, Atanh, Cosh, Sinh
from lpverify.ops.indicators import IsZero, Undefined
from lpverify.ops.periodic import Acos, Asin, Cos, Sin, Tan
from lpverify.ops.piecewise import Relu
from lpverify.ops.quantize import Quantise
from lpverify.ops.smooth import SmoothOp
from lpverify.ops.steps import Floor, Heaviside, Round, Sign, StepOp, Trunc
from lpverify.proof import NeuronSplit

DIGITS = 60
SCALES = [10.0**e for e in (-30, -20, -10, -5, -3, -2, -1, 0, 0.5, 1, 1.5, 2, 3, 5, 10, 20, 30)]


def _erf(x: mp.mpf) -> mp.mpf:
    return mp.erf(x) if abs(x) < 40 else mp.sign(x)  # off by less than 1e-690


def _erfc(x: mp.mpf) -> mp.mpf:
    return mp.erfc(x) if abs(x) < 1000 else mp.mpf(2 if x < 0 else 0)


def _logistic(x: mp.mpf) -> mp.mpf:
    return 1 / (1 + mp.exp(-x))


def _mish(x: mp.mpf) -> mp.mpf:
    e = mp.exp(x)
    return x * (e * (e + 2)) / (e * (e + 2) + 2)


def _gelu_tanh(x: mp.mpf) -> mp.mpf:
    return x * _logistic(2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))


def _round(x: mp.mpf) -> mp.mpf:
    low = mp.floor(x)
    rest = x - low
    return low if rest < 0.5 or (rest == 0.5 and int(low) % 2 == 0) else low + 1


def _elu(scale: float, width: float, gain: float) -> Callable[[mp.mpf], mp.mpf]:
    return lambda x: scale * mp.expm1(x / mp.mpf(width)) if x < 0 else gain * x


@dataclass(frozen=True)
class Sample:
    """An op with its exact function (None: undefined there) and points of interest."""

    op: ElementwiseOp
    function: Callable[[mp.mpf], mp.mpf]
    points: tuple[float, ...] = (0.0,)
    domain: Callable[[mp.mpf], bool] = lambda x: True

    @property
    def name(self) -> str:
        return repr(self.op)


SELU = 1.67326319217681884765625 * 1.05070102214813232421875, 1.0, 1.05070102214813232421875
SAMPLES = [
    Sample(Relu(), lambda x: max(x, mp.mpf(0))),
    Sample(Exp(), mp.exp, (0.0, 1.0, 700.0, 709.5, 710.0, -745.0, 88.0)),
    Sample(Exp(-1), lambda x: mp.exp(-x), (0.0, 1.0, -709.5, 745.0)),
    Sample(Log(), mp.log, (0.0, 1.0), lambda x: x > 0),
    Sample(Sqrt(), mp.sqrt, (0.0, 1.0, 2.0), lambda x: x >= 0),
    Sample(InverseSqrt(), lambda x: 1 / mp.sqrt(x), (0.0, 1.0), lambda x: x > 0),
    Sample(Reciprocal(), lambda x: 1 / x, (0.0, 1.0, -1.0), lambda x: x != 0),
    Sample(Square(), lambda x: x * x, (0.0, 1.0, -2.0)),
    *(Sample(Power(n), lambda x, n=n: x**n, (0.0, 1.0, -2.0)) for n in (3, 4, 5, 10)),
    Sample(
        Sin(), mp.sin, (0.0, np.pi / 2, np.pi, -np.pi, 3 * np.pi / 2, 31.5 * np.pi, 1000 * np.pi, 65536.0)
    ),
    Sample(
        Cos(), mp.cos, (0.0, np.pi / 2, np.pi, -np.pi, 3 * np.pi / 2, 31.5 * np.pi, 1000 * np.pi, 65536.0)
    ),
    Sample(Sigmoid(), _logistic, (0.0, 3.0, -36.0, -750.0)),
    Sample(Tanh(), mp.tanh, (0.0, 1.0, -20.0)),
    Sample(Atan(), mp.atan, (0.0, 1.0)),
    Sample(Softsign(), lambda x: x / (1 + abs(x)), (0.0, 1.0)),
    Sample(Erf(), _erf, (0.0, 1.0, -6.0)),
    Sample(Softplus(), lambda x: x + mp.log1p(mp.exp(-x)) if x > 0 else mp.log1p(mp.exp(x)), (0.0, -40.0)),
    Sample(
        Gelu(), lambda x: x * _erfc(-x / mp.sqrt(2)) / 2, (0.0, -(2**0.5), 2**0.5, -0.7517915246935645, -9.0)
    ),
    Sample(GeluTanh(), _gelu_tanh, (0.0, -1.4185040087908284, 1.4185040087908284, -0.752461422071016)),
    Sample(
        Swish(),
        lambda x: x * _logistic(x),
        (0.0, -2.3993572805154676, 2.3993572805154676, -1.2784645427610738),
    ),
    Sample(Swish(1.7021484375), lambda x: x * _logistic(1.7021484375 * x), (0.0, 1.4096052, -1.4096052)),
    Sample(Mish(), _mish, (0.0, -2.256376396360793, 1.4905711794854285, -1.1924312145154952)),
    *(
        Sample(ExponentialLinear(*p), _elu(*p))
        for p in ((1.0, 1.0, 1.0), (2.5, 1.0, 1.0), (0.3, 0.3, 1.0), SELU)
    ),
    Sample(ExponentialLinear(-0.5, 1.0, 1.0), _elu(-0.5, 1.0, 1.0)),
    Sample(
        HardSwish(), lambda x: x * min(max(x / 6 + mp.mpf(0.5), mp.mpf(0)), mp.mpf(1)), (0.0, -3.0, 3.0, -1.5)
    ),
    Sample(Sign(), mp.sign),
    Sample(Heaviside(True), lambda x: mp.mpf(x >= 0)),
    Sample(Heaviside(False), lambda x: mp.mpf(x > 0)),
    Sample(Trunc(), lambda x: mp.sign(x) * mp.floor(abs(x)), (0.0, 1.0, -1.0, -2.0, 7.0, 2.0**50)),
    Sample(IsZero(), lambda x: mp.mpf(x == 0)),
    Sample(Undefined(), lambda x: mp.mpf(0)),
    Sample(Within(-2.0, 5.0), lambda x: x, (-2.0, 0.0, 1.0, 5.0), lambda x: x == mp.floor(x)),
    Sample(
        ZeroWithin(-2.0, 5.0),
        lambda x: mp.mpf(0),
        (-2.0, 0.0, 1.0, 5.0),
        lambda x: -2 <= x <= 5 and x == mp.floor(x),
    ),
    Sample(Floor(), mp.floor, (0.0, 1.0, -1.0, 7.0, 2.0**50)),
    Sample(Round(), _round, (0.5, 1.5, -0.5, -2.5, 0.0, 1.0, 2.0**50)),
    *(
        Sample(
            Quantise(float(zero), float(least), float(most)),
            lambda x, zero=zero, least=least, most=most: min(
                max(_round(x) + zero, mp.mpf(least)), mp.mpf(most)
            ),
            (least - zero - 0.5, least - zero + 0.5, most - zero - 0.5, most - zero + 0.5, 0.5, 1.5, 0.0),
        )
        for zero, least, most in ((0, -128, 127), (3, 0, 255), (1, -2, 3))
    ),
    Sample(
        Tan(),
        mp.tan,
        (0.0, 1.0, np.pi / 2, -np.pi / 2, np.pi, 1.5707, 1000 * np.pi, 1000.5 * np.pi, 65536.0),
    ),
    Sample(Asin(), mp.asin, (0.0, 1.0, -1.0, 0.5), lambda x: abs(x) <= 1),
    Sample(Acos(), mp.acos, (0.0, 1.0, -1.0, 0.5), lambda x: abs(x) <= 1),
    Sample(Sinh(), mp.sinh, (0.0, 1.0, -20.0, 699.9, 710.0)),
    Sample(Cosh(), mp.cosh, (0.0, 1.0, -20.0, 699.9, 710.0)),
    Sample(Asinh(), mp.asinh, (0.0, 1.0)),
    Sample(Acosh(), mp.acosh, (1.0, 2.0), lambda x: x >= 1),
    Sample(Atanh(), mp.atanh, (0.0, 1.0, -1.0, 0.5), lambda x: abs(x) < 1),
    *(
        Sample(
            RealPower(p),
            lambda x, p=p: x ** mp.mpf(p),
            (0.0, 1.0),
            lambda x, p=p: x > 0 or (x == 0 and p > 0),
        )
        for p in (0.75, 2.5, -0.75, 0.9999999, 100.1)
    ),
    Sample(RealPower(1 / 3, 2.0**-52), lambda x: x ** (mp.mpf(1) / 3), (0.0, 1.0), lambda x: x >= 0),
]


def _concrete(base: type[ElementwiseOp]) -> set[type[ElementwiseOp]]:
    found = set()
    for child in base.__subclasses__():
        found |= _concrete(child)
        if not inspect.isabstract(child):
            found.add(child)
    return {c for c in found if c.__module__.startswith("lpverify.")}


def test_every_elementwise_op_has_a_sample() -> None:
    assert _concrete(ElementwiseOp) == {type(s.op) for s in SAMPLES}


def _around(point: float, rng: np.random.Generator, dtype: type) -> Iterator[tuple[float, float]]:
    """Boxes that touch, contain or just miss a point."""
    p = float(dtype(point))
    before, after = (
        float(np.nextafter(dtype(p), dtype(-np.inf))),
        float(np.nextafter(dtype(p), dtype(np.inf))),
    )
    yield from ((p, p), (before, p), (p, after), (before, after), (after, after), (before, before))
    for width in (1e-12, 1e-7, 1e-3, 0.1, 1.0, 3.0, 40.0):
        yield from ((p - width, p), (p, p + width), (p - width, p + width))
        yield p - width * rng.random(), p + width * rng.random()


def _scattered(rng: np.random.Generator, dtype: type) -> Iterator[tuple[float, float]]:
    for scale in SCALES:
        for width in (0.0, 0.0, 1e-9, 1e-3, 0.3, 1.0, 3.0):
            centre = float(dtype(scale * rng.uniform(-1.5, 1.5)))
            yield centre - width * scale * rng.random(), centre + width * scale * rng.random()
        yield centre, float(np.nextafter(dtype(centre), dtype(np.inf)))
        yield scale * rng.random(), scale * (1 + rng.random())
    for low, high in itertools.product(SCALES[::4], SCALES[::4]):
        yield -low, high


def _boxes(sample: Sample, dtype: type) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(7)
    pairs = [pair for p in sample.points for pair in _around(p, rng, dtype)] + list(_scattered(rng, dtype))
    low, high = np.array(pairs).T.astype(dtype)
    return np.minimum(low, high), np.maximum(low, high)


def _inside(sample: Sample, low: float, high: float, rng: np.random.Generator) -> list[float]:
    """The box's ends, points of interest, random ones at all distances from the ends."""
    points = {low, high, 0.5 * low + 0.5 * high, *(p for p in sample.points if low < p < high)}
    points |= {float(np.nextafter(p, s)) for p in list(points) for s in (low, high)}
    width = high - low
    points |= {low + width * share for share in rng.random(3)}
    points |= {low + width * 10.0 ** -rng.uniform(0, 12), high - width * 10.0 ** -rng.uniform(0, 12)}
    return [min(max(p, low), high) for p in sorted(points)]


@cache
def _truth(index: int, dtype: type) -> list[list[tuple[mp.mpf, mp.mpf]]]:
    """For each box of a sample points and values."""
    sample, rng = SAMPLES[index], np.random.default_rng(1)
    result = []
    with mp.workdps(DIGITS):
        for low, high in zip(*_boxes(sample, dtype), strict=True):
            points = [mp.mpf(x) for x in _inside(sample, float(low), float(high), rng)]
            result.append([(x, sample.function(x)) for x in points if sample.domain(x)])
    return result


STEPS = [i for i, s in enumerate(SAMPLES) if isinstance(s.op, StepOp)]


@pytest.mark.parametrize("index", STEPS, ids=[SAMPLES[i].name for i in STEPS])
def test_sides_of_steps_are_limits_at_any_point(index: int) -> None:
    """Also beside the jumps: another op on the same value may be split there."""
    sample, rng = SAMPLES[index], np.random.default_rng(5)
    points = np.array([-2.0, -1.5, -1.0, -0.5, 0.0, 0.5, 1.0, 1.5, 2.0, 3.0, *rng.uniform(-4, 4, 30)])
    points = np.concatenate([points, np.nextafter(points, 9), np.nextafter(points, -9), [1e-300, -1e-300]])
    left, right = sample.op.sides(points)
    with mp.workdps(400):
        for i, x in enumerate(map(mp.mpf, points)):
            near = mp.mpf(10) ** -330
            assert (left[i], right[i]) == (sample.function(x - near), sample.function(x + near)), x


def _children(
    op: StepOp, box: tuple[float, float], result: tuple[float, float]
) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    """Operand and result of both halves of a split, as the search makes them."""
    low, high = (np.array([end]) for end in box)
    point = next(float(p[0]) for p in op.split_points(low, high) if not np.isnan(p[0]))
    network = Network((Node(None, (), (1,)), Node(op, (0,), (1,))), 1)
    split = NeuronSplit(0, 0, True, point, point > box[0])
    ends = [step_end(network, 1, s) for s in (split, split.opposite())]
    upper = (max(box[0], point), box[1]), (max(result[0], ends[0]), result[1])
    return [upper, ((box[0], min(box[1], point)), (result[0], min(result[1], ends[1])))]


@pytest.mark.parametrize("index", STEPS, ids=[SAMPLES[i].name for i in STEPS])
def test_splits_settle_every_step(index: int) -> None:
    """No half is empty or like the whole, and after few splits every result is one number."""
    op, rng = SAMPLES[index].op, np.random.default_rng(6)
    for _ in range(200):
        low, high = np.sort(rng.integers(-8, 9, 2) / 2 + rng.integers(0, 2, 2) * rng.normal(size=2))
        ends = op.forward(np.array([low])), op.forward(np.array([high]))
        pending, count = [((low, high), (float(ends[0][0]), float(ends[1][0])))], 0
        while pending:
            box, result = pending.pop()
            assert box[0] <= box[1]
            assert result[0] <= result[1], (low, high, box)
            if result[0] < result[1]:
                halves = _children(op, box, result)
                assert (box, result) not in halves
                pending += halves
            count += 1
            assert count < 200


def _array(values: np.ndarray, kind: str) -> object:
    return torch.from_numpy(values.copy()) if kind == "torch" else values


def _numbers(values: object) -> np.ndarray:
    return np.asarray(values, np.float64)


CASES = [
    pytest.param(i, dtype, kind, id=f"{s.name}-{dtype.__name__}-{kind}")
    for i, s in enumerate(SAMPLES)
    for dtype in (np.float64, np.float32)
    for kind in ("numpy", "torch")
]


@pytest.mark.parametrize(("index", "dtype", "kind"), CASES)
def test_interval_contains_the_values(index: int, dtype: type, kind: str) -> None:
    low, high = _boxes(SAMPLES[index], dtype)
    lower, upper = SAMPLES[index].op.interval(Box(_array(low[None], kind), _array(high[None], kind)))
    lower, upper = _numbers(lower)[0], _numbers(upper)[0]
    assert not np.isnan(lower).any()
    assert not np.isnan(upper).any()
    assert (lower < np.inf).all()
    assert (upper > -np.inf).all()
    for i, values in enumerate(_truth(index, dtype)):
        for x, y in values:
            assert mp.mpf(lower[i]) <= y <= mp.mpf(upper[i]), (low[i], high[i], x)


@pytest.mark.parametrize(("index", "dtype", "kind"), CASES)
@pytest.mark.parametrize("alpha", [None, 0.0, 1.0, "random"])
def test_lines_hold_exactly(index: int, dtype: type, kind: str, alpha: float | str | None) -> None:
    op = SAMPLES[index].op
    low, high = _boxes(SAMPLES[index], dtype)
    mix = None
    if alpha is not None:
        numbers = (
            np.random.default_rng(3).random(low.shape) if alpha == "random" else np.full(low.shape, alpha)
        )
        mix = _array(numbers[None].astype(dtype), kind)
    lines = op.relax(Box(_array(low[None], kind), _array(high[None], kind)), mix)
    parts = [lines.lower_slope, lines.lower_intercept, lines.upper_slope, lines.upper_intercept]
    assert all(p is None or _numbers(p).shape == (1, len(low)) for p in parts)
    a, b, c, d = (np.zeros(len(low)) if p is None else _numbers(p)[0] for p in parts)
    assert np.isfinite(a).all()
    assert np.isfinite(c).all()
    assert (b < np.inf).all()
    assert (d > -np.inf).all()
    _assert_lines_hold((a, b, c, d), index, dtype, (low, high))


def _assert_lines_hold(
    lines: tuple[np.ndarray, ...], index: int, dtype: type, ends: tuple[np.ndarray, np.ndarray]
) -> None:
    """A lower and an upper line, slope and intercept each, against the exact values on all boxes."""
    with mp.workdps(2 * DIGITS):
        for i, values in enumerate(_truth(index, dtype)):
            s, t, u, v = (mp.mpf(float(array[i])) for array in lines)
            for x, y in values:
                assert s * x + t <= y, ("lower", ends[0][i], ends[1][i], x)
                assert y <= u * x + v, ("upper", ends[0][i], ends[1][i], x)


FANS = [case for case in CASES if isinstance(SAMPLES[case.values[0]].op, SmoothOp)]


@pytest.mark.parametrize(("index", "dtype", "kind"), FANS)
def test_lines_of_fans_hold_exactly(index: int, dtype: type, kind: str) -> None:
    """One line of each fan, by chance; the middle ones are those that are taken without multipliers."""
    op = SAMPLES[index].op
    low, high = _boxes(SAMPLES[index], dtype)
    box = Box(_array(low[None, None], kind), _array(high[None, None], kind))
    fan, plain = op.fan(box), op.relax(box, None)
    parts = [
        _numbers(p) for p in (fan.lower_slope, fan.lower_intercept, fan.upper_slope, fan.upper_intercept)
    ]
    count = parts[0].shape[1]
    assert count % 2 == 1 and count > 1
    assert all(p.shape == (1, count, len(low)) for p in parts)
    for middle, usual in ((parts[0], plain.lower_slope), (parts[2], plain.upper_slope)):
        usual = _numbers(usual)[0, 0]
        assert ((middle[0, count // 2] == usual) | (usual == 0)).all()
    chosen = np.random.default_rng(5).integers(0, count, len(low))
    a, b, c, d = (p[0, chosen, np.arange(len(low))] for p in parts)
    _assert_lines_hold((a, b, c, d), index, dtype, (low, high))
