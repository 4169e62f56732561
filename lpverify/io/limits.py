"""How much a network file may ask for, and what an import has used of it.

A file of a few bytes can name tensors of any size. So sizes are multiplied out, in Python's whole numbers,
before anything is made; what an import makes is measured against the size of the file.
"""

from dataclasses import dataclass, field, fields
from math import prod

from lpverify.errors import InputError, OnnxError, UnsupportedError

MAX_RANK = 32  # axes of a tensor; NumPy has 64, and what is computed from one may have more
RATIO_FREE_BYTES = 16 << 20  # unpacked; smaller files may be packed to any ratio
GROWTH = 64  # bytes that an import may compute for each byte of the file


@dataclass(frozen=True, slots=True)
class ModelLimits:
    """How much a network file may ask for; beyond it, reading stops with an error.

    Attributes:
        max_bytes: Of the file, packed, unpacked, or with its external tensors; protobuf can't do more.
        max_ratio: Unpacked over packed, from 16 MiB on; deflate can 1032.
        max_fields: Parts of the file: nodes, attributes, tensors, names, sizes ...
        max_stored: Elements of a tensor in the file.
        max_elements: Elements of an input or intermediate value, or of a constant that is computed when the
            network is read; a computed constant may always be as large as the largest of its operands.
        max_computed: Bytes of weights that are computed when the network is read, not counting 64 for each
            byte of the file.
        max_nodes: Nodes of the network, in the file and as lpverify sees it.
        max_steps: Nodes that functions, branches and loops expand to.
        max_step_bytes: The same in bytes.
        max_trips: Iterations of one loop.
    """

    max_bytes: int = 2**31 - 2**20
    max_ratio: int = 500
    max_fields: int = 2**19
    max_stored: int = 2**29
    max_elements: int = 2**25
    max_computed: int = 2**28
    max_nodes: int = 100_000
    max_steps: int = 30_000
    max_step_bytes: int = 2**30
    max_trips: int = 1000

    def __post_init__(self) -> None:
        for entry in fields(self):
            if getattr(self, entry.name) < 1:
                raise InputError(f"{entry.name} must be at least 1")


DEFAULT_LIMITS = ModelLimits()


class LimitError(UnsupportedError):
    """An import asks for more than it may; nothing after that is looked at."""


@dataclass(slots=True)
class Budget:
    """What one import has used of its limits.

    Args:
        limits: Of the import.
        file_bytes: Of the model.
    """

    limits: ModelLimits = DEFAULT_LIMITS
    file_bytes: int = 0
    _computed: int = field(default=0, init=False)
    _steps: int = field(default=0, init=False)
    _step_bytes: int = field(default=0, init=False)

    def reserve(self, *sizes: int, at_least: int = 0) -> None:
        """Asks for one array of these sizes before it is made.

        Args:
            sizes: Of the axes.
            at_least: Elements that are allowed in any case.

        Raises:
            LimitError: It has more elements than the limits allow.
        """
        elements, most = prod(map(int, sizes)), max(self.limits.max_elements, at_least)
        if elements > most:
            shown = str(elements) if elements < 10**30 else "far too many"
            raise LimitError(f"it needs {shown} elements, more than {most}")

    def spend(self, size: int) -> None:
        """Counts bytes of an array that was computed.

        Raises:
            LimitError: All together are more than the limits allow.
        """
        self._computed += size
        most = self.limits.max_computed + GROWTH * self.file_bytes
        if self._computed > most:
            raise LimitError(f"its weights and what is computed from them need more than {most} bytes")

    def step(self, size: int) -> None:
        """Counts a node of so many bytes that a function or subgraph expands to; raises as `spend`."""
        self._steps += 1
        self._step_bytes += size
        steps, most = self.limits.max_steps, self.limits.max_step_bytes
        if self._steps > steps or self._step_bytes > most:
            raise LimitError(f"functions and subgraphs expand to more than {steps} nodes or {most} bytes")

    def nodes(self, count: int) -> None:
        """Checks a number of nodes.

        Raises:
            OnnxError: They are more than the limits allow.
        """
        if count > self.limits.max_nodes:
            raise OnnxError(f"the network has more than {self.limits.max_nodes} nodes")
