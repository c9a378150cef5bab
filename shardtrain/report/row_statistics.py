"""What the rows of a split hold, in one pass over it: lengths, how often each feature occurs, equal rows.

Rows are read some at a time through the batches that training reads, so that shards larger than memory need no more
than small ones: beside the batches under way it holds one number for each feature and one for each length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Labels
from shardtrain.loader.split import Split

MAX_FEATURES = 1 << 22  # columns that are counted; more take 32 MiB for each number that is kept of them
_ENTRIES_AT_ONCE = 1 << 20
_ROWS_AT_ONCE = 4096

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RowEntries:
    """The features that some rows have, as (row, column, value), rows ascending.

    Attributes:
        y: class indices, (rows,).
        indptr: row r has the entries [indptr[r], indptr[r + 1]), (rows + 1,).
        columns: of n-grams and dense features their columns, of sequences the token ids.
        places: what an entry is equal by, together with its value: the column, or the position in the sequence.
        values: float32; of sequences the token ids.
    """

    y: Labels
    indptr: npt.NDArray[np.int64]
    columns: npt.NDArray[Any]
    places: npt.NDArray[Any]
    values: npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitStatistics:
    """What a split holds.

    Attributes:
        rows: in it.
        lengths: how many rows have so many features (or token ids): entry n is for n, the last is not 0.
        occurrences: in how many rows each feature occurs, (num_features or vocabulary_size,); None: there are more
            than `MAX_FEATURES`.
    """

    rows: int
    lengths: Counts
    occurrences: Counts | None

    @property
    def empty(self) -> int:
        """Rows without any feature."""
        return int(self.lengths[0])

    @property
    def mean(self) -> float:
        """Features a row."""
        return float(self.lengths @ np.arange(len(self.lengths))) / self.rows


def compute_statistics(split: Split, num_columns: int, see: Callable[[RowEntries], None]) -> SplitStatistics:
    """Go through a split once.

    Args:
        split: to go through.
        num_columns: every column (or token id) is below it.
        see: called with the rows in order, some at a time, so that others can look at them in the same pass.
    """
    occurrences = np.zeros(num_columns, np.int64) if num_columns <= MAX_FEATURES else None
    lengths = np.zeros(1, np.int64)
    for entries in read_entries(split):
        found = np.bincount(np.diff(entries.indptr), minlength=len(lengths))
        found[: len(lengths)] += lengths
        lengths = found
        if occurrences is not None:
            np.add.at(occurrences, distinct(entries, split.kind).columns, 1)
        see(entries)
    return SplitStatistics(rows=split.num_examples, lengths=lengths, occurrences=occurrences)


def read_entries(split: Split) -> Iterator[RowEntries]:
    """The rows of a split in order, about a million entries at a time."""
    a_row = split.entry.nonzeros // split.num_examples if split.kind == "ngram" else split.num_features
    rows = min(max(_ENTRIES_AT_ONCE // max(a_row, 1), 1), _ROWS_AT_ONCE)
    for x, y in split.batches(rows, prefetch=2):
        if isinstance(x, Csr):
            there = np.flatnonzero(x.data != 0) if bool((x.data == 0).any()) else slice(None)
            indptr = x.indptr.astype(np.int64)
            if not isinstance(there, slice):
                indptr = np.searchsorted(there, indptr)
            yield RowEntries(y, indptr, x.indices[there], x.indices[there], x.data[there])
            continue
        of_row, place = np.nonzero(x)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(of_row, minlength=len(y)))])
        values = x[of_row, place]
        yield RowEntries(y, indptr, values if split.kind == "sequence" else place, place, values)


def distinct(entries: RowEntries, kind: str) -> RowEntries:
    """Each feature of a row once; of sequences that is whether a word occurs, as value 1."""
    if kind != "sequence":
        return entries
    if not len(entries.columns):
        return entries
    width = int(entries.columns.max()) + 1
    rows = np.repeat(np.arange(len(entries.y)), np.diff(entries.indptr))
    keys = np.sort(rows * width + entries.columns)  # one sort of integers is many times as fast as one by two keys
    first = np.ones(len(keys), np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    rows, columns = np.divmod(keys[first], width)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(entries.y)))])
    return RowEntries(entries.y, indptr, columns, columns, np.ones(len(rows), np.float32))
