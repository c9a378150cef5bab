"""Find where records begin and end in the bytes of a file, with one compiled automaton.

The grammar is RFC 4180 as Python's `csv` module reads it in strict mode: a quote opens only at the start of a field,
a doubled quote stands for one, newlines inside quotes belong to the record, lines end with LF or CR LF. A `Syntax`
may have another delimiter, an escape character, or no quotes at all. Where a record violates the grammar, has an
unclosed quote or exceeds `MAX_RECORD` bytes, only its first line is bad and scanning resumes with the next line, so
one stray quote costs one line.

Scanning has no memory. A *boundary* is where a record or a blank line begins; it is the start of a line. What is found
from a boundary on depends only on the bytes from there on: at a boundary the state is `_START`, and all else that the
cursor carries along only saves work. Let a line leave a quote open, so that scanning goes ahead from it, and let a
later line do so, too. At the end of that line both are in quotes, so both are in the same state at every byte after
it. Hence a violation or the end of the file decides about both (`_DECIDED`), and where the earlier one became too long
the later one may go on with its state (`_FRONTIER`). So units can be cut between any two records, and a file can be
scanned in parts. The cost is scanning ahead; with what is kept, every byte is scanned at most twice.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Generator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.runtime.kernels import kernel

MAX_RECORD = 64 << 20  # bytes; a longer record is most likely an unclosed quote, and needs too much memory
# Result codes of records, last column of `found`.
GOOD, UNCLOSED, STRAY_TEXT, STRAY_RETURN, TOO_LONG, STRAY_ESCAPE = range(6)

_FIRST_CHUNK = 64 << 10  # bytes read after a jump; doubled by each sequential read, so jumps stay cheap
_CAPACITY = 1 << 15  # records per array yielded

# States of the automaton; the two of bad records are last, in the order of their codes.
_START, _PADDING, _FIELD, _OPEN, _QUOTED, _CLOSING, _RETURN, _BLANK_RETURN, _ESCAPED, _ESCAPED_PLAIN, _TEXT, _CR = (
    range(12)
)
_NEWLINE = 255  # in place of a next state: the line ends here
_PENDING, _BLANK = -1, -2  # results of `_classify` that are not codes

# Fields of the cursor, the state carried from one chunk of the file to the next.
(
    _POSITION,  # of the next byte to scan
    _STATE,
    _LINE,  # number of the line at the position, from 1
    _LINE_START,  # where that line begins
    _RECORD,  # where the record begins
    _RECORD_LINE,
    _FIRST_STOP,  # end of the record's first line, or 0 while still on it
    _DECIDED,  # lines that begin before this position and leave a quote open are known to be bad
    _FRONTIER,  # no quote left open by an earlier line is closed before it; the next three fields are the state there
    _FRONTIER_STATE,
    _FRONTIER_LINE,
    _FRONTIER_LINE_START,
    _NUM_FIELDS,
) = range(13)


@dataclass(frozen=True, kw_only=True)
class Syntax:
    """How records are divided into fields.

    Attributes:
        delimiter: ends a field; None: a line is one field.
        quoting: whether a field may be in double quotes, and then hold delimiters, newlines and doubled quotes.
        escape: with `quoting`, a character that takes its meaning from the one after it; None: there is none.
        blanks: whether blank lines are records as well.
    """

    delimiter: str | None = None
    quoting: bool = False
    escape: str | None = None
    blanks: bool = False

    @property
    def bytes(self) -> tuple[int, int]:
        """Delimiter and escape as bytes; -1 where there is none."""
        return (-1 if self.delimiter is None else ord(self.delimiter)), (
            -1 if self.escape is None else ord(self.escape)
        )


CSV, TSV, LINES = Syntax(delimiter=",", quoting=True), Syntax(delimiter="\t"), Syntax(blanks=True)


@functools.lru_cache
def _table(syntax: Syntax) -> npt.NDArray[np.uint8]:
    """Return the transition table of a syntax, (states, 256) uint8: the next state by state and byte."""
    if not syntax.quoting:
        return _filled(
            {
                _START: (_FIELD, {" ": _PADDING, "\r": _PADDING}),
                _PADDING: (_FIELD, {" ": _PADDING, "\r": _PADDING}),
                _FIELD: (_FIELD, {}),
            }
        )
    between = {syntax.delimiter or ",": _OPEN, "\r": _RETURN}
    plain = {syntax.escape: _ESCAPED_PLAIN} if syntax.escape else {}
    quoted = {syntax.escape: _ESCAPED} if syntax.escape else {}
    return _filled(
        {
            _START: (_FIELD, {'"': _QUOTED, **between, " ": _PADDING, "\r": _BLANK_RETURN, **plain}),
            _PADDING: (_FIELD, {**between, " ": _PADDING, "\r": _BLANK_RETURN, **plain}),
            _FIELD: (_FIELD, {**between, **plain}),
            _OPEN: (_FIELD, {'"': _QUOTED, **between, **plain}),
            _QUOTED: (_QUOTED, {'"': _CLOSING, **quoted}),
            _CLOSING: (_TEXT, {'"': _QUOTED, **between}),
            _RETURN: (_CR, {"\r": _RETURN}),
            _BLANK_RETURN: (_CR, {"\r": _BLANK_RETURN}),
            _ESCAPED: (_QUOTED, {}),
            _ESCAPED_PLAIN: (_FIELD, {}),
            _TEXT: (_TEXT, {}),
            _CR: (_CR, {}),
        }
    )


def _filled(rows: dict[int, tuple[int, dict[str, int]]]) -> npt.NDArray[np.uint8]:
    """Expand state -> (default next state, exceptions by character) to a transition table."""
    table = np.zeros((_CR + 1, 256), np.uint8)
    for state, (default, exceptions) in rows.items():
        table[state] = default
        for character, next_state in exceptions.items():
            table[state, ord(character)] = next_state
    table[:, ord("\n")] = _NEWLINE
    return table


@kernel
def _classify(state: int, on_first_line: bool, too_long: bool, decided: bool, at_end: bool) -> int:
    """Classify the current record at the end of a line: a code, `_BLANK`, or `_PENDING` while a quote is open."""
    if on_first_line:
        if state in (_START, _PADDING, _BLANK_RETURN):
            return _BLANK
        if too_long:
            return TOO_LONG
        if state >= _TEXT:
            return state - _TEXT + STRAY_TEXT
        if state == _ESCAPED_PLAIN:
            return STRAY_ESCAPE
    elif too_long or state == _ESCAPED_PLAIN:
        return UNCLOSED
    if state != _QUOTED:
        return GOOD
    return UNCLOSED if at_end or decided else _PENDING


@kernel
def _scan(
    buffer: npt.NDArray[np.uint8],
    base: int,
    last: bool,
    until: int,
    table: npt.NDArray[np.uint8],
    max_record: int,
    blanks: bool,
    cursor: npt.NDArray[np.int64],
    found: npt.NDArray[np.int64],
) -> int:
    """Scan from the cursor on, write (start, stop, line, code) of each record to `found`; return their number.

    `base` is the position of `buffer` in the file. Scanning stops at the buffer's end, when `found` is full, when the
    cursor leaves the buffer, and at the first boundary at `until` or later. With `last` the buffer ends where the file
    does, which ends a line as a newline does.
    """
    i, size, count = cursor[_POSITION] - base, buffer.shape[0], 0
    state, line, line_start = cursor[_STATE], cursor[_LINE], cursor[_LINE_START]
    record, record_line, first_stop = cursor[_RECORD], cursor[_RECORD_LINE], cursor[_FIRST_STOP]
    # `state` is the automaton's after the bytes [record, base + i), and `line_start` is where their last line begins.
    # All records before `record` are found. `first_stop` is the end of the record's first line, 0 while i is on it.
    while 0 <= i <= size and count < found.shape[0] and record < until:
        transitions = table[state]
        while i < size and transitions[buffer[i]] == state:
            i += 1
        at_end = i == size
        if at_end and not last:
            break
        if not at_end:
            next_state = np.int64(transitions[buffer[i]])
            i += 1
            if next_state != _NEWLINE:
                state = next_state
                if state < _TEXT or first_stop == 0:
                    continue
        here = base + i
        on_first_line = first_stop == 0
        if state == _ESCAPED:
            state = np.int64(_QUOTED)  # an escaped newline in quotes is one of the field's
        if at_end or next_state == _NEWLINE:
            too_long = here - record > max_record
            code = _classify(state, on_first_line, too_long, record < cursor[_DECIDED], at_end)
            if code == _BLANK and blanks:
                code = GOOD
            if on_first_line:
                first_stop = here
            elif code == UNCLOSED and too_long:
                # Before the newline: from a later record on, the line may end within `max_record`.
                cursor[_FRONTIER], cursor[_FRONTIER_STATE] = (here if at_end else here - 1), state
                cursor[_FRONTIER_LINE], cursor[_FRONTIER_LINE_START] = line, line_start
            elif code == UNCLOSED:
                cursor[_DECIDED] = here + 1
            if code == _PENDING:
                if on_first_line and cursor[_FRONTIER] > here:
                    i, state = cursor[_FRONTIER] - base, cursor[_FRONTIER_STATE]
                    line, line_start = cursor[_FRONTIER_LINE], cursor[_FRONTIER_LINE_START]
                else:
                    line, line_start = line + 1, here
                continue
        else:  # text after a closing quote, on a later line of the record
            code = UNCLOSED
            cursor[_DECIDED] = line_start
        stop = here if code == GOOD else first_stop
        if code != _BLANK:
            found[count, 0], found[count, 1], found[count, 2], found[count, 3] = record, stop, record_line, code
            count += 1
        line = line + 1 if code == GOOD else record_line + 1
        i, state, first_stop = stop - base, _START, 0
        record = line_start = stop
        record_line = line
    cursor[_POSITION], cursor[_STATE], cursor[_LINE], cursor[_LINE_START] = base + i, state, line, line_start
    cursor[_RECORD], cursor[_RECORD_LINE], cursor[_FIRST_STOP] = record, record_line, first_stop
    return count


def find_records(
    read: Callable[[int, int], bytes],
    start: int,
    stop: int,
    *,
    first_line: int,
    syntax: Syntax,
    until: int | None = None,
    max_record: int = MAX_RECORD,
    chunk_bytes: int = 4 << 20,
) -> Generator[npt.NDArray[np.int64], None, tuple[int, int]]:
    """Find the records in the bytes [start, stop) of a file.

    Args:
        read: a function of (position, size) that returns these bytes; positions mostly, but not always, increase.
        start: a boundary.
        stop: end of the file or a boundary.
        first_line: number of the line at `start`.
        syntax: of the records; without quoting every line is one.
        until: records that start before this position are found, the last of them to its end; None: all.
        max_record: bytes of the longest good record.
        chunk_bytes: maximum size of a read.

    Yields:
        Arrays (num_records, 4) int64 of start, stop (after the newline), line and code, in the order of the file.

    Returns:
        the first boundary at `until` or later, and its line.
    """
    until = stop if until is None else min(until, stop)
    table = _table(syntax)
    cursor = np.zeros(_NUM_FIELDS, np.int64)
    cursor[[_POSITION, _LINE_START, _RECORD]] = start
    cursor[[_LINE, _RECORD_LINE]] = first_line
    found = np.empty((_CAPACITY, 4), np.int64)
    base, chunk, size = start, np.frombuffer(b"", np.uint8), _FIRST_CHUNK // 2
    while cursor[_RECORD] < until:
        position = int(cursor[_POSITION])
        end = base + len(chunk)
        if not base <= position < end and position < stop:
            size = min(2 * size if position == end and position != until else _FIRST_CHUNK, chunk_bytes)
            some = min(size, (until if position < until else stop) - position)
            base, chunk = position, np.frombuffer(read(position, some), np.uint8)
        elif position == stop and end != stop:
            base, chunk = stop, chunk[:0]
        last = base + len(chunk) == stop
        count = _scan(chunk, base, last, until, table, max_record, syntax.blanks, cursor, found)
        if count:
            yield found[:count].copy()
    return int(cursor[_RECORD]), int(cursor[_RECORD_LINE])
