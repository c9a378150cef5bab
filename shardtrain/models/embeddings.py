"""Word vectors that others trained: GloVe's text files and fastText's .vec, read line by line, plain or .gz.

Only the vectors of the vocabulary's words are parsed and kept, so memory is that of the table, whatever the size of the
file. A line is a word and its numbers, with spaces or tabs between them; how many numbers is what a first line of two
integers says (fastText), or what the first vector has. Words that the file does not have get zeros. Where a file has a
word twice the first counts.
"""

from __future__ import annotations

import gzip
import itertools
import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from shardtrain.errors import ModelError

Table = npt.NDArray[np.float32]

_MARK = b"\xef\xbb\xbf"  # with which some editors begin a file of UTF-8


@dataclass(frozen=True, eq=False)
class Vectors:
    """Vectors of a vocabulary.

    Attributes:
        table: (vocabulary_size, dimension); row i is that of id i, zeros where there is none.
        found: how many words the file has.
    """

    table: Table
    found: int


def vocabulary(vectorizer: Path) -> list[str]:
    """The words of a fitted sequence vectorizer: that of id i, from 1, is at i - 1."""
    words: list[str] = json.loads((vectorizer / "terms.json").read_bytes())
    return words


def read_vectors(path: Path | str, words: Sequence[str], vocabulary_size: int) -> Vectors:
    """Read the vectors of `words`, the first of which has id 1.

    Raises:
        ModelError: there is no such file, it cannot be decompressed, a line of it has other than a word and the right
            number of numbers, or none of the words is in it.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no file of word vectors '{path}'; give --embeddings a GloVe or fastText text file")
    ids = {word.encode(): number for number, word in enumerate(words, 1)}
    table: Table | None = None
    found = 0
    for number, line, width in _lines(path):
        word, *values = line.rsplit(None, width)  # a few of GloVe's words have spaces in them
        place = ids.pop(word, 0)
        if not place and len(values) == width:
            continue
        vector = _parsed(values, width, path, number)
        if table is None:
            table = np.zeros((vocabulary_size, width), np.float32)
        table[place] = vector
        found += 1
    if table is None or not found:
        raise ModelError(
            f"'{path}' has none of the {len(words):,} words of the vocabulary; give --embeddings a file of the corpus' "
            "language, as text: GloVe's, or fastText's .vec"
        )
    return Vectors(table, found)


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """The lines with vectors, their numbers, from 1, and how many values a vector has.

    Raises:
        ModelError: the file cannot be decompressed.
    """
    width = None
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                line = line.removeprefix(_MARK).rstrip() if number == 1 else line.rstrip()
                if not line or line[:1].isspace():  # no word, or one of spaces
                    continue
                if width is None:
                    width, header = _width(line)
                    if header:
                        continue
                yield number, line, width
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ModelError(f"'{path}' cannot be decompressed ({error}); get the file again") from error


def _width(line: bytes) -> tuple[int, bool]:
    """How many values a vector has by the first line, and whether that is a header: the numbers of words and values."""
    parts = line.split()
    if len(parts) == 2 and all(part.isdigit() for part in parts):
        return int(parts[1]), True
    numbers = itertools.takewhile(_is_number, reversed(parts[1:]))  # the word may have spaces in it
    return sum(1 for _ in numbers), False


def _is_number(part: bytes) -> bool:
    try:
        float(part)
    except ValueError:
        return False
    return True


def _parsed(values: Sequence[bytes], width: int, path: Path, number: int) -> Table:
    try:
        with np.errstate(over="ignore"):  # what is too large becomes infinite
            vector = np.array([float(value) for value in values], np.float32)
    except ValueError:
        vector = np.zeros(0, np.float32)
    if len(vector) != width or not width or not np.isfinite(vector).all():
        raise ModelError(
            f"'{path}', line {number}: expected a word and {width} finite numbers; repair or remove the line"
        )
    return vector
