"""Check that what a manifest says can be true, before anything else relies on it.

Readers trust its numbers, so everything that could make them read outside a file, or return rows that do not exist, is
refused here: numbers out of range, arrays outside their files or overlapping, file names outside the folder. The checks
run once, when a manifest is read, and open no other file; what is in lists is checked when they are read (`lists`).
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from shardtrain.runtime.schema import (
    ANYTHING,
    Choice,
    Either,
    Fields,
    Integer,
    Items,
    Keyed,
    Mismatch,
    Number,
    Row,
    Text,
    optional,
)
from shardtrain.shards.layout import (
    ALIGNMENT,
    CHECKSUM_BYTES,
    DATA,
    DATASETS,
    DOCUMENT,
    DTYPES,
    FEATURE_DTYPES,
    FILTERS,
    INDICES,
    INDPTR,
    KINDS,
    MAX_BYTES,
    MAX_CLASSES,
    MAX_FEATURES,
    MAX_LIST_BYTES,
    MAX_VOCABULARY,
    PLACE_BYTES,
    SPLITS,
    Chunks,
    DatasetEntry,
    ListEntry,
    Manifest,
    ShardEntry,
    SourceEntry,
    SplitEntry,
    X,
    Y,
    files_in,
    num_chunks,
)

MAX_CHUNK_BYTES = (1 << 32) - 1  # HDF5's own limit
_SOURCE = Keyed(ANYTHING)  # see `corpus.reading`
_PART = Fields(
    optional={
        **{name: optional(_SOURCE) for name in ("train", "test")},
        "validation": Either((_SOURCE, Items(Text()), Choice((None,)))),  # the names of tables
        **{name: Integer() for name in ("documents", "corpus_bytes", "rejected_rows", "replaced_bytes")},
        "rejected": Items(Fields({"path": Text(), "line": Integer(), "reason": Text()}, {"counted": Text()})),
        "validation_fraction": Number(0, 1),
        "shards": Keyed(Row((Integer(), Integer()))),
        "shardtrain": Text(),
        "vectorizer": Text(),
    },
    others=True,
)
_BUILD = Fields(optional={"labels": Keyed(Integer(0, MAX_CLASSES - 1)), "parts": Items(_PART)}, others=True)
_VECTORIZER = Fields(optional={"kind": Text(), "fingerprint": Text(), "num_words": Integer()}, others=True)
_EXTERNAL_ARRAYS = {X, DATA, INDICES}  # arrays that may be in external files


def check_manifest(manifest: Manifest, version: int) -> None:
    """Raise ValueError for a manifest with inconsistent values, or files outside its folder.

    External files are allowed only in `sources`, with absolute paths.
    """
    if manifest.kind not in KINDS[version]:
        raise ValueError(f"kind is {manifest.kind!r}")
    if "train" not in manifest.splits or not set(manifest.splits) <= set(SPLITS if version > 2 else SPLITS[:2]):
        raise ValueError(f"splits are {sorted(manifest.splits)}")
    for name, value, schema in (("vectorizer", manifest.vectorizer, _VECTORIZER), ("build", manifest.build, _BUILD)):
        if (mismatch := schema.mismatch(value)) is not None:
            raise mismatch.within(name)
    for label, code in manifest.build.get("labels", {}).items():
        if code >= len(manifest.class_names):
            expected = f"an integer below the number of classes, {len(manifest.class_names):,}"
            raise Mismatch(str(code), expected, ("build", "labels", label))
    _check_number(manifest.num_features, "num_features", 1, MAX_FEATURES)
    _check_number(manifest.vocabulary_size, "vocabulary_size", 1, MAX_VOCABULARY)
    if manifest.kind != "sequence" and manifest.vocabulary_size != manifest.num_features:
        raise ValueError(f"vocabulary_size is {manifest.vocabulary_size} for {manifest.num_features} features")
    if type(manifest.seed) is not int:
        raise ValueError(f"seed is {manifest.seed!r:.60}")
    _check_number(len(manifest.class_names), "the number of classes", 1, MAX_CLASSES)
    if not all(isinstance(text, str) for text in (manifest.fingerprint, *manifest.class_names)):
        raise ValueError("the fingerprint or a class name is not a string")
    for name, file in manifest.files.items():
        _check_inside(name)
        _check_number(file.bytes, f"bytes of '{name}'")
        _check_checksums(file.checksum, 1, f"'{name}'")
    for path, source in manifest.sources.items():
        _check_source(path, source)
    for name, split in manifest.splits.items():
        _check_split(name, split, manifest)
    if manifest.version > version:
        raise ValueError(f"it has arrays in chunks, which version {version} does not support")
    _check_distinct(files_in(manifest))


def _check_source(path: str, source: SourceEntry) -> None:
    if not PurePosixPath(path).is_absolute() or ".." in PurePosixPath(path).parts or "\0" in path:
        raise ValueError(f"the source {path!r:.200} is not an absolute path")
    path.encode()
    for value, name in ((source.bytes, "bytes"), (source.block_bytes, "block_bytes")):
        _check_number(value, f"{name} of '{path}'", 1)
    _check_number(source.inode, f"the inode of '{path}'", most=(1 << 64) - 1)
    _check_number(source.mtime_ns, f"the time of '{path}'", least=-MAX_BYTES)
    _check_block_checksums(source.checksums, source.blocks, f"'{path}'")


def _check_split(name: str, split: SplitEntry, manifest: Manifest) -> None:
    for shard in split.shards:
        check_shard(shard, manifest.kind, manifest.num_features, manifest.sources)
    for count in split.class_counts:
        _check_number(count, f"a class count of {name}")
    nonzeros = sum(shard.datasets[DATA].shape[0] for shard in split.shards) if manifest.kind == "ngram" else 0
    _check_number(split.examples, f"examples of {name}", 1)
    _check_equal(split.examples, sum(shard.rows for shard in split.shards), f"{name}: examples against rows of shards")
    _check_equal(split.examples, sum(split.class_counts), f"{name}: examples against those of all classes")
    _check_equal(len(split.class_counts), len(manifest.class_names), f"{name}: class counts against class names")
    _check_equal(split.nonzeros, nonzeros, f"{name}: nonzeros against those of its shards")


def check_shard(shard: ShardEntry, kind: str, num_features: int, sources: Mapping[str, SourceEntry]) -> None:
    """Raise ValueError for the entry of a shard that cannot be true."""
    _check_inside(shard.file)
    if set(shard.datasets) != DATASETS[kind]:
        raise ValueError(f"'{shard.file}' has the arrays {sorted(shard.datasets)}")
    _check_number(shard.rows, f"rows of '{shard.file}'", 1)
    _check_number(shard.bytes, f"bytes of '{shard.file}'", 1)
    _check_number(shard.block_bytes, f"block_bytes of '{shard.file}'", 1)
    _check_block_checksums(shard.checksums, shard.blocks, f"'{shard.file}'")
    nonzeros = shard.datasets[DATA].shape[:1] if kind == "ngram" else ()
    shapes = {
        DATA: nonzeros,
        INDICES: nonzeros,
        INDPTR: (shard.rows + 1,),
        X: (shard.rows, num_features),
        Y: (shard.rows,),
        DOCUMENT: (shard.rows,),
    }
    for name, entry in shard.datasets.items():
        where = f"'{name}' in '{shard.file}'"
        dtypes = FEATURE_DTYPES.get(kind, DTYPES[name]) if name == X else DTYPES[name]
        if entry.source is not None:
            integers = name == INDICES or kind == "sequence"
            allowed = name in _EXTERNAL_ARRAYS and _is_external_dtype(entry.dtype, integers=integers)
            if entry.source not in sources or not allowed:
                raise ValueError(f"{where} of type {entry.dtype!r:.20} cannot be in {entry.source!r:.200}")
        elif entry.converted is not None:
            raise ValueError(f"{where} is converted, but not in an external file")
        _check_dataset(entry, where, dtypes, shapes[name], listed=shard.chunk_list is not None)
    if shard.chunk_list is not None:
        chunks = sum(num_chunks(entry) for entry in shard.datasets.values() if entry.chunks)
        _check_list(shard.chunk_list, PLACE_BYTES, chunks, f"per chunk of '{shard.file}'")
    sizes: dict[str | None, int] = {None: shard.bytes, **{path: source.bytes for path, source in sources.items()}}
    for place in {entry.source for entry in shard.datasets.values()}:
        _check_places({n: e for n, e in shard.datasets.items() if e.source == place}, sizes[place], shard.file)


def _is_external_dtype(dtype: str, *, integers: bool) -> bool:
    """Return whether arrays in external files may have this type: plain numbers, or only integers."""
    pattern = "[<>|][iu][1248]" if integers else "[<>|][iuf][1248]"
    return isinstance(dtype, str) and re.fullmatch(pattern, dtype) is not None


def _check_places(datasets: Mapping[str, DatasetEntry], size: int, file: str) -> None:
    """Check that all pieces of the arrays in one file are within the file and do not overlap."""
    pieces = [
        piece
        for name, entry in datasets.items()
        for piece in (
            zip(entry.chunks.offsets, entry.chunks.sizes, [name] * len(entry.chunks.sizes), strict=True)
            if entry.chunks
            else [(entry.offset, entry.bytes, name)]
        )
    ]
    end = 0
    for offset, length, name in sorted(pieces):
        if length and (offset < end or offset + length > size):
            raise ValueError(f"'{name}' in '{file}' is outside the file or overlaps another array")
        end = max(end, offset + length)


def _check_dataset(entry: DatasetEntry, where: str, dtypes: set[str], shape: tuple[int, ...], *, listed: bool) -> None:
    """Check type, shape and offset of one array; an array without values is at offset 0."""
    if (entry.converted or entry.dtype) not in dtypes:
        raise ValueError(f"{where} has type {entry.converted or entry.dtype!r}")
    for size in entry.shape:
        _check_number(size, f"a size of {where}")
    if entry.shape != shape or not shape:
        raise ValueError(f"{where} has shape {entry.shape}, not {shape}")
    _check_number(entry.offset, f"the offset of {where}")
    _check_number(entry.bytes, f"bytes of {where}")
    if math.prod(shape) * np.dtype(entry.dtype).itemsize != entry.bytes:
        raise ValueError(f"{where} has shape {shape} in {entry.bytes} bytes")
    if entry.chunks is not None:
        _check_chunks(entry, entry.chunks, where, listed=listed)
    elif (entry.source is None and entry.offset % ALIGNMENT) or (entry.offset and not entry.bytes):
        raise ValueError(
            f"{where} is at byte {entry.offset}, but the writer aligns arrays to {ALIGNMENT:,} bytes and places empty "
            "ones at 0"
        )


def _check_chunks(entry: DatasetEntry, chunks: Chunks, where: str, *, listed: bool) -> None:
    """Check that there are as many chunks as the shape needs, of possible sizes, with supported filters.

    Those that are `listed` are checked when the list is read.
    """
    if entry.offset or not entry.bytes or len(chunks.shape) != len(entry.shape):
        raise ValueError(f"{where} has chunks, an offset of {entry.offset} and {entry.bytes} bytes")
    for size in chunks.shape:
        _check_number(size, f"a chunk's size of {where}", 1)
    chunk_bytes = math.prod(chunks.shape) * np.dtype(entry.dtype).itemsize
    _check_number(chunk_bytes, f"bytes of a chunk of {where}", 1, MAX_CHUNK_BYTES)
    _check_number(chunks.start, f"start of {where}", 0, chunks.shape[0] - 1)
    if not all(isinstance(name, str) and name in FILTERS for name in chunks.filters):
        raise ValueError(f"{where} has the filters {chunks.filters!r:.100}")
    if listed:
        return
    count = num_chunks(entry)
    _check_equal(len(chunks.offsets), count, f"chunks of {where}")
    _check_equal(len(chunks.sizes), count, f"sizes of chunks of {where}")
    for offset, size in zip(chunks.offsets, chunks.sizes, strict=True):
        _check_number(offset, f"a chunk's offset of {where}")
        _check_number(size, f"a chunk's size of {where}", 1)
        if not chunks.filters and size != chunk_bytes:
            raise ValueError(f"{where} has a chunk of {size} bytes, expected {chunk_bytes}")
    if chunks.masks:
        _check_equal(len(chunks.masks), count, f"masks of chunks of {where}")
    for mask in chunks.masks:
        _check_number(mask, f"a chunk's mask of {where}", 0, (1 << len(chunks.filters)) - 1)


def _check_number(value: Any, what: str, least: int = 0, most: int = MAX_BYTES) -> None:
    if type(value) is not int or not least <= value <= most:  # not isinstance, because bool is an int
        raise ValueError(f"{what} is {value!r:.60}, not an integer from {least} to {most}")


def _check_equal(found: int, expected: int, what: str) -> None:
    if found != expected:
        raise ValueError(f"{what}: {found!r:.60} against {expected}")


def _check_block_checksums(value: Any, count: int, where: str) -> None:
    """Check the checksums of `count` blocks, or what is said about the list that holds them."""
    if isinstance(value, ListEntry):
        _check_list(value, CHECKSUM_BYTES, count, f"per block of {where}")
    else:
        _check_checksums(value, count, where)


def _check_list(entry: ListEntry, each: int, count: int, what: str) -> None:
    """Check what is said about a list of `count` values of `each` bytes."""
    _check_inside(entry.file)
    _check_number(entry.bytes, f"bytes of '{entry.file}'", 1, MAX_LIST_BYTES)
    _check_equal(entry.bytes, each * count, f"bytes of '{entry.file}' against {each} {what}")
    _check_checksums(entry.checksum, 1, f"'{entry.file}'")


def _check_checksums(value: Any, count: int, where: str) -> None:
    if not isinstance(value, str) or len(value) != 16 * count or not re.fullmatch("[0-9a-f]*", value):
        raise ValueError(f"{where} does not have {count} checksums of 16 hex digits")


def _check_inside(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\\" in name or "\0" in name:
        raise ValueError(f"the file name {name!r} reaches outside the folder")
    name.encode()  # raises for half a surrogate pair, which cannot be in a file name


def _check_distinct(names: Iterable[str]) -> None:
    seen: set[PurePosixPath] = set()
    for path in map(PurePosixPath, names):
        if path in seen:
            raise ValueError(f"the file '{path}' is named twice")
        seen.add(path)
