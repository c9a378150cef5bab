"""Detect the format of a file and read its first records; refuse binary files.

Detection reads the head of a file and at most `SAMPLE_BYTES` beyond its first record, so its cost does not depend on
the file's size.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shardtrain.corpus import parsing
from shardtrain.corpus.compressed import plain_name
from shardtrain.corpus.encodings import UTF8_MARK
from shardtrain.corpus.fields import LABEL_PREFIX
from shardtrain.corpus.records import GOOD, Syntax, find_records
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError

SAMPLE_BYTES = 1 << 20
SAMPLE_RECORDS = 500

EXTENSIONS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".arrow": "arrow",
    ".feather": "arrow",
}
TEXT_EXTENSIONS = (".txt", ".ft", "")  # may be a corpus; the first lines decide on the format
ARCHIVES = (".tar", ".tgz", ".7z", ".rar")
COLUMNAR = ((b"PAR1", "parquet"), (b"ARROW1", "arrow"), (b"\xff\xff\xff\xff", "arrow"))  # first bytes

_HEAD_BYTES = 64 << 10
_MAGIC = (  # (first bytes, kind of file, advice)
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "a corpus is text: give the file the shards or features were made from"),
    (b"\xd0\xcf\x11\xe0", "an old workbook or document", "save it as CSV in UTF-8"),
    (b"%PDF-", "a PDF file", "export its text as CSV or JSON Lines"),
    (b"ORC", "an ORC file", "convert it to Parquet"),
    (b"Obj\x01", "an Avro file", "convert it to Parquet or JSON Lines"),
    (b"SQLite format 3\0", "an SQLite database", "export its table with `sqlite3 -csv FILE 'select …' > NEW.csv`"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_MIN_CONTROLS, _CONTROL_SHARE = 32, 0.05  # random bytes: a share of 0.10; text with some stray NULs: far less


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The first records of a file.

    Attributes:
        begin: position of the first record: after a byte order mark and a line `sep=`.
        first_line: number of the line at `begin`, from 1.
        lines: the good records as UTF-8, with their newlines.
        after_first: position and number of the line where the first good record ends; whatever follows it, good or bad.
        line_numbers: numbers of the lines where the good records begin, and of what follows the last.
        first_bad: (line, reason) of the first bad record, or None.
        first_is_good: whether the file's first record is good, which a header must be.
    """

    begin: int
    first_line: int
    lines: list[bytes]
    after_first: tuple[int, int]
    line_numbers: list[int]
    first_bad: tuple[int, str] | None
    first_is_good: bool


def format_from_name(name: str) -> str | None:
    """Return the format that the extension stands for, ignoring that of a compression; None for an unknown one."""
    return EXTENSIONS.get(Path(plain_name(name.lower())).suffix)


def may_be_corpus(name: str) -> bool:
    """Return whether a file of this name can be a corpus: a known extension, .txt or none, ignoring a compression's."""
    stem = Path(plain_name(name.lower()))
    return stem.suffix in EXTENSIONS or stem.suffix in TEXT_EXTENSIONS


def range_reader(descriptor: int, path: str) -> Callable[[int, int], bytes]:
    """Return a function of (position, size) that reads exactly these bytes of an open file.

    The function raises CorpusFormatError if the file ends before them: it was truncated in the meantime.
    """

    def read(position: int, size: int) -> bytes:
        pieces = []
        while size:
            piece = os.pread(descriptor, size, position)
            if not piece:
                raise CorpusFormatError(
                    f"'{path}' ends at byte {position:,}: it was truncated while being read; start again"
                )
            pieces.append(piece)
            position, size = position + len(piece), size - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    return read


def check_is_text(head: bytes, origin: Path, *, whole: bool) -> None:
    """Check that a file is text.

    Args:
        head: its first bytes, decompressed and in UTF-8, without the byte order mark.
        origin: the file, for messages.
        whole: whether the file has no more bytes.

    Raises:
        CorpusNotFoundError: the file is empty.
        CorpusFormatError: the file is binary; the message names the kind of file where it is known.
    """
    if whole and not head.strip(b" \r\n"):
        raise CorpusNotFoundError(f"'{origin}' is empty; expected records with a label and a text each")
    for magic, kind, advice in _MAGIC:
        if head.startswith(magic):
            raise CorpusFormatError(f"'{origin}' is {kind}, not text; {advice}")
    if head[257:262] == b"ustar":
        raise CorpusFormatError(f"'{origin}' is a tar archive; unpack it and give the folder or a file")
    num_controls = len(head) - len(head.translate(None, _CONTROLS))
    if num_controls > max(_MIN_CONTROLS, _CONTROL_SHARE * len(head)):
        raise CorpusFormatError(
            f"'{origin}' looks binary: {num_controls:,} of its first {len(head):,} bytes are control characters; "
            "expected text in CSV, TSV or JSON Lines, Parquet, or a folder of text files per class; a text in another "
            "encoding than UTF-8 needs --encoding"
        )


def format_from_content(path: Path) -> str | None:
    """Detect the format of a text file from its first lines; None if they are neither JSON Lines nor fastText's."""
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES).removeprefix(UTF8_MARK)
    lines = [line for line in head.split(b"\n") if line.strip()]
    lines = lines[:-1] if len(head) == _HEAD_BYTES and len(lines) > 1 else lines
    if all(line.lstrip().startswith(b"{") for line in lines):
        return "jsonl"
    if all(line.lstrip().startswith(LABEL_PREFIX) for line in lines):
        return "fasttext"
    return "tsv" if all(b"\t" in line for line in lines) else None


def first_line(path: Path, begin: int) -> bytes:
    """Read the line at `begin`, or its first `_HEAD_BYTES`."""
    with open(path, "rb") as file:
        file.seek(begin)
        return file.readline(_HEAD_BYTES)


def read_sample(path: Path, syntax: Syntax, *, begin: int = 0, line: int = 1) -> Sample:
    """Read the first records from `begin` on, on the given line: `SAMPLE_RECORDS` or those in `SAMPLE_BYTES`."""
    lines, line_numbers, after_first = [], [], (begin, line)
    first_bad, first_is_good = None, False
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        read = range_reader(file.fileno(), str(path))
        end_line = line
        for start, stop, number, code in _iterate_records(read, begin, size, line, syntax):
            if code != GOOD:
                first_bad = first_bad or (number, parsing.reason_for(code, number))
            else:
                first_is_good = first_is_good or first_bad is None
                piece = read(start, stop - start)
                lines.append(parsing.replace_undecodable(piece, np.zeros(1, np.int64), np.array([len(piece)]))[0])
                line_numbers.append(number)
                end_line = number + piece.count(b"\n")
                if len(lines) == 1:
                    after_first = stop, end_line
            if len(lines) == SAMPLE_RECORDS or stop - begin > SAMPLE_BYTES:
                break
    return Sample(
        begin=begin,
        first_line=line,
        lines=lines,
        after_first=after_first,
        line_numbers=[*line_numbers, end_line],
        first_bad=first_bad,
        first_is_good=first_is_good,
    )


def _iterate_records(
    read: Callable[[int, int], bytes], start: int, stop: int, line: int, syntax: Syntax
) -> Iterator[tuple[int, int, int, int]]:
    for found in find_records(read, start, stop, first_line=line, syntax=syntax):
        yield from ((begin, end, number, code) for begin, end, number, code in found.tolist())
