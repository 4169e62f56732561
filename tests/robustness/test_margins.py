"""Bounds of leads: sound, the same in batches and alone, and never from a tie."""

import math
from fractions import Fraction

import numpy as np
import pytest
from helpers import exact_dense, graph_proto, model_of, model_proto
from onnx import TensorProto, helper
from robustness.cases import (
    classifier,
    convolutional,
    layers_of,
    least_lead,
    points_of,
    samples_for,
)

from lpverify.config import Config
from lpverify.errors import InputError, UnsupportedError
from lpverify.io.onnx import import_model
from lpverify.methods import METHODS
from lpverify.robustness.bounders import BATCHED, BatchedBounds, SingleBounds, attempt_of, chain
from lpverify.robustness.evidence import Question
from lpverify.robustness.margins import LARGEST_BATCH, Margins, classes_of
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat
from lpverify.search import engines

INF, TENTH = math.inf, Fraction(1, 10)
SIZES = (5, 7, 6, 4)
RADII = (Fraction(0), Fraction(1, 100), TENTH, Fraction(1, 2))
NORMS = (1, 2, INF)
CLIPS = (None, (0, 1), (-TENTH, 1 + TENTH))


def margins_of(model, samples, **threat) -> Margins:
    return Margins.of(model, samples, Threat(classes_of(model), **threat), Config())


def batched(margins, name, questions) -> np.ndarray:
    """The margins of all questions, in their order."""
    attempts = list(BatchedBounds(margins, name).answer(questions))
    assert [Question(a.sample, a.eps) for a in attempts] == questions
    for a in attempts:
        assert (a.method, a.stage) == (name, name)
        assert a.verdict == ("proven" if 0 < a.margin < INF else "unknown")
        assert bool(a.reason) == (a.verdict == "unknown")
        assert a.seconds >= 0
    return np.array([a.margin for a in attempts])


def questions_of(count, radii=RADII) -> list[Question]:
    return [Question(i, eps) for i in range(count) for eps in radii]


def relabelled(samples, classes) -> Samples:
    """Each sample with another label than the network's."""
    return Samples(samples.x, (samples.y + 1) % classes, samples.names, samples.shape)


# Never above the truth


@pytest.mark.parametrize("targets", ["all", "next"])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("head", [None, "Softmax"])
def test_bounds_of_relu_networks_hold_exactly(head, norm, targets) -> None:
    """With a softmax the leads are those of its operands, which have the same signs."""
    proven = 0
    for seed in range(3):
        layers = layers_of(seed, SIZES)
        model = classifier(layers, head=head)
        samples, clip = samples_for(model, 3, seed), CLIPS[seed]
        samples = relabelled(samples, 4) if seed == 2 else samples
        threat = Threat(4, norm, clip, targets)
        margins, questions = Margins.of(model, samples, threat, Config()), questions_of(3)
        true = []
        for q in questions:
            points = points_of(samples.x[q.sample], q.eps, threat, 12, seed)
            leads = [least_lead(exact_dense(layers, p), int(samples.y[q.sample]), threat) for p in points]
            true.append(min(leads))
        for name in BATCHED:
            found = batched(margins, name, questions)
            assert not np.isnan(found).any()
            assert all(low <= lead for low, lead in zip(found.tolist(), true, strict=True)), name
            proven += int((found > 0).sum())
    assert proven > 20


@pytest.mark.parametrize("name", ["lp", "obbt", "sdp-crown", "sdp", "milp"])
def test_bounds_by_programs_hold_exactly(name) -> None:
    layers = layers_of(1, (4, 5, 5, 3))
    model = classifier(layers)
    samples = samples_for(model, 2, 1)
    threat = Threat(3, 2, (0, 1))
    bounds = SingleBounds(Margins.of(model, samples, threat, Config()), name)
    for q in questions_of(2, (Fraction(1, 20), TENTH, Fraction(2, 5))):
        low, label = bounds.margin(q), int(samples.y[q.sample])
        for point in points_of(samples.x[q.sample], q.eps, threat, 25):
            assert low <= least_lead(exact_dense(layers, point), label, threat)


@pytest.mark.parametrize("activation", ["Sigmoid", "Tanh"])
@pytest.mark.parametrize("norm", NORMS)
def test_bounds_of_smooth_networks_hold(activation, norm) -> None:
    layers = layers_of(3, SIZES)
    plain, model = classifier(layers, activation), classifier(layers, activation, "Softmax")
    samples, threat = samples_for(model, 3), Threat(4, norm, (0, 1))
    margins, questions = Margins.of(model, samples, threat, Config()), questions_of(3)
    for q, *lows in zip(questions, *(batched(margins, n, questions) for n in BATCHED), strict=True):
        points = points_of(samples.x[q.sample], q.eps, threat, 30)
        outputs = plain.network(np.array(points, np.float64))
        true = min(least_lead(y, int(samples.y[q.sample]), threat) for y in outputs.tolist())
        assert max(lows) <= true + 1e-13 * abs(outputs).max()


