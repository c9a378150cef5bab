"""Write the same documents in many ways: formats, dialects, compressions and encodings of a corpus."""

from __future__ import annotations

import bz2
import csv
import gzip
import io
import json
import lzma
import zipfile
from collections.abc import Callable

import pytest

Rows = list[tuple[str, str]]

ROWS: Rows = [
    (("bad", "good")[i % 2], f"{word}, and; 'again' | so it is, number {i}")
    for i, word in enumerate(
        ["rusty", "tidy", "late", "warm", "dull", 'qu"iet', "sl\now", "qüick", "cold 'n", "solid"] * 3
    )
]


def as_separated(rows: Rows, *, header: bool, **dialect: object) -> str:
    file = io.StringIO(newline="")
    writer = csv.writer(file, **{"lineterminator": "\n", **dialect})  # type: ignore[arg-type]
    writer.writerows([("label", "text"), *rows] if header else rows)
    return file.getvalue()


def as_json_lines(rows: Rows) -> str:
    return "".join(json.dumps({"text": text, "label": label}) + "\n" for label, text in rows)


def as_json_array(rows: Rows, *, indent: int | None) -> str:
    return json.dumps([{"text": text, "label": label} for label, text in rows], indent=indent)


def as_wrapped(rows: Rows) -> str:
    return json.dumps({"version": "1", "data": [{"text": text, "label": label} for label, text in rows]})


WRITERS: dict[str, tuple[str, Callable[[Rows, bool], str]]] = {
    "commas": (".csv", lambda rows, header: as_separated(rows, header=header)),
    "commas, all quoted": (".csv", lambda rows, header: as_separated(rows, header=header, quoting=csv.QUOTE_ALL)),
    "semicolons": (".csv", lambda rows, header: as_separated(rows, header=header, delimiter=";")),
    "bars": (".csv", lambda rows, header: as_separated(rows, header=header, delimiter="|")),
    "sep line": (".csv", lambda rows, header: "sep=;\n" + as_separated(rows, header=header, delimiter=";")),
    "tabs": (".tsv", lambda rows, header: as_separated(rows, header=header, delimiter="\t")),
    "tabs, all quoted": (
        ".tsv",
        lambda rows, header: as_separated(rows, header=header, delimiter="\t", quoting=csv.QUOTE_ALL),
    ),
    "backslashes": (
        ".csv",
        lambda rows, header: as_separated(
            rows, header=header, quoting=csv.QUOTE_ALL, doublequote=False, escapechar="\\"
        ),
    ),
    "JSON Lines": (".jsonl", lambda rows, header: as_json_lines(rows)),
    "a JSON array": (".json", lambda rows, header: as_json_array(rows, indent=None)),
    "an indented JSON array": (".json", lambda rows, header: as_json_array(rows, indent=2)),
    "a wrapped JSON array": (".json", lambda rows, header: as_wrapped(rows)),
}


def zipped(content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("__MACOSX/._inside", b"")
        archive.writestr("inside", content)
    return file.getvalue()


def zstd(content: bytes) -> bytes:
    zstandard = pytest.importorskip("zstandard")
    half = len(content) // 2
    compress = zstandard.ZstdCompressor(write_checksum=True).compress
    return compress(content[:half]) + compress(content[half:])  # type: ignore[no-any-return]


COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "": lambda content: content,
    ".gz": lambda content: gzip.compress(content[:99]) + gzip.compress(content[99:]),
    ".bz2": lambda content: bz2.compress(content[:99]) + bz2.compress(content[99:]),
    ".xz": lzma.compress,
    ".zst": zstd,
    ".zip": zipped,
}
ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"]
