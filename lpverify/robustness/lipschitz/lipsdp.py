"""Multipliers by semidefinite programming: LipSDP with one for each neuron.

Fazlyab et al. 2019, arXiv:1906.04893, section 2.3. Minimise L^2 over multipliers t >= 0 such that the form of
`certified` is positive semidefinite. The solver's multipliers are proposals: `certified_bound` proves what
they are worth, beside those of ECLipsE.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np

from lpverify.errors import SolverError, UnsupportedError
from lpverify.programs import LinearProgram, SemidefiniteProgram
from lpverify.robustness.lipschitz.certified import certified_bound, reaches
from lpverify.robustness.lipschitz.chain import Layers
from lpverify.robustness.lipschitz.eclipse import eclipse_bound, require_size
from lpverify.solvers.base import SdpBackend

LARGEST_PROGRAM = 500  # rows of the semidefinite form
LARGEST_PAIR = 90  # neurons of two neighbouring layers, whose block costs the sixth power of that
EASED = (1.0, 1 + 1e-7, 1 + 1e-5, 1 + 1e-3)  # factors of the solver's multipliers, which meet tolerances only


def lipsdp_bound(layers: Layers, backend: SdpBackend, seconds: float = inf) -> float:
    """A Lipschitz bound in norm 2, proven by `certified_bound`; never above that of ECLipsE.

    Args:
        layers: The chain.
        backend: Solves the program; where it fails, what ECLipsE gives remains.
        seconds: Time limit of the solver.

    Raises:
        UnsupportedError: There are too many neurons.
    """
    compact = _treatable(layers)
    if not layers.slopes:
        return certified_bound(layers, ())
    if not all(reaches(layers)):
        return 0.0
    try:
        best = eclipse_bound(layers)
    except UnsupportedError:
        best = inf
    for t in _solved(compact, backend, seconds):
        best = min(best, certified_bound(layers, t))
    return best


def solved_multipliers(layers: Layers, backend: SdpBackend, seconds: float) -> list[np.ndarray] | None:
    """The solver's multipliers for each layer, a little eased; None where it has none.

    Raises:
        UnsupportedError: There are too many neurons.
    """
    found = _solved(_treatable(layers), backend, seconds)
    return found[len(found) // 2] if found else None


def _treatable(layers: Layers) -> Layers:
    """The chain with few inputs.

    Raises:
        UnsupportedError: It is too large for a program.
    """
    compact = _compact(layers)
    require_size(compact, LARGEST_PROGRAM)
    pair = max((size for _, size in _cliques([w.value.shape[1] for w in compact.weights])), default=0)
    if pair > LARGEST_PAIR:
        raise UnsupportedError(f"two layers with {pair} neurons are too large, the limit is {LARGEST_PAIR}")
    return compact


def _compact(layers: Layers) -> Layers:
    """With as many inputs as the first layer has rows at most: all that counts is its row space."""
    first = layers.weights[0].value
    if first.shape[1] <= first.shape[0]:
        return layers
    u, s, _ = np.linalg.svd(first, full_matrices=False)
    narrow = type(layers.weights[0])(u * s, np.zeros_like(u))
    return Layers((narrow, *layers.weights[1:]), layers.slopes)


def _solved(layers: Layers, backend: SdpBackend, seconds: float) -> list[list[np.ndarray]]:
    """The solver's multipliers, as they are and a little larger; none where it has none."""
    try:
        program, units = _program(layers)
        answer = backend.solve(program, seconds)
    except (SolverError, ArithmeticError):  # the latter where some layer is zero
        return []
    if answer.primal is None:
        return []
    found = [np.maximum(part, 0.0) for part in _split(answer.primal[1:], layers)]
    return [[factor * t * unit for t, unit in zip(found, units, strict=True)] for factor in EASED]


def _split(flat: np.ndarray, layers: Layers) -> list[np.ndarray]:
    ends = np.cumsum([0, *(len(low) for low, _ in layers.slopes)])
    return [flat[a:b] for a, b in pairwise(ends)]


@dataclass
class _Entries:
    """Entries of the form as linear functions of the columns (L^2, multipliers), or constants."""

    rows: list[np.ndarray]
    columns: list[np.ndarray]
    multipliers: list[np.ndarray]
    factors: list[np.ndarray]

    def add(self, i: np.ndarray, j: np.ndarray, column: np.ndarray, factor: np.ndarray) -> None:
        """Adds `factor * column` to the entries (i, j); column -1 stands for 1."""
        keep = (factor != 0) & (i <= j)
        for part, new in zip(
            (self.rows, self.columns, self.multipliers, self.factors), (i, j, column, factor), strict=True
        ):
            part.append(np.broadcast_to(new, factor.shape)[keep])


