"""Unpack the archive of a published set into a folder, treating the archive as untrusted.

`tarfile` writes the files under its `data` filter (PEP 706). Links, absolute paths, repeated files, headers too long
for memory, and more bytes than expected are refused in addition, and an archive is refused as a whole: whoever added
such a member may have changed the rest as well.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from pathlib import Path

from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.progress import progress
from shardtrain.runtime.quantities import size
from shardtrain.runtime.storage import storage_errors

_PIECE = 1 << 20  # bytes
_MAX_HEADER = 1 << 20  # bytes of one member's headers, which tarfile holds in memory; normal ones have a few KB


def unpack_archive(origin: Path, folder: Path, *, members: Sequence[str], max_bytes: int) -> None:
    """Unpack the wanted files of a .tar.gz, without the top folder that an archive may have.

    Args:
        origin: the archive; read to its end, so that gzip's checksum is compared.
        folder: existing and empty; after an error it holds what was written so far.
        members: wanted paths below `folder`, a star standing for part of a name; other files are skipped.
        max_bytes: maximum size of the tar file inside.

    Raises:
        CorpusFormatError: it is damaged, not a .tar.gz, too large, or holds a member that is not safe.
        DiskFullError: no room for the files.
    """
    wanted = [pattern.split("/") for pattern in members]

    def select(member: tarfile.TarInfo, path: str) -> tarfile.TarInfo | None:
        safe = _checked(member, path)
        target = _wanted_path(safe, wanted)
        if target is None:
            return None
        if (folder / target).exists():
            raise _RefusedError(f"it holds {member.name[:200]!a} twice")
        return safe.replace(name=str(target), mode=None, mtime=None, deep=False)  # type: ignore[arg-type]  # as a new file

    with (
        open(origin, "rb") as packed,
        storage_errors(folder, "unpack", kept="nothing half-unpacked was kept"),
        progress(f"unpack {origin.name}", total=origin.stat().st_size) as done,
        _Stream(fileobj=packed, mode="rb") as content,
    ):
        try:
            with tarfile.TarFile(fileobj=content) as archive:
                for member in _members(archive, content, max_bytes):
                    archive.extractall(folder, [member], filter=select)
                    done.add(packed.tell() - done.done)
        except tarfile.FilterError as error:
            raise CorpusFormatError(f"the archive '{origin}' is not safe to unpack: {error}") from None
        except (EOFError, zlib.error, gzip.BadGzipFile, tarfile.TarError, ValueError, RecursionError) as error:
            raise CorpusFormatError(
                f"'{origin}' is damaged or not a .tar.gz archive ({error}); download it again"
            ) from error


class _RefusedError(tarfile.FilterError):
    """Reason why an archive is not unpacked, beyond those of tarfile's filter."""


class _Stream(gzip.GzipFile):
    """The tar file inside a .gz; only headers are read in one call, content in small pieces."""

    def read(self, size: int | None = -1) -> bytes:
        if size is None or size < 0:
            raise tarfile.ReadError("a header has a negative size")
        if size > _MAX_HEADER:
            raise _RefusedError(f"a header in it is longer than {_MAX_HEADER >> 20} MiB")
        return super().read(size)


def _members(archive: tarfile.TarFile, content: _Stream, max_bytes: int) -> Iterator[tarfile.TarInfo]:
    """Yield all members, then read to the end of the stream; stop before what lies beyond `max_bytes`."""
    too_large = _RefusedError(f"it holds more than {size(max_bytes)}, far more than was published")
    while (member := archive.next()) is not None:
        archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps all headers in memory otherwise
        if member.size < 0:  # the next header would lie before this one
            raise tarfile.ReadError("a header has a negative size")
        if member.offset_data + member.size > max_bytes:
            raise too_large
        yield member
    while content.read(_PIECE):
        if content.tell() > max_bytes:
            raise too_large


def _checked(member: tarfile.TarInfo, folder: str) -> tarfile.TarInfo:
    """Refuse members that no published set holds, wanted or not; names are shown in ASCII, safe for a terminal."""
    name = ascii(member.name[:200])
    if member.name.startswith("/"):  # the filter would only remove the slash
        raise _RefusedError(f"{name} is an absolute path")
    if member.issparse() or not (member.isreg() or member.isdir()):
        raise _RefusedError(f"{name} is a link or a special file; only plain files and folders are accepted")
    try:
        return tarfile.data_filter(member, folder)
    except tarfile.OutsideDestinationError:
        raise _RefusedError(f"the path {name} leads outside its folder") from None


def _wanted_path(member: tarfile.TarInfo, wanted: Sequence[Sequence[str]]) -> Path | None:
    """Return the path of a member below the folder, its own or that without a top folder, if it matches a pattern."""
    parts = [part for part in member.name.split("/") if part not in ("", ".")]
    for pattern in wanted if member.isreg() else ():
        below = parts[-len(pattern) :]
        if len(pattern) <= len(parts) <= len(pattern) + 1 and all(map(fnmatchcase, below, pattern)):
            return Path(*below)
    return None
