"""Open a folder of shards.

The layout comes from the manifest, which was checked when it was read; libhdf5 is not used. Each checksum block is
verified at its first access in a process, so damage is reported before its bytes are used. Shards are write-once: a
file that was truncated, rewritten or replaced is refused.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import TracebackType

from shardtrain.arrays.buffers import BufferPool
from shardtrain.errors import ShardsError, UsageError
from shardtrain.loader.info import DatasetInfo
from shardtrain.loader.options import LoaderOptions
from shardtrain.loader.split import Split
from shardtrain.options import with_options
from shardtrain.runtime.machine import memory_bytes
from shardtrain.runtime.notebook import listed, table
from shardtrain.runtime.quantities import size
from shardtrain.runtime.system import allow_open_files
from shardtrain.shards import layout
from shardtrain.shards.files import open_source
from shardtrain.shards.layout import Manifest, SplitEntry
from shardtrain.shards.manifest import read_manifest
from shardtrain.shards.shard import Shard

_MAX_BUFFERS = 256  # four arrays per block of a few windows
_OTHER_FILES = 192  # that a process may have open beside shards; each of those takes two descriptors


def _external_files(entry: SplitEntry) -> set[str]:
    """Return the files outside the folder that hold arrays of a split."""
    return {where.source for shard in entry.shards for where in shard.datasets.values() if where.source}


def _is_larger_than_memory(entry: SplitEntry, manifest: Manifest) -> bool:
    size = sum(shard.bytes for shard in entry.shards)
    return size + sum(manifest.sources[path].bytes for path in _external_files(entry)) > memory_bytes() // 2


def _io_mode(options: LoaderOptions, larger_than_memory: bool) -> str:
    """Choose "read" over "map" for large data, whose mapped pages may be evicted before their window is gathered."""
    return "read" if options.io == "auto" and larger_than_memory else options.io


class Shards:
    """An open folder of shards; `train`, `validation` and `test` are its splits."""

    def __init__(self, path: Path, manifest: Manifest, options: LoaderOptions) -> None:
        self.path = path
        self.manifest = manifest
        blocks, batches = BufferPool(_MAX_BUFFERS), BufferPool()
        large = {name for name, entry in manifest.splits.items() if _is_larger_than_memory(entry, manifest)}
        direct_io_paths = {path for name in large for path in _external_files(manifest.splits[name])}
        files = sum(len(entry.shards) for entry in manifest.splits.values()) + len(manifest.sources)
        allow_open_files(2 * files + _OTHER_FILES)
        sources = {
            name: open_source(
                name,
                entry,
                folder=path,
                verify=options.verify,
                io=_io_mode(options, name in direct_io_paths),
                direct_io=name in direct_io_paths,
                buffers=blocks,
            )
            for name, entry in manifest.sources.items()
        }
        self.splits = {
            name: Split(
                name,
                entry,
                manifest,
                [
                    Shard(
                        path,
                        shard,
                        manifest.num_features,
                        verify=options.verify,
                        io=_io_mode(options, name in large),
                        direct_io=name in large,
                        buffers=blocks,
                        sources=sources,
                    )
                    for shard in entry.shards
                ],
                options=options,
                larger_than_memory=name in large,
                block_buffers=blocks,
                batch_buffers=batches,
            )
            for name, entry in manifest.splits.items()
        }
        self.vectorizer_path = path / manifest.vectorizer_folder

    @property
    def train(self) -> Split:
        """The training split."""
        return self.splits["train"]

    @property
    def validation(self) -> Split:
        """The validation split.

        Raises:
            ShardsError: the shards were built without one.
        """
        return self.split("validation")

    @property
    def test(self) -> Split:
        """The test split, on which no model is chosen.

        Raises:
            ShardsError: the shards were built without one.
        """
        return self.split("test")

    def split(self, name: str) -> Split:
        """Return the split "train", "validation" or "test".

        Raises:
            ShardsError: the shards were built without it.
            UsageError: there is no split of that name.
        """
        if name not in layout.SPLITS:
            raise UsageError(f"there is no split {name!r}; choose one of {', '.join(layout.SPLITS)}")
        if name not in self.splits:
            how = {
                "train": "them again",
                "validation": "with --validation FILE or --validation-fraction F",
                "test": "from a folder with test.csv, or with --test FILE",
            }
            raise ShardsError(f"'{self.path}' has no {name} split; build {how[name]}")
        return self.splits[name]

    @property
    def description(self) -> DatasetInfo:
        """Description of these shards for a model."""
        manifest = self.manifest
        validation = manifest.splits.get("validation")
        return DatasetInfo(
            kind=manifest.kind,
            num_features=manifest.num_features,
            vocabulary_size=manifest.vocabulary_size,
            class_names=manifest.class_names,
            num_train=manifest.splits["train"].examples,
            num_validation=validation.examples if validation else 0,
            vectorizer=str(manifest.vectorizer.get("fingerprint", "")),
            fingerprint=manifest.fingerprint,
        )

    def __repr__(self) -> str:
        """Describe the shards in one line, for consoles and logs."""
        manifest = self.manifest
        rows = " and ".join(f"{split.examples:,} {name}" for name, split in manifest.splits.items())
        features = f"{manifest.num_features:,} {manifest.kind} features"
        return f"<Shards '{self.path}': {rows} examples of {len(manifest.class_names):,} classes, {features}>"

    def _repr_html_(self) -> str:
        """Render a summary for notebooks."""
        manifest = self.manifest
        num_bytes = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
        return table(
            f"Shards {self.path}",
            {
                "features": f"{manifest.num_features:,} {manifest.kind}",
                "classes": listed(manifest.class_names),
                **{f"{name} examples": f"{split.examples:,}" for name, split in manifest.splits.items()},
                "size": size(num_bytes),
                "fingerprint": manifest.fingerprint,
            },
        )

    def close(self) -> None:
        """Drop the mappings; views that are still in use stay valid."""
        self.splits = {}

    def __enter__(self) -> Shards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


@with_options(LoaderOptions)
def open_shards(path: Path | str, options: LoaderOptions) -> Shards:
    """Open the folder of shards `path`; the keywords are those of `LoaderOptions`.

    Raises:
        ShardsNotFoundError: the folder, its manifest or a shard does not exist.
        ManifestError: the manifest is damaged.
        CorruptShardError: a file does not have the size that the manifest records.
        UsageError: `io` or `on_corrupt` has an unsupported value.
    """
    folder = Path(path)
    return Shards(folder, read_manifest(folder), options)


def open_split(folder: Path, manifest: Manifest, name: str, options: LoaderOptions) -> Split:
    """Open the files of one split anew, by a manifest that was read before; for another process than the first.

    Locks, threads, buffers and mappings of a process are not used in its children; the files and their checksums are.

    Raises:
        ShardsNotFoundError: a shard does not exist any more.
        CorruptShardError: a file does not have the size that the manifest records.
    """
    split = manifest.splits[name]
    used = {path: manifest.sources[path] for path in _external_files(split)}
    return Shards(folder, replace(manifest, splits={name: split}, sources=used), options).splits[name]
