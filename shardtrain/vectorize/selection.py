"""Score features by sums over their values and choose the best, with scikit-learn's arithmetic and order of ties.

A selector needs only the sums per class of each feature, which are added up document by document. The operations and
their order are those of scikit-learn (`f_oneway`, `chi2`, `_limit_features`), so scores are equal in every bit, and
features are tied in both or in neither.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.runtime.kernels import kernel

Float = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Moments:
    """Sums over the documents in corpus order.

    Attributes:
        pairs: the sum of a feature's values and the sum of their squares per class, adjacent because both are updated
            together; (features, classes, 2).
        totals: the sum of its values, added up document by document and not class by class, (features,).
    """

    pairs: Float
    totals: Float

    @classmethod
    def zeros(cls, num_features: int, num_classes: int) -> Moments:
        """Return the sums before the first document."""
        return cls(np.zeros((num_features, num_classes, 2)), np.zeros(num_features))

    @property
    def sums(self) -> Float:
        """Sums of a feature's values per class, (features, classes)."""
        return self.pairs[:, :, 0]


@dataclass(frozen=True)
class Selector:
    """A way to choose features.

    Attributes:
        score: computes the score of each feature from moments and documents per class, (classes,); NaN is worst.
        later_wins: whether of terms with equal scores the later in the order of strings is better, or the earlier.
        by_counts: whether scores are of counts, and terms not chosen do not contribute to the norms of documents.
        class_bytes: memory of a feature and class while scores are computed: two sums, and what `score` makes of them.
    """

    score: Callable[[Moments, Counts], Float]
    later_wins: bool = True
    by_counts: bool = False
    class_bytes: int = 16


def f_classif(moments: Moments, class_counts: Counts) -> Float:
    """Compute the one-way ANOVA F of each feature against the classes (Lomax 2007, as in scikit-learn's `f_oneway`).

    Returns:
        (features,); NaN where a feature does not vary at all.
    """
    num_samples, num_classes = float(class_counts.sum()), float(len(class_counts))
    between, within = _variances(moments.pairs, class_counts.astype(np.float64), num_samples)
    with np.errstate(divide="ignore", invalid="ignore"):
        scores: Float = (between / (num_classes - 1)) / (within / (num_samples - num_classes))
    return scores


@kernel
def _variances(pairs, class_counts, num_samples):  # type: ignore[no-untyped-def]
    """Return the sums of squares between and within the classes; one feature at a time, so nothing else is held."""
    between = np.empty(len(pairs))
    within = np.empty(len(pairs))
    for i in range(len(pairs)):
        total_squares = 0.0
        total = 0.0
        of_classes = 0.0
        # Invariant: these are the sums over the classes before k, in the order of the classes.
        for k in range(len(class_counts)):
            total_squares += pairs[i, k, 1]
            total += pairs[i, k, 0]
            of_classes += pairs[i, k, 0] * pairs[i, k, 0] / class_counts[k]
        correction = total * total / num_samples
        between[i] = of_classes - correction
        within[i] = total_squares - correction - between[i]
    return between, within


def chi2(moments: Moments, class_counts: Counts) -> Float:
    """Compute chi-squared of each feature's sums per class against those expected from the sizes of the classes.

    Returns:
        (features,); NaN where a feature sums up to 0.
    """
    expected = np.outer(_class_shares(class_counts), moments.totals)
    squared = moments.sums.T.copy(order="F")  # scikit-learn's layout, which decides in which order numpy adds
    squared -= expected
    squared **= 2
    with np.errstate(invalid="ignore"):
        squared /= expected
    scores: Float = squared.sum(axis=0)
    return scores


def _class_shares(class_counts: Counts) -> Float:
    """Return the proportion of each class; of more than two classes scikit-learn adds up 1 / n once per document."""
    num_samples = int(class_counts.sum())
    if len(class_counts) == 2:
        shares: Float = class_counts / num_samples
        return shares
    return np.array([_added(1.0 / num_samples, int(count)) for count in class_counts])


@kernel
def _added(value, times):  # type: ignore[no-untyped-def]
    total = 0.0
    for _ in range(times):
        total += value
    return total


def _frequency(moments: Moments, class_counts: Counts) -> Float:
    return moments.totals


SELECTORS = {
    "f_classif": Selector(f_classif),
    "chi2": Selector(chi2, class_bytes=32),
    "none": Selector(_frequency, later_wins=False, by_counts=True),
}


def ranked(scores: Float) -> Float:
    """Return scores as SelectKBest compares them: NaN is below every number."""
    return np.where(np.isnan(scores), np.finfo(np.float64).min, scores)


def highest(scores: Float, keep: int) -> Float:
    """Return the `keep` highest scores, as `ranked` returns them, in any order; all if they are not more."""
    values = ranked(scores)
    return np.partition(values, len(values) - keep)[len(values) - keep :] if keep < len(values) else values


@dataclass(frozen=True)
class Boundary:
    """Where a choice of features by score ends.

    Attributes:
        score: the lowest that is kept, as `ranked` returns it.
        room: how many of the features with this score are kept; all with a higher one are.
    """

    score: float
    room: int


def find_boundary(pieces: Iterable[Float], keep: int) -> Boundary:
    """Find where the `keep` best features end; their scores come in pieces, of which one is held beside the best."""
    best = np.empty(0)
    for scores in pieces:
        values = ranked(scores)
        if len(best) == keep:
            values = values[values > best.min()]
        best = np.concatenate([best, values])
        if len(best) > keep:
            best.partition(len(best) - keep)
            best = best[-keep:].copy()
    least = float(best.min())
    return Boundary(least, int(np.count_nonzero(best == least)))


def choose(scores: Float, terms: list[str], keep: int, *, later_wins: bool = True) -> npt.NDArray[np.int64]:
    """Choose the `keep` best features; return their indices in order of their terms.

    SelectKBest sorts stably by score and takes the last k of the columns, which are in order of the terms: among
    equal scores the later term wins. Without `later_wins` the earlier one does, as in a stable sort by falling score.
    """
    columns = np.array(sorted(range(len(terms)), key=terms.__getitem__), np.int64)
    values = ranked(scores)[columns]
    best = np.argsort(values, kind="stable")[max(0, len(columns) - keep) :]
    if not later_wins:
        best = np.argsort(-values, kind="stable")[:keep]
    return columns[np.sort(best)]
