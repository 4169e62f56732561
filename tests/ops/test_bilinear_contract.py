"""The contract of every product op: intervals and planes hold in exact rational arithmetic, no tolerance."""

import inspect
from fractions import Fraction

import numpy as np
import pytest
import torch

import lpverify.ops  # noqa: F401  (fills the subclass lists)
from lpverify.interval import Box, gamma
from lpverify.ops.base import BilinearOp
from lpverify.ops.bilinear import MatMulValues, Multiply

BILINEAR = [Multiply(), MatMulValues((2, 3, 2)), MatMulValues((1, 1, 3))]
OPERANDS = {Multiply: ((4,), (4,))}
POINTS = 12
CHOICES = [None, 0.0, 1.0, "random"]


def test_every_bilinear_op_has_a_sample() -> None:
    concrete = {c for c in BilinearOp.__subclasses__() if not inspect.isabstract(c)}
    assert concrete == {type(op) for op in BILINEAR}


def _array(values: np.ndarray, kind: str) -> object:
    return torch.from_numpy(values.copy()) if kind == "torch" else values


def _shapes(op: BilinearOp) -> tuple[tuple[int, ...], tuple[int, ...]]:
    if isinstance(op, MatMulValues):
        m, k, n = op.sizes
        return (2, m, k), (2, k, n)
    return OPERANDS[type(op)]


def _random_box(rng: np.random.Generator, shape: tuple[int, ...], dtype: type) -> Box:
    """Boxes of one scale: points, thin, one-sided, around zero, wide."""
    scale = 10.0 ** rng.choice([-30, -12, -3, 0, 0, 3, 12, 30])
    centre = scale * rng.normal(size=shape) * rng.integers(0, 2, shape)
    width = scale * rng.choice([0.0, 1e-16, 1e-9, 0.1, 1.0, 10.0], shape) * rng.random(shape)
    low, high = (centre - width * rng.random(shape)).astype(dtype), (centre + width).astype(dtype)
    return Box(np.minimum(low, high), np.maximum(low, high))


