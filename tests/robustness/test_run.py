"""`certify` and `certified_radius`: exact answers, chains of inclusion, resuming, time, wrong arguments."""

import math
from fractions import Fraction

import numpy as np
import pytest
from robustness.cases import classifier, layers_of

import lpverify
from lpverify.config import Config
from lpverify.loading import LoadedNetwork
from lpverify.robustness import run as run_module
from lpverify.robustness.evidence import Attempt, Clean
from lpverify.robustness.plan import Plan
from lpverify.robustness.run import METHODS, Run
from lpverify.robustness.samples import Samples
from lpverify.robustness.store.store import MemoryStore
from lpverify.robustness.threat import Threat

BOUNDS = ("ibp", "crown", "lp", "ladder")
EPS = [Fraction(1, 64), Fraction(1, 16), Fraction(1, 4)]


def network(seed=0, sizes=(4, 10, 10, 3), **options):
    return LoadedNetwork(classifier(layers_of(seed, sizes), **options))


def data(net, count=8, seed=1, n=4):
    """Samples with the labels that the network gives them, but for the last one."""
    x = np.random.default_rng(seed).integers(0, 65, (count, n)) / 64
    y = net(x).argmax(axis=-1)
    y[-1] = (y[-1] + 1) % 3
    return x, y


def linear():
    """Leads are x0 - x1 over class 1 and 2 x0 over class 2."""
    weights = np.array([[1, 0, -1], [0, 1, 0]], np.float32)
    return LoadedNetwork(classifier([(weights, np.zeros(3, np.float32))]))


@pytest.mark.parametrize("norm", [math.inf, 2, 1])
@pytest.mark.parametrize("seed", [0, 1])
def test_what_is_proven_is_not_attacked_and_dearer_methods_prove_more(norm, seed):
    net = network(seed)
    x, y = data(net)
    found = lpverify.certify(net, x, y, EPS, norm=norm, method=BOUNDS, clip=(0, 1), seconds=5, jobs=0)
    assert found.clean_accuracy == 7 / 8
    for i, record in enumerate(found.records):
        for eps in EPS:
            verdicts = [found.verdict(i, method, eps) for method in BOUNDS]
            proven = [v == "proven" for v in verdicts]
            assert proven == sorted(proven)
            assert ("refuted" in verdicts) <= (set(verdicts) == {"refuted"})
        if record.nearest is not None:
            assert all((record.proven(m) or 0) < record.nearest.distance for m in BOUNDS)
    rows = {(row.method, row.eps): row for row in found.rows()}
    assert all(row.certified_accuracy <= row.empirical_accuracy for row in rows.values())
    if norm == math.inf:
        assert all(rows["ladder", eps].unknown == 0 for eps in EPS)  # complete
    assert all(found.verdict(7, method, eps) == "refuted" for method in BOUNDS for eps in EPS)


def test_a_linear_classifier_has_the_known_answers():
    net, x = linear(), np.array([[0.5, 0.25], [0.75, 0.25], [0.5, 0.5]])
    found = lpverify.certify(net, x, [0, 0, 0], [0.0625, 0.125, 0.25], clip=(0, 1), jobs=0)
    verdicts = [[found.verdict(i, "ladder", eps) for eps in found.eps] for i in range(3)]
    assert verdicts == [
        ["proven", "refuted", "refuted"],  # at exactly 1/8 the leads are equal: no proof
        ["proven", "proven", "refuted"],
        ["refuted"] * 3,  # a tie at the sample itself
    ]
    assert [(row.proven, row.refuted, row.unknown) for row in found.rows()] == [
        (2, 1, 0),
        (1, 2, 0),
        (0, 3, 0),
    ]


@pytest.mark.parametrize(("norm", "exact"), [(math.inf, [0.125, 0.25]), (2, [0.25 / 2**0.5, 0.5 / 2**0.5])])
@pytest.mark.parametrize("method", ["crown", "ladder"])
def test_radii_enclose_the_exact_ones(norm, exact, method):
    x, y = np.array([[0.5, 0.25], [0.75, 0.25], [0.5, 0.5]]), [0, 0, 0]
    radii = lpverify.certified_radius(linear(), x, y, 0.5, norm=norm, method=method, jobs=0)
    assert (radii.lower[:2] <= exact).all() and (radii.upper[:2] >= exact).all()
    assert np.allclose(radii.lower[:2], exact, rtol=0.02)
    assert np.allclose(radii.upper[:2], exact, rtol=0.02)
    assert radii.lower[2] == radii.upper[2] == 0
    assert radii.average == pytest.approx(radii.lower.sum() / 3)


