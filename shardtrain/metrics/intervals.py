"""Intervals of proportions, and intervals and tests for paired ones: two classifiers, or one class of both.

Of paired rows only those count on which exactly one of the two is right, the discordant ones. All functions take
numbers of rows and keep nothing.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

QUANTILE = 1.959963984540054  # of the normal distribution: 95 % lie within so many deviations
EXACT_PAIRS = 1000  # discordant rows up to which the test is exact
_HALVINGS = 60  # of an interval of at most 2: to the last bits of a double

Floats = npt.NDArray[np.float64]


def wilson_interval(share: float, rows: float) -> tuple[float, float]:
    """Compute the 95 % interval of a proportion (Wilson, 1927): inside [0, 1], and right for few rows and near 0 and 1.

    Args:
        share: of `rows`.
        rows: their number; without any, the interval is [0, 1].
    """
    if not rows:
        return 0.0, 1.0
    z = QUANTILE
    center = share + z * z / (2 * rows)
    spread = z * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    low, high = ((center + sign * spread) / (1 + z * z / rows) for sign in (-1, 1))
    return max(0.0, low), min(1.0, high)


def effective_rows(weight: float, squares: float) -> float:
    """Return how many rows weighted ones count for: (sum w)^2 / sum w^2 (Kish, 1965); 0 without any.

    Args:
        weight: sum of the weights.
        squares: sum of their squares.
    """
    return float(weight * weight / squares) if squares else 0.0


def score_interval(only_first: npt.ArrayLike, only_second: npt.ArrayLike, rows: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Compute 95 % intervals of the difference of paired proportions, second minus first (Tango, 1998).

    An interval has the differences that a score test does not reject (Statistics in Medicine 17, 891-908). It lies
    in [-1, 1], has about its nominal coverage for few rows too, and does not shrink to a point where no row is
    discordant. It excludes 0 where McNemar's asymptotic test rejects at 5 %.

    Args:
        only_first: rows on which only the first is right, of any shape.
        only_second: rows on which only the second is right.
        rows: all rows; where there are none, the interval is [-1, 1].
    """
    found = np.broadcast_arrays(*(np.asarray(each, np.float64) for each in (only_first, only_second, rows)))
    first, second, number = found
    safe = np.maximum(number, 1)
    difference = np.where(number > 0, (second - first) / safe, 0.0)
    low = _root(first, second, safe, np.full_like(difference, -1.0), difference, QUANTILE)
    high = _root(first, second, safe, difference, np.full_like(difference, 1.0), -QUANTILE)
    return np.where(number > 0, low, -1.0), np.where(number > 0, high, 1.0)


def _root(first: Floats, second: Floats, rows: Floats, start: Floats, stop: Floats, score: float) -> Floats:
    """Find the difference with this score in [start, stop] by bisection: the score falls as the difference grows."""
    for _ in range(_HALVINGS):
        middle = (start + stop) / 2
        above = _score(first, second, rows, middle) > score
        start, stop = np.where(above, middle, start), np.where(above, stop, middle)
    return (start + stop) / 2


def _score(first: Floats, second: Floats, rows: Floats, difference: Floats) -> Floats:
    """Compute Tango's score statistic of a difference; `share` is the constrained estimate of the share of `first`."""
    linear = -first - second + (2 * rows - second + first) * difference
    constant = -first * difference * (1 - difference)
    share = (np.sqrt(np.maximum(linear * linear - 8 * rows * constant, 0)) - linear) / (4 * rows)
    variance = rows * (2 * share + difference * (1 - difference))
    distance = second - first - rows * difference
    ratio: Floats = distance / np.sqrt(np.maximum(variance, np.finfo(np.float64).tiny))
    return ratio


def mcnemar(only_first: int, only_second: int) -> float:
    """Compute the two-sided p-value of McNemar's test (1947) that both are right equally often.

    Up to `EXACT_PAIRS` discordant rows it is that of the exact binomial test; of more it is that of the normal
    approximation with continuity correction (Edwards, 1948), which is nearer to the exact one than without it.
    """
    discordant, fewer = only_first + only_second, min(only_first, only_second)
    if discordant > EXACT_PAIRS:
        return math.erfc(max(0, abs(only_first - only_second) - 1) / math.sqrt(2 * discordant))
    ways, total = 1, 1
    for number in range(fewer):
        ways = ways * (discordant - number) // (number + 1)
        total += ways
    return min(1.0, 2 * (total / (1 << discordant)))
