"""Bounds from any multipliers, against exact rational arithmetic: never above the truth, and close to it."""

from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from enumeration import dot, exact, exact_minimum, is_semidefinite
from scipy import sparse
from solvers.programs import (
    INF,
    INFEASIBLE,
    OPTIMA,
    exact_bound,
    large_program,
    program,
    random_program,
    smallest_eigenvalue,
    theta_of_the_pentagon,
    two_blocks,
)

from lpverify.bounds.safe import safe_bound, safe_moment_bound, semidefinite, transposed
from lpverify.solvers.highs import Highs
from lpverify.solvers.registry import sdp_backend

SPECIAL = (np.nan, INF, -INF, 0.0, -0.0, 1.0, -1.0, 1e308, -1e308, 5e-324)


def numbers(rng, wild, *shape):
    """Of one size, or of all sizes that float64 has."""
    exponents = rng.choice([0, 0, 0, -3, 3, -16, 16, -100, 100, -250, 250, -310], shape) if wild else 0
    return rng.normal(size=shape) * 10.0**exponents


def any_program(rng, wild):
    """A program that may be infeasible, with open ends, points as ranges, zeros; dense or sparse."""
    n, m = int(rng.integers(1, 7)), int(rng.integers(0, 7))
    matrix = numbers(rng, wild, m, n) * rng.choice([0, 1, 1], (m, n))
    lower, upper = np.sort([numbers(rng, wild, n), numbers(rng, wild, n)], axis=0)
    least, most = np.sort([numbers(rng, wild, m), numbers(rng, wild, m)], axis=0)
    lower, upper = np.where(rng.random(n) < 0.1, -INF, lower), np.where(rng.random(n) < 0.1, INF, upper)
    least, most = np.where(rng.random(m) < 0.2, -INF, least), np.where(rng.random(m) < 0.2, INF, most)
    point = rng.random(n) < 0.1
    lower[point] = upper[point] = rng.choice([0.0, 1.0])
    lp = program(numbers(rng, wild, n) * rng.choice([0, 1, 1], n), matrix, least, lower, upper, most)
    return replace(lp, matrix=sparse.csr_array(matrix)) if rng.random() < 0.5 else lp


def any_multipliers(rng, lp, wild):
    """Random ones; such as make the reduced costs vanish; numbers that are none."""
    rows = len(lp.row_lower)
    yield numbers(rng, wild, rows) * rng.choice([0, 1, 1], rows)
    yield rng.choice(SPECIAL, rows)
    dense = lp.matrix if isinstance(lp.matrix, np.ndarray) else lp.matrix.toarray()
    if rows and np.abs(dense).max() < 1e100 and np.abs(lp.cost).max() < 1e100:
        yield np.linalg.lstsq(dense.T, lp.cost, rcond=None)[0]


@pytest.mark.parametrize("wild", [False, True], ids=["tame", "wild"])
@pytest.mark.parametrize("start", range(0, 800, 200))
def test_bounds_are_below_the_exact_ones(start, wild):
    """Not only below the minimum: below what these very multipliers prove over the rationals."""
    finite = 0
    for seed in range(start, start + 200):
        rng = np.random.default_rng(seed)
        lp = any_program(rng, wild)
        for multipliers in any_multipliers(rng, lp, wild):
            for cost in (None, np.zeros(len(lp.cost))):
                found = safe_bound(lp, multipliers, cost)
                assert found.value < INF
                if found.value > -INF:
                    finite += 1
                    truth = exact_bound(lp, found.multipliers, with_cost=cost is None)
                    assert truth is not None and Fraction(found.value) <= truth, seed
                assert safe_bound(lp, multipliers, cost, transposed(lp.matrix)).value == found.value
    assert finite > 100


@pytest.mark.parametrize("seed", range(60))
def test_bounds_are_close_to_the_exact_ones(seed):
    """Within rounding of the sizes of what is summed."""
    rng = np.random.default_rng(seed)
    lp = any_program(rng, False)
    lp = replace(lp, lower=np.maximum(lp.lower, -9.0), upper=np.minimum(lp.upper, 9.0))
    multipliers = rng.normal(size=len(lp.row_lower))
    found = safe_bound(lp, multipliers)
    assert float(exact_bound(lp, found.multipliers)) - found.value < 1e-11


def small_program(seed):
    """Three columns, up to four rows; feasible."""
    rng = np.random.default_rng(seed)
    matrix = rng.integers(-4, 5, (int(rng.integers(1, 4)), 3)).astype(float) / 3
    middle = matrix @ rng.uniform(-1, 1, 3)
    slack = rng.choice([0.0, 0.25, 1.0], len(middle)) + 1e-9
    least = np.where(rng.random(len(middle)) < 0.3, -INF, middle - slack)
    most = np.where(rng.random(len(middle)) < 0.3, INF, middle + slack)
    return program(rng.integers(-5, 6, 3) / 7, matrix, least, [-1] * 3, [1] * 3, most)


