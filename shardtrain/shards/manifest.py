"""Read and write the manifest of a folder of shards.

It is sealed with a checksum of its own. What is read has passed `manifest_checks`, so that nobody else looks again. The
whole file is parsed by every process, so what grows with the data is in lists if there is much of it (`lists`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from shardtrain.errors import ManifestError, ShardsNotFoundError, command_line
from shardtrain.runtime.atomic import commit_bytes, json_bytes
from shardtrain.runtime.checksums import checksum
from shardtrain.runtime.schema import (
    Choice,
    Fields,
    Integer,
    Items,
    Keyed,
    Text,
    canonical_checksum,
    parse_json,
    read_if_sound,
)
from shardtrain.runtime.storage import nearest_folder
from shardtrain.shards.layout import (
    FILTERS,
    FORMAT,
    KINDS,
    MANIFEST,
    REQUIREMENTS,
    SHARDS,
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
)
from shardtrain.shards.manifest_checks import check_manifest
from shardtrain.version import __version__

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
_UNKNOWN_KEY = re.compile(r"unexpected keyword argument ('.*')")  # as Python reports it for a dataclass
_PLACES = ("offsets", "sizes", "masks")  # keys of chunks that a shard with a list of chunks does not have
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
    without_shards = {split: replace(entry, shards=()) for split, entry in manifest.splits.items()}
    body = {"format": FORMAT, "format_version": manifest.version, **asdict(replace(manifest, splits=without_shards))}
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
    build = f"; build shards with `{command_line('build', 'CORPUS', '--out', folder)}`"
    return f"'{folder}' does not exist{nearest_folder(folder, MANIFEST) or build}"


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
    """Convert a shard's entry to JSON values; optional keys that are None are omitted.

    The numbers of chunks are not copied, as `asdict` would do one by one.
    """
    listed = shard.chunk_list is not None
    record = {**vars(shard), "datasets": {name: _dataset_record(it, listed) for name, it in shard.datasets.items()}}
    for key in ("checksums", "chunk_list"):
        if isinstance(record[key], ListEntry):
            record[key] = asdict(record[key])
    if not listed:
        del record["chunk_list"]
    return record


def _dataset_record(dataset: DatasetEntry, listed: bool) -> dict[str, Any]:
    optional = ("chunks", "source", "converted")
    record = {key: value for key, value in vars(dataset).items() if value is not None or key not in optional}
    if dataset.chunks is not None:
        without = _PLACES if listed else ()
        record["chunks"] = {key: value for key, value in vars(dataset.chunks).items() if key not in without}
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
