"""Cut a source into units: text by a grid, files of blocks and folders where a size is reached.

Large files of text are scanned by the workers of an executor, in chunks; see `scanning`. Smaller ones are scanned here,
before workers have started. Tasks carry a path and numbers, and what comes back is a few KiB per chunk.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from shardtrain.corpus import folders
from shardtrain.corpus.blocks import read_index
from shardtrain.corpus.detect import range_reader
from shardtrain.corpus.records import Syntax
from shardtrain.corpus.scanning import Marks, Place, Read, Rule, Scan, join, scan, scan_chunk
from shardtrain.corpus.source import ClassFolder, Source, SourceFile
from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.executors import Executor

CHUNK_BYTES = 64 << 20  # scanned by a task, in whole cells of the grid
ALONE_BYTES = 1 << 30  # smaller sources are scanned in this process, in about a second

Advance = Callable[[int], None]
# Rows of file, start, first line, first document and bytes before it, as `UnitTable.between` takes them.
Cuts = npt.NDArray[np.int64]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Chunk:
    """A task: the bytes [begin, until) of a file of `size` bytes."""

    file: SourceFile
    begin: int
    until: int
    size: int


def cut_text(source: Source, unit_bytes: int, advance: Advance, executor: Executor) -> Iterator[Cuts]:
    """Yield where units begin in files of records, by a grid with cells of `unit_bytes` from each file's first record.

    Raises:
        CorpusFormatError: a file was truncated meanwhile.
    """
    sizes = [os.path.getsize(file.path) for file in source.files]
    if executor.workers == 1 or sum(sizes) < ALONE_BYTES:
        yield from _cut_alone(source, sizes, unit_bytes, advance)
    else:
        yield from _cut_in_chunks(source, sizes, unit_bytes, advance, executor)


def _cut_alone(source: Source, sizes: Sequence[int], unit_bytes: int, advance: Advance) -> Iterator[Cuts]:
    num_records = 0
    for number, (file, size) in enumerate(zip(source.files, sizes, strict=True)):
        advance(file.data_start)
        with open(file.path, "rb") as opened:
            read = _report_progress(range_reader(opened.fileno(), file.origin), file.data_start, advance)
            found = scan(_rule(source.syntax, unit_bytes, file), read, file.data_start, size, size, line=file.data_line)
        yield _cuts(number, found.cuts(0, num_records))
        num_records += found.num_records
        yield _end(number, size, num_records, size)


def _cut_in_chunks(
    source: Source, sizes: Sequence[int], unit_bytes: int, advance: Advance, executor: Executor
) -> Iterator[Cuts]:
    step = chunk_bytes(unit_bytes)
    chunks = [
        [Chunk(file, begin, min(begin + step, size), size) for begin in range(file.data_start, size, step)]
        for file, size in zip(source.files, sizes, strict=True)
    ]
    tasks = [chunk for of_file in chunks for chunk in of_file]
    done = executor.run(partial(scan_task, source.syntax, unit_bytes), tasks)
    results = _in_order(done, lambda number: advance(tasks[number].until - tasks[number].begin))
    num_records = 0
    for number, (file, size) in enumerate(zip(source.files, sizes, strict=True)):
        advance(file.data_start)
        rule, place = _rule(source.syntax, unit_bytes, file), Place(file.data_start, file.data_line, num_records)
        for chunk, found in zip(chunks[number], results, strict=False):
            pieces, place = join(rule, partial(_read, file), place, chunk.until, size, found)
            yield from (_cuts(number, piece) for piece in pieces)
        num_records = place.num_records
        yield _end(number, size, num_records, size)


def chunk_bytes(unit_bytes: int) -> int:
    """Return the bytes of a file that one task scans: whole cells of the grid."""
    return max(1, CHUNK_BYTES // unit_bytes) * unit_bytes


def scan_task(syntax: Syntax, unit_bytes: int, chunk: Chunk) -> Scan | None:
    """Scan a chunk; see `scanning.scan_chunk`. Of a file's first chunk it is known where the first record begins."""
    file = chunk.file
    rule = _rule(syntax, unit_bytes, file)
    with open(file.path, "rb") as opened:
        read = range_reader(opened.fileno(), file.origin)
        if chunk.begin == file.data_start:
            return scan(rule, read, chunk.begin, chunk.until, chunk.size, line=file.data_line)
        return scan_chunk(rule, read, chunk.begin, chunk.until, chunk.size)


def _rule(syntax: Syntax, unit_bytes: int, file: SourceFile) -> Rule:
    return Rule(syntax=syntax, origin=file.data_start, cell=unit_bytes)


def _read(file: SourceFile, position: int, size: int) -> bytes:
    with open(file.path, "rb") as opened:
        return range_reader(opened.fileno(), file.origin)(position, size)


def _in_order(results: Iterator[tuple[int, Result]], came: Callable[[int], None]) -> Iterator[Result]:
    """Yield results that come in any order in that of their numbers; call `came` with each number at once."""
    waiting, following = {}, 0
    for number, result in results:
        came(number)
        waiting[number] = result
        while following in waiting:
            yield waiting.pop(following)
            following += 1


def _cuts(number: int, found: Marks) -> Cuts:
    """Return the cuts of a file at some records, which have start, line and index."""
    return np.column_stack([np.full(len(found), number), found, found[:, 0]])


def _end(number: int, position: int, num_records: int, num_bytes: int) -> Cuts:
    """Return the cut where a file ends."""
    return np.array([[number, position, 0, num_records, num_bytes]])


def cut_blocks(source: Source, unit_bytes: int, advance: Advance) -> Iterator[Cuts]:
    """Yield where units begin in files of blocks: each ends with the block that reaches `unit_bytes`."""
    num_documents = 0
    for number, file in enumerate(source.files):
        cuts, first, byte, next_cut = [], num_documents, 0, 0
        index = read_index(Path(file.path))
        for block, (rows, text_bytes) in enumerate(index):
            if byte >= next_cut:
                cuts.append((number, block, num_documents - first + 1, num_documents, byte))
                next_cut = byte + unit_bytes
            num_documents, byte = num_documents + rows, byte + text_bytes
        advance(file.num_bytes)
        yield np.array(cuts, np.int64).reshape(-1, 5)
        yield _end(number, len(index), num_documents, byte)


def cut_folders(source: Source, unit_bytes: int, advance: Advance) -> Iterator[Cuts]:
    """Yield where units begin among the files of folders: each ends with the file that reaches `unit_bytes`."""
    cuts, ordinal, byte, next_cut = [], 0, 0, 0
    for folder in source.folders:
        for name in list_files(folder):
            if byte >= next_cut:
                cuts.append((0, ordinal, 1, ordinal, byte))
                next_cut = byte + unit_bytes
            size = os.path.getsize(os.path.join(folder.path, name))
            advance(size)
            ordinal, byte = ordinal + 1, byte + size
    yield np.array(cuts, np.int64).reshape(-1, 5)
    yield _end(0, ordinal, ordinal, byte)


def list_files(folder: ClassFolder) -> list[str]:
    """Return the names of a folder's text files, sorted.

    Raises:
        CorpusFormatError: it has more or fewer than were counted.
    """
    names = folders.text_files(Path(folder.path))
    if len(names) != folder.num_files:
        raise CorpusFormatError(
            f"'{folder.path}' has changed: {len(names):,} text files, expected {folder.num_files:,} as counted before; "
            "start again"
        )
    return names


def _report_progress(read: Read, start: int, advance: Advance) -> Read:
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
