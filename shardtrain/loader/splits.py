"""Opens a folder of shards and numbers the rows of its splits; a run of rows is a view of the mapped file.

Everything about the layout comes from the manifest, whose numbers were checked when it was read; libhdf5 is not used.
Each checksum block is verified when it is first touched in a process, so damage is named before its bytes are used;
after that a read costs nothing but the page fault. Shards are write-once: a file that was cut short, rewritten or
swapped is refused.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.buffers import Buffers
from shardtrain.arrays.csr import Csr, concatenate
from shardtrain.errors import ShardsError, UsageError
from shardtrain.runtime.machine import memory_bytes
from shardtrain.runtime.notebook import listed, table
from shardtrain.runtime.progress import warn
from shardtrain.shards import format as layout
from shardtrain.shards.files import ShardFile
from shardtrain.shards.format import Manifest, SplitEntry
from shardtrain.shards.shard import Features, Labels, Mask, Shard
from shardtrain.shards.stored import open_source

if TYPE_CHECKING:
    from shardtrain.loader.batches import Batches

__all__ = ["Description", "Examples", "Features", "Labels", "Shard", "Shards", "Split", "join", "open_shards"]

ON_CORRUPT = ("fail", "skip")
_MOST_BUFFERS = 256  # four arrays of each block of a few windows

Examples = tuple[Features, Labels]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a model has to know of the data.

    Attributes:
        kind: "ngram" (x is a `Csr`), "sequence" (x is token ids, 0 for padding, which is at the front) or "dense" (x
            is float32).
        num_features: columns of x: n-grams, the length of the sequences, or features.
        vocabulary_size: for sequences the input size of an embedding: every id is below it; else `num_features`.
        class_names: in the order of the class indices.
        num_train: training examples.
        num_validation: validation examples.
        vectorizer: identity of the fitted vectorizer.
        fingerprint: identity of these shards.
    """

    kind: str
    num_features: int
    vocabulary_size: int
    class_names: tuple[str, ...]
    num_train: int
    num_validation: int
    vectorizer: str
    fingerprint: str

    @property
    def num_classes(self) -> int:
        """How many classes there are."""
        return len(self.class_names)


@dataclass(frozen=True, kw_only=True)
class ReadOptions:
    """How the files of a folder are read.

    Attributes:
        verify: compare each checksum block when it is first touched.
        io: "map" the files, "read" them at positions, or "auto": read where a split is larger than half of the memory
            and on network and FUSE file systems, map elsewhere. A split that is so large is read past the page cache.
        on_corrupt: "fail" at a damaged block, or "skip": batches leave out exactly the rows that lie in one.
    """

    verify: bool = True
    io: str = "auto"
    on_corrupt: str = "fail"

    def __post_init__(self) -> None:
        if self.on_corrupt not in ON_CORRUPT:
            raise UsageError(f"on_corrupt is {self.on_corrupt!r}; choose one of {', '.join(ON_CORRUPT)}")
        if self.on_corrupt == "skip" and not self.verify:
            raise UsageError("on_corrupt 'skip' finds damage by checksums, so it needs verification")


