"""Make a file that can be read from any position of one that cannot: compressed, in another encoding, a JSON array.

Such a file is read once, as a stream, and its content is written to the scratch folder as UTF-8 text with lines that
end with LF; any other file is read where it is. The cost is disk of the unpacked size and one pass; decompressing the
stream again for every unit would cost far more. A copy that an interrupted build left is used again if it has the
checksum that was written after it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import accumulate, chain
from pathlib import Path
from typing import IO

from shardtrain.corpus import compressed, copies, detect, encodings, json_arrays
from shardtrain.corpus.source import SourceFile
from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.checksums import running_checksum
from shardtrain.runtime.progress import progress

HEAD_BYTES = 64 << 10
_ARRAY = re.compile(rb"\s*\[\s*\{")
_CHUNK = 4 << 20


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """Where copies are written.

    Attributes:
        folder: an existing folder.
        keep_bytes: only so many bytes of a copy are written, to look at them; None: all.
        memory_limit: of the process that writes them, in bytes; None: there is none.
    """

    folder: Path
    keep_bytes: int | None = None
    memory_limit: int | None = None


@dataclass(frozen=True, kw_only=True)
class Staged:
    """A file of text that can be read from any position.

    Attributes:
        file: to read.
        name: of the content, without the extension of a compression.
        encoding: of the user's file.
        notes: what was detected, one line each.
    """

    file: SourceFile
    name: str
    encoding: str
    notes: tuple[str, ...] = ()


def staged(
    origin: Path, name: str, scratch: Scratch, *, encoding: str | None, usual: str = "utf-8", json_file: bool
) -> Staged:
    """Return the file to read for `origin`, writing a copy named `name` to the scratch folder if one is needed.

    Args:
        origin: a regular file.
        name: of the copy.
        scratch: for the copy.
        encoding: that the user chose; None: detect it.
        usual: the encoding of files whose bytes do not say it, and are not UTF-8.
        json_file: whether the content may be one JSON array.

    Raises:
        CorpusNotFoundError: the file is empty.
        CorpusFormatError: it is cut, damaged, or not text.
        DiskFullError: the disk has no room for the copy.
    """
    with compressed.opened(origin) as content:
        head = content.stream.read(HEAD_BYTES)
        if not content.kind:
            content.stream.seek(0)
        found, mark = encodings.encoding_of(head, encoding, usual)
        if found.startswith("utf-16") and not mark and head.isascii() and 0 not in head:
            raise CorpusFormatError(f"'{origin}' is not UTF-16: its first bytes are ASCII; omit --encoding {encoding}")
        text = b"".join(encodings.decoded([head[len(mark) :]], found))
        detect.check_is_text(text, origin, whole=len(head) < HEAD_BYTES)
        returns = _ends_lines_with_returns(text)
        start = None
        wrapped = text.lstrip().startswith(b"{")
        if json_file or content.name.lower().endswith(".json") or _ARRAY.match(text):
            start = json_arrays.array_start(text, whole=len(head) < HEAD_BYTES, origin=origin)
        copied = bool(content.kind) or found != "utf-8" or returns or start is not None
        notes = _notes(origin, content.kind, found, mark, returns=returns, chosen=encoding, usual=usual)
        size = os.fstat(content.packed.fileno()).st_size
        file = SourceFile(
            path=str(origin),
            origin=str(origin),
            num_bytes=size,
            origin_bytes=size,
            data_start=0 if copied else len(mark),
            counted="line" if start is None else "item",
        )
        if copied:
            rest = content.stream if content.kind else _after(content.stream, len(head))
            chunks = _text(chain([head[len(mark) :]], _chunks(rest)), found, returns=returns)
            if start is not None:
                chunks = json_arrays.as_lines(_skipped(chunks, start), origin, wrapped=wrapped)
            title = f"unpacking {origin.name}" if content.kind else f"reading {origin.name}"
            file = _copied(file, chunks, scratch, name, title, content.packed.tell)
        return Staged(file=file, name=content.name, encoding=found, notes=notes)


def _ends_lines_with_returns(head: bytes) -> bool:
    """Return whether CR alone ends the lines of a file: outside quotes there is a CR, and no LF."""

    def ends_outside_quotes(end: bytes) -> bool:
        before = [line.count(b'"') for line in head.replace(b"\r\n", b"\n").split(end)[:-1]]
        return any(number % 2 == 0 for number in accumulate(before))

    return b"\r" in head and ends_outside_quotes(b"\r") and not ends_outside_quotes(b"\n")


def _notes(
    origin: Path, kind: str, encoding: str, mark: bytes, *, returns: bool, chosen: str | None, usual: str
) -> tuple[str, ...]:
    notes = []
    extension = origin.suffix.lower()
    if kind and extension not in compressed.EXTENSIONS:
        notes.append(f"{origin.name} is {kind} data in spite of its name, and is read as such")
    if not kind and extension in compressed.EXTENSIONS:
        notes.append(f"{origin.name} is not compressed in spite of its name")
    if encoding != usual and usual != "utf-8" and chosen is None:
        notes.append(f"{origin.name} is {encoding.upper()}, the training corpus was {usual.upper()}")
    elif encoding == usual != "utf-8" and chosen is None:
        notes.append(f"{origin.name} is read as {encoding.upper()}, as the training corpus was")
    elif encoding != "utf-8" and chosen is None:
        how = "by its byte order mark" if mark else "by its zero bytes; --encoding names another encoding"
        notes.append(f"{origin.name} is read as {encoding.upper()}, recognized {how}")
    if returns:
        notes.append(f"{origin.name}: lines end with a carriage return alone")
    return tuple(notes)


def _text(chunks: Iterator[bytes], encoding: str, *, returns: bool) -> Iterator[bytes]:
    """Decode chunks, and end lines with LF where the file ends them with CR alone."""
    decoded = encodings.decoded(chunks, encoding)
    return _with_newlines(decoded) if returns else decoded


def _with_newlines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    held = b""  # a CR at the end of a chunk, which an LF may follow
    for chunk in chunks:
        text = held + chunk
        held = b"\r" if text.endswith(b"\r") else b""
        yield text[: len(text) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    yield b"\n" if held else b""


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while chunk := stream.read(_CHUNK):
        yield chunk


def _after(stream: IO[bytes], position: int) -> IO[bytes]:
    stream.seek(position)
    return stream


def _skipped(chunks: Iterator[bytes], size: int) -> Iterator[bytes]:
    for chunk in chunks:
        yield chunk[size:]
        size = max(0, size - len(chunk))


def _copied(
    file: SourceFile, chunks: Iterator[bytes], scratch: Scratch, name: str, title: str, position: Callable[[], int]
) -> SourceFile:
    """Write the copy of a file, or find the one that an interrupted build left; return the file with it."""
    target = scratch.folder / name
    if scratch.keep_bytes is None and copies.is_whole(target):
        return replace(file, path=str(target), num_bytes=target.stat().st_size)
    num_bytes, summed = 0, running_checksum()
    with progress(title, total=file.origin_bytes) as done, committed(target, synced=False) as copy:
        for chunk in chunks:
            keep = len(chunk) if scratch.keep_bytes is None else max(0, scratch.keep_bytes - num_bytes)
            copy.write(chunk[:keep])
            summed.update(chunk[:keep])
            num_bytes += len(chunk)
            done.add(position() - done.done)
    if not num_bytes:
        raise CorpusFormatError(f"'{file.origin}' is empty; expected records with a label and a text each")
    copies.note_checksum(target, summed.hexdigest())
    return replace(file, path=str(target), num_bytes=num_bytes)
