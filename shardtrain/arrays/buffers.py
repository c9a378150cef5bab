"""A pool of buffers for batches; a buffer is reused as soon as no array refers to it.

A new buffer of several megabytes costs one page fault per 4 KiB, about as much as filling it. A batch is a view of a
buffer and counts as a reference to it; a buffer without references is free. So a batch keeps its values for as long as
it is referenced, and a loop that drops each batch after use allocates no new memory.
"""

from __future__ import annotations

import mmap
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

_Buffer = tuple[npt.NDArray[np.uint8], int]  # (bytes, offset of the first page boundary)
_MAX_BUFFERS = 48  # more than all batches that are prefetched or in use


class BufferPool:
    """A thread-safe pool of page-aligned buffers.

    Args:
        max_buffers: buffers kept for reuse; 0 allocates anew each time.
    """

    def __init__(self, max_buffers: int = _MAX_BUFFERS) -> None:
        self._max_buffers = max_buffers
        self._num_buffers = 0
        self._by_size: dict[int, list[_Buffer]] = {}  # sizes are rounded, so there are few
        self._lock = threading.Lock()

    def allocate(self, count: int, dtype: Any) -> npt.NDArray[Any]:
        """Return a flat array of `count` uninitialized elements that shares memory with no other array in use."""
        element = np.dtype(dtype)
        num_bytes = count * element.itemsize
        with self._lock:
            buffer, start = self._acquire(num_bytes + mmap.PAGESIZE)
        return buffer[start : start + num_bytes].view(element)

    def _acquire(self, num_bytes: int) -> _Buffer:
        # Rounded up by at most 1/8: batches of sparse rows differ in size, and still share buffers.
        step = 1 << (num_bytes.bit_length() - 4)
        size = -(-num_bytes // step) * step
        candidates = self._by_size.setdefault(size, [])
        index = _first_idle(candidates)
        if index is not None:
            return candidates[index]
        memory = np.empty(size, np.uint8)
        buffer = memory, -data_address(memory) % mmap.PAGESIZE
        if self._num_buffers < self._max_buffers or self._evict_one():
            candidates.append(buffer)
            self._num_buffers += 1
        return buffer

    def _evict_one(self) -> bool:
        """Drop the smallest idle buffer; return whether there was one."""
        for size in sorted(self._by_size):
            index = _first_idle(self._by_size[size])
            if index is not None:
                del self._by_size[size][index]
                self._num_buffers -= 1
                return True
        return False

    def clear(self) -> None:
        """Drop all buffers; arrays in use stay valid."""
        with self._lock:
            self._by_size, self._num_buffers = {}, 0


def data_address(array: npt.NDArray[Any]) -> int:
    """Return the memory address of an array's first element."""
    return int(array.__array_interface__["data"][0])  # cheaper than array.ctypes, which builds a larger object


def _first_idle(candidates: list[_Buffer]) -> int | None:
    for i in range(len(candidates)):
        if sys.getrefcount(candidates[i][0]) == _IDLE:
            return i
    return None


# The reference count of an array that is referenced by one tuple only; it depends on the Python version.
_IDLE = next(sys.getrefcount(pool[0][0]) for pool in [[(np.empty(0, np.uint8), 0)]])
