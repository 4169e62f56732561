"""Linear, mixed-integer and semidefinite programs as data."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class LinearProgram:
    """Minimise `cost . x` over `lower <= x <= upper`, `row_lower <= matrix x <= row_upper`.

    Attributes:
        cost: `(n,)`.
        matrix: `(m, n)`, a NumPy array or a SciPy sparse array.
        row_lower: `(m,)`, minus infinity for none.
        lower: `(n,)`.
        upper: `(n,)`.
        row_upper: `(m,)`; None: no row has an upper end.
        whole: `(n,)` bool: columns that take whole numbers; None: none does.
    """

    cost: np.ndarray
    matrix: Any
    row_lower: np.ndarray
    lower: np.ndarray
    upper: np.ndarray
    row_upper: np.ndarray | None = None
    whole: np.ndarray | None = None

    @property
    def row_ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Lower and upper ends of all rows."""
        upper = np.full(len(self.row_lower), np.inf) if self.row_upper is None else self.row_upper
        return self.row_lower, upper


@dataclass(frozen=True)
class SemidefiniteProgram:
    """Minimise `cost . m` over `row_lower <= matrix m <= row_upper`, `lower <= m <= upper`, and blocks.

    Attributes:
        linear: All but the blocks; its columns `m` are the `n` moments.
        blocks: Each an integer matrix `(s, s)`, symmetric, of columns; the matrix of those moments has to be
            positive semidefinite.
    """

    linear: LinearProgram
    blocks: tuple[np.ndarray, ...]
