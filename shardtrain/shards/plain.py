"""Where the elements of an array come from, and the simplest answer: they lie in the file as they are."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt

from shardtrain.shards.files import ShardFile
from shardtrain.shards.layout import DatasetEntry

Array = npt.NDArray[Any]
Ranges = list[tuple[int, int]]


class ArrayReader(Protocol):
    """One array of a shard, numbered along its first axis; ranges are half-open."""

    def read(self, start: int, stop: int) -> Array:
        """Elements [start, stop), verified. Raises CorruptShardError."""
        ...

    def damaged_ranges(self, start: int, stop: int) -> Ranges:
        """The ranges within [start, stop) that cannot be read because their bytes are damaged."""
        ...

    def touched(self) -> bool:
        """Whether reading costs nothing any more: all was read before, compared if wanted, and is not decoded."""
        ...

    def read_ahead(self, start: int, stop: int) -> None:
        """Elements [start, stop) will be read soon."""
        ...

    def release(self, start: int, stop: int) -> None:
        """Elements [start, stop) will not be read again soon."""
        ...


class PlainArray:
    """An array whose elements lie in the file as they are; reading from a mapped file gives views."""

    def __init__(self, file: ShardFile, where: DatasetEntry) -> None:
        self._file = file
        self._where = where
        self._stride = where.bytes // where.shape[0] if where.shape[0] else 0

    def _range(self, start: int, stop: int) -> tuple[int, int]:
        return self._where.offset + start * self._stride, self._where.offset + stop * self._stride

    def read(self, start: int, stop: int) -> Array:
        """Elements [start, stop), verified."""
        shape = (max(stop - start, 0), *self._where.shape[1:])
        return self._file.bytes(*self._range(start, max(stop, start))).view(self._where.dtype).reshape(shape)

    def damaged_ranges(self, start: int, stop: int) -> Ranges:
        """Elements that lie, all or in part, in a damaged block."""
        if stop <= start or not self._stride:
            return []
        found = []
        for block in sorted(self._file.damaged_blocks(*self._range(start, stop))):
            first, last = self._file.block_range(block)
            begin = (max(first, self._where.offset) - self._where.offset) // self._stride
            end = -(-(last - self._where.offset) // self._stride)
            found.append((max(begin, start), min(end, stop)))
        return found

    def touched(self) -> bool:
        """Whether all of its blocks were read, and compared if that is wanted."""
        return self._file.touched(self._where.offset, self._where.offset + self._where.bytes)

    def read_ahead(self, start: int, stop: int) -> None:
        """Begin to read ahead."""
        self._file.read_ahead(*self._range(start, stop))

    def release(self, start: int, stop: int) -> None:
        """Give the pages back."""
        self._file.release(*self._range(start, stop))
