"""Store labels and texts in blocks in a scratch file: what corpora become that cannot be read from any position.

Parquet and Arrow files, tables and iterables are read once, in order, and their labels and texts are written here; all
passes then read blocks by position, in any order and process. The cost is disk of the size of the texts; decoding a
Parquet file again in each pass would take longer. A block holds its labels, which of them are missing, and its texts:

    label offsets (rows + 1) int64 | text offsets (rows + 1) int64 | missing (rows) uint8 | labels | texts

The file begins with a line of JSON that describes the columns, and ends with an index, (blocks, 4) int64:
position, rows, bytes of labels and bytes of texts of each block, and the number of blocks.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.corpus.source import Source
from shardtrain.errors import CorpusFormatError

BLOCK_BYTES = 1 << 18  # of texts: units are made of whole blocks, and some analyzers need small units
FORMATS = ("parquet", "arrow", "rows")  # that are stored in blocks


def is_block_file(source: Source) -> bool:
    """Return whether the files of a source are stored in blocks."""
    return source.format in FORMATS


class BlockWriter:
    """Write a file of blocks: `append` rows, then `finish`; `columns` describes them."""

    def __init__(self, file: IO[bytes], columns: Mapping[str, Any] | None = None) -> None:
        self.file = file
        file.write(json.dumps(columns or {}).encode() + b"\n")
        self.num_rows = 0
        self._index: list[tuple[int, int, int, int]] = []
        self._labels: list[str | None] = []
        self._texts: list[Texts] = []
        self._pending = 0  # bytes of texts

    def append(self, labels: Sequence[str | None], texts: Texts) -> None:
        """Append rows: a label, None where it is missing, and a text each."""
        cuts = [0, *np.searchsorted(texts.offsets, np.arange(BLOCK_BYTES, texts.offsets[-1], BLOCK_BYTES)).tolist()]
        for start, stop in zip(cuts, [*cuts[1:], len(texts)], strict=True):
            if start < stop:
                self._labels += labels[start:stop]
                self._texts.append(texts[start:stop])
                self._pending += int(texts.offsets[stop] - texts.offsets[start])
            if self._pending >= BLOCK_BYTES:
                self._write_block()

    def finish(self) -> None:
        """Write the rows that are left and the index."""
        if self._labels:
            self._write_block()
        self.file.write(np.array(self._index, np.int64).tobytes() + np.int64(len(self._index)).tobytes())

    def _write_block(self) -> None:
        labels = Texts.from_utf8([(label or "").encode("utf-8", "surrogatepass") for label in self._labels])
        missing = np.fromiter((label is None for label in self._labels), np.uint8, len(self._labels))
        sizes = np.concatenate([np.diff(texts.offsets) for texts in self._texts])
        offsets = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        self._index.append((self.file.tell(), len(sizes), len(labels.data), int(offsets[-1])))
        for array in (labels.offsets, offsets, missing, labels.data, *(texts.data for texts in self._texts)):
            self.file.write(np.ascontiguousarray(array).data)
        self.num_rows += len(sizes)
        self._labels, self._texts, self._pending = [], [], 0


def read_columns(path: Path) -> dict[str, Any]:
    """Return the description of the columns of a file of blocks."""
    with open(path, "rb") as file:
        return dict(json.loads(file.readline()))


def read_index(path: Path) -> list[tuple[int, int]]:
    """Return the rows and the bytes of text of each block of a file."""
    return [(rows, text_bytes) for _, rows, _, text_bytes in _index(path).tolist()]


def read_blocks(path: Path, start: int, stop: int) -> tuple[Texts, npt.NDArray[np.bool_], Texts]:
    """Read the rows of the blocks [start, stop): labels, which of them are missing, and texts."""
    labels, missing, texts = [], [], []
    index = _index(path)[start:stop]
    with open(path, "rb") as file:
        for position, rows, label_bytes, text_bytes in index.tolist():
            file.seek(position)
            size = 16 * (rows + 1) + rows + label_bytes + text_bytes
            content = file.read(size)
            if len(content) != size:
                raise CorpusFormatError(f"'{path}' ends too early: it was changed while it was read; start again")
            offsets = np.frombuffer(content, np.int64, 2 * (rows + 1))
            begin = offsets.nbytes + rows
            missing.append(np.frombuffer(content, np.bool_, rows, offset=offsets.nbytes))
            labels.append(Texts(np.frombuffer(content, np.uint8, label_bytes, offset=begin), offsets[: rows + 1]))
            texts.append(Texts(np.frombuffer(content, np.uint8, offset=begin + label_bytes), offsets[rows + 1 :]))
    return Texts.concatenated(labels), np.concatenate([np.empty(0, np.bool_), *missing]), Texts.concatenated(texts)


def _index(path: Path) -> npt.NDArray[np.int64]:
    with open(path, "rb") as file:
        file.seek(-8, 2)
        count = int(np.frombuffer(file.read(8), np.int64)[0])
        file.seek(-8 - 32 * count, 2)
        return np.frombuffer(file.read(32 * count), np.int64).reshape(count, 4)
