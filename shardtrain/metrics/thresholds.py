"""Choose how sure a classifier has to be: below the threshold a prediction is "undecided".

Rows are counted by their confidence, the probability of the predicted class. The first `EXACT_ROWS` are kept. If there
are more, they are counted in the bins of `ranking`, and thresholds are the lowest confidences that occur in a bin, so
that what is said of a threshold is exact: only fewer thresholds are considered.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.errors import ModelError, UsageError
from shardtrain.metrics.classification import MAX_MATRIX
from shardtrain.metrics.intervals import effective_rows
from shardtrain.metrics.ranking import bin_bits, bin_of, num_bins

EXACT_ROWS = 1 << 20  # whose confidences are kept, in 9 MiB, or in 17 MiB with weights
UNDECIDED = "undecided"
COVERAGES = (1.0, 0.99, 0.95, 0.9, 0.8, 0.7, 0.6, 0.5)  # of which the accuracy is shown
_RULE = re.compile(r"(?:(precision|recall|coverage)\s*>=\s*(0|1|0?\.\d+|1\.0*)|max\s+f1)(\s+per\s+class)?")

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Rule:
    """What a threshold has to reach.

    Attributes:
        measure: "precision", the share of right ones among the decided rows; "recall", the share of all rows that are
            decided and right; "coverage", the share of decided rows; or "f1", the harmonic mean of precision and
            recall, which is to be the highest.
        least: the least value of it; None for "f1".
        per_class: whether each predicted class gets a threshold of its own. Then precision and coverage are those of
            the rows that are predicted as the class, and recall and F1 those of the class.
    """

    measure: str
    least: float | None
    per_class: bool

    def __str__(self) -> str:
        # all digits and no exponent, as `parse` takes it
        what = "max f1" if self.least is None else f"{self.measure}>={Decimal(repr(self.least)).normalize():f}"
        return f"{what} per class" if self.per_class else what

    @classmethod
    def parse(cls, text: str) -> Rule:
        """Parse "precision>=0.95", "recall>=0.9", "coverage>=0.8" or "max f1", each also with "per class".

        Raises:
            UsageError: something else.
        """
        found = _RULE.fullmatch(text.strip())
        if found is None:
            raise UsageError(
                f"the rule for a threshold is {text!r}; write precision>=0.95, recall>=0.9, coverage>=0.8 or max f1, "
                "with a number from 0 to 1, and add ` per class` for a threshold of each class"
            )
        measure, least, per_class = found.groups()
        return cls(measure=measure or "f1", least=float(least) if least else None, per_class=per_class is not None)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a threshold does to some rows.

    Attributes:
        threshold: the least confidence of a decided row.
        coverage: share of the rows that are decided.
        precision: share of right ones among these; 0 without any.
        rows: number of decided rows, or the sum of their weights.
    """

    threshold: float
    coverage: float
    precision: float
    rows: float


