"""Open compressed files as streams: gzip, bzip2, xz and Zstandard, and zip archives with one file in them.

The first bytes decide, not the name, so a file with a wrong extension is read as well. Streams of several members are
read to their end. A stream that is cut or damaged is an error that names the file; none is taken for a shorter one.
"""

from __future__ import annotations

import bz2
import contextlib
import errno
import gzip
import io
import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from shardtrain.errors import CorpusFormatError, MissingExtraError, ShardtrainError

EXTENSIONS = (".gz", ".bz2", ".xz", ".zst", ".zip")
_MAGIC = (
    (b"\x1f\x8b", "gzip"),
    (b"BZh", "bzip2"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"\x28\xb5\x2f\xfd", "zstd"),
    (b"PK\x03\x04", "zip"),
)
_HIDDEN = ("__MACOSX/", ".")  # members that archivers add
_OFFICE = "[Content_Types].xml"  # in workbooks and documents, which are zip archives
_CHUNK = 1 << 20
_AGAIN = "compress or download it again"
_OPEN: dict[str, Callable[[IO[bytes]], Any]] = {"gzip": gzip.open, "bzip2": bz2.open, "xz": lzma.open}


@dataclass(frozen=True)
class Opened:
    """A file that is open as a stream of its content.

    Attributes:
        stream: the content, decompressed.
        packed: the file itself; its position shows the progress.
        kind: of compression; empty: none.
        name: of the content: the file's without the extension of the compression, or the member's of a zip archive.
    """

    stream: IO[bytes]
    packed: IO[bytes]
    kind: str
    name: str


def plain_name(name: str) -> str:
    """Return a file's name without the extension of a compression."""
    path = Path(name)
    return path.stem if path.suffix.lower() in EXTENSIONS else name


@contextlib.contextmanager
def opened(path: Path) -> Iterator[Opened]:
    """Open a file as a stream of its content, decompressed if its first bytes say that it is compressed.

    Raises:
        CorpusFormatError: it is an archive of no or several files, or, while it is read, damaged or cut.
        MissingExtraError: the package that reads Zstandard is not installed.
    """
    with open(path, "rb") as packed, contextlib.ExitStack() as stack:
        head = packed.read(8)
        packed.seek(0)
        kind = next((kind for magic, kind in _MAGIC if head.startswith(magic)), "")
        name = plain_name(path.name) if kind else path.name
        try:
            stream: Any = packed
            if kind == "zip":
                stream, name = _open_member(stack.enter_context(zipfile.ZipFile(packed)), path)
            elif kind == "zstd":
                stream = io.BufferedReader(_Zstd(packed, path), _CHUNK)
            elif kind:
                stream = _OPEN[kind](packed)
            yield Opened(stream, packed, kind, name)
        except ShardtrainError:
            raise
        except EOFError as error:
            raise CorpusFormatError(f"'{path}' is cut: its {kind} data ends too early; {_AGAIN}") from error
        except (zlib.error, gzip.BadGzipFile, lzma.LZMAError, zipfile.BadZipFile) as error:
            raise CorpusFormatError(f"'{path}' is damaged {kind} data ({error}); {_AGAIN}") from error
        except (OSError, ValueError, struct.error, RuntimeError) as error:
            # bz2 has no error of its own, and zipfile seeks where damaged directories send it
            if kind not in ("bzip2", "zip") or getattr(error, "errno", None) not in (None, errno.EINVAL):
                raise
            raise CorpusFormatError(f"'{path}' is damaged {kind} data ({error}); {_AGAIN}") from error


def _open_member(archive: zipfile.ZipFile, path: Path) -> tuple[IO[bytes], str]:
    members = [each for each in archive.infolist() if not each.is_dir() and not each.filename.startswith(_HIDDEN)]
    names = [each.filename for each in members]
    if _OFFICE in names:
        raise CorpusFormatError(f"'{path}' is a workbook or a document, not text; save it as CSV in UTF-8")
    if len(members) != 1:
        listed = (
            f"{len(names):,} files ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})" if names else "no file"
        )
        raise CorpusFormatError(
            f"'{path}' is a zip archive of {listed}, one is expected; unpack it and give the folder or a file"
        )
    if members[0].flag_bits & 1:
        raise CorpusFormatError(f"'{path}' is an encrypted zip archive; unpack it with its password first")
    try:
        return archive.open(members[0]), Path(members[0].filename).name
    except NotImplementedError as error:
        raise CorpusFormatError(
            f"'{path}' is a zip archive that cannot be read here ({error}); unpack it first"
        ) from error


class _Zstd(io.RawIOBase):
    """The content of a file of Zstandard frames; a frame that does not end is an EOFError, as in other modules."""

    def __init__(self, packed: IO[bytes], path: Path) -> None:
        try:
            import zstandard
        except ImportError as error:
            raise MissingExtraError(
                f"'{path}' is Zstandard data, and the package that reads it is not installed; install it with "
                "`pip install 'shardtrain[compress]'`, or unpack the file with `zstd -d`"
            ) from error
        self._packed, self._path = packed, path
        self._new_frame, self._error = zstandard.ZstdDecompressor().decompressobj, zstandard.ZstdError
        self._frame: Any = None
        self._left = b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._left:
            if self._frame is not None and self._frame.eof:
                rest, self._frame = self._frame.unused_data, None
            else:
                rest = b""
            data = rest or self._packed.read(_CHUNK)
            if not data:
                if self._frame is not None:
                    raise EOFError
                return 0
            self._frame = self._frame or self._new_frame()
            try:
                self._left = self._frame.decompress(data)
            except self._error as error:
                raise CorpusFormatError(f"'{self._path}' is damaged zstd data ({error}); {_AGAIN}") from error
        size = min(len(buffer), len(self._left))
        buffer[:size], self._left = self._left[:size], self._left[size:]
        return size
