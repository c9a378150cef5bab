"""Measure how well the probability of each class ranks its rows before all others, in bounded memory.

The area under the ROC curve and the average precision need all scores in order. The first `EXACT_VALUES` probabilities
are kept, and what they give is exact. If there are more, rows are counted in bins of the probability, as narrow
relative to p near 0 as relative to 1 - p near 1, and both figures come with a bound of their error, computed from what
the bins hold: only the order of rows in a bin of several probabilities is unknown. The points of `Curves` are exact in
either case, because the edge of a bin is a threshold like any other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

EXACT_VALUES = 1 << 20  # probabilities that are kept, in 4 MiB
MAX_VALUES = 1 << 19  # bins of all classes, of 21 bytes each
MAX_POINTS = 256  # of a curve, and one at either end
_OCTAVES = 31  # of [2^-32, 1/2]; what is below is one bin
_LEAST = int(np.float32(2.0 ** -(_OCTAVES + 1)).view(np.int32))
_BITS, _MOST_BITS = 23, 12  # of a float32's fraction; of these that number bins within an octave, at most

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Ranking:
    """How a class is ranked against the rest; None where it is undefined.

    Attributes:
        roc_auc: area under the ROC curve: the share of pairs of a row of the class and another row in which the first
            has the higher probability, ties counted half. None if all rows are of the class, or none is.
        roc_auc_error: bound of its error; 0: it is exact.
        average_precision: sum of the precision at each threshold, weighted by the increase of recall. None if no row
            is of the class.
        average_precision_error: bound of its error; 0: it is exact.
    """

    roc_auc: float | None
    roc_auc_error: float
    average_precision: float | None
    average_precision_error: float


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Points of the ROC and of the precision-recall curve of a class, by descending thresholds of its probability.

    Attributes:
        false_positives: share of the rows of other classes that a threshold selects, from 0 to 1, (points,).
        true_positives: share of the rows of the class that it selects, from 0 to 1, (points,).
        recall: the same, of thresholds at which it rises, above 0, to 1, (steps,).
        precision: share of the rows selected by these that are of the class, (steps,).
    """

    false_positives: Floats
    true_positives: Floats
    recall: Floats
    precision: Floats

    def true_positives_at(self, false_positives: Floats) -> Floats:
        """Return the height of the ROC curve, interpolated between points."""
        found: Floats = np.interp(false_positives, self.false_positives, self.true_positives)
        return found

    def precision_at(self, recall: Floats) -> Floats:
        """Return the precision of the highest threshold that reaches each recall."""
        found: Floats = self.precision[np.searchsorted(self.recall, recall - 1e-12)]
        return found


