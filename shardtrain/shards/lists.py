"""Read lists: what a large folder says of each block or chunk of a file is in a file beside it, not in the manifest.

Every process parses the manifest, so it must not grow with the data. A list is read whole, because the manifest has one
checksum of it: that of checksums when blocks of its file are first compared, until all have been; that of chunks when
the first one is read. Either takes 1/16,384 of the bytes that are read: 64 MiB per TiB.
"""

from __future__ import annotations

import os
import stat
import sys
from array import array
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardtrain.errors import CorruptShardError, ShardsError, ShardsNotFoundError
from shardtrain.runtime.checksums import checksum
from shardtrain.shards.layout import (
    CHECKSUM_BYTES,
    MAX_BYTES,
    PLACE_BYTES,
    Chunks,
    DatasetEntry,
    ListEntry,
    ShardEntry,
    num_chunks,
)

_DIGITS = 16  # of a checksum in the manifest
_REPAIR = "restore it from a copy, or rebuild the shards with `python -m shardtrain build CORPUS --overwrite`"


class BlockChecksums:
    """The checksums of a file's blocks, from the manifest or from a list.

    Args:
        folder: of the manifest, in which the list is.
        file: whose blocks they are, for messages.
        checksums: what the manifest says.
    """

    def __init__(self, folder: Path, file: Path, checksums: str | ListEntry) -> None:
        self._folder = folder
        self._noun = f"the list of checksums of '{file}'"
        self._checksums = checksums
        self._content: bytes | None = None  # of the list, where it has been read

    @property
    def origin(self) -> str:
        """What says the checksums, in words."""
        return "the manifest" if isinstance(self._checksums, str) else f"'{self._folder / self._checksums.file}'"

    def check_present(self) -> None:
        """Check that the list is there and has its size, without reading it.

        Raises:
            ShardsNotFoundError: it is missing.
            CorruptShardError: it has another size or is no regular file.
        """
        if isinstance(self._checksums, ListEntry):
            check_present(self._folder, self._checksums, self._noun)

    def of(self, start: int, stop: int) -> str:
        """Return the checksums of blocks [start, stop), joined, 16 hex digits each.

        Raises:
            ShardsError: the list is missing, is not what was written, or cannot be read.
        """
        if isinstance(self._checksums, str):
            return self._checksums[_DIGITS * start : _DIGITS * stop]
        content = self._content  # threads that find none at once read the same
        if content is None:
            content = self._content = read_list(self._folder, self._checksums, self._noun)
        return content[CHECKSUM_BYTES * start : CHECKSUM_BYTES * stop].hex()

    def release(self) -> None:
        """Drop the content of the list; it is read again if it is needed."""
        self._content = None


class ChunkPlaces:
    """Where the chunks of a shard's arrays are, from the manifest or from a list.

    Args:
        folder: of the manifest, in which the list is.
        entry: of the shard.
        sizes: bytes of each file that holds arrays, by its path in the manifest's `sources`; None: the shard.
    """

    def __init__(self, folder: Path, entry: ShardEntry, sizes: Mapping[str | None, int]) -> None:
        self._folder = folder
        self._entry = entry
        self._sizes = sizes
        self._chunks: dict[str, Chunks] | None = None
        if entry.chunk_list is not None:
            check_present(folder, entry.chunk_list, _noun_of_chunks(folder, entry))

    def of(self, name: str) -> Chunks | None:
        """Return the chunks of an array with their places; None: it has none.

        Raises:
            ShardsError: the list is missing, is not what was written, cannot be read or cannot be true.
        """
        where = self._entry.datasets[name]
        if where.chunks is None or self._entry.chunk_list is None:
            return where.chunks
        found = self._chunks  # threads that find none at once read the same
        if found is None:
            found = self._chunks = read_chunks(self._folder, self._entry, self._sizes)
        return found[name]


def read_chunks(folder: Path, entry: ShardEntry, sizes: Mapping[str | None, int]) -> dict[str, Chunks]:
    """Read the list of chunks of a shard, and return the chunks of each array with their places.

    `sizes` are those of `ChunkPlaces`; arrays in a file that is not there are not checked.

    Raises:
        ShardsError: the list is missing, is not what was written, cannot be read or cannot be true.
    """
    assert entry.chunk_list is not None
    noun = _noun_of_chunks(folder, entry)
    content = memoryview(read_list(folder, entry.chunk_list, noun))
    found, start = {}, 0
    for name, where in sorted(entry.datasets.items()):
        if where.chunks is not None:
            stop = start + PLACE_BYTES * num_chunks(where)
            numbers = array("Q")
            numbers.frombytes(content[start:stop])
            if sys.byteorder == "little":
                numbers.byteswap()
            found[name] = replace(where.chunks, offsets=numbers[0::2], sizes=numbers[1::2])
            start = stop
    try:
        _check_places(entry.datasets, found, sizes)
    except ValueError as error:
        path = folder / entry.chunk_list.file
        raise CorruptShardError(f"'{path}', {noun}, cannot be true: {error}; {_REPAIR}") from error
    return found


