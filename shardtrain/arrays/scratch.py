"""Write named arrays to a scratch file and memory-map them: how one pass of a build hands its data to the next.

The file is a JSON header with types, shapes, offsets and checksums, then the raw arrays. Mapped pages belong to the
page cache and do not count against the memory limit. Files are not synced to disk: they need not survive a power
failure. When a file is opened, its header is compared with its checksum, and its place in the scratch folder with that
for which it was written; the checksums of the arrays are compared before an interrupted job goes on.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import math
import mmap
import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import ScratchError
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.checksums import checksum, running_checksum
from shardtrain.runtime.schema import (
    ANYTHING,
    Either,
    Fields,
    Integer,
    Items,
    Keyed,
    Mismatch,
    Row,
    Text,
    check,
    hex_digits,
    parse_json,
)
from shardtrain.runtime.storage import storage_errors
from shardtrain.runtime.system import allow_open_files, read_into

_ALIGNMENT = 64
_MAGIC = b"\x89spilled"  # before the header's length and its checksum; older versions wrote the length alone
_LENGTH_DIGITS, _SUM_DIGITS = 10, 16
_HEAD_BYTES = len(_MAGIC) + _LENGTH_DIGITS + _SUM_DIGITS
_PIECE = 1 << 20  # bytes that are read at once to be compared with a checksum
_MOST_MAPPED, _OTHER_FILES = 512, 512  # files that are open at once
HEADER_BYTES = 4096  # read at first; most headers are shorter
_PLACED = (Text("[<>|][biuf][1248]", "a type of numbers"), Items(Integer(), most=3), Integer())
_ARRAY = Either((Row((*_PLACED, hex_digits(_SUM_DIGITS))), Row(_PLACED)))  # the latter of older versions
_Entries = dict[str, tuple[str, list[int], int, str]]  # of arrays: type, shape, offset and checksum, empty if unknown
_HEADER = Fields({"arrays": Keyed(_ARRAY), "facts": Keyed(ANYTHING)}, {"place": Text()})
_FOLDER = "scratch"  # of a job's scratch files


@dataclass(frozen=True, eq=False)
class SpilledArrays:
    """A mapped scratch file: arrays by name, as read-only views, and the `facts` written with them."""

    path: Path
    content: mmap.mmap
    start: int
    entries: _Entries
    facts: dict[str, Any]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> npt.NDArray[Any]:
        if name not in self.entries:  # another file is in its place
            raise damaged_scratch(self.path, Mismatch("a file without it", f"an array '{name}'"))
        dtype, shape, offset, _ = self.entries[name]
        return np.frombuffer(self.content, dtype, math.prod(shape), self.start + offset).reshape(shape)

    def read(self, **parts: slice | None) -> list[npt.NDArray[Any]]:
        """Return a range of each of some arrays; None: all of it."""
        return [self[name] if part is None else self[name][part] for name, part in parts.items()]


@dataclass(frozen=True, eq=False)
class SpilledFile:
    """A scratch file that is read: mapping many files for a short range of each costs several times as much."""

    path: Path
    start: int
    entries: _Entries
    facts: dict[str, Any]

    def __contains__(self, name: str) -> bool:
        return name in self.entries

    def length(self, name: str) -> int:
        """Return the length of an array, along its first axis."""
        return self.entries[name][1][0]

    def read(self, **parts: slice | None) -> list[npt.NDArray[Any]]:
        """Read a range of each of some arrays of one dimension; None: all of it.

        Raises:
            ScratchError: the file is missing or damaged.
        """
        with _open_scratch(self.path) as descriptor:
            return [self._read(descriptor, name, part) for name, part in parts.items()]

    def _read(self, descriptor: int, name: str, part: slice | None) -> npt.NDArray[Any]:
        if name not in self.entries:
            raise Mismatch("a file without it", f"an array '{name}'")
        type_name, (size,), offset, _ = self.entries[name]
        part = part or slice(0, size)
        array = np.empty(max(0, part.stop - part.start), type_name)
        view, position = array.data.cast("B"), self.start + offset + part.start * array.itemsize
        while view:
            if not (found := read_into(descriptor, view, position)):
                raise Mismatch("its end", f"{len(view):,} more bytes of '{name}'")
            view, position = view[found:], position + found
        return array


@dataclass(frozen=True, eq=False)
class Pieces:
    """An array to write that is made piece by piece along its first axis, because it is too large to be held."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    pieces: Iterable[npt.NDArray[Any]]

    @property
    def nbytes(self) -> int:
        """Bytes of the array."""
        return math.prod(self.shape) * self.dtype.itemsize


