"""Mixed-integer programming on a problem: a MILP solver looks for counterexamples, a tree of phases proves.

Accepts: what `search.lp` accepts.
Method: the big-M program of each open alternative (`bounds.phases`) goes to HiGHS, which stops at the first
point that violates; the point is replayed. What the solver claims to be impossible is proven by `search.lp`,
or stays undecided.
"""

from dataclasses import dataclass, field

import numpy as np

from lpverify.bounds.phases import big_m
from lpverify.config import Deadline
from lpverify.errors import SolverError
from lpverify.search.attack import try_points
from lpverify.search.lp import LpSearch
from lpverify.solvers.highs import Highs, HighsOptions
from lpverify.verdict import Sat, Verdict, Witness

SHARE = 0.5  # of the time left, for the solver
ENOUGH = -1e-6  # of a violation, for the solver to stop


@dataclass
class MilpSearch(LpSearch):
    """As `LpSearch`, after a mixed-integer program for each open alternative.

    Attributes:
        claims: What the solver claimed, one status an alternative.
    """

    claims: list[str] = field(default_factory=list)

    def run(self, deadline: Deadline) -> Verdict:
        """As `LpSearch.run`."""
        if not self.claims:
            witness = self._propose(deadline.within(SHARE * min(deadline.remaining, 1e6)))
            if witness is not None:
                return Sat(witness, self.progress())
        return super().run(deadline)

    def _propose(self, deadline: Deadline) -> Witness | None:
        """The solver's points, replayed."""
        for item in self.waiting:
            programs, open_ = self.alternatives_of(item)
            for atoms in open_:
                if deadline.passed:
                    return None
                program, constant = programs.of(atoms)
                options = HighsOptions(threads=self.threads, target=ENOUGH - constant)
                try:
                    answer = Highs(options).solve(big_m(program), deadline.remaining)
                except SolverError:
                    self.claims.append("failed")
                    continue
                self.claims.append(answer.status.name.lower())
                if answer.primal is None:
                    continue
                x = np.clip(answer.primal[: program.inputs], item.lower, item.upper)
                witness = try_points(self.problem, item.case, x[None], self.replay)
                if witness is not None:
                    return witness
        return None
