"""Explains the death of a process whose mapped file was cut short.

Touching a mapped page behind the end of its file (or one that the disk cannot deliver) raises SIGBUS in the middle of
an instruction: no Python signal handler runs, and the process would end without a word. A C-level handler names the
file and ends the process with exit code 1. It runs Python in the handler, which is sound here because the fault lies in
a read of mapped data, never inside the interpreter or its allocator; for any other SIGBUS the handler before it is put
back.
"""

from __future__ import annotations

import ctypes
import itertools
import mmap
import os
import signal
import threading
import weakref
from pathlib import Path
from typing import Any

_watched: dict[int, tuple[Path, int]] = {}  # path and size when it was mapped, by number
_numbers = itertools.count()
_installed: list[Any] = []  # the handler, libc's `signal` and the handler before; the first must never be collected
_lock = threading.Lock()


def watch(mapped: mmap.mmap, path: Path) -> None:
    """Explain a SIGBUS that comes from this mapping of the whole file `path`, as long as it lives."""
    number = next(_numbers)
    _watched[number] = path.absolute(), len(mapped)
    weakref.finalize(mapped, _watched.pop, number).atexit = False
    with _lock:
        if _installed or not hasattr(signal, "SIGBUS"):
            return
        install = ctypes.CDLL(None).signal
        install.restype, install.argtypes = ctypes.c_void_p, [ctypes.c_int, ctypes.c_void_p]
        handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(_explain)
        _installed.extend([handler, install])
        _installed.append(install(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p)))


def _explain(number: int) -> None:
    """Write which file shrank and end the process; put the handler before this one back if none did."""
    for path, size in list(_watched.values()):
        try:
            found = os.stat(path).st_size
        except OSError:
            continue
        if found < size:
            os.write(
                2,
                f"error: shard '{path}' was cut short while it was mapped: it had {size:,} bytes and has {found:,} "
                "now. Restore the file from a copy or rebuild the shards, and find out what wrote to it: shards are "
                "write-once\n".encode(),
            )
            os._exit(1)
    _, install, before = _installed
    install(number, before)
