"""Memory and cores of the machine that this process can use, as far as the system tells; whether it keeps memory."""

from __future__ import annotations

import contextlib
import ctypes
import os
from pathlib import Path

_KEPT_BYTES = 192 << 20  # more than a task of a build takes for its arrays, or a training step for its gradients
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt


def cores() -> int:
    """Processor cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def machine_memory_bytes() -> int:
    """Memory of the whole machine."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def memory_bytes() -> int:
    """Memory this process can use: the machine's, or less where a control group limits it."""
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
    return [int(text)] if text.isdecimal() else []  # "max" is none


def keep_freed_memory() -> None:
    """Have this process keep what it frees for what it needs next, where its C library is glibc.

    Otherwise every large array is new memory, which the kernel clears page by page: a quarter of the time of counting,
    a tenth of that of a training step. It changes the whole process, so commands call it and no function that others
    call does.
    """
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _KEPT_BYTES // 4)


def give_back_freed_memory() -> None:
    """Give what this process has freed back to the system, where its C library is glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
