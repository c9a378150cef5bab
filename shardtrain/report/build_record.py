"""What build.json tells of the last build, its passes and its memory; it is no part of shards and may be missing."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardtrain.pipeline.workspace import MEASURED


@dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """How the last build went.

    Attributes:
        seconds: of all of it; of a resumed build since it was taken up again.
        passes: title and seconds of each pass, in order.
        spans: title, begin and end of each stretch of a pass, in seconds from the start.
        curve: seconds from the start, and the most anonymous bytes of all processes from then to the next point.
        memory_limit: bytes.
        peak_bytes: the most anonymous bytes; 0 where the system does not tell.
        workers: processes.
        resumed: whether an interrupted build was gone on with.
    """

    seconds: float
    passes: tuple[tuple[str, float], ...]
    spans: tuple[tuple[str, float, float], ...]
    curve: tuple[tuple[float, int], ...]
    memory_limit: int
    peak_bytes: int
    workers: int
    resumed: bool


def read_build_record(folder: Path) -> BuildRecord | None:
    """What build.json in `folder` says; None if it is missing or says something else."""
    try:
        found: dict[str, Any] = json.loads((folder / MEASURED).read_bytes(), parse_constant=_refused)
        limit, curve = int(found["memory_limit"]), found.get("memory_curve", ())
        return BuildRecord(
            seconds=float(found["seconds"]),
            passes=tuple((str(title), float(seconds)) for title, seconds in found["pass_seconds"].items()),
            spans=tuple((str(title), float(a), float(b)) for title, a, b in found.get("pass_spans", ())),
            curve=tuple((float(seconds), int(size)) for seconds, size in curve) if limit > 0 else (),
            memory_limit=limit,
            peak_bytes=int(found["peak_memory_bytes"]),
            workers=int(found["workers"]),
            resumed=bool(found["resumed"]),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _refused(name: str) -> float:
    raise ValueError(f"{name} is no number")
