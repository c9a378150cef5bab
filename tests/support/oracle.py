"""Compute the features of a build with scikit-learn, and generate texts to compare them on."""

from __future__ import annotations

import json
import tempfile
import warnings
from functools import partial
from pathlib import Path

import numpy as np
from hypothesis import assume
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2, f_classif

from shardtrain.loader.shards import Shards, open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.vectorize.fitted import load_vectorizer


class Oracle:
    """A scikit-learn vectorizer with SelectKBest; takes the options of a build and has their defaults."""

    def __init__(
        self,
        texts,
        labels,
        *,
        vectorizer="ngram",
        select="f_classif",
        max_features=20_000,
        min_df=2,
        max_df=1.0,
        sublinear_tf=False,
        **options,
    ):
        common = {"ngram_range": (1, 2), "strip_accents": "unicode", "decode_error": "replace", **options}
        if common["strip_accents"] == "none":
            common["strip_accents"] = None
        if "stop_words" in common:
            common["stop_words"] = list(common["stop_words"])
        kind = {"ngram": partial(TfidfVectorizer, sublinear_tf=sublinear_tf), "count": CountVectorizer}[vectorizer]
        limits = {"min_df": min_df, "max_df": max_df}
        with warnings.catch_warnings():  # constant features, 0/0 and unusual stop words are compared as well
            warnings.simplefilter("ignore")
            if select == "none":
                self._take_most_frequent(texts, max_features, common, limits, kind)
                self.selector = None
                x = self.vectorizer.fit_transform(texts)
                chosen = np.ones(x.shape[1], bool)
            else:
                self.vectorizer = kind(**common, **limits)
                x = self.vectorizer.fit_transform(texts)
                function = {"f_classif": f_classif, "chi2": chi2}[select]
                self.selector = SelectKBest(function, k=min(max_features, x.shape[1])).fit(x, labels)
                chosen = self.selector.get_support()
                self.scores = self.selector.scores_[chosen]
                x = self.selector.transform(x)
        self.x = x.astype(np.float32)
        self.terms = self.vectorizer.get_feature_names_out()[chosen].tolist()

    def _take_most_frequent(self, texts, max_features, common, limits, kind):
        """Select the most frequent terms as `max_features` does; of equal counts the first, as its sort is unstable."""
        counter = CountVectorizer(**common, **limits)
        totals = np.asarray(counter.fit_transform(texts).sum(axis=0)).ravel()
        order = np.argsort(-totals, kind="stable")
        best = np.sort(order[:max_features])
        self.scores = totals[best].astype(float)
        self.vectorizer = kind(**common, vocabulary=counter.get_feature_names_out()[best].tolist())
        if max_features >= len(totals) or totals[order[max_features - 1]] > totals[order[max_features]]:
            limited = kind(**common, **limits, max_features=max_features)
            x = limited.fit_transform(texts)
            np.testing.assert_allclose(x.toarray(), self.vectorizer.fit_transform(texts).toarray(), rtol=1e-14)

    def transform(self, texts):
        x = self.vectorizer.transform(texts)
        return (self.selector.transform(x) if self.selector else x).astype(np.float32)


def rows_by_document(split):
    """Return all rows of a split in document order, and their labels."""
    x, y = split.rows(0, split.num_examples)
    order = np.argsort(split.documents(0, split.num_examples), kind="stable")
    return (x.to_scipy() if hasattr(x, "to_scipy") else x)[order], np.asarray(y)[order]


def assert_same_rows(ours, theirs):
    theirs.sort_indices()
    np.testing.assert_array_equal(ours.indptr, theirs.indptr)
    np.testing.assert_array_equal(ours.indices, theirs.indices)
    np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-6, atol=0)


def check_ngrams(shards: Shards, oracle: Oracle, train_labels, texts, tested=None):
    vectorizer = load_vectorizer(shards.vectorizer_path)
    assert vectorizer.terms == oracle.terms
    np.testing.assert_array_equal(vectorizer.arrays["scores"], oracle.scores)  # bit for bit
    x, y = rows_by_document(shards.train)
    assert_same_rows(x, oracle.x)
    np.testing.assert_array_equal(y, train_labels)
    transformed = vectorizer.transform(texts).to_scipy()
    assert_same_rows(transformed, oracle.transform(texts))
    if tested:
        x, _ = rows_by_document(shards.test)
        assert_same_rows(x, oracle.transform(tested))


# Letters whose lower case is longer, depends on the context or is missing; accents in all normalization forms; word
# characters of Python; filter characters of Keras; all kinds of white space; control characters.
NASTY = "aAbB éÉe\u0301ßẞİıΣσςǅﬁ①२ª\u200d\u00ad_-.,'\"\\\t\n\r\x00\x1c\x85\u2028\u3000中文ñÅℵ𝔸🙂\u0345\ud800"
SURROGATES = dict.fromkeys(range(55296, 57344), "�")  # JSON may contain lone surrogates, which readers replace
TEXTS = st.lists(
    st.one_of(
        st.text(st.sampled_from(NASTY), max_size=30),
        st.lists(st.sampled_from(["ab", "cd", "ef", "ab cd", "gh"]), max_size=8).map(" ".join),
        st.text(st.characters(), max_size=12),
    ),
    min_size=2,
    max_size=14,
)


def write_texts(folder: Path, texts, labels) -> Path:
    lines = [json.dumps({"label": label, "text": text}) for label, text in zip(labels, texts, strict=True)]
    (folder / "texts.jsonl").write_text("\n".join(lines) + "\n")
    return folder / "texts.jsonl"


def check_any_text(texts, seed, options):
    """Build shards of the texts and compare them with the oracle; examples without any term are rejected."""
    labels = [f"class {(i * 7 + seed) % 3 if i > 1 else i}" for i in range(len(texts))]
    read = [text.translate(SURROGATES) for text in texts]
    try:
        oracle = Oracle(read, labels, **options)
    except ValueError as error:  # no term remains
        known = ("terms remain", "empty vocabulary", "max_df corresponds")
        assume(not any(reason in str(error) for reason in known))
        raise
    with tempfile.TemporaryDirectory() as name:
        corpus = write_texts(Path(name), texts, labels)
        build(corpus, Path(name, "shards"), BuildOptions(validation_fraction=0.0, workers=1, **options))
        with open_shards(Path(name, "shards")) as shards:
            check_ngrams(shards, oracle, [sorted(set(labels)).index(label) for label in labels], read)
