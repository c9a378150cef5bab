"""Write the rows that a run classifies wrongly to a file, with their texts and probabilities.

    row, label, predicted, probability, label_probability, text

`row` is the number of the row in the split of shards, or of the record in a corpus, from 0; `probability` is that of
the predicted class and `label_probability` that of the true one. Rows are in order. The name's suffix decides the
format: .csv (RFC 4180, UTF-8), .jsonl or .parquet. Text has six decimals of a probability, Parquet the float32. The
file appears when it is complete.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

import numpy as np

from shardtrain.arrays.rows import Labels
from shardtrain.errors import OutputExistsError, UsageError
from shardtrain.inference.answered import Rows
from shardtrain.inference.predictions import Probabilities
from shardtrain.inference.source_texts import find_source_texts
from shardtrain.inference.writers import without_formula
from shardtrain.loader.shards import Shards
from shardtrain.runtime.atomic import committed, make_folder
from shardtrain.runtime.progress import warn
from shardtrain.runtime.storage import check_output_file
from shardtrain.tables.parquet import import_pyarrow

if TYPE_CHECKING:
    from shardtrain.inference.run import Run

COLUMNS = ("row", "label", "predicted", "probability", "label_probability", "text")
_GROUP_ROWS, _GROUP_CHARACTERS = 1 << 14, 1 << 24  # of Parquet: a row group has either, and no more by a batch
_LOOKED_UP = 1 << 16  # rows whose texts are looked up at a time, in one pass over the corpus

Error = tuple[int, str, str, float, float, str | None]  # a row, in the order of `COLUMNS`


class _Format(Protocol):
    """Writes rows to a file."""

    def write(self, rows: Sequence[Error]) -> None:
        """Write some rows."""
        ...

    def close(self) -> None:
        """Write what is left."""
        ...


class _Csv:
    def __init__(self, file: IO[bytes], *, safe: bool = False) -> None:
        self._file, self._safe = file, safe
        self._write([COLUMNS])

    def write(self, rows: Sequence[Error]) -> None:
        if self._safe:
            rows = [
                tuple(without_formula(cell) if isinstance(cell, str) else cell for cell in row)  # type: ignore[misc]
                for row in rows
            ]
        self._write([(row[0], row[1], row[2], _short(row[3]), _short(row[4]), row[5]) for row in rows])

    def close(self) -> None:
        pass

    def _write(self, rows: Sequence[Sequence[Any]]) -> None:
        text = io.StringIO(newline="")
        csv.writer(text).writerows(rows)
        self._file.write(text.getvalue().encode())


class _Lines:
    def __init__(self, file: IO[bytes]) -> None:
        self._file = file

    def write(self, rows: Sequence[Error]) -> None:
        for row in rows:
            values = dict(zip(COLUMNS, (*row[:3], float(_short(row[3])), float(_short(row[4])), row[5]), strict=True))
            self._file.write(json.dumps(values, ensure_ascii=False).encode() + b"\n")

    def close(self) -> None:
        pass


class _Parquet:
    def __init__(self, file: IO[bytes]) -> None:
        pa = self._arrow = import_pyarrow("written")
        types = (pa.int64(), pa.string(), pa.string(), pa.float32(), pa.float32(), pa.string())
        self._schema = pa.schema(list(zip(COLUMNS, types, strict=True)))
        self._writer = pa.parquet.ParquetWriter(file, self._schema)
        self._held: list[Error] = []
        self._characters = 0  # of the texts that are held

    def write(self, rows: Sequence[Error]) -> None:
        self._held += rows
        self._characters += sum(len(row[5] or "") for row in rows)
        if len(self._held) >= _GROUP_ROWS or self._characters >= _GROUP_CHARACTERS:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._writer.close()

    def _flush(self) -> None:
        columns = [list(column) for column in zip(*self._held, strict=True)] or [[] for _ in COLUMNS]
        arrays = [self._arrow.array(column, field.type) for column, field in zip(columns, self._schema, strict=True)]
        self._writer.write_table(self._arrow.table(arrays, schema=self._schema))
        self._held, self._characters = [], 0


_FORMATS: dict[str, Callable[[IO[bytes]], _Format]] = {".csv": _Csv, ".jsonl": _Lines, ".parquet": _Parquet}


@contextlib.contextmanager
def errors_file(
    path: Path, run: Run, *, rows: tuple[Shards, str] | None = None, overwrite: bool = False, csv_safe: bool = False
) -> Iterator[ErrorsWriter]:
    """Yield an observer of an evaluation that writes the wrong rows to a file.

    Args:
        path: a name that ends in .csv, .jsonl or .parquet; its folder is made if it is missing.
        run: that is evaluated.
        rows: shards and the name of their split, if these are evaluated; texts are looked up in the corpus that they
            were built from, and are null, with a warning, where that is gone. None: a corpus is evaluated.
        overwrite: replace the file if it exists.
        csv_safe: as in `PredictOptions`.

    Raises:
        UsageError: there is no such format, or the shards leave out damaged rows, which would shift the numbers.
        OutputExistsError: the file exists and `overwrite` is false.
        MissingExtraError: pyarrow is needed and not installed.
    """
    check_errors_file(path, overwrite=overwrite, csv_safe=csv_safe)
    if rows is not None and rows[0].split(rows[1]).options.on_corrupt == "skip":
        raise UsageError("--errors has numbers of rows, which rows that --on-corrupt skips would shift; omit one")
    make_folder(path.parent)
    with tempfile.TemporaryDirectory(prefix="shardtrain-") as scratch, committed(path) as file:
        texts_of = None if rows is None else partial(_source_texts, *rows, Path(scratch))
        writer = ErrorsWriter(file, path.suffix, run.description.class_names, csv_safe=csv_safe, texts_of=texts_of)
        yield writer
        writer.close()


def _source_texts(shards: Shards, split: str, scratch: Path, rows: Sequence[int]) -> dict[int, str]:
    texts, reasons = find_source_texts(shards, shards.split(split), rows, scratch=scratch)
    for reason in reasons:
        warn(f"texts of wrong rows are missing: {reason}")
    return texts


def check_errors_file(path: Path, *, overwrite: bool, csv_safe: bool) -> None:
    """Refuse a file of errors that cannot be written.

    Raises:
        UsageError: its suffix is none of a format, or `csv_safe` is not for it.
        OutputExistsError: it exists and `overwrite` is false, or it is a folder.
        MissingExtraError: pyarrow is needed and not installed.
    """
    suffix = path.suffix.lower()
    if suffix not in _FORMATS:
        raise UsageError(f"--errors '{path}': the name has to end in {', '.join(_FORMATS)}, which decides the format")
    if csv_safe and suffix != ".csv":
        raise UsageError(f"--csv-safe is for CSV, and --errors is '{path}'; omit it")
    check_output_file(path, "--errors")
    if path.exists() and not overwrite:
        raise OutputExistsError(f"'{path}' exists; choose another --errors, or pass --overwrite to replace it")
    if suffix == ".parquet":
        import_pyarrow("written")


class ErrorsWriter:
    """An observer (`answered.Observer`) that writes wrong rows.

    Args:
        file: to write to.
        suffix: of its name.
        class_names: of the run.
        csv_safe: as in `PredictOptions`.
        texts_of: looks up the texts of rows of shards, by row; they are held until there are enough. None: each
            batch has its texts.

    Attributes:
        num_errors: rows written so far.
    """

    def __init__(
        self,
        file: IO[bytes],
        suffix: str,
        class_names: Sequence[str],
        *,
        csv_safe: bool = False,
        texts_of: Callable[[Sequence[int]], dict[int, str]] | None = None,
    ) -> None:
        self.num_errors = 0
        self._names, self._texts_of = class_names, texts_of
        self._format = _Csv(file, safe=True) if csv_safe else _FORMATS[suffix.lower()](file)
        self._held: list[Error] = []

    def __call__(self, y: Labels, probabilities: Probabilities, rows: Rows) -> None:
        """Write the wrong rows of a batch, or hold them."""
        guess = probabilities.argmax(axis=1)
        wrong = np.flatnonzero(guess != y).tolist()
        self.num_errors += len(wrong)
        found = [
            (
                int(rows.numbers[i]),
                self._names[int(y[i])],
                self._names[int(guess[i])],
                float(probabilities[i, guess[i]]),
                float(probabilities[i, int(y[i])]),
                None if rows.texts is None else rows.texts[i],
            )
            for i in wrong
        ]
        if self._texts_of is None:
            self._format.write(found)
            return
        self._held += found
        if len(self._held) >= _LOOKED_UP:
            self._look_up(self._texts_of)

    def close(self) -> None:
        """Write what is held."""
        if self._texts_of is not None:
            self._look_up(self._texts_of)
        self._format.close()

    def _look_up(self, texts_of: Callable[[Sequence[int]], dict[int, str]]) -> None:
        texts = texts_of([row[0] for row in self._held])
        self._format.write([(*row[:5], texts.get(row[0])) for row in self._held])
        self._held = []


def _short(value: float) -> str:
    return f"{value:.6f}"
