import math
from fractions import Fraction

import numpy as np
import onnx
import pytest
from helpers import dense_model, graph_proto, model_proto
from onnx import TensorProto, helper

from lpverify.errors import InputError
from lpverify.io.onnx import import_model
from lpverify.robustness.judge import Judge
from lpverify.robustness.samples import Samples
from lpverify.robustness.threat import Threat

FLOAT, DOUBLE, UINT8 = TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.UINT8
node = helper.make_node


def samples_of(x, y):
    x = np.array(x, np.float64)
    return Samples(x, np.array(y, np.int64), tuple(str(i) for i in range(len(x))), x.shape[1:])


def identity(classes=3):
    return dense_model([(np.eye(classes), np.zeros(classes))])  # y = x


def judge_of(x, y, model=None, **threat):
    model = model or identity(len(x[0]))
    return Judge(model, samples_of(x, y), Threat(model.outputs.sizes[0], **threat))


def model_from(nodes, kind, inputs, constants):
    proto = model_proto(graph_proto(nodes, {"x": (kind, [1, inputs])}, {"y": FLOAT}, constants), 13)
    assert isinstance(proto, onnx.ModelProto)
    return import_model(proto.SerializeToString())


def roots():
    """y = sqrt(x): NaN below 0."""
    return model_from([node("Sqrt", ["x"], ["y"])], FLOAT, 2, {})


def whole():
    """Whole numbers in, `y = x / 4`."""
    nodes = [node("Cast", ["x"], ["f"], to=FLOAT), node("Mul", ["f", "q"], ["y"])]
    return model_from(nodes, UINT8, 2, {"q": np.array(0.25, np.float32)})


def test_clean_answers():
    clean = judge_of([[3, 1, 2], [3, 1, 2], [2, 2, 1], [2, 2, 1]], [0, 2, 0, 1]).clean([0, 1, 2, 3])
    assert [c.correct for c in clean] == [True, False, False, False]
    assert [c.predicted for c in clean] == [0, 0, 0, 0]
    assert [c.margin for c in clean] == [1.0, -1.0, 0.0, 0.0]


def test_nan_outputs_are_neither_correct_nor_adversarial():
    judge = judge_of([[4, 1], [-1, 1]], [0, 0], roots())
    (clean,) = judge.clean([1])
    assert (clean.predicted, clean.correct) == (-1, False)
    assert math.isnan(clean.margin)
    assert judge.adversarial(1, np.array([-1.0, 1.0]), "test") is None
    assert judge.adversarial(0, np.array([1.0, -4.0]), "test") is None
    assert judge.adversarial(0, np.array([np.nan, 1.0]), "test") is None
    assert judge.adversarial(0, np.array([1.0, 4.0]), "test").predicted == 1


def test_infinite_outputs_are_no_counterexample():
    """`y = log(x)` is minus infinity at 0."""
    model = model_from([node("Log", ["x"], ["y"])], FLOAT, 2, {})
    judge = judge_of([[4, 1]], [0], model)
    assert judge.adversarial(0, np.array([0.0, 1.0]), "test") is None
    assert judge.adversarial(0, np.array([1e-30, 1.0]), "test") is not None


def test_a_tie_with_a_rival_is_a_counterexample():
    judge = judge_of([[2, 1, 0]], [0])
    found = judge.adversarial(0, np.array([1.5, 1.5, 0.0]), "test")
    assert (found.predicted, found.distance, found.source) == (1, Fraction(1, 2), "test")
    above = np.nextafter(np.float32(1.5), np.float32(2.0))
    assert judge.adversarial(0, np.array([above, 1.5, 0.0]), "test") is None


@pytest.mark.parametrize(("norm", "distance"), [(1, 7), (2, 5), (math.inf, 4)])
def test_distance_in_the_norm(norm, distance):
    judge = judge_of([[0, -1, -9]], [0], norm=norm)
    assert judge.adversarial(0, np.array([-3.0, 3.0, -9.0]), "test").distance == distance


