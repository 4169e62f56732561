"""The operators. Importing this package fills the registry."""

from lpverify.ops import convolution, linear, piecewise, shape
from lpverify.ops.base import REGISTRY, AffineOp, ElementwiseOp, Op, SelectionOp

__all__ = [
    "REGISTRY",
    "AffineOp",
    "ElementwiseOp",
    "Op",
    "SelectionOp",
    "convolution",
    "linear",
    "piecewise",
    "shape",
]
