"""A sound neural-network verifier: a network and a property in, a verdict with evidence out.

The public names are loaded on first use, so that the import itself costs nothing.
"""

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lpverify.api import (
        BoundsResult,
        Counterexample,
        LoadedNetwork,
        Result,
        ValueBounds,
        bounds,
        load,
        verify,
        verify_many,
    )
    from lpverify.certifying import (
        Certification,
        LipschitzBound,
        Radii,
        SmoothCertificate,
        SmoothPrediction,
        certified_radius,
        certify,
        lipschitz,
        smooth_certify,
        smooth_predict,
        write_report,
    )
    from lpverify.errors import InputError, LpverifyError, UnsupportedError

_DATA_SETS = (  # in a module of its own, which takes longer to load
    "Certification",
    "LipschitzBound",
    "Radii",
    "SmoothCertificate",
    "SmoothPrediction",
    "certified_radius",
    "certify",
    "lipschitz",
    "smooth_certify",
    "smooth_predict",
    "write_report",
)
__all__ = [
    "BoundsResult",
    "Certification",
    "Counterexample",
    "InputError",
    "LipschitzBound",
    "LoadedNetwork",
    "LpverifyError",
    "Radii",
    "Result",
    "SmoothCertificate",
    "SmoothPrediction",
    "UnsupportedError",
    "ValueBounds",
    "bounds",
    "certified_radius",
    "certify",
    "lipschitz",
    "load",
    "smooth_certify",
    "smooth_predict",
    "verify",
    "verify_many",
    "write_report",
]
__version__ = "0.1.0"


class _Package(ModuleType):
    """Keeps `lpverify.verify` and `lpverify.bounds` the functions, whichever submodules were imported."""

    def __setattr__(self, name: str, value: object) -> None:
        if not (name in __all__ and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = "lpverify.certifying" if name in _DATA_SETS else "lpverify.api"
    return getattr(import_module(home), name)  # loads NumPy


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
