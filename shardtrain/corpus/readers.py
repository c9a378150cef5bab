"""Cut a source into units and read them: files on disk to blocks of documents.

Planning walks a file once, in pieces of a few MiB, and cuts it where a record begins; reading a unit is then a pure
function of the file's bytes, so units can be read in any order, in any process, again and again. Both find records
with the same automaton (`records`), and neither ordinals nor texts nor bad rows depend on where units are cut.
The price is that planning reads every byte before the first document comes out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.corpus import folders, rows
from shardtrain.corpus.detect import BYTE_ORDER_MARK, read_exactly
from shardtrain.corpus.records import GOOD, MAX_RECORD, TOO_LONG, find_records
from shardtrain.corpus.source import BadRow, ClassFolder, Documents, Source, Unit
from shardtrain.errors import CorpusFormatError


def plan_units(source: Source, *, unit_bytes: int, advance: Callable[[int], None]) -> list[Unit]:
    """Cut a source into units of at least `unit_bytes` (the last one may be smaller), in its order.

    A unit ends with the record that reaches the size, so it is longer by up to one record. A line longer than
    `records.MAX_RECORD` is a unit of its own, which is never read whole.

    Args:
        source: what to cut.
        unit_bytes: at least 1.
        advance: called with the number of bytes walked.
    """
    if source.format == "folder":
        cuts = list(_cut_folders(source, unit_bytes, advance))
    else:
        cuts = list(_cut_file(source, unit_bytes, advance))
    starts = cuts[:-1]
    return [
        Unit(
            index=index,
            path=source.path,
            start=start,
            stop=stop,
            first_line=line,
            first_document=document,
            num_documents=next_document - document,
            num_bytes=next_byte - byte,
        )
        for index, ((start, line, document, byte), (stop, _, next_document, next_byte)) in enumerate(
            zip(starts, cuts[1:], strict=True)
        )
    ]


def read_unit(source: Source, unit: Unit) -> Documents:
    """Read the documents of a unit.

    Raises:
        CorpusFormatError: a record cannot be used and the source says to fail; the message has file, line, reason.
            Or the file is no longer what it was when the unit was cut.
    """
    if source.format == "folder":
        return _read_files(source, unit)
    with open(source.path, "rb") as file:
        # The only record of a unit is read as far as a good one can reach, and that decides what it is.
        stop = min(unit.stop, unit.start + MAX_RECORD + 1) if unit.num_documents == 1 else unit.stop
        data = read_exactly(file.fileno(), source.origin)(unit.start, stop - unit.start)
    found = _records_of(source, unit, data)
    if len(found) != unit.num_documents:
        raise CorpusFormatError(
            f"'{source.origin}' has changed: {len(found):,} records in bytes {unit.start:,} to {unit.stop:,}, where "
            f"{unit.num_documents:,} were counted before; start again"
        )
    good = np.flatnonzero(found[:, 3] == GOOD)
    starts, stops = (np.ascontiguousarray(column) for column in (found[good, :2] - unit.start).T)
    data, starts, stops, num_replaced = rows.decodable(data, starts, stops)
    read = rows.read_rows(source, data, starts, stops)
    del data  # as large as the unit
    reasons = {int(good[place]): reason for place, reason in read.bad.items()}
    for place in np.flatnonzero(found[:, 3] != GOOD).tolist():
        reasons[place] = rows.reason_for(int(found[place, 3]), int(found[place, 2]))
    bad_rows = [_bad_row(source, source.origin, int(found[place, 2]), reasons[place]) for place in sorted(reasons)]
    return Documents(
        texts=read.texts,
        labels=read.labels,
        ordinals=unit.first_document + np.delete(np.arange(len(found), dtype=np.int64), list(reasons)),
        bad_rows=tuple(bad_rows),
        num_replaced=num_replaced,
    )


def _bad_row(source: Source, path: str, line: int, reason: str) -> BadRow:
    if source.on_bad_row == "fail":
        raise CorpusFormatError(
            f"{path}, line {line}: {reason}; correct the row, or leave such rows out and have them counted "
            "with --on-bad-row skip"
        )
    return BadRow(path=path, line=line, reason=reason)


def _records_of(source: Source, unit: Unit, data: bytes) -> npt.NDArray[np.int64]:
    def read(position: int, size: int) -> bytes:
        return data[position - unit.start : position - unit.start + size]

    found = find_records(read, unit.start, unit.start + len(data), first_line=unit.first_line, **source.records)
    return np.concatenate([np.empty((0, 4), np.int64), *found])


_Cut = tuple[int, int, int, int]  # where a unit begins: position, line, ordinal, byte; the last is the source's end


def _cut_file(source: Source, unit_bytes: int, advance: Callable[[int], None]) -> Iterator[_Cut]:
    num_documents, next_cut = 0, source.data_start
    with open(source.path, "rb") as file:
        size, begin = os.fstat(file.fileno()).st_size, source.data_start
        read = _counting(read_exactly(file.fileno(), source.origin), begin, advance)
        advance(begin)
        for found in find_records(read, begin, size, first_line=source.data_line, **source.records):
            giants = [*np.flatnonzero(found[:, 3] == TOO_LONG).tolist(), len(found)]
            place = 0
            while True:
                far_enough = int(np.searchsorted(found[:, 0], next_cut))
                place = max(place, min(far_enough, next(giant for giant in giants if giant >= place)))
                if place == len(found):
                    break
                start, stop, line, code = found[place].tolist()
                yield start, line, num_documents + place, start
                next_cut = stop if code == TOO_LONG else start + unit_bytes
                place += 1
            num_documents += len(found)
    yield size, 0, num_documents, size


def _cut_folders(source: Source, unit_bytes: int, advance: Callable[[int], None]) -> Iterator[_Cut]:
    place, byte, next_cut = 0, 0, 0
    for folder in source.folders:
        for name in _files_of(folder):
            if byte >= next_cut:
                yield place, 1, place, byte
                next_cut = byte + unit_bytes
            size = os.path.getsize(os.path.join(folder.path, name))
            advance(size)
            place, byte = place + 1, byte + size
    yield place, 1, place, byte


def _files_of(folder: ClassFolder) -> list[str]:
    names = folders.text_files(Path(folder.path))
    if len(names) != folder.num_files:
        raise CorpusFormatError(
            f"'{folder.path}' has changed: {len(names):,} text files, where {folder.num_files:,} were counted before; "
            "start again"
        )
    return names


def _read_files(source: Source, unit: Unit) -> Documents:
    contents, labels, ordinals, bad_rows = [], [], [], []
    first = 0
    for folder in source.folders:
        wanted = range(max(unit.start, first), min(unit.stop, first + folder.num_files))
        names = _files_of(folder) if wanted else []
        for ordinal in wanted:
            path = os.path.join(folder.path, names[ordinal - first])
            with open(path, "rb") as file:
                content = file.read(MAX_RECORD + 1)
            if len(content) > MAX_RECORD:
                reason = f"the file is longer than {MAX_RECORD >> 20} MiB"
                bad_rows.append(_bad_row(source, path, 1, reason))
                continue
            contents.append(content.removeprefix(BYTE_ORDER_MARK))
            labels.append(folder.name)
            ordinals.append(ordinal)
        first += folder.num_files
    joined = Texts.of_bytes(contents)
    data, _, stops, num_replaced = rows.decodable(joined.data.tobytes(), joined.offsets[:-1], joined.offsets[1:])
    texts = Texts(np.frombuffer(data, np.uint8), np.concatenate([[0], stops]))
    return Documents(
        texts=rows.unescape(texts) if source.unescape else texts,
        labels=labels,
        ordinals=np.array(ordinals, np.int64),
        bad_rows=tuple(bad_rows),
        num_replaced=num_replaced,
    )


def _counting(
    read: Callable[[int, int], bytes], start: int, advance: Callable[[int], None]
) -> Callable[[int, int], bytes]:
    """Wrap `read` to report progress to `advance`; bytes read again are not reported again."""
    furthest = start

    def counted(position: int, size: int) -> bytes:
        nonlocal furthest
        piece = read(position, size)
        if position + size > furthest:
            advance(position + size - furthest)
            furthest = position + size
        return piece

    return counted
