"""The classes in place of scikit-learn's vectorizers give its matrices in every bit, and are used as its are."""

from __future__ import annotations

import copy
import gc
import io
import mmap
import pickle
import subprocess
import sys

import numpy as np
import pandas
import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.feature_extraction import text as peers
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.svm import LinearSVC
from support.hashes import shortened_hashes

import shardtrain.sklearn as ours
from shardtrain.errors import TextsError, UsageError
from shardtrain.pipeline import term_matrix

NAMES = ("CountVectorizer", "TfidfVectorizer", "HashingVectorizer")
TEXTS = [
    "The first film is about a Café.",
    "the second FILM, the film of the year",
    "",
    "ΣΑΣ  ÉTÉ\tétude e\u0301t ﬁlm \ud800 x\x00y",
    "the of and",
    "a b c dd ee dd ee 12 3456",
]
WORDS = st.sampled_from(
    ["the", "of", "film", "Film", "été", "ΣΑΣ", "a", "x", "12", "ﬁn", "don't", "日本語", " ", "\n", "\ud800"]
)
DOCUMENTS = st.lists(st.lists(WORDS, max_size=8).map(" ".join) | st.text(max_size=12), min_size=1, max_size=8)
SPANS = st.tuples(st.integers(1, 3), st.integers(0, 2)).map(lambda pair: (pair[0], sum(pair)))
LIMITS = st.one_of(st.integers(1, 3), st.floats(0.0, 1.0))
SPLITTING = {
    "analyzer": st.sampled_from(["word", "char", "char_wb"]),
    "ngram_range": SPANS,
    "strip_accents": st.sampled_from([None, "ascii", "unicode"]),
    "lowercase": st.booleans(),
    "stop_words": st.sampled_from([None, "english", ["the", "été", "film"]]),
    "binary": st.booleans(),
}
FITTED = {"min_df": LIMITS, "max_df": LIMITS, "max_features": st.sampled_from([None, 1, 3, 10])}
OWN = {
    "CountVectorizer": {"dtype": st.sampled_from([np.int64, np.int32, np.float32, np.float64]), **FITTED},
    "TfidfVectorizer": {
        "dtype": st.sampled_from([np.float32, np.float64]),
        "norm": st.sampled_from(["l1", "l2", None]),
        "use_idf": st.booleans(),
        "smooth_idf": st.booleans(),
        "sublinear_tf": st.booleans(),
        **FITTED,
    },
    "HashingVectorizer": {
        "dtype": st.sampled_from([np.float32, np.float64]),
        "norm": st.sampled_from(["l1", "l2", None]),
        "n_features": st.sampled_from([1, 2, 7, 1 << 20]),
        "alternate_sign": st.booleans(),
    },
}


def assert_equal(got, expected):
    """The matrices are equal in type, in the order of their entries and in every bit."""
    assert type(got) is type(expected)
    assert got.shape == expected.shape
    for name in ("data", "indices", "indptr"):
        mine, theirs = getattr(got, name), getattr(expected, name)
        assert mine.dtype == theirs.dtype, name
        assert np.array_equal(mine, theirs), name


def outcome(function, *arguments):
    """What a call gives, or its error."""
    try:
        return function(*arguments)
    except (ValueError, NotFittedError, StopIteration) as error:
        return type(error), str(error)


@pytest.mark.filterwarnings("ignore:Your stop_words may be inconsistent", "ignore:The parameter 'stop_words'")
@pytest.mark.filterwarnings("ignore:The parameter 'token_pattern'", "ignore:divide by zero")
@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_every_setting_gives_scikit_learns_matrices(name, data):
    chosen = data.draw(st.fixed_dictionaries({}, optional={**SPLITTING, **OWN[name]}))
    documents, others = data.draw(DOCUMENTS), data.draw(DOCUMENTS)
    if name == "HashingVectorizer":  # scikit-learn's fails on these
        documents, others = ([text.replace("\ud800", "") for text in texts] for texts in (documents, others))
    mine, theirs = getattr(ours, name)(**chosen), getattr(peers, name)(**chosen)
    got, expected = outcome(mine.fit_transform, iter(documents)), outcome(theirs.fit_transform, documents)
    if isinstance(expected, tuple):
        assert got == expected
        return
    assert_equal(got, expected)
    assert_equal(mine.transform(others), theirs.transform(others))
    if name != "HashingVectorizer":
        assert mine.vocabulary_ == theirs.vocabulary_
        assert list(mine.get_feature_names_out()) == list(theirs.get_feature_names_out())
        assert [list(row) for row in mine.inverse_transform(got)] == [
            list(r) for r in theirs.inverse_transform(expected)
        ]
    if name == "TfidfVectorizer" and theirs.use_idf:
        assert np.array_equal(mine.idf_, theirs.idf_)
        assert mine.idf_.dtype == theirs.idf_.dtype


