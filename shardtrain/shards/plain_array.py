"""Read arrays that are contiguous and uncompressed in the file, and define the interface of all array readers."""

from __future__ import annotations

from typing import Any, Protocol

import numpy.typing as npt

from shardtrain.shards.files import ShardFile
from shardtrain.shards.layout import DatasetEntry

Array = npt.NDArray[Any]
Ranges = list[tuple[int, int]]


class ArrayReader(Protocol):
    """Reads one array of a shard by half-open ranges of its first axis."""

    def read(self, start: int, stop: int) -> Array:
        """Read elements [start, stop), verified; raises CorruptShardError."""
        ...

    def damaged_ranges(self, start: int, stop: int) -> Ranges:
        """Return the ranges within [start, stop) that cannot be read because their bytes are damaged."""
        ...

    def touched(self) -> bool:
        """Return whether reading costs no work: all bytes are read, verified if requested, and need no decoding."""
        ...

    def read_ahead(self, start: int, stop: int) -> None:
        """Start reading elements [start, stop) into the page cache, without waiting."""
        ...

    def release(self, start: int, stop: int) -> None:
        """Release the page cache of elements [start, stop), which are not needed again soon."""
        ...


class PlainArray:
    """An uncompressed contiguous array; reading from a mapped file returns views."""

    def __init__(self, file: ShardFile, where: DatasetEntry) -> None:
        self._file = file
        self._where = where
        self._stride = where.bytes // where.shape[0] if where.shape[0] else 0

    def _range(self, start: int, stop: int) -> tuple[int, int]:
        return self._where.offset + start * self._stride, self._where.offset + stop * self._stride

    def read(self, start: int, stop: int) -> Array:
        """Read elements [start, stop), verified."""
        shape = (max(stop - start, 0), *self._where.shape[1:])
        return self._file.bytes(*self._range(start, max(stop, start))).view(self._where.dtype).reshape(shape)

    def damaged_ranges(self, start: int, stop: int) -> Ranges:
        """Return the ranges of elements that are at least partly in damaged blocks."""
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
        """Return whether all blocks of the array have been read, and verified if requested."""
        return self._file.touched(self._where.offset, self._where.offset + self._where.bytes)

    def read_ahead(self, start: int, stop: int) -> None:
        """Start reading the elements into the page cache."""
        self._file.read_ahead(*self._range(start, stop))

    def release(self, start: int, stop: int) -> None:
        """Release the pages of the elements."""
        self._file.release(*self._range(start, stop))
