"""Arrays that are not simply there: decoded from compressed chunks, gathered from scattered ones, converted.

A mapped array is a view of its file; this is the same behind one method, `read`, for all others. Chunks are decoded in
a pool of threads, outside libhdf5's lock, and kept in a bounded cache that all arrays of the process share, because
neighbouring rows are asked for next. Rows of one chunk are a view of the cache; rows of several are copied together.
"""

from __future__ import annotations

import math
import os
import stat
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from shardtrain.arrays.buffers import BufferPool
from shardtrain.errors import CorruptShardError, ShardsNotFoundError
from shardtrain.shards.codecs import decode_chunk
from shardtrain.shards.files import ShardFile
from shardtrain.shards.layout import Chunks, DatasetEntry, ShardEntry, SourceEntry
from shardtrain.shards.plain import Array, PlainArray, Ranges

_AHEAD_BYTES = 2 << 20  # decoded at once where rows are read in order
CACHE_BYTES = 128 << 20  # of decoded chunks: a window of wide rows, and of every array the chunk that is being read


def check_source(path: str, entry: SourceEntry) -> None:
    """Check that a file of somebody else's that arrays lie in is still what it was when it was indexed.

    Raises:
        ShardsNotFoundError: it is missing.
        CorruptShardError: it was changed or replaced.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise ShardsNotFoundError(
            f"'{path}' cannot be read ({error.strerror}), but the shards' features lie in it; put it back, or index it "
            "where it is now with `python -m shardtrain index`"
        ) from error
    facts = (("bytes", found.st_size, entry.bytes), ("modified at", found.st_mtime_ns, entry.mtime_ns),
             ("inode", found.st_ino, entry.inode))  # fmt: skip
    for what, now, then in facts:
        if now != then or not stat.S_ISREG(found.st_mode):
            raise CorruptShardError(
                f"'{path}' was changed or replaced since it was indexed ({what}: {then:,} then, {now:,} now); put the "
                "old file back, or index it again with `python -m shardtrain index`"
            )


def open_source(
    path: str,
    entry: SourceEntry,
    *,
    verify: bool,
    io: str = "auto",
    past_cache: bool = False,
    buffers: BufferPool | None = None,
) -> ShardFile:
    """Open a file of somebody else's that arrays lie in; it is read and verified as shards are (see `ShardFile`).

    Raises:
        ShardsNotFoundError: it is missing.
        CorruptShardError: it was changed or replaced since it was indexed.
    """
    check_source(path, entry)
    as_shard = ShardEntry(
        file=path, rows=1, bytes=entry.bytes, datasets={}, block_bytes=entry.block_bytes, checksums=entry.checksums
    )
    return ShardFile(Path(path), as_shard, verify=verify, io=io, past_cache=past_cache, buffers=buffers)


class ChunkCache:
    """Decoded chunks by (array, number), the least recently used ones dropped beyond `max_bytes`."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._chunks: OrderedDict[tuple[int, int], Array] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: tuple[int, int]) -> Array | None:
        """The chunk, if it is here still."""
        with self._lock:
            if key in self._chunks:
                self._chunks.move_to_end(key)
            return self._chunks.get(key)

    def put(self, key: tuple[int, int], chunk: Array) -> None:
        """Keep a chunk; others may have to go, also this one if it is larger than the cache."""
        with self._lock:
            if key not in self._chunks:
                self._chunks[key] = chunk
                self.bytes += chunk.nbytes
            while self.bytes > self.max_bytes:
                self.bytes -= self._chunks.popitem(last=False)[1].nbytes

    def forget(self, array: int) -> None:
        """Drop the chunks of an array that is gone."""
        with self._lock:
            for key in [key for key in self._chunks if key[0] == array]:
                self.bytes -= self._chunks.pop(key).nbytes


DECODED = ChunkCache(CACHE_BYTES)
_tokens = count()


@lru_cache(maxsize=1)
def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(len(os.sched_getaffinity(0)), thread_name_prefix="decode")


