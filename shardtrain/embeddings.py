"""Word vectors that others trained: GloVe's text files and fastText's .vec, read line by line, plain or .gz.

Only the vectors of the vocabulary's words are parsed and kept, so memory is that of the table, whatever the size of the
file. A line is a word and its numbers; a first line of two integers (fastText) is skipped. Words that the file does not
have get zeros. Where a file has a word twice the first counts.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from shardtrain.errors import ModelError

Table = npt.NDArray[np.float32]


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
        ModelError: there is no such file, a line of it has other than a word and the right number of numbers, or none
            of the words is in it.
    """
    path = Path(path)
    if not path.is_file():
        raise ModelError(f"there is no file of word vectors '{path}'; give --embeddings a GloVe or fastText text file")
    ids = {word.encode(): number for number, word in enumerate(words, 1)}
    table: Table | None = None
    found = 0
    with _opened(path) as file:
        for number, line in _lines(file):
            if table is None:
                table = np.zeros((vocabulary_size, len(line.split()) - 1), np.float32)
            width = table.shape[1]
            word, *values = line.rsplit(b" ", width)  # a few of GloVe's words have spaces in them
            place = ids.pop(word, 0)
            if not place and len(values) == width:
                continue
            table[place] = _parsed(values, width, path, number)
            found += 1
    if table is None or not found:
        raise ModelError(
            f"'{path}' has none of the {len(words):,} words of the vocabulary; give --embeddings a file of the corpus' "
            "language, as text: GloVe's, or fastText's .vec"
        )
    return Vectors(table, found)


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _lines(file: IO[bytes]) -> Iterator[tuple[int, bytes]]:
    """The lines with vectors and their numbers, from 1."""
    for number, line in enumerate(file, 1):
        line = line.rstrip()
        header = number == 1 and len(line.split()) == 2 and all(part.isdigit() for part in line.split())
        if line and not header:
            yield number, line


def _parsed(values: Sequence[bytes], width: int, path: Path, number: int) -> Table:
    try:
        vector = np.array([float(value) for value in values], np.float32)
    except ValueError:
        vector = np.zeros(0, np.float32)
    if len(vector) != width or not width or not np.isfinite(vector).all():
        raise ModelError(
            f"'{path}', line {number}: expected a word and {width} finite numbers; repair or remove the line"
        )
    return vector
