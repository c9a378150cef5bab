"""Verify finished shards completely: every byte, every value, and that the files are safe, consistent HDF5.

Reading checks only what it touches; this is for a copy, a backup, a doubtful disk or untrusted shards. First all
checksums are compared, in several threads. Undamaged files are then checked for HDF5 seeing the same arrays at the same
offsets with the same values, and for values in range. Verification continues after a fault, so that one run reports
everything to restore. Values are read twice, with positioned reads and by libhdf5.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import CorruptShardError, ShardsError
from shardtrain.runtime.checksums import running_checksum
from shardtrain.shards import layout
from shardtrain.shards.codecs import load_plugins
from shardtrain.shards.files import ShardFile, open_source
from shardtrain.shards.hdf5 import locate, open_shard_file, shard_dataset
from shardtrain.shards.layout import (
    Chunks,
    DatasetEntry,
    FileEntry,
    ListEntry,
    Manifest,
    ShardEntry,
    SourceEntry,
    SplitEntry,
)
from shardtrain.shards.lists import read_chunks
from shardtrain.shards.manifest import read_manifest
from shardtrain.shards.shard import Shard

_PIECE_BYTES = 1 << 20
_TASK_BYTES = 1 << 26  # checked per task of a thread
_COMPARED_BYTES = 1 << 23  # compared with HDF5's values per step

Advance = Callable[[int], None]


@dataclass(frozen=True, kw_only=True)
class Verification:
    """What was checked, as numbers of files, bytes and checksums; `faults` has a message for each fault found."""

    files: int
    bytes: int
    checksums: int
    faults: tuple[str, ...]


def num_checked_bytes(manifest: Manifest) -> int:
    """Return the bytes that `verify_shards` will report as done: all files, and all values once more."""
    return sum(entry.bytes for entry in _entries(manifest)) + sum(map(_value_bytes, _shards(manifest)))


def verify_shards(folder: Path, *, advance: Advance, workers: int | None = None) -> Verification:
    """Verify the folder of shards `folder`.

    Args:
        folder: with a manifest, whose own checksum is compared as well.
        advance: called in this thread with the number of bytes done since the last call.
        workers: threads that compare checksums; None: one per core.

    Raises:
        ShardsNotFoundError: the folder or its manifest does not exist.
        ManifestError: the manifest is damaged.
    """
    manifest = read_manifest(folder)
    faults: list[str] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        shards = [(shard, *_submit(pool, folder, shard)) for shard in _shards(manifest)]
        sources = manifest.sources.items()
        external = [(path, entry, *_submit_source(pool, folder, path, entry)) for path, entry in sources]
        damaged = {shard.file for shard, file, tasks in shards if _collect(file, tasks, shard, faults, advance)}
        damaged_sources = {
            path for path, entry, file, tasks in external if _collect(file, tasks, entry, faults, advance)
        }
    for shard in _shards(manifest):
        if found := [*_list_faults(folder, shard, manifest, advance)]:
            faults += found
            damaged.add(shard.file)
    for split in manifest.splits.values():
        counts = np.zeros(len(manifest.class_names), np.int64)
        before = len(faults)
        for shard in split.shards:
            if shard.file in damaged or damaged_sources & {where.source for where in shard.datasets.values()}:
                damaged.add(shard.file)
                advance(_value_bytes(shard))
            else:
                faults += _content_faults(folder, shard, manifest, counts, advance)
        if len(faults) == before and not damaged.intersection(shard.file for shard in split.shards):
            faults += _count_faults(folder, split, counts)
    for name, entry in manifest.files.items():
        faults += _file_faults(folder / name, entry, advance)
    return Verification(
        files=sum(1 for _ in _entries(manifest)),
        bytes=sum(entry.bytes for entry in _entries(manifest)),
        checksums=sum(
            entry.blocks if isinstance(entry, ShardEntry | SourceEntry) else 1 for entry in _entries(manifest)
        ),
        faults=tuple(faults),
    )


def _shards(manifest: Manifest) -> Iterator[ShardEntry]:
    for split in manifest.splits.values():
        yield from split.shards


def _entries(manifest: Manifest) -> Iterator[ShardEntry | SourceEntry | FileEntry | ListEntry]:
    yield from manifest.checksummed
    yield from manifest.checksum_lists
    yield from manifest.chunk_lists
    yield from manifest.files.values()


def _value_bytes(shard: ShardEntry) -> int:
    return sum(where.bytes for where in shard.datasets.values())


Tasks = list[tuple[int, "Future[list[int]]"]]  # bytes, and the numbers of damaged blocks among them


def _submit(pool: ThreadPoolExecutor, folder: Path, entry: ShardEntry) -> tuple[ShardFile | str, Tasks]:
    """Submit the comparison of a shard's blocks; if it cannot be opened, return the message instead of the file."""
    try:
        file = ShardFile(folder / entry.file, entry, folder=folder, verify=True, io="read")
    except ShardsError as error:  # it or its list of checksums is missing, or of another size
        return error.on_command_line, []
    return file, _tasks(pool, file)


