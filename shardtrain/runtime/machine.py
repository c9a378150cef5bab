"""Detect the memory and cores that this process can use, and tune whether the C library keeps freed memory.

Control groups, processor affinity and glibc's tuning exist on Linux only; elsewhere the machine's figures are returned
and nothing is tuned. `runtime.system` has the other differences between operating systems.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
from pathlib import Path

_KEPT_BYTES = 192 << 20  # more than the arrays of a build task or the gradients of a training step take
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def cores() -> int:
    """Return how many processor cores this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory_bytes() -> int:
    """Return the physical memory of the machine in bytes."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_bytes() -> int:
    """Return the memory in bytes that this process can use: the machine's, or less if a control group limits it."""
    limits = [machine_memory_bytes()]
    try:
        groups = Path("/proc/self/cgroup").read_text().splitlines()
    except OSError:
        return limits[0]
    for line in groups:
        _, controllers, group = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        root = Path("/sys/fs/cgroup", controllers)
        name = "memory.limit_in_bytes" if controllers else "memory.max"
        inner = root / group.lstrip("/")
        for folder in (inner, *inner.parents):
            if folder.is_relative_to(root):
                limits += _limit(folder / name)
    return min(limits)


def _limit(path: Path) -> list[int]:
    try:
        text = path.read_text().strip()
    except OSError:
        return []
    return [int(text)] if text.isdecimal() else []  # "max": unlimited


def peak_memory_bytes() -> int:
    """Return the largest resident memory of this process so far, mapped pages included."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for later allocations of this process; no effect with other C libraries.

    Otherwise every large array is new memory that the kernel clears page by page: a quarter of the time of counting, a
    tenth of a training step. It affects the whole process, so only commands call it, never library functions.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES // 4)


def give_back_freed_memory() -> None:
    """Return freed memory to the system; no effect unless the C library is glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
