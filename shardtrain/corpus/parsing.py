"""Parse records into labels and texts, and report why a record cannot be used. No file is opened here.

Records are known to be well-formed. CSV and TSV are parsed by compiled kernels (`fields`), JSON Lines by Python's
`json`; texts are returned as UTF-8 bytes (`Texts`), labels as strings.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, pairwise
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.texts import Texts
from shardtrain.corpus import records
from shardtrain.corpus.fields import find_fields, find_labelled
from shardtrain.corpus.label_spelling import MISSING, canonical_label
from shardtrain.corpus.records import Syntax
from shardtrain.corpus.source import Source
from shardtrain.runtime.kernels import kernel

_READ_AT_ONCE, _MOST_KNOWN = 4096, 16_384  # labels as bytes, and distinct labels that are remembered

Positions = npt.NDArray[np.int64]  # byte positions

REASONS = {
    records.UNCLOSED: "unclosed quote: the record that opens a quote on line {line} never ends "
    "(a closing quote is followed by a comma or the end of the line)",
    records.STRAY_TEXT: "text after a closing quote (write a quote inside a quoted field twice; a file that writes a "
    "backslash before it needs --escape '\\\\')",
    records.STRAY_RETURN: "a carriage return in the middle of the line, outside quotes",
    records.STRAY_ESCAPE: "an escape character at the end of the line, outside quotes",
    records.TOO_LONG: f"the line is longer than {records.MAX_RECORD >> 20} MiB",
}
SEVERAL_LABELS = (
    "several labels per document are not supported yet (build --labels names makes each combination a class)"
)


@dataclass(frozen=True, kw_only=True)
class ParsedRecords:
    """The labels and texts of the good records, in their order.

    Attributes:
        labels: without surrounding white space, in canonical spelling (`label_spelling`) unless the source's are
            literal; empty strings where labels are not read.
        texts: one per good record; several text columns are joined with a comma and a space.
        bad: index of a record -> reason why it cannot be used.
    """

    labels: list[str]
    texts: Texts
    bad: dict[int, str]


def reason_for(code: int, line: int) -> str:
    """Return why a record with this code, beginning on `line`, is bad."""
    return REASONS[code].format(line=line)


def replace_undecodable(data: bytes, starts: Positions, stops: Positions) -> tuple[bytes, Positions, Positions, int]:
    """Replace byte sequences that are not UTF-8 in the pieces [start, stop) of `data` by U+FFFD.

    Returns:
        (data, starts, stops, number of bytes replaced); the given arguments and 0 if all of `data` is UTF-8.
    """
    try:
        if len(starts) and not data.isascii():
            data.decode()  # fast, and nearly always succeeds
    except UnicodeDecodeError:
        pieces = [_replace_in(data[start:stop]) for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        ends = np.array([0, *accumulate(len(piece) for piece, _ in pieces)], np.int64)
        return b"".join(piece for piece, _ in pieces), ends[:-1], ends[1:], sum(number for _, number in pieces)
    return data, starts, stops, 0


def _replace_in(piece: bytes) -> tuple[bytes, int]:
    try:
        piece.decode()
    except UnicodeDecodeError:
        text = piece.decode(errors="replace")
        num_marks = text.count("\ufffd") - piece.count(b"\xef\xbf\xbd")  # without those of the input
        replaced = text.encode()
        return replaced, len(piece) - len(replaced) + 3 * num_marks
    return piece, 0


def split_fields(syntax: Syntax, lines: Sequence[bytes]) -> list[list[str]]:
    """Split records, each given as UTF-8 with or without its newline, into fields.

    Records of equally many fields are split together, so memory grows with all fields, whatever the widest record has.
    """
    stops = np.cumsum(np.fromiter(map(len, lines), np.int64, len(lines)))
    starts, data = np.concatenate([np.zeros(1, np.int64), stops])[:-1], b"".join(lines)
    counts = find_fields(syntax, data, starts, stops, 0).counts
    rows: list[list[str]] = [[]] * len(lines)
    for num_fields in np.unique(counts).tolist():
        alike = np.flatnonzero(counts == num_fields)
        found = find_fields(syntax, data, starts[alike], stops[alike], num_fields)
        columns = [found.texts(np.arange(len(alike)), (column,)).to_list() for column in range(num_fields)]
        for record, fields in zip(alike.tolist(), zip(*columns, strict=True), strict=True):
            rows[record] = list(fields)
    return rows


def parse_records(source: Source, data: bytes, starts: Positions, stops: Positions) -> ParsedRecords:
    """Parse well-formed records, the pieces [start, stop) of UTF-8 bytes, in the format and columns of `source`."""
    if source.format == "jsonl":
        lines = [data[start:stop].decode() for start, stop in zip(starts.tolist(), stops.tolist(), strict=True)]
        parsed = _parse_objects(source, lines)
    elif source.format == "fasttext":
        parsed = _parse_labelled(source, data, starts, stops)
    else:
        parsed = _parse_fields(source, data, starts, stops)
    return replace(parsed, texts=unescape(parsed.texts)) if source.unescape else parsed


def unescape(texts: Texts) -> Texts:
    """Replace the two-character sequences backslash-n and backslash-quote by newline and quote."""
    return Texts(*_unescape(texts.data, texts.offsets)) if np.any(texts.data == ord("\\")) else texts


@kernel
def _unescape(data, offsets):  # type: ignore[no-untyped-def]
    out = np.empty(len(data), np.uint8)
    out_offsets = np.zeros(len(offsets), np.int64)
    size = 0
    for d in range(len(offsets) - 1):
        i = offsets[d]
        # out[:size] is the unescaped data[:i]; an escape never spans two documents.
        while i < offsets[d + 1]:
            byte = data[i]
            if byte == 0x5C and i + 1 < offsets[d + 1]:  # backslash
                if data[i + 1] == 0x6E:  # n
                    byte = np.uint8(0x0A)
                    i += 1
                elif data[i + 1] == 0x22:  # quote
                    byte = np.uint8(0x22)
                    i += 1
            out[size] = byte
            size += 1
            i += 1
        out_offsets[d + 1] = size
    return out[:size], out_offsets


def _parse_fields(source: Source, data: bytes, starts: Positions, stops: Positions) -> ParsedRecords:
    num_columns, label_column = source.num_columns, source.label_column
    columns = tuple(column for column in source.text_columns if isinstance(column, int))
    found = find_fields(source.syntax, data, starts, stops, num_columns)
    bad = {
        int(i): f"{_count(int(found.counts[i]), 'column')} where the first record has {num_columns}"
        for i in np.flatnonzero(found.counts != num_columns)
    }
    complete = np.flatnonzero(found.counts == num_columns)
    if not isinstance(label_column, int):
        return ParsedRecords(labels=[""] * len(complete), texts=found.texts(complete, columns), bad=bad)
    labels = _read_labels(found.texts(complete, (label_column,)), literal=source.literal_labels)
    missing = {""} if source.literal_labels else MISSING
    absent = [i for i, label in enumerate(labels) if label in missing]
    for i in absent:
        bad[int(complete[i])] = _missing_label(f"(column {source.column_name(label_column)})", labels[i])
    good = np.delete(complete, absent)
    labels = [label for label in labels if label not in missing] if absent else labels
    return ParsedRecords(labels=labels, texts=found.texts(good, columns), bad=bad)


def _parse_labelled(source: Source, data: bytes, starts: Positions, stops: Positions) -> ParsedRecords:
    found = find_labelled(data, starts, stops)
    if source.label_column is None:
        everything = np.arange(len(starts))
        return ParsedRecords(labels=[""] * len(starts), texts=found.texts(everything, (1,)), bad={})
    leading = found.places[:, 0, 1] > found.places[:, 0, 0]
    bad = {int(i): _reason_of_labels(int(found.counts[i])) for i in np.flatnonzero(~leading | (found.counts != 1))}
    good = np.delete(np.arange(len(starts)), list(bad))
    labels = _read_labels(found.texts(good, (0,)), literal=source.literal_labels)
    return ParsedRecords(labels=labels, texts=found.texts(good, (1,)), bad=bad)


def parse_columns(source: Source, labels: Texts, missing: npt.NDArray[np.bool_], texts: Texts) -> ParsedRecords:
    """Parse the columns of rows that are no records of text: labels, which of them are missing, and texts."""
    texts = unescape(texts) if source.unescape else texts
    if source.label_column is None:
        return ParsedRecords(labels=[""] * len(texts), texts=texts, bad={})
    read = _read_labels(labels, literal=source.literal_labels)
    absent_labels = {""} if source.literal_labels else MISSING
    where = f"(column {source.label_column})"
    bad = {i: _missing_label(where, label) for i, label in enumerate(read) if missing[i] or label in absent_labels}
    good = np.delete(np.arange(len(texts)), list(bad))
    return ParsedRecords(labels=[read[i] for i in good], texts=texts.take(good), bad=bad)


def _reason_of_labels(number: int) -> str:
    if number > 1:
        return f"{number} labels; several labels per document are not supported yet: keep one of them"
    return "the label (__label__NAME) is not the first word" if number else "there is no label (__label__NAME)"


def _read_labels(texts: Texts, *, literal: bool) -> list[str]:
    """Return labels without white space around them, in canonical spelling unless `literal`.

    Each distinct label is decoded once, unless there are so many that this would take more memory than the labels.
    """
    labels: list[str] = []
    known: dict[bytes, str] = {}
    for first in range(0, len(texts), _READ_AT_ONCE):
        offsets = texts.offsets[first : first + _READ_AT_ONCE + 1].tolist()
        content = texts.data[offsets[0] : offsets[-1]].tobytes()
        raw = [content[start - offsets[0] : stop - offsets[0]] for start, stop in pairwise(offsets)]
        if len(known) > _MOST_KNOWN:
            known = {}
        for label in set(raw).difference(known):
            text = label.decode().strip()
            known[label] = text if literal else canonical_label(text)
        labels.extend(map(known.__getitem__, raw))
    return labels


def _missing_label(where: str, label: str) -> str:
    """Return the reason of a row without a label."""
    return (
        f"the label {where} is missing: '{label}' (build --labels names makes it a class)"
        if label
        else f"the label {where} is empty"
    )


def _parse_objects(source: Source, lines: Sequence[str]) -> ParsedRecords:
    labels, texts, bad = [], [], {}
    for i, line in enumerate(lines):
        try:
            label, text = _label_and_text(source, parse_json(line))
        except ValueError as error:
            bad[i] = str(error)
            continue
        labels.append(label)
        texts.append(text)
    return ParsedRecords(labels=labels, texts=Texts.from_strings(texts), bad=bad)


def parse_json(line: str) -> Any:
    """Parse one line of JSON.

    Raises:
        ValueError: the line is not JSON; the message says why.
    """
    try:
        return json.loads(line, parse_constant=_refuse_constant, parse_int=_parse_integer)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg.removesuffix(' at')} at character {error.pos + 1}") from error
    except RecursionError as error:
        raise ValueError("JSON nested too deeply to parse") from error


def _parse_integer(digits: str) -> int:
    try:
        return int(digits)
    except ValueError as error:  # beyond `sys.get_int_max_str_digits()`
        raise ValueError(f"a number of {len(digits):,} digits is too long to parse") from error


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is not a JSON number")


def _label_and_text(source: Source, value: Any) -> tuple[str, str]:
    """Return label and text of a JSON value; raise a ValueError that says why it has none."""
    if not isinstance(value, dict):
        raise ValueError(f"{_json_type(value)} where an object is expected")
    for key in (*(() if source.label_column is None else (source.label_column,)), *source.text_columns):
        if key not in value:
            raise ValueError(f"the key '{key}' is missing")
    texts = ["" if value[key] is None else value[key] for key in source.text_columns]
    for key, text in zip(source.text_columns, texts, strict=True):
        if not isinstance(text, str):
            raise ValueError(f"the text '{key}' is {_json_type(text)}, not a string")
    if source.label_column is None:
        return "", without_lone_surrogates(", ".join(texts))
    label = json_label(source, value[source.label_column])
    return without_lone_surrogates(label), without_lone_surrogates(", ".join(texts))


def json_label(source: Source, value: Any) -> str:
    """Return the label that a JSON value stands for.

    Raises:
        ValueError: it stands for none, or for several; the message says why.
    """
    where, literal = f"'{source.label_column}'", source.literal_labels
    if value is None:
        raise ValueError(f"the label {where} is missing: null")
    if isinstance(value, list):
        if not literal:
            raise ValueError(f"the label {where} is an array: {SEVERAL_LABELS}")
        value = "|".join(json_label(source, each) for each in value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"the label {where} is a number beyond the range of 64-bit floats")
    if isinstance(value, bool | int | float):
        value = json.dumps(value)
    if not isinstance(value, str):
        raise ValueError(f"the label {where} is {_json_type(value)}, not a string or a number")
    label = value.strip()
    if not label or (label in MISSING and not literal):
        raise ValueError(_missing_label(where, label))
    return label if literal else canonical_label(label)


def without_lone_surrogates(text: str) -> str:
    """Replace lone surrogates, which JSON can represent and UTF-8 cannot, by U+FFFD."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def _json_type(value: Any) -> str:
    types = {dict: "an object", list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return types.get(type(value), "a number")


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" + ("" if number == 1 else "s")
