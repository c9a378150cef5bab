"""Read, check and write the manifest of a folder of shards.

Readers trust its numbers, so everything that could make them read outside a file, or return rows that do not exist, is
refused here: numbers out of range, arrays outside their files or overlapping, file names outside the folder. The checks
run once, when a manifest is read, and open no other file.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from shardtrain.errors import ManifestError, ShardsNotFoundError, command_line
from shardtrain.runtime.atomic import commit_bytes, json_bytes
from shardtrain.runtime.checksums import checksum
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
    canonical_checksum,
    optional,
    parse_json,
    read_if_sound,
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
    FORMAT,
    INDICES,
    INDPTR,
    KINDS,
    MANIFEST,
    MAX_BYTES,
    MAX_CLASSES,
    MAX_FEATURES,
    MAX_LIST_BYTES,
    MAX_VOCABULARY,
    PLACE_BYTES,
    REQUIREMENTS,
    SHARDS,
    SPLITS,
    VECTORIZER,
    VERSION,
    Chunks,
    DatasetEntry,
    FileEntry,
    ListEntry,
    Manifest,
    ShardEntry,
    SourceEntry,
    SplitEntry,
    X,
    Y,
    num_chunks,
)
from shardtrain.version import __version__

MAX_CHUNK_BYTES = (1 << 32) - 1  # HDF5's own limit
_CHUNKS = Fields(
    {
        "shape": Items(Integer(1)),
        "filters": Items(Choice(FILTERS)),
        "offsets": Items(Integer()),
        "sizes": Items(Integer(1)),
        "masks": Items(Integer()),
    },
    {"start": Integer()},
)
_DATASET = Fields(
    {"dtype": Text(), "shape": Items(Integer(), 1, 2), "offset": Integer(), "bytes": Integer()},
    {"chunks": _CHUNKS, "source": Text(), "converted": Text()},
)
SHARD = Fields(
    {
        "file": Text(),
        "rows": Integer(1),
        "bytes": Integer(1),
        "datasets": Keyed(_DATASET),
        "block_bytes": Integer(1),
        "checksums": Text("([0-9a-f]{16})+", "checksums of 16 hex digits"),
    }
)
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
_UNKNOWN_KEY = re.compile(r"unexpected keyword argument ('.*')")  # as Python reports it for a dataclass
_PLACES = ("offsets", "sizes", "masks")  # keys of chunks that a shard with a list of chunks does not have
_EXTERNAL_ARRAYS = {X, DATA, INDICES}  # arrays that may be in external files
_READS = f"this shardtrain ({__version__}) reads"
_NEWER = (
    "install the version that wrote it, with `pip install --upgrade shardtrain`, or rebuild the shards with this one"
)


def fingerprint_of(splits: Mapping[str, SplitEntry], sources: Mapping[str, SourceEntry]) -> str:
    """Compute the fingerprint of shards, a checksum of all their checksums; a list's own stands for the list."""
    parts = [shard.checksums for split in splits.values() for shard in split.shards]
    parts += [source.checksums for source in sources.values()]
    return checksum("".join(part if isinstance(part, str) else part.checksum for part in parts).encode())


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Commit the manifest, which makes the folder complete."""
    body = {"format": FORMAT, "format_version": manifest.version, **asdict(manifest)}
    if manifest.version == 1:
        del body["sources"]
    if manifest.requires:
        body["requires"] = list(manifest.requires)
    for split, entry in manifest.splits.items():
        body["splits"][split]["shards"] = [shard_record(shard) for shard in entry.shards]
    body["checksum"] = canonical_checksum(body)
    commit_bytes(folder / MANIFEST, json_bytes(body, indent=1))


def vectorizer_folder(folder: Path) -> Path:
    """Return the folder of the fitted vectorizer of shards, or of a run.

    Raises:
        ManifestError: the manifest of the shards is damaged.
    """
    found = read_manifest(folder).vectorizer_folder if (folder / MANIFEST).is_file() else VECTORIZER
    return folder / found


def _missing_manifest(folder: Path) -> str:
    """Describe what was found instead of shards, and the next step."""
    if is_run(folder):
        inside = folder / SHARDS
        known = f"its shards are '{inside}', and " if (inside / MANIFEST).is_file() else ""
        return f"'{folder}' is the folder of a run, not of shards; {known}`{command_line('report', folder)}` shows it"
    if folder.is_dir():
        state = f"has no {MANIFEST}: it holds no shards, or their build did not finish"
        build = command_line("build", "CORPUS", "--out", "DIR")
        return f"'{folder}' {state}; `{build}` builds shards, and resumes an interrupted build"
    if folder.exists():
        build = command_line("build", folder, "--out", "DIR")
        return f"'{folder}' is not a folder of shards; to build shards of a corpus use `{build}`"
    return f"'{folder}' does not exist; build shards with `{command_line('build', 'CORPUS', '--out', folder)}`"


def is_run(folder: Path) -> bool:
    """Return whether the folder is one that `fit` made, which is easily given in place of its shards."""
    return (
        read_if_sound(folder / "config.json", Fields({"format": Choice(("shardtrain-run",))}, others=True)) is not None
    )


def read_manifest(folder: Path) -> Manifest:
    """Read and check the manifest of `folder`.

    Raises:
        ShardsNotFoundError: the folder or its manifest does not exist.
        ManifestError: the manifest is damaged, invalid, or of an unsupported version.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise ShardsNotFoundError(_missing_manifest(folder))
    try:
        body = parse_json(path.read_bytes())
    except OSError as error:
        raise ManifestError(f"'{path}' cannot be read: {error.strerror}; check the disk and the permissions") from error
    except ValueError as error:  # also bytes that are not UTF-8, and numbers with too many digits
        raise ManifestError(f"'{path}' is not valid JSON ({error}); rebuild the shards") from error
    if not isinstance(body, dict) or body.get("format") != FORMAT:
        raise ManifestError(f"'{path}' is not a shardtrain manifest")
    version = body.get("format_version")
    if type(version) is not int or version not in KINDS:
        raise ManifestError(
            f"'{path}' has format version {version!r:.60}, {_READS} versions 1 to {VERSION}; "
            + (_NEWER if type(version) is int and version > VERSION else "restore it from a copy or rebuild the shards")
        )
    if body.pop("checksum", None) != canonical_checksum(body):
        raise ManifestError(f"'{path}' was changed or damaged: its checksum differs; restore it or rebuild the shards")
    if unmet := _unmet_requirements(body, version):
        raise ManifestError(
            f"'{path}' requires {', '.join(unmet)} of its readers, {_READS} {', '.join(REQUIREMENTS)} of format "
            f"version {version}; {_NEWER}"
        )
    try:
        manifest = _parse(body, version)
        check_manifest(manifest, version)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        reason = f"the key {error} is missing" if isinstance(error, KeyError) else str(error)
        if unknown := _UNKNOWN_KEY.search(reason):
            reason = f"the key {unknown[1]} is unknown"
        raise ManifestError(f"'{path}' is not a valid manifest: {reason}; rebuild the shards") from error
    return manifest


