"""Options of the command line for how much a file may ask for; see `io.limits` and `io.vnnlib_text`."""

import argparse
from dataclasses import fields
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lpverify.io.limits import ModelLimits
    from lpverify.io.vnnlib_text import Limits

LIMITS = {  # by the names of the options; `2**25` stands for a default of that size
    "max-bytes": "of a file, packed or not (2 GiB; 1 GiB of a property)",
    "max-ratio": "unpacked over packed size, from 16 MiB on (500)",
    "max-fields": "parts of a network's file (2**19)",
    "max-stored": "elements of a tensor in the file (2**29)",
    "max-elements": "elements of an input, value or computed constant (2**25; of a property 2**28)",
    "max-computed": "bytes of constants computed at reading, beside 64 for each of the file (2**28)",
    "max-nodes": "of a network (100,000)",
    "max-steps": "nodes that functions, branches and loops expand to (30,000)",
    "max-step-bytes": "the same in bytes (2**30)",
    "max-trips": "iterations of one loop of a network (1000)",
    "max-depth": "of brackets in a property (50,000)",
    "max-terms": "that a product of sums in a property multiplies out to (100,000)",
    "max-degree": "of a product of variables in a property (64)",
}


def add_limits(parser: argparse.ArgumentParser) -> None:
    """Adds the options."""
    add = parser.add_argument_group("how much a file may ask for, beyond which it is refused").add_argument
    for name, text in LIMITS.items():
        add(f"--{name}", type=count, metavar="N", help=text)


def count(text: str) -> int:
    """A whole number from 1."""
    if not text.isdecimal() or len(text) > 18 or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1")
    return int(text)


def model_limits(args: argparse.Namespace) -> "ModelLimits":
    """Those of networks."""
    from lpverify.io.limits import ModelLimits  # noqa: PLC0415  (not for `--help`)

    return ModelLimits(**_chosen(args, ModelLimits))


def property_limits(args: argparse.Namespace) -> "Limits":
    """Those of properties."""
    from lpverify.io.vnnlib_text import Limits  # noqa: PLC0415

    return Limits(**_chosen(args, Limits))


def _chosen(args: argparse.Namespace, kind: Any) -> dict[str, int]:
    given = {field.name: getattr(args, field.name) for field in fields(kind)}
    return {name: value for name, value in given.items() if value is not None}
