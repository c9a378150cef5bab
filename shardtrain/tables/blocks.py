"""What every kind of table gives: blocks of feature rows with their labels, in the types that shards keep.

A table is a frozen value that names its files, so that it can be handed to another process; it opens them when it is
read. Its pieces are what is worked on at once; each is read block by block, in bounded memory.
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
from shardtrain.tables.labels import RawLabels

BLOCK_BYTES = 16 << 20  # of features at once: a few times that is in memory while they are ordered and written

Array = npt.NDArray[Any]


@dataclass(frozen=True, eq=False)
class Block:
    """Rows of features, `Csr`, float32 or token ids, and their labels."""

    x: Csr | Array
    labels: RawLabels


class Table(Protocol):
    """One file, or a pair of files, of features and labels.

    Its `kind` is "ngram" for sparse features, "dense" or "sequence"; `num_features` is 0 where only reading all of it
    tells, and `scanned` whether reading tells something that is needed.
    """

    @property
    def path(self) -> Path:
        """The file with the features, as the user named it."""
        ...

    @property
    def kind(self) -> str:
        """Kind of the features."""
        ...

    @property
    def num_features(self) -> int:
        """Columns, or 0."""
        ...

    @property
    def scanned(self) -> bool:
        """Whether all of it is read before rows are written."""
        ...

    @property
    def units(self) -> str:
        """What the ends of pieces count."""
        ...

    def pieces(self) -> list[tuple[int, int]]:
        """Half-open ranges, in order, that are worked on one by one."""
        ...

    def labels(self, start: int, stop: int) -> Iterator[RawLabels]:
        """The labels of a piece."""
        ...

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Features and labels of a piece."""
        ...


def kind_of(dtype: np.dtype[Any], kind: str, where: str) -> str:
    """What rows of numbers are: fractions are dense features, whole numbers what `kind` says.

    Raises:
        CorpusFormatError: whole numbers and no word on them, or a kind that they cannot be.
    """
    if kind == "sparse" or (kind == "tokens" and dtype.kind == "f"):
        raise CorpusFormatError(f"'{where}' has rows of {dtype}, so it cannot be --kind {kind}")
    if kind == "auto" and dtype.kind != "f":
        raise CorpusFormatError(
            f"'{where}' holds whole numbers; say what they are: --kind tokens for ids of words, --kind dense for "
            "features"
        )
    return "sequence" if kind == "tokens" else "dense"


def features_kind(x: Array, kind: str, where: str) -> Array:
    """Dense features as float32, token ids as uint32.

    Raises:
        CorpusFormatError: values that are not finite, or ids that are negative.
    """
    if kind == "dense":
        with np.errstate(over="ignore"):
            values = np.ascontiguousarray(x, np.float32)
        check_finite(values, where)
        return values
    if x.size and (x.min() < 0 or x.max() >= 1 << 32):
        raise CorpusFormatError(
            f"'{where}' has the token id {x.min() if x.min() < 0 else x.max()}; ids are from 0 to 2**32 - 1"
        )
    return np.ascontiguousarray(x, np.uint32)


def check_finite(values: Array, where: str) -> None:
    """Refuse features that no model can be trained on.

    Raises:
        CorpusFormatError: there is a NaN or an infinity.
    """
    if not np.isfinite(values).all():
        wrong = int(np.count_nonzero(~np.isfinite(values)))
        raise CorpusFormatError(
            f"'{where}' has features that are no finite 32-bit numbers ({wrong:,} in one block); fill in missing "
            "values first"
        )


def tidy(data: Array, indices: Array, indptr: Array, num_features: int, where: str) -> Csr:
    """Sparse rows in the types of shards, columns ascending, repeated ones summed.

    Raises:
        CorpusFormatError: they are no CSR rows, or have columns outside the range, or values that are not finite.
    """
    from scipy.sparse import csr_matrix

    rows = len(indptr) - 1
    lengths = np.diff(indptr)
    if indptr[0] != 0 or (lengths < 0).any() or indptr[-1] != len(data) or len(data) != len(indices):
        raise CorpusFormatError(f"'{where}' has row pointers that fall, or do not fit its {len(data):,} values")
    if len(indices) and (int(indices.min()) < 0 or int(indices.max()) >= num_features):
        wrong = int(indices.min()) if int(indices.min()) < 0 else int(indices.max())
        raise CorpusFormatError(f"'{where}' has the column {wrong:,}; it has columns [0, {num_features:,})")
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
    """Whether the columns of every row ascend, none twice."""
    rising = np.ones(len(columns) + 1, np.bool_)
    rising[1:-1] = columns[1:] > columns[:-1]
    rising[indptr] = True
    return bool(rising.all())
