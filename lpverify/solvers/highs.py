"""HiGHS through highspy (Huangfu and Hall 2018)."""

import time

import numpy as np

from lpverify.errors import SolverError
from lpverify.solvers.base import LinearProgram, LpAnswer, LpBackend, LpStatus


class Highs(LpBackend):
    """Dual simplex without presolve, so that infeasible programs come with a ray."""

    name = "highs"

    def solve(self, lp: LinearProgram, seconds: float) -> LpAnswer:
        import highspy  # noqa: PLC0415  (slow to import, not every query needs it)

        start = time.monotonic()
        solver = highspy.Highs()
        solver.setOptionValue("output_flag", False)
        solver.setOptionValue("threads", 1)
        solver.setOptionValue("presolve", "off")
        solver.setOptionValue("solver", "simplex")
        solver.setOptionValue("time_limit", max(seconds, 0.01))
        solver.passModel(_model(lp, highspy))
        solver.run()
        status = solver.getModelStatus()
        known = highspy.HighsModelStatus
        primal = dual = None
        if status == known.kOptimal:
            claim = LpStatus.OPTIMAL
            solution = solver.getSolution()
            primal, dual = np.array(solution.col_value), np.array(solution.row_dual)
        elif status == known.kInfeasible:
            claim = LpStatus.INFEASIBLE
            dual = _ray(solver, len(lp.row_lower))
        elif status in (known.kTimeLimit, known.kIterationLimit, known.kInterrupt, known.kObjectiveBound):
            claim = LpStatus.LIMIT
        else:
            raise SolverError(f"HiGHS: {solver.modelStatusToString(status)}")
        return LpAnswer(claim, primal, dual, time.monotonic() - start)


def _ray(solver: object, rows: int) -> np.ndarray | None:
    """The dual ray with the sign of row multipliers, None if the solver has none."""
    answer = solver.getDualRay()  # type: ignore[attr-defined]
    if not answer[1]:
        return None
    ray = np.array(answer[2])
    return ray if len(ray) == rows else None


def _model(lp: LinearProgram, highspy: object) -> object:
    rows, columns = lp.matrix.shape
    model = highspy.HighsLp()  # type: ignore[attr-defined]
    model.num_col_, model.num_row_ = columns, rows
    model.col_cost_, model.col_lower_, model.col_upper_ = lp.cost, lp.lower, lp.upper
    model.row_lower_, model.row_upper_ = lp.row_lower, np.full(rows, np.inf)
    model.a_matrix_.format_ = highspy.MatrixFormat.kRowwise  # type: ignore[attr-defined]
    mask = lp.matrix != 0
    model.a_matrix_.start_ = np.concatenate([[0], np.cumsum(mask.sum(axis=1))]).astype(np.int32)
    model.a_matrix_.index_ = np.nonzero(mask)[1].astype(np.int32)
    model.a_matrix_.value_ = lp.matrix[mask]
    return model
