"""Vectorize and select in one: n-grams with tf-idf weights, of which only the best are ever held.

`TfidfVectorizer` followed by `SelectKBest` holds the strings of all n-grams and the matrix of all columns until the
best are known. Here both are passes of a build over temporary files, within a memory limit.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix, vstack
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from shardtrain.api import build
from shardtrain.errors import UsageError
from shardtrain.runtime.progress import QUIET, verbosity
from shardtrain.shards.manifest import vectorizer_folder
from shardtrain.sklearn.kept_files import read_files, written_files
from shardtrain.sklearn.vectorizers import opened_documents
from shardtrain.vectorize.fitted import NgramVectorizer, load_vectorizer

_BLOCK = 4096  # texts that are transformed at a time


class SelectedTfidfVectorizer(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Texts to the tf-idf of the n-grams that tell their classes apart best.

    It equals `make_pipeline(TfidfVectorizer(...), SelectKBest(score_func, k=k))` with float32 values: the same columns
    in the same order, the values of `norm="l2"`, `smooth_idf=True` and `decode_error="replace"`.

    Args:
        k: number of n-grams to keep; all, if there are fewer.
        score_func: "f_classif" or "chi2".
        analyzer: "word", "char" or "char_wb".
        ngram_range: fewest and most words or characters of an n-gram.
        min_df: documents that an n-gram must occur in, or a share of them.
        max_df: documents that it may occur in, or a share of them.
        stop_words: words that are left out.
        strip_accents: "unicode" or None.
        binary: whether an n-gram counts once per text.
        sublinear_tf: whether a count c weighs 1 + ln c.
        memory_limit: of the build, at least "256MiB".
        workers: processes of the build. More than one import the calling script again, so they need
            `if __name__ == "__main__":` around the call.

    Attributes:
        scores_: of the kept n-grams, (k,), as `SelectKBest.scores_` of these.
    """

    def __init__(
        self,
        *,
        k: int = 20_000,
        score_func: str = "f_classif",
        analyzer: str = "word",
        ngram_range: tuple[int, int] = (1, 2),
        min_df: float = 2,
        max_df: float = 1.0,
        stop_words: Iterable[str] = (),
        strip_accents: str | None = "unicode",
        binary: bool = False,
        sublinear_tf: bool = False,
        memory_limit: str | int = "1GiB",
        workers: int = 1,
    ) -> None:
        self.k = k
        self.score_func = score_func
        self.analyzer = analyzer
        self.ngram_range = ngram_range
        self.min_df = min_df
        self.max_df = max_df
        self.stop_words = stop_words
        self.strip_accents = strip_accents
        self.binary = binary
        self.sublinear_tf = sublinear_tf
        self.memory_limit = memory_limit
        self.workers = workers

    def fit(self, X: Any, y: Any = None) -> SelectedTfidfVectorizer:
        """Choose the n-grams.

        Args:
            X: texts, in any series that is read once: a list, an iterator, a column; or the `pathlib.Path` of a file.
            y: the class of each, likewise.

        Raises:
            UsageError: there is no `y`, another number of classes than of texts, or an option that a build refuses.
            LabelError: there is one class only.
            CorpusError: no text is left.
        """
        if y is None:
            raise UsageError("fit needs the class of each text: requires y to be passed, but the target y is None")
        with tempfile.TemporaryDirectory(prefix="shardtrain-") as scratch, verbosity(QUIET):
            with opened_documents(X) as texts:
                rows = _pairs(y, texts)
                shards = build(rows, Path(scratch, "shards"), validation_fraction=0, labels="names", **self._options())
            self._files = read_files(vectorizer_folder(shards.path))
        self._vectorizer = _loaded(self._files)
        self.scores_ = np.array(self._vectorizer.arrays["scores"])
        return self

    def transform(self, X: Any) -> Any:
        """Return the rows of texts as a CSR matrix of scipy, (texts, k) float32; `X` is as of `fit`."""
        check_is_fitted(self)
        parts = []
        with opened_documents(X) as texts:
            remaining = iter(texts)
            while block := list(islice(remaining, _BLOCK)):
                x = self._vectorizer.transform(block)
                parts.append(csr_matrix((x.data, x.indices, x.indptr), shape=x.shape, copy=False))
        empty = csr_matrix((0, self._vectorizer.num_features), dtype=np.float32)
        return vstack([empty, *parts], format="csr")

    def get_feature_names_out(self, input_features: Any = None) -> Any:
        """Return the kept n-grams, in the order of the columns, (k,)."""
        check_is_fitted(self)
        return np.array(list(self._vectorizer.terms), dtype=object)

    def _options(self) -> dict[str, Any]:
        """Return the options of the build."""
        same = ("analyzer", "ngram_range", "min_df", "max_df", "binary", "sublinear_tf", "memory_limit", "workers")
        return {
            "vectorizer": "ngram",
            "max_features": self.k,
            "select": self.score_func,
            "stop_words": tuple(self.stop_words),
            "strip_accents": self.strip_accents or "none",
            **{name: getattr(self, name) for name in same},
        }

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        state.pop("_vectorizer", None)  # loaded again from the files
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        if "_files" in state:
            self._vectorizer = _loaded(self._files)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.input_tags.two_d_array = False
        tags.target_tags.required = True
        return tags


def _pairs(y: Any, texts: Iterable[Any]) -> Iterator[tuple[str, Any]]:
    """Yield class and text of each row.

    Raises:
        UsageError: there are more of one than of the other.
    """
    labels, done = iter(y), object()
    number = 0
    for text in texts:
        if (label := next(labels, done)) is done:
            raise UsageError(f"there are more texts than the {number:,} classes of y; give one for each text")
        yield str(label), text
        number += 1
    if next(labels, done) is not done:
        raise UsageError(f"there are more classes in y than the {number:,} texts; give one for each text")


def _loaded(files: dict[str, bytes]) -> NgramVectorizer:
    """Load the vectorizer in these files; its arrays are mapped, and stay mapped after the folder is removed."""
    with written_files(files) as folder:
        found = load_vectorizer(folder)
        assert isinstance(found, NgramVectorizer)
        return found
