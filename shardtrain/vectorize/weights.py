"""Compute the weights of counts: the only place where settings become numbers, with scikit-learn's arithmetic.

A value is `of_times[times] * of_terms[term] / norm of the document`; a factor that the settings do not use is 1.
Logarithms are computed by numpy over tables, since those of a kernel may differ in the last bit.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from shardtrain.vectorize.settings import NgramSettings

Float = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Weights:
    """How counts become values.

    Attributes:
        binary: a term counts once per document, however often it occurs.
        sublinear: 1 + ln(times) in place of times.
        idf: terms are weighted by their inverse document frequency.
        norm: documents are divided by their l2 norm.
    """

    binary: bool
    sublinear: bool
    idf: bool
    norm: bool

    def of_times(self, most: int) -> Float:
        """Return the weights of occurring 0 to `most` times in a document, (most + 1,)."""
        worth = np.arange(most + 1, dtype=np.float64)
        if self.binary:
            np.minimum(worth, 1.0, out=worth)
        if self.sublinear:
            np.log(worth[1:], out=worth[1:])
            worth[1:] += 1.0
        return worth

    def of_terms(self, counts: npt.NDArray[np.int64], num_documents: int) -> Float:
        """Return the weights of terms that occur in `counts` of the documents."""
        return smooth_idf(counts, num_documents) if self.idf else np.ones(len(counts))


def weights_of(settings: NgramSettings) -> Weights:
    """Return how counts become values under some settings."""
    tfidf = settings.weighting == "tfidf"
    return Weights(binary=settings.binary, sublinear=settings.sublinear_tf, idf=tfidf, norm=tfidf)


def smooth_idf(counts: npt.NDArray[np.int64], num_documents: int) -> Float:
    """Compute ln((1 + n) / (1 + df)) + 1 for each document frequency (scikit-learn's TfidfTransformer, smooth_idf)."""
    idf = np.full(len(counts), num_documents + 1, np.float64)
    idf /= counts.astype(np.float64) + 1.0
    np.log(idf, out=idf)
    idf += 1.0
    return idf
