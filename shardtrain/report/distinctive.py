"""Find the most distinctive features of each class by their F score, one class against the rest.

F is that of scikit-learn's `f_classif` with two groups, computed from sums over one pass: per column the sum in each
class and the sum of squares. The sums take at most 64 MiB; if there are more columns than fit, only the most frequent
ones are scored. In sequences a word has the value 1 in each row that contains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.loader.split import Split
from shardtrain.report.row_statistics import Counts, drop_repeated, read_entries

BUDGET = 64 << 20

Sums = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class DistinctiveFeature:
    """A feature that is typical of a class.

    Attributes:
        column: column or token id.
        score: F of the class against the rest; infinite if the feature separates them perfectly.
        share: share of the rows of the class that have the feature.
        share_elsewhere: share of all other rows that have it.
    """

    column: int
    score: float
    share: float
    share_elsewhere: float


def distinctive_features(
    split: Split, occurrences: Counts, classes: Sequence[int], *, most: int
) -> dict[int, tuple[DistinctiveFeature, ...]]:
    """Return the features of each class with the highest F, among those whose mean is higher inside than outside it.

    Args:
        split: the training split, read once.
        occurrences: number of rows in which each column occurs.
        classes: indices of the classes.
        most: maximum number of features per class.
    """
    max_columns = BUDGET // (8 * (2 * len(classes) + 2))
    columns = np.sort(np.argsort(-occurrences, kind="stable")[: min(max_columns, int((occurrences > 0).sum()))])
    if not len(columns):
        return dict.fromkeys(classes, ())
    slot = np.full(len(occurrences), -1, np.int64)
    slot[columns] = np.arange(len(columns))
    group = np.full(len(split.entry.class_counts), len(classes), np.int64)  # the last group holds all other classes
    group[list(classes)] = np.arange(len(classes))
    sums, rows = np.zeros((2, len(classes) + 1, len(columns)))
    squares = np.zeros(len(columns))
    for entries in read_entries(split):
        entries = drop_repeated(entries, split.kind)
        kept = slot[entries.columns]
        groups = np.repeat(group[entries.y], np.diff(entries.indptr))
        scored = kept >= 0
        kept, groups, values = kept[scored], groups[scored], entries.values[scored].astype(np.float64)
        np.add.at(sums, (groups, kept), values)
        np.add.at(rows, (groups, kept), 1.0)
        np.add.at(squares, kept, values * values)
    counts = np.array(split.entry.class_counts)
    found = {}
    for number, index in enumerate(classes):
        inside = int(counts[index])
        scores = f_scores(sums[number], sums.sum(axis=0), squares, inside, split.num_examples)
        best = np.argsort(-scores, kind="stable")[:most]
        found[index] = tuple(
            DistinctiveFeature(
                column=int(columns[i]),
                score=float(scores[i]),
                share=float(rows[number, i]) / inside,
                share_elsewhere=float(rows[:, i].sum() - rows[number, i]) / (split.num_examples - inside),
            )
            for i in best
            if scores[i] > 0
        )
    return found


def f_scores(sums: Sums, totals: Sums, squares: Sums, inside: int, rows: int) -> Sums:
    """Compute F of each column, a class against the rest; 0 where the mean is not higher in the class.

    Args:
        sums: sum of each column over the rows of the class.
        totals: sum of each column over all rows.
        squares: sum of squares of each column over all rows.
        inside: number of rows of the class.
        rows: number of all rows.
    """
    outside = rows - inside
    if not inside or not outside or rows < 3:
        return np.zeros(len(sums))
    mean, rest = sums / inside, (totals - sums) / outside
    between = inside * outside / rows * (mean - rest) ** 2
    within = squares - inside * mean**2 - outside * rest**2
    within = np.where(within > 1e-12 * squares, within, 0.0)  # a remainder of this size is rounding error
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = between / (within / (rows - 2))
    return np.where((mean > rest) & (squares > 0), scores, 0.0)
