"""Evaluate predictions: confusion matrix, precision and recall, calibration, the most confident mistakes.

Batches of predictions are consumed one at a time, and only counts and a fixed number of mistakes are kept, so memory
does not depend on the number of rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_MATRIX = 1000  # classes of a confusion matrix, which then takes 8 MB
BINS = 10  # of confidence

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, order=True)
class Mistake:
    """A misclassified row: class indices and probabilities of the predicted and the true class.

    Ordered by the probability of the predicted class; of equal ones the earlier row is the greater.
    """

    probability: float  # of the predicted class
    order: int  # minus the row number
    true_class: int
    predicted_class: int
    true_probability: float  # of the true class

    @property
    def row(self) -> int:
        """Row number in the split."""
        return -self.order


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Predictions binned by confidence, the probability of the predicted class.

    Attributes:
        counts: predictions in each of `BINS` equal bins of [0, 1].
        confidence: mean confidence per bin; 0 for empty bins.
        accuracy: share of correct predictions per bin; 0 for empty bins.
    """

    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def error(self) -> float:
        """Compute the expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015)."""
        gaps = zip(self.counts, self.confidence, self.accuracy, strict=True)
        return sum(count * abs(a - b) for count, a, b in gaps) / max(sum(self.counts), 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """Metrics of a classifier on labelled rows.

    Attributes:
        rows: number of rows.
        support: rows of each true class, (num_classes,).
        predicted: rows of each predicted class, (num_classes,).
        correct: correctly classified rows of each class, (num_classes,).
        confusions: rows of true class i predicted as class j, (num_classes, num_classes); None for more than
            `MAX_MATRIX` classes.
        calibration: confidence against accuracy.
        mistakes: the most confident mistakes, by descending confidence.
    """

    rows: int
    support: Counts
    predicted: Counts
    correct: Counts
    confusions: Counts | None
    calibration: Calibration
    mistakes: tuple[Mistake, ...]

    @property
    def accuracy(self) -> float:
        """Share of correctly classified rows."""
        return float(self.correct.sum()) / self.rows

    @property
    def precision(self) -> npt.NDArray[np.float64]:
        """Share of the rows predicted as each class that belong to it; 0 if none is, as in scikit-learn."""
        return _ratio(self.correct, self.predicted)

    @property
    def recall(self) -> npt.NDArray[np.float64]:
        """Share of the rows of each class that are predicted as it; 0 for classes without rows."""
        return _ratio(self.correct, self.support)

    @property
    def f1(self) -> npt.NDArray[np.float64]:
        """Harmonic mean of precision and recall of each class; 0 if both are 0."""
        return _ratio(2 * self.correct, self.support + self.predicted)


def evaluate_predictions(
    batches: Iterable[tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]], num_classes: int, *, mistakes: int
) -> Evaluation:
    """Evaluate batches of predictions.

    Args:
        batches: true class indices, (rows,), and predicted probabilities, (rows, num_classes), in row order; at least
            one row in total.
        num_classes: number of classes.
        mistakes: number of mistakes to keep.
    """
    confusions = np.zeros((num_classes, num_classes), np.int64) if num_classes <= MAX_MATRIX else None
    support, predicted, correct = np.zeros((3, num_classes), np.int64)
    bin_sums = np.zeros((3, BINS))  # rows, sum of confidence, correct rows
    kept: list[Mistake] = []
    rows = 0
    for y, probabilities in batches:
        y = y.astype(np.int64)
        predicted_class, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(np.float64)
        hit = predicted_class == y
        for sums, found in ((support, y), (predicted, predicted_class), (correct, y[hit])):
            sums += np.bincount(found, minlength=num_classes)
        if confusions is not None:
            np.add.at(confusions, (y, predicted_class), 1)
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        for bin_sum, weights in zip(bin_sums, (None, confidence, hit), strict=True):
            bin_sum += np.bincount(bins, weights, BINS)
        wrong = np.flatnonzero(~hit)
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")[:mistakes]].tolist():
            mistake = Mistake(
                probability=float(confidence[i]),
                order=-(rows + i),
                true_class=int(y[i]),
                predicted_class=int(predicted_class[i]),
                true_probability=float(probabilities[i, y[i]]),
            )
            heapq.heappush(kept, mistake) if len(kept) < mistakes else heapq.heappushpop(kept, mistake)
        rows += len(y)
    counts, confidences, hits = bin_sums
    return Evaluation(
        rows=rows,
        support=support,
        predicted=predicted,
        correct=correct,
        confusions=confusions,
        calibration=Calibration(
            counts=tuple(counts.astype(int).tolist()),
            confidence=tuple(_ratio(confidences, counts).tolist()),
            accuracy=tuple(_ratio(hits, counts).tolist()),
        ),
        mistakes=tuple(sorted(kept, reverse=True)),
    )


def _ratio(part: npt.NDArray[np.number], whole: npt.NDArray[np.number]) -> npt.NDArray[np.float64]:
    ratio: npt.NDArray[np.float64] = np.divide(part, whole, out=np.zeros(len(whole)), where=whole > 0)
    return ratio
