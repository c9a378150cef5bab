"""Laws of the scikit-learn estimator: its own checks pass, and texts, numbers and shards give what `fit` gives."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from sklearn.utils.estimator_checks import estimator_checks_generator
from support.topics import EXPECTED, TEXTS, TOPICS, write_corpus

import shardtrain
from shardtrain.errors import LabelError, ModelError, UsageError
from shardtrain.models.options import MlpOptions
from shardtrain.sklearn import NOT_APPLICABLE, ShardClassifier, held_out

QUICK: dict[str, Any] = {"epochs": 60, "batch_size": 16, "learning_rate": 0.02, "patience": 8, "units": 16}
FAST = (  # a few of scikit-learn's checks, in every run of the tests; the others are slow
    "check_parameters_default_constructible",
    "check_no_attributes_set_in_init",
    "check_fit_score_takes_y",
    "check_dict_unchanged",
    "check_n_features_in",
)


def name_of(check: Any) -> str:
    return str(getattr(check, "func", check).__name__)


CHECKS = [check for _, check in estimator_checks_generator(ShardClassifier(**QUICK))]


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "check",
    [pytest.param(each, id=name_of(each), marks=() if name_of(each) in FAST else pytest.mark.slow) for each in CHECKS],
)
def test_it_passes_scikit_learns_checks(check: Any) -> None:
    if name_of(check) in NOT_APPLICABLE:
        pytest.skip(NOT_APPLICABLE[name_of(check)])
    # The few of every run look at attributes and at what is refused, not at what was learned.
    check(ShardClassifier(**QUICK | {"epochs": 2} if name_of(check) in FAST else QUICK))


def test_the_checks_that_are_named_exist() -> None:
    assert {*FAST, *NOT_APPLICABLE} <= {name_of(check) for check in CHECKS}


def corpus_of(path: Path) -> tuple[list[str], list[str]]:
    """The demo topics as texts and names."""
    import csv

    with open(path, newline="") as file:
        rows = list(csv.reader(file))
    return [", ".join(row[1:]) for row in rows], [list(TOPICS)[int(row[0]) - 1] for row in rows]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("classifier") / "corpus", tuple(TOPICS))


@pytest.fixture(scope="module")
def trained(corpus: Path) -> ShardClassifier:
    return ShardClassifier(**QUICK).fit(*corpus_of(corpus / "train.csv"))


def test_texts_are_classified_and_nothing_of_it_is_left_on_disk(trained: ShardClassifier, corpus: Path) -> None:
    assert trained.predict(TEXTS).tolist() == EXPECTED
    np.testing.assert_allclose(trained.predict_proba(np.array(TEXTS)).sum(axis=1), 1, rtol=1e-5)
    texts, names = corpus_of(corpus / "test.csv")
    assert trained.score(texts, names) > 0.9
    assert trained.score(texts, names) == np.mean(trained.predict(texts) == np.array(names))
    assert not trained._run.path.exists()


def test_a_pickled_one_says_the_same(trained: ShardClassifier) -> None:
    again = pickle.loads(pickle.dumps(trained))
    np.testing.assert_array_equal(again.predict_proba(TEXTS), trained.predict_proba(TEXTS))
    assert not hasattr(clone(trained), "classes_")


def test_finished_shards_are_trained_on_and_scored(corpus: Path, tmp_path: Path) -> None:
    shards = shardtrain.build(corpus, tmp_path / "shards", workers=1)
    found = ShardClassifier(**QUICK).fit(shards)
    run = shardtrain.fit(
        shards,
        out=tmp_path / "run",
        seed=1,
        mlp=MlpOptions(units=16),
        **{name: QUICK[name] for name in ("epochs", "batch_size", "learning_rate", "patience")},
    )
    np.testing.assert_array_equal(found.predict_proba(TEXTS), run.predict(TEXTS).probabilities)
    assert found.score(tmp_path / "shards") == pytest.approx(run.metrics["val_accuracy"], abs=1e-6)
    assert len(found.predict(shards)) == shards.validation.num_examples
    with pytest.raises(UsageError, match="omit y"):
        found.fit(shards, [1])


def test_shards_of_another_vectorizer_are_refused(trained: ShardClassifier, corpus: Path, tmp_path: Path) -> None:
    shards = shardtrain.build(corpus, tmp_path / "shards", workers=1)
    with pytest.raises(ModelError, match="another vectorizer"):
        trained.score(shards)
    with pytest.raises(UsageError, match="give texts"):
        trained.predict(np.zeros((2, 3)))


def test_sparse_rows_give_a_sparse_model_and_are_left_as_they_are(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    y = np.repeat(["a", "b", "c"], 40)
    x = scipy.sparse.csr_matrix(
        rng.random((120, 30)) * (rng.random((120, 30)) < 0.2) + np.eye(30)[np.repeat([1, 5, 9], 40)]
    )
    before = x.copy()
    found = ShardClassifier(**QUICK, folder=tmp_path).fit(x, y)
    assert found.score(x, y) > 0.9
    assert (x != before).nnz == 0
    assert shardtrain.Run.load(tmp_path / "run").description.kind == "ngram"


@pytest.mark.slow
def test_it_works_in_cross_validation(corpus: Path) -> None:
    texts, names = corpus_of(corpus / "train.csv")
    assert cross_val_score(ShardClassifier(**QUICK), np.array(texts, object), names, cv=2).min() > 0.8


@pytest.mark.parametrize(
    ("counts", "expected"),
    [((40, 20, 10), (4, 2, 1)), ((4, 3), (1, 0)), ((1, 1), (1, 1)), ((1, 9), (0, 1))],
    ids=["a share of each class", "at least one", "all of it where there is no other way", "never the only one"],
)
def test_what_is_held_out(counts: tuple[int, ...], expected: tuple[int, ...]) -> None:
    codes = np.repeat(np.arange(len(counts)), counts)
    held = held_out(codes, 0.1, seed=3)
    assert tuple(np.bincount(codes[held], minlength=len(counts))) == expected
    np.testing.assert_array_equal(held, held_out(codes, 0.1, seed=3))


@pytest.mark.parametrize(
    ("texts", "names", "error", "said"),
    [
        (["oven", "mast"], None, UsageError, "requires y"),
        (["oven", "mast"], ["a"], ValueError, "inconsistent numbers of samples"),
        (["oven oven"] * 9, ["a"] * 9, LabelError, "at least two classes"),
    ],
    ids=["no classes", "too few", "one class"],
)
def test_texts_that_cannot_be_trained_on_are_refused(
    texts: list[str], names: Any, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        ShardClassifier(**QUICK).fit(texts, names)
