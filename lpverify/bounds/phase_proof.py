"""Refutes an alternative of a condition on a region by a tree of ReLU phases, each leaf by multipliers.

The tree and its multipliers are proposals: the region's linear program is made here, and each leaf's bound is
that of `bounds.safe`.
"""

from collections.abc import Sequence

import numpy as np

from lpverify.bounds.frame import Frame
from lpverify.bounds.phases import PhaseProgram, minimising, with_phases
from lpverify.bounds.safe import safe_bound
from lpverify.bounds.triangle import RegionProgram, triangle
from lpverify.interval import round_down
from lpverify.problem import Case
from lpverify.proof import PhaseTree


class AlternativePrograms:
    """The programs of all alternatives of a case on one region.

    Args:
        frame: A batch of one region, NumPy float64.
        case: Whose condition it is.
    """

    def __init__(self, frame: Frame, case: Case) -> None:
        self.case, self.output = case, frame.network.output
        self.size = frame.network.nodes[self.output].shape[0]
        self.region: RegionProgram = triangle(frame)
        self.phases = with_phases(self.region)

    def of(self, atoms: Sequence[int]) -> tuple[PhaseProgram, float]:
        """The program whose minimum is that of the alternative's largest `form - bound`, and its constant.

        A positive minimum means that the atoms can't hold together.
        """
        chosen = list(atoms)
        rows = (self.case.forms[chosen][:, None] == np.arange(self.size)).astype(np.float64)
        costs, constants = self.region.objective(self.output, rows)
        return minimising(self.phases, costs, round_down(constants - self.case.bounds[chosen]))


def holds(programs: AlternativePrograms, tree: PhaseTree) -> bool:
    """Whether a tree refutes its alternative."""
    if not (tree.multipliers and tree.complete()):  # without a leaf there is not even a root
        return False
    program, constant = programs.of(tree.atoms)
    if not all(0 <= neuron < len(program.node) for neuron in tree.neuron[1:]):
        return False
    return all(
        _refuted(program, constant, tree.signs(i, len(program.node)), m) for i, m in tree.multipliers.items()
    )


def _refuted(
    program: PhaseProgram, constant: float, signs: np.ndarray, multipliers: tuple[np.ndarray, np.ndarray]
) -> bool:
    lp = program.fixed(signs)
    y = np.zeros(len(lp.row_lower))
    rows, values = multipliers
    if len(rows) and not (rows.min() >= 0 and rows.max() < len(y)):
        return False
    y[rows] = values
    if np.nextafter(safe_bound(lp, y).value + constant, -np.inf) > 0:
        return True
    return safe_bound(lp, y, np.zeros(len(lp.cost))).value > 0
