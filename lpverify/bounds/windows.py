"""Windows: the part of a network that a tile of a value depends on, as a network with a frame of its own.

Accepts: values with an axis of channels and spatial axes, computed by ops that `ops.crops` can crop.
Method: an element of an early convolution depends on a small receptive field. Tiles of the value are walked
down to the input; each value on the way gets the smallest rectangle that contains all that is read of it.
Tiles whose rectangles are cropped from the network in the same way, all but those near a border, share one
cropped network and are bounded as regions of one batch.
Guarantee: a cropped network computes exactly the elements of its rectangles, so boxes, lines and planes of
the frame, which hold element by element, hold for it as they are. A backward pass from a row that is zero
outside of the tile is the pass of the whole network without coefficients that are zero. Its rounding is
covered by the frame's own costs: a cost is what one coefficient loses there, by counts of terms, consumers
and summands of the whole network, of which a window has no more (`_Cropped.consumers` keeps them).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from itertools import product
from math import ceil, inf, prod
from typing import Any

import numpy as np

from lpverify.bounds.frame import CentredLines, Frame, repeat_each
from lpverify.interval import Array, Box, namespace
from lpverify.network import Network, Node
from lpverify.ops.base import Op, Planes
from lpverify.ops.bilinear import Multiply
from lpverify.ops.crops import Crop, Extent, Shape, crop, hull, lengths, whole
from lpverify.ops.shape import Reshape, Slice, Transpose

TILES = (1, 2, 4, 8, 16)  # widths that are tried


@dataclass(frozen=True)
class _Cropped(Network):
    """A network whose values are added to as often as those it was cropped from."""

    counts: tuple[int, ...] = ()

    @cached_property
    def consumers(self) -> tuple[int, ...]:
        """Those of the whole network: rounding is charged by them."""
        return self.counts


@dataclass(frozen=True)
class Piece:
    """Where the elements of a cropped value are.

    Attributes:
        value: In the whole network.
        view: Its shape as the extent counts it; the elements' order is the same.
        extent: Of this tile.
        copy: Whether it is cut from the piece of the same value before it, for one consumer.
    """

    value: int
    view: Shape
    extent: Extent
    copy: bool = False


@dataclass(frozen=True)
class Tile:
    """A tile of a value and what it depends on; one piece for each value of the cropped network."""

    network: Network
    pieces: tuple[Piece, ...]
    signature: tuple[Any, ...]


@dataclass(frozen=True)
class Group:
    """Tiles with the same cropped network.

    Attributes:
        network: What they share.
        pieces: Those of the first tile.
        starts: For each piece the first indices `(tiles, axes)`.
    """

    network: Network
    pieces: tuple[Piece, ...]
    starts: tuple[np.ndarray, ...]

    @property
    def work(self) -> int:
        """Multiplications of one backward row, roughly."""
        return self.network.work[self.network.output]

    def elements(self, piece: int) -> np.ndarray:
        """For each tile the flat indices `(tiles, size)` of a piece's elements in its value."""
        index, place = self._index(piece, slice(None)), self.pieces[piece]
        flat = np.ravel_multi_index(np.broadcast_arrays(*index), place.view) if index else np.zeros(1, int)
        return flat.reshape(len(self.starts[piece]), -1)

    def _index(self, piece: int, tiles: Any) -> tuple[np.ndarray, ...]:
        """Indices `(tiles, 1, .., size, .., 1)` along each axis."""
        starts, sizes = self.starts[piece][tiles], lengths(self.pieces[piece].extent)
        return tuple(
            (starts[:, axis, None] + np.arange(n)).reshape(
                -1, *(n if i == axis else 1 for i in range(len(sizes)))
            )
            for axis, n in enumerate(sizes)
        )

    def cut(self, piece: int, tiles: np.ndarray, array: Array, lead: int = 1) -> Array:
        """Parts `(B * tiles, [1,] *part)` of an array `(B, [1,] *shape)`, `lead` axes before the shape."""
        place = self.pieces[piece]
        array = array.reshape((*array.shape[:lead], *place.view))
        middle = array.shape[1:lead]
        index = [namespace(array).asarray(i, device=array.device) for i in self._index(piece, tiles)]
        found = array[(slice(None), *(0,) * len(middle), *index)]
        count, shape = found.shape[0] * len(tiles), self.network.nodes[piece].shape
        return found.reshape((count, *middle, *shape))


