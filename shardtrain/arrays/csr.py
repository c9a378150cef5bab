"""Sparse rows as three arrays: what n-gram features are on disk, in a batch and on their way into a model.

The names and the meaning are scipy's `csr_matrix`. It is a plain value over numpy arrays rather than a scipy
matrix, because a slice of the mapped file must stay a view: scipy's constructors check, convert and copy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt


@dataclass(eq=False, slots=True)
class Csr:
    """Rows of sparse features; row r holds the entries [indptr[r], indptr[r + 1]), columns ascending.

    Attributes:
        data: values, (nnz,) float32.
        indices: columns, (nnz,) int32.
        indptr: (rows + 1,) integers, starting at 0.
        shape: (rows, num_features).
    """

    data: npt.NDArray[np.float32]
    indices: npt.NDArray[np.int32]
    indptr: npt.NDArray[np.integer[Any]]
    shape: tuple[int, int]

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> Csr:
        """Rows [start, stop); `data` and `indices` are views, `indptr` is rebased to 0."""
        pointers = self.indptr[start : stop + 1]
        first, last = int(pointers[0]), int(pointers[-1])
        indptr = pointers if first == 0 else pointers - first
        return Csr(self.data[first:last], self.indices[first:last], indptr, (stop - start, self.shape[1]))

    def take(self, rows: npt.NDArray[np.int64]) -> Csr:
        """Return the given rows in the given order, copied by scipy's compiled gather."""
        taken = self.to_scipy()[rows]
        return Csr(taken.data, taken.indices, taken.indptr, (len(rows), self.shape[1]))

    def to_scipy(self) -> Any:
        """Return a `scipy.sparse.csr_matrix` over the same arrays (no copy of `data` and `indices`)."""
        from scipy.sparse import csr_matrix

        nnz = len(self.indices)
        if nnz > np.iinfo(np.int32).max:  # scipy needs one integer type for both
            return csr_matrix((self.data, self.indices.astype(np.int64), self.indptr), shape=self.shape)
        return csr_matrix((self.data, self.indices, self.indptr.astype(np.int32, copy=False)), shape=self.shape)

    def toarray(self) -> npt.NDArray[np.float32]:
        """Return the rows as a dense array, (rows, num_features)."""
        dense = np.zeros(self.shape, np.float32)
        dense[np.repeat(np.arange(len(self)), np.diff(self.indptr)), self.indices] = self.data
        return dense


def concatenate(parts: Sequence[Csr]) -> Csr:
    """Rows of all parts, in order; the parts have the same number of columns."""
    if len(parts) == 1:
        return parts[0]
    offsets = np.cumsum([0] + [len(part.data) for part in parts])
    indptr = np.concatenate([np.zeros(1, np.int64)] + [part.indptr[1:] + offsets[i] for i, part in enumerate(parts)])
    return Csr(
        np.concatenate([part.data for part in parts]),
        np.concatenate([part.indices for part in parts]),
        indptr,
        (sum(len(part) for part in parts), parts[0].shape[1]),
    )