class Split:
    """The rows of one split, numbered through its shards.

    Attributes:
        larger_than_memory: whether the files are too large to stay in the page cache beside everything else.
        block_buffers: what is read from files that are not mapped goes there.
        batch_buffers: batches that are copies lie there. Both are the same for all splits of a folder.
    """

    def __init__(
        self,
        name: str,
        entry: SplitEntry,
        folder: Path,
        manifest: Manifest,
        options: ReadOptions,
        sources: Mapping[str, ShardFile],
        larger_than_memory: bool,
        block_buffers: Buffers,
        batch_buffers: Buffers,
    ) -> None:
        self.name = name
        self.entry = entry
        self.kind = manifest.kind
        self.num_features = manifest.num_features
        self.num_examples = entry.examples
        self.options = options
        self.larger_than_memory = larger_than_memory
        self.block_buffers = block_buffers
        self.batch_buffers = batch_buffers
        self.shards = [
            Shard(
                folder,
                shard,
                manifest.num_features,
                verify=options.verify,
                io=_way_to_read(options, larger_than_memory),
                past_cache=larger_than_memory,
                buffers=block_buffers,
                sources=sources,
            )
            for shard in entry.shards
        ]
        self.files = list(dict.fromkeys(file for shard in self.shards for file in shard.files))
        self._starts = np.cumsum([0] + [shard.rows for shard in entry.shards]).tolist()

    def pieces(self, start: int, stop: int) -> Iterator[tuple[Shard, int, int]]:
        """The shards that hold rows [start, stop) of the split, each with its own half-open row range; at least one.

        Raises:
            UsageError: the split has no such rows.
        """
        if not 0 <= start <= stop <= self.num_examples:
            raise UsageError(f"rows [{start:,}, {stop:,}) of '{self.name}', which has rows [0, {self.num_examples:,})")
        number = min(bisect.bisect_right(self._starts, start), len(self.shards)) - 1
        for shard, (base, end) in zip(self.shards[number:], pairwise(self._starts[number:]), strict=True):
            yield shard, max(start - base, 0), min(stop, end) - base
            if end >= stop:
                return

    def rows(self, start: int, stop: int) -> Examples:
        """Rows [start, stop): views of the mapping where they lie in one shard, else joined copies."""
        parts = [(shard.x(begin, end), shard.y(begin, end)) for shard, begin, end in self.pieces(start, stop)]
        return join(parts)

    @property
    def mapped(self) -> bool:
        """Whether rows are views of mapped files: they lie there as they are, and nothing of them is held."""
        return all(shard.mapped for shard in self.shards)

    @property
    def touched(self) -> bool:
        """Whether all features and labels were read, and compared if that is wanted, since the files were opened."""
        return all(shard.touched for shard in self.shards)

    def check_unchanged(self) -> None:
        """Compare all files with what was opened.

        Raises:
            CorruptShardError: a file was cut short, written to or replaced.
        """
        for file in self.files:
            file.check_unchanged()

    def advise(self, *, random: bool) -> None:
        """Tell the kernel how the files will be read: here and there, or from front to back."""
        for file in self.files:
            file.advise(random=random)

    def need(self, segments: Iterable[tuple[int, int]]) -> None:
        """Have the kernel begin to read these half-open row ranges, where they were not touched before."""
        for start, stop in segments:
            for shard, first, last in self.pieces(start, stop):
                shard.need(first, last)

    def release(self, segments: Iterable[tuple[int, int]]) -> None:
        """Give back the page cache of these half-open row ranges, which are not needed again soon."""
        for start, stop in segments:
            for shard, first, last in self.pieces(start, stop):
                shard.release(first, last)

    def lost_rows(self, pieces: Sequence[tuple[Shard, int, int]]) -> Mask | None:
        """Which rows of the pieces, laid end to end, are damaged; None: none. Each damaged block is told once."""
        masks = [shard.lost_rows(first, last) for shard, first, last in pieces]
        if all(mask is None for mask in masks):
            return None
        for file in dict.fromkeys(file for shard, _, _ in pieces for file in shard.files):
            for text in file.untold_damage():
                warn(f"{text}; these rows are left out")
        parts = zip(masks, pieces, strict=True)
        return np.concatenate([
            np.zeros(last - first, np.bool_) if mask is None else mask for mask, (_, first, last) in parts
        ])  # fmt: skip

    def labels(self) -> Labels:
        """All class indices, (num_examples,); a view where there is one shard."""
        parts = [shard.y(0, shard.entry.rows) for shard in self.shards]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def documents(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Ordinals of the documents behind rows [start, stop) in the file the split was made from."""
        parts = [shard.documents(begin, end) for shard, begin, end in self.pieces(start, stop)]
        return np.concatenate(parts)

    def steps_per_epoch(self, batch_size: int, drop_remainder: bool = False) -> int:
        """Batches in an epoch: the last, shorter one counts unless `drop_remainder`."""
        return self.num_examples // batch_size if drop_remainder else -(-self.num_examples // batch_size)

    def batches(
        self,
        batch_size: int,
        *,
        seed: int = 0,
        epoch: int = 0,
        shuffle: str = "none",
        drop_remainder: bool = False,
        start_step: int = 0,
        prefetch: int = 64,  # batches: 32,768 rows of 512
        as_int32: bool = False,
    ) -> Batches:
        """The batches of one epoch from step `start_step` on; see `shardtrain.loader.batches`.

        Args:
            batch_size: rows a batch.
            seed: decides the order together with `epoch`.
            epoch: number of the epoch, from 0.
            shuffle: "none", "blocks", "window" or "global"; what each mixes and costs is told in `EpochPlan`.
            drop_remainder: leave a shorter last batch out.
            start_step: batches to leave out at the beginning.
            prefetch: batches that a background thread makes ahead at most; 0: none, and no thread.
            as_int32: labels and token ids in int32, as TensorFlow takes them, instead of their type on disk.
        """
        from shardtrain.loader.batches import Batches

        return Batches(
            self,
            batch_size=batch_size,
            seed=seed,
            epoch=epoch,
            shuffle=shuffle,
            drop_remainder=drop_remainder,
            start_step=start_step,
            prefetch=prefetch,
            as_int32=as_int32,
        )

    def generator(self, batch_size: int, *, seed: int = 0, shuffle: str = "none") -> Iterator[Examples]:
        """Batches for ever, epoch after epoch, each ending with the shorter last batch: for Keras' generator habits."""
        epoch = 0
        while True:
            yield from self.batches(batch_size, seed=seed, epoch=epoch, shuffle=shuffle)
            epoch += 1


def _elsewhere(entry: SplitEntry) -> set[str]:
    """The files outside the folder that arrays of a split lie in."""
    return {where.source for shard in entry.shards for where in shard.datasets.values() if where.source}


def _is_larger_than_memory(entry: SplitEntry, manifest: Manifest) -> bool:
    size = sum(shard.bytes for shard in entry.shards)
    return size + sum(manifest.sources[path].bytes for path in _elsewhere(entry)) > memory_bytes() // 2


def _way_to_read(options: ReadOptions, larger_than_memory: bool) -> str:
    """Pages that were mapped for a window may be gone again before it is gathered, where memory is short."""
    return "read" if options.io == "auto" and larger_than_memory else options.io


def join(parts: list[Examples]) -> Examples:
    """Examples of all parts in order; a single part is returned as it is."""
    if len(parts) == 1:
        return parts[0]
    y = np.concatenate([labels for _, labels in parts])
    features = [x for x, _ in parts]
    sparse = [x for x in features if isinstance(x, Csr)]
    return (concatenate(sparse), y) if sparse else (np.concatenate(features), y)  # type: ignore


class Shards:
    """An open folder of shards; `train` and `validation` are its splits."""

    def __init__(self, path: Path, manifest: Manifest, options: ReadOptions) -> None:
        self.path = path
        self.manifest = manifest
        blocks, batches = Buffers(_MOST_BUFFERS), Buffers()
        large = {name for name, entry in manifest.splits.items() if _is_larger_than_memory(entry, manifest)}
        read_past_cache = {path for name in large for path in _elsewhere(manifest.splits[name])}
        sources = {
            name: open_source(
                name,
                entry,
                verify=options.verify,
                io=_way_to_read(options, name in read_past_cache),
                past_cache=name in read_past_cache,
                buffers=blocks,
            )
            for name, entry in manifest.sources.items()
        }
        self.splits = {
            name: Split(name, entry, path, manifest, options, sources, name in large, blocks, batches)
            for name, entry in manifest.splits.items()
        }
        self.vectorizer_path = path / layout.VECTORIZER

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
        if "validation" not in self.splits:
            raise ShardsError(
                f"'{self.path}' has no validation split; build with --validation FILE or --validation-fraction F"
            )
        return self.splits["validation"]

    @property
    def description(self) -> Description:
        """What a model has to know of these shards."""
        manifest = self.manifest
        validation = manifest.splits.get("validation")
        return Description(
            kind=manifest.kind,
            num_features=manifest.num_features,
            vocabulary_size=manifest.vocabulary_size,
            class_names=manifest.class_names,
            num_train=manifest.splits["train"].examples,
            num_validation=validation.examples if validation else 0,
            vectorizer=str(manifest.vectorizer.get("fingerprint", "")),
            fingerprint=manifest.fingerprint,
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        manifest = self.manifest
        size = sum(shard.bytes for split in manifest.splits.values() for shard in split.shards)
        return table(
            f"Shards {self.path}",
            {
                "features": f"{manifest.num_features:,} {manifest.kind}",
                "classes": listed(manifest.class_names),
                **{f"{name} examples": f"{split.examples:,}" for name, split in manifest.splits.items()},
                "size": f"{size / 1e6:,.1f} MB",
                "fingerprint": manifest.fingerprint,
            },
        )

    def close(self) -> None:
        """Forget the mappings; views that are still in use keep theirs."""
        self.splits = {}

    def __enter__(self) -> Shards:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def open_shards(path: Path | str, *, verify: bool = True, io: str = "auto", on_corrupt: str = "fail") -> Shards:
    """Open the folder of shards `path`; the keywords are those of `ReadOptions`.

    Raises:
        ShardsNotFoundError: no such folder, no manifest in it, or a shard is missing.
        ManifestError: the manifest is damaged.
        CorruptShardError: a file does not have the size that the manifest says.
        UsageError: `io` or `on_corrupt` is none of its values.
    """
    folder = Path(path)
    options = ReadOptions(verify=verify, io=io, on_corrupt=on_corrupt)
    return Shards(folder, layout.read_manifest(folder), options)
