"""Say how the files of a corpus are read, one line each, and compare its parts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from shardtrain.corpus.source import Source
from shardtrain.errors import CorpusFormatError
from shardtrain.runtime.quantities import QUOTED, enumerated

FORMAT_NAMES = {
    "csv": "CSV",
    "tsv": "TSV",
    "jsonl": "JSON Lines",
    "fasttext": "fastText",
    "parquet": "Parquet",
    "arrow": "Arrow",
    "rows": "rows",
}
_MOST_SHOWN = 6  # columns


def describe_reading(source: Source) -> str:
    """Return the line that says how a file is read."""
    name, format_name = Path(source.origin).name, FORMAT_NAMES[source.format]
    if source.format == "jsonl" and source.files[0].counted == "item":
        format_name = "a JSON array"
    if source.format == "fasttext":
        return f"{name}: {format_name}, a label (__label__NAME) and a text per line"
    label = f"label '{source.column_name(source.label_column)}', "
    unnamed = f"label in column {source.label_column}, "
    if source.label_column is None:
        label = unnamed = ""
    texts = [source.column_name(column) for column in source.text_columns]
    if source.format not in ("csv", "tsv"):
        where = f"{label}text {quote_all(texts)}"
    elif source.header is not None:
        where = f"with a header; {label}text {quote_all(texts)}"
    else:
        counted = ", ".join(map(str, texts[:-1])) + " and " * (len(texts) > 1) + f"{texts[-1]}, counted from 0"
        where = f"no header; {unnamed}text in {'column' if len(texts) == 1 else 'columns'} {counted}"
    return f"{name}: {format_name}, {where}{_unused(source)}"


def _unused(source: Source) -> str:
    """Return the columns with names that are neither label nor text, as the end of the line, where labels are read."""
    unused = source.unused if source.label_column is not None else []
    return f"; not used: {enumerated(unused, _MOST_SHOWN, QUOTED)}" if unused else ""


def quote_all(names: Sequence[object]) -> str:
    """Return names in quotes, separated by commas."""
    return ", ".join(f"'{name}'" for name in names)


def repeated_names(source: Source, names: Sequence[str]) -> list[str]:
    """Report names that several columns have, as they can only be chosen by index."""
    places = {name: [str(i) for i, each in enumerate(names) if each == name] for name in names if name}
    return [
        f"{Path(source.origin).name}: columns {' and '.join(found)} have the same name, '{name}'; --text-columns and "
        "--label-column choose by index"
        for name, found in places.items()
        if len(found) > 1
    ]


def check_same_columns(part: Source, first: Source) -> None:
    """Check that a part of a split has the format and the columns of the first part.

    Raises:
        CorpusFormatError: it does not.
    """
    for what, found, expected in (
        ("the format", part.format, first.format),
        ("the header", part.header, first.header),
        ("columns", part.num_columns, first.num_columns),
        ("the text columns", part.text_columns, first.text_columns),
        ("the label column", part.label_column, first.label_column),
    ):
        if found != expected:
            raise CorpusFormatError(
                f"'{part.origin}' and '{first.origin}' are not parts of one corpus: {what} {_shown(found)} against "
                f"{_shown(expected)}; give files with the same columns"
            )


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)
