"""Doubt a label column by the first records of a file, before a pass over the corpus.

Doubtful are labels that are nearly all distinct (an id, a text, a number to be predicted), and cells that combine
several labels. A doubt is a text in the `Source`: training stops with it, while a corpus whose classes are known is
compared label by label. The thresholds are cautious, since many corpora have hundreds of classes of one or two
documents, and an explicit `--labels` overrules them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import accumulate
from statistics import median
from typing import Any

import numpy as np

from shardtrain.corpus import columns
from shardtrain.corpus.detect import Sample
from shardtrain.corpus.label_spelling import MISSING, canonical_label, is_number
from shardtrain.corpus.labels import combining_separator
from shardtrain.corpus.options import TextOptions
from shardtrain.corpus.parsing import SEVERAL_LABELS, parse_json, parse_records
from shardtrain.corpus.source import Source
from shardtrain.corpus.words import beginning, count_words
from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.quantities import QUOTED, enumerated

_MIN_LABELS = 20  # fewer say nothing
_REPEATS = 0.01  # of 500 labels of 10,000 equally frequent classes, 2.5 percent repeat another
_LONG_WORDS, _LONG = 6, 50  # a label of so many words or characters (median) is a text; some texts are repeated
_LONG_DISTINCT, _FRACTIONS_DISTINCT = 0.8, 0.5  # of texts, of numbers that are no integers
_LIST = re.compile(r"""\[(\s*['"].*|.*,.*)?\]|\{(\s*['"].*|.*,.*)\}""", re.DOTALL)  # as pandas and Postgres write them
_SHOWN = 80  # characters of a row or a label in a message


def examined(source: Source, sample: Sample, options: TextOptions) -> Source:
    """Return a source with `literal_labels` as the options say, and with the doubt that its first records raise."""
    source = with_spelling(source, options)
    if source.label_column is None or getattr(options, "labels", "auto") != "auto":
        return source
    return replace(source, label_doubt=_doubt(source, sample))


def examined_rows(source: Source, names: Sequence[str], rows: Sequence[Sequence[str]], options: TextOptions) -> Source:
    """Return a source of named columns likewise; `rows` are its first ones, "" where a cell is missing."""
    source = with_spelling(source, options)
    if source.label_column is None or getattr(options, "labels", "auto") != "auto":
        return source
    column = names.index(str(source.label_column))
    found = [(i, canonical_label(row[column].strip())) for i, row in enumerate(rows)]
    found = [(i, label) for i, label in found if label not in MISSING]
    first = " and ".join(f"[{_cut(', '.join(beginning(cell, _SHOWN) for cell in row))}]" for row in rows[:2])
    places = [f"row {i + 1}" for i, _ in found]
    return replace(source, label_doubt=_doubt_of(source, [label for _, label in found], places, _named(names), first))


def refuse_lists(lists: Sequence[str], options: TextOptions, origin: str) -> None:
    """Refuse a label column that holds lists; `lists` are the names of the columns that do.

    Raises:
        CorpusFormatError: a column of lists is chosen as the label, or has a usual name of one.
    """
    usual = (
        next((name for name in lists if columns.is_label_name(name)), None) if options.label_column is None else None
    )
    name = options.label_column if options.label_column in lists else usual
    if name is not None:
        raise CorpusFormatError(
            f"'{origin}': column '{name}' holds lists, and several labels per document are not supported yet; name "
            "another column"
        )


def with_spelling(source: Source, options: TextOptions) -> Source:
    """Return a source with `literal_labels` as the options say."""
    wanted = getattr(options, "labels", "auto")
    return source if source.label_column is None else replace(source, literal_labels=wanted == "names")


def choose_columns(
    names: Sequence[str] | None, rows: Sequence[Sequence[str]], options: TextOptions, origin: str
) -> tuple[int, tuple[int, ...]]:
    """Choose columns as `columns.choose_columns` does; columns of 0 and 1 are named as several labels.

    Raises:
        CorpusFormatError: a column does not exist, is not recognised, or is ambiguous.
    """
    try:
        return columns.choose_columns(names, rows, options, origin)
    except CorpusFormatError:
        cells = list(zip(*(row for row in rows if len(row) == len(names or ())), strict=True))
        switches = [name for name, cell in zip(names or (), cells, strict=False) if set(cell) <= {"0", "1"}]
        if options.label_column is not None or len(switches) < 2:
            raise
        shown = ", ".join(f"'{name}'" for name in switches[:10])
        raise CorpusFormatError(
            f"'{origin}': the columns {shown} hold 0 and 1, and several labels per document are not supported yet; "
            f"train on one of them, for example with --label-column {switches[0]}"
        ) from None


def _doubt(source: Source, sample: Sample) -> str:
    """Return why the label column is probably not one; empty without doubt."""
    first = 0 if source.header is None else 1
    lines = sample.lines[first:]
    if source.format == "jsonl" and (found := _arrays_of_labels(source, sample)):
        return found
    ends = np.array([0, *accumulate(map(len, lines))], np.int64)
    parsed = parse_records(source, b"".join(lines), ends[:-1], ends[1:])
    good = [place for place in range(len(lines)) if place not in parsed.bad]
    places = [f"{source.files[0].counted} {sample.line_numbers[first + place]}" for place in good]
    return _doubt_of(source, parsed.labels, places, _columns(source, sample), _rows(lines))


def _doubt_of(source: Source, labels: Sequence[str], places: Sequence[str], columns_are: str, rows: str) -> str:
    """Return why labels are probably none; they are the first ones, and stand at `places`."""
    distinct = set(labels)
    if separator := combining_separator(distinct):
        i = next(i for i, label in enumerate(labels) if separator in label)
        return (
            f"{source.origin}, {places[i]}: the label '{_cut(labels[i])}' combines labels that occur elsewhere too: "
            f"{SEVERAL_LABELS}"
        )
    lists = [i for i, label in enumerate(labels) if _LIST.fullmatch(label)]
    if 2 * len(lists) > len(labels):
        i = next((i for i in lists if "," in labels[i]), lists[0])
        return f"{source.origin}, {places[i]}: the label '{_cut(labels[i])}' is written as a list: {SEVERAL_LABELS}"
    if len(labels) < _MIN_LABELS:
        return ""
    share = len(distinct) / len(labels)
    name = source.column_name(source.label_column)
    column = f"'{name}'" if isinstance(name, str) else str(name)
    shown = ", ".join(f"'{_cut(label)}'" for label in labels[:3])
    kind = "integers" if all(label.isdecimal() for label in labels) else "names"
    evidence = (
        f"{len(distinct):,} of its first {len(labels):,} labels are distinct ({shown}); {columns_are}; the first rows "
        f"are {rows}; name the label column with --label-column, or add --labels {kind} if each of them is a class"
    )
    fractions = sum(is_number(label) and not label.lstrip("-").isdecimal() for label in labels)
    if 2 * fractions > len(labels) and share > _FRACTIONS_DISTINCT:
        return f"'{source.origin}': numeric targets are not supported, and column {column} holds numbers: {evidence}"
    if len(labels) - len(distinct) <= _REPEATS * len(labels) or (share > _LONG_DISTINCT and _are_texts(labels)):
        return f"'{source.origin}': column {column}: this is probably not the label column: {evidence}"
    return ""


def _arrays_of_labels(source: Source, sample: Sample) -> str:
    """Return the doubt where most labels of JSON objects are arrays."""
    found: list[tuple[int, Any]] = []
    for line, number in zip(sample.lines, sample.line_numbers, strict=False):
        try:
            value = parse_json(line.decode())
        except ValueError:
            continue
        if isinstance(value, dict) and isinstance(value.get(str(source.label_column)), list):
            found.append((number, value[str(source.label_column)]))
    if 2 * len(found) <= len(sample.lines):
        return ""
    number, value = next((each for each in found if len(each[1]) > 1), found[0])
    return (
        f"{source.origin}, line {number}: the label '{source.label_column}' is an array, "
        f"{_cut(json.dumps(value, ensure_ascii=False))}: {SEVERAL_LABELS}"
    )


def _are_texts(labels: Sequence[str]) -> bool:
    return median(map(count_words, labels)) >= _LONG_WORDS or median(map(len, labels)) > _LONG


def _columns(source: Source, sample: Sample) -> str:
    names: Sequence[str] | None = source.header
    if source.format == "jsonl":
        names = next(list(value) for value in map(_json_object, sample.lines) if value is not None)
    if names is None:
        return f"the file has {source.num_columns or 2} columns, counted from 0, and no header"
    return _named(names)


def _named(names: Sequence[str]) -> str:
    return f"the columns are {enumerated(names, 30, QUOTED)}"


def _json_object(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(line.decode())
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def _rows(lines: Sequence[bytes]) -> str:
    return " and ".join(f"[{beginning(line.decode(), _SHOWN)}]" for line in lines[:2])


def _cut(text: str) -> str:
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"
