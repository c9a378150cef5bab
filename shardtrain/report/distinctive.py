"""Which features tell a class from all others best: F of one class against the rest, over the training rows.

F is that of scikit-learn's `f_classif` with two groups, from sums over one pass: of every chosen column the sum for
each chosen class, and the sum of squares. These take at most 64 MiB; of more columns than fit only those that occur in
most rows are looked at. Of sequences a word counts as 1 in a row that has it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.loader.split import Split
from shardtrain.report.row_statistics import Counts, distinct, read_entries

BUDGET = 64 << 20

Sums = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class DistinctiveFeature:
    """A feature that is typical of a class.

    Attributes:
        column: of the feature, or its token id.
        score: F of the class against the rest; infinite where the feature alone decides.
        share: of the rows of the class that have it.
        share_elsewhere: of all other rows.
    """

    column: int
    score: float
    share: float
    share_elsewhere: float


def distinctive_features(
    split: Split, occurrences: Counts, classes: Sequence[int], *, most: int
) -> dict[int, tuple[DistinctiveFeature, ...]]:
    """Of each of `classes` the `most` features with the highest F among those whose mean is higher in it than outside.

    Args:
        split: is gone through once.
        occurrences: in how many rows each column occurs.
        classes: indices of those to look at.
        most: features of a class.
    """
    room = BUDGET // (8 * (2 * len(classes) + 2))
    columns = np.sort(np.argsort(-occurrences, kind="stable")[: min(room, int((occurrences > 0).sum()))])
    if not len(columns):
        return dict.fromkeys(classes, ())
    place = np.full(len(occurrences), -1, np.int64)
    place[columns] = np.arange(len(columns))
    group = np.full(len(split.entry.class_counts), len(classes), np.int64)  # the last group is all other classes
    group[list(classes)] = np.arange(len(classes))
    sums, rows = np.zeros((2, len(classes) + 1, len(columns)))
    squares = np.zeros(len(columns))
    for entries in read_entries(split):
        entries = distinct(entries, split.kind)
        kept = place[entries.columns]
        groups = np.repeat(group[entries.y], np.diff(entries.indptr))
        there = kept >= 0
        kept, groups, values = kept[there], groups[there], entries.values[there].astype(np.float64)
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
    """F of each column between the `inside` rows of a class and all others; 0 where its mean is not higher inside.

    Args:
        sums: of the column's values over the rows of the class.
        totals: over all rows.
        squares: of the values' squares over all rows.
        inside: rows of the class.
        rows: all rows.
    """
    outside = rows - inside
    if not inside or not outside or rows < 3:
        return np.zeros(len(sums))
    mean, rest = sums / inside, (totals - sums) / outside
    between = inside * outside / rows * (mean - rest) ** 2
    within = squares - inside * mean**2 - outside * rest**2
    within = np.where(within > 1e-12 * squares, within, 0.0)  # what rounding leaves of nothing is nothing
    with np.errstate(divide="ignore", invalid="ignore"):
        scores = between / (within / (rows - 2))
    return np.where((mean > rest) & (squares > 0), scores, 0.0)