def _points(rng: np.random.Generator, box: Box) -> np.ndarray:
    """Corners and inner points `(POINTS, *shape)`, float64."""
    share = rng.random((POINTS, *box.lower.shape))
    share[: POINTS // 2] = share[: POINTS // 2] < 0.5
    low, high = box.lower.astype(np.float64), box.upper.astype(np.float64)
    return np.clip(low + share * (high - low), low, high)


def _exact(array: object) -> np.ndarray:
    """Rationals; an infinite number is one beyond all others here."""
    return np.vectorize(_fraction, otypes=[object])(np.asarray(array, np.float64))


def _fraction(x: float) -> Fraction:
    assert not np.isnan(x)
    return Fraction(x) if np.isfinite(x) else Fraction(10) ** 400 * (1 if x > 0 else -1)


def _batch(box: Box, kind: str) -> Box:
    return Box(_array(box.lower[None], kind), _array(box.upper[None], kind))


BILINEAR_CASES = [
    pytest.param(op, dtype, kind, id=f"{op!r}-{dtype.__name__}-{kind}")
    for op in BILINEAR
    for dtype in (np.float64, np.float32)
    for kind in ("numpy", "torch")
]


@pytest.mark.parametrize(("op", "dtype", "kind"), BILINEAR_CASES)
@pytest.mark.parametrize("seed", range(30))
def test_products_stay_in_their_interval(op: BilinearOp, dtype: type, kind: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = (_random_box(rng, shape, dtype) for shape in _shapes(op))
    lower, upper = op.interval(_batch(x, kind), _batch(y, kind))
    assert np.asarray(lower).dtype == dtype
    for s, t in zip(_points(rng, x), _points(rng, y), strict=True):
        value = _product(op, _exact(s), _exact(t))
        assert (_exact(lower)[0] <= value).all()
        assert (value <= _exact(upper)[0]).all()


def _product(op: BilinearOp, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x * y if isinstance(op, Multiply) else x @ y


@pytest.mark.parametrize(("op", "dtype", "kind"), BILINEAR_CASES)
@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("seed", range(15))
def test_planes_hold_exactly(
    op: BilinearOp, dtype: type, kind: str, choice: float | str | None, seed: int
) -> None:
    rng = np.random.default_rng(seed + 100)
    x, y = (_random_box(rng, shape, dtype) for shape in _shapes(op))
    mix = None
    if choice is not None:
        shape = (1, *x.lower.shape) if isinstance(op, Multiply) else (1, 2, op.sizes[1])
        mix = _array(
            (rng.random(shape) if choice == "random" else np.full(shape, choice)).astype(dtype), kind
        )
    planes = op.relax(_batch(x, kind), _batch(y, kind), mix)
    low = [_exact(p)[0] for p in (planes.lower_first, planes.lower_second, planes.lower_intercept)]
    high = [_exact(p)[0] for p in (planes.upper_first, planes.upper_second, planes.upper_intercept)]
    for s, t in zip(_points(rng, x), _points(rng, y), strict=True):
        s, t = _exact(s), _exact(t)
        value = _product(op, s, t)
        below, above = (_product(op, s, f) + _product(op, g, t) + c for f, g, c in (low, high))
        assert (below <= value).all()
        assert (value <= above).all()


@pytest.mark.parametrize(("op", "dtype", "kind"), BILINEAR_CASES)
def test_unbounded_operands_give_unbounded_planes(op: BilinearOp, dtype: type, kind: str) -> None:
    rng = np.random.default_rng(0)
    x, y = (_random_box(rng, shape, dtype) for shape in _shapes(op))
    x.upper[...] = np.inf
    planes = op.relax(_batch(x, kind), _batch(y, kind), None)
    for part in (planes.lower_first, planes.lower_second, planes.upper_first, planes.upper_second):
        assert np.isfinite(np.asarray(part)).all()
    assert not np.isnan(np.asarray(planes.lower_intercept)).any()
    assert not np.isnan(np.asarray(planes.upper_intercept)).any()
    lower, upper = op.interval(_batch(x, kind), _batch(y, kind))
    assert not np.isnan(np.asarray(lower)).any()
    assert not np.isnan(np.asarray(upper)).any()


@pytest.mark.parametrize(("op", "dtype", "kind"), BILINEAR_CASES)
@pytest.mark.parametrize("seed", range(5))
def test_substitution_follows_the_planes(op: BilinearOp, dtype: type, kind: str, seed: int) -> None:
    """Within what `terms` and `magnitude` grant to rounding."""
    rng = np.random.default_rng(seed)
    x, y = (_random_box(rng, shape, dtype) for shape in _shapes(op))
    planes = op.relax(_batch(x, kind), _batch(y, kind), None)
    a = rng.normal(size=(1, 3, *_product(op, *map(np.zeros, _shapes(op))).shape)).astype(dtype)
    with np.errstate(over="ignore", invalid="ignore"):
        first, second = op.substitute(_array(a, kind), planes)
    if not (np.isfinite(np.asarray(first)).all() and np.isfinite(np.asarray(second)).all()):
        return
    unit = 2.0**-53 if dtype is np.float64 else 2.0**-24
    size = np.asarray(
        op.magnitude(_array(x.magnitude[None], kind), _array(y.magnitude[None], kind)), np.float64
    )
    for s, t in zip(_points(rng, x)[:4], _points(rng, y)[:4], strict=True):
        for r in range(3):
            got = (_exact(first)[0, r] * _exact(s)).sum() + (_exact(second)[0, r] * _exact(t)).sum()
            low = _product(op, _exact(s), _exact(planes.lower_first)[0])
            low = low + _product(op, _exact(planes.lower_second)[0], _exact(t))
            high = _product(op, _exact(s), _exact(planes.upper_first)[0])
            high = high + _product(op, _exact(planes.upper_second)[0], _exact(t))
            row = _exact(a[0, r])
            want = (row * np.where(a[0, r] > 0, low, high)).sum()
            slack = 4 * gamma(op.terms + 4, unit) * float((np.abs(a[0, r]) * size[0]).sum()) + 1e-30
            assert abs(got - want) <= slack
