"""Labels as other people keep them, integers, whole floats or strings, to the raw labels that classes are made from.

A block of labels becomes the distinct ones, as text, and which of them each row has, so that no list of strings as long
as the table is ever made.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.corpus.labels import Classes, resolve_classes
from shardtrain.errors import LabelError

Array = npt.NDArray[Any]
_SORTED = 0.1  # of the changes of class that rows in random order have; below it a table counts as sorted
_EXACT = 1 << 53  # up to here every whole number is a float of its own
_FEW_ROWS = 1000  # that say nothing about an order


@dataclass(frozen=True, eq=False)
class RawLabels:
    """Labels of some rows: row r has the label names[codes[r]]."""

    names: list[str]
    codes: npt.NDArray[np.int64]

    def classes(self, codes: Mapping[str, int]) -> npt.NDArray[np.int64]:
        """The class index of each row."""
        return np.array([codes[name] for name in self.names], np.int64)[self.codes]


def raw_labels(values: Array, where: str) -> RawLabels:
    """The raw labels of an array of integers, whole floats or strings, (rows,).

    Raises:
        LabelError: other values, several a row, or missing ones; `where` says whose.
    """
    if values.ndim != 1:
        raise LabelError(f"the labels in {where} have the shape {values.shape}; one label a row is needed")
    if values.dtype.kind == "O":
        wrong = next((value for value in values if not isinstance(value, str | bytes)), None)
        if wrong is not None:
            raise LabelError(
                f"a label in {where} is {wrong!r:.60}; labels are integers or text, and none may be missing"
            )
    elif values.dtype.kind == "f":
        if not (np.isfinite(values).all() and (values == np.floor(values)).all()):
            raise LabelError(f"labels in {where} are fractions or missing; class labels are integers or text")
        if len(values) and float(np.abs(values).max()) > _EXACT:
            raise LabelError(
                f"a label in {where} is {np.abs(values).max():g}, too large to be told from the next whole number "
                "in this type; class labels are integers or text"
            )
        values = values.astype(np.int64)
    elif values.dtype.kind not in "iubSU":
        raise LabelError(f"the labels in {where} have the type {values.dtype}; labels are integers or text")
    distinct, codes = np.unique(values.astype(np.uint8) if values.dtype.kind == "b" else values, return_inverse=True)
    names = [_text(value, where) for value in distinct.tolist()]
    if "" in names:
        raise LabelError(f"a label in {where} is empty; every row needs one")
    return RawLabels(names, codes.astype(np.int64))


def _text(value: Any, where: str) -> str:
    try:
        return value.decode() if isinstance(value, bytes) else str(value)
    except UnicodeDecodeError as error:
        raise LabelError(f"the label {value!r:.60} in {where} is not UTF-8") from error


def table_classes(counts: Mapping[str, int], labels: str) -> Classes:
    """Number the classes; -1 and 1, LibSVM's two classes, are names where nothing else is asked for.

    Raises:
        LabelError: labels that no classifier can be trained on.
    """
    two = labels == "auto" and {label for label, count in counts.items() if count} == {"-1", "1"}
    return resolve_classes(counts, class_names=None, labels="names" if two else labels, option="--y")


def check_trained(counts: Sequence[int], names: Sequence[str]) -> str:
    """What to tell of classes of which no row is left to train on, by the counts of the training split; mostly nothing.

    Raises:
        LabelError: no row at all is left.
    """
    if not any(counts):
        raise LabelError("no row is left to train on, all fell into the validation fraction; choose a smaller one")
    missing = [name for name, count in zip(names, counts, strict=True) if not count]
    if not missing:
        return ""
    shown = ", ".join(f"'{name}'" for name in missing[:5]) + (", ..." if len(missing) > 5 else "")
    return f"all rows of {len(missing):,} classes fell into the validation fraction, so none is trained on: {shown}"


@dataclass
class Order:
    """How often the label changes from one row to the next, counted over a table."""

    counts: Counter[str] = field(default_factory=Counter)
    changes: int = 0
    last: str | None = None

    def add(self, blocks: Iterable[RawLabels]) -> Order:
        """Take the next rows into account."""
        for labels in blocks:
            if len(labels.codes):
                numbers = np.bincount(labels.codes, minlength=len(labels.names)).tolist()
                self.counts.update(dict(zip(labels.names, numbers, strict=True)))
                self.changes += int(np.count_nonzero(np.diff(labels.codes)))
                self.changes += self.last is not None and labels.names[labels.codes[0]] != self.last
                self.last = labels.names[labels.codes[-1]]
        return self

    def sorted_note(self) -> str:
        """What to tell of rows that lie in runs of one class; empty if they are mixed."""
        rows = self.counts.total()
        shares = np.array(list(self.counts.values())) / max(rows, 1)
        expected = (rows - 1) * (1 - float(shares @ shares))
        if rows < _FEW_ROWS or self.changes >= _SORTED * expected:
            return ""
        return (
            f"the rows are sorted: runs of one label are {rows / (self.changes + 1):,.0f} rows long, mixed they would "
            f"be {rows / (expected + 1):,.1f}; shuffling windows of blocks does not mix that well, so make shards "
            "in mixed order with `python -m shardtrain convert`"
        )