@pytest.fixture
def small_units(monkeypatch):
    """Units of a few texts, as a corpus of many megabytes has many units."""
    monkeypatch.setattr(term_matrix, "UNIT_BYTES", 600)
    monkeypatch.setattr("shardtrain.sklearn.vectorizers.UNIT_BYTES", 600)


def is_mapped(array):
    """Whether an array is a view of a mapped file."""
    while isinstance(array, np.ndarray):
        array = array.base
    return isinstance(array, mmap.mmap)


@pytest.mark.parametrize("limit", [None, "300MiB"], ids=["in memory", "out of core"])
@pytest.mark.parametrize("name", NAMES)
def test_many_units_give_the_same_in_memory_and_out_of_core(small_units, name, limit):
    rng = np.random.default_rng(5)
    texts = [" ".join(f"w{number}" for number in rng.zipf(1.5, 20) % 500) for _ in range(150)]
    mine, theirs = getattr(ours, name)(ngram_range=(1, 2), memory_limit=limit), getattr(peers, name)(ngram_range=(1, 2))
    got, expected = mine.fit_transform(text for text in texts), theirs.fit_transform(texts)
    assert_equal(got, expected)
    assert_equal(mine.transform(texts[::-1]), theirs.transform(texts[::-1]))
    assert_equal(
        getattr(ours, name)(ngram_range=(1, 2), memory_limit=limit).fit(texts).transform(texts[:9]),
        theirs.transform(texts[:9]),
    )
    assert (is_mapped(got.data), is_mapped(got.indices)) == (limit is not None,) * 2
    if limit:  # the file goes with the matrix, not with the vectorizer
        rows = got[:3]
        del mine, got
        gc.collect()
        assert_equal(rows, expected[:3])


def test_the_columns_of_more_than_2_31_entries_are_int64(monkeypatch):
    monkeypatch.setattr(term_matrix, "_MAX_INT32", 5)
    monkeypatch.setattr(term_matrix, "_PIECE", 4)
    parts = [(np.arange(7.0), np.arange(7, dtype=np.int32), np.array([3, 0, 4])) for _ in range(2)]
    for limit in (None, 1 << 30):
        data, indices, indptr = term_matrix.assemble(iter(parts), term_matrix.Resources(memory_limit=limit))
        assert (indices.dtype, indptr.dtype) == (np.int64, np.int64)
        assert is_mapped(indices) is (limit is not None)
        assert data.tolist() == indices.tolist() == 2 * list(range(7))
        assert indptr.tolist() == [0, 3, 3, 7, 10, 10, 14]


@pytest.mark.parametrize("name", NAMES[:2])
def test_fitted_vectorizers_are_pickled_copied_and_cloned(name):
    mine = getattr(ours, name)(ngram_range=(1, 2), memory_limit="300MiB").fit(TEXTS)
    expected = mine.transform(TEXTS)
    for again in (pickle.loads(pickle.dumps(mine)), copy.deepcopy(mine), copy.copy(mine)):
        assert again.get_params() == mine.get_params()
        assert again._known.vocabulary is again.vocabulary_  # so the kernels are used
        assert_equal(again.transform(TEXTS), expected)
    fresh = clone(mine)
    assert fresh.get_params() == mine.get_params()
    with pytest.raises(NotFittedError):
        fresh.transform(TEXTS)


def test_one_pickled_by_another_version_goes_on_with_scikit_learns_code(monkeypatch):
    mine = ours.TfidfVectorizer().fit(TEXTS)
    pickled, expected = pickle.dumps(mine), mine.transform(TEXTS)
    monkeypatch.setattr("shardtrain.sklearn.vectorizers.__version__", "9.9")
    again = pickle.loads(pickled)
    assert again._known is None
    assert_equal(again.transform(TEXTS), expected)


def test_parameters_set_after_fitting_count_as_in_scikit_learn():
    mine, theirs = ours.CountVectorizer().fit(TEXTS), peers.CountVectorizer().fit(TEXTS)
    for changes in ({"binary": True}, {"lowercase": False}, {"analyzer": "char"}, {"ngram_range": (1, 2)}):
        assert_equal(mine.set_params(**changes).transform(TEXTS), theirs.set_params(**changes).transform(TEXTS))