def _unmet_requirements(body: dict[str, Any], version: int) -> list[str]:
    """Return what a manifest of version 3 requires and this package does not know, for a message."""
    required = body.get("requires") if version >= 3 else None
    found = required if isinstance(required, list) else []
    return [f"{name!r:.60}" for name in found if isinstance(name, str) and name not in REQUIREMENTS]


def shard_record(shard: ShardEntry) -> dict[str, Any]:
    """Convert a shard's entry to JSON values; optional keys that are None are omitted."""
    record = asdict(shard)
    for dataset in record["datasets"].values():
        for key in ("chunks", "source", "converted"):
            if dataset[key] is None:
                del dataset[key]
        if shard.chunk_list is not None and "chunks" in dataset:
            for key in _PLACES:
                del dataset["chunks"][key]
    if shard.chunk_list is None:
        del record["chunk_list"]
    return record


def parse_shard(entry: dict[str, Any]) -> ShardEntry:
    """Parse a shard's entry from JSON values; a wrong key or type raises KeyError, TypeError or AttributeError."""
    listed = "chunk_list" in entry
    fields = {
        **entry,
        "datasets": {name: _parse_dataset(value, listed=listed) for name, value in entry["datasets"].items()},
        "checksums": _parse_checksums(entry["checksums"]),
    }
    if listed:
        fields["chunk_list"] = ListEntry(**entry["chunk_list"])
    return ShardEntry(**fields)


