"""Scale features by how much they say of the classes, as naive Bayes measures it.

Wang and Manning (ACL 2012) train a linear model on features that are multiplied by their log-count ratio: for a class,
the logarithm of how much larger the share of a feature is among all occurrences of features in rows of the class than
in other rows, with 1 added to every count. With several classes the scale of a feature is here the largest absolute
ratio of all classes. A feature that occurs in no row gets 0, and all scales are divided by one number, so that the mean
square length of a row becomes 1. Features keep their values on disk: the scales are part of the training, and are
multiplied into the weights at its end.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.csr import Csr
from shardtrain.arrays.rows import Examples
from shardtrain.engine import kernels
from shardtrain.engine.network import Floats, check_examples

_RATIOS = 1 << 20  # computed at a time


def naive_bayes_scales(batches: Iterable[Examples], features: int, classes: int) -> Floats:
    """Compute the scale of each feature from the rows of the training split.

    Args:
        batches: sparse rows and their classes; the order of rows decides the last bits.
        features: number of columns.
        classes: number of classes.

    Returns:
        (features,), at least 0.

    Raises:
        ShardsError: a column or a label is outside its range.
    """
    counts = np.zeros((features, classes), np.int32)  # rows of each class in which a feature occurs
    squares = np.zeros(features)
    rows = 0
    for x, y in batches:
        assert isinstance(x, Csr)
        check_examples(x.indices, y, features, classes)
        kernels.count(np.asarray(x.indptr, np.int64), x.indices, x.data, np.asarray(y, np.int64), counts, squares)
        rows += len(y)
    scales = np.zeros(features, np.float32)
    of_class = counts.sum(axis=0, dtype=np.int64)
    in_all = of_class.sum() - of_class  # occurrences in rows of other classes
    length = 0.0
    columns = max(1, _RATIOS // classes)
    for start in range(0, features, columns):
        part = slice(start, start + columns)
        largest = _largest_ratio(counts[part], of_class + features, in_all + features)
        scales[part] = largest
        length += float(np.sum(squares[part] * largest * largest))
    factor = np.sqrt(rows / length) if length > 0 else 1.0
    with np.errstate(over="ignore"):  # values so small that training will say that it diverges
        scales *= np.float32(factor)
    return scales


def _largest_ratio(
    counts: npt.NDArray[np.int32], inside: npt.NDArray[np.int64], outside: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the largest absolute log-count ratio of each feature, 0 where it does not occur."""
    total = counts.sum(axis=1, dtype=np.int64)
    ratios = np.log((counts + 1) / inside) - np.log((total[:, None] - counts + 1) / outside)
    largest: npt.NDArray[np.float64] = np.abs(ratios).max(axis=1)
    return np.where(total > 0, largest, 0.0)
