"""Unpack what cannot be read packed: a .gz, since units need random access, and archives of published sets.

It costs disk space of the unpacked size in the scratch folder and one pass; reading the packed stream again for every
unit would cost far more. A file appears under its name only when it is whole. Of an archive nothing is believed:
only plain files that are asked for are written, under names of ours, and one that holds anything else than plain files
and folders below it, or more than was said, is refused as a whole.
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

_PIECE = 4 << 20  # bytes
_MAX_HEADER = 1 << 20  # bytes of one member's headers; they are held in memory, and honest ones have a few KB


def unpack(origin: Path, target: Path, *, most: int | None = None) -> int:
    """Write what the gzip file `origin` holds to `target`; with `most` no more than its first bytes, for a look at it.

    Returns:
        The bytes that it holds.

    Raises:
        CorpusFormatError: it is no gzip file, is cut short, or fails its checksum.
        DiskFullError: no room for the unpacked file.
    """
    with (
        open(origin, "rb") as packed,
        progress(f"unpack {origin.name}", total=origin.stat().st_size) as done,
        committed(target) as file,
    ):
        num_bytes = 0
        try:
            with gzip.open(packed, "rb") as content:
                while piece := content.read(_PIECE):
                    file.write(piece if most is None else piece[: max(0, most - num_bytes)])
                    num_bytes += len(piece)
                    done.add(packed.tell() - done.done)
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise CorpusFormatError(f"'{origin}' is damaged or no gzip file ({error}); get it again") from error
    return num_bytes


def unpack_archive(origin: Path, folder: Path, *, members: Sequence[str], max_bytes: int) -> int:
    """Write the wanted files of a .tar.gz into `folder`, without the one folder that an archive may have around them.

    Args:
        origin: the archive; all of it is read, so that gzip's own checksum is compared.
        folder: existing and empty; after an error what was written so far is in it.
        members: paths below `folder` that are wanted, a star standing for part of a name; others are left out.
        max_bytes: of the tar file inside.

    Returns:
        The bytes written.

    Raises:
        CorpusFormatError: it is damaged or no such archive, larger than it may be, has the same file twice, or holds a
            path outside its folder, a link or a device.
        DiskFullError: no room for the files.
    """
    wanted = [pattern.split("/") for pattern in members]
    num_bytes = 0
    with (
        open(origin, "rb") as packed,
        progress(f"unpack {origin.name}", total=origin.stat().st_size) as done,
        gzip.open(packed, "rb") as content,
    ):
        stream = _Forward(content, max_bytes)
        try:
            with tarfile.TarFile(fileobj=stream, mode="r") as archive:  # type: ignore[arg-type]
                while (member := archive.next()) is not None:
                    archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
                    _check_member(member)
                    path = _wanted_path(member, wanted)
                    if path is not None:
                        _write_member(stream, member, folder / path)
                        num_bytes += member.size
                    done.add(packed.tell() - done.done)
                    stream.begin_header()
            stream.begin_content()
            while stream.read(_PIECE):
                pass
            done.add(packed.tell() - done.done)
        except _RefusedError as error:
            raise CorpusFormatError(f"the archive '{origin}' is not safe to unpack: {error}") from None
        except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, ValueError, RecursionError) as error:
            raise CorpusFormatError(f"'{origin}' is damaged or no .tar.gz archive ({error}); get it again") from error
    return num_bytes


class _RefusedError(Exception):
    """Why an archive is not unpacked."""


class _Forward:
    """A packed stream for `tarfile` that only goes forwards, ends at a limit, and has short headers."""

    def __init__(self, content: gzip.GzipFile, max_bytes: int) -> None:
        self._content, self._max_bytes = content, max_bytes
        self._position = 0
        self.begin_header()

    def begin_header(self) -> None:
        """Expect the headers of the next member, which `tarfile` reads into memory."""
        self._room: int | None = _MAX_HEADER

    def begin_content(self) -> None:
        """Expect a member's content, which is read in pieces."""
        self._room = None

    def tell(self) -> int:
        return self._position

    def seek(self, position: int) -> None:
        if position < self._position:
            raise tarfile.ReadError("a header points backwards")
        while self._position < position and self._read(min(position - self._position, _PIECE)):
            pass

    def read(self, size: int) -> bytes:
        if size < 0:
            raise tarfile.ReadError("a header gives a size below zero")
        if self._room is not None:
            if size > self._room:
                raise _RefusedError(f"a header in it is longer than {_MAX_HEADER >> 20} MiB")
            self._room -= size
        return self._read(size)

    def _read(self, size: int) -> bytes:
        piece = self._content.read(size)
        self._position += len(piece)
        if self._position > self._max_bytes:
            raise _RefusedError(f"it holds more than {self._max_bytes / 1e6:,.1f} MB, far more than was published")
        return piece


def _check_member(member: tarfile.TarInfo) -> None:
    """Refuse what no published set holds, wanted or not: whoever put it there may have changed the rest as well."""
    name = ascii(member.name[:200])  # what it would do to a terminal is not known either
    if member.name.startswith("/") or ".." in member.name.split("/"):
        raise _RefusedError(f"the path {name} in it leads outside its folder")
    if member.issym() or member.islnk():
        raise _RefusedError(f"{name} in it is a link, to {member.linkname[:200]!a}")
    if not (member.isdir() or member.isreg()) or member.issparse():
        raise _RefusedError(f"{name} in it is neither a plain file nor a folder")


def _wanted_path(member: tarfile.TarInfo, wanted: Sequence[Sequence[str]]) -> Path | None:
    """Where a member is to be written, or None: its own path, or that below one folder, if it fits a pattern."""
    if not member.isreg():
        return None
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    for pattern in wanted:
        below = parts[-len(pattern) :]
        if len(pattern) <= len(parts) <= len(pattern) + 1 and all(map(fnmatchcase, below, pattern)):
            return Path(*below)
    return None


def _write_member(stream: _Forward, member: tarfile.TarInfo, path: Path) -> None:
    stream.seek(member.offset_data)
    stream.begin_content()
    left = member.size
    with full_disk_named(path, kept="nothing half-unpacked was kept"):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            file = open(path, "xb")  # noqa: SIM115 - closed below; only this may find the file there
        except FileExistsError:
            raise _RefusedError(f"{member.name[:200]!a} is in it twice") from None
        with file:
            while left and (piece := stream.read(min(left, _PIECE))):
                file.write(piece)
                left -= len(piece)
    if left:
        raise EOFError(f"it ends within {member.name[:200]!a}")
