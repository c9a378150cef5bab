"""Records to labels and texts, with the reason where that fails. No file is opened here.

A record's bytes were already found to be well-formed. Fields of CSV and TSV are found and joined by kernels (`fields`)
and objects of JSON Lines by Python's `json`; either way texts come out as UTF-8 bytes (`Texts`), labels as strings.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.corpus import records
from shardtrain.corpus.fields import find_fields
from shardtrain.corpus.source import Source
from shardtrain.runtime.kernels import kernel

Positions = npt.NDArray[np.int64]

REASONS = {
    records.UNCLOSED: "unclosed quote: the record that opens a quote on line {line} never ends "
    "(a closing quote is followed by a comma or the end of the line)",
    records.STRAY_TEXT: "text behind a closing quote (a quote inside a quoted field is written twice)",
    records.STRAY_RETURN: "a carriage return in the middle of the line, outside quotes",
    records.TOO_LONG: f"the line is longer than {records.MAX_RECORD >> 20} MiB",
}


@dataclass(frozen=True, kw_only=True)
class Rows:
    """What some records hold: a label and a text for each good one, in their order.

    Attributes:
        labels: stripped; empty where labels are not read.
        texts: several text columns joined with a comma and a space.
        bad: place among the given records -> why it cannot be used.
    """

    labels: list[str]
    texts: Texts
    bad: dict[int, str]


def reason_for(code: int, line: int) -> str:
    """Say why a record with this code, beginning on `line`, is bad."""
    return REASONS[code].format(line=line)


def decodable(data: bytes, starts: Positions, stops: Positions) -> tuple[bytes, Positions, Positions, int]:
    """Make the pieces [start, stop) of some bytes UTF-8, each undecodable sequence becoming U+FFFD.

    Returns:
        Bytes and pieces, the given ones where nothing had to be replaced, and the number of bytes that were.
    """
    try:
        if len(starts) and not data.isascii():
            data.decode()  # fast, and nearly always all there is to do
    except UnicodeDecodeError:
        pieces = [_replaced(data[start:stop]) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        ends = np.array([0, *accumulate(len(piece) for piece, _ in pieces)], np.int64)
        return b"".join(piece for piece, _ in pieces), ends[:-1], ends[1:], sum(number for _, number in pieces)
    return data, starts, stops, 0


def _replaced(piece: bytes) -> tuple[bytes, int]:
    try:
        piece.decode()
    except UnicodeDecodeError:
        text = piece.decode(errors="replace")
        num_marks = text.count("\ufffd") - piece.count(b"\xef\xbf\xbd")  # those that were not there before
        replaced = text.encode()
        return replaced, len(piece) - len(replaced) + 3 * num_marks
    return piece, 0


def split_fields(format: str, lines: Sequence[bytes]) -> Iterator[list[str]]:  # noqa: A002 - the word users know
    """Split each record of a CSV or TSV file, given as UTF-8 with or without its newline, into its fields."""
    for line in lines:
        start, stop = np.zeros(1, np.int64), np.array([len(line)], np.int64)
        most = int(find_fields(format, line, start, stop, 0).counts[0])
        found = find_fields(format, line, start, stop, most)
        yield [found.texts(start, (column,))[0] for column in range(most)]


def read_rows(source: Source, data: bytes, starts: Positions, stops: Positions) -> Rows:
    """Turn well-formed records, the pieces [start, stop) of UTF-8 bytes, into labels and texts as `source` says."""
    if source.format == "jsonl":
        rows = _read_objects(source, [data[a:b].decode() for a, b in zip(starts.tolist(), stops.tolist(), strict=True)])
    else:
        rows = _read_fields(source, data, starts, stops)
    return replace(rows, texts=unescape(rows.texts)) if source.unescape else rows


def unescape(texts: Texts) -> Texts:
    """Turn the two-character sequences backslash-n and backslash-quote into newline and quote."""
    return Texts(*_unescape(texts.data, texts.offsets)) if np.any(texts.data == ord("\\")) else texts


@kernel
def _unescape(data, offsets):  # type: ignore[no-untyped-def]
    out = np.empty(len(data), np.uint8)
    places = np.zeros(len(offsets), np.int64)
    size = 0
    for d in range(len(offsets) - 1):
        i = offsets[d]
        while i < offsets[d + 1]:
            byte = data[i]
            if byte == 0x5C and i + 1 < offsets[d + 1]:
                if data[i + 1] == 0x6E:  # n
                    byte = np.uint8(0x0A)
                    i += 1
                elif data[i + 1] == 0x22:
                    byte = np.uint8(0x22)
                    i += 1
            out[size] = byte
            size += 1
            i += 1
        places[d + 1] = size
    return out[:size], places


def _read_fields(source: Source, data: bytes, starts: Positions, stops: Positions) -> Rows:
    num_columns, label_column = source.num_columns, source.label_column
    columns = tuple(column for column in source.text_columns if isinstance(column, int))
    found = find_fields(source.format, data, starts, stops, num_columns)
    bad = {
        int(place): f"{_count(int(found.counts[place]), 'column')} where the first record has {num_columns}"
        for place in np.flatnonzero(found.counts != num_columns)
    }
    whole = np.flatnonzero(found.counts == num_columns)
    if not isinstance(label_column, int):
        return Rows(labels=[""] * len(whole), texts=found.texts(whole, columns), bad=bad)
    labels = _labels(found.texts(whole, (label_column,)))
    empty = [place for place, label in enumerate(labels) if not label]
    for place in empty:
        bad[int(whole[place])] = f"the label (column {source.column_name(label_column)}) is empty"
    good = np.delete(whole, empty)
    return Rows(labels=[label for label in labels if label], texts=found.texts(good, columns), bad=bad)


def _labels(texts: Texts) -> list[str]:
    """Labels without white space around them; there are few different ones."""
    content = texts.data.tobytes()
    raw = [content[start:stop] for start, stop in pairwise(texts.offsets.tolist())]
    stripped = {label: label.decode().strip() for label in set(raw)}
    return [stripped[label] for label in raw]


def _read_objects(source: Source, lines: Sequence[str]) -> Rows:
    labels, texts, bad = [], [], {}
    for place, line in enumerate(lines):
        try:
            label, text = _label_and_text(source, parse_json(line))
        except ValueError as error:
            bad[place] = str(error)
            continue
        labels.append(label)
        texts.append(text)
    return Rows(labels=labels, texts=Texts.of(texts), bad=bad)


def parse_json(line: str) -> Any:
    """Parse one line of JSON.

    Raises:
        ValueError: it is not JSON; the message is fit for a user.
    """
    try:
        return json.loads(line, parse_constant=_refuse_constant, parse_int=_parse_integer)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("not JSON that can be read: nested too deeply") from error


def _parse_integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError as error:  # Python's limit of what it converts
        raise ValueError(f"not JSON that can be read: a number of {len(digits):,} digits") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is no JSON number")


def _label_and_text(source: Source, value: Any) -> tuple[str, str]:
    """Take label and text out of a JSON value, or raise a ValueError that says why that is not possible."""
    if not isinstance(value, dict):
        raise ValueError(f"{_kind(value)} where an object is expected")
    for key in (*(() if source.label_column is None else (source.label_column,)), *source.text_columns):
        if key not in value:
            raise ValueError(f"the key '{key}' is missing")
    texts = ["" if value[key] is None else value[key] for key in source.text_columns]
    for key, text in zip(source.text_columns, texts, strict=True):
        if not isinstance(text, str):
            raise ValueError(f"the text '{key}' is {_kind(text)}, not a string")
    if source.label_column is None:
        return "", _without_lone_surrogates(", ".join(texts))
    label = value[source.label_column]
    if isinstance(label, bool | int | float):
        label = json.dumps(label)
    if not isinstance(label, str):
        raise ValueError(f"the label '{source.label_column}' is {_kind(label)}, not a string or a number")
    if not label.strip():
        raise ValueError(f"the label '{source.label_column}' is empty")
    return _without_lone_surrogates(label.strip()), _without_lone_surrogates(", ".join(texts))


def _without_lone_surrogates(text: str) -> str:
    """Replace halves of surrogate pairs, which JSON can spell and UTF-8 cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _kind(value: Any) -> str:
    kinds = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return kinds.get(type(value), "a number")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