def _noun_of_chunks(folder: Path, entry: ShardEntry) -> str:
    return f"the list of chunks of '{folder / entry.file}'"


def _check_places(
    datasets: Mapping[str, DatasetEntry], chunks: Mapping[str, Chunks], sizes: Mapping[str | None, int]
) -> None:
    """Raise ValueError for chunks outside their file, over other bytes of their shard, or of an impossible size."""
    for file, size in sizes.items():
        offsets, lengths = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for name, where in datasets.items():
            if where.source == file and name in chunks:
                _check_sizes(name, where, chunks[name])
                offsets.append(np.asarray(chunks[name].offsets, np.uint64))
                lengths.append(np.asarray(chunks[name].sizes, np.uint64))
            elif where.source == file and where.bytes:
                offsets.append(np.array([where.offset], np.uint64))
                lengths.append(np.array([where.bytes], np.uint64))
        starts, counts = np.concatenate(offsets), np.concatenate(lengths)
        if len(starts) and max(int(starts.max()), int(counts.max())) > MAX_BYTES:
            raise ValueError(f"a number in it is above {MAX_BYTES:,}")
        order = np.argsort(starts, kind="stable")
        starts = starts[order]
        ends: npt.NDArray[np.uint64] = starts + counts[order]
        if (ends > size).any() or (starts[1:] < ends[:-1]).any():
            raise ValueError("a chunk is outside the file or overlaps other bytes")


def _check_sizes(name: str, where: DatasetEntry, chunks: Chunks) -> None:
    sizes = np.asarray(chunks.sizes, np.uint64)
    if not sizes.all():
        raise ValueError(f"a chunk of '{name}' has no bytes")
    if not chunks.filters and (sizes != np.prod(chunks.shape, dtype=np.uint64) * np.dtype(where.dtype).itemsize).any():
        raise ValueError(f"a chunk of '{name}', which has no filters, has not the bytes of its shape")


def check_present(folder: Path, entry: ListEntry, noun: str) -> None:
    """Check that a list is there and has its size, without reading it; `noun` says what it is.

    Raises:
        ShardsNotFoundError: it is missing.
        CorruptShardError: it has another size or is no regular file.
    """
    path = folder / entry.file
    try:
        _check_size(path, entry, noun, os.stat(path))
    except OSError as error:
        raise _unreadable(path, noun, error) from error


def read_list(folder: Path, entry: ListEntry, noun: str) -> bytes:
    """Read a list; `noun` says what it is.

    Raises:
        ShardsNotFoundError: it is missing.
        CorruptShardError: it is not what was written.
        ShardsError: it cannot be read.
    """
    path = folder / entry.file
    try:
        with open(path, "rb", opener=_without_waiting) as file:
            _check_size(path, entry, noun, os.fstat(file.fileno()))
            content = file.read(entry.bytes)
    except OSError as error:
        raise _unreadable(path, noun, error) from error
    if (found := checksum(content)) != entry.checksum:
        raise CorruptShardError(
            f"'{path}', {noun}, is damaged: its checksum is {found}, the manifest says {entry.checksum}; {_REPAIR}"
        )
    return content


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, and not wait for the other end if it is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def _check_size(path: Path, entry: ListEntry, noun: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode) or found.st_size != entry.bytes:
        what = f"has {found.st_size:,} bytes" if stat.S_ISREG(found.st_mode) else "is no regular file"
        raise CorruptShardError(
            f"'{path}', {noun}, is not what was written: the manifest says {entry.bytes:,} bytes, it {what}; {_REPAIR}"
        )


def _unreadable(path: Path, noun: str, error: OSError) -> ShardsError:
    if isinstance(error, FileNotFoundError):
        return ShardsNotFoundError(f"'{path}', {noun}, is missing, but the manifest names it; {_REPAIR}")
    if isinstance(error, IsADirectoryError):
        return CorruptShardError(f"'{path}', {noun}, is no regular file; {_REPAIR}")
    return ShardsError(f"'{path}', {noun}, cannot be read: {error.strerror}; check the disk and the permissions")
