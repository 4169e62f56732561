"""A sound neural-network verifier: a network and a property in, a verdict with evidence out.

The public names are loaded on first use, so that the import itself costs nothing.
"""

import sys
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
    from lpverify.errors import InputError, LpverifyError, UnsupportedError

__all__ = [
    "BoundsResult",
    "Counterexample",
    "InputError",
    "LoadedNetwork",
    "LpverifyError",
    "Result",
    "UnsupportedError",
    "ValueBounds",
    "bounds",
    "load",
    "verify",
    "verify_many",
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
    from lpverify import api  # noqa: PLC0415  (loads NumPy)

    return getattr(api, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
