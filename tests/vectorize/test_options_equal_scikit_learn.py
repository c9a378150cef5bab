"""Every option of n-gram features gives scikit-learn's features: same columns, same values, same scores and ties."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import HashingVectorizer
from support.comparing import assert_nothing_published
from support.oracle import SURROGATES, TEXTS, Oracle, assert_same_rows, check_any_text, check_ngrams, rows_by_document

from shardtrain.cli.main import main
from shardtrain.errors import UsageError, VectorizerError
from shardtrain.loader.shards import open_shards
from shardtrain.pipeline.build import build
from shardtrain.pipeline.options import BuildOptions
from shardtrain.report.summary import summarize_shards
from shardtrain.report.terminal import render
from shardtrain.vectorize.fitted import load_vectorizer
from shardtrain.vectorize.hashed import hashed_rows
from shardtrain.vectorize.indexing import idle_stop_words
from shardtrain.vectorize.options import read_stop_words
from shardtrain.vectorize.settings import HashedSettings, NgramSettings, parse_settings, settings_record

STOP_WORDS = ("the", "of", "and", "in", "is", "to", "a", "The", "don't", "", "é", "film")
EACH = {
    "sublinear": {"sublinear_tf": True},
    "binary": {"binary": True},
    "binary sublinear chi2": {"binary": True, "sublinear_tf": True, "select": "chi2"},
    "max_df": {"max_df": 50, "min_df": 0.001},
    "proportions": {"max_df": 0.02, "min_df": 3},
    "stop words": {"stop_words": STOP_WORDS, "ngram_range": (1, 3)},
    "chi2": {"select": "chi2"},
    "most frequent": {"select": "none"},
    "characters": {"analyzer": "char", "ngram_range": (1, 4)},
    "characters within words": {"analyzer": "char_wb", "ngram_range": (3, 5), "select": "chi2", "sublinear_tf": True},
    "characters, most frequent": {"analyzer": "char_wb", "ngram_range": (2, 3), "select": "none"},
    "accents": {"strip_accents": "none"},
    "accents of characters": {"strip_accents": "none", "analyzer": "char_wb", "ngram_range": (2, 4)},
    "counts": {"vectorizer": "count"},
    "counts chi2": {"vectorizer": "count", "select": "chi2", "binary": True},
    "counts most frequent": {"vectorizer": "count", "select": "none", "max_df": 0.3},
}
PARTS = {
    "ag_news": ("train.csv", slice(600)),
    "dbpedia": ("train.csv", slice(0, None, 56)),
    "mr": ("all.csv", slice(0, None, 28)),
}


@pytest.fixture(scope="module")
def part(request, data, read_csv):
    """Classes from 0 and texts of a part of a real corpus, and texts that are not in it."""
    name, chosen = PARTS[request.param]
    labels, texts = read_csv(data / request.param / name)
    return [int(label) - 1 for label in labels[chosen]], texts[chosen], texts[4001:4600:3]


# Of these another one has all options, so that they are for `make soak`.
CONTAINED = ("sublinear", "binary", "chi2", "counts chi2", "accents of characters", "words with accents", "characters")


def on_one_corpus(cases):
    """Each case on every corpus: in turn on one of them in every run of the tests, on the others in `make soak`."""
    return [
        pytest.param(
            corpus, case, marks=() if number % len(PARTS) == place and case not in CONTAINED else pytest.mark.slow
        )
        for place, corpus in enumerate(PARTS)
        for number, case in enumerate(cases)
    ]


@pytest.mark.heavy
@pytest.mark.parametrize(("part", "name"), on_one_corpus(EACH), indirect=["part"])
def test_each_option_on_a_real_corpus(name, part, write_csv, tmp_path):
    classes, texts, others = part
    options = {"max_features": 1500, **EACH[name]}
    corpus = write_csv("corpus.csv", zip(map(str, classes), texts, strict=True))
    build(corpus, tmp_path / "out", BuildOptions(validation_fraction=0.0, unescape=False, header=False, **options))
    with open_shards(tmp_path / "out") as shards:
        check_ngrams(shards, Oracle(texts, classes, **options), classes, others)


LIMITS = st.one_of(st.integers(1, 3), st.floats(0.05, 1.0))


@pytest.mark.heavy
@settings(max_examples=12, deadline=None, derandomize=True)
@given(texts=TEXTS, seed=st.integers(0, 3), drawn=st.data())
def test_all_options_together_on_any_text(texts, seed, drawn):
    check_any_text(texts, seed, draw_options(drawn))


@pytest.mark.slow
@settings(max_examples=1000, deadline=None)
@given(texts=TEXTS, seed=st.integers(0, 3), drawn=st.data())
def test_all_options_together_on_many_texts(texts, seed, drawn):
    check_any_text(texts, seed, draw_options(drawn))


def draw_options(drawn):
    analyzer = drawn.draw(st.sampled_from(["word", "char", "char_wb"]))
    words = st.sets(st.sampled_from(["ab", "cd", "ef", "e", "aa", "ss", "AB", ""]))
    options = {
        "analyzer": analyzer,
        "strip_accents": drawn.draw(st.sampled_from(["unicode", "none"])),
        "vectorizer": drawn.draw(st.sampled_from(["ngram", "count"])),
        "select": drawn.draw(st.sampled_from(["f_classif", "chi2", "none"])),
        "ngram_range": drawn.draw(st.sampled_from([(1, 1), (1, 2), (2, 3), (3, 5)])),
        "max_features": drawn.draw(st.integers(1, 12)),
        "min_df": drawn.draw(LIMITS),
        "max_df": drawn.draw(st.one_of(st.just(1.0), LIMITS)),
        "binary": drawn.draw(st.booleans()),
        "stop_words": tuple(drawn.draw(words)) if analyzer == "word" else (),
    }
    return {**options, "sublinear_tf": options["vectorizer"] == "ngram" and drawn.draw(st.booleans())}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_df": 1, "min_df": 2}, "max_df 1 corresponds to fewer documents than min_df 2"),
        ({"max_df": 0.1, "min_df": 0.2}, "max_df 0.1 corresponds"),
        ({"max_df": 0}, "max_df 0"),
        ({"min_df": 1.5}, "min_df 1.5"),
        ({"select": "best"}, "select is 'best'; choose one of f_classif, chi2, none"),
        ({"strip_accents": "ascii"}, "strip_accents is 'ascii'; choose one of unicode, none"),
        ({"vectorizer": "sequence", "strip_accents": "none"}, "strip_accents is for n-grams"),
        ({"analyzer": "line"}, "analyzer is 'line'; choose one of word, char, char_wb"),
        ({"analyzer": "char", "stop_words": ("a",)}, "stop_words are words"),
        ({"vectorizer": "count", "sublinear_tf": True}, "sublinear_tf"),
        ({"vectorizer": "hashing", "select": "chi2"}, "select needs a vocabulary"),
        ({"vectorizer": "hashing", "max_features": 1 << 31}, "max_features"),
        ({"vectorizer": "sequence", "stop_words": ("a",)}, "stop_words is for n-grams"),
        ({"vectorizer": "sequence", "min_df": 3}, "min_df is for n-grams, not for vectorizer sequence"),
        ({"vectorizer": "sequence", "ngram_range": (1, 3)}, "ngram_range is for n-grams"),
        ({"vectorizer": "sequence", "max_features": 1}, "max_features 1 must be at least 2"),
        ({"vectorizer": "auto", "max_length": 0}, "max_length 0 at least 1"),
        ({"max_length": 60}, "max_length is for sequences, not for vectorizer ngram"),
        ({"vectorizer": "hashing", "max_length": 60}, "max_length is for sequences"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(options, words):
    with pytest.raises(UsageError, match=words):
        BuildOptions(**options)


def test_stop_words_that_can_match_nothing_are_named():
    idle = idle_stop_words(NgramSettings(stop_words=("ok", "The", "don't", "é", "x", "straße", "über", "中文")))
    assert idle == ["The", "don't", "é", "x", "über"]


def test_limits_that_cross_on_this_corpus_are_refused_as_scikit_learn_does(write_csv, tmp_path):
    path = write_csv("a.csv", [("1", "aa bb"), ("2", "aa bb")] * 5)
    with pytest.raises(UsageError, match=r"max_df 0\.2 corresponds to fewer documents than min_df 3"):
        build(path, tmp_path / "out", BuildOptions(min_df=3, max_df=0.2, validation_fraction=0.0))
    assert_nothing_published(tmp_path / "out")


def test_a_proportion_of_all_documents_and_the_number_one_are_not_the_same():
    assert NgramSettings(min_df=1, max_df=1.0).document_range(10) == (1, 10)
    assert NgramSettings(min_df=1, max_df=1).document_range(10) == (1, 1)


def test_the_command_line_gives_the_same_vectorizer_as_the_options(write_csv, tmp_path):
    path = write_csv("a.csv", [(str(1 + i % 2), f"the ant number{i % 5} and the bee") for i in range(40)])
    (tmp_path / "stop.txt").write_text("the\n\n  and \r\n")
    assert read_stop_words(tmp_path / "stop.txt") == ("the", "and")
    line = [
        "--min-df",
        "0.1",
        "--max-df",
        "39",
        "--stop-words",
        str(tmp_path / "stop.txt"),
        "--binary",
        "--sublinear-tf",
        "--select",
        "chi2",
    ]
    assert main(["build", str(path), "--out", str(tmp_path / "cli"), *line]) == 0
    options = BuildOptions(
        min_df=0.1, max_df=39, stop_words=("and", "the"), binary=True, sublinear_tf=True, select="chi2"
    )
    build(path, tmp_path / "api", options)
    with open_shards(tmp_path / "cli") as ours, open_shards(tmp_path / "api") as theirs:
        assert ours.manifest.vectorizer == theirs.manifest.vectorizer
        assert ours.manifest.fingerprint == theirs.manifest.fingerprint
    with pytest.raises(UsageError, match="cannot be read"):
        read_stop_words(tmp_path / "missing.txt")
    assert main(["build", str(path), "--out", str(tmp_path / "no"), "--max-df", "1", "--min-df", "2"]) == 2


def test_of_equally_frequent_terms_the_first_in_the_order_of_strings_is_kept(write_csv, tmp_path):
    path = write_csv("a.csv", [("1", "dd cc bb aa"), ("2", "dd cc bb aa aa")])
    build(
        path,
        tmp_path / "out",
        BuildOptions(select="none", max_features=2, ngram_range=(1, 1), min_df=1, validation_fraction=0.0),
    )
    with open_shards(tmp_path / "out") as shards:
        terms = shards.manifest.vectorizer["num_features"], np.asarray(shards.train.labels()).tolist()
        assert terms[0] == 2
    assert (tmp_path / "out" / "vectorizer" / "terms.json").read_text().split('"')[1::2] == ["aa", "bb"]


def hashed(texts, *, max_features=1 << 20, stop_words=(), strip_accents="unicode", **options):
    """What HashingVectorizer makes of the texts."""
    oracle = HashingVectorizer(
        strip_accents=None if strip_accents == "none" else strip_accents,
        n_features=max_features,
        stop_words=list(stop_words) or None,
        **options,
    )
    return oracle.transform(texts).astype(np.float32)


HASHED = {
    "words": {"ngram_range": (1, 2)},
    "words with accents": {"ngram_range": (1, 2), "strip_accents": "none"},
    "words, binary": {"ngram_range": (1, 3), "max_features": 1000, "binary": True},
    "characters": {"ngram_range": (2, 4), "analyzer": "char", "max_features": 1 << 16},
    "characters within words": {"ngram_range": (3, 5), "analyzer": "char_wb", "max_features": 77},
}


@pytest.mark.heavy
@pytest.mark.parametrize(("part", "name"), on_one_corpus(HASHED), indirect=["part"])
def test_hashed_rows_of_a_real_corpus(name, part, write_csv, tmp_path):
    classes, texts, others = part
    options = HASHED[name]
    write_csv("corpus/train.csv", zip(map(str, classes), texts, strict=True))
    write_csv("corpus/test.csv", [(str(classes[0]), text) for text in others])
    build(
        tmp_path / "corpus",
        tmp_path / "out",
        BuildOptions(vectorizer="hashing", unescape=False, header=False, validation="test.csv", **options),
    )
    with open_shards(tmp_path / "out") as shards:
        assert shards.description.num_features == options.get("max_features", 1 << 20)
        for split, expected in ((shards.train, texts), (shards.validation, others)):
            assert_same_rows(rows_by_document(split)[0], hashed(expected, **options))
        np.testing.assert_array_equal(rows_by_document(shards.train)[1], classes)
        vectorizer = load_vectorizer(shards.vectorizer_path)
        assert_same_rows(vectorizer.transform(others).to_scipy(), hashed(others, **options))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(texts=TEXTS, drawn=st.data())
def test_hashed_rows_of_any_text(texts, drawn):
    analyzer = drawn.draw(st.sampled_from(["word", "char", "char_wb"]))
    words = st.sets(st.sampled_from(["ab", "cd", "ef", "e"]))
    options = {
        "analyzer": analyzer,
        "ngram_range": drawn.draw(st.sampled_from([(1, 1), (1, 2), (2, 3), (3, 5)])),
        "binary": drawn.draw(st.booleans()),
        "max_features": drawn.draw(st.sampled_from([1, 2, 10, 1 << 20, (1 << 31) - 1])),
        "stop_words": tuple(drawn.draw(words)) if analyzer == "word" else (),
    }
    texts = [text.translate(SURROGATES) for text in texts]
    assert_same_rows(hashed_rows(HashedSettings(**options), texts).to_scipy(), hashed(texts, **options))


def test_hashed_features_say_plainly_that_they_have_no_terms(write_csv, tmp_path):
    path = write_csv("a.csv", [(str(1 + i % 2), f"the ant number{i % 5}") for i in range(40)])
    line = ["--vectorizer", "hashing", "--max-features", "50", "--ngram-range", "1", "1"]
    assert main(["build", str(path), "--out", str(tmp_path / "out"), *line]) == 0
    vectorizer = load_vectorizer(tmp_path / "out" / "vectorizer")
    with pytest.raises(VectorizerError, match="hashed features have no terms"):
        vectorizer.decode(vectorizer.transform(["the ant"]))
    assert vectorizer.transform([]).shape == (0, 50)
    assert "hashed features have no terms" in render(summarize_shards(tmp_path / "out", num_rows=1))


def test_a_later_setting_is_in_the_record_only_where_it_is_not_the_default():
    assert "strip_accents" not in settings_record(NgramSettings())
    assert settings_record(NgramSettings(strip_accents="none"))["strip_accents"] == "none"
    kept = HashedSettings(strip_accents="none")
    assert parse_settings(HashedSettings, settings_record(kept)) == kept
    older = {name: value for name, value in settings_record(NgramSettings()).items() if name != "strip_accents"}
    assert parse_settings(NgramSettings, older) == NgramSettings()
