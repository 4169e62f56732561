"""Trains networks for handwritten digits with and without interval bounds, and certifies both by all methods.

    python examples/tutorial.py [--quick] [--data digits|mnist|both] [--samples N] [--seed S] [--out FOLDER]

Writes the networks, `figure.png`, `figure.svg`, `table.csv` and a report for each network. The notebook
`tutorial.ipynb` is made from this file by `make_notebook.py`; lines such as `# %%` start its cells.
"""

# %% [markdown]
# # Certified robustness from training to report
#
# We train small networks on handwritten digits and ask: on how many test images can *no* change of any
# pixel by at most `eps` make the network answer wrongly? Every method below gives a lower bound of that
# share (certified accuracy), attacks give an upper bound (empirical accuracy).
#
# The notebook has to run in the folder `examples`, with `pip install 'lpverify[examples]'` done before.

# %%
import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import lpverify
import numpy as np
from lpverify.robustness.certification import Certification
from torch import nn

from datasets import DATA_SETS, DataSet
from export import export
from results import Study, as_csv, check_attacks, check_inclusions, figure, table, tension
from training import Recipe, accuracy, convolutional, perceptron, train

# %% [markdown]
# ## Settings
#
# Images are scaled to [0, 1]. An `eps` of 0.1 is a tenth of the range from black to white. Radii are exact
# fractions: nothing is lost on the way to the certificate.

# %%
METHODS = ("ibp", "crown-ibp", "crown", "lp", "ladder", "lipschitz", "smoothing")
RADII = {"digits": (1, 2, 5, 10, 15), "mnist": (1, 2, 5, 10)}  # hundredths
NETWORKS = ("plain", "ibp")


@dataclass(frozen=True)
class Effort:
    """How much to do.

    Attributes:
        samples: Test images to certify.
        seconds: Limit for each image of the methods that take images one by one.
        noise: Samples of noise for smoothing.
        seed: Of training, attacks and noise.
    """

    samples: int = 50
    seconds: float = 2.0
    noise: int = 2000
    seed: int = 0

    def quick(self) -> "Effort":
        """Seconds instead of minutes; the numbers mean less."""
        return replace(self, samples=25, noise=300)


# %% [markdown]
# ## Training
#
# Both networks of a data set are alike but for the loss. *Plain* training minimises the cross-entropy. *IBP*
# training (Gowal et al. 2018) pushes every image's box through the network with interval arithmetic and
# minimises the cross-entropy of the worst outputs, too; the box grows slowly from a point to the radius.


# %%
def untrained(data: DataSet, seed: int) -> nn.Sequential:
    """A perceptron for the small images, convolutions for the larger ones."""
    if data.name == "digits":
        return perceptron(data.shape, (100, 100), seed)
    return convolutional(data.shape, (4, 8), 50, seed)


def recipe(data: DataSet, network: str, seed: int) -> Recipe:
    """How to train a network."""
    small = data.name == "digits"
    if network == "plain":
        epochs, decay = (60, 1e-3) if small else (15, 1e-4)
        return Recipe(epochs=epochs, decay=decay, seed=seed)
    epochs, eps = (80, 0.15) if small else (40, 0.12)
    return Recipe(eps, epochs, kappa=0.3, seed=seed)


# %% [markdown]
# ## Certifying
#
# The networks are written as ONNX files, and one call asks every method about every image and radius.
# `clip` says that pixels stay in [0, 1]. `smoothing` is about another classifier, the one that answers with
# the majority under noise, and holds with probability 0.999 an image; all other certificates are about the
# network itself, and certain.


# %%
def certify(path: Path, x: np.ndarray, y: np.ndarray, name: str, effort: Effort) -> Certification:
    """All methods at all radii."""
    radii = [Fraction(hundredths, 100) for hundredths in RADII[name]]
    limits = {
        "seconds": effort.seconds,
        "spare": 0,
        "seed": effort.seed,
        "jobs": 0,
    }  # too small for processes
    noise = {"sigma": 0.25, "n": effort.noise}
    return lpverify.certify(path, x, y, radii, method=METHODS, clip=(0, 1), **limits, **noise)


