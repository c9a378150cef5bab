"""Find where units of a file begin, in chunks that are scanned in any order and joined in the order of the file.

The file is divided by a grid. A unit begins with the first record that starts in a cell of it, and a record that is too
long is a unit of its own: a cut depends on two neighbouring records alone, on none before. Scanning from a boundary on
has no memory (`records`), so two scans that meet at a boundary find the same from there on; only their counts of lines
and records differ, by constants.

A chunk is scanned from its first line on, which is a guess: the line may lie in quotes, or in a record of the chunk
before. `join` knows where the first record really begins and takes what the chunk found from the place where the true
scan meets it, usually at once. Before that, it scans itself; what is found never depends on the guess. A wrong guess is
soon met: a quote in the middle of a line is text or an error that costs one line, and after both a line begins anew.
The cost: a file in which no chunk is met is scanned twice, the second time by one process.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shardtrain.corpus.records import MAX_RECORD, TOO_LONG, Syntax, find_records

KNOWN = 64  # records at the begin of a chunk that are reported, so that most true scans meet them without reading

_PIECE = 64 << 10  # bytes read at a time where a line's start is looked for
_START, _LINE, _INDEX, _CODE, _CUT = range(5)  # columns of marks

Read = Callable[[int, int], bytes]
Marks = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """How the records of a file are found, and where it is cut.

    Attributes:
        syntax: of the records.
        origin: position of the first record, where the grid begins.
        cell: bytes of a cell of the grid.
        max_record: bytes of the longest good record.
    """

    syntax: Syntax
    origin: int
    cell: int
    max_record: int = MAX_RECORD

    def cuts(self, found: Marks, before: tuple[int, int] | None) -> npt.NDArray[np.bool_]:
        """Return which of some neighbouring records, as `find_records` yields them, begin a unit.

        Args:
            found: at least one record.
            before: start and code of the record before them; None: there is none.
        """
        cells, too_long = (found[:, 0] - self.origin) // self.cell, found[:, 3] == TOO_LONG
        cut: npt.NDArray[np.bool_] = too_long.copy()
        cut[1:] |= (cells[1:] != cells[:-1]) | too_long[:-1]
        cut[0] |= before is None or before[1] == TOO_LONG or (before[0] - self.origin) // self.cell != cells[0]
        return cut


@dataclass(frozen=True, kw_only=True)
class Scan:
    """What a scan found in a range of a file.

    Attributes:
        start: boundary where the scan began.
        line: number of the line there.
        marks: (num_marks, 5) start, line, index, code and whether a unit begins, of the records that begin a unit and
            of some others at the begin; the index is among the records of the scan.
        num_records: found.
        end: boundary where the scan ended, at the end of its range or later, or where it met another one.
        end_line: number of the line there.
        last: start and code of the last record; None: there is none.
    """

    start: int
    line: int
    marks: Marks
    num_records: int
    end: int
    end_line: int
    last: tuple[int, int] | None

    def cuts(self, lines: int, records: int) -> Marks:
        """Return start, line and index of the records that begin units, (num_cuts, 3), with so many of both before."""
        cuts: Marks = self.marks[self.marks[:, _CUT] == 1, :_CODE] + np.array([0, lines, records])
        return cuts


def scan(
    rule: Rule, read: Read, start: int, until: int, size: int, *, line: int, known: int = 0, meet: Scan | None = None
) -> Scan:
    """Scan the records that start in [start, until).

    Args:
        rule: of the file.
        read: a function of (position, size) that returns these bytes of it.
        start: a boundary.
        until: end of the range.
        size: of the file.
        line: number of the line at `start`.
        known: so many records at the begin are marked that begin no unit.
        meet: the scan ends at the first record that this one has marked.
    """
    others = np.empty(0, np.int64) if meet is None else meet.marks[:, _START]
    pieces, number, last = [np.empty((0, 5), np.int64)], 0, None
    end = start, line

    def records() -> Generator[Marks, None, None]:
        nonlocal end
        end = yield from find_records(
            read, start, size, first_line=line, syntax=rule.syntax, until=until, max_record=rule.max_record
        )

    for found in records():
        met = np.flatnonzero(np.isin(found[:, 0], others)) if len(others) else others
        if len(met):
            end = int(found[met[0], 0]), int(found[met[0], 2])
            found = found[: met[0]]
        if len(found):
            cut = rule.cuts(found, last)
            chosen = np.flatnonzero(cut | (np.arange(number, number + len(found)) < known))
            pieces.append(np.column_stack([found[chosen][:, [0, 2]], number + chosen, found[chosen, 3], cut[chosen]]))
            number, last = number + len(found), (int(found[-1, 0]), int(found[-1, 3]))
        if len(met):
            break
    marks = np.concatenate(pieces)
    return Scan(start=start, line=line, marks=marks, num_records=number, end=end[0], end_line=end[1], last=last)


def scan_chunk(rule: Rule, read: Read, begin: int, until: int, size: int) -> Scan | None:
    """Scan a chunk [begin, until) from the first line that begins in it; None: there is none, and so no record."""
    position = begin - 1
    while position < until - 1:
        piece = read(position, min(_PIECE, until - 1 - position))
        if (newline := piece.find(b"\n")) >= 0:
            return scan(rule, read, position + newline + 1, until, size, line=1, known=KNOWN)
        position += len(piece)
    return None


@dataclass(frozen=True)
class Place:
    """A boundary, the number of its line, and how many records are before it."""

    position: int
    line: int
    num_records: int


def join(
    rule: Rule, read: Read, place: Place, until: int, size: int, guessed: Scan | None
) -> tuple[list[Marks], Place]:
    """Return where units begin in a chunk, and the place after it.

    Args:
        rule: of the file.
        read: as for `scan`; called only where the guess was wrong.
        place: the first boundary in the chunk or after it.
        until: end of the chunk, where a cell of the grid ends.
        size: of the file.
        guessed: what `scan_chunk` found.

    Returns:
        arrays (num_cuts, 3) of start, line and index in the file of the records that begin units; and the first
        boundary at `until` or later.
    """
    position, line, before = place.position, place.line, place.num_records
    if position >= until:
        return [], place
    if guessed is not None and (position == guessed.start or position in guessed.marks[:, _START]):
        none = np.empty((0, 5), np.int64)
        true = Scan(start=position, line=line, marks=none, num_records=0, end=position, end_line=line, last=None)
    else:
        true = scan(rule, read, position, until, size, line=line, meet=guessed)
    cuts = [true.cuts(0, before)]
    after = Place(true.end, true.end_line, before + true.num_records)
    if guessed is None or true.end >= until:
        return cuts, after
    marks = guessed.marks[np.searchsorted(guessed.marks[:, _START], true.end) :].copy()
    line, index = guessed.line, 0
    if len(marks) and marks[0, _START] == true.end:
        line, index = int(marks[0, _LINE]), int(marks[0, _INDEX])
        marks[0, _CUT] = rule.cuts(marks[:1], true.last)[0]
    lines, records = after.line - line, after.num_records - index
    end = Place(guessed.end, guessed.end_line + lines, guessed.num_records + records)
    return [*cuts, replace(guessed, marks=marks).cuts(lines, records)], end
