"""Unpack .gz files, since units need random access, and .tar.gz archives of published datasets.

It costs one pass and disk space of the unpacked size; decompressing the stream for each unit would cost far more. A
file gets its final name when it is complete. Archives are untrusted: only the requested regular files are written,
each below the target folder, and an archive with other kinds of members, with paths outside its folder, or larger than
a limit is refused.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.atomic import committed, full_disk_named
from shardtrain.runtime.progress import progress

_CHUNK = 4 << 20  # bytes
_MAX_HEADER = 1 << 20  # bytes of one member's headers, which are held in memory; usual ones have a few KB


def unpack_gzip(origin: Path, target: Path, *, keep_bytes: int | None = None) -> int:
    """Decompress the gzip file `origin` to `target`, of which only the first `keep_bytes` are written if given.

    Returns:
        The size of the whole content in bytes.

    Raises:
        CorpusFormatError: `origin` is not a gzip file, is truncated, or fails its checksum.
        DiskFullError: the disk has too little space for the unpacked file.
    """
    with (
        open(origin, "rb") as packed,
        progress(f"unpack {origin.name}", total=origin.stat().st_size) as done,
        committed(target) as file,
    ):
        num_bytes = 0
        try:
            with gzip.open(packed, "rb") as content:
                while chunk := content.read(_CHUNK):
                    file.write(chunk if keep_bytes is None else chunk[: max(0, keep_bytes - num_bytes)])
                    num_bytes += len(chunk)
                    done.add(packed.tell() - done.done)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CorpusFormatError(
                f"'{origin}' is damaged or not a gzip file ({error}); compress or download it again"
            ) from error
    return num_bytes


def unpack_archive(origin: Path, folder: Path, *, members: Sequence[str], max_bytes: int) -> int:
    """Extract files of a .tar.gz into `folder`, without the top-level folder if the archive has one.

    Args:
        origin: the archive; all of it is read, so that gzip's checksum is verified.
        folder: existing and empty; after an error it has the files written so far.
        members: paths below `folder` to extract, where a star matches part of a name.
        max_bytes: maximum size of the uncompressed tar file.

    Returns:
        The number of bytes written.

    Raises:
        CorpusFormatError: the file is damaged or not a .tar.gz, larger than `max_bytes`, has the same file twice, or
            has a path outside its folder, a link or a device.
        DiskFullError: the disk has too little space for the files.
    """
    wanted = [pattern.split("/") for pattern in members]
    num_bytes = 0
    with (
        open(origin, "rb") as packed,
        progress(f"unpack {origin.name}", total=origin.stat().st_size) as done,
        gzip.open(packed, "rb") as content,
    ):
        stream = _ForwardStream(content, max_bytes)
        try:
            with tarfile.TarFile(fileobj=stream, mode="r") as archive:  # type: ignore[arg-type]
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # it would hold all of them
                    _check_member(member)
                    path = _target_path(member, wanted)
                    if path is not None:
                        _write_member(stream, member, folder / path)
                        num_bytes += member.size
                    done.add(packed.tell() - done.done)
                    stream.begin_header()
            stream.begin_content()
            while stream.read(_CHUNK):
                pass
            done.add(packed.tell() - done.done)
        except _UnsafeArchiveError as error:
            raise CorpusFormatError(f"the archive '{origin}' is not safe to unpack: {error}") from None
        except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, ValueError, RecursionError) as error:
            raise CorpusFormatError(
                f"'{origin}' is damaged or not a .tar.gz archive ({error}); download it again"
            ) from error
    return num_bytes


class _UnsafeArchiveError(Exception):
    """A reason not to unpack an archive."""


class _ForwardStream:
    """A decompressed stream for `tarfile` that only seeks forwards and limits the sizes of headers and of the whole."""

    def __init__(self, content: gzip.GzipFile, max_bytes: int) -> None:
        self._content, self._max_bytes = content, max_bytes
        self._position = 0
        self.begin_header()

    def begin_header(self) -> None:
        """Limit the reads that follow: the headers of the next member, which `tarfile` holds in memory."""
        self._header_bytes_left: int | None = _MAX_HEADER

    def begin_content(self) -> None:
        """Lift the limit for a member's content, which is read in chunks."""
        self._header_bytes_left = None

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("a header refers to an earlier position")
        while self._position < position and self._read(min(position - self._position, _CHUNK)):
            pass

    def read(self, size: int) -> bytes:
        if size < 0:
            raise tarfile.ReadError("a header has a negative size")
        if self._header_bytes_left is not None:
            if size > self._header_bytes_left:
                raise _UnsafeArchiveError(f"a header in it is longer than {_MAX_HEADER >> 20} MiB")
            self._header_bytes_left -= size
        return self._read(size)

    def _read(self, size: int) -> bytes:
        chunk = self._content.read(size)
        self._position += len(chunk)
        if self._position > self._max_bytes:
            raise _UnsafeArchiveError(
                f"it holds more than {self._max_bytes / 1e6:,.1f} MB, far more than was published"
            )
        return chunk


def _check_member(member: tarfile.TarInfo) -> None:
    """Refuse members that no published dataset has, extracted or not: the archive may have been tampered with."""
    name = ascii(member.name[:200])  # escapes control sequences of terminals
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise _UnsafeArchiveError(f"the path {name} in it leads outside its folder")
    if member.issym() or member.islnk():
        raise _UnsafeArchiveError(f"{name} in it is a link, to {member.linkname[:200]!a}")
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise _UnsafeArchiveError(f"{name} in it is neither a plain file nor a folder")


def _target_path(member: tarfile.TarInfo, wanted: Sequence[Sequence[str]]) -> Path | None:
    """Return the path of a member without its top-level folder, if it matches a pattern, else None."""
    if not member.isreg():
        return None
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    for pattern in wanted:
        below = parts[-len(pattern) :]
        if len(pattern) <= len(parts) <= len(pattern) + 1 and all(map(fnmatchcase, below, pattern)):
            return Path(*below)
    return None


def _write_member(stream: _ForwardStream, member: tarfile.TarInfo, path: Path) -> None:
    stream.seek(member.offset_data)
    stream.begin_content()
    left = member.size
    with full_disk_named(path, kept="no partly unpacked file was kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "xb")  # noqa: SIM115 - closed below; FileExistsError is caught for this call only
        except FileExistsError:
            raise _UnsafeArchiveError(f"{member.name[:200]!a} is in it twice") from None
        with file:
            while left and (chunk := stream.read(min(left, _CHUNK))):
                file.write(chunk)
                left -= len(chunk)
    if left:
        raise EOFError(f"it ends within {member.name[:200]!a}")
