"""Windows give the bounds that whole rows give, in every geometry, and hold."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from helpers import model_of
from onnx import helper, numpy_helper

from lpverify.bounds import refine
from lpverify.bounds.propagate import Region, propagate
from lpverify.bounds.windows import base_of, frame_of, groups, tile_at, tiles
from lpverify.interval import Box
from lpverify.multipliers import Effort
from lpverify.network import Network
from lpverify.ops.base import AffineOp

LIMIT = 2**22
SIZE = (7, 6)


class Builder:
    """ONNX nodes from a flat input to a flat result, with random weights."""

    def __init__(self, seed: int, shape: tuple[int, ...]) -> None:
        self.rng, self.nodes, self.tensors, self.shape = np.random.default_rng(seed), [], [], shape
        self.image = self.add("Reshape", "x", self.constant(np.array([1, *shape])))

    def constant(self, array: np.ndarray) -> str:
        self.tensors.append(numpy_helper.from_array(array, f"c{len(self.tensors)}"))
        return f"c{len(self.tensors) - 1}"

    def add(self, kind: str, *inputs: str, **attributes: object) -> str:
        result = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [result], **attributes))
        return result

    def conv(
        self, x: str, ins: int, outs: int, kernel: int = 3, groups: int = 1, **attributes: object
    ) -> str:
        shape = (outs, ins // groups, kernel, kernel)
        weight = self.rng.normal(size=shape) / np.sqrt(ins * kernel**2 / 2)
        tensors = (self.constant(v.astype(np.float32)) for v in (weight, 0.1 * self.rng.normal(size=outs)))
        return self.add("Conv", x, *tensors, kernel_shape=[kernel] * 2, group=groups, **attributes)

    def relu(self, x: str) -> str:
        return self.add("Relu", x)

    def network(self, last: str) -> Network:
        flat = self.add("Flatten", self.add("GlobalAveragePool", self.relu(last)))
        self.nodes[-1].output[0] = "y"
        assert flat
        model = model_of(self.nodes, self.tensors, (int(np.prod(self.shape)), 4))
        return model.network


def strided(seed: int) -> Network:
    b = Builder(seed, (2, *SIZE))
    x = b.relu(b.conv(b.image, 2, 4, pads=[1, 0, 0, 2]))
    x = b.relu(b.conv(x, 4, 6, pads=[1, 1, 1, 1], strides=[2, 1]))
    return b.network(b.conv(x, 6, 4, pads=[2, 0, 1, 3], strides=[1, 2]))


def dilated(seed: int) -> Network:
    b = Builder(seed, (2, *SIZE))
    x = b.relu(b.conv(b.image, 2, 4, pads=[2, 1, 2, 1], dilations=[2, 1]))
    x = b.relu(b.conv(x, 4, 6, groups=2, pads=[2, 2, 2, 2], dilations=[2, 2]))
    return b.network(b.conv(x, 6, 4, kernel=1))


def residual(seed: int) -> Network:
    b = Builder(seed, (2, *SIZE))
    x = b.relu(b.conv(b.image, 2, 4, pads=[1] * 4))
    inner = b.conv(b.relu(b.conv(x, 4, 6, pads=[1] * 4, strides=[2, 2])), 6, 6, pads=[1] * 4)
    x = b.relu(b.add("Add", inner, b.conv(x, 4, 6, kernel=1, strides=[2, 2])))
    inner = b.conv(b.relu(b.conv(x, 6, 6, pads=[1] * 4)), 6, 6, pads=[1] * 4)
    third = b.conv(x, 6, 6, pads=[1] * 4)
    return b.network(b.conv(b.relu(b.add("Sum", inner, x, third)), 6, 4))


def averaged(seed: int) -> Network:
    b = Builder(seed, (2, *SIZE))
    x = b.relu(b.conv(b.image, 2, 4, pads=[1] * 4))
    x = b.add("AveragePool", x, kernel_shape=[3, 3], strides=[2, 2], pads=[1] * 4)
    return b.network(b.conv(b.relu(b.conv(x, 4, 4, pads=[1] * 4)), 4, 4, pads=[1] * 4))


def pooled(seed: int) -> Network:
    b = Builder(seed, (2, *SIZE))
    x = b.add("MaxPool", b.conv(b.image, 2, 4, pads=[1] * 4), kernel_shape=[2, 2], strides=[2, 2])
    x = b.conv(b.relu(x), 4, 4, pads=[1] * 4)
    return b.network(b.add("MaxPool", x, kernel_shape=[3, 3], pads=[1] * 4))


def moved(seed: int) -> Network:
    """Channels last before a nonlinear node, a padded constant, a scale with positions, joined channels."""
    b = Builder(seed, (2, *SIZE))
    scale = b.constant(b.rng.normal(size=(1, 1, *SIZE)).astype(np.float32))
    x = b.add("Transpose", b.add("Mul", b.conv(b.image, 2, 4, pads=[1] * 4), scale), perm=[0, 2, 3, 1])
    x = b.add("Transpose", b.add("Sigmoid", x), perm=[0, 3, 1, 2])
    pads = b.constant(np.array([0, 0, 1, 0, 0, 0, 0, 2])), b.constant(np.float32([0.5]).reshape(()))
    x = b.conv(b.add("Pad", x, *pads), 4, 4)
    x = b.add("Mul", x, b.add("Sigmoid", x))
    return b.network(b.conv(b.relu(b.add("Concat", x, x, axis=1)), 8, 4, pads=[1] * 4))


def widened(seed: int) -> Network:
    b = Builder(seed, (2, 4, 4))
    x = b.relu(b.conv(b.image, 2, 4, pads=[1] * 4))
    weight = b.constant(b.rng.normal(size=(4, 3, 3, 3)).astype(np.float32) / 3)
    x = b.relu(b.add("ConvTranspose", x, weight, strides=[2, 2], pads=[1, 0, 0, 1]))
    return b.network(b.conv(x, 3, 4, pads=[1] * 4))


def wide(seed: int, size: int = 14) -> Network:
    """Many tiles have the same cropped network."""
    b = Builder(seed, (2, size, size))
    x = b.relu(b.conv(b.image, 2, 8, pads=[1] * 4))
    return b.network(b.conv(b.relu(b.conv(x, 8, 8, pads=[1] * 4)), 8, 4, pads=[1] * 4))


FAMILIES: list[Callable[[int], Network]] = [
    strided,
    dilated,
    residual,
    averaged,
    pooled,
    moved,
    widened,
    wide,
]


def _torch(array: np.ndarray) -> object:
    import torch

    return torch.from_numpy(np.ascontiguousarray(array))


def regions_of(network: Network, count: int, radius: float = 0.1) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(count)
    centre = rng.normal(size=(count, network.input_size))
    radii = radius * rng.random((count, network.input_size))
    return centre - radii, centre + radii


def force(monkeypatch: pytest.MonkeyPatch, width: int) -> list[int]:
    """Windows of one width wherever there are tiles, or whole rows for 0; notes for which values."""
    used: list[int] = []

    def choose(frame, k, mask, limit, ascent):
        base, places = base_of(frame.network, k)
        if not width or len(frame.network.nodes[base].shape) < 3:
            return refine._Rows(frame, k, mask, limit, ascent)
        used.append(k)
        layout = refine.layout(frame.network, base, width)
        return refine._Windows(frame, k, mask, limit, ascent, base, places, layout)

    monkeypatch.setattr(refine, "_choose", choose)
    return used


def boxes(network: Network, ends: tuple[np.ndarray, np.ndarray], kind: str, ascent: int, limit: int) -> list:
    put = _torch if kind == "torch32" else np.asarray
    dtype = np.float64 if kind == "double" else np.float32
    box, like = Box(*map(put, ends)), put(np.zeros(1, dtype))
    effort = Effort("crown", ascent=ascent)
    frame = propagate(network.convert(put, dtype), Region(box), effort, limit, network.convert(put), like)
    assert not np.asarray(frame.empty).any()
    return [(np.asarray(b.lower), np.asarray(b.upper)) for b in frame.boxes]


def compare(found: list, expected: list, tolerance: float) -> None:
    for one, two in zip(found, expected, strict=True):
        size = max(1.0, float(np.abs(two).max()))
        np.testing.assert_allclose(one, two, rtol=0, atol=tolerance * size)


def contains(network: Network, ends: tuple[np.ndarray, np.ndarray], found: list) -> None:
    rng = np.random.default_rng(0)
    for region in range(len(ends[0])):
        low, high = ends[0][region], ends[1][region]
        points = np.where(rng.random((64, len(low))) < 0.5, low, high)
        points[32:] = rng.uniform(low, high, (32, len(low)))
        for value, (lower, upper) in zip(network.evaluate(points.astype(np.longdouble)), found, strict=True):
            assert (lower[region] <= value).all() and (value <= upper[region]).all()


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("family", FAMILIES)
def test_windows_equal_whole_rows(monkeypatch, family, width):
    network = family(width)
    ends = regions_of(network, 1)
    for kind, tolerance in (("double", 1e-10), ("torch32", 2e-5))[: 1 + (width == 2)]:
        force(monkeypatch, 0)
        expected = boxes(network, ends, kind, 0, LIMIT)
        used = force(monkeypatch, width)
        found = boxes(network, ends, kind, 0, LIMIT)
        assert len(used) >= 2
        compare(found, expected, tolerance)
        contains(network, ends, found)


@pytest.mark.parametrize("limit", [LIMIT, 4000])
@pytest.mark.parametrize("family", FAMILIES)
def test_several_regions_and_small_chunks(monkeypatch, family, limit):
    network = family(7)
    ends = regions_of(network, 3)
    force(monkeypatch, 2)
    found = boxes(network, ends, "double", 0, limit)
    contains(network, ends, found)
    force(monkeypatch, 0)
    for region in range(3):
        one = slice(region, region + 1)
        alone = boxes(network, (ends[0][one], ends[1][one]), "double", 0, LIMIT)
        compare([(low[one], high[one]) for low, high in found], alone, 1e-10)


@pytest.mark.parametrize("family", FAMILIES)
def test_windows_ascend_as_whole_rows_do(monkeypatch, family):
    network = family(8)
    ends = tuple(np.repeat(end, 2, axis=0) for end in regions_of(network, 1))
    for kind, tolerance in (("double", 1e-8), ("torch32", 1e-2))[: 1 + (family is residual)]:
        force(monkeypatch, 0)
        plain, expected = (boxes(network, ends, kind, steps, LIMIT) for steps in (0, 4))
        used = force(monkeypatch, 2)
        found = boxes(network, ends, kind, 4, LIMIT)
        assert used
        compare(found, expected, tolerance)
        contains(network, ends, found)
        if family is not moved:  # smooth lines hardly gain
            assert any((a[0] > b[0] + 1e-6).any() for a, b in zip(found, plain, strict=True))


@pytest.mark.parametrize("family", FAMILIES)
def test_cropped_networks_compute_their_pieces(family):
    """Every value of every tile, exactly the elements of the whole value that its piece names."""
    network = family(3)
    x = np.random.default_rng(0).normal(size=(2, network.input_size))
    values = network.evaluate(x)
    for k in network.pre_activations:
        if len(network.nodes[k].shape) < 3:
            continue
        for part in tiles(network.nodes[k].shape, 2):
            tile = tile_at(network, k, part)
            cut = []
            for piece in tile.pieces:
                index = (slice(None), *(slice(a, b) for a, b in piece.extent))
                cut.append(values[piece.value].reshape(2, *piece.view)[index])
            for own, expected in zip(tile.network.evaluate(cut[0].reshape(2, -1)), cut, strict=True):
                np.testing.assert_allclose(own.reshape(expected.shape), expected, rtol=1e-12, atol=1e-12)


def test_groups_cover_each_element_once():
    network = wide(0)
    k = network.pre_activations[1]
    found = groups(network, k, 2)
    elements = np.concatenate([g.elements(g.network.output).reshape(-1) for g in found])
    assert sorted(elements) == list(range(int(np.prod(network.nodes[k].shape))))
    assert len(found) < sum(len(g.starts[0]) for g in found), "tiles of the interior share a group"


def test_tiles_of_a_region_are_next_to_each_other():
    network = wide(0)
    ends = regions_of(network, 2)
    frame = propagate(network, Region(Box(*ends)), Effort("ibp"), LIMIT)
    frame = replace(frame, slack=np.array([1.0, 2.0]), empty=np.array([False, True]))
    group = max(groups(network, network.pre_activations[1], 2), key=lambda g: len(g.starts[0]))
    count = len(group.starts[0])
    assert count > 1
    cut = frame_of(frame, group, np.arange(count))
    assert cut.slack.tolist() == [1.0] * count + [2.0] * count
    assert cut.empty.tolist() == [False] * count + [True] * count
    for tile in range(count):
        for region in range(2):
            elements = group.elements(0)[tile]
            assert (cut.boxes[0].lower[region * count + tile] == ends[0][region][elements]).all()


def test_rounding_is_charged_for_all_consumers():
    """A window's copies of a value count as often as the value; sums in whole passes do no more."""
    network = residual(0)
    for k in network.pre_activations:
        if len(network.nodes[k].shape) < 3:
            continue
        for part in tiles(network.nodes[k].shape, 2):
            tile = tile_at(network, k, part)
            assert tile.network.consumers == tuple(network.consumers[p.value] for p in tile.pieces)


