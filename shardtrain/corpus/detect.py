"""What kind of file this is: text at all, which format, and its first records.

The extension decides the format; only a file without a known one is looked at. Detection reads the head of a file
and never more than `SAMPLE_BYTES` beyond its first record, so it costs the same for any size. What is not text
is refused here with a plain message, before thousands of rows of it are.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from shardtrain.corpus import rows
from shardtrain.corpus.records import GOOD, find_records
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
SAMPLE_BYTES = 1 << 20
SAMPLE_RECORDS = 500

EXTENSIONS = {".csv": "csv", ".tsv": "tsv", ".jsonl": "jsonl", ".ndjson": "jsonl", ".json": "jsonl"}
TEXT_EXTENSIONS = (".txt", "")  # may be a corpus; a look at the first lines decides on the format
ARCHIVES = (".tar", ".tgz", ".zip", ".7z", ".rar")

_HEAD_BYTES = 64 << 10
_MAGIC = (  # first bytes, what it is, what to do
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", "a corpus is text: give the file the shards or features were made from"),
    (b"PK\x03\x04", "a zip archive", "unpack it first; a workbook or document that is one: save it as CSV in UTF-8"),
    (b"\xd0\xcf\x11\xe0", "an old workbook or document", "save it as CSV in UTF-8"),
    (b"\x1f\x8b", "gzip data", "give it a name that ends in .gz, such as train.csv.gz"),
    (b"BZh", "bzip2 data", "unpack it first"),
    (b"\xfd7zXZ\x00", "xz data", "unpack it first"),
    (b"\x28\xb5\x2f\xfd", "Zstandard data", "unpack it first"),
    (b"PAR1", "a Parquet file", "export it as CSV or JSON Lines"),
    (b"%PDF-", "a PDF file", "export its text as CSV or JSON Lines"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", "convert it with `iconv -f UTF-32 -t UTF-8`"),
    (b"\xff\xfe", "UTF-16 text", "convert it with `iconv -f UTF-16 -t UTF-8`"),
    (b"\xfe\xff", "UTF-16 text", "convert it with `iconv -f UTF-16 -t UTF-8`"),
)
_CONTROLS = bytes(set(range(32)) - set(b"\t\n\v\f\r\x1b"))
_FEWEST_CONTROLS, _CONTROL_SHARE = 32, 0.05  # random bytes have 0.10; text with a stray NUL here and there far less


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The first records of a file.

    Attributes:
        begin: position behind the byte order mark, if there is one.
        lines: the good ones as UTF-8, with their newlines.
        starts: position of each good one, and of what follows the last (the next record, or the file's end).
        line_numbers: numbers of the lines at `starts`.
        first_bad: (line, reason) of the first record that is bad, or None.
        begins_good: whether the file's first record is a good one, which a header must be.
    """

    begin: int
    lines: list[bytes]
    starts: list[int]
    line_numbers: list[int]
    first_bad: tuple[int, str] | None
    begins_good: bool


def format_by_name(name: str) -> str | None:
    """Give the format that the extension says, a .gz behind it left aside; None where it says none."""
    return EXTENSIONS.get(Path(name.lower().removesuffix(".gz")).suffix)


def may_be_corpus(name: str) -> bool:
    """Whether a file of this name can be a corpus: a known extension, .txt or none."""
    stem = Path(name.lower().removesuffix(".gz"))
    return stem.suffix in EXTENSIONS or stem.suffix in TEXT_EXTENSIONS


def read_exactly(descriptor: int, path: str) -> Callable[[int, int], bytes]:
    """Give a function of (position, size) that reads exactly those bytes of an open file.

    Raises:
        CorpusFormatError: (the function) the file has become shorter.
    """

    def read(position: int, size: int) -> bytes:
        pieces = []
        while size:
            piece = os.pread(descriptor, size, position)
            if not piece:
                raise CorpusFormatError(f"'{path}' ends at byte {position:,} now: it was cut meanwhile; start again")
            pieces.append(piece)
            position, size = position + len(piece), size - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    return read


