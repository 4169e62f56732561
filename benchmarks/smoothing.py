"""Time of a smoothing certificate against the same work in plain torch.

    python benchmarks/smoothing.py [--samples 10000] [--batch 256]

Certifies points of random networks, a dense one and two convolutional ones, by `lpverify` and by a loop over
batches in torch: noise, network, argmax, counts, all without gradients. Both use all processors (onnxruntime
does so whatever OMP_NUM_THREADS says), take turns, so that a loaded machine slows both, and the best time of
several counts. Prints seconds for each point and the ratio.
"""

import argparse
import io
import os
import time
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn

from lpverify.io.onnx import Model, import_model
from lpverify.robustness.smoothing.settings import SmoothingSettings
from lpverify.robustness.smoothing.smoother import Smoother


def networks() -> dict[str, tuple[nn.Module, tuple[int, ...]]]:
    """By name: a network, and the shape of its input."""
    dense = nn.Sequential(
        nn.Flatten(), nn.Linear(784, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(), nn.Linear(256, 10)
    )
    small = nn.Sequential(
        nn.Conv2d(1, 16, 4, 2, 1), nn.ReLU(), nn.Conv2d(16, 32, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(32 * 7 * 7, 100), nn.ReLU(), nn.Linear(100, 10),
    )  # fmt: skip
    large = nn.Sequential(
        nn.Conv2d(3, 32, 3, 1, 1), nn.ReLU(), nn.Conv2d(32, 32, 4, 2, 1), nn.ReLU(),
        nn.Conv2d(32, 64, 3, 1, 1), nn.ReLU(), nn.Conv2d(64, 64, 4, 2, 1), nn.ReLU(), nn.Flatten(),
        nn.Linear(64 * 8 * 8, 512), nn.ReLU(), nn.Linear(512, 10),
    )  # fmt: skip
    return {
        "dense 784-256-256-10": (dense, (1, 28, 28)),
        "convolutional, MNIST": (small, (1, 28, 28)),
        "convolutional, CIFAR": (large, (3, 32, 32)),
    }


def exported(network: nn.Module, shape: tuple[int, ...]) -> Model:
    """As ONNX, for one point at a time."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(network, (torch.zeros(1, *shape),), buffer, dynamo=False)
    return import_model(buffer.getvalue())


@torch.inference_mode()
def plain_torch(network: nn.Module, x: torch.Tensor, sigma: float, samples: int, batch: int) -> torch.Tensor:
    """Counts of classes as most scripts do it."""
    counts = torch.zeros(10, dtype=torch.int64)
    for start in range(0, samples, batch):
        size = min(batch, samples - start)
        points = x.expand(size, *x.shape) + sigma * torch.randn(size, *x.shape)
        counts += torch.bincount(network(points).argmax(1), minlength=10)
    return counts


def best_seconds(functions: Sequence[Callable[[int], object]], repeats: int = 7) -> list[float]:
    """The best time of several calls of each function, in turns, after a first one."""
    best = [float("inf")] * len(functions)
    for i in range(repeats + 1):
        for k, function in enumerate(functions):
            start = time.perf_counter()
            function(i)
            if i:
                best[k] = min(best[k], time.perf_counter() - start)
    return best


def compared(
    network: nn.Module, shape: tuple[int, ...], options: argparse.Namespace, sigma: float = 0.25
) -> list[float]:
    """Seconds of a certificate by lpverify and by torch."""
    smoother = Smoother(
        exported(network, shape), SmoothingSettings(sigma, n=options.samples, batch=options.batch)
    )
    x = np.random.default_rng(0).random(shape).astype(np.float32)
    flat, tensor = x.reshape(-1).astype(np.float64), torch.from_numpy(x)
    drawn = options.samples + smoother.settings.n0
    return best_seconds(
        (
            lambda i: smoother.certificate(flat, i),
            lambda i: plain_torch(network, tensor, sigma, drawn, options.batch),
        )
    )


def main() -> None:
    """Prints a line for each network."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--batch", type=int, default=256)
    options = parser.parse_args()
    torch.set_num_threads(os.cpu_count() or 1)
    torch.manual_seed(0)
    print(f"{'network':24}{'lpverify s':>12}{'torch s':>12}{'torch / lpverify':>18}")
    for name, (network, shape) in networks().items():
        ours, theirs = compared(network, shape, options)
        print(f"{name:24}{ours:12.4f}{theirs:12.4f}{theirs / ours:18.2f}", flush=True)


if __name__ == "__main__":
    main()
