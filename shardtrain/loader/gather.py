"""Copies rows that lie anywhere in several arrays into one buffer, in one compiled step without the GIL.

A batch of a shuffled window has rows of many places in several mapped files. numpy and scipy gather from one array, so
the window would have to be joined first, a second copy of everything; these kernels take the addresses of all arrays
and copy each row once. They ask the processor for rows some steps ahead, which makes gathering sparse rows about
three times as fast. The price is raw addresses: rows and row pointers are checked here, before they are used, and
the caller keeps the arrays alive.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import carray, types
from numba.core import cgutils
from numba.extending import intrinsic

from shardtrain.arrays.buffers import data_address
from shardtrain.arrays.csr import Csr
from shardtrain.errors import CorruptShardError
from shardtrain.runtime.kernels import kernel

Array = npt.NDArray[Any]
Places = npt.NDArray[np.int64]
Allocate = Callable[[int, Any], Array]  # number of elements and their type -> a flat array with undefined content

_AHEAD = 12  # rows; 8 to 16 do equally well
_LINE = 64  # bytes of a cache line
_CELL = 256  # rows


@intrinsic
def _pointer(typing_context: Any, address: Any) -> Any:
    """A pointer to an address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))

    return types.voidptr(types.intp), generate


@intrinsic
def _prefetch(typing_context: Any, address: Any) -> Any:
    """Ask the processor to bring the cache line at an address; it never fails, whatever the address."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointer = builder.inttoptr(arguments[0], context.get_value_type(types.voidptr))
        word = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch", [pointer.type], ir.FunctionType(ir.VoidType(), [pointer.type, word, word, word])
        )
        builder.call(function, [pointer, word(0), word(3), word(1)])  # to read, keep in all caches, data
        return context.get_dummy_value()

    return types.void(types.intp), generate


@intrinsic
def _copy(typing_context: Any, target: Any, source: Any, count: Any) -> Any:
    """memcpy of `count` bytes between addresses."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        pointers = [builder.inttoptr(each, context.get_value_type(types.voidptr)) for each in arguments[:2]]
        cgutils.raw_memcpy(builder, *pointers, arguments[2], 1)
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


@kernel
def _place(starts, cells, order, sources, rows):  # type: ignore[no-untyped-def]
    """Source and row in it of each of `order`, rows of the sources laid end to end; False if one lies in none.

    `cells` holds the source of every `_CELL`-th row; sources are longer as a rule, so the search ends at once.
    """
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
    count, target = len(rows), out.ctypes.data
    for i in range(count):
        if i + _AHEAD < count:
            coming = bases[sources[i + _AHEAD]] + rows[i + _AHEAD] * row_bytes
            for line in range(0, row_bytes, _LINE):
                _prefetch(coming + line)
        _copy(target + i * row_bytes, bases[sources[i]] + rows[i] * row_bytes, row_bytes)


@kernel
def _read_pointers(bases, limits, sources, rows, like, firsts, indptr):  # type: ignore[no-untyped-def]
    """First entry of each row and where it goes; the number of the first row whose pointers are impossible, or -1."""
    count = len(rows)
    for i in range(count):
        if i + _AHEAD < count:
            _prefetch(bases[sources[i + _AHEAD]] + rows[i + _AHEAD] * like.itemsize)
        pair = carray(_pointer(bases[sources[i]] + rows[i] * like.itemsize), (2,), like.dtype)
        first, last = np.int64(pair[0]), np.int64(pair[1])
        if first < 0 or last < first or last > limits[sources[i]]:
            return i
        firsts[i] = first
        indptr[i + 1] = indptr[i] + (last - first)
    return -1


@kernel
def _copy_entries(bases, sources, firsts, indptr, itemsize, out):  # type: ignore[no-untyped-def]
    count, target = len(firsts), out.ctypes.data
    for i in range(count):
        if i + _AHEAD < count:
            coming = bases[sources[i + _AHEAD]] + firsts[i + _AHEAD] * itemsize
            for line in range(0, (indptr[i + _AHEAD + 1] - indptr[i + _AHEAD]) * itemsize, _LINE):
                _prefetch(coming + line)
        size = (indptr[i + 1] - indptr[i]) * itemsize
        _copy(target + indptr[i] * itemsize, bases[sources[i]] + firsts[i] * itemsize, size)


class Gatherer:
    """Rows of several pieces of one kind, laid end to end; made once for a window.

    Args:
        pieces: features, arrays of shape (rows, ...) or `Csr` of as many columns each, with their labels (rows,). They
            are kept alive.
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
        """The rows `order` in that order, in buffers that `allocate` makes; `indptr` of sparse rows is int64.

        Raises:
            IndexError: there is no such row.
            CorruptShardError: row pointers fall, or reach outside the entries.
        """
        sources, rows = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        if not _place(self._starts, self._cells, order, sources, rows):
            raise IndexError(f"an order reaches outside of {self._starts[-1]:,} rows")
        take = self._take_dense if "x" in self._parts else self._take_sparse
        return take("x", sources, rows, allocate), self._take_dense("y", sources, rows, allocate)

    def _take_dense(self, name: str, sources: Places, rows: Places, allocate: Allocate) -> Array:
        like = self._parts[name][0]
        shape = (len(rows), *like.shape[1:])
        out = allocate(math.prod(shape), like.dtype)
        if out.size:
            _copy_rows(self._bases[name], sources, rows, out.nbytes // len(rows), out.view(np.uint8))
        return out.reshape(shape)

    def _take_sparse(self, _: str, sources: Places, rows: Places, allocate: Allocate) -> Csr:
        firsts, indptr = np.empty(len(rows), np.int64), allocate(len(rows) + 1, np.int64)
        indptr[0] = 0
        like = self._parts["indptr"][0][:0]
        wrong = _read_pointers(self._bases["indptr"], self._limits, sources, rows, like, firsts, indptr)
        if wrong >= 0:
            raise CorruptShardError(
                f"row pointers fall or reach outside the entries at row {rows[wrong]:,} of piece {sources[wrong]} of a "
                "window; check the shards with `python -m shardtrain verify` and rebuild them"
            )
        arrays = {}
        for name in ("data", "indices"):
            out = arrays[name] = allocate(int(indptr[-1]), self._parts[name][0].dtype)
            _copy_entries(self._bases[name], sources, firsts, indptr, out.itemsize, out.view(np.uint8))
        return Csr(arrays["data"], arrays["indices"], indptr, (len(rows), self._columns))


def _same_type(arrays: Sequence[Array]) -> list[Array]:
    """The arrays in one type, contiguous; those that have the common type already are not copied."""
    dtype = np.result_type(*{array.dtype for array in arrays})
    return [np.ascontiguousarray(array, dtype) for array in arrays]
