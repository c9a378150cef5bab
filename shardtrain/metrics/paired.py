"""Compare two classifiers on the same rows: sum up batches of both their probabilities, and compute differences.

A difference is that of the second minus the first, with a 95 % interval in which it counts that both saw the same rows:
accuracy and recall by Tango's score interval (`intervals`), all others by the delta method. A metric is a function of
how often each combination of true class and the two predictions occurs; to first order, its error is the mean over the
rows of a term that depends on the combination alone, so its variance follows from joint counts (Agresti, Categorical
Data Analysis, 2013, 16.1; for precision Moskowitz and Pepe, 2006; for F1 Takahashi et al., 2022). The choice over a
bootstrap: one pass, no randomness, and memory that depends on the classes alone. Where fewer than `LEAST_APART` rows
are classified differently, it gives no interval. docs/comparing.md has the formulas.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.metrics.classification import LEAST, MAX_MATRIX
from shardtrain.metrics.intervals import QUANTILE, Floats, mcnemar, score_interval

_SIGNIFICANT = 0.05
LEAST_APART = 10  # rows that are to be classified differently for the delta method; of fewer, intervals are too narrow

Interval = tuple[float, float] | None
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Difference:
    """A metric of two classifiers.

    Attributes:
        first: of the first.
        second: of the second.
        interval: 95 % interval of second - first; None where too few rows tell it.
    """

    first: float
    second: float
    interval: Interval

    @property
    def value(self) -> float:
        """Second minus first."""
        return self.second - self.first

    @property
    def shown(self) -> bool:
        """Whether the interval excludes 0."""
        return self.interval is not None and not self.interval[0] <= 0 <= self.interval[1]

    def record(self) -> dict[str, Any]:
        """Return the difference as JSON values."""
        interval = None if self.interval is None else list(self.interval)
        return {"first": self.first, "second": self.second, "difference": self.value, "interval": interval}


@dataclass(frozen=True, kw_only=True)
class Paired:
    """What two classifiers say of the same labelled rows.

    Attributes:
        rows: number of rows.
        both: rows on which both are right.
        only_first: rows on which only the first is right.
        only_second: rows on which only the second is right.
        neither: rows on which both are wrong.
        same: rows for which both predict the same class.
        p_value: of McNemar's test that both are right equally often.
        metrics: accuracy, macro_f1, balanced_accuracy and log_loss.
        classes: precision, recall and f1 of each class.
    """

    rows: int
    both: int
    only_first: int
    only_second: int
    neither: int
    same: int
    p_value: float
    metrics: dict[str, Difference]
    classes: tuple[dict[str, Difference], ...]

    @property
    def better(self) -> int:
        """1 if the second is shown to be more accurate, -1 if the first is, 0 if neither is.

        Both have to say so, the interval and McNemar's test, which is the more careful one for few rows.
        """
        accuracy = self.metrics["accuracy"]
        return int(math.copysign(1, accuracy.value)) if accuracy.shown and self.p_value < _SIGNIFICANT else 0

    def record(self, class_names: Sequence[str]) -> dict[str, Any]:
        """Return all of it as JSON values."""
        counts = ("both", "only_first", "only_second", "neither", "same")
        return {
            **{name: getattr(self, name) for name in counts},
            "p_value": self.p_value,
            "more_accurate": {1: "second", -1: "first", 0: None}[self.better],
            **{name: each.record() for name, each in self.metrics.items()},
            "classes": [
                {"class": name, **{metric: each.record() for metric, each in found.items()}}
                for name, found in zip(class_names, self.classes, strict=True)
            ],
        }


class PairedSums:
    """Sums of batches of labels and the probabilities of two classifiers, from which `Paired` is computed.

    Memory is 40 MB for 1,000 classes. Of more than `MAX_MATRIX` classes macro F1 has no interval.

    Args:
        num_classes: number of classes, at least 2.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._same = 0
        # By true class, rows on which both, only the first, only the second and neither is right; then, by class, rows
        # that the first, the second and both predict as it.
        self._by_class = np.zeros((7, num_classes), np.int64)
        square = num_classes if num_classes <= MAX_MATRIX else 0
        # Rows by true class and prediction of the first, of the second, by both predictions, by true class and
        # prediction of the first where the second is right, and of the second where the first is.
        self._matrices = np.zeros((5, square, square), np.int64)
        self._losses = np.zeros(4)  # sums of both losses, of their difference, and of its square

    def add(self, y: npt.NDArray[Any], first: npt.NDArray[Any], second: npt.NDArray[Any]) -> None:
        """Add rows.

        Args:
            y: true class indices, (rows,).
            first: probabilities of the first classifier, (rows, num_classes); they are taken as float32.
            second: likewise of the second.
        """
        labels = y.astype(np.int64)
        shares = [np.asarray(each, np.float32) for each in (first, second)]
        a, b = (each.argmax(axis=1) for each in shares)
        right_a, right_b, same = a == labels, b == labels, a == b
        pairs = (right_a & right_b, right_a & ~right_b, ~right_a & right_b, ~right_a & ~right_b)
        for sums, values in zip(self._by_class, (*(labels[each] for each in pairs), a, b, a[same]), strict=True):
            sums += np.bincount(values, minlength=self.num_classes)
        if self._matrices.size:
            places = ((labels, a), (labels, b), (a, b))
            for matrix, place in zip(self._matrices[:3], places, strict=True):
                np.add.at(matrix, place, 1)
            np.add.at(self._matrices[3], (labels[right_b], a[right_b]), 1)
            np.add.at(self._matrices[4], (labels[right_a], b[right_a]), 1)
        loss_a, loss_b = (_losses(each, labels) for each in shares)
        apart = loss_b - loss_a
        self._losses += (loss_a.sum(), loss_b.sum(), apart.sum(), apart @ apart)
        self._same += int(same.sum())

    def merge(self, other: PairedSums) -> None:
        """Add what other sums of as many classes have summed up."""
        self._by_class += other._by_class
        self._matrices += other._matrices
        self._losses += other._losses
        self._same += other._same

    def paired(self) -> Paired:
        """Compute the differences on all rows so far."""
        counts = _Counts(*self._by_class)
        both, only_first, only_second, neither = (int(each.sum()) for each in self._by_class[:4])
        rows = both + only_first + only_second + neither
        low, high = score_interval(only_first, only_second, rows)
        accuracy = Difference(
            first=_share(both + only_first, rows),
            second=_share(both + only_second, rows),
            interval=(float(low), float(high)) if rows else None,
        )
        return Paired(
            rows=rows,
            both=both,
            only_first=only_first,
            only_second=only_second,
            neither=neither,
            same=self._same,
            p_value=mcnemar(only_first, only_second),
            metrics={
                "accuracy": accuracy,
                "macro_f1": counts.macro_f1(self._matrices if rows - self._same >= LEAST_APART else None),
                "balanced_accuracy": counts.balanced_accuracy(),
                "log_loss": self._log_loss(rows),
            },
            classes=counts.classes(),
        )

    def _log_loss(self, rows: int) -> Difference:
        """Return the mean losses; the interval is the normal one of a mean of paired differences."""
        first, second, apart, squares = (self._losses / max(rows, 1)).tolist()
        interval = None
        if rows > 1 and squares > 0:
            interval = _around(apart, (squares - apart * apart) / (rows - 1))
        return Difference(first=first, second=second, interval=interval)


