"""Compute checksums: 64-bit XXH3 as 16 hex digits, about as fast as memory can be read."""

from __future__ import annotations

from pathlib import Path
from typing import IO, Any

import xxhash

_PIECE = 1 << 20


def checksum(content: Any) -> str:
    """Compute the checksum of a bytes-like object."""
    return xxhash.xxh3_64_hexdigest(content)


def block_checksums(content: Any, block_bytes: int) -> str:
    """Compute the joined checksums of consecutive blocks of `block_bytes` bytes; the last block may be shorter."""
    view = memoryview(content)
    return "".join([checksum(view[start : start + block_bytes]) for start in range(0, len(view), block_bytes)])


def running_checksum() -> xxhash.xxh3_64:
    """Create an incremental checksum: call `update(piece)`, then `hexdigest()`."""
    return xxhash.xxh3_64()


def file_checksum(path: Path) -> str:
    """Compute the checksum of a file, which is read in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    with open(path, "rb") as file:
        return rest_checksum(file)


def rest_checksum(file: IO[bytes]) -> str:
    """Compute the checksum of an open file from its position on, which is read in pieces.

    Raises:
        OSError: the file cannot be read.
    """
    state = running_checksum()
    while piece := file.read(_PIECE):
        state.update(piece)
    return state.hexdigest()
