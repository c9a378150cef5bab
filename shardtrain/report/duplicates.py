"""Count duplicate rows within and between splits, in bounded memory.

Rows are duplicates if their features are equal bit for bit, as they then are to a model; rows without any feature are
omitted. Each row is reduced to a 64-bit hash: for 10^9 rows the probability of any collision is about 3%. Hashes are
partitioned by range into temporary files of 15 bytes per row, and one partition is sorted at a time: about 60 MB of
memory whatever the number of rows.
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
from shardtrain.shards.layout import SPLITS

_RECORD = np.dtype([("hash", "<u8"), ("y", "<u2"), ("split", "u1"), ("rows", "<u4")])
_TRAIN, _VALIDATION, _TEST = range(len(SPLITS))  # in a record
_RECORDS_PER_PARTITION = 1 << 20
_MAX_PARTITIONS = 256  # limit of open files

Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True, kw_only=True)
class DuplicateCounts:
    """Numbers of duplicate rows.

    Attributes:
        train_repeated: training rows that duplicate an earlier training row.
        validation_repeated: validation rows that duplicate an earlier validation row.
        shared: validation rows that duplicate a training row.
        shared_same_class: those of `shared` that duplicate a training row of the same class.
        contradicting: training rows that duplicate a training row of another class.
        test_repeated: test rows that duplicate an earlier test row.
        test_shared: test rows that duplicate a training row.
        test_shared_same_class: those of `test_shared` that duplicate a training row of the same class.
    """

    train_repeated: int = 0
    validation_repeated: int = 0
    shared: int = 0
    shared_same_class: int = 0
    contradicting: int = 0
    test_repeated: int = 0
    test_shared: int = 0
    test_shared_same_class: int = 0

    def __add__(self, other: DuplicateCounts) -> DuplicateCounts:
        return DuplicateCounts(**{name: value + getattr(other, name) for name, value in vars(self).items()})


class DuplicateCounter:
    """Collects rows of all splits and counts duplicates; a context manager that owns the temporary files.

    Args:
        num_rows: approximate number of rows of all splits, which sets the number of partitions.
        scratch: folder for temporary files, which are unlinked.
    """

    def __init__(self, num_rows: int, scratch: Path) -> None:
        wanted = -(-num_rows // _RECORDS_PER_PARTITION)
        self._bits = min(max(wanted - 1, 0).bit_length(), _MAX_PARTITIONS.bit_length() - 1)
        self._scratch = scratch
        self._stack = ExitStack()
        self._partitions: list[IO[bytes]] = []

    def __enter__(self) -> DuplicateCounter:
        for _ in range(1 << self._bits):
            self._partitions.append(self._stack.enter_context(tempfile.TemporaryFile(dir=self._scratch)))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, entries: RowEntries, *, split: str) -> None:
        """Add a batch of rows of a split, which is named."""
        nonempty = np.diff(entries.indptr) > 0
        records = np.zeros(int(nonempty.sum()), _RECORD)
        records["hash"] = hash_rows(entries)[nonempty]
        records["y"] = entries.y[nonempty]
        records["split"] = SPLITS.index(split)
        records["rows"] = 1
        records = _merge(records)  # a row that is repeated in the batch takes one record
        starts = _partition_bounds(records["hash"], self._bits)
        for number, file in enumerate(self._partitions):
            piece = records[starts[number] : starts[number + 1]]
            if len(piece):
                file.write(piece.tobytes())

    def count(self) -> DuplicateCounts:
        """Count the duplicates among all rows added."""
        total = DuplicateCounts()
        for file in self._partitions:
            file.seek(0)
            total += _count_duplicates(_merge(np.frombuffer(file.read(), _RECORD)))
        return total


def hash_rows(entries: RowEntries) -> Hashes:
    """Hash the features of each row: a mix of the sum of its mixed entries, so that their order does not matter."""
    if entries.values.dtype.kind == "f":
        bits = np.ascontiguousarray(entries.values, np.float32).view(np.uint32).astype(np.uint64)
    else:
        bits = entries.values.astype(np.uint64)
    sums = np.zeros(len(bits) + 1, np.uint64)
    np.cumsum(mix64(mix64(entries.positions.astype(np.uint64)) ^ bits), out=sums[1:])
    return mix64(sums[entries.indptr[1:]] - sums[entries.indptr[:-1]])


def _partition_bounds(hashes: Hashes, bits: int) -> list[int]:
    """Return the boundaries of the partitions, by the leading `bits` bits, in ascending hashes."""
    inner = (np.arange(1, 1 << bits, dtype=np.uint64) << np.uint64(64 - bits)) if bits else np.zeros(0, np.uint64)
    return [0, *np.searchsorted(hashes, inner).tolist(), len(hashes)]


def _merge(records: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Sort records by hash, class and split, and merge equal ones."""
    if not len(records):
        return records
    records = records[np.lexsort((records["split"], records["y"], records["hash"]))]
    new = np.ones(len(records), np.bool_)
    new[1:] = False
    for name in ("hash", "y", "split"):
        new[1:] |= records[name][1:] != records[name][:-1]
    firsts = np.flatnonzero(new)
    merged = records[firsts]
    merged["rows"] = np.add.reduceat(records["rows"].astype(np.int64), firsts)
    return merged


def _count_duplicates(records: npt.NDArray[np.void]) -> DuplicateCounts:
    """Count the duplicates among the merged records of one partition."""
    if not len(records):
        return DuplicateCounts()
    rows = records["rows"].astype(np.int64)
    new = records["hash"][1:] != records["hash"][:-1]
    group = np.cumsum(np.concatenate([[True], new])) - 1
    # of the records of one hash and class, that of training rows is the first, if there is one
    firsts = np.concatenate([[True], new | (records["y"][1:] != records["y"][:-1])])
    twin = records["split"][firsts][np.cumsum(firsts) - 1] == _TRAIN
    of_train, of_validation, of_test = (
        np.bincount(group, np.where(records["split"] == split, rows, 0)).astype(np.int64)
        for split in (_TRAIN, _VALIDATION, _TEST)
    )
    classes = np.bincount(group, records["split"] == _TRAIN)  # number of classes among the training rows of a group
    return DuplicateCounts(
        train_repeated=int(np.maximum(of_train - 1, 0).sum()),
        validation_repeated=int(np.maximum(of_validation - 1, 0).sum()),
        shared=int(of_validation[of_train > 0].sum()),
        shared_same_class=int(rows[twin & (records["split"] == _VALIDATION)].sum()),
        contradicting=int(of_train[classes > 1].sum()),
        test_repeated=int(np.maximum(of_test - 1, 0).sum()),
        test_shared=int(of_test[of_train > 0].sum()),
        test_shared_same_class=int(rows[twin & (records["split"] == _TEST)].sum()),
    )
