"""Rewrites of networks before they are bounded. One pass a file; every pass keeps the function exactly.

Exactly means over the reals: where folding rounds a weight, the op's error fields grow to cover it.
"""

from lpverify.errors import InternalError
from lpverify.network import Network
from lpverify.simplify.base import Pass
from lpverify.simplify.fold_scale import FoldScale
from lpverify.simplify.merge_linear import MergeLinear
from lpverify.simplify.prune import Prune

PASSES: tuple[Pass, ...] = (Prune(), FoldScale(), MergeLinear(), FoldScale(), Prune())


def simplify(network: Network, passes: tuple[Pass, ...] = PASSES) -> Network:
    """Applies the passes in order.

    Raises:
        InternalError: A pass broke what it ensures.
    """
    for rewrite in passes:
        rewritten = rewrite(network)
        same = rewritten.input_size == network.input_size
        if not same or rewritten.nodes[rewritten.output].shape != network.nodes[network.output].shape:
            raise InternalError(f"{type(rewrite).__name__} changed the shapes of the network")
        rewrite.ensure(rewritten)
        network = rewritten
    return network


__all__ = ["PASSES", "FoldScale", "MergeLinear", "Pass", "Prune", "simplify"]
