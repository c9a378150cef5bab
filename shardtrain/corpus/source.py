"""The values of this room: how to read, what is read, how it is cut into units, and what comes out.

All are frozen and picklable, since units are read in spawned processes: a `Source` says everything that `read_unit`
has to know, so nothing is guessed twice and every process reads the same. A folder-per-class source keeps the
number of files of a class, not their names; its units list the folders they need again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.corpus.options import Column
from shardtrain.corpus.records import MAX_RECORD


@dataclass(frozen=True, kw_only=True)
class ClassFolder:
    """A folder whose text files are the documents of one class, `num_files` when the corpus was opened."""

    name: str
    path: str
    num_files: int


@dataclass(frozen=True, kw_only=True)
class Source:
    """One split's input, resolved: nothing about reading it is left to guess.

    Attributes:
        path: the file that is read (of a .gz its unpacked copy), or the folder of the class folders.
        origin: what the user has: messages and the manifest name this.
        format: csv, tsv, jsonl, lines or folder.
        num_bytes: of what is read.
        origin_bytes: of `origin`; differs from `num_bytes` where that is packed.
        label_column: index (csv, tsv) or key (jsonl); "" for folders; None where labels are not read.
        text_columns: likewise; empty for folders.
        num_columns: of every record; 0 where records have none (jsonl, folder).
        header: the column names of the first record, or None.
        data_start: position of the first byte behind a byte order mark and the header.
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
        """Give what a manifest records: no folder of this machine, columns by name where they have one."""
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
    def records(self) -> dict[str, bool]:
        """How the file falls into records, as keywords of `records.find_records`."""
        return {"quoting": self.format == "csv", "blanks": self.format == "lines"}

    def column_name(self, column: Column | None) -> Column | None:
        """Give the header's name of a column, where there is one."""
        return self.header[column] if self.header is not None and isinstance(column, int) else column


@dataclass(frozen=True, kw_only=True)
class Corpus:
    """What `open_corpus` found.

    Attributes:
        train: the training split, or the whole corpus where no validation split was found.
        validation: the validation split, or None.
        class_names: the lines of classes.txt, or None.
        notes: one-line facts to tell the user.
    """

    train: Source
    validation: Source | None
    class_names: tuple[str, ...] | None
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Unit:
    """A piece of a source that is read on its own.

    Attributes:
        index: place among the source's units, from 0.
        path: the file, or the folder of the class folders.
        start: first byte, where a record begins; for a folder source the first file's place among all sorted files.
        stop: behind the last byte or file.
        first_line: number of the line at `start`, from 1; 1 for a folder source.
        first_document: ordinal of its first record.
        num_documents: records in it, good or bad.
        num_bytes: of its records or files.
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
    def num_texts_bytes(self) -> int:
        """Bytes that can become texts: none where the only record is too long to be one."""
        return 0 if self.num_documents == 1 and self.num_bytes > MAX_RECORD else self.num_bytes


@dataclass(frozen=True, kw_only=True)
class BadRow:
    """A record that cannot be used: the file, the line it begins on (from 1) and why."""

    path: str
    line: int
    reason: str


@dataclass(frozen=True, kw_only=True)
class Documents:
    """The documents of a unit, in the order of the source.

    Attributes:
        texts: one a document.
        labels: as written in the source, stripped; empty strings where labels are not read.
        ordinals: (num_documents,) place of each document among the source's records, from 0, header not counted.
        bad_rows: records left out; always empty where `on_bad_row` is fail.
        num_replaced: undecodable bytes that were replaced by U+FFFD.
    """

    texts: Texts
    labels: list[str]
    ordinals: npt.NDArray[np.int64]
    bad_rows: tuple[BadRow, ...]
    num_replaced: int
