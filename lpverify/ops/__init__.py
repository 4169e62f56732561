"""The operators. Importing this package fills the registry."""

from lpverify.ops import (
    activations,
    bilinear,
    cast,
    composite,
    convolution,
    elementary,
    linear,
    periodic,
    piecewise,
    reduce,
    resample,
    select,
    shape,
    steps,
)
from lpverify.ops.base import REGISTRY, AffineOp, ElementwiseOp, Op, SelectionOp

__all__ = [
    "REGISTRY",
    "AffineOp",
    "ElementwiseOp",
    "Op",
    "SelectionOp",
    "activations",
    "bilinear",
    "cast",
    "composite",
    "convolution",
    "elementary",
    "linear",
    "periodic",
    "piecewise",
    "reduce",
    "resample",
    "select",
    "shape",
    "steps",
]
