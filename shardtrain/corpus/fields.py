"""Split CSV and TSV records into fields, by compiled kernels over the bytes of a whole unit.

Records are known to be well-formed (`records`), so fields need no error handling: a field that begins with a quote ends
at the next quote that is not doubled. The result equals that of Python's `csv` reader in strict mode, and is much
faster, since no string is created per field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.corpus.records import Syntax
from shardtrain.runtime.kernels import inlined_kernel, kernel

_QUOTE, _NEWLINE, _RETURN, _SPACE, _TAB = ord('"'), ord("\n"), ord("\r"), ord(" "), ord("\t")
# How a field is copied: unchanged, each doubled quote once, also without escape characters, without those only.
_PLAIN, _DOUBLED, _ESCAPED_QUOTED, _ESCAPED = range(4)
LABEL_PREFIX = b"__label__"  # of a fastText file


@dataclass(frozen=True, eq=False)
class Fields:
    """The positions of the fields of records.

    Attributes:
        data: the bytes that hold the records, (bytes,) uint8.
        counts: number of fields per record, (records,) int64; only the first `places.shape[1]` are in `places`.
        places: start, stop and how to copy each field, (records, columns, 3) int64.
        escape: the escape character as a byte, -1: none.
    """

    data: npt.NDArray[np.uint8]
    counts: npt.NDArray[np.int64]
    places: npt.NDArray[np.int64]
    escape: int = -1

    def texts(self, records: npt.NDArray[np.int64], columns: tuple[int, ...]) -> Texts:
        """Return the given columns of the given records; several are joined with a comma and a space."""
        return Texts(*_join_columns(self.data, self.places, records, np.array(columns, np.int64), self.escape))


def find_fields(
    syntax: Syntax,
    data: bytes,
    starts: npt.NDArray[np.int64],
    stops: npt.NDArray[np.int64],
    num_columns: int,
) -> Fields:
    """Find the first `num_columns` fields of the records [start, stop), with or without newline."""
    content = np.frombuffer(data, np.uint8)
    delimiter, escape = syntax.bytes
    counts, places = _find_fields(content, starts, stops, num_columns, delimiter, syntax.quoting, escape)
    return Fields(content, counts, places, escape)


def find_labelled(data: bytes, starts: npt.NDArray[np.int64], stops: npt.NDArray[np.int64]) -> Fields:
    """Find label and text of the lines [start, stop) of a fastText file.

    `counts` of the result are the numbers of labels: words that begin with `LABEL_PREFIX`. Field 0 is the label without
    the prefix, if the line begins with one, and field 1 what follows it.
    """
    content, prefix = np.frombuffer(data, np.uint8), np.frombuffer(LABEL_PREFIX, np.uint8)
    return Fields(content, *_find_labelled(content, starts, stops, prefix))


@kernel
def _find_fields(data, starts, stops, num_columns, delimiter, quoting, escape):  # type: ignore[no-untyped-def]
    counts = np.zeros(len(starts), np.int64)
    places = np.zeros((len(starts), num_columns, 3), np.int64)
    also = np.uint8(escape if escape >= 0 else _QUOTE)  # what ends a run of plain bytes inside quotes, beside a quote
    for r in range(len(starts)):
        i = starts[r]
        end = _content_end(data, i, stops[r])
        column = 0
        # Here i is where field `column` begins: at most `end`, where the last field may be empty.
        while True:
            first, last, how = i, end, _PLAIN
            if quoting and i < end and data[i] == _QUOTE:
                first = i + 1
                i = first
                # data[first:i] is inside the quotes, and its quotes come in pairs or are escaped.
                while i < end:
                    while i < end and data[i] != _QUOTE and data[i] != also:
                        i += 1
                    if i < end and data[i] == _QUOTE:
                        if i + 1 == end or data[i + 1] != _QUOTE:
                            break
                        how = max(how, _DOUBLED)
                        i += 2
                    elif i < end:
                        how = _ESCAPED_QUOTED
                        i += 2
                last = min(i, end)
                i += 1  # the closing quote
            elif escape < 0:
                while i < end and data[i] != delimiter:
                    i += 1
                last = i
            else:
                while i < end and data[i] != delimiter:
                    if data[i] == escape:
                        how = _ESCAPED
                        i += 1
                    i += 1
                i = last = min(i, end)
            if column < num_columns:
                places[r, column, 0] = first
                places[r, column, 1] = last
                places[r, column, 2] = how
            column += 1
            if i >= end:
                break
            i += 1  # the delimiter
        counts[r] = column
    return counts, places


@kernel
def _find_labelled(data, starts, stops, prefix):  # type: ignore[no-untyped-def]
    counts = np.zeros(len(starts), np.int64)
    places = np.zeros((len(starts), 2, 3), np.int64)
    for r in range(len(starts)):
        end = _content_end(data, starts[r], stops[r])
        i = _skip_spaces(data, starts[r], end)
        places[r, 1, 0], places[r, 1, 1] = i, end
        first = True
        # Words that begin before i are counted, if they are labels; i is where a word begins, or the end.
        while i < end:
            stop = i
            while stop < end and data[stop] != _SPACE and data[stop] != _TAB:
                stop += 1
            is_label = stop - i >= len(prefix)
            for k in range(len(prefix)):
                if not is_label or data[i + k] != prefix[k]:
                    is_label = False
                    break
            following = _skip_spaces(data, stop, end)
            counts[r] += is_label
            if is_label and first:
                places[r, 0, 0], places[r, 0, 1] = i + len(prefix), stop
                places[r, 1, 0] = following
            first, i = False, following
    return counts, places


@inlined_kernel
def _skip_spaces(data: Any, start: Any, stop: Any) -> Any:
    """Return where the first byte from `start` on is that is neither a space nor a tab; `stop` if there is none."""
    i = start
    while i < stop and (data[i] == _SPACE or data[i] == _TAB):
        i += 1
    return i


@inlined_kernel
def _content_end(data: Any, start: Any, stop: Any) -> Any:
    """Return where a record ends without its line ending, if it has one."""
    end = stop
    if end > start and data[end - 1] == _NEWLINE:
        end -= 1
    while end > start and data[end - 1] == _RETURN:
        end -= 1
    return end


@kernel
def _join_columns(data, places, records, columns, escape):  # type: ignore[no-untyped-def]
    max_size = 0
    for r in records:
        for column in columns:
            max_size += places[r, column, 1] - places[r, column, 0] + 2
    out = np.empty(max_size, np.uint8)
    offsets = np.zeros(len(records) + 1, np.int64)
    size = 0
    # out[:size] holds the texts of records[:k] and, of record k, the columns before c.
    for k in range(len(records)):
        for c in range(len(columns)):
            if c:
                out[size] = 0x2C  # comma
                out[size + 1] = 0x20  # space
                size += 2
            first, last, how = places[records[k], columns[c]]
            if how == _PLAIN:
                for i in range(first, last):
                    out[size + i - first] = data[i]
                size += last - first
                continue
            i = first
            # out[:size] has data[first:i], each pair of quotes as one and no escape character.
            while i < last:
                if how >= _ESCAPED_QUOTED and data[i] == escape and i + 1 < last:
                    out[size] = data[i + 1]
                    i += 2
                else:
                    out[size] = data[i]
                    i += 2 if data[i] == _QUOTE and how != _ESCAPED else 1
                size += 1
        offsets[k + 1] = size
    return out[:size], offsets
