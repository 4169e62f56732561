"""Plots, with matplotlib where it is installed; nothing else here needs it."""

import io
from collections.abc import Mapping, Sequence
from importlib.util import find_spec

import numpy as np

from lpverify.errors import InputError

MOST_LABELS = 40  # layers that are named below the plot
SHOWN = (1e-100, 1e100)  # widths that matplotlib's logarithmic axes can take


def require_matplotlib() -> None:
    """Finds out whether plots can be drawn.

    Raises:
        InputError: matplotlib is not installed.
    """
    if find_spec("matplotlib") is None:
        raise InputError("plots need matplotlib; install it with: pip install 'lpverify[plot]'")


def widths_png(layers: Sequence[str], widths: Mapping[str, Sequence[float]]) -> bytes:
    """A PNG picture of the mean width of the bounds of each layer, a line a method, on a log scale.

    Args:
        layers: Their names, from the input to the output.
        widths: For each method one number a layer; those outside of `SHOWN` are left out.

    Raises:
        InputError: matplotlib is not installed.
    """
    require_matplotlib()
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # noqa: PLC0415  (slow, and may be missing)
    from matplotlib.figure import Figure  # noqa: PLC0415

    figure = Figure(figsize=(max(6.4, min(0.35 * len(layers) + 2, 20)), 4.8), layout="constrained")
    FigureCanvasAgg(figure)  # pyplot would keep state and ask for a screen
    axes = figure.add_subplot()
    for method, numbers in widths.items():
        values = np.array(numbers, dtype=np.float64)
        shown = (values > SHOWN[0]) & (values < SHOWN[1])
        axes.plot(np.arange(len(values)), np.where(shown, values, np.nan), marker="o", label=method)
    axes.set_yscale("log", nonpositive="mask")
    axes.set_ylabel("mean width of the bounds")
    axes.set_xlabel("layer")
    if len(layers) <= MOST_LABELS:
        axes.set_xticks(range(len(layers)), layers, rotation=45, ha="right")
    axes.grid(alpha=0.3)
    axes.legend()
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=150)
    return stream.getvalue()