@dataclass(frozen=True, kw_only=True)
class Thresholds:
    """Thresholds of a classifier.

    Attributes:
        rule: by which they were chosen.
        values: the least confidence of a decided prediction of each class, (num_classes,), as float32.
        rows: number of rows that they were chosen on.
        coverage: share of these that are decided.
        precision: share of right ones among the decided.
    """

    rule: Rule
    values: tuple[float, ...]
    rows: int
    coverage: float
    precision: float

    def decided(self, probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
        """Return which rows are decided, (rows,), of probabilities (rows, num_classes)."""
        values = np.array(self.values, np.float32)
        found: npt.NDArray[np.bool_] = probabilities.max(axis=1) >= values[probabilities.argmax(axis=1)]
        return found


def check_number(rule: Rule, num_classes: int) -> None:
    """Check that there are not too many classes for a rule.

    Raises:
        UsageError: a threshold per class for more than `MAX_MATRIX` classes.
    """
    if rule.per_class and num_classes > MAX_MATRIX:
        raise UsageError(f"thresholds per class are for at most {MAX_MATRIX:,} classes, not {num_classes:,}")


class Confidences:
    """How sure a classifier is of rows, and whether it is right. Where rows have weights, shares are of these.

    Args:
        num_classes: columns of the probabilities.
    """

    def __init__(self, num_classes: int) -> None:
        self.num_classes = num_classes
        self._rows = 0
        self._support = np.zeros(num_classes)
        self._kept: list[tuple[npt.NDArray[Any], ...]] = []
        self._bits = bin_bits(num_classes if num_classes <= MAX_MATRIX else 1)
        self._weighted = False
        self._bins: Floats | None = None  # (classes, bins, 3): weights of all rows, of right ones, and squares
        self._lowest: npt.NDArray[np.float32] | None = None  # confidence in each bin

    def add(
        self,
        y: npt.NDArray[np.integer],
        probabilities: npt.NDArray[np.float32],
        weights: Floats | None = None,
    ) -> None:
        """Add rows.

        Args:
            y: their classes, (rows,).
            probabilities: of each class, (rows, num_classes).
            weights: of the rows, (rows,), not negative; None: each counts 1.
        """
        self._rows += len(y)
        if weights is not None:
            self._weighted, there = True, weights > 0  # a threshold is not chosen for rows that do not count
            y, probabilities, weights = y[there], probabilities[there], weights[there]
        amount = np.broadcast_to(np.float64(1), len(y)) if weights is None else weights
        guess, sure = probabilities.argmax(axis=1), probabilities.max(axis=1).astype(np.float32)
        np.add.at(self._support, y.astype(np.int64), amount)
        part: tuple[Any, ...] = guess.astype(np.int32), sure, guess == y, amount
        if self._bins is None and self._rows <= EXACT_ROWS:
            self._kept.append(part)
            return
        for each in (*self._kept, part):
            self._count(*each)
        self._kept = []

    def choose(self, rule: Rule) -> Thresholds:
        """Choose thresholds by a rule.

        Of those with enough precision, or with the best F1, the lowest is chosen, which decides the most rows; of those
        with enough recall or coverage the highest. A class without a threshold that fulfils the rule, such as one that
        is never predicted, is never decided.

        Raises:
            ModelError: no threshold fulfils it.
            UsageError: see `check_number`.
        """
        check_number(rule, self.num_classes)
        curves = list(self._curves(per_class=rule.per_class))
        found = [_best(rule, *curve) for curve in curves]
        if all(place is None for place in found):
            raise ModelError(f"no threshold gives {rule} on {self._rows:,} rows: {_reachable(rule, curves)}")
        values = [
            np.inf if place is None else float(curve[0][place]) for place, curve in zip(found, curves, strict=True)
        ]
        decided = sum(curve[1][place] for place, curve in zip(found, curves, strict=True) if place is not None)
        right = sum(curve[2][place] for place, curve in zip(found, curves, strict=True) if place is not None)
        return Thresholds(
            rule=rule,
            values=tuple(min(value, _NEVER) for value in (values if rule.per_class else values * self.num_classes)),
            rows=self._rows,
            coverage=float(decided) / float(sum(curve[1][-1] for curve in curves if len(curve[1]))),
            precision=float(right) / float(decided) if decided else 0.0,
        )

    def outcomes(self, coverages: Sequence[float] = COVERAGES) -> list[Outcome]:
        """Return what the highest threshold does with which at least each of these shares of the rows is decided."""
        ((sure, decided, right, total),) = self._curves(per_class=False)
        places = dict.fromkeys(int(np.searchsorted(decided, share * total)) for share in coverages)
        return [
            Outcome(
                threshold=float(sure[place]),
                coverage=float(decided[place]) / total,
                precision=float(right[place] / decided[place]),
                rows=float(decided[place]) if self._weighted else int(decided[place]),
            )
            for place in places
            if place < len(sure)
        ]

    def effective_rows(self, thresholds: Thresholds) -> float:
        """Return how many rows thresholds decide, with weights (sum w)^2 / sum w^2 (Kish, 1965)."""
        guess, sure, counts = self._points(per_class=thresholds.rule.per_class)
        decided = sure >= np.array(thresholds.values, np.float32)[guess]
        weight, _, squares = counts[decided].sum(axis=0).tolist()
        return effective_rows(weight, squares)

    def _curves(self, *, per_class: bool) -> Iterator[tuple[npt.NDArray[np.float32], Floats, Floats, float]]:
        """Yield, of each class or of all together, thresholds that descend, and what they do.

        Yields:
            Thresholds, and of each the number of decided rows and of right ones; and the number of rows of the class,
            or of all rows. With weights these are sums of them.
        """
        guess, sure, counts = self._points(per_class=per_class)
        for number in range(self.num_classes) if per_class else (None,):
            own = slice(None) if number is None else guess == number
            distinct, place = np.unique(sure[own], return_inverse=True)
            sums = np.zeros((len(distinct), 2))
            np.add.at(sums, place, counts[own, :2])
            decided, right = np.cumsum(sums[::-1], axis=0).T
            total = self._support[number] if number is not None else decided[-1] if len(decided) else 0.0
            yield distinct[::-1], decided, right, float(total)

    def _points(self, *, per_class: bool) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32], Floats]:
        """Return of all known points class, confidence, and weights: of all rows, of right rows, and squares."""
        if self._bins is None or self._lowest is None:
            if not self._kept:
                return np.zeros(0, np.int32), np.zeros(0, np.float32), np.zeros((0, 3))
            guess, sure, right, amount = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
            return guess, sure, np.stack([amount, amount * right, amount * amount], axis=1)
        bins, lowest = self._bins, self._lowest
        if not per_class:  # rows of all classes in a bin have one threshold
            bins, lowest = bins.sum(axis=0, keepdims=True), lowest.min(axis=0, keepdims=True)
        there = bins[..., 0] > 0
        return np.nonzero(there)[0].astype(np.int32), lowest[there], bins[there]

    def _count(
        self, guess: npt.NDArray[np.int32], sure: npt.NDArray[np.float32], right: npt.NDArray[np.bool_], amount: Floats
    ) -> None:
        """Count rows in bins; of many classes, all in those of the first."""
        if self._bins is None or self._lowest is None:
            shape = (self.num_classes if self.num_classes <= MAX_MATRIX else 1, num_bins(self._bits))
            self._bins, self._lowest = np.zeros((*shape, 3)), np.full(shape, np.inf, np.float32)
        classes = guess.astype(np.int64) if len(self._bins) > 1 else np.zeros(len(guess), np.int64)
        places = classes * self._bins.shape[1] + bin_of(sure, self._bits)
        counts = self._bins.reshape(-1, 3)
        for column, found in enumerate((amount, amount * right, amount * amount)):
            np.add.at(counts[:, column], places, found)
        np.minimum.at(self._lowest.reshape(-1), places, sure)


_NEVER = 2.0  # a threshold that no probability reaches


def _best(rule: Rule, sure: npt.NDArray[np.float32], decided: Floats, right: Floats, support: float) -> int | None:
    """Return the place of the best threshold of a curve; None if none fulfils the rule."""
    if not len(sure):
        return None
    values = _values(rule.measure, decided, right, support)
    if rule.least is None:
        return len(values) - 1 - int(values[::-1].argmax())
    fits = np.flatnonzero(values >= rule.least)
    if not len(fits):
        return None
    return int(fits[-1] if rule.measure == "precision" else fits[0])


def _values(measure: str, decided: Floats, right: Floats, support: float) -> Floats:
    """Return a measure at each threshold of a curve."""
    values: Floats = {
        "precision": right / decided,
        "coverage": decided / decided[-1],
        "recall": right / (support or 1.0),
        "f1": 2 * right / (decided + support),
    }[measure]
    return values


def _reachable(rule: Rule, curves: Sequence[tuple[Any, ...]]) -> str:
    """Return how far a rule can be fulfilled, in words."""
    best = [
        _values(rule.measure, decided, right, support).max() for sure, decided, right, support in curves if len(sure)
    ]
    return f"the highest {rule.measure} is {max(best):.4f}" if best else "there are none"
