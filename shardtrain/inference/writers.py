"""Write predictions as CSV, JSON Lines or Parquet, in parts that are joined in order.

A row holds the number of the record in the input, from 0, which shows the rows that were skipped; the class, or
"undecided"; the probability of the class; with `notes` what makes the class mean little, with `proba` the probability
of every class, and with `reasons` what its terms add to the logit, as JSON or in Parquet as nested values. Text has six
decimals of a probability, Parquet the float32. A part is a pure function of its predictions, and so is the joined file
of its parts: the bytes do not depend on interruptions.
"""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
import numpy.typing as npt

from shardtrain.errors import UsageError
from shardtrain.inference.explanations import Explanation
from shardtrain.inference.notes import NOTES
from shardtrain.inference.predictions import Predictions
from shardtrain.metrics.thresholds import UNDECIDED
from shardtrain.tables.parquet import import_pyarrow

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
_SURROGATE = re.compile("[\ud800-\udfff]")
_PIECE = 1 << 20  # bytes copied at a time
# Least rows of a Parquet row group, except the last; fewer where that many have more bytes.
_GROUP_ROWS, _GROUP_BYTES = 1 << 18, 64 << 20


Piece = tuple[npt.NDArray[np.int64], Predictions]  # numbers of rows, (rows,), and their predictions


class PredictionWriter(Protocol):
    """A format: `write_part` writes a part, piece by piece, and `join` writes the file from its parts in order.

    Attributes:
        kind: name of the format.
    """

    kind: str

    def write_part(self, pieces: Iterable[Piece], file: IO[bytes]) -> None:
        """Write the predictions of pieces of rows."""
        ...

    def join(self, parts: Iterable[Path], file: IO[bytes]) -> None:
        """Write the file that consists of the parts."""
        ...


class Lines:
    """A header and a line per prediction: `line % (row, name, probability, note, *probabilities, reasons)`, as shown.

    Args:
        kind: name of the format.
        header: the first line, or nothing.
        line: a format.
        names: of the classes and of "undecided", as they are written.
        notes: what is written for each value of the marks; empty: the lines have no note.
        proba: whether the lines have the probability of every class.
        reasons: writes an explanation; None: the lines have none.
    """

    def __init__(
        self,
        kind: str,
        header: str,
        line: str,
        names: Sequence[str],
        *,
        notes: Sequence[str],
        proba: bool,
        reasons: Callable[[Explanation], str] | None,
    ) -> None:
        self.kind = kind
        self.header = header.encode()
        self._line = line
        self._names = names
        self._notes = notes
        self._proba = proba
        self._reasons = reasons

    def write_part(self, pieces: Iterable[Piece], file: IO[bytes]) -> None:
        """Write the lines of pieces of rows."""
        for rows, predictions in pieces:
            file.write(self.part(rows, predictions))

    def part(self, rows: npt.NDArray[np.int64], predictions: Predictions) -> bytes:
        """Format the lines of some rows."""
        probabilities = predictions.probabilities
        columns: list[list[Any]] = [
            rows.tolist(),
            [self._names[code] for code in predictions.codes],
            probabilities.max(axis=1).tolist(),
        ]
        if self._notes:
            columns.append([self._notes[marks] for marks in predictions.marks.tolist()])
        if self._proba:
            columns += probabilities.T.tolist()
        if self._reasons is not None:
            columns.append([self._reasons(each) for each in predictions.explanations])
        return "".join([self._line % values for values in zip(*columns, strict=True)]).encode()

    def join(self, parts: Iterable[Path], file: IO[bytes]) -> None:
        """Write the header and all lines."""
        file.write(self.header)
        for path in parts:
            with open(path, "rb") as part:
                shutil.copyfileobj(part, file, _PIECE)


def csv_lines(
    class_names: Sequence[str], *, proba: bool, notes: bool, reasons: bool = False, safe: bool = False
) -> Lines:
    """Write CSV: a header and a line per prediction, with names quoted as by Python's csv module.

    With `safe` names are written by `without_formula`; other cells are numbers and notes, or begin with `p(` or `{`.
    """
    header = ",".join(map(_quoted, _columns(class_names, proba, notes, reasons))) + "\n"
    line = "%d,%s,%.6f" + ",%s" * notes + ",%.6f" * (len(class_names) * proba) + ",%s" * reasons + "\n"
    names = [_quoted(without_formula(name) if safe else name) for name in (*class_names, UNDECIDED)]
    written = (lambda each: _quoted(each.to_json())) if reasons else None
    return Lines("CSV", header, line, names, notes=NOTES if notes else (), proba=proba, reasons=written)


def json_lines(class_names: Sequence[str], *, proba: bool, notes: bool, reasons: bool = False) -> Lines:
    """Write JSON Lines: an object per prediction; its `note` may be null, `probabilities` are an object by class."""
    names = [json.dumps(name, ensure_ascii=False) for name in (*class_names, UNDECIDED)]
    every = ", ".join(name.replace("%", "%%") + ": %.6f" for name in names[:-1])
    tail = f', "probabilities": {{{every}}}' if proba else ""
    tail += ', "reasons": %s' * reasons
    line = '{"row": %d, "label": %s, "probability": %.6f' + ', "note": %s' * notes + tail + "}\n"
    written = [json.dumps(note or None) for note in NOTES] if notes else ()
    explained = Explanation.to_json if reasons else None
    return Lines("JSON Lines", "", line, names, notes=written, proba=proba, reasons=explained)


