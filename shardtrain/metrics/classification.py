"""Measure a classifier: sum up batches of probabilities and labels, and compute all metrics from the sums.

Only counts and sums are kept, so memory does not depend on the number of rows. `evaluate` and reports both measure
with these, so their numbers are equal. Definitions are those of scikit-learn (docs/metrics.md).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import ShardsError
from shardtrain.metrics.intervals import effective_rows, wilson_interval
from shardtrain.metrics.names import MAX_MATRIX as MAX_MATRIX
from shardtrain.metrics.ranking import Curves, Ranking, Scores

BINS = 10  # of confidence
MAX_TOP = 5  # classes of a top-k accuracy
LEAST = float(np.finfo(np.float32).eps)  # log loss takes no probability for lower, nor for higher than 1 less it

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[Any]  # int64; float64 where rows have weights


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Predictions binned by confidence, the probability of the predicted class.

    Attributes:
        counts: predictions in each of `BINS` equal bins of [0, 1].
        confidence: mean confidence per bin; 0 for empty bins.
        accuracy: share of correct predictions per bin; 0 for empty bins.
    """

    counts: tuple[float, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def error(self) -> float:
        """Compute the expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015)."""
        gaps = zip(self.counts, self.confidence, self.accuracy, strict=True)
        return sum(count * abs(a - b) for count, a, b in gaps) / (sum(self.counts) or 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Metrics:
    """Metrics of a classifier on labelled rows. Where rows have weights, numbers of rows are sums of weights.

    Attributes:
        rows: number of rows, without weights.
        effective_rows: number of rows, with weights (sum w)^2 / sum w^2 (Kish, 1965).
        support: rows of each true class, (num_classes,).
        predicted: rows of each predicted class, (num_classes,).
        correct: correctly classified rows of each class, (num_classes,).
        confusions: rows of true class i predicted as class j, (num_classes, num_classes); None for more than
            `MAX_MATRIX` classes, or from sums without details.
        calibration: confidence against accuracy.
        log_loss: mean of -log p of the true class, p clipped to [e, 1 - e] with e = 2^-23, as for float32 in
            scikit-learn.
        top_accuracy: share of rows whose true class is among the k most probable, for k from 1 to `MAX_TOP`, below
            the number of classes. Of equally probable classes the one with the lower index comes first.
        rankings: each class against the rest; empty where there are no `confusions`.
    """

    rows: int
    effective_rows: float
    support: Counts
    predicted: Counts
    correct: Counts
    confusions: Counts | None
    calibration: Calibration
    log_loss: float
    top_accuracy: tuple[float, ...]
    rankings: tuple[Ranking, ...]

    @property
    def accuracy(self) -> float:
        """Share of correctly classified rows."""
        return _share(self.correct.sum(), self.support.sum())

    @property
    def accuracy_interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy (Wilson, 1927); (0, 1) without rows."""
        return wilson_interval(self.accuracy, self.effective_rows)

    @property
    def majority_class(self) -> int:
        """Index of the class with the most rows, of equal ones the first."""
        return int(self.support.argmax())

    @property
    def majority_accuracy(self) -> float:
        """Accuracy of predicting the majority class for every row."""
        return _share(self.support.max(), self.support.sum())

    @property
    def beats_majority(self) -> bool:
        """Whether the whole interval of the accuracy is above the majority baseline."""
        return self.accuracy_interval[0] > self.majority_accuracy

    @property
    def occurring(self) -> npt.NDArray[np.int64]:
        """Indices of the classes that are the true or the predicted class of a row; macro means are over these."""
        return np.flatnonzero((self.support > 0) | (self.predicted > 0))

    @property
    def precision(self) -> Floats:
        """Share of the rows predicted as each class that belong to it; 0 if none is, as in scikit-learn."""
        return _ratio(self.correct, self.predicted)

    @property
    def recall(self) -> Floats:
        """Share of the rows of each class that are predicted as it; 0 for classes without rows."""
        return _ratio(self.correct, self.support)

    @property
    def f1(self) -> Floats:
        """Harmonic mean of precision and recall of each class; 0 if both are 0."""
        return _ratio(2 * self.correct, self.support + self.predicted)

    @property
    def macro_precision(self) -> float:
        """Mean precision of the classes that occur."""
        return _mean(self.precision[self.occurring])

    @property
    def macro_recall(self) -> float:
        """Mean recall of the classes that occur."""
        return _mean(self.recall[self.occurring])

    @property
    def macro_f1(self) -> float:
        """Mean F1 of the classes that occur."""
        return _mean(self.f1[self.occurring])

    @property
    def weighted_f1(self) -> float:
        """Mean F1 of the classes, weighted by their rows."""
        return _share((self.f1 * self.support).sum(), self.support.sum())

    @property
    def micro_f1(self) -> float:
        """F1 of all decisions together, which is the accuracy where each row has one class."""
        return self.accuracy

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have rows."""
        return _mean(self.recall[self.support > 0])

    @property
    def matthews(self) -> float:
        """Matthews correlation of true and predicted classes (Gorodkin, 2004); 0 if either has only one class."""
        scale = 2.0 ** -math.frexp(self.support.sum())[1]  # the fourth powers of large weights would overflow
        true, guessed = self.support * scale, self.predicted * scale
        total = true.sum()
        together = self.correct.sum() * scale * total - true @ guessed
        spread = (total * total - true @ true) * (total * total - guessed @ guessed)
        return float(together / math.sqrt(spread)) if spread > 0 else 0.0

    @property
    def macro_ranking(self) -> Ranking:
        """Mean of the areas and of the precisions of the classes for which they are defined, with their bounds."""
        areas = [(each.roc_auc, each.roc_auc_error) for each in self.rankings if each.roc_auc is not None]
        precisions = [
            (each.average_precision, each.average_precision_error)
            for each in self.rankings
            if each.average_precision is not None
        ]
        area, area_error = map(float, np.mean(areas, axis=0)) if areas else (None, 0.0)
        precision, precision_error = map(float, np.mean(precisions, axis=0)) if precisions else (None, 0.0)
        return Ranking(
            roc_auc=area,
            roc_auc_error=area_error or 0.0,
            average_precision=precision,
            average_precision_error=precision_error or 0.0,
        )

    def confused_pairs(self) -> list[tuple[float, int, int]]:
        """Return (rows, true class, predicted class) of each confusion, most frequent first."""
        if self.confusions is None:
            return []
        places = zip(*(part.tolist() for part in self.confusions.nonzero()), strict=True)
        pairs = [(self.confusions[i, j].item(), i, j) for i, j in places if i != j]
        return sorted(pairs, key=lambda pair: (-pair[0], pair[1:]))

    def measure(self, name: str) -> float | None:
        """Return one of `names.MEASURES` that follows from the probabilities; None where it is undefined."""
        if name.startswith("top_"):
            k = int(name.split("_")[1])
            return self.top_accuracy[k - 1] if k <= len(self.top_accuracy) else None
        if name in ("macro_roc_auc", "macro_average_precision"):
            found: float | None = getattr(self.macro_ranking, name.removeprefix("macro_"))
            return found
        return self.calibration.error if name == "calibration_error" else float(getattr(self, name))

    def record(self, class_names: Sequence[str], *, matrix: bool = True) -> dict[str, Any]:
        """Return all metrics as JSON values; without `matrix` the confusion matrix is null."""
        macro, calibration = self.macro_ranking, self.calibration
        rankings: Sequence[Ranking | None] = self.rankings or [None] * len(class_names)
        columns = zip(
            *(each.tolist() for each in (self.precision, self.recall, self.f1, self.support, self.predicted)),
            strict=True,
        )
        return {
            "accuracy": self.accuracy,
            "accuracy_interval": list(self.accuracy_interval),
            "majority_class": class_names[self.majority_class],
            "majority_accuracy": self.majority_accuracy,
            "beats_majority": self.beats_majority,
            "macro_f1": self.macro_f1,
            "weighted_f1": self.weighted_f1,
            "micro_f1": self.micro_f1,
            "macro_precision": self.macro_precision,
            "macro_recall": self.macro_recall,
            "balanced_accuracy": self.balanced_accuracy,
            "matthews": self.matthews,
            "log_loss": self.log_loss,
            "calibration_error": calibration.error,
            "macro_roc_auc": macro.roc_auc,
            "macro_roc_auc_error": macro.roc_auc_error,
            "macro_average_precision": macro.average_precision,
            "macro_average_precision_error": macro.average_precision_error,
            "top_accuracy": {str(k): value for k, value in enumerate(self.top_accuracy, 1)},
            "classes": [
                {
                    "class": name,
                    **dict(zip(("precision", "recall", "f1", "support", "predicted"), values, strict=True)),
                    **(vars(ranking) if ranking else {}),
                }
                for name, values, ranking in zip(class_names, columns, rankings, strict=True)
            ],
            "confusions": None if self.confusions is None or not matrix else self.confusions.tolist(),
            "calibration": {name: list(values) for name, values in vars(calibration).items()},
        }


class MetricSums:
    """Sums of batches of probabilities and labels, from which `Metrics` are computed.

    Args:
        num_classes: number of classes, at least 2.
        detailed: also the confusion matrix and the ranking of each class, which take up to 24 MB.
    """

    def __init__(self, num_classes: int, *, detailed: bool = True) -> None:
        self.num_classes = num_classes
        self._rows = 0
        self._weighted = False
        self._support, self._predicted, self._correct = np.zeros((3, num_classes))
        detailed = detailed and num_classes <= MAX_MATRIX
        self._confusions = np.zeros((num_classes, num_classes)) if detailed else None
        self._bins = np.zeros((3, BINS))  # rows, sum of confidence, correct rows
        self._top = np.zeros(max(1, min(MAX_TOP, num_classes - 1)))  # rows whose true class has that rank
        self._totals = np.zeros(3)  # weights, their squares, and losses
        self._scores = Scores(num_classes) if detailed else None

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays that are held."""
        return sum(each.nbytes for each in self._arrays()) + (self._scores.num_bytes if self._scores else 0)

    def add(
        self,
        y: npt.NDArray[np.integer],
        probabilities: npt.NDArray[np.floating],
        weights: npt.NDArray[np.floating] | None = None,
    ) -> None:
        """Add a batch.

        Args:
            y: true class indices, (rows,).
            probabilities: of each class, (rows, num_classes); they are taken as float32.
            weights: of the rows, (rows,), not negative; None: each counts 1.

        Raises:
            ShardsError: a label is outside [0, num_classes).
        """
        if not len(y):
            return
        if not 0 <= int(y.min()) <= int(y.max()) < self.num_classes:
            raise ShardsError(
                f"rows have labels outside [0, {self.num_classes:,}), which the classes are; check the shards with "
                "`python -m shardtrain verify`"
            )
        labels, shares = y.astype(np.int64), np.asarray(probabilities, np.float32)
        self._weighted |= weights is not None
        amount = np.ones(len(y)) if weights is None else np.asarray(weights, np.float64)
        guess = shares.argmax(axis=1)
        hit, confidence = guess == labels, shares.max(axis=1).astype(np.float64)
        own = shares[np.arange(len(y)), labels]
        self._rows += len(y)
        for sums, found, summed in (
            (self._support, labels, amount),
            (self._predicted, guess, amount),
            (self._correct, labels, amount * hit),
        ):
            np.add.at(sums, found, summed)
        if self._confusions is not None:
            np.add.at(self._confusions, (labels, guess), amount)
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        for sums, factor in zip(self._bins, (1, confidence, hit), strict=True):
            sums += np.bincount(bins, amount * factor, BINS)
        before = shares > own[:, None]
        before |= (shares == own[:, None]) & (np.arange(self.num_classes) < labels[:, None])
        rank = np.count_nonzero(before, axis=1)
        self._top += np.bincount(rank, amount, len(self._top))[: len(self._top)]
        losses = -np.log(np.clip(own.astype(np.float64), LEAST, 1 - LEAST))
        self._totals += (amount.sum(), amount @ amount, amount @ losses)
        if self._scores is not None:
            self._scores.add(shares, labels, amount)

    def merge(self, other: MetricSums) -> None:
        """Add what other sums of as many classes have summed up."""
        for sums, more in zip(self._arrays(), other._arrays(), strict=True):
            sums += more
        self._rows += other._rows
        self._weighted |= other._weighted
        if self._scores is not None and other._scores is not None:
            self._scores.merge(other._scores)

    def metrics(self) -> Metrics:
        """Compute the metrics of all rows so far."""
        counts, confidences, hits = self._bins
        weight, squares, losses = self._totals.tolist()
        kind = np.float64 if self._weighted else np.int64
        return Metrics(
            rows=self._rows,
            effective_rows=effective_rows(weight, squares),
            support=self._support.astype(kind),
            predicted=self._predicted.astype(kind),
            correct=self._correct.astype(kind),
            confusions=None if self._confusions is None else self._confusions.astype(kind),
            calibration=Calibration(
                counts=tuple(counts.astype(kind).tolist()),
                confidence=tuple(_ratio(confidences, counts).tolist()),
                accuracy=tuple(_ratio(hits, counts).tolist()),
            ),
            log_loss=_share(losses, weight),
            top_accuracy=tuple(_share(each, weight) for each in np.cumsum(self._top)),
            rankings=tuple(self._scores.rankings()) if self._scores else (),
        )

    def curves(self) -> list[Curves | None]:
        """Return the ROC and precision-recall curves of each class against the rest.

        None for a class that all rows have, or none; no curves for more than `MAX_MATRIX` classes.
        """
        return self._scores.curves() if self._scores else []

    def _arrays(self) -> list[Floats]:
        matrix = [] if self._confusions is None else [self._confusions]
        return [self._support, self._predicted, self._correct, self._bins, self._top, self._totals, *matrix]


def _ratio(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> Floats:
    ratio: Floats = np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
    return ratio


def _share(part: float, whole: float) -> float:
    return float(part) / float(whole) if whole else 0.0


def _mean(values: Floats) -> float:
    return float(values.mean()) if len(values) else 0.0
