"""Data classes of this package: read options, sources, units (input splits) and documents.

All are frozen and picklable, since units are read in spawned processes. A `Source` holds everything that `read_unit`
needs, so nothing is detected twice and every process reads the same. A folder-per-class source stores the number of
files per class, not their names, so reading a unit lists its folders again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.corpus.options import Column
from shardtrain.corpus.records import MAX_RECORD


@dataclass(frozen=True, kw_only=True)
class ClassFolder:
    """A folder whose text files are the documents of one class; `num_files` is counted when the corpus is opened."""

    name: str
    path: str
    num_files: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """The input of one split, with format and columns resolved.

    Attributes:
        path: the file to read (for a .gz its unpacked copy), or the folder of the class folders.
        origin: the path that the user gave or that was found, for messages and the manifest.
        format: csv, tsv, jsonl, lines or folder.
        num_bytes: size of the file or files at `path`.
        origin_bytes: size of `origin`; differs from `num_bytes` for a .gz.
        label_column: index (csv, tsv) or key (jsonl); "" for folders; None where labels are not read.
        text_columns: indices or keys likewise; empty for folders.
        num_columns: columns per record; 0 for jsonl and folder.
        header: the column names of the first record, or None.
        data_start: position of the first byte after the byte order mark and the header.
        data_line: number of the line at `data_start`, from 1.
        folders: the classes of a folder source, sorted by name.
        unescape: see `CorpusOptions`.
        on_bad_row: see `CorpusOptions`.
    """

    path: str
    origin: str
    format: str
    num_bytes: int
    origin_bytes: int
    label_column: Column | None
    text_columns: tuple[Column, ...]
    num_columns: int
    header: tuple[str, ...] | None
    data_start: int
    data_line: int
    folders: tuple[ClassFolder, ...]
    unescape: bool
    on_bad_row: str

    def describe(self) -> dict[str, Any]:
        """Return the description for the manifest: without local folders, columns by name where they have one."""
        described: dict[str, Any] = {
            "name": Path(self.origin).name,
            "bytes": self.origin_bytes,
            "format": self.format,
            "unescape": self.unescape,
        }
        if self.format == "folder":
            described["files"] = {folder.name: folder.num_files for folder in self.folders}
            return described
        described["header"] = self.header is not None
        described["label_column"] = self.column_name(self.label_column)
        described["text_columns"] = [self.column_name(column) for column in self.text_columns]
        return described

    @property
    def record_syntax(self) -> dict[str, bool]:
        """How the file is divided into records, as keyword arguments of `records.find_records`."""
        return {"quoting": self.format == "csv", "blanks": self.format == "lines"}

    def column_name(self, column: Column | None) -> Column | None:
        """Return a column's name in the header, or the column as given if there is no header."""
        return self.header[column] if self.header is not None and isinstance(column, int) else column


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """The splits of a corpus, as found by `open_corpus`.

    Attributes:
        train: the training split, or the whole corpus if there is no other split.
        validation: the validation split, or None.
        test: the test split, or None.
        class_names: the lines of classes.txt, or None.
        notes: one-line messages for the user about what was detected.
    """

    train: Source
    validation: Source | None
    test: Source | None = None
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]

    @property
    def sources(self) -> dict[str, Source]:
        """Return the splits that exist, by name."""
        found = {"train": self.train, "validation": self.validation, "test": self.test}
        return {name: source for name, source in found.items() if source is not None}

    def with_two_splits(self, *, named: bool) -> Corpus:
        """Return the corpus as versions before test splits opened it: the test file was the validation split.

        Args:
            named: whether the validation split was named, and not found.
        """
        return replace(self, validation=self.validation if named else self.test, test=None)


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A range of a source that is read on its own (an input split).

    Attributes:
        index: index among the source's units, from 0.
        path: the file, or the folder of the class folders.
        start: first byte, where a record begins; for a folder source the first file's index among all sorted files.
        stop: end of the range, exclusive.
        first_line: number of the line at `start`, from 1; 1 for a folder source.
        first_document: ordinal of its first record.
        num_documents: number of records, good and bad.
        num_bytes: total size of its records or files.
    """

    index: int
    path: str
    start: int
    stop: int
    first_line: int
    first_document: int
    num_documents: int
    num_bytes: int

    @property
    def num_text_bytes(self) -> int:
        """Number of bytes that can become texts; 0 if the only record is too long to be read."""
        return 0 if self.num_documents == 1 and self.num_bytes > MAX_RECORD else self.num_bytes


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A record that cannot be used: its file, its first line (from 1) and the reason."""

    path: str
    line: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The documents of a unit, in the order of the source.

    Attributes:
        texts: one per document.
        labels: as in the source, without surrounding white space; empty strings where labels are not read.
        ordinals: (num_documents,) index of each document among the source's records, from 0, without the header.
        bad_rows: skipped records; always empty where `on_bad_row` is fail.
        num_replaced: number of undecodable bytes replaced by U+FFFD.
    """

    texts: Texts
    labels: list[str]
    ordinals: npt.NDArray[np.int64]
    bad_rows: tuple[BadRow, ...]
    num_replaced: int
