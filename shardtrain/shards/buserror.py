"""Report which mapped file was truncated when the kernel raises SIGBUS, instead of dying without a message.

Touching a mapped page behind the end of its file (or one that the disk cannot deliver) raises SIGBUS within an
instruction, so Python signal handlers never run. A C-level handler names the file and exits with code 1. It runs Python
code, which is sound because the fault is in a read of mapped data, never inside the interpreter or its allocator; for
any other SIGBUS the previous handler is restored.
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

from shardtrain.runtime.terminal import tell_now

_watched: dict[int, tuple[Path, int]] = {}  # by number: path, and size when it was mapped
_numbers = itertools.count()
_installed: list[Any] = []  # handler, libc's `signal` and previous handler; the first must never be collected
_lock, _explaining = threading.Lock(), threading.Lock()


def watch(mapped: mmap.mmap, path: Path) -> None:
    """Report a SIGBUS that comes from this mapping of the whole file `path`, until the mapping is collected."""
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
    """Write which file was truncated and exit; restore the previous handler if none was.

    Where several threads read the file, one writes it, and the others wait for the end of the process.
    """
    with _explaining:
        _exit_if_truncated()
    _, install, before = _installed
    install(number, before)


def _exit_if_truncated() -> None:
    for path, size in list(_watched.values()):
        try:
            found = os.stat(path).st_size
        except OSError:
            continue
        if found < size:
            tell_now(
                f"error: shard '{path}' was truncated while it was mapped: it had {size:,} bytes and now has "
                f"{found:,}. Restore the file from a copy or rebuild the shards, and find out what wrote to it: shards "
                "are write-once"
            )
            os._exit(1)
