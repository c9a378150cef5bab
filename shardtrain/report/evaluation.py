"""What a model makes of rows whose classes are known: confusions, calibration, the most confident mistakes.

Batches of predictions are taken one after the other, and nothing is kept of them but counts and some mistakes, so
memory does not depend on how many there are.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

MAX_MATRIX = 1000  # classes whose confusions are counted pair by pair; 8 MB
BINS = 10  # of confidence

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, order=True)
class Mistake:
    """A row that was put into the class `guess` with `probability`, and is of the class `truth`.

    Ordered by probability; of equal ones the row that comes first is the greater.
    """

    probability: float
    order: int  # minus the row
    truth: int
    guess: int
    true_probability: float  # the probability of the true class

    @property
    def row(self) -> int:
        """Its place in the split."""
        return -self.order


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Predictions by how probable the model took its own answer.

    Attributes:
        counts: predictions in each of `BINS` equal ranges of confidence.
        confidence: their mean confidence; 0 where there is none.
        accuracy: the share of them that is right; 0 where there is none.
    """

    counts: tuple[int, ...]
    confidence: tuple[float, ...]
    accuracy: tuple[float, ...]

    @property
    def error(self) -> float:
        """The expected calibration error (Naeini, Cooper and Hauskrecht, AAAI 2015): mean distance of both, by rows."""
        gaps = zip(self.counts, self.confidence, self.accuracy, strict=True)
        return sum(count * abs(a - b) for count, a, b in gaps) / max(sum(self.counts), 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What was found.

    Attributes:
        rows: that were classified.
        support: rows of each class, (num_classes,).
        guessed: rows put into each class, (num_classes,).
        right: rows of each class that were put into it, (num_classes,).
        confusions: rows of class i put into class j, (num_classes, num_classes); None for more than `MAX_MATRIX`.
        calibration: how far the probabilities can be believed.
        mistakes: the most confident ones, falling.
    """

    rows: int
    support: Counts
    guessed: Counts
    right: Counts
    confusions: Counts | None
    calibration: Calibration
    mistakes: tuple[Mistake, ...]

    @property
    def accuracy(self) -> float:
        """The share of rows that is right."""
        return float(self.right.sum()) / self.rows

    @property
    def precision(self) -> npt.NDArray[np.float64]:
        """Of the rows put into each class the share that is right; 0 where there is none, as scikit-learn has it."""
        return _ratio(self.right, self.guessed)

    @property
    def recall(self) -> npt.NDArray[np.float64]:
        """Of the rows of each class the share that was put into it; 0 where there is none."""
        return _ratio(self.right, self.support)

    @property
    def f1(self) -> npt.NDArray[np.float64]:
        """The harmonic mean of precision and recall of each class; 0 where both are."""
        return _ratio(2 * self.right, self.support + self.guessed)


def evaluate_predictions(
    batches: Iterable[tuple[npt.NDArray[np.integer], npt.NDArray[np.floating]]], num_classes: int, *, mistakes: int
) -> Evaluation:
    """Take the true classes, (rows,), and the probabilities, (rows, num_classes), of batches in row order.

    Args:
        batches: of the rows, at least one row in all.
        num_classes: how many classes there are.
        mistakes: how many of them are kept.
    """
    confusions = np.zeros((num_classes, num_classes), np.int64) if num_classes <= MAX_MATRIX else None
    support, guessed, right = np.zeros((3, num_classes), np.int64)
    of_bins = np.zeros((3, BINS))  # rows, sums of confidence, right ones
    kept: list[Mistake] = []
    rows = 0
    for y, probabilities in batches:
        y = y.astype(np.int64)
        guess, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(np.float64)
        hit = guess == y
        for sums, found in ((support, y), (guessed, guess), (right, y[hit])):
            sums += np.bincount(found, minlength=num_classes)
        if confusions is not None:
            np.add.at(confusions, (y, guess), 1)
        bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
        for of_bin, weights in zip(of_bins, (None, confidence, hit), strict=True):
            of_bin += np.bincount(bins, weights, BINS)
        wrong = np.flatnonzero(~hit)
        for i in wrong[np.argsort(-confidence[wrong], kind="stable")[:mistakes]].tolist():
            mistake = Mistake(
                probability=float(confidence[i]),
                order=-(rows + i),
                truth=int(y[i]),
                guess=int(guess[i]),
                true_probability=float(probabilities[i, y[i]]),
            )
            heapq.heappush(kept, mistake) if len(kept) < mistakes else heapq.heappushpop(kept, mistake)
        rows += len(y)
    counts, confidences, hits = of_bins
    return Evaluation(
        rows=rows,
        support=support,
        guessed=guessed,
        right=right,
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
