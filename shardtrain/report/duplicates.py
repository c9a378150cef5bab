"""Counts equal rows within and between splits, in bounded memory: rows are hashed, and hashes sorted in parts.

Two rows are equal if their features are, bit for bit; documents that differ in words without a feature are equal here,
as they are to a model. Rows without any feature are left out, and counted elsewhere. A row becomes a hash of 64 bits:
among a thousand million rows about one pair in thirty such reports is taken for equal by chance. Hashes go to one file
for each range of them, and a range is sorted at a time; where a row is repeated often, a batch has it once, with how
often. So memory is about 60 MB, whatever the number of rows, and the disk takes 15 bytes a row for a moment.
"""

from __future__ import annotations

import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO

import numpy as np
import numpy.typing as npt

from shardtrain.loader.order import mix64
from shardtrain.report.row_statistics import RowEntries

_RECORD = np.dtype([("hash", "<u8"), ("y", "<u2"), ("validation", "u1"), ("rows", "<u4")])
_RECORDS_AT_ONCE = 1 << 20
_MAX_PARTS = 256  # open files

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class DuplicateCounts:
    """Equal rows.

    Attributes:
        train_repeated: training rows that are equal to an earlier one.
        validation_repeated: validation rows that are equal to an earlier one.
        shared: validation rows that are equal to a training row.
        shared_same_class: those of them of which a training row has the same class, too.
        contradicting: training rows that are equal to a training row of another class.
    """

    train_repeated: int = 0
    validation_repeated: int = 0
    shared: int = 0
    shared_same_class: int = 0
    contradicting: int = 0

    def __add__(self, other: DuplicateCounts) -> DuplicateCounts:
        return DuplicateCounts(**{name: value + getattr(other, name) for name, value in vars(self).items()})


class DuplicateCounter:
    """Takes rows of splits, and counts the equal ones at the end; files exist while it is entered.

    Args:
        num_rows: of all splits together, about.
        scratch: a folder of a disk; files in it have no name.
    """

    def __init__(self, num_rows: int, scratch: Path) -> None:
        wanted = -(-num_rows // _RECORDS_AT_ONCE)
        self._bits = min(max(wanted - 1, 0).bit_length(), _MAX_PARTS.bit_length() - 1)
        self._scratch = scratch
        self._stack = ExitStack()
        self._parts: list[IO[bytes]] = []

    def __enter__(self) -> DuplicateCounter:
        for _ in range(1 << self._bits):
            self._parts.append(self._stack.enter_context(tempfile.TemporaryFile(dir=self._scratch)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, entries: RowEntries, *, validation: bool) -> None:
        """Take some rows."""
        there = np.diff(entries.indptr) > 0
        records = np.zeros(int(there.sum()), _RECORD)
        records["hash"] = hash_rows(entries)[there]
        records["y"] = entries.y[there]
        records["validation"] = validation
        records["rows"] = 1
        records = _merged(records)
        starts = _part_starts(records["hash"], self._bits)
        for number, file in enumerate(self._parts):
            piece = records[starts[number] : starts[number + 1]]
            if len(piece):
                file.write(piece.tobytes())

    def count(self) -> DuplicateCounts:
        """Count the equal rows among all that were taken."""
        total = DuplicateCounts()
        for file in self._parts:
            file.seek(0)
            total += _count(_merged(np.frombuffer(file.read(), _RECORD)))
        return total


def hash_rows(entries: RowEntries) -> Hashes:
    """A hash of each row's features: the sum of the mixed entries, mixed; rows without entries all have the same."""
    if entries.values.dtype.kind == "f":
        bits = np.ascontiguousarray(entries.values, np.float32).view(np.uint32).astype(np.uint64)
    else:
        bits = entries.values.astype(np.uint64)
    sums = np.zeros(len(bits) + 1, np.uint64)
    np.cumsum(mix64(mix64(entries.places.astype(np.uint64)) ^ bits), out=sums[1:])
    return mix64(sums[entries.indptr[1:]] - sums[entries.indptr[:-1]])


def _part_starts(hashes: Hashes, bits: int) -> list[int]:
    """Where each range of ascending hashes begins, by their first `bits` bits, and where the last one ends."""
    inner = (np.arange(1, 1 << bits, dtype=np.uint64) << np.uint64(64 - bits)) if bits else np.zeros(0, np.uint64)
    return [0, *np.searchsorted(hashes, inner).tolist(), len(hashes)]


def _merged(records: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Records in ascending order of hash, class and split, equal ones as one."""
    if not len(records):
        return records
    records = records[np.lexsort((records["validation"], records["y"], records["hash"]))]
    new = np.ones(len(records), np.bool_)
    new[1:] = False
    for name in ("hash", "y", "validation"):
        new[1:] |= records[name][1:] != records[name][:-1]
    firsts = np.flatnonzero(new)
    merged = records[firsts]
    merged["rows"] = np.add.reduceat(records["rows"].astype(np.int64), firsts)
    return merged


def _count(records: npt.NDArray[np.void]) -> DuplicateCounts:
    """The equal rows among all records of a range of hashes, which are merged."""
    if not len(records):
        return DuplicateCounts()
    rows = records["rows"].astype(np.int64)
    held_out = records["validation"] == 1
    group = np.cumsum(np.concatenate([[True], records["hash"][1:] != records["hash"][:-1]])) - 1
    same = np.zeros(len(records), np.bool_)  # a validation record whose training twin, of the same class, precedes it
    twins = (group[1:] == group[:-1]) & (records["y"][1:] == records["y"][:-1])
    same[1:] = twins & held_out[1:]
    of_train = np.bincount(group, np.where(held_out, 0, rows)).astype(np.int64)
    of_validation = np.bincount(group, np.where(held_out, rows, 0)).astype(np.int64)
    classes = np.bincount(group, ~held_out).astype(np.int64)  # of a group's training rows
    return DuplicateCounts(
        train_repeated=int(np.maximum(of_train - 1, 0).sum()),
        validation_repeated=int(np.maximum(of_validation - 1, 0).sum()),
        shared=int(of_validation[of_train > 0].sum()),
        shared_same_class=int(rows[same].sum()),
        contradicting=int(of_train[classes > 1].sum()),
    )
