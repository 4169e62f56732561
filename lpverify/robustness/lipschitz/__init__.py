"""Lipschitz constants with proof, and radii that follow from them."""

from lpverify.robustness.lipschitz.api import LipschitzBound, lipschitz
from lpverify.robustness.lipschitz.certificate import LipschitzCertifier

__all__ = ["LipschitzBound", "LipschitzCertifier", "lipschitz"]
