"""LibSVM files as tables: a line is a label and `column:value` pairs; comments and query ids are left out.

A file is cut into byte ranges that end with a line. Numbers are parsed by NumPy, a range at a time. Columns count from
1, or from 0 if any line has a column 0, as scikit-learn decides it; so everything is read once before rows are written.
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
from shardtrain.tables.blocks import Block, tidy
from shardtrain.tables.labels import RawLabels, raw_labels

PIECE_BYTES = 4 << 20
_LONGEST_LINE = 64 << 20
_LONGEST_WORD = 1000  # of a label or number; all words of a piece are parsed in the width of its longest
_INTEGRAL = re.compile(rb"([+-]?[0-9]{1,18})(\.0*)?")
_NO_PAIR = re.compile(rb":(?:[^\s:]*:|(?=\s|\Z)|(?<=\s:))")  # a colon beside another in a word, or at its end or start
_PAIR = re.compile(rb"[0-9]+:[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]+)?|[0-9]+:[-+]?([iI]nf|[nN]a[nN])")


@dataclass(frozen=True, kw_only=True)
class LibsvmTable:
    """One LibSVM file; `base` is the number of its first column, `num_features` 0 until that is known."""

    path: Path
    num_features: int = 0
    base: int = 0

    @property
    def kind(self) -> str:
        """Sparse rows."""
        return "ngram"

    @property
    def scanned(self) -> bool:
        """Only reading everything tells the columns."""
        return not self.num_features

    @property
    def units(self) -> str:
        """Of the pieces."""
        return "bytes"

    def pieces(self) -> list[tuple[int, int]]:
        """Byte ranges that end where a line does."""
        cuts = [0]
        with open(self.path, "rb") as file:
            size = file.seek(0, 2)
            while cuts[-1] < size:
                file.seek(min(cuts[-1] + PIECE_BYTES, size))
                if len(file.readline(_LONGEST_LINE)) == _LONGEST_LINE:
                    raise CorpusFormatError(f"'{self.path}' has a line of more than {_LONGEST_LINE >> 20} MiB")
                cuts.append(file.tell())
        return list(pairwise(cuts))

    def labels(self, start: int, stop: int) -> Iterator[RawLabels]:
        """Labels of the lines in bytes [start, stop)."""
        for block in self.blocks(start, stop):
            yield block.labels

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Rows of the lines in bytes [start, stop), their columns counted from `base`."""
        labels, x = self._parse(start, stop)
        yield Block(x, labels)

    def _parse(self, start: int, stop: int) -> tuple[RawLabels, Csr]:
        with open(self.path, "rb") as file:
            file.seek(start)
            content = file.read(stop - start)
        if b"#" in content:
            content = re.sub(rb"#[^\n]*", b"", content)
        if b"qid:" in content:
            content = re.sub(rb"\sqid:[0-9]+", b" ", content)
        lines = [line for line in content.splitlines() if line and not line.isspace()]
        counts = np.fromiter((line.count(b":") for line in lines), np.int64, len(lines))
        first = [line.split(None, 1)[0] for line in lines]
        tokens = b" ".join(lines).replace(b":", b" ").split()
        indptr = np.concatenate([[0], np.cumsum(counts)])
        places = 2 * indptr[:-1] + np.arange(len(lines))  # of the labels among the tokens
        whole = len(tokens) == 2 * int(indptr[-1]) + len(lines) and not _NO_PAIR.search(content)
        if not whole or any(b":" in label for label in first):
            raise self._bad_line(lines)
        if (longest := max(map(len, tokens), default=0)) > _LONGEST_WORD:
            raise CorpusFormatError(
                f"'{self.path}' has a label or number of {longest:,} characters, at most {_LONGEST_WORD:,} can be; is "
                "it a LibSVM file?"
            )
        pairs = np.ones(len(tokens), np.bool_)
        pairs[places] = False
        numbers = np.array(tokens, np.bytes_)[pairs] if tokens else np.zeros(0, np.bytes_)
        try:
            columns = numbers[0::2].astype(np.int64)
            values = numbers[1::2].astype(np.float64)
        except (ValueError, OverflowError) as error:
            raise self._bad_line(lines) from error
        columns -= self.base
        width = self.num_features or max(int(columns.max()) + 1 if len(columns) else 1, 1)
        x = tidy(values, columns, indptr, width, str(self.path))
        return raw_labels(np.array([_label(label) for label in first], object), str(self.path)), x

    def _bad_line(self, lines: list[bytes]) -> CorpusFormatError:
        wrong = next((line for line in lines if not _is_row(line)), lines[0])
        shown = wrong[:60].decode(errors="replace")
        return CorpusFormatError(f"'{self.path}' has a line that is no label and column:value pairs: {shown!r}")

    def known(self, num_features: int, base: int) -> LibsvmTable:
        """The same with its columns known."""
        return replace(self, num_features=num_features, base=base)


def _label(label: bytes) -> bytes:
    """Whole numbers as such, however they are written; anything else as it is."""
    whole = _INTEGRAL.fullmatch(label)
    return b"%d" % int(whole[1]) if whole else label


def _is_row(line: bytes) -> bool:
    label, *pairs = line.split()
    return b":" not in label and all(_PAIR.fullmatch(pair) and len(pair.split(b":")[0]) < 19 for pair in pairs)


def open_libsvm(path: Path) -> LibsvmTable:
    """The table in a LibSVM file.

    Raises:
        CorpusNotFoundError: there is no such file.
        CorpusFormatError: it is empty, or compressed.
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
    """The lowest and the highest column, or token id, of a block; (0, -1) of none."""
    values: npt.NDArray[Any] = x.indices if isinstance(x, Csr) else x
    return (int(values.min()), int(values.max())) if values.size else (1, 0)
