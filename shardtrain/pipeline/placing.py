"""Place the rows of all units in shards, in ascending order of their keys.

Planning finds the first key of each shard and its number of non-zeros, from histograms of the keys and a sort of the
few bins in which a shard begins. Then each shard is written independently, from its key range of all row files, a piece
at a time. The cost is that every row file is opened once per shard and piece.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr, concatenate
from shardtrain.arrays.scratch import SpilledArrays, open_spilled
from shardtrain.pipeline import titles
from shardtrain.pipeline.units import key_range, rows_between
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.schema import Fields, Integer, Items
from shardtrain.shards.finished import is_finished
from shardtrain.shards.layout import ShardEntry, SplitEntry
from shardtrain.shards.manifest import SHARD, parse_shard, shard_record
from shardtrain.shards.packing import rewrite_shard
from shardtrain.shards.shard import Shard
from shardtrain.shards.write import ShardShape, new_shard
from shardtrain.vectorize.fitted import Rows
from shardtrain.vectorize.sequences import id_type

_BINS_BITS = 12
_END = 1 << 64
_MAX_NONZEROS = np.iinfo(np.int32).max  # per shard: row pointers have 32 bits


class Columns(Protocol):
    """The kind and width shared by rows; a vectorizer has these attributes for its own rows."""

    @property
    def kind(self) -> str:
        """Kind of the features."""
        ...

    @property
    def num_features(self) -> int:
        """Number of columns."""
        ...

    @property
    def vocabulary_size(self) -> int:
        """For sequences one more than the highest id, else the number of columns."""
        ...


@dataclass(frozen=True)
class ShardRange:
    """The rows of one shard: keys in [first, last)."""

    first: int
    last: int
    rows: int
    nonzeros: int


def plan_shards(files: Sequence[Path], rows_per_shard: int) -> list[ShardRange]:
    """Plan shards of `rows_per_shard` rows, halved until none holds 2**31 non-zeros or more."""
    edges = np.arange(1, 1 << _BINS_BITS, dtype=np.uint64) << np.uint64(64 - _BINS_BITS)
    rows = np.zeros(1 << _BINS_BITS, np.int64)
    nonzeros = np.zeros(1 << _BINS_BITS, np.int64)
    lowest, end = (
        _END,
        0,
    )  # a split has a part of the keys: shards are cut into pieces of equal ranges of those they hold
    for path in files:  # one at a time: an open mapping takes a file descriptor
        unit = open_spilled(path)
        if not len(unit["keys"]):
            continue
        lowest, end = min(lowest, int(unit["keys"][0])), max(end, int(unit["keys"][-1]) + 1)
        cuts = np.concatenate([[0], np.searchsorted(unit["keys"], edges), [len(unit["keys"])]])
        rows += np.diff(cuts)
        nonzeros += np.diff(_nonzeros_before(unit, cuts))
    starts = np.concatenate([[0], np.cumsum(rows)])
    nonzero_starts = np.concatenate([[0], np.cumsum(nonzeros)])
    total = int(starts[-1])
    while True:
        marks = [(lowest, 0, 0)]  # key, row and non-zeros at the start of each shard
        for row in range(rows_per_shard, total, rows_per_shard):
            number = int(np.searchsorted(starts, row, side="right")) - 1
            key, before = _inside(files, number, row - int(starts[number]))
            marks.append((key, row, int(nonzero_starts[number]) + before))
        marks.append((end, total, int(nonzero_starts[-1])))
        shards = [ShardRange(a[0], b[0], b[1] - a[1], b[2] - a[2]) for a, b in pairwise(marks)]
        if rows_per_shard == 1 or all(shard.nonzeros <= _MAX_NONZEROS for shard in shards):
            return shards
        rows_per_shard = -(-rows_per_shard // 2)


def _inside(files: Sequence[Path], number: int, skip: int) -> tuple[int, int]:
    """Return the key of the row after `skip` rows of a bin, and the non-zeros of these rows."""
    width = 64 - _BINS_BITS
    keys, counts = [], []
    for path in files:
        unit = open_spilled(path)
        start, stop = key_range(unit, number << width, (number + 1) << width)
        keys.append(unit["keys"][start:stop].copy())
        counts.append(np.diff(_nonzeros_before(unit, np.arange(start, stop + 1))))
    joined = np.concatenate(keys)
    order = np.argsort(joined)
    return int(joined[order[skip]]), int(np.concatenate(counts)[order[:skip]].sum())


def _nonzeros_before(unit: SpilledArrays, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the non-zeros before each row; 0 for sequences."""
    return unit["indptr"][rows] if "indptr" in unit else np.zeros(len(rows), np.int64)


@dataclass(frozen=True, kw_only=True)
class PlaceTask:
    """One shard to write from the row files of all units, with about `budget` bytes in memory.

    With a codec it is written uncompressed to the scratch file `plain` and then compressed.
    """

    files: tuple[Path, ...]
    range: ShardRange
    shape: ShardShape
    out: Path
    plain: Path
    codec: str | None
    budget: int


