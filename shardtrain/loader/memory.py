"""Plan the memory that reading takes during training, and fit it to a limit by prefetching fewer batches.

Counted is the memory of this process: the prefetched batches and those of one step, and for compressed arrays, or
files that are read instead of mapped, the rows of whole windows. Pages of mapped files belong to the page cache and are
not counted. The limit never changes the order of examples, which is part of a training's result.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardtrain.errors import UsageError
from shardtrain.loader.batches import GATHERED_ROWS
from shardtrain.loader.split import Split
from shardtrain.runtime.quantities import size
from shardtrain.shards import layout

MAX_PREFETCH = 64  # batches: 32,768 rows at 512 rows per batch
MIN_PREFETCH = 2  # one in use and one being gathered
_CSR_BYTES, _POINTER_BYTES = 8, 8  # of a value with its column; of a row pointer
_TENSOR_BYTES = 4  # of a token id or a label in a batch


@dataclass(frozen=True, kw_only=True)
class ReadingPlan:
    """What reading holds in memory.

    Attributes:
        window_rows: rows that are shuffled among each other; 0: batches are consecutive rows.
        window_bytes: memory of the windows, if their rows are held; otherwise 0.
        prefetch: batches that are gathered before they are requested.
        prefetch_bytes: memory of these batches and of a group being gathered.
        batches_per_step: batches that one call of the training step takes.
        batch_bytes: memory of these batches.
    """

    window_rows: int
    window_bytes: int
    prefetch: int
    prefetch_bytes: int
    batches_per_step: int
    batch_bytes: int

    @property
    def total_bytes(self) -> int:
        """Sum of all parts."""
        return self.window_bytes + self.prefetch_bytes + self.batch_bytes

    def __str__(self) -> str:
        held = f" ({size(self.window_bytes)})" if self.window_bytes else ""
        window = f"shuffles in windows of {self.window_rows:,} rows{held}, " if self.window_rows else ""
        batches = "1 batch" if self.batches_per_step == 1 else f"{self.batches_per_step} batches"
        return (
            f"reading {window}prefetches up to {self.prefetch} batches ({size(self.prefetch_bytes)}) and takes "
            f"{batches} per step ({size(self.batch_bytes)})"
        )


def plan_reading(split: Split, batch_size: int, shuffle: str, *, batches: int, limit: int) -> ReadingPlan:
    """Plan the reading of a split with as many prefetched batches as the limit allows.

    Args:
        split: to train on.
        batch_size: rows per batch.
        shuffle: as in `Split.batches`.
        batches: per call of the training step.
        limit: memory in bytes.

    Raises:
        UsageError: even `MIN_PREFETCH` batches need more than `limit`.
    """
    prefetch = MAX_PREFETCH
    while True:
        plan = _plan(split, batch_size, shuffle, batches, prefetch)
        if plan.total_bytes <= limit:
            return plan
        if prefetch == MIN_PREFETCH:
            break
        prefetch //= 2
    other = _plan(split, batch_size, "blocks", batches, MIN_PREFETCH)
    instead = (
        f"--shuffle blocks, which needs {size(other.total_bytes)}"
        if other.total_bytes <= limit
        else "a smaller --batch-size"
    )
    raise UsageError(
        f"{plan}, in total {size(plan.total_bytes)}, more than --memory-limit {size(limit)}; raise it, or choose "
        f"{instead}"
    )


def _plan(split: Split, batch_size: int, shuffle: str, batches: int, prefetch: int) -> ReadingPlan:
    epoch = split.batches(batch_size, shuffle=shuffle, prefetch=prefetch)
    mixing = shuffle in ("window", "global")
    rows = min(epoch.plan.window_rows, split.num_examples)
    stored_bytes, batch_row_bytes = _row_bytes(split)
    gathered = max(batch_size, min(GATHERED_ROWS, batch_size * max(1, prefetch // 2)))  # rows per group of `Batches`
    windows = 0 if split.mapped else 1 + epoch.prefetched_windows
    blocks = -(-rows // epoch.plan.block_rows) if split.options.verify else 0
    return ReadingPlan(
        window_rows=rows if mixing else 0,
        window_bytes=windows * (rows * stored_bytes + blocks * _verified_bytes(split)),
        prefetch=prefetch,
        prefetch_bytes=min(prefetch * batch_size + gathered, split.num_examples) * batch_row_bytes,
        batches_per_step=batches,
        batch_bytes=min(batches * batch_size, split.num_examples) * batch_row_bytes,
    )


def _verified_bytes(split: Split) -> int:
    """Return the bytes read in addition to the rows of a block, as checksum blocks of each array are read whole."""
    arrays = [name for name in split.shards[0].arrays if name != layout.DOCUMENT]
    return len(arrays) * max(file.entry.block_bytes for file in split.files)


def _row_bytes(split: Split) -> tuple[int, int]:
    """Return the average bytes of a row's features and label, as stored and as in a batch."""
    entry = split.entry
    label = split.shards[0].entry.datasets["y"].bytes / split.shards[0].entry.rows
    if split.kind == "ngram":
        row = _CSR_BYTES * entry.nonzeros / entry.examples + _POINTER_BYTES
        return round(row + label), round(row + _TENSOR_BYTES)
    stored = sum(shard.entry.datasets["x"].bytes for shard in split.shards) / entry.examples
    return round(stored + label), (split.num_features + 1) * _TENSOR_BYTES
