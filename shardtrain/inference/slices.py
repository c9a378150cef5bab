"""Measure a run on parts of a corpus that the values of a column make, and read weights of rows from a column."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.rows import Labels
from shardtrain.corpus.columns import choose_column
from shardtrain.corpus.options import Column
from shardtrain.corpus.readers import read_unit
from shardtrain.corpus.source import Source, Unit
from shardtrain.errors import CorpusFormatError, UsageError
from shardtrain.inference.answered import Rows
from shardtrain.inference.predictions import Probabilities
from shardtrain.metrics.classification import Metrics, MetricSums

MAX_SLICES, MAX_COUNTS = 1000, 1 << 23  # slices; slices times classes, of which each has three numbers
MISSING = "(missing)"
_WITH_COLUMNS, _COPIED = ("csv", "tsv", "jsonl"), ("parquet", "arrow")  # formats
_LEAST_WEIGHT, _MOST_WEIGHT = 1e-100, 1e100  # squares of sums of these are finite, and not 0
_HELD = 1 << 20  # probabilities that are held until they are divided


@dataclass(frozen=True, kw_only=True)
class Slice:
    """The rows with one value of a column.

    Attributes:
        value: of the column; `MISSING` where a record has none.
        metrics: of these rows, without confusion matrix and rankings.
    """

    value: str
    metrics: Metrics


class SliceSums:
    """An observer (`answered.Observer`) that measures the rows of each value of a column.

    Args:
        column: for messages.
        num_classes: of the run.
    """

    def __init__(self, column: str, num_classes: int) -> None:
        self._column, self._num_classes = column, num_classes
        self._sums: dict[str, MetricSums] = {}
        self._held: list[tuple[Labels, Probabilities, Rows]] = []
        self._size = 0  # probabilities that are held

    def __call__(self, y: Labels, probabilities: Probabilities, rows: Rows) -> None:
        """Add a batch.

        Raises:
            UsageError: the column has more than `MAX_SLICES` values, or too many for so many classes.
        """
        self._held.append((y, probabilities.copy(), rows))
        self._size += probabilities.size
        if self._size >= _HELD:
            self._divide()

    def slices(self) -> list[Slice]:
        """Return the slices, the largest first."""
        self._divide()
        found = [Slice(value=value, metrics=sums.metrics()) for value, sums in self._sums.items()]
        return sorted(found, key=lambda each: (-each.metrics.rows, each.value))

    def _divide(self) -> None:
        if not self._held:
            return
        y, probabilities = (np.concatenate(parts) for parts in list(zip(*self._held, strict=True))[:2])
        values = [value for _, _, rows in self._held for value in rows.values or ()]
        weights = [rows.weights for _, _, rows in self._held if rows.weights is not None]
        amounts = np.concatenate(weights) if weights else None
        codes = {value: code for code, value in enumerate(dict.fromkeys(values))}
        most = min(MAX_SLICES, MAX_COUNTS // self._num_classes)
        if len(self._sums.keys() | codes) > most:
            for_these = f", the most for {self._num_classes:,} classes" if most < MAX_SLICES else ""
            raise UsageError(
                f"the column '{self._column}' has more than {most:,} values{for_these}, such as {values[0]!r} and "
                f"{values[-1]!r}; choose one that divides the rows into fewer parts"
            )
        number = np.fromiter((codes[value] for value in values), np.int64, len(values))
        order = np.argsort(number, kind="stable")
        bounds = np.searchsorted(number[order], np.arange(len(codes) + 1))
        for value, code in codes.items():
            mine = order[bounds[code] : bounds[code + 1]]
            sums = self._sums.setdefault(value, MetricSums(self._num_classes, detailed=False))
            sums.add(y[mine], probabilities[mine], None if amounts is None else amounts[mine])
        self._held, self._size = [], 0


class ColumnReader:
    """Read a column of a corpus beside its documents, which are asked for in their order.

    Args:
        column: for messages.
        source: whose labels are the values of the column; see `column_source`.
        units: of the source.
    """

    def __init__(self, column: Column, source: Source, units: Iterable[Unit]) -> None:
        self._column, self._source, self._units = column, source, iter(units)
        self._ordinals: npt.NDArray[np.int64] = np.zeros(0, np.int64)
        self._values: list[str] = []
        self._read = 0  # records

    def values(self, ordinals: npt.NDArray[np.int64]) -> list[str | None]:
        """Return the values of the records with these ordinals, which ascend from call to call; None: it has none.

        Raises:
            CorpusFormatError: none of the first records has the column.
        """
        while len(ordinals) and self._read <= ordinals[-1] and (unit := next(self._units, None)) is not None:
            documents = read_unit(self._source, unit)
            self._ordinals = np.concatenate([self._ordinals, documents.ordinals])
            self._values += documents.labels
            if not self._read and not len(documents.ordinals):
                raise CorpusFormatError(
                    f"'{self._source.origin}' has no value in the column '{self._column}' in its first "
                    f"{unit.num_documents:,} records; name another column"
                )
            self._read = unit.first_document + unit.num_documents
        places = np.searchsorted(self._ordinals, ordinals).tolist()
        there = np.isin(ordinals, self._ordinals).tolist()
        found = [self._values[place] if known else None for place, known in zip(places, there, strict=True)]
        if len(ordinals):
            done = int(np.searchsorted(self._ordinals, ordinals[-1], side="right"))
            self._ordinals, self._values = self._ordinals[done:], self._values[done:]
        return found

    def weights(self, ordinals: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the values as weights, (rows,); see `values`.

        Raises:
            CorpusFormatError: one is not 0 or a number from `_LEAST_WEIGHT` to `_MOST_WEIGHT`.
        """
        values = self.values(ordinals)
        found = np.array([_weight(value) for value in values], np.float64)
        wrong = np.flatnonzero((found != 0) & ~((found >= _LEAST_WEIGHT) & (found <= _MOST_WEIGHT)))
        if not len(wrong):
            return found
        place = int(wrong[0])
        shown = "is missing" if values[place] is None else f"is {values[place]!r}"
        raise CorpusFormatError(
            f"'{self._source.origin}', record {ordinals[place] + 1:,}: the weight in the column '{self._column}' "
            f"{shown}; 0 or a number from {_LEAST_WEIGHT:g} to {_MOST_WEIGHT:g} is expected"
        )