def refuse_binary(path: Path, origin: Path) -> None:
    """Refuse a file that is not text, or cannot be read as UTF-8.

    Raises:
        CorpusNotFoundError: the file is empty.
        CorpusFormatError: it is something else than text; the message says what.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.removeprefix(BYTE_ORDER_MARK).strip(b" \r\n") and os.path.getsize(path) <= _HEAD_BYTES:
        raise CorpusNotFoundError(f"'{origin}' is empty: it has no record; a corpus has a label and a text in each")
    for magic, what, advice in _MAGIC:
        if head.startswith(magic):
            raise CorpusFormatError(f"'{origin}' is {what}, not text; {advice}")
    num_controls = len(head) - len(head.translate(None, _CONTROLS))
    if num_controls > max(_FEWEST_CONTROLS, _CONTROL_SHARE * len(head)):
        raise CorpusFormatError(
            f"'{origin}' looks binary: {num_controls:,} of its first {len(head):,} bytes are control characters; "
            "a corpus is text in CSV, TSV or JSON Lines, or a folder of text files per class"
        )


def format_by_look(path: Path, origin: Path) -> str:
    """Decide on the format of a file by its first lines.

    Raises:
        CorpusFormatError: they look like none of the formats.
    """
    with open(path, "rb") as file:
        head = file.read(_HEAD_BYTES).removeprefix(BYTE_ORDER_MARK)
    lines = [line for line in head.split(b"\n") if line.strip()]
    lines = lines[:-1] if len(head) == _HEAD_BYTES and len(lines) > 1 else lines
    if all(line.lstrip().startswith(b"{") for line in lines):
        return "jsonl"
    if all(b"\t" in line for line in lines):
        return "tsv"
    fields = [len(row) for row in rows.split_fields("csv", take_sample(path, "csv").lines)]
    if fields and min(fields) > 1 and min(fields) == max(fields):
        return "csv"
    raise CorpusFormatError(
        f"'{origin}' has no extension that tells its format and its first lines look like none of CSV, TSV and "
        "JSON Lines; say --format csv, tsv or jsonl"
    )


def take_sample(path: Path, format: str) -> Sample:  # noqa: A002 - the word users know
    """Read the first records, up to `SAMPLE_RECORDS` of them or `SAMPLE_BYTES` of the file."""
    lines, starts, line_numbers = [], [], []
    first_bad, begins_good = None, False
    with open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        read = read_exactly(file.fileno(), str(path))
        begin = len(BYTE_ORDER_MARK) if file.read(3) == BYTE_ORDER_MARK else 0
        end, end_line = begin, 1
        for start, stop, line, code in _one_by_one(
            read, begin, size, quoting=format == "csv", blanks=format == "lines"
        ):
            if code != GOOD:
                first_bad = first_bad or (line, rows.reason_for(code, line))
            else:
                begins_good = begins_good or first_bad is None
                piece = read(start, stop - start)
                lines.append(rows.decodable(piece, np.zeros(1, np.int64), np.array([len(piece)]))[0])
                starts.append(start)
                line_numbers.append(line)
                end, end_line = stop, line + piece.count(b"\n")
            if len(lines) == SAMPLE_RECORDS or stop > SAMPLE_BYTES:
                break
    return Sample(
        begin=begin,
        lines=lines,
        starts=[*starts, end],
        line_numbers=[*line_numbers, end_line],
        first_bad=first_bad,
        begins_good=begins_good,
    )


def _one_by_one(
    read: Callable[[int, int], bytes], start: int, stop: int, *, quoting: bool, blanks: bool
) -> Iterator[tuple[int, int, int, int]]:
    for found in find_records(read, start, stop, first_line=1, quoting=quoting, blanks=blanks):
        yield from ((begin, end, line, code) for begin, end, line, code in found.tolist())