class StoredArray:
    """One array of a shard; `read` gives rows of it, verified, decoded and converted."""

    def __init__(self, name: str, entry: DatasetEntry, file: ShardFile) -> None:
        self.name = name
        self.entry = entry
        self.shape = entry.shape
        self.dtype = np.dtype(entry.converted or entry.dtype)
        self._file = file
        self._plain = PlainArray(file, entry)  # of one piece
        self._token = next(_tokens)
        self._last = -1  # chunk that was read last
        weakref.finalize(self, DECODED.forget, self._token)

    def read(self, start: int, stop: int) -> Array:
        """Elements [start, stop) along the first axis: read-only, or a copy of the caller's own.

        Raises:
            CorruptShardError: the bytes that hold them differ from what was written.
        """
        if stop <= start:
            return np.empty((0, *self.shape[1:]), self.dtype)
        if self.entry.chunks is None:
            return self._plain.read(start, stop).astype(self.dtype, copy=False)
        return self._from_chunks(self.entry.chunks, start, stop)

    def lost(self, start: int, stop: int) -> Ranges:
        """Rows of chunks that lie, all or in part, in a damaged block."""
        if self.entry.chunks is None:
            return self._plain.lost(start, stop)
        found = []
        for first, last, numbers in self._chunk_rows(self.entry.chunks, start, stop):
            if any(self._file.damaged(*self._place(number)) for number in numbers):
                found.append((first, last))
        return found

    def touched(self) -> bool:
        """Never: even what was compared is decoded, gathered or converted again."""
        return False

    def need(self, start: int, stop: int) -> None:
        """Begin to read ahead."""
        if self.entry.chunks is None:
            self._plain.need(start, stop)
            return
        for _, _, numbers in self._chunk_rows(self.entry.chunks, start, stop):
            for number in numbers:
                self._file.need(*self._place(number))

    def release(self, start: int, stop: int) -> None:
        """Give the pages back."""
        if self.entry.chunks is None:
            self._plain.release(start, stop)
            return
        for _, _, numbers in self._chunk_rows(self.entry.chunks, start, stop):
            for number in numbers:
                self._file.release(*self._place(number))

    def _place(self, number: int) -> tuple[int, int]:
        """The bytes of a chunk in the file."""
        chunks = self.entry.chunks
        assert chunks is not None
        return chunks.offsets[number], chunks.offsets[number] + chunks.sizes[number]

    def _columns(self, chunks: Chunks) -> int:
        """Chunks side by side."""
        return math.prod(-(-n // m) for n, m in zip(self.shape[1:], chunks.shape[1:], strict=True))

    def _chunk_rows(self, chunks: Chunks, start: int, stop: int) -> Iterator[tuple[int, int, range]]:
        """The chunks that hold rows [start, stop): those rows of each row of chunks, and the chunks' numbers."""
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
        """The chunks of those numbers, each as an array of a chunk's shape."""
        found = {number: DECODED.get((self._token, number)) for number in numbers}
        missing = [number for number, chunk in found.items() if chunk is None]
        last, self._last = self._last, max(found)
        if missing == [last + 1]:  # from front to back, less than a chunk at a time
            missing += self._ahead(chunks, last + 2)
        raws = [self._file.bytes(*self._place(number)) for number in missing]
        decode = _pool().map if len(missing) > 1 and chunks.filters else map
        for number, chunk in zip(missing, decode(self._decode, missing, raws), strict=True):
            found[number] = chunk
            if chunks.filters:
                DECODED.put((self._token, number), chunk)
        return [found[number] for number in numbers]  # type: ignore[misc]

    def _ahead(self, chunks: Chunks, first: int) -> list[int]:
        """Chunks from `first` on to decode with the one before, so that reading in order uses all cores, too."""
        if not chunks.filters:
            return []
        count = _AHEAD_BYTES // (math.prod(chunks.shape) * self.dtype.itemsize)
        following = range(first, min(first + count, len(chunks.offsets)))
        return [
            number
            for number in following
            if DECODED.get((self._token, number)) is None and not self._file.damaged(*self._place(number))
        ]

    def _decode(self, number: int, raw: Array) -> Array:
        chunks = self.entry.chunks
        assert chunks is not None
        itemsize = np.dtype(self.entry.dtype).itemsize
        mask = chunks.masks[number] if chunks.masks else 0
        try:
            content = decode_chunk(raw, chunks.filters, mask, itemsize, math.prod(chunks.shape) * itemsize)
        except CorruptShardError as error:
            raise CorruptShardError(
                f"'{self._file.path}' cannot be decoded: chunk {number:,} of '{self.name}' at byte "
                f"{chunks.offsets[number]:,}: {error}; restore the file from a copy or make the shards again"
            ) from error
        values = self._values(content, chunks.shape)
        values.flags.writeable = False
        return values
