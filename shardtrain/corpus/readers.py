"""Plan units of a source (input splits) and read each into a block of documents.

Planning scans a file once, in chunks of a few MiB, and cuts it where records begin. Reading a unit is a pure function
of the file's bytes, so units can be read in any order, by any process, repeatedly. Both find records with the same
automaton (`records`), and ordinals, texts and bad rows do not depend on where units are cut. The cost: planning reads
every byte before the first document is available.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.corpus import folders, parsing
from shardtrain.corpus.blocks import is_block_file, read_blocks, read_index
from shardtrain.corpus.detect import range_reader
from shardtrain.corpus.encodings import in_utf8
from shardtrain.corpus.records import GOOD, MAX_RECORD, TOO_LONG, find_records
from shardtrain.corpus.source import BadRow, ClassFolder, Documents, Source, SourceFile, Unit
from shardtrain.errors import CorpusFormatError


def plan_units(source: Source, *, unit_bytes: int, advance: Callable[[int], None]) -> list[Unit]:
    """Plan the units of a source, in its order: each of at least `unit_bytes`, except the last.

    A unit ends with the record that reaches the size, so it is longer by up to one record. A line longer than
    `records.MAX_RECORD` is a unit of its own, which is never read completely.

    Args:
        source: the file or folders to divide.
        unit_bytes: at least 1.
        advance: called with the number of bytes scanned since the last call.
    """
    if source.format == "folder":
        cuts = [(0, cut) for cut in _cut_folders(source, unit_bytes, advance)]
    else:
        cuts, num_documents = [], 0
        for number, file in enumerate(source.files):
            cutter = _cut_blocks if is_block_file(source) else _cut_file
            found = list(cutter(source, file, unit_bytes, advance, num_documents))
            cuts += [(number, cut) for cut in found]
            num_documents = found[-1][2]
    return [
        Unit(
            index=index,
            file=file,
            start=start,
            stop=stop,
            first_line=line,
            first_document=document,
            num_documents=next_document - document,
            num_bytes=next_byte - byte,
        )
        for index, ((file, (start, line, document, byte)), (_, (stop, _, next_document, next_byte))) in enumerate(
            pair for pair in pairwise(cuts) if pair[0][0] == pair[1][0]
        )
    ]


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


# Where a unit begins: (start, line, ordinal of its first document, bytes before it); the last cut is the source's end.
_Cut = tuple[int, int, int, int]


def _cut_file(
    source: Source, file: SourceFile, unit_bytes: int, advance: Callable[[int], None], num_documents: int
) -> Iterator[_Cut]:
    next_cut = file.data_start
    with open(file.path, "rb") as opened:
        size, begin = os.fstat(opened.fileno()).st_size, file.data_start
        read = _report_progress(range_reader(opened.fileno(), file.origin), begin, advance)
        advance(begin)
        for found in find_records(read, begin, size, first_line=file.data_line, syntax=source.syntax):
            too_long = [*np.flatnonzero(found[:, 3] == TOO_LONG).tolist(), len(found)]
            i = 0
            # The next unit begins at the first record from `i` on that reaches `next_cut` or is too long.
            while True:
                at_size = int(np.searchsorted(found[:, 0], next_cut))
                i = max(i, min(at_size, next(index for index in too_long if index >= i)))
                if i == len(found):
                    break
                start, stop, line, code = found[i].tolist()
                yield start, line, num_documents + i, start
                next_cut = stop if code == TOO_LONG else start + unit_bytes
                i += 1
            num_documents += len(found)
    yield size, 0, num_documents, size


def _cut_blocks(
    source: Source, file: SourceFile, unit_bytes: int, advance: Callable[[int], None], num_documents: int
) -> Iterator[_Cut]:
    first, byte, next_cut = num_documents, 0, 0
    index = read_index(Path(file.path))
    for number, (rows, text_bytes) in enumerate(index):
        if byte >= next_cut:
            yield number, num_documents - first + 1, num_documents, byte
            next_cut = byte + unit_bytes
        num_documents, byte = num_documents + rows, byte + text_bytes
    advance(file.num_bytes)
    yield len(index), 0, num_documents, byte


def _cut_folders(source: Source, unit_bytes: int, advance: Callable[[int], None]) -> Iterator[_Cut]:
    ordinal, byte, next_cut = 0, 0, 0
    for folder in source.folders:
        for name in _list_files(folder):
            if byte >= next_cut:
                yield ordinal, 1, ordinal, byte
                next_cut = byte + unit_bytes
            size = os.path.getsize(os.path.join(folder.path, name))
            advance(size)
            ordinal, byte = ordinal + 1, byte + size
    yield ordinal, 1, ordinal, byte


def _list_files(folder: ClassFolder) -> list[str]:
    names = folders.text_files(Path(folder.path))
    if len(names) != folder.num_files:
        raise CorpusFormatError(
            f"'{folder.path}' has changed: {len(names):,} text files, expected {folder.num_files:,} as counted before; "
            "start again"
        )
    return names


def _read_files(source: Source, unit: Unit, wanted: Wanted | None) -> Documents:
    contents, labels, ordinals, bad_rows = [], [], [], []
    first = 0
    for folder in source.folders:
        chosen = np.arange(max(unit.start, first), min(unit.stop, first + folder.num_files))
        names = _list_files(folder) if len(chosen) else []
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


def _report_progress(
    read: Callable[[int, int], bytes], start: int, advance: Callable[[int], None]
) -> Callable[[int, int], bytes]:
    """Wrap `read` to report each byte to `advance` when it is first read, and not when it is read again."""
    furthest = start

    def counted(position: int, size: int) -> bytes:
        nonlocal furthest
        piece = read(position, size)
        if position + size > furthest:
            advance(position + size - furthest)
            furthest = position + size
        return piece

    return counted
