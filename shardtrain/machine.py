"""What of the machine this process can use: memory and processor cores, as far as the system tells."""

from __future__ import annotations

import os
from pathlib import Path


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
