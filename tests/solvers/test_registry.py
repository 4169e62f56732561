import pytest

from lpverify.errors import InputError
from lpverify.solvers.cvxpy import CvxpyLp, CvxpySdp
from lpverify.solvers.highs import Highs
from lpverify.solvers.registry import lp_backend, lp_names, sdp_backend, sdp_names


def test_names():
    assert isinstance(lp_backend("highs"), Highs)
    for name in ("cvxpy:SCS", "cvxpy:scs", "scs"):
        backend = lp_backend(name)
        assert isinstance(backend, CvxpyLp) and backend.name == "cvxpy:SCS"
        assert isinstance(sdp_backend(name), CvxpySdp)
    assert lp_backend("cvxpy:HIGHS").name == "cvxpy:HIGHS"
    assert sdp_backend("clarabel").name == "cvxpy:CLARABEL"


def test_listed_names_are_known():
    assert [lp_backend(name).name for name in lp_names()] == lp_names()
    assert [sdp_backend(name).name for name in sdp_names()] == sdp_names()


@pytest.mark.parametrize("make", [lp_backend, sdp_backend, CvxpyLp, CvxpySdp])
@pytest.mark.parametrize("name", ["", "simplex", "cvxpy:", "cvxpy:cvxpy:SCS", "cvxpy:NOSUCH"])
def test_unknown_names_list_what_there_is(make, name):
    with pytest.raises(InputError, match="SCS"):
        make(name)


def test_options_reach_the_solver():
    from solvers.programs import OPTIMA

    lp = OPTIMA["degenerate"].lp
    rough = CvxpyLp("SCS", {"eps_abs": 0.5, "eps_rel": 0.5}).solve(lp, 10).primal.sum()
    fine = CvxpyLp("SCS", {"eps_abs": 1e-9, "eps_rel": 1e-9}).solve(lp, 10).primal.sum()
    assert abs(fine - 1) < 1e-8 < abs(rough - 1)
