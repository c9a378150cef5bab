"""Use shardtrain's kernels in place of scikit-learn's text vectorizers: same parameters, same results, all cores.

Each class derives from scikit-learn's of the same name, which checks parameters and texts, keeps what is fitted and
computes the weights; only finding and counting n-grams is ours. So columns, values and messages are equal to
scikit-learn's, in every bit. What the kernels cannot take (a callable analyzer or tokenizer, another token_pattern, a
given vocabulary, a method that a subclass replaces) runs through scikit-learn's own methods. The cost of the
inheritance is that a few private checks of scikit-learn are called, which tests/sklearn_conformance would notice.
"""

from __future__ import annotations

import inspect
import math
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, islice
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from shardtrain.arrays.text_input import checked_texts
from shardtrain.corpus.opening import open_texts
from shardtrain.corpus.options import TextOptions
from shardtrain.corpus.readers import plan_units, read_unit
from shardtrain.corpus.rows import is_table
from shardtrain.errors import MissingExtraError
from shardtrain.options import parse_size
from shardtrain.pipeline.term_matrix import (
    Counted,
    Entries,
    Resources,
    Terms,
    assemble,
    count_texts,
    cut,
    find_terms,
    in_order,
    rows_of,
    scratch_folder,
    unit_bytes,
)
from shardtrain.runtime.passes import UNIT_BYTES
from shardtrain.vectorize.count_rows import Analysis, Rows, by_column, new_rows
from shardtrain.vectorize.hashed import hashed_sums
from shardtrain.vectorize.identity import TermIds
from shardtrain.vectorize.new_rows import Index
from shardtrain.vectorize.settings import MAX_COLUMNS, MAX_NGRAM, HashedSettings, Hashing, NgramSettings
from shardtrain.version import __version__

try:
    from scipy.sparse import csr_matrix
    from sklearn.feature_extraction.text import CountVectorizer as PeerCount
    from sklearn.feature_extraction.text import HashingVectorizer as PeerHashing
    from sklearn.feature_extraction.text import TfidfTransformer
    from sklearn.feature_extraction.text import TfidfVectorizer as PeerTfidf
    from sklearn.preprocessing import normalize
    from sklearn.utils.validation import check_is_fitted
except ImportError as error:
    raise MissingExtraError(
        "these are vectorizers of scikit-learn; install it with `pip install 'shardtrain[sklearn]'`"
    ) from error

try:  # from 1.9 on: a sparse matrix or array, as `sklearn.set_config` says
    from sklearn.utils._sparse import _align_api_if_sparse as _aligned
except ImportError:

    def _aligned(X: Any) -> Any:
        return X


_TOKEN_PATTERN = r"(?u)\b\w\w+\b"  # the one that the kernels know
_ANALYZERS = ("word", "char", "char_wb")
_METHODS = ("build_analyzer", "build_tokenizer", "decode", "get_stop_words")  # which a subclass may replace
_STRING = "Iterable over raw text documents expected, string object received."


@dataclass(frozen=True, eq=False)
class _Known:
    """The terms of a fitted vectorizer, as the kernels look them up.

    Attributes:
        vocabulary: the `vocabulary_` that they are; if a program replaces that, the kernels are not used.
        analyzer: of the terms: a word and an n-gram of its characters have different hashes.
        hashing: of the terms.
        ids: ascending.
        columns: of the terms, (terms,) int32.
    """

    vocabulary: dict[str, int]
    analyzer: str
    hashing: Hashing
    ids: TermIds
    columns: npt.NDArray[np.int32]

    @cached_property
    def index(self) -> Index:
        """Where the terms are."""
        return Index.of(self.ids)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = (self.vocabulary, self.analyzer, self.hashing, self.ids, self.columns)
        return _restored, (__version__, *fields)  # without the index


def _restored(version: str, *fields: Any) -> _Known | None:
    """Return pickled terms; None, so that scikit-learn's code is used, if another version hashed them."""
    return _Known(*fields) if version == __version__ and isinstance(fields[3], TermIds) else None