@pytest.mark.parametrize("seed", range(25))
def test_no_bound_is_above_the_exact_minimum(seed):
    """Of all vertices; the solver's own multipliers reach it, others must not pass it."""
    lp, rng = small_program(seed), np.random.default_rng(seed)
    minimum, best = exact_minimum(lp), Highs().solve(small_program(seed), 10).row_dual
    for multipliers in (
        best,
        -best,
        1e9 * best,
        best + 1e-6 * rng.normal(size=len(best)),
        *any_multipliers(rng, lp, True),
    ):
        assert safe_bound(lp, multipliers).value <= minimum
        assert safe_bound(lp, multipliers, np.zeros(3)).value <= 0
    assert safe_bound(lp, best).value >= float(minimum) - 1e-6 * (1 + abs(float(minimum)))


@pytest.mark.parametrize("name", OPTIMA)
def test_the_solvers_multipliers_prove_its_claim(name):
    expected = OPTIMA[name]
    answer = Highs().solve(expected.lp, 10)
    value = safe_bound(expected.lp, answer.row_dual).value
    if np.isfinite(expected.lp.lower).all() and np.isfinite(expected.lp.upper).all():
        assert value == pytest.approx(expected.value, rel=1e-6, abs=1e-6)
    assert value <= expected.value


def test_larger_programs_keep_their_claim():
    for lp in (large_program(), *(random_program(seed) for seed in range(20))):
        answer = Highs().solve(lp, 60)
        claim = lp.cost @ answer.primal
        assert claim - 1e-6 * (1 + abs(claim)) <= safe_bound(lp, answer.row_dual).value <= claim + 1e-6


@pytest.mark.parametrize("name", INFEASIBLE)
def test_rays_prove_infeasibility(name):
    lp = INFEASIBLE[name]
    answer = Highs().solve(lp, 10)
    nothing = np.zeros(len(lp.cost))
    assert safe_bound(lp, answer.row_dual, nothing).value > 0
    assert not safe_bound(lp, -answer.row_dual, nothing).value > 0


def test_products_that_underflow_count():
    """`1e-200 x >= 1` has points in [-1e300, 1e300]; the products of multiplier and coefficient are zero."""
    for matrix in (np.array([[1e-200]]), sparse.csr_array(np.array([[1e-200]]))):
        lp = replace(program([0], [[1e-200]], [1], [-1e300], [1e300], [INF]), matrix=matrix)
        assert safe_bound(lp, np.array([1e-200])).value <= 0
        open_ = replace(lp, lower=np.array([-INF]), upper=np.array([INF]))
        assert safe_bound(open_, np.array([1e-200])).value == -INF


def test_unbounded_columns_that_no_row_touches_cost_nothing():
    lp = program([1, 0], [[1, 0]], [2], [-5, -INF], [5, INF])
    assert safe_bound(lp, np.array([1.0])).value == pytest.approx(2)
    assert safe_bound(lp, np.array([0.5])).value <= -1.5


# Semidefinite programs.


@pytest.mark.parametrize("start", range(0, 400, 100))
def test_semidefinite_matrices_are_so_exactly(start):
    """Of any rank and size, nearly singular, shifted a little to either side."""
    proven = 0
    for seed in range(start, start + 100):
        rng = np.random.default_rng(seed)
        size = int(rng.integers(1, 8))
        factor = rng.normal(size=(size, int(rng.integers(0, size + 1))))
        scale = 10.0 ** rng.choice([0, 0, 0, -5, 5, -70, 70], size if seed % 3 == 0 else 1)
        matrix = (factor @ factor.T) * np.outer(scale, scale)
        matrix += rng.choice([0, 0, 1e-16, -1e-16, 1e-9, -1e-9, 1e-3]) * np.diag(
            rng.normal(size=size) * scale**2
        )
        matrix += (
            (seed % 5 == 0) * 1e-3 * rng.normal(size=(size, size)) * np.outer(scale, scale)
        )  # not symmetric
        found = semidefinite(matrix)
        if found is None:
            continue
        proven += 1
        assert is_semidefinite(found)
        middle = 0.5 * matrix + 0.5 * matrix.T
        lift = max(0.0, -np.linalg.eigvalsh(middle)[0])
        assert np.abs(found - middle - lift * np.eye(size)).max() <= 1e-9 * np.abs(middle).max()
    assert proven > 60


@pytest.mark.parametrize("low", [-1e-18, -1e-16, -1e-15, -1e-14, -1e-12, -1e-9])
@pytest.mark.parametrize("size", [2, 5, 12])
def test_slightly_indefinite_matrices_are_lifted(size, low):
    """An orthogonal basis with one negative eigenvalue, near what a Cholesky decomposition can tell."""
    rng = np.random.default_rng(size)
    basis = np.linalg.qr(rng.normal(size=(size, size)))[0]
    values = np.concatenate([[low], rng.random(size - 1)])
    found = semidefinite((basis * values) @ basis.T)
    assert found is not None and is_semidefinite(found)


