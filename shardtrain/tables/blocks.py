"""The interface of all tables: blocks of feature rows with their labels, in the types that shards use.

A table is a frozen value that names its files, so that it can be sent to another process; files are opened when it is
read. It is cut into pieces, the tasks of a pass; each piece is read block by block, in bounded memory.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.errors import CorpusFormatError
from shardtrain.shards.layout import MAX_VOCABULARY
from shardtrain.tables.labels import RawLabels

BLOCK_BYTES = 16 << 20  # of features per block; a few times that is in memory while rows are ordered and written

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of features (`Csr`, float32 or token ids) and their labels."""

    x: Csr | Array
    labels: RawLabels


class Table(Protocol):
    """One file, or a pair of files, of features and labels.

    `kind` is "ngram" for sparse features, "dense" or "sequence"; `num_features` is 0 if only a scan shows it.
    """

    @property
    def path(self) -> Path:
        """The file of the features, as the user named it."""
        ...

    @property
    def kind(self) -> str:
        """Kind of the features."""
        ...

    @property
    def num_features(self) -> int:
        """Number of columns, or 0."""
        ...

    @property
    def units(self) -> str:
        """Unit of the ends of pieces."""
        ...

    @property
    def num_bytes(self) -> int:
        """Bytes of the features in shards, as far as the file declares them; 0 if only a scan shows it."""
        ...

    def pieces(self) -> list[tuple[int, int]]:
        """Cut the table into half-open ranges, in order."""
        ...

    def labels(self, start: int, stop: int) -> Iterator[RawLabels]:
        """Yield the labels of a piece."""
        ...

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Yield the features and labels of a piece."""
        ...


def needs_scan(table: Table) -> bool:
    """Return whether features must be read before rows can be written: for the highest token id, or the columns."""
    return table.kind == "sequence" or not table.num_features


def rows_per_block(row_bytes: int) -> int:
    """Return how many rows of this size fit a block; at least one."""
    return max(1, BLOCK_BYTES // max(row_bytes, 1))


def cut_rows(indptr: Array, max_rows: int) -> Iterator[tuple[int, int]]:
    """Cut sparse rows into ranges of about a block of values (of 8 bytes, with their columns) each."""
    start, rows = 0, len(indptr) - 1
    while start < rows:
        stop = int(np.searchsorted(indptr, int(indptr[start]) + BLOCK_BYTES // 8, side="right")) - 1
        stop = min(max(stop, start + 1), start + max_rows, rows)
        yield start, stop
        start = stop


def kind_of(dtype: np.dtype[Any], kind: str, where: str) -> str:
    """Return the kind of rows of numbers: floats are dense features, integers what the option `kind` says.

    Raises:
        CorpusFormatError: integers with `kind` "auto", or a kind that the numbers cannot have.
    """
    if kind == "sparse" or (kind == "tokens" and dtype.kind == "f"):
        raise CorpusFormatError(f"'{where}' has rows of {dtype}, which --kind {kind} does not fit")
    if kind == "auto" and dtype.kind != "f":
        raise CorpusFormatError(
            f"'{where}' holds integers; give --kind tokens if they are ids of words, --kind dense if they are features"
        )
    return "sequence" if kind == "tokens" else "dense"


def as_features(x: Array, kind: str, where: str) -> Array:
    """Convert dense features to float32, token ids to uint32.

    Raises:
        CorpusFormatError: a value is not finite, or an id is negative or too large.
    """
    if kind == "dense":
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(x, np.float32)
        check_finite(values, where)
        return values
    if x.size and (x.min() < 0 or x.max() >= MAX_VOCABULARY):
        raise CorpusFormatError(
            f"'{where}' has the token id {x.min() if x.min() < 0 else x.max()}; expected 0 to 2**32 - 1"
        )
    return np.ascontiguousarray(x, np.uint32)


def check_finite(values: Array, where: str) -> None:
    """Check that no feature is NaN or infinite.

    Raises:
        CorpusFormatError: at least one is.
    """
    if not np.isfinite(values).all():
        wrong = int(np.count_nonzero(~np.isfinite(values)))
        raise CorpusFormatError(
            f"'{where}' has features that are not finite 32-bit numbers ({wrong:,} in one block); fill in missing "
            "values first"
        )


def as_csr(data: Array, indices: Array, indptr: Array, num_features: int, where: str) -> Csr:
    """Convert sparse rows to the types of shards, with ascending columns; values of a repeated column are summed.

    Raises:
        CorpusFormatError: the arrays are not CSR rows, a column is out of range, or a value is not finite.
    """
    from scipy.sparse import csr_matrix

    rows = len(indptr) - 1
    lengths = np.diff(indptr)
    if indptr[0] != 0 or (lengths < 0).any() or indptr[-1] != len(data) or len(data) != len(indices):
        raise CorpusFormatError(f"'{where}' has row pointers that decrease, or do not match its {len(data):,} values")
    if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= num_features):
        wrong = int(indices.min()) if int(indices.min()) < 0 else int(indices.max())
        raise CorpusFormatError(f"'{where}' has the column {wrong:,}; expected [0, {num_features:,})")
    with np.errstate(over="ignore"):
        values = np.asarray(data, np.float32)
    check_finite(values, where)
    columns = np.asarray(indices, np.int32)
    if not ascending(columns, np.asarray(indptr)):
        matrix = csr_matrix((values.copy(), columns.copy(), indptr), shape=(rows, num_features))
        matrix.sum_duplicates()
        return Csr(matrix.data, matrix.indices.astype(np.int32), matrix.indptr.astype(np.int64), (rows, num_features))
    return Csr(values, columns, np.asarray(indptr, np.int64), (rows, num_features))


def ascending(columns: Array, indptr: Array) -> bool:
    """Return whether the columns of every row ascend strictly."""
    rising = np.ones(len(columns) + 1, np.bool_)
    rising[1:-1] = columns[1:] > columns[:-1]
    rising[indptr] = True
    return bool(rising.all())
