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

_MOST = 48  # buffers that are kept: those of all batches under way, and some more


class Buffers:
    """A pool, for any number of threads; what it hands out begins at a page's start.

    Args:
        most: buffers that are kept.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self._pool: list[npt.NDArray[np.uint8]] = []
        self._lock = threading.Lock()

    def allocate(self, count: int, dtype: Any) -> npt.NDArray[Any]:
        """A flat array of `count` elements with undefined content that nobody else holds."""
        kind = np.dtype(dtype)
        needed = count * kind.itemsize
        with self._lock:
            buffer = self._take(needed + mmap.PAGESIZE)
        start = -buffer.ctypes.data % mmap.PAGESIZE
        return buffer[start : start + needed].view(kind)

    def _take(self, needed: int) -> npt.NDArray[np.uint8]:
        idle = [i for i, references in enumerate(_references(self._pool)) if references == _IDLE]
        fitting = [i for i in idle if len(self._pool[i]) >= needed]
        if fitting:
            return self._pool[min(fitting, key=lambda i: len(self._pool[i]))]
        buffer = np.empty(needed + needed // 8, np.uint8)  # sparse rows differ in length from batch to batch
        if idle and len(self._pool) >= self._most:
            del self._pool[min(idle, key=lambda i: len(self._pool[i]))]
        if len(self._pool) < self._most:
            self._pool.append(buffer)
        return buffer

    def clear(self) -> None:
        """Keep none for later."""
        with self._lock:
            self._pool = []


def _references(arrays: list[npt.NDArray[np.uint8]]) -> list[int]:
    return [sys.getrefcount(arrays[i]) for i in range(len(arrays))]


_IDLE = _references([np.empty(0, np.uint8)])[0]  # of an array that only a list holds: it differs between Pythons