def test_windows_are_charged_for_what_they_compute():
    """A budget that whole rows exceed is enough for windows; one below their cost is not touched."""
    network = wide(0, 24)
    ends = regions_of(network, 1)
    run = partial(propagate, network, Region(Box(*ends)), limit=LIMIT)
    k = network.pre_activations[1]
    plain, full = run(Effort("ibp")), run(Effort("crown"))
    mask = refine.unstable(network, k, plain.boxes[k])
    chosen = refine._choose(plain, k, mask, LIMIT, 0)
    whole = refine._Rows(plain, k, mask, LIMIT, 0)
    assert isinstance(chosen, refine._Windows) and chosen.cost < 0.2 * whole.cost
    width = chosen.layout[0].pieces[-1].extent[2][1] - chosen.layout[0].pieces[-1].extent[2][0]
    total = 0
    for part in tiles(network.nodes[k].shape, width):
        index = (slice(None), *(slice(a, b) for a, b in part))
        tile = tile_at(network, k, part).network
        total += int(mask.reshape(1, *network.nodes[k].shape)[index].sum()) * tile.work[tile.output]
    assert chosen.cost == 2 * total
    enough, little = (run(Effort("crown", budget=chosen.cost * f)) for f in (1.001, 0.999))
    assert (enough.boxes[k].lower == full.boxes[k].lower).all()
    assert (little.boxes[k].lower == plain.boxes[k].lower).all()
    assert (full.boxes[k].lower > plain.boxes[k].lower).any()


def test_dense_networks_have_no_windows(monkeypatch):
    monkeypatch.setattr(refine, "groups", lambda *a: pytest.fail("windows of a dense value"))
    b = Builder(0, (1, 3, 3))
    x = b.add("Flatten", b.image)
    x = b.relu(b.add("MatMul", x, b.constant(b.rng.normal(size=(9, 6)).astype(np.float32))))
    x = b.relu(b.add("MatMul", x, b.constant(b.rng.normal(size=(6, 4)).astype(np.float32))))
    b.nodes.append(helper.make_node("MatMul", [x, b.constant(np.eye(4, dtype=np.float32))], ["y"]))
    network = model_of(b.nodes, b.tensors, (9, 4)).network
    assert all(isinstance(n.op, AffineOp) or n.op for n in network.nodes[1:])
    boxes(network, regions_of(network, 1), "double", 0, LIMIT)
