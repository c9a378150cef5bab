"""Read rows of a split across its shards: views of mapped files, or copies.

Each checksum block is verified at its first access in a process, so damage is reported before its bytes are used;
after that a read costs only the page fault.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterable, Iterator, Sequence
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.buffers import BufferPool
from shardtrain.arrays.rows import Examples, Labels, join_examples
from shardtrain.errors import UsageError
from shardtrain.loader.options import LoaderOptions
from shardtrain.runtime.progress import warn
from shardtrain.shards.layout import Manifest, SplitEntry
from shardtrain.shards.shard import Mask, Shard


class SplitReader:
    """The rows of one split, numbered through its shards.

    Args:
        name: of the split.
        entry: of the split in the manifest.
        manifest: of the folder.
        shards: open shards in the order of `entry`.
        options: how files are read.
        larger_than_memory: whether the files are too large to stay in the page cache.
        block_buffers: for rows of files that are not mapped.
    """

    def __init__(
        self,
        name: str,
        entry: SplitEntry,
        manifest: Manifest,
        shards: Sequence[Shard],
        *,
        options: LoaderOptions,
        larger_than_memory: bool,
        block_buffers: BufferPool,
    ) -> None:
        self.name = name
        self.entry = entry
        self.manifest = manifest
        self.kind = manifest.kind
        self.num_features = manifest.num_features
        self.num_examples = entry.examples
        self.options = options
        self.larger_than_memory = larger_than_memory
        self.block_buffers = block_buffers
        self.shards = list(shards)
        self.files = list(dict.fromkeys(file for shard in self.shards for file in shard.files))
        self._starts = np.cumsum([0] + [shard.rows for shard in entry.shards]).tolist()

    def pieces(self, start: int, stop: int) -> Iterator[tuple[Shard, int, int]]:
        """Yield the shards that hold rows [start, stop) of the split, each with its half-open row range; at least one.

        Raises:
            UsageError: the range is not within the split.
        """
        if not 0 <= start <= stop <= self.num_examples:
            raise UsageError(
                f"rows [{start:,}, {stop:,}) are not within '{self.name}', which has rows [0, {self.num_examples:,})"
            )
        number = min(bisect.bisect_right(self._starts, start), len(self.shards)) - 1
        for shard, (base, end) in zip(self.shards[number:], pairwise(self._starts[number:]), strict=True):
            yield shard, max(start - base, 0), min(stop, end) - base
            if end >= stop:
                return

    def rows(self, start: int, stop: int) -> Examples:
        """Read rows [start, stop): views of the mapping if one shard holds them, otherwise concatenated copies."""
        parts = [(shard.x(begin, end), shard.y(begin, end)) for shard, begin, end in self.pieces(start, stop)]
        return join_examples(parts)

    @property
    def mapped(self) -> bool:
        """Whether rows are views of mapped files, so that reading them allocates no memory."""
        return all(shard.mapped for shard in self.shards)

    @property
    def touched(self) -> bool:
        """Whether all features and labels were read, and verified if requested, since the files were opened."""
        return all(shard.touched for shard in self.shards)

    def check_unchanged(self) -> None:
        """Check that no file has changed since it was opened.

        Raises:
            CorruptShardError: a file was truncated, written to or replaced.
        """
        for file in self.files:
            file.check_unchanged()

    def advise(self, *, random: bool) -> None:
        """Advise the kernel whether the files will be read at random or sequentially."""
        for file in self.files:
            file.advise(random=random)

    def read_ahead(self, segments: Iterable[tuple[int, int]]) -> None:
        """Start reading these half-open row ranges into the page cache, without waiting."""
        for start, stop in segments:
            for shard, first, last in self.pieces(start, stop):
                shard.read_ahead(first, last)

    def release(self, segments: Iterable[tuple[int, int]]) -> None:
        """Release the page cache of these half-open row ranges, which are not needed again soon."""
        for start, stop in segments:
            for shard, first, last in self.pieces(start, stop):
                shard.release(first, last)

    def damaged_rows(self, pieces: Sequence[tuple[Shard, int, int]]) -> Mask | None:
        """Return a mask of damaged rows over the concatenated pieces, or None; warn once per damaged block."""
        masks = [shard.damaged_rows(first, last) for shard, first, last in pieces]
        if all(mask is None for mask in masks):
            return None
        for file in dict.fromkeys(file for shard, _, _ in pieces for file in shard.files):
            for text in file.unreported_damage():
                warn(f"{text}; these rows are skipped")
        parts = zip(masks, pieces, strict=True)
        return np.concatenate(
            [np.zeros(last - first, np.bool_) if mask is None else mask for mask, (_, first, last) in parts]
        )

    def labels(self) -> Labels:
        """Read all class indices, (num_examples,); a view if there is one shard."""
        parts = [shard.y(0, shard.entry.rows) for shard in self.shards]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def documents(self, start: int, stop: int) -> npt.NDArray[np.int64]:
        """Read the document ordinals of rows [start, stop), in the file that the split was built from."""
        parts = [shard.documents(begin, end) for shard, begin, end in self.pieces(start, stop)]
        return np.concatenate(parts)
