"""Data classes of this package: read options, sources, units (input splits) and documents.

All are frozen and picklable, since units are read in spawned processes. A `Source` holds everything that `read_unit`
needs, so nothing is detected twice and every process reads the same. A folder-per-class source stores the number of
files per class, not their names, so reading a unit lists its folders again.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.corpus.options import Column
from shardtrain.corpus.records import LINES, MAX_RECORD, Syntax
from shardtrain.runtime.schema import Choice, Fields, Integer, Text


@dataclass(frozen=True, kw_only=True)
class ClassFolder:
    """A folder whose text files are the documents of one class; `num_files` is counted when the corpus is opened."""

    name: str
    path: str
    num_files: int


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of a source.

    Attributes:
        path: the file to read: `origin`, or what was made of it in a scratch folder because it is compressed, not in
            UTF-8, or of a format that cannot be read from any position.
        origin: the file that the user gave, for messages.
        num_bytes: size of the file at `path`.
        origin_bytes: size of `origin`.
        data_start: position of the first byte after the byte order mark and the header.
        data_line: number of the line at `data_start`, from 1.
        counted: what places in the file are counted in: "line", or "item" or "row" where it has no lines.
    """

    path: str
    origin: str
    num_bytes: int
    origin_bytes: int
    data_start: int = 0
    data_line: int = 1
    counted: str = "line"

    @property
    def staged(self) -> bool:
        """Whether a copy is read in place of the user's file."""
        return self.path != self.origin


@dataclass(frozen=True, kw_only=True)
class Source:
    """The input of one split, with format and columns resolved.

    Attributes:
        origin: the path that the user gave or that was found, for messages and the manifest.
        format: as in `options.FORMATS`, resolved.
        files: in the order of their documents; empty for folders.
        syntax: how records are divided into fields.
        encoding: of the user's files, as Python names it.
        label_column: index (csv, tsv) or key (jsonl, parquet, arrow); "" for folders; None where labels are not read.
        text_columns: indices or keys likewise; empty for folders.
        num_columns: columns per record; 0 for all formats but csv and tsv.
        header: the column names of the first record, or None.
        keys: the names of the columns where there is no first record with them (jsonl, parquet, arrow).
        folders: the classes of a folder source, sorted by name.
        folder_bytes: size of the files in `folders`.
        unescape: see `CorpusOptions`.
        on_bad_row: see `CorpusOptions`.
        literal_labels: whether labels are classes as they are spelled, even `007` beside `7`, and `nan`.
        label_doubt: why the label column is probably not one, as far as the first records show; empty without doubt.
        first_label: the label of the first record where it was detected that this is no header; else None.
    """

    origin: str
    format: str
    files: tuple[SourceFile, ...] = ()
    syntax: Syntax = LINES
    encoding: str = "utf-8"
    label_column: Column | None
    text_columns: tuple[Column, ...]
    num_columns: int = 0
    header: tuple[str, ...] | None = None
    keys: tuple[str, ...] = ()
    folders: tuple[ClassFolder, ...] = ()
    folder_bytes: int = 0
    unescape: bool
    on_bad_row: str
    literal_labels: bool = False
    label_doubt: str = ""
    first_label: str | None = None

    @property
    def unused(self) -> list[str]:
        """The names of the columns that are neither label nor text."""
        used = {self.label_column, *self.text_columns}
        named = enumerate(self.header) if self.header is not None else zip(self.keys, self.keys, strict=True)
        return [name for place, name in named if name and place not in used]

    @property
    def num_bytes(self) -> int:
        """Size of the file or files that are read."""
        return self.folder_bytes + sum(file.num_bytes for file in self.files)

    @property
    def staged_bytes(self) -> int:
        """Size of the copies that are read in place of the user's files."""
        return sum(file.num_bytes for file in self.files if file.staged)

    def named(self, name: str) -> Source:
        """Return the same source with another name for messages and the manifest, for what is no file of the user."""
        return replace(self, origin=name, files=tuple(replace(file, origin=name) for file in self.files))

    def describe(self) -> dict[str, Any]:
        """Return the description for the manifest: without local folders, columns by name where they have one."""
        described: dict[str, Any] = {
            "name": Path(self.origin).name,
            "bytes": self.folder_bytes + sum(file.origin_bytes for file in self.files),
            "format": self.format,
            "unescape": self.unescape,
        }
        if self.format == "folder":
            described["files"] = {folder.name: folder.num_files for folder in self.folders}
            return described
        if len(self.files) > 1:
            described["files"] = [Path(file.origin).name for file in self.files]
        described["header"] = self.header is not None
        described["label_column"] = self.column_name(self.label_column)
        described["text_columns"] = [self.column_name(column) for column in self.text_columns]
        described["encoding"] = self.encoding
        if self.syntax.delimiter is not None:
            described["delimiter"] = self.syntax.delimiter
            described["quotes"] = self.syntax.quoting
            described["escape"] = self.syntax.escape
        return described

    def column_name(self, column: Column | None) -> Column | None:
        """Return a column's name in the header; the column as given if there is none, or the name is repeated."""
        if self.header is None or not isinstance(column, int):
            return column
        name = self.header[column]
        return name if self.header.count(name) == 1 else column


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
        file: index of its file among the source's; 0 for a folder source.
        start: first byte, where a record begins; for a folder source the first file's index among all sorted files; of
            a file of blocks the first block's index.
        stop: end of the range, exclusive.
        first_line: number of the line at `start`, from 1; 1 for a folder source.
        first_document: ordinal of its first record.
        num_documents: number of records, good and bad.
        num_bytes: total size of its records or files.
    """

    index: int
    file: int
    start: int
    stop: int
    first_line: int
    first_document: int
    num_documents: int
    num_bytes: int

    @property
    def num_text_bytes(self) -> int:
        """Number of bytes that can become texts; 0 if the only record is too long to be read."""
        return text_bytes(self.num_documents, self.num_bytes)


Number = TypeVar("Number", int, npt.NDArray[np.int64])


def text_bytes(num_documents: Number, num_bytes: Number) -> Number:
    """Return how many bytes of a unit, or of each of several, can become texts: of a record that is too long, none."""
    found: Number = num_bytes * ((num_documents != 1) | (num_bytes <= MAX_RECORD))
    return found


BAD_ROW = Fields(
    {"path": Text(), "line": Integer(1), "reason": Text()}, {"counted": Choice(("line", "item", "row"))}
)  # as a record of work has it


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A record that cannot be used.

    Attributes:
        path: its file.
        line: the number of its first line, or of the item or row, from 1.
        reason: why it cannot be used.
        counted: what `line` counts: "line", "item" or "row".
    """

    path: str
    line: int
    reason: str
    counted: str = "line"

    @property
    def place(self) -> str:
        """Where it is, for messages."""
        return f"{self.path}, {self.counted} {self.line:,}"


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The documents of a unit, in the order of the source.

    Attributes:
        texts: one per document.
        labels: without surrounding white space, and in canonical spelling (`label_spelling`) unless the source's are
            literal; empty strings where labels are not read.
        ordinals: (num_documents,) index of each document among the source's records, from 0, without the header.
        bad_rows: skipped records; always empty where `on_bad_row` is fail.
        num_replaced: number of undecodable bytes replaced by U+FFFD.
    """

    texts: Texts
    labels: list[str]
    ordinals: npt.NDArray[np.int64]
    bad_rows: tuple[BadRow, ...]
    num_replaced: int