@pytest.mark.parametrize("norm", [1, 2, math.inf])
def test_distances_are_exact(norm):
    """Of numbers of very different size, against fractions."""
    rng = np.random.default_rng(0)
    x, point = rng.normal(size=(2, 30)) * 10.0 ** rng.integers(-30, 5, (2, 30))
    gaps = [abs(Fraction(p) - Fraction(c)) for p, c in zip(point.tolist(), x.tolist(), strict=True)]
    found = Threat(2, norm).distance(x, point)
    if norm == 2:
        square = sum(g * g for g in gaps)
        assert square <= found**2 <= square * (1 + Fraction(1, 2**50))
    else:
        assert found == (max(gaps) if norm == math.inf else sum(gaps))
    assert Threat(2, norm).distance(x, x) == 0


def test_only_the_next_class_is_a_rival():
    judge = judge_of([[2, 0, 0]], [0], targets="next")
    assert judge.adversarial(0, np.array([1.0, 0.0, 5.0]), "test") is None
    found = judge.adversarial(0, np.array([1.0, 1.0, 5.0]), "test")
    assert found.predicted == 2  # it wins, though the next class is what counts


def test_points_are_rounded_into_the_range():
    judge = judge_of([[0.5, 0.25]], [0], clip=(0, Fraction("0.7")))
    found = judge.adversarial(0, np.array([-2.0, 3.0]), "test")
    assert Fraction(found.point.max()) <= Fraction("0.7")
    assert (found.point.astype(np.float32) == found.point).all()
    below = np.float32(0.7)
    assert found.point[1] == (
        below if Fraction(float(below)) <= Fraction("0.7") else np.nextafter(below, below - 1)
    )
    assert found.point[0] == 0


def test_whole_inputs():
    judge = judge_of([[9, 5]], [0], whole(), clip=(0, 255))
    found = judge.adversarial(0, np.array([6.6, 6.8]), "test")
    assert found.point.tolist() == [7, 7]
    assert found.distance == 2
    assert judge.adversarial(0, np.array([np.inf, 0.0]), "test") is None
    assert judge.towards(np.array([[7.6, 6.4]]), np.array([[9.0, 5.0]])).tolist() == [[8, 6]]
    assert judge.towards(np.array([[7.4, 6.6]]), np.array([[9.0, 5.0]])).tolist() == [[8, 6]]


def test_towards_never_moves_out():
    rng = np.random.default_rng(0)
    centres = rng.uniform(-1, 1, (5, 40)).astype(np.float32).astype(np.float64)
    points = centres + rng.normal(size=centres.shape) * 10.0 ** rng.integers(-9, 1, centres.shape)
    judge = judge_of(centres, [0] * 5, identity(40))
    inner = judge.towards(points, centres)
    assert (np.abs(inner - centres) <= np.abs(points - centres)).all()
    assert (inner.astype(np.float32) == inner).all()
    assert (np.abs(inner - points) <= np.spacing(np.abs(points).astype(np.float32))).all()


def test_a_double_network_keeps_double_points():
    constants = {"w": np.eye(2), "b": np.zeros(2)}
    graph = graph_proto(
        [node("Gemm", ["x", "w", "b"], ["y"])], {"x": (DOUBLE, [1, 2])}, {"y": DOUBLE}, constants
    )
    judge = judge_of([[0.1, 0.0]], [0], import_model(model_proto(graph, 13).SerializeToString()))
    tie = 0.1 - 1e-12
    assert judge.adversarial(0, np.array([tie, tie]), "test").point.tolist() == [tie, tie]
    assert judge.adversarial(0, np.array([tie, np.nextafter(tie, 0)]), "test") is None


@pytest.mark.parametrize(
    ("x", "y", "threat", "message"),
    [
        ([[0.5, 0.5]], [0], Threat(3), "3 classes"),
        ([[0.5, 0.5, 0.5]], [0], Threat(2), "3 inputs"),
        ([[0.5, 0.5]], [2], Threat(2), "label"),
        ([[0.5, 1.5]], [0], Threat(2, clip=(0, 1)), "clip range"),
        ([[0.1, 0.5]], [0], Threat(2), "no float32 number"),
    ],
)
def test_what_does_not_fit_is_refused(x, y, threat, message):
    with pytest.raises(InputError, match=message):
        Judge(identity(2), samples_of(x, y), threat)


def test_a_range_without_numbers_is_refused():
    with pytest.raises(InputError, match="clip"):
        Judge(whole(), samples_of([[1, 2]], [0]), Threat(2, clip=(Fraction(5, 4), Fraction(3, 2))))
