"""Move what a manifest would say of each block and chunk to lists, if the folder is large; see `lists`.

The rule of this package is here: how large a folder is before its manifest names lists, and what they are called. All
that makes shards makes its manifest first as that of a small folder, and one call then decides. The cost is that this
process holds the digits of all checksums once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from shardtrain.runtime.atomic import commit_bytes, make_folder
from shardtrain.runtime.checksums import checksum
from shardtrain.shards.layout import (
    CHECKSUM_LIST_SUFFIX,
    CHUNK_LIST_SUFFIX,
    MAX_INLINE,
    PLACE_BYTES,
    ListEntry,
    Manifest,
    ShardEntry,
    SourceEntry,
    files_in,
)
from shardtrain.shards.manifest import fingerprint_of

_Entry = TypeVar("_Entry", ShardEntry, SourceEntry)


def with_lists(manifest: Manifest, ready: Path) -> Manifest:
    """Move the checksums and chunks of a large folder to lists, which are written to `ready`; others stay as they are.

    A folder that becomes large by an addition gets lists for the shards that it had as well: its manifest is replaced
    anyway, and no shard is written to.

    Raises:
        StorageError: a list cannot be written.
    """
    if _num_inline(manifest) <= MAX_INLINE:
        return manifest
    names = set(files_in(manifest))
    splits = {
        name: replace(
            split,
            shards=tuple(
                _with_chunk_list(_with_checksum_list(shard, shard.file, names, ready), names, ready)
                for shard in split.shards
            ),
        )
        for name, split in manifest.splits.items()
    }
    sources = {
        path: _with_checksum_list(source, f"source-{number:05}", names, ready)
        for number, (path, source) in enumerate(manifest.sources.items())
    }
    return replace(manifest, splits=splits, sources=sources, fingerprint=fingerprint_of(splits, sources))


def _num_inline(manifest: Manifest) -> int:
    """Count the blocks and chunks of a folder, those that have lists already included."""
    places = (
        where for split in manifest.splits.values() for shard in split.shards for where in shard.datasets.values()
    )
    chunks = sum(len(where.chunks.offsets) for where in places if where.chunks is not None)
    listed = sum(each.bytes // PLACE_BYTES for each in manifest.chunk_lists)
    return sum(entry.blocks for entry in manifest.checksummed) + chunks + listed


def _with_checksum_list(entry: _Entry, name: str, names: set[str], ready: Path) -> _Entry:
    """Write the checksums of a file, and return its entry with their list."""
    if isinstance(entry.checksums, ListEntry):
        return entry
    content = bytes.fromhex(entry.checksums)
    return replace(entry, checksums=_write(content, f"{name}{CHECKSUM_LIST_SUFFIX}", names, ready))


def _with_chunk_list(shard: ShardEntry, names: set[str], ready: Path) -> ShardEntry:
    """Write the places of the chunks of a shard, and return its entry with their list.

    Of files of other programs a chunk may have skipped a filter. Their masks have no place in a list.
    """
    chunks = {name: where.chunks for name, where in sorted(shard.datasets.items()) if where.chunks is not None}
    if shard.chunk_list is not None or not chunks or any(each.masks for each in chunks.values()):
        return shard
    content = b"".join(np.array([each.offsets, each.sizes], ">u8").T.tobytes() for each in chunks.values())
    datasets = {
        name: where if where.chunks is None else replace(where, chunks=replace(where.chunks, offsets=(), sizes=()))
        for name, where in shard.datasets.items()
    }
    made = _write(content, f"{shard.file}{CHUNK_LIST_SUFFIX}", names, ready)
    return replace(shard, datasets=datasets, chunk_list=made)


def _write(content: bytes, name: str, names: set[str], ready: Path) -> ListEntry:
    """Write a list; `names` are those of the folder's files, and gets the list's."""
    while name in names:  # another program's shards may have any names
        name += "~"
    names.add(name)
    make_folder((ready / name).parent)
    commit_bytes(ready / name, content)
    return ListEntry(file=name, bytes=len(content), checksum=checksum(content))
