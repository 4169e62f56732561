"""The product of the parts' Lipschitz constants, for norm 1, 2 or infinity on both sides.

An affine part counts with its operator norm, written out or op by op (`norms`), an elementwise one with its
steepest slope, all others with what is known of their structure (`structure`) or, failing that, with sums of
norms along all paths through them.
"""

from collections.abc import Sequence
from math import inf

from lpverify.bounds.ball import UP
from lpverify.errors import UnsupportedError
from lpverify.network import Network
from lpverify.robustness.lipschitz.chain import Part
from lpverify.robustness.lipschitz.norms import affine_norm, stacked_norms
from lpverify.robustness.lipschitz.structure import known_norm


def product_bound(network: Network, parts: Sequence[Part], norm: float) -> float:
    """An upper bound of the Lipschitz constant of consecutive parts.

    Raises:
        UnsupportedError: A node has no rule; the message names it.
    """
    total = 1.0
    for part in parts:
        factor = part_norm(network, part, norm)
        total = total * factor * (1.0 if 1.0 in (total, factor) else UP)
    return total if total == total else inf


def part_norm(network: Network, part: Part, norm: float) -> float:
    """The same of one part."""
    if part.slopes is not None:
        return float(max(abs(part.slopes.lower).max(), abs(part.slopes.upper).max()))
    known = known_norm(network, part, norm)
    try:
        if part.affine:
            return min(known, affine_norm(network, part.nodes, part.source, norm))
        return min(known, stacked_norms(network, part.nodes, part.source, norm)[part.target])
    except UnsupportedError:
        if known < inf:
            return known
        raise
