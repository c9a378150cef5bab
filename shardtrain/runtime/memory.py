"""Measures a build's anonymous memory: its own and its workers', sampled from the kernel.

Anonymous memory is what a process took for itself; pages of mapped files belong to the page cache and can be dropped
at any time. Linux tells it in /proc; elsewhere the peak stays 0 and is recorded as unknown. A build may be called from
a process that holds much already, a notebook with a model in it for one: that is the caller's, and not counted.
"""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

PROGRAM_BYTES = 160 << 20  # more than a process takes that has imported all that a build needs, and nothing else
_INTERVAL_SECONDS = 0.05
MAX_POINTS = 200  # of a curve: a chart shows no more, and build.json stays small


class Curve:
    """A quantity over time in at most `MAX_POINTS` points, however long it is watched; peaks are never lost.

    Attributes:
        points: of equal spans of time, the seconds at which each began and the largest value in it.
    """

    def __init__(self) -> None:
        self.points: list[tuple[float, int]] = []
        self._samples = 1  # that make a point
        self._in_last = 0  # samples that the last point has

    def add(self, seconds: float, value: int) -> None:
        """Take a sample; samples come at equal intervals."""
        if self._in_last < self._samples and self.points:
            began, largest = self.points[-1]
            self.points[-1] = began, max(largest, value)
            self._in_last += 1
            return
        if len(self.points) == MAX_POINTS:  # pairs become one, and so does what follows
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [(began, max(first, second)) for (began, first), (_, second) in pairs]
            self._samples *= 2
        self.points.append((seconds, value))
        self._in_last = 1


class MemoryMeter:
    """Samples while it is entered, over this process and its children.

    Attributes:
        held_bytes: what they held when it was entered beyond `PROGRAM_BYTES`; left out of everything else.
        peak_bytes: the largest sum seen.
        curve: the sums over the seconds since `started`.
        started: the clock (`time.perf_counter`) when it was entered.
    """

    def __init__(self) -> None:
        self.held_bytes = 0
        self.peak_bytes = 0
        self.curve = Curve()
        self.started = 0.0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="memory-meter", daemon=True)

    def _run(self) -> None:
        while not self._stop.is_set():
            found = max(0, anonymous_bytes(os.getpid()) - self.held_bytes)
            self.peak_bytes = max(self.peak_bytes, found)
            self.curve.add(time.perf_counter() - self.started, found)
            self._stop.wait(_INTERVAL_SECONDS)

    def __enter__(self) -> MemoryMeter:
        self.held_bytes = max(0, anonymous_bytes(os.getpid()) - PROGRAM_BYTES)
        self.started = time.perf_counter()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def anonymous_bytes(process: int) -> int:
    """Anonymous memory of a process and all its descendants; 0 where the kernel does not tell."""
    try:
        status = Path(f"/proc/{process}/status").read_text()
        children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:  # it ended meanwhile, or there is no /proc
        return 0
    own = next((int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon:")), 0)
    return own + sum(anonymous_bytes(int(child)) for child in children)
