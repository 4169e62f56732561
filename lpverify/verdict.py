"""Verdicts and their evidence.

`Sat` needs a replayed witness, `Unsat` a finished proof; there is no other way to build them. Everything
else is `Timeout` or `Unknown`.
"""

from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from lpverify.proof import Proof
from lpverify.query import Number


@dataclass(frozen=True)
class Witness:
    """A counterexample, replayed on the original model with onnxruntime.

    Attributes:
        x: Exact inputs inside the query's box.
        inputs: The same as the model's float type.
        outputs: What onnxruntime returned, flat.
    """

    x: tuple[Number, ...]
    inputs: np.ndarray
    outputs: np.ndarray


@dataclass(frozen=True)
class Progress:
    """How far a search came: subproblems refuted and open, worst margin, stage reached."""

    closed: int = 0
    open: int = 0
    margin: float = float("-inf")
    stage: str = ""


@dataclass(frozen=True)
class Sat:
    """Some input satisfies every assertion; `witness` is one."""

    witness: Witness
    progress: Progress = Progress()


@dataclass(frozen=True)
class Unsat:
    """No input satisfies the assertions, over the reals; `proof` says why."""

    proof: Proof
    progress: Progress = Progress()


@dataclass(frozen=True)
class Timeout:
    """Not decided in time."""

    progress: Progress = Progress()


@dataclass(frozen=True)
class Unknown:
    """Not decided, for a reason that more time does not cure."""

    reason: str
    progress: Progress = Progress()


Verdict: TypeAlias = Sat | Unsat | Timeout | Unknown