def _parse_checksums(value: Any) -> Any:
    return ListEntry(**value) if isinstance(value, dict) else value


def _parse_dataset(value: dict[str, Any], *, listed: bool) -> DatasetEntry:
    fields = {**value, "shape": _items(value["shape"])}
    if fields.get("chunks") is not None:
        given = value["chunks"]
        if listed and not set(_PLACES).isdisjoint(given):
            raise TypeError(f"chunks have {sorted(given)!r:.100}, and a list of chunks as well")
        lists = ("shape", "filters", *(() if listed else _PLACES))
        fields["chunks"] = Chunks(**{**given, **{key: _items(given[key]) for key in lists}})
    if any(value[key] is None for key in ("chunks", "source", "converted") if key in value):
        raise TypeError("a value is null")
    return DatasetEntry(**fields)


def _parse(body: dict[str, Any], version: int) -> Manifest:
    def split(entry: dict[str, Any]) -> SplitEntry:
        shards = tuple(parse_shard(value) for value in _items(entry["shards"]))
        return SplitEntry(**{**entry, "class_counts": _items(entry["class_counts"]), "shards": shards})

    fields = {key: value for key, value in body.items() if key not in ("format", "format_version")}
    if ("sources" in fields) != (version > 1):
        raise ValueError(f"version {version} {'has no' if version == 1 else 'needs the'} key 'sources'")
    if ("requires" in fields) != (version > 2):
        raise ValueError(f"version {version} {'has no' if version <= 2 else 'needs the'} key 'requires'")
    required = _items(fields.pop("requires", []))
    sources = {
        path: SourceEntry(**{**value, "checksums": _parse_checksums(value["checksums"])})
        for path, value in fields.get("sources", {}).items()
    }
    manifest = Manifest(
        **{
            **fields,
            "sources": sources,
            "class_names": _items(body["class_names"]),
            "build": body["build"],
            "splits": {name: split(value) for name, value in body["splits"].items()},
            "files": {name: FileEntry(**value) for name, value in body["files"].items()},
        }
    )
    if required != manifest.requires:
        raise ValueError(f"it requires {list(required)!r:.100}, its content {list(manifest.requires)}")
    return manifest


def _items(value: Any) -> tuple[Any, ...]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.60} is not a list")
    return tuple(value)


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


def files_in(manifest: Manifest) -> list[str]:
    """List the files that a manifest names, relative to its folder: the vectorizer's, shards and lists."""
    shards = [shard.file for split in manifest.splits.values() for shard in split.shards]
    return [*manifest.files, *shards, *(each.file for each in (*manifest.checksum_lists, *manifest.chunk_lists))]


def below(manifest: Manifest, folder: str) -> Manifest:
    """Return the manifest with all its files below a folder, whose path ends with a slash."""

    def moved(entry: ListEntry | str | None) -> Any:
        return replace(entry, file=folder + entry.file) if isinstance(entry, ListEntry) else entry

    def moved_shard(shard: ShardEntry) -> ShardEntry:
        lists = {"checksums": moved(shard.checksums), "chunk_list": moved(shard.chunk_list)}
        return replace(shard, file=folder + shard.file, **lists)

    return replace(
        manifest,
        splits={
            name: replace(split, shards=tuple(map(moved_shard, split.shards)))
            for name, split in manifest.splits.items()
        },
        sources={path: replace(each, checksums=moved(each.checksums)) for path, each in manifest.sources.items()},
        files={folder + name: entry for name, entry in manifest.files.items()},
    )


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