def column_source(source: Source, column: Column, reopened: Callable[[tuple[Column, ...]], Source]) -> Source:
    """Return a source of the same records whose labels are the values of a column.

    Args:
        source: of a corpus.
        column: name, or index from 0 of CSV.
        reopened: opens the same split again with the column as the label and these text columns; for files whose
            columns are copied when they are opened.

    Raises:
        CorpusFormatError: the corpus has no such column.
        UsageError: it has no columns, or the column is its only text.
    """
    if source.format not in (*_WITH_COLUMNS, *_COPIED):
        raise UsageError(f"'{source.origin}' has no columns besides label and text, so '{column}' is none of them")
    chosen = column
    if source.format in ("csv", "tsv"):
        chosen = choose_column(column, source.header, source.num_columns, source.origin)
    texts = tuple(each for each in source.text_columns if each != chosen)[:1]
    if not texts:
        raise UsageError(f"'{column}' is the text of '{source.origin}'; name another column")
    copied = source.format in _COPIED
    found = reopened(texts) if copied else replace(source, label_column=chosen, text_columns=texts)
    return replace(found, on_bad_row="skip", literal_labels=True)


def _weight(text: str | None) -> float:
    """Parse a weight; what is not a number, such as Python's `1_000`, is NaN."""
    try:
        return math.nan if text is None or "_" in text else float(text)
    except ValueError:
        return math.nan
