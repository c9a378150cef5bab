"""Write rows that a Python program gives to a file of blocks: pairs, dictionaries, tables, datasets of Hugging Face.

Rows are taken as they come and never held all at once. Tables are read by columns through Arrow where pyarrow is
installed and the table offers it, otherwise row by row.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import Any

from shardtrain.arrays.texts import Texts
from shardtrain.corpus.blocks import BlockWriter
from shardtrain.corpus.columns import choose_keys
from shardtrain.corpus.options import TextOptions
from shardtrain.corpus.parsing import without_lone_surrogates
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError
from shardtrain.runtime.atomic import committed
from shardtrain.runtime.progress import progress

NAME = "the rows"  # of what is given, in messages
_ROWS = 1024  # taken at a time
_SAMPLE = 500
_MISSING_TYPES = ("NAType", "NaTType")
_EXAMPLE = 'shardtrain.build([("good", "a text"), ("bad", "another")])'

Row = Sequence[Any] | Mapping[str, Any]


def write_rows(rows: Iterable[Any], path: Path, options: TextOptions) -> int:
    """Write labels and texts of rows to a file of blocks, in their order; return the number of rows.

    Args:
        rows: (label, text) pairs, or dictionaries; or a table with named columns: of pandas, polars or Arrow, or a
            `datasets.Dataset`.
        path: of the file.
        options: columns that the user chose.

    Raises:
        CorpusNotFoundError: there is no row.
        CorpusFormatError: a row has no label and text; the message has its number, from 1.
    """
    names, class_names, items = _opened(rows)
    items = iter(items)
    head = list(islice(items, _SAMPLE))
    if not head:
        raise CorpusNotFoundError(f"{NAME} hold no row; give pairs such as {_EXAMPLE}")
    names = names or (list(head[0]) if isinstance(head[0], Mapping) else None)
    label, texts = _chosen(names, head, options)
    columns = {"label": label, "texts": texts, "class_names": class_names.get(str(label))}
    with committed(path, synced=False) as file, progress(f"reading {NAME}", total=None, unit="rows") as done:
        writer = BlockWriter(file, columns)
        numbered = enumerate(chain(head, items))
        while batch := list(islice(numbered, _ROWS)):
            cells = [_cells(row, place, names, label, texts) for place, row in batch]
            writer.append([label for label, _ in cells], Texts.from_strings(text for _, text in cells))
            done.add(len(batch))
        writer.finish()
    return writer.num_rows


def is_table(value: Any) -> bool:
    """Return whether a value is a table with named columns: of pandas, polars, Arrow or `datasets`."""
    return any(
        hasattr(value, name) for name in ("iter_rows", "itertuples", "to_batches", "column_names", "read_next_batch")
    )


def _opened(rows: Any) -> tuple[list[str] | None, dict[str, tuple[str, ...]], Iterable[Row]]:
    """Return the names of the columns, those of classes by column, and an iterable of rows."""
    if hasattr(rows, "iter_rows"):  # polars
        return list(rows.columns), {}, rows.iter_rows()
    if hasattr(rows, "itertuples"):  # pandas
        return list(map(str, rows.columns)), {}, rows.itertuples(index=False, name=None)
    if hasattr(rows, "to_batches") or hasattr(rows, "read_next_batch"):  # Arrow's tables, batches and readers
        return list(rows.schema.names), {}, _arrow_rows(rows)
    if hasattr(rows, "column_names") and hasattr(rows, "features"):  # datasets
        classes = {name: tuple(each.names) for name, each in rows.features.items() if hasattr(each, "names")}
        return list(rows.column_names), classes, (tuple(row.values()) for row in rows)
    if not isinstance(rows, Iterable):
        raise CorpusFormatError(f"{NAME} are {type(rows).__name__}, not rows; give pairs such as {_EXAMPLE}")
    return None, {}, rows


def _arrow_rows(rows: Any) -> Iterator[Row]:
    batches = rows.to_batches(max_chunksize=_ROWS) if hasattr(rows, "to_batches") else rows
    for batch in batches:
        yield from zip(*(column.to_pylist() for column in batch.columns), strict=True)


def _chosen(names: list[str] | None, head: Sequence[Row], options: TextOptions) -> tuple[Any, list[Any]]:
    """Choose the label and the text columns: names; of rows without names indices, the first and all others."""
    if names is not None:
        label, texts = choose_keys(names, options, NAME, [_in_order(row, names) for row in head])
        return label, list(texts)
    place = 0 if options.label_column is None else options.label_column
    width = len(head[0]) if isinstance(head[0], Sequence) or hasattr(head[0], "__len__") else 2
    return place, list(options.text_columns or (i for i in range(max(width, 2)) if i != place))


def _in_order(row: Row, names: Sequence[str]) -> list[str]:
    """Return the cells of a row as texts, empty where they are missing."""
    cells = [row.get(name) for name in names] if isinstance(row, Mapping) else row
    return ["" if cell is None else str(cell) for cell in cells]


def _cells(row: Any, place: int, names: list[str] | None, label: Any, texts: Sequence[Any]) -> tuple[str | None, str]:
    """Return label, None where it is missing, and text of a row."""
    try:
        if isinstance(row, str | bytes):
            raise TypeError
        found = [row[key if names is None or isinstance(row, Mapping) else names.index(key)] for key in (label, *texts)]
    except (KeyError, IndexError, TypeError) as error:
        raise CorpusFormatError(
            f"{NAME}, row {place + 1:,}: {_brief(row)} has no label and text; expected a pair such as {_EXAMPLE}"
        ) from error
    return _label(found[0], place), ", ".join(_text(value, place) for value in found[1:])


def _label(value: Any, place: int) -> str | None:
    if _is_missing(value):
        return None
    value = value if isinstance(value, str) or not hasattr(value, "item") else value.item()  # numpy's numbers
    if isinstance(value, str):
        return without_lone_surrogates(value)
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    raise CorpusFormatError(
        f"{NAME}, row {place + 1:,}: the label is {_brief(value)}, a {type(value).__name__}; expected text or a number"
    )


def _text(value: Any, place: int) -> str:
    if isinstance(value, str):
        return without_lone_surrogates(value)
    if _is_missing(value):
        return ""
    raise CorpusFormatError(
        f"{NAME}, row {place + 1:,}: the text is {_brief(value)}, a {type(value).__name__}; expected a str"
    )


def _is_missing(value: Any) -> bool:
    """Return whether a value is None, NaN, or pandas' NA or NaT."""
    return value is None or (isinstance(value, float) and value != value) or type(value).__name__ in _MISSING_TYPES


def _brief(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
