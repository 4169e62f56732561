"""Small dense ReLU networks in a form for the compiled kernel, and calls of it.

The kernel (`src/dense.hpp`) bounds many subproblems at a time with the calculus of `lpverify.bounds`:
interval boxes, backward rows (Zhang et al. 2018, arXiv:1811.00866) for the neurons that are still unstable,
rows for the forms, every rounding error subtracted. It is optional: without it, or with
`LPVERIFY_NO_KERNEL=1` in the environment, NumPy does the work.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np

DENSE_ELEMENTS, DENSE_SHARE = 4096, 0.2  # blocks smaller, or fuller, than this are kept dense


@dataclass(frozen=True)
class Block:
    """A matrix `(rows, cols)` in compressed rows; a column may occur twice in a row.

    Attributes:
        source: Number of the node whose value it multiplies.
        cols: Width of that node.
        start: `(rows + 1,)` int32.
        column: `(entries,)` int32.
        value: `(entries,)` float64.
    """

    source: int
    cols: int
    start: np.ndarray
    column: np.ndarray
    value: np.ndarray

    def dense(self) -> np.ndarray | None:
        """The matrix, None where compressed rows serve better or a column occurs twice."""
        rows = len(self.start) - 1
        if rows * self.cols > DENSE_ELEMENTS and len(self.value) < DENSE_SHARE * rows * self.cols:
            return None
        place = np.repeat(np.arange(rows), np.diff(self.start)) * self.cols + self.column
        if len(np.unique(place)) < len(place):
            return None
        matrix = np.zeros(rows * self.cols)
        matrix[place] = self.value
        return matrix.reshape(rows, self.cols)


@dataclass(frozen=True)
class Affine:
    """A node `sum of blocks + bias`.

    Attributes:
        blocks: At most one for each source.
        bias: `(width,)`.
        bias_error: Absolute error of the bias, `(width,)`.
        weight_error: Relative error of every weight.
    """

    blocks: tuple[Block, ...]
    bias: np.ndarray
    bias_error: np.ndarray
    weight_error: float

    @property
    def width(self) -> int:
        """Number of elements."""
        return len(self.bias)


@dataclass(frozen=True)
class Rectifier:
    """A node `max(0, z)` of an affine node z."""

    source: int
    width: int


@dataclass(frozen=True)
class DenseGraph:
    """Node 0 is the input; the last node is affine and holds the forms.

    Attributes:
        inputs: Width of node 0.
        nodes: The others in topological order; `nodes[k]` is node `k + 1`.
        values: For each affine node below a ReLU the index of the same value in the `Network`.
    """

    inputs: int
    nodes: tuple[Affine | Rectifier, ...]
    values: dict[int, int]

    @property
    def weights(self) -> int:
        """Number of weights."""
        return sum(len(b.value) for n in self.nodes if isinstance(n, Affine) for b in n.blocks)


@dataclass(frozen=True)
class Ascent:
    """Multipliers of B subproblems with R rows, and how long they ascend.

    Attributes:
        steps: Most steps of one row.
        ahead: So many splits are tried, by one pass for each child, before the best is named.
        goal: Bounds beyond which a row needs none, `(B, R)`.
        alpha: Slopes of the lower lines of ReLUs to start from and, after a call, those of the bound, `(B, R,
            neurons)` float32; outside of [0, 1]: adaptive.
        beta: Multipliers of the splits, `(B, R, S)` float32; negative: zero.
    """

    steps: int
    ahead: int
    goal: np.ndarray
    alpha: np.ndarray
    beta: np.ndarray


@dataclass(frozen=True)
class DenseBounds:
    """What the kernel found about B subproblems with R rows and S splits.

    Attributes:
        value: Certified lower bounds of the wanted forms, `(B, R)`.
        loss: How much of that was lost to rounding, `(B, R)`.
        slope: `form >= slope x + height` on the box, `(B, R, n)`.
        height: The same, `(B, R)`.
        split_slope: `slope x + height <= 0` where the split holds, `(B, S, n)`.
        split_height: The same, `(B, S)`.
        input_score: Expected gain of each row from halving an input, `(B, R, n)`.
        neuron_score: The same for the best neuron split, `(B, R)`.
        best_neuron: Which one, `(B, R)`, -1 if all are stable.
        unstable: How many neurons are, `(B,)`.
        empty: Subproblems proven to contain no point, `(B,)`; nothing else is said about those.
    """

    value: np.ndarray
    loss: np.ndarray
    slope: np.ndarray
    height: np.ndarray
    split_slope: np.ndarray
    split_height: np.ndarray
    input_score: np.ndarray
    neuron_score: np.ndarray
    best_neuron: np.ndarray
    unstable: np.ndarray
    empty: np.ndarray

    def put(self, index: np.ndarray, other: "DenseBounds") -> None:
        """Replaces some subproblems by those of another result."""
        for name in self.__dataclass_fields__:
            getattr(self, name)[index] = getattr(other, name)


def extension() -> ModuleType | None:
    """The compiled module; None when it was not built or is switched off."""
    if os.environ.get("LPVERIFY_NO_KERNEL", "") not in ("", "0"):
        return None
    try:
        return import_module("lpverify.kernels._dense")
    except ImportError:
        return None


class DenseKernel:
    """A graph inside the compiled kernel.

    Attributes:
        graph: The graph.
        offsets: For each affine node below a ReLU where its boxes are in a row of `known`.
        neurons: Length of such a row.
        work: Backward rows and multiplications so far, `(2,)`.
    """

    def __init__(self, graph: DenseGraph, instruction_set: str | None = None) -> None:
        """Raises: ImportError: The kernel is not there."""
        module = extension()
        if module is None:
            raise ImportError("the compiled kernel is not available")
        self.graph = graph
        self._network = module.DenseNetwork(graph.inputs)
        for node in graph.nodes:
            _add(self._network, node)
        self._network.finish(instruction_set or module.instruction_sets()[-1])
        self.offsets = {k: int(self._network.offset(k)) for k in graph.values}
        self.neurons = int(self._network.neurons)
        self.work = np.zeros(2, np.uint64)

    def bound(
        self,
        box: tuple[np.ndarray, np.ndarray],
        known: tuple[np.ndarray, np.ndarray],
        wanted: np.ndarray,
        splits: tuple[np.ndarray, np.ndarray],
        double_precision: bool,
        threads: int,
        ascent: Ascent | None = None,
        refine: bool = True,
        cuts: int | None = None,
    ) -> DenseBounds:
        """Bounds a batch.

        Args:
            box: Lower and upper ends `(B, n)`.
            known: Boxes of the operands of ReLUs that hold there, `(B, neurons)` each; tightened in place.
            wanted: Forms to bound, `(B, R)` int32, -1 for none.
            splits: Split neurons `(B, S)` int32, -1 for none, and their sides, int8 (+1: z >= 0).
            double_precision: Coefficients in float64 instead of float32.
            threads: How many to use.
            ascent: Optimises multipliers of the rows, whose arrays it updates; None: adaptive slopes.
            refine: Backward rows for unstable neurons; else their boxes are intervals within `known`.

            cuts: How many of the splits, the first ones, give half-spaces; None: all.

        Raises:
            ValueError: Arrays do not fit.
        """
        (count, rows), inputs, width = wanted.shape, self.graph.inputs, splits[0].shape[1]
        result = DenseBounds(
            *(np.empty((count, rows)), np.empty((count, rows))),
            *(np.empty((count, rows, inputs)), np.empty((count, rows))),
            *(np.empty((count, width, inputs)), np.empty((count, width))),
            *(np.empty((count, rows, inputs)), np.empty((count, rows)), np.empty((count, rows), np.int32)),
            *(np.empty(count, np.int32), np.empty(count, np.uint8)),
        )
        arrays = (getattr(result, name) for name in result.__dataclass_fields__)
        if ascent is None:
            nothing = np.zeros((0, 0, 0), np.float32)
            ascent = Ascent(0, 0, np.empty((count, rows)), nothing, nothing)
        rise = (
            ascent.goal,
            ascent.alpha,
            ascent.beta,
            ascent.steps,
            ascent.ahead,
            width if cuts is None else cuts,
            refine,
        )
        arguments = (*box, *known, wanted, *splits, *rise, *arrays, self.work, double_precision, threads)
        self._network.bound(*arguments)
        return result


def _add(network: Any, node: Affine | Rectifier) -> None:
    if isinstance(node, Rectifier):
        network.add_relu(node.source)
        return
    network.add_affine(node.bias, node.bias_error, node.weight_error)
    for block in node.blocks:
        matrix = block.dense()
        if matrix is not None:
            network.add_dense(block.source, matrix)
        else:
            network.add_sparse(block.source, block.cols, block.start, block.column, block.value)


def block_of(source: int, matrix: np.ndarray) -> Block:
    """The block of a dense matrix."""
    row, column = np.nonzero(matrix)
    start = np.searchsorted(row, np.arange(len(matrix) + 1)).astype(np.int32)
    return Block(source, matrix.shape[1], start, column.astype(np.int32), matrix[row, column])


def stack(blocks: Sequence[Block]) -> Block:
    """Blocks of one source above each other."""
    counts = np.cumsum([0, *(len(b.value) for b in blocks)])
    starts = [b.start[:-1] + n for b, n in zip(blocks, counts, strict=False)]
    start = np.concatenate([*starts, counts[-1:]]).astype(np.int32)
    column, value = (np.concatenate([getattr(b, name) for b in blocks]) for name in ("column", "value"))
    return Block(blocks[0].source, blocks[0].cols, start, column, value)