def test_a_large_ball_is_refused_and_a_small_one_is_not() -> None:
    model = classifier(layers_of(0, SIZES))
    margins = margins_of(model, samples_for(model, 4), norm=2)
    for name in BATCHED:
        assert (batched(margins, name, questions_of(4, (Fraction(0),))) > 0).all()
        assert (batched(margins, name, questions_of(4, (Fraction(20),))) < 0).all()


# Batches


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["Relu", "Tanh"])
def test_samples_do_not_change_each_other(activation, norm) -> None:
    model = classifier(layers_of(4, SIZES), activation)
    some = samples_for(model, 6)
    mixed = Samples(some.x, np.arange(6) % 4, some.names, some.shape)
    margins, questions = margins_of(model, mixed, norm=norm, clip=(0, 1)), questions_of(6, RADII)
    for name in set(BATCHED) - {"alpha-crown"}:  # whose ascent ends when all of a batch are proven
        together = batched(margins, name, questions)
        alone = np.concatenate([batched(margins, name, [q]) for q in questions])
        np.testing.assert_array_equal(together > 0, alone > 0)
        open_ = ~(alone > 0)  # others are bounded only as far as a proof takes, in each batch another way
        assert 0 < open_.sum() < len(open_)
        np.testing.assert_allclose(together[open_], alone[open_], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("name", BATCHED)
def test_batches_prove_about_what_single_bounds_prove(name, norm) -> None:
    """Radii at which the samples are hardly proven, or hardly not: single bounds have no cheap way out."""
    model = classifier(layers_of(5, SIZES))
    margins = margins_of(model, samples_for(model, 4), norm=norm)
    for i in range(4):
        low, high = Fraction(0), Fraction(8)
        for _ in range(12):
            middle = (low + high) / 2
            proven = SingleBounds(margins, name).margin(Question(i, middle)) > 0
            low, high = (middle, high) if proven else (low, middle)
        assert low > 0
        (found,) = batched(margins, name, [Question(i, low * Fraction(19, 20))])
        assert found > 0, (i, float(low))


def test_the_ball_is_used_for_the_last_row() -> None:
    """A linear classifier: the bound is the lead less the radius times the dual norm of the weights."""
    rng = np.random.default_rng(0)
    weight = (np.round(64 * rng.normal(size=(30, 2))) / 64).astype(np.float32)
    model = classifier([(weight, np.zeros(2, np.float32))])
    samples, eps = samples_for(model, 5), Fraction(1, 8)
    for norm, dual in ((1, INF), (2, 2), (INF, 1)):
        margins = margins_of(model, samples, norm=norm)
        for i, label in enumerate(samples.y.tolist()):
            row = (weight[:, label] - weight[:, 1 - label]).astype(np.float64)
            expected = samples.x[i] @ row - float(eps) * np.linalg.norm(row, dual)
            for name in set(BATCHED) - {"ibp"}:
                assert batched(margins, name, [Question(i, eps)])[0] == pytest.approx(expected, rel=1e-9)


def test_many_questions_are_taken_in_batches(monkeypatch) -> None:
    model = classifier(layers_of(6, SIZES))
    margins = margins_of(model, samples_for(model, 5))
    assert margins.batch == LARGEST_BATCH
    questions = questions_of(5)
    whole = batched(margins, "crown", questions)
    monkeypatch.setattr(Margins, "batch", 3)
    np.testing.assert_allclose(batched(margins, "crown", questions), whole, rtol=1e-12)
    monkeypatch.setattr(Margins, "batch", 1)
    assert len(batched(margins, "alpha-crown", questions)) == len(questions)
    assert list(BatchedBounds(margins, "crown").answer([])) == []


@pytest.mark.parametrize("norm", NORMS)
def test_torch_finds_the_same(norm, monkeypatch) -> None:
    pytest.importorskip("torch")
    model = convolutional(0)
    samples = samples_for(model, 3)
    questions = questions_of(3, (Fraction(1, 200), Fraction(1, 50)))
    plain = margins_of(model, samples, norm=norm, clip=(0, 1))
    expected = {name: batched(plain, name, questions) for name in BATCHED}
    monkeypatch.setattr(engines, "TORCH_WORK", 0)
    margins = Margins.of(model, samples, plain.threat, Config(device="cpu"))
    assert not isinstance(margins.arithmetic.like, np.ndarray)
    for name in set(BATCHED) - {"alpha-crown"}:
        np.testing.assert_allclose(batched(margins, name, questions), expected[name], rtol=1e-3, atol=1e-3)
    optimised, crown = batched(margins, "alpha-crown", questions), expected["crown"]
    assert (optimised >= crown - 0.01 * abs(crown)).all()  # it stops once all is proven


# Single samples


def test_chains() -> None:
    assert chain("ibp") == ("ibp",)
    assert chain("milp") == ("ibp", "crown", "alpha-crown", "lp", "milp")
    assert all(chain(name)[-1] == name for name in METHODS)
    assert set(BATCHED) <= set(METHODS)


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["Relu", "Sigmoid"])
def test_single_bounds_are_never_looser_than_those_below(activation, norm) -> None:
    model = classifier(layers_of(7, (4, 6, 5, 3)), activation)
    margins = margins_of(model, samples_for(model, 2), norm=norm, clip=(0, 1))
    for q in questions_of(2, (Fraction(1, 50), Fraction(1, 4), Fraction(3, 5))):
        found = {}
        for name in ("ibp", "crown-ibp", "forward", "crown", "alpha-crown", "lp", "obbt"):
            found[name] = SingleBounds(margins, name).margin(q)
            assert all(found[base] <= found[name] for base in chain(name)), (name, found)


