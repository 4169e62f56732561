"""Training of small ReLU networks in torch: plain, and against interval bounds (IBP).

Networks are `nn.Sequential` of `Normalise`, `Flatten`, `Linear`, `Conv2d` and `ReLU`; the last one is linear.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from datasets import DataSet

BATCH = 64
CLASSES = 10


class Normalise(nn.Module):
    """`(x - mean) / std`, as the network's first layer: radii stay in the units of raw pixels."""

    def __init__(self, mean: float, std: float) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(mean))
        self.register_buffer("std", torch.tensor(std))

    def forward(self, x: Tensor) -> Tensor:
        """Of images of any shape."""
        return (x - self.mean) / self.std


@dataclass(frozen=True)
class Recipe:
    """How a network is trained.

    Attributes:
        eps: Radius of the ball in the largest norm that IBP training defends against; 0: plain training.
        epochs: Passes over the data.
        warm_up: Share of the steps that are plain.
        ramp: Share of the steps, after the warm-up, in which the radius grows from 0 to `eps`.
        kappa: Weight of the plain loss once the radius is `eps`; it falls from 1 as the radius grows.
        rate: Adam's step size; falls to a hundredth of it in the last quarter.
        decay: Factor of the weights that is added to their gradient (weight decay).
        seed: Of initial weights and order of samples.
    """

    eps: float = 0.0
    epochs: int = 30
    warm_up: float = 0.1
    ramp: float = 0.5
    kappa: float = 0.5
    rate: float = 2e-3
    decay: float = 0.0
    seed: int = 0

    def radius(self, done: float) -> float:
        """The radius when a share of all steps is done."""
        return self.eps * min(1.0, max(0.0, (done - self.warm_up) / self.ramp))

    def plain_weight(self, done: float) -> float:
        """The weight of the plain loss then."""
        return 1 - (1 - self.kappa) * self.radius(done) / self.eps if self.eps else 1.0

    def slowed(self, done: float) -> float:
        """The factor of the step size then."""
        return min(1.0, max(0.01, 4 * (1 - done)))


# Networks


def perceptron(shape: tuple[int, int, int], widths: tuple[int, ...], seed: int) -> nn.Sequential:
    """Linear layers with ReLUs between them."""
    with seeded(seed):
        layers: list[nn.Module] = [nn.Flatten()]
        for fan_in, fan_out in pairwise((int(np.prod(shape)), *widths, CLASSES)):
            layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def convolutional(
    shape: tuple[int, int, int], channels: tuple[int, ...], width: int, seed: int
) -> nn.Sequential:
    """Convolutions that halve the image each, then one hidden layer."""
    with seeded(seed):
        layers: list[nn.Module] = [Normalise(0.5, 0.5)]
        for fan_in, fan_out in pairwise((shape[0], *channels)):
            layers += [nn.Conv2d(fan_in, fan_out, 4, stride=2, padding=1), nn.ReLU()]
        flat = channels[-1] * (shape[1] // 2 ** len(channels)) * (shape[2] // 2 ** len(channels))
        layers += [nn.Flatten(), nn.Linear(flat, width), nn.ReLU(), nn.Linear(width, CLASSES)]
    return nn.Sequential(*layers)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Layers made within have weights by the seed; torch's own random numbers stay as they are."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


@contextmanager
def one_thread() -> Iterator[None]:
    """Networks this small are trained fastest, and the same way each time, without threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# Interval bounds


def interval_bounds(layers: nn.Sequential, lower: Tensor, upper: Tensor) -> tuple[Tensor, Tensor]:
    """Bounds of a network on a batch of boxes (Gowal et al. 2018, arXiv:1810.12715, section 3).

    In floats: good enough to train with. The bounds that count are lpverify's.
    """
    for layer in layers:
        if isinstance(layer, (nn.Linear, nn.Conv2d)):
            centre, radius = layer((lower + upper) / 2), _spread(layer, (upper - lower) / 2)
            lower, upper = centre - radius, centre + radius
        else:  # all others are monotone
            lower, upper = layer(lower), layer(upper)
    return lower, upper


def _spread(layer: nn.Linear | nn.Conv2d, radius: Tensor) -> Tensor:
    weight = layer.weight.abs()
    if isinstance(layer, nn.Linear):
        return functional.linear(radius, weight)
    return functional.conv2d(radius, weight, None, layer.stride, layer.padding)


def worst_logits(net: nn.Sequential, x: Tensor, y: Tensor, eps: float) -> Tensor:
    """Bounds of the outputs over the ball within [0, 1], `(B, classes)`: lower of the label, upper of others.

    Section 3 there also takes the last layer together with the difference of two outputs. That is left out:
    `ibp` bounds outputs first and takes differences then, so this is what it will have to certify.
    """
    lower, upper = interval_bounds(net, (x - eps).clamp(0, 1), (x + eps).clamp(0, 1))
    return torch.where(functional.one_hot(y, upper.shape[1]).bool(), lower, upper)


# Training


def train(net: nn.Sequential, data: DataSet, recipe: Recipe) -> nn.Sequential:
    """Trains a network in place; the same way each time on one machine."""
    random = torch.Generator().manual_seed(recipe.seed)
    x, y = torch.from_numpy(data.train_x), torch.from_numpy(data.train_y)
    size = min(BATCH, len(x))
    total = recipe.epochs * (len(x) // size)
    optimiser = torch.optim.Adam(net.parameters(), recipe.rate, weight_decay=recipe.decay)
    with one_thread():
        for step, batch in enumerate(batches(len(x), size, recipe.epochs, random)):
            done = step / total
            optimiser.param_groups[0]["lr"] = recipe.rate * recipe.slowed(done)
            optimiser.zero_grad()
            loss_of(net, x[batch], y[batch], recipe.radius(done), recipe.plain_weight(done)).backward()
            optimiser.step()
    return net


def batches(count: int, size: int, epochs: int, random: torch.Generator) -> Iterator[Tensor]:
    """Indices: each epoch is a new order, what doesn't fill a batch is left out."""
    for _ in range(epochs):
        yield from torch.randperm(count, generator=random)[: count // size * size].split(size)


def loss_of(net: nn.Sequential, x: Tensor, y: Tensor, eps: float, plain_weight: float) -> Tensor:
    """The cross-entropy of the outputs, mixed with that of their worst case over the ball."""
    plain = functional.cross_entropy(net(x), y)
    if eps == 0:
        return plain
    worst = functional.cross_entropy(worst_logits(net, x, y, eps), y)
    return plain_weight * plain + (1 - plain_weight) * worst


# What comes out


@torch.no_grad()
def accuracy(net: nn.Sequential, x: np.ndarray, y: np.ndarray) -> float:
    """Share of samples whose largest output is the label's."""
    return float((net(torch.from_numpy(x)).argmax(1).numpy() == y).mean())


@torch.no_grad()
def ibp_accuracy(net: nn.Sequential, x: np.ndarray, y: np.ndarray, eps: float) -> float:
    """Share of samples that interval bounds certify; for a look: no rounding is covered."""
    worst = worst_logits(net, torch.from_numpy(x), torch.from_numpy(y), eps)
    return float((worst.argmax(1).numpy() == y).mean())