class _Splitting:
    """How a vectorizer of scikit-learn splits texts, for the kernels."""

    def __init__(self, vectorizer: Any) -> None:
        self.vectorizer = vectorizer
        self.preprocess = vectorizer.build_preprocessor()
        plain = type(vectorizer).build_preprocessor is PeerCount.build_preprocessor or (
            type(vectorizer).build_preprocessor is PeerHashing.build_preprocessor
        )
        simple = plain and vectorizer.preprocessor is None
        self.strip = simple and vectorizer.lowercase and vectorizer.strip_accents == "unicode"
        self.by_kernel = simple and vectorizer.lowercase and vectorizer.strip_accents in (None, "unicode")
        self.as_it_is = simple and not vectorizer.lowercase and vectorizer.strip_accents is None

    def __call__(self, documents: Iterable[Any]) -> Iterator[str]:
        """Yield the documents, decoded, and preprocessed if the kernels do not do it."""
        decode, plain = self.vectorizer.decode, self.vectorizer.input == "content"
        unchanged = self.by_kernel or self.as_it_is
        for document in documents:
            text = document if plain and type(document) is str else decode(document)
            if not unchanged or not isinstance(text, str):
                text = self.preprocess(text)  # of what is no text, the error is scikit-learn's
                if not isinstance(text, str):
                    raise TypeError(f"expected string or bytes-like object, got {type(text).__name__!r}")
            yield text

    def settings(self, hashing: Hashing | None = None) -> dict[str, Any]:
        """Return what settings of n-grams and of hashed n-grams have in common."""
        words = self.vectorizer.get_stop_words() if self.vectorizer.analyzer == "word" else None
        return {
            "analyzer": self.vectorizer.analyzer,
            "ngram_range": tuple(map(int, self.vectorizer.ngram_range)),
            "stop_words": tuple(sorted(words or ())),
            "strip_accents": "unicode" if self.strip else "none",
            "hashing": hashing or Hashing(),
        }

    def analysis(self, hashing: Hashing | None = None) -> Analysis:
        """Return how the kernels split the texts that are yielded."""
        return Analysis(settings=NgramSettings(**self.settings(hashing)), prepared=not self.by_kernel)


