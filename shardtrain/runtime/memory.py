"""Measure the anonymous memory of a build and its worker processes, sampled from /proc.

Anonymous memory is what a process allocated; pages of mapped files belong to the page cache and can be dropped at any
time. Outside Linux the peak stays 0 and is recorded as unknown. Memory that the calling process held before the build,
such as a model in a notebook, is not counted.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

PROGRAM_BYTES = 160 << 20  # upper bound for a process that has only imported what a build needs
_INTERVAL_SECONDS = 0.05
MAX_POINTS = 200  # per curve: enough for a chart, and build.json stays small


class Curve:
    """A time series downsampled to at most `MAX_POINTS` points, however long it gets; maxima are kept.

    Attributes:
        points: for equal time spans, the second at which each starts and its largest value.
    """

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []
        self._samples_per_point = 1
        self._samples_in_last = 0

    def add(self, seconds: float, value: int) -> None:
        """Add a sample; samples must come at equal intervals."""
        if self._samples_in_last < self._samples_per_point and self.points:
            start, largest = self.points[-1]
            self.points[-1] = start, max(largest, value)
            self._samples_in_last += 1
            return
        if len(self.points) == MAX_POINTS:  # halve the resolution, also for later samples
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [(start, max(first, second)) for (start, first), (_, second) in pairs]
            self._samples_per_point *= 2
        self.points.append((seconds, value))
        self._samples_in_last = 1


class MemoryMeter:
    """Sample the anonymous memory of this process and its descendants; a context manager.

    Attributes:
        baseline_bytes: subtracted from all samples; by default the memory beyond `PROGRAM_BYTES` when it is made.
        peak_bytes: the largest sample.
        curve: the samples over the seconds since `started`.
        started: `time.perf_counter` at entry.
    """

    def __init__(self, baseline_bytes: int | None = None) -> None:
        self.baseline_bytes = (
            max(0, anonymous_bytes(os.getpid()) - PROGRAM_BYTES) if baseline_bytes is None else baseline_bytes
        )
        self.peak_bytes = 0
        self.curve = Curve()
        self.started = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-meter", daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            found = max(0, anonymous_bytes(os.getpid()) - self.baseline_bytes)
            self.peak_bytes = max(self.peak_bytes, found)
            self.curve.add(time.perf_counter() - self.started, found)
            self._stop.wait(_INTERVAL_SECONDS)

    def __enter__(self) -> MemoryMeter:
        self.started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def anonymous_bytes(process: int) -> int:
    """Return the anonymous memory of a process and its descendants in bytes; 0 where the kernel does not report it."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # the process has ended, or the system has no /proc
        return 0
    own = next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon:")), 0)
    return own + sum(anonymous_bytes(int(child)) for child in children)
