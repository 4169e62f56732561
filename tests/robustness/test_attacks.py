import math
from fractions import Fraction

import numpy as np
import pytest
from helpers import dense_model, graph_proto, model_proto, random_dense
from onnx import TensorProto, helper
from scipy.optimize import linprog

from lpverify.config import Config, Deadline
from lpverify.errors import InputError
from lpverify.io.onnx import import_model
from lpverify.robustness.attack.attacks import Attack, AttackPlan, Hunt
from lpverify.robustness.attack.descent import Runs, diverse_starts
from lpverify.robustness.attack.nearest import nearest, shrink
from lpverify.robustness.evidence import Adversarial, Attempt, Question
from lpverify.robustness.judge import Judge
from lpverify.robustness.margins import Margins
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat
from lpverify.search.attack import values_and_gradient
from lpverify.search.engines import torch_float32

NORMS = (math.inf, 2, 1)
DUAL = {math.inf: 1, 2: 2, 1: math.inf}
node = helper.make_node


def attack_of(model, x, seed=0, plan=None, y=None, shape=None, **threat):
    x = np.asarray(x, model.inputs.dtypes[0]).astype(np.float64)
    y = np.argmax(model.network(x), axis=1) if y is None else np.array(y)
    samples = Samples(x, y.astype(np.int64), tuple(str(i) for i in range(len(x))), shape or x.shape[1:])
    threat = Threat(model.outputs.sizes[0], **threat)
    margins, judge = Margins.of(model, samples, threat, Config()), Judge(model, samples, threat)
    return Attack(margins, judge, seed, plan or AttackPlan())


def linear(seed=0, inputs=12, classes=4, count=10, least=0.0, **threat):
    """An attack on a linear classifier at inputs of a least size, and minimal distances without a range."""
    rng = np.random.default_rng(seed)
    weight, bias = rng.normal(size=(inputs, classes)).astype(np.float32), np.zeros(classes)
    x = rng.choice([-1, 1], (count, inputs)) * rng.uniform(least, 1, (count, inputs))
    attack = attack_of(dense_model([(weight, bias)]), x, **threat)
    dual = DUAL[attack.judge.threat.norm]
    exact = [min(row @ x / np.linalg.norm(row, dual) for row in rows) for x, rows in leads_of(attack, weight)]
    return attack, np.array(exact)


def leads_of(attack, weight):
    """Each sample, and the gradients of its leads."""
    samples, weight = attack.judge.samples, weight.astype(np.float64)
    for x, y in zip(samples.x, samples.y, strict=True):
        yield x, [weight[:, y] - weight[:, r] for r in attack.judge.threat.rivals(int(y))]


def least_distance(x, rows, norm):
    """The exact minimal distance in the range from -1 to 1, by linear programs."""
    n, found = len(x), []
    for row in rows:  # variables: displacements up and down, and their largest one
        moves = np.concatenate([row, -row, [0.0]])[None]
        largest = np.concatenate([np.eye(n), np.eye(n), -np.ones((n, 1))], axis=1)
        cost = np.concatenate([np.zeros(2 * n), [1.0]] if norm == math.inf else [np.ones(2 * n), [0.0]])
        bounds = [*((0, 1 - v) for v in x), *((0, 1 + v) for v in x), (0, None)]
        limits = np.concatenate([[-row @ x], np.zeros(n)])
        solved = linprog(cost, np.concatenate([moves, largest]), limits, bounds=bounds)
        found.append(solved.fun if solved.success else math.inf)
    return min(found)


def split(findings):
    findings = list(findings)
    attempts = [f for f in findings if isinstance(f, Attempt)]
    return attempts, [f for f in findings if isinstance(f, Adversarial)]


def stepped():
    """The share of inputs above 0.3, less a quarter, against 0; so steep that hardly a point has slopes."""
    n, steep = 16, 200.0
    first = np.concatenate([steep * np.eye(n), steep * np.eye(n)], axis=1)
    bias = np.concatenate([np.full(n, -0.3 * steep), np.full(n, -0.3 * steep - 1)])
    last = np.zeros((2 * n, 2))
    last[:, 0] = np.concatenate([np.full(n, 1 / n), np.full(n, -1 / n)])
    return dense_model([(first, bias), (last, np.array([-0.25, 0.0]))])


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("targets", ["all", "next"])
def test_nearest_of_linear_classifiers(norm, targets):
    """The exact distance is |lead| / dual norm of the row; a sample that ties or loses has distance 0."""
    attack, exact = linear(norm=norm, targets=targets)
    exact = np.maximum(exact, 0.0)
    found = {a.sample: a for a in nearest(attack, range(10), Deadline(), Fraction(50))}
    distance = np.array([float(found[i].distance) for i in range(10)])
    assert len(found) == 10
    assert (distance >= exact - 1e-6).all()
    assert (distance <= exact * 1.001).all()