@dataclass(frozen=True)
class PlacedShard:
    """A finished shard and its number of rows per class."""

    entry: ShardEntry
    class_counts: tuple[int, ...]

    def as_record(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"entry": shard_record(self.entry), "class_counts": list(self.class_counts)}

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> PlacedShard:
        """Make the value from a record that fits `_PLACED`."""
        return cls(parse_shard(record["entry"]), tuple(record["class_counts"]))


_PLACED = Fields({"entry": SHARD, "class_counts": Items(Integer(), 1)})


def place_shard(task: PlaceTask) -> PlacedShard:
    """Write a shard, compressed if the task has a codec."""
    if task.codec is None:
        return _place(task, task.out)
    placed = _place(task, task.plain)
    shard = Shard(task.plain.parent, placed.entry, task.shape.num_features, verify=False)
    packed = rewrite_shard(shard, task.shape, task.codec, task.out)
    task.plain.unlink()
    return PlacedShard(packed, placed.class_counts)


def _is_placed(task: PlaceTask, placed: PlacedShard) -> bool:
    """Return whether the shard on record is that of the task, and has these rows per class."""
    if not is_finished(task.out, placed.entry, task.shape):
        return False
    y = Shard(task.out.parent, placed.entry, task.shape.num_features, verify=False).y(0, task.shape.rows)
    return tuple(np.bincount(y, minlength=task.shape.num_classes).tolist()) == placed.class_counts


def _place(task: PlaceTask, out: Path) -> PlacedShard:
    itemsize = {"sequence": id_type(task.shape.vocabulary_size).itemsize, "dense": 4}.get(task.shape.kind, 0)
    row_bytes = 8 * task.range.nonzeros // max(task.range.rows, 1) + itemsize * task.shape.num_features
    # a row is in memory three times: as read, concatenated and sorted
    pieces = max(1, -(-3 * task.range.rows * (row_bytes + 24) // task.budget))
    cuts = [task.range.first + (task.range.last - task.range.first) * i // pieces for i in range(pieces + 1)]
    class_counts = np.zeros(task.shape.num_classes, np.int64)
    with new_shard(out, task.shape, synced=task.codec is None) as writer:
        for first, last in pairwise(cuts):
            parts = [rows_between(path, first, last) for path in task.files]
            features = [part[0] for part in parts]
            y, documents, keys = (np.concatenate([part[i] for part in parts]) for i in (1, 2, 3))
            order = np.argsort(keys)
            sparse = [x for x in features if isinstance(x, Csr)]
            x: Rows = concatenate(sparse).take(order) if sparse else np.concatenate(features)[order]  # type: ignore[arg-type]
            writer.append(x, y[order], documents[order])
            class_counts += np.bincount(y, minlength=len(class_counts))
    return PlacedShard(writer.entry, tuple(class_counts.tolist()))


def place_split(
    passes: Passes,
    split: str,
    files: Sequence[Path],
    columns: Columns,
    num_classes: int,
    ready: Path,
    *,
    first_number: int,
    rows_per_shard: int,
    codec: str | None,
) -> SplitEntry:
    """Write the shards of one split, or those appended to it, from the rows of all units.

    Args:
        passes: runs the tasks.
        split: its name, the first part of its shards' names.
        files: written by `spill_rows`, one per unit.
        columns: of the rows.
        num_classes: of the labels.
        ready: folder of the shards.
        first_number: in the name of the first shard; the following shards count up from it.
        rows_per_shard: see `plan_shards`.
        codec: compresses the shards; None: uncompressed.

    Returns:
        The entry of these shards, with no examples where the files hold no row.
    """
    ranges = [shard for shard in plan_shards(files, rows_per_shard) if shard.rows]
    tasks = [
        PlaceTask(
            files=tuple(files),
            range=shard,
            shape=ShardShape(
                kind=columns.kind,
                rows=shard.rows,
                num_features=columns.num_features,
                nonzeros=shard.nonzeros,
                num_classes=num_classes,
                vocabulary_size=columns.vocabulary_size,
            ),
            out=ready / f"{split}-{number:05}.h5",
            plain=passes.scratch / f"{split}-{number:05}.h5",
            codec=codec,
            budget=passes.budget,
        )
        for number, shard in enumerate(ranges, first_number)
    ]
    placed = passes.run(
        titles.write_shards(split),
        place_shard,
        tasks,
        [shard.rows for shard in ranges],
        names=[task.out.stem for task in tasks],
        unit="rows",
        schema=_PLACED,
        encode=PlacedShard.as_record,
        decode=PlacedShard.from_record,
        fits=_is_placed,
    )
    class_counts = np.zeros(num_classes, np.int64)
    for shard in placed:
        class_counts += shard.class_counts
    return SplitEntry(
        examples=sum(shard.rows for shard in ranges),
        nonzeros=sum(shard.nonzeros for shard in ranges),
        class_counts=tuple(class_counts.tolist()),
        shards=tuple(shard.entry for shard in placed),
    )
