"""Plan the shards of a split: where, in the order of keys, each begins, and how many rows and non-zeros it has.

Histograms of the keys tell in which range of keys, a bin, each shard begins; the keys of these bins alone are then
sorted. Both are passes over the row files, so what this process holds does not depend on the number of rows.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.file_set import FileSet
from shardtrain.arrays.scratch import SpilledArrays, open_spilled, spill
from shardtrain.pipeline import titles
from shardtrain.pipeline.row_files import key_range
from shardtrain.runtime.checksums import checksum
from shardtrain.runtime.passes import Passes
from shardtrain.runtime.schema import Integer, Items, Row
from shardtrain.vectorize.groups import GROUP_UNITS, files_together

_FEW_BITS, _MANY_BITS = 12, 16  # of bins: more of them where the rows of one might not fit into memory
_END = 1 << 64
_ROW_BYTES = 40  # memory of a row of a bin while it is sorted
MAX_NONZEROS = np.iinfo(np.int32).max  # per shard: row pointers have 32 bits
_RANGE = Row((Integer(0, _END), Integer(0, _END)))  # lowest key, and one above the highest
_MARKS = Items(Row((Integer(0, _END), Integer())))


@dataclass(frozen=True)
class ShardRange:
    """The rows of one shard: keys in [first, last)."""

    first: int
    last: int
    rows: int
    nonzeros: int


def plan_shards(passes: Passes, split: str, files: Sequence[Path], rows_per_shard: int) -> list[ShardRange]:
    """Plan shards of `rows_per_shard` rows, halved until none holds 2**31 non-zeros or more; empty without rows.

    Args:
        passes: runs the tasks.
        split: its name.
        files: row files.
        rows_per_shard: at least 1.
    """
    bins = _bins_of(passes, split, files)
    total = int(bins.starts[-1])
    if not total:
        return []
    while True:
        places = first_rows(total, rows_per_shard)
        marks = [(bins.first, 0, 0)]  # key, row and non-zeros at the start of each shard
        if len(places):
            marks += _marks(passes, split, files, bins, places)
        marks.append((bins.last, total, int(bins.nonzero_starts[-1])))
        shards = [ShardRange(a[0], b[0], b[1] - a[1], b[2] - a[2]) for a, b in pairwise(marks)]
        if rows_per_shard == 1 or all(shard.nonzeros <= MAX_NONZEROS for shard in shards):
            return shards
        rows_per_shard = -(-rows_per_shard // 2)


def first_rows(total: int, rows_per_shard: int) -> npt.NDArray[np.int64]:
    """Return the number of the first row of each shard but the first."""
    return np.arange(rows_per_shard, total, rows_per_shard)


@dataclass(frozen=True, eq=False)
class _Bins:
    """Ranges of keys with equal first `bits`, and the rows in them.

    Attributes:
        bits: of the number of bins.
        first, last: the keys of all rows are in [first, last).
        starts: rows before each bin, (bins + 1,).
        nonzero_starts: non-zeros before each bin, (bins + 1,).
    """

    bits: int
    first: int
    last: int
    starts: npt.NDArray[np.int64]
    nonzero_starts: npt.NDArray[np.int64]


def _bins_of(passes: Passes, split: str, files: Sequence[Path]) -> _Bins:
    bits, groups = bin_bits(len(files)), files_counted(len(files))
    count = _CountKeys(files, GROUP_UNITS, bits, FileSet(passes.scratch / f"keys-{split}", len(groups)).made())
    found: list[tuple[int, int]] = passes.run(
        titles.plan_shards(split),
        count,
        range(len(groups)),
        [len(files[start : start + GROUP_UNITS]) for start in groups],
        name=f"keys-{split}",
        unit="files",
        schema=_RANGE,
        decode=lambda record: (record[0], record[1]),
    )
    sums = np.zeros((2, 1 << bits), np.int64)
    for path in count.outs:
        counted = open_spilled(path)
        sums += [counted["rows"], counted["nonzeros"]]
    starts, nonzero_starts = np.cumsum(sums, axis=1)
    first, last = min([low for low, _ in found], default=_END), max([high for _, high in found], default=0)
    return _Bins(bits, first, last, np.append(0, starts), np.append(0, nonzero_starts))


def bin_bits(num_files: int) -> int:
    """Return the bits of the number of bins for the rows of so many files."""
    return _FEW_BITS if files_together(num_files) == 1 else _MANY_BITS


def files_counted(num_files: int) -> range:
    """Return the first file of each task that counts keys."""
    return range(0, num_files, GROUP_UNITS)


@dataclass(frozen=True)
class _CountKeys:
    """Count the rows and non-zeros of each bin in `width` files; return the lowest key and one above the highest."""

    files: Sequence[Path]
    width: int
    bits: int
    outs: FileSet

    def __call__(self, number: int) -> tuple[int, int]:
        edges = np.arange(1, 1 << self.bits, dtype=np.uint64) << np.uint64(64 - self.bits)
        rows, nonzeros = np.zeros(1 << self.bits, np.int64), np.zeros(1 << self.bits, np.int64)
        lowest, end = _END, 0
        for path in self.files[number * self.width : (number + 1) * self.width]:
            unit = open_spilled(path)  # one at a time: an open mapping takes a file descriptor
            if not len(unit["keys"]):
                continue
            lowest, end = min(lowest, int(unit["keys"][0])), max(end, int(unit["keys"][-1]) + 1)
            cuts = np.concatenate([[0], np.searchsorted(unit["keys"], edges), [len(unit["keys"])]])
            rows += np.diff(cuts)
            nonzeros += np.diff(_nonzeros_before(unit, cuts))
        spill(self.outs[number], {"rows": rows, "nonzeros": nonzeros})
        return lowest, end


Marked = tuple[int, tuple[int, ...]]  # a bin, and how many of its rows come before each mark in it


def _marks(
    passes: Passes,
    split: str,
    files: Sequence[Path],
    bins: _Bins,
    places: npt.NDArray[np.int64],
) -> Iterator[tuple[int, int, int]]:
    """Return key, row and non-zeros before it of the rows at some places."""
    numbers = np.searchsorted(bins.starts, places, side="right") - 1
    tasks = mark_tasks(bins.starts, places, passes.budget)
    found = passes.run(
        titles.plan_shards(split),
        _FindMarks(files, bins.bits),
        tasks,
        [1] * len(tasks),
        name=f"marks-{split}-{checksum(repr(tasks).encode())}",
        unit="tasks",
        schema=_MARKS,
        fits=lambda task, result: sum(len(skips) for _, skips in task) == len(result),
    )
    before = bins.nonzero_starts[numbers].tolist()
    keys = [(key, nonzeros) for marks in found for key, nonzeros in marks]
    for (key, nonzeros), row, of_bin in zip(keys, places.tolist(), before, strict=True):
        yield key, row, of_bin + nonzeros


def mark_tasks(starts: npt.NDArray[np.int64], places: npt.NDArray[np.int64], budget: int) -> list[tuple[Marked, ...]]:
    """Return the tasks that find the keys of rows at some places; `starts` are rows before each bin, (bins + 1,)."""
    numbers = np.searchsorted(starts, places, side="right") - 1
    pairs = zip(numbers.tolist(), (places - starts[numbers]).tolist(), strict=True)
    marked = [(number, tuple(skip for _, skip in group)) for number, group in groupby(pairs, lambda pair: pair[0])]
    return list(_tasks(marked, np.diff(starts), budget))


def _tasks(marked: list[Marked], rows: npt.NDArray[np.int64], budget: int) -> Iterator[tuple[Marked, ...]]:
    """Group bins whose rows can be sorted within `budget` bytes together."""
    held: list[Marked] = []
    size = 0
    for each in marked:
        needed = int(rows[each[0]]) * _ROW_BYTES
        if held and size + needed > budget:
            yield tuple(held)
            held, size = [], 0
        held.append(each)
        size += needed
    if held:
        yield tuple(held)


@dataclass(frozen=True)
class _FindMarks:
    """Return the key of the row after some rows of a bin, and the non-zeros of these rows, for each mark of bins."""

    files: Sequence[Path]
    bits: int

    def __call__(self, task: tuple[Marked, ...]) -> list[tuple[int, int]]:
        width = 64 - self.bits
        parts: list[list[tuple[npt.NDArray[Any], npt.NDArray[Any]]]] = [[] for _ in task]
        for path in self.files:
            unit = open_spilled(path)
            for part, (number, _) in zip(parts, task, strict=True):
                start, stop = key_range(unit, number << width, (number + 1) << width)
                sizes = np.diff(_nonzeros_before(unit, np.arange(start, stop + 1)))
                part.append((unit["keys"][start:stop].copy(), sizes))
        return [mark for part, (_, skips) in zip(parts, task, strict=True) for mark in _marks_in(part, skips)]


def _marks_in(
    parts: list[tuple[npt.NDArray[Any], npt.NDArray[Any]]], skips: Sequence[int]
) -> Iterator[tuple[int, int]]:
    keys, sizes = (np.concatenate(column) for column in zip(*parts, strict=True))
    order = np.argsort(keys)
    before = np.append(0, np.cumsum(sizes[order]))
    for skip in skips:
        yield int(keys[order[skip]]), int(before[skip])


def _nonzeros_before(unit: SpilledArrays, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the non-zeros before each row; 0 for sequences."""
    return unit["indptr"][rows] if "indptr" in unit else np.zeros(len(rows), np.int64)
