"""Gather rows from several arrays into one buffer with compiled kernels that run without the GIL.

A batch of a shuffled window has rows from many positions in several mapped files. numpy and scipy gather from one
array, so the window would first have to be concatenated; these kernels take the addresses of all arrays and copy each
row once. They prefetch rows into the processor's cache, which makes gathering sparse rows about three times as fast.
The price is raw addresses: rows and row pointers are checked here before use, and the arrays must be kept alive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import carray

from shardtrain.arrays.buffers import data_address
from shardtrain.arrays.csr import Csr
from shardtrain.errors import CorruptShardError
from shardtrain.runtime.intrinsics import copy, pointer, prefetch
from shardtrain.runtime.kernels import kernel

Array = npt.NDArray[Any]
Positions = npt.NDArray[np.int64]
Allocate = Callable[[int, Any], Array]  # number of elements and their type -> a flat array with undefined content

_PREFETCH_ROWS = 12  # rows ahead of the copy; 8 to 16 are equally fast
_LINE = 64  # bytes of a cache line
_CELL = 256  # rows per entry of the index from rows to sources


@kernel
def _locate_rows(starts, cells, order, sources, rows):  # type: ignore[no-untyped-def]
    """Find the source, and the row within it, of each row in `order`; False if a row is out of range.

    Rows are numbered through the concatenated sources. `cells` holds the source of every `_CELL`-th row; sources are
    usually longer than that, so the search rarely takes a step.
    """
    # invariant: entries [0, i) of sources and rows are filled, with 0 <= rows < length of their source
    for i in range(len(order)):
        row = order[i]
        if row < 0 or row >= starts[-1]:
            return False
        source = cells[row // _CELL]
        while row >= starts[source + 1]:
            source += 1
        sources[i] = source
        rows[i] = row - starts[source]
    return True


@kernel
def _copy_rows(bases, sources, rows, row_bytes, out):  # type: ignore[no-untyped-def]
    """Copy rows of `row_bytes` bytes each from their sources, which start at the addresses `bases`, to `out`."""
    count, target = len(rows), out.ctypes.data
    # invariant: rows [0, i) are in out, rows up to i + _PREFETCH_ROWS are on their way to the cache
    for i in range(count):
        if i + _PREFETCH_ROWS < count:
            coming = bases[sources[i + _PREFETCH_ROWS]] + rows[i + _PREFETCH_ROWS] * row_bytes
            for line in range(0, row_bytes, _LINE):
                prefetch(coming + line)
        copy(target + i * row_bytes, bases[sources[i]] + rows[i] * row_bytes, row_bytes)


@kernel
def _read_pointers(bases, limits, sources, rows, like, firsts, indptr):  # type: ignore[no-untyped-def]
    """Read the first entry of each row into `firsts` and fill the new row pointers.

    Returns:
        The index of the first row whose row pointers are invalid, or -1.
    """
    count = len(rows)
    # invariant: the entries of rows [0, i) are in range and number indptr[i]
    for i in range(count):
        if i + _PREFETCH_ROWS < count:
            prefetch(bases[sources[i + _PREFETCH_ROWS]] + rows[i + _PREFETCH_ROWS] * like.itemsize)
        pair = carray(pointer(bases[sources[i]] + rows[i] * like.itemsize), (2,), like.dtype)
        first, last = np.int64(pair[0]), np.int64(pair[1])
        if first < 0 or last < first or last > limits[sources[i]]:
            return i
        firsts[i] = first
        indptr[i + 1] = indptr[i] + (last - first)
    return -1


@kernel
def _copy_entries(bases, sources, firsts, indptr, itemsize, out):  # type: ignore[no-untyped-def]
    """Copy the entries of each row, from `firsts` in its source to `indptr` in `out`; `_read_pointers` checked both."""
    count, target = len(firsts), out.ctypes.data
    # invariant: out is filled up to entry indptr[i]
    for i in range(count):
        if i + _PREFETCH_ROWS < count:
            coming = bases[sources[i + _PREFETCH_ROWS]] + firsts[i + _PREFETCH_ROWS] * itemsize
            for line in range(0, (indptr[i + _PREFETCH_ROWS + 1] - indptr[i + _PREFETCH_ROWS]) * itemsize, _LINE):
                prefetch(coming + line)
        size = (indptr[i + 1] - indptr[i]) * itemsize
        copy(target + indptr[i] * itemsize, bases[sources[i]] + firsts[i] * itemsize, size)


class Gatherer:
    """Gather rows of several pieces, numbered through their concatenation; created once per window.

    Args:
        pieces: features, all arrays of shape (rows, ...) or all `Csr` with equal columns, and labels (rows,) of each
            piece. References are kept.
    """

    def __init__(self, pieces: Sequence[tuple[Csr | Array, Array]]) -> None:
        self._starts = np.cumsum([0] + [len(y) for _, y in pieces])
        self._cells = np.searchsorted(self._starts, np.arange(0, self._starts[-1], _CELL), side="right") - 1
        sparse = [x for x, _ in pieces if isinstance(x, Csr)]
        self._columns = sparse[0].shape[1] if sparse else 0
        self._limits = np.array([len(each.indices) for each in sparse])
        parts = {"y": [y for _, y in pieces]}
        if sparse:
            parts |= {name: [getattr(each, name) for each in sparse] for name in ("indptr", "data", "indices")}
        else:
            parts["x"] = [x for x, _ in pieces if not isinstance(x, Csr)]
        self._parts = {name: _same_type(arrays) for name, arrays in parts.items()}
        self._bases = {name: np.array([data_address(each) for each in part]) for name, part in self._parts.items()}

    def take(self, order: npt.NDArray[np.int64], allocate: Allocate) -> tuple[Csr | Array, Array]:
        """Copy the rows `order`, in that order, to buffers of `allocate`; `indptr` of sparse rows is int64.

        Raises:
            IndexError: a row is out of range.
            CorruptShardError: row pointers decrease, or point outside the entries.
        """
        sources, rows = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        if not _locate_rows(self._starts, self._cells, order, sources, rows):
            raise IndexError(f"a row to gather is outside [0, {self._starts[-1]:,})")
        take = self._take_dense if "x" in self._parts else self._take_sparse
        return take("x", sources, rows, allocate), self._take_dense("y", sources, rows, allocate)

    def _take_dense(self, name: str, sources: Positions, rows: Positions, allocate: Allocate) -> Array:
        like = self._parts[name][0]
        shape = (len(rows), *like.shape[1:])
        out = allocate(math.prod(shape), like.dtype)
        if out.size:
            _copy_rows(self._bases[name], sources, rows, out.nbytes // len(rows), out.view(np.uint8))
        return out.reshape(shape)

    def _take_sparse(self, _: str, sources: Positions, rows: Positions, allocate: Allocate) -> Csr:
        firsts, indptr = np.empty(len(rows), np.int64), allocate(len(rows) + 1, np.int64)
        indptr[0] = 0
        like = self._parts["indptr"][0][:0]
        wrong = _read_pointers(self._bases["indptr"], self._limits, sources, rows, like, firsts, indptr)
        if wrong >= 0:
            raise CorruptShardError(
                f"row pointers decrease or point outside the entries at row {rows[wrong]:,} of piece {sources[wrong]} "
                "of a window; check the shards with `python -m shardtrain verify` and rebuild them"
            )
        arrays = {}
        for name in ("data", "indices"):
            out = arrays[name] = allocate(int(indptr[-1]), self._parts[name][0].dtype)
            _copy_entries(self._bases[name], sources, firsts, indptr, out.itemsize, out.view(np.uint8))
        return Csr(arrays["data"], arrays["indices"], indptr, (len(rows), self._columns))


def _same_type(arrays: Sequence[Array]) -> list[Array]:
    """Convert arrays to their common type, contiguous; arrays that already are that are not copied."""
    dtype = np.result_type(*{array.dtype for array in arrays})
    return [np.ascontiguousarray(array, dtype) for array in arrays]
