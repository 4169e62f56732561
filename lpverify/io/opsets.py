"""Which versions of operators a model, or a function in it, is written in."""

from collections.abc import Sequence
from typing import Any

from lpverify.errors import OnnxError, UnsupportedError

OLDEST = 7  # broadcasting is an attribute before


def domain_of(node: Any) -> str:
    """The domain of a node, function or opset import, in its short spelling."""
    return "" if node.domain == "ai.onnx" else node.domain


def read_opsets(imports: Sequence[Any]) -> dict[str, int]:
    """Versions by domain.

    Raises:
        OnnxError: A domain has two versions.
        UnsupportedError: That of the standard operators is older or newer than those that are known.
    """
    import onnx  # noqa: PLC0415  (slow to import)

    opsets: dict[str, int] = {}
    for entry in imports:
        if opsets.setdefault(domain_of(entry), entry.version) != entry.version:
            raise OnnxError(f"domain {entry.domain!r} is imported in two versions")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= opsets.get("", OLDEST) <= newest:
        raise UnsupportedError(f"opset {opsets['']} is not supported, only {OLDEST} to {newest}")
    return opsets