def test_what_a_method_does_not_treat_is_unknown_with_its_reason() -> None:
    model = classifier(layers_of(8, SIZES), "Sigmoid")
    margins = margins_of(model, samples_for(model, 1))
    for name, message in (("milp", "nonlinear nodes are ReLUs"), ("sdp-crown", "needs a ball")):
        (attempt,) = SingleBounds(margins, name).answer([Question(0, Fraction(2))])
        assert (attempt.verdict, attempt.margin) == ("unknown", -INF)
        assert message in attempt.reason
        (cheap,) = SingleBounds(margins, name).answer([Question(0, Fraction(0))])
        assert cheap.verdict == "proven"  # nothing dear was needed


def test_no_time_keeps_cheap_bounds() -> None:
    model = classifier(layers_of(9, SIZES))
    margins = margins_of(model, samples_for(model, 1))
    q = Question(0, Fraction(1, 3))
    hurried = SingleBounds(margins, "milp", seconds=0.0).margin(q)
    assert SingleBounds(margins, "crown").margin(q) <= hurried <= SingleBounds(margins, "milp").margin(q)


# What proves nothing


@pytest.mark.parametrize("margin", [math.nan, INF, -INF, 0.0, -0.0, -1.0])
def test_margins_that_prove_nothing(margin) -> None:
    attempt = attempt_of(Question(3, TENTH), "crown", margin, 1.0)
    assert (attempt.verdict, attempt.sample, attempt.eps) == ("unknown", 3, TENTH)
    assert attempt.reason


def test_the_smallest_margin_that_proves() -> None:
    assert attempt_of(Question(0, TENTH), "crown", 5e-324, 1.0).verdict == "proven"


@pytest.mark.parametrize("eps", [Fraction(10**30), Fraction(10**300), Fraction(10**400)])
@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("activation", ["Relu", "Sigmoid"])
def test_endless_balls_prove_nothing(activation, norm, eps) -> None:
    model = classifier(layers_of(10, (3, 4, 3)), activation)
    margins = margins_of(model, samples_for(model, 1), norm=norm)
    for name in BATCHED:
        (attempt,) = BatchedBounds(margins, name).answer([Question(0, eps)])
        assert attempt.verdict == "unknown", name
        (attempt,) = SingleBounds(margins, name).answer([Question(0, eps)])
        assert attempt.verdict == "unknown", name


@pytest.mark.parametrize("head", [None, "Softmax"])
def test_equal_outputs_are_never_proven(head) -> None:
    """The label and a rival have the same weights: their lead is exactly 0 everywhere."""
    layers = layers_of(11, SIZES)
    weight, bias = layers[-1]
    weight[:, 1], bias[1] = weight[:, 0], bias[0]
    model = classifier(layers, head=head)
    samples = Samples(np.full((1, 5), 0.5), np.array([0]), ("a",), (5,))
    for norm in NORMS:
        margins = margins_of(model, samples, norm=norm)
        for eps in (Fraction(0), Fraction(1, 2**60), Fraction(1, 100)):
            for name in BATCHED:
                assert batched(margins, name, [Question(0, eps)])[0] <= 0
            for name in ("lp", "milp"):
                assert SingleBounds(margins, name).margin(Question(0, eps)) <= 0


