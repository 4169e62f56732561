"""Constants that hold everywhere for each element of a network's result, such as leads over rivals."""

from collections.abc import Sequence
from contextlib import suppress
from math import inf, sqrt

import numpy as np

from lpverify.bounds.ball import UP
from lpverify.config import Deadline
from lpverify.errors import UnsupportedError
from lpverify.network import Network
from lpverify.robustness.lipschitz.certified import certified_bound
from lpverify.robustness.lipschitz.chain import Layers, Part, layers_of, parts_of
from lpverify.robustness.lipschitz.eclipse import eclipse_bound, eclipse_rows, require_size
from lpverify.robustness.lipschitz.lipsdp import default_backend, lipsdp_bound, solved_multipliers
from lpverify.robustness.lipschitz.local import dual_sizes, jacobian_rows
from lpverify.robustness.lipschitz.product import product_bound

STAGES = ("lipschitz-product", "eclipse", "lipsdp")
ECLIPSE_WORK = 2e11  # multiplications for all forms together
FEW_FORMS = 4  # so many get programs of their own
LARGEST_EACH = 1000  # inputs and neurons, whose form is factorised for each form


def pair_constants(
    network: Network, norm: float, solver: str | None, deadline: Deadline
) -> dict[str, np.ndarray]:
    """Upper bounds `(F,)` of how much each element of the result changes by, for one unit of input in a norm.

    Those of norm 2 serve the others, too: `||d||_2 <= ||d||_1` and `||d||_2 <= sqrt(n) ||d||_inf`.

    Args:
        network: Its result is flat.
        norm: 1, 2 or infinity.
        solver: Of semidefinite programs, None: the usual one.
        deadline: Of these.

    Returns:
        By technique, without those that do not apply.

    Raises:
        UnsupportedError: A node has no rule.
    """
    parts = parts_of(network)
    factor = dimension_factor(network, norm)
    plain = product_constants(network, parts, 2) * factor
    if norm != 2:
        plain = np.minimum(plain, product_constants(network, parts, norm))
    found = {STAGES[0]: plain}
    with suppress(UnsupportedError):
        layers = layers_of(network, parts)
        found[STAGES[1]] = _eclipse(layers) * factor
        found[STAGES[2]] = _lipsdp(layers, solver, deadline) * factor
    return {stage: constants * (UP if norm == inf else 1.0) for stage, constants in found.items()}


def dimension_factor(network: Network, norm: float) -> float:
    """What turns a constant for changes of input in norm 2 into one for another norm, rounded up."""
    return sqrt(network.input_size) * UP * UP if norm == inf else 1.0


def product_constants(network: Network, parts: Sequence[Part], norm: float) -> np.ndarray:
    """The product of norms of all parts but the last one, whose rows count each for itself."""
    forms = network.nodes[network.output].shape[0]
    if not parts or not parts[-1].affine:
        return np.full(forms, product_bound(network, parts, norm))
    last = parts[-1]
    rows = jacobian_rows(network, (), np.eye(forms)[None], last.source, last.target)
    before = product_bound(network, parts[:-1], norm)
    return dual_sizes(rows, norm)[0] * (before * (UP if before != 1.0 else 1.0))


def _eclipse(layers: Layers) -> np.ndarray:
    """Of all forms together; each for itself where that fails, if it is affordable."""
    found, size = eclipse_rows(layers), layers.hidden + layers.weights[0].value.shape[1]
    if np.isfinite(found).all() or len(found) * float(size) ** 3 > ECLIPSE_WORK:
        return np.fmin(found, eclipse_bound(layers)) if np.isinf(found).any() else found
    return np.array([eclipse_bound(layers.with_rows(np.array([i]))) for i in range(len(found))])


def _lipsdp(layers: Layers, solver: str | None, deadline: Deadline) -> np.ndarray:
    """By a program for each of few forms, else by one for all, whose multipliers are scaled for each."""
    require_size(layers, LARGEST_EACH)
    if deadline.passed:
        raise UnsupportedError("no time is left for semidefinite programs")
    backend = default_backend(solver)
    forms = len(layers.weights[-1].value)
    if forms <= FEW_FORMS:
        rows = (layers.with_rows(np.array([i])) for i in range(forms))
        return np.array([lipsdp_bound(row, backend, deadline.remaining) for row in rows])
    found = solved_multipliers(layers, backend, deadline.remaining)
    if found is None:
        raise UnsupportedError("the solver has no multipliers")
    return np.array([_rescaled(layers, i, found) for i in range(forms)])


def _rescaled(layers: Layers, row: int, multipliers: Sequence[np.ndarray]) -> float:
    """The best bound of a row by multiples of multipliers for all rows."""
    last = layers.weights[-1].value
    share = float((last[row] ** 2).sum()) / max(float(np.linalg.norm(last, 2)) ** 2, 1e-300)
    one = layers.with_rows(np.array([row]))
    factors = (share * 2.0**k for k in (-1, -0.5, 0, 0.5, 1, 1.5))
    return min(certified_bound(one, [f * t for t in multipliers]) for f in factors)
