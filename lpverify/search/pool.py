"""Open subproblems of a search that makes very many: one array for each property, and a stack of slots."""

from collections.abc import Mapping

import numpy as np

Columns = dict[str, np.ndarray]


class Pool:
    """A stack of subproblems whose properties lie in columns."""

    def __init__(self, shapes: Mapping[str, tuple[tuple[int, ...], type]]) -> None:
        """Makes an empty one; `shapes` gives for each column the shape of an entry and its type."""
        self._columns: Columns = {
            name: np.zeros((64, *shape), dtype) for name, (shape, dtype) in shapes.items()
        }
        self._free = np.arange(64)[::-1].copy()
        self._left = 64
        self._stack = np.zeros(64, np.int64)
        self._size = 0

    def __len__(self) -> int:
        return self._size

    @property
    def size_of_entry(self) -> int:
        """Bytes of one entry."""
        return sum(column[0].nbytes for column in self._columns.values())

    def push(self, entries: Columns) -> None:
        """Adds entries; the last one is on top."""
        count = len(next(iter(entries.values())))
        while self._left < count:
            self._grow()
        slots = self._free[self._left - count : self._left]
        self._left -= count
        for name, values in entries.items():
            self._columns[name][slots] = values
        self._stack[self._size : self._size + count] = slots
        self._size += count

    def take(self, count: int) -> Columns:
        """Removes up to `count` entries from the top."""
        count = min(count, self._size)
        slots = self._stack[self._size - count : self._size].copy()
        self._size -= count
        self._free[self._left : self._left + count] = slots
        self._left += count
        return {name: column[slots] for name, column in self._columns.items()}

    def column(self, name: str) -> np.ndarray:
        """A column of the entries from bottom to top, a copy."""
        return self._columns[name][self._stack[: self._size]]

    def reorder(self, order: np.ndarray) -> None:
        """Puts the entries into another order, bottom first."""
        self._stack[: self._size] = self._stack[order]

    def _grow(self) -> None:
        size = len(self._stack)
        for name, column in self._columns.items():
            self._columns[name] = np.concatenate([column, np.zeros_like(column)])
        self._free = np.concatenate([self._free[: self._left], np.arange(size, 2 * size)[::-1]])
        self._left += size
        self._free = np.concatenate([self._free, np.zeros(2 * size - len(self._free), np.int64)])
        self._stack = np.concatenate([self._stack, np.zeros_like(self._stack)])