def _program(layers: Layers) -> tuple[SemidefiniteProgram, list[float]]:
    """The program in units of each layer's reach and of the result's; and the units of the multipliers."""
    lengths = reaches(layers)
    top = lengths[-1] * float(np.linalg.norm(layers.weights[-1].value, 2))
    entries, size, column = _Entries([], [], [], []), 0, 1
    first = np.arange(layers.weights[0].value.shape[1])
    entries.add(first, first, np.zeros_like(first), np.ones(len(first)))
    for k, (low, high) in enumerate(layers.slopes):
        weight = layers.weights[k].value * lengths[k] / lengths[k + 1]
        size, column = _add_layer(entries, weight, (low, high), size, column)
    last = layers.weights[-1].value * (lengths[-1] / top)
    place = size + np.arange(last.shape[1])
    entries.add(place[:, None], place[None], np.full((1, 1), -1), -(last.T @ last))
    units = [top * top / (length * length) for length in lengths[1:]]
    return _assembled(entries, [w.value.shape[1] for w in layers.weights], column), units


def _add_layer(
    entries: _Entries, weight: np.ndarray, slopes: tuple[np.ndarray, np.ndarray], start: int, column: int
) -> tuple[int, int]:
    """Adds a layer's terms; `start` is the place of its operand, `column` that of its multipliers."""
    low, high = slopes
    count, width = weight.shape
    before, after = start + np.arange(width), start + width + np.arange(count)
    own = column + np.arange(count)
    entries.add(after, after, own, np.ones(count))
    mixed = -0.5 * (low + high)[:, None] * weight
    entries.add(before[None], after[:, None], own[:, None], mixed)
    if (low * high).any():
        square = (low * high)[:, None, None] * weight[:, :, None] * weight[:, None, :]
        entries.add(before[None, :, None], before[None, None], own[:, None, None], square)
    return start + width, column + count


def _assembled(entries: _Entries, sizes: Sequence[int], count: int) -> SemidefiniteProgram:
    """The form as a sum of semidefinite blocks, one for each pair of layers, tied to the multipliers by rows.

    That loses nothing: the form's pattern is chordal, the pairs are its cliques (Agler et al. 1988).
    """
    from scipy.sparse import coo_array  # noqa: PLC0415  (slow to import)

    total, blocks, keys, columns = sum(sizes), [], [], count
    for start, size in _cliques(sizes):
        i, j = np.triu_indices(size)
        block = np.zeros((size, size), np.int64)
        block[i, j] = block[j, i] = columns + np.arange(len(i))
        blocks.append(block)
        keys.append((start + i) * total + start + j)
        columns += len(i)
    known, row = np.unique(np.concatenate(keys), return_inverse=True)
    parts = (entries.rows, entries.columns, entries.multipliers, entries.factors)
    i, j, t, factor = (np.concatenate(p) for p in parts)
    place = np.searchsorted(known, i * total + j)
    constant = np.zeros(len(known))
    np.add.at(constant, place[t < 0], factor[t < 0])
    some = t >= 0
    where = np.concatenate([place[some], row]), np.concatenate([t[some], np.arange(count, columns)])
    values = np.concatenate([-factor[some], np.ones(len(row))])
    matrix = coo_array((values, where), shape=(len(known), columns)).tocsr()
    cost, lower = np.zeros(columns), np.full(columns, -np.inf)
    cost[0], lower[:count] = 1.0, 0.0
    program = LinearProgram(cost, matrix, constant, lower, np.full(columns, np.inf), constant)
    return SemidefiniteProgram(program, tuple(blocks))


def _cliques(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """Where each pair of neighbouring layers starts, and how large it is."""
    starts = np.cumsum([0, *sizes])
    return [(int(starts[k]), sizes[k] + sizes[k + 1]) for k in range(len(sizes) - 1)]


def default_backend(solver: str | None = None) -> SdpBackend:
    """The solver of that name, Clarabel by default.

    Raises:
        InputError: It is not installed.
    """
    from lpverify.solvers.registry import sdp_backend  # noqa: PLC0415  (asks CVXPY, which is slow)

    return sdp_backend(solver or "clarabel")
