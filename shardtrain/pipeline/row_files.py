"""Write and read row files: feature rows, classes, ordinals and keys of documents, in ascending order of their keys."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.scratch import Pieces, SpilledArrays, open_spilled, spill
from shardtrain.vectorize.fitted import Rows

_MADE_BYTES = 8 << 20  # of dense rows that are made at a time


@dataclass(frozen=True, eq=False)
class MadeRows:
    """Dense rows that are made when they are written: many short documents have rows as long as the longest.

    Attributes:
        make: returns the rows of the documents with some indices, (rows, width).
        width: of a row.
        dtype: of the values.
    """

    make: Callable[[npt.NDArray[np.int64]], Any]
    width: int
    dtype: np.dtype[Any]

    def ordered(self, order: npt.NDArray[np.int64]) -> Pieces:
        """Return the rows in an order."""
        step = max(1, _MADE_BYTES // (self.width * self.dtype.itemsize))
        pieces = (self.make(order[start : start + step]) for start in range(0, len(order), step))
        return Pieces(self.dtype, (len(order), self.width), pieces)


def spill_rows(
    path: Path,
    x: Rows | MadeRows,
    y: npt.NDArray[np.int64],
    documents: npt.NDArray[np.int64],
    keys: npt.NDArray[np.uint64],
) -> None:
    """Write a unit's rows in ascending order of their keys."""
    order = np.argsort(keys)
    arrays: dict[str, npt.NDArray[Any] | Pieces] = {"keys": keys[order], "y": y[order], "documents": documents[order]}
    if isinstance(x, Csr):
        rows = x.take(order)
        arrays |= {"data": rows.data, "indices": rows.indices, "indptr": rows.indptr.astype(np.int64)}
        spill(path, arrays, {"num_features": x.shape[1]})
    else:
        spill(path, arrays | {"x": x.ordered(order) if isinstance(x, MadeRows) else x[order]})


def rows_between(
    path: Path, first: int, last: int
) -> tuple[Rows, npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any]]:
    """Read the rows with keys in [first, last) from a file of `spill_rows`: copies of x, y, documents and keys.

    Views would keep a file descriptor open per unit.
    """
    rows = open_spilled(path)
    start, stop = key_range(rows, first, last)
    y, documents, keys = (rows[name][start:stop].copy() for name in ("y", "documents", "keys"))
    if "x" in rows:
        return rows["x"][start:stop].copy(), y, documents, keys
    shape = (len(rows["keys"]), rows.facts["num_features"])
    x = Csr(rows["data"], rows["indices"], rows["indptr"], shape).rows(start, stop)
    return Csr(x.data.copy(), x.indices.copy(), x.indptr.copy(), x.shape), y, documents, keys


def key_range(rows: SpilledArrays, first: int, last: int) -> tuple[int, int]:
    """Return the range [start, stop) of rows whose keys are in [first, last); `last` may be 2**64."""
    start = int(np.searchsorted(rows["keys"], np.uint64(first)))
    stop = len(rows["keys"]) if last >= 1 << 64 else int(np.searchsorted(rows["keys"], np.uint64(last)))
    return start, stop