class Scores:
    """The probabilities of rows, with the classes that these have, as far as the order of rows needs them.

    Args:
        num_classes: columns of the probabilities.
    """

    def __init__(self, num_classes: int) -> None:
        self._classes = num_classes
        self._most_rows = EXACT_VALUES // num_classes
        self._rows = 0
        self._kept: list[tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], Floats]] = []
        self._bits = bin_bits(num_classes)
        self._bins: _Bins | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the arrays that are held."""
        arrays = self._kept if self._bins is None else [(self._bins.counts, self._bins.found, self._bins.mixed)]
        return sum(array.nbytes for each in arrays for array in each)

    def add(self, probabilities: npt.NDArray[np.float32], y: npt.NDArray[np.int64], weights: Floats) -> None:
        """Add rows: probabilities (rows, num_classes), class and weight of each, (rows,)."""
        self._rows += len(y)
        if self._bins is None and self._rows <= self._most_rows:
            self._kept.append((probabilities.copy(), y.copy(), weights.copy()))
        else:
            self._binned().add(probabilities, y, weights)

    def merge(self, other: Scores) -> None:
        """Add the rows of other scores of the same classes."""
        for kept in other._kept:
            self.add(*kept)
        if other._bins is not None:
            self._binned().merge(other._bins)

    def rankings(self) -> list[Ranking]:
        """Compute how each class is ranked."""
        return [_ranking(own, every, mixed) for own, every, mixed in self._columns()]

    def curves(self) -> list[Curves | None]:
        """Return the curves of each class; None for a class that all rows have, or none."""
        return [_curves(own, every) for own, every, _ in self._columns()]

    def _columns(self) -> Iterator[tuple[Floats, Floats, npt.NDArray[np.bool_]]]:
        """Yield what `_ranking` takes of each class."""
        if self._bins is not None:
            yield from zip(*self._bins.counts, self._bins.mixed, strict=True)
            return
        if not self._kept:
            yield from [(np.zeros(0), np.zeros(0), np.zeros(0, np.bool_))] * self._classes
            return
        probabilities, y, weights = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
        for number, column in enumerate(probabilities.T):
            distinct, place = np.unique(column, return_inverse=True)
            own, every = np.zeros((2, len(distinct)))
            np.add.at(own, place, weights * (y == number))
            np.add.at(every, place, weights)
            yield own, every, np.zeros(len(distinct), np.bool_)

    def _binned(self) -> _Bins:
        """Return the bins; rows that were kept until now are counted in them."""
        if self._bins is None:
            self._bins = _Bins(self._classes, self._bits)
            for part in self._kept:
                self._bins.add(*part)
            self._kept = []
        return self._bins


class _Bins:
    """Counts of rows by their probabilities.

    Args:
        num_classes: columns of the probabilities.
        bits: 2^bits bins per octave.

    Attributes:
        counts: weight of the rows of the class, and of all rows, in each bin of each class, (2, num_classes, bins).
        found: a probability of each bin; NaN: none yet, (num_classes, bins).
        mixed: whether a bin holds several probabilities, (num_classes, bins).
    """

    def __init__(self, num_classes: int, bits: int) -> None:
        self.bits = bits
        self.counts = np.zeros((2, num_classes, num_bins(bits)))
        self.found = np.full(self.counts.shape[1:], np.nan, np.float32)
        self.mixed = np.zeros(self.found.shape, np.bool_)

    def add(self, probabilities: npt.NDArray[np.float32], y: npt.NDArray[np.int64], weights: Floats) -> None:
        """Count rows; see `Scores.add`."""
        _, classes, bins = self.counts.shape
        places = bin_of(probabilities, self.bits)
        places += np.arange(classes) * bins
        np.add.at(self.counts[0].reshape(-1), places[np.arange(len(y)), y], weights)
        places, values = places.reshape(-1), probabilities.reshape(-1)
        np.add.at(self.counts[1].reshape(-1), places, np.repeat(weights, classes))
        found = self.found.reshape(-1)
        new = np.isnan(found[places])
        found[places[new]] = values[new]
        self.mixed.reshape(-1)[places[found[places] != values]] = True

    def merge(self, other: _Bins) -> None:
        """Add the rows of other bins of the same classes."""
        self.counts += other.counts
        self.found = np.where(np.isnan(self.found), other.found, self.found)
        self.mixed |= other.mixed | ((self.found != other.found) & ~np.isnan(other.found))


def bin_bits(num_classes: int) -> int:
    """Return of how many bits bins within an octave are numbered, so that those of all classes are `MAX_VALUES`."""
    return max(bits for bits in range(_MOST_BITS + 1) if not bits or num_classes * num_bins(bits) <= MAX_VALUES)


def num_bins(bits: int) -> int:
    """Return the number of bins of [0, 1] with 2^bits bins per octave."""
    return 2 * ((_OCTAVES << bits) + 2)


def bin_of(probabilities: npt.NDArray[np.float32], bits: int) -> npt.NDArray[np.int64]:
    """Return the bin of each probability; bins ascend with it.

    1 - p is exact in float32 for p of at least 1/2 (Sterbenz), and the bits of positive floats ascend as they do.
    """
    high = probabilities > 0.5
    small = np.where(high, np.float32(1) - probabilities, probabilities)
    places = (np.ascontiguousarray(small, np.float32).view(np.int32) >> (_BITS - bits)) - (_LEAST >> (_BITS - bits)) + 1
    places = np.maximum(places, 0)
    found: npt.NDArray[np.int64] = np.where(high, num_bins(bits) - 1 - places, places).astype(np.int64)
    return found


def _ranking(own: Floats, every: Floats, mixed: npt.NDArray[np.bool_]) -> Ranking:
    """Compute the figures of a class.

    Args:
        own: weight of its rows at each score, or in each bin of scores, ascending.
        every: weight of all rows there.
        mixed: whether rows of a bin have different scores.
    """
    own, others, mixed = own[::-1], np.maximum(every - own, 0)[::-1], mixed[::-1]
    positive, negative = own.sum(), others.sum()
    area, precision, area_error, precision_error = None, None, 0.0, 0.0
    if positive > 0 and negative > 0:
        above = np.cumsum(own) - own  # weight of the class' rows with higher scores
        area = float(((above + own / 2) * others).sum() / positive / negative)
        area_error = float((own * others)[mixed].sum() / 2 / positive / negative)
    if positive > 0:
        hits, false = np.cumsum(own), np.cumsum(others)
        there = own > 0
        own, others, hits, false, mixed = own[there], others[there], hits[there], false[there], mixed[there]
        mean = hits / (hits + false)
        precision = float((own * mean).sum() / positive)
        # within a bin precision is highest if the rows of the class come first, with one score, and lowest if they
        # come last, one by one: then their sum is at least the integral of (T + x) / (T + false + x), T hits before
        most = hits / (hits + false - others)
        start = hits - own + false
        first = false == 0  # no other row has a score as high: the precision is 1
        least = own - false * np.log1p(own / np.where(first, 1, start))
        more, less = (own * (most - mean))[mixed].sum(), (own * mean - least)[mixed].sum()
        precision_error = float(max(more, less) / positive)
    return Ranking(
        roc_auc=area,
        roc_auc_error=area_error,
        average_precision=precision,
        average_precision_error=precision_error,
    )


def _curves(own: Floats, every: Floats) -> Curves | None:
    """Return the curves of a class, or None if all rows are of it, or none; see `_ranking` for the arguments.

    Of the thresholds the ROC curve has the last one in each of `MAX_POINTS` equal stretches of the sum of both shares,
    the other curve the last one in as many stretches of the recall.
    """
    hits, false = np.cumsum(own[::-1]), np.cumsum(np.maximum(every - own, 0)[::-1])
    if not len(hits) or not hits[-1] or not false[-1]:
        return None
    recall, wrong = hits / hits[-1], false / false[-1]
    points = _last_of_each((recall + wrong) / 2)
    rises = np.flatnonzero(own[::-1] > 0)
    steps = rises[_last_of_each(recall[rises])]
    return Curves(
        false_positives=np.append(0.0, wrong[points]),
        true_positives=np.append(0.0, recall[points]),
        recall=recall[steps],
        precision=hits[steps] / (hits[steps] + false[steps]),
    )


def _last_of_each(shares: Floats) -> npt.NDArray[np.int64]:
    """Return the index of the last of the ascending shares in each of `MAX_POINTS` equal stretches of (0, 1]."""
    stretch = np.ceil(shares * MAX_POINTS)
    return np.flatnonzero(np.append(stretch[1:] != stretch[:-1], True) & (stretch > 0))
