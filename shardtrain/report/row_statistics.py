"""Compute row lengths and document frequencies of a split in one pass.

Rows are read in batches, as in training, so memory does not depend on the number of rows: one counter per feature and
one per row length, beside the prefetched batches.
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

MAX_FEATURES = 1 << 22  # more columns are not counted: one counter for each of these takes 32 MiB
_ENTRIES_AT_ONCE = 1 << 20
_ROWS_AT_ONCE = 4096

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class RowEntries:
    """The non-zero entries of a batch of rows, in CSR layout.

    Attributes:
        y: class indices, (rows,).
        indptr: row r has the entries [indptr[r], indptr[r + 1]), (rows + 1,).
        columns: feature of each entry: the column, or for sequences the token id.
        positions: position of each entry in its row: the column, or for sequences the position of the token.
        values: float32; for sequences the token ids.
    """

    y: Labels
    indptr: npt.NDArray[np.int64]
    columns: npt.NDArray[Any]
    positions: npt.NDArray[Any]
    values: npt.NDArray[Any]


@dataclass(frozen=True, kw_only=True, eq=False)
class SplitStatistics:
    """Statistics of a split.

    Attributes:
        rows: number of rows.
        lengths: entry n is the number of rows with n non-zero features (or token ids); the last is not 0.
        occurrences: number of rows in which each feature occurs, (num_features or vocabulary_size,); None for more
            than `MAX_FEATURES` features.
    """

    rows: int
    lengths: Counts
    occurrences: Counts | None

    @property
    def empty(self) -> int:
        """Number of rows without any feature."""
        return int(self.lengths[0])

    @property
    def mean(self) -> float:
        """Mean number of features per row."""
        return float(self.lengths @ np.arange(len(self.lengths))) / self.rows


def compute_statistics(split: Split, num_columns: int, visit: Callable[[RowEntries], None]) -> SplitStatistics:
    """Compute the statistics of a split in one pass.

    Args:
        split: the split.
        num_columns: exclusive upper bound of columns (or token ids).
        visit: called with each batch of rows in order, for further computations in the same pass.
    """
    occurrences = np.zeros(num_columns, np.int64) if num_columns <= MAX_FEATURES else None
    lengths = np.zeros(1, np.int64)
    for entries in read_entries(split):
        found = np.bincount(np.diff(entries.indptr), minlength=len(lengths))
        found[: len(lengths)] += lengths
        lengths = found
        if occurrences is not None:
            np.add.at(occurrences, drop_repeated(entries, split.kind).columns, 1)
        visit(entries)
    return SplitStatistics(rows=split.num_examples, lengths=lengths, occurrences=occurrences)


def read_entries(split: Split) -> Iterator[RowEntries]:
    """Read the rows of a split in order, in batches of about a million entries."""
    per_row = split.entry.nonzeros // split.num_examples if split.kind == "ngram" else split.num_features
    rows = min(max(_ENTRIES_AT_ONCE // max(per_row, 1), 1), _ROWS_AT_ONCE)
    for x, y in split.batches(rows, prefetch=2):
        if isinstance(x, Csr):
            nonzero = np.flatnonzero(x.data != 0) if bool((x.data == 0).any()) else slice(None)
            indptr = x.indptr.astype(np.int64)
            if not isinstance(nonzero, slice):
                indptr = np.searchsorted(nonzero, indptr)
            yield RowEntries(y, indptr, x.indices[nonzero], x.indices[nonzero], x.data[nonzero])
            continue
        row, position = np.nonzero(x)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(y)))])
        values = x[row, position]
        yield RowEntries(y, indptr, values if split.kind == "sequence" else position, position, values)


def drop_repeated(entries: RowEntries, kind: str) -> RowEntries:
    """Drop repeated features of each row; for sequences each distinct token id is kept with the value 1."""
    if kind != "sequence":
        return entries
    if not len(entries.columns):
        return entries
    width = int(entries.columns.max()) + 1
    rows = np.repeat(np.arange(len(entries.y)), np.diff(entries.indptr))
    keys = np.sort(rows * width + entries.columns)  # one sort of integers is many times faster than a sort by two keys
    first = np.ones(len(keys), np.bool_)
    first[1:] = keys[1:] != keys[:-1]
    rows, columns = np.divmod(keys[first], width)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=len(entries.y)))])
    return RowEntries(entries.y, indptr, columns, columns, np.ones(len(rows), np.float32))
