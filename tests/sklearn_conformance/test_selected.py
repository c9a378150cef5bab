"""Laws of vectorizing and selecting in one: it is scikit-learn's pipeline of both, and reads its texts once."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.feature_selection import SelectKBest, chi2, f_classif
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from shardtrain.errors import LabelError, UsageError
from shardtrain.sklearn import SelectedTfidfVectorizer

SCORES = {"f_classif": f_classif, "chi2": chi2}
WORDS = ["oven", "cake", "flour", "rook", "pawn", "mate", "rain", "wind", "cloud", "Gâteau", "the", "a2"]


def drawn(seed: int = 0, rows: int = 400) -> tuple[list[str], list[str]]:
    """Texts, and classes that some of their words depend on."""
    rng = np.random.default_rng(seed)
    classes = rng.integers(0, 3, rows)
    texts = [
        " ".join(WORDS[3 * c + rng.integers(3)] if rng.random() < 0.4 else rng.choice(WORDS) for _ in range(9))
        for c in classes
    ]
    return texts, [f"class {c}" for c in classes]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"k": 7, "score_func": "chi2"},
        {"k": 10_000},
        {"analyzer": "char_wb", "ngram_range": (2, 3), "k": 50},
        {"sublinear_tf": True, "binary": True, "strip_accents": None, "min_df": 0.01, "max_df": 0.5},
        {"stop_words": ("the",), "k": 9},
    ],
)
def test_it_is_the_pipeline_of_scikit_learn(options: dict[str, Any]) -> None:
    texts, y = drawn()
    ours = SelectedTfidfVectorizer(**{"k": 30, **options})
    found = ours.fit_transform(texts, y)
    theirs = {name: value for name, value in options.items() if name not in ("k", "score_func")}
    theirs = {"ngram_range": (1, 2), "min_df": 2, "strip_accents": "unicode", **theirs}
    theirs["stop_words"] = list(theirs.get("stop_words", ())) or None
    vectorizer = TfidfVectorizer(**theirs)
    every = vectorizer.fit_transform(texts)
    k = min(ours.k, every.shape[1])
    selector = SelectKBest(SCORES[ours.score_func], k=k)
    expected = selector.fit_transform(every, y)
    names = vectorizer.get_feature_names_out()[selector.get_support()]
    assert ours.get_feature_names_out().tolist() == names.tolist()
    np.testing.assert_allclose(found.toarray(), expected.toarray(), rtol=1e-6)
    np.testing.assert_allclose(ours.scores_, selector.scores_[selector.get_support()], rtol=1e-6)
    others = drawn(seed=5)[0]
    expected = selector.transform(vectorizer.transform(others))
    np.testing.assert_allclose(ours.transform(others).toarray(), expected.toarray(), rtol=1e-6)


def test_texts_are_read_once_from_any_series_and_from_files(tmp_path: Path) -> None:
    texts, y = drawn()
    expected = SelectedTfidfVectorizer(k=20).fit(texts, y)
    path = tmp_path / "texts.txt"
    path.write_text("".join(f"{text}\n" for text in texts))
    for given in (iter(texts), np.array(texts), path):
        found = SelectedTfidfVectorizer(k=20).fit(given, iter(y))
        assert found.get_feature_names_out().tolist() == expected.get_feature_names_out().tolist()
    assert (found.transform(path) != expected.transform(texts)).nnz == 0
    assert found.transform([]).shape == (0, 20)


def test_it_is_an_estimator_among_others() -> None:
    texts, y = drawn()
    model = make_pipeline(SelectedTfidfVectorizer(k=20), LogisticRegression()).fit(texts, y)
    copy = pickle.loads(pickle.dumps(model))
    assert copy.predict(texts).tolist() == model.predict(texts).tolist()
    assert model.score(texts, y) > 0.7
    assert clone(model[0]).get_params() == model[0].get_params()


def test_what_does_not_fit_is_refused() -> None:
    texts, y = drawn()
    with pytest.raises(UsageError, match="requires y to be passed"):
        SelectedTfidfVectorizer().fit(texts)
    with pytest.raises(UsageError, match="more texts than the 3 classes of y"):
        SelectedTfidfVectorizer().fit(texts, y[:3])
    with pytest.raises(UsageError, match="more classes in y than the 400 texts"):
        SelectedTfidfVectorizer().fit(texts, [*y, "class 0"])
    with pytest.raises(LabelError):
        SelectedTfidfVectorizer().fit(texts, ["one"] * len(texts))
    with pytest.raises(UsageError, match="select"):
        SelectedTfidfVectorizer(score_func="mutual_info").fit(texts, y)