@pytest.mark.parametrize("norm", NORMS)
def test_answers_agree_with_exact_distances(norm):
    attack, exact = linear(norm=norm)
    factors = (0.3, 0.98, 1.02, 3.0)
    questions = [Question(i, Fraction(float(exact[i] * f))) for i in range(10) for f in factors]
    attempts, adversarial = split(attack.answer(questions))
    assert {(a.sample, a.eps) for a in attempts} == {(q.sample, q.eps) for q in questions}
    for attempt in attempts:
        beyond = float(attempt.eps) > exact[attempt.sample]
        assert attempt.verdict == ("refuted" if beyond else "unknown")
        assert attempt.stage in (("step", "pgd") if beyond else ("pgd",))
        assert bool(attempt.reason) != beyond
    for found in adversarial:
        assert attack.judge.adversarial(found.sample, found.point, "again").distance == found.distance


@pytest.mark.parametrize("norm", [1, math.inf])
def test_nearest_in_a_range(norm):
    """Where the range cuts the ball the distance grows; the linear program knows how much."""
    attack, free = linear(norm=norm, clip=(-1, 1), least=0.7)
    weight = np.random.default_rng(0).normal(size=(12, 4)).astype(np.float32)
    exact = np.array([least_distance(x, rows, norm) for x, rows in leads_of(attack, weight)])
    found = {a.sample: a for a in nearest(attack, range(10), Deadline(), Fraction(50))}
    distance = np.array([float(found[i].distance) for i in range(10)])
    assert (distance >= exact - 1e-6).all()
    assert (distance <= exact * 1.01).all()
    assert all(np.abs(a.point).max() <= 1 for a in found.values())
    assert (exact > 1.02 * free).sum() >= 3


def test_euclidean_points_stay_in_the_range():
    attack, _ = linear(norm=2, clip=(-1, 1), least=0.7)
    found = list(nearest(attack, range(10), Deadline(), Fraction(50)))
    found += split(attack.answer([Question(i, Fraction(2)) for i in range(10)]))[1]
    assert len(found) >= 15
    for adversarial in found:
        assert np.abs(adversarial.point).max() <= 1
    assert any(np.abs(a.point).max() == 1 for a in found)


def test_one_counterexample_answers_all_larger_radii():
    attack, exact = linear()
    questions = [Question(0, Fraction(float(exact[0] * f))) for f in (4.0, 2.0, 1.1)]
    attempts, adversarial = split(attack.answer(questions))
    assert [a.verdict for a in attempts] == ["refuted"] * 3
    assert len(adversarial) == 1


def test_a_sample_that_is_misclassified_or_ties_is_its_own_counterexample():
    model = dense_model([(np.eye(2), np.zeros(2))])
    attack = attack_of(model, [[1, 1], [0, 1], [1, 0]], y=[0, 0, 0])
    attempts, adversarial = split(attack.answer([Question(i, Fraction(1, 100)) for i in range(3)]))
    assert {(a.sample, a.distance) for a in adversarial} == {(0, 0), (1, 0)}
    assert [(a.verdict, a.stage) for a in attempts[:2]] == [("refuted", "clean")] * 2
    assert attempts[2].verdict == "unknown"
    assert {a.distance for a in nearest(attack, [0, 1], Deadline(), Fraction(1))} == {0}


def test_a_radius_that_just_reaches_a_tie():
    """At distance 1/2 exactly both outputs are equal, which counts; a little less does not."""
    attack = attack_of(dense_model([(np.eye(2), np.zeros(2))]), [[1, 0]])
    questions = [Question(0, Fraction(1, 2)), Question(0, Fraction(1, 2) - Fraction(1, 10**4))]
    attempts, adversarial = split(attack.answer(questions))
    assert [a.verdict for a in attempts] == ["unknown", "refuted"]
    assert [a.distance for a in adversarial] == [Fraction(1, 2)]


