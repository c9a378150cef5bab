"""Named arrays in one scratch file, and mapped back: how passes hand data to the next without holding it.

The file is a JSON line with types, shapes and offsets, then the raw arrays. Mapped pages are the page cache's, so
they do not count against the memory ceiling. Scratch is not synced: it need not survive a power cut.
"""

from __future__ import annotations

import functools
import json
import math
import mmap
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.runtime.atomic import committed

_ALIGNMENT = 64
_HEADER_DIGITS = 10


@dataclass(frozen=True, eq=False)
class Spilled:
    """A spilled file: its arrays, read-only views of the mapping, and the facts written with them."""

    content: mmap.mmap
    start: int
    entries: dict[str, tuple[str, list[int], int]]
    facts: dict[str, Any]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        dtype, shape, offset = self.entries[name]
        return np.frombuffer(self.content, dtype, math.prod(shape), self.start + offset).reshape(shape)


def spill(path: Path, arrays: dict[str, npt.NDArray[Any]], facts: dict[str, Any] | None = None) -> None:
    """Write arrays and JSON-able facts to `path`, whole or not at all."""
    entries: dict[str, Any] = {}
    offset = 0
    for name, array in arrays.items():
        entries[name] = (array.dtype.str, array.shape, offset)
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    header = json.dumps({"arrays": entries, "facts": facts or {}}).encode()
    start = -(-(len(header) + _HEADER_DIGITS) // _ALIGNMENT) * _ALIGNMENT
    with committed(path, synced=False) as file:
        file.write(f"{start:>{_HEADER_DIGITS}}".encode() + header.ljust(start - _HEADER_DIGITS))
        for array in arrays.values():
            file.write(np.ascontiguousarray(array).data.cast("B") if array.size else b"")
            file.write(b"\0" * (-array.nbytes % _ALIGNMENT))


def spilled(path: Path) -> Spilled:
    """Map a file written by `spill`."""
    with open(path, "rb") as file:
        content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    start = int(content[:_HEADER_DIGITS])
    header = json.loads(content[_HEADER_DIGITS:start])
    return Spilled(content, start, header["arrays"], header["facts"])


def kept_open(path: Path) -> Spilled:
    """Map a file that many tasks of a process read, once: the mapping and its page table are kept."""
    state = path.stat()
    return _mapped(path, state.st_ino, state.st_mtime_ns)


@functools.lru_cache(maxsize=64)  # each takes a file descriptor
def _mapped(path: Path, inode: int, modified: int) -> Spilled:
    return spilled(path)


def narrow(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return non-negative integers in the smallest unsigned type that holds them."""
    return array.astype(np.min_scalar_type(int(array.max()) if array.size else 0), copy=False)