def test_a_vocabulary_that_a_program_replaces_is_used():
    mine, theirs = ours.TfidfVectorizer().fit(TEXTS), peers.TfidfVectorizer().fit(TEXTS)
    for each in (mine, theirs):
        each.vocabulary_ = {term: len(each.vocabulary_) - 1 - column for term, column in each.vocabulary_.items()}
    assert_equal(mine.transform(TEXTS), theirs.transform(TEXTS))


class Backwards(ours.CountVectorizer):
    def build_tokenizer(self):
        return lambda text: text[::-1].split()


@pytest.mark.filterwarnings("ignore:The parameter 'token_pattern'")
@pytest.mark.parametrize(
    "chosen",
    [
        {"tokenizer": str.split},
        {"analyzer": str.split},
        {"token_pattern": r"\w"},
        {"vocabulary": ["film", "the"]},
        {"preprocessor": str.swapcase},
        {"strip_accents": str.title},
        {"strip_accents": "ascii"},
    ],
    ids=lambda chosen: next(iter(chosen)),
)
@pytest.mark.parametrize("name", NAMES)
def test_callables_and_other_patterns_give_the_same(name, chosen):
    if name == "HashingVectorizer" and "vocabulary" in chosen:
        pytest.skip("it has none")
    mine, theirs = getattr(ours, name)(**chosen), getattr(peers, name)(**chosen)
    texts = [text.replace("\ud800", "") for text in TEXTS]
    assert_equal(mine.fit_transform(texts), theirs.fit_transform(texts))
    assert_equal(mine.transform(texts), theirs.transform(texts))


def test_methods_of_a_subclass_are_used():
    assert set(Backwards().fit(["ab cd"]).vocabulary_) == {"ba", "dc"}


@pytest.mark.parametrize("name", NAMES)
def test_bytes_and_files_are_decoded(name, tmp_path):
    (tmp_path / "a.txt").write_bytes("the Café".encode("latin-1"))
    for given_as, documents in {
        "content": lambda: ["the Café".encode("latin-1")],
        "file": lambda: [io.BytesIO("the Café".encode("latin-1"))],
        "filename": lambda: [str(tmp_path / "a.txt")],
    }.items():
        chosen = {"input": given_as, "encoding": "latin-1"}
        got = getattr(ours, name)(**chosen).fit_transform(documents())
        assert_equal(got, getattr(peers, name)(**chosen).fit_transform(documents()))


@pytest.mark.parametrize("name", NAMES)
def test_a_path_is_a_file_of_texts(name, tmp_path):
    texts = ["the first film", "the second, or a film", "nothing"]
    (tmp_path / "texts.txt").write_text("\n".join(texts) + "\n")
    pandas.DataFrame({"text": texts}).to_csv(tmp_path / "texts.csv", index=False)
    for file in ("texts.txt", "texts.csv"):
        got = getattr(ours, name)().fit_transform(tmp_path / file)
        assert_equal(got, getattr(peers, name)().fit_transform(texts))


@pytest.mark.parametrize("name", NAMES)
def test_a_table_of_one_column_is_its_texts(name):
    texts = ["the first film", "the second"]
    expected = getattr(peers, name)().fit_transform(texts)
    for table in (pandas.DataFrame({"body": texts}), pyarrow.table({"body": texts})):
        assert_equal(getattr(ours, name)().fit_transform(table), expected)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_no_series_of_texts_is_refused(name):
    with pytest.raises(TextsError, match=r"pass one column: fit_transform\(table\['text'\]\)"):
        getattr(ours, name)().fit_transform(pandas.DataFrame({"label": [1], "text": ["a film"]}))
    for wrong in ("a text", ["a text", None], ["a text", np.nan], ["a text", 3], 7):
        errors = []
        for module in (ours, peers):
            with pytest.raises((ValueError, AttributeError, TypeError)) as caught:
                getattr(module, name)().fit_transform(wrong)
            errors.append((caught.type, str(caught.value)))
        assert errors[0] == errors[1]