class _Counts:
    """Joint counts of each class, and the differences that follow from them; all arrays are (num_classes,).

    The arguments are numbers of rows: by true class those on which both, only the first, only the second and neither is
    right; then those that the first, the second and both predict as the class.
    """

    def __init__(self, *counts: Counts) -> None:
        self.both, self.only_first, self.only_second, self.neither, *predicted = (
            each.astype(np.float64) for each in counts
        )
        self.predicted_a, self.predicted_b, self.predicted_both = predicted
        self.right_a, self.right_b = self.both + self.only_first, self.both + self.only_second
        self.support = self.right_a + self.only_second + self.neither
        self.wrong_both = self.predicted_both - self.both
        self.f1_a = _ratio(2 * self.right_a, self.support + self.predicted_a)
        self.f1_b = _ratio(2 * self.right_b, self.support + self.predicted_b)

    def classes(self) -> tuple[dict[str, Difference], ...]:
        """Return precision, recall and F1 of each class."""
        apart = self.predicted_a + self.predicted_b - 2 * self.predicted_both >= LEAST_APART
        low, high = score_interval(self.only_first, self.only_second, self.support)
        recall_a, recall_b = _ratio(self.right_a, self.support), _ratio(self.right_b, self.support)
        precision_a, precision_b = _ratio(self.right_a, self.predicted_a), _ratio(self.right_b, self.predicted_b)
        occurs = self.support > 0
        known = apart & (self.predicted_a > 0) & (self.predicted_b > 0)
        found = {
            "precision": _differences(precision_a, precision_b, self._precision_variance(), known),
            "recall": [
                Difference(first=a, second=b, interval=(start, stop) if any_row else None)
                for a, b, start, stop, any_row in zip(
                    *(each.tolist() for each in (recall_a, recall_b, low, high, occurs)), strict=True
                )
            ],
            "f1": _differences(self.f1_a, self.f1_b, self._f1_variance(), apart & occurs),
        }
        return tuple(dict(zip(found, each, strict=True)) for each in zip(*found.values(), strict=True))

    def _precision_variance(self) -> Floats:
        """Compute the variance of the difference of precisions from the rows that both predict as the class."""
        a, b = _ratio(self.right_a, self.predicted_a), _ratio(self.right_b, self.predicted_b)
        shared = self.both * (1 - a) * (1 - b) + self.wrong_both * a * b
        alone = _ratio(a * (1 - a), self.predicted_a) + _ratio(b * (1 - b), self.predicted_b)
        variance: Floats = alone - 2 * _ratio(shared, self.predicted_a * self.predicted_b)
        return variance

    def _f1_variance(self) -> Floats:
        """Compute the variance of the difference of F1.

        A row adds 2 t - F (s + p) to the numerator of the error of F: t, s and p say whether it is rightly predicted as
        the class, belongs to it, and is predicted as it.
        """
        a, b = self.f1_a, self.f1_b
        sums = []
        for f1, right, predicted in ((a, self.right_a, self.predicted_a), (b, self.right_b, self.predicted_b)):
            misses = self.support - right + predicted - right
            sums.append(right * (2 - 2 * f1) ** 2 + misses * f1 * f1)
        shared = (
            self.both * (2 - 2 * a) * (2 - 2 * b)
            - self.only_first * (2 - 2 * a) * b
            - self.only_second * a * (2 - 2 * b)
            + (self.neither + self.wrong_both) * a * b
        )
        size_a, size_b = self.support + self.predicted_a, self.support + self.predicted_b
        alone = _ratio(sums[0], size_a**2) + _ratio(sums[1], size_b**2)
        variance: Floats = alone - 2 * _ratio(shared, size_a * size_b)
        return variance

    def balanced_accuracy(self) -> Difference:
        """Return the mean recalls; the variance is that of a mean of differences in independent strata, the classes."""
        here = self.support > 0
        support, first, second = self.support[here], self.only_first[here], self.only_second[here]
        number = max(1, len(support))
        recalls = [float((right[here] / support).sum()) / number for right in (self.right_a, self.right_b)]
        variance = ((first + second) / support - ((second - first) / support) ** 2) / support
        known = (first + second).sum() >= LEAST_APART
        interval = _around(recalls[1] - recalls[0], float(variance.sum()) / number**2) if known else None
        return Difference(first=recalls[0], second=recalls[1], interval=interval)

    def macro_f1(self, matrices: Counts | None) -> Difference:
        """Return the means of F1 over the classes that each classifier predicts or that have rows.

        The error of a mean adds up, per row, the errors of the classes that the row touches: its true class y and the
        predicted one. That of the first is u_y [a = y] - v_y - v_a with u = 2 / size and v = F1 / size, where the size
        of a class is the number of its rows and of those predicted as it. `matrices` are those of `PairedSums`; None
        or empty: no interval.
        """
        terms, means = [], []
        for f1, predicted in ((self.f1_a, self.predicted_a), (self.f1_b, self.predicted_b)):
            size = self.support + predicted
            number = max(1, int(np.count_nonzero(size)))
            means.append(float(f1.sum()) / number)
            terms.append((_ratio(np.full_like(size, 2 / number), size), _ratio(f1 / number, size)))
        interval = None
        if matrices is not None and matrices.size:
            interval = _around(means[1] - means[0], self._macro_variance(matrices, *terms))
        return Difference(first=means[0], second=means[1], interval=interval)

    def _macro_variance(self, matrices: Counts, first: tuple[Floats, Floats], second: tuple[Floats, Floats]) -> float:
        of_first, of_second, of_both, first_where_second, second_where_first = matrices
        (u, v), (s, t) = first, second
        alone = _squares(of_first, u, v) + _squares(of_second, s, t)
        shared = (
            (self.both * u * s).sum()
            - (self.right_a * u * t).sum()
            - u @ (second_where_first @ t)
            - (self.right_b * v * s).sum()
            + (self.support * v * t).sum()
            + v @ (of_second @ t)
            - s @ (first_where_second @ v)
            + t @ (of_first @ v)
            + v @ (of_both @ t)
        )
        return float(alone - 2 * shared)


def _squares(matrix: Counts, u: Floats, v: Floats) -> float:
    """Sum up the squared errors of the rows of a confusion matrix; see `_Counts.macro_f1`."""
    errors = v[:, None] + v[None, :]
    errors[np.diag_indices_from(errors)] -= u
    errors *= errors
    return float(np.vdot(matrix, errors))


def _losses(shares: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> Floats:
    own = shares[np.arange(len(labels)), labels].astype(np.float64)
    losses: Floats = -np.log(np.clip(own, LEAST, 1 - LEAST))
    return losses


def _differences(first: Floats, second: Floats, variance: Floats, known: npt.NDArray[np.bool_]) -> list[Difference]:
    columns = zip(*(each.tolist() for each in (first, second, variance, known)), strict=True)
    return [
        Difference(first=a, second=b, interval=_around(b - a, spread) if is_known else None)
        for a, b, spread, is_known in columns
    ]


def _around(value: float, variance: float) -> tuple[float, float]:
    spread = QUANTILE * math.sqrt(max(0.0, variance))
    return value - spread, value + spread


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
    return ratio


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0