@pytest.mark.parametrize("norm", NORMS)
def test_it_beats_random_points(norm):
    """On deeper networks a counterexample is found at the distance of the best of many random ones."""
    hits = 0
    for seed in range(4):
        rng = np.random.default_rng(seed)
        attack = attack_of(random_dense(seed, (10, 24, 24, 3)), rng.uniform(-1, 1, (1, 10)), norm=norm)
        samples, threat = attack.judge.samples, attack.judge.threat
        points = samples.x[0] + rng.normal(size=(2000, 10)) * rng.uniform(0, 1, (2000, 1))
        wrong = np.argmax(attack.judge.model.network(points), axis=1) != samples.y[0]
        distance = min(float(threat.distance(samples.x[0], p)) for p in points[wrong])
        attempts, _ = split(attack.answer([Question(0, Fraction(0.8 * distance))]))
        hits += attempts[0].verdict == "refuted"
    assert hits == 4


def test_a_double_network_is_attacked_in_double():
    """Single precision could not tell the sample from its counterexample."""
    constants = {"w": np.eye(2), "b": np.array([0.0, -1e-9])}
    graph = graph_proto(
        [node("Gemm", ["x", "w", "b"], ["y"])],
        {"x": (TensorProto.DOUBLE, [1, 2])},
        {"y": TensorProto.DOUBLE},
        constants,
    )
    attack = attack_of(import_model(model_proto(graph, 13).SerializeToString()), [[1.0, 1.0]], y=[0])
    (found,) = nearest(attack, [0], Deadline(), Fraction(1, 10**8))
    assert 0.4999e-9 < float(found.distance) < 0.5001e-9
    attempts, _ = split(attack.answer([Question(0, Fraction(4, 10**10)), Question(0, Fraction(6, 10**10))]))
    assert [a.verdict for a in attempts] == ["unknown", "refuted"]


def test_nan_outputs_do_not_count():
    """`y = sqrt(x)` is NaN below 0: only points above are counterexamples."""
    graph = graph_proto(
        [node("Sqrt", ["x"], ["y"])], {"x": (TensorProto.FLOAT, [1, 2])}, {"y": TensorProto.FLOAT}
    )
    model = import_model(model_proto(graph, 13).SerializeToString())
    attack = attack_of(model, [[0.5, 0.25]], y=[0])
    attempts, adversarial = split(attack.answer([Question(0, Fraction(k, 10)) for k in (1, 2, 9)]))
    assert [a.verdict for a in attempts] == ["unknown", "refuted", "refuted"]
    assert all((a.point >= 0).all() for a in adversarial)


@pytest.mark.parametrize(("norm", "eps"), [(math.inf, 0.35), (2, 1.4)])
@pytest.mark.parametrize("shape", [(16,), (1, 4, 4)])
def test_random_search_where_gradients_are_zero(norm, eps, shape):
    """Three quarters of the inputs must fall below 0.3; the descent sees hardly a slope."""
    attack = attack_of(stepped(), np.full((2, 16), 0.5), y=[0, 0], norm=norm, shape=shape)
    attempts, adversarial = split(attack.answer([Question(i, Fraction(eps)) for i in range(2)]))
    assert [(a.verdict, a.stage) for a in attempts] == [("refuted", "square")] * 2
    assert all(a.distance <= Fraction(eps) for a in adversarial)


def test_shrink_brings_a_counterexample_nearer():
    attack, exact = linear(norm=2)
    judge, i = attack.judge, 3
    far = next(
        a
        for p in np.random.default_rng(0).normal(size=(50, 12)) * 3
        if (a := judge.adversarial(i, judge.samples.x[i] + p, "test")) is not None
    )
    near = shrink(attack, far, Deadline())
    assert float(far.distance) > 2 * exact[i]
    assert exact[i] * (1 - 1e-5) <= float(near.distance) <= 1.001 * exact[i]
    assert shrink(attack, far, Deadline.after(0)).distance <= far.distance


@pytest.mark.parametrize("norm", NORMS)
def test_the_seed_and_nothing_else_decides(norm):
    """The same answers in another order of questions and beside other samples."""
    model, x = random_dense(5, (8, 20, 20, 3)), np.random.default_rng(1).uniform(-1, 1, (6, 8))

    def points(order, seed=0):
        attack = attack_of(model, x, seed, AttackPlan(short_steps=0), norm=norm)
        found = split(attack.answer([Question(i, Fraction(1)) for i in order]))[1]
        return {a.sample: a.point.tolist() for a in found}

    first, again, other = points(range(6)), points([5, 0, 3]), points(range(6), seed=1)
    assert {i: p for i, p in first.items() if i in (0, 3, 5)} == again
    assert len(first) >= 3
    assert first != other


