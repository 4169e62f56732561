"""How the subproblems of the search over phases lie in columns.

All neurons of the network, ReLU after ReLU, form one axis. Columns: `node` and `case` (as in
`Subproblem`), `margin` (what is known of it; positive: refuted, it seems), `sign` (1 active, -1 inactive, 0
open, a neuron each), `alpha` and `beta` (per row and neuron; in small types, because any rounding of
multipliers is admissible).
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lpverify.bounds.evaluate import Arithmetic, to_numpy
from lpverify.bounds.linear import Sides
from lpverify.bounds.subproblem import Subproblem
from lpverify.interval import Array, Box, namespace
from lpverify.multipliers import Multipliers
from lpverify.network import Network
from lpverify.ops.piecewise import Relu
from lpverify.proof import NeuronSplit, Split
from lpverify.search.pool import Columns

LEVELS = 255  # of alpha in the queue
MOST_BETA = 6e4  # in the queue: what half precision holds


class PhaseLayout:
    """The columns for one network.

    Args:
        network: Affine nodes and ReLUs, one for each operand, whose values have one axis.
        arithmetic: For it.
        root: Boxes of the ReLUs' operands that hold for all subproblems, `(*shape)`.
        rows: Most rows of one case.
    """

    def __init__(
        self, network: Network, arithmetic: Arithmetic, root: Mapping[int, tuple[Array, Array]], rows: int
    ) -> None:
        self.arithmetic, self.rows = arithmetic, rows
        self.relus = [k for k, node in enumerate(network.nodes) if isinstance(node.op, Relu)]
        self.values = [network.nodes[k].inputs[0] for k in self.relus]
        sizes = [network.nodes[k].shape[0] for k in self.relus]
        ends = np.cumsum(sizes, dtype=np.int64)
        self.firsts = ends - sizes
        self.parts = [slice(int(end - size), int(end)) for end, size in zip(ends, sizes, strict=True)]
        self.neurons = int(sum(sizes))
        xp = namespace(arithmetic.like)
        self.low, self.high = (xp.concat([root[v][i] for v in self.values], axis=0) for i in (0, 1))

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """For each column the shape of an entry and its type."""
        mixes = (self.rows, self.neurons)
        return {
            "node": ((), np.int64),
            "case": ((), np.int64),
            "margin": ((), np.float64),
            "sign": ((self.neurons,), np.int8),
            "alpha": (mixes, np.uint8),
            "beta": (mixes, np.float16),
        }

    def roots(self, items: Sequence[Subproblem]) -> Columns:
        """Columns of subproblems without splits; lower lines as adaptive slopes have them."""
        count = len(items)
        columns: Columns = {n: np.zeros((count, *shape), kind) for n, (shape, kind) in self.shapes().items()}
        for name in ("node", "case", "margin"):
            columns[name][...] = [getattr(item, name) for item in items]
        columns["alpha"][...] = np.where(to_numpy(self.high > -self.low), LEVELS, 0)
        return columns

    def children(self, parents: Columns, neuron: np.ndarray, upper: bool) -> Columns:
        """The children on one side of the chosen neurons' kinks; their nodes are still the parents'."""
        child = dict(parents, sign=parents["sign"].copy())
        child["sign"][np.arange(len(neuron)), neuron] = 1 if upper else -1
        return child

    def tree_columns(self, neuron: np.ndarray, upper: bool) -> dict[str, object]:
        """The same splits as columns of a proof."""
        place = np.searchsorted(self.firsts, neuron, side="right") - 1
        element = neuron - self.firsts[place]
        return {
            "kind": 2,
            "value": np.array(self.values)[place],
            "element": element,
            "point": 0.0,
            "upper": upper,
            "above": True,
        }

    def ends(self, sign: Array) -> tuple[Array, Array]:
        """Boxes of all neurons under phases `(B, neurons)`, float64."""
        xp, zero = namespace(sign), namespace(sign).zeros_like(self.low)
        low = xp.where(sign > 0, xp.maximum(self.low, zero), self.low)
        return low, xp.where(sign < 0, xp.minimum(self.high, zero), self.high)

    def boxes(self, low: Array, high: Array) -> dict[int, Box]:
        """Ends `(B, neurons)` as boxes of the values."""
        return {v: Box(low[:, p], high[:, p]) for v, p in zip(self.values, self.parts, strict=True)}

    def sides(self, sign: Array) -> dict[int, Sides]:
        """The split constraints of values that have any."""
        found = {}
        for value, part in zip(self.values, self.parts, strict=True):
            own = sign[:, part]
            if bool((own != 0).any()):
                found[value] = Sides(namespace(own).astype(own, self.arithmetic.like.dtype))
        return found

    def multipliers(self, items: Columns, sides: Mapping[int, Sides]) -> Multipliers:
        """Those in the columns, in the type of the coefficients."""
        alpha = self.arithmetic.array(items["alpha"].astype(np.float32) * np.float32(1 / LEVELS))
        beta = self.arithmetic.array(items["beta"].astype(np.float32))
        return Multipliers(
            {k: alpha[..., part] for k, part in zip(self.relus, self.parts, strict=True)},
            {v: beta[..., p] for v, p in zip(self.values, self.parts, strict=True) if v in sides},
        )

    def store(self, items: Columns, multipliers: Multipliers) -> None:
        """Puts multipliers into the columns."""
        xp = namespace(self.low)
        for k, value, part in zip(self.relus, self.values, self.parts, strict=True):
            levels = xp.clip(multipliers.alpha[k] * LEVELS + 0.5, 0, LEVELS)
            items["alpha"][..., part] = to_numpy(xp.astype(levels, xp.uint8))
            if value in multipliers.beta:
                kept = xp.clip(multipliers.beta[value], 0.0, MOST_BETA)
                items["beta"][..., part] = to_numpy(xp.astype(kept, xp.float16))

    def joined(self, arrays: Mapping[int, Array], keys: Sequence[int]) -> Array:
        """Arrays `(B, R, size)` of ReLUs or values side by side, `(B, R, neurons)`."""
        return namespace(self.low).concat([arrays[k] for k in keys], axis=-1)

    def single(self, items: Columns, i: int, path: Sequence[Split]) -> Subproblem:
        """One of them as the general engine knows it, with the root's box still to be filled in."""
        low, high = self.ends(self.arithmetic.place(items["sign"][i][None]))
        known = {v: (low[0, p], high[0, p]) for v, p in zip(self.values, self.parts, strict=True)}
        splits = tuple(s for s in path if isinstance(s, NeuronSplit))
        empty = np.zeros(0)
        return Subproblem(int(items["node"][i]), int(items["case"][i]), empty, empty, known, splits)
