"""Read LibSVM files as tables: each line has a label and `column:value` pairs; comments and query ids are skipped.

A file is cut into byte ranges that end with a line; NumPy parses the numbers of a range at once. Columns count from 1,
or from 0 if any line has a column 0, as scikit-learn decides it, so a file is read once before rows are written. Why
not scikit-learn's reader: see "Choices" in docs/design.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError
from shardtrain.tables.blocks import Block, as_csr
from shardtrain.tables.labels import RawLabels, raw_labels

PIECE_BYTES = 4 << 20
_MAX_LINE = 64 << 20
_MAX_WORD = 1000  # characters; all numbers of a piece are parsed in the width of the longest
_INTEGER = re.compile(rb"([+-]?[0-9]{1,18})(\.0*)?")
_NOT_A_PAIR = re.compile(rb":(?:[^\s:]*:|(?=\s|\Z)|(?<=\s:))")  # two colons in a word, or one at its start or end
_NUMBER = rb"[-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?(?:[iI]nf|[nN]a[nN])"
_ROW = re.compile(rb"\s*[^\s:]+(?:\s+[0-9]{1,18}:(?:%s)(?!\S))*+\s*" % _NUMBER)


@dataclass(frozen=True, kw_only=True)
class LibsvmTable:
    """One LibSVM file; `base` is the number of its first column, `num_features` 0 until it is known."""

    path: Path
    num_features: int = 0
    base: int = 0

    @property
    def kind(self) -> str:
        """Sparse rows."""
        return "ngram"

    @property
    def num_bytes(self) -> int:
        """Only a scan shows how many values it has."""
        return 0

    @property
    def units(self) -> str:
        """Pieces are ranges of bytes."""
        return "bytes"

    def pieces(self) -> list[tuple[int, int]]:
        """Cut the file into byte ranges that end with a line."""
        cuts = [0]
        with open(self.path, "rb") as file:
            size = file.seek(0, 2)
            while cuts[-1] < size:
                file.seek(min(cuts[-1] + PIECE_BYTES, size))
                if len(file.readline(_MAX_LINE)) == _MAX_LINE:
                    raise CorpusFormatError(f"'{self.path}' has a line of more than {_MAX_LINE >> 20} MiB")
                cuts.append(file.tell())
        return list(pairwise(cuts))

    def labels(self, start: int, stop: int) -> Iterator[RawLabels]:
        """Yield the labels of the lines in bytes [start, stop)."""
        for block in self.blocks(start, stop):
            yield block.labels

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Yield the rows of the lines in bytes [start, stop); columns are counted from `base`."""
        with open(self.path, "rb") as file:
            file.seek(start)
            content = file.read(stop - start)
        if b"#" in content:
            content = re.sub(rb"#[^\n]*", b"", content)
        if b"qid:" in content:
            content = re.sub(rb"\sqid:[0-9]+", b" ", content)
        lines = [line for line in content.splitlines() if line and not line.isspace()]
        labels = [line.split(None, 1)[0] for line in lines]
        pairs = b" ".join([line.lstrip()[len(label) :] for line, label in zip(lines, labels, strict=True)])
        words = pairs.replace(b":", b" ").split()
        indptr = np.cumsum([0, *(line.count(b":") for line in lines)], dtype=np.int64)
        # All words but the labels are pairs if no word has a misplaced colon, and each colon has two words around it.
        if _NOT_A_PAIR.search(content) or len(words) != 2 * int(indptr[-1]) or any(b":" in label for label in labels):
            raise self._bad_line(lines)
        if (longest := max(map(len, [*words, *labels]), default=0)) > _MAX_WORD:
            raise CorpusFormatError(
                f"'{self.path}' has a label or number of {longest:,} characters, at most {_MAX_WORD:,} are expected; "
                "is it a LibSVM file?"
            )
        numbers = np.array(words, np.bytes_).reshape(-1, 2)
        try:
            columns = numbers[:, 0].astype(np.int64) - self.base
            values = numbers[:, 1].astype(np.float64)
        except (ValueError, OverflowError) as error:
            raise self._bad_line(lines) from error
        width = self.num_features or int(columns.max(initial=0)) + 1
        x = as_csr(values, columns, indptr, width, str(self.path))
        yield Block(x, raw_labels(np.array([_normalized(label) for label in labels], object), str(self.path)))

    def _bad_line(self, lines: list[bytes]) -> CorpusFormatError:
        wrong = next((line for line in lines if not _ROW.fullmatch(line)), lines[0])
        shown = wrong[:60].decode(errors="replace")
        return CorpusFormatError(f"'{self.path}' has a line that is not a label and column:value pairs: {shown!r}")

    def with_columns(self, num_features: int, base: int) -> LibsvmTable:
        """Return the same table with its columns known."""
        return replace(self, num_features=num_features, base=base)


def _normalized(label: bytes) -> bytes:
    """Write whole numbers in one way (`+1` and `1.0` as `1`); other labels stay as they are."""
    integer = _INTEGER.fullmatch(label)
    return b"%d" % int(integer[1]) if integer else label


def open_libsvm(path: Path) -> LibsvmTable:
    """Open a LibSVM file.

    Raises:
        CorpusNotFoundError: the file cannot be read.
        CorpusFormatError: it is empty or compressed.
    """
    try:
        with open(path, "rb") as file:
            head = file.read(4)
    except OSError as error:
        raise CorpusNotFoundError(f"'{path}' cannot be read: {error.strerror}") from error
    if not head or head[:2] == b"\x1f\x8b" or head[:3] == b"BZh":
        raise CorpusFormatError(f"'{path}' is {'compressed; unpack it first' if head else 'empty'}")
    return LibsvmTable(path=path)


def column_range(x: Any) -> tuple[int, int]:
    """Return the lowest and the highest column, or token id, of a block; (1, 0) if it has none."""
    values: npt.NDArray[Any] = x.indices if isinstance(x, Csr) else x
    return (int(values.min()), int(values.max())) if values.size else (1, 0)