def _submit_source(
    pool: ThreadPoolExecutor, folder: Path, path: str, entry: SourceEntry
) -> tuple[ShardFile | str, Tasks]:
    """Submit the comparison of an external file's blocks, as `_submit` does."""
    try:
        file = open_source(path, entry, folder=folder, verify=True, io="read")
    except ShardsError as error:
        return error.on_command_line, []
    return file, _tasks(pool, file)


def _tasks(pool: ThreadPoolExecutor, file: ShardFile) -> Tasks:
    size = file.entry.bytes
    step = max(1, _TASK_BYTES // file.entry.block_bytes) * file.entry.block_bytes
    ranges = [(start, min(start + step, size)) for start in range(0, size, step)]
    return [(stop - start, pool.submit(file.damaged_blocks, start, stop)) for start, stop in ranges]


def _collect(
    file: ShardFile | str, tasks: Tasks, entry: ShardEntry | SourceEntry, faults: list[str], advance: Advance
) -> bool:
    """Wait for the comparison of a file, append its faults, and return whether there are any."""
    if isinstance(entry.checksums, ListEntry):
        advance(entry.checksums.bytes)
    if isinstance(file, str):
        faults.append(file)
        advance(entry.bytes)
        return True
    before = len(faults)
    for size, task in tasks:
        try:
            task.result()
        except ShardsError as error:  # it cannot be read, was truncated since it was opened, or its list is damaged
            if error.on_command_line not in faults[before:]:
                faults.append(error.on_command_line)
        advance(size)
    faults += [f"{text}; restore the file from a copy or rebuild the shards" for text in file.unreported_damage()]
    return len(faults) > before


def _content_faults(
    folder: Path, entry: ShardEntry, manifest: Manifest, counts: npt.NDArray[np.int64], advance: Advance
) -> Iterator[str]:
    """Compare what HDF5 and this package read from a shard, and check all values; add its classes to `counts`."""
    left = _value_bytes(entry)
    try:
        sources = {
            path: open_source(path, source, folder=folder, verify=False) for path, source in manifest.sources.items()
        }
        shard = Shard(folder, entry, manifest.num_features, verify=False, io="read", sources=sources)
        plain = shard.file
        load_plugins()
        with open_shard_file(plain.path) as file:
            own = {name: where for name, where in entry.datasets.items() if where.source is None}
            found = {name: shard_dataset(file, name, where) for name, where in own.items()}
            _check_names(file, set(own))
            for name, dataset in found.items():
                _check_place(dataset, _placed(own[name], shard.places.of(name)), name, plain.path)
            for name, where in entry.datasets.items():
                for values in _compared(found.get(name), name, where, shard):
                    _check_values(values, name, manifest, plain.path)
                    if name == layout.Y:
                        counts += np.bincount(values, minlength=len(counts))
                    size = len(values) * (where.bytes // where.shape[0])
                    left -= size
                    advance(size)
            if layout.INDICES in found:
                _check_pointers(found[layout.INDPTR][...], found[layout.INDICES], plain.path)
    except ShardsError as error:
        yield error.on_command_line
    advance(left)


def _check_names(file: Any, names: set[str]) -> None:
    """Check that a file has no objects other than its arrays."""
    extra = set(file.keys()) - {name.split("/")[0] for name in names}
    if layout.INDPTR in names:
        extra |= {f"{layout.X}/{name}" for name in file[layout.X]} - names
    if extra:
        raise CorruptShardError(
            f"shard '{file.filename}' holds {sorted(extra)}, which do not belong in a shard; rebuild the shards"
        )


def _placed(where: DatasetEntry, chunks: Chunks | None) -> DatasetEntry:
    """Return where an array is, with the places of its chunks as HDF5 is asked for them."""
    if chunks is None:
        return where
    return replace(where, chunks=replace(chunks, offsets=tuple(chunks.offsets), sizes=tuple(chunks.sizes)))


def _check_place(dataset: Any, expected: DatasetEntry, name: str, path: Path) -> None:
    found = locate(dataset)
    if found != expected:
        raise CorruptShardError(
            f"'{name}' in '{path}' is {found.dtype} {found.shape} at byte {found.offset:,} according to HDF5, but "
            f"{expected.dtype} {expected.shape} at byte {expected.offset:,} in the manifest; rebuild the shards"
        )


def _compared(dataset: Any, name: str, where: DatasetEntry, shard: Shard) -> Iterator[npt.NDArray[Any]]:
    """Yield the values of an array in parts, as readers get them, after comparing them with those of HDF5.

    Values in external files, where `dataset` is None, are not compared.
    """
    stride = where.bytes // where.shape[0] if where.shape[0] else 1
    step = max(1, _COMPARED_BYTES // stride)
    for start in range(0, where.shape[0], step):
        stop = min(start + step, where.shape[0])
        ours = shard.arrays[name].read(start, stop)
        if dataset is not None and dataset[start:stop].tobytes() != ours.tobytes():
            raise CorruptShardError(
                f"'{name}' in '{shard.path}': HDF5 reads other values in rows [{start:,}, {stop:,}) than are at the "
                "offset in the manifest; rebuild the shards"
            )
        yield ours


def _check_values(values: npt.NDArray[Any], name: str, manifest: Manifest, path: Path) -> None:
    """Check that values are in their range."""
    limits = {
        layout.Y: len(manifest.class_names),
        layout.X: manifest.vocabulary_size,
        layout.INDICES: manifest.num_features,
        layout.DOCUMENT: layout.MAX_BYTES,
    }
    if name == layout.X and manifest.kind == "dense":
        return
    if name in limits and (int(values.max()) >= limits[name] or int(values.min()) < 0):
        raise CorruptShardError(
            f"'{name}' in '{path}' holds values from {int(values.min()):,} to {int(values.max()):,}; they must be at "
            f"least 0 and below {limits[name]:,}; rebuild the shards"
        )


def _check_pointers(indptr: npt.NDArray[Any], indices: Any, path: Path) -> None:
    """Check that row pointers start at 0, never decrease and end with the entries, and columns ascend within a row."""
    if indptr[0] != 0 or indptr[-1] != len(indices) or (np.diff(indptr) < 0).any():
        raise CorruptShardError(
            f"the row pointers of '{path}' are invalid: they go from {int(indptr[0]):,} to {int(indptr[-1]):,} for "
            f"{len(indices):,} entries, and must never decrease; rebuild the shards"
        )
    borders = np.zeros(len(indices) + 1, np.bool_)
    borders[indptr] = True
    step = _COMPARED_BYTES // 4
    for start in range(0, len(indices) - 1, step):
        stop = min(start + step + 1, len(indices))
        columns = indices[start:stop]
        falls = np.flatnonzero((columns[1:] <= columns[:-1]) & ~borders[start + 1 : stop])
        if len(falls):
            row = int(np.searchsorted(indptr, start + int(falls[0]), side="right")) - 1
            raise CorruptShardError(f"the columns of row {row:,} of '{path}' do not ascend; rebuild the shards")


def _count_faults(folder: Path, split: SplitEntry, counts: npt.NDArray[np.int64]) -> Iterator[str]:
    if tuple(counts.tolist()) != split.class_counts:
        wrong = int(np.flatnonzero(counts != np.array(split.class_counts))[0])
        yield (
            f"'{folder / layout.MANIFEST}' says {split.class_counts[wrong]:,} examples of class {wrong}, the shards "
            f"have {int(counts[wrong]):,}; rebuild the shards"
        )


def _list_faults(folder: Path, shard: ShardEntry, manifest: Manifest, advance: Advance) -> Iterator[str]:
    """Check the list of the chunks of a shard, if it has one."""
    if shard.chunk_list is None:
        return
    sizes: dict[str | None, int] = {path: source.bytes for path, source in manifest.sources.items()}
    try:
        read_chunks(folder, shard, {None: shard.bytes, **sizes})
    except ShardsError as error:
        yield error.on_command_line
    advance(shard.chunk_list.bytes)


def _file_faults(path: Path, entry: FileEntry, advance: Advance) -> Iterator[str]:
    state, size = running_checksum(), 0
    try:
        with open(path, "rb") as file:
            while piece := file.read(_PIECE_BYTES):
                state.update(piece)
                size += len(piece)
                advance(len(piece))
    except OSError as error:
        yield f"'{path}' cannot be read ({error.strerror}), but is in the manifest; restore it or rebuild the shards"
        return
    if (size, state.hexdigest()) != (entry.bytes, entry.checksum):
        yield (
            f"'{path}' is damaged: the manifest says {entry.bytes:,} bytes with the checksum {entry.checksum}, the "
            f"file has {size:,} with {state.hexdigest()}; restore it from a copy or rebuild the shards"
        )
