"""Write and read lists of checksums: the checksums of one file's blocks in a file of their own, not in the manifest.

The manifest is parsed by every process, so in a large folder it must not grow with the data. A list is read when blocks
of its file are first compared, whole, because the manifest has one checksum of it, and is dropped when all have been
compared. That takes 8 bytes of memory per block: 64 MiB per TiB of files that are being compared.
"""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from shardtrain.errors import CorruptShardError, ShardsError, ShardsNotFoundError
from shardtrain.runtime.atomic import commit_bytes, make_folder
from shardtrain.runtime.checksums import checksum
from shardtrain.shards.layout import (
    LIST_SUFFIX,
    MAX_INLINE_BLOCKS,
    ChecksumList,
    Manifest,
    ShardEntry,
    SourceEntry,
)
from shardtrain.shards.manifest import files_in, fingerprint_of

_Entry = TypeVar("_Entry", ShardEntry, SourceEntry)
_DIGITS, _BYTES = 16, 8  # of a checksum in the manifest; in a list
_REPAIR = "restore it from a copy, or rebuild the shards with `python -m shardtrain build CORPUS --overwrite`"


class BlockChecksums:
    """The checksums of a file's blocks, from the manifest or from a list.

    Args:
        folder: of the manifest, in which the list is.
        file: whose blocks they are, for messages.
        checksums: what the manifest says.
    """

    def __init__(self, folder: Path, file: Path, checksums: str | ChecksumList) -> None:
        self._folder = folder
        self._file = file
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
        if isinstance(self._checksums, ChecksumList):
            path = self._folder / self._checksums.file
            try:
                self._check_size(path, self._checksums, os.stat(path))
            except OSError as error:
                raise self._unreadable(path, error) from error

    def of(self, start: int, stop: int) -> str:
        """Return the checksums of blocks [start, stop), joined, 16 hex digits each.

        Raises:
            ShardsNotFoundError: the list is missing.
            CorruptShardError: the list is not what was written.
            ShardsError: the list cannot be read.
        """
        if isinstance(self._checksums, str):
            return self._checksums[_DIGITS * start : _DIGITS * stop]
        content = self._content  # threads that find none at once read the same
        if content is None:
            content = self._content = self._read(self._checksums)
        return content[_BYTES * start : _BYTES * stop].hex()

    def release(self) -> None:
        """Drop the content of the list; it is read again if it is needed."""
        self._content = None

    def _read(self, entry: ChecksumList) -> bytes:
        path = self._folder / entry.file
        try:
            with open(path, "rb", opener=_without_waiting) as file:
                self._check_size(path, entry, os.fstat(file.fileno()))
                content = file.read(entry.bytes)
        except OSError as error:
            raise self._unreadable(path, error) from error
        if (found := checksum(content)) != entry.checksum:
            raise CorruptShardError(
                f"'{path}', the list of checksums of '{self._file}', is damaged: its checksum is {found}, the manifest "
                f"says {entry.checksum}; {_REPAIR}"
            )
        return content

    def _check_size(self, path: Path, entry: ChecksumList, found: os.stat_result) -> None:
        if not stat.S_ISREG(found.st_mode) or found.st_size != entry.bytes:
            what = f"has {found.st_size:,} bytes" if stat.S_ISREG(found.st_mode) else "is no regular file"
            raise CorruptShardError(
                f"'{path}', the list of checksums of '{self._file}', is not what was written: the manifest says "
                f"{entry.bytes:,} bytes, it {what}; {_REPAIR}"
            )

    def _unreadable(self, path: Path, error: OSError) -> ShardsError:
        if isinstance(error, FileNotFoundError):
            return ShardsNotFoundError(
                f"'{path}', the list of checksums of '{self._file}', is missing, but the manifest names it; {_REPAIR}"
            )
        return ShardsError(
            f"'{path}', the list of checksums of '{self._file}', cannot be read: {error.strerror}; check the disk and "
            "the permissions"
        )


def _without_waiting(path: str, flags: int) -> int:
    """Open a file, and not wait for the other end if it is a pipe."""
    return os.open(path, flags | os.O_NONBLOCK)


def with_lists(manifest: Manifest, ready: Path) -> Manifest:
    """Move the checksums of a large folder to lists, which are written to `ready`; return a small folder's as it is.

    A folder that becomes large by an addition gets lists for the shards that it had as well: its manifest is replaced
    anyway, and no shard is written to.

    Raises:
        StorageError: a list cannot be written.
    """
    if sum(entry.blocks for entry in manifest.checksummed) <= MAX_INLINE_BLOCKS:
        return manifest
    names = set(files_in(manifest))
    splits = {
        name: replace(split, shards=tuple(_listed(shard, shard.file, names, ready) for shard in split.shards))
        for name, split in manifest.splits.items()
    }
    sources = {
        path: _listed(source, f"source-{number:05}", names, ready)
        for number, (path, source) in enumerate(manifest.sources.items())
    }
    return replace(manifest, splits=splits, sources=sources, fingerprint=fingerprint_of(splits, sources))


def _listed(entry: _Entry, name: str, names: set[str], ready: Path) -> _Entry:
    """Write the list of a file, and return its entry with the list; `names` are those taken, and gets the list's."""
    if isinstance(entry.checksums, ChecksumList):
        return entry
    while (name := f"{name}{LIST_SUFFIX}") in names:
        pass  # another program's shards may have any names
    names.add(name)
    content = bytes.fromhex(entry.checksums)
    make_folder((ready / name).parent)
    commit_bytes(ready / name, content)
    return replace(entry, checksums=ChecksumList(file=name, bytes=len(content), checksum=checksum(content)))
