"""Read Parquet files as tables: columns of numbers, or one column of equally long lists, and a column of labels.

A piece is a row group, read batch by batch. pyarrow is an extra.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.arrow import load_pyarrow
from shardtrain.arrays.parquet_pages import check_pages
from shardtrain.errors import CorpusFormatError, CorpusNotFoundError, MissingExtraError
from shardtrain.tables.blocks import Block, as_features, kind_of, rows_per_block
from shardtrain.tables.labels import RawLabels, raw_labels, several_labels

_ROWS_AT_ONCE = 1 << 16


def import_pyarrow(done: str) -> ModuleType:
    """Import pyarrow; `done` completes the error message with "read" or "written".

    Raises:
        MissingExtraError: pyarrow is not installed.
    """
    try:
        found = load_pyarrow()
        import pyarrow.parquet  # noqa: F401 - an attribute of it
    except ImportError as error:
        raise MissingExtraError(
            f"Parquet files are {done} with the package 'pyarrow'; install it with `pip install 'shardtrain[parquet]'`"
        ) from error
    return found


@dataclass(frozen=True, kw_only=True)
class ParquetTable:
    """One Parquet file: features in the columns `x`, or in the lists of one column, and labels in the column `y`."""

    path: Path
    x: tuple[str, ...]
    y: str
    kind: str
    num_features: int
    num_rows: int

    @property
    def num_bytes(self) -> int:
        """Bytes of the features in shards."""
        return 4 * self.num_rows * self.num_features

    @property
    def units(self) -> str:
        """Pieces are ranges of row groups."""
        return "row groups"

    def pieces(self) -> list[tuple[int, int]]:
        """Return the row groups, one per piece."""
        with _open(self.path) as file:
            return [(number, number + 1) for number in range(file.num_row_groups)]

    def labels(self, start: int, stop: int) -> Iterator[RawLabels]:
        """Yield the labels of row groups [start, stop)."""
        with _open(self.path) as file:
            first = _rows_before(file, start)
            for batch in _batches(file, self.path, _ROWS_AT_ONCE, range(start, stop), [self.y]):
                yield self._labels(batch, first)
                first += batch.num_rows

    def blocks(self, start: int, stop: int) -> Iterator[Block]:
        """Yield the features and labels of row groups [start, stop)."""
        rows = min(rows_per_block(4 * self.num_features), _ROWS_AT_ONCE)
        with _open(self.path) as file:
            first = _rows_before(file, start)
            for batch in _batches(file, self.path, rows, range(start, stop), [*self.x, self.y]):
                columns = [_numbers(batch.column(name), name, self.path) for name in self.x]
                x = columns[0] if columns[0].ndim == 2 else np.stack(columns, axis=1)
                if x.shape[1] != self.num_features:
                    raise CorpusFormatError(
                        f"'{self.x[0]}' in '{self.path}' has lists of {x.shape[1]:,} and "
                        f"{self.num_features:,} numbers; all must have one length"
                    )
                yield Block(as_features(x, self.kind, str(self.path)), self._labels(batch, first))
                first += batch.num_rows

    def _labels(self, batch: Any, first: int) -> RawLabels:
        """Return the labels of a batch, whose first row is row `first` of the file."""
        pyarrow = import_pyarrow("read")
        column = batch.column(self.y)
        where = f"'{self.y}' in '{self.path}'"
        if column.null_count:
            raise CorpusFormatError(
                f"{where} has {column.null_count:,} missing labels in one batch; every row needs a label"
            )
        columns = None
        if _is_list(column.type):
            lengths = _lengths(column)
            columns = lengths[0] if len(lengths) else 1
            if not columns or (lengths != columns).any():  # one-hot lists have one length
                wrong = int(np.flatnonzero(lengths != 1)[0])
                raise several_labels(first + wrong, int(lengths[wrong]), where)
            column = column.flatten()
        if pyarrow.types.is_dictionary(column.type):
            column = column.cast(column.type.value_type)
        values = column.to_numpy(zero_copy_only=False)
        return raw_labels(values if columns is None else values.reshape(-1, columns), where, first=first)


def _numbers(column: Any, name: str, path: Path) -> npt.NDArray[Any]:
    """Return a column as an array (rows,), or equally long lists as (rows, length)."""
    lists = _is_list(column.type)
    values = column.flatten() if lists else column
    missing = column.null_count + (values.null_count if lists else 0)
    if missing:
        raise CorpusFormatError(f"'{name}' in '{path}' has {missing:,} missing values in one batch; fill them in first")
    numbers: npt.NDArray[Any] = values.to_numpy(zero_copy_only=False)
    if not lists:
        return numbers
    if not len(column) or len(numbers) % len(column) or len(set(_lengths(column).tolist())) > 1:
        raise CorpusFormatError(f"'{name}' in '{path}' has lists of different lengths; all must have one length")
    return numbers.reshape(len(column), -1)


def _is_list(kind: Any) -> bool:
    types = import_pyarrow("read").types
    return bool(types.is_fixed_size_list(kind) or types.is_list(kind) or types.is_large_list(kind))


def _lengths(column: Any) -> npt.NDArray[np.int64]:
    """Return the lengths of lists, (rows,)."""
    if import_pyarrow("read").types.is_fixed_size_list(column.type):
        return np.full(len(column), column.type.list_size, np.int64)
    offsets: npt.NDArray[Any] = column.offsets.to_numpy()
    return np.diff(offsets).astype(np.int64)


def _rows_before(file: Any, group: int) -> int:
    """Return the number of rows before a row group."""
    return sum(file.metadata.row_group(number).num_rows for number in range(group))


def _open(path: Path) -> Any:
    pyarrow = import_pyarrow("read")
    try:
        return pyarrow.parquet.ParquetFile(path)
    except FileNotFoundError as error:
        raise CorpusNotFoundError(f"there is no file '{path}'") from error
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusFormatError(f"'{path}' cannot be read as Parquet: {error}") from error


def _batches(file: Any, path: Path, rows: int, groups: range, columns: Sequence[str]) -> Iterator[Any]:
    """Yield columns of some row groups, `rows` rows at a time.

    Raises:
        CorpusFormatError: the file is damaged.
    """
    pyarrow = import_pyarrow("read")
    try:
        yield from file.iter_batches(rows, row_groups=groups, columns=list(columns))
    except (pyarrow.ArrowException, OSError) as error:
        raise CorpusFormatError(f"'{path}' cannot be read as Parquet: {error}") from error


def open_parquet(path: Path, x: Sequence[str], y: str, kind: str, memory_limit: int | None = None) -> ParquetTable:
    """Open the table in a Parquet file; without `x`, its features are all columns of numbers except the labels.

    Args:
        path: the file.
        x: columns of the features, or one column of lists.
        y: column of the labels.
        kind: what integers are; see `kind_of`.
        memory_limit: for one process that reads it, in bytes; None: there is none.

    Raises:
        MissingExtraError: pyarrow is not installed.
        CorpusFormatError: the file cannot be read, lacks a column, or has pages that do not fit the memory.
    """
    pyarrow = import_pyarrow("read")
    with _open(path) as file:
        schema = file.schema_arrow
        if missing := [name for name in [*x, y] if name not in schema.names]:
            raise CorpusFormatError(
                f"'{path}' has no column '{missing[0]}'; it has {', '.join(map(repr, schema.names[:20]))}"
            )
        plain = [
            field.name
            for field in schema
            if field.name != y and (pyarrow.types.is_integer(field.type) or pyarrow.types.is_floating(field.type))
        ]
        chosen = tuple(x) or tuple(plain)
        if twice := [name for name in [*chosen, y] if schema.names.count(name) + [*chosen, y].count(name) > 2]:
            raise CorpusFormatError(
                f"'{path}' has the column '{twice[0]}' twice, or it is named twice; rename or omit one"
            )
        if not chosen or not file.metadata.num_rows:
            raise CorpusFormatError(f"'{path}' has no rows, or no column of numbers; name columns with --x")
        check_pages(path, file.metadata, {*chosen, y}, memory_limit)
        num_rows = file.metadata.num_rows
        first = next(_batches(file, path, 1, range(file.num_row_groups), chosen), None)
        if first is None:
            raise CorpusFormatError(
                f"'{path}' cannot be read as Parquet: its footer says {file.metadata.num_rows:,} rows, it has none; "
                "write it again"
            )
    columns = [_numbers(first.column(name), name, path) for name in chosen]
    wide = columns[0].ndim == 2
    if any(column.dtype.kind not in "iuf" for column in columns) or (
        len(columns) > 1 and any(c.ndim == 2 for c in columns)
    ):
        raise CorpusFormatError(
            f"'{path}': features must be columns of numbers, or one column of lists; choose others with --x"
        )
    dtype = next((column.dtype for column in columns if column.dtype.kind == "f"), columns[0].dtype)
    return ParquetTable(
        path=path,
        x=chosen,
        y=y,
        kind=kind_of(dtype, kind, str(path)),
        num_features=columns[0].shape[1] if wide else len(columns),
        num_rows=num_rows,
    )