def spill(path: Path, arrays: Mapping[str, npt.NDArray[Any] | Pieces], facts: dict[str, Any] | None = None) -> None:
    """Write arrays and `facts`, which must be JSON-serializable, to `path` atomically."""
    with spilling(path, {name: (array.dtype, array.shape) for name, array in arrays.items()}, facts) as writer:
        for name, array in arrays.items():
            for piece in array.pieces if isinstance(array, Pieces) else (array,):
                writer.append(**{name: piece})


def _places_of(arrays: Mapping[str, Pieces], others: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
    """Return the length of a file's header, and type, shape, offset and room for a checksum of each array behind it."""
    entries = {}
    offset = 0
    for name, array in arrays.items():
        entries[name] = (array.dtype.str, array.shape, offset, "0" * _SUM_DIGITS)
        offset += -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
    size = _HEAD_BYTES + len(json.dumps({"arrays": entries, **others}))
    return -(-size // _ALIGNMENT) * _ALIGNMENT, entries


def _header(entries: Mapping[str, Any], others: Mapping[str, Any], start: int) -> bytes:
    """Return the header that fills the first `start` bytes of a file: its length, its checksum and JSON."""
    header = json.dumps({"arrays": entries, **others}).encode().ljust(start - _HEAD_BYTES)
    return _MAGIC + f"{start:>{_LENGTH_DIGITS}}{checksum(header)}".encode() + header


@contextlib.contextmanager
def spilling(
    path: Path, arrays: Mapping[str, tuple[npt.DTypeLike, tuple[int, ...]]], facts: dict[str, Any] | None = None
) -> Iterator[SpillWriter]:
    """Write arrays to `path` atomically, all of them piece by piece along their first axis.

    Args:
        path: of the file.
        arrays: type and shape of each, of which the first number is the most that it may be.
        facts: that are written with them.
    """
    longest = {name: Pieces(np.dtype(dtype), shape, ()) for name, (dtype, shape) in arrays.items()}
    others = {"facts": facts or {}, "place": _place_of(path)}
    start, entries = _places_of(longest, others)
    with committed(path, synced=False) as file:
        positions = {name: start + offset for name, (_, _, offset, _) in entries.items()}
        writer = SpillWriter(file, longest, positions)
        yield writer
        end = max((positions[name] + array.nbytes for name, array in writer.written.items()), default=start)
        written = {
            name: (array.dtype.str, array.shape, entries[name][2], writer.sums[name].hexdigest())
            for name, array in writer.written.items()
        }
        file.seek(0)
        file.write(_header(written, others, start))
        file.truncate(-(-end // _ALIGNMENT) * _ALIGNMENT)


def _place_of(path: Path) -> str:
    """Return a file's path in the scratch folder; its name if it is in none."""
    _, found, below = f"/{path}".rpartition(f"/{_FOLDER}/")
    return below if found else path.name


class SpillWriter:
    """Appends to the arrays of a scratch file; see `spilling`.

    Attributes:
        sums: checksums of what was appended to each array.
    """

    def __init__(self, file: IO[bytes], longest: Mapping[str, Pieces], positions: dict[str, int]) -> None:
        self.sums = {name: running_checksum() for name in longest}
        self._file, self._longest, self._positions = file, longest, positions
        self._rows = dict.fromkeys(longest, 0)

    def append(self, **pieces: npt.NDArray[Any]) -> None:
        """Append rows, which are converted to the type of their array, to some of the arrays."""
        for name, piece in pieces.items():
            array = self._longest[name]
            values = np.ascontiguousarray(piece, array.dtype)
            row_bytes = math.prod(array.shape[1:]) * array.dtype.itemsize
            if values.size:
                view = values.reshape(-1).data.cast("B")
                self.sums[name].update(view)
                self._file.seek(self._positions[name] + self._rows[name] * row_bytes)
                self._file.write(view)
            self._rows[name] += len(values)
            assert self._rows[name] <= array.shape[0]

    @property
    def written(self) -> dict[str, Pieces]:
        """The arrays with the shapes that they have now."""
        return {
            name: Pieces(array.dtype, (self._rows[name], *array.shape[1:]), ()) for name, array in self._longest.items()
        }


def open_spilled(path: Path) -> SpilledArrays:
    """Memory-map a file written by `spill`.

    Raises:
        ScratchError: the file is missing or damaged.
        StorageError: it cannot be opened or mapped.
    """
    with _open_scratch(path) as descriptor:
        content = mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ)
        start = _header_size(content[:_HEAD_BYTES])
        entries, facts = _parse_header(path, content[:start])
        for name, (dtype, shape, offset, _) in entries.items():
            if start + offset + math.prod(shape) * np.dtype(dtype).itemsize > len(content):
                raise Mismatch(f"the file of {len(content):,} bytes", f"an array '{name}' within it")
    return SpilledArrays(path, content, start, entries, facts)


def find_spilled(path: Path) -> SpilledFile:
    """Read the header of a file written by `spill`.

    Raises:
        ScratchError: the file is missing or damaged.
        StorageError: it cannot be opened or read.
    """
    with _open_scratch(path) as descriptor:
        return _found(path, descriptor)


def _found(path: Path, descriptor: int) -> SpilledFile:
    content = os.pread(descriptor, HEADER_BYTES, 0)
    start = _header_size(content[:_HEAD_BYTES])
    if start > len(content):
        content = os.pread(descriptor, start, 0)
    return SpilledFile(path, start, *_parse_header(path, content[:start]))


def check_spilled(path: Path) -> None:
    """Compare the arrays of a file with their checksums; what `spill` has not written, or an older version has, passes.

    Raises:
        ScratchError: an array is not what was written, or the header is not.
        StorageError: the file cannot be opened or read.
    """
    with _open_scratch(path) as descriptor:
        if os.pread(descriptor, len(_MAGIC), 0) != _MAGIC:
            return
        file = _found(path, descriptor)
        for name, (dtype, shape, offset, expected) in file.entries.items():
            summed, position = running_checksum(), file.start + offset
            end = position + math.prod(shape) * np.dtype(dtype).itemsize
            while position < end and (piece := os.pread(descriptor, min(_PIECE, end - position), position)):
                summed.update(piece)
                position += len(piece)
            if position < end or summed.hexdigest() != expected:
                raise Mismatch(f"an array '{name}' that has changed", "the one that was written")


@contextlib.contextmanager
def _open_scratch(path: Path) -> Iterator[int]:
    """Open a scratch file; what it holds that cannot be is an error that names it."""
    try:
        with open(path, "rb", buffering=0, opener=_as_made) as file, storage_errors(path, "read", done="read"):
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise Mismatch("something else", "a regular file")
            yield file.fileno()
    except (FileNotFoundError, IsADirectoryError, ValueError) as error:
        raise damaged_scratch(path, error) from error
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        raise damaged_scratch(path, error) from error


def _as_made(path: str, flags: int) -> int:
    """Open a file as `spill` makes it: neither follow a link, nor wait for the other end of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _header_size(head: bytes) -> int:
    """Return the length of the header of which these are the first bytes."""
    digits = head.removeprefix(_MAGIC)[:_LENGTH_DIGITS]
    check(digits.decode("ascii"), Text(" *[0-9]+", "the length of the header"))
    return int(digits)


def _parse_header(path: Path, content: bytes) -> tuple[_Entries, dict[str, Any]]:
    """Return the arrays and the facts in a header."""
    text = content[_LENGTH_DIGITS:]
    if content.startswith(_MAGIC):
        text = content[_HEAD_BYTES:]
        if content[_HEAD_BYTES - _SUM_DIGITS : _HEAD_BYTES] != checksum(text).encode():
            raise Mismatch("a header that has changed", "the one that was written")
    header = parse_json(text)
    check(header, _HEADER)
    if header.get("place") not in (None, _place_of(path)):
        raise Mismatch(f"what was written as '{header['place']}'", f"what was written as '{_place_of(path)}'")
    arrays = {
        name: (*placed, "") if len(placed) == len(_PLACED) else tuple(placed)
        for name, placed in header["arrays"].items()
    }
    return arrays, header["facts"]


def damaged_scratch(path: Path, error: Exception) -> ScratchError:
    """Return the error for a scratch file that is missing or damaged."""
    return ScratchError(
        f"the scratch file '{path}' cannot be read ({error}): an interrupted job's files are damaged; run the same "
        "command again, which begins anew"
    )


def open_spilled_cached(path: Path) -> SpilledArrays:
    """Memory-map a file that many tasks of a process read; the mapping is cached, so its page table is built once."""
    state = path.stat()
    return _mapped(path, state.st_ino, state.st_mtime_ns)


@functools.lru_cache(maxsize=_MOST_MAPPED)
def _mapped(path: Path, inode: int, modified: int) -> SpilledArrays:
    allow_open_files(_MOST_MAPPED + _OTHER_FILES)  # each mapping holds a descriptor
    return open_spilled(path)


def narrow(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Convert non-negative integers to the smallest unsigned type that holds them."""
    return array.astype(np.min_scalar_type(int(array.max()) if array.size else 0), copy=False)