@pytest.mark.parametrize("value", [np.nan, INF, -INF, 1e308, -1e308, 1.7e308, 5e-324, 0.0])
def test_matrices_beyond_all_numbers(value):
    for matrix in (
        np.full((3, 3), value),
        np.diag([1.0, value, 1.0]),
        np.array([[1.0, value], [value, 1.0]]),
    ):
        found = semidefinite(matrix)
        assert found is None or is_semidefinite(found)


def exact_moment_bound(lp, blocks, row_dual, proven):
    """What these multipliers prove of the cost, over the rationals."""
    cost = exact(lp.cost)
    for block, dual in zip(blocks, proven, strict=True):
        if dual is not None:
            np.subtract.at(cost, block.ravel(), exact(dual).ravel())
    matrix = lp.matrix if isinstance(lp.matrix, np.ndarray) else lp.matrix.toarray()
    y = [
        v if np.isfinite(v) and np.isfinite(end) else 0.0
        for v, end in zip(row_dual, np.where(row_dual > 0, *lp.row_ends), strict=True)
    ]
    total = dot(
        np.where(np.array(y) > 0, lp.row_lower, np.where(np.array(y) < 0, lp.row_ends[1], 0.0)), exact(y)
    )
    reduced = cost - exact(matrix).T @ exact(y)
    ends = zip(reduced, lp.lower, lp.upper, strict=True)
    return total + sum((d * Fraction(float(low if d > 0 else high)) for d, low, high in ends), Fraction(0))


SDPS = {
    "eigenvalue": smallest_eigenvalue(4)[0],
    "theta": theta_of_the_pentagon()[0],
    "two blocks": two_blocks()[0],
}


def boxed(sdp):
    """With finite ends of all moments."""
    linear = sdp.linear
    return replace(linear, lower=np.maximum(linear.lower, -3.0), upper=np.minimum(linear.upper, 3.0))


@pytest.mark.parametrize("name", SDPS)
@pytest.mark.parametrize("seed", range(20))
def test_moment_bounds_are_below_the_exact_ones(name, seed):
    sdp, rng = SDPS[name], np.random.default_rng(seed)
    lp = boxed(sdp)
    wild = seed % 2 == 1
    if seed % 3 == 0:
        answer = sdp_backend("clarabel").solve(sdp, 30)
        duals, row_dual = list(answer.block_duals), answer.row_dual
    else:
        duals = [numbers(rng, wild, len(b), len(b)) for b in sdp.blocks]
        with np.errstate(over="ignore", invalid="ignore"):
            duals = [d @ d.T if seed % 4 else d for d in duals]
        row_dual = numbers(rng, wild, len(lp.row_lower))
    if seed % 7 == 6:
        duals[0], row_dual = np.full_like(duals[0], np.nan), rng.choice(SPECIAL, len(row_dual))
    found = safe_moment_bound(lp, sdp.blocks, row_dual, duals)
    assert found < INF
    if found > -INF:
        assert Fraction(found) <= exact_moment_bound(
            lp, sdp.blocks, row_dual, [semidefinite(d) for d in duals]
        )


@pytest.mark.parametrize("seed", range(30))
def test_sums_of_multipliers_of_one_moment_are_rounded(seed):
    """The cost is their sum in float64: nothing seems to be left, but over the rationals something is."""
    rng, blocks = np.random.default_rng(seed), [np.array([[0, 1], [1, 2]])] * 7
    duals = [(f := rng.normal(size=(2, 2))) @ f.T + np.eye(2) for _ in blocks]
    cost = np.zeros(3)
    for block, dual in zip(blocks, duals, strict=True):
        np.add.at(cost, block.ravel(), semidefinite(dual).ravel())
    lp = program(cost, [[0, 0, 0]], [0], [1, -1e6, -1e6], [1, 1e6, 1e6], [0])
    found = safe_moment_bound(lp, blocks, np.zeros(1), duals)
    assert Fraction(found) <= exact_moment_bound(lp, blocks, np.zeros(1), [semidefinite(d) for d in duals])
    assert found > -1e-6


@pytest.mark.parametrize(
    ("build", "args"), [(smallest_eigenvalue, (4,)), (theta_of_the_pentagon, ()), (two_blocks, ())]
)
def test_moment_bounds_are_close_to_the_claim(build, args):
    sdp, value = build(*args)
    answer = sdp_backend("clarabel").solve(sdp, 30)
    found = safe_moment_bound(boxed(sdp), sdp.blocks, answer.row_dual, answer.block_duals)
    assert value - 1e-6 * (1 + abs(value)) <= found <= value + 1e-6