def study(data: DataSet, network: str, effort: Effort, out: Path) -> Study:
    """Trains a network, exports it, certifies it and writes the report."""
    net = train(untrained(data, effort.seed), data, recipe(data, network, effort.seed))
    clean = accuracy(net, data.test_x, data.test_y)
    path = export(net, data.test_x, out / f"{data.name}-{network}.onnx")
    x, y = data.test_x[: effort.samples], data.test_y[: effort.samples]
    found = certify(path, x, y, data.name, effort)
    lpverify.write_report(found, out / f"{data.name}-{network}.html")
    return Study(data.name, network, clean, found)


def studies(names: list[str], effort: Effort, out: Path) -> Iterator[Study]:
    """Each network on each data set."""
    out.mkdir(parents=True, exist_ok=True)
    for name in names:
        data = DATA_SETS[name]()
        for network in NETWORKS:
            yield study(data, network, effort, out)


# %% [markdown]
# A dearer method must certify every image that a cheaper one does, and no counterexample may lie within a
# certified radius. Both are checked for each network.


# %%
def show(one: Study, effort: Effort) -> None:
    """The table of a network, and what was checked."""
    print(table(one))
    print(f"checked: {check_inclusions(one, effort.seconds)}")
    print(f"checked: {check_attacks(one)}\n", flush=True)


def write(found: list[Study], out: Path) -> None:
    """The table and the figure of all networks."""
    (out / "table.csv").write_text(as_csv(found))
    for kind, data in figure(found).items():
        (out / f"figure.{kind}").write_bytes(data)


# %% [markdown]
# ## A first look
#
# Few images of the smaller data set. `Effort()` and both names give the numbers of `examples/README.md` in
# some minutes.

# %% active="ipynb"
# effort, out = Effort().quick(), Path("tutorial-results")
# found = []
# for one in studies(["digits"], effort, out):
#     show(one, effort)
#     found.append(one)

# %% [markdown]
# The certified accuracy of the plain network falls steeply with `eps`, and the cheap methods lose most of
# what is true of it. The IBP-trained network gives up some clean accuracy; for that, cheap bounds certify
# nearly all of what is true.

# %% active="ipynb"
# print("\n".join(tension(found)))
# write(found, out)
# from IPython.display import Image
# Image(out / "figure.png")


# %% active="py"
def options(arguments: list[str] | None) -> argparse.Namespace:
    """Of the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="digits only, few images")
    parser.add_argument("--data", choices=("digits", "mnist", "both"), help="default: both")
    parser.add_argument("--samples", type=int, help="test images to certify (50; --quick: 25)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("tutorial-results"), metavar="FOLDER")
    parsed = parser.parse_args(arguments)
    if parsed.samples is not None and parsed.samples < 1:
        parser.error(f"--samples: expected a whole number from 1, got {parsed.samples}")
    if parsed.seed < 0:
        parser.error(f"--seed: expected a whole number from 0, got {parsed.seed}")
    if parsed.quick and parsed.data not in (None, "digits"):
        parser.error("--quick is about digits only")
    return parsed


def main(arguments: list[str] | None = None) -> int:
    """Runs everything."""
    chosen = options(arguments)
    effort = Effort(seed=chosen.seed)
    effort = effort.quick() if chosen.quick else effort
    effort = effort if chosen.samples is None else replace(effort, samples=chosen.samples)
    names = (
        ["digits"] if chosen.quick else list(DATA_SETS) if chosen.data in (None, "both") else [chosen.data]
    )
    found = []
    for one in studies(names, effort, chosen.out):
        show(one, effort)
        found.append(one)
    write(found, chosen.out)
    print("\n".join(tension(found)))
    print(f"written to {chosen.out}: figure.png, figure.svg, table.csv, networks and reports")
    return 0


if __name__ == "__main__":
    sys.exit(main())