def test_starts_differ_and_stay_in_the_ball():
    attack, _ = linear(norm=1, clip=(-1, 1))
    samples = np.array([0, 0, 1])
    radius = np.array([0.5, 0.5, 2.0])
    runs = Runs.of(attack.judge, samples, np.full(3, -1), radius, np.float32)
    keys = attack.keys(np.array([0, 1]), 2)[:3]
    starts = diverse_starts(attack.leads, attack.judge, runs, keys)
    assert not np.allclose(starts[0], starts[1])
    points = runs.points(attack.judge, starts)
    for i, eps, point in zip(samples, radius, points, strict=True):
        distance = attack.judge.threat.distance(attack.judge.samples.x[i], point)
        assert distance is not None
        assert distance <= Fraction(float(eps))


def test_the_deadline():
    attack, _ = linear()
    assert list(attack.answer([Question(0, Fraction(1))], Deadline.after(0))) == []
    assert list(nearest(attack, [0], Deadline.after(0), Fraction(9))) == []
    assert len(list(attack.answer([Question(0, Fraction(1))]))) > 0


def test_only_points_within_the_radius_are_taken():
    attack = attack_of(dense_model([(np.eye(2), np.zeros(2))]), [[1, 0]])
    hunt = Hunt(attack.judge, {0: Fraction(1)}, np.float32)
    points = np.array([[-1.0, 0.0], [0.0, 0.0], [1.0, 0.5]])
    taken = [bool(hunt.take("test", np.array([0]), point[None])[0]) for point in points]
    assert taken == [False, True, False]
    assert hunt.found[0].distance == 1


@pytest.mark.parametrize("norm", NORMS)
def test_nearest_within_a_distance(norm):
    attack, exact = linear(norm=norm)
    for factor, count in ((0.999, 0), (1.001, 1)):
        for i in range(10):
            found = list(nearest(attack, [i], Deadline(), Fraction(float(exact[i] * factor))))
            assert len(found) == count
            assert all(float(a.distance) <= exact[i] * factor for a in found)


def test_networks_may_be_torch_ones():
    attack, exact = linear(norm=2)
    expected = {a.sample: float(a.distance) for a in nearest(attack, range(10), Deadline(), Fraction(50))}
    other, _ = linear(norm=2)
    other.margins.__dict__["arithmetic"] = torch_float32(other.margins.problem, 2**21, "cpu")
    assert not isinstance(other.leads.arithmetic.like, np.ndarray)
    found = {a.sample: float(a.distance) for a in nearest(other, range(10), Deadline(), Fraction(50))}
    assert found == pytest.approx(expected, rel=1e-4)
    attempts, _ = split(other.answer([Question(i, Fraction(float(2 * exact[i]))) for i in range(10)]))
    assert {a.verdict for a in attempts} == {"refuted"}


def test_wrong_arguments():
    attack, _ = linear()
    with pytest.raises(InputError, match="negative"):
        list(attack.answer([Question(0, Fraction(-1))]))
    with pytest.raises(InputError, match="positive"):
        list(nearest(attack, [0], Deadline(), Fraction(0)))
    with pytest.raises(InputError, match="seed"):
        Attack(attack.margins, attack.judge, -1)


def test_gradients_are_those_of_differences():
    attack = attack_of(random_dense(0, (6, 12, 4)), np.random.default_rng(0).uniform(-1, 1, (3, 6)))
    leads, x, y = attack.leads, attack.judge.samples.x, attack.judge.samples.y
    for targets in (np.full(3, -1), (y + 1) % 4):
        outputs, gradient = leads.gradient(x, y, targets)
        start = leads.lead(outputs, y, targets)
        for k in range(6):
            step = 1e-3 * np.eye(6)[k]
            change = leads.lead(leads.outputs(x + step), y, targets) - start
            assert change == pytest.approx(1e-3 * gradient[:, k], abs=2e-4)
    values, _ = values_and_gradient(leads.arithmetic, x, np.zeros_like)
    assert values == pytest.approx(outputs)
