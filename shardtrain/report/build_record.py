"""Read build.json: times and memory of the last build. It is not a part of the shards and may be missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardtrain.shards.layout import MEASURED


@dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """Times and memory of the last build.

    Attributes:
        seconds: total time; of a resumed build, the time since it was resumed.
        passes: title and seconds of each pass, in order.
        spans: title, start and end of each interval in which a pass ran, in seconds since the start.
        memory_curve: seconds since the start, and the peak of anonymous bytes of all processes until the next point.
        memory_limit: in bytes.
        peak_bytes: peak of anonymous bytes; 0 where the system does not report them.
        workers: number of processes.
        resumed: whether an interrupted build was resumed.
    """

    seconds: float
    passes: tuple[tuple[str, float], ...]
    spans: tuple[tuple[str, float, float], ...]
    memory_curve: tuple[tuple[float, int], ...]
    memory_limit: int
    peak_bytes: int
    workers: int
    resumed: bool


def read_build_record(folder: Path) -> BuildRecord | None:
    """Read build.json in `folder`; return None if it is missing or invalid."""
    try:
        found: dict[str, Any] = json.loads((folder / MEASURED).read_bytes(), parse_constant=_refuse_constant)
        limit, curve = int(found["memory_limit"]), found.get("memory_curve", ())
        return BuildRecord(
            seconds=float(found["seconds"]),
            passes=tuple((str(title), float(seconds)) for title, seconds in found["pass_seconds"].items()),
            spans=tuple((str(title), float(a), float(b)) for title, a, b in found.get("pass_spans", ())),
            memory_curve=tuple((float(seconds), int(size)) for seconds, size in curve) if limit > 0 else (),
            memory_limit=limit,
            peak_bytes=int(found["peak_memory_bytes"]),
            workers=int(found["workers"]),
            resumed=bool(found["resumed"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")
