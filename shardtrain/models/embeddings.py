"""Read pretrained word vectors line by line: GloVe's text format and fastText's .vec, plain or gzipped.

Only vectors of words in the vocabulary are parsed and kept, so memory is that of the embedding table, whatever the size
of the file. A line is a word and its values, separated by spaces or tabs; the dimension comes from a header of two
integers (fastText) or from the first vector. Words missing from the file get zeros; of repeated words the first counts.
"""

from __future__ import annotations

import gzip
import itertools
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from shardtrain.errors import ModelError, VectorizerError
from shardtrain.vectorize.saved import read_terms

Table = npt.NDArray[np.float32]

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"  # of UTF-8; some editors write it at the start of a file


@dataclass(frozen=True, eq=False)
class Vectors:
    """Word vectors of a vocabulary.

    Attributes:
        table: (vocabulary_size, dimension); row i belongs to id i, zeros if its word is not in the file.
        found: words of the vocabulary that are in the file.
    """

    table: Table
    found: int


def vocabulary(vectorizer: Path, vocabulary_size: int) -> list[str]:
    """Read the words of a fitted sequence vectorizer; the word of id i, from 1, is at index i - 1.

    Raises:
        VectorizerError: it is missing or damaged, or has words without an id below `vocabulary_size`.
    """
    words = read_terms(vectorizer)
    if len(words) >= vocabulary_size:
        raise VectorizerError(
            f"the vectorizer in '{vectorizer}' has {len(words):,} words, the shards have ids of {vocabulary_size - 1:,}"
            "; restore the shards' own vectorizer from a copy, or rebuild the shards"
        )
    return words


def read_vectors(path: Path | str, words: Sequence[str], vocabulary_size: int) -> Vectors:
    """Read the vectors of `words`, the first of which has id 1.

    Raises:
        ModelError: the file does not exist or cannot be decompressed, a line has the wrong number of values, or none of
            the words is in the file.
    """
    path = Path(path)
    check_file(path)
    ids = {word.encode(): number for number, word in enumerate(words, 1)}
    table: Table | None = None
    found = 0
    for number, line, width in _lines(path):
        word, *values = line.rsplit(None, width)  # from the right, as a few words of GloVe contain spaces
        row = ids.pop(word, 0)
        if not row and len(values) == width:
            continue
        vector = _parsed(values, width, path, number)
        if table is None:
            table = np.zeros((vocabulary_size, width), np.float32)
        table[row] = vector
        found += 1
    if table is None or not found:
        raise ModelError(
            f"'{path}' has none of the {len(words):,} words of the vocabulary; pass a text file in the language of the "
            "corpus as --embeddings: GloVe's format or fastText's .vec"
        )
    return Vectors(table, found)


def check_file(path: Path) -> None:
    """Check that a file of word vectors exists.

    Raises:
        ModelError: it does not.
    """
    if not path.is_file():
        raise ModelError(f"no file of word vectors at '{path}'; pass a GloVe or fastText text file as --embeddings")


def _opened(path: Path) -> IO[bytes]:
    return gzip.open(path) if path.suffix == ".gz" else open(path, "rb")  # type: ignore[return-value]


def _lines(path: Path) -> Iterator[tuple[int, bytes, int]]:
    """Yield each line with a vector: its number, from 1, its bytes and the dimension of the vectors.

    Raises:
        ModelError: the file cannot be decompressed.
    """
    width = None
    try:
        with _opened(path) as file:
            for number, line in enumerate(file, 1):
                line = line.removeprefix(_BYTE_ORDER_MARK).rstrip() if number == 1 else line.rstrip()
                if not line or line[:1].isspace():  # the word is missing
                    continue
                if width is None:
                    width, header = _width(line)
                    if header:
                        continue
                yield number, line, width
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise ModelError(f"'{path}' cannot be decompressed ({error}); download the file again") from error


def _width(line: bytes) -> tuple[int, bool]:
    """Return the dimension that the first line gives, and whether it is a header: the number of words and dimension."""
    parts = line.split()
    if len(parts) == 2 and all(part.isdigit() for part in parts):
        return int(parts[1]), True
    numbers = itertools.takewhile(_is_number, reversed(parts[1:]))  # the word may contain spaces
    return sum(1 for _ in numbers), False


def _is_number(part: bytes) -> bool:
    try:
        float(part)
    except ValueError:
        return False
    return True


def _parsed(values: Sequence[bytes], width: int, path: Path, number: int) -> Table:
    try:
        with np.errstate(over="ignore"):  # values too large for float32 become infinite and are refused below
            vector = np.array([float(value) for value in values], np.float32)
    except ValueError:
        vector = np.zeros(0, np.float32)
    if len(vector) != width or not width or not np.isfinite(vector).all():
        raise ModelError(
            f"'{path}', line {number}: expected a word and {width} finite numbers; repair or remove the line"
        )
    return vector