class Parquet:
    """Write Parquet: columns of int64, string and float32, `note` null if there is none; each part is a Parquet file.

    `reasons` are a struct of `Explanation.describe`, in which half a surrogate pair is U+FFFD.

    Raises:
        MissingExtraError: pyarrow is not installed.
    """

    kind = "Parquet"

    def __init__(self, class_names: Sequence[str], *, proba: bool, notes: bool, reasons: bool = False) -> None:
        pa = self._arrow = import_pyarrow("written")
        self._names = pa.array([*class_names, UNDECIDED], pa.string())
        self._proba = proba
        self._notes = pa.array([note or None for note in NOTES], pa.string()) if notes else None
        types = [pa.int64(), pa.string(), pa.float32(), *[pa.string()] * notes]
        types += [pa.float32()] * (len(class_names) * proba)
        self._reasons = _reasons_type(pa) if reasons else None
        types += [self._reasons] * reasons
        self._schema = pa.schema(list(zip(_columns(class_names, proba, notes, reasons), types, strict=True)))
        self._group_rows = max(1, min(_GROUP_ROWS, _GROUP_BYTES // (4 * len(types))))

    def write_part(self, pieces: Iterable[Piece], file: IO[bytes]) -> None:
        """Write the rows as a Parquet file, with a row group per piece."""
        with self._arrow.parquet.ParquetWriter(file, self._schema) as writer:
            for rows, predictions in pieces:
                writer.write_table(self._table(rows, predictions))

    def _table(self, rows: npt.NDArray[np.int64], predictions: Predictions) -> Any:
        probabilities = predictions.probabilities
        columns = [rows, self._names.take(self._arrow.array(predictions.codes)), probabilities.max(axis=1)]
        if self._notes is not None:
            columns.append(self._notes.take(self._arrow.array(predictions.marks)))
        if self._proba:
            columns += [np.ascontiguousarray(column) for column in probabilities.T]
        if self._reasons is not None:
            columns.append(self._described([each.describe() for each in predictions.explanations]))
        return self._arrow.table(columns, schema=self._schema)

    def _described(self, values: list[dict[str, Any]]) -> Any:
        try:
            return self._arrow.array(values, self._reasons)
        except UnicodeEncodeError:  # half a surrogate pair
            return self._arrow.array(_storable(values), self._reasons)

    def join(self, parts: Iterable[Path], file: IO[bytes]) -> None:
        """Write the rows of all parts in groups of at least `_GROUP_ROWS`, or fewer where rows are long."""
        pa = self._arrow
        held: list[Any] = []
        with pa.parquet.ParquetWriter(file, self._schema) as writer:
            for path in parts:
                part = pa.parquet.ParquetFile(path)
                for number in range(part.num_row_groups):
                    held.append(part.read_row_group(number))
                    if self._are_many(held):
                        writer.write_table(pa.concat_tables(held), row_group_size=2 * self._group_rows)
                        held = []
            if held:
                writer.write_table(pa.concat_tables(held), row_group_size=2 * self._group_rows)

    def _are_many(self, tables: Sequence[Any]) -> bool:
        """Return whether tables are a row group: they have the rows of one, or explanations of many bytes."""
        if sum(map(len, tables)) >= self._group_rows:
            return True
        return self._reasons is not None and sum(table.nbytes for table in tables) >= _GROUP_BYTES


FORMATS: dict[str, Callable[..., PredictionWriter]] = {".csv": csv_lines, ".jsonl": json_lines, ".parquet": Parquet}


def without_formula(cell: str) -> str:
    """Put an apostrophe before a cell that a spreadsheet would run as a formula.

    Source: OWASP, "CSV Injection": cells that begin with `=`, `+`, `-`, `@`, a tab or a line end.
    """
    return f"'{cell}" if cell.startswith(_FORMULA) else cell


def writer_for(
    path: Path, class_names: Sequence[str], *, proba: bool, notes: bool, reasons: bool = False, csv_safe: bool = False
) -> PredictionWriter:
    """Return the writer for the suffix of a file's name.

    Raises:
        UsageError: the suffix is not one of `FORMATS`, or another than .csv with `csv_safe`.
        MissingExtraError: the package for the format is not installed.
    """
    if path.suffix.lower() not in FORMATS:
        raise UsageError(f"--output '{path}': the name has to end in {', '.join(FORMATS)}, which decides the format")
    if not csv_safe:
        return FORMATS[path.suffix.lower()](class_names, proba=proba, notes=notes, reasons=reasons)
    if path.suffix.lower() != ".csv":
        raise UsageError(f"--csv-safe is for CSV, and --output is '{path}'; omit it")
    return csv_lines(class_names, proba=proba, notes=notes, reasons=reasons, safe=True)


def _columns(class_names: Sequence[str], proba: bool, notes: bool, reasons: bool) -> list[str]:
    every = [f"p({name})" for name in class_names] if proba else []
    return ["row", "label", "probability", *(["note"] if notes else []), *every, *(["reasons"] if reasons else [])]


def _reasons_type(pa: Any) -> Any:
    """Return the Arrow type of `Explanation.describe`."""
    place = pa.list_(pa.int64(), 2)
    term = pa.struct([("terms", pa.list_(pa.string())), ("places", pa.list_(place)), ("contribution", pa.float64())])
    numbers = [("num_others", pa.int64()), ("others", pa.float64()), ("rest", pa.float64())]
    head = [("label", pa.string()), ("logit", pa.float64()), ("method", pa.string())]
    return pa.struct([*head, ("terms", pa.list_(term)), *numbers])


def _storable(value: Any) -> Any:
    """Return a JSON value with U+FFFD for what strings of Arrow cannot hold."""
    if isinstance(value, str):
        return _SURROGATE.sub("\ufffd", value)
    if isinstance(value, dict):
        return {key: _storable(each) for key, each in value.items()}
    return [_storable(each) for each in value] if isinstance(value, list) else value


def _quoted(text: str) -> str:
    out = io.StringIO()
    csv.writer(out).writerow([text])
    return out.getvalue().removesuffix("\r\n")