class CountVectorizer(PeerCount):  # type: ignore[misc]
    """`sklearn.feature_extraction.text.CountVectorizer` by shardtrain's kernels.

    Parameters, attributes and methods are scikit-learn's, and one more:

    Args:
        memory_limit: such as "1GiB" (at least 256MiB), for `fit`, `fit_transform` and `transform`, without what the
            program held before: the matrix is made out of core, and its arrays are memory-mapped files without names,
            which go with it. Terms that do not fit are refused. None: the matrix is held in memory.

    Texts may also be a `pathlib.Path` of a file that `predict` reads (CSV, JSON Lines, Parquet, or lines), or a table
    of one column.

    Raises:
        UsageError: `memory_limit` is no size, too small, or has no room for the terms (also ValueError).
        TextsError: a table of several columns was given in place of one of them (also TypeError).
    """

    def __init__(
        self,
        *,
        input: str = "content",  # noqa: A002 - scikit-learn's name
        encoding: str = "utf-8",
        decode_error: str = "strict",
        strip_accents: Any = None,
        lowercase: bool = True,
        preprocessor: Any = None,
        tokenizer: Any = None,
        stop_words: Any = None,
        token_pattern: str | None = _TOKEN_PATTERN,
        ngram_range: tuple[int, int] = (1, 1),
        analyzer: Any = "word",
        max_df: float = 1.0,
        min_df: float = 1,
        max_features: int | None = None,
        vocabulary: Any = None,
        binary: bool = False,
        dtype: Any = np.int64,
        memory_limit: int | str | None = None,
    ) -> None:
        super().__init__(
            input=input,
            encoding=encoding,
            decode_error=decode_error,
            strip_accents=strip_accents,
            lowercase=lowercase,
            preprocessor=preprocessor,
            tokenizer=tokenizer,
            stop_words=stop_words,
            token_pattern=token_pattern,
            ngram_range=ngram_range,
            analyzer=analyzer,
            max_df=max_df,
            min_df=min_df,
            max_features=max_features,
            vocabulary=vocabulary,
            binary=binary,
            dtype=dtype,
        )
        self.memory_limit = memory_limit

    _peer = PeerCount

    def fit(self, raw_documents: Any, y: Any = None) -> CountVectorizer:
        """Learn the vocabulary of texts."""
        self._fitted(raw_documents, rows=False)
        return self

    def fit_transform(self, raw_documents: Any, y: Any = None) -> Any:
        """Learn the vocabulary of texts and return their counts, a sparse matrix (texts, terms)."""
        return self._fitted(raw_documents, rows=True)

    def transform(self, raw_documents: Any) -> Any:
        """Count the known terms in texts; return a sparse matrix (texts, terms)."""
        _refuse_string(raw_documents)
        self._check_vocabulary()
        known: Any = self.__dict__.get("_known")
        with opened_documents(raw_documents) as documents:
            if not _takes(self) or not _is_current(known, self):
                return self._peer.transform(self, documents)
            self.build_analyzer()  # its checks and warnings
            return _matrix(self, self._new_rows(documents, known), len(self.vocabulary_))

    def _fitted(self, raw_documents: Any, *, rows: bool) -> Any:
        self.__dict__.pop("_known", None)
        _refuse_string(raw_documents)
        with opened_documents(raw_documents) as documents:
            if not _takes(self):
                return self._peer.fit_transform(self, documents) if rows else self._peer.fit(self, documents)
            self._validate_params()
            self._begin()
            self._validate_ngram_range()
            self._warn_for_unused_params()
            self._validate_vocabulary()
            self.build_analyzer()
            texts, resources = _Splitting(self), _resources(self)
            with scratch_folder() as scratch:
                counted = count_texts(texts(documents), texts.analysis(), scratch, resources)
                least, most = self._document_range(counted)
                limited = self.max_features is not None
                terms = find_terms(counted, scratch, resources, least=least, most=most, times=limited)
                terms = self._limited(terms)
                self.vocabulary_ = {term: column for column, term in enumerate(terms.strings)}
                order, hashing = terms.ids.order(), counted.analysis.settings.hashing
                self._known = _Known(
                    self.vocabulary_,
                    self.analyzer,
                    hashing,
                    terms.ids.take(order).shortest(hashing),
                    order.astype(np.int32),
                )
                self._learn(terms, counted.num_documents)
                if rows:
                    parts = rows_of(counted, terms, self._finished, resources)
                    return _matrix(self, parts, len(terms.strings))
        return None

    def _begin(self) -> None:
        """Check and make what is there before the texts are read: nothing."""

    def _document_range(self, counted: Counted) -> tuple[int, int]:
        """Return the fewest and most documents of a term, both inclusive, as scikit-learn computes them."""
        if not counted.num_terms:
            raise ValueError("empty vocabulary; perhaps the documents only contain stop words")
        most = self.max_df if isinstance(self.max_df, Integral) else self.max_df * counted.num_documents
        least = self.min_df if isinstance(self.min_df, Integral) else self.min_df * counted.num_documents
        if most < least:
            raise ValueError("max_df corresponds to < documents than min_df")
        return math.ceil(float(least)), math.floor(float(most))

    def _limited(self, terms: Terms) -> Terms:
        """Choose the most frequent terms, those of equal frequency as scikit-learn does, by the same sort."""
        if not terms.strings:
            raise ValueError("After pruning, no terms remain. Try a lower min_df or a higher max_df.")
        if self.max_features is None or len(terms.strings) <= self.max_features:
            return terms
        times = terms.counts if self.binary else terms.times
        assert times is not None
        sums = times.astype(csr_matrix((1, 1), dtype=self.dtype).sum(axis=0).dtype)
        return terms.take(np.sort((-sums).argsort()[: self.max_features]))

    def _learn(self, terms: Terms, num_documents: int) -> None:
        """Fit what is learnt beside the vocabulary: nothing."""

    def _new_rows(self, documents: Iterable[Any], known: _Known) -> Iterator[Entries]:
        texts = _Splitting(self)
        analysis, index = texts.analysis(known.hashing), known.index
        blocks = cut(texts(documents), unit_bytes(analysis))
        return in_order(
            lambda block: self._finished(new_rows(block, analysis, index, known.columns)), blocks, _resources(self)
        )

    def _finished(self, rows: Rows) -> Entries:
        """Return counts as the values of the matrix."""
        data = np.ones(len(rows.data), self.dtype) if self.binary else rows.data.astype(self.dtype)
        return data, rows.indices, rows.sizes


