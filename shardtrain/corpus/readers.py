"""Plan units of a source (input splits) and read each into a block of documents.

Planning scans all files once and cuts them where records begin (`cutting`). Reading a unit is a pure function of the
file's bytes, so units can be read in any order, by any process, repeatedly. Both find records with the same automaton
(`records`), and ordinals, texts and bad rows do not depend on where units are cut. The cost: planning reads every byte
before the first document is available.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.corpus import parsing
from shardtrain.corpus.blocks import is_block_file, read_blocks
from shardtrain.corpus.cutting import cut_blocks, cut_folders, cut_text, list_files
from shardtrain.corpus.detect import range_reader
from shardtrain.corpus.encodings import in_utf8
from shardtrain.corpus.records import GOOD, MAX_RECORD, find_records
from shardtrain.corpus.source import BadRow, Documents, Source, SourceFile, Unit
from shardtrain.corpus.unit_table import UnitTable
from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.executors import Executor, Serial

_ALONE = Serial()


def plan_units(
    source: Source, *, unit_bytes: int, advance: Callable[[int], None], executor: Executor = _ALONE
) -> UnitTable:
    """Plan the units of a source, in its order.

    In files of records, a unit begins with the first record that starts at or after each multiple of `unit_bytes`,
    counted from the file's first record; where none starts before the next multiple, there is no unit. So a unit is
    longer than `unit_bytes` by less than a record. A line longer than `records.MAX_RECORD` is a unit of its own, which
    is never read completely. Elsewhere a unit ends with the file or the block that reaches the size.

    Args:
        source: the file or folders to divide.
        unit_bytes: at least 1.
        advance: called with the number of bytes scanned since the last call.
        executor: scans large files of records.

    Raises:
        CorpusFormatError: a file or folder has changed since the source was opened.
    """
    if source.format == "folder":
        cuts = cut_folders(source, unit_bytes, advance)
    elif is_block_file(source):
        cuts = cut_blocks(source, unit_bytes, advance)
    else:
        cuts = cut_text(source, unit_bytes, advance, executor)
    return UnitTable.between(np.concatenate(list(cuts)))


Wanted = Callable[[npt.NDArray[np.int64]], npt.NDArray[np.bool_]]


def read_unit(source: Source, unit: Unit, wanted: Wanted | None = None) -> Documents:
    """Read the documents of a unit.

    Args:
        source: of the unit.
        unit: to read.
        wanted: returns for ordinals which documents are; the others are left out, and bad rows among them. None: all.

    Raises:
        CorpusFormatError: a record cannot be used and `source.on_bad_row` is "fail" (the message has file, line and
            reason), or the file has changed since the unit was planned.
    """
    if source.format == "folder":
        return _read_files(source, unit, wanted)
    file = source.files[unit.file]
    if is_block_file(source):
        return _read_blocks(source, file, unit, wanted)
    with open(file.path, "rb") as opened:
        # A unit with a single record may be longer than any good record; one byte more is enough to classify it.
        stop = min(unit.stop, unit.start + MAX_RECORD + 1) if unit.num_documents == 1 else unit.stop
        data = range_reader(opened.fileno(), file.origin)(unit.start, stop - unit.start)
    found = _records_of(source, unit, data)
    if len(found) != unit.num_documents:
        raise CorpusFormatError(
            f"'{file.origin}' has changed: {len(found):,} records in bytes {unit.start:,} to {unit.stop:,}, expected "
            f"{unit.num_documents:,} as counted before; start again"
        )
    ordinals = unit.first_document + np.arange(len(found), dtype=np.int64)
    if wanted is not None:
        chosen = np.flatnonzero(wanted(ordinals))
        found, ordinals = found[chosen], ordinals[chosen]
    good = np.flatnonzero(found[:, 3] == GOOD)
    starts, stops = (np.ascontiguousarray(column) for column in (found[good, :2] - unit.start).T)
    data, starts, stops, num_replaced = parsing.replace_undecodable(data, starts, stops)
    parsed = parsing.parse_records(source, data, starts, stops)
    del data  # frees as many bytes as the unit has
    reasons = {int(good[i]): reason for i, reason in parsed.bad.items()}
    for i in np.flatnonzero(found[:, 3] != GOOD).tolist():
        reasons[i] = parsing.reason_for(int(found[i, 3]), int(found[i, 2]))
    bad = {i: (int(found[i, 2]), reasons[i]) for i in reasons}
    return _documents(source, file, ordinals, parsed, bad, num_replaced)


def _read_blocks(source: Source, file: SourceFile, unit: Unit, wanted: Wanted | None) -> Documents:
    ordinals = unit.first_document + np.arange(unit.num_documents, dtype=np.int64)
    lines = unit.first_line + np.arange(unit.num_documents)
    labels, missing, texts = read_blocks(Path(file.path), unit.start, unit.stop)
    content, starts, stops = texts.data.tobytes(), texts.offsets[:-1], texts.offsets[1:]
    content, starts, stops, num_replaced = parsing.replace_undecodable(content, starts, stops)
    texts = Texts(np.frombuffer(content, np.uint8), np.concatenate([[0], stops]).astype(np.int64))
    if wanted is not None:
        chosen = np.flatnonzero(wanted(ordinals))
        labels, missing, texts = labels.take(chosen), missing[chosen], texts.take(chosen)
        ordinals, lines = ordinals[chosen], lines[chosen]
    parsed = parsing.parse_columns(source, labels, missing, texts)
    bad = {i: (int(lines[i]), reason) for i, reason in parsed.bad.items()}
    return _documents(source, file, ordinals, parsed, bad, num_replaced)


def _documents(
    source: Source,
    file: SourceFile,
    ordinals: npt.NDArray[np.int64],
    parsed: parsing.ParsedRecords,
    bad: dict[int, tuple[int, str]],
    num_replaced: int,
) -> Documents:
    """Return the documents of records; `bad` has line and reason of each that cannot be used, by its index."""
    return Documents(
        texts=parsed.texts,
        labels=parsed.labels,
        ordinals=np.delete(ordinals, list(bad)),
        bad_rows=tuple(_bad_row(source, file.origin, *bad[i], file.counted) for i in sorted(bad)),
        num_replaced=num_replaced,
    )


def _bad_row(source: Source, path: str, line: int, reason: str, counted: str = "line") -> BadRow:
    row = BadRow(path=path, line=line, reason=reason, counted=counted)
    if source.on_bad_row == "fail":
        raise CorpusFormatError(
            f"{row.place}: {reason}; correct the row, or skip and count such rows with --on-bad-row skip"
        )
    return row


def _records_of(source: Source, unit: Unit, data: bytes) -> npt.NDArray[np.int64]:
    def read(position: int, size: int) -> bytes:
        return data[position - unit.start : position - unit.start + size]

    found = find_records(read, unit.start, unit.start + len(data), first_line=unit.first_line, syntax=source.syntax)
    return np.concatenate([np.empty((0, 4), np.int64), *found])


def _read_files(source: Source, unit: Unit, wanted: Wanted | None) -> Documents:
    contents, labels, ordinals, bad_rows = [], [], [], []
    first = 0
    for folder in source.folders:
        chosen = np.arange(max(unit.start, first), min(unit.stop, first + folder.num_files))
        names = list_files(folder) if len(chosen) else []
        for ordinal in (chosen if wanted is None else chosen[wanted(chosen)]).tolist():
            path = os.path.join(folder.path, names[ordinal - first])
            with open(path, "rb") as file:
                content = file.read(MAX_RECORD + 1)
            if len(content) > MAX_RECORD:
                reason = f"the file is longer than {MAX_RECORD >> 20} MiB"
                bad_rows.append(_bad_row(source, path, 1, reason))
                continue
            contents.append(in_utf8(content, source.encoding))
            labels.append(folder.name)
            ordinals.append(ordinal)
        first += folder.num_files
    joined = Texts.from_utf8(contents)
    data, _, stops, num_replaced = parsing.replace_undecodable(
        joined.data.tobytes(), joined.offsets[:-1], joined.offsets[1:]
    )
    texts = Texts(np.frombuffer(data, np.uint8), np.concatenate([[0], stops]))
    return Documents(
        texts=parsing.unescape(texts) if source.unescape else texts,
        labels=labels,
        ordinals=np.array(ordinals, np.int64),
        bad_rows=tuple(bad_rows),
        num_replaced=num_replaced,
    )