def test_pipelines_and_searches_take_them():
    texts, labels = ["good film", "bad film", "good play", "bad play"] * 5, [1, 0, 1, 0] * 5
    union = FeatureUnion([("words", ours.TfidfVectorizer()), ("hashes", ours.HashingVectorizer(n_features=16))])
    model = make_pipeline(union, LinearSVC()).fit(texts, labels)
    assert list(model.predict(["a good day", "a bad day"])) == [1, 0]
    search = GridSearchCV(
        make_pipeline(ours.TfidfVectorizer(memory_limit="300MiB"), LinearSVC()),
        {"tfidfvectorizer__ngram_range": [(1, 1), (1, 2)]},
        cv=2,
    )
    assert search.fit(texts, labels).score(texts, labels) == 1


@pytest.mark.parametrize("bits", [0, 3, 8])
@pytest.mark.parametrize("name", ["CountVectorizer", "TfidfVectorizer"])
@settings(max_examples=8, deadline=None)
@given(texts=DOCUMENTS, others=DOCUMENTS, analyzer=st.sampled_from(["word", "char_wb"]))
def test_terms_with_one_hash_are_two_terms(name, bits, texts, others, analyzer):
    texts = ["word other", *texts]
    peer = getattr(peers, name)(analyzer=analyzer, ngram_range=(1, 2))
    with shortened_hashes(bits), pytest.MonkeyPatch.context() as patch:
        patch.setattr(term_matrix, "UNIT_BYTES", 20)
        mine = getattr(ours, name)(analyzer=analyzer, ngram_range=(1, 2))
        assert_equal(mine.fit_transform(iter(texts)), peer.fit_transform(texts))
        assert mine.vocabulary_ == peer.vocabulary_
        for each in (mine, pickle.loads(pickle.dumps(mine))):
            assert_equal(each.transform(others), peer.transform(others))


@pytest.mark.parametrize(
    "wrong",
    [{"stop_words": "german"}, {"ngram_range": (2, 1)}, {"ngram_range": 3}, {"strip_accents": "no"}, {"min_df": 0}],
    ids=str,
)
@pytest.mark.parametrize("name", NAMES)
def test_parameters_out_of_range_are_refused_as_by_scikit_learn(name, wrong):
    if name == "HashingVectorizer" and "min_df" in wrong:
        pytest.skip("it has none")
    outcomes = [outcome(getattr(module, name)(**wrong).fit_transform, TEXTS[:2]) for module in (ours, peers)]
    assert isinstance(outcomes[1], tuple)
    assert outcomes[0] == outcomes[1]


@pytest.mark.parametrize("name", NAMES)
def test_no_texts_are_what_scikit_learn_says_of_them(name):
    documents = ["the film", "the play"]
    mine, theirs = getattr(ours, name)().fit(documents), getattr(peers, name)().fit(documents)
    for function in ("fit_transform", "transform"):
        got, expected = (outcome(getattr(each, function), []) for each in (mine, theirs))
        if isinstance(expected, tuple):
            assert got == expected
        else:
            assert_equal(got, expected)


def test_the_kernels_hash(monkeypatch):
    monkeypatch.setattr("sklearn.feature_extraction.text.FeatureHasher.transform", None)
    hashed = ours.HashingVectorizer(alternate_sign=False, norm=None).transform(TEXTS)
    assert hashed.sum() == ours.CountVectorizer().fit_transform(TEXTS).sum()


def test_a_memory_limit_that_is_too_small_is_refused(monkeypatch):
    with pytest.raises(UsageError, match="memory_limit 100MiB: at least 256MiB"):
        ours.TfidfVectorizer(memory_limit="100MiB").fit(TEXTS)
    with pytest.raises(UsageError, match="'little' is not a size"):
        ours.HashingVectorizer(memory_limit="little").transform(TEXTS)
    monkeypatch.setattr(term_matrix, "TERM_BYTES", 10 << 20)
    refused = r"the \d+ terms that occur in as many documents as min_df and max_df .* memory_limit has room for .* MB;"
    with pytest.raises(ValueError, match=refused):
        ours.TfidfVectorizer(memory_limit="300MiB", analyzer="char").fit(TEXTS)
    monkeypatch.setattr(term_matrix, "TERM_BYTES", 44 << 20)  # two of them fit, but not with these characters
    with pytest.raises(ValueError, match=r"the 2 terms .* need 102\.8 MB, memory_limit has room for 94\.4 MB;"):
        ours.TfidfVectorizer(memory_limit="256MiB").fit(["word " + "x" * (10 << 20)])


def test_without_scikit_learn_it_says_what_to_install():
    script = "import sys; sys.modules['sklearn'] = None; import shardtrain.sklearn"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert "install it with `pip install 'shardtrain[sklearn]'`" in done.stderr.splitlines()[-1]