class TfidfVectorizer(CountVectorizer, PeerTfidf):  # type: ignore[misc]
    """`sklearn.feature_extraction.text.TfidfVectorizer` by shardtrain's kernels.

    Parameters, attributes and methods are scikit-learn's, and `memory_limit` is as of `CountVectorizer` here.
    """

    def __init__(
        self,
        *,
        input: str = "content",  # noqa: A002 - scikit-learn's name
        encoding: str = "utf-8",
        decode_error: str = "strict",
        strip_accents: Any = None,
        lowercase: bool = True,
        preprocessor: Any = None,
        tokenizer: Any = None,
        analyzer: Any = "word",
        stop_words: Any = None,
        token_pattern: str | None = _TOKEN_PATTERN,
        ngram_range: tuple[int, int] = (1, 1),
        max_df: float = 1.0,
        min_df: float = 1,
        max_features: int | None = None,
        vocabulary: Any = None,
        binary: bool = False,
        dtype: Any = np.float64,
        norm: str | None = "l2",
        use_idf: bool = True,
        smooth_idf: bool = True,
        sublinear_tf: bool = False,
        memory_limit: int | str | None = None,
    ) -> None:
        PeerTfidf.__init__(
            self,
            input=input,
            encoding=encoding,
            decode_error=decode_error,
            strip_accents=strip_accents,
            lowercase=lowercase,
            preprocessor=preprocessor,
            tokenizer=tokenizer,
            analyzer=analyzer,
            stop_words=stop_words,
            token_pattern=token_pattern,
            ngram_range=ngram_range,
            max_df=max_df,
            min_df=min_df,
            max_features=max_features,
            vocabulary=vocabulary,
            binary=binary,
            dtype=dtype,
            norm=norm,
            use_idf=use_idf,
            smooth_idf=smooth_idf,
            sublinear_tf=sublinear_tf,
        )
        self.memory_limit = memory_limit

    _peer = PeerTfidf

    def fit(self, raw_documents: Any, y: Any = None) -> TfidfVectorizer:
        """Learn the vocabulary of texts and the weights of its terms."""
        self._fitted(raw_documents, rows=False)
        return self

    def fit_transform(self, raw_documents: Any, y: Any = None) -> Any:
        """Learn vocabulary and weights of texts and return their rows, a sparse matrix (texts, terms)."""
        return self._fitted(raw_documents, rows=True)

    def transform(self, raw_documents: Any) -> Any:
        """Weigh the known terms of texts; return a sparse matrix (texts, terms)."""
        check_is_fitted(self, msg="The TF-IDF vectorizer is not fitted")
        return super().transform(raw_documents)

    def _begin(self) -> None:
        self._check_params()
        self._tfidf = TfidfTransformer(
            norm=self.norm, use_idf=self.use_idf, smooth_idf=self.smooth_idf, sublinear_tf=self.sublinear_tf
        )

    def _learn(self, terms: Terms, num_documents: int) -> None:
        """Compute the idf of each term with the operations of scikit-learn's TfidfTransformer, in its type."""
        self._tfidf.n_features_in_ = len(terms.strings)
        if not self.use_idf:
            return
        dtype = np.dtype(self.dtype) if np.dtype(self.dtype) in (np.float32, np.float64) else np.dtype(np.float64)
        frequencies = terms.counts.astype(dtype)
        frequencies += float(self.smooth_idf)
        idf = np.full_like(frequencies, num_documents + int(self.smooth_idf))
        idf /= frequencies
        np.log(idf, out=idf)
        idf += 1.0
        self._tfidf.idf_ = idf

    def _finished(self, rows: Rows) -> Entries:
        data, indices, sizes = super()._finished(rows)
        indptr = np.zeros(len(sizes) + 1, np.int64)
        np.cumsum(sizes, out=indptr[1:])
        counts = csr_matrix((data, indices, indptr.astype(np.int32)), shape=(len(sizes), len(self.vocabulary_)))
        weighted = self._tfidf.transform(counts, copy=False)
        return weighted.data, weighted.indices, sizes


