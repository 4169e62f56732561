"""How the subproblems of the dense search lie in columns: what there is, roots, children, single ones.

Columns: `node` and `case` (as in `Subproblem`), `depth` (splits on the path), `lower`, `upper` (input box),
`known_lower`, `known_upper` (boxes of the kernel's neurons), `floor` (bounds of the case's forms), `margin`,
`split` and `side` (the latest neuron splits, newest first, -1 where there are fewer); if multipliers ascend
`alpha` and `beta` (per form, neuron or split).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from lpverify.bounds.subproblem import Subproblem
from lpverify.kernels.dense import DenseKernel
from lpverify.multipliers import Effort, Multipliers
from lpverify.network import Network
from lpverify.proof import NeuronSplit, Split
from lpverify.search.pool import Columns


@dataclass(frozen=True)
class Plan:
    """How the search works on one problem.

    Attributes:
        inputs: Whether inputs may be split.
        steps: Of ascent in the multipliers of one row; 0: adaptive slopes.
        ahead: Neuron splits that are tried before one is chosen; needs steps.
        refine: Whether unstable neurons get backward rows in every subproblem.
        splits: So many of the latest neuron splits of a subproblem take part in its bounds.
        cuts: And so many of those give half-spaces.
    """

    inputs: bool = True
    steps: int = 0
    ahead: int = 0
    refine: bool = True
    splits: int = 16
    cuts: int = 16

    @property
    def effort(self) -> Effort:
        """The same for those who bound a subproblem again."""
        return Effort("crown" if self.refine else "ibp", half_spaces=True, cuts=self.cuts)


@dataclass(frozen=True)
class Choice:
    """How each of a batch of subproblems is split.

    Attributes:
        phase: Whether a neuron is, else an input.
        index: Which input.
        point: Where.
        neuron: Which neuron of the kernel, at zero.
    """

    phase: np.ndarray
    index: np.ndarray
    point: np.ndarray
    neuron: np.ndarray


@dataclass(frozen=True)
class Layout:
    """The columns for one problem.

    Attributes:
        network: The problem's.
        kernel: Of the network.
        plan: Says what is needed.
        forms: Most forms of one case.
        exact: Keep multipliers as they were used.
    """

    network: Network
    kernel: DenseKernel
    plan: Plan
    forms: int
    exact: bool

    def shapes(self) -> dict[str, tuple[tuple[int, ...], type]]:
        """For each column the shape of an entry and its type."""
        inputs, neurons, splits = self.network.input_size, self.kernel.neurons, self.plan.splits
        mixes: dict[str, tuple[tuple[int, ...], type]] = {
            "alpha": ((self.forms, neurons), np.float32 if self.exact else np.float16),
            "beta": ((self.forms, splits), np.float32),
        }
        return {
            **(mixes if self.plan.steps else {}),
            **{name: ((), np.int64) for name in ("node", "case", "depth")},
            **{name: ((inputs,), np.float64) for name in ("lower", "upper")},
            **{name: ((neurons,), np.float64) for name in ("known_lower", "known_upper")},
            "floor": ((self.forms,), np.float64),
            "margin": ((), np.float64),
            "split": ((splits,), np.int32),
            "side": ((splits,), np.int8),
        }

    def roots(self, items: Sequence[Subproblem]) -> Columns:
        """Columns of subproblems without splits."""
        count = len(items)
        columns: Columns = {n: np.zeros((count, *shape), kind) for n, (shape, kind) in self.shapes().items()}
        for name in ("node", "case", "lower", "upper", "margin"):
            columns[name][...] = [getattr(item, name) for item in items]
        starts = {"known_lower": -np.inf, "known_upper": np.inf, "floor": -np.inf, "split": -1, "alpha": -1.0}
        for name in starts.keys() & columns.keys():
            columns[name][...] = starts[name]
        for i, item in enumerate(items):
            for value, part in self.parts():
                if value in item.known:
                    for name, box in zip(("known_lower", "known_upper"), item.known[value], strict=True):
                        columns[name][i, part] = np.asarray(box, np.float64).reshape(-1)
        return columns

    def parts(self) -> list[tuple[int, slice]]:
        """For each value below a ReLU where its neurons are."""
        sizes = {k: int(np.prod(self.network.nodes[v].shape)) for k, v in self.kernel.graph.values.items()}
        first = self.kernel.offsets
        return [(v, slice(first[k], first[k] + sizes[k])) for k, v in self.kernel.graph.values.items()]

    def child(self, parents: Columns, choice: Choice, upper: bool) -> Columns:
        """The children on one side of all splits; their nodes are still the parents'."""
        child = {name: column.copy() for name, column in parents.items()}
        halved, fixed = np.flatnonzero(~choice.phase), np.flatnonzero(choice.phase)
        child["lower" if upper else "upper"][halved, choice.index[halved]] = choice.point[halved]
        child["depth"] += 1
        neuron = choice.neuron[fixed]
        known = child["known_lower" if upper else "known_upper"]
        known[fixed, neuron] = (np.maximum if upper else np.minimum)(known[fixed, neuron], 0.0)
        for name, value in (("split", neuron), ("side", 1 if upper else -1), ("beta", 0.0)):
            if name in child:
                child[name][fixed, ..., 1:] = child[name][fixed, ..., :-1]
                child[name][fixed, ..., 0] = value
        return child

    def tree_columns(self, choice: Choice, upper: bool) -> dict[str, object]:
        """The same splits as columns of a proof."""
        places = sorted((part.start, value) for value, part in self.parts())
        firsts, values = (np.array(column) for column in zip(*places, strict=True))
        neuron = np.maximum(choice.neuron, 0)
        place = np.searchsorted(firsts, neuron, side="right") - 1
        return {
            "kind": np.where(choice.phase, 2, 1),
            "value": np.where(choice.phase, values[place], choice.index),
            "element": np.where(choice.phase, neuron - firsts[place], 0),
            "point": np.where(choice.phase, 0.0, choice.point),
            "upper": upper,
            "above": choice.phase,
        }

    def single(self, items: Columns, i: int, path: Sequence[Split]) -> Subproblem:
        """One of them as the general engine knows it."""
        known = {}
        for value, part in self.parts():
            shape = self.network.nodes[value].shape
            ends = (items[name][i, part].reshape(shape) for name in ("known_lower", "known_upper"))
            known[value] = (next(ends), next(ends))
        splits = tuple(s for s in path if isinstance(s, NeuronSplit))
        node, case = int(items["node"][i]), int(items["case"][i])
        return Subproblem(node, case, items["lower"][i], items["upper"][i], known, splits)

    def multipliers(self, items: Columns, i: int) -> Multipliers:
        """The multipliers of all rows of one of them, in the shapes of the network."""
        alpha, beta, split = {}, {}, items["split"][i]
        for value, part in self.parts():
            shape = (self.forms, *self.network.nodes[value].shape)
            for k in self.network.activations:
                if self.network.nodes[k].inputs[0] == value:
                    alpha[k] = items["alpha"][i, :, part].reshape(shape)
            own = (split >= part.start) & (split < part.stop)
            rows = np.zeros((self.forms, part.stop - part.start), np.float32)
            rows[:, split[own] - part.start] = items["beta"][i][:, own]
            beta[value] = rows.reshape(shape)
        return Multipliers(alpha, beta)
