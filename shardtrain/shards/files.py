"""Read the bytes of one shard or external file, mapped or with positioned reads, verified at their first access.

A mapping shares the pages of the page cache and needs no copy; positioned reads are for file systems where a mapping is
slow or can kill the process (network, FUSE) and copy each byte once. Each checksum block is compared once per process.

Data larger than memory is evicted from the page cache before it is read again, and eviction costs the kernel more than
the copy. It is therefore read with O_DIRECT into reusable buffers where the file system supports that; elsewhere, and
for mappings, the pages behind the reader are released.
"""

from __future__ import annotations

import errno
import mmap
import os
import stat
import weakref
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.buffers import BufferPool
from shardtrain.errors import CorruptShardError, ShardsError, ShardsNotFoundError, UsageError, command_line
from shardtrain.runtime.checksums import block_checksums
from shardtrain.runtime.store import store_of
from shardtrain.runtime.system import open_uncached, read_into
from shardtrain.shards import layout
from shardtrain.shards.buserror import watch
from shardtrain.shards.layout import ShardEntry, SourceEntry
from shardtrain.shards.lists import BlockChecksums, read_chunks

Bytes = npt.NDArray[np.uint8]

_MIN_DIRECT = 1 << 17  # bytes; smaller reads go through the page cache, as every direct read goes to the disk
_MIN_RELEASED = 1 << 17  # bytes; releasing one page takes as long, and a huge page cannot be released in part
_NEW, _SEEN = b"\1", b"\0"  # whether a block has been compared
IO = ("auto", "map", "read")
_REPAIR = "restore the file from a copy or rebuild the shards with `python -m shardtrain build CORPUS --overwrite`"