class HashingVectorizer(PeerHashing):  # type: ignore[misc]
    """`sklearn.feature_extraction.text.HashingVectorizer` by shardtrain's kernels.

    Parameters and methods are scikit-learn's, and `memory_limit` is as of `CountVectorizer` here.
    """

    def __init__(
        self,
        *,
        input: str = "content",  # noqa: A002 - scikit-learn's name
        encoding: str = "utf-8",
        decode_error: str = "strict",
        strip_accents: Any = None,
        lowercase: bool = True,
        preprocessor: Any = None,
        tokenizer: Any = None,
        stop_words: Any = None,
        token_pattern: str | None = _TOKEN_PATTERN,
        ngram_range: tuple[int, int] = (1, 1),
        analyzer: Any = "word",
        n_features: int = 1 << 20,
        binary: bool = False,
        norm: str | None = "l2",
        alternate_sign: bool = True,
        dtype: Any = np.float64,
        memory_limit: int | str | None = None,
    ) -> None:
        super().__init__(
            input=input,
            encoding=encoding,
            decode_error=decode_error,
            strip_accents=strip_accents,
            lowercase=lowercase,
            preprocessor=preprocessor,
            tokenizer=tokenizer,
            stop_words=stop_words,
            token_pattern=token_pattern,
            ngram_range=ngram_range,
            analyzer=analyzer,
            n_features=n_features,
            binary=binary,
            norm=norm,
            alternate_sign=alternate_sign,
            dtype=dtype,
        )
        self.memory_limit = memory_limit

    def transform(self, X: Any) -> Any:
        """Hash the n-grams of texts; return a sparse matrix (texts, n_features)."""
        _refuse_string(X)
        with opened_documents(X) as documents:
            head: list[Any] = []
            if _takes(self) and isinstance(self.n_features, Integral) and 1 <= int(self.n_features) <= MAX_COLUMNS:
                documents = iter(documents)
                head = list(islice(documents, 1))
            if not head:  # scikit-learn refuses to transform nothing
                return super().transform(documents)
            self._validate_ngram_range()
            self.build_analyzer()
            texts = _Splitting(self)
            settings = HashedSettings(**texts.settings(), max_features=int(self.n_features))
            prepared, signed = not texts.by_kernel, self.alternate_sign
            parts = in_order(
                lambda block: self._finished(hashed_sums(settings, block, prepared=prepared, signed=signed)),
                cut(texts(chain(head, documents)), UNIT_BYTES // settings.density),
                _resources(self),
            )
            return _matrix(self, parts, self.n_features)

    def fit_transform(self, X: Any, y: Any = None) -> Any:
        """Check the parameters, and transform texts as `transform` does."""
        return self.fit(X, y).transform(X)

    def _finished(self, found: Any) -> Entries:
        rows = by_column(found, found.keys)
        data = np.ones(len(rows.data), self.dtype) if self.binary else rows.data.astype(self.dtype)
        if self.norm is not None:
            indptr = found.indptr.astype(np.int32)
            values = csr_matrix((data, rows.indices, indptr), shape=(len(rows.sizes), self.n_features))
            data = normalize(values, norm=self.norm, copy=False).data
        return data, rows.indices, rows.sizes


def _takes(vectorizer: Any) -> bool:
    """Return whether the kernels can do what scikit-learn's methods would."""
    analyzer, span, words = vectorizer.analyzer, vectorizer.ngram_range, vectorizer.stop_words
    if not isinstance(analyzer, str) or analyzer not in _ANALYZERS:
        return False
    if getattr(vectorizer, "vocabulary", None) is not None:
        return False
    if analyzer == "word":
        if vectorizer.tokenizer is not None or vectorizer.token_pattern != _TOKEN_PATTERN:
            return False
        if isinstance(words, str) and words != "english":
            return False
        if not all(isinstance(word, str) for word in words or ()):
            return False
    if not isinstance(span, tuple) or len(span) != 2 or not all(isinstance(n, Integral) for n in span):
        return False
    if not 1 <= span[0] <= span[1] <= MAX_NGRAM:
        return False
    return all(
        inspect.getattr_static(type(vectorizer), name) is inspect.getattr_static(PeerCount, name) for name in _METHODS
    )


def _is_current(known: _Known | None, vectorizer: Any) -> bool:
    """Return whether the known terms are those of the vectorizer as it is now."""
    return (
        known is not None
        and known.vocabulary is vectorizer.vocabulary_
        and len(known.ids) == len(known.vocabulary)
        and known.analyzer == vectorizer.analyzer
    )


def _refuse_string(documents: Any) -> None:
    if isinstance(documents, str):
        raise ValueError(_STRING)


def _resources(vectorizer: Any) -> Resources:
    limit = vectorizer.memory_limit
    return Resources(memory_limit=None if limit is None else parse_size(limit))


@contextmanager
def opened_documents(documents: Any) -> Iterator[Iterable[Any]]:
    """Hold the texts of a file if its path is given, or of a table of one column; all else is as for scikit-learn."""
    if not isinstance(documents, os.PathLike):
        yield _only_column(documents) if is_table(documents) else documents
        return
    with scratch_folder() as scratch:
        source, _ = open_texts(Path(documents), TextOptions(), labels=(), class_names=(), scratch=scratch)
        units = plan_units(source, unit_bytes=UNIT_BYTES, advance=lambda size: None)
        yield (text for unit in units for text in read_unit(source, unit).texts)


def _only_column(table: Any) -> Iterator[str]:
    """Return the texts of a table of one column.

    Raises:
        TextsError: it has several, or none; the message has the right call.
    """
    names = getattr(table, "column_names", None)
    names = list(getattr(table, "columns", ()) if names is None else names)
    return checked_texts(table[names[0]] if len(names) == 1 else table, call="fit_transform")


def _matrix(vectorizer: Any, parts: Iterable[Entries], num_columns: int) -> Any:
    """Return rows as scikit-learn's form of sparse matrix, with arrays that are not copied."""
    data, indices, indptr = assemble(parts, _resources(vectorizer))
    made = csr_matrix((data, indices, indptr), shape=(len(indptr) - 1, num_columns), copy=False)
    return _aligned(made)
