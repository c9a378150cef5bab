"""Write corpora whose shape is hostile to the memory of a build: what a text can have too many or too much of."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import IO

_ODD = 2654435761  # times a number modulo a power of two: a bijection, so distinct numbers give distinct tokens


@dataclass(frozen=True, kw_only=True)
class Shape:
    """The shape of a corpus.

    Attributes:
        tokens: "distinct": every token occurs once; "twice": in two documents; "one": all are the same; "short": all
            are the same two letters; "few": there are a hundred; "growing": the number of different tokens grows with
            the square root of the text.
        words: tokens of a document.
        first_words: tokens of the first document, if they are others.
        letters: characters of a token at most.
        labels: number of different labels; 0: each document has its own.
        blank: of ten documents how many have an empty text.
        columns: a file of "csv", "jsonl" or "parquet".
    """

    tokens: str = "distinct"
    words: int = 100
    first_words: int = 0
    letters: int = 10
    labels: int = 2
    blank: int = 0
    format: str = "csv"


def write(shape: Shape, folder: Path, num_bytes: int) -> Path:
    """Write a corpus of about `num_bytes` bytes and return its file."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"corpus.{shape.format}"
    if shape.format == "parquet":
        _write_parquet(path, documents(shape, num_bytes))
        return path
    with open(path, "w", encoding="utf-8") as file:
        for label, text in documents(shape, num_bytes):
            _write_row(file, shape.format, label, text)
    return path


def documents(shape: Shape, num_bytes: int) -> Iterator[tuple[str, str]]:
    """Yield labels and texts of about `num_bytes` bytes in all."""
    written = 0
    tokens = _tokens(shape)
    for number in count():
        if written >= num_bytes and number >= 20:
            return
        label = f"label {number % shape.labels if shape.labels else number}"
        blank = number % 10 < shape.blank
        text = (
            "" if blank else " ".join(next(tokens) for _ in range((number == 0 and shape.first_words) or shape.words))
        )
        written += len(label) + len(text) + 2
        yield label, text


def _tokens(shape: Shape) -> Iterator[str]:
    for number in count():
        if shape.tokens in ("one", "short"):
            yield "token" if shape.tokens == "one" else "aa"
            continue
        numbers = {
            "distinct": number,
            "twice": number // (2 * shape.words) * shape.words + number % shape.words,
            "few": number * _ODD % 101,
            "growing": int((number * _ODD % 2**20 / 2**20) ** 2 * (number + 1) ** 0.5 * 20),
        }
        token = f"{numbers[shape.tokens] * _ODD % 2**40:010x}"
        yield (token * (shape.letters // 10 + 1))[: shape.letters] if shape.letters > 10 else token


def _write_row(file: IO[str], format: str, label: str, text: str) -> None:  # noqa: A002 - the word users know
    if format == "csv":
        file.write(f"{label},{text}\n")
    else:
        file.write(f'{{"label": "{label}", "text": "{text}"}}\n')


def _write_parquet(path: Path, rows: Iterator[tuple[str, str]]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    labels, texts = zip(*rows, strict=True)
    pq.write_table(pa.table({"label": list(labels), "text": list(texts)}), path)
