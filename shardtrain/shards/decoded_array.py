"""Read arrays that must be decoded, gathered or converted: compressed chunks, scattered chunks, other types.

Chunks are decoded in a thread pool, outside libhdf5's lock, and kept in a bounded cache that all arrays of the process
share, because neighbouring rows are usually requested next. Rows of one chunk are a view of the cache; rows of several
chunks are copied together.
"""

from __future__ import annotations

import math
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from typing import Any

import numpy as np

from shardtrain.errors import CorruptShardError
from shardtrain.runtime.machine import cores
from shardtrain.shards.codecs import decode_chunk
from shardtrain.shards.files import ShardFile
from shardtrain.shards.layout import Chunks, DatasetEntry, num_chunks
from shardtrain.shards.lists import ChunkPlaces
from shardtrain.shards.plain_array import Array, PlainArray, Ranges

_AHEAD_BYTES = 2 << 20  # decoded in advance if rows are read in order
CACHE_BYTES = 128 << 20  # of decoded chunks: a window of wide rows, and the current chunk of every array


class ChunkCache:
    """An LRU cache of decoded chunks by (array, chunk number), of at most `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._chunks: OrderedDict[tuple[int, int], Array] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> Array | None:
        """Return the chunk, or None if it is not cached."""
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
            return self._chunks.get(key)

    def put(self, key: tuple[int, int], chunk: Array) -> None:
        """Cache a chunk and evict the least recently used ones, or the chunk itself if it exceeds the cache."""
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = chunk
                self.bytes += chunk.nbytes
            while self.bytes > self.max_bytes:
                self.bytes -= self._chunks.popitem(last=False)[1].nbytes

    def forget(self, array: int) -> None:
        """Evict the chunks of an array."""
        with self._lock:
            for key in [key for key in self._chunks if key[0] == array]:
                self.bytes -= self._chunks.pop(key).nbytes


DECODED = ChunkCache(CACHE_BYTES)
_tokens = count()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(cores(), thread_name_prefix="decode")


def _forget_parent() -> None:
    """Replace, in a forked process, the lock that another thread may have held and the threads that do not exist."""
    DECODED.__init__(CACHE_BYTES)  # type: ignore[misc]
    _pool.cache_clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_parent)


class DecodedArray:
    """An array of a shard that is chunked, compressed or converted; `read` returns verified, decoded rows.

    Args:
        name: of the array.
        entry: of the array in the manifest.
        file: that holds it.
        places: of chunks that have a list; None: the entry says where they are.
    """

    def __init__(self, name: str, entry: DatasetEntry, file: ShardFile, places: ChunkPlaces | None = None) -> None:
        self.name = name
        self.entry = entry
        self.shape = entry.shape
        self.dtype = np.dtype(entry.converted or entry.dtype)
        self._file = file
        self._places = places
        self._plain = PlainArray(file, entry)  # used if the array is not chunked
        self._token = next(_tokens)  # identifies the array in the cache
        self._last = -1  # the chunk read last
        weakref.finalize(self, DECODED.forget, self._token)

    def read(self, start: int, stop: int) -> Array:
        """Read elements [start, stop) along the first axis: a read-only view, or a copy that the caller owns.

        Raises:
            CorruptShardError: the bytes that hold them differ from what was written.
        """
        if stop <= start:
            return np.empty((0, *self.shape[1:]), self.dtype)
        if self.entry.chunks is None:
            return self._plain.read(start, stop).astype(self.dtype, copy=False)
        return self._from_chunks(self.entry.chunks, start, stop)

    def damaged_ranges(self, start: int, stop: int) -> Ranges:
        """Return the ranges of rows whose chunks are at least partly in damaged blocks."""
        if self.entry.chunks is None:
            return self._plain.damaged_ranges(start, stop)
        found = []
        for first, last, numbers in self._chunk_rows(self.entry.chunks, start, stop):
            if any(self._file.damaged_blocks(*self._place(number)) for number in numbers):
                found.append((first, last))
        return found

    def touched(self) -> bool:
        """Return False: even verified chunks must be decoded, gathered or converted."""
        return False

    def read_ahead(self, start: int, stop: int) -> None:
        """Start reading the chunks of the elements into the page cache."""
        if self.entry.chunks is None:
            self._plain.read_ahead(start, stop)
            return
        for _, _, numbers in self._chunk_rows(self.entry.chunks, start, stop):
            for number in numbers:
                self._file.read_ahead(*self._place(number))

    def release(self, start: int, stop: int) -> None:
        """Release the pages of the elements' chunks."""
        if self.entry.chunks is None:
            self._plain.release(start, stop)
            return
        for _, _, numbers in self._chunk_rows(self.entry.chunks, start, stop):
            for number in numbers:
                self._file.release(*self._place(number))

    def _place(self, number: int) -> tuple[int, int]:
        """Return the half-open byte range of a chunk in the file."""
        chunks = self._placed_chunks()
        return chunks.offsets[number], chunks.offsets[number] + chunks.sizes[number]

    def _placed_chunks(self) -> Chunks:
        """Return the chunks with their places."""
        chunks = self._places.of(self.name) if self._places else self.entry.chunks
        assert chunks is not None
        return chunks

    def _columns(self, chunks: Chunks) -> int:
        """Return the number of chunks side by side."""
        return math.prod(-(-n // m) for n, m in zip(self.shape[1:], chunks.shape[1:], strict=True))

    def _chunk_rows(self, chunks: Chunks, start: int, stop: int) -> Iterator[tuple[int, int, range]]:
        """Yield, for each row of chunks that holds rows [start, stop), its share of them and the chunk numbers."""
        columns, height = self._columns(chunks), chunks.shape[0]
        for row in range((start + chunks.start) // height, -(-(stop + chunks.start) // height) if stop > start else 0):
            first, last = row * height - chunks.start, (row + 1) * height - chunks.start
            yield max(first, start), min(last, stop), range(row * columns, (row + 1) * columns)

    def _values(self, content: Any, shape: tuple[int, ...]) -> Array:
        values = np.frombuffer(content, self.entry.dtype).reshape(shape)
        return values.astype(self.dtype, copy=False)

    def _from_chunks(self, chunks: Chunks, start: int, stop: int) -> Array:
        columns = self._columns(chunks)
        start, stop = start + chunks.start, stop + chunks.start
        height = chunks.shape[0]
        first, last = start // height, -(-stop // height)
        found = self._decoded(chunks, range(first * columns, last * columns))
        if len(found) == 1:
            rows = slice(start - first * height, stop - first * height)
            return found[0][(rows, *map(slice, self.shape[1:]))]
        out = np.empty((stop - start, *self.shape[1:]), self.dtype)
        for number, chunk in enumerate(found):
            row, column = (first + number // columns) * height, number % columns
            begin, end = max(row, start), min(row + height, stop)
            if len(self.shape) == 1:
                out[begin - start : end - start] = chunk[begin - row : end - row]
            else:
                left = column * chunks.shape[1]
                right = min(left + chunks.shape[1], self.shape[1])
                out[begin - start : end - start, left:right] = chunk[begin - row : end - row, : right - left]
        return out

    def _decoded(self, chunks: Chunks, numbers: range) -> list[Array]:
        """Return decoded chunks by number, from the cache where possible."""
        found = {number: DECODED.get((self._token, number)) for number in numbers}
        missing = [number for number, chunk in found.items() if chunk is None]
        last, self._last = self._last, max(found)
        if missing == [last + 1]:  # sequential reads of less than a chunk
            missing += self._ahead(chunks, last + 2)
        raws = [self._file.bytes(*self._place(number)) for number in missing]
        decode = _pool().map if len(missing) > 1 and chunks.filters else map
        for number, chunk in zip(missing, decode(self._decode, missing, raws), strict=True):
            found[number] = chunk
            if chunks.filters:
                DECODED.put((self._token, number), chunk)
        return [found[number] for number in numbers]  # type: ignore[misc]

    def _ahead(self, chunks: Chunks, first: int) -> list[int]:
        """Return the chunks from `first` on to decode in advance, so that sequential reads use all cores."""
        if not chunks.filters:
            return []
        count = _AHEAD_BYTES // (math.prod(chunks.shape) * self.dtype.itemsize)
        following = range(first, min(first + count, num_chunks(self.entry)))
        return [
            number
            for number in following
            if DECODED.get((self._token, number)) is None and not self._file.damaged_blocks(*self._place(number))
        ]

    def _decode(self, number: int, raw: Array) -> Array:
        chunks = self._placed_chunks()
        itemsize = np.dtype(self.entry.dtype).itemsize
        mask = chunks.masks[number] if chunks.masks else 0
        try:
            content = decode_chunk(raw, chunks.filters, mask, itemsize, math.prod(chunks.shape) * itemsize)
        except CorruptShardError as error:
            raise CorruptShardError(
                f"'{self._file.path}' cannot be decoded: chunk {number:,} of '{self.name}' at byte "
                f"{chunks.offsets[number]:,}: {error.on_command_line}; restore the file from a copy or rebuild the "
                "shards"
            ) from error
        values = self._values(content, chunks.shape)
        values.flags.writeable = False
        return values