def test_a_tie_at_the_sample_alone_is_never_proven() -> None:
    weight, bias = np.array([[1, -1]], np.float32), np.zeros(2, np.float32)
    model = classifier([(weight, bias)])
    for x, proven in ((0.0, False), (5e-324, True), (2.0**-20, True), (-(2.0**-20), False)):
        samples = Samples(np.array([[x]]), np.array([0]), ("a",), (1,))
        for name in BATCHED:
            margins = margins_of(model, samples)
            found = batched(margins, name, [Question(0, Fraction(0))])[0]
            assert found <= 2 * Fraction(x)
            assert (found > 0) == (proven and x > 1e-300), (name, x)
        touching = batched(margins, "crown", [Question(0, abs(Fraction(x)))])[0]
        assert touching <= 0


def test_a_rival_that_is_no_target_does_not_count() -> None:
    layers = [(np.zeros((2, 3), np.float32), np.array([1, 0, 2], np.float32))]
    samples = Samples(np.zeros((3, 2)), np.array([0, 1, 2]), ("a", "b", "c"), (2,))
    q = questions_of(3, (Fraction(1),))
    for name in BATCHED:
        assert batched(margins_of(classifier(layers), samples), name, q).tolist() == pytest.approx(
            [-1, -2, 1]
        )
        following = margins_of(classifier(layers), samples, targets="next")
        assert batched(following, name, q).tolist() == pytest.approx([1, -2, 1])


# Wrong arguments


def two_inputs():
    inputs = {"x": (TensorProto.FLOAT, [1, 2]), "z": (TensorProto.FLOAT, [1, 2])}
    return graph_proto([helper.make_node("Add", ["x", "z"], ["y"])], inputs, {"y": TensorProto.FLOAT})


def two_outputs():
    nodes = [helper.make_node("Relu", ["x"], ["y"]), helper.make_node("Neg", ["x"], ["w"])]
    outputs = {"y": TensorProto.FLOAT, "w": TensorProto.FLOAT}
    return graph_proto(nodes, {"x": (TensorProto.FLOAT, [1, 2])}, outputs)


@pytest.mark.parametrize(
    ("graph", "message"),
    [(two_inputs(), "2 inputs and 1 outputs"), (two_outputs(), "1 inputs and 2 outputs")],
)
def test_models_with_several_tensors_are_no_classifiers(graph, message) -> None:
    model = import_model(model_proto(graph).SerializeToString(), "m.onnx")
    with pytest.raises(InputError, match=f"one input and one output, m.onnx has {message}"):
        classes_of(model)


def test_a_single_output_is_no_classifier() -> None:
    with pytest.raises(InputError, match="an output for each class, this network has 1"):
        classes_of(classifier(layers_of(0, (3, 1))))
    assert classes_of(classifier(layers_of(0, (3, 2)))) == 2
    assert classes_of(model_of([helper.make_node("Relu", ["x"], ["y"])], [], (4, 4))) == 4


def test_parts_that_do_not_fit() -> None:
    model = classifier(layers_of(0, SIZES))
    samples = samples_for(model, 2)
    for classes in (2, 3, 5):
        with pytest.raises(InputError, match=f"the threat has {classes} classes, the network 4"):
            Margins.of(model, samples, Threat(classes), Config())
    wide = Samples(np.zeros((1, 6)), np.zeros(1, np.int64), ("a",), (6,))
    with pytest.raises(InputError, match="samples have 6 elements, the network takes 5"):
        margins_of(model, wide)
    for label in (-1, 4):
        wrong = Samples(samples.x, np.array([0, label]), samples.names, samples.shape)
        with pytest.raises(InputError, match=f"label {label}: the classes of this network are 0 to 3"):
            margins_of(model, wrong)
    with pytest.raises(InputError, match="outside of the clip range"):
        batched(margins_of(model, samples, clip=(2, 3)), "ibp", [Question(0, TENTH)])


def test_no_samples() -> None:
    model = classifier(layers_of(0, SIZES))
    margins = margins_of(model, Samples(np.zeros((0, 5)), np.zeros(0, np.int64), (), (5,)))
    for name in BATCHED:
        assert list(BatchedBounds(margins, name).answer([])) == []


def test_unsupported_is_not_swallowed_by_batches(monkeypatch) -> None:
    def refuse(*args):
        raise UnsupportedError("no such op")

    model = classifier(layers_of(0, SIZES))
    margins = margins_of(model, samples_for(model, 1))
    monkeypatch.setattr(Margins, "region", refuse)
    with pytest.raises(UnsupportedError):
        list(BatchedBounds(margins, "crown").answer([Question(0, TENTH)]))