def base_of(network: Network, k: int) -> tuple[int, np.ndarray]:
    """The value that `k` only moves about, and for each element of `k` its flat index there."""
    moves = []
    while isinstance(network.nodes[k].op, (Reshape, Transpose)) and network.nodes[k].inputs[0] != 0:
        moves.append(network.nodes[k].op)
        k = network.nodes[k].inputs[0]
    index: np.ndarray = np.arange(prod(network.nodes[k].shape)).reshape(1, *network.nodes[k].shape)
    for op in reversed(moves):
        assert op is not None
        index = op.forward(index)
    return k, index.reshape(-1)


def tile_at(network: Network, k: int, part: Extent) -> Tile:
    """Crops the network to what a part of value `k` depends on."""
    wanted, crops = {k: part}, dict[int, Crop | None]()
    for i in range(k, 0, -1):
        if i not in wanted:
            continue
        crops[i] = None if _is_input(network, k, i) else _cropped_node(network, i, wanted[i])
        step = crops[i]
        if step is not None:
            wanted[i] = step.part
            for operand, extent in zip(network.nodes[i].inputs, step.operands, strict=True):
                wanted[operand] = hull(wanted.get(operand, extent), extent)
    return _Assembly(network, wanted, crops).tile(k)


def _is_input(network: Network, k: int, i: int) -> bool:
    """Whether a value is the flat input in another shape and the only thing that `k` reads of it."""
    while i and isinstance(network.nodes[i].op, Reshape):
        (i,) = network.nodes[i].inputs
        if sum(network.nodes[j].inputs.count(i) for j in network.ancestors[k]) != 1:
            return False
    return i == 0


def _cropped_node(network: Network, i: int, part: Extent) -> Crop:
    node = network.nodes[i]
    assert node.op is not None
    shapes = [network.nodes[j].shape for j in node.inputs]
    cropped = crop(node.op, part, shapes)
    return cropped or Crop(node.op, whole(node.shape), tuple(whole(s) for s in shapes))


class _Assembly:
    """The cropped network under construction; operands that are cut wider than needed are sliced first."""

    def __init__(self, network: Network, wanted: dict[int, Extent], crops: dict[int, Crop | None]) -> None:
        self.network, self.wanted, self.crops = network, wanted, crops
        self.nodes: list[Node] = []
        self.pieces: list[Piece] = []
        self.signature: list[Any] = []
        self.counts: list[int] = []
        self.place: dict[int, int] = {}

    def tile(self, k: int) -> Tile:
        """All nodes, in order."""
        view = next((i for i, step in self.crops.items() if step is None), 0)
        extent = self.wanted.get(view, ((0, 1),))
        self._add(
            Node(None, (), (prod(lengths(extent)),)), Piece(0, self.network.nodes[view].shape, extent), ()
        )
        self.place[0] = 0
        for i in sorted(self.crops):
            self._add_node(i)
        network = _Cropped(tuple(self.nodes), self.place[k], counts=tuple(self.counts))
        return Tile(network, tuple(self.pieces), tuple(self.signature))

    def _add_node(self, i: int) -> None:
        step, node, shape = self.crops[i], self.network.nodes[i], self.network.nodes[i].shape
        part, sizes = self.wanted[i], lengths(self.wanted[i])
        assert node.op is not None
        if step is None:
            new = Node(Reshape(sizes, (prod(sizes),)), (0,), sizes, node.name)
            self.place[i] = self._add(new, Piece(i, shape, part), ())
        else:
            inputs = tuple(map(self._operand, node.inputs, step.operands))
            new = Node(step.op, inputs, sizes, node.name)
            self.place[i] = self._add(new, Piece(i, shape, part), _signature(step.op, node.op))

    def _operand(self, i: int, extent: Extent) -> int:
        have, shape = self.wanted[i], self.network.nodes[i].shape
        if have == extent:
            return self.place[i]
        starts = tuple(a - c for (a, _), (c, _) in zip(extent, have, strict=True))
        op = Slice(starts, (1,) * len(shape), lengths(extent), lengths(have))
        return self._add(
            Node(op, (self.place[i],), lengths(extent)), Piece(i, shape, extent, True), (starts,)
        )

    def _add(self, node: Node, piece: Piece, found: tuple[Any, ...]) -> int:
        self.nodes.append(node)
        self.pieces.append(piece)
        self.signature.append((piece.value, node.inputs, node.shape, found))
        self.counts.append(self.network.consumers[piece.value])
        return len(self.nodes) - 1