class ShardFile:
    """One open file.

    Args:
        path: of the file.
        entry: of the file in the manifest.
        folder: of the manifest.
        verify: compare checksums at the first access.
        io: see `LoaderOptions`.
        direct_io: bypass the page cache if the file is not mapped and the file system supports it.
        buffers: for bytes that are read.

    Attributes:
        mapped: whether bytes are views of a mapping instead of copies.
    """

    def __init__(
        self,
        path: Path,
        entry: ShardEntry,
        *,
        folder: Path,
        verify: bool,
        io: str,
        direct_io: bool = False,
        buffers: BufferPool | None = None,
    ) -> None:
        if io not in IO:
            raise UsageError(f"--io is {io!r}; choose one of {', '.join(IO)}")
        self.path = path
        self.entry = entry
        self._folder = folder
        self._verify = verify
        self._expected = BlockChecksums(folder, path, entry.checksums)
        self._damaged: dict[int, str] = {}  # messages by block number
        self._reported: set[int] = set()
        try:
            self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)  # a pipe is refused, not waited for
            weakref.finalize(self, os.close, self._fd)
            found = os.fstat(self._fd)
            if stat.S_ISDIR(found.st_mode):
                raise IsADirectoryError(21, "Is a directory")
            if found.st_size != entry.bytes:
                raise CorruptShardError(_wrong_size(path, entry.bytes, found.st_size))
        except FileNotFoundError as error:
            raise ShardsNotFoundError(
                f"shard '{path}' is missing, but the manifest names it; restore the file or rebuild the shards "
                "with `python -m shardtrain build CORPUS --overwrite`"
            ) from error
        except OSError as error:
            raise _unreadable(path, error) from error
        if verify:
            self._expected.check_present()
        self._untouched = bytearray(_NEW * entry.blocks)  # one byte per block
        self._front = 0  # a block before which all have been compared
        self._identity = _identity(found)
        self._map = self._try_map(io)
        self.mapped = self._map is not None
        self._whole: Bytes = np.frombuffer(self._map, np.uint8) if self._map else np.zeros(0, np.uint8)
        self._direct = self._try_direct() if direct_io and not self.mapped else None
        self._buffers = buffers or BufferPool(0)

    def _try_map(self, io: str) -> mmap.mmap | None:
        if io == "read" or (io == "auto" and store_of(self.path).shared):
            return None
        try:
            mapped = mmap.mmap(self._fd, 0, access=mmap.ACCESS_READ)
        except OSError as error:
            if io == "auto":
                return None
            raise ShardsError(f"shard '{self.path}' cannot be mapped: {error.strerror}; use --io read") from error
        watch(mapped, self.path)
        return mapped

    def _try_direct(self) -> int | None:
        """Open a descriptor that bypasses the page cache; None if the system or file system does not support that."""
        direct = open_uncached(self.path)
        if direct is None:
            return None
        weakref.finalize(self, os.close, direct)
        return direct if _identity(os.fstat(direct)) == self._identity else None

    def bytes(self, start: int, stop: int) -> Bytes:
        """Read bytes [start, stop) of the file, verified: a view of the mapping, or a copy.

        Raises:
            CorruptShardError: a block differs; the message names the first one and its contents.
        """
        if stop <= start:
            return self._whole[:0]
        if self.mapped:
            self.touch(start, stop)
            return self._whole[start:stop]
        size = self.entry.block_bytes
        first, last = start // size, -(-stop // size)
        if not self._is_new(first, last):
            self._raise_damage(first, last)
            return self._read(start, stop)
        content = self._read(first * size, min(last * size, self.entry.bytes))  # compare the very bytes that are used
        self._compare(first, last, content, first * size)
        self._raise_damage(first, last)
        return content[start - first * size : stop - first * size]

    def touch(self, start: int, stop: int) -> None:
        """Compare the blocks that hold bytes [start, stop), each once in the life of this object.

        Raises:
            CorruptShardError: a block differs; the message names the first one and its contents.
        """
        first, last = start // self.entry.block_bytes, -(-stop // self.entry.block_bytes)
        self._compare_new(first, last)
        self._raise_damage(first, last)

    def damaged_blocks(self, start: int, stop: int) -> list[int]:
        """Return the numbers of the blocks of bytes [start, stop) that differ from what was written."""
        first, last = start // self.entry.block_bytes, -(-stop // self.entry.block_bytes)
        self._compare_new(first, last)
        return sorted(block for block in self._damaged if first <= block < last)

    def unreported_damage(self) -> list[str]:
        """Return a message for each damaged block found since the last call."""
        new = sorted(set(self._damaged) - self._reported)
        self._reported.update(new)
        return [self._damaged[block] for block in new]

    def touched(self, start: int, stop: int) -> bool:
        """Return whether all blocks that hold bytes [start, stop) have been read, and verified if requested."""
        return not self._is_new(start // self.entry.block_bytes, -(-stop // self.entry.block_bytes))

    def _is_new(self, first: int, last: int) -> bool:
        return self._untouched.find(_NEW, first, last) >= 0

    def _new(self, first: int, last: int) -> Iterator[tuple[int, int]]:
        """Yield the blocks among [first, last) that have not been compared, as half-open ranges."""
        start = self._untouched.find(_NEW, first, last)
        while start >= 0:
            stop = self._untouched.find(_SEEN, start, last)
            stop = last if stop < 0 else stop
            yield start, stop
            start = self._untouched.find(_NEW, stop, last)

    def _compare_new(self, first: int, last: int) -> None:
        """Read and compare the blocks among [first, last) that have not been compared."""
        if self.mapped:
            self._compare(first, last, self._whole, 0)
            return
        size = self.entry.block_bytes
        for start, stop in self._new(first, last):
            for block in range(start, stop):
                self._compare(block, block + 1, self._read(*self.block_range(block)), block * size)

    def _compare(self, first: int, last: int, content: Bytes, origin: int) -> None:
        """Compare the new blocks among [first, last); `content` is the file from byte `origin` on."""
        size = self.entry.block_bytes
        for start, stop in self._new(first, last):
            if self._verify:
                found = block_checksums(content.data[start * size - origin : stop * size - origin], size)
                expected = self._expected.of(start, stop)
                for i in range(stop - start) if found != expected else ():
                    digits = slice(16 * i, 16 * i + 16)
                    if found[digits] != expected[digits]:
                        self._damaged[start + i] = self._describe(start + i, found[digits], expected[digits])
            self._untouched[start:stop] = _SEEN * (stop - start)
            front = self._untouched.find(_NEW, self._front)
            self._front = front if front >= 0 else len(self._untouched)
            if front < 0:
                self._expected.release()

    def _raise_damage(self, first: int, last: int) -> None:
        for block in sorted(self._damaged) if self._damaged else ():
            if first <= block < last:
                raise CorruptShardError(f"{self._damaged[block]}. R{_REPAIR[1:]}")

    def _describe(self, block: int, found: str, expected: str) -> str:
        start, stop = self.block_range(block)
        return (
            f"shard '{self.path}' is damaged: bytes [{start:,}, {stop:,}) have the checksum {found}, "
            f"{self._expected.origin} says {expected}; {self.describe_range(start, stop)}"
        )

    def block_range(self, block: int) -> tuple[int, int]:
        """Return the half-open byte range of checksum block number `block`."""
        size = self.entry.block_bytes
        return block * size, min((block + 1) * size, self.entry.bytes)

    def describe_range(self, start: int, stop: int) -> str:
        """Describe which elements of which arrays bytes [start, stop) hold."""
        if not self.entry.datasets:
            return "they may hold features of several shards"
        datasets = {name: where for name, where in self.entry.datasets.items() if where.source is None}
        if self.entry.chunk_list is not None:
            try:
                places = read_chunks(self._folder, self.entry, {None: self.entry.bytes})
            except ShardsError:  # which rows are damaged is not worth a second error
                return "their arrays are unknown, because the list of chunks cannot be read"
            datasets = {name: replace(where, chunks=places.get(name)) for name, where in datasets.items()}
        found = []
        for name, where in datasets.items():
            begin, end = layout.rows_in(where, start, stop)
            if begin < end:
                if name not in (layout.DATA, layout.INDICES):
                    found.append(f"rows [{begin:,}, {min(end, self.entry.rows):,}) of '{name}'")
                elif datasets[layout.INDPTR].chunks is not None:  # finding the rows would mean decoding them
                    found.append(f"entries [{begin:,}, {end:,}) of '{name}'")
                else:
                    begin, end = self._rows_of_entries(begin, end)
                    found.append(f"rows [{begin:,}, {min(end, self.entry.rows):,}) of '{name}'")
        return "they hold " + ", ".join(found) if found else "they hold only HDF5 metadata"

    def _rows_of_entries(self, begin: int, end: int) -> tuple[int, int]:
        """Return the rows of the entries [begin, end) according to the row pointers, which may be damaged as well."""
        where = self.entry.datasets[layout.INDPTR]
        start, stop = where.offset, where.offset + where.bytes
        raw = self._whole[start:stop] if self.mapped else self._read(start, stop)
        rows = np.searchsorted(raw.view(where.dtype), [begin, end - 1], side="right") - 1
        return max(int(rows[0]), 0), int(rows[1]) + 1

    def _read(self, start: int, stop: int) -> Bytes:
        """Read bytes [start, stop) without verification; direct I/O reads whole pages."""
        direct = self._direct if stop - start >= _MIN_DIRECT else None
        unit = 1 if direct is None else mmap.PAGESIZE
        begin, end = start // unit * unit, -(-stop // unit) * unit
        out = self._buffers.allocate(max(end - begin, 0), np.uint8)
        view, position = out.data, begin
        while position < stop:
            try:
                count = read_into(self._fd if direct is None else direct, view, position)
            except OSError as error:
                if direct is not None and error.errno == errno.EINVAL:  # the device needs a larger alignment
                    direct = self._direct = None
                    continue
                raise _unreadable(self.path, error) from error
            if not count:
                raise CorruptShardError(_wrong_size(self.path, self.entry.bytes, os.fstat(self._fd).st_size))
            view, position = view[count:], position + count
        return out[start - begin : stop - begin]

    def check_unchanged(self) -> None:
        """Check that the file has not changed since it was opened.

        Raises:
            CorruptShardError: it was truncated, written to or replaced by another file.
        """
        try:
            opened, found = _identity(os.fstat(self._fd)), _identity(os.stat(self.path))
        except OSError as error:
            raise _unreadable(self.path, error) from error
        if opened[2] != self.entry.bytes:
            raise CorruptShardError(_wrong_size(self.path, self.entry.bytes, opened[2]))
        if opened != self._identity:
            raise CorruptShardError(
                f"shard '{self.path}' was written to while it was open (its modification time changed); shards are "
                f"write-once: check it with `{command_line('verify', self.path.parent)}` and start again"
            )
        if found != opened:
            raise CorruptShardError(
                f"shard '{self.path}' was replaced by another file while it was open; start again to use the new one"
            )

    def advise(self, *, random: bool) -> None:
        """Advise the kernel whether the file will be read at random or sequentially (with long read-ahead)."""
        if self._map is not None and hasattr(mmap, "MADV_RANDOM"):
            # never MADV_SEQUENTIAL: its pages are evicted first, possibly before their window is gathered
            self._map.madvise(mmap.MADV_RANDOM if random else mmap.MADV_NORMAL)
        random = random or self._direct is not None  # then only small reads go through the page cache
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, 0, 0, os.POSIX_FADV_RANDOM if random else os.POSIX_FADV_SEQUENTIAL)

    def read_ahead(self, start: int, stop: int) -> None:
        """Start reading bytes [start, stop) into the page cache, without waiting."""
        if stop > start and hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, start, stop - start, os.POSIX_FADV_WILLNEED)

    def release(self, start: int, stop: int) -> None:
        """Release the pages of bytes [start, stop), which are not needed again soon; views of them stay valid."""
        start, stop = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, stop // mmap.PAGESIZE * mmap.PAGESIZE
        if stop - start < _MIN_RELEASED:
            return
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED, start, stop - start)
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(self._fd, start, stop - start, os.POSIX_FADV_DONTNEED)


