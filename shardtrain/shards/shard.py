"""Read the rows of one shard, dense or sparse, and find the rows that damaged blocks affect.

Arrays are read by an `ArrayReader`: a `PlainArray` if the bytes in the file can be used directly, otherwise a
`DecodedArray`. Row pointers are checked before they are followed, even if checksums are not compared.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.buffers import BufferPool
from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Features, Labels
from shardtrain.errors import CorruptShardError
from shardtrain.shards import layout
from shardtrain.shards.decoded_array import DecodedArray
from shardtrain.shards.files import ShardFile
from shardtrain.shards.layout import ShardEntry
from shardtrain.shards.lists import ChunkPlaces
from shardtrain.shards.plain_array import Array, ArrayReader, PlainArray, Ranges

Mask = npt.NDArray[np.bool_]


class Shard:
    """One open shard.

    Args:
        folder: of the shards.
        entry: of the shard in the manifest.
        num_features: columns of its rows, which CSR arrays do not contain.
        verify: compare each block at its first access.
        io: see `LoaderOptions`.
        direct_io: see `ShardFile`.
        buffers: see `ShardFile`.
        sources: external files that hold arrays, by path.
    """

    def __init__(
        self,
        folder: Path,
        entry: ShardEntry,
        num_features: int,
        *,
        verify: bool,
        io: str = "auto",
        direct_io: bool = False,
        buffers: BufferPool | None = None,
        sources: Mapping[str, ShardFile] | None = None,
    ) -> None:
        self.path = folder / entry.file
        self.entry = entry
        self.num_features = num_features
        self.file = ShardFile(
            self.path, entry, folder=folder, verify=verify, io=io, direct_io=direct_io, buffers=buffers
        )
        external = {where.source: (sources or {})[where.source] for where in entry.datasets.values() if where.source}
        self.files = [self.file, *external.values()]
        sizes: dict[str | None, int] = {path: file.entry.bytes for path, file in external.items()}
        self.places = ChunkPlaces(folder, entry, {None: entry.bytes, **sizes})
        self.arrays: dict[str, ArrayReader] = {
            name: DecodedArray(name, where, external[where.source] if where.source else self.file, self.places)
            if where.chunks or where.source
            else PlainArray(self.file, where)
            for name, where in entry.datasets.items()
        }
        self._sparse = layout.INDPTR in self.arrays

    @property
    def mapped(self) -> bool:
        """Whether all arrays are views of mapped files."""
        plain = all(isinstance(array, PlainArray) for array in self.arrays.values())
        return plain and all(file.mapped for file in self.files)

    def x(self, start: int, stop: int) -> Features:
        """Read the features of rows [start, stop); views if the file is mapped.

        Raises:
            CorruptShardError: the bytes that hold them differ from what was written, or row pointers are invalid.
        """
        if not self._sparse:
            return self.arrays[layout.X].read(start, stop)
        pointers = self._pointers(start, stop)
        first, last = int(pointers[0]), int(pointers[-1])
        data, indices = (self.arrays[name].read(first, last) for name in (layout.DATA, layout.INDICES))
        indptr = pointers if first == 0 else pointers - pointers[0]
        return Csr(data, indices, indptr, (stop - start, self.num_features))

    def _pointers(self, start: int, stop: int) -> Array:
        """Read and check the row pointers of rows [start, stop), (stop - start + 1,)."""
        pointers = self.arrays[layout.INDPTR].read(start, stop + 1)
        nonzeros = self.entry.datasets[layout.INDICES].shape[0]
        if pointers[0] < 0 or pointers[-1] > nonzeros or bool((pointers[1:] < pointers[:-1]).any()):
            falls = np.flatnonzero(pointers[1:] < pointers[:-1])
            row = start + int(falls[0]) if len(falls) else start
            raise CorruptShardError(
                f"the row pointers of shard '{self.path}' are invalid: from row {row:,} on they decrease or leave the "
                f"range from 0 to {nonzeros:,}; restore the file from a copy or rebuild the shards"
            )
        return pointers

    def nonzeros(self, start: int, stop: int) -> npt.NDArray[np.integer[Any]]:
        """Count the n-grams, or the token ids other than padding, of each of rows [start, stop)."""
        if not self._sparse:
            return np.asarray(np.count_nonzero(self.arrays[layout.X].read(start, stop), axis=1))
        return np.diff(self._pointers(start, stop))

    def y(self, start: int, stop: int) -> Labels:
        """Read the class indices of rows [start, stop)."""
        return self.arrays[layout.Y].read(start, stop)

    def documents(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Read the document ordinals of rows [start, stop)."""
        return self.arrays[layout.DOCUMENT].read(start, stop)

    def no_rows(self) -> tuple[Features, Labels]:
        """Return empty features and labels in the types of this shard, without reading anything."""
        types = {
            name: np.zeros((0, *where.shape[1:]), where.converted or where.dtype)
            for name, where in self.entry.datasets.items()
        }
        if not self._sparse:
            return types[layout.X], types[layout.Y]
        indptr = np.zeros(1, types[layout.INDPTR].dtype)
        return Csr(types[layout.DATA], types[layout.INDICES], indptr, (0, self.num_features)), types[layout.Y]

    def damaged_rows(self, start: int, stop: int) -> Mask | None:
        """Return a mask of the rows [start, stop) with features or labels in damaged blocks; None if there are none."""
        damaged = np.zeros(stop - start, np.bool_)
        _mark(damaged, start, self.arrays[layout.Y].damaged_ranges(start, stop))
        if not self._sparse:
            _mark(damaged, start, self.arrays[layout.X].damaged_ranges(start, stop))
            return damaged if damaged.any() else None
        for first, last in self.arrays[layout.INDPTR].damaged_ranges(start, stop + 1):
            _mark(damaged, start, [(max(first - 1, start), min(last, stop))])  # a row also needs the next row pointer
        for first, last in list(runs(~damaged)):
            pointers = self._pointers(start + first, start + last)
            entries = int(pointers[0]), int(pointers[-1])
            for begin, end in self.arrays[layout.DATA].damaged_ranges(*entries) + self.arrays[
                layout.INDICES
            ].damaged_ranges(*entries):
                rows = np.searchsorted(pointers, [begin, end - 1], side="right") - 1
                touched = np.arange(int(rows[0]), int(rows[1]) + 1)
                damaged[first + touched[pointers[touched + 1] > pointers[touched]]] = True  # empty rows have no entries
        return damaged if damaged.any() else None

    @property
    def touched(self) -> bool:
        """Whether all features and labels have been read by this object, and verified if requested."""
        return all(array.touched() for name, array in self.arrays.items() if name != layout.DOCUMENT)

    def read_ahead(self, start: int, stop: int) -> None:
        """Start reading rows [start, stop) into the page cache; two row pointers of sparse rows are read at once."""
        for array, first, last in self._extents(start, stop):
            array.read_ahead(first, last)

    def release(self, start: int, stop: int) -> None:
        """Release the page cache of rows [start, stop), which are not needed again soon."""
        for array, first, last in self._extents(start, stop):
            array.release(first, last)

    def _extents(self, start: int, stop: int) -> Iterator[tuple[ArrayReader, int, int]]:
        yield self.arrays[layout.Y], start, stop
        if not self._sparse:
            yield self.arrays[layout.X], start, stop
            return
        try:
            ends = [int(self.arrays[layout.INDPTR].read(row, row + 1)[0]) for row in (start, stop)]
        except CorruptShardError:  # advice must not fail; reading the rows will raise the error
            return
        nonzeros = self.entry.datasets[layout.INDICES].shape[0]
        first, last = (min(max(end, 0), nonzeros) for end in ends)
        yield self.arrays[layout.DATA], first, last
        yield self.arrays[layout.INDICES], first, last
        yield self.arrays[layout.INDPTR], start, stop


def _mark(mask: Mask, origin: int, ranges: Ranges) -> None:
    for first, last in ranges:
        mask[first - origin : last - origin] = True


def runs(mask: Mask) -> Iterator[tuple[int, int]]:
    """Yield the half-open ranges in which a mask is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
