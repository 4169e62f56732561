"""Samples as small PNG pictures: images as they are, other vectors as strips of bars."""

import io
from collections.abc import Callable
from dataclasses import dataclass
from math import isqrt

import numpy as np

from lpverify.robustness.certification import Certification

LARGEST = 256  # pixels a side; larger images are thinned out
STRIP_HEIGHT = 64
BAR, PAPER, MOVED = (0, 99, 166), (255, 255, 255), (184, 78, 0)


@dataclass(frozen=True)
class Picture:
    """A PNG.

    Attributes:
        png: The file.
        width: In pixels.
        height: In pixels.
        strip: Whether it is a strip of bars.
    """

    png: bytes
    width: int
    height: int
    strip: bool


@dataclass(frozen=True)
class Painter:
    """Draws samples of one data set, all to the same scale.

    Attributes:
        shape: Of a sample.
        low: The value that is black, or where bars begin.
        high: The value that is white, or where bars are full.
    """

    shape: tuple[int, ...]
    low: float
    high: float

    @classmethod
    def of(cls, found: Certification) -> "Painter":
        """For the range of inputs where there is one, else for the values that occur."""
        if found.threat.clip is not None:
            low, high = found.threat.clip_floats
        else:
            near = [r.nearest.point for r in found.records if r.nearest is not None]
            values = np.concatenate([found.samples.x.reshape(-1), *near])
            values = values[np.isfinite(values)]
            low, high = float(values.min(initial=0.0)), float(values.max(initial=0.0))
        return cls(found.samples.shape, low, high)

    def sample(self, x: np.ndarray) -> Picture:
        """A sample `(n,)`."""
        size = max(abs(self.low), abs(self.high)) or 1.0  # differences of huge numbers overflow
        span = self.high / size - self.low / size or 1.0
        return self._picture((x / size - self.low / size) / span, BAR)

    def difference(self, x: np.ndarray, point: np.ndarray) -> tuple[Picture, float]:
        """What was changed, the largest change at the end of the scale; and the largest change.

        Of images grey is no change, brighter is more; bars start in the middle.
        """
        with np.errstate(over="ignore"):
            change = np.nan_to_num(point - x)
        largest = float(np.abs(change).max(initial=0.0))
        return self._picture(0.5 + change / (2 * largest or 1.0), MOVED, middle=True), largest

    def _picture(self, values: np.ndarray, colour: tuple[int, int, int], middle: bool = False) -> Picture:
        """Values `(n,)` from 0 to 1; all others are cut off."""
        values = np.clip(np.nan_to_num(values), 0, 1)
        arrange = layout(self.shape)
        if arrange is None:
            return _encoded(_strip(values, colour, 0.5 if middle else 0.0), strip=True)
        return _encoded(_thinned(np.rint(255 * arrange(values)).astype(np.uint8)), strip=False)


def layout(shape: tuple[int, ...]) -> Callable[[np.ndarray], np.ndarray] | None:
    """How a flat sample becomes pixels `(H, W)` or `(H, W, 3)`; None where it is no image."""
    if len(shape) == 3 and shape[0] in (1, 3):
        channels, *sides = shape
        if channels == 1:
            return lambda v: v.reshape(sides)
        return lambda v: v.reshape(shape).transpose(1, 2, 0)
    if len(shape) == 3 and shape[2] in (1, 3):
        sides = list(shape if shape[2] == 3 else shape[:2])
        return lambda v: v.reshape(sides)
    if len(shape) == 2:
        return lambda v: v.reshape(shape)
    side = isqrt(shape[0]) if len(shape) == 1 else 0
    return (lambda v: v.reshape(side, side)) if side and side * side == shape[0] else None


def _thinned(pixels: np.ndarray) -> np.ndarray:
    step = -(-max(pixels.shape[:2]) // LARGEST)
    return pixels[::step, ::step]


def _strip(values: np.ndarray, colour: tuple[int, int, int], base: float) -> np.ndarray:
    """Bars `(STRIP_HEIGHT, W, 3)` from a base line; where they are too many, the longest of neighbours."""
    groups = np.array_split(values, min(len(values), LARGEST)) if len(values) else [np.array([base])]
    bars = np.array([g[np.abs(g - base).argmax()] for g in groups])
    rows = (np.arange(STRIP_HEIGHT)[::-1, None] + 0.5) / STRIP_HEIGHT
    inside = (rows >= np.minimum(bars, base)) & (rows <= np.maximum(bars, base))
    inside = inside.repeat(max(1, LARGEST // len(bars)), axis=1)
    return np.where(inside[:, :, None], np.array(colour, np.uint8), np.array(PAPER, np.uint8))


def _encoded(pixels: np.ndarray, strip: bool) -> Picture:
    from PIL import Image  # noqa: PLC0415  (may be missing)

    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG", optimize=True)
    return Picture(stream.getvalue(), pixels.shape[1], pixels.shape[0], strip)
