"""Convert labels of tables (integers, whole floats, strings, one-hot rows) to raw labels, from which classes are made.

A block of labels is stored as its distinct labels, as text, and an index per row, so that no list of strings is as long
as the table.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.corpus.label_spelling import MISSING, canonical_label
from shardtrain.corpus.labels import Classes, resolve_classes
from shardtrain.errors import LabelError

Array = npt.NDArray[Any]
_SORTED = 0.1  # a table with a smaller share of the label changes expected in random order counts as sorted
_EXACT = 1 << 53  # up to here, every integer is a distinct float64
_FEW_ROWS = 1000  # too few to judge an order by


@dataclass(frozen=True, eq=False)
class RawLabels:
    """Labels of rows: row r has the label names[codes[r]]."""

    names: list[str]
    codes: npt.NDArray[np.int64]

    def classes(self, codes: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """Return the class index of each row."""
        return np.array([codes[name] for name in self.names], np.int64)[self.codes]


def raw_labels(values: Array, where: str, *, first: int = 0) -> RawLabels:
    """Convert labels to raw labels.

    Args:
        values: integers, whole floats or strings, (rows,) or (rows, 1), or one-hot rows, (rows, classes), whose raw
            labels are the numbers of their columns.
        where: for messages.
        first: number of the first row in its table, for messages.

    Raises:
        LabelError: other values, several per row, or missing ones.
    """
    if values.ndim == 2 and values.shape[1]:
        values = values[:, 0] if values.shape[1] == 1 else _columns_of_one_hot(values, where, first)
    if values.ndim != 1:
        raise LabelError(f"the labels in {where} have the shape {values.shape}; expected one label per row")
    if values.dtype.kind == "O":
        wrong = next((value for value in values if not isinstance(value, str | bytes)), None)
        if wrong is not None:
            raise LabelError(
                f"a label in {where} is {wrong!r:.60}; labels must be integers or text, and none may be missing"
            )
    elif values.dtype.kind == "f":
        if not (np.isfinite(values).all() and (values == np.floor(values)).all()):
            raise LabelError(f"labels in {where} are fractions or missing; class labels must be integers or text")
        if len(values) and float(np.abs(values).max()) > _EXACT:
            raise LabelError(
                f"a label in {where} is {np.abs(values).max():g}, too large for {values.dtype} to distinguish it from "
                "the next integer; store labels as integers or text"
            )
        values = values.astype(np.int64)
    elif values.dtype.kind not in "iubSU":
        raise LabelError(f"the labels in {where} have the type {values.dtype}; labels must be integers or text")
    distinct, codes = np.unique(values.astype(np.uint8) if values.dtype.kind == "b" else values, return_inverse=True)
    names = [_text(value, where) for value in distinct.tolist()]
    if "" in names:
        raise LabelError(f"a label in {where} is empty; every row needs a label")
    return RawLabels(names, codes.astype(np.int64))


def _columns_of_one_hot(values: Array, where: str, first: int) -> Array:
    """Return the column of the 1 in each row, (rows,)."""
    if values.dtype.kind not in "iufb":
        raise several_labels(first, values.shape[1], where)
    ones = values == 1
    plain = (ones | (values == 0)).all(axis=1)
    counts = np.count_nonzero(ones, axis=1)
    wrong = np.flatnonzero(~plain | (counts != 1))
    if not len(wrong):
        return np.asarray(ones.argmax(axis=1))
    row = int(wrong[0])
    if plain[row]:
        raise several_labels(first + row, int(counts[row]), where)
    odd = values[row][~(ones[row] | (values[row] == 0))][0]
    raise LabelError(
        f"row {first + row:,} (from 0) of the labels in {where} has the value {odd} in one of {values.shape[1]:,} "
        "columns; labels of several columns must be one-hot: a 1 in the column of the class, otherwise 0; else store "
        "one label per row"
    )


def several_labels(row: int, count: int, where: str) -> LabelError:
    """Return the error for a row of a table, counted from 0, that does not have exactly one label."""
    if not count:
        return LabelError(f"row {row:,} (from 0) of the labels in {where} has no label; every row needs one")
    return LabelError(
        f"row {row:,} (from 0) of the labels in {where} has {count:,} labels; several labels per row are not supported "
        "yet: keep one label per row, or make a table for each label with the classes 0 and 1"
    )


def joined(blocks: Iterable[RawLabels]) -> RawLabels:
    """Join the labels of consecutive rows."""
    places: dict[str, int] = {}
    codes = [np.zeros(0, np.int64)]
    for block in blocks:
        codes.append(np.array([places.setdefault(name, len(places)) for name in block.names], np.int64)[block.codes])
    return RawLabels(list(places), np.concatenate(codes))


def _text(value: Any, where: str) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise LabelError(f"the label {value!r:.60} in {where} is not UTF-8") from error


def table_classes(counts: Mapping[str, int], labels: str, *, others: Iterable[str] = ()) -> Classes:
    """Number the classes; -1 and 1, LibSVM's two classes, count as names with `labels` "auto".

    Args:
        counts: number of training rows per raw label.
        labels: as in `resolve_classes`.
        others: raw labels of validation files, which may spell numbers otherwise.

    Raises:
        LabelError: labels that no classifier can be trained on, or text that stands for a missing label.
    """
    found = {label for label, count in counts.items() if count}
    if labels == "names" or (labels == "auto" and found == {"-1", "1"}):
        return resolve_classes(counts, class_names=None, labels="names", option="--y")
    if missing := sorted(found & MISSING):
        raise LabelError(
            f"labels are missing: {counts[missing[0]]:,} rows have '{missing[0]}'; omit them, or add --labels names "
            "if it is a class"
        )
    merged: Counter[str] = Counter()
    for label in found:
        merged[canonical_label(label)] += counts[label]
    classes = resolve_classes(merged, class_names=None, labels=labels, option="--y")
    spelled = {label: classes.codes.get(canonical_label(label)) for label in sorted({*found, *others})}
    codes = {label: code for label, code in spelled.items() if code is not None and label not in classes.codes}
    return Classes(classes.names, {**classes.codes, **codes})


@dataclass
class Order:
    """Counts how often the label changes from one row of a table to the next."""

    counts: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    last: str | None = None

    def add(self, blocks: Iterable[RawLabels]) -> Order:
        """Count the next rows; return the same object."""
        for labels in blocks:
            if len(labels.codes):
                numbers = np.bincount(labels.codes, minlength=len(labels.names)).tolist()
                self.counts.update(dict(zip(labels.names, numbers, strict=True)))
                self.changes += int(np.count_nonzero(np.diff(labels.codes)))
                self.changes += self.last is not None and labels.names[labels.codes[0]] != self.last
                self.last = labels.names[labels.codes[-1]]
        return self

    def sorted_note(self) -> str:
        """Return a note on rows sorted by class; empty if they are mixed."""
        rows = self.counts.total()
        shares = np.array(list(self.counts.values())) / max(rows, 1)
        expected = (rows - 1) * (1 - float(shares @ shares))
        if rows < _FEW_ROWS or self.changes >= _SORTED * expected:
            return ""
        return (
            f"the rows are sorted: runs of one label have {rows / (self.changes + 1):,.0f} rows, in random order they "
            f"would have {rows / (expected + 1):,.1f}; the shuffle buffer does not mix such rows well, so make shards "
            "in random order with `python -m shardtrain convert`"
        )
