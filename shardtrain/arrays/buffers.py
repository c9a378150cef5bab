"""Memory for batches that is used again as soon as nobody holds what was in it.

A fresh buffer of some megabytes costs a page fault for every 4 KiB, about as much as filling it. A batch is a view of a
buffer and counts as a reference to it; a buffer without references is free. So whoever keeps batches keeps their
values, and whoever drops them, as a training loop does, makes the next gather cheaper.
"""

from __future__ import annotations

import mmap
import sys
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

_Kept = tuple[npt.NDArray[np.uint8], int]  # a buffer, and where its first page begins
_MOST = 48  # buffers that are kept: those of all batches under way, and some more


class Buffers:
    """A pool, for any number of threads; what it hands out begins at a page's start.

    Args:
        most: buffers that are kept.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._kept = 0
        self._pools: dict[int, list[_Kept]] = {}  # by their size, which is one of few
        self._lock = threading.Lock()

    def allocate(self, count: int, dtype: Any) -> npt.NDArray[Any]:
        """A flat array of `count` elements with undefined content that nobody else holds."""
        kind = np.dtype(dtype)
        needed = count * kind.itemsize
        with self._lock:
            buffer, start = self._take(needed + mmap.PAGESIZE)
        return buffer[start : start + needed].view(kind)

    def _take(self, needed: int) -> _Kept:
        step = 1 << (needed.bit_length() - 4)  # sparse rows differ in length from batch to batch
        size = -(-needed // step) * step
        pool = self._pools.setdefault(size, [])
        place = _first_idle(pool)
        if place is not None:
            return pool[place]
        buffer = np.empty(size, np.uint8)
        made = buffer, -address(buffer) % mmap.PAGESIZE
        if self._kept < self._most or self._let_go():
            pool.append(made)
            self._kept += 1
        return made

    def _let_go(self) -> bool:
        """Keep one buffer less, of the smallest that nobody holds; whether there is one."""
        for size in sorted(self._pools):
            place = _first_idle(self._pools[size])
            if place is not None:
                del self._pools[size][place]
                self._kept -= 1
                return True
        return False

    def clear(self) -> None:
        """Keep none for later."""
        with self._lock:
            self._pools, self._kept = {}, 0


def address(array: npt.NDArray[Any]) -> int:
    """Where the first element of an array lies."""
    return int(array.__array_interface__["data"][0])  # array.ctypes makes an object of some size


def _first_idle(pool: list[_Kept]) -> int | None:
    for i in range(len(pool)):
        if sys.getrefcount(pool[i][0]) == _IDLE:
            return i
    return None


# Of an array that only a tuple holds: it differs between Pythons.
_IDLE = next(sys.getrefcount(pool[0][0]) for pool in [[(np.empty(0, np.uint8), 0)]])