def check_source(path: str, entry: SourceEntry) -> None:
    """Check that an external file that holds arrays has not changed since it was indexed.

    Raises:
        ShardsNotFoundError: the file is missing.
        CorruptShardError: the file was changed or replaced.
    """
    try:
        found = os.stat(path)
    except OSError as error:
        raise ShardsNotFoundError(
            f"'{path}' cannot be read ({error.strerror}), but holds the features of the shards; restore it, or index "
            "it at its new location with `python -m shardtrain index`"
        ) from error
    facts = (
        ("bytes", found.st_size, entry.bytes),
        ("modified at", found.st_mtime_ns, entry.mtime_ns),
        ("inode", found.st_ino, entry.inode),
    )
    for what, now, then in facts:
        if now != then or not stat.S_ISREG(found.st_mode):
            raise CorruptShardError(
                f"'{path}' was changed or replaced since it was indexed ({what}: {then:,} then, {now:,} now); restore "
                "the old file, or index it again with `python -m shardtrain index`"
            )


def open_source(
    path: str,
    entry: SourceEntry,
    *,
    folder: Path,
    verify: bool,
    io: str = "auto",
    direct_io: bool = False,
    buffers: BufferPool | None = None,
) -> ShardFile:
    """Open an external file that holds arrays of the shards in `folder`; it is read and verified as a `ShardFile`.

    Raises:
        ShardsNotFoundError: the file is missing.
        CorruptShardError: the file was changed or replaced since it was indexed.
    """
    check_source(path, entry)
    as_shard = ShardEntry(
        file=path, rows=1, bytes=entry.bytes, datasets={}, block_bytes=entry.block_bytes, checksums=entry.checksums
    )
    return ShardFile(Path(path), as_shard, folder=folder, verify=verify, io=io, direct_io=direct_io, buffers=buffers)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _unreadable(path: Path, error: OSError) -> ShardsError:
    if error.errno == errno.EMFILE:
        return ShardsError(
            f"shard '{path}' cannot be opened: this process may open no more files; raise the limit in the shell with "
            "`ulimit -n 10240`, or build fewer, larger shards with --rows-per-shard"
        )
    return ShardsError(f"shard '{path}' cannot be read: {error.strerror}; check the disk and the permissions")


def _wrong_size(path: Path, expected: int, found: int) -> str:
    state = "truncated" if found < expected else "not the file that was written"
    return f"shard '{path}' is {state}: the manifest says {expected:,} bytes, the file has {found:,}; {_REPAIR}"