def test_without_given_radii_the_curve_goes_as_far_as_anything_is_known():
    found = lpverify.certify(linear(), [[0.5, 0.25], [0.75, 0.25]], [0, 0], radius=0.5, jobs=0)
    assert len(found.eps) == 8 and 0.25 <= found.eps[-1] <= Fraction(0.26)
    assert [row.proven for row in found.rows()] == [2, 2, 2, 1, 1, 1, 1, 0]
    assert all(row.unknown == 0 for row in found.rows())


def test_radii_end_at_the_width_of_the_range():
    weights = np.array([[1, -1], [1, -1]], np.float32)
    net = LoadedNetwork(classifier([(weights, np.array([1, 0], np.float32))]))
    radii = lpverify.certified_radius(net, [[0.5, 0.5]], [0], clip=(0, 1), method="crown", jobs=0)
    assert (radii.lower[0], radii.upper[0]) == (1.0, math.inf)
    with pytest.raises(lpverify.InputError, match="needs an end"):
        lpverify.certified_radius(net, [[0.5, 0.5]], [0])


def test_only_the_next_class_counts_if_it_is_so_asked():
    x = np.array([[0.125, -1.0]])  # class 2 is near, class 1 is not
    every = lpverify.certify(linear(), x, [0], 0.25, jobs=0)
    only = lpverify.certify(linear(), x, [0], 0.25, targets="next", jobs=0)
    assert every.rows()[0].refuted == only.rows()[0].proven == 1


def test_radii_and_range_are_in_units_before_normalisation():
    x, y = np.array([[127.5, 63.75]]), [0]
    options = {"clip": (0, 255), "mean": 0, "std": 255, "jobs": 0}
    found = lpverify.certify(linear(), x, y, [31, 32.5], **options)
    assert [found.verdict(0, "ladder", eps) for eps in found.eps] == ["proven", "refuted"]


def test_softmax_heads_change_nothing():
    plain, soft = network(3), network(3, head="Softmax")
    x, y = data(plain)
    tables = [
        [[f.verdict(i, "ladder", e) for e in EPS] for i in range(len(x))]
        for f in (lpverify.certify(net, x, y, EPS, clip=(0, 1), jobs=0, seconds=5) for net in (plain, soft))
    ]
    assert tables[0] == tables[1]


def test_smoothing_stands_beside_the_others():
    net = network(2)
    x, y = data(net)
    found = lpverify.certify(
        net, x, y, [0.001, 4.0], norm=2, method=["crown", "smoothing"], sigma=0.05, n=500, jobs=0
    )
    rows = {(row.method, float(row.eps)): row for row in found.rows()}
    assert rows["smoothing", 0.001].proven > 0 and rows["smoothing", 4.0].proven == 0
    assert rows["smoothing", 0.001].refuted >= 1  # the sample with the wrong label
    assert found.settings["sigma"] == 0.05
    with pytest.raises(lpverify.InputError, match="needs sigma"):
        lpverify.certify(net, x, y, 0.1, norm=2, method="smoothing")


def test_every_method_runs_or_says_why_not():
    net = network(4, (3, 6, 3))
    x, y = data(net, 4, n=3)
    for norm in (math.inf, 2):
        names = [m for m in METHODS if m not in ("ladder", "sdp-crown" if norm == math.inf else "sdp")]
        found = lpverify.certify(
            net, x, y, [0.02, 0.1], norm=norm, method=names, sigma=0.1, n=200, seconds=20, jobs=0
        )
        assert [row.method for row in found.rows()][::2] == names
        assert all(row.proven + row.refuted + row.unknown == 4 for row in found.rows())
    with pytest.raises(lpverify.InputError, match="sdp-crown is for norm 1 and 2"):
        lpverify.certify(net, x, y, 0.1, method="sdp-crown")


def test_runs_go_on_from_the_store(tmp_path):
    net = network(5)
    x, y = data(net)
    options = {"method": BOUNDS, "clip": (0, 1), "seconds": 5, "jobs": 0}
    whole = lpverify.certify(net, x, y, EPS, **options)
    store = tmp_path / "run.sqlite"

    class StopError(Exception):
        pass

    def stop_after(count):
        reports = iter(range(count))

        def report(status):
            if next(reports, None) is None:
                raise StopError

        return report

    for count in range(1, 6):  # killed at different moments, each going on from the one before
        try:
            lpverify.certify(net, x, y, EPS, **options, store=store, report=stop_after(count))
        except StopError:
            continue
    found = lpverify.certify(net, x, y, EPS, **options, store=store)
    assert [counts(row) for row in found.rows()] == [counts(row) for row in whole.rows()]
    again = lpverify.certify(net, x, y, EPS, **options, store=store)
    assert [counts(row) for row in again.rows()] == [counts(row) for row in whole.rows()]
    with pytest.raises(lpverify.InputError, match="norm"):
        lpverify.certify(net, x, y, EPS, **{**options, "norm": 2}, store=store)
    with pytest.raises(lpverify.InputError, match="network"):
        lpverify.certify(network(6), x, y, EPS, **options, store=store)


