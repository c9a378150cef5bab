"""What reading batches for training holds in memory: a plan made before training, told to the user, kept to a limit.

Batches are gathered from mapped files, whose pages belong to the page cache; counted is what this process takes for
itself: the batches that are made ahead and those of one call. The order of examples is part of a training's result, so
a limit only shortens how far reading is ahead. Arrays that are not simply there (compressed, or read instead of mapped)
are held for a window as well.
"""

from __future__ import annotations

from dataclasses import dataclass

from shardtrain.errors import UsageError
from shardtrain.loader.batches import GATHERED_ROWS
from shardtrain.loader.split import Split
from shardtrain.shards import layout

MOST_AHEAD = 64  # batches: 32,768 rows of 512
LEAST_AHEAD = 2  # one being used, one being made
_CSR_BYTES, _POINTER_BYTES = 8, 8  # a value and its column; where a row begins
_TENSOR_BYTES = 4  # of a token id or a label in a batch


@dataclass(frozen=True, kw_only=True)
class ReadingPlan:
    """What is held.

    Attributes:
        window_rows: rows that are mixed with each other; 0: batches are neighbouring rows.
        window_bytes: of them, where they have to be held; else 0.
        ahead: batches that are made before they are asked for.
        ahead_bytes: of them, and of those that are gathered with them.
        batches: that a call of the step takes.
        batch_bytes: of these batches.
    """

    window_rows: int
    window_bytes: int
    ahead: int
    ahead_bytes: int
    batches: int
    batch_bytes: int

    @property
    def total_bytes(self) -> int:
        """All of it."""
        return self.window_bytes + self.ahead_bytes + self.batch_bytes

    def __str__(self) -> str:
        held = f", held ({_size(self.window_bytes)})" if self.window_bytes else ""
        window = f"mixes windows of {self.window_rows:,} rows{held}, " if self.window_rows else ""
        return (
            f"reading {window}makes up to {self.ahead} batches ahead ({_size(self.ahead_bytes)}) and takes "
            f"{self.batches} a call ({_size(self.batch_bytes)})"
        )


def plan_reading(split: Split, batch_size: int, shuffle: str, *, batches: int, limit: int) -> ReadingPlan:
    """Plan the reading of a split: as far ahead as the limit allows.

    Args:
        split: of the training.
        batch_size: rows a batch.
        shuffle: as in `Split.batches`.
        batches: that a call of the step takes.
        limit: bytes that reading may hold.

    Raises:
        UsageError: even the least needs more than `limit`.
    """
    ahead = MOST_AHEAD
    while True:
        plan = _plan(split, batch_size, shuffle, batches, ahead)
        if plan.total_bytes <= limit:
            return plan
        if ahead == LEAST_AHEAD:
            break
        ahead //= 2
    other = _plan(split, batch_size, "blocks", batches, LEAST_AHEAD)
    instead = (
        f"--shuffle blocks, which needs {_size(other.total_bytes)}"
        if other.total_bytes <= limit
        else "a smaller --batch-size"
    )
    raise UsageError(f"{plan}, more than --memory-limit {_size(limit)}; raise it, or choose {instead}")


def _plan(split: Split, batch_size: int, shuffle: str, batches: int, ahead: int) -> ReadingPlan:
    made = split.batches(batch_size, shuffle=shuffle, prefetch=ahead)
    mixed = shuffle in ("window", "global")
    window_rows = min(made.plan.window_rows, split.num_examples) if mixed else 0
    stored, given = _row_bytes(split)
    gathered = max(batch_size, min(GATHERED_ROWS, batch_size * max(1, ahead // 2)))  # at a time, as `Batches` does
    windows = 0 if split.mapped else 1 + made.windows_ahead  # that are held
    rows = min(made.plan.window_rows, split.num_examples)
    blocks = -(-rows // made.plan.block_rows) if split.options.verify else 0
    return ReadingPlan(
        window_rows=window_rows,
        window_bytes=windows * (rows * stored + blocks * _verified_bytes(split)),
        ahead=ahead,
        ahead_bytes=min(ahead * batch_size + gathered, split.num_examples) * given,
        batches=batches,
        batch_bytes=min(batches * batch_size, split.num_examples) * given,
    )


def _verified_bytes(split: Split) -> int:
    """Bytes that are read with the rows of a block, since of each array whole checksum blocks are compared."""
    arrays = [name for name in split.shards[0].sources if name != layout.DOCUMENT]
    return len(arrays) * max(file.entry.block_bytes for file in split.files)


def _row_bytes(split: Split) -> tuple[int, int]:
    """Bytes of a row on the average, features and label: as it is stored, and as the step takes it."""
    entry = split.entry
    label = split.shards[0].entry.datasets["y"].bytes / split.shards[0].entry.rows
    if split.kind == "ngram":
        row = _CSR_BYTES * entry.nonzeros / entry.examples + _POINTER_BYTES
        return round(row + label), round(row + _TENSOR_BYTES)
    stored = sum(shard.entry.datasets["x"].bytes for shard in split.shards) / entry.examples
    return round(stored + label), (split.num_features + 1) * _TENSOR_BYTES


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1_000_000 else f"{count / 1e3:,.0f} kB"
