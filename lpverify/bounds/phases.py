"""ReLU phases in a region's linear program: ends that a phase changes, and the mixed-integer program.

Method: a phase fixes the sign of the operand z; then the result x is z or 0. Both are there from the start,
as ends of columns and a row `x - z <= 0` that is off, so that fixing a phase changes ends alone and a basis
stays dual feasible. The mixed-integer program has `x <= u a` and `x <= z - l (1 - a)` with a in {0, 1}
instead (Tjeng et al. 2019, arXiv:1711.07356, section 4.1).
Guarantee: as `bounds.triangle`, on the part of the region that has the phases. Nodes that are no ReLUs keep
their lines.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from lpverify.bounds.triangle import RegionProgram
from lpverify.network import Network
from lpverify.ops.piecewise import Relu
from lpverify.programs import LinearProgram


@dataclass(frozen=True)
class PhaseProgram:
    """A region's program whose ReLUs can be given phases.

    Attributes:
        lp: The region's program and below it the rows `x - z <= 0`, without ends.
        node: For each ReLU that is not linear the index of its node, `(p,)`.
        element: Which element of the node's value, `(p,)`.
        operand: Its operand's column, `(p,)`.
        result: Its result's column, `(p,)`.
        switch: Its row, `(p,)`.
        definition: The row that defines the operand's column, -1 where that is an input, `(p,)`.
        inputs: How many columns are inputs.
    """

    lp: LinearProgram
    node: np.ndarray
    element: np.ndarray
    operand: np.ndarray
    result: np.ndarray
    switch: np.ndarray
    definition: np.ndarray
    inputs: int

    def signs_at(self, network: Network, values: Sequence[np.ndarray]) -> np.ndarray:
        """The phases `(p,)` at a point, given all values there, each a batch of one."""
        signs = np.ones(len(self.node), np.int8)
        for k in np.unique(self.node):
            some = self.node == k
            operand = values[network.nodes[k].inputs[0]].reshape(-1)[self.element[some]]
            signs[some] = np.where(operand >= 0, 1, -1)
        return signs

    def fixed(self, signs: np.ndarray) -> LinearProgram:
        """The program of the part that has the phases `(p,)`: 1 active, -1 inactive, 0 either."""
        active, inactive = signs > 0, signs < 0
        lower, upper = self.lp.lower.copy(), self.lp.upper.copy()
        row_lower, row_upper = (end.copy() for end in self.lp.row_ends)
        lower[self.operand[active]] = np.maximum(lower[self.operand[active]], 0.0)
        upper[self.operand[inactive]] = np.minimum(upper[self.operand[inactive]], 0.0)
        upper[self.result[inactive]] = 0.0
        row_upper[self.switch[active]] = 0.0
        return replace(self.lp, lower=lower, upper=upper, row_lower=row_lower, row_upper=row_upper)


def with_phases(program: RegionProgram) -> PhaseProgram:
    """The program with a switched-off row for each ReLU that is not linear."""
    parts: list[tuple[np.ndarray, ...]] = [(np.zeros(0, np.int64),) * 5]
    for k, some in program.bent.items():
        node = program.frame.network.nodes[k]
        if isinstance(node.op, Relu):
            i = node.inputs[0]
            define = program.definitions.get(i, np.full(len(program.columns[i]), -1))[some]
            parts.append(
                (np.full(len(some), k), some, program.columns[i][some], program.columns[k][some], define)
            )
    node_, element, operand, result, define = (np.concatenate([p[j] for p in parts]) for j in range(5))
    lp, count = program.program, len(node_)
    below = _rows(count, len(lp.cost), (result, 1.0), (operand, -1.0))
    low, high = lp.row_ends
    lp = replace(
        lp,
        matrix=_stack(lp.matrix, below),
        row_lower=np.concatenate([low, np.full(count, -np.inf)]),
        row_upper=np.concatenate([high, np.full(count, np.inf)]),
    )
    switch = len(low) + np.arange(count)
    inputs = program.frame.network.input_size
    return PhaseProgram(lp, node_, element, operand, result, switch, define, inputs)


def minimising(program: PhaseProgram, costs: np.ndarray, constants: np.ndarray) -> tuple[PhaseProgram, float]:
    """The program whose minimum is that of the largest of some costs, and what to add to it.

    Args:
        program: Without cost.
        costs: `(k, columns)`, at least one.
        constants: `(k,)`.

    Returns:
        With one cost the program with it; with more a new column t and rows `t - cost . x >= constant`.
    """
    lp = program.lp
    if len(costs) == 1:
        return replace(program, lp=replace(lp, cost=costs[0])), float(constants[0])
    from scipy import sparse  # noqa: PLC0415  (slow to import)

    magnitude = np.maximum(np.abs(lp.lower), np.abs(lp.upper))
    reach = 1.0 + 2 * float((np.abs(costs) @ magnitude + np.abs(constants)).max())
    rows = sparse.csr_array(np.concatenate([-costs, np.ones((len(costs), 1))], axis=1))
    low, high = lp.row_ends
    lp = replace(
        lp,
        cost=np.concatenate([np.zeros(len(lp.cost)), [1.0]]),
        matrix=_stack(lp.matrix, rows),
        row_lower=np.concatenate([low, constants]),
        row_upper=np.concatenate([high, np.full(len(costs), np.inf)]),
        lower=np.concatenate([lp.lower, [-reach]]),
        upper=np.concatenate([lp.upper, [reach]]),
    )
    return replace(program, lp=lp), 0.0


def big_m(program: PhaseProgram) -> LinearProgram:
    """The mixed-integer program: its columns, then a binary one for each ReLU that is not linear."""
    lp, count = program.lp, len(program.node)
    columns, total = len(lp.cost), len(lp.cost) + count
    low, high = lp.lower[program.operand], lp.upper[program.operand]
    binary = columns + np.arange(count)
    inactive = _rows(count, total, (program.result, -1.0), (binary, high))  # u a - x >= 0
    # z - x + l a >= l
    active = _rows(count, total, (program.operand, 1.0), (program.result, -1.0), (binary, low))
    least, most = lp.row_ends
    return replace(
        lp,
        cost=np.concatenate([lp.cost, np.zeros(count)]),
        matrix=_stack(lp.matrix, inactive, active),
        row_lower=np.concatenate([least, np.zeros(count), low]),
        row_upper=np.concatenate([most, np.full(2 * count, np.inf)]),
        lower=np.concatenate([lp.lower, np.zeros(count)]),
        upper=np.concatenate([lp.upper, np.ones(count)]),
        whole=np.concatenate([np.zeros(columns, bool), np.ones(count, bool)]),
    )


def _rows(count: int, columns: int, *terms: tuple[np.ndarray, Any]) -> Any:
    """Sparse rows `(count, columns)`, in each one coefficient a term: (columns `(count,)`, values)."""
    from scipy import sparse  # noqa: PLC0415  (slow to import)

    where = np.tile(np.arange(count), len(terms)), np.concatenate([c for c, _ in terms])
    values = np.concatenate([np.broadcast_to(np.asarray(v, np.float64), (count,)) for _, v in terms])
    return sparse.csr_array((values, where), shape=(count, columns))


def _stack(*matrices: Any) -> Any:
    """Sparse matrices below one another, as wide as the widest."""
    from scipy import sparse  # noqa: PLC0415  (slow to import)

    width = max(m.shape[1] for m in matrices)
    wide = [sparse.csr_array((m.data, m.indices, m.indptr), shape=(m.shape[0], width)) for m in matrices]
    return sparse.csr_array(sparse.vstack(wide))
