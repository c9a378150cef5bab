"""Keep copies of corpus files in a scratch folder, each with a checksum beside it.

A job that goes on uses a copy only if it is what was written; otherwise it is made again.
"""

from __future__ import annotations

from pathlib import Path

from shardtrain.runtime.atomic import committed
from shardtrain.runtime.checksums import file_checksum


def is_whole(copy: Path) -> bool:
    """Return whether a copy is there, and what was written."""
    noted = _noted(copy)
    return copy.is_file() and noted.is_file() and file_checksum(copy).encode() == noted.read_bytes()


def note_checksum(copy: Path, checksum: str | None = None) -> None:
    """Write the checksum of a copy that is complete; by default it is computed from the file."""
    with committed(_noted(copy), synced=False) as note:
        note.write((checksum or file_checksum(copy)).encode())


def _noted(copy: Path) -> Path:
    return copy.with_name(f"{copy.name}.checksum")
