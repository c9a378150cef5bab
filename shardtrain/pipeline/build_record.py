"""Read build.json: times, memory and the corpora of the last build.

It is not a part of the shards and may be missing; one that is damaged or makes no sense counts as missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shardtrain.runtime.jobs import FILES
from shardtrain.runtime.schema import (
    ANYTHING,
    Either,
    Fields,
    Flag,
    Integer,
    Items,
    Keyed,
    Number,
    Row,
    Text,
    hex_digits,
    optional,
    read_if_sound,
)
from shardtrain.shards.layout import MEASURED

_COLUMNS = Items(Either((Text(), Integer())))
_ORIGIN = Fields(
    {"read": Fields(optional={"text_columns": optional(_COLUMNS)}, others=True), "files": FILES},
    {
        "path": Text(),  # of versions that read one file or folder
        "paths": Items(Text()),
        "validation": optional(Text()),
        "test": optional(Text()),
        "remembered": Keyed(ANYTHING),
    },
)
_SECONDS = Number(0)
_RECORD = Fields(
    {
        "seconds": _SECONDS,
        "pass_seconds": Keyed(_SECONDS),
        "memory_limit": Integer(),
        "peak_memory_bytes": Integer(),
        "workers": Integer(1),
        "resumed": Flag(),
    },
    {
        "job": hex_digits(16),
        "pass_spans": Items(Row((Text(), Number(), Number()))),
        "memory_curve": Items(Row((Number(), Integer()))),
        "origins": Items(optional(_ORIGIN)),
        "executor": Text(),
    },
    others=True,
)


@dataclass(frozen=True, kw_only=True)
class BuildRecord:
    """Times and memory of the last build.

    Attributes:
        seconds: total time; of a resumed build, the time since it was resumed.
        passes: title and seconds of each pass, in order.
        spans: title, start and end of each interval in which a pass ran, in seconds since the start.
        executor: the engine whose workers ran the passes; empty: processes of the machine itself.
        memory_curve: seconds since the start, and the peak of anonymous bytes of all processes until the next point;
            with an engine, of the process that drove the build.
        memory_limit: in bytes; with an engine, of each process.
        peak_bytes: peak of anonymous bytes, with an engine of any one process; 0 where the system does not report them.
        workers: number of processes, or of tasks that an engine ran at once.
        resumed: whether an interrupted build was resumed.
        job: digest of the job that made the shards; empty: unknown.
        origins: for each part of the shards what it takes to open its corpus again; None: unknown.
    """

    seconds: float
    passes: tuple[tuple[str, float], ...]
    spans: tuple[tuple[str, float, float], ...]
    memory_curve: tuple[tuple[float, int], ...]
    memory_limit: int
    peak_bytes: int
    workers: int
    resumed: bool
    job: str
    origins: tuple[dict[str, Any] | None, ...]
    executor: str = ""


def read_build_record(folder: Path) -> BuildRecord | None:
    """Read build.json in `folder`; return None if it is missing or invalid."""
    found = read_if_sound(folder / MEASURED, _RECORD)
    if found is None:
        return None
    limit = found["memory_limit"]
    return BuildRecord(
        seconds=float(found["seconds"]),
        passes=tuple((title, float(seconds)) for title, seconds in found["pass_seconds"].items()),
        spans=tuple((title, float(a), float(b)) for title, a, b in found.get("pass_spans", ())),
        memory_curve=tuple((float(seconds), size) for seconds, size in found.get("memory_curve", ())) if limit else (),
        memory_limit=limit,
        peak_bytes=found["peak_memory_bytes"],
        workers=found["workers"],
        resumed=found["resumed"],
        job=found.get("job", ""),
        origins=tuple(found.get("origins", ())),
        executor=found.get("executor", ""),
    )
