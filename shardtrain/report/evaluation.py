"""Find the most confident mistakes among predictions, beside their metrics.

Batches of predictions are consumed one at a time, and only sums and a fixed number of mistakes are kept, so memory
does not depend on the number of rows.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.metrics.classification import Metrics, MetricSums
from shardtrain.metrics.ranking import Curves


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
class Evaluation:
    """What predictions for labelled rows are worth.

    Attributes:
        metrics: all metrics.
        curves: of each class against the rest; see `MetricSums.curves`.
        mistakes: the most confident mistakes, by descending confidence.
    """

    metrics: Metrics
    curves: tuple[Curves | None, ...]
    mistakes: tuple[Mistake, ...]


def evaluate_predictions(
    batches: Iterable[tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]], num_classes: int, *, mistakes: int
) -> Evaluation:
    """Evaluate batches of predictions.

    Args:
        batches: true class indices, (rows,), and predicted probabilities, (rows, num_classes), in row order.
        num_classes: number of classes.
        mistakes: number of mistakes to keep.
    """
    sums = MetricSums(num_classes)
    kept: list[Mistake] = []
    rows = 0
    for y, probabilities in batches:
        sums.add(y, probabilities)
        y = y.astype(np.int64)
        predicted_class, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(np.float64)
        wrong = np.flatnonzero(predicted_class != y)
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
    return Evaluation(metrics=sums.metrics(), curves=tuple(sums.curves()), mistakes=tuple(sorted(kept, reverse=True)))
