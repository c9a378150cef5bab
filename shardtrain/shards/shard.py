"""The rows of one shard: which elements of which arrays they are, and what damage costs.

An array is an `ArrayReader`: `PlainArray` if its elements lie in the file as they are, else `StoredArray`. Row pointers
are checked before anything follows them, also where checksums are not compared.
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
from shardtrain.shards.files import ShardFile
from shardtrain.shards.layout import ShardEntry
from shardtrain.shards.plain import Array, ArrayReader, PlainArray, Ranges
from shardtrain.shards.stored import StoredArray

Mask = npt.NDArray[np.bool_]


class Shard:
    """One open shard.

    Args:
        folder: of the shards.
        entry: what the manifest says of it.
        num_features: columns of its rows, which the arrays of n-grams do not tell.
        verify: compare each block when it is first touched.
        io: see `ReadOptions`.
        past_cache: see `ShardFile`.
        buffers: see `ShardFile`.
        sources: the files outside the folder that arrays lie in, by path.
    """

    def __init__(
        self,
        folder: Path,
        entry: ShardEntry,
        num_features: int,
        *,
        verify: bool,
        io: str = "auto",
        past_cache: bool = False,
        buffers: BufferPool | None = None,
        sources: Mapping[str, ShardFile] | None = None,
    ) -> None:
        self.path = folder / entry.file
        self.entry = entry
        self.num_features = num_features
        self.file = ShardFile(self.path, entry, verify=verify, io=io, past_cache=past_cache, buffers=buffers)
        elsewhere = {where.source: (sources or {})[where.source] for where in entry.datasets.values() if where.source}
        self.files = [self.file, *elsewhere.values()]
        self.sources: dict[str, ArrayReader] = {
            name: StoredArray(name, where, elsewhere[where.source] if where.source else self.file)
            if where.chunks or where.source
            else PlainArray(self.file, where)
            for name, where in entry.datasets.items()
        }
        self._sparse = layout.INDPTR in self.sources

    @property
    def mapped(self) -> bool:
        """Whether all arrays are views of mapped files."""
        plain = all(isinstance(source, PlainArray) for source in self.sources.values())
        return plain and all(file.mapped for file in self.files)

    def x(self, start: int, stop: int) -> Features:
        """Features of rows [start, stop); views where the file is mapped.

        Raises:
            CorruptShardError: the bytes that hold them differ from what was written, or row pointers are impossible.
        """
        if not self._sparse:
            return self.sources[layout.X].read(start, stop)
        pointers = self._pointers(start, stop)
        first, last = int(pointers[0]), int(pointers[-1])
        data, indices = (self.sources[name].read(first, last) for name in (layout.DATA, layout.INDICES))
        indptr = pointers if first == 0 else pointers - pointers[0]
        return Csr(data, indices, indptr, (stop - start, self.num_features))

    def _pointers(self, start: int, stop: int) -> Array:
        """Row pointers of rows [start, stop), (stop - start + 1,), that can be followed."""
        pointers = self.sources[layout.INDPTR].read(start, stop + 1)
        nonzeros = self.entry.datasets[layout.INDICES].shape[0]
        if pointers[0] < 0 or pointers[-1] > nonzeros or bool((pointers[1:] < pointers[:-1]).any()):
            falls = np.flatnonzero(pointers[1:] < pointers[:-1])
            row = start + int(falls[0]) if len(falls) else start
            raise CorruptShardError(
                f"the row pointers of shard '{self.path}' are impossible: from row {row:,} on they fall or leave the "
                f"range from 0 to {nonzeros:,}; restore the file from a copy or rebuild the shards"
            )
        return pointers

    def nonzeros(self, start: int, stop: int) -> npt.NDArray[np.integer[Any]]:
        """How many n-grams, or token ids other than padding, each of rows [start, stop) has."""
        if not self._sparse:
            return np.asarray(np.count_nonzero(self.sources[layout.X].read(start, stop), axis=1))
        return np.diff(self._pointers(start, stop))

    def y(self, start: int, stop: int) -> Labels:
        """Class indices of rows [start, stop)."""
        return self.sources[layout.Y].read(start, stop)

    def documents(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Ordinals of the documents behind rows [start, stop)."""
        return self.sources[layout.DOCUMENT].read(start, stop)

    def no_rows(self) -> tuple[Features, Labels]:
        """Features and labels of no row, in the types of this shard; nothing is read."""
        types = {
            name: np.zeros((0, *where.shape[1:]), where.converted or where.dtype)
            for name, where in self.entry.datasets.items()
        }
        if not self._sparse:
            return types[layout.X], types[layout.Y]
        indptr = np.zeros(1, types[layout.INDPTR].dtype)
        return Csr(types[layout.DATA], types[layout.INDICES], indptr, (0, self.num_features)), types[layout.Y]

    def lost_rows(self, start: int, stop: int) -> Mask | None:
        """Which of rows [start, stop) have features or a label in damaged blocks; None: none of them."""
        lost = np.zeros(stop - start, np.bool_)
        _mark(lost, start, self.sources[layout.Y].lost(start, stop))
        if not self._sparse:
            _mark(lost, start, self.sources[layout.X].lost(start, stop))
            return lost if lost.any() else None
        for first, last in self.sources[layout.INDPTR].lost(start, stop + 1):
            _mark(lost, start, [(max(first - 1, start), min(last, stop))])  # a row needs the pointer behind it, too
        for first, last in list(runs(~lost)):
            pointers = self._pointers(start + first, start + last)
            entries = int(pointers[0]), int(pointers[-1])
            for begin, end in self.sources[layout.DATA].lost(*entries) + self.sources[layout.INDICES].lost(*entries):
                rows = np.searchsorted(pointers, [begin, end - 1], side="right") - 1
                touched = np.arange(int(rows[0]), int(rows[1]) + 1)
                lost[first + touched[pointers[touched + 1] > pointers[touched]]] = True  # an empty row has no entries
        return lost if lost.any() else None

    @property
    def touched(self) -> bool:
        """Whether all features and labels were read, and compared if that is wanted, in the life of this object."""
        return all(source.touched() for name, source in self.sources.items() if name != layout.DOCUMENT)

    def need(self, start: int, stop: int) -> None:
        """Rows [start, stop) will be read soon; of sparse rows the pointers are read now."""
        for source, first, last in self._extents(start, stop):
            source.need(first, last)

    def release(self, start: int, stop: int) -> None:
        """Rows [start, stop) will not be read again soon."""
        for source, first, last in self._extents(start, stop):
            source.release(first, last)

    def _extents(self, start: int, stop: int) -> Iterator[tuple[ArrayReader, int, int]]:
        yield self.sources[layout.Y], start, stop
        if not self._sparse:
            yield self.sources[layout.X], start, stop
            return
        try:
            ends = [int(self.sources[layout.INDPTR].read(row, row + 1)[0]) for row in (start, stop)]
        except CorruptShardError:  # advice to the kernel fails at nothing; whoever reads the rows will be told
            return
        nonzeros = self.entry.datasets[layout.INDICES].shape[0]
        first, last = (min(max(end, 0), nonzeros) for end in ends)
        yield self.sources[layout.DATA], first, last
        yield self.sources[layout.INDICES], first, last
        yield self.sources[layout.INDPTR], start, stop


def _mark(mask: Mask, origin: int, ranges: Ranges) -> None:
    for first, last in ranges:
        mask[first - origin : last - origin] = True


def runs(mask: Mask) -> Iterator[tuple[int, int]]:
    """The half-open ranges in which a mask is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True)