def _signature(op: Op, origin: Op) -> tuple[Any, ...]:
    """What tells croppings of one op apart: its settings, and the entries of arrays that were cut."""
    found: list[Any] = []
    for f in fields(op):  # type: ignore[arg-type]
        value = getattr(op, f.name)
        if value is getattr(origin, f.name):
            found.append("same")
        elif hasattr(value, "shape"):
            found.append((tuple(value.shape), tuple(value.reshape(-1).tolist())))
        else:
            found.append(value)
    return tuple(found)


def groups(network: Network, k: int, width: int) -> Sequence[Group]:
    """All tiles of value `k` `(N, C, *spatial)`, so many positions wide, by their cropped networks."""
    known: dict[tuple[Any, ...], list[Tile]] = {}
    for part in tiles(network.nodes[k].shape, width):
        tile = tile_at(network, k, part)
        known.setdefault(tile.signature, []).append(tile)
    return [_group(members) for members in known.values()]


def _group(members: Sequence[Tile]) -> Group:
    first = members[0]
    starts = tuple(
        np.array([[a for a, _ in tile.pieces[i].extent] for tile in members]).reshape(len(members), -1)
        for i in range(len(first.pieces))
    )
    return Group(first.network, first.pieces, starts)


def tiles(shape: Shape, width: int) -> Iterator[Extent]:
    """The parts of a value: all of the first two axes, so many positions along the others."""
    cuts = [[(a, min(a + width, n)) for a in range(0, n, width)] for n in shape[2:]]
    for spatial in product(*cuts):
        yield (0, shape[0]), (0, shape[1]), *spatial


def central_tile(network: Network, k: int, width: int, beside: int = 0) -> Tile:
    """A tile in the middle, or beside it, which depends on the most."""
    shape, middle = network.nodes[k].shape, []
    for n in shape[2:]:
        first = min(n // 2 // width + beside, -(-n // width) - 1) * width
        middle.append((first, min(first + width, n)))
    return tile_at(network, k, ((0, shape[0]), (0, shape[1]), *middle))


def distinct(network: Network, k: int, width: int, tile: Tile) -> float:
    """About how many groups there are: along each axis the tiles that reach over either end, and one."""
    shape, count = network.nodes[k].shape, 1
    if central_tile(network, k, width, 1).signature != tile.signature:
        return inf
    for axis in range(2, len(shape)):
        views = (p for p in tile.pieces if len(p.view) == len(shape))
        spans = ((p.extent[axis][1] - p.extent[axis][0]) * shape[axis] / p.view[axis] for p in views)
        count *= min(ceil(shape[axis] / width), 2 * ceil((max(spans) - width) / 2 / width) + 1)
    return count


def frame_of(frame: Frame, group: Group, chosen: np.ndarray) -> Frame:
    """The frame `(B * tiles, ..)` of chosen tiles of a group: those of a frame's first region come first."""
    boxes, centres, costs = [], [], list[Array | None]()
    lines, planes = {}, {}
    for i, piece in enumerate(group.pieces):
        box, cost = frame.boxes[piece.value], frame.costs[piece.value]
        boxes.append(Box(group.cut(i, chosen, box.lower), group.cut(i, chosen, box.upper)))
        centres.append(group.cut(i, chosen, frame.centres[piece.value]))
        costs.append(None if cost is None or piece.copy else group.cut(i, chosen, cost))
        if piece.value in frame.lines and not piece.copy:
            line = frame.lines[piece.value]
            lines[i] = CentredLines(*(group.cut(i, chosen, getattr(line, f.name), 2) for f in fields(line)))
        if piece.value in frame.planes and not piece.copy:
            planes[i] = _planes(frame.planes[piece.value], group, i, chosen)
    return Frame(
        group.network,
        group.network,  # stands in for the reference, which only new values read
        boxes,
        centres,
        costs,
        lines,
        planes,
        repeat_each(frame.empty, len(chosen)),
        frame.like,
        repeat_each(frame.slack, len(chosen)),
    )


def _planes(planes: Planes, group: Group, i: int, chosen: np.ndarray) -> Planes:
    """Those of elementwise products are cut, others belong to values that are whole."""
    cropped = isinstance(group.network.nodes[i].op, Multiply)
    arrays = (getattr(planes, f.name) for f in fields(planes))
    return Planes(*(group.cut(i, chosen, a) if cropped else repeat_each(a, len(chosen)) for a in arrays))