def counts(row):
    return row.method, row.eps, row.proven, row.refuted, row.unknown


def test_nothing_is_asked_twice(tmp_path, monkeypatch):
    net, asked = network(5), []
    x, y = data(net)
    bounds = run_module.BatchedBounds.answer

    def answer(self, questions):
        asked.extend((self.name, q) for q in questions)
        return bounds(self, questions)

    monkeypatch.setattr(run_module.BatchedBounds, "answer", answer)
    for _ in range(2):
        lpverify.certify(net, x, y, EPS, method=BOUNDS, store=tmp_path / "s", seconds=5, jobs=0)
    assert asked and len(set(asked)) == len(asked)


def test_a_counterexample_outweighs_a_proof():
    net = network(7)
    x, y = data(net, 2)
    model, samples = net.model, Samples(x, y, ("a", "b"), (4,))
    store = MemoryStore()
    store.add([Clean(0, int(y[0]), True, 1.0), Attempt(0, "ibp", Fraction(1), "proven", "ibp", 0.0)])
    plan = Plan(jobs=0, config=Config())
    run = Run(model, samples, Threat(3), (Fraction(2),), ("ibp",), plan, store)
    run.go()
    record = run.ledger.records[0]
    assert record.nearest is not None and record.verdict("ibp", Fraction(2)) == "refuted"


def test_time_is_kept_and_what_is_left_goes_to_the_undecided():
    net = network(8, (12, 60, 60, 60, 3))
    x, y = data(net, 6, n=12)
    found = lpverify.certify(net, x, y, [0.05, 0.1, 0.2], seconds=0.05, spare=2, jobs=0, attack=False)
    tried = [a for r in found.records for (m, _), a in r.tried.items() if m == "ladder"]
    assert tried and max(a.seconds for a in tried) < 5
    assert {a.verdict for a in tried} <= {"proven", "refuted", "unknown"}
    assert all(a.reason for a in tried if a.verdict == "unknown")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": [0, 3]}, "label"),
        ({"y": [0, -1]}, "label"),
        ({"y": [0]}, "label"),
        ({"x": [[0.5, 0.5], [math.nan, 0.5]]}, "nan"),
        ({"x": [[0.5, 0.5, 0.5], [0.5, 0.5, 0.5]]}, "shape|inputs"),
        ({"x": [[0.5, 0.5], [1.5, 0.5]], "clip": (0, 1)}, "clip|range"),
        ({"eps": -0.1}, "negative"),
        ({"eps": math.nan}, "finite"),
        ({"eps": math.inf}, "finite"),
        ({"eps": "big"}, "number"),
        ({"eps": []}, "at least one"),
        ({"norm": 3}, "norm"),
        ({"clip": (1, 0)}, "clip"),
        ({"clip": 1}, "clip"),
        ({"targets": "some"}, "targets"),
        ({"method": "magic"}, "magic"),
        ({"method": []}, "at least one"),
        ({"seconds": 0}, "seconds"),
        ({"spare": -1}, "spare"),
        ({"jobs": -1}, "jobs"),
        ({"radius": 0}, "radius"),
        ({"method": "smoothing", "sigma": 0}, "sigma"),
        ({"method": "smoothing", "sigma": 1, "alpha": 2}, "alpha"),
        ({"method": "smoothing", "sigma": 1, "n": 0}, "n"),
        ({"std": 0}, "std|deviation|above 0"),
        ({"names": ["a", "a"]}, "name"),
    ],
)
def test_wrong_arguments_are_told(changes, message):
    options = {"x": [[0.5, 0.25], [0.75, 0.25]], "y": [0, 0], "eps": 0.1, "jobs": 0} | changes
    with pytest.raises(lpverify.InputError, match=message):
        lpverify.certify(linear(), options.pop("x"), options.pop("y"), options.pop("eps"), **options)


def test_networks_that_are_no_classifiers_are_refused():
    net = LoadedNetwork(classifier(layers_of(0, (2, 3, 1))))
    with pytest.raises(lpverify.InputError, match="class"):
        lpverify.certify(net, [[0.5, 0.5]], [0], 0.1)
